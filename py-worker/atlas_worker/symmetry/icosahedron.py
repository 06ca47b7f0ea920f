"""Fields on the whole sphere, at the pixels of an icosahedral grid.

No matrix acts on these fields. A predictor can be fitted to them, but they have no local symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param
from ..fields.atlas import check_fields
from ..fields.icosahedron import FINEST, icosahedron, pixel_count
from ..fields.lattice import Lattice


@dataclass(frozen=True)
class IcosahedralGrid:
    """The sphere as an atlas of one chart: the ``10 · 4ʳ + 2`` pixels of ``fields.icosahedron``."""

    resolution: int = param(
        ...,
        "How often the icosahedron's edges are halved. The grid has 10 · 4^resolution + 2 pixels",
        minimum=0,
        maximum=FINEST,
    )

    def __len__(self) -> int:
        return 1

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``InvalidInput`` unless ``shape`` is that of a dataset of fields."""
        check_fields(shape)


class IcosahedralInputs:
    """``Inputs`` sampled from fields on a lattice at the points of an icosahedral grid.

    Fields are sampled bilinearly, in float32. Class labels are taken from the nearest pixel, in
    their own type. Sampling happens on the fields' device.

    Args:
        fields: ``[N, ch, H, W]`` on an equirectangular lattice. Samples are ``[B, 1, ch, P]``.
        atlas: The grid.
        lattice: The fields' lattice.
        labels: Whether the fields are class labels.
        materialise: Keep samples on ``device`` once they are drawn. The lattices are some twenty
            times as large, and are then read only once.
        device: Device of drawn samples; None for that of the fields.
    """

    charts = 1
    """The whole sphere is one chart."""

    def __init__(
        self,
        fields: Tensor,
        atlas: IcosahedralGrid,
        lattice: Lattice,
        *,
        labels: bool = False,
        materialise: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self._fields, self._device, self._materialise = fields, device or fields.device, materialise
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
        """``(1, ch, P)``."""
        return 1, self._fields.shape[1], self._pixels

    @property
    def device(self) -> torch.device:
        """Device of drawn samples."""
        return self._device

    @property
    def memory_bytes(self) -> int:
        """Bytes of the kept samples, once all have been drawn."""
        if not self._materialise:
            return 0
        return len(self) * self._fields.shape[1] * self._pixels * self._dtype.itemsize

    @property
    def _dtype(self) -> torch.dtype:
        return self._fields.dtype if self._weights is None else torch.float32

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """Return samples ``[B, 1, ch, P]`` of ``indices [B]``."""
        indices = indices.cpu()
        if not self._materialise:
            return self._sampled(indices)[:, None]
        if self._kept is None:
            self._kept = torch.empty(
                len(self), *self.shape[1:], dtype=self._dtype, device=self._device
            )
        new = indices[~self._drawn[indices]]
        if len(new):
            self._kept[new.to(self._device)] = self._sampled(new)
            self._drawn[new] = True
        return self._kept[indices.to(self._device)][:, None]

    def _sampled(self, indices: Tensor) -> Tensor:
        """Sample ``[B, ch, P]`` one by one, since lattices may be large and on disk."""
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
