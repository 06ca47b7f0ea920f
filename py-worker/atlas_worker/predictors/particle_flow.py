"""A set network on the usual kinematic features of a jet's particles (METHOD 5.1)."""

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
from ..errors import InvalidInput
from ..interfaces import Signature, refuse_tensors
from .sizing import parameters_field, sized
from .vectors import linear

FEATURES = 7
"""Number of features of a particle."""
SMALLEST = 1e-6
"""Least momentum whose logarithm is taken, in units of the data's root mean square."""


class ParticleFlowNet(nn.Module):
    """A particle flow network: ``[B, C, m, 4] -> [B, C, outputs]``.

    A perceptron reads the features of each particle, its outputs are summed over the set, and
    another perceptron decodes the sum (Komiske, Metodiev and Thaler 2019). The vectors are
    ``(E, p_x, p_y, p_z)``, with the beam along z. The features are those of ParticleNet (Qu and
    Gouskos 2020): with ``p_T`` the transverse momentum, η the pseudorapidity and φ the azimuth,

        log p_T, log E, log p_T/p_T(jet), log E/E(jet), Δη, Δφ, ΔR

    relative to the jet, which is the sum of the vectors. So the network knows about the beam and
    the jet's axis, and of Lorentz's group it has the rotations about the beam alone, since it also
    reads ``log E``. Vectors of zeros are padding and do not count. Features are standardised once,
    by a sample of the data. Sums are divided by the set's nominal size.

    Args:
        signature: Shapes and scale of the data, and a sample if there is one.
        params: The parameters.
        seed: Source of the initial weights.

    Raises:
        InvalidInput: The vectors have not four components.
    """

    halo = 0
    """There are no pixels."""
    smallest: Tensor
    """Least momentum whose logarithm is taken."""
    mean: Tensor
    """Mean of the features, ``[7]``."""
    spread: Tensor
    """Standard deviation of the features, ``[7]``."""

    def __init__(
        self, signature: Signature, params: ParticleFlowParams, seed: torch.Generator
    ) -> None:
        super().__init__()
        if signature.inputs[-1] != 4:
            raise InvalidInput(
                f"particle_flow reads (E, px, py, pz), and vectors have {signature.inputs[-1]} "
                "components",
                "predictor.architecture.kind",
                "vectors of four components",
                "choose another architecture",
            )
        self.nominal = signature.inputs[0]
        self.register_buffer("smallest", torch.tensor(SMALLEST * signature.scale))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("spread", torch.ones(FEATURES))
        hidden = [params.width] * params.layers
        self.each = _layers([FEATURES, *hidden], seed)
        self.decode = _layers([*hidden[:1], *hidden, signature.outputs], seed)
        if signature.sample is not None:
            x = signature.sample.float().cpu()
            features = self.features(x)[(x != 0).any(-1)]
            if len(features) > 1:
                self.mean.copy_(features.mean(0))
                self.spread.copy_(features.std(0).clamp(min=SMALLEST))

    def features(self, x: Tensor) -> Tensor:
        """Compute the features ``[B, m, 7]`` of particles ``x [B, m, 4]``."""
        energy, transverse, rapidity, azimuth = self._kinematics(x)
        jet = [part[..., None] for part in self._kinematics(x.sum(-2))]
        along = rapidity - jet[2]
        around = azimuth - jet[3]
        around = torch.remainder(around + math.pi, 2 * math.pi) - math.pi
        apart = (along.square() + around.square() + SMALLEST**2).sqrt()
        logs = [transverse.log(), energy.log(), (transverse / jet[1]).log()]
        return torch.stack([*logs, (energy / jet[0]).log(), along, around, apart], -1)

    def _kinematics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Energy, transverse momentum, pseudorapidity and azimuth of vectors ``[..., 4]``."""
        energy, px, py, pz = x.unbind(-1)
        square = (px.square() + py.square()).clamp(min=self.smallest.square())
        transverse = square.sqrt()
        # At the beam the azimuth is that of x, so that the gradient is finite.
        azimuth = torch.atan2(py, torch.where((px == 0) & (py == 0), self.smallest, px))
        rapidity = torch.asinh(pz / transverse)
        return energy.clamp(min=self.smallest), transverse, rapidity, azimuth

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute logits ``[B, C, outputs]`` of ``x [B, C, m, 4]``."""
        flat = x.flatten(0, 1)
        real = (flat != 0).any(-1, keepdim=True).to(flat.dtype)
        h = (self.features(flat) - self.mean) / self.spread
        for layer in self.each:
            h = functional.silu(layer(h))
        h = (h * real).sum(1) / self.nominal
        for layer in self.decode[:-1]:
            h = functional.silu(layer(h))
        logits: Tensor = self.decode[-1](h)
        return cast(Tensor, logits.unflatten(0, x.shape[:2]))


def _layers(widths: list[int], seed: torch.Generator) -> nn.ModuleList:
    return nn.ModuleList(linear(a, b, seed) for a, b in itertools.pairwise(widths))


@dataclass(frozen=True)
class ParticleFlowParams:
    """Parameters of the architecture ``particle_flow`` (METHOD 5.1)."""

    width: int = param(64, "Units of each hidden layer", minimum=1, maximum=4096)
    layers: int = param(2, "Hidden layers before the sum, and after it", minimum=1, maximum=16)
    parameters: int = parameters_field()


@register(
    "architecture",
    "particle_flow",
    "Particle flow network (Komiske et al. 2019) on kinematic features of (E, px, py, pz)",
    ParticleFlowParams,
    manifolds=("vectors",),
)
def make_particle_flow(
    params: ParticleFlowParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> ParticleFlowNet:
    """Build a :class:`ParticleFlowNet`."""
    refuse_tensors(tensors)

    def build(params: ParticleFlowParams, seed: torch.Generator) -> ParticleFlowNet:
        return ParticleFlowNet(signature, params, seed)

    return build(sized(params, "width", build), seed)
