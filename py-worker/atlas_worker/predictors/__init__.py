"""Predictors: architectures, how they are fitted, and the objective of a fitted predictor."""

from .supervised import FittedPredictor, make_objective, make_predictor

__all__ = ["FittedPredictor", "make_objective", "make_predictor"]
