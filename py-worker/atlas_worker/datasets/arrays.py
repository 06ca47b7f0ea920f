"""Arrays that a client sends, as a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param, register
from ..errors import InvalidInput
from . import trajectories
from .axes import translate_axes
from .base import GivenDataset
from .checks import check_labels, describe_classes, describe_inputs, find_constant, parts_of

_MOST_CLASSES = 65_536
"""More classes than any label has; a label beyond is a mistake."""


@dataclass(frozen=True)
class ArraysParams:
    """Parameters of the dataset ``arrays``."""

    outputs: int = param(
        0,
        "Number of outputs of a given predictor, when no targets are sent; 0 if they are",
        minimum=0,
        maximum=_MOST_CLASSES,
    )
    axes: str = param(
        "",
        "Names of the axes of the inputs in their order: n,c,y,x or n,y,x for fields, n,c,x and "
        "n,c,z,y,x for those of 1 and 3 dimensions, "
        "n,items,features or n,features for sets of vectors, with t for trajectories; empty: by "
        "their number",
        added=True,
    )
    classes: bool = param(False, "The targets are class labels: 0, 1, 2 …", added=True)
    predict: str = param(
        "",
        "Frames of trajectories to predict, in place of `targets`: next, next:K for the next K, or "
        "rest",
        added=True,
    )


@register(
    "dataset",
    "arrays",
    "Tensors `inputs` and `targets` from the client, [N, channels, H, W] "
    "(for sets of vectors [N, m, n] and [N, outputs]), or with other `axes`",
    ArraysParams,
)
class ArraysDataset(GivenDataset):
    """Inputs and targets that a client sent, as float32 on the device.

    ``inputs`` are ``[N, channels, H, W]`` and ``targets`` ``[N, channels', H, W]``; fields of three
    dimensions are ``[N, channels, D, H, W]``, those of one ``[N, channels, 1, W]``. For sets of
    vectors they are ``[N, m, n]`` and ``[N, outputs]``. ``axes`` says if they come in another
    order. With the parameter ``outputs``, targets are zeros: this is for a predictor that was
    trained elsewhere.

    Trajectories have an axis ``t``. Their samples are frames. A tensor ``mask [n, t]`` may say
    which frames there are; otherwise frames of NaN are none. With ``predict``, no targets are sent.

    Raises:
        InvalidInput: A tensor is missing, has another shape, or has entries that are not finite.
    """

    kind = "arrays"

    def __init__(
        self,
        params: ArraysParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        names = ("inputs",) if params.outputs or params.predict else ("inputs", "targets")
        for name in names:
            if name not in tensors:
                raise InvalidInput(
                    f"the tensor {name} is missing", "dataset.tensors", " and ".join(names)
                )
        for name in tensors:
            if name not in names and name != "mask":
                raise InvalidInput(
                    f"unknown tensor {name!r}",
                    f"dataset.tensors.{name}",
                    " and ".join(names),
                    "leave it out",
                )
        for name in names:
            if not tensors[name].numel():
                raise InvalidInput(
                    f"{name} are empty", f"dataset.tensors.{name}", "at least one sample"
                )
        axes = axes_of(tensors["inputs"].shape, params.axes)
        said: tuple[str, ...] = ()
        if "t" in axes:
            cut = self._cut(tensors, axes, params)
            self.scenes, said, axes = cut.scenes, cut.warnings, _SETS
            tensors = {"inputs": cut.inputs, "targets": cut.targets}
            names = ("inputs",) if params.outputs else ("inputs", "targets")
        elif params.predict or "mask" in tensors:
            raise InvalidInput(
                f"inputs of axes {','.join(axes)} are no trajectories",
                _FIELD,
                "axes with t: n,t,features or n,t,items,features",
            )
        vectors = "features" in axes
        arranged = {"inputs": _arrange(tensors["inputs"], axes)}
        if "targets" in names:
            arranged["targets"] = _arrange_targets(tensors["targets"], axes)
        # A copy would take a large array's memory twice. The tensors are this dataset's own.
        moved = {name: t.to(device, torch.float32).contiguous() for name, t in arranged.items()}
        self.inputs = moved["inputs"]
        lattice = () if vectors else self.inputs.shape[2:]
        zeros = torch.zeros((), device=device).expand(len(self.inputs), params.outputs, *lattice)
        self.targets = moved.get("targets", zeros)
        if self.inputs.shape[0] != self.targets.shape[0] or lattice != self.targets.shape[2:]:
            raise InvalidInput(
                f"inputs {list(self.inputs.shape)} and targets {list(self.targets.shape)} "
                "do not belong together",
                "dataset.tensors.targets",
                "the same number of samples, height and width",
            )
        for name, t in moved.items():
            wrong = ~torch.cat([part.isfinite().flatten(1).all(1) for part in parts_of(t)])
            if bool(wrong.any()):
                raise InvalidInput(
                    f"{name} have entries that are NaN or infinite, in {int(wrong.sum()):,} of "
                    f"{len(t):,} samples, first in sample {int(wrong.int().argmax())}",
                    f"dataset.tensors.{name}",
                    "finite numbers",
                    "repair or remove these samples",
                )
        self.has_targets = "targets" in moved
        self._outputs = self.targets.shape[1]
        if params.classes and "targets" in moved:
            check_labels(self.targets, _MOST_CLASSES, "dataset.tensors.targets")
            self.targets = self.targets.long()
            self._outputs = int(self.targets.max()) + 1
        self.warnings = (*said, *self._warnings(moved))

    @staticmethod
    def _cut(
        tensors: Mapping[str, Tensor], axes: Sequence[str], params: ArraysParams
    ) -> trajectories.Samples:
        x, mask = _arrange(tensors["inputs"], axes).float(), tensors.get("mask")
        if params.predict:
            return trajectories.cut(x, params.predict, mask)
        if params.outputs:
            targets = x.new_zeros(()).expand(*x.shape[:2], params.outputs)
        else:
            targets = tensors["targets"]
        return trajectories.single_frames(x, targets, mask)

    def _warnings(self, tensors: Mapping[str, Tensor]) -> list[str]:
        said = describe_inputs(self.inputs, "inputs", "dataset.tensors.inputs")
        if "targets" not in tensors:
            return said
        if self.inputs.shape == self.targets.shape and torch.equal(self.inputs, self.targets):
            said.append("targets equal inputs: then every direction is a symmetry")
        if not self.targets.is_floating_point():
            return said + describe_classes(self.targets, "targets")
        flat = find_constant(self.targets)
        if len(flat) < self.outputs:  # if all are, a training is refused
            said += [f"channel {c} of targets has the same value in all samples" for c in flat]
        return said

    @property
    def outputs(self) -> int:
        """Number of channels or numbers of the targets, or of classes."""
        return self._outputs


_FIELDS, _SETS = ("n", "c", "y", "x"), ("n", "items", "features")
_VOLUMES = ("n", "c", "z", "y", "x")
_TRAJECTORIES = ("n", "t", "items", "features")
_FIELD = "dataset.source.params.axes"
_FEWEST = 16
"""Two axes as long as this are more likely pixels than items and features."""


def axes_of(shape: Sequence[int], text: str = "") -> tuple[str, ...]:
    """Return the names of the axes of inputs.

    Args:
        shape: Shape of the inputs.
        text: The names as the user gave them, with commas; empty if not given.

    Returns:
        A permutation of some of ``n, c, z, y, x``, or of ``n, t, items, features``.

    Raises:
        InvalidInput: The names do not fit, or are not given where two layouts are possible.

    >>> axes_of([9, 5, 3])
    ('n', 'items', 'features')
    >>> axes_of([9, 64, 64, 3], "n,y,x,c")
    ('n', 'y', 'x', 'c')
    """
    names = tuple(translate_axes(text, _FIELD).split(",")) if text else ()
    if names:
        whole = [all_ for all_ in (_VOLUMES, _SETS, _TRAJECTORIES) if set(names) <= set(all_)]
        needed = {"n", "x"} if whole[:1] == [_VOLUMES] else {"n", "features"}
        if "z" in names:
            needed |= {"y"}
        if not whole or len(set(names)) < len(names) or not needed <= set(names):
            raise InvalidInput(
                f"{text!r} are no axes of inputs",
                _FIELD,
                "n, y, x and perhaps c for fields (n, x in one dimension, n, z, y, x in three), or "
                "n, features and perhaps items for sets, and t for trajectories",
            )
        if len(names) != len(shape):
            raise InvalidInput(
                f"inputs have shape {list(shape)}, which are not the {len(names)} axes {text}",
                _FIELD,
                f"{len(shape)} axes",
            )
        return names
    if len(shape) not in (2, 3, 4, 5):
        raise InvalidInput(
            f"inputs have shape {list(shape)}",
            "dataset.tensors.inputs",
            "[N, channels, H, W], [N, channels, D, H, W], [N, m, n], or [N, features]",
        )
    if len(shape) == 3 and min(shape[1:]) >= _FEWEST:
        raise InvalidInput(
            f"inputs {list(shape)} may be fields (n,y,x) or sets of {shape[1]} items (n,items,"
            "features)",
            _FIELD,
            "the names of the axes: n,y,x or n,items,features",
        )
    if len(shape) == 4 and shape[3] < 5 and min(shape[1:3]) > 2 * shape[3]:
        raise InvalidInput(
            f"inputs {list(shape)} seem to have their channels last",
            _FIELD,
            "the names of the axes: n,y,x,c, or n,c,y,x",
        )
    if len(shape) == 5 and shape[4] < 5 and min(shape[1:4]) > 2 * shape[4]:
        raise InvalidInput(
            f"inputs {list(shape)} seem to have their channels last",
            _FIELD,
            "the names of the axes: n,z,y,x,c, or n,c,z,y,x",
        )
    if len(shape) == 5 and shape[2] < 5 and min(shape[3:]) > 2 * shape[2]:
        raise InvalidInput(
            f"inputs {list(shape)} seem to be frames of fields, with channels on the third axis",
            _FIELD,
            "n,c,z,y,x for volumes; or frames taken as samples, n,c,y,x",
        )
    return {2: ("n", "features"), 3: _SETS, 4: _FIELDS, 5: _VOLUMES}[len(shape)]


def _arrange(t: Tensor, axes: Sequence[str]) -> Tensor:
    """Put the axes in the usual order, with axes of length 1 for those that are missing.

    Fields of one dimension have one row.
    """
    fields = _VOLUMES if "z" in axes else _FIELDS
    order = fields if "features" not in axes else _TRAJECTORIES if "t" in axes else _SETS
    t = t.permute([axes.index(name) for name in order if name in axes])
    for at, name in enumerate(order):
        if name not in axes:
            t = t.unsqueeze(at)
    return t


def _arrange_targets(t: Tensor, axes: Sequence[str]) -> Tensor:
    """Put the axes of targets in the usual order. They have those of the inputs, or no channels."""
    if "features" in axes:
        if t.dim() in (1, 2):
            return t.reshape(len(t), -1)
        shape = "[N] or [N, outputs]"
    else:
        plain = [name for name in axes if name != "c"]
        if t.dim() == len(plain):
            return _arrange(t, plain)
        if t.dim() == len(plain) + 1:
            return _arrange(t, axes if "c" in axes else [plain[0], "c", *plain[1:]])
        lattice = {2: "W", 3: "H, W"}.get(len(plain), "D, H, W")
        shape = f"[N, channels, {lattice}] or [N, {lattice}], in the order of the inputs"
    raise InvalidInput(f"targets have shape {list(t.shape)}", "dataset.tensors.targets", shape)
