"""Does `discover --charts auto` mark the charts at a hole, and no others?

Heat flows on plates of 64x64 pixels from smooth random fields. A hole of a random place and size is
held at a temperature, so the rotations hold away from it alone. One plate in the end has no hole.
For each plate the script prints: the intersection over union of the marked charts and those whose
input window meets the hole; the share of the area that is marked away from the hole; and the angle
of the generator to the rotations, beside that on an atlas made by hand, which has the charts that
do not meet the hole.

Run it with ``python holes.py [HOLES] [FIRST SEED]`` and the Python of ``py-worker/.venv``.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
SIDE, SAMPLES, STEPS = 64, 400, 12
HELD = 1.5
"""Temperature of the hole, in standard deviations of the fields."""
SIZES = (6, 20)
"""Least and largest side of a hole."""
Mask = NDArray[np.bool_]


def make_hole(rng: np.random.Generator) -> Mask:
    """Draw a rectangle of a random size and place on the plate."""
    hole = np.zeros((SIDE, SIDE), bool)
    height, width = rng.integers(SIZES[0], SIZES[1] + 1, 2)
    row, col = rng.integers(0, SIDE - height + 1), rng.integers(0, SIDE - width + 1)
    hole[row : row + height, col : col + width] = True
    return hole


def make_plates(hole: Mask, rng: np.random.Generator, folder: Path) -> None:
    """Write the fields before and after the flow as ``x.npy`` and ``y.npy``."""
    k = np.fft.fftfreq(SIDE)
    smooth = np.exp(-200 * (k[:, None] ** 2 + k[None] ** 2))
    x = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SAMPLES, SIDE, SIDE))) * smooth).real
    x /= x.std()
    x[:, hole] = HELD
    y = x.copy()
    for _ in range(STEPS):
        p = np.pad(y, ((0, 0), (1, 1), (1, 1)), mode="edge")
        y = (p[:, :-2, 1:-1] + p[:, 2:, 1:-1] + p[:, 1:-1, :-2] + p[:, 1:-1, 2:]) / 4
        y[:, hole] = HELD
    np.save(folder / "x.npy", x[:, None].astype(np.float32))
    np.save(folder / "y.npy", y[:, None].astype(np.float32))


def discover(folder: Path, *flags: str) -> dict[str, Any]:
    """Run `atlas discover --task discover_algebra` on the plates."""
    files = ["--inputs", str(folder / "x.npy"), "--targets", str(folder / "y.npy")]
    task = ["--task", "discover_algebra", "--fixed-seed", "--json", "--runs", str(folder / "runs")]
    done = subprocess.run(
        ["npm", "run", "-s", "atlas", "--", "discover", *task, *files, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-1000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def angle_of(result: dict[str, Any]) -> float | None:
    """Angle of the generators to so(2) in degrees; None if they are no rotations."""
    algebra = result["algebra"]
    if algebra["symmetryCount"] != 1:
        return None
    (b,) = algebra["generators"][:1]
    b = np.array(b)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    cosine = abs((b * turn).sum()) / np.linalg.norm(b) / np.linalg.norm(turn)
    return math.degrees(math.acos(min(1.0, float(cosine))))


@dataclass
class Graded:
    """How a map fits a hole."""

    meeting: int
    """Number of charts whose input window meets the hole."""
    overlap: float | None
    """Intersection over union; None if no chart is marked or meets the hole."""
    elsewhere: float
    """Share of the charts' area that is marked away from the hole."""
    angle: float | None
    by_hand: float | None


def grade(result: dict[str, Any], hole: Mask) -> tuple[list[bool], list[bool], float | None, float]:
    """Compare the marked charts with those whose window meets the hole."""
    plate = result["chartMap"]
    window = plate["window"]
    meets, marked = [], []
    for chart in plate["charts"]:
        rows = slice(max(0, chart["row"] - window), chart["row"] + window + 1)
        cols = slice(max(0, chart["col"] - window), chart["col"] + window + 1)
        meets.append(bool(hole[rows, cols].any()))
        marked.append(chart["state"] != "holds")
    both = sum(a and b for a, b in zip(meets, marked, strict=True))
    either = sum(a or b for a, b in zip(meets, marked, strict=True))
    wrong = sum(b and not a for a, b in zip(meets, marked, strict=True))
    return meets, marked, both / either if either else None, wrong / len(marked)


def try_hole(hole: Mask, seed: int) -> Graded:
    """Find the charts of plates with a hole, and the algebra on them and on a hand-made atlas."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_plates(hole, np.random.default_rng(seed + 1000), folder)
        auto = discover(folder, "--charts", "auto")
        meets, marked, overlap, elsewhere = grade(auto, hole)
        plate = auto["chartMap"]
        away = [c for c, m in zip(plate["charts"], meets, strict=True) if not m]
        by_hand = None
        if any(meets) and away:
            places = " ".join(f"{c['row']},{c['col']}" for c in away)
            lengths = ["--r-in", str(plate["rIn"]), "--r-out", str(plate["rOut"]), "--margin", "2"]
            by_hand = angle_of(discover(folder, "--charts", places, *lengths))
        for chart, at, mark in zip(plate["charts"], meets, marked, strict=True):
            if at != mark:
                print("   ", "missed" if at else "not at the hole", chart, flush=True)
        return Graded(sum(meets), overlap, elsewhere, angle_of(auto), by_hand)


def main() -> None:
    """Print a line for each plate, and a summary."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found: list[Graded] = []

    def told(angle: float | None) -> str:
        return "none" if angle is None else f"{angle:.2f}°"

    for seed in range(first, first + count):
        hole = make_hole(np.random.default_rng(seed))
        rows, cols = (np.flatnonzero(hole.any(axis)) for axis in (1, 0))
        graded = try_hole(hole, seed)
        found.append(graded)
        overlap = "-" if graded.overlap is None else f"{graded.overlap:.2f}"
        print(
            f"{seed:3} rows {rows[0]}-{rows[-1]}, columns {cols[0]}-{cols[-1]}: "
            f"{graded.meeting} charts meet it, IoU {overlap}, elsewhere {graded.elsewhere:.0%}, "
            f"so(2) {told(graded.angle)}, by hand {told(graded.by_hand)}",
            flush=True,
        )
    plain = try_hole(np.zeros((SIDE, SIDE), bool), first)
    print(f"without a hole: marked {plain.elsewhere:.0%}, so(2) {told(plain.angle)}")
    judged = [g.overlap for g in found if g.overlap is not None]
    good = sum(o >= 0.8 for o in judged)
    print(
        f"IoU at least 0.8: {good} of {len(judged)}; elsewhere at most 5 %: "
        f"{sum(g.elsewhere <= 0.05 for g in found)} of {len(found)}; so(2): "
        f"{sum(g.angle is not None for g in found)} of {len(found)}"
    )


if __name__ == "__main__":
    main()
