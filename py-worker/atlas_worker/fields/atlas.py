"""Planar atlases: charts are square windows of a pixel lattice, centred on a pixel (METHOD 1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..catalogue import param
from ..errors import InvalidInput

OutputInterpolation = Literal["bilinear", "nearest"]
"""How outputs are resampled when a matrix moves them. Inputs are always resampled bilinearly."""


class FieldAtlas(Protocol):
    """Square charts of one size on a manifold whose fields are ``[H, W]`` lattices of pixels."""

    @property
    def r_in(self) -> int:
        """Radius in pixels of the predictor's input and output crops, ``2 r_in + 1`` wide."""
        ...

    @property
    def r_out(self) -> int:
        """Radius in pixels of the inner crop on which moved fields are compared."""
        ...

    @property
    def margin(self) -> int:
        """Pixels of true field, around the predictor's input, that the resampler may read."""
        ...

    @property
    def output_interpolation(self) -> OutputInterpolation:
        """How the resampler moves outputs."""
        ...

    def __len__(self) -> int:
        """Return the number of charts."""
        ...

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` if the charts do not fit fields ``[N, channels, H, W]``."""
        ...

    def pixels(self, shape: tuple[int, ...], radius: int) -> Tensor:
        """Map each pixel of each chart to a pixel of the lattice.

        Args:
            shape: Shape of the fields, ``(..., H, W)``.
            radius: Radius of the charts in pixels.

        Returns:
            ``[C, s, s]`` int64 into ``H·W``, with s = 2 radius + 1.
        """
        ...

    def chart_index_map(self, shape: tuple[int, ...]) -> Tensor:
        """Map each pixel of the lattice to a pixel of a chart.

        Where charts overlap, the chart with the nearest centre is chosen.

        Args:
            shape: Shape of the fields, ``(..., H, W)``.

        Returns:
            ``[H, W]`` int64 into ``C·s·s``, with s = 2 r_in + 1; −1 where there is no chart.
        """
        ...


def check_radii(atlas: FieldAtlas) -> None:
    """Raise ``InvalidInput`` if an atlas has no charts, or impossible radii or margins."""
    if not len(atlas):
        raise InvalidInput(
            "the atlas has no charts", "atlas.action.params.charts", "at least one chart"
        )
    if not 0 <= atlas.r_out <= atlas.r_in or atlas.margin < 0:
        raise InvalidInput(
            f"r_in={atlas.r_in}, r_out={atlas.r_out}, margin={atlas.margin} do not make an atlas",
            "atlas.action.params.r_out",
            "0 <= r_out <= r_in and margin >= 0",
        )


def check_chosen(atlas: PlanarAtlas) -> None:
    """Raise ``InvalidInput`` unless the chosen charts are different charts of the atlas."""
    wrong = [c for c in atlas.chosen if not 0 <= c < len(atlas)]
    if wrong or len(set(atlas.chosen)) < len(atlas.chosen):
        raise InvalidInput(
            f"chart {wrong[0]} is chosen" if wrong else "a chart is chosen twice",
            "atlas.action.params.chosen",
            f"different numbers from 0 to {len(atlas) - 1}",
        )


def check_fields(shape: tuple[int, ...]) -> None:
    """Raise ``InvalidInput`` unless ``shape`` is that of a dataset of fields."""
    if len(shape) != 4:
        raise InvalidInput(
            f"the dataset's inputs have shape {list(shape)}",
            "atlas.action.kind",
            "[N, channels, H, W]",
            "use an atlas for sets of vectors",
        )


@dataclass(frozen=True)
class Chart:
    """A chart's centre in pixels. The rows are the first axis of the lattice."""

    row: int = param(..., "Row of the chart's centre, in pixels from the top", minimum=0)
    col: int = param(..., "Column of the chart's centre, in pixels from the left", minimum=0)


@dataclass(frozen=True)
class PlanarAtlas:
    """A ``FieldAtlas`` of windows of the lattice.

    Beyond the margin, and beyond the lattice, the border is repeated.
    """

    charts: tuple[Chart, ...] = param(
        ..., "Centres of the charts, in pixels of the dataset's lattice", minimum=1
    )
    r_in: int = param(
        ...,
        "Radius of a chart in pixels; the predictor's output is 2 r_in + 1 pixels wide",
        minimum=0,
    )
    r_out: int = param(
        ..., "Radius in pixels of the inner part of a chart where fields are compared", minimum=0
    )
    margin: int = param(
        0, "Pixels beyond the predictor's input that moving an input may read", minimum=0
    )
    output_interpolation: OutputInterpolation = param(
        "bilinear", "Interpolation of outputs when a matrix moves them"
    )
    inputs_as: str = param(
        "",
        "Types of the input channels, such as S+V for a scalar and a vector (component along the "
        "rows, component along the columns); empty: scalars",
        added=True,
    )
    targets_as: str = param("", "Types of the output channels, likewise", added=True)
    dimensions: str = param(
        "",
        "Dimensions of the groups that mix channels, such as b=2; empty: as the channels say",
        added=True,
    )
    features: int = param(
        0, "Number of input channels, to find dimensions; 0: unknown", minimum=0, added=True
    )
    target_features: int = param(
        0, "Number of output channels, to find dimensions; 0: unknown", minimum=0, added=True
    )
    chosen: tuple[int, ...] = param(
        (), "Numbers of the charts on which symmetries are sought, from 0; none: all", added=True
    )

    def __len__(self) -> int:
        return len(self.charts)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` if a chart of radius ``r_in`` leaves the lattice."""
        check_fields(shape)
        check_radii(self)
        height, width = shape[-2:]
        for i, c in enumerate(self.charts):
            if not (
                self.r_in <= c.row < height - self.r_in and self.r_in <= c.col < width - self.r_in
            ):
                raise InvalidInput(
                    f"chart {i} at ({c.row}, {c.col}) with radius {self.r_in} "
                    f"leaves the {height}x{width} lattice",
                    f"atlas.action.params.charts[{i}]",
                    f"a centre at least {self.r_in} pixels from every edge",
                    "move the chart or lower r_in",
                )

    def pixels(self, shape: tuple[int, ...], radius: int) -> Tensor:
        """Map each pixel of each chart to a pixel of the lattice; see ``FieldAtlas``."""
        height, width = shape[-2:]
        offsets = torch.arange(-radius, radius + 1)
        centres = torch.tensor([(c.row, c.col) for c in self.charts])
        rows = (centres[:, :1] + offsets).clamp_(0, height - 1)
        cols = (centres[:, 1:] + offsets).clamp_(0, width - 1)
        return rows[:, :, None] * width + cols[:, None, :]

    def chart_index_map(self, shape: tuple[int, ...]) -> Tensor:
        """Map each pixel of the lattice to a pixel of a chart; see ``FieldAtlas``."""
        rows, cols = (torch.arange(n) for n in shape[-2:])
        centres = torch.tensor([(c.row, c.col) for c in self.charts])
        r, c = rows - centres[:, :1], cols - centres[:, 1:]
        return nearest_chart(
            r[:, :, None].expand(-1, -1, len(cols)),
            c[:, None, :].expand(-1, len(rows), -1),
            self.r_in,
        )


def nearest_chart(rows: Tensor, cols: Tensor, radius: int) -> Tensor:
    """Compute ``FieldAtlas.chart_index_map``.

    Args:
        rows: Row of each lattice pixel from each chart's centre, ``[C, H, W]`` int64.
        cols: Column of each lattice pixel from each chart's centre, ``[C, H, W]`` int64.
        radius: Radius of the charts in pixels.

    Returns:
        ``[H, W]`` int64 into ``C·s·s``, with s = 2 radius + 1; −1 where there is no chart.
    """
    distance, chart = torch.maximum(rows.abs(), cols.abs()).min(0)
    side = 2 * radius + 1
    row, col = (t.gather(0, chart[None])[0] + radius for t in (rows, cols))
    return torch.where(distance <= radius, (chart * side + row) * side + col, -1)


@dataclass(frozen=True)
class Site:
    """A chart's centre on a lattice of 1 or 3 dimensions, in pixels."""

    col: int = param(..., "Place along the last axis, in pixels", minimum=0)
    row: int = param(0, "Place along the last axis but one; 0 in one dimension", minimum=0)
    layer: int = param(0, "Place along the first axis; 0 in one dimension", minimum=0)


