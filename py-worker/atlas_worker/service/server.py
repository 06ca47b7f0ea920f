"""The worker: puts its parts together, starts and stops them; and ``atlas.v1.WorkerService``."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from atlas_worker import __version__, catalogue
from atlas_worker.errors import AddressInUse, NotReady
from atlas_worker.gen.atlas.v1 import job_pb2, objects_pb2, worker_pb2
from atlas_worker.service.dataplane import DataPlane

from . import healthport, logs
from .auth import Access, TokenRequired
from .collectives import Torchrun
from .compute import DeviceQueues
from .devices import Devices, describe, machine, versions
from .jobs import JobService
from .limits import Limits
from .objects import ObjectService
from .sessions import Sessions
from .status import add_service
from .tickets import Tickets

log = logging.getLogger("atlas_worker")

PROTOCOL_VERSION = worker_pb2.PROTOCOL_VERSION_CURRENT
"""Version of the contract that client and worker must agree on."""

_SPARE_THREADS = 32
"""Server threads in addition to one for each watch."""
_SERVICES = (
    worker_pb2.DESCRIPTOR.services_by_name["WorkerService"],
    objects_pb2.DESCRIPTOR.services_by_name["ObjectService"],
    job_pb2.DESCRIPTOR.services_by_name["JobService"],
)


class Worker:
    """A worker with all its services, not yet started.

    Args:
        host: Address to listen on, or localhost.
        port: Port of the gRPC server; 0 for a free port.
        devices: Devices for the sessions; only the CPU by default.
        threads: Threads of CPU work.
        limits: Limits of the worker.
        access: What the worker asks of its clients. If it asks for anything, the planes use CURVE.
        plane_ports: Ports of the tensor plane and the metrics plane; 0 for a free port.
        plane_folder: Folder for the planes' sockets instead of ports and CURVE. Nobody else may be
            able to enter it.
        health_port: Loopback port of the health service (see :mod:`.healthport`), or None.
        torchrun: The ranks of sessions that ask for several, if torchrun has started them.

    Raises:
        AddressInUse: A port cannot be bound.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        devices: Devices | None = None,
        threads: int = 1,
        limits: Limits | None = None,
        access: Access | None = None,
        plane_ports: tuple[int, int] = (0, 0),
        plane_folder: Path | None = None,
        health_port: int | None = None,
        torchrun: Torchrun | None = None,
    ) -> None:
        limits, access = limits or Limits(), access or Access()
        # ZeroMQ binds to addresses, not to names.
        host = "127.0.0.1" if host == "localhost" else host
        self._compute = DeviceQueues(threads)
        tickets = Tickets(limits)
        self._sessions = Sessions(limits, tickets, self._compute, torchrun)
        self._server = grpc.server(
            ThreadPoolExecutor(limits.max_watches + _SPARE_THREADS, "grpc"),
            maximum_concurrent_rpcs=limits.max_calls,
            interceptors=[] if access.token is None else [TokenRequired(access.token)],
            options=[
                # Without this, two workers on one port would share its connections at random.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                ("grpc.max_send_message_length", limits.max_message_bytes),
                # Clients that watch a long job may ping, to notice a dead connection.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ],
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.full_name for service in _SERVICES]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        self._names = ["", *names]
        at = f"[{host}]" if ":" in host else host
        try:
            self.address = f"{at}:{self._listen(at, port, access.tls)}"
            self._health_server = (
                None if health_port is None else healthport.server(self._health, health_port)
            )
            guarded = plane_folder is None and access != Access()
            self.dataplane = DataPlane(
                host, tickets, limits, ports=plane_ports, folder=plane_folder, encrypted=guarded
            )
        except AddressInUse:
            self._compute.close()
            raise
        implementations = (
            WorkerService(
                self._sessions, self.dataplane, devices or Devices("cpu"), threads, limits
            ),
            ObjectService(self._sessions, limits),
            JobService(self._sessions, self.dataplane.publish, limits),
        )
        for service, implementation in zip(_SERVICES, implementations, strict=True):
            add_service(self._server, service, implementation)

    def _listen(self, at: str, port: int, tls: grpc.ServerCredentials | None) -> int:
        try:
            if tls is None:
                bound: int = self._server.add_insecure_port(f"{at}:{port}")
            else:
                bound = self._server.add_secure_port(f"{at}:{port}", tls)
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise AddressInUse(at, port)
        return bound

    def start(self) -> None:
        """Start serving."""
        self.dataplane.start()
        self._sessions.start()
        self._server.start()
        if self._health_server is not None:
            self._health_server.start()
        for name in self._names:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def has_sessions(self) -> bool:
        """Whether a session is open."""
        return self._sessions.any()

    def stop(self, grace: float = 1.0) -> None:
        """Refuse new calls, cancel all jobs and free everything.

        This takes as long as a step of the running job, and at most ``grace`` for open calls.

        Args:
            grace: Seconds that open calls have to end.
        """
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace)
        self._sessions.close_all()
        self._sessions.tickets.uploads.stop()
        stopped.wait()
        self._compute.close()
        self.dataplane.stop()
        if self._health_server is not None:
            self._health_server.stop(None)


