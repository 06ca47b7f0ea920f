"""Algebra solvers on functions whose symmetry is known exactly, and on functions that have none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import Diverged, InvalidInput
from atlas_worker.interfaces import AlgebraReport
from atlas_worker.solvers.atlasd import AtlasdParams, AtlasdSolver, regulariser
from atlas_worker.solvers.grassmann import GrassmannParams, GrassmannSolver
from atlas_worker.symmetry import EquivarianceObjective, LossKind, lie
from atlas_worker.symmetry.vectors import VectorAction, VectorInputs

from .resume_check import advance, check_resuming
from .tasks import (
    STRETCH,
    J,
    bent,
    complex_line,
    direction,
    field_task,
    laplacian,
    lopsided,
    masked,
    network,
    noisy,
    norm_in,
    point_task,
    quartic,
    slope_squared,
    stretched_slope,
    waves,
)

EYE = torch.eye(2)
BOOST = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
CONJUGATED = STRETCH @ J @ torch.linalg.inv(STRETCH)
TURNS = torch.stack(
    [
        torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
    ]
)


def solve(
    objective: EquivarianceObjective, k: int = 1, seed: int = 0, **params: Any
) -> AlgebraReport:
    if objective.charts == 1:  # points have one value where fields have hundreds
        params = {"batch_size": 64, "evaluation": 256, **params}
    solver = GrassmannSolver(
        GrassmannParams(**params), objective=objective, k=k, epochs=4, seed=seed
    )
    report: AlgebraReport = advance(solver, 4).report()
    return report


def degrees(report: AlgebraReport, truth: Tensor) -> float:
    """The largest principal angle to the true algebra."""
    return float(torch.rad2deg(lie.principal_angles(report.generators, truth)).max())


KNOWN: dict[str, tuple[Callable[[], EquivarianceObjective], list[Tensor]]] = {
    "so(2)": (lambda: point_task(norm_in(EYE)), [J]),
    "so(2), stretched": (
        lambda: point_task(norm_in(torch.linalg.inv(STRETCH @ STRETCH.T))),
        [CONJUGATED],
    ),
    "scaling": (lambda: point_task(direction), [EYE]),
    "so(1,1)": (lambda: point_task(norm_in(torch.diag(torch.tensor([1.0, -1.0])))), [BOOST]),
    "C*": (lambda: point_task(complex_line, out="point"), [J, EYE]),
    "so(3)": (lambda: point_task(norm_in(torch.eye(3)), n=3), list(TURNS)),
    "laplacian of fields": (lambda: field_task(laplacian), [J]),
    "squared slope of fields": (lambda: field_task(slope_squared), [J]),
    "stretched slope of fields": (lambda: field_task(stretched_slope), [CONJUGATED]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_algebra_is_found(name: str) -> None:
    make, truth = KNOWN[name]
    report = solve(make(), k=len(truth))
    assert degrees(report, torch.stack(truth)) < 1.0
    assert report.symmetry_count == len(truth)
    assert max(report.relative_errors) < 0.06
    # Whatever else there is in gl(n) is far from a symmetry.
    others = [s.relative_error for s in report.spectrum[len(truth) :]]
    assert min(others) > 0.3


def classes(metric: Tensor) -> Callable[[Tensor], Tensor]:
    """Logits of three classes, which the metric's group leaves as they are."""
    f = norm_in(metric)
    return lambda x: 2 * f(x) * torch.tensor([1.0, 0.0, -1.0])


@pytest.mark.parametrize("compare", ["loss", "distance"])
@pytest.mark.parametrize(
    ("metric", "truth"), [(EYE, J), (torch.linalg.inv(STRETCH @ STRETCH.T), CONJUGATED)]
)
def test_a_classifiers_algebra_is_found_by_either_comparison(
    metric: Tensor, truth: Tensor, compare: str
) -> None:
    report = solve(point_task(classes(metric), loss="cross_entropy"), compare=compare)
    assert degrees(report, truth[None]) < (3 if compare == "distance" else 1)
    assert report.symmetry_count == 1
    # The one has its least at the entropy of what is predicted, the other at nothing.
    assert (report.start_losses[0] < 0.01) is (compare == "distance")


