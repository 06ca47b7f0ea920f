"""A symmetry that was discovered in data, for PyTorch. This file needs torch and nothing else.

``Augment`` draws elements of the group, ``EquivariantLinear`` is a layer that commutes with it,
``symmetrise`` averages a function over it, and ``equivariance_error`` measures a function.
Run ``python symmetry.py`` to test this file on your machine.

A type of features is a sum such as ``2V+S``: ``S`` scalar, ``P`` pseudoscalar, ``V`` vector (g v),
``C`` covector (g^-T v), ``T`` tensor (g t g^T), ``F`` bilinear form (g^-T t g^-1), both by rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

# <data>
NAME = "so(2)"
VERDICT = "symmetry"
GENERATORS: list[list[list[float]]] = [[[0.0, -1.0], [1.0, 0.0]]]
COMPONENTS: list[list[list[float]]] = [[[1.0, 0.0], [0.0, -1.0]]]
N = 2
ACCURACY = 1e-6
# </data>
# Generators B act on vectors, v -> exp(tB) v. Components are matrices outside of the identity
# component. ACCURACY is their relative error, since they were learnt.

MOST = 1000
"""Largest number of elements of a finite group."""


def generators() -> Tensor:
    """Return the generators, ``[k, N, N]`` float64, of norm sqrt(N) each."""
    b = torch.tensor(GENERATORS, dtype=torch.float64).reshape(-1, N, N)
    norms: Tensor = b.flatten(1).norm(dim=1)
    return b * (math.sqrt(N) / norms)[:, None, None]


def components() -> Tensor:
    """Return the components, ``[m, N, N]`` float64, without the identity component."""
    return torch.tensor(COMPONENTS, dtype=torch.float64).reshape(-1, N, N)


def terms(kind: str) -> list[str]:
    """Split a type: ``2V+S`` is V, V, S. Raises ``ValueError`` for anything else."""
    found: list[str] = []
    for part in kind.split("+"):
        match = re.fullmatch(r"\s*(\d*)([SPVCTF])\s*", part)
        if match is None:
            raise ValueError(f"{kind!r} is no type of features: give a sum such as 2V+S")
        found += [match[2]] * int(match[1] or 1)
    return found


def representation(kind: str, g: Tensor) -> Tensor:
    """Return the matrices by which g ``[..., N, N]`` moves features of a type: ``[..., d, d]``."""
    dual = torch.linalg.inv(g).mT
    one = torch.ones_like(g[..., :1, :1])
    blocks = {"S": one, "P": torch.linalg.det(g).sign()[..., None, None], "V": g, "C": dual}
    blocks["T"], blocks["F"] = _square(g), _square(dual)
    return _diagonal([blocks[term] for term in terms(kind)])


def derivative(kind: str, b: Tensor) -> Tensor:
    """Return how generators b ``[..., N, N]`` move features of a type: ``[..., d, d]``."""
    eye = torch.eye(N, dtype=b.dtype).expand_as(b)

    def both(m: Tensor) -> Tensor:
        return _kron(m, eye) + _kron(eye, m)

    nothing = torch.zeros_like(b[..., :1, :1])
    blocks = {"S": nothing, "P": nothing, "V": b, "C": -b.mT, "T": both(b), "F": both(-b.mT)}
    return _diagonal([blocks[term] for term in terms(kind)])


def _kron(a: Tensor, b: Tensor) -> Tensor:
    product = torch.einsum("...ij,...kl->...ikjl", a, b)
    return product.flatten(-4, -3).flatten(-2, -1)


def _square(a: Tensor) -> Tensor:
    return _kron(a, a)


def _diagonal(blocks: list[Tensor]) -> Tensor:
    size = sum(block.shape[-1] for block in blocks)
    whole = blocks[0].new_zeros(*blocks[0].shape[:-2], size, size)
    at = 0
    for block in blocks:
        end = at + block.shape[-1]
        whole[..., at:end, at:end] = block
        at = end
    return whole


def is_compact() -> bool:
    """Whether some positive definite form is kept, so that averages over the group exist."""
    b, h = generators(), components()
    eye, same = (torch.eye(size, dtype=b.dtype) for size in (N, N * N))
    equations = torch.cat([_kron(b.mT, eye[None]) + _kron(eye[None], b.mT), _square(h.mT) - same])
    _, sizes, rows = torch.linalg.svd(equations.flatten(0, 1))
    sizes = torch.cat([sizes, sizes.new_zeros(N * N - len(sizes))])
    kept = rows[sizes <= max(4 * ACCURACY, 1e-6) * N]
    form = (kept.T @ (kept @ torch.eye(N, dtype=b.dtype).flatten())).unflatten(0, (N, N))
    least = torch.linalg.eigvalsh((form + form.mT) / 2).min()
    return bool(least > 1e-3 * form.norm().clamp(min=1e-9))


def elements() -> Tensor:
    """Return all elements of a finite group, ``[order, N, N]``; without generators only."""
    if GENERATORS:
        raise ValueError(f"{NAME} is not finite: draw elements with sample()")
    found = [torch.eye(N, dtype=torch.float64)]
    near = max(10 * ACCURACY, 1e-4)
    for g in found:
        for h in components():
            product = g @ h
            if all(float((product - other).norm() / other.norm()) > near for other in found):
                found.append(product)
            if len(found) > MOST:
                raise ValueError(f"the components make more than {MOST} elements")
    return torch.stack(found)


def sample(count: int, scale: float = 1.0, seed: int | None = None) -> Tensor:
    """Draw elements ``exp(sum eta_i B_i) h`` with normal eta of standard deviation ``scale``.

    Returns:
        ``[count, N, N]`` float64.
    """
    draw = torch.Generator()
    draw.manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
    b, h = generators(), torch.cat([torch.eye(N, dtype=torch.float64)[None], components()])
    eta = scale * torch.randn(count, len(b), generator=draw, dtype=torch.float64)
    g = torch.matrix_exp(torch.einsum("ck,kij->cij", eta, b))
    chosen: Tensor = h[torch.randint(len(h), (count,), generator=draw)]
    return g @ chosen


class Augment(nn.Module):
    """Moves each sample, and its target if one is given, by an element drawn from the group.

    Args:
        type_in: Type of the last axis of the samples.
        type_out: Type of the last axis of the targets.
        scale: Standard deviation of the steps along the generators.
    """

    def __init__(self, type_in: str, type_out: str = "S", scale: float = 1.0) -> None:
        super().__init__()
        self.types, self.scale = (type_in, type_out), scale

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Move samples ``[B, ..., d_in]`` and targets ``[B, ..., d_out]``."""
        g = sample(len(x), self.scale)
        moved = [
            None if t is None else _act(representation(kind, g).to(t), t)
            for kind, t in zip(self.types, (x, y), strict=True)
        ]
        assert moved[0] is not None
        return moved[0], moved[1]


