"""The trial of a foreign network: how to call it, and whether it can be searched.

A search for symmetries needs a function of one sample at a time, that gives the same output for the
same input and changes smoothly with it. What a network from elsewhere does is only known once it
was called. So it is tried on some samples. What can be met is met: its precision, its batch size,
missing gradients. Everything else is refused, each with its own message.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..symmetry.action import Inputs, max_batch
from .foreign import ARCHITECTURE, FIELD, Call, Foreign, Modules, Programs, exported_shape, failed

NUMBERS = 2048
"""Outputs that are compared; so many samples are tried, within the next two limits."""
FEWEST = 8
MOST = 512
CUT = 64
"""Most samples for a network that takes small batches only."""
STEPS = (1e-5, 1e-4, 1e-3, 1 / 256, 1 / 32, 1 / 8, 1 / 2)
"""Steps of differences, relative to the distance of two samples."""
FINE = 3
"""The first of ``STEPS`` that is no derivative any more, but shows the jumps of a function."""
AGREE = 0.15
"""Largest difference of two slopes that agree, relative to their size."""
WELL = 0.02
"""Difference of two slopes with which no better step is looked for."""
CALLS = 20
"""Further calls after which a network must still give the same outputs."""
GRADIENT = 0.05
"""Largest error of a gradient, relative to its size, beside that of the differences."""
LOST = 0.1
"""Largest fraction of samples whose output may be NaN or infinite."""
BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that are tried for a program that does not take any."""
PRECISIONS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
MODE = "put it into evaluation mode (eval) before it is saved, and switch dropout and noise off"


