"""Audits of predictors from elsewhere: their layers, their data, their group (METHOD 4.8)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..interfaces import Dataset
from ..rng import random_stream
from ..symmetry import action_on, ambient_of, check_features, inputs_on, manifold_of
from ..symmetry.audit import Audit, audit
from .foreign import ARCHITECTURE, Foreign
from .supervised import FittedPredictor
from .taps import ForeignRunner

BEYOND = math.sqrt(2) - 1
"""Pixels beyond a chart that a rotation reads, as a share of its radius."""


def audit_predictor(
    predictor: FittedPredictor,
    dataset: Dataset,
    elements: Tensor,
    samples: int,
    seed: int,
    accuracy: float = 0.0,
    check: Callable[[], None] = lambda: None,
) -> tuple[Audit, dict[str, str], Tensor]:
    """Find the layer in which a predictor loses an equivariance.

    Args:
        predictor: A predictor whose architecture is ``program`` or ``module``.
        dataset: Its inputs.
        elements: Elements of the group, ``[E, n, n]``.
        samples: Number of samples to draw.
        seed: Seed of the samples.
        accuracy: Relative error of the elements themselves.
        check: Called between runs of the network; it may raise an error to stop.

    Returns:
        The audit, the classes of the layers by name, and the samples that were drawn. The audit
        counts these.

    Raises:
        InvalidInput: The predictor is another one, its layers cannot be reached, there are fewer
            than two samples, or outputs are not finite.
    """
    foreign, atlas = predictor.module, predictor.atlas
    if not isinstance(foreign, Foreign):
        raise InvalidInput(
            "the layers of Atlas's own architectures are not audited",
            ARCHITECTURE,
            "a predictor of kind program or module",
            "export it as a program first",
        )
    check_features(atlas, dataset, labels=predictor.loss != "l1")
    action = action_on(atlas, predictor.halo)
    margin = None
    if manifold_of(atlas) == "planar":
        radius = getattr(atlas, "r_in", 0) + predictor.halo
        margin = max(getattr(atlas, "margin", 0), math.ceil(BEYOND * radius) + 1)
    inputs = inputs_on(atlas, dataset, predictor.halo, margin, device=predictor.device)
    order = torch.randperm(len(inputs), generator=random_stream(seed, 99))
    drawn = order[: min(samples, len(inputs))]
    if len(drawn) < 2:
        raise InvalidInput(
            f"{len(drawn)} sample is audited", "samples", "at least 2, whose outputs can differ"
        )
    x = torch.cat([inputs.draw(part, None) for part in drawn.split(predictor.max_batch)]).float()
    run = ForeignRunner(foreign, predictor.device)
    logits = predictor.loss != "l1"
    found = audit(
        run,
        action,
        x,
        elements,
        ambient_of(atlas),
        seed,
        check,
        accuracy=accuracy,
        logits=logits,
    )
    return replace(found, unread=[*run.unread, *found.unread]), run.kinds, drawn
