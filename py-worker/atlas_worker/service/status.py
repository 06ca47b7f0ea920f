"""Turns every failure into a ``google.rpc.Status``, and serves every RPC through one wrapper."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc
import torch
from google.protobuf import descriptor, message_factory
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from atlas_worker.errors import (
    Cancelled,
    Diverged,
    FileMissing,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotReady,
    RankLost,
    Unauthenticated,
    WorkerError,
)

from . import logs

log = logging.getLogger("atlas_worker")

DOMAIN = "atlas-symmetry"
"""``domain`` of every ``ErrorInfo``."""

_CODES: dict[type[WorkerError], tuple[int, str]] = {
    FileMissing: (code_pb2.NOT_FOUND, "FILE_MISSING"),
    InvalidInput: (code_pb2.INVALID_ARGUMENT, "INVALID_INPUT"),
    NotFound: (code_pb2.NOT_FOUND, "NOT_FOUND"),
    NotReady: (code_pb2.FAILED_PRECONDITION, "NOT_READY"),
    LimitExceeded: (code_pb2.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    Unauthenticated: (code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED"),
    Diverged: (code_pb2.ABORTED, "DIVERGED"),
    RankLost: (code_pb2.UNAVAILABLE, "RANK_LOST"),
}
"""Status code and ``ErrorReason`` of each class of errors. The first class that matches counts."""

LESS_MEMORY = {
    "dataset": "lower the number of samples or their size",
    "predictor": "lower the batch size, the width of the network or the resolution of the grid",
    "algebra": "lower the batch size or the number of starts",
    "cosets": "lower the batch size or the number of candidates",
    "": "lower the batch size or ask for less at a time",
}
"""What reduces memory, by the type of the object that needs it."""
_ASKED = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
_TEXT_LIMIT = 1000  # HTTP/2 trailers are limited to 8 KiB


def explain(error: BaseException, stage: str, type: str = "") -> status_pb2.Status:
    """Turn an error into a status with details (see ``error.proto``).

    Args:
        error: The error. A fault of the worker itself is logged with its traceback.
        stage: What was being done, e.g. "fitting predictor-1".
        type: Type of the object that was worked on.

    Returns:
        The status.
    """
    for kind, (code, reason) in _CODES.items():
        if isinstance(error, kind):
            return status(code, reason, error.message, error.field, error.expected, error.remedy)
    if isinstance(error, Cancelled):
        return status(code_pb2.CANCELLED, "CANCELLED", "cancelled")
    asked = _ASKED.search(str(error))
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and asked
    ):
        amount = f" (asked for {asked[1]})" if asked else ""
        return status(
            code_pb2.RESOURCE_EXHAUSTED,
            "OUT_OF_MEMORY",
            f"out of memory while {stage}{amount}",
            remedy=LESS_MEMORY[type],
        )
    log.error("internal error while %s", stage, exc_info=error)
    return status(
        code_pb2.INTERNAL,
        "INTERNAL",
        f"internal error while {stage}: {error.__class__.__name__}: {error}",
        remedy="see the worker's log; please report it",
    )


def status(
    code: int,
    reason: str,
    message: str,
    field: str = "",
    expected: str = "",
    remedy: str = "",
) -> status_pb2.Status:
    """Make a ``google.rpc.Status``.

    Args:
        code: Code of ``google.rpc.Code``.
        reason: Name of an ``ErrorReason`` without its prefix.
        message: What is wrong, in one line.
        field: Dotted path of the wrong value in the request.
        expected: What the field accepts.
        remedy: What the user can do.

    Returns:
        The status, with ``ErrorInfo`` and, if they are not empty, ``BadRequest`` and ``Help``.
    """
    made = status_pb2.Status(code=code, message=_clip(message))
    made.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    if field or expected:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_clip(field), description=_clip(expected)
        )
        made.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if remedy:
        link = error_details_pb2.Help.Link(description=_clip(remedy))
        made.details.add().Pack(error_details_pb2.Help(links=[link]))
    return made


def read(received: status_pb2.Status) -> tuple[str, WorkerError]:
    """Return the reason of a status, and its parts as an error."""
    info, request, help = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.Help(),
    )
    for detail in received.details:
        for message in (info, request, help):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    violation = request.field_violations[0] if request.field_violations else None
    return info.reason, WorkerError(
        received.message,
        violation.field if violation else "",
        violation.description if violation else "",
        help.links[0].description if help.links else "",
    )


def _clip(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"


def add_service(
    server: grpc.Server, service: descriptor.ServiceDescriptor, implementation: object
) -> None:
    """Serve an implementation's methods, which are named as in the proto file.

    They are called as ``method(request, context)``. Their errors are sent as :func:`explain`
    describes them.

    Args:
        server: The server.
        service: The service.
        implementation: Its implementation.

    Raises:
        AttributeError: An RPC is not implemented.
    """
    handlers = {}
    for rpc in service.methods:
        message = message_factory.GetMessageClass(rpc.input_type)
        method = _parsed(message.FromString, getattr(implementation, rpc.name))
        write = message_factory.GetMessageClass(rpc.output_type).SerializeToString
        if rpc.server_streaming:
            handlers[rpc.name] = grpc.unary_stream_rpc_method_handler(
                _stream(rpc.name, method), None, write
            )
        else:
            handlers[rpc.name] = grpc.unary_unary_rpc_method_handler(
                unary(rpc.name, method), None, write
            )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service.full_name, handlers),)
    )
    server.add_registered_method_handlers(service.full_name, handlers)


def _parsed(read: Callable[[bytes], Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method so that it takes bytes, which may be no valid message.

    gRPC itself would keep some memory for each message that it cannot read.
    """

    def call(data: bytes, context: grpc.ServicerContext) -> Any:
        try:
            request = read(data)
        except DecodeError:
            raise InvalidInput(
                "the request is no message of this method",
                "",
                "a protobuf message",
                "use a client of this version",
            ) from None
        return method(request, context)

    return call


def unary(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``method(request, context)`` so that its errors are sent as a status."""

    def serve(request: Any, context: grpc.ServicerContext) -> Any:
        logs.clear()
        started = time.perf_counter()
        try:
            answer = method(request, context)
            log.debug("%s: OK in %.1f ms", name, 1000 * (time.perf_counter() - started))
            return answer
        except Exception as error:
            failed = explain(error, f"serving {name}")
        _abort(name, context, failed)

    return serve


def _stream(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def serve(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        logs.clear()
        try:
            yield from method(request, context)
            return
        except Exception as error:
            failed = explain(error, f"serving {name}")
        _abort(name, context, failed)

    return serve


def _abort(name: str, context: grpc.ServicerContext, failed: status_pb2.Status) -> NoReturn:
    _, error = read(failed)
    code = code_pb2.Code.Name(failed.code)
    log.info("%s: %s: %s [%s]", name, code, error.message, error.field)
    context.abort_with_status(rpc_status.to_status(failed))
    raise AssertionError("abort_with_status always raises")
