"""ObjectService: what is made, read, frozen and restored, and how each bad spec is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import grpc
import pytest
import safetensors.torch
import torch
from google.protobuf.json_format import MessageToDict

from atlas_worker.client import Client
from atlas_worker.gen.atlas.v1 import objects_pb2, tensor_pb2
from atlas_worker.service import snapshots
from atlas_worker.service.failures import explain
from atlas_worker.service.server import Worker

from . import fakes
from .support import Objects, Refused


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
        ({"charts": [objects_pb2.Chart()], "r_in": 1, "r_out": 2}, "atlas.r_out"),
        ({"charts": [objects_pb2.Chart()], "r_in": 2, "r_out": 2, "margin": -1}, "atlas.r_out"),
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
    for value in (0, 1.5, math.nan, math.inf, "3", None, [1], {"a": 1}):
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
            tensor_pb2.Tensor(dtype=f32, shape=[0, 2**64 - 1], inline=b""),
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
