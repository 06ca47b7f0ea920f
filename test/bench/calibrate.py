"""Problems of known truth, for ``calibrate.ts``, which asks in lines of JSON.

Every problem has inputs x, a known map F, and targets y = F(x) + noise. A symmetric map may be
broken by a known amount: F = F0 + ε b with a random smooth b. The truth of a move is the share of
the variance of F that it breaks, where the moved inputs are near the data: what the evidence would
measure of a predictor that is F itself (METHOD 2.13).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "py-worker"))

from atlas_worker import blocks, catalogue
from atlas_worker.symmetry.evidence import Judges, Subject
from atlas_worker.symmetry.manifold import action_on, inputs_on, targets_on

assert blocks
CPU = torch.device("cpu")
SAMPLES = 1500


@dataclass
class Problem:
    """Inputs, the map, and its generators."""

    x: Tensor
    """``[N, m, n]``"""
    f: Callable[[Tensor], Tensor]
    """``[N, m, n] -> [N, outputs]``, or logits of classes."""
    generators: Tensor
    """``[k, n, n]``; k is 0 without a symmetry."""
    out: str = ""
    """Type of the outputs; empty for scalars."""
    classes: bool = False
    units: Tensor | None = None
    """Units ``[n, n]`` of the components, in which a breaking is smooth; None for 1."""


def cosines(n: int, out: int, length: float, g: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A random smooth map of unit variance: a sum of 32 cosines."""
    w = torch.randn(32, n, generator=g) / length
    phase = 2 * math.pi * torch.rand(32, generator=g)
    a = torch.randn(32, out, generator=g) / 4
    return lambda x: torch.cos(x.flatten(1) @ w.T + phase) @ a


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def frame(g: torch.Generator, n: int) -> Tensor:
    """A random change of basis with a condition of at most 2."""
    u, _ = torch.linalg.qr(normal(g, n, n))
    v, _ = torch.linalg.qr(normal(g, n, n))
    basis: Tensor = u @ torch.diag(1 + torch.rand(n, generator=g)) @ v / 1.5
    return basis


def elementary(n: int, i: int, j: int, sign: float) -> Tensor:
    e = torch.zeros(n, n)
    e[i, j], e[j, i] = 1.0, sign
    return e


def orthogonal(signature: list[int]) -> Tensor:
    """Generators that keep the metric with these signs."""
    n = len(signature)
    return torch.stack(
        [
            elementary(n, i, j, -float(signature[i] * signature[j]))
            for i in range(n)
            for j in range(i + 1, n)
        ]
    )


def quadratic(x: Tensor, metric: Tensor) -> Tensor:
    """All products of the vectors of each set under a metric, ``[N, pairs]``."""
    z = x @ metric @ x.mT
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return z[:, i, j]


def invariant(g: torch.Generator, signature: list[int], items: int, basis: Tensor) -> Problem:
    n = len(signature)
    x = normal(g, SAMPLES, items, n) @ basis.T
    inverse = torch.linalg.inv(basis)
    metric = inverse.T @ torch.diag(torch.tensor(signature).float()) @ inverse
    z = quadratic(x, metric)
    mean, deviation = z.mean(0), z.std(0)
    h = cosines(z.shape[1], 1, 1.5, g)
    return Problem(
        x,
        lambda x: h((quadratic(x, metric) - mean) / deviation),
        basis @ orthogonal(signature) @ inverse,
    )


def radial(g: torch.Generator) -> Problem:
    return invariant(g, [1, 1], 1, torch.eye(2))


def ellipse(g: torch.Generator) -> Problem:
    return invariant(g, [1, 1], 2, frame(g, 2))


def boost(g: torch.Generator) -> Problem:
    return invariant(g, [1, -1], 2, frame(g, 2))


def rotations(g: torch.Generator) -> Problem:
    return invariant(g, [1, 1, 1], 2, torch.eye(3))


def lorentz(g: torch.Generator) -> Problem:
    return invariant(g, [1, 1, -1], 3, frame(g, 3))


def scaling(g: torch.Generator) -> Problem:
    x = normal(g, SAMPLES, 1, 2) + torch.tensor([1.5, 0.0])
    h = cosines(2, 1, 0.7, g)
    return Problem(x, lambda x: h(x[:, 0] / x[:, 0].norm(dim=1, keepdim=True)), torch.eye(2)[None])


def vectors(g: torch.Generator) -> Problem:
    x = normal(g, SAMPLES, 2, 2)
    h = cosines(3, 2, 1.5, g)

    def f(x: Tensor) -> Tensor:
        a = h(quadratic(x, torch.eye(2)) / 2)
        return a[:, :1] * x[:, 0] + a[:, 1:] * x[:, 1]

    return Problem(x, f, orthogonal([1, 1]), out="V")


def classes(g: torch.Generator) -> Problem:
    x = normal(g, SAMPLES, 1, 2)
    rare = float(torch.rand((), generator=g)) * 2
    return Problem(
        x,
        lambda x: (
            3 * (x[:, 0].square().sum(1, keepdim=True) - 1.4 - rare) * torch.tensor([[1, -1]])
        ),
        orthogonal([1, 1]),
        classes=True,
    )


def axis(g: torch.Generator) -> Problem:
    """Invariant under rotations about an axis, in R^3."""
    x = normal(g, SAMPLES, 1, 3)
    h = cosines(2, 1, 1.0, g)
    b = torch.zeros(1, 3, 3)
    b[0, 0, 1], b[0, 1, 0] = -1, 1
    return Problem(x, lambda x: h(torch.stack([x[:, 0, :2].norm(dim=1), x[:, 0, 2]], 1)), b)


NOTHING2, NOTHING3 = torch.zeros(0, 2, 2), torch.zeros(0, 3, 3)


def smooth(g: torch.Generator) -> Problem:
    return Problem(normal(g, SAMPLES, 1, 2), cosines(2, 1, 1.5, g), NOTHING2)


def rough(g: torch.Generator) -> Problem:
    return Problem(normal(g, SAMPLES, 1, 2), cosines(2, 1, 0.6, g), NOTHING2)


