"""The one interface that long work has: an object that advances epoch by epoch and can be frozen to bytes.

A dataset being generated, a predictor being fitted, a Lie algebra or cosets being solved for are all
``Trainable``: the job loop (``jobs.py``) is the only training loop, and resuming is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

StepCallback = Callable[[int, int, Mapping[str, float]], None]
"""``(step, steps_in_epoch, metrics)``; called at most once a step, may raise ``Cancelled``."""


@runtime_checkable
class Trainable(Protocol):
    """Long work that advances in epochs.

    Invariant (tested for every implementation): ``load_state(state())`` on a freshly made object with the same
    spec, followed by the remaining epochs, gives on CPU bit for bit what the undisturbed object gives. All
    randomness therefore comes from generators whose state is in ``state()`` or that are re-derived from
    ``(seed, epoch)``.
    """

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        ...

    @property
    def total_epochs(self) -> int:
        """Epochs that the spec asks for; schedules (learning-rate decay …) are laid out over this many."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Of the device's memory, that it keeps: known before it is taken."""
        ...

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Do one epoch and return its metrics (all finite). Raises ``Diverged``; the object is then stale."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything needed to go on: tensors and string metadata (the layout of a safetensors file)."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Inverse of :meth:`state`. Raises ``InvalidInput`` naming the first tensor that does not fit."""
        ...
