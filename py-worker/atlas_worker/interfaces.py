"""What the service needs from each type of object, beyond ``Trainable``.

The implementations are blocks; :mod:`atlas_worker.catalogue` finds them by type and kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from torch import Tensor

from .catalogue import Block, Manifold, blocks
from .errors import InvalidInput
from .trainable import Trainable

if TYPE_CHECKING:  # symmetry imports this module
    from .symmetry.ambient import Factor


@dataclass(frozen=True)
class Signature:
    """Shapes and scales that an architecture has to fit.

    An architecture is made by ``make(params, *, signature, tensors, seed)``, where ``tensors`` maps
    names to tensors and ``seed`` is a :class:`torch.Generator`.
    """

    manifold: Manifold
    charts: int
    """Number of charts."""
    inputs: tuple[int, ...]
    """Shape of a sample: ``(channels, H, W)`` for fields of two dimensions, ``(channels, 1, W)`` of
    one, ``(channels, D, H, W)`` of three, ``(m, n)`` for sets of vectors."""
    outputs: int
    """Number of output channels or output numbers; of classes, for a classifier."""
    radius: int = 0
    """Radius of the charts in pixels (planar, lattice)."""
    resolution: int = 0
    """Resolution of the grid (icosahedron)."""
    scale: float = 1.0
    """Root mean square of the inputs' entries (vectors)."""
    sample: Tensor | None = None
    """Some inputs ``[some, *inputs]``, for architectures that adapt to them (vectors)."""
    examples: tuple[Tensor, Tensor | None] | None = None
    """Inputs ``[some, *inputs]`` and targets ``[some, outputs]`` of samples from the whole dataset,
    for architectures that work in standard units (vectors). Class labels are left out."""
    types: tuple[str, str, int, str] | None = None
    """Types of the inputs and the outputs, n, and the dimensions of further groups, for
    architectures that need them: those whose parameters are ``typed``."""

    def check_manifold(self, block: Block) -> None:
        """Raise ``InvalidInput`` if the architecture ``block`` does not work on this manifold."""
        if block.manifolds and self.manifold not in block.manifolds:
            raise InvalidInput(
                f"the architecture {block.kind} does not work on {_DATA[self.manifold]}",
                "predictor.architecture.kind",
                f"one of {', '.join(_kinds_for(self.manifold))}",
                "choose one of them, or another atlas",
            )


def _kinds_for(manifold: Manifold) -> list[str]:
    """Kinds of architectures that work on a manifold, and are no code of the client's."""
    return [
        block.kind
        for block in blocks()
        if block.type == "architecture"
        and not block.executes_code
        and manifold in (block.manifolds or (manifold,))
    ]


_DATA: dict[Manifold, str] = {
    "planar": "fields on planar charts",
    "lattice": "fields of 1 or 3 dimensions",
    "vectors": "sets of vectors",
    "icosahedron": "fields on an icosahedral grid",
}


def refuse_tensors(tensors: Mapping[str, Tensor], *known: str) -> None:
    """Check that a client sent exactly the tensors that an architecture takes.

    Args:
        tensors: The tensors that were sent, by name.
        *known: Names of the tensors that the architecture takes. All of them are required.

    Raises:
        InvalidInput: A tensor is unknown, or one is missing.
    """
    for name in tensors:
        if name not in known:
            raise InvalidInput(
                f"the architecture takes no tensor {name!r}",
                f"predictor.tensors.{name}",
                f"one of {', '.join(known)}" if known else "no tensors",
                "leave it out",
            )
    for name in known:
        if name not in tensors:
            raise InvalidInput(
                f"the tensor {name} is missing", "predictor.tensors", ", ".join(known)
            )


@runtime_checkable
class Dataset(Trainable, Protocol):
    """Samples (fields or sets of vectors) with targets that a predictor is fitted to.

    A dataset is empty until its epochs (chunks) are done. Its tensors are on the device, or on the
    CPU if they do not fit there; batches are then moved to the device as they are drawn.

    Made by ``make(params, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor])``.
    """

    @property
    def inputs(self) -> Tensor:
        """``[N, channels, H, W]`` or ``[N, m, n]``. Raises ``NotReady`` before the last epoch."""
        ...

    @property
    def targets(self) -> Tensor:
        """``[N, channels, H, W]`` or ``[N, outputs]``. Class labels have one channel."""
        ...

    @property
    def outputs(self) -> int:
        """Number of channels of the targets, or of classes: what a predictor has to output."""
        ...

    @property
    def background(self) -> int | None:
        """Class of the pixels that show nothing, which scores leave out. None if there is none."""
        ...

    @property
    def facts(self) -> dict[str, str]:
        """Further facts about the dataset for the user, once it is made."""
        ...

    @property
    def has_targets(self) -> bool:
        """Whether the targets mean something; not if the predictor is given."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the samples before a training, once they are made."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, if each class has scores of its own (``scores.overlap_scores``)."""
        ...

    @property
    def scenes(self) -> Tensor | None:
        """Scene of each sample, ``[N]`` int64, or None if each sample is its own scene.

        Samples of one scene belong together: they have the same inputs and the labels of different
        experts, or are frames of one trajectory. They stand in one part of a split.
        """
        ...

    @property
    def coordinates(self) -> tuple[Tensor, Tensor] | None:
        """Latitudes ``[H]`` and longitudes ``[W]`` in degrees, of fields on a sphere.

        None means the lattice of ``fields.sphere``; see also ``fields.lattice``.
        """
        ...


