"""Where coset representatives start, and descent in steps that suit a stiff task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.interfaces import CosetReport
from atlas_worker.solvers.multistart import (
    MultistartParams,
    MultistartSolver,
    without_spares,
)
from atlas_worker.symmetry import EquivarianceObjective, lie
from atlas_worker.symmetry.ambient import normalised
from atlas_worker.symmetry.components import compare
from atlas_worker.symmetry.normaliser import project_to_normaliser
from atlas_worker.symmetry.vectors import VectorAction, VectorInputs

from .resume_check import check_resuming
from .tasks import STRETCH, J
from .test_spectral import task_of
from .test_vectors import ETA, LORENTZ, TURNS, elementary, momenta

EMPTY = torch.zeros(0, 2, 2)


def starts(n: int, count: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, n, n, generator=torch.Generator().manual_seed(seed))


def defect(c: Tensor, basis: Tensor) -> Tensor:
    """Part of ``C B C⁻¹`` outside the algebra, root mean square over its basis: ``[m]``."""
    frame = lie.frame(basis.double())
    moved = c.double()[:, None] @ frame @ torch.linalg.inv(c.double())[:, None]
    off = moved - lie.combine(frame, lie.project(frame, moved))
    share: Tensor = (off.square().sum((-2, -1)) / moved.square().sum((-2, -1))).mean(1).sqrt()
    return share


ALGEBRAS = {
    "so(2)": J[None],
    "so(2), stretched": (STRETCH @ J @ torch.linalg.inv(STRETCH))[None],
    "so(2), turned and stretched": 7 * (STRETCH.T @ J @ torch.linalg.inv(STRETCH.T))[None],
    "so(1,1)": elementary(2, 0, 1, 1)[None],
    "so(3)": TURNS,
    "so(3), mixed": torch.einsum(
        "ab,bij->aij", torch.tensor([[1.0, 2, 0], [0, 1, -1], [1, 1, 2]]), TURNS
    ),
}


@pytest.mark.parametrize("name", ALGEBRAS)
def test_settled_matrices_normalise_the_algebra(name: str) -> None:
    basis = ALGEBRAS[name]
    before = starts(basis.shape[-1])
    assert float(defect(before, basis).median()) > 0.5, "nothing to do"
    after = project_to_normaliser(before, basis)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    left = defect(after, basis)
    assert float(left.median()) < 0.01
    assert float(left.max()) < 0.2  # the slowest start of a much stretched algebra: 0.09
    assert torch.equal(torch.linalg.det(after).sign(), torch.linalg.det(before).sign())
    assert (torch.linalg.det(after).abs() - 1).abs().max() < 1e-3
    assert torch.equal(project_to_normaliser(before, basis), after), "no randomness"


def test_the_normaliser_of_so2_are_rotations_and_reflections() -> None:
    after = project_to_normaliser(starts(2), J[None])
    assert (after @ after.mT - torch.eye(2)).abs().max() < 1e-3
    # Where they were is not forgotten: neither all the same, nor all of one kind.
    assert (torch.linalg.det(after) > 0).any()
    assert (torch.linalg.det(after) < 0).any()
    assert after.std(0).min() > 0.3


@pytest.mark.parametrize(
    "extra", [[], [torch.eye(4)[None]]], ids=["so(1,3)", "so(1,3) and scaling"]
)
def test_all_components_of_the_lorentz_group_occur(extra: list[Tensor]) -> None:
    """Measured: 44 of 64 starts settle, at least 7 in each component."""
    basis = torch.cat([LORENTZ, *extra])
    after = project_to_normaliser(starts(4), basis)
    there = after[defect(after, basis) < 0.03]
    assert len(there) > 24
    assert (there.mT @ ETA @ there - ETA).abs().max() < 0.2 * float(there.square().max())
    kinds = [(float(torch.linalg.det(m)) > 0, float(m[0, 0]) > 0) for m in there]
    assert len(set(kinds)) == 4
    # They stay near the unit: random boosts would be larger than any data.
    assert there.abs().max() < 5


@pytest.mark.parametrize(
    "basis",
    [EMPTY, torch.eye(2)[None], -3 * torch.eye(2)[None], torch.eye(4).unflatten(1, (2, 2))],
    ids=["none", "scaling", "scaling, of any size", "gl(2)"],
)
def test_where_the_condition_says_nothing_starts_are_left_alone(basis: Tensor) -> None:
    before = starts(2)
    assert torch.equal(project_to_normaliser(before, basis), before)


def test_singular_starts_do_not_spoil_the_others() -> None:
    before = torch.cat([torch.zeros(1, 2, 2), torch.ones(1, 2, 2), starts(2, 6)])
    after = project_to_normaliser(before, J[None])
    assert torch.isfinite(after).all()
    assert float(defect(after[2:], J[None]).max()) < 0.02


# Descent


def make(
    objective: EquivarianceObjective,
    identity: Tensor,
    epochs: int = 3,
    seed: int = 0,
    **params: Any,
) -> MultistartSolver:
    recipe = {"batch_size": 32, "evaluation": 64, "candidates": 20, "precondition": True, **params}
    return MultistartSolver(
        MultistartParams(**recipe),
        objective=objective,
        identity_algebra=identity,
        epochs=epochs,
        seed=seed,
    )


def found(solver: MultistartSolver) -> CosetReport:
    for _ in range(solver.total_epochs - solver.epoch):
        solver.run_epoch(lambda *_: None)
    return solver.report()


def ring(x: Tensor) -> Tensor:
    """A narrow step at radius 1: a per cent along the radius changes it by half of what it can."""
    return torch.tanh(50 * x.square().sum(-1, keepdim=True) - 50)


def uneven(x: Tensor) -> Tensor:
    """Much more sensitive to x than to y: invariant under y → −y alone."""
    return torch.stack([torch.tanh(30 * x[..., 0]), x[..., 1].abs()], -1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_two_components_of_a_stiff_task(seed: int) -> None:
    report = found(make(task_of(ring, 2), J[None], seed=seed))
    assert sorted(float(torch.linalg.det(m).sign()) for m in report.matrices) == [-1, 1]
    assert max(float((m @ m.T - torch.eye(2)).abs().max()) for m in report.matrices) < 0.02


@pytest.mark.parametrize("seed", [0, 1])
def test_a_stiff_task_without_an_algebra(seed: int) -> None:
    report = found(make(task_of(uneven, 2), EMPTY, seed=seed, threshold=0.1, candidates=32))
    assert len(report.matrices) == 2
    rounded = sorted((m.round() + 0.0).flatten().tolist() for m in report.matrices)
    assert rounded == [[1, 0, 0, -1], [1, 0, 0, 1]]
    assert max(float((m - m.round()).abs().max()) for m in report.matrices) < 0.1


def test_preconditioned_steps_change_the_prediction_alike() -> None:
    """Along the sensitive direction they are short, and nowhere longer than allowed."""
    solver = make(task_of(uneven, 2), EMPTY, steps=1)
    solver.run_epoch(lambda *_: None)
    steps = solver.state()[0]["steps"]
    lengths = steps.flatten(1).norm(dim=1)
    assert float(lengths.max()) <= 0.3 + 1e-6
    assert float(lengths.min()) < 0.2 * float(lengths.max())
    stiffest = steps[lengths.argmin()]
    assert float(stiffest[0].norm()) > 0.99 * float(stiffest.norm()), "what moves x"


def mass(x: Tensor) -> Tensor:
    total = x.sum(-2)
    return torch.asinh((total * (total @ ETA.to(total))).sum(-1, keepdim=True))


@pytest.mark.parametrize("precondition", [False, True])
def test_what_the_data_say_nothing_of_is_not_passed_off_as_a_component(precondition: bool) -> None:
    """Invariant masses are the same for −x; jets have positive energies, so −x is excluded."""
    jets = momenta(512, 3)[:, 0].float()
    objective = EquivarianceObjective(
        VectorInputs(jets), VectorAction(4), lambda: lambda x, _: mass(x)
    )
    report = found(make(objective, LORENTZ, threshold=0.05, steps=40, precondition=precondition))
    both = torch.stack([torch.eye(4), ETA])
    assert len(report.matrices) == 2
    labels, _ = compare(LORENTZ, torch.cat([both, report.matrices]))
    assert sorted(labels[2:]) == [0, 1]
    assert (report.matrices[:, 0, 0] > 0).all()
    unseen = [c.matrix for c in report.candidates if c.outcome == "outside_support"]
    assert any(c.loss < 0.05 for c in report.candidates if c.outcome == "outside_support")
    assert all(float(m[0, 0]) < 0 for m in unseen if (m.T @ ETA @ m - ETA).abs().max() < 0.3)
    # The same function on data of both signs has all four.
    both_signs = torch.cat([jets, -jets])
    objective = EquivarianceObjective(
        VectorInputs(both_signs), VectorAction(4), lambda: lambda x, _: mass(x)
    )
    report = found(make(objective, LORENTZ, threshold=0.05, steps=40, precondition=precondition))
    labels, _ = compare(LORENTZ, torch.cat([both, -both, report.matrices]))
    assert sorted(labels[4:]) == [0, 1, 2, 3]


def small(seed: int = 0, precondition: bool = True) -> MultistartSolver:
    objective = task_of(ring, 2, samples=64)
    return make(objective, J[None], seed=seed, steps=5, candidates=6, precondition=precondition)


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_resumed_descent_is_the_undisturbed_one_bit_for_bit(stop: int) -> None:
    whole, resumed = check_resuming(small, 3, stop)
    ours, theirs = whole.report(), resumed.report()
    assert torch.equal(ours.matrices, theirs.matrices)
    assert ours.losses == theirs.losses


def test_untouched_candidates_are_the_settled_starts() -> None:
    solver = small()
    settled = project_to_normaliser(starts_of(6), J[None])
    report = solver.report()
    there = torch.stack([c.matrix for c in report.candidates])
    assert len(there) == len(without_spares(J[None], settled)) < len(settled)
    for m in there:
        assert (normalised(settled) - m).abs().flatten(1).max(1).values.min() < 1e-5


def starts_of(count: int) -> Tensor:
    from atlas_worker.rng import random_stream

    return torch.randn(count, 2, 2, generator=random_stream(0, 0))


def test_state_of_the_other_kind_of_descent_is_refused() -> None:
    tensors, facts = small().state()
    plain = small(precondition=False)
    for solver, state in ((plain, (tensors, facts)), (small(), plain.state())):
        with pytest.raises(InvalidInput):
            solver.load_state(*state)
    without = {k: v for k, v in tensors.items() if k != "steps"}
    with pytest.raises(InvalidInput):
        small().load_state(without, facts)
