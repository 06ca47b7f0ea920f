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
from ..symmetry import Batch, Objective, lie
from ..symmetry.components import same_component
from ..symmetry.measure import draw_batch
from ..symmetry.spectral import linearised_spectrum
from ..trainable import StepCallback
from .adam import AdamSolver

EVALUATION_BATCHES = 4
"""Batches on which candidates are measured."""

NORMALISER_STEPS = 300
"""Steps of Adam towards the normaliser."""
SMALL = 0.01
"""Weight of a start's mean squared entry beside its defect."""

CHANGE = 0.1
"""Change of the prediction (of probabilities, for a classifier) by a preconditioned step."""
LONGEST = 0.3
"""Largest length of a preconditioned step."""
SPECTRUM = 512
"""Samples from which the linearised spectrum is computed."""

TYPICAL = 15
"""Random matrices from which the typical displacement is measured."""


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


def normalised(matrices: Tensor) -> Tensor:
    """Compute ``M / |det M|^(1/n)`` of matrices ``[..., n, n]``."""
    det = torch.linalg.det(matrices).abs().clamp(min=1e-12)
    roots: Tensor = det.pow(1 / matrices.shape[-1])
    return matrices / roots[..., None, None]


def project_to_normaliser(starts: Tensor, algebra: Tensor) -> Tensor:
    """Move matrices to the normaliser of an algebra, each within its sign of the determinant.

    The identity component of a Lie group is a normal subgroup, so every symmetry C has ``C B C⁻¹``
    in the algebra for all B in the algebra. This condition on C needs no data. Without it the
    search would have to find a set, which may be very thin, from the data.

    Adam minimises ``Σ_i ‖C B_i C⁻¹ − projection‖² / ‖C B_i C⁻¹‖²``, with a slight preference for
    matrices of small norm; otherwise starts would become needlessly large boosts.

    Args:
        starts: Matrices ``[m, n, n]``.
        algebra: Generators ``[k, n, n]`` of the identity component.

    Returns:
        ``[m, n, n]``; ``starts`` if the condition says nothing (an empty algebra, or scalings).
    """
    basis = algebra.double().cpu()
    if len(basis):
        basis = lie.sparse_basis(basis)
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
    adam = Adam([free], lr=0.1)
    for i in range(NORMALISER_STEPS):
        adam.param_groups[0]["lr"] = 0.1 * (0.01 + 0.99 * (1 - i / NORMALISER_STEPS))
        g = normalised(free)
        adam.zero_grad()
        (defect(g) + SMALL * g.square().mean((-2, -1))).sum().backward()
        adam.step()
    projected = normalised(free.detach()).to(starts)
    # A step may have jumped over det = 0. Such a start stays as it was.
    fine = torch.isfinite(projected).flatten(1).all(1) & (
        torch.linalg.det(projected).sign() == torch.linalg.det(starts).sign()
    )
    return torch.where(fine[:, None, None], projected, starts)


def finite_min(losses: Tensor) -> Tensor:
    """Return the smallest of the values that are not NaN.

    >>> finite_min(torch.tensor([2.0, torch.nan, 1.0]))
    tensor(1.)
    """
    return losses.nan_to_num(nan=math.inf).min()


