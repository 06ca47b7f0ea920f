"""Readers of the files that users bring, one module for each format.

:func:`open_file` tells the format by the first bytes, and gives the members of the file. A
:class:`.base.Source` reads a member in parts, so that no more than a part is in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import FileMissing, InvalidInput
from ..pandas_hdf5 import OTHERS, SIGNATURE, existing
from .base import Member, Opened, Source, damaged

FORMATS = ".npy, .npz, HDF5, NetCDF, Zarr, CSV, Parquet, .pt, .safetensors or .mat"
"""The formats that are read, for errors."""
LONGEST_HEADER = 100_000_000
"""Largest header of a safetensors file in bytes, as its library allows."""


@contextmanager
def open_file(path: Path) -> Iterator[Opened]:
    """Open a file.

    Args:
        path: The file, or the folder of a Zarr store.

    Yields:
        The open file.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: The file is damaged, or of another format.
        NotReady: The worker lacks the package for the format.
    """
    if path.is_dir():
        from . import zarr_store

        if not zarr_store.is_store(path):
            raise InvalidInput(f"{path} is a folder, and no Zarr store", "", f"a file: {FORMATS}")
        with zarr_store.open_file(path) as opened:
            yield opened
        return
    if not path.exists():
        raise FileMissing(f"there is no file {path}", "", f"a file: {FORMATS}")
    if not path.is_file():
        raise InvalidInput(f"{path} is no file", "", f"a file: {FORMATS}")
    with _by_content(path, existing(path, "a file with arrays")) as opened:
        yield opened


@contextmanager
def _by_content(path: Path, head: bytes) -> Iterator[Opened]:
    from . import classic, csv_files, hdf5, matlab, numpy_files, parquet, torch_files, zarr_store

    suffix = path.suffix.lower()
    if head.startswith(numpy_files.MAGIC):
        yield numpy_files.open_npy(path)
    elif head.startswith(SIGNATURE) or head.startswith(hdf5.MATLAB) or suffix in (".h5", ".hdf5"):
        with hdf5.open_file(path, head) as opened:
            yield opened
    elif re.match(rb"CDF[\x01\x02\x05]", head):
        with classic.open_file(path, head) as opened:
            yield opened
    elif head.startswith(b"PAR1"):
        with parquet.open_file(path) as opened:
            yield opened
    elif head.startswith(b"MATLAB 5") or suffix == ".mat":
        yield matlab.open_file(path)
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        yield torch_files.open_file(path)
    elif head.startswith(b"PK\x03\x04"):
        names = _names(path)
        if any(Path(name).name in zarr_store.MARKS for name in names):
            with zarr_store.open_file(path) as opened:
                yield opened
        elif any(name.endswith("data.pkl") for name in names) or suffix in (".pt", ".pth"):
            yield torch_files.open_file(path)
        else:
            yield numpy_files.open_npz(path)
    elif head.startswith(b"\x80") and suffix not in csv_files.SUFFIXES:
        yield torch_files.open_file(path)
    elif suffix in csv_files.SUFFIXES:
        yield csv_files.open_file(path)
    else:
        raise _unknown(path, head)


def _names(path: Path) -> list[str]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception as error:  # a damaged archive can raise any error, e.g. UnicodeDecodeError
        raise damaged(path, "it is no zip archive that is complete", error) from error


def _unknown(path: Path, head: bytes) -> InvalidInput:
    for pattern, what, remedy in OTHERS:
        if re.match(pattern, head, re.IGNORECASE):
            return InvalidInput(f"{path} is {what}", "", FORMATS, remedy)
    kinds = {
        ".npy": ".npy",
        ".npz": ".npz",
        ".parquet": "Parquet",
        ".nc": "NetCDF",
        ".safetensors": "safetensors",
        ".pt": "PyTorch",
    }
    kind = kinds.get(path.suffix.lower())
    if kind is not None:
        return damaged(path, f"its first bytes are not those of a {kind} file")
    return InvalidInput(f"{path} has a format that is not known", "", FORMATS)


__all__ = ["FORMATS", "Member", "Opened", "Source", "open_file"]
