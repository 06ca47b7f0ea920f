"""Levenberg and Marquardt's method on equivariance losses, whose unknowns are few (METHOD 2.3).

An equivariance loss is a mean over many residuals ``f(gx) − g f(x)``, and depends on 3 to 28
numbers. Its gradient and curvature come from differences along each of them, all in one batch
(:meth:`~.objective.EquivarianceObjective.local`). So an iteration costs as much as two or three
gradients, and some ten iterations do what a first-order method does in hundreds of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rng import random_stream
from . import Batch, Objective, lie
from .measure import draw_batch

DAMPING = 1e-2
"""Damping at the start, relative to the curvature."""
FALLS, RISES = 0.2, 8.0
"""Factors of the damping after a step that lowered the loss, and after one that did not."""
SMALL = 0.1
"""Damping up to which a step is nearly that of Gauss and Newton."""
MOST_DAMPING = 1e4
"""Damping at which a point is given up: no step along the gradient lowers its loss."""
LEAST = 1e-12
"""Smallest loss that is told from zero."""
RATIOS = 1.0, 3.0
"""Lengths of a step that are tried at once; a success makes the next ones longer."""
LONGEST = 0.5
"""Longest step, as a norm of the unknowns."""


VIEWS = 1, 4, 24
"""Samples times charts in the phases of a search, relative to those of a step of Adam."""
FEWEST = 1024
"""Numbers that are compared in the first phase at least, where a sample has but a few."""
LAST = 4
"""Largest number of iterations in the last phase, which starts next to the minimum."""
DIFFERENCE = 0.3
"""Step of differences. Slopes over short steps bend with every pixel and say little of the loss at
some distance; over this one the search is the fastest, and ends nearer to the minimum."""
HALVING = 5
"""Iterations after which only the better half of the points goes on, if a few are enough."""


@dataclass(frozen=True)
class Phase:
    """A part of a search: few samples first, and more at the end."""

    batch: Batch
    steps: Tensor
    """Steps of differences ``[B, C]``, of both signs, so that their errors cancel."""
    generator: torch.Generator
    """The source of all that the phase draws."""
    last: int
    """0, or 1 for the last of ``VIEWS``, and 2, 3 and so on for those that repeat it."""


def phases(
    objective: Objective, seed: int, epoch: int, total: int, samples: int, charts: int
) -> Iterator[Phase]:
    """Iterate over the phases of an epoch.

    An epoch is a phase. If there are fewer epochs than ``VIEWS``, the first one has several. If
    there are more, they repeat the last phase on other samples. It has all charts.

    Args:
        objective: The objective.
        seed: Seed of the batches.
        epoch: Number of the epoch, from 0.
        total: Number of epochs.
        samples: Samples of the first phase.
        charts: Charts of all but the last.
    """
    missing, charts = max(len(VIEWS) - total, 0), min(charts, objective.charts)
    numbers = objective.batch(torch.zeros(1, dtype=torch.long)).reference[0, 0].numel()
    for phase in range(epoch + missing if epoch else 0, epoch + missing + 1):
        generator, at = random_stream(seed, 1, epoch, phase), min(phase, len(VIEWS) - 1)
        last = max(0, phase - len(VIEWS) + 2)
        chosen = objective.charts if last else charts
        views = max(samples * charts * VIEWS[at], -(-FEWEST * 2**at // numbers))
        batch = draw_batch(objective, generator, max(1, views // chosen), chosen)
        signs = torch.randint(2, batch.shape, generator=generator) * 2.0 - 1
        yield Phase(batch, DIFFERENCE * signs, generator, last)


@dataclass(frozen=True)
class Quadratic:
    """A quadratic model of M independent losses at their points."""

    value: Tensor
    """``[M]`` float64."""
    gradient: Tensor
    """``[M, p]`` float64."""
    curvature: Tensor
    """``[M, p, p]`` float64, positive semidefinite."""


@dataclass(frozen=True)
class Problem:
    """M independent losses that are minimised at once, each over p unknowns."""

    values: Callable[[Tensor], Tensor]
    """``points [m, ...] -> [m]``: losses of some of the points."""
    quadratic: Callable[[Tensor], Quadratic]
    """Quadratic models of some of the points."""
    move: Callable[[Tensor, Tensor], Tensor]
    """``(points [m, ...], steps [m, p]) -> [m, ...]``."""


@dataclass(frozen=True)
class Minimum:
    """Where the iterations ended."""

    points: Tensor
    values: Tensor
    """``[M]``."""
    iterations: int


def minimise(
    problem: Problem,
    points: Tensor,
    iterations: int,
    *,
    least_step: float,
    least_decrease: float,
    needed: int = 0,
    longer: bool = True,
    on_iteration: Callable[[int, Tensor], None] = lambda *_: None,
) -> Minimum:
    """Minimise M independent losses by the method of Levenberg and Marquardt.

    Steps solve ``(H + λ diag H) δ = −∇L`` (Marquardt 1963). A step that lowers the loss is taken,
    and λ falls; another is not, and λ rises. A point has converged if its step is short or lowers
    the loss by little, and is left alone from then on.

    Args:
        problem: The losses.
        points: Where to start, ``[M, ...]``.
        iterations: Largest number of iterations.
        least_step: Norm of a step that is not worth taking another one.
        least_decrease: Decrease of a loss that is not worth another step.
        needed: End when so many of the best points have converged; 0 for all.
        longer: Try longer steps too.
        on_iteration: Called after each iteration with its number and the losses ``[M]``; it may
            raise an error to stop.

    Returns:
        The minimum. A point whose loss is not finite stays as it is.
    """
    points, count = points.clone(), len(points)
    ratios = torch.tensor(RATIOS if longer else RATIOS[:1], dtype=torch.float64)
    values = torch.full((count,), math.inf, dtype=torch.float64)
    damping, stretch = torch.full_like(values, DAMPING), torch.ones_like(values)
    expected = torch.zeros_like(values)
    active, stale = (torch.ones(count, dtype=torch.bool) for _ in range(2))
    gradient = curvature = torch.zeros(0)
    done = 0
    while done < iterations and len(at := active.nonzero()[:, 0]):
        if len(which := (active & stale).nonzero()[:, 0]):
            model = problem.quadratic(points[which])
            if done == 0:
                gradient, curvature = model.gradient.clone(), model.curvature.clone()
            values[which], gradient[which] = model.value, model.gradient
            curvature[which], stale[which] = model.curvature, False
            usable = [t.isfinite().reshape(count, -1).all(1) for t in (values, gradient, curvature)]
            active &= torch.stack(usable).all(0)
            if not len(at := active.nonzero()[:, 0]):
                break
        step = _solve(gradient[at], curvature[at], damping[at])
        expected[at] = -(gradient[at] * step).sum(1) / 2
        tried = _shortened(stretch[at, None, None] * ratios[:, None] * step[:, None])  # [m, 2, p]
        lengths = tried.norm(dim=2)
        moved = torch.stack([problem.move(points[at], t) for t in tried.unbind(1)], 1)
        found = problem.values(moved.flatten(0, 1)).double().nan_to_num(nan=math.inf)
        found, best = found.unflatten(0, (-1, len(ratios))).min(1)
        rows = torch.arange(len(at))
        better = found < values[at]
        worth = values[at] - found >= least_decrease
        taken = at[better]
        points[taken], values[taken], stale[taken] = moved[rows, best][better], found[better], True
        plain = stretch[at] <= 1
        small = (lengths[:, 0] < least_step / 10) | (expected[at] < least_decrease / 10)
        # A step that damping shortens says nothing of convergence.
        settled = plain & torch.where(better, ~worth & (damping[at] <= SMALL), small)
        damping[at] *= torch.where(better, FALLS, torch.where(plain, RISES, 1.0))
        stretch[at] *= torch.where(better, ratios[best], 1 / RATIOS[1])
        stretch = stretch.clamp(min=1.0)
        settled |= damping[at] > MOST_DAMPING
        active[at[settled]] = False
        done += 1
        on_iteration(done, values)
        ranked = values.argsort(stable=True)
        if needed and done >= HALVING:
            active[ranked[(count + 1) // 2 :]] = False
        if needed and not bool(active[ranked[:needed]].any()):
            break
    return Minimum(points, values, done)


def _solve(gradient: Tensor, curvature: Tensor, damping: Tensor) -> Tensor:
    """Solve for the steps ``[m, p]``."""
    diagonal = curvature.diagonal(dim1=-2, dim2=-1)
    # A direction in which nothing bends gets a share of the others' curvature, and no huge step.
    floor = 1e-6 * diagonal.amax(1, keepdim=True).clamp(min=1e-300)
    scaled = torch.diag_embed(damping[:, None] * diagonal + floor)
    step = torch.linalg.solve_ex(curvature + scaled, -gradient[..., None]).result[..., 0]
    return torch.nan_to_num(step, 0.0, 0.0, 0.0)


def _shortened(step: Tensor) -> Tensor:
    """Shorten steps ``[..., p]`` to ``LONGEST``."""
    short: Tensor = step * (LONGEST / step.norm(dim=-1, keepdim=True).clamp(min=LONGEST))
    return short


@torch.no_grad()
def distances(objective: Objective, batch: Batch, g: Tensor) -> Tensor:
    """Compute distances ``[m, B, C]`` at ``g [m, B, C, n, n]``, without gradients.

    As many samples are taken at a time as fit in memory.
    """
    parts = torch.arange(len(batch.x)).split(max(1, objective.max_batch // len(g)))
    return torch.cat([objective.distance(batch.samples(i), g[:, i]) for i in parts], 1)


def frame_problem(objective: Objective, batch: Batch, eta: Tensor, steps: Tensor) -> Problem:
    """Make the problem of frames whose loss is ``Σ_c log E[d]`` on one batch (METHOD 2.3).

    A frame moves horizontally, along the complement of its span: ``F + W Q`` with W ``[k, d - k]``,
    made orthonormal again (Edelman, Arias and Smith 1998). Then ``Σ η_i F_i`` moves along the rows
    of Q alone, which takes d - k differences and not k (d - k).

    Args:
        objective: The objective.
        batch: The batch.
        eta: Coefficients of the transformations ``[B, C, k]``.
        steps: Steps of differences ``[B, C]``.

    Returns:
        The problem; points are free parameters ``[m, k, *shape]`` of orthonormal frames.
    """
    space = objective.space

    def act(combined: Tensor) -> Tensor:
        return lie.expm(space.lift(combined).contiguous())

    def combined(points: Tensor) -> Tensor:
        return torch.einsum("bck,mk...->mbc...", eta, points)

    def complements(points: Tensor) -> Tensor:
        rows = torch.stack([lie.rest(point.flatten(1)) for point in points])
        unflat: Tensor = rows.reshape(*rows.shape[:2], *space.shape)  # [m, d - k, *shape]
        return unflat

    def values(points: Tensor) -> Tensor:
        found = distances(objective, batch, act(combined(points)))
        return found.mean(1).clamp(min=LEAST).log().mean(1)

    def quadratic(points: Tensor) -> Quadratic:
        x, rows = combined(points), complements(points)
        away = torch.einsum("bc,mq...->mqbc...", steps, rows)
        local = objective.local(batch, act(x), act(x[:, None] + away), steps)
        means = local.value.mean(1).clamp(min=LEAST)  # [m, C]
        weight, by = 1 / (means * local.value[0].numel()), eta.double()
        gradient = torch.einsum("mc,bck,mbcq->mkq", weight, by, local.slope)
        curvature = torch.einsum("mc,bck,bcl,mbcqr->mkqlr", weight, by, by, local.curvature)
        size = gradient[0].numel()
        return Quadratic(
            means.log().mean(1), gradient.flatten(1), curvature.reshape(-1, size, size)
        )

    def move(points: Tensor, step: Tensor) -> Tensor:
        rows = complements(points)
        step = step.to(points).unflatten(1, (points.shape[1], -1))
        moved = points + torch.einsum("mkq,mq...->mk...", step, rows)
        retracted: Tensor = lie.orthonormal(moved.flatten(2)).reshape(moved.shape)
        return retracted

    return Problem(values, quadratic, move)
