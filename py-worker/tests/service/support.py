"""What the tests say again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from atlas_worker.client import Client, RemoteError
from atlas_worker.gen.atlas.v1 import objects_pb2


class Refused:
    """``with Refused("not_found", "handle") as error``: the body fails with this code and field."""

    def __init__(self, code: str, field: str | None = None, text: str = "") -> None:
        self.code, self.field, self.text = code, field, text

    def __enter__(self) -> Refused:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> bool:
        assert isinstance(error, RemoteError), f"expected {self.code}, got {error!r}"
        assert error.code == self.code, error
        assert self.field is None or error.field == self.field, (error.field, error)
        assert self.text in error.message
        assert "\n" not in error.message
        self.error = error
        return True


class Objects:
    """Short cuts to specs."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def component(self, **params: Any) -> objects_pb2.Component:
        return objects_pb2.Component(kind="test_chain", params=params)

    def dataset(self, seed: int = 1, run: bool = True, **params: Any) -> str:
        handle = self.client.create(
            dataset=objects_pb2.DatasetSpec(source=self.component(**params), seed=seed)
        )
        if run:
            self.client.run(handle)
        return handle

    def atlas(self, row: int = 4, r_in: int = 2) -> str:
        charts = [objects_pb2.Chart(row=row, col=4), objects_pb2.Chart(row=3, col=3)]
        planar = objects_pb2.PlanarAtlas(charts=charts, r_in=r_in, r_out=1, margin=1)
        return self.client.create(atlas=objects_pb2.AtlasSpec(planar=planar))

    def predictor(
        self, epochs: int = 4, seed: int = 1, field: tuple[str, str] | None = None, **params: Any
    ) -> str:
        dataset, atlas = field or (self.dataset(), self.atlas())
        spec = objects_pb2.PredictorSpec(
            architecture=self.component(**params),
            training=self.component(),
            dataset=dataset,
            atlas=atlas,
            epochs=epochs,
            seed=seed,
        )
        return self.client.create(predictor=spec)

    def algebra_spec(self, **fields: Any) -> objects_pb2.AlgebraSpec:
        dataset, atlas = self.dataset(), self.atlas()
        defaults = {
            "solver": self.component(),
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
            "solver": self.component(),
            "predictor": self.predictor(field=(dataset, atlas)),
            "dataset": dataset,
            "atlas": atlas,
            "identity": self.client.send(torch.eye(2)[None]),
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
