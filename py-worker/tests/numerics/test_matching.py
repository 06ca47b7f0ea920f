"""Weights as trainers save them: which entry of a file a network's weights are, or a refusal."""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atlas_worker import checkpoints
from atlas_worker.checkpoints import CheckpointError
from atlas_worker.matching import Own

torch.manual_seed(0)
WEIGHTS: dict[str, Tensor] = {
    "convs.0.weight": torch.randn(4, 2, 3),
    "convs.0.bias": torch.randn(4),
    "norm.running_mean": torch.randn(4),
    "norm.num_batches_tracked": torch.tensor(7),
    "last.weight": torch.randn(1, 4),
}
OTHER = {name: t + 1 for name, t in WEIGHTS.items()}
OWN = {name: Own(t.is_floating_point(), t.shape) for name, t in WEIGHTS.items()}


def under(prefix: str, weights: Mapping[str, Tensor] = WEIGHTS) -> dict[str, Tensor]:
    return {prefix + name: t for name, t in weights.items()}


def selected(content: object, folder: Path, key: str = "", **how: Any) -> tuple[Any, Any]:
    torch.save(content, folder / "a.pt", **how)
    choice = checkpoints.select(folder / "a.pt", folder / "b.safetensors", OWN, key)
    return choice, load_file(folder / "b.safetensors")


def turned(t: Tensor) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else t


LIGHTNING = {
    "pytorch-lightning_version": "2.5.0",
    "hyper_parameters": argparse.Namespace(lr=1e-3, path=pathlib.PurePosixPath("/a")),
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}},
    "loops": {"fit_loop": {"state_dict": {}}},
    "optimizer_states": [torch.optim.AdamW([nn.Parameter(torch.ones(2))]).state_dict()],
}


