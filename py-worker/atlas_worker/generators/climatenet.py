"""Makes weather in the layout of ClimateNet, by rules of thumb of the atmosphere.

The weather is for trying out programs that read ClimateNet, not for learning about weather.

- Sea-level pressure has zonal belts, Rossby-like waves in the middle latitudes, extratropical lows,
  and small deep lows in the tropics.
- Winds follow by geostrophy (damped near the equator) and, around a low, by gradient balance.
- Moisture falls with latitude, and lies in filaments along jets that lead polewards out of the
  subtropics.
- Other variables follow from pressure, temperature and a fixed orography.
- Labels follow from the fields by thresholds: of pressure, vorticity and warm core for cyclones; of
  moisture, its flux, length and width for rivers. The areas are then outlined smoothly, as by hand,
  with some of their surroundings.

One to three experts label a time. Their thresholds differ, so that they agree no more than people
do. On average 0.55 % of the pixels are cyclones and 5.7 % are rivers; in ClimateNet 0.5 % and 5.8 %
are (Prabhat et al. 2021).

A time depends on the seed and its number, not on the number of processes. The folders ``train`` and
``test`` appear when they are complete.

Run as ``python -m atlas_worker.generators.climatenet``; see :mod:`.common` for what it prints. Each
process needs about 400 MB of memory.
"""

from __future__ import annotations

import datetime
import math
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ..datasets.climatenet import NAME, UNITS
from .common import (
    Refusal,
    in_order,
    is_marked,
    only_one,
    only_ours,
    put_in_place,
    report,
    run,
    writing,
)
from .common import processes as pool_of

Field = NDArray[np.floating[Any]]
"""Numbers; float32 if they cover the whole grid."""
Mask = NDArray[np.bool_]

GRID = (768, 1152)
"""Rows and columns of ClimateNet's grid."""
FEWEST, MOST = 2, 10_000
"""Bounds on the number of times."""
CONTROL_SCALE = 5e4
"""Length in m over which moisture is averaged before its rise eastwards is looked at."""
EXPERTS = 3
"""Largest number of experts for one time."""
BYTES_A_TIME = 36_000_000
"""Measured size of a time on the disk: two files on average."""
DIGITS = 12
"""Bits of a float32's fraction that are kept.

1 in 8000 is finer than the accuracy of this weather, and the rest compresses.
"""
FIRST_DAY = datetime.date(2000, 1, 1)
SOURCE = b"made by rules of thumb: atlas_worker.generators.climatenet"
"""Attribute ``source`` of every file. Files without it are not overwritten."""

EARTH = 6.371e6
"""Radius in m."""
OMEGA = 7.292e-5
"""Rotation of the Earth in 1/s."""
DAMPING = 3e-5
"""Coriolis parameter in 1/s, that of 12°, below which winds follow pressure less and less."""
DENSITY = 1.1
GRAVITY = 9.81

LONG_NAMES = {
    "TMQ": "Total (vertically integrated) precipitable water",
    "U850": "Zonal wind at 850 mbar pressure surface",
    "V850": "Meridional wind at 850 mbar pressure surface",
    "PSL": "Sea level pressure",
    "PRECT": "Total (convective and large-scale) precipitation rate (liq + ice)",
    "UBOT": "Lowest model level zonal wind",
    "VBOT": "Lowest model level meridional wind",
    "QREFHT": "Reference height humidity",
    "PS": "Surface pressure",
    "T200": "Temperature at 200 mbar pressure surface",
    "T500": "Temperature at 500 mbar pressure surface",
    "TS": "Surface temperature (radiative)",
    "TREFHT": "Reference height temperature",
    "Z1000": "Geopotential Z at 1000 mbar pressure surface",
    "Z200": "Geopotential Z at 200 mbar pressure surface",
    "ZBOT": "Lowest modal level height",
}


