"""Reads and writes checkpoint files of PyTorch (never executing code) and of safetensors."""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import matching
from . import reference as reference_code
from .matching import Own

Format = Literal["pytorch", "safetensors"]

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the weights, preferred to other entries with tensors."""

MAPPED = 2**26
"""Bytes from which on a PyTorch checkpoint is mapped into memory, not read."""

LONGEST_HEADER = 100_000_000
"""Largest header of a safetensors file in bytes, as its library allows."""

DEEPEST = 64
"""Largest number of nested containers in a PyTorch checkpoint. A container may hold itself."""
MOST_ENTRIES = 200_000
"""Largest number of entries in a PyTorch checkpoint."""
LONGEST_NAME = 1000
"""Largest number of characters in a flattened name."""
MOST_COPIES = 20
"""Largest growth of a file when tensors that share memory are written separately."""

WEIGHTS_ALONE = "save only its weights where it was made: torch.save(model.state_dict(), FILE)"


@dataclass(eq=False)
class CheckpointError(Exception):
    """A file that is no checkpoint, is damaged, or would execute code; with a remedy."""

    message: str
    remedy: str
    reason: str = ""
    """``executes_code`` if the file would execute code, ``weights_key`` if the name of an entry
    would help, else empty."""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds: tensors by name, and names of entries that are no weights.

    Tensors are mapped from the file. Their numbers are read where they are used.
    """

    format: Format
    tensors: dict[str, Tensor]
    left_out: list[str]
    metadata: dict[str, str]
    content: object = field(default=None, repr=False)
    """What the file holds before its weights are told from the rest."""


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
    reference: str | None
    """The reference network that has such keys, of ``reference.NETWORKS``; None for others."""

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values. The orchestrator's schema is in ``src/interop``."""
        return asdict(self)


