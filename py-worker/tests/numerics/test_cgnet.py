"""CGNet: compared with the paper chart by chart; shapes, separate charts, learning and resuming."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from atlas_worker.datasets.base import GivenDataset
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.resample import crop
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.predictors.cgnet import CGNet, CGNetParams, linear_interpolation

from .resume_check import check_resuming

CPU = torch.device("cpu")
ATLAS = PlanarAtlas((Chart(12, 10), Chart(20, 22)), r_in=8, r_out=6)
SMALL = CGNetParams(m=2, n=2, width=4)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scrambled(net: CGNet, seed: int = 1) -> CGNet:
    """Set every weight and statistic at random, so that none can be forgotten, nor saturate."""
    g = stream(seed)
    with torch.no_grad():
        for name, t in net.state_dict().items():
            noise = torch.randn(t.shape, generator=g)
            if name.endswith(("running_var", "norm.weight")):
                t.copy_(1 + 0.3 * noise.tanh())
            elif t.dim() == 5:
                t.copy_(noise / t[0, 0].numel() ** 0.5)
            elif name.endswith("squeeze.bias"):
                t.fill_(1.0)  # few hidden channels, of which none may be dead
            else:
                t.copy_(0.3 * noise)
    return net


class Written:
    """The paper's network for one chart, in plain PyTorch, with one method for each part."""

    def __init__(self, net: CGNet, chart: int) -> None:
        self.p = params = {k: v[chart].detach().clone() for k, v in net.state_dict().items()}
        for name in dict(net.named_parameters()):
            params[name].requires_grad_(True)
        self.training = net.training

    def conv(self, name: str, x: Tensor, **how: Any) -> Tensor:
        return functional.conv2d(x, self.p[f"{name}.weight"], self.p.get(f"{name}.bias"), **how)

    def activation(self, name: str, x: Tensor) -> Tensor:
        statistics = (self.p[f"{name}.norm.running_mean"], self.p[f"{name}.norm.running_var"])
        affine = (self.p[f"{name}.norm.weight"], self.p[f"{name}.norm.bias"])
        h = functional.batch_norm(x, *statistics, *affine, training=self.training)
        return torch.where(h > 0, h, self.p[f"{name}.slope"][:, None, None] * h)

    def layer(self, name: str, x: Tensor, **how: Any) -> Tensor:
        return self.activation(f"{name}.activation", self.conv(f"{name}.conv", x, **how))

    def joint(self, name: str, x: Tensor, dilation: int) -> Tensor:
        depth = x.shape[1]
        local = self.conv(f"{name}.local", x, padding=1, groups=depth)
        around = self.conv(
            f"{name}.surrounding", x, padding=dilation, dilation=dilation, groups=depth
        )
        return self.activation(f"{name}.activation", torch.cat([local, around], 1))

    def context(self, name: str, x: Tensor) -> Tensor:
        hidden = self.conv(f"{name}.squeeze", x.mean((2, 3), keepdim=True)).relu()
        return x * self.conv(f"{name}.excite", hidden).sigmoid()

    def stage(self, name: str, x: Tensor, blocks: int, dilation: int) -> list[Tensor]:
        h = self.layer(f"{name}.first.down", x, padding=1, stride=2)
        h = self.conv(f"{name}.first.reduce", self.joint(f"{name}.first.joint", h, dilation))
        outputs = [self.context(f"{name}.first.context", h)]
        for i in range(blocks - 1):
            block = f"{name}.others.{i}"
            joint = self.joint(
                f"{block}.joint", self.layer(f"{block}.reduce", outputs[-1]), dilation
            )
            outputs.append(outputs[-1] + self.context(f"{block}.context", joint))
        return [outputs[0], outputs[-1]]

    def __call__(self, x: Tensor, params: CGNetParams) -> Tensor:
        """Logits of ``[B, in, s, s]``, where s − 1 is a multiple of 8.

        Then the interpolation is PyTorch's, with aligned corners.
        """
        half = functional.avg_pool2d(x, 3, 2, 1)
        h = self.layer("stem.0", x, padding=1, stride=2)
        h = self.layer("stem.2", self.layer("stem.1", h, padding=1), padding=1)
        h = self.activation("activations.0", torch.cat([h, half], 1))
        ends = self.stage("stages.0", h, params.m, 2)
        h = self.activation(
            "activations.1", torch.cat([*ends, functional.avg_pool2d(half, 3, 2, 1)], 1)
        )
        ends = self.stage("stages.1", h, params.n, 4)
        h = self.conv("classifier", self.activation("activations.2", torch.cat(ends, 1)))
        return functional.interpolate(h, x.shape[-2:], mode="bilinear", align_corners=True)


