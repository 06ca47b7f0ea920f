"""Gauge-equivariant layers on the icosahedral grid; they commute with the icosahedron's rotations.

Features are ``[B, C, O, P]``: O orientations at the P pixels of ``fields.icosahedron``. There are
six orientations, of the gauge group C6 ⊂ SO(2) (regular), or one (scalar). The layers follow Cohen,
Weiler, Kicanaoglu and Welling 2019 (arXiv 1902.04615): a chart is a plane with parallel frames. So
a convolution is an ordinary one on the charts, once each chart is surrounded by the next charts'
pixels, turned to its own frame.

The frames at the 12 vertices are unlike all others: a rotation by 72° keeps a vertex in place and
would have to turn six orientations. So at vertices:

- A layer reads the mean over the orientations, which is not turned.
- The sixth neighbour, which is missing, is the mean of the five, each seen along the edge to it.
  The patch is then the same from all six directions, and so is what any kernel makes of it: one
  value for all orientations.

Both rules are linear, need no weights, and treat a constant as elsewhere. Zeros at the vertices
would be equivariant as well, but would put 12 holes in every field.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..fields.icosahedron import DIRECTIONS, icosahedron
from ..ranks import batch_var_mean
from .icosahedral_charts import Charts, Halfway, HexSum, Orientations, Stride, Written

CENTRE = 6
"""Index of the weight of a kernel's centre."""
NOWHERE = 7
"""Index of the zero weight of the corners of a 3×3 square that are no neighbours."""


class HexConv(nn.Module):
    """A convolution to six orientations: ``[B, in, O, P] -> [B, out, 6, P']``.

    The gauge-equivariant convolution of Cohen et al., on pixels:
    ``y_k(p) = b + Σ_o [ w_{o−k, centre} x_o(p) + Σ_d w_{o−k, d−k} x_{o + turn(p, d)}(p + d) ]``,
    with d over six directions and o over the input's O orientations. So orientation k has the
    kernel turned by 60° k, and neighbours are turned to the pixel's own frame.

    ``weight`` is ``[out, in, m, 7]``, of six directions and the centre; ``bias`` is ``[out]``.

    Args:
        resolution: Resolution r of the input's grid.
        width_in: Input channels.
        width_out: Output channels.
        seed: Source of the initial weights.
        orientations: Orientations O of the input.
        stride: 1, or 2 for a result of resolution r − 1.
        kernels: "each" has a kernel for each relative orientation, m = O. "own" has one for the
            same orientation alone, m = 1: a layer has 7 weights whatever O is, and orientations do
            not mix.
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
        self.register_buffer(
            "slots", torch.tensor([_square(turn) for turn in range(6)]), persistent=False
        )
        self.register_buffer("target", _target(resolution, stride), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution to ``x [B, in, O, P]``."""
        planes, centre, around = self.charts(x)
        y = functional.conv2d(
            planes.flatten(0, 1).flatten(-2).permute(0, 3, 1, 2),  # orientations before channels
            self.kernel().contiguous(memory_format=torch.channels_last),
            self.bias.repeat(6),
            self.stride,
            groups=6 if self.apart else 1,
        )
        charts = y.permute(0, 2, 3, 1).reshape(len(x), -1, 6, len(self.bias))
        return written(charts, self._at_vertices(centre, around), self.target)

    def kernel(self) -> Tensor:
        """Return the kernels of the planes.

        Returns:
            ``[6 out, O in, 3, 3]``, or ``[6 out, in, 3, 3]`` with one group for each orientation.
        """
        w = functional.pad(self.weight, (0, 1))
        if w.shape[2] == 1:
            turned = w[:, :, 0][..., self.slots].permute(2, 0, 1, 3)
        else:
            turned = w[:, :, self.relative[:, :, None], self.slots[:, None]].permute(2, 0, 3, 1, 4)
            turned = turned.flatten(2, 3)
        return turned.flatten(0, 1).view(-1, turned.shape[2], 3, 3)

    def _at_vertices(self, centre: Tensor, around: Tensor) -> Tensor:
        """The same sum ``[B, 12, out]`` at vertices, whose patch looks the same from all sides."""
        weight, inner = self.weight[..., :6], self.weight[..., 6].sum(2)
        # In direction d, orientation o is the one seen along the edge as orientation e = o - d.
        if self.apart:
            outer = weight[:, :, 0, self.relative[:, 0]]
        elif weight.shape[2] == 1:
            outer = weight.sum(3)
        else:
            outer = torch.stack([weight[:, :, :, d].roll(-d, 2) for d in range(6)]).sum(0)
        return torch.einsum("oie,bvei->bvo", outer, around) + functional.linear(
            centre, inner, self.bias
        )


