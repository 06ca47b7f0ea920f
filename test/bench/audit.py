"""Does an audit name the layer in which a fault was planted?

Ten small networks are equivariant, to rotations and reflections or to permutations. Each gets one
of six faults in a layer drawn at random; the audit must name that layer, and must name none in the
networks without a fault. Rounding to float16 commutes with permutations and with the quarter turns
of a lattice, and is far below the floor of other turns, so it is planted where vectors are.

Run it with ``python ../test/bench/audit.py [SEEDS]`` in ``py-worker``, with PYTHONPATH=. set.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from atlas_worker.predictors.foreign import Foreign, Modules
from atlas_worker.predictors.taps import ForeignRunner
from atlas_worker.symmetry.action import Action
from atlas_worker.symmetry.ambient import Ambient
from atlas_worker.symmetry.audit import Audit, audit
from atlas_worker.symmetry.features import FeatureType
from atlas_worker.symmetry.planar import PlanarAction
from atlas_worker.symmetry.vectors import VectorAction

FAULTS = ("bias", "layer norm", "stride", "zero padding", "parity", "float16")


# Layers on vectors: [rows, channels, n]


class Mix(nn.Module):
    """A linear map of channels, the same for each component."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))

    def forward(self, v: Tensor) -> Tensor:
        return torch.einsum("oc,bcn->bon", self.weight, v)


class Gate(nn.Module):
    """Scales each vector by a function of its length."""

    def forward(self, v: Tensor) -> Tensor:
        return v * torch.sigmoid(v.square().sum(-1, keepdim=True) - 1)


class Products(nn.Module):
    """All scalar products of vectors."""

    def forward(self, v: Tensor) -> Tensor:
        return (v @ v.mT).flatten(1)


class Squares(nn.Module):
    """Tensors v vᵀ, weighted over the channels."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, channels) / channels)

    def forward(self, v: Tensor) -> Tensor:
        return torch.einsum("oc,bci,bcj->boij", self.weight, v, v)


class TensorMix(nn.Module):
    """A linear map of the channels of tensors, and a scaling of each by its norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))

    def forward(self, t: Tensor) -> Tensor:
        t = torch.einsum("oc,bcij->boij", self.weight, t)
        return t * torch.tanh(t.square().sum((-2, -1), keepdim=True))


class Flat(nn.Module):
    """A linear map of scalars and vectors in one row, 8S+8V, then gates made of the scalars."""

    def __init__(self, scalars: int, vectors: int) -> None:
        super().__init__()
        self.scalars = nn.Linear(scalars, 16)
        self.vectors = Mix(vectors, 8)
        self.sizes = (scalars, vectors)

    def forward(self, x: Tensor) -> Tensor:
        s, v = x[:, : self.sizes[0]], x[:, self.sizes[0] :].unflatten(1, (self.sizes[1], 3))
        s, v = self.scalars(s), self.vectors(v)
        s = s + torch.cat([v.square().sum(-1)] * 2, 1)
        return torch.cat([functional.silu(s[:, :8]), (v * s[:, 8:, None].sigmoid()).flatten(1)], 1)


class Begin(nn.Module):
    """Writes vectors [rows, m, 3] as scalars and vectors in one row."""

    def forward(self, v: Tensor) -> Tensor:
        return torch.cat([v.square().sum(-1), v.flatten(1)], 1)


class Take(nn.Module):
    """Takes the first vector of a row 8S+8V."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 8:11]


class Messages(nn.Module):
    """Moves points along their differences, by a function of the distances (as EGNN does)."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        difference = x[:, :, None] - x[:, None]
        weight = self.phi((-difference.square().sum(-1, keepdim=True)).exp())
        made: Tensor = x + (difference * weight).mean(2)
        return made


class Mean(nn.Module):
    """The mean over one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axis)


# Layers on fields: [rows, channels, s, s]


class Isotropic(nn.Module):
    """A convolution without padding whose kernels are functions of the distance."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, step: int = 1) -> None:
        super().__init__()
        axis = torch.arange(size) - (size - 1) / 2
        distance = (axis[:, None].square() + axis[None].square()).sqrt()
        rings = torch.stack([torch.exp(-((distance - r).square()) / 0.7) for r in (0.0, 1.2)])
        self.register_buffer("rings", rings)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 2) / math.sqrt(9 * inputs))
        self.bias = nn.Parameter(0.3 * torch.randn(outputs))
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.einsum("oik,krc->oirc", self.weight, self.rings)
        return functional.conv2d(x, kernel, self.bias, stride=self.step)


