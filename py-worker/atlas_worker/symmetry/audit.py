"""An audit: in which layer a network loses an equivariance (METHOD 4.8).

Nobody knows by which representation a hidden layer h moves. So a type is sought for it, a sum of
blocks such as ``8S+4V``, that explains ``h(g x) = ρ(g) h(x)`` best; and a linear map M fitted to
half of the samples tells on the other half whether *any* representation would. Then the layer is
*repaired*: the network computes ``f(g x)`` with ``ρ(g) h(x)`` in the place of ``h(g x)``. If the
output is right after that, the fault lies in this layer or before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..fields.resample import Interpolation, transform
from ..rng import random_stream
from .action import Action
from .ambient import Ambient
from .features import FeatureType
from .planar import PlanarAction
from .vectors import VectorAction

NUMBERS = 2**15
"""Numbers of a layer that are compared at each element."""
MOST_ROWS = 2**12
"""Largest number of rows that are compared."""
MOST_WIDE = 1024
"""Components up to which a layer's type is sought."""
MOST_TOGETHER = 256
"""Components up to which several axes are taken together."""
LARGEST_BLOCK = 36
"""Components of the largest block of a type that is tried."""
ROWS_EACH = 4
"""Rows for each component that a fitted map needs, half of them to test it."""
ROUNDING = 5.0
"""Errors up to this many times the effect of rounding the input are rounding."""
BENT = 2.0
"""Errors up to this many times the effect of a random error of the elements are its effect."""
LEAST = 1e-6
"""Relative error that is always put down to rounding."""
REPAIRED = 0.8
"""Share of the output's error up to which a repair counts."""
CREDIBLE = 0.8
"""Share of the error of "nothing moves" up to which a type is credible."""
FITS = 1e-3
"""Error up to which a fitted map explains how a layer moves."""
FITTED = "a fitted map"
UNKNOWN = "unknown"


