"""Standard units for networks on sets of vectors: whitened inputs, and outputs of unit variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..interfaces import Signature

FLOOR = 1e-4
"""Least variance, relative to the largest, that whitening magnifies to 1."""


class Whitening(nn.Module):
    """``x_i → Σ^(−1/2) (x_i − μ)`` for the items of a set, ``[..., m, n]``.

    μ and Σ are the mean and the covariance of all items of a sample of the data. Afterwards a
    network does not depend on the coordinates, up to a rotation. Items of zeros do not count.

    Args:
        signature: Shapes, and samples of the data if there are any.
    """

    mean: Tensor
    """``[n]``"""
    matrix: Tensor
    """``Σ^(−1/2) [n, n]``, symmetric."""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        n = signature.inputs[-1]
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("matrix", torch.eye(n))
        if signature.examples is None:
            return
        x = signature.examples[0].cpu().double().flatten(0, 1)
        x = x[(x != 0).any(1)]
        if not len(x):
            return
        mean = x.mean(0)
        # Features in other units first get the same size, so that the floor is fair to them.
        unit = x.std(0, correction=0).clamp(min=1e-30 + 1e-6 * float(x.abs().max()))
        u = (x - mean) / unit
        values, vectors = torch.linalg.eigh(u.T @ u / len(u))
        floor = FLOOR * float(values[-1].clamp(min=1e-30))
        root = vectors @ torch.diag(values.clamp(min=floor).rsqrt()) @ vectors.T
        self.mean.copy_(mean)
        self.matrix.copy_(root / unit)

    def forward(self, x: Tensor) -> Tensor:
        """Whiten the items ``[..., m, n]``."""
        return (x - self.mean) @ self.matrix.mT


class Outputs(nn.Module):
    """``y → mean + spread · y`` for the outputs ``[..., out]``, from a sample of the targets.

    For classes, and without samples, it is the identity.

    Args:
        signature: Shapes, and samples of the data if there are any.
    """

    mean: Tensor
    """``[out]``"""
    spread: Tensor
    """``[out]``"""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(signature.outputs))
        self.register_buffer("spread", torch.ones(signature.outputs))
        targets = None if signature.examples is None else signature.examples[1]
        if targets is not None:
            y = targets.cpu().double()
            spread = y.std(0, correction=0)
            self.mean.copy_(y.mean(0))
            self.spread.copy_(torch.where(spread > 0, spread, 1.0))

    def forward(self, y: Tensor) -> Tensor:
        """Give the outputs their mean and spread."""
        return self.mean + self.spread * y
