"""Solvers: Lie algebras, cosets, and the test for one component."""

from . import cosets as cosets
from . import grassmann as grassmann
from . import liegan as liegan
from . import paper as paper
