"""A deep convolutional network with the same kernels on every chart, free or invariant under a given group (METHOD 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InvalidInput
from ..fields.resample import crop
from ..kernels import averaged_kernels, smooth_kernels
from ..registry import param, register
from ..roles import Signature, refuse_tensors

ALGEBRA = "predictor.tensors.algebra"
SIZE = 5
LAYERS = ((32, 1), (32, 1), (64, 1), (64, 1), (64, 2), (32, 2), (32, 2), (32, 2), (32, 1), (16, 1), (16, 1))
"""Channels and dilations of all layers but the last, which has the classes' channels and dilation 1."""


class BasisConv(nn.Module):
    """A convolution whose kernels are combinations of given ones: ``[B, in, s, s] -> [B, out, s, s]``, zero padding.

    ``weight [out, in, m]`` of kernels ``basis [m, size, size]``, orthonormal; ``bias [out]``.
    """

    basis: Tensor

    def __init__(
        self, width_in: int, width_out: int, basis: Tensor, dilation: int, seed: torch.Generator
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.register_buffer("basis", basis.float())
        self.register_load_state_dict_pre_hook(_check_basis)  # type: ignore[no-untyped-call]
        # A kernel's norm is the weights'; as large as that of PyTorch's own free ones.
        bound = 1 / math.sqrt(width_in * len(basis))
        self.weight = nn.Parameter(
            (2 * torch.rand(width_out, width_in, len(basis), generator=seed) - 1) * bound
        )
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.einsum("oim,mrc->oirc", self.weight, self.basis)
        return functional.conv2d(
            x,
            kernel.contiguous(memory_format=torch.channels_last),
            self.bias,
            padding=self.dilation * (kernel.shape[-1] // 2),
            dilation=self.dilation,
        )


def _check_basis(conv: BasisConv, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Raise ``InvalidInput`` for weights of other kernels: loaded, these would take the place of the algebra's own."""
    if not torch.allclose(state[f"{prefix}basis"].to(conv.basis), conv.basis, atol=1e-4):
        raise InvalidInput(
            "the weights are of kernels with another symmetry",
            "weights",
            "weights of a network built from the same algebra",
            "train one, or give that algebra",
        )


class ConvNet(nn.Module):
    """Twelve times [5×5 convolution, LeakyReLU, BatchNorm], the same for every chart: ``[B, C, in, s, s] -> [B, C, out, s, s]``.

    All layers are equivariant under the group that leaves the kernels unchanged.
    """

    reach = 0

    def __init__(self, width_in: int, width_out: int, basis: Tensor, seed: torch.Generator) -> None:
        super().__init__()
        widths = [width_in, *[width for width, _ in LAYERS], width_out]
        dilations = [*[dilation for _, dilation in LAYERS], 1]
        self.convs = nn.ModuleList(
            BasisConv(a, b, basis, dilation, seed)
            for a, b, dilation in zip(widths, widths[1:], dilations, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        h = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = norm(functional.leaky_relu(conv(h), inplace=True))
        y = h.unflatten(0, x.shape[:2])
        return y if radius is None else crop(y, radius)


@dataclass(frozen=True)
class ConvNetParams:
    kernel: Literal["free", "c4", "smooth"] = param(
        "free",
        "Free; the mean over those of the grid's own turns that are in the group of tensors.algebra; or smooth functions invariant under all of it",
    )
    degree: int = param(6, "Smooth kernels: degree of the polynomials", minimum=0, maximum=16)
    width: float = param(1.2, "Smooth kernels: standard deviation of their window, in pixels", minimum=0.1)


@register(
    "predictor",
    "convnet",
    "Twelve 5x5 convolutions, the same for all charts, free or invariant under the group of tensors.algebra (METHOD 3.3)",
    ConvNetParams,
)
def make_convnet(
    params: ConvNetParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> ConvNet:
    signature.require("planar", "convnet")
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
        raise InvalidInput("the algebra has a generator that is zero or not finite", ALGEBRA, "a basis")
    if params.kernel == "c4":
        return averaged_kernels(algebra, SIZE)
    return smooth_kernels(algebra, SIZE, params.degree, params.width)
