"""Lie algebra by random search: an example of a solver of one file, which needs no other edit.

Put it into ``py-worker/atlas_worker/solvers/`` and run ``npm run generate``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atlas_worker.catalogue import param, register
from atlas_worker.checkpointing import check_kind, restore
from atlas_worker.interfaces import AlgebraReport
from atlas_worker.rng import random_stream
from atlas_worker.solvers.grassmann import check_k, report_algebra
from atlas_worker.symmetry import Objective, lie
from atlas_worker.symmetry.measure import draw_batch, draw_coefficients
from atlas_worker.trainable import StepCallback


@dataclass(frozen=True)
class RandomSearchParams:
    tries: int = param(20, "Random frames that are tried in each epoch", minimum=1, maximum=1000)
    batch_size: int = param(4, "Samples on which a frame is tried", minimum=1)
    scale: float = param(
        1.0, "Size of the transformations that are tried", minimum=1e-3, maximum=10
    )
    threshold: float = param(
        0.15, "Relative error up to which a generator counts as a symmetry", minimum=0, maximum=1
    )


@register(
    "algebra_solver",
    "random_search",
    "The best of many random frames",
    RandomSearchParams,
    manifolds=("planar", "vectors"),
    needs_predictor=True,
)
class RandomSearch:
    """Of all frames that were drawn, keep the one with the least equivariance loss."""

    def __init__(
        self,
        params: RandomSearchParams,
        *,
        objective: Objective,
        k: int,
        epochs: int,
        seed: int,
    ) -> None:
        check_k(k, objective.n)
        self._p, self._objective, self._k, self._seed = params, objective, k, seed
        self._frame = torch.eye(objective.n**2).unflatten(1, (objective.n, -1))[:k]
        self._loss = torch.tensor(math.inf)
        self.epoch, self.total_epochs = 0, epochs

    @property
    def memory_bytes(self) -> int:
        return 0

    @torch.no_grad()
    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        p, n = self._p, self._objective.n
        self._objective.refresh()
        generator = random_stream(self._seed, 1, self.epoch)
        for i in range(p.tries):
            frame = lie.frame(torch.randn(self._k, n, n, generator=generator))
            batch = draw_batch(self._objective, generator, p.batch_size, self._objective.charts)
            eta = draw_coefficients(batch, generator, self._k, p.scale)
            loss = self._objective.loss(batch, lie.expm(lie.combine(frame, eta))).mean()
            if loss < self._loss:
                self._frame, self._loss = frame, loss
            on_step(i + 1, p.tries, {})
        self.epoch += 1
        return {"loss": float(self._loss)}

    def report(self) -> AlgebraReport:
        p = self._p
        return report_algebra(
            self._objective, self._frame, [], p.scale, p.threshold, p.batch_size, self._seed
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        metadata = {"kind": "random_search", "epoch": str(self.epoch)}
        return {"frame": self._frame, "loss": self._loss}, metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        epoch = check_kind(metadata, "random_search")
        frame = restore(tensors, "frame", self._frame)
        self._loss = restore(tensors, "loss", self._loss)
        self._frame, self.epoch = frame, epoch
