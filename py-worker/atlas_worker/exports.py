"""A trained predictor written for other programs: its weights, or the function that it computes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from . import checkpoints
from .checkpoints import CheckpointError
from .errors import WorkerError
from .predictors.local import BUILT, build

ExportFormat = Literal["pt", "safetensors", "torchscript", "export"]

TOLERANCE = 1e-6
"""Largest difference of a program's outputs from the predictor's own, to their size, with which it is written."""


@dataclass(frozen=True)
class Exported:
    """What was written. Shapes are of one sample: programs take and give ``[batch, *takes]`` and ``[batch, *gives]``, float32."""

    format: ExportFormat
    kind: str
    parameters: int
    takes: list[int]
    gives: list[int]
    reach: int
    """Pixels beyond a chart's radius that it takes."""

    def to_json(self) -> dict[str, object]:
        """As JSON has it; the orchestrator's schema is in src/interop."""
        return asdict(self)


class _Alone(nn.Module):
    """An architecture as a function of its inputs alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x))


def export(source: Path, target: Path, to: ExportFormat) -> Exported:
    """Write the predictor of a checkpoint of ours as ``to``; ``target`` is overwritten.

    Raises ``CheckpointError`` when it holds none, or one that cannot be written as such a program; ``OSError``.
    """
    checkpoint = checkpoints.load(source)
    metadata = checkpoint.metadata
    weights = {
        name.removeprefix("module."): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("module.")
    }
    if not weights or BUILT not in metadata:
        raise CheckpointError(
            f"{source} holds no predictor that says how it was built",
            "give a run of this version of Atlas whose predictor was trained or loaded by it",
        )
    try:
        module, signature = build(metadata.get("kind", ""), metadata[BUILT], weights)
    except (WorkerError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the predictor of {source} cannot be built again ({error})",
            "use the version of Atlas that trained it",
        ) from error
    reach = int(getattr(module, "reach", 0))
    if signature.manifold == "planar":
        size = 2 * (signature.radius + reach) + 1
        shape = [signature.charts, signature.inputs[0], size, size]
    elif signature.manifold == "vectors":
        shape = [signature.charts, *signature.inputs]
    elif to in ("torchscript", "export"):
        raise CheckpointError(
            f"a predictor of kind {metadata['kind']} cannot be written as a program yet",
            "export its weights: --format pt",
        )
    else:
        shape = []
    alone = _Alone(module).eval()
    gives = list(alone(torch.zeros(2, *shape)).shape[1:]) if shape else []
    if to == "pt":
        with target.open("wb") as file:
            torch.save(weights, file)
    elif to == "safetensors":
        contiguous = {name: t.contiguous() for name, t in weights.items()}
        save_file(contiguous, target, metadata={"kind": metadata["kind"], BUILT: metadata[BUILT]})
    else:
        _write_program(alone, shape, target, to)
    parameters = sum(p.numel() for p in module.parameters())
    return Exported(to, metadata["kind"], parameters, shape, gives, reach)


def _write_program(
    alone: _Alone, shape: list[int], target: Path, to: Literal["torchscript", "export"]
) -> None:
    draw = torch.Generator().manual_seed(0)
    example = torch.randn(2, *shape, generator=draw)
    program: Callable[[Tensor], Tensor]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # sizes that are the same for every batch are constants, and may be
            if to == "torchscript":
                program = torch.jit.trace(alone, example, check_trace=False)
            else:
                batch = {0: torch.export.Dim("batch", min=1)}
                exported = torch.export.export(alone, (example,), dynamic_shapes=(batch,))
                program = cast("Callable[[Tensor], Tensor]", exported.module())
            # Also of a size beyond those in which small samples are computed at a time.
            for count in (1, 3, 300) if example[0].numel() < 1000 else (1, 3):
                x = torch.randn(count, *shape, generator=draw)
                expected, got = alone(x), program(x)
                scale = expected.abs().max().clamp(min=1e-30)
                if expected.shape != got.shape or float((got - expected).abs().max() / scale) > TOLERANCE:
                    raise ValueError(f"for {count} samples it computes something else")
            if to == "torchscript":
                torch.jit.save(program, target)
            else:
                file = io.BytesIO()  # for a path it wants another extension than a temporary file has
                torch.export.save(exported, file)
                target.write_bytes(file.getvalue())
    except OSError:
        raise
    except Exception as error:  # tracing can raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"the predictor cannot be written as {to} ({reason[:160]})",
            "choose another --format, say pt",
        ) from error
