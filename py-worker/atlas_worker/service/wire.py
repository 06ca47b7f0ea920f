"""Tensors and parameter structs between protobuf and torch. Every size is checked before memory is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput, LimitExceeded
from atlas_worker.gen.atlas.v1 import tensor_pb2

from .limits import Limits
from .tickets import Buffer, Layout, Tickets

_DTYPES: dict[tensor_pb2.DataType, torch.dtype] = {
    tensor_pb2.DATA_TYPE_FLOAT32: torch.float32,
    tensor_pb2.DATA_TYPE_FLOAT64: torch.float64,
    tensor_pb2.DATA_TYPE_INT64: torch.int64,
    tensor_pb2.DATA_TYPE_INT32: torch.int32,
    tensor_pb2.DATA_TYPE_UINT8: torch.uint8,
    tensor_pb2.DATA_TYPE_BOOL: torch.bool,
}
CODES = {dtype: code for code, dtype in _DTYPES.items()}
_ALIGNMENT = 64


def layout(dtype: tensor_pb2.DataType, shape: Sequence[int], limits: Limits, field: str) -> Layout:
    """Checked dtype and shape of a tensor on the wire. ``InvalidInput`` for an unknown type or an absurd rank,
    ``LimitExceeded`` for more than ``max_tensor_bytes`` (Python integers: no product overflows)."""
    torch_dtype = _DTYPES.get(dtype)
    if torch_dtype is None:
        names = ", ".join(tensor_pb2.DataType.Name(code) for code in _DTYPES)
        raise InvalidInput(f"unknown tensor type {dtype}", f"{field}.dtype", f"one of {names}")
    if len(shape) > limits.max_rank:
        raise InvalidInput(
            f"a tensor of rank {len(shape)}", f"{field}.shape", f"rank at most {limits.max_rank}"
        )
    # Other dimensions are bounded even beside a zero: torch multiplies them when it makes strides.
    if math.prod(max(n, 1) for n in shape) * torch_dtype.itemsize > limits.max_tensor_bytes:
        raise LimitExceeded(
            f"a tensor of shape {list(shape)} and type {torch_dtype} is too large",
            f"{field}.shape",
            f"at most {limits.max_tensor_bytes} bytes",
            "send less at a time",
        )
    return Layout(torch_dtype, tuple(shape), math.prod(shape) * torch_dtype.itemsize)


def check_length(expected: Layout, got: int, field: str) -> None:
    """``InvalidInput`` unless a buffer of ``got`` bytes holds exactly the tensor."""
    if got != expected.nbytes:
        raise InvalidInput(
            f"{got} bytes for a tensor of shape {list(expected.shape)} and type {expected.dtype}",
            field,
            f"{expected.nbytes} bytes",
        )


def view(buffer: Buffer, field: str) -> Tensor:
    """The tensor in a buffer, on the CPU, without a copy where that is safe."""
    want = buffer.layout
    if want.nbytes == 0:
        return torch.empty(want.shape, dtype=want.dtype)
    raw = torch.frombuffer(buffer.data, dtype=torch.uint8)
    if want.dtype == torch.uint8:
        return raw.reshape(want.shape)
    if want.dtype == torch.bool and bool((raw > 1).any()):
        # torch takes any other byte for neither true nor false.
        raise InvalidInput("a bool tensor holds bytes other than 0 and 1", field, "0 or 1")
    if raw.data_ptr() % _ALIGNMENT:
        # Vectorised CPU kernels may round differently on unaligned memory: one copy buys the same bits in every run.
        raw = raw.clone()
    return raw.view(want.dtype).reshape(want.shape)


def raw_bytes(tensor: Tensor) -> memoryview:
    """The elements of a contiguous CPU tensor, row-major and little-endian, without a copy."""
    if tensor.numel() == 0:
        return memoryview(b"")
    # numpy's types say that an array is a buffer only from Python 3.12 on.
    return memoryview(cast(Any, tensor.detach().reshape(-1).view(torch.uint8).numpy()))


def pieces(data: memoryview, most: int) -> list[memoryview]:
    """A buffer cut into frames of at most ``most`` bytes; 0: in one.

    >>> [bytes(piece) for piece in pieces(memoryview(b"abcde"), 2)]
    [b'ab', b'cd', b'e']
    """
    return [data[at : at + most] for at in range(0, len(data), most)] if 0 < most < len(data) else [data]


def joined(frames: Sequence[memoryview]) -> memoryview:
    """The buffer that came in these frames; a copy only where there are several."""
    if len(frames) == 1:
        return frames[0]
    whole = raw_bytes(torch.empty(sum(map(len, frames)), dtype=torch.uint8))
    at = 0
    for frame in frames:
        whole[at : at + len(frame)] = frame
        at += len(frame)
    return whole


@dataclass(frozen=True)
class Wire:
    """Reads and writes the tensors of one session's messages (``session`` empty: inline only)."""

    limits: Limits
    tickets: Tickets
    session: str = ""

    def decode(self, message: tensor_pb2.Tensor, field: str) -> Tensor:
        """The tensor, on the CPU. An uploaded one is taken off the tensor plane, whatever becomes of it.

        Raises ``InvalidInput`` (shape, type, length), ``LimitExceeded``, ``NotFound`` (ticket).
        """
        want = layout(message.dtype, message.shape, self.limits, field)
        if message.WhichOneof("data") == "ticket":
            if not self.session:
                raise InvalidInput("a ticket needs a session", f"{field}.ticket", "the elements inline")
            buffer = self.tickets.take(self.session, message.ticket, f"{field}.ticket")
            if (buffer.layout.dtype, buffer.layout.shape) != (want.dtype, want.shape):
                raise InvalidInput(
                    f"the uploaded tensor is {buffer.layout.dtype} {list(buffer.layout.shape)}",
                    field,
                    f"{want.dtype} {list(want.shape)}, as the message says",
                )
            return view(buffer, field)
        if len(message.inline) > self.limits.max_inline_bytes:
            raise LimitExceeded(
                f"{len(message.inline)} bytes inline",
                f"{field}.inline",
                f"at most {self.limits.max_inline_bytes} bytes",
                "put the tensor on the tensor plane and send its ticket",
            )
        check_length(want, len(message.inline), field)
        return view(Buffer(want, memoryview(bytearray(message.inline))), field)

    def decode_matrices(self, message: tensor_pb2.Tensor, field: str, n: int | None = None) -> Tensor:
        """Finite float64 matrices ``[m, n, n]``."""
        matrices = self.decode(message, field)
        shape = matrices.shape
        if len(shape) != 3 or shape[1] != shape[2] or shape[2] == 0 or (n is not None and shape[2] != n):
            side = "n" if n is None else str(n)
            raise InvalidInput(f"a tensor of shape {list(shape)}", f"{field}.shape", f"[m, {side}, {side}]")
        if not matrices.is_floating_point() or not bool(torch.isfinite(matrices.float()).all()):
            raise InvalidInput(
                "matrices that are not finite numbers", field, "float32 or float64, all finite in float32"
            )
        return matrices.double()

    def encode(self, tensor: Tensor) -> tensor_pb2.Tensor:
        """A message with the tensor, its elements inline or left on the tensor plane. ``LimitExceeded`` before it is
        copied off the device."""
        tensor = tensor.detach()
        if tensor.dtype not in CODES:
            tensor = tensor.float()
        self.check_size(tensor.numel() * tensor.element_size())
        host = tensor.to("cpu").contiguous()
        message = tensor_pb2.Tensor(dtype=CODES[host.dtype], shape=host.shape)
        data = raw_bytes(host)
        inline_limit = self.limits.max_inline_bytes if self.session else self.limits.max_message_bytes // 2
        if data.nbytes <= inline_limit:
            message.inline = data.tobytes()
        else:
            message.ticket = self.tickets.issue(
                self.session, Buffer(Layout(host.dtype, tuple(host.shape), data.nbytes), data)
            )
        return message

    def check_size(self, nbytes: int) -> None:
        """``LimitExceeded`` when an answer of ``nbytes`` cannot be handed out."""
        limit = self.limits.max_tensor_bytes if self.session else self.limits.max_message_bytes // 2
        if nbytes > limit:
            raise LimitExceeded(
                f"the answer would be {nbytes} bytes", "", f"at most {limit} bytes", "ask for less at a time"
            )


def header(buffer: Buffer) -> bytes:
    """A serialized ``TensorHeader``."""
    want = buffer.layout
    message = tensor_pb2.TensorHeader(dtype=CODES[want.dtype], shape=want.shape, byte_length=want.nbytes)
    return bytes(message.SerializeToString())


def plain(value: Any) -> Any:
    """A ``google.protobuf.Struct`` or ``Value`` as plain Python (numbers are floats, NaN and infinities included)."""
    if value.DESCRIPTOR.name == "Struct":
        return {name: plain(value.fields[name]) for name in value.fields}
    match value.WhichOneof("kind"):
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [plain(item) for item in value.list_value.values]
        case None | "null_value":
            return None
        case kind:
            return getattr(value, kind)
