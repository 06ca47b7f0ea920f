"""The threads that work on tensors, one for each device: jobs by epochs, sessions in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import grpc
import torch

from atlas_worker.errors import Cancelled

T = TypeVar("T")


class Compute:
    """A single thread for all work on one device's tensors.

    With one thread, objects are never seen in the middle of an epoch, jobs share the device fairly,
    torch's thread pool is made once, and nothing depends on how calls interleave.

    Each session has a queue, and the queues take turns with one piece of work each. A queue is
    first come, first served. A job queues one epoch at a time. So a session's call waits for at
    most one epoch of each of its own jobs, and before each of these for one piece of work of every
    other session, however much those have queued.

    Args:
        threads: Threads of torch's CPU work.
        name: Name of the thread.
    """

    def __init__(self, threads: int, name: str = "compute") -> None:
        self._changed = threading.Condition()
        self._queues: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        """Queues of the sessions that wait, in the order of their turns."""
        self._closed, self._busy = False, False
        self._thread = threading.Thread(target=self._serve, args=(threads,), name=name, daemon=True)
        self._thread.start()

    def submit(self, session: str, work: Callable[[], T]) -> Future[T]:
        """Queue work for a session.

        Args:
            session: Id of the session; "" for work that belongs to none.
            work: The work.

        Returns:
            The future of its result.
        """
        work = partial(copy_context().run, work)  # log lines of the work belong to the caller
        future = Future[T]()
        with self._changed:
            if self._closed:
                _drop(future)
            else:
                self._queues.setdefault(session, deque()).append((future, work))
                self._changed.notify()
        return future

    def call(self, context: grpc.ServicerContext, session: str, work: Callable[[], T]) -> T:
        """Do work for an RPC and wait for its result.

        Args:
            context: The RPC.
            session: Id of the session; "" for work that belongs to none.
            work: The work.

        Returns:
            The result of the work.

        Raises:
            Cancelled: The client left before the work began.
        """
        future = self.submit(session, work)
        while not wait([future], timeout=0.5).done:
            if not context.is_active() and future.cancel():
                raise Cancelled
        return future.result()

    @property
    def waiting(self) -> int:
        """Number of pieces of work that wait or run."""
        with self._changed:
            return self._busy + sum(map(len, self._queues.values()))

    def close(self) -> None:
        """Drop the queued work and wait for the running work to end."""
        with self._changed:
            self._closed = True
            for queue in self._queues.values():
                for future, _ in queue:
                    _drop(future)
            self._queues.clear()
            self._changed.notify()
        self._thread.join()

    def _serve(self, threads: int) -> None:
        torch.set_num_threads(threads)
        while True:
            with self._changed:
                self._busy = False
                while not self._queues and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                session = next(iter(self._queues))
                queue = self._queues.pop(session)
                future, work = queue.popleft()
                if queue:
                    self._queues[session] = queue
                self._busy = True
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            # While this thread waits, these must not keep the tensors that they refer to.
            del future, work


class DeviceQueues:
    """The compute threads of all devices; each starts when its device is first used.

    Devices do not wait for each other. Within each, sessions take turns.

    Args:
        threads: Threads of torch's CPU work, for each device.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._queues: dict[torch.device, Compute] = {}
        self._closed = False

    def of(self, device: torch.device) -> Compute:
        """Find the thread of a device."""
        with self._lock:
            if device not in self._queues:
                self._queues[device] = Compute(self.threads, f"compute {device}")
                if self._closed:
                    self._queues[device].close()
            return self._queues[device]

    def waiting(self, device: torch.device) -> int:
        """Count the pieces of work that wait or run on a device."""
        with self._lock:
            queue = self._queues.get(device)
        return queue.waiting if queue else 0

    def close(self) -> None:
        """Close all threads, as :meth:`Compute.close` does."""
        with self._lock:
            self._closed = True
            queues = list(self._queues.values())
        for queue in queues:
            queue.close()


def _drop(future: Future[Any]) -> None:
    if future.cancel():
        future.set_running_or_notify_cancel()  # wakes the threads that wait for the future
