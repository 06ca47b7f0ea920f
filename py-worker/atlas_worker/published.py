"""Weights in the layout of the method's published code, and the same in ours.

That code (github.com/Rose-STL-Lab/ATLAS) keeps a network of its own for every chart; ours keeps each kind of weight of all charts in one tensor.
Keys and shapes tell a layout, not what is computed without weights: padding, slopes, BatchNorm's ε. Those are taken from the published code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import InvalidInput

NETWORKS = {
    "convolutions": re.compile(r"predictors\.(\d+)\.model\."),
    "encoder-decoder": re.compile(r"c(\d+)\.(?:down|up)\."),
    "MLP": re.compile(r"model\.\d+\."),
    "CGNet": re.compile(r"network(\d+)\."),
}
"""How the keys of each of its networks begin, with the number of the chart's where there is one a chart."""
_IGNORED = "num_batches_tracked"
"""Of BatchNorm: how often it was trained, which evaluation does not ask for."""


def network_of(names: Iterable[str]) -> str | None:
    """The published network that has such keys: the first of ``NETWORKS`` that one begins as.

    >>> network_of(["predictors.0.model.0.weight", "predictors.0.model.0.bias"])
    'convolutions'
    >>> network_of(["convs.0.weight"])
    """
    names = list(names)
    return next((network for network, key in NETWORKS.items() if any(map(key.match, names))), None)


@dataclass(frozen=True)
class Layout:
    """How the published code names the weights of an architecture of ours that computes the same."""

    network: str
    """Of ``NETWORKS``."""
    names: Mapping[str, str]
    """Our name of each tensor to theirs, without the network's own prefix."""
    prefix: str = ""
    """Of a chart's network, say ``predictors.{}.``; empty where there is one for all, whose tensors have no axis of charts."""
    first: int = 0
    """Number of the first chart's network."""
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of ours that theirs lacks, and the values with which ours computes the same."""
    epsilon: float = 1e-5
    """Of their BatchNorm; ours is 1e-5."""

    def translate(self, theirs: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights by our names, shaped as ``own``. Raises ``InvalidInput`` naming the first key that is unknown, missing or of another shape."""
        charts = len(next(iter(own.values()))) if self.prefix else 1
        prefixes = [self.prefix.format(i) for i in range(self.first, self.first + charts)]
        known = {prefix + name for prefix in prefixes for name in self.names.values()}
        for name in theirs:
            if name not in known and not name.endswith(_IGNORED):
                raise _misfit(f"the weights hold {name!r}", f"{len(prefixes)} networks of {_some(known)}")
        ours = dict(self.constants)
        for name, short in self.names.items():
            like = own[name][0] if self.prefix else own[name]
            parts = [_fitting(theirs, prefix + short, like) for prefix in prefixes]
            ours[name] = torch.stack(parts) if self.prefix else parts[0]
            if name.endswith("running_var"):
                ours[name] = ours[name] + (self.epsilon - 1e-5)
        return ours


def translate(
    theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], layout: Layout | None, kind: str
) -> dict[str, Tensor]:
    """``theirs`` by our names, whether they are so already or in the published layout.

    Raises ``InvalidInput`` when they are of a published network and this architecture (``kind``, with the ``layout`` of the one that it
    computes the same as) is another.
    """
    network = None if any(name in own for name in theirs) else network_of(theirs)
    if network is None:
        return dict(theirs)
    if layout is None or layout.network != network:
        first = next(name for name in theirs if NETWORKS[network].match(name))
        raise InvalidInput(
            f"the weights ({first} …) are of the published code's {network}, which this architecture ({kind}) does not compute",
            "weights",
            "weights of this architecture",
            "give them to an architecture that does, with params with which it is as published",
        )
    return layout.translate(theirs, own)


def _fitting(theirs: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    tensor = theirs.get(name)
    if tensor is None or _trimmed(tensor.shape) != _trimmed(like.shape):
        got = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
        raise _misfit(f"{name} {got}", f"{list(like.shape)}")
    return tensor.to(like.dtype).reshape(like.shape)


def _trimmed(shape: Iterable[int]) -> list[int]:
    """Without axes of length 1 at the end: a linear layer is a 1×1 convolution of ours."""
    trimmed = list(shape)
    while trimmed and trimmed[-1] == 1:
        trimmed.pop()
    return trimmed


def _misfit(message: str, expected: str) -> InvalidInput:
    return InvalidInput(
        f"{message}, which does not fit the published layout", "weights", expected, "check what was saved"
    )


def _some(names: set[str]) -> str:
    few = sorted(names)[:3]
    return ", ".join(few) + (" …" if len(names) > 3 else "")


def norm_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """The four tensors of a batch normalisation, by both names."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{ours}.{name}", f"{theirs}.{name}"


def layer_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """Weight and bias of a layer, by both names."""
    for name in ("weight", "bias"):
        yield f"{ours}.{name}", f"{theirs}.{name}"
