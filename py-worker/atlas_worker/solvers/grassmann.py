"""Lie algebra from the equivariance loss alone, over orthonormal frames (METHOD 2.3).

This module also makes the report that all algebra solvers share (METHOD 2.6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..catalogue import param, register
from ..checkpointing import check_finite, restore
from ..errors import InvalidInput
from ..interfaces import AlgebraReport, SpectrumEntry
from ..rng import random_stream
from ..symmetry import Batch, Objective, Space, lie
from ..symmetry.finite_moves import (
    ITERATIONS,
    completed,
    derived_parts,
    largest,
    refine,
    spread_metric,
)
from ..symmetry.measure import (
    ROUNDING,
    draw_batch,
    draw_coefficients,
    mean_size,
    measure,
    principal_frame,
    relative_errors,
    typical_displacement,
)
from ..symmetry.newton import LAST, VIEWS, frame_problem, minimise, phases
from ..symmetry.objective import EquivarianceObjective
from ..symmetry.spectral import Spectrum, count, linearised_spectrum
from ..symmetry.undecided import explain, find_undecided
from ..trainable import StepCallback
from .adam import AdamSolver

EVALUATION_BATCHES = 4
"""Batches on which frames are compared and measured."""

SPECTRUM = 1024
"""Samples from which the linearised spectrum is computed."""


@dataclass(frozen=True)
class GrassmannParams:
    """Parameters of the solver ``grassmann`` (METHOD 2.3)."""

    starts: int = param(
        6,
        "Number of random starts; the worse half is dropped after each epoch",
        minimum=1,
        maximum=256,
    )
    steps: int = param(
        60, "Steps of Adam in an epoch; 0 keeps a spectral start unchanged", minimum=0
    )
    batch_size: int = param(4, "Samples in each step", minimum=1)
    charts: int = param(6, "Charts in each step, drawn at random", minimum=1)
    learning_rate: float = param(
        0.1, "Learning rate of Adam; falls along a cosine to 1 % of this value", minimum=0
    )
    scale: float = param(
        1.0,
        "Standard deviation of the tried transformations",
        minimum=1e-3,
        maximum=10,
    )
    compare: Literal["loss", "distance"] = param(
        "loss",
        "Minimise the predictor's loss, or the distance of class probabilities, "
        "in which confident mistakes weigh less",
    )
    threshold: float = param(
        0.15,
        "Largest relative error of a symmetry",
        minimum=0,
        maximum=1,
    )
    evaluation: int = param(8, "Samples in each batch of the final evaluation", minimum=1)
    start: Literal["random", "spectral"] = param(
        "random", "Start from random frames, or from the directions of least linearised error"
    )
    standard_basis: bool = param(
        False, "Report a sparse basis: each generator has an entry of its own"
    )
    leave_out: bool = param(
        False,
        "On sets of vectors, leave out the directions about which the data decide nothing",
        added=True,
    )
    against: Literal["prediction", "targets"] = param(
        "prediction",
        "Compare f(gx) with g f(x), or with g y, the true targets",
        added=True,
    )
    polish: bool = param(
        False,
        "On sets of vectors, refine a spectral start by moves of finite size near the data",
        added=True,
    )
    gap: float = param(
        2.0,
        "With an automatic k: least factor by which the error must grow after the last symmetry",
        minimum=1,
    )
    optimiser: Literal["adam", "gauss_newton", "auto"] = param(
        "adam",
        "Adam, or Gauss and Newton's method, which compares distances and stops by itself after "
        "at most `steps` iterations; auto: the latter in the first half of the epochs, then Adam, "
        "and Adam alone for classes and few samples",
        added=True,
    )


FIRST_STEP, LEAST_STEP = 0.03, 0.01
"""Length of a step, in radians, after which it ends, in the first phases and in the last one."""
FIRST_DECREASE, LEAST_DECREASE = 1e-2, 1e-3
"""Decrease of the logarithm of the loss after which it ends, likewise."""
WORSE = 0.1
"""Difference of the logarithm of the loss by which a start is worse than the best, and dropped."""
SAME = math.radians(5)
"""Largest principal angle of spans that count as one when starts are compared."""

PROPOSED = 0.5
"""Relative error up to which a direction is proposed; whether it holds is judged afterwards."""


def check_k(k: int, space: Space | int, least: int = 1) -> None:
    """Check the number of generators.

    Args:
        k: The number of generators.
        space: Where they are sought; n stands for gl(n).
        least: Smallest accepted k: 1, or 0 if the solver may find k by itself.

    Raises:
        InvalidInput: k is not from ``least`` to the dimension of the space.
    """
    most, name = (
        (space**2, f"gl({space})") if isinstance(space, int) else (space.dimension, str(space))
    )
    if not least <= k <= most:
        raise InvalidInput(
            f"k is {k}",
            "algebra.k",
            f"from 1 to {most}, the dimension of {name}",
            "choose another k",
        )


def evaluation_batches(objective: Objective, samples: int, seed: int) -> list[Batch]:
    """Draw the batches for a report: the predictor as it is now, on every chart.

    Args:
        objective: The objective.
        samples: Samples in each batch.
        seed: Seed of the samples.

    Returns:
        ``EVALUATION_BATCHES`` batches.
    """
    objective.refresh()
    generator = random_stream(seed, 91)
    return [
        draw_batch(objective, generator, samples, objective.charts)
        for _ in range(EVALUATION_BATCHES)
    ]


def report_algebra(
    objective: Objective,
    generators: Tensor,
    starts: list[float],
    scale: float,
    threshold: float,
    samples: int,
    seed: int,
    rest: Tensor | None = None,
    reason: str = "",
) -> AlgebraReport:
    """Measure generators, and the spectrum over an orthonormal basis that begins with their span.

    The generators are reported as learnt, sorted by relative error. They are never replaced by
    nicer ones (METHOD 4.1).

    Args:
        objective: The objective.
        generators: ``[k, n, n]``.
        starts: Final losses of all starts.
        scale: Standard deviation of the transformations.
        threshold: Largest relative error of a symmetry.
        samples: Samples in each batch.
        seed: Seed of the samples and transformations.
        rest: Orthonormal basis ``[d - k, n, n]`` of the complement of the span; None for any.
        reason: Why there are k generators, if the solver found k itself.

    Returns:
        The report.
    """
    space = objective.space
    space.check(generators)
    batches = evaluation_batches(objective, samples, seed)
    frame = space.frame(space.free(generators))
    others = space.complement(frame) if rest is None else rest
    everything = torch.cat([frame, others])
    unit = generators / space.norms(generators).clamp(min=1e-30)[:, None, None]
    along = measure(objective, batches, unit, scale, seed, floor=True)
    is_frame = torch.allclose(unit, frame, atol=1e-6)
    inside = along if is_frame else measure(objective, batches, frame, scale, seed)
    spectrum = inside.and_then(measure(objective, batches, others, scale, seed))
    typical = typical_displacement(objective, batches, spectrum, scale, seed)
    size = mean_size(batches)
    errors = relative_errors(along, typical.at(unit), size)
    spectrum_errors = relative_errors(spectrum, typical.at(everything), size)
    good = errors <= threshold
    order = torch.argsort(errors)
    generators, errors, losses = generators[order], errors[order], along.loss[order]
    count = int(good.sum())
    ranked = torch.argsort(spectrum_errors)
    left = spectrum_errors[len(frame) :]
    beside = (
        f"; other directions: {float(left.min()):.3f} to {float(left.max()):.3f}"
        if len(left)
        else ""
    )
    listed = ", ".join(f"{float(e):.3f}" for e in errors)
    bound = f"a relative equivariance error of at most {threshold:g}"
    explanation = (
        f"{count} of {len(generators)} generators have {bound} ({listed}{beside})"
        if count
        else f"no direction has {bound} (best found: {listed}{beside})"
    )
    if reason:
        explanation = f"{reason}; {explanation}" if len(generators) else reason
    return AlgebraReport(
        generators=generators,
        losses=losses.tolist(),
        relative_errors=errors.tolist(),
        noise_floor=float(along.noise_floor[order][: max(count, 1)].mean())
        if len(generators)
        else 0.0,
        symmetry_count=count,
        spectrum=[
            SpectrumEntry(everything[i], float(spectrum.loss[i]), float(spectrum_errors[i]))
            for i in ranked.tolist()
        ],
        start_losses=sorted(starts),
        explanation=explanation,
        coordinates=space.scaled,
        factors=space.factors,
    )


def _distinct(frames: Tensor) -> Tensor:
    """Indices of frames ``[m, k, d]`` whose spans differ from those of all earlier ones."""
    kept: list[int] = []
    for i, frame in enumerate(frames):
        cosines = [torch.linalg.svdvals(frame @ frames[j].mT).min() for j in kept]
        if all(float(c) < math.cos(SAME) for c in cosines):
            kept.append(i)
    return torch.tensor(kept)


@register(
    "algebra_solver",
    "grassmann",
    "Minimises the equivariance loss over orthonormal frames, from several starts",
    GrassmannParams,
    manifolds=("planar", "lattice", "vectors"),
    needs_predictor=True,
    finds_k=True,
)
class GrassmannSolver(AdamSolver):
    """Minimises ``Σ_c log E[L(f_c(gx), g f_c(x))]`` over orthonormal frames (METHOD 2.3).

    ``g = exp(Σ η_i B_i)`` for a frame ``B [k, n, n]``, the Gram-Schmidt of free elements of the
    space in which the algebra is sought. So sizes and angles need no regularisers. The logarithm
    gives the maximum-likelihood fit if charts differ in how well they can be predicted: a chart
    that is not symmetric itself, e.g. near an obstacle, does not dominate the others. With k = d,
    the dimension of the space (n² for gl(n)), nothing is sought, only measured.
    """

    kind = "grassmann"

    def __init__(
        self, params: GrassmannParams, *, objective: Objective, k: int, epochs: int, seed: int
    ) -> None:
        check_k(k, objective.space, 0)
        if params.against == "targets" and params.steps == 0:
            raise InvalidInput(
                "steps is 0, so nothing is minimised and the targets have no effect",
                "params.against",
                "prediction, or steps of at least 1",
            )
        if params.optimiser == "gauss_newton" and not (
            objective.is_distance or params.compare == "distance"
        ):
            raise InvalidInput(
                "the method of Gauss and Newton cannot minimise a classifier's loss",
                "params.optimiser",
                "adam, or compare: distance",
                "compare distances, or choose the optimiser adam",
            )
        self._p, self._objective, self._asked, self._seed = params, objective, k, seed
        self._space = objective.space
        self._spectrum: Spectrum | None = None
        self._reason = ""
        self._restricted, self._left_out = False, ""
        self._counts = 0, 0, 0
        self._plausible = 0  # directions that may be symmetries, where the spectrum has no gap
        super().__init__(self._draws(k), params.learning_rate, epochs)
        self._scores = torch.full((len(self._free),), math.inf)

    @property
    def _k(self) -> int:
        return self._free.shape[1]

    @property
    def _learning(self) -> Objective:
        """What is minimised; what is found is measured by the objective, whatever that is."""
        objective = self._objective
        if self._p.against == "prediction" or not isinstance(objective, EquivarianceObjective):
            return objective
        return objective.against_targets()

    def _draws(self, k: int) -> Tensor:
        """Draw random frames to start from: free parameters ``[starts, k, *space.shape]``."""
        starts = 1 if k == self._space.dimension else self._p.starts
        drawn = self._space.draw(random_stream(self._seed, 0), starts, k)
        return lie.frame(drawn) if self._space.is_whole else lie.orthonormal(drawn)

    def _with_spectral(self, drawn: Tensor) -> Tensor:
        """Put the directions of least linearised error in the place of the first random start."""
        k = drawn.shape[1]
        if self._space.is_whole or k == 0:  # results in gl(n) stay what they were
            return drawn
        return torch.cat([self._space.free(self._linearised().directions[None, :k]), drawn[1:]])

    def _restrict(self) -> None:
        """Leave out what the data do not decide, as the predictor is now; once."""
        objective = self._objective
        if not self._p.leave_out or self._restricted:
            return
        self._restricted = True
        if isinstance(objective, EquivarianceObjective):
            undecided = find_undecided(objective, self._seed)
            self._left_out, self._counts = explain(undecided, objective.n), undecided.counts
            if self._left_out:
                self._space = undecided.rest(self._space)
                self._objective = objective.inside(self._space)

    def _linearised(self) -> Spectrum:
        """Spectrum of the predictor as it is; computed once, and again after a resume."""
        if self._spectrum is None:
            self._spectrum = linearised_spectrum(self._objective, SPECTRUM, self._seed)
        return self._spectrum

    @property
    def _refined(self) -> EquivarianceObjective | None:
        """The objective, if spans are ordered and refined by how far they move sets of vectors.

        Affine groups and products are sought in coordinates of their own.
        """
        objective = self._objective
        if not self._p.polish or not self._space.ambient.is_linear:
            return None
        return objective if isinstance(objective, EquivarianceObjective) else None

    def _directions(self) -> Spectrum:
        """The spectrum from which the span is taken: on sets, relative to how far they move."""
        spectrum, objective = self._linearised(), self._refined
        metric = None if objective is None else spread_metric(objective, self._seed)
        return spectrum if metric is None else spectrum.per_displacement(metric, self._space)

    def _count(self) -> tuple[int, str]:
        """Find the number of generators, and the reason for it."""
        p, spectrum = self._p, self._directions()
        batches = evaluation_batches(self._objective, p.evaluation, self._seed)
        along = measure(self._objective, batches, spectrum.directions, p.scale, self._seed)
        size = mean_size(batches)
        typical = typical_displacement(self._objective, batches, along, p.scale, self._seed)
        errors = relative_errors(along, typical.at(spectrum.directions), size)
        moved = float(along.displacement.max()) > ROUNDING * size
        found, reason = count(spectrum, errors, p.threshold, p.gap, moved=moved, proposed=PROPOSED)
        self._plausible = 0
        if found == 0 and moved and spectrum.typical > 0:
            self._plausible = int((errors <= PROPOSED).long().cumprod(0).sum())
            return 1, f"{reason}; the direction of least error is judged all the same"
        return found, reason

    def _begin(self, on_step: StepCallback) -> None:
        """Do what needs the trained predictor: find k, and start near the answer if asked to."""
        k = self._asked
        self._restrict()
        if self._left_out and k:
            check_k(k, self._space)
            self._set(self._draws(k))
        if k == 0:
            k, self._reason = self._count()
        if self._p.start == "spectral":
            self._set(self._spectral(k, on_step)[None])
        elif self._asked == 0:
            self._set(self._with_spectral(self._draws(k)))
        self._scores = torch.full((len(self._free),), math.inf)

    def _spectral(self, k: int, on_step: StepCallback) -> Tensor:
        """The span of the first k directions of the spectrum, refined if asked for."""
        space, objective, directions = self._space, self._refined, self._directions().directions
        if objective is None or k == 0:
            return space.free(directions[:k])

        def told(iteration: int, losses: Tensor) -> None:
            on_step(iteration, ITERATIONS, {"loss": float(losses.min().exp())})

        if self._plausible > k and not self._asked:
            found = largest(objective, directions[: self._plausible], self._seed, told)
        else:
            frame = space.frame(space.free(directions[:k]))
            found = refine(objective, frame, self._seed, told)
        if not self._asked:
            found = completed(objective, found, self._seed, told)
        return space.free(found)

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Run ``steps`` steps of the optimiser, and compare the starts on data of their own.

        Args:
            on_step: Called after each step.

        Returns:
            The ``loss`` of the best start, and the number of remaining ``starts`` or, if the solver
            finds k, of ``generators``.
        """
        p, objective = self._p, self._objective
        objective.refresh()
        if self._epoch == 0:
            self._begin(on_step)
        if self._k == 0:
            self._epoch += 1
            on_step(1, 1, {})
            return {"generators": 0.0}
        steps = p.steps if self._k < self._space.dimension else 0  # every frame spans it all
        newton, adam = self._methods
        if newton and steps:
            self._descend(steps, on_step)
        if adam or not steps:
            before = self._free.detach().clone()
            self._follow(steps, on_step)
            if self._both and steps:
                # At an exact minimum the logarithm has no slope that steps could follow.
                self._set(torch.cat([self._free.detach(), before]))
            self._compare()
        self._epoch += 1
        return {"loss": float(self._scores[0]), **self._found()}

    @property
    def _both(self) -> bool:
        """Whether the first half of the epochs is by Gauss and Newton's method, the rest by Adam.

        The former comes near the best minimum in few iterations, on few samples; the latter
        averages over far more of them. With fewer samples than the last batch of the former has, it
        is less accurate.
        """
        p, objective = self._p, self._objective
        least = VIEWS[-1] * p.batch_size * min(p.charts, objective.charts)
        enough = objective.samples * objective.charts >= least
        return p.optimiser == "auto" and objective.is_distance and enough

    @property
    def _methods(self) -> tuple[bool, bool]:
        """Whether this epoch is by Gauss and Newton's method, and whether it is by Adam."""
        if self._both:
            half = (self._total + 1) // 2
            return self._epoch < half, self._epoch >= half or self._total == 1
        newton = self._p.optimiser == "gauss_newton"
        return newton, not newton

    def _follow(self, steps: int, on_step: StepCallback) -> None:
        """Make steps of Adam, each on a batch of its own."""
        p, learning = self._p, self._learning
        generator = random_stream(self._seed, 1, self._epoch)
        for i in range(steps):
            self._anneal(i / steps)
            batch = draw_batch(learning, generator, p.batch_size, p.charts)
            eta = draw_coefficients(batch, generator, self._k, p.scale)
            per_chart = self._losses(batch, self._space.frame(self._free), eta)
            self._step(per_chart.clamp(min=1e-12).log().mean(1))
            on_step(
                i + 1,
                steps,
                {"loss": float(per_chart.detach().mean(1).min())} if i % 4 == 0 else {},
            )
        check_finite(self._free.detach(), "the generators")

    def _found(self) -> dict[str, float]:
        if self._asked == 0:
            return {"generators": float(self._k)}
        return {"starts": float(len(self._scores))}

    def _descend(self, steps: int, on_step: StepCallback) -> None:
        """Minimise the loss from every start, on few samples first and on more at the end.

        The starts see the same draws, so their losses tell which is better. In the first phase it
        is enough that the better half converges. Starts that came to the same place are one, and
        those that are clearly worse are dropped. Further epochs repeat the last phase on other
        samples; the frame is then the mean of what they found.
        """
        p, learning, space = self._p, self._learning, self._space
        for phase in phases(learning, self._seed, self._epoch, self._total, p.batch_size, p.charts):
            points = space.free(space.frame(self._free.detach()))
            eta = draw_coefficients(phase.batch, phase.generator, self._k, p.scale)
            found = minimise(
                frame_problem(learning, phase.batch, eta, phase.steps),
                points,
                min(steps, LAST) if phase.last else steps,
                least_step=LEAST_STEP if phase.last else FIRST_STEP,
                least_decrease=LEAST_DECREASE if phase.last else FIRST_DECREASE,
                needed=(len(points) + 1) // 2,
                longer=not phase.last,
                on_iteration=lambda i, v: on_step(i, steps, {"loss": float(v.min().exp())}),
            )
            check_finite(found.points, "the generators")
            ranked = torch.argsort(found.values, stable=True)[: (len(points) + 1) // 2]
            values = found.values[ranked]
            check_finite(values[:1], "the equivariance loss")
            good = ranked[values <= values[0] + WORSE]
            order = good[_distinct(found.points[good].flatten(2))]
            mean = points + (found.points - points) / max(phase.last, 1)
            self._scores = found.values[order].exp().float()
            self._set(mean[order])

    @torch.no_grad()
    def _compare(self) -> None:
        """Rank the starts on fresh data and keep the better half, but at least two of them."""
        generator = random_stream(self._seed, 2, self._epoch)
        scores = torch.zeros(len(self._free))
        learning = self._learning
        for _ in range(EVALUATION_BATCHES):
            batch = draw_batch(learning, generator, self._p.evaluation, learning.charts)
            eta = draw_coefficients(batch, generator, self._k, self._p.scale)
            for s, frame in enumerate(self._space.frame(self._free)):
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
        """Mean loss over samples of frames ``[S, k, n, n]`` on every chart: ``[S, C]``."""
        compare = self._objective.loss if self._p.compare == "loss" else self._objective.distance
        return compare(batch, lie.expm(lie.combine(frames[:, None, None], eta))).mean(1)

    def report(self) -> AlgebraReport:
        """Measure the best frame in its principal directions, or in a sparse basis of its span."""
        p, space = self._p, self._space
        best = space.frame(self._free.detach())[0]
        starts = [s for s in self._scores.tolist() if math.isfinite(s)]
        rest: Tensor | None = None
        if self._asked == 0 or p.start == "spectral":
            rest = self._linearised().within(space.complement(best), space)
            if self._asked == 0 and not self._reason:
                self._reason = self._count()[1]  # after a resume
        batches = evaluation_batches(self._objective, p.evaluation, self._seed)
        if p.standard_basis:
            best = space.outward(lie.sparse_basis(space.inward(best)))
        else:
            parts = [
                principal_frame(self._objective, batches, part, p.scale, self._seed)
                for part in derived_parts(space, best)
            ]
            best = torch.cat(parts)
        report = report_algebra(
            self._objective,
            best,
            starts,
            p.scale,
            p.threshold,
            p.evaluation,
            self._seed,
            rest,
            "; ".join(text for text in (self._left_out, self._reason) if text),
        )
        free, out, inert = self._counts
        return replace(report, free_directions=free, leading_out=out, inert_directions=inert)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the state of :class:`AdamSolver`, and the scores of the starts."""
        tensors, metadata = super().state()
        return {**tensors, "scores": self._scores.clone()}, metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restore what :meth:`state` returned. Raises ``InvalidInput`` if it does not fit."""
        if int(metadata.get("epoch", "0") or 0) > 0:
            self._objective.refresh()
            self._restrict()
        # The number of starts falls from epoch to epoch, and the solver may have found k.
        shape = self._space.shape
        starts, k = (
            tensors["free"].shape[:2]
            if "free" in tensors and tensors["free"].dim() == 2 + len(shape)
            else (0, 0)
        )
        k = k if self._asked == 0 else self._asked
        scores = restore(tensors, "scores", torch.zeros(starts))
        self._load(tensors, metadata, torch.zeros(starts, k, *shape))
        self._scores = scores
