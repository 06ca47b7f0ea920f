"""Random points of R^n: where a given function is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..registry import param, register
from ..solvers.state import check_kind, random_stream
from ..trainable import StepCallback


@dataclass(frozen=True)
class PointsParams:
    samples: int = param(4096, "Number of points", minimum=1)
    n: int = param(2, "Dimension", minimum=1, maximum=64)
    spread: float = param(1.0, "Standard deviation along each axis", minimum=1e-6)


@register(
    "dataset", "points", "Normally distributed points of R^n, for functions that are given", PointsParams
)
class PointsDataset:
    """Inputs ``[N, 1, n]``, N(0, spread²); targets ``[N, 1]`` zeros, since the function is given and not learnt."""

    epoch = 0
    total_epochs = 0
    outputs = 1

    def __init__(
        self, params: PointsParams, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor]
    ) -> None:
        if tensors:
            raise InvalidInput(
                "points makes its own data", "dataset.tensors", "no tensors", "use kind arrays"
            )
        draws = torch.randn(params.samples, 1, params.n, generator=random_stream(seed))
        self.inputs = (draws * params.spread).to(device)
        self.targets = torch.zeros(params.samples, 1, device=device)

    @property
    def memory_bytes(self) -> int:
        return 4 * (self.inputs.numel() + self.targets.numel())

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        return {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        return {}, {"kind": "points", "epoch": "0"}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        check_kind(metadata, "points")
