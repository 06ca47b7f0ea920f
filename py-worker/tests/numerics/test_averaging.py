"""Draws from groups in training, and averages of predictors over groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.symmetry import VectorSpace
from atlas_worker.symmetry.averaging import averaged, draw, elements
from atlas_worker.symmetry.equivariant import Group
from atlas_worker.symmetry.features import FeatureType

from .test_equivariant import GROUPS, gl, so

CPU = torch.device("cpu")


def group(name: str) -> Group:
    generators, components = GROUPS[name]
    return Group(generators, components, FeatureType("V", generators.shape[-1]).acting)


def any_function(inputs: int, outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs)).double()


@pytest.mark.parametrize(("name", "count"), [("D4", 8), ("so(2)", 64)])
def test_an_average_commutes_with_the_group(name: str, count: int) -> None:
    g = elements(group(name))
    assert len(g) == count
    v, out = FeatureType("V", 2), FeatureType("V+S", 2)
    f = averaged(any_function(2, 3), g, v, out)
    x = torch.randn(5, 2, dtype=torch.float64)
    for one in g[::3]:
        assert torch.allclose(f(x @ v(one).mT), f(x) @ out(one).mT, atol=1e-9)
    assert float(f(x).detach().std(0).min()) > 1e-3


def test_an_average_over_drawn_elements_is_nearly_equivariant() -> None:
    g = elements(group("O(3)"), count=400)
    assert len(g) == 800
    v = FeatureType("V", 3)
    f, plain = averaged(any_function(3, 3), g, v, v), any_function(3, 3)
    x = torch.randn(5, 3, dtype=torch.float64)
    turn = torch.matrix_exp(so(3)[0])
    error = [(h(x @ turn.mT) - h(x) @ turn.mT).norm() for h in (f, plain)]
    assert float(error[0]) < 0.2 * float(error[1])


@pytest.mark.parametrize("name", ["so(1,3)", "sl(2)", "scaling", "gl(2)"])
def test_a_group_that_is_not_compact_has_no_average(name: str) -> None:
    with pytest.raises(InvalidInput, match="not compact"):
        elements(group(name))


def test_an_infinite_group_of_components_is_refused() -> None:
    turn = torch.matrix_exp(so(2))
    with pytest.raises(InvalidInput, match="more than 240"):
        elements(Group(torch.zeros(0, 2, 2), turn, FeatureType("V", 2).acting))


def test_draws_are_elements_of_the_group() -> None:
    stream = torch.Generator().manual_seed(0)
    g = draw(group("O(3)"), 200, 1.0, stream)
    assert torch.allclose(g.mT @ g, torch.eye(3).double().expand(200, 3, 3), atol=1e-9)
    assert 50 < int((torch.linalg.det(g) < 0).sum()) < 150


def fitted(tensors: dict[str, Tensor], seed: int = 0, **training: Any) -> FittedPredictor:
    # Inputs on one ray; the length is to be told in every direction.
    x = torch.zeros(64, 1, 2)
    x[:, 0, 0] = torch.linspace(0.5, 2.0, 64)
    data = ArraysDataset(
        ArraysParams(), seed=0, device=CPU, tensors={"inputs": x, "targets": x.norm(dim=2)}
    )
    how = {"loss": "l2", "learning_rate": 0.01, "batch_size": 16, **training}
    net = "mlp", {"width": 32, "activation": "silu"}
    return make_predictor(net, ("supervised", how), data, VectorSpace(2), 40, seed, CPU, tensors)


def test_a_training_with_moved_samples_knows_directions_without_data() -> None:
    errors = []
    elsewhere = torch.tensor([[[[0.0, -1.5]]], [[[-0.8, 0.0]]]])
    moves = {"augment_algebra": so(2)}
    for tensors, size in (({}, 0.0), (moves, 2.0)):
        p = fitted(tensors, augment=size)
        for _ in range(40):
            p.run_epoch(lambda *_: None)
        error = p.predict(elsewhere)[:, 0, 0] - torch.tensor([1.5, 0.8])
        errors.append(float(error.abs().max()))
    assert errors[1] < 0.3 < errors[0]


@pytest.mark.parametrize(
    ("tensors", "size", "field"),
    [
        ({}, 1.0, "tensors"),
        ({"augment_algebra": so(2)}, 0.0, "augment"),
        ({"augment_algebra": gl(3)}, 1.0, "algebra"),
    ],
)
def test_moves_without_their_group_are_refused(
    tensors: dict[str, Tensor], size: float, field: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        fitted(tensors, augment=size)
    assert field in error.value.field
