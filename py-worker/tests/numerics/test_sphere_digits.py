"""Digits on a sphere: where they lie, what their labels are, and files that are not MNIST's."""

from __future__ import annotations

import functools
import gzip
import hashlib
import lzma
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from atlas_worker.datasets import digits
from atlas_worker.datasets.digits import load_digits
from atlas_worker.datasets.sphere_digits import COLUMNS, SphereDigits, SphereDigitsParams
from atlas_worker.errors import InvalidInput, NotReady
from atlas_worker.fields.sphere import SphereAtlas, SphereChart
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.symmetry import FieldInputs

from .resume_check import check_resuming

SPLITS: tuple[Literal["train"], Literal["test"]] = ("train", "test")
ATLAS = SphereAtlas(tuple(SphereChart(0, 3 * c) for c in COLUMNS), 14, 14)

zipped = functools.partial(gzip.compress, mtime=0)
"""Compress to the same bytes each time: they are part of the names of tests."""


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
    own = load_digits("idx", str(folder), "train")
    images, labels = own.images, own.labels
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
    train, test = (load_digits("sklearn", "", split) for split in SPLITS)
    assert len(train.images) + len(test.images) == 1797
    assert test.images.shape[1:] == (28, 28)
    assert test.labels.unique().tolist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", b"nonsense", "no IDX file"),
        ("train-images-idx3-ubyte.gz", lzma.compress(b"nonsense"), "packed with xz"),
        ("train-images-idx3-ubyte.gz", b"PK\3\4nonsense", "packed with zip"),
        ("train-images-idx3-ubyte.gz", zipped(zipped(b"x")), "gzip twice"),
        ("train-images-idx3-ubyte.gz", b"\0\0\x0d\3" + bytes(12), "32-bit floating-point"),
        ("train-images-idx3-ubyte.gz", b"\0\0\x08\3" + b"\xff" * 12, "truncated"),
        ("train-images-idx3-ubyte.gz", zipped(b"\0\0\x08\3" + b"\xff" * 12), "truncated"),
        ("train-images-idx3-ubyte.gz", idx(np.zeros((10, 28, 28))), "all pixels"),
        ("train-images-idx3-ubyte.gz", zipped(idx(np.zeros((10, 28, 28))))[:-30], "damaged"),
        (
            "train-images-idx3-ubyte.gz",
            zipped(idx(np.zeros((10, 28, 28)))[:-1]),
            "truncated",
        ),
        (
            "train-images-idx3-ubyte.gz",
            zipped(idx(np.zeros(10))),
            "1 dimension",
        ),
        ("train-images-idx3-ubyte.gz", zipped(idx(np.zeros((10, 8, 8)))), "8x8 pixels"),
        ("train-images-idx3-ubyte.gz", zipped(idx(np.zeros((9, 28, 28)))), "9 images"),
        ("train-labels-idx1-ubyte", idx(np.full(10, 10)), "the label 10"),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01", "truncated"),
    ],
)
def test_files_that_are_others_are_told(
    folder: Path, name: str, content: bytes, message: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        made(folder)
    assert message in str(caught.value)
    assert name in str(caught.value)
    if message in ("damaged", "truncated", "no IDX file"):
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() in str(caught.value)


LIKE = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def digits_in(folder: Path, names: tuple[str, ...], shift: int = 0) -> Path:
    """Write four files: ten images and labels for training, five other images for tests."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(15 * 28 * 28).reshape(15, 28, 28) * (7 + shift) // 11
    labels = np.arange(15) % 10
    parts = (images[:10], labels[:10], images[10:], labels[10:])
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(idx(part % 256))
    return folder


@pytest.mark.parametrize(
    ("place", "form", "packed"),
    [
        ("", "{}-idx{}-ubyte", False),
        ("", "{}-idx{}-ubyte.gz", True),
        ("", "{}.idx{}-ubyte", False),
        ("", "{}-idx{}-ubyte.gz", False),  # a browser has unpacked it
        ("", "{}-idx{}-ubyte", True),
        ("", "emnist-digits-{}-idx{}-ubyte.gz", True),
        ("MNIST/raw", "{}-idx{}-ubyte", False),
        ("raw", "{}-idx{}-ubyte", False),
        ("mnist", "{}_idx{}.ubyte", False),
        ("FashionMNIST/raw", "{}-idx{}-ubyte", False),
    ],
)
@pytest.mark.parametrize("upper", [False, True])
def test_digits_under_other_usual_names(
    tmp_path: Path, place: str, form: str, packed: bool, upper: bool
) -> None:
    names = tuple(form.format(what, 3 if "images" in what else 1) for what in LIKE)
    names = tuple(name.upper() for name in names) if upper else names
    digits_in(tmp_path / place, names)
    for name in names:
        path = tmp_path / place / name
        path.write_bytes(gzip.compress(path.read_bytes()) if packed else path.read_bytes())
    found = [load_digits("idx", str(tmp_path), split) for split in SPLITS]
    plain = digits_in(tmp_path / "plain", tuple(f"{n}-idx-ubyte" for n in LIKE))
    for own, split in zip(found, SPLITS, strict=True):
        assert torch.equal(own.images, load_digits("idx", str(plain), split).images)
        assert torch.equal(own.labels, load_digits("idx", str(plain), split).labels)


PLAIN = tuple(f"{what}-idx{3 if 'images' in what else 1}-ubyte" for what in LIKE)


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_digits("idx", str(folder), "train")
    for word in words:
        assert word in caught.value.message + caught.value.expected


def test_a_set_that_is_there_twice_is_taken_only_if_both_are_the_same(tmp_path: Path) -> None:
    digits_in(tmp_path / "MNIST/raw", PLAIN)
    packed = gzip.compress((tmp_path / "MNIST/raw" / PLAIN[0]).read_bytes())
    (tmp_path / "MNIST/raw" / f"{PLAIN[0]}.gz").write_bytes(packed)  # as torchvision leaves it
    shutil.copytree(tmp_path / "MNIST/raw", tmp_path / "raw")
    load_digits("idx", str(tmp_path), "train")
    digits_in(tmp_path, PLAIN, shift=3)
    refused(tmp_path, "several", str(tmp_path / PLAIN[0]), "MNIST/raw")
    other = digits_in(tmp_path / "two", PLAIN)
    digits_in(other, tuple(f"fashion-{name}" for name in PLAIN), shift=3)
    refused(other, "several", PLAIN[0], f"fashion-{PLAIN[0]}")
    third = digits_in(tmp_path / "three", PLAIN)
    changed = idx(np.ones((10, 28, 28)))
    (third / "train-images.idx3-ubyte").write_bytes(changed)
    refused(third, PLAIN[0], "train-images.idx3-ubyte", "differ")


def test_a_folder_with_something_else_says_what_it_holds(tmp_path: Path) -> None:
    refused(tmp_path / "none", "does not exist")
    refused(tmp_path, "nothing", "train-images-idx3-ubyte")
    (tmp_path / "mnist.npz").write_bytes(b"")
    (tmp_path / "png").mkdir()
    refused(tmp_path, "mnist.npz", "png/", "t10k-labels-idx1-ubyte")
    digits_in(tmp_path, PLAIN)
    (tmp_path / PLAIN[1]).unlink()
    refused(tmp_path, PLAIN[0], "no training labels")
    (tmp_path / f"emnist-{PLAIN[1]}").write_bytes(idx(np.arange(10)))
    refused(tmp_path, PLAIN[0], "no training labels")


def test_digits_that_are_odd_are_told(tmp_path: Path) -> None:
    digits_in(tmp_path, PLAIN)
    assert load_digits("idx", str(tmp_path), "train").warnings == ()
    (tmp_path / PLAIN[1]).write_bytes(idx(np.full(10, 3)))
    (said,) = load_digits("idx", str(tmp_path), "train").warnings
    assert PLAIN[1] in said
    assert "3" in said
    shutil.copy(tmp_path / PLAIN[0], tmp_path / PLAIN[2])
    shutil.copy(tmp_path / PLAIN[1], tmp_path / PLAIN[3])
    assert any("10 of 10 test" in s for s in made(tmp_path).warnings)


def test_a_large_file_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits_in(tmp_path, PLAIN)
    read = load_digits("idx", str(tmp_path), "train")
    monkeypatch.setattr(digits, "MAPPED", 1)
    mapped = load_digits("idx", str(tmp_path), "train")
    assert isinstance(digits.read_idx(tmp_path / PLAIN[0], 3), np.memmap)
    assert torch.equal(read.images, mapped.images)


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
