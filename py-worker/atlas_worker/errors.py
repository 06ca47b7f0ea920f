"""Errors that a user can act on: what is wrong, where, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(eq=False)
class WorkerError(Exception):
    """An error with a remedy.

    Any part of the worker may raise it. The service turns it into a gRPC status with the same four
    fields as structured details, so that the orchestrator shows one clear line.
    """

    message: str
    """What is wrong, in one line."""
    field: str = ""
    """Dotted path of the wrong value in the request, such as ``params.batch_size``."""
    expected: str = ""
    """What the field accepts."""
    remedy: str = ""
    """What the user can do."""

    def __str__(self) -> str:
        return self.message


class InvalidInput(WorkerError):
    """The request cannot be executed as written (gRPC INVALID_ARGUMENT)."""


class FileMissing(InvalidInput):
    """The request names a file or folder that does not exist (gRPC NOT_FOUND)."""


class NotFound(WorkerError):
    """The handle, job, session or ticket does not exist (gRPC NOT_FOUND)."""


class NotReady(WorkerError):
    """The object exists, but is not in the state that the call needs (gRPC FAILED_PRECONDITION)."""


class LimitExceeded(WorkerError):
    """The request would exceed a limit. Nothing was allocated (gRPC RESOURCE_EXHAUSTED)."""


class Unauthenticated(WorkerError):
    """The caller has not proved that it may use this worker (gRPC UNAUTHENTICATED)."""


class Diverged(WorkerError):
    """A loss became NaN or infinite. The state of the last finished epoch is kept."""


class RankLost(WorkerError):
    """A process that shared a training has ended. The last finished epoch is kept."""


class AddressInUse(Exception):
    """The worker cannot bind a port that it was told to listen on."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"cannot listen on {host}: port {port} is in use or not allowed")


class Cancelled(Exception):
    """The owner cancelled the job. The step callback raises this error to leave the epoch."""


def listed(names: Sequence[str], most: int = 8) -> str:
    """Write names for an error: the first ones, and the number of the others.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    >>> listed([])
    'nothing'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "nothing"
