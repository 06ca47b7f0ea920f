"""Evidence for a symmetry: the skill that a predictor loses on data it was not fitted to.

For a matrix g the prediction ``f_g(x) = g⁻¹·f(g·x)`` is compared with the target y, which is never
moved (METHOD 2.13)::

    e_g = E ‖f_g(x) − y‖²        e_0 = E ‖f(x) − y‖²        e_c = E ‖c − y‖²
    skill = 1 − e_0 / e_c        S(g) = (e_g − e_0) / (e_c − e_0)

c is the mean of the training targets, for each chart and pixel. Class probabilities take the place
of numbers for classifiers (the Brier score). S estimates the share of the output's variance that g
breaks. Squares are used because the noise of y cancels in them.

The *size* of g is the share of the inputs' own spread that it moves,
``m(g) = E‖gx − x‖² / 2E‖x − x̄‖²`` in whitened coordinates. A skill lost means nothing without it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput
from ..rng import random_stream
from .action import Action, Inputs, Predictor, max_batch
from .features import FeatureType
from .neighbours import ENOUGH, KNOWN, NEAREST, Neighbours, far, whitening
from .vectors import VectorAction

CHARTS_AT_ONCE = 4
"""Charts on which a sample is judged; they are drawn at random."""
FEWEST = 40
"""Test samples that judge at least, if there are so many."""
RESAMPLES = 500
"""Bootstrap resamples of the test scenes."""
LONGEST = 6.0
"""Largest length t of ``exp(tB)`` with a unit generator B."""
FIRST = 0.05
"""Length with which the search for the length of a given size begins."""
MOST_LONGER = 4.0
"""Largest factor by which a length changes in a step of that search."""
LEAST_SLOPE = 0.5
"""Least power of the length with which sizes are taken to grow."""
STEPS = 12
"""Most steps of that search."""
CLOSE = 0.05
"""Relative error of a size with which that search ends."""
FLOORED_SHARE = 3
"""The interpolation floor is measured from one of so many samples …"""
FLOORED = 128
"""… and from so many at most."""
SETS_AT_ONCE, FIELDS_AT_ONCE = 2048, 64
"""Most samples that are judged at a time."""
KEPT_JUDGES = 2
"""Judges that are kept for further questions: of few samples and of many."""
KEPT_BYTES = 2**27
"""Size in bytes above which a judge is not kept."""
SIZED = 32
"""Samples from which the size of a move is measured."""
NARROWEST, WIDEST = 5, 9
"""Widths in pixels of the patches of fields whose neighbours are sought."""
NOTICED = 0.01
"""Share of the predictions' variance by which they may always differ from their neighbours'."""
NOWHERE = 1e6
"""Reach of moves that lead most samples away from all data."""
PATCHES = 4
"""Patches of each window."""
ONE_SIDED = 1.645
"""Standard errors of a one-sided bound of 95 %."""
CAP = 4.0
"""Most that a scene counts in a bound from below, in units of what the mean target costs."""
BELOW = 0.025
"""Share of the resamples that lie below that bound."""
COMPACT = 0.1
"""Largest real part of the eigenvalues of a compact direction, in units of the imaginary one."""
FARTHER = 1.2
"""Factor by which a half turn is longer than the move before, at least."""
FLAT = 0.01
"""Spread of the data along a direction, in units of the largest, below which there is none."""
SAMPLE = 2048
"""Training targets of which the mean is taken."""


class PlantedBreaking(Protocol):
    """A breaking that was planted in the targets."""

    def __call__(self, x: Tensor, charts: Tensor | None = None) -> Tensor:
        """Compute its values for inputs."""
        ...

    def broken(self, moved: Tensor, still: Tensor, f: Tensor) -> Tensor:
        """Compute how far it moves the targets apart."""
        ...


@dataclass(frozen=True)
class Subject:
    """A predictor, and the data by which it is judged."""

    predictors: Sequence[Predictor]
    """The predictor, then refits of it on other parts of the training data, if there are any."""
    action: Action
    """How matrices act."""
    inputs: Inputs
    """All samples, drawn with the action's margin."""
    targets: Inputs | None
    """All targets; None if there are none. Then the predictor itself takes their place."""
    test: Tensor
    """Samples that judge, ``[T]``."""
    train: Tensor
    """Samples that the predictor was fitted to, ``[N]``; also of ``train_inputs``."""
    train_inputs: Inputs
    """Samples that ``train`` counts."""
    train_targets: Inputs | None
    """Their targets."""
    classes: int = 0
    """Number of classes of a classifier; 0 for numbers."""
    class_weights: Tensor | None = None
    """Weight of each class, ``[classes]``; None for equal weights."""
    scenes: Tensor | None = None
    """Scene of each sample of ``inputs``; None if each is its own scene."""
    breaking: PlantedBreaking | None = None
    """The breaking that was planted in the targets; None for none."""
    baseline: Predictor | None = None
    """What has no skill; None for the mean of the training targets."""


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error; NaN if it could not be measured."""

    value: float
    error: float


@dataclass(frozen=True)
class Lost:
    """The skill lost at one matrix, or at ``exp(±tB)``."""

    length: float
    """t; 0 for a given matrix."""
    size: float
    """``m(g)``."""
    skill_lost: Estimate
    """S, a mean over both signs."""
    floor: float
    """S of the interpolation there and back."""
    reach: float
    """Squared difference of the predictions from those at the nearest training samples, in units of
    that at unmoved samples."""
    disagreement: float
    """Disagreement of refits at moved samples in units of that at unmoved ones; NaN if unknown."""
    refits: tuple[float, ...]
    """S of each refit."""
    planted: float = math.nan
    """S that the planted breaking alone would cost if it were learnt; NaN for none."""
    least: float = math.nan
    """Lower bound of S, 97.5 %, for which no scene counts more than a few times the average."""
    half_turn: bool = False
    """Whether ``exp(tB)`` is half a turn, and not a move of a given size."""


@dataclass(frozen=True)
class Evidence:
    """What the test data say."""

    skill: Estimate
    scenes: int
    """Number of test scenes."""
    directions: list[list[Lost]]
    """For each direction, one entry for each size; fewer if a size is out of reach of any t."""
    matrices: list[Lost]
    """For each matrix."""
    refit_skills: tuple[float, ...]
    """Skill of each refit."""
    learnable: float = math.nan
    """Upper bound of the share of the targets' variance that could still be learnt."""
    unused: Unused | None = None
    """What is lost without some directions of the inputs, if that was asked for."""


