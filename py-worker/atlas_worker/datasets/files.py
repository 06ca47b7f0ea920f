"""Arrays in files on the worker's machine, as a dataset."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..catalogue import param, recorded_params, register
from ..checkpointing import check_kind
from ..errors import InvalidInput, listed
from ..memory import free_memory
from ..trainable import StepCallback
from .arrays import ArraysDataset, ArraysParams, axes_of
from .axes import ORDER, known_axes, translate_axes
from .base import MadeDataset, no_tensors
from .cache import Cache, user_folder
from .readers import Source, open_file
from .readers.base import Numbers, first_line, size_text
from .trajectories import filled_up

PART = 2**22
"""Bytes that are read at a time, or one sample or block of the file if these are larger."""
READING = 1
"""Version of how files are read. Raise it when other numbers come out; caches are made anew."""
HASHED = 2**28
"""Bytes up to which a file is hashed whole. Of a larger one, pieces all over it are."""
FIELD = "dataset.source.params"

_Role = Literal["inputs", "targets"]


@dataclass(frozen=True)
class FilesParams(ArraysParams):
    """Parameters of the dataset ``files``: those of ``arrays``, and where the arrays are."""

    inputs: str = param("", "Path of the file with the inputs", file=True)
    inputs_members: tuple[str, ...] = param(
        (), "Arrays in that file, joined as channels or features; empty: the only one"
    )
    targets: str = param("", "Path of the file with the targets", file=True)
    targets_members: tuple[str, ...] = param((), "Arrays in that file, likewise")
    storage: Literal["auto", "disk", "memory"] = param(
        "auto", "Hold the numbers in memory, or on the worker's disk if they are too large for that"
    )
    cache: str = param(
        "", "Folder for numbers on the disk; empty for the user's cache folder", file=True
    )


@register(
    "dataset",
    "files",
    "Arrays in files: .npy, .npz, HDF5, NetCDF, Zarr, CSV, Parquet, .pt, .safetensors, .mat",
    FilesParams,
)
class FilesDataset(MadeDataset):
    """Inputs and targets from files, as float32: the dataset ``arrays`` of the same numbers.

    Making the dataset opens the files and checks types, shapes and axes. Its epoch reads the
    numbers part by part. Numbers that do not fit into half of the free memory are written to a
    cache on the disk, and mapped from there.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: A file is damaged, or an array in it does not fit.
        NotReady: The worker lacks the package that reads a file.
    """

    kind = "files"

    def __init__(
        self,
        params: FilesParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        no_tensors(self.kind, tensors)
        super().__init__()
        self._p, self._seed, self._device = params, seed, device
        alone = params.outputs or params.predict
        roles: tuple[_Role, ...] = ("inputs",) if alone else ("inputs", "targets")
        for role in roles:
            if not getattr(params, role):
                raise InvalidInput(f"no file with {role} is given", f"{FIELD}.{role}", "a file")
        if params.targets and "targets" not in roles:
            raise InvalidInput(
                "targets are given, and outputs of a predictor or frames to predict",
                f"{FIELD}.targets",
                "one of them",
                "leave one out",
            )
        _refuse_leaks(params)
        self._made: ArraysDataset | None = None
        with open_arrays(params, roles) as arrays:
            self._shapes = {role: arrays[role].shape for role in roles}
            self._axes = arrays["inputs"].axes
            self._needs = max(array.memory for array in arrays.values())
        counts = {role: shape[0] for role, shape in self._shapes.items()}
        if len(set(counts.values())) > 1:
            raise InvalidInput(
                f"there are {counts['inputs']:,} samples of inputs and {counts['targets']:,} of "
                "targets",
                f"{FIELD}.targets",
                "the same number of samples",
            )
        self._on_disk = self._choose_disk()

    def _choose_disk(self) -> bool:
        if self._p.storage != "auto":
            return self._p.storage == "disk"
        cuda = self._device.type == "cuda"
        # On CUDA only fields may stay in main memory: what reads sets takes them as they are.
        free = torch.cuda.mem_get_info(self._device)[0] if cuda else free_memory()
        return self._bytes > free // 2 and not (cuda and "features" in self._axes)

    @property
    def _bytes(self) -> int:
        return 4 * sum(math.prod(shape) for shape in self._shapes.values())

    @property
    def memory_bytes(self) -> int:
        """Bytes of inputs and targets, and of what their files are read through."""
        return self._needs + (0 if self._on_disk else self._bytes)

    @property
    def outputs(self) -> int:
        """Number of channels or numbers of the targets, or of classes."""
        self._ready()
        assert self._made is not None
        return self._made.outputs

    @classmethod
    def identity(cls, params: FilesParams) -> list[Any]:
        """Return what identifies the dataset: parameters, and contents of files, not their places.

        A run can then be resumed after its files were moved, and not after they were changed.
        """
        kept = recorded_params(replace(params, inputs="", targets="", cache="", storage="auto"))
        return [cls.kind, kept, content_of(params.inputs), content_of(params.targets)]

    def make(self, on_step: StepCallback) -> tuple[Tensor, Tensor]:
        """Read the files part by part, or the cache; see :class:`MadeDataset`."""
        roles = list(self._shapes)
        before = {role: _stamp(getattr(self._p, role)) for role in roles}
        cache = self._cache() if self._on_disk else None
        mapped = cache.load() if cache else None
        warnings: list[str] = []
        if mapped is not None:
            held = dict(zip(roles, mapped, strict=True))
        else:
            held = {} if cache else {r: torch.empty(s) for r, s in self._shapes.items()}
            with (
                open_arrays(self._p, roles) as arrays,
                cache.writing() if cache else nullcontext() as writer,
            ):
                for role in roles:
                    warnings += arrays[role].warnings
                starts = _parts(arrays, self._shapes)
                bad = {role: _Bad(arrays[role]) for role in roles}
                for i, (start, stop) in enumerate(starts):
                    parts = [torch.from_numpy(arrays[r].read(start, stop)) for r in roles]
                    for role, part in zip(roles, parts, strict=True):
                        if "t" not in self._axes:  # frames of NaN end a trajectory
                            bad[role].look(part, start)
                        if role in held:
                            held[role][start:stop] = part
                    if writer:
                        writer.put_all(start, parts)
                    on_step(i + 1, len(starts), {})
                for found in bad.values():
                    if "t" not in self._axes:  # frames of NaN are none; see `trajectories`
                        found.refuse()
                if before != {role: _stamp(getattr(self._p, role)) for role in roles}:
                    raise InvalidInput(
                        "the files changed while they were read",
                        f"{FIELD}.inputs",
                        "files that do not change",
                        "try again when they are complete",
                    )
            if writer:
                held = dict(zip(roles, writer.arrays, strict=True))
        device = torch.device("cpu") if self._on_disk else self._device
        names = [name for name in ORDER if name in self._axes]
        plain = {f: getattr(self._p, f) for f in ArraysParams.__dataclass_fields__}
        self._made = ArraysDataset(
            ArraysParams(**{**plain, "axes": ",".join(names)}),
            seed=self._seed,
            device=device,
            tensors={role: held[role] for role in roles},
        )
        self.warnings = (*dict.fromkeys(warnings), *self._made.warnings)
        self.scenes = self._made.scenes
        self.scenes = self._made.scenes
        return self._made.inputs, self._made.targets

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the position and the shapes: the files hold the data."""
        tensors, metadata = super().state()
        return tensors, {**metadata, "shapes": str(list(self._shapes.values()))}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Read the files again if the state had them.

        Raises:
            InvalidInput: The files have arrays of other shapes.
        """
        check_kind(metadata, self.kind)
        if metadata.get("shapes") != str(list(self._shapes.values())):
            raise InvalidInput(
                "the files have arrays of other shapes than before",
                f"{FIELD}.inputs",
                str(metadata.get("shapes")),
            )
        super().load_state(tensors, metadata)

    def _cache(self) -> Cache:
        folder = Path(self._p.cache) if self._p.cache else user_folder(self.kind)
        about = {"folder": os.path.dirname(os.path.abspath(self._p.inputs)), "dataset": self.kind}
        files = [name for name in (self._p.inputs, self._p.targets) if name]
        facts = {
            "reading": READING,
            "axes": self._axes,
            "members": [self._p.inputs_members, self._p.targets_members],
            "files": [_stamp(name) for name in files],
        }
        arrays = [(shape, torch.float32) for shape in self._shapes.values()]
        return Cache(folder, facts, {**about, "files": len(files)}, arrays)


@dataclass(eq=False)
class Array:
    """One or more members of a file, joined to an array whose samples come first."""

    role: _Role
    path: Path
    sources: list[Source]
    names: tuple[str, ...]
    """Names of the axes of each member."""
    joined: str
    """Axis along which the members are joined; empty if there is one."""
    axes: tuple[str, ...]
    """Names of the axes, in the order of :data:`ORDER`."""
    shape: tuple[int, ...]
    warnings: list[str] = field(default_factory=list)
    """What the user should know about the file."""

    @property
    def field(self) -> str:
        """Path of the file in a request, for errors."""
        return f"{FIELD}.{self.role}"

    @property
    def memory(self) -> int:
        """Bytes that reading takes beyond the numbers."""
        return sum(source.memory for source in self.sources)

    def read(self, start: int, stop: int) -> Numbers:
        """Read samples ``start`` to ``stop``, as float32."""
        parts = []
        for source in self.sources:
            with at_field(self.field):
                values = source.read(self.names.index("n"), start, stop)
            # Conversion overflows to infinity, which is refused later.
            with np.errstate(over="ignore", invalid="ignore"):
                values = values.astype(np.float32, copy=False)
            order = [self.names.index(name) for name in ORDER if name in self.names]
            parts.append(values.transpose(order))
        if self.joined:
            at = self.axes.index(self.joined)
            join = np.concatenate if self.joined in self.names else np.stack
            return np.ascontiguousarray(join(parts, axis=at))
        return np.array(parts[0], order="C")  # a copy: a mapped file cannot be written to


@contextmanager
def open_arrays(params: FilesParams, roles: Sequence[_Role]) -> Iterator[dict[_Role, Array]]:
    """Open the files of a dataset, and find out how their arrays lie.

    Args:
        params: The dataset's parameters.
        roles: What to open, the inputs first.

    Yields:
        The arrays.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: A file is damaged, or an array in it does not fit.
    """
    with ExitStack() as stack:
        arrays: dict[_Role, Array] = {}
        for role in roles:
            field = f"{FIELD}.{role}"
            stack.enter_context(at_field(field))
            opened = stack.enter_context(open_file(Path(getattr(params, role))))
            members = getattr(params, f"{role}_members")
            sources = opened.open_all(members)
            of = arrays["inputs"].names if role == "targets" else None
            arrays[role] = lay(role, opened.path, sources, params.axes, of)
            arrays[role].warnings = opened.warnings
        yield arrays


@contextmanager
def at_field(field: str) -> Iterator[None]:
    """Name the field of the request in errors of readers, which do not know it."""
    try:
        yield
    except InvalidInput as error:
        if error.field in ("", "dataset.source.params.path"):
            error.field = field
        raise
    except OSError as error:
        raise InvalidInput(
            f"the file cannot be read ({first_line(error)})", field, "a file that can be read"
        ) from error


def lay(
    role: _Role,
    path: Path,
    sources: list[Source],
    text: str,
    inputs: tuple[str, ...] | None = None,
) -> Array:
    """Find out how members lie, and how they are joined.

    Args:
        role: What the array is.
        path: The file.
        sources: The members.
        text: Axes of the inputs that the user gave; empty if none.
        inputs: Axes of the inputs in their file, if this array is the targets.

    Returns:
        The array.

    Raises:
        InvalidInput: The members cannot be joined, or their axes are not known.
    """
    shapes = [source.member.shape for source in sources]
    ranks = {len(shape) for shape in shapes}
    several = len(sources) > 1
    if len(ranks) > 1:
        shown = [f"{s.member.name} {list(s.member.shape)}" for s in sources]
        raise InvalidInput(
            f"{listed(shown)} have different numbers of axes", "", "arrays that can be joined"
        )
    names, joined = _named(role, sources, text, inputs)
    if "n" not in names:
        raise InvalidInput(
            f"{sources[0].label} has the axes {','.join(names)}, and none of samples",
            f"{FIELD}.axes",
            "n among the axes",
        )
    for source in sources[1:]:
        for name, a, b in zip(names, shapes[0], source.member.shape, strict=True):
            if a != b and name != joined:
                raise InvalidInput(
                    f"{sources[0].member.name} {list(shapes[0])} and {source.member.name} "
                    f"{list(source.member.shape)} cannot be joined: they differ in {name}",
                    "",
                    "arrays of the same shape",
                )
    extents = dict(zip(names, shapes[0], strict=True))
    if several:
        at = names.index(joined) if joined in names else -1
        extents[joined] = sum(s[at] for s in shapes) if at >= 0 else len(sources)
    axes = tuple(name for name in ORDER if name in extents)
    shape = tuple(extents[name] for name in axes)
    if 0 in shape:
        raise InvalidInput(f"{sources[0].label} is empty: {list(shape)}", "", "at least one sample")
    return Array(role, path, sources, names, joined if several else "", axes, shape)


def _named(
    role: _Role, sources: list[Source], text: str, inputs: tuple[str, ...] | None
) -> tuple[tuple[str, ...], str]:
    """Name the axes of each member, and the axis along which they are joined."""
    member = sources[0].member
    shape, several = member.shape, len(sources) > 1
    told = known_axes(member.dims) if member.dims else None
    if inputs is not None:
        return _target_axes(sources, told, inputs)
    given = tuple(translate_axes(text, f"{FIELD}.axes").split(",")) if text else ()
    if given and told and set(given) == set(told) and given != told:
        raise InvalidInput(
            f"{sources[0].label} has the axes {','.join(map(str, member.dims))} in this order",
            f"{FIELD}.axes",
            ",".join(map(str, member.dims)),
            "leave the axes out, or give them in the order of the file",
        )
    if given:
        inner = "features" if {"items", "features"} & set(given) else "c"
        if several and len(given) == len(shape) + 1 and inner in given:
            given = tuple(name for name in given if name != inner)  # those of the joined array
        joined_rank = len(shape) + (several and inner not in given)
        whole = given if not several or inner in given else _with(given, inner)
        axes_of([1] * joined_rank, ",".join(whole))
        return given, inner
    if told is not None:
        inner = "features" if {"items", "features"} & set(told) else "c"
        if len(told) == 1:
            inner = "features"
        whole = told if not several or inner in told else _with(told, inner)
        if not several and told == ("n",):
            return told, ""
        try:
            axes_of([1] * len(whole), ",".join(whole))
        except InvalidInput as error:
            raise InvalidInput(
                f"{sources[0].label} has the axes {','.join(map(str, member.dims))}, which are no "
                "layout that is known",
                f"{FIELD}.axes",
                error.expected,
            ) from error
        return told, inner
    if several:
        if len(shape) == 1:
            return ("n",), "features"
        if member.columns:
            return ("n", "features"), "features"
        fields = "n,y,x (each a channel of fields)"
        sets = "n,items,features (their features side by side)"
        flat = "n,features (their features side by side)"
        kinds = {2: (flat, "n,items (each a feature of sets)"), 3: (fields, sets)}
        if len(shape) == 4:
            return ("n", "c", "y", "x"), "c"
        if len(shape) in kinds:
            raise InvalidInput(
                f"{listed([s.member.name for s in sources])} with the shape {list(shape)} may be "
                f"{' or '.join(kinds[len(shape)])}",
                f"{FIELD}.axes",
                "the names of the axes of one of them",
            )
    return axes_of(shape, ""), ""


def _with(names: tuple[str, ...], inner: str) -> tuple[str, ...]:
    return tuple(name for name in ORDER if name in names or name == inner)


def _target_axes(
    sources: list[Source], told: tuple[str, ...] | None, inputs: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """Name the axes of targets: those of the inputs, or fewer."""
    shape, several = sources[0].member.shape, len(sources) > 1
    if "t" in inputs:
        if len(shape) in (2, 3):
            return ("n", "t", "features")[: len(shape)], "features"
        expected = "[n, t] or [n, t, outputs]"
    elif "features" in inputs:
        if len(shape) == 1:
            return ("n",), "features"
        if len(shape) == 2:
            order = told if told is not None and "n" in told else inputs
            first = "n" in order[:1] or order.index("n") < order.index("features")
            return (("n", "features") if first else ("features", "n")), "features"
        expected = "[N] or [N, outputs]"
    else:
        plain = tuple(name for name in inputs if name != "c")
        if told is not None and set(told) in (set(plain), {*plain, "c"}):
            return told, "c"
        if len(shape) == len(plain):
            return plain, "c"
        if len(shape) == len(plain) + 1:
            return (plain[0], "c", *plain[1:]) if "c" not in inputs else inputs, "c"
        expected = "[N, channels, …] or [N, …], in the order of the inputs"
    del several
    one = len(shape) == 1 and "features" not in inputs and "t" not in inputs
    raise InvalidInput(
        f"targets have shape {list(shape)}" + (", one number for each field" if one else ""),
        f"{FIELD}.targets",
        expected,
        "give one for each pixel; what belongs to a whole field cannot be the target"
        if one
        else "",
    )


class _Bad:
    """Counts the samples with numbers that are not finite."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._count = self._samples = 0
        self._first = ""
        self._short = array.axes == ("n", "items", "features")
        """Whether all gaps are like those of trajectories of unequal lengths."""

    def look(self, part: Tensor, start: int) -> None:
        """Look at samples from ``start`` on."""
        if bool(part.isfinite().all()):
            return
        wrong = ~part.isfinite()
        self._short = self._short and filled_up(wrong.cpu().numpy())
        self._samples += int(wrong.flatten(1).any(1).sum())
        self._count += int(wrong.sum())
        if not self._first:
            at = wrong.nonzero()[0].tolist()
            value = float(part[tuple(at)])
            places = zip(self._array.axes, [start + at[0], *at[1:]], strict=True)
            where = ", ".join(f"sample {i}" if name == "n" else f"{name} {i}" for name, i in places)
            self._first = f"first in {where} ({'missing or NaN' if value != value else value})"

    def refuse(self) -> None:
        """Raise ``InvalidInput`` if there were any."""
        if not self._count:
            return
        array = self._array
        names = ", ".join(s.member.name for s in array.sources if s.member.name)
        label = f"{array.path}{':' if names else ''}{names}"
        raise InvalidInput(
            f"{array.role} in {label} have {self._count:,} numbers that are missing, NaN or "
            f"infinite, in {self._samples:,} of {array.shape[0]:,} samples, {self._first}",
            array.field,
            "finite numbers",
            "if these are trajectories of unequal lengths, give --axes n,t,features"
            if self._short
            else "repair or remove these samples",
        )


