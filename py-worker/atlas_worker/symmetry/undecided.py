"""Directions of gl(n) about which sets of vectors decide nothing (METHOD 2.12).

They satisfy the condition of a symmetry without being one:

- **Free**: ``B = a wᵀ`` with ``w·x = 0`` on all data. Then ``Bx = 0``, and nothing is moved.
- **Leading out**: where there are such w, matrices B with ``wᵀB ≠ 0`` move the data to where there
  are none, so what the predictor says there means nothing.
- **Inert**: ``B = a wᵀ`` where an invariant output does not depend on the direction a.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..rng import random_stream
from .objective import EquivarianceObjective
from .space import Space

SPREAD = 0.01
"""Size of ``w·x`` below which it counts as 0, relative to the data's spread."""
SENSITIVITY = 0.05
"""Slope along a below which a direction is tried as inert, relative to the largest."""
CHANGE = 1e-3
"""Share of the output's variance that a step along an inert direction may cost."""
SAMPLES = 512
"""Samples that are looked at."""
STEP = 1e-5
"""Half width of the central differences, in float64."""


@dataclass(frozen=True)
class Undecided:
    """Vectors that make directions ``a wᵀ``; each is orthonormal ``[…, n]`` float64."""

    free: Tensor
    """All w of free directions."""
    inert: Tensor
    """All a of inert directions."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of directions that are free; else lead out; else are inert."""
        n, free = self.free.shape[1], len(self.free)
        return n * free, (n - free) * free, len(self.inert) * (n - free)

    def rest(self, space: Space) -> Space:
        """Return what is left of gl(n): all B with ``Bw = 0``, ``wᵀB = 0`` and ``aᵀB = 0``."""
        n = space.n
        right, rest = (torch.eye(n).double() - v.T @ v for v in (self.free, self.inert))
        left = rest @ right
        basis = torch.eye(n * n, dtype=torch.float64).unflatten(1, (n, n))
        _, values, vectors = torch.linalg.svd((left @ basis @ right).flatten(1))
        kept = vectors[: int((values > 0.5).sum())].unflatten(1, (n, n))
        return Space(space.ambient, space.coordinates, kept)


@torch.no_grad()
def find_undecided(objective: EquivarianceObjective, seed: int) -> Undecided:
    """Find the directions about which the data decide nothing.

    Args:
        objective: The predictor's equivariance, on all of gl(n).
        seed: Seed of the choice of samples.

    Returns:
        The directions.
    """
    n = objective.n
    order = torch.randperm(objective.samples, generator=random_stream(seed, 95))[:SAMPLES]
    basis = torch.eye(n * n, dtype=torch.float64).unflatten(1, (n, n))
    none = torch.zeros(0, n, dtype=torch.float64)
    motion = objective.motion(order, basis, STEP)
    if motion is None:
        return Undecided(none, none)
    # Over all rows a, the motion along e_a wᵀ is the size of w·x.
    moved = motion.flatten(1).unflatten(0, (n, n))
    second = torch.einsum("abs,acs->bc", moved, moved) / (n * len(order))
    unit = second.diagonal().clamp(min=1e-30 * float(second.diagonal().max())).sqrt()
    values, vectors = torch.linalg.eigh(second / unit[:, None] / unit)
    small = values < SPREAD**2 * values[-1]
    free = orthonormal_rows(vectors[:, small].T / unit)
    if not objective.invariant or len(free) == n:
        return Undecided(free, none)
    slopes = objective.response(order, basis, STEP).cpu().flatten(1).unflatten(0, (n, n))
    slopes = slopes.nan_to_num(0.0, 0.0, 0.0) * unit[:, None, None] / unit[:, None]
    span = vectors[:, ~small]  # inert directions are sought where data are
    form = span.T @ torch.einsum("abs,cbs->ac", slopes, slopes) @ span
    values, vectors = torch.linalg.eigh(form)
    steps = (span @ vectors[:, values < SENSITIVITY**2 * values[-1]]).T * unit
    kept = [a for a in steps if objective.change_along(order, a, seed) <= CHANGE]
    return Undecided(free, orthonormal_rows(torch.stack(kept)) if kept else none)


def orthonormal_rows(vectors: Tensor) -> Tensor:
    """Return an orthonormal basis ``[k, n]`` of the span of independent vectors ``[k, n]``."""
    return torch.linalg.qr(vectors.T)[0].T if len(vectors) else vectors


def explain(undecided: Undecided, n: int) -> str:
    """Say what was left out, in words; empty if nothing was."""
    free, out, inert = undecided.counts
    said = []
    if free:
        said.append(f"{free} of {n * n} directions are free (they move no data)")
        said.append(f"{out} lead out of the subspace of the data")
    if inert:
        said.append(f"{inert} are inert (the output ignores where they lead)")
    return f"left out: {', '.join(said)}" if said else ""
