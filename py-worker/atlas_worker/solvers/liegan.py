"""LieGAN for global rotations of a sphere, a baseline (METHOD 2.8).

Yang, Walters, Dehmamy, Yu: "Generative Adversarial Symmetry Discovery", ICML 2023, arXiv
2302.00236. LieGAN looks at inputs and labels, and needs no predictor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from ..catalogue import param, register
from ..checkpointing import check_finite, check_kind, restore
from ..errors import InvalidInput
from ..fields.sphere import SphereAtlas, rotate, so3_basis
from ..interfaces import AlgebraReport, Dataset
from ..optim import Adam
from ..rng import random_stream
from ..symmetry import lie
from ..trainable import StepCallback

SLOPE = 0.2
"""Slope of the leaky ReLUs."""


@dataclass(frozen=True)
class LieGanParams:
    """Parameters of the solver ``liegan`` (METHOD 2.8)."""

    batch_size: int = param(16, "Samples in each step", minimum=1)
    learning_rate_discriminator: float = param(
        2e-4, "Learning rate of the discriminator", minimum=0
    )
    learning_rate_generator: float = param(1e-3, "Learning rate of the generator", minimum=0)
    beta1: float = param(
        0.5, "Adam's first decay rate, for generator and discriminator", minimum=0, maximum=0.999
    )
    cosine_weight: float = param(
        1e-2, "Weight of |cos(x, g·x)|, which keeps g away from the identity", minimum=0
    )
    channel_weight: float = param(
        1.0, "Weight of |cos| between generators, which keeps them apart", minimum=0
    )
    width: int = param(
        12,
        "Channels of the discriminator's first layer; each next layer has twice as many",
        minimum=1,
        maximum=512,
    )
    evaluation: int = param(256, "Samples on which the discriminator is scored", minimum=1)


class Discriminator:
    """Gives a logit for "these are unmoved data", from fields on the sphere.

    Three 3×3 convolutions of stride 2 with leaky ReLUs, then a linear layer that depends on the
    position: a group may move fields only to where the data have such fields. Columns go round; at
    the poles the last row is repeated.

    Args:
        channels: Channels of the fields.
        height: Height of the fields in pixels.
        width: Width of the fields in pixels.
        features: Channels of the first layer.
        seed: Source of the initial weights.
    """

    def __init__(
        self, channels: int, height: int, width: int, features: int, seed: torch.Generator
    ) -> None:
        sizes = [channels, features, 2 * features, 4 * features]
        shapes = [(out, into, 3, 3) for into, out in pairwise(sizes)]
        for _ in shapes:
            height, width = -(-height // 2), -(-width // 2)
        self.weights: dict[str, Tensor] = {}
        for i, shape in enumerate([*shapes, (1, sizes[-1] * height * width)]):
            # He's initialisation for leaky ReLUs.
            deviation = math.sqrt(2 / ((1 + SLOPE**2) * math.prod(shape[1:])))
            self.weights[f"{i}.weight"] = deviation * torch.randn(shape, generator=seed)
            self.weights[f"{i}.bias"] = torch.zeros(shape[0])

    def __call__(self, fields: Tensor) -> Tensor:
        """Compute the logits ``[B]`` of ``fields [B, ch, H, W]``."""
        w, x = self.weights, fields
        last = len(w) // 2 - 1
        for i in range(last):
            x = functional.pad(x, (1, 1, 0, 0), mode="circular")
            x = functional.pad(x, (0, 0, 1, 1), mode="replicate")
            x = functional.conv2d(x, w[f"{i}.weight"], w[f"{i}.bias"], stride=2)
            x = functional.leaky_relu(x, SLOPE)
        return functional.linear(x.flatten(1), w[f"{last}.weight"], w[f"{last}.bias"])[:, 0]


@register(
    "data_solver",
    "liegan",
    "LieGAN, a baseline: an adversary seeks rotations of the whole sphere in inputs and labels",
    LieGanParams,
    manifolds=("planar",),
)
class LieGan:
    """Finds generators ``θ_c · L`` of rotations under which a discriminator cannot tell the data.

    ``θ [k, 3]``, drawn from N(0, 0.1²), combines the three generators L of so(3). A rotation is
    ``g = exp(Σ_c w_c θ_c · L)``, with one ``w ~ N(0, I_k)`` for each sample. Both networks play
    ``min_θ max_D E[log D(x, y) + log(1 − D(g·x, g·y))]`` by binary cross-entropy. The generator
    minimises the form that does not saturate, ``−E[log D(g·x, g·y)]``, plus
    ``cosine_weight · E|cos(x, g·x)|`` and ``channel_weight · Σ_{c<d} |cos(θ_c, θ_d)|``.

    The discriminator sees the inputs, in units of their root mean square, and the labels as one
    channel for each class, background included.

    A small angle does not mean that there is no symmetry. Moved fields are interpolated, and they
    are not among the samples. Both can give them away, and the published weight of the cosine does
    little against that. On spheres with a blob at one latitude, which are exactly symmetric about
    one axis, 17 of 18 runs with that weight ended within 0.05 rad of the identity; with a weight of
    1, 25 of 26 runs ended within a degree of the axis.

    Args:
        params: The parameters.
        dataset: Inputs ``[N, ch, H, W]`` on a whole sphere, and class labels ``[N, 1, H, W]`` below
            ``dataset.outputs``.
        atlas: A ``SphereAtlas``, which says that the lattice is a sphere's. Its charts are unused.
        k: Number of generators.
        epochs: Number of epochs.
        seed: Seed of all random numbers.
        device: Device of the networks.

    Raises:
        InvalidInput: The atlas is another one, the targets are no class labels, or k is not from 1
            to 3.
    """

    kind = "liegan"

    def __init__(
        self,
        params: LieGanParams,
        *,
        dataset: Dataset,
        atlas: object,
        k: int,
        epochs: int,
        seed: int,
        device: torch.device,
    ) -> None:
        if not isinstance(atlas, SphereAtlas):
            raise InvalidInput(
                "the solver liegan works on whole spheres only",
                "algebra.atlas",
                "an atlas of a sphere",
                "use another solver",
            )
        if not 1 <= k <= 3:
            raise InvalidInput(f"k is {k}", "algebra.k", "from 1 to 3, the dimension of so(3)")
        self._x, self._y, self._classes = dataset.inputs, dataset.targets, dataset.outputs
        check_labels(self._x, self._y, self._classes)
        self._p, self._total, self._seed, self._device, self._epoch = (
            params,
            epochs,
            seed,
            device,
            0,
        )
        self._scale = float(self._x.float().square().mean().sqrt().clamp(min=1e-12))
        self._basis = so3_basis().to(device)
        channels, height, width = self._x.shape[1:]
        self._discriminator = Discriminator(
            channels + self._classes, height, width, params.width, random_stream(seed, 2)
        )
        weights = self._discriminator.weights
        for name, w in weights.items():
            weights[name] = w.to(device).requires_grad_(True)
        self._start = (0.1 * torch.randn(k, 3, generator=random_stream(seed, 0))).to(device)
        self._theta = self._start.clone().requires_grad_(True)
        self._losses = torch.zeros(k)
        betas = (params.beta1, 0.999)
        self._adam_g = Adam([self._theta], params.learning_rate_generator, betas)
        self._adam_d = Adam(weights.values(), params.learning_rate_discriminator, betas)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self._epoch

    @property
    def total_epochs(self) -> int:
        """Number of epochs in the spec."""
        return self._total

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights, gradients and Adam's two moments, float32; without the dataset."""
        return 4 * 4 * sum(t.numel() for _, t, _ in self._trained())

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Run one pass over the data: for each batch a step of the generator, then one of D.

        Args:
            on_step: Called after each batch.

        Returns:
            The mean losses ``loss`` (of the generator) and ``discriminator``. For the first channel
            also ``magnitude``, ``‖θ‖``, the standard deviation of the rotation's angle in radians,
            and ``moved``, the distance of θ from its start in radians. A θ that has hardly moved
            says nothing.
        """
        p, samples = self._p, len(self._x)
        generator = random_stream(self._seed, 1, self._epoch)
        order = torch.randperm(samples, generator=generator)
        steps, total = math.ceil(samples / p.batch_size), torch.zeros(2)
        for i, indices in enumerate(order.split(p.batch_size)):
            real = self._batch(indices)
            g = self._elements(torch.randn(len(indices), len(self._theta), generator=generator))
            check_finite(g.detach(), "a rotation")
            fake = rotate(real, g)
            inputs = self._x.shape[1]
            alike = functional.cosine_similarity(
                real[:, :inputs].flatten(1), fake[:, :inputs].flatten(1)
            )
            loss = (
                _cross_entropy(self._discriminator(fake), 1.0)
                + p.cosine_weight * alike.abs().mean()
                + p.channel_weight * self._overlap()
            )
            # Set by hand, since the discriminator's weights need no gradient here.
            (self._theta.grad,) = torch.autograd.grad(loss, [self._theta])
            self._adam_g.step()
            discriminator_loss = (
                _cross_entropy(self._discriminator(real), 1.0)
                + _cross_entropy(self._discriminator(fake.detach()), 0.0)
            ) / 2
            self._adam_d.zero_grad()
            discriminator_loss.backward()
            self._adam_d.step()
            now = torch.stack([loss.detach(), discriminator_loss.detach()]).cpu()
            total += now * len(indices)
            on_step(i + 1, steps, {"loss": float(now[0]), "discriminator": float(now[1])})
        mean, theta = total / samples, self._theta.detach()
        check_finite(mean, "the adversaries' loss")
        check_finite(theta, "the generators")
        # All channels move a sample together, so every channel has the same loss.
        self._losses = mean[:1].repeat(len(theta))
        self._epoch += 1
        return {
            "loss": float(mean[0]),
            "discriminator": float(mean[1]),
            "magnitude": float(theta[0].norm()),
            "moved": float((theta - self._start)[0].norm()),
        }

    @torch.no_grad()
    def report(self) -> AlgebraReport:
        """Report the generators ``θ_c · L``, and how well the discriminator tells them.

        ``losses`` holds the generator's mean loss in the last epoch, the same for every channel (0
        before the first epoch).

        ``relative_errors`` holds, for the ``g = exp(w θ_c · L)`` of each channel alone, the
        discriminator's accuracy above chance, ``max(0, 2 · accuracy − 1)``, on equal numbers of
        moved and unmoved samples: 0 if it can only guess, 1 if it is always right. This is no
        equivariance error: it is also small for a weak discriminator, and for a g near the
        identity. So ``symmetry_count`` is always 0.
        """
        theta = self._theta.detach().cpu()
        axes = []
        for t in theta:
            axis = ", ".join(f"{float(a):.2f}" for a in functional.normalize(t, dim=0))
            axes.append(f"{float(t.norm()):.2g} rad about ({axis})")
        return AlgebraReport(
            generators=torch.einsum("ka,aij->kij", theta, so3_basis()),
            losses=self._losses.tolist(),
            relative_errors=self._told_apart(),
            noise_floor=0.0,
            symmetry_count=0,
            spectrum=[],
            start_losses=[],
            explanation=(
                "an adversary's training measures no equivariance error, so it claims no symmetry "
                f"by itself: compare seeds (here: {'; '.join(axes)})"
            ),
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return all trained tensors, Adam's moments, the last losses, the kind and the epoch."""
        tensors = {"losses": self._losses.clone()}
        for name, value, adam in self._trained():
            tensors[name] = value.detach().clone()
            for moment, t in adam.state.get(value, {}).items():
                tensors[f"adam.{name}.{moment}"] = t.clone()
        return tensors, {"kind": self.kind, "epoch": str(self._epoch)}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restore what :meth:`state` returned. Raises ``InvalidInput`` if it does not fit."""
        epoch = check_kind(metadata, self.kind)
        losses = restore(tensors, "losses", self._losses)
        values, moments = dict[str, Tensor](), dict[str, dict[str, Tensor]]()
        for name, value, _ in self._trained():
            values[name] = restore(tensors, name, value.detach())
            if epoch:
                moments[name] = {"step": restore(tensors, f"adam.{name}.step", torch.zeros(()))}
                for moment in ("exp_avg", "exp_avg_sq"):
                    moments[name][moment] = restore(
                        tensors, f"adam.{name}.{moment}", value.detach()
                    )
        # Nothing was changed before everything was found to fit.
        for name, value, adam in self._trained():
            with torch.no_grad():
                value.copy_(values[name])
            adam.state.pop(value, None)
            if epoch:
                adam.state[value] = moments[name]
        self._losses, self._epoch = losses, epoch

    def _trained(self) -> Iterator[tuple[str, Tensor, Adam]]:
        """Yield each trained tensor with its name in the state and its optimiser."""
        yield "theta", self._theta, self._adam_g
        for name, weight in self._discriminator.weights.items():
            yield f"discriminator.{name}", weight, self._adam_d

    def _batch(self, indices: Tensor) -> Tensor:
        """The discriminator's view ``[B, ch + classes, H, W]`` of samples ``indices [B]``."""
        at = indices.to(self._x.device)
        x = (self._x[at].to(self._device, torch.float32)) / self._scale
        labels = self._y[at, 0].to(self._device).long()
        y = torch.zeros(len(x), self._classes, *x.shape[2:], device=self._device)
        return torch.cat([x, y.scatter_(1, labels[:, None], 1.0)], 1)

    def _elements(self, w: Tensor) -> Tensor:
        """Compute ``exp(Σ_c w_c θ_c · L)`` for ``w [B, k]``: ``[B, 3, 3]``."""
        return lie.expm(lie.combine(self._basis, w.to(self._device) @ self._theta))

    def _overlap(self) -> Tensor:
        """Compute ``Σ_{c<d} |cos(θ_c, θ_d)|``.

        It equals the cosine of the matrices, since the L are orthogonal and of one norm.
        """
        unit = functional.normalize(self._theta, dim=1)
        return (unit @ unit.T).abs().triu(1).sum()

    def _told_apart(self) -> list[float]:
        generator = random_stream(self._seed, 91)
        indices = torch.randperm(len(self._x), generator=generator)[: self._p.evaluation]
        right = torch.zeros(len(self._theta))
        for part in indices.split(self._p.batch_size):
            real = self._batch(part)
            unmoved = (self._discriminator(real) > 0).sum().cpu()
            w = torch.randn(len(part), generator=generator)
            for c in range(len(right)):
                only = torch.zeros(len(part), len(right))
                only[:, c] = w
                moved = self._discriminator(rotate(real, self._elements(only)))
                right[c] += unmoved + (moved <= 0).sum().cpu()
        accuracy = right / (2 * len(indices))
        return (2 * accuracy - 1).clamp(min=0).tolist()


def check_labels(inputs: Tensor, targets: Tensor, classes: int) -> None:
    """Check class labels.

    Args:
        inputs: ``[N, ch, H, W]``.
        targets: The labels.
        classes: Number of classes.

    Raises:
        InvalidInput: The targets are not ``[N, 1, H, W]``, or not whole numbers from 0 to
            ``classes`` − 1, or there are fewer than two classes.
    """
    n, _, height, width = inputs.shape
    if targets.shape != (n, 1, height, width) or classes < 2:
        raise InvalidInput(
            f"targets {list(targets.shape)} with {classes} outputs are no class labels",
            "algebra.dataset",
            f"labels [{n}, 1, {height}, {width}] of at least two classes",
            "use a dataset of labelled fields",
        )
    if not bool(((targets == targets.round()) & (targets >= 0) & (targets < classes)).all()):
        raise InvalidInput(
            "some targets are no class labels",
            "algebra.dataset",
            f"whole numbers from 0 to {classes - 1}",
        )


def _cross_entropy(logits: Tensor, truth: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))
