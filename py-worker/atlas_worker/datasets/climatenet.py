"""ClimateNet from NetCDF files (METHOD 3.4).

The files hold fields of the atmosphere, and experts' labels of tropical cyclones and atmospheric
rivers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..catalogue import param, register
from ..checkpointing import check_kind
from ..errors import FileMissing, InvalidInput
from ..generators.common import in_order
from ..trainable import StepCallback
from .base import MadeDataset, no_tensors
from .cache import Cache, user_folder
from .pandas_hdf5 import FIELD, first_line, open_hdf5

NORMAL = {
    "TMQ": (19.21859, 15.81723),
    "U850": (1.55302, 8.29764),
    "V850": (0.25413, 6.23163),
    "PSL": (100814.414, 1461.2227),
    "PRECT": (2.9458e-08, 1.5564e-07),
    "UBOT": (0.1249, 6.6533),
    "VBOT": (0.3154, 5.7842),
    "QREFHT": (0.0078, 0.0062),
    "PS": (96571.6172, 9700.1006),
    "T200": (213.2091, 7.8898),
    "T500": (253.0382, 12.8253),
    "TS": (278.7115, 23.6825),
    "TREFHT": (278.4212, 22.5119),
    "Z1000": (474.1728, 832.8082),
    "Z200": (11736.1035, 633.2581),
    "ZBOT": (61.3115, 4.9095),
}
"""Mean and standard deviation of each variable in its own units. The first four are the default."""
CLASSES = ("background", "tropical cyclone", "atmospheric river")
LABELS = "LABELS"
"""Name of the labels in a file."""
NAME = re.compile(r"(data-\d{4}-\d{2}-\d{2}-\d+-\d+)_(\d+)\.nc")
"""Name of a file: the time, and the number of the expert."""
KIND = "a NetCDF-4 file"
READERS = 2
"""Threads that read files.

