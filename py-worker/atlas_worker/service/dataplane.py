"""The ZeroMQ planes: tensors by ticket over a ROUTER, live step metrics over a PUB.

Messages of the tensor plane have these frames after the routing identity, which a DEALER does not
see:

======== ===================================================================
PUT      ``[request_id (8 bytes), b"PUT", ticket, TensorHeader, raw buffer …]``;
         a large tensor may come in several such messages, whose headers say so;
         so does a file, whose header has its name
GET      ``[request_id, b"GET", ticket, b""]``
answers  ``[request_id, b"OK"]``, ``[request_id, b"OK", TensorHeader, raw buffer …]``,
         ``[request_id, b"ERR", google.rpc.Status]``
======== ===================================================================

A ticket is ``<session id>.<32 lower-case hex digits>``. The client chooses the ticket of a PUT, the
worker that of a tensor to fetch. A ticket ends with the first GET that is answered. Buffers are
row-major and little-endian. They are copied only by the sockets themselves.

Messages of the metrics plane are ``[job_id, StepMetrics]``. Those to a slow subscriber are dropped.

With encryption both sockets are CURVE servers (CurveZMQ, ZeroMQ RFC 26). They admit the holders of
one client key pair, which ``describe`` gives to everyone who may call it, and refuse all other
handshakes (ZAP, RFC 27). Buffers then travel in pieces of ``max_guarded_frame_bytes``. So larger
frames, which ZeroMQ would store for anyone until the handshake ends, need not be allowed. Sockets
in a folder that only the worker's user may enter need no keys.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import zmq
from google.protobuf.message import DecodeError
from zmq.utils import z85

from atlas_worker.errors import AddressInUse, InvalidInput
from atlas_worker.gen.atlas.v1 import tensor_pb2, worker_pb2
from atlas_worker.service import tensor_codec
from atlas_worker.service.limits import KIB, Limits
from atlas_worker.service.status import explain
from atlas_worker.service.tickets import Buffer, Tickets

log = logging.getLogger("atlas_worker")

_METRICS_HWM = 1000
"""Metrics that wait for a slow subscriber, at most."""
_POLL_MS = 200
_REQUEST_ID_BYTES = 8
_ZAP = "inproc://zeromq.zap.01"
"""Address at which ZeroMQ asks about handshakes (RFC 27)."""


class DataPlane:
    """Both sockets. They serve from ``start`` to ``stop``.

    Args:
        host: Address to bind to.
        tickets: The buffers.
        limits: The worker's limits.
        ports: Ports of the tensor plane and the metrics plane; 0 for a free port.
        folder: Folder for sockets instead of ports, or None.
        encrypted: Whether clients need keys.

    Raises:
        AddressInUse: A port cannot be bound.
    """

    def __init__(
        self,
        host: str,
        tickets: Tickets,
        limits: Limits,
        *,
        ports: tuple[int, int] = (0, 0),
        folder: Path | None = None,
        encrypted: bool = False,
    ) -> None:
        self._tickets, self._limits = tickets, limits
        self._stopping = threading.Event()
        self._refused = 0
        self._publishing = threading.Lock()  # ZeroMQ allows one thread at a time on a socket
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._publisher = self._context.socket(zmq.PUB)
        for socket in (self._router, self._publisher):
            socket.linger = 0
            socket.ipv6 = ":" in host
            socket.handshake_ivl = round(1000 * limits.max_handshake_seconds)
        self._curve = self._encrypt() if encrypted else None
        # The first frame of this kind opens files, and later there may be none left to open.
        zmq.Frame(bytes(zmq.COPY_THRESHOLD), copy=False)
        self._max_frame = limits.max_guarded_frame_bytes if encrypted else 0
        # ZeroMQ drops the connection for a larger frame. The bytes that encryption adds count.
        self._router.maxmsgsize = (self._max_frame or limits.max_tensor_bytes) + KIB
        # Limits what one client can have sent that is not yet read.
        self._router.rcvhwm = 4
        # An answer that cannot be sent raises an error, so that its ticket stays.
        self._router.router_mandatory = True
        self._publisher.sndhwm = _METRICS_HWM
        self._publisher.maxmsgsize = 64 * KIB  # it receives subscriptions only
        try:
            if folder is not None:
                self.tensors = _bind(self._router, f"ipc://{folder / 'tensors'}")
                self.metrics = _bind(self._publisher, f"ipc://{folder / 'metrics'}")
            else:
                self.tensors = _bind_port(self._router, host, ports[0])
                self.metrics = _bind_port(self._publisher, host, ports[1])
        except (AddressInUse, zmq.ZMQError):
            self._context.destroy(linger=0)
            raise
        self._thread = threading.Thread(target=self._serve, name="tensor-plane", daemon=True)

    def start(self) -> None:
        """Start the thread of the tensor plane."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close the sockets."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._publishing:
            self._context.destroy(linger=0)

    def describe(self) -> worker_pb2.DataPlane:
        """Return the addresses and, with encryption, the keys: for authorised clients only."""
        return worker_pb2.DataPlane(
            tensors=self.tensors,
            metrics=self.metrics,
            curve=self._curve,
            max_frame_bytes=self._max_frame,
            accepts_parts=True,
            accepts_files=True,
        )

    def _encrypt(self) -> worker_pb2.CurveKeys:
        # Bound before the other sockets: a handshake without a handler would not be refused.
        self._handshakes = self._context.socket(zmq.REP)
        self._handshakes.linger = 0
        self._handshakes.bind(_ZAP)
        server_public, server_secret = zmq.curve_keypair()
        client_public, client_secret = zmq.curve_keypair()
        for socket in (self._router, self._publisher):
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = server_public, server_secret
            socket.zap_domain = b"atlas"
        return worker_pb2.CurveKeys(
            server_public=server_public.decode(),
            client_public=client_public.decode(),
            client_secret=client_secret.decode(),
        )

    def publish(self, metrics: tensor_pb2.StepMetrics) -> None:
        """Send metrics to the subscribers without waiting. May be called from any thread."""
        with self._publishing:
            if not self._publisher.closed:
                try:
                    self._publisher.send_multipart(
                        [metrics.job_id.encode(), metrics.SerializeToString()], flags=zmq.DONTWAIT
                    )
                except zmq.Again:
                    pass

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        if self._curve is not None:
            poller.register(self._handshakes, zmq.POLLIN)
            known = z85.decode(self._curve.client_public)
        while not self._stopping.is_set():
            events = dict(poller.poll(_POLL_MS))
            if self._curve is not None and self._handshakes in events:
                self._admit(known)
            if self._router in events:
                frames = self._router.recv_multipart(copy=False)
                try:
                    self._answer(frames)
                except Exception:
                    log.exception(
                        "the tensor plane could not answer a message of %d frames", len(frames)
                    )

    def _admit(self, known: bytes) -> None:
        """Answer one ZAP request.

        Its frames are: version, request id, domain, address, routing id, mechanism, credentials.
        """
        version, request, _, address, _, mechanism, *credentials = self._handshakes.recv_multipart()
        admitted = mechanism == b"CURVE" and hmac.compare_digest(b"".join(credentials), known)
        if not admitted:
            self._refused += 1
            # A refused client tries again ten times a second, so only powers of ten are logged.
            if str(self._refused).strip("0") == "1":
                log.warning(
                    "%d handshakes refused on the ZeroMQ planes, the last from %s",
                    self._refused,
                    address.decode(),
                )
        status = [b"200", b"OK"] if admitted else [b"400", b"unknown key"]
        self._handshakes.send_multipart([version, request, *status, b"", b""])

    def _answer(self, frames: Sequence[zmq.Frame]) -> None:
        if len(frames) < 2 or len(frames[1].buffer) != _REQUEST_ID_BYTES:
            log.info("the tensor plane dropped a message without a request id")
            return
        address = [frames[0].bytes, frames[1].bytes]
        fetched = ""
        try:
            answer: list[bytes | memoryview]
            verb, *rest = [frame.buffer for frame in frames[2:]] or [memoryview(b"")]
            match bytes(verb), rest:
                case b"PUT", [ticket, header, first, *others]:
                    self._put(_text(ticket), header, [first, *others])
                    answer = [b"OK"]
                case b"GET", [ticket, header] if len(header) == 0:
                    fetched = _text(ticket)
                    buffer = self._tickets.peek(fetched)
                    answer = [
                        b"OK",
                        tensor_codec.header(buffer),
                        *tensor_codec.pieces(buffer.data, self._max_frame),
                    ]
                case b"PUT" | b"GET", _:
                    raise InvalidInput(
                        f"a {bytes(verb).decode()} message of {len(rest) + 2} frames",
                        "frames",
                        "request id, verb, ticket, and a header with a body (PUT) or empty (GET)",
                    )
                case _:
                    raise InvalidInput("unknown verb on the tensor plane", "verb", "PUT or GET")
        except Exception as error:
            failed = explain(error, "answering on the tensor plane")
            answer, fetched = [b"ERR", failed.SerializeToString()], ""
        try:
            self._router.send_multipart([*address, *answer], flags=zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            log.info("the tensor plane could not reach a client: %s", error)
        else:
            if fetched:
                self._tickets.discard(fetched)

    def _put(self, ticket: str, header: memoryview, body: Sequence[memoryview]) -> None:
        message = tensor_pb2.TensorHeader()
        try:
            message.ParseFromString(bytes(header))
        except DecodeError:
            raise InvalidInput(
                "the header is no TensorHeader", "header", "a serialized TensorHeader"
            ) from None
        if message.file_name:
            size = message.byte_length
            self._tickets.upload_file(
                ticket, message.file_name, size, message.offset, body, message.more
            )
            return
        layout = tensor_codec.layout(message.dtype, message.shape, self._limits, "header")
        tensor_codec.check_length(layout, message.byte_length, "header.byte_length")
        if message.offset or message.more:
            self._tickets.upload_part(ticket, layout, message.offset, body, more=message.more)
            return
        tensor_codec.check_length(layout, sum(map(len, body)), "body")
        self._tickets.upload(ticket, Buffer(layout, tensor_codec.joined(body)))


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind a socket and return its endpoint."""
    socket.bind(endpoint)
    return socket.get_string(zmq.LAST_ENDPOINT)


def _bind_port(socket: zmq.Socket[bytes], host: str, port: int) -> str:
    at = f"[{host}]" if ":" in host else host
    try:
        return _bind(socket, f"tcp://{at}:{port or '*'}")
    except zmq.ZMQError:
        raise AddressInUse(at, port) from None


def _text(frame: memoryview) -> str:
    try:
        return bytes(frame).decode()
    except UnicodeDecodeError:
        raise InvalidInput(
            "the ticket is not text", "ticket", "<session id>.<32 lower-case hex digits>"
        ) from None
