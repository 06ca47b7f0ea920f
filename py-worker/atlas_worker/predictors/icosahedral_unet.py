"""U-Nets on the icosahedral grid, whose kernels are those that a given gauge group leaves alone (METHOD 3.4)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..kernels import GaugeGroup, gauge_group
from ..registry import param, register
from ..roles import Signature, refuse_tensors
from .icosahedral import ConstantConv, HexConv, OrientationNorm, Upsample
from .icosahedral_charts import Orientations, Stride


class IcosahedralUNet(nn.Module):
    """From fields on the grid to logits of classes at its pixels: ``[B, 1, in, P] -> [B, 1, out, P]``.

    ``levels`` strided convolutions, in → w → 2w → 4w …, each with a norm on the mean over orientations and ReLU. On the way back up, linear
    interpolation, what the encoder had there, and a convolution, norm and ReLU, to half the channels each time; the last one, to the
    classes, has no features of the encoder and no ReLU. The sum over orientations is the output. With in = w = 16, five levels and 3 classes:

    - ``SO(2)``: six orientations, kernels of 7 weights, each turned by 60° from one to the next (Cohen et al. 2019): 765,945 parameters;
    - ``GL+(2)``: constant kernels, one weight for seven pixels; orientations would be all the same: 111,321 parameters.

    The icosahedron's 60 rotations commute with both.
    """

    reach = 0

    def __init__(
        self,
        resolution: int,
        width_in: int,
        width_out: int,
        group: GaugeGroup,
        params: IcosahedralUNetParams,
        seed: torch.Generator,
    ) -> None:
        """Raises ``InvalidInput`` for a grid that cannot be made coarser ``levels`` times."""
        super().__init__()
        if params.levels > resolution:
            raise InvalidInput(
                f"a grid of resolution {resolution} has no {params.levels} coarser ones",
                "predictor.architecture.params.levels",
                f"at most the grid's resolution, {resolution}",
                "lower levels, or use a finer grid",
            )
        self.facts = {"gauge": group}
        orientations: Orientations = 6 if group == "SO(2)" else 1

        def block(at: int, width_in: int, width_out: int, read: Orientations, stride: Stride) -> Block:
            conv = (
                HexConv(at, width_in, width_out, seed, orientations=read, stride=stride, kernels="own")
                if group == "SO(2)"
                else ConstantConv(at, width_in, width_out, seed, stride=stride)
            )
            return Block(conv, width_out)

        widths = [params.width * 2**i for i in range(params.levels)]
        self.down = nn.ModuleList(
            block(resolution - i, a, b, 1 if i == 0 else orientations, 2)
            for i, (a, b) in enumerate(itertools.pairwise([width_in, *widths]))
        )
        # From the coarsest grid up: the encoder's widths there, the last without.
        rising = [*reversed(widths), width_out]
        coarsest = resolution - params.levels
        self.grow = nn.ModuleList(Upsample(coarsest + i, orientations) for i in range(params.levels))
        self.up = nn.ModuleList(
            block(coarsest + 1 + i, a + (b if i + 1 < params.levels else 0), b, orientations, 1)
            for i, (a, b) in enumerate(itertools.pairwise(rising))
        )

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        h = x.transpose(1, 2)  # the one chart is the one orientation of scalars
        passed = []
        for down in self.down:
            h = down(h).relu_()
            passed.append(h)
        passed.pop()
        for grow, up in zip(self.grow, self.up, strict=True):
            h = grow(h)
            if passed:
                h = up(torch.cat([h, passed.pop()], 1)).relu_()
            else:
                h = up(h)
        return h.sum(2, keepdim=True).transpose(1, 2)


class Block(nn.Module):
    """A convolution and its norm."""

    def __init__(self, conv: HexConv | ConstantConv, width: int) -> None:
        super().__init__()
        self.conv, self.norm = conv, OrientationNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(x)))


@dataclass(frozen=True)
class IcosahedralUNetParams:
    width: int = param(
        16, "Channels after the first convolution; each further one doubles them", minimum=1, maximum=512
    )
    levels: int = param(
        5, "Times that the grid is made coarser, at most its resolution", minimum=1, maximum=10
    )


@register(
    "predictor",
    "icosahedral_unet",
    "U-Net on the icosahedral grid, its gauge group that of tensors.algebra [k, 2, 2] (METHOD 3.4)",
    IcosahedralUNetParams,
)
def make_icosahedral_unet(
    params: IcosahedralUNetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> IcosahedralUNet:
    signature.require("icosahedron", "icosahedral_unet")
    refuse_tensors(tensors, "algebra")
    return IcosahedralUNet(
        signature.resolution,
        signature.inputs[0],
        signature.outputs,
        gauge_group(tensors["algebra"]),
        params,
        seed,
    )
