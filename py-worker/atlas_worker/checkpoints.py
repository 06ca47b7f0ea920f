"""Checkpoint files: PyTorch's (.pt, .pth; weights only, never executing code) and safetensors."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import published

Format = Literal["pytorch", "safetensors"]

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights, beside an optimiser's state, an epoch and the like."""

LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors file's, as its library has it."""

DEEPEST = 64
MOST_ENTRIES = 200_000
LONGEST_NAME = 1000
"""Levels of containers, entries, and characters of a flattened name that a PyTorch checkpoint may have. One that holds itself has no end of them."""
MOST_COPIES = 20
"""How many times its own size a file may become where tensors that share memory are written one by one."""

WEIGHTS_ALONE = "save its weights alone where it was made: torch.save(model.state_dict(), FILE)"


@dataclass(eq=False)
class CheckpointError(Exception):
    """A file that is no checkpoint, is damaged, or would execute code. One line, and what to do."""

    message: str
    remedy: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the tensors by name, and what in it is no weight and was left out."""

    format: Format
    tensors: dict[str, Tensor]
    left_out: list[str]
    metadata: dict[str, str]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's name, type (``float32``), shape, and size in bytes."""

    name: str
    dtype: str
    shape: list[int]
    bytes: int


@dataclass(frozen=True)
class Summary:
    """A checkpoint without its numbers."""

    format: Format
    tensors: list[TensorInfo]
    left_out: list[str]
    metadata: dict[str, str]
    published: str | None
    """The network of the method's published code that has such keys, of ``published.NETWORKS``."""

    def to_json(self) -> dict[str, object]:
        """As JSON has it; the orchestrator's schema is in src/interop."""
        return asdict(self)


def load(path: Path) -> Checkpoint:
    """Load a checkpoint to the CPU, whatever its name ends with; the format is told from its first bytes.

    Raises ``CheckpointError`` when it is empty, truncated, no checkpoint, or needs code to be executed, and
    ``OSError`` when it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(9)
    # First: it begins with its header's length, which may have any bytes. Those of other formats are no length that it may have.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        return _load_safetensors(path)
    if head.startswith(b"PK"):
        return _load_pytorch(path, zipped=True)
    if head.startswith(b"\x80"):  # a pickle: PyTorch before 1.6, or pickle.dump
        return _load_pytorch(path, zipped=False)
    what = "is empty" if not head else "is no PyTorch or safetensors checkpoint"
    raise CheckpointError(
        f"{path} {what}", "give a .pt or .pth file with a state dict, or a .safetensors file"
    )


def inspect(path: Path) -> Summary:
    """List a checkpoint's tensors. Raises as ``load`` does."""
    checkpoint = load(path)
    tensors = [
        TensorInfo(name, str(t.dtype).removeprefix("torch."), list(t.shape), t.numel() * t.element_size())
        for name, t in checkpoint.tensors.items()
    ]
    network = published.network_of(name.removeprefix("module.") for name in checkpoint.tensors)
    return Summary(checkpoint.format, tensors, checkpoint.left_out, checkpoint.metadata, network)


def convert(source: Path, target: Path, to: Format) -> Summary:
    """Write the tensors of one checkpoint as another; ``target`` is overwritten. Raises as ``load`` does."""
    checkpoint = load(source)
    tensors = checkpoint.tensors
    if not tensors:
        raise CheckpointError(f"{source} holds no tensors", "give a checkpoint with a state dict")
    dense = sum(t.numel() * t.element_size() for t in tensors.values() if t.layout == torch.strided)
    if dense > MOST_COPIES * source.stat().st_size:
        raise CheckpointError(
            f"{source} would become {dense / 2**30:.1f} GiB, as its tensors share what is stored of them",
            WEIGHTS_ALONE,
        )
    if to == "safetensors":
        try:
            save_file(_separate(tensors, source), target, metadata={"format": "pt", **checkpoint.metadata})
        except SafetensorError as error:
            if "I/O error" in str(error) and (code := re.search(r"os error (\d+)", str(error))):
                raise OSError(int(code[1]), str(error), str(target)) from error
            raise CheckpointError(
                f"{source} cannot be written as safetensors ({error})",
                "convert its tensors to dense ones first",
            ) from error
    else:
        # To a file object: the archive would be named after the file otherwise, and equal weights give unequal files.
        with target.open("wb") as file:
            torch.save({name: tensor.clone() for name, tensor in tensors.items()}, file)
    return inspect(target)


