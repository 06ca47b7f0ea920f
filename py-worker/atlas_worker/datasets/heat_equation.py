"""Heat flow on a square plate with a hole (METHOD 3.1).

The task has local symmetries that the whole plate does not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..catalogue import param, register
from ..errors import InvalidInput
from ..rng import random_stream
from ..trainable import StepCallback
from .base import MadeDataset, no_tensors

HELD = math.sqrt(2.0)
"""Temperature of the hole and of everything outside the plate."""

CHUNK = 256
"""Samples made at a time. It limits the memory beyond the result, and the delay of a cancel."""


KEPT = 128
"""Largest side of which the responses are kept (16 MiB), for the plates that judge."""


@dataclass(frozen=True)
class HeatEquationParams:
    """Parameters of the dataset ``heat_equation`` (METHOD 3.1)."""

    samples: int = param(10_000, "Number of plates", minimum=1)
    side: int = param(128, "Width of the plate in pixels", minimum=16, maximum=1024)
    steps: int = param(
        50, "Explicit time steps between input and output", minimum=1, maximum=10_000
    )
    dt: float = param(0.01, "Length of a time step", minimum=0)
    dx: float = param(0.1, "Distance of neighbouring pixels", minimum=1e-9)
    diffusivity: float = param(1.0, "Thermal diffusivity α", minimum=0)


def hole(side: int) -> Tensor:
    """Return the mask ``[side, side]`` of the hole.

    The hole is the open rectangle 0.1 < u < 0.3, 0.2 < v < 0.5 with u = row/side, v = column/side.
    """
    t = torch.arange(side, dtype=torch.float64) / side
    return ((0.1 < t) & (t < 0.3))[:, None] & ((0.2 < t) & (t < 0.5))[None, :]


def heat_flow(fields: Tensor, steps: int, rate: float) -> Tensor:
    """Simulate the heat equation by explicit time steps.

    The Laplacian is a central difference applied twice: a five-point stencil at distance two. The
    hole and everything outside the plate stay at zero.

    Args:
        fields: Temperatures ``[N, S, S]`` *above* ``HELD``.
        steps: Number of time steps.
        rate: ``α dt / (2 dx)²``. The scheme is stable up to 1/4.

    Returns:
        Temperatures ``[N, S, S]`` above ``HELD``.
    """
    side = fields.shape[-1]
    free = (~hole(side)).to(fields)
    t = torch.zeros(fields.shape[0], side + 4, side + 4, dtype=fields.dtype, device=fields.device)
    inner = t[:, 2:-2, 2:-2]
    inner.copy_(fields * free)
    for _ in range(steps):
        neighbours = t[:, :-4, 2:-2] + t[:, 4:, 2:-2]
        neighbours += t[:, 2:-2, :-4]
        neighbours += t[:, 2:-2, 4:]
        inner.mul_(1 - 4 * rate).add_(neighbours, alpha=rate).mul_(free)
    return inner.contiguous()


def responses(side: int, steps: int, rate: float) -> Tensor:
    """Flow of each unit function of u and of v.

    Args:
        side: Width of the plate, S.
        steps: Number of time steps.
        rate: See :func:`heat_flow`.

    Returns:
        ``[2S, S²]`` float32.
    """
    unit = torch.eye(side, dtype=torch.float64)
    flowed = [
        heat_flow(block, steps, rate).flatten(1)
        for fields in (
            unit[:, :, None].expand(-1, -1, side),
            unit[:, None, :].expand(-1, side, -1),
        )
        for block in fields.split(8)  # small enough to stay in the processor's cache
    ]
    return torch.cat(flowed).float()


kept_responses = lru_cache(maxsize=1)(responses)
"""Like :func:`responses`; nobody may change what it returns."""


@register(
    "dataset",
    "heat_equation",
    "Heat flow on a square plate with a hole held at √2",
    HeatEquationParams,
    aliases=("heat2d",),
    recorded_as=("heat2d", "HeatParams"),
)
class HeatEquation(MadeDataset):
    """Inputs ``c sin(a u + b) + f cos(d v + e)``, and the temperature after the flow as targets.

    Both are ``[N, 1, side, side]`` float32. The flow is affine, and every input is a function of u
    plus a function of v. So the flow of ``2 side + 1`` fields gives the targets of all samples by
    one matrix product (exact by superposition; tested against the direct simulation).
    """

    kind = "heat2d"
    outputs = 1
    """Temperature is one channel."""

    def __init__(
        self,
        params: HeatEquationParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        no_tensors(self.kind, tensors)
        self._rate = params.diffusivity * params.dt / (2 * params.dx) ** 2
        if self._rate > 0.25:
            raise InvalidInput(
                f"the scheme is unstable: α dt / (2 dx)² is {self._rate:.3g}",
                "dataset.source.params.dt",
                "at most 0.25",
                "lower dt, or raise dx",
            )
        self._p, self._seed, self._device = params, seed, device
        if self._rate == 0:
            self.warnings = ("nothing flows, so targets equal inputs: every map is a symmetry",)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of inputs and targets, known before they are made."""
        return self._p.samples, 1, self._p.side, self._p.side

    @property
    def memory_bytes(self) -> int:
        """Bytes of inputs and targets."""
        return 2 * 4 * math.prod(self.shape)

    def make(self, on_step: StepCallback) -> tuple[Tensor, Tensor]:
        """Make the samples; see :class:`MadeDataset`."""
        p = self._p
        make = kept_responses if p.side <= KEPT else responses
        response = make(p.side, p.steps, self._rate).to(self._device)
        covered = hole(p.side).to(self._device)
        draws = self._draws()
        x = torch.empty(self.shape, device=self._device)
        y = torch.empty(self.shape, device=self._device)
        t = torch.arange(p.side, dtype=torch.float64) / p.side
        chunks = math.ceil(p.samples / CHUNK)
        for i in range(chunks):
            part = slice(i * CHUNK, min((i + 1) * CHUNK, p.samples))
            a, b, c, d, e, f = draws[:, part, None]
            along_u, along_v = c * torch.sin(a * t + b), f * torch.cos(d * t + e)  # [n, side]
            # A constant belongs to either part. Each takes half of HELD, so that their sum is
            # above HELD.
            parts = torch.cat([along_u - HELD / 2, along_v - HELD / 2], 1).to(
                self._device, torch.float32
            )
            y[part] = torch.addmm(
                torch.tensor(HELD, device=self._device), parts, response
            ).unflatten(1, self.shape[1:])
            u, v = along_u.to(self._device, torch.float32), along_v.to(self._device, torch.float32)
            torch.add(u[:, None, :, None], v[:, None, None, :], out=x[part])
            x[part].masked_fill_(covered, HELD)
            on_step(i + 1, chunks, {})
        return x, y

    def _draws(self) -> Tensor:
        """Draw a, b, c, d, e, f of every sample: ``[6, N]`` float64."""
        z = torch.randn(
            6, self._p.samples, generator=random_stream(self._seed), dtype=torch.float64
        )
        scale = torch.tensor([6, 3, 1, 5, 3, 1], dtype=torch.float64)
        shift = torch.tensor([15, 0, 0, 12, 0, 0], dtype=torch.float64)
        draws = shift[:, None] + scale[:, None] * z
        draws[[2, 5]] = (draws[[2, 5]].abs() + 1) / 2
        return draws
