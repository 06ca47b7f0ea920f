"""A network that reads quadratic forms of all numbers of a small sample (METHOD 2.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..catalogue import param, register
from ..interfaces import Signature, refuse_tensors
from .standard import Outputs, Whitening
from .vectors import linear


@dataclass(frozen=True)
class PolynomialParams:
    """Parameters of the architecture ``polynomial``."""

    forms: int = param(32, "Number of learnt quadratic forms", minimum=1, maximum=4096)
    width: int = param(128, "Number of units of a hidden layer", minimum=1, maximum=65_536)
    layers: int = param(3, "Number of hidden layers", minimum=1, maximum=64)
    most: int = param(
        40, "Most numbers in a sample of which products are taken", minimum=0, maximum=512
    )


class PolynomialNet(nn.Module):
    """A multilayer perceptron on a few learnt quadratic forms of all numbers of a sample.

    ``[B, C, m, n] -> [B, C, out]``, with the same weights for all C. The items are whitened. Their
    numbers and the products of two numbers each are brought to mean 0 and variance 1, and so are
    the outputs. A linear map takes these features to a few forms. The output is a perceptron of the
    forms plus a linear map of them.

    Every quadratic form of a sample, such as an inner product, is a linear map of the features. So
    the network easily learns functions of forms, whatever the forms are. It prefers none of them.
    It does not know which numbers belong to one item, nor does it treat items alike. The few forms
    in between matter where a sample has many products: a perceptron that reads them directly keeps
    a small dependence on each, which grows when g carries a sample outwards.
    """

    halo = 0
    """There are no pixels."""
    pairs: Tensor
    """Numbers ``[2, products]`` of the factors."""
    mean: Tensor
    """Mean ``[features]`` of the features."""
    spread: Tensor
    """Standard deviation ``[features]`` of the features."""

    def __init__(
        self, signature: Signature, params: PolynomialParams, seed: torch.Generator
    ) -> None:
        super().__init__()
        numbers = math.prod(signature.inputs)
        products = numbers <= params.most
        pairs = torch.triu_indices(numbers, numbers) if products else torch.zeros(2, 0).long()
        features = numbers + pairs.shape[1]
        self.register_buffer("pairs", pairs, persistent=False)
        self.whitening, self.outputs = Whitening(signature), Outputs(signature)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        if signature.examples is not None:
            f = self._features(signature.examples[0].cpu())
            self.mean.copy_(f.mean(0))
            self.spread.copy_(f.std(0, correction=0).clamp(min=1e-3))
        self.forms = linear(features, params.forms, seed)
        widths = [params.forms, *[params.width] * params.layers]
        self.layers = nn.ModuleList(linear(a, b, seed) for a, b in itertools.pairwise(widths))
        self.last = linear(params.width, signature.outputs, seed)
        self.direct = linear(params.forms, signature.outputs, seed)

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the outputs ``[B, C, out]`` of ``x [B, C, m, n]``."""
        z = self.forms((self._features(x) - self.mean) / self.spread)
        h = z
        for layer in self.layers:
            h = functional.silu(layer(h))
        return cast(Tensor, self.outputs(self.last(h) + self.direct(z)))

    def _features(self, x: Tensor) -> Tensor:
        """Numbers and products ``[..., features]`` of samples ``[..., m, n]``."""
        u = self.whitening(x).flatten(-2)
        i, j = self.pairs
        return torch.cat([u, u[..., i] * u[..., j]], -1)


@register(
    "architecture",
    "polynomial",
    "A perceptron on learnt quadratic forms of all numbers of a sample, for small samples",
    PolynomialParams,
    manifolds=("vectors",),
)
def make_polynomial(
    params: PolynomialParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> PolynomialNet:
    """Build a :class:`PolynomialNet`."""
    refuse_tensors(tensors)
    return PolynomialNet(signature, params, seed)
