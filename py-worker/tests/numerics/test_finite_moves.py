"""Moves of finite size that bring a learnt span nearer to the symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atlas_worker.solvers.grassmann import GrassmannParams, GrassmannSolver
from atlas_worker.symmetry import EquivarianceObjective, Inputs, finite_moves, lie
from atlas_worker.symmetry.finite_moves import (
    completed,
    displacements,
    largest,
    lie_closure,
    refine,
    spread_metric,
)
from atlas_worker.symmetry.neighbours import Neighbours, far, whitening
from atlas_worker.symmetry.spectral import linearised_spectrum
from atlas_worker.symmetry.vectors import VectorAction, VectorInputs

from .tasks import J, Points, point_task
from .test_spectral import Function, form
from .test_vectors import elementary

BOOST = elementary(2, 0, 1, 1)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite_moves, "ROWS", 3000)


def normal(samples: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed))


def objective(
    f: Function, x: Tensor, y: Tensor | None = None, fitted: Tensor | None = None
) -> EquivarianceObjective:
    """Points ``x [N, n]``, a predictor ``[N, n] -> [N, 1]``, and targets ``[N, 1]``."""

    def targets() -> Inputs:
        assert y is not None
        return Points(y[:, None])

    return EquivarianceObjective(
        VectorInputs(x[:, None]),
        VectorAction(x.shape[1]),
        lambda: lambda x, _: f(x[..., 0, :]),
        targets=None if y is None else targets,
        fitted=fitted,
    )


def learnt(truth: Function, seed: int, size: float = 0.02) -> Function:
    """A function with small and rough errors: its slopes are worse than its values."""
    w = 4 * normal(16, 2, seed=seed)
    return lambda x: truth(x) + size * torch.sin(x @ w.T.to(x)).sum(-1, keepdim=True)


def degrees(a: Tensor, b: Tensor) -> float:
    return math.degrees(float(lie.principal_angles(a, b).max()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", [[1.0, 1.0], [1.0, -1.0]])
def test_a_generator_comes_nearer_to_the_symmetry(metric: list[float], seed: int) -> None:
    truth, x = form(torch.diag(torch.tensor(metric))), normal(1000, 2, seed=seed)
    exact = (J if metric[1] > 0 else BOOST)[None]
    task = objective(learnt(truth, seed), x, truth(x))
    start = linearised_spectrum(task, 512, 0).directions[:1]
    found = refine(task, start, 0)
    assert degrees(start, exact) > 2
    assert degrees(found, exact) < 0.6 * degrees(start, exact)


def test_an_exact_generator_stays_as_it_is() -> None:
    truth = form(torch.eye(2))
    task = objective(truth, normal(500, 2))
    start = J[None] / J.norm()
    assert refine(task, start, 0) is start


def test_samples_that_were_held_out_have_no_influence() -> None:
    truth, x = form(torch.eye(2)), normal(800, 2)
    y, fitted = truth(x), torch.arange(600)
    wrong = y.clone()
    wrong[600:] = 100 * normal(200, 1)
    start = lie.frame(J[None] + 0.2 * BOOST)
    one, other = (refine(objective(learnt(truth, 0), x, t, fitted), start, 0) for t in (y, wrong))
    assert torch.equal(one, other)
    assert not torch.equal(one, start)


def test_nothing_is_refined_where_no_move_stays_near() -> None:
    # Points on a curve: along this squeeze all of them leave it.
    angle = torch.linspace(0, 1, 400)[:, None]
    x = torch.cat([angle.cos(), angle.sin()], 1) * 3
    start = lie.frame(torch.tensor([[[1.0, 0.0], [0.0, -1.0]]]))
    assert refine(objective(learnt(form(torch.eye(2)), 0), x), start, 0) is start


def test_other_inputs_and_whole_spaces_are_left_alone() -> None:
    start, everything = J[None] / J.norm(), torch.eye(4).unflatten(1, (2, 2))
    # These points are no sets of vectors, and nothing is known of what is near to them.
    assert refine(point_task(learnt(form(torch.eye(2)), 0), 2), start, 0) is start
    task = objective(learnt(form(torch.eye(2)), 0), normal(500, 2))
    assert refine(task, everything, 0) is everything


def test_displacements_are_those_of_small_moves() -> None:
    x = normal(300, 2)
    task = objective(form(torch.eye(2)), x)
    metric = displacements(task, torch.arange(300), torch.eye(2, dtype=torch.float64))
    second = (x.T.double() @ x.double()) / 300
    expected = torch.block_diag(second, second) / 2  # a row of the matrix moves one coordinate
    torch.testing.assert_close(metric, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("centre", "size"), [(1.0, 0.005), (2.0, 0.001), (3.0, 0.001)])
def test_directions_that_hardly_move_the_data_do_not_come_first(centre: float, size: float) -> None:
    # Points off the origin: a wᵀ with w = (1, -1) moves them little, and J moves them far.
    truth, x = form(torch.eye(2) * 2 / centre**2), centre + 0.7 * normal(1000, 2)
    task = objective(learnt(truth, 1, size), x)
    plain, metric = linearised_spectrum(task, 512, 0), spread_metric(task, 0)
    assert metric is not None
    moved = plain.per_displacement(metric, task.space)
    assert degrees(moved.directions[:1], J[None]) < degrees(plain.directions[:1], J[None])
    assert float(moved.errors[1] / moved.errors[0]) > 1.4 * float(plain.errors[1] / plain.errors[0])


def test_the_order_of_directions_does_not_depend_on_units() -> None:
    truth, x = form(torch.eye(2)), normal(800, 2)
    f, units = learnt(truth, 2), torch.diag(torch.tensor([200.0, 0.05]))
    inverse = torch.linalg.inv(units)
    spectra = []
    for task in (objective(f, x), objective(lambda x: f(x @ inverse.T.to(x)), x @ units.T)):
        metric = spread_metric(task, 0)
        assert metric is not None
        spectra.append(
            linearised_spectrum(task, 512, 0, weighted=False).per_displacement(metric, task.space)
        )
    back = inverse @ spectra[1].directions[:1] @ units
    torch.testing.assert_close(spectra[0].errors, spectra[1].errors, rtol=0.02, atol=1e-3)
    assert degrees(spectra[0].directions[:1], back) < 3


def test_the_solver_refines_if_asked() -> None:
    truth, x = form(torch.eye(2)), normal(1000, 2)
    task = objective(learnt(truth, 3), x, truth(x))
    angles = []
    for polish in (False, True):
        params = GrassmannParams(start="spectral", steps=0, charts=1, polish=polish)
        solver = GrassmannSolver(params, objective=task, k=1, epochs=1, seed=0)
        solver.run_epoch(lambda *_: None)
        angles.append(degrees(solver.report().generators, J[None]))
    assert angles[1] < 0.6 * angles[0]


def test_a_function_that_changes_in_jumps_has_nothing_to_refine() -> None:
    task = objective(lambda x: (x[..., :1] > 0).to(x), normal(500, 2))
    params = GrassmannParams(start="spectral", steps=0, charts=1, polish=True)
    solver = GrassmannSolver(params, objective=task, k=0, epochs=1, seed=0)
    solver.run_epoch(lambda *_: None)
    report = solver.report()
    assert report.generators.shape == (0, 2, 2)
    assert "changes in jumps" in report.explanation


@pytest.mark.parametrize(
    "errors", [(0.1, 0.9, math.inf), (math.inf, 0.1, 0.2), (0.1, math.inf, 0.2)]
)
def test_no_larger_span_is_taken_where_no_move_stays_near(
    errors: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = finite_moves._Moves(objective(form(torch.eye(2)), normal(300, 2)), 0)
    of_each = iter(errors)  # of the smaller span, the larger one, and the directions outside
    monkeypatch.setattr(moves, "error", lambda *_: next(of_each))
    everything = torch.eye(4).unflatten(1, (2, 2))
    assert not moves.no_worse(everything[:2], everything[:1])


def test_a_known_point_is_not_its_own_neighbour() -> None:
    points = torch.arange(10.0)[:, None].double()
    distances, nearest = Neighbours(points).nearest(points[:1])
    assert nearest.tolist() == [[1, 2, 3, 4]]
    assert distances.tolist() == [[1, 2, 3, 4]]
    assert float(far(distances)) == 2.5


def test_whitening_keeps_zeros() -> None:
    x = torch.cat([normal(50, 1, 3, 2), torch.zeros(50, 1, 3, 1)], -1)
    white = x.double() @ whitening(x)
    second = torch.einsum("bcmi,bcmj->ij", white, white) / 150
    torch.testing.assert_close(second, torch.diag(torch.tensor([1.0, 1.0, 0.0])).double())


def rotations() -> Tensor:
    return torch.stack([elementary(3, i, j, -1) for i, j in ((0, 1), (0, 2), (1, 2))])


def test_two_rotations_of_space_generate_the_third() -> None:
    space = objective(lambda x: x[..., :1], normal(9, 3)).space
    everything = rotations()
    closed = lie_closure(space, everything[:2])
    assert degrees(closed, everything) < 0.1
    assert len(lie_closure(space, everything)) == 3
    assert len(lie_closure(space, everything[:1])) == 1
    commuting = torch.diag_embed(torch.eye(3))[:2]
    assert len(lie_closure(space, commuting)) == 2


def test_a_span_is_completed_if_all_of_it_is_a_symmetry() -> None:
    x, everything = normal(1500, 3), rotations()
    task = objective(form(torch.eye(3)), x)
    assert degrees(completed(task, everything[:2], 0), everything) < 2
    # Of an ellipsoid, both are inexact, and generate the wrong algebra; it is refined.
    metric = torch.tensor([1.0, 1.0, 0.2])
    scale = torch.diag(metric.rsqrt())
    ellipsoid = objective(form(torch.diag(metric)), x)
    exact = scale @ everything @ torch.linalg.inv(scale)
    assert degrees(completed(ellipsoid, everything[:2], 0), exact) < 3
    # Only the first rotation is a symmetry here, and the third makes it worse.
    flat = form(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
    about_an_axis = objective(lambda x: flat(x) + 0.5 * torch.sin(2 * x[..., 2:]), x)
    assert len(completed(about_an_axis, refine(about_an_axis, everything[:2], 0), 0)) == 2


def test_without_a_gap_the_largest_span_is_taken_that_is_no_worse() -> None:
    x, everything = normal(1500, 3), rotations()
    task = objective(form(torch.eye(3)), x)
    inexact = lie.frame(everything + 0.05 * normal(3, 3, 3))
    assert degrees(largest(task, inexact, 0), everything) < 2
    flat = form(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
    about_an_axis = objective(lambda x: flat(x) + 0.5 * torch.sin(2 * x[..., 2:]), x)
    assert degrees(largest(about_an_axis, inexact, 0), everything[:1]) < 2
