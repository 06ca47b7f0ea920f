"""Predictors that were made elsewhere (METHOD 3.6).

They are TorchScript and ``torch.export`` programs, and a user's own PyTorch module.

All of them are code. A TorchScript program may read and write files (``torch.from_file``).
``torch.export.load`` falls back to unpickling whatever a file holds, and evaluates its symbolic
shapes as Python. Neither is safe with a file from a stranger. So the worker accepts them only if it
was started to trust the code of its clients.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from ..catalogue import param, register
from ..checkpoints import archive_kind
from ..errors import InvalidInput
from ..fields.resample import crop
from ..interfaces import Signature, refuse_tensors

_FIELD = "predictor.architecture.params"


class Foreign(nn.Module):
    """Foreign networks as an architecture.

    ``[B, C, in, s + 2 halo, …] -> [B, C, out, s, s]``, or ``[B, 1, m, n] -> [B, 1, out]``.

    Args:
        networks: One network for each chart, or one for all.
        takes: Whether a network takes a batch of all charts ("charts") or of one ("chart"). All
            charts are always given. Charts that are not asked for are zeros, and the others must
            not depend on them. :func:`checked` makes sure of it.
        halo: Pixels beyond the chart's radius that the networks read.
        charts: Number of charts.
    """

    def __init__(self, networks: Programs | Modules, takes: str, halo: int, charts: int) -> None:
        super().__init__()
        self.networks = networks
        self.takes, self.halo, self.charts = takes, halo, charts

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the outputs of ``x``; see :class:`~.supervised.ChartwiseModule`."""
        y = self._all(x, charts) if self.takes == "charts" else self._each(x, charts)
        return y if radius is None else crop(y, radius)

    def _all(self, x: Tensor, charts: Tensor | None) -> Tensor:
        if charts is None:
            return cast(Tensor, self.networks(0, x))
        at = charts.to(x.device)
        full = x.new_zeros(x.shape[0], self.charts, *x.shape[2:]).index_copy(1, at, x)
        return cast(Tensor, self.networks(0, full)[:, at])

    def _each(self, x: Tensor, charts: Tensor | None) -> Tensor:
        if len(self.networks) == 1:
            return cast(Tensor, self.networks(0, x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        chosen = range(self.charts) if charts is None else charts.tolist()
        return torch.stack([self.networks(c, x[:, i]) for i, c in enumerate(chosen)], 1)


class Programs(nn.Module):
    """Loaded programs. They compute in float32, on any device, and never change: copies share them.

    Args:
        files: The programs' files.
    """

    def __init__(self, files: list[bytes]) -> None:
        super().__init__()
        self._files = files
        self._loaded: dict[torch.device, list[Callable[[Tensor], Tensor]]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __deepcopy__(self, memo: dict[int, Any]) -> Programs:
        return self

    def forward(self, number: int, x: Tensor) -> Tensor:
        """Run program ``number`` on a batch."""
        if x.device not in self._loaded:
            self._loaded[x.device] = [load_program(file, x.device) for file in self._files]
        # Optimisation would compile a TorchScript program again after its first runs, and then
        # round differently.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            y = self._loaded[x.device][number](x.float())
        return y.to(x.dtype) if isinstance(y, Tensor) else y


class Modules(nn.Module):
    """A user's modules, whose weights may be trained further.

    With ``single`` they compute in float32, whatever they are given and converted to. Modules that
    make float32 tensors of their own need this.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.of = nn.ModuleList(modules)
        self.single = False

    def __len__(self) -> int:
        return len(self.of)

    def forward(self, number: int, x: Tensor) -> Tensor:
        """Run module ``number`` on a batch."""
        y = self.of[number](x.float() if self.single else x)
        return y.to(x.dtype) if isinstance(y, Tensor) else y

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Modules:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.single:
            super()._apply(_to_single, recurse)  # type: ignore[no-untyped-call]
        return self


def _to_single(t: Tensor) -> Tensor:
    return t.float() if t.dtype == torch.float64 else t


def load_program(file: bytes, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Load a program with constant weights. It is code: see the module's documentation.

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
        if kind == "TorchScript program":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # such files still exist
                module = torch.jit.load(io.BytesIO(file), map_location=device).eval()
        else:
            module = move_to_device_pass(torch.export.load(io.BytesIO(file)), device).module()
    except Exception as error:  # a damaged archive can raise anything
        raise InvalidInput(
            f"the predictor cannot be loaded as a program ({_reason(error)})",
            "predictor.tensors.program",
            "a file of torch.jit.save or torch.export.save",
            "save it again with this version of PyTorch",
        ) from error
    for weight in module.parameters():
        weight.requires_grad_(False)
    return cast("Callable[[Tensor], Tensor]", module)


@dataclass(frozen=True)
class ForeignParams:
    """Parameters that ``program`` and ``module`` share."""

    takes: Literal["charts", "chart"] = param(
        "charts",
        "Whether the predictor takes all charts at once, [B, charts, channels, s, s], "
        "or one chart, [B, channels, s, s] (for sets of vectors: [B, m, n])",
    )
    halo: int = param(
        0,
        "Pixels beyond the chart's radius that the predictor reads",
        minimum=0,
        maximum=4096,
        former="reach",
    )


@dataclass(frozen=True)
class ProgramParams(ForeignParams):
    """Parameters of the architecture ``program``."""

    file: str = param("", "File of the program, unless it is sent as a tensor", file=True)


@register(
    "architecture",
    "program",
    "A TorchScript or torch.export program, in a file or in the tensors `program` or `program.N`, "
    "one for each chart; not trained",
    ProgramParams,
    manifolds=("planar", "vectors"),
    executes_code=True,
)
def make_program(
    params: ProgramParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> Foreign:
    """Load programs. Raises ``InvalidInput`` if they are missing, damaged, or do not fit."""
    given = dict(tensors)
    if params.file:
        if given:
            raise InvalidInput(
                "both a file and tensors are given",
                f"{_FIELD}.file",
                "either a file or tensors",
                "leave one of them out",
            )
        files = [_read(params.file)]
    else:
        names = (
            ["program"] if "program" in given else [f"program.{i}" for i in range(signature.charts)]
        )
        for name in [*names, *given]:
            if name not in given or name not in names:
                raise InvalidInput(
                    f"the tensors are {', '.join(given) or 'none'}",
                    "predictor.tensors",
                    f"program, or program.0 to program.{signature.charts - 1}",
                )
            if given[name].dtype != torch.uint8 or given[name].dim() != 1:
                raise InvalidInput(
                    f"the program is {given[name].dtype} {list(given[name].shape)}",
                    f"predictor.tensors.{name}",
                    "the bytes of a file, as uint8 [length]",
                )
        files = [given[name].numpy().tobytes() for name in names]
    return checked(Programs(files), params, signature)


@dataclass(frozen=True)
class ModuleParams(ForeignParams):
    """Parameters of the architecture ``module``."""

    file: str = param("", "Python file with the factory", file=True)
    factory: str = param("", "Name of the function that returns the torch.nn.Module")
    each: bool = param(False, "Make a module for each chart; for modules that take one chart")


@register(
    "architecture",
    "module",
    "Your own PyTorch module, made by a function in a Python file",
    ModuleParams,
    manifolds=("planar", "vectors"),
    executes_code=True,
)
def make_module(
    params: ModuleParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> Foreign:
    """Make modules. Raises ``InvalidInput`` if the function fails, or a module does not fit."""
    refuse_tensors(tensors)
    factory = _factory(Path(params.file), params.factory)
    count = signature.charts if params.each and params.takes == "chart" else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=seed)))
        try:
            modules = [factory() for _ in range(count)]
        except Exception as error:
            raise _failed(f"{params.factory}()", error, f"{_FIELD}.factory") from error
    if not all(isinstance(module, nn.Module) for module in modules):
        raise InvalidInput(
            f"{params.factory}() returned a {type(modules[0]).__name__}",
            f"{_FIELD}.factory",
            "a torch.nn.Module",
        )
    return checked(Modules(modules), params, signature)


def checked(networks: Programs | Modules, params: ForeignParams, signature: Signature) -> Foreign:
    """Wrap networks as an architecture, after a trial on samples, or on noise if there are none.

    Args:
        networks: The networks.
        params: How to call them.
        signature: The shapes that they have to fit.

    Returns:
        The architecture.

    Raises:
        InvalidInput: The networks do not accept or return what the task needs, or the output on a
            chart depends on other charts, which are compared one by one.
    """
    vectors, takes = signature.manifold == "vectors", params.takes
    if takes == "charts" and len(networks) > 1:
        raise InvalidInput(
            "programs for single charts take one chart, not all of them",
            f"{_FIELD}.takes",
            "chart",
            "set takes to chart",
        )
    foreign = Foreign(networks, takes, 0 if vectors else params.halo, signature.charts).eval()
    size = 2 * signature.radius + 1
    outputs = (signature.outputs,) if vectors else (signature.outputs, size, size)
    for batch in (2, 3):  # two sizes, since an exported program may accept only one
        x = _trial(signature, batch, size + 2 * foreign.halo)
        y = _tried(foreign, x)
        expected = [batch, signature.charts, *outputs]
        if not isinstance(y, Tensor) or list(y.shape) != expected:
            got = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise InvalidInput(
                f"the predictor returns {got} for {list(x.shape)}",
                f"{_FIELD}.takes",
                f"{expected} ([batch, charts, outputs …])",
                "check takes and halo, and the charts and outputs of the task",
            )
        if not y.isfinite().all():
            tried_on = "samples" if vectors else "noise"
            raise InvalidInput(
                f"the predictor returns numbers that are not finite for {tried_on}",
                f"{_FIELD}.file",
                "finite outputs",
                "check its weights, and what it does with negative numbers",
            )
    for chart in range(signature.charts):
        alone = _tried(foreign, x[:, [chart]], torch.tensor([chart]))
        if (alone - y[:, [chart]]).abs().max() > 1e-4 * y.abs().max():
            raise InvalidInput(
                f"the predictor's output on chart {chart} depends on the other charts",
                f"{_FIELD}.takes",
                "an output on each chart that depends on that chart only",
                "set takes to chart, or give a predictor that treats its charts separately",
            )
    if isinstance(networks, Modules):
        try:
            _tried(_doubled(foreign), x.double())
        except InvalidInput:
            networks.single = True
            _tried(_doubled(foreign), x.double())
    return foreign


def _doubled(foreign: Foreign) -> Foreign:
    """Copy an architecture in double precision, as solvers do. Raises ``InvalidInput``."""
    try:
        return copy.deepcopy(foreign).double()
    except Exception as error:
        raise _failed("copying the predictor", error, f"{_FIELD}.factory") from error


def _trial(signature: Signature, batch: int, size: int) -> Tensor:
    """A batch of all charts for ``Foreign``: samples if the signature has any, else noise."""
    if signature.sample is not None:
        return signature.sample[torch.arange(batch) % len(signature.sample), None].cpu().float()
    shape = (
        signature.inputs if signature.manifold == "vectors" else (signature.inputs[0], size, size)
    )
    return torch.randn(batch, signature.charts, *shape, generator=torch.Generator().manual_seed(0))


def _tried(foreign: Foreign, x: Tensor, charts: Tensor | None = None) -> Tensor:
    """Output for a batch. Raises ``InvalidInput`` if the predictor fails."""
    taken = list(x.shape if foreign.takes == "charts" else x.flatten(0, 1).shape)
    try:
        with torch.no_grad():
            return cast(Tensor, foreign(x, charts))
    except InvalidInput:
        raise
    except Exception as error:
        raise _failed(f"the predictor, given {taken},", error, f"{_FIELD}.takes") from error


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}", f"{_FIELD}.file", "the file of a program"
        ) from None


def _factory(path: Path, name: str) -> Callable[[], Any]:
    """Execute a Python file and return its function ``name``.

    The file can import modules beside it. They are loaded as they are now, whatever was loaded
    before.
    """
    if path.suffix != ".py" or not path.is_file():
        raise InvalidInput(f"{path} is no Python file", f"{_FIELD}.file", "the path of a .py file")
    spec = importlib.util.spec_from_file_location(re.sub(r"\W", "_", f"atlas_user_{path}"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    loaded, cached = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(path.parent))
    # Bytecode has times in seconds: a file that is edited twice in a second would seem unchanged.
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(str(path), error, f"{_FIELD}.file") from error
    finally:
        sys.path.remove(str(path.parent))
        sys.dont_write_bytecode = cached
        appeared = set(sys.modules) - loaded
        for new in [
            m for m in appeared if _lies_in(path.parent, sys.modules.get(m.partition(".")[0]))
        ]:
            del sys.modules[new]
    factory = getattr(module, name, None)
    if not callable(factory):
        raise InvalidInput(
            f"{path} has no function {name!r}", f"{_FIELD}.factory", "the name of a function"
        )
    return cast("Callable[[], Any]", factory)


def _lies_in(folder: Path, module: ModuleType | None) -> bool:
    """Whether a module or package is directly in a folder, not in an environment further below."""
    spec = module and module.__spec__
    places = [*((spec and spec.submodule_search_locations) or []), (spec and spec.origin) or ""]
    return Path(places[0]).parent == folder


def _failed(what: str, error: Exception, field: str) -> InvalidInput:
    return InvalidInput(
        f"{what} failed: {_reason(error)}", field, "no error", "try it in Python first"
    )


def _reason(error: Exception) -> str:
    """The last line of an error: TorchScript's errors are tracebacks that end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:200]
