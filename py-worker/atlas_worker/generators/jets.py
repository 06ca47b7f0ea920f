"""Makes top and QCD jets in the layout of the Top Quark Tagging Reference Dataset.

The jets are made by PYTHIA 8 and FastJet with the recipe of Kasieczka, Plehn et al., "The Machine
Learning Landscape of Top Taggers" (SciPost Phys. 7, 014, 2019), without its detector:

- proton collisions at 14 TeV without multiple interactions;
- top pairs that decay to quarks only, or QCD dijets;
- anti-kT jets of R = 0.8 with pT from 550 to 650 GeV and |η| < 2;
- the three quarks of a top's decay lie within 0.8 of the axis of a top jet.

The constituents are the stable visible particles (no neutrinos, |η| < 4.9), without a detector's
granularity.

Jets are made in blocks. A block's random numbers depend on the seed and the block only, so a file
does not depend on the number of processes. The files appear together, when all are complete.

Run as ``python -m atlas_worker.generators.jets``; see :mod:`.common` for what it prints. It needs
the packages of ``requirements-jets.txt`` (pythia8mc and fastjet are under the GPL).
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

CONSTITUENTS = 200
"""Constituents of a jet in the file."""
BLOCK = 250
"""Jets of one random stream. A block has jets of one class; blocks of the classes alternate."""
EVENTS = 100
"""Collisions made at a time."""
MIXED = 8
"""Blocks whose jets are mixed with each other and written together."""
FEWEST = 10
"""Smallest number of jets: the two smaller files have a fifth each, with a jet of each class."""
MOST = 100_000_000
"""Largest number of jets."""
BYTES_A_JET = 1150
"""Measured size of a jet on the disk, compressed."""
PT = (550.0, 650.0)
"""Transverse momentum of a jet in GeV."""
ETA = 2.0
"""Largest pseudorapidity of a jet."""
RADIUS = 0.8
"""R of the jet algorithm, and largest distance of a top's quarks from the jet's axis."""
PT_HAT = (480.0, 900.0)
"""Transverse momentum of the hard collision in GeV, limited for speed.

About 0.2 % of the jets in ``PT`` would come from above these limits, and 20 to 25 % from below, by
hard radiation. A lower limit of 350 takes about twice as long.
"""
VISIBLE_ETA = 4.9
"""Largest pseudorapidity of a visible particle."""

PACKAGES = ["pythia8mc", "fastjet", "awkward", "pandas", "tables"]
"""Packages that the program needs."""
SPLITS = {"train": (0.6, 0), "val": (0.2, 2), "test": (0.2, 1)}
"""Fraction of the jets, and value of the column ``ttv``, of each file."""
SOURCE = b"made by PYTHIA 8 and FastJet: atlas_worker.generators.jets"
"""Attribute ``source`` of every file. Files without it are not overwritten."""

COLUMNS = [f"{axis}_{i}" for i in range(CONSTITUENTS) for axis in ("E", "PX", "PY", "PZ")]
TRUTH = ["truthE", "truthPX", "truthPY", "truthPZ"]
SETTINGS = {
    True: [
        "Top:gg2ttbar = on",
        "Top:qqbar2ttbar = on",
        "24:onMode = off",
        "24:onIfAny = 1 2 3 4 5",
    ],
    False: ["HardQCD:all = on"],
}


@dataclass(frozen=True)
class Block:
    """Jets of one class that are made from one seed."""

    signal: bool
    jets: int
    seed: int


def make_block(block: Block) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make the jets of a block.

    Args:
        block: The block.

    Returns:
        Constituents ``[jets, 200, 4]`` as (E, px, py, pz) in GeV, by descending transverse momentum
        and padded with zeros; and the tops ``[jets, 4]``, zero for QCD.
    """
    import fastjet
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for setting in [
        "Print:quiet = on",
        "Beams:eCM = 14000.",
        "PartonLevel:MPI = off",
        "Random:setSeed = on",
        f"Random:seed = {block.seed}",
        f"PhaseSpace:pTHatMin = {PT_HAT[0]}",
        f"PhaseSpace:pTHatMax = {PT_HAT[1]}",
        *SETTINGS[block.signal],
    ]:
        if not pythia.readString(setting):
            raise RuntimeError(f"PYTHIA refuses the setting {setting}")
    if not pythia.init():
        raise RuntimeError("PYTHIA cannot be initialised")
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS)
    jets: list[NDArray[np.float32]] = []
    tops: list[NDArray[np.float32]] = []
    while len(jets) < block.jets:
        for constituents, top in _jets(pythia.nextBatch(EVENTS).prt, block.signal, definition):
            jets.append(constituents)
            tops.append(top)
    return np.stack(jets[: block.jets]), np.stack(tops[: block.jets])


