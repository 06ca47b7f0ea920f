"""The other ranks of a session's trainings: their processes, and what they are told.

A session with several ranks has a team: rank 0 is the worker itself, and the helpers are processes
of their own (see :mod:`.helper`). They start with the first epoch of a training, and stay for the
next trainings of the session. Rank 0 sends them each dataset and predictor once, and the state of
the predictor at the beginning of each epoch. So nothing that a helper holds is needed later: if one
ends, all are started anew, and go on from the last finished epoch.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from atlas_worker.errors import RankLost
from atlas_worker.interfaces import Dataset
from atlas_worker.predictors.held_out import BEST, PROGRESS

from .collectives import Group, file_store

log = logging.getLogger("atlas_worker")

CONNECTION_LOST = 3
"""Exit code of a helper whose connection to another rank was lost."""
_NEWS_SECONDS = 5.0
"""Time to find out which process ended when a connection is lost."""
_PACKAGES = Path(__file__).parents[2]
"""Folder that ``atlas_worker`` is imported from."""


def shared_threads(threads: int, size: int, device: torch.device) -> int:
    """Return the CPU threads of each rank while all compute.

    Args:
        threads: CPU threads of the worker.
        size: Number of ranks.
        device: Device of the ranks.

    Returns:
        An equal part of the threads on a CPU; all of them on other devices.
    """
    return max(1, threads // size) if device.type == "cpu" else threads


class Muster(Protocol):
    """Brings the ranks of a team together."""

    def gather(self) -> Group:
        """Start the helpers, and connect to them. Raises ``RankLost``."""
        ...

    def dismiss(self) -> None:
        """End the helpers. Another thread may be in :meth:`gather`."""
        ...

    def close(self) -> None:
        """End the helpers for good."""
        ...

    def cause(self, lost: RankLost) -> Exception:
        """Find out why a connection was lost. The helpers are about to be dismissed."""
        ...


class Processes:
    """Helpers that are processes of this machine, and end with this one.

    Args:
        devices: Device of each rank.
        threads: CPU threads of each rank.
    """

    def __init__(self, devices: Sequence[torch.device], threads: int) -> None:
        self._devices, self._threads = devices, threads
        self._lock = threading.Lock()
        self._helpers: list[subprocess.Popen[str]] = []
        self._closed = False

    def gather(self) -> Group:
        """Start the helpers, and connect to them. Raises ``RankLost``."""
        folder = tempfile.mkdtemp(prefix="atlas-ranks-")  # nobody else may enter it
        try:
            path = os.path.join(folder, "store")
            size = len(self._devices)
            with self._lock:
                if self._closed:
                    raise RankLost("the session was closed")
                self._helpers = [self._start(rank, path) for rank in range(1, size)]
            for rank, helper in enumerate(self._helpers, 1):
                assert helper.stdout is not None
                if not helper.stdout.readline():
                    raise RankLost(f"rank {rank} ended at its start", remedy="see the worker's log")
            group = Group(file_store(path, size), 0, size, self._devices[0])
            if self._devices[0].type == "cuda":
                for helper in self._helpers:
                    threading.Thread(target=_watch, args=(helper, group), daemon=True).start()
            return group
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, rank: int, store: str) -> subprocess.Popen[str]:
        paths = [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]
        flags = {
            "rank": rank,
            "size": len(self._devices),
            "store": store,
            "device": self._devices[rank],
            "threads": self._threads,
        }
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "atlas_worker", "rank"),
                *(text for name, value in flags.items() for text in (f"--{name}", str(value))),
            ],
            stdin=subprocess.PIPE,  # its end tells the helper that this process has ended
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,  # Ctrl-C on a terminal reaches it only through this process
        )

    def dismiss(self) -> None:
        """End the helpers."""
        with self._lock:
            helpers, self._helpers = self._helpers, []
        for helper in helpers:
            helper.kill()
        for helper in helpers:
            helper.wait()
            for pipe in (helper.stdin, helper.stdout):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()

    def close(self) -> None:
        """End the helpers for good."""
        self._closed = True
        self.dismiss()

    def cause(self, lost: RankLost) -> Exception:
        """Find out which helper ended, and why."""
        helpers, until = list(enumerate(self._helpers, 1)), time.monotonic() + _NEWS_SECONDS
        while time.monotonic() < until:
            for rank, helper in helpers:
                code = helper.poll()
                if code is None or code == CONNECTION_LOST:
                    continue
                if code >= 0:
                    return _failure(rank, code, helper)
                name = _signal_name(-code)
                return RankLost(
                    f"rank {rank} (process {helper.pid}) was killed by {name}",
                    remedy="if the machine ran out of memory, use fewer ranks or smaller batches",
                )
            if all(helper.poll() is not None for _, helper in helpers):
                break
            time.sleep(0.02)
        return lost


def _watch(helper: subprocess.Popen[str], group: Group) -> None:
    helper.wait()
    group.interrupt()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _failure(rank: int, code: int, helper: subprocess.Popen[str]) -> Exception:
    """Read what a helper wrote about its error before it ended."""
    assert helper.stdout is not None
    try:
        told: dict[str, Any] = json.loads(helper.stdout.readlines()[-1])
    except (OSError, ValueError, IndexError):
        told = {"message": f"exit code {code}"}
    message = f"rank {rank} failed: {told.get('message', '')}"
    return MemoryError(message) if told.get("memory") else RuntimeError(message)


@dataclass(eq=False)
class Team:
    """The ranks of a session. All methods but :meth:`close` run on the session's compute thread.

    Args:
        size: Number of ranks.
        muster: Brings them together.
        threads: CPU threads of this process.
        shared: CPU threads of this process while others compute beside it.
    """

    size: int
    muster: Muster
    threads: int
    shared: int
    _group: Group | None = None
    _known: set[int] = field(default_factory=set)
    """Numbers of the predictors that the helpers have."""
    _sent: set[int] = field(default_factory=set)
    """Numbers of the datasets that the helpers have."""
    _alive: WeakSet[SharedTraining] = field(default_factory=WeakSet)
    _datasets: WeakKeyDictionary[Any, int] = field(default_factory=WeakKeyDictionary)
    _count: int = 0

    def share(
        self, text: Mapping[str, Any], tensors: Mapping[str, Tensor], dataset: Dataset
    ) -> SharedTraining:
        """Make what connects a predictor to the helpers.

        Args:
            text: What makes the predictor: JSON values, as :class:`.helper.Helper` takes them.
            tensors: The tensors that it is built from.
            dataset: Its dataset.
        """
        self._count += 1
        if dataset not in self._datasets:
            self._datasets[dataset] = self._count
        shared = SharedTraining(self, self._count, dict(text), dict(tensors), dataset)
        self._alive.add(shared)
        return shared

    @contextmanager
    def epoch(
        self, training: SharedTraining, state: tuple[dict[str, Tensor], dict[str, str]], last: bool
    ) -> Iterator[Group]:
        """Let the helpers begin an epoch; see :class:`atlas_worker.ranks.Helpers`."""
        try:
            if self._group is None:
                self._group = self.muster.gather()
                log.info("a team of %d ranks has started", self.size)
            self._tell(training)
            tensors = {n: t for n, t in state[0].items() if not n.startswith(BEST)}
            metadata = {n: t for n, t in state[1].items() if n != PROGRESS}
            self._group.send(
                {"do": "epoch", "predictor": training.number, "metadata": metadata, "last": last},
                tensors,
            )
            torch.set_num_threads(self.shared)
            yield self._group
            if last:
                self._known.discard(training.number)
        except BaseException as error:
            # The helpers are in the middle of the epoch, which only their end interrupts.
            failure = self.muster.cause(error) if isinstance(error, RankLost) else error
            self._disband()
            raise failure from None
        finally:
            torch.set_num_threads(self.threads)

    def _tell(self, training: SharedTraining) -> None:
        """Send the helpers a predictor and its dataset, unless they have them."""
        if training.number in self._known:
            return
        assert self._group is not None
        alive = [one for one in self._alive if one.number in self._known]
        kept = {self._datasets[one.dataset] for one in (*alive, training)}
        number, data = self._datasets[training.dataset], training.dataset
        self._known = {one.number for one in alive}
        self._sent &= kept
        self._group.send(
            {"do": "keep", "predictors": sorted(self._known), "datasets": sorted(self._sent)}, {}
        )
        if number not in self._sent:
            tensors = {"inputs": data.inputs, "targets": data.targets}
            if data.scenes is not None:
                tensors["scenes"] = data.scenes
            if data.coordinates is not None:
                tensors["latitudes"], tensors["longitudes"] = data.coordinates
            about = {
                "outputs": data.outputs,
                "background": data.background,
                "classes": data.classes,
                "has_targets": data.has_targets,
            }
            self._group.send({"do": "dataset", "dataset": number, "about": about}, tensors)
            self._sent.add(number)
        told = {"do": "predictor", "predictor": training.number, "dataset": number}
        self._group.send({**told, **training.text}, training.tensors)
        self._known.add(training.number)

    def _disband(self) -> None:
        group, self._group = self._group, None
        self._known.clear()
        self._sent.clear()
        self.muster.dismiss()
        if group is not None:
            group.close()

    def close(self) -> None:
        """End the helpers. The session is over."""
        group = self._group
        if group is not None:
            group.close()
        self.muster.close()


@dataclass(eq=False)
class SharedTraining:
    """The other ranks of one predictor's training (see :class:`atlas_worker.ranks.Helpers`)."""

    team: Team
    number: int
    text: dict[str, Any]
    tensors: dict[str, Tensor]
    dataset: Dataset

    @contextmanager
    def epoch(self, state: tuple[dict[str, Tensor], dict[str, str]], last: bool) -> Iterator[Group]:
        """Let the helpers begin an epoch, and compute it within the ``with`` block."""
        with self.team.epoch(self, state, last) as group:
            yield group
