"""The resampler: moves a field by a linear map about the exact centre of its lattice."""

from __future__ import annotations

import math
import weakref
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput

Interpolation = Literal["bilinear", "nearest", "bicubic"]
"""How values between pixels are computed."""


_AT_ONCE = 2**18
"""Numbers that are read at a time on a CPU, so that they and their places stay in its cache."""


def transform(
    field: Tensor, g: Tensor, radius_out: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Move a field of n dimensions by a matrix: ``(g·x)(u) = x(g⁻¹ u)`` (METHOD 1.4).

    ``u = (row, column)``, in 3 dimensions ``(layer, row, column)``, is in pixels from the exact
    centre ``(S - 1) / 2`` of the lattice, so the *first* coordinate is that of the first axis.
    Pixels outside the returned window but inside the field are used as true values. Beyond the
    field its border is repeated. Fields of one dimension have one row, ``[..., ch, 1, S]``.

    Args:
        field: ``[..., ch, S, S]``, with S odd or even; ``[..., ch, S, S, S]`` for n = 3,
            ``[..., ch, 1, S]`` for n = 1.
        g: ``[..., n, n]`` with n of 1 to 3. Leading dimensions broadcast with those of ``field``.
        radius_out: Radius of the returned window in pixels.
        interpolation: How values between pixels are computed: linear, nearest or cubic in each
            dimension. In 3 dimensions, "bicubic" is linear between pixels and cubic half pixels.

    Returns:
        ``[..., ch, s, s]`` with ``s = 2 radius_out + 1`` (S odd) or ``2 radius_out`` (S even), and
        for other n likewise. Differentiable in both arguments; with ``nearest``, in ``field`` only.

    Raises:
        InvalidInput: The shapes do not fit, or a matrix has no finite inverse.
    """
    size, n = field.shape[-1], g.shape[-1]
    side = 2 * radius_out + size % 2
    axes = max(n, 2)
    lattice = {1: (1, size), 2: (size, size), 3: (size, size, size)}.get(n)
    if g.shape[-2:] != (n, n) or field.dim() <= axes or field.shape[-axes:] != lattice:
        raise InvalidInput(
            f"cannot move a field {list(field.shape)} by {list(g.shape)}",
            "g",
            "field [..., ch, S, S], g [..., 2, 2]; [..., ch, 1, S] for n = 1, and one S more for 3",
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

    batch = np.broadcast_shapes(field.shape[: -axes - 1], g.shape[:-2])
    half = (side - 1) / 2
    axis = torch.linspace(-half, half, side, dtype=field.dtype, device=field.device)
    u = torch.stack(torch.meshgrid(*[axis] * n, indexing="ij")).flatten(1)  # [n, side ** n]
    if n == 3 and interpolation == "bicubic":
        field, interpolation = _finer(field), "bilinear"
    lead: tuple[int, ...] = field.shape[: -axes - 1]
    if batch[len(batch) - len(lead) :] != lead:
        field, lead = field.expand(*batch, *field.shape[-axes - 1 :]), batch
    fields = field.reshape(-1, *field.shape[-axes - 1 :])
    # grid_sample wants (x, y) = (column, row), which align_corners scales to [-1, 1] between the
    # centres of the first and last pixel.
    maps = inverse.to(field.dtype).flip(-2) * (2 / max(size - 1, 1))
    if n == 1:  # a field of one row
        maps = functional.pad(maps, (0, 0, 0, 1))
    several = math.prod(batch[: len(batch) - len(lead)])
    maps = maps.expand(*batch, *maps.shape[-2:])
    maps = maps.reshape(several, math.prod(lead), *maps.shape[-2:])
    derivable = torch.is_grad_enabled() and (field.requires_grad or g.requires_grad)
    at_once = max(1, _AT_ONCE // max(math.prod(field.shape[-axes:]), u.numel()))
    if field.is_cuda or derivable or several * len(fields) <= at_once:
        moved = _read(fields, maps, u, interpolation)
    else:
        # As many maps of a field as possible, and then as many fields.
        some = max(1, at_once // several)
        moved = torch.cat(
            [
                torch.cat([_read(f, m, u, interpolation) for m in ms.split(at_once)])
                for f, ms in zip(fields.split(some), maps.split(some, 1), strict=True)
            ],
            1,
        )
    return moved.reshape(*batch, *moved.shape[2:])


def _read(fields: Tensor, maps: Tensor, u: Tensor, interpolation: Interpolation) -> Tensor:
    """Read fields in windows that are moved by several maps each.

    The windows of a field are read side by side, as one, which spares copies of the field.

    Args:
        fields: ``[F, ch, ...]``.
        maps: From pixels, counted from the centre of the window, to the places that grid_sample
            takes: ``[L, F, axes, n]``.
        u: Pixels of the window, ``[n, side ** n]``.
        interpolation: How values between pixels are computed.

    Returns:
        ``[L, F, ch, ...]``.
    """
    (several, count, axes, n), side = maps.shape, round(u.shape[1] ** (1 / len(u)))
    window = (1, side) if n == 1 else (side,) * n
    rows = maps.permute(1, 2, 0, 3).reshape(-1, n)
    places = (rows @ u).view(count, axes, several * window[0], *window[1:])
    read: Tensor = functional.grid_sample(
        fields,
        places.movedim(1, -1),
        mode=interpolation,
        padding_mode="border",
        align_corners=True,
    )
    moved: Tensor = read.unflatten(2, (several, window[0])).movedim(2, 0)
    return moved


_KEPT = 4
"""Fields in space whose finer lattice is kept, since each is moved by many matrices."""
_kept: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = {}


def _finer(field: Tensor) -> Tensor:
    """Return :func:`_refined`, computed once for a field that is moved again and again."""
    if field.requires_grad:
        return _refined(field)
    held = _kept.get(id(field))
    if held is not None and held[0]() is field and held[1] == field._version:
        return held[2]
    finer = _refined(field)
    for key in [key for key, (of, _, _) in _kept.items() if of() is None]:
        _kept.pop(key, None)
    while len(_kept) >= _KEPT:
        _kept.pop(next(iter(_kept)), None)
    _kept[id(field)] = (weakref.ref(field), field._version, finer)
    return finer


def _refined(field: Tensor) -> Tensor:
    """Halve the distance of the pixels of ``[..., S, S, S]`` by cubic convolution (Keys 1981).

    With a = −1/2 it is exact for quadratics. PyTorch has cubic interpolation in the plane only.

    Returns:
        ``[..., 2S − 1, 2S − 1, 2S − 1]``.
    """
    for axis in (-3, -2, -1):
        f = field.movedim(axis, -1)
        before, after = f[..., :1], f[..., -1:]
        p = torch.cat([before, f, after], -1)
        between = (9 * (p[..., 1:-2] + p[..., 2:-1]) - p[..., :-3] - p[..., 3:]) / 16
        pairs = torch.stack([f[..., :-1], between], -1).flatten(-2)
        field = torch.cat([pairs, after], -1).movedim(-1, axis)
    return field


def crop(field: Tensor, radius: int, n: int = 2) -> Tensor:
    """Crop ``field [..., S, S]`` to radius ``radius``: exactly ``transform`` for ``g = I``.

    Args:
        field: As for :func:`transform`.
        radius: Radius of the returned window in pixels.
        n: Number of dimensions of the field.

    Returns:
        The window.
    """
    size = field.shape[-1]
    cut = (size - (2 * radius + size % 2)) // 2
    for axis in range(-n, 0):
        field = field.narrow(axis, cut, size - 2 * cut)
    return field
