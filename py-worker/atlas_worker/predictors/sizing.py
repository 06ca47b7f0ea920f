"""The width at which a network has a given number of parameters."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import nn

from ..catalogue import param
from ..errors import InvalidInput

Params = TypeVar("Params", bound=Any)


def parameters_field() -> Any:
    """Declare the number of parameters that a network should have."""
    return param(
        0,
        "Number of parameters, which decides the width in its place; 0: as given",
        minimum=0,
        maximum=2**31 - 1,
        added=True,
    )


def sized(
    params: Params,
    field: str,
    build: Callable[[Params, torch.Generator], nn.Module],
    *,
    fewest: int = 4,
) -> Params:
    """Choose the width of a network by the number of its parameters.

    Args:
        params: The network's parameters, with ``parameters``; 0 leaves the width as it is.
        field: The name of the width among them.
        build: Makes the network, whose number of parameters is a quadratic function of the width.
        fewest: The smallest width, below which a network can do next to nothing.

    Returns:
        ``params`` with the width, from ``fewest`` on, whose number of parameters is nearest to the
        one that is asked for.

    Raises:
        InvalidInput: No width that the catalogue accepts has as many parameters.
    """
    wanted: int = params.parameters
    if wanted == 0:
        return params

    def of(width: int) -> Params:
        return replace(params, **{field: width})

    def built(width: int) -> int:
        return sum(p.numel() for p in build(of(width), torch.Generator()).parameters())

    # Three small networks tell the numbers of all.
    first, second, third = (built(fewest + i) for i in range(3))
    slope, curve = second - first, third - 2 * second + first

    def count(width: int) -> int:
        steps = width - fewest
        return first + slope * steps + curve * (steps * (steps - 1) // 2)

    widest = next(int(f.metadata["maximum"]) for f in fields(params) if f.name == field)
    width = fewest + bisect.bisect_left(range(fewest, widest), wanted, key=count)
    if width == widest and count(widest) < wanted:
        raise InvalidInput(
            f"no {field} up to {widest} gives a network {wanted} parameters",
            "predictor.architecture.params.parameters",
            f"at most {count(widest)}",
        )
    nearest = min((max(fewest, width - 1), width), key=lambda each: abs(count(each) - wanted))
    return of(nearest)
