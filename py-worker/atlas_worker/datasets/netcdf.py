"""Variables of NetCDF files, read by the conventions of NetCDF and CF.

NetCDF-4 is HDF5, which h5py reads; SciPy reads NetCDF-3. On top of these:

- xarray unpacks numbers (``scale_factor``, ``add_offset``, ``_Unsigned``).
- Missing values are never taken as numbers. They are ``_FillValue``, ``missing_value``, what lies
  outside ``valid_min``, ``valid_max`` and ``valid_range``, and the default fill values.
- Latitudes and longitudes are found by their units, standard name or axis, then by their names.
  Their values tell how a plane lies, whatever the order of its dimensions. It is turned so that
  rows run south, and columns east from longitude 0 if the grid goes round the Earth.

What is not understood is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from .pandas_hdf5 import FIELD, existing, first_line, open_hdf5

KIND = "a NetCDF file"
Numbers = NDArray[Any]
Axis = Literal["latitude", "longitude"]
AXES: tuple[Axis, Axis] = ("latitude", "longitude")
UNITS: Mapping[str, Axis] = {
    **{f"degree{s}{n}": "latitude" for s in ("", "s") for n in ("_north", "_n", "n")},
    **{f"degree{s}{e}": "longitude" for s in ("", "s") for e in ("_east", "_e", "e")},
}
"""Units in lower case that tell a coordinate (CF 4.1, 4.2)."""
TELLING: Mapping[str, Mapping[str, Axis]] = {
    "units": UNITS,
    "standard_name": {axis: axis for axis in AXES},
    "_coordinateaxistype": {"lat": "latitude", "lon": "longitude"},
}
"""Attributes that tell a coordinate, with their values, in lower case."""
NAMES: Mapping[str, Axis] = {
    **dict.fromkeys(("lat", "latitude", "nav_lat"), "latitude"),
    **dict.fromkeys(("lon", "longitude", "nav_lon"), "longitude"),
}
"""Names in lower case, for coordinates of which nothing else tells anything."""
DEGREES = {"", "degree", "degrees", "deg", *UNITS}
"""Units in lower case that a coordinate may have."""
DEFAULT_FILLS = {
    **dict.fromkeys(("f4", "f8"), 9.9692099683868690e36),
    **{"i2": -32767, "u2": 65535, "i4": -2147483647, "u4": 4294967295},
    **{"i8": -9223372036854775806, "u8": 18446744073709551614},
}
"""What NetCDF writes where nothing was written, by type. Bytes have no such value."""
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"
"""In the attribute NAME of a dimension without coordinates."""
PACKING = ("scale_factor", "add_offset", "_Unsigned")
ATTRIBUTES = {
    *("units", "standard_name", "axis", "_CoordinateAxisType", "_FillValue", "missing_value"),
    *("valid_min", "valid_max", "valid_range", *PACKING),
}
"""Attributes that are read."""
UNEVEN = 0.1
"""Largest difference of a step of coordinates from their mean step, relative to it."""


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable in an open file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]
    """Those of ``ATTRIBUTES`` that it has: text, or arrays with one dimension."""
    _dims: Callable[[], tuple[str | None, ...]] = field(repr=False)
    _load: Callable[[Numbers | None], Numbers] = field(repr=False)
    default_fills: bool = True
    """Whether the numbers with which NetCDF fills gaps are missing values."""

    @cached_property
    def dims(self) -> tuple[str | None, ...]:
        """Names of the dimensions; None for one that has no name.

        HDF5 takes as long to find them as to read the rest of what is known here.
        """
        try:
            dims = self._dims()
        except Exception as error:  # h5py has errors of many types for damaged files
            raise damaged(self.path, self.name, error) from None
        # HDF5 does not keep these two of the same length.
        return dims if len(dims) == len(self.shape) else (None,) * len(self.shape)

    @property
    def units(self) -> str:
        """Units as the file has them; empty if it has none."""
        return self._text("units")

    @property
    def packed(self) -> bool:
        """Whether the stored numbers stand for other numbers."""
        return any(name in self.attributes for name in PACKING)

    @property
    def axis(self) -> tuple[Axis, bool] | None:
        """The coordinate that this is, and whether more than its name tells so.

        Raises:
            InvalidInput: The attributes contradict each other.
        """
        words = {name.lower(): self._text(name).lower() for name in self.attributes}
        if words.get("standard_name", "").startswith(("grid_", "projection_")):
            return None
        told = {kinds[words[name]] for name, kinds in TELLING.items() if words.get(name) in kinds}
        if not told and words.get("units") in ("degree", "degrees"):
            by_axis: Mapping[str, Axis] = {"y": "latitude", "x": "longitude"}
            told = {by_axis[a] for a in (words.get("axis", ""),) if a in by_axis}
        if len(told) > 1:
            raise self.refusal(
                "is latitude by one of its attributes and longitude by another",
                "units and a standard name that fit",
                "put its attributes right",
            )
        named = NAMES.get(self.name.lower())
        return (told.pop(), True) if told else (named, False) if named else None

    def load(self, into: Numbers | None = None) -> Numbers:
        """Read the numbers as they are stored.

        Args:
            into: Memory of this shape and type that may be used.

        Returns:
            The numbers.

        Raises:
            InvalidInput: The file is damaged, or the variable does not hold numbers.
        """
        self.require_numbers()
        try:
            return self._load(into)
        except MemoryError:
            raise
        except Exception as error:  # as above
            raise damaged(self.path, self.name, error) from None

    def require_numbers(self) -> None:
        """Raise ``InvalidInput`` unless the variable holds numbers that can be understood."""
        if self.dtype.kind not in "iuf":
            raise self.refusal("does not hold numbers", "numbers", "remove or replace the file")
        for name in ("scale_factor", "add_offset"):
            if name in self.attributes:
                self._numbers(name, 1)

    def values(self, stored: Numbers, place: Callable[[Any], tuple[int, ...]]) -> Numbers:
        """Turn stored numbers into the numbers that they stand for.

        Args:
            stored: Numbers as they are stored, of any shape.
            place: Called with an index into ``stored``; returns the index in the file.

        Returns:
            Numbers of the same shape. Those of a variable that is not packed are ``stored``.

        Raises:
            InvalidInput: Values are missing or not finite. The error says how many, and where.
        """
        plain = self._by_sign(stored)
        bounds = plain.min(), plain.max()  # NaN if any number is
        values = self._unpacked(stored) if self.packed else stored
        for what, bad in self._missing(plain, values, bounds):
            if bad.any():
                self._refuse(f"{what}", bad, stored, place)
        ends = (values.min(), values.max()) if self.packed else bounds
        if not np.isfinite(ends).all():
            self._refuse("not finite", ~np.isfinite(values), values, place)
        return values

    def masked(self, stored: Numbers) -> Numbers:
        """Turn stored numbers into those that they stand for, with NaN where they are missing.

        Args:
            stored: Numbers as they are stored, of any shape.

        Returns:
            Numbers of the same shape: ``stored`` if nothing is packed or missing.

        Raises:
            InvalidInput: The variable does not hold numbers, or an attribute makes no sense.
        """
        self.require_numbers()
        if not stored.size:
            return stored
        plain = self._by_sign(stored)
        values = self._unpacked(stored) if self.packed else plain
        gaps = np.zeros(stored.shape, np.bool_)
        for _, bad in self._missing(plain, values, (plain.min(), plain.max())):
            gaps |= bad
        if not gaps.any():
            return values
        kept = values.astype(np.result_type(values.dtype, np.float32))
        kept[gaps] = np.nan
        return kept

    def plain(self) -> Variable:
        """Return the variable without NetCDF's default fill values, as one of another format."""
        return replace(self, default_fills=False)

    def _refuse(
        self, what: str, bad: NDArray[np.bool_], values: Numbers, place: Callable[[Any], Any]
    ) -> None:
        first = tuple(np.argwhere(bad)[0].tolist())
        indices, count = place(first), int(bad.sum())
        at = f"row {indices[0]}, column {indices[1]}" if len(indices) == 2 else f"at {indices[0]}"
        more = f", and so at {count - 1} more places" if count > 1 else ""
        about = "" if what == "not finite" else f", which is {what}"
        raise self.refusal(
            f"is {values[first]} in {at}{about}{more}",
            "numbers everywhere",
            "fill the gaps, or remove the file",
        )

    def _missing(
        self, stored: Numbers, values: Numbers, bounds: tuple[Any, Any]
    ) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Masks of missing values. Bounds of the numbers spare most comparisons."""
        low, high = bounds
        fills = [("its " + name, name) for name in ("_FillValue", "missing_value")]
        known = [(what, v) for what, name in fills for v in self._stored(name, stored.dtype)]
        default = DEFAULT_FILLS.get(self.dtype.str[1:])
        if self.default_fills and default is not None and "_FillValue" not in self.attributes:
            known.append(("what NetCDF fills gaps with", self.dtype.type(default)))
        for what, value in known:
            if np.isnan(value):
                if np.isnan(low):
                    yield what, np.isnan(stored)
            elif not (value < low or value > high):
                yield what, stored == value
        for what, name in fills:  # some programs write the unpacked number here
            if name in self.attributes and self._unpacked_limits(name):
                step = abs(float(self._numbers("scale_factor", 1)[0])) if self._scaled else 0.0
                for value in self._numbers(name):
                    yield what, np.abs(values - value) <= step / 2
        for name, end in (("valid_min", 0), ("valid_max", 1), ("valid_range", None)):
            if name not in self.attributes:
                continue
            limits = self._numbers(name, 1 if end is not None else 2)
            numbers, kind = (
                (values, values.dtype) if self._unpacked_limits(name) else (stored, stored.dtype)
            )
            if kind.kind == "f":  # 0.1 in double precision is not 0.1 in single precision
                limits = limits.astype(kind)
            elif self._turns_unsigned:
                limits = limits.astype(self.dtype).view(kind)
            outside = np.zeros(numbers.shape, np.bool_)
            if end != 1:
                outside |= numbers < limits[0]
            if end != 0:
                outside |= numbers > limits[-1]
            yield f"outside its {name}", outside

    @property
    def _scaled(self) -> bool:
        return "scale_factor" in self.attributes

    @property
    def _turns_unsigned(self) -> bool:
        return self.dtype.kind == "i" and self._text("_Unsigned").lower() == "true"

    def _unpacked_limits(self, name: str) -> bool:
        """Whether an attribute is about unpacked numbers: it has their type, not that stored."""
        packed = self.dtype.kind in "iu" and ("add_offset" in self.attributes or self._scaled)
        return packed and self._numbers(name).dtype.kind == "f"

    def _by_sign(self, stored: Numbers) -> Numbers:
        """Take integers as ``_Unsigned`` says."""
        word = self._text("_Unsigned").lower()
        other = {("i", "true"): "u", ("u", "false"): "i"}.get((stored.dtype.kind, word))
        if other is None:
            return stored
        return cast(Numbers, stored.view(stored.dtype.str.replace(stored.dtype.kind, other)))

    def _stored(self, name: str, dtype: np.dtype[Any]) -> Numbers:
        """An attribute's numbers in the type that is stored; without those that cannot be."""
        if name not in self.attributes:
            return np.empty(0, dtype)
        given = self._numbers(name)
        with np.errstate(invalid="ignore", over="ignore"):
            if dtype.kind == "f":
                return given.astype(dtype)
            cast_to = given.astype(self.dtype)
            # As stored, or by value where the sign of the type is not that of the attribute.
            same = (cast_to == given) | (cast_to.view(dtype) == given)
            return cast(Numbers, cast_to[same].view(dtype))

    def _unpacked(self, stored: Numbers) -> Numbers:
        from xarray import Variable as Decoded
        from xarray.conventions import decode_cf_variable

        self.require_numbers()
        packing = {
            name: self._text(name).lower() if name == "_Unsigned" else self.attributes[name][0]
            for name in PACKING
            if name in self.attributes
        }
        dims = [str(axis) for axis in range(stored.ndim)]
        packed = Decoded(dims, stored, packing)
        values: Numbers = decode_cf_variable(self.name, packed, decode_times=False).to_numpy()
        return values

    def _numbers(self, name: str, count: int | None = None) -> Numbers:
        given = self.attributes[name]
        good = isinstance(given, np.ndarray) and given.dtype.kind in "iuf"
        if name in PACKING:
            good = good and bool(np.isfinite(given).all())
        if not good or (count is not None and len(given) != count):
            numbers = {None: "numbers", 1: "one number", 2: "two numbers"}[count]
            shown = given if isinstance(given, str) else np.asarray(given).tolist()
            raise self.refusal(
                f"has the {name} {shown!r}",
                f"{numbers} in {name}",
                "put the attribute right",
            )
        return cast(Numbers, given)

    def _text(self, name: str) -> str:
        given = self.attributes.get(name, "")
        return given.strip() if isinstance(given, str) else ""

    def refusal(self, what: str, expected: str, remedy: str) -> InvalidInput:
        """Make an error about this variable, which ``what`` says something of."""
        return InvalidInput(f"{self.path}: {self.name} {what}", FIELD, expected, remedy)


