"""The score of a distribution, learnt by denoising: ``s(x) ≈ ∇ log p_σ(x)`` (METHOD 2.11)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..catalogue import param, register
from ..datasets.base import GivenDataset
from ..datasets.distribution import roots, second_moments
from ..datasets.splits import Splits
from ..errors import InvalidInput
from ..interfaces import Dataset, Signature, refuse_tensors
from ..rng import random_stream
from ..symmetry import Atlas, Predictor
from ..trainable import StepCallback
from .held_out import Skill
from .supervised import FittedPredictor, SupervisedParams
from .vectors import linear

SURE = 3.0
"""Standard errors by which the score must be better than the linear one."""
DRAWS = 4
"""Draws of the noise for each test sample."""
BLOCK = 4096
"""Held-out samples among which the one is sought that noise was added to."""


@dataclass(frozen=True)
class ScoreNetParams:
    """Parameters of the architecture ``score_net``."""

    width: int = param(256, "Number of units of a hidden layer", minimum=1, maximum=65_536)
    layers: int = param(3, "Number of hidden layers", minimum=1, maximum=64)


class ScoreNet(nn.Module):
    """The score of sets of vectors at a level of noise: ``[B, 1, m, n] -> [B, 1, m·n]``.

    With whitened vectors ``w = Σ^(−½) x`` it is ``σ s(x) = Σ^(−½) (D(w, σ) − w) / σ``, where D is a
    network that removes noise (Karras et al. 2022). Each vector's part is a covector.
    """

    halo = 0
    """There are no pixels."""
    whiten: Tensor
    """``Σ^(−½) [n, n]``, of the vectors' second moments."""
    sigma: Tensor
    """Scalar: the level of noise at which :meth:`forward` computes the score."""

    def __init__(self, signature: Signature, params: ScoreNetParams, seed: torch.Generator) -> None:
        super().__init__()
        m, n = signature.inputs
        widths = [m * n + 1, *[params.width] * params.layers, m * n]
        self.layers = nn.ModuleList(linear(a, b, seed) for a, b in itertools.pairwise(widths))
        self.register_buffer("whiten", torch.eye(n))
        self.register_buffer("sigma", torch.tensor(1.0))

    def denoise(self, w: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise.

        Args:
            w: Whitened vectors with noise, ``[..., m, n]``.
            sigma: Standard deviation of the noise, ``[...]``.

        Returns:
            The expected vectors without noise, ``[..., m, n]``.
        """
        s = sigma[..., None]
        size = (1 + s.square()).sqrt()
        h = torch.cat([w.flatten(-2) / size, s.log() / 4], -1)
        for layer in self.layers[:-1]:
            h = functional.silu(layer(h))
        rest = self.layers[-1](h).unflatten(-1, w.shape[-2:])
        s, size = s[..., None], size[..., None]
        return cast(Tensor, w / size.square() + rest * s / size)

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute ``σ s(x)``, ``[B, C, m·n]``, of ``x [B, C, m, n]``."""
        w = x @ self.whiten
        sigma = self.sigma.expand(w.shape[:-2])
        noise = (self.denoise(w, sigma) - w) / self.sigma
        return (noise @ self.whiten).flatten(-2)


@register(
    "architecture",
    "score_net",
    "The score of a distribution of sets of vectors; trained by the recipe score",
    ScoreNetParams,
    manifolds=("vectors",),
    unlisted=True,
)
def make_score_net(
    params: ScoreNetParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> ScoreNet:
    """Build a :class:`ScoreNet`."""
    refuse_tensors(tensors)
    return ScoreNet(signature, params, seed)


@dataclass(frozen=True)
class ScoreParams:
    """Parameters of the training ``score``."""

    batch_size: int = param(256, "Samples in each step", minimum=1)
    learning_rate: float = param(2e-3, "Learning rate of AdamW; falls to zero", minimum=0)
    smallest: float = param(
        0.1, "Smallest noise, relative to the vectors' spread", minimum=1e-4, maximum=10
    )
    largest: float = param(1.0, "Largest noise, likewise", minimum=1e-4, maximum=10)
    rungs: int = param(4, "Levels of noise at which the skill is measured", minimum=1, maximum=64)
    test: float = param(0.1, "Fraction of the samples for the skill", minimum=0.001, maximum=0.9)
    split_seed: int = param(0, "Seed of the choice of these samples", minimum=0)


@register(
    "training",
    "score",
    "Denoising: learns the score of a distribution at a ladder of levels of noise",
    ScoreParams,
    manifolds=("vectors",),
    unlisted=True,
)
class ScorePredictor(FittedPredictor):
    """A score that is learnt by removing noise (Vincent 2011).

    At the end it is measured on test samples at each level of noise, beside the linear score
    ``−(C + σ²)⁻¹ x``, and is fixed at the smallest level at which it is better.
    """

    def __init__(
        self,
        params: ScoreParams,
        *,
        module: nn.Module,
        kind: str,
        built: str = "",
        dataset: Dataset,
        atlas: Atlas,
        epochs: int,
        seed: int,
        device: torch.device,
    ) -> None:
        if not isinstance(module, ScoreNet):
            raise InvalidInput(
                f"the recipe score does not train a {kind}",
                "predictor.architecture.kind",
                "score_net",
            )
        if params.largest < params.smallest:
            raise InvalidInput(
                f"the largest noise is {params.largest:g}",
                "predictor.training.params.largest",
                f"at least the smallest, {params.smallest:g}",
            )
        how = SupervisedParams(
            batch_size=params.batch_size,
            learning_rate=params.learning_rate,
            schedule="cosine",
            loss="l2",
            test=params.test,
            split_seed=params.split_seed,
        )
        super().__init__(
            how,
            module=module,
            kind=kind,
            built=built,
            dataset=dataset,
            atlas=atlas,
            epochs=epochs,
            seed=seed,
            device=device,
        )
        self._score, self._net = params, module
        self._unchecked = None  # the targets are zeros
        if epochs:
            module.whiten.copy_(roots(second_moments(dataset.inputs))[1])
        self._noise = random_stream(seed, 7)

    @property
    def levels(self) -> list[float]:
        """The levels of noise, ascending."""
        p = self._score
        ratio = (p.largest / p.smallest) ** (1 / max(p.rungs - 1, 1))
        return [p.smallest * ratio**i for i in range(p.rungs)]

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Run one pass over the data; see :class:`FittedPredictor`.

        Returns:
            The mean ``loss``; at the end also the ``skill`` over the linear score at the level
            ``sigma``, with its ``skill_error``, and the ``skill_<level>`` of all levels.
        """
        self._noise = random_stream(self._seed, 7, self._epoch)
        metrics = super().run_epoch(on_step)
        if self._epoch == self._total:
            metrics = {**metrics, "sigma": float(self._net.sigma)}
        return metrics

    def _batch_loss(self, indices: Tensor, g: Tensor | None = None) -> Tensor:
        w = self._x.draw(indices, None)[:, 0] @ self._net.whiten
        low, high = math.log(self._score.smallest), math.log(self._score.largest)
        draws = torch.rand(len(w), generator=self._noise)
        sigma = (low + (high - low) * draws).exp().to(w)
        noise = torch.randn(w.shape, generator=self._noise).to(w)
        s = sigma[:, None, None]
        denoised = self._net.denoise(w + s * noise, sigma)
        # The weight makes the network's own part of equal size at all levels.
        return ((denoised - w).square() * (1 + s.square()) / s.square()).mean()

    def judged_on(self, data: Dataset, fitted: bool) -> Dataset:
        """Add noise of the level that the score is for; the targets say how to undo it.

        Args:
            data: Samples ``[N, m, n]``.
            fitted: Whether the score was fitted to them.

        Returns:
            As many samples in the same order.
        """
        held = self.splits.test if fitted and self.splits is not None else None
        return _Noisy(data, held, self._net.whiten, float(self._net.sigma), self._seed)

    def baseline(self) -> Predictor:
        """Return the score of a normal distribution with the moments of the training samples."""
        mean, covariance = self._moments()
        level = float(self._net.sigma)
        gain, white = _gain(covariance, level), self._net.whiten.double()

        def linear(x: Tensor, charts: Tensor | None = None) -> Tensor:
            w = x.double() @ white
            straight = (-level * (w.flatten(-2) - mean) @ gain).unflatten(-1, w.shape[-2:])
            score: Tensor = (straight @ white).flatten(-2).float()
            return score

        return linear

    def _white(self, part: Tensor) -> Tensor:
        """Draw samples in whitened coordinates, ``[N, m, n]`` float64."""
        x = torch.cat([self._x.draw(some, None)[:, 0] for some in part.split(4096)])
        white: Tensor = x.double() @ self._net.whiten.double()
        return white

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[m·n]`` and covariance of the whitened training samples."""
        train = self._white(cast(Splits, self.splits).training).flatten(1)
        mean = train.mean(0)
        return mean, (train - mean).mT @ (train - mean) / len(train)

    @torch.no_grad()
    def _skill(self) -> Skill:
        self._module.eval()
        splits = cast(Splits, self.splits)
        mean, covariance = self._moments()
        test = self._white(splits.test)
        generator = random_stream(self._seed, 8)
        found: tuple[float, Skill] | None = None
        best: tuple[float, Skill] | None = None
        for level in self.levels:
            rows = torch.zeros(len(test), 2, dtype=torch.float64)
            gain = _gain(covariance, level)
            for _ in range(DRAWS):
                noise = torch.randn(test.shape, generator=generator, dtype=torch.float64)
                noise = noise.to(test)
                noisy = test + level * noise
                sigma = torch.full((len(test),), level, device=test.device)
                own = (self._net.denoise(noisy.float(), sigma).double() - noisy) / level
                straight = -level * (noisy.flatten(1) - mean) @ gain
                for column, s in enumerate((own.flatten(1), straight)):
                    off = (s + noise.flatten(1)).square().mean(1)
                    rows[:, column] += off.cpu() / DRAWS
            e0, e_c = rows.mean(0).tolist()
            ratio = e0 / max(e_c, 1e-30)
            spread = float((rows[:, 0] - ratio * rows[:, 1]).square().sum().sqrt())
            count = max(len(test), 2)
            skill = Skill(1 - ratio, spread / (max(e_c, 1e-30) * math.sqrt(count * (count - 1))))
            if found is None and skill.value > SURE * skill.error:
                found = (level, skill)
            if best is None or skill.value > best[1].value:
                best = (level, skill)
        level, skill = found or best or (1.0, Skill(0.0, 0.0))
        self._net.sigma.fill_(level)
        return skill


def _gain(covariance: Tensor, level: float) -> Tensor:
    """Compute ``(C + σ²)⁻¹``."""
    unit = torch.eye(len(covariance)).to(covariance)
    gain: Tensor = torch.linalg.inv(covariance + level**2 * unit)
    return gain


class _Noisy(GivenDataset):
    """Samples with noise of a level, and what the score should say of them.

    The noise itself is an unbiased target (Vincent 2011). Most of it can be told by no score, as it
    is not known which sample it was added to. So the held-out samples have its mean over all of
    them that it may have been added to. This is the score of their own empirical distribution.

    Args:
        data: Samples without noise, ``[N, m, n]``.
        held: Samples that the score was not fitted to, ``[T]``; None for all.
        whiten: ``Σ^(−½) [n, n]``.
        sigma: Level of the noise.
        seed: Seed of the noise.
    """

    kind = "noisy"

    def __init__(
        self, data: Dataset, held: Tensor | None, whiten: Tensor, sigma: float, seed: int
    ) -> None:
        x = data.inputs
        drawn = torch.randn(x.shape, generator=random_stream(seed, 9)).to(x).double()
        white = whiten.double()
        self.inputs = x + sigma * (drawn @ torch.linalg.inv(white)).float()
        undone = -drawn
        held = torch.arange(len(x)) if held is None else held
        for some in held[torch.randperm(len(held), generator=random_stream(seed, 10))].split(BLOCK):
            undone[some] = expected_undoing(x[some].double() @ white, undone[some], sigma)
        self.targets = (undone @ white).float().flatten(1)
        self.outputs = data.outputs
        self.scenes = data.scenes


def expected_undoing(clean: Tensor, undone: Tensor, sigma: float) -> Tensor:
    """Compute the mean of what undoes the noise, over the samples that it may have been added to.

    Args:
        clean: Whitened samples without noise, ``[T, m, n]``.
        undone: Their noise with its sign changed, ``[T, m, n]``, of variance 1.
        sigma: Level of the noise.

    Returns:
        ``[T, m, n]``.
    """
    points = clean.flatten(1)
    noisy = points - sigma * undone.flatten(1)
    means = []
    for some in noisy.split(512):
        share = (-torch.cdist(some, points).square() / (2 * sigma**2)).softmax(1)
        means.append((share @ points - some) / sigma)
    return torch.cat(means).view_as(undone)
