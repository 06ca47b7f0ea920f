"""One thread: the tensors here are small, and runs must not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from atlas_worker import blocks

assert blocks  # importing it declares every block, as a worker does

settings.register_profile("numerics", deadline=None, derandomize=True, max_examples=25)


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
