"""The method of Gauss and Newton: the same minima as Adam's, in far fewer predictions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.solvers.grassmann import GrassmannParams, GrassmannSolver
from atlas_worker.symmetry import EquivarianceObjective, lie
from atlas_worker.symmetry.newton import Problem, Quadratic, frame_problem, minimise

from .resume_check import advance, check_resuming
from .tasks import J, field_task, laplacian, noisy, norm_in, point_task, stretched_slope
from .test_algebra_solvers import CONJUGATED, KNOWN, STRETCH, TURNS, classes, degrees, solve

METRIC = torch.linalg.inv(STRETCH @ STRETCH.T)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_algebra_is_found(name: str) -> None:
    make, truth = KNOWN[name]
    report = solve(make(), k=len(truth), optimiser="gauss_newton")
    assert degrees(report, torch.stack(truth)) < 1.0
    assert report.symmetry_count == len(truth)


def test_a_classifiers_algebra_is_found_by_its_distances_alone() -> None:
    task = point_task(classes(METRIC), loss="cross_entropy")
    report = solve(task, optimiser="gauss_newton", compare="distance")
    assert degrees(report, CONJUGATED[None]) < 1
    assert report.symmetry_count == 1
    with pytest.raises(InvalidInput, match="cannot minimise a classifier's loss"):
        solve(task, optimiser="gauss_newton")


def loss_of(objective: EquivarianceObjective, generator: Tensor) -> float:
    """The loss of a generator, on samples and transformations that no search has drawn."""
    draws = torch.Generator().manual_seed(17)
    batch = objective.batch(torch.arange(objective.samples))
    eta = torch.randn(*batch.shape, 1, generator=draws)
    steps = torch.full(batch.shape, 0.1)
    problem = frame_problem(objective, batch, eta, steps)
    return float(problem.values(generator[None, None] / generator.norm())[0])


@pytest.mark.parametrize(
    "objective",
    [
        point_task(noisy(norm_in(METRIC), 0.1)),
        field_task(lambda x: laplacian(x) + 0.2 * x[..., 1:-1, :-2]),
    ],
    ids=["vectors", "fields"],
)
def test_it_ends_where_adam_ends_or_lower(objective: EquivarianceObjective) -> None:
    adam, newton = (
        loss_of(objective, solve(objective, optimiser=optimiser).generators[0])
        for optimiser in ("adam", "gauss_newton")
    )
    assert newton < adam + 0.02


@pytest.mark.parametrize(
    "objective",
    [
        point_task(noisy(norm_in(METRIC), 0.1), samples=2048),
        field_task(lambda x: laplacian(x) + 0.2 * x[..., 1:-1, :-2], samples=192),
        field_task(stretched_slope, samples=192),
    ],
    ids=["vectors", "fields", "stretched"],
)
def test_both_in_turn_end_where_adam_ends_or_lower(objective: EquivarianceObjective) -> None:
    adam, both = (
        loss_of(objective, solve(objective, optimiser=optimiser).generators[0])
        for optimiser in ("adam", "auto")
    )
    assert both < adam + 0.02


MANY: dict[str, tuple[Callable[[], EquivarianceObjective], list[Tensor]]] = {
    "so(2)": (lambda: point_task(norm_in(torch.eye(2)), samples=2048), [J]),
    "so(3)": (lambda: point_task(norm_in(torch.eye(3)), n=3, samples=2048), list(TURNS)),
    "laplacian of fields": (lambda: field_task(laplacian, samples=192), [J]),
}


@pytest.mark.parametrize("name", MANY)
def test_both_methods_in_turn_find_a_known_algebra(name: str) -> None:
    make, truth = MANY[name]
    adam, auto = (solve(make(), k=len(truth), optimiser=one) for one in ("adam", "auto"))
    assert degrees(auto, torch.stack(truth)) < 1.0
    assert auto.symmetry_count == len(truth)
    assert not torch.equal(adam.generators, auto.generators)


@pytest.mark.parametrize(
    "task",
    [
        point_task(classes(METRIC), loss="cross_entropy", samples=2048),
        point_task(norm_in(METRIC), samples=512),
    ],
    ids=["classes", "few samples"],
)
def test_auto_is_adam_alone_for_classes_and_few_samples(task: EquivarianceObjective) -> None:
    adam, auto = (solve(task, optimiser=optimiser) for optimiser in ("adam", "auto"))
    assert torch.equal(adam.generators, auto.generators)


@pytest.mark.parametrize("optimiser", ["gauss_newton", "auto"])
@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_resumed_search_ends_with_the_same_bits(
    epochs: int, optimiser: Literal["gauss_newton", "auto"]
) -> None:
    def make() -> GrassmannSolver:
        params = GrassmannParams(optimiser=optimiser, evaluation=2)
        objective = field_task(laplacian, samples=96 if optimiser == "auto" else 16)
        return GrassmannSolver(params, objective=objective, k=1, epochs=epochs, seed=3)

    whole, again = advance(make(), epochs), advance(make(), epochs)
    assert torch.equal(whole.state()[0]["free"], again.state()[0]["free"])
    if epochs > 1:
        a, b = check_resuming(make, epochs, epochs - 1)
        assert torch.equal(a.report().generators, b.report().generators)


def test_the_model_of_a_loss_has_the_slope_of_the_loss() -> None:
    objective = point_task(norm_in(METRIC))
    batch = objective.batch(torch.arange(256))
    eta = torch.randn(*batch.shape, 2, generator=torch.Generator().manual_seed(0))
    problem = frame_problem(objective, batch, eta, torch.full(batch.shape, 1e-3))
    points = lie.frame(torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(1)))
    model, h = problem.quadratic(points), 1e-3
    assert torch.allclose(model.value, problem.values(points).double(), atol=1e-6)
    for a in range(model.gradient.shape[1]):
        step = h * torch.eye(4, dtype=torch.float64)[a].expand(3, -1)
        up, down = (problem.values(problem.move(points, s)).double() for s in (step, -step))
        assert torch.allclose(model.gradient[:, a], (up - down) / (2 * h), atol=0.02)


def test_a_point_whose_loss_is_not_finite_stays_where_it_was() -> None:
    def values(x: Tensor) -> Tensor:
        return (x - 1).square().sum(1)

    def quadratic(x: Tensor) -> Quadratic:
        return Quadratic(values(x), 2 * (x - 1), 2 * torch.eye(2).double().expand(len(x), -1, -1))

    start = torch.tensor([[0.0, 3.0], [math.nan, 0.0], [40.0, -2.0]], dtype=torch.float64)
    found = minimise(
        Problem(values, quadratic, lambda x, step: x + step),
        start,
        500,
        least_step=1e-6,
        least_decrease=1e-12,
    )
    assert (found.points[[0, 2]] - 1).abs().max() < 1e-4
    assert torch.equal(found.points[1].isnan(), start[1].isnan())
    assert found.iterations < 100
