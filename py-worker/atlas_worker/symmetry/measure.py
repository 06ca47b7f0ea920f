"""Measures how well a predictor is equivariant along given directions (METHOD 2.6).

The *relative error* of a generator B with ‖B‖_F = 1 is ``ρ(B) = E d(g) / E m(g)``, where
``g = exp(ηB)`` and ``η ~ N(0, scale²)``:

- The distance ``d(g) = ‖f(gx) − g f(x)‖`` is the L1 norm by which equivariance fails.
- The displacement ``m(g) = ‖f(gx) − f(x)‖ + ‖g f(x) − f(x)‖`` is the largest possible distance.

If the mean displacement over gl(n) is larger than that of B, it takes the place of ``E m(g)``: an
invariant task moves nothing along its symmetries. In a product of groups the mean is over the
factors that B moves. ρ is 0 for an exact symmetry, and near 1 for a
direction in which the predictor does not follow g at all.

A single matrix g has no such mean to compare with: ``ρ(g) = E d(g) / E m(g)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rng import random_stream
from . import Batch, Objective, Space, lie
from .objective import EquivarianceErrors

MAX_BATCH = 512
"""Largest number of samples times charts that are moved at a time."""

WORST = (1.0, 1.0, 1.0, 0.0, 0.0)
"""Loss, distance, displacement, noise floor and interpolation error if no value is finite."""

STILL = 1e-4
"""Displacement below which nothing counts as moved, relative to the outputs' mean size.

Resampling in float32 does not return exactly the same field even for the identity, and the ratio of
two rounding errors would be an arbitrary number.
"""


ROUNDING = 16 * 2.0**-23
"""Displacement that rounding in float32 causes, relative to the outputs' mean size."""


@dataclass(frozen=True)
class Directions:
    """Means along unit generators; every field is ``[D]``."""

    loss: Tensor
    distance: Tensor
    displacement: Tensor
    noise_floor: Tensor

    def and_then(self, other: Directions) -> Directions:
        """Append further directions."""
        return Directions(
            torch.cat([self.loss, other.loss]),
            torch.cat([self.distance, other.distance]),
            torch.cat([self.displacement, other.displacement]),
            torch.cat([self.noise_floor, other.noise_floor]),
        )


@dataclass(frozen=True)
class AtMatrices:
    """Means at given matrices; every field is ``[m]`` float64, on the CPU."""

    loss: Tensor
    distance: Tensor
    relative_error: Tensor
    interpolation_error: Tensor


def draw_batch(
    objective: Objective, generator: torch.Generator, samples: int, charts: int
) -> Batch:
    """Draw a random batch.

    Args:
        objective: The objective.
        generator: Source of the random numbers.
        samples: Number of samples to draw, with repetition.
        charts: Number of charts to draw, without repetition.

    Returns:
        The batch.
    """
    chosen = None
    if charts < objective.charts:
        chosen = torch.randperm(objective.charts, generator=generator)[:charts].sort().values
    return objective.batch(
        torch.randint(objective.samples, (min(samples, objective.samples),), generator=generator),
        chosen,
    )


def draw_coefficients(batch: Batch, generator: torch.Generator, k: int, scale: float) -> Tensor:
    """Draw ``η ~ N(0, scale² I_k)`` for each sample and chart: ``[B, C, k]``."""
    return torch.randn(*batch.shape, k, generator=generator) * scale


def measure(
    objective: Objective,
    batches: list[Batch],
    directions: Tensor,
    scale: float,
    seed: int,
    *,
    floor: bool = False,
) -> Directions:
    """Measure equivariance along unit generators, with the same ``η`` for all of them.

    Args:
        objective: The objective.
        batches: The batches to measure on.
        directions: Unit generators ``[D, n, n]``.
        scale: Standard deviation of ``η``.
        seed: Seed of ``η``.
        floor: Measure the noise floor too, which takes a second prediction; otherwise it is 0.

    Returns:
        Means over all batches.
    """
    if not batches or not len(directions):
        empty = torch.zeros(len(directions))
        return Directions(empty, empty, empty, empty)
    rows: list[Tensor] = []
    generator = random_stream(seed, 90)
    for batch in batches:
        eta = draw_coefficients(batch, generator, 1, scale)
        # One direction at a time, so that memory does not grow with the number of directions.
        per = []
        for d in directions:
            e = objective.errors(batch, lie.expm(lie.combine(d[None], eta)), floor=floor)
            per.append(finite_means(e))
        rows.append(torch.stack(per))
    mean = torch.stack(rows).mean(0)
    return Directions(*mean.unbind(1)[:4])


