"""How a group acts on a predictor's inputs and outputs: the protocols ``Action`` and ``Inputs``.

A new kind of data supplies both. Shapes: B samples, C charts. A batch of matrices ``g`` is
``[..., B, C, n, n]``; its leading dimensions (starts, candidates, directions) are kept throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

LossKind = Literal["l1", "cross_entropy", "jaccard"]
"""Loss of a predictor (METHOD 2.1)."""

_ENTRIES_AT_ONCE = 2**23

Predictor = Callable[[Tensor, Tensor | None], Tensor]
"""A frozen predictor in evaluation mode: ``f(x [B, C, ...], charts) -> y [B, C, out, ...]``.

``charts`` are the indices of the C charts that x was drawn for (int64, on the CPU), or None for all
charts in order.
"""


class Action(Protocol):
    """How ``g in GL(n)`` acts on a predictor's inputs and outputs (METHOD 1.2)."""

    @property
    def n(self) -> int:
        """Size of the matrices: g is n by n."""
        ...

    def act_in(self, g: Tensor, x: Tensor) -> Tensor:
        """Compute ``g·x``: inputs ``[B, C, ...]`` with margin to inputs ``[..., B, C, ...]``."""
        ...

    def act_out(self, g: Tensor, y: Tensor) -> Tensor:
        """Compute ``g·y`` on the part of the output where outputs are compared."""
        ...

    def crop_in(self, x: Tensor) -> Tensor:
        """Compute ``act_in(I, x)`` exactly, without resampling."""
        ...

    def crop_out(self, y: Tensor) -> Tensor:
        """Compute ``act_out(I, y)`` exactly, without resampling."""
        ...

    def stays_in_support(self, g: Tensor, x: Tensor) -> Tensor:
        """Tell which matrices keep the inputs inside the support of the data (METHOD 1.5).

        A predictor's output far from all data is no evidence for or against a symmetry.

        Args:
            g: Matrices ``[m, n, n]``.
            x: Inputs ``[B, C, ...]``.

        Returns:
            ``[m]`` bool.
        """
        ...

    def compared(self, g: Tensor, x: Tensor) -> Tensor | None:
        """Tell where ``g⁻¹·f(g·x)`` may be compared with ``f(x)``: away from repeated borders.

        Args:
            g: A matrix ``[n, n]``.
            x: Inputs ``[B, C, ...]`` with margin.

        Returns:
            A bool for each pixel of the cropped outputs, ``[1, s, s]``; None for everywhere.
        """
        ...

    def output_terms(self, outputs: int) -> list[slice]:
        """Split the outputs into those that move together, and so have one unit.

        Args:
            outputs: Number of outputs.

        Returns:
            Ranges of outputs that together are all of them.
        """
        ...

    def finer_interpolation(self) -> Action:
        """Return the action with a better interpolation, or itself; for the noise floor."""
        ...

    def differentiable(self) -> Action:
        """Return the action with a differentiable interpolation, or itself."""
        ...


class Inputs(Protocol):
    """Samples on the device, drawn in batches of indices."""

    def __len__(self) -> int: ...

    @property
    def charts(self) -> int:
        """Number of charts; 1 for a global task."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample on all charts, ``(C, ...)``."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the inputs that :meth:`draw` returns."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Device memory in bytes of the samples that are kept, once all have been drawn."""
        ...

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """Return inputs ``[B, C, ...]``: samples ``indices [B]`` on ``charts [C]`` (None: all)."""
        ...


def max_batch(shape: tuple[int, ...]) -> int:
    """Return how many samples networks are given at a time, so that their layers fit in memory.

    A network's layers hold about ten times as many numbers as its input.

    Args:
        shape: Shape of one sample on all charts.

    Returns:
        The number of samples, at least 1.
    """
    return max(_ENTRIES_AT_ONCE // math.prod(shape), 1)
