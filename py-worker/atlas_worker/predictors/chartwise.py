"""Small convolutional networks for each chart, all charts in one grouped convolution."""

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

from ..catalogue import param, register
from ..errors import InvalidInput
from ..fields.resample import crop
from ..interfaces import Signature, refuse_tensors
from ..ranks import batch_norm
from ..reference import Layout, layer_names, norm_names


class ChartConv(nn.Module):
    """A convolution with its own weights for each chart: ``[B, C·in, s, s] -> [B, C·out, s', s']``.

    ``weight`` is ``[C, out, in / groups, kernel, kernel]``, ``bias`` is ``[C, out]`` or None.
    Padding is by zeros; with the attribute ``circular`` set to True it is by the opposite side.

    Args:
        charts: Number of charts C.
        width_in: Input channels of a chart.
        width_out: Output channels of a chart.
        generator: Source of the initial weights, drawn as for PyTorch's own convolution.
        kernel: Width of the kernel in pixels.
        stride: Stride in pixels.
        padding: Padding on each side in pixels.
        dilation: Dilation of the kernel.
        groups: Groups within each chart.
        biased: Whether there is a bias.
        delta: Start with a random orthogonal map of channels at the kernel's centre and zero
            elsewhere (delta-orthogonal, Xiao et al. 2018). For one group only.
        own: With a number above 0 the charts share weights ``common [1, …]``, to which each adds
            ``own`` times its own ``weight``; likewise for the bias. The latter start at zero.
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
        own: float = 0.0,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.circular, self.own = False, own
        fan = width_in // groups
        shape = (charts, width_out, fan, kernel, kernel)
        if delta:
            weight, bias = torch.zeros(shape), torch.zeros(charts, width_out)
            widest = max(width_in, width_out)
            q, _ = torch.linalg.qr(torch.randn(charts, widest, widest, generator=generator))
            # A single input channel is spread at unit variance.
            gain = math.sqrt(max(1.0, width_out / width_in))
            weight[..., kernel // 2, kernel // 2] = gain * q[:, :width_out, :width_in]
        else:
            bound = 1 / math.sqrt(fan * kernel**2)
            weight = (2 * torch.rand(shape, generator=generator) - 1) * bound
            bias = torch.zeros(charts, width_out)
            if biased:
                bias = (2 * torch.rand(charts, width_out, generator=generator) - 1) * bound
        if own:
            self.common, self.common_bias = nn.Parameter(weight[:1]), nn.Parameter(bias[:1])
            weight, bias = torch.zeros_like(weight), torch.zeros_like(bias)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias) if biased else None

    def _weights(self, charts: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weights and bias of the chosen charts."""
        weight = pick(self.weight, charts)
        bias = None if self.bias is None else pick(self.bias, charts)
        if self.own and bias is not None:
            return self.common + self.own * weight, self.common_bias + self.own * bias
        return weight, bias

    def forward(
        self,
        x: Tensor,
        charts: Tensor | None,
        *,
        padded: bool = True,
        after: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Apply the convolution.

        Args:
            x: ``[B, C·in, s, s]``.
            charts: Indices of the C charts; None for all.
            padded: Whether to pad.
            after: Scale and shift of x, each ``[C, in]``, to fold into the weights. For one group.

        Returns:
            ``[B, C·out, s', s']``.
        """
        weight, bias = self._weights(charts)
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
    """A transposed 3×3 convolution with its own weights for each chart.

    ``[B, C·in, s, s] -> [B, C·out, s', s']`` with ``s' = stride (s − 1) + 3 − 2 padding + extra``.
    ``weight`` is ``[C, in, out, 3, 3]`` and ``bias`` is ``[C, out]``, initialised as PyTorch's own.
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
        self.bias = nn.Parameter(
            (2 * torch.rand(charts, width_out, generator=generator) - 1) * bound
        )

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        """Apply the transposed convolution to ``x [B, C·in, s, s]`` of ``charts``."""
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
    """Batch normalisation of each chart and channel.

    In evaluation mode it uses running statistics ``[C, width]``.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, charts: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(charts, width))
        self.bias = nn.Parameter(torch.zeros(charts, width))
        self.register_buffer("running_mean", torch.zeros(charts, width))
        self.register_buffer("running_var", torch.ones(charts, width))

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        """Normalise ``x [B, C·width, s, s]`` of ``charts``."""
        mean, var, weight, bias = (
            pick(t, charts).view(-1)
            for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return batch_norm(x, mean, var, weight, bias, training=self.training)

    def affine(self, charts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the scale and shift, each ``[C, width]``, of evaluation mode."""
        scale = pick(self.weight, charts) / (pick(self.running_var, charts) + 1e-5).sqrt()
        return scale, pick(self.bias, charts) - pick(self.running_mean, charts) * scale


class ReferenceCnn(nn.Module):
    """The network of the AtlasD code for heat flow (METHOD 3.1).

    ``[B, C, in, s, s] -> [B, C, out, s, s]``. The layers are three times [3×3 convolution,
    LeakyReLU, BatchNorm], then a 3×3 convolution, with same padding by zeros.
    """

    halo = 0
    """The input is the chart alone."""

    def __init__(
        self, charts: int, width_in: int, width_out: int, width: int, seed: torch.Generator
    ) -> None:
        super().__init__()
        widths = [width_in, width, width, width]
        self.convs = nn.ModuleList(
            ChartConv(charts, a, b, seed, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(ChartNorm(charts, width) for _ in range(3))
        self.last = ChartConv(charts, width, width_out, seed, padding=1)

    @property
    def reference_layout(self) -> Layout:
        """The reference layout of the weights."""
        names = dict(layer_names("last", "model.9"))
        for i in range(3):
            names |= {
                **dict(layer_names(f"convs.{i}", f"model.{3 * i}")),
                **dict(norm_names(f"norms.{i}", f"model.{3 * i + 2}")),
            }
        return Layout("convolutions", names, "predictors.{}.")

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the output.

        Args:
            x: ``[B, C, in, s, s]``.
            charts: Indices of the charts that x was drawn for; None for all in order, which
                training mode needs.
            radius: Radius of the part of the output, around its centre, to return; None for all.

        Returns:
            ``[B, C, out, s', s']``.
        """
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
        """Evaluate pixels that padding does not reach: unpadded, with BatchNorms folded."""
        h, after = join_charts(x), None
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = functional.leaky_relu(conv(h, charts, padded=False, after=after), inplace=True)
            after = cast(ChartNorm, norm).affine(charts)
        return split_charts(self.last(h, charts, padded=False, after=after), x.shape[1])


class EncoderDecoder(nn.Module):
    """Strided convolutions and their mirror image: ``[B, C, in, s, s] -> [B, C, out, s, s]``.

    For labels of pixels that depend on the whole chart (METHOD 3.3). The 3×3 convolutions are
    in→32→64→64 with stride 2, 64→64, then 64→64 and 64→64→32→out back up, cut to s. LeakyReLU and
    BatchNorm follow all but the last.

    With ``as_reference`` the network is that of the AtlasD code. It goes up by 64→64→64→out, does
    not pad where it is narrowest, is exactly as large as its input on the way up, and has LeakyReLU
    and BatchNorm after the last layer as well.
    """

    halo = 0
    """The input is the chart alone."""

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        width: int,
        seed: torch.Generator,
        as_reference: bool = False,
    ) -> None:
        super().__init__()
        half, pad = max(width // 2, 1), int(not as_reference)
        down = [
            (width_in, half, 2, 1),
            (half, width, 2, 1),
            (width, width, 2, 1),
            (width, width, 1, pad),
        ]
        wide = width if as_reference else half
        # Channels in and out, stride, padding, and extra pixels of the output.
        up = [
            (width, width, 1, pad, 0),
            (width, width, 2, 1, 1),
            (width, wide, 2, 1, pad),
            (wide, width_out, 2, 1, pad),
        ]
        self.down = nn.ModuleList(
            ChartConv(charts, a, b, seed, stride=stride, padding=padding)
            for a, b, stride, padding in down
        )
        self.up = nn.ModuleList(
            ChartDeconv(charts, a, b, seed, stride=stride, padding=padding, extra=extra)
            for a, b, stride, padding, extra in up
        )
        widths = [b for _, b, *_ in down] + [b for _, b, *_ in up]
        self.norms = nn.ModuleList(
            ChartNorm(charts, b) for b in (widths if as_reference else widths[:-1])
        )

    @property
    def reference_layout(self) -> Layout | None:
        """The reference layout of the weights, or None without ``as_reference``."""
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
        """Compute logits; see :class:`ReferenceCnn` for the arguments."""
        h, *layers = join_charts(x), *self.down, *self.up
        for layer, norm in zip(layers, self.norms, strict=False):
            h = norm(functional.leaky_relu(layer(h, charts), inplace=True), charts)
        if len(self.norms) < len(layers):
            h = layers[-1](h, charts)
        size = x.shape[-1]
        y = split_charts(h[..., :size, :size], x.shape[1])
        return y if radius is None else crop(y, radius)


class StridedCnn(nn.Module):
    """A network that sees far beyond the chart on a coarser lattice, for smooth tasks (METHOD 2.1).

    ``[B, C, in, s + 2 halo, s + 2 halo] -> [B, C, out, s, s]``, with s = 2 radius + 1. The layers
    are one strided convolution, ``layers`` 3×3 convolutions, and cubic convolution (Keys 1981)
    between coarse pixels. Nothing is padded, so every output pixel is computed alike and the
    borders leave no trace.

    Kernels start without off-centre weights. So what the data do not determine (e.g. the response
    to mixed second derivatives of fields that have none) stays at zero. A random value would show
    as a random stretch of the discovered generator.

    ``halo`` is the number of pixels beyond the chart that the network reads.
    """

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        radius: int,
        params: StridedCnnParams,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        stride, width = params.stride, params.width
        self.stride, self.kernel, self.slope = (
            stride,
            stride + (stride + 1) % 2,
            params.negative_slope,
        )
        own = params.own
        self.first = ChartConv(
            charts, width_in, width, seed, kernel=self.kernel, stride=stride, delta=True, own=own
        )
        self.convs = nn.ModuleList(
            ChartConv(charts, width, width, seed, delta=True, own=own) for _ in range(params.layers)
        )
        self.last = ChartConv(charts, width, width_out, seed, kernel=1, delta=True, own=own)
        coarse, self.halo = self._lattice(radius)
        self.refine: Tensor
        self.register_buffer(
            "refine", cubic_interpolation(coarse, stride, radius), persistent=False
        )

    def _lattice(self, radius: int) -> tuple[int, int]:
        """Coarse pixels from the centre to the output's last, and the halo in pixels."""
        # One coarse pixel beyond the output's edge, if there is anything between coarse pixels.
        coarse = math.ceil(radius / self.stride) + (self.stride > 1)
        return coarse, self.stride * (coarse + len(self.convs)) + self.kernel // 2 - radius

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the output; see :class:`ReferenceCnn` for the arguments."""
        count, refine = x.shape[1], self.refine
        if radius is not None:
            coarse, halo = self._lattice(radius)
            x, refine = (
                crop(x, radius + halo),
                cubic_interpolation(coarse, self.stride, radius).to(refine),
            )
        h = functional.leaky_relu(self.first(join_charts(x), charts), self.slope, inplace=True)
        for conv in self.convs:
            h = functional.leaky_relu(conv(h, charts), self.slope, inplace=True)
        # From coarse to fine rows and columns: [B, C·out, s, s].
        return split_charts(refine @ self.last(h, charts) @ refine.T, count)


@functools.cache
def cubic_interpolation(coarse: int, stride: int, radius: int) -> Tensor:
    """Matrix of cubic convolution with a = −1/2, which is exact for quadratics (Keys 1981).

    PyTorch's own bicubic has a = −3/4, which does not even reproduce a slope.

    Args:
        coarse: The values are at multiples of ``stride``, from ``-coarse`` to ``coarse``.
        stride: Distance of the values.
        radius: The results are at all whole numbers up to ``radius``. This needs one value beyond
            the last interval, ``radius <= (coarse - 1) stride``, unless ``stride`` is 1.

    Returns:
        ``[2 radius + 1, 2 coarse + 1]``.
    """
    points = torch.arange(-radius, radius + 1, dtype=torch.float64)[:, None] / stride
    d = (points - torch.arange(-coarse, coarse + 1, dtype=torch.float64)).abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0)).float()


def join_charts(x: Tensor) -> Tensor:
    """Join charts and channels: ``[B, C, width, s, s] -> [B, C·width, s, s]``, channels last."""
    return x.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def split_charts(y: Tensor, charts: int) -> Tensor:
    """Split charts and channels: ``[B, C·width, s, s] -> [B, C, width, s, s]``."""
    return cast(Tensor, y.unflatten(1, (charts, -1)))


def pick(t: Tensor, charts: Tensor | None) -> Tensor:
    """Return the entries of ``t [C, …]`` for the chosen charts; all of them for None."""
    return t if charts is None else t[charts.to(t.device)]


@dataclass(frozen=True)
class StridedCnnParams:
    """Parameters of the architecture ``strided_cnn``."""

    width: int = param(8, "Channels of the hidden layers", minimum=1, maximum=512)
    layers: int = param(
        4, "Number of 3×3 convolutions on the coarse lattice", minimum=1, maximum=64
    )
    stride: int = param(
        4, "Distance of the points of the coarse lattice, in pixels", minimum=1, maximum=32
    )
    negative_slope: float = param(
        0.7,
        "Slope of LeakyReLU for negative values; near 1 the network extrapolates well",
        minimum=0,
        maximum=1,
    )
    own: float = param(
        0.0,
        "Above 0 all charts share weights, and each adds this much of its own; 0 shares nothing",
        minimum=0,
        maximum=1,
        added=True,
    )


@register(
    "architecture",
    "strided_cnn",
    "Convolutions without padding on a coarser lattice that see far beyond the chart",
    StridedCnnParams,
    aliases=("wide",),
    manifolds=("planar",),
    recorded_as=("wide", "WideParams"),
)
def make_strided_cnn(
    params: StridedCnnParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> StridedCnn:
    """Build a :class:`StridedCnn`."""
    refuse_tensors(tensors)
    return StridedCnn(
        signature.charts, signature.inputs[0], signature.outputs, signature.radius, params, seed
    )


@dataclass(frozen=True)
class ReferenceCnnParams:
    """Parameters of the architecture ``reference_cnn``."""

    width: int = param(16, "Channels of the hidden layers", minimum=1, maximum=512)


@register(
    "architecture",
    "reference_cnn",
    "Four 3×3 convolutions, the network of the AtlasD code for heat flow",
    ReferenceCnnParams,
    aliases=("published",),
    manifolds=("planar",),
    recorded_as=("published", "PublishedParams"),
)
def make_reference_cnn(
    params: ReferenceCnnParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> ReferenceCnn:
    """Build a :class:`ReferenceCnn`."""
    refuse_tensors(tensors)
    return ReferenceCnn(
        signature.charts, signature.inputs[0], signature.outputs, params.width, seed
    )


@dataclass(frozen=True)
class EncoderDecoderParams:
    """Parameters of the architecture ``encoder_decoder``."""

    width: int = param(64, "Channels of the widest layers", minimum=1, maximum=1024)
    reference: bool = param(
        False,
        "Build the exact network of the AtlasD code, to load its checkpoints",
        former="published",
    )


@register(
    "architecture",
    "encoder_decoder",
    "Strided convolutions and their mirror image, for labels of pixels",
    EncoderDecoderParams,
    manifolds=("planar",),
)
def make_encoder_decoder(
    params: EncoderDecoderParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> EncoderDecoder:
    """Build an :class:`EncoderDecoder`. Raises ``InvalidInput`` if ``reference`` does not fit."""
    refuse_tensors(tensors)
    size = 2 * signature.radius + 1
    if params.reference and (size < 17 or size % 8 == 7):
        raise InvalidInput(
            f"the reference network returns fewer pixels than charts of {size} pixels have",
            "predictor.architecture.params.reference",
            "r_in of at least 8 and not 3 more than a multiple of 4",
            "choose another r_in",
        )
    return EncoderDecoder(
        signature.charts,
        signature.inputs[0],
        signature.outputs,
        params.width,
        seed,
        params.reference,
    )
