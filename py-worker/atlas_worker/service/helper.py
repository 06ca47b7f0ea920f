"""A helper: a process that computes its share of trainings that rank 0 runs.

It does what rank 0 tells it (see :mod:`.team`), until rank 0 ends or the connection is lost.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atlas_worker import catalogue
from atlas_worker.datasets.base import GivenDataset

from .collectives import Group, Message


class SentDataset(GivenDataset):
    """A dataset that rank 0 has sent.

    Args:
        about: The values of ``Dataset`` that are no tensors.
        tensors: ``inputs`` and ``targets``; ``scenes``, ``latitudes`` and ``longitudes`` if there
            are any.
    """

    kind = "sent"

    def __init__(self, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.inputs, self.targets = tensors["inputs"], tensors["targets"]
        self.outputs: int = about["outputs"]
        self.background = about["background"]
        self.classes = None if about["classes"] is None else tuple(about["classes"])
        self.has_targets = about["has_targets"]
        self.scenes = tensors.get("scenes")
        if "latitudes" in tensors:
            self.coordinates = tensors["latitudes"].cpu(), tensors["longitudes"].cpu()


class Helper:
    """Does what rank 0 says.

    Args:
        group: The ranks.
        device: Device of this one.
        threads: CPU threads.
        shared: CPU threads while all ranks compute.
    """

    def __init__(self, group: Group, device: torch.device, threads: int, shared: int) -> None:
        self._group, self._device = group, device
        self._threads, self._shared = threads, shared
        self._datasets: dict[int, SentDataset] = {}
        self._predictors: dict[int, Any] = {}

    def serve(self) -> None:
        """Do what rank 0 says. Raises ``RankLost`` when the connection is lost."""
        doing = {
            "keep": self._keep,
            "dataset": self._take_dataset,
            "predictor": self._make_predictor,
            "epoch": self._run_epoch,
        }
        while True:
            message = self._group.receive()
            doing[message.text["do"]](message)
            del message

    def _keep(self, message: Message) -> None:
        """Forget all other objects."""
        predictors, datasets = message.text["predictors"], message.text["datasets"]
        self._predictors = {n: p for n, p in self._predictors.items() if n in predictors}
        self._datasets = {n: d for n, d in self._datasets.items() if n in datasets}

    def _take_dataset(self, message: Message) -> None:
        made = SentDataset(message.text["about"], message.tensors)
        self._datasets[message.text["dataset"]] = made

    def _make_predictor(self, message: Message) -> None:
        from atlas_worker.predictors.supervised import make_predictor

        text = message.text
        kind, params = text["atlas"]
        block = catalogue.find("action", kind, "atlas.action")
        atlas = block.make(catalogue.parse_params(block.params, params, "atlas.action"))
        # With as many threads as rank 0 had, so that the same numbers come out.
        torch.set_num_threads(self._threads)
        self._predictors[text["predictor"]] = make_predictor(
            tuple(text["architecture"]),
            tuple(text["training"]),
            self._datasets[text["dataset"]],
            atlas,
            text["epochs"],
            text["seed"],
            self._device,
            message.tensors,
        )

    def _run_epoch(self, message: Message) -> None:
        number = message.text["predictor"]
        predictor = self._predictors[number]
        predictor.load_state(message.tensors, message.text["metadata"])
        torch.set_num_threads(self._shared)
        predictor.help_epoch(self._group)
        if message.text["last"]:
            del self._predictors[number]
