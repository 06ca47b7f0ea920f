"""Reads MATLAB files of version 4 to 7.2 (those of 7.3 are HDF5)."""

from __future__ import annotations

import math
from pathlib import Path

from .base import Index, Member, Numbers, Opened, Source, check_stored, damaged

_NUMBERS = {
    "double",
    "single",
    "logical",
    *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)),
}
_PROBLEMS = {"char": "text", "cell": "cells", "struct": "structures", "sparse": "a sparse matrix"}


def open_file(path: Path) -> Opened:
    """Open a MATLAB file. A variable is read whole, as it is compressed as one.

    Raises:
        InvalidInput: The file is damaged.
    """
    from scipy.io import loadmat, whosmat

    try:
        found = whosmat(str(path))
    except MemoryError:
        raise
    except Exception as error:  # SciPy has errors of many types for damaged files
        raise damaged(path, "it is no MATLAB file that can be read", error) from error
    size = path.stat().st_size
    sources: dict[str, Source] = {}
    for name, shape, kind in found:
        problem = "" if kind in _NUMBERS else _PROBLEMS.get(kind, kind)
        declared = math.prod(shape) * 8
        held: dict[str, Numbers] = {}

        def get(index: Index, name: str = name, held: dict[str, Numbers] = held) -> Numbers:
            if name not in held:
                held[name] = loadmat(str(path), variable_names=[name])[name]
            values: Numbers = held[name][index]
            return values

        member = Member(name, tuple(map(int, shape)), kind, problem=problem)
        sources[name] = Source(path, member, get, memory=declared)

    def source(name: str) -> Source:
        check_stored(path, name, sources[name].memory, size)
        return sources[name]

    return Opened(path, "MATLAB", [s.member for s in sources.values()], source)
