"""The components of a group lie in the normaliser of its identity component (METHOD 2.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import lie
from .ambient import Ambient
from .newton import Problem, Quadratic, minimise
from .space import Space

ITERATIONS = 60
"""Largest number of iterations towards the normaliser."""
LEAST_STEP, LEAST_DECREASE = 1e-3, 1e-6
"""Length of a step, and decrease of the loss, after which a matrix has arrived."""
NEAR = 0.1
"""Defect up to which a matrix is near the normaliser of an algebra that is known roughly."""
SMALL = 0.01
"""Weight of a start's mean squared entry beside its defect."""

NEWTON_STEPS = 12
"""Steps of Newton's method onto the normaliser of a restricted space."""
SETTLED = 1e-4
"""Defect below which a matrix counts as in the normaliser of a restricted space."""


def project_to_normaliser(
    starts: Tensor, algebra: Tensor, ambient: Ambient | None = None
) -> Tensor:
    """Move matrices to the normaliser of an algebra, each within its sign of the determinant.

    The identity component of a Lie group is a normal subgroup, so every symmetry C has ``C B C⁻¹``
    in the algebra for all B in the algebra. This condition on C needs no data. Without it the
    search would have to find a set, which may be very thin, from the data.

    Levenberg and Marquardt's method minimises ``Σ_i ‖C B_i C⁻¹ − projection‖² / ‖C B_i C⁻¹‖²``,
    with a slight preference for matrices of small norm; otherwise starts would become needlessly
    large boosts.

    Args:
        starts: Matrices ``[m, n, n]``.
        algebra: Generators ``[k, n, n]`` of the identity component.
        ambient: The whole group, in which the matrices stay; None for GL(n).

    Returns:
        ``[m, n, n]``; ``starts`` if the condition says nothing (an empty algebra, or scalings).
    """
    group = ambient or Ambient.linear(starts.shape[-1])
    basis = algebra.double().cpu()
    if len(basis):
        basis = lie.sparse_basis(basis)
    frame = lie.frame(basis)
    c = group.normalise(starts.double().cpu())
    if not len(frame) or float(defect(c, frame).max()) < 1e-9:
        return starts
    projected = group.normalise(_descend(c, group.traceless(), frame)).to(starts)
    fine = torch.isfinite(projected).flatten(1).all(1) & (
        (group.signs(projected) == group.signs(starts)).all(-1)
    )
    return torch.where(fine[:, None, None], projected, starts)


def settled(starts: Tensor, algebra: Tensor) -> Tensor:
    """Select the matrices that came to the normaliser of an algebra, if most of them did.

    The others ended in a minimum away from it, where no symmetry is.

    Args:
        starts: Matrices ``[m, n, n]``, as :func:`project_to_normaliser` returns them.
        algebra: Generators ``[k, n, n]``.

    Returns:
        Those of the matrices; all of them if fewer than half came there.
    """
    if not len(algebra):
        return starts
    frame = lie.frame(lie.sparse_basis(algebra.double().cpu()))
    there = defect(starts.double().cpu(), frame) < NEAR
    return starts[there] if 2 * int(there.sum()) >= len(starts) else starts


def _descend(c: Tensor, units: Tensor, frame: Tensor) -> Tensor:
    """Move matrices to the normaliser of an algebra, as ``exp(Y) C``, which keeps their signs.

    Args:
        c: ``[m, n, n]`` float64, with determinants ±1.
        units: Directions of Y, ``[e, n, n]``, without a trace.
        frame: An orthonormal frame ``[k, n, n]`` of the algebra.

    Returns:
        ``[m, n, n]``.
    """
    weight = SMALL**0.5 / c.shape[-1]

    def off(a: Tensor) -> Tensor:
        outside: Tensor = a - lie.combine(frame, lie.project(frame, a))
        return outside

    def values(points: Tensor) -> Tensor:
        return defect(points, frame) + SMALL * points.square().mean((-2, -1))

    def quadratic(points: Tensor) -> Quadratic:
        moved = points[:, None] @ frame @ torch.linalg.inv_ex(points).inverse[:, None]
        size = moved.flatten(2).norm(dim=2)[..., None, None].clamp(min=1e-6)
        d = moved / size  # [m, k, n, n], as are the residuals off(d)
        # exp(Y) C changes C B C⁻¹ by [Y, C B C⁻¹], and C by Y C.
        change = lie.bracket(units[:, None], d[:, None])  # [m, e, k, n, n]
        along = (change * d[:, None]).sum((-2, -1), keepdim=True)
        slopes = (off(change) - along * off(d)[:, None]).flatten(2) / len(frame) ** 0.5
        small = weight * (units @ points[:, None]).flatten(2)
        jacobian = torch.cat([slopes, small], 2)  # [m, e, k n² + n²]
        residuals = [off(d).flatten(1) / len(frame) ** 0.5, weight * points.flatten(1)]
        gradient = 2 * (jacobian @ torch.cat(residuals, 1)[..., None])[..., 0]
        return Quadratic(values(points), gradient, 2 * jacobian @ jacobian.mT)

    def move(points: Tensor, steps: Tensor) -> Tensor:
        moved: Tensor = lie.expm(lie.combine(units, steps)) @ points
        return moved

    return minimise(
        Problem(values, quadratic, move),
        c,
        ITERATIONS,
        least_step=LEAST_STEP,
        least_decrease=LEAST_DECREASE,
    ).points