def test_the_comparison_changes_nothing_where_both_are_the_same() -> None:
    objective = point_task(norm_in(EYE))
    a, b = (solve(objective, compare=compare) for compare in ("loss", "distance"))
    assert torch.equal(a.generators, b.generators)
    assert a.start_losses == b.start_losses


def test_places_where_a_classifier_is_sure_and_wrong_rule_its_loss_alone() -> None:
    """Logits that follow a stretched metric near the origin, and one direction far from it.

    Far from the origin the logits are in the hundreds.
    """
    near = classes(torch.linalg.inv(STRETCH @ STRETCH.T))

    def f(x: Tensor) -> Tensor:
        far = (x.norm(dim=-1, keepdim=True) > 2.2).to(x)
        return near(x) + 200 * far * x[..., :1] * torch.tensor([1.0, -1.0, 0.0])

    objective = point_task(f, loss="cross_entropy")
    off = {c: degrees(solve(objective, compare=c), CONJUGATED[None]) for c in ("loss", "distance")}
    assert off["distance"] < 10 < off["loss"]


@pytest.mark.parametrize("name", ["so(2), stretched", "stretched slope of fields"])
def test_generators_act_on_points_and_are_not_transposed(name: str) -> None:
    report = solve(KNOWN[name][0]())
    assert degrees(report, -CONJUGATED.T[None]) > 20
    b = report.generators[0]
    b = b * (CONJUGATED * b).sum().sign() * CONJUGATED.norm()
    assert (b - CONJUGATED).abs().max() < 0.06 * CONJUGATED.norm()


def test_the_truth_of_these_tests() -> None:
    """The functions are invariant, or equivariant, under the groups they are said to be."""
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(9))
    for name in ("so(2), stretched", "so(1,1)", "scaling", "so(2)"):
        objective, (b,) = KNOWN[name][0](), KNOWN[name][1]
        batch = objective.batch(torch.arange(32))
        g = lie.expm(torch.linspace(-1, 1, 32)[:, None, None, None] * b)
        assert objective.loss(batch, g).max() < 1e-5, name
        assert (
            objective.loss(
                batch,
                lie.expm(0.5 * (b + 0.3 * torch.diag(torch.tensor([1.0, -1.0])))).expand(
                    32, 1, 2, 2
                ),
            ).mean()
            > 0.01
        )
    for f in (waves, network, bent, quartic):
        moved = [
            (f(x @ lie.expm(0.5 * b).T) - f(x)).abs().mean() for b in (J, EYE, BOOST, CONJUGATED)
        ]
        assert min(moved) > 0.02


@pytest.mark.parametrize("f", [waves, network, quartic])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_symmetry_is_reported_as_none(f: Callable[[Tensor], Tensor], seed: int) -> None:
    """Measured over eight seeds: at least 0.299 (waves), 0.67 (network), 0.300 (quartic)."""
    report = solve(point_task(f), seed=seed)
    assert report.symmetry_count == 0
    assert report.relative_errors[0] > 0.27
    assert report.explanation.startswith("no direction")
    assert report.generators.shape == (1, 2, 2)


def test_no_symmetry_of_fields_is_reported_as_none() -> None:
    report = solve(field_task(masked))
    assert report.symmetry_count == 0
    assert report.relative_errors[0] > 0.27


@pytest.mark.parametrize("objective", [lambda: point_task(bent), lambda: field_task(lopsided)])
def test_a_mild_dependence_on_direction_is_no_symmetry(
    objective: Callable[[], EquivarianceObjective],
) -> None:
    """The hardest case, measured at 0.198 to 0.306: three times a true symmetry with 5 % noise."""
    assert solve(objective()).relative_errors[0] > 0.18
    assert solve(objective(), threshold=0.15).symmetry_count == 0