HDF5 reads one file at a time, while another is normalised and a third is written. Two processes
would read compressed files 1.3 times as fast, but take 2 s each to start. Uncompressed files wait
for the disk in any case.
"""


@dataclass(frozen=True)
class ClimateNetParams:
    """Parameters of the dataset ``climatenet`` (METHOD 3.4)."""

    path: str = param("", "Folder with files named data-YYYY-MM-DD-….nc", file=True)
    variables: str = param(
        "TMQ,U850,V850,PSL", "Variables to read as channels, in this order, separated by commas"
    )
    files: int = param(0, "Number of files to read, the first by name; 0 for all", minimum=0)
    stride: int = param(
        1, "Take every n-th row and column, from the north and the west", minimum=1, maximum=384
    )
    storage: Literal["disk", "memory"] = param(
        "disk",
        "Cache decoded fields on the worker's disk, also for later runs, or hold them in memory",
        former="keep",
    )
    cache: str = param("", "Folder of the cache; empty for the worker's default", file=True)


@register(
    "dataset",
    "climatenet",
    "Weather fields of ClimateNet with experts' labels of storms",
    ClimateNetParams,
)
class ClimateNet(MadeDataset):
    """Weather fields as inputs, and labels of pixels as targets (METHOD 3.4).

    Inputs are ``[N, channels, H, W]`` float32, minus the mean and over the standard deviation in
    ``NORMAL``. Targets are ``[N, 1, H, W]`` uint8: 0 background, 1 tropical cyclone, 2 atmospheric
    river. Each file is one sample, in the order of their names.

    Rows run south and columns east, as on every lattice in Atlas. If a file's ``lat`` ascends, its
    rows are flipped. Then every ``stride``-th row is taken, beginning with the northernmost. If
    several experts labelled one time, each has a file with the same fields (see :func:`time_of` and
    ``scenes``). Opening the dataset checks that every file is complete, and what it contains;
    reading checks the values that are used.

    The data are ``N H W (4 channels + 1)`` bytes, with H and W divided by the stride. All 461 files
    are 7 GB with 4 channels, and 26 GB with 16. Reading also needs the memory of the fields of
    ``READERS + 1`` files.

    With ``storage = "memory"`` the data are on the device. With "disk" they are written into a
    cache as the files are read, and mapped into memory from there, also by later runs (see
    :class:`.cache.Cache`). The system then keeps the used parts in memory as far as there is room.
    Such tensors are on the CPU whatever the device, unless a CUDA device has twice their size free
    when the dataset is opened; then they are copied to it.

    The cache is in ``$XDG_CACHE_HOME/atlas-symmetry/climatenet`` of the worker's user (by default
    in ``~/.cache``), or in the folder ``cache``, which must lie within the worker's data root like
    any file that a client names. Its key is a hash of the folder, names, sizes and modification
    times of the files, of the variables and of the stride. Only files of the cache's own names are
    written or removed there. Old ones stay until they are deleted, which is safe at any time.
    """

    kind = "climatenet"
    outputs = len(CLASSES)
    """Number of classes."""
    background = 0
    """Class of the pixels without a storm."""
    classes = CLASSES
    """Names of the classes."""

    def __init__(
        self,
        params: ClimateNetParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        no_tensors(self.kind, tensors)
        self._p, self._device = params, device
        self._names = variables(params.variables)
        self._files = files_in(params.path)
        if params.files > len(self._files):
            raise InvalidInput(
                f"{params.path} has {len(self._files)} files, but {params.files} were asked for",
                "dataset.source.params.files",
                f"at most {len(self._files)}",
            )
        self._files = self._files[: params.files or None]
        self._grid = grid_of(self._files[0])
        for path in self._files:
            check_file(path, self._names, self._grid)
        self.coordinates = self._grid.coordinates(params.stride)
        numbers: dict[str, int] = {}
        self.scenes = torch.tensor(
            [numbers.setdefault(time_of(p), len(numbers)) for p in self._files]
        )
        self._cache_path: Path | None = None
        self._on_device = params.storage == "memory" or (
            device.type == "cuda" and torch.cuda.mem_get_info(device)[0] >= 2 * self._bytes
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the inputs."""
        height, width = (-(-n // self._p.stride) for n in self._grid.shape)
        return len(self._files), len(self._names), height, width

    @property
    def _bytes(self) -> int:
        samples, channels, height, width = self.shape
        return samples * height * width * (4 * channels + 1)

    @property
    def memory_bytes(self) -> int:
        """Bytes on the device; 0 if the data stay on the disk, as mapped pages are not kept."""
        return self._bytes if self._on_device else 0

    def make(self, on_step: StepCallback) -> tuple[Tensor, Tensor]:
        """Read the files one by one, or the cache; see :class:`MadeDataset`."""
        samples, _, height, width = self.shape
        arrays = [(self.shape, torch.float32), ((samples, 1, height, width), torch.uint8)]
        held = tuple(
            torch.empty(shape, dtype=dtype, device=self._device)
            for shape, dtype in (arrays if self._on_device else ())
        )
        cache = self._cache(arrays) if self._p.storage == "disk" else None
        mapped = cache.load() if cache else None
        making = cache.writing() if cache and mapped is None else nullcontext()
        with ThreadPoolExecutor(READERS, "climatenet") as pool, making as writer:
            source: Iterable[tuple[Tensor, ...]] = (
                in_order(pool, self._read, self._files, READERS, lambda: None)
                if mapped is None
                else zip(*mapped, strict=True)
            )
            for i, sample in enumerate(source):
                if writer:
                    writer.put(i, sample)
                for array, part in zip(held, sample, strict=False):
                    array[i] = part
                on_step(i + 1, samples, {})
            if cache and cache != self._cache(arrays):
                raise InvalidInput(
                    f"files in {self._p.path} changed while they were read",
                    FIELD,
                    "files that do not change",
                    "try again when all files are complete",
                )
        self._cache_path = cache.path if cache else None
        inputs, targets = held or mapped or (writer.arrays if writer else ())
        return inputs, targets

    def _read(self, path: Path) -> tuple[Tensor, Tensor]:
        fields, labels = read_file(path, self._names, self._grid, self._p.stride)
        return torch.from_numpy(fields), torch.from_numpy(labels)[None]

    def _cache(self, arrays: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> Cache:
        about = {
            "folder": os.path.abspath(self._p.path),
            "variables": self._names,
            "stride": self._p.stride,
        }
        facts = {
            **about,
            "normal": [NORMAL[name] for name in self._names],
            "files": [stamp(path) for path in self._files],
        }
        folder = Path(self._p.cache) if self._p.cache else user_folder(self.kind)
        return Cache(
            folder, facts, {"dataset": self.kind, "files": len(self._files), **about}, arrays
        )

    @property
    def facts(self) -> dict[str, str]:
        """``cache``, the path of the cache file, if there is one."""
        return {"cache": str(self._cache_path)} if self._cache_path else {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the position, and a hash of the files: the files hold the data."""
        tensors, metadata = super().state()
        return tensors, {**metadata, "files": self._stamps()}

    def _stamps(self) -> str:
        """Hash of the files' names, sizes and modification times."""
        stamps = json.dumps([stamp(path) for path in self._files])
        return hashlib.sha256(stamps.encode()).hexdigest()[:32]

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Read the files again if the state had them.

        Raises:
            InvalidInput: The files changed since the state was saved.
        """
        check_kind(metadata, self.kind)
        if metadata.get("files") != self._stamps():
            raise InvalidInput(
                f"the files in {self._p.path} are not the files that were read before",
                FIELD,
                "the same files",
                "put the same files back, or start again",
            )
        super().load_state(tensors, metadata)


@dataclass(frozen=True, eq=False)
class Grid:
    """Positions of a file's values."""

    path: Path
    shape: tuple[int, int]
    lat: NDArray[np.float64] | None
    """Latitudes of the rows in degrees, or None if the file has none."""
    lon: NDArray[np.float64] | None
    """Longitudes of the columns in degrees, or None if the file has none."""

    def taken(self, stride: int) -> tuple[slice, slice]:
        """Return the slices of the file's rows and columns to take.

        Every ``stride``-th is taken, from the north. Without ``lat`` the first row counts as north.
        """
        south_first = self.lat is not None and self.lat[0] < self.lat[-1]
        return slice(None, None, -stride if south_first else stride), slice(None, None, stride)

    def coordinates(self, stride: int) -> tuple[Tensor, Tensor] | None:
        """Return latitudes and longitudes to take, in degrees; None unless the file has both."""
        if self.lat is None or self.lon is None:
            return None
        rows, columns = self.taken(stride)
        return torch.from_numpy(self.lat[rows].copy()), torch.from_numpy(self.lon[columns].copy())

    def check(self) -> None:
        """Raise ``InvalidInput`` unless the coordinates fit the rows and columns."""
        for name, values, count in zip(
            ("lat", "lon"), (self.lat, self.lon), self.shape, strict=True
        ):
            if values is None:
                continue
            steps = np.diff(values)
            if len(values) != count or not np.isfinite(values).all():
                wrong = (
                    f"{len(values)} values of {name}, which are not all finite "
                    f"or not one for each of {count}"
                )
            elif name == "lat" and not ((steps > 0).all() or (steps < 0).all()):
                wrong = "values of lat that neither ascend nor descend"
            else:
                continue
            raise InvalidInput(
                f"{self.path} has {wrong}", FIELD, "a grid of lat and lon", "repair the file"
            )

    def difference(self, other: Grid) -> str | None:
        """Say how ``other`` differs, or return None if it does not."""
        if other.shape != self.shape:
            (h, w), (height, width) = other.shape, self.shape
            return f"a grid of {h} × {w}, but {self.path} has one of {height} × {width}"
        for name in ("lat", "lon"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours is not None and theirs is not None:
                # Within a hundredth of a degree, since coordinates may be float32.
                if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=1e-2):
                    return f"other values of {name} than {self.path}"
        return None


def variables(given: str) -> list[str]:
    """Split a list of variables at commas. Raises ``InvalidInput`` for unknown or repeated names.

    >>> variables("PSL, TMQ")
    ['PSL', 'TMQ']
    """
    names = [name.strip() for name in given.split(",")]
    unknown = [name for name in names if name not in NORMAL]
    if unknown or len(set(names)) < len(names):
        raise InvalidInput(
            f"unknown variable {unknown[0]!r}"
            if unknown
            else f"a variable is named twice in {given}",
            "dataset.source.params.variables",
            f"a choice of {','.join(NORMAL)}, each at most once",
        )
    return names


def files_in(folder: str) -> list[Path]:
    """Return the paths of ClimateNet's files in a folder, sorted by name.

    Raises:
        FileMissing: There is no such folder, or it has no such files.
        InvalidInput: No folder is given.
    """
    if not folder:
        raise InvalidInput("no folder is given", FIELD, "a folder with ClimateNet's files")
    if not Path(folder).is_dir():
        raise FileMissing(
            f"there is no folder {folder}",
            FIELD,
            "a folder with ClimateNet's files",
        )
    found = sorted(path for path in Path(folder).iterdir() if NAME.fullmatch(path.name))
    if not found:
        raise FileMissing(
            f"{folder} has no files of ClimateNet",
            FIELD,
            "files named like data-2010-06-10-01-1_5.nc",
        )
    return found


def time_of(path: Path) -> str:
    """Return the time in a file's name. Experts who labelled the same fields share it.

    >>> time_of(Path("data-2010-06-10-01-1_5.nc"))
    'data-2010-06-10-01-1'
    """
    match = NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not named as ClimateNet's files are")
    return match[1]


def grid_of(path: Path) -> Grid:
    """Read the grid of a file's labels. Raises ``InvalidInput`` if it is not a valid grid."""
    with open_hdf5(path, KIND) as file:
        grid = _grid(path, file)
    grid.check()
    return grid


def stamp(path: Path) -> tuple[str, int, int]:
    """Return a file's name, size in bytes, and modification time in nanoseconds."""
    try:
        status = path.stat()
    except OSError:
        raise InvalidInput(f"the file {path} is gone", FIELD, KIND, "put it back") from None
    return path.name, status.st_size, status.st_mtime_ns


def check_file(path: Path, names: Sequence[str], grid: Grid) -> None:
    """Check a file's variables and grid without reading values other than coordinates.

    Args:
        path: The file.
        names: Variables that the file must have.
        grid: The grid that the file must have.

    Raises:
        InvalidInput: The file lacks a variable, or has another grid.
    """
    with open_hdf5(path, KIND) as file:
        _check(path, file, names, grid)


def read_file(
    path: Path, names: Sequence[str], grid: Grid, stride: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read and normalise a file.

    Args:
        path: The file.
        names: Variables to read.
        grid: The grid that the file must have.
        stride: Take every ``stride``-th row and column; rows from the north.

    Returns:
        Fields ``[names, H, W]`` and labels ``[H, W]``.

    Raises:
        InvalidInput: The file is damaged, differs from ``grid``, or has values that are not
            accepted. The error names the file.
    """
    with open_hdf5(path, KIND) as file:
        _check(path, file, names, grid)
        taken = grid.taken(stride)
        height, width = (-(-n // stride) for n in grid.shape)
        fields = np.empty((len(names), height, width), np.float32)
        for field, name in zip(fields, names, strict=True):
            mean, std = NORMAL[name]
            values = _read(path, file, name, taken)
            good = np.isfinite(values)
            for fill in _fills(file[name]):
                good &= values != fill
            _demand(
                good, values, path, name, grid, stride, "finite numbers that are not the fill value"
            )
            # In float64 first: PSL has more digits before its deviations than the other variables.
            field[:] = (values.astype(np.float64) - mean) / std
        values = _read(path, file, LABELS, taken)
        with np.errstate(invalid="ignore"):  # NaN is no class
            labels = values.astype(np.uint8)
        known = (labels == values) & (labels < len(CLASSES))
        _demand(
            known,
            values,
            path,
            LABELS,
            grid,
            stride,
            "0 background, 1 tropical cyclone, 2 atmospheric river",
        )
        return fields, labels


def _fills(variable: h5py.Dataset) -> list[np.generic]:
    """Values that stand for a missing value, from the variable's attributes."""
    found = (variable.attrs.get(name) for name in ("_FillValue", "missing_value"))
    values = [np.asarray(fill).reshape(-1) for fill in found if fill is not None]
    return [
        fill.astype(variable.dtype)[0] for fill in values if fill.dtype.kind in "iuf" and len(fill)
    ]


def _variable(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    try:
        found = file.get(name)
    except (OSError, RuntimeError, KeyError) as error:
        raise _damaged(path, name, error) from None
    if not isinstance(found, h5py.Dataset):
        what = "has no LABELS" if name == LABELS else f"lacks the variable {name}"
        raise InvalidInput(
            f"{path} {what}",
            FIELD,
            "a file of ClimateNet with labels",
            "remove or replace the file",
        )
    if found.dtype.kind not in "iuf":
        raise InvalidInput(f"{path}: {name} does not hold numbers", FIELD, "numbers")
    return found


def _shape(path: Path, file: h5py.File, name: str) -> tuple[int, int]:
    """Shape of a variable without the dimension of time, which has length 1."""
    shape = tuple(_variable(path, file, name).shape)
    plane = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    if len(plane) != 2 or 0 in plane:
        raise InvalidInput(
            f"{path}: {name} has the shape {shape}",
            FIELD,
            "(1, lat, lon) or (lat, lon)",
            "split the file into one for each time",
        )
    return plane


def _grid(path: Path, file: h5py.File) -> Grid:
    shape = _shape(path, file, LABELS)
    lat, lon = (
        _values(path, file, name).astype(np.float64).reshape(-1) if name in file else None
        for name in ("lat", "lon")
    )
    return Grid(path, shape, lat, lon)


def _check(path: Path, file: h5py.File, names: Sequence[str], grid: Grid) -> None:
    own = _grid(path, file)
    difference = grid.difference(own)
    for name in names:
        shape = _shape(path, file, name)
        if difference is None and shape != own.shape:
            difference = (
                f"{name} on a grid of {shape[0]} × {shape[1]}, "
                f"but {LABELS} on one of {own.shape[0]} × {own.shape[1]}"
            )
    if difference is not None:
        raise InvalidInput(
            f"{path} has {difference}", FIELD, "files of one grid", "remove or replace the file"
        )


def _values(path: Path, file: h5py.File, name: str) -> NDArray[np.generic]:
    try:
        values: NDArray[np.generic] = _variable(path, file, name)[()]
    except OSError as error:
        raise _damaged(path, name, error) from None
    return values


def _read(
    path: Path, file: h5py.File, name: str, taken: tuple[slice, slice]
) -> NDArray[np.generic]:
    # Read the whole plane, as it is compressed: HDF5 is slower at picking rows and columns.
    values = _values(path, file, name)
    return values.reshape(values.shape[-2:])[taken]


def _demand(
    good: NDArray[np.bool_],
    values: NDArray[np.generic],
    path: Path,
    name: str,
    grid: Grid,
    stride: int,
    expected: str,
) -> None:
    if good.all():
        return
    place = tuple(np.argwhere(~good)[0].tolist())
    row, column = (
        range(n)[part][i] for n, part, i in zip(grid.shape, grid.taken(stride), place, strict=True)
    )
    raise InvalidInput(
        f"{path}: {name} is {values[place]} in row {row}, column {column}",
        FIELD,
        expected,
        "repair or remove the file",
    )


def _damaged(path: Path, name: str, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"{path} is damaged: {name} cannot be read ({first_line(error)})",
        FIELD,
        "an undamaged file",
        "copy or make it again",
    )
