"""Audits name the layer in which an equivariance is lost, and none where it is kept."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.predictors import make_predictor
from atlas_worker.predictors.auditing import audit_predictor
from atlas_worker.predictors.foreign import Foreign, Modules
from atlas_worker.predictors.taps import ForeignRunner, Tapped
from atlas_worker.symmetry import VectorSpace
from atlas_worker.symmetry.ambient import Ambient
from atlas_worker.symmetry.audit import Audit, audit
from atlas_worker.symmetry.features import FeatureType
from atlas_worker.symmetry.planar import PlanarAction
from atlas_worker.symmetry.vectors import VectorAction

CPU = torch.device("cpu")


class Mix(nn.Module):
    """A linear map of the channels of vectors, with an offset that no vector has."""

    def __init__(self, inputs: int, outputs: int, offset: float = 0.0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(inputs * outputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, generator=draw) / inputs**0.5)
        self.offset = nn.Parameter(offset * torch.randn(outputs, 3, generator=draw))

    def forward(self, v: Tensor) -> Tensor:
        return torch.einsum("oc,bcn->bon", self.weight, v) + self.offset


class Gate(nn.Module):
    def forward(self, v: Tensor) -> Tensor:
        return v * torch.sigmoid(v.square().sum(-1, keepdim=True))


class First(nn.Module):
    def forward(self, v: Tensor) -> Tensor:
        return v[:, 0]


def network(*offsets: float) -> nn.Sequential:
    a, b, c = offsets
    return nn.Sequential(Mix(2, 6, a), Gate(), Mix(6, 6, b), Gate(), Mix(6, 1, c), First()).eval()


def turns() -> Tensor:
    b = torch.zeros(3, 3, dtype=torch.float64)
    b[0, 1], b[1, 0] = -1, 1
    turned = [torch.matrix_exp(t * b) for t in (0.2, 1.0)]
    turned.append(torch.matrix_exp(torch.roll(b, (1, 1), (0, 1))))
    return torch.stack(turned)


def look(net: nn.Module, elements: Tensor, type_out: str = "V") -> Audit:
    x = torch.randn(200, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    foreign = Foreign(Modules([net]), "chart", 0, 1).eval()
    action = VectorAction(3, rho_in=FeatureType("V", 3), rho_out=FeatureType(type_out, 3))
    return audit(ForeignRunner(foreign, CPU), action, x, elements, Ambient.linear(3))


def named(found: Audit) -> list[str]:
    return [layer.name for layer in found.layers if layer.breaks]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_names_the_layer_with_an_offset(at: int) -> None:
    found = look(network(*(0.5 * (i == at) for i in range(3))), turns())
    assert found.broken
    assert named(found) == [str(2 * at)]
    before = found.layers[: 2 * at]
    assert all(max(layer.errors) < 1e-5 for layer in before)
    assert all(layer.moved_as == "6V" for layer in before)


def test_names_no_layer_of_an_equivariant_network() -> None:
    found = look(network(0.0, 0.0, 0.0), turns())
    assert not found.broken
    assert named(found) == []
    assert max(found.errors) <= min(found.floors)


def test_names_a_loss_of_precision() -> None:
    class Half(Gate):
        def forward(self, v: Tensor) -> Tensor:
            return super().forward(v).half().float()

    net = network(0.0, 0.0, 0.0)
    net[3] = Half()
    assert named(look(net, turns())) == ["3"]


def test_rotations_do_not_show_a_wrong_parity_and_reflections_do() -> None:
    class Cross(nn.Module):
        def forward(self, v: Tensor) -> Tensor:
            return v + 0.5 * torch.linalg.cross(v, v.roll(1, 1))

    net = network(0.0, 0.0, 0.0)
    net.insert(2, Cross())
    assert not look(net, turns()).broken
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    assert named(look(net, torch.cat([turns(), mirror[None]]))) == ["2"]


def test_a_larger_error_of_the_elements_is_put_down_to_them() -> None:
    bent = turns() + 1e-3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
    x = torch.randn(200, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    foreign = Foreign(Modules([network(0.0, 0.0, 0.0)]), "chart", 0, 1).eval()
    action = VectorAction(3, rho_in=FeatureType("V", 3), rho_out=FeatureType("V", 3))
    run = ForeignRunner(foreign, CPU)
    assert audit(run, action, x, bent, Ambient.linear(3)).broken
    assert not audit(run, action, x, bent, Ambient.linear(3), accuracy=2e-3).broken


def test_names_a_shifted_lattice_in_a_convolution_of_fields() -> None:
    class Coarse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            grown = x[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)
            return grown[..., : x.shape[-1], : x.shape[-1]]

    class Round(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kernel = torch.tensor([[0.1, 0.3, 0.1], [0.3, 0.2, 0.3], [0.1, 0.3, 0.1]])
            return nn.functional.conv2d(x, kernel.expand(1, 1, 3, 3)) + 0.2

    x = torch.randn(16, 1, 1, 17, 17, generator=torch.Generator().manual_seed(0))
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)

    def judged(net: nn.Module) -> Audit:
        foreign = Foreign(Modules([net.eval()]), "chart", 2, 1).eval()
        action = PlanarAction(8, 6, halo=2)
        return audit(ForeignRunner(foreign, CPU), action, x, quarter, Ambient.linear(2))

    assert not judged(nn.Sequential(Round(), nn.Tanh(), Round())).broken
    broken = judged(nn.Sequential(Round(), nn.Tanh(), Coarse(), nn.Tanh(), Round()))
    assert named(broken) == ["2"]


class Branches(nn.Module):
    """A network with everything that a graph may hold: branches, loops, functions, two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)
        self.both = nn.Sequential(nn.Linear(5, 5), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.first(x.flatten(1)))
        for _ in range(2):
            y = self.both(y)
        if bool(y.sum() > 1e9):
            y = y + 1
        return torch.einsum("oi,bi->bo", torch.ones(3, 3), self.second(y))


