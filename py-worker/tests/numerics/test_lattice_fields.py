"""Fields of 1 and 3 dimensions: resampling, charts, axes of arrays, and their network."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import LatticeAtlas, Site
from atlas_worker.fields.resample import Interpolation, crop, transform
from atlas_worker.interfaces import Signature
from atlas_worker.predictors.lattice import LatticeCnn, LatticeCnnParams, make_lattice_cnn
from atlas_worker.symmetry import EquivarianceObjective, FieldInputs, action_on, lie
from atlas_worker.symmetry.manifold import make_lattice

MODES: tuple[Interpolation, ...] = ("bilinear", "nearest", "bicubic")
TURN = torch.tensor([[0.0, 0.3, -0.2], [-0.3, 0.0, 0.4], [0.2, -0.4, 0.0]]).double()


def places(radius: int) -> Tensor:
    axis = torch.arange(-radius, radius + 1).double()
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))


def smooth(u: Tensor) -> Tensor:
    return torch.sin(0.3 * u[0] + 0.2 * u[1]) * torch.cos(0.25 * u[2])


@pytest.mark.parametrize("mode", MODES)
def test_turns_of_the_lattice_are_exact_in_space(mode: Interpolation) -> None:
    x = torch.randn(2, 1, 9, 9, 9, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(transform(x, torch.eye(3).double(), 3, mode), crop(x, 3, 3), atol=1e-9)
    # u → (u₂, u₀, u₁) carries the first axis to the second.
    g = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0]]).double()
    moved = transform(x, g, 3, mode)
    assert torch.allclose(moved, crop(x, 3, 3).permute(0, 1, 4, 2, 3), atol=1e-9)
    flip = torch.diag(torch.tensor([1, -1, 1])).double()
    assert torch.allclose(transform(x, flip, 4, mode), x.flip(3), atol=1e-9)


@pytest.mark.parametrize(("mode", "error"), [("bilinear", 0.03), ("bicubic", 0.008)])
def test_fields_in_space_are_turned_to_the_closed_form(mode: Interpolation, error: float) -> None:
    g = lie.expm(TURN)
    moved = transform(smooth(places(12))[None], g, 4, mode)
    inverse = torch.linalg.inv(g)
    expected = smooth(torch.einsum("ij,jabc->iabc", inverse, places(4)))
    assert (moved[0] - expected).abs().max() < error


def test_fields_of_one_dimension_are_reflected_and_scaled() -> None:
    x = torch.randn(3, 2, 1, 21, generator=torch.Generator().manual_seed(0)).double()
    mirror = torch.tensor([[-1.0]]).double()
    for mode in MODES:
        assert torch.allclose(transform(x, mirror, 5, mode), crop(x, 5, 1).flip(-1), atol=1e-9)
    line = torch.arange(-10, 11).double().expand(1, 1, 1, -1)
    assert torch.allclose(transform(line, 2 * mirror, 4), crop(line, 4, 1) / -2)


def test_shapes_that_do_not_fit_are_refused() -> None:
    for shape, n in itertools.product([(1, 9, 9), (1, 1, 9), (1, 9, 9, 8)], [3]):
        with pytest.raises(InvalidInput):
            transform(torch.zeros(shape), torch.eye(n), 2)
    with pytest.raises(InvalidInput):
        transform(torch.zeros(1, 9, 9), torch.eye(1), 2)


def blur(x: Tensor, charts: Tensor | None) -> Tensor:
    """An isotropic map of fields in space ``[B, C, 1, s, s, s]``."""
    kernel = torch.exp(-torch.arange(-3, 4).to(x).square() / 2)
    kernel /= kernel.sum()
    y = x.flatten(0, 2)[:, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 7
        y = functional.conv3d(y, kernel.view(shape), padding=[3 * (axis == a) for a in range(3)])
    return y.reshape(x.shape).square()


def test_an_isotropic_map_has_the_rotations_of_space_and_no_stretches() -> None:
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(12, 1, 21, 21, 21, generator=generator)
    fields = functional.avg_pool3d(fields, 5, 1, 2, count_include_pad=False) * 10
    atlas = make_lattice(LatticeAtlas(n=3, charts=(Site(10, 10, 10),), r_in=8, r_out=3))
    atlas.check(fields.shape)
    objective = EquivarianceObjective(FieldInputs(fields, atlas), action_on(atlas), lambda: blur)
    batch = objective.batch(torch.arange(12))
    turn = lie.expm(TURN).float()
    stretch = torch.diag(torch.tensor([2.0, 1.0, 0.5]))
    errors = [objective.errors(batch, g.expand(12, 1, 3, 3)) for g in (turn, stretch)]
    kept, broken = ((e.distance / e.displacement).mean() for e in errors)
    assert kept < broken / 3
    assert objective.n == 3


def test_vectors_turn_with_the_space() -> None:
    atlas = make_lattice(
        LatticeAtlas(n=3, charts=(Site(4, 4, 4),), r_in=4, r_out=2, inputs_as="S+V")
    )
    x = torch.ones(1, 1, 4, 9, 9, 9)
    g = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    x[:, :, 1], x[:, :, 2], x[:, :, 3] = 1, 2, 3
    moved = action_on(atlas).act_in(g.expand(1, 1, 3, 3), x)
    assert moved[0, 0, :, 4, 4, 4].tolist() == [1, 3, 1, 2]


@pytest.mark.parametrize(
    ("shape", "axes", "arranged"),
    [
        ((8, 2, 30), "n,c,x", [8, 2, 1, 30]),
        ((8, 30), "n,x", [8, 1, 1, 30]),
        ((8, 2, 5, 6, 7), "", [8, 2, 5, 6, 7]),
        ((8, 5, 6, 7, 2), "n,z,y,x,c", [8, 2, 5, 6, 7]),
        ((8, 5, 6, 7), "n,z,y,x", [8, 1, 5, 6, 7]),
    ],
)
def test_axes_name_fields_of_any_dimension(
    shape: tuple[int, ...], axes: str, arranged: list[int]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tensors = {"inputs": x, "targets": x.clone()}
    made = ArraysDataset(
        ArraysParams(axes=axes), seed=0, device=torch.device("cpu"), tensors=tensors
    )
    assert list(made.inputs.shape) == list(made.targets.shape) == arranged


def test_axes_of_space_that_do_not_fit_are_refused() -> None:
    for shape, axes in (((8, 5, 6), "n,z,x"), ((8, 2, 2, 30), "n,c,x"), ((8, 9, 9, 9, 3), "")):
        tensors = {"inputs": torch.randn(shape), "targets": torch.randn(shape)}
        with pytest.raises(InvalidInput) as refused:
            ArraysDataset(
                ArraysParams(axes=axes), seed=0, device=torch.device("cpu"), tensors=tensors
            )
        assert refused.value.field == "dataset.source.params.axes"


def test_charts_that_leave_the_lattice_are_refused() -> None:
    atlas = LatticeAtlas(n=3, charts=(Site(12, 12, 3),), r_in=5, r_out=2)
    with pytest.raises(InvalidInput, match=r"chart 0 at \(3, 12, 12\)"):
        atlas.check((10, 1, 24, 24, 24))
    with pytest.raises(InvalidInput):
        atlas.check((10, 1, 24, 24))
    with pytest.raises(InvalidInput):
        make_lattice(LatticeAtlas(n=2, charts=(Site(12),), r_in=5, r_out=2))


@pytest.mark.parametrize(("n", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_the_network_computes_the_middle_of_its_output_alone(n: int, stride: int) -> None:
    signature = Signature("lattice", 2, (3, *([1, 40] if n == 1 else [40] * 3)), 2, radius=5)
    params = LatticeCnnParams(width=4, layers=2, stride=stride)
    seed = torch.Generator().manual_seed(0)
    net = make_lattice_cnn(params, signature=signature, tensors={}, seed=seed)
    assert isinstance(net, LatticeCnn)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seed))
    size = 2 * (5 + net.halo) + 1
    lattice = [1, size] if n == 1 else [size] * 3
    x = torch.randn(2, 2, 3, *lattice, generator=seed)
    whole = net(x)
    assert list(whole.shape[2:]) == [2, *([1, 11] if n == 1 else [11] * 3)]
    assert torch.allclose(net(x, radius=2), crop(whole, 2, n), atol=1e-5)
    one = net(x[:, 1:], torch.tensor([1]))
    assert torch.allclose(one, whole[:, 1:], atol=1e-5)
