"""Gauge-equivariant layers on the icosahedral grid: the icosahedron's 60 rotations commute with every one.

Features are ``[B, C, O, P]``: O orientations, six of the gauge group C6 ⊂ SO(2) (regular) or one (scalar), at the P pixels of
``fields.icosahedron``. After Cohen, Weiler, Kicanaoglu and Welling 2019 (arXiv 1902.04615): a chart is a plane with parallel frames, so a
convolution is an ordinary one on the charts, once each has around it the pixels of the next, turned to its own frame.

At the 12 vertices no frame is like the others: a rotation by 72° keeps them, and would have to turn six orientations. So there

- what is read is the mean over the orientations, and is not turned;
- the sixth neighbour, which is missing, is the mean of the five, each seen along the edge to it. The patch is then the same from all six
  directions, and so is what any kernel makes of it: one value for all orientations.

Both are linear, need no weights of their own, and treat a constant as everywhere else. Zeros at the vertices would be equivariant as
well, but would put 12 holes in every field.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InvalidInput
from ..fields.icosahedron import DIRECTIONS, icosahedron, pixel_count

Orientations = Literal[1, 6]
Stride = Literal[1, 2]
CENTRE, NOWHERE = 6, 7


class Charts(nn.Module):
    """What layers read: charts with a border of one pixel, and the surroundings of vertices."""

    vertices: Tensor
    border: Tensor
    spokes: Tensor

    def __init__(self, resolution: int, orientations: Orientations) -> None:
        super().__init__()
        grid = icosahedron(resolution)
        self.resolution, self.orientations, self.rows = resolution, orientations, grid.rows
        self.register_buffer("vertices", grid.vertices, persistent=False)
        self.register_buffer("border", self._sources(*grid.border()), persistent=False)
        self.register_buffer("spokes", self._sources(*grid.spokes()), persistent=False)

    def _sources(self, pixels: Tensor, turns: Tensor) -> Tensor:
        """``[O, *pixels.shape]``: index into O·P of each orientation of what is seen there."""
        k = torch.arange(self.orientations).view(-1, *[1] * pixels.dim())
        return (k + turns) % self.orientations * pixel_count(self.resolution) + pixels

    def evened(self, x: Tensor) -> Tensor:
        """``x [B, C, O, P]`` with the mean over orientations at vertices. Raises ``InvalidInput`` for another shape."""
        expected = (self.orientations, pixel_count(self.resolution))
        if x.dim() != 4 or x.shape[2:] != expected:
            raise InvalidInput(
                f"a layer of resolution {self.resolution} cannot read features {list(x.shape)}",
                "features",
                f"[B, C, {expected[0]}, {expected[1]}]",
            )
        if self.orientations == 1:
            return x
        mean = x[..., self.vertices].mean(2, keepdim=True)
        return x.index_copy(3, self.vertices, mean.expand(-1, -1, self.orientations, -1))

    def padded(self, x: Tensor) -> Tensor:
        """``[B, C, O, P] -> [B, C, O, 5, n + 2, 2n + 2]``, evened ones."""
        n = self.rows
        rim = x.flatten(2)[:, :, self.border]
        low, high, left, right = rim.split([2 * n + 2, 2 * n + 2, n, n], -1)
        inner = x[..., :-2].unflatten(-1, (5, n, 2 * n))
        middle = torch.cat([left[..., None], inner, right[..., None]], -1)
        return torch.cat([low[..., None, :], middle, high[..., None, :]], -2)

    def surroundings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of evened features, at vertices: values ``[B, C, 12]``, and the neighbours' mean in the direction of each ``[B, C, O, 12]``."""
        return x[:, :, 0, self.vertices], x.flatten(2)[:, :, self.spokes].mean(-1)


def flattened(charts: Tensor, vertices: Tensor, at_vertices: Tensor) -> Tensor:
    """``[B, C, O, 5, n, 2n]`` and ``[B, C, 12]`` at the pixels ``vertices [12]`` as features ``[B, C, O, 10 n² + 2]``."""
    values = at_vertices[:, :, None].expand(-1, -1, charts.shape[2], -1)
    # The poles are the last two vertices.
    return torch.cat([charts.flatten(3), values[..., -2:]], -1).index_copy(3, vertices, values)


