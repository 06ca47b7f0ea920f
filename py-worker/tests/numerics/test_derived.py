"""The derived algebra of a span."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atlas_worker.symmetry import lie
from atlas_worker.symmetry.ambient import Ambient
from atlas_worker.symmetry.finite_moves import derived_parts
from atlas_worker.symmetry.space import Space


def orthogonal(*signs: float) -> Tensor:
    """Generators that keep the metric with these signs."""
    n, found = len(signs), []
    for i in range(n):
        for j in range(i + 1, n):
            b = torch.zeros(n, n)
            b[i, j], b[j, i] = 1.0, -signs[i] * signs[j]
            found.append(b)
    return torch.stack(found)


def mixed(basis: Tensor, error: float = 0.0) -> Tensor:
    """An orthonormal frame of a span, in any order, with random errors."""
    g = torch.Generator().manual_seed(0)
    turned = torch.einsum("ij,jab->iab", torch.randn(len(basis), len(basis), generator=g), basis)
    noise = torch.randn(turned.shape, generator=g) * error / turned[0].numel() ** 0.5
    return lie.frame(lie.frame(turned) + noise)


@pytest.mark.parametrize("error", [0.0, 0.03])
@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, -1, -1)])
def test_scalings_are_told_from_the_algebra_of_a_metric(
    signs: tuple[float, ...], error: float
) -> None:
    metric, n = orthogonal(*signs), len(signs)
    frame = mixed(torch.cat([metric, torch.eye(n)[None]]), error)
    brackets, rest = derived_parts(Space(Ambient.linear(n)), frame)
    assert len(brackets) == len(metric)
    assert float(lie.principal_angles(brackets, metric).max()) < max(1e-3, 2 * error)
    assert float(lie.principal_angles(rest, torch.eye(n)[None]).max()) < max(1e-3, 2 * error)
    both = torch.cat([brackets, rest]).flatten(1)
    assert torch.allclose(both @ both.T, torch.eye(len(both)), atol=1e-5)
    assert float(lie.principal_angles(torch.cat([brackets, rest]), frame).max()) < 1e-3


@pytest.mark.parametrize(
    "basis",
    [
        orthogonal(1, 1, 1),  # brackets span all of it
        torch.stack([orthogonal(1, 1)[0], torch.eye(2)]),  # they vanish
        torch.stack([orthogonal(1, 1, 1)[0], orthogonal(1, 1, 1)[1]]),  # it is not closed
        orthogonal(1, 1),
    ],
)
def test_other_spans_stay_as_they_are(basis: Tensor) -> None:
    frame = mixed(basis)
    (only,) = derived_parts(Space(Ambient.linear(basis.shape[-1])), frame)
    assert only is frame
