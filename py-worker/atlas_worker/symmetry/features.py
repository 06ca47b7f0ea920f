"""Types of features: how a matrix mixes the components of one vector of features.

A type is a sum of terms such as ``2V+S`` (METHOD 1.6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InvalidInput
from .ambient import Ambient, Factor

TERMS = {
    "S": "scalar: stays as it is",
    "P": "pseudoscalar: changes its sign with det g",
    "V": "vector: g v",
    "C": "covector: g⁻ᵀ v",
    "T": "tensor of rank 2, by rows: g t gᵀ",
    "F": "bilinear form, by rows: g⁻ᵀ t g⁻¹",
}
"""The kinds of terms that move linearly, and how."""
POINT = "X"
"""The kind of a point, which affine maps translate too: ``A x + t``."""

LARGEST = 64
"""Largest dimension of a factor."""

ORDERS = {"S": 0, "P": 0, "V": 1, "C": 1, "T": 2, "F": 2, POINT: 1}
"""How many factors g each kind of term has."""
_TERM = re.compile(r"([1-9]\d*)?([A-Z])([a-mo-z]?)")  # n stands for a dimension


@dataclass(frozen=True)
class FeatureType:
    """A sum of terms, such as ``2V+S`` for two vectors and a scalar.

    A small letter after a term names the group that moves it: in ``V+2Vb`` the group b moves two
    vectors, and a further group the first. Groups act independently of each other.

    Args:
        text: The type; spaces around ``+`` do not count.
        n: Size of the matrices of the group without a letter.
        field: The parameter that states the type, for errors.
        ambient: The product of all groups; None for one group, which translates if there are
            points.

    Raises:
        InvalidInput: The text is not a type.
    """

    text: str
    n: int
    field: str = "type"
    ambient: Ambient | None = None

    def __post_init__(self) -> None:
        _ = self.terms

    @cached_property
    def terms(self) -> tuple[tuple[int, str], ...]:
        """Number and kind of each term, the kind with the letter of its group.

        >>> FeatureType("2V + S", 2).terms
        ((2, 'V'), (1, 'S'))
        >>> FeatureType("V+2Vb", 2).terms
        ((1, 'V'), (2, 'Vb'))
        """
        terms: list[tuple[int, str]] = []
        for part in self.text.split("+"):
            match = _TERM.fullmatch(part.strip())
            if match is None or match[2] not in ORDERS:
                raise InvalidInput(
                    f"{self.text!r} is not a type of features: {part.strip()!r} is not a term",
                    self.field,
                    f"a sum such as 2V+S, of {', '.join([*TERMS, POINT])}",
                )
            if match[2] == "S" and match[3]:
                raise InvalidInput(
                    f"{self.text!r} is not a type of features: no group moves a scalar",
                    self.field,
                    f"S in place of S{match[3]}",
                )
            terms.append((int(match[1] or 1), match[2] + match[3]))
        return tuple(terms)

    @property
    def groups(self) -> frozenset[str]:
        """Letters of the groups that move a term; empty for the one without a letter."""
        return frozenset(kind[1:] for _, kind in self.terms if kind != "S")

    @property
    def affine(self) -> frozenset[str]:
        """Letters of the groups that translate points."""
        return frozenset(kind[1:] for _, kind in self.terms if kind[0] == POINT)

    @cached_property
    def acting(self) -> Ambient:
        """The product of all groups."""
        return self.ambient or Ambient((Factor("", self.n, "" in self.affine),))

    def _dimension(self, group: str) -> int:
        return next((f.n for f in self.acting.factors if f.name == group), self.n)

    def _size_of(self, kind: str) -> int:
        return int(self._dimension(kind[1:]) ** ORDERS[kind[0]])

    @property
    def size(self) -> int:
        """Number of components.

        >>> FeatureType("2V+S+T", 3).size
        16
        """
        return sum(count * self._size_of(kind) for count, kind in self.terms)

    @property
    def is_scalar(self) -> bool:
        """Whether every component stays as it is."""
        return all(kind == "S" for _, kind in self.terms)

    def parts(self) -> Iterator[tuple[str, slice]]:
        """Iterate over the single terms: the kind of each, and its components."""
        at = 0
        for count, kind in self.terms:
            for _ in range(count):
                end = at + self._size_of(kind)
                yield kind, slice(at, end)
                at = end

    def __call__(self, g: Tensor) -> Tensor:
        """Compute the representation; of an affine map, its linear part.

        Args:
            g: Matrices ``[..., N, N]`` of the product of all groups, n by n for one group.

        Returns:
            ``[..., size, size]``, block diagonal.
        """
        rho = g.new_zeros(*g.shape[:-2], self.size, self.size)
        blocks: dict[str, Tensor] = {}
        for kind, at in self.parts():
            if kind not in blocks:
                blocks[kind] = _block(kind[0], g if kind == "S" else self._part(g, kind[1:]))
            rho[..., at, at] = blocks[kind]
        return rho

    def _part(self, g: Tensor, group: str) -> Tensor:
        return self.acting.linear_part(g, group)

    def derivative(self, a: Tensor) -> Tensor:
        """Compute the representation of the algebra; of affine maps, of their linear part.

        Args:
            a: Elements ``[..., N, N]`` of the algebra of the product of all groups.

        Returns:
            ``d/dt ρ(exp(t a))`` at t = 0: ``[..., size, size]``, block diagonal.
        """
        rho = a.new_zeros(*a.shape[:-2], self.size, self.size)
        for kind, at in self.parts():
            if kind[0] not in "SP":
                rho[..., at, at] = _derivative(kind[0], self._part(a, kind[1:]))
        return rho

    def shift(self, g: Tensor) -> Tensor | None:
        """Compute by how much affine maps ``g [..., N, N]`` translate the components.

        Returns:
            ``[..., size]``; None for a type without points.
        """
        if not self.affine:
            return None
        shift = g.new_zeros(*g.shape[:-2], self.size)
        for kind, at in self.parts():
            if kind[0] == POINT:
                shift[..., at] = self.acting.translation(g, kind[1:])
        return shift

    def check(self, components: int) -> None:
        """Raise ``InvalidInput`` unless the data have as many ``components`` as the type."""
        if components != self.size:
            terms = " + ".join(
                f"{count}·{self._size_of(kind)} ({kind})" for count, kind in self.terms
            )
            raise InvalidInput(
                f"type {self.text} has {self.size} components ({terms}), "
                f"but the data have {components}",
                self.field,
                f"a type of {components} components",
            )


def own_terms(type: FeatureType | None, outputs: int) -> list[slice]:
    """Return the ranges of a type's terms, or a range for each output if there is no type."""
    if type is None:
        return [slice(i, i + 1) for i in range(outputs)]
    return [part for _, part in type.parts()]


