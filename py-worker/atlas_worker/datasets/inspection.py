"""What is in a file: its arrays, how they may lie, and what their numbers are like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from .axes import known_axes
from .files import at_field, lay
from .readers import Member, Opened, Source, open_file
from .trajectories import filled_up

WHOLE = 2**30
"""Bytes up to which the numbers of an array are looked at whole."""
SEEN = 2**28
"""Bytes of a larger array that are looked at, in parts all over it."""
PART = 2**22
"""Bytes that are read at a time."""
WIDEST = 512
"""Largest number of features or channels that are looked at one by one."""
RANK = 1e-10
"""Smallest eigenvalue of the features' second moments, scaled to ones, relative to the largest."""
FIELD = "path"


@dataclass
class Layout:
    """How an array lies, and why."""

    axes: str
    """Names of the axes in the order of the file; empty if they are ambiguous."""
    reason: str
    readings: list[str] = field(default_factory=list)
    """The values of ``axes`` among which the user must choose."""
    features: str = ""
    """Types of the features; empty for the default of the layout."""
    features_reason: str = ""
    members: list[str] = field(default_factory=list)
    """The members in the order in which to give them; empty for the order of the request."""


@dataclass
class Summary:
    """What the numbers of an array are like."""

    samples: int
    """Number of samples that were looked at."""
    minimum: float
    maximum: float
    missing: int
    """Numbers that are missing or NaN."""
    infinite: int
    first: str
    """Where the first number is that is not finite; empty if all are."""
    names: list[str]
    """Names of the features or channels, if they are looked at one by one."""
    minima: list[float]
    maxima: list[float]
    constant: list[str]
    """Those that have one value everywhere."""
    rank: int
    """Dimension of the space that the features span; −1 if that is not known."""
    whole: bool
    """Whether all numbers are whole."""
    short: bool = False
    """Whether numbers are missing only at the ends, as in trajectories of unequal lengths."""


@dataclass
class Found:
    """An array, or several that are joined."""

    member: Member
    layout: Layout | None = None
    summary: Summary | None = None
    trouble: str = ""
    """Why the numbers could not be read."""


@dataclass
class Report:
    """What is in a file."""

    format: str
    found: list[Found]
    warnings: list[str]


def inspect(
    path: Path,
    members: Sequence[str],
    axes: str,
    on_part: Callable[[], None] = lambda: None,
    *,
    numbers: bool = True,
) -> Report:
    """Look at a file.

    Args:
        path: The file.
        members: Arrays to look at, which are joined; empty for each array by itself.
        axes: Names of the axes that the user gave; empty if none.
        on_part: Called after each part that is read; may raise an error to stop.
        numbers: Whether to look at the numbers.

    Returns:
        The arrays. If ``members`` are given, the last one is what they are joined to.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: The file is damaged, or has no such array.
        NotReady: The worker lacks the package that reads the file.
    """
    with at_field(FIELD), open_file(path) as opened:
        found = [Found(member) for member in opened.members]
        if members:
            sources = opened.open_all(members)
            found = [Found(source.member) for source in sources]
            for one, source in zip(found, sources, strict=True):
                _look(one, [source], axes)
                if numbers:
                    _summarise(one, source, on_part)
            if len(sources) > 1:
                found.append(_look_at_all(opened, sources, axes, on_part if numbers else None))
        else:
            shown = {m.name for m in opened.choices()}
            for one in found:
                if one.member.name in shown and one.member.size:
                    try:
                        source = opened.open(one.member.name)
                        _look(one, [source], axes)
                        if numbers:
                            _summarise(one, source, on_part)
                    except InvalidInput as error:
                        one.trouble = error.message
            if columns := _usable_columns(opened.members):
                sources = [opened.open(name) for name in columns]
                found.append(_look_at_all(opened, sources, axes, on_part if numbers else None))
        return Report(opened.kind, found, list(dict.fromkeys(opened.warnings)))


