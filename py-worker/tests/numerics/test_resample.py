"""The resampler: exact on the lattice, a group action elsewhere, differentiable everywhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.resample import Interpolation, crop, transform
from atlas_worker.symmetry import lie

from .tasks import J, smooth_fields

MODES: tuple[Interpolation, ...] = ("bilinear", "nearest", "bicubic")


def field(side: int, seed: int = 0, channels: int = 2) -> Tensor:
    return torch.randn(
        3, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def rotation(angle: float) -> Tensor:
    return lie.expm(angle * J.double())


def radius_of(side: int) -> int:
    return side // 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("radius", [4, 3, 1])
def test_identity_is_the_crop(side: int, radius: int, mode: Interpolation) -> None:
    x = field(side)
    moved = transform(x, torch.eye(2).double(), radius, mode)
    assert moved.shape[-1] == 2 * radius + side % 2
    assert (moved - crop(x, radius)).abs().max() < 1e-13


def test_crop_is_central() -> None:
    x = torch.arange(49.0).reshape(1, 7, 7)
    assert torch.equal(crop(x, 1), x[:, 2:5, 2:5])
    y = torch.arange(36.0).reshape(1, 6, 6)
    assert torch.equal(crop(y, 1), y[:, 2:4, 2:4])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_exact(side: int, quarters: int, mode: Interpolation) -> None:
    """exp(π/2 J) takes +row to +column, as torch.rot90 does from the first axis to the second."""
    x = field(side)
    g = torch.linalg.matrix_power(J.double(), quarters)
    for radius in (radius_of(side), 2):
        expected = crop(torch.rot90(x, quarters, (-2, -1)), radius)
        assert (transform(x, g, radius, mode) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("side", [8, 9])
def test_a_spot_goes_where_the_point_goes(side: int) -> None:
    """A spot at u appears at g·u; the first coordinate is the row."""
    g = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    centre = (side - 1) / 2
    x = torch.zeros(1, side, side, dtype=torch.float64)
    x[0, side - 1, 2] = 1.0
    u = torch.tensor([side - 1 - centre, 2 - centre]).double()
    row, col = ((g @ u) + centre).round().int().tolist()
    moved = transform(x, g, radius_of(side))
    assert moved[0, row, col] == pytest.approx(1.0)
    assert moved.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "quarter", [torch.diag(torch.tensor([1.0, -1.0])), torch.tensor([[0.0, 1.0], [1.0, 0.0]])]
)
def test_reflections_are_exact(quarter: Tensor) -> None:
    x = field(9)
    expected = x.flip(-1) if quarter[0, 0] == 1 else x.mT
    assert (transform(x, quarter.double(), 4) - expected).abs().max() < 1e-12


def plane(normal: Tensor, side: int) -> Tensor:
    """The linear field ``normal · u``, which bilinear interpolation knows exactly."""
    t = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    u = torch.stack(torch.meshgrid(t, t, indexing="ij"), -1)
    return (u @ normal)[None]


@pytest.mark.parametrize("side", [20, 21])
def test_a_map_that_is_not_orthogonal_moves_the_field_and_not_by_its_transpose(side: int) -> None:
    g = torch.tensor([[1.3, 0.6], [0.1, 0.9]]).double()
    normal = torch.tensor([0.7, -0.4]).double()
    moved = transform(plane(normal, side), g, 4)
    expected = plane(torch.linalg.inv(g).T @ normal, 2 * 4 + side % 2)
    assert (moved - expected).abs().max() < 1e-12
    transposed = plane(torch.linalg.inv(g) @ normal, 2 * 4 + side % 2)
    assert (moved - transposed).abs().max() > 0.5


def test_composition_on_smooth_fields() -> None:
    x = smooth_fields(4, 61).double()
    h, g = rotation(0.4) @ torch.diag(torch.tensor([1.2, 0.9])).double(), rotation(-1.1)
    once = transform(x, g @ h, 10, "bicubic")
    twice = transform(transform(x, h, 20, "bicubic"), g, 10, "bicubic")
    wrong = transform(transform(x, g, 20, "bicubic"), h, 10, "bicubic")
    scale = x.abs().mean()
    assert (once - twice).abs().mean() / scale < 0.02  # three interpolations' own errors, see below
    assert (once - wrong).abs().mean() / scale > 0.2


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("slowness", [1, 4])
def test_a_plane_wave_is_turned_to_the_closed_form(mode: Interpolation, slowness: int) -> None:
    k = torch.tensor([0.35, 0.2]).double() / slowness
    g = rotation(0.7)
    moved = transform(torch.sin(plane(k, 61)), g, 15, mode)
    error = (moved - torch.sin(plane(g @ k, 31))).abs().max()
    # Bilinear: at most |k|²/8. PyTorch's cubic (a = -3/4) is only of first order.
    assert error < (k.square().sum() / 8 * 1.1 if mode == "bilinear" else 0.1 * k.norm())


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_gradients_agree_with_finite_differences(mode: Interpolation) -> None:
    x = field(5, channels=1)[:1].requires_grad_(True)
    g = torch.stack([rotation(0.3), torch.tensor([[1.1, 0.2], [-0.3, 0.8]]).double()])[
        :, None
    ].requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, g: transform(x, g, 1, mode), (x, g))


def test_nearest_takes_values_of_the_field_only_and_passes_gradients_to_it() -> None:
    x = field(9).requires_grad_(True)
    moved = transform(x, rotation(0.3), 3, "nearest")
    assert bool(torch.isin(moved.detach(), x.detach()).all())
    moved.sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == pytest.approx(moved.numel())


def test_the_border_is_repeated_beyond_the_field() -> None:
    x = field(7)
    shrunk = transform(x, 0.1 * torch.eye(2).double(), 3)
    for row, col in ((0, 0), (0, 6), (6, 0), (6, 6)):
        assert torch.equal(shrunk[..., row, col], x[..., row, col])
    assert torch.allclose(shrunk[..., 0, 3], x[..., 0, 3])


def test_the_margin_is_true_context() -> None:
    """A window of a larger field uses the values beyond the window, and not the window's border."""
    x = smooth_fields(1, 41).double()
    g = rotation(math.pi / 4)
    whole = crop(transform(x, g, 20), 8)
    assert (transform(x, g, 8) - whole).abs().max() < 1e-12
    assert (transform(crop(x, 8), g, 8) - whole).abs().max() > 0.1