def load(path: Path) -> Checkpoint:
    """Load a checkpoint to the CPU.

    The file's first bytes determine the format, not its name.

    Args:
        path: The checkpoint.

    Returns:
        Its tensors and metadata.

    Raises:
        CheckpointError: The file is empty, truncated, no checkpoint, or needs to execute code.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(9)
    # Safetensors first: it begins with its header's length, which may be any bytes. The first bytes
    # of other formats, read as a length, exceed LONGEST_HEADER.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        return _load_safetensors(path)
    if head.startswith(b"PK"):
        return _load_pytorch(path, zipped=True)
    if head.startswith(b"\x80"):  # a pickle: PyTorch before 1.6, or pickle.dump
        return _load_pytorch(path, zipped=False)
    if path.suffix == ".json" and head[:1] in (b"{", b" ", b"\n", b"\r", b"\t"):
        return _load_parts(path)
    what = "is empty" if not head else "is no PyTorch or safetensors checkpoint"
    raise CheckpointError(
        f"{path} {what}", "give a .pt or .pth file with a state dict, or a .safetensors file"
    )


def inspect(path: Path, key: str = "") -> Summary:
    """List a checkpoint's tensors, or those of the entry ``key``.

    Raises:
        CheckpointError: As :func:`load`, or no entry or several match ``key``.
        OSError: The file cannot be read.
    """
    checkpoint = load(path)
    if key:
        names, mappings = every_tensor(checkpoint.content)
        try:
            anchor = matching.anchor(names, mappings, key)
        except matching.Misfit as error:
            raise CheckpointError(f"{path}: {error}", error.remedy, error.reason) from error
        chosen = {n.removeprefix(anchor): t for n, t in names.items() if n.startswith(anchor)}
        checkpoint = Checkpoint(checkpoint.format, chosen, [], checkpoint.metadata)
    tensors = [
        TensorInfo(
            name, str(t.dtype).removeprefix("torch."), list(t.shape), t.numel() * t.element_size()
        )
        for name, t in checkpoint.tensors.items()
    ]
    network = next(
        (
            found
            for prefix in matching.shared_prefixes(checkpoint.tensors)
            if (found := reference_code.network_of(_below(prefix, checkpoint.tensors)))
        ),
        None,
    )
    return Summary(checkpoint.format, tensors, checkpoint.left_out, checkpoint.metadata, network)


def select(source: Path, target: Path, own: Mapping[str, Own], key: str = "") -> matching.Choice:
    """Write those tensors of a checkpoint that are a network's weights as safetensors.

    Args:
        source: The checkpoint to read.
        target: The file to write. An existing file is overwritten.
        own: The network's tensors.
        key: Name of the entry with the weights; empty for the only one that fits.

    Returns:
        What was chosen.

    Raises:
        CheckpointError: ``source`` cannot be loaded (see :func:`load`), its tensors do not fit the
            network, or several entries fit.
        OSError: A file cannot be read or written.
    """
    checkpoint = load(source)
    names, mappings = every_tensor(checkpoint.content)
    try:
        choice = matching.match(names, mappings, own, key)
    except matching.Misfit as error:
        raise CheckpointError(
            f"{source}: {error}{_hint(source, checkpoint)}", error.remedy, error.reason
        ) from error
    _write(choice.tensors, source, target, "safetensors", checkpoint.metadata)
    return choice


def _hint(source: Path, checkpoint: Checkpoint) -> str:
    """Say what may explain that a checkpoint lacks tensors; empty if nothing does."""
    if part := re.search(r"-\d{5}-of-(\d{5})\.", source.name):
        return f"; it is one of {int(part[1])} parts, which an .index.json file lists"
    arrays = [name for name, leaf in _leaves(checkpoint.content) if _is_array(leaf)]
    return f"; {arrays[0][:100]} is a NumPy array, not a tensor" if arrays else ""


def _below(prefix: str, names: Mapping[str, object]) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def convert(source: Path, target: Path, to: Format) -> Summary:
    """Write the tensors of one checkpoint as another.

    Args:
        source: The checkpoint to read.
        target: The file to write. An existing file is overwritten.
        to: The format of ``target``.

    Returns:
        The summary of ``target``.

    Raises:
        CheckpointError: ``source`` cannot be loaded (see :func:`load`), holds no tensors, would
            become much larger, or has tensors that ``to`` cannot hold.
        OSError: A file cannot be read or written.
    """
    checkpoint = load(source)
    tensors = checkpoint.tensors
    if not tensors:
        raise CheckpointError(f"{source} holds no tensors", "give a checkpoint with a state dict")
    _write(tensors, source, target, to, checkpoint.metadata)
    return inspect(target)


def _write(
    tensors: Mapping[str, Tensor],
    source: Path,
    target: Path,
    to: Format,
    metadata: Mapping[str, str],
) -> None:
    dense = sum(t.numel() * t.element_size() for t in tensors.values() if t.layout == torch.strided)
    size = sum(file.stat().st_size for file in _files(source))
    if dense > MOST_COPIES * size:
        raise CheckpointError(
            f"{source} would become {dense / 2**30:.1f} GiB, because its tensors share memory",
            WEIGHTS_ALONE,
        )
    if to == "safetensors":
        try:
            save_file(_separate(tensors, source), target, metadata={"format": "pt", **metadata})
        except SafetensorError as error:
            if "I/O error" in str(error) and (code := re.search(r"os error (\d+)", str(error))):
                raise OSError(int(code[1]), str(error), str(target)) from error
            raise CheckpointError(
                f"{source} cannot be written as safetensors ({error})",
                "convert its tensors to dense ones first",
            ) from error
    else:
        # torch.save names an archive after its file. A file object gives equal files for equal
        # weights.
        with target.open("wb") as file:
            torch.save({name: tensor.clone() for name, tensor in tensors.items()}, file)


def _load_pytorch(path: Path, *, zipped: bool) -> Checkpoint:
    stored = _refuse_programs(path) if zipped else Counter[int]()
    mapped = zipped and path.stat().st_size >= MAPPED
    inert: dict[str, Callable[..., Any]] = {}
    while True:
        try:
            with (
                warnings.catch_warnings(),
                torch.serialization.safe_globals([(made, name) for name, made in inert.items()]),
            ):
                warnings.simplefilter("ignore")  # about old file formats
                # A mapped file is read where its numbers are used. Inspecting a file uses none.
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            break
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL (\S+)|(?:class|function) (\w[\w.]+)", str(error))
            needs = named[1] or named[2] if named else None if zipped else _code_in_pickle(path)
            if needs is None:
                raise _damaged(path, error) from error
            full = f"builtins.{needs}" if "." not in needs else needs
            if full not in inert and (stand_in := _stand_in(full)):
                inert[full] = stand_in
                continue
            raise CheckpointError(
                f"{path} was not loaded, because loading it would execute code ({needs})",
                WEIGHTS_ALONE,
            ) from error
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a damaged pickle can raise any error, e.g. EOFError, KeyError
            raise _damaged(path, error) from error
    tensors, left_out = weights_of(content)
    if mapped:  # PyTorch does not compare sizes then, and a number may come from another entry
        dense = (t for _, t in _leaves(content) if isinstance(t, Tensor) and _is_dense(t))
        storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in dense)}
        if Counter(storages.values()) - stored - Counter({0: len(storages)}):
            raise _damaged(path, ValueError("a tensor has another size than its entry"))
    return Checkpoint("pytorch", tensors, left_out, {}, content)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta


class Inert:
    """Stands for an object that is no weight, such as a NumPy scalar. None of its code runs."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


