"""Checkpoint files that are not what ``torch.save`` wrote: repacked, or made to exhaust who reads them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from atlas_worker import checkpoints
from atlas_worker.checkpoints import CheckpointError


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """Mapped into memory, its numbers would be the compressed bytes."""
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.pt")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with (
            zipfile.ZipFile(tmp_path / "a.pt") as old,
            zipfile.ZipFile(tmp_path / "b.pt", "w", method) as new,
        ):
            for name in old.namelist():
                new.writestr(name, old.read(name))
        if method == zipfile.ZIP_STORED:
            assert not checkpoints.load(tmp_path / "b.pt").tensors["w"].any()
        else:
            with pytest.raises(CheckpointError, match=r"b\.pt is a compressed zip file"):
                checkpoints.load(tmp_path / "b.pt")
