"""Equivariance at single matrices, of functions for which it is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from atlas_worker.symmetry import measure
from atlas_worker.symmetry.measure import measure_at

from .tasks import (
    J,
    complex_line,
    field_task,
    laplacian,
    lopsided,
    norm_in,
    point_task,
    slope_squared,
)

IDENTITY = torch.eye(2)
FLIP = torch.diag(torch.tensor([1.0, -1.0]))
SHEAR = torch.tensor([[1.0, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize("f", [laplacian, slope_squared])
def test_quarter_turns_and_mirrors_of_a_lattice_are_exact_and_a_shear_is_not(
    f: Callable[[Tensor], Tensor],
) -> None:
    at = measure_at(field_task(f), torch.stack([IDENTITY, J, -IDENTITY, -J, FLIP, SHEAR]), 20, 0)
    assert at.distance.shape == (6,)
    assert at.distance[:5].max() < 1e-5
    assert at.loss[:5].max() < 1e-5
    assert at.interpolation_error[:5].max() < 1e-5
    assert at.relative_error[0] == 0  # where nothing moves
    assert at.relative_error[1:5].max() < 1e-3
    for shear in (at.distance[5], at.loss[5], at.interpolation_error[5]):
        assert shear > 1e-3
    assert 0.1 < at.relative_error[5] <= 1


def test_a_function_without_the_symmetry_fails_at_quarter_turns() -> None:
    at = measure_at(field_task(lopsided), torch.stack([IDENTITY, J]), 20, 0)
    assert at.relative_error[0] == 0
    assert at.relative_error[1] > 0.3


def test_the_distance_is_that_of_the_commutator() -> None:
    """Of multiplication A by 2 + i with a shear g: ``A g − g A = diag(−½, ½)``."""
    objective = point_task(complex_line, out="point")
    x = objective.batch(torch.arange(512)).x
    at = measure_at(objective, torch.stack([IDENTITY, J, 2 * IDENTITY + J, SHEAR]), 512, 0)
    assert at.distance[:3].max() < 1e-5
    assert at.relative_error[:3].max() < 1e-5
    assert float(at.distance[3]) == pytest.approx(float(x.abs().mean()) / 2, rel=1e-5)
    assert torch.equal(at.loss, at.distance)
    assert torch.equal(at.interpolation_error, torch.zeros(4).double())
    a = torch.tensor([[2.0, -1.0], [1.0, 2.0]])
    moved = sum((x @ m.T).abs().mean() for m in (a @ SHEAR - a, SHEAR @ a - a))
    assert float(at.relative_error[3]) == pytest.approx(float(at.distance[3] / moved), rel=1e-5)


def test_an_invariant_function_errs_by_all_of_its_motion_or_not_at_all() -> None:
    at = measure_at(point_task(norm_in(IDENTITY)), torch.stack([J, SHEAR]), 512, 0)
    assert at.relative_error.tolist() == pytest.approx([0, 1])


def test_samples_are_drawn_by_the_seed_and_no_more_often_than_they_are() -> None:
    objective, matrices = point_task(complex_line, out="point"), SHEAR[None]
    some = [float(measure_at(objective, matrices, 30, seed).distance) for seed in (1, 1, 2)]
    assert some[0] == some[1] != some[2]
    every = [
        float(measure_at(objective, matrices, samples, 1).distance) for samples in (512, 2**40)
    ]
    assert every[0] == every[1]
    assert some[0] != every[0]


def test_batches_are_limited_and_their_size_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective, matrices = field_task(laplacian, samples=7), torch.stack([J, SHEAR])
    whole = measure_at(objective, matrices, 7, 0)
    sizes: list[int] = []
    batch = objective.batch
    monkeypatch.setattr(
        objective, "batch", lambda indices: (sizes.append(len(indices)), batch(indices))[1]
    )
    for limit, expected in ((6, [3, 3, 1]), (1, [1] * 7)):  # of 2 charts each
        monkeypatch.setattr(measure, "MAX_BATCH", limit)
        sizes.clear()
        at = measure_at(objective, matrices, 7, 0)
        assert sizes == expected
        assert torch.allclose(at.distance, whole.distance, atol=1e-7)
        assert torch.allclose(at.relative_error, whole.relative_error, atol=1e-5)


def test_samples_without_a_finite_output_are_left_out() -> None:
    def root(x: Tensor) -> Tensor:
        return (x[..., :1] + 2).sqrt() * torch.ones(2)

    objective = point_task(root, out="point")
    assert not torch.isfinite(objective.batch(torch.arange(512)).reference).all()
    at = measure_at(objective, torch.stack([SHEAR, J]), 512, 0)
    for field in (at.loss, at.distance, at.relative_error):
        assert torch.isfinite(field).all()
        assert field.min() > 0
    nothing = measure_at(point_task(lambda x: x / 0, out="point"), SHEAR[None], 9, 0)
    assert (nothing.loss, nothing.distance, nothing.relative_error) == (1, 1, 1)


def test_it_can_be_broken_off_between_matrices() -> None:
    tried: list[int] = []

    def check() -> None:
        tried.append(1)
        if len(tried) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_at(point_task(complex_line, out="point"), SHEAR.expand(5, 2, 2), 9, 0, check)
    assert len(tried) == 3
