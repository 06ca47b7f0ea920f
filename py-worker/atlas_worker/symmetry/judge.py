"""Is a matrix a symmetry? The one test that searches and closures of components share."""

from __future__ import annotations

import torch
from torch import Tensor

from . import Batch, Objective

Known = dict[tuple[bytes, int], Tensor]
"""What was measured of matrices, by their bytes, on the first so many of the same batches."""


def measure_matrices(
    objective: Objective,
    batches: list[Batch],
    matrices: Tensor,
    *,
    floor: bool = False,
    known: Known | None = None,
) -> Tensor:
    """Measure every matrix on the same batches.

    Args:
        objective: The objective.
        batches: The batches.
        matrices: ``[m, n, n]``.
        floor: Measure the noise floor too, which takes a second prediction; otherwise it is 0.
        known: What was measured before, without the noise floor; new matrices are added.

    Returns:
        ``[4, m]``: mean loss, distance, displacement and noise floor.
    """
    rows = []
    for m in matrices:
        key = m.cpu().numpy().tobytes(), len(batches)
        if known is not None and not floor and key in known:
            rows.append(known[key])
            continue
        errors = [objective.errors(b, m.expand(*b.shape, -1, -1), floor=floor) for b in batches]
        means = [
            [t.mean() for t in (e.loss, e.distance, e.displacement, e.noise_floor)] for e in errors
        ]
        rows.append(torch.stack([torch.stack(m) for m in means]).mean(0))
        if known is not None and not floor:
            known[key] = rows[-1]
    return torch.stack(rows, 1)


def motions(
    objective: Objective,
    batches: list[Batch],
    candidates: Tensor,
    displacement: Tensor,
    drawn: Tensor,
    known: Known | None = None,
) -> Tensor:
    """Compute the displacements with which distances are compared (METHOD 2.6).

    They are those of the candidates, or the median of random matrices' if that is larger. The
    first batch is enough for the median, since the random matrices differ by far more. In a
    product of groups the factor that moves the outputs least decides. Beside one that moves them
    far, its errors would look small.

    Args:
        objective: The objective.
        batches: The batches to measure on.
        candidates: ``[m, n, n]``, in the space's coordinates.
        displacement: Displacements of the candidates, ``[m]``.
        drawn: Random matrices of the group, likewise.
        known: See :func:`measure_matrices`.

    Returns:
        ``[m]``.
    """
    space = objective.space
    ambient = space.ambient
    if len(ambient.factors) == 1:
        moved = measure_matrices(objective, batches[:1], space.outward(drawn), known=known)[2]
        typical = float(moved.median())
        return displacement.clamp(min=typical).clamp(min=1e-30)
    found = []
    for factor in ambient.factors:
        alone = space.outward(ambient.alone(candidates, factor.name))
        typically = space.outward(ambient.alone(drawn, factor.name))
        moved = measure_matrices(objective, batches, alone, known=known)[2]
        beside = measure_matrices(objective, batches[:1], typically, known=known)[2]
        found.append(moved.clamp(min=float(beside.median())))
    return torch.stack(found).min(0).values.clamp(min=1e-30)


def are_symmetries(
    objective: Objective,
    batches: list[Batch],
    matrices: Tensor,
    errors: Tensor,
    threshold: float,
) -> tuple[list[bool], list[bool]]:
    """Tell which matrices are symmetries.

    Args:
        objective: The objective.
        batches: The batches on which the errors were measured.
        matrices: ``[m, n, n]``.
        errors: Their relative errors ``[m]``.
        threshold: Largest relative error of a symmetry.

    Returns:
        Whether each matrix is a symmetry, and whether it keeps the data inside their support.
    """
    stays = torch.stack([objective.stays_in_support(b, matrices) for b in batches])
    inside: list[bool] = stays.any(0).tolist()
    good = [float(e) <= threshold and s for e, s in zip(errors, inside, strict=True)]
    return good, inside
