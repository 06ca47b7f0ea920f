"""A small direct client, for tests and to measure the orchestrator's overhead. Not a public API."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import grpc
import zmq
from google.protobuf import message_factory
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status
from torch import Tensor

from atlas_worker.errors import WorkerError
from atlas_worker.gen.atlas.v1 import job_pb2, objects_pb2, tensor_pb2, worker_pb2
from atlas_worker.service import status, tensor_codec
from atlas_worker.service.limits import Limits
from atlas_worker.service.server import PROTOCOL_VERSION
from atlas_worker.service.tickets import Buffer, Layout

_LIMITS = Limits()


class RemoteError(WorkerError):
    """The error that a worker returned instead of a result."""

    def __init__(self, received: status_pb2.Status) -> None:
        self.reason, error = status.read(received)
        super().__init__(error.message, error.field, error.expected, error.remedy)
        self.code: str = code_pb2.Code.Name(received.code)


class Client:
    """One session with a worker, without TLS.

    ``client.call("GetJob", job_id=…)`` calls an RPC by name and fills in the session. All methods
    raise ``RemoteError`` if the worker refuses a call.

    Args:
        address: ``host:port`` of the worker.
        device: The session's device.
        label: The session's label.
        token: The worker's bearer token, or None.
        ranks: Number of processes that share each training.
    """

    def __init__(
        self,
        address: str,
        device: str = "cpu",
        label: str = "python",
        token: str | None = None,
        ranks: int = 1,
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
        opened = self.call(
            "OpenSession",
            label=label,
            protocol_version=PROTOCOL_VERSION,
            device=device,
            ranks=ranks,
        )
        self.session: str = opened.session_id
        self.device: str = opened.device
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.ipv6 = True
        self.socket.sndtimeo = self.socket.rcvtimeo = 30_000
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
        """Close the connections. The session stays open on the worker."""
        self.channel.close()
        self._context.destroy(linger=0)

    def call(self, name: str, **fields: Any) -> Any:
        """Call an RPC.

        Args:
            name: The RPC's name.
            **fields: Fields of the request. ``session_id`` is filled in.

        Returns:
            The response, or the stream of responses for ``WatchJob``.
        """
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
        """Yield the job's events after sequence number ``after`` until the job ends."""
        try:
            for response in self.call("WatchJob", job_id=job_id, after_sequence=after, **fields):
                yield response.event
        except grpc.RpcError as error:
            raise remote_error(error) from None

    def create(self, **spec: Any) -> str:
        """Create an object, e.g. ``create(dataset=DatasetSpec(…))``, and return its handle."""
        return str(self.call("CreateObject", **spec).object.handle)

    def run(self, handle: str, **options: Any) -> list[job_pb2.JobEvent]:
        """Run a job on an object, wait for its end, and return all its events.

        Raises:
            RemoteError: The job failed.
        """
        job = self.call("StartJob", handle=handle, **options).job
        events = list(self.watch(job.job_id))
        if events[-1].state_changed.HasField("error"):
            raise RemoteError(events[-1].state_changed.error)
        return events

    def send(self, tensor: Tensor, *, inline: bool | None = None) -> tensor_pb2.Tensor:
        """Make a message from a CPU tensor.

        Args:
            tensor: The tensor.
            inline: Whether the message holds the data. By default only small tensors are inline;
                others are uploaded first.

        Returns:
            The message.
        """
        data = tensor_codec.raw_bytes(tensor.contiguous())
        message = tensor_pb2.Tensor(dtype=tensor_codec.CODES[tensor.dtype], shape=tensor.shape)
        if data.nbytes <= _LIMITS.max_inline_bytes if inline is None else inline:
            message.inline = data.tobytes()
        else:
            message.ticket = f"{self.session}.{secrets.token_hex(16)}"
            buffer = Buffer(Layout(tensor.dtype, tuple(tensor.shape), data.nbytes), data)
            frames = tensor_codec.pieces(data, self.description.data_plane.max_frame_bytes)
            self.exchange(b"PUT", message.ticket.encode(), tensor_codec.header(buffer), *frames)
        return message

    def receive(self, message: tensor_pb2.Tensor) -> Tensor:
        """Return a message's tensor, and download it first if the message holds a ticket."""
        if message.WhichOneof("data") == "ticket":
            head, *body = self.exchange(b"GET", message.ticket.encode(), b"")
            header = tensor_pb2.TensorHeader.FromString(bytes(head))
            layout = tensor_codec.layout(header.dtype, header.shape, _LIMITS, "header")
            return tensor_codec.view(Buffer(layout, tensor_codec.joined(body)), "body")
        layout = tensor_codec.layout(message.dtype, message.shape, _LIMITS, "tensor")
        return tensor_codec.view(Buffer(layout, memoryview(bytearray(message.inline))), "tensor")

    def exchange(self, *frames: bytes | memoryview) -> list[memoryview]:
        """Send one request on the tensor plane and return the frames after ``OK``."""
        request_id = secrets.token_bytes(8)
        self.socket.send_multipart([request_id, *frames], copy=False)
        answered, status, *rest = (frame.buffer for frame in self.socket.recv_multipart(copy=False))
        assert answered == request_id
        if bytes(status) != b"OK":
            raise RemoteError(status_pb2.Status.FromString(bytes(rest[0])))
        return rest


def remote_error(error: Any) -> Exception:
    """Return a ``RemoteError`` with the worker's details, or ``error`` itself if it has none."""
    received = rpc_status.from_call(error)
    if received is not None:
        return RemoteError(received)
    assert isinstance(error, Exception)
    return error
