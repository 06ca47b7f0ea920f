"""The resampler: moves a planar field by a linear map about the exact centre of its lattice."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput

Interpolation = Literal["bilinear", "nearest", "bicubic"]
"""How values between pixels are computed."""


def transform(
    field: Tensor, g: Tensor, radius_out: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Move a field by a matrix: ``(g·x)(u) = x(g⁻¹ u)`` (METHOD 1.4).

    ``u = (row, column)`` is in pixels from the exact centre ``(S - 1) / 2`` of the lattice, so the
    *first* coordinate is the row. Pixels outside the returned window but inside the field are used
    as true values. Beyond the field its border is repeated.

    Args:
        field: ``[..., ch, S, S]``, with S odd or even.
        g: ``[..., 2, 2]``. Leading dimensions broadcast with those of ``field``.
        radius_out: Radius of the returned window in pixels.
        interpolation: How values between pixels are computed.

    Returns:
        ``[..., ch, s, s]`` with ``s = 2 radius_out + 1`` (S odd) or ``2 radius_out`` (S even).
        Differentiable in both arguments; with ``nearest``, in ``field`` only.

    Raises:
        InvalidInput: The shapes do not fit, or a matrix has no finite inverse.
    """
    size = field.shape[-1]
    side = 2 * radius_out + size % 2
    if field.dim() < 3 or field.shape[-2] != size or g.shape[-2:] != (2, 2):
        raise InvalidInput(
            f"cannot move a field {list(field.shape)} by {list(g.shape)}",
            "g",
            "field [..., ch, S, S], g [..., 2, 2]",
        )
    if not 0 < side <= size:
        raise InvalidInput(
            f"a window of radius {radius_out} does not fit a field {size} pixels wide",
            "radius_out",
            f"at most {size // 2}",
        )
    inverse = torch.linalg.inv_ex(g).inverse
    if not bool((torch.isfinite(inverse) & torch.isfinite(g)).all()):
        raise InvalidInput(
            "a matrix that moves a field is singular or not finite", "g", "an invertible matrix"
        )

    batch = np.broadcast_shapes(field.shape[:-3], g.shape[:-2])
    half = (side - 1) / 2
    axis = torch.linspace(-half, half, side, dtype=field.dtype, device=field.device)
    u = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    # grid_sample wants (x, y) = (column, row), which align_corners scales to [-1, 1] between the
    # centres of the first and last pixel.
    source = torch.einsum("...ij,rcj->...rci", inverse.to(field.dtype), u).flip(-1) * (
        2 / max(size - 1, 1)
    )
    moved = functional.grid_sample(
        field.expand(*batch, *field.shape[-3:]).reshape(-1, *field.shape[-3:]),
        source.expand(*batch, side, side, 2).reshape(-1, side, side, 2),
        mode=interpolation,
        padding_mode="border",
        align_corners=True,
    )
    return moved.reshape(*batch, *moved.shape[-3:])


def crop(field: Tensor, radius: int) -> Tensor:
    """Crop ``field [..., S, S]`` to radius ``radius``: exactly ``transform`` for ``g = I``."""
    size = field.shape[-1]
    cut = (size - (2 * radius + size % 2)) // 2
    return field[..., cut : size - cut, cut : size - cut]
