"""predictors.py FOLDER: predictors of vectors as people make them, and samples of vectors."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

NETS = '''
import numpy as np
import torch
from torch import nn


class Norm(nn.Module):
    """[batch, 1, 2] to [batch, 1]: rotations keep it."""

    def __init__(self, what=""):
        super().__init__()
        self.what = what
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        y = 2 * self.scale * x.square().sum(-1)
        if self.what == "no gradient":
            return torch.from_numpy(y.detach().numpy())
        if self.what == "steps":
            return y.round()
        if self.what == "dropout":
            return nn.functional.dropout(y, 0.3)
        if self.what == "batch":
            return y - y.mean(0)
        if self.what == "outputs":
            return {"aux": x, "out": y}
        return y


def plain():
    return Norm()


def numpied():
    return Norm("no gradient")


def steps():
    return Norm("steps")


def dropped():
    return Norm("dropout")


def batch():
    return Norm("batch")


def outputs():
    return Norm("outputs")
'''

folder = Path(sys.argv[1])
(folder / "net.py").write_text(NETS)
np.save(folder / "v.npy", np.random.default_rng(0).normal(size=(300, 1, 2)).astype(np.float32))
names: dict[str, type[nn.Module]] = {}
exec(NETS, names)
net, x = names["Norm"](), torch.zeros(1, 1, 2)
torch.export.save(torch.export.export(net, (x,)), folder / "static.pt2")
traced = torch.jit.trace(names["Norm"]().double(), x.double())
torch.jit.save(traced, str(folder / "double.pt"))
