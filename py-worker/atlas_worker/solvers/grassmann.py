"""Lie algebra by the equivariance loss alone over orthonormal frames (METHOD 2.3), and the report that all algebra solvers share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import lie
from ..actions import Batch, Task
from ..errors import InvalidInput
from ..registry import param, register
from ..roles import AlgebraReport, SpectrumEntry
from ..trainable import StepCallback
from .descent import Descent
from .measure import (
    draw_batch,
    draw_coefficients,
    measure,
    principal_frame,
    relative_errors,
)
from .spectral import Spectrum, count, linearised_spectrum
from .state import check_finite, random_stream, restore

EVALUATION_BATCHES = 4

SPECTRUM = 1024
"""Samples of the linearised spectrum."""


@dataclass(frozen=True)
class GrassmannParams:
    starts: int = param(
        6,
        "Random starts, all in one batch; the worse half is dropped after each epoch",
        minimum=1,
        maximum=256,
    )
    steps: int = param(60, "Steps in an epoch; 0 to keep a spectral start as it is", minimum=0)
    batch_size: int = param(4, "Samples a step", minimum=1)
    charts: int = param(6, "Charts a step, drawn at random", minimum=1)
    learning_rate: float = param(0.1, "Adam's, falling to 1 % of it by a cosine", minimum=0)
    scale: float = param(1.0, "Standard deviation of η along a unit generator", minimum=1e-3, maximum=10)
    compare: Literal["loss", "distance"] = param(
        "loss",
        "What is minimised: the predictor's loss, or the distance of class probabilities, which the places where a predictor is sure and wrong do not rule",
    )
    threshold: float = param(
        0.15, "Relative error up to which a generator counts as a symmetry", minimum=0, maximum=1
    )
    evaluation: int = param(8, "Samples in each batch of the final evaluation, on every chart", minimum=1)
    start: Literal["random", "spectral"] = param(
        "random", "From random frames, or from the linearised error's least directions (one start)"
    )
    standard_basis: bool = param(
        False, "Report a sparse basis of the same span, disjoint where that is possible"
    )
    gap: float = param(
        2.0, "k = 0: factor by which the error must grow after the last of the symmetries", minimum=1
    )


def check_k(k: int, n: int, least: int = 1) -> None:
    """Raise ``InvalidInput`` unless ``1 <= k <= n²`` (or 0, where the number is to be found)."""
    if not least <= k <= n * n:
        raise InvalidInput(
            f"k is {k}", "algebra.k", f"from 1 to {n * n}, the dimension of gl({n})", "choose another k"
        )


def evaluation_batches(task: Task, samples: int, seed: int) -> list[Batch]:
    """What a report is measured on: the predictor as it is now, on every chart."""
    task.refresh()
    generator = random_stream(seed, 91)
    return [draw_batch(task, generator, samples, task.charts) for _ in range(EVALUATION_BATCHES)]


def report_algebra(
    task: Task,
    generators: Tensor,
    starts: list[float],
    scale: float,
    threshold: float,
    samples: int,
    seed: int,
    rest: Tensor | None = None,
    reason: str = "",
) -> AlgebraReport:
    """Measure what was learnt: every generator, and the spectrum over an orthonormal basis of gl(n) that begins with their span.

    ``generators [k, n, n]`` are reported as they are, never replaced by anything nicer. ``rest``: an orthonormal basis of their
    complement (None: any). ``reason``: why there are k of them, when that was found and not given.
    """
    batches = evaluation_batches(task, samples, seed)
    frame = lie.frame(generators)
    everything = torch.cat([frame, lie.complement(frame) if rest is None else rest])
    spectrum = measure(task, batches, everything, scale, seed)
    unit = generators / generators.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None, None]
    along = measure(task, batches, unit, scale, seed)
    typical = float(spectrum.motion.mean())
    errors = relative_errors(along, typical)
    spectrum_errors = relative_errors(spectrum, typical)
    good = errors <= threshold
    order = torch.argsort(errors)
    generators, errors, losses = generators[order], errors[order], along.loss[order]
    found = int(good.sum())
    ranked = torch.argsort(spectrum_errors)
    rest = spectrum_errors[len(frame) :]
    others = f"; other directions: {float(rest.min()):.3f} to {float(rest.max()):.3f}" if len(rest) else ""
    listed = ", ".join(f"{float(e):.3f}" for e in errors)
    verdict = (
        f"{found} of {len(generators)} generators have a relative equivariance error of at most {threshold:g} ({listed}{others})"
        if found
        else f"no direction has a relative equivariance error of at most {threshold:g} (best found: {listed}{others})"
    )
    if reason:
        verdict = f"{reason}; {verdict}" if len(generators) else reason
    return AlgebraReport(
        generators=generators,
        losses=losses.tolist(),
        relative_errors=errors.tolist(),
        noise_floor=float(along.floor[order][: max(found, 1)].mean()) if len(generators) else 0.0,
        found=found,
        spectrum=[
            SpectrumEntry(everything[i], float(spectrum.loss[i]), float(spectrum_errors[i]))
            for i in ranked.tolist()
        ],
        start_losses=sorted(starts),
        verdict=verdict,
    )


@register(
    "algebra_solver",
    "grassmann",
    "Equivariance loss over orthonormal frames, several starts",
    GrassmannParams,
)
class GrassmannSolver(Descent):
    """Minimise ``Σ_c log E[L(f_c(gx), g f_c(x))]``, ``g = exp(Σ η_i B_i)``, over orthonormal frames ``B [k, n, n]``.

    The frame is the Gram-Schmidt of free matrices, so scale and mutual angles need no regularisers. The logarithm makes it the
    maximum-likelihood fit when charts differ in how well they can be predicted: a chart that is not symmetric itself (one
    near an obstacle) is not let drown those that are. With k = n² there is nothing to search, and what is reported is measured.
    """

    kind = "grassmann"

    def __init__(self, params: GrassmannParams, *, task: Task, k: int, epochs: int, seed: int) -> None:
        check_k(k, task.n, 0)
        self._p, self._task, self._asked, self._seed = params, task, k, seed
        self._spectrum: Spectrum | None = None
        self._reason = ""
        super().__init__(self._draws(k), params.learning_rate, epochs)
        self._scores = torch.full((len(self._free),), math.inf)

    @property
    def _k(self) -> int:
        return self._free.shape[1]

    def _draws(self, k: int) -> Tensor:
        """Random frames to start from: ``[starts, k, n, n]``."""
        n, seed = self._task.n, random_stream(self._seed, 0)
        starts = 1 if k == n * n else self._p.starts
        return lie.frame(torch.randn(starts, k, n, n, generator=seed))

    def _linearised(self) -> Spectrum:
        """Of the predictor as it was first looked at; computed once, and again after a resume."""
        if self._spectrum is None:
            self._spectrum = linearised_spectrum(self._task, SPECTRUM, self._seed)
        return self._spectrum

    def _count(self) -> tuple[int, str]:
        """How many generators there are, and why."""
        p, spectrum = self._p, self._linearised()
        batches = evaluation_batches(self._task, p.evaluation, self._seed)
        along = measure(self._task, batches, spectrum.directions, p.scale, self._seed)
        errors = relative_errors(along, float(along.motion.mean()))
        return count(spectrum, errors, p.threshold, p.gap)

    def _begin(self) -> None:
        """What needs the trained predictor: the number of generators, and a start near the answer."""
        k = self._asked
        if k == 0:
            k, self._reason = self._count()
        if self._p.start == "spectral":
            self._set(self._linearised().directions[None, :k])
        elif self._asked == 0:
            self._set(self._draws(k))
        self._scores = torch.full((len(self._free),), math.inf)

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """``steps`` steps of Adam, then the starts are compared on fresh data; returns the best one's ``loss``."""
        p, task = self._p, self._task
        task.refresh()
        if self._epoch == 0:
            self._begin()
        if self._k == 0:
            self._epoch += 1
            on_step(1, 1, {})
            return {"generators": 0.0}
        generator = random_stream(self._seed, 1, self._epoch)
        steps = p.steps if self._k < task.n**2 else 0  # every frame spans all of gl(n)
        for i in range(steps):
            self._anneal(i / steps)
            batch = draw_batch(task, generator, p.batch_size, p.charts)
            eta = draw_coefficients(batch, generator, self._k, p.scale)
            per_chart = self._losses(batch, lie.frame(self._free), eta)
            self._step(per_chart.clamp(min=1e-12).log().mean(1))
            on_step(i + 1, steps, {"loss": float(per_chart.detach().mean(1).min())} if i % 4 == 0 else {})
        check_finite(self._free.detach(), "the generators")
        self._compare()
        self._epoch += 1
        found = {"generators": float(self._k)} if self._asked == 0 else {"starts": float(len(self._scores))}
        return {"loss": float(self._scores[0]), **found}

    @torch.no_grad()
    def _compare(self) -> None:
        """Rank the starts on one batch of fresh data; keep the better half (at least two, while there are two)."""
        generator = random_stream(self._seed, 2, self._epoch)
        scores = torch.zeros(len(self._free))
        for _ in range(EVALUATION_BATCHES):
            batch = draw_batch(self._task, generator, self._p.evaluation, self._task.charts)
            eta = draw_coefficients(batch, generator, self._k, self._p.scale)
            for s, frame in enumerate(lie.frame(self._free)):
                scores[s] += self._losses(batch, frame[None], eta)[0].clamp(min=1e-12).log().mean()
        check_finite(scores, "the equivariance loss")
        order = torch.argsort(scores)[: max(len(scores) // 2, min(2, len(scores)))]
        self._scores = (scores[order] / EVALUATION_BATCHES).exp()
        adam = {
            name: value if name == "step" else value[order]
            for name, value in self._adam.state[self._free].items()
        }
        self._set(self._free[order], adam)

    def _losses(self, batch: Batch, frames: Tensor, eta: Tensor) -> Tensor:
        """``[S, C]``: the loss of frames ``[S, k, n, n]`` on every chart, mean over samples."""
        compare = self._task.loss if self._p.compare == "loss" else self._task.distance
        return compare(batch, lie.expm(lie.combine(frames[:, None, None], eta))).mean(1)

    def report(self) -> AlgebraReport:
        p, best = self._p, lie.frame(self._free.detach())[0]
        starts = [s for s in self._scores.tolist() if math.isfinite(s)]
        rest: Tensor | None = None
        if self._asked == 0 or p.start == "spectral":
            rest = self._linearised().within(lie.complement(best))
            if self._asked == 0 and not self._reason:
                self._reason = self._count()[1]  # after a resume
        batches = evaluation_batches(self._task, p.evaluation, self._seed)
        best = (
            lie.sparse_basis(best)
            if p.standard_basis
            else principal_frame(self._task, batches, best, p.scale, self._seed)
        )
        return report_algebra(
            self._task, best, starts, p.scale, p.threshold, p.evaluation, self._seed, rest, self._reason
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors, metadata = super().state()
        return {**tensors, "scores": self._scores.clone()}, metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        # Starts fall from epoch to epoch, and the number of generators may have been found.
        starts, k = tensors["free"].shape[:2] if "free" in tensors and tensors["free"].dim() == 4 else (0, 0)
        k = k if self._asked == 0 else self._asked
        scores = restore(tensors, "scores", torch.zeros(starts))
        self._load(tensors, metadata, torch.zeros(starts, k, self._task.n, self._task.n))
        self._scores = scores