@dataclass(frozen=True, eq=False)
class Layout:
    """How a variable's plane lies on the Earth."""

    lat: NDArray[np.float64]
    """Latitudes ``[H]`` of the rows in degrees, descending."""
    lon: NDArray[np.float64]
    """Longitudes ``[W]`` of the columns in degrees, eastwards; from 0 if they go all round."""
    names: tuple[str, str]
    """Names of the file's latitude and longitude."""
    transposed: bool
    """Whether the file's rows have one longitude each."""
    from_south: bool
    """Whether latitudes ascend in the file."""
    from_east: bool
    """Whether longitudes descend in the file."""
    shift: int
    """Number of columns, in eastward order, before the first."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        return len(self.lat), len(self.lon)

    @property
    def turned(self) -> bool:
        """Whether the file lies otherwise, whatever the order of its latitudes."""
        return self.transposed or self.from_east or self.shift != 0

    def same(self, other: Layout) -> bool:
        """Tell whether another layout is the same."""
        ours, theirs = (
            (one.names, one.transposed, one.from_south, one.from_east, one.shift)
            for one in (self, other)
        )
        return (
            ours == theirs
            and np.array_equal(self.lat, other.lat)
            and np.array_equal(self.lon, other.lon)
        )

    def arrange(self, plane: Numbers) -> Numbers:
        """Turn a plane of the file, with any dimensions of length 1, to ``[H, W]``."""
        height, width = self.shape
        plane = plane.reshape(width, height).T if self.transposed else plane.reshape(height, width)
        plane = plane[:: -1 if self.from_south else 1, :: -1 if self.from_east else 1]
        return np.roll(plane, -self.shift, 1) if self.shift else plane

    def place(self, row: int, column: int) -> tuple[int, int]:
        """Return the indices in the file of a row and a column of :meth:`arrange`."""
        height, width = self.shape
        row = height - 1 - row if self.from_south else row
        column = (column + self.shift) % width
        column = width - 1 - column if self.from_east else column
        return (column, row) if self.transposed else (row, column)


class NetCDF:
    """An open file. Variables in groups are not looked at."""

    def __init__(
        self, path: Path, kind: str, names: list[str], get: Callable[[str], Variable | None]
    ) -> None:
        self.path, self.kind, self.names, self._get = path, kind, names, get
        self._found: dict[str, Variable | None] = {}
        self._layouts: dict[tuple[tuple[str | None, int], ...], Layout] = {}
        self._memory: Numbers | None = None

    def variable(self, name: str) -> Variable | None:
        """Return a variable; None if the file has none of this name."""
        if name not in self._found:
            try:
                self._found[name] = self._get(name) if name in self.names else None
            except Exception as error:  # as above
                raise damaged(self.path, name, error) from None
        return self._found[name]

    def variables(self) -> list[Variable]:
        """Return all variables."""
        return [v for name in self.names if (v := self.variable(name)) is not None]

    def _near(self, axes: tuple[tuple[str | None, int], ...]) -> list[Variable]:
        """Variables named as a plane's dimensions if these are its coordinates, else all.

        Looking at all variables of an HDF5 file takes as long as reading one of them.
        """
        named = [v for dim, _ in axes if dim is not None and (v := self.variable(dim)) is not None]
        told = {found[0] for v in named if (found := v.axis)}
        return named if len(told) == 2 else self.variables()

    def layout(self, variable: Variable) -> Layout:
        """Find out how a variable's plane lies.

        Raises:
            InvalidInput: The variable is no plane of latitudes and longitudes, the file does not
                tell them, or they are not evenly spaced.
        """
        axes = tuple((d, n) for d, n in zip(variable.dims, variable.shape, strict=True) if n != 1)
        if len(axes) != 2 or 0 in variable.shape:
            raise variable.refusal(
                f"has the shape {variable.shape}",
                "one plane of latitudes and longitudes",
                "split the file into one for each time and level",
            )
        if axes not in self._layouts:
            self._layouts[axes] = self._lay(variable, axes)
        return self._layouts[axes]

    def _lay(self, variable: Variable, axes: tuple[tuple[str | None, int], ...]) -> Layout:
        lat, row = self._coordinate(variable, axes, "latitude")
        lon, column = self._coordinate(variable, axes, "longitude")
        if row == column:
            raise self._untold(variable, "which of its dimensions is latitude")
        latitudes, longitudes = _degrees(lat), _degrees(lon)
        if np.abs(latitudes).max() > 90 + 1e-6:
            raise lat.refusal("has values beyond the poles", "degrees", "put its values right")
        steps, turns = np.diff(latitudes), (np.diff(longitudes) + 180) % 360 - 180
        for coordinate, found in ((lat, steps), (lon, turns)):
            if not ((found > 0).all() or (found < 0).all()):
                raise InvalidInput(
                    f"{self.path} has values of {coordinate.name} that neither ascend nor descend",
                    FIELD,
                    "a regular grid of latitudes and longitudes",
                    "repair the file",
                )
        for coordinate, found in ((lat, steps[1:-1]), (lon, turns)):  # polar rows may be narrower
            mean = found.mean() if len(found) else 0.0
            if (np.abs(found - mean) > UNEVEN * abs(mean)).any():
                low, high = sorted((abs(float(found.min())), abs(float(found.max()))))
                raise coordinate.refusal(
                    f"has steps of {low:.4g} to {high:.4g} degrees",
                    "an evenly spaced grid",
                    "regrid the file",
                )
        step, width = abs(float(turns.mean())), len(longitudes)
        if (width - 0.5) * step > 360:
            raise lon.refusal(
                f"goes round the Earth and on: {width} columns of {step:.4g} degrees",
                "each meridian once",
                "drop the columns that are there twice",
            )
        from_south, from_east = bool(steps[0] > 0), bool(turns[0] < 0)
        latitudes = latitudes[:: -1 if from_south else 1]
        longitudes = longitudes[:: -1 if from_east else 1]
        shift = 0
        if abs(width * step - 360) < step / 2:
            longitudes = longitudes - 360 * np.floor((longitudes + step / 1000) / 360)
            shift = int(longitudes.argmin())
        return Layout(
            latitudes.copy(),
            np.roll(longitudes, -shift),
            (lat.name, lon.name),
            row > column,
            from_south,
            from_east,
            shift,
        )

    def _coordinate(
        self, variable: Variable, axes: tuple[tuple[str | None, int], ...], axis: Axis
    ) -> tuple[Variable, int]:
        """Find the variable with a plane's latitudes or longitudes, and the dimension it is of."""
        those = [(v, found[1]) for v in self._near(axes) if (found := v.axis) and found[0] == axis]
        lines = [(v, told) for v, told in those if sum(n != 1 for n in v.shape) == 1]
        fits = [
            (told, v.name == dim, v, i)
            for v, told in lines
            for i, (dim, count) in enumerate(axes)
            if max(v.shape) == count and (dim is None or {dim, None} & set(v.dims))
        ]
        best = [(v, i) for told, own, v, i in fits if (told, own) == max(f[:2] for f in fits)]
        if len({i for _, i in best}) > 1:
            raise self._untold(variable, f"which of its dimensions is {axis}")
        if len(best) > 1 and any(not np.array_equal(best[0][0].load(), v.load()) for v, _ in best):
            names = " and ".join(v.name for v, _ in best)
            raise self._untold(variable, f"which of {names} has its {axis}s")
        if best:
            return best[0]
        if any(len(v.shape) - v.shape.count(1) > 1 for v, _ in those):
            raise variable.refusal(
                f"is on a grid whose {axis}s ({those[0][0].name}) have two dimensions",
                "a regular grid of latitudes and longitudes",
                "regrid the file",
            )
        if lines:
            height, width = (count for _, count in axes)
            given = lines[0][0]
            raise InvalidInput(
                f"{self.path} has {max(given.shape)} values of {given.name}, "
                f"but {variable.name} is {height} × {width}",
                FIELD,
                "coordinates of each row and column",
                "repair the file",
            )
        raise self._untold(variable, f"its {axis}s")

    def _untold(self, variable: Variable, what: str) -> InvalidInput:
        return InvalidInput(
            f"{self.path} does not tell {what} ({variable.name})",
            FIELD,
            "a coordinate for each dimension, with units degrees_north and degrees_east",
            "add the coordinates to the file",
        )

    def plane(self, variable: Variable, layout: Layout, stride: int = 1) -> Numbers:
        """Read a plane's numbers.

        Args:
            variable: The variable.
            layout: Its layout.
            stride: Take every ``stride``-th row and column of :meth:`Layout.arrange`.

        Returns:
            Numbers ``[H / stride, W / stride]``, rounded up, in the variable's own units. They are
            overwritten by the next plane that is read.

        Raises:
            InvalidInput: Values are missing or not finite, or the file is damaged.
        """
        # New memory for each plane takes as long as reading it.
        ours = self._memory
        if ours is None or (ours.shape, ours.dtype) != (variable.shape, variable.dtype):
            variable.require_numbers()
            ours = self._memory = np.empty(variable.shape, variable.dtype)
        # Read the whole plane, as it is compressed: HDF5 is slower at picking rows and columns.
        stored = layout.arrange(variable.load(ours))[::stride, ::stride]
        return variable.values(stored, lambda i: layout.place(i[0] * stride, i[1] * stride))


