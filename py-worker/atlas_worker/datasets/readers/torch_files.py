"""Reads tensors in .pt and .safetensors files. Large ones are mapped, and no code is executed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...checkpoints import CheckpointError, every_tensor, load
from ...errors import InvalidInput
from .base import Index, Member, Numbers, Opened, Source


def open_file(path: Path) -> Opened:
    """Open a file of PyTorch or of safetensors.

    Raises:
        InvalidInput: The file is damaged, or would execute code.
    """
    try:
        loaded = load(path)
        tensors, _ = every_tensor(loaded.content)
    except CheckpointError as error:
        raise InvalidInput(error.message, "", "tensors alone", _remedy(error)) from error
    kind = "safetensors" if loaded.format == "safetensors" else "PyTorch"
    if loaded.format == "pytorch" and isinstance(loaded.content, Tensor):
        tensors = {"": next(iter(tensors.values()))}
    sources = {name: _source(path, name, t) for name, t in tensors.items()}
    return Opened(path, kind, [s.member for s in sources.values()], sources.__getitem__)


def _remedy(error: CheckpointError) -> str:
    if "execute" in error.message:
        return "save tensors alone where it was made: torch.save(tensor, FILE)"
    return error.remedy.replace("a .pt or .pth file with a state dict", "a .pt file with tensors")


def _source(path: Path, name: str, t: Tensor) -> Source:
    problem = "complex numbers" if t.is_complex() else ""
    if t.layout != torch.strided or t.is_quantized:
        problem = "a sparse or quantised tensor"
    dtype = str(t.dtype).removeprefix("torch.")

    def get(index: Index) -> Numbers:
        part = t[index]
        known = part.dtype in (torch.float32, torch.float64) or not part.is_floating_point()
        part = part if known else part.float()  # float16, bfloat16 and float8, all exactly
        values: Numbers = part.numpy()
        return values

    return Source(path, Member(name, tuple(t.shape), dtype, problem=problem), get)
