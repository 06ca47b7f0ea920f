"""The part that gradient solvers share: a free tensor, Adam with its schedule, and saved state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ..checkpointing import check_finite, check_kind, restore
from ..errors import InvalidInput
from ..optim import Adam


class AdamSolver:
    """Adam on a free tensor. Half of a ``Trainable``: subclasses run the epochs.

    The free tensor is small, and on the CPU whatever device the objective is on.

    Args:
        free: Start of the free tensor.
        learning_rate: Learning rate of Adam at the start.
        epochs: Total number of epochs.
    """

    kind: ClassVar[str]
    """The solver's name in its saved state, that of its first release."""

    def __init__(self, free: Tensor, learning_rate: float, epochs: int) -> None:
        self._learning_rate, self._total, self._epoch = learning_rate, epochs, 0
        self._set(free)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self._epoch

    @property
    def total_epochs(self) -> int:
        """Number of epochs in the spec."""
        return self._total

    @property
    def memory_bytes(self) -> int:
        """Bytes of the free tensor and Adam's two moments."""
        return 3 * self._free.element_size() * self._free.numel()

    def _set(self, free: Tensor, adam: Mapping[str, Tensor] | None = None) -> None:
        """Restart from ``free``, with Adam's ``step``, ``exp_avg`` and ``exp_avg_sq`` if given."""
        self._free = free.detach().clone().requires_grad_(True)
        self._adam = Adam([self._free], lr=self._learning_rate)
        if adam:
            self._adam.state[self._free] = {name: t.clone() for name, t in adam.items()}

    def _anneal(self, epoch_share: float) -> None:
        """Set the learning rate for a fraction of the present epoch.

        It falls along a cosine over all epochs, down to 1 %.
        """
        done = min((self._epoch + epoch_share) / max(self._total, 1), 1.0)
        self._adam.param_groups[0]["lr"] = self._learning_rate * (
            0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
        )

    def _step(self, objective: Tensor) -> None:
        """Make one step of Adam.

        Args:
            objective: A scalar, or ``[m]`` with an independent objective for each row of the free
                tensor. A row whose gradient is not finite then stays as it is.

        Raises:
            Diverged: No objective is finite.
            InvalidInput: The objective has no gradient.
        """
        if not objective.isfinite().any():
            check_finite(objective.detach(), "the loss")
        if not objective.requires_grad:
            raise InvalidInput(
                "the predictor's outputs have no gradient with respect to its inputs",
                "predictor",
                "a predictor that can be differentiated",
                "do not detach its outputs from its inputs",
            )
        self._adam.zero_grad()
        objective.sum().backward()
        gradient = self._free.grad
        if objective.dim() and gradient is not None:
            gradient[~gradient.isfinite().flatten(1).all(1)] = 0
        self._adam.step()

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the free tensor, Adam's moments, the kind and the epoch."""
        tensors = {"free": self._free.detach()}
        for name, value in self._adam.state.get(self._free, {}).items():
            tensors[f"adam.{name}"] = value
        return {n: t.clone() for n, t in tensors.items()}, {
            "kind": self.kind,
            "epoch": str(self._epoch),
        }

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restore what :meth:`state` returned. Raises ``InvalidInput`` if it does not fit."""
        self._load(tensors, metadata, self._free.detach())

    def _load(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], like: Tensor
    ) -> None:
        """Restore state whose free tensor has the shape and type of ``like``."""
        epoch = check_kind(metadata, self.kind)
        free = restore(tensors, "free", like)
        adam = None
        if "adam.step" in tensors:
            adam = {"step": restore(tensors, "adam.step", torch.zeros(()))}
            adam |= {
                name: restore(tensors, f"adam.{name}", like) for name in ("exp_avg", "exp_avg_sq")
            }
        self._set(free, adam)
        self._epoch = epoch
