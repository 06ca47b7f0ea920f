"""Group actions on a predictor's inputs and outputs, and the objective that solvers minimise."""

from .action import Action, Inputs, LossKind, Predictor, max_batch
from .ambient import Ambient, Factor
from .icosahedron import IcosahedralGrid, IcosahedralInputs
from .manifold import (
    Atlas,
    action_on,
    ambient_of,
    check_features,
    chosen_charts,
    compared_radius,
    inputs_on,
    lattice_of,
    manifold_of,
    space_of,
    targets_on,
    written_types,
)
from .objective import Batch, EquivarianceErrors, EquivarianceObjective, Objective
from .planar import FieldInputs, PlanarAction
from .space import Space
from .vectors import VectorAction, VectorInputs, VectorSpace

__all__ = [
    "Action",
    "Ambient",
    "Atlas",
    "Batch",
    "EquivarianceErrors",
    "EquivarianceObjective",
    "Factor",
    "FieldInputs",
    "IcosahedralGrid",
    "IcosahedralInputs",
    "Inputs",
    "LossKind",
    "Objective",
    "PlanarAction",
    "Predictor",
    "Space",
    "VectorAction",
    "VectorInputs",
    "VectorSpace",
    "action_on",
    "ambient_of",
    "check_features",
    "chosen_charts",
    "compared_radius",
    "inputs_on",
    "lattice_of",
    "manifold_of",
    "max_batch",
    "space_of",
    "targets_on",
    "written_types",
]
