"""A symmetry that was discovered in data, as a group of the library emlp (Finzi et al. 2021).

``Discovered()`` is a subclass of ``emlp.groups.Group``; ``features("2V+S")`` is a representation
of it. Run ``python symmetry.py`` to test this file with your emlp.

A type of features is a sum such as ``2V+S``: ``S`` scalar, ``V`` vector (g v), ``C`` covector
(g^-T v), ``T`` tensor (g t g^T), ``F`` bilinear form (g^-T t g^-1), both by rows.
"""

from __future__ import annotations

import re

import numpy as np
from emlp.groups import Group
from emlp.reps import Scalar, V

# <data>
NAME = "so(2)"
VERDICT = "symmetry"
GENERATORS: list[list[list[float]]] = [[[0.0, -1.0], [1.0, 0.0]]]
COMPONENTS: list[list[list[float]]] = [[[1.0, 0.0], [0.0, -1.0]]]
N = 2
ACCURACY = 1e-6
ALGEBRA: list[list[list[float]]] = [[[0.0, -1.0], [1.0, 0.0]]]
DISCRETE: list[list[list[float]]] = [[[1.0, 0.0], [0.0, -1.0]]]
EXACT = True
INPUTS_AS = "V"
TARGETS_AS = "S"
# </data>
# GENERATORS and COMPONENTS were learnt, with the relative error ACCURACY. emlp takes singular
# values above 1e-5 for constraints, so it needs matrices that make a group to rounding: ALGEBRA and
# DISCRETE, the nearest such group. If EXACT is False none was found, and they are the learnt ones.


class Discovered(Group):
    """The group that was discovered: ``exp`` of its Lie algebra, and its components."""

    def __init__(self) -> None:
        self.d = N
        self.lie_algebra = np.array(ALGEBRA, dtype=np.float32).reshape(-1, N, N)
        self.discrete_generators = np.array(DISCRETE, dtype=np.float32).reshape(-1, N, N)
        super().__init__()


def features(kind: str):
    """Return the representation of a type such as ``2V+S``; call it with the group.

    Raises:
        ValueError: It is no such type. emlp has no pseudoscalars (``P``).
    """
    known = {"S": Scalar, "V": V, "C": V.T, "T": V * V, "F": V.T * V.T}
    found = []
    for part in kind.split("+"):
        match = re.fullmatch(r"\s*(\d*)([SVCTF])\s*", part)
        if match is None:
            raise ValueError(f"{kind!r} is no type for emlp: give a sum of S, V, C, T, F like 2V+S")
        found += [known[match[2]]] * int(match[1] or 1)
    return sum(found[1:], found[0])


def self_test() -> list[str]:
    """Test this file. Returns what was found, in lines; raises ``AssertionError`` for a fault."""
    group, allowed = Discovered(), max(3 * ACCURACY, 1e-4)
    span = np.array(ALGEBRA).reshape(-1, N * N)
    off = 0.0
    for b in np.array(GENERATORS).reshape(-1, N * N):
        inside = span.T @ np.linalg.lstsq(span.T, b, rcond=None)[0]
        off = max(off, float(np.linalg.norm(b - inside) / np.linalg.norm(b)))
    assert off <= allowed, f"the algebra is {off:.2g} from the learnt one, above {allowed:.2g}"
    lines = [f"{NAME}: the learnt generators are {off:.2g} from the group's algebra"]
    for h in np.array(DISCRETE).reshape(-1, N, N):
        gaps = [np.linalg.norm(h - k) / np.linalg.norm(k) for k in np.array(COMPONENTS)]
        assert min(gaps) <= allowed, f"a component is {min(gaps):.2g} from the learnt one"
    rounding = 1e-3 if EXACT else allowed
    for kinds in ("V", "V"), ("2V+S", "V+S"), ("T", "T"), (INPUTS_AS, TARGETS_AS):
        if any("P" in kind for kind in kinds):
            lines.append(f"{kinds[0]} -> {kinds[1]}: left out, emlp has no pseudoscalars")
            continue
        rep_in, rep_out = (features(kind)(group) for kind in kinds)
        lazy = (rep_in >> rep_out).equivariant_basis()
        basis = np.asarray(lazy @ np.eye(lazy.shape[-1], dtype=np.float32))
        error = 0.0
        for w in basis.T.reshape(-1, rep_out.size(), rep_in.size()):
            for b in group.lie_algebra:
                d_in, d_out = (rep.drho(b) @ np.eye(rep.size()) for rep in (rep_in, rep_out))
                error = max(error, float(np.abs(d_out @ w - w @ d_in).max()))
            for h in group.discrete_generators:
                r_in, r_out = (rep.rho(h) @ np.eye(rep.size()) for rep in (rep_in, rep_out))
                error = max(error, float(np.abs(r_out @ w - w @ r_in).max()))
        assert error <= rounding, f"a map {kinds} of emlp has the error {error:.2g}"
        number = basis.shape[-1]
        lines.append(f"{kinds[0]} -> {kinds[1]}: {number} maps of emlp, error {error:.2g}")
    return lines


if __name__ == "__main__":
    print("\n".join([*self_test(), f"all tests passed; the verdict on the data: {VERDICT}"]))
