"""Small convolutional networks, one a chart, all charts in one grouped convolution."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InvalidInput
from ..fields.resample import crop
from ..published import Layout, layer_names, norm_names
from ..registry import param, register
from ..roles import Signature, refuse_tensors


class ChartConv(nn.Module):
    """A convolution with its own weights for each chart: ``[B, C·in, s, s] -> [B, C·out, s', s']``.

    ``weight [C, out, in / groups, kernel, kernel]``, ``bias [C, out]`` or none. ``groups``: within each chart, as PyTorch's.
    Padding is by zeros, or with ``circular`` set to True by the opposite side.
    Initialised as PyTorch's own convolution, or with ``delta`` as a random orthogonal map of channels at the kernel's centre and
    zero elsewhere (delta-orthogonal, Xiao et al. 2018; for one group).
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
        dilation: int = 1,
        groups: int = 1,
        biased: bool = True,
        delta: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.circular = False
        fan = width_in // groups
        shape = (charts, width_out, fan, kernel, kernel)
        if delta:
            weight, bias = torch.zeros(shape), torch.zeros(charts, width_out)
            widest = max(width_in, width_out)
            q, _ = torch.linalg.qr(torch.randn(charts, widest, widest, generator=generator))
            gain = math.sqrt(
                max(1.0, width_out / width_in)
            )  # a lone input channel is spread at unit variance
            weight[..., kernel // 2, kernel // 2] = gain * q[:, :width_out, :width_in]
        else:
            bound = 1 / math.sqrt(fan * kernel**2)
            weight = (2 * torch.rand(shape, generator=generator) - 1) * bound
            bias = torch.zeros(charts, width_out)
            if biased:
                bias = (2 * torch.rand(charts, width_out, generator=generator) - 1) * bound
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias) if biased else None

    def forward(
        self,
        x: Tensor,
        charts: Tensor | None,
        *,
        padded: bool = True,
        after: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """``padded`` False: without padding. ``after``: scale and shift ``[C, in]`` of x, to be folded into the weights (of one group)."""
        weight = pick(self.weight, charts)
        bias = None if self.bias is None else pick(self.bias, charts)
        if after is not None:
            scale, shift = after
            added = torch.einsum("coikl,ci->co", weight, shift)
            bias = added if bias is None else bias + added
            weight = weight * scale[:, None, :, None, None]
        padding = self.padding if padded else 0
        if self.circular:
            x, padding = functional.pad(x, (padding,) * 4, mode="circular"), 0
        return functional.conv2d(
            x,
            weight.flatten(0, 1).contiguous(memory_format=torch.channels_last),
            None if bias is None else bias.flatten(),
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=weight.shape[0] * self.groups,
        )


class ChartDeconv(nn.Module):
    """A transposed 3×3 convolution with its own weights for each chart: ``[B, C·in, s, s] -> [B, C·out, s', s']``.

    ``s' = stride (s − 1) + 3 − 2 padding + extra``. ``weight [C, in, out, 3, 3]``, ``bias [C, out]``, initialised as PyTorch's own.
    """

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        generator: torch.Generator,
        *,
        stride: int,
        padding: int,
        extra: int,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.extra = stride, padding, extra
        bound = 1 / math.sqrt(width_out * 9)
        shape = (charts, width_in, width_out, 3, 3)
        self.weight = nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)
        self.bias = nn.Parameter((2 * torch.rand(charts, width_out, generator=generator) - 1) * bound)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        weight, bias = pick(self.weight, charts), pick(self.bias, charts)
        return functional.conv_transpose2d(
            x,
            weight.flatten(0, 1).contiguous(memory_format=torch.channels_last),
            bias.flatten(),
            stride=self.stride,
            padding=self.padding,
            output_padding=self.extra,
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
            pick(t, charts).view(-1) for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return functional.batch_norm(x, mean, var, weight, bias, training=self.training)

    def affine(self, charts: Tensor | None) -> tuple[Tensor, Tensor]:
        """What it does in evaluation mode: ``scale x + shift``, both ``[C, width]``."""
        scale = pick(self.weight, charts) / (pick(self.running_var, charts) + 1e-5).sqrt()
        return scale, pick(self.bias, charts) - pick(self.running_mean, charts) * scale


class PublishedNet(nn.Module):
    """Three times [3×3 convolution, LeakyReLU, BatchNorm], then a 3×3 convolution; same padding by zeros (METHOD 3.1).

    ``[B, C, in, s, s] -> [B, C, out, s, s]``. ``charts``: the chart indices that the input was drawn for, None for all in order;
    training mode needs all. ``radius``: only that much of the output around its centre is wanted.
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

    @property
    def published(self) -> Layout:
        names = dict(layer_names("last", "model.9"))
        for i in range(3):
            names |= {
                **dict(layer_names(f"convs.{i}", f"model.{3 * i}")),
                **dict(norm_names(f"norms.{i}", f"model.{3 * i + 2}")),
            }
        return Layout("convolutions", names, "predictors.{}.")

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        if radius is not None and not self.training:
            field = radius + len(self.convs) + 1
            if field <= x.shape[-1] // 2:
                return self._inner(crop(x, field), charts)
            return crop(self(x, charts), radius)
        count = x.shape[1]
        h = join_charts(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = norm(functional.leaky_relu(conv(h, charts), inplace=True), charts)
        return split_charts(self.last(h, charts), count)

    def _inner(self, x: Tensor, charts: Tensor | None) -> Tensor:
        """Evaluation mode where the padding is not felt: without it, and with each BatchNorm folded into the next layer."""
        h, after = join_charts(x), None
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = functional.leaky_relu(conv(h, charts, padded=False, after=after), inplace=True)
            after = cast(ChartNorm, norm).affine(charts)
        return split_charts(self.last(h, charts, padded=False, after=after), x.shape[1])


class EncoderDecoder(nn.Module):
    """Strided 3×3 convolutions and their mirror image, for labels of pixels that depend on the whole chart (METHOD 3.3).

    ``[B, C, in, s, s] -> [B, C, out, s, s]``: in→32→64→64 by strides of 2, 64→64, then 64→64, and 64→64→32→out back up, cut to s;
    LeakyReLU and BatchNorm after all but the last. ``charts`` and ``radius`` as for ``PublishedNet``.

    The published code's own network, ``as_published``, goes up by 64→64→64→out, does not pad where it is narrowest, is exactly as large as
    its input on the way up, and has LeakyReLU and BatchNorm after the last layer as well.
    """

    reach = 0

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        width: int,
        seed: torch.Generator,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        half, pad = max(width // 2, 1), int(not as_published)
        down = [(width_in, half, 2, 1), (half, width, 2, 1), (width, width, 2, 1), (width, width, 1, pad)]
        wide = width if as_published else half
        # Channels, stride, padding, and what the output is larger by.
        up = [
            (width, width, 1, pad, 0),
            (width, width, 2, 1, 1),
            (width, wide, 2, 1, pad),
            (wide, width_out, 2, 1, pad),
        ]
        self.down = nn.ModuleList(
            ChartConv(charts, a, b, seed, stride=stride, padding=padding) for a, b, stride, padding in down
        )
        self.up = nn.ModuleList(
            ChartDeconv(charts, a, b, seed, stride=stride, padding=padding, extra=extra)
            for a, b, stride, padding, extra in up
        )
        widths = [b for _, b, *_ in down] + [b for _, b, *_ in up]
        self.norms = nn.ModuleList(ChartNorm(charts, b) for b in (widths if as_published else widths[:-1]))

    @property
    def published(self) -> Layout | None:
        if len(self.norms) < len(self.down) + len(self.up):
            return None
        names = dict[str, str]()
        for i in range(4):
            names |= dict(layer_names(f"down.{i}", f"down.{3 * i}"))
            names |= dict(layer_names(f"up.{i}", f"up.{3 * i}"))
            names |= dict(norm_names(f"norms.{i}", f"down.{3 * i + 2}"))
            names |= dict(norm_names(f"norms.{4 + i}", f"up.{3 * i + 2}"))
        return Layout("encoder-decoder", names, "c{}.", first=1)

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        h, *layers = join_charts(x), *self.down, *self.up
        for layer, norm in zip(layers, self.norms, strict=False):
            h = norm(functional.leaky_relu(layer(h, charts), inplace=True), charts)
        if len(self.norms) < len(layers):
            h = layers[-1](h, charts)
        size = x.shape[-1]
        y = split_charts(h[..., :size, :size], x.shape[1])
        return y if radius is None else crop(y, radius)


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
        self.stride, self.kernel, self.slope = stride, stride + (stride + 1) % 2, params.negative_slope
        self.first = ChartConv(charts, width_in, width, seed, kernel=self.kernel, stride=stride, delta=True)
        self.convs = nn.ModuleList(
            ChartConv(charts, width, width, seed, delta=True) for _ in range(params.layers)
        )
        self.last = ChartConv(charts, width, width_out, seed, kernel=1, delta=True)
        coarse, self.reach = self._lattice(radius)
        self.refine: Tensor
        self.register_buffer("refine", cubic_interpolation(coarse, stride, radius), persistent=False)

    def _lattice(self, radius: int) -> tuple[int, int]:
        """Coarse pixels from the centre to the last that an output of ``radius`` needs, and pixels it reads beyond itself."""
        # One more than to the output's edge, where there is anything between coarse pixels.
        coarse = math.ceil(radius / self.stride) + (self.stride > 1)
        return coarse, self.stride * (coarse + len(self.convs)) + self.kernel // 2 - radius

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        count, refine = x.shape[1], self.refine
        if radius is not None:
            coarse, reach = self._lattice(radius)
            x, refine = crop(x, radius + reach), cubic_interpolation(coarse, self.stride, radius).to(refine)
        h = functional.leaky_relu(self.first(join_charts(x), charts), self.slope, inplace=True)
        for conv in self.convs:
            h = functional.leaky_relu(conv(h, charts), self.slope, inplace=True)
        # [B, C·out, s, s]: coarse rows and columns to fine ones
        return split_charts(refine @ self.last(h, charts) @ refine.T, count)


@functools.cache
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


def join_charts(x: Tensor) -> Tensor:
    """``[B, C, width, s, s] -> [B, C·width, s, s]``, the layout that the layers here take."""
    return x.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def split_charts(y: Tensor, charts: int) -> Tensor:
    """``[B, C·width, s, s] -> [B, C, width, s, s]``."""
    return cast(Tensor, y.unflatten(1, (charts, -1)))


def pick(t: Tensor, charts: Tensor | None) -> Tensor:
    """The entries ``t [C, …]`` of the chosen charts, of all for None."""
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
    params: WideParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> WideNet:
    signature.require("planar", "wide")
    refuse_tensors(tensors)
    return WideNet(signature.charts, signature.inputs[0], signature.outputs, signature.radius, params, seed)


@dataclass(frozen=True)
class PublishedParams:
    width: int = param(16, "Channels of the hidden layers", minimum=1, maximum=512)


@register(
    "predictor", "published", "Three 3×3 convolutions, then one to the output (METHOD 3.1)", PublishedParams
)
def make_published(
    params: PublishedParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> PublishedNet:
    signature.require("planar", "published")
    refuse_tensors(tensors)
    return PublishedNet(signature.charts, signature.inputs[0], signature.outputs, params.width, seed)


@dataclass(frozen=True)
class EncoderDecoderParams:
    width: int = param(64, "Channels of the widest layers", minimum=1, maximum=1024)
    published: bool = param(False, "Exactly as in the published code, whose checkpoints it takes")


@register(
    "predictor",
    "encoder_decoder",
    "Strided convolutions and their mirror image, for labels of pixels (METHOD 3.3)",
    EncoderDecoderParams,
)
def make_encoder_decoder(
    params: EncoderDecoderParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> EncoderDecoder:
    signature.require("planar", "encoder_decoder")
    refuse_tensors(tensors)
    size = 2 * signature.radius + 1
    if params.published and (size < 17 or size % 8 == 7):
        raise InvalidInput(
            f"charts of {size} pixels: the published network gives fewer back",
            "predictor.architecture.params.published",
            "r_in of at least 8 and not 3 more than a multiple of 4",
            "choose another r_in",
        )
    return EncoderDecoder(
        signature.charts, signature.inputs[0], signature.outputs, params.width, seed, params.published
    )
