"""Maps of where a symmetry holds, on exact functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.resample import crop
from atlas_worker.predictors.chartwise import StridedCnn, StridedCnnParams
from atlas_worker.symmetry import EquivarianceObjective, FieldInputs, PlanarAction
from atlas_worker.symmetry.charts import (
    ChosenCharts,
    constant_share,
    measure_charts,
    reach_profile,
)
from atlas_worker.symmetry.manifold import make_planar

R_IN, R_OUT = 9, 6
CHARTS = tuple(Chart(row, col) for row in (14, 33) for col in (14, 33))
ATLAS = PlanarAtlas(charts=CHARTS, r_in=R_IN, r_out=R_OUT, margin=4)
BROKEN = 2
"""The chart on which the function stretches."""


def turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]])


def blur(x: Tensor, rows: float, cols: float) -> Tensor:
    """Blur fields by a Gaussian of given widths, in pixels."""
    t = torch.arange(-6, 7.0)
    down, across = (torch.exp(-0.5 * (t / width) ** 2) for width in (rows, cols))
    kernel = (down / down.sum())[:, None] * (across / across.sum())
    y = functional.conv2d(x.flatten(0, -3)[:, None], kernel[None, None], padding=6)
    return y.reshape(x.shape)


def predict(x: Tensor, charts: Tensor | None) -> Tensor:
    """An isotropic blur on all charts but one."""
    numbers = range(len(CHARTS)) if charts is None else charts.tolist()
    widths = [(2.4, 0.6) if c == BROKEN else (1.5, 1.5) for c in numbers]
    return torch.stack([blur(x[:, i], *w) for i, w in enumerate(widths)], 1)


@pytest.fixture(scope="module")
def fields() -> Tensor:
    noise = torch.randn(24, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    return blur(noise, 2.0, 2.0)


def objective(inputs: FieldInputs | ChosenCharts, f=predict) -> EquivarianceObjective:
    return EquivarianceObjective(inputs, PlanarAction(R_IN, R_OUT), lambda: f)


def test_each_chart_has_its_own_error(fields: Tensor) -> None:
    inputs = FieldInputs(fields, ATLAS)
    found = measure_charts(objective(inputs), torch.stack([turn(0.8), turn(-0.8)]), 20, 0)
    others = [c for c in range(len(CHARTS)) if c != BROKEN]
    assert float(found.error[BROKEN]) > 3 * float(found.error[others].max())
    assert bool((found.low <= found.error).all() and (found.error <= found.high).all())
    # The broken chart's interval is beyond those of the others.
    assert float(found.low[BROKEN]) > float(found.high[others].max())
    assert found.parts.shape == found.spread.shape == (len(CHARTS), 4)
    torch.testing.assert_close(found.parts.mean(1), found.error, rtol=0.1, atol=0)
    assert bool((found.interpolation[others] > 0).all())


def test_the_interval_narrows_with_more_samples(fields: Tensor) -> None:
    inputs, g = FieldInputs(fields, ATLAS), turn(0.8)[None]
    few, many = (measure_charts(objective(inputs), g, n, 0) for n in (5, 24))
    assert float((many.high - many.low).mean()) < float((few.high - few.low).mean())


def test_the_search_sees_only_chosen_charts(fields: Tensor) -> None:
    chosen = torch.tensor([1, BROKEN])
    inputs = FieldInputs(fields, ATLAS)
    some = ChosenCharts(inputs, chosen)
    everything = objective(inputs)
    few = objective(some, some.predictor(predict))
    assert (few.charts, few.samples) == (2, len(fields))
    indices, g = torch.arange(4), turn(0.8)
    want = everything.batch(indices)
    want_error = everything.loss(want, g.expand(*want.shape, 2, 2))[:, chosen]
    got = few.batch(indices)
    torch.testing.assert_close(few.loss(got, g.expand(*got.shape, 2, 2)), want_error)
    one = few.batch(indices, torch.tensor([1]))  # the second of the chosen ones
    torch.testing.assert_close(few.loss(one, g.expand(4, 1, 2, 2)), want_error[:, 1:])


@pytest.mark.parametrize("wrong", [(4,), (-1,), (0, 0)])
def test_only_charts_of_the_atlas_can_be_chosen(wrong: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_planar(PlanarAtlas(charts=CHARTS, r_in=R_IN, r_out=R_OUT, chosen=wrong))
    assert caught.value.field == "atlas.action.params.chosen"


def test_the_reach_is_that_of_the_function(fields: Tensor) -> None:
    inputs = FieldInputs(fields, ATLAS)
    far = 4

    def freeze(radius: int):
        def f(x: Tensor, charts: Tensor | None) -> Tensor:
            size = 2 * far + 1
            means = functional.avg_pool2d(x.flatten(0, 1), size, 1, far)
            return crop(means.unflatten(0, x.shape[:2]), radius)

        return f

    felt = reach_profile(inputs, freeze, 16, 0)
    assert len(felt) == R_IN + 4 + 1
    assert bool((felt[far:] < 1e-12).all())
    assert float(felt[far - 1]) > 1e-3
    assert float(felt[0]) > 0.2


def test_constant_pixels_are_counted_in_the_window(fields: Tensor) -> None:
    held = fields.clone()
    held[:, :, 20:24, 10:18] = 1.4
    share = constant_share(held, ATLAS, 8)
    assert share.tolist() == pytest.approx([3 * 8 / 17**2, 0, 0, 0])  # rows 20 to 22 of the first
    assert constant_share(torch.ones_like(fields), ATLAS, 8).tolist() == [0, 0, 0, 0]


def test_charts_that_share_weights_start_alike_and_can_differ() -> None:
    seed = torch.Generator().manual_seed(0)
    net = StridedCnn(3, 1, 1, 4, StridedCnnParams(own=0.2), seed)
    x = torch.randn(2, 1, 1, 9 + 2 * net.halo, 9 + 2 * net.halo).expand(-1, 3, -1, -1, -1)
    y = net(x)
    torch.testing.assert_close(y[:, 0], y[:, 2])
    y[:, 0].square().sum().backward()
    own, common = net.last.weight.grad, net.last.common.grad
    assert own is not None
    assert common is not None
    assert bool((own[0] != 0).any())
    assert bool((own[1:] == 0).all())
    torch.testing.assert_close(own[:1], 0.2 * common)
