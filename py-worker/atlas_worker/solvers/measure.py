"""How well a task is equivariant along given directions: what every solver's report rests on.

The *relative error* of a generator B is ``ρ(B) = E‖f(gx) − g f(x)‖ / E[motion]``, ``g = exp(ηB)``, ``η ~ N(0, scale²)``, ‖B‖_F = 1:
the L1 distance by which equivariance fails, over the largest it could be: ``‖f(gx) − f(x)‖ + ‖g f(x) − f(x)‖``, of B or
of the average direction of gl(n), whichever is more (an invariant task moves nothing along its symmetries). It is 0 for an exact
symmetry and near 1 for a direction along which the task knows nothing of g.

Of a single matrix g there is no average direction to compare with: ``ρ(g) = E‖f(gx) − g f(x)‖ / E[motion of g]``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import lie
from ..actions import Batch, Task
from ..actions.base import EquivarianceErrors
from .state import random_stream

AT_ONCE = 512
"""Samples times charts that are moved at a time, where they are small."""

WORST = (1.0, 1.0, 1.0, 0.0, 0.0)
"""What counts for loss, distance, motion, floor and resampling error where nothing is finite."""

STILL = 1e-4
"""Part of the outputs' mean size below which a motion counts as none: resampling in float32 does not give back the same field even
where g is the identity, and the ratio of two roundings would be any number."""


@dataclass(frozen=True)
class Directions:
    """Measured along unit generators; every field ``[D]``."""

    loss: Tensor
    distance: Tensor
    motion: Tensor
    floor: Tensor


@dataclass(frozen=True)
class AtMatrices:
    """Measured at matrices; every field ``[m]`` in float64, on the CPU."""

    loss: Tensor
    distance: Tensor
    relative_error: Tensor
    resampling: Tensor


def draw_batch(task: Task, generator: torch.Generator, samples: int, charts: int) -> Batch:
    """A random batch: ``samples`` of the data, on ``charts`` of the charts without repetition."""
    chosen = None
    if charts < task.charts:
        chosen = torch.randperm(task.charts, generator=generator)[:charts].sort().values
    return task.batch(torch.randint(task.samples, (min(samples, task.samples),), generator=generator), chosen)


def draw_coefficients(batch: Batch, generator: torch.Generator, k: int, scale: float) -> Tensor:
    """``η ~ N(0, scale² I_k)`` for each sample and chart: ``[B, C, k]``."""
    return torch.randn(*batch.shape, k, generator=generator) * scale


def measure(task: Task, batches: list[Batch], directions: Tensor, scale: float, seed: int) -> Directions:
    """Equivariance along unit generators ``directions [D, n, n]``, the same ``η`` for all."""
    if not batches or not len(directions):
        empty = torch.zeros(len(directions))
        return Directions(empty, empty, empty, empty)
    rows: list[Tensor] = []
    generator = random_stream(seed, 90)
    for batch in batches:
        eta = draw_coefficients(batch, generator, 1, scale)
        # One direction at a time: the number of directions (n², or more) must not decide the memory.
        per = []
        for d in directions:
            e = task.errors(batch, lie.expm(lie.combine(d[None], eta)))
            per.append(finite_means(e))
        rows.append(torch.stack(per))
    mean = torch.stack(rows).mean(0)
    return Directions(*mean.unbind(1)[:4])


@torch.no_grad()
def measure_at(
    task: Task, matrices: Tensor, samples: int, seed: int, check: Callable[[], None] = lambda: None
) -> AtMatrices:
    """Equivariance at ``matrices [m, n, n]``, each the same for ``samples`` of the data, drawn without repetition, and all charts.

    ``check`` is called before each matrix is tried on each batch, and may raise.
    """
    order = torch.randperm(task.samples, generator=random_stream(seed, 93))[:samples]
    totals, counts = torch.zeros(len(matrices), len(WORST)).double(), torch.zeros(len(matrices), 1).double()
    size = 0.0
    # One matrix and a few samples at a time: how many there are of either must not decide the memory.
    for indices in order.split(max(1, min(AT_ONCE // task.charts, task.at_once))):
        batch = task.batch(indices)
        size += float(batch.reference.nan_to_num(0.0, 0.0, 0.0).abs().mean()) * len(indices) / len(order)
        for i, g in enumerate(matrices):
            check()
            fields = finite_fields(task.errors(batch, g.expand(*batch.shape, -1, -1))).double().cpu()
            totals[i] += fields.sum(1)
            counts[i] += fields.shape[1]
    means = torch.where(counts > 0, totals / counts.clamp(min=1), torch.tensor(WORST).double())
    loss, distance, motion, _, resampling = means.unbind(1)
    relative = torch.where(motion > STILL * size, distance / motion.clamp(min=1e-30), 0.0)
    return AtMatrices(loss, distance, relative, resampling)


def finite_fields(e: EquivarianceErrors) -> Tensor:
    """Loss, distance, motion, floor and resampling error of the samples and charts for which all are finite: ``[5, finite]``."""
    fields = torch.stack([e.loss, e.distance, e.motion, e.floor, e.resampling]).flatten(1)
    finite: Tensor = fields[:, torch.isfinite(fields).all(0)]
    return finite


def finite_means(e: EquivarianceErrors) -> Tensor:
    """Means of loss, distance, motion, floor and resampling error, ``[5]``, over the samples for which they are finite."""
    fields = finite_fields(e)
    return fields.mean(1) if fields.shape[1] else fields.new_tensor(WORST)


def relative_errors(along: Directions, typical_motion: float) -> Tensor:
    """ρ of each direction, ``[D]``; 0 where nothing moves at all."""
    scale = along.motion.clamp(min=typical_motion)
    return torch.where(scale > 0, along.distance / scale.clamp(min=1e-30), torch.zeros_like(scale))


def principal_frame(task: Task, batches: list[Batch], frame: Tensor, scale: float, seed: int) -> Tensor:
    """The same span in the frame whose members fail equivariance independently, the best first: ``[k, n, n]``.

    A frame that minimises the loss is determined up to a rotation within its span, so a symmetry may be mixed with a direction
    that is none. Taking the distance for a norm, polarisation gives its quadratic form on the span, whose eigenvectors are
    returned in ascending order.
    """
    k = len(frame)
    if k < 2:
        return frame
    i, j = torch.triu_indices(k, k, 1)
    mixed = torch.cat([frame, (frame[i] + frame[j]) / 2**0.5, (frame[i] - frame[j]) / 2**0.5])
    squares = measure(task, batches, mixed, scale, seed).distance.double().square()
    form = torch.diag(squares[:k])
    form[i, j] = form[j, i] = (squares[k : k + len(i)] - squares[k + len(i) :]) / 2
    vectors = torch.linalg.eigh(form).eigenvectors.to(frame)
    return torch.einsum("ic,iab->cab", vectors, frame)
