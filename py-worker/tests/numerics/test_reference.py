"""Checkpoints of the AtlasD code: its networks, as plain modules, and ours compute the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.reference import network_of
from atlas_worker.symmetry import Atlas, VectorSpace

CPU = torch.device("cpu")


def activated(layer: nn.Module, width: int) -> list[nn.Module]:
    return [layer, nn.LeakyReLU(), nn.BatchNorm2d(width)]


class PdeChart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((1, 16), (16, 16), (16, 16)):
            layers += activated(nn.Conv2d(a, b, 3, padding="same"), b)
        self.model = nn.Sequential(*layers, nn.Conv2d(16, 1, 3, padding="same"))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class Pde(nn.Module):
    def __init__(self, charts: int) -> None:
        super().__init__()
        self.predictors = nn.ModuleList(PdeChart() for _ in range(charts))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x[:, i]) for i, net in enumerate(self.predictors)], 1)


class MnistChart(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        down = [nn.Conv2d(a, b, 3, 2, 1) for a, b in ((1, 32), (32, 64), (64, 64))] + [
            nn.Conv2d(64, 64, 3)
        ]
        up = [
            nn.ConvTranspose2d(64, 64, 3),
            nn.ConvTranspose2d(64, 64, 3, 2, 1, 1),
            nn.ConvTranspose2d(64, 64, 3, 2, 1),
            nn.ConvTranspose2d(64, classes, 3, 2, 1),
        ]
        self.down = nn.Sequential(*[m for c in down for m in activated(c, c.out_channels)])
        self.up = nn.Sequential(*[m for c in up for m in activated(c, c.out_channels)])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.down(x))
        return y[..., : x.shape[-2], : x.shape[-1]]


class Mnist(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = (MnistChart(classes) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x[:, i]) for i, net in enumerate((self.c1, self.c2, self.c3))], 1)


class Jets(nn.Module):
    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(numbers, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.flatten(-2))  # type: ignore[no-any-return]


class Conv(nn.Module):
    """A convolution without bias, padded by the opposite side."""

    def __init__(
        self, a: int, b: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.pad = (kernel - 1) // 2 * dilation
        self.conv = nn.Conv2d(a, b, kernel, stride, dilation=dilation, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (self.pad,) * 4, mode="circular"))  # type: ignore[no-any-return]


class NormPReLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn, self.act = nn.BatchNorm2d(width, eps=1e-3), nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))  # type: ignore[no-any-return]


class ConvNormPReLU(NormPReLU):
    def __init__(self, a: int, b: int, kernel: int, stride: int = 1) -> None:
        super().__init__(b)
        self.pad = (kernel - 1) // 2
        self.conv = nn.Conv2d(a, b, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.conv(functional.pad(x, (self.pad,) * 4, mode="circular")))


class Weighted(nn.Module):
    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = width // reduction
        self.fc = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.fc(x.mean((2, 3)))
        return x * weights[:, :, None, None]


class Down(NormPReLU):
    def __init__(self, a: int, b: int, dilation: int, reduction: int) -> None:
        super().__init__(2 * b)
        self.conv1x1 = ConvNormPReLU(a, b, 3, 2)
        self.F_loc, self.F_sur = (Conv(b, b, 3, dilation=d, groups=b) for d in (1, dilation))
        self.reduce, self.F_glo = Conv(2 * b, b, 1), Weighted(b, reduction)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1x1(x)
        joint = super().forward(torch.cat([self.F_loc(h), self.F_sur(h)], 1))
        return self.F_glo(self.reduce(joint))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, width: int, dilation: int, reduction: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1x1 = ConvNormPReLU(width, half, 1)
        self.F_loc, self.F_sur = (
            Conv(half, half, 3, dilation=d, groups=half) for d in (1, dilation)
        )
        self.bn_prelu, self.F_glo = NormPReLU(width), Weighted(width, reduction)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1x1(x)
        return x + self.F_glo(self.bn_prelu(torch.cat([self.F_loc(h), self.F_sur(h)], 1)))  # type: ignore[no-any-return]


class CGNet(nn.Module):
    def __init__(self, channels: int, classes: int, m: int, n: int) -> None:
        super().__init__()
        self.level1_0 = ConvNormPReLU(channels, 32, 3, 2)
        self.level1_1, self.level1_2 = (ConvNormPReLU(32, 32, 3) for _ in range(2))
        self.b1 = NormPReLU(32 + channels)
        self.level2_0 = Down(32 + channels, 64, 2, 8)
        self.level2 = nn.ModuleList(Block(64, 2, 8) for _ in range(m - 1))
        self.bn_prelu_2 = NormPReLU(128 + channels)
        self.level3_0 = Down(128 + channels, 128, 4, 16)
        self.level3 = nn.ModuleList(Block(128, 4, 16) for _ in range(n - 1))
        self.bn_prelu_3 = NormPReLU(256)
        self.classifier = nn.Sequential(Conv(256, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        half, quarter = self.sampled(x), self.sampled(self.sampled(x))
        h = self.level1_2(self.level1_1(self.level1_0(x)))
        first = last = self.level2_0(self.b1(torch.cat([h, half], 1)))
        for block in self.level2:
            last = block(last)
        first = last2 = self.level3_0(self.bn_prelu_2(torch.cat([last, first, quarter], 1)))
        for block in self.level3:
            last2 = block(last2)
        logits = self.classifier(self.bn_prelu_3(torch.cat([first, last2], 1)))
        return functional.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)

    def sampled(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.pad(x, (1,) * 4, mode="circular"), 3, 2)


class Climate(nn.Module):
    def __init__(self, charts: int, m: int, n: int) -> None:
        super().__init__()
        for i in range(charts):
            setattr(self, f"network{i + 1}", CGNet(4, 3, m, n))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(
            [getattr(self, f"network{i + 1}")(x[:, i]) for i in range(x.shape[1])], 1
        )


def scrambled(net: nn.Module) -> nn.Module:
    """Weights and statistics as after some training."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, t in net.state_dict().items():
            if t.dim() == 1 or name.endswith("running_var"):
                noise = torch.randn(t.shape, generator=draw)
                t.copy_(0.5 + noise.abs() if "var" in name else t + 0.3 * noise)
    return net.eval()


