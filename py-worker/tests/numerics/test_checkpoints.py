"""Checkpoint files that ``torch.save`` did not write: repacked, or made to exhaust their reader."""

from __future__ import annotations

import json
import signal
import zipfile
from pathlib import Path
from typing import Any

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


def holding_itself() -> dict[str, Any]:
    loop: dict[str, Any] = {"w": torch.zeros(2)}
    loop["model"] = loop
    return loop


def cyclic_list() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def doubling(times: int) -> list[Any]:
    shared: list[Any] = [0]
    for _ in range(times):
        shared = [shared, shared]
    return shared


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (holding_itself(), "one that holds itself"),
        ({"a": cyclic_list()}, "one that holds itself"),
        ({"w": torch.zeros(2), "a": doubling(40)}, "more than 200000 entries"),
        ({"k" * 1001: 1}, "a name of more than 1000 characters"),
        (
            {"w": torch.zeros(1).expand(2**20, 2**20)},
            r"w has shape \[1048576, 1048576\], but fewer numbers are stored",
        ),
        (
            dict.fromkeys(map(str, range(100)), torch.zeros(2**16)),
            "would become 0.0 GiB, because its tensors share",
        ),
        ({"w": torch.zeros(2, device="meta")}, "w has a shape but no numbers"),
        ({"a.b": 1, "a": {"b": 2}}, r"two entries named a\.b"),
    ],
)
def test_what_would_exhaust_the_reader_is_refused(content: Any, text: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=text) as error:
        checkpoints.convert(tmp_path / "a.pt", tmp_path / "b.safetensors", "safetensors")
    assert "\n" not in error.value.message


def test_no_memory_is_answered_in_one_line() -> None:
    before = signal.getsignal(signal.SIGINT)
    from atlas_worker import bridge

    signal.signal(signal.SIGINT, before)  # importing it leaves that to the orchestrator

    def allocate() -> dict[str, object]:
        return {"bytes": torch.empty(2**60).nbytes}

    assert "not enough memory" in json.loads(bridge._answer(allocate))["error"]["message"]
