"""ObjectService: what is made, read, frozen and restored, and how each bad spec is refused."""

from __future__ import annotations

import io
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from google.protobuf.json_format import MessageToDict

from atlas_worker import predictors
from atlas_worker.client import Client
from atlas_worker.datasets.base import GivenDataset
from atlas_worker.gen.atlas.v1 import objects_pb2, tensor_pb2
from atlas_worker.predictors import local
from atlas_worker.registry import register
from atlas_worker.service import snapshots
from atlas_worker.service.failures import explain
from atlas_worker.service.server import Worker

from . import fakes
from .support import Objects, Refused

MINUS_ONE = 2**64 - 1
"""As a negative number is sent."""


def test_dataset_from_parameters_and_tensors(client: Client, objects: Objects) -> None:
    large, small = torch.randn(200, 200), torch.tensor([True, False])
    spec = objects_pb2.DatasetSpec(
        source=objects.component(steps=2),
        seed=2**64 - 1,
        tensors={"large": client.send(large), "small": client.send(small)},
    )
    info = client.call("CreateObject", dataset=spec).object
    assert (info.handle, info.role, info.kind, info.epoch, info.total_epochs) == (
        "dataset-1",
        "dataset",
        "test_chain",
        0,
        2,
    )
    made = fakes.CONTEXT["dataset"]
    assert made["seed"] == 2**64 - 1
    assert torch.equal(made["tensors"]["large"], large)
    assert torch.equal(made["tensors"]["small"], small)
    with Refused("not_ready", "dataset"):
        client.call("ReadDataset", handle=info.handle, count=1)
    client.run(info.handle)
    assert MessageToDict(objects.info(info.handle).facts)["inputs"] == [5.0, 2.0, 9.0, 9.0]
    read = client.call("ReadDataset", handle=info.handle, start=1, count=2)
    assert client.receive(read.inputs).flatten()[0] == 2 * 81
    assert torch.equal(client.receive(read.targets), client.receive(read.inputs) + 1)
    for start, count, field in ((5, 1, "start"), (0, 0, "count"), (4, 2, "count"), (0, 2**64 - 1, "count")):
        with Refused("invalid_input", field):
            client.call("ReadDataset", handle=info.handle, start=start, count=count)


def test_atlas(client: Client, objects: Objects) -> None:
    info = objects.info(objects.atlas())
    assert (info.role, info.kind, info.total_epochs) == ("atlas", "planar", 0)
    assert MessageToDict(info.facts) == {"charts": 2.0, "r_in": 2.0, "r_out": 1.0, "margin": 1.0}
    with Refused("invalid_input", "handle"):
        client.call("GetSnapshot", handle=info.handle)
    with Refused("invalid_input", "handle"):
        client.call("StartJob", handle=info.handle)


def test_atlas_that_leaves_the_lattice(client: Client, objects: Objects) -> None:
    with Refused("invalid_input", "atlas.charts[0]", "9x9"):
        objects.predictor(field=(objects.dataset(), objects.atlas(row=8)))


@pytest.mark.parametrize(
    ("planar", "field"),
    [
        ({"r_in": 1}, "atlas.charts"),
        ({"charts": [objects_pb2.Chart()], "r_in": 1, "r_out": 2}, "atlas.planar.r_out"),
        ({"charts": [objects_pb2.Chart()], "r_in": 2, "r_out": 2, "margin": -1}, "atlas.planar.r_out"),
        ({"charts": [objects_pb2.Chart(row=-1)], "r_in": 2, "r_out": 2}, "atlas.charts"),
    ],
)
def test_bad_atlas(client: Client, planar: dict[str, object], field: str) -> None:
    with Refused("invalid_input", field):
        client.create(atlas=objects_pb2.AtlasSpec(planar=objects_pb2.PlanarAtlas(**planar)))


def test_bad_specs(client: Client, objects: Objects) -> None:
    with Refused("invalid_input", "spec"):
        client.create()
    with Refused("invalid_input", "atlas"):
        client.create(atlas=objects_pb2.AtlasSpec())
    with Refused("invalid_input", "dataset.source.kind", "unknown dataset"):
        client.create(dataset=objects_pb2.DatasetSpec())
    with Refused("invalid_input", "dataset.source.params.stepz"):
        objects.dataset(stepz=1)
    for value in (0, -1, 1e300, 1.5, math.nan, math.inf, "3", None, [1], {"a": 1}):
        with Refused("invalid_input", "dataset.source.params.steps"):
            objects.dataset(steps=value)
    dataset, atlas = objects.dataset(), objects.atlas()
    with Refused("not_ready", "dataset"):
        objects.predictor(field=(objects.dataset(run=False), atlas))
    with Refused("not_found", "predictor.dataset"):
        objects.predictor(field=("dataset-77", atlas))
    with Refused("invalid_input", "predictor.atlas", "of role dataset"):
        objects.predictor(field=(dataset, dataset))
    with Refused("invalid_input", "predictor.epochs"):
        objects.predictor(epochs=-1)
    with Refused("invalid_input", "predictor.architecture.params.steps"):
        objects.predictor(steps=0)
    with Refused("invalid_input", "algebra.k"):
        client.create(algebra=objects.algebra_spec(k=0))
    with Refused("invalid_input", "algebra.k", "5"):
        client.create(algebra=objects.algebra_spec(k=5))
    with Refused("invalid_input", "algebra.epochs"):
        client.create(algebra=objects.algebra_spec(epochs=0))
    with Refused("not_found", "algebra.predictor"):
        client.create(algebra=objects.algebra_spec(predictor="gone"))
    with Refused("invalid_input", "cosets.solver.kind"):
        client.create(cosets=objects.coset_spec(solver=objects_pb2.Component(kind="x" * 20_000)))
    for wrong in (torch.eye(3)[None], torch.eye(2), torch.full((1, 2, 2), math.nan)):
        with Refused("invalid_input"):
            client.create(cosets=objects.coset_spec(identity=client.send(wrong)))


