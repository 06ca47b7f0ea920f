"""The Lie algebra in closed form, the number of generators, and their sparse basis."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import Diverged, InvalidInput
from atlas_worker.solvers.atlasd import AtlasdParams, AtlasdSolver
from atlas_worker.solvers.grassmann import GrassmannParams, GrassmannSolver
from atlas_worker.symmetry import EquivarianceObjective, LossKind, lie
from atlas_worker.symmetry.spectral import FLOOR, Spectrum, count, gaps, linearised_spectrum
from atlas_worker.symmetry.vectors import VectorAction, VectorInputs

from .resume_check import advance, check_resuming
from .tasks import STRETCH, J, complex_line, point_task
from .test_vectors import ETA, LORENTZ, TURNS, elementary

Function = Callable[[Tensor], Tensor]
EYE = torch.eye(2)
CONJUGATED = STRETCH @ J @ torch.linalg.inv(STRETCH)


def task_of(
    f: Function,
    n: int,
    samples: int = 512,
    seed: int = 0,
    vectors: bool = False,
    loss: LossKind = "l1",
) -> EquivarianceObjective:
    """``f: [..., n] -> [..., outputs]`` on normal points; with ``vectors`` outputs are points."""
    x = torch.randn(samples, 1, 1, n, generator=torch.Generator().manual_seed(seed))[:, :, 0]
    action = VectorAction(n, vectors)

    def g(x: Tensor, _: Tensor | None) -> Tensor:
        return f(x) if vectors else f(x[..., 0, :])

    return EquivarianceObjective(VectorInputs(x), action, lambda: g, loss)


def by_differences(task: EquivarianceObjective) -> EquivarianceObjective:
    """The same, as if its predictor had no gradients that could be trusted."""
    task.foreign = True
    return task


@pytest.mark.parametrize("vectors", [False, True])
def test_responses_by_gradients_are_those_by_differences(vectors: bool) -> None:
    weights = torch.randn(3, 3 if vectors else 1, generator=torch.Generator().manual_seed(5))

    def f(x: Tensor) -> Tensor:
        return torch.tanh(x @ weights.to(x)) + (x @ weights.to(x)) ** 2

    directions = lie.frame(torch.randn(9, 3, 3, generator=torch.Generator().manual_seed(6)))
    every = torch.arange(64)
    exact, rough = (
        make(task_of(f, 3, vectors=vectors)).response(every, directions, 1e-5)
        for make in (lambda task: task, by_differences)
    )
    assert exact.shape == rough.shape == (9, 64, 3 if vectors else 1)
    assert float((exact - rough).abs().max()) < 1e-6 * float(rough.abs().max())
    assert not torch.equal(exact, rough)


def test_gradients_that_are_wrong_at_zeros_do_not_count() -> None:
    # Of sign and abs the slope is told to be 0 at 0, where this function has the slope 1.
    def f(x: Tensor) -> Tensor:
        return (x.sign() * x.abs().log1p()).sum(-1, keepdim=True)

    task = task_of(f, 3)
    flat = VectorInputs(task._inputs.draw(torch.arange(64), None)[:, 0] * torch.tensor([1, 1, 0.0]))
    task._inputs = flat
    found, expected = (
        t.response(torch.arange(64), lie.frame(torch.eye(9).view(9, 3, 3)), 1e-5)
        for t in (task, by_differences(copy.copy(task)))
    )
    assert torch.equal(found, expected)
    assert float(found[6].abs().max()) > 0.1  # of the third component along the first


def form(metric: Tensor) -> Function:
    return lambda x: torch.tanh((x * (x @ metric.to(x))).sum(-1, keepdim=True) / 3)


def direction(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def turned(x: Tensor) -> Tensor:
    return x @ torch.tensor([[2.0, 1.0], [-1.0, 2.0]]).to(x)


def square(x: Tensor) -> Tensor:
    return x.abs().sum(-1, keepdim=True)


def random_network(seed: int, n: int, width: int = 16) -> Function:
    g = torch.Generator().manual_seed(seed)
    w, b = torch.randn(n, width, generator=g), torch.randn(width, generator=g)
    out = torch.randn(width, 2, generator=g)
    return lambda x: torch.tanh(x @ w.to(x) + b.to(x)) @ out.to(x)


# Functions, and the algebra of their symmetries.
KNOWN: dict[str, tuple[Callable[[], EquivarianceObjective], Tensor]] = {
    "so(2)": (lambda: task_of(form(EYE), 2), J[None]),
    "so(2), stretched": (
        lambda: task_of(form(torch.linalg.inv(STRETCH @ STRETCH.T)), 2),
        CONJUGATED[None],
    ),
    "so(1,1)": (
        lambda: task_of(form(torch.diag(torch.tensor([1.0, -1.0]))), 2),
        elementary(2, 0, 1, 1)[None],
    ),
    "scaling": (lambda: task_of(direction, 2), EYE[None]),
    "scaling in R^3": (lambda: task_of(direction, 3), torch.eye(3)[None]),
    "C*, of vectors": (lambda: task_of(turned, 2, vectors=True), torch.stack([J, EYE])),
    "so(3)": (lambda: task_of(form(torch.eye(3)), 3), TURNS),
    "so(1,3)": (lambda: task_of(form(ETA), 4), LORENTZ),
    "so(3), of a classifier": (
        lambda: task_of(
            lambda x: torch.cat([form(torch.eye(3))(x), 0 * x[..., :1]], -1),
            3,
            loss="cross_entropy",
        ),
        TURNS,
    ),
    "translations along y": (
        lambda: task_of(lambda x: torch.sin(x[..., :1]), 2),
        torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]),
    ),
}


def apart(a: Tensor, b: Tensor) -> float:
    """Largest principal angle between spans of the same dimension."""
    assert len(a) == len(b)
    return float(lie.principal_angles(a.double(), b.double()).max())


@pytest.mark.parametrize("name", KNOWN)
def test_known_algebras_are_the_null_space(name: str) -> None:
    make, truth = KNOWN[name]
    spectrum = linearised_spectrum(make(), 256, 0)
    k = len(truth)
    assert apart(spectrum.directions[:k], truth) < 1e-3
    assert float(spectrum.errors[:k].max()) < 1e-6 * spectrum.typical
    assert float(spectrum.errors[k]) > 0.05 * spectrum.typical
    # An orthonormal basis of gl(n), ascending.
    flat = spectrum.directions.flatten(1)
    assert (flat @ flat.T - torch.eye(len(flat))).abs().max() < 1e-5
    assert spectrum.errors.tolist() == sorted(spectrum.errors.tolist())


def test_errors_are_the_linearised_errors_along_the_directions() -> None:
    """Against finite but small matrices, applied by hand."""
    f, t = random_network(3, 2), 1e-4
    objective = task_of(f, 2, samples=200)
    spectrum = linearised_spectrum(objective, 200, 0, weighted=False)
    x = objective.batch(torch.arange(200)).x[:, 0, 0].double()
    for e, error in zip(spectrum.directions.double(), spectrum.errors, strict=True):
        moved = (f(x @ torch.matrix_exp(t * e).T) - f(x)) / t
        assert float(moved.square().mean().sqrt()) == pytest.approx(float(error), rel=0.01)
    assert spectrum.typical == pytest.approx(math.sqrt(float(spectrum.errors.square().mean())))


def test_the_algebra_moves_with_the_coordinates() -> None:
    a = torch.randn(3, 3, generator=torch.Generator().manual_seed(4))
    spectrum = linearised_spectrum(
        task_of(lambda x: form(torch.eye(3))(x @ torch.linalg.inv(a).T.to(x)), 3), 256, 0
    )
    assert apart(spectrum.directions[:3], a @ TURNS @ torch.linalg.inv(a)) < 1e-2


def test_principal_directions_within_a_span() -> None:
    spectrum = linearised_spectrum(task_of(form(torch.eye(3)), 3), 256, 0)
    symmetric = torch.eye(3)
    frame = lie.frame(
        torch.stack([TURNS[0] + symmetric, TURNS[0] - 2 * symmetric, elementary(3, 0, 2, 1)])
    )
    within = spectrum.within(frame)
    assert within.shape == (3, 3, 3)
    assert apart(within, frame) < 1e-3
    assert apart(within[:1], TURNS[:1]) < 1e-3
    flat = within.flatten(1)
    assert (flat @ flat.T - torch.eye(3)).abs().max() < 1e-5
    assert spectrum.within(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


def test_a_function_that_is_not_finite_is_said() -> None:
    with pytest.raises(Diverged):
        linearised_spectrum(task_of(lambda x: x[..., :1].log(), 2), 64, 0)


# How many


def spectrum_of(*errors: float) -> Spectrum:
    n = math.isqrt(len(errors))
    return Spectrum(
        torch.eye(n * n).unflatten(1, (n, n)), torch.tensor(errors, dtype=torch.float64)
    )


def test_gaps_are_factors_between_neighbours() -> None:
    g = gaps(spectrum_of(1.0, 2.0, 8.0, 8.0))
    assert g.tolist() == pytest.approx([1, 2, 4, 1, 1])
    # Differences among what is as good as zero are no gaps.
    spectrum = spectrum_of(0.0, 1e-12, 1e-7, 2.0)
    assert gaps(spectrum).tolist() == pytest.approx([1, 1, 1, 1 / (FLOOR * 0.5), 1])


@pytest.mark.parametrize(
    ("errors", "relative", "k"),
    [
        ((0.01, 1, 1, 1), (0.01, 0.8, 0.8, 0.8), 1),
        (
            (0.01, 0.1, 1, 1),
            (0.01, 0.05, 0.8, 0.8),
            1,
        ),  # both small, the first gap as large: the first of equals
        ((0.01, 0.02, 1, 1), (0.01, 0.02, 0.8, 0.8), 2),
        ((0.01, 0.02, 1, 1), (0.01, 0.2, 0.8, 0.8), 1),  # the second is no symmetry at finite size
        ((0.01, 0.015, 1, 1), (0.01, 0.2, 0.8, 0.8), 0),  # nor does a gap come before it
        ((0.01, 1, 1, 1), (0.2, 0.8, 0.8, 0.8), 0),
        ((0.8, 1, 1, 1), (0.1, 0.8, 0.8, 0.8), 0),  # no gap
        ((0.01, 1, 1, 1), (0.3, 0.01, 0.01, 0.01), 0),  # small, but not from the least on
        ((1, 1, 1, 1), (0.1, 0.1, 0.1, 0.1), 4),
        ((0, 0, 0, 0), (0, 0, 0, 0), 4),
    ],
)
def test_counting(errors: tuple[float, ...], relative: tuple[float, ...], k: int) -> None:
    got, reason = count(spectrum_of(*errors), torch.tensor(relative), 0.15, 2.0)
    assert got == k
    assert reason
    assert "\n" not in reason


def test_a_verdict_and_its_number_speak_of_one_direction() -> None:
    for relative, number, least in [
        ((0.2, 0.8, 0.8, 0.8), "0.200", ""),
        ((0.3, 0.032, 1, 1), "0.300", "0.032"),
    ]:
        got, reason = count(spectrum_of(0.01, 1, 1, 1), torch.tensor(relative), 0.15, 2.0)
        assert got == 0
        assert number in reason
        assert least in reason
        assert ("no direction" in reason) == (min(relative) > 0.15)


def test_zero_derivatives_are_no_symmetries_where_the_prediction_moves() -> None:
    errors, relative = spectrum_of(0, 0, 0, 0), torch.tensor([0.1, 0.1, 0.1, 0.1])
    assert count(errors, relative, 0.15, 2.0, moved=True)[0] == 0
    assert count(errors, relative, 0.15, 2.0, moved=False)[0] == 4


def auto(
    objective: EquivarianceObjective, seed: int = 0, epochs: int = 1, **params: Any
) -> GrassmannSolver:
    """k = 0: the number of generators is to be found."""
    recipe = {"steps": 0, "start": "spectral", "batch_size": 64, "evaluation": 64, **params}
    return GrassmannSolver(
        GrassmannParams(**recipe), objective=objective, k=0, epochs=epochs, seed=seed
    )


@pytest.mark.parametrize("name", KNOWN)
def test_the_number_of_generators_is_found(name: str) -> None:
    make, truth = KNOWN[name]
    report = advance(auto(make())).report()
    assert report.generators.shape == truth.shape
    assert report.symmetry_count == len(truth)
    assert apart(report.generators, truth) < 2e-3
    assert max(report.relative_errors) < 0.01
    assert f"after the first {len(truth)}" in report.explanation
    n = truth.shape[-1]
    assert len(report.spectrum) == n * n


def test_a_constant_has_all_of_gl() -> None:
    report = advance(auto(task_of(lambda x: 0 * x[..., :1] + 2, 3))).report()
    assert report.symmetry_count == len(report.generators) == 9


@pytest.mark.parametrize("n", [2, 3])
def test_functions_without_symmetry_have_no_generator(n: int) -> None:
    """Measured on 4 widths of 48 seeds in each dimension: 2 of 384 wrong, both with width 4."""
    wrong = 0
    for seed in range(12):
        for width in (4, 16):
            solver = auto(task_of(random_network(seed, n, width), n, seed=seed), seed)
            wrong += advance(solver).report().symmetry_count > 0
    assert wrong <= 1


@pytest.mark.parametrize("f", [square, random_network(0, 2)])
def test_without_a_symmetry_the_best_direction_is_left_to_be_judged(f: Function) -> None:
    solver = auto(task_of(f, 2))
    assert solver.run_epoch(lambda *_: None)["generators"] == 1
    report = solver.report()
    assert report.generators.shape == (1, 2, 2)
    assert report.symmetry_count == 0
    assert "no direction has a relative" in report.explanation
    assert re.search(r"\(best found: [\d.]+; other directions: [\d.]+ to", report.explanation)
    assert len(report.spectrum) == 4
    assert min(s.relative_error for s in report.spectrum) > 0.15


def noisy(f: Function, size: float) -> Function:
    """Off by a smooth function of standard deviation ``size``."""
    g = torch.Generator().manual_seed(0)
    w = 0.7 * torch.randn(3, 4, generator=g)
    return lambda x: f(x) + size * torch.sin(x @ w.to(x) + 1).sum(-1, keepdim=True) / 2**0.5


@pytest.mark.parametrize(("start", "size"), [("random", 0.0), ("random", 0.02), ("spectral", 0.02)])
def test_descent_goes_on_from_what_was_counted(start: str, size: float) -> None:
    f = noisy(form(torch.eye(3)), size)
    report = advance(auto(task_of(f, 3), epochs=3, start=start, steps=60), 3).report()
    assert report.symmetry_count == len(report.generators) == 3
    assert apart(report.generators, TURNS) < 0.2
    assert max(report.relative_errors) < 0.15


def test_a_spectral_start_for_a_given_number() -> None:
    params = GrassmannParams(steps=0, start="spectral", evaluation=64)
    solver = GrassmannSolver(params, objective=task_of(form(EYE), 2), k=2, epochs=1, seed=0)
    report = advance(solver).report()
    assert report.generators.shape == (2, 2, 2)
    assert report.symmetry_count == 1
    assert apart(report.generators[:1], J[None]) < 0.05


@pytest.mark.parametrize("start", ["spectral", "random"])
@pytest.mark.parametrize("f", [form(torch.eye(3)), random_network(0, 3)], ids=["so(3)", "none"])
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_resumed_it_is_the_undisturbed_one_bit_for_bit(f: Function, start: str, stop: int) -> None:
    def make() -> GrassmannSolver:
        return auto(task_of(f, 3, samples=128), epochs=2, start=start, steps=3, starts=4)

    whole, resumed = check_resuming(make, 2, stop)
    ours, theirs = whole.report(), resumed.report()
    assert torch.equal(ours.generators, theirs.generators)
    assert (ours.explanation, ours.symmetry_count, ours.relative_errors) == (
        theirs.explanation,
        theirs.symmetry_count,
        theirs.relative_errors,
    )
    assert [s.loss for s in ours.spectrum] == [s.loss for s in theirs.spectrum]


def test_state_that_does_not_fit_is_refused() -> None:
    objective = task_of(form(EYE), 2)
    tensors, facts = advance(auto(objective)).state()
    for bad in (
        {},
        {**tensors, "free": tensors["free"][0]},
        {**tensors, "free": torch.zeros(1, 1, 3, 3)},
    ):
        with pytest.raises(InvalidInput):
            auto(objective).load_state(bad, facts)


def test_only_the_grassmann_solver_finds_the_number() -> None:
    with pytest.raises(InvalidInput) as caught:
        AtlasdSolver(AtlasdParams(), objective=task_of(form(EYE), 2), k=0, epochs=1, seed=0)
    assert caught.value.field == "algebra.k"


# The sparse basis


def mixture(basis: Tensor, rows: int, seed: int = 0) -> Tensor:
    """Random combinations. ``len(basis)`` rows or fewer are well-conditioned ones."""
    g = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(max(rows, len(basis)), len(basis), generator=g))
    return torch.einsum("ab,bij->aij", q[:rows] * (0.5 + torch.rand(rows, 1, generator=g)), basis)


def overlaps(basis: Tensor) -> Tensor:
    """Of absolute entries, of every pair."""
    flat = (basis / basis.flatten(1).norm(dim=1)[:, None, None]).flatten(1).abs()
    return (flat @ flat.T).triu(1)


def pivots(basis: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether every member has an entry that all others lack."""
    flat = basis.flatten(1).abs()
    alone = (flat > tolerance) & ((flat > tolerance).sum(0) == 1)
    return bool(alone.any(1).all())


