"""Lie algebra in closed form: the directions of gl(n) along which a task's linearised equivariance error is least.

``M_ab = E[⟨r_a, r_b⟩ / s] · E[s]``, ``s² = Σ_c ‖r_c‖²``, with ``r_a = d/dt [f(exp(tE_a) x) − exp(tE_a) f(x)]`` at t = 0 over an
orthonormal basis E of gl(n). Each sample counts in proportion to how strongly the prediction reacts there, and not to its square: a
function with heavy tails would else have the symmetries of its largest values. The null space of M is the Lie algebra of the symmetries (for invariant tasks LieGG, Moskalev et al. 2022, whose polarisation matrix is the factor of M).
The *spectrum* are the square roots of its eigenvalues, so that their ratios are ratios of errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..actions import Task
from ..errors import Diverged
from .state import check_finite, random_stream

STEP = 1e-5
"""Of the central differences, in float64, along unit generators."""

FLOOR = 1e-3
"""Part of the typical error below which all errors count as one: the rounding of an exact symmetry must not make gaps."""

AT_ONCE = 256
"""Samples at a time, at most."""

LOST = 0.1
"""Part of the samples that may be without a finite prediction."""


@dataclass(frozen=True)
class Spectrum:
    directions: Tensor
    """``[n², n, n]``, orthonormal, ascending by error."""
    errors: Tensor
    """``[n²]`` root mean square of the linearised error along each."""

    @property
    def typical(self) -> float:
        """Root mean square over all directions."""
        return float(self.errors.square().mean().sqrt())

    def within(self, frame: Tensor) -> Tensor:
        """The principal directions of the span of ``frame [k, n, n]``, orthonormal: ``[k, n, n]``, ascending."""
        flat = self.directions.flatten(1).double()
        form = flat.T @ torch.diag(self.errors.square()) @ flat
        f = frame.flatten(1).double()
        vectors = torch.linalg.eigh(f @ form @ f.T).eigenvectors
        principal: Tensor = (vectors.T @ f).unflatten(1, frame.shape[1:])
        return principal.to(frame)


@torch.no_grad()
def linearised_spectrum(task: Task, samples: int, seed: int, *, weighted: bool = True) -> Spectrum:
    """Of ``samples`` of the task's data on all charts; ``weighted`` False: the plain root mean square, ``M_ab = E⟨r_a, r_b⟩``.

    Raises ``Diverged`` when the prediction is not finite on more than a tenth of them.
    """
    task.refresh()
    n = task.n
    basis = torch.eye(n * n, dtype=torch.float64).unflatten(1, (n, n))
    order = torch.randperm(task.samples, generator=random_stream(seed, 92))[:samples]
    form, size, used = torch.zeros(n * n, n * n, dtype=torch.float64), 0.0, 0
    lost = 0
    for indices in order.split(max(1, min(AT_ONCE, task.at_once))):
        r = task.response(indices, basis, STEP).cpu()
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
            f"the prediction is not finite for {lost} of {lost + used} samples",
            remedy="look at it where it is defined, or change the function",
        )
    form *= size / max(used, 1) ** 2
    check_finite(form, "the linearised equivariance error")
    values, vectors = torch.linalg.eigh(form)
    return Spectrum(vectors.T.unflatten(1, (n, n)).float(), values.clamp(min=0).sqrt())


def gaps(spectrum: Spectrum) -> Tensor:
    """``[n² + 1]``: entry k is by what factor the error grows from the k-th direction to the next. The first, for no symmetry at
    all, and the last, for gl(n), are 1."""
    errors = spectrum.errors.clamp(min=max(spectrum.typical, 1e-300) * FLOOR)
    ratios = errors[1:] / errors[:-1]
    one = torch.ones(1, dtype=ratios.dtype)
    return torch.cat([one, ratios, one])


def count(spectrum: Spectrum, relative: Tensor, threshold: float, gap: float) -> tuple[int, str]:
    """How many of the directions are symmetries, and why.

    ``relative [n²]``: each direction's relative error at finite size (see ``measure``). The k symmetries must have one of at most
    ``threshold`` each, and the linearised error must grow by the factor ``gap`` or more right after them; of several such k, the one
    with the largest gap. A task that nothing moves has all of gl(n).
    """
    everything = len(relative)
    if spectrum.typical == 0:
        return everything, "the prediction never changes: every direction is a symmetry"
    factors = gaps(spectrum)
    most = int((relative <= threshold).long().cumprod(0).sum())
    if most == everything:
        return everything, f"all directions have a relative error of at most {threshold:g}"
    candidates = [k for k in range(1, most + 1) if float(factors[k]) >= gap]
    if not candidates:
        return 0, (
            f"no gap: {most} direction{'' if most == 1 else 's'} with a relative error of at most {threshold:g}, but the error nowhere grows by a "
            f"factor of {gap:g} after them"
            if most
            else f"no direction has a relative error of at most {threshold:g} (least: {float(relative.min()):.3f})"
        )
    best = max(candidates, key=lambda k: float(factors[k]))
    return (
        best,
        f"the error grows {float(factors[best]):.3g}-fold after the first {best}, the largest gap of the spectrum",
    )
