"""Base classes of datasets: samples that exist from the start, and samples made in one epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ..catalogue import current_kind
from ..checkpointing import check_kind
from ..errors import InvalidInput, NotReady
from ..trainable import StepCallback


class Described:
    """What a dataset may tell about its samples; None if it has nothing to tell."""

    background: int | None = None
    """Class of the pixels that show nothing, which scores leave out."""
    classes: tuple[str, ...] | None = None
    """Names of the target's classes, if each class has scores of its own."""
    scenes: Tensor | None = None
    """Scene of each sample, ``[N]`` int64 on the CPU, numbered from 0 by first appearance.

    Samples of one scene belong together: they have the same inputs and the labels of different
    experts, or are frames of one trajectory. They stand in one part of a split.
    """
    coordinates: tuple[Tensor, Tensor] | None = None
    """Latitudes ``[H]`` of the rows and longitudes ``[W]`` of the columns.

    In degrees, float64 on the CPU. They are known before the samples are.
    """
    has_targets: bool = True
    """Whether the targets mean something; not if the predictor is given."""
    warnings: tuple[str, ...] = ()
    """What the user should know about the samples before anything is trained with them."""

    @property
    def facts(self) -> dict[str, str]:
        """Further facts about the dataset for the user, once it is made."""
        return {}


class GivenDataset(Described):
    """Samples that exist from the start. Subclasses set ``inputs`` and ``targets``."""

    kind: ClassVar[str]
    """Kind in the saved state, that of the block's first release."""
    epoch = 0
    """There are no epochs."""
    total_epochs = 0
    """There are no epochs."""
    inputs: Tensor
    targets: Tensor

    @property
    def memory_bytes(self) -> int:
        """Bytes of inputs and targets."""
        return sum(t.element_size() * t.numel() for t in (self.inputs, self.targets))

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Do nothing."""
        return {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the position only: the data follow from the spec."""
        return {}, {"kind": self.kind, "epoch": "0"}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Check that the state is of this kind. Raises ``InvalidInput`` otherwise."""
        check_kind(metadata, self.kind)


class MadeDataset(Described, ABC):
    """Samples that one epoch generates or reads, from nothing but the spec."""

    kind: ClassVar[str]
    """Kind in the saved state, that of the block's first release."""
    total_epochs = 1
    """One epoch makes all samples."""

    def __init__(self) -> None:
        self._data: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def make(self, on_step: StepCallback) -> tuple[Tensor, Tensor]:
        """Make all inputs and targets.

        Args:
            on_step: Called after each chunk.

        Returns:
            Inputs and targets.
        """

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return 0 if self._data is None else 1

    @property
    def inputs(self) -> Tensor:
        """All inputs. Raises ``NotReady`` before they are made."""
        return self._ready()[0]

    @property
    def targets(self) -> Tensor:
        """All targets. Raises ``NotReady`` before they are made."""
        return self._ready()[1]

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Make all samples, chunk by chunk, and return their number as ``samples``."""
        self._data = self.make(on_step)
        return {"samples": float(len(self._data[0]))}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the position only: the data follow from the spec."""
        return {}, {"kind": self.kind, "epoch": str(self.epoch)}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Make the samples if the saved state had them. Raises ``InvalidInput`` if it differs."""
        if check_kind(metadata, self.kind) == 0:
            self._data = None
        elif self._data is None:
            self.run_epoch(lambda *_: None)

    def _ready(self) -> tuple[Tensor, Tensor]:
        if self._data is None:
            raise NotReady("the dataset is not made yet", remedy="run its job first")
        return self._data


def entries_of(folder: Path) -> list[str]:
    """List what a folder holds, without hidden files; names of folders end with a slash."""
    return [
        f"{path.name}/" if path.is_dir() else path.name
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    ]


def no_tensors(kind: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ``InvalidInput`` if tensors were sent to a dataset that makes or reads its own data."""
    if tensors:
        raise InvalidInput(
            f"the dataset {current_kind(kind)} makes or reads its own data",
            "dataset.tensors",
            "no tensors",
            "send no tensors, or use the dataset arrays",
        )