def smooth3(g: torch.Generator) -> Problem:
    return Problem(normal(g, SAMPLES, 1, 3), cosines(3, 1, 1.5, g), NOTHING3)


def pairs(g: torch.Generator) -> Problem:
    return Problem(normal(g, SAMPLES, 2, 2), cosines(4, 1, 2.0, g), NOTHING2)


def field_of_vectors(g: torch.Generator) -> Problem:
    return Problem(normal(g, SAMPLES, 1, 2), cosines(2, 2, 1.5, g), NOTHING2, out="V")


def regions(g: torch.Generator) -> Problem:
    h = cosines(2, 1, 1.2, g)
    return Problem(
        normal(g, SAMPLES, 1, 2),
        lambda x: 4 * h(x) * torch.tensor([[1, -1]]),
        NOTHING2,
        classes=True,
    )


def offset(g: torch.Generator) -> Problem:
    x = normal(g, SAMPLES, 1, 2) @ frame(g, 2) + normal(g, 2)
    return Problem(x, cosines(2, 1, 1.5, g), NOTHING2)


def petals(g: torch.Generator) -> Problem:
    """A finite group C_k, whose rotations by other angles are no symmetries."""
    k = int(torch.randint(2, 6, (), generator=g))

    def f(x: Tensor) -> Tensor:
        z = torch.complex(x[:, 0, 0], x[:, 0, 1])
        y: Tensor = x[:, 0].norm(dim=1) * (torch.cos(k * z.angle()) + 0.5)
        return y[:, None]

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def wedge(g: torch.Generator) -> Problem:
    """A symmetric map, known in a wedge only."""
    angle = torch.rand(SAMPLES, generator=g) - 0.5
    r = 1 + torch.rand(SAMPLES, generator=g)
    x = torch.stack([r * angle.cos(), r * angle.sin()], -1)[:, None]
    return Problem(
        x, lambda x: torch.sin(3 * x[:, 0].norm(dim=1, keepdim=True)), orthogonal([1, 1])
    )


def wedge_without(g: torch.Generator) -> Problem:
    angle = torch.rand(SAMPLES, generator=g) - 0.5
    r = 1 + torch.rand(SAMPLES, generator=g)
    x = torch.stack([r * angle.cos(), r * angle.sin()], -1)[:, None]
    return Problem(x, cosines(2, 1, 0.5, g), NOTHING2)


FIRST_WITH = (radial, ellipse, boost, rotations, lorentz, scaling, vectors, classes, axis, wedge)
FIRST_WITHOUT = (
    smooth,
    rough,
    smooth3,
    pairs,
    field_of_vectors,
    regions,
    offset,
    petals,
    wedge_without,
)


def heavy(g: torch.Generator) -> Tensor:
    """Points with heavy tails (Student's t with 4 degrees of freedom)."""
    scale = normal(g, SAMPLES, 1, 4).square().mean(-1, keepdim=True).sqrt()
    return normal(g, SAMPLES, 1, 2) / scale


def far_out(g: torch.Generator) -> Problem:
    """Rotations, of points with heavy tails."""
    h = cosines(1, 1, 0.7, g)
    return Problem(heavy(g), lambda x: h(x[:, 0].norm(dim=1, keepdim=True)), orthogonal([1, 1]))


def flat_ellipse(g: torch.Generator) -> Problem:
    """Rotations in coordinates that are stretched by 5."""
    return invariant(g, [1, 1], 1, torch.diag(torch.tensor([1.0, 0.2])))


def plane_of_four(g: torch.Generator) -> Problem:
    """Rotations in a plane of R^4."""
    h = cosines(3, 1, 1.5, g)
    b = torch.zeros(1, 4, 4)
    b[0, 0, 1], b[0, 1, 0] = -1, 1
    return Problem(
        normal(g, SAMPLES, 1, 4),
        lambda x: h(torch.cat([x[:, 0, :2].norm(dim=1, keepdim=True), x[:, 0, 2:]], 1)),
        b,
    )


def scaling3(g: torch.Generator) -> Problem:
    x = normal(g, SAMPLES, 1, 3) / 2 + torch.tensor([2.0, 0.0, 0.0])
    h = cosines(3, 1, 0.7, g)
    return Problem(x, lambda x: h(x[:, 0] / x[:, 0].norm(dim=1, keepdim=True)), torch.eye(3)[None])


def area(g: torch.Generator) -> Problem:
    """All of sl(2), which keeps the area of two vectors."""
    h = cosines(1, 1, 1.0, g)
    b = torch.tensor([[[1.0, 0], [0, -1]], [[0, 1.0], [0, 0]], [[0, 0], [1.0, 0]]])
    return Problem(normal(g, SAMPLES, 2, 2), lambda x: h(torch.linalg.det(x)[:, None]), b)


def vectors3(g: torch.Generator) -> Problem:
    """Vectors that turn with those that they depend on."""
    h = cosines(3, 2, 1.5, g)

    def f(x: Tensor) -> Tensor:
        a = h(quadratic(x, torch.eye(3)) / 3)
        return a[:, :1] * x[:, 0] + (1 + a[:, 1:]) * x[:, 1]

    return Problem(normal(g, SAMPLES, 2, 3), f, orthogonal([1, 1, 1]), out="V")


def rings(g: torch.Generator) -> Problem:
    """Three classes."""

    def f(x: Tensor) -> Tensor:
        r = x[:, 0].norm(dim=1, keepdim=True)
        return 4 * torch.cat([0.9 - r, 0.3 - (r - 1.2).abs(), r - 1.5], 1)

    return Problem(normal(g, SAMPLES, 1, 2), f, orthogonal([1, 1]), classes=True)


def far_out_without(g: torch.Generator) -> Problem:
    return Problem(heavy(g), cosines(2, 1, 1.0, g), NOTHING2)


def cubic(g: torch.Generator) -> Problem:
    """A polynomial of the third degree."""
    a, b, c = normal(g, 2, 2), normal(g, 2), normal(g, 2)

    def f(x: Tensor) -> Tensor:
        z = x[:, 0]
        y: Tensor = (z @ b) + ((z @ a) * z).sum(1) + (z @ c) ** 3 / 3
        return y[:, None]

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def step(g: torch.Generator) -> Problem:
    """Sharp edges."""
    h = cosines(2, 1, 1.2, g)
    return Problem(normal(g, SAMPLES, 1, 2), lambda x: torch.tanh(6 * h(x)), NOTHING2)


