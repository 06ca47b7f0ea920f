"""Networks that read a set of vectors, for global tasks (METHOD 3.2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..catalogue import param, register
from ..interfaces import Signature, refuse_tensors
from ..reference import Layout, layer_names
from .sizing import parameters_field, sized


class Mlp(nn.Module):
    """A multilayer perceptron on all numbers of a sample: ``[B, C, m, n] -> [B, C, out]``.

    All C have the same weights.
    """

    halo = 0
    """There are no pixels."""
    scale: Tensor
    """Scalar by which the inputs are divided."""
    mean: Tensor
    """``[n]``, which is subtracted from every item before, with ``centre``."""

    def __init__(self, signature: Signature, params: MlpParams, seed: torch.Generator) -> None:
        super().__init__()
        widths = [math.prod(signature.inputs), *[params.width] * params.layers, signature.outputs]
        self.layers = nn.ModuleList(linear(a, b, seed) for a, b in itertools.pairwise(widths))
        self.register_buffer("scale", torch.tensor(signature.scale))
        self.centred = params.centre and signature.sample is not None
        if self.centred and signature.sample is not None:
            # Points far from the origin would all look alike.
            mean = signature.sample.float().flatten(0, -2).mean(0)
            self.register_buffer("mean", mean.cpu())
            self.scale.copy_((signature.sample.float() - mean).square().mean().sqrt() + 1e-12)
        self.activation = getattr(functional, params.activation)

    @property
    def reference_layout(self) -> Layout | None:
        """The reference layout of the weights, or None for another activation than ReLU."""
        if self.activation is not functional.relu or self.centred:
            return None
        names = dict[str, str]()
        for i in range(len(self.layers)):
            names |= dict(layer_names(f"layers.{i}", f"model.{2 * i}"))
        return Layout("MLP", names, constants={"scale": torch.ones_like(self.scale)})

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the outputs ``[B, C, out]`` of ``x [B, C, m, n]``."""
        h = ((x - self.mean) if self.centred else x).flatten(-2) / self.scale
        for layer in self.layers[:-1]:
            h = self.activation(layer(h))
        return cast(Tensor, self.layers[-1](h))


def in_parts(compute: Callable[[Tensor], Tensor], x: Tensor, most: int) -> Tensor:
    """Compute ``compute(x)`` of ``x [B, …]`` in batches of at most ``most``.

    Where a program is recorded it is one batch, since programs take batches of any size.
    """
    recorded = torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
    if recorded or torch.compiler.is_compiling():
        return compute(x)
    return torch.cat([compute(some) for some in x.split(max(1, most))])


def linear(width_in: int, width_out: int, seed: torch.Generator) -> nn.Linear:
    """Make a linear layer, initialised as PyTorch's own, from ``seed``."""
    layer = nn.Linear(width_in, width_out)
    bound = 1 / math.sqrt(width_in)
    with torch.no_grad():
        for t in (layer.weight, layer.bias):
            t.copy_((2 * torch.rand(t.shape, generator=seed) - 1) * bound)
    return layer


@dataclass(frozen=True)
class MlpParams:
    """Parameters of the architecture ``mlp``."""

    width: int = param(512, "Number of units of a hidden layer", minimum=1, maximum=65_536)
    layers: int = param(2, "Number of hidden layers", minimum=0, maximum=64)
    activation: Literal["relu", "gelu", "silu", "softplus"] = param(
        "relu", "Activation function after each hidden layer"
    )
    centre: bool = param(
        False, "Subtract the items' mean first, as suits points far from the origin", added=True
    )
    parameters: int = parameters_field()


