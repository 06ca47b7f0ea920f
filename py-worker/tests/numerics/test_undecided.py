"""Directions about which data decide nothing: free ones, and inert ones."""

from __future__ import annotations

import torch
from torch import Tensor

from atlas_worker.datasets.peers import TwoBodiesParams, make_two_bodies
from atlas_worker.solvers.grassmann import GrassmannParams, GrassmannSolver
from atlas_worker.symmetry import EquivarianceObjective
from atlas_worker.symmetry.features import FeatureType
from atlas_worker.symmetry.undecided import find_undecided
from atlas_worker.symmetry.vectors import VectorAction, VectorInputs


def task(f: object, x: Tensor, action: VectorAction) -> EquivarianceObjective:
    return EquivarianceObjective(VectorInputs(x), action, lambda: lambda x, _: f(x))  # type: ignore[operator]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_half_of_gl_8_is_free_on_two_bodies_and_nothing_of_gl_2() -> None:
    data = make_two_bodies(TwoBodiesParams(60), seed=0, device=torch.device("cpu"), tensors={})
    keep = lambda x: x[..., 0, :]  # noqa: E731
    whole = task(keep, data.inputs, VectorAction(8, rho_out=FeatureType("V", 8)))
    found = find_undecided(whole, 0)
    assert found.counts == (32, 16, 0)
    assert float((data.inputs.double() @ found.free.mT).abs().max()) < 1e-5
    assert found.rest(whole.space).dimension == 16
    four = FeatureType("4V", 2)
    plane = task(keep, data.inputs, VectorAction(2, rho_in=four, rho_out=four))
    assert find_undecided(plane, 0).counts == (0, 0, 0)


def test_an_ignored_direction_is_inert_in_any_units() -> None:
    units = torch.tensor([1.0, 1e3, 1e-3])
    x = randn(600, 2, 3) * units

    def f(x: Tensor) -> Tensor:
        u = x / units.to(x)
        return (u[..., 0] * u[..., 1]).sum(-1, keepdim=True).tanh()

    found = find_undecided(task(f, x, VectorAction(3)), 0)
    assert found.counts == (0, 0, 3)
    assert torch.allclose(found.inert.abs(), torch.tensor([[0.0, 0.0, 1.0]]).double(), atol=1e-6)


def test_a_weak_dependence_is_none_of_them() -> None:
    def f(x: Tensor) -> Tensor:
        return (x[..., :2].square().sum(-1) + 0.2 * x[..., 2]).sum(-1, keepdim=True)

    assert find_undecided(task(f, randn(600, 2, 3), VectorAction(3)), 0).counts == (0, 0, 0)


def test_the_search_leaves_them_out() -> None:
    def f(x: Tensor) -> Tensor:
        return x[..., :2].square().sum((-1, -2))[..., None].div(4).tanh()

    x = randn(600, 2, 4)
    x[..., 3] = x[..., 0]  # one direction is free, and one inert
    objective = task(f, x, VectorAction(4))
    params = GrassmannParams(start="spectral", steps=0, leave_out=True, evaluation=64)
    solver = GrassmannSolver(params, objective=objective, k=0, epochs=1, seed=0)
    solver.run_epoch(lambda *_: None)
    report = solver.report()
    assert report.symmetry_count == 1
    assert "4 of 16 directions are free" in report.explanation
    resumed = GrassmannSolver(params, objective=objective, k=0, epochs=1, seed=0)
    resumed.load_state(*solver.state())
    assert torch.equal(resumed.report().generators, report.generators)
