"""Messages and sums between the ranks of a training, over ``torch.distributed``."""

from __future__ import annotations

import json
import os
import socket
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
            self._gloo: Any = _distributed.ProcessGroupGloo(
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
        except (RuntimeError, AttributeError) as error:  # it was closed
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
        except (RuntimeError, AttributeError) as error:
            raise _lost(error) from None

    def close(self) -> None:
        """Close the connections, which the other ranks notice."""
        for group in (self._gloo, self._nccl):
            with suppress(RuntimeError):
                if group is not None:
                    group.abort()
        self._gloo = self._nccl = None


class Torchrun:
    """The processes that torchrun has started, on one or several machines, as one sees them.

    One session at a time uses them. Rank 0 calls :meth:`gather` and :meth:`end`, the others
    :meth:`join`.

    Args:
        device: Type of the devices: "cpu" or "cuda".

    Raises:
        KeyError: torchrun has not started this process.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.size, local, self.beside = (
            int(os.environ[name])
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
        self.device = torch.device(device, local) if device == "cuda" else torch.device(device)
        head = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._host = _address_towards(*head)
        from torch.distributed.rendezvous import rendezvous

        self._store: Any = next(rendezvous("env://", self.rank, self.size))[0]
        self._count = 0
        self.taken = False
        """Whether a session uses them."""

    def gather(self) -> Group:
        """Let the others join a new group. Raises ``RankLost`` if some do not come."""
        self._count += 1
        self._tell("join")
        return self._group()

    def join(self) -> Group | None:
        """Wait for the next group, and join it.

        Returns:
            The group; None when rank 0 has ended.

        Raises:
            RankLost: The others did not come.
        """
        try:
            self._store.wait([f"atlas/{self._count + 1}"], _PATIENCE)
            # Groups that rank 0 has given up in the meantime are left out.
            self._count = int(self._store.get("atlas/latest"))
            if self._store.get(f"atlas/{self._count}") != b"join":
                return None
        except RuntimeError:  # the process that keeps the store has ended
            return None
        return self._group()

    def _group(self) -> Group:
        store = _distributed.PrefixStore(f"atlas-group-{self._count}", self._store)
        return Group(store, self.rank, self.size, self.device, self._host)

    def end(self) -> None:
        """Tell the others that this worker ends."""
        self._count += 1
        with suppress(RuntimeError):
            self._tell("end")

    def _tell(self, what: str) -> None:
        self._store.set("atlas/latest", str(self._count))
        self._store.set(f"atlas/{self._count}", what)

    def dismiss(self) -> None:
        """Nothing is to be done: they notice that the group was closed."""

    def close(self) -> None:
        """Leave them to the next session."""
        self.taken = False

    def cause(self, lost: RankLost) -> Exception:
        """Return the error itself: torchrun knows which process ended."""
        return lost


def _address_towards(host: str, port: int) -> str:
    """Return the address of this machine that another one sees. Nothing is sent."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _lost(error: Exception) -> RankLost:
    said = str(error).splitlines() or [""]
    return RankLost(
        f"the connection to another rank was lost: {said[0][:200]}",
        remedy="see the worker's log",
    )
