"""Turned digits on a sphere (METHOD 3.3).

The task has rotations about each digit that the sphere as a whole does not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..catalogue import param, register
from ..fields.sphere import lattice
from ..rng import random_stream
from ..trainable import StepCallback
from .base import MadeDataset, no_tensors
from .digits import CLASSES, SIDE, load_digits

HEIGHT, WIDTH = 60, 120
CYLINDER = 32
"""Rows of the cylinder; row 16 is the equator."""
COLUMNS = (20, 60, 100)
"""Columns of the digits' centres."""
CHUNK = 512
"""Samples made at a time."""


@dataclass(frozen=True)
class SphereDigitsParams:
    """Parameters of the dataset ``sphere_digits`` (METHOD 3.3)."""

    source: Literal["idx", "sklearn"] = param(
        "idx", "idx: MNIST's IDX files; sklearn: the digits that come with scikit-learn"
    )
    path: str = param("", "Folder with the IDX files", file=True)
    split: Literal["train", "test"] = param("train", "Use the training or the test digits")
    samples: int = param(10_000, "Number of spheres", minimum=1)
    angle: float = param(
        60.0,
        "Digits are turned by 90°, and by a random angle of up to this many degrees either way",
        minimum=0,
        maximum=180,
    )


@register("dataset", "sphere_digits", "Three turned digits on a sphere", SphereDigitsParams)
class SphereDigits(MadeDataset):
    """Inputs float32 from 0 to 1, and labels of pixels uint8, both ``[N, 1, 60, 120]``.

    The label is the digit on its non-zero pixels, and 10 elsewhere. Digits lie on the cylinder
    around the equator. Each is centred on a pixel and turned about exactly that pixel, by bilinear
    interpolation, in 256 grey levels. The cylinder is projected to the sphere by nearest pixel. The
    samples follow from seed, split and number.
    """

    kind = "sphere_digits"
    outputs = CLASSES + 1
    """The ten digits and background."""
    background = CLASSES
    """Class of the pixels that show no digit."""

    def __init__(
        self,
        params: SphereDigitsParams,
        *,
        seed: int,
        device: torch.device,
        tensors: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        no_tensors(self.kind, tensors)
        self._p, self._seed, self._device = params, seed, device
        self._digits = load_digits(params.source, params.path, params.split)
        self.warnings = self._digits.warnings

    @property
    def memory_bytes(self) -> int:
        """Bytes of inputs and targets."""
        return self._p.samples * HEIGHT * WIDTH * (4 + 1)

    def make(self, on_step: StepCallback) -> tuple[Tensor, Tensor]:
        """Make the samples; see :class:`MadeDataset`."""
        p, device = self._p, self._device
        images, labels = self._digits.images.to(device), self._digits.labels.to(device)
        generator = random_stream(self._seed)
        which = torch.randint(len(images), (p.samples, len(COLUMNS)), generator=generator).to(
            device
        )
        share = torch.rand(p.samples, len(COLUMNS), generator=generator, dtype=torch.float64)
        turns = rotations(math.radians(90) + math.radians(p.angle) * (2 * share - 1)).to(
            device, torch.float32
        )
        rows = cylinder_rows().to(device)
        x = torch.empty(p.samples, 1, HEIGHT, WIDTH, device=device)
        y = torch.empty(p.samples, 1, HEIGHT, WIDTH, dtype=torch.uint8, device=device)
        chunks = math.ceil(p.samples / CHUNK)
        for i in range(chunks):
            part = slice(i * CHUNK, min((i + 1) * CHUNK, p.samples))
            drawn = draw(images[which[part]], turns[part])
            classes = torch.where(drawn > 0, labels[which[part]][..., None, None], CLASSES)
            x[part] = on_sphere(drawn / 255, rows, 0)
            y[part] = on_sphere(classes, rows, CLASSES)
            on_step(i + 1, chunks, {})
        return x, y


def rotations(angles: Tensor) -> Tensor:
    """Return rotations ``[..., 2, 2]`` by angles in radians, from the row to the column axis."""
    c, s = angles.cos(), angles.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def draw(images: Tensor, turns: Tensor) -> Tensor:
    """Turn images about their exact centre, bilinearly, with zeros beyond the image.

    Args:
        images: ``[B, K, 28, 28]`` uint8.
        turns: Rotations ``[B, K, 2, 2]``.

    Returns:
        ``[B, K, 32, 32]``, whole grey levels, of rows and columns −16 to 15 from the pixel on which
        the centre lies.
    """
    offsets = torch.arange(-CYLINDER // 2, CYLINDER // 2, dtype=turns.dtype, device=turns.device)
    u = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), -1)
    # From the image's centre, as (column, row), in halves of the distance between its first and
    # last pixel.
    source = torch.einsum("bkji,rcj->bkrci", turns, u).flip(-1) * (2 / (SIDE - 1))
    moved: Tensor = functional.grid_sample(
        images.flatten(0, 1)[:, None].to(turns.dtype),
        source.flatten(0, 1),
        padding_mode="zeros",
        align_corners=True,
    )
    drawn: Tensor = moved.round().unflatten(0, images.shape[:2])[:, :, 0]
    return drawn


def cylinder_rows() -> Tensor:
    """Return the row of the cylinder at each row of the sphere, ``[60]``; −1 beyond it."""
    scale = WIDTH / (2 * math.pi)
    rows = (CYLINDER // 2 - scale * lattice(HEIGHT, WIDTH)[:, 0, 2]).round().long()
    return torch.where((rows >= 0) & (rows < CYLINDER), rows, -1)


def on_sphere(patches: Tensor, rows: Tensor, outside: int) -> Tensor:
    """Place patches around the digits' centres on spheres.

    Args:
        patches: ``[B, K, 32, 32]``.
        rows: What :func:`cylinder_rows` returns.
        outside: Value elsewhere on the spheres.

    Returns:
        ``[B, 1, 60, 120]``.
    """
    cylinder = patches.new_full((len(patches), CYLINDER, WIDTH), outside)
    for k, column in enumerate(COLUMNS):
        start = column - CYLINDER // 2
        cylinder[:, :, start : start + CYLINDER] = patches[:, k]
    sphere: Tensor = cylinder[:, rows.clamp(min=0)]
    return sphere.masked_fill_((rows < 0)[:, None], outside)[:, None]
