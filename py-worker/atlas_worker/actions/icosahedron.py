"""Fields on the whole sphere, at the pixels of an icosahedral grid. No matrix acts there: they can be fitted, but have no local symmetry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..fields.atlas import check_fields
from ..fields.icosahedron import FINEST, icosahedron, pixel_count
from ..fields.lattice import Lattice


@dataclass(frozen=True)
class IcosahedralGrid:
    """The sphere as an atlas of one chart, of the ``10 · 4ʳ + 2`` pixels of ``fields.icosahedron``."""

    resolution: int

    def __len__(self) -> int:
        return 1

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` unless samples of a dataset of this ``shape`` are fields."""
        check_fields(shape, "icosahedron")

    def check_resolution(self) -> None:
        """Raise ``InvalidInput`` where there is no such grid."""
        if not 0 <= self.resolution <= FINEST:
            raise InvalidInput(
                f"resolution is {self.resolution}", "atlas.icosahedron.resolution", f"0 to {FINEST}"
            )


class IcosahedralInputs:
    """``Inputs`` sampled from ``fields [N, ch, H, W]`` on an equirectangular lattice at the grid's points: ``[B, 1, ch, P]``.

    ``lattice``: that of the fields. Bilinear, in float32; class ``labels`` by the nearest pixel, in their own type. Sampled where the
    fields are, and moved to ``device`` (None: they stay there). With ``keep``, the samples stay on the device once they are drawn, so that
    the lattices, some twenty times as large, are read only once.
    """

    charts = 1

    def __init__(
        self,
        fields: Tensor,
        atlas: IcosahedralGrid,
        lattice: Lattice,
        *,
        labels: bool = False,
        keep: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self._fields, self._device, self._keep = fields, device or fields.device, keep
        self._pixels = pixel_count(atlas.resolution)
        points = icosahedron(atlas.resolution).points
        self._weights: Tensor | None = None
        if labels:
            self._corners = lattice.nearest(points).to(fields.device)
        else:
            corners, weights = lattice.bilinear(points)
            self._corners, self._weights = corners.to(fields.device), weights.to(fields.device)
        self._kept: Tensor | None = None
        self._drawn = torch.zeros(len(fields), dtype=torch.bool)

    def __len__(self) -> int:
        return self._fields.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return 1, self._fields.shape[1], self._pixels

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def memory_bytes(self) -> int:
        if not self._keep:
            return 0
        return len(self) * self._fields.shape[1] * self._pixels * self._dtype.itemsize

    @property
    def _dtype(self) -> torch.dtype:
        return self._fields.dtype if self._weights is None else torch.float32

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """``[B, 1, ch, P]``."""
        indices = indices.cpu()
        if not self._keep:
            return self._sampled(indices)[:, None]
        if self._kept is None:
            self._kept = torch.empty(len(self), *self.shape[1:], dtype=self._dtype, device=self._device)
        new = indices[~self._drawn[indices]]
        if len(new):
            self._kept[new.to(self._device)] = self._sampled(new)
            self._drawn[new] = True
        return self._kept[indices.to(self._device)][:, None]

    def _sampled(self, indices: Tensor) -> Tensor:
        """``[B, ch, P]``, one by one: a lattice may be much, and on disk."""
        samples = []
        for i in indices.tolist():
            field = self._fields[i].flatten(1)
            if self._weights is None:
                samples.append(field[:, self._corners])
            else:
                samples.append(
                    sum(w * field[:, c] for c, w in zip(self._corners, self._weights, strict=True))
                )
        return torch.stack(samples).to(self._device)