@pytest.mark.parametrize("params", [SMALL, CGNetParams(m=1, n=3, width=3)])
@pytest.mark.parametrize("training", [True, False])
def test_every_chart_has_the_paper_s_network_of_its_own(
    training: bool, params: CGNetParams
) -> None:
    net = scrambled(CGNet(3, 2, 5, params, stream())).train(training)
    written = [Written(net, c) for c in range(3)]
    x = torch.randn(6, 3, 2, 33, 33, generator=stream(2))
    expected = torch.stack([w(x[:, c], params) for c, w in enumerate(written)], 1)
    got = net(x)
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()
    toward = torch.randn(got.shape, generator=stream(3))
    (got * toward).sum().backward()
    (expected * toward).sum().backward()
    for name, p in net.named_parameters():
        for c, w in enumerate(written):
            grad = w.p[name].grad
            assert grad is not None
            assert grad.abs().max() > 0, name
            assert torch.allclose(
                p.grad[c], grad, rtol=1e-2, atol=1e-3 * float(grad.abs().max())
            ), name
    # Training has moved the running statistics alike; evaluation has left them alone.
    for name, buffer in net.named_buffers():
        for c, w in enumerate(written):
            assert torch.allclose(buffer[c], w.p[name], atol=1e-5), name


@pytest.mark.parametrize("size", [1, 2, 8, 9, 13, 16, 21, 33])
def test_labels_come_for_every_pixel_of_any_size(size: int) -> None:
    net = CGNet(2, 3, 4, SMALL, stream()).eval()
    y = net(torch.randn(2, 2, 3, size, size, generator=stream()))
    assert y.shape == (2, 2, 4, size, size)
    assert y.isfinite().all()


def test_nothing_of_one_chart_reaches_another() -> None:
    net = scrambled(CGNet(3, 2, 2, SMALL, stream())).eval()
    x = torch.randn(2, 3, 2, 17, 17, generator=stream(), requires_grad=True)
    for chart in range(3):
        (grad,) = torch.autograd.grad(net(x)[0, chart].square().sum(), x)
        felt = grad.abs().amax((2, 3, 4)) > 0
        assert felt.nonzero().tolist() == [[0, chart]]


def test_the_context_is_of_the_whole_chart() -> None:
    """Every pixel of the chart matters for the label of one corner."""
    net = scrambled(CGNet(1, 2, 2, SMALL, stream())).eval()
    x = torch.randn(1, 1, 2, 65, 65, generator=stream(), requires_grad=True)
    (grad,) = torch.autograd.grad(net(x)[0, 0, 0, 0, 0], x)
    assert (grad.abs().amax((0, 1, 2)) > 0).all()


def test_a_subset_of_charts_is_that_part_of_all() -> None:
    net = scrambled(CGNet(4, 1, 2, SMALL, stream())).eval()
    x = torch.randn(2, 4, 1, 13, 13, generator=stream())
    everything = net(x)
    for chosen in ([2], [0, 3], [3, 1]):
        assert torch.allclose(
            net(x[:, chosen], torch.tensor(chosen)), everything[:, chosen], atol=1e-5
        )
    assert not torch.allclose(net(x[:, [0]], torch.tensor([1])), everything[:, [0]], atol=1e-2)


@pytest.mark.parametrize("radius", [0, 1, 5, 8])
def test_the_inner_part_alone_is_the_inner_part(radius: int) -> None:
    net = scrambled(CGNet(3, 1, 2, SMALL, stream())).eval()
    x = torch.randn(2, 3, 1, 17, 17, generator=stream())
    for chosen in (None, torch.tensor([2, 0, 1])):
        part = net(x, chosen, radius)
        assert part.shape == (2, 3, 2, 2 * radius + 1, 2 * radius + 1)
        assert torch.equal(part, crop(net(x, chosen), radius))


