"""The whole group in which symmetries are sought: a product of linear and affine groups.

Its matrices are block diagonal, with one block for each factor (METHOD 1.7).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

FLAT = 1e-6
"""Variance, relative to that of all directions, below which points do not spread."""
UNEVEN = 3.0
"""Ratio of the sizes of vectors' components from which they are balanced."""


@dataclass(frozen=True)
class Factor:
    """GL(n), or with ``affine`` the affine maps of R^n, as one factor of a product.

    An affine map ``x → A x + t`` is the matrix ``[[A, t], [0, 1]]`` (homogeneous coordinates).
    """

    name: str
    """Letter of the factor in types such as ``Va``; empty for the plain group."""
    n: int
    """Dimension of the vectors on which it acts."""
    affine: bool = False
    """Whether it translates too."""
    map: bool = False
    """Whether it moves the map of a field."""

    @property
    def size(self) -> int:
        """Size of its block."""
        return self.n + self.affine

    @property
    def dimension(self) -> int:
        """Dimension of its algebra: n², or n² + n with translations."""
        return self.n * self.size


@dataclass(frozen=True)
class Ambient:
    """A product of factors.

    >>> Ambient((Factor("", 2), Factor("b", 3))).dimension
    13
    >>> Ambient((Factor("", 2, affine=True),)).n
    3
    """

    factors: tuple[Factor, ...]

    @classmethod
    def linear(cls, n: int) -> Ambient:
        """Return GL(n)."""
        return cls((Factor("", n),))

    @property
    def n(self) -> int:
        """Size of the matrices."""
        return sum(f.size for f in self.factors)

    @property
    def dimension(self) -> int:
        """Dimension of the algebra."""
        return sum(f.dimension for f in self.factors)

    @property
    def is_linear(self) -> bool:
        """Whether this is one group GL(n)."""
        return len(self.factors) == 1 and not self.factors[0].affine

    def blocks(self) -> Iterator[tuple[Factor, slice]]:
        """Iterate over the factors, each with the rows and columns of its block."""
        at = 0
        for factor in self.factors:
            yield factor, slice(at, at + factor.size)
            at += factor.size

    def linear_part(self, g: Tensor, name: str) -> Tensor:
        """Return a factor's linear parts ``[..., n, n]`` of matrices ``[..., N, N]``."""
        factor, block = self._find(name)
        at = slice(block.start, block.start + factor.n)
        return g if self.is_linear else g[..., at, at]

    def translation(self, g: Tensor, name: str) -> Tensor:
        """Return an affine factor's translations ``[..., n]`` of matrices ``[..., N, N]``."""
        factor, block = self._find(name)
        return g[..., block.start : block.start + factor.n, block.stop - 1]

    def _find(self, name: str) -> tuple[Factor, slice]:
        return next((f, block) for f, block in self.blocks() if f.name == name)

    def mask(self) -> Tensor:
        """Return which entries of an element of the algebra are free: ``[N, N]`` bool."""
        free = torch.zeros(self.n, self.n, dtype=torch.bool)
        for factor, block in self.blocks():
            free[block.start : block.start + factor.n, block] = True
        return free

    def algebra(self) -> Tensor:
        """Return an orthonormal basis of the algebra: ``[dimension, N, N]`` float64."""
        n = self.n
        units = torch.eye(n * n, dtype=torch.float64).unflatten(1, (n, n))
        basis: Tensor = units[self.mask().flatten()]
        return basis

    def traceless(self) -> Tensor:
        """Return an orthonormal basis of the elements with trace 0 in each factor.

        Returns:
            ``[dimension - factors, N, N]`` float64.

        >>> len(Ambient.linear(3).traceless())
        8
        """
        basis: Tensor = torch.linalg.qr(self._trace_rows().mT, mode="complete").Q
        rest = basis[:, len(self.factors) :].mT
        return torch.einsum("ea,aij->eij", rest, self.algebra())

    def _trace_rows(self) -> Tensor:
        """Traces of the basis of the algebra in each factor: ``[factors, dimension]``."""
        units = self.algebra()
        parts = [self.linear_part(units, f.name) for f in self.factors]
        return torch.stack([p.diagonal(dim1=-2, dim2=-1).sum(-1) for p in parts])

    def normalise(self, free: Tensor) -> Tensor:
        """Turn any matrices into elements of the group, with ``|det| = 1`` in each factor.

        Args:
            free: ``[..., N, N]``. Entries outside of the group's blocks do not count.

        Returns:
            ``[..., N, N]``, differentiable in ``free``. For GL(n): ``M / |det M|^(1/n)``.
        """
        if self.is_linear:
            return normalised(free)
        g = torch.zeros_like(free)
        for factor, block in self.blocks():
            at = slice(block.start, block.start + factor.n)
            g[..., at, at] = normalised(free[..., at, at])
            if factor.affine:
                g[..., at, block.stop - 1] = free[..., at, block.stop - 1]
                g[..., block.stop - 1, block.stop - 1] = 1.0
        return g

    def alone(self, g: Tensor, name: str) -> Tensor:
        """Return matrices ``[..., N, N]`` that move one factor as g does, and no other."""
        _, block = self._find(name)
        alone = torch.eye(self.n, dtype=g.dtype, device=g.device).expand_as(g).clone()
        alone[..., block, block] = g[..., block, block]
        return alone

    def signs(self, g: Tensor) -> Tensor:
        """Return the signs of the determinants of all factors: ``[..., factors]``."""
        parts = [torch.linalg.det(self.linear_part(g, f.name)).sign() for f in self.factors]
        return torch.stack(parts, -1)

    def balanced(self, g: Tensor) -> Tensor:
        """Give matrices ``[m, N, N]`` every combination of the determinants' signs in turn.

        Independent random signs would leave out some combination too often. Those of one factor are
        left as they are.
        """
        if len(self.factors) == 1:
            return g
        g = g.clone()
        for at, (factor, block) in enumerate(self.blocks()):
            wanted = 1 - 2 * (torch.arange(len(g)) >> at & 1)
            signs = torch.linalg.det(self.linear_part(g, factor.name)).sign()
            g[:, block.start, block] *= (wanted * signs)[:, None]
        return g

    def mean_square(self, error: Tensor) -> Tensor:
        """Return the mean squared entry of matrices ``[..., N, N]``, of the factor with the most.

        Entries that no element of the algebra has do not count. So a small factor is not drowned by
        a large one.
        """
        if self.is_linear:
            return error.square().mean((-2, -1))
        squares = error.square()
        sums = [squares[..., b, b].sum((-2, -1)) / f.dimension for f, b in self.blocks()]
        return torch.stack(sums, -1).max(-1).values

    def __str__(self) -> str:
        """Write the group's algebra: ``gl(2) ⊕ aff(3)``."""
        return " ⊕ ".join(f"{'aff' if f.affine else 'gl'}({f.n})" for f in self.factors)


