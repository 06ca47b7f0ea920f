"""Reads HDF5, NetCDF-4 and MATLAB 7.3 files.

No link leads out of the file: external links, external storage and virtual datasets of other files
are refused, as they may lead out of the folder that a worker may read.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import InvalidInput, listed
from ..netcdf import _attribute_names, _attributes, _hdf5_variable, _Scales
from ..pandas_hdf5 import _Plain, open_hdf5
from .base import (
    Index,
    Member,
    Numbers,
    Opened,
    Source,
    check_stored,
    damaged,
    inner,
    not_numbers,
    table_members,
)

NETCDF = {".nc", ".nc4", ".cdf", ".netcdf", ".nc3"}
"""Suffixes of NetCDF files."""
MOST = 20_000
"""Largest number of arrays in a file that are listed."""
DEEPEST = 32
"""Largest depth of groups, and largest number of links in a row."""
MATLAB = b"MATLAB 7.3"
"""How a MATLAB 7.3 file begins."""
_MATLAB_PROBLEMS = {"char": "text", "cell": "cells", "struct": "structures"}


@contextmanager
def open_file(path: Path, head: bytes) -> Iterator[Opened]:
    """Open a file that is HDF5.

    Args:
        path: The file.
        head: Its first bytes.

    Yields:
        The open file.

    Raises:
        InvalidInput: The file is damaged.
    """
    matlab = head.startswith(MATLAB)
    with open_hdf5(path) as file:
        netcdf = "_NCProperties" in file.attrs or path.suffix.lower() in NETCDF
        kind = "MATLAB 7.3" if matlab else "NetCDF-4" if netcdf else "HDF5"
        reader = _Reader(path, file, matlab, netcdf)
        yield Opened(path, kind, reader.members(), reader.source, follow=reader.follow)


class _Reader:
    def __init__(self, path: Path, file: h5py.File, matlab: bool, netcdf: bool) -> None:
        self._path, self._file, self._matlab, self._netcdf = path, file, matlab, netcdf
        self._sources: dict[str, Source] = {}
        self._stored: dict[str, str] = {}
        """Name of the dataset in the file by the name of the member."""

    def members(self) -> list[Member]:
        names = list(self._walk(self._file, "", 0, set()))
        if len(names) > MOST:
            raise InvalidInput(
                f"{self._path} holds more than {MOST:,} arrays", "", "a file with fewer arrays"
            )
        self._scales = _Scales(self._file, [n for n in names if self._is_line(n)])
        for name in names:
            self._add(name)
        found = [source.member for source in self._sources.values()]
        lines = {m.dims[0] for m in found if len(m.dims) == 1}
        named = {d for m in found if len(m.dims) > 1 for d in m.dims if d in lines}
        for source in self._sources.values():
            m = source.member
            if (len(m.dims) == 1 and m.dims[0] == _last(m.name) and m.dims[0] in named) or (
                self._netcdf and m.coordinate
            ):
                source.member = replace(m, coordinate=True)
        return [source.member for source in self._sources.values()]

    def source(self, name: str) -> Source:
        source = self._sources[name]
        dataset = self._file[self._stored[name]]
        check_dataset(self._path, name, dataset)
        return source

    def _is_line(self, name: str) -> bool:
        dataset = self._file[name]
        return dataset.shape is not None and len(dataset.shape) == 1

    def _walk(self, group: h5py.Group, prefix: str, depth: int, seen: set[Any]) -> Iterator[str]:
        """Yield the names of all datasets that hard links lead to."""
        address = h5py.h5o.get_info(group.id).addr
        if depth > DEEPEST or address in seen:
            return
        seen = {*seen, address}
        count = 0
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink) or (self._matlab and name.startswith("#")):
                continue
            count += 1
            if count > MOST:
                break
            item = group.get(name)
            if isinstance(item, h5py.Dataset):
                yield f"{prefix}{name}"
            elif isinstance(item, h5py.Group):
                if self._matlab and "MATLAB_sparse" in item.attrs:
                    continue
                yield from self._walk(item, f"{prefix}{name}/", depth + 1, seen)

    def follow(self, name: str) -> str | None:
        """Find the hard path of a name that leads over soft links.

        Raises:
            InvalidInput: A link leads to another file.
        """
        left, at, steps = [p for p in name.split("/") if p], list[str](), 0
        while left:
            part = left.pop(0)
            if part in (".", ".."):
                return None
            group = self._file["/".join(at)] if at else self._file
            if not isinstance(group, h5py.Group):
                return None
            link = group.get(part, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise InvalidInput(
                    f"{self._path}: {name} is a link to another file, {link.filename}",
                    "",
                    "an array in the file itself",
                    "give that file by its own name",
                )
            if isinstance(link, h5py.SoftLink):
                steps += 1
                if steps > DEEPEST:
                    return None
                target = [p for p in link.path.split("/") if p]
                at = [] if link.path.startswith("/") else at
                left = target + left
                continue
            if not isinstance(link, h5py.HardLink):
                return None
            at.append(part)
        return "/".join(at)

    def _add(self, name: str) -> None:
        dataset = self._file[name]
        shape = dataset.shape
        if shape is None:
            return
        try:
            dtype = dataset.dtype
        except TypeError:  # a type that NumPy does not have
            dtype = np.dtype(object)
        if dtype.names is not None:
            self._add_table(name, dataset, dtype)
            return
        self._stored[name] = name
        if self._matlab:
            self._add_matlab(name, dataset, dtype)
            return
        variable = _hdf5_variable(self._path, self._file, name, self._scales)
        if variable is None:  # a dimension without coordinates
            return
        variable = variable.plain() if not self._netcdf else variable
        dims = tuple(None if d is None else _last(d) for d in variable.dims)
        if not any(dims):
            dims = _labels(dataset, len(shape))
        problem = not_numbers(dtype)
        member = Member(
            name,
            tuple(shape),
            str(dtype.str) if not problem else str(dtype),
            dims if any(dims) else (),
            variable.units,
            coordinate=_told_coordinate(dataset, dims, name),
            problem=problem,
        )

        def get(index: Index) -> Numbers:
            if 0 in [s.stop - s.start for s in index]:
                return np.empty([s.stop - s.start for s in index], dtype)
            values = dataset[index]
            return values if values.dtype.kind == "b" else variable.masked(values)

        self._sources[name] = Source(self._path, member, get, dataset.chunks)

    def _add_table(self, name: str, dataset: h5py.Dataset, dtype: np.dtype[Any]) -> None:
        pandas = name.endswith("/table") and "values_block_0" in (dtype.names or ())
        called = name[: -len("/table")] if pandas else name

        def names(block: str) -> list[str] | None:
            return _pandas_names(dataset, block) if pandas else None

        rank = len(dataset.shape)
        use = dtype
        if pandas:  # the index is no column
            use = np.dtype(
                {
                    "names": [n for n in dtype.names or () if n != "index"],
                    "formats": [dtype[n] for n in dtype.names or () if n != "index"],
                }
            )
        chunks = dataset.chunks
        for key, (member, turn) in table_members(called, dataset.shape, use, names=names).items():

            def get(index: Index, turn: Any = turn) -> Numbers:
                return inner(turn(dataset[index[:rank]]), index, rank)

            self._stored[key] = name
            whole = (*chunks, *member.shape[rank:]) if chunks else None
            self._sources[key] = Source(self._path, member, get, whole, sequential=True)

    def _add_matlab(self, name: str, dataset: h5py.Dataset, dtype: np.dtype[Any]) -> None:
        """Add a MATLAB variable, whose axes are in the reverse order in the file."""
        called = dataset.attrs.get("MATLAB_class", b"")
        word = called.decode() if isinstance(called, bytes) else str(called)
        problem = _MATLAB_PROBLEMS.get(word, not_numbers(dtype))
        empty = "MATLAB_empty" in dataset.attrs
        shape = () if empty else tuple(reversed(dataset.shape))
        chunks = tuple(reversed(dataset.chunks)) if dataset.chunks else None
        member = Member(name, shape if not empty else (0, 0), dtype.str, problem=problem)

        def get(index: Index) -> Numbers:
            if empty:
                return np.empty((0, 0))
            values: Numbers = np.transpose(dataset[tuple(reversed(index))])
            return values

        self._sources[name] = Source(self._path, member, get, chunks)


def check_dataset(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose numbers are not in the file.

    Args:
        path: The file.
        name: Name of the dataset.
        dataset: The dataset.

    Raises:
        InvalidInput: The numbers are in another file, or the file stores too few.
    """
    elsewhere: set[str] = set()
    if dataset.external:
        elsewhere = {str(entry[0]) for entry in dataset.external}
    if dataset.is_virtual:
        elsewhere = {s.file_name for s in dataset.virtual_sources()} - {"."}
        if not elsewhere:
            return
    if elsewhere:
        raise InvalidInput(
            f"{path}: the numbers of {name} are in other files ({listed(sorted(elsewhere), 3)})",
            "",
            "an array whose numbers are in the file itself",
            "copy it into one file, for example with h5py",
        )
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = int(dataset.id.get_storage_size())
    compact = dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT
    if not compact:
        check_stored(path, name, declared, stored)
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > 2**31:
        raise damaged(path, f"{name} has blocks of {math.prod(dataset.chunks):,} numbers")


def _pandas_names(dataset: h5py.Dataset, block: str) -> list[str] | None:
    kind = dataset.attrs.get(f"{block}_kind")
    if not isinstance(kind, bytes | np.bytes_):
        return None
    try:
        names = _Plain(io.BytesIO(bytes(kind))).load()
    except Exception:  # a damaged pickle can raise any error
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _labels(dataset: h5py.Dataset, rank: int) -> tuple[str | None, ...]:
    """Names of the axes that h5py's ``dims[i].label`` stores."""
    if "DIMENSION_LABELS" not in _attribute_names(dataset):
        return (None,) * rank
    given = dataset.attrs["DIMENSION_LABELS"]
    texts = [t.decode() if isinstance(t, bytes) else str(t) for t in np.asarray(given).reshape(-1)]
    return tuple(t or None for t in texts) if len(texts) == rank else (None,) * rank


def _told_coordinate(dataset: h5py.Dataset, dims: tuple[str | None, ...], name: str) -> bool:
    given = _attributes({a: dataset.attrs[a] for a in ("units", "axis") if a in dataset.attrs})
    text = str(given.get("units", ""))
    return (len(dims) == 1 and dims[0] == _last(name)) and (" since " in text or "axis" in given)


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]
