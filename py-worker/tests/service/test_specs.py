"""From a spec to an object: how each bad spec is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from atlas_worker import predictors
from atlas_worker.client import Client
from atlas_worker.gen.atlas.v1 import objects_pb2, tensor_pb2
from atlas_worker.predictors import supervised

from .support import (
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

MINUS_ONE = 2**64 - 1
"""As a negative number is sent."""


def test_atlas_that_leaves_the_lattice(client: Client, objects: Objects) -> None:
    with Refused("INVALID_INPUT", "atlas.action.params.charts[0]", "9x9"):
        objects.predictor(field=(objects.dataset(), objects.atlas(row=8)))


CENTRE = {"row": 0, "col": 0}
NORTH, NOWHERE = {"latitude": 90, "longitude": 0}, {"latitude": 91, "longitude": 0}


@pytest.mark.parametrize(
    ("kind", "params", "field"),
    [
        ("planar", {"r_in": 1, "r_out": 1}, "params.charts"),
        ("planar", {"charts": [], "r_in": 1, "r_out": 1}, "params.charts"),
        ("planar", {"charts": [CENTRE], "r_in": 1}, "params.r_out"),
        ("planar", {"charts": [CENTRE], "r_in": 1, "r_out": 2}, "params.r_out"),
        ("planar", {"charts": [CENTRE], "r_in": 2, "r_out": -1}, "params.r_out"),
        ("planar", {"charts": [CENTRE], "r_in": 2, "r_out": 2, "margin": -1}, "params.margin"),
        ("planar", {"charts": [CENTRE, 3], "r_in": 2, "r_out": 2}, "params.charts[1]"),
        (
            "planar",
            {"charts": [CENTRE | {"row": -1}], "r_in": 2, "r_out": 2},
            "params.charts[0].row",
        ),
        ("planar", {"charts": [{"row": 1}], "r_in": 2, "r_out": 2}, "params.charts[0].col"),
        ("sphere", {"charts": [NORTH], "r_in": 1, "r_out": 2}, "params.r_out"),
        (
            "sphere",
            {"charts": [NORTH, NOWHERE], "r_in": 2, "r_out": 2},
            "params.charts[1].latitude",
        ),
        ("vectors", {}, "params.n"),
        ("icosahedron", {"resolution": 11}, "params.resolution"),
        ("torus", {}, "kind"),
    ],
)
def test_bad_atlas(client: Client, kind: str, params: dict[str, Any], field: str) -> None:
    with Refused("INVALID_INPUT", f"atlas.action.{field}"):
        client.create(atlas=action(kind, **params))


def test_bad_specs(client: Client, objects: Objects) -> None:
    with Refused("INVALID_INPUT", "spec"):
        client.create()
    with Refused("INVALID_INPUT", "atlas.action.kind", "unknown action"):
        client.create(atlas=objects_pb2.AtlasSpec())
    with Refused("INVALID_INPUT", "dataset.source.kind", "unknown dataset"):
        client.create(dataset=objects_pb2.DatasetSpec())
    with Refused("INVALID_INPUT", "dataset.source.params.stepz"):
        objects.dataset(stepz=1)
    for value in (0, -1, 1e300, 1.5, math.nan, math.inf, "3", None, [1], {"a": 1}):
        with Refused("INVALID_INPUT", "dataset.source.params.steps"):
            objects.dataset(steps=value)
    dataset, atlas = objects.dataset(), objects.atlas()
    with Refused("NOT_READY", "dataset"):
        objects.predictor(field=(objects.dataset(run=False), atlas))
    with Refused("NOT_FOUND", "predictor.dataset"):
        objects.predictor(field=("dataset-77", atlas))
    with Refused("INVALID_INPUT", "predictor.atlas", "of type dataset"):
        objects.predictor(field=(dataset, dataset))
    with Refused("INVALID_INPUT", "predictor.epochs"):
        objects.predictor(epochs=-1)
    with Refused("INVALID_INPUT", "predictor.architecture.params.steps"):
        objects.predictor(steps=0)
    with Refused("INVALID_INPUT", "algebra.k"):
        client.create(algebra=objects.algebra_spec(k=0))
    with Refused("INVALID_INPUT", "algebra.k", "5"):
        client.create(algebra=objects.algebra_spec(k=5))
    with Refused("INVALID_INPUT", "algebra.epochs"):
        client.create(algebra=objects.algebra_spec(epochs=0))
    with Refused("NOT_FOUND", "algebra.predictor"):
        client.create(algebra=objects.algebra_spec(predictor="gone"))
    with Refused("INVALID_INPUT", "cosets.solver.kind"):
        client.create(cosets=objects.coset_spec(solver=block("x" * 20_000)))
    for wrong in (torch.eye(3)[None], torch.eye(2), torch.full((1, 2, 2), math.nan)):
        with Refused("INVALID_INPUT") as refused:
            client.create(cosets=objects.coset_spec(identity_algebra=client.send(wrong)))
        assert refused.error.field.startswith("cosets.identity_algebra")


def test_tensors_that_do_not_fit(client: Client, objects: Objects) -> None:
    f32 = tensor_pb2.DATA_TYPE_FLOAT32
    bad = {
        "INVALID_INPUT": [
            tensor_pb2.Tensor(dtype=f32, shape=[3], inline=b"1234"),
            tensor_pb2.Tensor(dtype=f32, shape=[3]),
            tensor_pb2.Tensor(shape=[1], inline=b"1234"),
            tensor_pb2.Tensor(dtype=99, shape=[1], inline=b"1234"),
            tensor_pb2.Tensor(dtype=f32, shape=[1] * 17, inline=b"1234"),
            tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_BOOL, shape=[1], inline=b"\x02"),
        ],
        "LIMIT_EXCEEDED": [
            tensor_pb2.Tensor(dtype=f32, shape=[2**63, 2**63, 2], inline=b""),
            tensor_pb2.Tensor(dtype=f32, shape=[0, MINUS_ONE], inline=b""),
            tensor_pb2.Tensor(dtype=f32, shape=[MINUS_ONE], inline=b"1234"),
            tensor_pb2.Tensor(dtype=f32, shape=[MINUS_ONE, MINUS_ONE], inline=b"1234"),
            tensor_pb2.Tensor(dtype=f32, shape=[20_000], inline=b"0" * 80_000),
        ],
        "NOT_FOUND": [tensor_pb2.Tensor(dtype=f32, shape=[1], ticket="nonsense")],
    }
    for reason, tensors in bad.items():
        for tensor in tensors:
            with Refused(reason) as refused:
                spec = objects_pb2.DatasetSpec(source=objects.block(), tensors={"x": tensor})
                client.create(dataset=spec)
            assert refused.error.field.startswith("dataset.tensors.x")


def test_an_uploaded_tensor_is_used_once_and_checked(client: Client, objects: Objects) -> None:
    sent = client.send(torch.zeros(4), inline=False)
    spec = objects_pb2.DatasetSpec(source=objects.block(), tensors={"x": sent})
    client.create(dataset=spec)
    with Refused("NOT_FOUND", "dataset.tensors.x.ticket"):
        client.create(dataset=spec)
    sent = client.send(torch.zeros(4), inline=False)
    del sent.shape[:]
    sent.shape.extend([2, 2])
    with Refused("INVALID_INPUT", "dataset.tensors.x"):
        client.create(dataset=objects_pb2.DatasetSpec(source=objects.block(), tensors={"x": sent}))


@pytest.mark.parametrize(
    ("kind", "params"), [("heat_equation", {}), ("sphere_digits", {"source": "sklearn"})]
)
def test_data_that_no_memory_holds_are_refused_before_any_is_taken(
    client: Client, kind: str, params: dict[str, str]
) -> None:
    source = block(kind, samples=10**9, **params)
    with Refused("INVALID_INPUT", "dataset", "'s memory") as refused:
        client.create(dataset=objects_pb2.DatasetSpec(source=source))
    assert "number of samples" in refused.error.remedy
    assert not client.call("ListObjects").objects
    few = block(kind, samples=2, **params)
    made = client.call("CreateObject", dataset=objects_pb2.DatasetSpec(source=few)).object
    assert (made.epoch, made.total_epochs) == (0, 1)


def test_how_outputs_are_resampled(client: Client) -> None:
    chart = {"charts": [{"row": 4, "col": 4}], "r_in": 2, "r_out": 1}
    client.create(atlas=action("planar", **chart))
    for name in ("bilinear", "nearest"):
        client.create(atlas=action("planar", output_interpolation=name, **chart))
    with Refused("INVALID_INPUT", "atlas.action.params.output_interpolation", "cubic"):
        client.create(atlas=action("planar", output_interpolation="cubic", **chart))


def test_a_vector_space(client: Client, objects: Objects) -> None:
    info = objects.info(vector_atlas(client, n=4, vector_output=True))
    assert (info.type, info.kind, info.total_epochs) == (
        objects_pb2.OBJECT_TYPE_ATLAS,
        "vectors",
        0,
    )
    for n in (0, 65, 2**31 - 1):
        with Refused("INVALID_INPUT", "atlas.action.params.n", f"n is {n}"):
            vector_atlas(client, n=n)


@pytest.mark.usefixtures("real")
def test_vectors_of_another_dimension_are_refused(client: Client, objects: Objects) -> None:
    three, two = random_points(client, n=3, samples=20), vector_atlas(client, 2)
    with Refused("INVALID_INPUT", "atlas.action.params.n", "[20, 1, 3]"):
        vector_predictor(client, three, two)
    with Refused("INVALID_INPUT", "atlas.action.params.n"):
        vector_predictor(client, objects.dataset(), two)  # fields
    good = vector_predictor(client, three, vector_atlas(client, 3))
    with Refused("INVALID_INPUT", "atlas.action.params.n"):
        client.create(
            algebra=objects_pb2.AlgebraSpec(
                solver=block("grassmann"),
                predictor=good,
                dataset=three,
                atlas=two,
                k=1,
                epochs=1,
            )
        )
    with Refused("INVALID_INPUT", "predictor.architecture.kind"):
        vector_predictor(client, three, vector_atlas(client, 3), kind="strided_cnn")
    answer = client.call("Predict", handle=good, samples=objects_pb2.SampleRange(start=3, count=5))
    assert client.receive(answer.outputs).shape == (5, 1, 1)


def test_an_expression_that_is_refused_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictors, "make_predictor", supervised.make_predictor)
    dataset, atlas = random_points(client, n=2, samples=8), vector_atlas(client, 2)
    for text in ("x1.real", "", "9" * 400, "-" * 900 + "x1", "x1\n+x2"):
        with Refused("INVALID_INPUT", "predictor.architecture.params.expression"):
            vector_predictor(client, dataset, atlas, "expression", expression=text)


def test_files_outside_the_data_root(limited: Callable[..., Client], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    table(tmp_path, "secret.h5")
    table(root)
    (root / "link.h5").symlink_to(tmp_path / "secret.h5")
    client = limited(data_root=root)
    for path in ("../secret.h5", str(tmp_path / "secret.h5"), "link.h5", "a\0b"):
        with Refused("INVALID_INPUT", "dataset.source.params.path"):
            open_table(client, path, run=False)
    with Refused("FILE_MISSING", "dataset.source.params.path", "there is no file"):
        open_table(client, "none.h5", run=False)
    relative, absolute = open_table(client, "t.h5"), open_table(client, str(root / "t.h5"))
    first, second = (
        client.receive(client.call("ReadDataset", handle=h, count=9).inputs)
        for h in (relative, absolute)
    )
    assert torch.equal(first, second)


@pytest.mark.usefixtures("real")
def test_code_is_executed_only_where_it_is_trusted(
    limited: Callable[..., Client], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    touch = "import pathlib, torch\npathlib.Path(__file__).with_suffix('.ran').touch()\n"
    for path in (root / "net.py", tmp_path / "outside.py"):
        path.write_text(f"{touch}def make(): return torch.nn.Conv2d(1, 1, 3, padding=1)\n")
    module = {"kind": "module", "factory": "make", "takes": "chart"}
    wary, trusting = limited(data_root=root), limited(data_root=root, trust_code=True)
    dataset, atlas = fields(wary), planar_atlas(wary)
    for kind, params in (("module", {**module, "file": "net.py"}), ("program", {"file": "net.py"})):
        with Refused("INVALID_INPUT", "predictor.architecture.kind", "is code") as refused:
            vector_predictor(wary, dataset, atlas, **{"kind": kind, **params})
        assert "started to execute its clients' code" in refused.error.expected
    dataset, atlas = fields(trusting), planar_atlas(trusting)
    with Refused(
        "INVALID_INPUT", "predictor.architecture.params.file", "outside the worker's data root"
    ):
        vector_predictor(trusting, dataset, atlas, **module, file="../outside.py")
    assert not list(tmp_path.rglob("*.ran"))
    made = vector_predictor(trusting, dataset, atlas, **module, file="net.py")
    assert [path.name for path in tmp_path.rglob("*.ran")] == ["net.ran"]
    # What was computed from a file is not taken for what an edited one computes.
    snapshot = trusting.call("GetSnapshot", handle=made).snapshot
    (root / "net.py").write_text((root / "net.py").read_text() + "# edited\n")
    edited = vector_predictor(trusting, dataset, atlas, **module, file="net.py")
    with Refused("INVALID_INPUT", "snapshot", "of another predictor"):
        trusting.call("RestoreSnapshot", handle=edited, snapshot=snapshot)
