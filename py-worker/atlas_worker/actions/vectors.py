"""GL(n) acting on sets of vectors in R^n: a global symmetry, with one chart and no resampling (METHOD section 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput

ONE_SIDE = 0.99
"""Part of the samples that make a side."""
FEWEST = 8
"""Samples for each dimension that it takes to say so."""


@dataclass(frozen=True)
class VectorSpace:
    """R^n as an atlas of one chart. ``vector_output``: the output is a set of vectors as well and moves with g."""

    n: int
    vector_output: bool = False

    def __len__(self) -> int:
        return 1

    def check(self, shape: torch.Size) -> None:
        """Raise ``InvalidInput`` unless samples of a dataset of this ``shape`` are sets of vectors in R^n."""
        if len(shape) != 3 or shape[-1] != self.n:
            raise InvalidInput(
                f"the dataset's inputs have shape {list(shape)}", "atlas.vectors.n", f"[N, m, {self.n}]"
            )


@dataclass(frozen=True)
class VectorAction:
    """``(g·x)_i = g x_i`` for sets of vectors ``x [B, C, m, n]``; outputs ``[B, C, c]`` stay, outputs ``[B, C, m', n]`` move likewise."""

    n: int
    vector_output: bool = False

    def act_in(self, g: Tensor, x: Tensor) -> Tensor:
        return x @ g.to(x.dtype).mT

    def act_out(self, g: Tensor, y: Tensor) -> Tensor:
        if self.vector_output:
            return y @ g.to(y.dtype).mT
        return y.expand(*g.shape[:-2], *y.shape[2:])

    def still_in(self, x: Tensor) -> Tensor:
        return x

    def still_out(self, y: Tensor) -> Tensor:
        return y

    def covers(self, g: Tensor, x: Tensor) -> Tensor:
        """Not where all samples' sums lie on one side of a hyperplane (as energies are positive) and g moves them to the other.

        Its normal is ``E[s sᵀ]⁻¹ E[s]``, the linear form that is nearest to 1 on the sums s, whatever the coordinates.
        """
        sums = x.double().sum(-2).flatten(0, -2)
        if len(sums) < FEWEST * self.n:  # a plane with all of a few points on one side there always is
            return torch.ones(len(g), dtype=torch.bool, device=x.device)
        normal = torch.linalg.pinv(sums.mT @ sums / len(sums)) @ sums.mean(0)
        before = (sums @ normal > 0).double().mean()
        after = (sums @ g.double().mT @ normal > 0).double().mean(-1)
        covered: Tensor = ~((before >= ONE_SIDE) & (after <= 1 - ONE_SIDE))
        return covered

    def refined(self) -> VectorAction:
        return self

    def smooth(self) -> VectorAction:
        return self


class VectorInputs:
    """``Inputs`` from samples ``[N, ...]``, one chart; drawn ones are moved to ``device`` (None: where the samples are)."""

    charts = 1
    memory_bytes = 0

    def __init__(self, samples: Tensor, device: torch.device | None = None) -> None:
        self._samples, self._device = samples, device or samples.device

    def __len__(self) -> int:
        return self._samples.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return 1, *self._samples.shape[1:]

    @property
    def device(self) -> torch.device:
        return self._device

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        return self._samples[indices.to(self._samples.device)][:, None].to(self._device)
