"""The icosahedral grid, and its layers, which commute with the icosahedron's 60 rotations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.icosahedron import (
    DIRECTIONS,
    Icosahedron,
    icosahedron,
    pixel_count,
    rotate,
    rotations,
    vertices,
)
from atlas_worker.predictors.icosahedral import ConstantConv, HexConv, OrientationNorm, Upsample

RESOLUTIONS = [0, 1, 2, 3]
R = 2
"""Of the features that layers read."""


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def noise(
    resolution: int, orientations: int, channels: int = 2, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Features ``[2, channels, O, P]`` without symmetry, nor equal orientations at vertices."""
    shape = (2, channels, orientations, pixel_count(resolution))
    return torch.randn(*shape, generator=seed(1)).to(dtype)


def distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def interior(grid: Icosahedron) -> Tensor:
    """Pixels with six neighbours."""
    return (grid.neighbours[:, 5] >= 0).nonzero()[:, 0]


# Geometry


def test_the_vertices_are_the_icosahedrons() -> None:
    ends = vertices()
    cosines = ends @ ends.T
    assert torch.allclose(cosines.diagonal(), torch.ones(12, dtype=torch.float64))
    # Each has its antipode, five neighbours at arctan 2, and five at arctan 2 from the antipode.
    expected = torch.tensor(
        [-1.0, *[-math.sqrt(0.2)] * 5, *[math.sqrt(0.2)] * 5, 1.0], dtype=torch.float64
    )
    assert torch.allclose(cosines.sort(-1).values, expected.expand(12, -1))


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_pixels_are_distinct_points_of_the_sphere(resolution: int) -> None:
    grid = icosahedron(resolution)
    assert grid.points.shape == (pixel_count(resolution), 3) == (10 * 4**resolution + 2, 3)
    assert torch.allclose(
        grid.points.norm(dim=-1), torch.ones(len(grid), dtype=torch.float64), atol=1e-15
    )
    distance = distances(grid.points, grid.points) + 9 * torch.eye(len(grid), dtype=torch.float64)
    # An edge of the icosahedron subtends arctan 2; bisected, at a vertex it stays the shortest.
    assert float(distance.min()) == pytest.approx(2 * math.sin(math.atan(2) / 2**resolution / 2))
    assert distances(vertices(), grid.points[grid.vertices]).min(1).values.max() < 1e-12
    # Antipodes and the centre of mass, as every orbit has them.
    assert distances(-grid.points, grid.points).min(1).values.max() < 1e-12
    assert grid.points.sum(0).abs().max() < 1e-12


def test_edges_are_bisected() -> None:
    grid = icosahedron(R)
    chart = grid.points[:-2].view(5, grid.rows, 2 * grid.rows, 3)
    for c in range(5):
        # Along the first row, from the upper ring to the lower one, in equal steps.
        angles = (chart[c, 0, :-1] * chart[c, 0, 1:]).sum(-1).acos()
        assert torch.allclose(angles, torch.full_like(angles, math.atan(2) / grid.rows))


@pytest.mark.parametrize("resolution", [1, 2, 3])
def test_coarse_pixels_are_those_in_even_rows_and_columns(resolution: int) -> None:
    coarse, fine = icosahedron(resolution - 1), icosahedron(resolution)
    n = fine.rows
    even = torch.arange(10 * n * n).view(5, n, 2 * n)[:, ::2, ::2].flatten()
    assert torch.equal(fine.points[even], coarse.points[:-2])
    assert torch.equal(fine.points[-2:], torch.tensor([[0, 0, 1], [0, 0, -1]], dtype=torch.float64))


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_pixels_have_six_neighbours_and_vertices_five(resolution: int) -> None:
    grid = icosahedron(resolution)
    found = [set(row[row >= 0].tolist()) for row in grid.neighbours]
    assert sorted(map(len, found)) == [5] * 12 + [6] * (len(grid) - 12)
    assert [p for p, near in enumerate(found) if len(near) == 5] == grid.vertices.tolist()
    assert all(p in found[q] for p, near in enumerate(found) for q in near)
    # They are the nearest pixels.
    distance = torch.cdist(grid.points, grid.points)
    for p, near in enumerate(found):
        assert set(distance[p].argsort()[1 : len(near) + 1].tolist()) == near
    # And one edge is no more than a little longer than another.
    edges = distance[torch.arange(len(grid))[:, None], grid.neighbours][grid.neighbours >= 0]
    assert float(edges.max() / edges.min()) < 1.2


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_neighbours_are_counterclockwise_at_about_60_degrees(resolution: int) -> None:
    grid = icosahedron(resolution)
    for p in range(len(grid)):
        near = grid.neighbours[p][grid.neighbours[p] >= 0]
        up = grid.points[p]
        arms = grid.points[near] - (grid.points[near] @ up)[:, None] * up
        arms = arms / arms.norm(dim=-1, keepdim=True)
        after = arms.roll(-1, 0)
        angle = torch.atan2(torch.linalg.cross(arms, after) @ up, (arms * after).sum(-1))
        assert float(angle.sum()) == pytest.approx(2 * math.pi)
        assert float((angle * len(near) / (2 * math.pi) - 1).abs().max()) < 0.2