def _degrees(variable: Variable) -> NDArray[np.float64]:
    if variable.units.lower() not in DEGREES:
        raise variable.refusal(
            f"has the units {variable.units!r}", "degrees", "regrid the file to degrees"
        )
    stored = variable.load().reshape(-1)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise InvalidInput(
            f"{variable.path} has values of {variable.name} that are not all finite",
            FIELD,
            "a regular grid of latitudes and longitudes",
            "repair the file",
        )
    return variable.values(stored, lambda i: cast(tuple[int, ...], i)).astype(np.float64)


@contextmanager
def open_netcdf(path: Path) -> Iterator[NetCDF]:
    """Open a file for reading.

    Args:
        path: Path of the file.

    Yields:
        The open file.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: The file cannot be read. The error says why.
    """
    head = existing(path, KIND)
    if head[:3] == b"CDF":
        yield _classic(path, head[3:4])
        return
    with open_hdf5(path, KIND) as file:
        try:
            names = list(file)
        except Exception as error:  # as above
            raise damaged(path, "the list of its variables", error) from None
        scales = _Scales(file, names)
        yield NetCDF(path, "NetCDF-4", names, lambda name: _hdf5_variable(path, file, name, scales))


def _hdf5_variable(path: Path, file: h5py.File, name: str, scales: _Scales) -> Variable | None:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or (shape := dataset.shape) is None:
        return None
    try:
        dtype = dataset.dtype
    except TypeError:  # a type that NumPy does not have
        dtype = np.dtype(object)
    given = _attribute_names(dataset)
    if "NAME" in given and NO_VARIABLE in str(dataset.attrs["NAME"]):
        return None
    attributes = _attributes({a: dataset.attrs[a] for a in given if a in ATTRIBUTES})

    def dims() -> tuple[str | None, ...]:
        if "CLASS" in given and "DIMENSION_LIST" not in given and len(shape) == 1:
            return (name,)  # a scale
        return scales.of(dataset)

    def load(into: Numbers | None) -> Numbers:
        into = np.empty(shape, dtype) if into is None else into
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, into)
        return into

    return Variable(path, name, tuple(shape), dtype, attributes, dims, load)


