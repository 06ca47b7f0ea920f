"""Packages that only some readers need."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import NotReady


def need(name: str, what: str) -> Any:
    """Import a package that may be missing.

    Args:
        name: Name of the package.
        what: What it reads, for the error.

    Returns:
        The module.

    Raises:
        NotReady: The worker does not have the package.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotReady(
            f"this worker cannot read {what}: it has no package {name.partition('.')[0]}",
            expected="a worker with the packages of requirements-files.txt",
            remedy="install them where the worker runs: pip install -r requirements-files.txt",
        ) from None
