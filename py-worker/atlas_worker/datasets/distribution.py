"""Sets of vectors without targets, whose distribution is studied (METHOD 2.11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param, register
from ..errors import InvalidInput
from ..rng import random_stream
from .base import GivenDataset
from .checks import describe_inputs

FEWEST = 200
"""Fewest samples from which a density is learnt."""
FLAT = 1e-6
"""Variance of a direction, relative to the largest, below which it has none."""


@dataclass(frozen=True)
class DistributionParams:
    """Parameters of the dataset ``distribution``."""

    n: int = param(0, "Dimension of the vectors; 0: the number of features", minimum=0, maximum=64)
    noise: float = param(
        0.0, "Noise to add, relative to the spread of the vectors in each direction", minimum=0
    )


def second_moments(x: Tensor) -> Tensor:
    """Compute ``E x xᵀ [n, n]`` (float64) over all vectors of ``x [..., n]``."""
    points = x.double().flatten(0, -2)
    moments: Tensor = points.mT @ points / len(points)
    return moments


def roots(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the symmetric square root of positive definite ``moments``, and its inverse."""
    values, vectors = torch.linalg.eigh(moments)
    scale = values.clamp(min=1e-30).sqrt()
    return (vectors * scale) @ vectors.mT, (vectors / scale) @ vectors.mT


@register(
    "dataset",
    "distribution",
    "Sets of vectors [N, items, features] from the client without targets, about their mean",
    DistributionParams,
    manifolds=("vectors",),
)
class DistributionDataset(GivenDataset):
    """Inputs ``[N, m, n]`` about the mean of all vectors, and targets ``[N, m·n]`` of zeros.

    Several vectors among the features of an item become items. Noise has the covariance of the
    vectors themselves, so that it has no direction where they have none.

    Raises:
        InvalidInput: The samples are too few, not finite, or have no spread in some direction.
    """

    kind = "distribution"

    def __init__(
        self,
        params: DistributionParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        if set(tensors) != {"inputs"}:
            raise InvalidInput(
                f"the tensors are {', '.join(sorted(tensors)) or 'none'}",
                "dataset.tensors",
                "inputs alone",
            )
        x = tensors["inputs"]
        if x.dim() != 3 or not x.numel():
            raise InvalidInput(
                f"inputs have shape {list(x.shape)}",
                "dataset.tensors.inputs",
                "sets of vectors, [N, items, features]",
            )
        n = params.n or x.shape[2]
        if x.shape[2] % n:
            raise InvalidInput(
                f"an item has {x.shape[2]} features, which are no vectors of R^{n}",
                "dataset.source.params.n",
                f"a divisor of {x.shape[2]}",
            )
        if len(x) < FEWEST:
            raise InvalidInput(
                f"{len(x)} samples are too few to learn a distribution",
                "dataset.tensors.inputs",
                f"at least {FEWEST}, and better thousands",
                "give more samples",
            )
        x = x.to(device, torch.float32).reshape(len(x), -1, n)
        wrong = ~x.isfinite().flatten(1).all(1)
        if bool(wrong.any()):
            raise InvalidInput(
                f"inputs have entries that are NaN or infinite, in {int(wrong.sum()):,} of "
                f"{len(x):,} samples, first in sample {int(wrong.int().argmax())}",
                "dataset.tensors.inputs",
                "finite numbers",
                "repair or remove these samples",
            )
        mean = x.double().flatten(0, 1).mean(0)
        x = x - mean.float()
        moments = second_moments(x)
        values, vectors = torch.linalg.eigh(moments)
        if not float(values[0]) > FLAT * float(values[-1]):
            direction = ", ".join(f"{v:.2f}" for v in vectors[:, 0].tolist())
            raise InvalidInput(
                f"the vectors have no spread along [{direction}]",
                "dataset.tensors.inputs",
                "vectors that span all directions",
                "leave this direction out of the vectors",
            )
        self._size = float(mean.norm() / values[-1].sqrt())
        self._mean = mean
        if params.noise:
            drawn = torch.randn(x.shape, generator=random_stream(seed)).to(device)
            x = x + params.noise * (drawn.double() @ roots(moments)[0]).float()
        self.inputs = x.contiguous()
        self.targets = torch.zeros((), device=device).expand(len(x), x.shape[1] * n)
        self.warnings = tuple(describe_inputs(x, "inputs", "dataset.tensors.inputs"))

    @property
    def outputs(self) -> int:
        """Number of components of the score."""
        return self.targets.shape[1]

    @property
    def facts(self) -> dict[str, str]:
        """``mean``, if it is not near zero: symmetries are about it."""
        if self._size < 0.01:
            return {}
        return {"mean": ", ".join(f"{x:.3g}" for x in self._mean.tolist())}