@pytest.mark.parametrize("seed", range(6))
def test_the_standard_basis_is_recovered_from_any_mixture(seed: int) -> None:
    for truth in (LORENTZ, TURNS, torch.cat([LORENTZ, torch.eye(4)[None] / 2])):
        found = lie.sparse_basis(mixture(truth, len(truth), seed))
        assert found.shape == truth.shape
        cosines = (found.flatten(1) @ truth.flatten(1).T).abs()
        assert (cosines.max(0).values > 1 - 1e-5).all()
        assert (cosines.max(1).values > 1 - 1e-5).all()
        assert overlaps(found).max() < 1e-4


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("k", "n"), [(1, 2), (2, 2), (4, 2), (3, 3), (7, 4)])
def test_any_span_is_kept_without_duplicates(seed: int, k: int, n: int) -> None:
    g = torch.Generator().manual_seed(seed)
    # The least singular value stays far from the tolerance, below which members are duplicates.
    basis = lie.frame(torch.randn(k, n, n, generator=g)) * (0.3 + torch.rand(k, 1, 1, generator=g))
    found = lie.sparse_basis(basis)
    assert found.shape == (k, n, n)
    assert apart(found, basis) < 2e-3
    assert torch.allclose(found.flatten(1).norm(dim=1), torch.ones(k), atol=1e-5)
    assert pivots(found)
    again = lie.sparse_basis(found)
    assert overlaps(again).max() < overlaps(found).max() + 0.5, "stable"
    # More of the same adds nothing.
    more = lie.sparse_basis(torch.cat([basis, mixture(basis, 3, seed), -5 * basis]))
    assert more.shape == (k, n, n)
    assert apart(more, basis) < 2e-3


