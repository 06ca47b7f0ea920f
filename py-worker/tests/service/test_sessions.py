"""WorkerService, health, reflection, and what a session owns."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from atlas_worker.catalogue import blocks, schema
from atlas_worker.client import Client
from atlas_worker.errors import AddressInUse, InvalidInput
from atlas_worker.gen.atlas.v1 import job_pb2, objects_pb2
from atlas_worker.service import devices, sessions
from atlas_worker.service.server import PROTOCOL_VERSION, Worker

from . import fakes
from .support import (
    Objects,
    Refused,
    block,
    random_points,
    vector_atlas,
    vector_predictor,
    wait_for,
)


def test_describe(client: Client) -> None:
    about = client.call("Describe")
    assert about.protocol_version == PROTOCOL_VERSION
    assert {"python", "torch", "numpy", "grpcio", "platform"} <= set(about.versions)
    assert about.devices[0].name == "cpu"
    assert 0 < about.devices[0].memory_free_bytes <= about.devices[0].memory_total_bytes
    assert about.limits.max_inline_bytes == 65536
    assert about.threads == 1
    assert about.pid > 0
    assert about.machine.cores >= 1
    assert about.machine.processor
    assert about.machine.blas
    told = {(block.type, block.kind): MessageToDict(block.schema) for block in about.blocks}
    chain = told["dataset", "test_chain"]
    assert chain["summary"] == "a hash chain"
    assert chain["params"]["properties"]["steps"] == {
        "type": "integer",
        "default": 3.0,
        "description": "steps an epoch",
        "minimum": 1.0,
        "maximum": 2.0**31 - 1,
    }
    assert told == {(b.type, b.kind): schema(b) for b in blocks()}


def test_another_protocol_version_is_refused_with_both_named(client: Client) -> None:
    with Refused("NOT_READY", "protocol_version") as refused:
        client.call("OpenSession", protocol_version=PROTOCOL_VERSION + 1)
    for version in (PROTOCOL_VERSION, PROTOCOL_VERSION + 1):
        assert str(version) in refused.error.message
    assert "update the worker" in refused.error.remedy
    assert refused.error.code == "FAILED_PRECONDITION"
    with Refused("NOT_READY") as refused:
        client.call("OpenSession")
    assert "update the client" in refused.error.remedy


@pytest.mark.parametrize("device", ["cuda:7", "tpu", "cpu:3"])
def test_an_absent_device_is_refused(client: Client, device: str) -> None:
    with Refused("INVALID_INPUT", "device", device):
        client.call("OpenSession", protocol_version=PROTOCOL_VERSION, device=device)


def test_devices() -> None:
    assert devices.Devices("cpu").find("auto", "device") == [torch.device("cpu")]
    with pytest.raises(InvalidInput, match="cuda:9"):
        devices.Devices("cuda:9")


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a worker with two devices beside the CPU, simulated on it: torch takes cpu:1."""
    simulated = devices.Devices("cpu")
    simulated.preferred = [torch.device("cpu", i) for i in (1, 2)]
    simulated.all += simulated.preferred
    worker = Worker(devices=simulated)
    worker.start()
    yield worker.address
    fakes.GATE.set()
    worker.stop()


def test_sessions_are_placed_where_there_is_least_to_do(two_devices: str) -> None:
    with (
        Client(two_devices, "auto") as first,
        Client(two_devices, "auto") as second,
        Client(two_devices, "cpu:2") as pinned,
        Client(two_devices, "auto") as third,
    ):
        fakes.GATE.clear()
        assert [c.device for c in (first, second, pinned)] == ["cpu:1", "cpu:2", "cpu:2"]
        assert third.device == "cpu:1", "it has fewer sessions"
        both = (first, third)
        handles = [Objects(c).predictor(gate_at=1, epochs=1) for c in both]
        held = [c.call("StartJob", handle=h).job for c, h in zip(both, handles, strict=True)]
        with Client(two_devices, "auto") as fourth:
            assert fourth.device == "cpu:2", "the sessions of the other have work"
            # Work goes on there while the first device is held up.
            fourth.run(Objects(fourth).predictor(epochs=2))
        told = {d.name: (d.sessions, d.waiting) for d in first.call("Describe").devices}
        assert told == {"cpu": (0, 0), "cpu:1": (2, 2), "cpu:2": (2, 0)}
        fakes.GATE.set()
        for client, job in zip(both, held, strict=True):
            list(client.watch(job.job_id))


