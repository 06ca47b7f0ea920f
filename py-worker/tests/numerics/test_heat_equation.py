"""The heat data: superposition against direct simulation, what is held, the draws, and memory."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets import arrays, heat_equation
from atlas_worker.datasets.heat_equation import (
    HELD,
    HeatEquation,
    HeatEquationParams,
    heat_flow,
    hole,
)
from atlas_worker.errors import InvalidInput, NotReady

CPU = torch.device("cpu")


def made(seed: int = 0, **params: Any) -> HeatEquation:
    dataset = HeatEquation(HeatEquationParams(**params), seed=seed, device=CPU, tensors={})
    dataset.run_epoch(lambda *_: None)
    return dataset


@pytest.fixture(scope="module")
def plates() -> HeatEquation:
    return made(samples=300, side=64)


def step_by_step(x: Tensor, steps: int, rate: float) -> Tensor:
    """METHOD 3.1 literally: absolute temperatures, and the central difference applied twice."""
    side = x.shape[-1]
    t = torch.nn.functional.pad(x.double(), (2, 2, 2, 2), value=HELD)
    mask = hole(side)
    for _ in range(steps):
        up, down = t[..., :-4, 2:-2], t[..., 4:, 2:-2]
        left, right = t[..., 2:-2, :-4], t[..., 2:-2, 4:]
        inner = t[..., 2:-2, 2:-2]
        new = inner + rate * (up + down + left + right - 4 * inner)
        t = torch.nn.functional.pad(torch.where(mask, HELD, new), (2, 2, 2, 2), value=HELD)
    return t[..., 2:-2, 2:-2]


def test_superposition_equals_direct_simulation(plates: HeatEquation) -> None:
    expected = step_by_step(plates.inputs[:8], 50, 0.25)
    assert (plates.targets[:8] - expected).abs().max() < 1e-5  # float32
    assert (plates.inputs[:8] - expected).abs().max() > 0.5


def test_heat_flow_agrees_with_the_naive_scheme_at_another_rate() -> None:
    x = torch.randn(2, 24, 24, dtype=torch.float64) * ~hole(24)
    assert (heat_flow(x, 7, 0.1) + HELD - step_by_step(x + HELD, 7, 0.1)).abs().max() < 1e-12


def test_the_hole_is_the_open_rectangle_and_held_in_inputs_and_targets(
    plates: HeatEquation,
) -> None:
    mask = hole(64)
    for row, col in (
        (7, 13),
        (19, 31),
    ):  # 7/64 = 0.109, 19/64 = 0.297, 13/64 = 0.203, 31/64 = 0.484
        assert mask[row, col]
    for row, col in ((6, 13), (20, 13), (7, 12), (7, 32)):
        assert not mask[row, col]
    assert not hole(20)[2].any()  # 2/20 = 0.1 lies on the edge, outside
    assert torch.allclose(plates.inputs[:, :, mask], torch.tensor(HELD))
    assert torch.allclose(plates.targets[:, :, mask], torch.tensor(HELD), atol=1e-5)
    assert (plates.targets[:, :, ~mask] - HELD).abs().mean() > 0.05


def test_outside_is_held() -> None:
    """A plate at √2 stays there; a hot one cools first at its rim and around the hole."""
    still = heat_flow(torch.zeros(1, 32, 32, dtype=torch.float64), 50, 0.25)
    assert bool((still == 0).all())
    hot = heat_flow(torch.ones(1, 32, 32, dtype=torch.float64), 3, 0.2)[0]
    assert hot[16, 0] < 0.7
    assert hot[0, 16] < 0.7
    assert hot[22, 22] == pytest.approx(1.0)
    assert hot[hole(32)].abs().max() == 0


def test_inputs_are_the_waves_of_their_draws(plates: HeatEquation) -> None:
    a, b, c, d, e, f = plates._draws()[:, 5].tolist()
    for row, col in ((40, 3), (63, 63), (0, 50)):
        expected = c * math.sin(a * row / 64 + b) + f * math.cos(d * col / 64 + e)
        assert float(plates.inputs[5, 0, row, col]) == pytest.approx(expected, abs=1e-5)


def test_draws_have_the_published_distributions() -> None:
    n = 20_000
    draws = HeatEquation(HeatEquationParams(samples=n), seed=3, device=CPU, tensors={})._draws()
    for row, (mean, std) in {0: (15, 6), 1: (0, 3), 3: (12, 5), 4: (0, 3)}.items():
        assert float(draws[row].mean()) == pytest.approx(mean, abs=4 * std / math.sqrt(n))
        assert float(draws[row].std()) == pytest.approx(std, rel=4 / math.sqrt(2 * n))
    for row in (2, 5):
        assert float(draws[row].min()) >= 0.5
        assert float(draws[row].mean()) == pytest.approx(
            (math.sqrt(2 / math.pi) + 1) / 2, abs=4 * 0.3 / math.sqrt(n)
        )
    assert torch.corrcoef(draws).triu(1).abs().max() < 5 / math.sqrt(n)


def test_an_unstable_step_is_refused_and_the_limit_itself_is_not() -> None:
    with pytest.raises(InvalidInput) as caught:
        HeatEquation(HeatEquationParams(dt=0.0101), seed=0, device=CPU, tensors={})
    assert caught.value.field == "dataset.source.params.dt"
    HeatEquation(HeatEquationParams(dt=0.01), seed=0, device=CPU, tensors={})


def test_the_scheme_is_stable_at_its_limit_and_not_beyond() -> None:
    rough = torch.randn(1, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert heat_flow(rough, 300, 0.25).abs().max() <= rough.abs().max()
    assert heat_flow(rough, 300, 0.27).abs().max() > 1e3 * rough.abs().max()


def test_the_seed_decides_and_the_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(seed=4, samples=70, side=32)
    again = made(seed=4, samples=70, side=32)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    monkeypatch.setattr(heat_equation, "CHUNK", 16)
    chunked = made(seed=4, samples=70, side=32)
    assert torch.equal(first.inputs, chunked.inputs)
    # One matrix product may round otherwise than another of different size.
    assert (first.targets - chunked.targets).abs().max() < 1e-5
    other = made(seed=5, samples=70, side=32)
    assert not torch.allclose(first.inputs, other.inputs, atol=0.1)


def test_data_are_not_there_before_they_are_made() -> None:
    dataset = HeatEquation(HeatEquationParams(samples=2, side=32), seed=0, device=CPU, tensors={})
    assert (dataset.epoch, dataset.total_epochs, dataset.shape) == (0, 1, (2, 1, 32, 32))
    for name in ("inputs", "targets"):
        with pytest.raises(NotReady):
            getattr(dataset, name)


def test_a_restored_dataset_is_the_same_bit_for_bit() -> None:
    first = made(seed=2, samples=20, side=32)
    again = HeatEquation(HeatEquationParams(samples=20, side=32), seed=2, device=CPU, tensors={})
    again.load_state(*first.state())
    assert again.epoch == 1
    assert torch.equal(first.targets, again.targets)
    with pytest.raises(InvalidInput):
        again.load_state({}, {"kind": "arrays", "epoch": "0"})


def test_progress_is_told_chunk_by_chunk() -> None:
    told: list[tuple[int, int]] = []
    dataset = HeatEquation(HeatEquationParams(samples=600, side=16), seed=0, device=CPU, tensors={})
    assert dataset.run_epoch(lambda i, n, _: told.append((i, n))) == {"samples": 600.0}
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_plates_need_little_more_memory_than_they_keep() -> None:
    # Not getrusage: a process begins with its parent's peak there.
    code = """
