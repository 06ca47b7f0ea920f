"""Early stopping, and the skill on samples that a training has not seen (METHOD 2.1)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..checkpointing import restore
from ..datasets.splits import Splits

BEST = "best."
"""Prefix of the weights of the best epoch in a state."""
PROGRESS = "held_out"
"""Entry of a state's metadata with the course of the validation."""


@dataclass
class EarlyStopping:
    """Keeps the weights of the epoch with the least validation loss, and tells when to stop."""

    patience: int
    """Epochs without a better loss after which to stop; 0: never."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch; empty before the first epoch and after the last."""
    best_epoch: int = 0
    best_loss: float = math.inf
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of a training that has ended."""

    @property
    def ended(self) -> bool:
        """Whether the weights are final."""
        return bool(self.metrics)

    def see(self, module: nn.Module, epoch: int, loss: float) -> bool:
        """Take note of an epoch's validation loss.

        Args:
            module: The network.
            epoch: Number of finished epochs.
            loss: The validation loss.

        Returns:
            Whether to stop.
        """
        if loss < self.best_loss or not self.best_epoch:
            self.best_epoch, self.best_loss = epoch, loss
            self.best = {n: t.detach().clone() for n, t in module.state_dict().items()}
        return 0 < self.patience <= epoch - self.best_epoch

    def end(self, module: nn.Module) -> None:
        """Give the network the weights of the best epoch."""
        if self.best:
            module.load_state_dict(self.best)
            self.best = {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return what is needed to continue; nothing before the first epoch."""
        if not self.best_epoch and not self.metrics:
            return {}, {}
        progress = [self.best_epoch, self.best_loss, self.metrics]
        tensors = {f"{BEST}{name}": t for name, t in self.best.items()}
        return tensors, {PROGRESS: json.dumps(progress)}

    def load_state(
        self, module: nn.Module, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> None:
        """Restore what :meth:`state` returned. Raises ``InvalidInput`` if it does not fit."""
        started = metadata.get(PROGRESS)
        progress: tuple[int, float, dict[str, float]] = (
            json.loads(started) if started else (0, math.inf, {})
        )
        self.best_epoch, self.best_loss, self.metrics = progress
        kept = any(name.startswith(BEST) for name in tensors)
        own = module.state_dict() if kept else {}
        self.best = {name: restore(tensors, BEST + name, like) for name, like in own.items()}


@dataclass(frozen=True)
class Skill:
    """Skill of a predictor on test samples: ``1 − e0/e_c``."""

    value: float
    """1 for a perfect prediction, 0 for a constant, negative for worse."""
    error: float
    """Standard error, from the differences between scenes."""

    @property
    def metrics(self) -> dict[str, float]:
        """The skill as metrics of an epoch."""
        return {"skill": self.value, "skill_error": self.error}


@torch.no_grad()
def measure_skill(
    predict: Callable[[Tensor], Tensor],
    targets: Callable[[Tensor], Tensor],
    weights: Callable[[Tensor], Tensor] | None,
    splits: Splits,
    batch: int,
) -> Skill:
    """Compare the squared errors of predictions with those of the training targets' mean.

    Args:
        predict: Maps samples ``[B]`` to predictions ``[B, ...]``, for classes to probabilities.
        targets: Maps samples ``[B]`` to what should be predicted, likewise.
        weights: Maps samples ``[B]`` to weights of the squares, ``[B, ...]``; None: all are 1.
        splits: The samples. The constant is the mean over the training samples, for each entry of
            the targets.
        batch: Number of samples at a time.

    Returns:
        The skill; 0 if the test targets do not vary.
    """
    mean = sum(targets(part).double().sum(0) for part in splits.training.split(batch)) / max(
        len(splits.training), 1
    )
    rows = []
    for part in splits.test.split(batch):
        y = targets(part).double()
        w = 1.0 if weights is None else weights(part).double()
        own, constant = (predict(part).double() - y).square() * w, (y - mean).square() * w
        rows.append(torch.stack([own.flatten(1).mean(1), constant.flatten(1).mean(1)], 1).cpu())
    scene = splits.scenes[splits.test].unique(return_inverse=True)[1]
    count = int(scene.max()) + 1
    sums = torch.zeros(count, 2, dtype=torch.float64).index_add(0, scene, torch.cat(rows))
    e0, e_c = sums.mean(0).tolist()
    if e_c == 0:
        return Skill(0.0, 0.0)
    ratio = e0 / e_c
    spread = float((sums[:, 0] - ratio * sums[:, 1]).square().sum().sqrt())
    # The standard error of a ratio of means, to first order.
    return Skill(1 - ratio, spread / (e_c * math.sqrt(count * max(count - 1, 1))))
