"""Group actions on a predictor's inputs and outputs, and the objective that solvers minimise."""

from .action import Action, Inputs, LossKind, Predictor, max_batch
from .icosahedron import IcosahedralGrid, IcosahedralInputs
from .manifold import (
    Atlas,
    action_on,
    check_features,
    compared_radius,
    inputs_on,
    lattice_of,
    manifold_of,
    targets_on,
)
from .objective import Batch, EquivarianceErrors, EquivarianceObjective, Objective
from .planar import FieldInputs, PlanarAction
from .vectors import VectorAction, VectorInputs, VectorSpace

__all__ = [
    "Action",
    "Atlas",
    "Batch",
    "EquivarianceErrors",
    "EquivarianceObjective",
    "FieldInputs",
    "IcosahedralGrid",
    "IcosahedralInputs",
    "Inputs",
    "LossKind",
    "Objective",
    "PlanarAction",
    "Predictor",
    "VectorAction",
    "VectorInputs",
    "VectorSpace",
    "action_on",
    "check_features",
    "compared_radius",
    "inputs_on",
    "lattice_of",
    "manifold_of",
    "max_batch",
    "targets_on",
]
