"""What is said of odd inputs."""

from __future__ import annotations

import torch

from atlas_worker.datasets.checks import describe_inputs


def said(x: torch.Tensor) -> list[str]:
    return describe_inputs(x, "inputs", "inputs")


def test_inputs_on_a_grid_are_told() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = torch.randint(3, (400, 1, 4), generator=generator).float()
    (line,) = said(grid)
    assert line.startswith("components of inputs have at most 3 different values")
    # One component that varies freely is enough, and so are many values or few samples.
    free = grid.clone()
    free[..., 0] = torch.randn(400, 1, generator=generator)
    assert said(free) == []
    assert said(torch.randint(40, (400, 1, 2), generator=generator).float()) == []
    assert said(grid[:20]) == []


def test_constant_components_are_told() -> None:
    x = torch.randn(50, 1, 3, generator=torch.Generator().manual_seed(0))
    x[..., 1] = 2
    assert said(x) == ["component 1 of inputs has the same value in all samples"]
