"""What a solver needs to know of a task: nothing but ``Task``. What a new kind of field must supply: ``Action`` and ``Inputs``.

Shapes: B samples, C charts; a matrix batch ``g`` is ``[..., B, C, n, n]``, whose leading dims (starts, candidates,
directions) are carried through everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput

LossKind = Literal["l1", "cross_entropy", "jaccard"]

_ENTRIES_AT_ONCE = 2**23

Predictor = Callable[[Tensor, Tensor | None], Tensor]
"""A frozen predictor in evaluation mode: ``f(x [B, C, ...], charts) -> y [B, C, out, ...]``. ``charts`` are the C chart indices
(int64, on the CPU) that x was drawn for, or None for all in order."""


class Action(Protocol):
    """How ``g in GL(n)`` acts on a predictor's input and output (METHOD section 1)."""

    @property
    def n(self) -> int:
        """g is n by n."""
        ...

    def act_in(self, g: Tensor, x: Tensor) -> Tensor:
        """``g·x``: inputs ``[B, C, ...]`` as drawn (with their margin) to predictor inputs ``[..., B, C, ...]``."""
        ...

    def act_out(self, g: Tensor, y: Tensor) -> Tensor:
        """``g·y`` on the part of the output where outputs are compared."""
        ...

    def still_in(self, x: Tensor) -> Tensor:
        """``act_in(I, x)``, exactly and without resampling."""
        ...

    def still_out(self, y: Tensor) -> Tensor:
        """``act_out(I, y)``, exactly and without resampling."""
        ...

    def covers(self, g: Tensor, x: Tensor) -> Tensor:
        """Whether matrices ``g [m, n, n]`` move inputs ``x [B, C, ...]`` to where there are inputs at all: ``[m]`` bool.

        Beyond the data a predictor says what it happens to say, and that is no evidence for or against a symmetry.
        """
        ...

    def refined(self) -> Action:
        """The same action with a better interpolation, to tell how much of a loss is the resampler's; may be ``self``."""
        ...

    def smooth(self) -> Action:
        """The same action with an interpolation that has derivatives; may be ``self``."""
        ...


class Inputs(Protocol):
    """Samples on the device, drawn by batches of indices."""

    def __len__(self) -> int: ...

    @property
    def charts(self) -> int:
        """Number of charts; 1 for a global task."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample as drawn on all charts, ``(C, ...)``."""
        ...

    @property
    def device(self) -> torch.device:
        """Where drawn inputs are."""
        ...

    @property
    def memory_bytes(self) -> int:
        """What it keeps there of drawn inputs, once all are drawn."""
        ...

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """Inputs ``[B, C, ...]`` of samples ``indices [B]`` on ``charts [C]`` (None: all)."""
        ...


@dataclass(frozen=True)
class Batch:
    """Inputs and what the frozen predictor makes of them, computed once and compared with any number of matrices."""

    x: Tensor
    """``[B, C, ...]``, as drawn."""
    reference: Tensor
    """``f(x) [B, C, out, ...]``; class probabilities for a logit predictor. Detached."""
    charts: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """``(B, C)``."""
        return self.x.shape[0], self.x.shape[1]


