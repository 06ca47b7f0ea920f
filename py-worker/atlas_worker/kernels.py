"""Convolution kernels that are invariant under a given matrix group: what a discovered algebra makes of a network (METHOD 3.3).

A group acts on kernels as it does on fields, ``(g·K)(u) = K(g⁻¹ u)``, u the offset from the kernel's centre, first coordinate the row. A
convolution with an invariant kernel, of scalar fields, is equivariant up to the factor |det g|, by which g changes areas. A basis of kernels is ``[m, size, size]``, orthonormal.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from . import lie
from .errors import InvalidInput
from .solvers.components import same_component

TOLERANCE = 0.25
"""Change along a generator of norm √2, per unit of norm, up to which a polynomial of degree 1 or 2 counts as invariant; one of higher degree in
proportion, as what a discovered generator is off by is felt so."""
MOST = 0.9
"""The same, whatever the degree: along an exact rotation the next polynomial's change is at least 1."""
SAME = 0.1
"""Sine of the angle up to which generators are one and the same, found twice."""


GaugeGroup = Literal["SO(2)", "GL+(2)"]


def gauge_group(algebra: Tensor) -> GaugeGroup:
    """The gauge group of a network on the sphere whose local symmetry is ``algebra [k, 2, 2]``: the largest with the same kernels.

    Frames cannot be chosen alike all over a sphere (no vector field there is without zeros), so a network must not depend on their
    directions: the algebra has to have the rotations, to within ``TOLERANCE`` of their length, and is refused otherwise. Rotations alone are SO(2).
    Whatever else there is, rotations turn into every direction: a group with more of them than that leaves no kernel alone but constants,
    as GL⁺(2) does. (A function of the radius that is invariant under scaling is constant as well.) Generators count as one where all are
    within ``SAME`` of one direction.

    Raises ``InvalidInput`` for another shape, for numbers that are not finite and for an algebra without rotations.

    >>> turn, grow = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.eye(2)
    >>> gauge_group(turn[None]), gauge_group(torch.stack([turn, grow]))
    ('SO(2)', 'GL+(2)')
    """
    if algebra.dim() != 3 or algebra.shape[1:] != (2, 2) or not bool(algebra.isfinite().all()):
        raise InvalidInput(
            f"the algebra has shape {list(algebra.shape)}, or entries that are not finite",
            "predictor.tensors.algebra",
            "[k, 2, 2]",
        )
    span = lie.frame(lie.sparse_basis(algebra.double().cpu()))
    if len(span):
        unit = functional.normalize(algebra.double().cpu().flatten(1))
        common = torch.linalg.svd(unit).Vh[0]
        off = 1 - (unit @ common).square()[unit.norm(dim=1) > 0]
        if bool((off <= SAME**2).all()):
            span = common.view(1, 2, 2)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64) / math.sqrt(2)
    within = lie.project(span, turn).norm() if len(span) else torch.zeros(())
    distance = float((1 - within.square()).clamp(min=0).sqrt())
    if distance > TOLERANCE:
        raise InvalidInput(
            f"the algebra has no rotations: the nearest generator is {distance:.2f} of its length off",
            "predictor.tensors.algebra",
            f"rotations to within {TOLERANCE}, as frames on a sphere have no common direction",
            "look for more generators, or use a network on charts",
        )
    return "SO(2)" if len(span) == 1 else "GL+(2)"


def grid_symmetries(algebra: Tensor) -> Tensor:
    """The maps of a square grid to itself that lie in the group of ``algebra [k, 2, 2]``: ``[m, 2, 2]``, the identity first; a group.

    Out of the eight of the dihedral group: the four quarter turns for so(2), the identity alone for no algebra.

    >>> len(grid_symmetries(torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])))
    4
    """
    signs = [torch.diag(torch.tensor(s)) for s in itertools.product((1.0, -1.0), repeat=2)]
    flips = [torch.eye(2), torch.eye(2).flip(0)]
    every = torch.stack([s @ f for s in signs for f in flips])
    if not len(algebra):
        return every[:1]
    inside = every[same_component(algebra.double().cpu(), every.double(), torch.eye(2, dtype=torch.float64))]
    # Of an algebra that is no closed group's, such as a spiral's, some may be near by without the rest.
    while True:
        products = torch.einsum("aij,bjk->abik", inside, inside)
        closed = (products[:, :, None] == inside).flatten(3).all(3).any(2).all(1)
        if bool(closed.all()):
            return inside
        inside = inside[closed]


def averaged_kernels(algebra: Tensor, size: int) -> Tensor:
    """Kernels that are their own mean over ``grid_symmetries``: exactly invariant under these, ``[m, size, size]``.

    Seven of size 5 for so(2), the published choice; all ``size²`` for no algebra.
    """
    half = size // 2
    axis = torch.arange(-half, half + 1)
    points = torch.cartesian_prod(axis, axis)
    moves = []
    for g in grid_symmetries(algebra):
        moved = points @ g.long().T + half
        moves.append(moved[:, 0] * size + moved[:, 1])
    # Grid points that are moved to one another share a weight.
    orbit = torch.stack(moves).min(0).values
    basis = torch.stack([(orbit == o).double() for o in orbit.unique().tolist()])
    kernels: Tensor = basis / basis.norm(dim=1, keepdim=True)
    return kernels.reshape(-1, size, size)