def one_per_component(
    algebra: Tensor, matrices: Tensor, ranked: list[int]
) -> tuple[list[int], dict[int, int]]:
    """Choose the best matrix of each component.

    Args:
        algebra: Generators ``[k, n, n]`` of the identity component.
        matrices: ``[m, n, n]``.
        ranked: Indices of the matrices to consider, the best first.

    Returns:
        The index of the best matrix of each component, and the component of each considered index.
    """
    kept: list[int] = []
    component: dict[int, int] = {}
    left = list(ranked)
    while left:
        same = same_component(algebra, matrices[left], matrices[left[0]])
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
    manifolds=("planar", "vectors"),
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
        self._identity_algebra = identity_algebra
        self._starts = self._draws()
        n = objective.n
        self._steps = torch.zeros(n * n, n, n)
        super().__init__(
            torch.zeros(params.candidates, n * n) if params.precondition else self._starts,
            params.learning_rate,
            epochs,
        )

    def _matrices(self, free: Tensor) -> Tensor:
        """Compute the candidates ``[m, n, n]`` from the free tensor.

        With ``precondition`` they are ``exp(Σ_a w_a S_a) C₀``, with w free and S the steps.
        """
        if not self._p.precondition:
            return normalised(free)
        moved: Tensor = lie.expm(lie.combine(self._steps, free)) @ self._starts
        return normalised(moved)

    def _measure_steps(self) -> Tensor:
        """Compute the preconditioned steps ``[n², n, n]``.

        They are the principal directions of the linearised error, each of the length that changes
        the prediction by ``CHANGE``. Near a symmetry C the error of ``exp(tE) C`` grows with t as
        that of ``exp(tE)`` does, so the steps serve for all candidates.
        """
        spectrum = linearised_spectrum(self._objective, SPECTRUM, self._seed, weighted=False)
        lengths = (CHANGE / spectrum.errors.clamp(min=1e-12)).clamp(max=LONGEST)
        steps: Tensor = lengths[:, None, None].to(spectrum.directions) * spectrum.directions
        return steps

    def _draws(self) -> Tensor:
        """Draw random matrices and project them to where symmetries can be."""
        return project_to_normaliser(self._random(), self._identity_algebra)

    def _random(self) -> Tensor:
        n = self._objective.n
        return torch.randn(self._p.candidates, n, n, generator=random_stream(self._seed, 0))

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Run ``steps`` steps of Adam on every candidate.

        Args:
            on_step: Called after each step.

        Returns:
            The ``loss`` of the best candidate, averaged over the last ten steps.
        """
        p, objective = self._p, self._objective
        objective.refresh()
        if p.precondition and self._epoch == 0:
            self._steps = self._measure_steps()
        generator = random_stream(self._seed, 1, self._epoch)
        recent: list[Tensor] = []
        for i in range(p.steps):
            self._anneal(i / p.steps)
            batch = draw_batch(objective, generator, p.batch_size, p.charts)
            g = self._matrices(self._free)[:, None, None].expand(-1, *batch.shape, -1, -1)
            loss = objective.loss(batch, g).flatten(1).mean(1)
            self._step(loss)
            recent = [*recent[-9:], loss.detach()]
            on_step(
                i + 1, p.steps, {"loss": float(finite_min(loss.detach()))} if i % 4 == 0 else {}
            )
        check_finite(self._free.detach(), "a candidate")
        self._epoch += 1
        return {"loss": float(finite_min(torch.stack(recent).mean(0)))}

    @torch.no_grad()
    def report(self) -> CosetReport:
        """Rank the candidates, drop those that are no symmetry, and keep one for each component.

        A candidate's error is relative to ``‖f(gx) − f(x)‖ + ‖g f(x) − f(x)‖``: that of the
        candidate, or the median over ``TYPICAL`` of the random matrices as they were drawn, if that
        is larger (METHOD 2.6).
        """
        p, objective = self._p, self._objective
        objective.refresh()
        g = self._matrices(self._free.detach())
        generator = random_stream(self._seed, 2)
        batches = [
            draw_batch(objective, generator, p.evaluation, objective.charts)
            for _ in range(EVALUATION_BATCHES)
        ]
        loss, distance, displacement, noise_floor = self._measure(batches, g)
        typical = self._measure(batches, normalised(self._random()[:TYPICAL]))[2].median()
        relative = distance / displacement.clamp(min=float(typical)).clamp(min=1e-30)
        order = [i for i in torch.argsort(loss).tolist() if loss[i].isfinite()]
        inside = torch.stack([objective.stays_in_support(b, g) for b in batches]).any(0)
        good = [i for i in order if float(relative[i]) <= p.threshold and bool(inside[i])]
        # Duplicates are dropped first: a component with many candidates must not crowd out another.
        every, component = one_per_component(self._identity_algebra, g, good)
        # Matrices with different signs of det lie in different components. Each sign gets half.
        sides = [[i for i in every if float(torch.linalg.det(g[i])) * sign > 0] for sign in (1, -1)]
        best = {i for side in sides for i in side[: math.ceil(p.max_components / 2)]}
        kept = [i for i in every if i in best][: p.max_components]
        place = {every.index(i): new for new, i in enumerate(kept)}
        outcomes: dict[int, Outcome] = {
            i: "not_a_symmetry" if bool(inside[i]) else "outside_support" for i in order
        }
        outcomes |= {i: "duplicate" if c in place else "beyond_limit" for i, c in component.items()}
        outcomes |= dict.fromkeys(kept, "kept")
        repeated = {
            i: place[c] for i, c in component.items() if c in place and outcomes[i] == "duplicate"
        }
        candidates = [
            CosetCandidate(g[i], float(loss[i]), outcomes[i], repeated.get(i)) for i in order
        ]
        return CosetReport(
            matrices=g[kept],
            losses=[float(loss[i]) for i in kept],
            noise_floor=float(noise_floor[kept].mean()) if kept else 0.0,
            candidates=candidates,
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the state of :class:`AdamSolver`, and the preconditioned steps if used."""
        tensors, metadata = super().state()
        return (
            {**tensors, "steps": self._steps.clone()} if self._p.precondition else tensors
        ), metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restore what :meth:`state` returned. Raises ``InvalidInput`` if it does not fit."""
        steps = restore(tensors, "steps", self._steps) if self._p.precondition else self._steps
        super().load_state(tensors, metadata)
        self._steps = steps

    def _measure(self, batches: list[Batch], matrices: Tensor) -> Tensor:
        """Mean loss, distance, displacement and noise floor of every matrix: ``[4, m]``."""
        rows = []
        for m in matrices:
            errors = [self._objective.errors(b, m.expand(*b.shape, -1, -1)) for b in batches]
            means = [
                [t.mean() for t in (e.loss, e.distance, e.displacement, e.noise_floor)]
                for e in errors
            ]
            rows.append(torch.stack([torch.stack(m) for m in means]).mean(0))
        return torch.stack(rows, 1)
