"""Finite groups of matrices: distances, snapping, multiplication tables (METHOD 2.9)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .ambient import normalised

ROUNDS = 30
"""Largest number of rounds in which :func:`straighten` averages."""


def distances(matrix: Tensor, others: Tensor) -> Tensor:
    """Compute the Frobenius distances ``[m]`` of ``others [m, n, n]`` from a matrix ``[n, n]``."""
    apart: Tensor = (others - matrix).flatten(1).norm(dim=1)
    return apart


def metric_of(elements: Tensor) -> Tensor:
    """Compute the metric ``J = mean hᵀh`` that a finite group keeps.

    Args:
        elements: All elements, ``[m, n, n]``.

    Returns:
        ``[n, n]``, with determinant 1.
    """
    return normalised((elements.mT @ elements).mean(0))


def root_of(metric: Tensor) -> Tensor:
    """Compute the symmetric square root of a positive definite matrix ``[n, n]``."""
    values, vectors = torch.linalg.eigh(metric)
    root: Tensor = (vectors * values.clamp(min=1e-12).sqrt()) @ vectors.mT
    return root


def polar(matrices: Tensor) -> Tensor:
    """Return the nearest orthogonal matrices of ``[..., n, n]``."""
    u, _, v = torch.linalg.svd(matrices)
    nearest: Tensor = u @ v
    return nearest


def snap(matrix: Tensor, order: int) -> Tensor:
    """Round the eigenvalues of a matrix to roots of unity, so that its ``order``-th power is I.

    Args:
        matrix: ``[n, n]``, near an element of that order.
        order: The order m.

    Returns:
        The matrix with eigenvalues ``exp(2πi j/m)``; ``matrix`` if it has no basis of eigenvectors.

    >>> a = 0.02 + torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> torch.linalg.matrix_power(snap(a, 4), 4).round(decimals=6).abs().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    values, vectors = torch.linalg.eig(matrix.double())
    step = 2 * math.pi / order
    angles = (torch.angle(values) / step).round() * step
    if float(torch.linalg.cond(vectors)) > 1e6:
        return matrix
    rounded = torch.polar(torch.ones_like(angles), angles)
    snapped = vectors @ torch.diag(rounded) @ torch.linalg.inv(vectors)
    rounded_matrix: Tensor = snapped.real.to(matrix)
    return rounded_matrix


def multiplication_table(elements: Tensor) -> Tensor:
    """Find the element that is nearest to each product.

    Args:
        elements: ``[m, n, n]``.

    Returns:
        ``[m, m]`` int64: entry (i, j) is the number of ``h_i h_j``.
    """
    flat = elements.flatten(1)
    rows = [torch.cdist((h @ elements).flatten(1), flat).argmin(1) for h in elements]
    return torch.stack(rows)


def is_group(table: Tensor) -> bool:
    """Tell whether a multiplication table is that of a group whose first element is the unit.

    >>> is_group(torch.tensor([[0, 1], [1, 0]])), is_group(torch.tensor([[0, 1], [1, 1]]))
    (True, False)
    """
    m = len(table)
    every = torch.arange(m)
    unit = torch.equal(table[0], every) and torch.equal(table[:, 0], every)
    rows = torch.equal(table.sort(1).values, every.expand(m, m))
    columns = torch.equal(table.sort(0).values, every[:, None].expand(m, m))
    # (h_i h_j) h_k = h_i (h_j h_k)
    return unit and rows and columns and torch.equal(table[table], table[:, table])


def straighten(elements: Tensor, table: Tensor) -> Tensor:
    """Move matrices that are nearly a group to an exact one with the same table.

    In coordinates in which the metric is the identity, each element becomes the orthogonal matrix
    that is nearest to the mean of ``h_ij h_jᵀ`` over all j, again and again. Errors of single
    elements average out, and those of the table vanish quadratically.

    Args:
        elements: ``[m, n, n]``, the first near I.
        table: Their multiplication table ``[m, m]``.

    Returns:
        ``[m, n, n]`` float64.
    """
    h = elements.double()
    root = root_of(metric_of(h))
    back = torch.linalg.inv(root)
    u = polar(root @ h @ back)
    for _ in range(ROUNDS):
        mean = torch.stack([(u[row] @ u.mT).mean(0) for row in table])
        moved = polar(mean)
        change = float((moved - u).abs().max())
        u = moved
        if change < 1e-13:
            break
    exact: Tensor = back @ u @ root
    return exact


def smallest_distance(elements: Tensor) -> float:
    """Compute the smallest distance between two of the elements ``[m, n, n]``; inf for one."""
    apart = torch.cdist(elements.flatten(1), elements.flatten(1))
    apart = apart + torch.diag(torch.full((len(elements),), math.inf, dtype=apart.dtype))
    return float(apart.min())


def between(a: Tensor, b: Tensor, metric: Tensor, share: float = 0.5) -> Tensor | None:
    """Find a matrix midway between two, in the group that keeps a metric.

    Args:
        a: ``[n, n]``.
        b: ``[n, n]``.
        metric: ``[n, n]``.
        share: Share of the way from ``a``, above 0 and at most 0.5.

    Returns:
        ``[n, n]``; None if the determinants have opposite signs, so that no path leads from one to
        the other.
    """
    if float(torch.linalg.det(a)) * float(torch.linalg.det(b)) <= 0:
        return None
    root = root_of(metric)
    back = torch.linalg.inv(root)
    u, v = polar(root @ a @ back), polar(root @ b @ back)
    # Where a half turn is between them, their mean has no direction. A small turn gives it one.
    n = a.shape[-1]
    turn = torch.zeros_like(a)
    for i in range(n - 1):
        turn[i, i + 1], turn[i + 1, i] = 0.01 * (i + 1), -0.01 * (i + 1)
    middle = polar((u + v) / 2 + u @ turn)
    if share < 0.5:  # of a way that is no longer than a quarter turn
        angles, vectors = torch.linalg.eig(u.mT @ middle)
        powers = torch.exp(2 * share * torch.log(angles))
        part = vectors @ powers.diag() @ torch.linalg.inv(vectors)
        middle = u @ part.real
    midway: Tensor = back @ middle @ root
    return midway


def orthogonal_starts(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Draw orthogonal matrices that are evenly spread over O(n), half with determinant −1.

    In the plane they are a grid of angles, else uniformly random (Mezzadri 2007).

    Args:
        count: Number of matrices.
        n: Their size.
        generator: Source of the random numbers.

    Returns:
        ``[count, n, n]`` float64.
    """
    half = (count + 1) // 2
    if n == 2:
        offset = torch.rand(2, 1, generator=generator, dtype=torch.float64)
        angles = 2 * math.pi * (torch.arange(half, dtype=torch.float64) + offset) / half
        c, s = angles.cos(), angles.sin()
        turns = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
        flip = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
        return torch.cat([turns[0], turns[1] @ flip])[:count]
    draws = torch.randn(count, n, n, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(draws)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    wanted = torch.where(torch.arange(count) < half, 1.0, -1.0).double()
    sign = torch.linalg.det(q).sign() * wanted
    drawn: Tensor = torch.cat([q[:, :, :1] * sign[:, None, None], q[:, :, 1:]], 2)
    return drawn
