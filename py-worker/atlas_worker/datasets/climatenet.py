"""ClimateNet from NetCDF files (METHOD 3.4).

The files hold fields of the atmosphere, and experts' labels of tropical cyclones and atmospheric
rivers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from .netcdf import KIND, Layout, NetCDF, Variable, converter, open_netcdf
from .pandas_hdf5 import FIELD

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
"""Mean and standard deviation of each variable in ``UNITS``. The first four are the default."""
UNITS = {
    **{"TMQ": "kg/m2", "PSL": "Pa", "PS": "Pa", "PRECT": "m/s", "QREFHT": "kg/kg"},
    **dict.fromkeys(("U850", "V850", "UBOT", "VBOT"), "m/s"),
    **dict.fromkeys(("T200", "T500", "TS", "TREFHT"), "K"),
    **dict.fromkeys(("Z1000", "Z200", "ZBOT"), "m"),
}
"""Units of each variable. Others are converted to these."""
UNLIKELY = 10.0
"""Mean of a normalised field beyond which it must be in other units than ``UNITS``."""
READING = 2
"""Version of what files are read as. Raise it when the content of cached fields changes."""
CLASSES = ("background", "tropical cyclone", "atmospheric river")
LABELS = "LABELS"
"""Name of the labels in a file."""
NAME = re.compile(r"(data-\d{4}-\d{2}-\d{2}-\d+-\d+)_(\d+)\.nc")
"""Name of a file: the time, and the number of the expert."""
READERS = 2
"""Threads that read files.

