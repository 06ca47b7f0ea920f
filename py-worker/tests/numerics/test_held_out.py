"""Held-out samples: how a dataset is split, early stopping, and the skill on test samples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.splits import split
from atlas_worker.errors import InvalidInput
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.symmetry.vectors import VectorSpace

from .resume_check import advance, check_resuming


def data(x: Tensor, y: Tensor, scenes: Tensor | None = None, outputs: int = 1) -> Any:
    return SimpleNamespace(
        inputs=x, targets=y, scenes=scenes, outputs=outputs, background=None, warnings=()
    )


def pairs(samples: int, noise: float = 0.0, **more: Any) -> Any:
    """Products of two numbers."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 1, 2, generator=g)
    y = x.prod(2) + noise * torch.randn(samples, 1, generator=g)
    return data(x, y, **more)


def fit(dataset: Any, epochs: int, **training: Any) -> FittedPredictor:
    held_out = {"validation": 0.2, "test": 0.2, "batch_size": 32, "learning_rate": 1e-2}
    how = "supervised", {**held_out, **training}
    net = "mlp", {"width": 32, "activation": "gelu"}
    return make_predictor(net, how, dataset, VectorSpace(2), epochs, 5, torch.device("cpu"))


def test_every_sample_is_in_one_part_and_every_scene_in_one_part() -> None:
    scenes = torch.arange(100).repeat_interleave(3)[torch.randperm(300)]
    parts = split(pairs(300, scenes=scenes), 0.15, 0.2, seed=3, field="f")
    assert parts is not None
    everything = torch.cat([parts.training, parts.validation, parts.test])
    assert everything.sort().values.tolist() == list(range(300))
    assert parts.sizes == {"training": 195, "validation": 45, "test": 60}
    owners = [set(scenes[p].tolist()) for p in (parts.training, parts.validation, parts.test)]
    assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]


def test_a_split_depends_on_its_seed_alone() -> None:
    dataset = pairs(50)
    a, b, c = (split(dataset, 0.2, 0.2, seed, "f") for seed in (1, 1, 2))
    assert a is not None
    assert b is not None
    assert c is not None
    assert torch.equal(a.test, b.test)
    assert not torch.equal(a.test, c.test)
    assert split(dataset, 0.0, 0.0, 1, "f") is None