@dataclass(frozen=True)
class LatticeAtlas:
    """A ``FieldAtlas`` of windows of lattices of 1 or 3 dimensions.

    Fields are ``[N, channels, D, H, W]``, or ``[N, channels, 1, W]`` in one dimension.
    """

    n: int = param(..., "Dimensions of the fields: 1 or 3", minimum=1, maximum=3)
    charts: tuple[Site, ...] = param(
        ..., "Centres of the charts, in pixels of the dataset's lattice", minimum=1
    )
    r_in: int = param(
        ...,
        "Radius of a chart in pixels; the predictor's output is 2 r_in + 1 pixels wide",
        minimum=0,
    )
    r_out: int = param(
        ..., "Radius in pixels of the inner part of a chart where fields are compared", minimum=0
    )
    margin: int = param(
        0, "Pixels beyond the predictor's input that moving an input may read", minimum=0
    )
    output_interpolation: OutputInterpolation = param(
        "bilinear", "Interpolation of outputs when a matrix moves them"
    )
    inputs_as: str = param("", "Types of the input channels, such as S+V; empty: scalars")
    targets_as: str = param("", "Types of the output channels, likewise")
    dimensions: str = param(
        "", "Dimensions of the groups that mix channels, such as b=2; empty: as the channels say"
    )
    features: int = param(0, "Number of input channels, to find dimensions; 0: unknown", minimum=0)
    target_features: int = param(
        0, "Number of output channels, to find dimensions; 0: unknown", minimum=0
    )

    def __len__(self) -> int:
        return len(self.charts)

    def _lattice(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[-self.n :]

    def _centres(self) -> list[tuple[int, ...]]:
        return [(c.layer, c.row, c.col)[-self.n :] for c in self.charts]

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` if a chart of radius ``r_in`` leaves the lattice."""
        lattice = {1: "[N, channels, 1, W]", 3: "[N, channels, D, H, W]"}.get(self.n, "")
        if not lattice:
            raise InvalidInput(
                f"n is {self.n}", "atlas.action.params.n", "1 or 3; charts of a plane are planar"
            )
        if len(shape) != (4 if self.n == 1 else 5) or (self.n == 1 and shape[2] != 1):
            raise InvalidInput(
                f"the dataset's inputs have shape {list(shape)}", "atlas.action.kind", lattice
            )
        check_radii(self)
        for i, centre in enumerate(self._centres()):
            if not all(
                self.r_in <= c < size - self.r_in
                for c, size in zip(centre, self._lattice(shape), strict=True)
            ):
                at = ", ".join(map(str, centre))
                size = "x".join(map(str, self._lattice(shape)))
                raise InvalidInput(
                    f"chart {i} at ({at}) of radius {self.r_in} leaves the {size} lattice",
                    f"atlas.action.params.charts[{i}]",
                    f"centres at least {self.r_in} pixels from every edge",
                    "move the chart or lower r_in",
                )

    def room(self, shape: tuple[int, ...]) -> int:
        """Return the number of pixels between the charts and the nearest edge of the lattice."""
        lattice = self._lattice(shape)
        edges = [
            min(c, size - 1 - c)
            for centre in self._centres()
            for c, size in zip(centre, lattice, strict=True)
        ]
        return min(edges) - self.r_in

    def pixels(self, shape: tuple[int, ...], radius: int) -> Tensor:
        """Map each pixel of each chart to a pixel of the lattice, ``[C, s, …]``."""
        lattice = self._lattice(shape)
        offsets = torch.arange(-radius, radius + 1)
        windows = []
        for centre in self._centres():
            axes = [
                (c + offsets).clamp(0, size - 1) for c, size in zip(centre, lattice, strict=True)
            ]
            at = torch.zeros((), dtype=torch.long)
            for places, size in zip(torch.meshgrid(*axes, indexing="ij"), lattice, strict=True):
                at = at * size + places
            windows.append(at[None] if self.n == 1 else at)
        return torch.stack(windows)

    def chart_index_map(self, shape: tuple[int, ...]) -> Tensor:
        """Refuse: classes of pixels are drawn on planes only."""
        raise InvalidInput(
            f"fields of {self.n} dimensions are not drawn", "predictor", "fields of 2 dimensions"
        )
