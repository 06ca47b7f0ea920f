"""Reads .npy and .npz files. A .npy file is mapped; members of a .npz are read as streams."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import InvalidInput
from .base import (
    Index,
    Member,
    Numbers,
    Opened,
    Source,
    check_stored,
    damaged,
    inner,
    mapped,
    not_numbers,
    table_members,
)

MAGIC = b"\x93NUMPY"
_PICKLED = "Python objects (pickled), which are never loaded"


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a .npy header: shape, whether the order is Fortran's, and type."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version in ((2, 0), (3, 0)):  # these differ in the encoding of names alone
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"format version {version[0]}.{version[1]}")
    except Exception as error:  # NumPy parses a Python literal, with the errors of that
        raise damaged(path, "its header does not describe an array", error) from error
    return shape, fortran, dtype


def open_npy(path: Path) -> Opened:
    """Open a .npy file. Its numbers are mapped and read where they are used."""
    with path.open("rb") as file:
        shape, fortran, dtype = _header(file, path)
        start = file.tell()
        size = path.stat().st_size
        if dtype.hasobject:
            return Opened(path, ".npy", [Member("", shape, str(dtype), problem=_PICKLED)], _never)
        end = start + math.prod(shape) * dtype.itemsize
        if end > size:
            raise damaged(
                path,
                f"an array of shape {list(shape)} takes {end - start:,} bytes, but the file has "
                f"{size - start:,}",
            )
        file.seek(end)
        after = file.read(len(MAGIC))
    warnings = []
    if after == MAGIC:
        warnings.append(f"{path} holds several arrays; the first is used, as by numpy.load")
    elif after:
        raise damaged(
            path,
            f"an array of shape {list(shape)} takes {end - start:,} bytes, but the file has "
            f"{size - start:,}",
        )

    def load() -> Numbers:
        return mapped(path, dtype, start, shape, fortran)

    members = _members("", shape, dtype, load, path)
    return Opened(path, ".npy", [m for m, _ in members.values()], lambda n: members[n][1], warnings)


def _never(name: str) -> Source:
    raise AssertionError(name)


def _members(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], load: Callable[[], Numbers], path: Path
) -> dict[str, tuple[Member, Source]]:
    if dtype.names is None:
        member = Member(name, shape, dtype.str, problem=not_numbers(dtype))
        return {name: (member, Source(path, member, lambda index: load()[index]))}
    found = {}
    for key, (member, turn) in table_members(name, shape, dtype).items():

        def get(index: Index, turn: Callable[[Numbers], Numbers] = turn) -> Numbers:
            return inner(turn(load()[index[: len(shape)]]), index, len(shape))

        found[key] = (member, Source(path, member, get, sequential=True))
    return found


class _Stream:
    """An array in a .npz, read from front to back. Its checksum is checked at the end."""

    def __init__(
        self, path: Path, entry: zipfile.ZipInfo, start: int, shape: tuple[int, ...], dtype: Any
    ) -> None:
        self._path, self._entry, self._start = path, entry, start
        self._shape, self._dtype = shape, dtype
        self._row = math.prod(shape[1:]) * dtype.itemsize
        self._file: IO[bytes] | None = None
        self._at = 0

    def rows(self, start: int, stop: int) -> Numbers:
        """Read rows ``start`` to ``stop`` of the first axis."""
        if self._file is None or start < self._at:
            self._file = zipfile.ZipFile(self._path).open(self._entry)
            self._skip(self._start)
            self._at = 0
        self._skip((start - self._at) * self._row)
        values = np.empty((stop - start, *self._shape[1:]), self._dtype)
        into = values.reshape(-1).view(np.uint8).data
        while into:
            count = self._file.readinto(into)  # type: ignore[attr-defined]
            if not count:
                raise damaged(self._path, f"{self._entry.filename} ends too early")
            into = into[count:]
        self._at = stop
        if stop == self._shape[0] and self._file.read(1):
            raise damaged(self._path, f"{self._entry.filename} has bytes beyond its array")
        return values

    def _skip(self, count: int) -> None:
        while count > 0 and self._file is not None:
            part = len(self._file.read(min(count, 2**22)))
            if not part:
                raise damaged(self._path, f"{self._entry.filename} ends too early")
            count -= part


def open_npz(path: Path) -> Opened:
    """Open a .npz archive. Nothing is read of its members but their headers."""
    try:
        archive = zipfile.ZipFile(path)
        entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise damaged(path, "it is no zip archive that is complete", error) from error
    names = [entry.filename for entry in entries]
    members: dict[str, tuple[Member, Source]] = {}
    with archive:
        for entry in entries:
            if not entry.filename.endswith(".npy") or entry.is_dir():
                continue
            if names.count(entry.filename) > 1:
                raise damaged(path, f"it holds {entry.filename} twice")
            if entry.flag_bits & 1:
                raise InvalidInput(
                    f"{path} is encrypted", "", "a .npz archive without a password", "unpack it"
                )
            members |= _entry(archive, entry, path)
    if not members:
        what = "a PyTorch file" if any(n.endswith("data.pkl") for n in names) else "a zip archive"
        raise InvalidInput(
            f"{path} is {what} without .npy files, not a .npz archive",
            "",
            "an archive that numpy.savez wrote",
        )
    listed_ = [m for m, _ in members.values()]
    return Opened(path, ".npz", listed_, lambda n: members[n][1])


def _entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path
) -> dict[str, tuple[Member, Source]]:
    name = entry.filename[: -len(".npy")]
    try:
        with archive.open(entry) as file:
            shape, fortran, dtype = _header(file, path)
            start = file.tell()
    except (zipfile.BadZipFile, OSError, NotImplementedError, zlib.error) as error:
        raise damaged(path, f"{entry.filename} cannot be read", error) from error
    if dtype.hasobject:
        member = Member(name, shape, str(dtype), problem=_PICKLED)
        return {name: (member, Source(path, member, lambda _: np.empty(0)))}
    size = math.prod(shape) * dtype.itemsize
    if start + size != entry.file_size:
        raise damaged(
            path,
            f"{name} declares {size:,} bytes, but the archive has {entry.file_size - start:,}",
        )
    check_stored(path, name, size, entry.compress_size)
    stored = entry.compress_type == zipfile.ZIP_STORED
    stream = _Stream(path, entry, start, shape, dtype)

    def whole() -> Numbers:
        if stored:
            return mapped(path, dtype, _place(path, entry) + start, shape, fortran)
        with zipfile.ZipFile(path) as again, again.open(entry) as file:
            found: Numbers = np.lib.format.read_array(file, allow_pickle=False)
            return found

    held: list[Numbers] = []

    def load(index: Index) -> Numbers:
        rows = index[0] if index else slice(0, 0)
        if (
            not fortran
            and index
            and all(s == slice(0, n) for s, n in zip(index[1:], shape[1:], strict=True))
        ):
            return stream.rows(rows.start, rows.stop)
        if not held:
            held.append(whole())
        return held[0][index]

    found = {}
    if dtype.names is None:
        member = Member(name, shape, dtype.str, problem=not_numbers(dtype))
        found[name] = (
            member,
            Source(path, member, load, memory=size if fortran and not stored else 0),
        )
        return found
    for key, (member, turn) in table_members(name, shape, dtype).items():

        def get(index: Index, turn: Callable[[Numbers], Numbers] = turn) -> Numbers:
            return inner(turn(load(index[: len(shape)])), index, len(shape))

        found[key] = (member, Source(path, member, get, sequential=True))
    return found


def _place(path: Path, entry: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin that is not compressed."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        head = file.read(30)
    if head[:4] != b"PK\x03\x04":
        raise damaged(path, f"{entry.filename} is not where the archive says")
    return (
        entry.header_offset
        + 30
        + int.from_bytes(head[26:28], "little")
        + int.from_bytes(head[28:30], "little")
    )
