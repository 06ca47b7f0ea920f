"""A user's own arrays as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..registry import register
from .base import GivenDataset


@dataclass(frozen=True)
class ArraysParams:
    pass


@register(
    "dataset",
    "arrays",
    "Tensors `inputs` and `targets`, [N, channels, H, W], sent by the client",
    ArraysParams,
)
class ArraysDataset(GivenDataset):
    """``inputs [N, channels, H, W]`` and ``targets [N, channels', H, W]`` as given, as float32 on the device.

    Raises ``InvalidInput`` when one is missing, of another shape, or has entries that are not finite.
    """

    kind = "arrays"

    def __init__(
        self, params: ArraysParams, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor]
    ) -> None:
        for name in ("inputs", "targets"):
            if name not in tensors:
                raise InvalidInput(f"the tensor {name} is missing", "dataset.tensors", "inputs and targets")
            if tensors[name].dim() != 4:
                raise InvalidInput(
                    f"{name} have shape {list(tensors[name].shape)}",
                    f"dataset.tensors.{name}",
                    "[N, channels, H, W]",
                )
            if not tensors[name].numel():
                raise InvalidInput(f"{name} are empty", f"dataset.tensors.{name}", "at least one sample")
        for name in tensors:
            if name not in ("inputs", "targets"):
                raise InvalidInput(
                    f"unknown tensor {name!r}",
                    f"dataset.tensors.{name}",
                    "inputs and targets",
                    "leave it out",
                )
        self.inputs, self.targets = (
            tensors[n].to(device, torch.float32, copy=True) for n in ("inputs", "targets")
        )
        if self.inputs.shape[0] != self.targets.shape[0] or self.inputs.shape[2:] != self.targets.shape[2:]:
            raise InvalidInput(
                f"inputs {list(self.inputs.shape)} and targets {list(self.targets.shape)} do not belong together",
                "dataset.tensors.targets",
                "the same number of samples, height and width",
            )
        for name, t in (("inputs", self.inputs), ("targets", self.targets)):
            if not bool(torch.isfinite(t).all()):
                raise InvalidInput(
                    f"{name} have entries that are NaN or infinite", f"dataset.tensors.{name}", "finite"
                )

    @property
    def outputs(self) -> int:
        return self.targets.shape[1]
