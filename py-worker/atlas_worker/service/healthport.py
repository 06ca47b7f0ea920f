"""``grpc.health.v1.Health`` on a loopback port of its own.

It is for programs that monitor the process and have neither its token nor a certificate.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from atlas_worker.errors import AddressInUse

_HOST = "127.0.0.1"


def server(servicer: health.HealthServicer, port: int) -> grpc.Server:
    """Make a server of the health service only, not yet started.

    Args:
        servicer: The health service.
        port: Loopback port to listen on.

    Returns:
        The server.

    Raises:
        AddressInUse: The port cannot be bound.
    """
    # As for the worker's own server, two workers must not share a port.
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
    """Ask a worker on this machine whether it serves.

    Args:
        port: The worker's health port.
        timeout: Seconds to wait for the answer.

    Returns:
        Whether the worker answered that it serves.
    """
    with grpc.insecure_channel(f"{_HOST}:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