@pytest.mark.filterwarnings("ignore")
def test_reads_and_replaces_layers_alike_in_all_forms_of_a_network() -> None:
    net, x = Branches().eval(), torch.randn(7, 2, 3)

    def saved(save: object, module: object) -> io.BytesIO:
        file = io.BytesIO()
        save(module, file)  # type: ignore[operator]
        file.seek(0)
        return file

    def whole(made: Tensor) -> Tensor:
        return made

    scripted = torch.jit.load(saved(torch.jit.save, torch.jit.script(net)))
    traced = torch.jit.load(saved(torch.jit.save, torch.jit.trace(net, x)))
    expected, layers = Tapped(net, whole)(x)
    moved, _ = Tapped(net, whole)(x, {"both": layers["both"] * 2})
    for form in (scripted, traced):
        tapped = Tapped(form, whole)
        got, seen = tapped(x)
        torch.testing.assert_close(got, expected)
        assert list(seen) == list(layers)
        for name, value in seen.items():
            torch.testing.assert_close(value, layers[name])
        torch.testing.assert_close(tapped(x, {"both": layers["both"] * 2})[0], moved)
        assert tapped.kinds["first"] == "Linear"


def made(net: nn.Module, folder: Path, kind: str) -> tuple[object, ArraysDataset]:
    x = torch.randn(120, 2, 3, generator=torch.Generator().manual_seed(2))
    tensors = {"inputs": x}
    data = ArraysDataset(ArraysParams(3), seed=0, device=CPU, tensors=tensors)
    file = folder / "net.pt2"
    if kind == "export":
        sizes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(net, (x[:4],), dynamic_shapes=sizes), file)
    else:
        torch.jit.save(torch.jit.script(net), file)
    how = {"takes": "chart", "file": str(file)}
    space = VectorSpace(3, targets_as="V")
    made = make_predictor(("program", how), ("supervised", {}), data, space, 0, 0, CPU)
    return made, data


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["export", "script"])
def test_audits_programs(kind: str, tmp_path: Path) -> None:
    predictor, data = made(network(0.0, 0.5, 0.0), tmp_path, kind)
    found, kinds, drawn = audit_predictor(predictor, data, turns(), 100, 0)  # type: ignore[arg-type]
    assert named(found) == ["2"]
    assert kinds["2"] == "Mix"
    assert len(drawn) == 100
    assert found.worst[0][1] >= found.worst[-1][1] > 0


@pytest.mark.filterwarnings("ignore")
def test_refuses_a_network_without_layers(tmp_path: Path) -> None:
    class Bare(nn.Module):
        def forward(self, v: Tensor) -> Tensor:
            return v.sum(1)

    predictor, data = made(Bare().eval(), tmp_path, "script")
    with pytest.raises(InvalidInput, match="no submodules"):
        audit_predictor(predictor, data, turns(), 100, 0)  # type: ignore[arg-type]


def test_layers_that_cannot_be_read_are_told() -> None:
    class Packed(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"h": x + 0.5}

    class Unpacked(nn.Module):
        def forward(self, h: dict[str, Tensor]) -> Tensor:
            return h["h"].square().sum(-1, keepdim=True)

    network = Tapped(nn.Sequential(Packed(), Unpacked()), lambda y: y)
    network(torch.zeros(3, 2))
    assert list(network.unread) == ["0"]
