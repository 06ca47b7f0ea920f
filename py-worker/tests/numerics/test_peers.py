"""Problems of other papers: orbits of an object under finite groups of turns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.peers import OrbitsParams, make_orbits, turns_of


def orbits(**params: object) -> Tensor:
    made = make_orbits(
        OrbitsParams(samples=400, **params),  # type: ignore[arg-type]
        seed=0,
        device=torch.device("cpu"),
        tensors={},
    )
    assert not made.has_targets
    return made.inputs


@pytest.mark.parametrize(("group", "order"), [("C_4", 4), ("T", 12), ("O", 24), ("I", 60)])
def test_the_turns_are_a_group_and_keep_the_orbits(group: str, order: int) -> None:
    turns = turns_of(group)
    assert len(turns) == order
    assert torch.allclose(turns @ turns.mT, torch.eye(turns.shape[-1]).double(), atol=1e-9)
    products = (turns[:, None] @ turns).flatten(0, 1)
    assert torch.cdist(products.flatten(1), turns.flatten(1)).min(1).values.max() < 1e-6
    x = orbits(group=group)
    kinds = x.flatten(1).mul(1e4).round().unique(dim=0) / 1e4
    assert len(kinds) == order
    moved = x @ turns[order // 2].float().T
    assert torch.cdist(moved.flatten(1), kinds.flatten(1)).min(1).values.max() < 1e-3


def test_the_twins_have_other_turns() -> None:
    kinds = orbits(group="C_4", twin="generic").flatten(1).mul(1e4).round().unique(dim=0)
    assert len(kinds) == 4
    turned = kinds.unflatten(1, (4, 2)) @ turns_of("C_4")[1].float().T
    assert torch.cdist(turned.flatten(1), kinds).min(1).values.max() > 100  # in units of 1e-4
    every = orbits(group="T", twin="continuous")
    assert len(every.flatten(1).mul(1e4).round().unique(dim=0)) > 390
    lengths = every.norm(dim=2)
    assert torch.allclose(lengths, lengths[:1].expand_as(lengths), atol=1e-3)