class _Scales:
    """Names of the dimensions of an HDF5 file, by the lists that its scales have.

    HDF5's own functions for scales, and the lists that other variables have, end or stop the
    process on some damaged files.
    """

    def __init__(self, file: h5py.File, names: list[str]) -> None:
        self._file = file
        # Most files have few scales, of these names, and many other variables.
        self._left = sorted(names, key=lambda name: name.lower() in NAMES)
        self._attached: dict[tuple[int, int], tuple[str, int]] = {}
        """Name and length of a scale by the address and the dimension of a variable."""

    def of(self, dataset: h5py.Dataset) -> tuple[str | None, ...]:
        """Return the names of a variable's dimensions; those of length 1 may lack."""
        address = h5py.h5o.get_info(dataset.id).addr
        sizes = list(enumerate(dataset.shape))
        while self._left and not all((address, i) in self._attached for i, n in sizes if n != 1):
            self._look_at(self._left.pop())
        found = [self._attached.get((address, i), ("", -1)) for i, _ in sizes]
        # A list may still have the address of a variable that was deleted.
        return tuple(
            name if length == size else None
            for (name, length), size in zip(found, dataset.shape, strict=True)
        )

    def _look_at(self, name: str) -> None:
        try:
            scale = h5py.h5d.open(self._file.id, name.encode())  # ten times as fast as get
        except (KeyError, ValueError):  # a group
            return
        if len(scale.shape) == 1 and h5py.h5a.exists(scale, b"REFERENCE_LIST"):
            for place in _references(h5py.h5a.open(scale, b"REFERENCE_LIST")):
                self._attached.setdefault(place, (name, scale.shape[0]))