@torch.no_grad()
def measure_at(
    objective: Objective,
    matrices: Tensor,
    samples: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> AtMatrices:
    """Measure equivariance at given matrices, each applied to all charts.

    Args:
        objective: The objective.
        matrices: ``[m, n, n]``.
        samples: Number of samples to draw, without repetition.
        seed: Seed of the samples.
        check: Called before each matrix on each batch; it may raise an error to stop.

    Returns:
        Means over samples and charts.
    """
    order = torch.randperm(objective.samples, generator=random_stream(seed, 93))[:samples]
    totals, counts = (
        torch.zeros(len(matrices), len(WORST)).double(),
        torch.zeros(len(matrices), 1).double(),
    )
    size = 0.0
    # One matrix and a few samples at a time, so that memory does not grow with either number.
    for indices in order.split(max(1, min(MAX_BATCH // objective.charts, objective.max_batch))):
        batch = objective.batch(indices)
        size += (
            float(batch.reference.nan_to_num(0.0, 0.0, 0.0).abs().mean())
            * len(indices)
            / len(order)
        )
        for i, g in enumerate(matrices):
            check()
            fields = (
                finite_fields(objective.errors(batch, g.expand(*batch.shape, -1, -1)))
                .double()
                .cpu()
            )
            totals[i] += fields.sum(1)
            counts[i] += fields.shape[1]
    means = torch.where(counts > 0, totals / counts.clamp(min=1), torch.tensor(WORST).double())
    loss, distance, displacement, _, interpolation_error = means.unbind(1)
    relative = torch.where(
        displacement > STILL * size, distance / displacement.clamp(min=1e-30), 0.0
    )
    return AtMatrices(loss, distance, relative, interpolation_error)


def finite_fields(e: EquivarianceErrors) -> Tensor:
    """Stack the errors of the samples and charts for which all errors are finite.

    Returns:
        ``[5, finite]``: loss, distance, displacement, noise floor and interpolation error.
    """
    fields = torch.stack(
        [e.loss, e.distance, e.displacement, e.noise_floor, e.interpolation_error]
    ).flatten(1)
    finite: Tensor = fields[:, torch.isfinite(fields).all(0)]
    return finite


def finite_means(e: EquivarianceErrors) -> Tensor:
    """Average the errors over the samples and charts for which all errors are finite.

    Returns:
        ``[5]``: loss, distance, displacement, noise floor and interpolation error.
    """
    fields = finite_fields(e)
    return fields.mean(1) if fields.shape[1] else fields.new_tensor(WORST)


def mean_size(batches: list[Batch]) -> float:
    """Compute the mean size of the outputs, from which ``ROUNDING`` counts."""
    sizes = [float(b.reference.nan_to_num(0.0, 0.0, 0.0).abs().mean()) for b in batches]
    return sum(sizes) / max(len(sizes), 1)


@dataclass(frozen=True)
class Typical:
    """Mean displacement over all directions of each factor of the ambient group."""

    space: Space
    displacements: Tensor
    """``[factors]``."""

    def at(self, directions: Tensor) -> Tensor:
        """Compute ``m̄`` of directions ``[D, n, n]``, weighted by their parts in the factors."""
        return self.space.shares(directions) @ self.displacements


def typical_displacement(
    objective: Objective,
    batches: list[Batch],
    everything: Directions,
    scale: float,
    seed: int,
) -> Typical:
    """Compute the mean displacement of each factor of the ambient group.

    One factor may move the outputs far more than another. Beside it the errors of the other would
    look small. A restricted space may hold symmetries alone, along which nothing moves, so the mean
    is over all of the ambient group there too.

    Args:
        objective: The objective.
        batches: The batches to measure on.
        everything: Means along an orthonormal basis of the objective's space.
        scale: Standard deviation of ``η``.
        seed: Seed of ``η``.
    """
    space = objective.space
    if len(space.ambient.factors) == 1 and not space.restricted:
        return Typical(space, everything.displacement.mean()[None])
    basis = space.outward(space.ambient.algebra()).float()
    shares, along = space.shares(basis), measure(objective, batches, basis, scale, seed)
    total = shares.sum(0)
    mean = (along.displacement @ shares) / total.clamp(min=1e-30)
    return Typical(space, torch.where(total > 0, mean, along.displacement.mean()))


def relative_errors(
    along: Directions, typical_displacement: float | Tensor, size: float = 0.0
) -> Tensor:
    """Compute ρ of each direction (METHOD 2.6).

    Args:
        along: Means along the directions.
        typical_displacement: Mean displacement over gl(n), ``m̄``; or ``[D]``, see
            :class:`Typical`.
        size: Mean size of the outputs.

    Returns:
        ``[D]``; 0 where nothing moves.
    """
    scale = along.displacement.clamp(min=typical_displacement)
    return torch.where(
        scale > STILL * size, along.distance / scale.clamp(min=1e-30), torch.zeros_like(scale)
    )


def principal_frame(
    objective: Objective, batches: list[Batch], frame: Tensor, scale: float, seed: int
) -> Tensor:
    """Rotate a frame within its span to directions that fail equivariance independently.

    A frame that minimises the loss is determined only up to a rotation within its span. So a
    symmetry may be mixed with a direction that is none. The squared distance is taken as a
    quadratic form on the span, found by polarisation; its eigenvectors are the new frame.

    Args:
        objective: The objective.
        batches: The batches to measure on.
        frame: An orthonormal frame ``[k, n, n]``.
        scale: Standard deviation of ``η``.
        seed: Seed of ``η``.

    Returns:
        An orthonormal frame ``[k, n, n]`` of the same span, by ascending distance.
    """
    k = len(frame)
    if k < 2:
        return frame
    i, j = torch.triu_indices(k, k, 1)
    mixed = torch.cat([frame, (frame[i] + frame[j]) / 2**0.5, (frame[i] - frame[j]) / 2**0.5])
    squares = measure(objective, batches, mixed, scale, seed).distance.double().square()
    form = torch.diag(squares[:k])
    form[i, j] = form[j, i] = (squares[k : k + len(i)] - squares[k + len(i) :]) / 2
    vectors = torch.linalg.eigh(form).eigenvectors.to(frame)
    return torch.einsum("ic,iab->cab", vectors, frame)
