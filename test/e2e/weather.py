"""Small weather in ClimateNet's layout, for tests: ``python weather.py OUT``.

It writes ``OUT/whole``, and copies whose last training file is damaged, each in its own way:
``OUT/lacks``, ``unlabelled``, ``coarse``, ``nan``, ``cut``, ``empty`` and ``halved`` (without the
folder test).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from atlas_worker.generators.climatenet import generate
from atlas_worker.predictors.cgnet import CGNet, CGNetParams

GRID = (96, 144)


def edited(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return edit


def without(name: str) -> Callable[[Path], None]:
    def remove(file: h5py.File) -> None:
        del file[name]

    return edited(remove)


def spoil(file: h5py.File) -> None:
    file["TMQ"][0, 5, 7] = np.nan


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


def write_predictors(out: Path) -> None:
    """An untrained CGNet of four charts by our names, ``OUT/ours.pt``, and by theirs.

    ``OUT/theirs.pt`` has the names of the published code, ``OUT/three.pt`` three of its charts.
    """
    params = CGNetParams(m=1, n=1, width=4, reference=True)
    net = CGNet(4, 4, 3, params, torch.Generator().manual_seed(0))
    ours, layout = net.state_dict(), net.reference_layout
    assert layout is not None
    theirs = {}
    for name, short in layout.names.items():
        lost = layout.epsilon - 1e-5 if name.endswith("running_var") else 0.0
        for chart in range(4):
            theirs[layout.prefix.format(layout.first + chart) + short] = ours[name][chart] - lost
    torch.save(ours, out / "ours.pt")
    torch.save(theirs, out / "theirs.pt")
    three = {name: t for name, t in theirs.items() if not name.startswith("network4.")}
    torch.save(three, out / "three.pt")


def main() -> None:
    out = Path(sys.argv[1])
    whole, other = out / "whole", out / "other"
    generate(6, 3, whole, 1, shape=GRID)
    generate(2, 3, other, 1, shape=(48, 72))
    write_predictors(out)
    damages: dict[str, Callable[[Path], object]] = {
        "lacks": without("PSL"),
        "unlabelled": without("LABELS"),
        "coarse": lambda path: shutil.copy(next(other.glob("train/*.nc")), path),
        "nan": edited(spoil),
        "cut": cut,
        "empty": empty,
        "halved": lambda path: shutil.rmtree(path.parents[1] / "test"),
    }
    for name, damage in damages.items():
        shutil.copytree(whole, out / name)
        damage(max((out / name / "train").iterdir()))


if __name__ == "__main__":
    main()
