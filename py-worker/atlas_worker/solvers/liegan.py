"""LieGAN (Yang, Walters, Dehmamy, Yu, "Generative Adversarial Symmetry Discovery", ICML 2023, arXiv 2302.00236) for global rotations of a sphere.

A baseline (METHOD 3.3): it looks at inputs and labels, and needs no predictor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from .. import lie
from ..errors import InvalidInput
from ..fields.sphere import SphereAtlas, rotate, so3_basis
from ..registry import param, register
from ..roles import AlgebraReport, Dataset
from ..trainable import StepCallback
from .state import check_finite, check_kind, random_stream, restore

SLOPE = 0.2
"""Of the leaky ReLUs."""


@dataclass(frozen=True)
class LieGanParams:
    batch_size: int = param(16, "Samples a step", minimum=1)
    learning_rate_discriminator: float = param(2e-4, "Adam's, of the discriminator", minimum=0)
    learning_rate_generator: float = param(1e-3, "Adam's, of the generators", minimum=0)
    beta1: float = param(0.5, "Adam's, of both", minimum=0, maximum=0.999)
    cosine_weight: float = param(
        1e-2, "Weight of |cos(x, g·x)|, which keeps g away from the identity", minimum=0
    )
    channel_weight: float = param(
        1.0, "Weight of |cos| between generators, which keeps them apart", minimum=0
    )
    width: int = param(
        12,
        "Channels of the discriminator's first layer; the next have twice as many each",
        minimum=1,
        maximum=512,
    )
    evaluation: int = param(256, "Samples on which the discriminator is scored for the report", minimum=1)


class Discriminator:
    """A logit of "these are the data as they are", from fields ``[B, ch, H, W]`` on the sphere: ``[B]``.

    Three 3×3 convolutions of stride 2 with leaky ReLUs, then a linear layer that knows where things are: a group that moves fields only
    to where data are found too is what is looked for. Columns go round; at the poles the last row is repeated.
    """

    def __init__(self, channels: int, height: int, width: int, features: int, seed: torch.Generator) -> None:
        sizes = [channels, features, 2 * features, 4 * features]
        shapes = [(out, into, 3, 3) for into, out in pairwise(sizes)]
        for _ in shapes:
            height, width = -(-height // 2), -(-width // 2)
        self.weights: dict[str, Tensor] = {}
        for i, shape in enumerate([*shapes, (1, sizes[-1] * height * width)]):
            # He's initialisation for this slope.
            deviation = math.sqrt(2 / ((1 + SLOPE**2) * math.prod(shape[1:])))
            self.weights[f"{i}.weight"] = deviation * torch.randn(shape, generator=seed)
            self.weights[f"{i}.bias"] = torch.zeros(shape[0])

    def __call__(self, fields: Tensor) -> Tensor:
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
    "LieGAN on subgroups of SO(3) that turn a whole sphere: an adversary looks at inputs and labels",
    LieGanParams,
)
class LieGan:
    """Generators ``θ_c · L`` of rotations that make data which a discriminator cannot tell from the data.

    ``θ [k, 3]``, drawn from N(0, 0.1²), mixes the three generators of so(3); an element is ``g = exp(Σ_c w_c θ_c · L)`` with
    ``w ~ N(0, I_k)``, one a sample. Both play ``min_θ max_D E[log D(x, y) + log(1 − D(g·x, g·y))]`` by binary cross-entropy, the generator in the
    form that does not saturate, ``−E[log D(g·x, g·y)]``, plus ``cosine_weight · E|cos(x, g·x)|`` and
    ``channel_weight · Σ_{c<d} |cos(θ_c, θ_d)|``.

    What the adversary sees are the inputs, in units of their root mean square, and the labels as one channel a class, background
    too: which class that is, nobody says here.

    ``dataset``: inputs ``[N, ch, H, W]`` on a whole sphere, targets ``[N, 1, H, W]``, class labels below ``dataset.outputs``. ``atlas``: a
    ``SphereAtlas``, which says that the lattice is a sphere's; its charts play no part.

    A small angle is no sign that there is no symmetry. Moved fields are interpolated, and they are not among the samples: both can give them
    away, and the published weight of the cosine is weak against that. On spheres with a blob at one latitude, symmetric about one axis
    exactly, 17 of 18 runs with it ended within 0.05 rad of the identity; with a weight of 1, 25 of 26 within a degree of the axis.

    Raises ``InvalidInput`` for another atlas, for targets that are no class labels, and unless ``1 <= k <= 3``.
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
                "liegan turns whole spheres", "algebra.atlas", "an atlas on a sphere", "use another solver"
            )
        if not 1 <= k <= 3:
            raise InvalidInput(f"k is {k}", "algebra.k", "from 1 to 3, the dimension of so(3)")
        self._x, self._y, self._classes = dataset.inputs, dataset.targets, dataset.outputs
        check_labels(self._x, self._y, self._classes)
        self._p, self._total, self._seed, self._device, self._epoch = params, epochs, seed, device, 0
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
        self._adam_g = torch.optim.Adam([self._theta], params.learning_rate_generator, betas)
        self._adam_d = torch.optim.Adam(weights.values(), params.learning_rate_discriminator, betas)

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def total_epochs(self) -> int:
        return self._total

    @property
    def memory_bytes(self) -> int:
        """Weights, gradients and Adam's two moments, float32; the data are the dataset's."""
        return 4 * 4 * sum(t.numel() for _, t, _ in self._trained())

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """One pass over the data in random order: a step of the generator, then one of the discriminator, a batch.

        Returns both mean losses, ``loss`` being the generator's, and of the first channel in radians ``magnitude``, ``‖θ‖``, the standard
        deviation of the angle by which its g turns, and ``moved``, how far θ is from where it started: what has hardly moved says nothing.
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
            alike = functional.cosine_similarity(real[:, :inputs].flatten(1), fake[:, :inputs].flatten(1))
            loss = (
                _cross_entropy(self._discriminator(fake), 1.0)
                + p.cosine_weight * alike.abs().mean()
                + p.channel_weight * self._overlap()
            )
            # By hand, as the discriminator's weights need no gradient here.
            (self._theta.grad,) = torch.autograd.grad(loss, [self._theta])
            self._adam_g.step()
            told = (
                _cross_entropy(self._discriminator(real), 1.0)
                + _cross_entropy(self._discriminator(fake.detach()), 0.0)
            ) / 2
            self._adam_d.zero_grad()
            told.backward()
            self._adam_d.step()
            now = torch.stack([loss.detach(), told.detach()]).cpu()
            total += now * len(indices)
            on_step(i + 1, steps, {"loss": float(now[0]), "discriminator": float(now[1])})
        mean, theta = total / samples, self._theta.detach()
        check_finite(mean, "the adversaries' loss")
        check_finite(theta, "the generators")
        # All channels move a sample together, so the loss is every channel's.
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
        """``generators``: ``θ_c · L``. ``losses``: the generator's mean over the last epoch, the same for every channel (0 before the first).

        ``relative_errors``: what the discriminator, as trained, can tell of each channel's own ``g = exp(w θ_c · L)``: accuracy above chance,
        ``max(0, 2 · accuracy − 1)``, on as many moved as unmoved samples; 0 where it can only guess, 1 where it is always right. This
        is not an equivariance error: it is small for a weak discriminator too, and for a g next to the identity. So nothing counts as
        ``found``, whatever it is.
        """
        theta = self._theta.detach().cpu()
        axes = "; ".join(
            f"{float(t.norm()):.2g} rad about ({', '.join(f'{float(a):.2f}' for a in functional.normalize(t, dim=0))})"
            for t in theta
        )
        return AlgebraReport(
            generators=torch.einsum("ka,aij->kij", theta, so3_basis()),
            losses=self._losses.tolist(),
            relative_errors=self._told_apart(),
            noise_floor=0.0,
            found=0,
            spectrum=[],
            start_losses=[],
            verdict=f"an adversary's training measures no equivariance error, so it claims no symmetry by itself: compare seeds (here: {axes})",
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors = {"losses": self._losses.clone()}
        for name, value, adam in self._trained():
            tensors[name] = value.detach().clone()
            for moment, t in adam.state.get(value, {}).items():
                tensors[f"adam.{name}.{moment}"] = t.clone()
        return tensors, {"kind": self.kind, "epoch": str(self._epoch)}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        epoch = check_kind(metadata, self.kind)
        losses = restore(tensors, "losses", self._losses)
        values, moments = dict[str, Tensor](), dict[str, dict[str, Tensor]]()
        for name, value, _ in self._trained():
            values[name] = restore(tensors, name, value.detach())
            if epoch:
                moments[name] = {"step": restore(tensors, f"adam.{name}.step", torch.zeros(()))}
                for moment in ("exp_avg", "exp_avg_sq"):
                    moments[name][moment] = restore(tensors, f"adam.{name}.{moment}", value.detach())
        # Everything fits: only now is anything changed.
        for name, value, adam in self._trained():
            with torch.no_grad():
                value.copy_(values[name])
            adam.state.pop(value, None)
            if epoch:
                adam.state[value] = moments[name]
        self._losses, self._epoch = losses, epoch

    def _trained(self) -> Iterator[tuple[str, Tensor, torch.optim.Adam]]:
        """Every trained tensor: its name in the state, itself, its optimiser."""
        yield "theta", self._theta, self._adam_g
        for name, weight in self._discriminator.weights.items():
            yield f"discriminator.{name}", weight, self._adam_d

    def _batch(self, indices: Tensor) -> Tensor:
        """What the adversary sees of samples ``indices [B]``: ``[B, ch + classes, H, W]``."""
        at = indices.to(self._x.device)
        x = (self._x[at].to(self._device, torch.float32)) / self._scale
        labels = self._y[at, 0].to(self._device).long()
        y = torch.zeros(len(x), self._classes, *x.shape[2:], device=self._device)
        return torch.cat([x, y.scatter_(1, labels[:, None], 1.0)], 1)

    def _elements(self, w: Tensor) -> Tensor:
        """``exp(Σ_c w_c θ_c · L)`` of ``w [B, k]``: ``[B, 3, 3]``."""
        return lie.expm(lie.combine(self._basis, w.to(self._device) @ self._theta))

    def _overlap(self) -> Tensor:
        """``Σ_{c<d} |cos(θ_c, θ_d)|``; the generators of so(3) are orthogonal and of one norm, so this is the matrices' cosine."""
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
    """Raise ``InvalidInput`` unless ``targets`` are whole numbers ``[N, 1, H, W]`` from 0 to ``classes`` − 1, of ``inputs [N, ch, H, W]``."""
    n, _, height, width = inputs.shape
    if targets.shape != (n, 1, height, width) or classes < 2:
        raise InvalidInput(
            f"targets {list(targets.shape)} of {classes} outputs are no class labels",
            "algebra.dataset",
            f"labels [{n}, 1, {height}, {width}] of at least two classes",
            "use a dataset of labelled fields",
        )
    if not bool(((targets == targets.round()) & (targets >= 0) & (targets < classes)).all()):
        raise InvalidInput(
            "some targets are no class labels", "algebra.dataset", f"whole numbers from 0 to {classes - 1}"
        )


def _cross_entropy(logits: Tensor, truth: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))