def test_fewer_samples_are_among_more_and_leave_the_test_as_it_is() -> None:
    dataset = pairs(200, scenes=torch.arange(100).repeat_interleave(2))
    parts = [split(dataset, 0.2, 0.2, 1, "f", limit=limit) for limit in (0, 20, 60)]
    every, few, more = (part for part in parts if part is not None)
    assert torch.equal(every.test, few.test)
    owned = [set(torch.cat([p.training, p.validation]).tolist()) for p in (few, more)]
    assert [len(own) for own in owned] == [20, 60]
    assert owned[0] < owned[1]
    scenes = [set((p // 2).tolist()) for p in (more.training, more.validation, more.test)]
    assert not scenes[0] & scenes[1] | scenes[0] & scenes[2] | scenes[1] & scenes[2]
    with pytest.raises(InvalidInput, match="only 160"):
        split(dataset, 0.2, 0.2, 1, "f", limit=161)


def test_a_split_that_leaves_nothing_to_train_with_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too few"):
        split(pairs(2), 0.15, 0.15, 0, "f")
    with pytest.raises(InvalidInput, match=r"too few"):
        split(pairs(40, scenes=torch.zeros(40).long()), 0.15, 0.0, 0, "f")
    with pytest.raises(InvalidInput) as refused:
        split(pairs(50), 0.5, 0.5, 0, "predictor.training")
    assert refused.value.field == "predictor.training.params.test"


def test_the_best_epoch_is_kept() -> None:
    # Twenty samples with noise: a network learns them by heart, and the validation loss rises.
    predictor, losses = fit(pairs(36, noise=1.0), 60, learning_rate=0.02), list[float]()
    for _ in range(60):
        last = predictor.run_epoch(lambda *_: None)
        losses.append(last["validation_loss"])
    assert predictor.splits is not None
    x, y = (t[predictor.splits.validation] for t in (pairs(36, 1.0).inputs, pairs(36, 1.0).targets))
    kept = float((predictor.predict(x[:, None])[:, 0] - y).abs().mean())
    assert kept == pytest.approx(min(losses), rel=1e-4)
    assert losses.index(min(losses)) + 1 == last["best_epoch"] < 60
    assert kept < 0.9 * losses[-2]


def test_a_training_without_progress_stops() -> None:
    predictor = fit(pairs(36, noise=1.0), 200, patience=5, learning_rate=0.02)
    steps = list[int]()
    for _ in range(200):
        metrics = predictor.run_epoch(lambda step, *_: steps.append(step))
        if "skill" in metrics:
            break
    assert metrics["best_epoch"] == predictor.epoch - 5 < 195
    weights = predictor.state()[0]
    assert predictor.run_epoch(lambda *_: None) == metrics, "nothing is done after the stop"
    assert all(torch.equal(t, weights[n]) for n, t in predictor.state()[0].items())


@pytest.mark.parametrize("stop", [3, 10, 15])
def test_a_resumed_training_ends_with_the_same_bits(stop: int) -> None:
    """Before the best epoch, after it, and after the early stop."""
    check_resuming(lambda: fit(pairs(36, noise=1.0), 30, patience=6, learning_rate=0.02), 30, stop)


def test_the_skill_is_that_of_the_test_samples() -> None:
    assert advance(fit(pairs(600), 1)).run_epoch  # the first epoch of many has none
    predictor = fit(pairs(600), 25)
    metrics: dict[str, float] = {}
    for _ in range(25):
        assert "skill" not in metrics
        metrics = predictor.run_epoch(lambda *_: None)
    assert predictor.splits is not None
    dataset, test = pairs(600), predictor.splits.test
    y, c = dataset.targets, dataset.targets[predictor.splits.training].mean()
    f = predictor.predict(dataset.inputs[test][:, None])[:, 0]
    ratio = (f - y[test]).square().mean() / (c - y[test]).square().mean()
    assert metrics["skill"] == pytest.approx(1 - float(ratio), abs=1e-5)
    assert metrics["skill"] > 0.9
    assert 0 < metrics["skill_error"] < 0.1


def test_noise_alone_has_no_skill() -> None:
    dataset = pairs(600)
    dataset.targets = torch.randn(600, 1, generator=torch.Generator().manual_seed(1))
    predictor = fit(dataset, 8)
    metrics = [predictor.run_epoch(lambda *_: None) for _ in range(8)][-1]
    assert metrics["skill"] < 2 * metrics["skill_error"]


def test_the_skill_of_a_classifier_compares_probabilities_with_frequencies() -> None:
    dataset = pairs(600, outputs=2)
    dataset.targets = (dataset.targets > 0).float()
    predictor = fit(dataset, 20, loss="cross_entropy")
    metrics = [predictor.run_epoch(lambda *_: None) for _ in range(20)][-1]
    assert predictor.splits is not None
    test, labels = predictor.splits.test, torch.nn.functional.one_hot(dataset.targets[:, 0].long())
    p = predictor.predict(dataset.inputs[test][:, None])[:, 0].softmax(1)
    frequencies = labels[predictor.splits.training].double().mean(0)
    brier, constant = ((q - labels[test]).square().mean() for q in (p, frequencies))
    assert metrics["skill"] == pytest.approx(1 - float(brier / constant), abs=1e-5)
    assert metrics["skill"] > 0.7


def test_a_fifth_of_the_training_scenes_is_left_out_and_nothing_else_changes() -> None:
    dataset = pairs(100)
    whole = split(dataset, 0.2, 0.2, 3, "f")
    assert whole is not None
    left = []
    for part in range(1, 6):
        refit = split(dataset, 0.2, 0.2, 3, "f", part)
        assert refit is not None
        assert torch.equal(refit.test, whole.test)
        assert torch.equal(refit.validation, whole.validation)
        left += sorted(set(whole.training.tolist()) - set(refit.training.tolist()))
    assert sorted(left) == whole.training.tolist()
    alone = split(dataset, 0.0, 0.0, 3, "f", 2)
    assert alone is not None
    assert alone.sizes == {"training": 80, "validation": 0, "test": 0}
    with pytest.raises(InvalidInput, match="too few"):
        split(pairs(4), 0.0, 0.0, 0, "f", 1)