@runtime_checkable
class LocalPredictor(Trainable, Protocol):
    """One network for each chart. Made by :func:`atlas_worker.predictors.make_predictor`."""

    @property
    def facts(self) -> dict[str, int | str]:
        """Facts about the network, among them ``parameters``: its trained weights on all charts."""
        ...

    @property
    def max_batch(self) -> int:
        """Number of samples to predict at a time, given their size."""
        ...

    def predict(self, crops: Tensor) -> Tensor:
        """Predict in evaluation mode, without gradients.

        Args:
            crops: ``[B, C, channels, s, s]``, or ``[B, 1, m, n]`` for sets of vectors.

        Returns:
            ``[B, C, out, s, s]``, or ``[B, 1, out]`` for sets of vectors.

        Raises:
            InvalidInput: ``crops`` has another shape.
        """
        ...

    def crops(self, indices: Tensor, dataset: Dataset) -> Tensor:
        """Cut the inputs of :meth:`predict` from the samples ``indices [B]`` of a dataset."""
        ...

    def predict_classes(self, outputs: Tensor, dataset: Dataset) -> Tensor:
        """Assign a class to each pixel of the dataset's lattice.

        Args:
            outputs: What :meth:`predict` returned.
            dataset: The dataset that the crops come from.

        Returns:
            ``[B, H, W]`` int64; −1 where there is no chart.
        """
        ...

    def scores(
        self, dataset: Dataset, check: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Score a classifier on a dataset.

        Args:
            dataset: A dataset of the same kind as the one that the predictor was fitted to.
            check: Called between batches; it may raise an error to stop.

        Returns:
            Scores by name, see :mod:`atlas_worker.scores`.
        """
        ...

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights from elsewhere.

        Args:
            tensors: The weights, by the names of this architecture or of the reference code.

        Raises:
            InvalidInput: A tensor does not fit. The error names the first such tensor.
        """
        ...


@dataclass(frozen=True)
class SpectrumEntry:
    """One entry of the spectrum that a report shows (METHOD 2.7)."""

    direction: Tensor
    """``[n, n]``, unit Frobenius norm."""
    loss: float
    """Equivariance loss along the direction."""
    relative_error: float
    """Relative error ρ along the direction (METHOD 2.6)."""


@dataclass(frozen=True)
class AlgebraReport:
    """Result of an algebra solver; the fields of ``GetAlgebraResponse``."""

    generators: Tensor
    losses: list[float]
    relative_errors: list[float]
    noise_floor: float
    symmetry_count: int
    spectrum: list[SpectrumEntry]
    start_losses: list[float]
    explanation: str
    coordinates: Tensor | None = None
    """D ``[n, n]``, in which spans are compared (METHOD 1.7); None for the given coordinates."""
    factors: list[Factor] = field(default_factory=list)
    """The groups whose product acts; none for one GL(n)."""
    free_directions: int = 0
    """Directions that were left out because they move no data (METHOD 2.12)."""
    leading_out: int = 0
    """Directions that were left out because they lead out of the subspace of the data."""
    inert_directions: int = 0
    """Directions that were left out because the output ignores where they lead."""


Outcome = Literal["kept", "not_a_symmetry", "outside_support", "beyond_limit", "duplicate"]
"""What became of a candidate matrix.

- ``not_a_symmetry``: its error is too large.
- ``outside_support``: it moves the data to where there are none.
- ``beyond_limit``: better components filled the places.
- ``duplicate``: it lies in the component of a kept matrix.
"""


@dataclass(frozen=True)
class CosetCandidate:
    """One candidate of a coset solver, with what became of it."""

    matrix: Tensor
    loss: float
    outcome: Outcome
    duplicate_of: int | None = None
    """For a duplicate: index in the report's matrices of the matrix that it duplicates."""


@dataclass(frozen=True)
class ClosureReport:
    """What a closure found beside its matrices; the fields of ``GroupClosure``."""

    table: Tensor
    """``[m, m]`` int64: number of the product of two matrices."""
    spread: float
    """Error of a matrix, in the Frobenius norm; 0 if the group has generators."""
    smallest_distance: float
    """Smallest distance between two matrices; 0 for one matrix."""
    rejected: int
    """Candidates left out because a product with them is no symmetry."""
    resolved: bool
    """Whether the matrices are a group, and can be told apart."""
    explanation: str


@dataclass(frozen=True)
class CosetReport:
    """Result of a coset solver; the fields of ``GetCosetsResponse``."""

    matrices: Tensor
    losses: list[float]
    noise_floor: float
    candidates: list[CosetCandidate] = field(default_factory=list)
    coordinates: Tensor | None = None
    """D ``[n, n]``, in which components are compared (METHOD 1.7); None for the given ones."""
    factors: list[Factor] = field(default_factory=list)
    """The groups whose product acts; none for one GL(n)."""
    closure: ClosureReport | None = None
    """Of a closure solver."""


@runtime_checkable
class AlgebraSolver(Trainable, Protocol):
    """A solver that looks for a Lie algebra.

    Made by ``make(params, *, objective: Objective, k: int, epochs: int, seed: int)``. A
    ``data_solver``, which looks at the data alone, is made by
    ``make(params, *, dataset, atlas, device, k, epochs, seed)``. k = 0 asks the solver to find k.
    """

    def report(self) -> AlgebraReport:
        """Return the generators, sorted by relative error, and what was measured along them."""
        ...


@runtime_checkable
class CosetSolver(Trainable, Protocol):
    """A solver that looks for one matrix in each component of a symmetry group.

    Made by ``make(params, *, objective, identity_algebra, epochs, seed)``, with
    ``identity_algebra [k, n, n]``. A ``closure_solver`` also gets ``matrices [m, n, n]`` to start
    from.
    """

    def report(self) -> CosetReport:
        """Return one matrix for each component, and all candidates with their outcome."""
        ...