class ConstantConv(nn.Module):
    """A convolution with a constant kernel, which is invariant under GL⁺(2).

    ``[B, in, 1, P] -> [B, out, 1, P']``.
    ``y(p) = b + w [x(p) + Σ_d x(p + d)]``, with one weight for seven pixels: ``weight [out, in]``,
    ``bias [out]``.

    Args:
        resolution: Resolution r of the input's grid.
        width_in: Input channels.
        width_out: Output channels.
        seed: Source of the initial weights.
        stride: 1, or 2 for a result of resolution r − 1.
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
        """Apply the convolution to ``x [B, in, 1, P]``."""
        # The sum and the weights commute. The narrower features are summed.
        narrowing = self.stride == 1 and self.weight.shape[0] < self.weight.shape[1]
        if narrowing:
            x = functional.linear(x.permute(0, 3, 2, 1), self.weight).permute(0, 3, 2, 1)
        planes, centre, around = self.charts(x)
        total: Tensor = HexSum.apply(planes, self.stride)  # type: ignore[no-untyped-call]
        y = written(total.flatten(1, 3), centre + 6 * around[:, :, 0], self.target).permute(
            0, 3, 2, 1
        )
        y = y + self.bias if narrowing else functional.linear(y, self.weight, self.bias)
        return y.permute(0, 3, 2, 1)


class Upsample(nn.Module):
    """Linear interpolation to the next resolution.

    ``[B, C, O, 10·4ʳ + 2] -> [B, C, O, 10·4ʳ⁺¹ + 2]``.
    """

    target: Tensor

    def __init__(self, resolution: int, orientations: Orientations = 6) -> None:
        super().__init__()
        self.charts = Charts(resolution, orientations)
        self.register_buffer("target", icosahedron(resolution + 1).vertices, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Interpolate ``x [B, C, O, P]``."""
        planes, centre, _ = self.charts(x)
        fine: Tensor = Halfway.apply(planes)  # type: ignore[no-untyped-call]
        return written(fine.flatten(1, 3), centre, self.target)


class OrientationNorm(nn.BatchNorm1d):
    """BatchNorm of features ``[B, C, O, P]``, with the statistics of the mean over orientations.

    All orientations share the statistics. With statistics of their own they would no longer be
    turns of each other.
    """

    over_ranks = True
    """The statistics are those of all ranks (see :mod:`atlas_worker.ranks`)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x [B, C, O, P]``."""
        if self.training:
            over = x.mean(2, dtype=torch.promote_types(x.dtype, torch.float32))
            variance, mean, count = batch_var_mean(over, (0, 2))
            self._remember(mean.detach(), variance.detach(), count)
        else:
            assert self.running_mean is not None
            assert self.running_var is not None
            mean, variance = self.running_mean, self.running_var
        scale = self.weight / (variance + self.eps).sqrt()
        shift = self.bias - mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update running statistics as PyTorch does, with unbiased variances."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)


def written(charts: Tensor, at_vertices: Tensor, vertices: Tensor) -> Tensor:
    """Join values of the charts and of the vertices into features.

    Args:
        charts: ``[B, 10 n², O, C]``.
        at_vertices: ``[B, 12, C]``.
        vertices: Pixels ``[12]`` of the grid's vertices.

    Returns:
        ``[B, C, O, 10 n² + 2]``.
    """
    features: Tensor = Written.apply(charts, at_vertices, vertices)  # type: ignore[no-untyped-call]
    return features


def _parameters(
    shape: tuple[int, ...], width_out: int, seed: torch.Generator, pixels: int = 1
) -> tuple[nn.Parameter, nn.Parameter]:
    """A weight and a bias of zeros.

    The weight is as large as that of PyTorch's own convolution with ``pixels`` times as many.
    """
    bound = 1 / math.sqrt(math.prod(shape[1:]) * pixels)
    weight = (2 * torch.rand(*shape, generator=seed) - 1) * bound
    return nn.Parameter(weight), nn.Parameter(torch.zeros(width_out))


def _square(turn: int) -> list[int]:
    """Index of the kernel's weight at each place of a 3×3 square, turned by ``60° turn``."""
    places = {direction: (d - turn) % 6 for d, direction in enumerate(DIRECTIONS)} | {
        (0, 0): CENTRE
    }
    return [places.get((i, j), NOWHERE) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def _target(resolution: int, stride: int) -> Tensor:
    """The result's vertices. Raises ``InvalidInput`` if there is no coarser grid."""
    return icosahedron(resolution - (stride - 1)).vertices