class Expert(NamedTuple):
    """Thresholds of one expert."""

    depth: float = 700.0
    """Pressure of a cyclone's core below its surroundings, in Pa."""
    vorticity: float = 6e-5
    """Vorticity in the sense of a low, in 1/s."""
    warmth: float = 1.0
    """Temperature at 500 mbar above the surroundings, in K."""
    reach: float = 400e3
    """Radius of a cyclone, in m."""
    moisture: float = 4.5
    """Moisture of a river above its surroundings, in kg/m²."""
    flux: float = 80.0
    """Flux of moisture, in kg/m² · m/s."""
    length: float = 1500e3
    """Length of a river, which is also at least twice its width, in m."""
    hand: float = 300e3
    """Size of what is smoothed away in an outline drawn by hand, in m."""
    margin: float = 0.12
    """Fraction of storm within ``hand`` from which a place belongs to it; a small one widens it."""


class Sphere:
    """A grid from pole to pole: angles in degrees, and the lengths of its steps in m."""

    def __init__(self, height: int, width: int) -> None:
        self.shape = height, width
        self.lat = np.linspace(-90, 90, height)
        self.lon = np.arange(width) * (360 / width)
        self.rows = self.lat.astype(np.float32)[:, None]
        radians = np.radians(self.rows)
        self.sin, self.cos = np.sin(radians), np.maximum(np.cos(radians), 0.02)
        self.coriolis = 2 * OMEGA * self.sin
        self.dy = EARTH * math.pi / (height - 1)
        self.dx = EARTH * self.cos * (2 * math.pi / width)
        self.area = (self.dx * self.dy).astype(np.float32)

    def east(self, field: Field) -> Field:
        """Compute the derivative ∂/∂x eastwards, in 1/m."""
        return (np.roll(field, -1, 1) - np.roll(field, 1, 1)) / (2 * self.dx)

    def north(self, field: Field) -> Field:
        """Compute the derivative ∂/∂y northwards, in 1/m."""
        return np.gradient(field, self.dy, axis=0).astype(np.float32)

    def vorticity(self, u: Field, v: Field) -> Field:
        """Compute the vorticity of the wind ``(u, v)``, in 1/s."""
        return self.east(v) - self.north(u * self.cos) / self.cos

    def around(self, field: Field, degrees: float) -> Field:
        """Compute the running mean along the parallel, ``degrees`` to either side."""
        width = self.shape[1]
        n = max(1, round(degrees / 360 * width))
        wrapped = np.concatenate([field[:, -n - 1 :], field, field[:, :n]], 1)
        sums = np.cumsum(wrapped, 1, dtype=np.float64)
        return ((sums[:, 2 * n + 1 :] - sums[:, : -2 * n - 1]) / (2 * n + 1)).astype(np.float32)

    def smoothed(self, field: Field, size: float) -> Field:
        """Apply twice a running mean over ``size`` m to either side, along both axes."""
        height, width = self.shape
        n = np.clip(size / self.dx, 1, width // 2 - 1).astype(np.int64)
        m = max(1, round(size / self.dy))
        columns, rows = np.arange(width), np.arange(height)
        south, north = np.maximum(rows - m, 0), np.minimum(rows + m + 1, height)
        for _ in range(2):
            around = np.concatenate([field, field, field], 1).cumsum(1, dtype=np.float64)
            ends = (np.take_along_axis(around, columns + width + side, 1) for side in (n, -n - 1))
            field = (np.subtract(*ends) / (2 * n + 1)).astype(np.float32)
            sums = np.concatenate([np.zeros_like(field[:1]), field]).cumsum(0, dtype=np.float64)
            field = ((sums[north] - sums[south]) / (north - south)[:, None]).astype(np.float32)
        return field

    def offsets(
        self, lat: float, lon: float, reach: float
    ) -> tuple[tuple[NDArray[np.signedinteger], ...], Field, Field]:
        """Find the box around a place.

        Args:
            lat: Latitude of the place in degrees.
            lon: Longitude of the place in degrees.
            reach: Half width of the box in m.

        Returns:
            The box's index, and distances east and north of the place in m.
        """
        half = math.degrees(reach / EARTH)
        i = np.flatnonzero(np.abs(self.lat - lat) <= half)
        turn = np.remainder(self.lon - lon + 180, 360) - 180
        j = np.flatnonzero(np.abs(turn) <= min(180.0, half / math.cos(math.radians(lat))))
        north = np.radians(self.lat[i] - lat)[:, None] * EARTH
        east = np.radians(turn[j])[None] * EARTH * math.cos(math.radians(lat))
        north, east = np.broadcast_arrays(north, east)
        return np.ix_(i, j), east.astype(np.float32), north.astype(np.float32)


def waves(
    sphere: Sphere,
    rng: np.random.Generator,
    numbers: tuple[int, int],
    where: Field,
    tilt: float = 6.0,
) -> Field:
    """Add up random waves around the globe. Their phases vary slowly with latitude.

    Args:
        sphere: The grid.
        rng: Source of the random numbers.
        numbers: Smallest and largest zonal wave number.
        where: Standard deviation of the sum.
        tilt: Size of the variation of the phases.

    Returns:
        The sum on the grid.
    """
    height, width = sphere.shape
    low, high = numbers
    spectrum = np.zeros((height, width // 2 + 1), np.complex64)
    y = np.linspace(-1, 1, height)
    for k in range(low, high + 1):
        # Phase and strength vary slowly with latitude.
        phase = 2 * math.pi * rng.random() + sum(
            rng.normal() * tilt / n * np.cos(n * math.pi * (y + 1) / 2) for n in range(1, 5)
        )
        strength = 1 + 0.5 * np.cos(2 * math.pi * (y + rng.random()))
        size = rng.rayleigh(1 / math.sqrt(2))
        if k < width / 2:  # waves that the grid resolves
            spectrum[:, k] = size * strength * np.exp(1j * phase)
    field = np.fft.irfft(spectrum, width, axis=1) * width
    return (field / math.sqrt(2 * (high - low + 1)) * where).astype(np.float32)


def orography(sphere: Sphere, seed: int) -> Field:
    """Make heights in m, 0 over the oceans. They belong to the seed and do not change with time.

    The south pole is on high land.
    """
    rng = np.random.default_rng([seed, 2**31])
    bumps = waves(sphere, rng, (1, 7), np.ones_like(sphere.rows) * sphere.cos, tilt=4)
    land = np.maximum(bumps - 0.55, 0) * 1300
    height: Field = land + 2600 / (1 + np.exp((sphere.rows + 74) / 3))
    return height.astype(np.float32)


@dataclass(frozen=True)
class World:
    """One time: fields by ClimateNet's names, and the labels of every expert, all ``[H, W]``."""

    sphere: Sphere
    fields: dict[str, Field]
    labels: list[NDArray[np.uint8]]


def make_world(
    seed: int, number: int, shape: tuple[int, int] = GRID, control: bool = False
) -> World:
    """Make time ``number`` of the seed's world: the same weather on any grid that resolves it.

    Args:
        seed: The world.
        number: The time.
        shape: Rows and columns of the grid.
        control: Label storms only where the moisture rises eastwards, which no rotation keeps.

    Returns:
        The fields and labels.
    """
    sphere = Sphere(*shape)
    rng = np.random.default_rng([seed, number])
    fields = make_fields(sphere, rng, orography(sphere, seed))
    experts = [vary(Expert(), rng) for _ in range(int(rng.integers(1, EXPERTS + 1)))]
    labels = label(sphere, fields, experts)
    if control:
        rises = sphere.east(sphere.smoothed(fields["TMQ"], CONTROL_SCALE)) > 0
        labels = [np.where(rises, found, 0).astype(np.uint8) for found in labels]
    return World(sphere, fields, labels)


def make_fields(sphere: Sphere, rng: np.random.Generator, height: Field) -> dict[str, Field]:
    """Make all 16 variables, by ClimateNet's names."""
    lat, away = sphere.rows, np.abs(sphere.rows)
    zonal = (
        101000
        + 900 * _bell(away, 32, 12)
        - 2900 * _bell(lat, -65, 13)
        - 900 * _bell(lat, 62, 13)
        + 200 * _bell(lat, 90, 15)
    )
    middle = _bell(away, 48, 15) * sphere.cos**0.5
    psl = (
        zonal
        + waves(sphere, rng, (3, 9), 950 * middle)
        + waves(sphere, rng, (1, 3), 250 * sphere.cos)
    )
    tmq = 2 + 46 * np.exp(-(lat**2) / (2 * 24.0**2)) * np.exp(
        waves(sphere, rng, (2, 12), 0.15 * sphere.cos)
    )

    for _ in range(int(rng.integers(4, 9))):
        _river(sphere, rng, psl, tmq)
    f = sphere.coriolis / (sphere.coriolis**2 + DAMPING**2)
    u, v = -sphere.north(psl) * f / DENSITY, sphere.east(psl) * f / DENSITY
    u -= 5.5 * _bell(away, 8, 9)  # trade winds, which pressure does not give so near the equator
    u += waves(sphere, rng, (1, 8), 2.0 * _bell(away, 0, 15))
    v += waves(sphere, rng, (1, 8), 2.0 * _bell(away, 0, 15))
    # Wind that blows polewards comes from moist regions.
    tmq *= np.exp(np.clip(0.018 * v * np.sign(lat) * _bell(away, 40, 20), -0.5, 0.5))
    south = sphere.sin**2
    mild = waves(sphere, rng, (2, 8), 2.5 * _bell(away, 45, 20))
    t500 = 270.5 - 34 * south + mild
    t200 = 220.5 - 17 * south - 0.6 * mild + waves(sphere, rng, (1, 6), 1.5 * sphere.cos)
    for _ in range(int(rng.integers(3, 8))):
        _vortex(sphere, rng, (psl, u, v, tmq, t500, t200), tropical=True)
    for _ in range(int(rng.integers(4, 9))):
        _vortex(sphere, rng, (psl, u, v, tmq, t500, t200), tropical=False)

    surface = 305 - 53 * south + 1.5 * mild + waves(sphere, rng, (1, 9), 1.5 * sphere.cos)
    ts = surface - 6.5e-3 * height - 6 * _bell(lat, -90, 15)
    trefht = ts - 0.4 - 0.02 * (ts - 280)
    ps = psl * np.exp(-height * GRAVITY / (287 * (trefht + 3e-3 * height)))
    warm = 611 * np.exp(17.3 * (trefht - 273.15) / (trefht - 35.9))  # Pa, Tetens
    humid = np.clip(0.70 + 0.012 * (tmq - sphere.around(tmq, 20)), 0.3, 1.0)
    # Friction turns the wind towards the low.
    turn = -np.sign(lat) * math.radians(15) * (1 - _bell(away, 0, 8))
    ubot = 0.85 * (u * np.cos(turn) + v * np.sin(turn))
    vbot = 0.85 * (v * np.cos(turn) - u * np.sin(turn))
    convergence = np.maximum(-(sphere.east(ubot) + sphere.north(vbot * sphere.cos) / sphere.cos), 0)
    # Showers: rain is lognormal, and stronger where winds converge.
    showers = np.exp(
        np.clip(1.7 * waves(sphere, rng, (15, 60), np.ones_like(lat), tilt=25), -5, 5) - 1.45
    )
    prect = 2.6e-9 * tmq * showers * (0.4 + np.minimum(convergence * 1e5, 10))
    made = {
        "TMQ": np.maximum(tmq, 0.1),
        "U850": u,
        "V850": v,
        "PSL": psl,
        "PRECT": prect,
        "UBOT": ubot,
        "VBOT": vbot,
        "QREFHT": 0.622 * humid * warm / ps,
        "PS": ps,
        "T200": t200,
        "T500": t500,
        "TS": ts,
        "TREFHT": trefht,
        "Z1000": height + (psl - 100000) / (DENSITY * GRAVITY),
        "Z200": 11930 + 35 * (t500 - 258) + 0.02 * (psl - 101000),
        "ZBOT": 61.3 * trefht / 278.4,
    }
    return {name: made[name].astype(np.float32) for name in LONG_NAMES}


def _bell(x: Field, centre: float, width: float) -> Field:
    bell: Field = np.exp(-(((x - centre) / width) ** 2) / 2)
    return bell


def _river(sphere: Sphere, rng: np.random.Generator, psl: Field, tmq: Field) -> None:
    """Add a filament of moisture from the subtropics, polewards and eastwards.

    The pressure is changed so that it drives a jet along the filament.
    """
    side = rng.choice([-1, 1])
    start, reach = rng.uniform(16, 24), rng.uniform(20, 32)
    slope, bend = rng.uniform(0.6, 1.6), rng.uniform(-0.015, 0.02)
    width, wet, jet = rng.uniform(200e3, 300e3), rng.uniform(10, 24), rng.uniform(12, 26)
    away = np.abs(sphere.rows)
    along = np.clip(away - start, -10, reach + 10)
    centre = rng.uniform(0, 360) + slope * along + bend * along**2
    turn = np.remainder(sphere.lon[None].astype(np.float32) - centre + 180, 360) - 180
    tangent = np.radians(slope + 2 * bend * along) * sphere.cos / math.radians(1)
    # Distance perpendicular to the filament: positive to the east.
    across = np.radians(turn) * EARTH * sphere.cos / np.sqrt(1 + tangent**2)
    ends = 1 / (1 + np.exp(-(away - start) / 2)) / (1 + np.exp((away - start - reach) / 2))
    ends = ends * (sphere.rows * side > 0)
    tmq += wet * ends * np.exp(-((across / width) ** 2) / 2)
    broad = 2 * width
    force = DENSITY * np.abs(sphere.coriolis) * jet
    psl += ends * force * across * np.exp(-((across / broad) ** 2) / 2)


def _vortex(
    sphere: Sphere, rng: np.random.Generator, fields: tuple[Field, ...], tropical: bool
) -> None:
    """Add a low with the wind of gradient balance.

    A tropical low is small and deep, with a warm and moist core. Other lows have a cold core.
    """
    psl, u, v, tmq, t500, t200 = fields
    side = rng.choice([-1, 1])
    if tropical:
        lat, size, depth = rng.uniform(10, 28), rng.uniform(110e3, 200e3), rng.uniform(1800, 5500)
        wet, middle, upper = rng.uniform(12, 22), rng.uniform(3, 6), rng.uniform(3, 7)
    else:
        lat, size, depth = rng.uniform(36, 60), rng.uniform(250e3, 450e3), rng.uniform(1200, 3000)
        wet, middle, upper = rng.uniform(0, 3), rng.uniform(-5, -2), rng.uniform(-1, 2)
    lat *= side
    box, east, north = sphere.offsets(lat, rng.uniform(0, 360), 5 * size)
    r2 = (east**2 + north**2) / size**2
    low = np.exp(-r2 / 2)
    f = 2 * OMEGA * math.sin(math.radians(abs(lat)))
    r = np.sqrt(r2) * size
    # Gradient balance: v²/r + f v = (∂p/∂r)/ρ.
    wind = np.sqrt((f * r / 2) ** 2 + depth * r2 * low / DENSITY) - f * r / 2
    unit = side * wind / np.maximum(r, 1)
    psl[box] -= depth * low
    u[box] -= unit * north
    v[box] += unit * east
    tmq[box] += wet * np.exp(-r2 / 6)
    t500[box] += middle * np.exp(-r2 / 4)
    t200[box] += upper * np.exp(-r2 / 4)


def vary(expert: Expert, rng: np.random.Generator) -> Expert:
    """Return another expert, whose thresholds differ by up to half."""
    return Expert(*(value * rng.uniform(0.65, 1.55) for value in expert))


def label(
    sphere: Sphere, fields: dict[str, Field], experts: list[Expert]
) -> list[NDArray[np.uint8]]:
    """Label the fields as every expert does.

    Args:
        sphere: The grid.
        fields: The variables.
        experts: The experts.

    Returns:
        ``[H, W]`` for each expert: 0 background, 1 tropical cyclone, 2 atmospheric river.
    """
    psl, u, v, tmq = (fields[name] for name in ("PSL", "U850", "V850", "TMQ"))
    tropics = np.flatnonzero(np.abs(sphere.lat) < 36)
    depth = sphere.around(psl, 10) - psl
    spin = sphere.vorticity(u, v) * np.sign(sphere.rows)
    warmth = fields["T500"] - sphere.around(fields["T500"], 10)
    moisture = tmq - sphere.around(tmq, 20)
    flux = tmq * np.hypot(u, v)
    away = np.abs(sphere.rows)
    polewards = (v * np.sign(sphere.rows) > 0) & (away > 18) & (away < 62)
    seen = []
    for e in experts:
        found = np.zeros(sphere.shape, np.uint8)
        wet = polewards & (moisture > e.moisture) & (flux > e.flux)
        core = (depth > e.depth) & (spin > e.vorticity) & (warmth > e.warmth)
        core[: tropics[0]] = core[tropics[-1] + 1 :] = False
        cyclones = _cyclones(sphere, psl, core, depth > e.depth / 4, e.reach)
        rivers = _long(sphere, wet & ~cyclones, e.length)
        for number, storm in ((2, rivers), (1, cyclones)):
            found[sphere.smoothed(storm.astype(np.float32), e.hand) > e.margin] = number
        seen.append(found)
    return seen


def _cyclones(sphere: Sphere, psl: Field, core: Mask, low: Mask, reach: float) -> Mask:
    """The low parts within ``reach`` of the lowest pressure of every core."""
    cyclones, left = np.zeros_like(core), core.copy()
    while left.any():
        rows, columns = np.nonzero(left)
        lowest = int(np.argmin(psl[rows, columns]))
        centre = float(sphere.lat[rows[lowest]]), float(sphere.lon[columns[lowest]])
        left[rows[lowest], columns[lowest]] = False
        box, east, north = sphere.offsets(*centre, reach)
        disc = east**2 + north**2 <= reach**2
        cyclones[box] |= disc & low[box]
        left[box] &= ~disc
    return cyclones


def _long(sphere: Sphere, wet: Mask, length: float) -> Mask:
    """Connected parts of ``wet`` that are ``length`` m long and at least twice as long as wide."""
    height, width = sphere.shape
    cell = max(1, height // 192)  # connected parts are found on a grid of about a degree
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.zeros((rows * cell, columns * cell), bool)
    padded[:height, :width] = wet
    coarse = padded.reshape(rows, cell, columns, cell).any((1, 3))
    part = np.where(coarse, np.arange(1, coarse.size + 1).reshape(coarse.shape), 0)
    while True:  # spread the highest number of each part through it
        spread = np.maximum(part, np.maximum(np.roll(part, 1, 1), np.roll(part, -1, 1)))
        spread[1:] = np.maximum(spread[1:], part[:-1])
        spread[:-1] = np.maximum(spread[:-1], part[1:])
        spread[~coarse] = 0
        if np.array_equal(spread, part):
            break
        part = spread
    fine = np.repeat(np.repeat(part, cell, 0), cell, 1)[:height, :width]
    kept = np.zeros(coarse.size + 1, bool)
    for number in np.unique(part[coarse]):
        i, j = np.nonzero(wet & (fine == number))
        lon = np.radians(sphere.lon[j])
        lon = np.remainder(lon - np.angle(np.exp(1j * lon).mean()) + np.pi, 2 * np.pi) - np.pi
        lat = np.radians(sphere.lat[i])
        own = EARTH * math.hypot(np.ptp(lat), np.ptp(lon) * float(np.cos(lat).mean()))
        across = float(sphere.area[i, 0].sum()) / max(own, 1.0)
        kept[number] = own > length and own > 2 * across
    long: Mask = wet & kept[fine]
    return long


@dataclass(frozen=True)
class TimeTask:
    """One time to write."""

    """One time to be written."""

    seed: int
    number: int
    folder: Path
    shape: tuple[int, int]
    control: bool = False


def write_time(task: TimeTask) -> int:
    """Write a file for every expert of a time into the task's folder, and return their bytes."""
    world = make_world(task.seed, task.number, task.shape, task.control)
    stem = stem_of(task.number)
    paths = [task.folder / f"{stem}_{expert}.nc" for expert in range(len(world.labels))]
    write_file(paths[0], world, task.number)
    for path, labels in zip(paths, world.labels, strict=True):
        if path != paths[0]:  # the fields are compressed already
            shutil.copyfile(paths[0], path)
            with h5py.File(path, "r+") as file:
                file["LABELS"][...] = labels
    return sum(path.stat().st_size for path in paths)


def stem_of(number: int) -> str:
    """Return the name of a time.

    >>> stem_of(31)
    'data-2000-02-01-01-1'
    """
    return f"data-{FIRST_DAY + datetime.timedelta(days=number)}-01-1"


def write_file(path: Path, world: World, number: int) -> None:
    """Write the first expert's file, as NetCDF-4: HDF5 whose dimensions are scales."""
    sphere = world.sphere
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["source"] = np.bytes_(SOURCE)
        scales = {
            "time": (np.array([float(number)]), f"days since {FIRST_DAY} 00:00:00"),
            "lat": (sphere.lat, "degrees_north"),
            "lon": (sphere.lon, "degrees_east"),
        }
        for name, (values, units) in scales.items():
            file.create_dataset(name, data=values, track_order=True)
            file[name].attrs["units"] = np.bytes_(units)
            file[name].make_scale(name)
        variables = {
            name: (rounded(world.fields[name])[None], (UNITS[name], long))
            for name, long in LONG_NAMES.items()
        }
        labels = ("1", "0 background, 1 tropical cyclone, 2 atmospheric river")
        planes: dict[str, tuple[NDArray[Any], tuple[str, str]]] = {
            **variables,
            "LABELS": (world.labels[0].astype(np.int64), labels),
        }
        for name, (values, (units, long_name)) in planes.items():
            packed: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            chunks = (*values.shape[:-2], -(-values.shape[-2] // 2), -(-values.shape[-1] // 2))
            made = file.create_dataset(name, data=values, chunks=chunks, track_order=True, **packed)
            made.attrs["units"], made.attrs["long_name"] = np.bytes_(units), np.bytes_(long_name)
            for axis, scale in enumerate(("time", "lat", "lon")[-values.ndim :]):
                made.dims[axis].attach_scale(file[scale])


def rounded(values: Field) -> NDArray[np.float32]:
    """Round numbers to ``DIGITS`` bits of their fraction.

    Variables that are far from zero, such as PSL, keep more bits.

    >>> float(rounded(np.array([1.00001], np.float32))[0])
    1.0
    """
    # The first 6 bits of numbers about 1e5 that differ by 1e3 are all the same.
    digits = DIGITS + (
        4 if values.size > 1 and abs(float(values.mean())) > 10 * float(values.std()) else 0
    )
    drop = 23 - digits
    bits = values.view(np.uint32)
    half = np.uint32(1 << (drop - 1))
    kept: NDArray[np.float32] = ((bits + half) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)).view(
        np.float32
    )
    return kept


def split(times: int) -> dict[str, range]:
    """Split times into the folders: the last fifth is the test set, and each has at least one.

    >>> split(24)
    {'train': range(0, 19), 'test': range(19, 24)}
    """
    test = max(1, round(times / 5))
    return {"train": range(times - test), "test": range(times - test, times)}


def generate(
    times: int,
    seed: int,
    out: Path,
    processes: int,
    force: bool = False,
    shape: tuple[int, int] = GRID,
    control: bool = False,
) -> dict[str, Any]:
    """Write the folders ``train`` and ``test``.

    If it fails, it leaves no new files, and loses no old ones.

    Args:
        times: Number of times in both folders.
        seed: Seed of the weather.
        out: Folder of the two folders.
        processes: Number of processes.
        force: Replace existing folders, if all their files are marked as made here (``SOURCE``).
        shape: Rows and columns of the grid.
        control: Label storms only where the moisture rises eastwards.

    Returns:
        The last line of the report; rows are times.

    Raises:
        Refusal: The arguments are not accepted, folders exist, or there is too little space.
    """
    if not FEWEST <= times <= MOST:
        raise Refusal(
            f"{times} times cannot be made",
            f"ask for {FEWEST} to {MOST:,}: train and test need one each",
        )
    if seed < 0 or processes < 1:
        raise Refusal(
            f"the seed is {seed}, the number of processes {processes}",
            "give a seed of at least 0, and at least one process",
        )
    start = time.monotonic()
    parts = split(times)
    partial = {name: out / f"{name}.partial" for name in parts}
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with only_one(out, "weather"):
            existing = [name for name in parts if (out / name).exists()]
            if existing and not force:
                raise Refusal(
                    f"{out} has {', '.join(existing)} already",
                    "choose another folder, or overwrite them",
                    "exists",
                )
            for name in existing:
                _only_ours(out / name)
            need, free = (
                times * BYTES_A_TIME * math.prod(shape) / math.prod(GRID),
                shutil.disk_usage(out).free,
            )
            if need > free:
                raise Refusal(
                    f"{times} times need about {need / 1e9:.2g} GB, "
                    f"but the disk of {out} has only {free / 1e9:.2g} GB free",
                    "free some space, ask for fewer times, or choose a folder on another disk",
                    "no_space",
                )
            try:
                for folder in partial.values():
                    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed
                    folder.mkdir()
                sizes: dict[str, int] = {}
                with pool_of(min(processes, times), "weather") as pool:
                    for name, numbers in parts.items():
                        tasks = [
                            TimeTask(seed, number, partial[name], shape, control)
                            for number in numbers
                        ]
                        progress = _Progress(name, len(tasks), start)
                        sizes[name] = sum(
                            progress.count(
                                in_order(pool, write_time, tasks, 2 * processes, progress.tell)
                            )
                        )
                put_in_place({out / name: new for name, new in partial.items()})
            finally:
                for folder in partial.values():
                    shutil.rmtree(folder, ignore_errors=True)
    files = [
        {"path": str(out / name), "rows": len(numbers), "bytes": sizes[name]}
        for name, numbers in parts.items()
    ]
    return {"files": files, "seconds": round(time.monotonic() - start, 3), "seed": seed}


class _Progress:
    def __init__(self, name: str, total: int, start: float) -> None:
        self._name, self._total, self._start, self._done = name, total, start, 0
        self.tell()

    def tell(self) -> None:
        seconds = round(time.monotonic() - self._start, 3)
        report(file=self._name, done=self._done, total=self._total, seconds=seconds)

    def count(self, results: Iterator[int]) -> Iterator[int]:
        for result in results:
            self._done += 1
            self.tell()
            yield result


def _only_ours(folder: Path) -> None:
    """Refuse to overwrite a folder that contains anything that was not made here."""
    held = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    only_ours(held, lambda path: NAME.fullmatch(path.name) is not None and is_marked(path, SOURCE))


def main() -> int:
    """Run the program."""
    return run(
        "Weather in the layout of ClimateNet",
        *("--files", "number of times in both folders; a time has a file for each of its experts"),
        *("folder for the folders train and test", generate),
        "label storms only where the moisture rises eastwards: a control without symmetry",
    )


if __name__ == "__main__":
    sys.exit(main())
