"""Group actions on what a predictor reads and writes, and the task a solver sees."""

from .base import Action, Batch, Inputs, LossKind, Predictor, SymmetryTask, Task, at_once
from .icosahedron import IcosahedralGrid, IcosahedralInputs
from .manifold import (
    Atlas,
    action_on,
    compared_radius,
    inputs_on,
    lattice_of,
    manifold_of,
    targets_on,
)
from .planar import FieldInputs, PlanarAction
from .vectors import VectorAction, VectorInputs, VectorSpace

__all__ = [
    "Action",
    "Atlas",
    "Batch",
    "FieldInputs",
    "IcosahedralGrid",
    "IcosahedralInputs",
    "Inputs",
    "LossKind",
    "PlanarAction",
    "Predictor",
    "SymmetryTask",
    "Task",
    "VectorAction",
    "VectorInputs",
    "VectorSpace",
    "action_on",
    "at_once",
    "compared_radius",
    "inputs_on",
    "lattice_of",
    "manifold_of",
    "targets_on",
]
