"""The manifolds there are: how an atlas cuts its charts out of a dataset, and how g acts there. A new one is added here."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..fields.atlas import PlanarAtlas
from ..fields.lattice import Lattice
from ..fields.sphere import SphereAtlas
from ..roles import Dataset, Manifold
from .base import Action, Inputs
from .icosahedron import IcosahedralGrid, IcosahedralInputs
from .planar import FieldInputs, PlanarAction
from .vectors import VectorAction, VectorInputs, VectorSpace

Atlas = PlanarAtlas | SphereAtlas | VectorSpace | IcosahedralGrid


def manifold_of(atlas: Atlas) -> Manifold:
    """What a predictor sees: of charts of a field on whatever manifold, planar windows."""
    if isinstance(atlas, VectorSpace):
        return "vectors"
    return "icosahedron" if isinstance(atlas, IcosahedralGrid) else "planar"


def inputs_on(
    atlas: Atlas,
    dataset: Dataset,
    reach: int = 0,
    margin: int | None = None,
    *,
    keep: bool = False,
    device: torch.device | None = None,
) -> Inputs:
    """A dataset's inputs by charts, drawn to ``device`` (None: where they are); ``reach`` and ``margin`` in pixels, as for ``FieldInputs``.

    ``keep``: keep there what takes long to draw (``IcosahedralInputs``).
    """
    return _on(atlas, dataset, dataset.inputs, reach, margin, labels=False, keep=keep, device=device)


def targets_on(
    atlas: Atlas,
    dataset: Dataset,
    *,
    labels: bool,
    keep: bool = False,
    device: torch.device | None = None,
) -> Inputs:
    """A dataset's targets by charts, as ``inputs_on``; ``labels``: they are classes, which are not interpolated."""
    return _on(atlas, dataset, dataset.targets, 0, 0, labels=labels, keep=keep, device=device)


def _on(
    atlas: Atlas,
    dataset: Dataset,
    values: Tensor,
    reach: int,
    margin: int | None,
    *,
    labels: bool,
    keep: bool,
    device: torch.device | None,
) -> Inputs:
    if isinstance(atlas, VectorSpace):
        return VectorInputs(values, device)
    if isinstance(atlas, IcosahedralGrid):
        return IcosahedralInputs(values, atlas, lattice_of(dataset), labels=labels, keep=keep, device=device)
    return FieldInputs(values, atlas, reach, margin, device)


def lattice_of(dataset: Dataset) -> Lattice:
    """Where the pixels of a dataset's fields are on the sphere."""
    height, width = dataset.inputs.shape[-2:]
    return Lattice(height, width, dataset.coordinates)


def action_on(atlas: Atlas, reach: int = 0) -> Action:
    """How g acts on what a predictor that sees ``reach`` pixels beyond the charts reads, and on what it writes.

    Raises ``InvalidInput`` for an icosahedral grid, where no g does.
    """
    if isinstance(atlas, VectorSpace):
        return VectorAction(atlas.n, atlas.vector_output)
    if isinstance(atlas, IcosahedralGrid):
        raise InvalidInput(
            "no matrix acts on a whole icosahedral grid",
            "atlas",
            "an atlas of charts, or of vectors",
            "look for symmetries on charts of the same fields",
        )
    return PlanarAction(atlas.r_in + reach, atlas.r_out, interpolation_out=atlas.output_interpolation)


def compared_radius(atlas: Atlas) -> int | None:
    """Radius of the part of an output that is compared; None for all of it."""
    return atlas.r_out if isinstance(atlas, PlanarAtlas | SphereAtlas) else None