def _act(rho: Tensor, x: Tensor) -> Tensor:
    """Apply matrices ``[B, d, d]`` to ``[B, ..., d]``."""
    flat: Tensor = x.reshape(len(x), -1, x.shape[-1]) @ rho.mT
    return flat.reshape(x.shape)


def equivariant_linear(type_in: str, type_out: str) -> Tensor:
    """Find all linear maps W with ``rho_out(g) W = W rho_in(g)``: ``[number, d_out, d_in]``.

    They are the null space of linear equations (Finzi, Welling, Wilson 2021). Learnt generators
    satisfy these to their accuracy only, so singular values up to
    ``ACCURACY (d_in + d_out) sqrt(N)`` count as zero.

    Raises:
        ValueError: The number of maps depends on the cut, so the generators are too inexact.
    """
    b, h = generators(), components()
    pairs = [(derivative(type_out, b), derivative(type_in, b))]
    pairs.append((representation(type_out, h), representation(type_in, h)))
    equations = []
    for left, right in pairs:
        p, q = right.shape[-1], left.shape[-1]
        rows = torch.eye(p, dtype=b.dtype).expand(len(left), p, p)
        columns = torch.eye(q, dtype=b.dtype).expand(len(left), q, q)
        equations.append((_kron(left, rows) - _kron(columns, right.mT)).flatten(0, 1))
    _, sizes, rows = torch.linalg.svd(torch.cat(equations), full_matrices=True)
    sizes = torch.cat([sizes, sizes.new_zeros(p * q - len(sizes))])
    cut = max(ACCURACY, 1e-9) * (p + q) * math.sqrt(N)
    number, more = int((sizes <= cut).sum()), int((sizes <= 3 * cut).sum())
    if number != more:
        raise ValueError(
            f"the generators are too inexact for {type_in} -> {type_out}: there are {number} maps "
            f"at the cut {cut:.2g}, and {more} at three times that"
        )
    found: Tensor = rows[p * q - number :].unflatten(1, (q, p))
    return found


