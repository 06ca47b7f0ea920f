"""Convolutional networks whose features have directions, for fields on charts (METHOD 5.2)."""

from __future__ import annotations

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
from ..ranks import BatchNorm2d, batch_mean
from ..symmetry.kernels import averaged_kernels, smoothing_kernel, steerable_kernels
from .convnet import ALGEBRA, SIZE
from .sizing import parameters_field, sized

LAYERS = (1, 1, 1, 1, 2, 2, 2, 2, 1, 1)
"""Dilation of each layer but the last, which has none."""


class SteerableConv(nn.Module):
    """A convolution between features of angular orders 0, 1, …, with zero padding.

    A feature of order 0 is one channel, one of order m > 0 two channels, which a turn by α turns by
    mα. ``[B, in, s, s] -> [B, out, s, s]``, channels in the order of the angular orders.

    Args:
        before: Number of features of each order in the input.
        after: The same in the output.
        bases: Kernels ``[d, q, p, size, size]`` from order a to order b, by ``(a, b)``.
        dilation: Dilation of the kernels.
        seed: Source of the initial weights.
    """

    def __init__(
        self,
        before: tuple[int, ...],
        after: tuple[int, ...],
        bases: Mapping[tuple[int, int], Tensor],
        dilation: int,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        self.before, self.after, self.dilation = before, after, dilation
        for b, width in enumerate(after):
            fan = sum(n * len(bases[a, b]) for a, n in enumerate(before))
            for a, channels in enumerate(before):
                basis = bases[a, b]
                weight = torch.randn(width, channels, len(basis), generator=seed)
                scale = math.sqrt(basis.shape[1] / max(fan, 1))
                self.register_parameter(f"weight_{a}_{b}", nn.Parameter(weight * scale))
                self.register_buffer(f"basis_{a}_{b}", basis.float())
        self.bias = nn.Parameter(torch.zeros(after[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution."""
        rows = []
        for b, width in enumerate(self.after):
            blocks = []
            for a, channels in enumerate(self.before):
                weight, basis = (getattr(self, f"{what}_{a}_{b}") for what in ("weight", "basis"))
                block = torch.einsum("oid,dqprc->oqiprc", weight, basis)
                blocks.append(
                    block.reshape(
                        width * basis.shape[1], channels * basis.shape[2], *basis.shape[3:]
                    )
                )
            rows.append(torch.cat(blocks, 1))
        kernel = torch.cat(rows)
        others = x.new_zeros(len(kernel) - len(self.bias))
        return functional.conv2d(
            x,
            kernel,
            torch.cat([self.bias, others]),
            padding=self.dilation * (kernel.shape[-1] // 2),
            dilation=self.dilation,
        )


class Gate(nn.Module):
    """BatchNorm and LeakyReLU for order 0; a mean-free norm and a gate for the other orders.

    Args:
        widths: Number of features of each order. Order 0 has a further channel for each feature of
            another order, whose sigmoid multiplies it.
    """

    square: Tensor
    """Running mean square ``[features]`` of the features of orders above 0."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths, self.others = widths, sum(widths[1:])
        self.norm = BatchNorm2d(widths[0] + self.others)
        self.register_buffer("square", torch.ones(self.others))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the nonlinearity."""
        first = self.widths[0]
        scalars = self.norm(x[:, : first + self.others])
        pairs = x[:, first + self.others :].unflatten(1, (self.others, 2))
        if self.training:
            wide = torch.promote_types(x.dtype, torch.float32)
            squares = pairs.square().sum(2).to(wide)
            mean = batch_mean(squares, (0, 2, 3))
            self.square.lerp_(mean.detach(), 0.1)
        else:
            mean = self.square
        pairs = pairs * (mean + 1e-5).rsqrt()[:, None, None, None]
        gates = scalars[:, first:].sigmoid()[:, :, None]
        return torch.cat(
            [functional.leaky_relu(scalars[:, :first]), (pairs * gates).flatten(1, 2)], 1
        )


class SteerableCnn(nn.Module):
    """Eleven steerable 5×5 convolutions with gates, the same for every chart.

    ``[B, C, in, s, s] -> [B, C, out, s, s]``, scalars in and out.
    """

    halo = 0
    """The input is the chart alone."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        widths: tuple[int, ...],
        bases: Mapping[tuple[int, int], Tensor],
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        made = (widths[0] + sum(widths[1:]), *widths[1:])
        inputs = [(width_in,), *[widths] * (len(LAYERS) - 1)]
        self.convs = nn.ModuleList(
            SteerableConv(before, made, bases, dilation, seed)
            for before, dilation in zip(inputs, LAYERS, strict=True)
        )
        self.gates = nn.ModuleList(Gate(widths) for _ in LAYERS)
        self.last = SteerableConv(widths, (width_out,), bases, 1, seed)

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute logits ``[B, C, out, s', s']`` of ``x``, cropped to ``radius`` if given."""
        h = x.flatten(0, 1)
        for conv, gate in zip(self.convs, self.gates, strict=True):
            h = gate(conv(h))
        y = cast(Tensor, self.last(h)).unflatten(0, x.shape[:2])
        return y if radius is None else crop(y, radius)


STRIDE = 2
"""Distance of the pixels of the coarse lattice of a :class:`SteerableUnet`."""
BLUR = 1.0
"""Standard deviation in pixels by which fields are smoothed before pixels are left out."""


class SteerableUnet(nn.Module):
    """Steerable 5×5 convolutions on every second pixel, the same for every chart.

    ``[B, C, in, s, s] -> [B, C, out, s, s]``, scalars in and out. The first layer sees all pixels.
    Its features are smoothed, and the other layers see every second pixel, with the chart's centre
    among them. Each pixel's outputs follow from the invariants there (scalars, and lengths of
    features with a direction), their means over the chart, and the first layer's scalars.
    """

    halo = 0
    """The input is the chart alone."""
    blur: Tensor
    """Kernel ``[1, 1, 5, 5]`` of the smoothing, which the group leaves unchanged."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        widths: tuple[int, ...],
        layers: int,
        head: int,
        bases: Mapping[tuple[int, int], Tensor],
        blur: Tensor,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        made = (widths[0] + sum(widths[1:]), *widths[1:])
        inputs = [(width_in,), *[widths] * layers]
        self.convs = nn.ModuleList(SteerableConv(before, made, bases, 1, seed) for before in inputs)
        self.gates = nn.ModuleList(Gate(widths) for _ in inputs)
        self.register_buffer("blur", blur.float()[None, None])
        invariants = sum(widths)
        self.scalars = widths[0]
        self.norm = BatchNorm2d(2 * invariants)
        self.fine = _pointwise(widths[0], head, seed)
        self.coarse = _pointwise(2 * invariants, head, seed)
        self.merged = BatchNorm2d(head)
        self.last = _pointwise(head, width_out, seed)
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute logits ``[B, C, out, s', s']`` of ``x``, cropped to ``radius`` if given."""
        first = self.gates[0](self.convs[0](x.flatten(0, 1)))
        h = self._every_second(first)
        for conv, gate in zip(self.convs[1:], self.gates[1:], strict=True):
            h = gate(conv(h))
        pairs = h[:, self.scalars :].unflatten(1, (-1, 2)) if h.shape[1] > self.scalars else None
        invariants = h if pairs is None else torch.cat([h[:, : self.scalars], _lengths(pairs)], 1)
        means = invariants.mean((2, 3), keepdim=True).expand_as(invariants)
        z = functional.conv2d(self.norm(torch.cat([invariants, means], 1)), self.coarse)
        z = self._every(z, x.shape[-1])
        z = self.merged(z + functional.conv2d(first[:, : self.scalars], self.fine))
        y = functional.conv2d(functional.leaky_relu(z), self.last, self.bias)
        y = y.unflatten(0, x.shape[:2])
        return y if radius is None else crop(y, radius)

    def _every_second(self, x: Tensor) -> Tensor:
        """Smooth ``x [B, n, s, s]``, and keep every second pixel from the centre on."""
        n = x.shape[1]
        padding = self.blur.shape[-1] // 2 - (x.shape[-1] // 2) % STRIDE
        blur = self.blur.expand(n, -1, -1, -1)
        return functional.conv2d(x, blur, padding=padding, stride=STRIDE, groups=n)

    @staticmethod
    def _every(z: Tensor, size: int) -> Tensor:
        """Interpolate values at every second pixel to all ``size`` pixels."""
        beyond = (size // 2) % STRIDE
        inner = size - 2 * beyond
        z = functional.interpolate(z, (inner, inner), mode="bilinear", align_corners=True)
        return functional.pad(z, [beyond] * 4, mode="replicate") if beyond else z


def _lengths(pairs: Tensor) -> Tensor:
    """Lengths ``[B, n, s, s]`` of ``pairs [B, n, 2, s, s]``, smooth at zero."""
    return (pairs.square().sum(2) + 1e-4).sqrt()


def _pointwise(before: int, after: int, seed: torch.Generator) -> nn.Parameter:
    """Make the weights ``[after, before, 1, 1]`` of a map of each pixel's features."""
    bound = 1 / math.sqrt(before)
    return nn.Parameter((2 * torch.rand(after, before, 1, 1, generator=seed) - 1) * bound)


FEWEST_RINGS = 2
"""Rings below which a kernel has no neighbours."""


@dataclass(frozen=True)
class SteerableCnnParams:
    """Parameters of the architecture ``steerable_cnn`` (METHOD 5.2)."""

    scalars: int = param(12, "Features without a direction", minimum=1, maximum=1024)
    vectors: int = param(8, "Features of each angular order above 0", minimum=1, maximum=1024)
    orders: int = param(2, "Highest angular order", minimum=1, maximum=6)
    rings: int = param(3, "Rings of the kernels, at least 2", minimum=1, maximum=8)


@register(
    "architecture",
    "steerable_cnn",
    "Convolutions of features with directions, equivariant to the rotations `algebra`",
    SteerableCnnParams,
    manifolds=("planar",),
)
def make_steerable_cnn(
    params: SteerableCnnParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> SteerableCnn:
    """Build a :class:`SteerableCnn` for one generator ``tensors["algebra"] [1, 2, 2]``."""
    bases = _kernels(params.orders, params.rings, tensors)
    widths = (params.scalars, *[params.vectors] * params.orders)
    return SteerableCnn(signature.inputs[0], signature.outputs, widths, bases, seed)


@dataclass(frozen=True)
class SteerableUnetParams:
    """Parameters of the architecture ``steerable_unet`` (METHOD 5.2)."""

    scalars: int = param(16, "Features without a direction", minimum=1, maximum=1024)
    vectors: int = param(8, "Features of each angular order above 0", minimum=1, maximum=1024)
    orders: int = param(
        2, "Highest angular order; with 0 all kernels are isotropic", minimum=0, maximum=6
    )
    rings: int = param(3, "Rings of the kernels, at least 2", minimum=1, maximum=8)
    layers: int = param(5, "Layers on every second pixel", minimum=1, maximum=64)
    head: int = param(32, "Units that decide each pixel's outputs", minimum=1, maximum=1024)


@register(
    "architecture",
    "steerable_unet",
    "Features with directions on a coarser lattice, equivariant to the rotations `algebra`",
    SteerableUnetParams,
    manifolds=("planar",),
)
def make_steerable_unet(
    params: SteerableUnetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> SteerableUnet:
    """Build a :class:`SteerableUnet` for one generator ``tensors["algebra"] [1, 2, 2]``."""
    bases = _kernels(params.orders, params.rings, tensors)
    widths = (params.scalars, *[params.vectors] * params.orders)
    return SteerableUnet(
        signature.inputs[0],
        signature.outputs,
        widths,
        params.layers,
        params.head,
        bases,
        smoothing_kernel(tensors["algebra"], SIZE, BLUR),
        seed,
    )


@dataclass(frozen=True)
class UnetParams:
    """Parameters of the architecture ``unet`` (METHOD 5.2)."""

    width: int = param(16, "Features of each layer", minimum=1, maximum=1024)
    layers: int = param(5, "Layers on every second pixel", minimum=1, maximum=64)
    head: int = param(32, "Units that decide each pixel's outputs", minimum=1, maximum=1024)
    parameters: int = parameters_field()


@register(
    "architecture",
    "unet",
    "The layers of steerable_unet with free kernels, without a symmetry: a baseline",
    UnetParams,
    manifolds=("planar",),
)
def make_unet(
    params: UnetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> SteerableUnet:
    """Build a :class:`SteerableUnet` of the trivial group.

    All features are scalars, and all kernels are allowed. It has about as many weights as the
    network of one rotation, and smooths by the same Gaussian.
    """
    refuse_tensors(tensors)
    turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    kernels = averaged_kernels(torch.zeros(0, 2, 2), SIZE)[:, None, None]
    blur = smoothing_kernel(turn, SIZE, BLUR)

    def build(params: UnetParams, seed: torch.Generator) -> SteerableUnet:
        return SteerableUnet(
            signature.inputs[0],
            signature.outputs,
            (params.width,),
            params.layers,
            params.head,
            {(0, 0): kernels},
            blur,
            seed,
        )

    return build(sized(params, "width", build, fewest=1), seed)


def _kernels(
    highest: int, rings: int, tensors: Mapping[str, Tensor]
) -> dict[tuple[int, int], Tensor]:
    """Make the kernels between features of all angular orders, by both orders."""
    refuse_tensors(tensors, "algebra")
    if rings < FEWEST_RINGS:
        raise InvalidInput(
            "kernels of one ring see nothing but the pixel itself",
            "predictor.architecture.params.rings",
            f"at least {FEWEST_RINGS}",
        )
    algebra = tensors["algebra"]
    if algebra.dim() != 3 or algebra.shape[1:] != (2, 2) or not algebra.is_floating_point():
        raise InvalidInput(f"the algebra has shape {list(algebra.shape)}", ALGEBRA, "[1, 2, 2]")
    orders = range(highest + 1)
    return {(a, b): steerable_kernels(algebra, SIZE, a, b, rings) for a in orders for b in orders}
