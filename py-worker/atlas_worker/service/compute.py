"""The one thread on which tensors are worked on: jobs epoch by epoch, calls in between, first come, first served."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

import grpc
import torch

from atlas_worker.errors import Cancelled

T = TypeVar("T")


class Compute:
    """A single thread, so that objects are never seen in the middle of an epoch, jobs share the device fairly, torch's
    thread pool is made once, and nothing depends on how calls happen to interleave.

    A job queues one epoch at a time; a call therefore waits for at most one epoch of every running job.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(1, "compute", initializer=torch.set_num_threads, initargs=(threads,))

    def submit(self, work: Callable[[], T]) -> Future[T]:
        return self._pool.submit(copy_context().run, work)  # what it logs belongs to whoever asks for it

    def call(self, context: grpc.ServicerContext, work: Callable[[], T]) -> T:
        """Do ``work`` for an RPC and return its result; ``Cancelled`` if the client leaves before its turn comes."""
        future = self.submit(work)
        while not wait([future], timeout=0.5).done:
            if not context.is_active() and future.cancel():
                raise Cancelled
        return future.result()

    def close(self) -> None:
        """Drop what is queued and wait for what runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)