class EquivariantLinear(nn.Module):
    """A linear layer that commutes with the group.

    Args:
        type_in: Type of the last axis of its input.
        type_out: Type of the last axis of its output.
    """

    def __init__(self, type_in: str, type_out: str) -> None:
        super().__init__()
        basis = equivariant_linear(type_in, type_out).float()
        if not len(basis):
            raise ValueError(f"only zero is equivariant from {type_in} to {type_out}")
        self.basis: Tensor
        self.register_buffer("basis", basis)
        self.weight = nn.Parameter(torch.randn(len(basis)))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., d_in]`` to ``[..., d_out]``."""
        made: Tensor = x @ torch.einsum("k,kqp->pq", self.weight, self.basis).to(x)
        return made


def symmetrise(
    f: Callable[[Tensor], Tensor], type_in: str, type_out: str = "S", count: int = 64
) -> Callable[[Tensor], Tensor]:
    """Average a function over the group: ``mean of rho_out(g)^-1 f(rho_in(g) x)``.

    A finite group is averaged exactly, one generator over ``count`` equal steps of its turn, which
    is exact but for sharp functions. Other groups are averaged over ``count`` elements at random,
    which leaves about ``1 / sqrt(count)`` of what is not symmetric. The components must be one of
    each, as Atlas exports them.

    Raises:
        ValueError: The group is not compact, so there is no such average.
    """
    if not is_compact():
        raise ValueError(f"{NAME} is not compact, so there is no average over it: use Augment")
    g = spread(count) if GENERATORS else elements()
    rho, back = representation(type_in, g), representation(type_out, torch.linalg.inv(g))

    def averaged(x: Tensor) -> Tensor:
        made = [f(x @ r.to(x).mT) @ b.to(x).mT for r, b in zip(rho, back, strict=True)]
        return torch.stack(made).mean(0)

    return averaged


def spread(count: int) -> Tensor:
    """Return elements that lie evenly in a compact group with generators, ``[m, N, N]``."""
    b, unit = generators(), torch.eye(N, dtype=torch.float64)
    speeds = torch.linalg.eigvals(b[0]).imag.abs()
    period = 2 * math.pi / float(speeds[speeds > 1e-6].min())
    near = max(20 * ACCURACY, 1e-4) * math.sqrt(N)
    if len(b) == 1 and float((torch.matrix_exp(period * b[0]) - unit).norm()) < near:
        times = torch.arange(count, dtype=torch.float64) * (period / count)
        g = torch.matrix_exp(times[:, None, None] * b)
    else:
        draw = torch.Generator().manual_seed(0)
        g = unit.repeat(count, 1, 1)
        for _ in range(6):  # random turns that lead anywhere
            eta = math.pi * torch.randn(count, len(b), generator=draw, dtype=torch.float64)
            scaled = b * math.sqrt(N) / b.flatten(1).norm(dim=1)[:, None, None]
            g = g @ torch.matrix_exp(torch.einsum("ck,kij->cij", eta, scaled))
    return (g[:, None] @ torch.cat([unit[None], components()])).flatten(0, 1)


@torch.no_grad()
def equivariance_error(
    f: Callable[[Tensor], Tensor], x: Tensor, type_in: str, type_out: str = "S", count: int = 16
) -> float:
    """Measure ``|f(gx) - g f(x)|`` relative to ``|f(x)|``, root mean squares over drawn g."""
    y, errors = f(x), []
    for g in sample(count, seed=0):
        rho, out = (representation(kind, g).to(x) for kind in (type_in, type_out))
        errors.append((f(x @ rho.mT) - y @ out.mT).square().mean())
    return float(torch.stack(errors).mean().sqrt() / y.square().mean().sqrt().clamp(min=1e-30))


def self_test() -> list[str]:
    """Test this file. Returns what was found, in lines; raises ``AssertionError`` for a fault."""
    torch.manual_seed(0)
    x = torch.randn(64, 2 * N)
    allowed = max(20 * ACCURACY, 1e-4)
    basis = equivariant_linear("2V", "2V")
    layer = EquivariantLinear("2V", "2V")
    error = equivariance_error(layer, x, "2V", "2V")
    assert error <= allowed, f"a layer has the error {error:.2g}, above {allowed:.2g}"
    lines = [f"{NAME}: {len(GENERATORS)} generators, {len(COMPONENTS)} further components"]
    lines.append(f"{len(basis)} equivariant maps from 2V to 2V; error of a layer {error:.2g}")
    moved, target = Augment("2V", "2V")(x, x)
    assert target is not None
    assert torch.equal(moved, target)
    assert moved.shape == x.shape
    if is_compact():
        network = nn.Sequential(nn.Linear(2 * N, 16), nn.Tanh(), nn.Linear(16, 1))

        def wild(x: Tensor) -> Tensor:
            # With a part that averaging keeps, so that the error has something to compare with.
            made: Tensor = network(x) + x.square().mean(-1, keepdim=True)
            return made

        before = equivariance_error(wild, x, "2V")
        after = equivariance_error(symmetrise(wild, "2V"), x, "2V")
        # Of 64 elements at random about an eighth is left.
        assert after < max(0.3 * before, allowed), f"averaging left {after:.2g} of {before:.2g}"
        lines.append(f"averaging takes the error of a network from {before:.2g} to {after:.2g}")
    else:
        lines.append("the group is not compact: symmetrise is refused")
    return lines


if __name__ == "__main__":
    print("\n".join([*self_test(), f"all tests passed; the verdict on the data: {VERDICT}"]))
