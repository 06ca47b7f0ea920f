"""Foreign networks as an architecture: how they are called (METHOD 3.6).

:mod:`.trial` finds out how a network has to be called, and refuses what is no function of a sample.
"""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from ..checkpoints import archive_kind
from ..errors import InvalidInput
from ..fields.resample import crop

ARCHITECTURE = "predictor.architecture"
FIELD = f"{ARCHITECTURE}.params"


@dataclass(frozen=True)
class Call:
    """How a network has to be called."""

    precision: torch.dtype | None = None
    """Type of its inputs; None for a network that is converted to the type of its inputs."""
    least: int = 1
    """Smallest batch; smaller ones are filled up with copies."""
    most: int | None = None
    """Largest batch; larger ones are cut. None if there is no limit."""
    key: str = ""
    """The output's name or index, if there are several; see :func:`select`."""
    converted: torch.dtype | None = None
    """Own precision of a program that is converted to that of its inputs; None for no such."""
    inner_gradient: bool = False
    """Whether it computes gradients itself, and so needs them even if nobody asks for its own."""


class Foreign(nn.Module):
    """Foreign networks as an architecture.

    ``[B, C, in, s + 2 halo, …] -> [B, C, out, s, s]``, or ``[B, 1, m, n] -> [B, 1, out]``.

    Args:
        networks: One network for each chart, or one for all.
        takes: Whether a network takes a batch of all charts ("charts") or of one ("chart"). All
            charts are always given. Charts that are not asked for are zeros, and the others must
            not depend on them.
        halo: Pixels beyond the chart's radius that the networks read.
        charts: Number of charts.
        key: The output's name or index, if there are several.
    """

    def __init__(
        self, networks: Programs | Modules, takes: str, halo: int, charts: int, key: str = ""
    ) -> None:
        super().__init__()
        self.networks = networks
        self.takes, self.halo, self.charts = takes, halo, charts
        self.calls = [Call(key=key)] * len(networks)
        self.difference_step = 0.0
        """Step of the differences of outputs that take the place of gradients; 0 for gradients."""
        self.resolution = 0.0
        """Smallest step that differences of outputs resolve; 0 for any."""
        self.facts: dict[str, str] = {}

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the outputs of ``x``; see :class:`~.supervised.ChartwiseModule`."""
        y: Tensor = self._all(x, charts) if self.takes == "charts" else self._each(x, charts)
        return y if radius is None else crop(y, radius)

    def _all(self, x: Tensor, charts: Tensor | None) -> Tensor:
        if charts is None:
            return self.run(0, x)
        at = charts.to(x.device)
        full = x.new_zeros(x.shape[0], self.charts, *x.shape[2:]).index_copy(1, at, x)
        chosen: Tensor = self.run(0, full)[:, at]
        return chosen

    def _each(self, x: Tensor, charts: Tensor | None) -> Tensor:
        if len(self.networks) == 1:
            together: Tensor = self.run(0, x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return together
        chosen = range(self.charts) if charts is None else charts.tolist()
        return torch.stack([self.run(c, x[:, i]) for i, c in enumerate(chosen)], 1)

    def run(self, number: int, x: Tensor) -> Tensor:
        """Run network ``number`` on a batch, as ``calls`` says.

        The network gets a copy, and so do we: it may change its input, and use the memory of its
        output again.
        """
        call, blind = self.calls[number], self.difference_step > 0 and not self.training
        with torch.no_grad() if blind else nullcontext():
            given = x.to(call.precision or x.dtype)
            parts = given.split(call.most) if call.most else [given]
            made = [self._run(number, part, call) for part in parts]
            return (made[0] if len(made) == 1 else torch.cat(made)).to(x.dtype)

    def _run(self, number: int, x: Tensor, call: Call) -> Tensor:
        count = len(x)
        if count < call.least:
            x = x[torch.arange(call.least, device=x.device) % count]
        inner = call.inner_gradient and not torch.is_grad_enabled()
        with torch.enable_grad() if inner else nullcontext():
            x = x.detach().clone().requires_grad_() if inner else x.clone()
            y = select(self.networks(number, x, call.converted), call.key)[:count]
        return y.detach().clone() if inner else y.clone()


class Programs(nn.Module):
    """Loaded programs. They work on any device and never change: copies share them.

    Args:
        files: The programs' files.
    """

    def __init__(self, files: list[bytes]) -> None:
        super().__init__()
        self._files = files
        self._loaded: dict[tuple[torch.device, torch.dtype | None], list[nn.Module]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __deepcopy__(self, memo: dict[int, Any]) -> Programs:
        return self

    def file(self, number: int) -> bytes:
        """Return the file of program ``number``."""
        return self._files[number]

    def on(self, device: torch.device, dtype: torch.dtype | None = None) -> list[nn.Module]:
        """Return the programs on a device, as they are or converted to a type.

        Raises:
            InvalidInput: A program cannot be loaded.
        """
        if (device, dtype) not in self._loaded:
            programs = [load_program(file, device) for file in self._files]
            self._loaded[device, dtype] = [p.to(dtype) if dtype else p for p in programs]
        return self._loaded[device, dtype]

    def forward(self, number: int, x: Tensor, converted: torch.dtype | None) -> Any:
        """Run program ``number`` on a batch."""
        dtype = None if converted in (None, x.dtype) else x.dtype
        # Optimisation would compile a TorchScript program again after its first runs, and then
        # round differently.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.on(x.device, dtype)[number](x)


class Modules(nn.Module):
    """A user's modules, whose weights may be trained further.

    With ``fixed`` their weights keep the types that they have, whatever they are converted to.
    Modules that make tensors of their own need this.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.of = nn.ModuleList(modules)
        self.fixed = False

    def __len__(self) -> int:
        return len(self.of)

    def on(self, device: torch.device) -> list[nn.Module]:
        """Return the modules."""
        return list(self.of)

    def forward(self, number: int, x: Tensor, converted: torch.dtype | None) -> Any:
        """Run module ``number`` on a batch."""
        compiles = "torch._dynamo" in sys.modules
        # To compile takes longer than the calls, and every copy would be compiled again.
        with torch.compiler.set_stance("force_eager") if compiles else nullcontext():
            return _bare(self.of[number])(x)

    def train(self, mode: bool = True) -> Modules:
        """Set the mode of the modules. Programs among them have one mode only, which they keep."""
        self.training = mode
        for module in self.of:
            try:
                module.train(mode)
            except NotImplementedError:  # an exported program
                pass
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Modules:
        if not self.fixed:
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

        def move(t: Tensor) -> Tensor:
            moved = fn(t)
            return moved if moved.dtype == t.dtype else t.to(moved.device)

        return super()._apply(move, recurse)  # type: ignore[no-untyped-call, no-any-return]


