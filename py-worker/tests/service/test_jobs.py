"""JobService: the job loop and its events; nothing is lost whatever happens to job or watcher."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable

import pytest
import torch
import zmq

from atlas_worker.client import Client, RemoteError
from atlas_worker.gen.atlas.v1 import job_pb2, tensor_pb2
from atlas_worker.service.server import Worker

from . import fakes
from .support import CODES, Objects, Refused, wait_for

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = range(1, 6)


def states(events: list[job_pb2.JobEvent]) -> list[int]:
    return [e.state_changed.state for e in events if e.HasField("state_changed")]


def epochs(events: list[job_pb2.JobEvent]) -> list[int]:
    return [e.epoch_finished.epoch for e in events if e.HasField("epoch_finished")]


def test_a_job_from_start_to_end(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    events = client.run(handle)
    assert [e.sequence for e in events] == list(range(1, 8))
    assert states(events) == [QUEUED, RUNNING, SUCCEEDED]
    assert epochs(events) == [1, 2, 3, 4]
    finished = events[2].epoch_finished
    assert finished.total_epochs == 4
    assert set(finished.metrics) == {"loss"}
    assert finished.seconds > 0
    assert not finished.HasField("snapshot")
    assert all(e.time.seconds > 1_700_000_000 for e in events)
    job = client.call("ListJobs").jobs[-1]
    assert (job.state, job.epoch, job.until_epoch, job.last_sequence) == (SUCCEEDED, 4, 4, 7)
    assert client.call("GetJob", job_id=job.job_id).job == job
    assert "metrics" in objects.info(handle).facts


def test_a_schedule_can_be_replayed(client: Client, objects: Objects) -> None:
    handle = objects.predictor()
    assert epochs(client.run(handle, until_epoch=2)) == [1, 2]
    for until in (0, 1, 2):
        assert states(client.run(handle, until_epoch=until)) == [QUEUED, SUCCEEDED]
    assert epochs(client.run(handle, until_epoch=3)) == [3]
    assert epochs(client.run(handle)) == [4]
    assert epochs(client.run(objects.predictor(epochs=0))) == []
    for until in (5, -1):
        with Refused("INVALID_INPUT", "until_epoch"):
            client.call("StartJob", handle=handle, until_epoch=until)


def test_request_id(client: Client, objects: Objects) -> None:
    handle = objects.predictor(gate_at=1)
    first = client.call("StartJob", handle=handle, request_id="a").job
    again = client.call("StartJob", handle=handle, request_id="a").job
    assert again.job_id == first.job_id
    fakes.GATE.set()
    list(client.watch(first.job_id))
    assert client.call("StartJob", handle=handle, request_id="a").job.job_id == first.job_id
    assert client.call("StartJob", handle=handle, request_id="b").job.job_id != first.job_id
    assert (
        client.call("StartJob", handle=handle).job.job_id
        != client.call("StartJob", handle=handle).job.job_id
    )


@pytest.mark.parametrize("seen", range(8))
def test_a_watch_can_be_dropped_anywhere(client: Client, objects: Objects, seen: int) -> None:
    job = client.call("StartJob", handle=objects.predictor(step_ms=1)).job
    first = []
    stream = client.call("WatchJob", job_id=job.job_id)
    for response in itertools.islice(stream, seen):
        first.append(response.event)
    stream.cancel()
    rest = list(client.watch(job.job_id, after=seen))
    assert [e.sequence for e in first + rest] == list(range(1, 8))
    assert first + rest == list(client.watch(job.job_id)), "events stay as they were"


def test_watching_what_is_not(client: Client, objects: Objects) -> None:
    with Refused("NOT_FOUND", "job_id"):
        list(client.watch("job-none"))
    for name in ("GetJob", "CancelJob"):
        with Refused("NOT_FOUND", "job_id"):
            client.call(name, job_id="job-none")
    job = client.call("StartJob", handle=objects.predictor(epochs=0)).job
    with Refused("INVALID_INPUT", "after_sequence"):
        list(client.watch(job.job_id, after=9))
    assert list(client.watch(job.job_id, after=2)) == []


def test_watches_are_limited_and_given_back(limited: Callable[..., Client]) -> None:
    client = limited(max_watches=1)
    job = client.call("StartJob", handle=Objects(client).predictor(gate_at=1)).job
    stream = client.call("WatchJob", job_id=job.job_id)
    next(stream)
    with Refused("LIMIT_EXCEEDED"):
        list(client.watch(job.job_id))
    stream.cancel()
    fakes.GATE.set()

    def watched() -> bool:
        try:
            return len(list(client.watch(job.job_id))) == 7
        except RemoteError:
            return False

    wait_for(watched)


def test_a_watcher_that_does_not_read_slows_nothing(client: Client, objects: Objects) -> None:
    handle = objects.predictor(epochs=3000, steps=1)
    idle = client.call("StartJob", handle=handle).job
    stream = client.call("WatchJob", job_id=idle.job_id)
    wait_for(lambda: client.call("GetJob", job_id=idle.job_id).job.state == SUCCEEDED, 20)
    assert len(list(stream)) == 3003


def test_cancel_puts_back_the_last_finished_epoch(client: Client, objects: Objects) -> None:
    handle, undisturbed = objects.predictor(gate_at=3), objects.predictor(gate_at=3)
    job = client.call("StartJob", handle=handle).job
    wait_for(lambda: client.call("GetJob", job_id=job.job_id).job.epoch == 2)
    client.call("CancelJob", job_id=job.job_id)
    events = list(client.watch(job.job_id))
    assert states(events) == [QUEUED, RUNNING, CANCELLED]
    assert epochs(events) == [1, 2]
    assert client.call("CancelJob", job_id=job.job_id).job.state == CANCELLED
    assert objects.info(handle).epoch == 2
    fakes.GATE.set()
    client.run(handle)
    client.run(undisturbed)
    assert torch.equal(objects.snapshot(handle), objects.snapshot(undisturbed))


def test_a_cancelled_dataset_starts_again(client: Client, objects: Objects) -> None:
    handle = objects.dataset(run=False, gate_at=2)
    job = client.call("StartJob", handle=handle).job
    wait_for(lambda: client.call("GetJob", job_id=job.job_id).job.epoch == 1)
    client.call("CancelJob", job_id=job.job_id)
    assert states(list(client.watch(job.job_id)))[-1] == CANCELLED
    assert objects.info(handle).epoch == 0
    fakes.GATE.set()
    client.run(handle)
    assert torch.equal(objects.snapshot(handle), objects.snapshot(objects.dataset(gate_at=2)))


def test_cancel_while_queued_is_at_once(client: Client, objects: Objects) -> None:
    field = objects.dataset(), objects.atlas()
    first, second = objects.predictor(field=field, gate_at=1), objects.predictor(field=field)
    running = client.call("StartJob", handle=first).job
    queued = client.call("StartJob", handle=second).job
    assert client.call("CancelJob", job_id=queued.job_id).job.state == CANCELLED
    assert states(list(client.watch(queued.job_id))) == [QUEUED, CANCELLED]
    fakes.GATE.set()
    assert states(list(client.watch(running.job_id)))[-1] == SUCCEEDED


def test_jobs_take_turns(client: Client, objects: Objects) -> None:
    field = objects.dataset(), objects.atlas()
    handles = [objects.predictor(field=field, gate_at=1, epochs=20, steps=1) for _ in range(2)]
    jobs = [client.call("StartJob", handle=handle).job for handle in handles]
    fakes.GATE.set()
    ends = [list(client.watch(job.job_id)) for job in jobs]
    times = [[e.time.ToNanoseconds() for e in end if e.HasField("epoch_finished")] for end in ends]
    assert times[0][0] < times[1][0] < times[0][2] < times[1][2] < times[0][4]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("diverge_at", "DIVERGED"),
        ("nan_at", "DIVERGED"),
        ("oom_at", "OUT_OF_MEMORY"),
        ("crash_at", "INTERNAL"),
    ],
)
def test_failure_keeps_the_last_good_state(
    client: Client, objects: Objects, trouble: str, reason: str
) -> None:
    handle = objects.predictor(**{trouble: 3})
    job = client.call("StartJob", handle=handle).job
    events = list(client.watch(job.job_id))
    assert (states(events), epochs(events)) == ([QUEUED, RUNNING, FAILED], [1, 2])
    failed = events[-1].state_changed.error
    assert RemoteError(failed).reason == reason
    assert RemoteError(failed).code == CODES[reason]
    job = client.call("GetJob", job_id=job.job_id).job
    assert job.error == failed
    assert job.epoch == 2
    if reason == "OUT_OF_MEMORY":
        assert f"fitting {handle}, epoch 3 (asked for {2**57} bytes)" in job.error.message
        assert RemoteError(job.error).remedy
    kept = objects.snapshot(handle)
    other = objects.predictor(**{trouble: 3})
    client.run(other, until_epoch=2)
    assert torch.equal(objects.snapshot(other), kept)
    with Refused(reason):
        client.run(handle)
    assert torch.equal(objects.snapshot(handle), kept)


def test_a_state_that_cannot_be_put_back_is_not_used(client: Client, objects: Objects) -> None:
    handle = objects.predictor(diverge_at=1, crash_on_load=True)
    with Refused("DIVERGED"):
        client.run(handle)
    for call in ("StartJob", "GetSnapshot"):
        with Refused("NOT_READY", "handle"):
            client.call(call, handle=handle)


def test_objects_in_use(client: Client, objects: Objects) -> None:
    dataset, atlas = objects.dataset(), objects.atlas()
    handle = objects.predictor(field=(dataset, atlas), gate_at=2)
    frozen = objects.snapshot(handle)
    algebra = client.create(
        algebra=objects.algebra_spec(predictor=handle, dataset=dataset, atlas=atlas)
    )
    job = client.call("StartJob", handle=handle).job
    for used in (handle, dataset, atlas, algebra):
        with Refused("NOT_READY", "handle", job.job_id):
            client.call("DeleteObject", handle=used)
    for busy in (handle, algebra, dataset):
        with Refused("NOT_READY", "handle"):
            client.call("StartJob", handle=busy)
    fakes.GATE.set()
    list(client.watch(job.job_id))
    client.run(algebra)
    client.call("RestoreSnapshot", handle=handle, snapshot=client.send(frozen))
    client.call("DeleteObject", handle=dataset)


@pytest.mark.parametrize("size", [8, 20_000])
def test_snapshots_on_events(client: Client, objects: Objects, size: int) -> None:
    handle = objects.predictor(epochs=5, size=size, gate_at=5)
    job = client.call("StartJob", handle=handle, snapshot_every=2).job
    taken: dict[int, tensor_pb2.Tensor] = {}
    for event in client.watch(job.job_id):
        if event.epoch_finished.HasField("snapshot"):
            taken[event.epoch_finished.epoch] = event.epoch_finished.snapshot
        if event.epoch_finished.epoch == 4:
            frozen = client.receive(event.epoch_finished.snapshot)
            fakes.GATE.set()
    assert set(taken) <= {2, 4, 5}
    assert {4, 5} <= set(taken)
    with_snapshot = [
        e.epoch_finished.epoch
        for e in client.watch(job.job_id)
        if e.epoch_finished.HasField("snapshot")
    ]
    assert with_snapshot == [5], "only the latest is kept"
    end = client.receive(taken[5])
    assert torch.equal(end, objects.snapshot(handle))
    client.call("RestoreSnapshot", handle=handle, snapshot=client.send(frozen))
    assert objects.info(handle).epoch == 4
    client.run(handle)
    assert torch.equal(end, objects.snapshot(handle))


def test_a_replaced_snapshot_is_freed(limited: Callable[..., Client]) -> None:
    client = limited(max_session_ticket_bytes=200_000)
    objects = Objects(client)
    handle = objects.predictor(epochs=10, size=20_000)
    assert epochs(client.run(handle, snapshot_every=1)) == list(range(1, 11))
    # The last one still waits to be fetched: there is no room for another object's.
    other = objects.predictor(epochs=10, size=20_000)
    job = client.call("StartJob", handle=other, snapshot_every=1).job
    events = list(client.watch(job.job_id))
    assert (states(events), epochs(events)) == ([QUEUED, RUNNING, FAILED], [1])
    assert RemoteError(events[-1].state_changed.error).reason == "LIMIT_EXCEEDED"
    assert objects.info(other).epoch == 1, "the epoch was finished, and is kept"


def test_old_jobs_are_forgotten(limited: Callable[..., Client]) -> None:
    client = limited(max_session_jobs=3)
    objects = Objects(client)
    handle = objects.predictor(epochs=6)
    for epoch in range(1, 7):
        client.run(handle, until_epoch=epoch, request_id=str(epoch))
    assert len(client.call("ListJobs").jobs) == 3


def test_a_deleted_object_is_freed_though_its_jobs_are_remembered(
    client: Client, objects: Objects
) -> None:
    handle = objects.predictor()
    client.run(handle)
    made = weakref.ref(fakes.CONTEXT["predictor"])
    del fakes.CONTEXT["predictor"]
    client.call("DeleteObject", handle=handle)
    gc.collect()
    assert made() is None


def test_a_subscriber_that_does_not_read_slows_nothing(worker: Worker, client: Client) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.rcvhwm = 1
        socket.subscribe(b"")
        socket.connect(client.description.data_plane.metrics)
        time.sleep(0.1)
        started = time.monotonic()
        for step in range(20_000):
            worker.dataplane.publish(
                tensor_pb2.StepMetrics(job_id="job", step=step, metrics={"loss": 1.0})
            )
        assert time.monotonic() - started < 3


def test_step_metrics(worker: Worker, client: Client, objects: Objects) -> None:
    job = client.call("StartJob", handle=objects.predictor(gate_at=1)).job
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.rcvtimeo = 5000
        socket.subscribe(job.job_id)
        socket.connect(client.description.data_plane.metrics)
        arrived = []
        for _ in range(11):
            topic, body = socket.recv_multipart()
            arrived.append(time.monotonic())
        assert topic == job.job_id.encode()
        metrics = tensor_pb2.StepMetrics.FromString(body)
        assert (metrics.epoch, metrics.total_epochs, metrics.steps_in_epoch) == (1, 4, 3)
        assert set(metrics.metrics) == {"loss"}
        assert arrived[-1] - arrived[0] > 0.12, "not more often than every 20 ms"
    fakes.GATE.set()
    list(client.watch(job.job_id))


def test_sessions_take_turns(limited: Callable[..., Client]) -> None:
    """However many jobs one client starts, another's advances once for each of its rounds."""
    client = limited()
    with Client(client.target) as other:
        crowd = [Objects(client).predictor(epochs=6, step_ms=1, seed=i) for i in range(4)]
        single = Objects(other).predictor(epochs=6, step_ms=1)
        gate = client.call("StartJob", handle=Objects(client).predictor(epochs=1, gate_at=1)).job
        jobs = [client.call("StartJob", handle=handle).job for handle in crowd]
        alone = other.call("StartJob", handle=single).job
        fakes.GATE.set()
        ended = list(other.watch(alone.job_id))[-1].time
        for job in (gate, *jobs):
            list(client.watch(job.job_id))
        before = [
            e
            for job in jobs
            for e in client.watch(job.job_id)
            if e.HasField("epoch_finished") and e.time.ToNanoseconds() < ended.ToNanoseconds()
        ]
        assert 4 <= len(before) <= 8, (
            "six epochs of one session are six rounds of the other, give or take"
        )


def test_sessions_do_not_wait_for_each_other(limited: Callable[..., Client]) -> None:
    """However often they change places, many who start jobs at once all get done."""
    target = limited().target
    interval = sys.getswitchinterval()

    def work() -> None:
        with Client(target) as client:
            for _ in range(20):
                client.run(Objects(client).predictor(epochs=1, steps=1))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)


def test_the_queue_has_an_end(limited: Callable[..., Client]) -> None:
    client = limited(max_unfinished_jobs=2)
    with Client(client.target) as other:
        handles = [Objects(c).predictor(gate_at=1) for c in (client, client, other)]
        for handle in handles[:2]:
            client.call("StartJob", handle=handle)
        with Refused("LIMIT_EXCEEDED", "", "2 jobs"):
            other.call("StartJob", handle=handles[2])
        fakes.GATE.set()
        wait_for(lambda: all(job.state == SUCCEEDED for job in client.call("ListJobs").jobs))
        other.run(handles[2])