class Lift(nn.Module):
    """A convolution with the four quarter turns of each kernel: channels by fours."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / math.sqrt(9 * inputs))

    def forward(self, x: Tensor) -> Tensor:
        turned = torch.stack([torch.rot90(self.weight, k, (2, 3)) for k in range(4)], 1)
        return functional.conv2d(x, turned.flatten(0, 1))


class Group(nn.Module):
    """A convolution of channels by fours to such, equivariant to quarter turns."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 4, 3, 3) / math.sqrt(36 * inputs))

    def forward(self, x: Tensor) -> Tensor:
        turned = torch.stack([torch.rot90(self.weight.roll(k, 2), k, (3, 4)) for k in range(4)], 1)
        return functional.conv2d(x, turned.flatten(2, 3).flatten(0, 1))


class Fours(nn.Module):
    """The mean over each four channels."""

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x.unflatten(1, (-1, 4)).mean(2)
        return made


class Grow(nn.Module):
    """Doubles a field's resolution; an odd size stays odd."""

    def forward(self, x: Tensor) -> Tensor:
        size = 2 * x.shape[-1] - 1
        return functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=True)


# Layers that are equivariant to permutations


class Column(nn.Module):
    """Writes a vector [rows, 1, n] as [rows, n, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mT


class Sets(nn.Module):
    """A layer of DeepSets on [rows, n, channels]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own, self.mean = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.own(x) + self.mean(x.mean(1, keepdim=True))
        return made


class Attention(nn.Module):
    """Attention of the items to each other, without positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.query(x) @ self.key(x).mT / math.sqrt(x.shape[-1])).softmax(-1)
        made: Tensor = x + weight @ self.value(x)
        return made


class Pairs(nn.Module):
    """Makes all pairs, [rows, n, c] to [rows, n, n, c]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None] * x[:, None] + x[:, :, None] + x[:, None]