def test_nothing_has_an_empty_basis() -> None:
    assert lie.sparse_basis(torch.zeros(0, 3, 3)).shape == (0, 3, 3)
    assert lie.sparse_basis(torch.zeros(2, 3, 3)).shape == (0, 3, 3)


def test_almost_the_same_is_the_same() -> None:
    noise = 0.003 * torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert len(lie.sparse_basis(torch.cat([TURNS, TURNS[:2] + noise]))) == 3


def test_both_solvers_report_disjoint_generators_of_the_same_span() -> None:
    plain, standard = (
        advance(auto(task_of(form(ETA), 4), standard_basis=s)).report().generators
        for s in (False, True)
    )
    assert apart(plain, standard) < 2e-3
    assert overlaps(standard).max() < 0.05 < overlaps(plain).max()
    assert (standard.flatten(1) @ LORENTZ.flatten(1).T).abs().max(0).values.min() > 0.999

    def paper(standard: bool) -> Tensor:
        params = AtlasdParams(learning_rate=0.02, r1=0.3, evaluation=64, standard_basis=standard)
        solver = AtlasdSolver(
            params, objective=point_task(complex_line, out="point"), k=2, epochs=6, seed=0
        )
        return advance(solver, 6).report().generators

    standard = paper(True)
    assert apart(standard, torch.stack([J, EYE])) < 0.07
    assert overlaps(standard).max() < 0.05
    assert pivots(standard)