def defect(matrices: Tensor, frame: Tensor) -> Tensor:
    """Compute which part of ``C B C⁻¹`` is outside of an algebra, mean over its frame.

    Args:
        matrices: C, ``[m, n, n]``.
        frame: An orthonormal frame ``[k, n, n]`` of the algebra.

    Returns:
        ``[m]``, from 0 to 1.
    """
    moved = matrices[:, None] @ frame @ torch.linalg.inv_ex(matrices).inverse[:, None]
    off = moved - lie.combine(frame, lie.project(frame, moved))
    per: Tensor = off.square().sum((-2, -1)) / moved.square().sum((-2, -1)).clamp(min=1e-12)
    return per.mean(1)


def restricted_starts(space: Space, drawn: Tensor, algebra: Tensor) -> Tensor:
    """Move matrices to the normaliser of a restricted space, and of an algebra in it.

    A restriction to an algebra restricts the components to its normaliser: for so(n) these are the
    orthogonal matrices. Matrices that do not get there are replaced by those that do.

    Args:
        space: The restricted space.
        drawn: Matrices ``[m, n, n]``.
        algebra: Generators ``[k, n, n]`` of the identity component, in the space's coordinates.

    Returns:
        ``[m, n, n]``, in the space's coordinates.
    """
    frame = space.inward(space.basis)
    c = space.ambient.normalise(project_to_normaliser(drawn, frame, space.ambient).double().cpu())
    c = _newton(c, frame, space.ambient)
    steps = space.normaliser()
    c = _unit_determinants(c, space)
    inner = lie.frame(lie.sparse_basis(algebra.double().cpu())) if len(algebra) else algebra
    if len(inner) and len(steps) and float(defect(c, inner).max()) > 1e-9:
        c = _descend(c, steps, inner)
    fine = torch.isfinite(c).flatten(1).all(1) & (defect(c, frame) < SETTLED)
    good = c[fine] if bool(fine.any()) else torch.eye(space.n, dtype=c.dtype)[None]
    spare = good[torch.arange(len(c)) % len(good)]
    return torch.where(fine[:, None, None], c, spare).to(drawn)


def _newton(c: Tensor, frame: Tensor, ambient: Ambient) -> Tensor:
    """Bring matrices that nearly normalise an algebra onto its normaliser.

    A step ``(I + Y) C`` changes ``D = C B C⁻¹`` by ``[Y, D]``. Y is the shortest matrix of the
    ambient algebra with which the part outside of the span vanishes to first order.
    """
    units, k = ambient.algebra(), len(frame)

    def outside(m: Tensor) -> Tensor:
        off: Tensor = m - lie.combine(frame, lie.project(frame, m))
        return off

    for _ in range(NEWTON_STEPS):
        moved = c[:, None] @ frame @ torch.linalg.inv_ex(c).inverse[:, None]  # [m, k, n, n]
        moved = torch.nan_to_num(moved, 0.0, 0.0, 0.0)
        change = outside(lie.bracket(units[:, None], moved[:, None])).flatten(2)  # [m, a, k n²]
        wanted = -outside(moved).reshape(len(c), 1, k * frame[0].numel())
        y = (wanted @ torch.linalg.pinv(change, rtol=1e-6))[:, 0]
        step = lie.combine(units, y)
        step = step / step.flatten(1).norm(dim=1).clamp(min=1.0)[:, None, None]
        c = lie.expm(step) @ c
    return c


def _unit_determinants(c: Tensor, space: Space) -> Tensor:
    """Scale matrices within the normaliser so that the determinants of all factors are ±1."""
    ambient = space.ambient
    units, rows = space.normaliser(traceless=False), []
    for factor in ambient.factors:
        rows.append(ambient.linear_part(units, factor.name).diagonal(dim1=-2, dim2=-1).sum(-1))
    traces = torch.stack(rows)  # [factors, e]
    sizes = torch.stack(
        [torch.linalg.slogdet(ambient.linear_part(c, f.name)).logabsdet for f in ambient.factors], 1
    )
    weights = -torch.nan_to_num(sizes, 0.0, 0.0, 0.0) @ torch.linalg.pinv(traces).mT
    return lie.expm(lie.combine(units, weights)) @ c
