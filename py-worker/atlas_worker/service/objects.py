"""``atlas.v1.ObjectService``: makes objects from specs and answers questions about them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import grpc
import torch
from google.protobuf.message import Message
from torch import Tensor

from atlas_worker.catalogue import current_kind
from atlas_worker.datasets.fingerprint import fingerprint
from atlas_worker.errors import InvalidInput, NotReady
from atlas_worker.gen.atlas.v1 import objects_pb2
from atlas_worker.symmetry import (
    Atlas,
    IcosahedralGrid,
    VectorSpace,
    action_on,
    ambient_of,
)
from atlas_worker.symmetry.evidence import Lost
from atlas_worker.trainable import Trainable

from . import snapshots
from .charts import ChartQueries, check_invertible, check_wanted
from .devices import check_memory
from .file_reports import describe_file
from .sessions import Entry, Session
from .specs import basis, check_whole, file_path, plan
from .status import LESS_MEMORY
from .tensor_codec import TensorCodec

T = TypeVar("T")
M = TypeVar("M", bound=Message)

_MEASURED_BYTES = 38
"""Bytes of a ``MatrixEquivariance`` in its message."""
_EVIDENCE_BYTES = 128
"""Bytes of a ``SkillLost`` in its message, with some refits."""
_FINGERPRINTS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""Fingerprints of datasets, which are computed once."""
_FRAMES = 256
"""Most frames of a moved sample."""
_LAYER_BYTES = 256
"""Bytes of an ``AuditedLayer`` in its message, without errors and floors."""
_LARGEST_SIZE = 1.0
"""Largest size of a move at which a direction may be judged."""


