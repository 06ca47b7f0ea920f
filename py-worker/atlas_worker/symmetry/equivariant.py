"""Linear maps between features that commute with a group (METHOD 5.4).

For representations ρ_in, ρ_out of a group with generators B_i and components h_j, a matrix W is
equivariant if ``dρ_out(B_i) W = W dρ_in(B_i)`` and ``ρ_out(h_j) W = W ρ_in(h_j)`` (Finzi, Welling,
Wilson 2021, "A practical method for constructing equivariant multilayer perceptrons", section 3).
These are linear equations for W; the equivariant maps are their null space. Learnt generators have
errors, so singular values below a cut count as zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InvalidInput
from . import lie
from .ambient import Ambient
from .features import ORDERS, FeatureType

ALGEBRA = "predictor.tensors.algebra"
"""Path of the generators in a request, for errors."""
COMPONENTS = "predictor.tensors.components"
"""Path of the components in a request, for errors."""
EXACT = 1e-6
"""Relative error of generators that are written down, in float32."""
APART = 3.0
"""The number of maps must be the same at the cut and at so many times the cut."""
LEAVING = 10.0
"""Share of a bracket outside of the span that errors may cause, in units of the accuracy."""
SMALL = 0.05
"""Singular value, in units of the largest that is usual, which inexact generators may have made."""
LARGEST = 4096
"""Largest number of entries of a map."""
MOST_TO_CLOSE = 640
"""Largest number of entries of all generators for which the nearest closed algebra is sought."""
TIE = 0.9
"""Entries that are at least so large beside the largest count as being as large."""
SEMISIMPLE = 1e-3
"""Smallest eigenvalue of the Killing form of a semisimple algebra, relative to the largest."""


@dataclass(frozen=True)
class EquivariantMaps:
    """The space of equivariant linear maps, and how it was told from all others."""

    basis: Tensor
    """``[d, q, p]`` float64, orthonormal. With points among the inputs, column p − 1 multiplies a
    constant 1; with points among the outputs, row q − 1 is that of the constant."""
    spectrum: Tensor
    """Singular values ``[p q]`` of the equations, ascending."""
    cut: float
    """Singular values up to the cut count as zero."""
    reason: str
    """Where the cut is, and why, in words."""

    def __len__(self) -> int:
        return len(self.basis)


class Group:
    """A matrix group: the generators of its identity component, and further components.

    The generators are replaced by a basis of their span whose members are orthogonal and have norm
    √n, so that the result depends on the span alone.

    Args:
        generators: ``[k, N, N]``; k may be 0.
        components: ``[m, N, N]``, matrices that generate the other components; m may be 0.
        ambient: The product of groups in which both lie.
        accuracy: Relative error of the generators and components in the Frobenius norm.

    Raises:
        InvalidInput: Generators that are zero, or none of which is certain with the accuracy;
            components that are not invertible; matrices of another shape, with entries that are not
            finite, or outside of the product of groups.
    """

    def __init__(
        self,
        generators: Tensor,
        components: Tensor | None,
        ambient: Ambient,
        accuracy: float = EXACT,
    ) -> None:
        n = ambient.n
        if components is None:
            components = generators.new_zeros(0, n, n)
        given = _checked(generators, n, ALGEBRA, "generators")
        self.components = _checked(components, n, COMPONENTS, "components")
        if not math.isfinite(accuracy) or accuracy < 0:
            raise InvalidInput(
                f"the generators' accuracy is {accuracy}", ALGEBRA, "a number of at least 0"
            )
        self.ambient, self.accuracy = ambient, max(accuracy, EXACT)
        self.closed, self.notes = False, list[str]()
        _inside(given, ambient)
        norms = given.flatten(1).norm(dim=1)
        if len(given) and float(norms.min()) == 0:
            raise InvalidInput("a generator is zero", ALGEBRA, "generators that are not zero")
        sizes = torch.linalg.svdvals(self.components)
        if bool((sizes[:, -1] <= 1e-9 * sizes[:, 0]).any()):
            raise InvalidInput("a component is not invertible", COMPONENTS, "matrices of full rank")
        self.generators = self._frame(given / norms[:, None, None] if len(given) else given)
        leaving = closure_error(self.generators)
        if leaving > LEAVING * self.accuracy:
            self.notes.append(
                f"brackets of the generators leave their span by {leaving:.2g}: they belong to a "
                f"larger algebra, or are less exact than {self.accuracy:.1e}"
            )

    def _frame(self, unit: Tensor) -> Tensor:
        """Return an orthogonal basis of the span, of norm √n each, closed if that is possible."""
        if not len(unit):
            return unit
        n = self.ambient.n
        _, sizes, rows = torch.linalg.svd(unit.flatten(1), full_matrices=False)
        # Nearly parallel generators differ by their errors.
        kept = sizes > max(EXACT, APART * self.accuracy * math.sqrt(len(unit))) * float(sizes[0])
        if not bool(kept.all()):
            self.notes.append(f"{int((~kept).sum())} generators lie in the span of the others")
        if not bool(kept.any()):
            raise InvalidInput(
                f"no generator is certain with an accuracy of {self.accuracy:g}",
                ALGEBRA,
                "generators whose errors are small beside themselves",
                "use the named algebra, or search again with more data",
            )
        basis = rows[kept].unflatten(1, (n, n))
        self.accuracy /= min(1.0, float(sizes[kept][-1]))
        if self.accuracy > EXACT and 1 < len(basis) and basis.numel() <= MOST_TO_CLOSE:
            nearest, moved = closest_algebra(basis, self.ambient.mask())
            if nearest is not None and moved <= APART * self.accuracy * math.sqrt(len(basis)):
                basis, self.closed = nearest, True
                self.notes.append(f"moved by {moved:.2g} to the nearest closed algebra")
        scaled: Tensor = basis * math.sqrt(n)
        return scaled

    @cached_property
    def tolerance(self) -> float:
        """Relative error that is left after the generators were closed.

        A semisimple algebra has no deformations, so the representations of one that is closed have
        exactly as many equivariant maps (Whitehead's lemmas). Others keep the error they had.
        """
        if self.closed and not len(self.components) and is_semisimple(self.generators):
            return EXACT
        return self.accuracy


def equivariant_maps(
    generators: Tensor,
    components: Tensor | None,
    type_in: FeatureType,
    type_out: FeatureType,
    *,
    accuracy: float = EXACT,
) -> EquivariantMaps:
    """Find all linear maps between features that commute with a group.

    With generators scaled to norm √n and a relative error δ, the equations for terms of orders p
    and q (``V`` has order 1, ``T`` 2) have errors of up to ``δ (p + q) √n``. This is the cut: as
    many singular values are zero. The number must be the same at three times the cut. (The largest
    gap of the spectrum would be a wrong cut: exact zeros stand beside zeros of size δ.)

    Args:
        generators: ``[k, N, N]``, elements of the algebra of the types' groups; k may be 0.
        components: ``[m, N, N]``, elements of the groups, or None.
        type_in: The type of the inputs, with p components.
        type_out: The type of the outputs, with q components.
        accuracy: Relative error δ of generators and components; that of a run is its result's.

    Returns:
        The maps ``[d, q, p]``. Affine groups move points by homogeneous coordinates: inputs with
        points have a further component 1, and so have outputs with points. An equivariant affine
        map to points is a combination whose last entry is 1.

    Raises:
        InvalidInput: The matrices do not fit the types, the maps have too many entries, or the
            number of maps is not the same at the cut and at three times the cut.

    >>> turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    >>> vector = FeatureType("V", 2)
    >>> len(equivariant_maps(turn, None, vector, vector))  # scaling and turning
    2
    """
    ambient = type_in.acting
    if type_out.acting != ambient:
        raise InvalidInput(
            f"types {type_in.text} and {type_out.text} belong to different groups",
            "types",
            "types of the same groups",
        )
    group = Group(generators, components, ambient, accuracy)
    if type_in.affine or type_out.affine:
        return _solve(
            group,
            _representation(group, type_in),
            _representation(group, type_out),
            type_in.text,
            type_out.text,
            2 * max(_order(type_in), _order(type_out), 1),
        )
    return _of_terms(group, type_in, type_out)


def _of_terms(group: Group, type_in: FeatureType, type_out: FeatureType) -> EquivariantMaps:
    """Solve for each pair of terms: a map of sums is a matrix of maps of their terms."""
    solved: dict[tuple[str, str], EquivariantMaps] = {}
    bases, spectra = [], []
    for into, rows in type_out.parts():
        for origin, columns in type_in.parts():
            if (origin, into) not in solved:
                solved[origin, into] = maps_of_terms(group, (origin,), into, type_in)
            maps = solved[origin, into]
            spectra.append(maps.spectrum)
            basis = maps.basis.new_zeros(len(maps), type_out.size, type_in.size)
            basis[:, rows, columns] = maps.basis
            bases.append(basis)
    maps = max(solved.values(), key=lambda each: each.cut)
    every = [each for each in solved.values() if each.reason]
    words = "; ".join(dict.fromkeys(each.reason for each in every))
    return EquivariantMaps(torch.cat(bases), torch.cat(spectra).sort().values, maps.cut, words)


def maps_of_terms(
    group: Group, origins: tuple[str, ...], into: str, like: FeatureType
) -> EquivariantMaps:
    """Find the equivariant maps from a product of terms to a term.

    Those of two terms are the equivariant bilinear maps ``(a, b) → W (a ⊗ b)``.

    Args:
        group: The group.
        origins: Kinds of the terms, such as ``("V", "Vb")``.
        into: Kind of the term that is mapped to.
        like: Any type of the same groups.

    Returns:
        ``[d, q, p]`` with p the product of the terms' sizes.
    """

    def one(kind: str) -> tuple[Tensor, Tensor]:
        return _representation(group, replace(like, text=kind))

    derivative, rho = one(origins[0])
    for kind in origins[1:]:
        more, finite = one(kind)
        a, b = (torch.eye(d.shape[-1], dtype=d.dtype) for d in (derivative, more))
        derivative = _kron(derivative, b) + _kron(a, more)
        rho = _kron(rho, finite)
    order = sum(ORDERS[kind[0]] for kind in (*origins, into))
    return _solve(group, (derivative, rho), one(into), "⊗".join(origins), into, max(order, 1))


def _solve(
    group: Group,
    inputs: tuple[Tensor, Tensor],
    outputs: tuple[Tensor, Tensor],
    origin: str,
    into: str,
    order: int,
) -> EquivariantMaps:
    """Compute the null space, given derivatives and values of both representations."""
    p, q = inputs[0].shape[-1], outputs[0].shape[-1]
    if p * q > LARGEST:
        raise InvalidInput(
            f"a map from {origin} to {into} has {q}·{p} entries",
            "types",
            f"types with at most {LARGEST} entries of a map",
            "use smaller types, or several terms in place of one long vector",
        )
    unit_in, unit_out = (torch.eye(size, dtype=torch.float64) for size in (p, q))
    gram = torch.zeros(p * q, p * q, dtype=torch.float64)
    # M = D_out ⊗ 1 − 1 ⊗ D_inᵀ on the rows of W; MᵀM needs no M. Components have norm about √n, as
    # the generators have.
    for before, after in ((inputs[0], outputs[0]), (inputs[1], outputs[1])):
        gram += torch.kron((after.mT @ after).sum(0), unit_in)
        gram += torch.kron(unit_out, (before @ before.mT).sum(0))
        for b, a in zip(before, after, strict=True):
            cross = torch.kron(a, b)
            gram -= cross + cross.mT
    _, vectors = torch.linalg.eigh(gram)
    w = vectors.mT.unflatten(1, (q, p))
    # Eigenvalues of MᵀM lose half of the digits; |M w| does not.
    squares = torch.zeros(len(w), dtype=torch.float64)
    for before, after in ((inputs[0], outputs[0]), (inputs[1], outputs[1])):
        for b, a in zip(before, after, strict=True):
            squares += (a @ w - w @ b).square().sum((1, 2))
    spectrum, sorting = squares.sqrt().sort()
    cut = group.tolerance * order * math.sqrt(group.ambient.n)
    count, further = (int((spectrum <= limit).sum()) for limit in (cut, APART * cut))
    if count != further:
        raise InvalidInput(
            f"the equivariant maps from {origin} to {into} cannot be counted: {count} singular "
            f"values lie below the cut of {cut:.2g}, which is the generators' error, and {further} "
            f"below {APART:g} times the cut",
            ALGEBRA,
            f"generators with errors below {group.tolerance:.2g} of their size",
            "use the named algebra, or search again with more data",
        )
    told = f"{origin} → {into}: {count} of {p * q}"
    if count:
        told += f", singular values up to {float(spectrum[count - 1]):.1e}"
    if count < p * q:
        told += f", the next is {float(spectrum[count]):.2g}"
        if float(spectrum[count]) < SMALL * order * math.sqrt(group.ambient.n):
            told += f" (if the generators are less exact than {group.tolerance:.1e}, it counts too)"
    told += f", cut at {cut:.1e}"
    return EquivariantMaps(_told_by_the_span(w[sorting[:count]]), spectrum, cut, told)


def _told_by_the_span(maps: Tensor) -> Tensor:
    """Return the orthonormal basis of a span of maps ``[d, q, p]`` that the span alone tells.

    It is made of the projections of single entries to the span, each without its part along those
    before: the largest first, or of several that are about as large the first. So the maps of an
    algebra and of another one that is near to it are near to each other too.
    """
    rows = maps.flatten(1)
    left, chosen = rows.clone(), list[Tensor]()
    for _ in range(len(rows)):
        sizes = left.norm(dim=0)
        at = int((sizes >= TIE * sizes.max()).nonzero()[0, 0])
        direction = left[:, at] / sizes[at]
        chosen.append(direction)
        left = left - direction[:, None] * (direction @ left)
    if not chosen:
        return maps
    basis: Tensor = (torch.stack(chosen) @ rows).view_as(maps)
    return basis


def _representation(group: Group, type: FeatureType) -> tuple[Tensor, Tensor]:
    """Return ``dρ(B) [k, size, size]`` and ``ρ(h) [m, size, size]``, homogeneous for points."""
    derivative, rho = type.derivative(group.generators), type(group.components)
    if not type.affine:
        return derivative, rho
    moved = []
    for linear, g, last in ((derivative, group.generators, 0.0), (rho, group.components, 1.0)):
        whole = linear.new_zeros(len(linear), type.size + 1, type.size + 1)
        whole[:, :-1, :-1] = linear
        shift = type.shift(g)
        if shift is not None:
            whole[:, :-1, -1] = shift
        whole[:, -1, -1] = last
        moved.append(whole)
    return moved[0], moved[1]


def _order(type: FeatureType) -> int:
    return max(ORDERS[kind[0]] for _, kind in type.terms)


def _kron(a: Tensor, b: Tensor) -> Tensor:
    """Kronecker products of matrices ``[..., n, n]``, with broadcasting."""
    product: Tensor = torch.einsum("...ij,...kl->...ikjl", a, b)
    return product.flatten(-4, -3).flatten(-2, -1)


def _checked(matrices: Tensor, n: int, path: str, what: str) -> Tensor:
    if matrices.dim() != 3 or matrices.shape[1:] != (n, n):
        raise InvalidInput(
            f"the {what} have shape {list(matrices.shape)}, which does not fit the types",
            path,
            f"[number, {n}, {n}]",
        )
    if not matrices.is_floating_point():
        raise InvalidInput(f"the {what} are {matrices.dtype}", path, "floating-point numbers")
    if not bool(matrices.isfinite().all()):
        raise InvalidInput(
            f"the {what} have entries that are not finite numbers", path, "finite numbers"
        )
    return matrices.detach().double().cpu()


def _inside(generators: Tensor, ambient: Ambient) -> None:
    outside = (generators * ~ambient.mask()).flatten(1).norm(dim=1)
    if len(generators) and bool((outside > 1e-3 * generators.flatten(1).norm(dim=1)).any()):
        raise InvalidInput(
            f"a generator lies outside of {ambient}",
            ALGEBRA,
            f"block-diagonal matrices of {ambient}",
        )


def closure_error(basis: Tensor) -> float:
    """Return the largest share of a bracket of unit members that leaves the span.

    Args:
        basis: ``[k, n, n]``.
    """
    if len(basis) < 2:
        return 0.0
    rows = lie.orthonormal(basis.double().flatten(1))
    return float(_leaving(rows, basis.shape[-1]).norm(dim=-1).max())


def _leaving(rows: Tensor, n: int) -> Tensor:
    """Parts ``[pairs, n²]`` of the brackets of orthonormal ``rows [k, n²]`` outside the span."""
    b = rows.unflatten(1, (n, n))
    i, j = torch.triu_indices(len(b), len(b), 1)
    brackets = lie.bracket(b[i], b[j]).flatten(1)
    leaving: Tensor = brackets - (brackets @ rows.mT) @ rows
    return leaving


def closest_algebra(basis: Tensor, mask: Tensor | None = None) -> tuple[Tensor | None, float]:
    """Find a closed Lie algebra next to a span: Gauss-Newton on its brackets.

    Args:
        basis: An orthonormal basis ``[k, n, n]``.
        mask: Entries ``[n, n]`` that may change; None for all.

    Returns:
        An orthonormal basis of the closed algebra, None if none was reached; and the Grassmann
        distance to it.
    """
    n = basis.shape[-1]
    free = torch.ones(n * n, dtype=torch.bool) if mask is None else mask.flatten()
    start = lie.orthonormal(basis.double().flatten(1)[:, free])

    def full(rows: Tensor) -> Tensor:
        whole = rows.new_zeros(len(rows), n * n)
        whole[:, free] = rows
        return whole

    def residual(change: Tensor, rows: Tensor) -> Tensor:
        return _leaving(lie.orthonormal(full(rows + change)), n).flatten()

    rows = start
    for _ in range(12):
        now = residual(torch.zeros_like(rows), rows)
        if float(now.norm()) < 1e-12:
            break
        slope = torch.func.jacfwd(residual)(torch.zeros_like(rows), rows).flatten(1)
        step = torch.linalg.pinv(slope, rtol=1e-2) @ -now
        rows = lie.orthonormal(rows + step.view_as(rows))
    else:
        if float(residual(torch.zeros_like(rows), rows).norm()) > 1e-9:
            return None, math.inf
    cosines = torch.linalg.svdvals(start @ rows.mT).clamp(max=1.0)
    return full(rows).unflatten(1, (n, n)), float(cosines.acos().norm())


def is_semisimple(basis: Tensor) -> bool:
    """Tell whether a closed algebra has a Killing form of full rank (Cartan's criterion).

    Args:
        basis: An orthogonal basis ``[k, n, n]`` of equal norms.
    """
    rows = lie.orthonormal(basis.flatten(1))
    n = basis.shape[-1]
    b = rows.unflatten(1, (n, n))
    brackets = lie.bracket(b[:, None], b[None]).flatten(2)
    constants = brackets @ rows.mT  # ad_i[j → l]
    killing = torch.einsum("ijl,alj->ia", constants, constants)
    sizes = torch.linalg.eigvalsh(killing).abs()
    return bool(sizes.min() > SEMISIMPLE * sizes.max()) and float(sizes.max()) > SEMISIMPLE
