"""Times the worker's numerics in this process: ``python numerics.py PART`` prints a JSON object.

Variants are timed in turns within one run, so that a shared machine favours none. Medians are
reported.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # as the worker does, before PyTorch loads OpenMP

import h5py
import torch
from torch import Tensor, nn

from atlas_worker import blocks as blocks
from atlas_worker.catalogue import BlockType, find, parse_params, register
from atlas_worker.datasets.climatenet import NORMAL
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.sphere import SphereAtlas, SphereChart
from atlas_worker.generators import climatenet
from atlas_worker.interfaces import AlgebraSolver, CosetSolver, Dataset, Signature
from atlas_worker.predictors import FittedPredictor, make_objective, make_predictor
from atlas_worker.predictors.chartwise import ReferenceCnnParams
from atlas_worker.service import devices
from atlas_worker.symmetry import lie
from atlas_worker.symmetry.components import SAME, residual

CPU = torch.device("cpu")
SIDE = 128
CENTRES = [(u, v) for v in (0.15, 0.325, 0.5) for u in (0.5, 0.675, 0.85)] + [
    (u, v) for v in (0.675, 0.85) for u in (0.15, 0.325, 0.5, 0.675, 0.85)
]
ATLAS_1 = PlanarAtlas(tuple(Chart(round(u * SIDE), round(v * SIDE)) for u, v in CENTRES), 14, 10)
ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]])

PUBLISHED = {"samples": 10_000, "epochs": 10, "seconds": 1992.0}
"""The published code's schedule (METHOD 2.2), on another machine (2 busy cores)."""


def silent(step: int, steps: int, metrics: Mapping[str, float]) -> None:
    pass


def timed(work: Callable[..., object], *args: object) -> float:
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def make(type: BlockType, kind: str, params: Mapping[str, Any], **parts: Any) -> Any:
    block = find(type, kind, type)
    return block.make(parse_params(block.params, params, type), **parts)


def heat(samples: int, seed: int = 0) -> Dataset:
    dataset = cast(
        Dataset,
        make("dataset", "heat_equation", {"samples": samples}, seed=seed, device=CPU, tensors={}),
    )
    dataset.run_epoch(silent)
    return dataset


def predictor(
    kind: str, dataset: Dataset, epochs: int, rate: float = 1e-3, schedule: str = "constant"
) -> FittedPredictor:
    training = {"batch_size": 16, "learning_rate": rate, "schedule": schedule}
    return make_predictor((kind, {}), ("supervised", training), dataset, ATLAS_1, epochs, 0, CPU)


def data() -> dict[str, Any]:
    """Time to make the published number of samples, and this process's peak memory with PyTorch."""
    before = peak_bytes()
    dataset = make("dataset", "heat_equation", {"samples": 10_000}, seed=0, device=CPU, tensors={})
    seconds = timed(dataset.run_epoch, silent)
    return {
        "samples": 10_000,
        "seconds": seconds,
        "samples_per_second": 10_000 / seconds,
        "peak_bytes": peak_bytes(),
        "peak_bytes_before": before,
        "result_bytes": dataset.memory_bytes,
    }


def predictors() -> dict[str, Any]:
    """Training throughput of both architectures; a sample is one plate, seen on all 19 charts."""
    samples, rounds = 96, 5
    dataset = heat(samples)
    nets = {kind: predictor(kind, dataset, rounds + 1) for kind in ("reference_cnn", "strided_cnn")}
    seconds: dict[str, list[float]] = {kind: [] for kind in nets}
    for i in range(rounds + 1):
        for kind, net in nets.items():
            t = timed(net.run_epoch, silent)
            if i > 0:  # the first is warm-up
                seconds[kind].append(t)
    return {
        kind: {
            "samples_per_second": samples / statistics.median(ts),
            "parameters": nets[kind].parameters,
            "charts": len(ATLAS_1),
        }
        for kind, ts in seconds.items()
    }


class PlainLoop(nn.Module):
    """The published predictor as usually written: one ``nn.Sequential`` a chart, in a loop."""

    halo = 0

    def __init__(self, charts: int, width: int = 16) -> None:
        super().__init__()
        widths = [1, width, width, width]
        self.nets = nn.ModuleList(
            nn.Sequential(
                *(
                    layer
                    for a, b in itertools.pairwise(widths)
                    for layer in (nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(), nn.BatchNorm2d(b))
                ),
                nn.Conv2d(width, 1, 3, padding=1),
            )
            for _ in range(charts)
        )

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        chosen = range(len(self.nets)) if charts is None else charts.tolist()
        return torch.stack([self.nets[c](x[:, i]) for i, c in enumerate(chosen)], 1)