class InertArray(Inert):
    """Stands for a NumPy array."""


def _mapping(*_: object) -> dict[object, object]:
    return {}


def _list(*_: object) -> list[object]:
    return []


_DATA: tuple[tuple[re.Pattern[str], Callable[..., Any]], ...] = (
    (re.compile(r"numpy\._?core\.(multiarray\._reconstruct|numeric\._frombuffer)"), InertArray),
    (
        re.compile(
            r"numpy\.(_?core\.multiarray\.scalar|ndarray|dtype|dtypes\.\w+|random\._\w+\.\w+"
            r"|(bool|u?int|float|complex|str|bytes|void|longdouble)\w*)"
        ),
        Inert,
    ),
    (re.compile(r"collections\.defaultdict"), _mapping),
    (re.compile(r"collections\.deque"), _list),
    (re.compile(r"(lightning|pytorch_lightning|lightning_fabric)\.[\w.]+\.AttributeDict"), dict),
    (re.compile(r"easydict\.EasyDict|addict\.addict\.Dict"), dict),
    (
        re.compile(
            r"argparse\.Namespace|pathlib\.(_local\.)?\w*Path|datetime\.(date|datetime|time\w*)"
            r"|omegaconf\.[\w.]+|typing\.(Any|Union|Optional)|decimal\.Decimal|uuid\.UUID"
            r"|builtins\.(int|float|bool|str|bytes|list|tuple|dict)"
        ),
        Inert,
    ),
)
"""Data that trainers save beside the weights, by their names, and what stands for them."""


def _stand_in(name: str) -> Callable[..., Any] | None:
    return next((made for pattern, made in _DATA if pattern.fullmatch(name)), None)


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, InertArray)


def _code_in_pickle(path: Path) -> str | None:
    """Name of the first thing outside PyTorch that a pickle refers to.

    Only the opcodes are read. None of them is executed.
    """
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL" and isinstance(argument, str):
                    name = argument.replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":  # joins the last two texts
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
    """Tell what PyTorch wrote as a zip archive, by the names in it; None for other archives."""
    names = [name.split("/", 1)[-1] for name in archive.namelist()]
    if "constants.pkl" in names:
        return "TorchScript program"
    if any(
        name == "archive_format" or name.startswith(("models/", "serialized_exported_program"))
        for name in names
    ):
        return "torch.export program"
    return "state dict" if "data.pkl" in names else None


