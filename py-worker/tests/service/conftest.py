"""A real worker in this process, whose building blocks are the fakes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from atlas_worker import blocks, predictors
from atlas_worker.client import Client
from atlas_worker.predictors import supervised
from atlas_worker.service.limits import Limits
from atlas_worker.service.server import Worker

from . import fakes
from .support import Objects

assert blocks  # importing it declares every block, as a worker does
fakes.install()


@pytest.fixture(autouse=True)
def _numerics(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(predictors, "make_predictor", fakes.make_predictor, raising=False)
    monkeypatch.setattr(predictors, "make_objective", fakes.make_objective, raising=False)
    monkeypatch.setitem(
        sys.modules, "atlas_worker.symmetry.components", SimpleNamespace(compare=fakes.compare)
    )
    fakes.GATE.clear()
    yield
    fakes.GATE.set()


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes predictors and objectives is the worker's own, and not a fake."""
    monkeypatch.setattr(predictors, "make_predictor", supervised.make_predictor)
    monkeypatch.setattr(predictors, "make_objective", supervised.make_objective)


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    worker = Worker()
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def client(worker: Worker) -> Iterator[Client]:
    with Client(worker.address) as client:
        yield client


@pytest.fixture
def limited() -> Iterator[Callable[..., Client]]:
    """Clients of workers with other limits."""
    workers: list[Worker] = []
    clients: list[Client] = []

    def connect(**limits: Any) -> Client:
        worker = Worker(limits=Limits(**limits))
        worker.start()
        workers.append(worker)
        clients.append(Client(worker.address))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()
    for worker in workers:
        worker.stop()


@pytest.fixture
def objects(client: Client) -> Objects:
    return Objects(client)
