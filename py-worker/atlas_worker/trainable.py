"""The interface of all long work: an object that advances by epochs and can be saved to tensors.

Generating a dataset, fitting a predictor, and solving for a Lie algebra or for cosets are all
``Trainable``. So one job loop (``service/jobs.py``) serves them all, and resuming is the same for
all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

StepCallback = Callable[[int, int, Mapping[str, float]], None]
"""``(step, steps_in_epoch, metrics)``. Called at most once a step; may raise ``Cancelled``."""


@runtime_checkable
class Trainable(Protocol):
    """Long work that advances in epochs.

    Invariant (tested for every implementation): make a new object with the same spec, call
    ``load_state(state())`` on it, and run the remaining epochs. On a CPU the result equals that of
    the undisturbed object bit for bit. So all random numbers come from generators whose state is
    in ``state()``, or that are derived again from ``(seed, epoch)``.
    """

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        ...

    @property
    def total_epochs(self) -> int:
        """Number of epochs in the spec. Schedules such as learning-rate decay span all of them."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Device memory in bytes that the object holds, known before it is allocated."""
        ...

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Run one epoch.

        Args:
            on_step: Called after each step.

        Returns:
            The epoch's metrics, all finite.

        Raises:
            Diverged: A value became NaN or infinite. The object must not be used any more.
            Cancelled: ``on_step`` raised it.
        """
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return everything that is needed to continue, in the layout of a safetensors file.

        Returns:
            Tensors by name, and metadata of texts.
        """
        ...

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restore what :meth:`state` returned.

        Raises:
            InvalidInput: A tensor does not fit. The error names the first such tensor.
        """
        ...
