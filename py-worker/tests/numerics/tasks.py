"""Tasks whose symmetry is known exactly: functions of points and of planar fields as predictors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.symmetry import EquivarianceObjective, FieldInputs, LossKind, PlanarAction

J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
STRETCH = torch.tensor([[2.0, 0.5], [0.0, 1.0]])


@dataclass(frozen=True)
class PointAction:
    """g acts on points of R^n, ``x [B, C, n]``; outputs are invariant, or points themselves."""

    n: int
    out: Literal["invariant", "point"] = "invariant"

    def act_in(self, g: Tensor, x: Tensor) -> Tensor:
        return (g @ x[..., None])[..., 0]

    def act_out(self, g: Tensor, y: Tensor) -> Tensor:
        if self.out == "point":
            return (g @ y[..., None])[..., 0]
        return y.expand(*g.shape[:-2], *y.shape[2:])

    def crop_in(self, x: Tensor) -> Tensor:
        return x

    def crop_out(self, y: Tensor) -> Tensor:
        return y

    def stays_in_support(self, g: Tensor, x: Tensor) -> Tensor:
        return torch.ones(len(g), dtype=torch.bool)

    def finer_interpolation(self) -> PointAction:
        return self

    def differentiable(self) -> PointAction:
        return self


@dataclass(frozen=True)
class Points:
    """Points ``[N, C, n]``."""

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @property
    def charts(self) -> int:
        return self.x.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        picked = self.x[indices]
        return picked if charts is None else picked[:, charts]


def point_task(
    f: Callable[[Tensor], Tensor],
    n: int = 2,
    out: Literal["invariant", "point"] = "invariant",
    loss: LossKind = "l1",
    samples: int = 512,
    seed: int = 0,
) -> EquivarianceObjective:
    """The symmetry of ``f: [..., n] -> [..., outputs]`` on normally distributed points."""
    x = torch.randn(samples, 1, n, generator=torch.Generator().manual_seed(seed))
    return EquivarianceObjective(Points(x), PointAction(n, out), lambda: lambda x, _: f(x), loss)


def noisy(f: Callable[[Tensor], Tensor], size: float, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """``f`` as an imperfect predictor: plus a smooth function of standard deviation ``size``."""

    def g(x: Tensor) -> Tensor:
        y = f(x)
        generator = torch.Generator().manual_seed(seed)
        w = 2 * torch.randn(x.shape[-1], y.shape[-1], generator=generator)
        phase = 6.3 * torch.rand(y.shape[-1], generator=generator)
        return y + size * 2**0.5 * torch.sin(x @ w + phase)

    return g


def norm_in(metric: Tensor) -> Callable[[Tensor], Tensor]:
    """``tanh(xᵀ metric x)``: invariant under exactly the group of the metric."""
    return lambda x: torch.tanh((x * (x @ metric)).sum(-1, keepdim=True) / 3)


def direction(x: Tensor) -> Tensor:
    """``x / ‖x‖``: invariant under positive scaling alone."""
    return x / x.norm(dim=-1, keepdim=True)


def complex_line(x: Tensor) -> Tensor:
    """Multiplication by 2 + i: commutes with C* alone."""
    return x @ torch.tensor([[2.0, 1.0], [-1.0, 2.0]])


def waves(x: Tensor) -> Tensor:
    """No linear symmetry."""
    return torch.stack(
        [torch.sin(x[..., 0]) + torch.cos(2.3 * x[..., 1]), x[..., 0] + x[..., 1] ** 2], -1
    )


def network(x: Tensor) -> Tensor:
    """A random network: no symmetry."""
    generator = torch.Generator().manual_seed(5)
    n = x.shape[-1]
    h = torch.tanh(
        x @ torch.randn(n, 16, generator=generator) + torch.randn(16, generator=generator)
    )
    return h @ torch.randn(16, 2, generator=generator)


def bent(x: Tensor) -> Tensor:
    """``x² + y``: no connected symmetry."""
    return x[..., :1] ** 2 + x[..., 1:2]


def quartic(x: Tensor) -> Tensor:
    """``tanh(x⁴ + y⁴ ...)``: the square's eight symmetries, no connected one."""
    return torch.tanh((x**4).sum(-1, keepdim=True) / 4)


def smooth_fields(samples: int, side: int, seed: int = 0, waves: int = 4) -> Tensor:
    """Sums of plane waves in all directions, ``[N, 1, side, side]``."""
    g = torch.Generator().manual_seed(seed)
    k = torch.randn(samples, waves, 2, generator=g) * 0.18
    phase = 6.3 * torch.rand(samples, waves, generator=g)
    t = torch.arange(side) - (side - 1) / 2
    u = torch.stack(torch.meshgrid(t, t, indexing="ij"), -1)
    return torch.sin(torch.einsum("nwi,rci->nwrc", k, u) + phase[..., None, None]).sum(
        1, keepdim=True
    )


def laplacian(x: Tensor) -> Tensor:
    """Five-point Laplacian of ``[..., s, s]``, one pixel smaller all round; commutes with O(2)."""
    return (
        x[..., 2:, 1:-1]
        + x[..., :-2, 1:-1]
        + x[..., 1:-1, 2:]
        + x[..., 1:-1, :-2]
        - 4 * x[..., 1:-1, 1:-1]
    )


def slope_squared(x: Tensor) -> Tensor:
    """Squared gradient, one pixel smaller all around: it commutes with O(2)."""
    u = (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2
    v = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2
    return u**2 + v**2


def stretched_slope(x: Tensor) -> Tensor:
    """``|Sᵀ∇x|²`` for ``S = STRETCH``: it commutes with S O(2) S⁻¹."""
    u = (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2
    v = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2
    a, b = STRETCH[0, 0] * u + STRETCH[1, 0] * v, STRETCH[0, 1] * u + STRETCH[1, 1] * v
    return a**2 + b**2


def lopsided(x: Tensor) -> Tensor:
    """A nonlinear function of both partial derivatives that no linear map leaves alone."""
    u = (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2
    v = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2
    return u + 4 * v * v + 0.5 * torch.sin(3 * x[..., 1:-1, 1:-1]) * v


def masked(x: Tensor) -> Tensor:
    """The field under a fixed off-centre window: bound to its place."""
    t = torch.linspace(-1, 1, x.shape[-1])[1:-1]
    window = torch.exp(-4 * ((t[:, None] - 0.3) ** 2 + 2 * (t[None, :] + 0.2) ** 2))
    return x[..., 1:-1, 1:-1] * window


def field_task(
    f: Callable[[Tensor], Tensor], samples: int = 64, seed: int = 0
) -> EquivarianceObjective:
    """``f: [..., s + 2, s + 2] -> [..., s, s]`` on two charts of smooth fields."""
    atlas = PlanarAtlas((Chart(20, 20), Chart(21, 24)), r_in=10, r_out=7, margin=6)
    fields = smooth_fields(samples, 45, seed)
    return EquivarianceObjective(
        FieldInputs(fields, atlas, halo=1), PlanarAction(11, 7), lambda: lambda x, _: f(x)
    )