def test_leading_dimensions_broadcast() -> None:
    x, g = field(7), torch.stack([rotation(a) for a in (0.1, 0.2)])
    moved = transform(x, g[:, None], 2)
    assert moved.shape == (2, 3, 2, 5, 5)
    for s in range(2):
        for b in range(3):
            assert torch.allclose(moved[s, b], transform(x[b], g[s], 2))


@pytest.mark.parametrize(
    "g",
    [
        torch.zeros(2, 2),
        torch.tensor([[1.0, 2.0], [2.0, 4.0]]),
        torch.tensor([[math.nan, 0.0], [0.0, 1.0]]),
        torch.tensor([[math.inf, 0.0], [0.0, 1.0]]),
    ],
)
def test_a_matrix_without_a_finite_inverse_is_refused(g: Tensor) -> None:
    with pytest.raises(InvalidInput) as caught:
        transform(field(7).float(), torch.stack([torch.eye(2), g])[:, None], 3)
    assert caught.value.field == "g"


@pytest.mark.parametrize(
    ("shape", "g_shape", "radius", "where"),
    [
        ((1, 7, 8), (2, 2), 2, "g"),
        ((7, 7), (2, 2), 2, "g"),
        ((1, 7, 7), (3, 3), 2, "g"),
        ((1, 7, 7), (2, 2), 4, "radius_out"),
        ((1, 8, 8), (2, 2), 0, "radius_out"),
        ((1, 7, 7), (2, 2), -1, "radius_out"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shape: tuple[int, ...], g_shape: tuple[int, ...], radius: int, where: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        transform(torch.zeros(shape), torch.eye(g_shape[0]), radius)
    assert caught.value.field == where
