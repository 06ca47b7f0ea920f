"""Small weather written as other tools write it, for tests: ``python netcdf.py OUT``.

It writes ``OUT/published`` in ClimateNet's layout; the same as ``OUT/turned``, ``packed`` and
``classic``; and ``OUT/missing``, ``untold``, ``units`` and ``page``, which are to be refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import netcdf_file

from atlas_worker.datasets.climatenet import UNITS
from atlas_worker.generators.climatenet import generate

GRID = (96, 144)
FIELDS = ("TMQ", "U850", "V850", "PSL")
Planes = dict[str, NDArray[Any]]


def write(path: Path, planes: Planes, names: tuple[str, str] = ("lat", "lon"), **more: str) -> None:
    with h5py.File(path, "w") as file:
        for name in names:
            file[name] = planes[name]
            file[name].make_scale(name)
        for name in (*FIELDS, "LABELS"):
            file[name] = planes[name]
            file[name].attrs.update({"units": UNITS.get(name, "1"), **more})
            for axis in range(2):
                (scale,) = (n for n in names if len(planes[n]) == planes[name].shape[axis])
                file[name].dims[axis].attach_scale(file[scale])


def turned(path: Path, planes: Planes) -> None:
    """From the north, from −180, columns first, with other names of the coordinates."""
    half = GRID[1] // 2
    lon = np.roll(planes["lon"], half)
    other = {n: np.roll(v[::-1], half, 1).T for n, v in planes.items() if v.ndim == 2}
    other |= {"latitude": planes["lat"][::-1], "longitude": np.where(lon >= 180, lon - 360, lon)}
    write(path, other, ("latitude", "longitude"))


def packed(path: Path, planes: Planes) -> None:
    write(path, planes)
    with h5py.File(path, "a") as file:
        for name in FIELDS:
            values = planes[name].astype(np.float64)
            scale, offset = np.ptp(values) / 65_000, (values.max() + values.min()) / 2
            attributes = dict(file[name].attrs)
            del file[name]
            file[name] = np.rint((values - offset) / scale).astype(np.int16)
            file[name].attrs["units"] = attributes["units"]
            file[name].attrs.update(scale_factor=scale, add_offset=offset)
            for axis, own in enumerate(("lat", "lon")):
                file[name].dims[axis].attach_scale(file[own])


def classic(path: Path, planes: Planes) -> None:
    with netcdf_file(path, "w") as file:
        for name, count in zip(("lat", "lon"), GRID, strict=True):
            file.createDimension(name, count)
        for name, values in planes.items():
            kind = {"f": "f", "i": "i"}[values.dtype.kind] if values.ndim == 2 else "d"
            dims = ("lat", "lon") if values.ndim == 2 else (name,)
            made = file.createVariable(name, kind, dims)
            made[:] = values.astype(made.data.dtype)
            if name in UNITS:
                made.units = UNITS[name]


def missing(path: Path, planes: Planes) -> None:
    values = planes["PSL"].copy()
    values[3, 4:7] = 1e20
    write(path, planes | {"PSL": values}, missing_value="1e20")
    with h5py.File(path, "a") as file:
        for name in (*FIELDS, "LABELS"):
            file[name].attrs["missing_value"] = 1e20


def untold(path: Path, planes: Planes) -> None:
    write(path, planes | {"rows": planes["lat"], "columns": planes["lon"]}, ("rows", "columns"))


def units(path: Path, planes: Planes) -> None:
    write(path, planes)
    with h5py.File(path, "a") as file:
        file["PSL"].attrs["units"] = "mm"


def page(path: Path, planes: Planes) -> None:
    path.write_text("<!DOCTYPE html>\n<html><body>404</body></html>\n")


def main() -> None:
    out = Path(sys.argv[1])
    generate(4, 3, out / "published", 1, shape=GRID)
    kinds: list[Callable[[Path, Planes], None]] = [
        *(turned, packed, classic),
        *(missing, untold, units, page),
    ]
    for source in sorted((out / "published").glob("*/*.nc")):
        with h5py.File(source) as file:
            planes = {n: np.squeeze(file[n][()]) for n in ("lat", "lon", *FIELDS, "LABELS")}
        for kind in kinds:
            path = out / kind.__name__ / source.parent.name / source.name
            path.parent.mkdir(parents=True, exist_ok=True)
            kind(path, planes)


if __name__ == "__main__":
    main()