def _usable_columns(members: Sequence[Member]) -> list[str]:
    """Name the columns of numbers of a table that cannot be used whole; empty if there is none."""
    tables = [m for m in members if m.problem and m.columns and not m.part_of]
    if len(tables) != 1 or any(not m.problem and not m.part_of for m in members):
        return []
    columns = [m.name for m in members if m.part_of and not m.problem and m.size]
    return columns if len(columns) > 1 else []


def _look_at_all(
    opened: Opened, sources: Sequence[Source], axes: str, on_part: Callable[[], None] | None
) -> Found:
    """Look at members together: how they are joined, and at the numbers of columns of a table.

    Args:
        opened: The file.
        sources: The members.
        axes: Names of the axes that the user gave; empty if none.
        on_part: Called after each part that is read; None if the numbers are not wanted.

    Returns:
        What was found.
    """
    joined = Found(_joined(sources))
    _look(joined, sources, axes, _goes_south(opened, sources[0].member))
    shapes = {source.member.shape for source in sources}
    (rows, *inner) = sources[0].member.shape
    if on_part is None or len(shapes) > 1 or inner or 8 * rows * len(sources) > SEEN:
        return joined
    # Files of rows are read from front to back, so each column is read at once.
    try:
        table = np.stack([np.asarray(s.read(0, 0, rows), np.float64) for s in sources], 1)
    except InvalidInput as error:
        joined.trouble = error.message
        return joined
    member = replace(joined.member, shape=table.shape)
    held = Source(sources[0].path, member, lambda index: table[index])
    joined.summary = _summary(held, ("n", "features"), on_part)
    return joined


def _joined(sources: Sequence[Source]) -> Member:
    first = sources[0].member
    names = tuple(source.member.name for source in sources)
    return Member(",".join(names), first.shape, first.dtype, first.dims, columns=names)


def _look(
    found: Found, sources: Sequence[Source], axes: str, southward: bool | None = None
) -> None:
    """Find out the layout of members."""
    member = sources[0].member
    if not axes and len(sources) == 1 and member.dims in ((), (None,)) and len(member.shape) == 1:
        found.layout = Layout("n", "one number for each sample: targets")
    else:
        try:
            array = lay("inputs", sources[0].path, list(sources), axes)
            names = array.names
            found.layout = Layout(",".join(names), _reason(member, names, axes))
            if len(sources) > 1:
                shape = list(array.shape)
                found.layout.axes = ",".join(array.axes)
                found.layout.reason += f"; joined along {array.joined} to {shape}"
                found.member = Member(
                    found.member.name, array.shape, member.dtype, columns=found.member.columns
                )
            _type(found.layout, array.axes, array.shape, _names_of(sources), southward)
        except InvalidInput as error:
            readings = _readings(len(member.shape)) if "may be" in error.message else []
            if "channels last" in error.message:
                readings = ["n,y,x,c", "n,c,y,x"]
            found.layout = Layout("", error.message, readings)


def _summarise(found: Found, source: Source, on_part: Callable[[], None]) -> None:
    axes = found.layout.axes if found.layout else ""
    found.summary = _summary(source, tuple(axes.split(",")) if axes else None, on_part)
    if found.layout and found.summary.short:
        found.layout.reason += "; or trajectories of unequal lengths: gaps are at the ends only"
        found.layout.readings = ["n,t,features"]


def _readings(rank: int) -> list[str]:
    return {2: ["n,features", "n,items"], 3: ["n,y,x", "n,items,features"]}.get(rank, [])