def test_within_a_chart_neighbours_are_next_in_rows_and_columns() -> None:
    grid = icosahedron(3)
    n = grid.rows
    pixels = torch.arange(10 * n * n).view(5, n, 2 * n)
    inner = pixels[:, 1:-1, 1:-1]
    for d, (i, j) in enumerate(DIRECTIONS):
        there = pixels[:, 1 + i : n - 1 + i, 1 + j : 2 * n - 1 + j]
        assert torch.equal(grid.neighbours[inner, d], there)
        assert bool((grid.turns[inner, d] == 0).all())


@pytest.mark.parametrize("resolution", [1, 2])
def test_turns_are_those_of_parallel_transport_on_the_sphere(resolution: int) -> None:
    grid = icosahedron(resolution)
    vertex = set(grid.vertices.tolist())
    seen = set()
    for p in interior(grid).tolist():
        for d, q in enumerate(grid.neighbours[p].tolist()):
            turn = int(grid.turns[p, d])
            if q in vertex:
                assert turn == 0
                continue
            a, b = grid.points[p], grid.points[q]
            # Rotating a to b along the great circle takes p's first direction to q's turn-th.
            axis = torch.linalg.cross(a, b)
            k = torch.stack(
                [torch.linalg.cross(axis, e) for e in torch.eye(3, dtype=torch.float64)], -1
            )
            moved = torch.eye(3, dtype=torch.float64) + k + k @ k / (1 + a @ b)
            arm = moved @ (grid.points[grid.neighbours[p, 0]] - a)
            arms = grid.points[grid.neighbours[q]] - b
            arms = arms - (arms @ b)[:, None] * b
            arm = arm - (arm @ b) * b
            cosines = arms @ arm / (arms.norm(dim=-1) * arm.norm())
            assert int(cosines.argmax()) == turn
            back = grid.neighbours[q].tolist().index(p)
            assert (turn + int(grid.turns[q, back])) % 6 == 0
            seen.add(turn)
    assert seen == {0, 1, 5}


def test_a_way_around_a_vertex_turns_by_60_degrees_and_one_around_a_pixel_not() -> None:
    grid = icosahedron(R)
    vertex = set(grid.vertices.tolist())

    def around(ring: list[int]) -> int:
        total = 0
        for p, q in zip(ring, ring[1:] + ring[:1], strict=True):
            total += int(grid.turns[p, grid.neighbours[p].tolist().index(q)])
        return total % 6

    for p in range(len(grid)):
        ring = [q for q in grid.neighbours[p].tolist() if q >= 0]
        if p in vertex:
            assert around(ring) in (1, 5)
        elif not vertex & set(ring):
            assert around(ring) == 0


@pytest.mark.parametrize("resolution", [-1, 11])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        icosahedron(resolution)
    assert caught.value.field == "resolution"


# Rotations


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_the_60_rotations_take_pixels_to_pixels(resolution: int) -> None:
    grid, group = icosahedron(resolution), rotations(resolution)
    assert group.matrices.shape == (60, 3, 3)
    assert torch.allclose(
        group.matrices @ group.matrices.mT, torch.eye(3, dtype=torch.float64), atol=1e-14
    )
    assert torch.allclose(torch.linalg.det(group.matrices), torch.ones(60, dtype=torch.float64))
    apart = torch.cdist(group.matrices.flatten(1), group.matrices.flatten(1))
    assert float((apart + 9 * torch.eye(60)).min()) > 0.5
    # Traces of one identity, 15 half turns, 20 thirds, 12 fifths, 12 two fifths.
    traces = group.matrices.diagonal(dim1=1, dim2=2).sum(-1)
    for angle, count in ((0, 1), (180, 15), (120, 20), (72, 12), (144, 12)):
        assert int(((traces - 1 - 2 * math.cos(math.radians(angle))).abs() < 1e-9).sum()) == count
    assert torch.equal(group.images.sort(-1).values, torch.arange(len(grid)).expand(60, -1))
    moved = torch.einsum("gij,pj->gpi", group.matrices, grid.points)
    assert float((moved - grid.points[group.images]).abs().max()) < 1e-12


