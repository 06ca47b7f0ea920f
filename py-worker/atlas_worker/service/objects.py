"""``atlas.v1.ObjectService``: makes objects from specs and answers questions about them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import torch
from google.protobuf import struct_pb2
from torch import Tensor

from atlas_worker import registry
from atlas_worker.actions import Atlas, IcosahedralGrid, VectorSpace, action_on
from atlas_worker.errors import Cancelled, InvalidInput, NotReady
from atlas_worker.fields.atlas import Chart, PlanarAtlas, check_radii
from atlas_worker.fields.resample import Interpolation
from atlas_worker.fields.sphere import SphereAtlas, SphereChart
from atlas_worker.gen.atlas.v1 import objects_pb2
from atlas_worker.roles import AlgebraReport, CosetReport
from atlas_worker.trainable import Trainable

from . import snapshots
from .compute import Compute
from .failures import LOWER
from .limits import Limits
from .machine import check_memory
from .sessions import Entry, Session, Sessions
from .snapshots import Origin
from .wire import Wire, plain, raw_bytes

T = TypeVar("T")

_LARGEST_N = 64
"""Of R^n: matrices have n² entries, and spectra n⁴."""
_MEASURED_BYTES = 38
"""Of a ``MatrixEquivariance`` in its message."""


@dataclass(frozen=True)
class _Plan:
    """How to make an object: checked before anything is allocated."""

    role: str
    kind: str
    identity: list[Any]
    """What its snapshots depend on, as JSON values: parameters, seeds, hashes of data and of what it is made from."""
    make: Callable[[], Any]
    uses: tuple[Entry, ...] = ()

    def origin(self) -> Origin:
        text = json.dumps(
            [self.role, self.kind, self.identity, [e.origin.spec for e in self.uses]], sort_keys=True
        )
        return Origin(self.role, self.kind, hashlib.blake2b(text.encode(), digest_size=16).hexdigest())


class ObjectService:
    """Work on tensors is done on the compute thread, between the epochs of running jobs."""

    def __init__(self, sessions: Sessions, compute: Compute, limits: Limits) -> None:
        self._sessions, self._compute, self._limits = sessions, compute, limits

    def _wire(self, session: Session) -> Wire:
        return Wire(self._limits, session.tickets, session.id)

    def _work(self, context: grpc.ServicerContext, session: Session, work: Callable[[], T]) -> T:
        with session.held():
            return self._compute.call(context, session.id, work)

    def CreateObject(
        self, request: objects_pb2.CreateObjectRequest, context: grpc.ServicerContext
    ) -> objects_pb2.CreateObjectResponse:
        session = self._sessions.get(request.session_id)
        role = request.WhichOneof("spec")
        if role is None:
            raise InvalidInput("no spec is set", "spec", "one of dataset, atlas, predictor, algebra, cosets")
        spec = getattr(request, role)
        wire = self._wire(session)

        def create() -> Entry:
            plan: _Plan = _PLANS[role](session, wire, spec)
            origin = plan.origin()
            if (made := session.made_by(request.request_id, origin)) is not None:
                return made
            session.check_room()
            value = plan.make()
            if isinstance(value, Trainable) and value.total_epochs:
                check_memory(session.device, value.memory_bytes, role, LOWER[role])
            # Only what has epochs and is not copied (see Job._keep) is ever made again; the closure holds uploaded data.
            remake = plan.make if role == "dataset" and value.total_epochs else None
            return session.add(origin, value, remake, plan.uses, request.request_id)

        entry = self._work(context, session, create)
        return objects_pb2.CreateObjectResponse(object=_info(entry))

    def DeleteObject(
        self, request: objects_pb2.DeleteObjectRequest, context: grpc.ServicerContext
    ) -> objects_pb2.DeleteObjectResponse:
        self._sessions.get(request.session_id).delete(request.handle)
        return objects_pb2.DeleteObjectResponse()

    def ListObjects(
        self, request: objects_pb2.ListObjectsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.ListObjectsResponse:
        session = self._sessions.get(request.session_id)
        with session.lock:
            entries = list(session.entries.values())
        return objects_pb2.ListObjectsResponse(objects=[_info(entry) for entry in entries])

    def GetSnapshot(
        self, request: objects_pb2.GetSnapshotRequest, context: grpc.ServicerContext
    ) -> objects_pb2.GetSnapshotResponse:
        session = self._sessions.get(request.session_id)
        entry = _trainable(session, request.handle)
        wire = self._wire(session)

        def freeze() -> objects_pb2.GetSnapshotResponse:
            _check_whole(entry)
            state = entry.value.state()
            wire.check_size(snapshots.size(state))
            return objects_pb2.GetSnapshotResponse(
                snapshot=wire.encode(snapshots.freeze(state, entry.origin)), epoch=entry.value.epoch
            )

        return self._work(context, session, freeze)

    def RestoreSnapshot(
        self, request: objects_pb2.RestoreSnapshotRequest, context: grpc.ServicerContext
    ) -> objects_pb2.RestoreSnapshotResponse:
        session = self._sessions.get(request.session_id)
        entry = _trainable(session, request.handle)
        tensors, metadata, origin = snapshots.thaw(
            self._wire(session).decode(request.snapshot, "snapshot"), "snapshot"
        )
        snapshots.check_origin(origin, entry.origin, "snapshot")
        self._work(
            context,
            session,
            lambda: _change(session, entry, lambda: entry.value.load_state(tensors, metadata)),
        )
        return objects_pb2.RestoreSnapshotResponse(object=_info(entry))

    def LoadWeights(
        self, request: objects_pb2.LoadWeightsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.LoadWeightsResponse:
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        tensors, _, origin = snapshots.thaw(self._wire(session).decode(request.weights, "weights"), "weights")
        if origin is not None and origin.role != "predictor":
            raise InvalidInput(
                f"a snapshot of {origin.role} {origin.kind!r}", "weights", "weights of a predictor"
            )
        self._work(
            context, session, lambda: _change(session, entry, lambda: entry.value.load_weights(tensors))
        )
        return objects_pb2.LoadWeightsResponse(object=_info(entry))

    def ReadDataset(
        self, request: objects_pb2.ReadDatasetRequest, context: grpc.ServicerContext
    ) -> objects_pb2.ReadDatasetResponse:
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "dataset")
        wire = self._wire(session)

        def read() -> objects_pb2.ReadDatasetResponse:
            inputs, targets = entry.value.inputs, entry.value.targets
            part = _samples(inputs, request.start, request.count, "")
            return objects_pb2.ReadDatasetResponse(
                inputs=wire.encode(inputs[part]), targets=wire.encode(targets[part])
            )

        return self._work(context, session, read)

    def Predict(
        self, request: objects_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> objects_pb2.PredictResponse:
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        wire = self._wire(session)
        crops: Tensor | None = None
        match request.WhichOneof("input"):
            case "crops":
                crops = wire.decode(request.crops, "crops")
                if crops.dtype not in (torch.float32, torch.float64) or crops.dim() < 3 or len(crops) == 0:
                    raise InvalidInput(
                        f"crops are {crops.dtype} {list(crops.shape)}",
                        "crops",
                        "float32 [batch, charts, ...]",
                    )
            case None:
                raise InvalidInput("neither crops nor samples are set", "input", "crops or samples")
        other = request.samples.dataset
        dataset = (session.find(other, "samples.dataset", "dataset") if other else entry.uses[0]).value

        def predict() -> objects_pb2.PredictResponse:
            _check_whole(entry)
            if crops is None:
                every = _samples(dataset.inputs, request.samples.start, request.samples.count, "samples")
            else:
                every = slice(0, len(crops))
            count, outputs = every.stop - every.start, list[Tensor]()
            for start in range(every.start, every.stop, entry.value.at_once):
                stop = min(start + entry.value.at_once, every.stop)
                x = (
                    entry.value.crops(torch.arange(start, stop), dataset)
                    if crops is None
                    else crops[start:stop]
                )
                output = entry.value.predict(x.to(session.device, torch.float32))
                if request.classes:
                    output = entry.value.likeliest(output, dataset)
                if not outputs:
                    wire.check_size(output.numel() * output.element_size() * count // len(output))
                outputs.append(output)
            return objects_pb2.PredictResponse(outputs=wire.encode(torch.cat(outputs)))

        return self._work(context, session, predict)

    def ScorePredictor(
        self, request: objects_pb2.ScorePredictorRequest, context: grpc.ServicerContext
    ) -> objects_pb2.ScorePredictorResponse:
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        dataset = session.find(request.dataset, "dataset", "dataset")

        def score() -> objects_pb2.ScorePredictorResponse:
            _check_whole(entry)
            scores = entry.value.scores(dataset.value, lambda: _check_wanted(context))
            return objects_pb2.ScorePredictorResponse(scores=scores)

        return self._work(context, session, score)

    def MeasureEquivariance(
        self, request: objects_pb2.MeasureEquivarianceRequest, context: grpc.ServicerContext
    ) -> objects_pb2.MeasureEquivarianceResponse:
        from atlas_worker.predictors import make_task
        from atlas_worker.solvers.measure import measure_at

        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        dataset, atlas = entry.uses
        n = action_on(atlas.value).n  # of any other atlas that is accepted, too
        matrices = self._wire(session).decode_matrices(request.matrices, "matrices", n)
        if not len(matrices):
            raise InvalidInput("there are no matrices", "matrices.shape", f"[m, {n}, {n}], m at least 1")
        # The answer is one message: told before it is computed.
        Wire(self._limits, session.tickets).check_size(len(matrices) * _MEASURED_BYTES)
        if request.samples < 1:
            raise InvalidInput(f"samples is {request.samples}", "samples", "at least 1")
        if request.atlas:
            atlas = session.find(request.atlas, "atlas", "atlas")
        if request.dataset:
            dataset = session.find(request.dataset, "dataset", "dataset")

        def measure() -> objects_pb2.MeasureEquivarianceResponse:
            _check_whole(entry)
            _check_invertible(matrices)
            _check_fit(entry, dataset, atlas)
            task = make_task(entry.value, dataset.value, atlas.value)
            at = measure_at(task, matrices, request.samples, request.seed, lambda: _check_wanted(context))
            rows = torch.stack([at.loss, at.distance, at.relative_error, at.resampling], 1).tolist()
            return objects_pb2.MeasureEquivarianceResponse(
                measured=[
                    objects_pb2.MatrixEquivariance(
                        loss=loss, distance=distance, relative_error=relative, resampling=resampling
                    )
                    for loss, distance, relative, resampling in rows
                ]
            )

        return self._work(context, session, measure)

    def GetAlgebra(
        self, request: objects_pb2.GetAlgebraRequest, context: grpc.ServicerContext
    ) -> objects_pb2.GetAlgebraResponse:
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "algebra")
        wire = self._wire(session)

        def read() -> objects_pb2.GetAlgebraResponse:
            _check_whole(entry)
            report: AlgebraReport = entry.value.report()
            return objects_pb2.GetAlgebraResponse(
                generators=wire.encode(report.generators),
                losses=report.losses,
                relative_errors=report.relative_errors,
                noise_floor=report.noise_floor,
                found=report.found,
                spectrum=[
                    objects_pb2.SpectrumEntry(
                        direction=wire.encode(s.direction), loss=s.loss, relative_error=s.relative_error
                    )
                    for s in report.spectrum
                ],
                start_losses=report.start_losses,
                verdict=report.verdict,
            )

        return self._work(context, session, read)

    def GetCosets(
        self, request: objects_pb2.GetCosetsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.GetCosetsResponse:
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "cosets")
        wire = self._wire(session)

        def read() -> objects_pb2.GetCosetsResponse:
            _check_whole(entry)
            report: CosetReport = entry.value.report()
            return objects_pb2.GetCosetsResponse(
                matrices=wire.encode(report.matrices),
                losses=report.losses,
                noise_floor=report.noise_floor,
                candidates=[
                    objects_pb2.CosetCandidate(
                        matrix=wire.encode(c.matrix),
                        loss=c.loss,
                        verdict=c.verdict,
                        duplicate_of=c.duplicate_of,
                    )
                    for c in report.candidates
                ],
            )

        return self._work(context, session, read)

    def CompareComponents(
        self, request: objects_pb2.CompareComponentsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.CompareComponentsResponse:
        from atlas_worker.solvers.components import compare

        wire = Wire(self._limits, self._sessions.tickets)
        matrices = wire.decode_matrices(request.matrices, "matrices")
        n = matrices.shape[-1]
        basis = _basis(wire, request, "basis", n)
        wire.check_size(len(matrices) ** 2 * matrices.element_size())
        labels, residuals = self._compute.call(context, "", lambda: compare(basis, matrices))
        return objects_pb2.CompareComponentsResponse(component=labels, residuals=wire.encode(residuals))


def _dataset(session: Session, wire: Wire, spec: objects_pb2.DatasetSpec) -> _Plan:
    block, params = _component("dataset", spec.source, "dataset.source")
    params = registry.resolve_files(params, wire.limits.data_root, "dataset.source")
    tensors = {
        name: wire.decode(spec.tensors[name], f"dataset.tensors.{name}") for name in sorted(spec.tensors)
    }
    seed, device = spec.seed, session.device

    def make() -> Any:
        return block.make(
            params, seed=seed, device=device, tensors={name: t.to(device) for name, t in tensors.items()}
        )

    identity = [_plain_params(params), seed, {name: _hash(t) for name, t in tensors.items()}]
    return _Plan("dataset", block.kind, identity, make)


def _atlas(session: Session, wire: Wire, spec: objects_pb2.AtlasSpec) -> _Plan:
    match spec.WhichOneof("manifold"):
        case "planar":
            planar = _planar_atlas(spec.planar)
            return _Plan("atlas", "planar", [dataclasses.asdict(planar)], lambda: planar)
        case "sphere":
            sphere = _sphere_atlas(spec.sphere)
            return _Plan("atlas", "sphere", [dataclasses.asdict(sphere)], lambda: sphere)
        case "vectors":
            space = VectorSpace(spec.vectors.n, spec.vectors.vector_output)
            if not 1 <= space.n <= _LARGEST_N:
                raise InvalidInput(f"n is {space.n}", "atlas.vectors.n", f"from 1 to {_LARGEST_N}")
            return _Plan("atlas", "vectors", [dataclasses.asdict(space)], lambda: space)
        case "icosahedron":
            grid = IcosahedralGrid(spec.icosahedron.resolution)
            grid.check_resolution()
            return _Plan("atlas", "icosahedron", [dataclasses.asdict(grid)], lambda: grid)
        case _:
            raise InvalidInput("no manifold is set", "atlas", "planar, sphere, vectors or icosahedron")


def _planar_atlas(planar: objects_pb2.PlanarAtlas) -> PlanarAtlas:
    atlas = PlanarAtlas(
        tuple(Chart(chart.row, chart.col) for chart in planar.charts),
        planar.r_in,
        planar.r_out,
        planar.margin,
        _interpolation(planar.output_interpolation, "atlas.planar.output_interpolation"),
    )
    # The lattice comes with the dataset; what can be wrong without one is told now.
    check_radii(atlas, "planar")
    if min(min(c.row, c.col) for c in atlas.charts) < 0:
        raise InvalidInput("a chart's centre is negative", "atlas.charts", "pixels of the dataset's lattice")
    return atlas


def _sphere_atlas(sphere: objects_pb2.SphereAtlas) -> SphereAtlas:
    charts = tuple(SphereChart(chart.latitude, chart.longitude) for chart in sphere.charts)
    interpolation = _interpolation(sphere.output_interpolation, "atlas.sphere.output_interpolation")
    atlas = SphereAtlas(charts, sphere.r_in, sphere.r_out, sphere.margin, interpolation)
    check_radii(atlas, "sphere")
    atlas.check_centres()
    return atlas


def _interpolation(name: str, field: str) -> Interpolation:
    match name:
        case "" | "bilinear":
            return "bilinear"
        case "nearest":
            return "nearest"
        case _:
            raise InvalidInput(f"unknown interpolation {name!r}", field, "bilinear or nearest")


def _predictor(session: Session, wire: Wire, spec: objects_pb2.PredictorSpec) -> _Plan:
    from atlas_worker.predictors import make_predictor

    block, network = _component("predictor", spec.architecture, "predictor.architecture")
    if block.code and not wire.limits.trust_code:
        raise InvalidInput(
            f"a predictor of kind {block.kind} is code, which this worker does not execute",
            "predictor.architecture.kind",
            "a worker that was started with --trust-code",
            "if you trust its maker give --trust-code, or start the worker with ATLAS_TRUST_CODE=1",
        )
    network = registry.resolve_files(network, wire.limits.data_root, "predictor.architecture")
    _, recipe = _component("predictor_training", spec.training, "predictor.training")
    dataset, atlas = _field(session, spec, "predictor")
    epochs = _epochs(spec.epochs, 0, "predictor.epochs")
    seed, device = spec.seed, session.device
    architecture = spec.architecture.kind, dataclasses.asdict(network)
    training = spec.training.kind, plain(spec.training.params)
    tensors = {
        name: wire.decode(spec.tensors[name], f"predictor.tensors.{name}") for name in sorted(spec.tensors)
    }

    def make() -> Any:
        return make_predictor(
            architecture, training, dataset.value, atlas.value, epochs, seed, device, tensors
        )

    identity = [_plain_params(network), spec.training.kind, _plain_params(recipe), epochs, seed]
    if tensors:
        identity.append({name: _hash(t) for name, t in tensors.items()})
    if block.code:
        identity.append(_file_hash(getattr(network, "file", "")))
    return _Plan("predictor", spec.architecture.kind, identity, make, (dataset, atlas))


def _algebra(session: Session, wire: Wire, spec: objects_pb2.AlgebraSpec) -> _Plan:
    from atlas_worker.predictors import make_task

    block, params = _component("algebra_solver", spec.solver, "algebra.solver", "data_solver")
    k, epochs, seed = spec.k, _epochs(spec.epochs, 1, "algebra.epochs"), spec.seed
    if k == 0 and block.kind != "grassmann":
        raise InvalidInput(
            "k is 0", "algebra.k", "at least one generator", "let the solver grassmann find the number"
        )
    uses: tuple[Entry, ...]
    context: dict[str, Any]
    if block.role == "data_solver":
        if spec.predictor:
            raise InvalidInput(
                f"the solver {block.kind} looks at the data alone", "algebra.predictor", "", "leave it out"
            )
        dataset, atlas = uses = _field(session, spec, "algebra")
        context = {"dataset": dataset.value, "atlas": atlas.value, "device": session.device}
    else:
        predictor, dataset, atlas = uses = _inputs(session, spec, "algebra")
        task = make_task(predictor.value, dataset.value, atlas.value)
        if k > task.n**2:
            raise InvalidInput(f"k is {k}", "algebra.k", f"at most n² = {task.n**2} generators")
        context = {"task": task}

    def make() -> Any:
        return block.make(params, **context, k=k, epochs=epochs, seed=seed)

    return _Plan("algebra", block.kind, [_plain_params(params), k, epochs, seed], make, uses)


def _cosets(session: Session, wire: Wire, spec: objects_pb2.CosetSpec) -> _Plan:
    from atlas_worker.predictors import make_task

    block, params = _component("coset_solver", spec.solver, "cosets.solver")
    predictor, dataset, atlas = _inputs(session, spec, "cosets")
    epochs, seed = _epochs(spec.epochs, 1, "cosets.epochs"), spec.seed
    task = make_task(predictor.value, dataset.value, atlas.value)
    given = _basis(wire, spec, "identity", task.n, "cosets.")
    basis = given.float().to(session.device)

    def make() -> Any:
        return block.make(params, task=task, identity=basis, epochs=epochs, seed=seed)

    identity = [_plain_params(params), _hash(given), epochs, seed]
    return _Plan("cosets", block.kind, identity, make, (predictor, dataset, atlas))


_PLANS: Mapping[str, Callable[[Session, Wire, Any], _Plan]] = {
    "dataset": _dataset,
    "atlas": _atlas,
    "predictor": _predictor,
    "algebra": _algebra,
    "cosets": _cosets,
}


def _component(
    role: registry.Role, component: objects_pb2.Component, field: str, *others: registry.Role
) -> tuple[registry.Block, Any]:
    block = registry.find(role, component.kind, field, *others)
    return block, registry.parse_params(block.params, plain(component.params), field)


def _field(session: Session, spec: Any, role: str) -> tuple[Entry, Entry]:
    """Dataset and atlas, the one on the other's lattice."""
    dataset = session.find(spec.dataset, f"{role}.dataset", "dataset")
    atlas = session.find(spec.atlas, f"{role}.atlas", "atlas")
    atlas.value.check(dataset.value.inputs.shape)
    return dataset, atlas


