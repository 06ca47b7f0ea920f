"""Buffers of the tensor plane by ticket: tensors that clients uploaded, and tensors to fetch."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from atlas_worker.errors import InvalidInput, LimitExceeded, NotFound

from .limits import Limits
from .uploads import Uploads

_TICKET = re.compile(r"([0-9a-f]{32})\.[0-9a-f]{32}")


@dataclass(frozen=True)
class Layout:
    """Type, shape and bytes of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class Buffer:
    """A tensor's elements. ``data`` keeps the memory alive."""

    layout: Layout
    data: memoryview


class Tickets:
    """All buffers of the tensor plane. Thread-safe.

    A ticket is ``<session id>.<32 lower-case hex digits>``. It cannot be guessed, because the
    session id cannot.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.uploads = Uploads(limits)
        """Files of the sessions, which are on the disk."""
        self._lock = threading.Lock()
        self._sessions: dict[str, dict[str, Buffer]] = {}
        self._partial: dict[str, tuple[Buffer, int]] = {}
        """Uploads that are not complete yet, by ticket, and the number of bytes that have come."""

    def open(self, session: str) -> None:
        """Allow tickets of a session."""
        self.uploads.open(session)
        with self._lock:
            self._sessions[session] = {}

    def close(self, session: str) -> None:
        """Free all buffers of a session. Later uploads to it are refused."""
        self.uploads.close(session)
        with self._lock:
            self._sessions.pop(session, None)
            for ticket in [t for t in self._partial if t.partition(".")[0] == session]:
                del self._partial[ticket]

    def upload(self, ticket: str, buffer: Buffer) -> None:
        """Store what a client sent.

        Args:
            ticket: The ticket, chosen by the client.
            buffer: The tensor.

        Raises:
            InvalidInput: The ticket is malformed or in use.
            NotFound: The session is closed.
            LimitExceeded: The session would hold too many bytes.
        """
        session = _session_of(ticket)
        with self._lock:
            self._add(session, ticket, buffer)

    def upload_part(
        self, ticket: str, layout: Layout, offset: int, body: Sequence[memoryview], *, more: bool
    ) -> None:
        """Store a part of what a client sends. The ticket is good when the last part has come.

        Args:
            ticket: The ticket, chosen by the client.
            layout: The layout of the whole tensor.
            offset: Where the part begins, in bytes. Parts come in order.
            body: The part.
            more: Whether another part follows.

        Raises:
            InvalidInput: The ticket is malformed or in use, or the part is not the next one. What
                has come before it is dropped.
            NotFound: The session is closed.
            LimitExceeded: The session would hold too many bytes.
        """
        session = _session_of(ticket)
        size = sum(map(len, body))
        with self._lock:
            if offset == 0:
                self._partial.pop(ticket, None)
                self._check(session, ticket, layout)
                # torch's memory is aligned as tensors need it.
                data = memoryview(torch.empty(layout.nbytes, dtype=torch.uint8).numpy())  # type: ignore[arg-type]
                held = Buffer(layout, data), 0
            else:
                held = self._partial.pop(ticket, (Buffer(layout, memoryview(b"")), 0))
            buffer, filled = held
            end = offset + size
            if (
                buffer.layout != layout
                or offset != filled
                or end > layout.nbytes
                or more == (end == layout.nbytes)
            ):
                raise InvalidInput(
                    f"a part of {size} bytes at byte {offset} of {layout.nbytes}",
                    "header.offset",
                    f"the next part, at byte {filled}",
                    "send all parts again, in order",
                )
            for piece in body:
                buffer.data[offset : offset + len(piece)] = piece
                offset += len(piece)
            if more:
                self._partial[ticket] = buffer, end
            else:
                self._add(session, ticket, buffer)

    def upload_file(
        self,
        ticket: str,
        name: str,
        size: int,
        offset: int,
        body: Sequence[memoryview],
        more: bool,
    ) -> None:
        """Write a part of a file that a client sends; see :meth:`.uploads.Uploads.put`.

        Raises:
            InvalidInput: The ticket is malformed, or as ``put`` says.
        """
        _session_of(ticket)
        self.uploads.put(ticket, name, size, offset, body, more=more)

    def issue(self, session: str, buffer: Buffer) -> str:
        """Store a buffer for a client to fetch.

        Args:
            session: Id of the session.
            buffer: The tensor.

        Returns:
            A new ticket.

        Raises:
            NotFound: The session is closed.
            LimitExceeded: The session would hold too many bytes.
        """
        ticket = f"{session}.{secrets.token_hex(16)}"
        with self._lock:
            self._add(session, ticket, buffer)
        return ticket

    def peek(self, ticket: str) -> Buffer:
        """Return a buffer and keep it. Raises ``NotFound``."""
        with self._lock:
            buffer = self._sessions.get(ticket.partition(".")[0], {}).get(ticket)
        if buffer is None:
            raise _unknown("ticket")
        return buffer

    def take(self, session: str, ticket: str, field: str) -> Buffer:
        """Return a buffer and end its ticket.

        Args:
            session: Id of the session.
            ticket: The ticket.
            field: Dotted path of the ticket in the request, for the error.

        Returns:
            The buffer.

        Raises:
            NotFound: The session has no such ticket.
        """
        with self._lock:
            buffer = self._sessions.get(session, {}).pop(ticket, None)
        if buffer is None:
            raise _unknown(field)
        return buffer

    def discard(self, ticket: str) -> None:
        """End a ticket; no effect if it has ended."""
        with self._lock:
            self._sessions.get(ticket.partition(".")[0], {}).pop(ticket, None)

    def _add(self, session: str, ticket: str, buffer: Buffer) -> None:
        self._check(session, ticket, buffer.layout)[ticket] = buffer

    def _check(self, session: str, ticket: str, layout: Layout) -> dict[str, Buffer]:
        """Return the buffers of a session, which may take another one."""
        held = self._sessions.get(session)
        if held is None:
            raise NotFound("the ticket belongs to no open session", "ticket", "", "open a session")
        if ticket in held:
            raise InvalidInput(
                "the ticket is in use", "ticket", "a ticket not used before", "choose another one"
            )
        partial = [b for t, (b, _) in self._partial.items() if t.partition(".")[0] == session]
        total = sum(b.layout.nbytes for b in [*held.values(), *partial]) + layout.nbytes
        if total > self._limits.max_session_ticket_bytes:
            raise LimitExceeded(
                f"the session would hold {total} bytes on the tensor plane",
                "ticket",
                f"at most {self._limits.max_session_ticket_bytes} bytes",
                "use or fetch the session's tensors first",
            )
        return held


def _session_of(ticket: str) -> str:
    match = _TICKET.fullmatch(ticket)
    if match is None:
        raise InvalidInput("malformed ticket", "ticket", "<session id>.<32 lower-case hex digits>")
    return match[1]


def _unknown(field: str) -> NotFound:
    return NotFound(
        "no such ticket: it was used, replaced by a newer one, or its session is closed",
        field,
        "",
        "upload the tensor again, or ask for it again",
    )
