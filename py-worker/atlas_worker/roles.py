"""What the service needs of each kind of object, beyond ``Trainable``. Implementations are found through ``registry``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from .errors import InvalidInput
from .trainable import Trainable

Manifold = Literal["planar", "vectors", "icosahedron"]


@dataclass(frozen=True)
class Signature:
    """What an architecture has to fit. Made by ``make(params, *, signature, tensors: Mapping[str, Tensor], seed: torch.Generator)``."""

    manifold: Manifold
    charts: int
    inputs: tuple[int, ...]
    """Shape of a sample: ``(channels, H, W)`` of a field, ``(m, n)`` of a set of vectors."""
    outputs: int
    """Channels or numbers that come out; classes, for a classifier."""
    radius: int = 0
    """Of the charts, in pixels (planar)."""
    resolution: int = 0
    """Of the grid (icosahedron)."""
    scale: float = 1.0
    """Root mean square of the inputs' entries (vectors)."""
    sample: Tensor | None = None
    """Some inputs, ``[some, *inputs]``, for an architecture that adapts to them (vectors)."""

    def require(self, manifold: Manifold, kind: str) -> None:
        """Raise ``InvalidInput`` unless the task is on this ``manifold``."""
        if self.manifold != manifold:
            raise InvalidInput(
                f"the architecture {kind} is not for {_TASKS[self.manifold]}",
                "predictor.architecture.kind",
                f"one for {_TASKS[self.manifold]}",
                "choose another architecture, or another atlas",
            )


_TASKS: dict[Manifold, str] = {
    "planar": "fields on planar charts",
    "vectors": "sets of vectors",
    "icosahedron": "fields on an icosahedral grid",
}


def refuse_tensors(tensors: Mapping[str, Tensor], *known: str) -> None:
    """Raise ``InvalidInput`` for tensors that an architecture does not take, and for those it lacks."""
    for name in tensors:
        if name not in known:
            raise InvalidInput(
                f"the architecture takes no tensor {name!r}", f"predictor.tensors.{name}", "", "leave it out"
            )
    for name in known:
        if name not in tensors:
            raise InvalidInput(f"the tensor {name} is missing", "predictor.tensors", ", ".join(known))


@runtime_checkable
class Dataset(Trainable, Protocol):
    """Fields or sets of vectors, and what a predictor should make of them. Empty until its epochs (chunks) are done.

    On the device, or on the CPU when there are too many for it: what is drawn of them is moved.

    Made by ``make(params, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor])``.
    """

    @property
    def inputs(self) -> Tensor:
        """``[N, channels, H, W]`` or ``[N, m, n]``; raises ``NotReady`` before generation is finished."""
        ...

    @property
    def targets(self) -> Tensor:
        """``[N, channels, H, W]``, or ``[N, outputs]``; class labels have one channel, ``[N, 1 …]``."""
        ...

    @property
    def outputs(self) -> int:
        """What a predictor of the targets has to put out: their channels, or the number of classes."""
        ...

    @property
    def background(self) -> int | None:
        """The class of pixels where there is nothing, which scores leave out; None where there is none."""
        ...

    @property
    def facts(self) -> dict[str, str]:
        """What else a user may want to know, once it is made."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where each is to have scores of its own (``scores.overlap_scores``)."""
        ...

    @property
    def scenes(self) -> Tensor | None:
        """``[N]`` int64: samples of one scene have the same inputs, labelled by different experts. None: each is its own."""
        ...

    @property
    def coordinates(self) -> tuple[Tensor, Tensor] | None:
        """Latitudes ``[H]`` and longitudes ``[W]`` of fields on a sphere, in degrees (``fields.lattice``); None: as ``fields.sphere`` has them."""
        ...


@runtime_checkable
class LocalPredictor(Trainable, Protocol):
    """One network a chart. Made by ``atlas_worker.predictors.make_predictor`` (see there)."""

    @property
    def facts(self) -> dict[str, int | str]:
        """``parameters``, the number of trained ones of all charts together, and what the architecture has decided."""
        ...

    @property
    def at_once(self) -> int:
        """Samples that it is best given at a time, for their size."""
        ...

    def predict(self, crops: Tensor) -> Tensor:
        """``[B, C, channels, s, s] -> [B, C, out, s, s]``, or ``[B, 1, m, n] -> [B, 1, out]``; evaluation mode, no gradients. Raises ``InvalidInput`` for another shape."""
        ...

    def crops(self, indices: Tensor, dataset: Dataset) -> Tensor:
        """What :meth:`predict` takes, of samples ``indices [B]`` of a dataset of the same kind."""
        ...

    def likeliest(self, outputs: Tensor, dataset: Dataset) -> Tensor:
        """The class of each pixel of the dataset's lattice, from what :meth:`predict` gives: ``[B, H, W]`` int64, −1 where there is no chart."""
        ...

    def scores(self, dataset: Dataset, check: Callable[[], None] = lambda: None) -> dict[str, float]:
        """A classifier's scores on a dataset of the same kind; ``check`` may raise between batches."""
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
    """"kept", "loss", "unseen", "rank" or "duplicate"."""
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
    """Made by ``make(params, *, task: Task, k: int, epochs: int, seed: int)``; k = 0 where it is to be found.

    A "data_solver", which looks at the data alone, by ``make(params, *, dataset, atlas, device, k, epochs, seed)``.
    """

    def report(self) -> AlgebraReport: ...


@runtime_checkable
class CosetSolver(Trainable, Protocol):
    """Made by ``make(params, *, task: Task, identity: Tensor [k, n, n], epochs: int, seed: int)``."""

    def report(self) -> CosetReport: ...
