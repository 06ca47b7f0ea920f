"""Convolution kernels that are invariant under a given matrix group (METHOD 5.2).

A group acts on kernels as it acts on fields: ``(g·K)(u) = K(g⁻¹ u)``, where u is the offset (row,
column) from the kernel's centre. A convolution of scalar fields with an invariant kernel is
equivariant up to the factor |det g|, by which g changes areas. Bases of kernels are
``[m, size, size]`` and orthonormal.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput
from . import lie
from .components import same_component

TOLERANCE = 0.25
"""Change up to which a polynomial of degree 1 or 2 counts as invariant.

The change is along a generator of norm √2, per unit of the polynomial's norm. The limit grows in
proportion to the degree, as does the effect of an error in a generator.
"""
MOST = 0.9
"""Upper bound of ``TOLERANCE`` at any degree.

Along an exact rotation a polynomial that is not invariant changes by at least 1.
"""
DENSITY = 1.6
"""Highest circular harmonic on a ring, per pixel of its radius."""
RING = 0.6
"""Standard deviation of the rings of steerable kernels, in pixels."""
SAME = 0.1
"""Sine of the angle up to which generators count as one."""


GaugeGroup = Literal["SO(2)", "GL+(2)"]
"""Gauge group of a network on the sphere."""


def gauge_group(algebra: Tensor) -> GaugeGroup:
    """Return the gauge group of a network on the sphere with a given local symmetry.

    The frames on a sphere cannot be chosen in the same direction everywhere, since every vector
    field on it has a zero. So a network must not depend on their direction: the algebra must
    contain the rotations, to within ``TOLERANCE`` of their length. Rotations alone are SO(2). If
    the algebra has any further generator, rotations turn it into every direction, and only constant
    kernels are invariant, as for GL⁺(2). (A function of the radius that is invariant under scaling
    is constant as well.) Generators count as one if all of them are within ``SAME`` of one
    direction.

    Args:
        algebra: ``[k, 2, 2]``.

    Returns:
        The largest group that has the same invariant kernels.

    Raises:
        InvalidInput: The algebra has another shape, has entries that are not finite, or does not
            contain the rotations.
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
            "the algebra does not contain the rotations: "
            f"its nearest generator is off by {distance:.2f} of its length",
            "predictor.tensors.algebra",
            f"an algebra with rotations to within {TOLERANCE} of their length",
            "look for more generators, or use a network on charts",
        )
    return "SO(2)" if len(span) == 1 else "GL+(2)"


def grid_symmetries(algebra: Tensor) -> Tensor:
    """Return the maps of a square grid to itself that lie in the group of an algebra.

    The candidates are the eight maps of the dihedral group. The result is a group: the four quarter
    turns for so(2), only the identity for an empty algebra.

    Args:
        algebra: ``[k, 2, 2]``.

    Returns:
        ``[m, 2, 2]``, the identity first.

    >>> len(grid_symmetries(torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])))
    4
    """
    signs = [torch.diag(torch.tensor(s)) for s in itertools.product((1.0, -1.0), repeat=2)]
    flips = [torch.eye(2), torch.eye(2).flip(0)]
    every = torch.stack([s @ f for s in signs for f in flips])
    if not len(algebra):
        return every[:1]
    inside = every[
        same_component(algebra.double().cpu(), every.double(), torch.eye(2, dtype=torch.float64))
    ]
    # For an algebra of no closed group, e.g. of a spiral, some maps may be near without the others.
    while True:
        products = torch.einsum("aij,bjk->abik", inside, inside)
        closed = (products[:, :, None] == inside).flatten(3).all(3).any(2).all(1)
        if bool(closed.all()):
            return inside
        inside = inside[closed]


