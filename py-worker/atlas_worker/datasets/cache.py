"""Arrays on disk: made once from files that are slow to read, and mapped into memory by all who come later."""

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
"""To be raised when what is written changes."""
FIELD = "dataset.source.params.cache"
REMEDY = "choose another folder with --cache, or do without: --keep memory"
PAGE = 4096
"""Arrays start at multiples of it."""
PARTIAL = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.partial")


def user_folder(name: str) -> Path:
    """Where this user's caches are: ``$XDG_CACHE_HOME/atlas-symmetry/NAME``, by default in ``~/.cache``.

    Raises ``InvalidInput`` for a user without a home.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:
        raise InvalidInput(
            "there is no folder for caches: neither XDG_CACHE_HOME nor HOME is set", FIELD, "a folder", REMEDY
        ) from None
    return base / "atlas-symmetry" / name


@dataclass(frozen=True)
class Cache:
    """Arrays of given shapes and types in one file, ``folder/KEY.arrays``, where KEY is a hash of ``facts`` and of those.

    ``facts``: JSON values, all that the content depends on. ``about``: which of them a person is told who looks at the file's first
    line (``head -n 1``). A file is whole or not there: it is written under another name, which ends in ``.partial``, and renamed once
    it is on the disk. Two who make the same one do not disturb each other, the last to finish stays. What a writer that was killed
    leaves is removed by the next one in that folder. Nothing else is ever removed: all files here may be deleted, at any
    time; who has one mapped keeps it until they end.
    """

    folder: Path
    facts: Mapping[str, Any]
    about: Mapping[str, Any]
    arrays: Sequence[tuple[tuple[int, ...], torch.dtype]]

    @property
    def path(self) -> Path:
        return self.folder / f"{self._key}.arrays"

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        (shape, dtype), start = self.arrays[-1], self._starts[-1]
        return start + math.prod(shape) * dtype.itemsize

    def load(self) -> tuple[Tensor, ...] | None:
        """The arrays, mapped (see :meth:`_map`); None where there is no such file, or a damaged one."""
        try:
            with self.path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size == self.size and file.read(len(self._head)) == self._head:
                    return self._map(file)
        except OSError:  # whatever is the matter with it, it can be made again
            pass
        return None

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Make the file; it is in place once the block ends, and nothing is left where that raises.

        Raises ``InvalidInput`` where the folder cannot be written, or the disk has too little room.
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
                f"the cache takes {self.size / 1e9:.3g} GB, but only {free / 1e9:.3g} GB are free on the disk of {self.folder}",
                FIELD,
                "a folder on a disk with room",
                REMEDY,
            )

    def _open(self) -> tuple[Path, FileIO]:
        """A new file to write, locked for as long as it is open; those that nobody has locked are removed."""
        for path in self.folder.iterdir():
            if PARTIAL.fullmatch(path.name):
                _remove_abandoned(path)
        while True:
            partial = self.folder / f"{self._key}-{uuid.uuid4().hex}.partial"
            file = partial.open("x+b", buffering=0)
            _lock(file, wait=True)
            if partial.exists():
                return partial, file
            file.close()  # another who tidied up had it before it was locked

    def _map(self, file: FileIO) -> tuple[Tensor, ...]:
        """On the CPU; pages are read when they are looked at, and dropped when memory is short. What is written into them stays with us."""
        if sys.platform == "linux":
            # Without NORESERVE, one larger than the memory is refused. Python has no name for it before 3.13.
            flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
            mapped = mmap.mmap(file.fileno(), self.size, flags)
        else:
            mapped = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_COPY)
        return tuple(
            torch.frombuffer(mapped, dtype=dtype, count=math.prod(shape), offset=start).view(shape)
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
        """Of the arrays, in bytes."""
        starts = [len(self._head)]
        for shape, dtype in self.arrays[:-1]:
            starts.append(_pages(starts[-1] + math.prod(shape) * dtype.itemsize))
        return starts


class Writer:
    """Of a cache that is being made. ``arrays`` are there when it is in place, mapped."""

    arrays: tuple[Tensor, ...]

    def __init__(self, cache: Cache, file: FileIO) -> None:
        self._cache, self._file = cache, file

    def put(self, index: int, parts: Sequence[Tensor]) -> None:
        """Entry ``index`` of every array."""
        for part, (shape, dtype), start in zip(parts, self._cache.arrays, self._cache._starts, strict=True):
            if part.shape != shape[1:] or part.dtype != dtype:
                raise ValueError(f"{part.shape} {part.dtype} given, {shape[1:]} {dtype} expected")
            # Not through a mapping: a full disk would kill the process.
            with _refusing(self._cache.folder):
                self._file.seek(start + index * part.numel() * dtype.itemsize)
                left = part.contiguous().numpy().reshape(-1).data.cast("B")
                while left:
                    left = left[self._file.write(left) :]


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """``InvalidInput`` for whatever the system says to writing into the folder."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"the cache cannot be written in {folder}: {(error.strerror or str(error)).lower()}",
            FIELD,
            "a folder that can be written to, on a disk with room",
            REMEDY,
        ) from error


def _lock(file: FileIO, wait: bool = False) -> bool:
    """Whether an open file is now locked by us; where there are no locks, it is not."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # Windows; another has it, or a file system without locks
        return False
    return True


def _remove_abandoned(path: Path) -> None:
    try:
        with path.open("rb", buffering=0) as file:
            if _lock(file):
                path.unlink()
    except OSError:  # another's, or gone
        pass
