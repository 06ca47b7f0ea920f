"""Messages and sums between the ranks of a training, over ``torch.distributed``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from atlas_worker.errors import RankLost

_distributed: Any = torch.distributed
"""PyTorch types little of it. The groups are made one by one, since a worker may have several."""
_CONNECT = timedelta(seconds=120)
"""Time for all ranks to connect."""
_PATIENCE = timedelta(days=365)
"""Time to wait for the others. Those that have ended are noticed at once, by their connection."""
_PIECE = 2**28
"""Bytes that are sent at a time."""
_DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}


@dataclass(frozen=True)
class Message:
    """What rank 0 tells the others."""

    text: dict[str, Any]
    """JSON values."""
    tensors: dict[str, Tensor]
    """On the device that they were on, as far as the receiver has such a device."""


def file_store(path: str, size: int) -> Any:
    """Open the file in which the ranks of one machine find each other.

    Args:
        path: The file, which need not exist. Its folder must be closed to others.
        size: Number of ranks.
    """
    return _distributed.FileStore(path, size)


class Group:
    """The ranks of a training, as one of them sees them (see :class:`atlas_worker.ranks.Ranks`).

    CPU tensors and messages go over gloo. CUDA tensors go over NCCL.

    Args:
        store: Where the ranks find each other, a store of PyTorch.
        rank: Number of this process.
        size: Number of processes.
        device: Device of this process.
        host: Address of the interface over which this process listens to the others.

    Raises:
        RankLost: Not all ranks have come.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        device: torch.device,
        host: str = "127.0.0.1",
    ) -> None:
        self._rank, self._size, self._device = rank, size, device
        options = _distributed.ProcessGroupGloo._Options()
        options._devices = [_distributed.ProcessGroupGloo.create_device(hostname=host)]
        options._timeout = _CONNECT
        try:
            self._gloo = _distributed.ProcessGroupGloo(
                _distributed.PrefixStore("gloo", store), rank, size, options
            )
        except RuntimeError as error:
            raise _lost(error) from None
        self._nccl: Any = None
        self._interrupted = False
        if device.type == "cuda":
            torch.cuda.set_device(device)
            own = _distributed.ProcessGroupNCCL.Options()
            own._timeout = _PATIENCE
            nccl = _distributed.PrefixStore("nccl", store)
            self._nccl = _distributed.ProcessGroupNCCL(nccl, rank, size, own)
            self.sum(torch.zeros(1, device=device))
        # Only now all have found each other, and need the store no longer.
        self.sum(torch.zeros(1))

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self._rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._size

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all ranks. Raises ``RankLost``."""
        options = _distributed.AllreduceOptions()
        options.reduceOp = _distributed.ReduceOp.SUM
        options.timeout = _PATIENCE
        group = self._nccl if tensor.is_cuda else self._gloo
        try:
            group.allreduce([tensor], options).wait()
            if tensor.is_cuda:
                torch.cuda.current_stream(tensor.device).synchronize()
        except RuntimeError as error:
            raise _lost(error) from None
        if self._interrupted:
            raise RankLost("the connection to another rank was lost")

    def interrupt(self) -> None:
        """End a sum over NCCL, which does not notice by itself that another rank has ended."""
        self._interrupted = True
        with suppress(RuntimeError, AttributeError):
            if self._nccl is not None:
                self._nccl.abort()

    def send(self, text: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Send a message from rank 0 to all others. Raises ``RankLost``."""
        described = [
            [name, str(t.dtype), list(t.shape), t.device.type] for name, t in tensors.items()
        ]
        head = json.dumps([dict(text), described]).encode()
        self._broadcast(torch.tensor([len(head)]))
        self._broadcast(torch.frombuffer(bytearray(head), dtype=torch.uint8))
        for tensor in tensors.values():
            self._broadcast(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8))

    def receive(self) -> Message:
        """Wait for a message of rank 0. Raises ``RankLost`` if it ends."""
        length = torch.zeros(1, dtype=torch.int64)
        self._broadcast(length)
        head = torch.empty(int(length), dtype=torch.uint8)
        self._broadcast(head)
        text, described = json.loads(head.numpy().tobytes())
        tensors = {}
        for name, dtype, shape, where in described:
            tensor = torch.empty(shape, dtype=_DTYPES[dtype])
            self._broadcast(tensor.view(-1).view(torch.uint8))
            tensors[name] = tensor.to(self._device) if where == self._device.type else tensor
        return Message(text, tensors)

    def _broadcast(self, flat: Tensor) -> None:
        options = _distributed.BroadcastOptions()
        options.rootRank, options.rootTensor, options.timeout = 0, 0, _PATIENCE
        try:
            for piece in flat.split(_PIECE):
                if piece.numel():
                    self._gloo.broadcast([piece], options).wait()
        except RuntimeError as error:
            raise _lost(error) from None

    def close(self) -> None:
        """Close the connections, which the other ranks notice."""
        for group in (self._gloo, self._nccl):
            with suppress(RuntimeError, AttributeError):
                if group is not None:
                    group.abort()
        del self._gloo, self._nccl


def _lost(error: RuntimeError) -> RankLost:
    said = str(error).splitlines() or [""]
    return RankLost(
        f"the connection to another rank was lost: {said[0][:200]}",
        remedy="see the worker's log",
    )
