"""Steerable kernels and networks: they turn with the field, whatever the coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.resample import transform
from atlas_worker.interfaces import Signature
from atlas_worker.predictors.steerable import (
    SteerableCnnParams,
    SteerableUnetParams,
    UnetParams,
    make_steerable_cnn,
    make_steerable_unet,
    make_unet,
)
from atlas_worker.symmetry.kernels import smoothing_kernel, steerable_kernels

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


def net(algebra: Tensor, kind: str = "cnn", orders: int = 2, radius: int = 20) -> torch.nn.Module:
    on = {
        "signature": Signature("planar", 1, (1, 2 * radius + 1, 2 * radius + 1), 2, radius=radius),
        "tensors": {"algebra": algebra},
        "seed": torch.Generator().manual_seed(0),
    }
    module: torch.nn.Module
    if kind == "cnn":
        module = make_steerable_cnn(SteerableCnnParams(scalars=4, vectors=3, orders=orders), **on)
    else:
        params = SteerableUnetParams(scalars=4, vectors=3, orders=orders, layers=3, head=6)
        module = make_steerable_unet(params, **on)
    return module.double().eval()


def blobs() -> Tensor:
    """A smooth field in the middle of a chart, without symmetry, ``[1, 1, 1, 41, 41]``."""
    axis = torch.linspace(-1, 1, 41, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    spots = [(0.1, 0.2, 1.0), (-0.2, 0.1, -0.7), (0.15, -0.25, 0.5)]
    field = sum(c * (-((y - a) ** 2 + (x - b) ** 2) / 0.02).exp() for a, b, c in spots)
    return torch.as_tensor(field)[None, None, None]


@pytest.mark.parametrize(
    ("kind", "orders", "radius"),
    [("cnn", 2, 20), ("unet", 2, 20), ("unet", 2, 9), ("unet", 1, 7), ("unet", 0, 1)],
)
def test_a_network_commutes_with_quarter_turns_to_rounding(
    kind: str, orders: int, radius: int
) -> None:
    f = net(J[None], kind, orders, radius)
    size, seed = 2 * radius + 1, torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 1, size, size, dtype=torch.float64, generator=seed)
    with torch.no_grad():
        y = f(x)
        assert torch.allclose(f(x.rot90(1, (-2, -1))), y.rot90(1, (-2, -1)), atol=1e-8)
        # Isotropic kernels commute with reflections too.
        assert torch.allclose(f(x.flip(-1)), y.flip(-1), atol=1e-4) == (orders == 0)


@pytest.mark.parametrize("kind", ["cnn", "unet"])
@pytest.mark.parametrize("stretch", [1.0, 1.3])
def test_a_network_nearly_commutes_with_any_turn(stretch: float, kind: str) -> None:
    s = torch.diag(torch.tensor([1.0, stretch]))
    turn = s @ J @ torch.linalg.inv(s)
    f, x = net(turn[None], kind), blobs()
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


def test_a_baseline_has_as_many_weights_and_any_kernel() -> None:
    size, seed = 29, torch.Generator().manual_seed(0)
    signature = Signature("planar", 3, (1, size, size), 11, radius=14)
    free = make_unet(UnetParams(), signature=signature, tensors={}, seed=seed)
    turned = make_steerable_unet(
        SteerableUnetParams(), signature=signature, tensors={"algebra": J[None]}, seed=seed
    )
    weights = [sum(p.numel() for p in net.parameters()) for net in (free, turned)]
    assert 0.9 < weights[0] / weights[1] < 1.1
    x = torch.randn(2, 3, 1, size, size, generator=seed)
    errors = []
    for net in (free.eval(), turned.eval()):
        with torch.no_grad():
            y, z = net(x), net(x.rot90(1, (-2, -1)))
        assert y.shape == (2, 3, 11, size, size)
        errors.append(float((z - y.rot90(1, (-2, -1))).norm() / y.std() / y.numel() ** 0.5))
    assert errors[0] > 0.1
    assert errors[1] < 1e-4
    # One entry of a kernel alone is among the kernels.
    kernels = free.convs[1].get_buffer("basis_0_0").flatten(1)
    assert torch.equal(kernels @ kernels.mT, torch.eye(25))


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


def test_smoothing_keeps_what_is_constant_and_turns_into_itself() -> None:
    stretch = torch.diag(torch.tensor([1.0, 1.3]))
    kernel = smoothing_kernel((stretch @ J @ torch.linalg.inv(stretch))[None], 5, 1.0)
    assert float(kernel.sum()) == pytest.approx(1)
    assert torch.allclose(kernel, kernel.flip(0))
    assert torch.allclose(kernel, kernel.flip(1))
    # The ellipse is longer along the second axis, by the stretch.
    assert float((kernel[2, 2] / kernel[0, 2]).log() / (kernel[2, 2] / kernel[2, 0]).log()) == (
        pytest.approx(1.3**2, rel=1e-4)
    )


def test_half_precision_trains_a_network_with_a_single_chart() -> None:
    f, x = net(J[None], "unet").float().train(), blobs().float()
    with torch.autocast("cpu", torch.bfloat16):
        y = f(x)
    y.float().square().mean().backward()
    gradients = [w.grad for w in f.parameters()]
    assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    assert f.gates[1].square.dtype == torch.float32  # type: ignore[union-attr, index]
