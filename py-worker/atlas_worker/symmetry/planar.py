"""GL(n) acting on windows of fields of n = 1 to 3 dimensions, the charts of a ``FieldAtlas``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fields.atlas import FieldAtlas
from ..fields.resample import Interpolation, crop, transform
from .ambient import Ambient
from .features import FeatureType, own_terms

Representation = Callable[[Tensor], Tensor]
"""``rho(g [..., n, n]) -> [..., d, d]``: how g mixes the channels at one point."""


@dataclass(frozen=True)
class PlanarAction:
    """``(g·x)(u) = ρ(g) x(g⁻¹ u)``, with u in pixels from the chart's centre (METHOD 1.2).

    The first coordinate of u is the row. Inputs are drawn with a margin.
    """

    r_field: int
    """Radius in pixels of the moved inputs, which the predictor reads."""
    r_out: int
    """Radius in pixels of the part of the outputs that is compared."""
    interpolation: Interpolation = "bilinear"
    """Interpolation of inputs."""
    interpolation_out: Interpolation = "bilinear"
    """Interpolation of outputs."""
    rho_in: Representation | None = None
    """How g mixes the input channels; None for scalars."""
    rho_out: Representation | None = None
    """How g mixes the output channels; None for scalars."""
    ambient: Ambient = Ambient.linear(2)
    """The product of all groups. The one without a letter moves the map."""
    halo: int = 0
    """Pixels around each output that the predictor reads, if it tells."""

    @property
    def n(self) -> int:
        """Size of the matrices: that of the map, and of further groups that mix the channels."""
        return self.ambient.n

    @property
    def dimensions(self) -> int:
        """Number of dimensions of the fields. Those of one dimension have one row."""
        return next(f.n for f in self.ambient.factors if f.name == "")

    def act_in(self, g: Tensor, x: Tensor) -> Tensor:
        """Move inputs ``[B, C, ch, S, S]`` and crop them to radius ``r_field``."""
        u = self.ambient.linear_part(g, "")
        return _mix(self.rho_in, g, transform(x, u, self.r_field, self.interpolation))

    def act_out(self, g: Tensor, y: Tensor) -> Tensor:
        """Move outputs and crop them to radius ``r_out``."""
        u = self.ambient.linear_part(g, "")
        return _mix(self.rho_out, g, transform(y, u, self.r_out, self.interpolation_out))

    def crop_in(self, x: Tensor) -> Tensor:
        """Crop inputs to radius ``r_field``."""
        return crop(x, self.r_field, self.dimensions)

    def crop_out(self, y: Tensor) -> Tensor:
        """Crop outputs to radius ``r_out``."""
        return crop(y, self.r_out, self.dimensions)

    def stays_in_support(self, g: Tensor, x: Tensor) -> Tensor:
        """Return True for all matrices: a field is moved, but its values stay the same."""
        return torch.ones(len(g), dtype=torch.bool)

    def compared(self, g: Tensor, x: Tensor) -> Tensor:
        """Tell for which pixels u both u and g u lie in the compared window (METHOD 2.13).

        What the predictor reads around u has to come from within the drawn inputs too. If it does
        not tell how far it reads, it is taken to read from the compared window to the border.
        """
        axis = torch.arange(-self.r_out, self.r_out + 1, dtype=g.dtype, device=g.device)
        n = self.dimensions
        u = torch.stack(torch.meshgrid(*[axis] * n, indexing="ij"), -1)
        g = self.ambient.linear_part(g, "")
        landed = torch.einsum("ij,...j->...i", g, u).abs().amax(-1)
        reads = self.halo or self.r_field - self.r_out
        stretch = torch.linalg.inv(g).abs().sum(-1).max()
        drawn = (x.shape[-1] - 1) / 2
        near = u.abs().amax(-1) + stretch * reads <= max(drawn, self.r_field) + 0.5
        clean: Tensor = (landed <= self.r_out + 1e-4) & near
        return clean[None, None] if n == 1 else clean[None]

    def output_terms(self, outputs: int) -> list[slice]:
        """Return the terms of the outputs' type, or each channel by itself."""
        kind = self.rho_out if isinstance(self.rho_out, FeatureType) else None
        return own_terms(kind, outputs)

    def finer_interpolation(self) -> PlanarAction:
        """Return the action with bicubic for bilinear, and bilinear for nearest."""
        return self._with(_FINER)

    def differentiable(self) -> PlanarAction:
        """Return the action with bilinear for nearest, which has no derivative."""
        return self._with({"nearest": "bilinear"})

    def _with(self, other: Mapping[Interpolation, Interpolation]) -> PlanarAction:
        return replace(
            self,
            interpolation=other.get(self.interpolation, self.interpolation),
            interpolation_out=other.get(self.interpolation_out, self.interpolation_out),
        )


_FINER: Mapping[Interpolation, Interpolation] = {"nearest": "bilinear", "bilinear": "bicubic"}


def _mix(rho: Representation | None, g: Tensor, field: Tensor) -> Tensor:
    if rho is None:
        return field
    mixing = rho(g.to(field.dtype))
    at = mixing.dim() - 2  # the axis of the channels
    mixed: Tensor = torch.einsum("...ij,...jp->...ip", mixing, field.flatten(at + 1))
    return mixed.reshape(*mixed.shape[:-1], *field.shape[at + 1 :])


class FieldInputs:
    """``Inputs`` cut from fields: one crop per sample and chart, on the fields' device.

    The crops have radius ``r_in + halo + margin``.

    Args:
        fields: ``[N, ch, H, W]``; ``[N, ch, D, H, W]`` or ``[N, ch, 1, W]`` on a lattice atlas.
        atlas: The charts.
        halo: Pixels beyond ``r_in`` that the predictor reads.
        margin: Pixels further out that the resampler may read; None for the atlas's margin.
        device: Device of drawn crops; None for that of the fields.

    Raises:
        InvalidInput: The atlas does not fit the lattice.
    """

    memory_bytes = 0
    """No samples are kept."""

    def __init__(
        self,
        fields: Tensor,
        atlas: FieldAtlas,
        halo: int = 0,
        margin: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        atlas.check(fields.shape)
        self._fields, self._device = fields, device or fields.device
        radius = atlas.r_in + halo + (atlas.margin if margin is None else margin)
        self._pixels = atlas.pixels(fields.shape, radius).to(fields.device)

    def __len__(self) -> int:
        return self._fields.shape[0]

    @property
    def charts(self) -> int:
        """Number of charts."""
        return self._pixels.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, ch, s, s)`` with ``s = 2 (r_in + halo + margin) + 1``."""
        return self.charts, self._fields.shape[1], *self._pixels.shape[1:]

    @property
    def device(self) -> torch.device:
        """Device of drawn crops."""
        return self._device

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """Return crops ``[B, C, ch, s, s]``, in one gather whatever B and C are."""
        device = self._fields.device
        pixels = self._pixels if charts is None else self._pixels[charts.to(device)]
        return (
            self._fields[indices.to(device)]
            .flatten(2)[:, :, pixels]
            .transpose(1, 2)
            .to(self._device)
        )