def smooth4(g: torch.Generator) -> Problem:
    return Problem(normal(g, SAMPLES, 1, 4), cosines(4, 1, 2.0, g), NOTHING4)


def vectors3_without(g: torch.Generator) -> Problem:
    return Problem(normal(g, SAMPLES, 1, 3), cosines(3, 3, 1.5, g), NOTHING3, out="V")


def regions3(g: torch.Generator) -> Problem:
    """Three classes."""
    h = cosines(2, 3, 1.2, g)
    return Problem(normal(g, SAMPLES, 1, 2), lambda x: 4 * h(x), NOTHING2, classes=True)


def many_petals(g: torch.Generator) -> Problem:
    """A finite group of 6 to 8 rotations."""
    k = int(torch.randint(6, 9, (), generator=g))

    def f(x: Tensor) -> Tensor:
        z = torch.complex(x[:, 0, 0], x[:, 0, 1])
        y: Tensor = torch.cos(k * z.angle()) + 0.5 * x[:, 0].norm(dim=1)
        return y[:, None]

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def only_noise(g: torch.Generator) -> Problem:
    """Targets that depend on nothing."""
    return Problem(normal(g, SAMPLES, 1, 2), cosines(2, 1, 0.02, g), NOTHING2)


NOTHING4 = torch.zeros(0, 4, 4)


def of_forms(
    x: Tensor, forms: Callable[[Tensor], Tensor], generators: Tensor, g: torch.Generator
) -> Problem:
    """A smooth map of standardised invariants ``forms(x) [N, k]``."""
    z = forms(x)
    mean, deviation = z.mean(0), z.std(0)
    h = cosines(z.shape[1], 1, 1.5, g)
    return Problem(x, lambda x: h((forms(x) - mean) / deviation), generators)


def spiral(g: torch.Generator) -> Problem:
    """Rotations together with a scaling."""
    b = torch.tensor([[[0.4, -1.0], [1.0, 0.4]]])

    def forms(x: Tensor) -> Tensor:
        r = x[:, 0].norm(dim=1)
        phase = torch.atan2(x[:, 0, 1], x[:, 0, 0]) - r.log() / 0.4
        return torch.stack([phase.cos(), phase.sin()], 1)

    angle, r = 2 * math.pi * torch.rand(SAMPLES, generator=g), torch.rand(SAMPLES, generator=g)
    r = 0.7 + 1.3 * r
    x = torch.stack([r * angle.cos(), r * angle.sin()], -1)[:, None]
    return of_forms(x, forms, b, g)


def shear(g: torch.Generator) -> Problem:
    """A shear of two vectors, which is nilpotent."""
    b = torch.zeros(1, 2, 2)
    b[0, 0, 1] = 1.0
    x = normal(g, SAMPLES, 2, 2)
    return of_forms(x, lambda x: torch.cat([x[:, :, 1], torch.linalg.det(x)[:, None]], 1), b, g)


def two_planes(g: torch.Generator) -> Problem:
    """Rotations in two planes of R^4."""
    b = torch.zeros(2, 4, 4)
    b[0, :2, :2] = b[1, 2:, 2:] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    return of_forms(
        normal(g, SAMPLES, 1, 4),
        lambda x: torch.stack([x[:, 0, :2].norm(dim=1), x[:, 0, 2:].norm(dim=1)], 1),
        b,
        g,
    )


def boosted_vectors(g: torch.Generator) -> Problem:
    """Vectors that are boosted with those that they depend on."""
    metric = torch.diag(torch.tensor([1.0, -1.0]))
    x = normal(g, SAMPLES, 2, 2)
    z = quadratic(x, metric)
    mean, deviation = z.mean(0), z.std(0)
    h = cosines(3, 2, 1.5, g)

    def f(x: Tensor) -> Tensor:
        a = h((quadratic(x, metric) - mean) / deviation)
        return (1 + a[:, :1]) * x[:, 0] + a[:, 1:] * x[:, 1]

    return Problem(x, f, orthogonal([1, -1]), out="V")


def other_metric(g: torch.Generator) -> Problem:
    """Rotations of space in other coordinates."""
    return invariant(g, [1, 1, 1], 2, frame(g, 3))


def in_a_square(g: torch.Generator) -> Problem:
    """Rotations of points that themselves have no symmetry."""
    x = 2 * torch.rand(SAMPLES, 1, 2, generator=g) - 1
    return of_forms(x, lambda x: x[:, 0].norm(dim=1, keepdim=True), orthogonal([1, 1]), g)


def torus(g: torch.Generator) -> Problem:
    """Stretches that keep a product of three coordinates."""
    b = torch.stack([torch.diag(torch.tensor(d)) for d in ([1.0, -1.0, 0.0], [0.0, 1.0, -1.0])])
    x = 0.5 + torch.rand(SAMPLES, 1, 3, generator=g)
    return of_forms(x, lambda x: x[:, 0].prod(1, keepdim=True), b, g)


def rare(g: torch.Generator) -> Problem:
    """Two classes, one of which is rare."""
    return Problem(
        normal(g, SAMPLES, 1, 2),
        lambda x: 5 * (x[:, 0].norm(dim=1, keepdim=True) - 2.1) * torch.tensor([[1, -1]]),
        orthogonal([1, 1]),
        classes=True,
    )


def square(g: torch.Generator) -> Problem:
    """A symmetry of the square alone."""
    h = cosines(1, 1, 0.7, g)
    return Problem(
        normal(g, SAMPLES, 1, 2), lambda x: h(x[:, 0].abs().amax(1, keepdim=True)), NOTHING2
    )


