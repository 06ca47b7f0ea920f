"""What datasets share: those that are there at once, and those that are made or read in one epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ..errors import InvalidInput, NotReady
from ..solvers.state import check_kind
from ..trainable import StepCallback


class Described:
    """What a dataset may tell of its samples; None where there is nothing to tell."""

    background: int | None = None
    """The class of pixels where there is nothing, which scores leave out."""
    classes: tuple[str, ...] | None = None
    """Names of the target's classes, where scores are wanted class by class."""
    scenes: Tensor | None = None
    """``[N]`` int64, on the CPU: the scene that each sample shows, numbered from 0 as they appear. Samples of one scene have the same
    inputs, labelled by different experts."""
    coordinates: tuple[Tensor, Tensor] | None = None
    """Latitudes ``[H]`` of the lattice's rows and longitudes ``[W]`` of its columns, in degrees, float64 on the CPU. There before
    the samples are."""

    @property
    def facts(self) -> dict[str, str]:
        """What else a user may want to know, once it is made."""
        return {}


class GivenDataset(Described):
    """Samples that are there from the start; sets ``inputs`` and ``targets``."""

    kind: ClassVar[str]
    epoch = 0
    total_epochs = 0
    inputs: Tensor
    targets: Tensor

    @property
    def memory_bytes(self) -> int:
        return sum(t.element_size() * t.numel() for t in (self.inputs, self.targets))

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        return {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The position only: the data follow from the spec."""
        return {}, {"kind": self.kind, "epoch": "0"}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        check_kind(metadata, self.kind)


class MadeDataset(Described, ABC):
    """Samples that one epoch makes or reads, from nothing but the spec."""

    kind: ClassVar[str]
    total_epochs = 1

    def __init__(self) -> None:
        self._data: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def make(self, on_step: StepCallback) -> tuple[Tensor, Tensor]:
        """All inputs and targets."""

    @property
    def epoch(self) -> int:
        return 0 if self._data is None else 1

    @property
    def inputs(self) -> Tensor:
        return self._ready()[0]

    @property
    def targets(self) -> Tensor:
        return self._ready()[1]

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Make all samples, chunk by chunk."""
        self._data = self.make(on_step)
        return {"samples": float(len(self._data[0]))}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The position only: the data follow from the spec."""
        return {}, {"kind": self.kind, "epoch": str(self.epoch)}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        if check_kind(metadata, self.kind) == 0:
            self._data = None
        elif self._data is None:
            self.run_epoch(lambda *_: None)

    def _ready(self) -> tuple[Tensor, Tensor]:
        if self._data is None:
            raise NotReady("the dataset is not made yet", remedy="run its job first")
        return self._data


def no_tensors(kind: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ``InvalidInput`` for tensors given to a dataset that makes or reads its own data."""
    if tensors:
        raise InvalidInput(f"{kind} has its own data", "dataset.tensors", "no tensors", "use kind arrays")
