"""A convolutional network for fields of 1 or 3 dimensions, with weights of each chart's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..catalogue import param, register
from ..fields.resample import crop
from ..interfaces import Signature, refuse_tensors
from .chartwise import cubic_interpolation, pick, split_charts


class LatticeConv(nn.Module):
    """A convolution without padding, with its own weights for each chart.

    ``[B, C·in, s, …] -> [B, C·out, s', …]``. ``weight`` is ``[C, out, in, k, …]``, with a kernel of
    width 1 along axes of length 1; ``bias`` is ``[C, out]``. It starts with a random orthogonal map
    of channels at the kernel's centre and zero elsewhere (delta-orthogonal, Xiao et al. 2018).

    Args:
        charts: Number of charts C.
        width_in: Input channels of a chart.
        width_out: Output channels of a chart.
        kernel: Width of the kernel along each axis, in pixels.
        stride: Stride along each axis, in pixels.
        seed: Source of the initial weights.
    """

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        self.stride = stride
        weight = torch.zeros(charts, width_out, width_in, *kernel)
        widest = max(width_in, width_out)
        q, _ = torch.linalg.qr(torch.randn(charts, widest, widest, generator=seed))
        centre = weight
        for k in kernel:
            centre = centre.select(3, k // 2)
        centre[:] = math.sqrt(max(1.0, width_out / width_in)) * q[:, :width_out, :width_in]
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(charts, width_out))

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        """Apply the convolution to ``x [B, C·in, s, …]`` of ``charts`` (None: all)."""
        weight, bias = pick(self.weight, charts), pick(self.bias, charts)
        convolve = functional.conv3d if weight.dim() == 6 else functional.conv2d
        return convolve(
            x, weight.flatten(0, 1), bias.flatten(), stride=self.stride, groups=len(weight)
        )


class LatticeCnn(nn.Module):
    """The network ``strided_cnn`` (METHOD 2.1) in 1 and 3 dimensions.

    ``[B, C, in, s + 2 halo, …] -> [B, C, out, s, …]``, with s = 2 radius + 1. The layers are one
    strided convolution, ``layers`` convolutions of width 3 and cubic convolution between coarse
    pixels. Nothing is padded. ``halo`` is the number of pixels beyond the chart that it reads.
    """

    def __init__(
        self,
        charts: int,
        dimensions: int,
        width_in: int,
        width_out: int,
        radius: int,
        params: LatticeCnnParams,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        self.n, self.stride, self.slope = dimensions, params.stride, params.negative_slope
        self.layers, self.kernel = params.layers, params.stride + (params.stride + 1) % 2
        flat = dimensions == 1  # fields of one dimension have one row

        def conv(a: int, b: int, kernel: int, stride: int) -> LatticeConv:
            sizes, steps = (kernel,) * dimensions, (stride,) * dimensions
            if flat:
                sizes, steps = (1, *sizes), (1, *steps)
            return LatticeConv(charts, a, b, sizes, steps, seed)

        width = params.width
        self.first = conv(width_in, width, self.kernel, params.stride)
        self.convs = nn.ModuleList(conv(width, width, 3, 1) for _ in range(params.layers))
        self.last = conv(width, width_out, 1, 1)
        coarse, self.halo = self._lattice(radius)
        self.refine: Tensor
        refine = cubic_interpolation(coarse, params.stride, radius)
        self.register_buffer("refine", refine, persistent=False)

    def _lattice(self, radius: int) -> tuple[int, int]:
        """Coarse pixels from the centre to the output's last, and the halo in pixels."""
        coarse = math.ceil(radius / self.stride) + (self.stride > 1)
        return coarse, self.stride * (coarse + self.layers) + self.kernel // 2 - radius

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the output.

        Args:
            x: ``[B, C, in, s, …]``.
            charts: Indices of the charts that x was drawn for; None for all in order.
            radius: Radius of the part of the output, around its centre, to return; None for all.

        Returns:
            ``[B, C, out, s', …]``.
        """
        count, refine = x.shape[1], self.refine
        if radius is not None:
            coarse, halo = self._lattice(radius)
            x = crop(x, radius + halo, self.n)
            refine = cubic_interpolation(coarse, self.stride, radius).to(refine)
        h = functional.leaky_relu(self.first(x.flatten(1, 2), charts), self.slope, inplace=True)
        for conv in self.convs:
            h = functional.leaky_relu(conv(h, charts), self.slope, inplace=True)
        y = self.last(h, charts)
        for axis in range(-self.n, 0):  # from coarse to fine pixels
            y = (y.movedim(axis, -1) @ refine.T).movedim(-1, axis)
        return split_charts(y, count)


@dataclass(frozen=True)
class LatticeCnnParams:
    """Parameters of the architecture ``lattice_cnn``."""

    width: int = param(8, "Channels of the hidden layers", minimum=1, maximum=512)
    layers: int = param(
        3, "Number of convolutions of width 3 on the coarse lattice", minimum=1, maximum=64
    )
    stride: int = param(
        1, "Distance of the points of the coarse lattice, in pixels", minimum=1, maximum=32
    )
    negative_slope: float = param(
        0.7,
        "Slope of LeakyReLU for negative values; near 1 the network extrapolates well",
        minimum=0,
        maximum=1,
    )


@register(
    "architecture",
    "lattice_cnn",
    "Convolutions without padding for fields of 1 or 3 dimensions",
    LatticeCnnParams,
    manifolds=("lattice",),
)
def make_lattice_cnn(
    params: LatticeCnnParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> LatticeCnn:
    """Build a :class:`LatticeCnn`."""
    refuse_tensors(tensors)
    channels, *lattice = signature.inputs
    return LatticeCnn(
        signature.charts,
        3 if len(lattice) == 3 else 1,
        channels,
        signature.outputs,
        signature.radius,
        params,
        seed,
    )
