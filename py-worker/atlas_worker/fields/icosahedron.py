"""The icosahedral grid: pixels, neighbours, turns between frames, and the icosahedron's rotations.

The grid is that of Cohen, Weiler, Kicanaoglu and Welling 2019 (arXiv 1902.04615). At resolution r,
with ``n = 2ʳ``, it has ``P = 10 n² + 2`` pixels: five charts of n rows and 2n columns, then the
north pole and the south pole. A chart is a strip of four of the icosahedron's faces from pole to
pole. Unfolded, with U and L the vertices of the upper and the lower ring::

    row n    N ────── U₊ ────── L₊           N, U₊, L₊ and the last column belong to other charts,
             │  ╱     │  ╱      │            or are poles
    row 0    U ────── L ─────── S
             column 0           column 2n

The neighbours of pixel ``(i, j)`` are at the offsets :data:`DIRECTIONS`, 60° apart and
counterclockwise as seen from outside. They are the pixel's frame, so frames within a chart are
parallel. Features with orientations have one value ``x_k`` for each direction k.

The 12 vertices have only five neighbours, and a rotation by 72° about a vertex leaves it in place.
Such a rotation cannot turn six directions. So the features of a vertex must have the same value in
every orientation, and :func:`rotate` never turns them. The poles are vertices like the other ten;
without them the grid would have only the rotations about its axis.

All tables are derived from the corners of the faces. No border of a chart is written by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InvalidInput
from .sphere import unit_vectors

DIRECTIONS = ((0, 1), (1, 1), (1, 0), (0, -1), (-1, -1), (-1, 0))
"""Rows and columns from a pixel to its neighbours, counterclockwise; direction k is at 60° · k."""

FINEST = 10
"""Largest resolution."""


@dataclass(frozen=True)
class Icosahedron:
    """Tables of the grid at one resolution; indices are int64.

    The tables are shared between callers. Do not write to them.
    """

    resolution: int
    points: Tensor
    """``[P, 3]`` unit vectors, float64."""
    vertices: Tensor
    """``[12]`` pixels, first those of the charts, then the poles."""
    neighbours: Tensor
    """``[P, 6]`` pixels, counterclockwise from the frame's first direction.

    −1 for the sixth neighbour of a vertex, whose frame is arbitrary.
    """
    turns: Tensor
    """``[P, 6]`` parallel transport; 0 towards a vertex.

    Orientation k at pixel p is orientation ``k + turns[p, d]``, modulo 6, at ``neighbours[p, d]``.
    """
    corners: Tensor
    """``[P, 12]``: n times the pixel's barycentric coordinates on its face, before projection."""
    closed: Tensor
    """``[5, n + 1, 2n + 1]`` pixels of each chart, with the row and column of other charts."""

    def __len__(self) -> int:
        return len(self.points)

    @property
    def rows(self) -> int:
        """n, the number of rows of a chart. A chart has 2n columns."""
        return int(2**self.resolution)

    def border(self) -> tuple[Tensor, Tensor]:
        """Return the pixels around each chart, and their turns as seen from the chart.

        The order is: row −1 and row n, each from column −1 to 2n; then rows 0 to n − 1 of column −1
        and of column 2n. All pixels of a chart that read a border pixel agree about it, except
        vertices, which read :meth:`spokes` instead. An entry that nothing reads is an arbitrary
        pixel.

        Returns:
            Pixels and turns, each ``[5, 4 + 6n]``.
        """
        n = self.rows
        pixels = torch.zeros(5, n + 2, 2 * n + 2, dtype=torch.long)
        turns = torch.zeros_like(pixels)
        pixels[:, 1:, 1:] = self.closed
        inside = torch.arange(10 * n * n).view(5, n, 2 * n)
        six = ~torch.isin(inside, self.vertices)
        for d, (i, j) in enumerate(DIRECTIONS):
            shifted = (slice(None), slice(1 + i, 1 + i + n), slice(1 + j, 1 + j + 2 * n))
            pixels[shifted] = torch.where(six, self.neighbours[inside, d], pixels[shifted])
            turns[shifted] = torch.where(six, self.turns[inside, d], turns[shifted])
        return rim_of(pixels), rim_of(turns)

    def spokes(self) -> tuple[Tensor, Tensor]:
        """Return the neighbours of the vertices, and their turns.

        The turns are seen from a frame whose first direction points to the neighbour.

        Returns:
            Pixels and turns, each ``[12, 5]``.
        """
        directions = torch.arange(5)
        return self.neighbours[self.vertices, :5], (self.turns[self.vertices, :5] + directions) % 6


@dataclass(frozen=True)
class Rotations:
    """The icosahedron's 60 rotations on the grid; the first is the identity."""

    matrices: Tensor
    """``[60, 3, 3]`` float64."""
    images: Tensor
    """``[60, P]``: rotation g takes pixel p to ``images[g, p]``."""
    gauge: Tensor
    """``[60, P]``: rotation g takes direction k at p to ``k + gauge[g, p]``, modulo 6."""


