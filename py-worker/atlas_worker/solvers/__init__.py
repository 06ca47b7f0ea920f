"""Solvers that find Lie algebras and coset representatives."""
