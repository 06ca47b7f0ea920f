"""Fields on lattices at the icosahedral grid's pixels, and classes back on the lattice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atlas_worker.catalogue import parse_params
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.icosahedron import icosahedron
from atlas_worker.fields.lattice import Lattice
from atlas_worker.fields.sphere import lattice, nearest_pixel, unit_vectors
from atlas_worker.symmetry import IcosahedralGrid, IcosahedralInputs, action_on

R = 3


def regular(
    height: int = 19, width: int = 24, first: float = 0.0, south_first: bool = False
) -> Lattice:
    """With the poles, as ClimateNet's."""
    latitudes = torch.linspace(90, -90, height).double()
    longitudes = (first + torch.arange(width).double() * 360 / width + 180) % 360 - 180
    return Lattice(height, width, (latitudes.flip(0) if south_first else latitudes, longitudes))


def uneven() -> Lattice:
    latitudes = torch.tensor([-80.0, -45, -20, 0, 10, 30, 75]).double()
    return Lattice(7, 5, (latitudes, torch.tensor([10.0, 90, 150, 230, 300])))


LATTICES = {
    "no coordinates": Lattice(12, 24),
    "north first": regular(),
    "south first": regular(south_first=True),
    "from the date line": regular(first=-180.0),
    "from somewhere": regular(first=33.0),
    "uneven": uneven(),
}


def sampled(lattice: Lattice, field: Tensor, points: Tensor) -> Tensor:
    pixels, weights = lattice.bilinear(points)
    assert bool((weights >= 0).all())
    assert torch.allclose(weights.sum(0), torch.ones(len(points)))
    return (field.flatten()[pixels] * weights).sum(0)


@pytest.mark.parametrize("name", LATTICES)
def test_a_pixel_has_its_own_value_and_is_its_own_nearest(name: str) -> None:
    on = LATTICES[name]
    points = on.points().flatten(0, 1)
    field = torch.randn(*on.shape, generator=torch.Generator().manual_seed(0))
    away = on.latitudes.abs()[:, None].expand(on.shape).flatten() < 90  # a pole has no longitude
    assert torch.allclose(sampled(on, field, points)[away], field.flatten()[away], atol=1e-6)
    assert torch.equal(on.nearest(points)[away], torch.arange(field.numel())[away])


