"""Lattices of given latitudes and longitudes: their fields at points of the sphere, and back."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InvalidInput
from .icosahedron import icosahedron
from .sphere import unit_vectors

WIDEST = 1.5
"""Largest gap, relative to the widest other gap, with which a lattice still covers the sphere."""


class Lattice:
    """A lattice on the whole sphere, with rows at latitudes and columns at longitudes.

    Latitudes ascend or descend. Longitudes ascend, and span less than one turn.

    Args:
        height: Number of rows H.
        width: Number of columns W.
        coordinates: Latitudes ``[H]`` and longitudes ``[W]`` in degrees; None for the convention of
            ``fields.sphere``.

    Raises:
        InvalidInput: The coordinates do not form such a lattice.
    """

    def __init__(
        self, height: int, width: int, coordinates: tuple[Tensor, Tensor] | None = None
    ) -> None:
        if coordinates is None:
            self.latitudes = ((height - 1) / 2 - torch.arange(height).double()) * (180 / height)
            self.longitudes = torch.arange(width).double() * (360 / width)
            return
        self.latitudes, self.longitudes = (c.detach().double().cpu() for c in coordinates)
        if self.latitudes.shape != (height,) or self.longitudes.shape != (width,):
            raise _no_lattice(
                f"has {list(self.latitudes.shape)} latitudes "
                f"and {list(self.longitudes.shape)} longitudes",
                f"[{height}] and [{width}], like the fields",
            )
        rows, columns = self._sign() * self.latitudes, self._columns()
        steps = torch.cat([columns, columns.new_tensor([360.0])]).diff()
        if not (rows.isfinite().all() and columns.isfinite().all()):
            raise _no_lattice("has coordinates that are not finite", "finite degrees")
        if rows.abs().max() > 90 + 1e-6 or not (rows.diff() > 0).all() or not (steps > 0).all():
            raise _no_lattice(
                "is out of order",
                "latitudes that ascend or descend, longitudes that ascend within one turn",
            )
        poles = torch.stack([rows[0] + 90, 90 - rows[-1]])
        if height > 1 and poles.max() > WIDEST * rows.diff().max():
            raise _no_lattice("does not reach the poles", "fields on the whole sphere")
        if width > 1 and steps[-1] > WIDEST * steps[:-1].max():
            raise _no_lattice("does not go all the way round", "fields on the whole sphere")

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
        """Return the unit vectors of the lattice's pixels, ``[H, W, 3]`` float64."""
        return unit_vectors(self.latitudes.deg2rad()[:, None], self.longitudes.deg2rad())

    def bilinear(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the four pixels around each point, and their weights.

        The interpolation is linear in latitude and in longitude. Longitudes go round. Beyond the
        first and the last row, that row is repeated.

        Args:
            points: Unit vectors ``[P, 3]``.

        Returns:
            Pixels ``[4, P]`` int64 into ``H·W``, and weights ``[4, P]`` float32.
        """
        row, next_row, down, column, next_column, along = self._cells(points)
        width = self.shape[1]
        pixels = [r * width + c for r in (row, next_row) for c in (column, next_column)]
        weights = [v * h for v in (1 - down, down) for h in (1 - along, along)]
        return torch.stack(pixels), torch.stack(weights).float()

    def nearest(self, points: Tensor) -> Tensor:
        """Return the pixel nearest in latitude and longitude to each of ``points [P, 3]``.

        Returns:
            ``[P]`` int64 into ``H·W``.
        """
        row, next_row, down, column, next_column, along = self._cells(points)
        return torch.where(down > 0.5, next_row, row) * self.shape[1] + torch.where(
            along > 0.5, next_column, column
        )

    def nearest_grid_pixels(self, resolution: int) -> Tensor:
        """Return the pixel of the icosahedral grid nearest to each pixel: ``[H, W]`` int64.

        The result is cached, since it takes a second.
        """
        return _nearest_grid_pixels(resolution, self)

    def _sign(self) -> float:
        """The factor, 1 or −1, with which the latitudes ascend."""
        return 1.0 if self.latitudes[0] <= self.latitudes[-1] else -1.0

    def _columns(self) -> Tensor:
        """Longitudes from the first column on, in ``[0, 360)``."""
        return (self.longitudes - self.longitudes[0]).remainder(360)

    def _cells(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Rows before and after each point, its fraction between them, and the same for columns."""
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
