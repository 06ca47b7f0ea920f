"""Trajectories as samples: pairs of frames, several lengths, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.datasets.splits import split
from atlas_worker.errors import InvalidInput

NAN = float("nan")
TRACKS = torch.arange(5 * 6 * 2).view(5, 6, 2).float()
"""Five trajectories of six frames with two features, all numbers different."""


def dataset(tensors: dict[str, Tensor], axes: str = "n,t,features", **more: str) -> ArraysDataset:
    params = ArraysParams(axes=axes, **more)  # type: ignore[arg-type]
    return ArraysDataset(params, seed=0, device=torch.device("cpu"), tensors=tensors)


def predict(x: Tensor, what: str = "next", **tensors: Tensor) -> ArraysDataset:
    return dataset({"inputs": x, **tensors}, predict=what)


def test_the_next_frame_is_the_target_of_each_frame() -> None:
    data = predict(TRACKS)
    assert torch.equal(data.inputs[:, 0], TRACKS[:, :-1].flatten(0, 1))
    assert torch.equal(data.targets, TRACKS[:, 1:].flatten(0, 1))
    assert data.scenes is not None
    assert data.scenes.tolist() == [t for t in range(5) for _ in range(5)]
    assert data.outputs == 2


def test_several_frames_follow_one_another_in_the_target() -> None:
    data = predict(TRACKS, "next:3")
    assert len(data.inputs) == 5 * 3
    assert data.targets[0].tolist() == TRACKS[0, 1:4].flatten().tolist()
    rest = predict(TRACKS, "rest")
    assert torch.equal(rest.inputs[:, 0], TRACKS[:, 0])
    assert torch.equal(rest.targets, TRACKS[:, 1:].flatten(1))


def test_frames_of_nan_are_none_and_so_are_those_that_a_mask_leaves_out() -> None:
    shorter = TRACKS.clone()
    shorter[1, 4:], shorter[3, 2] = NAN, NAN  # one ends early, one has a gap
    mask = ~shorter.isnan().all(2)
    by_nan, by_mask = predict(shorter), predict(TRACKS, mask=mask.to(torch.uint8))
    assert torch.equal(by_nan.inputs, by_mask.inputs)
    assert torch.equal(by_nan.targets, by_mask.targets)
    assert by_nan.scenes is not None
    assert by_nan.scenes.bincount().tolist() == [5, 3, 5, 3, 5]
    steps = by_nan.targets[:, 0] - by_nan.inputs[:, 0, 0]
    assert steps.tolist() == [2.0] * len(steps), "no pair is across the gap"


def test_trajectories_that_are_too_short_for_the_frames_are_left_out_with_a_word() -> None:
    shorter = TRACKS.clone()
    shorter[1, 3:] = NAN
    data = predict(shorter, "next:4")
    assert data.scenes is not None
    assert 1 not in data.scenes
    assert data.warnings[0].startswith("1 of 5 trajectories")


def test_items_of_a_frame_and_other_orders_of_axes() -> None:
    x = torch.randn(4, 7, 3, 2)
    data = dataset({"inputs": x}, "n,t,items,features", predict="next")
    assert torch.equal(data.inputs, x[:, :-1].flatten(0, 1))
    assert torch.equal(data.targets, x[:, 1:].flatten(0, 1).flatten(1))
    turned = dataset({"inputs": x.permute(1, 3, 0, 2)}, "t,features,n,items", predict="next")
    assert torch.equal(turned.inputs, data.inputs)


def test_each_frame_may_have_a_target_of_its_own() -> None:
    y = torch.randn(5, 6)
    x = TRACKS.clone()
    x[2, 5] = NAN
    data = dataset({"inputs": x, "targets": y})
    assert len(data.inputs) == 29
    assert torch.equal(data.targets[:, 0], torch.cat([y[:2].flatten(), y[2, :5], y[3:].flatten()]))


def test_no_trajectory_is_in_two_parts_of_a_split() -> None:
    parts = split(predict(torch.randn(40, 6, 2)), 0.2, 0.2, 0, "f")
    assert parts is not None
    owners = [set((part // 5).tolist()) for part in (parts.training, parts.validation, parts.test)]
    assert [len(o) for o in owners] == [24, 8, 8]
    assert len(set.union(*owners)) == 40


def one_frame() -> Tensor:
    x = TRACKS.clone()
    x[3, 1:] = NAN
    return x


def half_a_frame() -> Tensor:
    x = TRACKS.clone()
    x[2, 4, 1] = NAN
    return x


def unequal() -> Tensor:
    x = TRACKS.clone()
    x[2, 5] = NAN
    return x


@pytest.mark.parametrize(
    ("x", "what", "says"),
    [
        (one_frame(), "next", "trajectory 3 has 1 frame"),
        (TRACKS[:, :1], "next", "trajectory 0 has 1 frame"),
        (half_a_frame(), "next", "frame 4 of trajectory 2"),
        (unequal(), "rest", "from 5 to 6 frames"),
        (TRACKS, "next:6", "no trajectory has 7 frames"),
        (TRACKS, "previous", "previous"),
        (TRACKS, "next:0", "next:0"),
    ],
)
def test_what_makes_no_samples_is_refused(x: Tensor, what: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        predict(x, what)


def test_trajectories_need_their_axis_and_targets_that_fit() -> None:
    with pytest.raises(InvalidInput, match="no trajectories"):
        dataset({"inputs": TRACKS}, "n,items,features", predict="next")
    with pytest.raises(InvalidInput, match="targets have shape"):
        dataset({"inputs": TRACKS, "targets": torch.randn(5)})
    with pytest.raises(InvalidInput, match="mask has shape"):
        predict(TRACKS, mask=torch.ones(6, 5))
