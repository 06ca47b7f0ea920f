"""Datasets: made on the device, or given by the user."""

from . import arrays as arrays
from . import heat2d as heat2d
