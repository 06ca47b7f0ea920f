"""Planar atlases: charts are square windows of a pixel lattice, centred on a pixel (METHOD section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InvalidInput
from .resample import Interpolation


class FieldAtlas(Protocol):
    """Square charts of one size on a manifold whose fields are ``[H, W]`` lattices of pixels.

    ``r_in``: radius of the predictor's input and output crop (``2 r_in + 1`` pixels wide). ``r_out``: radius of the inner
    crop on which transformed fields are compared. ``margin``: extra pixels of true field around what the
    predictor reads that the resampler may read when it moves the input. ``output_interpolation``: how it moves outputs.
    """

    @property
    def r_in(self) -> int: ...

    @property
    def r_out(self) -> int: ...

    @property
    def margin(self) -> int: ...

    @property
    def output_interpolation(self) -> Interpolation: ...

    def __len__(self) -> int:
        """Number of charts."""
        ...

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` when the charts do not fit fields of this ``shape [N, channels, H, W]``."""
        ...

    def pixels(self, shape: tuple[int, ...], radius: int) -> Tensor:
        """Which pixel of the lattice is at each pixel of each chart: ``[C, s, s]`` int64 into ``H·W``, s = 2 radius + 1."""
        ...

    def places(self, shape: tuple[int, ...]) -> Tensor:
        """Which pixel of which chart is at each pixel of the lattice: ``[H, W]`` int64 into ``C·s·s``, s = 2 r_in + 1; −1 for none.

        Where charts overlap, the one whose centre is nearest.
        """
        ...


def check_radii(atlas: FieldAtlas, name: str) -> None:
    """Raise ``InvalidInput`` for radii that are none."""
    if not len(atlas):
        raise InvalidInput("the atlas has no charts", "atlas.charts", "at least one chart")
    if not 0 <= atlas.r_out <= atlas.r_in or atlas.margin < 0:
        raise InvalidInput(
            f"r_in={atlas.r_in}, r_out={atlas.r_out}, margin={atlas.margin} is not an atlas",
            f"atlas.{name}.r_out",
            "0 <= r_out <= r_in and margin >= 0",
        )


def check_fields(shape: tuple[int, ...], name: str) -> None:
    """Raise ``InvalidInput`` unless ``shape`` is that of fields."""
    if len(shape) != 4:
        raise InvalidInput(
            f"the dataset's inputs have shape {list(shape)}",
            f"atlas.{name}",
            "[N, channels, H, W]",
            "use an atlas for sets of vectors",
        )


@dataclass(frozen=True)
class Chart:
    """A chart's centre in pixels: ``row`` is the first lattice axis (u), ``col`` the second (v)."""

    row: int
    col: int


@dataclass(frozen=True)
class PlanarAtlas:
    """A ``FieldAtlas`` of windows of the lattice. Beyond the margin, and beyond the lattice, the border is repeated."""

    charts: tuple[Chart, ...]
    r_in: int
    r_out: int
    margin: int = 0
    output_interpolation: Interpolation = "bilinear"

    def __len__(self) -> int:
        return len(self.charts)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` when the crops of radius ``r_in`` do not lie inside the lattice of fields of this ``shape``."""
        check_fields(shape, "planar")
        check_radii(self, "planar")
        height, width = shape[-2:]
        for i, c in enumerate(self.charts):
            if not (self.r_in <= c.row < height - self.r_in and self.r_in <= c.col < width - self.r_in):
                raise InvalidInput(
                    f"chart {i} at ({c.row}, {c.col}) with radius {self.r_in} leaves the {height}x{width} lattice",
                    f"atlas.charts[{i}]",
                    f"a centre at least {self.r_in} pixels from every edge",
                    "move the chart or lower r_in",
                )

    def pixels(self, shape: tuple[int, ...], radius: int) -> Tensor:
        height, width = shape[-2:]
        offsets = torch.arange(-radius, radius + 1)
        centres = torch.tensor([(c.row, c.col) for c in self.charts])
        rows = (centres[:, :1] + offsets).clamp_(0, height - 1)
        cols = (centres[:, 1:] + offsets).clamp_(0, width - 1)
        return rows[:, :, None] * width + cols[:, None, :]

    def places(self, shape: tuple[int, ...]) -> Tensor:
        rows, cols = (torch.arange(n) for n in shape[-2:])
        centres = torch.tensor([(c.row, c.col) for c in self.charts])
        r, c = rows - centres[:, :1], cols - centres[:, 1:]
        return nearest_chart(
            r[:, :, None].expand(-1, -1, len(cols)), c[:, None, :].expand(-1, len(rows), -1), self.r_in
        )


def nearest_chart(rows: Tensor, cols: Tensor, radius: int) -> Tensor:
    """``FieldAtlas.places`` from the lattice pixels' whole coordinates in every chart, from its centre, both ``[C, H, W]``."""
    distance, chart = torch.maximum(rows.abs(), cols.abs()).min(0)
    side = 2 * radius + 1
    row, col = (t.gather(0, chart[None])[0] + radius for t in (rows, cols))
    return torch.where(distance <= radius, (chart * side + row) * side + col, -1)
