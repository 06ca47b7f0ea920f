"""The job loop: it advances a ``Trainable`` by epochs, reports, and keeps the last good state."""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import grpc
from google.rpc import status_pb2

from atlas_worker.errors import (
    Cancelled,
    Diverged,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotReady,
    RankLost,
)
from atlas_worker.gen.atlas.v1 import job_pb2, tensor_pb2
from atlas_worker.trainable import Trainable

from . import logs, snapshots
from .compute import Compute
from .devices import return_freed_memory
from .limits import Limits
from .sessions import Entry, Session, Sessions
from .status import explain
from .tensor_codec import TensorCodec

log = logging.getLogger("atlas_worker")

Publish = Callable[[tensor_pb2.StepMetrics], None]
"""Publishes the metrics of a step."""

_PUBLISH_INTERVAL = 0.02
_MOST_REPLACED = 3
"""How often a job may lose a rank of its training."""
_OVER = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
_STAGE = {
    "dataset": "generating",
    "predictor": "fitting",
    "algebra": "solving",
    "cosets": "solving",
}


class Job:
    """Advances one object to a number of epochs, one epoch per turn on the compute thread.

    All events are kept as long as the job, numbered from 1 without gaps. Only the latest snapshot
    is kept.

    Args:
        entry: The object.
        until: Number of finished epochs at which the job ends.
        snapshot_every: Attach a snapshot to every n-th epoch and to the last; 0 for none.
        session_id: Id of the session.
        codec: Encodes snapshots.
        compute: The compute thread.
        publish: Publishes the metrics of steps.
    """

    def __init__(
        self,
        entry: Entry,
        until: int,
        snapshot_every: int,
        session_id: str,
        codec: TensorCodec,
        compute: Compute,
        publish: Publish,
    ) -> None:
        # All ids have the same length: subscribers of the metrics plane match them by prefix.
        self.id = f"job-{secrets.token_hex(8)}"
        # None once the job is over: the job must not keep the memory of a deleted object.
        self._entry: Entry | None = entry
        self._handle, self._until, self._snapshot_every = entry.handle, until, snapshot_every
        self._session_id, self._codec, self._compute, self._publish = (
            session_id,
            codec,
            compute,
            publish,
        )
        self._changed = threading.Condition()
        self._events: list[job_pb2.JobEvent] = []
        self._state: job_pb2.JobState = job_pb2.JOB_STATE_UNSPECIFIED
        self._error: status_pb2.Status | None = None
        self._epoch: int = entry.value.epoch
        self._stop = threading.Event()
        self._in_turn = False
        self._snapshot_at: int | None = None
        self._published = 0.0
        self._replaced = 0
        self.ended = 0.0  # time when the job was over, by the monotonic clock

    @property
    def over(self) -> bool:
        """Whether the job has succeeded, failed or been cancelled."""
        return self._state in _OVER

    def start(self) -> None:
        """Queue the job. A job with nothing to do succeeds at once."""
        logs.bind(job=self.id)
        with self._changed:
            self._enter(job_pb2.JOB_STATE_QUEUED)
            if self._epoch >= self._until:
                self._end(job_pb2.JOB_STATE_SUCCEEDED)
                return
        self._compute.submit(self._session_id, self._turn)

    def cancel(self) -> None:
        """Stop the job: at once between epochs, else within a step. No effect if it is over."""
        with self._changed:
            self._stop.set()
            if not self._in_turn and not self.over:
                self._end(job_pb2.JOB_STATE_CANCELLED)

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the job to be over, and tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.over, seconds)

    def describe(self) -> job_pb2.Job:
        """Describe the job as a message."""
        with self._changed:
            return job_pb2.Job(
                job_id=self.id,
                session_id=self._session_id,
                handle=self._handle,
                state=self._state,
                epoch=self._epoch,
                until_epoch=self._until,
                last_sequence=len(self._events),
                error=self._error,
            )

    def watch(self, after: int, context: grpc.ServicerContext) -> Iterator[job_pb2.JobEvent]:
        """Yield the events after a sequence number, until the job is over or the client leaves.

        Args:
            after: The sequence number.
            context: The client's call.

        Yields:
            The events.

        Raises:
            InvalidInput: The job has no event of this number yet.
        """
        if after > len(self._events):
            raise InvalidInput(
                f"{self.id} has no event {after} yet",
                "after_sequence",
                f"at most {len(self._events)}",
            )
        context.add_callback(self._wake)
        while True:
            with self._changed:
                while len(self._events) <= after and not self.over and context.is_active():
                    self._changed.wait()
                fresh, over = self._events[after:], self.over
            yield from fresh
            after += len(fresh)
            if over or not context.is_active():
                return

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # The methods from here on run on the compute thread.

    def _turn(self) -> None:
        with self._changed:
            entry, error = self._entry, None
            if entry is None:
                return
            self._in_turn = True
            if self._state == job_pb2.JOB_STATE_QUEUED:
                self._enter(job_pb2.JOB_STATE_RUNNING)
        state = job_pb2.JOB_STATE_RUNNING
        finished: job_pb2.EpochFinished | None = None
        lost = ""
        try:
            if entry.kept is None:
                self._keep(entry)
            finished = self._run_epoch(entry)
            self._tell(entry, finished)
            if self._epoch >= self._until:
                state = job_pb2.JOB_STATE_SUCCEEDED
        except Cancelled:
            state = job_pb2.JOB_STATE_CANCELLED
            self._stop.set()
        except BaseException as failure:
            if isinstance(failure, RankLost) and self._replaced < _MOST_REPLACED:
                lost = failure.message
            else:
                state = job_pb2.JOB_STATE_FAILED
                error = explain(
                    failure,
                    f"{_STAGE[entry.type]} {entry.handle}, epoch {self._epoch + 1}",
                    entry.type,
                )
        # Outside the except clauses: their exception would keep the epoch's tensors alive.
        if finished is None:
            self._put_back(entry)
        if lost and entry.lost:
            state, error = job_pb2.JOB_STATE_FAILED, explain(RankLost(lost), "", entry.type)
        with self._changed:
            self._in_turn = False
            if lost and not entry.lost and not self._stop.is_set():
                self._replaced += 1
                log.warning("%s: starting the ranks anew", lost)
                self._emit(rank_replaced=job_pb2.RankReplaced(epoch=self._epoch, message=lost))
            if state != job_pb2.JOB_STATE_RUNNING:
                self._end(state, error)
            elif self._stop.is_set():
                self._end(job_pb2.JOB_STATE_CANCELLED)
            else:
                self._compute.submit(self._session_id, self._turn)

    def _run_epoch(self, entry: Entry) -> job_pb2.EpochFinished:
        value: Trainable = entry.value
        started, goal = time.perf_counter(), value.epoch + 1
        metrics = {
            name: float(number)
            for name, number in value.run_epoch(partial(self._step, value)).items()
        }
        seconds = time.perf_counter() - started
        for name, number in metrics.items():
            if not math.isfinite(number):
                raise Diverged(
                    f"{name} became {number}",
                    name,
                    "a finite number",
                    "lower the learning rate; the last finished epoch is kept",
                )
        if value.epoch != goal:
            raise RuntimeError(f"{entry.handle} went to epoch {value.epoch} instead of {goal}")
        self._keep(entry)
        entry.metrics = metrics
        return job_pb2.EpochFinished(
            epoch=goal, total_epochs=value.total_epochs, metrics=metrics, seconds=seconds
        )

    def _tell(self, entry: Entry, finished: job_pb2.EpochFinished) -> None:
        """Emit the event of a finished epoch, with a snapshot when it is due.

        If there is no room for the snapshot, the event goes out without it, and the error is
        raised.
        """
        epoch = finished.epoch
        due = self._snapshot_every and (epoch % self._snapshot_every == 0 or epoch == self._until)
        try:
            if due:
                self._drop_snapshot()
                finished.snapshot.CopyFrom(self._freeze(entry))
        finally:
            with self._changed:
                self._epoch = epoch
                if finished.HasField("snapshot"):
                    self._snapshot_at = len(self._events)
                self._emit(epoch_finished=finished)
            log.debug("epoch %d of %s took %.3f s", epoch, entry.handle, finished.seconds)

    def _step(
        self, value: Trainable, step: int, steps_in_epoch: int, metrics: Mapping[str, float]
    ) -> None:
        if self._stop.is_set():
            raise Cancelled
        now = time.monotonic()
        if now - self._published < _PUBLISH_INTERVAL:
            return
        self._published = now
        self._publish(
            tensor_pb2.StepMetrics(
                job_id=self.id,
                epoch=value.epoch + 1,
                total_epochs=value.total_epochs,
                step=step,
                steps_in_epoch=steps_in_epoch,
                metrics={name: float(number) for name, number in metrics.items()},
            )
        )

    def _freeze(self, entry: Entry) -> tensor_pb2.Tensor:
        state = entry.kept or entry.value.state()
        self._codec.check_size(snapshots.size(state))
        return self._codec.encode(snapshots.freeze(state, entry.origin))

    def _drop_snapshot(self) -> None:
        """Remove the snapshot from its event, in a copy, as a watcher may be reading the event."""
        with self._changed:
            if self._snapshot_at is None:
                return
            event = job_pb2.JobEvent()
            event.CopyFrom(self._events[self._snapshot_at])
            ticket = event.epoch_finished.snapshot.ticket
            event.epoch_finished.ClearField("snapshot")
            self._events[self._snapshot_at], self._snapshot_at = event, None
        if ticket:
            self._codec.tickets.discard(ticket)

    def _keep(self, entry: Entry) -> None:
        """Copy the state of the last finished epoch. Datasets, which may be large, are remade."""
        if entry.type != "dataset":
            tensors, metadata = entry.value.state()
            entry.kept = {name: t.detach().clone() for name, t in tensors.items()}, dict(metadata)

    def _put_back(self, entry: Entry) -> None:
        return_freed_memory()
        try:
            state = entry.kept
            if state is None and entry.remake is not None:
                state = entry.remake().state()
            if state is not None:  # otherwise the copy failed, and the epoch did not begin
                entry.value.load_state(*state)
        except Exception:
            log.exception("%s could not be put back", entry.handle)
            entry.lost = True
        with self._changed:
            self._epoch = entry.value.epoch

    # The methods from here on are called with the condition held.

    def _end(self, state: job_pb2.JobState, error: status_pb2.Status | None = None) -> None:
        if self._entry is not None:
            self._entry.kept = None
            self._entry = None
        self.ended = time.monotonic()
        self._enter(state, error)

    def _enter(self, state: job_pb2.JobState, error: status_pb2.Status | None = None) -> None:
        self._state, self._error = state, error
        self._emit(state_changed=job_pb2.StateChanged(state=state, error=error))
        with logs.bound(job=self.id):  # the call that cancels a job is not tagged with its id
            log.log(
                logging.WARNING if error else logging.INFO,
                "%s: %s at epoch %d of %d%s",
                job_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower(),
                self._handle,
                self._epoch,
                self._until,
                f": {error.message}" if error else "",
            )

    def _emit(self, **event: Any) -> None:
        message = job_pb2.JobEvent(sequence=len(self._events) + 1, **event)
        message.time.GetCurrentTime()
        self._events.append(message)
        self._changed.notify_all()


