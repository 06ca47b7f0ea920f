"""Closes a set of symmetries to a finite group, or to a group of components (METHOD 2.9)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from . import finite
from .ambient import Ambient, normalised
from .components import same_component

LIMIT = 240
"""Largest number of elements or components; a larger group counts as unresolved."""
APART = 3.0
"""Two matrices are one element if they are closer than this number of spreads."""
SHARE = 1 / 3
"""Largest share of the smallest distance that ``APART`` spreads may be."""
OWN = 2.0
"""The error on the way to the nearest other element, relative to that of a minimum of its own."""
WAY = 0.5, 0.38, 0.29
"""Shares of that way, one after the other. A symmetry may lie at some of them: a quarter turn lies
midway between half a turn and I."""
FLOOR = 1e-3
"""Smallest spread: the search for a minimum is not more exact."""
MIDDLE_FLOOR = 1e-6
"""Smallest error on the way at which a minimum can be told from its surroundings."""


class Tester(Protocol):
    """What a closure asks of the data."""

    def refine(self, g: Tensor) -> Tensor:
        """Move matrices ``[m, n, n]`` to the nearest minima of their loss."""
        ...

    def errors(self, g: Tensor) -> Tensor:
        """Compute the errors ``[m]`` of matrices: 0 for a symmetry, near 1 for any matrix."""
        ...

    def passes(self, g: Tensor, errors: Tensor) -> list[bool]:
        """Tell which matrices are symmetries, given their errors."""
        ...


@dataclass
class Closed:
    """A closed set of symmetries, or why there is none."""

    elements: Tensor
    """``[m, n, n]`` float64, I first: one for each element, or one for each component."""
    table: Tensor
    """``[m, m]`` int64: the number of each product."""
    spread: float = 0.0
    """Root mean square error of an element before the elements were averaged."""
    rejected: int = 0
    """Candidates that passed by themselves, but whose products did not."""
    resolved: bool = True
    """Whether the elements are told apart."""
    explanation: str = ""
    """What was found, in words."""

    @property
    def smallest(self) -> float:
        """Smallest distance between two elements."""
        return finite.smallest_distance(self.elements)


@dataclass
class _Spread:
    """Collects how far products are from the elements that they are."""

    squares: list[float] = field(default_factory=list)

    def add(self, distance: float) -> None:
        """Add a product's distance: it has the errors of two factors and of the element."""
        self.squares.append(distance**2 / 3)

    @property
    def value(self) -> float:
        """Root mean square error of an element."""
        return max(FLOOR, math.sqrt(sum(self.squares) / max(len(self.squares), 1)))


