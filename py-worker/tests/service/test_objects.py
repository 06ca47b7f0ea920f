"""ObjectService: what is made, read, frozen and restored, and how failures are told."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2, error_details_pb2

from atlas_worker.client import Client, RemoteError
from atlas_worker.errors import (
    Diverged,
    FileMissing,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotReady,
    Unauthenticated,
    WorkerError,
)
from atlas_worker.gen.atlas.v1 import error_pb2, objects_pb2
from atlas_worker.service import snapshots
from atlas_worker.service.server import Worker
from atlas_worker.service.status import explain, read

from . import fakes
from .support import (
    CODES,
    Objects,
    Refused,
)


def test_dataset_from_parameters_and_tensors(client: Client, objects: Objects) -> None:
    large, small = torch.randn(200, 200), torch.tensor([True, False])
    spec = objects_pb2.DatasetSpec(
        source=objects.block(steps=2),
        seed=2**64 - 1,
        tensors={"large": client.send(large), "small": client.send(small)},
    )
    info = client.call("CreateObject", dataset=spec).object
    assert (info.handle, info.type, info.kind, info.epoch, info.total_epochs) == (
        "dataset-1",
        objects_pb2.OBJECT_TYPE_DATASET,
        "test_chain",
        0,
        2,
    )
    made = fakes.CONTEXT["dataset"]
    assert made["seed"] == 2**64 - 1
    assert torch.equal(made["tensors"]["large"], large)
    assert torch.equal(made["tensors"]["small"], small)
    assert not info.HasField("dataset")
    with Refused("NOT_READY", "dataset"):
        client.call("ReadDataset", handle=info.handle, count=1)
    client.run(info.handle)
    made_of = objects.info(info.handle).dataset
    assert list(made_of.inputs_shape) == list(made_of.targets_shape) == [5, 2, 9, 9]
    read = client.call("ReadDataset", handle=info.handle, start=1, count=2)
    assert client.receive(read.inputs).flatten()[0] == 2 * 81
    assert torch.equal(client.receive(read.targets), client.receive(read.inputs) + 1)
    for start, count, field in (
        (5, 1, "start"),
        (0, 0, "count"),
        (4, 2, "count"),
        (0, 2**64 - 1, "count"),
    ):
        with Refused("INVALID_INPUT", field):
            client.call("ReadDataset", handle=info.handle, start=start, count=count)


def test_atlas(client: Client, objects: Objects) -> None:
    info = objects.info(objects.atlas())
    assert (info.type, info.kind, info.total_epochs) == (objects_pb2.OBJECT_TYPE_ATLAS, "planar", 0)
    facts = MessageToDict(info.facts)
    assert facts.pop("groups") == [{"name": "", "n": 2.0, "affine": False, "map": True}]
    assert facts == {"charts": 2.0, "r_in": 2.0, "r_out": 1.0, "margin": 1.0}
    with Refused("INVALID_INPUT", "handle"):
        client.call("GetSnapshot", handle=info.handle)
    with Refused("INVALID_INPUT", "handle"):
        client.call("StartJob", handle=info.handle)


def test_predict(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    crops = torch.randn(70, 2, 2, 5, 5)
    answer = client.call("Predict", handle=handle, crops=client.send(crops))
    assert torch.equal(client.receive(answer.outputs), crops * 2)
    answer = client.call(
        "Predict", handle=handle, samples=objects_pb2.SampleRange(start=3, count=2)
    )
    outputs = client.receive(answer.outputs)
    assert outputs.shape == (2, 2, 2, 5, 5)
    fields = client.receive(client.call("ReadDataset", handle="dataset-1", start=3, count=2).inputs)
    assert torch.equal(outputs[:, 0], 2 * fields[:, :, 2:7, 2:7])
    with Refused("INVALID_INPUT", "crops", "charts"):
        client.call("Predict", handle=handle, crops=client.send(torch.zeros(1, 3, 2, 5, 5)))
    for wrong in (
        torch.zeros(2, 2),
        torch.zeros(0, 2, 2, 5, 5),
        torch.zeros(1, 2, 2, 5, 5, dtype=torch.int64),
    ):
        with Refused("INVALID_INPUT", "crops"):
            client.call("Predict", handle=handle, crops=client.send(wrong))
    large = objects.predictor(field=(objects.dataset(samples=150), "atlas-1"))
    answer = client.call(
        "Predict", handle=large, samples=objects_pb2.SampleRange(start=10, count=140)
    )
    fields = client.receive(
        client.call("ReadDataset", handle="dataset-2", start=10, count=140).inputs
    )
    assert torch.equal(client.receive(answer.outputs)[:, 1], 2 * fields[:, :, 2:7, 2:7])
    with Refused("INVALID_INPUT", "samples.start"):
        client.call("Predict", handle=handle, samples=objects_pb2.SampleRange(start=5, count=1))
    with Refused("INVALID_INPUT", "input"):
        client.call("Predict", handle=handle)
    with Refused("INVALID_INPUT", "handle"):
        client.call("Predict", handle="dataset-1", crops=client.send(crops))


def test_algebra(client: Client, objects: Objects) -> None:
    handle = client.create(algebra=objects.algebra_spec(k=4))
    assert fakes.CONTEXT["algebra"]["k"] == 4
    answer = client.call("GetAlgebra", handle=handle)
    assert torch.equal(client.receive(answer.generators), torch.eye(2)[None])
    assert (list(answer.losses), list(answer.start_losses)) == ([0.5], [0.5, 0.7])
    assert (answer.symmetry_count, answer.explanation) == (1, "one, clearly")
    assert answer.noise_floor == 0.01
    assert answer.spectrum[0].relative_error == 0.1
    with Refused("INVALID_INPUT", "handle"):
        client.call("GetCosets", handle=handle)


def test_cosets(client: Client, objects: Objects) -> None:
    handle = client.create(cosets=objects.coset_spec())
    assert torch.equal(fakes.CONTEXT["cosets"]["identity_algebra"], torch.eye(2)[None])
    answer = client.call("GetCosets", handle=handle)
    kept, duplicate = answer.candidates
    assert kept.outcome == objects_pb2.COSET_OUTCOME_KEPT
    assert duplicate.outcome == objects_pb2.COSET_OUTCOME_DUPLICATE
    assert not kept.HasField("duplicate_of")
    assert duplicate.HasField("duplicate_of")
    assert torch.equal(client.receive(answer.candidates[1].matrix), -torch.eye(2))
    for nothing in (None, client.send(torch.zeros(0, 2, 2))):
        client.create(cosets=objects.coset_spec(identity_algebra=nothing))
        assert fakes.CONTEXT["cosets"]["identity_algebra"].shape == (0, 2, 2)


def test_compare_components(client: Client) -> None:
    matrices = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -1.0])), 2 * torch.eye(2)])
    answer = client.call(
        "CompareComponents", matrices=client.send(matrices), basis=client.send(torch.eye(2)[None])
    )
    assert list(answer.component) == [0, 1, 0]
    assert client.receive(answer.residuals).shape == (3, 3)
    client.call("CompareComponents", matrices=client.send(matrices))
    assert fakes.CONTEXT["compare"]["basis"].shape == (0, 2, 2)
    with Refused("INVALID_INPUT", "basis.shape"):
        client.call(
            "CompareComponents",
            matrices=client.send(matrices),
            basis=client.send(torch.zeros(1, 3, 3)),
        )
    with Refused("INVALID_INPUT", "matrices.ticket"):
        client.call("CompareComponents", matrices=client.send(matrices, inline=False))
    with Refused("LIMIT_EXCEEDED"):
        client.call("CompareComponents", matrices=client.send(torch.ones(2000, 1, 1)))


def test_delete(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    client.call("DeleteObject", handle=handle)
    with Refused("NOT_FOUND", "handle"):
        client.call("DeleteObject", handle=handle)
    assert handle not in [o.handle for o in client.call("ListObjects").objects]
    assert objects.predictor() != handle, "a handle is never given twice"


def test_answers_over_a_limit(limited: Callable[..., Client]) -> None:
    client = limited(max_tensor_bytes=100_000, max_session_ticket_bytes=150_000)
    objects = Objects(client)
    with Refused("LIMIT_EXCEEDED"):
        client.call("ReadDataset", handle=objects.dataset(samples=1000), count=1000)
    with Refused("LIMIT_EXCEEDED"):
        client.call("GetSnapshot", handle=objects.predictor(size=20_000))
    handle = objects.predictor(size=12_000)
    client.call("GetSnapshot", handle=handle)
    with Refused("LIMIT_EXCEEDED", "ticket") as refused:
        client.call("GetSnapshot", handle=handle)
    assert refused.error.code == "RESOURCE_EXHAUSTED"


def test_an_internal_error_is_told_and_logged(
    client: Client,
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = client.create(algebra=objects.algebra_spec())

    def bug(_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(fakes.AlgebraChain, "report", bug)
    with Refused("INTERNAL", text="KeyError") as refused:
        client.call("GetAlgebra", handle=handle)
    assert refused.error.code == "INTERNAL"
    assert "Traceback" in caplog.text


def test_out_of_memory_on_a_gpu() -> None:
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of …"
    )
    told = RemoteError(explain(error, "fitting predictor-1, epoch 1", "predictor"))
    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
    assert told.message == "out of memory while fitting predictor-1, epoch 1 (asked for 20.00 GiB)"
    assert "batch size" in told.remedy


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidInput("m", "f", "e", "r"), "INVALID_INPUT"),
        (FileMissing("m", "f", "e", "r"), "FILE_MISSING"),
        (NotFound("m", "f", "e", "r"), "NOT_FOUND"),
        (NotReady("m", "f", "e", "r"), "NOT_READY"),
        (LimitExceeded("m", "f", "e", "r"), "LIMIT_EXCEEDED"),
        (Unauthenticated("m", "f", "e", "r"), "UNAUTHENTICATED"),
        (Diverged("m", "f", "e", "r"), "DIVERGED"),
    ],
)
def test_an_error_is_a_status_with_details(error: WorkerError, reason: str) -> None:
    made = explain(error, "a test")
    assert (made.code, made.message) == (code_pb2.Code.Value(CODES[reason]), "m")
    info, request, help = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.Help(),
    )
    for detail, message in zip(made.details, (info, request, help), strict=True):
        assert detail.Unpack(message)
    assert (info.reason, info.domain) == (reason, "atlas-symmetry")
    assert [(v.field, v.description) for v in request.field_violations] == [("f", "e")]
    assert [(link.description, link.url) for link in help.links] == [("r", "")]
    told, back = read(made)
    assert told == reason
    assert (back.message, back.field, back.expected, back.remedy) == ("m", "f", "e", "r")
    # Reasons are those of the contract; what an error does not say is left out.
    assert f"ERROR_REASON_{reason}" in error_pb2.ErrorReason.keys()
    assert len(explain(type(error)("m"), "a test").details) == 1


def test_out_of_memory_says_how_much(
    client: Client, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = client.create(algebra=objects.algebra_spec())
    monkeypatch.setattr(fakes.AlgebraChain, "report", lambda _: torch.empty(2**55))
    with Refused("OUT_OF_MEMORY", text=f"asked for {2**57} bytes") as refused:
        client.call("GetAlgebra", handle=handle)
    assert refused.error.code == "RESOURCE_EXHAUSTED"
    assert "lower" in refused.error.remedy


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
        with Refused("INVALID_INPUT", "snapshot"):
            client.call(
                "RestoreSnapshot", handle=handle, snapshot=client.send(objects.snapshot(other))
            )
    # Defaults written out make no difference.
    same = objects.snapshot(objects.predictor(field=field, steps=3))
    client.call("RestoreSnapshot", handle=handle, snapshot=client.send(same))


def test_files_that_are_no_snapshots(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    good = objects.snapshot(handle)
    plain = torch.frombuffer(
        bytearray(safetensors.torch.save({"a": torch.ones(1)})), dtype=torch.uint8
    )
    for bad in (
        good[:-1],
        good[:20],
        good[:0],
        torch.zeros(100, dtype=torch.uint8),
        plain,
        torch.zeros(4),
    ):
        with Refused("INVALID_INPUT", "snapshot"):
            client.call("RestoreSnapshot", handle=handle, snapshot=client.send(bad))
    torn = good.clone()
    torn[8:40] = 255
    with Refused("INVALID_INPUT", "snapshot"):
        client.call("RestoreSnapshot", handle=handle, snapshot=client.send(torn))


class Code:
    """Pickled, a call."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)


