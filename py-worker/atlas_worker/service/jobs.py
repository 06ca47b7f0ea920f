"""The one job loop: advance a ``Trainable`` epoch by epoch, tell what happens, stop when asked, keep the last good state."""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import grpc

from atlas_worker.errors import Cancelled, Diverged, InvalidInput, LimitExceeded, NotFound, NotReady
from atlas_worker.gen.atlas.v1 import error_pb2, job_pb2, tensor_pb2
from atlas_worker.trainable import Trainable

from . import logs, machine, snapshots
from .compute import Compute
from .failures import explain
from .limits import Limits
from .sessions import Entry, Session, Sessions
from .wire import Wire

log = logging.getLogger("atlas_worker")

Publish = Callable[[tensor_pb2.StepMetrics], None]

_PUBLISH_INTERVAL = 0.02
_OVER = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
_STAGE = {"dataset": "generating", "predictor": "fitting", "algebra": "solving", "cosets": "solving"}


class Job:
    """Advances one object to ``until`` finished epochs, one epoch per turn on the compute thread.

    Its events are kept for as long as it is, numbered from 1 without gaps; of snapshots only the latest.
    """

    def __init__(
        self,
        entry: Entry,
        until: int,
        snapshot_every: int,
        session_id: str,
        wire: Wire,
        compute: Compute,
        publish: Publish,
    ) -> None:
        # All ids are of one length: subscribers of the metrics plane match by prefix.
        self.id = f"job-{secrets.token_hex(8)}"
        # Let go when it is over: a job that is remembered must not keep a deleted object's memory.
        self._entry: Entry | None = entry
        self._handle, self._until, self._snapshot_every = entry.handle, until, snapshot_every
        self._session_id, self._wire, self._compute, self._publish = session_id, wire, compute, publish
        self._changed = threading.Condition()
        self._events: list[job_pb2.JobEvent] = []
        self._state: job_pb2.JobState = job_pb2.JOB_STATE_UNSPECIFIED
        self._error: error_pb2.ErrorDetail | None = None
        self._epoch: int = entry.value.epoch
        self._stop = threading.Event()
        self._in_turn = False
        self._snapshot_at: int | None = None
        self._published = 0.0
        self.ended = 0.0

    @property
    def over(self) -> bool:
        return self._state in _OVER

    def start(self) -> None:
        """Queue it; a job with nothing to do succeeds at once."""
        logs.bind(job=self.id)
        with self._changed:
            self._enter(job_pb2.JOB_STATE_QUEUED)
            if self._epoch >= self._until:
                self._end(job_pb2.JOB_STATE_SUCCEEDED)
                return
        self._compute.submit(self._session_id, self._turn)

    def cancel(self) -> None:
        """Ask it to stop: at once between epochs, else within a step. Nothing happens to a job that is over."""
        with self._changed:
            self._stop.set()
            if not self._in_turn and not self.over:
                self._end(job_pb2.JOB_STATE_CANCELLED)

    def wait(self, seconds: float) -> bool:
        """Whether it is over within ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: self.over, seconds)

    def describe(self) -> job_pb2.Job:
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
        """Every event after sequence ``after``, then new ones until the job is over or the client is gone."""
        if after > len(self._events):
            raise InvalidInput(
                f"{self.id} has no event {after} yet", "after_sequence", f"at most {len(self._events)}"
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

    # What follows runs on the compute thread.

    def _turn(self) -> None:
        with self._changed:
            entry, error = self._entry, None
            if entry is None:
                return
            self._in_turn = True
            if self._state == job_pb2.JOB_STATE_QUEUED:
                self._enter(job_pb2.JOB_STATE_RUNNING)
        state = job_pb2.JOB_STATE_RUNNING
        finished = None
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
            state = job_pb2.JOB_STATE_FAILED
            error = explain(
                failure, f"{_STAGE[entry.role]} {entry.handle}, epoch {self._epoch + 1}", entry.role
            )[1]
        # Outside the handlers: their exception would keep the epoch's tensors alive.
        if finished is None:
            self._put_back(entry)
        with self._changed:
            self._in_turn = False
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
            name: float(number) for name, number in value.run_epoch(partial(self._step, value)).items()
        }
        seconds = time.perf_counter() - started
        for name, number in metrics.items():
            if not math.isfinite(number):
                raise Diverged(
                    f"{name} became {number}",
                    name,
                    "a finite number",
                    "lower the learning rate; the last epoch is kept",
                )
        if value.epoch != goal:
            raise RuntimeError(f"{entry.handle} went to epoch {value.epoch} instead of {goal}")
        self._keep(entry)
        entry.metrics = metrics
        return job_pb2.EpochFinished(
            epoch=goal, total_epochs=value.total_epochs, metrics=metrics, seconds=seconds
        )

    def _tell(self, entry: Entry, finished: job_pb2.EpochFinished) -> None:
        """Emit the event, with a snapshot when it is due; without it if there is no room for one, which is an error."""
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

    def _step(self, value: Trainable, step: int, steps_in_epoch: int, metrics: Mapping[str, float]) -> None:
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
        self._wire.check_size(snapshots.size(state))
        return self._wire.encode(snapshots.freeze(state, entry.origin))

    def _drop_snapshot(self) -> None:
        """Only the latest is kept: the event stays, without its snapshot (a watcher may be reading the old message)."""
        with self._changed:
            if self._snapshot_at is None:
                return
            event = job_pb2.JobEvent()
            event.CopyFrom(self._events[self._snapshot_at])
            ticket = event.epoch_finished.snapshot.ticket
            event.epoch_finished.ClearField("snapshot")
            self._events[self._snapshot_at], self._snapshot_at = event, None
        if ticket:
            self._wire.tickets.discard(ticket)

    def _keep(self, entry: Entry) -> None:
        """Copy the state after the last finished epoch. A dataset, which may be large, starts again instead."""
        if entry.role != "dataset":
            tensors, metadata = entry.value.state()
            entry.kept = {name: t.detach().clone() for name, t in tensors.items()}, dict(metadata)

    def _put_back(self, entry: Entry) -> None:
        machine.return_freed_memory()
        try:
            state = entry.kept
            if state is None and entry.remake is not None:
                state = entry.remake().state()
            if state is not None:  # else there was no room for a copy, and nothing was done
                entry.value.load_state(*state)
        except Exception:
            log.exception("%s could not be put back", entry.handle)
            entry.lost = True
        with self._changed:
            self._epoch = entry.value.epoch

    # What follows is called with the condition held.

    def _end(self, state: job_pb2.JobState, error: error_pb2.ErrorDetail | None = None) -> None:
        if self._entry is not None:
            self._entry.kept = None
            self._entry = None
        self.ended = time.monotonic()
        self._enter(state, error)

    def _enter(self, state: job_pb2.JobState, error: error_pb2.ErrorDetail | None = None) -> None:
        self._state, self._error = state, error
        self._emit(state_changed=job_pb2.StateChanged(state=state, error=error))
        with logs.bound(job=self.id):  # whoever cancels it has not been told its id
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
    """``atlas.v1.JobService``."""

    def __init__(self, sessions: Sessions, compute: Compute, publish: Publish, limits: Limits) -> None:
        self._sessions, self._compute, self._publish, self._limits = sessions, compute, publish, limits
        self._watches = threading.Semaphore(limits.max_watches)

    def StartJob(
        self, request: job_pb2.StartJobRequest, context: grpc.ServicerContext
    ) -> job_pb2.StartJobResponse:
        session = self._sessions.get(request.session_id)
        with session.lock:
            known = request.request_id in session.requests
        if not known:
            self._sessions.check_queue()
        with session.lock:
            session.check_open()
            job = session.requests.get(request.request_id) if request.request_id else None
            if job is None:
                job = self._start(session, request)
                if request.request_id:
                    session.requests[request.request_id] = job
        return job_pb2.StartJobResponse(job=job.describe())

    def _start(self, session: Session, request: job_pb2.StartJobRequest) -> Job:
        entry = session.find(request.handle, "handle")
        if not isinstance(entry.value, Trainable):
            raise InvalidInput(f"{entry.handle} has no epochs to do", "handle", "an object that advances")
        if entry.lost:
            raise NotReady(
                f"{entry.handle} lost its state in a failure",
                "handle",
                "",
                "restore a snapshot or create it again",
            )
        total = entry.value.total_epochs
        if not 0 <= request.until_epoch <= total:
            raise InvalidInput(
                f"cannot advance {entry.handle} to epoch {request.until_epoch}",
                "until_epoch",
                f"0 to {total}",
            )
        session.check_idle(entry)
        self._forget(session)
        wire = Wire(self._limits, session.tickets, session.id)
        job = Job(
            entry,
            request.until_epoch or total,
            request.snapshot_every,
            session.id,
            wire,
            self._compute,
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
                    "wait for some to end",
                )
            del session.jobs[oldest.id]
            session.requests = {name: job for name, job in session.requests.items() if job is not oldest}

    def _find(self, session_id: str, job_id: str) -> Job:
        return self._find_in(self._sessions.get(session_id), job_id)

    def _find_in(self, session: Session, job_id: str) -> Job:
        with session.lock:
            job = session.jobs.get(job_id)
        if job is None:
            raise NotFound(f"no job {job_id!r} in this session", "job_id", "", "list the session's jobs")
        return job

    def GetJob(self, request: job_pb2.GetJobRequest, context: grpc.ServicerContext) -> job_pb2.GetJobResponse:
        return job_pb2.GetJobResponse(job=self._find(request.session_id, request.job_id).describe())

    def ListJobs(
        self, request: job_pb2.ListJobsRequest, context: grpc.ServicerContext
    ) -> job_pb2.ListJobsResponse:
        session = self._sessions.get(request.session_id)
        with session.lock:
            jobs = list(session.jobs.values())
        return job_pb2.ListJobsResponse(jobs=[job.describe() for job in jobs])

    def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: grpc.ServicerContext
    ) -> Iterator[job_pb2.WatchJobResponse]:
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
        job = self._find(request.session_id, request.job_id)
        job.cancel()
        return job_pb2.CancelJobResponse(job=job.describe())
