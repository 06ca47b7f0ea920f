"""Spaces of equivariant linear maps: their dimensions, for exact and for learnt generators."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.symmetry.ambient import Ambient, Factor
from atlas_worker.symmetry.equivariant import (
    Group,
    closest_algebra,
    closure_error,
    equivariant_maps,
    maps_of_terms,
)
from atlas_worker.symmetry.features import FeatureType


def unit(n: int, i: int, j: int) -> Tensor:
    m = torch.zeros(n, n, dtype=torch.float64)
    m[i, j] = 1
    return m


def so(p: int, q: int = 0) -> Tensor:
    """Generators of so(p, q): B with ``Bᵀ J + J B = 0`` for ``J = diag(1 …, −1 …)``."""
    n = p + q
    j = torch.diag(torch.tensor([1.0] * p + [-1.0] * q, dtype=torch.float64))
    pairs = itertools.combinations(range(n), 2)
    return torch.stack([j @ (unit(n, a, b) - unit(n, b, a)) for a, b in pairs])


def gl(n: int) -> Tensor:
    return torch.eye(n * n, dtype=torch.float64).unflatten(1, (n, n))


SL2 = torch.tensor([[[1, 0], [0, -1]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]).double()
QUARTER, MIRROR = torch.tensor([[0.0, -1], [1, 0]]).double(), torch.diag(torch.tensor([1.0, -1]))
REFLECTION5 = torch.diag(torch.tensor([-1.0, 1, 1, 1, 1])).double()
PARITY = torch.diag(torch.tensor([1.0, -1, -1, -1])).double()
none2 = torch.zeros(0, 2, 2, dtype=torch.float64)

GROUPS: dict[str, tuple[Tensor, Tensor | None]] = {
    "so(2)": (so(2), None),
    "so(3)": (so(3), None),
    "O(3)": (so(3), -torch.eye(3).double()[None]),
    "so(1,3)": (so(1, 3), None),
    "so(1,3) and parity": (so(1, 3), PARITY[None]),
    "sl(2)": (SL2, None),
    "gl(2)": (gl(2), None),
    "scaling": (torch.eye(3).double()[None], None),
    "so(3) and scaling": (torch.cat([so(3), torch.eye(3).double()[None]]), None),
    "O(5)": (so(5), REFLECTION5[None]),
    "D4": (none2, torch.stack([QUARTER, MIRROR.double()])),
}

# By Schur's lemma the dimension is Σ over irreducible parts of the product of their multiplicities,
# times that of the part's endomorphisms (1 real, 2 complex). The parts of V⊗V:
# so(2): 1 twice, spin 2 (complex); so(3): spins 0, 1, 2 (Weyl, "The classical groups");
# so(1,3): trace, (1,1), and (1,0)+(0,1), which is complex: with parity it is real;
# sl(2): 1, Sym²; gl(2): det, Sym²; O(5): trace, antisymmetric, traceless symmetric;
# D4: the four characters; scaling: n² times λ², so every map commutes (emlp cannot do this group).
DIMENSIONS: dict[str, dict[tuple[str, str], int]] = {
    "so(2)": {("V", "V"): 2, ("V", "C"): 2, ("T", "T"): 6, ("T", "S"): 2, ("V", "S"): 0},
    "so(3)": {
        ("V", "V"): 1, ("V", "C"): 1, ("S", "S"): 1, ("V", "S"): 0, ("S", "V"): 0,
        ("T", "S"): 1, ("T", "V"): 1, ("T", "T"): 3, ("T", "F"): 3, ("P", "S"): 1,
    },
    "O(3)": {("V", "V"): 1, ("T", "V"): 0, ("T", "T"): 3, ("P", "S"): 0},
    "so(1,3)": {("V", "V"): 1, ("V", "C"): 1, ("T", "S"): 1, ("T", "V"): 0, ("T", "T"): 4},
    "so(1,3) and parity": {("V", "V"): 1, ("T", "S"): 1, ("T", "T"): 3, ("P", "S"): 0},
    "sl(2)": {("V", "V"): 1, ("V", "C"): 1, ("T", "S"): 1, ("T", "T"): 2, ("T", "F"): 2},
    "gl(2)": {
        ("V", "V"): 1, ("C", "C"): 1, ("V", "C"): 0, ("T", "S"): 0, ("T", "T"): 2, ("T", "F"): 0,
        ("S", "S"): 1, ("V", "S"): 0,
    },
    "scaling": {
        ("V", "V"): 9, ("T", "T"): 81, ("V", "C"): 0, ("T", "S"): 0, ("V", "T"): 0, ("S", "S"): 1,
    },
    "so(3) and scaling": {("V", "V"): 1, ("V", "C"): 0, ("T", "S"): 0, ("T", "T"): 3},
    "O(5)": {("V", "V"): 1, ("V", "C"): 1, ("T", "S"): 1, ("T", "T"): 3, ("P", "S"): 0},
    "D4": {("V", "V"): 1, ("T", "S"): 1, ("T", "P"): 1, ("T", "T"): 4, ("T", "V"): 0},
}  # fmt: skip
CASES = [(name, *pair, d) for name, pairs in DIMENSIONS.items() for pair, d in pairs.items()]


def perturbed(matrices: Tensor, share: float, seed: int) -> Tensor:
    """Add a matrix of ``share`` times the norm to each matrix."""
    noise = torch.randn(matrices.shape, dtype=torch.float64, generator=torch.manual_seed(seed))
    size = matrices.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
    return matrices + share * size[:, None, None] * noise


@pytest.mark.parametrize(("name", "origin", "into", "dimension"), CASES)
def test_there_are_as_many_maps_as_the_literature_says(
    name: str, origin: str, into: str, dimension: int
) -> None:
    generators, components = GROUPS[name]
    n = generators.shape[-1]
    types = FeatureType(origin, n), FeatureType(into, n)
    maps = equivariant_maps(generators, components, *types)
    assert len(maps) == dimension
    for learnt, seed in itertools.product((0.01,), (0, 1)):
        near = perturbed(generators, learnt, seed)
        moved = None if components is None else perturbed(components, learnt, seed + 10)
        found = equivariant_maps(near, moved, *types, accuracy=learnt)
        assert len(found) == dimension
        if dimension and dimension < types[0].size * types[1].size:
            overlap = torch.linalg.svdvals(found.basis.flatten(1) @ maps.basis.flatten(1).mT)
            assert float(overlap.min()) > 0.99
            assert float((found.basis - maps.basis).abs().max()) < 0.1


@pytest.mark.parametrize("name", GROUPS)
def test_the_maps_commute_with_the_group(name: str) -> None:
    generators, components = GROUPS[name]
    n = generators.shape[-1]
    types = FeatureType("2V+S+P", n), FeatureType("S+V+C", n)
    maps = equivariant_maps(generators, components, *types)
    seed = torch.manual_seed(1)
    weights = torch.randn(4, len(generators), generator=seed, dtype=torch.float64)
    g = torch.matrix_exp(0.5 * torch.einsum("si,inm->snm", weights, generators))
    if components is not None:
        g = torch.cat([g @ h for h in components])
    for one in g:
        after, before = types[1](one) @ maps.basis, maps.basis @ types[0](one)
        assert float((after - before).abs().max()) < 1e-12 * float(types[1](one).abs().max() + 1)


def test_sums_have_the_maps_of_their_terms() -> None:
    v, s = FeatureType("3V+2S", 3), FeatureType("2V+T+S", 3)
    maps = equivariant_maps(so(3), None, v, s)
    # V→V 1 each, V→T 1 (antisymmetric), S→T 1, S→S 1
    assert len(maps) == 3 * 2 + 3 * 1 + 2 * 1 + 2 * 1
    assert maps.basis.shape[1:] == (2 * 3 + 9 + 1, 3 * 3 + 2)
    gram = maps.basis.flatten(1) @ maps.basis.flatten(1).mT
    assert torch.allclose(gram, torch.eye(len(maps)).double(), atol=1e-9)


def test_groups_of_a_product_act_independently() -> None:
    ambient = Ambient((Factor("a", 3), Factor("b", 2)))
    generators = torch.zeros(4, 5, 5, dtype=torch.float64)
    generators[:3, :3, :3] = so(3)
    generators[3:, 3:, 3:] = so(2)
    of = {text: FeatureType(text, 3, ambient=ambient) for text in ("Va", "Vb", "Ta", "Tb", "Va+Vb")}
    for near, accuracy in ((generators, 1e-6), (perturbed(generators, 0.01, 3), 0.01)):
        inside = near * ambient.mask()
        count = {
            (a, b): len(equivariant_maps(inside, None, of[a], of[b], accuracy=accuracy))
            for a, b in itertools.product(of, of)
        }
        assert count["Va", "Va"] == 1
        assert count["Vb", "Vb"] == 2
        assert count["Va", "Vb"] == count["Vb", "Va"] == count["Ta", "Vb"] == 0
        assert count["Ta", "Ta"] == 3
        assert count["Tb", "Tb"] == 6
        assert count["Ta", "Tb"] == 2  # the two invariants of b, times the trace
        assert count["Va+Vb", "Va+Vb"] == 3


def test_affine_maps_take_differences_of_points() -> None:
    # Euclid's group of the plane: one turn and two translations.
    generators = torch.zeros(3, 3, 3, dtype=torch.float64)
    generators[0, :2, :2] = so(2)[0]
    generators[1, 0, 2] = generators[2, 1, 2] = 1
    ambient = Ambient((Factor("", 2, affine=True),))
    points = FeatureType("3X", 2, ambient=ambient)
    vectors = equivariant_maps(generators, None, points, FeatureType("V", 2, ambient=ambient))
    assert len(vectors) == 2 * 2  # two differences, each turned or not
    x = torch.randn(3, 2, dtype=torch.float64)
    moved = vectors.basis @ torch.cat([(x + 7).flatten(), torch.ones(1).double()])
    here = vectors.basis @ torch.cat([x.flatten(), torch.ones(1).double()])
    assert torch.allclose(moved, here)
    means = equivariant_maps(generators, None, points, FeatureType("X", 2, ambient=ambient))
    assert len(means) == 2 * 2 + 1  # a difference, and the mean with the constant
    assert float(means.basis[:, -1, -1].abs().max()) > 0.1


def test_products_of_vectors_map_to_invariants() -> None:
    like = FeatureType("V", 3)
    group = Group(so(3), None, like.acting)
    assert len(maps_of_terms(group, ("V", "V"), "S", like)) == 1  # inner product
    assert len(maps_of_terms(group, ("V", "V"), "V", like)) == 1  # cross product
    assert len(maps_of_terms(group, ("V", "T"), "V", like)) == 3  # as there are in V⊗V → T
    group = Group(gl(3), None, like.acting)
    assert len(maps_of_terms(group, ("V", "C"), "S", like)) == 1


def test_no_cut_is_taken_where_none_is_clear() -> None:
    v = FeatureType("T", 3)
    noisy = perturbed(so(3), 0.05, 0)
    assert len(equivariant_maps(noisy, None, v, v, accuracy=0.05)) == 3
    turn = perturbed(so(2), 0.3, 0)
    v = FeatureType("T", 2)
    with pytest.raises(InvalidInput, match="cannot be counted"):
        equivariant_maps(turn, None, v, v, accuracy=0.3)


def test_a_learnt_span_is_moved_to_a_closed_algebra() -> None:
    near = perturbed(so(1, 3), 0.01, 0)
    assert closure_error(near) > 1e-3
    flat = torch.linalg.qr(near.flatten(1).mT)[0].mT.unflatten(1, (4, 4))
    closed, moved = closest_algebra(flat)
    assert closed is not None
    assert closure_error(closed) < 1e-9
    assert moved < 0.03
    # Exactly closed and semisimple: as many maps as the exact one has, equivariant to rounding.
    maps = equivariant_maps(near, None, FeatureType("V", 4), FeatureType("C", 4), accuracy=0.01)
    assert maps.spectrum[0] < 1e-9


def test_the_result_does_not_depend_on_the_basis() -> None:
    v, t = FeatureType("V", 3), FeatureType("T", 3)
    mix = torch.tensor([[1.0, 2, 0], [0, 1, 3], [0.5, 0, 1]]).double()
    a = equivariant_maps(so(3), None, t, v)
    b = equivariant_maps(torch.einsum("ij,jnm->inm", mix, so(3)) * 100, None, t, v)
    assert torch.allclose(a.spectrum, b.spectrum, atol=1e-9)
    assert math.isclose(abs(float((a.basis * b.basis).sum())), 1, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("generators", "components", "types", "field"),
    [
        (so(3), None, ("V", "V"), "algebra"),
        (torch.zeros(1, 2, 2), None, ("V", "V"), "algebra"),
        (torch.full((1, 2, 2), torch.nan), None, ("V", "V"), "algebra"),
        (so(2), torch.zeros(1, 2, 2), ("V", "V"), "components"),
        (so(2), None, ("V", "X"), "types"),
        (torch.eye(9)[None], None, ("T", "T"), "types"),
    ],
)
def test_what_does_not_fit_is_refused(
    generators: Tensor, components: Tensor | None, types: tuple[str, str], field: str
) -> None:
    n = 9 if generators.shape[-1] == 9 else 2
    with pytest.raises(InvalidInput) as error:
        equivariant_maps(generators, components, *(FeatureType(text, n) for text in types))
    assert field in error.value.field