def test_a_device_without_memory_is_chosen_last(
    two_devices: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"cpu:1": 5, "cpu:2": 60}
    monkeypatch.setattr(sessions, "memory", lambda device: (free[str(device)], 100))
    with Client(two_devices, "auto") as first, Client(two_devices, "auto") as second:
        assert (first.device, second.device) == ("cpu:2", "cpu:2")


@pytest.mark.usefixtures("real")
def test_devices_at_work_together_give_what_each_gives_alone(two_devices: str) -> None:
    def results(clients: list[Client]) -> list[torch.Tensor]:
        jobs = []
        for client in clients:
            dataset, atlas = random_points(client, n=3, samples=512), vector_atlas(client, 3)
            spec = objects_pb2.AlgebraSpec(
                solver=block("grassmann", steps=15, batch_size=64, evaluation=64),
                predictor=vector_predictor(
                    client, dataset, atlas, "expression", expression="sin(x1**2 + x2**2) + x3"
                ),
                dataset=dataset,
                atlas=atlas,
                k=1,
                epochs=2,
            )
            handle = client.create(algebra=spec)
            jobs.append((client, handle, client.call("StartJob", handle=handle).job.job_id))
        for client, _, job in jobs:
            list(client.watch(job))
        return [c.receive(c.call("GetAlgebra", handle=handle).generators) for c, handle, _ in jobs]

    with Client(two_devices, "cpu:1") as first, Client(two_devices, "cpu:2") as second:
        alone = results([first])[0]
        for got in results([first, second]):
            assert torch.equal(got, alone)


def test_the_memory_that_can_be_had_is_some_of_what_there_is() -> None:
    for device in devices.Devices("auto").all:
        described = devices.describe(device, 0, 0)
        free, total = devices.memory(device)
        assert 0 < free <= total
        assert described.memory_total_bytes == total
        assert 0 < described.memory_free_bytes <= total


def test_more_memory_than_can_be_had_is_refused() -> None:
    cpu = torch.device("cpu")
    _, total = devices.memory(cpu)
    for asked in (0, 1, 2**20):
        devices.check_memory(cpu, asked, "dataset", "ask for less")
    for asked in (total + 1, 2**70):
        with pytest.raises(InvalidInput, match=r"GiB of cpu's memory") as refused:
            devices.check_memory(cpu, asked, "dataset", "ask for less")
        assert refused.value.field == "dataset"
        assert "GiB that are free" in refused.value.expected
        assert refused.value.remedy == "ask for less"


def test_closing_frees_and_may_be_repeated(worker: Worker) -> None:
    client = Client(worker.address)
    objects = Objects(client)
    ticket = client.send(torch.ones(3), inline=False).ticket
    handle = objects.predictor(gate_at=1)
    client.call("StartJob", handle=handle)
    client.call("CloseSession")
    client.call("CloseSession")
    with Refused("NOT_FOUND", "session_id"):
        client.call("ListObjects")
    with Refused("NOT_FOUND", "ticket"):
        client.exchange(b"GET", ticket.encode(), b"")
    client.close()


@pytest.mark.parametrize(
    "name",
    "CreateObject DeleteObject ListObjects GetSnapshot RestoreSnapshot LoadWeights ReadDataset "
    "Predict GetAlgebra GetCosets StartJob GetJob ListJobs CancelJob".split(),
)
def test_every_call_names_an_unknown_session(client: Client, name: str) -> None:
    with Refused("NOT_FOUND", "session_id") as refused:
        client.call(name, session_id="nobody")
    assert refused.error.code == "NOT_FOUND"


def test_watching_in_an_unknown_session(client: Client) -> None:
    with Refused("NOT_FOUND", "session_id"):
        list(client.watch("job-1", session_id="nobody"))


def test_sessions_do_not_see_each_other(worker: Worker, client: Client, objects: Objects) -> None:
    handle = objects.atlas()
    ticket = client.send(torch.ones(3), inline=False)
    with Client(worker.address) as other:
        with Refused("NOT_FOUND", "handle"):
            other.call("DeleteObject", handle=handle)
        with Refused("NOT_FOUND", "snapshot.ticket"):
            field = Objects(other)
            other.call("RestoreSnapshot", handle=field.dataset(), snapshot=ticket)


