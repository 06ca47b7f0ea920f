"""What all readers of files share: members with names, read in parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, listed

Numbers = NDArray[Any]
Index = tuple[slice, ...]

SUSPICIOUS = 2**28
"""Bytes from which on numbers that take no space in the file are suspicious."""
RATIO = 200
"""Numbers worth learning from never compress this well: such a file is damaged or malicious."""

_NO_NUMBERS = {
    "c": "complex numbers",
    "S": "text",
    "U": "text",
    "T": "text",
    "O": "objects",
    "M": "dates",
    "m": "durations",
    "V": "records",
}
_REMEDIES = {
    "complex numbers": "save the real and the imaginary parts as two arrays",
    "text": "save numbers, such as 0, 1, 2 for classes",
    "dates": "save numbers of seconds or days",
}


@dataclass(frozen=True)
class Member:
    """What a file tells about one of its arrays, without its numbers."""

    name: str
    """Name in the file; empty if the file holds one array without a name."""
    shape: tuple[int, ...]
    dtype: str
    """Type as it is stored, such as ``>f4``."""
    dims: tuple[str | None, ...] = ()
    """Names of the axes; empty if the file names none."""
    units: str = ""
    columns: tuple[str, ...] = ()
    """Names of the entries of the last axis, for a table."""
    coordinate: bool = False
    """Whether the array holds the coordinates of an axis of others."""
    part_of: str = ""
    """Name of the table that the array is a column of."""
    problem: str = ""
    """What the array holds instead of numbers; empty if it holds numbers."""

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(eq=False)
class Source:
    """An array in an open file, which is read in parts."""

    path: Path
    member: Member
    get: Callable[[Index], Numbers]
    """Reads the entries of an index of slices. Missing values are NaN."""
    chunks: tuple[int, ...] | None = None
    """Shape of the blocks that the file stores together."""
    memory: int = 0
    """Bytes that reading takes beyond the part that is read."""
    sequential: bool = False
    """Whether parts are read along the first axis only."""
    negative: bool = False
    """Whether to change the sign of all numbers."""

    @property
    def label(self) -> str:
        """Name of the file and of the array, for messages."""
        return f"{self.path}:{self.member.name}" if self.member.name else str(self.path)

    def step(self, axis: int) -> int:
        """Entries of an axis that the file stores together."""
        return self.chunks[axis] if self.chunks else 1

    def read(self, axis: int, start: int, stop: int) -> Numbers:
        """Read the entries ``start`` to ``stop`` of an axis, all of the others.

        Raises:
            InvalidInput: The file is damaged.
        """
        shape = self.member.shape
        index = tuple(slice(start, stop) if i == axis else slice(0, n) for i, n in enumerate(shape))
        try:
            values = self.get(index)
        except (InvalidInput, MemoryError):
            raise
        except Exception as error:  # the libraries have errors of many types for damaged files
            raise damaged(
                self.path, f"{self.member.name or 'its array'} cannot be read", error
            ) from error
        wanted = tuple(s.stop - s.start for s in index)
        if values.shape != wanted:
            raise damaged(
                self.path,
                f"{self.member.name or 'its array'} has {list(values.shape)} entries where "
                f"{list(wanted)} are declared",
            )
        if (what := not_numbers(values.dtype)) != "":
            raise refused(self.label, what)
        return -np.asarray(values, np.result_type(values, np.float32)) if self.negative else values


@dataclass(eq=False)
class Opened:
    """An open file."""

    path: Path
    kind: str
    """The format, as people call it."""
    members: list[Member]
    source: Callable[[str], Source]
    """Opens a member by its exact name in ``members``."""
    warnings: list[str] = field(default_factory=list)
    follow: Callable[[str], str | None] = field(default=lambda _: None, repr=False)
    """Finds the name of a member that another name leads to, over links in the file."""

    def find(self, name: str) -> Member:
        """Find a member by the name that a user gives.

        Raises:
            InvalidInput: The file has no such member. The error lists those that it has.
        """
        target = self.follow(name)
        for member in self.members:
            if member.name.strip("/") in (name.strip("/"), target):
                return member
        close = [m for m in self.members if m.name.lower() == name.lower().lstrip("/")]
        there = [m.name for m in close or self.choices() or self.members]
        if there == [""]:
            raise InvalidInput(
                f"{self.path} has no {name!r}; it holds one array, which has no name",
                expected="the file alone",
                remedy=f"leave out :{name}",
            )
        raise InvalidInput(
            f"{self.path} has no {name!r}; it has {listed(there)}"
            if there
            else f"{self.path} holds no arrays",
            expected="the name of an array in the file",
            remedy=f"name one after the file, such as {self.path.name}:{there[0]}" if there else "",
        )

    def choices(self) -> list[Member]:
        """List the members that a user may mean: those with numbers, but coordinates."""
        return [m for m in self.members if not m.problem and not m.coordinate and not m.part_of]

    def only(self) -> Member:
        """Return the member that is meant if none is named.

        Raises:
            InvalidInput: There are several, or none.
        """
        found = self.choices()
        if len(found) == 1:
            return found[0]
        if not found:
            problems = [m for m in self.members if m.problem and not m.part_of]
            if len(problems) == 1:
                raise refused(f"{self.path}:{problems[0].name}".rstrip(":"), problems[0].problem)
            has = (
                f"only {listed([f'{m.name} ({m.problem})' for m in problems])}" if problems else ""
            )
            found = [m for m in self.members if not m.problem and not m.part_of]
            if not found:
                raise InvalidInput(
                    f"{self.path} holds {has or 'no arrays'}", expected="an array of numbers"
                )
        shown = [f"{m.name} [{', '.join(map(str, m.shape))}]" for m in found]
        raise InvalidInput(
            f"{self.path} holds {len(found)} arrays: {listed(shown)}",
            expected="the name of an array after the file",
            remedy=f"choose one, such as {self.path.name}:{found[0].name}",
        )

    def open(self, name: str = "") -> Source:
        """Open a member.

        Args:
            name: Its name, with a minus sign before it to change the sign of its numbers; empty for
                the only one.

        Raises:
            InvalidInput: There is no such member, or it does not hold numbers.
        """
        names = {member.name for member in self.members}
        if name.startswith("-") and name not in names:
            return replace(self.open(name[1:]), negative=True)
        member = self.find(name) if name else self.only()
        if member.problem:
            raise refused(f"{self.path}:{member.name}".rstrip(":"), member.problem)
        return self.source(member.name)

    def open_all(self, names: Sequence[str]) -> list[Source]:
        """Open members that are joined.

        Args:
            names: Their names, as for :meth:`open`. A name that the file lacks is looked for in the
                group of the name before it: ``events/px,py`` stands for ``events/px,events/py``.
                Empty for the only member.

        Raises:
            InvalidInput: There is no such member, or it does not hold numbers.
        """
        known = {member.name.strip("/") for member in self.members}
        group, found = "", list[Source]()
        for name in names or ("",):
            sign, plain = ("-", name[1:]) if name.startswith("-") else ("", name)
            inside = f"{group}/{plain}"
            if group and not {name, plain} & known and inside in known:
                name = sign + inside
            found.append(self.open(name))
            group = found[-1].member.name.strip("/").rpartition("/")[0]
        return found


def not_numbers(dtype: np.dtype[Any]) -> str:
    """Say what a type is if its values are not real numbers; empty if they are."""
    return "" if dtype.kind in "biuf" else _NO_NUMBERS.get(dtype.kind, str(dtype))


def refused(label: str, what: str) -> InvalidInput:
    """Make an error for an array that does not hold numbers."""
    return InvalidInput(f"{label} holds {what}", "", "real numbers", _REMEDIES.get(what, ""))


def wrong_columns(problems: Mapping[str, str]) -> str:
    """Say which columns of a table hold no numbers, each kind once; empty if all do.

    >>> wrong_columns({"a": "", "b": "text", "c": "dates", "d": "text"})
    'text in the columns b, d, dates in the column c'
    """
    kinds = dict.fromkeys(kind for kind in problems.values() if kind)
    told = []
    for kind in kinds:
        names = [name for name, has in problems.items() if has == kind]
        told.append(f"{kind} in the column{'s' if len(names) > 1 else ''} {listed(names)}")
    return ", ".join(told)


def damaged(path: Path, what: str, error: BaseException | None = None) -> InvalidInput:
    """Make an error for a file that is damaged."""
    why = f" ({first_line(error)})" if error is not None else ""
    return InvalidInput(
        f"{path} is damaged: {what}{why}", "", "a complete file", "copy or make it again"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has none."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:200]


def check_stored(path: Path, name: str, declared: int, stored: int) -> None:
    """Refuse an array that declares far more than the file stores.

    Args:
        path: The file.
        name: Name of the array.
        declared: Bytes of its numbers.
        stored: Bytes that the file stores for it.

    Raises:
        InvalidInput: The file stores too little for the numbers to be meant.
    """
    if declared > 0 and (stored == 0 or (declared > SUSPICIOUS and declared > RATIO * stored)):
        raise InvalidInput(
            f"{path} declares {size_text(declared)} for {name or 'its array'}, but stores "
            f"{size_text(stored)} of it",
            "",
            "a file that holds the numbers that it declares",
            "copy or make it again",
        )


def size_text(count: int) -> str:
    """Write a number of bytes.

    >>> size_text(3_200_000_000)
    '3.2 GB'
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def fields_of(
    dtype: np.dtype[Any], names: Callable[[str], Sequence[str] | None] = lambda _: None
) -> tuple[list[tuple[str, str, int]], str]:
    """List the columns of records.

    Args:
        dtype: A type with fields.
        names: Gives the names of the entries of a field that holds several.

    Returns:
        Columns as name, field and index in the field (−1: the field is a number), and what a field
        holds if not numbers.
    """
    columns: list[tuple[str, str, int]] = []
    problem = ""
    for name in dtype.names or ():
        base, shape = dtype[name].base, dtype[name].shape
        problem = problem or (f"{not_numbers(base)} in {name}" if not_numbers(base) else "")
        if not shape:
            columns.append((name, name, -1))
        else:
            count = math.prod(shape)
            known = names(name)
            called = (
                known if known and len(known) == count else [f"{name}[{i}]" for i in range(count)]
            )
            columns += [(str(c), name, i) for i, c in enumerate(called)]
    return columns, problem