def _inputs(session: Session, spec: Any, role: str) -> tuple[Entry, Entry, Entry]:
    """Predictor, dataset and atlas of a solver."""
    predictor = session.find(spec.predictor, f"{role}.predictor", "predictor")
    _check_whole(predictor)
    dataset, atlas = _field(session, spec, role)
    return predictor, dataset, atlas


def _basis(wire: Wire, message: Any, name: str, n: int, prefix: str = "") -> Tensor:
    """A basis ``[k, n, n]``; left out means k = 0."""
    if not message.HasField(name):
        return torch.zeros(0, n, n, dtype=torch.float64)
    return wire.decode_matrices(getattr(message, name), prefix + name, n)


def _epochs(epochs: int, least: int, field: str) -> int:
    if epochs < least:
        raise InvalidInput(f"epochs is {epochs}", field, f"at least {least}")
    return epochs


def _plain_params(params: Any) -> list[Any]:
    return [type(params).__name__, dataclasses.asdict(params)]


def _hash(tensor: Tensor) -> list[Any]:
    digest = hashlib.blake2b(raw_bytes(tensor.contiguous()), digest_size=16).hexdigest()
    return [str(tensor.dtype), list(tensor.shape), digest]


def _file_hash(path: str) -> str:
    """Of a file's bytes; of none where it cannot be read, which is refused when it is wanted."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""


def _trainable(session: Session, handle: str) -> Entry:
    entry = session.find(handle, "handle")
    if not isinstance(entry.value, Trainable):
        raise InvalidInput(f"{handle} has no state beyond its spec", "handle", "an object that advances")
    return entry


def _check_whole(entry: Entry) -> None:
    if entry.lost:
        raise NotReady(
            f"{entry.handle} lost its state in a failure",
            "handle",
            "",
            "restore a snapshot or create it again",
        )


def _check_wanted(context: grpc.ServicerContext) -> None:
    if not context.is_active():
        raise Cancelled("the client is gone")


def _check_invertible(matrices: Tensor) -> None:
    """Raise ``InvalidInput`` for the first of ``[m, n, n]`` that is singular in float32, in which predictors compute."""
    single = matrices.float()
    finite = torch.isfinite(single).flatten(1).all(1)
    rank = torch.linalg.matrix_rank(single.nan_to_num(0.0, 0.0, 0.0))
    bad = (~finite | (rank < matrices.shape[-1])).nonzero()
    if len(bad):
        raise InvalidInput(
            f"matrix {int(bad[0])} is singular or too large", "matrices", "invertible matrices, in float32"
        )


def _check_fit(predictor: Entry, dataset: Entry, atlas: Entry) -> None:
    """Raise ``InvalidInput`` unless a predictor can work on these charts of this dataset as on its own."""
    own_dataset, own = predictor.uses
    shape, expected = (list(d.value.inputs.shape[1:]) for d in (dataset, own_dataset))
    if shape != expected:
        raise InvalidInput(
            f"a sample of the dataset has shape {shape}", "dataset", f"{expected}, as the predictor's own"
        )
    if atlas.origin.kind != own.origin.kind:
        raise InvalidInput(
            f"the atlas is {atlas.origin.kind}", "atlas", f"{own.origin.kind}, as the predictor's own"
        )
    if _charts(atlas.value) != _charts(own.value):
        raise InvalidInput(
            f"the atlas has {_charts(atlas.value)}", "atlas", f"{_charts(own.value)}, as the predictor's own"
        )
    atlas.value.check(dataset.value.inputs.shape)


def _charts(atlas: Atlas) -> str:
    """In words: what an atlas must have in common with another for a predictor to work on both."""
    if isinstance(atlas, VectorSpace):
        moved = "vectors" if atlas.vector_output else "invariants"
        return f"all of R^{atlas.n}, with {moved} for outputs"
    if isinstance(atlas, IcosahedralGrid):
        return f"a grid of resolution {atlas.resolution}"
    return f"{len(atlas)} charts of radius {atlas.r_in}"


def _change(session: Session, entry: Entry, change: Callable[[], None]) -> None:
    """Change an object outside a job; as it was if that fails."""
    session.check_idle(entry)
    tensors, metadata = entry.value.state()
    before = {name: t.detach().clone() for name, t in tensors.items()}, dict(metadata)
    try:
        change()
    except Exception:
        entry.lost = True
        entry.value.load_state(*before)
        entry.lost = False
        raise
    entry.lost = False
    entry.metrics = {}


def _samples(inputs: Tensor, start: int, count: int, field: str) -> slice:
    prefix = f"{field}." if field else ""
    if start >= len(inputs):
        raise InvalidInput(
            f"start is {start}", f"{prefix}start", f"less than the {len(inputs)} samples there are"
        )
    if not 0 < count <= len(inputs) - start:
        raise InvalidInput(f"count is {count}", f"{prefix}count", f"1 to {len(inputs) - start}")
    return slice(start, start + count)


def _plain_facts(atlas: Atlas) -> dict[str, Any]:
    """Numbers and flags of an atlas."""
    fields = dataclasses.asdict(atlas)
    return {name: value for name, value in fields.items() if isinstance(value, int | bool)}


def _info(entry: Entry) -> objects_pb2.ObjectInfo:
    value = entry.value
    facts: dict[str, Any] = {}
    match entry.role:
        case "dataset":
            try:
                shapes = {"inputs": list(value.inputs.shape), "targets": list(value.targets.shape)}
                facts = {**shapes, **value.facts}
            except NotReady:
                pass  # not generated yet
        case "atlas":
            facts = {"charts": len(value), **_plain_facts(value)}
        case "predictor":
            facts = dict(value.facts)
    if entry.metrics:
        facts["metrics"] = dict(entry.metrics)
    struct = struct_pb2.Struct()
    struct.update(facts)
    advances = isinstance(value, Trainable)
    return objects_pb2.ObjectInfo(
        handle=entry.handle,
        role=entry.role,
        kind=entry.origin.kind,
        epoch=value.epoch if advances else 0,
        total_epochs=value.total_epochs if advances else 0,
        memory_bytes=value.memory_bytes if advances else 0,
        facts=struct,
    )