def test_tensors_that_do_not_fit(client: Client, objects: Objects) -> None:
    f32 = tensor_pb2.DATA_TYPE_FLOAT32
    bad = {
        "invalid_input": [
            tensor_pb2.Tensor(dtype=f32, shape=[3], inline=b"1234"),
            tensor_pb2.Tensor(dtype=f32, shape=[3]),
            tensor_pb2.Tensor(shape=[1], inline=b"1234"),
            tensor_pb2.Tensor(dtype=99, shape=[1], inline=b"1234"),
            tensor_pb2.Tensor(dtype=f32, shape=[1] * 17, inline=b"1234"),
            tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_BOOL, shape=[1], inline=b"\x02"),
        ],
        "limit_exceeded": [
            tensor_pb2.Tensor(dtype=f32, shape=[2**63, 2**63, 2], inline=b""),
            tensor_pb2.Tensor(dtype=f32, shape=[0, MINUS_ONE], inline=b""),
            tensor_pb2.Tensor(dtype=f32, shape=[MINUS_ONE], inline=b"1234"),
            tensor_pb2.Tensor(dtype=f32, shape=[MINUS_ONE, MINUS_ONE], inline=b"1234"),
            tensor_pb2.Tensor(dtype=f32, shape=[20_000], inline=b"0" * 80_000),
        ],
        "not_found": [tensor_pb2.Tensor(dtype=f32, shape=[1], ticket="nonsense")],
    }
    for code, tensors in bad.items():
        for tensor in tensors:
            with Refused(code) as refused:
                spec = objects_pb2.DatasetSpec(source=objects.component(), tensors={"x": tensor})
                client.create(dataset=spec)
            assert refused.error.field.startswith("dataset.tensors.x")


def test_an_uploaded_tensor_is_used_once_and_checked(client: Client, objects: Objects) -> None:
    sent = client.send(torch.zeros(4), inline=False)
    spec = objects_pb2.DatasetSpec(source=objects.component(), tensors={"x": sent})
    client.create(dataset=spec)
    with Refused("not_found", "dataset.tensors.x.ticket"):
        client.create(dataset=spec)
    sent = client.send(torch.zeros(4), inline=False)
    del sent.shape[:]
    sent.shape.extend([2, 2])
    with Refused("invalid_input", "dataset.tensors.x"):
        client.create(dataset=objects_pb2.DatasetSpec(source=objects.component(), tensors={"x": sent}))


def test_predict(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    crops = torch.randn(70, 2, 2, 5, 5)
    answer = client.call("Predict", handle=handle, crops=client.send(crops))
    assert torch.equal(client.receive(answer.outputs), crops * 2)
    answer = client.call("Predict", handle=handle, samples=objects_pb2.SampleRange(start=3, count=2))
    outputs = client.receive(answer.outputs)
    assert outputs.shape == (2, 2, 2, 5, 5)
    fields = client.receive(client.call("ReadDataset", handle="dataset-1", start=3, count=2).inputs)
    assert torch.equal(outputs[:, 0], 2 * fields[:, :, 2:7, 2:7])
    with Refused("invalid_input", "crops", "charts"):
        client.call("Predict", handle=handle, crops=client.send(torch.zeros(1, 3, 2, 5, 5)))
    for wrong in (
        torch.zeros(2, 2),
        torch.zeros(0, 2, 2, 5, 5),
        torch.zeros(1, 2, 2, 5, 5, dtype=torch.int64),
    ):
        with Refused("invalid_input", "crops"):
            client.call("Predict", handle=handle, crops=client.send(wrong))
    large = objects.predictor(field=(objects.dataset(samples=150), "atlas-1"))
    answer = client.call("Predict", handle=large, samples=objects_pb2.SampleRange(start=10, count=140))
    fields = client.receive(client.call("ReadDataset", handle="dataset-2", start=10, count=140).inputs)
    assert torch.equal(client.receive(answer.outputs)[:, 1], 2 * fields[:, :, 2:7, 2:7])
    with Refused("invalid_input", "samples.start"):
        client.call("Predict", handle=handle, samples=objects_pb2.SampleRange(start=5, count=1))
    with Refused("invalid_input", "input"):
        client.call("Predict", handle=handle)
    with Refused("invalid_input", "handle"):
        client.call("Predict", handle="dataset-1", crops=client.send(crops))


def test_algebra(client: Client, objects: Objects) -> None:
    handle = client.create(algebra=objects.algebra_spec(k=4))
    assert fakes.CONTEXT["algebra"]["k"] == 4
    answer = client.call("GetAlgebra", handle=handle)
    assert torch.equal(client.receive(answer.generators), torch.eye(2)[None])
    assert (list(answer.losses), answer.found, answer.verdict) == ([0.5], 1, "one, clearly")
    assert answer.spectrum[0].relative_error == 0.1
    with Refused("invalid_input", "handle"):
        client.call("GetCosets", handle=handle)


def test_cosets(client: Client, objects: Objects) -> None:
    handle = client.create(cosets=objects.coset_spec())
    assert torch.equal(fakes.CONTEXT["cosets"]["identity"], torch.eye(2)[None])
    answer = client.call("GetCosets", handle=handle)
    assert [c.verdict for c in answer.candidates] == ["kept", "duplicate"]
    assert torch.equal(client.receive(answer.candidates[1].matrix), -torch.eye(2))
    for nothing in (None, client.send(torch.zeros(0, 2, 2))):
        client.create(cosets=objects.coset_spec(identity=nothing))
        assert fakes.CONTEXT["cosets"]["identity"].shape == (0, 2, 2)


def test_compare_components(client: Client) -> None:
    matrices = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -1.0])), 2 * torch.eye(2)])
    answer = client.call(
        "CompareComponents", matrices=client.send(matrices), basis=client.send(torch.eye(2)[None])
    )
    assert list(answer.component) == [0, 1, 0]
    assert client.receive(answer.residuals).shape == (3, 3)
    client.call("CompareComponents", matrices=client.send(matrices))
    assert fakes.CONTEXT["compare"]["basis"].shape == (0, 2, 2)
    with Refused("invalid_input", "basis.shape"):
        client.call(
            "CompareComponents", matrices=client.send(matrices), basis=client.send(torch.zeros(1, 3, 3))
        )
    with Refused("invalid_input", "matrices.ticket"):
        client.call("CompareComponents", matrices=client.send(matrices, inline=False))
    with Refused("limit_exceeded"):
        client.call("CompareComponents", matrices=client.send(torch.ones(2000, 1, 1)))


