"""HDF5 tables of sets of vectors, as pandas writes them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

COMPONENTS = ("E", "PX", "PY", "PZ")


def columns(items: int) -> list[str]:
    return [f"{c}_{i}" for i in range(items) for c in COMPONENTS]


def write(
    path: Path,
    values: NDArray[Any],
    labels: NDArray[Any],
    names: list[str] | None = None,
    key: str = "table",
    kind: bytes | None = None,
    chunk: int = 16,
) -> Path:
    """Write a file as ``DataFrame.to_hdf(format="table")``: ``names``, ttv and is_signal_new."""
    names = columns(values.shape[1] // 4) if names is None else names
    integers = np.stack([np.full_like(labels, 5), labels], 1) if labels.ndim == 1 else labels
    dtype = np.dtype(
        [
            ("index", "<i8"),
            ("values_block_0", values.dtype, (values.shape[1],)),
            ("values_block_1", integers.dtype, (integers.shape[1],)),
        ]
    )
    rows = np.zeros(len(values), dtype)
    rows["index"], rows["values_block_0"], rows["values_block_1"] = (
        np.arange(len(values)) + 1000,
        values,
        integers,
    )
    with h5py.File(path, "w") as file:
        table = file.create_group(key).create_dataset(
            "table", data=rows, chunks=(chunk,), maxshape=(None,), compression="gzip"
        )
        table.attrs["values_block_0_kind"] = np.bytes_(
            pickle.dumps(names, 0) if kind is None else kind
        )
        table.attrs["values_block_1_kind"] = np.bytes_(pickle.dumps(["ttv", "is_signal_new"], 0))
        table.attrs["index_kind"] = np.bytes_(b"integer")
    return path