class Graph(nn.Module):
    """A layer of an invariant graph network on [rows, n, n, channels]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(inputs, outputs) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        own, turned, row, column = self.parts
        made = own(x) + turned(x.transpose(1, 2)) + row(x.mean(2, keepdim=True))
        return torch.tanh(made + column(x.mean(1, keepdim=True)))


# The networks


@dataclass(frozen=True)
class Case:
    """A network, how its inputs and outputs move, and where which faults can be planted."""

    name: str
    layers: Callable[[], list[nn.Module]]
    type_in: str
    type_out: str
    shape: tuple[int, ...]
    places: dict[str, list[int]]


def vectors(places: list[int]) -> dict[str, list[int]]:
    return {"bias": places, "layer norm": places, "parity": places, "float16": places}


V, C = FeatureType, "V"
CASES = [
    Case(
        "vector neurons, a number",
        lambda: [Mix(4, 8), Gate(), Mix(8, 8), Gate(), Mix(8, 6), Products(), nn.Linear(36, 1)],
        "V",
        "S",
        (4, 3),
        vectors([0, 1, 2, 3, 4]),
    ),
    Case(
        "vector neurons, a vector",
        lambda: [Mix(4, 8), Gate(), Mix(8, 8), Gate(), Mix(8, 4), Gate(), Mean(1)],
        "V",
        "V",
        (4, 3),
        vectors([0, 1, 2, 3, 4, 5]),
    ),
    Case(
        "scalars and vectors in a row",
        lambda: [Begin(), Flat(4, 4), Flat(8, 8), Flat(8, 8), Take()],
        "V",
        "V",
        (4, 3),
        vectors([1, 2, 3]),
    ),
    Case(
        "messages between points",
        lambda: [Messages(), Messages(), Messages(), Products(), nn.Linear(25, 1)],
        "V",
        "S",
        (5, 3),
        vectors([0, 1, 2]),
    ),
    Case(
        "tensors",
        lambda: [Mix(4, 6), Gate(), Squares(6, 6), TensorMix(6, 4), TensorMix(4, 1), nn.Flatten()],
        "V",
        "T",
        (4, 3),
        {**vectors([0, 1]), "float16": [0, 1, 2, 3]},
    ),
    Case(
        "isotropic convolutions",
        lambda: [Isotropic(1, 6), nn.Tanh(), Isotropic(6, 6), nn.Tanh(), Isotropic(6, 1)],
        "field",
        "field",
        (27,),
        {"stride": [0, 1, 2, 3], "zero padding": [2, 4]},
    ),
    Case(
        "group convolutions",
        lambda: [
            Lift(1, 3),
            nn.ReLU(),
            Group(3, 3),
            nn.ReLU(),
            Group(3, 3),
            Fours(),
            nn.Conv2d(3, 1, 1),
        ],
        "quarter",
        "field",
        (27,),
        {"stride": [0, 1, 2, 3, 5]},
    ),
    Case(
        "convolutions with a stride",
        lambda: [
            Isotropic(1, 6, 5),
            nn.Tanh(),
            Isotropic(6, 6, 3, 2),
            nn.Tanh(),
            Grow(),
            Isotropic(6, 1),
        ],
        "quarter",
        "field",
        (29,),
        {"stride": [0, 1, 3, 4]},
    ),
    Case(
        "a set, a number",
        lambda: [
            Column(),
            Sets(1, 8),
            nn.SiLU(),
            Sets(8, 8),
            nn.SiLU(),
            Sets(8, 8),
            Mean(1),
            nn.Linear(8, 1),
        ],
        "permutation",
        "S",
        (1, 6),
        {"bias": [1, 2, 3], "layer norm": [1, 2, 3, 4, 5]},
    ),
    Case(
        "a set, a graph, a vector",
        lambda: [
            Column(),
            Sets(1, 8),
            Attention(8),
            Pairs(),
            Graph(8, 8),
            Graph(8, 1),
            Mean(1),
            nn.Flatten(),
        ],
        "permutation",
        "V",
        (1, 6),
        {"bias": [1, 2], "layer norm": [1, 2]},
    ),
]


class Faulty(nn.Module):
    """A layer with a fault."""

    def __init__(self, inner: nn.Module, fault: str, components: int) -> None:
        super().__init__()
        self.inner, self.fault = inner, fault
        self.seed, self.components = int(torch.randint(2**31, ())), components
        self.norm = nn.LayerNorm(components)
        nn.init.normal_(self.norm.weight, 1.0, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "zero padding":
            x = functional.pad(x[..., 1:-1, 1:-1], (1, 1, 1, 1))
        y: Tensor = self.inner(x)
        draw = torch.Generator().manual_seed(self.seed)
        n = self.components
        match self.fault:
            case "bias":
                axis = -1 if y.dim() == 2 or y.shape[-1] % n == 0 else 1
                size = [1] * (y.dim() - 1) + [y.shape[-1]] if axis == -1 else [1, n, y.shape[-1]]
                b = 0.4 * float(y.std()) * torch.randn(size, generator=draw)
                if y.dim() == 2 and y.shape[1] == 32:
                    b[:, :8] = 0  # scalars
                return y + b
            case "layer norm":
                if n in (y.shape[1], y.shape[-1]):
                    last = y.shape[-1] == n
                    normed: Tensor = self.norm(y) if last else self.norm(y.mT).mT
                    return normed
                vectors = self.norm(y[:, 8:].unflatten(1, (8, n))).flatten(1)
                return torch.cat([y[:, :8], vectors], 1)
            case "stride":
                s = y.shape[-1]
                coarse = y[..., ::2, ::2]
                grown = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)
                return grown[..., :s, :s]
            case "parity":
                if y.shape[-1] == n:
                    y += 0.5 * torch.linalg.cross(y, y.roll(1, -2))
                    return y
                v = y[:, 8:].unflatten(1, (8, n))
                v = v + 0.5 * torch.linalg.cross(v, v.roll(1, -2))
                return torch.cat([y[:, :8], v.flatten(1)], 1)
            case "float16":
                return y.half().float()
        return y


def turn(degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def setting(case: Case, draw: torch.Generator) -> tuple[Tensor, Action, Tensor, Ambient]:
    """Samples, their action, elements of the group, and the group."""
    if case.type_in in ("field", "quarter"):
        size = case.shape[0]
        out = {27: 21, 29: 21}[size]
        x = torch.randn(64, 1, 1, size + 12, size + 12, generator=draw)
        for _ in range(3):
            x = 2 * functional.avg_pool2d(x.flatten(0, 1), 5, 1, 2).unflatten(0, (64, 1))
        angles = (90, 180) if case.type_in == "quarter" else (10, 45, 90)
        elements = [turn(a) for a in angles]
        if "group" not in case.name:
            elements.append(torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64)))
        halo = (size - out) // 2
        action: Action = PlanarAction(size // 2, out // 2, halo=halo)
        return x, action, torch.stack(elements), Ambient.linear(2)
    n = case.shape[1]
    x = torch.randn(256, 1, *case.shape, generator=draw)
    if case.type_in == "permutation":
        orders = [torch.randperm(n, generator=draw) for _ in range(4)]
        elements = [torch.eye(n, dtype=torch.float64)[order] for order in orders]
    else:
        elements = []
        for i, j in ((0, 1), (0, 2), (1, 2)):
            b = torch.zeros(3, 3, dtype=torch.float64)
            b[i, j], b[j, i] = -1, 1
            elements += [torch.matrix_exp(t * b) for t in (0.3, 1.5)]
        elements += [torch.diag(torch.tensor([1.0, 1, -1], dtype=torch.float64))]
        elements += [-torch.eye(3, dtype=torch.float64)]
    ambient = Ambient.linear(n)
    rho = None if case.type_in != "V" else FeatureType("V", n)
    out_type = FeatureType(case.type_out, n)
    return x, VectorAction(n, rho_in=rho, rho_out=out_type), torch.stack(elements), ambient


def look(case: Case, layers: list[nn.Module], seed: int) -> Audit:
    x, action, elements, ambient = setting(case, torch.Generator().manual_seed(seed))
    network = nn.Sequential(*layers).eval()
    foreign = Foreign(Modules([network]), "chart", getattr(action, "halo", 0), 1).eval()
    run = ForeignRunner(foreign, torch.device("cpu"))
    return audit(run, action, x, elements, ambient, seed)


def named(found: Audit) -> str:
    return next((layer.name for layer in found.layers if layer.breaks), "none")


def main(seeds: int) -> None:
    torch.set_num_threads(1)  # small products: threads cost more than they save
    rows, right, false, tried = [], 0, 0, 0
    for seed in range(seeds):
        draw = torch.Generator().manual_seed(1000 + seed)
        for number, case in enumerate(CASES):
            torch.manual_seed(100 * seed + number)
            layers = case.layers()
            start = time.perf_counter()
            sound = look(case, layers, seed)
            false += sound.broken
            kinds = list(case.places)
            fault = kinds[int(torch.randint(len(kinds), (), generator=draw))]
            places = case.places[fault]
            place = places[int(torch.randint(len(places), (), generator=draw))]
            components = 3 if case.type_in == "V" else case.shape[-1]
            layers[place] = Faulty(layers[place], fault, components)
            found = look(case, layers, seed)
            name = named(found)
            ok = name == str(place) or name.startswith(f"{place}.")
            right, tried = right + ok, tried + 1
            row = {
                "seed": seed,
                "network": case.name,
                "fault": fault,
                "layer": place,
                "named": name,
                "right": ok,
                "sound flagged": sound.broken,
                "error": found.errors[found.judged],
                "floor": found.floors[found.judged],
                "seconds": round(time.perf_counter() - start, 2),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
            if sound.broken:
                print("   sound:", list(zip(sound.errors, sound.floors, strict=True)))
            if not ok:
                for layer in found.layers:
                    print(
                        "   ",
                        layer.name,
                        layer.moved_as,
                        [f"{e:.1e}" for e in layer.errors],
                        f"floor {max(layer.floors or [0]):.1e}",
                        f"{layer.repaired:.2e}",
                    )
    print(f"named rightly: {right} of {tried}; sound networks flagged: {false} of {tried}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