@pytest.mark.parametrize("seed", [0, 6])
def test_an_imperfect_predictor_still_shows_its_symmetry(seed: int) -> None:
    """Off by 5 % of its standard deviation: a relative error of at most 0.105 over eight seeds."""
    f = norm_in(EYE)
    spread = float(f(torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))).std())
    report = solve(point_task(noisy(f, 0.05 * spread, seed)), seed=seed)
    assert report.symmetry_count == 1
    assert report.relative_errors[0] < 0.13
    assert degrees(report, J[None]) < 3


def test_more_generators_than_there_are_symmetries() -> None:
    """The surplus is not passed off as found."""
    report = solve(point_task(norm_in(EYE)), k=2)
    assert report.symmetry_count == 1
    assert report.relative_errors[1] > 0.5
    assert degrees(AlgebraReport(report.generators[:1], [], [], 0, 1, [], [], ""), J[None]) < 5


@pytest.mark.parametrize(("n", "k"), [(2, 2), (2, 4), (3, 3)])
def test_generators_are_orthonormal_so_none_is_a_duplicate(n: int, k: int) -> None:
    report = solve(point_task(norm_in(torch.eye(n)), n=n), k=k)
    gram = torch.einsum("aij,bij->ab", report.generators, report.generators)
    assert (gram - torch.eye(k)).abs().max() < 1e-5
    assert len(report.spectrum) == n * n


def test_nothing_is_searched_for_in_all_of_gl() -> None:
    """What is reported is measured, and tells the symmetry from the rest."""
    solver = GrassmannSolver(
        GrassmannParams(), objective=point_task(norm_in(EYE)), k=4, epochs=1, seed=0
    )
    steps: list[int] = []
    solver.run_epoch(lambda step, *_: steps.append(step))
    assert steps == []
    report = solver.report()
    assert len(report.start_losses) == 1
    assert report.relative_errors[0] < 0.5 < report.relative_errors[1]
    assert degrees(replace(report, generators=report.generators[:1]), J[None]) < 25


def test_the_report_is_sorted_and_its_spectrum_spans_everything() -> None:
    report = solve(point_task(norm_in(torch.eye(3)), n=3), k=2)
    assert report.relative_errors == sorted(report.relative_errors)
    errors = [s.relative_error for s in report.spectrum]
    assert errors == sorted(errors)
    directions = torch.stack([s.direction for s in report.spectrum]).flatten(1)
    assert (directions @ directions.T - torch.eye(9)).abs().max() < 1e-5
    assert report.start_losses == sorted(report.start_losses)


@pytest.mark.parametrize(
    ("make", "k"),
    [
        (GrassmannSolver, -1),
        (GrassmannSolver, 5),
        (AtlasdSolver, 0),
        (AtlasdSolver, -1),
        (AtlasdSolver, 5),
    ],
)
def test_k_out_of_range_is_refused(make: Any, k: int) -> None:
    params = GrassmannParams() if make is GrassmannSolver else AtlasdParams()
    with pytest.raises(InvalidInput) as caught:
        make(params, objective=point_task(waves), k=k, epochs=1, seed=0)
    assert caught.value.field == "algebra.k"


def solver_of(kind: str, seed: int = 0, epochs: int = 3) -> Any:
    objective = point_task(norm_in(torch.eye(3)), n=3, samples=64)
    if kind == "paper":
        return AtlasdSolver(
            AtlasdParams(learning_rate=0.02), objective=objective, k=2, epochs=epochs, seed=seed
        )
    if kind == "grassmann, by distance":
        objective = point_task(classes(torch.eye(3)), n=3, loss="cross_entropy", samples=64)
        params = GrassmannParams(steps=5, compare="distance")
        return GrassmannSolver(params, objective=objective, k=2, epochs=epochs, seed=seed)
    return GrassmannSolver(
        GrassmannParams(steps=5, optimiser="auto" if kind == "auto" else "adam"),
        objective=objective,
        k=2,
        epochs=epochs,
        seed=seed,
    )


