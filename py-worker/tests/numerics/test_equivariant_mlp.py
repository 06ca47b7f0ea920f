"""The equivariant network: it commutes with its group, learns, and resumes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.interfaces import Signature
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.predictors.equivariant import EquivariantLinear, Terms, types_of
from atlas_worker.predictors.supervised import build
from atlas_worker.symmetry import VectorSpace
from atlas_worker.symmetry.equivariant import Group
from atlas_worker.symmetry.features import FeatureType
from atlas_worker.symmetry.manifold import make_vectors

from .test_equivariant import GROUPS, perturbed, so

CPU = torch.device("cpu")


def fitted(
    algebra: Tensor,
    components: Tensor | None,
    inputs: Tensor,
    targets: Tensor,
    types: tuple[str, str],
    epochs: int = 0,
    seed: int = 0,
    **params: Any,
) -> FittedPredictor:
    data = ArraysDataset(
        ArraysParams(), seed=0, device=CPU, tensors={"inputs": inputs, "targets": targets}
    )
    atlas = make_vectors(
        VectorSpace(0, inputs_as=types[0], targets_as=types[1], features=inputs.shape[-1])
    )
    tensors = {"algebra": algebra}
    if components is not None:
        tensors["components"] = components
    return make_predictor(
        (
            "equivariant_mlp",
            {"width": 8, "vectors": 4, "combinations": 4, "multiplying": 1, **params},
        ),
        ("supervised", {"learning_rate": 0.01, "loss": "l2", "batch_size": 64}),
        data,
        atlas,
        epochs,
        seed,
        CPU,
        tensors,
    )


def samples(count: int, items: int, features: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(count, items, features, generator=stream, dtype=torch.float64)


def elements(name: str, seed: int = 0) -> Tensor:
    """Some elements of a group, in every one of its components."""
    generators, components = GROUPS[name]
    stream = torch.Generator().manual_seed(seed)
    eta = torch.randn(4, len(generators), generator=stream, dtype=torch.float64)
    g = torch.matrix_exp(0.4 * torch.einsum("si,inm->snm", eta, generators))
    return g if components is None else torch.cat([g, *[g @ h for h in components]])


def scrambled(module: torch.nn.Module) -> torch.nn.Module:
    """Give every weight another value, so that none is zero."""
    with torch.no_grad():
        for i, weight in enumerate(module.parameters()):
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.manual_seed(i)))
    return module.double()


def off(module: torch.nn.Module, type_in: FeatureType, type_out: FeatureType, g: Tensor) -> float:
    """Return the largest relative difference of f(g·x) and g·f(x)."""
    x = samples(6, 3, type_in.size, 5)
    y = module(x[:, None])[:, 0]
    differences = []
    for one in g:
        moved, turned = x @ type_in(one).mT, y @ type_out(one).mT
        for type, values in ((type_in, moved), (type_out, turned)):
            shift = type.shift(one)
            values += 0 if shift is None else shift
        found = module(moved[:, None])[:, 0]
        difference = (found - turned).norm() / turned.norm().clamp(min=1e-12)
        differences.append(difference.detach())
    return float(torch.stack(differences).max())


@pytest.mark.parametrize("name", ["so(3)", "O(3)", "so(1,3) and parity", "sl(2)", "gl(2)", "D4"])
def test_the_network_commutes_with_its_group(name: str) -> None:
    generators, components = GROUPS[name]
    n = generators.shape[-1]
    types = "V+S", "2V+S"
    p = fitted(
        generators, components, samples(64, 3, n + 1), samples(64, 1, 2 * n + 1)[:, 0], types
    )
    module = scrambled(p._module)
    assert off(module, *(FeatureType(t, n) for t in types), elements(name)) < 1e-6
    # It is no constant, and another group's elements are no symmetries of it.
    wrong = torch.matrix_exp(0.3 * samples(2, n, n, 9))
    wrong = torch.tensor([[1.0, 2], [0, 1]]).double()[None] if name == "gl(2)" else wrong
    error = off(module, *(FeatureType(t, n) for t in types), wrong)
    assert error < 1e-6 if name == "gl(2)" else error > 1e-3


def test_scaling_is_taken_out_and_put_back() -> None:
    n = 3
    for name in ("scaling", "so(3) and scaling"):
        generators, components = GROUPS[name]
        types = "V", "V+S+C"
        p = fitted(generators, components, samples(64, 3, n), samples(64, 1, 7)[:, 0], types)
        module = scrambled(p._module)
        y = module(samples(2, 3, n)[:, None])
        assert float((y[0] - y[1]).detach().abs().max()) > 1e-2
        assert off(module, *(FeatureType(t, n) for t in types), elements(name)) < 1e-6


def test_moving_points_moves_the_points_it_predicts() -> None:
    # About the point (1, 2), and with translations.
    turn = torch.zeros(3, 3, 3, dtype=torch.float64)
    turn[0, :2, :2] = so(2)[0]
    turn[1, 0, 2] = turn[2, 1, 2] = 1
    centre = torch.eye(3).double()
    centre[:2, 2] = torch.tensor([1.0, 2.0])
    about = centre @ turn[:1] @ torch.linalg.inv(centre)
    for generators in (turn, about):
        p = fitted(generators, None, samples(64, 3, 2), samples(64, 1, 4)[:, 0], ("X", "X+V"))
        module = scrambled(p._module)
        types = types_of(Signature("vectors", 1, (3, 2), 4, types=("X", "X+V", 2, "")))
        g = torch.matrix_exp(0.6 * generators)
        assert off(module, *types, g) < 1e-6


def test_learnt_generators_give_a_network_as_equivariant_as_they_are() -> None:
    exact, n = so(3), 3
    near = perturbed(exact, 0.01, 1)
    types = FeatureType("V", n), FeatureType("V+S", n)
    p = fitted(near, None, samples(64, 3, n), samples(64, 1, 4)[:, 0], ("V", "V+S"), accuracy=0.01)
    error = off(scrambled(p._module), *types, elements("so(3)"))
    assert 1e-6 < error < 0.05


def test_coordinates_are_learnt_where_generators_are_off() -> None:
    stretch = torch.tensor([1.04, 1.0]).double().diag()
    near = stretch @ so(2) @ torch.linalg.inv(stretch)
    x = samples(256, 3, 2)
    y = (x[:, 0] * x[:, 1]).sum(1, keepdim=True)
    turn, types = torch.matrix_exp(so(2)), (FeatureType("V", 2), FeatureType("S", 2))
    errors = []
    for coordinates in (False, True):
        how: dict[str, Any] = {"accuracy": 0.04, "coordinates": coordinates}
        p = fitted(near, None, x, y, ("V", "S"), epochs=20, **how)
        for _ in range(20):
            p.run_epoch(lambda *_: None)
        errors.append(off(p._module.double(), *types, turn))
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("name", ["so(1,3) and parity", "so(3) and scaling"])
def test_the_order_of_a_set_and_its_padding_do_not_matter(name: str) -> None:
    generators, components = GROUPS[name]
    n = generators.shape[-1]
    x, y = samples(64, 4, n + 1), samples(64, 1, 2 * n + 1)[:, 0]
    x[:, 3] = 0
    types = "V+S", "2V+S"
    how: dict[str, Any] = {"sets": True, "logarithm": n == 4, "layers": 1}
    module = scrambled(fitted(generators, components, x, y, types, **how)._module)
    assert off(module, *(FeatureType(t, n) for t in types), elements(name)) < 1e-6
    out = module(x[:, None])
    assert torch.allclose(module(x[:, [2, 3, 0, 1], :][:, None]), out, atol=1e-9)
    more = x.clone()
    more[:, 3] = 2 * x[:, 0]  # a further item counts
    assert float((module(more[:, None]) - out).detach().abs().max()) > 1e-3


def test_a_recorded_network_of_sets_takes_more_than_it_sees_at_a_time() -> None:
    x = samples(40, 50, 2).float()  # 26 such sets are seen at a time
    module = fitted(so(2), None, x, x.sum((1, 2))[:, None], ("V", "S"), sets=True)._module
    program = torch.jit.trace(module, x[:2, None], check_trace=False)
    assert torch.allclose(program(x[:, None]), module(x[:, None]), atol=1e-5)


def test_points_do_not_go_into_sets() -> None:
    x = samples(16, 2, 2)
    with pytest.raises(InvalidInput, match="points"):
        fitted(torch.zeros(0, 3, 3), None, x, x[:, 0], ("X", "X"), sets=True)


def test_layers_have_a_bias_where_the_group_leaves_one_alone() -> None:
    like = FeatureType("V", 3)
    terms = Terms(Group(so(3), None, like.acting), like)
    layer = EquivariantLinear(
        terms, {"V": 2, "S": 1}, {"V": 2, "T": 1, "S": 3}, torch.Generator().manual_seed(0)
    )
    biases = sorted(name for name, _ in layer.named_parameters() if "bias" in name)
    assert biases == ["weight_bias_S", "weight_bias_T"]  # the unit matrix is an invariant tensor
    weights = sum(w.numel() for w in layer.parameters())
    assert weights == 2 * 2 + 2 * 1 + 1 * 1 + 3 * 1 + 3 + 1  # V→V, V→T, S→T, S→S, biases


def test_it_learns_the_tensor_of_inertia() -> None:
    # I = Σ m (|r|² 1 − r rᵀ) of three masses; a function of degree 3 with a tensor as output.
    x = samples(256, 3, 4)
    mass, r = x[..., :1].abs(), x[..., 1:]
    x = torch.cat([mass, r], 2)
    eye = torch.eye(3).double()
    inertia = (mass[..., None] * (r.square().sum(2)[..., None, None] * eye)).sum(1) - (
        mass[..., None] * r[..., :, None] * r[..., None, :]
    ).sum(1)
    p = fitted(*GROUPS["O(3)"], x, inertia.flatten(1), ("S+V", "T"), epochs=25, width=16, vectors=8)
    losses = [p.run_epoch(lambda *_: None)["loss"] for _ in range(25)]
    assert losses[-1] < 0.1 * losses[0]


def test_a_saved_network_is_made_again() -> None:
    x, y = samples(32, 2, 3), samples(32, 1, 3)[:, 0]
    p = fitted(*GROUPS["O(3)"], x, y, ("V", "V"), epochs=1)
    p.run_epoch(lambda *_: None)
    tensors, metadata = p.state()
    again, signature = build("equivariant_mlp", metadata["built"], p._module.state_dict())
    assert signature.types == ("V", "V", 3, "")
    points = x[:, None].float()
    assert torch.equal(again(points), p.freeze()(points, None))
    assert tensors
    other = fitted(so(3)[:1], None, x, y, ("V", "V"))
    with pytest.raises((InvalidInput, RuntimeError)):
        other._module.load_state_dict(p._module.state_dict())


@pytest.mark.parametrize(
    ("algebra", "components", "types", "word"),
    [
        (so(2), None, ("V", "S"), "algebra"),
        (so(3)[0], None, ("V", "S"), "algebra"),
        (so(3), torch.zeros(1, 3, 3), ("V", "S"), "components"),
        (so(3), None, ("V", "T"), "targets_as"),
    ],
)
def test_a_group_that_does_not_fit_is_refused(
    algebra: Tensor, components: Tensor | None, types: tuple[str, str], word: str
) -> None:
    x = samples(16, 2, 3)
    with pytest.raises(InvalidInput) as error:
        fitted(algebra, components, x, x.sum((1, 2))[:, None], types)
    assert word in error.value.field


def test_generators_that_are_half_wrong_are_refused() -> None:
    x = samples(16, 2, 3)
    with pytest.raises(InvalidInput, match="say nothing"):
        fitted(so(3), None, x, x.sum((1, 2))[:, None], ("V", "S"), accuracy=0.5)
