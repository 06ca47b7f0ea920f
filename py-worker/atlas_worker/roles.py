"""What the service needs of each kind of object, beyond ``Trainable``. Implementations are found through ``registry``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from .trainable import Trainable


@runtime_checkable
class Dataset(Trainable, Protocol):
    """Fields and what a predictor should make of them, on the device. Empty until its epochs (chunks) are done.

    Made by ``make(params, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor])``.
    """

    @property
    def inputs(self) -> Tensor:
        """``[N, channels, H, W]``; raises ``NotReady`` before generation is finished."""
        ...

    @property
    def targets(self) -> Tensor: ...

    @property
    def memory_bytes(self) -> int: ...


@runtime_checkable
class LocalPredictor(Trainable, Protocol):
    """One network a chart. Made by ``atlas_worker.predictors.make_predictor`` (see there)."""

    @property
    def parameters(self) -> int:
        """Number of trained parameters, all charts together."""
        ...

    @property
    def memory_bytes(self) -> int: ...

    def predict(self, crops: Tensor) -> Tensor:
        """``[B, C, channels, s, s] -> [B, C, out, s, s]``, evaluation mode, no gradients. Raises ``InvalidInput`` for another shape."""
        ...

    def crops(self, indices: Tensor) -> Tensor:
        """What :meth:`predict` takes, of samples ``indices [B]`` of the predictor's own dataset."""
        ...

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights from elsewhere: ours by name. Raises ``InvalidInput`` naming the first that does not fit."""
        ...


@dataclass(frozen=True)
class SpectrumEntry:
    direction: Tensor
    """``[n, n]``, unit Frobenius norm."""
    loss: float
    relative_error: float


@dataclass(frozen=True)
class AlgebraReport:
    """``GetAlgebraResponse``, field for field."""

    generators: Tensor
    losses: list[float]
    relative_errors: list[float]
    noise_floor: float
    found: int
    spectrum: list[SpectrumEntry]
    start_losses: list[float]
    verdict: str


@dataclass(frozen=True)
class CosetCandidate:
    matrix: Tensor
    loss: float
    verdict: str
    """"kept", "loss", "rank" or "duplicate"."""
    duplicate_of: int = 0


@dataclass(frozen=True)
class CosetReport:
    """``GetCosetsResponse``, field for field."""

    matrices: Tensor
    losses: list[float]
    noise_floor: float
    candidates: list[CosetCandidate] = field(default_factory=list)


@runtime_checkable
class AlgebraSolver(Trainable, Protocol):
    """Made by ``make(params, *, task: Task, k: int, epochs: int, seed: int)``."""

    @property
    def memory_bytes(self) -> int: ...

    def report(self) -> AlgebraReport: ...


@runtime_checkable
class CosetSolver(Trainable, Protocol):
    """Made by ``make(params, *, task: Task, identity: Tensor [k, n, n], epochs: int, seed: int)``."""

    @property
    def memory_bytes(self) -> int: ...

    def report(self) -> CosetReport: ...
