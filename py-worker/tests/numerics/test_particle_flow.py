"""A particle flow network: its features, and what it is invariant under."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.interfaces import Signature
from atlas_worker.predictors.particle_flow import ParticleFlowNet, ParticleFlowParams


def momenta(transverse: Tensor, rapidity: Tensor, azimuth: Tensor) -> Tensor:
    """Massless ``(E, px, py, pz)`` of particles."""
    parts = [rapidity.cosh(), azimuth.cos(), azimuth.sin(), rapidity.sinh()]
    return transverse[..., None] * torch.stack(parts, -1)


def jets(count: int = 64) -> Tensor:
    """Jets of five particles and a row of padding, ``[count, 6, 4]``."""
    seed = torch.Generator().manual_seed(0)
    pt = 20 * torch.rand(count, 5, generator=seed) + 1
    spread = 0.4 * torch.randn(count, 5, 2, generator=seed)
    axis = 6 * torch.rand(count, 1, generator=seed)
    x = momenta(pt, 1 + spread[..., 0], axis + spread[..., 1])
    return torch.cat([x, torch.zeros(count, 1, 4)], 1)


def net(n: int = 4) -> ParticleFlowNet:
    x = jets()
    signature = Signature("vectors", 1, (6, n), 2, scale=float(x.square().mean().sqrt()), sample=x)
    seed = torch.Generator().manual_seed(0)
    return ParticleFlowNet(signature, ParticleFlowParams(width=16), seed).eval()


def test_features_are_those_of_the_particles_about_their_jet() -> None:
    # Two particles on either side of the azimuth where it jumps by a turn.
    pt, eta, phi = torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.5]), torch.tensor([3.1, -3.1])
    x = momenta(pt, eta, phi)
    total = x.sum(0)
    jet_pt, jet_phi = float(total[1:3].norm()), math.atan2(total[2], total[1])
    features = net().features(x[None])[0]
    pz, energy = total[3], total[0]
    assert torch.allclose(features[:, 0], pt.log(), atol=1e-5)
    assert torch.allclose(features[:, 1], x[:, 0].log(), atol=1e-5)
    assert torch.allclose(features[:, 2], (pt / jet_pt).log(), atol=1e-5)
    assert torch.allclose(features[:, 3], (x[:, 0] / energy).log(), atol=1e-5)
    assert torch.allclose(features[:, 4], eta - torch.asinh(pz / jet_pt), atol=1e-5)
    around = features[:, 5]
    assert float(around[1] - around[0]) == pytest.approx(2 * math.pi - 6.2, abs=1e-5)
    assert float(around[0]) == pytest.approx(3.1 - jet_phi, abs=1e-5)
    assert torch.allclose(features[:, 6], features[:, 4:6].norm(dim=1), atol=1e-5)


def test_order_padding_and_turns_about_the_beam_do_not_matter_and_boosts_do() -> None:
    f, x = net(), jets()
    with torch.no_grad():
        y = f(x[:, None])
        assert y.shape == (64, 1, 2)
        spread = float(y.std(0).mean())
        turn, boost = torch.eye(4), torch.eye(4)
        turn[1:3, 1:3] = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
        boost[:2, :2] = torch.tensor([[1.25, 0.75], [0.75, 1.25]])
        for same in (x[:, [5, 3, 0, 4, 1, 2]], x @ turn.mT):
            assert float((f(same[:, None]) - y).abs().max()) < 0.01 * spread
        assert float((f((x @ boost.mT)[:, None]) - y).abs().mean()) > 0.1 * spread


def test_outputs_and_gradients_are_finite_along_the_beam() -> None:
    f = net()
    x = torch.zeros(1, 1, 6, 4)
    x[0, 0, 0] = torch.tensor([5.0, 0.0, 0.0, 5.0])
    x.requires_grad_()
    f(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert f(torch.zeros(1, 1, 6, 4)).isfinite().all()


def test_vectors_without_four_components_are_refused() -> None:
    with pytest.raises(InvalidInput, match="3 components"):
        net(3)
