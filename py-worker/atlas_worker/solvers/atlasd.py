"""Lie algebra by the gradient solver of AtlasD (Bhat et al. 2025; METHOD 2.2).

The generators are free matrices. Regularisers make them grow and keep them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param, register
from ..checkpointing import check_finite
from ..interfaces import AlgebraReport
from ..rng import random_stream
from ..symmetry import Objective, lie
from ..symmetry.measure import draw_coefficients
from ..trainable import StepCallback
from .adam import AdamSolver
from .grassmann import check_k, report_algebra


@dataclass(frozen=True)
class AtlasdParams:
    """Parameters of the solver ``atlasd``. The letters r1, r2 and r3 are those of METHOD 2.2."""

    batch_size: int = param(16, "Samples in each step", minimum=1)
    learning_rate: float = param(5e-4, "Learning rate of Adam for the generators", minimum=0)
    r1: float = param(0.05, "Weight of the term that keeps generators apart", minimum=0)
    r2: float = param(1.0, "Entries count in the growth term only up to ±r2", minimum=0)
    r3: float = param(0.35, "Weight of the term that makes generators grow", minimum=0)
    standard_basis: bool = param(
        False, "Push generators to separate entries, and report a sparse basis"
    )
    scale: float = param(
        1.0,
        "Standard deviation of the transformations in the final evaluation",
        minimum=1e-3,
        maximum=10,
    )
    threshold: float = param(
        0.25,
        "Largest relative error of a symmetry",
        minimum=0,
        maximum=1,
    )
    evaluation: int = param(8, "Samples in each batch of the final evaluation", minimum=1)


def regulariser(basis: Tensor, p: AtlasdParams) -> Tensor:
    """Compute ``r1·Σ_{i<j} |⟨B̂_i, B̂_j⟩| − r3·mean_i ‖clip(B_i, −r2, r2)‖_F`` (METHOD 2.2).

    ``B̂`` is B scaled to ``‖B̂‖²_F = n``, with absolute values if ``standard_basis`` is set.

    Args:
        basis: Generators ``[k, n, n]``.
        p: The weights.

    Returns:
        A scalar.
    """
    n = basis.shape[-1]
    flat = basis.flatten(1)
    unit = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12) * math.sqrt(n)
    if p.standard_basis:
        unit = unit.abs()
    overlaps: Tensor = (unit @ unit.T).abs().triu(1).sum()
    growth: Tensor = flat.clamp(-p.r2, p.r2).norm(dim=1).mean()
    return p.r1 * overlaps - p.r3 * growth


@register(
    "algebra_solver",
    "atlasd",
    "The gradient solver of AtlasD; its epochs alternate with the predictor's",
    AtlasdParams,
    aliases=("paper",),
    manifolds=("planar", "lattice", "vectors"),
    needs_predictor=True,
    alternates=True,
    recorded_as=("paper", "PaperParams"),
)
class AtlasdSolver(AdamSolver):
    """Adam on ``E[L(f_c(gx), g f_c(x))] + regulariser`` over ``B [k, n, n]`` (METHOD 2.2).

    In a subspace of gl(n), the free parameters are coordinates ``[k, d]``. An epoch is one pass
    over the data.
    """

    kind = "paper"

    def __init__(
        self, params: AtlasdParams, *, objective: Objective, k: int, epochs: int, seed: int
    ) -> None:
        check_k(k, objective.space)
        self._p, self._objective, self._seed = params, objective, seed
        super().__init__(
            0.02 * objective.space.draw(random_stream(seed, 0), k),
            params.learning_rate,
            epochs,
        )

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Run one pass over the data.

        Args:
            on_step: Called after each step.

        Returns:
            The mean ``loss``, and ``norm``, the mean norm of the generators.
        """
        p, objective = self._p, self._objective
        objective.refresh()
        generator = random_stream(self._seed, 1, self._epoch)
        order = torch.randperm(objective.samples, generator=generator)
        steps, total = math.ceil(objective.samples / p.batch_size), 0.0
        for i, indices in enumerate(order.split(p.batch_size)):
            batch = objective.batch(indices)
            eta = draw_coefficients(batch, generator, len(self._free), 1.0)
            basis = objective.space.lift(self._free)
            loss = objective.loss(batch, lie.expm(lie.combine(basis, eta))).mean()
            self._step(loss + regulariser(objective.space.inward(basis), p))
            total += float(loss.detach()) * len(indices)
            on_step(i + 1, steps, {"loss": float(loss.detach())})
        check_finite(self._free.detach(), "the generators")
        self._epoch += 1
        return {
            "loss": total / objective.samples,
            "norm": float(self._free.detach().flatten(1).norm(dim=1).mean()),
        }

    def report(self) -> AlgebraReport:
        """Measure the generators, or a sparse basis of their span with ``standard_basis``."""
        p, space = self._p, self._objective.space
        basis = space.lift(self._free.detach().clone())
        if p.standard_basis:
            # The regulariser alone leaves some duplicates and overlaps. The sparse basis of the
            # same span has none.
            basis = space.outward(lie.sparse_basis(space.inward(basis)))
        return report_algebra(
            self._objective, basis, [], p.scale, p.threshold, p.evaluation, self._seed
        )