class HexConv(nn.Module):
    """A convolution to six orientations (the paper's gauge equivariant convolution, on pixels): ``[B, in, O, P] -> [B, out, 6, P']``.

    ``y_k(p) = b + Σ_o [ w_{o−k, centre} x_o(p) + Σ_d w_{o−k, d−k} x_{o + turn(p, d)}(p + d) ]``, d and o over six directions and the
    input's O orientations: orientation k has the kernel turned by 60° k, and neighbours are turned to the pixel's own frame.

    ``weight [out, in, m, 7]``: six directions and the centre. ``kernels`` "each" has one for each relative orientation, m = O;
    "own" has one for the same orientation alone, m = 1, so that a layer has 7 weights whatever O is, and orientations do not mix. ``bias [out]``.
    With stride 2 the result has resolution r − 1.
    """

    relative: Tensor
    slots: Tensor
    target: Tensor

    def __init__(
        self,
        resolution: int,
        width_in: int,
        width_out: int,
        seed: torch.Generator,
        *,
        orientations: Orientations = 6,
        stride: Stride = 1,
        kernels: Literal["each", "own"] = "each",
    ) -> None:
        super().__init__()
        self.charts = Charts(resolution, orientations)
        self.stride = stride
        self.apart = kernels == "own" and orientations == 6
        weights = 1 if self.apart else orientations
        self.weight, self.bias = _parameters((width_out, width_in, weights, 7), width_out, seed)
        k = torch.arange(6)
        self.register_buffer("relative", (k - k[:, None]) % 6, persistent=False)
        self.register_buffer("slots", torch.tensor([_square(turn) for turn in range(6)]), persistent=False)
        self.register_buffer("target", _target(resolution, stride), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.charts.evened(x)
        planes = self.charts.padded(x).permute(0, 3, 2, 1, 4, 5)  # [B, 5, O, in, n + 2, 2n + 2]
        y = functional.conv2d(
            planes.flatten(2, 3).flatten(0, 1),
            self.kernel(),
            self.bias.repeat(6),
            self.stride,
            groups=6 if self.apart else 1,
        )
        charts = y.unflatten(0, (len(x), 5)).unflatten(2, (6, -1)).permute(0, 3, 2, 1, 4, 5)
        return flattened(charts, self.target, self._at_vertices(x))

    def kernel(self) -> Tensor:
        """Kernels of the planes: ``[6 out, O in, 3, 3]``, or ``[6 out, in, 3, 3]`` of one group for each orientation."""
        w = functional.pad(self.weight, (0, 1))
        if w.shape[2] == 1:
            turned = w[:, :, 0][..., self.slots].permute(2, 0, 1, 3)
        else:
            turned = w[:, :, self.relative[:, :, None], self.slots[:, None]].permute(2, 0, 3, 1, 4)
            turned = turned.flatten(2, 3)
        return turned.flatten(0, 1).view(-1, turned.shape[2], 3, 3)

    def _at_vertices(self, x: Tensor) -> Tensor:
        """``[B, out, 12]``: the same sum, for the patch that is the same from all directions."""
        centre, around = self.charts.surroundings(x)
        weight, inner = self.weight[..., :6], self.weight[..., 6].sum(2)
        # In direction d orientation o is what is seen along the edge as orientation e = o - d.
        if self.apart:
            outer = weight[:, :, 0, self.relative[:, 0]]
        elif weight.shape[2] == 1:
            outer = weight.sum(3)
        else:
            outer = torch.stack([weight[:, :, :, d].roll(-d, 2) for d in range(6)]).sum(0)
        y = torch.einsum("oie,biev->bov", outer, around) + torch.einsum("oi,biv->bov", inner, centre)
        return y + self.bias[:, None]


class ConstantConv(nn.Module):
    """A convolution by a kernel that is constant, which GL⁺(2) leaves alone: ``[B, in, 1, P] -> [B, out, 1, P']``.

    ``y(p) = b + w [x(p) + Σ_d x(p + d)]``, one weight for seven pixels: ``weight [out, in]``, ``bias [out]``. With stride 2
    the result has resolution r − 1.
    """

    target: Tensor

    def __init__(
        self,
        resolution: int,
        width_in: int,
        width_out: int,
        seed: torch.Generator,
        *,
        stride: Stride = 1,
    ) -> None:
        super().__init__()
        self.charts = Charts(resolution, 1)
        self.stride = stride
        self.weight, self.bias = _parameters((width_out, width_in), width_out, seed, pixels=7)
        self.register_buffer("target", _target(resolution, stride), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.charts.evened(x)
        planes, n = self.charts.padded(x), self.charts.rows
        total = planes[..., 1 : 1 + n : self.stride, 1 : 1 + 2 * n : self.stride]
        for i, j in DIRECTIONS:
            total = total + planes[..., 1 + i : 1 + i + n : self.stride, 1 + j : 1 + j + 2 * n : self.stride]
        centre, around = self.charts.surroundings(x)
        sums = flattened(total, self.target, centre + 6 * around[:, :, 0])
        y = functional.conv1d(sums[:, :, 0], self.weight[..., None], self.bias)
        return y[:, :, None]


class Upsample(nn.Module):
    """Linear between neighbours, to the next resolution: ``[B, C, O, 10·4ʳ + 2] -> [B, C, O, 10·4ʳ⁺¹ + 2]``."""

    target: Tensor

    def __init__(self, resolution: int, orientations: Orientations = 6) -> None:
        super().__init__()
        self.charts = Charts(resolution, orientations)
        self.register_buffer("target", icosahedron(resolution + 1).vertices, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.charts.evened(x)
        planes = self.charts.padded(x)[..., 1:, 1:]
        here = planes[..., :-1, :-1]
        right, up, across = planes[..., :-1, 1:], planes[..., 1:, :-1], planes[..., 1:, 1:]
        even = torch.stack([here, (here + right) / 2], -1).flatten(-2)
        odd = torch.stack([(here + up) / 2, (here + across) / 2], -1).flatten(-2)
        charts = torch.stack([even, odd], -2).flatten(-3, -2)
        return flattened(charts, self.target, x[:, :, 0, self.charts.vertices])


class OrientationNorm(nn.BatchNorm1d):
    """BatchNorm with the statistics of the mean over orientations, the same for all of them: ``[B, C, O, P] -> [B, C, O, P]``.

    Normalised each by its own, orientations would no longer be turns of each other.
    """

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(2)
        normed = super().forward(mean)
        if self.training:
            variance = mean.var((0, 2), correction=0)
        else:
            assert self.running_var is not None
            variance = self.running_var
        scale = self.weight / (variance + self.eps).sqrt()
        return normed[:, :, None] + scale[:, None, None] * (x - mean[:, :, None])


def _parameters(
    shape: tuple[int, ...], width_out: int, seed: torch.Generator, pixels: int = 1
) -> tuple[nn.Parameter, nn.Parameter]:
    """A weight, as large as that of PyTorch's own convolutions of ``pixels`` times as many weights, and a bias of zeros."""
    bound = 1 / math.sqrt(math.prod(shape[1:]) * pixels)
    weight = (2 * torch.rand(*shape, generator=seed) - 1) * bound
    return nn.Parameter(weight), nn.Parameter(torch.zeros(width_out))


def _square(turn: int) -> list[int]:
    """Which of a kernel's weights is where in a 3×3 square, once it is turned by ``60° turn``."""
    places = {direction: (d - turn) % 6 for d, direction in enumerate(DIRECTIONS)} | {(0, 0): CENTRE}
    return [places.get((i, j), NOWHERE) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def _target(resolution: int, stride: int) -> Tensor:
    """The result's vertices. Raises ``InvalidInput`` when there is no coarser grid."""
    return icosahedron(resolution - (stride - 1)).vertices