def saddle(g: torch.Generator) -> Problem:
    """A form that boosts would keep, and a line that they do not."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        return (u.square() - v.square() + u + 0.5 * v)[:, None]

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def bumps(g: torch.Generator) -> Problem:
    centres, heights = 1.5 * normal(g, 3, 2), 1 + torch.rand(3, 1, generator=g)
    return Problem(
        normal(g, SAMPLES, 1, 2),
        lambda x: (-(x - centres).square().sum(2)).exp() @ heights,
        NOTHING2,
    )


def wind(g: torch.Generator) -> Problem:
    """Vectors that would turn with their place, but for a constant one."""
    constant = normal(g, 2)
    return Problem(
        normal(g, SAMPLES, 1, 2),
        lambda x: x[:, 0] * x[:, 0].norm(dim=1, keepdim=True) + 1.5 * constant,
        NOTHING2,
        out="V",
    )


def four_classes(g: torch.Generator) -> Problem:
    centres = normal(g, 4, 2)
    return Problem(
        normal(g, SAMPLES, 1, 2),
        lambda x: -3 * (x - centres).square().sum(2),
        NOTHING2,
        classes=True,
    )


def pairs3(g: torch.Generator) -> Problem:
    return Problem(normal(g, SAMPLES, 2, 3), cosines(6, 1, 2.5, g), NOTHING3)


def skewed(g: torch.Generator) -> Problem:
    """Inputs with one long tail."""
    x = -torch.rand(SAMPLES, 1, 2, generator=g).clamp(min=1e-6).log()
    return Problem(x, cosines(2, 1, 1.2, g), NOTHING2)


def ripple(g: torch.Generator) -> Problem:
    def f(x: Tensor) -> Tensor:
        return torch.cos(3 * x[:, 0, :1]) + x[:, 0, 1:]

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def dilated(g: torch.Generator) -> Problem:
    """Rotations and scalings of two vectors."""

    def forms(x: Tensor) -> Tensor:
        z = torch.complex(*x.unbind(-1))
        ratio = z[:, 0] / z[:, 1]
        return torch.stack([ratio.abs().log(), ratio.angle().cos(), ratio.angle().sin()], 1)

    b = torch.cat([orthogonal([1, 1]), torch.eye(2)[None]])
    return of_forms(normal(g, SAMPLES, 2, 2) + 0.3, forms, b, g)


def crosses(g: torch.Generator) -> Problem:
    """Vector products, whose length depends on the two vectors."""
    h = cosines(3, 1, 1.5, g)

    def f(x: Tensor) -> Tensor:
        a = h(quadratic(x, torch.eye(3)) / 3)
        y: Tensor = (1 + a) * torch.linalg.cross(x[:, 0], x[:, 1])
        return y

    return Problem(normal(g, SAMPLES, 2, 3), f, orthogonal([1, 1, 1]), out="V")


def boosted_plane(g: torch.Generator) -> Problem:
    """Boosts in a plane of R^3."""
    b = torch.zeros(1, 3, 3)
    b[0, 0, 2], b[0, 2, 0] = 1.0, 1.0

    def forms(x: Tensor) -> Tensor:
        u, v, w = x.unbind(-1)
        return torch.cat([u.square() - w.square(), v], 1)

    return of_forms(normal(g, SAMPLES, 2, 3), forms, b, g)


def squeeze(g: torch.Generator) -> Problem:
    """A product of two coordinates."""
    x = 0.4 + 1.2 * torch.rand(SAMPLES, 1, 2, generator=g)
    b = torch.diag(torch.tensor([1.0, -1.0]))[None]
    return of_forms(x, lambda x: x[:, 0].prod(1, keepdim=True), b, g)


def shells(g: torch.Generator) -> Problem:
    """Three classes, by the distance from the origin of space."""

    def f(x: Tensor) -> Tensor:
        r = x[:, 0].norm(dim=1, keepdim=True)
        return 4 * torch.cat([1.2 - r, 0.3 - (r - 1.6).abs(), r - 2.0], 1)

    return Problem(normal(g, SAMPLES, 1, 3), f, orthogonal([1, 1, 1]), classes=True)


def phase(g: torch.Generator) -> Problem:
    """One rotation of two planes of R^4 at once."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])

    def forms(x: Tensor) -> Tensor:
        z = torch.complex(x[:, 0, ::2], x[:, 0, 1::2])
        both = z[:, 0] * z[:, 1].conj()
        return torch.stack([z[:, 0].abs(), z[:, 1].abs(), both.real, both.imag], 1)

    return of_forms(normal(g, SAMPLES, 1, 4), forms, torch.block_diag(turn, turn)[None], g)


def cube(g: torch.Generator) -> Problem:
    """Rotations of points that fill a cube."""
    x = 2 * torch.rand(SAMPLES, 2, 3, generator=g) - 1
    return of_forms(x, lambda x: quadratic(x, torch.eye(3)), orthogonal([1, 1, 1]), g)


def conjugated_vectors(g: torch.Generator) -> Problem:
    """Vectors that turn in other coordinates."""
    basis, h = frame(g, 2), cosines(1, 2, 1.0, g)
    inverse = torch.linalg.inv(basis)
    turn = orthogonal([1, 1])[0]

    def f(x: Tensor) -> Tensor:
        u = x[:, 0] @ inverse.T
        a = h(u.norm(dim=1, keepdim=True))
        y: Tensor = ((1 + a[:, :1]) * u + a[:, 1:] * (u @ turn.T)) @ basis.T
        return y

    x = normal(g, SAMPLES, 1, 2) @ basis.T
    return Problem(x, f, (basis @ turn @ inverse)[None], out="V")


def checkers(g: torch.Generator) -> Problem:
    def f(x: Tensor) -> Tensor:
        return torch.tanh(3 * (2 * x[:, 0]).sin().prod(1, keepdim=True))

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def triangle(g: torch.Generator) -> Problem:
    """A symmetry of the triangle alone."""
    angles = 2 * math.pi * torch.arange(3) / 3
    corners = torch.stack([angles.cos(), angles.sin()])
    return Problem(
        normal(g, SAMPLES, 1, 2), lambda x: (x[:, 0] @ corners).amax(1, keepdim=True), NOTHING2
    )


