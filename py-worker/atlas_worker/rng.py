"""Random streams that depend on nothing but a seed and a purpose."""

from __future__ import annotations

import numpy as np
import torch


def random_stream(seed: int, *path: int) -> torch.Generator:
    """Make the generator of random numbers for one purpose.

    Streams are derived again rather than stored, so resuming needs no generator state. They are
    always on the CPU, so that a seed gives the same draws on every device.

    Args:
        seed: The object's seed.
        *path: Numbers that identify the purpose, e.g. ``(1, epoch)``.

    Returns:
        A generator on the CPU.
    """
    words = np.random.SeedSequence([seed, *path]).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(words[0]))