def _bare(module: nn.Module) -> nn.Module:
    """The module inside of wrappers that only distribute or compile it."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = module.module if isinstance(module, parallel) else None
        inner = getattr(module, "_orig_mod", None) if inner is None else inner
        if inner is None:
            return module
        module = inner


def load_program(file: bytes, device: torch.device) -> nn.Module:
    """Load a program with constant weights. It is code: see :mod:`.programs`.

    Args:
        file: The file, of ``torch.jit.save`` or ``torch.export.save``; its content tells which.
        device: Device of the program.

    Returns:
        The program.

    Raises:
        InvalidInput: The file cannot be loaded as a program.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            kind = archive_kind(archive)
        if kind == "state dict":
            raise ValueError("it holds only weights; load them into an architecture of the worker")
        module: nn.Module
        if kind == "TorchScript program":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # such files still exist
                module = torch.jit.load(io.BytesIO(file), map_location=device).eval()
        else:
            program = move_to_device_pass(torch.export.load(io.BytesIO(file)), device)
            module = program.module()
            module.atlas_batches = _batches(program)  # type: ignore[assignment]
    except Exception as error:  # a damaged archive can raise anything
        raise InvalidInput(
            f"the predictor cannot be loaded as a program ({reason_of(error)})",
            "predictor.tensors.program",
            "a file of torch.jit.save or torch.export.save",
            "save it again with this version of PyTorch",
        ) from error
    for weight in module.parameters():
        weight.requires_grad_(False)
    return module


def _batches(program: ExportedProgram) -> tuple[int, int | None]:
    """The smallest and largest batch that a program was exported for; None for any."""
    names = program.graph_signature.user_inputs
    value = next(n.meta.get("val") for n in program.graph.nodes if n.name == names[0])
    size = value.shape[0]
    if isinstance(size, int):
        return size, size
    allowed = program.range_constraints.get(size.node.expr)
    if allowed is None:
        return 1, None
    upper = int(allowed.upper) if allowed.upper < 2**31 else None
    return max(int(allowed.lower), 1), upper


