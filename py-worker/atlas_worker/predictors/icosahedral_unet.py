"""U-Nets on the icosahedral grid whose kernels a gauge group leaves unchanged (METHOD 5.3)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..catalogue import param, register
from ..errors import InvalidInput
from ..interfaces import Signature, refuse_tensors
from ..symmetry.kernels import GaugeGroup, gauge_group
from .icosahedral import ConstantConv, HexConv, OrientationNorm, Upsample
from .icosahedral_charts import Orientations, Stride


class IcosahedralUNet(nn.Module):
    """Maps fields on the grid to logits of its pixels: ``[B, 1, in, P] -> [B, 1, out, P]``.

    The encoder has ``levels`` strided convolutions, in → w → 2w → 4w …, each with a norm on the
    mean over orientations and ReLU. Each level of the decoder has linear interpolation, the
    encoder's features of the same grid, and a convolution to half the channels, norm and ReLU. The
    last level, to the classes, has no features of the encoder and no ReLU. The output is the sum
    over orientations. With in = w = 16, five levels and 3 classes:

    - ``SO(2)``: six orientations, and kernels of 7 weights that turn by 60° from one orientation to
      the next (Cohen et al. 2019); 765,945 parameters.
    - ``GL+(2)``: constant kernels, with one weight for seven pixels, and one orientation, since six
      would be equal; 111,321 parameters.

    Both commute with the icosahedron's 60 rotations.

    Raises:
        InvalidInput: The grid cannot be made coarser ``levels`` times.
    """

    halo = 0
    """The input is the whole grid."""

    def __init__(
        self,
        resolution: int,
        width_in: int,
        width_out: int,
        group: GaugeGroup,
        params: IcosahedralUNetParams,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        if params.levels > resolution:
            raise InvalidInput(
                f"a grid of resolution {resolution} cannot be made coarser {params.levels} times",
                "predictor.architecture.params.levels",
                f"at most the grid's resolution, {resolution}",
                "lower levels, or use a finer grid",
            )
        self.facts = {"gauge": group}
        orientations: Orientations = 6 if group == "SO(2)" else 1

        def block(
            at: int, width_in: int, width_out: int, read: Orientations, stride: Stride
        ) -> Block:
            conv = (
                HexConv(
                    at, width_in, width_out, seed, orientations=read, stride=stride, kernels="own"
                )
                if group == "SO(2)"
                else ConstantConv(at, width_in, width_out, seed, stride=stride)
            )
            return Block(conv, width_out)

        widths = [params.width * 2**i for i in range(params.levels)]
        self.down = nn.ModuleList(
            block(resolution - i, a, b, 1 if i == 0 else orientations, 2)
            for i, (a, b) in enumerate(itertools.pairwise([width_in, *widths]))
        )
        # From the coarsest grid up: the encoder's widths on each grid, then the classes.
        rising = [*reversed(widths), width_out]
        coarsest = resolution - params.levels
        self.grow = nn.ModuleList(
            Upsample(coarsest + i, orientations) for i in range(params.levels)
        )
        self.up = nn.ModuleList(
            block(coarsest + 1 + i, a + (b if i + 1 < params.levels else 0), b, orientations, 1)
            for i, (a, b) in enumerate(itertools.pairwise(rising))
        )

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute logits ``[B, 1, out, P]`` of ``x [B, 1, in, P]``."""
        h = x.transpose(1, 2)  # the axis of the one chart becomes that of the one orientation
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
    """A convolution and its norm, on features ``[B, C, O, P]``."""

    def __init__(self, conv: HexConv | ConstantConv, width: int) -> None:
        super().__init__()
        self.conv, self.norm = conv, OrientationNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution and the norm."""
        return cast(Tensor, self.norm(self.conv(x)))


@dataclass(frozen=True)
class IcosahedralUNetParams:
    """Parameters of the architecture ``icosahedral_unet`` (METHOD 5.3)."""

    width: int = param(
        16,
        "Channels after the first convolution; each further convolution doubles them",
        minimum=1,
        maximum=512,
    )
    levels: int = param(
        5,
        "How often the grid is made coarser; at most its resolution",
        minimum=1,
        maximum=10,
    )


@register(
    "architecture",
    "icosahedral_unet",
    "U-Net on the icosahedral grid; the tensor `algebra` [k, 2, 2] sets its gauge group",
    IcosahedralUNetParams,
    manifolds=("icosahedron",),
)
def make_icosahedral_unet(
    params: IcosahedralUNetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> IcosahedralUNet:
    """Build an :class:`IcosahedralUNet` for ``tensors["algebra"] [k, 2, 2]``."""
    refuse_tensors(tensors, "algebra")
    return IcosahedralUNet(
        signature.resolution,
        signature.inputs[0],
        signature.outputs,
        gauge_group(tensors["algebra"]),
        params,
        seed,
    )
