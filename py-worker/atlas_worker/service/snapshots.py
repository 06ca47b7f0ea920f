"""Objects frozen to safetensors files: the tensors and metadata of ``Trainable.state()`` and what they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput

from .wire import raw_bytes

State = tuple[dict[str, Tensor], dict[str, str]]

_OURS = "atlas."
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Origin:
    """What a snapshot is of: it fits objects with the same role, kind and spec, in any session."""

    role: str
    kind: str
    spec: str
    """Hash of the whole spec, its data and those of the objects it was made from."""


def size(state: State) -> int:
    """Bytes of a state's tensors."""
    return sum(t.numel() * t.element_size() for t in state[0].values())


def freeze(state: State, origin: Origin) -> Tensor:
    """A safetensors file, as uint8 ``[length]``. The same state gives the same bytes (the library's writer orders
    metadata at random, hence our own)."""
    tensors = {name: t.detach().to("cpu").contiguous() for name, t in state[0].items()}
    metadata = dict(state[1])
    metadata |= {f"{_OURS}role": origin.role, f"{_OURS}kind": origin.kind, f"{_OURS}spec": origin.spec}
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    # Wider types first keeps every tensor aligned, as the format asks.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    file = torch.empty(8 + len(head) + end, dtype=torch.uint8)
    into = raw_bytes(file)
    into[:8] = len(head).to_bytes(8, "little")
    into[8 : 8 + len(head)] = head
    at = 8 + len(head)
    for name in names:
        data = raw_bytes(tensors[name])
        into[at : at + data.nbytes] = data
        at += data.nbytes
    return file


def thaw(file: Tensor, field: str) -> tuple[dict[str, Tensor], dict[str, str], Origin | None]:
    """Tensors, metadata and, for a snapshot of ours, its origin. ``InvalidInput`` for what is no safetensors file."""
    if file.dtype != torch.uint8 or file.dim() != 1:
        raise InvalidInput(
            f"a {file.dtype} tensor of shape {list(file.shape)}",
            field,
            "a safetensors file as uint8 [length]",
        )
    data = raw_bytes(file.contiguous()).tobytes()
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        metadata: Mapping[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"not a safetensors file: {error}",
            field,
            "a safetensors file",
            "the file is damaged or of another format",
        ) from None
    theirs = {name: value for name, value in metadata.items() if not name.startswith(_OURS)}
    origin = None
    if f"{_OURS}role" in metadata:
        origin = Origin(*(metadata.get(_OURS + name, "") for name in ("role", "kind", "spec")))
    return tensors, theirs, origin


def check_origin(got: Origin | None, want: Origin, field: str) -> None:
    """``InvalidInput`` unless a snapshot is one of an object with the spec ``want``."""
    if got == want:
        return
    if got is None:
        what = "a safetensors file that is no snapshot"
    elif (got.role, got.kind) != (want.role, want.kind):
        what = f"a snapshot of {got.role} {got.kind!r}"
    else:
        what = f"a snapshot of another {want.role} {want.kind!r}: its spec, or that of what it was made from, differs"
    raise InvalidInput(
        what,
        field,
        f"a snapshot of {want.role} {want.kind!r} with the same spec",
        "create the object as it was then",
    )