def exported_shape(network: nn.Module) -> list[int | None] | None:
    """Return the shape of the input that a program was exported for; None entries are free.

    Returns:
        The shape; None if the network is no exported program of one tensor.
    """
    if not isinstance(network, torch.fx.GraphModule):
        return None
    values = [n.meta.get("val") for n in network.graph.nodes if n.op == "placeholder"]
    if len(values) != 1 or not isinstance(values[0], Tensor):
        return None
    return [size if isinstance(size, int) else None for size in values[0].shape]


def select(y: Any, key: str) -> Tensor:
    """Take the predictor's output from what a network returns.

    Args:
        y: A tensor or array, or a tuple, list, mapping or dataclass of such, also nested.
        key: Name or index of the output, with points between levels (``0.logits``). Empty if there
            is one tensor only.

    Returns:
        The output.

    Raises:
        InvalidInput: There is no such output, or there are several and no key.
    """
    at = y
    for step in key.split(".") if key else []:
        there = _members(at)
        if there is None or step not in there:
            raise InvalidInput(
                f"the predictor has no output {key!r}: it returns {_described(y)}",
                f"{FIELD}.output_key",
                "the name or index of one of its outputs",
            )
        at = there[step]
    while (there := _members(at)) is not None:
        tensors = [value for value in there.values() if value is not None]
        if len(tensors) != 1:
            raise InvalidInput(
                f"the predictor returns {_described(at)}",
                f"{FIELD}.output_key",
                "the name or index of one of its outputs",
            )
        at = tensors[0]
    if not isinstance(at, Tensor) and hasattr(at, "__array__"):
        at = torch.as_tensor(at.__array__())
    if not isinstance(at, Tensor):
        raise InvalidInput(
            f"the predictor returns {_described(at)}",
            f"{FIELD}.output_key" if key else f"{FIELD}.takes",
            "a tensor",
        )
    if not at.is_floating_point():
        kind = "complex numbers" if at.is_complex() else "whole numbers, as class indices are"
        raise InvalidInput(
            f"the predictor returns {kind} ({str(at.dtype).removeprefix('torch.')})",
            ARCHITECTURE,
            "real numbers that change smoothly with the input",
            "give its real and imaginary parts as channels"
            if at.is_complex()
            else "give its logits or probabilities",
        )
    return at


def _members(y: Any) -> dict[str, Any] | None:
    """The outputs in a collection by name or index, a named tuple's by both; None for no such."""
    if isinstance(y, Mapping):
        return {str(name): value for name, value in y.items()}
    if is_dataclass(y) and not isinstance(y, type):
        return {f.name: getattr(y, f.name) for f in fields(y)}
    if isinstance(y, Sequence) and not isinstance(y, str | bytes):
        return _Named(y, getattr(y, "_fields", ()))
    return None


class _Named(dict[str, Any]):
    """Members of a sequence by index, also from its end, and by the names of a named tuple."""

    def __init__(self, values: Sequence[Any], names: Sequence[str]) -> None:
        super().__init__({str(i): value for i, value in enumerate(values)})
        self.names = list(names) or list(self)
        self._index = {name: str(i) for i, name in enumerate(names)}
        self._index |= {str(i - len(values)): str(i) for i in range(len(values))}

    def __contains__(self, key: object) -> bool:
        return super().__contains__(self._index.get(str(key), key))

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(self._index.get(key, key))


def _described(y: Any) -> str:
    there = _members(y)
    if there is None:
        return f"a {type(y).__name__}" + (f" {list(y.shape)}" if isinstance(y, Tensor) else "")
    names = there.names if isinstance(there, _Named) else list(there)
    told = [
        f"{name} {list(value.shape)}" if isinstance(value, Tensor) else name
        for name, value in zip(names, there.values(), strict=True)
    ]
    return f"a {type(y).__name__} of {', '.join(told[:20]) or 'nothing'}"


def failed(what: str, error: Exception, field: str, remedy: str = "") -> InvalidInput:
    """Make the error for what a user's code raised."""
    return InvalidInput(
        f"{what} failed: {reason_of(error)}", field, "no error", remedy or "try it in Python first"
    )


def reason_of(error: Exception) -> str:
    """The last line of an error: TorchScript's errors are tracebacks that end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:200]