def pixel_count(resolution: int) -> int:
    """Return the number of pixels, ``10 · 4ʳ + 2``.

    >>> pixel_count(6) == 5 * 64 * 128 + 2
    True
    """
    return int(10 * 4**resolution + 2)


def vertices() -> Tensor:
    """Return the icosahedron's vertices ``[12, 3]``, unit vectors in float64.

    The order is: north pole, upper ring at longitudes 72° j, lower ring 36° further, south pole.
    """
    longitude = torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
    ring = torch.full_like(longitude, math.atan(0.5))
    pole = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    return torch.cat(
        [pole, unit_vectors(ring, longitude), unit_vectors(-ring, longitude + math.pi / 5), -pole]
    )


@lru_cache(maxsize=FINEST + 1)
def icosahedron(resolution: int) -> Icosahedron:
    """Return the grid of a resolution.

    The points are found by halving all edges of the icosahedron r times, and moving the new points
    out to the sphere each time. The pixels of resolution r − 1 are those in even rows and columns
    of each chart, and the poles.

    Args:
        resolution: The resolution r.

    Returns:
        The grid.

    Raises:
        InvalidInput: The resolution is not from 0 to 10.

    >>> grid = icosahedron(1)
    >>> len(grid), int((grid.neighbours < 0).sum())
    (42, 12)
    """
    if not 0 <= resolution <= FINEST:
        raise InvalidInput(
            f"there is no icosahedral grid of resolution {resolution}",
            "resolution",
            f"0 to {FINEST}",
            "choose a resolution in this range; 6 has 5 charts of 64 x 128 pixels",
        )
    n = 2**resolution
    corners = _corners(n)
    # A point has the same corners in every chart that contains it. A chart owns its rows 0 to
    # n - 1 and columns 0 to 2n - 1.
    point = corners.flatten(0, 2).unique(dim=0, return_inverse=True)[1].view(corners.shape[:3])
    own = torch.cat([point[:, :n, : 2 * n].flatten(), point[0, n, :1], point[0, 0, -1:]])
    pixel = torch.empty(len(own), dtype=torch.long)
    pixel[own] = torch.arange(len(own))
    closed = pixel[point]
    neighbours = _neighbours(closed)
    ends = neighbours[:, 5] < 0
    return Icosahedron(
        resolution,
        _pixels(_points(resolution), closed),
        ends.nonzero()[:, 0],
        neighbours,
        _turns(neighbours, ends),
        _pixels(corners, closed),
        closed,
    )


@lru_cache(maxsize=4)
def rotations(resolution: int) -> Rotations:
    """Return the 60 rotations on the grid of a resolution."""
    grid = icosahedron(resolution)
    ends = vertices()
    cosines = ends @ ends.T
    # One rotation for each vertex and neighbour, to which it takes the first vertex and neighbour.
    near = ((cosines - math.sqrt(0.2)).abs() < 1e-9).nonzero()
    bases = torch.stack([_basis(ends[a], ends[b]) for a, b in near.tolist()])
    matrices = bases @ bases[0].T
    goes = torch.einsum("gij,vj,wi->gvw", matrices, ends, ends).argmax(-1)
    images = torch.stack([_matching(grid.corners, grid.corners[:, to.argsort()]) for to in goes])
    first = images[:, grid.neighbours[:, 0]]
    gauge = (grid.neighbours[images] == first[..., None]).long().argmax(-1)
    gauge[:, grid.vertices] = 0
    return Rotations(matrices, images, gauge)


def rotate(x: Tensor, resolution: int, rotation: int) -> Tensor:
    """Rotate features by one of the icosahedron's rotations.

    The result is ``(g x)_{k + s(p)}(g p) = x_k(p)``, where s is the gauge of the rotation.

    Args:
        x: Features ``[..., O, P]`` of one or six orientations O.
        resolution: Resolution of the grid.
        rotation: Number of the rotation, 0 to 59.

    Returns:
        ``[..., O, P]``.

    Raises:
        InvalidInput: The features are not on this grid.
    """
    if x.shape[-1] != pixel_count(resolution) or x.shape[-2] not in (1, 6):
        raise InvalidInput(
            f"features {list(x.shape)} are not on the icosahedral grid of resolution {resolution}",
            "features",
            f"[..., 1 or 6, {pixel_count(resolution)}]",
        )
    group = rotations(resolution)
    orientations, count = x.shape[-2:]
    k = torch.arange(orientations)[:, None]
    to = (k + group.gauge[rotation]) % orientations * count + group.images[rotation]
    return x.flatten(-2)[..., to.flatten().argsort().to(x.device)].view(x.shape)


def _faces() -> list[list[tuple[int, int, int, int]]]:
    """Vertices of both squares of each chart.

    The order is: at the first row and column, next column, next column and row, next row.
    """
    charts = []
    for c in range(5):
        u, u2, low, low2 = 1 + c, 1 + (c + 1) % 5, 6 + c, 6 + (c + 1) % 5
        charts.append([(u, low, u2, 0), (low, 11, low2, u2)])
    return charts


