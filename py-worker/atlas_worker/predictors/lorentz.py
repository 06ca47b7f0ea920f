"""Message passing between the vectors of a set (METHOD 5.1).

The networks are LorentzNet for any metric, and the same network without the symmetry.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..catalogue import param, register
from ..errors import InvalidInput
from ..interfaces import Signature, refuse_tensors
from .sizing import parameters_field, sized
from .vectors import in_parts, linear, psi

METRIC = "predictor.tensors.metric"
"""Path of the metric in a request, for errors."""
MAX_BATCH = {"cpu": 2**20, "cuda": 2**25}
"""Largest number of entries of a tensor over pairs, by device; bounds the memory of a batch."""


class MessageBlock(nn.Module):
    """A Lorentz group equivariant block (Gong et al. 2022) on pairs whose features are given.

    ``m_ij = φ_e(h_i, h_j, pairs_ij)``, ``x_i ← x_i + c Σ_j φ_x(m_ij) x_j``,
    ``h_i ← h_i + φ_h(h_i, Σ_j φ_m(m_ij) m_ij)``.

    Args:
        hidden: Width of the scalars and of the messages.
        pairs: Number of features of a pair.
        c: Factor of the messages that move vectors.
        moves: Whether the block moves vectors. The last block need not, as nothing reads them.
        seed: Source of the initial weights.
    """

    def __init__(
        self, hidden: int, pairs: int, c: float, moves: bool, seed: torch.Generator
    ) -> None:
        super().__init__()
        self.c, self.widths = c, [hidden, hidden, pairs]
        self.phi_e1 = linear(2 * hidden + pairs, hidden, seed)
        self.phi_e2 = linear(hidden, hidden, seed)
        self.phi_m = linear(hidden, 1, seed)
        self.phi_h = nn.Sequential(
            linear(2 * hidden, hidden, seed),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            linear(hidden, hidden, seed),
        )
        self.phi_x = (
            nn.Sequential(
                linear(hidden, hidden, seed), nn.ReLU(inplace=True), linear(hidden, 1, seed)
            )
            if moves
            else None
        )

    def forward(self, h: Tensor, x: Tensor, pairs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the block.

        Args:
            h: Scalars ``[B, m, hidden]``.
            x: Vectors ``[B, m, n]``.
            pairs: Features ``[B, m, m, features]``.
            weight: Weight ``[B, m, m]`` of each pair in the sums.

        Returns:
            The new h and x.
        """
        # The first layer of φ_e on (h_i, h_j, pairs_ij), without joining these for every pair.
        of_i, of_j, of_pair = self.phi_e1.weight.split(self.widths, dim=1)
        e = functional.linear(pairs, of_pair)
        e += functional.linear(h, of_i, self.phi_e1.bias)[:, :, None]
        e += functional.linear(h, of_j)[:, None]
        # As a matrix [B m m, hidden]: autograd would copy a view that is changed in place.
        flat = self.phi_e2(e.relu_().flatten(0, 2)).relu_()
        m = flat.view_as(e)
        gate = self.phi_m(flat).view_as(weight).sigmoid() * weight
        h = h + self.phi_h(torch.cat([h, torch.einsum("bij,bijk->bik", gate, m)], -1))
        if self.phi_x is not None:
            x = x + self.c * (self.phi_x(flat).view_as(weight) * weight) @ x
        return h, x


