"""The tensor plane: round trips, limits, and frames that nobody should send."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
import torch
import zmq
from google.rpc import status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas_worker.client import Client, RemoteError
from atlas_worker.gen.atlas.v1 import tensor_pb2

from .support import Refused

HEADER = tensor_pb2.TensorHeader(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], byte_length=4)


def ticket(client: Client) -> bytes:
    return f"{client.session}.{secrets.token_hex(16)}".encode()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (2, 3, 5)])
def test_round_trip(client: Client, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 3).to(dtype)
    for inline in (True, False):
        if inline:
            assert torch.equal(client.receive(client.send(tensor, inline=True)), tensor)
        else:
            back = client.receive(client.send(tensor, inline=False))
            assert back.dtype == dtype
            assert torch.equal(back, tensor)


def test_a_hundred_megabytes_and_back(client: Client) -> None:
    tensor = torch.arange(25_000_000, dtype=torch.float32)
    assert torch.equal(client.receive(client.send(tensor)), tensor)


def test_a_ticket_is_fetched_once(client: Client) -> None:
    sent = client.send(torch.ones(2), inline=False)
    client.receive(sent)
    with Refused("NOT_FOUND", "ticket"):
        client.receive(sent)


def test_a_ticket_is_not_overwritten(client: Client) -> None:
    sent = client.send(torch.ones(1), inline=False)
    with Refused("INVALID_INPUT", "ticket"):
        client.exchange(b"PUT", sent.ticket.encode(), HEADER.SerializeToString(), b"zero")
    assert client.receive(sent) == 1


def test_limits(limited: Callable[..., Client]) -> None:
    client = limited(max_tensor_bytes=1000, max_session_ticket_bytes=1500)
    client.send(torch.zeros(250), inline=False)
    with Refused("LIMIT_EXCEEDED", "ticket"):
        client.send(torch.zeros(250), inline=False)
    with Refused("LIMIT_EXCEEDED", "header.shape"):
        client.send(torch.zeros(251), inline=False)


def test_a_tensor_comes_in_parts(limited: Callable[..., Client]) -> None:
    client = limited(max_tensor_bytes=1000, max_session_ticket_bytes=1000)
    tensor = torch.arange(100, dtype=torch.float32)
    raw = tensor.numpy().tobytes()
    whole = {"dtype": tensor_pb2.DATA_TYPE_FLOAT32, "shape": [100], "byte_length": 400}

    def put(name: bytes, offset: int, more: bool, *frames: bytes) -> None:
        header = tensor_pb2.TensorHeader(offset=offset, more=more, **whole)
        client.exchange(b"PUT", name, header.SerializeToString(), *frames)

    name = ticket(client)
    put(name, 0, True, raw[:100], raw[100:104])
    with Refused("NOT_FOUND", "ticket"):
        client.exchange(b"GET", name, b"")
    put(name, 104, True, raw[104:300])
    put(name, 300, False, raw[300:])
    sent = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[100], ticket=name.decode())
    assert torch.equal(client.receive(sent), tensor)
    for offset, more, size in ((8, True, 4), (4, True, 396), (4, False, 4), (4, True, 400)):
        put(name, 0, True, raw[:4])
        with Refused("INVALID_INPUT", "header.offset"):
            put(name, offset, more, raw[:size])
    put(name, 0, True, raw[:4])
    put(ticket(client), 0, True, raw[:4])
    with Refused("LIMIT_EXCEEDED", "ticket"):
        put(ticket(client), 0, True, raw[:4])


def test_malformed_requests(client: Client) -> None:
    head = HEADER.SerializeToString()
    name = ticket(client)
    cases: list[tuple[str, list[bytes]]] = [
        ("verb", []),
        ("verb", [b"POKE", name]),
        ("frames", [b"PUT"]),
        ("frames", [b"PUT", name, head]),
        ("frames", [b"GET", name]),
        ("frames", [b"GET", name, head]),
        ("ticket", [b"PUT", b"\xff\xfe", head, b"1234"]),
        ("ticket", [b"PUT", name + b"\n", head, b"1234"]),
        ("ticket", [b"PUT", name.upper(), head, b"1234"]),
        ("ticket", [b"PUT", name[:-1], head, b"1234"]),
        ("header", [b"PUT", name, b"\xff\xff\xff", b"1234"]),
        ("header.dtype", [b"PUT", name, b"", b"1234"]),
        ("body", [b"PUT", name, head, b"12345"]),
        ("body", [b"PUT", name, head, b"1234", b"5"]),
    ]
    for field, frames in cases:
        with Refused("INVALID_INPUT", field):
            client.exchange(*frames)
    wrong = tensor_pb2.TensorHeader(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], byte_length=5)
    with Refused("INVALID_INPUT", "header.byte_length"):
        client.exchange(b"PUT", name, wrong.SerializeToString(), b"12345")
    minus_one = 2**64 - 1  # as a negative number is sent
    for shape in ([2**63, 2**63, 2**62], [minus_one], [minus_one, minus_one], [0, minus_one]):
        huge = tensor_pb2.TensorHeader(
            dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape, byte_length=4
        )
        with Refused("LIMIT_EXCEEDED", "header.shape"):
            client.exchange(b"PUT", name, huge.SerializeToString(), b"1234")
    with Refused("NOT_FOUND", "ticket"):
        client.exchange(b"PUT", b"0" * 32 + name[32:], head, b"1234")
    with Refused("NOT_FOUND", "ticket"):
        client.exchange(b"GET", b"\x00", b"")


frames = st.lists(
    st.one_of(
        st.binary(max_size=40), st.sampled_from([b"PUT", b"GET", b"", HEADER.SerializeToString()])
    ),
    max_size=7,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(frames=frames, request_id=st.one_of(st.just(b"12345678"), st.binary(max_size=12)))
def test_no_frames_do_harm(client: Client, frames: list[bytes], request_id: bytes) -> None:
    socket = client.socket
    socket.send_multipart([request_id, *frames])
    if len(request_id) == 8:
        answered, status, detail = socket.recv_multipart()
        assert (answered, status) == (request_id, b"ERR")
        assert RemoteError(status_pb2.Status.FromString(detail)).reason in (
            "INVALID_INPUT",
            "NOT_FOUND",
            "LIMIT_EXCEEDED",
        )
    assert client.receive(client.send(torch.ones(1), inline=False)) == 1


def test_an_oversized_frame_costs_the_connection_only(limited: Callable[..., Client]) -> None:
    client = limited(max_tensor_bytes=1000)
    with zmq.Context() as context, context.socket(zmq.DEALER) as rude:
        rude.linger = 0
        rude.connect(client.description.data_plane.tensors)
        rude.send_multipart(
            [b"12345678", b"PUT", ticket(client), HEADER.SerializeToString(), bytes(200_000)]
        )
        assert client.receive(client.send(torch.ones(1), inline=False)) == 1
