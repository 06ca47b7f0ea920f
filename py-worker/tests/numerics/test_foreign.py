"""The same network in many forms: the same algebra, or a refusal, never a wrong algebra."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.fields.sphere import SphereAtlas, SphereChart
from atlas_worker.predictors import FittedPredictor, make_objective, make_predictor
from atlas_worker.solvers.grassmann import GrassmannParams, GrassmannSolver
from atlas_worker.solvers.multistart import MultistartParams, MultistartSolver
from atlas_worker.symmetry import Atlas, Objective, VectorSpace, lie

from . import foreign_nets
from .foreign_nets import Around, Blur, Norm

pytestmark = pytest.mark.filterwarnings("ignore")
CPU = torch.device("cpu")
NETS: dict[str, type[nn.Module]] = {"planar": Blur, "sphere": Blur, "vectors": Norm}
ATLASES: dict[str, Atlas] = {
    "planar": PlanarAtlas((Chart(24, 24),), r_in=12, r_out=8, margin=6),
    "sphere": SphereAtlas((SphereChart(0.0, 0.0), SphereChart(0.0, 90.0)), 12, 8, 6),
    "vectors": VectorSpace(3, False),
}
GENERATORS = {"planar": 1, "sphere": 1, "vectors": 3}


@functools.cache
def data(case: str) -> ArraysDataset:
    draw = torch.Generator().manual_seed(0)
    if case == "vectors":
        x = torch.randn(200, 2, 3, generator=draw)
    else:
        x = torch.randn(8, 1, 48, 48 if case == "planar" else 96, generator=draw)
        for _ in range(3):
            x = 3 * nn.functional.avg_pool2d(x, 5, 1, 2)
    return ArraysDataset(ArraysParams(1), seed=0, device=CPU, tensors={"inputs": x})


def sample(case: str) -> Tensor:
    x = data(case).inputs[:4]
    return (x if case == "vectors" else x[:, :, :25, :25]).clone(
        memory_format=torch.contiguous_format
    )


def module(case: str, code: str, folder: Path, key: str = "") -> FittedPredictor:
    """The predictor that a Python file makes."""
    (folder / "made.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(foreign_nets.__file__).parent)!r})\n"
        "import torch\nfrom torch import nn\nfrom foreign_nets import *\n"
        f"def make(): return {code.replace('Net', NETS[case].__name__)}\n"
    )
    params = {"file": str(folder / "made.py"), "factory": "make"}
    return made(case, "module", params, key)


def made(
    case: str,
    kind: str,
    params: dict[str, Any],
    key: str = "",
    tensors: dict[str, Tensor] | None = None,
) -> FittedPredictor:
    how = {**params, "takes": "chart", "output_key": key}
    return make_predictor(
        (kind, how), ("supervised", {}), data(case), ATLASES[case], 0, 0, CPU, tensors
    )


def program(case: str, write: Callable[[io.BytesIO], None], key: str = "") -> FittedPredictor:
    file = io.BytesIO()
    write(file)
    bytes_ = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    return made(case, "program", {}, key, {"program": bytes_})


def objective(case: str, predictor: FittedPredictor) -> Objective:
    return make_objective(predictor, data(case), ATLASES[case])


def algebra(case: str, predictor: FittedPredictor) -> Tensor:
    """The directions of least linearised error, without the noise of a search."""
    params = GrassmannParams(start="spectral", steps=0, evaluation=2)
    solver = GrassmannSolver(
        params, objective=objective(case, predictor), k=GENERATORS[case], epochs=1, seed=0
    )
    solver.run_epoch(lambda *_: None)
    report = solver.report()
    assert report.symmetry_count == GENERATORS[case], report.explanation
    return report.generators


def distance(a: Tensor, b: Tensor) -> float:
    """Grassmann distance of two spans."""
    p, q = (lie.frame(t.double()).flatten(1) for t in (a, b))
    return float(torch.linalg.svdvals(p - (p @ q.T) @ q).clamp(max=1).asin().norm())


@functools.cache
def expected(case: str) -> Tensor:
    folder = Path(functools.cache(__import__("tempfile").mkdtemp)())
    return algebra(case, module(case, "Net()", folder))


MODULES = [
    ("Net().double()", ""),
    ("Net().half()", ""),
    ("Net().bfloat16()", ""),
    ("nn.DataParallel(Net())", ""),
    ("torch.compile(Net())", ""),
    ("Around(torch.compile(Net()), '')", ""),
    ("Net().train()", ""),
    ("torch.jit.script(Net())", ""),
    *(
        (f"Around(Net(), {what!r})", key)
        for what, key in [
            ("in place", ""),
            ("channels last", ""),
            ("tuple", "0"),
            ("list", "-1"),
            ("dict", "out"),
            ("nested", "heads.1.out"),
            ("dataclass", "logits"),
            ("dataclass", ""),
            ("one of one", ""),
            ("the same memory", ""),
            ("gradient inside", ""),
            ("dropout module", ""),
            ("no gradient", ""),
            ("inference", ""),
            ("numpy", ""),
            ("numpy of a leaf", ""),
            ("array", ""),
            ("partly detached", ""),
            ("endless gradient", ""),
        ]
    ),
]


@pytest.mark.parametrize("case", ["planar", "vectors"])
def test_a_module_in_many_forms_has_the_same_algebra(case: str, tmp_path: Path) -> None:
    for code, key in MODULES:
        if case == "vectors" and "channels last" in code:
            continue  # fields only
        found = algebra(case, module(case, code, tmp_path, key))
        assert distance(found, expected(case)) < 1e-3, code
    for code in ("Around(Net(), 'in bfloat16')", "Around(Net().half(), 'half inside')"):
        assert distance(algebra(case, module(case, code, tmp_path)), expected(case)) < 0.03, code


def test_a_module_on_a_sphere(tmp_path: Path) -> None:
    for code in ("Net().double()", "Around(Net(), 'no gradient')", "Around(Net(), 'in place')"):
        found = algebra("sphere", module("sphere", code, tmp_path))
        assert distance(found, expected("sphere")) < 1e-3, code
    with pytest.raises(InvalidInput, match="two outputs for one input"):
        module("sphere", "Around(Net(), 'dropout')", tmp_path)


@pytest.mark.parametrize("case", ["planar", "vectors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_program_in_many_forms_has_the_same_algebra(case: str, dtype: torch.dtype) -> None:
    net, x = NETS[case]().to(dtype).eval(), sample(case).to(dtype)
    dynamic = ({0: torch.export.Dim("batch", min=2, max=16)},)
    for name, write in {
        "traced": lambda file: torch.jit.save(torch.jit.trace(net, x), file),
        "scripted": lambda file: torch.jit.save(torch.jit.script(net), file),
        "frozen": lambda file: torch.jit.save(torch.jit.freeze(torch.jit.script(net)), file),
        "alone": lambda file: torch.export.save(torch.export.export(net, (x[:1],)), file),
        "four": lambda file: torch.export.save(torch.export.export(net, (x,)), file),
        "dynamic": lambda file: torch.export.save(
            torch.export.export(net, (x,), dynamic_shapes=dynamic), file
        ),
    }.items():
        found = algebra(case, program(case, write))
        limit = 0.03 if dtype == torch.float16 else 1e-3
        assert distance(found, expected(case)) < limit, name


def test_a_traced_batch_is_found() -> None:
    class Baked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Norm()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.view(4, 2, 3))

    traced = torch.jit.trace(Baked(), sample("vectors"))
    found = program("vectors", lambda file: torch.jit.save(traced, file))
    assert "batches of at most 4" in str(found.facts["called"])
    assert distance(algebra("vectors", found), expected("vectors")) < 1e-3


REFUSED = [
    ("dropout", "two outputs for one input"),
    ("noise", "two outputs for one input"),
    ("counter", "two outputs for one input"),
    ("slow counter", "two outputs for one input"),
    ("memory", "two outputs for one input"),
    ("seeded noise", "other samples of the batch"),
    ("batch norm without statistics", "other samples of the batch"),
    ("over the batch", "other samples of the batch"),
    ("largest of the batch", "other samples of the batch"),
    ("rounded", "in jumps"),
    ("straight through", "in jumps"),
    ("classes as numbers", "in jumps"),
    ("classes", "whole numbers"),
    ("complex", "complex numbers"),
    ("not a number", "not finite"),
]


@pytest.mark.parametrize("case", ["planar", "vectors"])
def test_what_is_no_smooth_function_of_a_sample_is_refused(case: str, tmp_path: Path) -> None:
    for what, text in REFUSED:
        with pytest.raises(InvalidInput, match=text):
            module(case, f"Around(Net(), {what!r})", tmp_path)


@pytest.mark.parametrize("case", ["planar", "vectors"])
def test_programs_in_training_mode_are_refused(case: str) -> None:
    x = sample(case)
    for what, text in [
        ("dropout module", "two outputs"),
        ("batch norm", "batch norm is in training mode"),
        ("over the batch", "other samples"),
    ]:
        net = Around(NETS[case](), what).train()
        traced = torch.jit.trace(net, x, check_trace=False)
        batch = ({0: torch.export.Dim("batch", min=1)},)
        exported = torch.export.export(net, (x,), dynamic_shapes=batch)
        for write in (
            lambda file, it=traced: torch.jit.save(it, file),
            lambda file, it=exported: torch.export.save(it, file),
        ):
            with pytest.raises(InvalidInput, match=text):
                program(case, write)


def test_an_output_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    for what, key, there in [
        ("tuple", "", r"0 \[2, 1\], 1 \[\]"),
        ("tuple", "2", "no output '2'.*0 .*, 1 "),
        ("tuple", "logits", "no output 'logits'.*0 .*, 1 "),
        ("dict", "", "aux .*, out "),
        ("dict", "0", "no output '0'.*aux .*, out "),
        ("nested", "heads.out", "no output 'heads.out'"),
        ("nested", "heads", "0 .*, 1"),
        ("", "out", "no output 'out'.*a Tensor"),
    ]:
        with pytest.raises(InvalidInput, match=there) as error:
            module("vectors", f"Around(Net(), {what!r})", tmp_path, key)
        assert error.value.field.endswith("output_key")


def test_a_search_without_gradients_finds_the_group(tmp_path: Path) -> None:
    """Adam sees differences of outputs in g; with gradients it ends at the same algebra."""
    params = GrassmannParams(starts=2, steps=40, evaluation=2)
    for code in ("Net()", "Around(Net(), 'numpy')"):
        it = objective("planar", module("planar", code, tmp_path))
        solver = GrassmannSolver(params, objective=it, k=1, epochs=1, seed=0)
        solver.run_epoch(lambda *_: None)
        assert distance(solver.report().generators, expected("planar")) < 0.1, code
    search = MultistartParams(candidates=4, steps=60)
    cosets = MultistartSolver(
        search, objective=it, identity_algebra=expected("planar"), epochs=1, seed=0
    )
    cosets.run_epoch(lambda *_: None)
    assert len(cosets.report().matrices) >= 1


def test_differences_are_the_gradient(tmp_path: Path) -> None:
    gradients = []
    for code in ("Net()", "Around(Net(), 'no gradient')"):
        it = objective("vectors", module("vectors", code, tmp_path))
        g = torch.eye(3).expand(8, 1, 3, 3) + 0.3 * torch.randn(
            8, 1, 3, 3, generator=torch.Generator().manual_seed(0)
        )
        g = g.clone().requires_grad_()
        it.loss(it.batch(torch.arange(8)), g).sum().backward()
        assert g.grad is not None
        gradients.append(g.grad)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-2 * gradients[0].abs().max()


@pytest.mark.parametrize("case", ["planar", "vectors"])
def test_only_a_constant_never_changes(case: str, tmp_path: Path) -> None:
    it = objective(case, module(case, "Around(Net(), 'constant')", tmp_path))
    solver = GrassmannSolver(GrassmannParams(evaluation=2), objective=it, k=0, epochs=1, seed=0)
    solver.run_epoch(lambda *_: None)
    report = solver.report()
    assert report.symmetry_count == it.n**2
    assert "never changes" in report.explanation


def test_a_small_change_beside_a_large_constant_is_one(tmp_path: Path) -> None:
    net = "Around(Net(), 'beside a constant')"
    assert (
        distance(algebra("vectors", module("vectors", net, tmp_path)), expected("vectors")) < 0.01
    )


def test_one_sample_is_enough_for_a_trial(tmp_path: Path) -> None:
    one = ArraysDataset(
        ArraysParams(1), seed=0, device=CPU, tensors={"inputs": data("vectors").inputs[:1]}
    )
    for what, refused in [("", False), ("over the batch", True), ("rounded", True)]:
        module("vectors", "Net()", tmp_path)
        text = (tmp_path / "made.py").read_text()
        (tmp_path / "made.py").write_text(text.replace("Norm()", f"Around(Norm(), {what!r})"))
        params = {"file": str(tmp_path / "made.py"), "factory": "make", "takes": "chart"}
        make = functools.partial(
            make_predictor,
            ("module", params),
            ("supervised", {}),
            one,
            ATLASES["vectors"],
            0,
            0,
            CPU,
        )
        if refused:
            with pytest.raises(InvalidInput):
                make()
        else:
            make()
