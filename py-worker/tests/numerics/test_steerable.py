"""Steerable kernels and networks: they turn with the field, whatever the coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.resample import transform
from atlas_worker.interfaces import Signature
from atlas_worker.predictors.steerable import SteerableCnnParams, make_steerable_cnn
from atlas_worker.symmetry.kernels import steerable_kernels

from .tasks import J

ORDERS = [(a, b) for a in range(3) for b in range(3)]


def harmonic(order: int, angle: float) -> Tensor:
    """The turn ρ_m by ``order · angle``; one component for order 0."""
    turn = torch.matrix_exp(order * angle * J.double())
    return turn if order else torch.ones(1, 1, dtype=torch.float64)


@pytest.mark.parametrize(("before", "after"), ORDERS)
def test_kernels_turn_with_the_field(before: int, after: int) -> None:
    kernels = steerable_kernels(J[None], 5, before, after, 3)
    # 3 rings; the centre alone carries no harmonic, but other rings reach beyond it.
    assert len(kernels) >= 3
    moved = kernels.rot90(1, (-2, -1))  # K(g⁻¹ u) for the quarter turn g of rows into columns
    a, b = (harmonic(m, math.pi / 2) for m in (before, after))
    turned = torch.einsum("qr,drpij,sp->dqsij", b, moved, a)  # ρ_after K ρ_beforeᵀ
    assert torch.allclose(turned, kernels, atol=1e-9)


def net(algebra: Tensor, seed: int = 0) -> torch.nn.Module:
    stream = torch.Generator().manual_seed(seed)
    module = make_steerable_cnn(
        SteerableCnnParams(scalars=4, vectors=3),
        signature=Signature("planar", 1, (1, 41, 41), 2, radius=20),
        tensors={"algebra": algebra},
        seed=stream,
    ).double()
    return module.eval()


def blobs() -> Tensor:
    """A smooth field in the middle of a chart, without symmetry, ``[1, 1, 1, 41, 41]``."""
    axis = torch.linspace(-1, 1, 41, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    spots = [(0.1, 0.2, 1.0), (-0.2, 0.1, -0.7), (0.15, -0.25, 0.5)]
    field = sum(c * (-((y - a) ** 2 + (x - b) ** 2) / 0.02).exp() for a, b, c in spots)
    return torch.as_tensor(field)[None, None, None]


def test_a_network_commutes_with_quarter_turns_to_rounding() -> None:
    f, x = net(J[None]), blobs()
    with torch.no_grad():
        y = f(x)
        assert torch.allclose(f(x.rot90(1, (-2, -1))), y.rot90(1, (-2, -1)), atol=1e-8)
        assert not torch.allclose(f(x.flip(-1)), y.flip(-1), atol=1e-4)


@pytest.mark.parametrize("stretch", [1.0, 1.3])
def test_a_network_nearly_commutes_with_any_turn(stretch: float) -> None:
    s = torch.diag(torch.tensor([1.0, stretch]))
    turn = s @ J @ torch.linalg.inv(s)
    f, x = net(turn[None]), blobs()
    errors = []
    for angle in (0.4, 0.9):
        for generator in (turn, J @ torch.diag(torch.tensor([1.0, 2.5]))):
            g = torch.matrix_exp(angle * generator).double()[None]
            with torch.no_grad():
                moved = transform(x, g, 20)
                after = transform(f(x), g, 20)
                error = (f(moved) - after)[..., 8:-8, 8:-8].norm() / after[..., 8:-8, 8:-8].norm()
            errors.append(float(error))
    right, wrong = errors[::2], errors[1::2]
    assert max(right) < 0.12
    assert all(a < 0.5 * b for a, b in zip(right, wrong, strict=True))


def test_only_rotations_have_angular_orders() -> None:
    for algebra in (torch.eye(2)[None], torch.stack([J, torch.eye(2)])):
        with pytest.raises(InvalidInput, match="not one rotation"):
            steerable_kernels(algebra, 5, 0, 1, 3)


def test_kernels_of_one_ring_are_refused() -> None:
    with pytest.raises(InvalidInput, match="one ring"):
        make_steerable_cnn(
            SteerableCnnParams(rings=1),
            signature=Signature("planar", 1, (1, 41, 41), 2, radius=20),
            tensors={"algebra": J[None]},
            seed=torch.Generator(),
        )
