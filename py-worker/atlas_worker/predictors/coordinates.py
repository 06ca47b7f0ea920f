"""Fits in other coordinates, to learn what a network's own axes do (METHOD 2.13).

A network sees ``D·x`` in place of x, and its outputs are moved back by ``D⁻¹``, so that it can be
compared with the network of the original coordinates. The loss is that of the original outputs.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..interfaces import Signature
from ..rng import random_stream
from ..symmetry import VectorSpace, action_on
from ..symmetry.action import Action
from ..symmetry.space import Space

CONDITION = 2.0
"""Largest condition number of a change of coordinates."""


def draw_coordinates(space: Space, seed: int) -> Tensor:
    """Draw a change of coordinates of the group that acts.

    Args:
        space: The group; if it translates, D is well conditioned in its coordinates.
        seed: Seed of the draw.

    Returns:
        D ``[n, n]`` float64 with a condition number of at most 2.
    """
    generator, n = random_stream(seed, 103), space.n
    free = torch.randn(n, n, generator=generator, dtype=torch.float64)
    free = free.masked_fill(~space.ambient.mask(), 0.0)
    # A rotation by an angle of any size, and a stretch.
    turn, stretch = (free - free.mT) / 2, (free + free.mT) / 2
    if not space.ambient.is_linear:
        turn, stretch = torch.zeros_like(free), free
    size = 1.0
    while True:
        g = torch.matrix_exp(turn + size * stretch)
        if float(torch.linalg.cond(g)) <= CONDITION:
            return space.outward(g)
        size *= 0.8


class InCoordinates(nn.Module):
    """A network of sets of vectors that sees them in other coordinates.

    Args:
        module: The network.
        action: How matrices move its inputs and outputs.
        d: D, ``[n, n]``.
    """

    halo = 0
    """There are no pixels."""
    forth: Tensor
    """D."""
    back: Tensor
    """``D⁻¹``."""

    def __init__(self, module: nn.Module, action: Action, d: Tensor) -> None:
        super().__init__()
        self.inner, self._action = module, action
        self.register_buffer("forth", d.float())
        self.register_buffer("back", torch.linalg.inv(d).float())

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the outputs, in the original coordinates."""
        forth, back = (g.to(x).expand(*x.shape[:2], -1, -1) for g in (self.forth, self.back))
        outputs = self.inner(self._action.act_in(forth, x), charts, radius)
        return self._action.act_out(back, outputs)


def moved_signature(
    atlas: object, space: Space, seed: int, signature: Signature
) -> tuple[Signature, Action, Tensor]:
    """Draw coordinates, and describe the data in them.

    Args:
        atlas: The atlas, which must be of sets of vectors.
        space: The group that acts.
        seed: Seed of the coordinates.
        signature: The data in the original coordinates.

    Returns:
        The signature in the new coordinates, the action, and D.

    Raises:
        InvalidInput: The data are fields.
    """
    if not isinstance(atlas, VectorSpace):
        raise InvalidInput(
            "fields are not fitted in other coordinates: they have no values between the pixels",
            "predictor.training.params.coordinates",
            "0",
        )
    action, d = action_on(atlas), draw_coordinates(space, seed)

    def moved(x: Tensor) -> Tensor:
        g = d.to(device=x.device, dtype=torch.float64)
        return action.act_in(g.expand(len(x), 1, -1, -1), x[:, None].double())[:, 0].to(x)

    def moved_out(y: Tensor) -> Tensor:
        g = d.to(device=y.device, dtype=torch.float64)
        return action.act_out(g.expand(len(y), 1, -1, -1), y[:, None].double())[:, 0].to(y)

    sample, examples = signature.sample, signature.examples
    if sample is not None:
        sample = moved(sample)
    if examples is not None:
        x, y = examples
        examples = (moved(x), None if y is None else moved_out(y))
    scale = 1.0 if sample is None else float(sample.double().square().mean().sqrt()) or 1.0
    new = dataclasses.replace(signature, sample=sample, examples=examples, scale=scale)
    return new, action, d
