"""Networks of a given number of parameters."""

from __future__ import annotations

import pytest
import torch

from atlas_worker import blocks, catalogue
from atlas_worker.errors import InvalidInput
from atlas_worker.interfaces import Signature

assert blocks
SETS = Signature(manifold="vectors", charts=1, inputs=(5, 4), outputs=2, scale=1.0)
FIELDS = Signature(manifold="planar", charts=1, inputs=(1, 29, 29), outputs=11, scale=1.0)


def parameters(kind: str, signature: Signature, **given: object) -> int:
    block = catalogue.find("architecture", kind, "x")
    params = catalogue.parse_params(block.params, given, "x")
    seed = torch.Generator().manual_seed(0)
    network = block.make(params, signature=signature, tensors={}, seed=seed)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("kind", "signature", "more"),
    [
        ("mlp", SETS, {"layers": 3}),
        ("mlp", SETS, {"layers": 1}),
        ("particle_flow", SETS, {"layers": 1}),
        ("particle_graph", SETS, {"layers": 2}),
        ("unet", FIELDS, {"layers": 2, "head": 8}),
    ],
)
@pytest.mark.parametrize("wanted", [3_000, 40_000])
def test_a_network_has_about_the_number_of_parameters_that_is_asked_for(
    kind: str, signature: Signature, more: dict[str, object], wanted: int
) -> None:
    found = parameters(kind, signature, parameters=wanted, **more)
    assert found == pytest.approx(wanted, rel=0.15)
    assert parameters(kind, signature, **more) != found


def test_a_width_is_not_too_small_to_learn() -> None:
    assert parameters("mlp", SETS, parameters=1) == parameters("mlp", SETS, width=4)


def test_the_nearest_width_is_taken() -> None:
    of_widths = [parameters("mlp", SETS, layers=3, width=w) for w in range(4, 60)]
    for wanted in (700, 1_000, 2_345, 6_789):
        found = parameters("mlp", SETS, layers=3, parameters=wanted)
        assert abs(found - wanted) == min(abs(each - wanted) for each in of_widths)


def test_more_parameters_than_any_width_has_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no width up to 1024 gives"):
        parameters("unet", FIELDS, parameters=2**31 - 1)
    with pytest.raises(InvalidInput, match="parameters"):
        parameters("mlp", SETS, layers=0, parameters=5_000)  # which has no hidden units
