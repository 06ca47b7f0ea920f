"""CGNet for each chart, all charts in one grouped convolution (METHOD 3.4).

Wu, Tang, Zhang, Zhang 2018, arXiv 1811.08201.
"""

from __future__ import annotations

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
from ..reference import Layout, layer_names, norm_names
from .chartwise import ChartConv, ChartNorm, join_charts, pick, split_charts

REDUCTIONS = (8, 16)
"""Channels of stages 2 and 3 for each channel of the hidden layer of the global extractor."""
DILATIONS = (2, 4)
"""Dilations of the surrounding extractors of stages 2 and 3."""
STRIDE = 8
"""Pixels of the chart for each pixel of the classifier."""
SMALLEST = STRIDE * (max(DILATIONS) - 1) // 2
"""Smallest radius of a chart that has as many pixels on the coarsest lattice as are padded."""


class NormPReLU(nn.Module):
    """Batch normalisation, then ``max(x, 0) + a min(x, 0)`` with one a for each chart and channel.

    ``slope [C, width]`` holds the a.
    """

    def __init__(self, charts: int, width: int) -> None:
        super().__init__()
        self.norm = ChartNorm(charts, width)
        self.slope = nn.Parameter(torch.full((charts, width), 0.25))

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        """Apply the layer to ``x [B, C·width, s, s]`` of ``charts``."""
        return functional.prelu(self.norm(x, charts), pick(self.slope, charts).flatten())


class ConvNormPReLU(nn.Module):
    """A convolution with same padding and without bias, then ``NormPReLU``.

    ``[B, C·in, s, s] -> [B, C·out, s', s']`` with ``s' = ⌈s / stride⌉``.
    """

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
        """Apply the layers to ``x [B, C·in, s, s]`` of ``charts``."""
        return self.activation(self.conv(x, charts), charts)  # type: ignore[no-any-return]


class JointFeature(nn.Module):
    """Joined local and surrounding features: ``[B, C·width, s, s] -> [B, C·2 width, s, s]``.

    f_loc and f_sur are 3×3 convolutions of each channel by itself, f_sur with a ``dilation``.
    f_joi puts their outputs side by side within each chart, and applies ``NormPReLU``.
    """

    def __init__(self, charts: int, width: int, dilation: int, seed: torch.Generator) -> None:
        super().__init__()
        self.local, self.surrounding = (
            ChartConv(charts, width, width, seed, padding=d, dilation=d, groups=width, biased=False)
            for d in (1, dilation)
        )
        self.activation = NormPReLU(charts, 2 * width)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        """Compute ``f_joi(f_loc(x), f_sur(x))`` on ``charts``."""
        count = x.shape[1] // self.local.weight.shape[1]
        joint = side_by_side(count, self.local(x, charts), self.surrounding(x, charts))
        return self.activation(joint, charts)  # type: ignore[no-any-return]