def smooth_kernels(algebra: Tensor, size: int, degree: int, width: float) -> Tensor:
    """Kernels sampled from smooth functions of the plane that are invariant under the whole group: ``[m, size, size]``.

    Invariant polynomials up to ``degree`` (those that all of ``algebra [k, 2, 2]`` leave nearly unchanged), times a Gaussian
    ``exp(−Q(u) / 2 width²)`` of the invariant positive quadratic form Q where there is one. For so(2) these are functions of the radius,
    which the grid's own symmetries cannot tell from others; for gl(2) the constant alone. Exactly invariant under those, too, however
    nearly the algebra was found: all is averaged over them.
    """
    half = size // 2
    axis = torch.arange(-half, half + 1, dtype=torch.float64)
    # [symmetries, points, 2]
    points = torch.einsum("gij,pj->gpi", grid_symmetries(algebra).double(), torch.cartesian_prod(axis, axis))
    functions = [p for d in range(degree + 1) for p in invariant_polynomials(algebra, d)]
    values = torch.stack([evaluate(p, points / half).mean(0) for p in functions], 1)
    form = invariant_form(algebra)
    if form is not None:
        squares = torch.einsum("gpi,ij,gpj->gp", points, form, points).mean(0)
        values = values * (-squares / (2 * width**2)).exp()[:, None]
    # A function that the grid hardly tells from the others would only bring in noise.
    left, sizes, _ = torch.linalg.svd(values, full_matrices=False)
    kernels: Tensor = left[:, sizes > 1e-2 * sizes[0]].T.contiguous().unflatten(1, (size, size))
    return kernels


def invariant_polynomials(algebra: Tensor, degree: int) -> Tensor:
    """Homogeneous polynomials of ``degree`` that the group leaves nearly unchanged: ``[m, degree + 1]``.

    Coefficients of ``√binom(d, i) x^(d−i) y^i``, a frame in which rotations act by orthogonal matrices. The derivative along B of a
    polynomial p is ``−(B u) · ∇p``, again of that degree; wanted is what all B take to zero (Lie's criterion), up to ``TOLERANCE``.

    >>> invariant_polynomials(torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]), 2).abs().round(decimals=3)  # x² + y²
    tensor([[0.7070, 0.0000, 0.7070]], dtype=torch.float64)
    """
    if not len(algebra) or not degree:
        return torch.eye(degree + 1, dtype=torch.float64)
    basis = algebra.double().cpu()
    basis = basis * (math.sqrt(2) / basis.flatten(1).norm(dim=1)[:, None, None])
    change = torch.cat([_derivative(b, degree) for b in basis])
    _, sizes, right = torch.linalg.svd(change)
    invariant: Tensor = right[sizes < min(TOLERANCE * max(1.0, degree / 2), MOST)]
    return invariant


def _derivative(b: Tensor, degree: int) -> Tensor:
    """``(B u) · ∇`` on homogeneous polynomials of ``degree``, ``[degree + 1, degree + 1]``, in the frame above."""
    d, scale = degree, [math.sqrt(math.comb(degree, i)) for i in range(degree + 1)]
    m = torch.zeros(d + 1, d + 1, dtype=torch.float64)
    for i in range(d + 1):  # x^(d−i) y^i, whose coordinate is 1 / scale[i]
        # (b00 x + b01 y) ∂x + (b10 x + b11 y) ∂y
        terms = {i: (d - i) * b[0, 0] + i * b[1, 1], i + 1: (d - i) * b[0, 1], i - 1: i * b[1, 0]}
        for j, value in terms.items():
            if 0 <= j <= d:
                m[j, i] += value * scale[i] / scale[j]
    return m


def evaluate(polynomial: Tensor, points: Tensor) -> Tensor:
    """Values ``[...]`` of a polynomial of ``invariant_polynomials`` at ``points [..., 2]``."""
    d = len(polynomial) - 1
    x, y = points.unbind(-1)
    values = [math.sqrt(math.comb(d, i)) * x ** (d - i) * y**i for i in range(d + 1)]
    return torch.stack(values, -1) @ polynomial


def invariant_form(algebra: Tensor) -> Tensor | None:
    """The invariant quadratic form nearest to ``x² + y²``, of trace 2: ``[2, 2]``; None where no positive one is invariant."""
    quadratic = invariant_polynomials(algebra, 2)
    nearest = quadratic.T @ (quadratic @ torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    a, b, c = nearest[0], nearest[1] / math.sqrt(2), nearest[2]
    form = torch.stack([torch.stack([a, b]), torch.stack([b, c])])
    if torch.linalg.eigvalsh(form)[0] <= 0.1 * form.trace() / 2 or form.trace() < 0.1:
        return None
    return 2 * form / form.trace()
