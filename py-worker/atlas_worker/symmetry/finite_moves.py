"""Brings a span nearer to the symmetries by moves of finite size (METHOD 2.7).

The null space of the linearised error depends on slopes of the predictor, which are learnt less
well than its values. Moves of finite size compare values. But they help only where data are: a
squeeze soon leads to where there were none, and there the predictor says nothing of the truth. So
only moved sets of vectors count that are as near to other data as sets at rest are. They are
compared with the true targets, if there are any: the risk ``E |f(gx) − g y|`` of a symmetry is the
error of the predictor, to which its own asymmetry does not add.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..rng import random_stream
from . import lie
from .neighbours import ENOUGH, KNOWN, Neighbours, far, whitening
from .newton import distances, frame_problem, minimise
from .objective import Batch, EquivarianceObjective
from .space import Space

SIZES = 0.05, 0.2, 0.5
"""Mean squared displacements of the moves, in units of twice the data's own second moment."""
ROWS, AT_ONCE, NUMBERS = 16384, 2**17, 2**21
"""Most sets that are moved, most moved sets of an iteration, and most numbers in these."""
AT_ONCE_FOREIGN = 2**14
"""Most moved sets of an iteration for a predictor from elsewhere, which may be slow."""
SECOND = 512
"""Sets from which displacements are measured."""
EXACT = 1e-5
"""Error, relative to the spread of the outputs, below which there is nothing to refine."""
STEP = 1e-4
"""Length of a move by which displacements are measured, in float64."""
DIFFERENCE = 0.1
"""Step of differences along the unknowns."""
ITERATIONS = 4
"""Most iterations of each round."""
ROUNDS = 2
"""Rounds; each draws its own moves, along the span that the one before has found."""
OUTSIDE = 0.3
"""Part of a bracket of unit generators outside of their span, from which it is a new generator."""
CLEAR = 0.3
"""Ratio of the singular values of brackets at which these span less than the whole algebra."""
WORSE = 0.05
"""Error of a larger span above that of a smaller one, relative to that of other directions, up to
which it is no worse."""
LEAST_STEP, LEAST_DECREASE = 1e-3, 1e-5
"""Length of a step, and decrease of the logarithm of the loss, after which a round ends."""


@torch.no_grad()
def refine(
    objective: EquivarianceObjective,
    frame: Tensor,
    seed: int,
    on_iteration: Callable[[int, Tensor], None] = lambda *_: None,
) -> Tensor:
    """Refine the span of a frame by moves of finite size near the data.

    Args:
        objective: The predictor's equivariance on sets of vectors. The samples that it calls fitted
            are moved; others are left to judge the result.
        frame: An orthonormal frame ``[k, n, n]`` to start from.
        seed: Seed of the moves.
        on_iteration: Called after each iteration with its number and the logarithm of the loss; it
            may raise an error to stop.

    Returns:
        An orthonormal frame of the span that leaves the least error. It is the one that was given
        if the new one is not better on moves of its own, and for fields.
    """
    if not 0 < len(frame) < objective.space.dimension:
        return frame
    moves = _Moves(objective, seed)
    if not moves.possible:
        return frame
    space, best = objective.space, frame
    if moves.error(frame, ROUNDS) <= EXACT:
        return frame
    for turn in range(ROUNDS):
        drawn = moves.draw(best, turn)
        if drawn is None:
            return frame
        batch, eta, generator = drawn
        steps = DIFFERENCE * (torch.randint(2, batch.shape, generator=generator) * 2.0 - 1)
        found = minimise(
            frame_problem(moves.learning, batch, eta, steps),
            space.free(best)[None],
            ITERATIONS,
            least_step=LEAST_STEP,
            least_decrease=LEAST_DECREASE,
            on_iteration=on_iteration,
        )
        best = space.frame(found.points[0])
    return best if moves.error(best, ROUNDS) < moves.error(frame, ROUNDS) else frame


@torch.no_grad()
def completed(
    objective: EquivarianceObjective,
    frame: Tensor,
    seed: int,
    on_iteration: Callable[[int, Tensor], None] = lambda *_: None,
) -> Tensor:
    """Complete a span to the Lie algebra that it generates, if this is no worse.

    Symmetries are closed under the bracket: where two rotations of space are symmetries, so is the
    third, even if the spectrum has its gap after the second.

    Args:
        objective: The predictor's equivariance on sets of vectors.
        frame: An orthonormal frame ``[k, n, n]``.
        seed: Seed of the moves.
        on_iteration: As for :func:`refine`.

    Returns:
        A frame of the larger algebra, refined; or the frame that was given, if its span is closed,
        generates everything, or if the larger one leaves more error.
    """
    space = objective.space
    larger = lie_closure(space, frame)
    if not len(frame) < len(larger) < space.dimension:
        return frame
    larger = refine(objective, larger, seed, on_iteration)
    moves = _Moves(objective, seed)
    return larger if moves.possible and moves.no_worse(larger, frame) else frame