import re, torch
from pathlib import Path
torch.set_num_threads(1)
from atlas_worker.datasets.heat_equation import HeatEquation, HeatEquationParams
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
d = HeatEquation(HeatEquationParams(samples=2000), seed=0, device=torch.device("cpu"), tensors={})
d.run_epoch(lambda *_: None)
assert d.inputs.shape == (2000, 1, 128, 128)
print(d.memory_bytes, peak() - before)
"""
    root = Path(heat_equation.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    data, taken = map(int, done.stdout.split())
    assert data == 2 * 2000 * 128 * 128 * 4
    assert data < taken < data + 200e6


def test_it_takes_no_tensors() -> None:
    with pytest.raises(InvalidInput) as caught:
        HeatEquation(HeatEquationParams(), seed=0, device=CPU, tensors={"inputs": torch.zeros(1)})
    assert caught.value.field == "dataset.tensors"


def arrays_of(**tensors: Tensor) -> arrays.ArraysDataset:
    return arrays.ArraysDataset(arrays.ArraysParams(), seed=0, device=CPU, tensors=tensors)


def test_arrays_are_kept_as_given_in_single_precision() -> None:
    x, y = torch.randn(3, 2, 5, 6, dtype=torch.float64), torch.arange(90).reshape(3, 1, 5, 6)
    dataset = arrays_of(inputs=x, targets=y)
    assert torch.equal(dataset.inputs, x.float())
    assert torch.equal(dataset.targets, y.float())
    assert dataset.memory_bytes == 4 * (180 + 90)


GOOD = torch.zeros(3, 1, 4, 4)


@pytest.mark.parametrize(
    ("tensors", "field"),
    [
        ({"inputs": GOOD}, "dataset.tensors"),
        ({"targets": GOOD}, "dataset.tensors"),
        ({"inputs": GOOD[0, 0, 0], "targets": GOOD}, "dataset.tensors.inputs"),
        ({"inputs": GOOD[0], "targets": GOOD}, "dataset.tensors.targets"),
        ({"inputs": GOOD, "targets": GOOD[:, 0, 0]}, "dataset.tensors.targets"),
        ({"inputs": GOOD, "targets": GOOD[:2]}, "dataset.tensors.targets"),
        ({"inputs": GOOD, "targets": GOOD[..., :3]}, "dataset.tensors.targets"),
        ({"inputs": GOOD / 0, "targets": GOOD}, "dataset.tensors.inputs"),
        ({"inputs": GOOD, "targets": 1 / GOOD}, "dataset.tensors.targets"),
        ({"inputs": GOOD[:0], "targets": GOOD[:0]}, "dataset.tensors.inputs"),
        ({"inputs": GOOD, "targets": GOOD, "labels": GOOD}, "dataset.tensors.labels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tensors: dict[str, Tensor], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        arrays_of(**tensors)
    assert caught.value.field == field
