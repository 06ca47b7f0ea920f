"""Foreign predictors, and ours for other programs: both compute the same and have derivatives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atlas_worker import checkpoints, exports
from atlas_worker.checkpoints import CheckpointError
from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.exports import Exported, export
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.predictors import FittedPredictor, make_objective, make_predictor
from atlas_worker.symmetry import Atlas, VectorSpace
from atlas_worker.symmetry.measure import measure_at

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
CPU = torch.device("cpu")
ATLAS = PlanarAtlas((Chart(10, 10), Chart(14, 12)), r_in=6, r_out=4)
VECTORS = VectorSpace(2, False)


def predictor(
    kind: str,
    params: Mapping[str, Any],
    *,
    atlas: Atlas = ATLAS,
    outputs: int = 2,
    tensors: Mapping[str, Tensor] | None = None,
    epochs: int = 0,
) -> FittedPredictor:
    draw = torch.Generator().manual_seed(5)
    x = (
        torch.randn(64, 3, 2, generator=draw)
        if atlas is VECTORS
        else torch.randn(4, 1, 24, 24, generator=draw)
    )
    given = {"inputs": x}
    if epochs:
        given["targets"] = torch.randn(4, outputs, 24, 24, generator=draw)
    params_of_data = ArraysParams(0 if epochs else outputs)
    data = ArraysDataset(params_of_data, seed=0, device=CPU, tensors=given)
    return make_predictor((kind, params), ("supervised", {}), data, atlas, epochs, 0, CPU, tensors)


def file_of(p: FittedPredictor, folder: Path) -> Path:
    """Its checkpoint, as a run keeps it."""
    tensors, metadata = p.state()
    save_file(tensors, folder / "p.safetensors", metadata)
    return folder / "p.safetensors"


def written(p: FittedPredictor, folder: Path, to: Any) -> tuple[Tensor, Exported]:
    """The bytes of an exported file."""
    told = export(file_of(p, folder), folder / "out", to)
    return torch.frombuffer(bytearray((folder / "out").read_bytes()), dtype=torch.uint8), told


class PerChart(nn.Module):
    """[B, 1, s, s] to two channels, the second of which is not linear."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.conv(x).tanh()


def script(net: nn.Module, folder: Path) -> Tensor:
    torch.jit.script(net).save(folder / "script.pt")
    return torch.frombuffer(bytearray((folder / "script.pt").read_bytes()), dtype=torch.uint8)


@pytest.mark.parametrize("to", ["torchscript", "export"])
@pytest.mark.parametrize(
    ("kind", "params", "atlas"),
    [
        ("reference_cnn", {"width": 3}, ATLAS),
        ("strided_cnn", {"width": 2, "layers": 1, "stride": 2}, ATLAS),
        ("encoder_decoder", {"width": 4}, ATLAS),
        ("mlp", {"width": 8}, VECTORS),
    ],
)
def test_an_exported_program_is_the_predictor(
    to: str, kind: str, params: dict[str, Any], atlas: Atlas, tmp_path: Path
) -> None:
    ours = predictor(kind, params, atlas=atlas)
    program, told = written(ours, tmp_path, to)
    assert (told.kind, told.parameters, told.takes) == (kind, ours.parameters, list(ours._x.shape))
    theirs = predictor("program", {"halo": told.halo}, atlas=atlas, tensors={"program": program})
    x = torch.randn(5, *told.takes)
    expected = ours.predict(x)
    assert list(expected.shape[1:]) == told.gives
    assert (theirs.predict(x) - expected).abs().max() < 1e-6 * max(1, float(expected.abs().max()))
    assert theirs.facts["parameters"] == 0


