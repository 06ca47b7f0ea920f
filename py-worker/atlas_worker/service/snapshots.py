"""Snapshots: the state of a ``Trainable`` and its origin in a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from atlas_worker.catalogue import current_kind
from atlas_worker.errors import InvalidInput

from .tensor_codec import raw_bytes

State = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors and metadata, as ``Trainable.state`` returns them."""

_OURS = "atlas."
"""Prefix of our own entries in a file's metadata."""
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
    """Identity of a snapshot: it fits objects of the same type, kind and spec, in any session.

    Type and kind have the names of the block's first release.
    """

    type: str
    kind: str
    spec: str
    """Hash of the spec, of its tensors, and of the specs of the objects that it uses."""


def size(state: State) -> int:
    """Return the bytes of a state's tensors."""
    return sum(t.numel() * t.element_size() for t in state[0].values())


def freeze(state: State, origin: Origin) -> Tensor:
    """Write a state as a safetensors file.

    The same state gives the same bytes. (The library's own writer orders metadata at random.)

    Args:
        state: The state.
        origin: What the state belongs to.

    Returns:
        The file as uint8 ``[length]``, on the CPU.
    """
    tensors = {name: t.detach().to("cpu").contiguous() for name, t in state[0].items()}
    metadata = dict(state[1])
    metadata |= {
        f"{_OURS}role": origin.type,
        f"{_OURS}kind": origin.kind,
        f"{_OURS}spec": origin.spec,
    }
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    # Wider types come first, to align every tensor as the format asks.
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
    """Read a safetensors file.

    Args:
        file: The file as uint8 ``[length]``.
        field: Dotted path of the file in the request, for the error.

    Returns:
        Tensors, metadata without our own entries, and the origin if the file is a snapshot.

    Raises:
        InvalidInput: The tensor is no safetensors file.
    """
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
    """Raise ``InvalidInput`` unless a snapshot fits an object.

    Args:
        got: Origin of the snapshot, or None if the file is no snapshot.
        want: Origin of the object.
        field: Dotted path of the snapshot in the request, for the error.
    """
    if got == want:
        return
    object = f"{want.type} {current_kind(want.kind)!r}"
    if got is None:
        what = "a safetensors file that is no snapshot"
    elif (got.type, got.kind) != (want.type, want.kind):
        what = f"a snapshot of {got.type} {current_kind(got.kind)!r}"
    else:
        what = f"a snapshot of another {object}: its spec, or that of an object it uses, differs"
    raise InvalidInput(
        what,
        field,
        f"a snapshot of {object} with the same spec",
        "create the object with the spec that it had then",
    )
