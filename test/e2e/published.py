"""A predictor of heat flow as the method's published code keeps it, for tests.

``python published.py make --out FILE`` trains one in plain PyTorch and saves its state dict.
``check --weights FILE --program FILE`` measures the difference of an exported program from the
network itself, on random fields.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional

CHARTS, RADIUS = 3, 26


class Single(nn.Module):
    """One chart's network."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (1, 16, 16):
            layers += [nn.Conv2d(width, 16, 3, padding="same"), nn.LeakyReLU(), nn.BatchNorm2d(16)]
        self.model = nn.Sequential(*layers, nn.Conv2d(16, 1, 3, padding="same"))


class Predictor(nn.Module):
    """``[B, charts, 1, s, s]`` to the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.charts = [Single() for _ in range(CHARTS)]
        self.predictors = nn.ModuleList(self.charts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net.model(x[:, i]) for i, net in enumerate(self.charts)], 1)


def smoothed(fields: Tensor, sigma: float) -> Tensor:
    """``[B, 1, s, s]``, blurred by a Gaussian: what heat flow does."""
    at = torch.arange(-12.0, 13.0)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel /= kernel.sum()
    rows = functional.conv2d(fields, kernel.view(1, 1, -1, 1), padding=(12, 0))
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, 12))


def train(net: Single, steps: int) -> None:
    """To let waves of all directions flow for a while."""
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x = smoothed(torch.randn(8, 1, 45, 45), 1.7) * 6
        y = smoothed(x, 1.2)[..., 10:-10, 10:-10]
        loss = functional.l1_loss(net.model(x)[..., 10:-10, 10:-10], y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def make(out: str, steps: int) -> None:
    torch.manual_seed(0)
    predictor = Predictor()
    first, *others = predictor.charts
    train(first, steps)
    for net in others:
        net.load_state_dict(first.state_dict())
        train(net, steps // 10)
    torch.save(predictor.state_dict(), out)


def check(weights: str, program: str) -> None:
    predictor = Predictor().eval()
    predictor.load_state_dict(torch.load(weights, weights_only=True))
    x = torch.randn(
        3, CHARTS, 1, 2 * RADIUS + 1, 2 * RADIUS + 1, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        own, exported = predictor(x), torch.jit.load(program)(x)
    print(float((own - exported).abs().max() / own.abs().max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "check"])
    parser.add_argument("--out")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--weights")
    parser.add_argument("--program")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "make":
        make(args.out, args.steps)
    else:
        check(args.weights, args.program)


if __name__ == "__main__":
    main()