def stacked(records: Numbers, columns: Sequence[tuple[str, str, int]]) -> Numbers:
    """Turn records ``[N]`` to numbers ``[N, columns]`` of a type that holds them all."""
    parts = []
    for _, name, i in columns:
        values = records[name]
        parts.append(values if i < 0 else values.reshape(len(records), -1)[:, i])
    return np.stack(parts, axis=-1)


def _field(records: Numbers, key: str) -> Numbers:
    values: Numbers = records[key]
    return values


def _entry(records: Numbers, column: tuple[str, str, int]) -> Numbers:
    values: Numbers = stacked(records, [column])[..., 0]
    return values


def inner(values: Numbers, index: Index, rank: int) -> Numbers:
    """Apply an index to the axes beyond the first ``rank``, of which all is there."""
    taken: Numbers = values[(slice(None),) * rank + index[rank:]]
    return taken


def mapped(
    path: Path, dtype: np.dtype[Any], start: int, shape: tuple[int, ...], fortran: bool
) -> Numbers:
    """Map an array that a file holds as it is in memory, without reading it."""
    if not math.prod(shape):
        return np.empty(shape, dtype)
    order: Literal["F", "C"] = "F" if fortran else "C"
    found: Numbers = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)
    return found


def table_members(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    separator: str = "/",
    names: Callable[[str], Sequence[str] | None] = lambda _: None,
) -> dict[str, tuple[Member, Callable[[Numbers], Numbers]]]:
    """Describe an array of records: the table of all columns, and each field.

    Returns:
        Members by name, each with a function that turns records to its numbers.
    """
    columns, problem = fields_of(dtype, names)
    prefix = f"{name}{separator}" if name else ""
    table = Member(
        name,
        (*shape, len(columns)),
        "records",
        columns=tuple(c for c, _, _ in columns),
        problem=problem or ("" if len(shape) == 1 else "records in more than one dimension"),
    )
    found: dict[str, tuple[Member, Callable[[Numbers], Numbers]]] = {
        name: (table, partial(stacked, columns=columns))
    }
    for key in dtype.names or ():
        base, inner = dtype[key].base, dtype[key].shape
        member = Member(
            f"{prefix}{key}",
            (*shape, *inner),
            base.str,
            part_of=name or "*",
            problem=not_numbers(base),
        )
        found[member.name] = (member, partial(_field, key=key))
    for column, key, i in columns:
        if i >= 0 and f"{prefix}{column}" not in found:
            member = Member(f"{prefix}{column}", shape, dtype[key].base.str, part_of=name or "*")
            found[member.name] = (member, partial(_entry, column=(column, key, i)))
    return found