@pytest.mark.parametrize("to", ["pt", "safetensors"])
def test_exported_weights_are_taken_back(to: Any, tmp_path: Path) -> None:
    ours, other = predictor("reference_cnn", {"width": 3}), predictor("reference_cnn", {"width": 3})
    with torch.no_grad():
        for w in ours._module.parameters():
            w += 1
    told = export(file_of(ours, tmp_path), tmp_path / "out", to)
    weights = checkpoints.load(tmp_path / "out").tensors
    assert sum(t.numel() for name, t in weights.items() if "running" not in name) == told.parameters
    other.load_weights(weights)
    x = torch.randn(2, *told.takes)
    assert torch.equal(other.predict(x), ours.predict(x))
    assert to == "pt" or set(load_file(tmp_path / "out")) == set(ours._module.state_dict())


def test_the_bridge_exports_any_architecture(tmp_path: Path) -> None:
    """In a process where nothing else was imported: the orchestrator's has no worker."""
    source = file_of(predictor("mlp", {"width": 8}, atlas=VECTORS), tmp_path)
    call = (
        "import sys; from atlas_worker.bridge import export_predictor as e; print(e(*sys.argv[1:]))"
    )
    made = subprocess.run(
        [sys.executable, "-c", call, str(source), str(tmp_path / "out"), "safetensors"],
        cwd=Path(exports.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(made.stdout)["ok"]["kind"] == "mlp"


def test_what_was_built_from_data_is_exported_with_it(tmp_path: Path) -> None:
    """The forms of this network are whitened by the data, which the file does not hold."""
    ours = predictor("quadratic", {"forms": 3, "width": 4}, atlas=VECTORS)
    export(file_of(ours, tmp_path), tmp_path / "out", "pt")
    assert torch.equal(
        checkpoints.load(tmp_path / "out").tensors["whiten"], ours._module.state_dict()["whiten"]
    )


def test_a_program_that_would_be_another_function_is_not_written(tmp_path: Path) -> None:
    """It computes 256 samples at a time, which a trace of two does not."""
    ours = predictor("quadratic", {"forms": 3, "width": 4}, atlas=VECTORS)
    for to in ("torchscript", "export"):
        with pytest.raises(CheckpointError, match=f"cannot be written as {to}"):
            export(file_of(ours, tmp_path), tmp_path / "out", to)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_predictor_is_refused(tmp_path: Path) -> None:
    save_file({"generators": torch.eye(2)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="holds no predictor"):
        export(tmp_path / "a.safetensors", tmp_path / "out", "pt")


def test_a_checkpoint_cannot_have_code_executed(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n"
    )
    tensors, metadata = predictor("reference_cnn", {"width": 3}).state()
    said = json.loads(metadata["built"]) | {
        "params": {"file": str(tmp_path / "net.py"), "factory": "f"}
    }
    save_file(tensors, tmp_path / "p.safetensors", {"kind": "module", "built": json.dumps(said)})
    with pytest.raises(
        CheckpointError, match="code of a module predictor is not in its checkpoint"
    ):
        export(tmp_path / "p.safetensors", tmp_path / "out", "pt")
    assert not (tmp_path / "net.ran").exists()


def test_one_program_for_all_charts_or_one_for_each(tmp_path: Path) -> None:
    nets = [PerChart(), PerChart(2.0)]
    files = [script(net, tmp_path) for net in nets]
    shared = predictor("program", {"takes": "chart"}, tensors={"program": files[0]})
    each = predictor(
        "program", {"takes": "chart"}, tensors={f"program.{i}": f for i, f in enumerate(files)}
    )
    x = torch.randn(3, 2, 1, 13, 13)
    with torch.no_grad():
        assert torch.equal(shared.predict(x), torch.stack([nets[0](x[:, i]) for i in range(2)], 1))
        assert torch.equal(each.predict(x), torch.stack([nets[i](x[:, i]) for i in range(2)], 1))
    # Only some of the charts, in any order, and only the inner part.
    for p in (shared, each):
        some = p.freeze(radius=4)(x[:, [1]], torch.tensor([1]))
        assert torch.equal(some, p.predict(x)[:, [1], :, 2:-2, 2:-2])


def test_a_program_of_all_charts_is_asked_for_some(tmp_path: Path) -> None:
    ours = predictor("reference_cnn", {"width": 3})
    program, _ = written(ours, tmp_path, "torchscript")
    theirs = predictor("program", {}, tensors={"program": program})
    x, some = torch.randn(2, 1, 1, 13, 13), torch.tensor([1])
    assert torch.allclose(theirs.freeze()(x, some), ours.freeze()(x, some), atol=1e-6)


@pytest.mark.parametrize("to", ["torchscript", "export"])
def test_equivariance_is_measured_and_differentiated_through_a_program(
    to: str, tmp_path: Path
) -> None:
    ours = predictor("reference_cnn", {"width": 3})
    program, _ = written(ours, tmp_path, to)
    theirs = predictor("program", {}, tensors={"program": program})
    data = ArraysDataset(
        ArraysParams(2), seed=0, device=CPU, tensors={"inputs": torch.randn(4, 1, 24, 24)}
    )
    turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)
    a, b = (
        measure_at(make_objective(p, data, ATLAS), turn, 4, 0, lambda: None) for p in (ours, theirs)
    )
    assert torch.allclose(a.distance, b.distance, rtol=1e-5)
    gradients = []
    for p in (ours, theirs):
        x = torch.randn(
            2, 2, 1, 13, 13, generator=torch.Generator().manual_seed(1)
        ).requires_grad_()
        p.freeze()(x, None).square().sum().backward()
        gradients.append(x.grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert torch.allclose(*gradients, atol=1e-6)
    assert (
        theirs.freeze(dtype=torch.float64)(torch.randn(1, 2, 1, 13, 13).double(), None).dtype
        == torch.float64
    )


def bytes_of(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def test_programs_that_cannot_be_loaded_or_do_not_fit(tmp_path: Path) -> None:
    net = script(PerChart(), tmp_path)
    torch.export.save(
        torch.export.export(PerChart(), (torch.zeros(4, 1, 9, 9),)), tmp_path / "static.pt2"
    )
    static = bytes_of((tmp_path / "static.pt2").read_bytes())
    torch.save(PerChart().state_dict(), tmp_path / "weights.pt")
    weights = bytes_of((tmp_path / "weights.pt").read_bytes())
    for params, tensors, outputs, text in [
        ({}, {}, 2, "the tensors are none"),
        ({"takes": "chart"}, {"program.0": net}, 2, "the tensors are program.0"),
        ({}, {"program": torch.zeros(3)}, 2, r"the program is torch.float32 \[3\]"),
        ({}, {"program": bytes_of(b"hello")}, 2, "cannot be loaded as a program"),
        ({}, {"program": weights}, 2, "it holds only weights"),
        ({}, {"program": net[: len(net) // 2]}, 2, "cannot be loaded as a program"),
        ({}, {"program": net}, 2, r"given \[2, 2, 1, 13, 13\], failed: .*(3D|5)"),
        ({"takes": "chart"}, {"program": static}, 2, r"exported for inputs \[4, 1, 9, 9\]"),
        ({"takes": "chart"}, {"program": net}, 3, r"returns \[2, 2, 2, 13, 13\]"),
        ({"takes": "chart", "halo": 1}, {"program": net}, 2, r"returns \[2, 2, 2, 15, 15\]"),
        ({}, {"program.0": net, "program.1": net}, 2, "programs for single charts take one chart"),
        ({"file": str(tmp_path / "none.pt")}, {}, 2, "cannot be read: No such file"),
    ]:
        with pytest.raises(InvalidInput, match=text) as error:
            predictor("program", params, tensors=tensors, outputs=outputs)
        assert "\n" not in error.value.message


MODULE = """
import torch
from beside import width

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, width, 3, padding=1)

    def forward(self, x):
        return self.conv(x)

def failing():
    raise RuntimeError("no\\nweights")

text = lambda: "a text"
"""


def test_a_user_s_module(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODULE)
    (tmp_path / "beside.py").write_text("width = 2")
    file = str(tmp_path / "net.py")
    one = {"file": file, "factory": "Net", "takes": "chart"}
    shared, each = predictor("module", one), predictor("module", {**one, "each": True}, epochs=1)
    assert (shared.facts["parameters"], each.facts["parameters"]) == (20, 40)
    same = torch.randn(2, 1, 1, 13, 13).expand(2, 2, 1, 13, 13)
    y = each.predict(same)
    assert not torch.allclose(y[:, 0], y[:, 1])
    assert torch.equal(predictor("module", one).predict(same), shared.predict(same))  # by the seed
    each.run_epoch(lambda *_: None)
    assert not torch.equal(each.predict(same), y)
    for params, text in [
        ({**one, "factory": "none"}, "has no function 'none'"),
        ({**one, "factory": "failing"}, r"failing\(\) failed: weights"),
        ({**one, "factory": "text"}, r"text\(\) returned a str"),
        ({**one, "file": str(tmp_path)}, "no Python file"),
        ({**one, "takes": "charts"}, r"given \[2, 2, 1, 13, 13\], failed"),
    ]:
        with pytest.raises(InvalidInput, match=text):
            predictor("module", params)


def test_what_lies_beside_a_module_is_read_anew(tmp_path: Path) -> None:
    params = {"file": str(tmp_path / "net.py"), "factory": "Net", "takes": "chart"}
    (tmp_path / "net.py").write_text(MODULE.replace("from beside", "from beside.widths"))
    (tmp_path / "beside").mkdir()
    for width in (2, 3):
        (tmp_path / "beside" / "widths.py").write_text(f"width = {width}")
        assert predictor("module", params, outputs=width).facts["parameters"] == 10 * width
    assert not [name for name in sys.modules if name.partition(".")[0] == "beside"]


class Coupled(nn.Module):
    """[B, C, 1, s, s]: every chart less the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


@pytest.mark.parametrize(
    ("net", "text"), [(Coupled(), "chart 0 depends on the other charts"), (Broken(), "not finite")]
)
def test_what_is_no_function_of_each_chart_is_refused(
    net: nn.Module, text: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=text):
        predictor("program", {}, tensors={"program": script(net, tmp_path)}, outputs=1)


def test_a_module_that_computes_in_single_precision_only(tmp_path: Path) -> None:
    """It makes a tensor of its own: solvers ask for double precision and get single."""
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Conv2d):\n"
        "    def __init__(self): super().__init__(1, 2, 1)\n"
        "    def forward(self, x): return super().forward(x @ torch.eye(13))\n"
    )
    net = predictor(
        "module", {"file": str(tmp_path / "net.py"), "factory": "Net", "takes": "chart"}
    )
    x = torch.randn(2, 2, 1, 13, 13)
    y = net.freeze(dtype=torch.float64)(x.double(), None)
    assert y.dtype == torch.float64
    assert torch.equal(y.float(), net.predict(x))


def test_a_program_has_nothing_to_train(tmp_path: Path) -> None:
    tensors = {"program": script(PerChart(), tmp_path)}
    with pytest.raises(InvalidInput, match="nothing to train"):
        predictor("program", {"takes": "chart"}, tensors=tensors, epochs=1)


@pytest.mark.parametrize("length", [128, 0x4B50])
def test_safetensors_are_told_by_any_length_of_their_header(length: int, tmp_path: Path) -> None:
    """The lengths with which a pickle and a zip archive would begin."""
    spare = (
        length
        - 8
        - len('{"__metadata__":{"k":""},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}')
    )
    save_file({"a": torch.ones(2)}, tmp_path / "a", {"k": "v" * (spare + 1)})
    assert int.from_bytes((tmp_path / "a").read_bytes()[:8], "little") == length
    assert checkpoints.load(tmp_path / "a").metadata["k"].startswith("v")
