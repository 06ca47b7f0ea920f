"""Arrays cached on disk: made once from files that are slow to read, then mapped into memory."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput

FORMAT = 1
"""Version of the file format. Raise it when the content changes."""
FIELD = "dataset.source.params.cache"
"""Path of the cache folder in a request, for errors."""
REMEDY = "choose another folder for the cache, or do without one"
PAGE = 4096
"""Arrays start at multiples of this many bytes."""
PARTIAL = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.partial")
"""Names of files that are being written."""


def user_folder(name: str) -> Path:
    """Return this user's folder for a cache.

    The folder is ``$XDG_CACHE_HOME/atlas-symmetry/NAME``, by default in ``~/.cache``.

    Args:
        name: Name of the cache.

    Returns:
        The folder, which may not exist yet.

    Raises:
        InvalidInput: The user has no home folder.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:
        raise InvalidInput(
            "there is no folder for caches: neither XDG_CACHE_HOME nor HOME is set",
            FIELD,
            "a folder",
            REMEDY,
        ) from None
    return base / "atlas-symmetry" / name


@dataclass(frozen=True)
class Cache:
    """Arrays in one file, ``folder/KEY.arrays``. KEY is a hash of the facts, shapes and types.

    A file is complete or absent: it is written under another name, which ends in ``.partial``, and
    renamed when it is on the disk. Two processes that make the same file do not disturb each other;
    the file of the last one stays. The next writer in the folder removes the partial files of
    writers that were killed. Nothing else is ever removed. All files here may be deleted at any
    time; a process that has a file mapped keeps it until it ends.
    """

    folder: Path
    facts: Mapping[str, Any]
    """JSON values: all that the content depends on."""
    about: Mapping[str, Any]
    """JSON values for people: the file's first line (``head -n 1``) shows them."""
    arrays: Sequence[tuple[tuple[int, ...], torch.dtype]]
    """Shape and type of each array."""

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.folder / f"{self._key}.arrays"

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        (shape, dtype), start = self.arrays[-1], self._starts[-1]
        return start + math.prod(shape) * dtype.itemsize

    def load(self) -> tuple[Tensor, ...] | None:
        """Map the arrays into memory; see :meth:`_map`. None if the file is missing or damaged."""
        try:
            with self.path.open("rb", buffering=0) as file:
                if (
                    os.fstat(file.fileno()).st_size == self.size
                    and file.read(len(self._head)) == self._head
                ):
                    return self._map(file)
        except OSError:  # whatever is wrong with the file, it can be made again
            pass
        return None

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Make the file, which is in place when the ``with`` block ends.

        Nothing is left if the block raises an error.

        Yields:
            The writer of the entries.

        Raises:
            InvalidInput: The folder cannot be written to, or the disk is too full.
        """
        with _refusing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            partial, file = self._open()
        try:
            with file:
                with _refusing(self.folder):
                    self._check_room()
                    file.write(self._head)
                    file.truncate(self.size)
                writer = Writer(self, file)
                yield writer
                with _refusing(self.folder):
                    os.fsync(file.fileno())
                    writer.arrays = self._map(file)
                    os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if self.size > free:
            raise InvalidInput(
                f"the cache needs {self.size / 1e9:.3g} GB, "
                f"but the disk of {self.folder} has only {free / 1e9:.3g} GB free",
                FIELD,
                "a folder on a disk with enough room",
                REMEDY,
            )

    def _open(self) -> tuple[Path, FileIO]:
        """Create a file to write, locked while it is open, and remove files that nobody locks."""
        for path in self.folder.iterdir():
            if PARTIAL.fullmatch(path.name):
                _remove_abandoned(path)
        while True:
            partial = self.folder / f"{self._key}-{uuid.uuid4().hex}.partial"
            file = partial.open("x+b", buffering=0)
            _lock(file, wait=True)
            if partial.exists():
                return partial, file
            file.close()  # another process removed it before it was locked

    def _map(self, file: FileIO) -> tuple[Tensor, ...]:
        """Map an open file into memory, on the CPU.

        The system reads pages when they are used, and drops them when memory is short. What is
        written into the tensors stays in this process. Under a limit on memory they cannot be
        written to.
        """
        if sys.platform == "linux":
            # Without NORESERVE a file larger than the memory is refused. Python has no name for it
            # before 3.13.
            flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
            try:
                mapped = mmap.mmap(file.fileno(), self.size, flags)
            except OSError:  # a limit on memory counts pages that may be written to
                return self._views(mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ))
        else:
            mapped = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_COPY)
        return self._views(mapped)

    def _views(self, mapped: mmap.mmap) -> tuple[Tensor, ...]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about memory that cannot be written to
            return tuple(
                torch.frombuffer(mapped, dtype=dtype, count=math.prod(shape), offset=start).view(
                    shape
                )
                for (shape, dtype), start in zip(self.arrays, self._starts, strict=True)
            )

    @cached_property
    def _key(self) -> str:
        types = [(shape, str(dtype)) for shape, dtype in self.arrays]
        content = json.dumps([FORMAT, sys.byteorder, types, self.facts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    @cached_property
    def _head(self) -> bytes:
        line = json.dumps({**self.about, "key": self._key}).encode()
        return line.ljust(_pages(len(line) + 1) - 1) + b"\n"

    @cached_property
    def _starts(self) -> list[int]:
        """Where the arrays start, in bytes."""
        starts = [len(self._head)]
        for shape, dtype in self.arrays[:-1]:
            starts.append(_pages(starts[-1] + math.prod(shape) * dtype.itemsize))
        return starts


class Writer:
    """Writes the entries of a cache file. ``arrays`` is set, mapped, when the file is in place."""

    arrays: tuple[Tensor, ...]

    def __init__(self, cache: Cache, file: FileIO) -> None:
        self._cache, self._file = cache, file

    def put(self, index: int, parts: Sequence[Tensor]) -> None:
        """Write entry ``index`` of every array."""
        self.put_all(index, [part[None] for part in parts])

    def put_all(self, start: int, parts: Sequence[Tensor]) -> None:
        """Write entries of every array, from ``start`` on."""
        for part, (shape, dtype), begin in zip(
            parts, self._cache.arrays, self._cache._starts, strict=True
        ):
            if part.shape[1:] != shape[1:] or part.dtype != dtype:
                raise ValueError(f"{part.shape} {part.dtype} given, {shape[1:]} {dtype} expected")
            # A mapping would not do: on a full disk the process would be killed.
            with _refusing(self._cache.folder):
                self._file.seek(begin + start * math.prod(shape[1:]) * dtype.itemsize)
                left = part.contiguous().numpy().reshape(-1).data.cast("B")
                while left:
                    left = left[self._file.write(left) :]


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """Turn errors of writing into the folder into ``InvalidInput``."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"the cache cannot be written in {folder}: {(error.strerror or str(error)).lower()}",
            FIELD,
            "a writable folder on a disk with enough room",
            REMEDY,
        ) from error


def _lock(file: FileIO, wait: bool = False) -> bool:
    """Lock an open file, and tell whether that worked. It does not where there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # Windows, a file that another locks, or no locks
        return False
    return True


def _remove_abandoned(path: Path) -> None:
    try:
        with path.open("rb", buffering=0) as file:
            if _lock(file):
                path.unlink()
    except OSError:  # another process has it, or it is gone
        pass