@register("architecture", "plain-loop", "For comparison only", ReferenceCnnParams)
def _plain_loop(params: ReferenceCnnParams, *, signature: Signature, **_: Any) -> PlainLoop:
    return PlainLoop(signature.charts, params.width)


def schedule() -> dict[str, Any]:
    """The published schedule on a slice, predictor and basis pass: ours and a loop over charts."""
    samples, rounds = 96, 4
    dataset = heat(samples)
    sides = {}
    for kind in ("reference_cnn", "plain-loop"):
        net = predictor(kind, dataset, rounds + 1)
        objective = make_objective(net, dataset, ATLAS_1)
        solver = make(
            "algebra_solver",
            "atlasd",
            {"r3": 0.1},
            objective=objective,
            k=1,
            epochs=rounds + 1,
            seed=0,
        )
        sides[kind] = (net, cast(AlgebraSolver, solver))
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in sides}
    for _ in range(rounds + 1):
        for kind, (net, solver) in sides.items():
            times[kind].append((timed(net.run_epoch, silent), timed(solver.run_epoch, silent)))
    seconds = {
        kind: [statistics.median(column) / samples for column in zip(*passes[1:], strict=True)]
        for kind, passes in times.items()
    }
    (first, second), plain = seconds["reference_cnn"], sum(seconds["plain-loop"])
    total = (first + second) * PUBLISHED["samples"] * PUBLISHED["epochs"]
    return {
        "slice": samples,
        "predictor_samples_per_second": 1 / first,
        "basis_samples_per_second": 1 / second,
        "samples_per_second": 1 / (first + second),
        "plain_loop_samples_per_second": 1 / plain,
        "plain_loop_ratio": plain / (first + second),
        "extrapolated_seconds": total,
        "published_seconds": PUBLISHED["seconds"],
        "ratio": PUBLISHED["seconds"] / total,
    }


def spheres() -> dict[str, Any]:
    """Time to make the published number of spheres of digits, and to train a predictor on them.

    A sample is a sphere, seen on all three charts.
    """

    def digits(samples: int) -> Dataset:
        params = {"source": "sklearn", "samples": samples}
        return cast(
            Dataset, make("dataset", "sphere_digits", params, seed=0, device=CPU, tensors={})
        )

    many, few, rounds = digits(10_000), digits(64), 3
    seconds = timed(lambda: many.run_epoch(silent))
    few.run_epoch(silent)
    atlas = SphereAtlas(tuple(SphereChart(0, longitude) for longitude in (60, 180, 300)), 14, 14)
    nets = {
        f"{kind} {kernel}".strip(): make_predictor(
            (kind, {"kernel": kernel} if kernel else {}),
            ("supervised", {"loss": "cross_entropy", "batch_size": 16}),
            few,
            atlas,
            rounds + 1,
            0,
            CPU,
            {"algebra": ROTATION[None]}
            if kernel in ("c4", "smooth") or kind == "steerable_unet"
            else {},
        )
        for kind, kernel in (
            ("encoder_decoder", ""),
            ("convnet", "free"),
            ("convnet", "c4"),
            ("convnet", "smooth"),
            ("steerable_unet", ""),
        )
    }
    times: dict[str, list[float]] = {name: [] for name in nets}
    for i in range(rounds + 1):
        for name, net in nets.items():
            t = timed(net.run_epoch, silent)
            if i > 0:  # the first is warm-up
                times[name].append(t)
    return {
        "samples_per_second": 10_000 / seconds,
        "seconds": seconds,
        "nets": [
            {
                "name": name,
                "samples_per_second": len(few.inputs) / statistics.median(ts),
                "parameters": nets[name].parameters,
            }
            for name, ts in times.items()
        ],
    }


def angle(generator: Tensor) -> float:
    """Degrees between a generator [2, 2] and the rotations'."""
    cosine = float((generator * ROTATION).sum().abs() / (generator.norm() * ROTATION.norm()))
    return math.degrees(math.acos(min(1.0, cosine)))


