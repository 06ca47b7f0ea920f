"""What is odd about samples, so that nobody trains on data from which nothing can be learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..rng import random_stream

CHUNK = 2**22
"""Entries that are looked at together."""
LARGE = 1e12
"""Entries beyond which single precision soon overflows."""
LOOKED_AT = 4096
"""Entries of a sample from which its fingerprint is made, and vectors whose values are counted."""
GRID, GRID_SHARE = 16, 10
"""Most values of a component for a grid, and vectors for each value at least."""


def is_constant(t: Tensor) -> bool:
    """Whether all entries are equal. It stops at the first part that has another entry."""
    if not t.numel():
        return True
    first = t[(0,) * t.dim()]
    return not any(bool((part != first).any()) for part in parts_of(t))


def are_alike(t: Tensor) -> bool:
    """Whether all samples ``[N, …]`` are equal; not for a single sample."""
    return len(t) > 1 and not any(bool((part != t[0]).any()) for part in parts_of(t))


def parts_of(t: Tensor) -> tuple[Tensor, ...]:
    """Split samples ``[N, …]`` into parts that are looked at together."""
    return t.split(max(1, CHUNK // max(1, t[0].numel()))) if t.dim() else (t,)


def find_constant(t: Tensor) -> list[int]:
    """List the channels of ``[N, channels, …]`` that have one value in all samples."""
    return [c for c in range(t.shape[1]) if is_constant(t[:, c])]


def describe_inputs(x: Tensor, name: str, field: str) -> list[str]:
    """Check inputs.

    Args:
        x: ``[N, channels, H, W]``, or sets of vectors ``[N, m, n]``.
        name: Name of the inputs, for messages.
        field: Dotted path of the inputs in the request, for errors.

    Returns:
        What the user should know.

    Raises:
        InvalidInput: The inputs are the same everywhere, so no symmetry of them can be seen.
    """
    if is_constant(x):
        raise InvalidInput(
            f"all entries of {name} are {float(x[(0,) * x.dim()]):g}", field, "inputs that vary"
        )
    fields = x.dim() >= 4
    lines = x.flatten(2) if fields else x
    if (
        fields
        and lines.shape[2] > 1
        and not any(bool((part != part[..., :1]).any()) for part in parts_of(lines))
    ):
        raise InvalidInput(
            f"each field of {name} has one value everywhere",
            field,
            "fields that vary from pixel to pixel",
            "check the order of the axes: samples, channels, height, width",
        )
    if (most := max(float(part.abs().amax()) for part in parts_of(x))) > LARGE:
        return [f"entries of {name} reach {most:.2g}: scale them, or a training may diverge"]
    if are_alike(x):
        return [f"all {len(x):,} samples of {name} are equal"]
    flat = find_constant(x if fields else x.movedim(2, 1))
    what = "channel" if fields else "component"
    said = [f"{what} {c} of {name} has the same value in all samples" for c in flat]
    if not fields and (values := _most_values(x)) is not None:
        said.append(
            f"components of {name} have at most {values} different values: of what lies between "
            "them, the predictor alone tells"
        )
    return said


def _most_values(x: Tensor) -> int | None:
    """Count the different values of the component that has most.

    Args:
        x: ``[N, m, n]``.

    Returns:
        The number; None if there are more than a few, for so many vectors.
    """
    columns = x[: max(1, LOOKED_AT // x.shape[1])].flatten(0, 1).movedim(1, 0)
    most = max(len(column.unique()) for column in columns)
    return most if most <= GRID and GRID_SHARE * most <= columns.shape[1] else None


def describe_classes(labels: Tensor, name: str) -> list[str]:
    """Say whether all class labels are of one class."""
    if not is_constant(labels):
        return []
    return [f"all {labels.numel():,} labels of {name} are of class {int(labels.flatten()[0])}"]


def check_labels(targets: Tensor, classes: int, field: str) -> None:
    """Check that targets are class labels.

    Args:
        targets: ``[N, channels, …]``.
        classes: Number of classes.
        field: Dotted path of the targets in the request, for errors.

    Raises:
        InvalidInput: There is more than one channel, or an entry is no whole number from 0 to
            ``classes - 1``.
    """
    said = f"targets have {targets.shape[1]} channels" if targets.shape[1] != 1 else ""
    for part in parts_of(targets):
        wrong = (part < 0) | (part >= classes)
        if part.is_floating_point():
            wrong |= part != part.floor()
        if not said and bool(wrong.any()):
            said = f"targets have the entry {float(part[wrong][0]):g}"
        if said:
            raise InvalidInput(
                f"{said}, so they are no class labels",
                field,
                f"one whole number for each output, from 0 to {classes - 1:,}",
            )


def refuse_unlearnable(targets: Tensor, classes: int | None, field: str) -> None:
    """Refuse targets from which nothing can be learnt.

    Args:
        targets: ``[N, …]``.
        classes: Number of classes, if they are to be class labels; otherwise None.
        field: Dotted path of the targets in the request, for errors.

    Raises:
        InvalidInput: All targets are the same, or they are no class labels.
    """
    if classes is not None:
        if targets.is_floating_point():  # what reads whole numbers from files checks them
            check_labels(targets, classes, field)
        for said in describe_classes(targets, "the samples"):
            raise InvalidInput(
                f"{said}: a classifier has nothing to learn",
                field,
                "samples of at least two classes",
                "take samples of all classes, for example more of them",
            )
    elif is_constant(targets) or are_alike(targets):
        raise InvalidInput(
            "all targets are equal: they do not depend on the inputs, so there is nothing to learn",
            field,
            "targets that vary with the inputs",
            "check that the targets are the right ones",
        )


def fingerprints(x: Tensor) -> Tensor:
    """Compute a number for each sample ``[N, …]`` that equal samples share.

    Two other samples have the same number with a probability of about 2⁻⁶⁴ if they differ in the
    entries that are looked at: all of a small sample, and those in the middle of a large one.

    Args:
        x: ``[N, …]`` float32 or uint8.

    Returns:
        ``[N]`` int64 on the CPU.
    """
    count = min(x[0].numel(), LOOKED_AT)
    start = (x[0].numel() - count) // 2
    weights = torch.randint(-(2**62), 2**62, (count,), generator=random_stream(0, count))
    weights = (2 * weights + 1).to(x.device)
    numbers = []
    for part in x.split(max(1, CHUNK // count)):
        rows = part.flatten(1)[:, start : start + count].contiguous()
        if rows.is_floating_point():
            rows = (rows.float() + 0.0).view(torch.int32)  # −0 counts as 0
        mixed = rows.long() * weights
        mixed ^= mixed >> 29  # so that sums of few bits do not collide
        numbers.append((mixed * weights).sum(1).cpu())
    return torch.cat(numbers)


def count_shared(train: Tensor, test: Tensor) -> int:
    """Count the samples of ``test [M, …]`` that ``train [N, …]`` has too."""
    if train.shape[1:] != test.shape[1:]:
        return 0
    a, b = fingerprints(train), fingerprints(test)
    shared = torch.isin(b, a)
    if train[0].numel() > LOOKED_AT:
        for i in shared.nonzero()[:, 0].tolist():
            shared[i] = any(torch.equal(train[j], test[i]) for j in (a == b[i]).nonzero()[:, 0])
    return int(shared.sum())