def normalised(matrices: Tensor) -> Tensor:
    """Compute ``M / |det M|^(1/n)`` of matrices ``[..., n, n]``."""
    det = torch.linalg.det(matrices).abs().clamp(min=1e-12)
    roots: Tensor = det.pow(1 / matrices.shape[-1])
    return matrices / roots[..., None, None]


def homogeneous(
    ambient: Ambient, points: dict[str, Tensor], *, whiten: bool = False
) -> Tensor | None:
    """Return coordinates in which points have mean 0 and spread 1.

    Args:
        ambient: The group.
        points: Points ``[N, n]`` of each affine factor, by the factor's name.
        whiten: Spread 1 in every direction, and not in the mean over directions. Directions in
            which the points do not spread are left as they are.

    Returns:
        D ``[N, N]`` float64: the map to these coordinates, which leaves linear factors alone. None
        if there is no affine factor.
    """
    if not points:
        return None
    d = torch.eye(ambient.n, dtype=torch.float64)
    for factor, block in ambient.blocks():
        if factor.name not in points:
            continue
        x = points[factor.name].double().cpu()
        centre = x.mean(0)
        spread = float((x - centre).square().sum() / max(x.numel(), 1))
        scale = torch.eye(factor.n, dtype=torch.float64) / (math.sqrt(spread) if spread else 1.0)
        if whiten and spread > 0:
            values, vectors = torch.linalg.eigh((x - centre).mT @ (x - centre) / len(x))
            sizes = torch.where(values > FLAT * spread, values, spread).sqrt()
            scale = vectors @ torch.diag(1 / sizes) @ vectors.mT
        at = slice(block.start, block.start + factor.n)
        d[at, at] = scale
        d[at, block.stop - 1] = -scale @ centre
    return d


def balancing(
    ambient: Ambient, vectors: dict[str, Tensor], others: Tensor | None = None
) -> Tensor | None:
    """Return coordinates in which the components of vectors have the same root mean square.

    Otherwise their units decide which matrices are large: turns between metres and kilometres would
    look like shears.

    Args:
        ambient: The group.
        vectors: Vectors ``[N, n]`` of linear factors, by the factor's name.
        others: Coordinates ``[N, N]`` of the other factors; None for the identity.

    Returns:
        D ``[N, N]`` float64. Factors whose components differ by less than ``UNEVEN`` are left as
        they are. ``others`` if that is true of all.
    """
    d = others
    for factor, block in ambient.blocks():
        if factor.name not in vectors:
            continue
        sizes = vectors[factor.name].double().cpu().square().mean(0).sqrt()
        some = sizes[sizes > 0]
        if not len(some) or float(some.max()) < UNEVEN * float(some.min()):
            continue
        middle = some.log().mean().exp()
        scales = torch.where(sizes > 0, middle / sizes.clamp(min=1e-300), 1.0)
        d = torch.eye(ambient.n, dtype=torch.float64) if d is None else d.clone()
        at = slice(block.start, block.start + factor.n)
        d[at, at] = scales.diag()
    return d