def test_session_limit(limited: Callable[..., Client]) -> None:
    client = limited(max_sessions=1)
    with Refused("LIMIT_EXCEEDED"):
        client.call("OpenSession", protocol_version=PROTOCOL_VERSION)
    client.call("CloseSession")
    client.call("OpenSession", protocol_version=PROTOCOL_VERSION)


def test_a_session_whose_client_vanished_is_closed_and_freed(
    limited: Callable[..., Client],
) -> None:
    client = limited(lease_seconds=0.4)
    objects = Objects(client)
    job = client.call("StartJob", handle=objects.predictor(gate_at=1)).job
    state = weakref.ref(fakes.CONTEXT.pop("predictor"))
    fakes.CONTEXT.clear()
    time.sleep(0.8)
    assert client.call("GetJob", job_id=job.job_id).job.state == job_pb2.JOB_STATE_RUNNING
    fakes.GATE.set()
    list(client.watch(job.job_id))
    wait_for(lambda: state() is None)
    with Refused("NOT_FOUND", "session_id", "lease"):
        client.call("ListObjects")


def test_calls_and_watches_renew_the_lease(limited: Callable[..., Client]) -> None:
    client = limited(lease_seconds=0.4)
    job = client.call("StartJob", handle=Objects(client).predictor(gate_at=1)).job
    events = client.call("WatchJob", job_id=job.job_id)
    for _ in range(8):
        time.sleep(0.1)
        renewed = client.call("RenewLease")
        assert (renewed.device, renewed.lease_seconds) == ("cpu", 0.4)
    fakes.GATE.set()
    assert [r.event.sequence for r in events] == [1, 2, 3, 4, 5, 6, 7]


def test_sessions_that_nobody_closes_make_room_again(limited: Callable[..., Client]) -> None:
    client = limited(max_sessions=8, lease_seconds=2)
    for _ in range(7):
        client.call("OpenSession", protocol_version=PROTOCOL_VERSION)
    with Refused("LIMIT_EXCEEDED", "", "8 open sessions") as refused:
        client.call("OpenSession", protocol_version=PROTOCOL_VERSION)
    assert "2 s" in refused.error.remedy
    time.sleep(2.1)
    for _ in range(8):
        client.call("OpenSession", protocol_version=PROTOCOL_VERSION)


def test_a_repeated_creation_gives_the_first_ones_object(client: Client, objects: Objects) -> None:
    def spec(seed: int, tensor: torch.Tensor) -> dict[str, objects_pb2.DatasetSpec]:
        sent = {"x": client.send(tensor, inline=False)}
        return {"dataset": objects_pb2.DatasetSpec(source=objects.block(), seed=seed, tensors=sent)}

    ones = torch.ones(4)
    handle = client.create(request_id="create-1", **spec(1, ones))
    client.run(handle)
    again = client.call("CreateObject", request_id="create-1", **spec(1, ones)).object
    assert (again.handle, again.epoch) == (handle, 2)
    assert len(client.call("ListObjects").objects) == 1
    for other in (spec(2, ones), spec(1, 2 * ones)):
        with Refused("INVALID_INPUT", "request_id", handle):
            client.create(request_id="create-1", **other)
    client.call("DeleteObject", handle=handle)
    assert client.create(request_id="create-1", **spec(1, ones)) != handle


def test_object_limit(limited: Callable[..., Client]) -> None:
    client = limited(max_session_objects=1)
    Objects(client).atlas()
    with Refused("LIMIT_EXCEEDED", "session_id"):
        Objects(client).atlas()


def test_health_and_reflection(worker: Worker, client: Client) -> None:
    health = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", "atlas.v1.WorkerService", "atlas.v1.JobService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (listed,) = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo(
        iter([ask])
    )
    names = {service.name for service in listed.list_services_response.service}
    assert {"atlas.v1.WorkerService", "atlas.v1.ObjectService", "atlas.v1.JobService"} <= names


def test_a_port_is_for_one_worker(worker: Worker) -> None:
    with pytest.raises(AddressInUse):
        Worker(port=int(worker.address.rpartition(":")[2]))
