"""LorentzNet is invariant under the group that keeps its metric only; its baseline is not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from atlas_worker.catalogue import find
from atlas_worker.errors import InvalidInput
from atlas_worker.interfaces import Signature
from atlas_worker.predictors.lorentz import (
    MAX_BATCH,
    LorentzNet,
    LorentzNetParams,
    MessageNet,
    ParticleGraphNet,
    checked_metric,
    make_lorentznet,
    make_particle_graph,
)

MINKOWSKI = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0]))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=stream(seed), dtype=torch.float64)


def signature(m: int = 6, n: int = 4, outputs: int = 2, scale: float = 20.0) -> Signature:
    return Signature("vectors", 1, (m, n), outputs, scale=scale)


# A large c, so that what moves the vectors is seen in the output.
PARAMS = LorentzNetParams(hidden=8, layers=3, c=0.5)


def lorentznet(metric: Tensor = MINKOWSKI, m: int = 6) -> LorentzNet:
    net = LorentzNet(signature(m, metric.shape[0]), PARAMS, metric, stream())
    return net.double()


def baseline(m: int = 6) -> ParticleGraphNet:
    return ParticleGraphNet(signature(m), PARAMS, stream()).double()


def nets() -> list[Any]:
    return [pytest.param(lorentznet, id="lorentznet"), pytest.param(baseline, id="particle_graph")]


def momenta(batch: int = 5, m: int = 6) -> Tensor:
    """Light particles of tens of GeV: ``[B, 1, m, 4]``."""
    p = 20 * randn(batch, 1, m, 3)
    mass = 0.14 * randn(batch, 1, m, 1, seed=1).abs()
    return torch.cat([(p.square().sum(-1, keepdim=True) + mass**2).sqrt(), p], -1)


def kept(metric: Tensor, size: float, seed: int) -> Tensor:
    """A random g with ``gᵀ J g = J``: ``exp(J⁻¹ S)`` of an antisymmetric S."""
    s = randn(*metric.shape, seed=seed)
    b = torch.linalg.solve(metric, s - s.mT)
    return torch.linalg.matrix_exp(size * b / torch.linalg.matrix_norm(b))


def reflection(metric: Tensor, seed: int) -> Tensor:
    """``x ↦ x − 2 v ⟨v, x⟩ / ⟨v, v⟩`` of a random v: it reaches the group's other components."""
    v = randn(len(metric), 1, seed=seed)
    return torch.eye(len(metric), dtype=torch.float64) - 2 * v @ v.mT @ metric / (v.mT @ metric @ v)


def boost(rapidity: float) -> Tensor:
    g = torch.eye(4, dtype=torch.float64)
    y = torch.tensor(rapidity, dtype=torch.float64)
    g[0, 0] = g[3, 3] = y.cosh()
    g[0, 3] = g[3, 0] = y.sinh()
    return g


def rotation(seed: int) -> Tensor:
    q, _ = torch.linalg.qr(randn(3, 3, seed=seed))
    return torch.block_diag(torch.ones(1, 1, dtype=torch.float64), q * torch.linalg.det(q))


PARITY = MINKOWSKI.double()
LORENTZ = {
    "boost": boost(1.0),
    "rotation": rotation(3),
    "boosts and rotations": rotation(1) @ boost(0.8) @ rotation(2) @ boost(-0.6),
    "parity": PARITY,
    "time reversal": -PARITY,
    "reversal of all": -torch.eye(4, dtype=torch.float64),
}


@pytest.mark.parametrize("g", LORENTZ.values(), ids=LORENTZ)
def test_logits_are_lorentz_invariant(g: Tensor) -> None:
    net, x = lorentznet(), momenta()
    logits = net(x)
    assert logits.shape == (5, 1, 2)
    assert logits.std(0).min() > 1e-3  # not by being constant
    assert (net(x @ g.mT) - logits).abs().max() < 1e-8


def test_it_is_the_paper_s_message_passing() -> None:
    """Pair by pair, as it is written there, for one set of four vectors with one of padding."""
    net, x = lorentznet(m=5), momenta(1, 5)
    x[:, :, 4] = 0
    p = list(x[0, 0, :4] / net.unit)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return a @ net.metric @ b

    def compressed(z: Tensor) -> Tensor:
        return torch.sign(z) * torch.log(abs(z) + 1)

    h = [net.embed(compressed(inner(a, a))[None]) for a in p]
    for block in net.blocks:
        m = {}
        for i, j in itertools.permutations(range(4), 2):
            d = p[i] - p[j]
            pair = torch.stack([compressed(inner(d, d)), compressed(inner(p[i], p[j]))])
            m[i, j] = block.phi_e2(block.phi_e1(torch.cat([h[i], h[j], pair])).relu()).relu()
        total = [
            sum(block.phi_m(m[i, j]).sigmoid() * m[i, j] for j in range(4) if j != i) / 5
            for i in range(4)
        ]
        h = [h[i] + block.phi_h(torch.cat([h[i], total[i]])) for i in range(4)]
        if block.phi_x is not None:
            p = [
                p[i] + PARAMS.c * sum(block.phi_x(m[i, j]) * p[j] for j in range(4) if j != i) / 5
                for i in range(4)
            ]
    expected = net.decode(torch.stack(h).mean(0))
    assert (net(x)[0, 0] - expected).abs().max() < 1e-10


