"""LieGAN on spheres of blobs, whose distribution is symmetric about one axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import Diverged, InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.sphere import SphereAtlas, SphereChart, lattice, so3_basis, unit_vectors
from atlas_worker.solvers.liegan import Discriminator, LieGan, LieGanParams

from .resume_check import check_resuming

CPU = torch.device("cpu")
SPHERE = SphereAtlas((SphereChart(0, 0),), 2, 2)
FAST: dict[str, Any] = {
    "learning_rate_generator": 2e-2,
    "learning_rate_discriminator": 2e-3,
    "width": 8,
}


@dataclass
class Labelled:
    """As much of a dataset as a solver looks at."""

    inputs: Tensor
    targets: Tensor
    outputs: int = 2


def blobs(samples: int = 256, height: int = 8) -> Labelled:
    """A blob at one latitude and a random longitude; the label says where it is above one half."""
    longitude = 2 * math.pi * torch.rand(samples, generator=torch.Generator().manual_seed(0))
    centres = unit_vectors(torch.tensor(0.6), longitude).double()
    cosines = torch.einsum("nj,hwj->nhw", centres, lattice(height, 2 * height))
    inputs = torch.exp(6 * (cosines - 1)).float()[:, None]
    return Labelled(inputs, (inputs > 0.5).long())


SMALL = blobs(40, 6)


def solver(
    data: Labelled = SMALL, k: int = 1, epochs: int = 3, seed: int = 0, **params: Any
) -> LieGan:
    return LieGan(
        LieGanParams(**params),
        dataset=data,
        atlas=SPHERE,
        k=k,
        epochs=epochs,
        seed=seed,
        device=CPU,
    )  # type: ignore[arg-type]


def run(made: LieGan, epochs: int | None = None) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for _ in range(made.total_epochs if epochs is None else epochs):
        metrics = made.run_epoch(lambda *_: None)
    return metrics


def begin_at(made: LieGan, theta: list[list[float]]) -> LieGan:
    tensors, facts = made.state()
    made.load_state({**tensors, "theta": torch.tensor(theta)}, facts)
    return made


def test_the_axis_of_symmetric_data_is_found() -> None:
    """From a slanted axis, with a weight of the cosine that keeps the angle from shrinking to 0."""
    made = solver(blobs(), epochs=8, cosine_weight=1.0, **FAST)
    run(begin_at(made, [[0.5, 0.0, 0.5]]))
    theta = made.state()[0]["theta"][0]
    assert float(theta.norm()) > 0.5
    assert abs(float(theta[2] / theta.norm())) > 0.95


def test_a_rotation_that_is_no_symmetry_is_told_from_the_data() -> None:
    errors = []
    for axis in ([[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]]):
        made = solver(blobs(), epochs=8, **{**FAST, "learning_rate_generator": 0.0})
        run(begin_at(made, axis))
        errors += made.report().relative_errors
    assert errors[0] < 0.5 < errors[1]


def test_the_report_is_of_what_was_learnt() -> None:
    made = solver(k=2)
    assert all(math.isfinite(v) for v in (*made.report().losses, *made.report().relative_errors))
    start = made.state()[0]["theta"]
    metrics = run(made)
    assert set(metrics) == {"loss", "discriminator", "magnitude", "moved"}
    report, theta = made.report(), made.state()[0]["theta"]
    assert report.generators.shape == (2, 3, 3)
    assert torch.equal(report.generators, -report.generators.mT)
    for generator, (x, y, z) in zip(report.generators, theta.tolist(), strict=True):
        expected = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
        assert torch.allclose(generator, torch.tensor(expected))
    assert metrics["magnitude"] == pytest.approx(float(theta[0].norm()))
    assert metrics["moved"] == pytest.approx(float((theta - start)[0].norm()))
    assert report.losses == pytest.approx([metrics["loss"]] * 2)
    assert all(0 <= e <= 1 for e in report.relative_errors)
    assert (report.symmetry_count, report.noise_floor, report.spectrum, report.start_losses) == (
        0,
        0.0,
        [],
        [],
    )
    assert "no symmetry" in report.explanation
    assert "\n" not in report.explanation
    assert made.report().relative_errors == report.relative_errors
    assert made.memory_bytes > 16 * theta.numel()


def test_channels_are_kept_apart() -> None:
    """``θ`` is the generators' coordinates in an orthogonal basis: angles are the same."""
    assert torch.equal(so3_basis().flatten(1) @ so3_basis().flatten(1).T, 2 * torch.eye(3))

    def cosine(weight: float) -> float:
        made = begin_at(
            solver(k=2, channel_weight=weight, **FAST), [[0.1, 0.0, 0.0], [0.08, 0.06, 0.0]]
        )
        run(made, 3)
        a, b = made.state()[0]["theta"]
        return abs(float(torch.cosine_similarity(a, b, dim=0)))

    assert cosine(10.0) < 0.4
    assert cosine(10.0) < cosine(0.0)


