"""Echoes bytes over gRPC, with and without TLS, and over plain TCP, to compare the tensor plane.

Arguments: a certificate and its key. Prints the ports as JSON.

The gRPC methods take and return raw bytes, without protobuf encoding: ``/bench.Echo/Unary`` a whole
buffer in one message, ``/bench.Echo/Chunks`` a stream of chunks, answered in equal chunks once all
have come. A TCP client first sends the length as 8 bytes, big-endian.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc


def chunks(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    received = list(requests)
    yield from received


def serve_grpc(certificate: Path, key: Path) -> tuple[grpc.Server, int, int]:
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=limits)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
        "Chunks": grpc.stream_stream_rpc_method_handler(chunks),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Echo", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    tls_port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, int(port), int(tls_port)


def serve_tcp() -> int:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while head := connection.recv(8, socket.MSG_WAITALL):
                    body = bytearray(int.from_bytes(head, "big"))
                    view = memoryview(body)
                    while view:
                        view = view[connection.recv_into(view) :]
                    connection.sendall(body)

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


if __name__ == "__main__":
    # The server ends when nothing refers to it any more.
    server, port, tls_port = serve_grpc(*map(Path, sys.argv[1:]))
    print(json.dumps({"grpc": port, "tls": tls_port, "tcp": serve_tcp()}), flush=True)
    sys.stdin.read()  # until the parent is gone
