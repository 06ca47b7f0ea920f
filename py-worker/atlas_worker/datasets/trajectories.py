"""Trajectories as samples: what comes in, and what has to be predicted from it (METHOD 1.8)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InvalidInput

_PREDICT = re.compile(r"next(?::([1-9]\d{0,5}))?|rest")
_PARAM = "dataset.source.params.predict"
_INPUTS = "dataset.tensors.inputs"


@dataclass(frozen=True)
class Samples:
    """Samples that were cut out of trajectories."""

    inputs: Tensor
    """``[N, m, n]``"""
    targets: Tensor
    """``[N, outputs]``: the frames one after the other, each with its items one after the other."""
    scenes: Tensor
    """Trajectory of each sample, ``[N]`` int64 on the CPU."""
    warnings: tuple[str, ...] = ()
    """What the user should know."""


def check_predict(text: str) -> int | None:
    """Read what is to be predicted.

    Args:
        text: ``next``, ``next:K`` or ``rest``.

    Returns:
        The number of frames; None for all that follow the first.

    Raises:
        InvalidInput: The text is none of them.

    >>> check_predict("next:5")
    5
    """
    match = _PREDICT.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            f"{text!r} says nothing to predict",
            _PARAM,
            "next, next:5 for the next five frames, or rest",
        )
    return None if text.strip() == "rest" else int(match[1] or 1)


def real_frames(x: Tensor, mask: Tensor | None) -> Tensor:
    """Tell which frames are measured: those that are not NaN altogether, or that a mask names.

    Args:
        x: ``[n, t, m, f]``.
        mask: ``[n, t]``, not 0 where a frame is measured; None: NaN tells.

    Returns:
        ``[n, t]`` bool.

    Raises:
        InvalidInput: The mask has another shape, a measured frame has entries that are not finite,
            or a trajectory has fewer than two frames.
    """
    flat = x.flatten(2)
    if mask is not None and mask.shape != x.shape[:2]:
        raise InvalidInput(
            f"the mask has shape {list(mask.shape)}, and the trajectories {list(x.shape[:2])}",
            "dataset.tensors.mask",
            f"{list(x.shape[:2])}, trajectories and frames",
        )
    real = ~flat.isnan().all(2) if mask is None else mask != 0
    wrong = real & ~flat.isfinite().all(2)
    if bool(wrong.any()):
        at, frame = (int(i) for i in wrong.nonzero()[0])
        raise InvalidInput(
            f"{int(wrong.sum()):,} frames have entries that are NaN or infinite, first frame "
            f"{frame} of trajectory {at}",
            _INPUTS,
            "finite numbers, or nothing but NaN in a frame that is not there",
            "repair or remove these trajectories",
        )
    short = real.sum(1) < 2
    if bool(short.any()):
        first = int(short.int().argmax())
        frames = int(real[first].sum())
        raise InvalidInput(
            f"trajectory {first} has {frames} frame{'' if frames == 1 else 's'}, as have "
            f"{int(short.sum()) - 1:,} others",
            _INPUTS,
            "trajectories of at least two frames",
            "remove these trajectories",
        )
    return real


def filled_up(gaps: NDArray[np.bool_]) -> bool:
    """Whether sets ``[n, m, f]`` miss numbers only in whole last rows, as short trajectories do.

    Args:
        gaps: Where numbers are missing.

    >>> filled_up(np.array([[[False], [False], [True]], [[False], [True], [True]]]))
    True
    >>> filled_up(np.array([[[False], [True], [False]]]))
    False
    """
    rows = gaps.all(2)
    last = np.maximum.accumulate(rows, 1)
    return bool(gaps.any() and (rows == gaps.any(2)).all() and (rows == last).all())


def cut(x: Tensor, predict: str, mask: Tensor | None = None) -> Samples:
    """Make samples of trajectories: a frame comes in, and frames after it are to be predicted.

    Frames on both sides of a gap belong to no common sample.

    Args:
        x: Trajectories ``[n, t, m, f]``, m items of f features in each frame. Shorter ones are
            filled up with frames of NaN, or told by the mask.
        predict: ``next`` or ``next:K``: from every frame the next one, or the next K. ``rest``:
            from the first frame all that follow, of trajectories of one length.
        mask: As for :func:`real_frames`.

    Returns:
        The samples.

    Raises:
        InvalidInput: See :func:`check_predict` and :func:`real_frames`; or the trajectories are too
            short, or of several lengths where they must have one.
    """
    frames, real = check_predict(predict), real_frames(x, mask)
    said: tuple[str, ...] = ()
    if frames is None:
        lengths = real.sum(1)
        least, most = int(lengths.min()), int(lengths.max())
        if least < most:
            raise InvalidInput(
                f"the trajectories have from {least} to {most} frames, so their rests differ in "
                "length",
                _PARAM,
                "trajectories of one length, or next",
                "predict the next frames, for example next:5",
            )
        # The frames of each trajectory in their order, without the missing ones.
        x = x[real].unflatten(0, (len(x), most))
        steps = (real.nonzero()[:, 1].view(len(x), most).diff(dim=1) != 1).any(1)
        if bool(steps.any()):
            raise InvalidInput(
                f"trajectory {int(steps.int().argmax())} has a gap",
                _INPUTS,
                "trajectories without missing frames in between",
                "predict the next frames instead of the rest",
            )
        real, frames = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), most - 1
    count = x.shape[1] - frames
    starts = real[:, : max(count, 0)].clone()
    for step in range(1, frames + 1):
        starts &= real[:, step : step + starts.shape[1]]
    without = ~starts.any(1) if count > 0 else torch.ones(len(x), dtype=torch.bool)
    if bool(without.all()):
        raise InvalidInput(
            f"no trajectory has {frames + 1} frames without a gap",
            _PARAM,
            f"at most {max(int(real.sum(1).max()) - 1, 1)} frames to predict",
        )
    if bool(without.any()):
        said = (
            f"{int(without.sum()):,} of {len(x):,} trajectories have fewer than {frames + 1} "
            "frames without a gap, and are left out",
        )
    at, t = starts.nonzero(as_tuple=True)
    following = torch.stack([x[at, t + step] for step in range(1, frames + 1)], 1)
    return Samples(x[at, t], following.flatten(1), at.cpu(), said)


def single_frames(x: Tensor, targets: Tensor, mask: Tensor | None = None) -> Samples:
    """Make a sample of each frame that has a target of its own.

    Args:
        x: ``[n, t, m, f]``, as for :func:`cut`.
        targets: ``[n, t]`` or ``[n, t, outputs]``.
        mask: As for :func:`real_frames`.

    Returns:
        The samples.

    Raises:
        InvalidInput: See :func:`real_frames`; or the targets are not those of the frames.
    """
    if targets.shape[:2] != x.shape[:2] or targets.dim() > 3:
        raise InvalidInput(
            f"targets have shape {list(targets.shape)}, and the inputs are trajectories",
            "dataset.tensors.targets",
            f"{[*x.shape[:2]]} or {[*x.shape[:2], 'outputs']}, one for each frame",
            "say what to predict from the trajectories instead; or, if each trajectory has one "
            "target, call the frames items",
        )
    real = real_frames(x, mask)
    at, _ = real.nonzero(as_tuple=True)
    return Samples(x[real], targets[real].reshape(len(at), -1), at.cpu())