def dimension(type: FeatureType, features: int) -> int:
    """Find the n with which a type of one group has a number of components.

    Args:
        type: The type, of any n.
        features: The number of components.

    Returns:
        n, from 1 to 64.

    Raises:
        InvalidInput: There is no such n.

    >>> dimension(FeatureType("2V+S", 1), 7)
    3
    """
    sizes = {replace(type, n=n).size: n for n in range(LARGEST, 0, -1)}
    if features not in sizes:
        few = ", ".join(f"{replace(type, n=n).size} in R^{n}" for n in (1, 2, 3, 4))
        raise InvalidInput(
            f"type {type.text} has {few} …, but an item has {features} features",
            type.field,
            f"a type of {features} components",
        )
    return sizes[features]


def dimensions(
    types: Sequence[tuple[FeatureType, int]], known: Mapping[str, int], field: str = "dimensions"
) -> dict[str, int]:
    """Find the dimensions of several groups from numbers of components.

    Dimensions of at least 2 are preferred: vectors of one component are only taken where nothing
    else fits.

    Args:
        types: Types, each with the number of its components; 0 if that is not known.
        known: Dimensions that are given, by the letters of the groups.
        field: The parameter that gives them, for errors.

    Returns:
        The dimension of each group.

    Raises:
        InvalidInput: No dimensions fit, or several do.

    >>> dimensions([(FeatureType("Va+2Vb", 1), 7)], {"b": 2})
    {'a': 3, 'b': 2}
    """
    names = sorted(frozenset().union(*(type.groups for type, _ in types)))
    for name in known:
        if name and name not in names:
            raise InvalidInput(
                f"no term of the types belongs to the group {name}",
                field,
                f"dimensions of {', '.join(name or 'n' for name in names)}",
            )
    counted = [(type, size) for type, size in types if size]
    told = frozenset(known).union(*(type.groups for type, _ in counted))
    missing = [name for name in names if name not in told]
    if missing:
        raise InvalidInput(
            f"the data do not tell the dimension of the group {missing[0] or 'without a letter'}",
            field,
            f"its dimension, such as {missing[0] or 'n'}=2",
        )
    found = list(_fitting(counted, names, {}, known))
    wide = [sizes for sizes in found if all(n > 1 or g in known for g, n in sizes.items())]
    fitting = wide or found
    if len(fitting) == 1:
        return fitting[0]
    type, size = counted[0] if counted else types[0]
    if not fitting:
        rest = f" with {_shown(known)}" if known else ""
        sums = "; ".join(
            f"{type.text} has {_formula(type)} components, but the data have {size}"
            for type, size in counted
        )
        raise InvalidInput(
            f"no dimensions of the groups fit{rest}: {sums}",
            type.field,
            f"a type of {size} components",
        )
    some = " or ".join(_shown(sizes) for sizes in fitting[:3])
    more = " …" if len(fitting) > 3 else ""
    raise InvalidInput(
        f"several dimensions of the groups fit type {type.text}: {some}{more}",
        field,
        f"the dimension of each group, such as {_shown(fitting[0])}",
    )


