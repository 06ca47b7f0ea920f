"""Sessions, and the objects that they own under handles."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from atlas_worker.errors import InvalidInput, LimitExceeded, NotFound, NotReady

from . import logs
from .collectives import Torchrun
from .compute import Compute, DeviceQueues
from .devices import memory, return_freed_memory
from .limits import Limits
from .snapshots import Origin, State
from .team import Processes, Team, shared_threads
from .tickets import Tickets

log = logging.getLogger("atlas_worker")

_JOB_STOP_SECONDS = 5.0
_SCARCE = 0.1
"""Share of a device's memory below which it is chosen last."""


class Work(Protocol):
    """What a session needs of a job, see :class:`.jobs.Job`."""

    id: str
    ended: float
    """Time when the job was over, by the monotonic clock; 0 before."""

    @property
    def over(self) -> bool:
        """Whether the job is over."""
        ...

    def cancel(self) -> None:
        """Stop the job."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the job to be over, and tell whether it is."""
        ...


@dataclass(eq=False)
class Entry:
    """An object with its handle."""

    handle: str
    origin: Origin
    """What identifies its snapshots."""
    kind: str
    """Kind of its block."""
    value: Any
    """The object: of the protocol in ``interfaces`` for its type, or an atlas."""
    remake: Callable[[], Any] | None
    """Makes a dataset again, as it was before its first epoch; None for other objects."""
    uses: tuple[Entry, ...] = ()
    """Objects from which it was made."""
    request: str = ""
    """The client's id of the request that made it."""
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the last finished epoch."""
    job: Work | None = None
    """The last job that was started on it."""
    kept: State | None = None
    """While a job runs: a copy of the state after the last finished epoch."""
    given: tuple[str, dict[str, Any]] | None = None
    """Kind and parameters of an atlas's block, as JSON values."""
    judges: tuple[tuple[str, ...], Any] | None = None
    """What judges a predictor's symmetries, with the data and weights that it was prepared from."""
    lost: bool = False
    """Whether its state could not be restored after a failure."""

    @property
    def type(self) -> str:
        """Type of the object, as in the contract."""
        return self.origin.type

    @property
    def advancing(self) -> bool:
        """Whether a job works on it."""
        return self.job is not None and not self.job.over

    def closure(self) -> Iterator[Entry]:
        """Yield this entry and all entries from which it was made."""
        yield self
        for entry in self.uses:
            yield from entry.closure()


