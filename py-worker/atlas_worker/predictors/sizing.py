"""The width at which a network has a given number of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from ..catalogue import param

Params = TypeVar("Params", bound=Any)
WIDEST = 65_536
"""The largest width that is tried."""


def parameters_field() -> Any:
    """Declare the number of parameters that a network should have."""
    return param(
        0,
        "Choose the width by this number of parameters; 0: as given",
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
        build: Makes the network, whose number of parameters must grow with the width.
        fewest: The smallest width, below which a network can do next to nothing.

    Returns:
        ``params`` with the width, from ``fewest`` on, whose number of parameters is nearest to the
        one that is asked for.
    """
    wanted: int = params.parameters
    if wanted == 0:
        return params

    def of(width: int) -> Params:
        return replace(params, **{field: width})

    counted = dict[int, int]()

    def count(width: int) -> int:
        if width not in counted:
            network = build(of(width), torch.Generator())
            counted[width] = sum(p.numel() for p in network.parameters())
        return counted[width]

    low = high = fewest
    while count(high) < wanted and high < WIDEST:
        low, high = high, min(2 * high, WIDEST)
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle) < wanted:
            low = middle
        else:
            high = middle
    return of(min((low, high), key=lambda width: abs(count(width) - wanted)))
