"""The sphere: fields on an equirectangular lattice, charts by projection, and rotations of whole fields.

Row i of H is at latitude ``90° − (i + ½) 180°/H``, column j of W at longitude ``360° j / W``. Points are unit vectors
``(cos φ cos λ, cos φ sin λ, sin φ)`` of latitude φ and longitude λ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput
from .atlas import check_fields, check_radii, nearest_chart
from .resample import Interpolation


@dataclass(frozen=True)
class SphereChart:
    """A chart's centre, in degrees."""

    latitude: float
    longitude: float


@dataclass(frozen=True)
class SphereAtlas:
    """A ``FieldAtlas`` on the sphere. The equator is W pixels long, so the sphere's radius is ``W / 2π`` pixels.

    A chart is the sphere turned so that its centre is at latitude and longitude 0, and projected on the cylinder around the
    equator (Lambert's, which keeps areas): pixel ``(r, c)`` from the centre is where ``sin φ = −r · 2π / W`` and ``λ = c · 2π / W``. Charts
    are un-projected by the nearest pixel, which undoes a projection by the nearest pixel exactly for charts on the equator. Beyond a
    pole, the pole is repeated.
    """

    charts: tuple[SphereChart, ...]
    r_in: int
    r_out: int
    margin: int = 0
    output_interpolation: Interpolation = "bilinear"

    def __len__(self) -> int:
        return len(self.charts)

    def check(self, shape: tuple[int, ...]) -> None:
        check_fields(shape, "sphere")
        check_radii(self, "sphere")
        width = shape[-1]
        if self.r_in > width / (2 * math.pi):
            raise InvalidInput(
                f"charts of radius {self.r_in} reach beyond the poles of a sphere {width} pixels around",
                "atlas.sphere.r_in",
                f"at most {int(width / (2 * math.pi))}, which is the sphere's radius",
                "lower r_in, or use a finer lattice",
            )

    def check_centres(self) -> None:
        """Raise ``InvalidInput`` for a centre that is no point of the sphere."""
        for i, c in enumerate(self.charts):
            if not (math.isfinite(c.longitude) and abs(c.latitude) <= 90):
                raise InvalidInput(
                    f"chart {i} is at latitude {c.latitude}, longitude {c.longitude}",
                    f"atlas.sphere.charts[{i}]",
                    "a latitude from -90 to 90 and a finite longitude, in degrees",
                )

    def pixels(self, shape: tuple[int, ...], radius: int) -> Tensor:
        height, width = shape[-2:]
        t = torch.arange(-radius, radius + 1, dtype=torch.float64) * (2 * math.pi / width)
        points = unit_vectors((-t).clamp(-1, 1).asin()[:, None], t)
        return nearest_pixel(torch.einsum("cij,rsj->crsi", self._turns(), points), height, width)

    def places(self, shape: tuple[int, ...]) -> Tensor:
        height, width = shape[-2:]
        x, y, z = torch.einsum("cji,rsj->icrs", self._turns(), lattice(height, width))
        scale = width / (2 * math.pi)
        return nearest_chart(
            (-scale * z).round().long(), (scale * torch.atan2(y, x)).round().long(), self.r_in
        )

    def _turns(self) -> Tensor:
        """The rotations ``[C, 3, 3]`` that take latitude and longitude 0 to the charts' centres."""
        return torch.stack(
            [turn_to(math.radians(c.latitude), math.radians(c.longitude)) for c in self.charts]
        )


def lattice(height: int, width: int) -> Tensor:
    """The points of the lattice's pixels, ``[H, W, 3]`` float64."""
    rows, cols = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    latitude = ((height - 1) / 2 - rows) * (math.pi / height)
    return unit_vectors(latitude[:, None], cols * (2 * math.pi / width))


def unit_vectors(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Points at angles in radians, which broadcast: ``[...] -> [..., 3]``."""
    latitude, longitude = torch.broadcast_tensors(latitude, longitude)
    c = latitude.cos()
    return torch.stack([c * longitude.cos(), c * longitude.sin(), latitude.sin()], -1)


def turn_to(latitude: float, longitude: float) -> Tensor:
    """The rotation ``[3, 3]`` that takes latitude and longitude 0 to the point at these angles in radians, east staying east."""
    a, b = latitude, longitude
    up = [[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]]
    round_ = [[math.cos(b), -math.sin(b), 0], [math.sin(b), math.cos(b), 0], [0, 0, 1]]
    return torch.tensor(round_, dtype=torch.float64) @ torch.tensor(up, dtype=torch.float64)


def coordinates(points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows and columns, not rounded, of ``points [..., 3]``: rows from −½ to H − ½, columns from −W/2 to W/2."""
    x, y, z = points.unbind(-1)
    rows = (height - 1) / 2 - z.clamp(-1, 1).asin() * (height / math.pi)
    return rows, torch.atan2(y, x) * (width / (2 * math.pi))


def nearest_pixel(points: Tensor, height: int, width: int) -> Tensor:
    """Index into ``H·W`` of the pixel nearest in row and column to ``points [..., 3]``."""
    rows, cols = coordinates(points, height, width)
    return rows.round().long().clamp(0, height - 1) * width + cols.round().long() % width


def so3_basis() -> Tensor:
    """The generators ``L_x, L_y, L_z`` of rotations of points about the three axes, right-handed: ``[3, 3, 3]`` float32.

    ``exp(t L_z)`` takes longitude λ to ``λ + t``; z is the north pole, x is at latitude and longitude 0.

    >>> x, y, z = so3_basis()
    >>> torch.equal(x @ y - y @ x, z)
    True
    """
    x = [[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
    y = [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    z = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    return torch.tensor([x, y, z])


def rotate(fields: Tensor, rotations: Tensor) -> Tensor:
    """``(R·x)(p) = x(R⁻¹ p)`` on the whole sphere, bilinear in row and column.

    ``fields``: ``[..., ch, H, W]``, float; ``rotations``: ``[..., 3, 3]``, orthogonal (that is not checked: the inverse is taken to be the
    transpose); their leading dims broadcast. Returns ``[..., ch, H, W]`` of the fields' type and device. Columns go round; between the
    last row's centres and a pole the last row is repeated. Differentiable in both arguments, but for the sources that lie on
    a pole: their longitude has no derivative, and counts as constant.

    Raises ``InvalidInput`` when the shapes do not fit or a rotation is not finite.
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
    # Neither asin near ±1 nor the square root and atan2 at 0 have finite derivatives; these have.
    squared = x.square() + y.square()
    on_pole = squared < 1e-12
    latitude = torch.atan2(z, squared.clamp(min=1e-12).sqrt())
    longitude = torch.atan2(torch.where(on_pole, 0, y), torch.where(on_pole, 1, x))
    rows = (height - 1) / 2 - latitude * (height / math.pi)
    columns = (longitude * (width / (2 * math.pi))).remainder(width)
    # One more column than there are, so that the last and the first are neighbours; grid_sample wants (x, y) in [-1, 1].
    grid = torch.stack([columns * (2 / width) - 1, rows * (2 / max(height - 1, 1)) - 1], -1)
    closed = torch.cat([fields, fields[..., :1]], -1)
    batch = torch.broadcast_shapes(fields.shape[:-3], rotations.shape[:-2])
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
    """:func:`lattice`, kept: it is the same for every batch."""
    return lattice(height, width).to(device, dtype)