@pytest.mark.parametrize("kind", ["paper", "grassmann", "auto", "grassmann, by distance"])
@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_resumed_solver_is_the_undisturbed_one_bit_for_bit(kind: str, stop: int) -> None:
    whole, resumed = check_resuming(lambda: solver_of(kind), 3, stop)
    ours, theirs = whole.report(), resumed.report()
    assert torch.equal(ours.generators, theirs.generators)
    assert ours.relative_errors == theirs.relative_errors
    assert ours.start_losses == theirs.start_losses


@pytest.mark.parametrize("kind", ["paper", "grassmann"])
def test_the_seed_decides(kind: str) -> None:
    a, b, c = (advance(solver_of(kind, seed), 1).state()[0]["free"] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c, atol=1e-2)


@pytest.mark.parametrize("kind", ["paper", "grassmann"])
def test_state_that_does_not_fit_is_refused(kind: str) -> None:
    tensors, facts = advance(solver_of(kind), 1).state()
    bad = [
        ({k: v for k, v in tensors.items() if k != "free"}, facts),
        ({**tensors, "free": tensors["free"][..., :2]}, facts),
        ({**tensors, "adam.exp_avg": tensors["free"].double()}, facts),
        (tensors, {**facts, "kind": "other"}),
        (tensors, {"kind": facts["kind"]}),
    ]
    for state in bad:
        with pytest.raises(InvalidInput):
            solver_of(kind).load_state(*state)


def test_the_regulariser_is_the_published_formula() -> None:
    """METHOD 2.2 by hand for two generators with n = 2."""
    a = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[0.3, 0.0], [0.4, 0.0]])
    overlap = 0.6 * 2  # both scaled to a squared norm of n = 2: cosine · 2
    growth = (1.0 + 0.5) / 2  # the entry 3 counts as r2 = 1
    p = AtlasdParams(r1=0.7, r2=1.0, r3=0.2)
    assert float(regulariser(torch.stack([a, b]), p)) == pytest.approx(0.7 * overlap - 0.2 * growth)
    assert float(regulariser(torch.stack([a, -b]), p)) == pytest.approx(
        0.7 * overlap - 0.2 * growth
    )
    three = torch.stack([a, b, torch.tensor([[0.0, 2.0], [0.0, 0.0]])])
    assert float(regulariser(three, p)) == pytest.approx(0.7 * overlap - 0.2 * (1 + 0.5 + 1) / 3)
    higher = AtlasdParams(r1=0.7, r2=2.0, r3=0.2)
    assert float(regulariser(three, higher)) == pytest.approx(
        0.7 * overlap - 0.2 * (2 + 0.5 + 2) / 3
    )
    assert float(regulariser(a[None], p)) == pytest.approx(-0.2)


def test_the_standard_basis_counts_overlapping_supports() -> None:
    """Orthogonal with the same support: free of charge, unless absolute entries are compared."""
    pair = torch.stack(
        [torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, -1.0], [0.0, 0.0]])]
    )
    plain, standard = (
        regulariser(pair, AtlasdParams(r1=1.0, r3=0.0, standard_basis=s)) for s in (False, True)
    )
    assert float(plain) == pytest.approx(0.0, abs=1e-6)
    assert float(standard) == pytest.approx(2.0)
    apart = torch.stack(
        [torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 5.0]])]
    )
    assert float(
        regulariser(apart, AtlasdParams(r1=1.0, r3=0.0, standard_basis=True))
    ) == pytest.approx(0.0)


