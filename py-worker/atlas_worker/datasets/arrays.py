"""Arrays that a client sends, as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param, register
from ..errors import InvalidInput
from .base import GivenDataset
from .checks import describe_inputs, find_constant

_CHECKED = 2**22
"""Numbers that are checked at a time: the check takes twice their memory."""


@dataclass(frozen=True)
class ArraysParams:
    """Parameters of the dataset ``arrays``."""

    outputs: int = param(
        0,
        "Number of outputs of a given predictor, when no targets are sent; 0 if they are",
        minimum=0,
        maximum=65_536,
    )


@register(
    "dataset",
    "arrays",
    "Tensors `inputs` and `targets` from the client, [N, channels, H, W] "
    "(for sets of vectors [N, m, n] and [N, outputs])",
    ArraysParams,
)
class ArraysDataset(GivenDataset):
    """Inputs and targets that a client sent, as float32 on the device.

    ``inputs`` are ``[N, channels, H, W]`` and ``targets`` ``[N, channels', H, W]``, or for sets of
    vectors ``[N, m, n]`` and ``[N, outputs]``. With the parameter ``outputs``, targets are zeros:
    this is for a predictor that was trained elsewhere.

    Raises:
        InvalidInput: A tensor is missing, has another shape, or has entries that are not finite.
    """

    kind = "arrays"

    def __init__(
        self,
        params: ArraysParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        names = ("inputs",) if params.outputs else ("inputs", "targets")
        for name in names:
            if name not in tensors:
                raise InvalidInput(
                    f"the tensor {name} is missing", "dataset.tensors", " and ".join(names)
                )
        for name in tensors:
            if name not in names:
                raise InvalidInput(
                    f"unknown tensor {name!r}",
                    f"dataset.tensors.{name}",
                    " and ".join(names),
                    "leave it out",
                )
        vectors = tensors["inputs"].dim() == 3
        shapes = {"inputs": "[N, channels, H, W] or [N, m, n]", "targets": "[N, channels, H, W]"}
        if vectors:
            shapes["targets"] = "[N, outputs]"
        for name in names:
            rank = 4 if not vectors else 3 if name == "inputs" else 2
            if tensors[name].dim() != rank:
                raise InvalidInput(
                    f"{name} have shape {list(tensors[name].shape)}",
                    f"dataset.tensors.{name}",
                    shapes[name],
                )
            if not tensors[name].numel():
                raise InvalidInput(
                    f"{name} are empty", f"dataset.tensors.{name}", "at least one sample"
                )
        # A copy would take a large array's memory twice. The tensors are this dataset's own.
        moved = {name: tensors[name].to(device, torch.float32) for name in names}
        self.inputs = moved["inputs"]
        lattice = () if vectors else self.inputs.shape[2:]
        zeros = torch.zeros((), device=device).expand(len(self.inputs), params.outputs, *lattice)
        self.targets = moved.get("targets", zeros)
        if self.inputs.shape[0] != self.targets.shape[0] or lattice != self.targets.shape[2:]:
            raise InvalidInput(
                f"inputs {list(self.inputs.shape)} and targets {list(self.targets.shape)} "
                "do not belong together",
                "dataset.tensors.targets",
                "the same number of samples, height and width",
            )
        for name, t in moved.items():
            rows = max(_CHECKED // max(t[0].numel(), 1), 1)
            wrong = ~torch.cat([torch.isfinite(part).flatten(1).all(1) for part in t.split(rows)])
            if bool(wrong.any()):
                raise InvalidInput(
                    f"{name} have entries that are NaN or infinite, in {int(wrong.sum()):,} of "
                    f"{len(t):,} samples, first in sample {int(wrong.int().argmax())}",
                    f"dataset.tensors.{name}",
                    "finite numbers",
                    "repair or remove these samples",
                )
        self.warnings = tuple(self._warnings(moved))

    def _warnings(self, tensors: Mapping[str, Tensor]) -> list[str]:
        said = describe_inputs(self.inputs, "inputs", "dataset.tensors.inputs")
        if "targets" not in tensors:
            return said
        if self.inputs.shape == self.targets.shape and torch.equal(self.inputs, self.targets):
            said.append("targets equal inputs: then every direction is a symmetry")
        flat = find_constant(self.targets)
        if len(flat) < self.outputs:  # if all are, a training is refused
            said += [f"channel {c} of targets has the same value in all samples" for c in flat]
        return said

    @property
    def outputs(self) -> int:
        """Number of channels or numbers of the targets."""
        return self.targets.shape[1]
