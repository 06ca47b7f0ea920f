"""Reads NetCDF-3 files, mapped into memory."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..netcdf import classic_variable, refuse_cdf5
from .base import Index, Member, Numbers, Opened, Source, damaged, not_numbers


@contextmanager
def open_file(path: Path, head: bytes) -> Iterator[Opened]:
    """Open a NetCDF-3 file.

    Args:
        path: The file.
        head: Its first bytes.

    Yields:
        The open file.

    Raises:
        InvalidInput: The file is damaged.
    """
    from scipy.io import netcdf_file

    refuse_cdf5(path, head[3:4])
    try:
        file = netcdf_file(path, "r", mmap=True, maskandscale=False)
        found = dict(file.variables)
    except MemoryError:
        raise
    except Exception as error:  # SciPy has no errors of its own for damaged files
        failed = damaged(path, "NetCDF-3", error)
        error.__traceback__ = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as below
            gc.collect()
        raise failed from None
    try:
        sources = {name: _source(path, name, v) for name, v in found.items()}
        yield Opened(path, "NetCDF-3", [s.member for s in sources.values()], sources.__getitem__)
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about arrays that still refer to the mapping
            file.close()


def _source(path: Path, name: str, v: Any) -> Source:
    variable = classic_variable(path, name, v)
    text = variable.dtype.kind == "S"
    member = Member(
        name,
        variable.shape,
        variable.dtype.str,
        variable.dims,
        variable.units,
        coordinate=variable.dims == (name,),
        problem="text" if text else not_numbers(variable.dtype),
    )

    def get(index: Index) -> Numbers:
        # A copy, as the numbers of records are not aligned.
        return variable.masked(np.array(v.data[index]))

    return Source(path, member, get)