class Runner(Protocol):
    """Runs a predictor and reads its layers."""

    def __call__(
        self, x: Tensor, replaced: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute outputs ``[B, C, ...]`` of inputs, and the outputs of all layers by name.

        The rows of the layers are samples times charts.
        """
        ...


@dataclass
class LayerAudit:
    """What was found about one layer; errors are relative to the layer's own spread."""

    name: str
    shape: list[int]
    """Shape of its output for one row."""
    moved_as: str = UNKNOWN
    """The type by which it moves best, or that a fitted map is needed."""
    errors: list[float] = field(default_factory=list)
    """``‖h(gx) − ρ(g) h(x)‖`` for each element."""
    floors: list[float] = field(default_factory=list)
    """What interpolation and rounding may cause of each."""
    repaired: float = math.nan
    """The output's error at the judged element once this layer is repaired; NaN if it was not."""
    added: float = 0.0
    """How much of the output's error disappears with this repair, beside those of layers before."""
    breaks: bool = False
    """Whether this is the first layer that breaks the symmetry."""


@dataclass(frozen=True)
class Audit:
    """The findings of an audit."""

    sizes: list[float]
    """The share of the inputs' own spread that each element moves."""
    errors: list[float]
    """``‖f(gx) − g f(x)‖`` relative to the outputs' spread, for each element."""
    floors: list[float]
    """What interpolation and rounding may cause of each."""
    judged: int
    """The element at which the layers were judged: where the error is largest beside its floor."""
    broken: bool
    """Whether the output's error exceeds its floor at any element."""
    layers: list[LayerAudit]
    """In the order in which they end; the network's own output last."""
    worst: list[tuple[int, float]]
    """Samples with the largest errors at the judged element, and these errors."""
    unread: list[str] = field(default_factory=list)
    """Layers whose outputs could not be compared."""


@dataclass(frozen=True)
class Block:
    """A kind of block of a type: how g moves so many components."""

    name: str
    size: int
    matrix: Callable[[Tensor], Tensor]
    shift: Callable[[Tensor], Tensor] | None = None
    signed: bool = False


def blocks_of(ambient: Ambient, elements: Tensor) -> list[Block]:
    """List the kinds of blocks by which layers may move under a group.

    Args:
        ambient: The group.
        elements: ``[E, n, n]``. Kinds that are the same for all of them are listed once.
    """
    found: list[tuple[Block, Tensor]] = []

    def add(block: Block) -> None:
        matrices = block.matrix(elements)
        shifts = None if block.shift is None else block.shift(elements)
        for other, known in found:
            same = other.size == block.size and torch.allclose(matrices, known, atol=1e-5)
            if same and (shifts is None or not bool(shifts.abs().max() > 1e-5)):
                return
        found.append((block, matrices))

    def kind(text: str, n: int) -> FeatureType:
        return FeatureType(text, n, ambient=ambient)

    add(Block("S", 1, kind("S", 1)))
    for factor in ambient.factors:
        name, n = factor.name, factor.n

        def sign(g: Tensor, name: str = name) -> Tensor:
            det: Tensor = torch.linalg.det(ambient.linear_part(g, name)).sign()
            return det[..., None, None]

        for term in ("V", "C", "T", "F"):
            type = kind(term + name, n)
            if type.size > LARGEST_BLOCK:
                continue
            if type.size > 1 or term in "VT":
                add(Block(term + name, type.size, type))

            def signed(g: Tensor, type: FeatureType = type, name: str = name) -> Tensor:
                return sign(g, name) * type(g)

            add(Block(f"{term}{name}·det", type.size, signed, signed=True))
        add(Block(f"P{name}", 1, sign, signed=True))
        if factor.affine:
            point = kind("X" + name, n)

            def moved_by(g: Tensor, point: FeatureType = point) -> Tensor:
                shift = point.shift(g)
                assert shift is not None
                return shift

            add(Block("X" + name, n, point, moved_by))
    return [block for block, _ in found]


@dataclass(frozen=True)
class Layout:
    """How the components that move lie in a layer's output ``[R, a_1, …, a_k]``."""

    axes: tuple[int, ...] = ()
    """Axes that are moved to the end."""
    together: bool = True
    """Whether all axes but the rows are components, in this order; else only ``axes``."""
    planar: bool = False
    """Whether the output is fields ``[R, channels, s, s]``, whose pixels move too."""

    def rows(self, h: Tensor) -> Tensor:
        """Return ``[rows, components]``; of fields, whose pixels are rows, all of them."""
        if self.planar:
            return h.permute(0, 2, 3, 1).flatten(0, 2)
        moved = h.movedim(self.axes, tuple(range(-len(self.axes), 0))) if self.axes else h
        if self.together:
            return moved.flatten(1)
        return moved.flatten(-len(self.axes)).flatten(0, -2)

    def back(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Undo :meth:`rows`, for an output of the given shape."""
        if self.planar:
            r, c, s, t = shape
            return rows.reshape(r, s, t, c).permute(0, 3, 1, 2)
        kept = [i for i in range(len(shape)) if i not in self.axes]
        order = [*kept, *self.axes]
        inverse = [order.index(i) for i in range(len(shape))]
        return rows.reshape([shape[i] for i in order]).permute(inverse)


def layouts_of(h: Tensor, ambient: Ambient, planar: bool) -> list[Layout]:
    """List the layouts that the shape of a layer's output allows."""
    shape = h.shape
    if planar and h.dim() == 4 and shape[2] == shape[3] and shape[2] > 1:
        return [Layout(planar=True)]
    found = []
    together = math.prod(shape[1:]) <= (MOST_WIDE if h.dim() == 2 else MOST_TOGETHER)
    if together:
        found.append(Layout())
    if h.dim() > 2 and shape[-1] <= MOST_WIDE:
        found.append(Layout((h.dim() - 1,), together=False))
    sizes = {factor.n for factor in ambient.factors if factor.n > 1}
    of_size = [i for i in range(1, h.dim()) if shape[i] in sizes]
    for i in of_size:
        if i < h.dim() - 1:
            found.append(Layout((i,), together=False))
            if together:
                found.append(Layout((i,)))
    for i in of_size:
        for j in of_size:
            if i < j and (i, j) != (h.dim() - 2, h.dim() - 1):
                found.append(Layout((i, j), together=False))
    if h.dim() == 2:
        # Components by turns, as for vectors kept as [n, channels].
        found += [_Turns(turns=n) for n in sizes if shape[1] % n == 0 and shape[1] > n]
    return found


@dataclass(frozen=True)
class _Turns(Layout):
    """Components of vectors by turns: all first components, then all second ones, …"""

    turns: int = 1

    def rows(self, h: Tensor) -> Tensor:
        turned: Tensor = h.unflatten(1, (self.turns, -1)).mT.flatten(1)
        return turned

    def back(self, rows: Tensor, shape: torch.Size) -> Tensor:
        turned: Tensor = rows.unflatten(1, (-1, self.turns)).mT.flatten(1)
        return turned


@dataclass(frozen=True)
class Hypothesis:
    """A layout, and the type of its components."""

    layout: Layout
    blocks: tuple[Block, ...]
    at: tuple[int, ...]

    def __str__(self) -> str:
        counted: list[tuple[str, int]] = []
        for block in self.blocks:
            if counted and counted[-1][0] == block.name:
                counted[-1] = (block.name, counted[-1][1] + 1)
            else:
                counted.append((block.name, 1))
        text = "+".join(f"{n if n > 1 else ''}{name}" for name, n in counted[:6])
        text += "+…" if len(counted) > 6 else ""
        layout = self.layout
        if layout.planar:
            return f"field of {text}"
        if isinstance(layout, _Turns):
            return f"{text}, components by turns"
        if layout.axes and not (layout.together or layout.axes[-1] == 0):
            return f"{text} on axis {', '.join(map(str, layout.axes))}"
        return text

    def rho(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Return the representation ``[D, D]`` and the shift ``[D]`` of a matrix."""
        size = self.at[-1] + self.blocks[-1].size
        rho, shift = g.new_zeros(size, size), g.new_zeros(size)
        for block, at in zip(self.blocks, self.at, strict=True):
            span = slice(at, at + block.size)
            rho[span, span] = block.matrix(g)
            if block.shift is not None:
                shift[span] = block.shift(g)
        return rho, shift


class _Layer:
    """Gathers what the elements tell about one layer."""

    def __init__(
        self, name: str, h: Tensor, blocks: list[Block], ambient: Ambient, planar: bool, seed: int
    ) -> None:
        self.name, self.shape, self._blocks = name, h.shape, blocks
        self.layouts = layouts_of(h, ambient, planar)
        self.residuals: list[list[list[Tensor]]] = [[] for _ in self.layouts]
        self.spreads: list[list[float]] = [[] for _ in self.layouts]
        self.still: list[list[float]] = [[] for _ in self.layouts]
        self.free: list[list[float]] = [[] for _ in self.layouts]
        self.fine: list[list[float]] = [[] for _ in self.layouts]
        self._seed = seed

    def see(
        self,
        g: Tensor,
        x: Sequence[Tensor],
        y: Tensor,
        masks: Sequence[Tensor | None],
        finer: Sequence[Tensor] | None,
        fine_y: Tensor | None,
    ) -> None:
        """Look at ``h(gx)`` beside ``h(x)``, whose pixels were moved where a layout says so."""
        for i, layout in enumerate(self.layouts):
            a, b = layout.rows(x[i]), layout.rows(y)
            mask = masks[i]
            kept = None if mask is None else layout.rows(mask.expand_as(y[:, :1]))[:, 0] > 0
            at = self._some(len(a), a.shape[1], kept, g.device)
            p, q = a[at], b[at]
            spread = float(0.5 * ((p - p.mean(0)).square() + (q - q.mean(0)).square()).sum())
            self.spreads[i].append(max(spread, 1e-30, 1e-12 * float(p.square().sum())))
            self.still[i].append(float((q - p).square().sum()))
            tables = [self._table(block, g, p, q) for block in self._blocks]
            self.residuals[i].append(tables)
            self.free[i].append(_fitted_error(p, q))
            fine = 0.0
            if finer is not None and fine_y is not None:
                c, d = layout.rows(finer[i])[at], layout.rows(fine_y)[at]
                fine = math.sqrt(float((c - p).square().sum())) + math.sqrt(
                    float((d - q).square().sum())
                )
            self.fine[i].append(fine / math.sqrt(self.spreads[i][-1]))

    def _some(self, rows: int, width: int, kept: Tensor | None, device: torch.device) -> Tensor:
        """Choose rows, the same at every element if all are allowed."""
        draw = torch.randperm(rows, generator=random_stream(self._seed, 97)).to(device)
        if kept is not None:
            draw = draw[kept[draw]]
        return draw[: min(max(NUMBERS // width, 64), MOST_ROWS)]

    def _table(self, block: Block, g: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """Residuals of a block at every place, ``[D − size + 1]``."""
        if p.shape[1] < block.size:
            return p.new_zeros(0, dtype=torch.float64)
        moved = p.unfold(1, block.size, 1) @ block.matrix(g).mT
        if block.shift is not None:
            moved = moved + block.shift(g)
        return (q.unfold(1, block.size, 1) - moved).double().square().sum((0, 2)).cpu()

    def best(
        self, *, signed: bool = True, uniform: bool = False
    ) -> tuple[Hypothesis, list[float], int] | None:
        """Find the layout and type with the least error.

        Args:
            signed: Whether blocks that change their sign with that of a determinant are tried.
            uniform: Whether all blocks are of one kind, and no scalars. A fault in some blocks then
                does not change their kind.

        Returns:
            The hypothesis, its errors, and the number of the layout; None if there is none.
        """
        found: tuple[float, Hypothesis, list[float], int] | None = None
        for i, layout in enumerate(self.layouts):
            choice = self._uniform(i) if uniform else self._type(i, signed=signed)
            if choice is None:
                continue
            kinds, at = choice
            errors = [
                math.sqrt(sum(float(tables[k][a]) for k, a in zip(kinds, at, strict=True)) / spread)
                for tables, spread in zip(self.residuals[i], self.spreads[i], strict=True)
            ]
            total = math.sqrt(sum(e * e for e in errors) / len(errors))
            if found is None or total < 0.9 * found[0]:
                of = Hypothesis(layout, tuple(self._blocks[k] for k in kinds), tuple(at))
                found = (total, of, errors, i)
        return None if found is None else found[1:]

    def _uniform(self, i: int) -> tuple[list[int], list[int]] | None:
        """Divide the components into blocks of the kind with the least residuals."""
        found: tuple[float, list[int], list[int]] | None = None
        for k, block in enumerate(self._blocks):
            tables = [tables[k] for tables in self.residuals[i]]
            width = len(tables[0]) + block.size - 1
            if block.size == 1 or len(tables[0]) == 0 or width % block.size:
                continue
            at = list(range(0, width, block.size))
            cost = sum(float(t[at].sum()) / w for t, w in zip(tables, self.spreads[i], strict=True))
            if found is None or cost < found[0]:
                found = (cost, [k] * len(at), at)
        return None if found is None else found[1:]

    def _type(self, i: int, *, signed: bool) -> tuple[list[int], list[int]] | None:
        """Divide the components into blocks so that the residuals at all elements are least."""
        weights = [1 / spread for spread in self.spreads[i]]
        tables = [
            sum(
                (w * t[k] for w, t in zip(weights, self.residuals[i], strict=True)),
                torch.zeros(()),
            ).tolist()
            for k in range(len(self._blocks))
        ]
        width = len(tables[0])
        best: list[tuple[float, int]] = [(0.0, -1)] + [(math.inf, -1)] * width
        for end in range(1, width + 1):
            for k, block in enumerate(self._blocks):
                start = end - block.size
                if start < 0 or (block.signed and not signed):
                    continue
                cost = best[start][0] + tables[k][start] + 1e-13 * (1 + k)
                if cost < best[end][0]:
                    best[end] = (cost, k)
        kinds, at, end = list[int](), list[int](), width
        while end > 0:
            k = best[end][1]
            if k < 0:
                return None
            end -= self._blocks[k].size
            kinds.append(k)
            at.append(end)
        return kinds[::-1], at[::-1]


def _fitted_error(p: Tensor, q: Tensor) -> float:
    """Error on half of the rows of the linear map that fits the other half; NaN for too few."""
    half = len(p) // 2
    if len(p) < ROWS_EACH * p.shape[1]:
        return math.nan
    a, b = p.double().cpu(), q.double().cpu()
    scale = a[:half].square().mean(0).sqrt().clamp(min=1e-30)
    fit = torch.linalg.lstsq(a[:half] / scale, b[:half], rcond=1e-7, driver="gelsy").solution
    spread = 0.5 * (
        (a[half:] - a[half:].mean(0)).square().sum() + (b[half:] - b[half:].mean(0)).square().sum()
    )
    floor = max(1e-30, 1e-12 * float(a.square().sum()))
    error = (a[half:] / scale @ fit - b[half:]).square().sum()
    return math.sqrt(float(error / spread.clamp(min=floor)))


def _valid(size: int, g: Tensor, share: float) -> Tensor:
    """Which pixels u of a moved field, and its source, lie inside: ``[size, size]`` bool.

    Args:
        size: Width of the field.
        g: ``[2, 2]``.
        share: Share of the half width up to which pixels are compared.
    """
    half = (size - 1) / 2
    axis = torch.linspace(-half, half, size, device=g.device)
    u = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    source = torch.einsum("ij,rcj->rci", torch.linalg.inv(g.float()), u).abs().amax(-1)
    inside: Tensor = (source <= half + 1e-3) & (u.abs().amax(-1) <= share * half + 0.51)
    return inside


def audit(
    run: Runner,
    action: Action,
    x: Tensor,
    elements: Tensor,
    ambient: Ambient,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
    *,
    accuracy: float = 0.0,
    logits: bool = False,
) -> Audit:
    """Audit a network under given elements of a group.

    Args:
        run: Runs the network.
        action: How matrices act on its inputs and outputs.
        x: Samples ``[B, C, ...]``, with the margin that the action's interpolation reads.
        elements: ``[E, n, n]``.
        ambient: The group.
        seed: Seed of the rows that are compared, and of the rounding.
        check: Called before each run; it may raise an error to stop.
        accuracy: Relative error of the elements themselves, which were learnt; 0 for exact ones.
        logits: Whether the outputs are logits of classes, which are compared as probabilities.

    Returns:
        The findings.
    """
    planar = isinstance(action, PlanarAction)
    fine, coarse = action.finer_interpolation(), action if planar else None
    share = 1.0
    if isinstance(action, PlanarAction):
        share = min(1.0, action.r_out / max(action.r_field - action.halo, 1))
        fine = replace(action, interpolation="bicubic", interpolation_out="bicubic")
        coarse = replace(action, interpolation="bilinear", interpolation_out="bilinear")
    elements = elements.to(x)
    lead = x.shape[:2]
    y0, home = _finite(run(fine.crop_in(x)), "the samples")
    step = torch.randn(x.shape, generator=random_stream(seed, 98)).to(x) * torch.finfo(x.dtype).eps
    y1, shaken = run(fine.crop_in(x * (1 + step)))
    blocks = blocks_of(ambient, elements)
    layers = {name: _Layer(name, h, blocks, ambient, planar, seed) for name, h in home.items()}
    rounding = {name: ROUNDING * _relative(shaken[name] - h, h) for name, h in home.items()}
    output = _Output(fine, coarse, y0, logits=logits)
    out_floor = ROUNDING * output.change(y1)
    if accuracy > 0:
        near = _near_identity(ambient, accuracy, seed).to(x)
        y2, bent = run(fine.act_in(near.expand(*lead, -1, -1), x))
        out_floor += BENT * output.change(y2)
        for name, h in home.items():
            rounding[name] += BENT * _relative(bent[name] - h, h)
    errors, floors, sizes = list[float](), list[float](), list[float]()
    skipped: dict[str, None] = {}
    for g in elements:
        check()
        each = g.expand(*lead, *g.shape)
        moved = fine.act_in(each, x)
        sizes.append(_size(moved, fine.crop_in(x)))
        y, there = _finite(run(moved), "moved samples")
        fine_y: dict[str, Tensor] | None = None
        other: Tensor | None = None
        if coarse is not None:
            other, fine_y = _finite(run(coarse.act_in(each, x)), "moved samples")
        error, floor = output.errors(each, y, other)
        errors.append(error)
        floors.append(max(LEAST, out_floor, floor))
        u = ambient.linear_part(g, "") if planar else g
        for name, layer in layers.items():
            h, after = home[name], there.get(name)
            if after is None or after.shape != h.shape:
                skipped[name] = None
                continue
            at, masks, finer = list[Tensor](), list[Tensor | None](), list[Tensor]()
            for layout in layer.layouts:
                at.append(_carry(h, u, layout, "bicubic"))
                finer.append(_carry(h, u, layout, "bilinear"))
                masks.append(_valid(h.shape[-1], u, share).to(h) if layout.planar else None)
            other_h = None if fine_y is None else fine_y.get(name)
            layer.see(g, at, after, masks, finer, other_h)
    ratios = [e / f for e, f in zip(errors, floors, strict=True)]
    judged = max(range(len(ratios)), key=ratios.__getitem__)
    broken = ratios[judged] > 1
    findings = []
    g = elements[judged]
    each = g.expand(*lead, *g.shape)
    moved = fine.act_in(each, x)
    _, there = run(moved)
    best_yet, culprit = errors[judged], None
    u = ambient.linear_part(g, "") if planar else g
    for name, layer in layers.items():
        check()
        h = home[name]
        found = LayerAudit(name, list(layer.shape[1:]))
        findings.append(found)
        compared = name not in skipped and layer.spreads and all(layer.spreads)
        choice = layer.best() if compared else None
        if name == _last(layers):
            found.errors, found.floors = errors, floors
            found.moved_as = "as given"
            found.repaired = 0.0
            found.breaks = broken and culprit is None
            found.added = best_yet if broken else 0.0
            continue
        if choice is None:
            continue
        hypothesis, typed, number = choice
        free = layer.free[number]
        found.floors = [max(LEAST, rounding[name], f) for f in layer.fine[number]]
        floor = found.floors[judged]
        still = math.sqrt(
            sum(s / t for s, t in zip(layer.still[number], layer.spreads[number], strict=True))
            / len(typed)
        )
        total = math.sqrt(sum(e * e for e in typed) / len(typed))
        credible = total <= CREDIBLE * still or total <= floor
        fits = free[judged] <= max(floor, FITS)
        found.moved_as, found.errors = str(hypothesis), typed
        worse = typed[judged] > floor
        if broken and worse and credible:
            choices = {str(hypothesis): hypothesis}
            for rival in (layer.best(signed=False), layer.best(uniform=True)):
                if rival is not None:
                    choices.setdefault(str(rival[0]), rival[0])
            repairs = []
            for supposed in choices.values():
                own = _repaired(supposed, h, there[name], g, u)
                repairs.append(output.errors(each, run(moved, {name: own})[0], None)[0])
            found.repaired = min(repairs)
        elif broken and not worse:
            found.repaired = errors[judged]
        repaired = found.repaired <= REPAIRED * best_yet
        if (
            broken
            and culprit is None
            and worse
            and (
                (credible and repaired) or not (fits or (math.isnan(free[judged]) and not credible))
            )
        ):
            found.breaks, culprit = True, name
        if repaired:
            found.added = best_yet - found.repaired
            best_yet = found.repaired
        if worse and not credible and fits:
            found.moved_as, found.errors = FITTED, free
        elif worse and not credible:
            found.moved_as = UNKNOWN
    worst = output.worst(each, run(moved)[0])
    return Audit(sizes, errors, floors, judged, broken, findings, worst, list(skipped))


def _finite(made: tuple[Tensor, dict[str, Tensor]], where: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what a network computed. Raises ``InvalidInput`` if its outputs are not finite."""
    if not bool(made[0].isfinite().all()):
        raise InvalidInput(
            f"the predictor's outputs of {where} are not all finite numbers",
            "predictor",
            "finite outputs wherever the symmetry leads",
            "give samples that stay in its domain when they are moved",
        )
    return made


def _near_identity(ambient: Ambient, accuracy: float, seed: int) -> Tensor:
    """An element of the whole group, so far from the identity: ``[1, 1, n, n]``."""
    draw = torch.randn(ambient.n, ambient.n, generator=random_stream(seed, 95)) * ambient.mask()
    step = draw * accuracy * math.sqrt(ambient.n) / draw.norm()
    near: Tensor = torch.eye(ambient.n) + step
    return near[None, None]


def _last(layers: Mapping[str, _Layer]) -> str:
    return list(layers)[-1]


def _carry(h: Tensor, u: Tensor, layout: Layout, interpolation: Interpolation) -> Tensor:
    """Move the pixels of a layer's fields; leave everything else."""
    if not layout.planar:
        return h
    moved: Tensor = transform(h, u, h.shape[-1] // 2, interpolation)
    return moved


def _repaired(hypothesis: Hypothesis, h: Tensor, after: Tensor, g: Tensor, u: Tensor) -> Tensor:
    """Compute ``ρ(g) h(x)``, which takes the place of ``h(g x)``.

    Args:
        hypothesis: How the layer moves.
        h: Its output ``h(x)``.
        after: ``h(g x)``, which is kept where the moved output comes from outside of the field.
        g: The matrix.
        u: How it moves pixels.
    """
    layout = hypothesis.layout
    rho, shift = hypothesis.rho(g)
    carried = layout.rows(_carry(h, u, layout, "bicubic")) @ rho.mT + shift
    repaired = layout.back(carried, h.shape)
    return torch.where(_valid(h.shape[-1], u, 1.0), repaired, after) if layout.planar else repaired


class _Output:
    """Compares outputs with the moved outputs of unmoved samples."""

    def __init__(self, fine: Action, coarse: Action | None, y: Tensor, *, logits: bool) -> None:
        self._fine, self._coarse, self._logits = fine, coarse, logits
        self._y = y = self._comparable(y)
        kept = fine.crop_out(y)
        self._spread = max(float((kept - kept.mean((0, 1))).square().mean()), 1e-30)

    def _comparable(self, y: Tensor) -> Tensor:
        return y.softmax(2) if self._logits else y

    def change(self, y: Tensor) -> float:
        """Return the relative change of outputs from those of unmoved samples."""
        return _relative(self._comparable(y) - self._y, self._y)

    def _squares(self, g: Tensor, y: Tensor) -> Tensor:
        """Squared errors ``[B, C, ...]``; outputs of vectors are compared moved back."""
        y = self._comparable(y)
        if isinstance(self._fine, VectorAction):
            return (self._fine.act_out(torch.linalg.inv(g), y) - self._y).square()
        target, kept = self._fine.act_out(g, self._y), self._fine.crop_out(y)
        return (kept - target).square() * self._mask(g, kept)

    def _mask(self, g: Tensor, y: Tensor) -> Tensor:
        assert isinstance(self._fine, PlanarAction)
        whole = self._y.shape[-1]
        inside = _valid(whole, self._fine.ambient.linear_part(g[0, 0], ""), 1.0)
        cut = (whole - y.shape[-1]) // 2
        return inside[cut : whole - cut, cut : whole - cut].to(y)

    def errors(self, g: Tensor, y: Tensor, other: Tensor | None) -> tuple[float, float]:
        """Return the error of ``f(gx)``, and what interpolation may cause of it."""
        share = 1.0
        if isinstance(self._fine, PlanarAction):
            share = float(self._mask(g, self._fine.crop_out(y)).mean()) or 1.0
        scale = math.sqrt(self._spread * share)
        error = math.sqrt(float(self._squares(g, y).mean())) / scale
        if other is None or self._coarse is None:
            return error, 0.0
        mask = self._mask(g, self._fine.crop_out(y))
        sides = (
            self._fine.crop_out(self._comparable(other) - self._comparable(y)),
            self._fine.act_out(g, self._y) - self._coarse.act_out(g, self._y),
        )
        floor = sum(math.sqrt(float((side.square() * mask).mean())) for side in sides)
        return error, floor / scale

    def worst(self, g: Tensor, y: Tensor, count: int = 5) -> list[tuple[int, float]]:
        """Return the samples with the largest errors, and these."""
        squares = self._squares(g, y).flatten(1).mean(1)
        values, at = squares.sort(descending=True)
        pairs = zip(at.tolist(), (values / self._spread).sqrt().tolist(), strict=True)
        return list(pairs)[:count]


def _relative(difference: Tensor, h: Tensor) -> float:
    spread = (h - h.mean(0)).square().mean()
    least = 1e-12 * h.square().mean()
    return math.sqrt(float(difference.square().mean() / torch.maximum(spread, least).clamp(1e-30)))


def _size(moved: Tensor, x: Tensor) -> float:
    """The share of the inputs' spread that is moved, ``E‖gx − x‖² / 2E‖x − x̄‖²``."""
    spread = 2 * (x - x.mean(0)).square().mean()
    return float((moved - x).square().mean() / spread.clamp(min=1e-30))
