"""Every registered block's parameters: defaults valid, bounds enforced, unknown ones refused, descriptions true."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atlas_worker import datasets, predictors, solvers
from atlas_worker.errors import InvalidInput
from atlas_worker.registry import Block, blocks, describe_params, find, param, parse_params, resolve_files

OURS = {
    ("dataset", "heat2d"),
    ("dataset", "arrays"),
    ("dataset", "climatenet"),
    ("dataset", "hdf5_table"),
    ("dataset", "points"),
    ("dataset", "sphere_digits"),
    ("predictor", "published"),
    ("predictor", "wide"),
    ("predictor", "encoder_decoder"),
    ("predictor", "cgnet"),
    ("predictor", "convnet"),
    ("predictor", "expression"),
    ("predictor", "mlp"),
    ("predictor", "quadratic"),
    ("predictor", "lorentznet"),
    ("predictor", "particle_graph"),
    ("predictor_training", "supervised"),
    ("algebra_solver", "grassmann"),
    ("algebra_solver", "paper"),
    ("data_solver", "liegan"),
    ("coset_solver", "descent"),
}
assert datasets, (predictors, solvers)  # importing them registers their blocks
BLOCKS = [b for b in blocks() if (b.role, b.kind) in OURS]
PARAMS = [(b, name) for b in BLOCKS for name in describe_params(b.params)]


def ids(value: Any) -> str:
    return f"{value.role}-{value.kind}" if isinstance(value, Block) else str(value)


def refused(block: Block, name: str, value: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_params(block.params, {name: value}, "x")
    assert caught.value.field == f"x.params.{name}"
    return caught.value


def test_every_block_is_registered() -> None:
    assert {(b.role, b.kind) for b in BLOCKS} == OURS
    assert [(b.role, b.kind) for b in blocks()] == sorted((b.role, b.kind) for b in blocks())
    assert all(b.summary for b in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_defaults_are_valid_and_are_what_is_described(block: Block) -> None:
    described = describe_params(block.params)
    defaults = {name: entry["default"] for name, entry in described.items()}
    assert parse_params(block.params, defaults, "x") == block.params()
    assert parse_params(block.params, {}, "x") == block.params()
    assert dataclasses.asdict(block.params()) == defaults
    assert json.loads(json.dumps(described)) == described
    assert all(entry["doc"] for entry in described.values())


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_unknown_parameters_are_refused(block: Block) -> None:
    refused(block, "nonesuch", 1)


@pytest.mark.parametrize(("block", "name"), PARAMS, ids=ids)
def test_bounds_and_types_are_enforced(block: Block, name: str) -> None:
    entry = describe_params(block.params)[name]

    def accepted(value: Any) -> Any:
        return getattr(parse_params(block.params, {name: value}, "x"), name)

    kind = entry["type"]
    if kind == "bool":
        assert accepted(not entry["default"]) is not entry["default"]
        for bad in (0, 1, "true", None):
            refused(block, name, bad)
    elif kind == "file" or ("choices" not in entry and kind == "str"):
        for text in ("", "a", "../a b/ü"):
            assert accepted(text) == text
        for bad in (1, None, True, ["a"]):
            refused(block, name, bad)
    elif kind == "str":
        for choice in entry["choices"]:
            assert accepted(choice) == choice
        for bad in ("nonesuch", 1, None, ["l1"]):
            refused(block, name, bad)
    else:
        step = 1 if kind == "int" else 1e-6
        for bound, away in (("minimum", -step), ("maximum", step)):
            if bound in entry:
                assert accepted(entry[bound]) == entry[bound]
                refusal = refused(block, name, entry[bound] + away)
                assert str(entry[bound]) in refusal.expected
        # JSON has no integers: a whole float is one.
        got = accepted(float(entry["default"]))
        assert got == entry["default"]
        assert type(got).__name__ == kind
        for bad in (math.nan, math.inf, -math.inf, "1", True, None, [1]):
            refused(block, name, bad)
        if kind == "int":
            refused(block, name, entry["default"] + 0.5)


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(InvalidInput) as caught:
        find("algebra_solver", "nonesuch", "algebra.solver")
    assert caught.value.field == "algebra.solver.kind"
    assert "grassmann" in caught.value.expected
    assert "paper" in caught.value.expected
    assert find("algebra_solver", "paper", "x").kind == "paper"
    with pytest.raises(InvalidInput):
        find("coset_solver", "paper", "x")


@dataclass(frozen=True)
class Files:
    path: str = param("", "a file", file=True)
    other: str = param("", "another", file=True)
    text: str = param("../text", "not a file")


def resolved(root: Path, path: str) -> str:
    return resolve_files(Files(path=path), root, "x").path


def outside(root: Path, path: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        resolve_files(Files(other=path), root, "x")
    assert caught.value.field == "x.params.other"
    assert "\n" not in str(caught.value)
    return caught.value


def test_paths_start_in_the_root(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "sub").mkdir()
    assert resolved(root, "a.h5") == str(root / "a.h5")
    assert resolved(root, "sub/../sub/./a.h5") == str(root / "sub" / "a.h5")
    assert resolved(root, str(root / "sub")) == str(root / "sub")
    assert resolved(root, "~/a") == str(root / "~" / "a"), "no shell's abbreviations"
    assert resolved(root, "") == ""
    given = Files(path="a", other="b")
    made = resolve_files(given, root, "x")
    assert made == Files(str(root / "a"), str(root / "b"), "../text")
    assert given.path == "a"
    assert resolve_files(made, root, "x") == made
    # As the worker is started by default.
    assert resolved(Path("/"), "/etc/hosts") == str(Path("/etc/hosts").resolve())


def test_paths_that_lead_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root, beside = tmp_path / "root", tmp_path / "root-beside"
    root.mkdir()
    beside.mkdir()
    (beside / "a").write_text("secret")
    (root / "out").symlink_to(beside)
    (root / "file").symlink_to(beside / "a")
    (root / "dangling").symlink_to(tmp_path / "none")
    (root / "inner").symlink_to(root)
    for path in ("..", "../root-beside/a", "a/../../root-beside", "/etc/hosts", "/", str(beside / "a")):
        assert "outside" in outside(root, path).message
    for path in ("out", "out/a", "file", "dangling", "inner/../../root-beside/a"):
        assert "outside" in outside(root, path).message
    assert resolved(root, "inner/a") == str(root.resolve() / "a")
    # A root that is a link itself is where it points.
    (tmp_path / "link").symlink_to(root)
    assert resolved(tmp_path / "link", "a") == str(root.resolve() / "a")
    outside(tmp_path / "link", "../root-beside/a")


def test_a_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    for path in ("a\0", "\0", "a\0/../../b"):
        assert "NUL" in outside(tmp_path, path).message


def test_files_are_described_as_such() -> None:
    assert {name: d["type"] for name, d in describe_params(Files).items()} == {
        "path": "file",
        "other": "file",
        "text": "str",
    }
