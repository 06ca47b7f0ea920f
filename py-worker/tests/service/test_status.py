"""Errors as ``google.rpc.Status``: proto/README.md's table of reasons agrees with the code."""

import re
from pathlib import Path

import pytest
import torch
from google.rpc import code_pb2

from atlas_worker import errors
from atlas_worker.gen.atlas.v1 import error_pb2
from atlas_worker.service.status import explain, read

README = Path(__file__).parents[3] / "proto/README.md"
RAISED: dict[str, BaseException] = {
    "INVALID_INPUT": errors.InvalidInput("no"),
    "FILE_MISSING": errors.FileMissing("no"),
    "UNAUTHENTICATED": errors.Unauthenticated("no"),
    "NOT_FOUND": errors.NotFound("no"),
    "NOT_READY": errors.NotReady("no"),
    "LIMIT_EXCEEDED": errors.LimitExceeded("no"),
    "OUT_OF_MEMORY": torch.OutOfMemoryError("no"),
    "DIVERGED": errors.Diverged("no"),
    "CANCELLED": errors.Cancelled(),
    "RANK_LOST": errors.RankLost("no"),
    "INTERNAL": KeyError("no"),
}


def test_the_table_has_every_reason_of_the_contract() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}
    assert set(RAISED) == set(table()) == names - {"UNSPECIFIED"}


@pytest.mark.parametrize("reason", RAISED)
def test_an_error_has_the_reason_and_the_code_of_the_table(reason: str) -> None:
    made = explain(RAISED[reason], "testing")
    assert read(made)[0] == reason
    assert code_pb2.Code.Name(made.code) == table()[reason]


def table() -> dict[str, str]:
    """gRPC codes by reason, as the table has them."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", README.read_text("utf8"), re.MULTILINE)
    return dict(rows)
