"""Blocks that do almost nothing: their state is a hash chain that a lost or extra step breaks."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from atlas_worker.catalogue import param, parse_params, register
from atlas_worker.errors import Diverged, InvalidInput, NotReady
from atlas_worker.interfaces import AlgebraReport, CosetCandidate, CosetReport, SpectrumEntry
from atlas_worker.symmetry import Ambient, Space
from atlas_worker.trainable import StepCallback

GATE = threading.Event()
"""Objects with ``gate_at`` do not finish that epoch before this is set."""


@dataclass(frozen=True)
class ChainParams:
    steps: int = param(3, "steps an epoch", minimum=1)
    samples: int = param(5, "samples of a dataset")
    step_ms: float = param(0.0, "sleep in every step")
    gate_at: int = param(-1, "epoch that waits for the gate")
    diverge_at: int = param(-1, "epoch that diverges")
    nan_at: int = param(-1, "epoch whose metrics are NaN")
    oom_at: int = param(-1, "epoch that runs out of memory")
    crash_at: int = param(-1, "epoch with a bug")
    crash_on_load: bool = param(False, "state cannot be put back")
    long_op: bool = param(False, "every step is one long torch operation")
    size: int = param(8, "float64 elements of the state")


class Chain:
    """``Trainable`` and whatever else an object of any type needs."""

    memory_bytes = 1000
    facts: ClassVar = {"parameters": 42}
    warnings: ClassVar[tuple[str, ...]] = ()
    max_batch = 64

    def __init__(self, params: ChainParams, epochs: int, seed: int) -> None:
        self.params, self.total_epochs, self.epoch = params, epochs, 0
        self.digest = torch.tensor(
            list(hashlib.sha256(str(seed).encode()).digest()), dtype=torch.uint8
        )
        self.weights = torch.zeros(params.size, dtype=torch.float64)

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        p, working_on = self.params, self.epoch + 1
        for step in range(p.steps):
            # In place, so that an epoch that is broken off leaves a state that must not survive.
            link = hashlib.sha256(bytes(self.digest.tolist()) + bytes([step % 256])).digest()
            self.digest.copy_(torch.tensor(list(link), dtype=torch.uint8))
            self.weights += float(link[0])
            if p.long_op:
                torch.linalg.svd(torch.randn(3000, 3000))
            if p.step_ms:
                time.sleep(p.step_ms / 1000)
            on_step(step, p.steps, {"loss": float(link[0])})
            while working_on == p.gate_at and not GATE.wait(0.005):
                on_step(step, p.steps, {"loss": 0.0})
        if working_on == p.diverge_at:
            raise Diverged("the loss became NaN", "loss", remedy="lower the learning rate")
        if working_on == p.oom_at:
            torch.empty(2**55)
        if working_on == p.crash_at:
            raise KeyError("a bug")
        self.epoch += 1
        return {"loss": float("nan") if working_on == p.nan_at else float(self.digest[0])}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        return {"digest": self.digest, "weights": self.weights}, {"epoch": str(self.epoch)}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        if self.params.crash_on_load:
            raise RuntimeError("cannot load")
        self.digest.copy_(tensors["digest"])
        self.weights.copy_(tensors["weights"])
        self.epoch = int(metadata["epoch"])

    # dataset
    @property
    def inputs(self) -> Tensor:
        if self.epoch < self.total_epochs:
            raise NotReady("the dataset is not generated yet", "dataset", "", "run a job on it")
        return torch.arange(self.params.samples * 2 * 9 * 9, dtype=torch.float32).reshape(
            -1, 2, 9, 9
        )

    @property
    def targets(self) -> Tensor:
        return self.inputs + 1

    # predictor
    def predict(self, crops: Tensor) -> Tensor:
        if crops.shape[1] != 2:
            raise InvalidInput("wrong number of charts", "crops", "2")
        return crops * 2

    def crops(self, indices: Tensor, dataset: object) -> Tensor:
        return CONTEXT["field"].inputs[indices][:, None, :, 2:7, 2:7].expand(-1, 2, -1, -1, -1)

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        self.weights.fill_(-1)
        if "weights" not in tensors:
            raise InvalidInput("no weights", "weights", "weights")
        self.weights.copy_(tensors["weights"])


class AlgebraChain(Chain):
    def report(self) -> AlgebraReport:
        eye = torch.eye(2)[None]
        return AlgebraReport(
            eye,
            [0.5],
            [0.1],
            0.01,
            1,
            [SpectrumEntry(eye[0], 0.5, 0.1)],
            [0.5, 0.7],
            "one, clearly",
        )


class CosetChain(Chain):
    def report(self) -> CosetReport:
        eye = torch.eye(2)[None]
        return CosetReport(
            eye,
            [0.5],
            0.01,
            [CosetCandidate(eye[0], 0.5, "kept"), CosetCandidate(-eye[0], 0.6, "duplicate", 0)],
        )


class Objective:
    n = 2

    def __init__(self, space: Space) -> None:
        self.space = space


CONTEXT: dict[str, Any] = {}
"""What the last object of each type was made with."""


def make_dataset(
    params: ChainParams, *, seed: int, device: torch.device, tensors: Mapping[str, Tensor]
) -> Chain:
    CONTEXT["dataset"] = {"seed": seed, "device": device, "tensors": dict(tensors)}
    return Chain(params, 2, seed)


def make_algebra(
    params: ChainParams, *, objective: Objective, k: int, epochs: int, seed: int
) -> Chain:
    CONTEXT["algebra"] = {"k": k}
    return AlgebraChain(params, epochs, seed)


def make_cosets(
    params: ChainParams, *, objective: Objective, identity_algebra: Tensor, epochs: int, seed: int
) -> Chain:
    CONTEXT["cosets"] = {"identity_algebra": identity_algebra}
    return CosetChain(params, epochs, seed)


def make_predictor(
    architecture: tuple[str, dict[str, Any]],
    training: tuple[str, dict[str, Any]],
    dataset: Any,
    atlas: Any,
    epochs: int,
    seed: int,
    device: torch.device,
    tensors: Any = None,
) -> Chain:
    print("what a library prints must not reach the worker's standard output")
    parse_params(ChainParams, training[1], "predictor.training")
    CONTEXT["field"] = dataset
    made = CONTEXT["predictor"] = Chain(
        parse_params(ChainParams, architecture[1], "predictor.architecture"), epochs, seed
    )
    return made


def make_objective(
    predictor: Any, dataset: Any, atlas: Any, group: Tensor | None = None, field: str = ""
) -> Objective:
    return Objective(Space(Ambient.linear(Objective.n), None, group, field))


def compare(basis: Tensor, matrices: Tensor) -> tuple[list[int], Tensor]:
    CONTEXT["compare"] = {"basis": basis}
    signs = torch.linalg.det(matrices).sign()
    return [0 if s == signs[0] else 1 for s in signs], (signs[:, None] - signs).abs()


def install() -> None:
    register("dataset", "test_chain", "a hash chain", ChainParams)(make_dataset)
    register("architecture", "test_chain", "a hash chain", ChainParams)(Chain)
    register("training", "test_chain", "no training", ChainParams)(Chain)
    register("algebra_solver", "test_chain", "a hash chain", ChainParams, needs_predictor=True)(
        make_algebra
    )
    register("coset_solver", "test_chain", "a hash chain", ChainParams, needs_predictor=True)(
        make_cosets
    )
