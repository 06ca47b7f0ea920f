"""Closes what a search for components found to a group (METHOD 2.9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param, register
from ..checkpointing import check_kind
from ..errors import InvalidInput
from ..interfaces import ClosureReport, CosetReport
from ..optim import Adam
from ..rng import random_stream
from ..symmetry import Batch, Objective, finite, lie
from ..symmetry.ambient import normalised
from ..symmetry.closure import FLOOR, Closed, FiniteClosure, close_components, places
from ..symmetry.judge import Known, are_symmetries, measure_matrices, motions
from ..symmetry.measure import draw_batch
from ..symmetry.normaliser import restricted_starts
from ..symmetry.space import Space
from ..trainable import StepCallback

EVALUATION_BATCHES = 4
"""Batches on which matrices are measured."""
TYPICAL = 15
"""Random matrices from which the typical displacement is measured."""
AT_ONCE = 2**15
"""Largest number of matrices times views that are moved at a time."""
PROMISING = 64
"""Starts that are refined, of those that were looked at; half as many in the plane."""
ROUGH = 0.25
"""Share of the work after which starts are looked at again."""
ROUNDS = 3
"""Largest number of searches in O(n)."""


@dataclass(frozen=True)
class ProductsParams:
    """Parameters of the solver ``products``."""

    threshold: float = param(
        0.2, "Largest relative error with which a matrix counts as a symmetry", minimum=0, maximum=1
    )
    starts: int = param(
        512,
        "Orthogonal matrices to look at for elements that the search did not find, if the group "
        "has no generator",
        minimum=0,
        maximum=65_536,
    )
    steps: int = param(60, "Steps of Adam in which a matrix is refined", minimum=1)
    learning_rate: float = param(0.02, "Learning rate of Adam; falls to 1 % of this", minimum=0)
    views: int = param(64, "Samples times charts in each step", minimum=1)
    evaluation: int = param(64, "Samples times charts in each of 4 batches of the test", minimum=1)
    orthogonal: bool = param(
        False,
        "Only orthogonal matrices can be symmetries, as for a distribution; errors are then "
        "compared with the motion of the outputs by these",
    )


class LossTester:
    """Refines and tests matrices on an objective; see :class:`~..symmetry.closure.Tester`.

    All matrices are in the coordinates of the objective's space.

    Args:
        objective: The objective.
        params: The parameters.
        seed: Seed of the batches.
        check: Called between steps; it may raise an error to stop.
    """

    def __init__(
        self, objective: Objective, params: ProductsParams, seed: int, check: Callable[[], None]
    ) -> None:
        self._objective, self._p, self._check = objective, params, check
        self._space = objective.space
        charts = min(objective.charts, 4)
        generator = random_stream(seed, 2)
        self._step_samples = max(1, params.views // charts)
        self._charts = charts
        self._seed = seed
        self._batches = [
            draw_batch(objective, generator, max(1, params.evaluation // charts), charts)
            for _ in range(EVALUATION_BATCHES)
        ]
        random = torch.randn(TYPICAL, objective.n, objective.n, generator=random_stream(seed, 0))
        self._drawn = self._space.ambient.normalise(random)
        if params.orthogonal:
            root = finite.root_of(inputs_metric(self._batches, self._space))
            turns = finite.orthogonal_starts(TYPICAL, objective.n, random_stream(seed, 0))
            self._drawn = (torch.linalg.inv(root) @ turns @ root).float()
        self._steps = self._space.normaliser().float() if self._space.restricted else None
        self._known: Known = {}

    @property
    def batches(self) -> list[Batch]:
        """The batches of the test."""
        return self._batches

    def losses(self, g: Tensor) -> Tensor:
        """Compute the losses ``[m]``."""
        return self._measured(g)[0]

    def _measured(self, g: Tensor) -> Tensor:
        outward = self._space.outward(g.float())
        return measure_matrices(self._objective, self._batches, outward, known=self._known)

    @torch.no_grad()
    def errors(self, g: Tensor) -> Tensor:
        """Compute the relative errors ``[m]``."""
        self._check()
        if not len(g):
            return torch.zeros(0)
        _, distance, displacement, _ = self._measured(g)
        batches, known = self._batches, self._known
        scale = motions(self._objective, batches, g.float(), displacement, self._drawn, known)
        relative: Tensor = distance / scale
        return relative

    def passes(self, g: Tensor, errors: Tensor) -> list[bool]:
        """Tell which matrices are symmetries."""
        if not len(g):
            return []
        outward = self._space.outward(g.float())
        return are_symmetries(self._objective, self._batches, outward, errors, self._p.threshold)[0]

    @torch.no_grad()
    def screen(self, g: Tensor, views: int = 32) -> Tensor:
        """Compute rough distances ``[m]`` on a few samples, many matrices at a time."""
        batch = draw_batch(
            self._objective,
            random_stream(self._seed, 3),
            max(1, views // self._charts),
            self._charts,
        )
        parts = []
        for some in g.float().split(max(1, AT_ONCE // views)):
            self._check()
            moved = self._space.outward(some)[:, None, None].expand(-1, *batch.shape, -1, -1)
            parts.append(self._objective.distance(batch, moved).flatten(1).mean(1))
        return torch.cat(parts)

    def refine(self, g: Tensor, share: float = 1.0) -> Tensor:
        """Move matrices to the nearest minima of the loss, with their determinants of ±1 kept.

        A matrix stays where it was if that is better on the batches of the test.

        Args:
            g: ``[m, n, n]``.
            share: Fraction of the steps, and of the samples in each, for a rough answer.

        Returns:
            ``[m, n, n]`` float64.
        """
        if not len(g):
            return g.double()
        size = max(1, AT_ONCE // self._p.views)
        return torch.cat([self._refined(some, share) for some in g.split(size)])

    def _refined(self, g: Tensor, share: float) -> Tensor:
        p, objective = self._p, self._objective
        steps = max(1, round(p.steps * share))
        samples = max(1, round(self._step_samples * share))
        ambient, by = self._space.ambient, self._steps
        start = g.double() if by is not None else ambient.normalise(g.double())
        if by is None:
            free = start.float().clone().requires_grad_(True)
        else:
            free = torch.zeros(len(g), len(by), requires_grad=True)

        def matrices() -> Tensor:
            if by is None:
                return ambient.normalise(free)
            moved: Tensor = lie.expm(lie.combine(by, free)) @ start.float()
            return moved

        adam = Adam([free], lr=p.learning_rate)
        generator = random_stream(self._seed, 4)
        for i in range(steps):
            self._check()
            falling = 0.5 * (1 + math.cos(math.pi * i / steps))
            adam.param_groups[0]["lr"] = p.learning_rate * (0.01 + 0.99 * falling) / share
            batch = draw_batch(objective, generator, samples, self._charts)
            moved = self._space.outward(matrices())[:, None, None].expand(-1, *batch.shape, -1, -1)
            loss = objective.loss(batch, moved).flatten(1).mean(1)
            adam.zero_grad()
            loss.sum().backward()
            if free.grad is not None:
                free.grad[~free.grad.isfinite().flatten(1).all(1)] = 0
            adam.step()
        end = matrices().detach().double()
        usable = end.isfinite().flatten(1).all(1) & (
            torch.linalg.det(end).sign() == torch.linalg.det(start).sign()
        )
        end = torch.where(usable[:, None, None], end, start)
        before, after = self.losses(start), self.losses(end)
        better = (after <= before).to(end.device)
        return torch.where(better[:, None, None], end, start)


def inputs_metric(batches: list[Batch], space: Space) -> Tensor:
    """Compute the metric ``[n, n]`` in which vectors among the inputs have no preferred direction.

    It is the inverse of their second moments in the space's coordinates, or I for fields.
    """
    n = space.n
    eye = torch.eye(n, dtype=torch.float64)
    x = torch.cat([b.x for b in batches]).double().cpu()
    if x.dim() > 4 or x.shape[-1] != n:
        return eye
    points = x.flatten(0, -2)
    if space.coordinates is not None:
        points = points @ space.coordinates.mT
    moments = points.mT @ points / len(points)
    size = float(moments.diagonal().mean())
    if not size > 0:
        return eye
    return normalised(torch.linalg.inv(moments + 1e-3 * size * eye))


@register(
    "closure_solver",
    "products",
    "Multiplies, refines and tests the matrices found until no product is new, and looks for more",
    ProductsParams,
    manifolds=("planar", "lattice", "vectors"),
    needs_predictor=True,
)
class ProductsSolver:
    """Closes matrices to a finite group, or to the group of components of a Lie group.

    Without a generator it also looks at orthogonal matrices for elements that are missing: in the
    coordinates in which the inputs' second moments are the identity, and in those in which the
    elements found so far are orthogonal.
    """

    kind = "products"

    def __init__(
        self,
        params: ProductsParams,
        *,
        objective: Objective,
        identity_algebra: Tensor,
        matrices: Tensor,
        epochs: int,
        seed: int,
    ) -> None:
        n = objective.n
        for name, given in (("identity_algebra", identity_algebra), ("matrices", matrices)):
            if given.dim() != 3 or given.shape[1:] != (n, n):
                raise InvalidInput(
                    f"{name} has shape {list(given.shape)}", f"cosets.{name}", f"[k, {n}, {n}]"
                )
        if bool((torch.linalg.det(matrices.double()) == 0).any()):
            raise InvalidInput("a matrix is singular", "cosets.matrices", "invertible matrices")
        self._p, self._objective, self._seed = params, objective, seed
        self._space = space = objective.space
        self._algebra = space.inward(identity_algebra.cpu())
        self._matrices = space.inward(matrices.double().cpu())
        self._total, self._epoch = epochs, 0
        unit = torch.eye(n, dtype=torch.float64)[None]
        self._closed = Closed(unit, torch.zeros(1, 1, dtype=torch.long))
        self._losses = torch.zeros(1)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self._epoch

    @property
    def total_epochs(self) -> int:
        """Number of epochs in the spec; all work is done in the first one."""
        return self._total

    @property
    def memory_bytes(self) -> int:
        """Bytes of the matrices."""
        return 8 * (self._matrices.numel() + self._closed.elements.numel())

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Close the group.

        Args:
            on_step: Called between the steps of refinements.

        Returns:
            The number of ``elements``, and their largest ``error``.
        """
        if self._epoch == 0:
            self._close(on_step)
        self._epoch += 1
        return {"elements": float(len(self._closed.elements)), "loss": float(self._losses.max())}

    def _close(self, on_step: StepCallback) -> None:
        objective, n, steps = self._objective, self._objective.n, 0
        objective.refresh()

        def check() -> None:
            nonlocal steps
            steps += 1
            on_step(min(steps, 999), 1000, {})  # the number of products is not known before

        tester = LossTester(objective, self._p, self._seed, check)
        if len(self._algebra):
            ambient = self._space.ambient
            own = places(self._algebra, torch.eye(n)[None].double(), self._matrices, ambient)
            others = torch.tensor([at < 0 for at in own], dtype=torch.bool)
            found = tester.refine(self._matrices[others])
            self._closed = close_components(found, self._algebra, tester, ambient)
        else:
            closure = FiniteClosure(tester, objective.n)
            closure.add(tester.refine(self._matrices))
            # Orthogonal matrices are no elements of products and of affine groups.
            for i in range(ROUNDS if self._p.starts and self._space.ambient.is_linear else 0):
                if not closure.add(self._search(tester, closure.elements, i)):
                    break
            self._closed = closure.closed()
        self._losses = tester.losses(self._closed.elements)

    def _search(self, tester: LossTester, elements: Tensor, turn: int) -> Tensor:
        """Look for symmetries among orthogonal matrices, and refine the most promising."""
        n = self._objective.n
        generator = random_stream(self._seed, 5, turn)
        metrics = [inputs_metric(tester.batches, self._space)]
        if len(elements) > 1:
            metrics.append(finite.metric_of(elements))
        starts = []
        for metric in metrics:
            root = finite.root_of(metric)
            drawn = finite.orthogonal_starts(self._p.starts // len(metrics), n, generator)
            starts.append(torch.linalg.inv(root) @ drawn @ root)
        every = torch.cat(starts)
        if self._space.restricted:
            every = restricted_starts(self._space, every, self._algebra).double()
        rough = tester.screen(every)
        picked: list[int] = []
        for i in torch.argsort(rough).tolist():
            near = finite.distances(every[i], torch.cat([elements, every[picked]]))
            if float(near.min()) > 0.2:
                picked.append(i)
            if len(picked) == (PROMISING if n > 2 else PROMISING // 2):
                break
        roughly = tester.refine(every[picked], ROUGH)
        errors = tester.errors(roughly)
        near = torch.cdist(roughly.flatten(1), elements.flatten(1)).min(1).values
        good = (errors <= 2 * self._p.threshold) & (near > 0.1)
        best: list[int] = []  # one of those that came to the same place
        for i in torch.argsort(errors).tolist():
            if good[i] and all(float((roughly[i] - roughly[j]).norm()) > 0.1 for j in best):
                best.append(i)
        return tester.refine(roughly[best])

    def report(self) -> CosetReport:
        """Return the closed group."""
        closed = self._closed
        return CosetReport(
            matrices=self._space.outward(closed.elements),
            factors=self._space.factors,
            losses=self._losses.double().tolist(),
            noise_floor=0.0,
            closure=ClosureReport(
                table=closed.table,
                spread=closed.spread,
                smallest_distance=closed.smallest if len(closed.elements) > 1 else 0.0,
                rejected=closed.rejected,
                resolved=closed.resolved,
                explanation=closed.explanation,
            ),
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the group, the kind and the epoch."""
        closed = self._closed
        return {
            "elements": closed.elements.clone(),
            "table": closed.table.clone(),
            "losses": self._losses.clone(),
            "spread": torch.tensor([closed.spread], dtype=torch.float64),
        }, {
            "kind": self.kind,
            "epoch": str(self._epoch),
            "rejected": str(closed.rejected),
            "resolved": str(closed.resolved),
            "explanation": closed.explanation,
        }

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restore what :meth:`state` returned. Raises ``InvalidInput`` if it does not fit."""
        epoch = check_kind(metadata, self.kind)
        n = self._objective.n
        missing = {"elements", "table", "losses", "spread"} - set(tensors)
        if missing or tensors["elements"].shape[1:] != (n, n):
            raise InvalidInput(
                "the state is not that of a closure of this size", "state", f"[m, {n}, {n}]"
            )
        self._closed = Closed(
            tensors["elements"].double().cpu(),
            tensors["table"].long().cpu(),
            float(tensors["spread"][0]),
            int(metadata.get("rejected", 0)),
            metadata.get("resolved") == "True",
            metadata.get("explanation", ""),
        )
        self._losses = tensors["losses"].cpu()
        self._epoch = epoch


__all__ = ["FLOOR", "LossTester", "ProductsParams", "ProductsSolver"]
