"""Types of features: how a matrix of GL(n) mixes the components of one vector of features.

A type is a sum of terms such as ``2V+S`` (METHOD 1.6).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InvalidInput

TERMS = {
    "S": "scalar: stays as it is",
    "P": "pseudoscalar: changes its sign with det g",
    "V": "vector: g v",
    "C": "covector: g⁻ᵀ v",
    "T": "tensor of rank 2, by rows: g t gᵀ",
    "F": "bilinear form, by rows: g⁻ᵀ t g⁻¹",
}
"""The kinds of terms, and how they move."""

_ORDER = {"S": 0, "P": 0, "V": 1, "C": 1, "T": 2, "F": 2}
_TERM = re.compile(r"([1-9]\d*)?([A-Z])")


@dataclass(frozen=True)
class FeatureType:
    """A sum of terms, such as ``2V+S`` for two vectors and a scalar.

    Args:
        text: The type; spaces around ``+`` do not count.
        n: Size of the matrices.
        field: The parameter that states the type, for errors.

    Raises:
        InvalidInput: The text is not a type.
    """

    text: str
    n: int
    field: str = "type"

    def __post_init__(self) -> None:
        _ = self.terms

    @cached_property
    def terms(self) -> tuple[tuple[int, str], ...]:
        """Number and kind of each term.

        >>> FeatureType("2V + S", 2).terms
        ((2, 'V'), (1, 'S'))
        """
        terms: list[tuple[int, str]] = []
        for part in self.text.split("+"):
            match = _TERM.fullmatch(part.strip())
            if match is None or match[2] not in TERMS:
                raise InvalidInput(
                    f"{self.text!r} is not a type of features: {part.strip()!r} is not a term",
                    self.field,
                    f"a sum such as 2V+S, of {', '.join(TERMS)}",
                )
            terms.append((int(match[1] or 1), match[2]))
        return tuple(terms)

    @property
    def size(self) -> int:
        """Number of components.

        >>> FeatureType("2V+S+T", 3).size
        16
        """
        return sum(count * self.n ** _ORDER[kind] for count, kind in self.terms)

    @property
    def is_scalar(self) -> bool:
        """Whether every component stays as it is."""
        return all(kind == "S" for _, kind in self.terms)

    def __call__(self, g: Tensor) -> Tensor:
        """Compute the representation.

        Args:
            g: Matrices ``[..., n, n]``.

        Returns:
            ``[..., size, size]``, block diagonal.
        """
        dual = torch.linalg.inv(g).mT if any(kind in "CF" for _, kind in self.terms) else g
        rho = g.new_zeros(*g.shape[:-2], self.size, self.size)
        at = 0
        for count, kind in self.terms:
            block = _block(kind, g, dual)
            for _ in range(count):
                end = at + block.shape[-1]
                rho[..., at:end, at:end] = block
                at = end
        return rho

    def check(self, components: int) -> None:
        """Raise ``InvalidInput`` unless the data have as many ``components`` as the type."""
        if components != self.size:
            terms = " + ".join(
                f"{count}·{self.n ** _ORDER[kind]} ({kind})" for count, kind in self.terms
            )
            raise InvalidInput(
                f"type {self.text} has {self.size} components ({terms}), "
                f"but the data have {components}",
                self.field,
                f"a type of {components} components",
            )


def dimension(type: FeatureType, features: int) -> int:
    """Find the n with which a type has a number of components.

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
    sizes = {replace(type, n=n).size: n for n in range(64, 0, -1)}
    if features not in sizes:
        few = ", ".join(f"{replace(type, n=n).size} in R^{n}" for n in (1, 2, 3, 4))
        raise InvalidInput(
            f"type {type.text} has {few} …, but an item has {features} features",
            type.field,
            f"a type of {features} components",
        )
    return sizes[features]


def _block(kind: str, g: Tensor, dual: Tensor) -> Tensor:
    match kind:
        case "S":
            return torch.ones_like(g[..., :1, :1])
        case "P":
            sign: Tensor = torch.linalg.det(g).sign()
            return sign[..., None, None]
        case "V":
            return g
        case "C":
            return dual
    a = g if kind == "T" else dual
    product: Tensor = torch.einsum("...ij,...kl->...ikjl", a, a).flatten(-4, -3).flatten(-2, -1)
    return product