class FiniteClosure:
    """Builds up a finite group from candidates.

    A candidate joins with all its products, or not at all: if one of them is no symmetry, neither
    is the candidate.

    Args:
        tester: Asks the data.
        n: Size of the matrices.
        limit: Largest number of elements.
    """

    def __init__(self, tester: Tester, n: int, limit: int = LIMIT) -> None:
        self._tester, self._limit = tester, limit
        self._spread = _Spread()
        self._rejected = 0
        self._large = False
        self._elements = torch.eye(n, dtype=torch.float64)[None]
        self._table = torch.zeros(1, 1, dtype=torch.long)

    @property
    def elements(self) -> Tensor:
        """The group so far, ``[m, n, n]``."""
        return self._elements

    def add(self, candidates: Tensor) -> int:
        """Close the group with further candidates.

        Args:
            candidates: ``[c, n, n]``, refined already.

        Returns:
            How many of them enlarged the group.
        """
        if not len(candidates):
            return 0
        candidates = candidates.double()
        errors = self._tester.errors(candidates)
        good = self._tester.passes(candidates, errors)
        joined = 0
        for i in torch.argsort(errors).tolist():
            if not good[i]:
                continue
            found = self._locate(candidates[i], self._elements, float(errors[i]))
            if found is not None:
                continue
            grown = self._enlarged(candidates[i])
            if grown is None:
                self._rejected += 1
                continue
            self._elements, self._table = grown
            joined += 1
        return joined

    def closed(self) -> Closed:
        """Return the group."""
        m = len(self._elements)
        spread = self._spread.value if m > 1 else 0.0
        result = Closed(self._elements, self._table, spread, self._rejected)
        if self._large:
            result.resolved = False
            result.explanation = (
                f"closure not resolved: products of the elements found lead to more than "
                f"{self._limit} elements"
            )
        elif m > 1 and APART * spread > SHARE * result.smallest:
            result.resolved = False
            result.explanation = (
                f"closure not resolved: an element is known to {spread:.2g}, "
                f"and two of them are {result.smallest:.2g} apart"
            )
        else:
            result.explanation = (
                f"{m} element{'s' * (m > 1)}, all products among them"
                if m > 1
                else "the identity alone"
            )
            if self._rejected:
                result.explanation += f"; {self._rejected} candidates left out, as products failed"
        return result

    def _locate(self, g: Tensor, elements: Tensor, error: float) -> int | None:
        """Find the element that a matrix is; None if it is one of its own."""
        apart = finite.distances(g, elements)
        nearest = int(apart.argmin())
        distance = float(apart[nearest])
        if distance <= APART * self._spread.value or not self._own(g, elements, error):
            return nearest
        return None

    def _own(self, g: Tensor, elements: Tensor, error: float) -> bool:
        """Tell whether a matrix is a minimum of its own: the error rises towards the nearest."""
        metric = finite.metric_of(elements)
        signs = torch.linalg.det(elements).sign() == torch.linalg.det(g).sign()
        if not bool(signs.any()):
            return True
        beside = elements[signs]
        nearest = beside[int(finite.distances(g, beside).argmin())]
        for share in WAY:
            point = finite.between(g, nearest, metric, share)
            if point is None:
                return True
            if float(self._tester.errors(point[None])[0]) > max(OWN * error, MIDDLE_FLOOR):
                return True
        return False

    def _enlarged(self, candidate: Tensor) -> tuple[Tensor, Tensor] | None:
        """Close the group with one more generator, or return None if a product fails."""
        cycle = self._cycle(candidate)
        if cycle is None:
            return None
        spread = list(self._spread.squares)
        grown = self._products(self._elements, cycle)
        if grown is None:
            self._spread.squares = spread
        return grown

    def _cycle(self, g: Tensor) -> Tensor | None:
        """Return the powers of an element, I first, averaged to an exact cyclic group."""
        powers = [torch.eye(len(g), dtype=torch.float64), g]
        known = list(self._spread.squares)
        while len(powers) <= self._limit:
            raw = normalised(powers[-1] @ g)
            moved = self._tester.refine(raw[None])[0].double()
            found = self._place(raw, moved, torch.stack(powers))
            if found is None:
                break
            if found == 0:
                m = len(powers)
                every = torch.arange(m)
                table = (every[:, None] + every) % m
                snapped = torch.stack([finite.snap(p, m) for p in powers])
                return finite.straighten(snapped, table)
            if found < len(powers):
                break  # a power is an earlier one, but not I: the error is too large
            powers.append(moved)
        else:
            self._large = True
        self._spread.squares = known
        return None

    def _place(self, raw: Tensor, moved: Tensor, elements: Tensor) -> int | None:
        """Find which element a product is.

        Args:
            raw: The product, ``[n, n]``.
            moved: The minimum of the loss near it.
            elements: The elements so far.

        Returns:
            Its number, ``len(elements)`` for a new one, or None if it is no symmetry.
        """
        apart = finite.distances(moved, elements)
        nearest = int(apart.argmin())
        distance = float(apart[nearest])
        if distance <= APART * self._spread.value:
            self._spread.add(float(finite.distances(raw, elements)[nearest]))
            return nearest
        errors = self._tester.errors(moved[None])
        if self._tester.passes(moved[None], errors)[0] and self._own(
            moved, elements, float(errors[0])
        ):
            self._spread.add(float((moved - raw).norm()))
            return len(elements)
        limit = finite.smallest_distance(elements) if len(elements) > 1 else 0.0
        if distance <= SHARE * limit:
            self._spread.add(float(finite.distances(raw, elements)[nearest]))
            return nearest
        return None

    def _products(self, elements: Tensor, generators: Tensor) -> tuple[Tensor, Tensor] | None:
        """Multiply until nothing new comes."""
        group = elements
        for g in generators[1:]:
            if float(finite.distances(g, group).min()) > APART * self._spread.value:
                group = torch.cat([group, g[None]])
        by = group[1:]
        at = 0
        while at < len(group):
            raws = normalised(group[at] @ by)
            near = torch.cdist(raws.flatten(1), group.flatten(1)).min(1).values
            new = near > APART * self._spread.value
            if bool(new.any()):
                moved = self._tester.refine(raws[new]).double()
                for raw, m in zip(raws[new], moved, strict=True):
                    found = self._place(raw, m, group)
                    if found is None:
                        return None
                    if found == len(group):
                        if len(group) >= self._limit:
                            self._large = True
                            return None
                        group = torch.cat([group, m[None]])
            at += 1
        table = finite.multiplication_table(group)
        if not finite.is_group(table):
            return None
        return finite.straighten(group, table), table


