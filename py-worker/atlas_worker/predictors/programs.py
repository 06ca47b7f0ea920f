"""Predictors that were made elsewhere (METHOD 3.6).

They are TorchScript and ``torch.export`` programs, and a user's own PyTorch module.

All of them are code. A TorchScript program may read and write files (``torch.from_file``).
``torch.export.load`` falls back to unpickling whatever a file holds, and evaluates its symbolic
shapes as Python. Neither is safe with a file from a stranger. So the worker accepts them only if it
was started to trust the code of its clients.

:func:`.trial.try_out` then finds out how they have to be called.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..catalogue import param, register
from ..checkpoints import CheckpointError, every_tensor, load
from ..errors import InvalidInput, listed
from ..interfaces import Signature, refuse_tensors
from ..matching import Misfit, Own, match
from .foreign import FIELD, Foreign, Modules, Programs, failed


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
    output_key: str = param(
        "",
        "Name or index of the output, if the predictor returns several",
        added=True,
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
                f"{FIELD}.file",
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
    return _foreign(Programs(files), params, signature)


@dataclass(frozen=True)
class ModuleParams(ForeignParams):
    """Parameters of the architecture ``module``."""

    file: str = param("", "Python file with the factory", file=True)
    factory: str = param("", "Name of the function that returns the torch.nn.Module")
    each: bool = param(False, "Make a module for each chart; for modules that take one chart")
    weights: str = param(
        "",
        "File of weights (.pt, .safetensors) to load into the module; empty: as the factory says",
        file=True,
        added=True,
    )


_SEEDING = threading.Lock()
"""Held while torch's own generator, which all threads share, has a seed of ours."""


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
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=seed)))
        try:
            modules = [factory() for _ in range(count)]
        except Exception as error:
            raise failed(f"{params.factory}()", error, f"{FIELD}.factory") from error
    if not all(isinstance(module, nn.Module) for module in modules):
        raise InvalidInput(
            f"{params.factory}() returned a {type(modules[0]).__name__}",
            f"{FIELD}.factory",
            "a torch.nn.Module",
        )
    if params.weights:
        for module in modules:
            _load_weights(module, Path(params.weights))
    return _foreign(Modules(modules), params, signature)


def _load_weights(module: nn.Module, path: Path) -> None:
    """Load a file of weights into a module. No code in the file is executed."""
    own = module.state_dict()
    needed = {name: Own(t.is_floating_point(), t.shape) for name, t in own.items()}
    field = f"{FIELD}.weights"
    try:
        names, mappings = every_tensor(load(path).content)
        found = match(names, mappings, needed).tensors
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}", field, "a file of weights"
        ) from None
    except (CheckpointError, Misfit) as error:
        raise InvalidInput(
            f"the weights of {path} do not fit the module: {error}",
            field,
            f"tensors {listed(list(own))}",
            error.remedy,
        ) from error
    module.load_state_dict({**own, **found})


def _foreign(networks: Programs | Modules, params: ForeignParams, signature: Signature) -> Foreign:
    if params.takes == "charts" and len(networks) > 1:
        raise InvalidInput(
            "programs for single charts take one chart, not all of them",
            f"{FIELD}.takes",
            "chart",
            "set takes to chart",
        )
    halo = 0 if signature.manifold == "vectors" else params.halo
    return Foreign(networks, params.takes, halo, signature.charts, params.output_key).eval()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}", f"{FIELD}.file", "the file of a program"
        ) from None


def _factory(path: Path, name: str) -> Callable[[], Any]:
    """Execute a Python file and return its function ``name``.

    The file can import modules beside it. They are loaded as they are now, whatever was loaded
    before.
    """
    if path.suffix != ".py" or not path.is_file():
        raise InvalidInput(f"{path} is no Python file", f"{FIELD}.file", "the path of a .py file")
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
        raise failed(str(path), error, f"{FIELD}.file") from error
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
            f"{path} has no function {name!r}", f"{FIELD}.factory", "the name of a function"
        )
    return cast("Callable[[], Any]", factory)


def _lies_in(folder: Path, module: ModuleType | None) -> bool:
    """Whether a module or package is directly in a folder, not in an environment further below."""
    spec = module and module.__spec__
    places = [*((spec and spec.submodule_search_locations) or []), (spec and spec.origin) or ""]
    return Path(places[0]).parent == folder
