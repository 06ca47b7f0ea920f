"""The block catalogue: every dataset, architecture, training, solver and action, declared once.

A **block** is a kind with parameters. Its parameters are a frozen dataclass whose fields are made
by :func:`param`. This one declaration gives:

- the check of the parameters that a client sends, and their defaults;
- the JSON Schema in ``proto/atlas/v1/blocks.json``;
- from that schema, the types, checks and command-line flags of the TypeScript side.

To add a block, write a module in the package of its type (``datasets``, ``predictors``,
``solvers``, ``symmetry``). Nothing else needs an edit: :mod:`atlas_worker.blocks` imports every
module of these packages.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from .errors import InvalidInput

BlockType = Literal[
    "action",
    "algebra_solver",
    "architecture",
    "closure_solver",
    "coset_solver",
    "data_solver",
    "dataset",
    "training",
]
BLOCK_TYPES: tuple[BlockType, ...] = typing.get_args(BlockType)
"""All block types, in alphabetical order."""

Manifold = Literal["planar", "lattice", "vectors", "icosahedron"]
"""What a predictor sees: square windows of fields, sets of vectors, or an icosahedral grid."""

LARGEST_INT = 2**31 - 1
"""Largest value of an integer parameter that declares no maximum."""

ParamsClass = type[Any]
"""A frozen dataclass whose fields are made by :func:`param`."""

P = TypeVar("P")
_REQUIRED = dataclasses.MISSING


def param(
    default: Any,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    file: bool = False,
    former: str | None = None,
    added: bool = False,
) -> Any:
    """Declare a parameter of a block.

    The field's annotation decides the type: ``int``, ``float``, ``bool``, ``str``, a ``Literal`` of
    texts, or ``tuple[T, ...]`` of these or of dataclasses made by :func:`param`.

    Args:
        default: Value when the client gives none; ``...`` makes the parameter required.
        doc: One line for ``--help``.
        minimum: Smallest accepted number, or fewest entries of a tuple.
        maximum: Largest accepted number, or most entries of a tuple.
        file: The text is a path on the worker's machine, inside its data root.
        former: The parameter's name before it was renamed. It is still accepted, and snapshots are
            still identified by it, so that runs recorded under the old name can be resumed.
        added: The parameter came after the block's first release. Its default does not change the
            identity of snapshots, so runs recorded without it can be resumed.

    Returns:
        A dataclass field.
    """
    metadata = {
        "doc": doc,
        "minimum": minimum,
        "maximum": maximum,
        "file": file,
        "former": former,
        "added": added,
    }
    return dataclasses.field(default=_REQUIRED if default is ... else default, metadata=metadata)


@dataclass(frozen=True)
class Block:
    """One declared block.

    ``make(params, **context)`` builds it. The context depends on the type; see
    :mod:`atlas_worker.interfaces` and :mod:`atlas_worker.service.specs`.
    """

    type: BlockType
    kind: str
    summary: str
    params: ParamsClass
    make: Callable[..., Any]
    aliases: tuple[str, ...] = ()
    """Former kinds. Requests may still use them."""
    manifolds: tuple[Manifold, ...] = ()
    """Manifolds on which the block works; empty for all of them."""
    needs_predictor: bool = False
    """Whether the solver looks for symmetries of a predictor rather than of the data alone."""
    finds_k: bool = False
    """Whether the algebra solver can find the number of generators by itself."""
    alternates: bool = False
    """Whether the algebra solver's epochs alternate with the predictor's."""
    executes_code: bool = False
    """Whether the block executes code that the client names. Only a trusting worker allows it."""
    unlisted: bool = False
    """Whether the block serves one step of the method and is no choice for experiments."""
    recorded_as: tuple[str, str] | None = None
    """Kind and parameter class that identify snapshots, if either was renamed later."""

    @property
    def recorded_kind(self) -> str:
        """Kind that identifies the block in snapshots and saved states."""
        return self.recorded_as[0] if self.recorded_as else self.kind


_BLOCKS: dict[tuple[str, str], Block] = {}


def register(
    type: BlockType, kind: str, summary: str, params: ParamsClass, **traits: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the decorated factory ``make(params, **context)``, or class, as a block.

    Args:
        type: The block's type.
        kind: The block's name within its type, as users write it.
        summary: One line for ``--help``.
        params: The dataclass of the block's parameters.
        **traits: Further fields of :class:`Block`.

    Returns:
        A decorator that returns its argument unchanged.
    """

    def add(make: Callable[..., Any]) -> Callable[..., Any]:
        _BLOCKS[type, kind] = Block(type, kind, summary, params, make, **traits)
        return make

    return add


def blocks() -> list[Block]:
    """Return every declared block, sorted by type and kind."""
    return [_BLOCKS[key] for key in sorted(_BLOCKS)]


