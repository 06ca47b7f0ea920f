"""Times the worker's numerics on one GPU beside what the device can do: prints a JSON object.

On a CPU everything is measured in miniature, in seconds, which says whether it works and no more.

The roofline is measured on the same device: the rate of a matrix product, and the bandwidth of a
copy, both in float32. Work is counted while an epoch runs: the operations of its products and
convolutions, and the bytes that its operations read and write. The larger of the two times that
this work takes at the measured limits, over the time that it took, is its share of the roofline.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from numerics import ATLAS_1, ROTATION, make, silent
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from atlas_worker.datasets.base import GivenDataset
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.sphere import SphereAtlas, SphereChart
from atlas_worker.interfaces import AlgebraSolver, CosetSolver, Dataset
from atlas_worker.predictors import FittedPredictor, make_objective, make_predictor
from atlas_worker.service import devices
from atlas_worker.symmetry import IcosahedralGrid, VectorSpace

PUBLISHED = {
    "pde": {"samples": 10_000, "epochs": 10},
    "mnist": {"samples": 10_000, "epochs": 100},
    "toptagging": {"samples": 1_211_000, "epochs": 10},
    "climate": {"samples": 398, "epochs": 20},
}
"""Published numbers of samples and epochs: the presets ``published`` of the experiments."""

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    matrix: int
    copy_bytes: int
    samples: int
    spheres: int
    jets: int
    maps: int
    resolution: int
    atlas: PlanarAtlas
    steps: int
    candidates: int
    rounds: int
    """Timed repetitions, after one in which work is counted."""


FULL = Sizes(8192, 2**31, 1024, 512, 4096, 8, 6, ATLAS_1, 60, 16, 3)
SMALL = Sizes(
    256, 2**22, 8, 2, 32, 2, 2, PlanarAtlas((Chart(83, 38), Chart(86, 80)), 14, 10), 1, 4, 1
)


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for part in (args, kwargs, out):
                self.bytes += sum(t.nbytes for t in tensors_in(part))
        return out


def tensors_in(value: Any) -> list[Tensor]:
    """Find the tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return (
        [t for part in value for t in tensors_in(part)] if isinstance(value, list | tuple) else []
    )


class Device:
    """A device, its clock, and what it can do at most."""

    def __init__(self, name: str, sizes: Sizes) -> None:
        self.device = torch.device(name)
        self.sizes = sizes
        self.flops = self.bandwidth = 0.0

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def measure(self, make: Callable[[], T], work: Callable[[T], object]) -> dict[str, float]:
        """Time making something and working with it, and count the work."""
        first = make()
        with FlopCounterMode(display=False) as counter, Traffic() as traffic:
            work(first)
        seconds = statistics.median(
            self.seconds(lambda: work(make())) for _ in range(self.sizes.rounds)
        )
        flops, moved = float(counter.get_total_flops()), float(traffic.bytes)
        floor = max(flops / self.flops, moved / self.bandwidth)
        return {
            "seconds": seconds,
            "flops": flops,
            "bytes": moved,
            "roofline_share": floor / seconds,
            "compute_share": flops / self.flops / seconds,
        }


