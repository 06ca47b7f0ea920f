"""NetCDF files are read by their conventions: the same numbers however written, or a refusal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import netcdf_file

from atlas_worker.datasets.climatenet import NORMAL, UNITS, check_file, grid_of, read_file
from atlas_worker.datasets.netcdf import (
    DEFAULT_FILLS,
    Variable,
    converter,
    describe,
)
from atlas_worker.errors import InvalidInput

H, W = 9, 12
NAMES = ["TMQ", "PSL", "T500"]
LAT, LON = np.linspace(90, -90, H), np.arange(W) * 30.0
rng = np.random.default_rng(0)
WEATHER = {
    name: (NORMAL[name][0] + NORMAL[name][1] * rng.standard_normal((H, W))).astype(np.float32)
    for name in NAMES
}
WEATHER["LABELS"] = rng.integers(0, 3, (H, W))


class Spec:
    """How a file is written; each test changes something."""

    def __init__(self) -> None:
        self.lat, self.lon, self.values = LAT, LON, dict(WEATHER)
        self.names = ("lat", "lon")
        self.attributes: dict[str, dict[str, Any]] = {
            "lat": {"units": "degrees_north"},
            "lon": {"units": "degrees_east"},
            **{name: {"units": UNITS[name]} for name in NAMES},
            "LABELS": {},
        }
        self.order = ("time", "lat", "lon")
        self.storage: dict[str, Any] = {}
        self.scales = True

    def turn(self, axis: int, how: Callable[[np.ndarray], np.ndarray]) -> None:
        self.values = {name: np.apply_along_axis(how, axis, v) for name, v in self.values.items()}
        if axis == 0:
            self.lat = how(self.lat)
        else:
            self.lon = how(self.lon)

    def planes(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        full = {"time": 1, "lat": H, "lon": W}
        return {
            name: (
                self.order,
                values.transpose(
                    [("lat", "lon").index(d) for d in self.order if d != "time"]
                ).reshape(
                    [
                        values.shape[("lat", "lon").index(d)] if d in ("lat", "lon") else full[d]
                        for d in self.order
                    ]
                ),
            )
            for name, values in self.values.items()
        }

    def hdf5(self, path: Path, **how: Any) -> Path:
        with h5py.File(path, "w", **how) as file:
            for name, own, values in zip(
                ("lat", "lon"), self.names, (self.lat, self.lon), strict=True
            ):
                file[own] = values
                file[own].attrs.update(self.attributes[name])
                if self.scales:
                    file[own].make_scale(own)
            own = dict(zip(("lat", "lon"), self.names, strict=True))
            for name, (dims, values) in self.planes().items():
                made = file.create_dataset(name, data=values, **self.storage)
                made.attrs.update(self.attributes[name])
                for axis, dim in enumerate(dims):
                    if dim != "time" and self.scales:
                        made.dims[axis].attach_scale(file[own[dim]])
        return path

    def classic(self, path: Path, version: int) -> Path:
        with netcdf_file(path, "w", version=version) as file:
            file.createDimension("time", None)
            file.createDimension("lat", H)
            file.createDimension("lon", W)
            for name, values in (("lat", self.lat), ("lon", self.lon)):
                file.createVariable(name, "d", (name,))[:] = values
            for name, (dims, values) in self.planes().items():
                made = file.createVariable(name, "i" if name == "LABELS" else "f", dims)
                made[:] = values.astype(made.data.dtype)
                for attribute, value in self.attributes[name].items():
                    setattr(made, attribute, value)
        return path

    def pack(self, dtype: str, kind: type[np.floating[Any]] = np.float64, **more: Any) -> None:
        """As other tools do, with the whole width of the type but its fill value."""
        info = np.iinfo(dtype)
        for name in NAMES:
            values = self.values[name].astype(np.float64)
            scale = kind((values.max() - values.min()) / (float(info.max) - float(info.min) - 4))
            offset = kind(values.min() - scale * (float(info.min) + 2))
            self.values[name] = np.rint((values - float(offset)) / float(scale)).astype(dtype)
            self.attributes[name] |= {"scale_factor": scale, "add_offset": offset, **more}


def read(path: Path, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    grid = grid_of(path)
    return read_file(path, NAMES, grid, stride, check_file(path, NAMES, grid))


def refused(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in caught.value.message
    return caught.value.message


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    fields, labels = read(Spec().hdf5(tmp_path_factory.mktemp("plain") / "f.nc"))
    assert np.array_equal(labels, WEATHER["LABELS"])
    for field, name in zip(fields, NAMES, strict=True):
        mean, std = NORMAL[name]
        assert np.array_equal(field, ((WEATHER[name].astype(np.float64) - mean) / std).astype("f4"))
    return fields, labels


def west(spec: Spec) -> None:
    spec.turn(1, lambda v: np.roll(v, W // 2))
    spec.lon = np.where(spec.lon >= 180, spec.lon - 360, spec.lon)


def backwards(spec: Spec) -> None:
    spec.turn(1, lambda v: v[::-1])


def south(spec: Spec) -> None:
    spec.turn(0, lambda v: v[::-1])


def transposed(spec: Spec) -> None:
    spec.order = ("lon", "time", "lat")


def wrapped(spec: Spec) -> None:
    """0 … 150, −180 … −30: as stored from 0, told from −180."""
    spec.lon = np.where(spec.lon >= 180, spec.lon - 360, spec.lon)


def named(*names: str) -> Callable[[Spec], None]:
    def name(spec: Spec) -> None:
        spec.names = (names[0], names[1])

    return name


def told(lat: dict[str, str], lon: dict[str, str]) -> Callable[[Spec], None]:
    def tell(spec: Spec) -> None:
        spec.names = ("u", "v")
        spec.attributes |= {"lat": lat, "lon": lon}

    return tell


def stored(**how: Any) -> Callable[[Spec], None]:
    return lambda spec: spec.storage.update(how)


def big_endian(spec: Spec) -> None:
    spec.values = {n: v.astype(v.dtype.newbyteorder(">")) for n, v in spec.values.items()}


def no_scales(spec: Spec) -> None:
    spec.scales = False


def units(**given: tuple[str, Callable[[np.ndarray], np.ndarray]]) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        for name, (unit, how) in given.items():
            spec.values[name] = how(spec.values[name].astype(np.float64))
            spec.attributes[name]["units"] = unit

    return change


def everywhere(**attributes: Any) -> Callable[[Spec], None]:
    def put(spec: Spec) -> None:
        for name in NAMES:
            spec.attributes[name] |= attributes

    return put


SAME: dict[str, Callable[[Spec], None]] = {
    "latitude, longitude": named("latitude", "longitude"),
    "nav_lat, nav_lon": named("nav_lat", "nav_lon"),
    **{
        f"units {n}, {e}": told({"units": n}, {"units": e})
        for n, e in (
            ("degrees_north", "degrees_east"),
            ("degree_north", "degree_east"),
            ("degreesN", "degreesE"),
            ("degree_N", "degrees_E"),
        )
    },
    "standard_name": told({"standard_name": "latitude"}, {"standard_name": "longitude"}),
    "axis": told({"axis": "Y", "units": "degrees"}, {"axis": "X", "units": "degrees"}),
    "names that mislead": lambda spec: (
        told({"units": "degrees_north"}, {"units": "degrees_east"})(spec),
        named("lon", "lat")(spec),
    )[0],
    "from the south": south,
    "from −180": west,
    "told from −180": wrapped,
    "westwards": backwards,
    "westwards from 180, from the south": lambda s: (west(s), backwards(s), south(s))[0],
    "(lon, time, lat)": transposed,
    "(lon, time, lat) from the south, from −180": lambda s: (transposed(s), south(s), west(s))[0],
    "no dimensions told": no_scales,
    "zlib": stored(compression="gzip", shuffle=True, fletcher32=True),
    "zstd": stored(**hdf5plugin.Zstd()),
    "szip": stored(compression="szip"),
    "bitshuffle": stored(**hdf5plugin.Bitshuffle()),
    "big-endian": big_endian,
    "fill values that are not there": everywhere(
        _FillValue=np.float32(np.nan), missing_value=np.float64(1e20)
    ),
    "valid ranges": everywhere(valid_min=np.float32(-1e7), valid_max=1e7),
    "units spelt otherwise": lambda s: s.attributes["TMQ"].update(units="kg m**-2"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_the_same_weather_gives_the_same_numbers(
    change: Callable[[Spec], None], tmp_path: Path, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    spec = Spec()
    change(spec)
    path = spec.hdf5(tmp_path / "f.nc")
    for stride in (1, 5):
        fields, labels = read(path, stride)
        assert np.array_equal(fields, expected[0][:, ::stride, ::stride])
        assert np.array_equal(labels, expected[1][::stride, ::stride])
    layout = grid_of(path).layout
    assert np.array_equal(layout.lat, LAT)
    assert np.array_equal(layout.lon, LON)


@pytest.mark.parametrize("version", [1, 2])
def test_netcdf_3(version: int, tmp_path: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    fields, labels = read(Spec().classic(tmp_path / "f.nc", version))
    assert np.array_equal(fields, expected[0])
    assert np.array_equal(labels, expected[1])
    whole = (tmp_path / "f.nc").read_bytes()
    for length in (40, len(whole) // 2, len(whole) - 1):
        (tmp_path / "f.nc").write_bytes(whole[:length])
        assert "truncated or damaged: NetCDF-3" in refused(tmp_path / "f.nc")
    (tmp_path / "f.nc").write_bytes(b"CDF\x05" + whole[4:])
    assert "CDF-5" in refused(tmp_path / "f.nc")


CONVERTED = {
    "hPa": units(PSL=("hPa", lambda v: v / 100)),
    "mbar": units(PSL=("mbar", lambda v: v / 100)),
    "degC": units(T500=("degC", lambda v: v - 273.15)),
    "Celsius": units(T500=("Celsius", lambda v: v - 273.15)),
    "g cm-2": units(TMQ=("g cm-2", lambda v: v / 10)),
}


@pytest.mark.parametrize("change", CONVERTED.values(), ids=CONVERTED.keys())
def test_units_are_converted(
    change: Callable[[Spec], None], tmp_path: Path, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    spec = Spec()
    change(spec)
    fields, labels = read(spec.hdf5(tmp_path / "f.nc"))
    np.testing.assert_allclose(fields, expected[0], rtol=0, atol=1e-5)
    assert np.array_equal(labels, expected[1])


@pytest.mark.parametrize(
    "unit", ["mm", "K", "degree K", "C", "m2 s-2", "nonsense", "kg m-2 (", "°"]
)
def test_units_that_are_not_understood(unit: str, tmp_path: Path) -> None:
    spec = Spec()
    spec.attributes["PSL"]["units"] = unit
    message = refused(spec.hdf5(tmp_path / "f.nc"))
    assert repr(unit) in message
    assert "'Pa'" in message


def test_without_units_the_numbers_must_be_likely(tmp_path: Path) -> None:
    spec = Spec()
    del spec.attributes["PSL"]["units"]
    read(spec.hdf5(tmp_path / "f.nc"))
    spec.values["PSL"] = spec.values["PSL"] / 100
    assert "PSL has no units" in refused(spec.hdf5(tmp_path / "f.nc"))


PACKED: list[tuple[str, type[np.floating[Any]], dict[str, Any], float]] = [
    ("i1", np.float64, {"_FillValue": np.int8(-128)}, 1 / 250),
    ("u1", np.float32, {"_FillValue": np.uint8(0)}, 1 / 250),
    ("i2", np.float64, {"_FillValue": np.int16(-32768)}, 1 / 6e4),
    ("i2", np.float32, {"missing_value": np.array([-32768, -32767], "i2")}, 1 / 6e4),
    ("u2", np.float64, {}, 1 / 6e4),
    ("i4", np.float64, {}, 1e-8),
]


@pytest.mark.parametrize(("dtype", "kind", "more", "rounding"), PACKED)
def test_packed_numbers_are_unpacked(
    dtype: str,
    kind: type[np.floating[Any]],
    more: dict[str, Any],
    rounding: float,
    tmp_path: Path,
    expected: tuple[np.ndarray, np.ndarray],
) -> None:
    spec = Spec()
    spec.pack(dtype, kind, **more)
    fields, labels = read(spec.hdf5(tmp_path / "f.nc"))
    span = np.ptp(expected[0], (1, 2))[:, None, None]
    single = 2.0**-22 * (kind is np.float32) * np.array([[[1]], [[70]], [[10]]])
    assert (np.abs(fields - expected[0]) <= rounding * span + single + 1e-6).all()
    assert np.array_equal(labels, expected[1])


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]),
    order=st.sampled_from("<>"),
    scale=st.none() | st.floats(1e-9, 1e9) | st.floats(-1e9, -1e-9),
    offset=st.none() | st.floats(-1e9, 1e9),
    kinds=st.tuples(st.sampled_from(["f4", "f8"]), st.sampled_from(["f4", "f8"])),
    unsigned=st.sampled_from([None, "true", "false"]),
    seed=st.integers(0, 10_000),
)
def test_unpacked_numbers_are_those_of_xarray(
    dtype: str,
    order: str,
    scale: float | None,
    offset: float | None,
    kinds: tuple[str, str],
    unsigned: str | None,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    raw = random.integers(0, 256, 64 * np.dtype(dtype).itemsize).astype(np.uint8).view(dtype)
    if raw.dtype.kind == "f":
        raw = random.standard_normal(64).astype(dtype)
    raw = raw[raw != DEFAULT_FILLS.get(dtype, raw[0])].astype(order + dtype)
    attributes: dict[str, Any] = {}
    for name, value, kind in zip(
        ("scale_factor", "add_offset"), (scale, offset), kinds, strict=True
    ):
        if value is not None:
            attributes[name] = np.array([value], kind)
    if unsigned is not None:
        attributes["_Unsigned"] = unsigned
    variable = Variable(
        Path("f"), "v", raw.shape, raw.dtype, attributes, lambda: (None,), lambda _: raw
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xarray.SerializationWarning)
        ours = variable.values(variable.load(), lambda i: i)
        flat = {n: v if isinstance(v, str) else v[0] for n, v in attributes.items()}
        theirs = xarray.decode_cf(xarray.Dataset({"v": ("n", raw, flat)}), decode_times=False)["v"]
    assert np.array_equal(ours, theirs.to_numpy())
    assert ours.dtype.newbyteorder("=") == theirs.dtype.newbyteorder("=")


def missing(dtype: str, value: float, **attributes: Any) -> Callable[[Spec], None]:
    def put(spec: Spec) -> None:
        if dtype != "f4":
            spec.pack(dtype)
        spec.values["PSL"] = spec.values["PSL"].copy()
        spec.values["PSL"][[2, 4], [3, 5]] = value
        spec.attributes["PSL"] |= attributes

    return put


MISSING = {
    "NaN": missing("f4", np.nan),
    "infinity": missing("f4", np.inf),
    "NaN, told": missing("f4", np.nan, _FillValue=np.float32(np.nan)),
    "_FillValue": missing("f4", -9999, _FillValue=np.float32(-9999)),
    "missing_value": missing("f4", -9999, missing_value=np.float32(-9999)),
    "missing_value in double precision": missing("f4", 1e20, missing_value=1e20),
    "missing_value as a whole number": missing("f4", -9999, missing_value=np.int32(-9999)),
    "several": missing("f4", -8, missing_value=np.array([-9, -8], "f4")),
    "both": missing("f4", -8, missing_value=np.float32(-8), _FillValue=np.float32(-9)),
    "default": missing("f4", DEFAULT_FILLS["f4"]),
    "default beside missing_value": missing(
        "f4", DEFAULT_FILLS["f4"], missing_value=np.float32(-9)
    ),
    "valid_min": missing("f4", -1, valid_min=np.float32(0)),
    "valid_max": missing("f4", 2e5, valid_max=np.float64(1.2e5)),
    "valid_range": missing("f4", -1, valid_range=np.array([0, 2e5], "f4")),
    "packed _FillValue": missing("i2", -32768, _FillValue=np.int16(-32768)),
    "packed default": missing("i2", -32767),
    "packed valid_range": missing("i2", 32767, valid_range=np.array([-32767, 32766], "i2")),
    "valid_max of unpacked numbers": missing("i2", 32767, valid_max=np.float64(95_000)),
}


@pytest.mark.parametrize("change", MISSING.values(), ids=MISSING.keys())
def test_missing_values_are_not_numbers(change: Callable[[Spec], None], tmp_path: Path) -> None:
    spec = Spec()
    change(spec)
    message = refused(spec.hdf5(tmp_path / "f.nc"))
    assert "PSL is " in message
    assert "more places" in message


def test_where_values_are_missing(tmp_path: Path) -> None:
    """The first from the north is told, as it is in the file."""
    for change, row, column in (
        (lambda _: None, 2, 3),
        (south, H - 1 - 2, 3),
        (west, 2, 3 + W // 2),
        (transposed, 3, 2),
    ):
        spec = Spec()
        MISSING["NaN"](spec)
        change(spec)
        message = refused(spec.hdf5(tmp_path / "f.nc"))
        assert f"PSL is nan in row {row}, column {column}, and so at 1 more" in message


def put(name: str, **attributes: Any) -> Callable[[Spec], None]:
    return lambda spec: spec.attributes[name].update(attributes)


def coordinates(**given: np.ndarray) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        for name, values in given.items():
            setattr(spec, name, values)

    return change


REFUSED = {
    "does not tell its latitudes": told({}, {"units": "degrees_east"}),
    "does not tell its longitudes": told({"units": "degrees_north"}, {}),
    "neither ascend nor descend": coordinates(lat=np.roll(LAT, 1)),
    "values of lon that neither": coordinates(lon=LON[[1, 0, *range(2, W)]]),
    "lat has steps of": coordinates(lat=90 - 180 * np.linspace(0, 1, H) ** 2),
    "lon has steps of": coordinates(lon=360 * np.linspace(0, 0.95, W) ** 2),
    "goes round the Earth and on": coordinates(lon=np.linspace(0, 360, W)),
    "beyond the poles": coordinates(lat=np.linspace(0, 180, H)),
    "not all finite": coordinates(lat=np.where(LAT == 0, np.nan, LAT)),
    "has the units 'm'": put("lat", units="m", standard_name="latitude"),
    "latitude by one of its attributes and longitude by another": put(
        "lat", units="degrees_north", standard_name="longitude"
    ),
    "has the scale_factor 'x'": put("PSL", scale_factor="x"),
    "has the add_offset [1.0, 2.0]": put("PSL", add_offset=np.array([1.0, 2.0])),
    "has the scale_factor [nan]": put("PSL", scale_factor=np.nan),
    "has the missing_value '-1'": put("PSL", missing_value="-1"),
    "has the valid_range [1.0]": put("PSL", valid_range=1.0),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused(what: str, tmp_path: Path) -> None:
    spec = Spec()
    REFUSED[what](spec)
    assert what in refused(spec.hdf5(tmp_path / "f.nc"))


def test_rotated_and_curvilinear_grids_are_refused(tmp_path: Path) -> None:
    spec = Spec()
    spec.names = ("rlat", "rlon")
    spec.attributes |= {
        "lat": {"units": "degrees", "standard_name": "grid_latitude", "axis": "Y"},
        "lon": {"units": "degrees", "standard_name": "grid_longitude", "axis": "X"},
    }
    path = spec.hdf5(tmp_path / "f.nc")
    assert "does not tell its latitudes" in refused(path)
    with h5py.File(path, "a") as file:
        file["lat"], file["lon"] = np.meshgrid(LAT, LON, indexing="ij")
    assert "latitudes (lat) have two dimensions" in refused(path)


def test_a_square_without_dimensions_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.nc", "w") as file:
        file["LABELS"] = np.zeros((H, H), int)
        file["lat"], file["lon"] = LAT, np.arange(H) * 40.0
    with pytest.raises(InvalidInput, match="which of its dimensions is latitude"):
        grid_of(tmp_path / "f.nc")


def test_a_part_of_the_earth_keeps_its_order(tmp_path: Path) -> None:
    spec = Spec()
    spec.lat, spec.lon = np.linspace(60, 20, H), np.arange(W) * 5.0 - 30
    layout = grid_of(spec.hdf5(tmp_path / "f.nc")).layout
    assert layout.shift == 0
    assert layout.lon.tolist() == spec.lon.tolist()


FILES = {
    b"": "is empty",
    b"\n<!DOCTYPE html><html>": "is a web page",
    b"version https://git-lfs.github.com/spec/v1\n": "Git LFS",
    b"\x1f\x8b" + bytes(100): "compressed",
    b"GRIB" + bytes(100): "GRIB",
    b"plain text": "not a NetCDF file",
    b"\x89HDF\r\n\x1a\n" + bytes(1000): "damaged",
    b"CDF\x01" + b"\xff" * 1000: "NetCDF-3",
}


@pytest.mark.parametrize("content", FILES, ids=FILES.values())
def test_other_files_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.nc").write_bytes(content)
    assert FILES[content] in refused(tmp_path / "f.nc")


def test_truncated_and_locked_files_are_named(tmp_path: Path) -> None:
    path = Spec().hdf5(tmp_path / "f.nc")
    shutil.copy(path, tmp_path / "cut.nc")
    os.truncate(tmp_path / "cut.nc", path.stat().st_size // 2)
    assert "is truncated" in refused(tmp_path / "cut.nc")
    hold = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        message = refused(path)
        holder.communicate()
    assert "another process has" in message
    assert "open for writing" in message
    read(path)


def test_a_file_that_changed_since_it_was_checked_is_checked_again(tmp_path: Path) -> None:
    path = Spec().hdf5(tmp_path / "f.nc")
    grid = grid_of(path)
    checked = check_file(path, NAMES, grid)
    spec = Spec()
    west(spec)
    spec.hdf5(path)
    os.utime(path, (0, 0))
    fields, _ = read_file(path, NAMES, grid, 1, checked)
    assert np.array_equal(fields, read(path)[0])


def test_only_files_as_published_are(tmp_path: Path) -> None:
    for change, published in ((lambda s: None, True), (south, True), (west, False)):
        spec = Spec()
        change(spec)
        path = spec.hdf5(tmp_path / "f.nc")
        assert check_file(path, NAMES, grid_of(path)).published == published
    spec = Spec()
    spec.pack("i2")
    path = spec.hdf5(tmp_path / "f.nc")
    assert not check_file(path, NAMES, grid_of(path)).published


def test_a_file_is_described(tmp_path: Path) -> None:
    spec = Spec()
    spec.pack("i2")
    kind, members = describe(spec.hdf5(tmp_path / "f.nc"))
    assert kind == "NetCDF-4"
    by_name = {member.name: member for member in members}
    assert (by_name["lat"].axis, by_name["lat"].first, by_name["lat"].last) == ("latitude", 90, -90)
    psl = by_name["PSL"]
    assert (psl.dims, psl.shape, psl.dtype) == ((None, "lat", "lon"), (1, H, W), "int16")
    assert (psl.units, psl.packed, psl.axis) == ("Pa", True, None)
    assert describe(Spec().classic(tmp_path / "g.nc", 1))[0] == "NetCDF-3"


def test_conversion() -> None:
    assert converter("kg m-2", "kg/m2") is None
    convert = converter("mm day-1", "m/s")
    assert convert is not None
    np.testing.assert_allclose(convert(np.array([86_400.0])), [1e-3], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, 3000), byte=st.integers(0, 255), classic=st.booleans())
def test_spoilt_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, where: int, byte: int, classic: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "spoilt"
    folder.mkdir(exist_ok=True)
    path = folder / "f.nc"
    Spec().classic(path, 1) if classic else Spec().hdf5(path)
    content = bytearray(path.read_bytes())
    content[where % len(content)] = byte
    path.write_bytes(content)
    try:
        with np.errstate(all="ignore"):
            fields, _ = read(path)
    except InvalidInput as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert np.isfinite(fields).all() or classic