def quartic(g: torch.Generator) -> Problem:
    x = 2 * torch.rand(SAMPLES, 1, 2, generator=g) - 1
    return Problem(x, lambda x: x[:, 0].pow(4).sum(1, keepdim=True), NOTHING2)


def waves3(g: torch.Generator) -> Problem:
    def f(x: Tensor) -> Tensor:
        u, v, w = x[:, 0].unbind(1)
        return (u.cos() + (1.5 * v).cos() + w + 0.5 * u * v)[:, None]

    return Problem(normal(g, SAMPLES, 1, 3), f, NOTHING3)


def bump_classes(g: torch.Generator) -> Problem:
    centres = normal(g, 3, 2)

    def f(x: Tensor) -> Tensor:
        near = (-2 * (x - centres).square().sum(2)).exp().sum(1, keepdim=True)
        return 5 * (near - 0.4) * torch.tensor([[1, -1]])

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2, classes=True)


def twisted_wind(g: torch.Generator) -> Problem:
    """Vectors along a matrix that keeps two lines."""
    lines = torch.tensor([[1.0, 0.6], [0.2, 1.0]])
    a = lines @ torch.diag(torch.tensor([1.0, -0.5])) @ torch.linalg.inv(lines)
    return Problem(
        normal(g, SAMPLES, 1, 2),
        lambda x: (x[:, 0] @ a.T) * x[:, 0].norm(dim=1, keepdim=True),
        NOTHING2,
        out="V",
    )


def offset_radial(g: torch.Generator) -> Problem:
    """Rotations about another point, which are not linear."""
    centre = torch.nn.functional.normalize(normal(g, 2), dim=0)
    return Problem(
        normal(g, SAMPLES, 1, 2),
        lambda x: (1.5 * (x[:, 0] - centre).norm(dim=1, keepdim=True)).cos(),
        NOTHING2,
    )


def pairs_mixed(g: torch.Generator) -> Problem:
    """A product of two vectors, and one coordinate."""
    h = cosines(2, 1, 1.2, g)
    return Problem(
        normal(g, SAMPLES, 2, 2),
        lambda x: h(torch.stack([(x[:, 0] * x[:, 1]).sum(1), x[:, 0, 0]], 1)),
        NOTHING2,
    )


def triples(g: torch.Generator) -> Problem:
    """Rotations of three vectors of the plane."""
    x = normal(g, SAMPLES, 3, 2)
    return of_forms(x, lambda x: quadratic(x, torch.eye(2)), orthogonal([1, 1]), g)


def double_speed(g: torch.Generator) -> Problem:
    """Rotations of two planes of R^4, of one twice as fast as of the other."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])

    def forms(x: Tensor) -> Tensor:
        z = torch.complex(x[:, 0, ::2], x[:, 0, 1::2])
        both = z[:, 0].square() * z[:, 1].conj()
        return torch.stack([z[:, 0].abs(), z[:, 1].abs(), both.real, both.imag], 1)

    return of_forms(normal(g, SAMPLES, 1, 4), forms, torch.block_diag(turn, 2 * turn)[None], g)


def volume(g: torch.Generator) -> Problem:
    """Squeezes of R^3 that keep volumes, of positive coordinates."""
    x = 0.5 + torch.rand(SAMPLES, 1, 3, generator=g)
    b = torch.diag(torch.tensor([1.0, 1.0, -2.0]))[None]

    def forms(x: Tensor) -> Tensor:
        u, v, w = x[:, 0].unbind(1)
        return torch.stack([u / v, u * v * w], 1)

    return of_forms(x, forms, b, g)


def boost_pairs(g: torch.Generator) -> Problem:
    """Boosts of three vectors of the plane."""
    x = normal(g, SAMPLES, 3, 2)
    metric = torch.diag(torch.tensor([1.0, -1.0]))
    return of_forms(x, lambda x: quadratic(x, metric), orthogonal([1, -1]), g)


def axial_vectors(g: torch.Generator) -> Problem:
    """Vectors of space that turn about an axis only."""
    h = cosines(2, 3, 1.2, g)

    def f(x: Tensor) -> Tensor:
        u, v, w = x[:, 0].unbind(1)
        a = h(torch.stack([(u.square() + v.square()).sqrt(), w], 1))
        return torch.stack(
            [(1 + a[:, 0]) * u - a[:, 1] * v, (1 + a[:, 0]) * v + a[:, 1] * u, a[:, 2]], 1
        )

    b = torch.zeros(1, 3, 3)
    b[0, :2, :2] = orthogonal([1, 1])[0]
    return Problem(normal(g, SAMPLES, 1, 3), f, b, out="V")


def angle_classes(g: torch.Generator) -> Problem:
    """Two classes, by the product of two vectors of space."""

    def f(x: Tensor) -> Tensor:
        product = (x[:, 0] * x[:, 1]).sum(1, keepdim=True)
        return 3 * product * torch.tensor([[1.0, -1.0]])

    return Problem(normal(g, SAMPLES, 2, 3), f, orthogonal([1, 1, 1]), classes=True)


def in_a_disc(g: torch.Generator) -> Problem:
    """Rotations in other coordinates, of points with an edge."""
    basis = frame(g, 2)
    inverse = torch.linalg.inv(basis)
    angle = 2 * math.pi * torch.rand(SAMPLES, generator=g)
    r = 2 * torch.rand(SAMPLES, generator=g).sqrt()
    x = (torch.stack([r * angle.cos(), r * angle.sin()], -1) @ basis.T)[:, None]
    b = (basis @ orthogonal([1, 1])[0] @ inverse)[None]
    return of_forms(x, lambda x: (x @ inverse.T).norm(dim=2), b, g)


def ratios(g: torch.Generator) -> Problem:
    """Scalings of two vectors of space, of which the lengths' ratio and the angle count."""

    def forms(x: Tensor) -> Tensor:
        a, b = x.norm(dim=2).unbind(1)
        return torch.stack([(a / b).log(), (x[:, 0] * x[:, 1]).sum(1) / (a * b)], 1)

    generators = torch.cat([orthogonal([1, 1, 1]), torch.eye(3)[None]])
    return of_forms(normal(g, SAMPLES, 2, 3) + 0.4, forms, generators, g)


