"""Shared parts of the programs that make data files: reports, refusals, stopping and processes.

A program prints one JSON object a line:

- ``{"file", "done", "total", "seconds"}`` at least every two seconds;
- ``{"files": [{"path", "rows", "bytes"}], "seconds", "seed"}`` at the end;
- ``{"error", "remedy", "kind"}`` instead, if it fails. Its exit code is then 2, or 1 if the failure
  is not the user's fault.

After SIGINT or SIGTERM it prints no further line and exits with 130 or 143.
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
"""Longest time in seconds without a line of progress."""


class Refusal(Exception):
    """The program cannot do what was asked; with a remedy."""

    def __init__(self, message: str, remedy: str, kind: str = "usage", exit_code: int = 2) -> None:
        super().__init__(message)
        self.remedy, self.kind, self.exit_code = remedy, kind, exit_code


def report(**line: Any) -> None:
    """Print one line of the report."""
    print(json.dumps(line), flush=True)


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
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
        signal.signal(further, signal.SIG_IGN)  # cleaning up is quick
    sys.exit(128 + number)


def in_order(
    pool: Executor,
    make: Callable[[T], R],
    tasks: Sequence[T],
    ahead: int,
    idle: Callable[[], object],
) -> Iterator[R]:
    """Run tasks in a pool, and yield the results in the order of the tasks.

    Args:
        pool: The pool.
        make: Runs one task.
        tasks: The tasks.
        ahead: Largest number of tasks that run or whose results wait to be yielded.
        idle: Called at least every ``HEARTBEAT`` seconds while waiting.

    Yields:
        The results.
    """
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
    """Start a pool of processes, which are killed at the end of the block or with this process.

    Args:
        count: Number of processes.
        rows: What they make, for the error.

    Yields:
        The pool.

    Raises:
        Refusal: A process was killed.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_child)
    try:
        yield pool
    except BrokenExecutor as error:
        raise Refusal(
            f"a process that made {rows} was killed; was there enough memory?",
            "try fewer processes",
            "process_killed",
            1,
        ) from error
    finally:
        for child in multiprocessing.active_children():
            child.kill()  # its present task would take seconds to finish
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn errors of writing into ``out`` into a ``Refusal``."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "choose a writable folder"
        if full or error.errno == errno.EIO:
            remedy = "free some space (or quota), or choose a folder on another disk"
        raise Refusal(
            f"cannot write {error.filename or out}: {(error.strerror or str(error)).lower()}",
            remedy,
            "no_space" if full else "file",
        ) from error


def _start_child() -> None:
    """Set up a process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent kills this process
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # FastJet prints a banner

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def only_one(folder: Path, rows: str) -> Iterator[None]:
    """Lock a folder against a second program of this kind. The lock leaves no trace.

    Args:
        folder: The folder.
        rows: What the program makes, for the error.

    Raises:
        Refusal: Another process has locked the folder.
    """
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
                f"another process is making {rows} in {folder}",
                "wait for it, or choose another folder",
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def only_ours(paths: Sequence[Path], ours: Callable[[Path], bool]) -> None:
    """Refuse to overwrite files that this program did not make.

    Args:
        paths: The files to overwrite.
        ours: Tells whether this program made a file.

    Raises:
        Refusal: A file was made by something else.
    """
    other = next((path for path in paths if not ours(path)), None)
    if other is not None:
        raise Refusal(
            f"{other} was not made by this program, and is not overwritten",
            "move it away, or choose another folder",
            "file",
        )


def is_marked(path: Path, source: bytes) -> bool:
    """Tell whether a file is an HDF5 file with the attribute ``source`` given."""
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("source")
    except OSError:
        return False
    return isinstance(found, bytes) and found == source


def put_in_place(made: Mapping[Path, Path]) -> None:
    """Rename new files or folders to their final names, in one folder.

    Old files of these names are deleted once all new ones are in place. If an error or a signal
    stops the renaming, all files have the names that they had before.

    Args:
        made: New path by final path.

    Raises:
        OSError: A path cannot be renamed.
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
    description: str,
    count_flag: str,
    count_help: str,
    out_help: str,
    generate: Callable[..., dict[str, Any]],
    control_help: str = "",
) -> int:
    """Run a program: parse the command line and call ``generate``.

    Args:
        description: What the program makes, for ``--help``.
        count_flag: Flag of the number of rows.
        count_help: Its help.
        out_help: Help of ``--out``.
        generate: Called as ``generate(count, seed, out, processes, force)``; returns the last line.
        control_help: Help of ``--control``, with which ``generate`` has ``control=True`` too;
            empty if there is no control.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(count_flag, type=int, required=True, help=count_help, dest="count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help=out_help)
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument(
        "--parent-stdin", action="store_true", help="stop when standard input is closed"
    )
    if control_help:
        parser.add_argument("--control", action="store_true", help=control_help)
    given = parser.parse_args()
    more = {"control": True} if getattr(given, "control", False) else {}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if given.parent_stdin:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        report(**generate(given.count, given.seed, given.out, given.processes, given.force, **more))
    except Refusal as refusal:
        report(error=str(refusal), remedy=refusal.remedy, kind=refusal.kind)
        return refusal.exit_code
    return 0