def test_delete(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    client.call("DeleteObject", handle=handle)
    with Refused("not_found", "handle"):
        client.call("DeleteObject", handle=handle)
    assert handle not in [o.handle for o in client.call("ListObjects").objects]
    assert objects.predictor() != handle, "a handle is never given twice"


@pytest.mark.parametrize("at", range(5))
def test_restored_anywhere_ends_as_if_undisturbed(
    worker: Worker, client: Client, objects: Objects, at: int
) -> None:
    handle = objects.predictor()
    undisturbed = objects.predictor()
    if at:
        client.run(handle, until_epoch=at)
    answer = client.call("GetSnapshot", handle=handle)
    assert answer.epoch == at
    frozen = client.receive(answer.snapshot)
    client.run(undisturbed)
    with Client(worker.address) as later:
        # Other handles, another session: what counts is what the object is made from.
        again = Objects(later)
        again.atlas(row=5)
        resumed = again.predictor()
        info = later.call("RestoreSnapshot", handle=resumed, snapshot=later.send(frozen)).object
        assert info.epoch == at
        later.run(resumed)
        assert torch.equal(again.snapshot(resumed), objects.snapshot(undisturbed))


def test_restoring_backwards(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    client.run(handle, until_epoch=1)
    early = objects.snapshot(handle)
    client.run(handle)
    end = objects.snapshot(handle)
    client.call("RestoreSnapshot", handle=handle, snapshot=client.send(early))
    client.run(handle)
    assert torch.equal(objects.snapshot(handle), end)


def test_snapshots_of_something_else_are_refused(client: Client, objects: Objects) -> None:
    field = objects.dataset(), objects.atlas()
    handle = objects.predictor(field=field)
    others = [
        objects.predictor(field=field, seed=2),
        objects.predictor(field=field, epochs=5),
        objects.predictor(field=field, steps=4),
        objects.predictor(field=(objects.dataset(seed=2), field[1])),
        objects.predictor(field=(field[0], objects.atlas(row=5))),
        client.create(algebra=objects.algebra_spec()),
        objects.dataset(),
    ]
    for other in others:
        with Refused("invalid_input", "snapshot"):
            client.call("RestoreSnapshot", handle=handle, snapshot=client.send(objects.snapshot(other)))
    # Defaults written out make no difference.
    same = objects.snapshot(objects.predictor(field=field, steps=3))
    client.call("RestoreSnapshot", handle=handle, snapshot=client.send(same))


def test_files_that_are_no_snapshots(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    good = objects.snapshot(handle)
    plain = torch.frombuffer(bytearray(safetensors.torch.save({"a": torch.ones(1)})), dtype=torch.uint8)
    for bad in (good[:-1], good[:20], good[:0], torch.zeros(100, dtype=torch.uint8), plain, torch.zeros(4)):
        with Refused("invalid_input", "snapshot"):
            client.call("RestoreSnapshot", handle=handle, snapshot=client.send(bad))
    torn = good.clone()
    torn[8:40] = 255
    with Refused("invalid_input", "snapshot"):
        client.call("RestoreSnapshot", handle=handle, snapshot=client.send(torn))


class Code:
    """Pickled, a call."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)


def test_pickles_are_refused_and_not_executed(client: Client, objects: Objects, tmp_path: Path) -> None:
    handle, made = objects.predictor(), tmp_path / "executed"
    before = objects.snapshot(handle)
    archive = io.BytesIO()
    torch.save({"weights": Code(made)}, archive)
    for pickled in (pickle.dumps(Code(made)), archive.getvalue()):
        tensor = torch.frombuffer(bytearray(pickled), dtype=torch.uint8)
        for name, field in (("LoadWeights", "weights"), ("RestoreSnapshot", "snapshot")):
            with Refused("invalid_input", field):
                client.call(name, handle=handle, **{field: client.send(tensor)})
    assert not made.exists()
    assert torch.equal(objects.snapshot(handle), before)
    pickle.loads(pickle.dumps(Code(made)))
    assert made.exists(), "this is what it would have done"


def test_snapshots_are_safetensors_and_reproducible(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    first = objects.snapshot(handle)
    assert torch.equal(first, objects.snapshot(handle))
    loaded = safetensors.torch.load(first.numpy().tobytes())
    assert set(loaded) == {"digest", "weights"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
def test_freeze_and_thaw(dtype: torch.dtype) -> None:
    state = {
        "b": torch.ones(3, 2).to(dtype),
        "a": torch.zeros((), dtype=dtype),
        "é": torch.zeros(0, dtype=dtype),
    }
    origin = snapshots.Origin("predictor", "x", "y")
    tensors, metadata, back = snapshots.thaw(snapshots.freeze((state, {"epoch": "3"}), origin), "snapshot")
    assert (metadata, back) == ({"epoch": "3"}, origin)
    assert all(torch.equal(tensors[name], t) and tensors[name].dtype == dtype for name, t in state.items())


def test_load_weights(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    weights = {"weights": torch.arange(8, dtype=torch.float64)}
    file = torch.frombuffer(bytearray(safetensors.torch.save(weights)), dtype=torch.uint8)
    client.call("LoadWeights", handle=handle, weights=client.send(file))
    frozen = objects.snapshot(handle)
    assert torch.equal(safetensors.torch.load(frozen.numpy().tobytes())["weights"], weights["weights"])
    wrong = torch.frombuffer(bytearray(safetensors.torch.save({"w": torch.ones(1)})), dtype=torch.uint8)
    with Refused("invalid_input", "weights"):
        client.call("LoadWeights", handle=handle, weights=client.send(wrong))
    assert torch.equal(objects.snapshot(handle), frozen), "half-loaded weights are taken back"
    with Refused("invalid_input", "weights"):
        client.call("LoadWeights", handle=handle, weights=client.send(objects.snapshot("dataset-1")))
    client.call("LoadWeights", handle=handle, weights=client.send(frozen))
    with Refused("invalid_input", "handle"):
        client.call("LoadWeights", handle="dataset-1", weights=client.send(file))


def test_large_snapshots_travel_by_ticket(client: Client, objects: Objects) -> None:
    handle = objects.predictor(size=20_000)
    answer = client.call("GetSnapshot", handle=handle)
    assert answer.snapshot.WhichOneof("data") == "ticket"
    frozen = client.receive(answer.snapshot)
    with Refused("not_found", "ticket"):
        client.receive(answer.snapshot)
    client.call("RestoreSnapshot", handle=handle, snapshot=client.send(frozen))


def test_answers_over_a_limit(limited: Callable[..., Client]) -> None:
    client = limited(max_tensor_bytes=100_000, max_session_ticket_bytes=150_000)
    objects = Objects(client)
    with Refused("limit_exceeded"):
        client.call("ReadDataset", handle=objects.dataset(samples=1000), count=1000)
    with Refused("limit_exceeded"):
        client.call("GetSnapshot", handle=objects.predictor(size=20_000))
    handle = objects.predictor(size=12_000)
    client.call("GetSnapshot", handle=handle)
    with Refused("limit_exceeded", "ticket") as refused:
        client.call("GetSnapshot", handle=handle)
    assert refused.error.status is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_internal_error_is_told_and_logged(
    client: Client, objects: Objects, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handle = client.create(algebra=objects.algebra_spec())

    def bug(_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(fakes.AlgebraChain, "report", bug)
    with Refused("internal", text="KeyError") as refused:
        client.call("GetAlgebra", handle=handle)
    assert refused.error.status is grpc.StatusCode.INTERNAL
    assert "Traceback" in caplog.text


def test_out_of_memory_on_a_gpu() -> None:
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of …"
    )
    status, detail = explain(error, "fitting predictor-1, epoch 1", "predictor")
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail.message == "out of memory while fitting predictor-1, epoch 1 (asked for 20.00 GiB)"
    assert "batch size" in detail.remedy


def test_out_of_memory_says_how_much(
    client: Client, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = client.create(algebra=objects.algebra_spec())
    monkeypatch.setattr(fakes.AlgebraChain, "report", lambda _: torch.empty(2**55))
    with Refused("out_of_memory", text=f"asked for {2**57} bytes") as refused:
        client.call("GetAlgebra", handle=handle)
    assert refused.error.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "lower" in refused.error.remedy


@pytest.mark.parametrize(("kind", "params"), [("heat2d", {}), ("sphere_digits", {"source": "sklearn"})])
def test_data_that_no_memory_holds_are_refused_before_any_is_taken(
    client: Client, kind: str, params: dict[str, str]
) -> None:
    source = component(kind, samples=10**9, **params)
    with Refused("invalid_input", "dataset", "'s memory") as refused:
        client.create(dataset=objects_pb2.DatasetSpec(source=source))
    assert "number of samples" in refused.error.remedy
    assert not client.call("ListObjects").objects
    few = component(kind, samples=2, **params)
    made = client.call("CreateObject", dataset=objects_pb2.DatasetSpec(source=few)).object
    assert (made.epoch, made.total_epochs) == (0, 1)


# Sets of vectors, with the real building blocks


def component(kind: str, **params: Any) -> objects_pb2.Component:
    return objects_pb2.Component(kind=kind, params=params)


def vector_atlas(client: Client, n: int = 2, **fields: Any) -> str:
    return client.create(atlas=objects_pb2.AtlasSpec(vectors=objects_pb2.VectorSpace(n=n, **fields)))


def random_points(client: Client, seed: int = 1, run: bool = True, **params: Any) -> str:
    handle = client.create(dataset=objects_pb2.DatasetSpec(source=component("points", **params), seed=seed))
    if run:
        client.run(handle)
    return handle


def vector_predictor(
    client: Client, dataset: str, atlas: str, kind: str = "mlp", loss: str = "l1", **params: Any
) -> str:
    spec = objects_pb2.PredictorSpec(
        architecture=component(kind, **params),
        training=component("supervised", loss=loss),
        dataset=dataset,
        atlas=atlas,
        epochs=0,
    )
    return client.create(predictor=spec)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "make_predictor", local.make_predictor)
    monkeypatch.setattr(predictors, "make_task", local.make_task)


def table(folder: Path, name: str = "t.h5", m: int = 2, rows: int = 600) -> Path:
    """Light-like vectors with labels, in pandas' layout."""
    g = np.random.default_rng(0)
    p = g.normal(size=(rows, m, 3))
    x = np.concatenate([np.linalg.norm(p, axis=-1, keepdims=True), p], -1).astype(np.float32)
    names = [f"{c}_{i}" for i in range(m) for c in ("E", "PX", "PY", "PZ")]
    dtype = [("index", "<i8"), ("values_block_0", "<f4", (4 * m,)), ("values_block_1", "<i8", (1,))]
    data = np.zeros(rows, dtype)
    data["values_block_0"] = x.reshape(rows, -1)
    data["values_block_1"][:, 0] = np.arange(rows) % 3 == 0
    with h5py.File(folder / name, "w") as file:
        made = file.create_group("table").create_dataset("table", data=data, chunks=(64,))
        for block, columns in (("values_block_0", names), ("values_block_1", ["is_signal_new"])):
            pickled = (
                b"(lp0\n" + b"".join(f"V{c}\np{i + 1}\na".encode() for i, c in enumerate(columns)) + b"."
            )
            made.attrs[f"{block}_kind"] = np.bytes_(pickled)
    return folder / name


def open_table(client: Client, path: str, run: bool = True, **params: Any) -> str:
    source = component("hdf5_table", path=path, items=2, **params)
    handle = client.create(dataset=objects_pb2.DatasetSpec(source=source))
    if run:
        client.run(handle)
    return handle


def test_a_vector_space(client: Client, objects: Objects) -> None:
    info = objects.info(vector_atlas(client, n=4, vector_output=True))
    assert (info.role, info.kind, info.total_epochs) == ("atlas", "vectors", 0)
    for n in (0, 65, 2**31 - 1):
        with Refused("invalid_input", "atlas.vectors.n", f"n is {n}"):
            vector_atlas(client, n=n)


@pytest.mark.usefixtures("real")
def test_vectors_of_another_dimension_are_refused(client: Client, objects: Objects) -> None:
    three, two = random_points(client, n=3, samples=20), vector_atlas(client, 2)
    with Refused("invalid_input", "atlas.vectors.n", "[20, 1, 3]"):
        vector_predictor(client, three, two)
    with Refused("invalid_input", "atlas.vectors.n"):
        vector_predictor(client, objects.dataset(), two)  # fields
    good = vector_predictor(client, three, vector_atlas(client, 3))
    with Refused("invalid_input", "atlas.vectors.n"):
        client.create(
            algebra=objects_pb2.AlgebraSpec(
                solver=component("grassmann"), predictor=good, dataset=three, atlas=two, k=1, epochs=1
            )
        )
    with Refused("invalid_input", "predictor.architecture.kind"):
        vector_predictor(client, three, vector_atlas(client, 3), kind="wide")
    answer = client.call("Predict", handle=good, samples=objects_pb2.SampleRange(start=3, count=5))
    assert client.receive(answer.outputs).shape == (5, 1, 1)


@pytest.mark.usefixtures("real")
def test_the_number_of_generators_is_found_where_the_solver_can(client: Client) -> None:
    dataset, atlas = random_points(client, n=2, samples=512), vector_atlas(client, 2)
    circle = vector_predictor(client, dataset, atlas, "expression", expression="x1**2 + x2**2")
    made = {"predictor": circle, "dataset": dataset, "atlas": atlas, "epochs": 1}
    for kind in ("paper", "test_chain"):
        with Refused("invalid_input", "algebra.k", "k is 0") as refused:
            client.create(algebra=objects_pb2.AlgebraSpec(solver=component(kind), k=0, **made))
        assert "grassmann" in refused.error.remedy
    with Refused("invalid_input", "algebra.k", "5"):
        client.create(algebra=objects_pb2.AlgebraSpec(solver=component("grassmann"), k=5, **made))
    solver = component("grassmann", start="spectral", steps=0, batch_size=64, evaluation=64)
    handle = client.create(algebra=objects_pb2.AlgebraSpec(solver=solver, k=0, **made))
    client.run(handle)
    answer = client.call("GetAlgebra", handle=handle)
    generators = client.receive(answer.generators)
    assert (generators.shape, answer.found, len(answer.spectrum)) == ((1, 2, 2), 1, 4)
    assert (generators[0] + generators[0].T).abs().max() < 1e-3
    # None at all: a tensor without entries travels too, and so does the snapshot.
    bent = vector_predictor(client, dataset, atlas, "expression", expression="sin(x1) + cos(2.3*x2) + x1*x2")
    spec = objects_pb2.AlgebraSpec(solver=solver, k=0, **{**made, "predictor": bent})
    handle = client.create(algebra=spec)
    client.run(handle)
    answer = client.call("GetAlgebra", handle=handle)
    assert (client.receive(answer.generators).shape, answer.found) == ((0, 2, 2), 0)
    again = client.create(algebra=spec)
    frozen = client.receive(client.call("GetSnapshot", handle=handle).snapshot)
    client.call("RestoreSnapshot", handle=again, snapshot=client.send(frozen))
    assert client.call("GetAlgebra", handle=again).verdict == answer.verdict


def test_an_expression_that_is_refused_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "make_predictor", local.make_predictor)
    dataset, atlas = random_points(client, n=2, samples=8), vector_atlas(client, 2)
    for text in ("x1.real", "", "9" * 400, "-" * 900 + "x1", "x1\n+x2"):
        with Refused("invalid_input", "predictor.architecture.params.expression"):
            vector_predictor(client, dataset, atlas, "expression", expression=text)


@pytest.mark.usefixtures("real")
def test_scores_on_a_test_file(limited: Callable[..., Client], tmp_path: Path) -> None:
    table(tmp_path)
    client = limited(data_root=tmp_path)
    dataset, atlas = open_table(client, "t.h5"), vector_atlas(client, 4)
    assert client.receive(client.call("ReadDataset", handle=dataset, count=3).inputs).shape == (3, 2, 4)
    handle = vector_predictor(client, dataset, atlas, loss="cross_entropy", width=4)
    scores = dict(client.call("ScorePredictor", handle=handle, dataset=dataset).scores)
    assert {"accuracy", "accuracy_error", "auc", "auc_error", "rejection_30", "rejection_50"} <= set(scores)
    # As computed from what the predictor answers.
    answer = client.call("Predict", handle=handle, samples=objects_pb2.SampleRange(count=600))
    right = client.receive(answer.outputs)[:, 0].argmax(1) == (torch.arange(600) % 3 == 0)
    assert scores["accuracy"] == pytest.approx(float(right.double().mean()))
    part = open_table(client, "t.h5", samples=10)
    assert client.call("ScorePredictor", handle=handle, dataset=part).scores["accuracy"] == pytest.approx(
        float(right[:10].double().mean())
    )
    with Refused("not_ready"):
        client.call("ScorePredictor", handle=handle, dataset=open_table(client, "t.h5", run=False))
    with Refused("not_found", "handle"):
        client.call("ScorePredictor", handle="predictor-99", dataset=dataset)
    with Refused("not_found", "dataset"):
        client.call("ScorePredictor", handle=handle, dataset="dataset-99")
    with Refused("invalid_input", "dataset"):
        client.call("ScorePredictor", handle=handle, dataset=atlas)
    with Refused("invalid_input", "atlas.vectors.n"):
        other = open_table(client, "t.h5", components="E,PX")
        client.call("ScorePredictor", handle=handle, dataset=other)
    points = random_points(client, n=4, samples=10)
    with Refused("invalid_input", "handle", "classifier"):
        regression = vector_predictor(client, points, atlas)
        client.call("ScorePredictor", handle=regression, dataset=points)


# Equivariance at given matrices, with the real building blocks

QUARTER, SHEAR = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.5], [0.0, 1.0]])


