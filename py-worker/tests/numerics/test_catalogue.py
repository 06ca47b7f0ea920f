"""The catalogue: every JSON Schema is enforced, and former names and snapshots still work."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from atlas_worker.catalogue import (
    BLOCK_TYPES,
    LARGEST_INT,
    Block,
    blocks,
    catalogue,
    current_kind,
    find,
    fingerprint,
    param,
    parse_params,
    recorded_params,
    resolve_files,
    schema,
)
from atlas_worker.checkpointing import check_kind
from atlas_worker.errors import InvalidInput

BLOCKS = [b for b in blocks() if not b.kind.startswith("test_")]
"""All there are, but for the fakes of other tests."""
RECORDED: dict[str, dict[str, list[Any]]] = json.loads(
    (Path(__file__).parent / "recorded_fingerprints.json").read_text()
)
"""What the worker of protocol version 2 made of every block at its defaults, by former kinds."""


def described(block: Block) -> dict[str, Any]:
    params: dict[str, Any] = schema(block)["params"]
    return params


def example(entry: dict[str, Any]) -> Any:
    """Something that a schema accepts: the default where there is one."""
    if "default" in entry:
        return entry["default"]
    match entry["type"]:
        case "object":
            required = entry.get("required", [])
            return {name: example(entry["properties"][name]) for name in required}
        case "array":
            return [example(entry["items"]) for _ in range(max(entry.get("minItems", 0), 1))]
        case "boolean":
            return False
        case "string":
            return entry.get("enum", ["a"])[0]
        case _:
            return entry.get("minimum", 0)


Keys = tuple[str | int, ...]
"""Where a value is in the parameters: ``("charts", 0, "row")``."""


def places(entry: dict[str, Any], path: Keys = ()) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Every value that a schema has something to say of, and what."""
    if path:
        yield path, entry
    if entry["type"] == "object":
        for name, inner in entry["properties"].items():
            yield from places(inner, (*path, name))
    elif entry["type"] == "array":
        yield from places(entry["items"], (*path, 0))


def having(entry: dict[str, Any], path: Keys, value: Any) -> Any:
    """What a schema accepts, but with this value at ``path``."""
    if not path:
        return value
    if isinstance(path[0], int):
        return [having(entry["items"], path[1:], value)]
    inner = having(entry["properties"][path[0]], path[1:], value)
    return {**example(entry), path[0]: inner}


def at(value: Any, path: Keys) -> Any:
    """The parsed value at ``path``."""
    for key in path:
        value = value[key] if isinstance(key, int) else getattr(value, key)
    return value


def text(path: Keys) -> str:
    """As errors have it: ``charts[0].row``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]


def accepted_and_refused(entry: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Values that a schema accepts, up to its bounds, and values just beyond that it refuses."""
    match entry:
        case {"enum": choices}:
            return choices, ["nonesuch", "", 1, None, True, [choices[0]]]
        case {"type": "boolean"}:
            return [True, False], [0, 1, "true", None]
        case {"type": "string"}:
            return ["", "a", "../a b/ü"], [1, None, True, ["a"]]
        case {"type": "array", "items": items}:
            one, low, high = example(items), entry.get("minItems", 0), entry.get("maxItems")
            good, bad = [[one] * max(low, 1)], [1, None, "a", {}]
            for count, side in ((low, -1), (high, 1)):
                if count is not None:
                    good.append([one] * count)
                    if count + side >= 0:
                        bad.append([one] * (count + side))
            return good, bad
        case {"type": "object"}:
            whole = example(entry)
            return [whole], [1, None, "a", []]
        case {"type": "integer"}:
            bounds = [(entry[b], s) for b, s in (("minimum", -1), ("maximum", 1)) if b in entry]
            inside = [b for b, _ in bounds] + [float(b) for b, _ in bounds]  # JSON has no integers
            outside = [b + s for b, s in bounds] + [example(entry) + 0.5]
        case {"type": "number"}:
            bounds = [(entry[b], s) for b, s in (("minimum", -1), ("maximum", 1)) if b in entry]
            inside = [b for b, _ in bounds] + [example(entry)]
            outside = [math.nextafter(b, s * math.inf) for b, s in bounds]
    return inside, [*outside, math.nan, math.inf, -math.inf, "1", True, None, [1], {}]


