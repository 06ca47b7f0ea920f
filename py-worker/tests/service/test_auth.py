"""Who gets nothing: callers without the token, and ZeroMQ clients without the keys."""

from __future__ import annotations

import resource
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
import zmq
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from zmq.utils.monitor import recv_monitor_message

from atlas_worker.__main__ import main
from atlas_worker.client import Client, remote_error
from atlas_worker.errors import AddressInUse
from atlas_worker.gen.atlas.v1 import tensor_pb2, worker_pb2
from atlas_worker.service.auth import Access
from atlas_worker.service.dataplane import DataPlane
from atlas_worker.service.limits import KIB, MIB, Limits
from atlas_worker.service.server import Worker
from atlas_worker.service.tickets import Tickets

from .support import Refused

TOKEN = "correct-horse-battery-staple"
HANDSHAKE = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Worker]:
    worker = Worker(access=Access(token=TOKEN))
    worker.start()
    yield worker
    worker.stop()


@pytest.mark.parametrize("size", [0, 3, Limits().max_guarded_frame_bytes, 2_000_001])
def test_the_token_opens_everything(guarded: Worker, size: int) -> None:
    tensor = torch.arange(size).to(torch.uint8)
    with Client(guarded.address, token=TOKEN) as client:
        assert client.description.data_plane.HasField("curve"), (
            "the planes ask for keys, as they are on ports"
        )
        assert torch.equal(client.receive(client.send(tensor, inline=False)), tensor)