def _parts(
    arrays: Mapping[_Role, Array], shapes: Mapping[_Role, tuple[int, ...]]
) -> list[tuple[int, int]]:
    """Divide the samples into parts that are read together."""
    count = next(iter(shapes.values()))[0]
    width = max(4 * math.prod(shape[1:]) for shape in shapes.values())
    step = max(1, PART // max(1, width))
    blocks = [s.step(a.names.index("n")) for a in arrays.values() for s in a.sources]
    block = math.lcm(*blocks) if math.lcm(*blocks) <= 4 * max(blocks) else max(blocks)
    step = max(block, step - step % block) if block < count else count
    if step * width > max(PART, free_memory() // 2):
        raise InvalidInput(
            f"the files store {step:,} samples in one block, which take {size_text(step * width)}",
            f"{FIELD}.inputs",
            "blocks that fit into memory",
            "store the arrays in smaller blocks",
        )
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _refuse_leaks(params: FilesParams) -> None:
    """Refuse inputs that hold a target."""
    if params.inputs != params.targets or not params.inputs:
        return
    if params.inputs_members == params.targets_members:
        return  # equal arrays are told as such once they are read
    shared = set(params.inputs_members) & set(params.targets_members)
    if not params.inputs_members and params.targets_members:
        with at_field(f"{FIELD}.inputs"), open_file(Path(params.inputs)) as opened:
            columns = next((m.columns for m in opened.choices() if m.columns), ())
        shared = set(columns) & set(params.targets_members)
    if shared:
        raise InvalidInput(
            f"{listed(sorted(shared))} in {params.inputs} would be inputs and targets",
            f"{FIELD}.inputs",
            "inputs without the targets",
            "name the columns of the inputs",
        )


def _stamp(name: str) -> list[Any]:
    """Tell a state of a file from others: path, sizes and times."""
    path = Path(name)
    parts = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [(str(p.relative_to(path)), p.stat()) for p in parts]
    text = repr([(part, s.st_size, s.st_mtime_ns) for part, s in states])
    return [os.path.abspath(name), hashlib.sha256(text.encode()).hexdigest()]


def content_of(name: str) -> list[Any]:
    """Identify the content of a file or a folder; empty if there is none.

    A file beyond :data:`HASHED` bytes is not read whole: its size and pieces all over it count.
    """
    path = Path(name)
    if not name or not path.exists():
        return []
    digest, total = hashlib.sha256(), 0
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not part.is_file() or part.is_symlink():
            continue
        size = part.stat().st_size
        total += size
        digest.update(f"{part.relative_to(path)} {size}\0".encode())
        pieces = [(0, size)]
        if size > HASHED:
            pieces = [(i * (size - 2**20) // 127, 2**20) for i in range(128)]
        with _readable(part), part.open("rb") as file:
            for start, length in pieces:
                file.seek(start)
                while length > 0 and (data := file.read(min(length, 2**22))):
                    digest.update(data)
                    length -= len(data)
    return [total, digest.hexdigest()]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn an error of the system into ``InvalidInput``."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidInput(f"{path} cannot be opened: {why}", FIELD, "a readable file") from error
