"""Networks that read a set of vectors, for global tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..published import Layout, layer_names
from ..registry import param, register
from ..roles import Signature, refuse_tensors


class Mlp(nn.Module):
    """A multilayer perceptron on all numbers of a sample: ``[B, C, m, n] -> [B, C, out]``, the same for all C."""

    reach = 0
    scale: Tensor

    def __init__(self, signature: Signature, params: MlpParams, seed: torch.Generator) -> None:
        super().__init__()
        widths = [math.prod(signature.inputs), *[params.width] * params.layers, signature.outputs]
        self.layers = nn.ModuleList(linear(a, b, seed) for a, b in itertools.pairwise(widths))
        self.register_buffer("scale", torch.tensor(signature.scale))
        self.activation = getattr(functional, params.activation)

    @property
    def published(self) -> Layout | None:
        if self.activation is not functional.relu:
            return None
        names = dict[str, str]()
        for i in range(len(self.layers)):
            names |= dict(layer_names(f"layers.{i}", f"model.{2 * i}"))
        return Layout("MLP", names, constants={"scale": torch.ones_like(self.scale)})

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        h = x.flatten(-2) / self.scale
        for layer in self.layers[:-1]:
            h = self.activation(layer(h))
        return cast(Tensor, self.layers[-1](h))


def linear(width_in: int, width_out: int, seed: torch.Generator) -> nn.Linear:
    """Initialised as PyTorch's own, from ``seed``."""
    layer = nn.Linear(width_in, width_out)
    bound = 1 / math.sqrt(width_in)
    with torch.no_grad():
        for t in (layer.weight, layer.bias):
            t.copy_((2 * torch.rand(t.shape, generator=seed) - 1) * bound)
    return layer


@dataclass(frozen=True)
class MlpParams:
    width: int = param(512, "Units of a hidden layer", minimum=1, maximum=65_536)
    layers: int = param(2, "Hidden layers", minimum=0, maximum=64)
    activation: Literal["relu", "gelu", "silu", "softplus"] = param("relu", "After each hidden layer")


