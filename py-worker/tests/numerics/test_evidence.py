"""Evidence: the skill lost estimates what a direction breaks, and knows its limits (2.13)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atlas_worker.errors import InvalidInput
from atlas_worker.fields.atlas import Chart, PlanarAtlas
from atlas_worker.symmetry import FieldInputs, PlanarAction, VectorAction, VectorInputs
from atlas_worker.symmetry.evidence import Evidence, Judges, Subject, Unused, collect
from atlas_worker.symmetry.features import FeatureType
from atlas_worker.symmetry.motion import move

ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]]) / 2**0.5
SCALING = torch.eye(2) / 2**0.5
STRETCH = torch.tensor([[1.0, 0.0], [0.0, -1.0]]) / 2**0.5
NONE = torch.zeros(0, 2, 2)
HALF = 800


def points(seed: int = 0) -> Tensor:
    return torch.randn(2 * HALF, 1, 2, generator=torch.Generator().manual_seed(seed))


def subject(
    x: Tensor, y: Tensor | None, f, action: VectorAction | None = None, **options
) -> Subject:
    inputs = VectorInputs(x)
    targets = None if y is None else VectorInputs(y)
    return Subject(
        predictors=[lambda v, charts: f(v[:, 0])[:, None]],
        action=action or VectorAction(2),
        inputs=inputs,
        targets=targets,
        test=torch.arange(HALF, 2 * HALF),
        train=torch.arange(HALF),
        train_inputs=inputs,
        train_targets=targets,
        **options,
    )


def radius(x: Tensor) -> Tensor:
    return x.norm(dim=-1).sum(-1, keepdim=True)


def found(
    subject: Subject, directions: Tensor, matrices: Tensor = NONE, *, half_turns: bool = False
) -> Evidence:
    return collect(subject, directions, matrices, [0.05, 0.2], HALF, 0, half_turns=half_turns)


class TestSkillLost:
    def test_is_zero_for_a_symmetry_and_large_for_others(self) -> None:
        x = points()
        noise = 0.3 * torch.randn(len(x), 1, generator=torch.Generator().manual_seed(1))
        evidence = found(subject(x, radius(x) + noise, radius), torch.stack([ROTATION, SCALING]))
        rotation, scaling = evidence.directions
        assert abs(rotation[1].skill_lost.value) < 1e-5
        assert scaling[1].skill_lost.value > 0.3
        assert evidence.scenes == HALF

    @pytest.mark.parametrize("noise", [0.0, 0.3, 1.0, 3.0])
    def test_estimates_the_share_that_is_broken_whatever_the_noise(self, noise: float) -> None:
        x = points()

        def broken(x: Tensor) -> Tensor:
            return radius(x) + 0.3 * x[..., 0]

        y = broken(x) + noise * torch.randn(len(x), 1, generator=torch.Generator().manual_seed(2))
        lost = found(subject(x, y, broken), ROTATION[None]).directions[0][1]
        test = x[HALF:]
        truth = 0.0
        for sign in (1, -1):
            g = torch.matrix_exp(sign * lost.length * ROTATION)
            truth += float((broken(test @ g.T) - broken(test)).square().mean() / 2)
        truth /= float(broken(test).var())
        assert abs(lost.skill_lost.value - truth) < 4 * lost.skill_lost.error + 0.05 * truth
        assert 0 < lost.skill_lost.error < 1

    @pytest.mark.parametrize("seed", range(3))
    def test_where_the_predictor_is_worse_is_no_breaking(self, seed: int) -> None:
        # A boost leads outwards, where this predictor of a symmetric function has larger errors.
        x, boost = points(seed), torch.tensor([[0.0, 1.0], [1.0, 0.0]]) / 2**0.5

        def truth(x: Tensor) -> Tensor:
            squares = x.square().sum(1)
            return torch.tanh((squares[:, :1] - squares[:, 1:]) / 2)

        def learnt(x: Tensor) -> Tensor:
            rough = torch.sin(5 * x[:, 0, :1] + seed)
            return truth(x) + 0.08 * x.square().sum((1, 2))[:, None] * rough

        def broken(x: Tensor) -> Tensor:
            return 0.5 * torch.sin(x[:, 0, 1:])

        lost = found(subject(x, truth(x), learnt), boost[None]).directions[0][1]
        assert lost.least < 0.015 < lost.skill_lost.value
        y = truth(x) + broken(x)
        lost = found(subject(x, y, lambda x: learnt(x) + broken(x)), boost[None]).directions[0][1]
        assert lost.least > 0.05

    def test_moves_predictions_back_so_that_noise_is_not_reweighted(self) -> None:
        x = points()
        y = x[:, 0] + torch.randn(len(x), 2, generator=torch.Generator().manual_seed(3))
        action = VectorAction(2, rho_out=FeatureType("V", 2))
        # The identity map commutes with everything, and its noise is as large as it is.
        evidence = found(subject(x, y, lambda v: v[:, 0], action), torch.stack([SCALING, STRETCH]))
        assert all(abs(s.skill_lost.value) < 1e-5 for row in evidence.directions for s in row)
        assert 0.4 < evidence.skill.value < 0.6

    def test_uses_probabilities_of_classes(self) -> None:
        x = points()

        def logits(x: Tensor) -> Tensor:
            return 4 * torch.cat([radius(x) - 1.2, 1.2 - radius(x)], 1)

        labels = torch.multinomial(
            logits(x).softmax(1), 1, generator=torch.Generator().manual_seed(4)
        )
        evidence = found(subject(x, labels, logits, classes=2), torch.stack([ROTATION, SCALING]))
        assert abs(evidence.directions[0][1].skill_lost.value) < 1e-5
        assert evidence.directions[1][1].skill_lost.value > 0.1
        assert 0.3 < evidence.skill.value < 0.9

    def test_of_a_reflection_that_only_one_function_has(self) -> None:
        x = points()
        flip = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
        even = found(subject(x, radius(x), radius), ROTATION[None], flip).matrices[0]
        odd = found(subject(x, x[..., 1], lambda v: v[..., 1]), ROTATION[None], flip).matrices[0]
        assert abs(even.skill_lost.value) < 1e-5
        assert odd.skill_lost.value == pytest.approx(4, rel=0.1)
        assert even.size == pytest.approx(1, rel=0.1)

    def test_has_a_bound_from_below_that_few_samples_do_not_widen(self) -> None:
        x = points()

        def here(x: Tensor) -> Tensor:
            return (x - 0.5).norm(dim=-1).sum(-1, keepdim=True) < 0.06

        # A few samples are moved to where the prediction is far too large.
        x[here(x)[:, 0]] = torch.tensor([1.0, -1.0])
        spiked = subject(x, radius(x), lambda v: radius(v) + 100 * here(v))
        for lost in (row[1] for row in found(spiked, torch.stack([SCALING, STRETCH])).directions):
            assert lost.skill_lost.value - 1.96 * lost.skill_lost.error < 0.2
            assert 0.2 < lost.least < lost.skill_lost.value

    def test_without_targets_speaks_of_the_predictor(self) -> None:
        x = points()
        evidence = found(subject(x, None, radius), torch.stack([ROTATION, SCALING]))
        assert evidence.skill.value == 1
        assert abs(evidence.directions[0][1].skill_lost.value) < 1e-5
        assert evidence.directions[1][1].skill_lost.value > 0.3


class TestSize:
    @pytest.mark.parametrize("unit", [1.0, 1e-4, 1e4])
    def test_does_not_depend_on_units(self, unit: float) -> None:
        x = points()
        lengths = [
            s.length for s in found(subject(x, radius(x), radius), ROTATION[None]).directions[0]
        ]
        scaled = found(
            subject(x * unit, radius(x), lambda v: radius(v / unit)), ROTATION[None]
        ).directions[0]
        assert [s.length for s in scaled] == pytest.approx(lengths, rel=1e-3)
        assert [s.size for s in scaled] == pytest.approx([0.05, 0.2], rel=0.06)

    def test_of_half_a_turn_stands_apart(self) -> None:
        x = points()
        directions = torch.stack([ROTATION, SCALING, STRETCH])
        even = subject(x, radius(x), radius)
        rotation, *others = found(even, directions, half_turns=True).directions
        assert [row.half_turn for row in rotation] == [False, False, True]
        assert rotation[2].length == pytest.approx(math.pi * 2**0.5)
        assert rotation[2].size == pytest.approx(2, rel=0.1)
        assert not any(row.half_turn for rows in others for row in rows)
        # A coordinate changes its sign.
        line = subject(x, x[..., 1], lambda v: v[..., 1])
        odd = found(line, ROTATION[None], half_turns=True).directions[0]
        assert odd[2].skill_lost.value == pytest.approx(4, rel=0.1)

    def test_of_a_rotation_is_what_it_moves(self) -> None:
        x = points()
        rows = found(subject(x, radius(x), radius), ROTATION[None]).directions[0]
        # E|gx − x|² / 2E|x|² = 1 − cos(angle), and the angle of exp(tB) is t/√2.
        for row in rows:
            assert row.size == pytest.approx(1 - math.cos(row.length / 2**0.5), rel=0.15)

    def test_is_out_of_reach_of_a_direction_that_moves_nothing(self) -> None:
        x = points()
        x[..., 1] = 0
        direction = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])  # moves along the first by the second
        assert found(subject(x, radius(x), radius), direction).directions == [[]]


class TestReach:
    def test_grows_where_the_predictor_extrapolates(self) -> None:
        generator = torch.Generator().manual_seed(0)
        angle = torch.rand(2 * HALF, generator=generator) - 0.5
        r = 1 + torch.rand(2 * HALF, generator=generator)
        x = torch.stack([r * angle.cos(), r * angle.sin()], -1)[:, None]

        def periodic(x: Tensor) -> Tensor:
            return torch.sin(3 * torch.atan2(x[..., 1], x[..., 0]))

        turns = torch.stack([torch.matrix_exp(t * 2**0.5 * ROTATION) for t in (0.05, 1.5)])
        near, far = found(subject(x, periodic(x), periodic), ROTATION[None], turns).matrices
        assert near.reach < 4 < far.reach


def test_fields_are_compared_away_from_repeated_borders() -> None:
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(48.0) - 23.5
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    wave = torch.rand(60, 1, 1, generator=generator) * 6
    tilt = torch.rand(60, 1, 1, generator=generator) * 6
    fields = torch.sin((tilt.cos() * rows + tilt.sin() * columns) / 4 + wave)[:, None]
    atlas = PlanarAtlas(charts=(Chart(24, 24),), r_in=14, r_out=10, margin=8)
    inputs = FieldInputs(fields, atlas)
    squares = FieldInputs(fields.square(), atlas, margin=0)
    action = PlanarAction(14, 10)
    evidence = collect(
        Subject(
            predictors=[lambda v, charts: v.square()],
            action=action,
            inputs=inputs,
            targets=squares,
            test=torch.arange(30, 60),
            train=torch.arange(30),
            train_inputs=inputs,
            train_targets=squares,
        ),
        torch.stack([ROTATION, STRETCH]),
        NONE,
        [0.2],
        400,
        0,
    )
    # A pointwise map commutes with every move; what is left is interpolation.
    for row in evidence.directions:
        assert abs(row[0].skill_lost.value) < 0.01
        assert abs(row[0].floor) < 0.01


class TestMotion:
    def test_predictions_move_as_they_should_along_a_symmetry_alone(self) -> None:
        lengths = [-1.0, 0.0, 0.5]
        action = VectorAction(2, True)
        some = subject(points(), None, lambda x: x * x.norm(dim=-1, keepdim=True), action)
        for direction, holds in ((ROTATION, True), (STRETCH, False)):
            motion = move(some, direction, lengths, 3, 0)
            x = points()[HALF + 3]
            for t, seen in zip(lengths, motion.inputs, strict=True):
                assert torch.allclose(seen, x @ torch.matrix_exp(t * direction).T, atol=1e-5)
            assert torch.allclose(motion.predicted, motion.expected, atol=1e-5) == holds
            assert torch.equal(motion.predicted[1], motion.expected[1])
            before, still, after = motion.apart
            assert still == 0
            assert (max(before, after) < 1e-4) == holds

    @pytest.mark.parametrize(("sample", "chart"), [(HALF, 0), (0, 1)])
    def test_a_sample_that_is_not_there_is_refused(self, sample: int, chart: int) -> None:
        with pytest.raises(InvalidInput, match=r"sample is 800|chart is 1"):
            move(subject(points(), None, radius), ROTATION, [1.0], sample, chart)


class TestSupport:
    def test_moves_out_of_the_data_do_not_judge(self) -> None:
        """A boost takes some samples to where a predictor extrapolates wrongly."""
        x = points()
        boost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]) / 2**0.5

        def interval(v: Tensor) -> Tensor:
            return (v[..., 0].square() - v[..., 1].square()).sum(-1, keepdim=True).sin()

        def fitted(v: Tensor) -> Tensor:
            # Right where there are data, and wrong beyond.
            return torch.where(v.norm(dim=-1) < 3, interval(v), 5.0)

        y = interval(x)
        lost = collect(subject(x, y, fitted), boost, NONE, [0.5], HALF, 0).directions[0][0]
        assert abs(lost.skill_lost.value) < 0.1
        assert lost.reach < 4

    def test_moves_of_most_samples_out_of_the_data_are_out_of_reach(self) -> None:
        g = torch.Generator().manual_seed(0)
        angle = (torch.rand(2 * HALF, generator=g) - 0.5) / 4
        x = torch.stack([angle.cos(), angle.sin()], -1)[:, None]
        x = x * (1 + torch.rand(2 * HALF, 1, 1, generator=g) / 4)
        lost = collect(subject(x, radius(x), radius), ROTATION[None], NONE, [4.0], HALF, 0)
        assert lost.directions[0][0].reach > 1000

    def test_tells_noise_from_what_can_still_be_learnt(self) -> None:
        x = points()
        noise = torch.randn(len(x), 1, generator=torch.Generator().manual_seed(1))
        clean = radius(x)
        noisy = found(subject(x, clean + clean.std() * noise, radius), ROTATION[None])
        assert noisy.skill.value < 0.6
        assert noisy.learnable < 0.15
        poor = found(subject(x, clean, lambda v: radius(v) + 0.5 * v[..., 0].sin()), ROTATION[None])
        assert poor.learnable > 0.3

    def test_predictors_that_differ_only_where_there_are_no_data_get_the_same_evidence(
        self,
    ) -> None:
        x = points().clamp(-2, 2)

        def other(v: Tensor) -> Tensor:
            return torch.where(v.norm(dim=-1) > 3.5, 9.0, radius(v))

        directions = torch.stack([ROTATION, SCALING])
        one, two = (found(subject(x, radius(x), f), directions) for f in (radius, other))
        for a, b in zip(one.directions, two.directions, strict=True):
            assert [s.skill_lost.value for s in a] == pytest.approx(
                [s.skill_lost.value for s in b], abs=0.02
            )

    @pytest.mark.parametrize("share", [0.3, 0.1, 0.03])
    def test_a_breaking_is_measured_at_its_size(self, share: float) -> None:
        x = points()

        def broken(v: Tensor) -> Tensor:
            return radius(v) + share * radius(x).std() * v[..., 0]

        y = broken(x) + 0.1 * torch.randn(len(x), 1, generator=torch.Generator().manual_seed(2))
        lost = found(subject(x, y, broken), ROTATION[None]).directions[0][1].skill_lost
        # E|b_g − b|² of a coordinate is 2 · size, about.
        assert lost.value == pytest.approx(2 * 0.2 * share**2, rel=0.4, abs=2 * lost.error)


class TestJudges:
    """What is kept for further questions changes no answer."""

    def test_answers_are_the_same_in_any_order(self) -> None:
        x = points()
        noise = 0.3 * torch.randn(len(x), 1, generator=torch.Generator().manual_seed(1))
        one = subject(x, radius(x) + noise, radius)
        both = torch.stack([SCALING, ROTATION])

        def ask(samples: int, sizes: list[float], judges: Judges | None) -> Evidence:
            return collect(one, both, ROTATION[None], sizes, samples, 0, judges=judges)

        judges = Judges()
        asked = [(400, [0.05, 0.2]), (HALF, [0.2]), (400, [0.2]), (200, [0.5]), (HALF, [0.05])]
        for samples, sizes in asked:
            assert ask(samples, sizes, judges) == ask(samples, sizes, None)

    def test_a_question_is_not_computed_again(self) -> None:
        x, calls = points(), []

        def counted(v: Tensor) -> Tensor:
            calls.append(len(v))
            return radius(v)

        judges, one = Judges(), subject(x, radius(x), counted)
        first = collect(one, ROTATION[None], NONE, [0.2], HALF, 0, judges=judges)
        count = len(calls)
        # More samples than there are make no other judge.
        again = collect(one, ROTATION[None], NONE, [0.2], 2 * HALF, 0, judges=judges)
        assert again == first
        assert len(calls) == count

    def test_lengths_have_the_size_that_was_asked_for(self) -> None:
        x = points()
        sizes = [0.01, 0.05, 0.2, 0.5, 0.9]
        evidence = collect(
            subject(x, radius(x), radius), torch.stack([ROTATION, STRETCH]), NONE, sizes, 400, 0
        )
        for row in evidence.directions:
            assert [lost.size for lost in row] == pytest.approx(sizes, rel=0.06)
        # cos is 1 − size for rotations: the first such angle, and no later one.
        angles = [lost.length / 2**0.5 for lost in evidence.directions[0]]
        assert angles == pytest.approx([math.acos(1 - size) for size in sizes], rel=0.06)


class TestUnused:
    """Directions of the inputs that a predictor hardly uses (METHOD 2.12)."""

    @staticmethod
    def jets(f) -> Subject:
        x = torch.randn(2 * HALF, 3, 4, generator=torch.Generator().manual_seed(3))
        x[::2, 2] = 0  # some have fewer items
        x[..., 0] = 5 * x[..., 1:].norm(dim=-1)
        return subject(x, f(x), f, VectorAction(4))

    @staticmethod
    def slope(x: Tensor) -> Tensor:
        """Share of the momentum that goes along the beam: energy plays no part."""
        p = x[..., 1:].sum(-2)
        return p[..., 2:].abs() / p.norm(dim=-1, keepdim=True)

    def unused(self, subject: Subject) -> Unused:
        nothing = torch.zeros(0, 4, 4)
        return collect(subject, nothing, nothing, [], 400, 0, unused=True).unused

    def test_the_energy_is_unused_where_only_directions_of_momenta_count(self) -> None:
        found = self.unused(self.jets(self.slope))
        energy = torch.diag(torch.tensor([1.0, 0.0, 0.0, 0.0])).double()
        assert torch.allclose(found.projections[0], energy, atol=1e-6)
        assert abs(found.lost[0].value) < 1e-6
        assert min(each.value for each in found.lost[1:]) > 0.2

    def test_a_combination_is_found_in_any_units(self) -> None:
        units = torch.tensor([1.0, 1e3, 1e-3, 1.0])

        def f(x: Tensor) -> Tensor:
            x = x / units
            return (x[..., 0] - x[..., 1]).square().sum(-1, keepdim=True) + x[..., 2:].sum(
                (-1, -2)
            )[..., None]

        x = torch.randn(2 * HALF, 2, 4, generator=torch.Generator().manual_seed(4)) * units
        found = self.unused(subject(x, f(x), f, VectorAction(4)))
        p = torch.diag(1 / units).double() @ found.projections[1] @ torch.diag(units).double()
        both = torch.zeros(4, 4, dtype=torch.float64)
        both[:2, :2] = 0.5
        both[2:, 2:] = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])
        assert torch.allclose(p, both, atol=0.15)
        assert abs(found.lost[1].value) < 0.05
        assert found.lost[2].value > 0.1

    def test_there_is_no_answer_where_outputs_move_or_data_are_flat(self) -> None:
        x = torch.randn(2 * HALF, 1, 2, generator=torch.Generator().manual_seed(5))
        moving = subject(
            x, x[:, 0], lambda v: v[:, 0], VectorAction(2, rho_out=FeatureType("V", 2))
        )
        nothing = torch.zeros(0, 2, 2)
        assert collect(moving, nothing, nothing, [], 400, 0, unused=True).unused is None
        x[..., 1] = x[..., 0]
        assert (
            collect(subject(x, radius(x), radius), nothing, nothing, [], 400, 0, unused=True).unused
            is None
        )

    def test_items_that_are_zero_stay_zero(self) -> None:
        action = VectorAction(2, rho_in=FeatureType("V+S", 2))
        x = torch.tensor([[[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]]])
        p = torch.diag(torch.tensor([1.0, 0.0]))
        mixed = action.mixed(p, x, 10 + torch.zeros_like(x))
        assert mixed.tolist() == [[[[10.0, 2.0, 3.0], [0.0, 0.0, 0.0]]]]
