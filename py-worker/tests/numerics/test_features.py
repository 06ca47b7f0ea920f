"""Types of features: representations of GL(n), and the data that they fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.symmetry import VectorSpace, action_on, check_features
from atlas_worker.symmetry.features import TERMS, FeatureType, dimension
from atlas_worker.symmetry.manifold import make_vectors

terms = st.tuples(st.integers(1, 3), st.sampled_from(sorted(TERMS)))
types = st.lists(terms, min_size=1, max_size=4).map(
    lambda parts: "+".join(f"{count if count > 1 else ''}{kind}" for count, kind in parts)
)


def matrices(seed: int, n: int, count: int = 2) -> Tensor:
    """Invertible matrices of either sign of the determinant."""
    noise = torch.randn(count, n, n, dtype=torch.float64, generator=torch.manual_seed(seed))
    g = torch.matrix_exp(0.4 * noise)
    g[::2, 0] *= -1
    return g


@settings(deadline=None, max_examples=60)
@given(types, st.integers(1, 4), st.integers(0, 99))
def test_every_type_is_a_representation(text: str, n: int, seed: int) -> None:
    rho = FeatureType(text, n)
    g, h = matrices(seed, n)
    assert rho(g).shape == (rho.size, rho.size)
    assert torch.allclose(rho(g) @ rho(h), rho(g @ h), atol=1e-9)
    assert torch.equal(rho(torch.eye(n)), torch.eye(rho.size))
    assert torch.allclose(rho(torch.stack([g, h]))[1], rho(h), atol=1e-12)


def test_what_is_contracted_is_invariant() -> None:
    (g,) = matrices(3, 3, 1)
    of = {kind: FeatureType(kind, 3)(g) for kind in TERMS}
    v, c = torch.randn(2, 3, dtype=torch.float64)
    t, f = torch.randn(2, 9, dtype=torch.float64)
    assert torch.isclose((of["C"] @ c) @ (of["V"] @ v), c @ v)
    assert torch.isclose((of["F"] @ f) @ (of["T"] @ t), f @ t)
    assert torch.allclose(
        (of["T"] @ torch.outer(v, v).flatten()).view(3, 3), torch.outer(g @ v, g @ v)
    )
    assert of["P"].item() == -1 == torch.linalg.det(g).sign()


@pytest.mark.parametrize("text", ["", "2", "W", "V+", "0V", "V*2", "v", "V-S", "2 V", "V++S"])
def test_a_text_that_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        FeatureType(text, 2, "inputs_as")
    assert error.value.field == "inputs_as"


def field_atlas(inputs_as: str, targets_as: str) -> PlanarAtlas:
    return PlanarAtlas((Chart(8, 8),), 6, 4, inputs_as=inputs_as, targets_as=targets_as)


@pytest.mark.parametrize(
    ("inputs_as", "targets_as", "wrong"),
    [
        ("V+S", "V", None),
        ("3S", "", None),
        ("", "2S", None),
        ("V", "V", "atlas.action.params.inputs_as"),
        ("V+S", "S", None),  # all outputs are scalars, as without a type
        ("V+S", "T", "atlas.action.params.targets_as"),
        ("V+Q", "V", "atlas.action.params.inputs_as"),
    ],
)
def test_types_of_channels_fit_the_data(inputs_as: str, targets_as: str, wrong: str | None) -> None:
    inputs, targets = torch.randn(4, 3, 17, 17), torch.randn(4, 2, 17, 17)
    data: Any = SimpleNamespace(inputs=inputs, targets=targets, outputs=2)
    atlas = field_atlas(inputs_as, targets_as)
    if wrong is None:
        check_features(atlas, data, labels=False)
        return
    with pytest.raises(InvalidInput) as error:
        check_features(atlas, data, labels=False)
    assert error.value.field == wrong


def test_classes_have_no_type() -> None:
    data: Any = SimpleNamespace(inputs=torch.randn(4, 3, 17, 17), outputs=2)
    with pytest.raises(InvalidInput) as error:
        check_features(field_atlas("", "V"), data, labels=True)
    assert error.value.field == "atlas.action.params.targets_as"


@pytest.mark.parametrize(
    ("text", "features", "n"),
    [("V", 3, 3), ("4V", 8, 2), ("V+S", 4, 3), ("V+T", 12, 3), ("2V", 3, None), ("2S", 2, 1)],
)
def test_the_dimension_follows_from_the_features(text: str, features: int, n: int | None) -> None:
    if n is not None:
        assert dimension(FeatureType(text, 1), features) == n
        return
    with pytest.raises(InvalidInput):
        dimension(FeatureType(text, 1), features)


@pytest.mark.parametrize(
    ("space", "field"),
    [
        (VectorSpace(0, inputs_as="2V", features=3), "inputs_as"),
        (VectorSpace(0), "n"),
        (VectorSpace(3, inputs_as="2W"), "inputs_as"),
        (VectorSpace(3, inputs_as="2S"), "inputs_as"),
        (VectorSpace(3, vector_output=True, targets_as="V"), "targets_as"),
    ],
)
def test_types_that_fit_in_no_way_are_refused_at_once(space: VectorSpace, field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        make_vectors(space)
    assert error.value.field == f"atlas.action.params.{field}"


def test_items_of_sets_may_hold_more_than_a_vector() -> None:
    space = VectorSpace(3, inputs_as="V+S", targets_as="V")
    action = action_on(space)
    (g,) = matrices(1, 3, 1)
    x = torch.randn(5, 1, 2, 4, dtype=torch.float64)
    moved = action.act_in(g.expand(5, 1, 3, 3), x)
    assert torch.allclose(moved[..., :3], x[..., :3] @ g.T)
    assert torch.equal(moved[..., 3], x[..., 3])
    y = torch.randn(5, 1, 3, dtype=torch.float64)
    assert torch.allclose(action.act_out(g.expand(5, 1, 3, 3), y), y @ g.T)
    space.check(torch.Size([9, 2, 4]))
    with pytest.raises(InvalidInput):
        space.check(torch.Size([9, 2, 3]))
    with pytest.raises(InvalidInput):
        action_on(VectorSpace(3, inputs_as="2S"))
