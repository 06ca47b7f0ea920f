"""The score of a distribution: what it learns, and whose symmetries it has."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.distribution import (
    DistributionDataset,
    DistributionParams,
    second_moments,
)
from atlas_worker.errors import InvalidInput
from atlas_worker.predictors import FittedPredictor, make_objective, make_predictor
from atlas_worker.predictors.score import expected_undoing
from atlas_worker.predictors.supervised import make_subject
from atlas_worker.symmetry.evidence import collect
from atlas_worker.symmetry.measure import measure_at
from atlas_worker.symmetry.vectors import VectorSpace

from .resume_check import check_resuming

CPU = torch.device("cpu")
STRETCH = torch.tensor([[2.0, 0.5], [0.0, 0.7]])
ARROW = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.7, 0.2], [0.7, -0.2]])


def rotation(degrees: float) -> Tensor:
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


def arrows(samples: int) -> Tensor:
    """An arrow in one of four directions, in stretched coordinates."""
    which = torch.randint(4, (samples,), generator=torch.Generator().manual_seed(0))
    turns = torch.stack([rotation(90.0 * i) for i in range(4)])[which]
    return (turns @ ARROW.T).mT @ STRETCH.T


def dataset(x: Tensor, **params: Any) -> DistributionDataset:
    made = DistributionParams(**params)
    return DistributionDataset(made, seed=0, device=CPU, tensors={"inputs": x})


def learn(data: DistributionDataset, epochs: int = 12, **how: Any) -> FittedPredictor:
    _, m, n = data.inputs.shape
    net = "score_net", {"width": 48, "layers": 2}
    training = "score", {"batch_size": 64, "learning_rate": 5e-3, **how}
    return make_predictor(net, training, data, VectorSpace(n, targets_as=f"{m}C"), epochs, 3, CPU)


def last(predictor: FittedPredictor, epochs: int = 12) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for _ in range(epochs):
        metrics = predictor.run_epoch(lambda *_: None)
    return metrics


def test_vectors_are_moved_to_their_mean_and_noise_has_their_covariance() -> None:
    x = torch.randn(5000, 1, 2, generator=torch.Generator().manual_seed(0)) @ STRETCH.T
    plain, noisy = dataset(x + 3), dataset(x + 3, noise=2.0)
    assert plain.inputs.mean((0, 1)).abs().max() < 1e-4
    assert "mean" in plain.facts
    assert "mean" not in dataset(x - x.mean((0, 1))).facts
    ratio = torch.linalg.solve(second_moments(plain.inputs), second_moments(noisy.inputs))
    assert (ratio - 5 * torch.eye(2)).abs().max() < 0.5
    pairs = dataset(torch.randn(300, 3, 4), n=2)
    assert pairs.inputs.shape == (300, 6, 2)
    assert pairs.outputs == 12


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(20, 1, 2), "few"),
        (torch.randn(300, 2), "shape"),
        (torch.randn(300, 2, 1) * torch.tensor([1.0, 0.0]), "no spread"),
        (torch.full((300, 1, 2), torch.nan), "NaN"),
    ],
)
def test_what_has_no_distribution_is_refused(x: Tensor, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        dataset(x)


def test_the_score_of_an_orbit_has_its_group_and_no_more() -> None:
    x = arrows(2000)
    predictor = learn(dataset(x), epochs=40)
    metrics = last(predictor, 40)
    assert metrics["skill"] > 3 * metrics["skill_error"] > 0
    assert metrics["sigma"] < 0.5
    noisy = dataset(x, noise=metrics["sigma"])
    objective = make_objective(predictor, noisy, VectorSpace(2, targets_as="4C"))
    back = torch.linalg.inv(STRETCH)
    turns = torch.stack([STRETCH @ rotation(a) @ back for a in (90, 180, 45, 20)])
    right, half, wrong, slight = measure_at(objective, turns, 256, 0).relative_error.tolist()
    assert max(right, half) < 0.5 * min(wrong, slight)


def test_held_out_samples_judge_the_score_of_all_turns() -> None:
    angles = torch.rand(3000, generator=torch.Generator().manual_seed(4)) * 360
    x = (torch.stack([rotation(float(a)) for a in angles]) @ ARROW.T).mT @ STRETCH.T
    data = dataset(x)
    predictor = learn(data, epochs=20, smallest=0.4)
    metrics = last(predictor, 20)
    subject, held_out = make_subject(predictor, None, [], data)
    back = torch.linalg.inv(STRETCH)
    turn = STRETCH @ torch.tensor([[0.0, -1.0], [1.0, 0.0]]) @ back
    stretch = STRETCH @ torch.diag(torch.tensor([1.0, -1.0])) @ back
    evidence = collect(
        subject, torch.stack([g / g.norm() for g in (turn, stretch)]), turn[None], [0.2], 300, 0
    )
    assert held_out
    # The noise that nothing can undo does not count against the score.
    assert evidence.skill.value > 1.5 * metrics["skill"] > 0
    right, wrong = (row[0].skill_lost.value for row in evidence.directions)
    assert 10 * abs(right) < wrong
    assert 10 * abs(evidence.matrices[0].skill_lost.value) < wrong


def test_targets_are_the_mean_of_what_may_have_been_added() -> None:
    two = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    clean = two[torch.arange(400) % 2][:, None]
    drawn = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5)).double()
    noisy = (clean + 0.7 * drawn).flatten()
    found = expected_undoing(clean, -drawn, 0.7).flatten()
    # The score of two equal normal distributions, times sigma.
    exact = ((noisy / 0.49).tanh() - noisy) / 0.7
    assert (found - exact).abs().max() < 1e-9


def test_a_normal_distribution_has_no_skill_over_the_linear_score() -> None:
    x = torch.randn(2000, 1, 2, generator=torch.Generator().manual_seed(1)) @ STRETCH.T
    metrics = last(learn(dataset(x)))
    assert metrics["skill"] <= 3 * metrics["skill_error"]


def test_a_score_is_learnt_alike_after_an_interruption() -> None:
    data = dataset(arrows(300))
    whole, _ = check_resuming(lambda: learn(data, epochs=3), 3, 1)
    levels = [0.1, 0.1 * 10 ** (1 / 3), 0.1 * 10 ** (2 / 3), 1.0]
    assert min(abs(float(whole.state()[0]["module.sigma"]) - s) for s in levels) < 1e-6


def test_what_is_no_score_is_refused() -> None:
    data = dataset(arrows(300))
    space = VectorSpace(2, targets_as="4C")
    with pytest.raises(InvalidInput, match="does not train"):
        make_predictor(("mlp", {}), ("score", {}), data, space, 1, 0, CPU)
    with pytest.raises(InvalidInput, match="largest"):
        learn(data, smallest=0.5, largest=0.1)
