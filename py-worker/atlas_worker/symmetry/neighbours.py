"""Nearest neighbours among known samples, which tell where data support a predictor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEAREST = 4
"""Nearest samples that are looked at."""
KNOWN = 1024
"""Known samples among which they are sought."""
ENOUGH = 0.5
"""Share of the moved sets that must be near to known ones, or the move is out of reach."""
FAR = 0.95
"""Share of the samples at rest that lie within the distance up to which others are near."""


def whitening(x: Tensor) -> Tensor:
    """Compute a matrix W such that the features of ``x W`` have the unit matrix for second moment.

    Args:
        x: Sets ``[B, C, m, features]``, or windows ``[B, C, channels, s, s]``.

    Returns:
        ``[features, features]``; for windows a diagonal matrix ``[channels, channels]``. Features
        that are zero, and combinations that are zero up to rounding, stay zero.
    """
    if x.dim() != 4:
        spread = (x - x.mean(0, keepdim=True)).double().transpose(1, 2).transpose(0, 1)
        deviations = spread.flatten(1).square().mean(1).sqrt()
        return torch.diag(torch.where(deviations > 0, 1 / deviations.clamp(min=1e-300), 0.0))
    flat = x.double().flatten(0, 2)
    values, vectors = torch.linalg.eigh(flat.mT @ flat / len(flat))
    keep = values > 1e-10 * values[-1].clamp(min=1e-300)
    scales = torch.where(keep, values.clamp(min=1e-300).rsqrt(), 0.0)
    whitened: Tensor = vectors @ torch.diag(scales) @ vectors.mT
    return whitened


class Neighbours:
    """Known points ``[N, d]``, among which the nearest ones to others are sought."""

    def __init__(self, known: Tensor) -> None:
        self._known = known

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and indices of the nearest known points, ``[B, NEAREST]`` or fewer.

        Args:
            points: ``[B, d]``. A point that is known is not its own neighbour.
        """
        distances = torch.cdist(points, self._known)
        distances = torch.where(distances > 1e-6 * distances.mean(), distances, math.inf)
        nearest = distances.topk(min(NEAREST, len(self._known)), largest=False)
        return nearest.values, nearest.indices


def far(distances: Tensor) -> Tensor:
    """The mean distance within which ``FAR`` of the points at rest have their neighbours.

    Args:
        distances: ``[B, NEAREST]`` of points at rest.

    Returns:
        A number, of ``distances.mean(1)``.
    """
    still = distances.mean(1)
    return still.sort().values[int(FAR * (len(still) - 1))]