def metrics() -> list[Any]:
    a = torch.eye(4) + 0.3 * randn(4, 4, seed=4).float()
    s = randn(5, 5, seed=5).float()
    return [
        pytest.param(torch.eye(4), id="so(4)"),
        pytest.param(-3 * MINKOWSKI, id="another sign and factor"),
        pytest.param(a.mT @ MINKOWSKI @ a, id="so(1,3) in another basis"),
        pytest.param(torch.diag(torch.tensor([1.0, 1, -1, -1])), id="so(2,2)"),
        pytest.param(torch.tensor([[0.0, 1], [1, 0]]), id="so(1,1) in light-cone coordinates"),
        pytest.param(s + s.mT, id="so(p,q) in R^5"),
    ]


@pytest.mark.parametrize("metric", metrics())
def test_logits_are_invariant_under_what_keeps_the_metric(metric: Tensor) -> None:
    net, n = lorentznet(metric), len(metric)
    j, x = net.metric, 20 * randn(5, 1, 6, n)
    assert torch.allclose(
        j / j.abs().max(), metric.double() / metric.double().abs().max(), atol=1e-5
    )
    logits = net(x)
    for g in (
        kept(j, 1.0, 6),
        kept(j, 2.0, 7),
        reflection(j, 8),
        reflection(j, 9) @ kept(j, 1.0, 10),
    ):
        assert torch.allclose(g.mT @ j @ g, j, atol=1e-9)
        assert (net(x @ g.mT) - logits).abs().max() < 1e-8
    other = torch.linalg.matrix_exp(0.3 * randn(n, n, seed=11))
    assert (net(x @ other.mT) - logits).abs().max() > 1e-3


def test_what_keeps_another_metric_is_no_symmetry() -> None:
    x, g = momenta(), LORENTZ["boosts and rotations"]
    euclidean = lorentznet(torch.eye(4))
    assert (euclidean(x @ g.mT) - euclidean(x)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["boost", "rotation", "parity"])
def test_the_baseline_is_not_invariant(name: str) -> None:
    net, x = baseline(), momenta()
    logits = net(x)
    assert (net(x @ LORENTZ[name].mT) - logits).abs().max() > 0.1 * logits.std(0).max()


def test_a_factor_of_the_metric_changes_nothing() -> None:
    x = momenta()
    assert torch.allclose(lorentznet(7.5 * MINKOWSKI)(x), lorentznet()(x), atol=1e-5)


@pytest.mark.parametrize("make", nets())
def test_the_order_of_the_vectors_does_not_matter(make: Any) -> None:
    net, x = make(), momenta()
    order = torch.randperm(6, generator=stream(2))
    assert (net(x[:, :, order]) - net(x)).abs().max() < 1e-10


@pytest.mark.parametrize("make", nets())
def test_padding_changes_nothing(make: Any) -> None:
    net, x = make(), momenta()
    logits = net(x)
    for rows in (1, 5):
        padded = torch.cat([x, torch.zeros(5, 1, rows, 4, dtype=x.dtype)], 2)
        assert (net(padded) - logits).abs().max() < 1e-10
        assert (net(padded.flip(2)) - logits).abs().max() < 1e-10
    fewer = x.clone()
    fewer[:, :, 3:] = 0
    assert (net(fewer) - net(x[:, :, :3])).abs().max() < 1e-10
    assert (net(fewer) - logits).abs().max() > 1e-3


