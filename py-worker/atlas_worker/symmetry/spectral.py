"""The Lie algebra in closed form, from the linearised equivariance error (METHOD 2.7).

For an orthonormal basis E of gl(n), or of a subspace in which the algebra is sought, let ``r_a =
d/dt [f(exp(tE_a) x) − exp(tE_a) f(x)]`` at t = 0. Then ``M_ab = E[⟨r_a, r_b⟩ / s] · E[s]`` with
``s² = Σ_c ‖r_c‖²``. Each sample counts in proportion to how strongly the prediction reacts, and not
to its square. Otherwise a function with heavy tails would have the symmetries of its largest
values.

The null space of M is the Lie algebra of the symmetries. For invariant tasks this is LieGG
(Moskalev et al. 2022), whose polarisation matrix is a factor of M. The *spectrum* consists of the
square roots of the eigenvalues of M, so that their ratios are ratios of errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpointing import check_finite
from ..errors import Diverged
from ..rng import random_stream
from . import Objective, Space

STEP = 1e-5
"""Half width of the central differences along unit generators, in float64."""

FLOOR = 1e-3
"""Fraction of the typical error below which errors count as equal: rounding must make no gaps."""

MAX_BATCH = 256
"""Largest number of samples at a time."""

LEAST_DISPLACED = 1e-6
"""Squared displacement of a direction that is counted at least, relative to those of its parts."""

LOST = 0.1
"""Largest fraction of samples whose prediction may be NaN or infinite."""


@dataclass(frozen=True)
class Spectrum:
    """Directions of gl(n), or of a subspace of dimension d, with their linearised errors."""

    directions: Tensor
    """``[d, n, n]`` of unit length, ascending by error; d = n² for gl(n). Orthonormal, if not said
    otherwise."""
    errors: Tensor
    """``[d]``, root mean square of the linearised error along each direction."""
    form: Tensor | None = None
    """``[d, d]`` float64, whose value at an element, in the basis of the space, is the squared
    error along it."""

    def per_displacement(self, metric: Tensor, space: Space) -> Spectrum:
        """Return the directions that are independent in both error and displacement.

        A direction that hardly moves the data has a small error without being a symmetry, as
        ``B = a wᵀ`` where ``w·x`` is nearly 0. Relative to how far the data move, it has a large
        one.

        Args:
            metric: ``[d, d]``, whose value at an element is the mean squared displacement of the
                data, per unit of their spread (:func:`.finite_moves.displacements`).
            space: The space in which the directions are orthonormal.

        Returns:
            Directions of unit length, ascending by the error at a displacement of 1. They are
            orthogonal in the metric, and not in the space.
        """
        if self.form is None:
            raise ValueError("the form of the errors is not known")
        # Each element of the basis in units of its own displacement, so that no unit matters.
        unit = metric.diagonal().clamp(min=1e-30 * float(metric.diagonal().max())).sqrt()
        floor = LEAST_DISPLACED * torch.eye(len(metric), dtype=metric.dtype)
        inverse = torch.linalg.inv(torch.linalg.cholesky(metric / unit[:, None] / unit + floor))
        form = self.form / unit[:, None] / unit
        values, vectors = torch.linalg.eigh(inverse @ form @ inverse.T)
        found = space.lift((vectors.T @ inverse / unit).reshape(-1, *space.shape))
        unit_length = found / space.norms(found)[:, None, None]
        return Spectrum(unit_length.float(), values.clamp(min=0).sqrt())

    @property
    def typical(self) -> float:
        """Root mean square of the errors of all directions."""
        return float(self.errors.square().mean().sqrt())

    def within(self, frame: Tensor, space: Space | None = None) -> Tensor:
        """Return the principal directions ``[k, n, n]`` of the span of a frame.

        Args:
            frame: An orthonormal frame ``[k, n, n]``.
            space: The space in which the frame is orthonormal; None for gl(n).

        Returns:
            An orthonormal frame of the same span, ascending by error.
        """
        directions, free = self.directions, frame
        if space is not None:
            directions, free = space.free(directions), space.free(frame)
        flat = directions.flatten(1).double()
        form = flat.T @ torch.diag(self.errors.square()) @ flat
        f = free.flatten(1).double()
        vectors = torch.linalg.eigh(f @ form @ f.T).eigenvectors
        principal = (vectors.T @ f).unflatten(1, free.shape[1:]).to(frame)
        return principal if space is None else space.lift(principal)


@torch.no_grad()
def linearised_spectrum(
    objective: Objective,
    samples: int,
    seed: int,
    *,
    weighted: bool = True,
    space: Space | None = None,
) -> Spectrum:
    """Compute the spectrum of a predictor's linearised equivariance error.

    Args:
        objective: The objective.
        samples: Number of samples, each on all charts.
        seed: Seed of the choice of samples.
        weighted: Weight samples by ``1/s``. False gives the plain ``M_ab = E⟨r_a, r_b⟩``.
        space: Where to look; None for the objective's own space.

    Returns:
        The spectrum.

    Raises:
        Diverged: The prediction is NaN or infinite for more than a tenth of the samples.
    """
    objective.refresh()
    space = space or objective.space
    basis, d = space.basis, space.dimension
    order = torch.randperm(objective.samples, generator=random_stream(seed, 92))[:samples]
    form, size, used = torch.zeros(d, d, dtype=torch.float64), 0.0, 0
    lost = 0
    for indices in order.split(max(1, min(MAX_BATCH, objective.max_batch))):
        r = objective.response(indices, basis, STEP).cpu()
        squares = r.square().sum((0, 2))
        finite = torch.isfinite(squares)
        lost += int((~finite).sum())
        alive = finite & (squares > 0) if weighted else finite
        r, squares = r[:, alive] / r.shape[2] ** 0.5, squares[alive] / r.shape[2]
        weight = squares.sqrt() if weighted else torch.ones_like(squares)
        unit = r / weight.sqrt()[:, None]
        form += unit.flatten(1) @ unit.flatten(1).T
        size, used = size + float(weight.sum()), used + len(squares)
    if lost > LOST * (lost + used):
        raise Diverged(
            f"the prediction is NaN or infinite for {lost} of {lost + used} samples",
            remedy="give samples for which the function is defined, or change the function",
        )
    form *= size / max(used, 1) ** 2
    check_finite(form, "the linearised equivariance error")
    values, vectors = torch.linalg.eigh(form)
    directions = torch.einsum("ab,bij->aij", vectors.T, basis)
    return Spectrum(directions.float(), values.clamp(min=0).sqrt(), form)


def gaps(spectrum: Spectrum) -> Tensor:
    """Compute the factors by which the error grows along the spectrum.

    Returns:
        ``[d + 1]``: entry k is the factor from the k-th direction to the next. The first entry (no
        symmetry) and the last (the whole space) are 1.
    """
    errors = spectrum.errors.clamp(min=max(spectrum.typical, 1e-300) * FLOOR)
    ratios = errors[1:] / errors[:-1]
    one = torch.ones(1, dtype=ratios.dtype)
    return torch.cat([one, ratios, one])


def count(
    spectrum: Spectrum,
    relative: Tensor,
    threshold: float,
    gap: float,
    *,
    moved: bool | None = None,
    proposed: float = 0,
) -> tuple[int, str]:
    """Decide how many of the directions are symmetries, and say why (METHOD 2.7).

    A number k is possible if the first k directions have relative errors of at most ``threshold``
    and the linearised error grows by a factor of at least ``gap`` after them. The k with the
    largest factor is chosen. If nothing moves the prediction, the answer is n². If it moves, but no
    derivative shows it, there is no answer. (n² is d in a subspace of dimension d.)

    Args:
        spectrum: The spectrum.
        relative: ``[d]``, relative error of each direction at finite size (see ``measure``).
        threshold: Largest relative error of a symmetry.
        gap: Smallest factor.
        moved: Whether some direction moves the prediction at finite size; None: as the spectrum
            tells.
        proposed: Largest relative error of a direction that is judged by more than this error
            afterwards; at least ``threshold`` counts. Nothing but ``threshold`` makes all
            directions symmetries where the spectrum has a gap.

    Returns:
        The number of symmetries, and the reason in words.
    """
    everything = len(relative)
    all_within = bool((relative <= threshold).all())
    threshold = max(threshold, proposed)
    if not (spectrum.typical > 0 if moved is None else moved):
        return everything, "the prediction never changes: every direction is a symmetry"
    if spectrum.typical == 0:
        return 0, (
            "the prediction changes, but its derivatives are zero: it changes in jumps, "
            "which this search cannot follow"
        )
    factors = gaps(spectrum)
    most = int((relative <= threshold).long().cumprod(0).sum())
    last = min(most, everything - 1)
    candidates = [k for k in range(1, last + 1) if float(factors[k]) >= gap]
    if most == everything and (all_within or not candidates):
        return everything, f"all directions have a relative error of at most {threshold:g}"
    if not candidates:
        if not most and float(relative.min()) > threshold:
            return 0, (
                f"no direction has a relative error of at most {threshold:g} "
                f"(least: {float(relative.min()):.3f})"
            )
        if not most:
            return 0, (
                f"the direction of the least linearised error has a relative error of "
                f"{float(relative[0]):.3f}, more than {threshold:g}; a direction with less "
                f"({float(relative.min()):.3f}) has a larger linearised error"
            )
        plural = "" if most == 1 else "s"
        return 0, (
            f"no gap: {most} direction{plural} with a relative error of at most {threshold:g}, "
            f"but the error nowhere grows by a factor of {gap:g} after them"
        )
    best = max(candidates, key=lambda k: float(factors[k]))
    return (
        best,
        f"the error grows {float(factors[best]):.3g}-fold after the first {best}, "
        "the largest gap of the spectrum",
    )
