"""Translates weights from the layout of the AtlasD reference code to that of Atlas.

The reference code (github.com/Rose-STL-Lab/ATLAS) has a separate network for each chart. Our
networks hold each weight of all charts in one tensor. Keys and shapes identify a layout, but not
padding, slopes and the ε of batch normalisation. These are set as in the reference code.
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
"""How the keys of each reference network begin. ``\\d+`` is the number of the chart, if any."""
_IGNORED = "num_batches_tracked"
"""Counter of batch normalisation, which evaluation does not use."""


def network_of(names: Iterable[str]) -> str | None:
    """Return the first of ``NETWORKS`` that has a key among the names, or None.
    >>> network_of(["predictors.0.model.0.weight", "predictors.0.model.0.bias"])
    'convolutions'
    >>> network_of(["convs.0.weight"])
    """
    names = list(names)
    return next((network for network, key in NETWORKS.items() if any(map(key.match, names))), None)


@dataclass(frozen=True)
class Layout:
    """How the reference code names the weights of one of our architectures."""

    network: str
    """The reference network, a key of ``NETWORKS``."""
    names: Mapping[str, str]
    """Our name of each tensor to the reference name, without the network's own prefix."""
    prefix: str = ""
    """Prefix of a chart's network, e.g. ``predictors.{}.``; empty for one network for all charts.

    With an empty prefix the tensors have no axis of charts.
    """
    first: int = 0
    """Number of the first chart's network."""
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of ours that the reference lacks, with the values that make both compute the same."""
    epsilon: float = 1e-5
    """ε of the reference's batch normalisation. Ours is 1e-5."""

    def translate(
        self, theirs: Mapping[str, Tensor], own: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Translate weights of the reference layout to our names and shapes.

        Args:
            theirs: The weights in the reference layout.
            own: Our weights, for their shapes.

        Returns:
            Weights by our names.

        Raises:
            InvalidInput: A key is unknown or missing, or a tensor has another shape. The error
                names the first such key.
        """
        charts = len(next(iter(own.values()))) if self.prefix else 1
        prefixes = [self.prefix.format(i) for i in range(self.first, self.first + charts)]
        known = {prefix + name for prefix in prefixes for name in self.names.values()}
        for name in theirs:
            if name not in known and not name.endswith(_IGNORED):
                raise _misfit(
                    f"the weights hold {name!r}", f"{len(prefixes)} networks of {_some(known)}"
                )
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
    """Return weights by our names, whether they have them already or are in the reference layout.

    Args:
        theirs: The weights to translate.
        own: The architecture's weights, for their names and shapes.
        layout: The reference layout that the architecture computes the same as, or None.
        kind: The architecture's kind, for the error.

    Returns:
        Weights by our names. Weights that have our names already are returned unchanged.

    Raises:
        InvalidInput: The weights belong to a reference network that this architecture does not
            compute, or do not fit ``layout``.
    """
    network = None if any(name in own for name in theirs) else network_of(theirs)
    if network is None:
        return dict(theirs)
    if layout is None or layout.network != network:
        first = next(name for name in theirs if NETWORKS[network].match(name))
        raise InvalidInput(
            f"the weights ({first} …) are those of the reference code's {network} network, "
            f"which the architecture {kind} with these parameters does not compute",
            "weights",
            "weights of this architecture",
            "choose the architecture and parameters that compute the reference network",
        )
    return layout.translate(theirs, own)


def _fitting(theirs: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    tensor = theirs.get(name)
    if tensor is None or _trimmed(tensor.shape) != _trimmed(like.shape):
        got = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
        raise _misfit(f"{name} {got}", f"{list(like.shape)}")
    return tensor.to(like.dtype).reshape(like.shape)


def _trimmed(shape: Iterable[int]) -> list[int]:
    """Drop axes of length 1 at the end: a linear layer is a 1×1 convolution of ours."""
    trimmed = list(shape)
    while trimmed and trimmed[-1] == 1:
        trimmed.pop()
    return trimmed


def _misfit(message: str, expected: str) -> InvalidInput:
    return InvalidInput(
        f"{message}, which does not fit the reference layout",
        "weights",
        expected,
        "check what was saved",
    )


def _some(names: set[str]) -> str:
    few = sorted(names)[:3]
    return ", ".join(few) + (" …" if len(names) > 3 else "")


def norm_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """Yield the four tensors of a batch normalisation, by both names."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{ours}.{name}", f"{theirs}.{name}"


def layer_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """Yield weight and bias of a layer, by both names."""
    for name in ("weight", "bias"):
        yield f"{ours}.{name}", f"{theirs}.{name}"