def test_pickles_are_refused_and_not_executed(
    client: Client, objects: Objects, tmp_path: Path
) -> None:
    handle, made = objects.predictor(), tmp_path / "executed"
    before = objects.snapshot(handle)
    archive = io.BytesIO()
    torch.save({"weights": Code(made)}, archive)
    for pickled in (pickle.dumps(Code(made)), archive.getvalue()):
        tensor = torch.frombuffer(bytearray(pickled), dtype=torch.uint8)
        for name, field in (("LoadWeights", "weights"), ("RestoreSnapshot", "snapshot")):
            with Refused("INVALID_INPUT", field):
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


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
)
def test_freeze_and_thaw(dtype: torch.dtype) -> None:
    state = {
        "b": torch.ones(3, 2).to(dtype),
        "a": torch.zeros((), dtype=dtype),
        "é": torch.zeros(0, dtype=dtype),
    }
    origin = snapshots.Origin("predictor", "x", "y")
    tensors, metadata, back = snapshots.thaw(
        snapshots.freeze((state, {"epoch": "3"}), origin), "snapshot"
    )
    assert (metadata, back) == ({"epoch": "3"}, origin)
    assert all(
        torch.equal(tensors[name], t) and tensors[name].dtype == dtype for name, t in state.items()
    )


def test_load_weights(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    weights = {"weights": torch.arange(8, dtype=torch.float64)}
    file = torch.frombuffer(bytearray(safetensors.torch.save(weights)), dtype=torch.uint8)
    client.call("LoadWeights", handle=handle, weights=client.send(file))
    frozen = objects.snapshot(handle)
    assert torch.equal(
        safetensors.torch.load(frozen.numpy().tobytes())["weights"], weights["weights"]
    )
    wrong = torch.frombuffer(
        bytearray(safetensors.torch.save({"w": torch.ones(1)})), dtype=torch.uint8
    )
    with Refused("INVALID_INPUT", "weights"):
        client.call("LoadWeights", handle=handle, weights=client.send(wrong))
    assert torch.equal(objects.snapshot(handle), frozen), "half-loaded weights are taken back"
    with Refused("INVALID_INPUT", "weights"):
        client.call(
            "LoadWeights", handle=handle, weights=client.send(objects.snapshot("dataset-1"))
        )
    client.call("LoadWeights", handle=handle, weights=client.send(frozen))
    with Refused("INVALID_INPUT", "handle"):
        client.call("LoadWeights", handle="dataset-1", weights=client.send(file))


def test_large_snapshots_travel_by_ticket(client: Client, objects: Objects) -> None:
    handle = objects.predictor(size=20_000)
    answer = client.call("GetSnapshot", handle=handle)
    assert answer.snapshot.WhichOneof("data") == "ticket"
    frozen = client.receive(answer.snapshot)
    with Refused("NOT_FOUND", "ticket"):
        client.receive(answer.snapshot)
    client.call("RestoreSnapshot", handle=handle, snapshot=client.send(frozen))
