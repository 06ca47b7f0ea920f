"""What programs that make data files share: how they report, refuse, stop, and share out their work.

A program prints one JSON object a line: ``{"file", "done", "total", "seconds"}`` at least every two seconds, last
``{"files": [{"path", "rows", "bytes"}], "seconds", "seed"}``, or ``{"error", "remedy", "kind"}`` before it exits with 2 (with 1 for what
is no fault of the user's; with 130 or 143, without a line, for SIGINT and SIGTERM).
"""

from __future__ import annotations

import argparse
import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import h5py

T = TypeVar("T")
R = TypeVar("R")

HEARTBEAT = 2.0
"""Seconds without a line of progress, at most."""


class Refusal(Exception):
    """What cannot be done, and what to do."""

    def __init__(self, message: str, remedy: str, kind: str = "usage", exit_code: int = 2) -> None:
        super().__init__(message)
        self.remedy, self.kind, self.exit_code = remedy, kind, exit_code


def report(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def available_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _exit_with_parent() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(number: int, _: object) -> NoReturn:
    for further in (signal.SIGINT, signal.SIGTERM):
        signal.signal(further, signal.SIG_IGN)  # what is to be tidied up is quick
    sys.exit(128 + number)


def in_order(
    pool: Executor, make: Callable[[T], R], tasks: Sequence[T], ahead: int, idle: Callable[[], object]
) -> Iterator[R]:
    """What ``make`` makes of the tasks, in their order, with no more than ``ahead`` of them under way, or waiting to be written."""
    under_way: deque[Future[R]] = deque()
    following = iter(tasks)
    while True:
        while len(under_way) < ahead and (task := next(following, None)) is not None:
            under_way.append(pool.submit(make, task))
        if not under_way:
            return
        try:
            result = under_way[0].result(HEARTBEAT)
        except NotYet:
            idle()
            continue
        under_way.popleft()
        yield result


@contextmanager
def processes(count: int, rows: str) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that are killed at the end, whatever they are doing, and that end when we do."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_child)
    try:
        yield pool
    except BrokenExecutor as error:
        raise Refusal(
            f"a process that made {rows} was killed; was there enough memory?",
            "try fewer with --processes",
            "internal",
            1,
        ) from error
    finally:
        for child in multiprocessing.active_children():
            child.kill()  # what it does would take seconds to finish
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Refuse, for whatever the system says to writing into ``out``."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "choose a folder that can be written to"
        if full or error.errno == errno.EIO:
            remedy = "free some space (or quota), or choose a folder on another disk"
        raise Refusal(
            f"cannot write {error.filename or out}: {(error.strerror or str(error)).lower()}",
            remedy,
            "no_space" if full else "file",
        ) from error


def _start_child() -> None:
    """In each process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # FastJet prints a banner

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def only_one(folder: Path, rows: str) -> Iterator[None]:
    """Hold a folder against a second one of us; nothing of it stays behind."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refusal(
                f"another process is making {rows} in {folder}", "wait for it, or choose another folder"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def only_ours(paths: Sequence[Path], ours: Callable[[Path], bool]) -> None:
    """Refuse to overwrite what was not made here."""
    other = next((path for path in paths if not ours(path)), None)
    if other is not None:
        raise Refusal(
            f"{other} was not made by --generate, and is not overwritten",
            "move it away, or choose another folder",
            "file",
        )


def is_marked(path: Path, source: bytes) -> bool:
    """Whether it is an HDF5 file whose attribute ``source`` says so."""
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("source")
    except OSError:
        return False
    return isinstance(found, bytes) and found == source


def put_in_place(made: Mapping[Path, Path]) -> None:
    """Rename new files or folders, by what they are to be called, in one folder. What has those names is deleted when all are there.

    Raises OSError; where that, or a signal, stops the renaming, all have the names they had.
    """
    for path, new in made.items():
        if path.is_dir() and not new.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    aside = Path(tempfile.mkdtemp(prefix="replaced-", dir=next(iter(made)).parent))
    try:
        for path in made:
            if path.exists():
                path.rename(aside / path.name)
        for path, new in made.items():
            new.rename(path)
    except BaseException:
        for path, new in made.items():
            if not new.exists():
                path.rename(new)
            if (aside / path.name).exists():
                (aside / path.name).rename(path)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def run(
    description: str, count_flag: str, count_help: str, out_help: str, generate: Callable[..., dict[str, Any]]
) -> int:
    """The program: ``generate(count, seed, out, processes, force)`` with what the command line says; the exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(count_flag, type=int, required=True, help=count_help, dest="count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help=out_help)
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    parser.add_argument("--parent-stdin", action="store_true", help="stop when standard input is closed")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if given.parent_stdin:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        report(**generate(given.count, given.seed, given.out, given.processes, given.force))
    except Refusal as refusal:
        report(error=str(refusal), remedy=refusal.remedy, kind=refusal.kind)
        return refusal.exit_code
    return 0
