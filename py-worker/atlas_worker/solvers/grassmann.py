"""Lie algebra by the equivariance loss alone over orthonormal frames (METHOD 2.3), and the report that all algebra solvers share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import lie
from ..actions import Batch, Task
from ..errors import InvalidInput
from ..registry import param, register
from ..roles import AlgebraReport, SpectrumEntry
from ..trainable import StepCallback
from .descent import Descent
from .measure import draw_batch, draw_coefficients, measure, principal_frame, relative_errors
from .state import check_finite, random_stream, restore

EVALUATION_BATCHES = 4


@dataclass(frozen=True)
class GrassmannParams:
    starts: int = param(
        6,
        "Random starts, all in one batch; the worse half is dropped after each epoch",
        minimum=1,
        maximum=256,
    )
    steps: int = param(60, "Steps in an epoch", minimum=1)
    batch_size: int = param(4, "Samples a step", minimum=1)
    charts: int = param(6, "Charts a step, drawn at random", minimum=1)
    learning_rate: float = param(0.1, "Adam's, falling to 1 % of it by a cosine", minimum=0)
    scale: float = param(1.0, "Standard deviation of η along a unit generator", minimum=1e-3, maximum=10)
    threshold: float = param(
        0.15, "Relative error up to which a generator counts as a symmetry", minimum=0, maximum=1
    )
    evaluation: int = param(8, "Samples in each batch of the final evaluation, on every chart", minimum=1)


def check_k(k: int, n: int) -> None:
    """Raise ``InvalidInput`` unless ``1 <= k <= n²``."""
    if not 1 <= k <= n * n:
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
) -> AlgebraReport:
    """Measure what was learnt: every generator, and the spectrum over an orthonormal basis of gl(n) that begins with their span.

    ``generators [k, n, n]`` are reported as they are, never replaced by anything nicer.
    """
    batches = evaluation_batches(task, samples, seed)
    frame = lie.frame(generators)
    everything = torch.cat([frame, lie.complement(frame)])
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
    return AlgebraReport(
        generators=generators,
        losses=losses.tolist(),
        relative_errors=errors.tolist(),
        noise_floor=float(along.resampling[order][: max(found, 1)].mean()),
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
    near an obstacle) is not let drown those that are.
    """

    kind = "grassmann"

    def __init__(self, params: GrassmannParams, *, task: Task, k: int, epochs: int, seed: int) -> None:
        check_k(k, task.n)
        self._p, self._task, self._k, self._seed = params, task, k, seed
        draws = torch.randn(params.starts, k, task.n, task.n, generator=random_stream(seed, 0))
        super().__init__(lie.frame(draws), params.learning_rate, epochs)
        self._scores = torch.full((params.starts,), math.inf)

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """``steps`` steps of Adam, then the starts are compared on fresh data; returns the best one's ``loss``."""
        p, task = self._p, self._task
        task.refresh()
        generator = random_stream(self._seed, 1, self._epoch)
        for i in range(p.steps):
            self._anneal(i / p.steps)
            batch = draw_batch(task, generator, p.batch_size, p.charts)
            eta = draw_coefficients(batch, generator, self._k, p.scale)
            per_chart = self._losses(batch, lie.frame(self._free), eta)
            self._step(per_chart.clamp(min=1e-12).log().mean(1).sum())
            on_step(i + 1, p.steps, {"loss": float(per_chart.detach().mean(1).min())} if i % 4 == 0 else {})
        check_finite(self._free.detach(), "the generators")
        self._compare()
        self._epoch += 1
        return {"loss": float(self._scores[0]), "starts": float(len(self._scores))}

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
        return self._task.loss(batch, lie.expm(lie.combine(frames[:, None, None], eta))).mean(1)

    def report(self) -> AlgebraReport:
        p, best = self._p, lie.frame(self._free.detach())[0]
        starts = [s for s in self._scores.tolist() if math.isfinite(s)]
        batches = evaluation_batches(self._task, p.evaluation, self._seed)
        best = principal_frame(self._task, batches, best, p.scale, self._seed)
        return report_algebra(self._task, best, starts, p.scale, p.threshold, p.evaluation, self._seed)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors, metadata = super().state()
        return {**tensors, "scores": self._scores.clone()}, metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        starts = len(tensors["free"]) if "free" in tensors else 0  # it falls from epoch to epoch
        scores = restore(tensors, "scores", torch.zeros(starts))
        self._load(tensors, metadata, torch.zeros(starts, self._k, self._task.n, self._task.n))
        self._scores = scores
