"""Mutated files give the values of their format's own library, or a refusal (see mutated.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .mutated import FORMATS, case, check

READ = [name for name, format in FORMATS.items() if format.read is not None]


# The same files every time: one with which HDF5 itself hangs would end the tests.
@pytest.mark.parametrize("name", READ)
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 10**6))
def test_a_mutated_file_is_read_alike_or_refused(name: str, seed: int, tmp_path: Path) -> None:
    format = FORMATS[name]
    assert check(format, case(format, seed), tmp_path) in ("same", "refused")