def ridge(g: torch.Generator) -> Problem:
    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        return (torch.tanh(2 * u + v.square()) + 0.5 * (2 * v).sin())[:, None]

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def cushion(g: torch.Generator) -> Problem:
    """Level sets between a circle and a square."""
    return Problem(
        normal(g, SAMPLES, 1, 2),
        lambda x: x[:, 0].abs().pow(3).sum(1, keepdim=True).pow(1 / 3),
        NOTHING2,
    )


def two_bumps(g: torch.Generator) -> Problem:
    centres = torch.stack([normal(g, 2), normal(g, 2) + 1])

    def f(x: Tensor) -> Tensor:
        near = (-(x - centres).square().sum(2)).exp()
        return near @ torch.tensor([[1.0], [-0.7]])

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def waves4(g: torch.Generator) -> Problem:
    h = cosines(4, 1, 2.0, g)
    return Problem(normal(g, SAMPLES, 1, 4), h, torch.zeros(0, 4, 4))


def stripe_classes(g: torch.Generator) -> Problem:
    """Three classes along a wavy line."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        s = (v - (1.5 * u).sin())[:, None]
        return 4 * torch.cat([-s - 0.6, 0.6 - s.abs(), s - 0.6], 1)

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2, classes=True)


def bent_wind(g: torch.Generator) -> Problem:
    """Vectors that depend on each coordinate alone."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        return torch.stack([(1.5 * u).sin() + 0.3 * v, v.square() - 1], 1)

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2, out="V")


def mixed_norms(g: torch.Generator) -> Problem:
    """Two vectors of space, of which different norms count."""

    def z(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0].abs().sum(1), x[:, 1].norm(dim=1) * x[:, 1, 0]], 1)

    h = cosines(2, 1, 1.5, g)
    return Problem(normal(g, SAMPLES, 2, 3), lambda x: h(z(x)), NOTHING3)


def saddle3(g: torch.Generator) -> Problem:
    """A saddle of the third degree in space."""

    def f(x: Tensor) -> Tensor:
        u, v, w = x[:, 0].unbind(1)
        return torch.tanh(u.pow(3) / 3 - u * v + 0.7 * w * v + 0.4 * w)[:, None]

    return Problem(normal(g, SAMPLES, 1, 3), f, NOTHING3)


def inertial(g: torch.Generator) -> Problem:
    """Invariant masses of two particles, of energies and momenta of a plane."""
    p = normal(g, SAMPLES, 2, 2)
    energy = (0.25 + p.square().sum(2, keepdim=True)).sqrt()
    metric = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    x = torch.cat([energy, p], 2)
    return of_forms(
        x,
        lambda x: (
            ((x[:, 0] + x[:, 1]) @ metric * (x[:, 0] + x[:, 1])).sum(1, keepdim=True).abs().sqrt()
        ),
        orthogonal([1, -1, -1]),
        g,
    )


def dipoles(g: torch.Generator) -> Problem:
    """The energy of two dipoles at a distance: three vectors of space."""

    def energy(x: Tensor) -> Tensor:
        a, b, r = x.unbind(1)
        length = (0.5 + r.square().sum(1)).sqrt()
        along = (a * r).sum(1) * (b * r).sum(1) / length.square()
        return (((a * b).sum(1) - 3 * along) / length.pow(3))[:, None]

    return Problem(normal(g, SAMPLES, 3, 3), energy, orthogonal([1, 1, 1]))


def attraction(g: torch.Generator) -> Problem:
    """The force of one body on another, softened where they are near."""

    def force(x: Tensor) -> Tensor:
        r = x[:, 1] - x[:, 0]
        return r / (0.3 + r.square().sum(1, keepdim=True)).pow(1.5)

    return Problem(normal(g, SAMPLES, 2, 2), force, orthogonal([1, 1]), out="V")


def power_law(g: torch.Generator) -> Problem:
    """Products of powers of two positive coordinates."""
    a = 0.5 + torch.rand(2, generator=g)
    x = 0.5 + 1.5 * torch.rand(SAMPLES, 1, 2, generator=g)
    b = torch.diag(torch.stack([a[1], -a[0]]))[None]
    return Problem(x, lambda x: (x[:, 0].clamp(min=1e-3).pow(a)).prod(1, keepdim=True), b)


def oscillator(g: torch.Generator) -> Problem:
    """The amplitude of an oscillator, of its position and its speed."""
    speed = float(0.5 + 1.5 * torch.rand((), generator=g))
    b = torch.tensor([[[0.0, 1.0], [-(speed**2), 0.0]]])
    x = normal(g, SAMPLES, 1, 2) * torch.tensor([1.0, speed])
    form = torch.tensor([1.0, 1 / speed])
    return Problem(x, lambda x: (x[:, 0] * form).norm(dim=1, keepdim=True), b)


def helix(g: torch.Generator) -> Problem:
    """Classes by the distance from an axis that is tilted."""
    turn, _ = torch.linalg.qr(normal(g, 3, 3))
    b = torch.zeros(3, 3)
    b[:2, :2] = orthogonal([1, 1])[0]

    def f(x: Tensor) -> Tensor:
        r: Tensor = (x[:, 0] @ turn)[:, :2].norm(dim=1, keepdim=True)
        return 5 * (r - 1.2) * torch.tensor([[1.0, -1.0]])

    # A class does not depend on the place along the axis: that is affine in R^3, and two shears
    # and a scaling along the axis are linear.
    along = torch.zeros(3, 3, 3)
    along[torch.arange(3), 2, torch.arange(3)] = 1.0
    generators = turn @ torch.cat([b[None], along]) @ turn.T
    return Problem(normal(g, SAMPLES, 1, 3), f, generators, classes=True)


def triangles(g: torch.Generator) -> Problem:
    """The cosine of the angle at the first of three points, given by two sides."""

    def cosine(x: Tensor) -> Tensor:
        a, b = x.unbind(1)
        return ((a * b).sum(1) / (0.2 + a.square().sum(1) * b.square().sum(1)).sqrt())[:, None]

    return Problem(normal(g, SAMPLES, 2, 2), cosine, orthogonal([1, 1]))


