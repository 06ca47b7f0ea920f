"""The icosahedral grid: pixels, their six neighbours, the turns between their frames, and the icosahedron's 60 rotations.

Cohen, Weiler, Kicanaoglu and Welling 2019 (arXiv 1902.04615). Of resolution r, with ``n = 2ʳ``, it has ``P = 10 n² + 2`` pixels: five
charts of n rows and 2n columns, then the north and the south pole. A chart is a strip of four of the icosahedron's faces from
pole to pole; unfolded, with U and L the vertices of the upper and the lower ring::

    row n    N ────── U₊ ────── L₊           N, U₊, L₊ and the last column are the next charts' pixels, or poles
             │  ╱     │  ╱      │
    row 0    U ────── L ─────── S
             column 0           column 2n

The neighbours of pixel ``(i, j)`` are at :data:`DIRECTIONS` from it, 60° apart and counterclockwise seen from outside. They are the pixel's
frame, so that frames within a chart are parallel. Features with orientations have one value ``x_k`` for each direction k.

The 12 vertices have five neighbours, and a rotation by 72° about one leaves it where it is. There is no way for it to turn six directions, so
what is at a vertex must have the same value in every orientation, and :func:`rotate` never turns it. Poles are vertices like the other ten:
without them the grid would have no rotations but those about its axis.

Everything is derived from the faces' corners; no chart's border is written by hand.
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
"""Rows and columns from a pixel to its neighbours, counterclockwise; direction k is at 60° k from the first."""

FINEST = 10


@dataclass(frozen=True)
class Icosahedron:
    """Tables of the grid of one resolution; indices are int64. They are shared: do not write to them.

    ``points [P, 3]``: unit vectors, float64. ``vertices [12]``: pixels, those of the charts before the poles.
    ``neighbours [P, 6]``: pixels, counterclockwise from the frame's first direction; −1 for the sixth of a vertex, whose frame is arbitrary.
    ``turns [P, 6]``: orientation k at pixel p is orientation ``k + turns[p, d]``, modulo 6, at its neighbour ``neighbours[p, d]``: parallel
    transport. 0 to a vertex.
    ``corners [P, 12]``: n times the pixel's barycentric coordinates on its face, before it is projected on the sphere.
    ``closed [5, n + 1, 2n + 1]``: pixels of the charts with the row and the column that are others'.
    """

    resolution: int
    points: Tensor
    vertices: Tensor
    neighbours: Tensor
    turns: Tensor
    corners: Tensor
    closed: Tensor

    def __len__(self) -> int:
        return len(self.points)

    @property
    def rows(self) -> int:
        """n; a chart has 2n columns."""
        return int(2**self.resolution)

    def border(self) -> tuple[Tensor, Tensor]:
        """The pixels around each chart, and their turns as seen from it: two ``[5, 4 + 6n]``.

        First row −1 and row n, from column −1 to 2n; then rows 0 to n − 1 of column −1 and of column 2n. The pixels
        of a chart that read a place agree about it, but for vertices, which read :meth:`spokes`. What nothing reads is any pixel.
        """
        n = self.rows
        pixels = torch.zeros(5, n + 2, 2 * n + 2, dtype=torch.long)
        turns = torch.zeros_like(pixels)
        pixels[:, 1:, 1:] = self.closed
        inside = torch.arange(10 * n * n).view(5, n, 2 * n)
        six = ~torch.isin(inside, self.vertices)
        for d, (i, j) in enumerate(DIRECTIONS):
            there = (slice(None), slice(1 + i, 1 + i + n), slice(1 + j, 1 + j + 2 * n))
            pixels[there] = torch.where(six, self.neighbours[inside, d], pixels[there])
            turns[there] = torch.where(six, self.turns[inside, d], turns[there])
        return rim_of(pixels), rim_of(turns)

    def spokes(self) -> tuple[Tensor, Tensor]:
        """The neighbours of the vertices, and their turns as seen from a frame whose first direction is the one to them: two ``[12, 5]``."""
        directions = torch.arange(5)
        return self.neighbours[self.vertices, :5], (self.turns[self.vertices, :5] + directions) % 6


@dataclass(frozen=True)
class Rotations:
    """The icosahedron's 60 rotations, on the grid; the first is the identity.

    ``matrices [60, 3, 3]``: float64. ``images [60, P]``: rotation g takes pixel p to ``images[g, p]``, and its direction k to direction
    ``k + gauge[g, p]``, modulo 6.
    """

    matrices: Tensor
    images: Tensor
    gauge: Tensor


def pixel_count(resolution: int) -> int:
    """``10 · 4ʳ + 2``.

    >>> pixel_count(6) == 5 * 64 * 128 + 2
    True
    """
    return int(10 * 4**resolution + 2)


def vertices() -> Tensor:
    """The icosahedron's vertices ``[12, 3]``, unit, float64: north pole, upper ring at longitudes 72° j, lower ring 36° further, south pole."""
    longitude = torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
    ring = torch.full_like(longitude, math.atan(0.5))
    pole = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    return torch.cat(
        [pole, unit_vectors(ring, longitude), unit_vectors(-ring, longitude + math.pi / 5), -pole]
    )


