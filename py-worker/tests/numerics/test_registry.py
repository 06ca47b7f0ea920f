"""Every registered block's parameters: defaults valid, bounds enforced, unknown ones refused, descriptions true."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from atlas_worker import datasets, predictors, solvers
from atlas_worker.errors import InvalidInput
from atlas_worker.registry import Block, blocks, describe_params, find, parse_params

OURS = {
    ("dataset", "heat2d"),
    ("dataset", "arrays"),
    ("predictor", "published"),
    ("predictor", "wide"),
    ("predictor_training", "supervised"),
    ("algebra_solver", "grassmann"),
    ("algebra_solver", "paper"),
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
