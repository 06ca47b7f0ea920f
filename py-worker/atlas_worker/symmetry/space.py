"""The space in which a Lie algebra is sought: gl(n), or a subspace of it (METHOD 1.7).

A space has an inner product, in which frames are orthonormal, complements orthogonal and directions
of unit length. On gl(n) it is that of Frobenius. For affine groups it is that of Frobenius in
coordinates in which the points have mean 0 and spread 1 in every direction. Otherwise the unit of
length would decide whether a translation is large or small. Where the components of vectors have
units of very different sizes, it is that of Frobenius for components of the same size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput
from . import lie
from .ambient import Ambient, Factor

OUTSIDE = 1e-4
"""Part of a matrix, relative to its norm, that may lie outside of a space."""
DEPENDENT = 1e-6
"""Singular value, relative to the largest, below which matrices count as dependent."""


class Space:
    """A subspace of gl(n) with an inner product.

    The free parameters of an element are its entries ``[n, n]`` if the space is gl(n) without
    coordinates D, and its coordinates ``[d]`` in an orthonormal basis otherwise.

    Args:
        ambient: The whole group.
        coordinates: D, ``[n, n]``, from which the inner product comes: ``⟨A, B⟩`` is that of
            Frobenius for ``D A D⁻¹`` and ``D B D⁻¹``. None for the identity.
        group: Matrices ``[k, n, n]`` that span the space; None for the whole group's algebra.
        field: The parameter that gave ``group``, for errors.
        scaled: Coordinates ``[n, n]`` in which reports are to be read, which keep angles. None: D.

    Raises:
        InvalidInput: ``group`` is empty, or not in the whole group's algebra.
    """

    def __init__(
        self,
        ambient: Ambient,
        coordinates: Tensor | None = None,
        group: Tensor | None = None,
        field: str = "group_algebra",
        *,
        scaled: Tensor | None = None,
    ) -> None:
        self.ambient, self.coordinates = ambient, coordinates
        self.scaled = coordinates if scaled is None else scaled
        """Coordinates in which reports are to be read."""
        n = ambient.n
        self._inverse = None if coordinates is None else torch.linalg.inv(coordinates)
        standard = ambient.algebra()
        if group is not None:
            standard = self._restricted(group, field)
        self.restricted = len(standard) < ambient.dimension
        """Whether it is smaller than the whole group's algebra."""
        if not self.restricted:
            standard = ambient.algebra()
        self.is_whole = len(standard) == n * n and coordinates is None
        """Whether it is gl(n) with the inner product of Frobenius."""
        self._standard = standard
        self._basis = self.outward(standard)

    @property
    def n(self) -> int:
        """Size of the matrices."""
        return self.ambient.n

    @property
    def dimension(self) -> int:
        """Number of directions."""
        return len(self._standard)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an element's free parameters."""
        return (self.n, self.n) if self.is_whole else (self.dimension,)

    @property
    def factors(self) -> list[Factor]:
        """The groups whose product acts; none for one GL(n)."""
        return [] if self.ambient.is_linear else list(self.ambient.factors)

    @property
    def basis(self) -> Tensor:
        """An orthonormal basis ``[d, n, n]`` float64."""
        return self._basis

    def __str__(self) -> str:
        """Name it, for messages."""
        return str(self.ambient) if not self.restricted else f"the group, inside {self.ambient}"

    def inward(self, matrices: Tensor) -> Tensor:
        """Return ``D M D⁻¹`` of matrices ``[..., n, n]``: what they are in the coordinates D."""
        if self.coordinates is None or self._inverse is None:
            return matrices
        d, inverse = self.coordinates.to(matrices.device), self._inverse.to(matrices.device)
        moved: Tensor = d @ matrices.double() @ inverse
        return moved.to(matrices.dtype)

    def outward(self, matrices: Tensor) -> Tensor:
        """Return ``D⁻¹ M D`` of matrices ``[..., n, n]``, the inverse of :meth:`inward`."""
        if self.coordinates is None or self._inverse is None:
            return matrices
        d, inverse = self.coordinates.to(matrices.device), self._inverse.to(matrices.device)
        moved: Tensor = inverse @ matrices.to(d.dtype) @ d
        return moved.to(matrices.dtype)

    def lift(self, free: Tensor) -> Tensor:
        """Return the elements ``[..., n, n]`` with free parameters ``[..., *shape]``."""
        if self.is_whole:
            return free
        lifted: Tensor = torch.einsum("...d,dij->...ij", free, self._basis.to(free))
        return lifted

    def free(self, matrices: Tensor) -> Tensor:
        """Return the free parameters ``[..., *shape]`` of the parts in the space of matrices."""
        if self.is_whole:
            return matrices
        free: Tensor = torch.einsum(
            "...ij,dij->...d", self.inward(matrices), self._standard.to(matrices)
        )
        return free

    def check(self, matrices: Tensor) -> None:
        """Raise ``InvalidInput`` if one of the matrices ``[k, n, n]`` lies outside of the space."""
        if self.is_whole or not len(matrices):
            return
        inside = self.lift(self.free(matrices.double()))
        off = self.inward(matrices.double() - inside).flatten(1).norm(dim=1)
        size = self.inward(matrices.double()).flatten(1).norm(dim=1)
        wrong = (off > OUTSIDE * size.clamp(min=1e-30)).nonzero()
        if len(wrong):
            raise InvalidInput(
                f"matrix {int(wrong[0])} of a basis lies outside of {self}",
                "basis",
                f"matrices of {self}",
            )

    def frame(self, free: Tensor) -> Tensor:
        """Return the orthonormal frames ``[..., k, n, n]`` of elements, by Gram-Schmidt.

        Args:
            free: Free parameters ``[..., k, *shape]``.

        Returns:
            Matrices, differentiable in ``free``.
        """
        return lie.frame(free) if self.is_whole else self.lift(lie.orthonormal(free))

    def norms(self, matrices: Tensor) -> Tensor:
        """Return the lengths ``[k]`` of elements ``[k, n, n]``."""
        norms: Tensor = self.inward(matrices).flatten(1).norm(dim=1)
        return norms

    def shares(self, matrices: Tensor) -> Tensor:
        """Return the shares ``[k, factors]`` of the factors in the squared lengths of elements."""
        if len(self.ambient.factors) == 1:
            return torch.ones(len(matrices), 1, dtype=matrices.dtype)
        squares = self.inward(matrices).square()
        parts = [squares[..., block, block].sum((-2, -1)) for _, block in self.ambient.blocks()]
        sizes = torch.stack(parts, 1)
        shares: Tensor = sizes / sizes.sum(1, keepdim=True).clamp(min=1e-30)
        return shares

    def complement(self, frame: Tensor) -> Tensor:
        """Return a frame ``[d - k, n, n]`` of the orthogonal complement of a frame."""
        if self.is_whole:
            return lie.complement(frame)
        return self.lift(lie.rest(self.free(frame)))

    def draw(self, generator: torch.Generator, *lead: int) -> Tensor:
        """Draw normally distributed free parameters ``[*lead, *shape]``."""
        return torch.randn(*lead, *self.shape, generator=generator)

    def _restricted(self, group: Tensor, field: str) -> Tensor:
        """Return an orthonormal basis of a span, in the coordinates D: ``[d, n, n]``."""
        moved = self.inward(group.double().cpu())
        moved = moved / moved.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None, None]
        outside = moved.masked_fill(self.ambient.mask(), 0.0)
        if len(moved) and float(outside.abs().max()) > OUTSIDE:
            worst = int(outside.flatten(1).abs().max(1).values.argmax())
            raise InvalidInput(
                f"matrix {worst} of the group's algebra is not in {self.ambient}",
                field,
                f"matrices of {self.ambient}, {self.n}x{self.n}",
                "give an algebra that moves what the types say, or other types",
            )
        moved = moved.masked_fill(~self.ambient.mask(), 0.0)
        _, sizes, vectors = torch.linalg.svd(moved.flatten(1), full_matrices=False)
        kept = vectors[sizes > DEPENDENT * sizes[:1].clamp(min=1e-30)]
        if not len(kept):
            raise InvalidInput(
                "the group's algebra is empty: there is nothing to search in",
                field,
                "at least one matrix that is not zero",
                "leave the group out to search in all of " + str(self.ambient),
            )
        basis: Tensor = kept.unflatten(1, (self.n, self.n))
        return basis

    def normaliser(self, *, traceless: bool = True) -> Tensor:
        """Return the algebra of the space's normaliser in the whole group.

        These are the X with ``[X, B]`` in the space for all B of it.

        Args:
            traceless: Only those with trace 0 in each factor, without scalings.

        Returns:
            An orthonormal basis ``[e, n, n]`` float64, in the coordinates D.
        """
        units, span = self.ambient.algebra(), self._standard
        brackets = lie.bracket(units[:, None], span[None])  # [a, d, n, n]
        inside = torch.einsum("adij,eij->ade", brackets, span)
        off = brackets - torch.einsum("ade,eij->adij", inside, span)
        conditions = [off.flatten(1)]  # a row for each unit
        for f in self.ambient.factors if traceless else ():
            diagonal = self.ambient.linear_part(units, f.name).diagonal(dim1=-2, dim2=-1)
            conditions.append(diagonal.sum(-1, keepdim=True))
        left, sizes, _ = torch.linalg.svd(torch.cat(conditions, 1))
        rank = int((sizes > 1e-6 * sizes[:1].clamp(min=1e-30)).sum())
        null = left[:, rank:].mT
        basis: Tensor = torch.einsum("ea,aij->eij", null, units)
        return basis