def _refuse_programs(path: Path) -> Counter[int]:
    """Refuse an archive that is damaged or compressed, or that holds a program.

    Returns:
        Sizes of its entries in bytes, and how many have each.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            kind = archive_kind(archive)
            compressed = any(
                entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()
            )
            sizes = Counter(entry.file_size for entry in archive.infolist())
    except Exception as error:  # a damaged archive can raise any error, e.g. UnicodeDecodeError
        raise _damaged(path, error) from error
    if kind is None:
        raise CheckpointError(
            f"{path} is a zip file, but no PyTorch checkpoint", "give a file that torch.save wrote"
        )
    if kind != "state dict":
        raise CheckpointError(
            f"{path} is a {kind}, which executes code, and not a state dict",
            WEIGHTS_ALONE,
            "executes_code",
        )
    if compressed:  # a mapped file would give the compressed bytes as numbers
        raise CheckpointError(
            f"{path} is a compressed zip file, which torch.save does not write",
            "pack it again without compression (zip -0), or save it again with torch.save",
        )
    return sizes


def _load_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return Checkpoint("safetensors", tensors, [], file.metadata() or {}, tensors)
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _load_parts(path: Path) -> Checkpoint:
    """Load a checkpoint in several files, which an index lists as ``weight_map``."""
    files = _files(path)
    if files == [path]:
        raise CheckpointError(
            f"{path} is JSON without a weight_map, and no checkpoint",
            "give the .index.json file of a checkpoint in parts, or a .pt or .safetensors file",
        )
    parts = []
    for part in files:
        if not part.is_file():
            raise CheckpointError(
                f"{path} lists {part.name}, which is not beside it", "put all parts into one folder"
            )
        parts.append(load(part))
    tensors: dict[str, Tensor] = {}
    for part_file, part_loaded in zip(files, parts, strict=True):
        for name, tensor in part_loaded.tensors.items():
            if name in tensors:
                raise CheckpointError(
                    f"{path}: {name[:100]} is in {part_file.name} and in another part",
                    "make the parts again",
                )
            tensors[name] = tensor
    missing = next((name for name in _weight_map(path) if name not in tensors), None)
    if missing is not None:
        raise CheckpointError(
            f"{path} lists {missing[:100]}, which its parts do not hold", "make the parts again"
        )
    return Checkpoint(parts[0].format, tensors, [], {}, tensors)


def _weight_map(path: Path) -> dict[str, str]:
    """Read the index of a checkpoint in parts; empty for other files."""
    try:
        if path.stat().st_size > LONGEST_HEADER:
            return {}
        found = json.loads(path.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    texts = isinstance(found, dict) and all(isinstance(file, str) for file in found.values())
    return found if texts else {}


def _files(path: Path) -> list[Path]:
    """List the files of a checkpoint: its parts, which lie beside an index, or itself."""
    parts = sorted(set(_weight_map(path).values())) if path.suffix == ".json" else []
    for part in parts:
        if Path(part).name != part:
            raise CheckpointError(
                f"{path} lists {part[:100]!r}, which is not in its folder",
                "put all parts into one folder",
            )
    return [path.parent / part for part in parts] or [path]


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"{path} is damaged or truncated ({reason[:160]})",
        "copy or download it again, or make it again",
    )


def weights_of(content: object) -> tuple[dict[str, Tensor], list[str]]:
    """Separate the tensors from the rest in what ``torch.load`` returned.

    Args:
        content: What ``torch.load`` returned.

    Returns:
        Tensors by flattened, dotted names, and the names of all other entries.

    Raises:
        CheckpointError: ``content`` is too deep or too large, two entries have the same flattened
            name, or a tensor is larger than its stored numbers.

    >>> content = {"state_dict": {"a": torch.zeros(2)}, "epoch": 3, "optimizer": {}}
    >>> weights, left_out = weights_of(content)
    >>> list(weights), left_out
    (['a'], ['epoch', 'optimizer'])
    >>> list(weights_of({"net": {"a": torch.zeros(2)}, "net_ema": {"a": torch.zeros(2)}})[0])
    ['a']
    >>> list(weights_of({"encoder": {"w": torch.zeros(2)}, "decoder": {"w": torch.zeros(2)}})[0])
    ['encoder.w', 'decoder.w']
    """
    # Check everything before any wrapper is opened: a wrapper may hold itself.
    for _ in _leaves(content):
        pass
    outer: list[str] = []
    while isinstance(content, Mapping) and (inner := _wrapped(content)) is not None:
        outer += [str(key) for key in content if key != inner]
        content = content[inner]
    if isinstance(content, Tensor):
        return {"tensor": _whole("tensor", content)}, outer
    leaves: dict[str, object] = {}
    for name, leaf in _leaves(content):
        if name in leaves:
            raise _twice(name)
        leaves[name] = leaf
    tensors = {
        name: _whole(name, leaf) for name, leaf in leaves.items() if isinstance(leaf, Tensor)
    }
    return tensors, outer + [name for name in leaves if name not in tensors]


def _wrapped(content: Mapping[object, object]) -> object:
    """Key of the one entry that holds the weights; None if the mapping holds them itself."""
    holders = [
        key
        for key, value in content.items()
        if isinstance(value, Mapping) and not _is_optimiser(value) and any(_tensors(value))
    ]
    for key in WRAPPERS:
        if key in holders:
            return key
    if any(isinstance(value, Tensor) and value.is_floating_point() for value in content.values()):
        return None
    plain = [key for key in holders if not matching.is_average(str(key))]
    chosen = plain or holders
    return chosen[0] if len(chosen) == 1 else None


def _is_optimiser(value: object) -> bool:
    """Whether a mapping is the state of an optimiser of PyTorch."""
    return isinstance(value, Mapping) and {"state", "param_groups"} <= set(value)


def every_tensor(content: object) -> tuple[dict[str, Tensor], list[str]]:
    """List all tensors in what ``torch.load`` returned, but those of optimisers.

    Args:
        content: What ``torch.load`` returned.

    Returns:
        Tensors by dotted names, and the prefixes of mappings that hold some, "" for the outermost.

    Raises:
        CheckpointError: As :func:`weights_of`.

    >>> tensors, mappings = every_tensor({"model": {"a.w": torch.zeros(2)}, "epoch": 3})
    >>> list(tensors), mappings
    (['model.a.w'], ['', 'model.'])
    """
    for _ in _leaves(content):  # checks the limits
        pass
    tensors: dict[str, Tensor] = {}
    mappings: list[str] = []
    pending: list[tuple[str, object]] = [("", content)]
    while pending:
        prefix, value = pending.pop()
        if isinstance(value, Tensor):
            name = prefix[:-1] or "tensor"
            if name in tensors:
                raise _twice(name)
            tensors[name] = _whole(name, value)
        elif isinstance(value, Mapping) and not _is_optimiser(value):
            mappings.append(prefix)
            pending += [(f"{name}.", item) for name, item in _items(value, prefix)][::-1]
        elif isinstance(value, (list, tuple)):
            pending += [(f"{name}.", item) for name, item in _items(value, prefix)][::-1]
    return tensors, [m for m in mappings if any(name.startswith(m) for name in tensors)]


def _twice(name: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint has two entries named {name} once flattened", "rename one of them"
    )


def _leaves(value: object) -> Iterator[tuple[str, object]]:
    """Yield the values in nested containers by dotted names, up to the limits above."""
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
                raise _endless(
                    f"containers nested more than {DEEPEST} deep, or one that holds itself"
                )
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
        # A small file may hold a key whose text takes any amount of memory.
        if isinstance(key, (tuple, frozenset)):
            raise _endless("a key that is a container")
        yield f"{prefix}{key}", item


def _endless(what: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint has {what}", WEIGHTS_ALONE)


def _whole(name: str, tensor: Tensor) -> Tensor:
    """Detach a tensor; refuse one that has more elements than numbers stored.

    A copy of such a tensor could take any amount of memory.
    """
    if tensor.is_meta:
        raise CheckpointError(f"{name[:100]} has a shape but no numbers", WEIGHTS_ALONE)
    needed = tensor.numel() * tensor.element_size()
    if _is_dense(tensor) and needed > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{name[:100]} has shape {list(tensor.shape)}, but fewer numbers are stored",
            "save a full copy where it was made: tensor.clone()",
        )
    return tensor.detach()


def _tensors(value: object) -> Iterator[bool]:
    return (True for _, leaf in _leaves(value) if isinstance(leaf, Tensor))


def _separate(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Copy dense tensors that share memory (tied weights, views): safetensors stores each alone."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(
                f"{source}: {name} is a sparse or quantised tensor, which safetensors cannot hold",
                "convert it to a dense one first (tensor.to_dense(), tensor.dequantize())",
            )
    return {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
