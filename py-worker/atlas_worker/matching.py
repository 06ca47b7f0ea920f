"""Finds a network's weights among the tensors of a checkpoint.

Trainers save weights in mappings (``state_dict``, ``model``) and under prefixes of wrappers
(``module.`` of DataParallel, ``_orig_mod.`` of ``torch.compile``, ``model.`` of a LightningModule).
Names are dotted here: a tensor of ``{"state_dict": {"model.a": …}}`` is ``state_dict.model.a``. The
network's own names tell which entry, a mapping or a prefix, holds its weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from . import reference
from .errors import listed

_AVERAGE = re.compile(
    r"(?<![a-z])(?:ema|swa|avg|averaged?|averaging|shadow|polyak)(?![a-z])", re.IGNORECASE
)
_WRAPPER = re.compile(r"(?:(?<=\.)|^)_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")
"""What ``torch.compile``, FSDP and activation checkpointing put before names, at any depth."""
_MOMENTS = {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
"""What optimisers keep of each weight, as in this project's own snapshots."""
OTHER_NETWORK = "choose the architecture and settings that the weights belong to"


class Misfit(Exception):
    """Tensors that are not a network's weights, or that may be in several ways."""

    def __init__(self, message: str, remedy: str, reason: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
        self.reason = reason
        """``weights_key`` if the name of an entry would help, else empty."""


@dataclass(frozen=True)
class Own:
    """A network's tensor: whether its numbers are real, and its shape."""

    floating: bool
    shape: Sequence[int]


@dataclass(frozen=True)
class Choice:
    """The entry that holds a network's weights."""

    entry: str
    """Its dotted prefix, with the dot at the end; empty if names have none."""
    tensors: dict[str, Tensor]
    """Its tensors by the network's names, or by those of a network of the reference code."""
    averages: list[str]
    """Entries with averages of these weights, which fit too."""
    ignored: list[str]
    """Tensors beside the weights that the network does not have, such as counters."""


def is_average(name: str) -> bool:
    """Tell whether an entry's name says that it holds averages of weights.

    >>> [is_average(name) for name in ("model_ema", "ema_state_dict", "shadow", "schema", "model")]
    [True, True, True, False, False]
    """
    return _AVERAGE.search(name) is not None


def shared_prefixes(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the dotted prefixes that all names of real tensors share, beginning with "".

    >>> import torch
    >>> one = torch.ones(1)
    >>> list(shared_prefixes({"module.net.a": one, "module.net.b.c": one, "n": one.long()}))
    ['', 'module.', 'module.net.']
    """
    yield ""
    names = [name for name, t in tensors.items() if t.is_floating_point()] or list(tensors)
    if not names:
        return
    end = names[0].find(".")
    while end >= 0 and all(name.startswith(names[0][: end + 1]) for name in names):
        yield names[0][: end + 1]
        end = names[0].find(".", end + 1)


def anchor(names: Iterable[str], mappings: Iterable[str], key: str) -> str:
    """Find the entry that a user names.

    Args:
        names: Full names of all tensors.
        mappings: Prefixes of the mappings, to list when there is no such entry.
        key: The entry's dotted name, or the end of it.

    Returns:
        The entry's prefix.

    Raises:
        Misfit: No entry or several match.

    >>> anchor(["a.model.w", "b.w"], [], "model")
    'a.model.'
    """
    names = list(names)
    key = key.strip(".")
    entries = {
        name[: dot + 1]: None for name in names for dot, letter in enumerate(name) if letter == "."
    }
    if f"{key}." in entries:
        return f"{key}."
    found = [entry for entry in entries if entry.endswith(f".{key}.")]
    if len(found) == 1:
        return found[0]
    if found:
        raise Misfit(
            f"{len(found)} entries match {key}: {_list(found)}",
            "give the whole name of one",
            "weights_key",
        )
    held = [m for m in mappings if m] or [e for e in entries if e.count(".") == 1]
    has = f"it has {_list(held)}" if held else f"its tensors are {_some(names)}"
    raise Misfit(f"there is no entry {key[:100]} with tensors; {has}", "give the name of an entry")


def match(
    tensors: Mapping[str, Tensor],
    mappings: Iterable[str],
    own: Mapping[str, Own],
    key: str = "",
) -> Choice:
    """Find a network's weights among tensors.

    Args:
        tensors: All tensors by full names.
        mappings: Prefixes of the mappings that hold them.
        own: The network's tensors.
        key: The entry that the user names, see :func:`anchor`; empty for none.

    Returns:
        The choice. A network of the reference code keeps its names.

    Raises:
        Misfit: No entry fits, several do, or real tensors beside the weights may be part of what
            was trained.
    """
    mappings = sorted({_WRAPPER.sub("", m) for m in mappings}, key=len)
    given, tensors = tensors, {}
    for name, tensor in given.items():
        bare = _WRAPPER.sub("", name)
        if bare in tensors:
            raise Misfit(f"{name[:100]} and another tensor are both {bare[:100]}", "remove one")
        tensors[bare] = tensor
    under = anchor(tensors, mappings, _WRAPPER.sub("", f"{key}.")) if key else ""
    tensors = {name: t for name, t in tensors.items() if name.startswith(under)}
    held: Counter[str] = Counter(
        name[: len(name) - len(tail)]
        for name in tensors
        for tail in _tails(name)
        if tail in own and len(name) - len(tail) >= len(under)
    )
    needed = [name for name, its in own.items() if its.floating]
    full = [e for e in held if all(e + name in tensors for name in needed)]
    if not full:
        return _reference(tensors, mappings, under) or _refuse(tensors, held, own, needed, under)
    fitting = [e for e in full if _misshapen(tensors, own, e) is None] or full[:1]
    entry, averages = _chosen(fitting)
    wrong = _misshapen(tensors, own, entry)
    if wrong is not None:
        raise Misfit(
            f"{entry}{wrong} has shape {list(tensors[entry + wrong].shape)}, and this network's "
            f"has {list(own[wrong].shape)}",
            OTHER_NETWORK,
        )
    around = _around(entry, mappings, under)
    chosen = {name: tensors[entry + name] for name in own if entry + name in tensors}
    beside = set(tensors) - {entry + name for name in chosen}
    others = [
        name
        for name in tensors
        if name in beside
        and name.startswith(around)
        and not is_average(name[len(around) :])
        and not _is_moment(name, own)
    ]
    real = [name for name in others if tensors[name].is_floating_point()]
    inside = [name for name in real if name.startswith(entry)]
    if inside:
        raise Misfit(f"{_some(inside)} {_are(inside)} not part of this network", OTHER_NETWORK)
    if real:
        raise Misfit(
            f"its entry {entry[:-1]} fits this network, but beside it {_are(real)} {_some(real)}, "
            "which may be part of what was trained",
            f"if not, name the entry {entry[:-1]}",
            "weights_key",
        )
    return Choice(entry, chosen, averages, [name for name in others if name not in real])


def _is_moment(name: str, own: Mapping[str, Own]) -> bool:
    """Tell whether a tensor is what an optimiser keeps of one of the network's weights."""
    weight, _, kind = name.rpartition(".")
    return kind in _MOMENTS and any(tail in own for tail in _tails(weight))


def _chosen(fitting: list[str]) -> tuple[str, list[str]]:
    """Choose one of the entries that fit; averages only if there is nothing else."""
    if len(fitting) == 1:
        return fitting[0], []
    parts = [entry.split(".") for entry in fitting]
    same = 0
    while len({tuple(p[: same + 1]) for p in parts}) == 1 and same < min(map(len, parts)):
        same += 1
    own = [".".join(p[same:]) for p in parts]
    plain = [entry for entry, rest in zip(fitting, own, strict=True) if not is_average(rest)]
    if len(plain) == 1:
        return plain[0], [entry[:-1] for entry in fitting if entry != plain[0]]
    raise Misfit(
        f"{len(fitting)} entries fit this network: {_list(fitting)}", "name one", "weights_key"
    )


def _reference(tensors: Mapping[str, Tensor], mappings: Sequence[str], under: str) -> Choice | None:
    """Find the weights of a network of the reference code, which has names of its own."""
    found: dict[str, None] = {}
    for mapping in {under: None, **dict.fromkeys(m for m in mappings if m.startswith(under))}:
        held = {name: t for name, t in tensors.items() if name.startswith(mapping)}
        for prefix in shared_prefixes(held):
            if len(prefix) >= len(mapping) and reference.network_of(
                name[len(prefix) :] for name in held if name.startswith(prefix)
            ):
                found[prefix] = None
                break
    if not found:
        return None
    entry, averages = _chosen(list(found))
    chosen = {name[len(entry) :]: t for name, t in tensors.items() if name.startswith(entry)}
    around = _around(entry, mappings, under)
    ignored = [n for n in tensors if n.startswith(around) and not n.startswith(entry)]
    return Choice(entry, chosen, averages, ignored)


def _refuse(
    tensors: Mapping[str, Tensor],
    held: Counter[str],
    own: Mapping[str, Own],
    needed: Sequence[str],
    under: str,
) -> Choice:
    if not held:
        has = f"but {_some(tensors)}" if tensors else "and no others"
        raise Misfit(
            f"it holds none of this network's tensors ({_some(own)}), {has}", OTHER_NETWORK
        )
    entry = max(held, key=lambda e: held[e])
    missing = [name for name in needed if entry + name not in tensors]
    inside = [n for n in tensors if n.startswith(entry) and n.removeprefix(entry) not in own]
    where = f"its entry {entry[:-1]}" if entry else "it"
    more = f", and has {_some(inside)} instead" if inside else ""
    raise Misfit(f"{where} lacks {_some(missing)} of this network{more}", OTHER_NETWORK)


def _around(entry: str, mappings: Iterable[str], under: str) -> str:
    """Prefix of the innermost mapping that an entry lies in, within what the user named."""
    return max((m for m in [under, *mappings] if entry.startswith(m)), key=len)


def _misshapen(tensors: Mapping[str, Tensor], own: Mapping[str, Own], entry: str) -> str | None:
    return next(
        (
            name
            for name, its in own.items()
            if entry + name in tensors and list(tensors[entry + name].shape) != list(its.shape)
        ),
        None,
    )


def _tails(name: str) -> Iterator[str]:
    yield name
    dot = name.find(".")
    while dot >= 0:
        yield name[dot + 1 :]
        dot = name.find(".", dot + 1)


def _list(entries: Sequence[str]) -> str:
    return listed([entry.removesuffix(".")[:100] or "the outermost" for entry in entries], most=6)


def _some(names: Iterable[str]) -> str:
    return listed([name[:100] for name in names], most=3)


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
