"""Jets as other people's files have them, for tests: ``python make_tables.py OUT``.

Each folder of OUT has train.h5, val.h5 and test.h5, see ``KINDS``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
from jets import make_jets, write

KINDS = ("plain", "sorted", "one_class", "key", "two", "fixed", "shared", "odd_name")
"""
- sorted: by class
- one_class: all jets have the same label
- key, two: the tables have other names
- fixed: with ``format='fixed'``
- shared: the jets of val.h5 are those of train.h5
- odd_name: the files have other names
"""


def main(out: Path) -> None:
    """Write all kinds."""
    for kind in KINDS:
        folder = out / kind
        folder.mkdir(parents=True)
        for number, (part, jets) in enumerate((("train", 300), ("val", 80), ("test", 80))):
            draw = np.random.default_rng(0 if kind == "shared" else number)
            vectors, labels = make_jets(300, 5, draw)
            vectors, labels = vectors[:jets], labels[:jets]
            if kind == "sorted":
                order = np.argsort(labels, kind="stable")
                vectors, labels = vectors[order], labels[order]
            if kind == "one_class":
                labels[:] = 1
            path = folder / (f"{part}.hdf5" if kind == "odd_name" else f"{part}.h5")
            write(path, vectors, labels, number, "key" if kind in ("key", "two") else "")
            if kind == "two":
                with h5py.File(path, "a") as file:
                    file.copy("jets", "others/jets")
            if kind == "fixed":
                with h5py.File(path, "w") as file:
                    file["table/block0_values"] = vectors.reshape(jets, -1)
                    file["table/axis0"] = np.arange(20)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
