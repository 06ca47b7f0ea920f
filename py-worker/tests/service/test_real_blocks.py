"""ObjectService with the real building blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from atlas_worker.catalogue import register
from atlas_worker.client import Client
from atlas_worker.datasets.base import GivenDataset
from atlas_worker.gen.atlas.v1 import objects_pb2, tensor_pb2

from . import fakes
from .support import (
    QUARTER,
    SHEAR,
    Objects,
    Refused,
    action,
    block,
    fields,
    open_table,
    planar_atlas,
    random_points,
    table,
    vector_atlas,
    vector_predictor,
)


@pytest.mark.usefixtures("real")
def test_the_number_of_generators_is_found_where_the_solver_can(client: Client) -> None:
    dataset, atlas = random_points(client, n=2, samples=512), vector_atlas(client, 2)
    circle = vector_predictor(client, dataset, atlas, "expression", expression="x1**2 + x2**2")
    made = {"predictor": circle, "dataset": dataset, "atlas": atlas, "epochs": 1}
    for kind in ("atlasd", "test_chain"):
        with Refused("INVALID_INPUT", "algebra.k", "does not find the number") as refused:
            client.create(algebra=objects_pb2.AlgebraSpec(solver=block(kind), k=0, **made))
        assert "grassmann" in refused.error.remedy
    with Refused("INVALID_INPUT", "algebra.k", "5"):
        client.create(algebra=objects_pb2.AlgebraSpec(solver=block("grassmann"), k=5, **made))
    solver = block("grassmann", start="spectral", steps=0, batch_size=64, evaluation=64)
    handle = client.create(algebra=objects_pb2.AlgebraSpec(solver=solver, **made))
    client.run(handle)
    answer = client.call("GetAlgebra", handle=handle)
    generators = client.receive(answer.generators)
    assert (generators.shape, answer.symmetry_count, len(answer.spectrum)) == ((1, 2, 2), 1, 4)
    assert (generators[0] + generators[0].T).abs().max() < 1e-3
    # None at all: a tensor without entries travels too, and so does the snapshot.
    bent = vector_predictor(
        client, dataset, atlas, "expression", expression="floor(3*sin(x1) + cos(2.3*x2))"
    )
    spec = objects_pb2.AlgebraSpec(solver=solver, k=0, **{**made, "predictor": bent})
    handle = client.create(algebra=spec)
    client.run(handle)
    answer = client.call("GetAlgebra", handle=handle)
    assert (client.receive(answer.generators).shape, answer.symmetry_count) == ((0, 2, 2), 0)
    again = client.create(algebra=spec)
    frozen = client.receive(client.call("GetSnapshot", handle=handle).snapshot)
    client.call("RestoreSnapshot", handle=again, snapshot=client.send(frozen))
    assert client.call("GetAlgebra", handle=again).explanation == answer.explanation


@pytest.mark.usefixtures("real")
def test_scores_on_a_test_file(limited: Callable[..., Client], tmp_path: Path) -> None:
    table(tmp_path)
    client = limited(data_root=tmp_path)
    dataset, atlas = open_table(client, "t.h5"), vector_atlas(client, 4)
    assert client.receive(client.call("ReadDataset", handle=dataset, count=3).inputs).shape == (
        3,
        2,
        4,
    )
    handle = vector_predictor(client, dataset, atlas, loss="cross_entropy", width=4)
    scores = dict(client.call("ScorePredictor", handle=handle, dataset=dataset).scores)
    assert {
        "accuracy",
        "accuracy_error",
        "auc",
        "auc_error",
        "rejection_30",
        "rejection_50",
    } <= set(scores)
    # As computed from what the predictor answers.
    answer = client.call("Predict", handle=handle, samples=objects_pb2.SampleRange(count=600))
    right = client.receive(answer.outputs)[:, 0].argmax(1) == (torch.arange(600) % 3 == 0)
    assert scores["accuracy"] == pytest.approx(float(right.double().mean()))
    part = open_table(client, "t.h5", samples=10)
    assert client.call("ScorePredictor", handle=handle, dataset=part).scores[
        "accuracy"
    ] == pytest.approx(float(right[:10].double().mean()))
    with Refused("NOT_READY"):
        client.call("ScorePredictor", handle=handle, dataset=open_table(client, "t.h5", run=False))
    with Refused("NOT_FOUND", "handle"):
        client.call("ScorePredictor", handle="predictor-99", dataset=dataset)
    with Refused("NOT_FOUND", "dataset"):
        client.call("ScorePredictor", handle=handle, dataset="dataset-99")
    with Refused("INVALID_INPUT", "dataset"):
        client.call("ScorePredictor", handle=handle, dataset=atlas)
    with Refused("INVALID_INPUT", "atlas.action.params.n"):
        other = open_table(client, "t.h5", components="E,PX")
        client.call("ScorePredictor", handle=handle, dataset=other)
    points = random_points(client, n=4, samples=10)
    with Refused("INVALID_INPUT", "handle", "classifier"):
        regression = vector_predictor(client, points, atlas)
        client.call("ScorePredictor", handle=regression, dataset=points)


@pytest.mark.usefixtures("real")
def test_equivariance_at_matrices(client: Client) -> None:
    dataset, atlas = fields(client), planar_atlas(client)
    net = vector_predictor(client, dataset, atlas, "reference_cnn", width=4)
    given = {
        "handle": net,
        "matrices": client.send(torch.stack([torch.eye(2), QUARTER])),
        "samples": 9,
    }
    answer = client.call("MeasureEquivariance", **given)
    still, turned = answer.measured
    assert still.distance < 1e-5
    assert still.relative_error == 0
    assert 1e-3 < turned.distance == turned.loss
    assert 0.1 < turned.relative_error <= 1
    again = client.call("MeasureEquivariance", dataset=dataset, atlas=atlas, seed=1, **given)
    for a, b in zip(again.measured, answer.measured, strict=True):  # all samples, in another order
        assert a.distance == pytest.approx(b.distance, abs=1e-6)
    moved = client.call("MeasureEquivariance", atlas=planar_atlas(client, row=7), **given)
    assert moved.measured[1].distance != pytest.approx(turned.distance)
    other = client.call("MeasureEquivariance", dataset=fields(client, samples=3), **given)
    assert other.measured[1].distance != pytest.approx(turned.distance)


@pytest.mark.usefixtures("real")
def test_equivariance_of_an_invariant_function(client: Client) -> None:
    dataset, atlas = random_points(client, n=2, samples=64), vector_atlas(client, 2)
    circle = vector_predictor(client, dataset, atlas, "expression", expression="x1**2 + x2**2")
    matrices = client.send(torch.stack([QUARTER, SHEAR, QUARTER]), inline=False)
    answer = client.call("MeasureEquivariance", handle=circle, matrices=matrices, samples=1000)
    assert [m.relative_error for m in answer.measured] == pytest.approx([0, 1, 0])
    assert [m.distance > 0.1 for m in answer.measured] == [False, True, False]
    assert [m.interpolation_error for m in answer.measured] == [0, 0, 0]


@pytest.mark.usefixtures("real")
def test_equivariance_of_what_does_not_fit_is_refused(client: Client) -> None:
    dataset, atlas = fields(client), planar_atlas(client)
    net = vector_predictor(client, dataset, atlas, "reference_cnn", width=4)
    points, plane = random_points(client, n=2, samples=8), vector_atlas(client, 2)
    centre = {"latitude": 0, "longitude": 0}
    on_sphere = client.create(atlas=action("sphere", charts=[centre] * 2, r_in=2, r_out=1))
    good = {"handle": net, "matrices": client.send(QUARTER[None]), "samples": 4}
    for changed, field in (
        ({"handle": dataset}, "handle"),
        ({"matrices": tensor_pb2.Tensor()}, "matrices.dtype"),
        ({"matrices": client.send(QUARTER)}, "matrices.shape"),
        ({"matrices": client.send(torch.eye(3)[None])}, "matrices.shape"),
        ({"matrices": client.send(torch.zeros(0, 2, 2))}, "matrices.shape"),
        ({"matrices": client.send(torch.full((1, 2, 2), math.nan))}, "matrices"),
        ({"matrices": client.send(torch.ones(1, 2, 2))}, "matrices"),
        ({"matrices": client.send(torch.eye(2)[None].double() * 1e300)}, "matrices"),
        ({"matrices": client.send(torch.eye(2)[None].double() * 1e-300)}, "matrices"),
        ({"samples": 0}, "samples"),
        ({"samples": -1}, "samples"),
        ({"atlas": dataset}, "atlas"),
        ({"atlas": plane}, "atlas"),
        ({"atlas": on_sphere}, "atlas"),
        ({"atlas": planar_atlas(client, charts=1)}, "atlas"),
        ({"atlas": planar_atlas(client, r_in=3)}, "atlas"),
        (
            {"atlas": planar_atlas(client, row=10)},
            "atlas.action.params.charts[0]",
        ),  # off the lattice
        ({"dataset": atlas}, "dataset"),
        ({"dataset": points}, "dataset"),
        ({"dataset": fields(client, channels=2)}, "dataset"),
        ({"dataset": fields(client, side=14)}, "dataset"),
    ):
        with Refused("INVALID_INPUT", field):
            client.call("MeasureEquivariance", **{**good, **changed})
    singular = torch.stack([QUARTER, SHEAR, torch.ones(2, 2)])
    with Refused("INVALID_INPUT", "matrices", "matrix 2"):
        client.call("MeasureEquivariance", **{**good, "matrices": client.send(singular)})
    for name in ("handle", "atlas", "dataset"):
        for gone in ("gone", ""):
            with Refused("NOT_FOUND", name):
                client.call("MeasureEquivariance", **{**good, name: gone})
    with Refused("NOT_READY"):
        heat = client.create(
            dataset=objects_pb2.DatasetSpec(source=block("heat_equation", samples=8, side=32))
        )
        client.call("MeasureEquivariance", **{**good, "dataset": heat})
    with Refused("LIMIT_EXCEEDED"):
        many = client.send(QUARTER.expand(200_000, 2, 2).contiguous(), inline=False)
        client.call("MeasureEquivariance", **{**good, "matrices": many})
    linear = vector_predictor(client, points, plane, "mlp", width=4)
    good["handle"] = linear
    for other in (vector_atlas(client, 3), vector_atlas(client, 2, vector_output=True)):
        with Refused("INVALID_INPUT", "atlas", "R^"):
            client.call("MeasureEquivariance", **{**good, "atlas": other})
    three = random_points(client, n=3, samples=8)
    with Refused("INVALID_INPUT", "dataset", "[1, 3]"):
        client.call("MeasureEquivariance", **{**good, "dataset": three})


@register(
    "dataset", "test_classes", "fields with classes on a lattice of a sphere", fakes.ChainParams
)
class Classes(GivenDataset):
    kind = "test_classes"
    outputs, background, classes = 2, 0, ("low", "high")

    def __init__(self, params: fakes.ChainParams, **_: Any) -> None:
        self.inputs = torch.rand(
            params.samples, 1, 6, 12, generator=torch.Generator().manual_seed(0)
        )
        self.targets = (self.inputs > 0.5).byte()
        self.coordinates = (torch.linspace(-90, 90, 6), torch.arange(12) * 30.0)


@pytest.mark.usefixtures("real")
def test_a_network_on_the_icosahedral_grid(client: Client, objects: Objects) -> None:
    dataset = client.create(
        dataset=objects_pb2.DatasetSpec(source=block("test_classes", samples=4))
    )
    grid = client.create(atlas=action("icosahedron", resolution=2))
    assert dict(objects.info(grid).facts) == {"charts": 1, "resolution": 2}
    spec = {
        "architecture": block("icosahedral_unet", levels=2, width=2),
        "training": block("supervised", loss="jaccard", batch_size=2),
        "dataset": dataset,
        "atlas": grid,
        "epochs": 1,
        "tensors": {"algebra": client.send(QUARTER[None])},
    }
    net = client.create(predictor=objects_pb2.PredictorSpec(**spec))
    info = objects.info(net)
    assert info.facts["gauge"] == "SO(2)"
    assert info.memory_bytes == 16 * info.facts["parameters"] + 4 * 162 * 5
    client.run(net)
    samples = objects_pb2.SampleRange(start=1, count=3)
    outputs = client.receive(client.call("Predict", handle=net, samples=samples).outputs)
    assert outputs.shape == (3, 1, 2, 162)
    classes = client.receive(
        client.call("Predict", handle=net, samples=samples, classes=True).outputs
    )
    assert classes.shape == (3, 6, 12)
    assert set(classes.unique().tolist()) <= {0, 1}
    scores = client.call("ScorePredictor", handle=net, dataset=dataset).scores
    assert 0 < scores["mean_iou"] <= 1
    assert "trivial_mean_iou" in scores
    with Refused("INVALID_INPUT", "atlas"):
        client.call(
            "MeasureEquivariance", handle=net, matrices=client.send(QUARTER[None]), samples=1
        )
    with Refused("INVALID_INPUT", "atlas"):
        client.create(
            algebra=objects_pb2.AlgebraSpec(
                solver=block("grassmann"),
                predictor=net,
                dataset=dataset,
                atlas=grid,
                k=1,
                epochs=1,
            )
        )
    with Refused("INVALID_INPUT", "atlas"):
        client.create(
            cosets=objects_pb2.CosetSpec(
                solver=block("multistart"), predictor=net, dataset=dataset, atlas=grid, epochs=1
            )
        )
    with Refused("INVALID_INPUT", "predictor.tensors.algebra", "does not contain the rotations"):
        shear = {"algebra": client.send(SHEAR[None])}
        client.create(predictor=objects_pb2.PredictorSpec(**{**spec, "tensors": shear}))


# A solver that looks at the data alone


class Labelled(fakes.Chain):
    """As a dataset: random fields on a 6×12 lattice with a label at every pixel."""

    outputs = 2

    @property
    def inputs(self) -> torch.Tensor:
        return torch.rand(20, 1, 6, 12, generator=torch.Generator().manual_seed(0))

    @property
    def targets(self) -> torch.Tensor:
        return (self.inputs > 0.5).long()


@register("dataset", "test_labelled", "fields with labels", fakes.ChainParams)
def make_labelled(params: fakes.ChainParams, *, seed: int, **_: Any) -> Labelled:
    return Labelled(params, 0, seed)


def test_a_solver_that_looks_at_the_data_alone(client: Client, objects: Objects) -> None:
    dataset = client.create(dataset=objects_pb2.DatasetSpec(source=block("test_labelled")))
    sphere = action("sphere", charts=[{"latitude": 0, "longitude": 0}], r_in=1, r_out=1)
    given = {
        "solver": block("liegan"),
        "dataset": dataset,
        "atlas": client.create(atlas=sphere),
        "k": 1,
        "epochs": 2,
        "seed": 5,
    }
    handle, later = (client.create(algebra=objects_pb2.AlgebraSpec(**given)) for _ in range(2))
    info = objects.info(handle)
    assert (info.type, info.kind, info.total_epochs) == (
        objects_pb2.OBJECT_TYPE_ALGEBRA,
        "liegan",
        2,
    )
    assert info.memory_bytes > 0
    client.run(handle, until_epoch=1)
    early = objects.snapshot(handle)
    client.run(handle)
    client.call("RestoreSnapshot", handle=later, snapshot=client.send(early))
    client.run(later)
    assert torch.equal(objects.snapshot(later), objects.snapshot(handle))
    answer = client.call("GetAlgebra", handle=handle)
    generators = client.receive(answer.generators)
    assert generators.shape == (1, 3, 3)
    assert torch.equal(generators, -generators.mT)
    assert (len(answer.losses), answer.symmetry_count, len(answer.spectrum)) == (1, 0, 0)
    assert "no symmetry" in answer.explanation
    for changed, field in (
        ({"k": 0}, "algebra.k"),
        ({"k": 4}, "algebra.k"),
        ({"epochs": 0}, "algebra.epochs"),
        ({"atlas": objects.atlas(row=2)}, "algebra.atlas"),
        ({"predictor": "predictor-1"}, "algebra.predictor"),
        ({"solver": block("grassmann")}, None),  # which needs a predictor
        ({"solver": block("liegan", width=0)}, "algebra.solver.params.width"),
    ):
        with Refused("NOT_FOUND" if field is None else "INVALID_INPUT", field):
            client.create(algebra=objects_pb2.AlgebraSpec(**{**given, **changed}))
    other = client.create(algebra=objects_pb2.AlgebraSpec(**{**given, "seed": 6}))
    with Refused("INVALID_INPUT", "snapshot"):
        client.call("RestoreSnapshot", handle=other, snapshot=client.send(early))