HDF5 reads one file at a time, while another is normalised and a third is written. Two processes
would read compressed files 1.3 times as fast, but take 2 s each to start. Uncompressed files wait
for the disk in any case.
"""


ROWS = 192
"""Rows that are normalised at a time: few enough for a processor's cache."""


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
    winds: Literal["scalars", "vectors"] = param(
        "scalars",
        "scalars: each variable by itself; vectors: U and V of a height, which are named one after "
        "the other, become the southward and the eastward part of a vector in units of one speed",
        added=True,
    )


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

    Rows run south and columns east from longitude 0, as on every lattice in Atlas. The file's
    coordinates tell how it lies (see :mod:`.netcdf`); it is turned if it lies otherwise. Then every
    ``stride``-th row and column is taken, from the first. With ``winds = "vectors"`` the channels
    of two winds are a vector along the rows and the columns (see :func:`normal`). Packed numbers
    are unpacked, and units converted to ``UNITS``. Files with missing values are refused. If
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
        if params.winds == "vectors":
            channels_of(self._names)
        self._files = files_in(params.path)
        if params.files > len(self._files):
            raise InvalidInput(
                f"{params.path} has {len(self._files)} files, but {params.files} were asked for",
                "dataset.source.params.files",
                f"at most {len(self._files)}",
            )
        self._files = self._files[: params.files or None]
        self._grid = grid_of(self._files[0])
        self._checked = {path: check_file(path, self._names, self._grid) for path in self._files}
        published = all(checked.published for checked in self._checked.values())
        self._reading = 1 if published else READING
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
        checked = self._checked[path]
        vectors = self._p.winds == "vectors"
        fields, labels = read_file(path, self._names, self._grid, self._p.stride, checked, vectors)
        return torch.from_numpy(fields), torch.from_numpy(labels)[None]

    def _cache(self, arrays: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> Cache:
        about = {
            "folder": os.path.abspath(self._p.path),
            "variables": self._names,
            "stride": self._p.stride,
            **({"winds": self._p.winds} if self._p.winds != "scalars" else {}),
        }
        facts = {
            **about,
            "normal": [NORMAL[name] for name in self._names],
            "files": [stamp(path) for path in self._files],
            "reading": READING,
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
        """Hash of the files' names, sizes, modification times and of how they are read.

        Runs recorded with ``READING`` 1 know nothing of the latter: published files are read as
        they were then.
        """
        read = [self._reading] if self._reading > 1 else []
        stamps = json.dumps([*[stamp(path) for path in self._files], *read])
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
    layout: Layout

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.layout.shape

    def coordinates(self, stride: int) -> tuple[Tensor, Tensor]:
        """Return latitudes and longitudes to take, in degrees."""
        lat, lon = self.layout.lat[::stride], self.layout.lon[::stride]
        return torch.from_numpy(lat.copy()), torch.from_numpy(lon.copy())

    def require(self, path: Path, name: str, layout: Layout) -> None:
        """Raise ``InvalidInput`` if a variable of a file is on another grid."""
        if layout.shape != self.shape:
            (h, w), (height, width) = layout.shape, self.shape
            on = "" if name == LABELS else f"{name} on "
            what = f"{on}a grid of {h} × {w}, but {self.path} has one of {height} × {width}"
        else:
            # Within a hundredth of a degree, since coordinates may be float32.
            pairs = ((self.layout.lat, layout.lat), (self.layout.lon, layout.lon))
            axes = zip(layout.names, pairs, strict=True)
            other = [axis for axis, (a, b) in axes if not np.allclose(a, b, rtol=0, atol=1e-2)]
            if not other:
                return
            what = f"other values of {other[0]} than {self.path}"
        raise InvalidInput(
            f"{path} has {what}", FIELD, "files of one grid", "remove or replace the file"
        )


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


def channels_of(names: Sequence[str]) -> dict[int, int]:
    """Place the winds as vectors: southward (along the rows) first, then eastward.

    Args:
        names: The variables.

    Returns:
        The channel of each wind, by its number in ``names``.

    Raises:
        InvalidInput: A wind has no partner after or before it.

    >>> channels_of(["TMQ", "U850", "V850"])
    {2: 1, 1: 2}
    """
    places: dict[int, int] = {}
    winds = [i for i, name in enumerate(names) if UNITS[name] == "m/s" and name != "PRECT"]
    for i in winds:
        name = names[i]
        if name[0] == "U" and names[i + 1 : i + 2] == ["V" + name[1:]]:
            places |= {i + 1: i, i: i + 1}
    alone = [names[i] for i in winds if i not in places]
    if alone:
        raise InvalidInput(
            f"the wind {alone[0]} is not beside the other part of its vector",
            "dataset.source.params.variables",
            "winds in pairs, such as U850,V850",
        )
    return places


def normal(name: str) -> tuple[float, float]:
    """Return the mean and the divisor of a wind that is part of a vector.

    A vector is not moved to a mean, which no rotation would keep, and both of its parts have one
    unit: the root mean square of the two. Rows run south, so northward winds change their sign.
    """
    parts = [NORMAL[part + name[1:]] for part in "UV"]
    speed = float(np.sqrt(sum(mean**2 + std**2 for mean, std in parts) / 2))
    return 0.0, -speed if name[0] == "V" else speed


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
    with open_netcdf(path) as file:
        return Grid(path, file.layout(_variable(file, LABELS)))


def stamp(path: Path) -> tuple[str, int, int]:
    """Return a file's name, size in bytes, and modification time in nanoseconds."""
    try:
        status = path.stat()
    except OSError:
        raise InvalidInput(f"the file {path} is gone", FIELD, KIND, "put it back") from None
    return path.name, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Checked:
    """A file that was checked."""

    stamp: tuple[str, int, int]
    layouts: Mapping[str, Layout]
    """How each variable lies."""
    published: bool
    """Whether the file is as the published ones are: nothing is packed or converted, and the
    coordinates ``lat`` and ``lon`` run north and, from 0, east."""


def check_file(path: Path, names: Sequence[str], grid: Grid) -> Checked:
    """Check a file's variables and grid without reading values other than coordinates.

    Args:
        path: The file.
        names: Variables that the file must have.
        grid: The grid that the file must have.

    Returns:
        What was found.

    Raises:
        InvalidInput: The file lacks a variable, has another grid, or has units that cannot be
            converted.
    """
    before = stamp(path)
    with open_netcdf(path) as file:
        layouts = _layouts(file, names, grid)
        changed = [_converter(_variable(file, name)) is not None for name in names]
        packed = [_variable(file, name).packed for name in (LABELS, *names)]
    turned = [layout.turned or layout.names != ("lat", "lon") for layout in layouts.values()]
    return Checked(before, layouts, not any([*changed, *packed, *turned]))


def read_file(
    path: Path,
    names: Sequence[str],
    grid: Grid,
    stride: int = 1,
    checked: Checked | None = None,
    vectors: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read and normalise a file.

    Args:
        path: The file.
        names: Variables to read.
        grid: The grid that the file must have.
        stride: Take every ``stride``-th row and column; rows from the north.
        checked: What :func:`check_file` found. A file that changed since is checked again.
        vectors: Whether the winds are vectors; see :func:`channels_of`.

    Returns:
        Fields ``[names, H, W]`` and labels ``[H, W]``.

    Raises:
        InvalidInput: The file is damaged, differs from ``grid``, or has values that are not
            accepted. The error names the file.
    """
    with open_netcdf(path) as file:
        known = checked is not None and checked.stamp == stamp(path)
        layouts = checked.layouts if checked and known else _layouts(file, names, grid)
        height, width = (-(-n // stride) for n in grid.shape)
        fields = np.empty((len(names), height, width), np.float32)
        found = [_variable(file, name) for name in names]
        converters = [_converter(variable) for variable in found]
        places = channels_of(names) if vectors else {}
        for at, (variable, convert) in enumerate(zip(found, converters, strict=True)):
            out = fields[places.get(at, at)]
            values = file.plane(variable, layouts[variable.name], stride)
            if convert is not None:
                values = convert(values)
            mean, std = normal(variable.name) if at in places else NORMAL[variable.name]
            for i in range(0, height, ROWS):
                # In float64 first: PSL has more digits before its deviations than the others.
                rows = values[i : i + ROWS].astype(np.float64)
                rows -= mean
                rows /= std
                out[i : i + ROWS] = rows
            if not variable.units:
                _require_likely(variable, float(out.mean()))
        return fields, _labels(file, layouts[LABELS], stride)


def _labels(file: NetCDF, layout: Layout, stride: int) -> NDArray[np.uint8]:
    variable = _variable(file, LABELS)
    values = file.plane(variable, layout, stride)
    labels = values.astype(np.uint8)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() >= len(CLASSES):
        bad = (labels != values) | (labels >= len(CLASSES))
        if bad.any():
            first = tuple(np.argwhere(bad)[0].tolist())
            row, column = layout.place(*(stride * i for i in first))
            raise variable.refusal(
                f"is {values[first]} in row {row}, column {column}",
                "0 background, 1 tropical cyclone, 2 atmospheric river",
                "repair or remove the file",
            )
    return labels


def _layouts(file: NetCDF, names: Sequence[str], grid: Grid) -> dict[str, Layout]:
    """How the variables of a file lie. Files of one layout share it."""
    found: dict[str, Layout] = {}
    shared: dict[int, Layout] = {}
    for name in (LABELS, *names):
        layout = file.layout(_variable(file, name))
        if id(layout) not in shared:
            grid.require(file.path, name, layout)
            shared[id(layout)] = grid.layout if layout.same(grid.layout) else layout
        found[name] = shared[id(layout)]
    return found


def _converter(variable: Variable) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    wanted = UNITS[variable.name]
    try:
        return converter(variable.units, wanted) if variable.units else None
    except ValueError:
        raise variable.refusal(
            f"has the units {variable.units!r}, which cannot be converted to {wanted!r}",
            f"{wanted}, or units that measure the same",
            "convert the variable, or put its units right",
        ) from None


def _require_likely(variable: Variable, mean: float) -> None:
    """Refuse a variable without units whose mean shows that it has others than ``UNITS``."""
    if abs(mean) > UNLIKELY:
        normal, std = NORMAL[variable.name]
        raise variable.refusal(
            f"has no units, and its mean is {normal + mean * std:.4g}, not near {normal:.4g}",
            f"{UNITS[variable.name]}",
            "give it units, or convert it",
        )


def _variable(file: NetCDF, name: str) -> Variable:
    found = file.variable(name)
    if found is None:
        what = "has no LABELS" if name == LABELS else f"lacks the variable {name}"
        raise InvalidInput(
            f"{file.path} {what}",
            FIELD,
            "a file of ClimateNet with labels",
            "remove or replace the file",
        )
    found.require_numbers()
    return found