@torch.no_grad()
def largest(
    objective: EquivarianceObjective,
    directions: Tensor,
    seed: int,
    on_iteration: Callable[[int, Tensor], None] = lambda *_: None,
) -> Tensor:
    """Find the largest span of leading directions that is, when refined, no worse than the first.

    It takes the place of a gap in the spectrum where there is none.

    Args:
        objective: The predictor's equivariance on sets of vectors.
        directions: Directions ``[K, n, n]``, ascending by error.
        seed: Seed of the moves.
        on_iteration: As for :func:`refine`.

    Returns:
        An orthonormal frame ``[k, n, n]`` with 1 ≤ k ≤ K, refined.
    """
    space = objective.space

    def span(k: int) -> Tensor:
        frame: Tensor = space.frame(space.free(directions[:k]))
        return refine(objective, frame, seed, on_iteration)

    first, moves = span(1), _Moves(objective, seed)
    if moves.possible:
        for k in range(min(len(directions), space.dimension - 1), 1, -1):
            if moves.no_worse(found := span(k), first):
                return found
    return first


def lie_closure(space: Space, frame: Tensor) -> Tensor:
    """Extend a frame by the brackets that lie outside of its span, until none does.

    Args:
        space: The space of the frame.
        frame: An orthonormal frame ``[k, n, n]``; its elements may be inexact.

    Returns:
        An orthonormal frame ``[K, n, n]``, K ≥ k, that begins with the one that was given.
    """
    rows = space.free(frame.double()).flatten(1)
    while 1 < len(rows) < space.dimension:
        elements = space.lift(rows.reshape(-1, *space.shape))
        i, j = torch.triu_indices(len(rows), len(rows), 1)
        brackets = space.free(lie.bracket(elements[i], elements[j])).flatten(1)
        outside = brackets - brackets @ rows.T @ rows
        sizes = outside.norm(dim=1)
        worst = int(sizes.argmax())
        if float(sizes[worst]) <= OUTSIDE * max(1.0, float(brackets[worst].norm())):
            break
        rows = torch.cat([rows, outside[worst : worst + 1] / sizes[worst]])
    extended: Tensor = space.frame(rows.reshape(-1, *space.shape)).to(frame)
    return extended


def derived_parts(space: Space, frame: Tensor) -> list[Tensor]:
    """Split an algebra into its derived algebra, which the brackets span, and what is orthogonal.

    Of so(1,3) ⊕ R the brackets span so(1,3), and scalings are left. What moves do to a predictor
    tells these apart less well than the brackets do: it has noise, and they have the error of the
    span alone.

    Args:
        space: The space of the frame.
        frame: An orthonormal frame ``[k, n, n]`` of a span that may be inexact.

    Returns:
        Orthonormal frames ``[r, n, n]`` and ``[k − r, n, n]`` of two parts of the span; the frame
        itself if it is not closed, if brackets span all of it or nothing, or if that is not clear.
    """
    k = len(frame)
    if k < 2:
        return [frame]
    rows = space.free(frame.double()).flatten(1)
    elements = space.lift(rows.reshape(-1, *space.shape))
    i, j = torch.triu_indices(k, k, 1)
    brackets = space.free(lie.bracket(elements[i], elements[j])).flatten(1)
    inside = brackets @ rows.T
    open_by = (brackets - inside @ rows).norm(dim=1)
    if float(open_by.max()) > OUTSIDE * max(1.0, float(brackets.norm(dim=1).max())):
        return [frame]
    _, values, vectors = torch.linalg.svd(inside, full_matrices=True)
    sizes = torch.cat([values, values.new_zeros(k - len(values))])
    falls = sizes[1:] / sizes[:-1].clamp(min=1e-300)
    rank = 1 + int(falls.argmin())
    if float(sizes[0]) < OUTSIDE or float(sizes[rank - 1]) < OUTSIDE or float(falls.min()) > CLEAR:
        return [frame]
    parts = (vectors[:rank] @ rows, vectors[rank:] @ rows)
    return [space.lift(part.reshape(-1, *space.shape)).to(frame) for part in parts]


def displacements(objective: EquivarianceObjective, at: Tensor, whiten: Tensor) -> Tensor:
    """Compute the form whose value at an element is how far a small move along it displaces sets.

    Args:
        objective: The objective, on sets of vectors.
        at: Samples ``[B]``.
        whiten: Coordinates ``[features, features]`` in which distances are measured.

    Returns:
        ``[d, d]`` float64 for elements in the basis of the objective's space: mean squared
        displacements of a feature, per unit of length.
    """
    rest = objective.sets(at)
    assert rest is not None
    moved = []
    for e in objective.space.basis:
        there = objective.sets(at, torch.matrix_exp(STEP * e).expand(len(at), -1, -1))
        assert there is not None
        moved.append((((there - rest) / STEP) @ whiten.to(rest)).flatten().cpu())
    rows = torch.stack(moved)
    form: Tensor = rows @ rows.T / rows.shape[1]
    return form