def _reason(member: Member, names: tuple[str, ...], axes: str) -> str:
    if axes:
        return "as you say"
    if member.dims and known_axes(member.dims) == names:
        return f"the file names its axes {', '.join(map(str, member.dims))}"
    if member.columns:
        return "rows and columns of a table"
    if len(member.shape) == 1 and member.part_of:
        return "columns of a table, a number in each row"
    if len(member.shape) == 2:
        return "two axes: samples, and their features"
    if len(member.shape) == 3:
        items, n = member.shape[1:]
        return f"three axes, of which one is short: sets of {items} items with {n} features"
    if len(member.shape) == 4:
        channels, height, width = member.shape[1:]
        return f"four axes: {channels} channels of fields, {height} × {width}"
    return "one number for each sample"


def _names_of(sources: Sequence[Source]) -> list[str]:
    member = sources[0].member
    return [s.member.name for s in sources] if len(sources) > 1 else list(member.columns)


def _type(
    layout: Layout,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    names: list[str],
    southward: bool | None = None,
) -> None:
    """Guess the types of the features.

    Args:
        layout: What to complete.
        axes: Names of the axes.
        shape: Their lengths.
        names: Names of the channels or features; empty if they have none.
        southward: Whether rows go south; None if that is not known.
    """
    extents = dict(zip(axes, shape, strict=True))
    if "y" in axes and "x" in axes:
        count = extents.get("c", 1)
        vectors = _winds([name.rsplit("/", 1)[-1] for name in names])
        if vectors and len(names) == count:
            pairs = ", ".join(f"{names[i]} and {names[i + 1]}" for i in vectors)
            order = "the component along the rows (downwards) comes first"
            layout.features_reason = f"{pairs} are named as the components of a vector; {order}"
            if southward is not None:
                layout.features = _sum(count, vectors)
                layout.members = _downwards(names, vectors, southward)
                way = "south" if southward else "north"
                layout.features_reason += f", and the rows go {way}"
        elif count == 1:
            layout.features_reason = "a scalar, if you do not say otherwise"
        else:
            layout.features_reason = (
                f"{count} scalars, if you do not say which are the components of vectors (V)"
            )
        return
    n = extents.get("features", 1)
    if n == 1:
        layout.features_reason = "one number for each item: as targets they are invariant"
        return
    layout.features_reason = f"one vector with {n} components, if you do not say otherwise"
    several = [d for d in (2, 3, 4) if n % d == 0 and n > d]
    if several:
        choices = " or ".join(f"{n // d}V ({n // d} vectors in R^{d})" for d in several)
        layout.features_reason += f"; it could be {choices}"


def _downwards(names: Sequence[str], vectors: Sequence[int], southward: bool) -> list[str]:
    """Put eastward and northward components in the order of the axes: down the rows, then right."""
    found = list(names)
    for i in vectors:
        north = f"-{names[i + 1]}" if southward else names[i + 1]
        found[i], found[i + 1] = north, names[i]
    return found


def _goes_south(opened: Opened, member: Member) -> bool | None:
    """Whether the rows of a member go south, by the latitudes in the file; None if unknown."""
    known = known_axes(member.dims) if member.dims else None
    if known is None or "y" not in known:
        return None
    name = member.dims[known.index("y")]
    lines = [m for m in opened.members if m.dims == (name,) and m.name.rsplit("/", 1)[-1] == name]
    if len(lines) != 1 or lines[0].problem or lines[0].shape[0] < 2 or str(name).lower()[:1] != "l":
        return None
    values = opened.source(lines[0].name).read(0, 0, lines[0].shape[0])
    steps = np.diff(values.astype(np.float64))
    return bool((steps < 0).all()) if (steps < 0).all() or (steps > 0).all() else None


def _winds(names: Sequence[str]) -> list[int]:
    """Where two channels in a row are named as the components of a vector."""
    found: list[int] = []
    for i, (a, b) in enumerate(pairwise(names)):
        pair = a.lower(), b.lower()
        for one, other in (("u", "v"), ("x", "y")):
            same = pair[0].replace(one, "*", 1) == pair[1].replace(other, "*", 1)
            if same and one in pair[0] and other in pair[1] and (not found or found[-1] < i - 1):
                found.append(i)
                break
    return found