def test_rotations_turn_all_directions_alike() -> None:
    grid, group = icosahedron(R), rotations(R)
    p = interior(grid)
    for image, gauge in zip(group.images, group.gauge, strict=True):
        for d in range(6):
            expected = image[grid.neighbours[p, d]]
            assert torch.equal(grid.neighbours[image[p], (d + gauge[p]) % 6], expected)


@pytest.mark.parametrize("orientations", [1, 6])
def test_rotations_of_features_compose(orientations: int) -> None:
    x, matrices = noise(R, orientations), rotations(R).matrices
    assert torch.equal(rotate(x, R, 0), x)
    for g, h in ((3, 17), (22, 41), (59, 8), (30, 30)):
        product = matrices[h] @ matrices[g]
        gh = int((matrices - product).flatten(1).norm(dim=1).argmin())
        assert torch.equal(rotate(rotate(x, R, g), R, h), rotate(x, R, gh))


def test_features_of_another_grid_are_refused() -> None:
    with pytest.raises(InvalidInput):
        rotate(torch.zeros(1, 1, 1, 641), 3, 1)
    with pytest.raises(InvalidInput):
        rotate(torch.zeros(1, 1, 5, 642), 3, 1)
    for layer in (HexConv(2, 1, 1, seed()), ConstantConv(2, 1, 1, seed()), Upsample(2)):
        with pytest.raises(InvalidInput) as caught:
            layer(torch.zeros(1, 1, 3, 162))
        assert caught.value.field == "features"
    with pytest.raises(InvalidInput):
        HexConv(0, 1, 1, seed(), stride=2)


# Layers

LAYERS: dict[str, tuple[Callable[[int], nn.Module], int, int]] = {
    "scalar": (lambda r: HexConv(r, 2, 3, seed(), orientations=1), 1, 0),
    "regular": (lambda r: HexConv(r, 2, 3, seed()), 6, 0),
    "own": (lambda r: HexConv(r, 2, 3, seed(), kernels="own"), 6, 0),
    "constant": (lambda r: ConstantConv(r, 2, 3, seed()), 1, 0),
    "scalar, stride 2": (lambda r: HexConv(r, 2, 3, seed(), orientations=1, stride=2), 1, -1),
    "regular, stride 2": (lambda r: HexConv(r, 2, 3, seed(), stride=2), 6, -1),
    "own, stride 2": (lambda r: HexConv(r, 2, 3, seed(), kernels="own", stride=2), 6, -1),
    "constant, stride 2": (lambda r: ConstantConv(r, 2, 3, seed(), stride=2), 1, -1),
    "scalar upsampled": (lambda r: Upsample(r, 1), 1, 1),
    "regular upsampled": (lambda r: Upsample(r), 6, 1),
    "scalar norm": (lambda r: OrientationNorm(2), 1, 0),
    "regular norm": (lambda r: OrientationNorm(2), 6, 0),
}


