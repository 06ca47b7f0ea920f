"""Lie algebra as the paper finds it (METHOD 2.2): free generators, regularised to grow and to stay apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import lie
from ..actions import Task
from ..registry import param, register
from ..roles import AlgebraReport
from ..trainable import StepCallback
from .descent import Descent
from .grassmann import check_k, report_algebra
from .measure import draw_coefficients
from .state import check_finite, random_stream


@dataclass(frozen=True)
class PaperParams:
    batch_size: int = param(16, "Samples a step, each on every chart", minimum=1)
    learning_rate: float = param(5e-4, "Adam's", minimum=0)
    r1: float = param(0.05, "Weight of the orthogonality regulariser", minimum=0)
    r2: float = param(1.0, "Entries are rewarded for growing up to this size", minimum=0)
    r3: float = param(0.35, "Weight of the growth regulariser", minimum=0)
    standard_basis: bool = param(
        False, "Inner products of absolute entries: pushes generators to disjoint supports"
    )
    scale: float = param(
        1.0, "Standard deviation of η along a unit generator in the report", minimum=1e-3, maximum=10
    )
    threshold: float = param(
        0.25, "Relative error up to which a generator counts as a symmetry", minimum=0, maximum=1
    )
    evaluation: int = param(8, "Samples in each batch of the final evaluation, on every chart", minimum=1)


def regulariser(basis: Tensor, p: PaperParams) -> Tensor:
    """``r1·Σ_{i<j} |⟨B̂_i, B̂_j⟩| − r3·mean_i ‖clip(B_i, −r2, r2)‖_F`` with ``‖B̂‖²_F = n``; ``basis [k, n, n]``."""
    n = basis.shape[-1]
    flat = basis.flatten(1)
    unit = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12) * math.sqrt(n)
    if p.standard_basis:
        unit = unit.abs()
    overlaps: Tensor = (unit @ unit.T).abs().triu(1).sum()
    growth: Tensor = flat.clamp(-p.r2, p.r2).norm(dim=1).mean()
    return p.r1 * overlaps - p.r3 * growth


@register("algebra_solver", "paper", "The published gradient solver (METHOD 2.2)", PaperParams)
class PaperSolver(Descent):
    """Adam on ``E[L(f_c(gx), g f_c(x))] + reg`` over ``B [k, n, n]``, one pass over the data an epoch."""

    kind = "paper"

    def __init__(self, params: PaperParams, *, task: Task, k: int, epochs: int, seed: int) -> None:
        check_k(k, task.n)
        self._p, self._task, self._seed = params, task, seed
        super().__init__(
            0.02 * torch.randn(k, task.n, task.n, generator=random_stream(seed, 0)),
            params.learning_rate,
            epochs,
        )

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        p, task = self._p, self._task
        task.refresh()
        generator = random_stream(self._seed, 1, self._epoch)
        order = torch.randperm(task.samples, generator=generator)
        steps, total = math.ceil(task.samples / p.batch_size), 0.0
        for i, indices in enumerate(order.split(p.batch_size)):
            batch = task.batch(indices)
            eta = draw_coefficients(batch, generator, len(self._free), 1.0)
            loss = task.loss(batch, lie.expm(lie.combine(self._free, eta))).mean()
            self._step(loss + regulariser(self._free, p))
            total += float(loss.detach()) * len(indices)
            on_step(i + 1, steps, {"loss": float(loss.detach())})
        check_finite(self._free.detach(), "the generators")
        self._epoch += 1
        return {
            "loss": total / task.samples,
            "norm": float(self._free.detach().flatten(1).norm(dim=1).mean()),
        }

    def report(self) -> AlgebraReport:
        p, basis = self._p, self._free.detach().clone()
        if p.standard_basis:
            # The regulariser only pushes: what it leaves of duplicates and overlaps goes here, within the same span.
            basis = lie.sparse_basis(basis)
        return report_algebra(self._task, basis, [], p.scale, p.threshold, p.evaluation, self._seed)
