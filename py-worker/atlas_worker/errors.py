"""Errors a user can act on. Each one says what was wrong, where, what was expected and what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class WorkerError(Exception):
    """An error with a remedy. ``field`` is a dotted path into the request, e.g. ``params.batch_size``.

    Raised anywhere in the worker; the service turns it into a gRPC status with the same four fields as
    structured detail, so that the orchestrator shows one clear line.
    """

    message: str
    field: str = ""
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return self.message


class InvalidInput(WorkerError):
    """The request cannot be carried out as written (gRPC INVALID_ARGUMENT)."""


class NotFound(WorkerError):
    """A handle, job, session or ticket that does not exist (gRPC NOT_FOUND)."""


class NotReady(WorkerError):
    """The object exists but is not in the state this needs (gRPC FAILED_PRECONDITION)."""


class LimitExceeded(WorkerError):
    """A limit would be passed; nothing was allocated (gRPC RESOURCE_EXHAUSTED)."""


class Unauthenticated(WorkerError):
    """The caller has not shown that it may use this worker (gRPC UNAUTHENTICATED)."""


class Diverged(WorkerError):
    """A loss became NaN or infinite. The state of the last finished epoch is kept."""


class AddressInUse(Exception):
    """A port that the worker was told to listen on cannot be bound."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"cannot listen on {host}: port {port} is in use or not allowed")


class Cancelled(Exception):
    """The job was cancelled by its owner; raised out of the step callback."""
