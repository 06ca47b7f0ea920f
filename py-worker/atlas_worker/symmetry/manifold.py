"""The manifolds: how an atlas cuts charts out of a dataset, and how matrices act on them.

To add a manifold, extend this module.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..catalogue import Manifold, register
from ..errors import InvalidInput
from ..fields.atlas import LatticeAtlas, PlanarAtlas, check_chosen, check_radii
from ..fields.lattice import Lattice
from ..fields.sphere import SphereAtlas
from ..interfaces import Dataset
from .action import Action, Inputs
from .ambient import Ambient, balancing, homogeneous
from .features import (
    FeatureType,
    dimension,
    dimensions,
    parse_dimensions,
    product,
    write_dimensions,
)
from .icosahedron import IcosahedralGrid, IcosahedralInputs
from .planar import FieldInputs, PlanarAction
from .space import Space
from .vectors import VectorAction, VectorInputs, VectorSpace

Atlas = PlanarAtlas | SphereAtlas | LatticeAtlas | VectorSpace | IcosahedralGrid
"""The parameters of an action: where the charts are."""


@register(
    "action",
    "planar",
    "Square charts of a flat pixel lattice; a matrix moves each chart about its centre",
    PlanarAtlas,
)
def make_planar(atlas: PlanarAtlas) -> PlanarAtlas:
    """Check a planar atlas, and find the dimensions of its groups."""
    check_radii(atlas)
    check_chosen(atlas)
    dimensions = _field_dimensions(atlas, 2)
    return atlas if dimensions is None else replace(atlas, dimensions=dimensions)


@register(
    "action",
    "lattice",
    "Charts of fields of 1 or 3 dimensions; a matrix moves each chart about its centre",
    LatticeAtlas,
)
def make_lattice(atlas: LatticeAtlas) -> LatticeAtlas:
    """Check an atlas of a lattice, and find the dimensions of its groups."""
    if atlas.n not in (1, 3):
        raise InvalidInput(f"n is {atlas.n}", "atlas.action.params.n", "1 or 3")
    check_radii(atlas)
    dimensions = _field_dimensions(atlas, atlas.n)
    return atlas if dimensions is None else replace(atlas, dimensions=dimensions)


def _field_dimensions(atlas: PlanarAtlas | LatticeAtlas, n: int) -> str | None:
    """The dimensions of the groups that act on fields; None if only that of the map does."""
    types = _types(atlas, n)
    for type in types:
        if type.affine:
            raise InvalidInput(
                f"channels of a field are no points, as type {type.text} says",
                type.field,
                "V for channels that turn with the map",
            )
    if any(type.groups - {""} for type in types) or atlas.dimensions:
        return write_dimensions(_dimensions(atlas, types, {"": n}))
    return None


def _types(atlas: PlanarAtlas | LatticeAtlas | VectorSpace, n: int) -> list[FeatureType]:
    """The types of inputs and outputs that are given."""
    return [
        FeatureType(text, n, f"atlas.action.params.{name}")
        for name in ("inputs_as", "targets_as")
        for text in [getattr(atlas, name)]
        if text
    ]


def _dimensions(
    atlas: PlanarAtlas | LatticeAtlas | VectorSpace, types: list[FeatureType], known: dict[str, int]
) -> dict[str, int]:
    """Find the dimension of each group."""
    field = "atlas.action.params.dimensions"
    known = {**parse_dimensions(atlas.dimensions, field), **known}
    sizes = {"inputs_as": atlas.features, "targets_as": atlas.target_features}
    counted = [(type, sizes[type.field.rpartition(".")[2]]) for type in types]
    return dimensions(counted, known, field)


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
    types = _types(space, 1)
    if any(type.groups - {""} for type in types) or space.dimensions:
        if space.vector_output:
            raise InvalidInput(
                "the outputs are one set of vectors, but several groups move the inputs",
                f"{field}.vector_output",
                "targets_as",
                "leave out vector_output",
            )
        found = _dimensions(space, types, {"": space.n} if space.n else {})
        space = replace(space, n=found.get("", 0), dimensions=write_dimensions(found))
    elif space.n == 0:
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
    if isinstance(atlas, LatticeAtlas):
        return "lattice"
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
        return VectorAction(atlas.ambient.n, atlas.vector_output, *feature_types(atlas))
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
        ambient=ambient_of(atlas),
        halo=halo,
    )


def ambient_of(atlas: Atlas) -> Ambient:
    """Return the product of all groups that move something on an atlas."""
    if isinstance(atlas, VectorSpace):
        return atlas.ambient
    if not isinstance(atlas, PlanarAtlas | LatticeAtlas):
        return Ambient.linear(2)
    n = map_dimensions(atlas)
    known = parse_dimensions(atlas.dimensions, "atlas.action.params.dimensions")
    return product(_types(atlas, n), n, known, plain=True)


def map_dimensions(atlas: Atlas) -> int:
    """Return n of the vectors of an atlas, or the number of dimensions of its fields."""
    return atlas.n if isinstance(atlas, VectorSpace | LatticeAtlas) else 2


def coordinates_of(atlas: Atlas, dataset: Dataset, *, whiten: bool = False) -> Tensor | None:
    """Return coordinates in which the points of a dataset have mean 0 and spread 1.

    The components of other vectors get the same root mean square, if they have different ones.

    Args:
        atlas: The types.
        dataset: The points and vectors: those of the inputs, or of the outputs for a group that
            moves nothing else.
        whiten: Spread 1 in every direction.

    Returns:
        D ``[n, n]`` float64 (see :func:`homogeneous` and :func:`balancing`); None if no group
        translates, and all vectors have components of about the same size.
    """
    points: dict[str, Tensor] = {}
    vectors: dict[str, Tensor] = {}
    if not isinstance(atlas, VectorSpace):
        return None
    for type, values in zip(feature_types(atlas), (dataset.inputs, dataset.targets), strict=True):
        if type is None:
            if values is dataset.inputs and values.shape[-1] == atlas.n:
                vectors[""] = values.flatten(0, -2)
            continue
        for found, letter in ((points, "X"), (vectors, "V")):
            parts: dict[str, list[Tensor]] = {}
            for kind, part in type.parts():
                if kind[0] == letter and kind[1:] not in found:
                    parts.setdefault(kind[1:], []).append(values[..., part].flatten(0, -2))
            found |= {name: torch.cat(some) for name, some in parts.items()}
    d = homogeneous(atlas.ambient, points, whiten=whiten)
    linear = {name: x for name, x in vectors.items() if name not in points}
    return balancing(atlas.ambient, linear, d)


def space_of(
    atlas: Atlas, dataset: Dataset, group: Tensor | None = None, field: str = "group_algebra"
) -> Space:
    """Return the space in which a Lie algebra is sought.

    Args:
        atlas: How matrices act.
        dataset: The data, whose points decide the units of translations.
        group: Basis ``[d, n, n]`` of an algebra to which the search is restricted; None for none.
        field: The parameter that gave ``group``, for errors.

    Raises:
        InvalidInput: ``group`` is empty, or not in the algebra of the whole group.
    """
    return Space(
        ambient_of(atlas),
        coordinates_of(atlas, dataset, whiten=True),
        group,
        field,
        scaled=coordinates_of(atlas, dataset),
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
    n = map_dimensions(atlas)
    usual = FeatureType("V" if isinstance(atlas, VectorSpace) else "S", n)
    ambient = ambient_of(atlas)
    given = [
        FeatureType(text, n, f"atlas.action.params.{name}", ambient) if text else None
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


def written_types(atlas: Atlas) -> tuple[str, str, int, str]:
    """Return what determines an atlas's types: those of inputs and outputs, n, and dimensions.

    No text stands for outputs that no matrix moves.
    """
    if isinstance(atlas, VectorSpace):
        targets = atlas.targets_as or ("V" if atlas.vector_output else "")
        return atlas.inputs_as or "V", targets, atlas.n, atlas.dimensions
    inputs, targets = (getattr(atlas, name, "") for name in ("inputs_as", "targets_as"))
    return inputs, targets, 2, getattr(atlas, "dimensions", "")


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


def chosen_charts(atlas: Atlas) -> Tensor | None:
    """Return the numbers ``[C']`` of the charts on which symmetries are sought; None for all."""
    chosen = getattr(atlas, "chosen", ())
    return torch.tensor(chosen) if chosen else None


def compared_radius(atlas: Atlas) -> int | None:
    """Return the radius of the part of an output that is compared; None for all of it."""
    return atlas.r_out if isinstance(atlas, PlanarAtlas | SphereAtlas | LatticeAtlas) else None
