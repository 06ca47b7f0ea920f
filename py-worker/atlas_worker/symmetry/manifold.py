"""The manifolds: how an atlas cuts charts out of a dataset, and how matrices act on them.

To add a manifold, extend this module.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..catalogue import Manifold, register
from ..errors import InvalidInput
from ..fields.atlas import PlanarAtlas, check_radii
from ..fields.lattice import Lattice
from ..fields.sphere import SphereAtlas
from ..interfaces import Dataset
from .action import Action, Inputs
from .features import FeatureType, dimension
from .icosahedron import IcosahedralGrid, IcosahedralInputs
from .planar import FieldInputs, PlanarAction
from .vectors import VectorAction, VectorInputs, VectorSpace

Atlas = PlanarAtlas | SphereAtlas | VectorSpace | IcosahedralGrid
"""The parameters of an action: where the charts are."""


@register(
    "action",
    "planar",
    "Square charts of a flat pixel lattice; a matrix moves each chart about its centre",
    PlanarAtlas,
)
def make_planar(atlas: PlanarAtlas) -> PlanarAtlas:
    """Check a planar atlas and return it."""
    check_radii(atlas)
    return atlas


@register(
    "action",
    "sphere",
    "Square charts of a sphere whose fields lie on a lattice of latitudes and longitudes",
    SphereAtlas,
)
def make_sphere(atlas: SphereAtlas) -> SphereAtlas:
    """Check an atlas of a sphere and return it."""
    check_radii(atlas)
    return atlas


@register(
    "action",
    "vectors",
    "Sets of vectors in R^n as samples; a matrix moves each vector",
    VectorSpace,
)
def make_vectors(space: VectorSpace) -> VectorSpace:
    """Find the dimension of a vector space if it is not given, and check its types."""
    field = "atlas.action.params"
    if space.n == 0:
        if space.features == 0:
            raise InvalidInput("n is 0", f"{field}.n", "a number from 1 to 64, or features")
        n = dimension(FeatureType(space.inputs_as, 1, f"{field}.inputs_as"), space.features)
        space = replace(space, n=n)
    if space.vector_output and space.targets_as:
        raise InvalidInput(
            "the outputs are a set of vectors, and have a type too",
            f"{field}.targets_as",
            "either vector_output or targets_as",
            "leave out vector_output",
        )
    feature_types(space)
    return space


@register(
    "action",
    "icosahedron",
    "The whole sphere on an icosahedral grid, for networks only; no matrix acts on it",
    IcosahedralGrid,
)
def make_icosahedron(grid: IcosahedralGrid) -> IcosahedralGrid:
    """Return the grid."""
    return grid


def manifold_of(atlas: Atlas) -> Manifold:
    """Return what a predictor sees: planar windows for charts of fields on any manifold."""
    if isinstance(atlas, VectorSpace):
        return "vectors"
    return "icosahedron" if isinstance(atlas, IcosahedralGrid) else "planar"


def inputs_on(
    atlas: Atlas,
    dataset: Dataset,
    halo: int = 0,
    margin: int | None = None,
    *,
    materialise: bool = False,
    device: torch.device | None = None,
) -> Inputs:
    """Return a dataset's inputs by charts.

    Args:
        atlas: The charts.
        dataset: The dataset.
        halo: Pixels beyond the chart that the predictor reads; see :class:`FieldInputs`.
        margin: Pixels further out that the resampler may read; None for the atlas's margin.
        materialise: Keep samples on ``device`` if they take long to draw; see
            :class:`IcosahedralInputs`.
        device: Device of drawn samples; None for that of the dataset.

    Returns:
        The inputs.

    Raises:
        InvalidInput: The atlas does not fit the dataset.
    """
    return _on(
        atlas,
        dataset,
        dataset.inputs,
        halo,
        margin,
        labels=False,
        materialise=materialise,
        device=device,
    )


def targets_on(
    atlas: Atlas,
    dataset: Dataset,
    *,
    labels: bool,
    materialise: bool = False,
    device: torch.device | None = None,
) -> Inputs:
    """Return a dataset's targets by charts.

    Args:
        atlas: The charts.
        dataset: The dataset.
        labels: Whether the targets are classes, which are not interpolated.
        materialise: As for :func:`inputs_on`.
        device: As for :func:`inputs_on`.

    Returns:
        The targets.

    Raises:
        InvalidInput: The atlas does not fit the dataset.
    """
    return _on(
        atlas, dataset, dataset.targets, 0, 0, labels=labels, materialise=materialise, device=device
    )


def _on(
    atlas: Atlas,
    dataset: Dataset,
    values: Tensor,
    halo: int,
    margin: int | None,
    *,
    labels: bool,
    materialise: bool,
    device: torch.device | None,
) -> Inputs:
    if isinstance(atlas, VectorSpace):
        return VectorInputs(values, device)
    if isinstance(atlas, IcosahedralGrid):
        return IcosahedralInputs(
            values,
            atlas,
            lattice_of(dataset),
            labels=labels,
            materialise=materialise,
            device=device,
        )
    return FieldInputs(values, atlas, halo, margin, device)


def lattice_of(dataset: Dataset) -> Lattice:
    """Return the lattice of the pixels of a dataset's fields on the sphere."""
    height, width = dataset.inputs.shape[-2:]
    return Lattice(height, width, dataset.coordinates)


