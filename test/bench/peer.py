"""Runs in the Python of another method's published code, beside a checkout that the user has.

``peer.py plates|bodies CHECKOUT OUT N`` writes the data that its scripts make or read, as
``inputs.npy`` and ``targets.npy``. ``peer.py o5 CHECKOUT OUT N`` runs the code cells of its
notebook, and prints the generators that it finds as JSON. ``peer.py run SCRIPT …`` runs a script.
Nothing is written in the checkout.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


class Unused(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision as an empty package. Whatever uses something of it fails."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] != "torchvision":
            return None
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        pass


def allow_no_torchvision() -> None:
    """Let scripts import torchvision where it is not installed: on these problems it has no use."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(Unused())


def save(out: Path, inputs: Any, targets: Any) -> None:
    for name, value in (("inputs", inputs), ("targets", targets)):
        np.save(out / f"{name}.npy", np.asarray(value, dtype=np.float32))


def plates(checkout: Path, out: Path, samples: int) -> None:
    """Write the plates of the experiment on the heat equation, with its seed."""
    from experiment_pde import PDEDataset  # type: ignore[import-not-found]

    dataset = PDEDataset(samples)
    save(out, dataset.X, dataset.Y)


def bodies(checkout: Path, out: Path, samples: int) -> None:
    """Write pairs of frames of two bodies, four vectors of the plane each."""
    from dataset import NBodyDataset  # type: ignore[import-not-found]

    path = checkout / "data/hnn/2body-orbits-dataset.pkl"
    dataset = NBodyDataset(str(path), input_timesteps=1, output_timesteps=1)
    save(out, dataset.X[:, 0], dataset.y[:, 0])


def o5(checkout: Path, out: Path, samples: int) -> None:
    """Run the notebook, write its data, and print its generators: the last right vectors."""
    import matplotlib  # type: ignore[import-not-found]

    matplotlib.use("Agg")
    notebook = json.loads((checkout / "o5_regression.ipynb").read_text())
    sources = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {"__name__": "notebook"}
    said, sys.stdout = sys.stdout, sys.stderr
    for source in sources:
        lines = [line for line in source.split("\n") if not line.startswith("%")]
        exec("\n".join(lines), names)
    sys.stdout = said
    generators = names["symmetry_metrics"](names["E"])[2][-10:]
    np.random.seed(2022)  # as its training does, for the same data
    dataset = names["O5Synthetic"](len(names["data"]))
    if not np.array_equal(dataset.X, names["data"]):
        raise SystemExit("the notebook's data cannot be made again")
    save(out, dataset.X.reshape(-1, 2, 5), dataset.Y)
    print(json.dumps([g.tolist() for g in generators]))


PROBLEMS: dict[str, Callable[[Path, Path, int], None]] = {
    "plates": plates,
    "bodies": bodies,
    "o5": o5,
}

if __name__ == "__main__":
    allow_no_torchvision()
    problem, *given = sys.argv[1:]
    if problem == "run":
        sys.argv = given
        sys.path[0] = str(Path(given[0]).parent)
        runpy.run_path(given[0], run_name="__main__")
    else:
        checkout, out, samples = given
        sys.path[0] = checkout
        sys.argv = [problem]  # their modules may read it
        PROBLEMS[problem](Path(checkout), Path(out), int(samples))
