"""Fingerprints of datasets."""

from __future__ import annotations

import torch

from atlas_worker.datasets.fingerprint import fingerprint


def test_depends_on_values_and_shapes_alone() -> None:
    x, y = torch.arange(600.0).reshape(300, 2), torch.zeros(300, 1)
    same = fingerprint(x.clone(), y.clone())
    assert fingerprint(x, y) == same
    other = x.clone()
    other[0] += 1
    assert len({same, fingerprint(other, y), fingerprint(x[:, :1], y)}) == 3
    assert fingerprint(x.double(), y.int()) == same
    assert fingerprint(x[:0], y[:0]) != same