class Session:
    """Objects, jobs and tickets of one client.

    ``lock`` guards the tables. The objects themselves belong to the compute thread
    of the device.

    Args:
        label: The client's name for the session, shown in logs.
        device: Device of its objects.
        limits: Limits of the worker.
        tickets: Buffers of the tensor plane.
        compute: The device's compute thread.
        team: The processes that share its trainings; None for one process.
    """

    def __init__(
        self,
        label: str,
        device: torch.device,
        limits: Limits,
        tickets: Tickets,
        compute: Compute,
        team: Team | None = None,
    ) -> None:
        self.id = secrets.token_hex(16)
        self.label, self.device, self.limits, self.tickets = label, device, limits, tickets
        self.compute, self.team = compute, team
        self.lock = threading.RLock()
        self.entries: dict[str, Entry] = {}
        self.jobs: dict[str, Work] = {}
        self.requests: dict[str, Work] = {}
        self._used = time.monotonic()
        self._held = 0
        self._made: dict[str, int] = {}
        self._closed = False
        tickets.open(self.id)

    @property
    def ranks(self) -> int:
        """Number of processes that share its trainings."""
        return 1 if self.team is None else self.team.size

    def find(self, handle: str, field: str, *types: str) -> Entry:
        """Find an object by its handle.

        Args:
            handle: The handle.
            field: Dotted path of the handle in the request, for the error.
            *types: Accepted types; all if none are given.

        Returns:
            The object's entry.

        Raises:
            NotFound: There is no such object.
            InvalidInput: The object has another type.
        """
        with self.lock:
            entry = self.entries.get(handle)
        if entry is None:
            raise NotFound(
                f"there is no object {handle!r} in this session", field, "", "create it first"
            )
        if types and entry.type not in types:
            raise InvalidInput(
                f"{handle} is of type {entry.type}",
                field,
                f"the handle of an object of type {' or '.join(types)}",
            )
        return entry

    def check_room(self) -> None:
        """Raise ``LimitExceeded`` if the session may not have another object."""
        with self.lock:
            if len(self.entries) >= self.limits.max_session_objects:
                raise LimitExceeded(
                    f"the session has {len(self.entries)} objects",
                    "session_id",
                    f"at most {self.limits.max_session_objects}",
                    "delete objects that are no longer needed",
                )

    def made_by(self, request: str, origin: Origin) -> Entry | None:
        """Find the object that a request has already made.

        Args:
            request: The client's id of the request; empty if it has none.
            origin: What the request asks for.

        Returns:
            The object's entry, or None.

        Raises:
            InvalidInput: The request has made an object from another spec.
        """
        if not request:
            return None
        with self.lock:
            entry = next((e for e in self.entries.values() if e.request == request), None)
        if entry is not None and entry.origin != origin:
            raise InvalidInput(
                f"request {request} has already made {entry.handle} from another spec",
                "request_id",
                "an id for each object",
                "choose another request id",
            )
        return entry

    def add(
        self,
        origin: Origin,
        kind: str,
        value: Any,
        remake: Callable[[], Any] | None,
        uses: tuple[Entry, ...],
        request: str = "",
        given: tuple[str, dict[str, Any]] | None = None,
    ) -> Entry:
        """Add an object, and return its entry with a new handle.

        Args:
            origin: What identifies its snapshots.
            kind: Kind of its block.
            value: The object.
            remake: Makes a dataset again.
            uses: Objects from which it was made.
            request: The client's id of the request.
            given: Kind and parameters of an atlas's block.

        Returns:
            The entry.

        Raises:
            NotFound: The session was closed.
            LimitExceeded: The session has too many objects.
        """
        with self.lock:
            self.check_open()
            self.check_room()
            number = self._made[origin.type] = self._made.get(origin.type, 0) + 1
            entry = Entry(f"{origin.type}-{number}", origin, kind, value, remake, uses, request)
            entry.given = given
            self.entries[entry.handle] = entry
            return entry

    def check_idle(self, entry: Entry) -> None:
        """Raise ``NotReady`` while a job works on an object, or on one that it depends on.

        Objects that were made from this one count as well.
        """
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
        """Delete an object. Raises ``NotReady`` while it is in use."""
        with self.lock:
            entry = self.find(handle, "handle")
            self.check_idle(entry)
            del self.entries[handle]

    def renew(self) -> bool:
        """Renew the lease. Returns False if the session is closed."""
        with self.lock:
            if self._closed:
                return False
            self._used = time.monotonic()
            return True

    def expire(self) -> bool:
        """Close the session to new calls if its lease has ended, and tell whether it is closed."""
        with self.lock:
            self._closed = self._closed or self.expired
            return self._closed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease for the time of a call or a watch."""
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
        """Whether the lease has ended. It does not end while a job is unfinished."""
        with self.lock:
            if self._held or self.unfinished:
                return False
            last = max([self._used, *(job.ended for job in self.jobs.values())])
            return time.monotonic() - last > self.limits.lease_seconds

    @property
    def unfinished(self) -> int:
        """Number of jobs that run or wait."""
        with self.lock:
            return sum(not job.over for job in self.jobs.values())

    def check_open(self) -> None:
        """Raise ``NotFound`` if the session was closed since the call began."""
        if self._closed:
            raise _no_session()

    def close(self) -> None:
        """Cancel all jobs, wait for a step of the running one, and free everything."""
        with self.lock:
            self._closed = True
            jobs = list(self.jobs.values())
        for job in jobs:
            job.cancel()
        deadline = time.monotonic() + _JOB_STOP_SECONDS
        for job in jobs:
            if not job.wait(max(0.0, deadline - time.monotonic())):
                log.warning("%s has not stopped yet", job.id)
        if self.team is not None:
            self.team.close()
        with self.lock:
            self.entries.clear()
            self.requests.clear()
        self.tickets.close(self.id)
        return_freed_memory()


class Sessions:
    """The open sessions of a worker. Once started, it closes those whose lease ends.

    A thread that holds the table's lock or a session's lock must not wait for another session's
    lock; otherwise calls would wait for each other.
    """

    def __init__(
        self,
        limits: Limits,
        tickets: Tickets,
        queues: DeviceQueues,
        torchrun: Torchrun | None = None,
    ) -> None:
        self._limits, self.tickets, self.queues = limits, tickets, queues
        self._torchrun = torchrun
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the thread that closes expired sessions."""
        threading.Thread(target=self._watch_leases, name="leases", daemon=True).start()

    def open(
        self,
        label: str,
        devices: Sequence[torch.device],
        ranks: int = 1,
        every: Sequence[torch.device] = (),
    ) -> Session:
        """Open a session on the device with the least to do.

        A device with hardly any free memory comes last; then the one with the fewest pieces of
        work, the fewest sessions, and the most free memory comes first.

        Args:
            label: The client's name for the session.
            devices: Devices that the session may use.
            ranks: Number of processes that share its trainings.
            every: All devices of the worker. Ranks on CUDA have one each.

        Raises:
            LimitExceeded: There are too many sessions.
            InvalidInput: There are more ranks than devices, or than threads of a CPU.
        """
        self._close_expired()
        with self._lock:
            if len(self._open) >= self._limits.max_sessions:
                raise LimitExceeded(
                    f"this worker has {len(self._open)} open sessions",
                    "",
                    f"at most {self._limits.max_sessions}",
                    "close a session, or try again later: a session whose client is gone is closed "
                    f"{self._limits.lease_seconds:g} s after its last job",
                )
            device = devices[0] if len(devices) == 1 else min(devices, key=self._load)
            team = None if ranks <= 1 else self._team(ranks, device, every)
            queue = self.queues.of(device)
            session = Session(label, device, self._limits, self.tickets, queue, team)
            self._open[session.id] = session
            return session

    def _team(self, ranks: int, device: torch.device, every: Sequence[torch.device]) -> Team:
        """Make the team of a session on a device."""
        if self._torchrun is not None:
            return self._joined(self._torchrun, ranks, device)
        threads, chosen = self.queues.threads, [device] * ranks
        if device.type == "cpu":
            most, what = threads, f"{threads} CPU thread{'s' * (threads > 1)}"
            remedy = "use fewer ranks, or start the worker with more threads"
        else:
            same = sorted(
                (d for d in every if d.type == device.type), key=lambda d: (d != device, d.index)
            )
            most, what = len(same), f"{len(same)} {device.type} device{'s' * (len(same) > 1)}"
            remedy, chosen = "use fewer ranks", same[:ranks]
        if ranks > most:
            raise InvalidInput(
                f"{ranks} ranks are too many for this worker's {what}",
                "ranks",
                f"1 to {most}",
                remedy,
            )
        shared = shared_threads(threads, ranks, device)
        return Team(ranks, Processes(chosen, threads), threads, shared)

    def _joined(self, torchrun: Torchrun, ranks: int, device: torch.device) -> Team:
        """Make the team of a session from the processes that torchrun has started."""
        if (ranks, device) != (torchrun.size, torchrun.device):
            raise InvalidInput(
                f"this worker is one of {torchrun.size} ranks that torchrun has started, each on a "
                f"device like {torchrun.device}, and {ranks} on {device} were asked for",
                "ranks",
                f"1 or {torchrun.size}",
                "ask for all of them, or start torchrun with another number of processes",
            )
        if torchrun.taken:
            raise LimitExceeded(
                "another session uses the ranks of this worker",
                "ranks",
                "one session at a time",
                "wait for the end of the other session",
            )
        torchrun.taken = True
        return Team(ranks, torchrun, self.queues.threads, self.queues.threads)

    def get(self, session_id: str) -> Session:
        """Find a session and renew its lease. Raises ``NotFound`` if it is closed."""
        with self._lock:
            session = self._open.get(session_id)
        if session is None or not session.renew():
            raise _no_session()
        logs.bind(run=session.label, session=session.id)
        return session

    def _load(self, device: torch.device) -> tuple[bool, int, int, int]:
        free, total = memory(device)
        here = sum(session.device == device for session in self._open.values())
        return free < _SCARCE * total, self.queues.waiting(device), here, -free

    def on(self, device: torch.device) -> int:
        """Count the sessions of a device."""
        return sum(session.device == device for session in self._all())

    def any(self) -> bool:
        """Whether a session is open."""
        return bool(self._all())

    def check_queue(self) -> None:
        """Raise ``LimitExceeded`` if no more jobs may wait. Callers must hold no session's lock."""
        unfinished = sum(session.unfinished for session in self._all())
        if unfinished >= self._limits.max_unfinished_jobs:
            raise LimitExceeded(
                f"{unfinished} jobs run or wait on this worker",
                "",
                f"at most {self._limits.max_unfinished_jobs}",
                "try again when some of them have ended",
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
                    continue  # another thread closes it
            with logs.bound(run=session.label, session=session.id):
                log.warning("the session's lease has ended")
                session.close()

    def close(self, session_id: str) -> None:
        """Close a session; no effect if it is closed."""
        with self._lock:
            session = self._open.pop(session_id, None)
        if session is not None:
            with logs.bound(run=session.label, session=session.id):
                session.close()
                log.info("session closed")

    def close_all(self) -> None:
        """Close all sessions."""
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
        "open a new session",
    )
