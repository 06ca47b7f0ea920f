"""Reads and writes features on the icosahedral grid, with derivatives written by hand.

PyTorch's derivatives of slices and of indices would each fill a whole tensor.

Features ``[B, C, O, P]`` are in memory as ``[B, P, O, C]``: the values of a pixel are together, and
the planes of a convolution have its channels-last layout. *Planes* are charts with a border of one
pixel, ``[B, 5, n + 2, 2n + 2, O, C]``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import InvalidInput
from ..fields.icosahedron import DIRECTIONS, icosahedron, pixel_count, rim_of

Orientations = Literal[1, 6]
"""Number of orientations of features."""
Stride = Literal[1, 2]
"""Stride of a layer."""


class Charts(nn.Module):
    """Reads features of one resolution: planes, and the surroundings of vertices.

    Args:
        resolution: Resolution r of the grid.
        orientations: Orientations O of the features.
    """

    vertices: Tensor
    """``[12]`` pixels."""
    border: Tensor
    """``[5, 4 + 6n, O]``: indices into the features from which ``rim`` is read."""
    rim: Tensor
    """``[5, 4 + 6n, O]``: indices into the planes' rim."""
    spokes: Tensor
    """``[12, 5, O]``: indices into the features of the vertices' neighbours."""
    vertex_places: Tensor
    """Places of the planes that are vertices."""
    vertex_at: Tensor
    """Number of the vertex at each of ``vertex_places``."""

    def __init__(self, resolution: int, orientations: Orientations) -> None:
        super().__init__()
        grid = icosahedron(resolution)
        self.resolution, self.orientations, self.rows = resolution, orientations, grid.rows
        n = self.rows
        places = torch.arange(5 * (n + 2) * (2 * n + 2)).view(5, n + 2, 2 * n + 2)
        rim = rim_of(places)
        pixels, turns = grid.border()
        ends = torch.isin(pixels, grid.vertices)
        # A vertex is read as the mean over its orientations, at every place that it has.
        inner = places[:, 1:-1, 1:-1].flatten()[grid.vertices[:-2]]
        self.register_buffer("vertices", grid.vertices, persistent=False)
        self.register_buffer("border", self._sources(pixels, turns), persistent=False)
        self.register_buffer("spokes", self._sources(*grid.spokes()), persistent=False)
        self.register_buffer("rim", self._sources(rim, torch.zeros_like(rim)), persistent=False)
        self.register_buffer("vertex_places", torch.cat([inner, rim[ends]]), persistent=False)
        at = torch.cat([grid.vertices[:-2], pixels[ends]])
        self.register_buffer(
            "vertex_at", (at[:, None] == grid.vertices).long().argmax(1), persistent=False
        )

    def _sources(self, pixels: Tensor, turns: Tensor) -> Tensor:
        """Index of each orientation as seen there, ``[*pixels.shape, O]``.

        Pixels (or places) and orientations count as one axis.
        """
        k = torch.arange(self.orientations)
        return pixels[..., None] * self.orientations + (k + turns[..., None]) % self.orientations

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read features.

        Args:
            x: ``[B, C, O, P]``.

        Returns:
            Planes; the vertices' values ``[B, 12, C]``; and the mean of each vertex's neighbours
            in the direction of each, ``[B, 12, O, C]``.

        Raises:
            InvalidInput: The features have another shape.
        """
        expected = (self.orientations, pixel_count(self.resolution))
        if x.dim() != 4 or x.shape[2:] != expected:
            raise InvalidInput(
                f"a layer of resolution {self.resolution} cannot read features {list(x.shape)}",
                "features",
                f"[B, C, {expected[0]}, {expected[1]}]",
            )
        rows = x.permute(0, 3, 2, 1).contiguous()
        if self.resolution == 0:  # all neighbours of vertices are vertices
            rows = rows.mean(2, keepdim=True).expand_as(rows).contiguous()
        planes, ends, around = _Read.apply(rows, self)  # type: ignore[no-untyped-call]
        return planes, ends, around


class _Read(torch.autograd.Function):
    """Computes :meth:`Charts.forward` from ``rows [B, P, O, C]``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, charts: Charts) -> tuple[Tensor, Tensor, Tensor]:
        ctx.charts, ctx.shape = charts, rows.shape
        batch, _, orientations, width = rows.shape
        n, flat = charts.rows, rows.flatten(1, 2)
        planes = rows.new_empty(batch, 5, n + 2, 2 * n + 2, orientations, width)
        planes[:, :, 1:-1, 1:-1] = rows[:, :-2].unflatten(1, (5, n, 2 * n))
        places = planes.view(batch, -1, width)
        places[:, charts.rim.flatten()] = flat[:, charts.border.flatten()]
        ends = rows[:, charts.vertices].mean(2)
        if orientations > 1:
            planes.view(batch, -1, orientations, width)[:, charts.vertex_places] = ends[
                :, charts.vertex_at, None
            ]
        return planes, ends, flat[:, charts.spokes].mean(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, planes: Tensor, ends: Tensor, around: Tensor) -> tuple[Tensor, None]:
        charts: Charts = ctx.charts
        batch, _, orientations, width = ctx.shape
        rows = planes.new_zeros(ctx.shape)
        rows[:, :-2] = planes[:, :, 1:-1, 1:-1].flatten(1, 3)
        flat = rows.view(batch, -1, width)
        _add(
            flat, charts.border.flatten(), planes.reshape(batch, -1, width)[:, charts.rim.flatten()]
        )
        at_vertices = rows[:, charts.vertices].sum(2) + ends
        rows[:, charts.vertices] = (at_vertices / orientations)[:, :, None]
        each = (around / charts.spokes.shape[1])[:, :, None].expand(
            -1, -1, charts.spokes.shape[1], -1, -1
        )
        _add(flat, charts.spokes.flatten(), each.flatten(1, 3))
        return rows, None