def atlasd(
    objective: EquivarianceObjective, k: int, epochs: int = 8, **params: Any
) -> AlgebraReport:
    solver = AtlasdSolver(
        AtlasdParams(**{"learning_rate": 0.02, "evaluation": 256, "batch_size": 16, **params}),
        objective=objective,
        k=k,
        epochs=epochs,
        seed=0,
    )
    report: AlgebraReport = advance(solver, epochs).report()
    return report


@pytest.mark.parametrize(
    ("truth", "metric"), [(J, EYE), (CONJUGATED, torch.linalg.inv(STRETCH @ STRETCH.T))]
)
def test_the_paper_solver_finds_a_rotation(truth: Tensor, metric: Tensor) -> None:
    # The weight of the growth must fit the loss: these outputs have a standard deviation of 0.28.
    report = atlasd(point_task(norm_in(metric)), k=1, r3=0.05)
    assert degrees(report, truth[None]) < 1.5
    assert report.symmetry_count == 1
    # Grown by the regulariser, not normalised: entries are rewarded up to r2 = 1.
    assert float(report.generators[0].norm()) > 1.0


def test_the_paper_solver_with_a_standard_basis_separates_two_generators() -> None:
    """C* acts on the plane; without the flag any frame of its algebra would do."""
    report = atlasd(point_task(complex_line, out="point"), k=2, standard_basis=True, r1=0.3)
    assert degrees(report, torch.stack([J, EYE])) < 4
    a, b = (g / g.norm() for g in report.generators)
    assert float((a.abs() * b.abs()).sum()) < 0.25
    assert report.symmetry_count == 2


def test_the_paper_solver_reports_no_symmetry_as_none() -> None:
    report = atlasd(point_task(waves), k=1)
    assert report.symmetry_count == 0


def test_divergence_is_said_and_not_reported() -> None:
    solver = AtlasdSolver(
        AtlasdParams(learning_rate=1e30), objective=point_task(waves), k=1, epochs=2, seed=0
    )
    with pytest.raises(Diverged):
        advance(solver, 2)


def test_metrics_are_finite_and_steps_are_told_once_each() -> None:
    for kind in ("paper", "grassmann"):
        told: list[tuple[int, int]] = []
        solver = solver_of(kind)
        metrics = solver.run_epoch(lambda i, n, _, told=told: told.append((i, n)))
        assert told == [(i + 1, len(told)) for i in range(len(told))]
        assert all(math.isfinite(v) for v in metrics.values())


def test_true_targets_may_take_the_place_of_predictions() -> None:
    x = torch.randn(512, 1, 2, generator=torch.Generator().manual_seed(0))
    norm = x.square().sum(2, keepdim=True)

    def objective(targets: Tensor | None, loss: LossKind = "l1") -> EquivarianceObjective:
        def f(x: Tensor, _: Tensor | None) -> Tensor:
            size = x.square().sum((-1, -2))[..., None]  # [B, 1, 1]
            return size if loss == "l1" else torch.cat([-size, size - 2], -1)

        return EquivarianceObjective(
            VectorInputs(x),
            VectorAction(2),
            lambda: f,
            loss,
            targets=None if targets is None else lambda: VectorInputs(targets),
        )

    exact = objective(norm[:, 0])
    same, against = (solve(exact, against=how).generators for how in ("prediction", "targets"))
    assert torch.allclose(same, against, atol=1e-4)
    # Other targets lead elsewhere: here nothing but the identity brings x to y.
    moved = exact.against_targets().batch(torch.arange(4))
    assert torch.equal(moved.reference[:, 0], norm[:4, 0])
    labels = (norm > 1)[:, 0].float()
    classes = objective(labels, "cross_entropy").against_targets().batch(torch.arange(9))
    assert torch.equal(classes.reference[:, 0, 1], labels[:9, 0])
    assert torch.equal(classes.reference.sum(2), torch.ones(9, 1))
    with pytest.raises(InvalidInput, match="no targets"):
        solve(objective(None), against="targets")
    with pytest.raises(InvalidInput, match="no effect"):
        solve(exact, against="targets", start="spectral", steps=0)
