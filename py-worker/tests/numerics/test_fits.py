"""Fits for full evidence: planted breakings, and other coordinates (METHOD 2.13)."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.resample import crop
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.predictors.coordinates import CONDITION, draw_coordinates
from atlas_worker.predictors.planted import Breaking
from atlas_worker.predictors.supervised import SupervisedParams, make_subject
from atlas_worker.symmetry.ambient import Ambient
from atlas_worker.symmetry.evidence import Evidence, collect
from atlas_worker.symmetry.manifold import space_of
from atlas_worker.symmetry.planar import FieldInputs
from atlas_worker.symmetry.space import Space
from atlas_worker.symmetry.vectors import VectorInputs, VectorSpace

ROTATION = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]) / 2**0.5


def data(x: Tensor, y: Tensor, outputs: int) -> Any:
    return SimpleNamespace(
        inputs=x,
        targets=y,
        scenes=None,
        outputs=outputs,
        background=None,
        has_targets=True,
        coordinates=None,
    )


def rings(samples: int = 900, classes: bool = False) -> Any:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 1, 2, generator=g)
    r = x[:, 0].norm(dim=1, keepdim=True)
    if classes:
        return data(x, (r > 1.2).long(), 2)
    return data(x, torch.sin(2 * r), 1)


def fit(dataset: Any, atlas: VectorSpace | None = None, **training: Any) -> FittedPredictor:
    how = {"validation": 0.2, "test": 0.2, "batch_size": 64, "learning_rate": 1e-2}
    how = {"loss": "l2", "schedule": "cosine", **how, **training}
    net, space = ("polynomial", {}), atlas or VectorSpace(2)
    found = make_predictor(net, ("supervised", how), dataset, space, 12, 0, torch.device("cpu"))
    for _ in range(12):
        found.run_epoch(lambda *_: None)
    return found


def evidence(predictor: FittedPredictor, dataset: Any) -> Evidence:
    subject, held_out = make_subject(predictor, None, [], dataset)
    assert held_out
    return collect(subject, ROTATION, torch.zeros(0, 2, 2), [0.2], 400, 0)


@pytest.mark.parametrize("classes", [False, True])
def test_a_smooth_planted_breaking_is_seen_and_a_rough_one_is_not(classes: bool) -> None:
    dataset, shares = rings(classes=classes), dict[float, float]()
    loss = "cross_entropy" if classes else "l2"
    clean = evidence(fit(dataset, loss=loss), dataset).directions[0][0]
    assert math.isnan(clean.planted)
    for length in (2.0, 0.1):
        planted = 0.1 if classes else 0.3
        broken = fit(dataset, loss=loss, planted=planted, planted_length=length)
        lost = evidence(broken, dataset).directions[0][0]
        assert lost.planted > 0.05
        shares[length] = (lost.skill_lost.value - clean.skill_lost.value) / lost.planted
    assert shares[2.0] == pytest.approx(1, abs=0.35)
    assert shares[0.1] < 0.4


def test_a_breaking_has_the_variance_that_is_asked_for() -> None:
    x = torch.randn(400, 3, 2, generator=torch.Generator().manual_seed(1))
    y = torch.zeros(400, 1, 2)
    how: dict[str, Any] = {"classes": 0, "length": 1.0, "halo": 0, "seed": 0}
    unit = torch.tensor([2.0, 5.0])
    b = Breaking(VectorInputs(x), 2, share=0.5, unit=unit, **how)
    added = b.plant(y, b(x[:, None]))
    assert added[:, 0].std(0).tolist() == pytest.approx([1.0, 2.5], rel=0.05)


def test_a_breaking_of_windows_has_no_axes_and_keeps_the_shape() -> None:
    fields = torch.randn(6, 2, 40, 40, generator=torch.Generator().manual_seed(2))
    atlas = PlanarAtlas(charts=(Chart(20, 20),), r_in=8, r_out=6)
    inputs = FieldInputs(fields, atlas, 3, 0)
    how: dict[str, Any] = {"length": 2.0, "unit": torch.ones(3), "halo": 3, "seed": 0}
    b = Breaking(inputs, 3, classes=3, share=0.1, **how)
    x = inputs.draw(torch.arange(6), None)
    labels = torch.zeros(6, 1, 1, 17, 17)
    changed = b.plant(labels, b(x))
    assert changed.shape == labels.shape
    assert set(changed.unique().tolist()) == {0.0, 1.0}
    assert 0.05 < float((changed == 1).float().mean()) < 0.15


class TestCoordinates:
    def test_are_well_conditioned_and_in_the_group(self) -> None:
        for seed in range(5):
            d = draw_coordinates(Space(Ambient.linear(4)), seed)
            assert float(torch.linalg.cond(d)) <= CONDITION + 1e-6
            assert not torch.allclose(d, torch.eye(4, dtype=d.dtype), atol=0.1)

    def test_of_affine_groups_are_affine(self) -> None:
        atlas, dataset = VectorSpace(2, inputs_as="X"), rings()
        d = draw_coordinates(space_of(atlas, dataset), 3)
        assert d[2].tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-9)

    def test_give_the_same_function_up_to_the_fit(self) -> None:
        dataset = rings()
        other = fit(dataset, coordinates=7)
        lost = evidence(other, dataset)
        assert lost.skill.value > 0.9
        assert abs(lost.directions[0][0].skill_lost.value) < 0.05

    def test_move_typed_outputs_back(self) -> None:
        g = torch.Generator().manual_seed(3)
        x = torch.randn(900, 1, 2, generator=g)
        dataset = data(x, x[:, 0] * x[:, 0].norm(dim=1, keepdim=True), 2)
        other = fit(dataset, VectorSpace(2, targets_as="V"), coordinates=7)
        assert evidence(other, dataset).skill.value > 0.9

    def test_of_fields_are_refused(self) -> None:
        fields = torch.randn(6, 1, 40, 40)
        atlas = PlanarAtlas(charts=(Chart(20, 20),), r_in=8, r_out=6)
        how = "supervised", {"coordinates": 1}
        with pytest.raises(InvalidInput, match="other coordinates"):
            make_predictor(
                ("strided_cnn", {}), how, data(fields, fields, 1), atlas, 1, 0, torch.device("cpu")
            )


class Copy(torch.nn.Module):
    """Gives back what it is given: known exactly, so nothing depends on training."""

    halo = 0

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        return x if radius is None else crop(x, radius)


def test_charts_that_were_not_chosen_do_not_judge() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 1, 12, 24, generator=g)
    y = x.clone()
    y[..., 12:] = torch.randn(60, 1, 12, 12, generator=g)  # nothing tells these
    dataset = data(x, y, 1)
    atlas = PlanarAtlas((Chart(6, 5), Chart(6, 18)), r_in=3, r_out=2)
    predictor = FittedPredictor(
        SupervisedParams(test=0.4),
        module=Copy(),
        kind="copy",
        dataset=dataset,
        atlas=atlas,
        epochs=1,
        seed=0,
        device=torch.device("cpu"),
    )

    def skill(chosen: tuple[int, ...]) -> float:
        some = replace(atlas, chosen=chosen)
        subject, _ = make_subject(predictor, None, [], dataset, some)
        return collect(subject, ROTATION, torch.zeros(0, 2, 2), [0.2], 400, 0).skill.value

    both, left, right = skill(()), skill((0,)), skill((1,))
    assert left > 0.99
    assert right + 0.2 < both < left - 0.2
