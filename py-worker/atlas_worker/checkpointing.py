"""Checks on saved state: state that does not fit is refused before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .catalogue import current_kind
from .errors import Diverged, InvalidInput


def restore(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """Return a saved tensor, copied to another tensor's device.

    Args:
        tensors: The saved tensors by name.
        name: The tensor to restore.
        like: A tensor of the expected shape, type and device.

    Raises:
        InvalidInput: The tensor is missing, or has another shape or type than ``like``.
    """
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


def convert(name: str, given: Tensor, like: Tensor) -> Tensor:
    """Return a tensor from elsewhere in another tensor's type and on its device.

    Real numbers are rounded, as ``load_state_dict`` does. Integers must be the same.

    Args:
        name: The tensor's name, for the error.
        given: The tensor.
        like: A tensor of the expected shape, type and device.

    Raises:
        InvalidInput: The tensor has another shape, or a number that ``like`` cannot hold.
    """
    if given.shape != like.shape:
        raise InvalidInput(
            f"{name} has shape {list(given.shape)}, and this network's has {list(like.shape)}",
            name,
            f"{list(like.shape)}",
            "choose the architecture and settings that the weights belong to",
        )
    value = given.to(like.device, like.dtype) if not given.is_complex() else given
    if given.is_complex() or not bool(
        torch.isfinite(value).all() if like.is_floating_point() else (value == given).all()
    ):
        finite = "finite " if like.is_floating_point() else ""
        raise InvalidInput(
            f"{name} has numbers that are no {finite}{str(like.dtype).removeprefix('torch.')}",
            name,
            f"{like.dtype} {list(like.shape)}",
            "give weights without such numbers",
        )
    return value.clone()


def check_kind(metadata: Mapping[str, str], kind: str) -> int:
    """Check that saved state is of the given kind, and return its epoch.

    Args:
        metadata: The saved metadata, with ``kind`` and ``epoch``.
        kind: The expected kind, as it is recorded in snapshots.

    Returns:
        The saved number of finished epochs.

    Raises:
        InvalidInput: The state is of another kind, or has no epoch.
    """
    if metadata.get("kind") != kind or not metadata.get("epoch", "").isdigit():
        name = current_kind(kind)
        raise InvalidInput(
            f"the saved state is not that of a {name}",
            "kind",
            name,
            "restore a snapshot of an object with the same spec",
        )
    return int(metadata["epoch"])


def check_finite(value: Tensor, what: str) -> None:
    """Raise an error unless every element is finite.

    Args:
        value: The tensor to check.
        what: What the tensor is, for the error.

    Raises:
        Diverged: An element is NaN or infinite.
    """
    if not bool(torch.isfinite(value).all()):
        raise Diverged(
            f"{what} became NaN or infinite",
            remedy="lower the learning rate or the scale; the last finished epoch is kept",
        )