def _references(attribute: h5py.h5a.AttrID) -> list[tuple[int, int]]:
    """Addresses and dimensions of the variables of a scale.

    A reference is an address. Read as such, it needs no search for the variable.
    """
    kind = attribute.get_type()
    types = [kind.get_member_type(i) for i in range(kind.get_nmembers())]
    if [t.get_size() for t in types] != [8, 4] or not isinstance(
        types[0], h5py.h5t.TypeReferenceID
    ):
        return []
    pair = np.dtype(
        {
            "names": ["address", "axis"],
            "formats": [np.uint64, types[1].dtype],
            "offsets": [kind.get_member_offset(i) for i in range(2)],
            "itemsize": kind.get_size(),
        }
    )
    read = np.zeros(attribute.shape, pair)
    attribute.read(read, mtype=kind)
    return [(int(address), int(axis)) for address, axis in read.reshape(-1).tolist()]


def _attribute_names(dataset: h5py.Dataset) -> list[str]:
    names: list[str] = []
    h5py.h5a.iterate(dataset.id, lambda name: names.append(name.decode(errors="replace")))
    return names


def _classic(path: Path, version: bytes) -> NetCDF:
    from scipy.io import netcdf_file

    refuse_cdf5(path, version)

    try:
        with netcdf_file(path, "r", mmap=False, maskandscale=False) as file:
            found = dict(file.variables)
    except Exception as error:  # SciPy has no errors of its own for damaged files
        raise InvalidInput(
            f"{path} is truncated or damaged: NetCDF-3 ({first_line(error)})",
            FIELD,
            f"{KIND} that is complete",
            "copy or make it again",
        ) from None

    def get(name: str) -> Variable:
        return classic_variable(path, name, found[name])

    return NetCDF(path, "NetCDF-3", list(found), get)


