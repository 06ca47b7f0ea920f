"""The worker: its parts put together, started and stopped; and ``atlas.v1.WorkerService``."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import grpc
from google.protobuf import struct_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from atlas_worker import __version__, registry
from atlas_worker.dataplane import DataPlane
from atlas_worker.errors import AddressInUse, NotReady
from atlas_worker.gen.atlas.v1 import job_pb2, objects_pb2, worker_pb2

from . import healthport, logs, machine
from .access import Access, TokenRequired
from .compute import Compute
from .failures import add_service
from .jobs import JobService
from .limits import Limits
from .objects import ObjectService
from .sessions import Sessions
from .tickets import Tickets

log = logging.getLogger("atlas_worker")

PROTOCOL_VERSION = 2

_SPARE_THREADS = 32
_SERVICES = (
    worker_pb2.DESCRIPTOR.services_by_name["WorkerService"],
    objects_pb2.DESCRIPTOR.services_by_name["ObjectService"],
    job_pb2.DESCRIPTOR.services_by_name["JobService"],
)


class Worker:
    """A worker on ``host`` (an address, or localhost) and ``port`` (0: a free one), its planes on ``plane_ports``.

    Where ``access`` asks for anything, the planes use CURVE; instead, they are sockets in ``plane_folder``, which nobody else
    may enter. With ``health_port`` the health service is there too, see ``healthport``.
    Raises ``AddressInUse``.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        devices: machine.Devices | None = None,
        threads: int = 1,
        limits: Limits | None = None,
        access: Access | None = None,
        plane_ports: tuple[int, int] = (0, 0),
        plane_folder: Path | None = None,
        health_port: int | None = None,
    ) -> None:
        limits, access = limits or Limits(), access or Access()
        host = "127.0.0.1" if host == "localhost" else host  # ZeroMQ binds to addresses, not to names
        self._compute = Compute(threads)
        tickets = Tickets(limits)
        self._sessions = Sessions(limits, tickets)
        self._server = grpc.server(
            ThreadPoolExecutor(limits.max_watches + _SPARE_THREADS, "grpc"),
            maximum_concurrent_rpcs=limits.max_calls,
            interceptors=[] if access.token is None else [TokenRequired(access.token)],
            options=[
                # Two workers on one port would share its connections, sessions and all, at random.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                ("grpc.max_send_message_length", limits.max_message_bytes),
                # Clients that watch a long job may ping, so that a dead connection is noticed.
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
            WorkerService(self._sessions, self.dataplane, devices or machine.Devices("cpu"), threads, limits),
            ObjectService(self._sessions, self._compute, limits),
            JobService(self._sessions, self._compute, self.dataplane.publish, limits),
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
        self.dataplane.start()
        self._sessions.start()
        self._server.start()
        if self._health_server is not None:
            self._health_server.start()
        for name in self._names:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace: float = 1.0) -> None:
        """Refuse new calls, cancel every job, free everything. Takes a step of the job that runs, and ``grace`` at most."""
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace)
        self._sessions.close_all()
        stopped.wait()
        self._compute.close()
        self.dataplane.stop()
        if self._health_server is not None:
            self._health_server.stop(None)


class WorkerService:
    """``atlas.v1.WorkerService``."""

    def __init__(
        self, sessions: Sessions, dataplane: DataPlane, devices: machine.Devices, threads: int, limits: Limits
    ) -> None:
        self._sessions, self._dataplane, self._devices = sessions, dataplane, devices
        self._threads, self._limits = threads, limits

    def Describe(
        self, request: worker_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> worker_pb2.DescribeResponse:
        limits = self._limits
        return worker_pb2.DescribeResponse(
            protocol_version=PROTOCOL_VERSION,
            worker_version=__version__,
            versions=machine.versions(),
            devices=self._devices.describe(),
            data_plane=self._dataplane.describe(),
            limits=worker_pb2.Limits(
                max_inline_bytes=limits.max_inline_bytes,
                max_tensor_bytes=limits.max_tensor_bytes,
                max_message_bytes=limits.max_message_bytes,
                max_sessions=limits.max_sessions,
                max_session_ticket_bytes=limits.max_session_ticket_bytes,
            ),
            capabilities=[_capability(block) for block in registry.blocks()],
            threads=self._threads,
            pid=os.getpid(),
        )

    def OpenSession(
        self, request: worker_pb2.OpenSessionRequest, context: grpc.ServicerContext
    ) -> worker_pb2.OpenSessionResponse:
        if request.protocol_version != PROTOCOL_VERSION:
            older = "worker" if request.protocol_version > PROTOCOL_VERSION else "client"
            raise NotReady(
                f"the client speaks protocol version {request.protocol_version}, this worker {PROTOCOL_VERSION}",
                "protocol_version",
                str(PROTOCOL_VERSION),
                f"update the {older}, so that both come from the same release",
            )
        device = self._devices.find(request.device, "device")
        session = self._sessions.open(request.label, device)
        logs.bind(run=session.label, session=session.id)
        log.info("session opened on %s", device)
        return worker_pb2.OpenSessionResponse(
            session_id=session.id, device=str(device), lease_seconds=self._limits.lease_seconds
        )

    def RenewLease(
        self, request: worker_pb2.RenewLeaseRequest, context: grpc.ServicerContext
    ) -> worker_pb2.RenewLeaseResponse:
        session = self._sessions.get(request.session_id)
        return worker_pb2.RenewLeaseResponse(
            device=str(session.device), lease_seconds=self._limits.lease_seconds
        )

    def CloseSession(
        self, request: worker_pb2.CloseSessionRequest, context: grpc.ServicerContext
    ) -> worker_pb2.CloseSessionResponse:
        self._sessions.close(request.session_id)
        return worker_pb2.CloseSessionResponse()


@cache
def _capability(block: registry.Block) -> worker_pb2.Capability:
    params = struct_pb2.Struct()
    params.update(registry.describe_params(block.params))
    return worker_pb2.Capability(role=block.role, kind=block.kind, summary=block.summary, params=params)
