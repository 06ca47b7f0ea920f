"""GL(2) acting on square windows of fields, charts of a ``FieldAtlas``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..fields.atlas import FieldAtlas
from ..fields.resample import Interpolation, crop, transform

Representation = Callable[[Tensor], Tensor]
"""``rho(g [..., n, n]) -> [..., d, d]``: how g mixes the channels at a point."""


@dataclass(frozen=True)
class PlanarAction:
    """``(g·x)(u) = ρ(g) x(g⁻¹ u)`` with u in pixels from the chart's centre, first coordinate the row (METHOD section 1).

    Inputs are drawn with some margin and moved to radius ``r_field``, which is what the predictor reads; outputs are compared on
    the inner radius ``r_out``. ``rho_*`` None: scalar fields.
    """

    r_field: int
    r_out: int
    interpolation: Interpolation = "bilinear"
    interpolation_out: Interpolation = "bilinear"
    rho_in: Representation | None = None
    rho_out: Representation | None = None

    @property
    def n(self) -> int:
        return 2

    def act_in(self, g: Tensor, x: Tensor) -> Tensor:
        return _mix(self.rho_in, g, transform(x, g, self.r_field, self.interpolation))

    def act_out(self, g: Tensor, y: Tensor) -> Tensor:
        return _mix(self.rho_out, g, transform(y, g, self.r_out, self.interpolation_out))

    def still_in(self, x: Tensor) -> Tensor:
        return crop(x, self.r_field)

    def still_out(self, y: Tensor) -> Tensor:
        return crop(y, self.r_out)

    def covers(self, g: Tensor, x: Tensor) -> Tensor:
        """All: what is moved is where a field is looked at, and the values stay what they are."""
        return torch.ones(len(g), dtype=torch.bool)

    def refined(self) -> PlanarAction:
        return self._with(_FINER)

    def smooth(self) -> PlanarAction:
        return self._with({"nearest": "bilinear"})

    def _with(self, other: Mapping[Interpolation, Interpolation]) -> PlanarAction:
        return replace(
            self,
            interpolation=other.get(self.interpolation, self.interpolation),
            interpolation_out=other.get(self.interpolation_out, self.interpolation_out),
        )


_FINER: Mapping[Interpolation, Interpolation] = {"nearest": "bilinear", "bilinear": "bicubic"}


def _mix(rho: Representation | None, g: Tensor, field: Tensor) -> Tensor:
    return field if rho is None else torch.einsum("...ij,...jrc->...irc", rho(g), field)


class FieldInputs:
    """``Inputs`` cut from ``fields [N, ch, H, W]``, one crop of radius ``r_in + reach + margin`` per sample and chart.

    ``reach``: pixels beyond ``r_in`` that the predictor reads; ``margin``: those that the resampler may read further out (default:
    the atlas's). Crops are cut where the fields are, and moved to ``device`` (None: they stay there). Raises ``InvalidInput`` when the
    atlas does not fit the lattice.
    """

    memory_bytes = 0

    def __init__(
        self,
        fields: Tensor,
        atlas: FieldAtlas,
        reach: int = 0,
        margin: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        if fields.dim() != 4:
            raise InvalidInput(f"fields have shape {list(fields.shape)}", "fields", "[N, channels, H, W]")
        atlas.check(fields.shape)
        self._fields, self._device = fields, device or fields.device
        radius = atlas.r_in + reach + (atlas.margin if margin is None else margin)
        self._pixels = atlas.pixels(fields.shape, radius).to(fields.device)

    def __len__(self) -> int:
        return self._fields.shape[0]

    @property
    def charts(self) -> int:
        return self._pixels.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.charts, self._fields.shape[1], *self._pixels.shape[1:]

    @property
    def device(self) -> torch.device:
        return self._device

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """``[B, C, ch, s, s]`` with ``s = 2 (r_in + reach + margin) + 1``; one gather, whatever B and C."""
        device = self._fields.device
        pixels = self._pixels if charts is None else self._pixels[charts.to(device)]
        return self._fields[indices.to(device)].flatten(2)[:, :, pixels].transpose(1, 2).to(self._device)