class Task(Protocol):
    """A predictor's equivariance, as the solvers see it."""

    @property
    def n(self) -> int: ...

    @property
    def samples(self) -> int: ...

    @property
    def charts(self) -> int: ...

    @property
    def at_once(self) -> int:
        """Samples on all charts that there is room for at a time, for their size."""
        ...

    def refresh(self) -> None:
        """Read the predictor's weights as they are now (they change when predictor and basis are trained by turns)."""
        ...

    def batch(self, indices: Tensor, charts: Tensor | None = None) -> Batch: ...

    def response(self, indices: Tensor, directions: Tensor, step: float) -> Tensor:
        """``d/dt [f(exp(tE)·x) − exp(tE)·f(x)]`` at t = 0, ``[D, B·C, entries]`` in float64, of samples ``indices [B]`` on all charts.

        ``directions [D, n, n]``; by central differences of width ``step``. Zero for an exact symmetry.
        """
        ...

    def loss(self, batch: Batch, g: Tensor) -> Tensor:
        """Equivariance loss ``L(f(g·x), g·f(x)) [..., B, C]``, differentiable in ``g [..., B, C, n, n]``.

        g may be on the CPU whatever the batch is on; the loss comes back to where g is.
        """
        ...

    def distance(self, batch: Batch, g: Tensor) -> Tensor:
        """Mean absolute difference of ``f(g·x)`` and ``g·f(x)``, ``[..., B, C]``, of class probabilities for a logit predictor; else as ``loss``."""
        ...

    def covers(self, batch: Batch, matrices: Tensor) -> Tensor:
        """Whether ``matrices [m, n, n]`` move the inputs to where there are inputs at all: ``[m]`` bool, on the CPU."""
        ...

    def errors(self, batch: Batch, g: Tensor) -> EquivarianceErrors:
        """The loss and what it is to be measured against. No gradients."""
        ...


@dataclass(frozen=True)
class EquivarianceErrors:
    """Measured at matrices ``[..., B, C, n, n]``; every field ``[..., B, C]``. Distances are mean absolute differences of
    outputs (of class probabilities, for a logit predictor)."""

    loss: Tensor
    distance: Tensor
    """``|f(gx) - g f(x)|``"""
    motion: Tensor
    """``|f(gx) - f(x)| + |g f(x) - f(x)|``, never less than ``distance``."""
    floor: Tensor
    """The part of ``loss`` that interpolation may cause: for L1, ``resampling``; for cross-entropy, its change under a finer one."""
    resampling: Tensor
    """How far ``distance`` may be the interpolation's doing: both sides' change under a finer interpolation."""


