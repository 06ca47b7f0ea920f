"""Datasets: made on the device, read from files, or given by the user."""

from . import arrays as arrays
from . import climatenet as climatenet
from . import hdf5 as hdf5
from . import heat2d as heat2d
from . import points as points
from . import sphere_digits as sphere_digits
