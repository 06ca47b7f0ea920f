"""Sets of vectors in R^n: how matrices act on them, and the networks that read them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.gaussian_points import GaussianPoints, GaussianPointsParams
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.interfaces import Signature
from atlas_worker.predictors import FittedPredictor, make_objective, make_predictor
from atlas_worker.predictors.vectors import Mlp, MlpParams, QuadraticNet, QuadraticParams
from atlas_worker.scores import classifier_scores
from atlas_worker.symmetry import action_on, compared_radius, inputs_on, lie, manifold_of
from atlas_worker.symmetry.spectral import linearised_spectrum
from atlas_worker.symmetry.vectors import VectorAction, VectorSpace

from .resume_check import check_resuming

CPU = torch.device("cpu")
ETA = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0]))


def elementary(n: int, i: int, j: int, sign: float) -> Tensor:
    """``(E_ij + sign·E_ji) / √2``, i < j: of norm 1, symmetric or antisymmetric."""
    m = torch.zeros(n, n)
    m[i, j], m[j, i] = 2**-0.5, sign * 2**-0.5
    return m


TURNS = torch.stack([elementary(3, i, j, -1) for i, j in ((0, 1), (0, 2), (1, 2))])
"""so(3)"""
LORENTZ = torch.stack(
    [elementary(4, 0, i, 1) for i in (1, 2, 3)]
    + [elementary(4, i, j, -1) for i, j in ((1, 2), (1, 3), (2, 3))]
)
"""so(1,3): three boosts and three rotations, orthonormal"""


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=stream(seed), dtype=torch.float64)


# The action


def test_every_vector_is_multiplied_by_g() -> None:
    x, g = randn(5, 1, 3, 4), randn(2, 5, 1, 4, 4, seed=1)
    y = VectorAction(4).act_in(g, x)
    assert y.shape == (2, 5, 1, 3, 4)
    for s in range(2):
        for b in range(5):
            for i in range(3):
                assert torch.allclose(y[s, b, 0, i], g[s, b, 0] @ x[b, 0, i])


def test_it_is_an_action_from_the_left() -> None:
    x, g, h = randn(5, 1, 3, 4), randn(4, 4, seed=1), randn(4, 4, seed=2)
    action = VectorAction(4, vector_output=True)
    for act in (action.act_in, action.act_out):
        assert torch.allclose(act(g, act(h, x)), act(g @ h, x))
        assert not torch.allclose(act(g, act(h, x)), act(h @ g, x), atol=0.1)
        assert torch.equal(act(torch.eye(4), x), x)
    assert torch.equal(action.crop_in(x), x)
    assert torch.equal(action.crop_out(x), x)
    assert action.finer_interpolation() is action, "there is nothing to resample"


def test_invariant_outputs_stay_and_vectors_move() -> None:
    g = randn(6, 5, 1, 4, 4)
    y = randn(5, 1, 2, seed=1)
    moved = VectorAction(4).act_out(g, y)
    assert torch.equal(moved, y.expand(6, 5, 1, 2))
    y = randn(5, 1, 2, 4, seed=1)
    assert torch.allclose(
        VectorAction(4, True).act_out(g, y), torch.einsum("sbcij,bcmj->sbcmi", g, y)
    )


def test_the_manifolds_have_their_actions() -> None:
    planar = PlanarAtlas((Chart(4, 4),), r_in=2, r_out=1, margin=1)
    space = VectorSpace(3, True)
    assert (manifold_of(planar), manifold_of(space)) == ("planar", "vectors")
    assert action_on(space) == VectorAction(3, True)
    assert (compared_radius(planar), compared_radius(space)) == (1, None)
    data = GaussianPoints(GaussianPointsParams(samples=7, n=3), seed=0, device=CPU, tensors={})
    inputs, x = inputs_on(space, data), data.inputs
    assert (len(inputs), inputs.charts, tuple(inputs.shape)) == (7, 1, (1, 1, 3))
    assert torch.equal(inputs.draw(torch.tensor([4, 0]), None), x[[4, 0]][:, None])
    assert len(space) == 1


@pytest.mark.parametrize("shape", [(5, 4), (5, 2, 3), (5, 2, 5), (5, 1, 4, 4)])
def test_samples_that_are_no_sets_of_vectors(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        VectorSpace(4).check(torch.Size(shape))
    assert caught.value.field == "atlas.action.params.n"
    VectorSpace(4).check(torch.Size((5, 2, 4)))


# What g moves out of the data


def momenta(batch: int = 64, m: int = 5, seed: int = 0) -> Tensor:
    p = randn(batch, 1, m, 3, seed=seed)
    return torch.cat([p.norm(dim=-1, keepdim=True), p], -1)


def elements() -> dict[str, Tensor]:
    parity = ETA.double()
    boost = torch.matrix_exp(1.5 * LORENTZ[0].double())
    turn = torch.matrix_exp(2.0 * LORENTZ[-1].double())
    return {
        "identity": torch.eye(4, dtype=torch.float64),
        "parity": parity,
        "reflection": torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0])).double(),
        "rotation": turn,
        "boost": boost,
        "boosted parity": boost @ parity @ turn,
        "scaling": 3 * torch.eye(4, dtype=torch.float64),
        "-I": -torch.eye(4, dtype=torch.float64),
        "time reversal": -parity,
        "boosted time reversal": -boost @ parity,
        "-boost": -boost @ turn,
    }


ALL = torch.stack(list(elements().values()))
FORWARD = [True] * 7 + [False] * 4


def test_energies_are_positive_so_nothing_is_known_of_their_negatives() -> None:
    assert VectorAction(4).stays_in_support(ALL, momenta()).tolist() == FORWARD
    assert VectorAction(4).stays_in_support(ALL, -momenta()).tolist() == FORWARD
    assert VectorAction(4).stays_in_support(ALL.float(), momenta().float()).tolist() == FORWARD


@pytest.mark.parametrize("seed", range(4))
def test_the_same_verdicts_in_other_coordinates(seed: int) -> None:
    # Among them such where the energy is the least of the coordinates.
    a = randn(4, 4, seed=seed + 10) if seed else torch.diag(torch.tensor([0.01, 1, 2, 3])).double()
    moved = momenta() @ a.mT
    assert (
        VectorAction(4).stays_in_support(a @ ALL @ torch.linalg.inv(a), moved).tolist() == FORWARD
    )


def test_data_on_all_sides_cover_everything() -> None:
    for x in (randn(256, 1, 3, 4), torch.cat([momenta(), -momenta()])):
        assert VectorAction(4).stays_in_support(ALL, x).all()


def test_padding_changes_no_verdict_and_degenerate_data_do_no_harm() -> None:
    padded = torch.cat([momenta(), torch.zeros(64, 1, 7, 4, dtype=torch.float64)], 2)
    assert VectorAction(4).stays_in_support(ALL, padded).tolist() == FORWARD
    assert VectorAction(4).stays_in_support(ALL, torch.zeros(9, 1, 2, 4)).all()
    flat = momenta()
    flat[..., 3] = 0  # in a plane
    flat[..., 0] = flat[..., 1:].norm(dim=-1)
    assert VectorAction(4).stays_in_support(ALL[[0, 1, 7, 8]], flat).tolist() == [
        True,
        True,
        False,
        False,
    ]


# Points


def test_random_points() -> None:
    def make(seed: int = 0, **params: Any) -> GaussianPoints:
        return GaussianPoints(GaussianPointsParams(**params), seed=seed, device=CPU, tensors={})

    points = make(samples=20_000, n=3, spread=2.5)
    assert points.inputs.shape == (20_000, 1, 3)
    assert points.targets.shape == (20_000, 1)
    covariance = points.inputs[:, 0].T @ points.inputs[:, 0] / 20_000
    assert (covariance - 6.25 * torch.eye(3)).abs().max() < 0.3
    assert torch.equal(points.inputs, make(samples=20_000, n=3, spread=2.5).inputs)
    assert not torch.allclose(
        points.inputs, make(1, samples=20_000, n=3, spread=2.5).inputs, atol=0.1
    )
    assert points.memory_bytes == 4 * 4 * 20_000
    points.load_state(*make(samples=20_000, n=3).state())
    with pytest.raises(InvalidInput):
        GaussianPoints(
            GaussianPointsParams(), seed=0, device=CPU, tensors={"inputs": torch.zeros(1)}
        )


# Networks


def signature(m: int = 5, n: int = 4, sample: Tensor | None = None, outputs: int = 2) -> Signature:
    return Signature("vectors", 1, (m, n), outputs, scale=1.7, sample=sample)


def quadratic(seed: int = 0, m: int = 5) -> QuadraticNet:
    """With every parameter at random: as made, its forms would be the initial ones."""
    net = QuadraticNet(
        signature(m, sample=momenta(200, m)[:, 0].float()), QuadraticParams(), stream(seed)
    ).double()
    with torch.no_grad():
        net.forms.normal_(0, 0.3, generator=stream(seed + 1))
    return net


def spread(y: Tensor) -> float:
    return float(y.detach().std(0).mean())


def test_the_order_of_the_vectors_does_not_matter_nor_does_padding() -> None:
    net, x = quadratic(), momenta(30)
    y = net(x)
    assert y.shape == (30, 1, 2)
    assert spread(y) > 1e-3
    order = torch.tensor([3, 0, 4, 2, 1])
    assert (net(x[:, :, order]) - y).abs().max() < 1e-9
    short = x.clone()
    short[:, :, 3:] = 0
    gaps = torch.stack([short[:, :, i] for i in (3, 0, 4, 1, 2)], 2)
    assert (net(gaps) - net(short)).abs().max() < 1e-9
    # An absent vector, not a vector that is zero: a network for 3 vectors has another mean only.
    small = quadratic(m=3)
    weights = {
        **net.state_dict(),
        "phi.2.weight": net.phi[2].weight * 4 / 6,
        "phi.2.bias": net.phi[2].bias * 4 / 6,
    }
    small.load_state_dict(weights)
    assert (small(short[:, :, :3]) - net(short)).abs().max() < 1e-9


def test_it_tells_x_from_minus_x() -> None:
    net, x = quadratic(), momenta(30)
    assert (net(-x) - net(x)).abs().mean() > 0.1 * spread(net(x))


def test_charts_and_batches_are_carried_along() -> None:
    net, x = quadratic(), momenta(600)
    y = net(x)
    assert torch.allclose(net(x.view(300, 2, 5, 4)), y.view(300, 2, 2))
    assert torch.allclose(torch.cat([net(part) for part in x.split(7)]), y)


def test_only_the_forms_decide_but_for_the_sums() -> None:
    """Lorentz invariant with multiples of the metric as forms and no linear forms, else not."""
    net, x = quadratic(), momenta(40)
    g = torch.matrix_exp(0.7 * LORENTZ.double().sum(0))
    assert (net(x @ g.mT) - net(x)).abs().mean() > 0.1 * spread(net(x))
    entries = torch.linalg.solve(net.whiten.mT, (target_forms(net) - net.start).mT).mT
    with torch.no_grad():
        net.forms.copy_(entries)
        net.sums.weight.zero_()
    metrics = net.matrices()
    assert (metrics / metrics[:, :1, :1] - ETA).abs().max() < 1e-6
    assert (net(x @ g.mT) - net(x)).abs().max() < 1e-6 * float(net(x).detach().abs().max())


def target_forms(net: QuadraticNet) -> Tensor:
    diagonal = torch.tensor([float(i == j) * float(ETA[i, i]) for i, j in net.entries.T.tolist()])
    forms = len(net.start)
    multiples = (torch.arange(forms) - forms / 2 + 0.25) / forms  # none is 0
    return multiples[:, None].double() * diagonal.double()


def test_the_mlp_is_a_plain_one_on_all_numbers() -> None:
    net = Mlp(signature(), MlpParams(width=6, layers=2, activation="silu"), stream())
    x = momenta(8).float()
    h = x.flatten(-2) / 1.7
    a, b, c = net.layers
    silu = torch.nn.functional.silu
    assert torch.allclose(net(x), c(silu(b(silu(a(h))))))
    assert net(x).shape == (8, 1, 2)
    again = Mlp(signature(), MlpParams(width=6, layers=2, activation="silu"), stream())
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), again.parameters(), strict=True))


# Fitted to jets


def jets(samples: int, m: int = 2, seed: int = 0) -> SimpleNamespace:
    """Massless vectors; the label says whether their invariant mass is above the median."""
    x = momenta(samples, m, seed)[:, 0].float()
    total = x.sum(1)
    mass = (total * (total @ ETA)).sum(-1)
    return SimpleNamespace(
        has_targets=True,
        inputs=x,
        targets=(mass > mass.median()).float()[:, None],
        outputs=2,
        background=None,
    )


def fitted(
    data: SimpleNamespace, epochs: int, seed: int = 0, kind: str = "quadratic", **training: Any
) -> FittedPredictor:
    recipe = {
        "loss": "cross_entropy",
        "learning_rate": 0.03,
        "batch_size": 64,
        "schedule": "cosine",
        **training,
    }
    return make_predictor(
        (kind, {}), ("supervised", recipe), data, VectorSpace(4), epochs, seed, CPU
    )


def far(directions: Tensor, truth: Tensor) -> float:
    """Grassmann distance: the norm of the principal angles."""
    return float(lie.principal_angles(directions.double(), truth.double()).norm())


def least(predictor: FittedPredictor, data: SimpleNamespace) -> Tensor:
    return linearised_spectrum(make_objective(predictor, data, VectorSpace(4)), 256, 0).directions


@pytest.mark.parametrize("m", [2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_untrained_it_prefers_no_metric(seed: int, m: int) -> None:
    """On light-like vectors only the metric vanishes; built in, it would need no learning."""
    data = jets(300, m, seed)
    directions = least(fitted(data, 0, seed), data)
    assert far(directions[:7], torch.cat([LORENTZ, torch.eye(4)[None] / 2])) > 1
    assert far(directions[:6], LORENTZ) > 1


def test_an_invariant_mass_teaches_it_the_metric() -> None:
    """Measured on two seeds: 0.21, after 2.4 untrained."""
    data = jets(2000)
    predictor = fitted(data, 10)
    for _ in range(10):
        predictor.run_epoch(lambda *_: None)
    directions = least(predictor, data)
    assert far(directions[:6], LORENTZ) < 0.6
    test = jets(1000, seed=1)
    assert classifier_scores(predictor.logits(test), test.targets[:, 0].long())["accuracy"] > 0.9


@pytest.mark.parametrize("kind", ["quadratic", "mlp"])
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_resumed_it_is_the_undisturbed_one_bit_for_bit(kind: str, stop: int) -> None:
    data = jets(96, 3)
    check_resuming(lambda: fitted(data, 2, kind=kind), 2, stop)


def test_logits_are_predictions_for_any_data_of_the_kind() -> None:
    data, other = jets(40, 3), jets(1100, 3, seed=1)
    predictor = fitted(data, 0)
    calls = []
    logits = predictor.logits(other, lambda: calls.append(1))
    assert logits.shape == (1100, 2)
    assert torch.allclose(logits, predictor.predict(other.inputs[:, None])[:, 0], atol=1e-6)
    assert len(calls) > 1

    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        predictor.logits(other, stop)


def test_logits_where_there_are_none() -> None:
    data = jets(40, 3)
    regression = SimpleNamespace(
        has_targets=True, inputs=data.inputs, targets=data.targets, outputs=1, background=None
    )
    with pytest.raises(InvalidInput) as caught:
        fitted(regression, 0, loss="l1").logits(regression)
    assert caught.value.field == "handle"
    flat = SimpleNamespace(inputs=data.inputs[..., :3], targets=data.targets, outputs=2)
    with pytest.raises(InvalidInput) as caught:
        fitted(data, 0).logits(flat)
    assert caught.value.field == "atlas.action.params.n"
    with pytest.raises(InvalidInput):
        fitted(data, 0).logits(jets(40, 2))


@pytest.mark.parametrize("kind", ["reference_cnn", "strided_cnn"])
def test_architectures_for_fields_are_refused(kind: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        fitted(jets(10), 0, kind=kind)
    assert caught.value.field == "predictor.architecture.kind"
