"""Predictors: batched and looped charts agree; receptive fields, freezing, learning, resuming."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.datasets.base import GivenDataset
from atlas_worker.errors import InvalidInput, NotReady
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.resample import crop
from atlas_worker.predictors import FittedPredictor, make_objective, make_predictor
from atlas_worker.predictors.chartwise import (
    ReferenceCnn,
    StridedCnn,
    StridedCnnParams,
    cubic_interpolation,
)
from atlas_worker.scores import overlap_scores

from .resume_check import check_resuming
from .tasks import smooth_fields

CPU = torch.device("cpu")
ATLAS = PlanarAtlas((Chart(12, 10), Chart(20, 22), Chart(14, 19)), r_in=6, r_out=4, margin=2)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dataset(samples: int = 48) -> ArraysDataset:
    """A pointwise function of smooth fields, easily learnt."""
    x = smooth_fields(samples, 33)
    return ArraysDataset(
        ArraysParams(),
        seed=0,
        device=CPU,
        tensors={"inputs": x, "targets": x.clamp(min=-0.5) + 0.3},
    )


def predictor(
    kind: str = "reference_cnn", seed: int = 0, epochs: int = 3, **training: Any
) -> FittedPredictor:
    small = {"reference_cnn": {"width": 4}, "strided_cnn": {"width": 4, "layers": 1, "stride": 2}}[
        kind
    ]
    return make_predictor(
        (kind, small),
        ("supervised", {"learning_rate": 0.01, **training}),
        dataset(),
        ATLAS,
        epochs,
        seed,
        CPU,
    )


def run(p: FittedPredictor, epochs: int = 1) -> list[float]:
    return [p.run_epoch(lambda *_: None)["loss"] for _ in range(epochs)]


def scrambled(net: nn.Module, seed: int = 1) -> nn.Module:
    """Every weight and statistic at random, so that none can be left out unnoticed."""
    g = stream(seed)
    with torch.no_grad():
        for t in net.state_dict().values():
            t.copy_(0.5 * torch.randn(t.shape, generator=g)).add_(0.0)
        for name, t in net.named_buffers():
            if name.endswith("running_var"):
                t.copy_(0.5 + torch.rand(t.shape, generator=g))
    return net


def looped(net: ReferenceCnn) -> list[nn.Sequential]:
    """The same charts, each a plain network."""
    plain = []
    for c in range(net.last.weight.shape[0]):
        layers: list[nn.Module] = []
        for conv, norm in zip(net.convs, net.norms, strict=True):
            own = nn.Conv2d(conv.weight.shape[2], conv.weight.shape[1], 3, padding=1)
            own.load_state_dict({"weight": conv.weight[c], "bias": conv.bias[c]})
            bn = nn.BatchNorm2d(conv.weight.shape[1])
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(bn, name).data.copy_(getattr(norm, name)[c])
            layers += [own, nn.LeakyReLU(), bn]
        last = nn.Conv2d(net.last.weight.shape[2], net.last.weight.shape[1], 3, padding=1)
        last.load_state_dict({"weight": net.last.weight[c], "bias": net.last.bias[c]})
        plain.append(nn.Sequential(*layers, last))
    return plain


@pytest.mark.parametrize("training", [True, False])
def test_the_published_net_is_a_plain_network_for_each_chart(training: bool) -> None:
    net = scrambled(ReferenceCnn(3, 2, 5, 4, stream())).train(training)
    plain = [p.train(training) for p in looped(net)]  # type: ignore[arg-type]
    x = torch.randn(6, 3, 2, 9, 9, generator=stream(2))
    expected = torch.stack([p(x[:, c]) for c, p in enumerate(plain)], 1)
    assert (net(x) - expected).abs().max() < 1e-4 * expected.abs().max()
    # Training has moved the running statistics alike; evaluation has left them alone.
    for c, p in enumerate(plain):
        for norm, bn in zip(
            net.norms, (m for m in p if isinstance(m, nn.BatchNorm2d)), strict=True
        ):
            assert torch.allclose(norm.running_mean[c], bn.running_mean, atol=1e-5)
            assert torch.allclose(norm.running_var[c], bn.running_var, atol=1e-5)


def test_batched_gradients_are_the_looped_ones() -> None:
    net = scrambled(ReferenceCnn(2, 1, 1, 3, stream())).train()
    plain = [p.train() for p in looped(net)]  # type: ignore[arg-type]
    x = torch.randn(4, 2, 1, 7, 7, generator=stream(3))
    net(x).square().sum().backward()
    for c, p in enumerate(plain):
        p(x[:, c]).square().sum().backward()
        first = p[0].weight.grad
        assert torch.allclose(
            net.convs[0].weight.grad[c], first, rtol=1e-3, atol=1e-4 * float(first.abs().max())
        )


def nets() -> list[Any]:
    return [
        pytest.param(
            lambda: scrambled(ReferenceCnn(4, 1, 2, 3, stream())).eval(), 6, id="reference_cnn"
        ),
        pytest.param(
            lambda: scrambled(
                StridedCnn(4, 1, 2, 6, StridedCnnParams(width=3, layers=2, stride=3), stream())
            ).eval(),
            6,
            id="strided_cnn",
        ),
    ]


@pytest.mark.parametrize(("make", "radius"), nets())
def test_a_subset_of_charts_is_that_part_of_all(make: Any, radius: int) -> None:
    net = make()
    x = torch.randn(2, 4, 1, *2 * [2 * (radius + net.halo) + 1], generator=stream())
    everything = net(x)
    assert everything.shape == (2, 4, 2, 2 * radius + 1, 2 * radius + 1)
    for chosen in ([2], [0, 3], [3, 1]):
        assert torch.allclose(
            net(x[:, chosen], torch.tensor(chosen)), everything[:, chosen], atol=1e-5
        )
    assert not torch.allclose(net(x[:, [0]], torch.tensor([1])), everything[:, [0]], atol=1e-2)


@pytest.mark.parametrize(
    ("stride", "layers", "radius"), [(4, 3, 14), (2, 1, 5), (1, 2, 4), (3, 2, 6), (4, 2, 9)]
)
def test_the_wide_net_reads_its_reach_and_no_more(stride: int, layers: int, radius: int) -> None:
    net = StridedCnn(
        1, 1, 1, radius, StridedCnnParams(width=3, layers=layers, stride=stride), stream()
    )
    scrambled(net)
    side = 2 * (radius + net.halo) + 1
    x = torch.randn(1, 1, 1, side, side, generator=stream(), requires_grad=True)
    net(x).abs().sum().backward()
    assert x.grad is not None
    seen = x.grad[0, 0, 0].abs() > 0
    assert seen[0].any()
    assert seen[:, -1].any()
    assert seen.all()
    # The centre's own field of view: within it a pixel matters, beyond it none does.
    x.grad = None
    net(x)[0, 0, 0, radius, radius].backward()
    centre = radius + net.halo
    far = stride * layers + (stride + (stride + 1) % 2) // 2
    seen = x.grad[0, 0, 0].abs() > 0
    assert seen[centre - far, centre]
    assert seen[centre, centre + far]
    outside = torch.ones_like(seen)
    outside[centre - far : centre + far + 1, centre - far : centre + far + 1] = False
    assert not (seen & outside).any()


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_wide_net_commutes_with_shifts_of_its_lattice(stride: int) -> None:
    radius = 4 * stride
    net = scrambled(
        StridedCnn(1, 1, 1, radius, StridedCnnParams(width=3, layers=2, stride=stride), stream())
    )
    side = 2 * (radius + net.halo) + 1
    wide = torch.randn(1, 1, 1, side + 2 * stride, side + stride, generator=stream())
    here, there = wide[..., :side, :side], wide[..., 2 * stride :, stride:]
    a, b = net(here)[..., 2 * stride :, stride:], net(there)[..., : -2 * stride, :-stride]
    # Away from the interpolation's border, where its cubic repeats the last coarse pixel.
    inner = slice(2 * stride, -2 * stride)
    assert (a - b)[..., inner, inner].abs().max() < 1e-4 * a.abs().max()
    assert (net(here) - net(there)).abs().max() > 0.05 * a.abs().max()


@pytest.mark.parametrize("kind", ["reference_cnn", "strided_cnn"])
def test_training_lowers_the_loss(kind: str) -> None:
    losses = run(predictor(kind, epochs=8, schedule="cosine", batch_size=4), 8)
    assert losses[-1] < 0.5 * losses[0]


def test_freezing_is_in_evaluation_mode_and_keeps_the_weights_of_its_moment() -> None:
    p = predictor()
    run(p)
    crops = p.crops(torch.arange(4), dataset())
    f = p.freeze()
    before = f(crops, None)
    assert not before.requires_grad
    # Evaluation mode: what is predicted of one sample does not depend on its batch.
    assert torch.allclose(f(crops[:1], None), before[:1], atol=1e-5)
    run(p)
    assert torch.equal(f(crops, None), before)
    assert not torch.allclose(p.predict(crops), before, atol=1e-3)
    moved = crops.clone().requires_grad_(True)
    f(moved, None).sum().backward()
    assert moved.grad is not None


def test_predicting_is_in_evaluation_mode_and_leaves_training_undisturbed() -> None:
    disturbed, calm = predictor(), predictor()
    run(disturbed)
    run(calm)
    disturbed.predict(disturbed.crops(torch.arange(5), dataset()))
    disturbed.freeze()
    assert run(disturbed) == run(calm)


@pytest.mark.parametrize("kind", ["reference_cnn", "strided_cnn"])
def test_what_is_predicted_lies_where_its_target_lies(kind: str) -> None:
    """Chart by chart, and not shifted or stretched by the margin or the halo."""
    p = predictor(kind, epochs=8, schedule="cosine", batch_size=2)
    run(p, 8)
    y, got, h = dataset().targets, p.predict(p.crops(torch.arange(8), dataset())), ATLAS.r_out

    def distance(chart: int, dr: int, dc: int) -> float:
        row, col = ATLAS.charts[chart].row + dr, ATLAS.charts[chart].col + dc
        target = y[:8, :, row - h : row + h + 1, col - h : col + h + 1]
        return float((got[:, chart, :, 2:-2, 2:-2] - target).abs().mean())

    for chart in range(3):
        for shift in ((2, 0), (-2, 0), (0, 2), (0, -2)):
            assert distance(chart, 0, 0) < 0.8 * distance(chart, *shift)


def test_predict_refuses_other_shapes() -> None:
    p = predictor()
    good = p.crops(torch.arange(2), dataset())
    for bad in (good[:, :2], good[..., :-1], good[0], good.expand(-1, -1, 2, -1, -1)):
        with pytest.raises(InvalidInput) as caught:
            p.predict(bad)
        assert caught.value.field == "crops"


@pytest.mark.parametrize("kind", ["reference_cnn", "strided_cnn"])
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_resumed_predictor_is_the_undisturbed_one_bit_for_bit(kind: str, stop: int) -> None:
    check_resuming(lambda: predictor(kind, schedule="cosine"), 3, stop)


def test_the_seed_decides() -> None:
    first, again, other = predictor(), predictor(), predictor(seed=1)
    assert run(first) == run(again)
    assert run(other)[0] != pytest.approx(run(again)[0], rel=1e-6)


def weights(p: FittedPredictor) -> dict[str, Tensor]:
    return {k: v for k, v in p.state()[0].items() if k.startswith("module.")}


def test_loaded_weights_predict_alike_with_and_without_the_prefix() -> None:
    source = predictor()
    run(source, 2)
    crops = source.crops(torch.arange(3), dataset())
    bare = {k.removeprefix("module."): v for k, v in weights(source).items()}
    for tensors in (weights(source), bare, source.state()[0]):
        target = predictor(seed=9)
        assert not torch.allclose(target.predict(crops), source.predict(crops), atol=1e-2)
        target.load_weights(tensors)
        assert torch.equal(target.predict(crops), source.predict(crops))


def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing() -> None:
    p = predictor()
    good = weights(p)
    name = "module.last.weight"
    before = weights(p)
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({k: v + 1 for k, v in good.items() if k != name}, "last.weight"),
        ({**{k: v + 1 for k, v in good.items()}, name: good[name][:1]}, "last.weight"),
        ({**{k: v + 1 for k, v in good.items()}, name: good[name] / 0}, "last.weight"),
        ({**{k: v + 1 for k, v in good.items()}, name: good[name] * 1j}, "last.weight"),
        ({**{k: v + 1 for k, v in good.items()}, "module.extra": good[name]}, "extra"),
        ({}, "convs.0.weight"),
        (weights(predictor("strided_cnn")), "first.weight"),
    ]
    for tensors, named in cases:
        with pytest.raises(InvalidInput) as caught:
            p.load_weights(tensors)
        assert named in caught.value.message
    for k, v in weights(p).items():
        assert torch.equal(v, before[k])


def test_state_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInput):
        predictor("strided_cnn").load_state(*predictor("reference_cnn").state())


def test_a_predictor_needs_data_and_charts_on_the_lattice() -> None:
    class Unmade:
        @property
        def inputs(self) -> Tensor:
            raise NotReady("not made yet")

    with pytest.raises(NotReady):
        make_predictor(("reference_cnn", {}), ("supervised", {}), Unmade(), ATLAS, 1, 0, CPU)  # type: ignore[arg-type]
    outside = PlanarAtlas((Chart(5, 10),), r_in=6, r_out=4)
    with pytest.raises(InvalidInput) as caught:
        make_predictor(("reference_cnn", {}), ("supervised", {}), dataset(2), outside, 1, 0, CPU)
    assert caught.value.field == "atlas.action.params.charts[0]"
    for architecture, training, field in (
        (("nonesuch", {}), ("supervised", {}), "predictor.architecture.kind"),
        (("strided_cnn", {}), ("nonesuch", {}), "predictor.training.kind"),
        (("strided_cnn", {"width": 0}), ("supervised", {}), "predictor.architecture.params.width"),
        (("strided_cnn", {}), ("supervised", {"loss": "l3"}), "predictor.training.params.loss"),
    ):
        with pytest.raises(InvalidInput) as caught:
            make_predictor(architecture, training, dataset(2), ATLAS, 1, 0, CPU)  # type: ignore[arg-type]
        assert caught.value.field == field


def test_a_predictor_poses_its_task_on_its_own_crops() -> None:
    p = predictor("strided_cnn")
    run(p)
    objective = make_objective(p, dataset(), ATLAS)
    assert (objective.n, objective.samples, objective.charts) == (2, 48, 3)
    batch = objective.batch(torch.tensor([3, 5]))
    inner = p.predict(p.crops(torch.tensor([3, 5]), dataset()))
    assert torch.allclose(batch.reference, inner, atol=1e-5)
    still = torch.eye(2).expand(2, 3, 2, 2)
    assert objective.loss(batch, still).max() < 1e-5
    assert objective.loss(batch, 0.5 * still).min() > 1e-3


def test_an_epoch_is_every_sample_once_in_an_order_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = predictor()
    orders: list[list[int]] = []
    draw = p._x.draw

    def spy(indices: Tensor, charts: Tensor | None) -> Tensor:
        orders[-1].extend(indices.tolist())
        return draw(indices, charts)

    monkeypatch.setattr(p._x, "draw", spy)
    for _ in range(2):
        orders.append([])
        run(p)
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(48))
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize(("stride", "radius"), [(4, 14), (3, 6), (1, 4), (2, 5)])
def test_the_fine_lattice_is_exact_for_quadratics(stride: int, radius: int) -> None:
    coarse = -(-radius // stride) + (stride > 1)
    refine = cubic_interpolation(coarse, stride, radius).double()
    u = torch.arange(-coarse, coarse + 1, dtype=torch.float64) * stride
    v = torch.arange(-radius, radius + 1, dtype=torch.float64)
    for power in (0, 1, 2):
        assert torch.allclose(
            refine @ u**power, v**power, atol=1e-5 * max(1.0, float(v.max()) ** power)
        )


@pytest.mark.parametrize("radius", [1, 4, 5, 8])
@pytest.mark.parametrize("kind", ["reference_cnn", "strided_cnn"])
def test_the_inner_part_alone_is_the_inner_part(kind: str, radius: int) -> None:
    """Also in gradient, with BatchNorm statistics and weights that are not the initial ones."""
    charts, r_in = 3, 9
    net = (
        ReferenceCnn(charts, 1, 2, 4, stream())
        if kind == "reference_cnn"
        else StridedCnn(charts, 1, 2, r_in, StridedCnnParams(width=4, layers=2, stride=3), stream())
    )
    scrambled(net)
    net.train()
    side = 2 * (r_in + net.halo) + 1
    net(torch.randn(4, charts, 1, side, side, generator=stream()))
    net.eval()
    x = torch.randn(2, charts, 1, side, side, generator=stream(), requires_grad=True)
    for chosen in (None, torch.tensor([2, 0, 1])):
        whole = crop(net(x, chosen), radius)
        part = net(x, chosen, radius)
        assert part.shape == whole.shape
        assert torch.allclose(part, whole, atol=1e-5)
        weights = torch.randn(whole.shape, generator=stream())
        (a,) = torch.autograd.grad((whole * weights).sum(), x)
        (b,) = torch.autograd.grad((part * weights).sum(), x)
        assert torch.allclose(a, b, atol=1e-4)


class Named(GivenDataset):
    """Smooth fields with named classes; every second sample is another expert's labels."""

    kind = "named"
    outputs, background, classes = 3, 0, ("nothing", "deep blue", "high")

    def __init__(self) -> None:
        self.scenes = torch.arange(8) // 2
        self.inputs = smooth_fields(4, 33)[self.scenes]
        self.targets = ((self.inputs > 0.8).byte() * 2 + (self.inputs < -0.8).byte()).contiguous()
        self.targets[1::2, :, 16:] = 0


@pytest.mark.parametrize("loss", ["cross_entropy", "jaccard"])
def test_named_classes_are_scored_where_there_are_charts(loss: str) -> None:
    data = Named()
    p = make_predictor(
        ("reference_cnn", {"width": 4}),
        ("supervised", {"loss": loss, "batch_size": 4}),
        data,
        ATLAS,
        2,
        0,
        CPU,
    )
    losses = run(p, 2)
    assert losses[1] < losses[0]
    scores = p.scores(data)
    seen = p.predict_classes(p.predict(p.crops(torch.arange(8), data)), data)
    assert bool((seen == -1).any())
    labels = data.targets[:, 0].long()
    assert scores == overlap_scores(
        lambda i: seen[i].flatten(1), lambda i: labels[i].flatten(1), data.scenes, Named.classes
    )
    charted = seen >= 0
    high = (seen == 2) & (labels == 2)
    assert scores["recall_high"] == pytest.approx(
        float(high.sum() / ((labels == 2) & charted).sum())
    )
    assert {"iou_deep_blue", "experts_iou_nothing", "trivial_mean_iou"} <= set(scores)
    calls: list[int] = []
    p.scores(data, lambda: calls.append(1))
    assert calls, "it can be stopped between batches"
