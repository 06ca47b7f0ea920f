"""Arrays in any layout: their axes are named, or told by their number where that is certain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput

FIELDS = torch.randn(5, 3, 20, 24, generator=torch.manual_seed(0))
SETS = torch.randn(6, 4, 3, generator=torch.manual_seed(1))


def dataset(inputs: Tensor, targets: Tensor, **params: object) -> ArraysDataset:
    return ArraysDataset(
        ArraysParams(**params),  # type: ignore[arg-type]
        seed=0,
        device=torch.device("cpu"),
        tensors={"inputs": inputs, "targets": targets},
    )


@pytest.mark.parametrize(
    ("inputs", "axes", "targets"),
    [
        (FIELDS, "", FIELDS[:, :1]),
        (FIELDS, "n,c,y,x", FIELDS[:, 0]),
        (FIELDS.permute(0, 2, 3, 1), "n,y,x,c", FIELDS[:, :1].permute(0, 2, 3, 1)),
        (FIELDS.permute(3, 2, 1, 0), "x, y, c, n", FIELDS[:, 0].permute(2, 1, 0)),
    ],
)
def test_fields_come_in_any_order(inputs: Tensor, axes: str, targets: Tensor) -> None:
    data = dataset(inputs, targets, axes=axes)
    assert torch.equal(data.inputs, FIELDS)
    assert torch.equal(data.targets, FIELDS[:, :1])
    assert data.outputs == 1


def test_axes_of_length_1_may_be_left_out() -> None:
    data = dataset(FIELDS[:, 0], FIELDS, axes="n,y,x")
    assert torch.equal(data.inputs, FIELDS[:, :1])
    assert torch.equal(data.targets, FIELDS)
    one = dataset(SETS[:, 0], SETS[:, 0, 0])
    assert torch.equal(one.inputs, SETS[:, :1])
    assert torch.equal(one.targets, SETS[:, 0, :1])
    assert torch.equal(dataset(SETS.mT, SETS[:, 0], axes="n,features,items").inputs, SETS)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5, 64, 64), ""),  # fields, or sets
        ((5, 64, 64, 3), ""),  # channels last
        ((5, 64, 64), "n,c,y,x"),
        ((5, 64, 64), "n,y,y"),
        ((5, 64, 64), "n,y,features"),
        ((5, 64, 64), "y,x,c"),
        ((5, 64, 64), "spam,y,x"),
        ((5,), ""),
        ((5, 2, 3, 4, 5, 6), ""),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(shape: tuple[int, ...], axes: str) -> None:
    with pytest.raises(InvalidInput) as error:
        dataset(torch.randn(shape), torch.randn(shape[0], 1), axes=axes)
    assert error.value.field in ("dataset.source.params.axes", "dataset.tensors.inputs")


def test_classes_are_whole_numbers() -> None:
    labels = torch.tensor([0, 2, 1, 0, 2, 2])
    for given in (labels, labels[:, None].double(), labels.int()):
        data = dataset(SETS, given, classes=True)
        assert data.targets.dtype == torch.int64
        assert torch.equal(data.targets, labels[:, None])
        assert data.outputs == 3
    for wrong in (labels - 1, labels + 0.5, labels * 100_000, SETS[:, 0]):
        with pytest.raises(InvalidInput) as error:
            dataset(SETS, wrong, classes=True)
        assert error.value.field == "dataset.tensors.targets"