def try_out(foreign: Foreign, inputs: Inputs, outputs: tuple[int, ...]) -> None:
    """Try foreign networks on samples, and set how they are called.

    Args:
        foreign: The networks, in evaluation mode, on the device of the inputs.
        inputs: The samples.
        outputs: Shape of the output on one chart.

    Raises:
        InvalidInput: The networks do not accept or return what the task needs, or they are no
            function of a sample that changes smoothly.
    """
    charts = foreign.charts
    wanted = -(-NUMBERS // max(charts * torch.Size(outputs).numel(), 1))
    x = _samples(inputs, min(max(wanted, FEWEST), MOST))
    _find_calls(foreign, x)
    if any(call.most is not None for call in foreign.calls):
        x = x[:: -(-len(x) // CUT)]
    tried = _copy(foreign)  # solvers use copies too; a call may leave something in a module
    _check(tried, x, outputs)
    foreign.difference_step, foreign.resolution = tried.difference_step, tried.resolution
    foreign.facts = {"called": said} if (said := _said(foreign)) else {}


def _check(foreign: Foreign, x: Tensor, outputs: tuple[int, ...]) -> None:
    charts = foreign.charts
    first = _outputs(foreign, x[:2])
    expected = [2, charts, *outputs]
    if list(first.shape) != expected:
        raise InvalidInput(
            f"the predictor returns {list(first.shape)} for {list(x[:2].shape)}",
            f"{FIELD}.takes",
            f"{expected} ([batch, charts, outputs …])",
            "check takes and halo, and the charts and outputs of the task",
        )
    y = _outputs(foreign, x)
    finite = y.flatten(1).isfinite().all(1)
    if int((~finite).sum()) > LOST * len(x):
        raise InvalidInput(
            f"the predictor returns numbers that are not finite for {int((~finite).sum())} of "
            f"{len(x)} samples",
            ARCHITECTURE,
            "finite outputs",
            "check its weights, and what it does with negative numbers",
        )
    x, y = x[finite], y[finite]
    same = _Same(y, foreign)
    _check_repeats(foreign, x, same)
    _check_mates(foreign, x, same)
    _check_charts(foreign, x, same)
    _find_derivative(foreign, x, y)
    for _ in range(CALLS):
        _outputs(foreign, x[:1])
    _check_repeats(foreign, x, same, y)  # a state may have changed slowly


def _samples(inputs: Inputs, count: int) -> Tensor:
    """Samples from everywhere, for they may be sorted: ``[count, C, …]``, each drawn once or more.

    Mirror images fill up a set that is too small, so that each sample has others beside it.
    """
    drawn = min(count, len(inputs))
    at = torch.linspace(0, len(inputs) - 1, drawn).round().long()
    x = torch.cat([inputs.draw(part, None) for part in at.split(max_batch(inputs.shape))])
    if drawn < FEWEST:
        x = torch.cat([x, x.flip(-1), x.flip(-2), 0.5 * x])
        x = torch.cat([x] * -(-FEWEST // len(x)))
    return x[:count].float()


def _rows(foreign: Foreign, x: Tensor, number: int) -> Tensor:
    """The inputs of network ``number``."""
    if foreign.takes == "charts":
        return x
    return x.flatten(0, 1) if len(foreign.networks) == 1 else x[:, number]


def _outputs(f: Foreign, x: Tensor, charts: Tensor | None = None) -> Tensor:
    """Outputs without gradients, some samples at a time. Raises ``InvalidInput``."""
    taken = list(x.shape if f.takes == "charts" else x.flatten(0, 1).shape)
    try:
        with torch.no_grad():
            return torch.cat([f(part, charts) for part in x.split(max_batch(x.shape[1:]))])
    except InvalidInput:
        raise
    except Exception as error:
        raise failed(f"the predictor, given {taken},", error, f"{FIELD}.takes") from error


# How networks are called


def _find_calls(foreign: Foreign, x: Tensor) -> None:
    """Find the precision and batch size that each network takes. Raises ``InvalidInput``."""
    if isinstance(foreign.networks, Modules):
        if _converts(foreign, x):
            foreign.networks.float()
            return
        foreign.networks.fixed = True
    tried = _copy(foreign)
    _find_own_calls(tried, x)
    foreign.calls = tried.calls


def _copy(foreign: Foreign) -> Foreign:
    """Copy networks, as solvers do. Raises ``InvalidInput``."""
    try:
        with torch.no_grad():  # a copy of a program's weights would be no leaf
            return copy.deepcopy(foreign)
    except Exception as error:
        raise failed("copying the predictor", error, f"{FIELD}.factory") from error


def _find_own_calls(foreign: Foreign, x: Tensor) -> None:
    networks = foreign.networks
    for number in range(len(networks)):
        network = networks.on(x.device)[number]
        rows = _rows(foreign, x, number)
        _check_exported(network, rows)
        errors: list[Exception] = []
        for call in _candidates(network, foreign.calls[number], errors):
            error = _error(foreign, number, call, rows, x.shape[1])
            if error is None:
                _convert(foreign, number, rows, x.shape[1])
                break
            errors.append(error)
        else:
            taken = list(rows[: 2 * len(rows) // len(x)].shape)
            what = f"the predictor, given {taken},"
            raise failed(what, errors[0], f"{FIELD}.takes") from errors[0]


def _converts(foreign: Foreign, x: Tensor) -> bool:
    """Whether modules can be converted to single and double precision, which solvers use."""
    converted, doubled = _copy(foreign).float(), _copy(foreign).double()
    one = Call(key=foreign.calls[0].key)
    return all(
        _error(f, number, one, _rows(f, x.to(dtype), number), x.shape[1]) is None
        for f, dtype in ((converted, torch.float32), (doubled, torch.float64))
        for number in range(len(f.networks))
    )


def _convert(foreign: Foreign, number: int, rows: Tensor, charts: int) -> None:
    """Let a program compute in the precision that is asked for, if it then does the same.

    Differences are more exact in double precision, and outputs are smoother than in half.
    """
    call = foreign.calls[number]
    if call.precision is None or not isinstance(foreign.networks, Programs):
        return
    own = _quiet(foreign, number, rows)
    way = replace(call, precision=None, converted=call.precision)
    errors = [_error(foreign, number, way, rows.to(t), charts) for t in (rows.dtype, torch.float64)]
    if errors == [None, None]:
        coarse = max(torch.finfo(call.precision).eps, torch.finfo(torch.float32).eps)
        limit = 32 * coarse * own.abs().max()
        given = (rows, rows.double())
        if all(bool(((_quiet(foreign, number, x) - own).abs() <= limit).all()) for x in given):
            return
    foreign.calls[number] = call


@torch.no_grad()
def _quiet(foreign: Foreign, number: int, rows: Tensor) -> Tensor:
    return foreign.run(number, rows).double()


def _candidates(network: nn.Module, call: Call, errors: list[Exception]) -> Iterator[Call]:
    """Ways to call a network, the likeliest first."""
    exported, told = exported_shape(network), getattr(network, "atlas_batches", None)
    sizes: list[tuple[int, int | None]] = [(1, None), (2, None), *((b, b) for b in BATCHES)]
    if exported is not None and exported[0] is not None:
        told = exported[0], exported[0]
    if told is not None and told != (1, None):
        sizes = [told]
    own = [t.dtype for t in [*network.parameters(), *network.buffers()] if t.is_floating_point()]
    for inner in (False, True):
        if inner and not any("grad" in str(error) for error in errors):
            return
        for least, most in sizes:
            for precision in dict.fromkeys([*own[:1], *PRECISIONS]):
                yield replace(
                    call, precision=precision, least=least, most=most, inner_gradient=inner
                )


def _error(
    foreign: Foreign, number: int, call: Call, rows: Tensor, charts: int
) -> Exception | None:
    """Call a network on batches of several sizes, and return the first error."""
    foreign.calls[number] = call
    two = 2 * charts if len(foreign.networks) == 1 and foreign.takes == "chart" else 2
    for count in dict.fromkeys([two, 1, 3, min(len(rows), 2 * two + 1)]):
        try:
            with torch.no_grad():
                y = foreign.run(number, rows[:count])
        except InvalidInput:
            raise
        except Exception as error:
            return error
        if y.dim() == 0 or len(y) != count:
            return ValueError(f"it returns {list(y.shape)} for {list(rows[:count].shape)}")
    return None


def _check_exported(network: nn.Module, rows: Tensor) -> None:
    """Check that an exported program takes samples of this shape. Raises ``InvalidInput``."""
    exported = exported_shape(network)
    if exported is None:
        return
    given = list(rows.shape)
    if len(exported) != len(given) or any(
        size not in (None, given[i]) for i, size in enumerate(exported) if i
    ):
        sizes = ", ".join("any" if size is None else str(size) for size in exported)
        raise InvalidInput(
            f"the predictor was exported for inputs [{sizes}]",
            f"{FIELD}.takes",
            f"[batch, {', '.join(map(str, given[1:]))}]",
            "choose charts, halo and takes that fit it, or export it again",
        )


# Whether it is a function of one sample


class _Same:
    """Tells whether outputs are the same, up to rounding."""

    def __init__(self, y: Tensor, foreign: Foreign) -> None:
        y = y.double()
        self._spread = float((y - y.mean(0)).square().mean().sqrt())
        self._size = float(y.abs().max())
        coarsest = max(torch.finfo(call.precision or torch.float32).eps for call in foreign.calls)
        # Convolutions on GPUs round to 10 bits.
        self._eps = max(coarsest, 2**-11 if y.is_cuda else 0.0)

    def __call__(self, a: Tensor, b: Tensor) -> bool:
        limit = 1e-3 * self._spread + 8 * self._eps * self._size
        return bool(((a - b).abs() <= limit).all())


def _check_repeats(foreign: Foreign, x: Tensor, same: _Same, before: Tensor | None = None) -> None:
    """Check that the same samples give the same outputs as before, and no state changes."""
    networks, device = foreign.networks, x.device
    state = _state(networks, device)
    one = _outputs(foreign, x) if before is None else before
    _outputs(foreign, x.flip(0))
    two = _outputs(foreign, x)
    if not same(one, two):
        raise InvalidInput(
            "the predictor gives two outputs for one input",
            ARCHITECTURE,
            "a function without noise and memory",
            MODE,
        )
    after = _state(networks, device)
    changed = [name for name, t in state.items() if not torch.equal(t, after.get(name, t))]
    if any(name.rpartition(".")[2].startswith("running_") for name in changed):
        raise InvalidInput(
            f"the predictor changes its {changed[0].rpartition('.')[2]} when it is called: its "
            "batch norm is in training mode",
            ARCHITECTURE,
            "a function without memory",
            MODE,
        )


def _state(networks: Programs | Modules, device: torch.device) -> dict[str, Tensor]:
    return {
        f"{i}.{name}": t.detach().clone()
        for i, network in enumerate(networks.on(device))
        for name, t in network.named_buffers()
    }


def _check_mates(foreign: Foreign, x: Tensor, same: _Same) -> None:
    """Check that an output does not depend on the other samples of a batch, nor on its place."""
    y = _outputs(foreign, x)
    alone = range(0, len(x), -(-len(x) // 4))
    if not (
        all(same(_outputs(foreign, x[[i]]), y[[i]]) for i in alone)
        and same(_outputs(foreign, x.flip(0)).flip(0), y)
        and same(_outputs(foreign, torch.cat([x[:1], 3 * x[1:]]))[:1], y[:1])
    ):
        raise InvalidInput(
            "the predictor's output for a sample depends on the other samples of the batch",
            ARCHITECTURE,
            "a function of one sample",
            "put it into evaluation mode (eval) before it is saved, and normalise each sample "
            "by itself",
        )


def _check_charts(foreign: Foreign, x: Tensor, same: _Same) -> None:
    """Check that an output on a chart does not depend on the other charts."""
    if foreign.takes == "chart" or foreign.charts == 1:
        return
    x = x[:3]
    y = _outputs(foreign, x)
    for chart in range(foreign.charts):
        alone = _outputs(foreign, x[:, [chart]], torch.tensor([chart]))
        if not same(alone, y[:, [chart]]):
            raise InvalidInput(
                f"the predictor's output on chart {chart} depends on the other charts",
                f"{FIELD}.takes",
                "an output on each chart that depends on that chart only",
                "set takes to chart, or give a predictor that treats its charts separately",
            )


# How it changes


def _find_derivative(foreign: Foreign, x: Tensor, y: Tensor) -> None:
    """Find out whether gradients, or differences of which step, tell how the outputs change.

    Outputs are followed on the way from each sample to the next one. At a random place of the way
    slopes are measured over steps of several sizes. The slopes of a smooth function agree once the
    step is beyond rounding. A function that jumps has jumps in long steps and none in short ones.

    Raises:
        InvalidInput: The outputs jump.
    """
    generator = torch.Generator().manual_seed(0)
    way = x.roll(1, 0) - x
    still = way.flatten(1).abs().amax(1) < 1e-6 * max(float(x.abs().max()), 1e-30)
    noise = torch.randn(x.shape, generator=generator).to(x) * (float(x.abs().max()) or 1.0)
    way = torch.where(still.view(-1, *[1] * (x.dim() - 1)), noise, way)
    share = 0.1 + 0.8 * torch.rand(len(x), generator=generator, dtype=torch.float64)
    at = x.double() + share.to(x.device).view(-1, *[1] * (x.dim() - 1)) * way.double()
    exact = _copy(foreign).double()
    steps = STEPS if all(call.precision is None for call in foreign.calls) else STEPS[1:]

    def slopes(step: float) -> Tensor:
        ends = [_outputs(exact, at + sign * step / 2 * way.double()) for sign in (1, -1)]
        return (ends[0] - ends[1]) / step

    measured: dict[float, Tensor] = {}
    apart: list[float] = []
    for small, large in itertools.pairwise(steps):
        measured |= {s: slopes(s) for s in (small, large) if s not in measured}
        apart.append(_apart(measured[small], measured[large]))
        if apart[-1] <= WELL:
            break
    least = min(apart)
    if least > AGREE:
        if all(bool((s == 0).all()) for s in measured.values()) and bool((y == y[:1]).all()):
            foreign.difference_step = 0.0 if _differentiable(foreign, x) else STEPS[FINE]
            return  # the outputs never change
        raise _jumps()
    step = steps[apart.index(least)]
    if step < STEPS[FINE]:  # derivatives: is the change the sum of them?
        longer = STEPS[FINE : FINE + 2]
        shares = [_apart(measured[step], measured.get(s, slopes(s))) for s in longer]
        if min(shares) > AGREE:
            raise _jumps()
    foreign.resolution = step if step > STEPS[0] else 0.0
    found = _gradient_slopes(foreign, at.float(), way)
    weights, slope = found if found is not None else (None, measured[step])
    wrong = 1.0
    if weights is not None:
        expected = (weights * measured[step]).flatten(2).sum(2)
        wrong = _apart(slope, expected)
    if wrong > GRADIENT + least or not _differentiable(foreign, x):
        foreign.difference_step = max(step, STEPS[FINE])


def _apart(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference, relative to the larger mean; over samples where both are finite."""
    finite = (a.isfinite() & b.isfinite()).flatten(1).all(1)
    a, b = a[finite], b[finite]
    size = max(float(a.abs().mean()), float(b.abs().mean())) if len(a) else 0.0
    return float((a - b).abs().mean()) / size if size > 0 else 1.0


def _gradient_slopes(foreign: Foreign, at: Tensor, way: Tensor) -> tuple[Tensor, Tensor] | None:
    """Slopes of random sums of the outputs by gradients.

    Returns:
        The weights ``[P, C, …]`` of the sums, and their slopes ``[P, C]``; None without gradients.
    """
    generator = torch.Generator().manual_seed(1)
    weights: list[Tensor] = []
    slopes: list[Tensor] = []
    for x, v in zip(*(t.split(max_batch(at.shape[1:])) for t in (at, way)), strict=True):
        made = _gradient(foreign, x, generator)
        if made is None:
            return None
        weights.append(made[0].double())
        slopes.append((made[1].double() * v.double()).flatten(2).sum(2))
    return torch.cat(weights), torch.cat(slopes)


def _gradient(
    foreign: Foreign, x: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """Random weights of the outputs, and the gradient of their sum; None if there is none."""
    foreign = _copy(foreign)  # a module may keep what it computed, and its graph
    x = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            y = foreign(x)
            weights = torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1
            (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    except Exception:
        return None
    return weights, gradient


def _differentiable(foreign: Foreign, x: Tensor) -> bool:
    """Whether gradients at the samples exist and are finite where the outputs are."""
    for part in x.split(max_batch(x.shape[1:])):
        made = _gradient(foreign, part, torch.Generator().manual_seed(1))
        if made is None or not bool(made[1].isfinite().all()):
            return False
    return True


def _jumps() -> InvalidInput:
    return InvalidInput(
        "the predictor's outputs change in jumps, which a search for symmetries cannot follow",
        ARCHITECTURE,
        "real numbers that change smoothly with the input",
        "give its logits or probabilities, not classes or rounded numbers",
    )


def _said(foreign: Foreign) -> str:
    """How the networks are called, if not as usual."""
    calls, said = foreign.calls, []
    precisions = {c.precision for c in calls} - {None, torch.float32}
    if precisions:
        said.append(f"in {', '.join(str(p).removeprefix('torch.') for p in precisions)}")
    if any(c.converted not in (None, torch.float32) for c in calls):
        said.append("in float32, to which it was converted")
    sizes = {c.most for c in calls} - {None}
    if sizes:
        said.append(f"with batches of at most {max(cast(int, size) for size in sizes)}")
    if foreign.difference_step:
        said.append("without gradients: differences of its outputs take their place")
    return ", ".join(said)
