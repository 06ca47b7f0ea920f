"""CGNet (Wu, Tang, Zhang, Zhang 2018, arXiv 1811.08201), one a chart, all charts in one grouped convolution (METHOD 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..fields.resample import crop
from ..registry import param, register
from ..roles import Signature, refuse_tensors
from .chartwise import ChartConv, ChartNorm, join_charts, pick, split_charts

REDUCTIONS = (8, 16)
"""Channels of stages 2 and 3 for each of the hidden layer of their global extractors."""
DILATIONS = (2, 4)
"""Of the surrounding extractors of stages 2 and 3."""
STRIDE = 8
"""Pixels between those that the classifier looks at."""


class NormPReLU(nn.Module):
    """Batch normalisation, then max(x, 0) + a min(x, 0) with an ``a`` for every chart's every channel, ``slope [C, width]``."""

    def __init__(self, charts: int, width: int) -> None:
        super().__init__()
        self.norm = ChartNorm(charts, width)
        self.slope = nn.Parameter(torch.full((charts, width), 0.25))

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        return functional.prelu(self.norm(x, charts), pick(self.slope, charts).flatten())


class ConvNormPReLU(nn.Module):
    """A convolution with same padding, without bias, then ``NormPReLU``: ``[B, C·in, s, s] -> [B, C·out, ⌈s / stride⌉, …]``."""

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        seed: torch.Generator,
        kernel: int = 3,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv = ChartConv(
            charts,
            width_in,
            width_out,
            seed,
            kernel=kernel,
            stride=stride,
            padding=kernel // 2,
            biased=False,
        )
        self.activation = NormPReLU(charts, width_out)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        return self.activation(self.conv(x, charts), charts)  # type: ignore[no-any-return]


class JointFeature(nn.Module):
    """f_joi(f_loc(x), f_sur(x)): ``[B, C·width, s, s] -> [B, C·2 width, s, s]``.

    f_loc and f_sur are 3×3 convolutions of each channel for itself, f_sur with a ``dilation``; f_joi puts their outputs side by side,
    within each chart, and applies ``NormPReLU``.
    """

    def __init__(self, charts: int, width: int, dilation: int, seed: torch.Generator) -> None:
        super().__init__()
        self.local, self.surrounding = (
            ChartConv(charts, width, width, seed, padding=d, dilation=d, groups=width, biased=False)
            for d in (1, dilation)
        )
        self.activation = NormPReLU(charts, 2 * width)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        count = x.shape[1] // self.local.weight.shape[1]
        joint = side_by_side(count, self.local(x, charts), self.surrounding(x, charts))
        return self.activation(joint, charts)  # type: ignore[no-any-return]


