"""Fields on the sphere: charts follow their definition, and rotations are rotations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atlas_worker.catalogue import parse_params
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.sphere import (
    SphereAtlas,
    SphereChart,
    lattice,
    rotate,
    so3_basis,
    turn_to,
    unit_vectors,
)

H, W = 60, 120
SHAPE = (1, 1, H, W)
EQUATOR = SphereAtlas(tuple(SphereChart(0, lon) for lon in (60, 180, 300)), r_in=14, r_out=14)


def rotation(*coefficients: float) -> Tensor:
    """``exp(Σ_a c_a L_a)``, float64."""
    theta = torch.tensor(coefficients, dtype=torch.float64)
    return torch.matrix_exp(torch.einsum("a,aij->ij", theta, so3_basis().double()))


def smooth(points: Tensor) -> Tensor:
    """A band-limited field with no symmetry of its own: ``[..., 3] -> [...]``."""
    x, y, z = points.unbind(-1)
    return z.square() + x * y + 0.5 * x * y * z - 0.3 * y + 0.2 * x


def field(height: int = H, width: int = W) -> Tensor:
    return smooth(lattice(height, width))[None]


TURNS = [(0.3, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 2.0), (0.7, -1.1, 0.4), (3.0, 0.5, -1.0)]


def test_generators_are_right_handed_rotations() -> None:
    basis = so3_basis()
    assert torch.equal(basis, -basis.mT)
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        assert torch.equal(basis[a] @ basis[b] - basis[b] @ basis[a], basis[c])
    latitude, longitude = torch.tensor([0.2, 1.0], dtype=torch.float64)
    east = rotation(0, 0, 0.5) @ unit_vectors(latitude, longitude)
    assert torch.allclose(east, unit_vectors(latitude, longitude + 0.5))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_identity_moves_nothing(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.rand(2, 3, H, W, dtype=dtype, generator=torch.Generator().manual_seed(0))
    moved = rotate(x, torch.eye(3))
    assert (moved.dtype, moved.shape) == (dtype, x.shape)
    # To rounding, which the steps between neighbouring pixels of noise multiply.
    assert float((moved - x).abs().max()) < 10 * tolerance


@pytest.mark.parametrize("columns", [1, 7, -30, 60, 119])
def test_rotation_about_the_poles_by_whole_columns_is_a_roll(columns: int) -> None:
    x = field().float()
    moved = rotate(x, rotation(0, 0, columns * 2 * math.pi / W))
    assert torch.allclose(moved, x.roll(columns, -1), atol=1e-5)


@pytest.mark.parametrize("turn", TURNS)
def test_a_smooth_field_is_rotated_as_by_its_formula(turn: tuple[float, ...]) -> None:
    r = rotation(*turn)
    for factor in (1, 2):
        sources = lattice(factor * H, factor * W) @ r  # R⁻¹ p
        off = (rotate(field(factor * H, factor * W), r)[0] - smooth(sources)).abs()
        capped = sources[..., 2].abs() > math.cos(math.pi / (2 * factor * H))
        # Of second order; but near a pole the last row is repeated: off by up to half a row.
        assert float(off[~capped].max()) < 5e-3 / factor**2
        assert float(off.max()) < math.pi / (factor * H)


def test_rotations_compose() -> None:
    a, b = rotation(0.7, -1.1, 0.4), rotation(-0.2, 0.5, 1.3)
    x = field()
    assert (rotate(rotate(x, a), b) - rotate(x, b @ a)).abs().mean() < 2e-3
    assert (rotate(x, a @ b) - rotate(x, b @ a)).abs().mean() > 0.05  # the order matters
    assert (rotate(rotate(x, a), a.T) - x).abs().mean() < 2e-3


def test_leading_dims_broadcast() -> None:
    x = torch.rand(4, 1, 2, 6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = torch.stack([rotation(*t) for t in TURNS[:3]])
    moved = rotate(x, r)
    assert moved.shape == (4, 3, 2, 6, 12)
    assert torch.allclose(moved[2, 1], rotate(x[2, 0], r[1]))
    assert torch.allclose(rotate(x[0, 0], r), moved[0])


def test_derivatives_are_those_of_finite_differences() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 2, 5, 8, dtype=torch.float64, generator=g).requires_grad_(True)
    theta = torch.randn(2, 3, dtype=torch.float64, generator=g).requires_grad_(True)
    basis = so3_basis().double()

    def turned(x: Tensor, theta: Tensor) -> Tensor:
        return rotate(x, torch.matrix_exp(torch.einsum("ba,aij->bij", theta, basis)))

    assert torch.autograd.gradcheck(turned, (x, theta))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("height", [8, 9])
def test_derivatives_are_finite_where_a_pole_is_on_the_lattice(
    height: int, dtype: torch.dtype
) -> None:
    """Odd heights have a row on the equator, which quarter turns take through the poles."""
    x = torch.rand(1, height, 16, dtype=dtype, generator=torch.Generator().manual_seed(0))
    quarter = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # exactly
    for r in (
        torch.eye(3),
        quarter,
        quarter.T,
        rotation(0, math.pi / 2, 0),
        rotation(math.pi / 2, 0, 0),
    ):
        moved_by = r.to(dtype).clone().requires_grad_(True)
        moving = x.clone().requires_grad_(True)
        rotate(moving, moved_by).square().sum().backward()
        assert moved_by.grad is not None
        assert moving.grad is not None
        assert torch.isfinite(moved_by.grad).all()
        assert torch.isfinite(moving.grad).all()
        assert moving.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("x", "r"),
    [
        (torch.zeros(6, 12), torch.eye(3)),
        (torch.zeros(1, 6, 12), torch.eye(2)),
        (torch.zeros(1, 6, 12), torch.full((3, 3), math.nan)),
    ],
)
def test_what_cannot_be_rotated_is_refused(x: Tensor, r: Tensor) -> None:
    with pytest.raises(InvalidInput) as caught:
        rotate(x, r)
    assert caught.value.field == "rotations"


# Charts


def test_charts_on_the_equator_are_those_of_the_formula() -> None:
    """METHOD 3.3: a row of the cylinder is W/2π times the sine of the latitude."""
    pixels = EQUATOR.pixels(SHAPE, 14)
    assert pixels.shape == (3, 29, 29)
    for chart, centre in enumerate((20, 60, 100)):
        for r in range(-14, 15):
            latitude = math.asin(-r * 2 * math.pi / W)
            row = round((H - 1) / 2 - latitude * H / math.pi)
            expected = [row * W + (centre + c) % W for c in range(-14, 15)]
            assert pixels[chart, r + 14].tolist() == expected, r


def test_charts_go_round_and_repeat_the_poles() -> None:
    around = SphereAtlas((SphereChart(0, 0),), 3, 3)
    assert (around.pixels(SHAPE, 3)[0, 3] % W).tolist() == [117, 118, 119, 0, 1, 2, 3]
    far = around.pixels(SHAPE, 25)[0] // W  # the sphere's radius is 19.1 pixels
    assert far[:6].unique().tolist() == [0]
    assert far[-6:].unique().tolist() == [H - 1]


def test_what_is_put_back_on_the_lattice_is_cut_again() -> None:
    chart_index_map, pixels = EQUATOR.chart_index_map(SHAPE), EQUATOR.pixels(SHAPE, 14)
    assert chart_index_map.shape == (H, W)
    charts = torch.arange(3 * 29 * 29)
    assert torch.equal(chart_index_map.flatten()[pixels.flatten()], charts)
    # Elsewhere there is no chart.
    z = lattice(H, W)[..., 2]
    assert bool((chart_index_map[z.abs() * W / (2 * math.pi) > 14.5] == -1).all())
    assert chart_index_map[30].tolist().count(-1) == W - 3 * 29


def test_where_charts_overlap_the_nearest_centre_counts() -> None:
    close = SphereAtlas((SphereChart(0, 60), SphereChart(0, 90)), r_in=14, r_out=14)
    chart = close.chart_index_map(SHAPE)[30] // (29 * 29)
    assert chart[20:25].unique().tolist() == [0]
    assert chart[26:31].unique().tolist() == [1]


@pytest.mark.parametrize(("latitude", "longitude"), [(40, 75), (-65, 200), (90, 0)])
def test_a_chart_anywhere_is_that_of_the_field_turned_to_the_equator(
    latitude: int, longitude: int
) -> None:
    x = field()
    there = SphereAtlas((SphereChart(latitude, longitude),), 10, 10).pixels(SHAPE, 10)[0]
    turned = rotate(x, turn_to(math.radians(latitude), math.radians(longitude)).T)
    here = SphereAtlas((SphereChart(0, 0),), 10, 10).pixels(SHAPE, 10)[0]
    a, b = x.flatten()[there], turned.flatten()[here]
    # Both take the nearest pixel, up to 0.7 of one off.
    assert (a - b).abs().max() < 2 * 2 * math.pi / W
    assert (a - b).abs().mean() < 0.02
    assert a.std() > 0.1


def test_the_centre_is_the_nearest_pixel() -> None:
    g = torch.Generator().manual_seed(0)
    points = lattice(H, W).flatten(0, 1)
    for latitude, longitude in (
        torch.rand(20, 2, generator=g) * torch.tensor([120.0, 360.0])
    ).tolist():
        latitude -= 60
        found = int(SphereAtlas((SphereChart(latitude, longitude),), 2, 2).pixels(SHAPE, 0))
        centre = unit_vectors(
            torch.tensor(math.radians(latitude)).double(), torch.tensor(math.radians(longitude))
        )
        apart = (found // W - ((H - 1) / 2 - latitude * H / 180), found % W - longitude * W / 360)
        assert abs(apart[0]) <= 0.5 + 1e-5
        assert min(abs(apart[1]), W - abs(apart[1])) <= 0.5 + 1e-5
        distance = torch.arccos((points @ centre).clamp(-1, 1))
        assert float(distance[found]) <= float(distance.min()) + 1e-3


def test_turns_take_the_origin_to_the_centre_and_keep_east() -> None:
    r = turn_to(0.7, -2.0)
    assert torch.allclose(r @ r.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(r) == pytest.approx(1)
    centre = unit_vectors(torch.tensor(0.7, dtype=torch.float64), torch.tensor(-2.0))
    assert torch.allclose(r[:, 0], centre)
    assert r[2, 1] == 0  # east has no part along the axis


@pytest.mark.parametrize(
    "atlas",
    [
        SphereAtlas((), 2, 1),
        SphereAtlas((SphereChart(0, 0),), 2, 3),
        SphereAtlas((SphereChart(0, 0),), -1, -1),
        SphereAtlas((SphereChart(0, 0),), 2, 2, margin=-1),
        SphereAtlas((SphereChart(0, 0),), 20, 2),
    ],
)
def test_radii_that_are_none_are_refused(atlas: SphereAtlas) -> None:
    with pytest.raises(InvalidInput) as caught:
        atlas.check(SHAPE)
    assert caught.value.field.startswith("atlas.")
    SphereAtlas((SphereChart(0, 0),), 19, 2).check(SHAPE)


def test_sets_of_vectors_are_refused() -> None:
    with pytest.raises(InvalidInput):
        EQUATOR.check((10, 5, 3))


def requested(*charts: tuple[float, float]) -> SphereAtlas:
    """As a client asks for it."""
    centres = [{"latitude": north, "longitude": east} for north, east in charts]
    return parse_params(SphereAtlas, {"charts": centres, "r_in": 2, "r_out": 2}, "atlas.action")


@pytest.mark.parametrize(
    "chart", [(91.0, 0.0), (-90.5, 0.0), (math.nan, 0.0), (0.0, math.inf), (0.0, math.nan)]
)
def test_centres_that_are_no_points_are_refused(chart: tuple[float, float]) -> None:
    with pytest.raises(InvalidInput) as caught:
        requested((0, 0), chart)
    name = "longitude" if abs(chart[0]) <= 90 else "latitude"
    assert caught.value.field == f"atlas.action.params.charts[1].{name}"
    assert requested((90, -720), (-90, 0)).charts == (SphereChart(90, -720), SphereChart(-90, 0))