@dataclass(frozen=True)
class Unused:
    """What a predictor loses if it is not told some directions of the inputs.

    ``x`` becomes ``x + P(x′ − x)``, with x′ another sample.
    """

    projections: Tensor
    """P, ``[n, n, n]`` float64: of rank 1 to n, the least used directions first."""
    lost: list[Estimate]
    """The skill lost S, for each."""


def collect(
    subject: Subject,
    directions: Tensor,
    matrices: Tensor,
    sizes: Sequence[float],
    samples: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
    half_turns: bool = False,
    unused: bool = False,
    judges: Judges | None = None,
) -> Evidence:
    """Measure the skill lost along directions and at matrices.

    Args:
        subject: The predictor and the data.
        directions: Unit generators ``[D, n, n]``.
        matrices: ``[m, n, n]``.
        sizes: Sizes m(g) at which each direction is judged, ascending.
        samples: Largest number of test samples; of samples times charts, if there are several.
        seed: Seed of the choice of samples and charts, and of the bootstrap.
        check: Called before each matrix; it may raise an error to stop.
        half_turns: Whether compact directions are judged at half a turn, too, if that is longer.
        unused: Whether to look for directions of the inputs that the predictor hardly uses. There
            is an answer for sets of vectors and scalars with invariant outputs.
        judges: What was prepared for earlier questions about the same subject; what is prepared now
            is added.

    Returns:
        The evidence. Values are NaN where nothing is left to compare.

    Raises:
        InvalidInput: There are no test samples.
    """
    if not len(subject.test):
        raise InvalidInput("there are no test samples", "dataset", "at least one sample")
    with torch.no_grad():
        judge = (Judges() if judges is None else judges).judge(subject, samples, seed)
        rows: list[list[Lost]] = []
        for direction in directions.double():
            entries = []
            for t, half in judge.lengths(direction, sizes, half_turns):
                check()
                pair = [torch.matrix_exp(sign * t * direction) for sign in (1, -1)]
                entries.append(judge.lost(pair, t, half_turn=half))
            rows.append(entries)
        single = []
        for g in matrices.double():
            check()
            single.append(judge.lost([g], 0.0))
        without = judge.unused() if unused else None
    skills = tuple(
        float(1 - judge.unmoved.moved[f].sum() / judge.unmoved.constant.sum())
        for f in range(1, len(subject.predictors))
    )
    return Evidence(judge.skill(), judge.count, rows, single, skills, judge.learnable(), without)


class Judges:
    """Keeps what was prepared to judge one subject. The answers are the same without it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], _Judge] = {}
        self._training: dict[int, _Training] = {}

    def judge(self, subject: Subject, samples: int, seed: int) -> _Judge:
        """Find or prepare what judges with so many samples."""
        key = _most(subject, samples), seed
        if seed not in self._training:
            self._training = {seed: _Training(subject, seed)}
        judge = self._kept.pop(key, None) or _Judge(subject, samples, seed, self._training[seed])
        if judge.bytes <= KEPT_BYTES:
            self._kept[key] = judge  # the last one that was used
        for old in list(self._kept)[:-KEPT_JUDGES]:
            del self._kept[old]
        return judge


@dataclass(frozen=True)
class _Sums:
    """Squared errors summed over the charts and pixels of each scene."""

    moved: Tensor
    """``[predictors, scenes]``."""
    still: Tensor
    """``[predictors, scenes]``, where ``moved`` is compared."""
    constant: Tensor
    """``[scenes]``."""
    floor: Tensor
    """``[scenes]``: of the prediction after interpolation there and back."""
    spread: Tensor
    """Disagreement of the refits, moved and still: ``[2]``."""
    planted: Tensor
    """``[scenes]``: what the planted breaking alone costs."""
    expected: Tensor | None = None
    """``[scenes]``, of sets: the predictor's error at test samples that are near to moved ones."""
    whole: Tensor | None = None
    """``[predictors, scenes]``: ``constant − still`` of all sets, times the share that judges."""
    reach: float = math.nan
    """Of sets; see :class:`Lost`."""