@register("predictor", "mlp", "A multilayer perceptron on all vectors of a sample (METHOD 3.2)", MlpParams)
def make_mlp(
    params: MlpParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> Mlp:
    signature.require("vectors", "mlp")
    refuse_tensors(tensors)
    return Mlp(signature, params, seed)


def psi(z: Tensor) -> Tensor:
    """``ψ(z) = sgn(z) log(1 + |z|)``, entry by entry: tames a wide range.

    >>> psi(torch.tensor([0.0, -1.0, 1.0]))
    tensor([ 0.0000, -0.6931,  0.6931])
    """
    return z.sign() * z.abs().log1p()


AT_ONCE = 256
"""Samples at a time: tensors over pairs that are larger would be mapped anew by the allocator for every operation."""


class QuadraticNet(nn.Module):
    """Sums over pairs of vectors of a function of learnt quadratic forms: ``[B, C, m, n] -> [B, C, out]``, the same for all C.

    ``z_kij = ψ(x_iᵀ W_k x_j)``, ``e = Σ_ij φ(z_·ij) / m``, output ``ρ(e, A s)``, ψ(z) = sgn(z) log(1 + |z|); s, the sum of all
    vectors, counts as one more vector, vectors of zeros as none. The forms ``W_k`` are symmetric and otherwise free, and so is A: the
    network can express invariance under the group of any form, or of none, and what it learns is decided by the data. (Without
    A it would be the same for x and −x, whatever the task; with it, not where the data are all on one side, as energies are.)

    They are hard to learn where vectors lie near a cone: what matters is a form that nearly vanishes on the data, and that must be met to
    a few per cent before it shows. So ``W = W₀ + R L``, with random ``W₀``, ``R`` learnt from zero, and ``L`` the inverse square
    root of the forms' second moments over pairs of the data. A step of R moves all forms about as much as they are seen. At the start
    the forms are W₀, which prefers none. (Were it L instead, the nearly vanishing form would be there before anything
    is learnt, and would pass for a symmetry whatever the task.)
    """

    reach = 0
    scale: Tensor
    start: Tensor
    whiten: Tensor
    entries: Tensor
    pairs: Tensor

    def __init__(self, signature: Signature, params: QuadraticParams, seed: torch.Generator) -> None:
        super().__init__()
        m, n = signature.inputs
        self.n, self.size = n, m + 1
        self.register_buffer("entries", torch.triu_indices(n, n), persistent=False)
        forms, width = self.entries.shape[1], params.width
        self.register_buffer("scale", torch.tensor(signature.scale))
        self.register_buffer("start", torch.randn(params.forms, forms, generator=seed) / math.sqrt(forms))
        self.register_buffer("whiten", torch.eye(forms))
        i, j = torch.triu_indices(self.size, self.size)
        self.register_buffer("pairs", torch.stack([i, j]), persistent=False)
        if signature.sample is not None:
            self.whiten.copy_(self._moments(signature.sample))
        self.forms = nn.Parameter(torch.zeros(params.forms, forms))
        self.phi = nn.ModuleList(
            linear(a, b, seed) for a, b in itertools.pairwise([params.forms, width, width, width])
        )
        self.sums = linear(n, params.sums, seed)
        self.rho = nn.ModuleList(
            [linear(width + params.sums, 2 * width, seed), linear(2 * width, signature.outputs, seed)]
        )

    def matrices(self) -> Tensor:
        """``W [forms, n, n]``, symmetric."""
        rows, cols = self.entries
        entries = self.start + self.forms @ self.whiten
        entries = torch.where(rows != cols, entries * math.sqrt(0.5), entries)
        w = entries.new_zeros(len(entries), self.n, self.n)
        w[:, rows, cols] = entries
        w[:, cols, rows] = entries
        return w

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        lead = x.shape[:-2]
        parts = [self._forward(part) for part in x.flatten(0, -3).split(AT_ONCE)]
        return cast(Tensor, torch.cat(parts).unflatten(0, lead))

    def _forward(self, x: Tensor) -> Tensor:
        """``[B, m, n] -> [B, out]``"""
        x = self._with_sum(x)
        i, j = self.pairs
        y = torch.einsum("bma,kac->bkmc", x, self.matrices())
        z = (y @ x[:, None].mT).flatten(2)[:, :, i * self.size + j]  # [B, forms, pairs]
        h = psi(z)
        for a, layer in enumerate(cast("list[nn.Linear]", list(self.phi))):
            h = layer.weight @ (functional.silu(h) if a else h) + layer.bias[:, None]
        there = (x != 0).any(-1)
        e = (h * (there[:, i] & there[:, j]).to(h)[:, None]).sum(2) / self.size
        first, last = self.rho
        e = torch.cat([e, self.sums(x[:, 0])], 1)
        return cast(Tensor, last(functional.silu(first(e))))

    def _with_sum(self, x: Tensor) -> Tensor:
        x = x / self.scale
        return torch.cat([x.sum(1, keepdim=True), x], 1)

    def _moments(self, sample: Tensor) -> Tensor:
        """``L``: rows are orthogonal forms of equal mean square over pairs of the sample, the least magnified of norm 1."""
        x = self._with_sum(sample.cpu()).double()
        there = (x != 0).any(-1)
        i, j = self.pairs
        used = there[:, i] & there[:, j]
        xi, xj = x[:, i][used], x[:, j][used]
        a, b = self.entries
        features = (xi[:, a] * xj[:, b] + xi[:, b] * xj[:, a]) / 2
        features *= torch.where(a == b, 1.0, math.sqrt(2)).double()
        values, vectors = torch.linalg.eigh(features.T @ features / max(len(features), 1))
        largest = values[-1].clamp(min=1e-30)
        # No form is magnified beyond what rounding in float32 leaves of it.
        whiten: Tensor = vectors * (largest / values.clamp(min=1e-10 * largest)).sqrt()
        return whiten.mT.float()


@dataclass(frozen=True)
class QuadraticParams:
    forms: int = param(10, "Quadratic forms", minimum=1, maximum=4096)
    width: int = param(24, "Units of a hidden layer", minimum=1, maximum=65_536)
    sums: int = param(8, "Linear forms of the sum of all vectors", minimum=0, maximum=4096)


@register(
    "predictor",
    "quadratic",
    "Learnt quadratic forms of pairs of vectors, then a network summed over pairs",
    QuadraticParams,
)
def make_quadratic(
    params: QuadraticParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> QuadraticNet:
    signature.require("vectors", "quadratic")
    refuse_tensors(tensors)
    return QuadraticNet(signature, params, seed)
