"""Registered building blocks: datasets, predictors, training recipes and solvers, each with typed, documented parameters.

A block's parameters are a frozen dataclass whose fields are made by :func:`param`; the same declaration checks what a
client sends, fills in defaults, and is what ``WorkerService.Describe`` reports. To add a block, write a module in the
package of its role and import it in that package's ``__init__``.
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

Role = Literal["dataset", "predictor", "predictor_training", "algebra_solver", "data_solver", "coset_solver"]
P = TypeVar("P")


def param(
    default: Any,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    file: bool = False,
) -> Any:
    """A parameter of a building block. Choices are a ``Literal`` annotation; everything else is int, float, bool or str.

    ``file``: the path of a file on the worker's machine, which must lie in its data root (see :func:`resolve_files`).
    """
    return dataclasses.field(
        default=default, metadata={"doc": doc, "minimum": minimum, "maximum": maximum, "file": file}
    )


@dataclass(frozen=True)
class Block:
    """One registered building block. ``make(params, **context)`` builds it; the context depends on the role."""

    role: Role
    kind: str
    summary: str
    params: type[Any]
    make: Callable[..., Any]
    code: bool = False
    """Executes code that the client names: refused unless the worker trusts it."""


_BLOCKS: dict[tuple[str, str], Block] = {}


def register(
    role: Role, kind: str, summary: str, params: type[Any], *, code: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a factory ``make(params, **context)`` (or a class) to register it."""

    def add(make: Callable[..., Any]) -> Callable[..., Any]:
        _BLOCKS[role, kind] = Block(role, kind, summary, params, make, code)
        return make

    return add


def blocks() -> list[Block]:
    """Every registered block, sorted by role and kind."""
    return [_BLOCKS[key] for key in sorted(_BLOCKS)]


def find(role: Role, kind: str, field: str, *others: Role) -> Block:
    """The block of this role (or of ``others``), or ``InvalidInput`` at ``field`` that names those there are."""
    roles = (role, *others)
    block = next((_BLOCKS[r, kind] for r in roles if (r, kind) in _BLOCKS), None)
    if block is None:
        known = ", ".join(k for r, k in sorted(_BLOCKS) if r in roles)
        raise InvalidInput(
            f"unknown {role.replace('_', ' ')} {kind!r}",
            f"{field}.kind",
            f"one of {known}",
            "choose one of them",
        )
    return block


def parse_params(cls: type[P], given: Mapping[str, Any], field: str) -> P:
    """Checked parameters. JSON numbers are floats: a whole one is taken for an int. Unknown names are refused.

    Raises ``InvalidInput`` whose field is ``{field}.params.{name}``.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cast(Any, cls))}
    for name in given:
        if name not in fields:
            raise InvalidInput(
                f"unknown parameter {name!r}",
                f"{field}.params.{name}",
                f"one of {', '.join(fields)}",
                "leave it out",
            )
    values = {
        name: _check(given[name], hints[name], fields[name], f"{field}.params.{name}") for name in given
    }
    return cls(**values)


def resolve_files(params: P, root: Path, field: str) -> P:
    """``params`` with every path resolved: relative ones start in ``root``. Raises ``InvalidInput`` for one that leads out of it."""
    changed = {}
    for f in dataclasses.fields(cast(Any, params)):
        given = getattr(params, f.name)
        if not f.metadata["file"] or not given:
            continue
        if "\0" in given:
            raise InvalidInput("a path has a NUL in it", f"{field}.params.{f.name}", "a path")
        path = (root / given).resolve()
        if not path.is_relative_to(root.resolve()):
            raise InvalidInput(
                f"{given} is outside the worker's data root",
                f"{field}.params.{f.name}",
                f"a path in {root}",
                "move the data there, or start the worker with another --data-root",
            )
        changed[f.name] = str(path)
    return cast(P, dataclasses.replace(cast(Any, params), **changed))


def describe_params(cls: type[Any]) -> dict[str, dict[str, Any]]:
    """Parameter name to ``{type, default, doc, minimum?, maximum?, choices?}``, plain JSON values."""
    hints = typing.get_type_hints(cls)
    described: dict[str, dict[str, Any]] = {}
    for f in dataclasses.fields(cls):
        choices = typing.get_args(hints[f.name])
        entry: dict[str, Any] = {
            "type": "str" if choices else "file" if f.metadata["file"] else hints[f.name].__name__,
            "default": f.default,
            "doc": f.metadata["doc"],
        }
        if choices:
            entry["choices"] = list(choices)
        entry.update({k: f.metadata[k] for k in ("minimum", "maximum") if f.metadata[k] is not None})
        described[f.name] = entry
    return described


def _check(value: Any, hint: Any, field: dataclasses.Field[Any], path: str) -> Any:
    choices = typing.get_args(hint)
    if choices:
        if value in choices:
            return value
        raise InvalidInput(f"{field.name} is {value!r}", path, f"one of {', '.join(map(str, choices))}")
    if hint in (bool, str):
        if isinstance(value, hint):
            return value
        raise InvalidInput(f"{field.name} is {value!r}", path, "true or false" if hint is bool else "text")
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    if hint is int and high is None:
        high = 2**31 - 1
    noun = "a whole number" if hint is int else "a number"
    expected = (
        noun
        + (f" of at least {low}" if low is not None else "")
        + (f" and at most {high}" if high is not None else "")
    )
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if (
        not number
        or (hint is int and value != int(value))
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        raise InvalidInput(f"{field.name} is {value!r}", path, expected)
    return hint(value)