def _corners(n: int) -> Tensor:
    """n times the barycentric coordinates of all points: ``[5, n + 1, 2n + 1, 12]``."""
    i, j = torch.meshgrid(torch.arange(n + 1), torch.arange(n + 1), indexing="ij")
    below, above = (j - i).clamp(min=0), (i - j).clamp(min=0)
    # The diagonal from the first to the third vertex divides a square into its two faces.
    weights = torch.stack([n - torch.maximum(i, j), below, torch.minimum(i, j), above], -1)
    corners = torch.zeros(5, n + 1, 2 * n + 1, 12, dtype=torch.long)
    for c, squares in enumerate(_faces()):
        for s, square in enumerate(squares):
            part = torch.zeros(n + 1, n + 1, 12, dtype=torch.long)
            part[..., square] = weights
            corners[c, :, s * n : (s + 1) * n + 1] = part
    return corners


def _points(resolution: int) -> Tensor:
    """Points of the charts by recursive bisection: ``[5, n + 1, 2n + 1, 3]`` float64."""
    ends = vertices()
    charts = []
    for (u, low, u2, north), (_, south, low2, _) in _faces():
        charts.append(ends[torch.tensor([[u, low, south], [north, u2, low2]])])
    points = torch.stack(charts)
    for _ in range(resolution):
        rows, columns = points.shape[1:3]
        fine = points.new_empty(5, 2 * rows - 1, 2 * columns - 1, 3)
        fine[:, ::2, ::2] = points
        fine[:, ::2, 1::2] = points[:, :, :-1] + points[:, :, 1:]
        fine[:, 1::2, ::2] = points[:, :-1] + points[:, 1:]
        fine[:, 1::2, 1::2] = points[:, :-1, :-1] + points[:, 1:, 1:]
        fine /= fine.norm(dim=-1, keepdim=True)
        fine[:, ::2, ::2] = points  # unchanged to the last bit
        points = fine
    return points


def _pixels(values: Tensor, closed: Tensor) -> Tensor:
    """Values at the points of the charts in the order of pixels.

    ``[5, n + 1, 2n + 1, m] -> [P, m]``.
    """
    n = closed.shape[1] - 1
    return torch.cat([values[:, :n, : 2 * n].flatten(0, 2), values[0, n, :1], values[0, 0, -1:]])


def _neighbours(closed: Tensor) -> Tensor:
    """Neighbours ``[P, 6]``: counterclockwise, beginning at the next column."""
    a, b, c, d = closed[:, :-1, :-1], closed[:, :-1, 1:], closed[:, 1:, 1:], closed[:, 1:, :-1]
    triangles = torch.cat([torch.stack(t, -1).flatten(0, 2) for t in ((a, b, c), (a, c, d))])
    count = int(closed.max()) + 1
    # Around p, the triangle (p, q, s) has s after q.
    keys, order = torch.cat(
        [triangles[:, k] * count + triangles[:, (k + 1) % 3] for k in range(3)]
    ).sort()
    follows = torch.cat([triangles[:, (k + 2) % 3] for k in range(3)])[order]
    pixels = torch.arange(count)
    first = torch.cat([b.flatten(), closed[0, -1, 1:2], closed[0, 0, -2:-1]])
    around = [first]
    for _ in range(5):
        around.append(follows[torch.searchsorted(keys, pixels * count + around[-1])])
    neighbours = torch.stack(around, -1)
    neighbours[neighbours[:, 5] == first, 5] = -1
    return neighbours


def _turns(neighbours: Tensor, ends: Tensor) -> Tensor:
    """Turns ``[P, 6]``: the directions of an edge at its two ends are opposite."""
    pixels = torch.arange(len(neighbours))[:, None]
    back = (neighbours[neighbours] == pixels[:, :, None]).long().argmax(-1)
    turns = (back + 3 - torch.arange(6)) % 6
    return torch.where((neighbours < 0) | ends[neighbours], 0, turns)


def rim_of(padded: Tensor) -> Tensor:
    """Return the rim of ``[5, n + 2, 2n + 2]``, in the order of :meth:`Icosahedron.border`."""
    return torch.cat([padded[:, 0], padded[:, -1], padded[:, 1:-1, 0], padded[:, 1:-1, -1]], -1)


def _basis(a: Tensor, b: Tensor) -> Tensor:
    """Right-handed orthonormal basis ``[3, 3]``: first column a, second in the plane of a and b."""
    c = torch.linalg.cross(a, b)
    c = c / c.norm()
    return torch.stack([a, torch.linalg.cross(c, a), c], -1)


def _matching(rows: Tensor, wanted: Tensor) -> Tensor:
    """Index of each row of ``wanted [P, m]`` in ``rows [P, m]``, whose rows are distinct."""
    found = torch.cat([rows, wanted]).unique(dim=0, return_inverse=True)[1]
    place = torch.empty(len(rows), dtype=torch.long)
    place[found[: len(rows)]] = torch.arange(len(rows))
    return place[found[len(rows) :]]
