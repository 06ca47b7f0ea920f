"""Reads Zarr stores: folders, or the same in a zip file, by the conventions of xarray."""

from __future__ import annotations

import base64
import math
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidInput
from ..netcdf import Variable, _attributes
from .base import Index, Member, Numbers, Opened, Source, check_stored, damaged, not_numbers
from .packages import need

MARKS = (".zgroup", ".zarray", "zarr.json")
"""Names of files that a store has at its top."""
DEEPEST = 16
"""Largest depth of groups."""


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / mark).is_file() for mark in MARKS)


@contextmanager
def open_file(path: Path) -> Iterator[Opened]:
    """Open a store.

    Args:
        path: A folder, or a zip file of one.

    Yields:
        The open store.

    Raises:
        InvalidInput: The store is damaged, or has a link in it.
    """
    zarr = need("zarr", "Zarr stores")
    refuse_links(path)
    store = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about consolidated metadata
            if path.is_dir():
                root = zarr.open(str(path), mode="r")
            else:
                store = zarr.storage.ZipStore(str(path), mode="r")
                root = zarr.open(store, mode="r")
            arrays = dict(_arrays(root, "", 0))
    except (MemoryError, InvalidInput):
        raise
    except Exception as error:  # Zarr has errors of many types for damaged stores
        raise damaged(path, "it is no Zarr store that can be read", error) from error
    said: list[str] = []
    sources: dict[str, Source] = {}
    try:
        for name, array in arrays.items():
            sources[name] = _source(path, name, array)

        def source(name: str) -> Source:
            _check(path, name, arrays[name], said)
            return sources[name]

        yield Opened(path, "Zarr", [s.member for s in sources.values()], source, said)
    finally:
        if store is not None:
            store.close()


def refuse_links(path: Path) -> None:
    """Refuse a folder in which a link may lead elsewhere.

    Raises:
        InvalidInput: There is a symbolic link in the folder.
    """
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(folder, name)):
                raise InvalidInput(
                    f"{path} has a symbolic link in it: {os.path.relpath(folder, path)}/{name}",
                    "",
                    "a store without links",
                    "copy it with the files that its links lead to: cp -rL OLD NEW",
                )


def _arrays(root: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if not hasattr(root, "groups"):
        yield "", root
        return
    for name, array in root.arrays():
        yield f"{prefix}{name}", array
    if depth < DEEPEST:
        for name, group in root.groups():
            yield from _arrays(group, f"{prefix}{name}/", depth + 1)


def _source(path: Path, name: str, array: Any) -> Source:
    attributes = dict(array.attrs)
    version = getattr(array.metadata, "zarr_format", 2)
    if version == 2:
        dims = attributes.get("_ARRAY_DIMENSIONS")
    else:
        dims = array.metadata.dimension_names
    named = isinstance(dims, (list, tuple)) and len(dims) == array.ndim
    names = tuple(str(d) if d is not None else None for d in dims) if named and dims else ()
    dtype = np.dtype(array.dtype)
    problem = not_numbers(dtype)
    fill = attributes.get("_FillValue")
    if version == 2 and fill is None and names and array.fill_value not in (None, 0):
        fill = array.fill_value  # as xarray takes it
    given = {**attributes, "_FillValue": _fill(fill, dtype)}
    variable = Variable(
        path,
        name,
        tuple(array.shape),
        dtype,
        _attributes({k: v for k, v in given.items() if v is not None}),
        lambda: names,
        lambda _: np.empty(0),
        default_fills=False,
    )
    member = Member(
        name,
        tuple(array.shape),
        dtype.str if not problem else str(dtype),
        names,
        variable.units,
        coordinate=names == (name.rsplit("/", 1)[-1],),
        problem=problem,
    )

    def get(index: Index) -> Numbers:
        values = np.asarray(array[index])
        return values if values.dtype.kind == "b" else variable.masked(values)

    return Source(path, member, get, tuple(getattr(array, "shards", None) or array.chunks))


def _fill(given: Any, dtype: np.dtype[Any]) -> Any:
    """Decode a fill value: xarray writes that of a number in Zarr 3 as base64."""
    if isinstance(given, str):
        try:
            code = "<d" if dtype.kind == "f" else "<q"
            return struct.unpack(code, base64.standard_b64decode(given))[0]
        except (ValueError, struct.error):
            try:
                return float(given)
            except ValueError:
                return None
    return given


def _check(path: Path, name: str, array: Any, said: list[str]) -> None:
    """Refuse an array of which too little is stored; say which blocks are not."""
    chunk = math.prod(getattr(array, "shards", None) or array.chunks)
    declared = math.prod(array.shape) * array.dtype.itemsize
    if chunk * array.dtype.itemsize > 2**31:
        raise damaged(path, f"{name or 'the array'} has blocks of {chunk:,} numbers")
    try:
        stored = array.nbytes_stored
        stored = int(stored() if callable(stored) else stored)
        there, total = int(array.nchunks_initialized), int(array.nchunks)
    except Exception as error:  # as above
        raise damaged(path, f"{name or 'the array'} cannot be looked at", error) from error
    if there == 0:
        check_stored(path, name, declared, 0)
    check_stored(path, name, declared, stored)
    if there < total:
        said.append(
            f"{path}: {total - there} of the {total} blocks of {name or 'the array'} are not "
            f"stored; they count as {array.fill_value}"
        )