def find(type: BlockType, kind: str, field: str, *others: BlockType) -> Block:
    """Look up a block by its kind or a former kind.

    Args:
        type: The block's type.
        kind: The kind, or an alias.
        field: Dotted path of the block in the request, for the error.
        *others: Further types to accept.

    Returns:
        The block.

    Raises:
        InvalidInput: No such block exists. The error lists the kinds that do.
    """
    accepted = [b for b in blocks() if b.type in (type, *others)]
    for block in accepted:
        if kind == block.kind:
            return block
    for block in accepted:
        if kind in block.aliases:
            return block
    raise InvalidInput(
        f"unknown {type.replace('_', ' ')} {kind!r}",
        f"{field}.kind",
        f"one of {', '.join(b.kind for b in accepted)}",
        "choose one of them",
    )


def current_kind(recorded: str) -> str:
    """Return today's name of a kind that a snapshot recorded."""
    renamed = {b.recorded_as[0]: b.kind for b in blocks() if b.recorded_as}
    return renamed.get(recorded, recorded)


def parse_params(cls: type[P], given: Mapping[str, Any], field: str) -> P:
    """Check parameters and fill in defaults.

    JSON numbers are floats, so a whole float counts as an int.

    Args:
        cls: The dataclass of the parameters.
        given: Values by name, as read from JSON.
        field: Dotted path of the block in the request.

    Returns:
        An instance of ``cls``.

    Raises:
        InvalidInput: A name is unknown, a value is not accepted, a required parameter is missing,
            or a parameter is given under both its current and its former name. The error's field
            is ``{field}.params.{name}``.
    """
    return _parse(cls, given, f"{field}.params")


def _parse(cls: type[P], given: Mapping[str, Any], path: str) -> P:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cast(Any, cls))}
    formers = {f.metadata["former"]: name for name, f in fields.items() if f.metadata["former"]}
    values: dict[str, Any] = {}
    for name, value in given.items():
        current = name if name in fields else formers.get(name)
        if current is None:
            raise InvalidInput(
                f"unknown parameter {name!r}",
                f"{path}.{name}",
                f"one of {', '.join(fields)}" if fields else "no parameters",
                "leave it out",
            )
        if current in values:
            former = fields[current].metadata["former"]
            raise InvalidInput(
                f"{current} is given twice, also under its former name {former}",
                f"{path}.{current}",
                f"either {current} or {former}",
                f"leave out {former}",
            )
        values[current] = _check(value, hints[current], fields[current], f"{path}.{current}")
    for name, f in fields.items():
        if f.default is _REQUIRED and name not in values:
            raise InvalidInput(f"{name} is missing", f"{path}.{name}", f.metadata["doc"])
    return cls(**values)


def resolve_files(
    params: P,
    root: Path,
    field: str,
    uploaded: Callable[[str, str], Path | None] = lambda *_: None,
) -> P:
    """Resolve every parameter that is a file path against the data root.

    Args:
        params: A block's parameters.
        root: The worker's data root. Relative paths start here.
        field: Dotted path of the block in the request.
        uploaded: Finds a file that the client sent, by the text of the parameter and its field;
            None if the text is a path.

    Returns:
        A copy of ``params`` with absolute paths.

    Raises:
        InvalidInput: A path leads out of ``root``, or contains a NUL character.
    """
    changed = {}
    for f in dataclasses.fields(cast(Any, params)):
        given = getattr(params, f.name)
        if not f.metadata["file"] or not given:
            continue
        sent = uploaded(given, f"{field}.params.{f.name}")
        if sent is not None:
            changed[f.name] = str(sent)
            continue
        path = resolve_path(given, root, f"{field}.params.{f.name}")
        changed[f.name] = str(path)
    return cast(P, dataclasses.replace(cast(Any, params), **changed))


def resolve_path(given: str, root: Path, field: str) -> Path:
    """Resolve a path against the data root.

    Args:
        given: The path.
        root: The worker's data root. Relative paths start here.
        field: Dotted path of it in the request, for the error.

    Returns:
        The absolute path, without symbolic links.

    Raises:
        InvalidInput: The path leads out of ``root``, or contains a NUL character.
    """
    if "\0" in given:
        raise InvalidInput(
            "the path contains a NUL character", field, "a path without NUL characters"
        )
    path = (root / given).resolve()
    if not path.is_relative_to(root.resolve()):
        raise InvalidInput(
            f"{given} is outside the worker's data root",
            field,
            f"a path in {root}",
            "move the data there, or start the worker with another data root",
        )
    return path


def fingerprint(block: Block, params: Any) -> list[Any]:
    """Return the JSON value that identifies a block and its parameters in a snapshot.

    It uses the names of the block's first release, and leaves out parameters that were added later
    while they have their defaults. So snapshots of earlier versions still match.
    """
    name = block.recorded_as[1] if block.recorded_as else type(params).__name__
    return [name, recorded_params(params)]


def recorded_params(params: Any) -> dict[str, Any]:
    """Return parameters under the names of their first release, without later ones at default."""
    values = dataclasses.asdict(params)
    return {
        f.metadata.get("former") or f.name: values[f.name]
        for f in dataclasses.fields(params)
        if not (f.metadata.get("added") and getattr(params, f.name) == f.default)
    }


