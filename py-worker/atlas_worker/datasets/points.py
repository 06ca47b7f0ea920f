"""Random points of R^n: where a given function is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..registry import param, register
from ..solvers.state import random_stream
from .base import GivenDataset, no_tensors


@dataclass(frozen=True)
class PointsParams:
    samples: int = param(4096, "Number of points", minimum=1)
    n: int = param(2, "Dimension", minimum=1, maximum=64)
    spread: float = param(1.0, "Standard deviation along each axis", minimum=1e-6)


@register(
    "dataset", "points", "Normally distributed points of R^n, for functions that are given", PointsParams
)
class PointsDataset(GivenDataset):
    """Inputs ``[N, 1, n]``, N(0, spread²); targets ``[N, 1]`` zeros, since the function is given and not learnt."""

    kind = "points"
    outputs = 1

    def __init__(
        self, params: PointsParams, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor]
    ) -> None:
        no_tensors(self.kind, tensors)
        draws = torch.randn(params.samples, 1, params.n, generator=random_stream(seed))
        self.inputs = (draws * params.spread).to(device)
        self.targets = torch.zeros(params.samples, 1, device=device)