class JobService:
    """Implements ``atlas.v1.JobService``; ``job.proto`` documents the methods."""

    def __init__(self, sessions: Sessions, publish: Publish, limits: Limits) -> None:
        self._sessions, self._publish, self._limits = sessions, publish, limits
        self._watches = threading.Semaphore(limits.max_watches)

    def StartJob(
        self, request: job_pb2.StartJobRequest, context: grpc.ServicerContext
    ) -> job_pb2.StartJobResponse:
        """Start a job, or return the job that the same request started before."""
        session = self._sessions.get(request.session_id)
        with session.lock:
            known = request.request_id in session.requests
        if not known:
            self._sessions.check_queue()
        with session.lock:
            session.check_open()
            job = (
                cast(Job | None, session.requests.get(request.request_id))
                if request.request_id
                else None
            )
            if job is None:
                job = self._start(session, request)
                if request.request_id:
                    session.requests[request.request_id] = job
        return job_pb2.StartJobResponse(job=job.describe())

    def _start(self, session: Session, request: job_pb2.StartJobRequest) -> Job:
        entry = session.find(request.handle, "handle")
        if not isinstance(entry.value, Trainable):
            raise InvalidInput(
                f"{entry.handle} has no epochs", "handle", "an object that has epochs"
            )
        if entry.lost:
            raise NotReady(
                f"{entry.handle} lost its state in a failure",
                "handle",
                "an object with a state",
                "restore a snapshot, or create the object again",
            )
        total = entry.value.total_epochs
        until = request.until_epoch if request.HasField("until_epoch") else total
        if not 0 <= until <= total:
            raise InvalidInput(
                f"cannot advance {entry.handle} to epoch {until}",
                "until_epoch",
                f"0 to {total}",
            )
        session.check_idle(entry)
        self._forget(session)
        codec = TensorCodec(self._limits, session.tickets, session.id)
        job = Job(
            entry,
            until,
            request.snapshot_every,
            session.id,
            codec,
            session.compute,
            self._publish,
        )
        session.jobs[job.id] = entry.job = job
        job.start()
        return job

    def _forget(self, session: Session) -> None:
        while len(session.jobs) >= self._limits.max_session_jobs:
            oldest = next((job for job in session.jobs.values() if job.over), None)
            if oldest is None:
                raise LimitExceeded(
                    f"the session has {len(session.jobs)} unfinished jobs",
                    "session_id",
                    f"at most {self._limits.max_session_jobs}",
                    "wait for some of them to end",
                )
            del session.jobs[oldest.id]
            session.requests = {
                name: job for name, job in session.requests.items() if job is not oldest
            }

    def _find(self, session_id: str, job_id: str) -> Job:
        return self._find_in(self._sessions.get(session_id), job_id)

    def _find_in(self, session: Session, job_id: str) -> Job:
        with session.lock:
            job = session.jobs.get(job_id)
        if job is None:
            raise NotFound(
                f"there is no job {job_id!r} in this session",
                "job_id",
                "",
                "list the session's jobs",
            )
        return cast(Job, job)

    def GetJob(
        self, request: job_pb2.GetJobRequest, context: grpc.ServicerContext
    ) -> job_pb2.GetJobResponse:
        """Describe a job."""
        return job_pb2.GetJobResponse(job=self._find(request.session_id, request.job_id).describe())

    def ListJobs(
        self, request: job_pb2.ListJobsRequest, context: grpc.ServicerContext
    ) -> job_pb2.ListJobsResponse:
        """Describe all jobs of a session."""
        session = self._sessions.get(request.session_id)
        with session.lock:
            jobs = list(session.jobs.values())
        return job_pb2.ListJobsResponse(jobs=[cast(Job, job).describe() for job in jobs])

    def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: grpc.ServicerContext
    ) -> Iterator[job_pb2.WatchJobResponse]:
        """Yield a job's events after a sequence number, until the job is over."""
        session = self._sessions.get(request.session_id)
        job = self._find_in(session, request.job_id)
        if not self._watches.acquire(blocking=False):
            raise LimitExceeded(
                "too many jobs are being watched",
                "",
                f"at most {self._limits.max_watches}",
                "end some of the watches",
            )
        try:
            with session.held():
                for event in job.watch(request.after_sequence, context):
                    yield job_pb2.WatchJobResponse(event=event)
        finally:
            self._watches.release()

    def CancelJob(
        self, request: job_pb2.CancelJobRequest, context: grpc.ServicerContext
    ) -> job_pb2.CancelJobResponse:
        """Cancel a job."""
        job = self._find(request.session_id, request.job_id)
        job.cancel()
        return job_pb2.CancelJobResponse(job=job.describe())