class Written(torch.autograd.Function):
    """Joins values of the charts and of the vertices into features ``[B, C, O, P]``.

    The charts are ``[B, 10 n², O, C]``. The vertices are ``[B, 12, C]``, with one value for all
    orientations.
    """

    @staticmethod
    def forward(ctx: Any, charts: Tensor, at_vertices: Tensor, vertices: Tensor) -> Tensor:
        """Join the values."""
        ctx.vertices = vertices
        batch, pixels, orientations, width = charts.shape
        rows = charts.new_empty(batch, pixels + 2, orientations, width)
        rows[:, :-2] = charts
        rows[:, vertices] = at_vertices.to(charts.dtype)[:, :, None].expand(
            -1, -1, orientations, -1
        )
        return rows.permute(0, 3, 2, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor, None]:
        """Split the gradient."""
        rows = features.permute(0, 3, 2, 1)
        charts = rows[:, :-2].clone(memory_format=torch.contiguous_format)
        # The poles, the last two vertices, are on no chart.
        charts[:, ctx.vertices[:-2]] = 0
        return charts, rows[:, ctx.vertices].sum(2), None


class HexSum(torch.autograd.Function):
    """Sums each pixel and its six neighbours on planes, at every ``stride``-th pixel.

    ``[B, 5, n + 2, 2n + 2, 1, C] -> [B, 5, n', 2n', 1, C]``.
    """

    @staticmethod
    def forward(ctx: Any, planes: Tensor, stride: Stride) -> Tensor:
        """Compute the sums."""
        ctx.shape, ctx.stride = planes.shape, stride
        total = _shifted(planes, 0, 0, stride).clone(memory_format=torch.contiguous_format)
        for i, j in DIRECTIONS:
            total += _shifted(planes, i, j, stride)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, total: Tensor) -> tuple[Tensor, None]:
        """Distribute the gradient."""
        planes = total.new_zeros(ctx.shape)
        for i, j in ((0, 0), *DIRECTIONS):
            _shifted(planes, i, j, ctx.stride).add_(total)
        return planes, None


class Halfway(torch.autograd.Function):
    """Doubles the resolution of planes, with means halfway between neighbours.

    ``[B, 5, n + 2, 2n + 2, O, C] -> [B, 5, 2n, 4n, O, C]``.
    """

    ENDS = ((0, 1), (1, 0), (1, 1))
    """Rows and columns to the neighbours; the fine pixels halfway to them have the same offsets."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        """Compute the values."""
        ctx.shape = planes.shape
        batch, five, rows, columns, *rest = planes.shape
        fine = planes.new_empty(batch, five, 2 * (rows - 2), 2 * (columns - 2), *rest)
        here = _shifted(planes, 0, 0)
        fine[:, :, ::2, ::2] = here
        for i, j in Halfway.ENDS:
            fine[:, :, i::2, j::2] = (here + _shifted(planes, i, j)).div_(2)
        return fine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, fine: Tensor) -> Tensor:
        """Distribute the gradient."""
        planes = fine.new_zeros(ctx.shape)
        here = _shifted(planes, 0, 0)
        here.add_(fine[:, :, ::2, ::2])
        for i, j in Halfway.ENDS:
            part = fine[:, :, i::2, j::2] / 2
            here.add_(part)
            _shifted(planes, i, j).add_(part)
        return planes


def _shifted(planes: Tensor, i: int, j: int, stride: Stride = 1) -> Tensor:
    """The values i rows and j columns from each of the charts' own pixels."""
    rows, columns = planes.shape[2] - 2, planes.shape[3] - 2
    return planes[:, :, 1 + i : 1 + i + rows : stride, 1 + j : 1 + j + columns : stride]


def _add(rows: Tensor, index: Tensor, values: Tensor) -> None:
    """Compute ``rows[:, index] += values`` for repeated indices, in the same order in every run."""
    rows.transpose(0, 1).index_put_((index,), values.transpose(0, 1), accumulate=True)
