"""Coset discovery on functions whose components are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import Diverged, InvalidInput
from atlas_worker.interfaces import CosetReport
from atlas_worker.solvers.multistart import (
    SPARES,
    MultistartParams,
    MultistartSolver,
    without_spares,
)
from atlas_worker.symmetry import EquivarianceObjective
from atlas_worker.symmetry.ambient import normalised
from atlas_worker.symmetry.components import compare

from .resume_check import check_resuming
from .tasks import J, field_task, network, noisy, norm_in, point_task, slope_squared, waves

EMPTY = torch.zeros(0, 2, 2)


def find(
    objective: EquivarianceObjective,
    identity: Tensor,
    seed: int = 0,
    epochs: int = 3,
    **params: Any,
) -> CosetReport:
    if objective.charts == 1:
        params = {"batch_size": 32, "evaluation": 128, **params}
    solver = MultistartSolver(
        MultistartParams(**params),
        objective=objective,
        identity_algebra=identity,
        epochs=epochs,
        seed=seed,
    )
    for _ in range(epochs):
        solver.run_epoch(lambda *_: None)
    return solver.report()


def signs(report: CosetReport) -> list[int]:
    return sorted(int(torch.linalg.det(m).sign()) for m in report.matrices)


def orthogonality(m: Tensor) -> float:
    return float((m @ m.T - torch.eye(m.shape[-1])).abs().max())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_isotropic_function_has_rotations_and_reflections(seed: int) -> None:
    report = find(point_task(norm_in(torch.eye(2))), J[None], seed)
    assert signs(report) == [-1, 1]
    assert max(orthogonality(m) for m in report.matrices) < 0.05


def test_an_isotropic_operator_on_fields_has_rotations_and_reflections() -> None:
    report = find(field_task(slope_squared), J[None])
    assert signs(report) == [-1, 1]
    assert max(orthogonality(m) for m in report.matrices) < 0.05


def test_matrices_to_report_move_on() -> None:
    """After few steps of a search they are nearer to the components than without."""
    task = point_task(norm_in(torch.eye(2)))
    squeeze = torch.diag(torch.tensor([1.2, 1.0]))
    inexact = (squeeze @ J @ torch.linalg.inv(squeeze))[None]
    how: dict[str, Any] = {"epochs": 1, "steps": 4, "threshold": 1.0, "batch_size": 8}
    rough, fine = (find(task, inexact, **how, refine=refine) for refine in (0, 30))
    assert signs(fine) == [-1, 1]
    worst = [max(orthogonality(m) for m in report.matrices) for report in (rough, fine)]
    assert worst[1] < min(0.03, worst[0] / 2)


def test_an_imperfect_predictor_still_shows_both_components() -> None:
    report = find(point_task(noisy(norm_in(torch.eye(2)), 0.014)), J[None])
    assert signs(report) == [-1, 1]


def test_the_square_has_eight_symmetries() -> None:
    """METHOD 3.5: f(x, y) = |x| + |y|, no algebra."""
    report = find(
        point_task(lambda x: x.abs().sum(-1, keepdim=True)),
        EMPTY,
        candidates=256,
        max_components=128,
    )
    assert len(report.matrices) == 8
    rounded = {tuple(m.round().flatten().int().tolist()) for m in report.matrices}
    quarter = [torch.linalg.matrix_power(J, i) for i in range(4)]
    flip = torch.diag(torch.tensor([1.0, -1.0]))
    assert rounded == {tuple(m.flatten().int().tolist()) for q in quarter for m in (q, q @ flip)}
    assert max(float((m - m.round()).abs().max()) for m in report.matrices) < 0.05


def test_half_turns_join_scalings_to_two_components() -> None:
    """METHOD 3.5: f(x, y) = atan((y + 0.1) / x), with scaling as the identity component."""
    report = find(
        point_task(lambda x: torch.atan((x[..., 1:] + 0.1) / x[..., :1])),
        torch.eye(2)[None],
        candidates=32,
        max_components=24,
    )
    assert len(report.matrices) == 2
    labels, _ = compare(
        torch.eye(2)[None], torch.cat([report.matrices, torch.stack([torch.eye(2), -torch.eye(2)])])
    )
    assert sorted(labels[:2]) == sorted(labels[2:])


def test_a_function_without_symmetry_has_the_identity_alone() -> None:
    report = find(point_task(network), EMPTY, candidates=32, max_components=16)
    assert len(report.matrices) == 1
    assert (report.matrices[0] - torch.eye(2)).abs().max() < 0.1


def test_a_connected_group_has_one_component() -> None:
    """C* is all that commutes with multiplication by i: no reflection does."""
    report = find(point_task(lambda x: x @ J.T, out="point"), torch.stack([J, torch.eye(2)]))
    assert signs(report) == [1]


def test_every_candidate_is_accounted_for() -> None:
    report = find(point_task(norm_in(torch.eye(2))), J[None], candidates=16, max_components=4)
    assert len(report.candidates) == 2 * SPARES, "of the starts in each component"
    losses = [c.loss for c in report.candidates]
    assert losses == sorted(losses)
    kept = [c for c in report.candidates if c.outcome == "kept"]
    assert torch.equal(torch.stack([c.matrix for c in kept]), report.matrices)
    assert [c.loss for c in kept] == report.losses
    assert {c.outcome for c in report.candidates} <= {
        "kept",
        "duplicate",
        "beyond_limit",
        "not_a_symmetry",
    }
    assert len(kept) <= 4
    for c in report.candidates:
        assert float(torch.linalg.det(c.matrix).abs()) == pytest.approx(1, abs=1e-4)
        if c.outcome == "duplicate":
            labels, _ = compare(J[None], torch.stack([report.matrices[c.duplicate_of], c.matrix]))
            assert labels == [0, 0]


def test_starts_in_one_component_are_searched_no_more_than_twice() -> None:
    turn = torch.linalg.matrix_exp(torch.tensor([0.3, 1.0, 2.0, 4.0])[:, None, None] * J)
    flip = torch.diag(torch.tensor([1.0, -1.0]))
    apart = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    starts = torch.stack([turn[0], flip, turn[1], turn[2], turn[3], apart, turn[2] @ flip])
    kept = without_spares(J[None], starts)
    assert torch.equal(kept, starts[[0, 1, 2, 5, 6]])
    assert torch.equal(without_spares(EMPTY, starts), starts), "no algebra joins them"


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_components_are_kept_than_were_asked_for(most: int) -> None:
    square = point_task(lambda x: x.abs().sum(-1, keepdim=True))
    everything = find(square, EMPTY, candidates=64, max_components=32)
    report = find(square, EMPTY, candidates=64, max_components=most)
    assert len(everything.matrices) > 3
    assert len(report.matrices) == most
    assert report.losses[0] == everything.losses[0]
    outcomes = [c.outcome for c in report.candidates]
    assert outcomes.count("kept") == most
    assert "beyond_limit" in outcomes


def test_what_is_kept_is_never_in_one_component() -> None:
    report = find(
        point_task(lambda x: x.abs().sum(-1, keepdim=True)), EMPTY, candidates=64, max_components=32
    )
    labels, _ = compare(EMPTY, report.matrices)
    assert labels == list(range(len(report.matrices)))


def test_normalising_keeps_the_sign_of_the_determinant() -> None:
    m = torch.stack([2 * torch.eye(3), torch.diag(torch.tensor([-8.0, 1.0, 1.0]))])
    unit = normalised(m)
    assert torch.allclose(unit[0], torch.eye(3))
    assert torch.allclose(unit[1], m[1] / 2)
    assert torch.linalg.det(unit).tolist() == pytest.approx([1, -1])


@pytest.mark.parametrize(
    "identity", [torch.zeros(1, 3, 3), torch.zeros(2, 2), torch.zeros(1, 2, 3)]
)
def test_an_identity_component_of_another_size_is_refused(identity: Tensor) -> None:
    with pytest.raises(InvalidInput) as caught:
        MultistartSolver(
            MultistartParams(),
            objective=point_task(waves),
            identity_algebra=identity,
            epochs=1,
            seed=0,
        )
    assert caught.value.field == "cosets.identity_algebra"


def solver(seed: int = 0) -> MultistartSolver:
    objective = point_task(norm_in(torch.eye(2)), samples=64)
    return MultistartSolver(
        MultistartParams(steps=5, candidates=6),
        objective=objective,
        identity_algebra=J[None],
        epochs=3,
        seed=seed,
    )


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_resumed_descent_is_the_undisturbed_one_bit_for_bit(stop: int) -> None:
    whole, resumed = check_resuming(solver, 3, stop)
    ours, theirs = whole.report(), resumed.report()
    assert torch.equal(ours.matrices, theirs.matrices)
    assert ours.losses == theirs.losses


def test_state_of_another_solver_is_refused() -> None:
    tensors, facts = solver().state()
    for state in (
        (tensors, {**facts, "kind": "paper"}),
        ({}, facts),
        ({"free": tensors["free"][:2]}, facts),
    ):
        with pytest.raises(InvalidInput):
            solver().load_state(*state)


def test_a_candidate_that_overflows_does_not_end_the_search_of_the_others() -> None:
    def steep(
        x: Tensor,
    ) -> Tensor:  # infinite in float32 beyond |x| = 1: where a candidate that stretches goes
        return (88.7 * x[..., :1].square().sum(-1, keepdim=True)).exp() + x[..., 1:].square().sum(
            -1, keepdim=True
        )

    report = find(point_task(lambda x: steep(x / 4)), EMPTY, candidates=64, max_components=8)
    assert all(math.isfinite(c.loss) for c in report.candidates)
    assert 0 < len(report.candidates) < 64  # some are lost, so the test sees what it is about
    assert len(report.matrices)


def test_when_every_candidate_overflows_the_search_stops() -> None:
    with pytest.raises(Diverged):
        find(
            point_task(lambda x: (x * 1e30).square().sum(-1, keepdim=True)),
            EMPTY,
            candidates=4,
            max_components=2,
        )
