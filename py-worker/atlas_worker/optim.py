"""PyTorch's optimisers, without the compiler that they load.

``torch.optim`` keeps ``torch.compile`` out of some methods. For that it imports the compiler at the
first step, which takes about a second. Nothing here is compiled.
"""

from __future__ import annotations

from typing import Any

import torch


def _bare(method: Any) -> Any:
    """Return a method without the outermost function that wraps it, if there is one."""
    return getattr(method, "__wrapped__", method)


class Adam(torch.optim.Adam):
    """Adam (Kingma and Ba 2015); see :class:`torch.optim.Adam`."""

    add_param_group = _bare(torch.optim.Adam.add_param_group)
    zero_grad = _bare(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(_bare(torch.optim.Adam.step))


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    add_param_group = _bare(torch.optim.AdamW.add_param_group)
    zero_grad = _bare(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(_bare(torch.optim.AdamW.step))