def solvers() -> dict[str, Any]:
    """Time of the grassmann solver to 2°, and of the coset search, from a default predictor."""
    samples, epochs, limit = 1000, 3, 2.0
    dataset = heat(samples)
    net = predictor("strided_cnn", dataset, epochs, 0.01, "cosine")
    fit = sum(timed(lambda: net.run_epoch(silent)) for _ in range(epochs))
    runs = [_grassmann(net, dataset, seed, limit) for seed in range(3)]
    coset_seconds, names = [], []
    for seed in range(3):
        cosets = cast(
            CosetSolver,
            make(
                "coset_solver",
                "multistart",
                {},
                objective=make_objective(net, dataset, ATLAS_1),
                identity_algebra=ROTATION[None],
                epochs=1,
                seed=seed,
            ),
        )
        coset_seconds.append(timed(cosets.run_epoch, silent) + timed(cosets.report))
        names.append(len(cosets.report().matrices))
    reached = [r["to_limit"] for r in runs if r["to_limit"] is not None]
    return {
        "fit_seconds": fit,
        "fit_samples": samples,
        "fit_epochs": epochs,
        "degrees": limit,
        "seconds_to_limit": statistics.median(reached) if reached else None,
        "reached": f"{len(reached)}/{len(runs)}",
        "solve_seconds": statistics.median(r["seconds"] for r in runs),
        "final_degrees": [r["degrees"] for r in runs],
        "coset_seconds": statistics.median(coset_seconds),
        "components_found": names,
    }


def _grassmann(net: FittedPredictor, dataset: Dataset, seed: int, limit: float) -> dict[str, Any]:
    """One solve. The time to the limit is when the winning start came within it to stay."""
    epochs = 3
    solver = make(
        "algebra_solver",
        "grassmann",
        {},
        objective=make_objective(net, dataset, ATLAS_1),
        k=1,
        epochs=epochs,
        seed=seed,
    )
    history: list[
        list[tuple[float, Tensor]]
    ] = []  # of each epoch: when, and every start's generator
    begin = time.perf_counter()
    for _ in range(epochs):
        steps: list[tuple[float, Tensor]] = []
        history.append(steps)
        solver.run_epoch(
            lambda *_, steps=steps: steps.append(
                (time.perf_counter() - begin, solver._free.detach().clone())
            )
        )
    seconds = time.perf_counter() - begin
    winner: Tensor = solver._free.detach()[0]
    degrees = angle(winner[0])
    to_limit: float | None = None
    for steps in reversed(history):
        # A start is copied unchanged from its epoch's last step to another index in the next epoch.
        index = next(i for i, w in enumerate(steps[-1][1]) if torch.equal(w, winner))
        outside = max(
            (i for i, (_, w) in enumerate(steps) if angle(w[index, 0]) > limit), default=-1
        )
        if outside == len(steps) - 1:
            break
        to_limit = steps[outside + 1][0]
        if outside >= 0:
            break
        winner = _previous(steps, index, history)
    return {"seconds": seconds, "degrees": degrees, "to_limit": to_limit}


def _previous(
    steps: list[tuple[float, Tensor]], index: int, history: list[list[tuple[float, Tensor]]]
) -> Tensor:
    """State of a start at the end of the epoch before ``steps``; its own in the first epoch."""
    epoch = next(i for i, s in enumerate(history) if s is steps)
    if epoch == 0:
        return steps[0][1][index]
    # One step moves a start little against the distance between starts.
    before, now = history[epoch - 1][-1][1], steps[0][1][index]
    return before[int((before - now).flatten(1).norm(dim=1).argmin())]


def optimisers() -> dict[str, Any]:
    """The search for a generator by each optimiser, in turns, on predictors of several seeds.

    Processor time counts, which a busy machine changes little.
    """
    samples, epochs, seeds = 400, 3, 5
    kinds = ("adam", "gauss_newton", "auto")
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    degrees: dict[str, list[float]] = {kind: [] for kind in kinds}
    reports: list[float] = []
    for seed in range(seeds):
        dataset = heat(samples, seed)
        net = predictor("strided_cnn", dataset, epochs, 0.01, "cosine")
        for _ in range(epochs):
            net.run_epoch(silent)
        for kind in kinds:
            solver = make(
                "algebra_solver",
                "grassmann",
                {"optimiser": kind},
                objective=make_objective(net, dataset, ATLAS_1),
                k=1,
                epochs=epochs,
                seed=seed,
            )
            begin = time.process_time()
            for _ in range(epochs):
                solver.run_epoch(silent)
            searched = time.process_time()
            degrees[kind].append(angle(solver.report().generators[0]))
            seconds[kind].append(searched - begin)
            reports.append(time.process_time() - searched)
    return {
        "seconds": {kind: statistics.median(seconds[kind]) for kind in kinds},
        "degrees": degrees,
        "report_seconds": statistics.median(reports),
        "ratio": {
            kind: statistics.median(
                b / a for a, b in zip(seconds["adam"], seconds[kind], strict=True)
            )
            for kind in kinds
        },
    }


