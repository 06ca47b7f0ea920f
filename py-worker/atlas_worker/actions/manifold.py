"""The manifolds there are: how an atlas cuts its charts out of a dataset, and how g acts there. A new one is added here."""

from __future__ import annotations

from torch import Tensor

from ..fields.atlas import PlanarAtlas
from ..fields.sphere import SphereAtlas
from ..roles import Manifold
from .base import Action, Inputs
from .planar import FieldInputs, PlanarAction
from .vectors import VectorAction, VectorInputs, VectorSpace

Atlas = PlanarAtlas | SphereAtlas | VectorSpace


def manifold_of(atlas: Atlas) -> Manifold:
    """What a predictor sees: of a field on whatever manifold it is planar windows."""
    return "vectors" if isinstance(atlas, VectorSpace) else "planar"


def inputs_on(atlas: Atlas, values: Tensor, reach: int = 0, margin: int | None = None) -> Inputs:
    """``values`` (a dataset's inputs or targets) by charts; ``reach`` and ``margin`` in pixels, as for ``FieldInputs``."""
    if isinstance(atlas, VectorSpace):
        return VectorInputs(values)
    return FieldInputs(values, atlas, reach, margin)


def action_on(atlas: Atlas, reach: int = 0) -> Action:
    """How g acts on what a predictor that sees ``reach`` pixels beyond the charts reads, and on what it writes."""
    if isinstance(atlas, VectorSpace):
        return VectorAction(atlas.n, atlas.vector_output)
    return PlanarAction(atlas.r_in + reach, atlas.r_out)


def compared_radius(atlas: Atlas) -> int | None:
    """Radius of the part of an output that is compared; None for all of it."""
    return None if isinstance(atlas, VectorSpace) else atlas.r_out
