"""Exponential, bracket, frames and principal angles against closed forms and their own laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atlas_worker.symmetry import lie

from .tasks import J

numerics = settings.get_profile("numerics")
seeds = st.integers(0, 2**31)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < tolerance)


@numerics
@given(st.floats(-20, 20))
def test_expm_is_rotation_boost_scaling_and_shear(t: float) -> None:
    # PyTorch's float64 exponential errs by up to 2e-10 just below norms where it adds more terms.
    c, s = math.cos(t), math.sin(t)
    assert near(lie.expm(t * J.double()), torch.tensor([[c, -s], [s, c]], dtype=torch.float64))
    shear = torch.tensor([[0.0, t], [0.0, 0.0]], dtype=torch.float64)
    assert near(lie.expm(shear), torch.eye(2).double() + shear, 1e-12)
    boost = lie.expm(t / 4 * torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
    h = torch.tensor(
        [[math.cosh(t / 4), math.sinh(t / 4)], [math.sinh(t / 4), math.cosh(t / 4)]]
    ).double()
    assert bool(((boost - h).abs() < 1e-6 * h.abs().max()).all())


@numerics
@given(seeds)
def test_expm_of_the_negative_is_the_inverse_and_its_determinant_is_the_exponential_of_the_trace(
    seed: int,
) -> None:
    a = random(seed, 3, 3)
    assert near(lie.expm(a) @ lie.expm(-a), torch.eye(3).double())
    assert torch.linalg.det(lie.expm(a)) == pytest.approx(math.exp(float(a.trace())), rel=1e-9)


@numerics
@given(seeds)
def test_bracket_is_antisymmetric_bilinear_and_satisfies_jacobi(seed: int) -> None:
    a, b, c = random(seed, 3, 4, 4)
    assert near(lie.bracket(a, b), -lie.bracket(b, a))
    assert near(lie.bracket(2 * a + b, c), 2 * lie.bracket(a, c) + lie.bracket(b, c))
    jacobi = (
        lie.bracket(a, lie.bracket(b, c))
        + lie.bracket(b, lie.bracket(c, a))
        + lie.bracket(c, lie.bracket(a, b))
    )
    assert near(jacobi, torch.zeros(4, 4).double())


def test_combine_broadcasts_coefficients_over_leading_dimensions() -> None:
    basis, eta = random(1, 5, 1, 3, 2, 2), random(2, 4, 3)
    expected = torch.einsum("sbi,sbixy->sxy", eta[None].expand(5, 4, 3)[:, :1], basis)
    assert near(lie.combine(basis, eta)[:, 0], expected)
    assert lie.combine(basis, eta).shape == (5, 4, 2, 2)


@numerics
@given(seeds, st.integers(2, 4), st.data())
def test_frame_is_orthonormal_and_spans_the_same_nested_subspaces(
    seed: int, n: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n * n))
    basis = random(seed, 2, k, n, n)
    frame = lie.frame(basis)
    gram = torch.einsum("skij,slij->skl", frame, frame)
    assert near(gram, torch.eye(k).double().expand(2, k, k))
    for j in range(1, k + 1):
        coordinates = lie.project(frame[0, :j], basis[0, :j])
        assert near(torch.einsum("ak,kij->aij", coordinates, frame[0, :j]), basis[0, :j], 1e-8)
    # Gram-Schmidt keeps each member on the side of what it was made from.
    assert bool(((frame * basis).sum((-2, -1)) > 0).all())


@numerics
@given(seeds)
def test_frame_leaves_an_orthonormal_basis_alone(seed: int) -> None:
    frame = lie.frame(random(seed, 4, 3, 3))
    assert near(lie.frame(frame), frame, 1e-12)


def test_frame_of_nothing_is_nothing() -> None:
    assert lie.frame(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


def test_frame_is_differentiable() -> None:
    basis = random(3, 3, 2, 2).requires_grad_(True)
    assert torch.autograd.gradcheck(lie.frame, (basis,))


@pytest.mark.parametrize("k", [0, 1, 3, 9])
def test_complement_completes_a_frame(k: int) -> None:
    frame = lie.frame(random(4, k, 3, 3))
    everything = torch.cat([frame, lie.complement(frame)]).flatten(1)
    assert near(everything @ everything.T, torch.eye(9).double())


def test_complement_of_coordinate_axes() -> None:
    """The complement is found even if the frame lies along the axes that complete it."""
    axes = torch.eye(4).double().unflatten(1, (2, 2))
    for k in range(5):
        everything = torch.cat([axes[:k], lie.complement(axes[:k])]).flatten(1)
        assert near(everything @ everything.T, torch.eye(4).double())


@numerics
@given(seeds)
def test_projection_is_idempotent_and_leaves_an_orthogonal_rest(seed: int) -> None:
    frame, a = lie.frame(random(seed, 3, 3, 3)), random(seed + 1, 3, 3)
    p = torch.einsum("k,kij->ij", lie.project(frame, a), frame)
    assert near(lie.project(frame, p), lie.project(frame, a))
    assert near(lie.project(frame, a - p), torch.zeros(3).double())


@pytest.mark.parametrize("angle", [0.01, 0.5, 1.2, math.pi / 2])
def test_principal_angle_of_two_lines_is_the_angle_between_them(angle: float) -> None:
    a, b = lie.frame(random(5, 2, 3, 3))
    turned = 3.0 * (math.cos(angle) * a - math.sin(angle) * b)
    assert lie.principal_angles(a[None], turned[None]).tolist() == pytest.approx([angle], abs=1e-7)


def test_principal_angles_are_sorted_and_do_not_depend_on_the_bases() -> None:
    e = lie.frame(random(6, 4, 3, 3))
    plane = e[:2]
    other = torch.stack(
        [math.cos(0.2) * e[0] + math.sin(0.2) * e[2], math.cos(0.9) * e[1] + math.sin(0.9) * e[3]]
    )
    mixed = torch.einsum("kl,lij->kij", torch.tensor([[2.0, 1.0], [-1.0, 3.0]]).double(), other)
    assert lie.principal_angles(plane, mixed).tolist() == pytest.approx([0.2, 0.9], abs=1e-7)
    assert lie.principal_angles(plane, e[2:]).tolist() == pytest.approx([math.pi / 2] * 2, abs=1e-7)
    assert lie.principal_angles(plane, torch.cat([mixed, e[:1]])).shape == (2,)