@pytest.mark.parametrize("name", LATTICES)
def test_what_is_linear_along_rows_and_columns_is_sampled_exactly(name: str) -> None:
    on = LATTICES[name]
    latitude = torch.rand(500, generator=torch.Generator().manual_seed(1)).double() * 180 - 90
    longitude = torch.rand(500, generator=torch.Generator().manual_seed(2)).double() * 360
    points = unit_vectors(latitude.deg2rad(), longitude.deg2rad())
    rows = on.latitudes[:, None].expand(on.shape).float()
    inside = latitude.clamp(float(on.latitudes.min()), float(on.latitudes.max()))
    assert torch.allclose(sampled(on, rows, points).double(), inside, atol=1e-4)
    # Along a row, a triangle wave that has its corners at two columns.
    start, corner = (
        on.longitudes[0],
        (on.longitudes[len(on.longitudes) // 2] - on.longitudes[0]) % 360,
    )

    def wave(degrees: Tensor) -> Tensor:
        along = (degrees - start) % 360
        return torch.where(along < corner, along / corner, (360 - along) / (360 - corner))

    columns = wave(on.longitudes).expand(on.shape).float()
    assert torch.allclose(sampled(on, columns, points).double(), wave(longitude), atol=1e-5)


def test_columns_go_round() -> None:
    on = regular(first=0.0)
    field = torch.zeros(on.shape)
    field[:, -1] = 1  # at 345 degrees
    east = torch.tensor([345.0, 348.75, 352.5, 356.25, 0.0]).double()
    points = unit_vectors(torch.zeros(5).double(), east.deg2rad())
    assert torch.allclose(
        sampled(on, field, points), torch.tensor([1, 0.75, 0.5, 0.25, 0]), atol=1e-6
    )
    assert (on.nearest(points) % 24)[[0, 1, 3, 4]].tolist() == [23, 23, 0, 0]


def test_without_coordinates_a_lattice_is_that_of_the_sphere() -> None:
    on, points = (
        Lattice(12, 24),
        torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double(),
    )
    points /= points.norm(dim=-1, keepdim=True)
    assert torch.allclose(on.points(), lattice(12, 24), atol=1e-12)
    assert torch.equal(on.nearest(points), nearest_pixel(points, 12, 24))


def test_the_grid_pixel_of_each_pixel_is_the_nearest_of_all() -> None:
    for on in (regular(), uneven()):
        found = on.nearest_grid_pixels(R)
        points = icosahedron(R).points
        cosines = torch.einsum("hwi,pi->hwp", on.points(), points)
        assert found.shape == on.shape
        best = cosines.max(-1).values
        assert torch.allclose(cosines.gather(-1, found[..., None])[..., 0], best, atol=1e-12)


@pytest.mark.parametrize(
    ("latitudes", "longitudes", "what"),
    [
        ([60.0, 0, -60], [0.0, 90, 180], "3"),
        ([60.0, 0, 10], [0.0, 90, 180, 270], "out of order"),
        ([100.0, 0, -60], [0.0, 90, 180, 270], "out of order"),
        ([60.0, 0, -60], [0.0, 180, 90, 270], "out of order"),
        ([60.0, 0, -60], [0.0, 120, 240, 360], "out of order"),
        ([60.0, float("nan"), -60], [0.0, 90, 180, 270], "finite"),
        ([30.0, 20, 10], [0.0, 90, 180, 270], "poles"),
        ([60.0, 0, -60], [0.0, 10, 20, 30], "round"),
    ],
)
def test_coordinates_of_no_lattice_of_the_sphere_are_refused(
    latitudes: list[float], longitudes: list[float], what: str
) -> None:
    with pytest.raises(InvalidInput, match=what) as caught:
        Lattice(3, 4, (torch.tensor(latitudes), torch.tensor(longitudes)))
    assert caught.value.field == "dataset.coordinates"


def test_inputs_are_samples_of_the_fields() -> None:
    on, grid = regular(), IcosahedralGrid(2)
    g = torch.Generator().manual_seed(0)
    fields, labels = (
        torch.randn(5, 3, *on.shape, generator=g),
        torch.randint(3, (5, 1, *on.shape), generator=g),
    )
    points = icosahedron(2).points
    for materialise in (False, True):
        x = IcosahedralInputs(fields, grid, on, materialise=materialise)
        y = IcosahedralInputs(labels.byte(), grid, on, labels=True, materialise=materialise)
        assert (len(x), x.charts, x.shape, y.shape) == (5, 1, (1, 3, 162), (1, 1, 162))
        for indices in (torch.tensor([3, 0, 3]), torch.tensor([0, 4])):
            drawn, classes = x.draw(indices, None), y.draw(indices, None)
            assert drawn.shape == (len(indices), 1, 3, 162)
            for b, i in enumerate(indices.tolist()):
                for c in range(3):
                    assert torch.allclose(
                        drawn[b, 0, c], sampled(on, fields[i, c], points), atol=1e-6
                    )
                assert torch.equal(
                    classes[b, 0, 0], labels[i, 0].flatten()[on.nearest(points)].byte()
                )
        kept = (5 * 3 * 162 * 4, 5 * 162) if materialise else (0, 0)
        assert (x.memory_bytes, y.memory_bytes) == kept


def test_what_is_kept_is_read_once() -> None:
    on, grid = regular(), IcosahedralGrid(1)
    fields = torch.randn(4, 1, *on.shape)
    x = IcosahedralInputs(fields, grid, on, materialise=True)
    first = x.draw(torch.tensor([2, 1]), None)
    fields[1:3] = torch.nan
    assert torch.equal(x.draw(torch.tensor([1, 2]), None), first.flip(0))
    assert x.draw(torch.tensor([0, 1]), None).isfinite().all()


def test_samples_are_drawn_where_they_are_wanted() -> None:
    there = torch.device("meta")
    for materialise in (False, True):
        x = IcosahedralInputs(
            torch.zeros(2, 3, 12, 24),
            IcosahedralGrid(1),
            Lattice(12, 24),
            materialise=materialise,
            device=there,
        )
        drawn = x.draw(torch.tensor([1, 0]), None)
        assert (x.device, drawn.device, tuple(drawn.shape)) == (there, there, (2, 1, 3, 42))


def test_no_matrix_acts_on_the_whole_grid() -> None:
    with pytest.raises(InvalidInput) as caught:
        action_on(IcosahedralGrid(2))
    assert caught.value.field == "atlas"
    for shape in ((4, 3, 2), (4, 3)):
        with pytest.raises(InvalidInput):
            IcosahedralGrid(2).check(shape)
    with pytest.raises(InvalidInput) as caught:
        parse_params(IcosahedralGrid, {"resolution": 11}, "atlas.action")
    assert caught.value.field == "atlas.action.params.resolution"