def worst(layer: nn.Module, x: Tensor, resolution: int, result: int) -> float:
    """``max |f(g x) − g f(x)|`` over the 60 rotations."""
    with torch.no_grad():
        y = layer(x)
        return max(
            float((layer(rotate(x, resolution, g)) - rotate(y, result, g)).abs().max())
            for g in range(60)
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", LAYERS)
def test_rotations_commute_with_every_layer(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    make, orientations, step = LAYERS[name]
    for resolution in (1, 2) if dtype == torch.float64 or step == 1 else (3,):
        layer = make(resolution).to(dtype)
        for parameter in layer.parameters():
            nn.init.normal_(parameter, generator=seed(2))
            parameter.data /= math.sqrt(parameter[0].numel())
        x = noise(resolution, orientations, dtype=dtype)
        assert worst(layer, x, resolution, resolution + step) < tolerance
        if isinstance(layer, OrientationNorm):
            assert worst(layer.eval(), x, resolution, resolution) < tolerance
        y = layer(x).detach()
        assert y.shape[-1] == pixel_count(resolution + step)
        assert float(y.std()) > 0.1
        if y.shape[2] == 6 and not isinstance(layer, OrientationNorm):
            # One value at vertices, several fake_device.
            ends = icosahedron(resolution + step).vertices
            spread = (y - y.mean(2, keepdim=True)).abs().amax((0, 1, 2))
            assert float(spread[ends].max()) < tolerance
            if resolution + step > 0:
                assert float(spread[interior(icosahedron(resolution + step))].min()) > 0.01


class Both(nn.Module):
    """Down and up again, as in a U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = HexConv(3, 2, 4, seed(3), orientations=1)
        self.down = HexConv(3, 4, 4, seed(4), stride=2)
        self.up = Upsample(2)
        self.out = HexConv(3, 8, 3, seed(5), kernels="own")
        self.norms = nn.ModuleList(OrientationNorm(4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.norms[0](self.lift(x)).relu()
        coarse = self.norms[1](self.down(fine)).relu()
        y: Tensor = self.out(torch.cat([fine, self.up(coarse)], 1)).sum(2, keepdim=True)
        return y


def test_rotations_commute_with_a_network() -> None:
    net = Both().double()
    x = noise(3, 1)
    assert worst(net, x, 3, 3) < 1e-10
    assert worst(net.float(), x.float(), 3, 3) < 1e-5
    net(x.float()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.down.parameters())


@pytest.mark.parametrize(
    ("name", "resolution"),
    [(n, 1) for n in LAYERS] + [("scalar upsampled", 0), ("regular upsampled", 0)],
)
def test_derivatives_are_those_of_differences(name: str, resolution: int) -> None:
    make, orientations, _ = LAYERS[name]
    layer = make(resolution).double()
    x = noise(resolution, orientations)[:1].requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x, *_: layer(x), (x, *layer.parameters()), fast_mode=True
    )
    # Features are in memory as they come, whatever that is.
    turned = x.detach().permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    assert torch.equal(layer(turned), layer(x))


@pytest.mark.parametrize("table", ["border", "spokes", "vertices", "relative", "slots", "target"])
def test_a_wrong_table_breaks_it(table: str) -> None:
    layer = HexConv(R, 2, 3, seed()).double()
    x = noise(R, 6)
    assert worst(layer, x, R, R) < 1e-10
    within = layer.charts if hasattr(layer.charts, table) else layer
    wrong = getattr(within, table).clone()
    if table == "border":  # one place of one chart, in frames turned by 60°
        wrong[2, 5] = wrong[2, 5].roll(1, 0)
    elif table == "spokes":
        wrong[3, 2] = wrong[3, 2].roll(1, 0)
    elif table in ("vertices", "target"):
        wrong[0] += 1
    elif table == "relative":
        wrong[0] = wrong[0].roll(1)
    else:
        wrong[1] = wrong[1].flip(0)
    setattr(within, table, wrong)
    assert worst(layer, x, R, R) > 1e-2


def test_an_ordinary_kernel_without_frames_breaks_it() -> None:
    layer = HexConv(R, 2, 3, seed(), orientations=1).double()
    with torch.no_grad():
        y = layer(noise(R, 1))[
            :, :, :1
        ]  # one orientation alone, as a convolution on the charts would have
        turned = layer(rotate(noise(R, 1), R, 7))[:, :, :1]
    assert float((turned - rotate(y, R, 7)).abs().max()) > 0.1


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["scalar", "each", "own", "constant"])
def test_convolutions_are_those_of_the_formula(kind: str, stride: int) -> None:
    """Sums over neighbours, one by one, by the tables: without charts, borders or planes."""
    grid = icosahedron(R)
    orientations = 6 if kind in ("each", "own") else 1
    x = noise(R, orientations, channels=1)
    layer: HexConv | ConstantConv
    if kind == "constant":
        layer = ConstantConv(R, 1, 1, seed(), stride=stride).double()  # type: ignore[arg-type]
        w = layer.weight[0, 0].expand(1, 7)
    else:
        kernels = "own" if kind == "own" else "each"
        layer = HexConv(
            R, 1, 1, seed(), orientations=orientations, stride=stride, kernels=kernels
        ).double()  # type: ignore[arg-type]
        w = layer.weight[0, 0]
    layer.bias.data.fill_(0.3)
    if orientations == 6:
        x[..., grid.vertices] = x[..., grid.vertices].mean(2, keepdim=True)
    y, f = layer(x)[0, 0].tolist(), x[0, 0].tolist()
    w, near, turns = w.tolist(), grid.neighbours.tolist(), grid.turns.tolist()
    kept = torch.arange(len(grid))
    if stride == 2:
        n = grid.rows
        kept = torch.cat([kept[:-2].view(5, n, 2 * n)[:, ::2, ::2].flatten(), kept[-2:]])
    for at, p in enumerate(kept.tolist()):
        for k in range(len(y)):
            total = 0.3
            pairs = [(k, 0)] if kind == "own" else [(o, (o - k) % 6) for o in range(orientations)]
            for o, relative in pairs:
                weights = w[relative if len(w) == 6 else 0]
                total += weights[6] * f[o][p]
                for d in range(6):
                    # At a vertex the mean of the five, from each of six directions.
                    seen = [e for e in range(6) if near[p][e] >= 0] if near[p][5] < 0 else [d]
                    values = [f[(o - d + e + turns[p][e]) % orientations][near[p][e]] for e in seen]
                    total += weights[(d - k) % 6] * sum(values) / len(seen)
            assert total == pytest.approx(y[k][at], abs=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_constants_stay_constant_vertices_included(stride: int) -> None:
    for make in (
        lambda: HexConv(R, 2, 3, seed(), orientations=1, stride=stride),  # type: ignore[arg-type]
        lambda: ConstantConv(R, 2, 3, seed(), stride=stride),  # type: ignore[arg-type]
    ):
        y = make().double()(torch.ones(1, 2, 1, 162, dtype=torch.float64))
        assert torch.allclose(y, y[..., :1, :1].expand_as(y))
    up = Upsample(R, 1)(torch.ones(1, 1, 1, 162))
    assert bool((up == 1).all())


def test_upsampling_is_linear_between_neighbours() -> None:
    coarse, fine = icosahedron(R), icosahedron(R + 1)
    y = Upsample(R, 1)(coarse.points.T[None, :, None])[0, :, 0].T
    # Chords' midpoints, which bisection has put out to the sphere.
    assert torch.allclose(y / y.norm(dim=-1, keepdim=True), fine.points, atol=1e-14)


def test_the_same_weights_in_all_directions_are_the_constant_kernel() -> None:
    constant = ConstantConv(R, 2, 3, seed()).double()
    layer = HexConv(R, 2, 3, seed(), orientations=1).double()
    layer.weight.data[:] = constant.weight.data[:, :, None, None]
    x = noise(R, 1)
    y = layer(x)
    assert torch.allclose(y, constant(x).expand_as(y), atol=1e-12)


def test_own_kernels_are_those_of_each_with_zeros_between_orientations() -> None:
    own, each = HexConv(R, 2, 3, seed(), kernels="own").double(), HexConv(R, 2, 3, seed()).double()
    each.weight.data.zero_()[:, :, :1] = own.weight.data
    assert torch.allclose(own(noise(R, 6)), each(noise(R, 6)), atol=1e-12)


def test_norms_have_the_statistics_of_the_orientations_mean() -> None:
    norm, usual = OrientationNorm(2), nn.BatchNorm1d(2)
    x = 3 * noise(R, 6, dtype=torch.float32) + 2
    assert torch.allclose(norm(x).mean(2), usual(x.mean(2)), atol=1e-5)
    assert torch.equal(norm.running_var, usual.running_var)
    assert torch.allclose(norm.eval()(x).mean(2), usual.eval()(x.mean(2)), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "weights"),
    [
        (HexConv(R, 16, 32, seed(), orientations=1), 7 * 16 * 32),
        (HexConv(R, 16, 32, seed(), kernels="own"), 7 * 16 * 32),
        (HexConv(R, 16, 32, seed()), 42 * 16 * 32),
        (ConstantConv(R, 16, 32, seed()), 16 * 32),
        (Upsample(R), -32),
    ],
)
def test_number_of_weights(layer: nn.Module, weights: int) -> None:
    assert sum(p.numel() for p in layer.parameters()) == weights + 32


def test_the_published_numbers_are_7_weights_and_1_for_each_pair_of_channels() -> None:
    """METHOD 5.3: 765,945 and 111,321 weights; a bias and a norm's two for each channel."""
    down = [(16, 16), (16, 32), (32, 64), (64, 128), (128, 256)]
    up = [(256 + 128, 128), (128 + 64, 64), (64 + 32, 32), (32 + 16, 16), (16, 3)]
    pairs = sum(a * b for a, b in down + up)
    rest = 3 * sum(b for _, b in down + up)
    assert (7 * pairs + rest, pairs + rest) == (765_945, 111_321)


def test_tables_move_with_the_layer_but_are_not_saved() -> None:
    layer = HexConv(R, 2, 3, seed())
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert {name for name, _ in layer.named_buffers()} >= {
        "charts.border",
        "charts.spokes",
        "slots",
    }
