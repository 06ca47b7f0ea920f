"""What is said, or refused, about samples from which little or nothing can be learnt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets import checks
from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.predictors import make_predictor
from atlas_worker.symmetry import VectorSpace


def fields(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def arrays(inputs: Tensor, targets: Tensor) -> ArraysDataset:
    tensors = {"inputs": inputs, "targets": targets}
    return ArraysDataset(ArraysParams(), seed=0, device=torch.device("cpu"), tensors=tensors)


def flat(x: Tensor, channel: int) -> Tensor:
    x = x.clone()
    x[:, channel] = 2
    return x


X, Y = fields(6, 2, 9, 9), fields(6, 2, 9, 9, seed=1)
V, W = fields(8, 3, 4), fields(8, 2, seed=1)


@pytest.mark.parametrize(
    ("inputs", "targets", "said"),
    [
        (X, Y, []),
        (X[:1], Y[:1], []),
        (V, W, []),
        (flat(X, 1), Y, ["channel 1 of inputs"]),
        (X, flat(Y, 0), ["channel 0 of targets"]),
        (X, X, ["targets equal inputs"]),
        (X[:1].expand(6, -1, -1, -1), Y, ["all 6 samples of inputs"]),
        (V.clone().index_fill_(2, torch.tensor([2]), 0), W, ["component 2 of inputs"]),
    ],
)
def test_what_is_odd_is_said(inputs: Tensor, targets: Tensor, said: list[str]) -> None:
    warnings = arrays(inputs, targets).warnings
    assert len(warnings) == len(said)
    for warning, words in zip(warnings, said, strict=True):
        assert words in warning


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.zeros(6, 2, 9, 9), Y, "all entries of inputs are 0"),
        (torch.ones(8, 3, 4), W, "all entries of inputs are 1"),
        (fields(6, 2, 1, 1).expand(6, 2, 9, 9), Y, "one value everywhere"),
        (X.clone().index_fill_(0, torch.tensor([2, 4]), torch.nan), Y, "2 of 6 samples, .* 2$"),
        (X, Y.clone().index_fill_(0, torch.tensor([5]), torch.inf), "1 of 6 samples, .* 5$"),
    ],
)
def test_inputs_that_show_nothing_are_refused(
    inputs: Tensor, targets: Tensor, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        arrays(inputs, targets)


@pytest.mark.parametrize(
    ("targets", "loss", "refused"),
    [
        (W[:, :1], "l1", False),
        (torch.full((8, 1), 3.0), "l1", True),
        (W[:1].expand(8, -1), "l1", True),
        (torch.ones(8, 1), "cross_entropy", True),
        (torch.arange(8.0)[:, None] % 2, "cross_entropy", False),
        (torch.arange(8.0)[:, None] % 3, "cross_entropy", True),  # there are two classes
        (torch.arange(8.0)[:, None] % 2 / 2, "cross_entropy", True),
        (torch.arange(8.0)[:, None] % 2 - 1, "cross_entropy", True),
    ],
)
def test_nothing_is_trained_that_cannot_be_learnt(
    targets: Tensor, loss: str, refused: bool
) -> None:
    class Classes(ArraysDataset):
        outputs = 2

    tensors = {"inputs": V, "targets": targets}
    cpu = torch.device("cpu")
    kind: Any = ArraysDataset if loss == "l1" else Classes
    dataset = kind(ArraysParams(), seed=0, device=cpu, tensors=tensors)
    made: Any = {"architecture": ("mlp", {}), "training": ("supervised", {"loss": loss})}
    predictor = make_predictor(
        **made, dataset=dataset, atlas=VectorSpace(4), epochs=1, seed=0, device=cpu
    )
    if refused:
        with pytest.raises(InvalidInput):
            predictor.run_epoch(lambda *_: None)
        assert predictor.epoch == 0
    else:
        predictor.run_epoch(lambda *_: None)


@pytest.mark.parametrize("shape", [(5, 3), (2, 90, 90)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_shared_samples_are_counted(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    numbers = torch.Generator().manual_seed(0)
    train = torch.randint(0, 3, (400, *shape), generator=numbers).to(dtype)
    others = torch.randint(0, 3, (50, *shape), generator=numbers).to(dtype)
    test = torch.cat([others, train[7:19], train[7:8]])
    test[-1].view(-1)[0] += 1  # beyond the entries in the middle
    assert checks.count_shared(train, test) == 12
    assert checks.count_shared(train, others) == 0
    assert checks.count_shared(train, fields(5, 4)) == 0
    assert checks.count_shared(train, train) == 400


def test_zeros_of_either_sign_are_the_same() -> None:
    x = fields(4, 3, 3)
    x[:, 0] = 0
    assert checks.count_shared(x, torch.where(x == 0, -x, x)) == 4
