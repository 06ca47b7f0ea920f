"""Where a symmetry holds: the errors of each chart, and how far the output feels the input.

A map of charts (METHOD 2.10) needs three measurements. All are small tables, from which the client
decides which charts have the symmetry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..fields.atlas import FieldAtlas
from ..rng import random_stream
from .action import Inputs, Predictor
from .objective import EquivarianceObjective

PARTS = 2
"""The compared part of a chart is divided into this many parts along each axis."""

RESAMPLES = 400
"""Resamples of the bootstrap."""

SAMPLES_AT_ONCE = 16
"""Largest number of samples at a time."""

_CONSTANT = 1e-6
"""Spread over samples below which a pixel is constant, relative to that of all pixels."""


@dataclass(frozen=True)
class ChartErrors:
    """Errors of C charts under given matrices, relative to how far these move the outputs."""

    error: Tensor
    """``[C]``: relative error ρ of each chart."""
    low: Tensor
    """``[C]``: lower end of its 95 % interval, a bootstrap over samples."""
    high: Tensor
    """``[C]``: upper end."""
    interpolation: Tensor
    """``[C]``: the part of ``error`` that interpolation may cause."""
    parts: Tensor
    """``[C, P]``: errors of parts of the chart."""
    spread: Tensor
    """``[C, P]``: standard error of the logarithm of ``parts``."""


class ChosenCharts:
    """``Inputs`` on some of the charts of others, for an objective that looks at these only.

    Args:
        inputs: Samples on all charts.
        chosen: Numbers of the charts ``[C]``.
    """

    memory_bytes = 0
    """No samples are kept."""

    def __init__(self, inputs: Inputs, chosen: Tensor) -> None:
        self._inputs, self._chosen = inputs, chosen

    def __len__(self) -> int:
        return len(self._inputs)

    @property
    def charts(self) -> int:
        """Number of chosen charts."""
        return len(self._chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample on the chosen charts."""
        return self.charts, *self._inputs.shape[1:]

    @property
    def device(self) -> torch.device:
        """Device of drawn samples."""
        return self._inputs.device

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """Return samples ``[B, C, ...]``; ``charts`` counts the chosen charts."""
        return self._inputs.draw(indices, self._among(charts))

    def predictor(self, f: Predictor) -> Predictor:
        """Return a predictor on all charts as one on the chosen charts."""
        return lambda x, charts: f(x, self._among(charts))

    def _among(self, charts: Tensor | None) -> Tensor:
        return self._chosen if charts is None else self._chosen[charts]