@pytest.mark.parametrize(
    "content",
    [
        under("module.")
        | {f"adam.{n}.{m}": t for n, t in WEIGHTS.items() for m in ("exp_avg", "exp_avg_sq")}
        | {f"adam.{n}.step": torch.tensor(3.0) for n in WEIGHTS},  # a snapshot of a run
        *(
            under(prefix)
            for prefix in ("", "module.", "_orig_mod.", "net._orig_mod.module.", "a.b.c.d.")
        ),
        {name.replace(".", "._orig_mod.", 1): t for name, t in WEIGHTS.items()},
        *({wrapper: WEIGHTS, "epoch": 3} for wrapper in ("net", "generator", "x", "ema")),
        {"a": {"b": {"c": under("module.model.")}}},
        {**LIGHTNING, "state_dict": under("model.")},
        {**under("module."), "n_averaged": torch.tensor(3)},
        {"net": WEIGHTS, "rng": torch.get_rng_state(), "loss": torch.tensor(0.5)},
        {"model": WEIGHTS, "optimizer": {"state": {0: WEIGHTS}, "param_groups": []}},
        {"w": WEIGHTS, "best": np.float64(0.9), "last": np.arange(3), "rng": np.random.get_state()},
        {"w": WEIGHTS, "history": collections.defaultdict(list), "d": collections.deque()},
        collections.OrderedDict(WEIGHTS),
        {**WEIGHTS, "_extra_state": {"v": 1}},
        {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in WEIGHTS.items()},
        {name: turned(t) for name, t in WEIGHTS.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_whatever_they_lie_in(
    content: object, zipped: bool, tmp_path: Path
) -> None:
    choice, found = selected(content, tmp_path, _use_new_zipfile_serialization=zipped)
    assert choice.averages == []
    assert set(found) == set(WEIGHTS)
    assert all(torch.equal(found[name], t) for name, t in WEIGHTS.items())


@pytest.mark.parametrize(
    ("content", "averages"),
    [
        ({"model": WEIGHTS, "model_ema": OTHER}, ["model_ema"]),
        ({"net": WEIGHTS, "ema": {"decay": 0.9, "shadow": OTHER}}, ["ema.shadow"]),
        ({"ema_state_dict": OTHER, "state_dict": WEIGHTS}, ["ema_state_dict"]),
        ({**under("online_model."), **under("ema_model.", OTHER)}, ["ema_model"]),
    ],
)
def test_averages_beside_weights_are_told_and_can_be_chosen(
    content: object, averages: list[str], tmp_path: Path
) -> None:
    choice, found = selected(content, tmp_path)
    assert choice.averages == averages
    assert torch.equal(found["last.weight"], WEIGHTS["last.weight"])
    _, found = selected(content, tmp_path, averages[0])
    assert torch.equal(found["last.weight"], OTHER["last.weight"])


TWO = {**under("generator."), **under("discriminator.", OTHER)}
NESTED = {"generator": {"model": WEIGHTS}, "discriminator": {"model": OTHER}}
NORMALISED = {"state_dict": {**under("model."), "mean": torch.zeros(1)}}


@pytest.mark.parametrize(
    ("content", "key", "text", "reason"),
    [
        (TWO, "", "2 entries fit this network: generator, discriminator", "weights_key"),
        (NESTED, "model", "2 entries match model: generator.model, discr", "weights_key"),
        (NESTED, "none", "no entry none .* it has generator, discriminator, g", ""),
        (NORMALISED, "", "its entry state_dict.model fits .* is state_dict.mean", "weights_key"),
        ({"a.b": WEIGHTS, "a": {"b": OTHER}}, "a.b", "two entries named a.b.convs.0.weight", ""),
        ({**WEIGHTS, "head.weight": torch.ones(1)}, "", "head.weight is not part of this", ""),
        ({k: WEIGHTS[k] for k in list(WEIGHTS)[1:]}, "", "it lacks convs.0.weight of this", ""),
        (
            {**WEIGHTS, "last.weight": torch.ones(2, 4)},
            "",
            r"last.weight has shape \[2, 4\], and this network's has \[1, 4\]",
            "",
        ),
        ({"x": {"other": torch.ones(1)}}, "", "none of this network's tensors .* x.other", ""),
        ({"w": {k: t.numpy() for k, t in WEIGHTS.items()}}, "", "w.convs.0.w.* a NumPy array", ""),
    ],
)
def test_what_fits_in_no_way_or_in_several_is_refused(
    content: object, key: str, text: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=text) as error:
        selected(content, tmp_path, key)
    assert error.value.reason == reason
    assert "\n" not in error.value.message


def test_a_key_names_an_entry_by_its_end_or_chooses_one_in_spite_of_others(tmp_path: Path) -> None:
    for content, key, expected in (
        (TWO, "discriminator", OTHER),
        (NESTED, "discriminator.model", OTHER),
        (NORMALISED, "model", WEIGHTS),
        (NORMALISED, "state_dict.model", WEIGHTS),
    ):
        _, found = selected(content, tmp_path, key)
        assert torch.equal(found["last.weight"], expected["last.weight"])


def test_counters_may_be_missing(tmp_path: Path) -> None:
    _, found = selected({k: t for k, t in WEIGHTS.items() if t.is_floating_point()}, tmp_path)
    assert len(found) == len(WEIGHTS) - 1


@pytest.mark.parametrize("forced", ["0", "1"])
def test_code_is_refused_and_not_executed_whatever_the_environment_says(
    forced: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)

    class Evil:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "executed"), "w"))

    content = {"state_dict": WEIGHTS, "scalar": np.float64(1), "x": Evil()}
    for zipped in (True, False):
        with pytest.raises(CheckpointError, match=r"would execute code \(\w*io\.open\)"):
            selected(content, tmp_path, _use_new_zipfile_serialization=zipped)
    assert not (tmp_path / "executed").exists()


def test_parts_are_read_through_their_index(tmp_path: Path) -> None:
    names = list(WEIGHTS)
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({n: WEIGHTS[n] for n in names if files[n] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    target = tmp_path / "b.safetensors"

    def write(weight_map: object) -> None:
        index.write_text(json.dumps({"weight_map": weight_map}))

    write(files)
    checkpoints.select(index, target, OWN)
    assert set(load_file(target)) == set(WEIGHTS)
    for weight_map, text in (
        ({"a": "../x.pt"}, "not in its folder"),
        ({"a": "x.pt"}, "not beside it"),
        ({**files, "b": files[names[0]]}, "lists b, which its parts do not hold"),
        ([], "without a weight_map"),
    ):
        write(weight_map)
        with pytest.raises(CheckpointError, match=text):
            checkpoints.load(index)
    with pytest.raises(CheckpointError, match="one of 2 parts"):
        checkpoints.select(tmp_path / files[names[0]], target, OWN)