def predictor(
    kind: str, params: Mapping[str, Any], x: Tensor, outputs: int, atlas: Atlas
) -> FittedPredictor:
    data = ArraysDataset(ArraysParams(outputs), seed=0, device=CPU, tensors={"inputs": x})
    return make_predictor((kind, params), ("supervised", {}), data, atlas, 0, 0, CPU)


def charts(count: int, radius: int) -> PlanarAtlas:
    return PlanarAtlas(
        tuple(Chart(radius + 1 + i, radius + 2) for i in range(count)), radius, radius
    )


def fields(channels: int, radius: int) -> Tensor:
    return torch.randn(
        4, channels, 2 * radius + 8, 2 * radius + 8, generator=torch.Generator().manual_seed(5)
    )


def pde(radius: int = 6, count: int = 2, **params: Any) -> FittedPredictor:
    return predictor("reference_cnn", params, fields(1, radius), 1, charts(count, radius))


def mnist(radius: int = 14, reference: bool = True) -> FittedPredictor:
    return predictor(
        "encoder_decoder", {"reference": reference}, fields(1, radius), 11, charts(3, radius)
    )


def jets(**params: Any) -> FittedPredictor:
    x = 50 * torch.randn(64, 3, 4, generator=torch.Generator().manual_seed(5))
    return predictor("mlp", params, x, 2, VectorSpace(4, False))


def climate(radius: int = 13, reference: bool = True, upside_down: bool = False) -> FittedPredictor:
    params = {"m": 2, "n": 3, "reference": reference, "upside_down": upside_down}
    return predictor("cgnet", params, fields(4, radius), 3, charts(2, radius))


CASES: list[tuple[str, Callable[[], nn.Module], Callable[[], FittedPredictor]]] = [
    ("convolutions", lambda: Pde(2), pde),
    ("encoder-decoder", lambda: Mnist(11), mnist),
    ("encoder-decoder", lambda: Mnist(11), lambda: mnist(12)),
    ("MLP", lambda: Jets(12), jets),
    ("CGNet", lambda: Climate(2, 2, 3), climate),
    ("CGNet", lambda: Climate(2, 2, 3), lambda: climate(16)),
]


