"""A second device, simulated: its tensors are on the CPU, but look to code as if they were not.

It shows without a GPU whether code computes where its tensors are. It has the name of torch's
device without data, ``meta``; a tensor on it is an :class:`Elsewhere` around a tensor on the CPU.
Operations on tensors of both devices are refused as CUDA refuses them. So are numpy, a generator of
the other device, and an index on this device into a tensor on the other. The numbers are the CPU's
to the bit, so a difference is a fault of the code or of the simulation.

A list as an index, and data in the legacy constructor, become tensors where no dispatch mode sees
them. They are refused too: on CUDA they would mean a copy to the device at each step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import adam
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

HERE, THERE = torch.device("cpu"), torch.device("meta")

_aten = torch.ops.aten
_BETWEEN = {_aten.copy_.default, _aten._to_copy.default}
"""What moves tensors from one device to another."""
_READ_AT, _WRITTEN_AT = (
    {_aten.index.Tensor},
    {_aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default},
)
"""What takes indices on the CPU, wherever the tensor is."""


class Elsewhere(Tensor):
    """A tensor on the second device."""

    own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            own.shape,
            strides=own.stride(),
            storage_offset=own.storage_offset(),
            dtype=own.dtype,
            device=THERE,
        )
        made.own = own
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(op, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"elsewhere {self.own!r}"

    def tolist(self) -> Any:
        return self.own.tolist()

    def numpy(self, **_: Any) -> Any:  # type: ignore[override]
        raise TypeError(
            "can't convert a tensor that is elsewhere to numpy: copy it to the CPU first"
        )

    def __array__(self, *_: Any) -> Any:  # type: ignore[override]
        return self.numpy()


class _Mode(TorchDispatchMode):
    """Sees what makes tensors, too."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(op, args, kwargs or {})


def _dispatch(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, Elsewhere)]
    here = [t for t in tensors if not isinstance(t, Elsewhere)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    _check(op, args, kwargs, there, here, asked)
    inner_args, inner_kwargs = pytree.tree_map(
        lambda t: t.own if isinstance(t, Elsewhere) else t, (args, kwargs)
    )
    if asked is not None:
        inner_kwargs = {**inner_kwargs, "device": HERE}
        inner_kwargs.pop("pin_memory", None)
    out = op(*inner_args, **inner_kwargs)
    if op is _aten.copy_.default:
        return args[0]
    if op in _READ_AT | _WRITTEN_AT:
        goes = isinstance(args[0], Elsewhere)
    elif asked is not None:
        goes = asked == THERE
    else:
        goes = bool(there)
    if not goes:
        return out
    wrapped = pytree.tree_map(lambda t: Elsewhere(t) if type(t) is Tensor else t, out)
    made = op is _aten._to_copy.default or not tensors
    return wrapped if made else return_and_correct_aliasing(op, args, kwargs, wrapped)


def _check(
    op: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    there: list[Tensor],
    here: list[Tensor],
    asked: torch.device | None,
) -> None:
    if any(t.device == THERE for t in here):
        raise RuntimeError(
            f"{op}: a tensor that was made out of sight; index with tensors, not with lists"
        )
    if kwargs.get("generator") is not None and (there or asked == THERE):
        raise RuntimeError(f"{op}: expected a generator of the device, but it is the CPU's")
    if op in _READ_AT | _WRITTEN_AT:
        if there and not isinstance(args[0], Elsewhere):
            raise RuntimeError(f"{op}: indices are elsewhere, the tensor is on the CPU")
        if op in _WRITTEN_AT and args[2].dim() and isinstance(args[2], Elsewhere) != bool(there):
            raise RuntimeError(f"{op}: values on the CPU for a tensor elsewhere")
    elif op not in _BETWEEN and there and any(t.dim() for t in here):
        shapes = [(*t.shape, t.device.type) for t in (*there, *here)]
        raise RuntimeError(
            f"{op}: expected all tensors to be on the same device, but found {shapes}"
        )


@contextmanager
def second_device() -> Iterator[None]:
    """There is one, in this thread and in those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        # Parameters become others when they move, as there are other tensors there.
        patch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
        for name in ("tensor", "as_tensor", "asarray"):
            patch.setattr(torch, name, _making(getattr(torch, name)))
        patch.setattr(torch, "autocast", _autocast)
        patch.setattr(adam, "_device_dtype_check_for_fused", lambda *_, **__: None)
        run = threading.Thread.run

        def run_with_mode(thread: threading.Thread) -> None:
            with _Mode():
                run(thread)

        patch.setattr(threading.Thread, "run", run_with_mode)
        with _Mode():
            yield


def _making(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if device is not None and torch.device(device) == THERE:
            return make(data, *args, **kwargs).to(THERE)
        return make(data, *args, device=device, **kwargs)

    return made


class _autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(HERE.type if device_type == THERE.type else device_type, *args, **kwargs)
