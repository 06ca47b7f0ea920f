"""What the tests say again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from atlas_worker.client import Client, RemoteError
from atlas_worker.gen.atlas.v1 import objects_pb2

CODES = {
    "INVALID_INPUT": "INVALID_ARGUMENT",
    "FILE_MISSING": "NOT_FOUND",
    "NOT_FOUND": "NOT_FOUND",
    "NOT_READY": "FAILED_PRECONDITION",
    "LIMIT_EXCEEDED": "RESOURCE_EXHAUSTED",
    "OUT_OF_MEMORY": "RESOURCE_EXHAUSTED",
    "DIVERGED": "ABORTED",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "CANCELLED": "CANCELLED",
    "INTERNAL": "INTERNAL",
    "RANK_LOST": "UNAVAILABLE",
}
"""The status code that goes with each reason."""


class Refused:
    """``with Refused("NOT_FOUND", "handle") as error``: the body fails with reason and field."""

    def __init__(self, reason: str, field: str | None = None, text: str = "") -> None:
        self.reason, self.field, self.text = reason, field, text

    def __enter__(self) -> Refused:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> bool:
        assert isinstance(error, RemoteError), f"expected {self.reason}, got {error!r}"
        assert (error.reason, error.code) == (self.reason, CODES[self.reason]), error
        assert self.field is None or error.field == self.field, (error.field, error)
        assert self.text in error.message
        assert "\n" not in error.message
        self.error = error
        return True


def block(kind: str, **params: Any) -> objects_pb2.Block:
    return objects_pb2.Block(kind=kind, params=params)


def action(kind: str, **params: Any) -> objects_pb2.AtlasSpec:
    return objects_pb2.AtlasSpec(action=block(kind, **params))


# With the real building blocks (``usefixtures("real")``)

QUARTER, SHEAR = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.5], [0.0, 1.0]])


def vector_atlas(client: Client, n: int = 2, **fields: Any) -> str:
    return client.create(atlas=action("vectors", n=n, **fields))


def random_points(client: Client, seed: int = 1, run: bool = True, **params: Any) -> str:
    handle = client.create(
        dataset=objects_pb2.DatasetSpec(source=block("gaussian_points", **params), seed=seed)
    )
    if run:
        client.run(handle)
    return handle


def vector_predictor(
    client: Client, dataset: str, atlas: str, kind: str = "mlp", loss: str = "l1", **params: Any
) -> str:
    spec = objects_pb2.PredictorSpec(
        architecture=block(kind, **params),
        training=block("supervised", loss=loss),
        dataset=dataset,
        atlas=atlas,
        epochs=0,
    )
    return client.create(predictor=spec)


def table(folder: Path, name: str = "t.h5", m: int = 2, rows: int = 600) -> Path:
    """Light-like vectors with labels, in pandas' layout."""
    g = np.random.default_rng(0)
    p = g.normal(size=(rows, m, 3))
    x = np.concatenate([np.linalg.norm(p, axis=-1, keepdims=True), p], -1).astype(np.float32)
    names = [f"{c}_{i}" for i in range(m) for c in ("E", "PX", "PY", "PZ")]
    dtype = [("index", "<i8"), ("values_block_0", "<f4", (4 * m,)), ("values_block_1", "<i8", (1,))]
    data = np.zeros(rows, dtype)
    data["values_block_0"] = x.reshape(rows, -1)
    data["values_block_1"][:, 0] = np.arange(rows) % 3 == 0
    with h5py.File(folder / name, "w") as file:
        made = file.create_group("table").create_dataset("table", data=data, chunks=(64,))
        for block, columns in (("values_block_0", names), ("values_block_1", ["is_signal_new"])):
            pickled = (
                b"(lp0\n"
                + b"".join(f"V{c}\np{i + 1}\na".encode() for i, c in enumerate(columns))
                + b"."
            )
            made.attrs[f"{block}_kind"] = np.bytes_(pickled)
    return folder / name


def open_table(client: Client, path: str, run: bool = True, **params: Any) -> str:
    source = block("pandas_hdf5", path=path, items=2, **params)
    handle = client.create(dataset=objects_pb2.DatasetSpec(source=source))
    if run:
        client.run(handle)
    return handle


def planar_atlas(client: Client, charts: int = 2, r_in: int = 2, row: int = 4) -> str:
    centres = [{"row": row, "col": 4 + i} for i in range(charts)]
    return client.create(atlas=action("planar", charts=centres, r_in=r_in, r_out=1, margin=1))


def fields(client: Client, channels: int = 1, samples: int = 5, side: int = 12) -> str:
    x = torch.randn(samples, channels, side, side, generator=torch.Generator().manual_seed(0))
    tensors = {"inputs": client.send(x), "targets": client.send(x[:, :1])}
    return client.create(
        dataset=objects_pb2.DatasetSpec(source=block("arrays"), tensors=tensors),
    )


class Objects:
    """Short cuts to specs."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def block(self, **params: Any) -> objects_pb2.Block:
        return block("test_chain", **params)

    def dataset(self, seed: int = 1, run: bool = True, **params: Any) -> str:
        handle = self.client.create(
            dataset=objects_pb2.DatasetSpec(source=self.block(**params), seed=seed)
        )
        if run:
            self.client.run(handle)
        return handle

    def atlas(self, row: int = 4, r_in: int = 2) -> str:
        charts = [{"row": row, "col": 4}, {"row": 3, "col": 3}]
        return self.client.create(
            atlas=action("planar", charts=charts, r_in=r_in, r_out=1, margin=1)
        )

    def predictor(
        self, epochs: int = 4, seed: int = 1, field: tuple[str, str] | None = None, **params: Any
    ) -> str:
        dataset, atlas = field or (self.dataset(), self.atlas())
        spec = objects_pb2.PredictorSpec(
            architecture=self.block(**params),
            training=self.block(),
            dataset=dataset,
            atlas=atlas,
            epochs=epochs,
            seed=seed,
        )
        return self.client.create(predictor=spec)

    def algebra_spec(self, **fields: Any) -> objects_pb2.AlgebraSpec:
        dataset, atlas = self.dataset(), self.atlas()
        defaults = {
            "solver": self.block(),
            "predictor": self.predictor(field=(dataset, atlas)),
            "dataset": dataset,
            "atlas": atlas,
            "k": 1,
            "epochs": 2,
        }
        return objects_pb2.AlgebraSpec(**defaults | fields)

    def coset_spec(self, **fields: Any) -> objects_pb2.CosetSpec:
        dataset, atlas = self.dataset(), self.atlas()
        defaults = {
            "solver": self.block(),
            "predictor": self.predictor(field=(dataset, atlas)),
            "dataset": dataset,
            "atlas": atlas,
            "identity_algebra": self.client.send(torch.eye(2)[None]),
            "epochs": 2,
        }
        return objects_pb2.CosetSpec(**defaults | fields)

    def info(self, handle: str) -> objects_pb2.ObjectInfo:
        return next(o for o in self.client.call("ListObjects").objects if o.handle == handle)

    def snapshot(self, handle: str) -> torch.Tensor:
        return self.client.receive(self.client.call("GetSnapshot", handle=handle).snapshot)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
