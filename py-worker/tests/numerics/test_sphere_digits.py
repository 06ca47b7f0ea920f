"""Digits on a sphere: where they lie, what their labels are, and files that are not MNIST's."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.digits import load_digits
from atlas_worker.datasets.sphere_digits import COLUMNS, SphereDigits, SphereDigitsParams
from atlas_worker.errors import InvalidInput, NotReady
from atlas_worker.fields.sphere import SphereAtlas, SphereChart
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.symmetry import FieldInputs

from .resume_check import check_resuming

ATLAS = SphereAtlas(tuple(SphereChart(0, 3 * c) for c in COLUMNS), 14, 14)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images, each of an L whose size is its class."""
    images = np.zeros((10, 28, 28))
    for i in range(10):
        images[i, 8 : 18 + i // 3, 10] = 255
        images[i, 8, 10 : 13 + i // 2] = 128
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(
            idx(np.arange(10))
        )  # either form is read
    return tmp_path


def made(folder: Path, seed: int = 0, **params: Any) -> SphereDigits:
    given = {"path": str(folder), "samples": 6, **params}
    dataset = SphereDigits(
        SphereDigitsParams(**given), seed=seed, device=torch.device("cpu"), tensors={}
    )
    dataset.run_epoch(lambda *_: None)
    return dataset


def charts(values: Tensor) -> Tensor:
    return FieldInputs(values, ATLAS).draw(torch.arange(len(values)), None)


def test_digits_are_labelled_on_their_pixels_and_nowhere_else(folder: Path) -> None:
    data = made(folder)
    assert data.inputs.shape == data.targets.shape == (6, 1, 60, 120)
    assert torch.equal(data.targets == data.background, data.inputs == 0)
    for label in charts(data.targets).flatten(2).flatten(0, 1):
        assert len(label.unique()) == 2  # one digit a chart, and nothing
    assert data.outputs == 11
    assert 0 < float(data.inputs.max()) <= 1


def test_an_unturned_digit_is_the_image_itself_a_quarter_turn_on(folder: Path) -> None:
    """Centroid and mass agree. Moving the centre to a pixel blurs the digit by half a pixel."""
    data = made(folder, angle=0.0)
    images, labels = load_digits("idx", str(folder), "train")
    u = torch.arange(-14.0, 15)
    for chart, label in zip(
        charts(data.inputs)[0, :, 0], charts(data.targets)[0, :, 0], strict=True
    ):
        image = images[labels == label.min()][0].float() / 255
        assert float(chart.sum()) == pytest.approx(float(image.sum()), rel=0.02)
        v = torch.arange(28) - 13.5
        row, col = float((image.sum(1) * v).sum()), float((image.sum(0) * v).sum())
        # u = (row, col) goes to (−col, row)
        assert float((chart.sum(1) * u).sum()) == pytest.approx(-col, abs=0.05 * float(image.sum()))
        assert float((chart.sum(0) * u).sum()) == pytest.approx(row, abs=0.05 * float(image.sum()))


def test_a_seed_gives_the_same_spheres_again(folder: Path) -> None:
    assert torch.equal(made(folder, 3).inputs, made(folder, 3).inputs)
    assert not torch.equal(made(folder, 3).inputs, made(folder, 4).inputs)
    whole, resumed = made(folder, 3), made(folder, 4)
    fresh = SphereDigits(
        SphereDigitsParams(path=str(folder), samples=6),
        seed=3,
        device=torch.device("cpu"),
        tensors={},
    )
    with pytest.raises(NotReady):
        _ = fresh.inputs
    fresh.load_state(*whole.state())
    assert torch.equal(fresh.targets, whole.targets)
    resumed.load_state({}, {"kind": "sphere_digits", "epoch": "0"})
    assert resumed.epoch == 0


def test_digits_without_files() -> None:
    train, _ = load_digits("sklearn", "", "train")
    test, labels = load_digits("sklearn", "", "test")
    assert len(train) + len(test) == 1797
    assert test.shape[1:] == (28, 28)
    assert labels.unique().tolist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", None, "there is no file"),
        ("train-images-idx3-ubyte.gz", b"nonsense", "no gzip file"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(np.zeros((10, 28, 28))))[:-30], "damaged"),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(idx(np.zeros((10, 28, 28)))[:-1]),
            "truncated",
        ),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(idx(np.zeros(10))),
            "no IDX file of bytes in 3",
        ),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(np.zeros((10, 8, 8)))), "8x8 pixels"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(np.zeros((9, 28, 28)))), "9 images"),
        ("train-labels-idx1-ubyte", idx(np.full(10, 10)), "the label 10"),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01", "truncated"),
    ],
)
def test_files_that_are_others_are_told(
    folder: Path, name: str, content: bytes | None, message: str
) -> None:
    path = folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        made(folder)
    assert message in str(caught.value)
    assert name in str(caught.value)
    if content is not None and any(
        word in message for word in ("gzip", "damaged", "truncated", "IDX")
    ):
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() in str(caught.value)


