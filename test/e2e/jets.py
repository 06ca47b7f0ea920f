"""Toy jets in the layout of the Top Quark Tagging Reference Dataset, for tests.

``python jets.py --out DIR`` writes them. The jets have massless particles about a random direction.
The label says whether the invariant mass of all particles is above its median, so the exact
symmetry is the Lorentz group's.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

DAMAGES = ["nan", "label", "columns", "key"]


def make_jets(
    jets: int, items: int, draw: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Four-momenta ``[jets, items, 4]``, the leading one first, and labels ``[jets]``."""
    axis = draw.normal(size=(jets, 1, 3))
    axis /= np.linalg.norm(axis, axis=2, keepdims=True)
    momenta = axis + 0.5 * draw.normal(size=(jets, items, 3))
    momenta *= 100 * draw.exponential(size=(jets, items, 1))
    order = np.argsort(-np.hypot(momenta[..., 0], momenta[..., 1]), axis=1)
    momenta = np.take_along_axis(momenta, order[..., None], axis=1)
    vectors = np.concatenate([np.linalg.norm(momenta, axis=2, keepdims=True), momenta], axis=2)
    total = vectors.sum(1)
    mass = total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(1)
    return vectors.astype(np.float32), (mass > np.median(mass)).astype(np.int64)


def write(
    path: Path, vectors: NDArray[np.float32], labels: NDArray[np.int64], ttv: int, damage: str
) -> None:
    """One file as pandas writes it (``format='table'``)."""
    jets, items, _ = vectors.shape
    floats = [f"{c}_{i}" for i in range(items) for c in ("E", "PX", "PY", "PZ")]
    floats += ["truthE", "truthPX", "truthPY", "truthPZ"]
    integers = ["ttv", "is_signal_new"]
    if damage == "columns":
        floats = [name.replace("PX_", "px_") for name in floats]
    layout = [
        ("index", "<i8"),
        ("values_block_0", "<f4", (len(floats),)),
        ("values_block_1", "<i8", (2,)),
    ]
    rows = np.zeros(jets, layout)
    rows["index"] = np.arange(jets)
    rows["values_block_0"][:, : 4 * items] = vectors.reshape(jets, -1)
    rows["values_block_1"] = np.stack([np.full(jets, ttv), labels], 1)
    if damage == "nan":
        rows["values_block_0"][7, 5] = np.nan
    if damage == "label":
        rows["values_block_1"][7, 1] = 2
    with h5py.File(path, "w") as file:
        table = file.create_group("jets" if damage == "key" else "table").create_dataset(
            "table", data=rows
        )
        for block, names in enumerate([floats, integers]):
            table.attrs[f"values_block_{block}_kind"] = np.bytes_(pickle.dumps(names, protocol=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--jets", type=int, default=4000, help="in train.h5; a quarter of it in the others"
    )
    parser.add_argument("--items", type=int, default=5, help="particles of a jet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flip", type=float, default=0.0, help="part of the labels that are wrong")
    parser.add_argument("--damage", choices=DAMAGES, default="", help="to train.h5")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(args.seed)
    for ttv, (name, jets) in enumerate(
        {"train": args.jets, "test": args.jets // 4, "val": args.jets // 4}.items()
    ):
        vectors, labels = make_jets(jets, args.items, draw)
        labels = np.where(draw.random(jets) < args.flip, 1 - labels, labels)
        write(args.out / f"{name}.h5", vectors, labels, ttv, args.damage if name == "train" else "")


if __name__ == "__main__":
    main()