class SymmetryTask:
    """``Task`` for any ``Action``: inputs, a frozen predictor and a loss.

    ``freeze`` returns the predictor with its present weights, in evaluation mode and without weight gradients; it is called by
    ``refresh``. ``freeze_inner`` may return the same predictor computing only what ``Action.still_out`` keeps, ``freeze_double`` the
    same in float64 (None: ``freeze``'s takes either). Losses (METHOD 2.1): ``l1`` is the mean absolute difference; the others are for
    logit predictors, however they were trained: cross-entropy, with the target ``softmax(f(x))`` moved by g and channels on the first axis
    after ``[B, C]``.
    """

    def __init__(
        self,
        inputs: Inputs,
        action: Action,
        freeze: Callable[[], Predictor],
        loss: LossKind = "l1",
        freeze_inner: Callable[[], Predictor] | None = None,
        freeze_double: Callable[[], Predictor] | None = None,
    ) -> None:
        if loss not in get_args(LossKind):
            raise InvalidInput(f"unknown loss {loss!r}", "loss", ", ".join(get_args(LossKind)))
        self._inputs, self._action, self._freeze, self._kind = inputs, action, freeze, loss
        self._freeze_inner, self._freeze_double = freeze_inner, freeze_double
        self.refresh()

    @property
    def n(self) -> int:
        return self._action.n

    @property
    def samples(self) -> int:
        return len(self._inputs)

    @property
    def charts(self) -> int:
        return self._inputs.charts

    @property
    def at_once(self) -> int:
        return at_once(self._inputs.shape)

    def refresh(self) -> None:
        self._f = self._freeze()
        self._inner = self._f if self._freeze_inner is None else self._freeze_inner()

    def batch(self, indices: Tensor, charts: Tensor | None = None) -> Batch:
        with torch.no_grad():
            x = self._inputs.draw(indices, charts)
            y = self._f(self._action.still_in(x), charts)
            return Batch(x, self._comparable(y, channels=2), charts)

    @torch.no_grad()
    def response(self, indices: Tensor, directions: Tensor, step: float) -> Tensor:
        x, action = self._inputs.draw(indices, None).double(), self._action.smooth()
        f = self._freeze() if self._freeze_double is None else self._freeze_double()
        reference = self._comparable(f(action.still_in(x), None), channels=2)

        def residual(g: Tensor) -> Tensor:
            g = g.expand(*x.shape[:2], -1, -1)
            moved = self._comparable(f(action.act_in(g, x), None), channels=2)
            return (action.still_out(moved) - action.act_out(g, reference)).flatten(2).flatten(0, 1)

        return torch.stack(
            [
                (residual(torch.matrix_exp(step * e)) - residual(torch.matrix_exp(-step * e))) / (2 * step)
                for e in directions.to(x)
            ]
        )

    def loss(self, batch: Batch, g: Tensor) -> Tensor:
        home, g = g.device, g.to(batch.x.device)
        loss = self._loss(
            self._predict(batch, g, self._action), self._action.act_out(g, batch.reference), g.dim() - 2
        )
        return loss.to(home)

    def distance(self, batch: Batch, g: Tensor) -> Tensor:
        home, g = g.device, g.to(batch.x.device)
        lead = g.dim() - 2
        predicted = self._comparable(self._predict(batch, g, self._action), lead)
        return _mean_abs(predicted - self._action.act_out(g, batch.reference), lead).to(home)

    @torch.no_grad()
    def covers(self, batch: Batch, matrices: Tensor) -> Tensor:
        return self._action.covers(matrices.to(batch.x), batch.x).cpu()

    @torch.no_grad()
    def errors(self, batch: Batch, g: Tensor) -> EquivarianceErrors:
        home, g = g.device, g.to(batch.x.device)
        lead = g.dim() - 2
        predicted, target = self._predict(batch, g, self._action), self._action.act_out(g, batch.reference)
        comparable = self._comparable(predicted, lead)
        still = self._action.still_out(batch.reference)
        fine = self._action.refined()
        loss = self._loss(predicted, target, lead)
        floor = resampling = torch.zeros_like(loss)
        if fine is not self._action:
            finely, there = self._predict(batch, g, fine), fine.act_out(g, batch.reference)
            resampling = _mean_abs(self._comparable(finely, lead) - comparable, lead) + _mean_abs(
                there - target, lead
            )
            floor = resampling if self._kind == "l1" else (self._loss(finely, there, lead) - loss).abs()
        return EquivarianceErrors(
            loss=loss.to(home),
            distance=_mean_abs(comparable - target, lead).to(home),
            motion=(_mean_abs(comparable - still, lead) + _mean_abs(target - still, lead)).to(home),
            floor=floor.to(home),
            resampling=resampling.to(home),
        )

    def _predict(self, batch: Batch, g: Tensor, action: Action) -> Tensor:
        moved = action.act_in(g, batch.x)
        lead = g.dim() - 4  # dims before [B, C]
        y = self._inner(moved.flatten(0, lead), batch.charts)
        return self._action.still_out(y.unflatten(0, moved.shape[: lead + 1]))

    def _comparable(self, y: Tensor, channels: int) -> Tensor:
        return y if self._kind == "l1" else y.softmax(channels)

    def _loss(self, predicted: Tensor, target: Tensor, lead: int) -> Tensor:
        if self._kind == "l1":
            return _mean_abs(predicted - target, lead)
        # Soft-label cross-entropy per pixel (or per output, for a global task), then the mean over pixels.
        entropy = -(target * functional.log_softmax(predicted, lead)).sum(lead, keepdim=True)
        return entropy.flatten(lead).mean(-1)


def at_once(shape: tuple[int, ...]) -> int:
    """Samples of this ``shape`` on all charts that networks are given at a time: their layers hold some ten times as many numbers."""
    return max(_ENTRIES_AT_ONCE // math.prod(shape), 1)


def _mean_abs(a: Tensor, lead: int) -> Tensor:
    return a.abs().flatten(lead).mean(-1)
