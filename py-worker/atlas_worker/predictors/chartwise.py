"""Small convolutional networks, one a chart, all charts in one grouped convolution."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..registry import param, register


class ChartConv(nn.Module):
    """A convolution with its own weights for each chart: ``[B, C·in, s, s] -> [B, C·out, s', s']``.

    ``weight [C, out, in, kernel, kernel]``, ``bias [C, out]``. Initialised as PyTorch's own convolution, or with ``delta`` as a
    random orthogonal map of channels at the kernel's centre and zero elsewhere (delta-orthogonal, Xiao et al. 2018).
    """

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        generator: torch.Generator,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 0,
        delta: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        shape = (charts, width_out, width_in, kernel, kernel)
        if delta:
            weight, bias = torch.zeros(shape), torch.zeros(charts, width_out)
            widest = max(width_in, width_out)
            q, _ = torch.linalg.qr(torch.randn(charts, widest, widest, generator=generator))
            gain = math.sqrt(
                max(1.0, width_out / width_in)
            )  # a lone input channel is spread at unit variance
            weight[..., kernel // 2, kernel // 2] = gain * q[:, :width_out, :width_in]
        else:
            bound = 1 / math.sqrt(width_in * kernel**2)
            weight = (2 * torch.rand(shape, generator=generator) - 1) * bound
            bias = (2 * torch.rand(charts, width_out, generator=generator) - 1) * bound
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        weight, bias = _pick(self.weight, charts), _pick(self.bias, charts)
        return functional.conv2d(
            x,
            weight.flatten(0, 1).contiguous(memory_format=torch.channels_last),
            bias.flatten(),
            stride=self.stride,
            padding=self.padding,
            groups=weight.shape[0],
        )


class ChartNorm(nn.Module):
    """Batch normalisation of every chart's every channel; in evaluation mode by running statistics ``[C, width]``."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, charts: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(charts, width))
        self.bias = nn.Parameter(torch.zeros(charts, width))
        self.register_buffer("running_mean", torch.zeros(charts, width))
        self.register_buffer("running_var", torch.ones(charts, width))

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        mean, var, weight, bias = (
            _pick(t, charts).view(-1) for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return functional.batch_norm(x, mean, var, weight, bias, training=self.training)


class PublishedNet(nn.Module):
    """Three times [3×3 convolution, LeakyReLU, BatchNorm], then a 3×3 convolution; same padding by zeros (METHOD 3.1).

    ``[B, C, in, s, s] -> [B, C, out, s, s]``. ``charts``: the chart indices that the input was drawn for, None for all in order;
    training mode needs all.
    """

    reach = 0

    def __init__(self, charts: int, width_in: int, width_out: int, width: int, seed: torch.Generator) -> None:
        super().__init__()
        widths = [width_in, width, width, width]
        self.convs = nn.ModuleList(
            ChartConv(charts, a, b, seed, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(ChartNorm(charts, width) for _ in range(3))
        self.last = ChartConv(charts, width, width_out, seed, padding=1)

    def forward(self, x: Tensor, charts: Tensor | None = None) -> Tensor:
        count = x.shape[1]
        h = _join_charts(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = norm(functional.leaky_relu(conv(h, charts)), charts)
        return _split_charts(self.last(h, charts), count)


class WideNet(nn.Module):
    """A network that sees ``reach`` pixels beyond the chart, on a lattice ``stride`` times coarser: for smooth, far-reaching tasks.

    ``[B, C, in, s + 2 reach, s + 2 reach] -> [B, C, out, s, s]``, s = 2 radius + 1. One strided convolution, ``layers`` 3×3
    convolutions, all unpadded, so that every output pixel is computed alike and the borders leave no trace; then cubic convolution
    (Keys 1981) between coarse pixels. Kernels start without off-centre weights: what the data do not determine (e.g. the
    response to mixed second derivatives of fields that have none) stays at zero instead of at a random value, which
    would show as a random stretch of the discovered generator.
    """

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        radius: int,
        params: WideParams,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        stride, width = params.stride, params.width
        kernel = stride + (stride + 1) % 2
        # Coarse pixels from the centre to one beyond the output's edge, where there is anything between them.
        coarse = math.ceil(radius / stride) + (stride > 1)
        self.slope = params.negative_slope
        self.reach = stride * (coarse + params.layers) + kernel // 2 - radius
        self.refine: Tensor
        self.register_buffer("refine", cubic_interpolation(coarse, stride, radius), persistent=False)
        self.first = ChartConv(charts, width_in, width, seed, kernel=kernel, stride=stride, delta=True)
        self.convs = nn.ModuleList(
            ChartConv(charts, width, width, seed, delta=True) for _ in range(params.layers)
        )
        self.last = ChartConv(charts, width, width_out, seed, kernel=1, delta=True)

    def forward(self, x: Tensor, charts: Tensor | None = None) -> Tensor:
        count = x.shape[1]
        h = functional.leaky_relu(self.first(_join_charts(x), charts), self.slope)
        for conv in self.convs:
            h = functional.leaky_relu(conv(h, charts), self.slope)
        # [B, C·out, s, s]: coarse rows and columns to fine ones
        return _split_charts(self.refine @ self.last(h, charts) @ self.refine.T, count)


def cubic_interpolation(coarse: int, stride: int, radius: int) -> Tensor:
    """Cubic convolution with a = −1/2, exact for quadratics (Keys 1981): ``[2 radius + 1, 2 coarse + 1]``.

    Maps values at multiples of ``stride``, from ``-coarse`` to ``coarse``, to those at all whole numbers up to ``radius``. Needs
    one point beyond the last interval, ``radius <= (coarse - 1) stride``, unless ``stride`` is 1. (PyTorch's own bicubic has
    a = −3/4, which does not even reproduce a slope.)
    """
    points = torch.arange(-radius, radius + 1, dtype=torch.float64)[:, None] / stride
    d = (points - torch.arange(-coarse, coarse + 1, dtype=torch.float64)).abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0)).float()


def _join_charts(x: Tensor) -> Tensor:
    return x.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def _split_charts(y: Tensor, charts: int) -> Tensor:
    return cast(Tensor, y.unflatten(1, (charts, -1)))


def _pick(t: Tensor, charts: Tensor | None) -> Tensor:
    return t if charts is None else t[charts.to(t.device)]


@dataclass(frozen=True)
class WideParams:
    width: int = param(8, "Channels of the hidden layers", minimum=1, maximum=512)
    layers: int = param(4, "3×3 convolutions on the coarse lattice", minimum=1, maximum=64)
    stride: int = param(4, "Pixels between the points of the coarse lattice", minimum=1, maximum=32)
    negative_slope: float = param(
        0.7, "Slope of LeakyReLU for negative arguments; near 1 it extrapolates well", minimum=0, maximum=1
    )


@register(
    "predictor",
    "wide",
    "Unpadded convolutions on a coarser lattice that see far beyond the chart",
    WideParams,
)
def make_wide(
    params: WideParams, *, charts: int, width_in: int, width_out: int, radius: int, seed: torch.Generator
) -> WideNet:
    return WideNet(charts, width_in, width_out, radius, params, seed)


@dataclass(frozen=True)
class PublishedParams:
    width: int = param(16, "Channels of the hidden layers", minimum=1, maximum=512)


@register(
    "predictor", "published", "Three 3×3 convolutions, then one to the output (METHOD 3.1)", PublishedParams
)
def make_published(
    params: PublishedParams, *, charts: int, width_in: int, width_out: int, radius: int, seed: torch.Generator
) -> PublishedNet:
    return PublishedNet(charts, width_in, width_out, params.width, seed)
