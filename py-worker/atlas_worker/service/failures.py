"""Every failure becomes a gRPC status and an ``ErrorDetail``; every RPC of a service is served through one wrapper."""

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

from atlas_worker.errors import (
    Cancelled,
    Diverged,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotReady,
    Unauthenticated,
    WorkerError,
)
from atlas_worker.gen.atlas.v1 import error_pb2

from . import logs

log = logging.getLogger("atlas_worker")

METADATA_KEY = "atlas-error-bin"
_STATUS: dict[type[WorkerError], tuple[grpc.StatusCode, str]] = {
    InvalidInput: (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input"),
    NotFound: (grpc.StatusCode.NOT_FOUND, "not_found"),
    NotReady: (grpc.StatusCode.FAILED_PRECONDITION, "not_ready"),
    LimitExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, "limit_exceeded"),
    Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated"),
    Diverged: (grpc.StatusCode.ABORTED, "diverged"),
}
LOWER = {
    "dataset": "lower the number of samples or the chunk size",
    "predictor": "lower the batch size, the width of the network or the resolution of the grid",
    "algebra": "lower the batch size or the number of starts",
    "cosets": "lower the batch size or the number of candidates",
    "": "lower the batch size or ask for less at a time",
}
"""What takes less memory, by the role of the object that needs it."""
_ASKED = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
_TEXT_LIMIT = 1000  # HTTP/2 trailers are limited to 8 KiB


def explain(
    error: BaseException, stage: str, role: str = ""
) -> tuple[grpc.StatusCode, error_pb2.ErrorDetail]:
    """Status and detail of an error that came up in ``stage`` ("fitting predictor-1") on an object of ``role``.

    What is not the user's to mend is logged with its traceback.
    """
    for kind, (status, code) in _STATUS.items():
        if isinstance(error, kind):
            return status, _detail(error.message, error.field, error.expected, error.remedy, code)
    if isinstance(error, Cancelled):
        return grpc.StatusCode.CANCELLED, _detail("cancelled", code="cancelled")
    asked = _ASKED.search(str(error))
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and asked
    ):
        amount = f" (asked for {asked[1]})" if asked else ""
        return grpc.StatusCode.RESOURCE_EXHAUSTED, _detail(
            f"out of memory while {stage}{amount}", remedy=LOWER[role], code="out_of_memory"
        )
    log.error("internal error while %s", stage, exc_info=error)
    return grpc.StatusCode.INTERNAL, _detail(
        f"internal error while {stage}: {type(error).__name__}: {error}",
        remedy="see the worker's log; please report it",
        code="internal",
    )


def _detail(
    message: str, field: str = "", expected: str = "", remedy: str = "", code: str = ""
) -> error_pb2.ErrorDetail:
    def clip(text: str) -> str:
        line = " ".join(text.split())
        return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"

    return error_pb2.ErrorDetail(
        message=clip(message), field=clip(field), expected=clip(expected), remedy=clip(remedy), code=code
    )


def add_service(server: grpc.Server, service: descriptor.ServiceDescriptor, implementation: object) -> None:
    """Serve ``implementation``'s methods, named as in the proto file: ``method(request, context)``.

    Any exception leaves as :func:`explain` has it. Raises ``AttributeError`` for an RPC that is not implemented.
    """
    handlers = {}
    for rpc in service.methods:
        message = message_factory.GetMessageClass(rpc.input_type)
        method = _parsed(message.FromString, getattr(implementation, rpc.name))
        write = message_factory.GetMessageClass(rpc.output_type).SerializeToString
        if rpc.server_streaming:
            handlers[rpc.name] = grpc.unary_stream_rpc_method_handler(_stream(rpc.name, method), None, write)
        else:
            handlers[rpc.name] = grpc.unary_unary_rpc_method_handler(unary(rpc.name, method), None, write)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    server.add_registered_method_handlers(service.full_name, handlers)


def _parsed(read: Callable[[bytes], Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` for bytes that may be no message: gRPC keeps some memory of each one that it cannot read itself."""

    def call(data: bytes, context: grpc.ServicerContext) -> Any:
        try:
            request = read(data)
        except DecodeError:
            raise InvalidInput(
                "this is no message of that method", "", "a protobuf message", "use a client of this version"
            ) from None
        return method(request, context)

    return call


def unary(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """``method(request, context)``, whose exceptions leave as :func:`explain` has it."""

    def serve(request: Any, context: grpc.ServicerContext) -> Any:
        logs.clear()
        started = time.perf_counter()
        try:
            answer = method(request, context)
            log.debug("%s: OK in %.1f ms", name, 1000 * (time.perf_counter() - started))
            return answer
        except Exception as error:
            status, detail = explain(error, f"serving {name}")
        _abort(name, context, status, detail)

    return serve


def _stream(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def serve(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        logs.clear()
        try:
            yield from method(request, context)
            return
        except Exception as error:
            status, detail = explain(error, f"serving {name}")
        _abort(name, context, status, detail)

    return serve


def _abort(
    name: str, context: grpc.ServicerContext, status: grpc.StatusCode, detail: error_pb2.ErrorDetail
) -> NoReturn:
    log.info("%s: %s: %s [%s]", name, status.name, detail.message, detail.field)
    context.set_trailing_metadata(((METADATA_KEY, detail.SerializeToString()),))
    context.abort(status, detail.message)
    raise AssertionError("abort returns never")