def friedman(g: torch.Generator) -> Problem:
    """A product, a square and a line (Friedman 1991): the product keeps a squeeze."""

    def f(x: Tensor) -> Tensor:
        a, b, c, d = x[:, 0].unbind(1)
        return (torch.sin(math.pi * a * b) + 2 * (c - 0.5).square() + d)[:, None]

    b = torch.diag(torch.tensor([1.0, -1.0, 0.0, 0.0]))[None]
    return Problem(torch.rand(SAMPLES, 1, 4, generator=g), f, b)


def peaks(g: torch.Generator) -> Problem:
    """Three peaks and two hollows, as they are often plotted."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        z = 3 * (1 - u).square() * (-u.square() - (v + 1).square()).exp()
        z = z - 10 * (u / 5 - u.pow(3) - v.pow(5)) * (-u.square() - v.square()).exp()
        return (z - (-(u + 1).square() - v.square()).exp() / 3)[:, None]

    return Problem(1.2 * normal(g, SAMPLES, 1, 2), f, NOTHING2)


def banana(g: torch.Generator) -> Problem:
    """Rosenbrock's valley."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        return (1 + (1 - u).square() + 10 * (v - u.square()).square()).log()[:, None]

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def himmelblau(g: torch.Generator) -> Problem:
    """Four equal hollows (Himmelblau 1972)."""

    def f(x: Tensor) -> Tensor:
        u, v = (2 * x[:, 0]).unbind(1)
        z = (u.square() + v - 11).square() + (u + v.square() - 7).square()
        return (1 + z / 20).log()[:, None]

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2)


def franke(g: torch.Generator) -> Problem:
    """Two peaks, a ridge and a hollow (Franke 1979)."""

    def f(x: Tensor) -> Tensor:
        u, v = (9 * x[:, 0]).unbind(1)
        z = 0.75 * (-((u - 2).square() + (v - 2).square()) / 4).exp()
        z = z + 0.75 * (-(u + 1).square() / 49 - (v + 1) / 10).exp()
        z = z + 0.5 * (-((u - 7).square() + (v - 3).square()) / 4).exp()
        return (z - 0.2 * (-(u - 4).square() - (v - 7).square()).exp())[:, None]

    return Problem(torch.rand(SAMPLES, 1, 2, generator=g), f, NOTHING2)


def predators(g: torch.Generator) -> Problem:
    """How predators and prey change (Lotka 1925)."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        return torch.stack([u * (1 - v), v * (u - 1)], 1)

    return Problem(0.2 + 2 * torch.rand(SAMPLES, 1, 2, generator=g), f, NOTHING2, out="V")


def relaxation(g: torch.Generator) -> Problem:
    """An oscillator that keeps its amplitude (van der Pol 1926)."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        return torch.stack([v, (1 - u.square()) * v - u], 1)

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2, out="V")


def moons(g: torch.Generator) -> Problem:
    """Two crescents that reach into each other."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        one = ((u + 0.5).square() + (v + 0.25).clamp(max=0).square() * 9 + v.square()).sqrt()
        two = ((u - 0.5).square() + (v - 0.25).clamp(min=0).square() * 9 + v.square()).sqrt()
        return 4 * torch.stack([-(one - 1).abs(), -(two - 1).abs()], 1)

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2, classes=True)


def quadrants(g: torch.Generator) -> Problem:
    """Whether two coordinates have the same sign, with soft edges, and the first one's size."""

    def f(x: Tensor) -> Tensor:
        u, v = x[:, 0].unbind(1)
        return 4 * torch.stack([(2 * u * v).tanh() + 0.5 * u, torch.zeros_like(u)], 1)

    return Problem(normal(g, SAMPLES, 1, 2), f, NOTHING2, classes=True)


def units(g: torch.Generator, n: int) -> Tensor:
    """Units of n quantities, of sizes from 1/100 to 100."""
    return torch.diag(10 ** (4 * torch.rand(n, generator=g) - 2))


def turns_in_units(g: torch.Generator) -> Problem:
    scale = units(g, 3)
    return replace(invariant(g, [1, 1, 1], 1, scale), units=scale)


def boost_in_units(g: torch.Generator) -> Problem:
    scale = units(g, 2)
    return replace(invariant(g, [1, -1], 2, scale), units=scale)


def smooth_in_units(g: torch.Generator) -> Problem:
    scale = units(g, 2)
    h = cosines(2, 1, 1.5, g)
    x = normal(g, SAMPLES, 1, 2) @ scale
    return Problem(x, lambda x: h(x @ torch.linalg.inv(scale)), NOTHING2)


def quartic_in_units(g: torch.Generator) -> Problem:
    """A function with flat sides and round corners in each plane."""
    scale = units(g, 3)
    x = normal(g, SAMPLES, 1, 3) @ scale
    inverse = torch.linalg.inv(scale)
    return Problem(x, lambda x: (x[:, 0] @ inverse).pow(4).sum(1, keepdim=True) ** 0.25, NOTHING3)


