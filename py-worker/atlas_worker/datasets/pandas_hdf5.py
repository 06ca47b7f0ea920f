"""Sets of vectors with class labels from a pandas HDF5 table, read in chunks (METHOD 3.2)."""

from __future__ import annotations

import errno
import io
import pickle
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin  # noqa: F401  registers blosc, with which pandas compresses
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..catalogue import param, register
from ..checkpointing import check_kind
from ..errors import FileMissing, InvalidInput, listed
from ..rng import random_stream
from ..trainable import StepCallback
from .base import MadeDataset, entries_of, no_tensors
from .checks import describe_classes, describe_inputs

ROWS = 16_384
"""Rows read at a time. They are all the memory needed beyond the result."""

FIELD = "dataset.source.params.path"
"""Path of the file in a request, for errors."""
_Part = tuple[int, int, slice | NDArray[np.int64], slice | Tensor]


@dataclass(frozen=True)
class PandasTableParams:
    """Parameters of the dataset ``pandas_hdf5``."""

    path: str = param("", "Path of the HDF5 file", file=True)
    key: str = param("table", "Name of the table in the file")
    components: str = param(
        "E,PX,PY,PZ", "Columns of a vector's components without their suffix _i, in this order"
    )
    items: int = param(
        30, "Number of vectors of a sample to read: columns _0 to _(items − 1)", minimum=1
    )
    label: str = param("is_signal_new", "Column of the class, a whole number from 0")
    classes: int = param(2, "Number of classes", minimum=2, maximum=10_000)
    samples: int = param(0, "Number of rows to read; 0 for all", minimum=0)
    order: Literal["file", "drawn"] = param(
        "file",
        "If not all rows are read: take the first ones, or draw them at random from all rows",
        added=True,
    )