def refuse_cdf5(path: Path, version: bytes) -> None:
    """Refuse a NetCDF-3 file that SciPy does not read.

    Args:
        path: The file.
        version: Its fourth byte.

    Raises:
        InvalidInput: The file is CDF-5.
    """
    if version == b"\x05":
        raise InvalidInput(
            f"{path} is NetCDF-3 with 64-bit data (CDF-5), which is not read here",
            FIELD,
            "NetCDF-4, or NetCDF-3 classic or with 64-bit offsets",
            "convert it: nccopy -k nc4 OLD NEW",
        )


def classic_variable(path: Path, name: str, v: Any) -> Variable:
    """Make a variable of one that SciPy has read from a NetCDF-3 file."""
    shape, dtype, dims = tuple(v.shape), np.dtype(v.data.dtype), tuple(v.dimensions)
    attributes = _attributes(v._attributes)
    return Variable(path, name, shape, dtype, attributes, lambda: dims, lambda _: v.data)


def _attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as text, or as arrays with one dimension. Empty ones are left out."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in ATTRIBUTES or isinstance(value, h5py.Empty):
            continue
        if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "OSU":
            value = value.reshape(-1)[0]
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        value = value.rstrip("\0") if isinstance(value, str) else np.asarray(value).reshape(-1)
        if len(value):
            found[name] = value
    return found


