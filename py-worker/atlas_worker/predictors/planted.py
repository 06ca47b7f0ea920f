"""Targets with a planted breaking, to learn how small a breaking would be noticed (METHOD 2.13).

A random map b without any symmetry is added to the targets, and the same training begins afresh::

    y' = y + ε s b(x)        b has mean 0 and variance 1; s: standard deviation of y

For classes, labels are changed to the next class where b is in its upper tail. The share of the
breaking that the new predictor shows tells what it would have shown of a breaking of the data.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..rng import random_stream
from ..symmetry import Inputs, max_batch
from ..symmetry.neighbours import whitening

WAVES = 32
"""Cosines of which a breaking on sets of vectors consists."""
SAMPLE = 512
"""Samples from which a breaking's mean and variance are measured."""
CHARTS = 4
"""Largest number of charts for that."""


class Breaking:
    """A random map b of samples: ``[B, C, ...] -> [B, C, out]``, or ``[B, C, out, s, s]``.

    On sets of vectors it is a sum of 32 random cosines of the whitened inputs. On windows it is
    the square of a filtered field, plus another filtered field; the filters are random.

    Args:
        inputs: Samples from which units are taken.
        outputs: Number of outputs.
        classes: Number of classes; 0 for numbers. Then b has one output for each.
        length: Length over which b changes, in standard deviations of the whitened inputs, for
            several items of their mean; for windows the radius of the filters in pixels.
        share: ε, for numbers. For classes the share of labels that are changed.
        unit: Standard deviation of each output, ``[outputs]``.
        halo: Pixels beyond the outputs in the inputs.
        seed: Seed of the map.
    """

    def __init__(
        self,
        inputs: Inputs,
        outputs: int,
        *,
        classes: int,
        length: float,
        share: float,
        unit: Tensor,
        halo: int,
        seed: int,
    ) -> None:
        generator = random_stream(seed, 101)
        self._classes, self._share, self._halo, self._unit = classes, share, halo, unit
        charts = None
        if inputs.charts > CHARTS:
            charts = torch.arange(CHARTS) * (inputs.charts // CHARTS)
        at_once = max(1, max_batch(inputs.shape))
        order = torch.randperm(len(inputs), generator=random_stream(seed, 102))
        x = inputs.draw(order[: min(SAMPLE, at_once)], charts)
        whiten, self._fields = whitening(x), x.dim() == 5
        count = 1 if classes else outputs
        if self._fields:
            channels, k = x.shape[2], 2 * max(1, round(length)) + 1
            self._scale = whiten.diagonal().float().view(-1, 1, 1)
            self._filters = torch.randn(2 * count, channels, k, k, generator=generator) / math.sqrt(
                channels * k * k
            )
        else:
            numbers = math.prod(x.shape[2:])
            self._whiten = whiten.float()
            spread = length * math.sqrt(x.shape[2])
            self._waves = torch.randn(numbers, WAVES, generator=generator) / spread
            self._phases = 2 * math.pi * torch.rand(WAVES, generator=generator)
            self._weights = torch.randn(WAVES, count, generator=generator)
        self._mean, self._deviation = torch.zeros(()), torch.ones(())
        values = self(x)
        axes = [d for d in range(values.dim()) if d != 2]
        self._mean = values.mean(axes, keepdim=True)
        self._deviation = values.std(axes, keepdim=True).clamp(min=1e-12)
        if classes:
            flat = self(x).flatten()
            self._above = flat.sort().values[int((1 - share) * (len(flat) - 1))]

    def __call__(self, x: Tensor, charts: Tensor | None = None) -> Tensor:
        """Compute b, with mean 0 and variance 1."""
        if self._fields:
            lead, field = x.shape[:2], (x.float() * self._scale.to(x)).flatten(0, 1)
            pad = self._filters.shape[-1] // 2
            padded = functional.pad(field, [pad] * 4, mode="replicate")
            made = functional.conv2d(padded, self._filters.to(x))
            first, second = made.chunk(2, 1)
            h = self._halo
            value = (first.square() + second).unflatten(0, lead)
            value = value[..., h : value.shape[-2] - h, h : value.shape[-1] - h]
        else:
            z = (x.float() @ self._whiten.to(x)).flatten(2)
            value = torch.cos(z @ self._waves.to(x) + self._phases.to(x)) @ self._weights.to(x)
        b: Tensor = (value - self._mean.to(x)) / self._deviation.to(x)
        return b

    def plant(self, y: Tensor, b: Tensor) -> Tensor:
        """Break targets.

        Args:
            y: Numbers ``[B, C, out, ...]``, or labels ``[B, C, 1, ...]``.
            b: Values of b for the same samples.

        Returns:
            Broken targets of the same shape and type.
        """
        if self._classes:
            there = self.within(b).reshape(y.shape)
            return torch.where(there, (y + 1) % self._classes, y)
        return y + self._added(b).reshape(y.shape).to(y)

    def within(self, b: Tensor) -> Tensor:
        """Tell where labels are changed."""
        there: Tensor = b > self._above.to(b)
        return there

    def broken(self, moved: Tensor, still: Tensor, f: Tensor) -> Tensor:
        """Compute how far the breaking alone moves the targets apart.

        Args:
            moved: ``g⁻¹·b(g·x)`` where outputs are compared, ``[B, C, out, ...]``.
            still: ``b(x)``, likewise.
            f: Predictions, ``[B, C, out, ...]``: numbers, or probabilities of classes.

        Returns:
            Differences of the targets, or of the classes' probabilities, with the shape of f.
        """
        if not self._classes:
            return self._added(moved - still).reshape(f.shape)
        differ = (self.within(moved) != self.within(still)).to(f)
        # The next class has the probability of the present one.
        return differ.reshape(f[:, :, :1].shape) * (f.roll(1, 2) - f)

    def _added(self, b: Tensor) -> Tensor:
        unit = self._unit.to(b).view(-1, *[1] * (b.dim() - 3))
        added: Tensor = self._share * unit * b
        return added


class PlantedTargets:
    """``Inputs`` of targets with a planted breaking.

    Args:
        inputs: The samples that b is a map of.
        targets: Their targets.
        breaking: The breaking.
    """

    memory_bytes = 0
    """No samples are kept."""

    def __init__(self, inputs: Inputs, targets: Inputs, breaking: Breaking) -> None:
        self._x, self._y, self._breaking = inputs, targets, breaking

    def __len__(self) -> int:
        return len(self._y)

    @property
    def charts(self) -> int:
        """Number of charts."""
        return self._y.charts

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample's targets on all charts."""
        return self._y.shape

    @property
    def device(self) -> torch.device:
        """Device of drawn targets."""
        return self._y.device

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """Return targets ``[B, C, out, ...]``."""
        y = self._y.draw(indices, charts)
        return self._breaking.plant(y, self._breaking(self._x.draw(indices, charts)))
