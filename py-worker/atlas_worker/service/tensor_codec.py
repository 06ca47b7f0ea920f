"""Tensors and parameters between protobuf and torch; sizes are checked before memory is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from google.protobuf.message import Message
from torch import Tensor

from atlas_worker.errors import InvalidInput, LimitExceeded
from atlas_worker.gen.atlas.v1 import tensor_pb2

from .limits import Limits
from .tickets import Buffer, Layout, Tickets

M = TypeVar("M", bound=Message)

_DTYPES: dict[tensor_pb2.DataType, torch.dtype] = {
    tensor_pb2.DATA_TYPE_FLOAT32: torch.float32,
    tensor_pb2.DATA_TYPE_FLOAT64: torch.float64,
    tensor_pb2.DATA_TYPE_INT64: torch.int64,
    tensor_pb2.DATA_TYPE_INT32: torch.int32,
    tensor_pb2.DATA_TYPE_UINT8: torch.uint8,
    tensor_pb2.DATA_TYPE_BOOL: torch.bool,
}
CODES = {dtype: code for code, dtype in _DTYPES.items()}
"""Code of each type in the contract."""
_ALIGNMENT = 64


def layout(dtype: tensor_pb2.DataType, shape: Sequence[int], limits: Limits, field: str) -> Layout:
    """Check the type and shape of a tensor in a message.

    Args:
        dtype: The type.
        shape: The shape.
        limits: The worker's limits.
        field: Dotted path of the tensor in the request, for the error.

    Returns:
        The layout.

    Raises:
        InvalidInput: The type is unknown, or there are too many dimensions.
        LimitExceeded: The tensor has more than ``max_tensor_bytes``. (Python's integers make sure
            that no product overflows.)
    """
    torch_dtype = _DTYPES.get(dtype)
    if torch_dtype is None:
        names = ", ".join(tensor_pb2.DataType.Name(code) for code in _DTYPES)
        raise InvalidInput(f"unknown tensor type {dtype}", f"{field}.dtype", f"one of {names}")
    if len(shape) > limits.max_rank:
        raise InvalidInput(
            f"the tensor has {len(shape)} dimensions",
            f"{field}.shape",
            f"at most {limits.max_rank} dimensions",
        )
    # Dimensions beside a zero are limited too: torch multiplies them when it computes strides.
    if math.prod(max(n, 1) for n in shape) * torch_dtype.itemsize > limits.max_tensor_bytes:
        raise LimitExceeded(
            f"a tensor of shape {list(shape)} and type {torch_dtype} is too large",
            f"{field}.shape",
            f"at most {limits.max_tensor_bytes} bytes",
            "send less at a time",
        )
    return Layout(torch_dtype, tuple(shape), math.prod(shape) * torch_dtype.itemsize)


def check_length(expected: Layout, got: int, field: str) -> None:
    """Raise ``InvalidInput`` unless ``got`` bytes are exactly the bytes of a tensor."""
    if got != expected.nbytes:
        raise InvalidInput(
            f"{got} bytes for a tensor of shape {list(expected.shape)} and type {expected.dtype}",
            field,
            f"{expected.nbytes} bytes",
        )


def view(buffer: Buffer, field: str) -> Tensor:
    """Return the tensor in a buffer, on the CPU, without a copy where that is safe.

    Args:
        buffer: The buffer.
        field: Dotted path of the tensor in the request, for the error.

    Returns:
        The tensor.

    Raises:
        InvalidInput: A bool tensor has a byte other than 0 and 1.
    """
    want = buffer.layout
    if want.nbytes == 0:
        return torch.empty(want.shape, dtype=want.dtype)
    raw = torch.frombuffer(buffer.data, dtype=torch.uint8)
    if want.dtype == torch.uint8:
        return raw.reshape(want.shape)
    if want.dtype == torch.bool and bool((raw > 1).any()):
        # torch treats any other byte as neither true nor false.
        raise InvalidInput(
            "the bool tensor has a byte other than 0 and 1", field, "bytes that are 0 or 1"
        )
    if raw.data_ptr() % _ALIGNMENT:
        # Vectorised kernels may round differently on unaligned memory. With the copy, every run
        # gives the same bits.
        raw = raw.clone()
    return raw.view(want.dtype).reshape(want.shape)


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the elements of a contiguous CPU tensor without a copy, row-major, little-endian."""
    if tensor.numel() == 0:
        return memoryview(b"")
    # numpy's types declare that an array is a buffer only from Python 3.12 on.
    return memoryview(cast(Any, tensor.detach().reshape(-1).view(torch.uint8).numpy()))


def pieces(data: memoryview, most: int) -> list[memoryview]:
    """Cut a buffer into frames of at most ``most`` bytes; 0 for one frame.

    >>> [bytes(piece) for piece in pieces(memoryview(b"abcde"), 2)]
    [b'ab', b'cd', b'e']
    """
    return (
        [data[at : at + most] for at in range(0, len(data), most)]
        if 0 < most < len(data)
        else [data]
    )


def joined(frames: Sequence[memoryview]) -> memoryview:
    """Join the frames of a buffer; a single frame is not copied."""
    if len(frames) == 1:
        return frames[0]
    whole = raw_bytes(torch.empty(sum(map(len, frames)), dtype=torch.uint8))
    at = 0
    for frame in frames:
        whole[at : at + len(frame)] = frame
        at += len(frame)
    return whole


