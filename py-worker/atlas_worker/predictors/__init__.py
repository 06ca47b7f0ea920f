"""Predictors: architectures, how they are fitted, and the task they pose."""

from . import cgnet as cgnet
from . import chartwise as chartwise
from . import convnet as convnet
from . import expression as expression
from . import icosahedral_unet as icosahedral_unet
from . import lorentz as lorentz
from . import programs as programs
from . import vectors as vectors
from .local import FittedPredictor, make_predictor, make_task

__all__ = ["FittedPredictor", "make_predictor", "make_task"]