def refused(block: Block, given: dict[str, Any], field: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_params(block.params, given, "x")
    assert caught.value.field == f"x.params.{field}"
    assert "\n" not in caught.value.message
    return caught.value


def ids(value: Any) -> str:
    match value:
        case Block():
            return f"{value.type}-{value.kind}"
        case tuple():
            return text(value)
        case str():
            return value
        case _:
            return ""


PLACES = [(b, path, entry) for b in BLOCKS for path, entry in places(described(b))]


def test_every_type_has_blocks_in_order() -> None:
    assert {b.type for b in BLOCKS} == set(BLOCK_TYPES)
    assert [(b.type, b.kind) for b in blocks()] == sorted((b.type, b.kind) for b in blocks())
    assert all(b.summary for b in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_defaults_are_valid_and_are_what_is_described(block: Block) -> None:
    entry = described(block)
    assert json.loads(json.dumps(schema(block))) == schema(block)
    assert all(inner["description"] for inner in entry["properties"].values())
    required = entry.get("required", [])
    defaults = {k: v["default"] for k, v in entry["properties"].items() if "default" in v}
    assert {*defaults, *required} == {f.name for f in dataclasses.fields(block.params)}
    least = parse_params(block.params, example(entry), "x")
    whole = parse_params(block.params, {**defaults, **example(entry)}, "x")
    assert least == whole
    values = json.loads(json.dumps(dataclasses.asdict(whole)))  # lists in place of tuples
    assert {k: v for k, v in values.items() if k in defaults} == defaults
    for name in required:
        given = {k: v for k, v in example(entry).items() if k != name}
        refused(block, given, name)
    if not required:
        assert least == block.params()


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_unknown_parameters_are_refused(block: Block) -> None:
    entry = described(block)
    assert entry["additionalProperties"] is False
    error = refused(block, {**example(entry), "nonesuch": 1}, "nonesuch")
    assert all(name in error.expected for name in entry["properties"])


@pytest.mark.parametrize(("block", "path", "entry"), PLACES, ids=ids)
def test_the_schema_is_what_is_enforced(block: Block, path: Keys, entry: dict[str, Any]) -> None:
    def given(value: Any) -> dict[str, Any]:
        whole: dict[str, Any] = having(described(block), path, value)
        return whole

    good, bad = accepted_and_refused(entry)
    for value in good:
        got = at(parse_params(block.params, given(value), "x"), path)
        if entry["type"] not in ("array", "object"):  # whose entries have places of their own
            assert got == value
            types = {"integer": int, "number": float, "boolean": bool, "string": str}
            assert type(got) is types[entry["type"]]
    for value in bad:
        refused(block, given(value), text(path))
    if entry["type"] == "object":
        one = example(entry)
        assert entry["additionalProperties"] is False
        refused(block, given({**one, "nonesuch": 1}), text((*path, "nonesuch")))
        for name in entry.get("required", []):
            less = {k: v for k, v in one.items() if k != name}
            refused(block, given(less), text((*path, name)))
    for bound, side in (("minimum", -1), ("maximum", 1)):
        if bound in entry:
            error = refused(block, given(entry[bound] + side), text(path))
            assert str(entry[bound]) in error.expected
    if entry["type"] == "integer":
        assert entry["maximum"] <= LARGEST_INT


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(InvalidInput) as caught:
        find("algebra_solver", "nonesuch", "algebra.solver")
    assert caught.value.field == "algebra.solver.kind"
    assert "grassmann" in caught.value.expected
    assert "atlasd" in caught.value.expected
    assert "liegan" not in caught.value.expected
    assert find("algebra_solver", "atlasd", "x").kind == "atlasd"
    assert find("algebra_solver", "liegan", "x", "data_solver").type == "data_solver"
    for type, kind in (("coset_solver", "atlasd"), ("algebra_solver", "liegan"), ("action", "")):
        with pytest.raises(InvalidInput):
            find(type, kind, "x")  # type: ignore[arg-type]


def test_former_kinds_are_accepted() -> None:
    names = {(b.type, b.kind): b for b in BLOCKS}
    for block in BLOCKS:
        assert find(block.type, block.kind, "x") is block
        assert find(block.type, block.recorded_kind, "x") is block
        for alias in block.aliases:
            assert find(block.type, alias, "x") is block
            assert names.setdefault((block.type, alias), block) is block, "two blocks of one name"
            assert alias in schema(block)["aliases"]
    former = {
        ("architecture", "wide"): "strided_cnn",
        ("architecture", "published"): "reference_cnn",
        ("algebra_solver", "paper"): "atlasd",
        ("coset_solver", "descent"): "multistart",
        ("dataset", "heat2d"): "heat_equation",
        ("dataset", "points"): "gaussian_points",
        ("dataset", "hdf5_table"): "pandas_hdf5",
    }
    for (type, alias), kind in former.items():
        assert find(type, alias, "x").kind == kind  # type: ignore[arg-type]


def test_former_names_of_parameters_are_accepted() -> None:
    found = {}
    for block, path, entry in PLACES:
        if "x-former" not in entry:
            continue
        (name,), former = path, entry["x-former"]
        found[block.kind, name] = former
        good, bad = accepted_and_refused(entry)
        for value in good:
            given = {**example(described(block)), former: value}
            assert at(parse_params(block.params, given, "x"), path) == value
        refused(block, {**example(described(block)), former: bad[0]}, text(path))
    assert found == {
        ("encoder_decoder", "reference"): "published",
        ("cgnet", "reference"): "published",
        ("program", "halo"): "reach",
        ("module", "halo"): "reach",
        ("multistart", "max_components"): "keep",
        ("climatenet", "storage"): "keep",
    }


def test_both_names_of_a_parameter_are_refused() -> None:
    params = find("coset_solver", "multistart", "x").params
    for given in ({"keep": 4, "max_components": 4}, {"max_components": 4, "keep": 4}):
        with pytest.raises(InvalidInput) as error:
            parse_params(params, given, "cosets.solver")
        assert error.value.field == "cosets.solver.params.max_components"
        assert all(name in error.value.message for name in given)
        assert error.value.remedy == "leave out keep"


def test_kinds_of_snapshots_have_their_present_names() -> None:
    assert current_kind("paper") == "atlasd"
    assert {current_kind(b.recorded_kind) for b in BLOCKS} == {b.kind for b in BLOCKS}
    assert current_kind("never heard of") == "never heard of"
    with pytest.raises(InvalidInput, match="not that of a multistart") as error:
        check_kind({"kind": "paper", "epoch": "1"}, "descent")
    assert error.value.expected == "multistart"


@pytest.mark.parametrize(
    ("type", "kind"), [(type, kind) for type in RECORDED for kind in RECORDED[type]]
)
def test_blocks_are_recorded_as_in_their_first_release(type: Any, kind: str) -> None:
    """So that what an earlier version has recorded can be resumed."""
    block, recorded = find(type, kind, "x"), RECORDED[type][kind]
    assert block.recorded_kind == kind
    assert json.loads(json.dumps(fingerprint(block, block.params()))) == recorded
    # As a saved predictor says how it was built.
    assert parse_params(block.params, recorded[1], "x") == block.params()


def test_the_traits_of_blocks() -> None:
    def having(trait: str) -> set[str]:
        assert all(getattr(b, trait) == schema(b).get(trait, False) for b in BLOCKS)
        return {b.kind for b in BLOCKS if getattr(b, trait)}

    assert having("needs_predictor") == {"atlasd", "grassmann", "multistart", "products"}
    assert having("finds_k") == {"grassmann"}
    assert having("alternates") == {"atlasd"}
    assert having("executes_code") == {"module", "program"}
    assert having("unlisted") == {"score_net", "score"}
    assert all(list(b.manifolds) == schema(b).get("manifolds", []) for b in BLOCKS)
    assert find("architecture", "icosahedral_unet", "x").manifolds == ("icosahedron",)
    assert find("architecture", "mlp", "x").manifolds == ("vectors",)
    assert find("architecture", "strided_cnn", "x").manifolds == ("planar",)


def test_the_file_of_the_catalogue_is_up_to_date() -> None:
    path = Path(__file__).parents[3] / "proto" / "atlas" / "v1" / "blocks.json"
    made = catalogue()
    for type, kinds in made["blocks"].items():
        made["blocks"][type] = {k: v for k, v in kinds.items() if not k.startswith("test_")}
    assert json.loads(path.read_text(encoding="utf-8")) == made, "run: npm run generate"


# Parameters that no block of ours has yet, or few have


@dataclass(frozen=True)
class Point:
    x: float = param(..., "first", maximum=2)
    label: Literal["a", "b"] = param("a", "name")


@dataclass(frozen=True)
class Nested:
    points: tuple[Point, ...] = param(..., "where", minimum=1, maximum=2)
    count: int = param(..., "how many")
    weights: tuple[float, ...] = param((1.0, 0.5), "how much", maximum=3)
    names: tuple[str, ...] = param((), "of whom")
    sizes: tuple[int, ...] = param((1,), "how large")
    size: int = param(4, "renamed", minimum=1, former="width")
    later: int = param(7, "came later", added=True)


NESTED = Block("dataset", "test_nested", "for this test", Nested, Nested)


def test_lists_and_required_parameters() -> None:
    entry = described(NESTED)
    assert entry["required"] == ["points", "count"]
    assert entry["properties"]["weights"] == {
        "type": "array",
        "items": {"type": "number"},
        "maxItems": 3,
        "default": [1.0, 0.5],
        "description": "how much",
    }
    points = entry["properties"]["points"]
    assert (points["minItems"], points["maxItems"]) == (1, 2)
    assert points["items"]["required"] == ["x"]
    given = {"points": [{"x": 1}, {"x": 2.0, "label": "b"}], "count": 3.0, "weights": [0, 2]}
    parsed = parse_params(Nested, given, "x")
    assert parsed == Nested((Point(1.0), Point(2.0, "b")), 3, (0.0, 2.0))
    assert [type(w) for w in parsed.weights] == [float, float]
    for change, field in (
        ({"points": [{"x": 3}]}, "points[0].x"),
        ({"points": [{"x": 1}, {}]}, "points[1].x"),
        ({"points": [{"x": 1}, {"x": 1, "label": "c"}]}, "points[1].label"),
        ({"points": [{"x": 1}, 1]}, "points[1]"),
        ({"points": []}, "points"),
        ({"points": [{"x": 1}] * 3}, "points"),
        ({"weights": [1, "a"]}, "weights[1]"),
        ({"weights": [1, math.nan]}, "weights[1]"),
        ({"weights": [1] * 4}, "weights"),
        ({"weights": 1}, "weights"),
        ({"names": ["a", 1]}, "names[1]"),
        ({"sizes": [1, 1.5]}, "sizes[1]"),
        ({"count": LARGEST_INT + 1}, "count"),
    ):
        refused(NESTED, given | change, field)
    refused(NESTED, {"points": given["points"]}, "count")


@pytest.mark.parametrize(("path", "entry"), list(places(described(NESTED))), ids=ids)
def test_the_schema_of_lists_is_what_is_enforced(path: Keys, entry: dict[str, Any]) -> None:
    test_the_schema_is_what_is_enforced(NESTED, path, entry)


def test_what_came_later_is_recorded_only_where_it_says_something() -> None:
    made = Nested((Point(1.0),), 1, size=5)
    recorded = {
        "points": ({"x": 1.0, "label": "a"},),
        "count": 1,
        "weights": (1.0, 0.5),
        "names": (),
        "sizes": (1,),
        "width": 5,
    }
    assert recorded_params(made) == recorded
    assert fingerprint(NESTED, made) == ["Nested", recorded]
    other = dataclasses.replace(made, later=8)
    assert recorded_params(other) == {**recorded, "later": 8}
    renamed = dataclasses.replace(NESTED, recorded_as=("test_former", "Former"))
    assert (NESTED.recorded_kind, renamed.recorded_kind) == ("test_nested", "test_former")
    assert fingerprint(renamed, other) == ["Former", {**recorded, "later": 8}]


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
    for path in (
        "..",
        "../root-beside/a",
        "a/../../root-beside",
        "/etc/hosts",
        "/",
        str(beside / "a"),
    ):
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
    files = Block("dataset", "test_files", "for this test", Files, Files)
    assert {
        name: entry.get("format") for name, entry in described(files)["properties"].items()
    } == {
        "path": "path",
        "other": "path",
        "text": None,
    }
