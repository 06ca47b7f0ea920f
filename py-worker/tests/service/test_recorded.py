"""Records of the worker of protocol version 2 fit objects of the same specs: its runs resume.

The folder ``recorded`` holds what that worker (of commit 257efe4) gave for the specs below, in its
own names: the origins of objects, and snapshots after the first of two epochs.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.client import Client
from atlas_worker.gen.atlas.v1 import objects_pb2 as pb
from atlas_worker.service.compute import Compute
from atlas_worker.service.limits import Limits
from atlas_worker.service.sessions import Session
from atlas_worker.service.specs import plan
from atlas_worker.service.tensor_codec import TensorCodec
from atlas_worker.service.tickets import Tickets

from .support import Objects, block

RECORDED = Path(__file__).parent / "recorded"

KINDS = {
    "atlasd": "paper",
    "gaussian_points": "points",
    "heat_equation": "heat2d",
    "multistart": "descent",
    "pandas_hdf5": "hdf5_table",
    "reference_cnn": "published",
    "strided_cnn": "wide",
}
NAMES = {"halo": "reach", "max_components": "keep", "reference": "published", "storage": "keep"}
"""What kinds and parameters were called."""

TURN = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
PLANAR: dict[str, Any] = {
    "charts": [{"row": 16, "col": 30}, {"row": 30, "col": 20}],
    "r_in": 7,
    "r_out": 5,
}
HEAT = {"samples": 8, "side": 48, "steps": 3}
STRIDED = {"width": 4, "layers": 1, "stride": 2}
MULTISTART = {"candidates": 2, "steps": 2}


class Plans:
    """Objects that are planned upon one another, but for atlases not made."""

    def __init__(self, former: bool) -> None:
        limits = Limits(trust_code=True)
        self.former, self.origins = former, dict[str, list[str]]()
        self._session = Session("test", torch.device("cpu"), limits, Tickets(limits), Compute(1))
        self._codec = TensorCodec(limits, self._session.tickets, self._session.id)
        self._handles: dict[str, str] = {}

    def block(self, kind: str, **params: Any) -> pb.Block:
        if self.former:
            kind = KINDS.get(kind, kind)
            params = {NAMES.get(name, name): value for name, value in params.items()}
        return block(kind, **params)

    def sent(self, tensors: dict[str, Tensor]) -> Any:
        return {name: self._codec.encode(tensor) for name, tensor in tensors.items()}

    def add(self, name: str, value: Any = None, **spec: Any) -> None:
        planned = plan(self._session, self._codec, pb.CreateObjectRequest(**spec))
        origin = planned.origin()
        self.origins[name] = [origin.type, origin.kind, origin.spec]
        made = planned.make() if value is None else value
        entry = self._session.add(origin, planned.block.kind, made, None, planned.uses)
        self._handles[name] = entry.handle

    def dataset(
        self,
        kind: str,
        shape: tuple[int, ...],
        params: dict[str, Any],
        seed: int = 0,
        **tensors: Tensor,
    ) -> None:
        source, sent = self.block(kind, **params), self.sent(tensors)
        spec = pb.DatasetSpec(source=source, seed=seed, tensors=sent)
        self.add(kind, SimpleNamespace(inputs=torch.zeros(shape)), dataset=spec)

    def atlas(self, name: str, kind: str, **params: Any) -> None:
        self.add(name, atlas=pb.AtlasSpec(action=block(kind, **params)))

    def predictor(
        self, kind: str, dataset: str, atlas: str, params: dict[str, Any], **tensors: Tensor
    ) -> None:
        spec = pb.PredictorSpec(
            architecture=self.block(kind, **params),
            training=block("supervised", batch_size=4, schedule="cosine"),
            dataset=self._handles[dataset],
            atlas=self._handles[atlas],
            epochs=2,
            seed=5,
            tensors=self.sent(tensors),
        )
        self.add(kind, SimpleNamespace(), predictor=spec)

    def algebra(
        self, name: str, kind: str, k: int | None, uses: tuple[str | None, str, str], **params: Any
    ) -> None:
        predictor, dataset, atlas = (None if name is None else self._handles[name] for name in uses)
        spec = pb.AlgebraSpec(
            solver=self.block(kind, **params),
            predictor=predictor,
            dataset=dataset,
            atlas=atlas,
            k=k,
            epochs=2,
            seed=7,
        )
        self.add(name, SimpleNamespace(), algebra=spec)

    def cosets(self, name: str, identity: Tensor | None, **params: Any) -> None:
        spec = pb.CosetSpec(
            solver=self.block("multistart", **params),
            predictor=self._handles["strided_cnn"],
            dataset=self._handles["heat_equation"],
            atlas=self._handles["planar"],
            identity_algebra=None if identity is None else self._codec.encode(identity),
            epochs=2,
            seed=9,
        )
        self.add(name, SimpleNamespace(), cosets=spec)


@pytest.mark.parametrize("former", [False, True], ids=["names of today", "names of then"])
def test_objects_have_the_origins_they_had(former: bool) -> None:
    """Also by the former names of kinds and parameters, which kept runs have.

    The specs of atlases were messages of their own.
    """
    plans = Plans(former)
    x = torch.arange(2 * 9 * 9, dtype=torch.float32).view(2, 1, 9, 9)
    fields, lattice, momenta = (8, 1, 48, 48), (8, 1, 60, 120), (64, 5, 4)
    table = {"path": "/nonesuch/jets.h5", "items": 5}
    weather = {"path": "/nonesuch/weather", "storage": "memory"}
    plans.dataset("heat_equation", fields, HEAT, seed=3)
    plans.dataset("gaussian_points", (64, 1, 2), {"samples": 64, "n": 2}, seed=2**64 - 1)
    plans.dataset("pandas_hdf5", momenta, table)
    plans.dataset("climatenet", lattice, weather)
    plans.dataset("sphere_digits", lattice, {"source": "sklearn", "samples": 8}, seed=1)
    plans.dataset("arrays", fields, {"outputs": 2}, inputs=x, targets=(x > 9).long())
    plans.atlas("planar", "planar", **PLANAR)
    nearest = {"charts": PLANAR["charts"][:1], "margin": 2, "output_interpolation": "nearest"}
    plans.atlas("planar, nearest", "planar", **PLANAR | nearest)
    centre = {"latitude": 12.3, "longitude": -2.0}
    plans.atlas("sphere", "sphere", charts=[centre], r_in=7, r_out=7)
    plans.atlas("vectors", "vectors", n=2)
    plans.atlas("four-vectors", "vectors", n=4, vector_output=True)
    plans.atlas("icosahedron", "icosahedron", resolution=2)
    heat, tables = ("heat_equation", "planar"), ("pandas_hdf5", "four-vectors")
    plans.predictor("strided_cnn", *heat, STRIDED)
    plans.predictor("reference_cnn", *heat, {})
    plans.predictor("encoder_decoder", "heat_equation", "planar, nearest", {"reference": True})
    plans.predictor("cgnet", "arrays", "planar", {"reference": True, "width": 4})
    plans.predictor("convnet", "sphere_digits", "sphere", {"kernel": "smooth"}, algebra=TURN)
    plans.predictor("program", *heat, {"halo": 3, "file": "/nonesuch/net.pt"})
    module = {"file": "/nonesuch/net.py", "factory": "make", "takes": "chart"}
    plans.predictor("module", *heat, module)
    plans.predictor("icosahedral_unet", "climatenet", "icosahedron", {"levels": 2}, algebra=TURN)
    plans.predictor("mlp", "gaussian_points", "vectors", {})
    plans.predictor("expression", "gaussian_points", "vectors", {"expression": "x1**2 + x2**2"})
    plans.predictor("quadratic", *tables, {"forms": 3})
    metric = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0]))
    plans.predictor("lorentznet", *tables, {}, metric=metric)
    plans.predictor("particle_graph", *tables, {})
    uses = ("strided_cnn", *heat)
    plans.algebra("atlasd", "atlasd", 1, uses, batch_size=4)
    plans.algebra("grassmann", "grassmann", 1, uses, starts=2, steps=2)
    plans.algebra("grassmann, k unknown", "grassmann", None, uses)
    plans.algebra("liegan", "liegan", 1, (None, "sphere_digits", "sphere"), batch_size=4)
    plans.cosets("multistart", TURN, **MULTISTART, max_components=4)
    plans.cosets("multistart, no algebra", None)
    assert plans.origins == json.loads((RECORDED / "origins.json").read_text())


def header(snapshot: Tensor) -> dict[str, Any]:
    """Of a safetensors file."""
    raw = snapshot.numpy().tobytes()
    told: dict[str, Any] = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return told


def resume(client: Client, objects: Objects, name: str, **spec: Any) -> str:
    """An object that goes on from the recorded snapshot."""
    raw = (RECORDED / f"{name}.safetensors").read_bytes()
    recorded = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    anew, resumed = client.create(**spec), client.create(**spec)
    client.run(anew, until_epoch=1)
    assert header(objects.snapshot(anew)) == header(recorded)
    answer = client.call("RestoreSnapshot", handle=resumed, snapshot=client.send(recorded))
    assert answer.object.epoch == 1
    assert torch.equal(objects.snapshot(resumed), recorded)
    client.run(resumed)
    return resumed


@pytest.mark.usefixtures("real")
def test_recorded_snapshots_are_resumed(client: Client, objects: Objects) -> None:
    source = block("heat_equation", **HEAT)
    field = {
        "dataset": resume(
            client, objects, "heat_equation", dataset=pb.DatasetSpec(source=source, seed=3)
        ),
        "atlas": client.create(atlas=pb.AtlasSpec(action=block("planar", **PLANAR))),
    }
    training = block("supervised", batch_size=4, schedule="cosine")
    for kind, params in (("reference_cnn", {"width": 2}), ("strided_cnn", STRIDED)):
        spec = pb.PredictorSpec(
            architecture=block(kind, **params), training=training, epochs=2, seed=5, **field
        )
        net = resume(client, objects, kind, predictor=spec)
    for kind, params in (("atlasd", {"batch_size": 4}), ("grassmann", {"starts": 2, "steps": 2})):
        algebra = pb.AlgebraSpec(
            solver=block(kind, **params), predictor=net, k=1, epochs=2, seed=7, **field
        )
        solver = resume(client, objects, kind, algebra=algebra)
        assert len(client.call("GetAlgebra", handle=solver).losses) == 1
    for name, params, identity in (
        ("multistart", {"max_components": 4}, client.send(TURN)),
        ("multistart_preconditioned", {"precondition": True}, None),
    ):
        cosets = pb.CosetSpec(
            solver=block("multistart", **MULTISTART, **params),
            predictor=net,
            identity_algebra=identity,
            epochs=2,
            seed=9,
            **field,
        )
        solver = resume(client, objects, name, cosets=cosets)
        assert len(client.call("GetCosets", handle=solver).candidates) == 2
