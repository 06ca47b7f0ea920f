"""U-Nets on the icosahedral grid: group, equivariance, size, fitting and scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from atlas_worker.datasets.base import GivenDataset
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.icosahedron import pixel_count, rotate
from atlas_worker.predictors import FittedPredictor, make_objective, make_predictor
from atlas_worker.predictors.icosahedral_unet import IcosahedralUNet, IcosahedralUNetParams
from atlas_worker.predictors.supervised import jaccard_loss
from atlas_worker.symmetry import IcosahedralGrid

from .resume_check import check_resuming

CPU = torch.device("cpu")
TURN = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
ALGEBRAS = {"SO(2)": TURN, "GL+(2)": torch.eye(4).view(4, 2, 2)}
CLASSES = ("background", "cap", "belt")


class Weather(GivenDataset):
    """Three smooth fields on a 12 × 24 lattice, labelled where the first is high or the second low.

    Two experts label all scenes but the last.
    """

    kind = "weather"
    outputs, background, classes = 3, 0, CLASSES

    def __init__(self, scenes: int = 5) -> None:
        g = torch.Generator().manual_seed(0)
        coarse = torch.randn(scenes, 3, 4, 6, generator=g)
        fields = functional.interpolate(coarse, (12, 24), mode="bicubic")
        labels = torch.where(
            fields[:, :1] > 0.6, 1, torch.where(fields[:, 1:2] < -0.6, 2, 0)
        ).byte()
        self.scenes = torch.arange(2 * scenes - 1) // 2
        self.inputs, self.targets = fields[self.scenes], labels[self.scenes]
        self.targets[1::2, :, :6] = 0  # of the second experts, who saw nothing in the north


def unet(
    group: str, resolution: int = 2, levels: int = 2, width: int = 4, width_in: int = 2
) -> IcosahedralUNet:
    return IcosahedralUNet(
        resolution,
        width_in,
        3,
        group,  # type: ignore[arg-type]
        IcosahedralUNetParams(width, levels),
        torch.Generator().manual_seed(1),
    )


def predictor(
    group: str = "SO(2)",
    epochs: int = 2,
    seed: int = 0,
    atlas: Any = None,
    tensors: Mapping[str, Tensor] | None = None,
    architecture: Mapping[str, Any] | None = None,
    device: torch.device = CPU,
    **training: Any,
) -> FittedPredictor:
    return make_predictor(
        ("icosahedral_unet", {"width": 4, "levels": 2, **(architecture or {})}),
        ("supervised", {"loss": "jaccard", "batch_size": 3, "learning_rate": 0.01, **training}),
        Weather(),
        atlas or IcosahedralGrid(2),
        epochs,
        seed,
        device,
        {"algebra": ALGEBRAS[group]} if tensors is None else tensors,
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("group", ALGEBRAS)
def test_the_60_rotations_commute_with_the_network(group: str, training: bool) -> None:
    net = unet(group).train(training)
    g = torch.Generator().manual_seed(3)
    for name, t in net.state_dict().items():
        if name.endswith(("norm.weight", "running_var")):
            t.copy_(0.5 + torch.rand(t.shape, generator=g))
        elif name.endswith(("bias", "running_mean")):
            t.copy_(0.3 * torch.randn(t.shape, generator=g))
    x = torch.randn(2, 1, 2, pixel_count(2), generator=g)

    def f(x: Tensor) -> Tensor:
        return net(x).transpose(1, 2)  # [B, out, 1, P]

    with torch.no_grad():
        y = f(x)
        assert y.std() > 0.3
        for turn in range(60):
            moved = f(rotate(x.transpose(1, 2), 2, turn).transpose(1, 2))
            # Vertices, which all are pixels here as elsewhere, included.
            assert float((moved - rotate(y, 2, turn)).abs().max()) < 1e-5 * max(
                1.0, float(y.abs().max())
            )


def test_the_published_networks_have_the_published_numbers_of_parameters() -> None:
    for group, expected in (("SO(2)", 765_945), ("GL+(2)", 111_321)):
        net = unet(group, resolution=5, levels=5, width=16, width_in=16)
        assert sum(p.numel() for p in net.parameters()) == expected
        assert net.facts == {"gauge": group}


@pytest.mark.parametrize("group", ALGEBRAS)
def test_every_weight_counts_and_every_pixel_sees_the_whole_sphere(group: str) -> None:
    net = unet(group)
    x = torch.randn(
        2, 1, 2, pixel_count(2), generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    (net(x) * torch.randn(2, 1, 3, pixel_count(2))).sum().backward()
    for name, p in net.named_parameters():
        # A norm takes away what a bias adds.
        assert p.grad is not None
        assert name.endswith("conv.bias") or bool((p.grad != 0).any()), name
    x.grad = None
    net.eval()(x)[0, 0, 0, 7].backward()
    assert float((x.grad[0, 0].abs().sum(0) > 0).double().mean()) > 0.5  # type: ignore[index]


def test_the_algebra_decides_and_the_object_says_so() -> None:
    for group in ALGEBRAS:
        p = predictor(group)
        assert p.facts == {"parameters": p.parameters, "gauge": group}
    assert predictor("SO(2)").parameters > 4 * predictor("GL+(2)").parameters


def test_what_does_not_fit_is_refused() -> None:
    shear = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    for changed, field in (
        ({"tensors": {}}, "predictor.tensors"),
        ({"tensors": {"algebra": shear}}, "predictor.tensors.algebra"),
        ({"tensors": {"algebra": TURN[:0]}}, "predictor.tensors.algebra"),
        ({"tensors": {"algebra": TURN, "metric": TURN}}, "predictor.tensors.metric"),
        ({"architecture": {"levels": 3}}, "predictor.architecture.params.levels"),
    ):
        with pytest.raises(InvalidInput) as caught:
            predictor(**changed)  # type: ignore[arg-type]
        assert caught.value.field == field
        assert "\n" not in caught.value.message
    with pytest.raises(InvalidInput) as caught:
        make_predictor(
            ("cgnet", {}),
            ("supervised", {"loss": "jaccard"}),
            Weather(),
            IcosahedralGrid(2),
            1,
            0,
            CPU,
        )
    assert caught.value.field == "predictor.architecture.kind"
    with pytest.raises(InvalidInput) as caught:
        make_objective(predictor(), Weather(), IcosahedralGrid(2))
    assert caught.value.field == "atlas"


@pytest.mark.parametrize("group", ALGEBRAS)
def test_a_resumed_network_is_the_undisturbed_one_bit_for_bit(group: str) -> None:
    check_resuming(lambda: predictor(group), 2, 1)


@pytest.mark.parametrize("group", ALGEBRAS)
def test_it_learns_and_its_classes_come_back_on_the_lattice(group: str) -> None:
    data, p = Weather(), predictor(group, epochs=40, learning_rate=0.03)
    losses = [p.run_epoch(lambda *_: None)["loss"] for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    scores = p.scores(data)
    assert scores["mean_iou"] > scores["trivial_mean_iou"] + 0.2
    assert set(scores) > {f"iou_{c}" for c in CLASSES} | {"experts_mean_iou", "precision_cap"}
    outputs = p.predict(p.crops(torch.arange(9), data))
    assert outputs.shape == (9, 1, 3, 162)
    classes = p.predict_classes(outputs, data)
    assert classes.shape == (9, 12, 24)
    assert classes.dtype == torch.int64
    # Samples of one scene have one prediction, near enough to the first expert's.
    assert torch.equal(classes[0], classes[1])
    assert float((classes[::2] == data.targets[::2, 0]).double().mean()) > 0.6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("group", ALGEBRAS)
def test_a_gpu_does_as_the_cpu_does_with_data_that_stay_on_the_cpu(group: str) -> None:
    data = Weather()
    here, there = (predictor(group, device=device) for device in (CPU, torch.device("cuda")))
    for _ in range(2):
        losses = [p.run_epoch(lambda *_: None)["loss"] for p in (here, there)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert there.scores(data)["mean_iou"] == pytest.approx(here.scores(data)["mean_iou"], abs=0.02)
    classes = [
        p.predict_classes(p.predict(p.crops(torch.arange(9), data)), data).cpu()
        for p in (here, there)
    ]
    assert float((classes[0] == classes[1]).double().mean()) > 0.99


def test_it_trains_in_bfloat16_and_with_cross_entropy_as_well() -> None:
    for training in (
        {"precision": "bfloat16"},
        {"loss": "cross_entropy", "background_weight": 0.5},
    ):
        for group in ALGEBRAS:
            p = predictor(group, **training)
            losses = [p.run_epoch(lambda *_: None)["loss"] for _ in range(2)]
            assert losses[-1] < losses[0]


def test_samples_that_will_be_kept_are_counted() -> None:
    trained, untrained = predictor(), predictor(epochs=0)
    assert trained.memory_bytes - untrained.memory_bytes == 9 * 162 * (3 * 4 + 1)


def test_norms_and_biases_do_not_decay() -> None:
    p = predictor("GL+(2)", weight_decay=0.1)
    decayed, kept = p._optimiser.param_groups
    assert {w.dim() for w in decayed["params"]} == {2}
    assert {w.dim() for w in kept["params"]} == {1}


# Loss


def test_the_jaccard_loss_is_one_minus_the_mean_of_the_classes_indices() -> None:
    g = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randn(2, 3, 4, 5, 5, generator=g),
        torch.randint(4, (2, 3, 5, 5), generator=g),
    )
    p, expected = logits.softmax(2), []
    for chart in range(3):
        for c in range(4):
            t = (labels[:, chart] == c).float()
            both = (p[:, chart, c] * t).sum()
            expected.append(both / (p[:, chart, c].sum() + t.sum() - both))
    assert float(jaccard_loss(logits, labels)) == pytest.approx(
        1 - float(torch.stack(expected).mean())
    )
    # Sure and right, sure and wrong.
    sure = 50 * nn.functional.one_hot(labels, 4).float().movedim(-1, 2)
    assert float(jaccard_loss(sure, labels)) < 1e-6
    assert float(jaccard_loss(sure, (labels + 1) % 4)) > 1 - 1e-6


def test_a_class_that_the_batch_lacks_counts_by_what_it_takes_from_others() -> None:
    labels = torch.zeros(1, 1, 1, 8, dtype=torch.long)
    labels[..., 4:] = 1
    logits = torch.zeros(1, 1, 3, 1, 8, requires_grad=True)
    loss = jaccard_loss(logits, labels)
    # p = 1/3: each of the two has 4/3 of 8/3 + 4 − 4/3.
    assert float(loss.detach()) == pytest.approx(1 - (4 / 3) / (8 / 3 + 4 - 4 / 3))
    loss.backward()
    assert bool((logits.grad[0, 0, 2] > 0).all())  # type: ignore[index]
    alone = jaccard_loss(torch.zeros(1, 1, 3, 8), torch.zeros(1, 1, 8, dtype=torch.long))
    assert float(alone) == pytest.approx(2 / 3)