class ObjectService(ChartQueries):
    """Implements ``atlas.v1.ObjectService``; ``objects.proto`` documents the methods.

    Work on tensors is done on the compute thread of the session's device, between the epochs of
    running jobs.
    """

    def CreateObject(
        self, request: objects_pb2.CreateObjectRequest, context: grpc.ServicerContext
    ) -> objects_pb2.CreateObjectResponse:
        """Make an object from a spec, or return the object that the same request made before."""
        session = self._sessions.get(request.session_id)
        codec = self._codec(session)

        def create() -> Entry:
            planned = plan(session, codec, request)
            origin = planned.origin()
            if (made := session.made_by(request.request_id, origin)) is not None:
                return made
            session.check_room()
            value = planned.make()
            type = planned.type
            if isinstance(value, Trainable) and value.total_epochs:
                check_memory(session.device, value.memory_bytes, type, LESS_MEMORY[type])
            # Only an object with epochs whose state is not copied (see Job._keep) is ever remade.
            # The closure holds uploaded data.
            remake = planned.make if type == "dataset" and value.total_epochs else None
            return session.add(
                origin,
                planned.block.kind,
                value,
                remake,
                planned.uses,
                request.request_id,
                planned.given,
            )

        entry = self._work(context, session, create)
        return objects_pb2.CreateObjectResponse(object=_info(entry))

    def DeleteObject(
        self, request: objects_pb2.DeleteObjectRequest, context: grpc.ServicerContext
    ) -> objects_pb2.DeleteObjectResponse:
        """Delete an object."""
        self._sessions.get(request.session_id).delete(request.handle)
        return objects_pb2.DeleteObjectResponse()

    def ListObjects(
        self, request: objects_pb2.ListObjectsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.ListObjectsResponse:
        """Describe all objects of a session."""
        session = self._sessions.get(request.session_id)
        with session.lock:
            entries = list(session.entries.values())
        return objects_pb2.ListObjectsResponse(objects=[_info(entry) for entry in entries])

    def GetSnapshot(
        self, request: objects_pb2.GetSnapshotRequest, context: grpc.ServicerContext
    ) -> objects_pb2.GetSnapshotResponse:
        """Return an object's state as a safetensors file."""
        session = self._sessions.get(request.session_id)
        entry = _trainable(session, request.handle)
        codec = self._codec(session)

        def freeze() -> objects_pb2.GetSnapshotResponse:
            check_whole(entry)
            state = entry.value.state()
            codec.check_size(snapshots.size(state))
            return objects_pb2.GetSnapshotResponse(
                snapshot=codec.encode(snapshots.freeze(state, entry.origin)),
                epoch=entry.value.epoch,
            )

        return self._work(context, session, freeze)

    def RestoreSnapshot(
        self, request: objects_pb2.RestoreSnapshotRequest, context: grpc.ServicerContext
    ) -> objects_pb2.RestoreSnapshotResponse:
        """Put an object into a saved state."""
        session = self._sessions.get(request.session_id)
        entry = _trainable(session, request.handle)
        tensors, metadata, origin = snapshots.thaw(
            self._codec(session).decode(request.snapshot, "snapshot"), "snapshot"
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
        """Load weights into a predictor."""
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        tensors, _, origin = snapshots.thaw(
            self._codec(session).decode(request.weights, "weights"), "weights"
        )
        if origin is not None and origin.type != "predictor":
            raise InvalidInput(
                f"a snapshot of {origin.type} {current_kind(origin.kind)!r}",
                "weights",
                "weights of a predictor",
            )
        self._work(
            context,
            session,
            lambda: _change(session, entry, lambda: entry.value.load_weights(tensors)),
        )
        return objects_pb2.LoadWeightsResponse(object=_info(entry))

    def InspectFile(
        self, request: objects_pb2.InspectFileRequest, context: grpc.ServicerContext
    ) -> objects_pb2.InspectFileResponse:
        """Say what is in a file."""
        from atlas_worker.datasets.inspection import inspect

        session = self._sessions.get(request.session_id)
        path = file_path(session, request.path, "path")
        # Not on the compute thread: reading a large file must not hold up jobs.
        with session.held():
            report = inspect(
                path,
                list(request.members),
                request.axes,
                lambda: check_wanted(context),
                numbers=not request.without_numbers,
            )
        return describe_file(report)

    def ReadDataset(
        self, request: objects_pb2.ReadDatasetRequest, context: grpc.ServicerContext
    ) -> objects_pb2.ReadDatasetResponse:
        """Return some samples of a dataset."""
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "dataset")
        codec = self._codec(session)

        def read() -> objects_pb2.ReadDatasetResponse:
            inputs, targets = entry.value.inputs, entry.value.targets
            part = _samples(inputs, request.start, request.count, "")
            return objects_pb2.ReadDatasetResponse(
                inputs=codec.encode(inputs[part]), targets=codec.encode(targets[part])
            )

        return self._work(context, session, read)

    def CompareDatasets(
        self, request: objects_pb2.CompareDatasetsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.CompareDatasetsResponse:
        """Count the samples that two datasets share."""
        from atlas_worker.datasets.checks import count_shared

        session = self._sessions.get(request.session_id)
        train = session.find(request.train, "train", "dataset").value
        test = session.find(request.test, "test", "dataset").value
        shared = self._work(context, session, lambda: count_shared(train.inputs, test.inputs))
        return objects_pb2.CompareDatasetsResponse(shared=shared)

    def Predict(
        self, request: objects_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> objects_pb2.PredictResponse:
        """Return a predictor's outputs, or the classes of pixels, on crops or samples."""
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        codec = self._codec(session)
        crops: Tensor | None = None
        match request.WhichOneof("input"):
            case "crops":
                crops = codec.decode(request.crops, "crops")
                if (
                    crops.dtype not in (torch.float32, torch.float64)
                    or crops.dim() < 3
                    or len(crops) == 0
                ):
                    raise InvalidInput(
                        f"crops are {crops.dtype} {list(crops.shape)}",
                        "crops",
                        "float32 or float64 [batch, charts, ...]",
                    )
            case None:
                raise InvalidInput("neither crops nor samples are set", "input", "crops or samples")
        dataset = _named(session, request.samples, "dataset", "samples.", entry.uses[0]).value

        def predict() -> objects_pb2.PredictResponse:
            check_whole(entry)
            if crops is None:
                every = _samples(
                    dataset.inputs, request.samples.start, request.samples.count, "samples"
                )
            else:
                every = slice(0, len(crops))
            count, outputs = every.stop - every.start, list[Tensor]()
            for start in range(every.start, every.stop, entry.value.max_batch):
                stop = min(start + entry.value.max_batch, every.stop)
                x = (
                    entry.value.crops(torch.arange(start, stop), dataset)
                    if crops is None
                    else crops[start:stop]
                )
                output = entry.value.predict(x.to(session.device, torch.float32))
                if request.classes:
                    output = entry.value.predict_classes(output, dataset)
                if not outputs:
                    codec.check_size(output.numel() * output.element_size() * count // len(output))
                outputs.append(output)
            return objects_pb2.PredictResponse(outputs=codec.encode(torch.cat(outputs)))

        return self._work(context, session, predict)

    def ScorePredictor(
        self, request: objects_pb2.ScorePredictorRequest, context: grpc.ServicerContext
    ) -> objects_pb2.ScorePredictorResponse:
        """Score a classifier on a dataset."""
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        dataset = session.find(request.dataset, "dataset", "dataset")

        def score() -> objects_pb2.ScorePredictorResponse:
            check_whole(entry)
            scores = entry.value.scores(dataset.value, lambda: check_wanted(context))
            return objects_pb2.ScorePredictorResponse(scores=scores)

        return self._work(context, session, score)

    def MeasureEquivariance(
        self, request: objects_pb2.MeasureEquivarianceRequest, context: grpc.ServicerContext
    ) -> objects_pb2.MeasureEquivarianceResponse:
        """Measure a predictor's equivariance under given matrices."""
        from atlas_worker.predictors import make_objective
        from atlas_worker.symmetry.measure import measure_at

        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        dataset, atlas = entry.uses
        n = action_on(atlas.value).n  # the same for every other atlas that is accepted
        matrices = self._codec(session).decode_matrices(request.matrices, "matrices", n)
        if not len(matrices):
            raise InvalidInput(
                "there are no matrices", "matrices.shape", f"[m, {n}, {n}] with m at least 1"
            )
        # The answer is one message. Its size is checked before anything is computed.
        TensorCodec(self._limits, session.tickets).check_size(len(matrices) * _MEASURED_BYTES)
        if request.samples < 1:
            raise InvalidInput(f"samples is {request.samples}", "samples", "at least 1")
        atlas = _named(session, request, "atlas", "", atlas)
        dataset = _named(session, request, "dataset", "", dataset)

        def measure() -> objects_pb2.MeasureEquivarianceResponse:
            check_whole(entry)
            check_invertible(matrices)
            _check_fit(entry, dataset, atlas)
            objective = make_objective(entry.value, dataset.value, atlas.value)
            at = measure_at(
                objective, matrices, request.samples, request.seed, lambda: check_wanted(context)
            )
            rows = torch.stack(
                [at.loss, at.distance, at.relative_error, at.interpolation_error], 1
            ).tolist()
            return objects_pb2.MeasureEquivarianceResponse(
                measured=[
                    objects_pb2.MatrixEquivariance(
                        loss=loss,
                        distance=distance,
                        relative_error=relative,
                        interpolation_error=interpolation_error,
                    )
                    for loss, distance, relative, interpolation_error in rows
                ]
            )

        return self._work(context, session, measure)

    def MeasureEvidence(
        self, request: objects_pb2.MeasureEvidenceRequest, context: grpc.ServicerContext
    ) -> objects_pb2.MeasureEvidenceResponse:
        """Measure the skill that a predictor loses along directions and at matrices."""
        from atlas_worker.predictors.supervised import make_subject
        from atlas_worker.symmetry.evidence import Judges, collect

        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        own, fitted = entry.uses
        atlas = _named(session, request, "atlas", "", fitted)
        n = action_on(atlas.value).n
        codec = self._codec(session)
        directions = basis(codec, request, "directions", n)
        matrices = basis(codec, request, "matrices", n)
        sizes = list(request.sizes)
        if not all(0 < size <= _LARGEST_SIZE for size in sizes):
            raise InvalidInput(f"sizes are {sizes}", "sizes", f"above 0, at most {_LARGEST_SIZE}")
        if request.samples < 1:
            raise InvalidInput(f"samples is {request.samples}", "samples", "at least 1")
        rows = len(directions) * (len(sizes) + request.half_turns) + len(matrices)
        TensorCodec(self._limits, session.tickets).check_size(rows * _EVIDENCE_BYTES)
        dataset = _named(session, request, "dataset", "", own)
        refits = [
            session.find(h, f"refits[{i}]", "predictor") for i, h in enumerate(request.refits)
        ]

        def measure() -> objects_pb2.MeasureEvidenceResponse:
            for one in (entry, *refits):
                check_whole(one)
                _check_fit(one, dataset, atlas)
            check_invertible(matrices)
            subject, held_out = make_subject(
                entry.value,
                None if dataset is own else dataset.value,
                [refit.value for refit in refits],
                own.value,
                atlas.value,
            )
            weights = [one.value.digest() for one in (entry, *refits)]
            of = dataset.handle, atlas.handle, *weights
            if entry.judges is None or entry.judges[0] != of:
                entry.judges = of, Judges()
            evidence = collect(
                subject,
                directions,
                matrices,
                sizes,
                request.samples,
                request.seed,
                lambda: check_wanted(context),
                half_turns=request.half_turns,
                unused=request.unused,
                judges=entry.judges[1],
            )
            unused = evidence.unused
            return objects_pb2.MeasureEvidenceResponse(
                skill=evidence.skill.value,
                skill_error=evidence.skill.error,
                scenes=evidence.scenes,
                held_out=held_out,
                targets=subject.targets is not None,
                directions=[
                    objects_pb2.DirectionEvidence(sizes=map(_skill_lost, row))
                    for row in evidence.directions
                ],
                matrices=map(_skill_lost, evidence.matrices),
                refit_skills=evidence.refit_skills,
                learnable=evidence.learnable,
                unused=None if unused is None else codec.encode(unused.projections),
                without=[
                    objects_pb2.SkillLost(
                        lost=lost.value, error=lost.error, size=1, reach=1, least=math.nan
                    )
                    for lost in ([] if unused is None else unused.lost)
                ],
            )

        return self._work(context, session, measure)

    def MoveSample(
        self, request: objects_pb2.MoveSampleRequest, context: grpc.ServicerContext
    ) -> objects_pb2.MoveSampleResponse:
        """Move one sample along a generator, and predict from each of its frames."""
        from atlas_worker.predictors.supervised import make_subject
        from atlas_worker.symmetry.motion import move

        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        own, atlas = entry.uses
        codec = self._codec(session)
        direction = basis(codec, request, "direction", action_on(atlas.value).n)
        if len(direction) != 1:
            raise InvalidInput(f"there are {len(direction)} directions", "direction", "one")
        lengths = list(request.lengths)
        if not 1 <= len(lengths) <= _FRAMES or not all(map(math.isfinite, lengths)):
            raise InvalidInput(
                f"lengths are {lengths}", "lengths", f"1 to {_FRAMES} finite numbers"
            )
        dataset = _named(session, request, "dataset", "", own)

        def frames() -> objects_pb2.MoveSampleResponse:
            check_whole(entry)
            _check_fit(entry, dataset, atlas)
            subject, _ = make_subject(
                entry.value, None if dataset is own else dataset.value, [], own.value
            )
            motion = move(subject, direction[0], lengths, request.sample, request.chart)
            return objects_pb2.MoveSampleResponse(
                inputs=codec.encode(motion.inputs),
                predicted=codec.encode(motion.predicted),
                expected=codec.encode(motion.expected),
                classes=motion.classes,
                apart=motion.apart,
            )

        return self._work(context, session, frames)

    def AuditPredictor(
        self, request: objects_pb2.AuditPredictorRequest, context: grpc.ServicerContext
    ) -> objects_pb2.AuditPredictorResponse:
        """Find the layer in which a predictor loses an equivariance."""
        from atlas_worker.predictors.auditing import audit_predictor

        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", "predictor")
        dataset, atlas = entry.uses
        n = action_on(atlas.value).n
        matrices = self._codec(session).decode_matrices(request.matrices, "matrices", n)
        if not len(matrices):
            raise InvalidInput(
                "there are no matrices", "matrices.shape", f"[m, {n}, {n}] with m at least 1"
            )
        if request.samples < 1:
            raise InvalidInput(f"samples is {request.samples}", "samples", "at least 1")
        if not 0 <= request.accuracy < 1:
            raise InvalidInput(
                f"accuracy is {request.accuracy}", "accuracy", "at least 0, less than 1"
            )
        check_size = TensorCodec(self._limits, session.tickets).check_size

        def measure() -> objects_pb2.AuditPredictorResponse:
            check_whole(entry)
            check_invertible(matrices)
            found, kinds, drawn = audit_predictor(
                entry.value,
                dataset.value,
                matrices,
                request.samples,
                request.seed,
                request.accuracy,
                lambda: check_wanted(context),
            )
            check_size(len(found.layers) * (_LAYER_BYTES + 16 * len(matrices)))
            return objects_pb2.AuditPredictorResponse(
                sizes=found.sizes,
                errors=found.errors,
                floors=found.floors,
                judged=found.judged,
                broken=found.broken,
                layers=[
                    objects_pb2.AuditedLayer(kind=kinds.get(layer.name, ""), **vars(layer))
                    for layer in found.layers
                ],
                unread=found.unread,
                worst=[
                    objects_pb2.AuditedSample(sample=int(drawn[i]), error=error)
                    for i, error in found.worst
                ],
            )

        return self._work(context, session, measure)

    def GetAlgebra(
        self, request: objects_pb2.GetAlgebraRequest, context: grpc.ServicerContext
    ) -> objects_pb2.GetAlgebraResponse:
        """Return the report of an algebra solver."""
        return self._report(request, context, "algebra", objects_pb2.GetAlgebraResponse)

    def GetCosets(
        self, request: objects_pb2.GetCosetsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.GetCosetsResponse:
        """Return the report of a coset solver."""
        return self._report(request, context, "cosets", objects_pb2.GetCosetsResponse)

    def _report(
        self, request: Any, context: grpc.ServicerContext, type: str, response: Callable[..., M]
    ) -> M:
        """Return a solver's report as the message whose fields have the same names."""
        session = self._sessions.get(request.session_id)
        entry = session.find(request.handle, "handle", type)
        codec = self._codec(session)

        def read() -> M:
            check_whole(entry)
            return codec.encode_report(entry.value.report(), response())

        return self._work(context, session, read)

    def CompareComponents(
        self, request: objects_pb2.CompareComponentsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.CompareComponentsResponse:
        """Tell which matrices lie in one component of a group."""
        from atlas_worker.symmetry.components import compare

        codec = TensorCodec(self._limits, self._sessions.tickets)
        matrices = codec.decode_matrices(request.matrices, "matrices")
        n = matrices.shape[-1]
        algebra = basis(codec, request, "basis", n)
        codec.check_size(len(matrices) ** 2 * matrices.element_size())
        labels, residuals = self._sessions.queues.of(torch.device("cpu")).call(
            context, "", lambda: compare(algebra, matrices)
        )
        return objects_pb2.CompareComponentsResponse(
            component=labels, residuals=codec.encode(residuals)
        )


def _fingerprint(entry: Entry) -> str:
    """Return the fingerprint of a dataset, which is computed once."""
    value = entry.value
    known = _FINGERPRINTS.get(value)
    if known is None:
        known = _FINGERPRINTS[value] = fingerprint(value.inputs, value.targets)
    return known


def _skill_lost(lost: Lost) -> objects_pb2.SkillLost:
    return objects_pb2.SkillLost(
        length=lost.length,
        size=lost.size,
        lost=lost.skill_lost.value,
        error=lost.skill_lost.error,
        floor=lost.floor,
        reach=lost.reach,
        disagreement=lost.disagreement,
        refits=lost.refits,
        planted=lost.planted,
        least=lost.least,
        half_turn=lost.half_turn,
    )


def _trainable(session: Session, handle: str) -> Entry:
    entry = session.find(handle, "handle")
    if not isinstance(entry.value, Trainable):
        raise InvalidInput(
            f"{handle} has no state beyond its spec", "handle", "an object that has epochs"
        )
    return entry


def _named(session: Session, message: Any, type: str, prefix: str, own: Entry) -> Entry:
    """Return the object in a message's optional field ``type``, or ``own`` if it is unset."""
    if not message.HasField(type):
        return own
    return session.find(getattr(message, type), f"{prefix}{type}", type)


def _check_fit(predictor: Entry, dataset: Entry, atlas: Entry) -> None:
    """Raise ``InvalidInput`` unless a predictor can work with this dataset and atlas."""
    own_dataset, own = predictor.uses
    shape, expected = (list(d.value.inputs.shape[1:]) for d in (dataset, own_dataset))
    if shape != expected:
        raise InvalidInput(
            f"a sample of the dataset has shape {shape}",
            "dataset",
            f"{expected}, like the samples of the predictor's dataset",
        )
    if atlas.kind != own.kind:
        raise InvalidInput(
            f"the atlas is of kind {atlas.kind}",
            "atlas",
            f"an atlas of kind {own.kind}, like the predictor's",
        )
    if _charts(atlas.value) != _charts(own.value):
        raise InvalidInput(
            f"the atlas has {_charts(atlas.value)}",
            "atlas",
            f"{_charts(own.value)}, like the predictor's atlas",
        )
    atlas.value.check(dataset.value.inputs.shape)


def _charts(atlas: Atlas) -> str:
    """Describe what two atlases must have in common for a predictor to work on both."""
    if isinstance(atlas, VectorSpace):
        moved = "vectors" if atlas.vector_output else "invariants"
        return f"all of R^{atlas.ambient.n}, with {moved} for outputs"
    if isinstance(atlas, IcosahedralGrid):
        return f"a grid of resolution {atlas.resolution}"
    return f"{len(atlas)} charts of radius {atlas.r_in}"


def _change(session: Session, entry: Entry, change: Callable[[], None]) -> None:
    """Change an object outside a job. If that fails, restore its state."""
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
            f"start is {start}", f"{prefix}start", f"less than {len(inputs)}, the number of samples"
        )
    if not 0 < count <= len(inputs) - start:
        raise InvalidInput(f"count is {count}", f"{prefix}count", f"1 to {len(inputs) - start}")
    return slice(start, start + count)


def _plain_facts(atlas: Atlas) -> dict[str, Any]:
    """Return the numbers and flags of an atlas, and the groups that act."""
    fields = dataclasses.asdict(atlas)
    facts: dict[str, Any] = {
        name: value
        for name, value in fields.items()
        if isinstance(value, int | bool) and not name.endswith("features")
    }
    if not isinstance(atlas, IcosahedralGrid):
        facts["groups"] = [dataclasses.asdict(f) for f in ambient_of(atlas).factors]
    return facts


def _info(entry: Entry) -> objects_pb2.ObjectInfo:
    value = entry.value
    advances = isinstance(value, Trainable)
    info = objects_pb2.ObjectInfo(
        handle=entry.handle,
        type=f"OBJECT_TYPE_{entry.type.upper()}",
        kind=entry.kind,
        epoch=value.epoch if advances else 0,
        total_epochs=value.total_epochs if advances else 0,
        memory_bytes=value.memory_bytes if advances else 0,
    )
    facts: dict[str, Any] = {}
    match entry.type:
        case "dataset":
            with suppress(NotReady):  # not generated yet
                shapes = value.inputs.shape, value.targets.shape
                info.dataset.inputs_shape.extend(shapes[0])
                info.dataset.targets_shape.extend(shapes[1])
                facts = {**value.facts, "sha256": _fingerprint(entry)}
                if value.warnings:
                    facts["warnings"] = list(value.warnings)
        case "atlas":
            facts = {"charts": len(value), **_plain_facts(value)}
        case "predictor":
            facts = dict(value.facts)
    if entry.metrics:
        facts["metrics"] = dict(entry.metrics)
    info.facts.update(facts)
    return info
