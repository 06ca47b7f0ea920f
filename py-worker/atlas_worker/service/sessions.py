"""Sessions, and the objects that they own under handles."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from atlas_worker.errors import InvalidInput, LimitExceeded, NotFound, NotReady

from . import logs, machine
from .limits import Limits
from .snapshots import Origin, State
from .tickets import Tickets

if TYPE_CHECKING:
    from .jobs import Job

log = logging.getLogger("atlas_worker")

_JOB_STOP_SECONDS = 5.0


@dataclass(eq=False)
class Entry:
    """An object under its handle."""

    handle: str
    origin: Origin
    value: Any
    """What ``roles`` names for the role, or a ``PlanarAtlas``."""
    remake: Callable[[], Any] | None
    """For a dataset: makes it anew, as it was before its first epoch."""
    uses: tuple[Entry, ...] = ()
    """What it was made from."""
    request: str = ""
    """The client's name for the call that made it."""
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last finished epoch."""
    job: Job | None = None
    """The last job that was started on it."""
    kept: State | None = None
    """While a job runs: copies of the state after the last finished epoch."""
    lost: bool = False
    """Its state could not be put back after a failure."""

    @property
    def role(self) -> str:
        return self.origin.role

    @property
    def advancing(self) -> bool:
        return self.job is not None and not self.job.over

    def closure(self) -> Iterator[Entry]:
        """It and all that it was made from."""
        yield self
        for entry in self.uses:
            yield from entry.closure()


class Session:
    """Objects, jobs and tickets of one client. ``lock`` guards the tables, not the objects: those are for the compute
    thread."""

    def __init__(self, label: str, device: torch.device, limits: Limits, tickets: Tickets) -> None:
        self.id = secrets.token_hex(16)
        self.label, self.device, self.limits, self.tickets = label, device, limits, tickets
        self.lock = threading.RLock()
        self.entries: dict[str, Entry] = {}
        self.jobs: dict[str, Job] = {}
        self.requests: dict[str, Job] = {}
        self._used = time.monotonic()
        self._held = 0
        self._made: dict[str, int] = {}
        self._closed = False
        tickets.open(self.id)

    def find(self, handle: str, field: str, *roles: str) -> Entry:
        """The object; ``NotFound``, or ``InvalidInput`` when it plays none of ``roles``."""
        with self.lock:
            entry = self.entries.get(handle)
        if entry is None:
            raise NotFound(f"no object {handle!r} in this session", field, "", "create it first")
        if roles and entry.role not in roles:
            raise InvalidInput(
                f"{handle} is of role {entry.role}",
                field,
                f"the handle of an object of role {' or '.join(roles)}",
            )
        return entry

    def check_room(self) -> None:
        """``LimitExceeded`` when the session may not have another object."""
        with self.lock:
            if len(self.entries) >= self.limits.max_session_objects:
                raise LimitExceeded(
                    f"the session has {len(self.entries)} objects",
                    "session_id",
                    f"at most {self.limits.max_session_objects}",
                    "delete what is no longer needed",
                )

    def made_by(self, request: str, origin: Origin) -> Entry | None:
        """What a call of this name has made already; ``InvalidInput`` when that is something else than ``origin`` says."""
        if not request:
            return None
        with self.lock:
            entry = next((e for e in self.entries.values() if e.request == request), None)
        if entry is not None and entry.origin != origin:
            raise InvalidInput(
                f"request {request} has made {entry.handle} from another spec",
                "request_id",
                "a name for each object",
                "make up another one",
            )
        return entry

    def add(
        self,
        origin: Origin,
        value: Any,
        remake: Callable[[], Any] | None,
        uses: tuple[Entry, ...],
        request: str = "",
    ) -> Entry:
        with self.lock:
            self.check_open()
            self.check_room()
            number = self._made[origin.role] = self._made.get(origin.role, 0) + 1
            entry = Entry(f"{origin.role}-{number}", origin, value, remake, uses, request)
            self.entries[entry.handle] = entry
            return entry

    def check_idle(self, entry: Entry) -> None:
        """``NotReady`` while a job advances the object, something it was made from, or something made from it."""
        with self.lock:
            mine = set(entry.closure())
            for other in self.entries.values():
                if other.advancing and (other in mine or entry in other.closure()):
                    assert other.job is not None
                    raise NotReady(
                        f"{entry.handle} is in use: {other.job.id} is working on {other.handle}",
                        "handle",
                        "an object that no job works on",
                        "wait for the job to end, or cancel it",
                    )

    def delete(self, handle: str) -> None:
        with self.lock:
            entry = self.find(handle, "handle")
            self.check_idle(entry)
            del self.entries[handle]

    def renew(self) -> bool:
        """Begin the lease anew, unless it is closed already."""
        with self.lock:
            if self._closed:
                return False
            self._used = time.monotonic()
            return True

    def expire(self) -> bool:
        """Close it to new calls if its lease has ended; whether it has."""
        with self.lock:
            self._closed = self._closed or self.expired
            return self._closed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Renew the lease for as long as a call or a watch takes."""
        with self.lock:
            self._held += 1
        try:
            yield
        finally:
            with self.lock:
                self._held -= 1
                self._used = time.monotonic()

    @property
    def expired(self) -> bool:
        """Whether its lease has ended; it does not while a job is unfinished."""
        with self.lock:
            if self._held or self.unfinished:
                return False
            last = max([self._used, *(job.ended for job in self.jobs.values())])
            return time.monotonic() - last > self.limits.lease_seconds

    @property
    def unfinished(self) -> int:
        """Jobs that run or wait."""
        with self.lock:
            return sum(not job.over for job in self.jobs.values())

    def check_open(self) -> None:
        """``NotFound`` when it was closed since the call came in."""
        if self._closed:
            raise _no_session()

    def close(self) -> None:
        """Cancel its jobs, wait for a step of the one that runs, and free everything."""
        with self.lock:
            self._closed = True
            jobs = list(self.jobs.values())
        for job in jobs:
            job.cancel()
        deadline = time.monotonic() + _JOB_STOP_SECONDS
        for job in jobs:
            if not job.wait(max(0.0, deadline - time.monotonic())):
                log.warning("%s has not stopped yet", job.id)
        with self.lock:
            self.entries.clear()
            self.requests.clear()
        self.tickets.close(self.id)
        machine.return_freed_memory()


