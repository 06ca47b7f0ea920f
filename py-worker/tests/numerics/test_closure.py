"""Closing noisy elements to finite groups, and components to their group."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.interfaces import CosetReport
from atlas_worker.solvers.products import ProductsParams, ProductsSolver
from atlas_worker.symmetry import EquivarianceObjective, finite
from atlas_worker.symmetry.ambient import normalised
from atlas_worker.symmetry.closure import Closed, FiniteClosure, close_components, shortest

from .resume_check import check_resuming
from .tasks import J, network, noisy, norm_in, point_task

GOLDEN = (1 + math.sqrt(5)) / 2
MINUS = -torch.eye(3, dtype=torch.float64)


def turn(axis: list[float], degrees: float) -> Tensor:
    """Rotation about an axis of space."""
    x, y, z = (torch.tensor(axis).double() / torch.tensor(axis).double().norm()).tolist()
    k = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]).double()
    return torch.matrix_exp(math.radians(degrees) * k)


def planar(degrees: float) -> Tensor:
    return torch.matrix_exp(math.radians(degrees) * J.double())


FLIP = torch.diag(torch.tensor([1.0, -1.0])).double()
GROUPS: dict[str, list[Tensor]] = {
    **{f"C_{k}": [planar(360 / k)] for k in range(2, 13)},
    "D_4": [planar(90), FLIP],
    "T": [turn([1, 1, 1], 120), turn([0, 0, 1], 180)],
    "O": [turn([1, 1, 1], 120), turn([0, 0, 1], 90)],
    "I_h": [turn([0, 1, GOLDEN], 72), turn([1, 1, 1], 120), MINUS],
}
ORDERS = {**{f"C_{k}": k for k in range(2, 13)}, "D_4": 8, "T": 12, "O": 24, "I_h": 120}


def generate(generators: list[Tensor]) -> Tensor:
    """All products of generators, I first."""
    group = torch.eye(len(generators[0]), dtype=torch.float64)[None]
    at = 0
    while at < len(group):
        for g in generators:
            product = group[at] @ g
            if float(finite.distances(product, group).min()) > 1e-6:
                group = torch.cat([group, product[None]])
        at += 1
    return group


def conjugated(group: Tensor, seed: int) -> Tensor:
    """The same group in other coordinates, of condition at most 2."""
    n = group.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    u, v = finite.orthogonal_starts(2, n, generator)
    d = u @ torch.diag(torch.linspace(1, 2, n).double()) @ v
    return d @ group @ torch.linalg.inv(d)


@dataclass
class Planted:
    """A loss whose minima are the elements of a group, each a little off, but for I."""

    group: Tensor
    noise: float
    seed: int = 0
    minima: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        off = torch.randn(self.group.shape, generator=generator, dtype=torch.float64)
        off[0] = 0
        self.minima = normalised(self.group + self.noise * off)

    def _nearest(self, g: Tensor) -> tuple[Tensor, Tensor]:
        apart = torch.cdist(g.double().flatten(1), self.minima.flatten(1)).min(1)
        return apart.values, apart.indices

    def refine(self, g: Tensor) -> Tensor:
        distance, nearest = self._nearest(g)
        return torch.where((distance < 0.7)[:, None, None], self.minima[nearest], g)

    def errors(self, g: Tensor) -> Tensor:
        return 0.02 + 0.5 * self._nearest(g)[0].clamp(max=1)

    def passes(self, g: Tensor, errors: Tensor) -> list[bool]:
        return [float(e) <= 0.2 for e in errors]


def close(planted: Planted, few: int = 4) -> Closed:
    """Close a few elements that generate the group."""
    n = planted.group.shape[-1]
    generator = torch.Generator().manual_seed(planted.seed)
    closure = FiniteClosure(planted, n)
    order = torch.randperm(len(planted.group), generator=generator)
    for some in order.split(few):  # until they generate it
        if len(closure.elements) < len(planted.group):
            closure.add(planted.refine(planted.group[some]))
    return closure.closed()


@pytest.mark.parametrize("name", GROUPS)
def test_noisy_elements_in_other_coordinates_are_closed(name: str) -> None:
    for seed in range(2):
        exact = conjugated(generate(GROUPS[name]), seed)
        assert len(exact) == ORDERS[name]
        planted = Planted(exact, 0.02, seed)
        closed = close(planted)
        assert closed.resolved, closed.explanation
        assert len(closed.elements) == len(exact)
        assert torch.equal(finite.multiplication_table(closed.elements), closed.table)
        assert finite.is_group(closed.table)
        # An exact group, near the planted one.
        products = closed.elements[:, None] @ closed.elements[None]
        assert float((products - closed.elements[closed.table]).abs().max()) < 1e-9
        off = [float(finite.distances(g, exact).min()) for g in closed.elements]
        noise = [float(finite.distances(g, exact).min()) for g in planted.minima]
        assert max(off) < 1.5 * max(noise)


@pytest.mark.parametrize("k", [4, 8, 12, 16])
def test_a_group_is_closed_from_its_centre(k: int) -> None:
    """Symmetries lie on the ways between the reflections that are found after −I."""
    planted = Planted(generate([planar(360 / k), FLIP]), 0.002)
    closure = FiniteClosure(planted, 2)
    for g in (planar(180), FLIP, planar(360 / k)):
        assert closure.add(planted.refine(g[None])) == 1
    assert len(closure.elements) == 2 * k
    assert closure.closed().rejected == 0


def test_noise_that_hides_the_elements_is_told() -> None:
    resolved = [close(Planted(generate(GROUPS["C_12"]), 0.2, s)) for s in range(4)]
    assert not any(c.resolved and len(c.elements) != 12 for c in resolved if len(c.elements) > 6)
    assert any(not c.resolved or c.rejected for c in resolved)


def test_an_element_with_a_product_that_fails_is_left_out() -> None:
    class Half(Planted):
        def passes(self, g: Tensor, errors: Tensor) -> list[bool]:
            return [
                bool(e <= 0.2) and float(torch.linalg.det(m)) > 0
                for m, e in zip(g, errors, strict=True)
            ]

    half = Half(generate(GROUPS["D_4"]), 0.01)
    closed = close(half, few=8)
    assert len(closed.elements) == 4
    stray = FiniteClosure(Planted(generate(GROUPS["C_3"]), 0.0), 2)
    assert stray.add(planar(17)[None]) == 0
    assert len(stray.closed().elements) == 1


def test_snapping_makes_powers_exact() -> None:
    noise = torch.randn(2, 2, generator=torch.Generator().manual_seed(1)).double()
    near = planar(30) + 0.03 * noise
    far = float((torch.linalg.matrix_power(near, 11) - planar(-30)).norm())
    snapped = finite.snap(near, 12)
    assert float((torch.linalg.matrix_power(snapped, 12) - torch.eye(2).double()).norm()) < 1e-9
    assert float((torch.linalg.matrix_power(snapped, 11) - planar(-30)).norm()) < far


@pytest.mark.parametrize("n", [2, 3, 4])
def test_starts_are_orthogonal_and_of_both_signs(n: int) -> None:
    starts = finite.orthogonal_starts(50, n, torch.Generator().manual_seed(0))
    assert float((starts @ starts.mT - torch.eye(n)).abs().max()) < 1e-12
    assert int((torch.linalg.det(starts) > 0).sum()) == 25


def test_between_is_midway_also_across_a_half_turn() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    for angle in (30, 90, 180):
        b = turn([0, 0, 1], angle)
        middle = finite.between(eye, b, eye)
        assert middle is not None
        one, other = (float((middle - end).norm()) for end in (eye, b))
        assert abs(one - other) < 0.1
        assert one > 0.4 * float((b - eye).norm())
    assert finite.between(eye, MINUS, eye) is None


@pytest.mark.parametrize("angle", [30, 90, 180])
@pytest.mark.parametrize("share", [0.29, 0.38])
def test_between_is_a_share_of_the_way(angle: float, share: float) -> None:
    start, way = turn([1, 2, 0], 70), turn([0, 0, 1], angle)
    eye = torch.eye(3, dtype=torch.float64)
    part = finite.between(start, start @ way, eye, share)
    assert part is not None
    assert float((part.mT @ part - eye).abs().max()) < 1e-9
    turned = math.degrees(math.acos((float((start.mT @ part).trace()) - 1) / 2))
    assert abs(turned - share * angle) < 3


class Lorentz:
    """Matrices that keep the metric diag(1, −1, −1)."""

    metric = torch.diag(torch.tensor([1.0, -1.0, -1.0])).double()

    def refine(self, g: Tensor) -> Tensor:
        return g

    def errors(self, g: Tensor) -> Tensor:
        off = (g.mT @ self.metric @ g - self.metric).flatten(1).norm(dim=1)
        return off / g.square().sum((-2, -1))

    def passes(self, g: Tensor, errors: Tensor) -> list[bool]:
        return [float(e) < 0.05 for e in errors]


def test_components_are_closed_also_far_from_the_identity() -> None:
    boost = torch.zeros(2, 3, 3, dtype=torch.float64)
    boost[0, 0, 1] = boost[0, 1, 0] = boost[1, 0, 2] = boost[1, 2, 0] = 1
    spin = torch.zeros(1, 3, 3, dtype=torch.float64)
    spin[0, 1, 2], spin[0, 2, 1] = -1, 1
    algebra = torch.cat([boost, spin])
    move = torch.matrix_exp(0.8 * boost[0])
    parity, time = (
        torch.diag(torch.tensor([1.0, -1, 1])).double(),
        torch.diag(torch.tensor([-1.0, 1, 1])).double(),
    )
    found = torch.stack([parity @ move, move @ time])
    closed = close_components(found, algebra, Lorentz())
    assert closed.resolved
    assert len(closed.elements) == 4
    assert closed.table.diagonal().tolist() == [0, 0, 0, 0]  # C_2 × C_2
    assert float(shortest(move, algebra).norm()) < 1.05 * math.sqrt(3)


class Quadrants:
    """Matrices that keep the sign of x·y: diagonal ones of one sign, and swaps of the axes."""

    def refine(self, g: Tensor) -> Tensor:
        return g

    def errors(self, g: Tensor) -> Tensor:
        g = normalised(g).double()
        alone = torch.minimum(
            g.diagonal(dim1=-2, dim2=-1).abs().sum(-1),
            g.flip(-1).diagonal(dim1=-2, dim2=-1).abs().sum(-1),
        )
        kept = (g[:, 0, 0] * g[:, 1, 1] >= 0) & (g[:, 0, 1] * g[:, 1, 0] >= 0)
        return torch.where(kept, alone, torch.ones_like(alone))

    def passes(self, g: Tensor, errors: Tensor) -> list[bool]:
        return [float(e) < 0.1 for e in errors]


def test_components_are_closed_where_scalings_are_generators() -> None:
    algebra = torch.diag_embed(torch.eye(2, dtype=torch.float64))
    swap = torch.tensor([[0, 0.9], [1.1, 0]]).double()
    closed = close_components(torch.stack([swap, -torch.eye(2).double()]), algebra, Quadrants())
    assert closed.rejected == 0
    assert len(closed.elements) == 4
    assert closed.table.diagonal().tolist() == [0, 0, 0, 0]  # C_2 × C_2
    near = normalised(shortest(torch.diag(torch.tensor([8.0, -0.5])).double(), algebra))
    assert float((near.abs() - torch.eye(2)).abs().max()) < 0.05


def solve(
    objective: EquivarianceObjective, algebra: Tensor, found: Tensor, seed: int = 0, **params: int
) -> CosetReport:
    solver = ProductsSolver(
        ProductsParams(views=256, evaluation=128, **params),
        objective=objective,
        identity_algebra=algebra,
        matrices=found,
        epochs=1,
        seed=seed,
    )
    solver.run_epoch(lambda *_: None)
    return solver.report()


def square(x: Tensor) -> Tensor:
    return x.abs().sum(-1, keepdim=True)


EMPTY = torch.zeros(0, 2, 2)


def test_elements_that_no_search_found_are_found() -> None:
    report = solve(point_task(square), EMPTY, EMPTY, starts=128)
    assert len(report.matrices) == 8
    assert report.closure is not None
    assert report.closure.resolved
    off = (report.matrices - report.matrices.round()).abs().max()
    assert float(off) < 0.02


def test_an_imperfect_predictor_has_the_same_group() -> None:
    report = solve(point_task(noisy(square, 0.03)), EMPTY, planar(90)[None], starts=128)
    assert len(report.matrices) == 8
    assert report.closure is not None
    assert report.closure.resolved


def test_a_function_without_symmetry_has_the_identity_alone() -> None:
    report = solve(point_task(network), EMPTY, EMPTY, starts=128)
    assert len(report.matrices) == 1


def test_a_continuous_group_that_was_overlooked_gives_no_finite_one() -> None:
    report = solve(point_task(norm_in(torch.eye(2))), EMPTY, planar(40)[None], starts=64)
    turns = [m for m in report.matrices if float(torch.linalg.det(m)) > 0]
    assert len(turns) == 1


def test_components_of_an_isotropic_function() -> None:
    report = solve(point_task(norm_in(torch.eye(2))), J[None], (planar(20) @ FLIP)[None])
    assert len(report.matrices) == 2
    assert report.closure is not None
    assert report.closure.table.tolist() == [[0, 1], [1, 0]]


def test_a_closure_can_be_resumed() -> None:
    def make() -> ProductsSolver:
        return ProductsSolver(
            ProductsParams(views=32, evaluation=32, starts=16, steps=20),
            objective=point_task(square),
            identity_algebra=EMPTY,
            matrices=planar(90)[None],
            epochs=2,
            seed=0,
        )

    check_resuming(make, 2, 1)


def test_matrices_of_another_size_are_refused() -> None:
    with pytest.raises(InvalidInput, match="shape"):
        solve(point_task(square), EMPTY, torch.eye(3)[None])
    with pytest.raises(InvalidInput, match="singular"):
        solve(point_task(square), EMPTY, torch.zeros(1, 2, 2))