def _fitting(
    types: Sequence[tuple[FeatureType, int]],
    names: Sequence[str],
    chosen: Mapping[str, int],
    known: Mapping[str, int],
) -> Iterator[dict[str, int]]:
    """Yield the dimensions with which all types have their number of components."""
    for type, size in types:
        settled = _count(type, chosen)
        if settled > size:
            return
    if len(chosen) == len(names):
        if all(_count(type, chosen) == size for type, size in types):
            yield dict(chosen)
        return
    name = names[len(chosen)]
    choices = [known[name]] if name in known else range(1, LARGEST + 1)
    for n in choices:
        yield from _fitting(types, names, {**chosen, name: n}, known)


def _count(type: FeatureType, dimensions: Mapping[str, int]) -> int:
    """Count the components of the terms whose dimension is known; the others have one each."""
    return sum(count * dimensions.get(kind[1:], 1) ** ORDERS[kind[0]] for count, kind in type.terms)


def _formula(type: FeatureType) -> str:
    """Write a number of components: ``n_a + 2·n_b²``."""
    parts = []
    for count, kind in type.terms:
        order, group = ORDERS[kind[0]], kind[1:]
        n = f"n_{group}" if group else "n"
        base = {0: "1", 1: n, 2: f"{n}²"}[order]
        parts.append(base if count == 1 else f"{count}·{base}" if order else str(count))
    return " + ".join(parts)


def product(
    types: Sequence[FeatureType | None], n: int, dimensions: Mapping[str, int], *, plain: bool
) -> Ambient:
    """Return the product of all groups that move something.

    Args:
        types: The types of inputs and outputs.
        n: Dimension of the group without a letter.
        dimensions: Dimensions of the groups with a letter.
        plain: Whether the group without a letter is there even if no term belongs to it: it moves
            the map of a field.
    """
    given = [type for type in types if type is not None]
    names = frozenset().union(*(type.groups for type in given))
    affine = frozenset().union(*(type.affine for type in given))
    if plain or not names:
        names |= {""}
    return Ambient(
        tuple(
            Factor(name, dimensions.get(name, 1) if name else n, name in affine, plain and not name)
            for name in sorted(names)
        )
    )


def write_dimensions(dimensions: Mapping[str, int]) -> str:
    """Write what :func:`parse_dimensions` reads, for the groups with a letter."""
    return _shown({name: n for name, n in dimensions.items() if name})


def _shown(dimensions: Mapping[str, int]) -> str:
    return ",".join(f"{group or 'n'}={n}" for group, n in sorted(dimensions.items()))


def parse_dimensions(text: str, field: str) -> dict[str, int]:
    """Read the dimensions of groups, such as ``a=2,b=3``, by the groups' letters.

    ``n=3`` is the dimension of the group without a letter.

    Args:
        text: The text; empty for none.
        field: The parameter, for errors.

    Raises:
        InvalidInput: The text is something else.

    >>> parse_dimensions("n=3,b=2", "dimensions")
    {'': 3, 'b': 2}
    """
    found: dict[str, int] = {}
    for part in text.split(",") if text.strip() else []:
        match = re.fullmatch(r"\s*([a-z])\s*=\s*(\d{1,2})\s*", part)
        name = "" if match is None or match[1] == "n" else match[1]
        if match is None or name in found or not 1 <= int(match[2]) <= LARGEST:
            raise InvalidInput(
                f"{text!r} are no dimensions of groups",
                field,
                f"such as a=2,b=3, each from 1 to {LARGEST}",
            )
        found[name] = int(match[2])
    return found


def _block(kind: str, g: Tensor) -> Tensor:
    match kind:
        case "S":
            return torch.ones_like(g[..., :1, :1])
        case "P":
            sign: Tensor = torch.linalg.det(g).sign()
            return sign[..., None, None]
        case "V" | "X":
            return g
        case "C":
            dual: Tensor = torch.linalg.inv(g).mT
            return dual
    a = g if kind == "T" else torch.linalg.inv(g).mT
    square: Tensor = torch.einsum("...ij,...kl->...ikjl", a, a).flatten(-4, -3).flatten(-2, -1)
    return square


def _derivative(kind: str, a: Tensor) -> Tensor:
    if kind in ("C", "F"):
        a = -a.mT
    if kind not in ("T", "F"):
        return a
    unit = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    left = torch.einsum("...ij,kl->...ikjl", a, unit)
    right = torch.einsum("ij,...kl->...ikjl", unit, a)
    square: Tensor = (left + right).flatten(-4, -3).flatten(-2, -1)
    return square
