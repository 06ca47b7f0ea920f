"""The same networks in all the ways in which people make and keep them, right and wrong."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Blur(nn.Module):
    """``[B, 1, s, s]`` to itself: a Gaussian blur of x squared, minus x; rotations keep it."""

    def __init__(self) -> None:
        super().__init__()
        r = torch.arange(-2, 3).float()
        k = torch.exp(-(r[:, None] ** 2 + r[None] ** 2) / 2)
        self.conv = nn.Conv2d(1, 1, 5, padding=2, bias=False)
        self.conv.weight.data = (k / k.sum())[None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x * x) - x


class Norm(nn.Module):
    """``[B, 2, 3]`` to ``[B, 1]``: a learnt function of two lengths and a product; so(3)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1, bias=False))
        self.register_buffer("middle", torch.tensor([1.0, 1.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, 0], x[:, 1]
        pairs = [(a * a).sum(-1), (b * b).sum(-1), (a * b).sum(-1)]
        return 4 * self.net(torch.stack(pairs, -1) / 3 - self.middle)


@dataclasses.dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class Around(nn.Module):
    """A network with something done to its input or output."""

    def __init__(self, body: nn.Module, what: str) -> None:
        super().__init__()
        self.body, self.what = body, what
        self.count = 0
        self.held: Tensor | None = None
        self.drop = nn.Dropout(0.3)
        self.register_buffer("lasting", torch.zeros(()))
        self.norm = nn.BatchNorm1d(1) if isinstance(body, Norm) else nn.BatchNorm2d(1)
        self.still = nn.BatchNorm1d(1) if isinstance(body, Norm) else nn.BatchNorm2d(1)
        self.still.track_running_stats = False
        self.still.running_mean = self.still.running_var = None

    def forward(self, x: Tensor) -> Any:
        body, what = self.body, self.what
        match what:
            case "in place":
                x.mul_(4.0).sub_(0.0)
                return body(x / 4.0)
            case "tuple":
                return body(x), x.mean()
            case "list":
                return [x.mean(), body(x)]
            case "dict":
                return {"aux": x.mean(), "out": body(x)}
            case "nested":
                return {"aux": x.mean(), "heads": (x.mean(), {"out": body(x)})}
            case "dataclass":
                return Output(body(x))
            case "one of one":
                return OrderedDict(out=body(x))
            case "the same memory":
                y = body(x)
                if self.held is None or self.held.shape != y.shape or y.requires_grad:
                    self.held = y
                else:
                    self.held.copy_(y)
                return self.held
            case "in bfloat16":
                with torch.autocast("cpu", torch.bfloat16):
                    return body(x).float()
            case "half inside":
                return body(x.half())
            case "gradient inside":
                with torch.enable_grad():
                    y = body(x)
                    return y + 0 * torch.autograd.grad(y.sum(), x, create_graph=True)[0].sum()
            case "no gradient":
                with torch.no_grad():
                    return body(x)
            case "inference":
                with torch.inference_mode():
                    return body(x)
            case "numpy":
                return torch.from_numpy(np.asarray(body(x.detach()).detach().numpy()))
            case "numpy of a leaf":
                return body(torch.from_numpy(x.numpy() * 1.0))
            case "array":
                return body(x.detach()).detach().numpy()
            case "partly detached":
                return 0.5 * body(x) + 0.5 * body(x.detach())
            case "detached where it matters":
                y = body(x.detach())
                return y + 1e-3 * x.flatten(1).mean(1).view(-1, *[1] * (y.dim() - 1))
            case "endless gradient":
                y = body(x)
                return y + 0 * (x * 0).abs().sqrt().sum()
            case "rounded":
                return body(x).round()
            case "straight through":
                y = body(x)
                return y + (y.round() - y).detach()
            case "steps beside":
                y = body(x)
                return y + 2 * y.round()
            case "classes":
                y = body(x)
                return torch.stack([y, -y]).argmax(0)
            case "classes as numbers":
                y = body(x)
                return torch.stack([y, -y]).argmax(0).float()
            case "complex":
                return torch.complex(body(x), body(x))
            case "constant":
                return 0 * body(x) + 3
            case "beside a constant":
                return 100 + 0.01 * body(x)
            case "not a number":
                return body(x).log()
            case "dropout":
                return functional.dropout(body(x), 0.3)
            case "dropout module":
                return self.drop(body(x))
            case "noise":
                return body(x) * (1 + 0.05 * torch.rand(()))
            case "seeded noise":
                y = body(x)
                return y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
            case "counter":
                self.count += 1
                return body(x) * (1 + 0.01 * self.count)
            case "slow counter":
                self.count += 1
                return body(x) * (1 + 0.1 * (self.count // 15))
            case "memory":
                y = body(x)
                before = self.lasting.clone()
                self.lasting = 0.9 * self.lasting + y.detach().mean()
                return y + before
            case "batch norm":
                return self.norm(body(x))
            case "batch norm without statistics":
                return self.still(body(x))
            case "over the batch":
                y = body(x)
                return y - y.mean(0, keepdim=True)
            case "largest of the batch":
                return body(x / x.abs().max())
            case "channels last":
                return body(x.to(memory_format=torch.channels_last))
            case _:
                return body(x)