def components() -> dict[str, Any]:
    """Component test of single matrices, ours and the published 10,000 steps of Adam."""
    generator = torch.Generator().manual_seed(0)
    so2 = ROTATION[None].double()
    # In the order t, x, y, z: rotations, then boosts.
    lorentz = torch.zeros(6, 4, 4, dtype=torch.float64)
    for i, (a, b) in enumerate([(1, 2), (1, 3), (2, 3)]):
        lorentz[i, a, b], lorentz[i, b, a] = -1, 1
    for i in range(3):
        lorentz[3 + i, 0, 1 + i] = lorentz[3 + i, 1 + i, 0] = 1
    cases: list[tuple[str, Tensor, Tensor]] = []
    for name, basis, flip in (
        ("so(2)", so2, torch.diag(torch.tensor([1.0, -1.0]))),
        ("so(1,3)", lorentz, torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0]))),
    ):
        for i in range(4):
            w = torch.randn(1, len(basis), generator=generator, dtype=torch.float64)
            inside = lie.expm(lie.combine(basis, w))[0]
            cases.append((name, basis, inside if i % 2 == 0 else inside @ flip.double()))
    rows: list[dict[str, Any]] = []
    for name, basis, matrix in cases:
        ours = statistics.median(timed(residual, basis, matrix[None]) for _ in range(5))
        start = time.perf_counter()
        reference = _published_residual(basis, matrix)
        theirs = time.perf_counter() - start
        residuals = float(residual(basis, matrix[None])[0]), reference
        rows.append(
            {
                "group": name,
                "ours_ms": 1e3 * ours,
                "published_ms": 1e3 * theirs,
                "residuals": residuals,
                "agree": (residuals[0] < SAME) == (residuals[1] < SAME),
            }
        )
    ours_ms = statistics.median(r["ours_ms"] for r in rows)
    published_ms = statistics.median(r["published_ms"] for r in rows)
    return {
        "ours_ms": ours_ms,
        "published_ms": published_ms,
        "ratio": statistics.median(r["published_ms"] / r["ours_ms"] for r in rows),
        "agree": sum(r["agree"] for r in rows),
        "matrices": len(rows),
        "rows": rows,
    }


def _published_residual(basis: Tensor, matrix: Tensor) -> float:
    """``min ‖exp(Σ w_i B_i) − M‖²/n²`` by 10,000 steps of Adam in float32 (METHOD 2.5)."""
    b, m = basis.float(), matrix.float()
    w = torch.zeros(len(b), requires_grad=True)
    adam = torch.optim.Adam([w], lr=1e-2)
    for _ in range(10_000):
        loss = (torch.linalg.matrix_exp(torch.einsum("k,kij->ij", w, b)) - m).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return float(loss.detach())


def look(dataset: Dataset) -> None:
    """At all samples, which a cache maps into memory only then."""
    for x in dataset.inputs:
        float(x.amax())


def climate() -> dict[str, Any]:
    """Time to read ClimateNet's files, 16 variables of 768 × 1152, into the cache and out of it.

    Files are compressed like the generator's, or plain like ClimateNet's.
    """
    passes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.redirect_stdout(sys.stderr):  # its lines of progress
            climatenet.generate(5, 0, folder / "compressed", 1)
        packed = folder / "compressed" / "train"
        plain = folder / "plain"
        plain.mkdir()
        for path in packed.iterdir():
            with h5py.File(path) as source, h5py.File(plain / path.name, "w") as target:
                for variable in source:
                    target[variable] = source[variable][()]
        for kind, path in (("compressed", packed), ("plain", plain)):
            params = {
                "path": str(path),
                "variables": ",".join(NORMAL),
                "cache": str(folder / "cache"),
            }
            for turn in ("first", "second"):
                dataset = cast(
                    Dataset, make("dataset", "climatenet", params, seed=0, device=CPU, tensors={})
                )
                # The second is short until the samples are looked at.
                seconds = timed(dataset.run_epoch, silent) + timed(look, dataset)
                files = len(dataset.inputs)
                passes[f"{kind}_{turn}"] = files / seconds
    return {"files": files, "gigabytes_a_file": dataset.inputs[0].nbytes / 1e9, **passes}


PARTS = {
    f.__name__: f
    for f in (data, predictors, schedule, solvers, optimisers, components, spheres, climate)
}

if __name__ == "__main__":
    devices.make_reproducible(devices.available_cores())
    devices.keep_freed_memory()
    print(json.dumps({"threads": torch.get_num_threads(), **PARTS[sys.argv[1]]()}))