def _load_pytorch(path: Path, *, zipped: bool) -> Checkpoint:
    if zipped:
        _refuse_programs(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of a file's format
            # Mapped, an archive's numbers are read when they are used, and inspecting needs none of them.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)|(?:class|function) (\w[\w.]+)", str(error))
        needs = named[1] or named[2] if named else None if zipped else _code_in_pickle(path)
        if needs is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path} would execute code when loaded (it refers to {needs}), and was not",
            WEIGHTS_ALONE,
        ) from error
    except (OSError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # a damaged pickle can raise anything: EOFError, RuntimeError, KeyError, ValueError …
        raise _damaged(path, error) from error
    tensors, left_out = weights_of(content)
    return Checkpoint("pytorch", tensors, left_out, {})


def _code_in_pickle(path: Path) -> str | None:
    """The first thing outside PyTorch that a pickle refers to; read off its opcodes, none of which is carried out."""
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL" and isinstance(argument, str):
                    name = argument.replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":  # of the last two texts
                    name = ".".join(texts[-2:])
                else:
                    if isinstance(argument, str):
                        texts.append(argument)
                    continue
                if not name.startswith(("torch.", "collections.")):
                    return name
    except ValueError:  # truncated
        pass
    return None


Archive = Literal["TorchScript program", "torch.export program", "state dict"]


def archive_kind(archive: zipfile.ZipFile) -> Archive | None:
    """What PyTorch wrote as a zip archive, told from the names in it; None for another's."""
    names = [name.split("/", 1)[-1] for name in archive.namelist()]
    if "constants.pkl" in names:
        return "TorchScript program"
    if any(
        name == "archive_format" or name.startswith(("models/", "serialized_exported_program"))
        for name in names
    ):
        return "torch.export program"
    return "state dict" if "data.pkl" in names else None


def _refuse_programs(path: Path) -> None:
    """Refuse an archive that is damaged or compressed, and one that holds a program beside its weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            kind = archive_kind(archive)
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error
    if kind is None:
        raise CheckpointError(
            f"{path} is a zip file, but no PyTorch checkpoint", "give a file that torch.save wrote"
        )
    if kind != "state dict":
        raise CheckpointError(
            f"{path} is a {kind}, which is code to be executed, and not a state dict",
            f"{WEIGHTS_ALONE}; or use it as it is: atlas discover --predictor FILE --trust-code",
        )
    if compressed:  # mapped, the compressed bytes would be taken for numbers
        raise CheckpointError(
            f"{path} is a compressed zip file, which torch.save does not write",
            "unpack it and pack it again uncompressed (zip -0), or save it anew with torch.save",
        )


def _load_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            return Checkpoint(
                "safetensors",
                {name: file.get_tensor(name) for name in file.keys()},
                [],
                file.metadata() or {},
            )
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"{path} is damaged or truncated ({reason[:160]})", "copy or download it again, or make it anew"
    )


def weights_of(content: object) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in what ``torch.load`` returned, flattened to dotted names, and the names of what is left out.

    >>> weights, left_out = weights_of({"state_dict": {"a": torch.zeros(2)}, "epoch": 3, "optimizer": {}})
    >>> list(weights), left_out
    (['a'], ['epoch', 'optimizer'])
    >>> list(weights_of({"encoder": {"w": torch.zeros(2)}, "decoder": {"w": torch.zeros(2)}})[0])
    ['encoder.w', 'decoder.w']
    """
    for _ in _leaves(content):  # all of it, before any wrapper is opened: one may hold itself
        pass
    outer: list[str] = []
    while isinstance(content, Mapping):
        inner = next(
            (k for k in WRAPPERS if isinstance(content.get(k), Mapping) and any(_tensors(content[k]))), None
        )
        if inner is None:
            break
        outer += [str(key) for key in content if key != inner]
        content = content[inner]
    if isinstance(content, Tensor):
        return {"tensor": _whole("tensor", content)}, outer
    leaves: dict[str, object] = {}
    for name, leaf in _leaves(content):
        if name in leaves:
            raise CheckpointError(
                f"the checkpoint has two entries for {name} once flattened", "rename one of them"
            )
        leaves[name] = leaf
    tensors = {name: _whole(name, leaf) for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    return tensors, outer + [name for name in leaves if name not in tensors]


def _leaves(value: object) -> Iterator[tuple[str, object]]:
    """What is in nested containers, by dotted names. Raises ``CheckpointError`` when there is no end of it."""
    levels, found = [iter([("", value)])], 0
    while levels:
        name, value = next(levels[-1], (None, None))
        if name is None:
            levels.pop()
            continue
        if len(name) > LONGEST_NAME:
            raise _endless(f"a name of more than {LONGEST_NAME} characters")
        if isinstance(value, (Mapping, list, tuple)) and value:
            if len(levels) > DEEPEST:
                raise _endless(f"containers nested more than {DEEPEST} deep, or one that holds itself")
            levels.append(_items(value, f"{name}." if name else ""))
            continue
        found += 1
        if found > MOST_ENTRIES:
            raise _endless(f"more than {MOST_ENTRIES} entries")
        yield name, value


def _items(
    container: Mapping[object, object] | list[object] | tuple[object, ...], prefix: str
) -> Iterator[tuple[str, object]]:
    items = container.items() if isinstance(container, Mapping) else enumerate(container)
    for key, item in items:
        if isinstance(key, (tuple, frozenset)):  # of a small file, it may take any amount of memory as a text
            raise _endless("a key that is a container")
        yield f"{prefix}{key}", item


def _endless(what: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint has {what}", WEIGHTS_ALONE)


def _whole(name: str, tensor: Tensor) -> Tensor:
    """The tensor without its gradient, unless it is larger than what is stored of it: copied, it could take any amount of memory."""
    dense = tensor.layout == torch.strided
    if tensor.is_meta:
        raise CheckpointError(f"{name[:100]} has a shape, but no numbers", WEIGHTS_ALONE)
    if dense and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{name[:100]} has shape {list(tensor.shape)}, which is more than the numbers stored of it",
            "save it whole where it was made: tensor.clone()",
        )
    return tensor.detach()


def _tensors(value: object) -> Iterator[bool]:
    return (True for _, leaf in _leaves(value) if isinstance(leaf, Tensor))


def _separate(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Dense tensors that share no memory (tied weights, views), since safetensors stores each one whole."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(
                f"{source}: {name} is a sparse or quantised tensor, which safetensors cannot hold",
                "convert it to a dense one first (tensor.to_dense(), tensor.dequantize())",
            )
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
