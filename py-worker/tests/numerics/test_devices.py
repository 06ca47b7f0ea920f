"""Another device computes what the CPU computes, in every kind of work; see fake_device.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from atlas_worker.client import Client
from atlas_worker.datasets.climatenet import NORMAL
from atlas_worker.gen.atlas.v1 import objects_pb2 as pb
from atlas_worker.service import devices
from atlas_worker.service.limits import Limits
from atlas_worker.service.server import Worker

from .fake_device import HERE, THERE, Elsewhere, second_device
from .pandas_tables import write

TURN = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
MOVES = torch.tensor([[[0.8, -0.6], [0.6, 0.8]], [[1.2, 0.0], [0.0, 0.9]]])


class Devices(devices.Devices):
    def __init__(self) -> None:
        super().__init__("cpu")
        self.all.append(THERE)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (root / "weather").mkdir()
    for day in range(1, 5):
        with h5py.File(root / "weather" / f"data-2010-06-0{day}-01-1_0.nc", "w") as file:
            for name, (mean, std) in NORMAL.items():
                file[name] = (mean + std * rng.standard_normal((1, 24, 36))).astype(np.float32)
            file["LABELS"] = rng.integers(0, 3, (24, 36))
            file["lat"], file["lon"] = np.linspace(-90, 90, 24), np.arange(36) * 10.0
    momenta = rng.normal(size=(64, 5, 3))
    vectors = np.concatenate([np.linalg.norm(momenta, axis=2, keepdims=True), momenta], 2)
    write(root / "jets.h5", vectors.reshape(64, 20).astype(np.float32), np.arange(64) % 2)
    return root


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with second_device():
        worker = Worker(devices=Devices(), limits=Limits(data_root=root))
        worker.start()
        yield worker.address
        worker.stop()


class Side:
    """A session on one of the devices, and all that was read of it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.found: list[Any] = []

    def make(self, type: str, spec: Any, restored: bool = True) -> str:
        """Make an object with all its epochs.

        With ``restored``, another object does the second half from a snapshot of this one.
        """
        handle = self.client.create(**{type: spec})
        epochs = getattr(spec, "epochs", 0)
        if epochs > 1 and restored:
            self.client.run(handle, until_epoch=epochs // 2)
            snapshot = self.client.call("GetSnapshot", handle=handle).snapshot
            handle = self.client.create(**{type: spec})
            self.client.call("RestoreSnapshot", handle=handle, snapshot=snapshot)
        if type != "atlas":
            self.client.run(handle)
        if type not in ("atlas", "dataset"):
            self.found.append(
                self.client.receive(self.client.call("GetSnapshot", handle=handle).snapshot)
            )
        return handle

    def atlas(self, kind: str, **params: Any) -> str:
        return self.make("atlas", pb.AtlasSpec(action=pb.Block(kind=kind, params=params)))

    def dataset(self, kind: str, **params: Any) -> str:
        handle = self.make(
            "dataset", pb.DatasetSpec(source=pb.Block(kind=kind, params=params), seed=3)
        )
        read = self.client.call("ReadDataset", handle=handle, start=1, count=2)
        self.found += [self.client.receive(read.inputs), self.client.receive(read.targets)]
        return handle

    def predictor(
        self,
        kind: str,
        dataset: str,
        atlas: str,
        params: dict[str, Any],
        training: dict[str, Any],
        epochs: int = 2,
        **tensors: Tensor,
    ) -> str:
        spec = pb.PredictorSpec(
            architecture=pb.Block(kind=kind, params=params),
            training=pb.Block(kind="supervised", params={"batch_size": 4, **training}),
            dataset=dataset,
            atlas=atlas,
            epochs=epochs,
            tensors={name: self.client.send(t) for name, t in tensors.items()},
            seed=5,
        )
        handle = self.make("predictor", spec)
        samples = pb.SampleRange(start=0, count=3)
        self.found.append(
            self.client.receive(self.client.call("Predict", handle=handle, samples=samples).outputs)
        )
        return handle

    def scores(self, predictor: str, dataset: str) -> None:
        self.found.append(self.client.call("ScorePredictor", handle=predictor, dataset=dataset))

    def classes(self, predictor: str) -> None:
        samples = pb.SampleRange(start=0, count=2)
        classes = self.client.call("Predict", handle=predictor, samples=samples, classes=True)
        self.found.append(self.client.receive(classes.outputs))

    def moved(self, predictor: str, matrices: Tensor = MOVES) -> None:
        sent = self.client.send(matrices)
        self.found.append(
            self.client.call(
                "MeasureEquivariance", handle=predictor, matrices=sent, samples=4, seed=1
            )
        )

    def algebra(
        self, kind: str, k: int, predictor: str | None, dataset: str, atlas: str, **params: Any
    ) -> None:
        if kind == "grassmann":
            params = {"starts": 2, "steps": 2, "evaluation": 2, **params}
        spec = pb.AlgebraSpec(
            solver=pb.Block(kind=kind, params=params),
            predictor=predictor,
            dataset=dataset,
            atlas=atlas,
            k=k,
            epochs=2,
            seed=7,
        )
        self.found.append(self.client.call("GetAlgebra", handle=self.make("algebra", spec)))

    def cosets(
        self, identity: Tensor, predictor: str, dataset: str, atlas: str, **params: Any
    ) -> None:
        spec = pb.CosetSpec(
            solver=pb.Block(
                kind="multistart", params={"candidates": 2, "steps": 2, "evaluation": 2, **params}
            ),
            predictor=predictor,
            dataset=dataset,
            atlas=atlas,
            identity_algebra=self.client.send(identity),
            epochs=2,
            seed=9,
        )
        self.found.append(self.client.call("GetCosets", handle=self.make("cosets", spec)))


def heat(side: Side) -> None:
    data = side.dataset("heat_equation", samples=8, side=48, steps=3)
    charts = [{"row": 16, "col": 30}, {"row": 30, "col": 20}]
    atlas = side.atlas("planar", charts=charts, r_in=7, r_out=5, margin=2)
    for kind, params in {
        "reference_cnn": {"width": 4},
        "strided_cnn": {"width": 4, "layers": 1, "stride": 2},
    }.items():
        p = side.predictor(kind, data, atlas, params, {"schedule": "cosine", "weight_decay": 0.01})
        side.moved(p)
    side.algebra("grassmann", 1, p, data, atlas)
    side.algebra("atlasd", 1, p, data, atlas, batch_size=4)
    # Candidates are brought to the normaliser of a given algebra on the CPU, with any device.
    side.cosets(torch.empty(0, 2, 2), p, data, atlas)


def digits(side: Side) -> None:
    data = side.dataset("sphere_digits", source="sklearn", samples=8)
    charts = [{"latitude": 0, "longitude": longitude} for longitude in (-2.0, 0.0, 2.0)]
    atlas = side.atlas("sphere", charts=charts, r_in=14, r_out=14)
    training = {"loss": "cross_entropy", "background_weight": 0.1}
    p = side.predictor("encoder_decoder", data, atlas, {}, training)
    side.scores(p, data)
    side.classes(p)
    side.algebra("grassmann", 1, p, data, atlas, compare="distance")
    side.algebra("liegan", 1, None, data, atlas, batch_size=4)
    planar = side.atlas("planar", charts=[{"row": 30, "col": 60}], r_in=20, r_out=16)
    p = side.predictor("convnet", data, planar, {"kernel": "smooth"}, training, algebra=TURN)
    side.moved(p)


def jets(side: Side) -> None:
    data = side.dataset("pandas_hdf5", path="jets.h5", items=5)
    atlas = side.atlas("vectors", n=4)
    training = {"loss": "cross_entropy", "batch_size": 16}
    metric = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0]))
    for kind in ("lorentznet", "particle_graph", "particle_flow"):
        given = {"metric": metric} if kind == "lorentznet" else {}
        p = side.predictor(kind, data, atlas, {}, training, **given)
        side.scores(p, data)
    for kind in ("mlp", "quadratic"):
        p = side.predictor(kind, data, atlas, {}, training)
        side.moved(p, metric[None])
    side.algebra("grassmann", 2, p, data, atlas, start="spectral", batch_size=32)
    side.algebra("atlasd", 2, p, data, atlas, batch_size=32, standard_basis=True)
    side.cosets(torch.empty(0, 4, 4), p, data, atlas, batch_size=16)


