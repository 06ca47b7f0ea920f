"""A small direct client, for tests and for measuring what the orchestrator adds. Not a public API."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import grpc
import zmq
from google.protobuf import message_factory
from torch import Tensor

from atlas_worker.errors import WorkerError
from atlas_worker.gen.atlas.v1 import error_pb2, job_pb2, objects_pb2, tensor_pb2, worker_pb2
from atlas_worker.service import wire
from atlas_worker.service.failures import METADATA_KEY
from atlas_worker.service.limits import Limits
from atlas_worker.service.server import PROTOCOL_VERSION
from atlas_worker.service.tickets import Buffer, Layout

_LIMITS = Limits()


class RemoteError(WorkerError):
    """What a worker answered instead of a result."""

    def __init__(self, detail: error_pb2.ErrorDetail, status: grpc.StatusCode | None = None) -> None:
        super().__init__(detail.message, detail.field, detail.expected, detail.remedy)
        self.code, self.status = detail.code, status


class Client:
    """One session with the worker at ``address``, without TLS. RPCs are methods by name: ``client.call("GetJob", job_id=…)``
    fills in the session. Raises ``RemoteError``."""

    def __init__(
        self, address: str, device: str = "cpu", label: str = "python", token: str | None = None
    ) -> None:
        self.target = address
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self.channel = grpc.insecure_channel(
            address, [("grpc.max_receive_message_length", _LIMITS.max_message_bytes)]
        )
        self._methods = {
            rpc.name: (rpc, service.full_name)
            for file in (worker_pb2, objects_pb2, job_pb2)
            for service in file.DESCRIPTOR.services_by_name.values()
            for rpc in service.methods
        }
        self.description = self.call("Describe")
        opened = self.call("OpenSession", label=label, protocol_version=PROTOCOL_VERSION, device=device)
        self.session: str = opened.session_id
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.ipv6 = True
        self.socket.rcvtimeo = 30_000
        plane = self.description.data_plane
        if plane.HasField("curve"):
            self.socket.curve_serverkey = plane.curve.server_public.encode()
            self.socket.curve_publickey = plane.curve.client_public.encode()
            self.socket.curve_secretkey = plane.curve.client_secret.encode()
        self.socket.connect(plane.tensors)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.call("CloseSession")
        self.close()

    def close(self) -> None:
        """Hang up; the session stays."""
        self.channel.close()
        self._context.destroy(linger=0)

    def call(self, name: str, **fields: Any) -> Any:
        """A unary RPC; the stream itself for ``WatchJob``."""
        rpc, service = self._methods[name]
        if "session_id" in rpc.input_type.fields_by_name and name != "OpenSession":
            fields.setdefault("session_id", self.session)
        request = message_factory.GetMessageClass(rpc.input_type)(**fields)
        stub = self.channel.unary_stream if rpc.server_streaming else self.channel.unary_unary
        read = message_factory.GetMessageClass(rpc.output_type).FromString
        method: Any = stub(f"/{service}/{rpc.name}", type(request).SerializeToString, read)
        try:
            return method(request, metadata=self._metadata)
        except grpc.RpcError as error:
            raise remote_error(error) from None

    def watch(self, job_id: str, after: int = 0, **fields: Any) -> Iterator[job_pb2.JobEvent]:
        """Events after sequence ``after`` until the job is over."""
        try:
            for response in self.call("WatchJob", job_id=job_id, after_sequence=after, **fields):
                yield response.event
        except grpc.RpcError as error:
            raise remote_error(error) from None

    def create(self, **spec: Any) -> str:
        """The handle of a new object: ``create(dataset=DatasetSpec(…))``."""
        return str(self.call("CreateObject", **spec).object.handle)

    def run(self, handle: str, **options: Any) -> list[job_pb2.JobEvent]:
        """Advance an object and wait; every event of the job. Raises ``RemoteError`` when the job failed."""
        job = self.call("StartJob", handle=handle, **options).job
        events = list(self.watch(job.job_id))
        if events[-1].state_changed.HasField("error"):
            raise RemoteError(events[-1].state_changed.error)
        return events

    def send(self, tensor: Tensor, *, inline: bool | None = None) -> tensor_pb2.Tensor:
        """A message for a CPU tensor, uploaded when it is large."""
        data = wire.raw_bytes(tensor.contiguous())
        message = tensor_pb2.Tensor(dtype=wire.CODES[tensor.dtype], shape=tensor.shape)
        if data.nbytes <= _LIMITS.max_inline_bytes if inline is None else inline:
            message.inline = data.tobytes()
        else:
            message.ticket = f"{self.session}.{secrets.token_hex(16)}"
            buffer = Buffer(Layout(tensor.dtype, tuple(tensor.shape), data.nbytes), data)
            frames = wire.pieces(data, self.description.data_plane.max_frame_bytes)
            self.exchange(b"PUT", message.ticket.encode(), wire.header(buffer), *frames)
        return message

    def receive(self, message: tensor_pb2.Tensor) -> Tensor:
        """The tensor of a message, fetched when it has a ticket."""
        if message.WhichOneof("data") == "ticket":
            head, *body = self.exchange(b"GET", message.ticket.encode(), b"")
            header = tensor_pb2.TensorHeader.FromString(bytes(head))
            layout = wire.layout(header.dtype, header.shape, _LIMITS, "header")
            return wire.view(Buffer(layout, wire.joined(body)), "body")
        layout = wire.layout(message.dtype, message.shape, _LIMITS, "tensor")
        return wire.view(Buffer(layout, memoryview(bytearray(message.inline))), "tensor")

    def exchange(self, *frames: bytes | memoryview) -> list[memoryview]:
        """One request on the tensor plane; the frames after ``OK``."""
        request_id = secrets.token_bytes(8)
        self.socket.send_multipart([request_id, *frames], copy=False)
        answered, status, *rest = (frame.buffer for frame in self.socket.recv_multipart(copy=False))
        assert answered == request_id
        if bytes(status) != b"OK":
            raise RemoteError(error_pb2.ErrorDetail.FromString(bytes(rest[0])))
        return rest


def remote_error(error: Any) -> Exception:
    """``RemoteError`` with the worker's detail, if there is one."""
    for key, value in error.trailing_metadata() or ():
        if key == METADATA_KEY:
            return RemoteError(error_pb2.ErrorDetail.FromString(value), error.code())
    assert isinstance(error, Exception)
    return error
