"""Kernels that are invariant under a group, and the equivariance of networks made of them."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.resample import transform
from atlas_worker.interfaces import Signature
from atlas_worker.predictors.convnet import ConvNet, ConvNetParams, make_convnet
from atlas_worker.symmetry.kernels import (
    averaged_kernels,
    gauge_group,
    grid_symmetries,
    invariant_form,
    invariant_polynomials,
    smooth_kernels,
)

from .tasks import J

Kernel = Literal["free", "c4", "smooth"]
NEARLY = torch.tensor([[[0.03, -1.0], [1.02, -0.05]]])
"""As so(2) is discovered."""
NONE = torch.zeros(0, 2, 2)
SCALING = torch.eye(2)[None]
SHEAR = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
BOOST = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
GL = torch.eye(4).view(4, 2, 2)


def turn(degrees: float) -> Tensor:
    return torch.matrix_exp(math.radians(degrees) * J)


@pytest.mark.parametrize(
    ("algebra", "turns", "averaged", "smooth"),
    [
        (NONE, 1, 25, 25),
        (J[None], 4, 7, 4),
        (NEARLY, 4, 7, 4),
        # Off by 5°, as much as a discovery may be, in either way.
        (J[None] + 0.087 * torch.eye(2), 4, 7, 4),
        (J[None] + torch.tensor([[0.0, 0.12], [0.0, 0.0]]), 4, 7, 4),
        # A spiral comes near a quarter turn either way, but not near a half turn: no group is left.
        (J[None] + 0.2 * torch.eye(2), 1, 25, 1),
        (SCALING, 1, 25, 1),
        (GL, 4, 7, 1),
    ],
)
def test_how_many_kernels_a_group_leaves(
    algebra: Tensor, turns: int, averaged: int, smooth: int
) -> None:
    assert len(grid_symmetries(algebra)) == turns
    assert len(averaged_kernels(algebra, 5)) == averaged
    assert len(smooth_kernels(algebra, 5, 8, 1.2)) == smooth


@pytest.mark.parametrize("algebra", [NONE, J[None], NEARLY, SCALING, SHEAR, BOOST, GL])
def test_kernels_are_orthonormal(algebra: Tensor) -> None:
    for basis in (averaged_kernels(algebra, 5), smooth_kernels(algebra, 5, 6, 1.2)):
        flat = basis.flatten(1)
        assert torch.allclose(flat @ flat.T, torch.eye(len(flat), dtype=flat.dtype), atol=1e-9)


@pytest.mark.parametrize("algebra", [J[None], NEARLY])
def test_kernels_of_rotations_are_the_same_after_a_quarter_turn(algebra: Tensor) -> None:
    for basis in (averaged_kernels(algebra, 5), smooth_kernels(algebra, 5, 6, 1.2)):
        assert torch.allclose(basis.rot90(1, (1, 2)), basis, atol=1e-9)


def test_smooth_kernels_of_rotations_depend_on_the_radius_alone() -> None:
    r = torch.arange(-2, 3).square()
    radius = r[:, None] + r
    for kernel in smooth_kernels(J[None], 5, 6, 1.2):
        for value in radius.unique():
            there = kernel[radius == value]
            assert float(there.max() - there.min()) < 1e-9


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(
    ("algebra", "even", "odd"),
    [(J[None], 1, 0), (BOOST, 1, 0), (SHEAR, 1, 1), (SCALING, 0, 0), (GL, 0, 0)],
)
def test_invariant_polynomials_are_those_of_invariant_theory(
    algebra: Tensor, even: int, odd: int, degree: int
) -> None:
    assert len(invariant_polynomials(algebra, degree)) == (odd if degree % 2 else even)


def test_the_invariant_form_is_there_for_compact_groups_alone() -> None:
    form = invariant_form(J[None])
    assert form is not None
    assert torch.allclose(form, torch.eye(2, dtype=torch.float64), atol=1e-9)
    ellipse = torch.diag(torch.tensor([1.3, 1 / 1.3]))
    form = invariant_form((ellipse @ J @ ellipse.inverse())[None])
    assert form is not None
    assert form[0, 0] < form[1, 1]  # keeps |ellipse⁻¹ u|
    for algebra in (SCALING, SHEAR, BOOST, GL):
        assert invariant_form(algebra) is None


def network(kernel: Kernel, seed: int = 0) -> ConvNet:
    signature = Signature("planar", 1, (1, 60, 120), 11, 14)
    tensors = {} if kernel == "free" else {"algebra": NEARLY}
    params = ConvNetParams(kernel=kernel)
    net = make_convnet(
        params, signature=signature, tensors=tensors, seed=torch.Generator().manual_seed(seed)
    )
    return net.eval().requires_grad_(False)


def blobs(size: int) -> Tensor:
    """Smooth fields that vanish well within the chart: ``[4, 1, 1, size, size]``."""
    generator = torch.Generator().manual_seed(1)
    t = torch.arange(size) - size // 2
    u = torch.stack(torch.meshgrid(t, t, indexing="ij"), -1).float()
    centres = 5 * torch.randn(4, 6, 1, 1, 2, generator=generator).clamp(-1.5, 1.5)
    return (-(u - centres).square().sum(-1) / 18).exp().sum(1)[:, None, None]


def error(net: ConvNet, degrees: float) -> float:
    """``‖f(gx) − g f(x)‖ / ‖f(x) − mean‖`` within 9 pixels of the centre."""
    x, g = blobs(29), turn(degrees)
    y = net(x)
    difference = transform(net(transform(x, g, 14)), torch.eye(2), 6) - transform(y, g, 6)
    inner = transform(y, torch.eye(2), 6)
    return float(difference.norm() / (inner - inner.mean((0, 3, 4), keepdim=True)).norm())


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("kernel", ["c4", "smooth"])
def test_an_invariant_network_is_equivariant_under_quarter_turns(
    kernel: Kernel, degrees: float
) -> None:
    x = blobs(29)
    net = network(kernel)
    turned = net(x.rot90(degrees // 90, (3, 4)))
    assert torch.allclose(turned, net(x).rot90(degrees // 90, (3, 4)), atol=1e-5)


@pytest.mark.parametrize("degrees", [15, 30, 45, 90])
def test_invariant_networks_err_little_between_quarter_turns_and_a_free_one_much(
    degrees: float,
) -> None:
    assert error(network("c4"), degrees) < 0.1
    assert error(network("smooth"), degrees) < 0.1
    assert error(network("free"), degrees) > 0.3


@pytest.mark.parametrize(
    "algebra",
    [
        torch.zeros(1, 3, 3),
        torch.zeros(2, 2),
        torch.zeros(1, 2, 2),
        torch.full((1, 2, 2), math.nan),
    ],
)
def test_an_algebra_of_another_size_is_refused(algebra: Tensor) -> None:
    signature = Signature("planar", 1, (1, 60, 120), 11, 14)
    with pytest.raises(InvalidInput) as caught:
        make_convnet(
            ConvNetParams(kernel="smooth"),
            signature=signature,
            tensors={"algebra": algebra},
            seed=torch.Generator(),
        )
    assert caught.value.field == "predictor.tensors.algebra"


def test_a_free_network_takes_no_algebra() -> None:
    with pytest.raises(InvalidInput):
        make_convnet(
            ConvNetParams(),
            signature=Signature("planar", 1, (1, 60, 120), 11, 14),
            tensors={"algebra": J[None]},
            seed=torch.Generator(),
        )


def test_weights_of_kernels_with_another_symmetry_are_refused() -> None:
    own, other = network("smooth"), network("smooth", seed=1)
    own.load_state_dict(other.state_dict())
    assert torch.equal(own(blobs(29)), other(blobs(29)))
    ours = own.state_dict()
    ours["convs.3.basis"] = ours["convs.3.basis"].flip(0)
    with pytest.raises(InvalidInput, match="another symmetry"):
        own.load_state_dict(ours)


SL = torch.cat([SHEAR, SHEAR.mT, torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])])
GROUPS = {
    "so(2)": (J[None], "SO(2)"),
    "so(2), the other way": (-3 * J[None], "SO(2)"),
    "so(2), as it is discovered": (NEARLY, "SO(2)"),
    "so(2), twice": (torch.stack([J, 2 * J]), "SO(2)"),
    "so(2) and scaling": (torch.stack([J, torch.eye(2)]), "GL+(2)"),
    "the same, mixed": (torch.stack([J + torch.eye(2), J - torch.eye(2)]), "GL+(2)"),
    "sl(2)": (SL, "GL+(2)"),
    "gl(2)": (GL, "GL+(2)"),
}


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("name", GROUPS)
def test_the_gauge_group_is_that_of_the_kernels_left(name: str, noise: float) -> None:
    algebra, expected = GROUPS[name]
    for seed in range(10):
        off = noise * torch.randn(algebra.shape, generator=torch.Generator().manual_seed(seed))
        assert gauge_group(algebra * (1 + off) + off) == expected


@pytest.mark.parametrize("seed", range(50))
def test_the_gauge_group_does_not_depend_on_the_basis(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for algebra in (torch.stack([J, torch.eye(2)]), torch.stack([J, SL[0]]), GL):
        k = len(algebra)
        mix = torch.randn(k, k, generator=generator).double()
        basis = torch.einsum("ij,jab->iab", mix, algebra.double())
        # Beyond that they are nearly all the same.
        if torch.linalg.cond(functional.normalize(basis.flatten(1))) < 8:
            assert gauge_group(basis) == "GL+(2)"


@pytest.mark.parametrize(("angle", "expected"), [(0.1, "SO(2)"), (0.19, "SO(2)"), (0.22, "GL+(2)")])
def test_generators_that_nearly_agree_are_one(angle: float, expected: str) -> None:
    """The common direction is half-way between two, each half their angle off."""
    other = math.cos(angle) * J / math.sqrt(2) + math.sin(angle) * torch.eye(2) / math.sqrt(2)
    assert gauge_group(torch.stack([J, 3 * other])) == expected
    with pytest.raises(InvalidInput):
        gauge_group(torch.stack([SHEAR[0], SHEAR[0] + 0.1 * J]))


@pytest.mark.parametrize(
    "algebra",
    [
        NONE,
        torch.zeros(1, 2, 2),
        SHEAR,
        SCALING,
        torch.stack([torch.eye(2), SL[2]]),
        torch.stack([SL[0], SL[2], torch.eye(2)]),
        J[None] * math.nan,
        torch.zeros(1, 3, 3),
        J,
    ],
)
def test_an_algebra_without_rotations_is_no_gauge_group(algebra: Tensor) -> None:
    with pytest.raises(InvalidInput) as caught:
        gauge_group(algebra)
    assert caught.value.field == "predictor.tensors.algebra"
    assert "\n" not in caught.value.message