def planar_atlas(client: Client, charts: int = 2, r_in: int = 2, row: int = 4) -> str:
    centres = [objects_pb2.Chart(row=row, col=4 + i) for i in range(charts)]
    planar = objects_pb2.PlanarAtlas(charts=centres, r_in=r_in, r_out=1, margin=1)
    return client.create(atlas=objects_pb2.AtlasSpec(planar=planar))


def fields(client: Client, channels: int = 1, samples: int = 5, side: int = 12) -> str:
    x = torch.randn(samples, channels, side, side, generator=torch.Generator().manual_seed(0))
    tensors = {"inputs": client.send(x), "targets": client.send(x[:, :1])}
    return client.create(
        dataset=objects_pb2.DatasetSpec(source=component("arrays"), tensors=tensors),
    )


@pytest.mark.usefixtures("real")
def test_equivariance_at_matrices(client: Client) -> None:
    dataset, atlas = fields(client), planar_atlas(client)
    net = vector_predictor(client, dataset, atlas, "published", width=4)
    given = {"handle": net, "matrices": client.send(torch.stack([torch.eye(2), QUARTER])), "samples": 9}
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
    assert [m.resampling for m in answer.measured] == [0, 0, 0]


@pytest.mark.usefixtures("real")
def test_equivariance_of_what_does_not_fit_is_refused(client: Client) -> None:
    dataset, atlas = fields(client), planar_atlas(client)
    net = vector_predictor(client, dataset, atlas, "published", width=4)
    points, plane = random_points(client, n=2, samples=8), vector_atlas(client, 2)
    sphere = objects_pb2.SphereAtlas(charts=[objects_pb2.SphereChart()] * 2, r_in=2, r_out=1)
    on_sphere = client.create(atlas=objects_pb2.AtlasSpec(sphere=sphere))
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
        ({"atlas": planar_atlas(client, row=10)}, "atlas.charts[0]"),  # off the lattice
        ({"dataset": atlas}, "dataset"),
        ({"dataset": points}, "dataset"),
        ({"dataset": fields(client, channels=2)}, "dataset"),
        ({"dataset": fields(client, side=14)}, "dataset"),
    ):
        with Refused("invalid_input", field):
            client.call("MeasureEquivariance", **{**good, **changed})
    singular = torch.stack([QUARTER, SHEAR, torch.ones(2, 2)])
    with Refused("invalid_input", "matrices", "matrix 2"):
        client.call("MeasureEquivariance", **{**good, "matrices": client.send(singular)})
    for name in ("handle", "atlas", "dataset"):
        with Refused("not_found", name):
            client.call("MeasureEquivariance", **{**good, name: "gone"})
    with Refused("not_ready"):
        heat = client.create(dataset=objects_pb2.DatasetSpec(source=component("heat2d", samples=8, side=32)))
        client.call("MeasureEquivariance", **{**good, "dataset": heat})
    with Refused("limit_exceeded"):
        many = client.send(QUARTER.expand(200_000, 2, 2).contiguous(), inline=False)
        client.call("MeasureEquivariance", **{**good, "matrices": many})
    linear = vector_predictor(client, points, plane, "mlp", width=4)
    good["handle"] = linear
    for other in (vector_atlas(client, 3), vector_atlas(client, 2, vector_output=True)):
        with Refused("invalid_input", "atlas", "R^"):
            client.call("MeasureEquivariance", **{**good, "atlas": other})
    three = random_points(client, n=3, samples=8)
    with Refused("invalid_input", "dataset", "[1, 3]"):
        client.call("MeasureEquivariance", **{**good, "dataset": three})