def spread_metric(objective: EquivarianceObjective, seed: int) -> Tensor | None:
    """Compute :func:`displacements` per unit of the data's spread about their mean.

    Returns:
        ``[d, d]`` float64; None for fields.
    """
    order = torch.randperm(objective.samples, generator=random_stream(seed, 98))[:SECOND]
    x = objective.sets(order)
    if x is None:
        return None
    return displacements(objective, order, whitening(x - x.mean((0, 1, 2), keepdim=True)))


class _Moves:
    """Draws moves of given sizes along a span, of which those that stay near to data count."""

    def __init__(self, objective: EquivarianceObjective, seed: int) -> None:
        self._objective, self._seed = objective, seed
        self.learning = objective.against_targets() if objective.has_targets else objective
        self._fitted = objective.fitted
        order = torch.randperm(len(self._fitted), generator=random_stream(seed, 98))
        x = objective.sets(self._fitted[order[: 2 * KNOWN]])
        self.possible = x is not None
        if x is None:
            return
        # As many at rest as are known; few samples are both, which finds the next nearest ones.
        known = x[: max(len(x) // 2, min(len(x), KNOWN // 4))]
        self._whiten = whitening(known)
        self._neighbours = Neighbours(self._features(known))
        self._far = far(self._neighbours.nearest(self._features(x[len(x) // 2 :]))[0])
        self._sizes = displacements(objective, self._fitted[order[:SECOND]], self._whiten) / 2
        each = objective.space.dimension + 1  # moves of a set: for each unknown, and where it is
        asked = AT_ONCE_FOREIGN if objective.foreign else AT_ONCE
        most = min(asked, NUMBERS // max(1, x[0].numel()))
        self._rows = max(1, min(ROWS, most // each))

    def draw(self, frame: Tensor, turn: int) -> tuple[Batch, Tensor, torch.Generator] | None:
        """Draw moves along a frame ``[k, n, n]``.

        Returns:
            Sets ``[B, 1, ...]`` whose moves stay near, their coefficients ``[B, 1, k]`` in the
            frame, and the source of the random numbers. None if too few stay near at any size.
        """
        generator = random_stream(self._seed, 99, turn)
        rows, k = self._rows, len(frame)
        at = self._fitted[torch.randint(len(self._fitted), (rows,), generator=generator)]
        which = torch.randint(len(SIZES), (rows,), generator=generator)
        eta = self._coefficients(frame, torch.randn(rows, k, generator=generator), which)
        near = self._near(at, frame, eta)
        enough = [bool(near[which == i].double().mean() >= ENOUGH) for i in range(len(SIZES))]
        near &= torch.tensor(enough)[which]
        if int(near.sum()) < max(len(frame) * 16, rows // 16):
            return None
        return self.learning.batch(at[near]), eta[near, None].float(), generator

    def error(self, frame: Tensor, turn: int) -> float:
        """Mean error of moves along a frame's span, per spread of the outputs; or infinity."""
        drawn = self.draw(frame, turn)
        if drawn is None:
            return math.inf
        batch, eta, _ = drawn
        g = lie.expm(lie.combine(frame.float(), eta))
        y = batch.reference
        spread = float((y - y.mean(0)).abs().mean())
        return float(distances(self.learning, batch, g[None]).mean()) / max(spread, 1e-300)

    def no_worse(self, larger: Tensor, smaller: Tensor) -> bool:
        """Whether moves along a span leave nearly as little error as along a smaller one."""
        own, all_of_it = (self.error(each, ROUNDS) for each in (smaller, larger))
        others = self.error(self._objective.space.complement(larger), ROUNDS)
        if not math.isfinite(own + all_of_it + others):
            return False  # too few moves stay near the data to tell
        return all_of_it - own <= WORSE * max(0.0, others - own)

    def _coefficients(self, frame: Tensor, drawn: Tensor, which: Tensor) -> Tensor:
        """Scale random coefficients ``[B, k]`` so that the moves have the sizes asked for."""
        free = self._free(frame)
        moved = drawn.double() @ free
        size = torch.einsum("ba,ac,bc->b", moved, self._sizes, moved)
        length = (torch.tensor(SIZES).double()[which] / size.clamp(min=1e-300)).sqrt()
        return drawn.double() * length[:, None]

    def _near(self, at: Tensor, frame: Tensor, eta: Tensor) -> Tensor:
        """Whether each moved set is as near to the data as sets at rest are: ``[B]`` bool."""
        g = torch.matrix_exp(torch.einsum("bk,kij->bij", eta, frame.double()))
        near = []
        for i in torch.arange(len(at)).split(KNOWN):
            moved = self._objective.sets(at[i], g[i])
            assert moved is not None
            apart = self._neighbours.nearest(self._features(moved))[0].mean(1)
            near.append(
                torch.isfinite(g[i]).flatten(1).all(1).to(apart.device) & (apart <= self._far)
            )
        return torch.cat(near).cpu()

    def _free(self, frame: Tensor) -> Tensor:
        """Coordinates ``[k, d]`` of a frame in the basis of the space."""
        space = self._objective.space
        return space.free(frame.double()).flatten(1)

    def _features(self, x: Tensor) -> Tensor:
        """Whitened features of sets: ``[B, d]``."""
        return (x.double() @ self._whiten.to(x.device)).flatten(1)