def weather(side: Side) -> None:
    data = side.dataset("climatenet", path="weather", storage="memory")
    charts = [{"row": row, "col": 18} for row in (10, 14)]
    atlas = side.atlas("planar", charts=charts, r_in=9, r_out=5, output_interpolation="nearest")
    training = {"loss": "jaccard", "batch_size": 2}
    p = side.predictor("cgnet", data, atlas, {"m": 1, "n": 1, "width": 4}, training)
    side.scores(p, data)
    side.classes(p)
    side.algebra("grassmann", 2, p, data, atlas, compare="distance")
    grid = side.atlas("icosahedron", resolution=2)
    for algebra in (TURN, torch.eye(4).view(4, 2, 2)):
        p = side.predictor("icosahedral_unet", data, grid, {"levels": 2}, training, algebra=algebra)
    side.scores(p, data)
    side.classes(p)


def points(side: Side) -> None:
    data = side.dataset("gaussian_points", samples=256, n=2)
    atlas = side.atlas("vectors", n=2)
    expression = {"expression": "abs(x) + abs(y)", "coordinates": "x,y"}
    p = side.predictor("expression", data, atlas, expression, {}, epochs=0)
    side.algebra("grassmann", 0, p, data, atlas, batch_size=64)
    side.cosets(torch.empty(0, 2, 2), p, data, atlas, batch_size=64)


@pytest.mark.parametrize("work", [heat, digits, jets, weather, points])
def test_another_device_computes_what_the_cpu_does(work: Any, address: str) -> None:
    sides = []
    for device in (HERE, THERE):
        with Client(address, device=str(device)) as client:
            sides.append(Side(client))
            work(sides[-1])
    here, there = (side.found for side in sides)
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        if isinstance(a, Tensor):
            assert torch.equal(a, b)
        else:
            assert a == b


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: here + there,
        lambda here, there: there @ here,
        lambda here, there: here[there.argmax(1)],
        lambda here, there: there.index_put_((torch.tensor([0]),), here[:1]),
        lambda here, there: torch.cat([here, there]),
        lambda here, there: nn.functional.linear(there, nn.Linear(3, 2).weight),
        lambda here, there: there.numpy(),
        lambda here, there: np.asarray(there),
        lambda here, there: torch.randn(3, device=THERE, generator=torch.Generator()),
        lambda here, there: there[:, [0, 1]],
    ],
)
def test_the_second_device_is_strict(mixed: Any) -> None:
    """It would be of no use otherwise."""
    with second_device():
        here = torch.eye(3)
        there = here.to(THERE)
        assert isinstance(there, Elsewhere)
        assert there.device == THERE
        assert torch.equal((2 * there[torch.tensor([1, 2])]).cpu(), 2 * here[1:])
        with pytest.raises((RuntimeError, TypeError)):
            mixed(here, there)