def roofline(at: Device) -> dict[str, float]:
    """Measure the rates of a matrix product and of a copy, and of copies to the device."""
    n, count = at.sizes.matrix, at.sizes.copy_bytes // 4
    a, b = (torch.randn(n, n, device=at.device) for _ in range(2))
    x = torch.randn(count, device=at.device)
    y = torch.empty_like(x)
    host = torch.randn(count // 8)
    there = torch.empty_like(host, device=at.device)

    def rate(amount: float, work: Callable[[], object]) -> float:
        work()
        return amount / statistics.median(at.seconds(work) for _ in range(7))

    at.flops = rate(2.0 * n**3, lambda: a @ b)
    at.bandwidth = rate(2.0 * x.nbytes, lambda: y.copy_(x))
    found = {
        "flops": at.flops,
        "bandwidth": at.bandwidth,
        "host_to_device": rate(host.nbytes, lambda: there.copy_(host)),
    }
    if at.device.type == "cuda":
        pinned = host.pin_memory()
        found["pinned_to_device"] = rate(host.nbytes, lambda: there.copy_(pinned))
    return found


def plates(at: Device) -> Dataset:
    params = {"samples": at.sizes.samples}
    dataset = make("dataset", "heat_equation", params, seed=0, device=at.device, tensors={})
    dataset.run_epoch(silent)
    return dataset  # type: ignore[no-any-return]


def fitted(at: Device, kind: str, dataset: Dataset, **training: Any) -> FittedPredictor:
    training = {"batch_size": 16, "learning_rate": 1e-3, **training}
    atlas = at.sizes.atlas
    return make_predictor(
        (kind, {}), ("supervised", training), dataset, atlas, 4 + at.sizes.rounds, 0, at.device
    )


def per_epoch(at: Device, net: FittedPredictor, samples: int, published: str) -> dict[str, Any]:
    """Time epochs of a training, and extrapolate its published budget."""
    found = at.measure(lambda: net, lambda net: net.run_epoch(silent))
    rate = samples / found["seconds"]
    budget = PUBLISHED[published]
    seconds = budget["samples"] * budget["epochs"] / rate
    return {**found, "samples_per_second": rate, "published_seconds": seconds}


def predictors(at: Device) -> dict[str, Any]:
    """Training of both predictors of the heat equation; a sample is a plate, on all charts."""
    dataset = plates(at)
    kinds = ("reference_cnn", "strided_cnn")
    return {k: per_epoch(at, fitted(at, k, dataset), at.sizes.samples, "pde") for k in kinds}


def schedule(at: Device) -> dict[str, Any]:
    """The published pass over the basis, which alternates with the predictor's."""
    dataset = plates(at)
    net = fitted(at, "reference_cnn", dataset)
    solver = make(
        "algebra_solver",
        "atlasd",
        {"r3": 0.1},
        objective=make_objective(net, dataset, at.sizes.atlas),
        **{"k": 1, "epochs": 1 + at.sizes.rounds, "seed": 0},
    )
    found = at.measure(lambda: solver, lambda solver: solver.run_epoch(silent))
    rate = at.sizes.samples / found["seconds"]
    seconds = PUBLISHED["pde"]["samples"] * PUBLISHED["pde"]["epochs"] / rate
    return {**found, "samples_per_second": rate, "published_seconds": seconds}


def solvers(at: Device) -> dict[str, Any]:
    """The default search for generators, and the one for components."""
    dataset = plates(at)
    net = fitted(at, "strided_cnn", dataset, learning_rate=0.01, schedule="cosine")
    for _ in range(3):
        net.run_epoch(silent)
    objective = make_objective(net, dataset, at.sizes.atlas)
    charts = {"charts": min(4, len(at.sizes.atlas)), "steps": at.sizes.steps}

    common = {"objective": objective, "seed": 0}

    def algebra() -> AlgebraSolver:
        more = {"k": 1, "epochs": 3, **common}
        return make("algebra_solver", "grassmann", charts, **more)  # type: ignore[no-any-return]

    def solve(solver: AlgebraSolver) -> None:
        for _ in range(3):
            solver.run_epoch(silent)

    def components() -> CosetSolver:
        params = {**charts, "candidates": at.sizes.candidates}
        more = {"identity_algebra": ROTATION[None], "epochs": 1, **common}
        return make("coset_solver", "multistart", params, **more)  # type: ignore[no-any-return]

    def search(solver: CosetSolver) -> None:
        solver.run_epoch(silent)
        solver.report()

    return {
        "algebra": at.measure(algebra, solve),
        "components": at.measure(components, search),
    }


class Given(GivenDataset):
    """Random samples of given shapes, with labels."""

    kind = "random"

    def __init__(self, inputs: Tensor, targets: Tensor, outputs: int) -> None:
        self.inputs, self.targets, self.outputs = inputs, targets, outputs
        self.background = 0 if inputs.ndim == 4 else None
        self.classes = tuple(str(i) for i in range(outputs))


def downstream(at: Device) -> dict[str, Any]:
    """Epochs of the networks that are built from symmetries, at their published batch sizes."""
    sizes, device = at.sizes, at.device
    found: dict[str, Any] = {}

    params = {"source": "sklearn", "samples": sizes.spheres}
    spheres = make("dataset", "sphere_digits", params, seed=0, device=device, tensors={})
    spheres.run_epoch(silent)
    thirds = SphereAtlas(tuple(SphereChart(0, longitude) for longitude in (60, 180, 300)), 14, 14)
    g = torch.Generator().manual_seed(0)
    momenta = torch.randn(sizes.jets, 30, 3, generator=g)
    energy = momenta.norm(dim=-1, keepdim=True)
    labels = torch.arange(sizes.jets)[:, None] % 2
    jets = Given(torch.cat([energy, momenta], -1).to(device), labels.to(device), 2)
    lattice = (768, 1152) if sizes.resolution > 2 else (24, 36)
    maps = Given(
        torch.randn(sizes.maps, 16, *lattice, generator=g).to(device),
        torch.randint(3, (sizes.maps, 1, *lattice), generator=g).byte().to(device),
        3,
    )
    metric = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0]))
    cases: tuple[tuple[str, str, str, dict[str, Any], Any, Any, int, str, dict[str, Tensor]], ...]
    cases = (
        *(
            ("mnist", "convnet", k, {"kernel": k}, spheres, thirds, 16, "cross_entropy", tensors)
            for k, tensors in (("c4", {"algebra": ROTATION[None]}), ("free", {}))
        ),
        *(
            ("toptagging", kind, "", {}, jets, VectorSpace(4), 16, "cross_entropy", tensors)
            for kind, tensors in (("lorentznet", {"metric": metric}), ("particle_graph", {}))
        ),
        *(
            ("climate", "icosahedral_unet", name, {"levels": min(3, sizes.resolution)}, maps,
             IcosahedralGrid(sizes.resolution), 4, "jaccard", {"algebra": algebra})
            for name, algebra in (("GL+(2)", torch.eye(4).view(4, 2, 2)), ("SO(2)", ROTATION[None]))
        ),
    )  # fmt: skip
    for task, kind, name, architecture, dataset, atlas, batch, loss, tensors in cases:
        training = {"loss": loss, "batch_size": batch, "learning_rate": 1e-3}
        net = make_predictor(
            (kind, architecture), ("supervised", training), dataset, atlas, 1 + sizes.rounds, 0,
            device, tensors,
        )  # fmt: skip
        about = f"{task}, {kind} {name}".strip()
        found[about] = per_epoch(at, net, len(dataset.inputs), task)
    return found


PARTS = {f.__name__: f for f in (predictors, schedule, solvers, downstream)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=devices.available_cores())
    given = parser.parse_args()
    devices.make_reproducible(given.threads)
    devices.keep_freed_memory()
    small = given.device == "cpu"
    at = Device(given.device, SMALL if small else FULL)
    found: dict[str, Any] = {"device": given.device, "small": small, "roofline": roofline(at)}
    if at.device.type == "cuda":
        found["name"] = torch.cuda.get_device_name(at.device)
    for name, measure in PARTS.items():
        start = time.perf_counter()
        try:
            found[name] = measure(at)
        except Exception as error:  # the other parts are still worth having
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"gpu: {name}, {time.perf_counter() - start:.1f} s", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
