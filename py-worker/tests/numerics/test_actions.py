"""Actions, chart inputs and the objective they pose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.resample import crop, transform
from atlas_worker.symmetry import (
    EquivarianceObjective,
    FieldInputs,
    PlanarAction,
    action_on,
    lie,
    max_batch,
)
from atlas_worker.symmetry.measure import draw_batch, measure, relative_errors

from .tasks import (
    J,
    PointAction,
    Points,
    field_task,
    laplacian,
    norm_in,
    point_task,
    smooth_fields,
    waves,
)

ATLAS = PlanarAtlas((Chart(10, 12), Chart(15, 9)), r_in=5, r_out=3, margin=2)


def same(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    return matrix.expand(*shape, *matrix.shape)


def test_the_loss_is_zero_for_an_exact_symmetry_and_not_otherwise() -> None:
    invariant, other = point_task(norm_in(torch.eye(2))), point_task(waves)
    g = lie.expm(torch.linspace(-3, 3, 16)[:, None, None, None] * J)
    for objective, small in ((invariant, True), (other, False)):
        loss = objective.loss(objective.batch(torch.arange(16)), g)
        assert loss.shape == (16, 1)
        assert bool(loss.max() < 1e-6) is small
    # Quarter turns are exact on the lattice, so the Laplacian commutes with them to rounding.
    objective = field_task(laplacian)
    batch = objective.batch(torch.arange(8))
    assert objective.loss(batch, same(J, batch.shape)).max() < 1e-5
    assert (
        objective.loss(batch, same(torch.diag(torch.tensor([1.0, -1.0])), batch.shape)).max() < 1e-5
    )
    assert (
        objective.loss(batch, same(torch.diag(torch.tensor([1.5, 1.0])), batch.shape)).min() > 1e-3
    )


def test_the_loss_is_that_of_each_matrix_sample_and_chart() -> None:
    objective = field_task(laplacian)
    batch = objective.batch(torch.arange(3))
    g = lie.expm(0.4 * torch.randn(4, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0)))
    loss = objective.loss(batch, g)
    assert loss.shape == (4, 3, 2)
    for s in range(4):
        assert torch.allclose(objective.loss(batch, g[s]), loss[s], atol=1e-6)
    action = PlanarAction(11, 7)
    by_hand = laplacian(action.act_in(g[2], batch.x))
    by_hand = (crop(by_hand, 7) - transform(batch.reference, g[2], 7)).abs().mean((-3, -2, -1))
    assert torch.allclose(loss[2], by_hand, atol=1e-6)


def test_the_reference_is_computed_once_however_many_matrices_are_tried() -> None:
    calls: list[torch.Size] = []

    def f(x: Tensor, charts: Tensor | None) -> Tensor:
        calls.append(x.shape)
        return norm_in(torch.eye(2))(x)

    objective = EquivarianceObjective(Points(torch.randn(32, 1, 2)), PointAction(2), lambda: f)
    batch = objective.batch(torch.arange(5))
    assert len(calls) == 1
    objective.loss(batch, same(J, (7, 5, 1)))
    assert calls[1:] == [torch.Size([35, 1, 2])]  # the moved inputs, all in one call
    assert not batch.reference.requires_grad


def test_the_loss_is_differentiable_in_the_matrix() -> None:
    objective = field_task(laplacian, samples=2)
    batch = objective.batch(torch.arange(2))
    g = same(lie.expm(0.3 * J), (2, 2)).clone().requires_grad_(True)
    objective.loss(batch, g).sum().backward()
    assert g.grad is not None
    assert bool((g.grad.flatten(2).norm(dim=2) > 0).all())


def test_cross_entropy_compares_probabilities_with_logits() -> None:
    def logits(x: Tensor) -> Tensor:
        return torch.cat([3 * x[..., :1], x[..., 1:] ** 2, 0 * x[..., :1]], -1)

    objective = point_task(logits, loss="cross_entropy")
    batch = objective.batch(torch.arange(20))
    assert torch.allclose(batch.reference, logits(batch.x).softmax(-1))
    g = same(lie.expm(0.7 * J), batch.shape)
    loss = objective.loss(batch, g)
    moved = logits(batch.x @ lie.expm(0.7 * J).T)
    expected = torch.nn.functional.cross_entropy(
        moved.flatten(0, 1), batch.reference.flatten(0, 1), reduction="none"
    )
    assert torch.allclose(loss.flatten(), expected, atol=1e-5)
    # The least it can be is the reference's own entropy, at the identity.
    still = objective.loss(batch, same(torch.eye(2), batch.shape))
    entropy = -(batch.reference * batch.reference.log()).sum(-1)
    assert torch.allclose(still, entropy, atol=1e-5)
    assert bool((loss >= entropy - 1e-5).all())
    # Distances are between probabilities all the same.
    errors = objective.errors(batch, g)
    assert torch.allclose(
        errors.distance, (moved.softmax(-1) - batch.reference).abs().mean(-1), atol=1e-6
    )


def probabilities(x: Tensor) -> Tensor:
    """Logits of four classes by the distance from the origin, invariant under O(2).

    They are certain of the first class close to the origin.
    """
    return (4 - (x * x).sum(-1, keepdim=True)) * torch.tensor([3.0, 1.0, 0.0, -2.0])


def test_the_distance_of_an_l1_task_is_its_loss() -> None:
    for objective in (field_task(laplacian), point_task(waves)):
        batch = objective.batch(torch.arange(3))
        generator = torch.Generator().manual_seed(0)
        g = lie.expm(0.4 * torch.randn(4, *batch.shape, 2, 2, generator=generator))
        distance = objective.distance(batch, g)
        assert distance.shape == (4, *batch.shape)
        assert torch.equal(distance, objective.loss(batch, g))
        assert torch.equal(distance, objective.errors(batch, g).distance)


def test_the_distance_is_of_probabilities_and_zero_for_a_symmetry_where_cross_entropy_is_not() -> (
    None
):
    objective = point_task(probabilities, loss="cross_entropy")
    batch = objective.batch(torch.arange(64))
    turn = lie.expm(torch.linspace(-3, 3, 64)[:, None, None, None] * J)
    assert objective.distance(batch, turn).max() < 1e-5
    assert objective.loss(batch, turn).max() > 0.5  # where it is not sure
    other = lie.expm(0.5 * torch.randn(3, 64, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    distance = objective.distance(batch, other)
    assert distance.shape == (3, 64, 1)
    assert distance.mean() > 0.01
    assert distance.max() <= 2 / 4  # of four probabilities
    assert torch.equal(distance, objective.errors(batch, other).distance)


def test_the_distance_of_fields_takes_channels_as_classes() -> None:
    def logits(x: Tensor, charts: Tensor | None) -> Tensor:
        return torch.cat([2 * x, -x, 0 * x], 2)

    inputs = FieldInputs(smooth_fields(4, 30), ATLAS)
    objective = EquivarianceObjective(inputs, PlanarAction(5, 3), lambda: logits, "cross_entropy")
    batch = objective.batch(torch.arange(4))
    g = lie.expm(0.4 * torch.randn(2, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0)))
    distance = objective.distance(batch, g)
    assert torch.equal(distance, objective.errors(batch, g).distance)
    # The function is pointwise, so only interpolation matters, and a quarter turn needs none.
    assert objective.distance(batch, same(J, batch.shape)).max() < 1e-5
    assert objective.loss(batch, same(J, batch.shape)).min() > 0.1
    assert distance.min() > 1e-5


def test_the_distance_is_differentiable_in_the_matrix() -> None:
    objective = point_task(probabilities, loss="cross_entropy")
    batch = objective.batch(torch.arange(64))
    towards = {}
    for name, direction in (("scaling", torch.eye(2)), ("turn", J)):
        t = torch.tensor(0.1, requires_grad=True)
        objective.distance(batch, same(lie.expm(t * direction), batch.shape)).sum().backward()
        assert t.grad is not None
        towards[name] = float(t.grad)
    assert towards["scaling"] > 1
    assert abs(towards["turn"]) < 1e-3


def test_what_was_trained_by_the_jaccard_index_is_compared_as_any_classifier() -> None:
    def logits(x: Tensor) -> Tensor:
        return torch.cat([norm_in(torch.eye(2))(x), x[..., :1]], -1)

    one, other = (point_task(logits, loss=kind) for kind in ("cross_entropy", "jaccard"))  # type: ignore[arg-type]
    g = lie.expm(torch.linspace(-1, 1, 8)[:, None, None, None] * J)
    a, b = (t.errors(t.batch(torch.arange(8)), g) for t in (one, other))
    assert torch.equal(a.loss, b.loss)
    assert torch.equal(a.distance, b.distance)
    with pytest.raises(InvalidInput):
        point_task(logits, loss="hinge")  # type: ignore[arg-type]


def test_cross_entropy_of_fields_takes_channels_as_classes() -> None:
    def logits(x: Tensor, charts: Tensor | None) -> Tensor:
        return torch.cat([2 * x, -x, 0 * x], 2)

    inputs = FieldInputs(smooth_fields(4, 30), ATLAS)
    objective = EquivarianceObjective(inputs, PlanarAction(5, 3), lambda: logits, "cross_entropy")
    batch = objective.batch(torch.arange(4))
    assert batch.reference.shape == (4, 2, 3, 11, 11)
    assert torch.allclose(batch.reference.sum(2), torch.ones(4, 2, 11, 11), atol=1e-5)
    inner = crop(batch.reference, 3)
    entropy = -(inner * inner.log()).sum(2).mean((-2, -1))
    assert torch.allclose(objective.loss(batch, same(torch.eye(2), (4, 2))), entropy, atol=1e-5)
    with pytest.raises(InvalidInput):
        EquivarianceObjective(inputs, PlanarAction(5, 3), lambda: logits, "l3")  # type: ignore[arg-type]


def test_errors_are_bounded_by_motion_and_vanish_for_a_symmetry() -> None:
    objective = field_task(laplacian)
    batch = objective.batch(torch.arange(4))
    g = lie.expm(0.5 * torch.randn(6, 4, 2, 2, 2, generator=torch.Generator().manual_seed(1)))
    errors = objective.errors(batch, g)
    assert errors.distance.shape == (6, 4, 2)
    assert bool((errors.distance <= errors.displacement + 1e-6).all())
    assert torch.allclose(errors.loss, objective.loss(batch, g))
    assert errors.interpolation_error.min() > 0
    assert torch.equal(errors.noise_floor, errors.interpolation_error)
    quarter = objective.errors(batch, same(J, batch.shape))
    assert quarter.distance.max() < 1e-5
    assert quarter.displacement.min() > 0.01
    assert (
        quarter.interpolation_error.max() < 1e-5
    )  # exact on the lattice whatever the interpolation


def test_interpolation_may_cause_no_more_of_a_cross_entropy_than_it_changes() -> None:
    def logits(x: Tensor, charts: Tensor | None) -> Tensor:
        return torch.cat([0.02 * x, 0 * x], 2)

    objective = EquivarianceObjective(
        FieldInputs(smooth_fields(4, 30), ATLAS),
        PlanarAction(5, 3),
        lambda: logits,
        "cross_entropy",
    )
    batch = objective.batch(torch.arange(4))
    errors = objective.errors(batch, same(lie.expm(0.5 * J), batch.shape))
    # Nearly all of the loss is entropy of even odds, which no interpolation makes.
    assert errors.loss.min() > 0.6
    assert errors.noise_floor.min() > 0
    assert errors.noise_floor.max() < 0.02
    assert errors.interpolation_error.max() > 0.1 * errors.distance.min()


def test_relative_errors_are_one_across_and_zero_along_a_symmetry() -> None:
    objective = point_task(norm_in(torch.eye(2)))
    batches = [draw_batch(objective, torch.Generator().manual_seed(0), 128, 1)]
    directions = torch.stack([J, torch.eye(2), torch.diag(torch.tensor([1.0, -1.0]))]) / 2**0.5
    along = measure(objective, batches, directions, 1.0, 0)
    errors = relative_errors(along, float(along.displacement.mean()))
    assert errors[0] < 1e-5
    assert errors[1:].min() > 0.7
    assert errors.max() <= 1 + 1e-6


def test_a_constant_function_moves_nothing_and_is_symmetric_in_every_direction() -> None:
    objective = point_task(lambda x: torch.ones_like(x[..., :1]))
    along = measure(objective, [objective.batch(torch.arange(4))], J[None], 1.0, 0)
    assert relative_errors(along, 0.0).tolist() == [0.0]


def test_batches_are_of_distinct_charts_in_order() -> None:
    inputs = Points(torch.arange(20.0).reshape(2, 5, 2))
    objective = EquivarianceObjective(inputs, PointAction(2), lambda: lambda x, _: x)
    seen = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        batch = draw_batch(objective, generator, 2, 3)
        assert batch.charts is not None
        chosen = batch.charts.tolist()
        assert chosen == sorted(set(chosen))
        assert torch.equal(batch.x[..., 0] % 10, 2.0 * batch.charts.expand(2, 3))
        seen.update(chosen)
    assert seen == {0, 1, 2, 3, 4}
    assert draw_batch(objective, generator, 2, 5).charts is None


def test_crops_are_the_charts_own_windows() -> None:
    fields = torch.arange(2 * 30 * 28.0).reshape(2, 1, 30, 28)
    inputs = FieldInputs(fields, ATLAS, halo=1)
    crops = inputs.draw(torch.tensor([1, 0, 1]), None)
    assert crops.shape == (3, 2, 1, 17, 17)
    assert torch.equal(crops[0, 0], fields[1, :, 2:19, 4:21])
    assert torch.equal(crops[1, 1], fields[0, :, 7:24, 1:18])
    assert torch.equal(inputs.draw(torch.tensor([0]), torch.tensor([1]))[:, 0], crops[1:2, 1])
    bare = FieldInputs(fields, ATLAS, margin=0)
    assert bare.draw(torch.tensor([1]), None).shape[-1] == 11
    assert (len(inputs), inputs.charts) == (2, 2)


def test_crops_repeat_the_border_beyond_the_lattice() -> None:
    fields = torch.arange(20 * 20.0).reshape(1, 1, 20, 20)
    atlas = PlanarAtlas((Chart(3, 16),), r_in=3, r_out=2, margin=2)
    got = FieldInputs(fields, atlas).draw(torch.tensor([0]), None)[0, 0, 0]
    assert torch.equal(got[0], got[2])
    assert torch.equal(got[:, -1], got[:, -3])
    assert torch.equal(got[2:, :-2], fields[0, 0, 0:9, 11:20])


@pytest.mark.parametrize(
    ("atlas", "field"),
    [
        (PlanarAtlas((), 3, 2), "atlas.action.params.charts"),
        (PlanarAtlas((Chart(3, 3),), 3, 4), "atlas.action.params.r_out"),
        (PlanarAtlas((Chart(3, 3),), 3, -1), "atlas.action.params.r_out"),
        (PlanarAtlas((Chart(3, 3),), 3, 2, margin=-1), "atlas.action.params.r_out"),
        (PlanarAtlas((Chart(3, 3), Chart(2, 3)), 3, 2), "atlas.action.params.charts[1]"),
        (PlanarAtlas((Chart(3, 17),), 3, 2), "atlas.action.params.charts[0]"),
    ],
)
def test_an_atlas_that_does_not_fit_is_refused(atlas: PlanarAtlas, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        FieldInputs(torch.zeros(1, 1, 20, 20), atlas)
    assert caught.value.field == field
    FieldInputs(torch.zeros(1, 1, 20, 20), PlanarAtlas((Chart(3, 16), Chart(16, 3)), 3, 2))


def test_fields_must_have_channels() -> None:
    with pytest.raises(InvalidInput):
        FieldInputs(torch.zeros(4, 20, 20), ATLAS)


def test_vectors_turn_with_the_points_they_are_on() -> None:
    """The gradient of a field moved by a quarter turn is the moved gradient, turned as well."""
    action = PlanarAction(6, 6, rho_in=lambda g: g)
    x = smooth_fields(1, 15)[:, None]

    def gradient(x: Tensor) -> Tensor:
        return torch.cat(torch.gradient(x, dim=(-2, -1)), -3)

    turned = transform(x, J, 7)
    got = action.act_in(same(J, (1, 1)), gradient(x))
    assert (got - crop(gradient(turned), 6)).abs().max() < 1e-5
    plain = PlanarAction(6, 6).act_in(same(J, (1, 1)), gradient(x))
    assert (plain - crop(gradient(turned), 6)).abs().max() > 0.1
    assert PlanarAction(6, 6).rho_in is None


def test_refining_takes_the_next_better_interpolation_and_smoothing_one_with_derivatives() -> None:
    def modes(action: PlanarAction) -> tuple[str, str]:
        return action.interpolation, action.interpolation_out

    action = PlanarAction(6, 4, interpolation="bilinear", interpolation_out="nearest")
    assert modes(action.finer_interpolation()) == ("bicubic", "bilinear")
    assert modes(action.finer_interpolation().finer_interpolation()) == ("bicubic", "bicubic")
    assert modes(action.differentiable()) == ("bilinear", "bilinear")
    assert (action.finer_interpolation().r_field, action.differentiable().r_out) == (6, 4)


def test_samples_are_drawn_where_they_are_wanted_and_few_at_a_time_if_large() -> None:
    there = torch.device("meta")
    fields = smooth_fields(4, 30)
    inputs = FieldInputs(fields, ATLAS, device=there)
    drawn = inputs.draw(torch.tensor([1, 0, 2]), torch.tensor([1]))
    assert (inputs.device, drawn.device, tuple(drawn.shape)) == (there, there, (3, 1, 1, 15, 15))
    assert max_batch((4, 4, 401, 401)) == 3
    assert max_batch((1, 16, 401, 401, 401)) == 1
    assert field_task(laplacian).max_batch > 1000


def test_outputs_moved_by_the_nearest_pixel_pose_the_same_task() -> None:
    """Their values are those of the field; the other measurements are nearly those of bilinear."""
    fields = smooth_fields(8, 45)
    both = [PlanarAtlas((Chart(20, 20),), 10, 7, 6, mode) for mode in ("bilinear", "nearest")]  # type: ignore[arg-type]
    smooth, rough = (
        EquivarianceObjective(
            FieldInputs(fields, atlas, halo=1),
            action_on(atlas, 1),
            lambda: lambda x, _: laplacian(x),
        )
        for atlas in both
    )
    batch = rough.batch(torch.arange(8))
    g = same(lie.expm(0.3 * J), batch.shape).clone().requires_grad_(True)
    moved = action_on(both[1], 1).act_out(g, batch.reference)
    assert torch.isin(moved, batch.reference).all()
    loss = rough.loss(batch, g)
    loss.sum().backward()
    assert g.grad is not None
    assert bool(g.grad.isfinite().all() & (g.grad != 0).any())  # by the inputs
    a, b = (t.errors(t.batch(torch.arange(8)), g.detach()) for t in (smooth, rough))
    assert bool((b.noise_floor > a.noise_floor).all())  # what the nearest pixel may do is known
    assert bool((b.loss - b.noise_floor < a.loss + a.noise_floor).all())
    # A pixel does not move by less than half a pixel, but the response is that of a smooth action.
    assert torch.equal(*(t.response(torch.arange(4), J[None], 1e-3) for t in (smooth, rough)))