def _jets(
    particles: Any, signal: bool, definition: Any
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the jets of a batch of collisions that meet the recipe, with their tops."""
    import awkward as ak
    import fastjet

    p = particles.p
    pt2 = p.px**2 + p.py**2
    kind = abs(particles.id)
    forward = np.sinh(VISIBLE_ETA)
    seen = (particles.status > 0) & (kind != 12) & (kind != 14) & (kind != 16)
    seen = seen & (p.pz**2 < forward**2 * pt2)
    visible = ak.zip({"px": p.px[seen], "py": p.py[seen], "pz": p.pz[seen], "E": p.e[seen]})
    decayed = _decays(particles) if signal else None
    sequence = fastjet.ClusterSequence(visible, definition)
    found = sequence.inclusive_jets(min_pt=PT[0])
    members = sequence.constituents(min_pt=PT[0])
    for event in np.flatnonzero(ak.num(found) > 0):
        for jet, parts in zip(found[event], members[event], strict=True):
            axis = np.array([jet.E, jet.px, jet.py, jet.pz])
            pt = float(np.hypot(axis[1], axis[2]))
            if pt > PT[1] or abs(np.arcsinh(axis[3] / pt)) > ETA:
                continue
            top = np.zeros(4)
            if decayed is not None:
                inside = [q for q in decayed[event] if bool((_distance(axis, q) < RADIUS).all())]
                if not inside:
                    continue
                top = inside[0].sum(0)
            own = np.stack([ak.to_numpy(parts[name]) for name in ("E", "px", "py", "pz")], 1)
            order = np.argsort(-np.hypot(own[:, 1], own[:, 2]), kind="stable")[:CONSTITUENTS]
            padded = np.zeros((CONSTITUENTS, 4), np.float32)
            padded[: len(order)] = own[order]
            yield padded, top.astype(np.float32)


def _decays(particles: Any) -> list[list[NDArray[np.float64]]]:
    """For each collision, the three quarks ``[3, 4]`` of each top, as (E, px, py, pz)."""
    import awkward as ak

    mother = particles.id[particles.mother1]
    # Quarks from the decay of a top or of its W; the mother's sign tells top from antitop.
    quark = (
        (particles.status == -23)
        & (abs(particles.id) <= 5)
        & ((abs(mother) == 24) | (abs(mother) == 6))
    )
    p = particles.p[quark]
    momenta = ak.zip([p.e, p.px, p.py, p.pz])
    positive = mother[quark] > 0
    decays = []
    for quarks, sign in zip(momenta, positive, strict=True):
        four, sign = np.array(quarks.tolist()).reshape(-1, 4), ak.to_numpy(sign)
        tops = [four[sign == s] for s in (True, False)]
        decays.append([t for t in tops if len(t) == 3])
    return decays


def _distance(axis: NDArray[np.float64], momenta: NDArray[np.float64]) -> NDArray[np.float64]:
    """ΔR, the distance in pseudorapidity and azimuth."""

    def angles(v: NDArray[np.float64]) -> tuple[Any, Any]:
        return np.arcsinh(v[..., 3] / np.hypot(v[..., 1], v[..., 2])), np.arctan2(
            v[..., 2], v[..., 1]
        )

    (eta, phi), (eta0, phi0) = angles(momenta), angles(axis)
    turn = np.remainder(phi - phi0 + np.pi, 2 * np.pi) - np.pi
    distance: NDArray[np.float64] = np.hypot(eta - eta0, turn)
    return distance


def plan(jets: int, seed: int) -> dict[str, list[Block]]:
    """Plan the blocks of each file: half of its jets of each class, and every block its own seed.

    >>> [(b.signal, b.jets) for b in plan(1001, seed=0)["train"]]
    [(True, 250), (False, 250), (True, 50), (False, 51)]
    """
    sizes = {name: int(jets * share) for name, (share, _) in SPLITS.items()}
    sizes["train"] += jets - sum(sizes.values())
    taken: set[int] = set()
    plans: dict[str, list[Block]] = {}
    for name, (_, ttv) in SPLITS.items():
        wanted = {True: sizes[name] // 2, False: sizes[name] - sizes[name] // 2}
        blocks: list[Block] = []
        while any(wanted.values()):
            for signal_ in (True, False):
                count = min(wanted[signal_], BLOCK)
                if count:
                    words = np.random.SeedSequence([seed, ttv, len(blocks)]).generate_state(1)
                    own = 1 + int(words[0]) % 899_999_999  # PYTHIA's range of seeds
                    while own in taken:
                        own = own % 899_999_999 + 1
                    taken.add(own)
                    blocks.append(Block(signal_, count, own))
                    wanted[signal_] -= count
        plans[name] = blocks
    return plans


def write_file(
    path: Path,
    blocks: Sequence[Block],
    seed: int,
    ttv: int,
    pool: Executor,
    ahead: int,
    start: float,
) -> None:
    """Write the jets of blocks to a file, with the classes mixed.

    Args:
        path: The file.
        blocks: The blocks.
        seed: Seed of the mixing.
        ttv: Value of the column ``ttv``.
        pool: Pool that makes the blocks.
        ahead: Largest number of blocks that are made ahead.
        start: Time when the program started.

    Raises:
        OSError: The file cannot be written. ENOSPC is raised before the disk is quite full, since
            HDF5 fails on a full disk.
    """
    import pandas
    import tables

    total = sum(block.jets for block in blocks)
    rng = np.random.default_rng([seed, ttv])
    made = written = 0

    def tell() -> None:
        report(file=path.stem, done=made, total=total, seconds=round(time.monotonic() - start, 3))

    tell()
    path.open("wb").close()  # gives a clear error if the file cannot be written
    try:
        with pandas.HDFStore(path, "w", complevel=5, complib="blosc") as store:
            waiting: list[tuple[Any, Any, Any]] = []
            for block, result in zip(
                blocks, in_order(pool, make_block, blocks, ahead, tell), strict=True
            ):
                waiting.append((*result, np.full(block.jets, block.signal, np.int64)))
                made += block.jets
                # Mix the jets of several blocks: otherwise the row would tell the class.
                if len(waiting) == MIXED or made == total:
                    constituents, top, label = (
                        np.concatenate(part) for part in zip(*waiting, strict=True)
                    )
                    waiting = []
                    order = rng.permutation(len(label))
                    rows = pandas.DataFrame(
                        np.concatenate([constituents.reshape(len(label), -1), top], 1)[order],
                        columns=COLUMNS + TRUTH,
                        index=np.arange(written, written + len(label)),
                    )
                    rows["ttv"] = np.full(len(label), ttv, np.int64)
                    rows["is_signal_new"] = label[order]
                    if shutil.disk_usage(path.parent).free < 2 * rows.memory_usage().sum():
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                    store.append("table", rows, index=False, expectedrows=total)
                    store.flush()
                    written += len(label)
                tell()
            # pandas 3 leaves this out; older versions then take the file for one of before 0.10.
            store.get_storer("table").group._v_attrs.pandas_version = "0.15.2"
            store.root._v_attrs.source = SOURCE
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        with pandas.HDFStore(path, "r") as store:
            if store.get_storer("table").nrows != total:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
    except tables.HDF5ExtError as error:  # a full disk or a limit: HDF5 does not say which
        code = errno.ENOSPC if shutil.disk_usage(path.parent).free < 2**20 else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error


def generate(
    jets: int, seed: int, out: Path, processes: int, force: bool = False
) -> dict[str, Any]:
    """Write the files ``train.h5``, ``val.h5`` and ``test.h5``.

    If it fails, it leaves no new files, and loses no old ones.

    Args:
        jets: Number of jets in all three files.
        seed: Seed of the jets.
        out: Folder of the files.
        processes: Number of processes.
        force: Replace existing files, if they are marked as made here (``SOURCE``).

    Returns:
        The last line of the report.

    Raises:
        Refusal: The arguments are not accepted, files exist, packages are missing, or there is too
            little space.
    """
    if not FEWEST <= jets <= MOST:
        raise Refusal(
            f"{jets} jets cannot be made",
            f"ask for {FEWEST} to {MOST:,}: a file holds a fifth of the jets, of two classes",
        )
    if seed < 0 or processes < 1:
        raise Refusal(
            f"the seed is {seed}, the number of processes {processes}",
            "give a seed of at least 0, and at least one process",
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        requirements = Path(__file__).parents[2] / "requirements-jets.txt"
        remedy = f"{sys.executable} -m pip install -r {requirements}"
        raise Refusal(f"{', '.join(missing)} not installed", remedy, "internal", 1)
    start = time.monotonic()
    partial = {name: out / f"{name}.h5.partial" for name in SPLITS}
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with only_one(out, "jets"):
            existing = [f"{name}.h5" for name in SPLITS if (out / f"{name}.h5").exists()]
            if existing and not force:
                raise Refusal(
                    f"{out} has {', '.join(existing)} already",
                    "choose another folder, or overwrite them",
                    "exists",
                )
            only_ours([out / name for name in existing], lambda path: is_marked(path, SOURCE))
            need, free = jets * BYTES_A_JET, shutil.disk_usage(out).free
            if need > free:
                raise Refusal(
                    f"{jets} jets need about {need / 1e9:.2g} GB, "
                    f"but the disk of {out} has only {free / 1e9:.2g} GB free",
                    "free some space, ask for fewer jets, or choose a folder on another disk",
                    "no_space",
                )
            try:
                _write_all(partial, plan(jets, seed), seed, processes, start)
                put_in_place({out / f"{name}.h5": new for name, new in partial.items()})
                files = []
                for name, blocks in plan(jets, seed).items():
                    path = out / f"{name}.h5"
                    rows = sum(block.jets for block in blocks)
                    files.append({"path": str(path), "rows": rows, "bytes": path.stat().st_size})
            finally:
                for path in partial.values():
                    path.unlink(missing_ok=True)
    return {"files": files, "seconds": round(time.monotonic() - start, 3), "seed": seed}


def _write_all(
    paths: dict[str, Path], plans: dict[str, list[Block]], seed: int, processes: int, start: float
) -> None:
    most = max(len(blocks) for blocks in plans.values())
    ahead = 2 * processes + MIXED
    with pool_of(min(processes, most), "jets") as pool:
        for name, blocks in plans.items():
            write_file(paths[name], blocks, seed, SPLITS[name][1], pool, ahead, start)


def main() -> int:
    """Run the program."""
    return run(
        "Top and QCD jets by PYTHIA 8 and FastJet",
        *("--jets", "number of jets in all three files"),
        "folder for train.h5, val.h5 and test.h5",
        generate,
    )


if __name__ == "__main__":
    sys.exit(main())