class MessageNet(nn.Module, ABC):
    """Message passing over all pairs of a set's vectors: ``[B, C, m, n] -> [B, C, outputs]``.

    All C have the same weights. Scalars h_i start from a linear map of node features and go through
    the blocks. A perceptron with two layers decodes their mean over the set. A vector of zeros is
    padding: it sends nothing, receives nothing and is not in the mean. Vectors are divided by
    ``unit`` first, one factor for all components, so it commutes with every linear map.

    The network differs from that of the paper, so that training is reproducible and does not depend
    on padding:

    - It has LayerNorm, in φ_h only, in place of BatchNorm. BatchNorm's statistics over padded pairs
      would depend on the padding, and a sample's output on its batch.
    - It has no dropout, whose masks would have to be saved to resume bit for bit.
    - Sums over j are divided by the set's nominal size m, a constant. This keeps the sums of order
      one and still tells how many vectors there are.

    Args:
        signature: Shapes and scale of the data.
        params: The parameters.
        nodes: Number of features of a vector.
        pairs: Number of features of a pair.
        seed: Source of the initial weights.
    """

    halo = 0
    """There are no pixels."""
    unit: Tensor
    """Scalar by which vectors are divided."""

    def __init__(
        self,
        signature: Signature,
        params: LorentzNetParams,
        nodes: int,
        pairs: int,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        hidden, last = params.hidden, params.layers - 1
        self.nominal = signature.inputs[0]
        self.register_buffer("unit", torch.tensor(params.unit * signature.scale))
        self.embed = linear(nodes, hidden, seed)
        self.blocks = nn.ModuleList(
            MessageBlock(hidden, pairs, params.c, i < last, seed) for i in range(params.layers)
        )
        self.decode = nn.Sequential(
            linear(hidden, hidden, seed), nn.ReLU(), linear(hidden, signature.outputs, seed)
        )

    @abstractmethod
    def node_features(self, x: Tensor) -> Tensor:
        """Compute the features ``[B, m, nodes]`` of vectors ``x [B, m, n]``."""

    @abstractmethod
    def pair_features(self, x: Tensor) -> Tensor:
        """Compute the features ``[B, m, m, pairs]`` of pairs; the diagonal is not used."""

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute logits ``[B, C, outputs]`` of ``x [B, C, m, n]``."""
        pairs = x.shape[-2] ** 2 * self.embed.out_features
        most = MAX_BATCH.get(x.device.type, 2**20) // pairs
        return cast(Tensor, in_parts(self._logits, x.flatten(0, 1), most).unflatten(0, x.shape[:2]))

    def _logits(self, x: Tensor) -> Tensor:
        """Logits ``[B, outputs]`` of ``x [B, m, n]``."""
        x = x / self.unit
        real = (x != 0).any(-1).to(x.dtype)
        itself = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weight = real[:, :, None] * real[:, None] * (1 - itself) / self.nominal
        h = self.embed(self.node_features(x))
        for block in self.blocks:
            h, x = block(h, x, self.pair_features(x), weight)
        mean = (real[:, None] @ h).squeeze(1) / real.sum(1, keepdim=True).clamp(min=1)
        return cast(Tensor, self.decode(mean))


class LorentzNet(MessageNet):
    """LorentzNet (Gong et al. 2022, JHEP 07, 030) for any metric J (METHOD 5.1).

    It is invariant under every g with ``gᵀ J g = J``, since it reads the vectors only as
    ``ψ(⟨x_i, x_i⟩_J)``, ``ψ(‖x_i − x_j‖²_J)`` and ``ψ(⟨x_i, x_j⟩_J)`` with ``⟨x, y⟩_J = xᵀ J y``.
    The group is O(1, 3) for ``J = diag(1, −1, −1, −1)``. An algebra determines J up to a factor, so
    J is scaled to the norm of that example, ``‖J‖_F = √n``.

    Args:
        signature: Shapes and scale of the data.
        params: The parameters.
        metric: ``[n, n]``.
        seed: Source of the initial weights.

    Raises:
        InvalidInput: The metric is not symmetric, or degenerate.
    """

    metric: Tensor
    """``[n, n]``, scaled."""

    def __init__(
        self, signature: Signature, params: LorentzNetParams, metric: Tensor, seed: torch.Generator
    ) -> None:
        super().__init__(signature, params, 1, 2, seed)
        self.register_buffer("metric", checked_metric(metric, signature.inputs[-1]))

    def node_features(self, x: Tensor) -> Tensor:
        """Compute ``ψ(⟨x_i, x_i⟩_J)``."""
        return psi(((x @ self.metric) * x).sum(-1, keepdim=True))

    def pair_features(self, x: Tensor) -> Tensor:
        """Compute ``ψ(‖x_i − x_j‖²_J)`` and ``ψ(⟨x_i, x_j⟩_J)``."""
        inner = x @ self.metric @ x.mT
        square = inner.diagonal(dim1=-2, dim2=-1)
        return psi(torch.stack([square[:, :, None] + square[:, None] - 2 * inner, inner], -1))


class ParticleGraphNet(MessageNet):
    """LorentzNet without the symmetry, a baseline of the same size (METHOD 5.1).

    It reads ``ψ(x_i)`` and ``ψ(x_i − x_j)`` component by component, and has to learn the
    kinematics. All else is the same.
    """

    def __init__(
        self, signature: Signature, params: LorentzNetParams, seed: torch.Generator
    ) -> None:
        n = signature.inputs[-1]
        super().__init__(signature, params, n, n, seed)

    def node_features(self, x: Tensor) -> Tensor:
        """Compute ``ψ(x_i)``."""
        return psi(x)

    def pair_features(self, x: Tensor) -> Tensor:
        """Compute ``ψ(x_i − x_j)``."""
        return psi(x[:, :, None] - x[:, None])


def checked_metric(metric: Tensor, n: int) -> Tensor:
    """Return the symmetric part of ``metric [n, n]``, scaled to norm √n, in float32.

    Raises:
        InvalidInput: The metric has another shape, entries that are not finite numbers, is not
            symmetric, or is degenerate.

    >>> checked_metric(torch.tensor([[0.0, 4.0], [4.0, 0.0]]), 2)
    tensor([[0., 1.],
            [1., 0.]])
    """
    if metric.shape != (n, n):
        raise InvalidInput(f"the metric has shape {list(metric.shape)}", METRIC, f"[{n}, {n}]")
    if not (metric.dtype.is_floating_point and metric.isfinite().all()):
        raise InvalidInput(
            "the metric has entries that are not finite numbers",
            METRIC,
            "finite floating-point numbers",
        )
    j = metric.double()
    norm = torch.linalg.matrix_norm(j)
    if torch.linalg.matrix_norm(j - j.mT) > 2e-4 * norm:
        raise InvalidInput("the metric is not symmetric", METRIC, "J = Jᵀ to within 1e-4")
    j = (j + j.mT) / 2
    smallest = torch.linalg.eigvalsh(j).abs().min()
    if smallest <= 1e-6 * norm:
        raise InvalidInput(
            "the metric is degenerate: one direction has no length",
            METRIC,
            "eigenvalues other than zero",
            "compute it from generators that determine it",
        )
    scaled: Tensor = j * (math.sqrt(n) / norm)
    return scaled.float()


@dataclass(frozen=True)
class LorentzNetParams:
    """Parameters of the architectures ``lorentznet`` and ``particle_graph`` (METHOD 5.1)."""

    hidden: int = param(24, "Width of the scalars and of the messages", minimum=1, maximum=4096)
    layers: int = param(3, "Number of blocks of message passing", minimum=1, maximum=64)
    unit: float = param(
        0.03,
        "Vectors are divided by this many root mean squares of the data's entries",
        minimum=1e-6,
    )
    c: float = param(1e-3, "Factor of the messages that move vectors", minimum=0)
    parameters: int = parameters_field()


@register(
    "architecture",
    "lorentznet",
    "LorentzNet (Gong et al. 2022), invariant under the group that keeps the tensor `metric`",
    LorentzNetParams,
    manifolds=("vectors",),
)
def make_lorentznet(
    params: LorentzNetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> LorentzNet:
    """Build a :class:`LorentzNet` for ``tensors["metric"] [n, n]``."""
    refuse_tensors(tensors, "metric")

    def build(params: LorentzNetParams, seed: torch.Generator) -> LorentzNet:
        return LorentzNet(signature, params, tensors["metric"], seed)

    return build(sized(params, "hidden", build), seed)


@register(
    "architecture",
    "particle_graph",
    "The network of lorentznet on components of vectors, without the symmetry: a baseline",
    LorentzNetParams,
    manifolds=("vectors",),
)
def make_particle_graph(
    params: LorentzNetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> ParticleGraphNet:
    """Build a :class:`ParticleGraphNet`."""
    refuse_tensors(tensors)

    def build(params: LorentzNetParams, seed: torch.Generator) -> ParticleGraphNet:
        return ParticleGraphNet(signature, params, seed)

    return build(sized(params, "hidden", build), seed)
