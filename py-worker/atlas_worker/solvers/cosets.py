"""Coset representatives: one matrix for each connected component of the symmetry group (METHOD 2.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import lie
from ..actions import Batch, Task
from ..errors import InvalidInput
from ..registry import param, register
from ..roles import CosetCandidate, CosetReport
from ..trainable import StepCallback
from .components import same_component
from .descent import Descent
from .measure import draw_batch
from .spectral import linearised_spectrum
from .state import check_finite, random_stream, restore

EVALUATION_BATCHES = 4

SETTLE_STEPS = 300
SMALL = 0.01
"""Weight of a start's mean squared entry beside its defect."""

CHANGE, LONGEST = 0.1, 0.3
"""Of a preconditioned step: the change of a prediction (of probabilities, for a classifier), and the length at most."""
SPECTRUM = 512
"""Samples of the linearised spectrum."""

TYPICAL = 15
"""Random matrices that tell how much the typical one moves."""


@dataclass(frozen=True)
class CosetParams:
    candidates: int = param(16, "Random matrices to start from", minimum=1, maximum=4096)
    keep: int = param(
        8, "Most components to report, the best first, half of them for each sign of det", minimum=1
    )
    steps: int = param(100, "Steps in an epoch", minimum=1)
    batch_size: int = param(2, "Samples a step", minimum=1)
    charts: int = param(4, "Charts a step, drawn at random", minimum=1)
    learning_rate: float = param(0.1, "Adam's, falling to 1 % of it by a cosine", minimum=0)
    threshold: float = param(
        0.2, "Relative error up to which a matrix counts as a symmetry", minimum=0, maximum=1
    )
    precondition: bool = param(
        False,
        "Steps as long in each direction as the linearised spectrum allows: for tasks much more sensitive to some",
    )
    evaluation: int = param(4, "Samples in each batch of the final evaluation, on every chart", minimum=1)


def normalised(matrices: Tensor) -> Tensor:
    """``M / |det M|^(1/n)`` of ``[..., n, n]``."""
    det = torch.linalg.det(matrices).abs().clamp(min=1e-12)
    roots: Tensor = det.pow(1 / matrices.shape[-1])
    return matrices / roots[..., None, None]


def settle(starts: Tensor, identity: Tensor) -> Tensor:
    """Move matrices ``[m, n, n]`` to the normaliser of the algebra spanned by ``identity [k, n, n]``, each within its sign of det.

    The identity component of a Lie group is a normal subgroup, so every symmetry C has ``C B C⁻¹`` in the algebra for all its B. This is
    a condition on C alone, that costs nothing to meet, and without it the random start has to find, through the data, a set that may
    be very thin. Adam on ``Σ_i ‖C B_i C⁻¹ − proj‖² / ‖C B_i C⁻¹‖²``, with a slight preference for matrices of small norm (or starts
    would be needlessly large boosts). Returned unchanged where the condition says nothing: for scalings, or no algebra.
    """
    basis = lie.sparse_basis(identity.double().cpu()) if len(identity) else identity.double().cpu()
    frame = lie.frame(basis)

    def defect(c: Tensor) -> Tensor:
        moved = c[:, None] @ frame @ torch.linalg.inv_ex(c).inverse[:, None]
        off = moved - lie.combine(frame, lie.project(frame, moved))
        per: Tensor = off.square().sum((-2, -1)) / moved.square().sum((-2, -1)).clamp(min=1e-12)
        return per.mean(1)

    c = normalised(starts.double().cpu())
    if not len(frame) or float(defect(c).max()) < 1e-9:
        return starts
    free = c.clone().requires_grad_(True)
    adam = torch.optim.Adam([free], lr=0.1)
    for i in range(SETTLE_STEPS):
        adam.param_groups[0]["lr"] = 0.1 * (0.01 + 0.99 * (1 - i / SETTLE_STEPS))
        g = normalised(free)
        adam.zero_grad()
        (defect(g) + SMALL * g.square().mean((-2, -1))).sum().backward()
        adam.step()
    settled = normalised(free.detach()).to(starts)
    # A step may have jumped over det = 0: such a start stays what it was.
    fine = torch.isfinite(settled).flatten(1).all(1) & (
        torch.linalg.det(settled).sign() == torch.linalg.det(starts).sign()
    )
    return torch.where(fine[:, None, None], settled, starts)