@lru_cache(maxsize=FINEST + 1)
def icosahedron(resolution: int) -> Icosahedron:
    """The grid of a resolution: halving all edges of the icosahedron r times, each time out to the sphere, gives the points.

    The pixels of resolution r − 1 are the ones in even rows and columns of each chart, and the poles.

    Raises ``InvalidInput`` for a resolution that is not from 0 to 10.

    >>> grid = icosahedron(1)
    >>> len(grid), int((grid.neighbours < 0).sum())
    (42, 12)
    """
    if not 0 <= resolution <= FINEST:
        raise InvalidInput(
            f"there is no icosahedral grid of resolution {resolution}",
            "resolution",
            f"0 to {FINEST}",
            "6 has 5 charts of 64 x 128 pixels",
        )
    n = 2**resolution
    corners = _corners(n)
    # A place has the same corners in whatever chart it is. Charts own their rows 0 to n - 1, columns 0 to 2n - 1.
    places = corners.flatten(0, 2).unique(dim=0, return_inverse=True)[1].view(corners.shape[:3])
    own = torch.cat([places[:, :n, : 2 * n].flatten(), places[0, n, :1], places[0, 0, -1:]])
    pixel = torch.empty(len(own), dtype=torch.long)
    pixel[own] = torch.arange(len(own))
    closed = pixel[places]
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
    """The 60 rotations on the grid of a resolution."""
    grid = icosahedron(resolution)
    ends = vertices()
    cosines = ends @ ends.T
    # One for each vertex and neighbour of it, where the first vertex and its first neighbour go.
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
    """``(g x)_{k + s(p)}(g p) = x_k(p)``, s the gauge: features ``[..., O, P]`` of one or six orientations, rotated by the g-th of the 60."""
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
    """Both squares of the five charts as vertices: at the first row and column, next column, next column and row, next row."""
    charts = []
    for c in range(5):
        u, u2, low, low2 = 1 + c, 1 + (c + 1) % 5, 6 + c, 6 + (c + 1) % 5
        charts.append([(u, low, u2, 0), (low, 11, low2, u2)])
    return charts


def _corners(n: int) -> Tensor:
    """``[5, n + 1, 2n + 1, 12]``: of every place of the charts, n times the barycentric coordinates on its face."""
    i, j = torch.meshgrid(torch.arange(n + 1), torch.arange(n + 1), indexing="ij")
    below, above = (j - i).clamp(min=0), (i - j).clamp(min=0)
    # The diagonal from the first to the third vertex parts a square into its two faces.
    weights = torch.stack([n - torch.maximum(i, j), below, torch.minimum(i, j), above], -1)
    corners = torch.zeros(5, n + 1, 2 * n + 1, 12, dtype=torch.long)
    for c, squares in enumerate(_faces()):
        for s, square in enumerate(squares):
            part = torch.zeros(n + 1, n + 1, 12, dtype=torch.long)
            part[..., square] = weights
            corners[c, :, s * n : (s + 1) * n + 1] = part
    return corners


def _points(resolution: int) -> Tensor:
    """``[5, n + 1, 2n + 1, 3]`` by recursive bisection, float64."""
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
        fine[:, ::2, ::2] = points  # to the last bit
        points = fine
    return points


def _pixels(values: Tensor, closed: Tensor) -> Tensor:
    """Values at the charts' places, in the order of pixels: ``[5, n + 1, 2n + 1, m] -> [P, m]``."""
    n = closed.shape[1] - 1
    return torch.cat([values[:, :n, : 2 * n].flatten(0, 2), values[0, n, :1], values[0, 0, -1:]])


def _neighbours(closed: Tensor) -> Tensor:
    """``[P, 6]``: from the next column on, counterclockwise around the pixel from triangle to triangle."""
    a, b, c, d = closed[:, :-1, :-1], closed[:, :-1, 1:], closed[:, 1:, 1:], closed[:, 1:, :-1]
    triangles = torch.cat([torch.stack(t, -1).flatten(0, 2) for t in ((a, b, c), (a, c, d))])
    count = int(closed.max()) + 1
    # Around p, what follows q in the triangle (p, q, s) is s.
    keys, order = torch.cat([triangles[:, k] * count + triangles[:, (k + 1) % 3] for k in range(3)]).sort()
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
    """``[P, 6]``: an edge's direction at one end is opposite to its direction at the other."""
    pixels = torch.arange(len(neighbours))[:, None]
    back = (neighbours[neighbours] == pixels[:, :, None]).long().argmax(-1)
    turns = (back + 3 - torch.arange(6)) % 6
    return torch.where((neighbours < 0) | ends[neighbours], 0, turns)


def rim_of(padded: Tensor) -> Tensor:
    """Rim of ``[5, n + 2, 2n + 2]``, in the order of :meth:`Icosahedron.border`."""
    return torch.cat([padded[:, 0], padded[:, -1], padded[:, 1:-1, 0], padded[:, 1:-1, -1]], -1)


def _basis(a: Tensor, b: Tensor) -> Tensor:
    """``[3, 3]``: right-handed, orthonormal, its first column a and its second in the plane of a and b."""
    c = torch.linalg.cross(a, b)
    c = c / c.norm()
    return torch.stack([a, torch.linalg.cross(c, a), c], -1)


def _matching(rows: Tensor, wanted: Tensor) -> Tensor:
    """For each of ``wanted [P, m]`` the index of the same row of ``rows [P, m]``, which are distinct."""
    found = torch.cat([rows, wanted]).unique(dim=0, return_inverse=True)[1]
    place = torch.empty(len(rows), dtype=torch.long)
    place[found[: len(rows)]] = torch.arange(len(rows))
    return place[found[len(rows) :]]