def damaged(path: Path, name: str, error: Exception) -> InvalidInput:
    """Make an error for a variable that cannot be read."""
    return InvalidInput(
        f"{path} is damaged: {name} cannot be read ({first_line(error)})",
        FIELD,
        "an undamaged file",
        "copy or make it again",
    )


@dataclass(frozen=True)
class Member:
    """What :func:`describe` tells of a variable."""

    name: str
    dims: tuple[str | None, ...]
    shape: tuple[int, ...]
    dtype: str
    """Type that is stored."""
    units: str
    packed: bool
    axis: Axis | None
    """The coordinate that the variable is, if it is one."""
    first: float | None
    """First value of a coordinate in degrees; with ``last``, this tells its direction."""
    last: float | None


def describe(path: Path) -> tuple[str, list[Member]]:
    """Say what is in a file, without reading values other than coordinates.

    Args:
        path: The file.

    Returns:
        ``NetCDF-3`` or ``NetCDF-4``, and the variables.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: The file cannot be read.
    """
    with open_netcdf(path) as file:
        members = []
        for v in file.variables():
            axis = v.axis[0] if v.axis else None
            degrees = _degrees(v) if axis and len(v.shape) == 1 and v.shape[0] else None
            ends = (None, None) if degrees is None else (float(degrees[0]), float(degrees[-1]))
            members.append(
                Member(v.name, v.dims, v.shape, str(v.dtype), v.units, v.packed, axis, *ends)
            )
        return file.kind, members