def reach_profile(
    inputs: Inputs,
    freeze: Callable[[int], Predictor],
    samples: int,
    seed: int,
    *,
    logits: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Measure how far the output at a chart's centre feels the input.

    All of the input beyond distance r is replaced by that of another sample. The profile is the
    mean square change of the output, divided by that for a wholly different sample. Distances are
    the larger of those along the axes.

    Args:
        inputs: What the predictor reads, ``[B, C, ch, S, S]``.
        freeze: Returns the frozen predictor whose output is cropped to a radius.
        samples: Number of samples to draw.
        seed: Seed of the samples.
        logits: Whether the predictor gives logits of classes.
        check: Called before each radius; it may raise an error to stop.

    Returns:
        ``[h + 1]`` float64 for r from 0 to the radius h of the inputs. The last entry is 0.
    """
    order = torch.randperm(len(inputs), generator=random_stream(seed, 95))[:samples]
    f, half = freeze(0), inputs.shape[-1] // 2
    # A field with an even number of pixels has no central one; it is never cut as a chart.
    u = torch.arange(-half, half + 1, device=inputs.device).abs()
    changed, total = torch.zeros(half + 1, dtype=torch.float64), 0.0

    def predict(x: Tensor) -> Tensor:
        y = f(x, None)
        return (y.softmax(2) if logits else y).double()

    with torch.no_grad():
        for indices in order.split(SAMPLES_AT_ONCE):
            x = inputs.draw(indices, None)
            other = x.roll(1, 0)
            y = predict(x)
            total += float((y - y.roll(1, 0)).square().sum())
            distance = u
            for _ in range(x.dim() - 4):
                distance = torch.maximum(distance[..., None], u)
            for r in range(half):
                check()
                mixed = torch.where(distance <= r, x, other)
                changed[r] += float((predict(mixed) - y).square().sum())
    return changed / max(total, 1e-300)


def constant_share(fields: Tensor, atlas: FieldAtlas, radius: int) -> Tensor:
    """Count the pixels whose input is the same in all samples, in a window of each chart.

    Where nothing ever varies the data do not say what a moved field becomes.

    Args:
        fields: ``[N, ch, ...]``.
        atlas: The charts.
        radius: Radius of the windows in pixels.

    Returns:
        ``[C]``: the share of the window's pixels, 0 to 1; 0 everywhere if all pixels are constant.
    """
    spread = (fields.amax(0) - fields.amin(0)).amax(0)
    constant = (spread <= _CONSTANT * spread.max()) & (spread.max() > 0)
    window = atlas.pixels(fields.shape, radius).to(fields.device)
    share: Tensor = constant.flatten()[window].double().flatten(1).mean(1).cpu()
    return share


def measure_charts(
    objective: EquivarianceObjective,
    matrices: Tensor,
    samples: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> ChartErrors:
    """Measure the equivariance of each chart under matrices, all of them together.

    The error of a chart is the mean distance of f(gx) and g f(x), divided by the displacement that
    g causes. The displacement is at least the median of those of all charts, so that a chart where
    nothing happens has no large error.

    Args:
        objective: The objective, on fields.
        matrices: ``[m, n, n]``.
        samples: Number of samples to draw, without repetition.
        seed: Seed of the samples and of the bootstrap.
        check: Called before each matrix on each batch; it may raise an error to stop.

    Returns:
        The errors.
    """
    order = torch.randperm(objective.samples, generator=random_stream(seed, 94))[:samples]
    distances, displacements, fine = [], [], []
    for start, indices in enumerate(order.split(min(SAMPLES_AT_ONCE, objective.max_batch))):
        batch = objective.batch(indices)
        distance, displacement = [], []
        for g in matrices:
            check()
            everywhere = g.expand(*batch.shape, -1, -1)
            d, m = objective.maps(batch, everywhere)
            distance.append(_parts(d))
            displacement.append(m.flatten(2).mean(2))
            if start == 0:
                fine.append(objective.errors(batch, everywhere).interpolation_error.mean(0))
        distances.append(torch.stack(distance).mean(0))
        displacements.append(torch.stack(displacement).mean(0))
    d, m = torch.cat(distances).double().cpu(), torch.cat(displacements).double().cpu()
    count = len(d)
    drawn = torch.randint(count, (RESAMPLES, count), generator=random_stream(seed, 96))
    weights = functional.one_hot(drawn, count).sum(1).double() / count
    weights = torch.cat([torch.full((1, count), 1 / count, dtype=torch.float64), weights])
    moved = torch.einsum("rn,nc->rc", weights, m)
    moved = torch.maximum(moved, moved.median(1, keepdim=True).values).clamp(min=1e-30)
    parts = torch.einsum("rn,ncp->rcp", weights, d) / moved[..., None]
    error = parts.mean(2)
    low, high = error[1:].quantile(torch.tensor([0.025, 0.975]).double(), dim=0)
    return ChartErrors(
        error=error[0],
        low=low,
        high=high,
        interpolation=torch.stack(fine).mean(0).double().cpu() / moved[0],
        parts=parts[0],
        spread=parts[1:].clamp(min=1e-30).log().std(0),
    )


def _parts(pixels: Tensor) -> Tensor:
    """Means over the parts of a chart: ``[B, C, s, s] -> [B, C, P]``; also in other dimensions."""
    flat = pixels.flatten(0, 1)[:, None]
    pool = {1: functional.adaptive_avg_pool1d, 2: functional.adaptive_avg_pool2d}
    pooled = pool.get(pixels.dim() - 2, functional.adaptive_avg_pool3d)(flat, PARTS)
    parts: Tensor = pooled.flatten(1).unflatten(0, pixels.shape[:2])
    return parts
