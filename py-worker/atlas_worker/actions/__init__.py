"""Group actions on what a predictor reads and writes, and the task a solver sees."""

from .base import Action, Batch, Inputs, LossKind, Predictor, SymmetryTask, Task
from .planar import FieldInputs, PlanarAction

__all__ = [
    "Action",
    "Batch",
    "FieldInputs",
    "Inputs",
    "LossKind",
    "PlanarAction",
    "Predictor",
    "SymmetryTask",
    "Task",
]