def averaged_kernels(algebra: Tensor, size: int) -> Tensor:
    """Return kernels that equal their mean over :func:`grid_symmetries`.

    They are exactly invariant under these maps. For so(2) and size 5 there are seven, as in the
    AtlasD code; for an empty algebra there are ``size²``.

    Args:
        algebra: ``[k, 2, 2]``.
        size: Width of the kernels in pixels, odd.

    Returns:
        ``[m, size, size]``.
    """
    half = size // 2
    axis = torch.arange(-half, half + 1)
    points = torch.cartesian_prod(axis, axis)
    moves = []
    for g in grid_symmetries(algebra):
        moved = points @ g.long().T + half
        moves.append(moved[:, 0] * size + moved[:, 1])
    # Grid points that the maps take to one another share a weight.
    orbit = torch.stack(moves).min(0).values
    basis = torch.stack([(orbit == o).double() for o in orbit.unique().tolist()])
    kernels: Tensor = basis / basis.norm(dim=1, keepdim=True)
    return kernels.reshape(-1, size, size)


def smooth_kernels(algebra: Tensor, size: int, degree: int, width: float) -> Tensor:
    """Return kernels sampled from smooth functions that are invariant under the whole group.

    The functions are polynomials that the algebra leaves nearly unchanged. If there is an invariant
    positive quadratic form Q, they are multiplied by ``exp(−Q(u) / 2 width²)``. For so(2) these are
    functions of the radius, which an average over the grid's own symmetries could not single out.
    For gl(2) only the constant remains. The kernels are also averaged over
    :func:`grid_symmetries`, so they are exactly invariant under these, however inaccurate the
    algebra is.

    Args:
        algebra: ``[k, 2, 2]``.
        size: Width of the kernels in pixels, odd.
        degree: Largest degree of the polynomials.
        width: Standard deviation of the Gaussian in pixels.

    Returns:
        ``[m, size, size]``.
    """
    half = size // 2
    axis = torch.arange(-half, half + 1, dtype=torch.float64)
    # [symmetries, points, 2]
    points = torch.einsum(
        "gij,pj->gpi", grid_symmetries(algebra).double(), torch.cartesian_prod(axis, axis)
    )
    functions = [p for d in range(degree + 1) for p in invariant_polynomials(algebra, d)]
    values = torch.stack([evaluate(p, points / half).mean(0) for p in functions], 1)
    form = invariant_form(algebra)
    if form is not None:
        squares = torch.einsum("gpi,ij,gpj->gp", points, form, points).mean(0)
        values = values * (-squares / (2 * width**2)).exp()[:, None]
    # A function that is hardly distinct from the others on the grid would only add noise.
    left, sizes, _ = torch.linalg.svd(values, full_matrices=False)
    kernels: Tensor = left[:, sizes > 1e-2 * sizes[0]].T.contiguous().unflatten(1, (size, size))
    return kernels


