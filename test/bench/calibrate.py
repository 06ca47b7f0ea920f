"""Problems of known truth, with what the evidence says of them; one JSON line for each problem.

    python calibrate.py FILE [--seeds N] [--kinds a,b]

A line that is in FILE already is not computed again. ``calibrate.ts`` grades the lines.

Every problem has inputs x, a known map F, and targets y = F(x) + noise. A symmetric map may be
broken by a known amount: F = F0 + ε b with a random smooth b. The truth of a direction is the share
of the variance of F that it breaks, computed from F itself on the test inputs (METHOD 2.13).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "py-worker"))

from atlas_worker import blocks, catalogue
from atlas_worker.predictors import make_objective, make_predictor
from atlas_worker.predictors.supervised import make_subject
from atlas_worker.symmetry.evidence import Lost, collect

assert blocks
CPU = torch.device("cpu")
SIZES = [0.05, 0.2, 0.5]
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


WITH = (radial, ellipse, boost, rotations, lorentz, scaling, vectors, classes, axis, wedge)
WITHOUT = (
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
# Kinds that were made after the limits had been fixed.
NEW_WITH = (far_out, flat_ellipse, plane_of_four, scaling3, area, vectors3, rings)
NEW_WITHOUT = (
    far_out_without,
    cubic,
    step,
    smooth4,
    vectors3_without,
    regions3,
    many_petals,
    only_noise,
)
ALL = (*NEW_WITH, *NEW_WITHOUT, *WITH, *WITHOUT)
BREAKINGS = [0.0, 0.0, 0.1, 0.3, 1.0]
NOISES = [0.0, 0.3, 1.0]


def solve(kind: str, make: Callable[[torch.Generator], Problem], seed: int) -> dict[str, object]:
    """Fit a predictor to a problem, search, and collect evidence and truth."""
    g = torch.Generator().manual_seed(1000 * seed + sum(map(ord, kind)))
    problem = make(g)
    symmetric = len(problem.generators) > 0
    breaking = BREAKINGS[seed % len(BREAKINGS)] if symmetric else 0.0
    noise = NOISES[(seed // len(BREAKINGS) + seed) % len(NOISES)]
    n = problem.x.shape[-1]
    clean = problem.f(problem.x)
    spread = clean.std(0, correction=0).mean()
    b = cosines(problem.x[0].numel(), clean.shape[1], 1.0, g)

    def f(x: Tensor) -> Tensor:
        return problem.f(x) + breaking * spread * b(x)

    y = f(problem.x)
    if problem.classes:
        y = torch.multinomial(y.softmax(1), 1, generator=g).float()
    else:
        y = y + noise * spread * torch.randn(y.shape, generator=g)
    dataset = _block("dataset", "arrays", {"classes": problem.classes})(
        seed=0, device=CPU, tensors={"inputs": problem.x, "targets": y}
    )
    atlas = _block("action", "vectors", {"n": n, "targets_as": problem.out})()
    training = {
        "loss": "cross_entropy" if problem.classes else "l2",
        "learning_rate": 1e-2,
        "batch_size": 64,
        "schedule": "cosine",
        "validation": 0.15,
        "test": 0.25,
    }
    epochs = 30
    predictor = make_predictor(
        ("polynomial", {}), ("supervised", training), dataset, atlas, epochs, seed, CPU
    )
    for _ in range(epochs):
        predictor.run_epoch(lambda *_: None)
    objective = make_objective(predictor, dataset, atlas)
    solver = _block(
        "algebra_solver",
        "grassmann",
        {"start": "spectral", "evaluation": 128, "scale": 0.5, "batch_size": 32, "steps": 40},
    )(objective=objective, k=0, epochs=1, seed=seed)
    solver.run_epoch(lambda *_: None)
    report = solver.report()
    subject, held = make_subject(predictor, None, [], dataset)
    assert held
    found = report.generators / report.generators.flatten(1).norm(dim=1)[:, None, None]
    span = torch.linalg.qr(found.flatten(1).T).Q.T if len(found) else found.flatten(1)
    rest = [
        e.direction
        for e in report.spectrum
        if not len(found) or float((span @ e.direction.flatten()).norm()) < 0.7
    ]
    other = torch.stack(rest) if rest else torch.zeros(0, n, n)
    known = problem.generators
    known = known / known.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None]
    directions = torch.cat([found, other, known])
    evidence = collect(subject, directions, torch.zeros(0, n, n), SIZES, 1500, seed)
    x = problem.x[subject.test]
    rows = [
        [_measured(lost, _truth(f, x, d, lost, atlas, problem)) for lost in row]
        for d, row in zip(directions, evidence.directions, strict=True)
    ]
    a, c = len(found), len(found) + len(other)
    return {
        "kind": kind,
        "seed": seed,
        "symmetric": symmetric,
        "breaking": breaking,
        "noise": noise,
        "skill": evidence.skill.value,
        "skillError": evidence.skill.error,
        "scenes": evidence.scenes,
        "learnable": evidence.learnable,
        "found": rows[:a],
        "others": rows[a:c],
        "known": rows[c:],
    }


def _block(type: str, kind: str, params: dict[str, object]) -> Callable[..., Any]:
    block = catalogue.find(type, kind, "x")  # type: ignore[arg-type]
    parsed = catalogue.parse_params(block.params, params, "x")
    return lambda **context: block.make(parsed, **context)


def _truth(
    f: Callable[[Tensor], Tensor], x: Tensor, d: Tensor, lost: Lost, atlas: object, p: Problem
) -> float:
    """Share of the variance of F that exp(±tB) breaks."""

    def value(x: Tensor) -> Tensor:
        return f(x).softmax(1) if p.classes else f(x)

    still, total = value(x), 0.0
    for sign in (1, -1):
        g = torch.matrix_exp(sign * lost.length * d.double()).float()
        moved = value(x @ g.T)
        if p.out == "V":
            moved = moved @ torch.linalg.inv(g).T
        total += float((moved - still).square().sum(1).mean()) / 2
    room = (still - still.mean(0)).square().sum(1).mean()
    return total / float(room)


def _measured(lost: Lost, truth: float) -> dict[str, object]:
    return {
        "length": lost.length,
        "size": lost.size,
        "lost": lost.skill_lost.value,
        "error": lost.skill_lost.error,
        "floor": lost.floor,
        "reach": lost.reach,
        "truth": truth,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--kinds", default="")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    done = set()
    if args.file.exists():
        done = {(r["kind"], r["seed"]) for r in map(json.loads, args.file.open())}
    chosen = [m for m in ALL if not args.kinds or m.__name__ in args.kinds.split(",")]
    for seed in range(args.seeds):
        for make in chosen:
            if (make.__name__, seed) in done:
                continue
            row = solve(make.__name__, make, seed)
            line = json.dumps(row).replace("NaN", "null")  # JSON has no NaN
            with args.file.open("a") as out:
                out.write(line + "\n")
            print(make.__name__, seed, f"skill {row['skill']:.2f}", flush=True)


if __name__ == "__main__":
    main()
