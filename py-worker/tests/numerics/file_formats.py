"""The same numbers in files of every format: ``python file_formats.py OUT``."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas
import scipy.io
import torch
import xarray
from numpy.typing import NDArray
from safetensors.torch import save_file

ITEMS, N = 2, 3
ROWS = 60
HEIGHT = WIDTH = 24
COLUMNS = [f"{axis}{i}" for i in range(ITEMS) for axis in "xyz"]


def sets() -> tuple[NDArray[Any], NDArray[Any]]:
    """Sets of vectors ``[60, 2, 3]``, and their inner products ``[60]``, float32."""
    x = np.random.default_rng(0).normal(size=(ROWS, ITEMS, N)).astype("f4")
    return x, (x[:, 0] * x[:, 1]).sum(1)


def fields() -> tuple[NDArray[Any], NDArray[Any]]:
    """Fields ``[12, 2, 24, 24]``, and their sums ``[12, 24, 24]``, float32."""
    f = np.random.default_rng(1).normal(size=(12, 2, HEIGHT, WIDTH)).astype("f4")
    return f, f.sum(1)


def write_sets(out: Path) -> dict[str, tuple[str, str]]:
    """Write sets in every format.

    Returns:
        By format: what to give as inputs and as targets, relative to ``out``.
    """
    x, y = sets()
    flat = x.reshape(ROWS, -1)
    arrays = {"x": x, "y": y}
    np.save(out / "x.npy", x)
    np.save(out / "y.npy", y)
    np.save(out / "big-endian.npy", np.asfortranarray(x.astype(">f8")))
    np.savez(out / "stored.npz", x=x, y=y)
    np.savez_compressed(out / "packed.npz", x=x, y=y, turned=np.asfortranarray(x))
    with h5py.File(out / "sets.h5", "w") as h:
        h.create_dataset("x", data=x, chunks=(7, 2, 3), compression="gzip", shuffle=True)
        h["labels/y"] = y.astype(">f8")
        rows = np.zeros(ROWS, [(name, "f4") for name in COLUMNS] + [("y", "f8")])
        for i, name in enumerate(COLUMNS):
            rows[name] = flat[:, i]
        rows["y"] = y
        h["table"] = rows
    frame = pandas.DataFrame(flat, columns=COLUMNS).assign(y=y)
    frame.to_csv(out / "sets.csv", index=False)
    np.savetxt(out / "plain.txt", flat.astype("f8"))
    torch.save({name: torch.from_numpy(a) for name, a in arrays.items()}, out / "sets.pt")
    save_file({name: torch.from_numpy(a) for name, a in arrays.items()}, out / "sets.safetensors")
    scipy.io.savemat(out / "old.mat", {**arrays, "y": y[:, None]}, do_compression=True)
    with h5py.File(out / "new.mat", "w", userblock_size=512) as h:
        for name, a in {"x": x, "y": y[:, None]}.items():
            h.create_dataset(name, data=a.T).attrs["MATLAB_class"] = np.bytes_("single")
    with (out / "new.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    made = {
        ".npy": ("x.npy", "y.npy"),
        ".npy, big-endian": ("big-endian.npy", "y.npy"),
        ".npz": ("stored.npz:x", "stored.npz:y"),
        ".npz, packed": ("packed.npz:x", "packed.npz:y"),
        ".npz, packed, turned": ("packed.npz:turned", "packed.npz:y"),
        "HDF5": ("sets.h5:/x", "sets.h5:/labels/y"),
        "PyTorch": ("sets.pt:x", "sets.pt:y"),
        "safetensors": ("sets.safetensors:x", "sets.safetensors:y"),
        "MATLAB 5": ("old.mat:x", "old.mat:y"),
        "MATLAB 7.3": ("new.mat:x", "new.mat:y"),
    }
    try:
        import zarr
    except ImportError:
        return made
    group = zarr.open(str(out / "sets.zarr"), mode="w")
    for name, a in arrays.items():
        group.create_array(name, data=a, chunks=(7, *a.shape[1:]))
    frame.to_parquet(out / "sets.parquet", row_group_size=9)
    return {**made, "Zarr": ("sets.zarr:x", "sets.zarr:y")}


def flat_sets() -> dict[str, tuple[str, str]]:
    """By format: tables that :func:`write_sets` wrote, whose columns are the sets' numbers."""
    columns = ",".join(COLUMNS)
    made = {
        "CSV": (f"sets.csv:{columns}", "sets.csv:y"),
        "text": ("plain.txt", "y.npy"),
        "records": (",".join(f"table/{c}" for c in COLUMNS), "sets.h5:table/y"),
        "Parquet": (f"sets.parquet:{columns}", "sets.parquet:y"),
    }
    return {**made, "records": (f"sets.h5:{made['records'][0]}", made["records"][1])}


def write_fields(out: Path) -> dict[str, tuple[str, str]]:
    """Write fields in the formats that name their axes, and as arrays; as :func:`write_sets`."""
    f, g = fields()
    np.save(out / "f.npy", f)
    np.save(out / "g.npy", g)
    axes = ("time", "lat", "lon")
    data = xarray.Dataset(
        {"U": (axes, f[:, 0], {"units": "m s-1"}), "V": (axes, f[:, 1]), "RAIN": (axes, g)},
        {
            "lat": np.linspace(46, 0, HEIGHT),
            "lon": np.arange(WIDTH) * 2.0,
            "time": np.arange(len(f)),
        },
    )
    data.to_netcdf(out / "storms3.nc", engine="scipy")
    with h5py.File(out / "storms4.nc", "w") as h:
        for name, values in data.coords.items():
            h[str(name)] = values.to_numpy()
            h[str(name)].make_scale(str(name))
        for name in data.data_vars:
            h.create_dataset(str(name), data=data[name].to_numpy(), compression="gzip")
            h[str(name)].attrs.update(data[name].attrs)
            for i, axis in enumerate(axes):
                h[str(name)].dims[i].attach_scale(h[axis])
    made = {
        ".npy": ("f.npy", "g.npy"),
        "NetCDF-3": ("storms3.nc:U,V", "storms3.nc:RAIN"),
        "NetCDF-4": ("storms4.nc:U,V", "storms4.nc:RAIN"),
    }
    try:
        import zarr  # noqa: F401
    except ImportError:
        return made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about consolidated metadata
        data.to_zarr(out / "storms.zarr", mode="w")
        data.to_zarr(out / "storms2.zarr", mode="w", zarr_format=2)
    return {
        **made,
        "Zarr": ("storms.zarr:U,V", "storms.zarr:RAIN"),
        "Zarr 2": ("storms2.zarr:U,V", "storms2.zarr:RAIN"),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_sets(folder)
    write_fields(folder)
