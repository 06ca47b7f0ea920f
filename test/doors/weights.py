"""A predictor's weights as trainers save them: ``python weights.py SOURCE.safetensors OUT``."""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Weights = dict[str, Tensor]


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


class Net(nn.Module):
    pass


def main() -> None:
    weights, out = load_file(sys.argv[1]), Path(sys.argv[2])
    os.chdir(out)
    first = next(iter(weights))
    other = {name: t + 0.05 for name, t in weights.items()}

    def under(prefix: str, held: Weights = weights) -> Weights:
        return {prefix + name: t for name, t in held.items()}

    lightning = {
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**under("model."), "metric.count": torch.tensor(3)},
        "hyper_parameters": argparse.Namespace(lr=1e-3, path=Path("/a")),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
        "loops": {},
    }
    contents: dict[str, Any] = {
        "module.pt": under("module."),
        "compiled.pt": under("module._orig_mod.net."),
        "wrapped.pt": {"trainer": {"net": under("model.")}, "epoch": 3},
        "lightning.ckpt": lightning,
        "swa.pt": {**under("module."), "n_averaged": torch.tensor(5)},
        "numpy.pt": {"w": weights, "best": np.float64(0.9), "rng": np.random.get_state()},
        "double.pt": {name: t.double() for name, t in weights.items()},
        "history.pt": {"w": weights, "history": collections.defaultdict(list)},
        "ema.pt": {"model": weights, "model_ema": other},
        "half.pt": {name: t.half() for name, t in weights.items()},
        "bfloat16.pt": {name: t.bfloat16() for name, t in weights.items()},
        "gan.pt": {**under("generator."), **under("discriminator.", other)},
        "nested.pt": {"generator": {"model": weights}, "discriminator": {"model": other}},
        "normalised.pt": {"state_dict": {**under("model."), "mean": torch.zeros(1)}},
        "missing.pt": {name: t for name, t in weights.items() if name != first},
        "extra.pt": {**weights, "head.weight": torch.ones(2)},
        "shape.pt": {**weights, first: torch.ones(2, 3)},
        "nan.pt": {**weights, first: weights[first] / 0},
        "arrays.pt": {name: t.numpy() for name, t in weights.items()},
        "module-object.pt": Net(),
        "evil.pt": {"state_dict": weights, "x": Evil()},
    }
    for name, content in contents.items():
        torch.save(content, name)
    torch.save(under("module."), "legacy.pt", _use_new_zipfile_serialization=False)
    parts = {name: f"m-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(weights)}
    for file in set(parts.values()):
        save_file({n: weights[n].contiguous() for n, f in parts.items() if f == file}, file)
    Path("m.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    large(weights, 3 * 2**30)


def large(weights: Weights, rest: int) -> None:
    """Write a file whose largest tensor is sparse on the disk: ``large.safetensors``."""
    header: dict[str, object] = {}
    end = 0
    for name, t in weights.items():
        span = [end, end + t.numel() * 4]
        header[f"net.{name}"] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": span}
        end = span[1]
    header["replay"] = {"dtype": "U8", "shape": [rest], "data_offsets": [end, end + rest]}
    head = json.dumps(header).encode()
    with Path("large.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for t in weights.values():
            file.write(t.numpy().tobytes())
        file.truncate(8 + len(head) + end + rest)


if __name__ == "__main__":
    main()
