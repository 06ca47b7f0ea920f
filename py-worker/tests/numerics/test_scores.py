"""Scores of classifiers: against counting pairs, known values, and the bootstrap."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.scores import (
    auc,
    binary_scores,
    classifier_scores,
    midranks,
    overlap_scores,
    rejection,
)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counted(positive: Tensor, negative: Tensor) -> Tensor:
    """1 for each pair in order, a half for each tie: ``[P, Q]``."""
    d = positive[:, None] - negative
    return (d > 0).double() + (d == 0).double() / 2


# Few different values, so that there are ties within and between the classes.
some = st.lists(st.integers(0, 6), min_size=2, max_size=25).map(
    lambda v: torch.tensor(v, dtype=torch.float64) / 6
)


@given(some, some)
def test_auc_and_its_error_are_those_of_counting_pairs(positive: Tensor, negative: Tensor) -> None:
    pairs = counted(positive, negative)
    value, error = auc(positive, negative)
    assert value == pytest.approx(float(pairs.mean()), abs=1e-12)
    # DeLong: the variances of each signal's and each background's own share.
    variance = pairs.mean(1).var() / len(positive) + pairs.mean(0).var() / len(negative)
    assert error == pytest.approx(float(variance.sqrt()), abs=1e-12)
    assert auc(negative, positive)[0] == pytest.approx(1 - value, abs=1e-12)
    # Only the order matters.
    assert auc(positive.exp() * 3, negative.exp() * 3) == pytest.approx((value, error), abs=1e-12)


@given(some)
def test_midranks_are_means_of_ranks(values: Tensor) -> None:
    for v, rank in zip(values, midranks(values), strict=True):
        below, equal = int((values < v).sum()), int((values == v).sum())
        assert float(rank) == below + (equal + 1) / 2


@given(some, some, st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_rejection_is_that_of_the_highest_cut_that_keeps_enough(
    positive: Tensor, negative: Tensor, efficiency: float
) -> None:
    cuts = [
        float(t) for t in positive if float((positive >= t).double().mean()) >= efficiency - 1e-9
    ]
    passing = int((negative >= max(cuts)).sum())
    value, error = rejection(positive, negative, efficiency)
    if passing:
        e, q = passing / len(negative), len(negative)
        assert value == pytest.approx(1 / e)
        assert error == pytest.approx(math.sqrt(e * (1 - e) / q) / e**2)
    else:
        assert (value, error) == (len(negative), None)


def test_known_values() -> None:
    """Normal distributions at distance d: AUC Φ(d/√2), accuracy Φ(d/2), ε_B = Φ(Φ⁻¹(ε_S) − d)."""
    n, d = 100_000, 1.5
    labels = torch.arange(2 * n) % 2
    z = torch.randn(2 * n, generator=stream(), dtype=torch.float64) + d * labels
    scores = binary_scores((d * (z - d / 2)).sigmoid(), labels)
    normal = torch.distributions.Normal(0.0, 1.0)

    def phi(z: float) -> float:
        return float(normal.cdf(torch.tensor(z, dtype=torch.float64)))

    expected = {"accuracy": phi(d / 2), "auc": phi(d / math.sqrt(2))}
    for percent in (30, 50):
        quantile = float(normal.icdf(torch.tensor(percent / 100, dtype=torch.float64)))
        expected[f"rejection_{percent}"] = 1 / phi(quantile - d)
    assert set(scores) == {*expected, *(f"{name}_error" for name in expected)}
    for name, value in expected.items():
        assert 0 < scores[f"{name}_error"] < 0.05 * value
        assert abs(scores[name] - value) < 4 * scores[f"{name}_error"], name


def test_errors_are_those_of_the_bootstrap() -> None:
    n, g = 400, stream(1)
    labels = torch.arange(n) % 2
    p = (1.2 * labels + torch.randn(n, generator=g, dtype=torch.float64)).sigmoid()
    scores = binary_scores(p, labels)
    positive, negative = p[labels == 1], p[labels == 0]
    drawn = torch.tensor(
        [
            auc(
                positive[torch.randint(n // 2, (n // 2,), generator=g)],
                negative[torch.randint(n // 2, (n // 2,), generator=g)],
            )[0]
            for _ in range(1000)
        ]
    )
    assert scores["auc_error"] == pytest.approx(float(drawn.std()), rel=0.1)
    right = ((p > 0.5) == (labels == 1)).double()
    means = right[torch.randint(n, (2000, n), generator=g)].mean(1)
    assert scores["accuracy_error"] == pytest.approx(float(means.std()), rel=0.1)


def test_chance_and_perfection() -> None:
    labels = torch.tensor([0, 1] * 10)
    chance = binary_scores(torch.full((20,), 0.5), labels)
    assert (chance["accuracy"], chance["auc"], chance["auc_error"]) == (0.5, 0.5, 0.0)
    assert (chance["rejection_30"], chance["rejection_50"]) == (1.0, 1.0)
    perfect = binary_scores(labels.double(), labels)
    assert (perfect["accuracy"], perfect["auc"]) == (1.0, 1.0)
    # No background passes: a lower bound, without an error.
    assert perfect["rejection_30"] == 10
    assert "rejection_30_error" not in perfect
    assert all(math.isfinite(v) for v in perfect.values())


def test_one_class_has_an_accuracy_only() -> None:
    for label in (0, 1):
        scores = binary_scores(torch.tensor([0.9, 0.2, 0.8]), torch.full((3,), label))
        assert set(scores) == {"accuracy", "accuracy_error"}
    one_each = binary_scores(torch.tensor([0.9, 0.2]), torch.tensor([1, 0]))
    assert one_each["auc"] == 1
    assert "auc_error" not in one_each


def test_two_classes_are_ranked_by_their_logits() -> None:
    # Float32 probabilities would all be 1 here.
    logits = torch.tensor([[0.0, 25.0], [0.0, 24.0], [0.0, 23.0], [0.0, 22.0]])
    labels = torch.tensor([1, 1, 0, 0])
    scores = classifier_scores(logits, labels)
    assert (scores["accuracy"], scores["auc"]) == (0.5, 1.0)
    assert scores == binary_scores(logits.double().softmax(1)[:, 1], labels)


def test_more_classes_have_an_accuracy_only() -> None:
    logits = torch.eye(3)[[0, 1, 2, 1]]
    assert classifier_scores(logits, torch.tensor([0, 1, 2, 2])) == {
        "accuracy": 0.75,
        "accuracy_error": math.sqrt(0.75 * 0.25 / 4),
    }


def test_a_million_samples_take_a_moment() -> None:
    n = 1_000_000
    labels = torch.arange(n) % 2
    scores = binary_scores(torch.rand(n, generator=stream()), labels)
    assert abs(scores["auc"] - 0.5) < 4 * scores["auc_error"] < 0.01


@pytest.mark.parametrize(
    ("probabilities", "labels", "field"),
    [
        ([0.1, 0.2], [0, 2], "labels"),
        ([0.1, 0.2], [0, -1], "labels"),
        ([0.1, 0.2], [0.0, 0.5], "labels"),
        ([0.1, 0.2], [0], "labels"),
        ([], [], "labels"),
        ([0.1, math.nan], [0, 1], "probabilities"),
        ([[0.1, 0.2]], [0], "probabilities"),
    ],
)
def test_bad_input_is_refused(probabilities: list[float], labels: list[float], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        binary_scores(torch.tensor(probabilities), torch.tensor(labels))
    assert caught.value.field == field
    assert caught.value.message


# Classes of pixels, by hand: two scenes of four pixels, three experts' labels

SEEN = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0]])
LABELS = torch.tensor([[0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 2]])
SCENES = torch.tensor([7, 7, 3])
NAMES = ("background", "tropical cyclone", "river", "nowhere")


def overlap(seen: Tensor = SEEN, max_batch: int = 1) -> dict[str, float]:
    """``seen`` of scene 7, then of scene 3."""
    of = {0: seen[0], 1: seen[0], 2: seen[1]}
    asked: list[int] = []

    def predict(indices: Tensor) -> Tensor:
        asked.extend(indices.tolist())
        return torch.stack([of[i] for i in indices.tolist()])

    scores = overlap_scores(predict, lambda indices: LABELS[indices], SCENES, NAMES, max_batch)
    assert sorted(asked) == [0, 2]  # once a scene
    return scores


@pytest.mark.parametrize("max_batch", [1, 2])
def test_overlaps_by_hand(max_batch: int) -> None:
    scores = overlap(max_batch=max_batch)
    # Background: scene 7 has 2/3 of the first expert's, 1/2 of the second's; scene 3 has 3/4.
    background = ((2 / 3 + 1 / 2) / 2 + 3 / 4) / 2
    # Cyclones: 1/2 and 2/3 in scene 7, and none in scene 3, which is left out. Rivers: missed.
    cyclone = (1 / 2 + 2 / 3) / 2
    assert scores["iou_background"] == pytest.approx(background)
    assert scores["iou_tropical_cyclone"] == pytest.approx(cyclone)
    assert scores["iou_river"] == 0
    assert scores["mean_iou"] == pytest.approx((background + cyclone + 0) / 3)
    # Over all twelve pixels, four of which are said to be cyclones, and four are.
    assert scores["precision_tropical_cyclone"] == pytest.approx(3 / 4)
    assert scores["recall_tropical_cyclone"] == pytest.approx(3 / 4)
    assert scores["recall_river"] == 0
    # Experts agree on one background pixel of three, and on one cyclone of three.
    assert scores["experts_iou_background"] == pytest.approx(1 / 3)
    assert scores["experts_iou_tropical_cyclone"] == pytest.approx(1 / 3)
    assert scores["experts_mean_iou"] == pytest.approx(1 / 3)
    # Background everywhere: 3/4 and 1/4 of scene 7, 3/4 of scene 3.
    assert scores["trivial_mean_iou"] == pytest.approx(((3 / 4 + 1 / 4) / 2 + 3 / 4) / 2 / 3)
    assert scores["trivial_class"] == 0
    absent = {
        "iou_nowhere",
        "precision_nowhere",
        "recall_nowhere",
        "precision_river",
        "experts_iou_river",
    }
    assert not absent & set(scores)


def test_a_constant_prediction_has_the_trivial_score() -> None:
    scores = overlap(torch.zeros_like(SEEN))
    assert scores["mean_iou"] == pytest.approx(scores["trivial_mean_iou"])


def test_pixels_without_a_chart_are_left_out() -> None:
    seen = SEEN.clone()
    seen[:, 2:] = -1
    scores = overlap(seen)
    assert scores["iou_tropical_cyclone"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores["experts_iou_tropical_cyclone"] == pytest.approx(1 / 2)
    assert "iou_river" not in scores
    assert "precision_tropical_cyclone" in scores
    assert overlap(torch.full_like(SEEN, -1)) == {}


def test_without_second_experts_there_is_no_agreement() -> None:
    scores = overlap_scores(lambda i: LABELS[i], lambda i: LABELS[i], torch.arange(3), NAMES)
    assert scores["mean_iou"] == 1
    assert not any(name.startswith("experts") for name in scores)
