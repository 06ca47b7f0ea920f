"""Message passing between the vectors of a set: LorentzNet for any metric, and the same network without the symmetry."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InvalidInput
from ..registry import param, register
from ..roles import Signature, refuse_tensors
from .vectors import linear, psi

METRIC = "predictor.tensors.metric"
AT_ONCE = {"cpu": 2**20, "cuda": 2**25}
"""Entries of a tensor over pairs that are computed at once: bounds the memory that a large batch takes."""


class MessageBlock(nn.Module):
    """One Lorentz group equivariant block (Gong et al. 2022) on pairs whose features are given.

    ``m_ij = φ_e(h_i, h_j, pairs_ij)``, ``x_i ← x_i + c Σ_j φ_x(m_ij) x_j``, ``h_i ← h_i + φ_h(h_i, Σ_j φ_m(m_ij) m_ij)``.
    ``moves`` False leaves φ_x out: nothing reads the vectors after the last block.
    """

    def __init__(self, hidden: int, pairs: int, c: float, moves: bool, seed: torch.Generator) -> None:
        super().__init__()
        self.c, self.widths = c, [hidden, hidden, pairs]
        self.phi_e1 = linear(2 * hidden + pairs, hidden, seed)
        self.phi_e2 = linear(hidden, hidden, seed)
        self.phi_m = linear(hidden, 1, seed)
        self.phi_h = nn.Sequential(
            linear(2 * hidden, hidden, seed), nn.LayerNorm(hidden), nn.ReLU(), linear(hidden, hidden, seed)
        )
        self.phi_x = (
            nn.Sequential(linear(hidden, hidden, seed), nn.ReLU(inplace=True), linear(hidden, 1, seed))
            if moves
            else None
        )

    def forward(self, h: Tensor, x: Tensor, pairs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """``h [B, m, hidden]``, ``x [B, m, n]``, ``pairs [B, m, m, features]``; ``weight [B, m, m]`` of each pair in the sums."""
        # The first layer of φ_e on (h_i, h_j, pairs_ij), without putting them together for every pair.
        of_i, of_j, of_pair = self.phi_e1.weight.split(self.widths, dim=1)
        e = functional.linear(pairs, of_pair)
        e += functional.linear(h, of_i, self.phi_e1.bias)[:, :, None]
        e += functional.linear(h, of_j)[:, None]
        # As a matrix [B m m, hidden]: in place on a view of one, autograd would copy it several times.
        flat = self.phi_e2(e.relu_().flatten(0, 2)).relu_()
        m = flat.view_as(e)
        gate = self.phi_m(flat).view_as(weight).sigmoid() * weight
        h = h + self.phi_h(torch.cat([h, torch.einsum("bij,bijk->bik", gate, m)], -1))
        if self.phi_x is not None:
            x = x + self.c * (self.phi_x(flat).view_as(weight) * weight) @ x
        return h, x


class MessageNet(nn.Module, ABC):
    """Message passing over all pairs of a set's vectors: ``[B, C, m, n] -> [B, C, outputs]``, the same weights for all C.

    Scalars h_i start from a linear map of node features, go through the blocks, and their mean over the set is decoded by a
    two-layer perceptron. A vector of zeros is padding: it sends nothing, receives nothing and is not in the mean. Vectors are
    divided by ``unit`` first, one factor for all components, so it commutes with every linear map.

    Differences from the paper, all for a training that is reproducible and sees no padding: LayerNorm in φ_h alone in place
    of BatchNorm (whose statistics over padded pairs would depend on the padding, and which makes a sample's output depend
    on its batch); no dropout, whose masks would have to be saved to resume bit for bit; sums over j are divided by the
    set's nominal size m, a constant, which keeps the sums of order one and still tells how many vectors there are.
    """

    reach = 0
    unit: Tensor

    def __init__(
        self, signature: Signature, params: LorentzNetParams, nodes: int, pairs: int, seed: torch.Generator
    ) -> None:
        """``nodes``, ``pairs``: the number of features of each vector and of each pair."""
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
        """``[B, m, n] -> [B, m, nodes]``."""

    @abstractmethod
    def pair_features(self, x: Tensor) -> Tensor:
        """``[B, m, n] -> [B, m, m, pairs]``, zero or not on the diagonal, which is not used."""

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        pairs = x.shape[-2] ** 2 * self.embed.out_features
        at_once = max(1, AT_ONCE.get(x.device.type, 2**20) // pairs)
        logits = [self._logits(some) for some in x.flatten(0, 1).split(at_once)]
        return cast(Tensor, torch.cat(logits).unflatten(0, x.shape[:2]))

    def _logits(self, x: Tensor) -> Tensor:
        """``[B, m, n] -> [B, outputs]``."""
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
    """LorentzNet (Gong et al. 2022, JHEP 07, 030) of any metric: invariant under every g with ``gᵀ J g = J``.

    All it knows of the vectors are ``ψ(⟨x_i, x_i⟩_J)`` of each and ``ψ(‖x_i − x_j‖²_J)``, ``ψ(⟨x_i, x_j⟩_J)`` of each pair,
    with ``⟨x, y⟩_J = xᵀ J y``; the group is O(1, 3) for ``J = diag(1, −1, −1, −1)``. An algebra determines J up to a factor: it is
    scaled to the norm of that one, ``‖J‖_F = √n``.
    """

    metric: Tensor

    def __init__(
        self, signature: Signature, params: LorentzNetParams, metric: Tensor, seed: torch.Generator
    ) -> None:
        """``metric [n, n]``: symmetric, not degenerate; raises ``InvalidInput`` otherwise."""
        super().__init__(signature, params, 1, 2, seed)
        self.register_buffer("metric", checked_metric(metric, signature.inputs[-1]))

    def node_features(self, x: Tensor) -> Tensor:
        return psi(((x @ self.metric) * x).sum(-1, keepdim=True))

    def pair_features(self, x: Tensor) -> Tensor:
        inner = x @ self.metric @ x.mT
        square = inner.diagonal(dim1=-2, dim2=-1)
        return psi(torch.stack([square[:, :, None] + square[:, None] - 2 * inner, inner], -1))


class ParticleGraphNet(MessageNet):
    """LorentzNet without the symmetry, a baseline of the same size: it reads components, and has to learn the kinematics.

    The features are ``ψ(x_i)`` of each vector and ``ψ(x_i − x_j)`` of each pair, component by component; all else is the same.
    """

    def __init__(self, signature: Signature, params: LorentzNetParams, seed: torch.Generator) -> None:
        n = signature.inputs[-1]
        super().__init__(signature, params, n, n, seed)

    def node_features(self, x: Tensor) -> Tensor:
        return psi(x)

    def pair_features(self, x: Tensor) -> Tensor:
        return psi(x[:, :, None] - x[:, None])


def checked_metric(metric: Tensor, n: int) -> Tensor:
    """The symmetric part of ``metric [n, n]`` with norm √n, in float32; raises ``InvalidInput`` when it is none.

    >>> checked_metric(torch.tensor([[0.0, 4.0], [4.0, 0.0]]), 2)
    tensor([[0., 1.],
            [1., 0.]])
    """
    if metric.shape != (n, n):
        raise InvalidInput(f"the metric has shape {list(metric.shape)}", METRIC, f"[{n}, {n}]")
    if not (metric.dtype.is_floating_point and metric.isfinite().all()):
        raise InvalidInput(
            "the metric has entries that are not finite numbers", METRIC, "finite, floating point"
        )
    j = metric.double()
    norm = torch.linalg.matrix_norm(j)
    if torch.linalg.matrix_norm(j - j.mT) > 2e-4 * norm:
        raise InvalidInput("the metric is not symmetric", METRIC, "J = Jᵀ to 1e-4")
    j = (j + j.mT) / 2
    smallest = torch.linalg.eigvalsh(j).abs().min()
    if smallest <= 1e-6 * norm:
        raise InvalidInput(
            "the metric is degenerate: it does not see one direction",
            METRIC,
            "all eigenvalues other than zero",
            "compute it from generators that determine it",
        )
    scaled: Tensor = j * (math.sqrt(n) / norm)
    return scaled.float()


@dataclass(frozen=True)
class LorentzNetParams:
    hidden: int = param(24, "Width of the scalars and of the messages", minimum=1, maximum=4096)
    layers: int = param(3, "Blocks of message passing", minimum=1, maximum=64)
    unit: float = param(
        0.03, "What vectors are divided by, in root mean squares of the data's entries", minimum=1e-6
    )
    c: float = param(1e-3, "Factor of the messages that move vectors", minimum=0)


@register(
    "predictor",
    "lorentznet",
    "LorentzNet (Gong et al. 2022), invariant under the group that keeps tensors.metric",
    LorentzNetParams,
)
def make_lorentznet(
    params: LorentzNetParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> LorentzNet:
    signature.require("vectors", "lorentznet")
    refuse_tensors(tensors, "metric")
    return LorentzNet(signature, params, tensors["metric"], seed)


@register(
    "predictor",
    "particle_graph",
    "LorentzNet's message passing on components, without a symmetry: a baseline of the same size",
    LorentzNetParams,
)
def make_particle_graph(
    params: LorentzNetParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> ParticleGraphNet:
    signature.require("vectors", "particle_graph")
    refuse_tensors(tensors)
    return ParticleGraphNet(signature, params, seed)