EXPONENT = re.compile(r"(?<![0-9.][eE])(?<=[A-Za-z)])(-?\d+)")
"""An exponent as CF writes it: ``m-2``."""


@lru_cache(maxsize=256)
def converter(given: str, wanted: str) -> Callable[[Numbers], Numbers] | None:
    """Find out how to convert numbers from one unit to another.

    Args:
        given: Units as CF writes them, such as ``kg m-2``.
        wanted: Units to convert to.

    Returns:
        A function that converts numbers; None if the units are the same.

    Raises:
        ValueError: The units are not understood, or do not measure the same thing.

    >>> converter("hPa", "Pa")(np.array([1000.0])).tolist()
    [100000.0]
    """
    if given == wanted:
        return None
    import pint

    registry = _registry()
    quantity: Any = registry.Quantity
    try:
        units = _unit(given)
        if {"degree", "radian"} & set(dict(units._units)):  # "degree K" is no product
            raise ValueError(given)
        to = _unit(wanted)
        tried = quantity(np.array([0.0, 1.0]), units).to(to).magnitude
    except (pint.PintError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(given) from error
    except Exception as error:  # its parser is Python's, with the errors of that
        raise ValueError(given) from error
    if tried.tolist() == [0.0, 1.0]:
        return None
    return lambda values: quantity(values.astype(np.float64), units).to(to).magnitude


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint

    return pint.UnitRegistry()


def _unit(text: str) -> Any:
    import pint

    written = EXPONENT.sub(r"**\1", text)
    try:
        return _registry().Unit(written)
    except pint.UndefinedUnitError:
        return _registry().Unit(written.lower())
