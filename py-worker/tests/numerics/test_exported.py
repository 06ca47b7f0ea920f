"""The file that `atlas export --format torch` writes, alone and with other symmetries in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atlas_worker import exported
from atlas_worker.exported import symmetry

FILE = Path(exported.__file__).parent / "symmetry.py"


def test_tests_itself_with_nothing_but_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(FILE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "all tests passed" in done.stdout
    imported = re.findall(r"^(?:import|from) (\w+)", FILE.read_text("utf-8"), re.MULTILINE)
    assert set(imported) <= {"__future__", "math", "re", "collections", "torch"}


def of(monkeypatch: pytest.MonkeyPatch, name: str, b: object, h: object, n: int) -> None:
    for field, value in {"NAME": name, "GENERATORS": b, "COMPONENTS": h, "N": n}.items():
        monkeypatch.setattr(symmetry, field, value)


def so(n: int, bent: float = 0.0) -> list[list[list[float]]]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for i in range(n):
        for j in range(i):
            b = bent * torch.randn(n, n, generator=draw)
            b[i, j] += 1
            b[j, i] -= 1
            found.append(b.tolist())
    return found


@pytest.mark.parametrize(
    ("types", "number"), [("V->V", 1), ("V->S", 0), ("2V->2V+S", 4), ("T->T", 3), ("T->S", 1)]
)
def test_counts_the_maps_of_rotations_of_space(
    monkeypatch: pytest.MonkeyPatch, types: str, number: int
) -> None:
    of(monkeypatch, "so(3)", so(3), [], 3)
    assert len(symmetry.equivariant_linear(*types.split("->"))) == number
    of(monkeypatch, "so(3)", so(3, bent=0.003), [], 3)
    monkeypatch.setattr(symmetry, "ACCURACY", 0.01)
    assert len(symmetry.equivariant_linear(*types.split("->"))) == number


def test_keeps_scalings_which_have_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    of(monkeypatch, "R scaling", [torch.eye(2).tolist()], [], 2)
    assert len(symmetry.equivariant_linear("V", "V")) == 4
    assert len(symmetry.equivariant_linear("V", "C")) == 0
    assert len(symmetry.equivariant_linear("C+V", "C+V")) == 8


def test_refuses_to_average_over_a_group_that_is_not_compact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boost = [[[0.0, 1.0], [1.0, 0.0]]]
    of(monkeypatch, "so(1,1)", boost, [], 2)
    assert not symmetry.is_compact()
    with pytest.raises(ValueError, match="not compact"):
        symmetry.symmetrise(torch.sum, "V")
    assert "refused" in symmetry.self_test()[-1]


def test_averages_a_finite_group_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = [[0.0, -1.0], [1.0, 0.0]]
    of(monkeypatch, "D_4", [], [turn, [[1.0, 0.0], [0.0, -1.0]]], 2)
    assert len(symmetry.elements()) == 8
    x = torch.randn(50, 2)
    averaged = symmetry.symmetrise(lambda v: (v[:, :1] ** 3 + v[:, 1:]).abs(), "V")
    assert symmetry.equivariance_error(averaged, x, "V") < 1e-5


def test_refuses_what_is_no_type() -> None:
    with pytest.raises(ValueError, match="no type"):
        symmetry.terms("2W")
