"""Writes a trained predictor for other programs: its weights, or the function that it computes."""

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

from . import blocks as blocks  # declares every architecture
from . import checkpoints
from .catalogue import find
from .checkpoints import CheckpointError
from .errors import WorkerError
from .predictors.supervised import BUILT, build

ExportFormat = Literal["pt", "safetensors", "torchscript", "export"]

TOLERANCE = 1e-6
"""Largest accepted error of a written program, relative to the predictor's largest output."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Shapes are those of one sample. A program maps ``[batch, *takes]`` to ``[batch, *gives]``, both
    float32.
    """

    format: ExportFormat
    kind: str
    parameters: int
    takes: list[int]
    gives: list[int]
    halo: int
    """Pixels beyond a chart's radius that the predictor's input includes."""

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values. The orchestrator's schema is in ``src/interop``."""
        return asdict(self)


class _Alone(nn.Module):
    """Wraps an architecture as a function of its inputs alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x))


def export(source: Path, target: Path, to: ExportFormat) -> Exported:
    """Write the predictor of a checkpoint that Atlas wrote.

    Args:
        source: The checkpoint.
        target: The file to write. An existing file is overwritten.
        to: The format of ``target``.

    Returns:
        What was written.

    Raises:
        CheckpointError: The checkpoint holds no predictor, or its predictor cannot be written in
            this format.
        OSError: A file cannot be read or written.
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
            f"{source} holds no predictor with a description of how it was built",
            "give a run of this version of Atlas that trained or loaded a predictor",
        )
    try:
        module, signature = build(metadata.get("kind", ""), metadata[BUILT], weights)
    except (WorkerError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the predictor of {source} cannot be built again ({error})",
            "use the version of Atlas that trained it",
        ) from error
    kind = find("architecture", metadata["kind"], "kind").kind  # its name today
    halo = int(getattr(module, "halo", 0))
    if signature.manifold == "planar":
        size = 2 * (signature.radius + halo) + 1
        shape = [signature.charts, signature.inputs[0], size, size]
    elif signature.manifold == "vectors":
        shape = [signature.charts, *signature.inputs]
    elif to in ("torchscript", "export"):
        raise CheckpointError(
            f"a predictor of kind {kind} cannot be written as a program yet",
            "export its weights, as pt or safetensors",
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
    return Exported(to, kind, parameters, shape, gives, halo)


def _write_program(
    alone: _Alone, shape: list[int], target: Path, to: Literal["torchscript", "export"]
) -> None:
    draw = torch.Generator().manual_seed(0)
    example = torch.randn(2, *shape, generator=draw)
    program: Callable[[Tensor], Tensor]
    try:
        with warnings.catch_warnings():
            # Sizes that are the same for every batch become constants, as they should.
            warnings.simplefilter("ignore")
            if to == "torchscript":
                program = torch.jit.trace(alone, example, check_trace=False)
            else:
                batch = {0: torch.export.Dim("batch", min=1)}
                exported = torch.export.export(alone, (example,), dynamic_shapes=(batch,))
                program = cast("Callable[[Tensor], Tensor]", exported.module())
            # The largest batch exceeds the batches in which predictors handle small samples.
            for count in (1, 3, 300) if example[0].numel() < 1000 else (1, 3):
                x = torch.randn(count, *shape, generator=draw)
                expected, got = alone(x), program(x)
                scale = expected.abs().max().clamp(min=1e-30)
                if (
                    expected.shape != got.shape
                    or float((got - expected).abs().max() / scale) > TOLERANCE
                ):
                    raise ValueError(f"the program's outputs differ for {count} samples")
            if to == "torchscript":
                torch.jit.save(program, target)
            else:
                # For a path, PyTorch asks for an extension that a temporary file does not have.
                file = io.BytesIO()
                torch.export.save(exported, file)
                target.write_bytes(file.getvalue())
    except OSError:
        raise
    except Exception as error:  # tracing can raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"the predictor cannot be written as {to} ({reason[:160]})",
            "choose another format, such as pt",
        ) from error