class GlobalContext(nn.Module):
    """The global extractor f_glo: it weights the channels by their means over the chart.

    Two layers compute one weight in (0, 1) for each channel from the means of all channels.
    """

    def __init__(self, charts: int, width: int, reduction: int, seed: torch.Generator) -> None:
        super().__init__()
        hidden = max(width // reduction, 1)
        self.squeeze = ChartConv(charts, width, hidden, seed, kernel=1)
        self.excite = ChartConv(charts, hidden, width, seed, kernel=1)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        """Weight the channels of ``x [B, C·width, s, s]`` of ``charts``."""
        hidden = functional.relu(self.squeeze(x.mean((2, 3), keepdim=True), charts))
        weights: Tensor = self.excite(hidden, charts).sigmoid()
        return x * weights


class ContextGuidedBlock(nn.Module):
    """``x + f_glo(f_joi(reduce(x)))``, where a 1×1 convolution reduces x to half its channels.

    ``[B, C·width, s, s]`` to the same shape.
    """

    def __init__(
        self, charts: int, width: int, dilation: int, reduction: int, seed: torch.Generator
    ) -> None:
        super().__init__()
        self.reduce = ConvNormPReLU(charts, width, width // 2, seed, kernel=1)
        self.joint = JointFeature(charts, width // 2, dilation, seed)
        self.context = GlobalContext(charts, width, reduction, seed)

    def forward(self, x: Tensor, charts: Tensor | None) -> Tensor:
        """Apply the block to ``x [B, C·width, s, s]`` of ``charts``."""
        joint = self.joint(self.reduce(x, charts), charts)
        return x + self.context(joint, charts)  # type: ignore[no-any-return]


class DownsamplingBlock(nn.Module):
    """First block of a stage, without residual: ``[B, C·in, s, s] -> [B, C·out, ⌈s/2⌉, ⌈s/2⌉]``.

    A strided 3×3 convolution, the joint feature with twice the channels, a 1×1 convolution back to
    ``out`` channels, and the global context.
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
        """Apply the block to ``x [B, C·in, s, s]`` of ``charts``."""
        h = self.reduce(self.joint(self.down(x, charts), charts), charts)
        return self.context(h, charts)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Context guided blocks, the first of which halves the lattice."""

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
            ContextGuidedBlock(charts, widths[1], dilation, reduction, seed)
            for _ in range(blocks - 1)
        )

    def forward(self, x: Tensor, charts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the outputs of the first and the last block for ``x [B, C·in, s, s]``."""
        first = h = self.first(x, charts)
        for block in self.others:
            h = block(h, charts)
        return first, h


class CGNet(nn.Module):
    """The context guided network: ``[B, C, in, s, s] -> [B, C, out, s, s]``.

    The layers are:

    - three 3×3 convolutions to ``width`` channels, the first with stride 2;
    - stages 2 and 3, of M and N context guided blocks with 2 and 4 times ``width`` channels;
    - a 1×1 convolution to the classes, and bilinear interpolation.

    Stages 2 and 3 take the output of the stage before and the input, averaged down (input
    injection). Stage 3 and the classifier take the outputs of a stage's first and last block. With
    M = 3, N = 21, width = 32 a chart has 494,232 parameters for 4 channels and 3 classes (496,306
    for 3 channels and 19 classes, the 0.5 M of the paper).

    The interpolation puts each of the classifier's pixels at the centre of its kernels, at
    multiples of 8 from the first pixel. So nothing is stretched, whatever the size is. It is a
    product of matrices, whose gradient is the same in every run.

    With ``params.reference`` the network is that of the AtlasD code. It spreads the classifier's
    pixels evenly over the chart, half a pixel off at the edges (PyTorch's ``align_corners=False``),
    and pads by the opposite side, as ClimateNet's CGNet does for maps that go round the globe.

    The global context covers the whole chart, so all of it is computed whatever ``radius`` is.
    """

    halo = 0
    """The input is the chart alone."""

    def __init__(
        self, charts: int, width_in: int, width_out: int, params: CGNetParams, seed: torch.Generator
    ) -> None:
        super().__init__()
        self.as_reference, self.upside_down = params.reference, params.upside_down
        width, widths = params.width, (params.width, 2 * params.width, 4 * params.width)
        self.stem = nn.ModuleList(
            ConvNormPReLU(charts, a, width, seed, stride=stride)
            for a, stride in ((width_in, 2), (width, 1), (width, 1))
        )
        # Channels of the inputs of stage 2, stage 3 and the classifier.
        taken = (width + width_in, 2 * widths[1] + width_in, 2 * widths[2])
        self.activations = nn.ModuleList(NormPReLU(charts, t) for t in taken)
        self.stages = nn.ModuleList(
            Stage(charts, (taken[i], widths[i + 1]), blocks, DILATIONS[i], REDUCTIONS[i], seed)
            for i, blocks in enumerate((params.m, params.n))
        )
        self.classifier = ChartConv(charts, taken[2], width_out, seed, kernel=1, biased=False)
        for module in self.modules():
            if isinstance(module, ChartConv):
                module.circular = params.reference

    @property
    def reference_layout(self) -> Layout | None:
        """The reference layout of the weights, or None without ``params.reference``."""
        if not self.as_reference:
            return None
        names = {"classifier.weight": "classifier.0.conv.weight"}
        for i, activation in enumerate(("b1", "bn_prelu_2", "bn_prelu_3")):
            names |= _layer(f"stem.{i}", f"level1_{i}") | _activation(
                f"activations.{i}", activation
            )
        for i, stage in enumerate(self.stages):
            ours, theirs = f"stages.{i}", f"level{i + 2}"
            first = f"{ours}.first"
            names |= _layer(f"{first}.down", f"{theirs}_0.conv1x1")
            names |= _joint(first, f"{theirs}_0") | _activation(
                f"{first}.joint.activation", f"{theirs}_0"
            )
            names[f"{first}.reduce.weight"] = f"{theirs}_0.reduce.conv.weight"
            for j in range(len(cast(Stage, stage).others)):
                block, other = f"{ours}.others.{j}", f"{theirs}.{j}"
                names |= _layer(f"{block}.reduce", f"{other}.conv1x1") | _joint(block, other)
                names |= _activation(f"{block}.joint.activation", f"{other}.bn_prelu")
        return Layout("CGNet", names, "network{}.", first=1, epsilon=1e-3)

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute logits; see :class:`~.chartwise.ReferenceCnn` for the arguments."""
        count, size = x.shape[1], x.shape[-1]
        injected = h = join_charts(x.flip(-2) if self.upside_down else x)
        for layer in self.stem:
            h = layer(h, charts)
        features: tuple[Tensor, ...] = (h,)
        for i, (activation, stage) in enumerate(zip(self.activations, self.stages, strict=False)):
            injected = self._halved(injected)
            features = stage(activation(side_by_side(count, *features, injected), charts), charts)
            if self.as_reference and i == 0:
                # The reference code has stage 2's last block before its first.
                features = features[::-1]
        logits = self.classifier(
            self.activations[-1](side_by_side(count, *features), charts), charts
        )
        coarse = logits.shape[-1]
        pixels = torch.arange(size, device=x.device)
        at = (pixels + 0.5) * (coarse / size) - 0.5 if self.as_reference else pixels / STRIDE
        refine = linear_interpolation(at, coarse).to(logits.dtype)
        y = split_charts(refine @ logits @ refine.T, count)
        if self.upside_down:
            y = y.flip(-2)
        return y if radius is None else crop(y, radius)

    def _halved(self, x: Tensor) -> Tensor:
        """Mean of 3×3 pixels at every second pixel, padded as the convolutions are."""
        if self.as_reference:
            return functional.avg_pool2d(functional.pad(x, (1,) * 4, mode="circular"), 3, stride=2)
        return functional.avg_pool2d(x, 3, stride=2, padding=1)


def _activation(ours: str, theirs: str) -> dict[str, str]:
    """Names of a ``NormPReLU``'s tensors: ours to those of the reference code."""
    return {
        **dict(norm_names(f"{ours}.norm", f"{theirs}.bn")),
        f"{ours}.slope": f"{theirs}.act.weight",
    }


def _layer(ours: str, theirs: str) -> dict[str, str]:
    return {
        f"{ours}.conv.weight": f"{theirs}.conv.weight",
        **_activation(f"{ours}.activation", theirs),
    }


def _joint(ours: str, theirs: str) -> dict[str, str]:
    """Names of a block's local, surrounding and global features."""
    return {
        f"{ours}.joint.local.weight": f"{theirs}.F_loc.conv.weight",
        f"{ours}.joint.surrounding.weight": f"{theirs}.F_sur.conv.weight",
        **dict(layer_names(f"{ours}.context.squeeze", f"{theirs}.F_glo.fc.0")),
        **dict(layer_names(f"{ours}.context.excite", f"{theirs}.F_glo.fc.2")),
    }


def side_by_side(charts: int, *parts: Tensor) -> Tensor:
    """Join the channels of each chart: ``[B, C·width_i, s, s] -> [B, C·Σ width_i, s, s]``."""
    # With channels last, which is the layout in memory.
    last = [p.permute(0, 2, 3, 1).unflatten(-1, (charts, -1)) for p in parts]
    return torch.cat(last, -1).flatten(-2).permute(0, 3, 1, 2)


def linear_interpolation(at: Tensor, coarse: int) -> Tensor:
    """Matrix of linear interpolation from values at 0, 1, …, ``coarse`` − 1.

    Args:
        at: Positions ``[pixels]``. Beyond the first and the last value, that value is repeated.
        coarse: Number of values.

    Returns:
        ``[pixels, coarse]``.
    """
    at = at.clamp(0, coarse - 1)
    return (1 - (at[:, None] - torch.arange(coarse, device=at.device)).abs()).clamp(min=0)


@dataclass(frozen=True)
class CGNetParams:
    """Parameters of the architecture ``cgnet``."""

    m: int = param(3, "Number of blocks of the second stage", minimum=1, maximum=64)
    n: int = param(21, "Number of blocks of the third stage", minimum=1, maximum=64)
    width: int = param(
        32,
        "Channels of the first stage; the next stages have 2 and 4 times as many",
        minimum=1,
        maximum=512,
    )
    reference: bool = param(
        False,
        "Pad and interpolate as the AtlasD code does, to load its checkpoints",
        former="published",
    )
    upside_down: bool = param(
        False,
        "Flip maps before and after the network: its weights are for maps with the south on top",
    )


@register(
    "architecture",
    "cgnet",
    "CGNet, the context guided network, for labels of pixels that depend on the whole chart",
    CGNetParams,
    manifolds=("planar",),
)
def make_cgnet(
    params: CGNetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> CGNet:
    """Build a CGNet. Raises ``InvalidInput`` for charts too small for ``reference``."""
    refuse_tensors(tensors)
    if params.reference and signature.radius < SMALLEST:
        raise InvalidInput(
            f"charts of radius {signature.radius} are too small to pad by the opposite side",
            "predictor.architecture.params.reference",
            f"r_in of at least {SMALLEST}",
            "choose a larger r_in",
        )
    return CGNet(signature.charts, signature.inputs[0], signature.outputs, params, seed)
