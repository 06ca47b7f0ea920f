"""Turns what was found in a file into messages."""

from __future__ import annotations

from atlas_worker.datasets.inspection import Found, Report
from atlas_worker.gen.atlas.v1 import objects_pb2


def describe_file(report: Report) -> objects_pb2.InspectFileResponse:
    """Make the message of a report."""
    return objects_pb2.InspectFileResponse(
        format=report.format,
        members=[_member(found) for found in report.found],
        warnings=report.warnings,
    )


def _member(found: Found) -> objects_pb2.FileMember:
    m, layout, numbers = found.member, found.layout, found.summary
    message = objects_pb2.FileMember(
        name=m.name,
        shape=m.shape,
        dtype=m.dtype,
        dims=[name or "" for name in m.dims],
        units=m.units,
        columns=m.columns,
        coordinate=m.coordinate,
        part_of=m.part_of,
        problem=m.problem or found.trouble,
    )
    if layout is not None:
        message.layout.CopyFrom(
            objects_pb2.FileLayout(
                axes=layout.axes,
                reason=layout.reason,
                readings=layout.readings,
                features=layout.features,
                features_reason=layout.features_reason,
                members=layout.members,
            )
        )
    if numbers is not None:
        message.numbers.CopyFrom(
            objects_pb2.NumberSummary(
                samples=numbers.samples,
                minimum=numbers.minimum,
                maximum=numbers.maximum,
                missing=numbers.missing,
                infinite=numbers.infinite,
                first=numbers.first,
                names=numbers.names,
                minima=numbers.minima,
                maxima=numbers.maxima,
                constant=numbers.constant,
                rank=numbers.rank if numbers.rank >= 0 else None,
                whole=numbers.whole,
            )
        )
    return message
