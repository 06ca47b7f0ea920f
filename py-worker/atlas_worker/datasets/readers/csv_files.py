"""Reads CSV files: rows of numbers, with or without names of the columns, in parts."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidInput
from .base import Index, Member, Numbers, Opened, Source, damaged, wrong_columns

SUFFIXES = {".csv", ".tsv", ".txt", ".dat"}
_LINE = 2**24
"""Bytes of the longest line."""
_GAPS = {"", "na", "n/a", "nan", "null", "none", "-", "#n/a"}
"""Words in lower case for missing values, which pandas knows."""


def open_file(path: Path) -> Opened:
    """Open a CSV file.

    The separator is a comma, semicolon, tab or blank, whichever divides the first line. The first
    line has the names of the columns if it has words; it may begin with ``#``.

    Raises:
        InvalidInput: The file is no table of numbers.
    """
    with path.open("rb") as file:
        first = file.readline(_LINE)
        while first.startswith(b"#") and (second := file.readline(_LINE)).startswith(b"#"):
            first = second  # the last line of a comment may name the columns
        second = second if first.startswith(b"#") else file.readline(_LINE)
    if b"\0" in first or len(first) == _LINE:
        raise InvalidInput(f"{path} is no text of rows and columns", "", "a CSV file")
    try:
        line = first.decode("utf-8-sig").strip("\r\n")
        below = second.decode("utf-8").strip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no UTF-8 text", "", "a CSV file in UTF-8") from error
    separator = _separator(below or line)
    commented = line.startswith("#")
    cells = _split(line.lstrip("# ") if commented else line, separator)
    width = len(_split(below, separator)) if below else len(cells)
    header = not all(_is_number(cell) for cell in cells)
    if commented and (len(cells) != width or not header):
        header, cells = False, [str(i) for i in range(width)]
    names = [c.strip() for c in cells] if header else [str(i) for i in range(len(cells))]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InvalidInput(f"{path} has two columns {twice!r}", "", "columns of different names")
    options: dict[str, Any] = {
        "sep": r"\s+" if separator == " " else separator,
        "header": 0 if header and not commented else None,
        "names": names,
        "comment": "#",
        "float_precision": "round_trip",
        "encoding": "utf-8-sig",
        "index_col": False,
        "skip_blank_lines": True,
    }
    kinds = _kinds(path, options)
    rows = _count(path, header and not commented)
    table = _Table(path, options, rows)
    problems = {n: "text" if n in kinds else "" for n in names}
    problem = wrong_columns(problems)
    members = [Member("", (rows, len(names)), "numbers", columns=tuple(names), problem=problem)]
    members += [
        Member(n, (rows,), "numbers", part_of="*", problem=problem)
        for n, problem in problems.items()
    ]

    def source(name: str) -> Source:
        member = next(m for m in members if m.name == name)

        def get(index: Index) -> Numbers:
            wanted = names if member.name == "" else [member.name]
            values = table.rows(index[0].start, index[0].stop, wanted)
            return values[:, index[1]] if member.name == "" else values[:, 0]

        return Source(path, member, get, sequential=True)

    return Opened(path, "CSV", members, source)


class _Table:
    """The rows of a file, read from front to back."""

    def __init__(self, path: Path, options: dict[str, Any], rows: int) -> None:
        self._path, self._options, self._rows = path, options, rows
        self._reader: Any = None
        self._wanted: list[str] = []
        self._at = 0

    def rows(self, start: int, stop: int, wanted: list[str]) -> Numbers:
        """Read rows ``start`` to ``stop`` of some columns."""
        if self._reader is None or start < self._at or wanted != self._wanted:
            self._reader = _read_csv(self._path, self._options, iterator=True, usecols=wanted)
            self._wanted, self._at = wanted, 0
        try:
            while self._at < start:
                self._at += len(self._reader.get_chunk(min(start - self._at, 2**16)))
            frame = self._reader.get_chunk(stop - start)[wanted]
        except StopIteration:
            raise damaged(self._path, "it has fewer rows than lines") from None
        except ValueError as error:  # pandas has this for a line with too many cells
            raise damaged(self._path, "its lines have different numbers of cells", error) from None
        for name in wanted:
            if frame[name].dtype.kind not in "biuf":
                at = _first_text(frame[name])
                raise InvalidInput(
                    f"{self._path}: row {start + at[0]} has {at[1]!r} in the column {name}",
                    "",
                    "numbers",
                    "remove the column or the row",
                )
        self._at = stop
        return np.asarray(frame.to_numpy())


def _read_csv(path: Path, options: dict[str, Any], **more: Any) -> Any:
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exact precision is to become the default
        return pandas.read_csv(path, **options, **more)


def _first_text(column: Any) -> tuple[int, str]:
    for i, value in enumerate(column):
        if isinstance(value, str) and not _is_number(value):
            return i, value[:40]
    return 0, str(column.iloc[0])[:40]


def _kinds(path: Path, options: dict[str, Any]) -> set[str]:
    """Names of the columns that hold text, by the first rows."""
    import pandas

    try:
        frame = _read_csv(path, options, nrows=100)
    except pandas.errors.EmptyDataError:
        return set()
    except Exception as error:  # pandas has errors of many types
        raise damaged(path, "it is no table", error) from error
    return {
        name
        for name in frame.columns
        if frame[name].dtype.kind not in "biuf"
        and not any(_is_number(str(value)) for value in frame[name])
    }


def _count(path: Path, header: bool) -> int:
    """Count the rows: the lines that are not empty, and no comments."""
    count, quoted = 0, False
    with path.open("rb") as file:
        for line in file:
            if quoted or line.count(b'"') % 2:
                quoted ^= bool(line.count(b'"') % 2)
                if quoted:
                    continue
            if line.strip() and not line.lstrip().startswith(b"#"):
                count += 1
    return max(0, count - header)


def _separator(line: str) -> str:
    for separator in (";", "\t", ","):
        if separator not in line:
            continue
        cells = line.split(separator)
        if separator != "," and any("," in c and _is_number(c.replace(",", ".", 1)) for c in cells):
            raise InvalidInput(
                f"the numbers in {line[:40]!r} have decimal commas", "", "decimal points"
            )
        return separator
    return " " if len(line.split()) > 1 else ","


def _split(line: str, separator: str) -> list[str]:
    return line.split() if separator == " " else next(csv.reader([line], delimiter=separator), [])


def _is_number(text: str) -> bool:
    word = text.strip().lower()
    if word in _GAPS or word in ("true", "false"):
        return True
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word
