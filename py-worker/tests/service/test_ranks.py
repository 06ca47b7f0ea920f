"""Trainings that processes share: the same losses, the same bits again, and no process too many."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from atlas_worker.client import Client, RemoteError
from atlas_worker.gen.atlas.v1 import job_pb2, objects_pb2
from atlas_worker.service import jobs
from atlas_worker.service.server import Worker

from .support import Objects, Refused, block, planar_atlas, vector_atlas, wait_for
from .test_process import ended, ready

pytestmark = pytest.mark.usefixtures("real")


@pytest.fixture(scope="module")
def double() -> Iterator[Worker]:
    """A worker with two threads, which two ranks can share."""
    worker = Worker(threads=2)
    worker.start()
    yield worker
    worker.stop()


def training(client: Client, kind: str = "mlp", epochs: int = 17) -> str:
    """A predictor with batches of 8, 8 and 4 samples in each epoch."""
    g = torch.Generator().manual_seed(0)
    if kind == "mlp":
        x = torch.randn(20, 3, 4, generator=g)
        y = x.square().sum((1, 2)).sqrt()[:, None]
        atlas = vector_atlas(client, 4)
    else:
        x = torch.randn(20, 1, 16, 16, generator=g)
        y, atlas = x.clamp(min=-0.5), planar_atlas(client, row=7)
    tensors = {"inputs": client.send(x), "targets": client.send(y)}
    spec = objects_pb2.DatasetSpec(source=block("arrays"), tensors=tensors)
    made = objects_pb2.PredictorSpec(
        architecture=block(kind, width=8),
        training=block("supervised", batch_size=8, learning_rate=0.003),
        dataset=client.create(dataset=spec),
        atlas=atlas,
        epochs=epochs,
        seed=1,
    )
    return client.create(predictor=made)


def losses(events: list[job_pb2.JobEvent]) -> list[float]:
    return [e.epoch_finished.metrics["loss"] for e in events if e.HasField("epoch_finished")]


def replaced(events: list[job_pb2.JobEvent]) -> list[str]:
    return [e.rank_replaced.message for e in events if e.HasField("rank_replaced")]


def state(client: Client, handle: str) -> Tensor:
    return Objects(client).snapshot(handle)


def helpers(worker: int) -> list[int]:
    """The processes of further ranks that a worker has started."""
    found = []
    for task in Path(f"/proc/{worker}/task").glob("*/children"):
        for child in task.read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"rank" in words:
                found.append(int(child))
    return found


def test_losses_are_those_of_one_process_and_repeats_are_equal(double: Worker) -> None:
    kinds = ["mlp", "reference_cnn"]
    with Client(double.address) as one:
        expected = {kind: losses(one.run(training(one, kind))) for kind in kinds}
    with Client(double.address, ranks=2) as two:
        for kind in kinds:
            first, second = training(two, kind), training(two, kind)
            got = losses(two.run(first))
            assert len(got) == 17  # of 3 steps each
            assert got == pytest.approx(expected[kind], rel=0, abs=1e-5)
            assert losses(two.run(second)) == got
            assert torch.equal(state(two, first), state(two, second))
        assert len(helpers(os.getpid())) == 1
    wait_for(lambda: not helpers(os.getpid()))


def test_a_killed_rank_is_replaced_and_changes_nothing(
    double: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(double.address, ranks=2) as client:
        undisturbed, killed, lost = (training(client, epochs=60) for _ in range(3))
        client.run(undisturbed)
        # While it works.
        job = client.call("StartJob", handle=killed).job
        events = []
        for event in client.watch(job.job_id):
            if event.HasField("epoch_finished") and event.epoch_finished.epoch == 2:
                (helper,) = helpers(os.getpid())
                os.kill(helper, signal.SIGKILL)
            events.append(event)
        (said,) = replaced(events)
        assert said == f"rank 1 (process {helper}) was killed by SIGKILL"
        assert len(losses(events)) == 60
        assert torch.equal(state(client, killed), state(client, undisturbed))
        # Too often: the job fails, and the object stays as after its last epoch.
        monkeypatch.setattr(jobs, "_MOST_REPLACED", 0)
        client.run(lost, until_epoch=1)
        os.kill(helpers(os.getpid())[0], signal.SIGKILL)
        with pytest.raises(RemoteError, match="killed by SIGKILL") as error:
            client.run(lost)
        assert (error.value.reason, error.value.code) == ("RANK_LOST", "UNAVAILABLE")
        assert Objects(client).info(lost).epoch == 1
        # It can go on, and be cancelled.
        job = client.call("StartJob", handle=lost).job
        for event in client.watch(job.job_id):
            if event.HasField("epoch_finished"):
                client.call("CancelJob", job_id=job.job_id)
        assert 2 <= Objects(client).info(lost).epoch < 60
        client.run(lost)
        assert torch.equal(state(client, lost), state(client, undisturbed))


def test_more_ranks_than_the_worker_has_room_for_are_refused(double: Worker) -> None:
    with Refused("INVALID_INPUT", "ranks", "2 CPU threads") as refused:
        Client(double.address, ranks=3)
    assert refused.error.expected == "1 to 2"


def test_no_rank_outlives_its_worker() -> None:
    command = [sys.executable, "-m", "atlas_worker", "serve", "--device", "cpu", "--threads", "2"]
    pipe = subprocess.PIPE
    worker = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    client = Client(ready(worker), ranks=2)
    job = client.call("StartJob", handle=training(client, epochs=100_000)).job
    next(e for e in client.watch(job.job_id) if e.HasField("epoch_finished"))
    (helper,) = helpers(worker.pid)
    worker.kill()
    wait_for(lambda: not Path(f"/proc/{helper}").exists())
    ended(worker, 10)
    client.close()


def test_ranks_on_several_machines() -> None:
    """Two machines with one rank each, which are both this one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = [str(Path(__file__).parents[3] / "docker/torchrun.sh")]
    flags = ["--device", "cpu", "--threads", "1", "--log-level", "warning"]
    nodes = [
        subprocess.Popen(
            [*script, *flags],
            env={
                **os.environ,
                "PYTHON": sys.executable,
                "NODES": "2",
                "NODE": str(node),
                "HEAD": f"127.0.0.1:{port}",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    try:
        assert nodes[0].stdout is not None
        address = json.loads(nodes[0].stdout.readline())["address"]
        with Client(address) as one:
            expected = losses(one.run(training(one)))
            with Refused("INVALID_INPUT", "ranks"):
                Client(address, ranks=3)
        with Client(address, ranks=2) as two:
            with Refused("LIMIT_EXCEEDED", "ranks"):
                Client(address, ranks=2)
            handle = training(two)
            assert losses(two.run(handle)) == pytest.approx(expected, rel=0, abs=1e-5)
            # What ends a group ends no rank: the next one is made of the same processes.
            long = training(two, epochs=5000)
            job = two.call("StartJob", handle=long).job
            for event in two.watch(job.job_id):
                if event.HasField("epoch_finished"):
                    two.call("CancelJob", job_id=job.job_id)
        with Client(address, ranks=2) as again:
            assert losses(again.run(training(again))) == pytest.approx(expected, rel=0, abs=1e-5)
        # The worker, and not torchrun: the others end with it.
        os.kill(Client(address).description.pid, signal.SIGTERM)
        assert [node.wait(60) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
            node.communicate()
