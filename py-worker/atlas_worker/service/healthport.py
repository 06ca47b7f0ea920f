"""``grpc.health.v1.Health`` on a loopback port of its own, for what watches over a process and has neither its token nor a certificate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from atlas_worker.errors import AddressInUse

_HOST = "127.0.0.1"


def server(servicer: health.HealthServicer, port: int) -> grpc.Server:
    """A server of this service and nothing else, not yet started. Raises ``AddressInUse``."""
    # As of the worker's own server, two must not share a port.
    made = grpc.server(ThreadPoolExecutor(1, "health"), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, made)
    try:
        bound = made.add_insecure_port(f"{_HOST}:{port}")
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise AddressInUse(_HOST, port)
    return made


def is_serving(port: int, timeout: float = 5.0) -> bool:
    """Whether the worker whose health is told at ``port`` says within ``timeout`` seconds that it serves."""
    with grpc.insecure_channel(f"{_HOST}:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
