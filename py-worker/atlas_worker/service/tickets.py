"""Buffers on the tensor plane, by ticket: what clients have uploaded and what waits to be fetched."""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass

import torch

from atlas_worker.errors import InvalidInput, LimitExceeded, NotFound

from .limits import Limits

_TICKET = re.compile(r"([0-9a-f]{32})\.[0-9a-f]{32}")


@dataclass(frozen=True)
class Layout:
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class Buffer:
    """A tensor's elements; ``data`` keeps whatever owns the memory alive."""

    layout: Layout
    data: memoryview


class Tickets:
    """Thread-safe. A ticket is ``<session id>.<32 lower-case hex digits>``: unguessable, because the session id is."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._sessions: dict[str, dict[str, Buffer]] = {}

    def open(self, session: str) -> None:
        with self._lock:
            self._sessions[session] = {}

    def close(self, session: str) -> None:
        """Free every buffer of a session; later uploads to it are refused."""
        with self._lock:
            self._sessions.pop(session, None)

    def upload(self, ticket: str, buffer: Buffer) -> None:
        """Keep what a client sent under a ticket that it made up. Raises ``InvalidInput``, ``NotFound``, ``LimitExceeded``."""
        match = _TICKET.fullmatch(ticket)
        if match is None:
            raise InvalidInput("malformed ticket", "ticket", "<session id>.<32 lower-case hex digits>")
        with self._lock:
            self._add(match[1], ticket, buffer)

    def issue(self, session: str, buffer: Buffer) -> str:
        """Hand out a ticket for a buffer. Raises ``NotFound`` (session closed), ``LimitExceeded``."""
        ticket = f"{session}.{secrets.token_hex(16)}"
        with self._lock:
            self._add(session, ticket, buffer)
        return ticket

    def peek(self, ticket: str) -> Buffer:
        """The buffer, which stays. Raises ``NotFound``."""
        with self._lock:
            buffer = self._sessions.get(ticket.partition(".")[0], {}).get(ticket)
        if buffer is None:
            raise _unknown("ticket")
        return buffer

    def take(self, session: str, ticket: str, field: str) -> Buffer:
        """The buffer, whose ticket ends. Raises ``NotFound``, also for another session's ticket."""
        with self._lock:
            buffer = self._sessions.get(session, {}).pop(ticket, None)
        if buffer is None:
            raise _unknown(field)
        return buffer

    def discard(self, ticket: str) -> None:
        """End a ticket, if it has not ended already."""
        with self._lock:
            self._sessions.get(ticket.partition(".")[0], {}).pop(ticket, None)

    def _add(self, session: str, ticket: str, buffer: Buffer) -> None:
        held = self._sessions.get(session)
        if held is None:
            raise NotFound("no open session with this ticket's prefix", "ticket", "", "open a session")
        if ticket in held:
            raise InvalidInput(
                "this ticket is in use", "ticket", "a ticket not used before", "make up another one"
            )
        total = sum(b.layout.nbytes for b in held.values()) + buffer.layout.nbytes
        if total > self._limits.max_session_ticket_bytes:
            raise LimitExceeded(
                f"the session would keep {total} bytes on the tensor plane",
                "ticket",
                f"at most {self._limits.max_session_ticket_bytes} bytes",
                "use or fetch what is there first",
            )
        held[ticket] = buffer


def _unknown(field: str) -> NotFound:
    return NotFound(
        "no such ticket: it was used, replaced by a newer one, or its session is closed",
        field,
        "",
        "upload the tensor, or ask for it, again",
    )
