"""Tests which matrices lie in one component of a group with a given Lie algebra (METHOD 2.5)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..rng import random_stream
from . import lie
from .ambient import Ambient

SAME = 0.1
"""Mean squared entry of ``exp(Σ w_i B_i) − M`` below which M is in the identity component.

The value is that of AtlasD (METHOD 2.5).
"""

STARTS = 12
"""Random starts of the minimisation."""
STEPS = 30
"""Largest number of Levenberg-Marquardt steps."""


EXACT = 1e-12
"""Mean squared entry below which a minimum is zero."""


def residual(
    basis: Tensor,
    matrices: Tensor,
    ambient: Ambient | None = None,
    *,
    enough: float = EXACT,
    random_starts: int = STARTS,
) -> Tensor:
    """Compute ``min_w ‖exp(Σ w_i B_i) − M‖²_F / n²`` for each matrix M.

    In a product of groups, the value is that of the factor in which it is largest.

    The minimum is found by the Levenberg-Marquardt method from several starts at once: zero, the
    projection of M's logarithm (exact if M is in the component and the principal logarithm lies in
    the span), and random ones. The derivative of exp along a generator is the upper right block of
    ``exp [[X, B_i], [0, X]]`` (Higham 2008, sec. 3.2).

    Args:
        basis: Generators ``[k, n, n]``.
        matrices: ``[m, n, n]``.
        ambient: The whole group; None for GL(n).
        enough: In GL(n), a value below which the minimum need not be found exactly.
        random_starts: Number of random starts; fewer are faster, and may miss the minimum.

    Returns:
        ``[m]`` float64, on the CPU.

    Raises:
        InvalidInput: The basis and the matrices have different sizes.
    """
    b, m = basis.double().cpu(), matrices.double().cpu()
    n, k, count = m.shape[-1], b.shape[0], m.shape[0]
    group = ambient or Ambient.linear(n)
    if b.shape[1:] != (n, n) and k > 0:
        raise InvalidInput(
            f"the basis {list(basis.shape)} and the matrices {list(matrices.shape)} differ in size",
            "basis",
            f"[k, {n}, {n}]",
        )
    if count == 0:
        return torch.zeros(0, dtype=torch.float64)
    if k == 0:
        return group.mean_square(m - torch.eye(n, dtype=torch.float64))
    # Work in an orthonormal frame of the span: it has the same exponentials and better steps.
    q, s, _ = torch.linalg.svd(b.flatten(1).mT, full_matrices=False)
    keep = s > 1e-9 * s[0].clamp(min=1e-300)
    frame = q[:, keep].mT.unflatten(-1, (n, n))
    k = frame.shape[0]
    if k == 0:
        return residual(b[:0], m, ambient)
    starts = torch.randn(random_starts, k, generator=random_stream(0, 7), dtype=torch.float64)
    starts = (
        starts
        / starts.norm(dim=1, keepdim=True)
        * torch.linspace(0.5, 6.0, random_starts, dtype=torch.float64)[:, None]
    )
    w = torch.cat([torch.zeros(1, k, dtype=torch.float64), starts]).expand(count, -1, -1)
    w = torch.cat([lie.project(frame, _log(m))[:, None], w], 1).contiguous()  # [m, S, k]
    if not group.is_linear:  # where another mean counts, see Ambient.mean_square
        enough = EXACT

    def misfit(w: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        e = lie.expm(lie.combine(frame, w).clamp(-50, 50)) - m[at][:, None]
        cost = e.square().mean((-2, -1))
        return torch.where(torch.isfinite(cost), cost, torch.inf), e

    cost, error = misfit(w, torch.arange(count))
    damping = torch.full_like(cost, 1e-2)
    for _ in range(STEPS):
        at = (cost.min(1).values >= enough).nonzero()[:, 0]
        if not len(at):
            break
        x = lie.combine(frame, w[at]).clamp(-50, 50)
        block = torch.zeros(*x.shape[:2], k, 2 * n, 2 * n, dtype=torch.float64)
        block[..., :n, :n] = block[..., n:, n:] = x[:, :, None]
        block[..., :n, n:] = frame
        jacobian = torch.nan_to_num(
            lie.expm(block)[..., :n, n:].flatten(-2), 0.0, 0.0, 0.0
        )  # [m, S, k, n²]
        off = torch.nan_to_num(error[at], 0.0, 0.0, 0.0).flatten(-2)[..., None]
        gradient = (jacobian @ off)[..., 0]
        normal = jacobian @ jacobian.mT
        scaled = normal.diagonal(dim1=-2, dim2=-1).clamp(min=1e-12) * damping[at][..., None]
        step = torch.linalg.solve_ex(normal + torch.diag_embed(scaled), -gradient).result
        candidate = w[at] + torch.nan_to_num(step, 0.0, 0.0, 0.0).clamp(-2, 2)
        candidate_cost, candidate_error = misfit(candidate, at)
        better = candidate_cost < cost[at]
        w[at] = torch.where(better[..., None], candidate, w[at])
        error[at] = torch.where(better[..., None, None], candidate_error, error[at])
        cost[at] = torch.where(better, candidate_cost, cost[at])
        damping[at] = (damping[at] * torch.where(better, 0.3, 5.0)).clamp(1e-9, 1e9)
    if group.is_linear:
        return cost.min(1).values
    best = cost.argmin(1)
    return group.mean_square(error[torch.arange(count), best])


def same_component(
    basis: Tensor,
    matrices: Tensor,
    reference: Tensor,
    ambient: Ambient | None = None,
    *,
    limit: float = SAME,
    random_starts: int = STARTS,
) -> list[bool]:
    """Tell which matrices lie in the component of a reference matrix.

    Matrices whose determinants have opposite signs lie in different components whatever the
    residual: the determinant of an exponential is positive, but the exponential can come close to a
    nearly singular matrix with a negative one.

    Args:
        basis: Generators ``[k, n, n]`` of the identity component.
        matrices: ``[m, n, n]``.
        reference: ``[n, n]``.
        ambient: The whole group; None for GL(n). The determinants of all factors count.
        limit: Residual below which a matrix is in the component.
        random_starts: See :func:`residual`.

    Returns:
        A bool for each matrix.

    Raises:
        InvalidInput: ``reference`` is singular.
    """
    m, r = matrices.double(), reference.double()
    group = ambient or Ambient.linear(m.shape[-1])
    parts = [(group.linear_part(m, f.name), group.linear_part(r, f.name)) for f in group.factors]
    same = torch.stack(
        [torch.linalg.slogdet(a).sign == torch.linalg.slogdet(b).sign for a, b in parts]
    ).all(0)
    moved = (m @ _inverse(r))[same]
    residuals = residual(basis, moved, ambient, enough=limit, random_starts=random_starts)
    same[same.clone()] = (residuals < limit).to(same.device)
    found: list[bool] = same.tolist()
    return found


def compare(basis: Tensor, matrices: Tensor) -> tuple[list[int], Tensor]:
    """Group matrices by component.

    A matrix joins the first earlier matrix that :func:`same_component` puts in the same component.

    Args:
        basis: Generators ``[k, n, n]`` of the identity component.
        matrices: ``[m, n, n]``.

    Returns:
        The component of each matrix, numbered by first appearance, and the residuals ``[m, m]`` of
        ``M_i M_j⁻¹``.

    Raises:
        InvalidInput: A matrix is singular.
    """
    count, n = matrices.shape[0], matrices.shape[-1]
    inverse = _inverse(matrices.double())
    pairs = (matrices.double()[:, None] @ inverse[None, :]).reshape(-1, n, n)
    residuals = residual(basis, pairs).reshape(count, count)
    signs = torch.linalg.slogdet(matrices.double()).sign.tolist()
    labels: list[int] = []
    for i in range(count):
        same = next(
            (j for j in range(i) if float(residuals[i, j]) < SAME and signs[i] == signs[j]), None
        )
        labels.append(max(labels, default=-1) + 1 if same is None else labels[same])
    return labels, residuals


def _inverse(matrices: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.inv_ex(matrices).inverse
    if not bool(torch.isfinite(inverse).all()):
        raise InvalidInput("a matrix is singular or not finite", "matrices", "invertible matrices")
    return inverse


def _log(m: Tensor) -> Tensor:
    """Real part of the principal logarithm ``[m, n, n]``; zero where the decomposition fails.

    Only a starting point.
    """
    values, vectors = torch.linalg.eig(m)
    log = vectors @ torch.diag_embed(torch.log(values + 1e-300)) @ torch.linalg.pinv(vectors)
    return torch.nan_to_num(log.real, 0.0, 0.0, 0.0).clamp(-20, 20)