def invariant_polynomials(algebra: Tensor, degree: int) -> Tensor:
    """Return homogeneous polynomials that the group leaves nearly unchanged.

    The coefficients belong to ``√binom(d, i) x^(d−i) y^i``, a basis in which rotations act by
    orthogonal matrices. The derivative of a polynomial p along B is ``−(B u) · ∇p``, which has the
    same degree. By Lie's criterion p is invariant if all B give zero; here up to ``TOLERANCE``.

    Args:
        algebra: ``[k, 2, 2]``.
        degree: The degree d.

    Returns:
        ``[m, degree + 1]``.

    >>> turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    >>> invariant_polynomials(turn, 2).abs().round(decimals=3)  # x² + y²
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
    """Matrix of ``(B u) · ∇`` on polynomials of ``degree``, in the basis above."""
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
    """Values ``[...]`` of a polynomial of :func:`invariant_polynomials` at ``points [..., 2]``."""
    d = len(polynomial) - 1
    x, y = points.unbind(-1)
    values = [math.sqrt(math.comb(d, i)) * x ** (d - i) * y**i for i in range(d + 1)]
    return torch.stack(values, -1) @ polynomial


def invariant_form(algebra: Tensor) -> Tensor | None:
    """Return the invariant quadratic form ``[2, 2]`` nearest to ``x² + y²``, with trace 2.

    Returns None if no positive form is invariant.
    """
    quadratic = invariant_polynomials(algebra, 2)
    nearest = quadratic.T @ (quadratic @ torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    a, b, c = nearest[0], nearest[1] / math.sqrt(2), nearest[2]
    form = torch.stack([torch.stack([a, b]), torch.stack([b, c])])
    if torch.linalg.eigvalsh(form)[0] <= 0.1 * form.trace() / 2 or form.trace() < 0.1:
        return None
    return 2 * form / form.trace()


def steerable_kernels(algebra: Tensor, size: int, before: int, after: int, rings: int) -> Tensor:
    """Return kernels from features of one angular order to features of another.

    For a turn g by α, with ρ_m the turn by mα (and ρ_0 = 1), the kernels obey
    ``K(g u) = ρ_after(g) K(u) ρ_before(g)⁻¹``. In polar coordinates they are functions of the
    radius times circular harmonics of the orders ``after ± before`` (Weiler and Cesa 2019, "General
    E(2)-equivariant steerable CNNs", appendix F). For a rotation in other coordinates, radius and
    angle are taken in the coordinates in which the invariant form is that of the unit circle.

    Args:
        algebra: ``[1, 2, 2]``, a rotation in some coordinates.
        size: Width of the kernels in pixels, odd.
        before: Order m of the inputs: 1 component for 0, otherwise 2.
        after: Order of the outputs.
        rings: Number of rings, from the centre to the border.

    Returns:
        ``[d, q, p, size, size]``, each of norm 1; d is 0 if the rings have too few pixels.

    Raises:
        InvalidInput: The algebra is not that of rotations.
    """
    form = _form_of_rotations(algebra)
    values, vectors = torch.linalg.eigh(form)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    sense = math.copysign(1.0, float((root @ algebra[0].double() @ torch.linalg.inv(root))[1, 0]))
    half = size // 2
    axis = torch.arange(-half, half + 1, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis) @ root.T
    radius, angle = points.norm(dim=1), sense * torch.atan2(points[:, 1], points[:, 0])
    kernels = []
    for ring in range(rings):
        at = half * ring / max(rings - 1, 1)
        profile = (-(radius - at).square() / (2 * RING**2)).exp()
        for frequency, mirrored in ((after - before, False), (after + before, True)):
            if mirrored and not (before and after):
                continue
            # A ring of few pixels cannot hold higher harmonics.
            if abs(frequency) > round(DENSITY * at):
                continue
            # The harmonic's value at the centre is that of every angle: none but a constant's.
            window = profile if frequency == 0 else profile * (radius > 1e-9)
            for phase in (0.0, math.pi / 2):
                t = frequency * angle + phase
                turn = torch.stack(
                    [torch.stack([t.cos(), -t.sin()]), torch.stack([t.sin(), t.cos()])]
                )
                if mirrored:
                    turn = turn * torch.tensor([1.0, -1.0], dtype=torch.float64)[None, :, None]
                block = turn[: 2 if after else 1, : 2 if before else 1] * window
                if float(block.norm()) > 1e-6:
                    kernels.append(block / block.norm())
    shape = (2 if after else 1, 2 if before else 1, size, size)
    if not kernels:
        return torch.zeros(0, *shape, dtype=torch.float64)
    return torch.stack(kernels).view(-1, *shape)


def smoothing_kernel(algebra: Tensor, size: int, width: float) -> Tensor:
    """Return a Gaussian of the invariant quadratic form of a rotation, whose entries sum to 1.

    Args:
        algebra: ``[1, 2, 2]``, a rotation in some coordinates.
        size: Width of the kernel in pixels, odd.
        width: Standard deviation in pixels, on average over directions.

    Returns:
        ``[size, size]``.

    Raises:
        InvalidInput: The algebra is not that of rotations.
    """
    form = _form_of_rotations(algebra)
    axis = torch.arange(-(size // 2), size // 2 + 1, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    squares = torch.einsum("pi,ij,pj->p", points, form, points)
    kernel: Tensor = (-squares / (2 * width**2)).exp().view(size, size)
    return kernel / kernel.sum()


def _form_of_rotations(algebra: Tensor) -> Tensor:
    """Return the invariant form ``[2, 2]`` of one rotation; refuse any other algebra."""
    form = invariant_form(algebra) if len(algebra) == 1 else None
    if form is None:
        raise InvalidInput(
            "the algebra is not one rotation, so features have no angular order",
            "predictor.tensors.algebra",
            "one generator of rotations, perhaps in other coordinates",
            "use convnet with smooth kernels",
        )
    return form
