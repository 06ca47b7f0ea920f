"""Problems of other papers, made from their descriptions, with known symmetries (METHOD 3.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..catalogue import param, register
from ..rng import random_stream
from . import trajectories
from .base import GivenDataset, no_tensors


class PeersDataset(GivenDataset):
    """Sets of vectors with targets, made at once.

    Args:
        kind: Kind of the dataset.
        inputs: ``[N, m, n]``.
        targets: ``[N, outputs]``.
        scenes: Scene of each sample, ``[N]``; None if each is its own.
        device: Device of the samples.
    """

    def __init__(
        self,
        kind: str,
        inputs: Tensor,
        targets: Tensor,
        scenes: Tensor | None,
        device: torch.device,
    ) -> None:
        self.kind = kind  # type: ignore[misc]
        self.inputs = inputs.to(device, torch.float32)
        self.targets = targets.to(device, torch.float32)
        self.scenes = scenes

    @property
    def outputs(self) -> int:
        """Number of the targets."""
        return self.targets.shape[1]


@dataclass(frozen=True)
class TwoBodiesParams:
    """Parameters of the dataset ``two_bodies``."""

    orbits: int = param(814, "Number of orbits", minimum=3)
    frames: int = param(20, "Frames of each orbit, 20/49 of a unit of time apart", minimum=2)
    twin: Literal["none", "elliptic", "squeezed"] = param(
        "none",
        "elliptic: orbits are ellipses, and their centre moves; squeezed: second coordinates to "
        "predict are halved, so that no rotation is a symmetry",
    )


_STEP = 20 / 49
"""Time between frames (Yang et al. 2023)."""
_SUBSTEPS = 64
"""Steps of the leapfrog method between frames."""


def _accelerations(q: Tensor) -> Tensor:
    """Accelerations of two unit masses at ``q [N, 2, 2]``, with G = 1."""
    r = q[:, 1] - q[:, 0]
    pull = r / r.norm(dim=1, keepdim=True) ** 3
    return torch.stack([pull, -pull], 1)


@register(
    "dataset",
    "two_bodies",
    "Two bodies on orbits in the plane: a frame (q1, p1, q2, p2), and the next one to predict",
    TwoBodiesParams,
)
def make_two_bodies(
    params: TwoBodiesParams, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor]
) -> PeersDataset:
    """Make the two-body data of LieGAN (Yang et al. 2023, "Generative adversarial discovery").

    Unit masses at ±q, G = 1, on counter-clockwise circles with ``|q|`` area-uniform in [1.5, 3]
    and the speed ``1/(2√|q|)`` times 1 + N(0, 0.0007²).
    """
    no_tensors("two_bodies", tensors)
    draw, count = random_stream(seed, 0), params.orbits

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=draw, dtype=torch.float64)

    radius, angle = uniform(1.5**2, 3.0**2).sqrt(), uniform(-math.pi, math.pi)
    speed = (
        0.5 / radius.sqrt() * (1 + 0.0007 * torch.randn(count, generator=draw, dtype=torch.float64))
    )
    out = torch.stack([angle.cos(), angle.sin()], 1)
    along = torch.stack([-angle.sin(), angle.cos()], 1)
    q = torch.stack([out, -out], 1) * radius[:, None, None]
    p = torch.stack([along, -along], 1) * speed[:, None, None]
    if params.twin == "elliptic":
        p = p * uniform(0.75, 1.1)[:, None, None]
        p = p + 0.1 * torch.randn(count, 1, 2, generator=draw, dtype=torch.float64)
    states, dt = [], _STEP / _SUBSTEPS
    for frame in range(params.frames):
        states.append(torch.stack([q[:, 0], p[:, 0], q[:, 1], p[:, 1]], 1).flatten(1))
        for _ in range(_SUBSTEPS if frame + 1 < params.frames else 0):
            p = p + dt / 2 * _accelerations(q)
            q = q + dt * p
            p = p + dt / 2 * _accelerations(q)
    cut = trajectories.cut(torch.stack(states, 1)[:, :, None], "next")
    if params.twin == "squeezed":
        cut.targets[:, 1::2] *= 0.5
    return PeersDataset("two_bodies", cut.inputs, cut.targets, cut.scenes, device)


@dataclass(frozen=True)
class O5Params:
    """Parameters of the dataset ``o5``."""

    samples: int = param(10_000, "Number of pairs of vectors", minimum=3)
    dimension: int = param(5, "Dimension of the vectors", minimum=2, maximum=16)
    broken: float = param(
        0.0, "Weight of terms without any symmetry, in units of the target's spread"
    )


def _without_symmetry(x: Tensor) -> Tensor:
    """Compute a function of pairs of vectors ``[N, 2, n]`` that no matrix keeps, ``[N]``.

    A quadratic form with another weight for each coordinate leaves only sign changes of the
    coordinates. Of these and of exchanges of neighbours, each breaks one of two odd sums.
    """
    one, other = x.unbind(1)
    n = x.shape[2]
    signs = torch.tensor([1.0, -1.0], dtype=x.dtype).repeat(n)[:n]
    odd = one.tanh().sum(1) + (signs * other.tanh()).sum(1)
    even = (torch.linspace(-1, 1, n, dtype=x.dtype) * one.square()).sum(1)
    rest = (odd - odd.mean()) / odd.std() + (even - even.mean()) / even.std()
    return rest / rest.std()


@register(
    "dataset",
    "o5",
    "A function of the lengths and the angle of two vectors in R^5",
    O5Params,
)
def make_o5(
    params: O5Params, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor]
) -> PeersDataset:
    """Make the O(5) regression of LieGG (Moskalev et al. 2022).

    ``y = sin|r₁| − |r₂|³/2 + r₁·r₂/(|r₁||r₂|)``. Nothing keeps the terms of ``broken``.
    """
    no_tensors("o5", tensors)
    x = torch.randn(
        params.samples, 2, params.dimension, generator=random_stream(seed, 0), dtype=torch.float64
    )
    a, b = x.norm(dim=2).unbind(1)
    y = a.sin() - b**3 / 2 + x.prod(1).sum(1) / (a * b)
    if params.broken:
        y = y + params.broken * y.std() * _without_symmetry(x)
    return PeersDataset("o5", x, y[:, None], None, device)


@dataclass(frozen=True)
class OrbitsParams:
    """Parameters of the dataset ``orbits``."""

    group: Literal["C_4", "T", "O", "I"] = param(
        "C_4", "Group of turns: quarter turns of the plane, or a group of polyhedra"
    )
    samples: int = param(20_000, "Number of turned copies", minimum=3)
    twin: Literal["none", "generic", "continuous"] = param(
        "none",
        "generic: as many turns as the group has, but random ones, which are no group; continuous: "
        "all turns",
    )


_ARROW = ((0.0, 0.0), (1.0, 0.0), (0.7, 0.2), (0.7, -0.2))
_TETRAHEDRON = ((1.0, 0.0, 0.1), (-0.3, 0.8, 0.0), (-0.2, -0.5, 0.6), (0.1, -0.3, -1.1))
_GOLDEN = (1 + math.sqrt(5)) / 2
_CYCLE = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
_HALF_TURN = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))
_QUARTER_TURN = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
_FIFTH_TURN = (
    (0.5, -_GOLDEN / 2, 1 / (2 * _GOLDEN)),
    (_GOLDEN / 2, 1 / (2 * _GOLDEN), -0.5),
    (1 / (2 * _GOLDEN), 0.5, _GOLDEN / 2),
)
_GENERATORS = {
    "C_4": (((0.0, -1.0), (1.0, 0.0)),),
    "T": (_CYCLE, _HALF_TURN),
    "O": (_CYCLE, _QUARTER_TURN),
    "I": (_CYCLE, _HALF_TURN, _FIFTH_TURN),
}


def turns_of(group: str) -> Tensor:
    """Return all elements of a group of turns, ``[order, n, n]`` float64.

    >>> [len(turns_of(name)) for name in ("C_4", "T", "O", "I")]
    [4, 12, 24, 60]
    """
    generators = torch.tensor(_GENERATORS[group], dtype=torch.float64)
    found = torch.eye(generators.shape[-1], dtype=torch.float64)[None]
    while True:
        before = len(found)
        for g in (found[:, None] @ generators).flatten(0, 1):
            if (found - g).abs().amax((1, 2)).min() > 1e-6:
                found = torch.cat([found, g[None]])
        if len(found) == before:
            return found


@register(
    "dataset",
    "orbits",
    "Copies of an object that the elements of a finite group turn, without targets",
    OrbitsParams,
)
def make_orbits(
    params: OrbitsParams, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor]
) -> PeersDataset:
    """Make orbits of one object, an arrow or an irregular tetrahedron (METHOD 3.7)."""
    no_tensors("orbits", tensors)
    draw = random_stream(seed, 0)
    turns = turns_of(params.group)
    order, n = turns.shape[:2]
    if params.twin != "none":
        count = order if params.twin == "generic" else params.samples
        q, r = torch.linalg.qr(torch.randn(count, n, n, generator=draw, dtype=torch.float64))
        turns = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
        turns[:, :, 0] *= torch.linalg.det(turns).sign()[:, None]
    thing = torch.tensor(_ARROW if n == 2 else _TETRAHEDRON, dtype=torch.float64)
    chosen = torch.arange(params.samples)
    if params.twin != "continuous":
        chosen = torch.randint(len(turns), (params.samples,), generator=draw)
    x = torch.einsum("nij,mj->nmi", turns[chosen], thing)
    made = PeersDataset("orbits", x, torch.zeros(params.samples, 1), None, device)
    made.has_targets = False
    return made
