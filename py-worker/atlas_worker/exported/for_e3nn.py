"""A symmetry that was discovered in data, for the library e3nn: rotations of space, up to a frame.

``IRREPS_IN`` and ``IRREPS_OUT`` are e3nn's types of the inputs and targets. ``to_e3nn`` takes
features to e3nn's frame and order, ``from_e3nn`` takes them back. Run ``python symmetry.py`` to
test this file with your e3nn.

A type of features is a sum such as ``2V+S``: ``S`` scalar, ``P`` pseudoscalar, ``V`` vector (g v),
``C`` covector (g^-T v), ``T`` tensor (g t g^T), ``F`` bilinear form (g^-T t g^-1), both by rows.
"""

from __future__ import annotations

import re

import torch
from e3nn import o3
from e3nn.util.test import assert_equivariant
from torch import Tensor

# <data>
NAME = "so(3)"
VERDICT = "symmetry"
GENERATORS: list[list[list[float]]] = [
    [[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
    [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]],
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
]
COMPONENTS: list[list[list[float]]] = []
N = 3
ACCURACY = 1e-6
Q: list[list[float]] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
MIRRORS = False
INPUTS_AS = "V"
TARGETS_AS = "S"
# </data>
# The group is Q^-1 SO(3) Q, or Q^-1 O(3) Q with MIRRORS. Q is the square root of the invariant
# metric of the learnt generators. e3nn orders its vectors ("1o") x, y, z, as D_from_matrix does.


def terms(kind: str) -> list[str]:
    """Split a type: ``2V+S`` is V, V, S. Raises ``ValueError`` for anything else."""
    found: list[str] = []
    for part in kind.split("+"):
        match = re.fullmatch(r"\s*(\d*)([SPVCTF])\s*", part)
        if match is None:
            raise ValueError(f"{kind!r} is no type of features: give a sum such as 2V+S")
        found += [match[2]] * int(match[1] or 1)
    return found


def irreps(kind: str) -> o3.Irreps:
    """Return e3nn's type. Without mirrors all parities are even, so that none restricts a map."""
    odd = "o" if MIRRORS else "e"
    pieces = {"S": "0e", "P": f"0{odd}", "V": f"1{odd}", "C": f"1{odd}"}
    pieces["T"] = pieces["F"] = "0e+1e+2e"
    return o3.Irreps("+".join(pieces[term] for term in terms(kind)))


def change(kind: str) -> Tensor:
    """Return the matrix that takes features of a type to those of ``irreps(kind)``, float64."""
    q = torch.tensor(Q, dtype=torch.float64)
    dual = torch.linalg.inv(q).mT.contiguous()
    # Clebsch-Gordan: a tensor of rank two is e3nn's 0e+1e+2e, by an orthogonal change of basis.
    parts = [o3.wigner_3j(1, 1, k).double() * (2 * k + 1) ** 0.5 for k in (0, 1, 2)]
    split = torch.cat([part.flatten(0, 1).mT for part in parts])
    one = torch.ones(1, 1, dtype=torch.float64)
    blocks = {"S": one, "P": one, "V": q, "C": dual}
    blocks["T"] = split @ torch.kron(q, q)
    blocks["F"] = split @ torch.kron(dual, dual)
    return torch.block_diag(*[blocks[term] for term in terms(kind)])


def to_e3nn(x: Tensor, kind: str) -> Tensor:
    """Take features ``[..., d]`` of a type to those of ``irreps(kind)``."""
    return x @ change(kind).to(x).mT


def from_e3nn(x: Tensor, kind: str) -> Tensor:
    """Take features ``[..., d]`` of ``irreps(kind)`` back to the type."""
    return x @ torch.linalg.inv(change(kind)).to(x).mT


IRREPS_IN, IRREPS_OUT = irreps(INPUTS_AS), irreps(TARGETS_AS)


def representation(kind: str, g: Tensor) -> Tensor:
    """Return the matrix by which g ``[3, 3]`` of the discovered group moves features of a type."""
    dual = torch.linalg.inv(g).mT.contiguous()
    one = torch.ones(1, 1, dtype=g.dtype)
    blocks = {"S": one, "P": torch.linalg.det(g).sign() * one, "V": g, "C": dual}
    blocks["T"], blocks["F"] = torch.kron(g, g), torch.kron(dual, dual)
    return torch.block_diag(*[blocks[term] for term in terms(kind)])


def self_test() -> list[str]:
    """Test this file. Returns what was found, in lines; raises ``AssertionError`` for a fault."""
    torch.set_default_dtype(torch.float64)
    q = torch.tensor(Q, dtype=torch.float64)
    back = torch.linalg.inv(q)
    allowed = max(3 * ACCURACY, 1e-4)
    vector = o3.Irreps("1o" if MIRRORS else "1e")
    # e3nn's own generators: derivatives of its representation at the identity.
    h, axes = 1e-4, torch.eye(3)
    turned = [
        vector.D_from_axis_angle(a, torch.tensor(h)) - vector.D_from_axis_angle(a, torch.tensor(-h))
        for a in axes
    ]
    span = torch.stack([t.flatten() for t in turned], 1) / (2 * h)
    off = 0.0
    for b in torch.tensor(GENERATORS, dtype=torch.float64):
        seen = (q @ b @ back).flatten()
        inside = span @ torch.linalg.lstsq(span, seen[:, None]).solution[:, 0]
        off = max(off, float((seen - inside).norm() / seen.norm()))
    assert off <= allowed, f"the generators are {off:.2g} from e3nn's, above {allowed:.2g}"
    lines = [f"{NAME}: the learnt generators are {off:.2g} from those of e3nn's {vector}"]
    for c in torch.tensor(COMPONENTS, dtype=torch.float64).reshape(-1, 3, 3):
        seen = q @ c @ back
        u, _, v = torch.linalg.svd(seen)
        gap = float((vector.D_from_matrix(u @ v) - seen).norm() / seen.norm())
        assert gap <= allowed, f"a component is {gap:.2g} from e3nn's, above {allowed:.2g}"
        lines.append(f"a learnt component is {gap:.2g} from the matrix of e3nn")
    r = o3.rand_matrix() * (-1 if MIRRORS else 1)
    for kind in {INPUTS_AS, TARGETS_AS, "2V+S+P", "C+T+F"}:
        x = torch.randn(5, irreps(kind).dim)
        moved = to_e3nn(x @ representation(kind, back @ r @ q).mT, kind)
        error = float((moved - to_e3nn(x, kind) @ irreps(kind).D_from_matrix(r).mT).abs().max())
        error = max(error, float((from_e3nn(to_e3nn(x, kind), kind) - x).abs().max()))
        assert error < 1e-4, f"{kind} moves otherwise than e3nn's {irreps(kind)}: {error:.2g}"
        lines.append(f"{kind} moves as e3nn's {irreps(kind)}, to {error:.1g}")
    product = o3.FullTensorProduct(IRREPS_IN, IRREPS_IN)
    layer = o3.Linear(product.irreps_out, IRREPS_OUT)
    assert_equivariant(product)
    assert_equivariant(layer)
    lines.append(f"e3nn finds its layers from {IRREPS_IN} to {IRREPS_OUT} equivariant")
    return lines


if __name__ == "__main__":
    print("\n".join([*self_test(), f"all tests passed; the verdict on the data: {VERDICT}"]))