@pytest.mark.parametrize(("network", "make", "ours"), CASES)
def test_a_published_checkpoint_gives_the_same_predictions(
    network: str, make: Callable[[], nn.Module], ours: Callable[[], FittedPredictor]
) -> None:
    torch.manual_seed(0)
    net, p = scrambled(make()), ours()
    assert network_of(net.state_dict()) == network
    x = torch.randn(3, *p._x.shape)
    with torch.no_grad():
        expected = net(x)
    assert (p.predict(x) - expected).abs().max() > 1e-3 * expected.abs().max()
    p.load_weights(net.state_dict())
    assert (p.predict(x) - expected).abs().max() < 1e-6 * max(1, float(expected.abs().max()))
    p.load_weights(
        {f"module.{name}": t for name, t in net.state_dict().items()}
    )  # of a DataParallel
    assert (p.predict(x) - expected).abs().max() < 1e-6 * max(1, float(expected.abs().max()))


def test_a_checkpoint_for_maps_the_other_way_up_has_its_outputs_turned_too() -> None:
    torch.manual_seed(0)
    net, p = scrambled(Climate(2, 2, 3)), climate(upside_down=True)
    p.load_weights(net.state_dict())
    x = torch.randn(3, *p._x.shape)
    with torch.no_grad():
        expected = net(x.flip(-2)).flip(-2)
    assert (p.predict(x) - expected).abs().max() < 1e-6 * max(1, float(expected.abs().max()))


@pytest.mark.parametrize(
    ("make", "ours"),
    [
        (lambda: Pde(2), lambda: mnist()),
        (lambda: Pde(2), jets),
        (lambda: Mnist(11), lambda: mnist(reference=False)),
        (lambda: Jets(12), lambda: jets(activation="gelu")),
        (lambda: Climate(2, 2, 3), lambda: climate(reference=False)),
        (lambda: Pde(2), lambda: predictor("strided_cnn", {}, fields(1, 40), 1, charts(2, 6))),
    ],
)
def test_an_architecture_that_computes_something_else_refuses(
    make: Callable[[], nn.Module], ours: Callable[[], FittedPredictor]
) -> None:
    p = ours()
    before = p.state()[0]
    with pytest.raises(InvalidInput, match=r"reference code's [\w-]+ network, .* does not compute"):
        p.load_weights(make().state_dict())
    assert all(torch.equal(t, before[name]) for name, t in p.state()[0].items())


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    weights = Pde(2).state_dict()
    for name, t in changes.items():
        weights.pop(name, None)
        if t is not None:
            weights[name] = t
    return weights


@pytest.mark.parametrize(
    ("weights", "first", "expected"),
    [
        (Pde(1).state_dict(), "predictors.1.model.9.weight is missing", r"\[1, 16, 3, 3\]"),
        (Pde(3).state_dict(), "hold 'predictors.2.model.0.weight'", "2 networks of"),
        (
            changed(**{"predictors.1.model.3.bias": None}),
            "predictors.1.model.3.bias is missing",
            r"\[16\]",
        ),
        (
            changed(**{"predictors.0.model.3.weight": torch.zeros(16, 16, 5, 5)}),
            r"predictors.0.model.3.weight has shape \[16, 16, 5, 5\]",
            r"\[16, 16, 3, 3\]",
        ),
        # BatchNorm before LeakyReLU is another function, with the same shapes.
        (
            changed(**{"predictors.0.model.1.weight": torch.ones(16)}),
            "hold 'predictors.0.model.1.weight'",
            "2 networks of",
        ),
    ],
)
def test_the_first_key_that_does_not_fit_is_named(
    weights: dict[str, Tensor], first: str, expected: str
) -> None:
    with pytest.raises(InvalidInput, match=first) as error:
        pde().load_weights(weights)
    assert "\n" not in error.value.message
    assert re.search(expected, error.value.expected)


@pytest.mark.parametrize(
    ("ours", "text"), [(lambda: mnist(15), "fewer"), (lambda: climate(11), "too small")]
)
def test_charts_that_the_published_networks_do_not_fit(
    ours: Callable[[], FittedPredictor], text: str
) -> None:
    with pytest.raises(InvalidInput, match=text):
        ours()
