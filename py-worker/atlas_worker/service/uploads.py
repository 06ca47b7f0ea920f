"""Files that clients send over the tensor plane, in a folder of this worker.

A file of any size is written as its parts come, so none is in memory. A ticket may bring several
files, which are then a folder. The folder of a session is removed when the session is closed, and
the folder of a worker that was killed when the next one needs it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from atlas_worker.errors import InvalidInput, LimitExceeded, NotFound

from .limits import GIB, Limits

PREFIX = "upload:"
"""Begins a path that is the ticket of an upload."""
RESERVE = GIB
"""Bytes of the disk that are left free."""
_LONGEST_NAME, _DEEPEST = 255, 32


class Uploads:
    """Files of all sessions. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._sessions: dict[str, dict[str, int]] = {}
        """Bytes by ticket of each open session."""
        self._partial: dict[tuple[str, str], tuple[int, int]] = {}
        """Size and number of bytes that have come, of files that are not complete yet."""
        self._tops: dict[str, str] = {}
        """Name of the file, or of the folder, of each ticket."""
        self._folder: Path | None = None
        self._mark: FileIO | None = None

    def open(self, session: str) -> None:
        """Allow uploads of a session."""
        with self._lock:
            self._sessions[session] = {}

    def close(self, session: str) -> None:
        """Remove the files of a session. Later uploads to it are refused."""
        with self._lock:
            tickets = self._sessions.pop(session, {})
            for ticket in tickets:
                self._tops.pop(ticket, None)
            for key in [key for key in self._partial if key[0] in tickets]:
                del self._partial[key]
            folder = self._folder
        if folder is not None and tickets:
            shutil.rmtree(folder / session, ignore_errors=True)

    def put(
        self,
        ticket: str,
        name: str,
        size: int,
        offset: int,
        body: Sequence[memoryview],
        *,
        more: bool,
    ) -> None:
        """Write a part of a file.

        Args:
            ticket: The ticket, chosen by the client.
            name: Name of the file, with slashes for a file in a folder.
            size: Bytes of the whole file.
            offset: Where the part begins. Parts come in order.
            body: The part.
            more: Whether another part follows.

        Raises:
            InvalidInput: The name is not accepted, or the part is not the next one.
            NotFound: The session is closed.
            LimitExceeded: The session would have too many bytes, or the disk is too full.
        """
        session = ticket.partition(".")[0]
        parts = _checked(name)
        count = sum(map(len, body))
        key = ticket, name
        with self._lock:
            held = self._sessions.get(session)
            if held is None:
                raise NotFound("the ticket belongs to no open session", "ticket")
            top = self._tops.setdefault(ticket, parts[0])
            if top != parts[0]:
                raise InvalidInput(f"{name} is not in {top}", "header.file_name", f"{top}/…")
            folder = self._own() / session / ticket.partition(".")[2]
            if offset == 0:
                self._check_room(held, size)
                self._partial.pop(key, None)
                held[ticket] = held.get(ticket, 0) + size
                known = size, 0
            else:
                known = self._partial.pop(key, (-1, -1))
            end = offset + count
            if known != (size, offset) or end > size or more == (end == size):
                raise InvalidInput(
                    f"a part of {count} bytes at byte {offset} of {size}",
                    "header.offset",
                    "the next part",
                    "send all parts again, in order",
                )
            path = folder.joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb" if offset == 0 else "ab") as file:
                    for piece in body:
                        file.write(piece)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise LimitExceeded(
                    f"the worker cannot write {name}: {(error.strerror or str(error)).lower()}",
                    "header.file_name",
                    "a disk with enough room",
                    "free some space on the worker's machine",
                ) from error
            if more:
                self._partial[key] = size, end

    def path(self, session: str, ticket: str, field: str) -> Path:
        """Return the path of a file, or of a folder, that has come whole.

        Args:
            session: Id of the session.
            ticket: The ticket.
            field: Dotted path of the ticket in the request, for the error.

        Raises:
            NotFound: The session has no such file.
        """
        with self._lock:
            whole = not any(key[0] == ticket for key in self._partial)
            if ticket not in self._sessions.get(session, {}) or not whole:
                raise NotFound(
                    "no such upload: it is not complete, or its session is closed",
                    field,
                    "",
                    "send the file again",
                )
            return self._own() / session / ticket.partition(".")[2] / self._tops[ticket]

    def _check_room(self, held: dict[str, int], size: int) -> None:
        total = sum(held.values()) + size
        if total > self._limits.max_session_upload_bytes:
            raise LimitExceeded(
                f"the session would have {total} bytes of files on the worker",
                "header.byte_length",
                f"at most {self._limits.max_session_upload_bytes} bytes",
                "put the files onto the worker's machine",
            )
        free = shutil.disk_usage(self._own()).free - RESERVE
        if size > free:
            raise LimitExceeded(
                f"a file of {size / 1e9:.3g} GB does not fit on the worker's disk, which has "
                f"{max(0, free) / 1e9:.3g} GB to spare",
                "header.byte_length",
                "a file that fits",
                "free some space there, or put the file onto the worker's machine",
            )

    def _own(self) -> Path:
        """Return this worker's folder. It is locked while this process lives."""
        if self._folder is None:
            from atlas_worker.datasets.cache import user_folder

            try:
                root = user_folder("uploads")
                root.mkdir(parents=True, exist_ok=True, mode=0o700)
            except (InvalidInput, OSError):
                root = Path(tempfile.mkdtemp(prefix="atlas-uploads-"))
            for other in root.iterdir():
                if re.fullmatch(r"[0-9a-f]{32}", other.name) and _is_abandoned(other):
                    shutil.rmtree(other, ignore_errors=True)
            folder = root / uuid.uuid4().hex
            folder.mkdir(mode=0o700)
            self._mark = (folder / "lock").open("xb", buffering=0)
            _lock(self._mark)
            self._folder = folder
        return self._folder

    def stop(self) -> None:
        """Remove all files."""
        with self._lock:
            folder, self._folder = self._folder, None
            if self._mark is not None:
                self._mark.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _checked(name: str) -> list[str]:
    parts = name.split("/")
    if len(parts) > _DEEPEST or any(
        part in ("", ".", "..")
        or len(part.encode()) > _LONGEST_NAME
        or re.search(r"[\0-\x1f\\:]", part)
        for part in parts
    ):
        raise InvalidInput(
            f"{name[:100]!r} is no name of a file", "header.file_name", "names without . and .."
        )
    return parts


def _lock(file: FileIO) -> bool:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _is_abandoned(folder: Path) -> bool:
    try:
        with (folder / "lock").open("rb", buffering=0) as file:
            return _lock(file)
    except OSError:  # it is being made, or removed
        return False