@pytest.fixture
def folder() -> Iterator[Path]:
    """pytest's own may be too long for a socket."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def test_planes_of_one_user_are_files_in_their_folder(folder: Path) -> None:
    worker = Worker(access=Access(token=TOKEN), plane_folder=folder)
    worker.start()
    assert {file.name for file in folder.iterdir() if file.is_socket()} == {"tensors", "metrics"}
    with Client(worker.address, token=TOKEN) as client:
        plane = client.description.data_plane
        assert (plane.tensors, plane.metrics) == (
            f"ipc://{folder}/tensors",
            f"ipc://{folder}/metrics",
        )
        assert not plane.HasField("curve")
        assert torch.equal(client.receive(client.send(torch.ones(99_999))), torch.ones(99_999))
    worker.stop()


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper()])
def test_any_other_token_opens_nothing(guarded: Worker, token: str | None) -> None:
    with Refused("UNAUTHENTICATED", text="the token is missing or wrong") as refused:
        Client(guarded.address, token=token)
    assert refused.error.code == "UNAUTHENTICATED"
    assert TOKEN not in str(refused.error)


def test_two_tokens_are_none(guarded: Worker) -> None:
    bearer = ("authorization", f"Bearer {TOKEN}")
    with grpc.insecure_channel(guarded.address) as channel:
        describe = channel.unary_unary("/atlas.v1.WorkerService/Describe")
        assert worker_pb2.DescribeResponse.FromString(
            describe(b"", metadata=[bearer])
        ).protocol_version
        with Refused("UNAUTHENTICATED"):
            raise error_of(lambda: describe(b"", metadata=[bearer, bearer]))


def test_without_a_token_there_is_only_the_health_check(guarded: Worker) -> None:
    with grpc.insecure_channel(guarded.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        assert health.Check(request).status == health_pb2.HealthCheckResponse.SERVING
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        for call in (
            lambda: next(health.Watch(request)),
            lambda: next(reflect(iter([question]))),
            lambda: channel.unary_unary("/atlas.v1.WorkerService/NoSuchMethod")(b""),
        ):
            with Refused("UNAUTHENTICATED"):
                raise error_of(call)


def error_of(call: Callable[[], Any]) -> Exception:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return remote_error(error.value)


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    plane = DataPlane("127.0.0.1", Tickets(Limits()), Limits(), encrypted=True)
    plane.start()
    yield plane
    plane.stop()


@pytest.mark.parametrize(
    "keys", ["right", "none", "other pair", "other server", "public key of another"]
)
def test_an_encrypted_plane_answers_those_with_its_keys(plane: DataPlane, keys: str) -> None:
    curve = plane.describe().curve
    public, secret = curve.client_public.encode(), curve.client_secret.encode()
    others_public, others_secret = zmq.curve_keypair()
    with (
        zmq.Context() as context,
        context.socket(zmq.DEALER) as dealer,
        context.socket(zmq.SUB) as feed,
    ):
        refusals = [end.get_monitor_socket(HANDSHAKE) for end in (dealer, feed)]
        for end in (dealer, feed):
            end.linger = 0
            end.rcvtimeo = 30_000
            if keys == "none":
                continue
            end.curve_serverkey = (
                others_public if keys == "other server" else curve.server_public.encode()
            )
            end.curve_publickey = others_public if keys == "other pair" else public
            end.curve_secretkey = secret if keys in ("right", "other server") else others_secret
        feed.subscribe(b"")
        feed.connect(plane.metrics)
        dealer.connect(plane.tensors)
        with suppress(zmq.Again):  # once it is refused it has nobody to send to
            dealer.send_multipart([b"12345678", b"GET", b"ticket", b""], flags=zmq.DONTWAIT)
        for events in refusals:
            assert events.poll(30_000), "it is told whether it is let in"
            event = recv_monitor_message(events)["event"]
            assert (event == zmq.EVENT_HANDSHAKE_SUCCEEDED) == (keys == "right"), event
        for end in (dealer, feed):
            end.disable_monitor()
        if keys != "right":
            plane.publish(tensor_pb2.StepMetrics(job_id="job-1"))
            assert not dealer.poll(200)
            assert not feed.poll(0)
            return
        assert dealer.recv_multipart()[:2] == [b"12345678", b"ERR"]
        while not feed.poll(50):  # the subscription arrives in its own time
            plane.publish(tensor_pb2.StepMetrics(job_id="job-1"))
        assert feed.recv_multipart()[0] == b"job-1"


def test_who_shows_no_key_in_time_is_dropped() -> None:
    limits = Limits(max_handshake_seconds=0.2)
    plane = DataPlane("127.0.0.1", Tickets(limits), limits, encrypted=True)
    plane.start()
    with stranger(plane, limits.max_guarded_frame_bytes) as peer:
        with suppress(ConnectionError):  # it may be dropped already
            peer.sendall(bytes(1000))
        assert hangs_up(peer)
    plane.stop()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no such measure of memory here")
def test_of_what_strangers_send_little_is_kept() -> None:
    limits = Limits(max_handshake_seconds=6.0)
    plane = DataPlane("127.0.0.1", Tickets(limits), limits, encrypted=True)
    plane.start()
    count, most = 200, limits.max_guarded_frame_bytes + KIB
    with ExitStack() as peers:
        before = resident()
        for _ in range(count):
            peer = peers.enter_context(stranger(plane, most))
            peer.sendall(bytes(most - 1))  # the last byte never comes
        assert resident() - before < count * (most + 64 * KIB)
        assert hangs_up(peer)
    with stranger(plane, 2**30) as peer:
        began = time.monotonic()
        with suppress(ConnectionError):
            for _ in range(1024):
                peer.sendall(bytes(MIB))
        assert hangs_up(peer)
        assert time.monotonic() - began < limits.max_handshake_seconds, "at once"
        assert resident() - before < count * (most + 64 * KIB)
    plane.stop()


def stranger(plane: DataPlane, length: int) -> socket.socket:
    """A connection that has greeted as a CURVE client and begun a command of so many bytes.

    See ZMTP 3.0, ZeroMQ RFC 23.
    """
    peer = socket.create_connection(
        ("127.0.0.1", int(plane.tensors.rpartition(":")[2])), timeout=30
    )
    signature, version, mechanism = (
        b"\xff" + bytes(8) + b"\x7f",
        b"\x03\x00",
        b"CURVE".ljust(20, b"\0"),
    )
    peer.sendall(signature + version + mechanism + bytes(32) + b"\x06" + length.to_bytes(8, "big"))
    return peer


def hangs_up(peer: socket.socket) -> bool:
    with suppress(ConnectionError):
        while peer.recv(100):
            pass
    return True


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_ports_of_the_planes() -> None:
    plane = DataPlane("127.0.0.1", Tickets(Limits()), Limits())
    port = int(plane.tensors.rpartition(":")[2])
    with pytest.raises(AddressInUse, match=f"port {port} is in use"):
        DataPlane("127.0.0.1", Tickets(Limits()), Limits(), ports=(0, port))
    plane.stop()
    again = DataPlane("127.0.0.1", Tickets(Limits()), Limits(), ports=(port, 0))
    assert again.tensors == f"tcp://127.0.0.1:{port}"
    again.stop()


def test_health_has_a_port_without_token_or_certificate() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert main(["health", str(port)]) == 1, "nothing listens yet"
    worker = Worker(access=Access(token=TOKEN), health_port=port)
    with pytest.raises(AddressInUse, match=f"port {port} is in use"):
        Worker(health_port=port)
    worker.start()
    assert main(["health", str(port)]) == 0
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        channel.unary_unary("/atlas.v1.WorkerService/Describe")(b"")
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED, "and nothing else is there"
    worker.stop()
    assert main(["health", str(port)]) == 1
