"""Equirectangular lattices of any latitudes and longitudes: their fields at points of the sphere, and back."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InvalidInput
from .icosahedron import icosahedron
from .sphere import unit_vectors

WIDEST = 1.5
"""Gap between two rows or columns, in the widest of the others, from which on a lattice does not cover the sphere."""


class Lattice:
    """Rows at ``latitudes [H]``, ascending or descending, columns at ``longitudes [W]``, ascending once round; degrees, float64.

    ``coordinates`` None: the convention of ``fields.sphere``. Raises ``InvalidInput`` for coordinates that are no such lattice of the
    whole sphere.
    """

    def __init__(self, height: int, width: int, coordinates: tuple[Tensor, Tensor] | None = None) -> None:
        if coordinates is None:
            self.latitudes = ((height - 1) / 2 - torch.arange(height).double()) * (180 / height)
            self.longitudes = torch.arange(width).double() * (360 / width)
            return
        self.latitudes, self.longitudes = (c.detach().double().cpu() for c in coordinates)
        if self.latitudes.shape != (height,) or self.longitudes.shape != (width,):
            raise _no_lattice(
                f"has {list(self.latitudes.shape)} latitudes and {list(self.longitudes.shape)} longitudes",
                f"[{height}] and [{width}], as the fields",
            )
        rows, columns = self._sign() * self.latitudes, self._columns()
        steps = torch.cat([columns, columns.new_tensor([360.0])]).diff()
        if not (rows.isfinite().all() and columns.isfinite().all()):
            raise _no_lattice("has coordinates that are not finite", "degrees")
        if rows.abs().max() > 90 + 1e-6 or not (rows.diff() > 0).all() or not (steps > 0).all():
            raise _no_lattice(
                "is out of order", "latitudes that ascend or descend, longitudes that ascend once round"
            )
        poles = torch.stack([rows[0] + 90, 90 - rows[-1]])
        if height > 1 and poles.max() > WIDEST * rows.diff().max():
            raise _no_lattice("does not reach the poles", "fields on the whole sphere")
        if width > 1 and steps[-1] > WIDEST * steps[:-1].max():
            raise _no_lattice("does not go all round", "fields on the whole sphere")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lattice) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(self.latitudes.tolist()), tuple(self.longitudes.tolist())

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        return len(self.latitudes), len(self.longitudes)

    def points(self) -> Tensor:
        """Unit vectors of the lattice's pixels, ``[H, W, 3]`` float64."""
        return unit_vectors(self.latitudes.deg2rad()[:, None], self.longitudes.deg2rad())

    def bilinear(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Four pixels around each of ``points [P, 3]`` and their weights, both ``[4, P]``: int64 into ``H·W``, and float32.

        Linear in latitude and in longitude, which goes round; beyond the first and the last row's latitude these are repeated.
        """
        row, next_row, down, column, next_column, along = self._cells(points)
        width = self.shape[1]
        pixels = [r * width + c for r in (row, next_row) for c in (column, next_column)]
        weights = [v * h for v in (1 - down, down) for h in (1 - along, along)]
        return torch.stack(pixels), torch.stack(weights).float()

    def nearest(self, points: Tensor) -> Tensor:
        """The pixel nearest in latitude and in longitude to each of ``points [P, 3]``: ``[P]`` int64 into ``H·W``."""
        row, next_row, down, column, next_column, along = self._cells(points)
        return torch.where(down > 0.5, next_row, row) * self.shape[1] + torch.where(
            along > 0.5, next_column, column
        )

    def nearest_grid_pixels(self, resolution: int) -> Tensor:
        """The pixel of the icosahedral grid nearest to each pixel of the lattice: ``[H, W]`` int64. Kept, as it takes a second."""
        return _nearest_grid_pixels(resolution, self)

    def _sign(self) -> float:
        """Of the latitudes with which they ascend."""
        return 1.0 if self.latitudes[0] <= self.latitudes[-1] else -1.0

    def _columns(self) -> Tensor:
        """Longitudes from the first column on, in ``[0, 360)``."""
        return (self.longitudes - self.longitudes[0]).remainder(360)

    def _cells(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The rows before and after each point, how far it is from the one to the other, and the same of columns."""
        x, y, z = points.double().unbind(-1)
        rows, columns = self._sign() * self.latitudes, self._columns()
        latitude = (self._sign() * z.clamp(-1, 1).asin().rad2deg()).clamp(rows[0], rows[-1])
        row = (torch.searchsorted(rows, latitude, right=True) - 1).clamp(min=0)
        next_row = (row + 1).clamp(max=len(rows) - 1)
        down = (latitude - rows[row]) / (rows[next_row] - rows[row]).clamp(min=1e-12)
        longitude = (torch.atan2(y, x).rad2deg() - self.longitudes[0]).remainder(360)
        ends = torch.cat([columns, columns.new_tensor([360.0])])
        column = (torch.searchsorted(columns, longitude, right=True) - 1).clamp(min=0)
        along = (longitude - columns[column]) / (ends[column + 1] - columns[column])
        return row, next_row, down, column, (column + 1) % len(columns), along


@lru_cache(maxsize=4)
def _nearest_grid_pixels(resolution: int, lattice: Lattice) -> Tensor:
    from sklearn.neighbors import KDTree

    points = lattice.points()
    tree = KDTree(icosahedron(resolution).points.numpy())
    found = tree.query(points.flatten(0, 1).numpy(), return_distance=False)
    return torch.from_numpy(found).view(points.shape[:2])


def _no_lattice(what: str, expected: str) -> InvalidInput:
    return InvalidInput(f"the dataset's lattice {what}", "dataset.coordinates", expected)
