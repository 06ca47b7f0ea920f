"""Times reading ClimateNet's files into the cache here and in another version, in turns.

    python reading.py OTHER [TURNS]

OTHER is the folder py-worker of the other version, for instance made by
``git archive COMMIT py-worker | tar x -C FOLDER``. Prints the median of the other version's time
over that of this one, for files compressed like the generator's, and plain like ClimateNet's.
"""

from __future__ import annotations

import importlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import h5py
import torch

HERE = Path(__file__).parents[2] / "py-worker"
FILES = 8
LOCAL = "TMQ,U850,V850,PSL"


def imported(folder: Path) -> ModuleType:
    """Import the dataset of one version, beside those of others."""
    for name in [name for name in sys.modules if name.startswith("atlas_worker")]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    module = importlib.import_module("atlas_worker.datasets.climatenet")
    sys.path.pop(0)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(folder), f"{module.__file__} is not in {folder}"
    return module


def seconds(version: ModuleType, path: Path, variables: str, cache: Path) -> float:
    """Time to open the dataset and to read it into an empty cache."""
    shutil.rmtree(cache, ignore_errors=True)
    params = version.ClimateNetParams(path=str(path), variables=variables, cache=str(cache))
    start = time.perf_counter()
    dataset = version.ClimateNet(params, seed=0, device=torch.device("cpu"), tensors={})
    dataset.run_epoch(lambda *_: None)
    return time.perf_counter() - start


def plain(source: Path, target: Path) -> None:
    """Copy a file without compression."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        for name in ("time", "lat", "lon"):
            new[name] = old[name][()]
            new[name].make_scale(name)
        for name in [name for name in old if name not in new]:
            new[name] = old[name][()]
            for axis, scale in enumerate(("time", "lat", "lon")[-new[name].ndim :]):
                new[name].dims[axis].attach_scale(new[scale])
        for name in new:
            new[name].attrs["units"] = old[name].attrs["units"]


def main() -> None:
    """Measure, and print a line of JSON."""
    other, turns = (
        imported(Path(sys.argv[1]).resolve()),
        int(sys.argv[2] if len(sys.argv) > 2 else 12),
    )
    this = imported(HERE)
    importlib.import_module(
        "atlas_worker.service.devices"
    ).keep_freed_memory()  # as the worker does
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = [sys.executable, "-m", "atlas_worker.generators.climatenet", "--files", "2"]
        subprocess.run([*make, "--out", folder / "made"], cwd=HERE, check=True, stdout=sys.stderr)
        made = next((folder / "made" / "train").iterdir())
        for kind, copy in (("plain", plain), ("compressed", shutil.copy)):
            (folder / kind).mkdir()
            for number in range(FILES):
                copy(made, folder / kind / f"data-2000-01-01-01-1_{number}.nc")
        for kind, path in ((kind, folder / kind) for kind in ("plain", "compressed")):
            for variables in (LOCAL, ",".join(this.NORMAL)):
                found = []
                for turn in range(turns + 1):
                    order = (other, this) if turn % 2 else (this, other)
                    took = {v: seconds(v, path, variables, folder / "cache") for v in order}
                    found.append(took[other] / took[this])
                what = f"{kind}, {len(variables.split(','))} variables"
                ratios[what] = round(statistics.median(found[1:]), 3)  # the first warms up
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