class Sessions:
    """The open sessions of a worker. Once started, those whose lease ends are closed.

    Nobody waits for a session's lock who holds that of the table, or of another session: calls would wait for each other.
    """

    def __init__(self, limits: Limits, tickets: Tickets) -> None:
        self._limits, self.tickets = limits, tickets
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._watch_leases, name="leases", daemon=True).start()

    def open(self, label: str, device: torch.device) -> Session:
        self._close_expired()
        with self._lock:
            if len(self._open) >= self._limits.max_sessions:
                raise LimitExceeded(
                    f"this worker has {len(self._open)} open sessions",
                    "",
                    f"at most {self._limits.max_sessions}",
                    "close one, or try again later: one whose client is gone is closed "
                    f"{self._limits.lease_seconds:g} s after its last job",
                )
            session = Session(label, device, self._limits, self.tickets)
            self._open[session.id] = session
            return session

    def get(self, session_id: str) -> Session:
        with self._lock:
            session = self._open.get(session_id)
        if session is None or not session.renew():
            raise _no_session()
        logs.bind(run=session.label, session=session.id)
        return session

    def check_queue(self) -> None:
        """``LimitExceeded`` when no other job may wait. For who holds no session's lock."""
        unfinished = sum(session.unfinished for session in self._all())
        if unfinished >= self._limits.max_unfinished_jobs:
            raise LimitExceeded(
                f"{unfinished} jobs run or wait on this worker",
                "",
                f"at most {self._limits.max_unfinished_jobs}",
                "try again when some have ended",
            )

    def _watch_leases(self) -> None:
        while not self._stopped.wait(min(5.0, self._limits.lease_seconds / 4)):
            self._close_expired()

    def _close_expired(self) -> None:
        for session in self._all():
            if not session.expire():
                continue
            with self._lock:
                if self._open.pop(session.id, None) is None:
                    continue  # another closes it
            with logs.bound(run=session.label, session=session.id):
                log.warning("the session's lease has ended")
                session.close()

    def close(self, session_id: str) -> None:
        """Also when it is closed already."""
        with self._lock:
            session = self._open.pop(session_id, None)
        if session is not None:
            with logs.bound(run=session.label, session=session.id):
                session.close()
                log.info("session closed")

    def close_all(self) -> None:
        self._stopped.set()
        for session in self._all():
            self.close(session.id)

    def _all(self) -> list[Session]:
        with self._lock:
            return list(self._open.values())


def _no_session() -> NotFound:
    return NotFound(
        "no such session: it was closed, its lease ended, or the worker was restarted",
        "session_id",
        "",
        "open a session",
    )