class WorkerService:
    """Implements ``atlas.v1.WorkerService``; ``worker.proto`` documents the methods."""

    def __init__(
        self,
        sessions: Sessions,
        dataplane: DataPlane,
        devices: Devices,
        threads: int,
        limits: Limits,
    ) -> None:
        self._sessions, self._dataplane, self._devices = sessions, dataplane, devices
        self._threads, self._limits = threads, limits

    def Describe(
        self, request: worker_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> worker_pb2.DescribeResponse:
        """Describe the worker."""
        limits = self._limits
        return worker_pb2.DescribeResponse(
            protocol_version=PROTOCOL_VERSION,
            worker_version=__version__,
            versions=versions(),
            devices=[
                describe(device, self._sessions.on(device), self._sessions.queues.waiting(device))
                for device in self._devices.all
            ],
            data_plane=self._dataplane.describe(),
            limits=worker_pb2.Limits(
                max_inline_bytes=limits.max_inline_bytes,
                max_tensor_bytes=limits.max_tensor_bytes,
                max_message_bytes=limits.max_message_bytes,
                max_sessions=limits.max_sessions,
                max_session_ticket_bytes=limits.max_session_ticket_bytes,
            ),
            blocks=[_spec(block) for block in catalogue.blocks()],
            threads=self._threads,
            pid=os.getpid(),
            machine=machine(),
        )

    def OpenSession(
        self, request: worker_pb2.OpenSessionRequest, context: grpc.ServicerContext
    ) -> worker_pb2.OpenSessionResponse:
        """Open a session."""
        if request.protocol_version != PROTOCOL_VERSION:
            older = "worker" if request.protocol_version > PROTOCOL_VERSION else "client"
            raise NotReady(
                f"the client has protocol version {request.protocol_version}, "
                f"but this worker has {PROTOCOL_VERSION}",
                "protocol_version",
                str(PROTOCOL_VERSION),
                f"update the {older}, so that both come from the same release",
            )
        devices = self._devices.find(request.device, "device")
        session = self._sessions.open(
            request.label, devices, max(1, request.ranks), self._devices.all
        )
        logs.bind(run=session.label, session=session.id)
        log.info("session opened on %s", session.device)
        return worker_pb2.OpenSessionResponse(
            session_id=session.id,
            device=str(session.device),
            lease_seconds=self._limits.lease_seconds,
            ranks=session.ranks,
        )

    def RenewLease(
        self, request: worker_pb2.RenewLeaseRequest, context: grpc.ServicerContext
    ) -> worker_pb2.RenewLeaseResponse:
        """Renew a session's lease, which every call does."""
        session = self._sessions.get(request.session_id)
        return worker_pb2.RenewLeaseResponse(
            device=str(session.device),
            lease_seconds=self._limits.lease_seconds,
            ranks=session.ranks,
        )

    def CloseSession(
        self, request: worker_pb2.CloseSessionRequest, context: grpc.ServicerContext
    ) -> worker_pb2.CloseSessionResponse:
        """Close a session."""
        self._sessions.close(request.session_id)
        return worker_pb2.CloseSessionResponse()


@cache
def _spec(block: catalogue.Block) -> worker_pb2.BlockSpec:
    spec = worker_pb2.BlockSpec(type=block.type, kind=block.kind)
    spec.schema.update(catalogue.schema(block))
    return spec
