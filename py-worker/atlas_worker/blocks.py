"""Importing this module registers every building block."""

from . import datasets as datasets
from . import predictors as predictors
from . import solvers as solvers