def _enum_value(enum: Any, name: str) -> int:
    """Number of the enum's value whose name ends in ``name``."""
    number: int = next(v.number for v in enum.values if v.name.endswith(f"_{name.upper()}"))
    return number


@dataclass(frozen=True)
class TensorCodec:
    """Reads and writes the tensors of a session's messages.

    Without a session, tensors are inline only.
    """

    limits: Limits
    tickets: Tickets
    session: str = ""

    def decode(self, message: tensor_pb2.Tensor, field: str) -> Tensor:
        """Read a tensor from a message.

        An uploaded tensor is taken off the tensor plane, whatever happens to it then.

        Args:
            message: The message.
            field: Dotted path of the message in the request, for errors.

        Returns:
            The tensor, on the CPU.

        Raises:
            InvalidInput: The type, shape or length is not accepted.
            LimitExceeded: The tensor is too large.
            NotFound: There is no such ticket.
        """
        want = layout(message.dtype, message.shape, self.limits, field)
        if message.WhichOneof("data") == "ticket":
            if not self.session:
                raise InvalidInput(
                    "a ticket needs a session", f"{field}.ticket", "a tensor with inline data"
                )
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
                f"the tensor has {len(message.inline)} bytes inline",
                f"{field}.inline",
                f"at most {self.limits.max_inline_bytes} bytes",
                "upload the tensor to the tensor plane, and send its ticket",
            )
        check_length(want, len(message.inline), field)
        return view(Buffer(want, memoryview(bytearray(message.inline))), field)

    def decode_matrices(
        self, message: tensor_pb2.Tensor, field: str, n: int | None = None
    ) -> Tensor:
        """Read matrices from a message.

        Args:
            message: The message.
            field: Dotted path of the message in the request, for errors.
            n: Expected size of the matrices; None for any.

        Returns:
            ``[m, n, n]`` float64.

        Raises:
            InvalidInput: The shape is another one, or a number is not finite in float32.
        """
        matrices = self.decode(message, field)
        shape = matrices.shape
        if (
            len(shape) != 3
            or shape[1] != shape[2]
            or shape[2] == 0
            or (n is not None and shape[2] != n)
        ):
            side = "n" if n is None else str(n)
            raise InvalidInput(
                f"the tensor has shape {list(shape)}", f"{field}.shape", f"[m, {side}, {side}]"
            )
        if not matrices.is_floating_point() or not bool(torch.isfinite(matrices.float()).all()):
            raise InvalidInput(
                "the matrices have entries that are not finite numbers",
                field,
                "float32 or float64, finite in float32",
            )
        return matrices.double()

    def encode(self, tensor: Tensor) -> tensor_pb2.Tensor:
        """Write a tensor to a message, inline or left on the tensor plane.

        Args:
            tensor: The tensor.

        Returns:
            The message.

        Raises:
            LimitExceeded: The tensor is too large. It is not copied off the device then.
        """
        tensor = tensor.detach()
        if tensor.dtype not in CODES:
            tensor = tensor.float()
        self.check_size(tensor.numel() * tensor.element_size())
        host = tensor.to("cpu").contiguous()
        message = tensor_pb2.Tensor(dtype=CODES[host.dtype], shape=host.shape)
        data = raw_bytes(host)
        inline_limit = (
            self.limits.max_inline_bytes if self.session else self.limits.max_message_bytes // 2
        )
        if data.nbytes <= inline_limit:
            message.inline = data.tobytes()
        else:
            message.ticket = self.tickets.issue(
                self.session, Buffer(Layout(host.dtype, tuple(host.shape), data.nbytes), data)
            )
        return message

    def encode_report(self, report: Any, message: M) -> M:
        """Fill a message from a dataclass whose fields have the same names.

        Tensors are encoded, dataclasses become messages, texts become the enum values whose names
        end in them, and None leaves a field unset.

        Args:
            report: The dataclass.
            message: The message to fill.

        Returns:
            ``message``.
        """
        for field in message.DESCRIPTOR.fields:
            value = getattr(report, field.name)
            if value is None:
                continue
            if field.message_type is None:
                if field.enum_type is not None:
                    value = _enum_value(field.enum_type, value)
                if isinstance(value, list):
                    getattr(message, field.name).extend(value)
                else:
                    setattr(message, field.name, value)
            elif isinstance(value, list):
                for entry in value:
                    self.encode_report(entry, getattr(message, field.name).add())
            elif isinstance(value, Tensor):
                getattr(message, field.name).CopyFrom(self.encode(value))
            else:
                self.encode_report(value, getattr(message, field.name))
        return message

    def check_size(self, nbytes: int) -> None:
        """Raise ``LimitExceeded`` if an answer of ``nbytes`` cannot be sent."""
        limit = self.limits.max_tensor_bytes if self.session else self.limits.max_message_bytes // 2
        if nbytes > limit:
            raise LimitExceeded(
                f"the answer would be {nbytes} bytes",
                "",
                f"at most {limit} bytes",
                "ask for less at a time",
            )


def header(buffer: Buffer) -> bytes:
    """Serialise the ``TensorHeader`` of a buffer."""
    want = buffer.layout
    message = tensor_pb2.TensorHeader(
        dtype=CODES[want.dtype], shape=want.shape, byte_length=want.nbytes
    )
    return bytes(message.SerializeToString())


def plain(value: Any) -> Any:
    """Turn a ``google.protobuf.Struct`` or ``Value`` into plain Python values.

    Numbers are floats, NaN and infinities included.
    """
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
