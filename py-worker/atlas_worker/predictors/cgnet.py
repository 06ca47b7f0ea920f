"""CGNet (Wu, Tang, Zhang, Zhang 2018, arXiv 1811.08201), one a chart, all charts in one grouped convolution (METHOD 3.4)."""

from __future__ import annotations

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
from .chartwise import ChartConv, ChartNorm, join_charts, pick, split_charts

REDUCTIONS = (8, 16)
"""Channels of stages 2 and 3 for each of the hidden layer of their global extractors."""
DILATIONS = (2, 4)
"""Of the surrounding extractors of stages 2 and 3."""
STRIDE = 8
"""Pixels between those that the classifier looks at."""
SMALLEST = STRIDE * (max(DILATIONS) - 1) // 2
"""Radius from which a chart has as many pixels of the coarsest lattice as are padded."""


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
    The published code's own network, ``params.published``, spreads them evenly over the chart instead, half a pixel off at its edges (PyTorch's
    ``align_corners=False``), and pads by the opposite side, as ClimateNet's CGNet does for maps that go round the globe.
    A global context is of the whole chart: all is computed whatever ``radius`` is wanted.
    """

    reach = 0

    def __init__(
        self, charts: int, width_in: int, width_out: int, params: CGNetParams, seed: torch.Generator
    ) -> None:
        super().__init__()
        self.as_published, self.upside_down = params.published, params.upside_down
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
        for module in self.modules():
            if isinstance(module, ChartConv):
                module.circular = params.published

    @property
    def published(self) -> Layout | None:
        if not self.as_published:
            return None
        names = {"classifier.weight": "classifier.0.conv.weight"}
        for i, activation in enumerate(("b1", "bn_prelu_2", "bn_prelu_3")):
            names |= _layer(f"stem.{i}", f"level1_{i}") | _activation(f"activations.{i}", activation)
        for i, stage in enumerate(self.stages):
            ours, theirs = f"stages.{i}", f"level{i + 2}"
            first = f"{ours}.first"
            names |= _layer(f"{first}.down", f"{theirs}_0.conv1x1")
            names |= _joint(first, f"{theirs}_0") | _activation(f"{first}.joint.activation", f"{theirs}_0")
            names[f"{first}.reduce.weight"] = f"{theirs}_0.reduce.conv.weight"
            for j in range(len(cast(Stage, stage).others)):
                block, other = f"{ours}.others.{j}", f"{theirs}.{j}"
                names |= _layer(f"{block}.reduce", f"{other}.conv1x1") | _joint(block, other)
                names |= _activation(f"{block}.joint.activation", f"{other}.bn_prelu")
        return Layout("CGNet", names, "network{}.", first=1, epsilon=1e-3)

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        count, size = x.shape[1], x.shape[-1]
        injected = h = join_charts(x.flip(-2) if self.upside_down else x)
        for layer in self.stem:
            h = layer(h, charts)
        features: tuple[Tensor, ...] = (h,)
        for i, (activation, stage) in enumerate(zip(self.activations, self.stages, strict=False)):
            injected = self._halved(injected)
            features = stage(activation(side_by_side(count, *features, injected), charts), charts)
            if self.as_published and i == 0:
                features = features[::-1]  # the published code has stage 2's last block before its first
        logits = self.classifier(self.activations[-1](side_by_side(count, *features), charts), charts)
        coarse = logits.shape[-1]
        pixels = torch.arange(size, device=x.device)
        at = (pixels + 0.5) * (coarse / size) - 0.5 if self.as_published else pixels / STRIDE
        refine = linear_interpolation(at, coarse).to(logits.dtype)
        y = split_charts(refine @ logits @ refine.T, count)
        if self.upside_down:
            y = y.flip(-2)
        return y if radius is None else crop(y, radius)

    def _halved(self, x: Tensor) -> Tensor:
        """Means over 3×3 pixels at every second one, with the padding that the convolutions have."""
        if self.as_published:
            return functional.avg_pool2d(functional.pad(x, (1,) * 4, mode="circular"), 3, stride=2)
        return functional.avg_pool2d(x, 3, stride=2, padding=1)


def _activation(ours: str, theirs: str) -> dict[str, str]:
    """A ``NormPReLU`` by our names and by the published code's."""
    return {**dict(norm_names(f"{ours}.norm", f"{theirs}.bn")), f"{ours}.slope": f"{theirs}.act.weight"}


def _layer(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.conv.weight": f"{theirs}.conv.weight", **_activation(f"{ours}.activation", theirs)}


def _joint(ours: str, theirs: str) -> dict[str, str]:
    """Local, surrounding and global features of a block."""
    return {
        f"{ours}.joint.local.weight": f"{theirs}.F_loc.conv.weight",
        f"{ours}.joint.surrounding.weight": f"{theirs}.F_sur.conv.weight",
        **dict(layer_names(f"{ours}.context.squeeze", f"{theirs}.F_glo.fc.0")),
        **dict(layer_names(f"{ours}.context.excite", f"{theirs}.F_glo.fc.2")),
    }


def side_by_side(charts: int, *parts: Tensor) -> Tensor:
    """``[B, C·width_i, s, s] -> [B, C·Σ width_i, s, s]``: the channels of each chart together."""
    last = [p.permute(0, 2, 3, 1).unflatten(-1, (charts, -1)) for p in parts]  # the layout in memory
    return torch.cat(last, -1).flatten(-2).permute(0, 3, 1, 2)


def linear_interpolation(at: Tensor, coarse: int) -> Tensor:
    """From values at 0, 1, … ``coarse`` − 1 to those ``at [pixels]``; beyond the first and the last it stays: ``[pixels, coarse]``."""
    at = at.clamp(0, coarse - 1)
    return (1 - (at[:, None] - torch.arange(coarse, device=at.device)).abs()).clamp(min=0)


@dataclass(frozen=True)
class CGNetParams:
    m: int = param(3, "Blocks of stage 2, with the one that halves the lattice", minimum=1, maximum=64)
    n: int = param(21, "Blocks of stage 3, with the one that halves the lattice", minimum=1, maximum=64)
    width: int = param(
        32, "Channels of the stem; stages 2 and 3 have 2 and 4 times as many", minimum=1, maximum=512
    )
    published: bool = param(
        False, "Padding and interpolation as in the published code, whose checkpoints it takes"
    )
    upside_down: bool = param(
        False, "For weights that know charts the other way up: rows are reversed on the way in and out"
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
    if params.published and signature.radius < SMALLEST:
        raise InvalidInput(
            f"charts of radius {signature.radius} are too small to be padded by the opposite side",
            "predictor.architecture.params.published",
            f"r_in of at least {SMALLEST}",
            "choose a larger r_in",
        )
    return CGNet(signature.charts, signature.inputs[0], signature.outputs, params, seed)
