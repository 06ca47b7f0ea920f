"""Arrays as other writers leave them: ``python arrays.py OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main() -> None:
    out = Path(sys.argv[1])
    rng = np.random.default_rng(0)
    fields = rng.integers(-100, 100, (6, 1, 64, 64)).astype("<f4")
    targets = (fields + np.roll(fields, 1, 2)).astype("<f4")
    np.save(out / "y.npy", targets)
    variants = {
        "x": fields,
        "big-endian": fields.astype(">f4"),
        "big-endian-doubles": fields.astype(">f8"),
        "big-endian-integers": fields.astype(">i2"),
        "halves": fields.astype("<f2"),
        "fortran": np.asfortranarray(fields),
        "complex": fields.astype("c8"),
        "long": fields.astype(np.longdouble),
        "texts": fields.astype("U8"),
        "objects": fields.astype(object),
        "unsigned": (fields + 100).astype("<u8"),
        "shifted": fields + 100,
        "too-large": np.full(fields.shape, 2**64 - 1, "<u8"),
        "records": np.zeros(fields.shape, [("a", "f4")]),
    }
    for name, array in variants.items():
        np.save(out / f"{name}.npy", array, allow_pickle=True)
    for version in (2, 3):
        with (out / f"version-{version}.npy").open("wb") as file:
            np.lib.format.write_array(file, fields, (version, 0))
    with (out / "two.npy").open("wb") as file:
        np.save(file, fields)
        np.save(file, targets)
    whole = (out / "x.npy").read_bytes()
    (out / "cut.npy").write_bytes(whole[:-100])
    (out / "longer.npy").write_bytes(whole + b"more")
    numbered = np.zeros((4200, 1, 64, 64), "<f4")
    numbered += np.arange(1, 4201, dtype="<f4")[:, None, None, None]
    numbered[:, 0, -1, -1] += 1
    np.save(out / "several-parts.npy", numbered)
    np.save(out / "several-parts-fortran.npy", np.asfortranarray(numbered))
    # Sparse: they take no space on the disk.
    for name, samples in (("large", 131_200), ("too-many", 300_000)):
        sparse = np.lib.format.open_memmap(out / f"{name}.npy", "w+", "<f4", (samples, 1, 64, 64))
        sparse[-1, 0, -1, -1] = 7


if __name__ == "__main__":
    main()
