"""What every solver shares: random streams that depend on nothing but (seed, purpose, epoch), and restoring state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import Diverged, InvalidInput


def random_stream(seed: int, *path: int) -> torch.Generator:
    """A CPU generator for one purpose, re-derived rather than stored, so that resuming needs no generator state.

    Always on the CPU: a seed means the same draws on every device.
    """
    words = np.random.SeedSequence([seed, *path]).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(words[0]))


def restore(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """The saved tensor ``name`` on ``like``'s device; ``InvalidInput`` when it is missing or of another shape or type."""
    saved = tensors.get(name)
    if saved is None or saved.shape != like.shape or saved.dtype != like.dtype:
        got = "missing" if saved is None else f"{saved.dtype} {list(saved.shape)}"
        raise InvalidInput(
            f"saved state does not fit: {name} is {got}",
            name,
            f"{like.dtype} {list(like.shape)}",
            "restore a snapshot of an object with the same spec",
        )
    return saved.to(like.device).clone()


def check_kind(metadata: Mapping[str, str], kind: str) -> int:
    """The saved epoch of a state of this ``kind``; ``InvalidInput`` for another kind's."""
    if metadata.get("kind") != kind or not metadata.get("epoch", "").isdigit():
        raise InvalidInput(
            f"saved state is not one of a {kind} solver",
            "kind",
            kind,
            "restore a snapshot of an object with the same spec",
        )
    return int(metadata["epoch"])


def check_finite(value: Tensor, what: str) -> None:
    """``Diverged`` unless every element is finite."""
    if not bool(torch.isfinite(value).all()):
        raise Diverged(
            f"{what} became NaN or infinite",
            remedy="lower the learning rate or the scale; the last finished epoch is kept",
        )
