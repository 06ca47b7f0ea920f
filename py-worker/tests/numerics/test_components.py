"""One component or not: closed forms, change of basis, and the published way's verdicts."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.symmetry import lie
from atlas_worker.symmetry.components import SAME, compare, residual

numerics = settings.get_profile("numerics")
few = settings(numerics, max_examples=8)
seeds = st.integers(0, 2**31)


def unit(n: int, i: int, j: int) -> Tensor:
    e = torch.zeros(n, n, dtype=torch.float64)
    e[i, j] = 1
    return e


def so(n: int) -> Tensor:
    return torch.stack([unit(n, j, i) - unit(n, i, j) for i in range(n) for j in range(i + 1, n)])


def lorentz() -> Tensor:
    """so(1, 3): three boosts, then three rotations; time is the first coordinate."""
    boosts = [unit(4, 0, i) + unit(4, i, 0) for i in (1, 2, 3)]
    turns = [unit(4, j, i) - unit(4, i, j) for i, j in ((1, 2), (1, 3), (2, 3))]
    return torch.stack(boosts + turns)


def gl(n: int) -> Tensor:
    return torch.eye(n * n, dtype=torch.float64).unflatten(1, (n, n))


def diag(*entries: float) -> Tensor:
    return torch.diag(torch.tensor(entries, dtype=torch.float64))


def rotation(angle: float) -> Tensor:
    return lie.expm(angle * so(2)[0])


def one(basis: Tensor, matrix: Tensor) -> float:
    return float(residual(basis, matrix[None])[0])


def element(basis: Tensor, seed: int, size: float) -> Tensor:
    """A product of exponentials of a random combination of the basis of norm ``size``."""
    w = torch.randn(len(basis), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lie.expm(lie.combine(lie.frame(basis), size * w / w.norm()))


@pytest.mark.parametrize(
    "degrees", [0, 1, 45, 90, 135, 170, 179, 179.99, 180, -180, 181, -90, 270, 359]
)
def test_every_rotation_is_in_the_component_of_the_identity(degrees: float) -> None:
    assert one(so(2), rotation(math.radians(degrees))) < 1e-9


@few
@given(st.floats(0, math.pi))
def test_no_reflection_is(angle: float) -> None:
    """‖R − M‖² is 4 for every rotation R and reflection M: a mean squared entry of exactly 1."""
    assert one(so(2), rotation(angle) @ diag(1, -1)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("n", [3, 4])
@few
@given(seed=seeds)
def test_every_rotation_in_space_is_and_no_reflection(n: int, seed: int) -> None:
    q, _ = torch.linalg.qr(
        torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    if torch.linalg.det(q) < 0:
        q = q @ diag(-1, *[1] * (n - 1))
    assert one(so(n), q) < 1e-8
    assert one(so(n), q @ diag(-1, *[1] * (n - 1))) > SAME


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_in_space_are(axis: int) -> None:
    half = [-1.0, -1.0, -1.0]
    half[axis] = 1.0
    assert one(so(3), diag(*half)) < 1e-9


def test_minus_the_identity() -> None:
    assert one(so(2), -torch.eye(2).double()) < 1e-9
    assert one(so(3), -torch.eye(3).double()) == pytest.approx(
        4 / 9, abs=1e-3
    )  # the nearest are the half turns
    assert one(so(4), -torch.eye(4).double()) < 1e-9
    assert one(gl(2), -torch.eye(2).double()) < 1e-9
    assert one(torch.eye(2).double()[None], -torch.eye(2).double()) > SAME
    # In SL(2, R) it is a product of exponentials, and itself exp(π J).
    sl2 = torch.stack([unit(2, 0, 1), unit(2, 1, 0), diag(1, -1)])
    assert one(sl2, -torch.eye(2).double()) < 1e-9


@pytest.mark.parametrize("rapidity", [0.1, 1.0, 2.0, 3.0, 4.0, 5.0])
def test_large_boosts_are(rapidity: float) -> None:
    """Directions that no generator lies along, and boosts after rotations."""
    x, y, z = lorentz()[:3]
    for boost in (x, (x + y + z) / math.sqrt(3), 0.6 * y - 0.8 * z):
        b = lie.expm(rapidity * boost)
        turn = lie.expm(2.5 * lorentz()[4])
        for m in (b, turn @ b, b @ turn, turn @ b @ turn):
            assert one(lorentz(), m) < 1e-6


@few
@given(seeds, st.floats(0.1, 5))
def test_lorentz_components(seed: int, size: float) -> None:
    """All four components of O(1, 3) are told apart, wherever in them a matrix lies."""
    g = element(lorentz(), seed, size)
    parity, reversal = diag(1, -1, -1, -1), diag(-1, 1, 1, 1)
    others = torch.stack([m @ g for m in (parity, reversal, parity @ reversal)])
    assert one(lorentz(), g) < 1e-6
    assert bool((residual(lorentz(), others) > SAME).all())


def test_the_components_of_the_lorentz_group_are_four() -> None:
    g = [element(lorentz(), s, 1.5) for s in range(8)]
    parity, reversal = diag(1, -1, -1, -1), diag(-1, 1, 1, 1)
    cosets = [torch.eye(4).double(), parity, reversal, parity @ reversal]
    labels, residuals = compare(
        lorentz(), torch.stack([cosets[i % 4] @ m for i, m in enumerate(g)])
    )
    assert labels == [0, 1, 2, 3, 0, 1, 2, 3]
    assert residuals.shape == (8, 8)
    assert residuals.diagonal().max() < 1e-12


@pytest.mark.parametrize("factor", [1e-3, 0.1, 0.5, 3.0, 30.0])
def test_scalings(factor: float) -> None:
    scaling = torch.eye(2).double()[None]
    assert one(scaling, factor * torch.eye(2).double()) < 1e-6 * factor**2
    if factor >= 0.5:  # see the next test for small ones
        assert one(scaling, -factor * torch.eye(2).double()) > SAME
    assert one(scaling, factor * diag(1, -1)) > min(SAME, factor**2 / 4)


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_distance_of_a_negative_scaling_is_the_published_measure(factor: float) -> None:
    """The nearest exp(w) to −s is 0 in the limit: s²/2 per entry of a 2 by 2 matrix."""
    assert one(torch.eye(2).double()[None], -factor * torch.eye(2).double()) == pytest.approx(
        factor**2 / 2, rel=0.02
    )


def test_positive_determinants_are_one_component_of_gl2_and_negative_ones_another() -> None:
    m = torch.stack(
        [rotation(2.0) @ diag(2, 0.5), diag(-3, -0.4), rotation(1.0) @ diag(1, -2), diag(-1, 1)]
    )
    labels, residuals = compare(gl(2), m)
    assert labels == [0, 0, 1, 1]
    # The distance alone does not tell them apart: these quotients are nearly singular.
    assert residuals[1, 3] > 0 > torch.linalg.det(m[1]) * torch.linalg.det(m[3])
    assert (residuals[:2, 2:] < SAME).any()


def test_without_a_basis_each_matrix_is_compared_with_the_identity() -> None:
    empty = torch.zeros(0, 2, 2)
    assert one(empty, torch.eye(2)) == 0
    assert one(empty, diag(1, -1)) == pytest.approx(1.0)
    assert one(empty, rotation(0.3)) == pytest.approx((2 - 2 * math.cos(0.3)) * 2 / 4)
    quarter = torch.stack([torch.linalg.matrix_power(rotation(math.pi / 2), i) for i in range(6)])
    assert compare(empty, quarter)[0] == [0, 1, 2, 3, 0, 1]


def test_nothing_to_compare() -> None:
    assert residual(so(2), torch.zeros(0, 2, 2)).shape == (0,)
    assert compare(so(2), torch.zeros(0, 2, 2))[0] == []


def test_a_basis_of_zeros_or_duplicates_is_its_span() -> None:
    assert one(torch.zeros(2, 2, 2), torch.eye(2)) == 0
    assert one(torch.zeros(1, 2, 2), diag(1, -1)) == pytest.approx(1.0)
    j = so(2)
    for basis in (
        torch.cat([j, j]),
        torch.cat([j, -2 * j, 0 * j]),
        torch.cat([j, j + 1e-13]),
        1e-6 * j,
        1e6 * j,
    ):
        assert one(basis, rotation(2.0)) < 1e-8
        assert one(basis, diag(1, -1)) > SAME


def test_an_ill_conditioned_basis() -> None:
    """Two directions that differ by a thousandth still span the plane."""
    j, s = so(2)[0], torch.eye(2).double()
    basis = torch.stack([j, j + 1e-3 * s])
    assert one(basis, 2 * rotation(1.0)) < 1e-6
    assert one(basis, diag(1, -1)) > SAME


@numerics
@given(seeds)
def test_the_choice_of_basis_does_not_matter(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(6, 6, generator=g, dtype=torch.float64)
    if torch.linalg.cond(mix) > 50:
        return
    basis = torch.einsum("kl,lij->kij", mix, lorentz())
    m = element(lorentz(), seed, 2.0)
    assert one(basis, m) < 1e-6
    assert one(basis, diag(1, -1, -1, -1) @ m) > SAME


@numerics
@given(seeds)
def test_conjugating_group_and_matrix_conjugates_the_verdict(seed: int) -> None:
    s = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if torch.linalg.cond(s) > 5:
        return
    inverse = torch.linalg.inv(s)
    basis = s @ so(2) @ inverse
    assert one(basis, s @ rotation(2.7) @ inverse) < 1e-8
    pair = torch.stack([s @ rotation(2.7) @ inverse, s @ diag(1, -1) @ inverse])
    assert compare(basis, pair)[0] == [0, 1]


def test_matrices_that_are_no_group_elements_are_refused() -> None:
    for bad in (torch.zeros(2, 2), torch.full((2, 2), math.nan)):
        with pytest.raises(InvalidInput) as caught:
            compare(so(2), torch.stack([torch.eye(2), bad]))
        assert caught.value.field == "matrices"
    with pytest.raises(InvalidInput) as caught:
        compare(so(3), torch.eye(2)[None])
    assert caught.value.field == "basis"


def published(basis: Tensor, matrices: Tensor, steps: int = 3000, rate: float = 1e-2) -> Tensor:
    """The published way: Adam on the same distance from w ~ N(0, 1), one run for each matrix."""
    w = torch.randn(
        len(matrices), len(basis), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    w.requires_grad_(True)
    adam = torch.optim.Adam([w], lr=rate)
    for _ in range(steps):
        distance = (lie.expm(lie.combine(basis, w)) - matrices).square().mean((-2, -1))
        adam.zero_grad()
        distance.sum().backward()
        adam.step()
    return distance.detach()


@pytest.mark.parametrize("name", ["so2", "so3", "lorentz"])
def test_verdicts_agree_with_the_published_way(name: str) -> None:
    basis, cosets = {
        "so2": (so(2), [torch.eye(2).double(), diag(1, -1)]),
        "so3": (so(3), [torch.eye(3).double(), diag(-1, -1, -1)]),
        "lorentz": (lorentz(), [torch.eye(4).double(), diag(1, -1, -1, -1), diag(-1, 1, 1, 1)]),
    }[name]
    matrices = torch.stack([c @ element(basis, s, 1.2) for s in range(8) for c in cosets])
    noise = torch.randn(
        matrices.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    matrices = matrices + 0.03 * noise  # as found by descent: near the group, not in it
    ours, theirs = residual(basis, matrices), published(basis, matrices, steps=1000)
    assert bool(((ours < SAME) == (theirs < SAME)).all())
    assert bool((ours <= 1.01 * theirs + 1e-6).all())
    assert 0 < int((ours < SAME).sum()) < len(matrices)


def test_a_comparison_takes_milliseconds() -> None:
    m = element(lorentz(), 0, 2.0)
    one(lorentz(), m)
    spent = []
    for other in (m, diag(1, -1, -1, -1) @ m):
        start = time.process_time()
        one(lorentz(), other)
        spent.append(time.process_time() - start)
    assert max(spent) < 0.25
