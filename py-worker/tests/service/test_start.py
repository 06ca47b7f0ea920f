"""What a worker need not load: each of these would make every run start a second later."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import torch
from atlas_worker.service.devices import make_reproducible

make_reproducible(1)
assert torch.are_deterministic_algorithms_enabled()
import atlas_worker.blocks
from atlas_worker.fields.resample import transform
from atlas_worker.optim import Adam, AdamW

for optimiser in (Adam, AdamW):
    point = torch.ones(1, 1, 9, 9, requires_grad=True)
    adam = optimiser([point], lr=0.1)
    transform(point, torch.eye(2)[None], 3).sum().backward()
    adam.step()
    adam.zero_grad()
    assert not torch.equal(point, torch.ones_like(point))
print(*sorted({"sympy", "torch._dynamo", "torch._inductor"} & set(sys.modules)))
"""


def test_a_worker_does_without_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"