class GlobalContext(nn.Module):
    """f_glo: every channel times a weight in (0, 1), which two layers find from the means of all channels of the same chart."""

    def __init__(self, charts: int, width: int, reduction: int, seed: torch.Generator) -> None:
        super().__init__()
        hidden = max(width // reduction, 1)
        self.squeeze = ChartConv(charts, width, hidden, seed, kernel=1)
        self.excite = ChartConv(charts, hidden, width, seed, kernel=1)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        hidden = functional.relu(self.squeeze(x.mean((2, 3), keepdim=True), charts))
        weights: Tensor = self.excite(hidden, charts).sigmoid()
        return x * weights


class ContextGuidedBlock(nn.Module):
    """x + f_glo(f_joi(…)) of x reduced to half its channels by a 1×1 convolution: ``[B, C·width, s, s] -> `` the same."""

    def __init__(self, charts: int, width: int, dilation: int, reduction: int, seed: torch.Generator) -> None:
        super().__init__()
        self.reduce = ConvNormPReLU(charts, width, width // 2, seed, kernel=1)
        self.joint = JointFeature(charts, width // 2, dilation, seed)
        self.context = GlobalContext(charts, width, reduction, seed)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        return x + self.context(self.joint(self.reduce(x, charts), charts), charts)  # type: ignore[no-any-return]


class DownsamplingBlock(nn.Module):
    """The first of a stage, without residual: ``[B, C·in, s, s] -> [B, C·out, ⌈s/2⌉, ⌈s/2⌉]``.

    A strided 3×3 convolution, the joint feature with twice the channels, a 1×1 convolution back to ``out``, and the global context.
    """

    def __init__(
        self,
        charts: int,
        width_in: int,
        width_out: int,
        dilation: int,
        reduction: int,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        self.down = ConvNormPReLU(charts, width_in, width_out, seed, stride=2)
        self.joint = JointFeature(charts, width_out, dilation, seed)
        self.reduce = ChartConv(charts, 2 * width_out, width_out, seed, kernel=1, biased=False)
        self.context = GlobalContext(charts, width_out, reduction, seed)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        h = self.reduce(self.joint(self.down(x, charts), charts), charts)
        return self.context(h, charts)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Context guided blocks, of which the first halves the lattice: ``[B, C·in, s, s]`` to the outputs of the first and the last."""

    def __init__(
        self,
        charts: int,
        widths: tuple[int, int],
        blocks: int,
        dilation: int,
        reduction: int,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        self.first = DownsamplingBlock(charts, *widths, dilation, reduction, seed)
        self.others = nn.ModuleList(
            ContextGuidedBlock(charts, widths[1], dilation, reduction, seed) for _ in range(blocks - 1)
        )

    def forward(self, x: Tensor, charts: Tensor | None) -> tuple[Tensor, Tensor]:
        first = h = self.first(x, charts)
        for block in self.others:
            h = block(h, charts)
        return first, h


class CGNet(nn.Module):
    """The context guided network: ``[B, C, in, s, s] -> [B, C, out, s, s]``. ``charts`` and ``radius`` as for ``PublishedNet``.

    Three 3×3 convolutions to ``width`` channels, the first by a stride of 2; stages of M and N context guided blocks with 2 and
    4 ``width`` channels; a 1×1 convolution to the classes, and bilinear interpolation. Stages 2 and 3 start from what came before
    and the input, averaged down (input injection); stage 3 and the classifier from a stage's first and last block. With
    M 3, N 21, width 32, for each chart 494,232 parameters from 4 channels to 3 classes (496,306 from 3 to 19, the paper's 0.5 M).

    The interpolation has each of the classifier's pixels where its kernels' centres are, at multiples of 8 from the first pixel, so
    that nothing is stretched, whatever the size; it is a product of matrices, whose gradient is the same in every run.
    A global context is of the whole chart: all is computed whatever ``radius`` is wanted.
    """

    reach = 0

    def __init__(
        self, charts: int, width_in: int, width_out: int, params: CGNetParams, seed: torch.Generator
    ) -> None:
        super().__init__()
        width, widths = params.width, (params.width, 2 * params.width, 4 * params.width)
        self.stem = nn.ModuleList(
            ConvNormPReLU(charts, a, width, seed, stride=stride)
            for a, stride in ((width_in, 2), (width, 1), (width, 1))
        )
        # Channels of what stages 2 and 3 and the classifier take.
        taken = (width + width_in, 2 * widths[1] + width_in, 2 * widths[2])
        self.activations = nn.ModuleList(NormPReLU(charts, t) for t in taken)
        self.stages = nn.ModuleList(
            Stage(charts, (taken[i], widths[i + 1]), blocks, DILATIONS[i], REDUCTIONS[i], seed)
            for i, blocks in enumerate((params.m, params.n))
        )
        self.classifier = ChartConv(charts, taken[2], width_out, seed, kernel=1, biased=False)

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        count, size = x.shape[1], x.shape[-1]
        injected = h = join_charts(x)
        for layer in self.stem:
            h = layer(h, charts)
        features = [h]
        for activation, stage in zip(self.activations, self.stages, strict=False):
            injected = functional.avg_pool2d(injected, 3, stride=2, padding=1)
            features = stage(activation(side_by_side(count, *features, injected), charts), charts)
        logits = self.classifier(self.activations[-1](side_by_side(count, *features), charts), charts)
        refine = linear_interpolation(size, logits)
        y = split_charts(refine @ logits @ refine.T, count)
        return y if radius is None else crop(y, radius)


def side_by_side(charts: int, *parts: Tensor) -> Tensor:
    """``[B, C·width_i, s, s] -> [B, C·Σ width_i, s, s]``: the channels of each chart together."""
    last = [p.permute(0, 2, 3, 1).unflatten(-1, (charts, -1)) for p in parts]  # the layout in memory
    return torch.cat(last, -1).flatten(-2).permute(0, 3, 1, 2)


def linear_interpolation(size: int, coarse: Tensor) -> Tensor:
    """From values at multiples of 8 to those at all of ``size`` pixels; beyond the last it stays: ``[size, coarse.shape[-1]]``."""
    points = torch.arange(coarse.shape[-1], device=coarse.device)
    pixels = torch.arange(size, device=coarse.device).clamp(max=STRIDE * (len(points) - 1))
    return (1 - (pixels[:, None] / STRIDE - points).abs()).clamp(min=0).to(coarse.dtype)


@dataclass(frozen=True)
class CGNetParams:
    m: int = param(3, "Blocks of stage 2, with the one that halves the lattice", minimum=1, maximum=64)
    n: int = param(21, "Blocks of stage 3, with the one that halves the lattice", minimum=1, maximum=64)
    width: int = param(
        32, "Channels of the stem; stages 2 and 3 have 2 and 4 times as many", minimum=1, maximum=512
    )


@register(
    "predictor",
    "cgnet",
    "Context guided network, for labels of pixels that depend on the whole chart (METHOD 3.4)",
    CGNetParams,
)
def make_cgnet(
    params: CGNetParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> CGNet:
    signature.require("planar", "cgnet")
    refuse_tensors(tensors)
    return CGNet(signature.charts, signature.inputs[0], signature.outputs, params, seed)
