"""Importing this module declares every block: it imports every module that may hold one."""

import importlib
import pkgutil

from . import datasets, predictors, solvers, symmetry

for _package in (datasets, predictors, solvers, symmetry):
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_module.name)
