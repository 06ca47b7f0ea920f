"""The promise of every ``Trainable``: saved and restored anywhere, it ends with the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch

from atlas_worker.trainable import Trainable

T = TypeVar("T", bound=Trainable)


def advance(made: T, epochs: int = 1) -> T:
    for _ in range(epochs):
        metrics = made.run_epoch(lambda *_: None)
        assert all(math.isfinite(v) for v in metrics.values())
    return made


def check_resuming(make: Callable[[], T], epochs: int, stop: int) -> tuple[T, T]:
    """Run one without a stop, and one restored after ``stop`` of ``epochs`` epochs.

    Their states are checked to be equal.
    """
    whole, first, resumed = advance(make(), epochs), advance(make(), stop), make()
    saved = first.state()
    advance(first, 1)  # what is saved must not move on with the object
    advance(resumed, 1)  # nor may what was there before matter
    resumed.load_state(*saved)
    assert resumed.epoch == stop
    advance(resumed, epochs - stop)
    (a, facts), (b, others) = whole.state(), resumed.state()
    assert facts == others
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    return whole, resumed
