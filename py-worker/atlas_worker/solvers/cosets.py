"""Coset representatives: one matrix for each connected component of the symmetry group (METHOD 2.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..actions import Batch, Task
from ..errors import InvalidInput
from ..registry import param, register
from ..roles import CosetCandidate, CosetReport
from ..trainable import StepCallback
from .components import same_component
from .descent import Descent
from .measure import draw_batch
from .state import check_finite, random_stream

EVALUATION_BATCHES = 4

TYPICAL = 15
"""Random matrices that tell how much the typical one moves."""


@dataclass(frozen=True)
class CosetParams:
    candidates: int = param(16, "Random matrices to start from", minimum=1, maximum=4096)
    keep: int = param(8, "Most components to report, the best first", minimum=1)
    steps: int = param(100, "Steps in an epoch", minimum=1)
    batch_size: int = param(2, "Samples a step", minimum=1)
    charts: int = param(4, "Charts a step, drawn at random", minimum=1)
    learning_rate: float = param(0.1, "Adam's, falling to 1 % of it by a cosine", minimum=0)
    threshold: float = param(
        0.25, "Relative error up to which a matrix counts as a symmetry", minimum=0, maximum=1
    )
    evaluation: int = param(4, "Samples in each batch of the final evaluation, on every chart", minimum=1)


def normalised(matrices: Tensor) -> Tensor:
    """``M / |det M|^(1/n)`` of ``[..., n, n]``."""
    det = torch.linalg.det(matrices).abs().clamp(min=1e-12)
    roots: Tensor = det.pow(1 / matrices.shape[-1])
    return matrices / roots[..., None, None]


def distinct(identity: Tensor, matrices: Tensor, ranked: list[int]) -> tuple[list[int], dict[int, int]]:
    """Of the ``matrices`` whose indices are ``ranked``, best first: the first of each component, and every one's component."""
    kept: list[int] = []
    component: dict[int, int] = {}
    left = list(ranked)
    while left:
        same = same_component(identity, matrices[left], matrices[left[0]])
        component |= {i: len(kept) for i, s in zip(left, same, strict=True) if s}
        kept.append(left[0])
        left = [i for i, s in zip(left[1:], same[1:], strict=True) if not s]
    return kept, component


@register(
    "coset_solver", "descent", "Descent on the equivariance loss from many random matrices", CosetParams
)
class CosetDescent(Descent):
    """Minimise ``E[L(f_c(gx), g f_c(x))]`` over single matrices ``g = M / |det M|^(1/n)``, many at once.

    Every candidate sees the same data, whose frozen target ``f(x)`` is computed once.
    """

    kind = "descent"

    def __init__(self, params: CosetParams, *, task: Task, identity: Tensor, epochs: int, seed: int) -> None:
        if identity.dim() != 3 or identity.shape[1:] != (task.n, task.n):
            raise InvalidInput(
                f"the identity component's basis has shape {list(identity.shape)}",
                "cosets.identity",
                f"[k, {task.n}, {task.n}]",
                "give the algebra of a task of the same dimension",
            )
        self._p, self._task, self._identity, self._seed = params, task, identity, seed
        super().__init__(self._draws(), params.learning_rate, epochs)

    def _draws(self) -> Tensor:
        """The random matrices to start from."""
        n = self._task.n
        return torch.randn(self._p.candidates, n, n, generator=random_stream(self._seed, 0))

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """``steps`` steps of Adam on every candidate; returns the best one's ``loss`` over the last ten."""
        p, task = self._p, self._task
        task.refresh()
        generator = random_stream(self._seed, 1, self._epoch)
        recent: list[Tensor] = []
        for i in range(p.steps):
            self._anneal(i / p.steps)
            batch = draw_batch(task, generator, p.batch_size, p.charts)
            g = normalised(self._free)[:, None, None].expand(-1, *batch.shape, -1, -1)
            loss = task.loss(batch, g).flatten(1).mean(1)
            self._step(loss.sum())
            recent = [*recent[-9:], loss.detach()]
            on_step(i + 1, p.steps, {"loss": float(loss.detach().min())} if i % 4 == 0 else {})
        check_finite(self._free.detach(), "a candidate")
        self._epoch += 1
        return {"loss": float(torch.stack(recent).mean(0).min())}

    @torch.no_grad()
    def report(self) -> CosetReport:
        """Rank, drop what is no symmetry, and keep one of each component.

        A candidate's error is relative to what it could be: ``‖f(gx) − f(x)‖ + ‖g f(x) − f(x)‖``, its own or that of the
        typical matrix of those it started among, whichever is more (an invariant task moves nothing along its symmetries).
        """
        p, task = self._p, self._task
        task.refresh()
        g = normalised(self._free.detach())
        generator = random_stream(self._seed, 2)
        batches = [draw_batch(task, generator, p.evaluation, task.charts) for _ in range(EVALUATION_BATCHES)]
        loss, distance, motion, resampling = self._measure(batches, g)
        typical = self._measure(batches, normalised(self._draws()[:TYPICAL]))[2].median()
        relative = distance / motion.clamp(min=float(typical)).clamp(min=1e-30)
        order = torch.argsort(loss).tolist()
        # The sign of det tells components apart for sure; half the places for each, so that neither crowds out the other.
        sides = [[i for i in order if float(torch.linalg.det(g[i])) * sign > 0] for sign in (1, -1)]
        best = {i for side in sides for i in side[: math.ceil(p.keep / 2)]}
        good = [i for i in order if i in best and float(relative[i]) <= p.threshold]
        kept, component = distinct(self._identity, g, good)
        verdicts = {i: "rank" if float(relative[i]) <= p.threshold else "loss" for i in order}
        verdicts |= dict.fromkeys(good, "duplicate") | dict.fromkeys(kept, "kept")
        candidates = [CosetCandidate(g[i], float(loss[i]), verdicts[i], component.get(i, 0)) for i in order]
        return CosetReport(
            matrices=g[kept],
            losses=[float(loss[i]) for i in kept],
            noise_floor=float(resampling[kept].mean()) if kept else 0.0,
            candidates=candidates,
        )

    def _measure(self, batches: list[Batch], matrices: Tensor) -> Tensor:
        """Mean loss, distance, motion and resampling error of every matrix: ``[4, m]``."""
        rows = []
        for m in matrices:
            errors = [self._task.errors(b, m.expand(*b.shape, -1, -1)) for b in batches]
            means = [[t.mean() for t in (e.loss, e.distance, e.motion, e.resampling)] for e in errors]
            rows.append(torch.stack([torch.stack(m) for m in means]).mean(0))
        return torch.stack(rows, 1)