def _sum(count: int, vectors: Sequence[int]) -> str:
    parts: list[str] = []
    i = 0
    while i < count:
        kind = "V" if i in vectors else "S"
        if parts and parts[-1].lstrip("0123456789") == kind:
            parts[-1] = f"{int(parts[-1][:-1] or 1) + 1}{kind}"
        else:
            parts.append(kind)
        i += 2 if kind == "V" else 1
    return "+".join(parts)


def _summary(source: Source, names: tuple[str, ...] | None, on_part: Callable[[], None]) -> Summary:
    """Look at the numbers of a member, part by part."""
    member = source.member
    shape = member.shape
    axis = names.index("n") if names and "n" in names else 0
    inner = next((names.index(a) for a in ("features", "c") if a in names), -1) if names else -1
    if inner < 0 or not 1 < shape[inner] <= WIDEST:
        inner = -1
    count, width = shape[axis], max(1, 8 * member.size // max(1, shape[axis]))
    step = max(1, PART // width, min(source.step(axis), count))
    starts = list(range(0, count, step))
    if 8 * member.size > WHOLE and not source.sequential:
        starts = starts[:: max(1, len(starts) * step * width // SEEN)]
    features = shape[inner] if inner >= 0 else 0
    low, high = np.full(features or 1, np.inf), np.full(features or 1, -np.inf)
    moments: NDArray[np.float64] | None = np.zeros((features, features)) if features else None
    missing = infinite = samples = 0
    first, whole, short = "", True, names == ("n", "items", "features")
    for start in starts:
        stop = min(start + step, count)
        stored = source.read(axis, start, stop)
        values = np.asarray(stored, np.float64)
        samples += stop - start
        finite = np.isfinite(values)
        if not finite.all():
            short = short and filled_up(~finite)
            missing += int(np.isnan(values).sum())
            infinite += int(np.isinf(values).sum())
            if not first:
                at = np.argwhere(~finite)[0]
                at[axis] += start
                first = ", ".join(
                    f"{(names[i] if names else f'axis {i}')} {int(j)}" for i, j in enumerate(at)
                )
        whole = whole and bool((values[finite] == np.rint(values[finite])).all())
        rows = (
            np.moveaxis(values, inner, -1).reshape(-1, features or 1)
            if features
            else (values.reshape(-1, 1))
        )
        good = np.where(np.isfinite(rows), rows, np.nan)
        if len(good):
            with np.errstate(invalid="ignore"):
                low = np.fmin(low, np.fmin.reduce(good, 0))
                high = np.fmax(high, np.fmax.reduce(good, 0))
        if moments is not None:
            kept = rows[np.isfinite(rows).all(1)]
            moments += kept.T @ kept
        on_part()
    called = list(member.columns) if len(member.columns) == features else []
    called = called or [str(i) for i in range(features)]
    constant = [n for n, a, b in zip(called, low, high, strict=True) if a == b] if features else []
    return Summary(
        samples=samples,
        minimum=_number(float(low.min())),
        maximum=_number(float(high.max())),
        missing=missing,
        infinite=infinite,
        first=first,
        names=called,
        minima=[_number(float(v)) for v in low] if features else [],
        maxima=[_number(float(v)) for v in high] if features else [],
        constant=constant,
        rank=_rank(moments) if moments is not None and names and "features" in names else -1,
        whole=whole,
        short=short and missing + infinite > 0,
    )


def _number(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _rank(moments: NDArray[np.float64]) -> int:
    """Dimension that features span, by their second moments."""
    scale = np.sqrt(np.diag(moments))
    used = scale > 0
    if not used.any() or not np.isfinite(scale).all():
        return 0
    scaled = moments[np.ix_(used, used)] / np.outer(scale[used], scale[used])
    values = np.linalg.eigvalsh(scaled)
    return int((values > RANK * values[-1]).sum())
