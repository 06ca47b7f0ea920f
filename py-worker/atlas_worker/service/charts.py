"""Questions about the charts of a predictor: where it is equivariant, and how far it feels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import grpc
import torch
from torch import Tensor

from atlas_worker.errors import Cancelled, InvalidInput
from atlas_worker.gen.atlas.v1 import objects_pb2
from atlas_worker.symmetry import action_on, inputs_on, manifold_of

from .limits import Limits
from .sessions import Entry, Session, Sessions
from .specs import check_whole
from .tensor_codec import TensorCodec

T = TypeVar("T")


class ChartQueries:
    """The part of ``atlas.v1.ObjectService`` that is about charts of fields."""

    def __init__(self, sessions: Sessions, limits: Limits) -> None:
        self._sessions, self._limits = sessions, limits

    def _codec(self, session: Session) -> TensorCodec:
        return TensorCodec(self._limits, session.tickets, session.id)

    def _work(self, context: grpc.ServicerContext, session: Session, work: Callable[[], T]) -> T:
        with session.held():
            return session.compute.call(context, session.id, work)

    def MeasureCharts(
        self, request: objects_pb2.MeasureChartsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.MeasureChartsResponse:
        """Measure the equivariance of each chart of a predictor."""
        from atlas_worker.predictors import make_objective
        from atlas_worker.symmetry.charts import constant_share, measure_charts

        session = self._sessions.get(request.session_id)
        entry = _on_fields(session, request.handle, request.samples)
        dataset, atlas = (used.value for used in entry.uses)
        matrices = self._codec(session).decode_matrices(
            request.matrices, "matrices", action_on(atlas).n
        )
        if not len(matrices):
            raise InvalidInput("there are no matrices", "matrices.shape", "at least one matrix")
        check_invertible(matrices)

        def measure() -> objects_pb2.MeasureChartsResponse:
            check_whole(entry)
            found = measure_charts(
                make_objective(entry.value, dataset, atlas),
                matrices,
                request.samples,
                request.seed,
                lambda: check_wanted(context),
            )
            constant = constant_share(dataset.inputs, atlas, request.window)
            columns = (found.error, found.low, found.high, found.interpolation, constant)
            return objects_pb2.MeasureChartsResponse(
                charts=[
                    objects_pb2.ChartEquivariance(
                        error=error,
                        low=low,
                        high=high,
                        interpolation=interpolation,
                        constant=share,
                        parts=parts,
                        spread=spread,
                    )
                    for error, low, high, interpolation, share, parts, spread in zip(
                        *(c.tolist() for c in (*columns, found.parts, found.spread)), strict=True
                    )
                ]
            )

        return self._work(context, session, measure)

    def MeasureReach(
        self, request: objects_pb2.MeasureReachRequest, context: grpc.ServicerContext
    ) -> objects_pb2.MeasureReachResponse:
        """Measure how far a predictor's output feels the input."""
        from atlas_worker.symmetry.charts import reach_profile

        session = self._sessions.get(request.session_id)
        entry = _on_fields(session, request.handle, request.samples)
        dataset, atlas = (used.value for used in entry.uses)
        predictor = entry.value

        def measure() -> objects_pb2.MeasureReachResponse:
            check_whole(entry)
            felt = reach_profile(
                inputs_on(atlas, dataset, predictor.halo, margin=0, device=predictor.device),
                predictor.freeze,
                request.samples,
                request.seed,
                logits=predictor.loss != "l1",
                check=lambda: check_wanted(context),
            )
            return objects_pb2.MeasureReachResponse(felt=felt.tolist())

        return self._work(context, session, measure)


def _on_fields(session: Session, handle: str, samples: int) -> Entry:
    """Find a predictor on charts of fields, and check the number of samples."""
    entry = session.find(handle, "handle", "predictor")
    if manifold_of(entry.uses[1].value) != "planar":
        raise InvalidInput(
            "only fields have charts to compare", "handle", "a predictor on charts of fields"
        )
    if samples < 1:
        raise InvalidInput(f"samples is {samples}", "samples", "at least 1")
    return entry


def check_wanted(context: grpc.ServicerContext) -> None:
    """Raise ``Cancelled`` if the client is gone."""
    if not context.is_active():
        raise Cancelled("the client is gone")


def check_invertible(matrices: Tensor) -> None:
    """Raise ``InvalidInput`` for a matrix that is singular in float32, the predictors' type.

    The units of the features do not matter: rows and columns are brought to the same size first. So
    a translation by 100,000 is as good as one by 1.
    """
    single = matrices.float()
    finite = torch.isfinite(single).flatten(1).all(1)
    balanced = single.nan_to_num(0.0, 0.0, 0.0).double()
    for axis in (2, 1, 2, 1):
        size = balanced.abs().amax(axis, keepdim=True)
        balanced = balanced / torch.where(size > 0, size, 1)
    rank = torch.linalg.matrix_rank(balanced, rtol=torch.finfo(torch.float32).eps)
    bad = (~finite | (rank < matrices.shape[-1])).nonzero()
    if len(bad):
        raise InvalidInput(
            f"matrix {int(bad[0])} is singular or too large",
            "matrices",
            "matrices that are invertible in float32",
        )