def test_steps_are_told() -> None:
    made, told = solver(batch_size=16), []
    made.run_epoch(lambda step, steps, metrics: told.append((step, steps, metrics.keys())))
    assert told == [(i, 3, {"loss", "discriminator"}) for i in (1, 2, 3)]
    assert made.epoch == 1


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_resumed_training_is_the_undisturbed_one_bit_for_bit(stop: int) -> None:
    whole, resumed = check_resuming(lambda: solver(k=2), 3, stop)
    ours, theirs = whole.report(), resumed.report()
    assert (ours.losses, ours.relative_errors, ours.explanation) == (
        theirs.losses,
        theirs.relative_errors,
        theirs.explanation,
    )


def test_all_chance_comes_from_the_seed() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a = solver(seed=3)
    run(a)
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
    torch.manual_seed(1)
    b, c = solver(seed=3), solver(seed=4)
    run(b)
    assert all(torch.equal(a.state()[0][name], t) for name, t in b.state()[0].items())
    assert not torch.equal(a.state()[0]["theta"], c.state()[0]["theta"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32, torch.float64])
def test_labels_of_any_type(dtype: torch.dtype) -> None:
    a, b = solver(), solver(Labelled(SMALL.inputs, SMALL.targets.to(dtype)))
    assert run(a, 1) == run(b, 1)


def test_the_unit_of_the_inputs_does_not_matter() -> None:
    a, b = solver(), solver(Labelled(SMALL.inputs * 1024, SMALL.targets))
    assert run(a, 1) == pytest.approx(run(b, 1), rel=1e-4)


@pytest.mark.parametrize(("height", "width"), [(6, 12), (7, 9), (1, 1), (12, 24)])
def test_the_discriminator_takes_any_lattice(height: int, width: int) -> None:
    made = Discriminator(3, height, width, 4, torch.Generator().manual_seed(0))
    fields = torch.rand(5, 3, height, width, generator=torch.Generator().manual_seed(1))
    assert made(fields).shape == (5,)


def test_the_discriminator_sees_no_seam() -> None:
    made = Discriminator(2, 8, 24, 4, torch.Generator().manual_seed(0))
    made.weights["3.weight"].fill_(1.0)  # else it knows where things are
    x = torch.rand(5, 2, 8, 24, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(made(x), made(x.roll(8, -1)), atol=1e-5)
    assert not torch.allclose(made(x), made(x.roll(3, -2)), atol=1e-2)


def test_divergence_is_told() -> None:
    for params in ({"learning_rate_generator": 1e30}, {"learning_rate_discriminator": 1e30}):
        with pytest.raises(Diverged):
            run(solver(**params))


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"atlas": PlanarAtlas((Chart(3, 3),), 2, 2)}, "algebra.atlas"),
        ({"k": 0}, "algebra.k"),
        ({"k": 4}, "algebra.k"),
        (
            {"dataset": Labelled(SMALL.inputs, SMALL.targets.expand(-1, 2, -1, -1))},
            "algebra.dataset",
        ),
        ({"dataset": Labelled(SMALL.inputs, SMALL.targets[..., :-1])}, "algebra.dataset"),
        ({"dataset": Labelled(SMALL.inputs, SMALL.targets, outputs=1)}, "algebra.dataset"),
        ({"dataset": Labelled(SMALL.inputs, SMALL.targets + 1)}, "algebra.dataset"),
        ({"dataset": Labelled(SMALL.inputs, SMALL.targets - 1)}, "algebra.dataset"),
        ({"dataset": Labelled(SMALL.inputs, SMALL.inputs)}, "algebra.dataset"),
        ({"dataset": Labelled(SMALL.inputs, SMALL.inputs * math.nan)}, "algebra.dataset"),
    ],
)
def test_what_it_cannot_do_is_refused(changed: dict[str, Any], where: str) -> None:
    given = {"dataset": SMALL, "atlas": SPHERE, "k": 1, "epochs": 1, "seed": 0, "device": CPU}
    with pytest.raises(InvalidInput) as caught:
        LieGan(LieGanParams(), **{**given, **changed})
    assert caught.value.field == where


def test_state_of_another_solver_is_refused() -> None:
    made = solver()
    run(made, 1)
    tensors, facts = made.state()
    less = {name: t for name, t in tensors.items() if name != "adam.discriminator.0.weight.exp_avg"}
    for state in ((tensors, {**facts, "kind": "paper"}), ({}, facts), (less, facts)):
        other = solver()
        before = other.state()[0]
        with pytest.raises(InvalidInput):
            other.load_state(*state)
        assert all(torch.equal(before[name], t) for name, t in other.state()[0].items()), (
            "half loaded"
        )
    with pytest.raises(InvalidInput):
        solver(k=2).load_state(tensors, facts)