SECOND_WITH = (far_out, flat_ellipse, plane_of_four, scaling3, area, vectors3, rings)
SECOND_WITHOUT = (
    far_out_without,
    cubic,
    step,
    smooth4,
    vectors3_without,
    regions3,
    many_petals,
    only_noise,
)
THIRD_WITH = (
    spiral,
    shear,
    two_planes,
    boosted_vectors,
    other_metric,
    in_a_square,
    torus,
    rare,
)
THIRD_WITHOUT = (square, saddle, bumps, wind, four_classes, pairs3, skewed, ripple)
FOURTH_WITH = (
    dilated,
    crosses,
    boosted_plane,
    squeeze,
    shells,
    phase,
    cube,
    conjugated_vectors,
)
FOURTH_WITHOUT = (
    checkers,
    triangle,
    quartic,
    waves3,
    bump_classes,
    twisted_wind,
    offset_radial,
    pairs_mixed,
)
FIFTH_WITH = (
    triples,
    double_speed,
    volume,
    boost_pairs,
    axial_vectors,
    angle_classes,
    in_a_disc,
    ratios,
)
FIFTH_WITHOUT = (
    ridge,
    cushion,
    two_bumps,
    waves4,
    stripe_classes,
    bent_wind,
    mixed_norms,
    saddle3,
)
# Kinds that were made when the rule and the search were what they are: known problems of physics,
# and functions by which others are measured.
NEW_WITH = (
    inertial,
    dipoles,
    attraction,
    friedman,
    power_law,
    oscillator,
    helix,
    triangles,
)
NEW_WITHOUT = (
    peaks,
    banana,
    himmelblau,
    franke,
    predators,
    relaxation,
    moons,
    quadrants,
)
UNITS_WITH, UNITS_WITHOUT = (turns_in_units, boost_in_units), (smooth_in_units, quartic_in_units)
UNITS = (*UNITS_WITH, *UNITS_WITHOUT)
NEW, THIRD = (*NEW_WITH, *NEW_WITHOUT), (*THIRD_WITH, *THIRD_WITHOUT)
FOURTH, FIFTH = (*FOURTH_WITH, *FOURTH_WITHOUT), (*FIFTH_WITH, *FIFTH_WITHOUT)
FIRST, SECOND = (*FIRST_WITH, *FIRST_WITHOUT), (*SECOND_WITH, *SECOND_WITHOUT)
ALL = (*UNITS, *NEW, *FIFTH, *FOURTH, *THIRD, *SECOND, *FIRST)
BREAKINGS = [0.0, 0.0, 0.1, 0.3, 1.0]
NOISES = [0.0, 0.3, 1.0]


@dataclass
class Drawn:
    """A problem with its breaking and its noise."""

    problem: Problem
    f: Callable[[Tensor], Tensor]
    y: Tensor
    breaking: float
    noise: float


def draw(kind: str, seed: int) -> Drawn:
    """Draw a problem; a kind and a seed always give the same one."""
    make = next(m for m in ALL if m.__name__ == kind)
    g = torch.Generator().manual_seed(1000 * seed + sum(map(ord, kind)))
    problem = make(g)
    breaking = BREAKINGS[seed % len(BREAKINGS)] if len(problem.generators) else 0.0
    noise = NOISES[(seed // len(BREAKINGS) + seed) % len(NOISES)]
    clean = problem.f(problem.x)
    spread = clean.std(0, correction=0).mean()
    b = cosines(problem.x[0].numel(), clean.shape[1], 1.0, g)

    def f(x: Tensor) -> Tensor:
        even = x if problem.units is None else x @ torch.linalg.inv(problem.units)
        return problem.f(x) + breaking * spread * b(even)

    y = f(problem.x)
    if problem.classes:
        y = torch.multinomial(y.softmax(1), 1, generator=g).float()
    else:
        y = y + noise * spread * torch.randn(y.shape, generator=g)
    return Drawn(problem, f, y, breaking, noise)


def make(request: dict[str, Any]) -> dict[str, object]:
    """Write the arrays of a problem, and say what it is."""
    drawn = draw(request["kind"], request["seed"])
    problem, folder = drawn.problem, Path(request["folder"])
    np.save(folder / "inputs", problem.x.numpy())
    y = drawn.y.numpy()
    np.save(folder / "targets", y.astype(np.int64)[:, 0] if problem.classes else y)
    return {
        "type": "class" if problem.classes else problem.out,
        "generators": len(problem.generators),
        "breaking": drawn.breaking,
        "noise": drawn.noise,
    }


def truth(request: dict[str, Any]) -> list[list[float]]:
    """Compute the share of the variance of F that ``exp(±tB)`` breaks, for each B and its t."""
    drawn = draw(request["kind"], request["seed"])
    problem, n = drawn.problem, drawn.problem.x.shape[-1]

    def value(x: Tensor, charts: Tensor | None = None) -> Tensor:
        y = drawn.f(x.flatten(0, 1))
        y = y.softmax(1) if problem.classes else y
        shaped: Tensor = y.unflatten(0, x.shape[:2])
        return shaped

    clean = value(problem.x[:, None])[:, 0]
    dataset = _block("dataset", "arrays", {})(
        seed=0, device=CPU, tensors={"inputs": problem.x, "targets": clean}
    )
    atlas = _block("action", "vectors", {"n": n, "targets_as": problem.out})()
    inputs = inputs_on(atlas, dataset, 0, 0, device=CPU)
    targets = targets_on(atlas, dataset, labels=False, device=CPU)
    every = torch.arange(len(problem.x))
    exact = Subject(
        predictors=[value],
        action=action_on(atlas, 0),
        inputs=inputs,
        targets=targets,
        test=every,
        train=every,
        train_inputs=inputs,
        train_targets=targets,
    )
    judge = Judges().judge(exact, len(every), 0)
    return [
        [
            judge.lost([torch.matrix_exp(sign * t * b) for sign in (1, -1)], t).skill_lost.value
            for t in lengths
        ]
        for b, lengths in zip(
            torch.tensor(request["directions"]).double(), request["lengths"], strict=True
        )
    ]


def _block(type: str, kind: str, params: dict[str, object]) -> Callable[..., Any]:
    block = catalogue.find(type, kind, "x")  # type: ignore[arg-type]
    parsed = catalogue.parse_params(block.params, params, "x")
    return lambda **context: block.make(parsed, **context)


def kinds(_: dict[str, Any]) -> dict[str, list[str]]:
    """List the kinds of problems, by when they were made."""
    groups = {
        "first": FIRST,
        "second": SECOND,
        "third": THIRD,
        "fourth": FOURTH,
        "fifth": FIFTH,
        "new": NEW,
        "units": UNITS,
    }
    return {name: [m.__name__ for m in group] for name, group in groups.items()}


def main() -> None:
    torch.set_num_threads(1)
    answers: dict[str, Callable[[dict[str, Any]], object]] = {
        "make": make,
        "truth": truth,
        "kinds": kinds,
    }
    for line in sys.stdin:
        request = json.loads(line)
        answer = json.dumps(answers[request["do"]](request)).replace("NaN", "null")
        print(answer, flush=True)


if __name__ == "__main__":
    main()
