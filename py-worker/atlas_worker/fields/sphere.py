"""The sphere: fields on a lattice, charts by projection, and rotations of whole fields.

Row i of H is at latitude ``90° − (i + ½) 180°/H``, column j of W at longitude ``360° j / W``.
Points are unit vectors ``(cos φ cos λ, cos φ sin λ, sin φ)`` at latitude φ and longitude λ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..catalogue import param
from ..errors import InvalidInput
from .atlas import OutputInterpolation, check_fields, check_radii, nearest_chart


@dataclass(frozen=True)
class SphereChart:
    """A chart's centre, in degrees."""

    latitude: float = param(
        ..., "Latitude of the chart's centre, in degrees north", minimum=-90, maximum=90
    )
    longitude: float = param(..., "Longitude of the chart's centre, in degrees east")


@dataclass(frozen=True)
class SphereAtlas:
    """A ``FieldAtlas`` on the sphere (METHOD 1.1).

    The equator is W pixels long, so the sphere's radius is ``W / 2π`` pixels. For each chart the
    sphere is turned until the chart's centre is at latitude and longitude 0, then projected on the
    cylinder around the equator (Lambert's equal-area projection). Pixel ``(r, c)`` from the centre
    is the point with ``sin φ = −r · 2π / W`` and ``λ = c · 2π / W``. Beyond a pole, the pole is
    repeated.

    Charts are projected back by nearest pixel. For charts on the equator this undoes the projection
    exactly.
    """

    charts: tuple[SphereChart, ...] = param(..., "Centres of the charts, in degrees", minimum=1)
    r_in: int = param(
        ...,
        "Radius of a chart in pixels; the predictor's output is 2 r_in + 1 pixels wide",
        minimum=0,
    )
    r_out: int = param(
        ..., "Radius in pixels of the inner part of a chart where fields are compared", minimum=0
    )
    margin: int = param(
        0, "Pixels beyond the predictor's input that moving an input may read", minimum=0
    )
    output_interpolation: OutputInterpolation = param(
        "bilinear", "Interpolation of outputs when a matrix moves them"
    )

    def __len__(self) -> int:
        return len(self.charts)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` if a chart of radius ``r_in`` does not fit the sphere."""
        check_fields(shape)
        check_radii(self)
        width = shape[-1]
        if self.r_in > width / (2 * math.pi):
            raise InvalidInput(
                f"charts of radius {self.r_in} reach beyond the poles "
                f"of a sphere {width} pixels around",
                "atlas.action.params.r_in",
                f"at most {int(width / (2 * math.pi))}, the sphere's radius in pixels",
                "lower r_in, or use a finer lattice",
            )

    def pixels(self, shape: tuple[int, ...], radius: int) -> Tensor:
        """Map each pixel of each chart to a pixel of the lattice; see ``FieldAtlas``."""
        height, width = shape[-2:]
        t = torch.arange(-radius, radius + 1, dtype=torch.float64) * (2 * math.pi / width)
        points = unit_vectors((-t).clamp(-1, 1).asin()[:, None], t)
        return nearest_pixel(torch.einsum("cij,rsj->crsi", self._turns(), points), height, width)

    def chart_index_map(self, shape: tuple[int, ...]) -> Tensor:
        """Map each pixel of the lattice to a pixel of a chart; see ``FieldAtlas``."""
        height, width = shape[-2:]
        x, y, z = torch.einsum("cji,rsj->icrs", self._turns(), lattice(height, width))
        scale = width / (2 * math.pi)
        return nearest_chart(
            (-scale * z).round().long(), (scale * torch.atan2(y, x)).round().long(), self.r_in
        )

    def _turns(self) -> Tensor:
        """Rotations ``[C, 3, 3]`` that take latitude and longitude 0 to the charts' centres."""
        return torch.stack(
            [turn_to(math.radians(c.latitude), math.radians(c.longitude)) for c in self.charts]
        )


def lattice(height: int, width: int) -> Tensor:
    """Return the points of the lattice's pixels, ``[H, W, 3]`` float64."""
    rows, cols = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    latitude = ((height - 1) / 2 - rows) * (math.pi / height)
    return unit_vectors(latitude[:, None], cols * (2 * math.pi / width))


def unit_vectors(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Return the points at angles in radians, which broadcast: ``[...] -> [..., 3]``."""
    latitude, longitude = torch.broadcast_tensors(latitude, longitude)
    c = latitude.cos()
    return torch.stack([c * longitude.cos(), c * longitude.sin(), latitude.sin()], -1)


def turn_to(latitude: float, longitude: float) -> Tensor:
    """Return the rotation that takes latitude and longitude 0 to a point, and keeps east east.

    Args:
        latitude: In radians.
        longitude: In radians.

    Returns:
        ``[3, 3]`` float64.
    """
    a, b = latitude, longitude
    up = [[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]]
    round_ = [[math.cos(b), -math.sin(b), 0], [math.sin(b), math.cos(b), 0], [0, 0, 1]]
    return torch.tensor(round_, dtype=torch.float64) @ torch.tensor(up, dtype=torch.float64)


def coordinates(points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns of ``points [..., 3]``, not rounded.

    Rows are from −½ to H − ½, columns from −W/2 to W/2.
    """
    x, y, z = points.unbind(-1)
    rows = (height - 1) / 2 - z.clamp(-1, 1).asin() * (height / math.pi)
    return rows, torch.atan2(y, x) * (width / (2 * math.pi))


def nearest_pixel(points: Tensor, height: int, width: int) -> Tensor:
    """Return the index into ``H·W`` of the nearest pixel to each of ``points [..., 3]``."""
    rows, cols = coordinates(points, height, width)
    return rows.round().long().clamp(0, height - 1) * width + cols.round().long() % width


def so3_basis() -> Tensor:
    """Return the generators ``L_x, L_y, L_z`` of right-handed rotations: ``[3, 3, 3]`` float32.

    ``exp(t L_z)`` takes longitude λ to ``λ + t``. The z axis points to the north pole, the x axis
    to latitude and longitude 0.

    >>> x, y, z = so3_basis()
    >>> torch.equal(x @ y - y @ x, z)
    True
    """
    x = [[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
    y = [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    z = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    return torch.tensor([x, y, z])


def rotate(fields: Tensor, rotations: Tensor) -> Tensor:
    """Rotate whole fields: ``(R·x)(p) = x(R⁻¹ p)``, bilinear in row and column.

    Columns go round. Between the centres of the last row and a pole, the last row is repeated.

    Args:
        fields: ``[..., ch, H, W]``, float.
        rotations: ``[..., 3, 3]``, orthogonal, which is not checked: the transpose is taken for the
            inverse. Leading dimensions broadcast with those of ``fields``.

    Returns:
        ``[..., ch, H, W]``, of the fields' type and device. Differentiable in both arguments. The
        longitude of a source on a pole counts as constant.

    Raises:
        InvalidInput: The shapes do not fit, or a rotation is not finite.
    """
    if fields.dim() < 3 or rotations.shape[-2:] != (3, 3):
        raise InvalidInput(
            f"cannot rotate fields {list(fields.shape)} by {list(rotations.shape)}",
            "rotations",
            "fields [..., ch, H, W], rotations [..., 3, 3]",
        )
    if not bool(torch.isfinite(rotations).all()):
        raise InvalidInput("a rotation is not finite", "rotations", "orthogonal matrices")
    height, width = fields.shape[-2:]
    points = _lattice(height, width, fields.dtype, fields.device)
    x, y, z = torch.einsum("...ji,rcj->...rci", rotations.to(points), points).unbind(-1)
    # asin near ±1, and the square root and atan2 at 0, have no finite derivatives. These have.
    squared = x.square() + y.square()
    on_pole = squared < 1e-12
    latitude = torch.atan2(z, squared.clamp(min=1e-12).sqrt())
    longitude = torch.atan2(torch.where(on_pole, 0, y), torch.where(on_pole, 1, x))
    rows = (height - 1) / 2 - latitude * (height / math.pi)
    columns = (longitude * (width / (2 * math.pi))).remainder(width)
    # An added column makes the last and the first neighbours. grid_sample wants (x, y) in [-1, 1].
    grid = torch.stack([columns * (2 / width) - 1, rows * (2 / max(height - 1, 1)) - 1], -1)
    closed = torch.cat([fields, fields[..., :1]], -1)
    batch = np.broadcast_shapes(fields.shape[:-3], rotations.shape[:-2])
    moved = functional.grid_sample(
        closed.expand(*batch, *closed.shape[-3:]).reshape(-1, *closed.shape[-3:]),
        grid.expand(*batch, height, width, 2).reshape(-1, height, width, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return moved.reshape(*batch, *moved.shape[-3:])


@lru_cache(maxsize=8)
def _lattice(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """:func:`lattice`, cached, since it is the same for every batch."""
    return lattice(height, width).to(device, dtype)
