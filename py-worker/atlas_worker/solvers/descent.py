"""What gradient solvers share: one free tensor under Adam, its schedule, and its saved state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from .state import check_finite, check_kind, restore


class Descent:
    """Adam on ``free``, small and on the CPU whatever device the task is on. Half of a ``Trainable``: subclasses do the epochs."""

    kind: ClassVar[str]
    """Names the solver in its saved state."""

    def __init__(self, free: Tensor, learning_rate: float, epochs: int) -> None:
        self._learning_rate, self._total, self._epoch = learning_rate, epochs, 0
        self._set(free)

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def total_epochs(self) -> int:
        return self._total

    @property
    def memory_bytes(self) -> int:
        """The free tensor and Adam's two moments."""
        return 3 * self._free.element_size() * self._free.numel()

    def _set(self, free: Tensor, adam: Mapping[str, Tensor] | None = None) -> None:
        """Start anew from ``free``, with Adam's ``step``, ``exp_avg`` and ``exp_avg_sq`` where they are known."""
        self._free = free.detach().clone().requires_grad_(True)
        self._adam = torch.optim.Adam([self._free], lr=self._learning_rate)
        if adam:
            self._adam.state[self._free] = {name: t.clone() for name, t in adam.items()}

    def _anneal(self, epoch_share: float) -> None:
        """Learning rate for this share of the present epoch: a cosine over all epochs down to 1 %."""
        done = min((self._epoch + epoch_share) / max(self._total, 1), 1.0)
        self._adam.param_groups[0]["lr"] = self._learning_rate * (
            0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
        )

    def _step(self, objective: Tensor) -> None:
        """Of a scalar, or of ``[m]``, one objective for each row of the free tensor, which know nothing of one another: a row whose
        gradient is not finite then stays where it is. Raises ``Diverged`` when no objective is finite."""
        if not objective.isfinite().any():
            check_finite(objective.detach(), "the loss")
        self._adam.zero_grad()
        objective.sum().backward()
        gradient = self._free.grad
        if objective.dim() and gradient is not None:
            gradient[~gradient.isfinite().flatten(1).all(1)] = 0
        self._adam.step()

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors = {"free": self._free.detach()}
        for name, value in self._adam.state.get(self._free, {}).items():
            tensors[f"adam.{name}"] = value
        return {n: t.clone() for n, t in tensors.items()}, {"kind": self.kind, "epoch": str(self._epoch)}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        self._load(tensors, metadata, self._free.detach())

    def _load(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], like: Tensor) -> None:
        """``load_state`` for a free tensor of ``like``'s shape and type."""
        epoch = check_kind(metadata, self.kind)
        free = restore(tensors, "free", like)
        adam = None
        if "adam.step" in tensors:
            adam = {"step": restore(tensors, "adam.step", torch.zeros(()))}
            adam |= {name: restore(tensors, f"adam.{name}", like) for name in ("exp_avg", "exp_avg_sq")}
        self._set(free, adam)
        self._epoch = epoch
