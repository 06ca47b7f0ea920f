"""Normally distributed points of R^n, on which a given function is studied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param, register
from ..rng import random_stream
from .base import GivenDataset, no_tensors


@dataclass(frozen=True)
class GaussianPointsParams:
    """Parameters of the dataset ``gaussian_points``."""

    samples: int = param(4096, "Number of points", minimum=1)
    n: int = param(2, "Number of coordinates of a point", minimum=1, maximum=64)
    spread: float = param(1.0, "Standard deviation along each axis", minimum=1e-6)


@register(
    "dataset",
    "gaussian_points",
    "Normally distributed points of R^n, for functions that are given and not learnt",
    GaussianPointsParams,
    aliases=("points",),
    recorded_as=("points", "PointsParams"),
)
class GaussianPoints(GivenDataset):
    """Inputs ``[N, 1, n]`` from N(0, spread²), and targets ``[N, 1]`` of zeros.

    The targets mean nothing, since the function is given and not learnt.
    """

    kind = "points"
    outputs = 1
    """The function has one value."""
    has_targets = False
    """The function is given."""

    def __init__(
        self,
        params: GaussianPointsParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        no_tensors(self.kind, tensors)
        draws = torch.randn(params.samples, 1, params.n, generator=random_stream(seed))
        self.inputs = (draws * params.spread).to(device)
        self.targets = torch.zeros(params.samples, 1, device=device)
