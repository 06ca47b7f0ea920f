"""Reads Parquet files by row group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidInput
from .base import (
    Index,
    Member,
    Numbers,
    Opened,
    Source,
    check_stored,
    damaged,
    inner,
    wrong_columns,
)
from .packages import need


@contextmanager
def open_file(path: Path) -> Iterator[Opened]:
    """Open a Parquet file.

    Yields:
        The open file.

    Raises:
        InvalidInput: The file is damaged.
        NotReady: The worker has no pyarrow.
    """
    parquet = need("pyarrow.parquet", "Parquet files")
    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
        rows = file.metadata.num_rows
    except MemoryError:
        raise
    except Exception as error:  # pyarrow has errors of many types for damaged files
        raise damaged(path, "it is no Parquet file that can be read", error) from error
    with file:
        columns = {f.name: _column(file, f) for f in schema if not _is_index(schema, f.name)}
        listed = [
            Member(n, (rows, *c.inner), c.dtype, part_of="*", problem=c.problem)
            for n, c in columns.items()
        ]
        flat = all(not c.inner for c in columns.values())
        problem = wrong_columns({n: c.problem for n, c in columns.items()})
        members = listed
        if flat and len(columns) > 1:
            table = Member(
                "", (rows, len(columns)), "numbers", columns=tuple(columns), problem=problem
            )
            members = [table, *listed]
        elif len(columns) == 1:
            members = [Member(m.name, m.shape, m.dtype, problem=m.problem) for m in listed]
        else:
            members = [Member(m.name, m.shape, m.dtype, problem=m.problem) for m in listed]
        declared = sum(
            file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)
        )
        if rows:
            check_stored(path, "its columns", declared, path.stat().st_size)

        def source(name: str) -> Source:
            member = next(m for m in members if m.name == name)
            wanted = list(columns) if name == "" else [name]
            batches = _Batches(path, file, wanted, {n: columns[n].inner for n in wanted})

            def get(index: Index) -> Numbers:
                values = batches.rows(index[0].start, index[0].stop)
                return inner(values if name == "" else values[:, 0], index, 1)

            return Source(path, member, get, sequential=True)

        yield Opened(path, "Parquet", members, source)


def _is_index(schema: Any, name: str) -> bool:
    """Whether pandas wrote a column as the index of its table."""
    return name.startswith("__index_level_") and b"pandas" in (schema.metadata or {})


class _Column:
    def __init__(self, dtype: str, inner: tuple[int, ...], problem: str) -> None:
        self.dtype, self.inner, self.problem = dtype, inner, problem


def _column(file: Any, field: Any) -> _Column:
    import pyarrow
    from pyarrow import types

    kind, inner = field.type, list[int]()
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        if types.is_fixed_size_list(kind):
            inner.append(kind.list_size)
        else:
            inner.append(_first_length(file, field.name, len(inner)))
        kind = kind.value_type
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    number = number or types.is_decimal(kind)
    words = (
        "text"
        if types.is_string(kind) or types.is_large_string(kind) or (types.is_dictionary(kind))
        else "dates"
        if types.is_temporal(kind)
        else str(kind)
    )
    del pyarrow
    return _Column(str(kind), tuple(inner), "" if number else words)


def _first_length(file: Any, name: str, depth: int) -> int:
    """Length of the lists in a column, by that in the first row."""
    for batch in file.iter_batches(batch_size=1, columns=[name]):
        value = batch.column(0)[0].as_py()
        for _ in range(depth):
            value = value[0] if value else None
        return len(value) if value is not None else 0
    return 0


class _Batches:
    """Rows of some columns, read from front to back."""

    def __init__(
        self, path: Path, file: Any, wanted: list[str], inner: dict[str, tuple[int, ...]]
    ) -> None:
        self._path, self._file, self._wanted, self._inner = path, file, wanted, inner
        self._left: Iterator[Any] | None = None
        self._held: Numbers | None = None
        self._at = 0
        """Row of the file at which ``_held`` begins."""

    def rows(self, start: int, stop: int) -> Numbers:
        """Read rows ``start`` to ``stop``: ``[rows, columns, …]``."""
        if self._left is None or start < self._at:
            size = max(1, min(stop - start, 2**16))
            self._left = self._file.iter_batches(batch_size=size, columns=self._wanted)
            self._held, self._at = None, 0
        parts: list[Numbers] = []
        need_ = stop - start
        while need_ > 0:
            if self._held is None or not len(self._held):
                batch = next(self._left, None)
                if batch is None:
                    raise damaged(self._path, "it has fewer rows than it declares")
                self._held = self._numbers(batch)
            if self._at < start:
                skipped = min(start - self._at, len(self._held))
                self._held, self._at = self._held[skipped:], self._at + skipped
                continue
            taken = self._held[:need_]
            self._held, self._at = self._held[len(taken) :], self._at + len(taken)
            need_ -= len(taken)
            parts.append(taken)
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _numbers(self, batch: Any) -> Numbers:
        parts = [self._column(batch.column(name), name) for name in self._wanted]
        return np.stack(parts, 1)

    def _column(self, column: Any, name: str) -> Numbers:
        import pyarrow
        from pyarrow import types

        rows, lengths = len(column), self._inner[name]
        for length in lengths:
            if column.null_count or not all(
                x == length for x in pyarrow.compute.list_value_length(column).to_pylist()
            ):
                raise InvalidInput(
                    f"{self._path}: the lists in the column {name} have different lengths",
                    "",
                    f"lists of {length} numbers",
                )
            column = column.flatten()
        if column.null_count or types.is_boolean(column.type) or types.is_decimal(column.type):
            column = column.cast(pyarrow.float64(), safe=False)
        values: Numbers = column.to_numpy(zero_copy_only=False)
        return values.reshape(rows, *lengths)