@register(
    "architecture",
    "mlp",
    "A multilayer perceptron on all vectors of a sample together",
    MlpParams,
    manifolds=("vectors",),
)
def make_mlp(
    params: MlpParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> Mlp:
    """Build an :class:`Mlp`."""
    refuse_tensors(tensors)

    def build(params: MlpParams, seed: torch.Generator) -> Mlp:
        return Mlp(signature, params, seed)

    return build(sized(params, "width", build), seed)


def psi(z: Tensor) -> Tensor:
    """Compute ``ψ(z) = sgn(z) log(1 + |z|)`` of each entry, which tames a wide range.

    >>> psi(torch.tensor([0.0, -1.0, 1.0]))
    tensor([ 0.0000, -0.6931,  0.6931])
    """
    return z.sign() * z.abs().log1p()


MAX_BATCH = 256
"""Largest number of samples at a time.

For larger tensors over pairs the allocator would map new memory in every operation.
"""


class QuadraticNet(nn.Module):
    """Sums over pairs of vectors of a function of learnt quadratic forms (METHOD 3.2).

    ``[B, C, m, n] -> [B, C, out]``, with the same weights for all C. For learnt forms ``W_k`` and a
    learnt map A the output is ``ρ(e, A s)`` with ``z_kij = ψ(x_iᵀ W_k x_j)`` and
    ``e = Σ_ij φ(z_·ij) / m``. The sum s of all vectors counts as one more vector; vectors of zeros
    do not count.

    The forms ``W_k`` are symmetric and otherwise free, and so is A. So the network can express
    invariance under the group of any form, or of none, and the data decide what it learns. (Without
    A the output would be the same for x and −x, whatever the task. A cannot distinguish them if the
    data are all on one side, as energies are.)

    The forms are hard to learn where vectors lie near a cone. The form that matters nearly vanishes
    on the data, and has to be met to a few per cent before it has an effect. So ``W = W₀ + R L``:
    W₀ is random, R is learnt from zero, and L is the inverse square root of the forms' second
    moments over pairs of the data. A step of R then changes the values of all forms about equally.
    At the start the forms are W₀, which prefers none. (If they were L instead, the form that nearly
    vanishes would be present before anything is learnt, and would pass for a symmetry whatever the
    task is.)
    """

    halo = 0
    """There are no pixels."""
    scale: Tensor
    """Scalar by which the inputs are divided."""
    start: Tensor
    """``W₀ [forms, entries]``."""
    whiten: Tensor
    """``L [entries, entries]``."""
    entries: Tensor
    """Rows and columns ``[2, entries]`` of a symmetric matrix's entries."""
    pairs: Tensor
    """Numbers ``[2, pairs]`` of the two vectors of each pair."""

    def __init__(
        self, signature: Signature, params: QuadraticParams, seed: torch.Generator
    ) -> None:
        super().__init__()
        m, n = signature.inputs
        self.n, self.size = n, m + 1
        self.register_buffer("entries", torch.triu_indices(n, n), persistent=False)
        forms, width = self.entries.shape[1], params.width
        self.register_buffer("scale", torch.tensor(signature.scale))
        self.register_buffer(
            "start", torch.randn(params.forms, forms, generator=seed) / math.sqrt(forms)
        )
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
            [
                linear(width + params.sums, 2 * width, seed),
                linear(2 * width, signature.outputs, seed),
            ]
        )

    def matrices(self) -> Tensor:
        """Return the symmetric forms ``W [forms, n, n]``."""
        rows, cols = self.entries
        entries = self.start + self.forms @ self.whiten
        entries = torch.where(rows != cols, entries * math.sqrt(0.5), entries)
        w = entries.new_zeros(len(entries), self.n, self.n)
        w[:, rows, cols] = entries
        w[:, cols, rows] = entries
        return w

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the outputs ``[B, C, out]`` of ``x [B, C, m, n]``."""
        lead = x.shape[:-2]
        parts = [self._forward(part) for part in x.flatten(0, -3).split(MAX_BATCH)]
        return cast(Tensor, torch.cat(parts).unflatten(0, lead))

    def _forward(self, x: Tensor) -> Tensor:
        """Outputs ``[B, out]`` of ``x [B, m, n]``."""
        x = self._with_sum(x)
        i, j = self.pairs
        y = torch.einsum("bma,kac->bkmc", x, self.matrices())
        z = (y @ x[:, None].mT).flatten(2)[:, :, i * self.size + j]  # [B, forms, pairs]
        h = psi(z)
        for a, layer in enumerate(cast("list[nn.Linear]", list(self.phi))):
            h = layer.weight @ (functional.silu(h) if a else h) + layer.bias[:, None]
        real = (x != 0).any(-1)
        e = (h * (real[:, i] & real[:, j]).to(h)[:, None]).sum(2) / self.size
        first, last = self.rho
        e = torch.cat([e, self.sums(x[:, 0])], 1)
        return cast(Tensor, last(functional.silu(first(e))))

    def _with_sum(self, x: Tensor) -> Tensor:
        x = x / self.scale
        return torch.cat([x.sum(1, keepdim=True), x], 1)

    def _moments(self, sample: Tensor) -> Tensor:
        """Compute ``L`` from a sample.

        Its rows are orthogonal forms of equal mean square over pairs of the sample. The form that
        is magnified least has norm 1.
        """
        x = self._with_sum(sample.cpu()).double()
        real = (x != 0).any(-1)
        i, j = self.pairs
        used = real[:, i] & real[:, j]
        xi, xj = x[:, i][used], x[:, j][used]
        a, b = self.entries
        features = (xi[:, a] * xj[:, b] + xi[:, b] * xj[:, a]) / 2
        features *= torch.where(a == b, 1.0, math.sqrt(2)).double()
        values, vectors = torch.linalg.eigh(features.T @ features / max(len(features), 1))
        largest = values[-1].clamp(min=1e-30)
        # No form is magnified beyond what remains of it after rounding in float32.
        whiten: Tensor = vectors * (largest / values.clamp(min=1e-10 * largest)).sqrt()
        return whiten.mT.float()


@dataclass(frozen=True)
class QuadraticParams:
    """Parameters of the architecture ``quadratic``."""

    forms: int = param(10, "Number of quadratic forms", minimum=1, maximum=4096)
    width: int = param(24, "Number of units of a hidden layer", minimum=1, maximum=65_536)
    sums: int = param(
        8, "Number of linear forms of the sum of all vectors", minimum=0, maximum=4096
    )


@register(
    "architecture",
    "quadratic",
    "Learnt quadratic forms of pairs of vectors, then a network, summed over the pairs",
    QuadraticParams,
    manifolds=("vectors",),
)
def make_quadratic(
    params: QuadraticParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> QuadraticNet:
    """Build a :class:`QuadraticNet`."""
    refuse_tensors(tensors)
    return QuadraticNet(signature, params, seed)