@pytest.mark.parametrize("make", nets())
def test_one_vector_or_none_at_all_is_finite(make: Any) -> None:
    x = momenta(2)
    x[0] = 0
    x[1, :, 1:] = 0
    x.requires_grad_(True)
    net = make()
    net(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    # A vector sends itself no message.
    assert all(p.grad is not None and not p.grad.any() for p in net.blocks[0].phi_e2.parameters())


@pytest.mark.parametrize("make", nets())
def test_a_sample_is_predicted_alike_in_any_batch_and_chart(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = make(), momenta(6)
    logits = net(x)
    assert (net(x[2:3]) - logits[2:3]).abs().max() < 1e-12
    assert (net(x.view(3, 2, 6, 4)) - logits.view(3, 2, 2)).abs().max() < 1e-12
    # However few sets are computed at once.
    monkeypatch.setitem(MAX_BATCH, "cpu", 4 * 6 * 6 * 8)
    assert (net(x) - logits).abs().max() < 1e-12


@pytest.mark.parametrize("make", nets())
def test_every_weight_has_a_gradient(make: Any) -> None:
    net: MessageNet = make()
    x = momenta(20).requires_grad_(True)
    functional.cross_entropy(net(x)[:, 0], torch.arange(20) % 2).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name
    assert x.grad is not None
    assert (x.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("given", [LorentzNetParams(), LorentzNetParams(hidden=72, layers=6)])
def test_both_have_the_same_size(given: LorentzNetParams) -> None:
    sizes = [
        sum(p.numel() for p in net.parameters())
        for net in (
            LorentzNet(signature(), given, MINKOWSKI, stream()),
            ParticleGraphNet(signature(), given, stream()),
        )
    ]
    assert 1 <= sizes[1] / sizes[0] < 1.05


def test_the_seed_alone_decides_the_weights() -> None:
    def made(seed: int) -> list[Tensor]:
        net = make_lorentznet(
            PARAMS, signature=signature(), tensors={"metric": MINKOWSKI}, seed=stream(seed)
        )
        return list(net.state_dict().values())

    first = made(1)
    torch.rand(3)  # the global stream moves on
    assert all(torch.equal(a, b) for a, b in zip(first, made(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, made(2), strict=True))


def test_it_learns_an_invariant_that_the_baseline_finds_hard() -> None:
    """Is the mass of three massless particles together above its median?"""
    g = stream(5)
    p = 20 * torch.randn(600, 1, 3, 3, generator=g)
    x = torch.cat([p.norm(dim=-1, keepdim=True), p], -1)
    total = x.sum(2)[:, 0]
    mass = (total @ MINKOWSKI * total).sum(-1)
    labels = (mass > mass.median()).long()
    small = LorentzNetParams(hidden=12, layers=1)
    accuracy = []
    for net in (
        LorentzNet(signature(3), small, MINKOWSKI, stream()),
        ParticleGraphNet(signature(3), small, stream()),
    ):
        # At a constant rate the accuracy jumps about, and rounding decides where it ends.
        optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20 * 10)
        for _ in range(20):
            for indices in torch.randperm(400, generator=g).split(40):
                optimiser.zero_grad()
                functional.cross_entropy(net(x[indices])[:, 0], labels[indices]).backward()
                optimiser.step()
                schedule.step()
        with torch.no_grad():
            accuracy.append(float((net(x[400:])[:, 0].argmax(1) == labels[400:]).double().mean()))
    assert accuracy[0] > 0.9
    assert accuracy[0] > accuracy[1] + 0.05, accuracy


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (torch.eye(3), "shape"),
        (torch.ones(4), "shape"),
        (torch.tensor([[1.0, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "symmetric"),
        (torch.diag(torch.tensor([1.0, -1, -1, 0])), "degenerate"),
        (torch.zeros(4, 4), "degenerate"),
        (torch.diag(torch.tensor([1.0, -1, -1, torch.nan])), "finite"),
        (torch.diag(torch.tensor([1.0, -1, -1, torch.inf])), "finite"),
        (torch.eye(4, dtype=torch.int64), "finite"),
    ],
)
def test_what_is_no_metric_is_refused(metric: Tensor, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_lorentznet(PARAMS, signature=signature(), tensors={"metric": metric}, seed=stream())
    assert caught.value.field == "predictor.tensors.metric"
    assert says in caught.value.message


def test_a_metric_symmetric_to_rounding_is_taken_and_made_symmetric() -> None:
    metric = MINKOWSKI.clone()
    metric[0, 1] = 1e-5
    taken = checked_metric(metric, 4)
    assert torch.equal(taken, taken.mT)
    assert torch.allclose(taken, MINKOWSKI, atol=1e-5)


def test_they_are_registered_and_say_what_they_need() -> None:
    assert find("architecture", "lorentznet", "").params is LorentzNetParams
    assert find("architecture", "particle_graph", "").params is LorentzNetParams
    planar = Signature("planar", 3, (1, 9, 9), 1, radius=4)
    with pytest.raises(InvalidInput):
        make_lorentznet(PARAMS, signature=signature(), tensors={}, seed=stream())
    for kind in ("lorentznet", "particle_graph"):
        with pytest.raises(InvalidInput):
            planar.check_manifold(find("architecture", kind, ""))
        signature().check_manifold(find("architecture", kind, ""))
    with pytest.raises(InvalidInput):
        make_particle_graph(
            PARAMS, signature=signature(), tensors={"metric": MINKOWSKI}, seed=stream()
        )
