"""GL(n) acting on sets of vectors in R^n: one chart and no resampling (METHOD 1.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..catalogue import param
from ..errors import InvalidInput
from .ambient import Ambient
from .features import FeatureType, own_terms, parse_dimensions, product

ONE_SIDE = 0.99
"""Fraction of the samples that have to be on one side of a hyperplane (METHOD 1.5)."""
FEWEST = 8
"""Samples for each dimension that the test of the support needs (METHOD 1.5)."""


@dataclass(frozen=True)
class VectorSpace:
    """R^n as an atlas of one chart. With ``vector_output`` the output is a set of vectors too."""

    n: int = param(
        ..., "Dimension of the vectors; 0: as `features` and `inputs_as` say", minimum=0, maximum=64
    )
    vector_output: bool = param(
        False, "The output is a set of vectors that moves too; otherwise the output is invariant"
    )
    inputs_as: str = param(
        "V",
        "Types of the features of each item, such as V+S for a vector and a scalar",
        added=True,
    )
    targets_as: str = param("", "Types of the outputs, likewise; empty: invariant", added=True)
    features: int = param(
        0, "Number of features of each item, if n is 0", minimum=0, maximum=65_536, added=True
    )
    dimensions: str = param(
        "",
        "Dimensions of several groups, such as a=2,b=3; empty: as the numbers of features say",
        added=True,
    )
    target_features: int = param(
        0, "Number of outputs, to find dimensions; 0: unknown", minimum=0, added=True
    )

    @property
    def ambient(self) -> Ambient:
        """The product of all groups that move something."""
        types = [FeatureType(text, self.n) for text in (self.inputs_as, self.targets_as) if text]
        known = parse_dimensions(self.dimensions, "atlas.action.params.dimensions")
        return product(types, self.n, known, plain=False)

    def __len__(self) -> int:
        return 1

    def check(self, shape: torch.Size) -> None:
        """Raise ``InvalidInput`` unless ``shape`` is that of sets of items of the given type."""
        size = FeatureType(self.inputs_as, self.n, ambient=self.ambient).size
        if len(shape) != 3 or shape[-1] != size:
            raise InvalidInput(
                f"the dataset's inputs have shape {list(shape)}",
                "atlas.action.params.n",
                f"[N, m, {size}]",
            )


@dataclass(frozen=True)
class VectorAction:
    """``(g·x)_i = g x_i`` for sets of vectors ``x [B, C, m, n]`` (METHOD 1.3).

    Outputs ``[B, C, c]`` stay as they are. Outputs ``[B, C, m', n]`` move in the same way. Items
    with features of other types, and typed outputs ``[B, C, c]``, are moved by ``ρ(g)``.
    """

    n: int
    """Size of the matrices: the dimension of the vectors, if one linear group moves them."""
    vector_output: bool = False
    """Whether the outputs are sets of vectors that move too."""
    rho_in: FeatureType | None = None
    """How g mixes the features of an item; None for one vector."""
    rho_out: FeatureType | None = None
    """How g mixes the outputs; None for scalars."""

    def act_in(self, g: Tensor, x: Tensor) -> Tensor:
        """Move each item."""
        return self._moved(g.to(x.dtype), x)

    def act_out(self, g: Tensor, y: Tensor) -> Tensor:
        """Move each output vector, or repeat invariant outputs for each matrix."""
        if self.vector_output:
            return y @ g.to(y.dtype).mT
        if self.rho_out is not None:
            g = g.to(y.dtype)
            moved = (self.rho_out(g) @ y[..., None])[..., 0]
            shift = self.rho_out.shift(g)
            return moved if shift is None else moved + shift
        return y.expand(*g.shape[:-2], *y.shape[2:])

    def crop_in(self, x: Tensor) -> Tensor:
        """Return the inputs unchanged."""
        return x

    def crop_out(self, y: Tensor) -> Tensor:
        """Return the outputs unchanged."""
        return y

    def stays_in_support(self, g: Tensor, x: Tensor) -> Tensor:
        """Tell which matrices keep the sums of the samples on their side of a hyperplane.

        A matrix leaves the support if the sums of all samples' vectors lie on one side (as for
        positive energies) and it moves them to the other. The hyperplane's normal is
        ``E[s sᵀ]⁻¹ E[s]``, the linear form that is nearest to 1 on the sums s in any coordinates
        (METHOD 1.5).

        Args:
            g: Matrices ``[m, n, n]``.
            x: Inputs ``[B, C, ...]``.

        Returns:
            ``[m]`` bool.
        """
        sums = x.double().sum(-2).flatten(0, -2)
        # Any few points all lie on one side of some hyperplane.
        if len(sums) < FEWEST * sums.shape[-1]:
            return torch.ones(len(g), dtype=torch.bool, device=x.device)
        normal = torch.linalg.pinv(sums.mT @ sums / len(sums)) @ sums.mean(0)
        before = (sums @ normal > 0).double().mean()
        moved = self._moved(g.double(), sums, x.shape[-2])
        after = (moved @ normal > 0).double().mean(-1)
        inside: Tensor = ~((before >= ONE_SIDE) & (after <= 1 - ONE_SIDE))
        return inside

    def _moved(self, g: Tensor, x: Tensor, summed: int = 1) -> Tensor:
        """Move items ``x [..., m, features]``, or sums of so many items each."""
        if self.rho_in is None:
            return x @ g.mT
        moved = x @ self.rho_in(g).mT
        shift = self.rho_in.shift(g)
        return moved if shift is None else moved + summed * shift[..., None, :]

    @property
    def invariant(self) -> bool:
        """Whether the outputs stay as they are."""
        kind = self.rho_out
        return not self.vector_output and (kind is None or kind.is_scalar)

    def vectors(self, x: Tensor) -> Tensor | None:
        """Return all vectors ``[..., vectors, n]`` of items ``[..., features]`` that are not zero.

        None if there are other features than vectors of one linear group and scalars.
        """
        if self.rho_in is None:
            return x[..., None, :]
        if any(kind not in ("S", "V") for _, kind in self.rho_in.terms):
            return None
        found = [x[..., at] for kind, at in self.rho_in.parts() if kind == "V"]
        return torch.stack(found, -2) if found else None

    def mixed(self, p: Tensor, x: Tensor, other: Tensor) -> Tensor:
        """Take the parts of all vectors in the range of a projection from other samples.

        Items that are zero stay zero, as under any linear map.

        Args:
            p: The projection ``[n, n]``.
            x: Inputs ``[B, C, m, features]``, as :meth:`vectors` allows.
            other: Those of the other samples, likewise.

        Returns:
            ``x + P(other − x)``.
        """
        rho = p if self.rho_in is None else self.rho_in(p) - self.rho_in(torch.zeros_like(p))
        real = (x != 0).any(-1, keepdim=True)
        return x + (other - x) @ rho.mT * real

    def compared(self, g: Tensor, x: Tensor) -> None:
        """Return None: all outputs are compared."""

    def output_terms(self, outputs: int) -> list[slice]:
        """Return the terms of the outputs' type; scalars by themselves, vectors together."""
        if self.vector_output:
            return [slice(0, outputs)]
        return own_terms(self.rho_out, outputs)

    def finer_interpolation(self) -> VectorAction:
        """Return the action itself, which interpolates nothing."""
        return self

    def differentiable(self) -> VectorAction:
        """Return the action itself, which is differentiable."""
        return self


class VectorInputs:
    """``Inputs`` from samples with one chart.

    Args:
        samples: ``[N, ...]``.
        device: Device of drawn samples; None for that of ``samples``.
    """

    charts = 1
    """Vectors have one chart."""
    memory_bytes = 0
    """No samples are kept."""

    def __init__(self, samples: Tensor, device: torch.device | None = None) -> None:
        self._samples, self._device = samples, device or samples.device

    def __len__(self) -> int:
        return self._samples.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(1, ...)``."""
        return 1, *self._samples.shape[1:]

    @property
    def device(self) -> torch.device:
        """Device of drawn samples."""
        return self._device

    def draw(self, indices: Tensor, charts: Tensor | None) -> Tensor:
        """Return samples ``[B, 1, ...]`` of ``indices [B]``."""
        return self._samples[indices.to(self._samples.device)][:, None].to(self._device)