def test_a_classifier_of_pixels_learns_by_the_pixels_that_are_something(folder: Path) -> None:
    data = made(folder, samples=32, angle=20.0)
    training = {
        "loss": "cross_entropy",
        "background_weight": 0.1,
        "batch_size": 8,
        "learning_rate": 0.01,
    }
    predictor = make_predictor(
        ("encoder_decoder", {"width": 8}),
        ("supervised", training),
        data,
        ATLAS,
        4,
        0,
        torch.device("cpu"),
    )
    losses = [predictor.run_epoch(lambda *_: None)["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    outputs = predictor.predict(predictor.crops(torch.arange(4), data))
    assert outputs.shape == (4, 3, 11, 29, 29)
    classes = predictor.predict_classes(
        predictor.predict(predictor.crops(torch.arange(32), data)), data
    )
    assert classes.shape == (32, 60, 120)
    # Cut again, the charts are what they were.
    assert torch.equal(charts(classes[:4, None])[:, :, 0], outputs.argmax(2))
    assert bool((classes[:, 0] == -1).all())  # no chart at the pole
    labels = data.targets[:, 0].long()
    something = labels != data.background
    expected = float((classes == labels)[something].double().mean())
    assert predictor.scores(data)["accuracy"] == pytest.approx(expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_spheres(folder: Path) -> None:
    here = made(folder, samples=50)
    there = SphereDigits(
        SphereDigitsParams(path=str(folder), samples=50),
        seed=0,
        device=torch.device("cuda"),
        tensors={},
    )
    there.run_epoch(lambda *_: None)
    assert (
        here.inputs - there.inputs.cpu()
    ).abs().max() < 1.01 / 255  # a grey level, where rounding is a tie
    assert (here.targets != there.targets.cpu()).double().mean() < 1e-4


@pytest.mark.parametrize("stop", [0, 1])
@pytest.mark.parametrize(
    ("kind", "params"), [("encoder_decoder", {}), ("convnet", {"kernel": "c4"})]
)
def test_a_resumed_classifier_of_pixels_is_the_undisturbed_one_bit_for_bit(
    folder: Path, kind: str, params: dict[str, Any], stop: int
) -> None:
    data = made(folder, samples=3)
    training = {
        "loss": "cross_entropy",
        "background_weight": 0.1,
        "batch_size": 2,
        "schedule": "cosine",
    }
    tensors = {"algebra": torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])} if params else {}

    def make() -> FittedPredictor:
        return make_predictor(
            (kind, params),
            ("supervised", training),
            data,
            ATLAS,
            2,
            0,
            torch.device("cpu"),
            tensors,
        )

    whole, resumed = check_resuming(make, 2, stop)
    crops = whole.crops(torch.arange(3), data)
    assert torch.equal(whole.predict(crops), resumed.predict(crops))


def test_half_precision_learns_as_single_precision_does(folder: Path) -> None:
    data = made(folder, samples=32, angle=20.0)
    losses = []
    for precision in ("float32", "bfloat16"):
        training = {
            "loss": "cross_entropy",
            "background_weight": 0.1,
            "batch_size": 8,
            "learning_rate": 0.01,
        }
        predictor = make_predictor(
            ("encoder_decoder", {}),
            ("supervised", {**training, "precision": precision}),
            data,
            ATLAS,
            3,
            0,
            torch.device("cpu"),
        )
        losses.append([predictor.run_epoch(lambda *_: None)["loss"] for _ in range(3)])
        assert all(t.dtype != torch.bfloat16 for t in predictor.state()[0].values())
    single, half = losses
    assert half != single  # it is another precision
    assert half[-1] < 0.9 * half[0]
    assert half == pytest.approx(single, rel=0.05)
