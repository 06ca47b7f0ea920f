"""Errors as ``google.rpc.Status``: proto/README.md's table of reasons agrees with the code."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from google.rpc import code_pb2

from atlas_worker import errors
from atlas_worker.errors import InvalidInput
from atlas_worker.gen.atlas.v1 import error_pb2
from atlas_worker.service.charts import check_invertible
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


@pytest.mark.parametrize(
    ("matrix", "good"),
    [
        ([[1.0, 0.0, 2e5], [0.0, 1.0, -1e5], [0.0, 0.0, 1.0]], True),
        ([[1e-12, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1e12]], True),
        ([[1.0, 1.0, 0.0], [1.0, 1.0 + 1e-9, 0.0], [0.0, 0.0, 1.0]], False),
        ([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], False),
        ([[1.0, float("inf"), 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], False),
    ],
)
def test_units_do_not_make_a_matrix_singular(matrix: list[list[float]], good: bool) -> None:
    matrices = torch.tensor([matrix], dtype=torch.float64)
    with nullcontext() if good else pytest.raises(InvalidInput, match="singular"):
        check_invertible(matrices)
