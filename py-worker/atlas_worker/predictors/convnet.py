"""A deep convolutional network with the same kernels on every chart (METHOD 5.2).

The kernels are free, or invariant under a given group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..catalogue import param, register
from ..errors import InvalidInput
from ..fields.resample import crop
from ..interfaces import Signature, refuse_tensors
from ..ranks import BatchNorm2d
from ..symmetry.kernels import averaged_kernels, smooth_kernels

ALGEBRA = "predictor.tensors.algebra"
"""Path of the algebra in a request, for errors."""
SIZE = 5
"""Width of the kernels in pixels."""
LAYERS = (
    (32, 1),
    (32, 1),
    (64, 1),
    (64, 1),
    (64, 2),
    (32, 2),
    (32, 2),
    (32, 2),
    (32, 1),
    (16, 1),
    (16, 1),
)
"""Channels and dilation of each layer but the last, which outputs the classes without dilation."""


class BasisConv(nn.Module):
    """A convolution with zero padding whose kernels are combinations of given kernels.

    ``[B, in, s, s] -> [B, out, s, s]``. ``weight [out, in, m]`` are the coefficients of the kernels
    ``basis [m, size, size]``, which are orthonormal; ``bias`` is ``[out]``.
    """

    basis: Tensor

    def __init__(
        self, width_in: int, width_out: int, basis: Tensor, dilation: int, seed: torch.Generator
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.register_buffer("basis", basis.float())
        self.register_load_state_dict_pre_hook(_check_basis)  # type: ignore[no-untyped-call]
        # A kernel has the norm of its weights: as large as that of PyTorch's own free kernels.
        bound = 1 / math.sqrt(width_in * len(basis))
        self.weight = nn.Parameter(
            (2 * torch.rand(width_out, width_in, len(basis), generator=seed) - 1) * bound
        )
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution to ``x [B, in, s, s]``."""
        kernel = torch.einsum("oim,mrc->oirc", self.weight, self.basis)
        return functional.conv2d(
            x,
            kernel.contiguous(memory_format=torch.channels_last),
            self.bias,
            padding=self.dilation * (kernel.shape[-1] // 2),
            dilation=self.dilation,
        )


def _check_basis(conv: BasisConv, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Refuse weights of other kernels: loading them would replace the algebra's own kernels."""
    if not torch.allclose(state[f"{prefix}basis"].to(conv.basis), conv.basis, atol=1e-4):
        raise InvalidInput(
            "the weights belong to kernels with another symmetry",
            "weights",
            "weights of a network built from the same algebra",
            "train a new network, or give the algebra of these weights",
        )


class ConvNet(nn.Module):
    """Twelve times [5×5 convolution, LeakyReLU, BatchNorm], the same for every chart.

    ``[B, C, in, s, s] -> [B, C, out, s, s]``. All layers are equivariant under the group that
    leaves the kernels unchanged.
    """

    halo = 0
    """The input is the chart alone."""

    def __init__(self, width_in: int, width_out: int, basis: Tensor, seed: torch.Generator) -> None:
        super().__init__()
        widths = [width_in, *[width for width, _ in LAYERS], width_out]
        dilations = [*[dilation for _, dilation in LAYERS], 1]
        self.convs = nn.ModuleList(
            BasisConv(a, b, basis, dilation, seed)
            for a, b, dilation in zip(widths, widths[1:], dilations, strict=False)
        )
        self.norms = nn.ModuleList(BatchNorm2d(b) for b in widths[1:])

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute logits ``[B, C, out, s', s']`` of ``x``, cropped to ``radius`` if given."""
        h = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = norm(functional.leaky_relu(conv(h), inplace=True))
        y = h.unflatten(0, x.shape[:2])
        return y if radius is None else crop(y, radius)


@dataclass(frozen=True)
class ConvNetParams:
    """Parameters of the architecture ``convnet`` (METHOD 5.2)."""

    kernel: Literal["free", "c4", "smooth"] = param(
        "free",
        "free: any kernel; c4: averaged over the grid's turns and flips in the group of the "
        "algebra; smooth: invariant under the whole group",
    )
    degree: int = param(
        6, "Largest degree of the polynomials of smooth kernels", minimum=0, maximum=16
    )
    width: float = param(
        1.2, "Standard deviation of the window of smooth kernels, in pixels", minimum=0.1
    )


@register(
    "architecture",
    "convnet",
    "Twelve 5×5 convolutions for all charts, free or invariant under the tensor `algebra`",
    ConvNetParams,
    manifolds=("planar",),
)
def make_convnet(
    params: ConvNetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> ConvNet:
    """Build a :class:`ConvNet`; all kernels but ``free`` need ``tensors["algebra"] [k, 2, 2]``."""
    if params.kernel == "free":
        refuse_tensors(tensors)
        basis = averaged_kernels(torch.zeros(0, 2, 2), SIZE)
    else:
        refuse_tensors(tensors, "algebra")
        basis = _kernels(params, tensors["algebra"])
    return ConvNet(signature.inputs[0], signature.outputs, basis, seed)


def _kernels(params: ConvNetParams, algebra: Tensor) -> Tensor:
    if algebra.dim() != 3 or algebra.shape[1:] != (2, 2) or not algebra.is_floating_point():
        raise InvalidInput(f"the algebra has shape {list(algebra.shape)}", ALGEBRA, "[k, 2, 2]")
    if not algebra.isfinite().all() or (len(algebra) and algebra.flatten(1).norm(dim=1).min() == 0):
        raise InvalidInput(
            "the algebra has a generator that is zero or not finite",
            ALGEBRA,
            "generators that are finite and not zero",
        )
    if params.kernel == "c4":
        return averaged_kernels(algebra, SIZE)
    return smooth_kernels(algebra, SIZE, params.degree, params.width)
