"""Planar atlases: charts are square windows of a pixel lattice, centred on a pixel (METHOD section 1)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidInput


@dataclass(frozen=True)
class Chart:
    """A chart's centre in pixels: ``row`` is the first lattice axis (u), ``col`` the second (v)."""

    row: int
    col: int


@dataclass(frozen=True)
class PlanarAtlas:
    """Charts of one size on an ``[H, W]`` lattice.

    ``r_in``: radius of the predictor's input and output crop (``2 r_in + 1`` pixels wide). ``r_out``: radius of the inner
    crop on which transformed fields are compared. ``margin``: extra pixels of true field around what the
    predictor reads that the resampler may read when it moves the input; beyond them, and beyond the lattice, it repeats the border.
    """

    charts: tuple[Chart, ...]
    r_in: int
    r_out: int
    margin: int = 0

    def __len__(self) -> int:
        return len(self.charts)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` when the crops of radius ``r_in`` do not lie inside the lattice of fields of this ``shape``."""
        if len(shape) != 4:
            raise InvalidInput(
                f"the dataset's inputs have shape {list(shape)}",
                "atlas.planar",
                "[N, channels, H, W]",
                "use an atlas for sets of vectors",
            )
        height, width = shape[-2:]
        if not self.charts:
            raise InvalidInput("the atlas has no charts", "atlas.charts", "at least one chart")
        if not 0 <= self.r_out <= self.r_in or self.margin < 0:
            raise InvalidInput(
                f"r_in={self.r_in}, r_out={self.r_out}, margin={self.margin} is not an atlas",
                "atlas.r_out",
                "0 <= r_out <= r_in and margin >= 0",
            )
        for i, c in enumerate(self.charts):
            if not (self.r_in <= c.row < height - self.r_in and self.r_in <= c.col < width - self.r_in):
                raise InvalidInput(
                    f"chart {i} at ({c.row}, {c.col}) with radius {self.r_in} leaves the {height}x{width} lattice",
                    f"atlas.charts[{i}]",
                    f"a centre at least {self.r_in} pixels from every edge",
                    "move the chart or lower r_in",
                )
