"""A training divided among ranks: each step is that of one process, up to rounding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atlas_worker import catalogue
from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.predictors import FittedPredictor, make_predictor
from atlas_worker.ranks import (
    BatchNorm2d,
    Ranks,
    Share,
    check_divisible,
    computing,
    shares,
    sum_gradients,
)

from .tasks import smooth_fields

CPU = torch.device("cpu")


@dataclass
class Meeting:
    """Ranks that are threads of this process."""

    size: int
    barrier: threading.Barrier = field(init=False)
    slots: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=60)
        self.slots = [torch.empty(0)] * self.size


@dataclass
class Thread:
    meeting: Meeting
    rank: int

    @property
    def size(self) -> int:
        return self.meeting.size

    def sum(self, tensor: Tensor) -> None:
        self.meeting.slots[self.rank] = tensor.clone()
        self.meeting.barrier.wait()
        tensor.copy_(torch.stack(self.meeting.slots).sum(0))
        self.meeting.barrier.wait()


class Friends:
    """Helpers that are threads, each with a predictor of its own."""

    def __init__(self, predictors: list[FittedPredictor]) -> None:
        self.predictors = predictors

    @contextmanager
    def epoch(self, state: tuple[dict[str, Tensor], dict[str, str]], last: bool) -> Iterator[Ranks]:
        meeting = Meeting(len(self.predictors) + 1)

        def help(predictor: FittedPredictor, rank: int) -> None:
            torch.set_num_threads(1)
            predictor.load_state(*state)
            predictor.help_epoch(Thread(meeting, rank))

        threads = [
            threading.Thread(target=help, args=(p, rank), daemon=True)
            for rank, p in enumerate(self.predictors, 1)
        ]
        for thread in threads:
            thread.start()
        yield Thread(meeting, 0)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def arrays(inputs: Tensor, targets: Tensor, **params: Any) -> ArraysDataset:
    tensors = {"inputs": inputs, "targets": targets}
    return ArraysDataset(ArraysParams(**params), seed=0, device=CPU, tensors=tensors)


def task(manifold: str, classes: bool, samples: int = 22) -> tuple[Any, Any]:
    """A dataset and an atlas."""
    g = torch.Generator().manual_seed(2)
    if manifold == "vectors":
        block = catalogue.find("action", "vectors", "atlas.action")
        x = torch.randn(samples, 3, 4, generator=g)
        y = x.square().sum((1, 2)).sqrt()[:, None]
        atlas = block.make(catalogue.parse_params(block.params, {"n": 4}, "atlas"))
        if classes:
            return arrays(x, (y > y.median()).float(), classes=True), atlas
        return arrays(x, y), atlas
    if manifold == "icosahedron":
        x = torch.randn(samples, 2, 8, 16, generator=g)
        block = catalogue.find("action", "icosahedron", "atlas.action")
        atlas = block.make(catalogue.parse_params(block.params, {"resolution": 4}, "atlas"))
    elif manifold == "lattice":
        x = torch.randn(samples, 1, 1, 40, generator=g)
        block = catalogue.find("action", "lattice", "atlas.action")
        atlas = block.make(
            catalogue.parse_params(
                block.params,
                {"n": 1, "charts": [{"row": 0, "col": 20}], "r_in": 6, "r_out": 4},
                "atlas",
            )
        )
    else:
        x = smooth_fields(samples, 33)
        atlas = PlanarAtlas((Chart(12, 10), Chart(20, 22)), r_in=6, r_out=4, margin=2)
    y = x[:, :1].clamp(min=-0.5) + 0.3
    if classes:
        data = arrays(x, (y > 0.3).float() + (y > 1), classes=True)
        data.background = 0
        return data, atlas
    return arrays(x, y), atlas


J = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
TURN = torch.block_diag(J[0], torch.zeros(2, 2))[None]
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Tensor]]] = {
    "cgnet": ("planar", {}, {}),
    "convnet": ("planar", {"width": 4}, {}),
    "encoder_decoder": ("planar", {}, {}),
    "equivariant_mlp": ("vectors", {}, {"algebra": TURN}),
    "icosahedral_unet": ("icosahedron", {"width": 4, "levels": 2}, {"algebra": J}),
    "lattice_cnn": ("lattice", {}, {}),
    "lorentznet": ("vectors", {}, {"metric": torch.diag(torch.tensor([1.0, -1, -1, -1]))}),
    "mlp": ("vectors", {}, {}),
    "particle_flow": ("vectors", {"width": 8}, {}),
    "particle_graph": ("vectors", {}, {}),
    "polynomial": ("vectors", {}, {}),
    "quadratic": ("vectors", {}, {}),
    "reference_cnn": ("planar", {"width": 4}, {}),
    "steerable_cnn": ("planar", {"scalars": 4, "vectors": 2}, {"algebra": J}),
    "steerable_unet": ("planar", {}, {"algebra": J}),
    "strided_cnn": ("planar", {"width": 4, "layers": 1, "stride": 2}, {}),
    "unet": ("planar", {"width": 4}, {}),
}
"""Every architecture that is trained: manifold, small parameters, tensors."""


def predictor(
    kind: str, epochs: int = 2, classes: bool = False, **training: Any
) -> FittedPredictor:
    manifold, params, tensors = NETWORKS[kind]
    data, atlas = task(manifold, classes)
    how = {"loss": "cross_entropy" if classes else "l1", "batch_size": 7, **training}
    return make_predictor((kind, params), ("supervised", how), data, atlas, epochs, 3, CPU, tensors)


def divided(kind: str, ranks: int, **training: Any) -> FittedPredictor:
    made = predictor(kind, **training)
    made.divide(Friends([predictor(kind, **training) for _ in range(ranks - 1)]))
    return made


def gradients(kind: str, ranks: int, samples: int) -> tuple[nn.Module, Tensor]:
    """A network in float64 after the backward pass of some loss, and the gradients of its sum."""
    nets = [predictor(kind) for _ in range(ranks)]
    meeting = Meeting(ranks)

    def compute(rank: int) -> None:
        net = nets[rank].module.double().train()
        x = nets[rank].crops(torch.arange(samples), task(NETWORKS[kind][0], False)[0]).double()
        if ranks == 1:
            net(x).square().sin().mean().backward()
            return
        here = Thread(meeting, rank)
        own = shares(samples, here)
        share = Share(here, own.stop - own.start, samples)
        with computing(share):
            loss = net(x[own]).square().sin().mean() * share.part
            loss.backward()
        sum_gradients(net.parameters(), loss, here)

    together(compute, ranks)
    net = nets[0].module
    flat = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
    return net, torch.cat(flat)


def together(compute: Callable[[int], None], ranks: int) -> None:
    with ThreadPoolExecutor(ranks) as pool:
        for done in [pool.submit(compute, rank) for rank in range(ranks)]:
            done.result()


def test_every_architecture_that_is_trained_is_tested() -> None:
    trained = {
        b.kind
        for b in catalogue.blocks()
        if b.type == "architecture" and not b.executes_code and not b.unlisted
    }
    trained -= {"test_chain"}  # a fake of the service's tests, if they run too
    assert trained - {"expression"} == NETWORKS.keys()  # an expression has nothing to train


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_and_statistics_are_those_of_the_whole_batch(kind: str) -> None:
    (one, of_one), (three, of_three) = gradients(kind, 1, 11), gradients(kind, 3, 11)
    assert (of_one - of_three).abs().max() < 1e-10 * of_one.abs().max()
    for (name, a), b in zip(one.named_buffers(), three.buffers(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-10, atol=1e-12), name


@pytest.mark.parametrize(
    ("kind", "training"),
    [
        ("mlp", {"loss": "l2", "schedule": "cosine"}),
        ("mlp", {"classes": True}),
        ("strided_cnn", {"validation": 0.2, "test": 0.2, "patience": 1}),
        ("icosahedral_unet", {"classes": True, "loss": "jaccard"}),
        ("strided_cnn", {"classes": True, "background_weight": 0.3}),
    ],
)
def test_losses_are_those_of_one_process(kind: str, training: dict[str, Any]) -> None:
    # The last batch of 22 samples is one sample, which rank 0 takes.
    one, three = (predictor(kind, 3, **training), divided(kind, 3, epochs=3, **training))
    for _ in range(3):
        expected, got = (p.run_epoch(lambda *_: None) for p in (one, three))
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for name, t in one.state()[0].items():
        assert t.shape == three.state()[0][name].shape


def test_repeats_give_the_same_bits() -> None:
    twins = [divided("reference_cnn", 2) for _ in range(2)]
    for twin in twins:
        twin.run_epoch(lambda *_: None)
    (first, _), (second, _) = (twin.state() for twin in twins)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("ranks", [2, 3])
def test_shares_are_the_batch(samples: int, ranks: int) -> None:
    meeting = Meeting(ranks)
    parts = [range(samples)[shares(samples, Thread(meeting, r))] for r in range(ranks)]
    assert [i for part in parts for i in part] == list(range(samples))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1 or sizes[0] == samples < ranks


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.Dropout2d(), nn.BatchNorm2d(3), nn.BatchNorm1d(3)]
)
def test_layers_that_cannot_be_divided_are_refused(layer: nn.Module) -> None:
    with pytest.raises(InvalidInput, match="cannot be divided among ranks") as refused:
        check_divisible(nn.Sequential(nn.Linear(2, 3), layer), "mine", foreign=False)
    assert refused.value.field == "ranks"
    check_divisible(nn.Sequential(BatchNorm2d(3)), "mine", foreign=False)
    with pytest.raises(InvalidInput, match="code from elsewhere"):
        check_divisible(nn.Linear(2, 3), "program", foreign=True)
