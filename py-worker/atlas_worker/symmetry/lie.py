"""Matrix Lie algebra: exponential, bracket, orthonormal frames and projections in gl(n).

gl(n) has the Frobenius inner product ``<A, B> = tr(Aᵀ B)``. A *frame* is ``[..., k, n, n]`` with
orthonormal members.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expm(a: Tensor) -> Tensor:
    """Compute the matrix exponential of ``a [..., n, n]``."""
    return torch.matrix_exp(a)


def combine(basis: Tensor, coefficients: Tensor) -> Tensor:
    """Compute ``Σ_i η_i B_i``.

    Args:
        basis: ``[..., k, n, n]``.
        coefficients: ``[..., k]``. Leading dimensions broadcast.

    Returns:
        ``[..., n, n]``.
    """
    return (coefficients[..., None, None] * basis).sum(-3)


def bracket(a: Tensor, b: Tensor) -> Tensor:
    """Compute the Lie bracket ``[A, B] = AB - BA`` of matrices ``[..., n, n]``.

    >>> e, f = torch.tensor([[0., 1.], [0., 0.]]), torch.tensor([[0., 0.], [1., 0.]])
    >>> bracket(e, f)
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    return a @ b - b @ a


def frame(basis: Tensor) -> Tensor:
    """Orthonormalise a basis by Gram-Schmidt.

    The frame spans the same nested subspaces. The signs of the QR factorisation are fixed (R has a
    positive diagonal). So an orthonormal basis stays unchanged and the map is smooth: it can serve
    as the retraction on the Stiefel manifold.

    Args:
        basis: ``[..., k, n, n]``.

    Returns:
        A frame ``[..., k, n, n]``, differentiable in ``basis``.
    """
    n = basis.shape[-1]
    framed: Tensor = orthonormal(basis.flatten(-2)).unflatten(-1, (n, n))
    return framed


def orthonormal(vectors: Tensor) -> Tensor:
    """Orthonormalise the rows of ``vectors [..., k, m]`` by Gram-Schmidt; see :func:`frame`."""
    if vectors.shape[-2] == 0:
        return vectors
    q, r = torch.linalg.qr(vectors.mT)
    signs = torch.sign(torch.diagonal(r, dim1=-2, dim2=-1).detach())
    signs = torch.where(signs == 0, torch.ones_like(signs), signs)
    rows: Tensor = (q * signs[..., None, :]).mT
    return rows


def complement(orthonormal: Tensor) -> Tensor:
    """Return a frame ``[n² - k, n, n]`` of the orthogonal complement of a frame ``[k, n, n]``."""
    n = orthonormal.shape[-1]
    others: Tensor = rest(orthonormal.flatten(1)).unflatten(-1, (n, n))
    return others


def rest(rows: Tensor) -> Tensor:
    """Complete orthonormal rows ``[k, m]`` to a basis of R^m; the result is ``[m - k, m]``."""
    k, m = rows.shape
    if k == m:
        return rows[:0]
    full, _ = torch.linalg.qr(
        torch.cat([rows.mT, torch.eye(m, dtype=rows.dtype, device=rows.device)], 1)
    )
    others: Tensor = full[:, k:m].mT
    return others


def project(orthonormal: Tensor, a: Tensor) -> Tensor:
    """Project ``a [..., n, n]`` on a frame ``[k, n, n]``; the coordinates are ``[..., k]``."""
    return torch.einsum("...ij,kij->...k", a, orthonormal)


def sparse_basis(basis: Tensor, tolerance: float = 0.05) -> Tensor:
    """Return a basis of the same span in which each member has an entry that all others lack.

    This is the reduced row echelon form of the entries, with the largest pivots first, so that
    nothing is divided by a small number. It has no duplicates: a member that lies in the span of
    the others to within ``tolerance`` adds none.

    Args:
        basis: ``[k, n, n]``.
        tolerance: Smallest singular value that counts, relative to the largest.

    Returns:
        ``[rank, n, n]``, with unit norms.
    >>> a, b = torch.tensor([[0., -1.], [1., 0.]]), torch.eye(2)
    >>> sparse_basis(torch.stack([a + b, a - b, 2 * a])).round().int().tolist()
    [[[1, 0], [0, 1]], [[0, 1], [-1, 0]]]
    """
    n = basis.shape[-1]
    unit = basis / basis.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None, None]
    _, values, vectors = torch.linalg.svd(unit.flatten(1).double(), full_matrices=False)
    rows = vectors[values > tolerance * values[:1].clamp(min=1e-30)]
    pivots: list[int] = []
    for done in range(len(rows)):
        sizes = rows[done:].norm(dim=0)
        pivot = int((sizes >= 0.8 * sizes.max()).nonzero()[0])
        pivots.append(pivot)
        best = done + int(rows[done:, pivot].abs().argmax())
        rows[[done, best]] = rows[[best, done]]
        rows[done] = rows[done] / rows[done, pivot].clone()
        others = torch.arange(len(rows)) != done
        rows[others] -= rows[others, pivot, None] * rows[done]
    rows = rows[torch.tensor(pivots, dtype=torch.long).argsort()]
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    sparse: Tensor = rows.unflatten(1, (n, n)).to(basis)
    return sparse


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Compute the principal angles between two spans.

    Args:
        a: A basis ``[k, n, n]``.
        b: A basis ``[l, n, n]``.

    Returns:
        ``[min(k, l)]`` in radians, ascending.
    """
    cosines = torch.linalg.svdvals(frame(a).flatten(1) @ frame(b).flatten(1).mT)
    return torch.acos(cosines.clamp(max=1.0))