def least(losses: Tensor) -> Tensor:
    """The smallest of those that are numbers.

    >>> least(torch.tensor([2.0, torch.nan, 1.0]))
    tensor(1.)
    """
    return losses.nan_to_num(nan=math.inf).min()


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
        self._starts = self._draws()
        n = task.n
        self._steps = torch.zeros(n * n, n, n)
        super().__init__(
            torch.zeros(params.candidates, n * n) if params.precondition else self._starts,
            params.learning_rate,
            epochs,
        )

    def _matrices(self, free: Tensor) -> Tensor:
        """The candidates ``[m, n, n]``: what is free, or ``exp(Σ_a w_a S_a) C₀`` with w free and S the preconditioned steps."""
        if not self._p.precondition:
            return normalised(free)
        moved: Tensor = lie.expm(lie.combine(self._steps, free)) @ self._starts
        return normalised(moved)

    def _measure_steps(self) -> Tensor:
        """``[n², n, n]``: principal directions of the linearised error, each as long as changes the prediction by ``CHANGE``.

        Near a symmetry C the error of ``exp(tE) C`` grows with t as that of ``exp(tE)`` does, so these serve for all candidates.
        """
        spectrum = linearised_spectrum(self._task, SPECTRUM, self._seed, weighted=False)
        lengths = (CHANGE / spectrum.errors.clamp(min=1e-12)).clamp(max=LONGEST)
        steps: Tensor = lengths[:, None, None].to(spectrum.directions) * spectrum.directions
        return steps

    def _draws(self) -> Tensor:
        """Random matrices to start from, brought to where symmetries can be."""
        return settle(self._random(), self._identity)

    def _random(self) -> Tensor:
        n = self._task.n
        return torch.randn(self._p.candidates, n, n, generator=random_stream(self._seed, 0))

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """``steps`` steps of Adam on every candidate; returns the best one's ``loss`` over the last ten."""
        p, task = self._p, self._task
        task.refresh()
        if p.precondition and self._epoch == 0:
            self._steps = self._measure_steps()
        generator = random_stream(self._seed, 1, self._epoch)
        recent: list[Tensor] = []
        for i in range(p.steps):
            self._anneal(i / p.steps)
            batch = draw_batch(task, generator, p.batch_size, p.charts)
            g = self._matrices(self._free)[:, None, None].expand(-1, *batch.shape, -1, -1)
            loss = task.loss(batch, g).flatten(1).mean(1)
            self._step(loss)
            recent = [*recent[-9:], loss.detach()]
            on_step(i + 1, p.steps, {"loss": float(least(loss.detach()))} if i % 4 == 0 else {})
        check_finite(self._free.detach(), "a candidate")
        self._epoch += 1
        return {"loss": float(least(torch.stack(recent).mean(0)))}

    @torch.no_grad()
    def report(self) -> CosetReport:
        """Rank, drop what is no symmetry, and keep one of each component.

        A candidate's error is relative to what it could be: ``‖f(gx) − f(x)‖ + ‖g f(x) − f(x)‖``, its own or that of the
        typical matrix of those it started among, whichever is more (an invariant task moves nothing along its symmetries).
        """
        p, task = self._p, self._task
        task.refresh()
        g = self._matrices(self._free.detach())
        generator = random_stream(self._seed, 2)
        batches = [draw_batch(task, generator, p.evaluation, task.charts) for _ in range(EVALUATION_BATCHES)]
        loss, distance, motion, floor = self._measure(batches, g)
        typical = self._measure(batches, normalised(self._random()[:TYPICAL]))[2].median()
        relative = distance / motion.clamp(min=float(typical)).clamp(min=1e-30)
        order = [i for i in torch.argsort(loss).tolist() if loss[i].isfinite()]
        covered = torch.stack([task.covers(b, g) for b in batches]).any(0)
        good = [i for i in order if float(relative[i]) <= p.threshold and bool(covered[i])]
        # Duplicates go first, and only then all but the best: a component that many starts fell into must not crowd out another.
        every, component = distinct(self._identity, g, good)
        # The sign of det tells components apart for sure; half the places for each.
        sides = [[i for i in every if float(torch.linalg.det(g[i])) * sign > 0] for sign in (1, -1)]
        best = {i for side in sides for i in side[: math.ceil(p.keep / 2)]}
        kept = [i for i in every if i in best]
        place = {every.index(i): new for new, i in enumerate(kept)}
        verdicts = {i: "loss" if bool(covered[i]) else "unseen" for i in order}
        verdicts |= {i: "duplicate" if c in place else "rank" for i, c in component.items()}
        verdicts |= dict.fromkeys(kept, "kept")
        component = {i: place[c] for i, c in component.items() if c in place}
        candidates = [CosetCandidate(g[i], float(loss[i]), verdicts[i], component.get(i, 0)) for i in order]
        return CosetReport(
            matrices=g[kept],
            losses=[float(loss[i]) for i in kept],
            noise_floor=float(floor[kept].mean()) if kept else 0.0,
            candidates=candidates,
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors, metadata = super().state()
        return ({**tensors, "steps": self._steps.clone()} if self._p.precondition else tensors), metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        steps = restore(tensors, "steps", self._steps) if self._p.precondition else self._steps
        super().load_state(tensors, metadata)
        self._steps = steps

    def _measure(self, batches: list[Batch], matrices: Tensor) -> Tensor:
        """Mean loss, distance, motion and floor of every matrix: ``[4, m]``."""
        rows = []
        for m in matrices:
            errors = [self._task.errors(b, m.expand(*b.shape, -1, -1)) for b in batches]
            means = [[t.mean() for t in (e.loss, e.distance, e.motion, e.floor)] for e in errors]
            rows.append(torch.stack([torch.stack(m) for m in means]).mean(0))
        return torch.stack(rows, 1)
