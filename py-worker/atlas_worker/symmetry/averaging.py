"""Draws from a matrix group, and averages of predictors over it (METHOD 5.7)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InvalidInput
from . import lie
from .closure import LIMIT
from .components import same_component
from .equivariant import ALGEBRA, COMPONENTS, Group, equivariant_maps
from .features import FeatureType
from .finite import distances

SAME = 1e-3
"""Distance of two elements of a finite group, relative to their size, that are one."""
STEPS = 6
"""Random steps that lead nearly anywhere in a compact group."""


def draw(group: Group, count: int, scale: float, stream: torch.Generator) -> Tensor:
    """Draw elements ``exp(Σ η_i B_i) h_j`` with ``η ~ N(0, scale²)``, and j at random.

    The B_i are an orthogonal basis of norm √n, so that rotations have angles of about ``scale``.

    Args:
        group: The group.
        count: Number of elements.
        scale: Standard deviation of the coefficients.
        stream: Source of the random numbers.

    Returns:
        ``[count, n, n]`` float64.
    """
    n, k = group.ambient.n, len(group.generators)
    eta = scale * torch.randn(count, k, generator=stream, dtype=torch.float64)
    g = lie.expm(lie.combine(group.generators, eta))
    unit = torch.eye(n, dtype=torch.float64)[None]
    components = torch.cat([unit, group.components])
    chosen = torch.randint(len(components), (count,), generator=stream)
    return g @ components[chosen]


def invariant_metric(group: Group) -> Tensor | None:
    """Return a positive definite form that the group keeps: the unit form's part in all it keeps.

    Returns:
        ``S [n, n]`` with ``gᵀ S g = S``; None if there is none, so that the group is not compact.
    """
    n = group.ambient.n
    one, form = (FeatureType(kind, n) for kind in "SF")
    forms = equivariant_maps(
        group.generators, group.components, one, form, accuracy=group.accuracy
    ).basis.view(-1, n, n)
    symmetric = (forms + forms.mT) / 2
    coefficients = torch.einsum("dii->d", symmetric)
    metric = torch.einsum("d,dij->ij", coefficients, symmetric)
    smallest = float(torch.linalg.eigvalsh(metric)[0])
    return metric if smallest > 1e-3 * float(metric.norm()) else None


def elements(group: Group, count: int = 64, seed: int = 0) -> Tensor:
    """Return elements of a compact group over which averages are taken.

    A finite group has all its elements. One generator has equal steps of a period if it has one. Of
    other groups, elements are drawn at random.

    Args:
        group: The group, in GL(n).
        count: Number of elements of the identity component of a group that is not finite.
        seed: Seed of the draws.

    Returns:
        ``[m, n, n]`` float64.

    Raises:
        InvalidInput: The group is not compact, or its components do not close to a finite group.
    """
    if not group.ambient.is_linear:
        raise InvalidInput("averages are taken over linear groups", ALGEBRA, "no translations")
    if invariant_metric(group) is None:
        raise InvalidInput(
            "the group is not compact, so no average over it exists",
            ALGEBRA if len(group.generators) else COMPONENTS,
            "a group that keeps lengths in some coordinates, such as rotations or a finite group",
            "use an equivariant network, or draw from the group in training",
        )
    components = _generated(group)
    k = len(group.generators)
    if k == 0:
        return components
    stream = torch.Generator().manual_seed(seed)
    period = _period(group.generators[0]) if k == 1 else None
    if period is not None:
        times = torch.arange(count, dtype=torch.float64) * (period / count)
        inner = torch.matrix_exp(times[:, None, None] * group.generators)
    else:
        inner = torch.eye(group.ambient.n, dtype=torch.float64).repeat(count, 1, 1)
        for _ in range(STEPS):
            eta = math.pi * torch.randn(count, k, generator=stream, dtype=torch.float64)
            inner = inner @ lie.expm(lie.combine(group.generators, eta))
    return (inner[:, None] @ components).flatten(0, 1)


def _generated(group: Group) -> Tensor:
    """Return all products of the components: a finite group, or one element of each component."""
    found = torch.eye(group.ambient.n, dtype=torch.float64)[None]
    waiting = list(group.components)
    while waiting:
        h = waiting.pop()
        if len(group.generators):
            known = any(same_component(group.generators, found, h, group.ambient))
        else:
            known = float(distances(h, found).min()) < SAME * float(h.norm())
        if known:
            continue
        found = torch.cat([found, h[None]])
        if len(found) > LIMIT:
            raise InvalidInput(
                f"the products of the components make more than {LIMIT} elements",
                COMPONENTS,
                "matrices of a finite group",
            )
        waiting += [h @ g for g in group.components] + [g @ h for g in group.components]
    return found


def _period(generator: Tensor) -> float | None:
    """Return the period of the slowest turn if ``exp(t B) = 1`` after it, else None."""
    speeds = torch.linalg.eigvals(generator).imag.abs()
    slowest = float(speeds[speeds > 1e-6].min())
    period = 2 * math.pi / slowest
    unit = torch.eye(len(generator), dtype=generator.dtype)
    again = torch.matrix_exp(period * generator)
    return period if float((again - unit).norm()) < 1e-3 else None


def averaged(
    predict: Callable[[Tensor], Tensor],
    group_elements: Tensor,
    type_in: FeatureType,
    type_out: FeatureType,
) -> Callable[[Tensor], Tensor]:
    """Average a predictor over a group: the Reynolds operator ``E_g ρ_out(g)⁻¹ f(ρ_in(g) x)``.

    The average commutes with the group of the elements, exactly if they are one.

    Args:
        predict: Any function of samples ``[B, ..., p]`` to outputs ``[B, q]``.
        group_elements: ``[m, n, n]``, see :func:`elements`.
        type_in: Type of the features of an item, of p components.
        type_out: Type of the outputs, of q components.

    Returns:
        The averaged function.

    >>> turns = torch.stack([torch.eye(2), -torch.eye(2)]).double()
    >>> even = averaged(lambda x: x, turns, FeatureType("V", 2), FeatureType("2S", 2))
    >>> even(torch.ones(1, 2).double())
    tensor([[0., 0.]], dtype=torch.float64)
    """
    before = type_in(group_elements)
    after = type_out(torch.linalg.inv(group_elements))

    def average(x: Tensor) -> Tensor:
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for rho_in, rho_out in zip(before, after, strict=True):
            total = total + predict(x @ rho_in.to(x).mT) @ rho_out.to(x).mT
        return total / len(before)

    return average
