"""Training, validation and test samples of a dataset (METHOD 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..interfaces import Dataset
from ..rng import random_stream


@dataclass(frozen=True)
class Splits:
    """Indices of the samples of each part: int64 on the CPU, ascending, without common scenes."""

    training: Tensor
    validation: Tensor
    test: Tensor
    scenes: Tensor
    """Scene of each sample of the dataset, ``[N]`` int64 on the CPU."""

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples of each part, by name."""
        return {name: len(getattr(self, name)) for name in ("training", "validation", "test")}


PARTS = 5
"""Parts of the training samples of which a refit leaves out one (METHOD 2.13)."""


def split(
    dataset: Dataset,
    validation: float,
    test: float,
    seed: int,
    field: str,
    left_out: int = 0,
    limit: int = 0,
) -> Splits | None:
    """Split a dataset at random by whole scenes, such as trajectories.

    Args:
        dataset: The dataset.
        validation: Fraction of the scenes for validation.
        test: Fraction of the scenes for the test.
        seed: Seed of the choice.
        field: Dotted path of the fractions' block in the request, for errors.
        left_out: Which fifth of the training scenes is left out, from 1 to 5; 0 for none. The
            validation and test scenes do not depend on it.
        limit: Number of samples for training and validation together, drawn at random from those
            that are not in the test part; 0 for all of these. Fewer samples are among more of them.

    Returns:
        The parts, each with at least one scene unless its fraction is 0; None if both are 0,
        nothing is left out and there is no limit.

    Raises:
        InvalidInput: There are too few scenes, or the fractions leave nothing for the training.
    """
    if not validation and not test and not left_out and not limit:
        return None
    samples = len(dataset.inputs)
    given = dataset.scenes
    scenes = torch.arange(samples) if given is None else given.cpu()
    numbers = scenes.unique()
    sizes = [max(1, round(f * len(numbers))) if f else 0 for f in (validation, test)]
    noun = "samples" if given is None else "trajectories, or scenes,"
    if validation + test >= 1:
        raise InvalidInput(
            f"the validation and test parts are {validation:g} and {test:g} of the samples",
            f"{field}.params.test",
            "fractions whose sum is less than 1",
        )
    fewest = sum(sizes) + (PARTS if left_out else 1)
    if len(numbers) < fewest:
        raise InvalidInput(
            f"{len(numbers)} {noun} are too few for a training and held-out parts",
            "predictor.dataset",
            f"at least {fewest}, and better hundreds",
            "give more samples",
        )
    order = numbers[torch.randperm(len(numbers), generator=random_stream(seed, 94))]
    if left_out:
        kept = torch.arange(len(order) - sum(sizes)) % PARTS != left_out - 1
        order = torch.cat([order[: sum(sizes)], order[sum(sizes) :][kept]])
    chosen = [part.sort().values for part in order.split([*sizes, len(order) - sum(sizes)])]
    parts = [torch.isin(scenes, part).nonzero()[:, 0] for part in chosen]
    if limit:
        parts[0], parts[2] = _limited(parts, scenes, validation, limit, seed, field)
    return Splits(training=parts[2], validation=parts[0], test=parts[1], scenes=scenes)


def _limited(
    parts: list[Tensor], scenes: Tensor, validation: float, limit: int, seed: int, field: str
) -> tuple[Tensor, Tensor]:
    """Draw samples outside of the test part, and divide them by scenes.

    Returns:
        The validation and the training samples.
    """
    pool = torch.cat([parts[0], parts[2]]).sort().values
    if limit > len(pool):
        raise InvalidInput(
            f"{limit} samples are to be trained with, but only {len(pool)} are not for the test",
            f"{field}.params.samples",
            f"at most {len(pool)}",
            "give more data, or a smaller part for the test",
        )
    drawn = pool[torch.randperm(len(pool), generator=random_stream(seed, 95))[:limit]]
    numbers = scenes[drawn].unique()
    numbers = numbers[torch.randperm(len(numbers), generator=random_stream(seed, 96))]
    count = max(1, round(validation * len(numbers))) if validation else 0
    if len(numbers) <= count:
        raise InvalidInput(
            f"{limit} samples of {len(numbers)} scenes are too few for a training and a validation",
            f"{field}.params.samples",
            f"samples of at least {count + 1} scenes",
        )
    held = torch.isin(scenes[drawn], numbers[:count])
    return drawn[held].sort().values, drawn[~held].sort().values
