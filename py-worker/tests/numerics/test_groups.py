"""Searches in a subspace of gl(n): affine groups, products of groups, and given algebras."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.interfaces import AlgebraReport, CosetReport
from atlas_worker.solvers.atlasd import AtlasdParams, AtlasdSolver
from atlas_worker.solvers.grassmann import GrassmannParams, GrassmannSolver
from atlas_worker.solvers.multistart import MultistartParams, MultistartSolver
from atlas_worker.symmetry import (
    Ambient,
    EquivarianceObjective,
    Factor,
    FieldInputs,
    PlanarAction,
    Space,
    VectorInputs,
    VectorSpace,
    action_on,
    lie,
    space_of,
)
from atlas_worker.symmetry.components import same_component
from atlas_worker.symmetry.features import FeatureType, dimensions, parse_dimensions
from atlas_worker.symmetry.manifold import make_planar, make_vectors
from atlas_worker.symmetry.normaliser import defect, restricted_starts

from .resume_check import check_resuming
from .tasks import J, laplacian, norm_in, point_task, smooth_fields

ETA = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
MIXED = torch.tensor([[1.0, 0.4, 0.0], [0.0, 1.5, 0.3], [0.2, 0.0, 1.0]])


def embed(matrix: Tensor, at: int, size: int) -> Tensor:
    """A matrix as a block of a larger one."""
    whole = torch.zeros(size, size)
    whole[at : at + len(matrix), at : at + len(matrix)] = matrix
    return whole


def turns(n: int, at: int = 0, size: int | None = None) -> list[Tensor]:
    """The rotations of n of ``size`` coordinates."""
    found = []
    for i in range(n):
        for j in range(i):
            b = torch.zeros(n, n)
            b[i, j], b[j, i] = 1, -1
            found.append(embed(b, at, size or n))
    return found


def translations(n: int) -> list[Tensor]:
    units = torch.zeros(n, n + 1, n + 1)
    units[torch.arange(n), torch.arange(n), n] = 1
    return list(units)


def distances(x: Tensor) -> Tensor:
    """All distances between the points ``[..., m, n]``: ``[..., m (m - 1) / 2]``."""
    i, j = torch.triu_indices(x.shape[-2], x.shape[-2], 1)
    squares: Tensor = (x[..., i, :] - x[..., j, :]).square().sum(-1)
    return (squares + 1e-9).sqrt()


def task(
    f: Callable[[Tensor], Tensor], x: Tensor, group: Tensor | None = None, **types: Any
) -> EquivarianceObjective:
    """A function of typed sets ``x [N, m, features]``, with invariant outputs unless typed."""
    atlas = make_vectors(VectorSpace(0, features=x.shape[-1], **types))
    data: Any = SimpleNamespace(inputs=x, targets=torch.zeros(len(x), 1), outputs=1)
    return EquivarianceObjective(
        VectorInputs(x),
        action_on(atlas),
        lambda: lambda x, _: f(x),
        space=space_of(atlas, data, group),
    )


def samples(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("unit", [5.0, 1e2, 1e4])
def test_units_of_components_make_no_difference(unit: float) -> None:
    """Rotations of (x, y) are those of (x in other units, y), and look like shears there."""
    units = torch.tensor([unit, 1.0, 1.0])

    def f(x: Tensor) -> Tensor:
        return (x / units).square().sum(-1).mean(-1, keepdim=True)[..., None]

    it = task(f, units * samples(256, 1, 3))
    assert it.space.coordinates is not None
    report = found(it)
    assert len(report.generators) == 3
    scaled = report.generators.double() * units / units[:, None]
    assert float((scaled + scaled.mT).norm()) < 0.02 * float(scaled.norm())


def test_components_of_about_one_size_keep_their_units() -> None:
    x = torch.tensor([2.5, 1.0, 0.0]) * samples(64, 1, 3)
    assert task(lambda x: x.sum((-1, -2))[..., None, None], x).space.coordinates is None


def found(objective: EquivarianceObjective, seed: int = 0, **params: Any) -> AlgebraReport:
    """The algebra, with k from the spectrum."""
    recipe = {"batch_size": 64, "evaluation": 256, "start": "spectral", "steps": 0, **params}
    solver = GrassmannSolver(
        GrassmannParams(**recipe), objective=objective, k=0, epochs=1, seed=seed
    )
    solver.run_epoch(lambda *_: None)
    return solver.report()


def components(
    objective: EquivarianceObjective, basis: Tensor, seed: int = 0, **params: Any
) -> CosetReport:
    recipe = {"batch_size": 32, "evaluation": 128, "candidates": 24, "threshold": 0.05, **params}
    solver = MultistartSolver(
        MultistartParams(**recipe),
        objective=objective,
        identity_algebra=basis,
        epochs=2,
        seed=seed,
    )
    for _ in range(2):
        solver.run_epoch(lambda *_: None)
    return solver.report()


def degrees(space: Space, a: Tensor, b: Tensor | list[Tensor]) -> float:
    """The largest principal angle in the coordinates of a space; infinite for other dimensions."""
    b = torch.stack(list(b))
    if len(a) != len(b):
        return float("inf")
    angles = lie.principal_angles(space.inward(a.double()), space.inward(b.double()))
    return float(torch.rad2deg(angles).max())


# Spaces


def test_a_group_that_is_all_of_gl_changes_nothing() -> None:
    x = samples(256, 2, 3)
    plain, named = (
        found(task(about_an_axis, x, group)) for group in (None, samples(12, 3, 3, seed=5))
    )
    assert torch.equal(plain.generators, named.generators)
    assert plain.losses == named.losses
    assert plain.explanation == named.explanation
    assert plain.coordinates is None


@pytest.mark.parametrize(
    "ambient",
    [
        Ambient((Factor("", 2), Factor("b", 3))),
        Ambient((Factor("", 2, affine=True),)),
        Ambient((Factor("a", 2, affine=True), Factor("b", 2))),
    ],
    ids=str,
)
def test_frames_stay_in_their_space(ambient: Ambient) -> None:
    d = torch.eye(ambient.n, dtype=torch.float64)
    if ambient.factors[0].affine:
        d[:2, :3] = torch.tensor([[0.1, 0.0, -30.0], [0.0, 0.1, 50.0]])
    space = Space(ambient, d)
    assert space.dimension == ambient.dimension == int(ambient.mask().sum())
    frame = space.frame(space.draw(torch.Generator().manual_seed(0), 4, 3).double())
    space.check(frame[0])
    assert bool((frame.masked_fill(ambient.mask(), 0) == 0).all())
    flat = space.inward(frame[1]).flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(3, dtype=torch.float64), atol=1e-9)
    whole = space.inward(torch.cat([frame[1], space.complement(frame[1])])).flatten(1)
    assert torch.allclose(whole @ whole.T, torch.eye(len(whole), dtype=torch.float64), atol=1e-9)
    assert torch.allclose(space.lift(space.free(frame)), frame, atol=1e-9)
    g = space.outward(ambient.normalise(samples(5, ambient.n, ambient.n).double()))
    product = g[0] @ g[1]
    assert torch.allclose(
        product.masked_fill(ambient.mask(), 0), g[0].masked_fill(ambient.mask(), 0)
    )


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (torch.zeros(0, 3, 3), "empty"),
        (torch.zeros(2, 3, 3), "empty"),
        (torch.eye(3)[None], "not in gl(1) ⊕ gl(2)"),
    ],
)
def test_an_algebra_that_cannot_be_searched_is_refused(group: Tensor, words: str) -> None:
    ambient = Ambient((Factor("a", 1), Factor("b", 2)))
    if words.startswith("not"):
        group = group.flip(1)
    with pytest.raises(InvalidInput) as error:
        Space(ambient, None, group, "algebra.group_algebra")
    assert words in str(error.value)
    assert error.value.field == "algebra.group_algebra"


def test_k_is_at_most_the_dimension_of_the_group() -> None:
    objective = task(norm_in(torch.eye(3)), samples(64, 1, 3), torch.stack(turns(3)))
    for make in (
        lambda k: GrassmannSolver(GrassmannParams(), objective=objective, k=k, epochs=1, seed=0),
        lambda k: AtlasdSolver(AtlasdParams(), objective=objective, k=k, epochs=1, seed=0),
    ):
        make(3)
        with pytest.raises(InvalidInput) as error:
            make(4)
        assert error.value.field == "algebra.k"


# Given algebras


def about_an_axis(x: Tensor) -> Tensor:
    """Invariant under rotations about the third axis."""
    return torch.tanh(
        torch.stack([x[..., :2].square().sum((-2, -1)), x[..., 2].square().sum(-1)], -1)
    )


def test_a_search_in_so3_finds_what_is_left_of_it() -> None:
    objective = task(about_an_axis, samples(256, 2, 3), torch.stack(turns(3)))
    report = found(objective)
    assert degrees(objective.space, report.generators, turns(2, size=3)) < 0.1
    assert len(report.spectrum) == 3
    kept = components(objective, report.generators).matrices
    # Reflections of the axis and across planes through it; all are orthogonal.
    assert len(kept) == 4
    assert float((kept.mT @ kept - torch.eye(3)).abs().max()) < 1e-3


def test_an_imperfect_predictor_has_the_symmetries_that_alone_are_sought() -> None:
    """Inside of so(3) nothing moves. What moves elsewhere is what errors are compared with."""

    def f(x: Tensor) -> Tensor:
        waves = torch.sin(2 * x @ samples(3, 1, seed=4).to(x))
        return (norm_in(torch.eye(3).to(x))(x) + 0.01 * waves)[..., 0, :]

    report = found(task(f, samples(512, 1, 3), torch.stack(turns(3))))
    assert len(report.generators) == report.symmetry_count == 3


@pytest.mark.parametrize("precondition", [False, True])
def test_components_stay_in_the_normaliser_of_the_group(precondition: bool) -> None:
    metric = MIXED.T @ ETA @ MIXED
    boosts = [torch.linalg.inv(MIXED) @ (ETA @ b) @ MIXED for b in turns(3)]

    def f(x: Tensor) -> Tensor:
        return norm_in(metric.to(x))(x)[..., 0, :]

    objective = task(f, samples(256, 1, 3), torch.stack(boosts))
    report = found(objective)
    assert degrees(objective.space, report.generators, boosts) < 0.1
    kept = components(objective, report.generators, precondition=precondition).matrices
    assert len(kept) == 4
    assert float((kept.mT @ metric @ kept - metric).abs().max()) < 0.02


@pytest.mark.parametrize("seed", range(2))
def test_starts_are_in_the_normaliser(seed: int) -> None:
    space = Space(Ambient.linear(3), None, torch.stack(turns(3)))
    starts = restricted_starts(space, samples(16, 3, 3, seed=seed), torch.stack(turns(2, size=3)))
    assert float((starts.mT @ starts - torch.eye(3)).abs().max()) < 1e-4
    assert (
        float(defect(starts.double(), lie.frame(torch.stack(turns(2, size=3)).double())).max())
        < 0.05
    )
    assert space.normaliser().shape[0] == 3
    assert space.normaliser(traceless=False).shape[0] == 4
    scalings = Space(Ambient.linear(2), None, torch.eye(2)[None])
    assert scalings.normaliser().shape[0] == 3


def test_atlasd_searches_in_the_group_too() -> None:
    objective = point_task(norm_in(torch.eye(2)))
    objective = EquivarianceObjective(
        objective._inputs,
        objective._action,
        objective._freeze,
        space=Space(Ambient.linear(2), None, torch.stack([torch.eye(2), J])),
    )
    params = AtlasdParams(learning_rate=0.02, r3=0.1)
    solver = AtlasdSolver(params, objective=objective, k=1, epochs=3, seed=0)
    for _ in range(3):
        solver.run_epoch(lambda *_: None)
    report = solver.report()
    assert degrees(objective.space, report.generators, [J]) < 6


# Affine groups


@pytest.mark.parametrize(
    ("n", "centre", "spread", "mixed"),
    [(2, 0.0, 1.0, False), (2, 300.0, 5.0, True), (3, -20.0, 0.1, False)],
)
def test_distances_between_points_have_translations_and_rotations(
    n: int, centre: float, spread: float, mixed: bool
) -> None:
    """Wherever the points are, in whatever unit, and in coordinates that are not orthogonal."""
    a = MIXED[:n, :n] if mixed else torch.eye(n)
    x = spread * samples(512, 4, n) @ torch.linalg.inv(a).T + centre
    objective = task(lambda x: distances(x @ a.T.to(x)) / spread, x, inputs_as="X")
    rotations = [torch.linalg.inv(a) @ b @ a for b in turns(n)]
    truth = [embed(b, 0, n + 1) for b in rotations] + translations(n)
    report = found(objective)
    assert degrees(objective.space, report.generators, truth) < 0.1
    assert len(report.spectrum) == n * n + n
    kept = components(objective, report.generators).matrices
    assert sorted(torch.linalg.det(kept).sign().tolist()) == [-1, 1]


def test_velocities_are_not_translated() -> None:
    """Energy of masses on springs: rotations turn both, translations move the places alone."""
    x = samples(512, 3, 4)

    def f(x: Tensor) -> Tensor:
        speeds = x[..., 2:].square().sum((-2, -1))[..., None]
        return torch.tanh(torch.cat([distances(x[..., :2]), speeds], -1))

    objective = task(f, x, inputs_as="X+V")
    report = found(objective)
    assert degrees(objective.space, report.generators, [embed(J, 0, 3), *translations(2)]) < 0.1
    # Taken for points as well, velocities would have to be the same after a translation.
    assert len(found(task(f, x, inputs_as="2X")).generators) == 1


def test_a_centre_of_mass_moves_like_a_point() -> None:
    g = Ambient((Factor("", 2, affine=True),)).normalise(samples(6, 1, 3, 3).double())
    atlas = make_vectors(VectorSpace(0, inputs_as="X+S", targets_as="X+V", features=3))
    action = action_on(atlas)
    x, y = samples(6, 1, 5, 3).double(), samples(6, 1, 4, seed=1).double()
    moved = action.act_in(g, x)
    assert torch.allclose(moved[..., :2], x[..., :2] @ g[..., :2, :2].mT + g[..., None, :2, 2])
    assert torch.equal(moved[..., 2], x[..., 2])
    out = action.act_out(g, y)
    assert torch.allclose(out[..., :2], (g[..., :2, :2] @ y[..., :2, None])[..., 0] + g[..., :2, 2])
    assert torch.allclose(out[..., 2:], (g[..., :2, :2] @ y[..., 2:, None])[..., 0])
    h = g.roll(1, 0)
    assert torch.allclose(action.act_in(h, moved), action.act_in(h @ g, x))


def test_similarities_of_ratios_and_no_symmetry_of_a_network() -> None:
    x = 3 * samples(512, 4, 2) + 7

    def ratios(x: Tensor) -> Tensor:
        return distances(x) / distances(x).mean(-1, keepdim=True)

    objective = task(ratios, x, inputs_as="X")
    truth = [embed(J, 0, 3), embed(torch.eye(2), 0, 3), *translations(2)]
    assert degrees(objective.space, found(objective).generators, truth) < 0.1
    w, v = samples(8, 16, seed=2), samples(16, 3, seed=3)

    def network(x: Tensor) -> Tensor:
        return torch.tanh((x.flatten(-2) - 7) @ w.to(x) / 9) @ v.to(x)

    objective = task(network, x, inputs_as="X")
    assert found(objective).symmetry_count == 0
    assert len(components(objective, torch.zeros(0, 3, 3)).matrices) == 1


# Products


def apart(x: Tensor) -> Tensor:
    """Lengths of the first two and of the last three coordinates."""
    a, b = x[..., 0, :2].square().sum(-1), x[..., 0, 2:].square().sum(-1)
    return torch.tanh(torch.stack([a, b + a / 2], -1))


def test_two_groups_act_independently() -> None:
    objective = task(apart, samples(512, 1, 5), inputs_as="Va+Vb", dimensions="b=3")
    report = found(objective)
    truth = [*turns(2, size=5), *turns(3, 2, 5)]
    assert degrees(objective.space, report.generators, truth) < 0.1
    kept = components(objective, report.generators).matrices
    signs = objective.space.ambient.signs(kept).int().tolist()
    assert sorted(signs) == [[-1, -1], [-1, 1], [1, -1], [1, 1]]


def test_a_rotation_of_both_is_one_generator() -> None:

    def angle(x: Tensor) -> Tensor:
        a, b = x[..., 0, :2], x[..., 0, 2:]
        return torch.tanh(torch.stack([(a * b).sum(-1), a.norm(dim=-1)], -1))

    objective = task(angle, samples(512, 1, 4), inputs_as="Va+Vb")
    report = found(objective)
    assert degrees(objective.space, report.generators, [embed(J, 0, 4) + embed(J, 2, 4)]) < 0.1


def reaction(x: Tensor) -> Tensor:
    """A step of a λ-ω reaction with diffusion: it turns (u, v) by an angle that depends on r."""
    c = x[..., 1:-1, 1:-1]
    r = c.square().sum(-3, keepdim=True)
    turned = torch.stack([-c[..., 1, :, :], c[..., 0, :, :]], -3)
    return c / 2 + laplacian(x) * 3 + 0.5 * (1 - r) * c + 0.5 * r * turned


@pytest.mark.parametrize(
    ("f", "internal"), [(reaction, True), (lambda x: reaction(x) * ONE, False)]
)
def test_rotations_of_the_map_and_of_channels(
    f: Callable[[Tensor], Tensor], internal: bool
) -> None:
    fields = torch.cat([smooth_fields(48, 45, seed) for seed in (1, 2)], 1) / 2
    atlas = make_planar(
        PlanarAtlas(
            (Chart(20, 20), Chart(21, 24)),
            r_in=10,
            r_out=7,
            margin=6,
            inputs_as="Vb",
            targets_as="Vb",
            features=2,
        )
    )
    assert atlas.dimensions == "b=2"
    data: Any = SimpleNamespace(inputs=fields, targets=fields, outputs=2)
    plain = action_on(atlas, 1)
    assert isinstance(plain, PlanarAction)
    objective = EquivarianceObjective(
        FieldInputs(fields, atlas, halo=1),
        plain,
        lambda: lambda x, _: f(x),
        space=space_of(atlas, data),
    )
    solver = GrassmannSolver(GrassmannParams(), objective=objective, k=2, epochs=3, seed=0)
    for _ in range(3):
        solver.run_epoch(lambda *_: None)
    report = solver.report()
    truth = [embed(J, 0, 4), embed(J, 2, 4)]
    if internal:
        assert report.symmetry_count == 2
        assert degrees(objective.space, report.generators, truth) < 3
    else:
        assert report.symmetry_count == 1
        assert degrees(objective.space, report.generators[:1], truth[:1]) < 3


ONE = torch.tensor([1.0, 0.0])[:, None, None]
"""What keeps the first channel alone."""


def test_resumed_searches_are_the_undisturbed_ones_bit_for_bit() -> None:
    def make() -> GrassmannSolver:
        objective = task(apart, samples(64, 1, 5), inputs_as="Va+Vb", dimensions="a=2")
        params = GrassmannParams(steps=4, starts=3)
        return GrassmannSolver(params, objective=objective, k=0, epochs=2, seed=0)

    whole, resumed = check_resuming(make, 2, 1)
    assert torch.equal(whole.report().generators, resumed.report().generators)


def test_determinants_of_all_factors_tell_components_apart() -> None:
    ambient = Ambient((Factor("", 2), Factor("b", 4)))
    basis = torch.stack([embed(J, 0, 6), *turns(4, 2, 6)])
    both = torch.eye(6)
    both[1, 1] = both[5, 5] = -1
    turned = torch.matrix_exp(basis.sum(0))
    matrices = torch.stack([both, turned])
    assert same_component(basis, matrices, torch.eye(6), ambient) == [False, True]


def test_a_small_factor_is_not_drowned_by_a_large_one() -> None:
    none, quarter = torch.zeros(0, 10, 10), torch.eye(10)
    quarter[:2, :2] = J
    assert same_component(none, quarter[None], torch.eye(10)) == [True]
    ambient = Ambient((Factor("", 2), Factor("b", 8)))
    assert same_component(none, quarter[None], torch.eye(10), ambient) == [False]


# Types


@pytest.mark.parametrize(
    ("types", "known", "truth"),
    [
        ([("Va+Vb", 4)], {}, {"a": 2, "b": 2}),
        ([("Va+Vb", 5)], {"b": 3}, {"a": 2, "b": 3}),
        ([("V+S+Tb", 12)], {"": 2}, {"": 2, "b": 3}),
        ([("Va+2Vb", 7), ("Va", 3)], {}, {"a": 3, "b": 2}),
        ([("2Va", 2)], {}, {"a": 1}),
        ([("Xa+Va+Vb", 6)], {"a": 2}, {"a": 2, "b": 2}),
    ],
)
def test_dimensions_follow_from_the_features(
    types: list[tuple[str, int]], known: dict[str, int], truth: dict[str, int]
) -> None:
    assert dimensions([(FeatureType(t, 1), size) for t, size in types], known) == truth


@pytest.mark.parametrize(
    ("types", "known", "words"),
    [
        ([("Va+Vb", 5)], {}, "a=2,b=3 or a=3,b=2"),
        ([("Va+2Vb", 7)], {"a": 2}, "n_a + 2·n_b components, but the data have 7"),
        ([("Va", 0)], {}, "the dimension of the group a"),
        ([("Va", 2)], {"c": 2}, "the group c"),
        ([("2Va", 3)], {}, "but the data have 3"),
    ],
)
def test_dimensions_that_do_not_follow_are_refused(
    types: list[tuple[str, int]], known: dict[str, int], words: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        dimensions([(FeatureType(t, 1), size) for t, size in types], known)
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["a", "a=0", "a=2,a=3", "A=2", "a=2;b=3", "a=65"])
def test_a_text_without_dimensions_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_dimensions(text, "dimensions")


@pytest.mark.parametrize("text", ["Sa", "Vab", "Xn", "aV"])
def test_a_term_of_no_group_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        FeatureType(text, 2)


def test_types_of_several_groups_are_representations() -> None:
    ambient = Ambient((Factor("", 2), Factor("b", 3)))
    rho = FeatureType("V+Cb+S+Fb+Pb", 2, ambient=ambient)
    g = ambient.normalise(samples(2, 5, 5).double())
    assert rho.size == 2 + 3 + 1 + 9 + 1
    assert torch.allclose(rho(g[0]) @ rho(g[1]), rho(g[0] @ g[1]), atol=1e-9)
    assert float(rho(g[0])[-1, -1]) == float(torch.linalg.det(g[0][2:, 2:]).sign())
    with pytest.raises(InvalidInput) as error:
        rho.check(9)
    assert "2 (V) + 1·3 (Cb)" in str(error.value)


def test_channels_of_fields_are_no_points() -> None:
    with pytest.raises(InvalidInput) as error:
        make_planar(PlanarAtlas((Chart(8, 8),), 6, 4, inputs_as="X"))
    assert error.value.field == "atlas.action.params.inputs_as"