@register(
    "dataset",
    "pandas_hdf5",
    "Sets of vectors with class labels, from a table that pandas wrote (format='table')",
    PandasTableParams,
    aliases=("hdf5_table",),
    recorded_as=("hdf5_table", "TableParams"),
)
class PandasTable(MadeDataset):
    """Inputs ``[N, items, n]`` float32 and class labels ``[N, 1]``, as they are in the file.

    Sets are padded with zeros as in the file. Only the wanted columns are kept, so a table of any
    length needs the memory of its result and one chunk. Opening the file checks its columns. Each
    chunk is checked for entries that are not finite, and for labels that are no class. The names of
    the columns are pickled in such a file; the unpickler used here knows lists, strings and numbers
    only.
    """

    kind = "hdf5_table"

    def __init__(
        self,
        params: PandasTableParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        no_tensors(self.kind, tensors)
        self._p, self._device, self._seed = params, device, seed
        self._components = [name.strip() for name in params.components.split(",")]
        _refuse_others(params.path)
        with open_hdf5(params.path) as file:
            table = _Table(file, params)
            rows = len(table)
            table.find(self._wanted())
        self._key = table.key
        self._rows = params.samples or rows
        if self._rows > rows:
            raise InvalidInput(
                f"{params.path} has {rows} rows, but {params.samples} were asked for",
                "dataset.source.params.samples",
                f"at most {rows}, or 0 for all",
            )
        if rows == 0:
            raise InvalidInput(f"{params.path} has no rows", FIELD, "at least one row")
        self._drawn: Tensor | None = None
        """Rows of the file that are read, in the order of the samples; None for the first."""
        if params.order == "drawn" and self._rows < rows:
            self._drawn = torch.randperm(rows, generator=random_stream(seed))[: self._rows]

    def _wanted(self) -> list[str]:
        vectors = [f"{c}_{i}" for i in range(self._p.items) for c in self._components]
        return [*vectors, self._p.label]

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return self._p.classes

    @property
    def memory_bytes(self) -> int:
        """Bytes of inputs and targets."""
        return 4 * self._rows * (self._p.items * len(self._components) + 1)

    def make(self, on_step: StepCallback) -> tuple[Tensor, Tensor]:
        """Read the rows in chunks; see :class:`MadeDataset`."""
        p = self._p
        x = torch.empty(self._rows, p.items, len(self._components), device=self._device)
        y = torch.empty(self._rows, 1, device=self._device)
        with open_hdf5(p.path) as file:
            table = _Table(file, p)
            columns = table.find(self._wanted())
            parts = self._parts(table)
            for i, (start, stop, wanted, places) in enumerate(parts):
                values = table.read(start, stop, columns)[wanted]
                vectors, labels = values[:, :-1], values[:, -1]
                self._check(vectors, labels, np.arange(start, stop)[wanted])
                x[places] = torch.from_numpy(vectors).view(len(values), *x.shape[1:]).to(x)
                y[places, 0] = torch.from_numpy(labels).to(y)
                on_step(i + 1, len(parts), {})
        self.warnings = tuple(self._warnings(x, y))
        return x, y

    def _parts(self, table: _Table) -> list[_Part]:
        """Divide the rows to read into ranges of the file.

        Each is a range of rows, the rows in it that are wanted, and where they go.
        """
        if self._drawn is None:
            starts = range(0, self._rows, ROWS)
            ranges = [(start, min(start + ROWS, self._rows)) for start in starts]
            return [(a, b, slice(None), slice(a, b)) for a, b in ranges]
        rows, places = self._drawn.sort()
        # The file is decompressed by chunks of its own. Those without a wanted row are left out.
        size = max(1, table.chunk)
        size *= max(1, ROWS // size) if len(rows) * size > len(table) else 1
        numbers, counts = (rows // size).unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).tolist()
        parts: list[_Part] = []
        for number, begin, end in zip(numbers.tolist(), [0, *ends[:-1]], ends, strict=True):
            start, stop = number * size, min((number + 1) * size, len(table))
            parts.append((start, stop, (rows[begin:end] - start).numpy(), places[begin:end]))
        return parts

    def _check(
        self, vectors: NDArray[np.float32], labels: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> None:
        """Raise ``InvalidInput`` for entries that are not finite, and labels that are no class."""
        path, p = self._p.path, self._p
        finite = np.isfinite(vectors)
        if not finite.all():
            row, column = (int(a[0]) for a in np.nonzero(~finite))
            raise InvalidInput(
                f"{path}: row {rows[row]} has {vectors[row, column]} "
                f"in column {self._wanted()[column]}",
                FIELD,
                "finite numbers",
                "repair or remove the row",
            )
        known = (labels >= 0) & (labels < p.classes) & (labels == np.floor(labels))
        if not known.all():
            row = int(np.flatnonzero(~known)[0])
            raise InvalidInput(
                f"{path}: row {rows[row]} has the label {labels[row]:g} in column {p.label}",
                FIELD,
                f"whole numbers from 0 to {p.classes - 1}",
            )

    def _warnings(self, x: Tensor, y: Tensor) -> list[str]:
        path = self._p.path
        said = describe_inputs(x, f"the vectors in {path}", FIELD) + describe_classes(y, path)
        if self._key != self._p.key:
            said.append(
                f"{path} has no table {self._p.key!r}; its only table {self._key!r} is read"
            )
        return said

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the position and the number of rows: the file holds the data."""
        tensors, metadata = super().state()
        return tensors, {**metadata, "rows": str(self._rows)}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Read the rows again if the state had them.

        Raises:
            InvalidInput: The file has another number of rows.
        """
        check_kind(metadata, self.kind)
        if metadata.get("rows") != str(self._rows):
            raise InvalidInput(
                f"{self._p.path} has another number of rows than before",
                FIELD,
                f"{metadata.get('rows')} rows",
            )
        super().load_state(tensors, metadata)


class _Table:
    """A pandas table in an open file. Columns of one type share one field (block) of its rows."""

    def __init__(self, file: h5py.File, params: PandasTableParams) -> None:
        self._path = params.path
        self.key = params.key if _is_table(file.get(params.key)) else _other_key(file, params)
        """Name of the table in the file."""
        self._rows = file[self.key]["table"]
        self._columns = {
            name: (block, i)
            for block in self._rows.dtype.names or ()
            for i, name in enumerate(self._names(block))
        }

    def __len__(self) -> int:
        return int(self._rows.shape[0])

    @property
    def chunk(self) -> int:
        """Rows that the file stores, and decompresses, together."""
        return int(self._rows.chunks[0]) if self._rows.chunks else 1

    def find(self, wanted: list[str]) -> dict[str, tuple[list[int], list[int]]]:
        """Find columns by name.

        Args:
            wanted: Names of the columns.

        Returns:
            For each block: indices in the block, and the places in ``wanted`` where they go.
        """
        missing = [name for name in wanted if name not in self._columns]
        if missing:
            some = listed(missing, most=4)
            label = missing == wanted[-1:]
            there = [name for name in self._columns if name != "index"]
            if label:  # those of vectors come last
                there.sort(key=lambda name: name.rpartition("_")[2].isdecimal())
            raise InvalidInput(
                f"{self._path} lacks the column{'s' if len(missing) > 1 else ''} {some}; "
                f"it has {listed(there)}",
                "dataset.source.params.label" if label else FIELD,
                f"columns {wanted[0]} to {wanted[-2]} and {wanted[-1]}",
                "name the column of the class"
                if label
                else "ask for fewer items, or name the columns that exist",
            )
        blocks: dict[str, tuple[list[int], list[int]]] = {}
        for place, name in enumerate(wanted):
            block, i = self._columns[name]
            if self._rows.dtype[block].base.kind not in "biuf":
                raise InvalidInput(
                    f"{self._path}: the column {name} does not hold numbers",
                    FIELD,
                    "a column of numbers",
                )
            of, to = blocks.setdefault(block, ([], []))
            of.append(i)
            to.append(place)
        return blocks

    def read(
        self, start: int, stop: int, columns: dict[str, tuple[list[int], list[int]]]
    ) -> NDArray[np.float32]:
        """Read rows ``start`` to ``stop`` of the found columns: ``[rows, wanted]``."""
        try:
            rows = self._rows[start:stop]
        except OSError as error:
            raise InvalidInput(
                f"{self._path} is damaged: rows {start} to {stop} cannot be read "
                f"({first_line(error)})",
                FIELD,
                "an undamaged file",
                "copy or make it again",
            ) from None
        values = np.empty((stop - start, sum(len(to) for _, to in columns.values())), np.float32)
        for block, (of, to) in columns.items():
            values[:, to] = rows[block].reshape(stop - start, -1)[:, of]
        return values

    def _names(self, block: str) -> list[str]:
        kind = self._rows.attrs.get(f"{block}_kind")
        if not isinstance(kind, bytes | np.bytes_) or not block.startswith("values_block_"):
            return [block]  # a data column, or the index
        try:
            names = _Plain(io.BytesIO(bytes(kind))).load()
        except Exception as error:  # a damaged pickle can raise any error
            raise InvalidInput(
                f"{self._path}: the names of the columns cannot be read ({first_line(error)})",
                FIELD,
                "a table that pandas wrote",
            ) from None
        return [str(name) for name in names] if isinstance(names, list) else [block]


def _refuse_others(path: str) -> None:
    """Raise ``FileMissing`` if a file is missing in a folder that holds other files."""
    folder = Path(path).parent
    if not path or Path(path).exists() or not folder.is_dir():
        return
    if there := entries_of(folder):
        raise FileMissing(
            f"there is no file {path}; the folder holds {listed(there)}",
            FIELD,
            f"a file named {Path(path).name}",
            "rename the file that is meant, or choose another folder",
        )


def _is_table(node: object) -> bool:
    return isinstance(node, h5py.Group) and isinstance(node.get("table"), h5py.Dataset)


def _other_key(file: h5py.File, params: PandasTableParams) -> str:
    """Find the only table of a file, as ``pandas.read_hdf`` does, if no key was chosen.

    Raises:
        InvalidInput: There are several tables, or none. The error lists what there is.
    """
    tables: list[str] = []
    fixed: list[str] = []

    def visit(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if any(name.startswith(f"{table}/") for table in tables):
            return  # what pandas notes about a table
        if _is_table(node):
            tables.append(name)
        elif "axis0" in node or "block0_values" in node if isinstance(node, h5py.Group) else False:
            fixed.append(name)

    file.visititems(visit)
    wanted, field = params.key.strip("/"), "dataset.source.params.key"
    if wanted in fixed or (not tables and fixed):
        key = wanted if wanted in fixed else fixed[0]
        raise InvalidInput(
            f"{params.path}: pandas wrote {key!r} with format='fixed', which has no rows to read",
            field,
            "a table that pandas wrote with format='table'",
            f"write it again: pandas.read_hdf(file, {key!r}).to_hdf(file2, key={key!r}, "
            "format='table')",
        )
    if len(tables) == 1 and params.key == PandasTableParams.key:
        return tables[0]
    raise InvalidInput(
        f"{params.path} has no pandas table {params.key!r}; "
        + (f"its tables are {listed(tables)}" if tables else f"it holds {listed(list(file))}"),
        field,
        "one of its tables" if tables else "a table that pandas wrote with format='table'",
        "name the table to read" if tables else "",
    )


class _Plain(pickle.Unpickler):
    """Unpickles lists, strings and numbers, and refuses everything that needs code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it would execute {module}.{name}")


class _Guarded(h5py.File):  # type: ignore[misc]  # h5py has no types
    """An HDF5 file. What h5py raises about its contents is told as damage when it is closed."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        path = self.filename if self.id.valid else ""
        super().__exit__(kind, error, trace)
        if isinstance(error, UnicodeDecodeError) or (
            isinstance(error, OSError | RuntimeError | LookupError | ValueError | TypeError)
            and _raised_by_h5py(error)
        ):
            raise InvalidInput(
                f"{path} is damaged ({first_line(error)})",
                FIELD,
                "an HDF5 file that is complete",
                "copy or make it again",
            ) from error


def _raised_by_h5py(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any("h5py" in Path(frame.filename).parts[-3:] for frame in frames[-1:])


def open_hdf5(path: str | Path, kind: str = "an HDF5 file") -> h5py.File:
    """Open an HDF5 file for reading.

    Args:
        path: Path of the file.
        kind: What the file should be, for errors.

    Returns:
        The open file.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: No path is given, or the file is damaged or of another kind.
    """
    head = existing(path, kind)
    try:
        return _Guarded(path, "r")
    except OSError as error:
        raise _unreadable(path, kind, head, error) from None


def existing(path: str | Path, kind: str) -> bytes:
    """Return the first bytes of a file.

    Args:
        path: Path of the file.
        kind: What the file should be, for errors.

    Returns:
        Up to 512 bytes.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: No path is given, or the file may not be read or is empty.
    """
    if not str(path):
        raise InvalidInput("no file is given", FIELD, kind)
    if not Path(path).is_file():
        raise FileMissing(f"there is no file {path}", FIELD, kind)
    try:
        with Path(path).open("rb") as file:
            head = file.read(512)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidInput(
            f"{path} cannot be opened: {why}", FIELD, kind, "check its permissions"
        ) from None
    if not head:
        raise InvalidInput(
            f"{path} is empty, and so not {kind}", FIELD, kind, "copy or make it again"
        )
    return head


OTHERS = (
    (rb"\s*<(!doctype|html|\?xml|head|error)", "a web page", "download the file itself"),
    (rb"version https://git-lfs", "a pointer of Git LFS", "get the file: git lfs pull"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|PK\x03\x04", "compressed", "unpack it"),
    (rb"GRIB", "GRIB", "convert it"),
    (rb"\x0e\x03\x13\x01", "HDF4", "convert it"),
    (rb"CDF[\x01\x02\x05]", "NetCDF-3", "convert it"),
)
"""How files of other kinds begin, what they are, and what to do."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _unreadable(path: str | Path, kind: str, head: bytes, error: OSError) -> InvalidInput:
    """Make an error that says why a file cannot be opened as HDF5."""
    text = str(error)
    for pattern, what, remedy in OTHERS:
        if re.match(pattern, head, re.IGNORECASE):
            return InvalidInput(f"{path} is {what}, not {kind}", FIELD, kind, remedy)
    if "unable to lock" in text and error.errno in (errno.EAGAIN, errno.EACCES):
        return InvalidInput(
            f"another process has {path} open for writing", FIELD, kind, "close it there"
        )
    if "already open for" in text:  # a mark in the file, which a killed process leaves behind
        return InvalidInput(
            f"{path} is open for writing, or the process that wrote it was killed",
            FIELD,
            kind,
            "close it there; if nothing has it open: h5clear -s FILE",
        )
    if "truncated" in text:
        what = "truncated"
    else:
        what = "damaged" if head.startswith(SIGNATURE) else f"not {kind}"
    return InvalidInput(
        f"{path} is {what} ({first_line(error)})",
        FIELD,
        f"{kind} that is complete",
        "copy or make it again",
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