def close_components(
    candidates: Tensor,
    algebra: Tensor,
    tester: Tester,
    ambient: Ambient | None = None,
    limit: int = LIMIT,
) -> Closed:
    """Close components of a group with a Lie algebra.

    Args:
        candidates: One matrix for each component found, ``[c, n, n]``.
        algebra: Generators ``[k, n, n]`` of the identity component, k at least 1.
        tester: Asks the data.
        ambient: The whole group; None for GL(n).
        limit: Largest number of components.

    Returns:
        One matrix for each component. If the product of two components is no symmetry, the
        candidate with the larger error is left out.
    """
    n = candidates.shape[-1]
    unit = torch.eye(n, dtype=torch.float64)[None]
    elements, rejected, large = unit, 0, False
    candidates = candidates.double()
    if len(candidates):
        errors = tester.errors(candidates)
        good = tester.passes(candidates, errors)
        for i in torch.argsort(errors).tolist():
            if not good[i] or places(algebra, elements, candidates[i][None], ambient)[0] >= 0:
                continue
            group = torch.cat([elements, candidates[i][None]])
            at, failed = 0, False
            while at < len(group) and not failed:
                products = normalised(group[at] @ group[1:])
                at += 1
                for product, place in zip(
                    products, places(algebra, group, products, ambient), strict=True
                ):
                    if place >= 0 or places(algebra, group, product[None], ambient)[0] >= 0:
                        continue
                    moved = tester.refine(shortest(product, algebra)[None]).double()
                    passed = tester.passes(moved, tester.errors(moved))[0]
                    if passed and places(algebra, group, moved, ambient)[0] >= 0:
                        continue
                    large = large or len(group) >= limit
                    if not passed or len(group) >= limit:
                        failed = True
                        break
                    group = torch.cat([group, moved])
            if failed:
                rejected += 1
            else:
                elements = group
    m = len(elements)
    pairs = normalised((elements[:, None] @ elements[None]).flatten(0, 1))
    table = torch.tensor(places(algebra, elements, pairs, ambient), dtype=torch.long).unflatten(
        0, (m, m)
    )
    resolved = not large and bool((table >= 0).all()) and finite.is_group(table)
    words = f"{m} component{'s' * (m > 1)}, all products among them"
    if not resolved:
        words = "closure not resolved: the components' products form no group"
    elif rejected:
        words += f"; {rejected} candidates left out, as products failed"
    return Closed(elements, table, 0.0, rejected, resolved, words)


def places(
    algebra: Tensor, elements: Tensor, matrices: Tensor, ambient: Ambient | None = None
) -> list[int]:
    """Find the component of each matrix.

    Args:
        algebra: Generators ``[k, n, n]`` of the identity component.
        elements: One matrix of each component, ``[m, n, n]``.
        matrices: ``[p, n, n]``.
        ambient: The whole group; None for GL(n).

    Returns:
        The number of the element whose component each matrix is in, or −1.
    """
    found = [-1] * len(matrices)
    signs = torch.linalg.slogdet(matrices).sign.tolist()
    for number, element in enumerate(elements):
        sign = float(torch.linalg.slogdet(element).sign)
        left = [i for i, at in enumerate(found) if at < 0 and signs[i] == sign]
        if left:
            same = same_component(algebra, matrices[left], element, ambient)
            for i, is_same in zip(left, same, strict=True):
                found[i] = number if is_same else -1
    return found


def shortest(g: Tensor, algebra: Tensor, steps: int = 100) -> Tensor:
    """Find the element of ``g exp(span B)`` of nearly least norm, such as one without a boost.

    Norms are those of matrices that are scaled to determinants of ±1, so that scalings, which may
    be among the generators, do not lead to 0.

    Args:
        g: ``[n, n]``, invertible.
        algebra: Generators ``[k, n, n]``.
        steps: Steps of the descent.

    Returns:
        ``[n, n]``; never longer than ``g``.
    """
    frame, n = algebra.double().cpu(), g.shape[-1]

    def norm(m: Tensor) -> float:
        return float(m.norm()) * math.exp(-float(torch.linalg.slogdet(m).logabsdet) / n)

    best, least = g, norm(g)
    for _ in range(steps):
        # d/dw ‖g exp(wB)‖² |det(g exp(wB))|^(−2/n) at w = 0 is that of B without its trace.
        square = best.square().sum()
        slope = torch.stack([(best * (best @ b)).sum() - square * b.trace() / n for b in frame])
        if float(slope.norm()) < 1e-6 * float(square):
            break
        direction = -(slope[:, None, None] * frame).sum(0) / slope.norm()
        for length in (1.0, 0.3, 0.1, 0.03, 0.01):
            moved = best @ torch.matrix_exp(length * direction)
            if norm(moved) < least:
                best, least = moved, norm(moved)
                break
        else:
            break
    return best