@register("dataset", "test_classes", "fields with classes on a lattice of a sphere", fakes.ChainParams)
class Classes(GivenDataset):
    kind = "test_classes"
    outputs, background, classes = 2, 0, ("low", "high")

    def __init__(self, params: fakes.ChainParams, **_: Any) -> None:
        self.inputs = torch.rand(params.samples, 1, 6, 12, generator=torch.Generator().manual_seed(0))
        self.targets = (self.inputs > 0.5).byte()
        self.coordinates = (torch.linspace(-90, 90, 6), torch.arange(12) * 30.0)


@pytest.mark.usefixtures("real")
def test_a_network_on_the_icosahedral_grid(client: Client, objects: Objects) -> None:
    dataset = client.create(dataset=objects_pb2.DatasetSpec(source=component("test_classes", samples=4)))
    grid = client.create(atlas=objects_pb2.AtlasSpec(icosahedron=objects_pb2.IcosahedralGrid(resolution=2)))
    assert dict(objects.info(grid).facts) == {"charts": 1, "resolution": 2}
    spec = {
        "architecture": component("icosahedral_unet", levels=2, width=2),
        "training": component("supervised", loss="jaccard", batch_size=2),
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
    classes = client.receive(client.call("Predict", handle=net, samples=samples, classes=True).outputs)
    assert classes.shape == (3, 6, 12)
    assert set(classes.unique().tolist()) <= {0, 1}
    scores = client.call("ScorePredictor", handle=net, dataset=dataset).scores
    assert 0 < scores["mean_iou"] <= 1
    assert "trivial_mean_iou" in scores
    with Refused("invalid_input", "atlas"):
        client.call("MeasureEquivariance", handle=net, matrices=client.send(QUARTER[None]), samples=1)
    with Refused("invalid_input", "atlas"):
        client.create(
            algebra=objects_pb2.AlgebraSpec(
                solver=component("grassmann"), predictor=net, dataset=dataset, atlas=grid, k=1, epochs=1
            )
        )
    with Refused("invalid_input", "atlas"):
        client.create(
            cosets=objects_pb2.CosetSpec(
                solver=component("descent"), predictor=net, dataset=dataset, atlas=grid, epochs=1
            )
        )
    with Refused("invalid_input", "predictor.tensors.algebra", "no rotations"):
        shear = {"algebra": client.send(SHEAR[None])}
        client.create(predictor=objects_pb2.PredictorSpec(**{**spec, "tensors": shear}))
    with Refused("invalid_input", "atlas.icosahedron.resolution"):
        client.create(atlas=objects_pb2.AtlasSpec(icosahedron=objects_pb2.IcosahedralGrid(resolution=11)))


def test_how_outputs_are_resampled(client: Client) -> None:
    chart = {"charts": [objects_pb2.Chart(row=4, col=4)], "r_in": 2, "r_out": 1}
    for name in ("", "bilinear", "nearest"):
        client.create(
            atlas=objects_pb2.AtlasSpec(planar=objects_pb2.PlanarAtlas(output_interpolation=name, **chart))
        )
    with Refused("invalid_input", "atlas.planar.output_interpolation", "cubic"):
        client.create(
            atlas=objects_pb2.AtlasSpec(planar=objects_pb2.PlanarAtlas(output_interpolation="cubic", **chart))
        )


def test_files_outside_the_data_root(limited: Callable[..., Client], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    table(tmp_path, "secret.h5")
    table(root)
    (root / "link.h5").symlink_to(tmp_path / "secret.h5")
    client = limited(data_root=root)
    for path in ("../secret.h5", str(tmp_path / "secret.h5"), "link.h5", "a\0b"):
        with Refused("invalid_input", "dataset.source.params.path"):
            open_table(client, path, run=False)
    with Refused("invalid_input", "dataset.source.params.path", "there is no file"):
        open_table(client, "none.h5", run=False)
    relative, absolute = open_table(client, "t.h5"), open_table(client, str(root / "t.h5"))
    first, second = (
        client.receive(client.call("ReadDataset", handle=h, count=9).inputs) for h in (relative, absolute)
    )
    assert torch.equal(first, second)


@pytest.mark.usefixtures("real")
def test_code_is_executed_only_where_it_is_trusted(limited: Callable[..., Client], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    touch = "import pathlib, torch\npathlib.Path(__file__).with_suffix('.ran').touch()\n"
    for path in (root / "net.py", tmp_path / "outside.py"):
        path.write_text(f"{touch}def make(): return torch.nn.Conv2d(1, 1, 3, padding=1)\n")
    module = {"kind": "module", "factory": "make", "takes": "chart"}
    wary, trusting = limited(data_root=root), limited(data_root=root, trust_code=True)
    dataset, atlas = fields(wary), planar_atlas(wary)
    for kind, params in (("module", {**module, "file": "net.py"}), ("program", {"file": "net.py"})):
        with Refused("invalid_input", "predictor.architecture.kind", "is code") as refused:
            vector_predictor(wary, dataset, atlas, **{"kind": kind, **params})
        assert "--trust-code" in refused.error.expected
    dataset, atlas = fields(trusting), planar_atlas(trusting)
    with Refused("invalid_input", "predictor.architecture.params.file", "outside the worker's data root"):
        vector_predictor(trusting, dataset, atlas, **module, file="../outside.py")
    assert not list(tmp_path.rglob("*.ran"))
    made = vector_predictor(trusting, dataset, atlas, **module, file="net.py")
    assert [path.name for path in tmp_path.rglob("*.ran")] == ["net.ran"]
    # What was computed from a file is not taken for what an edited one computes.
    snapshot = trusting.call("GetSnapshot", handle=made).snapshot
    (root / "net.py").write_text((root / "net.py").read_text() + "# edited\n")
    edited = vector_predictor(trusting, dataset, atlas, **module, file="net.py")
    with Refused("invalid_input", "snapshot", "of another predictor"):
        trusting.call("RestoreSnapshot", handle=edited, snapshot=snapshot)


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
    dataset = client.create(dataset=objects_pb2.DatasetSpec(source=component("test_labelled")))
    sphere = objects_pb2.SphereAtlas(charts=[objects_pb2.SphereChart()], r_in=1, r_out=1)
    given = {
        "solver": component("liegan"),
        "dataset": dataset,
        "atlas": client.create(atlas=objects_pb2.AtlasSpec(sphere=sphere)),
        "k": 1,
        "epochs": 2,
        "seed": 5,
    }
    handle, later = (client.create(algebra=objects_pb2.AlgebraSpec(**given)) for _ in range(2))
    info = objects.info(handle)
    assert (info.role, info.kind, info.total_epochs) == ("algebra", "liegan", 2)
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
    assert (len(answer.losses), answer.found, len(answer.spectrum)) == (1, 0, 0)
    assert "no symmetry" in answer.verdict
    for changed, field in (
        ({"k": 0}, "algebra.k"),
        ({"k": 4}, "algebra.k"),
        ({"epochs": 0}, "algebra.epochs"),
        ({"atlas": objects.atlas(row=2)}, "algebra.atlas"),
        ({"predictor": "predictor-1"}, "algebra.predictor"),
        ({"solver": component("grassmann")}, None),  # which needs a predictor
        ({"solver": component("liegan", width=0)}, "algebra.solver.params.width"),
    ):
        with Refused("not_found" if field is None else "invalid_input", field):
            client.create(algebra=objects_pb2.AlgebraSpec(**{**given, **changed}))
    other = client.create(algebra=objects_pb2.AlgebraSpec(**{**given, "seed": 6}))
    with Refused("invalid_input", "snapshot"):
        client.call("RestoreSnapshot", handle=other, snapshot=client.send(early))