def schema(block: Block) -> dict[str, Any]:
    """Return a block's entry in the catalogue, ``proto/atlas/v1/blocks.json``.

    Returns:
        A dictionary with ``summary``, the traits that are set, and ``params``, a JSON Schema
        (draft 2020-12).
    """
    entry: dict[str, Any] = {"summary": block.summary}
    if block.aliases:
        entry["aliases"] = list(block.aliases)
    if block.manifolds:
        entry["manifolds"] = list(block.manifolds)
    for trait in ("needs_predictor", "finds_k", "alternates", "executes_code", "unlisted"):
        if getattr(block, trait):
            entry[trait] = True
    entry["params"] = _object_schema(block.params)
    return entry


def catalogue() -> dict[str, Any]:
    """Return the whole catalogue: the entries of all blocks by type and kind."""
    found: dict[str, Any] = {type: {} for type in BLOCK_TYPES}
    for block in blocks():
        found[block.type][block.kind] = schema(block)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "blocks": found}


def _object_schema(cls: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    described: dict[str, Any] = {"type": "object", "additionalProperties": False}
    described["properties"] = {f.name: _field_schema(hints[f.name], f) for f in fields}
    if required := [f.name for f in fields if f.default is _REQUIRED]:
        described["required"] = required
    return described


def _field_schema(hint: Any, f: dataclasses.Field[Any]) -> dict[str, Any]:
    entry = _type_schema(hint)
    low, high = f.metadata["minimum"], f.metadata["maximum"]
    if entry["type"] == "integer" and high is None:
        high = LARGEST_INT
    lowest, highest = (
        ("minItems", "maxItems") if entry["type"] == "array" else ("minimum", "maximum")
    )
    if low is not None:
        entry[lowest] = low
    if high is not None:
        entry[highest] = high
    if f.metadata["file"]:
        entry["format"] = "path"
    if f.metadata["former"]:
        entry["x-former"] = f.metadata["former"]
    if f.default is not _REQUIRED:
        entry["default"] = list(f.default) if isinstance(f.default, tuple) else f.default
    entry["description"] = f.metadata["doc"]
    return entry


def _type_schema(hint: Any) -> dict[str, Any]:
    if typing.get_origin(hint) is tuple:
        items = _type_schema(typing.get_args(hint)[0])
        if items["type"] == "integer":
            items["maximum"] = LARGEST_INT
        return {"type": "array", "items": items}
    if dataclasses.is_dataclass(hint):
        return _object_schema(cast(type[Any], hint))
    if choices := typing.get_args(hint):
        return {"type": "string", "enum": list(choices)}
    names: dict[Any, str] = {int: "integer", float: "number", bool: "boolean", str: "string"}
    return {"type": names[hint]}


def _check(value: Any, hint: Any, f: dataclasses.Field[Any], path: str) -> Any:
    if typing.get_origin(hint) is tuple:
        return _check_tuple(value, typing.get_args(hint)[0], f, path)
    choices = typing.get_args(hint)
    if choices:
        if isinstance(value, str) and value in choices:
            return value
        raise InvalidInput(f"{f.name} is {value!r}", path, f"one of {', '.join(map(str, choices))}")
    if hint in (bool, str):
        if isinstance(value, hint):
            return value
        expected = "true or false" if hint is bool else "text"
        raise InvalidInput(f"{f.name} is {value!r}", path, expected)
    return _check_number(value, hint, f, path)


def _check_tuple(value: Any, item: Any, f: dataclasses.Field[Any], path: str) -> tuple[Any, ...]:
    low, high = f.metadata["minimum"] or 0, f.metadata["maximum"] or LARGEST_INT
    if not isinstance(value, (list, tuple)) or not low <= len(value) <= high:
        count = f"at least {low}" if high == LARGEST_INT else f"{low} to {high}"
        said = f"{len(value)} entries" if isinstance(value, (list, tuple)) else repr(value)
        raise InvalidInput(f"{f.name} is {said}", path, f"a list of {count}")
    if not dataclasses.is_dataclass(item):
        bare = _unbounded(f)
        return tuple(_check(v, item, bare, f"{path}[{i}]") for i, v in enumerate(value))
    parsed = []
    for i, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            names = ", ".join(x.name for x in dataclasses.fields(item))
            raise InvalidInput(f"{f.name} has {entry!r}", f"{path}[{i}]", f"an object with {names}")
        parsed.append(_parse(cast(type[Any], item), entry, f"{path}[{i}]"))
    return tuple(parsed)


def _unbounded(f: dataclasses.Field[Any]) -> dataclasses.Field[Any]:
    """Copy a tuple's field without the bounds on its length, to check single entries."""
    bare: dataclasses.Field[Any] = param(..., f.metadata["doc"])
    bare.name = f.name
    return bare


def _check_number(value: Any, hint: type[int] | type[float], f: Any, path: str) -> int | float:
    low, high = f.metadata["minimum"], f.metadata["maximum"]
    if hint is int and high is None:
        high = LARGEST_INT
    expected = (
        ("a whole number" if hint is int else "a number")
        + (f" of at least {low}" if low is not None else "")
        + (f" and at most {high}" if high is not None else "")
    )
    number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    if (
        not number
        or (hint is int and value != int(value))
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        raise InvalidInput(f"{f.name} is {value!r}", path, expected)
    return hint(value)