def action_on(atlas: Atlas, halo: int = 0) -> Action:
    """Return how matrices act on a predictor's inputs and outputs.

    Args:
        atlas: The charts.
        halo: Pixels beyond the charts that the predictor reads.

    Returns:
        The action.

    Raises:
        InvalidInput: The atlas is an icosahedral grid, on which no matrix acts.
    """
    if isinstance(atlas, VectorSpace):
        return VectorAction(atlas.n, atlas.vector_output, *feature_types(atlas))
    if isinstance(atlas, IcosahedralGrid):
        raise InvalidInput(
            "no matrix acts on a whole icosahedral grid",
            "atlas",
            "an atlas of charts, or of vectors",
            "look for symmetries on charts of the same fields",
        )
    rho_in, rho_out = feature_types(atlas)
    return PlanarAction(
        atlas.r_in + halo,
        atlas.r_out,
        interpolation_out=atlas.output_interpolation,
        rho_in=rho_in,
        rho_out=rho_out,
    )


def feature_types(atlas: Atlas) -> tuple[FeatureType | None, FeatureType | None]:
    """Return the types of an atlas's inputs and outputs.

    Args:
        atlas: The charts.

    Returns:
        The types. None stands for what an action does without a type: scalar channels, one vector
        for each item of a set, and scalar outputs.

    Raises:
        InvalidInput: One of them is not a type, or no matrix moves the items of a set.
    """
    n = atlas.n if isinstance(atlas, VectorSpace) else 2
    usual = FeatureType("V" if isinstance(atlas, VectorSpace) else "S", n)
    given = [
        FeatureType(text, n, f"atlas.action.params.{name}") if text else None
        for name in ("inputs_as", "targets_as")
        for text in [getattr(atlas, name, "")]
    ]
    if isinstance(atlas, VectorSpace) and given[0] is not None and given[0].is_scalar:
        raise InvalidInput(
            f"no matrix moves items of type {given[0].text}",
            "atlas.action.params.inputs_as",
            "a type with a term other than S, such as V+S",
        )
    inputs = None if given[0] is None or given[0].terms == usual.terms else given[0]
    return inputs, None if given[1] is None or given[1].is_scalar else given[1]


def check_features(atlas: Atlas, dataset: Dataset, *, labels: bool) -> None:
    """Check that an atlas's types have as many components as the data.

    Args:
        atlas: The charts.
        dataset: The data.
        labels: Whether the outputs are classes, which no matrix mixes.

    Raises:
        InvalidInput: A type does not fit the data.
    """
    inputs, outputs = feature_types(atlas)
    if inputs is not None:
        axis = -1 if isinstance(atlas, VectorSpace) else 1
        inputs.check(dataset.inputs.shape[axis])
    if outputs is not None:
        if labels:
            raise InvalidInput(
                f"the outputs are classes, and have no type such as {outputs.text}",
                outputs.field,
                "no type",
            )
        outputs.check(dataset.outputs)


def compared_radius(atlas: Atlas) -> int | None:
    """Return the radius of the part of an output that is compared; None for all of it."""
    return atlas.r_out if isinstance(atlas, PlanarAtlas | SphereAtlas) else None