@pytest.mark.parametrize("size", [1, 7, 9, 13, 16, 17, 401])
def test_the_interpolation_is_exact_for_slopes_and_constant_beyond_the_last(size: int) -> None:
    coarse = -(-size // 8)
    refine = linear_interpolation(torch.arange(size, dtype=torch.float64) / 8, coarse).double()
    last = 8 * (coarse - 1)
    expected = torch.arange(size, dtype=torch.float64).clamp(max=last)
    assert torch.equal(refine @ torch.arange(0, last + 1, 8, dtype=torch.float64), expected)


@pytest.mark.parametrize(("channels", "classes", "count"), [(4, 3, 494_232), (3, 19, 496_306)])
def test_it_is_as_light_as_the_paper_says(channels: int, classes: int, count: int) -> None:
    """Wu et al.: 0.5 M parameters with M 3, N 21 for three channels and nineteen classes."""
    net = CGNet(2, channels, classes, CGNetParams(), stream())
    assert sum(p.numel() for p in net.parameters()) == 2 * count
    assert round(count / 1e6, 1) == 0.5


class Shapes(GivenDataset):
    """Two smooth fields. Class 1 where the first is high, else 2 where the second is positive."""

    kind = "shapes"
    outputs = 3

    def __init__(self, samples: int = 24) -> None:
        coarse = torch.randn(2 * samples, 1, 5, 5, generator=stream(7))
        fine = functional.interpolate(coarse, 33, mode="bicubic", align_corners=True)
        self.inputs = fine.view(samples, 2, 33, 33)
        a, b = self.inputs[:, :1], self.inputs[:, 1:]
        self.targets = torch.where(a > 0.3, 1.0, torch.where(b > 0, 2.0, 0.0))


def predictor(seed: int = 0, epochs: int = 3, **training: Any) -> FittedPredictor:
    return make_predictor(
        ("cgnet", {"m": SMALL.m, "n": SMALL.n, "width": 8}),
        (
            "supervised",
            {
                "loss": "cross_entropy",
                "learning_rate": 0.01,
                "batch_size": 4,
                "weight_decay": 1e-3,
                **training,
            },
        ),
        Shapes(),
        ATLAS,
        epochs,
        seed,
        CPU,
    )


def run(p: FittedPredictor, epochs: int = 1) -> list[float]:
    return [p.run_epoch(lambda *_: None)["loss"] for _ in range(epochs)]


def test_training_lowers_the_loss_and_tells_classes_apart() -> None:
    p, data = predictor(epochs=8, schedule="cosine"), Shapes()
    losses = run(p, 8)
    assert losses[-1] < 0.6 * losses[0]
    classes = p.predict_classes(p.predict(p.crops(torch.arange(len(data.inputs)), data)), data)
    seen = classes >= 0
    truth = data.targets[:, 0].long()[seen]
    right = float((classes[seen] == truth).float().mean())
    assert right > float(truth.bincount().max()) / len(truth) + 0.3


def test_it_trains_in_bfloat16_as_well() -> None:
    p = predictor(precision="bfloat16")
    losses = run(p, 3)
    assert losses[-1] < losses[0]


def test_norms_and_slopes_do_not_decay() -> None:
    p = predictor()
    decaying, others = (g["params"] for g in p._optimiser.param_groups)
    names = {id(w): name for name, w in p._module.named_parameters()}
    assert all(names[id(w)].endswith(".weight") and "norm" not in names[id(w)] for w in decaying)
    assert all(names[id(w)].endswith(("slope", "bias", "norm.weight")) for w in others)


@pytest.mark.parametrize("stop", [0, 1])
def test_a_resumed_predictor_is_the_undisturbed_one_bit_for_bit(stop: int) -> None:
    check_resuming(lambda: predictor(schedule="cosine"), 2, stop)


def test_the_seed_decides() -> None:
    first, again, other = predictor(), predictor(), predictor(seed=1)
    assert run(first) == run(again)
    assert run(other)[0] != pytest.approx(run(again)[0], rel=1e-6)


def test_it_takes_neither_tensors_nor_a_stage_without_blocks() -> None:
    for architecture, tensors, field in (
        (("cgnet", {}), {"algebra": torch.eye(2)}, "predictor.tensors.algebra"),
        (("cgnet", {"n": 0}), {}, "predictor.architecture.params.n"),
    ):
        with pytest.raises(InvalidInput) as caught:
            make_predictor(architecture, ("supervised", {}), Shapes(2), ATLAS, 1, 0, CPU, tensors)  # type: ignore[arg-type]
        assert caught.value.field == field
