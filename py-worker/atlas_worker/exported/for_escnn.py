"""A symmetry that was discovered in data, for the library escnn: turns and mirrors of the plane.

``SPACE`` is the group's space of escnn, ``TYPE_IN`` and ``TYPE_OUT`` are the types of the inputs
and targets. Run ``python symmetry.py`` to test this file with your escnn.

A type of features is a sum such as ``2V+S``: ``S`` scalar, ``P`` pseudoscalar, ``V`` vector (g v),
``C`` covector (g^-T v), ``T`` tensor (g t g^T), ``F`` bilinear form (g^-T t g^-1), both by rows.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from escnn import gspaces
from escnn import nn as enn
from escnn.group import Representation, change_basis

# <data>
NAME = "so(2)"
VERDICT = "symmetry"
GENERATORS: list[list[list[float]]] = [[[0.0, -1.0], [1.0, 0.0]]]
COMPONENTS: list[list[list[float]]] = [[[1.0, 0.0], [0.0, -1.0]]]
N = 2
ACCURACY = 1e-6
TURNS = -1
MIRROR: float | None = 0.0
INPUTS_AS = "V"
TARGETS_AS = "S"
# </data>
# TURNS is the number of rotations, -1 for all. MIRROR is the angle of an axis of reflection from
# the first coordinate, in radians, or None. Coordinates are (row, column), downwards and to the
# right. escnn has x to the right and y upwards: its frame is this one turned by 90 degrees.
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
"""From (row, column) to escnn's (x, y)."""

if MIRROR is None:
    SPACE = gspaces.rot2dOnR2(TURNS) if TURNS != 1 else gspaces.trivialOnR2()
elif TURNS == 1:
    SPACE = gspaces.flip2dOnR2(axis=(MIRROR - math.pi / 2) % math.pi)
else:
    SPACE = gspaces.flipRot2dOnR2(TURNS, axis=(MIRROR - math.pi / 2) % math.pi)

VECTOR = change_basis(SPACE.basespace_action, TURN.T, "vectors in rows and columns")
"""How (row, column) vectors move."""


def _sign() -> Representation:
    """Return the representation of pseudoscalars: the determinant."""
    if MIRROR is None:
        return SPACE.trivial_repr
    return SPACE.irrep(1) if TURNS == 1 else SPACE.irrep(1, 0)


def field_type(kind: str) -> enn.FieldType:
    """Return escnn's type of a type such as ``2V+S``. Raises ``ValueError`` for anything else."""
    known = {"S": SPACE.trivial_repr, "P": _sign(), "V": VECTOR, "C": VECTOR}
    if "T" in kind or "F" in kind:
        known["T"] = known["F"] = VECTOR.tensor(VECTOR)
    found = []
    for part in kind.split("+"):
        match = re.fullmatch(r"\s*(\d*)([SPVCTF])\s*", part)
        if match is None:
            raise ValueError(f"{kind!r} is no type of features: give a sum such as 2V+S")
        found += [known[match[2]]] * int(match[1] or 1)
    return enn.FieldType(SPACE, found)


TYPE_IN, TYPE_OUT = field_type(INPUTS_AS), field_type(TARGETS_AS)


def _elements() -> list:
    group = SPACE.fibergroup
    return list(group.elements if group.order() > 0 else group.grid(type="regular", N=720))


def self_test() -> list[str]:
    """Test this file. Returns what was found, in lines; raises ``AssertionError`` for a fault."""
    torch.manual_seed(0)
    allowed = max(3 * ACCURACY, 1e-4)
    lines = [f"{NAME} is escnn's {SPACE}"]
    group = SPACE.fibergroup
    matrices = {e: VECTOR(e) for e in _elements()}
    for b in np.array(GENERATORS):
        # The derivative of escnn's representation of rotations.
        h = 1e-4
        inner = [group.element((0, t) if MIRROR is not None else t) for t in (h, -h)]
        one = ((VECTOR(inner[0]) - VECTOR(inner[1])) / (2 * h)).flatten()
        off = b.flatten() - (b.flatten() @ one) / (one @ one) * one
        gap = float(np.linalg.norm(off) / np.linalg.norm(b))
        assert gap <= allowed, f"the generator is {gap:.2g} from escnn's, above {allowed:.2g}"
        lines.append(f"the learnt generator is {gap:.2g} from that of escnn's representation")
    # For a continuous group only angles on a grid of half a degree are compared.
    near = allowed + (math.pi / 360 if TURNS == -1 else 0)
    worst = 0.0
    for c in np.array(COMPONENTS).reshape(-1, 2, 2):
        element = min(matrices, key=lambda e: np.linalg.norm(matrices[e] - c))
        gap = float(np.linalg.norm(matrices[element] - c) / math.sqrt(2))
        assert gap <= near, f"a component is {gap:.2g} from escnn's, above {near:.2g}"
        worst = max(worst, gap)
        if MIRROR is not None:
            sign = float(_sign()(element)[0, 0])
            assert sign == np.sign(np.linalg.det(c)), "a pseudoscalar has the wrong sign"
    if COMPONENTS:
        lines.append(f"the learnt components are within {worst:.2g} of escnn's matrices")
    full = field_type("2V+S+P")
    for kind in INPUTS_AS, TARGETS_AS, "2V+S+P":
        # At one point, where no interpolation disturbs: W rho_in(g) = rho_out(g) W.
        made_of = field_type(kind)
        layer = enn.R2Conv(made_of, made_of, kernel_size=1, bias=False).eval()
        x = torch.randn(4, made_of.size, 1, 1)
        y, error = layer(enn.GeometricTensor(x, made_of)).tensor, 0.0
        for e in list(matrices)[:: 1 + len(matrices) // 50]:
            rho = torch.tensor(made_of.representation(e), dtype=torch.float32)
            moved = torch.einsum("ij,bjxy->bixy", rho, x)
            expected = torch.einsum("ij,bjxy->bixy", rho, y)
            made = layer(enn.GeometricTensor(moved, made_of)).tensor
            error = max(error, float((made - expected).abs().max()))
        assert error < 1e-4, f"a layer of escnn has the error {error:.2g}"
        lines.append(f"a layer of escnn from {kind} to {kind} has the error {error:.1g}")
    # escnn's own check, at the elements that map the lattice to itself.
    layer = enn.R2Conv(full, full, kernel_size=3, padding=1).eval()
    exact = [e for e, m in matrices.items() if np.allclose(m, np.round(m), atol=1e-9)]
    x = enn.GeometricTensor(torch.randn(2, full.size, 9, 9), full)
    for e in exact:
        made, expected = layer(x.transform(e)).tensor, layer(x).transform(e).tensor
        assert torch.allclose(made, expected, atol=1e-4), f"a convolution fails at {e}"
    lines.append(f"a 3 x 3 convolution commutes with {len(exact)} elements that keep the lattice")
    return lines


if __name__ == "__main__":
    print("\n".join([*self_test(), f"all tests passed; the verdict on the data: {VERDICT}"]))