class _Judge:
    """The test batches, and what is measured on them."""

    def __init__(self, subject: Subject, samples: int, seed: int, training: _Training) -> None:
        self._s, self._seed = subject, seed
        generator = random_stream(seed, 94)
        charts = subject.inputs.charts
        most = _most(subject, samples)
        order = torch.randperm(len(subject.test), generator=generator)[:most]
        chosen = subject.test[order].sort().values
        scenes = chosen if subject.scenes is None else subject.scenes[chosen]
        unique, self._scene = torch.unique(scenes, return_inverse=True)
        self.count = len(unique)
        at_once = _at_once(subject.inputs)
        self._batches: list[tuple[Tensor, Tensor | None, slice]] = []
        for start in range(0, len(chosen), at_once):
            part = slice(start, min(start + at_once, len(chosen)))
            picked = None
            if charts > CHARTS_AT_ONCE:
                drawn = torch.randperm(charts, generator=generator)[:CHARTS_AT_ONCE]
                picked = drawn.sort().values
            self._batches.append((chosen[part], picked, part))
        self._few = min(FLOORED, -(-len(chosen) // FLOORED_SHARE))
        self._floored = torch.unique(self._scene[: self._few])
        self._constant, self._weight = training.constant, training.weight
        self._cache: list[tuple[Tensor, Tensor, list[Tensor]]] = [
            self._still(indices, picked) for indices, picked, _ in self._batches
        ]
        self._sizing = training.sizing
        self._known = training.known
        self._reach = _Reach(subject, chosen, self._known)
        self._answers: dict[tuple[object, ...], Lost] = {}
        self._here: tuple[Neighbours, Tensor] | None = None
        if len(subject.inputs.shape) == 3:
            errors = [self._score(still[0], y).flatten(1).sum(1) for _, y, still in self._cache]
            places = torch.cat([self._known.features(x) for x, _, _ in self._cache])
            self._here = Neighbours(places), torch.cat(errors).double()
        self.unmoved = self.at(None)

    @property
    def bytes(self) -> int:
        """Size of the inputs and predictions that are held."""
        held = [t for x, y, still in self._cache for t in (x, y, *still)]
        return sum(t.numel() * t.element_size() for t in held)

    def skill(self) -> Estimate:
        """Skill of the predictor, with its error over scenes."""
        e0, ec = self.unmoved.still[0], self.unmoved.constant
        return _ratio(ec - e0, ec, self._seed)

    def learnable(self) -> float:
        """Bound the share of the targets' variance that the predictor could still learn.

        What is still to be learnt is alike for samples that are near each other; noise is not. So
        the products of neighbours' residuals have the mean square of the former, times the
        correlation over the distance of neighbours (as for the nugget of a variogram). That is not
        known; it is taken to be the correlation of the predictions at twice the distance.
        """
        if self._s.targets is None:
            return math.nan
        if len(self._s.inputs.shape) != 3:
            return math.nan  # windows overlap, and their noise may be alike
        x = torch.cat([x for x, _, _ in self._cache])
        y = torch.cat([y for _, y, _ in self._cache]).flatten(1)
        f = torch.cat([still[0] for _, _, still in self._cache]).flatten(1)
        if len(x) <= 2 * NEAREST:
            return math.nan
        weight = self._weight.repeat_interleave(y.shape[1] // len(self._weight))
        features = (x.double() @ whitening(x)).flatten(1)
        distances = torch.cdist(features, features).fill_diagonal_(math.inf)
        near = distances.topk(NEAREST, largest=False).indices
        apart = self._scene[:, None] != self._scene[near]

        def alike(a: Tensor) -> Tensor:
            products = (a[:, None] * a[near] * weight).sum(-1).double()
            mean: Tensor = (products * apart).sum(1) / apart.sum(1).clamp(min=1)
            return mean

        centred = f - f.mean(0)
        correlation = float(alike(centred).mean() / (centred.square() * weight).sum(1).mean())
        products, total = alike(y - f), self.unmoved.constant.sum() / len(y)
        if correlation <= 0 or not float(total) > 0:
            return math.nan
        error = float(products.std()) / math.sqrt(len(products))
        most = (max(0.0, float(products.mean())) + ONE_SIDED * error) / float(total)
        return most / correlation**4

    def lengths(
        self, direction: Tensor, sizes: Sequence[float], half_turns: bool
    ) -> list[tuple[float, bool]]:
        """Lengths t at which ``exp(±tB)`` is judged, and whether each is half a turn."""
        return self._sizing.lengths(direction, sizes, half_turns)

    def lost(self, pair: Sequence[Tensor], length: float, *, half_turn: bool = False) -> Lost:
        """Skill lost at matrices, as a mean over them."""
        key = length, half_turn, *(g.cpu().numpy().tobytes() for g in pair)
        if key not in self._answers:
            self._answers[key] = self._lost(pair, length, half_turn)
        return self._answers[key]

    def _lost(self, pair: Sequence[Tensor], length: float, half_turn: bool) -> Lost:
        sums = [self.at(g) for g in pair]
        moved, still = (sum_of([getattr(s, k) for s in sums]) for k in ("moved", "still"))
        constant, floor = (sum_of([getattr(s, k) for s in sums]) for k in ("constant", "floor"))
        spread, planted = sum_of([s.spread for s in sums]), sum_of([s.planted for s in sums])
        # Of sets, the few that judge have too little variance to be measured by.
        whole = [s.whole for s in sums if s.whole is not None]
        room = sum_of(whole) if whole else constant - still
        if not bool(room[0].sum() > 0):
            value, least = Estimate(math.nan, math.nan), math.nan
        else:
            value = _ratio(moved[0] - still[0], room[0], self._seed)
            most = CAP * float(constant.mean())
            errors = [still[0]]
            if all(s.expected is not None for s in sums):
                errors.append(sum_of([s.expected for s in sums if s.expected is not None]))
            bounds = []
            for error in errors:
                ratios = _resampled((moved[0] - error).clamp(max=most), room[0], self._seed)
                bounds.append(float(ratios.quantile(BELOW)) if len(ratios) else math.nan)
            least = min(bounds)
        refits = tuple(
            float((moved[f] - still[f]).sum() / room[f].sum()) for f in range(1, len(moved))
        )
        return Lost(
            length=length,
            size=sum(self._sizing.size(g) for g in pair) / len(pair),
            skill_lost=value,
            floor=float((floor - still[0])[self._floored].sum() / room[0][self._floored].sum()),
            reach=sum(
                s.reach if whole else self._reach.ratio(g) for s, g in zip(sums, pair, strict=True)
            )
            / len(pair),
            disagreement=float(spread[0] / spread[1]) if float(spread[1]) > 0 else math.nan,
            refits=refits,
            planted=math.nan if self._s.breaking is None else float(planted.sum() / room[0].sum()),
            least=least,
            half_turn=half_turn,
        )

    def at(self, g: Tensor | None) -> _Sums:
        """Squared errors of the predictors moved by g, and of what they are compared with."""
        subject, action = self._s, self._s.action
        count = len(subject.predictors)
        sums = torch.zeros(2 * count + 2, self.count, dtype=torch.float64)
        expected = torch.zeros(self.count, dtype=torch.float64)
        spread = torch.zeros(2, dtype=torch.float64)
        planted = torch.zeros(self.count, dtype=torch.float64)
        near = total = 0.0
        whole: Tensor | None = None
        found = _Found(self._reach.asked)
        for (_, picked, part), (x, y, still) in zip(self._batches, self._cache, strict=True):
            scene, back, again = self._scene[part], still, still[0]
            mask: Tensor | None = None
            if g is not None:
                moved = action.act_in(g.to(x).expand(*x.shape[:2], -1, -1), x)
                nearby = self._reach.nearby(moved)
                if nearby is None:
                    compared = action.compared(g.to(x), x)
                    mask = None if compared is None else compared.to(x)[None]
                else:
                    # The share of the spread that judges, which is free of noise.
                    centre = self._unskilled(x, picked)
                    spreads = self._square(still[0] - centre, y).flatten(1).sum(1).double()
                    kept = nearby.kept
                    near, total = near + float(spreads[kept].sum()), total + float(spreads.sum())
                    found.asked(kept, part)
                    if not bool(kept.any()):
                        continue
                    # Nothing else is asked of sets that do not judge.
                    x, y, moved, scene = x[kept], y[kept], moved[kept], scene[kept.cpu()]
                    still = [f[kept] for f in still]
                    again = still[0]
                inverse = torch.linalg.inv(g).to(x).expand(*x.shape[:2], -1, -1)
                predicted = [_probable(subject, f(moved, picked)) for f in subject.predictors]
                back = [action.act_out(inverse, each) for each in predicted]
                if nearby is not None:
                    found.seen(self._reach.squares(predicted[0], nearby), kept, part)
                    expected += self._expected(moved, scene)
                if mask is not None and part.start < self._few:
                    few = self._few - part.start
                    returned = action.act_in(inverse[:few], moved[:few])
                    first = action.crop_out(
                        _probable(subject, subject.predictors[0](returned, picked))
                    )
                    again = torch.cat([first, again[few:]])
            constant = self._unskilled(x, picked)
            for row, prediction in enumerate([*back, *still, constant.expand_as(y), again]):
                _add(sums[row], scene, self._score(prediction, y), mask)
            if subject.breaking is not None and g is not None:
                b = action.crop_out(subject.breaking(action.crop_in(x), picked))
                moved_b = action.act_out(inverse, subject.breaking(moved, picked))
                broken = self._square(subject.breaking.broken(moved_b, b, still[0]), y)
                _add(planted, scene, broken, mask)
            if count > 2:
                for row, outputs in enumerate((back, still)):
                    stack = torch.stack(outputs[1:])
                    apart = (stack - stack.mean(0)).square()
                    if mask is not None:
                        apart = apart * mask
                    spread[row] += float(apart.sum()) / (count - 2)
        if total:
            unmoved = self.unmoved
            whole = (unmoved.constant - unmoved.still) * (near / total)
        return _Sums(
            sums[:count],
            sums[count : 2 * count],
            sums[2 * count],
            sums[2 * count + 1],
            spread,
            planted,
            None if whole is None else expected,
            whole,
            found.ratio(self._reach.still),
        )

    def _expected(self, moved: Tensor, scene: Tensor) -> Tensor:
        """Errors of the predictor at test samples near to moved ones, ``[scenes]``."""
        row = torch.zeros(self.count, dtype=torch.float64)
        if self._here is not None:
            places, errors = self._here
            nearest = places.nearest(self._known.features(moved))[1]
            row.index_add_(0, scene.cpu(), errors[nearest].mean(1).cpu())
        return row

    def unused(self) -> Unused | None:
        """Find the directions of the inputs that the predictor uses least (METHOD 2.12).

        They are eigenvectors of two quadratic forms: the products of what the prediction changes by
        if a component comes from another sample; and the mean squared change for any direction, by
        polarisation. That with the smaller change is taken.
        """
        action = self._s.action
        if not isinstance(action, VectorAction) or not action.invariant:
            return None
        x = torch.cat([x for x, _, _ in self._cache])
        vectors = action.vectors(x)
        if vectors is None:
            return None
        flat = vectors.double().flatten(0, -2).cpu()
        units = flat.square().mean(0).sqrt()
        scaled = flat / units.clamp(min=1e-300)
        if float(torch.linalg.eigvalsh(scaled.mT @ scaled / len(flat))[0]) < FLAT**2:
            return None  # such directions are free, which the search sees
        other = x[torch.randperm(len(x), generator=random_stream(self._seed, 89)).to(x.device)]

        def projection(frame: Tensor) -> Tensor:
            return units[:, None] * (frame @ frame.mT) / units

        still = torch.cat([still[0] for _, _, still in self._cache])

        def change(frame: Tensor) -> Tensor:
            """Change of the predictions without the parts along a frame ``[n, m]``."""
            return (self._shuffled(projection(frame), other) - still).flatten(1).double().cpu()

        n = len(units)
        axes = torch.eye(n, dtype=torch.float64)
        along = torch.stack([change(e[:, None]) for e in axes])
        gram = torch.einsum("aso,bso->ab", along, along)
        # That is exact where components are unused. Combinations need their own changes.
        polar = gram.diagonal().diag()
        for i, j in itertools.combinations(range(n), 2):
            sums = [(axes[:, i] + sign * axes[:, j]) * 0.5**0.5 for sign in (1, -1)]
            squares = [float(change(both[:, None]).square().sum()) for both in sums]
            polar[i, j] = polar[j, i] = (squares[0] - squares[1]) / 2
        forms = [torch.linalg.eigh(form).eigenvectors for form in (gram, polar)]
        projections = []
        for m in range(1, n + 1):
            frames = [vectors[:, :m] for vectors in forms]
            best = min(frames, key=lambda frame: float(change(frame).square().sum()))
            projections.append(projection(best))
        lost = []
        y, room = (
            torch.cat([y for _, y, _ in self._cache]),
            self.unmoved.constant - self.unmoved.still[0],
        )
        for p in projections:
            apart = self._score(self._shuffled(p, other), y) - self._score(still, y)
            per = torch.zeros(self.count, dtype=torch.float64)
            _add(per, self._scene, apart, None)
            lost.append(_ratio(per, room, self._seed))
        return Unused(torch.stack(projections), lost)

    def _shuffled(self, p: Tensor, other: Tensor) -> Tensor:
        """Predict from samples whose parts in the range of a projection are those of others."""
        action, outputs = cast(VectorAction, self._s.action), []
        for (_, picked, part), (x, _, _) in zip(self._batches, self._cache, strict=True):
            mixed = action.mixed(p.to(x), x, other[part])
            outputs.append(_probable(self._s, self._s.predictors[0](mixed, picked)))
        return torch.cat(outputs)

    def _still(self, indices: Tensor, picked: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Inputs, targets and predictions of a batch, where they are compared."""
        subject, action = self._s, self._s.action
        x = subject.inputs.draw(indices, picked)
        still = [
            action.crop_out(_probable(subject, f(action.crop_in(x), picked)))
            for f in subject.predictors
        ]
        if subject.targets is None:
            return x, still[0], still
        return x, _target(subject, subject.targets.draw(indices, picked)), still

    def _unskilled(self, x: Tensor, picked: Tensor | None) -> Tensor:
        """What a predictor without skill says of a batch."""
        if self._s.baseline is not None:
            return self._s.action.crop_out(self._s.baseline(self._s.action.crop_in(x), picked))
        return self._constant if picked is None else self._constant[picked]

    def _score(self, a: Tensor, y: Tensor) -> Tensor:
        """Weighted squared difference ``[B, C, 1, ...]`` of outputs ``[B, C, out, ...]``."""
        return self._square(a - y, y)

    def _square(self, apart: Tensor, y: Tensor) -> Tensor:
        """Weighted square of differences of outputs from targets, or of other differences."""
        weighted = apart.square() * self._weight.view(-1, *[1] * (y.dim() - 3))
        square = weighted.sum(2, keepdim=True)
        if self._s.classes and self._s.class_weights is not None:
            square = square * (y * self._s.class_weights.view(-1, *[1] * (y.dim() - 3))).sum(
                2, keepdim=True
            )
        return square


class _Training:
    """What is prepared from the training data, whichever samples judge."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self.constant, self.weight = _climatology(subject, seed)
        self.sizing = _Sizing(subject, seed)
        self.known = _Known(subject, seed)


def _probable(subject: Subject, y: Tensor) -> Tensor:
    """Outputs as numbers or class probabilities."""
    return y.float().softmax(2) if subject.classes else y.float()


def _target(subject: Subject, y: Tensor) -> Tensor:
    """Targets as numbers or class probabilities, where they are compared."""
    if subject.classes:
        y = functional.one_hot(y[:, :, 0].long(), subject.classes).movedim(-1, 2)
    return subject.action.crop_out(y.float())


def _climatology(subject: Subject, seed: int) -> tuple[Tensor, Tensor]:
    """Mean of the training targets for each chart and pixel, and the weight of each output."""
    batches = []
    order = torch.randperm(len(subject.train), generator=random_stream(seed, 95))
    some = subject.train[order[:SAMPLE]]
    at_once = _at_once(subject.train_inputs)
    total = square = torch.zeros((), dtype=torch.float64)
    for indices in some.split(at_once):
        if subject.train_targets is None:
            x = subject.action.crop_in(subject.train_inputs.draw(indices, None))
            y = subject.action.crop_out(_probable(subject, subject.predictors[0](x, None)))
        else:
            y = _target(subject, subject.train_targets.draw(indices, None))
        batches.append(len(y))
        first, second = y.double().sum(0), y.double().square().sum(0)
        total, square = total + first, square + second
    mean = total / sum(batches)
    variance = (square / sum(batches) - mean.square()).clamp(min=0)
    spread = variance.transpose(0, 1).flatten(1).mean(1)  # of each output
    if subject.classes:
        weight = torch.ones_like(spread)
    else:
        for part in subject.action.output_terms(len(spread)):
            spread[part] = spread[part].mean()
        weight = torch.where(spread > 0, 1 / spread.clamp(min=1e-300), 0.0)
    return mean.float(), weight.float()


class _Sizing:
    """Sizes of moves, from some training inputs in whitened coordinates."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self._action = subject.action
        order = torch.randperm(len(subject.train), generator=random_stream(seed, 96))
        charts = None
        if subject.train_inputs.charts > CHARTS_AT_ONCE:
            charts = torch.arange(CHARTS_AT_ONCE) * (subject.train_inputs.charts // CHARTS_AT_ONCE)
        at_once = max(2, max_batch(subject.train_inputs.shape))
        self._x = subject.train_inputs.draw(subject.train[order[: min(SIZED, at_once)]], charts)
        self._still = self._action.crop_in(self._x)
        self._whiten = whitening(self._still)
        # A translation has to be as long as the points are far apart.
        kind = getattr(self._action, "rho_in", None)
        affine = isinstance(kind, FeatureType) and bool(kind.affine)
        self._measured: dict[bytes, float] = {}
        self._longest = LONGEST * max(1.0, float(self._still.abs().max()) if affine else 1.0)
        centred = self._still - self._still.mean(0, keepdim=True)
        self._spread = float(self._norm(centred))

    def size(self, g: Tensor) -> float:
        """``m(g)``."""
        key = g.cpu().numpy().tobytes()
        if key not in self._measured:
            moved = self._action.act_in(g.to(self._x).expand(*self._x.shape[:2], -1, -1), self._x)
            apart = self._norm(moved - self._still)
            self._measured[key] = float(apart / (2 * max(self._spread, 1e-300)))
        return self._measured[key]

    def lengths(
        self, direction: Tensor, sizes: Sequence[float], half_turns: bool
    ) -> list[tuple[float, bool]]:
        """Lengths at which the mean size of ``exp(±tB)`` is as asked for, ascending.

        The half turn of a compact direction comes last, if it was asked for and is longer.
        """
        lengths = [t for s in sizes if (t := self.length(direction, s)) is not None]
        found = [(t, False) for t in lengths]
        half = half_turn(direction) if half_turns else None
        if half is not None and FARTHER * max([0.0, *lengths]) < half < 2 * self._longest:
            found.append((half, True))
        return found

    def length(self, direction: Tensor, size: float) -> float | None:
        """The smallest t at which the mean size of ``exp(±tB)`` is as asked for, or None.

        Small moves grow as the square of t, and larger ones less, so that a few secant steps of the
        logarithms are enough.
        """
        t, below, above = FIRST, 0.0, math.inf
        last: tuple[float, float] | None = None
        for _ in range(STEPS):
            pair = [torch.matrix_exp(sign * t * direction) for sign in (1, -1)]
            now = sum(self.size(g) for g in pair) / len(pair)
            if not math.isfinite(now):
                return None
            if abs(now - size) <= CLOSE * size:
                return t
            if now < size:
                if t == self._longest:
                    return None
                below = t
            else:
                above = t
            slope = 2.0
            if last is not None and now > 0 and last[1] > 0 and now != last[1]:
                slope = math.log(now / last[1]) / math.log(t / last[0])
                slope = min(max(slope, LEAST_SLOPE), 2.0)
            last = t, now
            longer = (size / now) ** (1 / slope) if now > 0 else MOST_LONGER
            guess = t * min(max(longer, 1 / MOST_LONGER), MOST_LONGER)
            if not below < guess < above:
                guess = (below + above) / 2
            t = min(guess, self._longest)
        return t

    def _norm(self, x: Tensor) -> Tensor:
        return (x.double() @ self._whiten).square().mean() if x.dim() == 4 else self._pixels(x)

    def _pixels(self, x: Tensor) -> Tensor:
        scale = self._whiten.diagonal().view(-1, *[1] * (x.dim() - 3))
        return (x.double() * scale).square().mean()


def half_turn(direction: Tensor) -> float | None:
    """Compute the t at which ``exp(tB)`` is half a turn.

    Args:
        direction: Generator B, ``[n, n]``.

    Returns:
        π over the largest frequency; None if B is not compact: its eigenvalues are not imaginary.
    """
    eigenvalues = torch.linalg.eigvals(direction.double())
    frequency, growth = float(eigenvalues.imag.abs().max()), float(eigenvalues.real.abs().max())
    return math.pi / frequency if frequency > 0 and growth <= COMPACT * frequency else None


@dataclass(frozen=True)
class Nearby:
    """Sets that lie near to training samples."""

    kept: Tensor
    """Whether each set does, ``[B]`` bool."""
    nearest: Tensor
    """Indices of their nearest training samples, ``[kept, 4]``."""


class _Found:
    """Differences from the nearest training samples, of the first moved sets."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked = self._near = 0
        self._apart = 0.0

    def asked(self, kept: Tensor, part: slice) -> None:
        """Count the sets of a batch, and those that are near."""
        first = kept[: max(0, self._most - part.start)]
        self._asked += len(first)
        self._near += int(first.sum())

    def seen(self, squares: Tensor, kept: Tensor, part: slice) -> None:
        """Add the differences ``[kept]`` of those that are near."""
        first = int(kept[: max(0, self._most - part.start)].sum())
        self._apart += float(squares[:first].sum())

    def ratio(self, still: float) -> float:
        """Mean squared difference, in units of that at unmoved samples."""
        if not self._asked:
            return math.nan
        if self._near < ENOUGH * self._asked:
            return NOWHERE
        return self._apart / self._near / still if still > 0 else math.nan


class _Known:
    """Some training samples, with what the predictor says of them."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self._s = subject
        order = torch.randperm(len(subject.train), generator=random_stream(seed, 97))
        self.charts = None
        if subject.inputs.charts > 1:
            self.charts = torch.tensor([subject.inputs.charts // 2])
        at_once = max(1, max_batch(subject.inputs.shape))
        chosen = subject.train[order[:KNOWN]]
        parts = [subject.train_inputs.draw(i, self.charts) for i in chosen.split(at_once)]
        windows = [subject.action.crop_in(p) for p in parts]
        fitted = torch.cat(windows)
        self._whiten = whitening(fitted)
        self._patches: list[tuple[slice, ...]] = []
        if fitted.dim() != 4:
            inner = self._predicted(fitted[:1]).shape[-1]
            self._patches = _patches(fitted.shape[3:], inner, seed)
        self._neighbours = Neighbours(self.features(fitted))
        self.values = torch.cat([self.outputs(w) for w in windows])

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and indices of the nearest of them, ``[samples, 4]``."""
        return self._neighbours.nearest(self.features(x))

    def outputs(self, x: Tensor) -> Tensor:
        """Predictions for each set, or at the centre of each patch: ``[samples, outputs]``."""
        y = self._predicted(x).double()
        if not self._patches:
            return y.flatten(1)
        shifts = [(a - b) // 2 for a, b in zip(x.shape[3:], y.shape[3:], strict=True)]
        centres = [
            [(p.start + p.stop - 1) // 2 - s for p, s in zip(patch, shifts, strict=True)]
            for patch in self._patches
        ]
        return torch.stack([y[_at(at)].flatten(1) for at in centres], 1).flatten(0, 1)

    def features(self, x: Tensor) -> Tensor:
        """Whitened features of each set, or of each patch of the windows: ``[samples, d]``."""
        if x.dim() == 4:
            return (x.double() @ self._whiten).flatten(1)
        scale = self._whiten.diagonal().view(-1, *[1] * (x.dim() - 3))
        scaled = (x.double() * scale).flatten(0, 1)
        parts = [scaled[_at(patch)].flatten(1) for patch in self._patches]
        return torch.stack(parts, 1).flatten(0, 1)

    def _predicted(self, x: Tensor) -> Tensor:
        f, subject = self._s.predictors[0], self._s
        return subject.action.crop_out(_probable(subject, f(x, self.charts)))


class _Reach:
    """How far the predictor is from what its nearest training samples say.

    At a moved sample the prediction is compared with the mean prediction of the nearest training
    samples. Where the data support the prediction, both differ about as much as at unmoved samples.
    Where the predictor extrapolates, they go different ways (METHOD 2.13, where refits disagree).
    """

    def __init__(self, subject: Subject, test: Tensor, known: _Known) -> None:
        self._action, self._known = subject.action, known
        at_once = max(1, max_batch(subject.inputs.shape))
        self._x = subject.inputs.draw(test[: min(len(test), 2 * at_once, 256)], known.charts)
        spread = (known.values - known.values.mean(0)).square().mean()
        at_rest = self._action.crop_in(self._x)
        distances, nearest = known.nearest(at_rest)
        self._far = far(distances)
        self.asked = len(self._x)
        self.still = max(self._apart(at_rest, nearest), NOTICED * float(spread))

    def ratio(self, g: Tensor) -> float:
        """Mean squared difference at moved windows, in units of that at unmoved ones."""
        moved = self._action.act_in(g.to(self._x).expand(*self._x.shape[:2], -1, -1), self._x)
        return self._apart(moved) / self.still if self.still > 0 else math.nan

    def nearby(self, x: Tensor) -> Nearby | None:
        """Tell which sets are as near to training samples as unmoved test samples are.

        This looks at inputs alone, so those that are near judge as well as all would. Windows have
        no such test: their values stay the same.

        Args:
            x: Moved samples ``[B, C, ...]``.

        Returns:
            The sets that are, with their neighbours; None for windows.
        """
        if x.dim() != 4:
            return None
        distances, nearest = self._known.nearest(x)
        kept = distances.mean(1) <= self._far
        return Nearby(kept, nearest[kept])

    def squares(self, y: Tensor, nearby: Nearby) -> Tensor:
        """Mean squared difference of predictions from those at their neighbours, ``[kept]``."""
        return (y.double().flatten(1) - self._known.values[nearby.nearest].mean(1)).square().mean(1)

    def _apart(self, x: Tensor, nearest: Tensor | None = None) -> float:
        if nearest is None:
            nearest = self._known.nearest(x)[1]
        told = self._known.values[nearest].mean(1)
        return float((self._known.outputs(x) - told).square().mean())


def _most(subject: Subject, samples: int) -> int:
    """Samples that judge, if so many may, on all charts together."""
    each = samples // min(subject.inputs.charts, CHARTS_AT_ONCE)
    return min(len(subject.test), max(FEWEST, each))


def _at_once(inputs: Inputs) -> int:
    """Samples that are judged at a time."""
    most = SETS_AT_ONCE if len(inputs.shape) == 3 else FIELDS_AT_ONCE
    return min(most, max(1, max_batch(inputs.shape)))


def _at(places: Sequence[int | slice]) -> tuple[Any, ...]:
    """Index the last axes of a tensor."""
    return (Ellipsis, *places)


def _patches(lattice: Sequence[int], inner: int, seed: int) -> list[tuple[slice, ...]]:
    """Patches near the middle of windows, as wide as the predictor is taken to read."""
    size = lattice[-1]
    width = min(max(NARROWEST, size - inner + 1), WIDEST, size)
    room = max(1, min(inner // 2, size - width + 1))
    corners = torch.randint(room, (PATCHES, len(lattice)), generator=random_stream(seed, 99))
    first = (size - width - room + 1) // 2
    # Fields of one dimension have one row.
    return [
        tuple(
            slice(first + c, first + c + width) if whole > 1 else slice(0, 1)
            for c, whole in zip(corner, lattice, strict=True)
        )
        for corner in corners.tolist()
    ]


def _add(row: Tensor, scene: Tensor, error: Tensor, mask: Tensor | None) -> None:
    """Add errors ``[B, C, ...]``, where they are compared, to the sums of their scenes."""
    error = error if mask is None else error * mask
    row.index_add_(0, scene, error.flatten(1).sum(1).double().cpu())


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Add tensors of one shape."""
    return torch.stack(list(tensors)).sum(0)


def _ratio(top: Tensor, bottom: Tensor, seed: int) -> Estimate:
    """``Σ top / Σ bottom`` over scenes, with its bootstrap error; pairs are kept."""
    value, ratios = float(top.sum() / bottom.sum()), _resampled(top, bottom, seed)
    return Estimate(value, float(ratios.std()) if len(ratios) else math.nan)


def _resampled(top: Tensor, bottom: Tensor, seed: int) -> Tensor:
    """Compute that ratio for resamples of the scenes; none for a single scene."""
    n = len(top)
    if n < 2:
        return top.new_zeros(0)
    draws = torch.randint(n, (RESAMPLES, n), generator=random_stream(seed, 98))
    ratios: Tensor = top[draws].sum(1) / bottom[draws].sum(1)
    return ratios
