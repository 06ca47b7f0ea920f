"""One sample moved along a generator, and what a predictor says of it: frames to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput
from .evidence import Subject


@dataclass(frozen=True)
class Motion:
    """Frames of a moved sample; T lengths. Class probabilities stand for logits."""

    inputs: Tensor
    """``exp(tB)·x`` as the predictor sees it, ``[T, ...]``."""
    predicted: Tensor
    """``f(exp(tB)·x)`` where outputs are compared, ``[T, out, ...]``."""
    expected: Tensor
    """``exp(tB)·f(x)`` where outputs are compared, ``[T, out, ...]``."""
    classes: bool
    """Whether the outputs are class probabilities."""

    @property
    def apart(self) -> list[float]:
        """Mean absolute difference of both at each length, in units of the expected ones' spread.

        The spread is their mean absolute deviation. Empty where they do not vary.
        """
        spread = (self.expected - self.expected.mean()).abs().mean()
        if not float(spread) > 0 or self.expected[0].numel() < 2:
            return []
        differences = (self.predicted - self.expected).abs().flatten(1).mean(1)
        shares: list[float] = (differences / spread).tolist()
        return shares


def move(
    subject: Subject, direction: Tensor, lengths: Sequence[float], sample: int, chart: int
) -> Motion:
    """Move one sample along a generator, on one chart.

    For an equivariant predictor ``predicted`` and ``expected`` are the same (METHOD 1.2).

    Args:
        subject: The predictor (only the first is used), the action, and the samples.
        direction: The generator B, ``[n, n]``.
        lengths: The lengths t.
        sample: Index of the sample, among those that judge.
        chart: Index of the chart.

    Returns:
        The frames, on the CPU.

    Raises:
        InvalidInput: There is no such sample or chart.
    """
    for name, index, count in (
        ("sample", sample, len(subject.test)),
        ("chart", chart, subject.inputs.charts),
    ):
        if not 0 <= index < count:
            raise InvalidInput(f"{name} is {index}", name, f"0 to {count - 1}")
    f, action = subject.predictors[0], subject.action
    charts = torch.tensor([chart])
    with torch.no_grad():
        x = subject.inputs.draw(subject.test[sample : sample + 1], charts)
        classes = subject.classes

        def predict(x: Tensor) -> Tensor:
            y = f(x, charts).float()
            return y.softmax(2) if classes else y

        still = predict(action.crop_in(x))
        inputs, predicted, expected = [], [], []
        for t in lengths:
            g = torch.matrix_exp(t * direction.double()).to(x).expand(*x.shape[:2], -1, -1)
            moved = action.act_in(g, x)
            inputs.append(moved[0, 0])
            predicted.append(action.crop_out(predict(moved))[0, 0])
            expected.append(action.act_out(g, still)[0, 0])
    x_frames, f_frames, g_frames = (
        torch.stack(part).float().cpu() for part in (inputs, predicted, expected)
    )
    return Motion(x_frames, f_frames, g_frames, bool(classes))
