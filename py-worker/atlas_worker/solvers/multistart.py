"""Coset representatives: one matrix for each component of the symmetry group (METHOD 2.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param, register
from ..checkpointing import check_finite, restore
from ..errors import InvalidInput
from ..interfaces import CosetCandidate, CosetReport, Outcome
from ..optim import Adam
from ..rng import random_stream
from ..symmetry import Ambient, Batch, Objective, Space, lie
from ..symmetry.components import same_component
from ..symmetry.judge import Known, are_symmetries, measure_matrices, motions
from ..symmetry.measure import draw_batch
from ..symmetry.normaliser import project_to_normaliser, restricted_starts, settled
from ..symmetry.spectral import linearised_spectrum
from ..trainable import StepCallback
from .adam import AdamSolver

EVALUATION_BATCHES = 4
"""Batches on which candidates are measured."""

CHANGE = 0.1
"""Change of the prediction (of probabilities, for a classifier) by a preconditioned step."""
LONGEST = 0.3
"""Largest length of a preconditioned step."""
SPECTRUM = 128
"""Samples from which the linearised spectrum is computed."""

LARGER = 4
"""Factor by which batches are larger when kept matrices move on."""

TYPICAL = 15
"""Random matrices from which the typical displacement is measured."""

ALIKE = 1e-3
"""Mean squared entry below which two starts differ by a matrix of the identity component."""
SPARES = 2
"""Starts that are searched of those that differ by such matrices."""


@dataclass(frozen=True)
class MultistartParams:
    """Parameters of the solver ``multistart`` (METHOD 2.4)."""

    candidates: int = param(16, "Number of random matrices to start from", minimum=1, maximum=4096)
    max_components: int = param(
        8,
        "Most components to report, half for each sign of det",
        minimum=1,
        former="keep",
    )
    steps: int = param(100, "Steps of Adam in an epoch", minimum=1)
    batch_size: int = param(2, "Samples in each step", minimum=1)
    charts: int = param(4, "Charts in each step, drawn at random", minimum=1)
    learning_rate: float = param(
        0.1, "Learning rate of Adam; falls along a cosine to 1 % of this value", minimum=0
    )
    threshold: float = param(
        0.2, "Largest relative error with which a matrix counts as a symmetry", minimum=0, maximum=1
    )
    precondition: bool = param(
        False,
        "Scale steps by the linearised spectrum, for tasks that react much more to some directions",
    )
    evaluation: int = param(4, "Samples in each batch of the final evaluation", minimum=1)
    refine: int = param(
        0,
        "Steps in which the matrices to report move on, with larger batches",
        added=True,
        minimum=0,
    )


@dataclass(frozen=True)
class _Selected:
    """Candidates, and those to report."""

    matrices: Tensor
    losses: Tensor
    batches: list[Batch]
    """On which they were measured."""
    order: list[int]
    """Candidates with finite losses, ascending."""
    kept: list[int]
    outcomes: dict[int, Outcome]
    repeated: dict[int, int]
    """Place among those kept of the component of each duplicate."""


def finite_min(losses: Tensor) -> Tensor:
    """Return the smallest of the values that are not NaN.

    >>> finite_min(torch.tensor([2.0, torch.nan, 1.0]))
    tensor(1.)
    """
    return losses.nan_to_num(nan=math.inf).min()


def without_spares(algebra: Tensor, starts: Tensor, ambient: Ambient | None = None) -> Tensor:
    """Leave out starts of which there are enough in the same component.

    If g is a symmetry, so is every ``exp(Σ w_i B_i) g``, and if it is none, neither are they. So
    two starts that differ by a matrix of the identity component lead to the same answer, and
    ``SPARES`` of each component are enough.

    Args:
        algebra: Generators ``[k, n, n]`` of the identity component; without any, none is left out.
        starts: ``[m, n, n]``.
        ambient: The whole group; None for GL(n).

    Returns:
        ``[m', n, n]``, in the same order.
    """
    if not len(algebra):
        return starts
    kept: list[int] = []
    left = torch.isfinite(torch.linalg.inv_ex(starts).inverse).flatten(1).all(1).nonzero()[:, 0]
    while len(left):
        same = torch.tensor(
            same_component(
                algebra, starts[left], starts[left[0]], ambient, limit=ALIKE, random_starts=0
            )
        )
        same[0] = True
        kept += left[same][:SPARES].tolist()
        left = left[~same]
    return starts[sorted(kept)]


def one_per_component(
    algebra: Tensor, matrices: Tensor, ranked: list[int], ambient: Ambient | None = None
) -> tuple[list[int], dict[int, int]]:
    """Choose the best matrix of each component.

    Args:
        algebra: Generators ``[k, n, n]`` of the identity component.
        matrices: ``[m, n, n]``.
        ranked: Indices of the matrices to consider, the best first.
        ambient: The whole group; None for GL(n).

    Returns:
        The index of the best matrix of each component, and the component of each considered index.
    """
    kept: list[int] = []
    component: dict[int, int] = {}
    left = list(ranked)
    while left:
        same = same_component(algebra, matrices[left], matrices[left[0]], ambient)
        component |= {i: len(kept) for i, s in zip(left, same, strict=True) if s}
        kept.append(left[0])
        left = [i for i, s in zip(left[1:], same[1:], strict=True) if not s]
    return kept, component


@register(
    "coset_solver",
    "multistart",
    "Minimises the equivariance loss of many random matrices; reports one for each component",
    MultistartParams,
    aliases=("descent",),
    manifolds=("planar", "lattice", "vectors"),
    needs_predictor=True,
    recorded_as=("descent", "CosetParams"),
)
class MultistartSolver(AdamSolver):
    """Minimises ``E[L(f_c(gx), g f_c(x))]`` over many matrices ``g = M / |det M|^(1/n)`` at once.

    All candidates see the same data, whose frozen target ``f(x)`` is computed once (METHOD 2.4).
    """

    kind = "descent"

    def __init__(
        self,
        params: MultistartParams,
        *,
        objective: Objective,
        identity_algebra: Tensor,
        epochs: int,
        seed: int,
    ) -> None:
        if identity_algebra.dim() != 3 or identity_algebra.shape[1:] != (objective.n, objective.n):
            raise InvalidInput(
                f"the identity component's basis has shape {list(identity_algebra.shape)}",
                "cosets.identity_algebra",
                f"[k, {objective.n}, {objective.n}]",
                "give the algebra of a task of the same dimension",
            )
        self._p, self._objective, self._seed = params, objective, seed
        self._space = space = objective.space
        # Candidates and their components are looked at in the coordinates of the space.
        self._identity_algebra = space.inward(identity_algebra)
        self._ambient = space.ambient
        n = objective.n
        self._steps = torch.zeros(space.dimension, n, n)
        if space.restricted:
            self._steps = space.normaliser().float()
        self._starts = without_spares(self._identity_algebra, self._draws(), self._ambient)
        count = len(self._starts)
        self._known: Known = {}  # of the same batches, as long as the predictor is the same
        self._by_steps = params.precondition or space.restricted
        self._moves = torch.eye(n).repeat(count, 1, 1)  # by which kept ones moved on
        super().__init__(
            torch.zeros(count, len(self._steps)) if self._by_steps else self._starts,
            params.learning_rate,
            epochs,
        )

    def _matrices(self, free: Tensor) -> Tensor:
        """Compute the candidates ``[m, n, n]`` from the free tensor, in the space's coordinates.

        With ``precondition``, and in a restricted space, they are ``exp(Σ_a w_a S_a) C₀``, with w
        free and S the steps. The steps of a restricted space stay in its normaliser.
        """
        if not self._by_steps:
            return self._ambient.normalise(self._moved_on(free))
        moved = self._moved_on(lie.expm(lie.combine(self._steps, free)) @ self._starts)
        return moved if self._space.restricted else self._ambient.normalise(moved)

    def _moved_on(self, matrices: Tensor) -> Tensor:
        return self._moves @ matrices if self._p.refine else matrices

    def _measure_steps(self) -> Tensor:
        """Compute the preconditioned steps ``[d, n, n]``, with d = n² for all of GL(n).

        They are the principal directions of the linearised error, each of the length that changes
        the prediction by ``CHANGE``. Near a symmetry C the error of ``exp(tE) C`` grows with t as
        that of ``exp(tE)`` does, so the steps serve for all candidates.
        """
        space = self._space
        if space.restricted:
            if not len(self._steps):
                return self._steps
            normaliser = space.outward(space.normaliser())
            space = Space(self._ambient, space.coordinates, normaliser)
        spectrum = linearised_spectrum(
            self._objective, SPECTRUM, self._seed, weighted=False, space=space
        )
        lengths = (CHANGE / spectrum.errors.clamp(min=1e-12)).clamp(max=LONGEST)
        steps: Tensor = lengths[:, None, None].to(spectrum.directions) * spectrum.directions
        return space.inward(steps)

    def _draws(self) -> Tensor:
        """Draw random matrices and project them to where symmetries can be."""
        if self._space.restricted:
            return restricted_starts(self._space, self._random(), self._identity_algebra)
        algebra = self._identity_algebra
        return settled(project_to_normaliser(self._random(), algebra, self._ambient), algebra)

    def _random(self) -> Tensor:
        n = self._objective.n
        drawn = torch.randn(self._p.candidates, n, n, generator=random_stream(self._seed, 0))
        return self._ambient.balanced(drawn)

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Run ``steps`` steps of Adam on every candidate.

        Args:
            on_step: Called after each step.

        Returns:
            The ``loss`` of the best candidate, averaged over the last ten steps.
        """
        p, objective = self._p, self._objective
        objective.refresh()
        self._known.clear()
        if p.precondition and self._epoch == 0:
            self._steps = self._measure_steps()
        generator = random_stream(self._seed, 1, self._epoch)
        recent: list[Tensor] = []
        for i in range(p.steps):
            self._anneal(i / p.steps)
            batch = draw_batch(objective, generator, p.batch_size, p.charts)
            g = self._space.outward(self._matrices(self._free))
            g = g[:, None, None].expand(-1, *batch.shape, -1, -1)
            loss = objective.loss(batch, g).flatten(1).mean(1)
            self._step(loss)
            recent = [*recent[-9:], loss.detach()]
            on_step(
                i + 1, p.steps, {"loss": float(finite_min(loss.detach()))} if i % 4 == 0 else {}
            )
        if self._epoch + 1 == self.total_epochs:
            self._go_back()
            self._refine()
        check_finite(self._free.detach(), "a candidate")
        self._epoch += 1
        return {"loss": float(finite_min(torch.stack(recent).mean(0)))}

    @torch.no_grad()
    def _go_back(self) -> None:
        """Return candidates to where they started, if the loss is no larger there.

        A start in the normaliser may be a symmetry already, which few samples in a step move off.
        """
        unmoved = torch.zeros_like(self._free) if self._by_steps else self._starts
        batches = self._evaluation_batches(self._p.evaluation)
        before, after = (
            measure_matrices(
                self._objective,
                batches,
                self._space.outward(self._matrices(free)),
                known=self._known,
            )[0].to(free.device)
            for free in (unmoved, self._free.detach())
        )
        better = before <= after.nan_to_num(nan=math.inf)
        self._free[better] = unmoved[better]

    def _evaluation_batches(self, samples: int) -> list[Batch]:
        """Draw the batches, of so many samples, on which candidates are measured."""
        objective, generator = self._objective, random_stream(self._seed, 2)
        return [
            draw_batch(objective, generator, samples, objective.charts)
            for _ in range(EVALUATION_BATCHES)
        ]

    def _refine(self) -> None:
        """Move the candidates that would be reported on, with batches in which the noise is low.

        Few samples in a step find a component, and leave its matrix a little off. The candidates
        are multiplied by exponentials of the steps, or of all directions without such steps.
        """
        p, objective, ambient = self._p, self._objective, self._ambient
        if not p.refine:
            return
        kept = self._selected(p.evaluation).kept
        steps = self._steps if self._by_steps else ambient.algebra().float()
        if not kept or not len(steps):
            return
        start = self._matrices(self._free.detach())[kept]
        free = torch.zeros(len(kept), len(steps), requires_grad=True)
        adam, generator = Adam([free], lr=p.learning_rate), random_stream(self._seed, 3)
        for i in range(p.refine):
            falling = 0.5 * (1 + math.cos(math.pi * i / p.refine))
            adam.param_groups[0]["lr"] = p.learning_rate * (0.01 + 0.99 * falling)
            batch = draw_batch(objective, generator, LARGER * p.batch_size, p.charts)
            g = lie.expm(lie.combine(steps, free)) @ start
            g = self._space.outward(g if self._space.restricted else ambient.normalise(g))
            loss = objective.loss(batch, g[:, None, None].expand(-1, *batch.shape, -1, -1))
            adam.zero_grad()
            loss.flatten(1).mean(1).sum().backward()
            if free.grad is not None:
                free.grad[~free.grad.isfinite().flatten(1).all(1)] = 0
            adam.step()
        self._moves[kept] = lie.expm(lie.combine(steps, free.detach()))

    @torch.no_grad()
    def report(self) -> CosetReport:
        """Rank the candidates, drop those that are no symmetry, and keep one for each component.

        A candidate's error is relative to ``‖f(gx) − f(x)‖ + ‖g f(x) − f(x)‖``: that of the
        candidate, or the median over ``TYPICAL`` of the random matrices as they were drawn, if that
        is larger (METHOD 2.6).
        """
        found = self._selected(self._p.evaluation)
        kept, g, loss = found.kept, found.matrices, found.losses
        candidates = [
            CosetCandidate(g[i], float(loss[i]), found.outcomes[i], found.repeated.get(i))
            for i in found.order
        ]
        return CosetReport(
            matrices=g[kept],
            losses=[float(loss[i]) for i in kept],
            noise_floor=self._floor(found),
            candidates=candidates,
            coordinates=self._space.scaled,
            factors=self._space.factors,
        )

    def _floor(self, found: _Selected) -> float:
        """What interpolation may cause at the kept matrices."""
        if not found.kept:
            return 0.0
        kept = found.matrices[found.kept]
        return float(measure_matrices(self._objective, found.batches, kept, floor=True)[3].mean())

    @torch.no_grad()
    def _selected(self, evaluation: int) -> _Selected:
        """Rank the candidates on batches of so many samples, and choose those to report."""
        p, objective = self._p, self._objective
        objective.refresh()
        inside_group = self._matrices(self._free.detach())
        g = self._space.outward(inside_group)
        batches, known = self._evaluation_batches(evaluation), self._known
        loss, distance, displacement, _ = measure_matrices(objective, batches, g, known=known)
        drawn = self._ambient.normalise(self._random()[:TYPICAL])
        relative = distance / motions(objective, batches, inside_group, displacement, drawn, known)
        order = [i for i in torch.argsort(loss).tolist() if loss[i].isfinite()]
        passed, inside = are_symmetries(objective, batches, g, relative, p.threshold)
        good = [i for i in order if passed[i]]
        # Duplicates are dropped first: a component with many candidates must not crowd out another.
        every, component = one_per_component(
            self._identity_algebra, inside_group, good, self._ambient
        )
        # Matrices with different signs of det lie in different components. Each sign gets half.
        sides = [[i for i in every if float(torch.linalg.det(g[i])) * sign > 0] for sign in (1, -1)]
        best = {i for side in sides for i in side[: math.ceil(p.max_components / 2)]}
        kept = [i for i in every if i in best][: p.max_components]
        place = {every.index(i): new for new, i in enumerate(kept)}
        outcomes: dict[int, Outcome] = {
            i: "not_a_symmetry" if inside[i] else "outside_support" for i in order
        }
        outcomes |= {i: "duplicate" if c in place else "beyond_limit" for i, c in component.items()}
        outcomes |= dict.fromkeys(kept, "kept")
        repeated = {
            i: place[c] for i, c in component.items() if c in place and outcomes[i] == "duplicate"
        }
        return _Selected(g, loss, batches, order, kept, outcomes, repeated)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the state of :class:`AdamSolver`, and the preconditioned steps if used."""
        tensors, metadata = super().state()
        if self._p.precondition:
            tensors = {**tensors, "steps": self._steps.clone()}
        if self._p.refine:
            tensors = {**tensors, "moves": self._moves.clone()}
        return tensors, metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restore what :meth:`state` returned. Raises ``InvalidInput`` if it does not fit."""
        steps = restore(tensors, "steps", self._steps) if self._p.precondition else self._steps
        moves = restore(tensors, "moves", self._moves) if self._p.refine else self._moves
        super().load_state(tensors, metadata)
        self._steps, self._moves = steps, moves
