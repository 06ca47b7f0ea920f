"""Predictors fitted by supervised learning, and their equivariance objective (METHOD 2.1)."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..catalogue import find, param, parse_params, recorded_params, register
from ..checkpointing import check_finite, check_kind, convert, restore
from ..datasets.checks import refuse_unlearnable
from ..datasets.splits import PARTS, Splits, split
from ..errors import InvalidInput
from ..fields.atlas import LatticeAtlas
from ..interfaces import Dataset, Signature
from ..matching import Misfit, Own, match
from ..optim import AdamW
from ..ranks import (
    Helpers,
    Ranks,
    Share,
    check_divisible,
    computing,
    is_divided,
    own_share,
    shares,
    sum_gradients,
)
from ..reference import translate
from ..rng import random_stream
from ..scores import classifier_scores, overlap_scores, pixel_scores
from ..symmetry import (
    Atlas,
    EquivarianceObjective,
    IcosahedralGrid,
    Inputs,
    LossKind,
    Predictor,
    VectorSpace,
    action_on,
    check_features,
    chosen_charts,
    compared_radius,
    inputs_on,
    lattice_of,
    manifold_of,
    max_batch,
    space_of,
    targets_on,
    written_types,
)
from ..symmetry.averaging import draw
from ..symmetry.charts import ChosenCharts
from ..symmetry.equivariant import Group
from ..symmetry.evidence import Subject
from ..trainable import StepCallback
from .coordinates import InCoordinates, moved_signature
from .foreign import Foreign
from .held_out import EarlyStopping, Skill, measure_skill
from .planted import Breaking, PlantedTargets
from .trial import try_out

MOST_AT_A_TIME = 128
"""Largest number of samples that are predicted at a time."""
BUILT = "built"
"""Entry of a state's metadata that tells what its architecture was built from."""
SAMPLE = 2048
"""Number of inputs from which an architecture may take the scale of the data."""


class ChartwiseModule(Protocol):
    """An architecture: an ``nn.Module`` for all charts at once.

    It may have more attributes:

    - ``facts``, a ``dict[str, str]`` of what the architecture decided;
    - ``reference_layout``, the :class:`~atlas_worker.reference.Layout` of the reference code's
      checkpoints of this architecture, or None;
    - ``difference_step`` and ``resolution``, see :class:`~atlas_worker.predictors.foreign.Foreign`.
    """

    halo: int
    """Pixels beyond the chart's radius that the network reads."""

    def __call__(
        self, x: Tensor, charts: Tensor | None = None, radius: int | None = None
    ) -> Tensor:
        """Compute the outputs.

        Args:
            x: ``[B, C, in, s + 2 halo, s + 2 halo]`` with s = 2 r_in + 1. For sets of vectors
                ``[B, 1, m, n]``, on an icosahedral grid ``[B, 1, in, P]``.
            charts: Indices of the charts that x was drawn for; None for all in order.
            radius: Radius of the inner part of the output to return; None for all. Always None
                except for planar charts.

        Returns:
            ``[B, C, out, s, s]``. For sets of vectors ``[B, 1, out]``, on an icosahedral grid
            ``[B, 1, out, P]``.
        """
        ...


@dataclass(frozen=True)
class SupervisedParams:
    """Parameters of the training ``supervised`` (METHOD 2.1)."""

    batch_size: int = param(16, "Samples in each step", minimum=1)
    learning_rate: float = param(1e-3, "Learning rate of AdamW", minimum=0)
    schedule: Literal["constant", "cosine"] = param(
        "constant", "Course of the learning rate; with cosine it falls to zero"
    )
    epsilon: float = param(
        1e-8,
        "Epsilon of AdamW; raise it so that weights the data do not constrain stop drifting",
        minimum=1e-12,
    )
    weight_decay: float = param(
        0.0, "Weight decay of AdamW, for weights but not for biases and norms", minimum=0
    )
    loss: Literal["l1", "l2", "cross_entropy", "jaccard"] = param(
        "l1",
        "Mean absolute difference, or mean squared one in units of each output's variance; or, for "
        "classes, cross-entropy or the soft Jaccard index",
    )
    background_weight: float = param(
        1.0, "Weight of background pixels in the cross-entropy", minimum=0
    )
    precision: Literal["float32", "bfloat16"] = param(
        "float32",
        "Precision of matrix products during training",
    )
    validation: float = param(
        0.0,
        "Fraction of the samples that choose the best epoch, drawn by whole scenes",
        minimum=0,
        maximum=0.9,
        added=True,
    )
    test: float = param(
        0.0,
        "Fraction of the samples for the final skill, likewise",
        minimum=0,
        maximum=0.9,
        added=True,
    )
    patience: int = param(
        0,
        "Epochs without a better validation loss after which the training stops; 0: never",
        minimum=0,
        added=True,
    )
    split_seed: int = param(0, "Seed of the choice of these samples", minimum=0, added=True)
    left_out: int = param(
        0,
        "Which fifth of the training samples is left out, from 1 to 5, for a refit; 0: none",
        minimum=0,
        maximum=PARTS,
        added=True,
    )
    planted: float = param(
        0.0,
        "Size of a random breaking that is added to the targets, in standard deviations; for "
        "classes the share of labels that are changed; 0: none",
        minimum=0,
        maximum=1,
        added=True,
    )
    planted_length: float = param(
        1.0,
        "Length over which the breaking changes, in standard deviations of the inputs; on fields "
        "in pixels",
        minimum=0.01,
        maximum=64,
        added=True,
    )
    coordinates: int = param(
        0,
        "Seed of other coordinates in which sets of vectors are fitted; 0: their own",
        minimum=0,
        added=True,
    )
    samples: int = param(
        0,
        "Samples to train and validate with, drawn from those not for the test; 0: all",
        minimum=0,
        added=True,
    )
    augment: float = param(
        0.0,
        "Size of the moves by which training samples are moved at random, drawn from the group of "
        "the tensors `augment_algebra` and `augment_components`; 0: none",
        minimum=0,
        maximum=10,
        added=True,
    )


@register(
    "training",
    "supervised",
    "AdamW on the mean loss over samples and charts",
    SupervisedParams,
)
class FittedPredictor:
    """One network for each chart, trained as one batched computation (METHOD 2.1).

    Made by :func:`make_predictor`.

    Args:
        params: The parameters.
        module: The architecture, see :class:`ChartwiseModule`.
        kind: The architecture's kind, as it is recorded in snapshots.
        built: What :func:`build` needs to make the module again. States hold it.
        dataset: The data.
        atlas: The charts.
        epochs: Total number of passes over the data.
        seed: Seed of the order of the data.
        device: Device of the predictor.
        moves: Group from which training samples are moved; None for no moves.

    Attributes:
        splits: The training, validation and test samples; None if none are held out.
        breaking: The breaking that is planted in the targets; None for none.
    """

    def __init__(
        self,
        params: SupervisedParams,
        *,
        module: nn.Module,
        kind: str,
        built: str = "",
        dataset: Dataset,
        atlas: Atlas,
        epochs: int,
        seed: int,
        device: torch.device,
        moves: Group | None = None,
    ) -> None:
        self._p, self._kind, self._built, self._moves = params, kind, built, moves
        self._total, self._seed = epochs, seed
        self._module = module.to(device)
        self.atlas, self.halo = atlas, cast(ChartwiseModule, module).halo
        materialise = epochs > 0  # without epochs no sample is drawn twice
        check_features(atlas, dataset, labels=self.loss != "l1")
        self.splits = split(
            dataset,
            params.validation,
            params.test,
            params.split_seed,
            "predictor.training",
            params.left_out,
            params.samples,
        )
        self._stopping = EarlyStopping(params.patience)
        self._x = inputs_on(
            atlas, dataset, self.halo, margin=0, materialise=materialise, device=device
        )
        self._y = targets_on(
            atlas, dataset, labels=self.loss != "l1", materialise=materialise, device=device
        )
        self._outputs = dataset.outputs
        self.breaking: Breaking | None = None
        if params.planted:
            self.breaking = self._plant(dataset)
            self._y = PlantedTargets(self._x, self._y, self.breaking)
        self._epoch = 0
        self._helpers: Helpers | None = None
        self._unchecked: Dataset | None = dataset  # until the first epoch
        self._unit: Tensor | None = None
        if params.loss == "l2" and epochs > 0:
            y = dataset.targets
            variance = y.double().var([d for d in range(y.dim()) if d != 1], correction=0)
            self._unit = torch.where(variance > 0, variance, 1.0).float().to(device)
        self._class_weights: Tensor | None = None
        if dataset.background is not None and params.background_weight != 1:
            self._class_weights = torch.ones(dataset.outputs, device=device)
            self._class_weights[dataset.background] = params.background_weight
        weights = list(self._module.parameters())
        # The biases and norms of all charts are [C, width].
        vector = 2 if manifold_of(atlas) in ("planar", "lattice") else 1
        self._optimiser = AdamW(
            [
                {
                    "params": [w for w in weights if w.dim() > vector],
                    "weight_decay": params.weight_decay,
                },
                {"params": [w for w in weights if w.dim() <= vector], "weight_decay": 0.0},
            ],
            lr=params.learning_rate,
            eps=params.epsilon,
            fused=True,
        )

    def _plant(self, dataset: Dataset) -> Breaking:
        """Make the breaking that is planted in the targets."""
        p, labels = self._p, self.loss != "l1"
        unit = torch.ones(dataset.outputs)
        if not labels:
            # Some samples are enough, and fields may be too many to read.
            every = torch.arange(0, len(dataset.inputs), max(1, len(dataset.inputs) // SAMPLE))
            y = self._y.draw(every, None)
            unit = y.double().std([d for d in range(y.dim()) if d != 2], correction=0).float().cpu()
        return Breaking(
            self._x,
            dataset.outputs,
            classes=dataset.outputs if labels else 0,
            length=p.planted_length,
            share=p.planted,
            unit=unit,
            halo=self.halo,
            seed=self._seed,
        )

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self._epoch

    @property
    def total_epochs(self) -> int:
        """Number of epochs in the spec."""
        return self._total

    @property
    def module(self) -> nn.Module:
        """The architecture itself, not a copy."""
        return self._module

    @property
    def parameters(self) -> int:
        """Number of trained weights of all charts."""
        return sum(p.numel() for p in self._module.parameters())

    @property
    def facts(self) -> dict[str, int | str]:
        """``parameters``, the numbers of samples in a split, and the facts of the architecture."""
        sizes = {} if self.splits is None else self.splits.sizes
        return {"parameters": self.parameters, **sizes, **getattr(self._module, "facts", {})}

    @property
    def device(self) -> torch.device:
        """Device of the predictor."""
        return self._x.device

    @property
    def max_batch(self) -> int:
        """Number of samples to predict at a time, given their size."""
        return min(max_batch(self._x.shape), MOST_AT_A_TIME)

    @property
    def difference_step(self) -> float:
        """Step of differences in place of gradients, which the network lacks; 0 for gradients."""
        return float(getattr(self._module, "difference_step", 0.0))

    @property
    def resolution(self) -> float:
        """Smallest step of a difference that the network's precision resolves; 0 for any."""
        return float(getattr(self._module, "resolution", 0.0))

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights, gradients and two moments in float32, and of samples that are kept."""
        return 4 * 4 * self.parameters + self._x.memory_bytes + self._y.memory_bytes

    @property
    def loss(self) -> LossKind:
        """Loss by which predictions are compared: that of the training, or absolute differences."""
        return "l1" if self._p.loss == "l2" else self._p.loss

    @property
    def class_weights(self) -> Tensor | None:
        """Weight of each class in the loss, ``[classes]``; None for equal weights."""
        return self._class_weights

    def judged_on(self, data: Dataset, fitted: bool) -> Dataset:
        """Make the samples and targets by which evidence judges the predictor.

        Args:
            data: The samples.
            fitted: Whether the predictor was fitted to them.

        Returns:
            As many samples in the same order.
        """
        return data

    def baseline(self) -> Predictor | None:
        """Return what knows nothing of the task; None for the mean of the targets."""
        return None

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """Run one pass over the data in random order.

        Args:
            on_step: Called after each step.

        Returns:
            The mean ``loss``; with held-out samples also the ``validation_loss`` and the
            ``best_epoch``, and at the end the ``skill`` with its ``skill_error``. After an early
            stop nothing is done, and the last metrics are returned again.

        Raises:
            InvalidInput: All targets are the same, or no class labels where the loss needs them.
        """
        if self._stopping.ended:
            self._epoch += 1
            on_step(1, 1, {})
            return self._stopping.metrics
        if (data := self._unchecked) is not None:
            classes = None if self.loss == "l1" else data.outputs
            refuse_unlearnable(data.targets, classes, "predictor.dataset")
            self._unchecked = None
        last = self._epoch + 1 == self._total
        others = self._helpers
        with nullcontext() if others is None else others.epoch(self.state(), last) as ranks:
            mean = self._pass(on_step, ranks)
        check_finite(mean, "the predictor's loss")
        self._epoch += 1
        return {"loss": float(mean), **self._held_out(float(mean))}

    def divide(self, helpers: Helpers) -> None:
        """Train with other ranks from now on.

        Args:
            helpers: The other ranks.

        Raises:
            InvalidInput: The architecture does not allow it.
        """
        kind = find("architecture", self._kind, "predictor.architecture")
        check_divisible(self._module, kind.kind, kind.executes_code)
        self._helpers = helpers

    def help_epoch(self, ranks: Ranks) -> None:
        """Compute this rank's share of an epoch that rank 0 runs."""
        self._pass(lambda *_: None, ranks)

    def _pass(self, on_step: StepCallback, ranks: Ranks | None) -> Tensor:
        """Go once over the training samples in random order, and return the mean loss."""
        p, splits = self._p, self.splits
        samples = len(self._x) if splits is None else len(splits.training)
        order = torch.randperm(samples, generator=random_stream(self._seed, 1, self._epoch))
        if splits is not None:
            order = splits.training[order]
        steps = math.ceil(samples / p.batch_size)
        self._module.train()
        total = torch.zeros((), device=self._x.device)
        for i, indices in enumerate(order.split(p.batch_size)):
            done = (self._epoch + i / steps) / max(self._total, 1)
            factor = (
                0.5 * (1 + math.cos(math.pi * min(done, 1.0))) if p.schedule == "cosine" else 1.0
            )
            for group in self._optimiser.param_groups:
                group["lr"] = p.learning_rate * factor
            g = self._drawn(len(indices), i)
            if ranks is None:
                loss = self._batch_loss(indices, g)
                self._optimiser.zero_grad()
                loss.backward()
            else:
                loss = self._divided_loss(indices, g, ranks)
            self._optimiser.step()
            total += loss.detach() * len(indices)
            on_step(i + 1, steps, {"loss": float(loss.detach())} if i % 8 == 0 else {})
        return total / samples

    def _divided_loss(self, indices: Tensor, g: Tensor | None, ranks: Ranks) -> Tensor:
        """Compute the loss of a batch and its gradients, with the other ranks."""
        own = shares(len(indices), ranks)
        mine, loss = indices[own], None
        self._optimiser.zero_grad()
        if len(mine):
            part = None if g is None else g[own]
            divided = is_divided(len(indices), ranks)
            share = Share(ranks, len(mine), len(indices))
            with computing(share) if divided else nullcontext():
                loss = self._batch_loss(mine, part)
                loss.backward()
        return sum_gradients(self._module.parameters(), loss, ranks)

    def _held_out(self, loss: float) -> dict[str, float]:
        """Look at the held-out samples after an epoch of the given training ``loss``."""
        splits, stopping, metrics = self.splits, self._stopping, dict[str, float]()
        if splits is None:
            return metrics
        stop = self._epoch == self._total
        if len(splits.validation):
            with torch.no_grad():
                self._module.eval()
                parts = splits.validation.split(self.max_batch)
                sums = sum(self._batch_loss(part) * len(part) for part in parts)
            mean = torch.as_tensor(sums) / len(splits.validation)
            check_finite(mean, "the predictor's validation loss")
            stop = stopping.see(self._module, self._epoch, float(mean)) or stop
            best = float(stopping.best_epoch)
            metrics = {"validation_loss": float(mean), "best_epoch": best}
        if stop:
            stopping.end(self._module)
            self._optimiser.state.clear()
            if stopping.best_epoch:
                metrics["validation_loss"] = stopping.best_loss
            if len(splits.test):
                metrics |= self._skill().metrics
            stopping.metrics = {"loss": loss, **metrics}
        return metrics

    def _skill(self) -> Skill:
        """Measure the skill on the test samples (METHOD 2.1)."""
        labels, weights = self.loss != "l1", self._class_weights

        def predict(indices: Tensor) -> Tensor:
            y = self._module(self._x.draw(indices, None)).float()
            return cast(Tensor, y.softmax(2) if labels else y)

        def label(indices: Tensor) -> Tensor:
            return self._y.draw(indices, None)[:, :, 0].long()

        def targets(indices: Tensor) -> Tensor:
            if not labels:
                return self._y.draw(indices, None)
            return functional.one_hot(label(indices), self._outputs).movedim(-1, 2)

        def weight(indices: Tensor) -> Tensor:
            return cast(Tensor, weights)[label(indices)][:, :, None]

        self._module.eval()
        weigh = None if weights is None else weight
        return measure_skill(predict, targets, weigh, cast(Splits, self.splits), self.max_batch)

    def _drawn(self, count: int, step: int) -> Tensor | None:
        """Draw a matrix ``[count, 1, n, n]`` for each sample of a step, if samples are moved."""
        if self._moves is None:
            return None
        stream = random_stream(self._seed, 97, self._epoch, step)
        return draw(self._moves, count, self._p.augment, stream)[:, None].to(self._x.device)

    def _batch_loss(self, indices: Tensor, g: Tensor | None = None) -> Tensor:
        """The loss of a batch, or the part of it that a rank's share adds to it."""
        x, target = self._x.draw(indices, None), self._y.draw(indices, None)
        if g is not None:
            action = action_on(self.atlas)
            x, target = action.act_in(g, x), action.act_out(g, target)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._p.precision == "bfloat16"):
            predicted = self._module(x)
        predicted, mine = predicted.float(), own_share()
        part = 1 if mine is None else mine.part
        if self._p.loss == "l1":
            return functional.l1_loss(predicted, target) * part
        if self._p.loss == "l2":
            squares = (predicted - target).square()
            unit = cast(Tensor, self._unit).view(-1, *[1] * (squares.dim() - 3))
            return cast(Tensor, (squares / unit).mean() * part)
        labels = target[:, :, 0].long()
        if self._p.loss == "jaccard":
            return jaccard_loss(predicted, labels)
        return cross_entropy(predicted.flatten(0, 1), labels.flatten(0, 1), self._class_weights)

    def predict(self, crops: Tensor) -> Tensor:
        """Predict in evaluation mode, without gradients.

        Args:
            crops: ``[B, C, channels, s, s]``, or ``[B, 1, m, n]`` for sets of vectors.

        Returns:
            ``[B, C, out, s, s]``, or ``[B, 1, out]`` for sets of vectors.

        Raises:
            InvalidInput: ``crops`` has another shape.
        """
        expected = self._x.shape
        if crops.shape[1:] != expected:
            raise InvalidInput(
                f"crops have shape {list(crops.shape)}",
                "crops",
                f"[batch, {', '.join(map(str, expected))}]",
            )
        with torch.no_grad():
            return self.freeze()(crops, None)

    def crops(self, indices: Tensor, dataset: Dataset) -> Tensor:
        """Cut the inputs of :meth:`predict` from the samples ``indices [B]`` of a dataset."""
        return self._inputs(dataset).draw(indices, None)

    def predict_classes(self, outputs: Tensor, dataset: Dataset) -> Tensor:
        """Assign a class to each pixel of the dataset's lattice.

        A pixel has the class that the nearest chart, or pixel of the icosahedral grid, gives it.

        Args:
            outputs: Logits ``[B, C, classes, ...]``.
            dataset: The dataset that the crops come from.

        Returns:
            ``[B, H, W]`` int64; −1 where there is no chart.

        Raises:
            InvalidInput: The predictor is no classifier, or the data are sets of vectors.
        """
        atlas = self.atlas
        self._check_classifier()
        if isinstance(atlas, VectorSpace):
            raise InvalidInput(
                "only fields have a class for each pixel", "classes", "false", "leave it out"
            )
        if isinstance(atlas, IcosahedralGrid):
            chart_index_map = lattice_of(dataset).nearest_grid_pixels(atlas.resolution)
        else:
            chart_index_map = atlas.chart_index_map(dataset.inputs.shape)
        chart_index_map = chart_index_map.to(outputs.device)
        classes = outputs.argmax(2).flatten(1)[:, chart_index_map.clamp(min=0)]
        return classes.masked_fill(chart_index_map < 0, -1)

    def _inputs(self, dataset: Dataset) -> Inputs:
        """The samples of a dataset of the same kind, by charts."""
        self.atlas.check(dataset.inputs.shape)
        return inputs_on(self.atlas, dataset, self.halo, margin=0, device=self.device)

    def scores(
        self, dataset: Dataset, check: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Score a classifier on a dataset.

        Fields on charts are scored at the lattice's pixels, fields on an icosahedral grid at the
        grid's.

        Args:
            dataset: A dataset of the same kind as the one that the predictor was fitted to.
            check: Called between batches; it may raise an error to stop.

        Returns:
            Scores by name, see :mod:`atlas_worker.scores`.

        Raises:
            InvalidInput: The predictor is no classifier, or does not fit the dataset.
        """
        samples = torch.arange(len(dataset.inputs))
        if manifold_of(self.atlas) == "vectors":
            return classifier_scores(
                self.logits(dataset, check).cpu(), dataset.targets[:, 0].long().cpu()
            )
        self._check_classifier()
        predict, labels = self._compared(dataset, check)
        if dataset.classes is not None:
            scenes = samples if dataset.scenes is None else dataset.scenes
            return overlap_scores(predict, labels, scenes, dataset.classes, self.max_batch)
        batches = samples.split(self.max_batch)
        return pixel_scores(
            torch.cat([predict(b) for b in batches]),
            torch.cat([labels(b) for b in batches]),
            dataset.background,
        )

    def logits(self, dataset: Dataset, check: Callable[[], None] = lambda: None) -> Tensor:
        """Compute a classifier's outputs for sets of vectors.

        Args:
            dataset: The sets of vectors.
            check: Called between batches; it may raise an error to stop.

        Returns:
            ``[N, classes]``.

        Raises:
            InvalidInput: The predictor is no classifier of sets of vectors.
        """
        if manifold_of(self.atlas) != "vectors":
            raise InvalidInput(
                "only sets of vectors have one output each", "handle", "sets of vectors"
            )
        self._check_classifier()
        x, outputs = self._inputs(dataset), []
        for indices in torch.arange(len(x)).split(self.max_batch):
            check()
            outputs.append(self.predict(x.draw(indices, None))[:, 0])
        return torch.cat(outputs)

    def _compared(
        self, dataset: Dataset, check: Callable[[], None]
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """Functions that give predicted classes and labels of fields where they are compared.

        Both map samples ``[B]`` to ``[B, pixels]`` int64 on the CPU.
        """
        x = self._inputs(dataset)
        grid = isinstance(self.atlas, IcosahedralGrid)
        y = targets_on(self.atlas, dataset, labels=True) if grid else None

        def predict(indices: Tensor) -> Tensor:
            check()
            outputs = self.predict(x.draw(indices, None))
            return (
                (outputs.argmax(2) if grid else self.predict_classes(outputs, dataset))
                .flatten(1)
                .cpu()
            )

        def labels(indices: Tensor) -> Tensor:
            drawn = (
                dataset.targets[indices.to(dataset.targets.device)]
                if y is None
                else y.draw(indices, None)
            )
            return drawn.flatten(1).long().cpu()

        return predict, labels

    def _check_classifier(self) -> None:
        if self.loss == "l1":
            raise InvalidInput(
                "only a classifier has scores",
                "handle",
                "a predictor trained with the loss cross_entropy or jaccard",
            )

    def digest(self) -> str:
        """Compute a SHA-256 of the weights as they are."""
        known = hashlib.sha256()
        for name, tensor in sorted(self._module.state_dict().items()):
            known.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            # NumPy does not know all types, and a view of bytes needs one dimension.
            values = tensor.detach().cpu().contiguous().flatten()
            known.update(values.view(torch.uint8).numpy().tobytes())
        return known.hexdigest()

    def freeze(self, radius: int | None = None, dtype: torch.dtype = torch.float32) -> Predictor:
        """Copy the predictor as it is, in evaluation mode and without weight gradients.

        Args:
            radius: Radius of the inner part of the output to compute; None for all.
            dtype: Type of the weights.

        Returns:
            The copy.
        """
        with torch.no_grad():  # a copy of a program's weights would be no leaf
            module = copy.deepcopy(self._module).eval().requires_grad_(False).to(dtype)
        frozen = cast(ChartwiseModule, module)
        return lambda x, charts: frozen(x, charts, radius)

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights from elsewhere.

        Args:
            tensors: The weights, by our names or those of the reference code, which may share a
                prefix. Their types are converted. A snapshot of this architecture is accepted too.

        Raises:
            InvalidInput: A tensor does not fit. The error names the first such tensor.
        """
        own = self._module.state_dict()
        kind = find("architecture", self._kind, "weights").kind  # its name today
        needed = {name: Own(t.is_floating_point(), t.shape) for name, t in own.items()}
        try:
            weights = match(tensors, [""], needed).tensors
        except Misfit as error:
            raise InvalidInput(
                f"the weights do not fit the architecture {kind}: {error}",
                "weights",
                f"tensors {', '.join(own)}",
                error.remedy,
            ) from error
        weights = translate(weights, own, getattr(self._module, "reference_layout", None), kind)
        self._module.load_state_dict(
            {name: convert(name, weights.get(name, like), like) for name, like in own.items()}
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the weights, AdamW's moments, and how far the training is.

        The weights of the last epoch are those of the best one if samples are held out. Before,
        those of the best epoch so far are kept beside the present ones.
        """
        tensors = {f"module.{name}": t for name, t in self._module.state_dict().items()}
        for name, p in self._module.named_parameters():
            for key, value in self._optimiser.state.get(p, {}).items():
                tensors[f"adam.{name}.{key}"] = value
        metadata = {"kind": self._kind, "epoch": str(self._epoch)}
        if self._built:
            metadata[BUILT] = self._built
        kept, progress = self._stopping.state()
        return {n: t.detach().clone() for n, t in {**tensors, **kept}.items()}, metadata | progress

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restore what :meth:`state` returned. Raises ``InvalidInput`` if it does not fit."""
        epoch = check_kind(metadata, self._kind)
        own = self._module.state_dict()
        self._module.load_state_dict(
            {name: restore(tensors, f"module.{name}", like) for name, like in own.items()}
        )
        self._optimiser.state.clear()
        for name, p in self._module.named_parameters():
            if f"adam.{name}.step" in tensors:
                like = {"step": torch.zeros((), device=p.device), "exp_avg": p, "exp_avg_sq": p}
                self._optimiser.state[p] = {
                    k: restore(tensors, f"adam.{name}.{k}", v.detach()) for k, v in like.items()
                }
        self._stopping.load_state(self._module, tensors, metadata)
        self._epoch = epoch


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Compute the mean cross-entropy, weighted by the weights of the labels.

    Args:
        logits: ``[B, classes, ...]``.
        labels: ``[B, ...]`` int64.
        weights: Weight of each class, ``[classes]``; None for equal weights.

    Returns:
        A scalar; on one of several ranks its part of the mean over all of them.
    """
    mine = own_share()
    if mine is None:
        return functional.cross_entropy(logits, labels, weights)
    own = functional.cross_entropy(logits, labels, weights, reduction="sum")
    weight = own.new_tensor(labels.numel()) if weights is None else weights[labels].sum()
    return own / mine.sum(weight)


def jaccard_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute one minus the mean soft Jaccard index of the classes, averaged over charts.

    The index of a class is ``Σ p t / Σ (p + t − p t)`` over batch and pixels, with its probability
    p and its label t, 0 or 1. This is the loss of CGNet on ClimateNet (Kapp-Schwoerer et al. 2020,
    "Spatio-temporal segmentation and tracking of weather patterns with light-weight neural
    networks").

    A class without labels in the batch would have the index 0 whatever is predicted, so it is left
    out of the mean. Its predictions still count where they take from other classes.

    Args:
        logits: ``[B, C, classes, ...]``.
        labels: ``[B, C, ...]`` int64.

    Returns:
        A scalar; on one of several ranks its part of the loss of the whole batch.
    """
    mine = own_share()
    p = logits.softmax(2)
    classes = torch.arange(p.shape[2], device=p.device).view(-1, *[1] * (p.dim() - 3))
    t = (labels[:, :, None] == classes).to(p)
    over = [0, *range(3, p.dim())]
    both, present, likely = (p * t).sum(over), t.sum(over), p.sum(over)
    if mine is not None:
        both, present, likely = mine.sum(torch.stack([both, present, likely])).unbind()
    index = both / (likely + present - both).clamp(min=1e-7)
    counted = present > 0
    loss = (1 - (index * counted).sum(1) / counted.sum(1)).mean()
    return loss if mine is None else loss / mine.ranks.size


def make_predictor(
    architecture: tuple[str, Mapping[str, Any]],
    training: tuple[str, Mapping[str, Any]],
    dataset: Dataset,
    atlas: Atlas,
    epochs: int,
    seed: int,
    device: torch.device,
    tensors: Mapping[str, Tensor] | None = None,
) -> FittedPredictor:
    """Make a predictor that is not trained yet.

    Args:
        architecture: Kind and parameters of the network.
        training: Kind and parameters of the training.
        dataset: The data to train on.
        atlas: The charts.
        epochs: Total number of passes over the data; 0 for a network that is given.
        seed: Seed of the initial weights and of the order of the data.
        device: Device of the predictor.
        tensors: Tensors that the architecture is built from, by name.

    Returns:
        The predictor.

    Raises:
        InvalidInput: The architecture does not fit the task, or charts leave the lattice.
        NotReady: The dataset is not made yet.
    """
    block = find("architecture", architecture[0], "predictor.architecture")
    params: Any = parse_params(block.params, architecture[1], "predictor.architecture")
    recipe = find("training", training[0], "predictor.training")
    how: Any = parse_params(recipe.params, training[1], "predictor.training")
    manifold, sample, examples = manifold_of(atlas), None, None
    if manifold == "vectors":
        sample, examples = dataset.inputs[:SAMPLE], _examples(dataset, getattr(how, "loss", "l2"))
    given = dict(tensors or {})
    moves = _moves(given, atlas, getattr(how, "augment", 0.0))
    signature = Signature(
        manifold,
        len(atlas),
        tuple(dataset.inputs.shape[1:]),
        dataset.outputs,
        radius=getattr(atlas, "r_in", 0),
        resolution=getattr(atlas, "resolution", 0),
        scale=1.0 if sample is None else float(sample.double().square().mean().sqrt()) or 1.0,
        sample=sample,
        examples=examples,
        types=written_types(atlas) if getattr(block.params, "typed", False) else None,
    )
    signature.check_manifold(block)
    other = getattr(how, "coordinates", 0)
    moved, action, d = signature, None, None
    if other:
        moved, action, d = moved_signature(atlas, space_of(atlas, dataset), other, signature)
    module = block.make(params, signature=moved, tensors=given, seed=random_stream(seed, 0))
    if action is not None and d is not None:
        module = InCoordinates(module, action, d)
    if epochs and not any(True for _ in module.parameters()):
        raise InvalidInput(
            f"a predictor of kind {block.kind} has nothing to train",
            "predictor.epochs",
            "0",
            "ask for no epochs, or choose another architecture",
        )
    if isinstance(module, Foreign):
        _try_out(module, dataset, atlas, epochs, device)
    return cast(
        FittedPredictor,
        recipe.make(
            how,
            module=module,
            kind=block.recorded_kind,
            # A fit in other coordinates is only measured, and not used elsewhere.
            built="" if block.executes_code or other else _written(params, signature, given),
            dataset=dataset,
            atlas=atlas,
            epochs=epochs,
            seed=seed,
            device=device,
            **({} if moves is None else {"moves": moves}),
        ),
    )


def _moves(tensors: dict[str, Tensor], atlas: Atlas, size: float) -> Group | None:
    """Take the group from which training samples are moved out of a predictor's tensors.

    Raises:
        InvalidInput: The group is missing or does not fit, or the samples are fields.
    """
    algebra, components = (tensors.pop(f"augment_{n}", None) for n in ("algebra", "components"))
    field = "predictor.training.params.augment"
    if not size:
        if algebra is not None or components is not None:
            raise InvalidInput(
                "a group to move the samples is given, but they are not moved",
                field,
                "a number above 0",
            )
        return None
    if not isinstance(atlas, VectorSpace):
        raise InvalidInput("only sets of vectors are moved in training", field, "0 on fields")
    if algebra is None:
        raise InvalidInput(
            "nothing tells from which group moves are drawn",
            "predictor.tensors",
            "augment_algebra, and augment_components if there are any",
        )
    return Group(algebra, components, atlas.ambient)


def _examples(dataset: Dataset, loss: str) -> tuple[Tensor, Tensor | None]:
    """Inputs and targets of samples at equal distances, since neighbours may be alike."""
    x, y = dataset.inputs, dataset.targets
    chosen = torch.linspace(0, len(x) - 1, min(len(x), SAMPLE)).round().long().to(x.device)
    values = loss in ("l1", "l2") and y.dim() == 2  # neither classes nor sets of vectors
    return x[chosen], y[chosen.to(y.device)] if values else None


def _try_out(
    module: Foreign, dataset: Dataset, atlas: Atlas, epochs: int, device: torch.device
) -> None:
    """Try foreign networks on samples of the dataset. Raises ``InvalidInput``."""
    size = 2 * getattr(atlas, "r_in", 0) + 1
    pixels = () if manifold_of(atlas) == "vectors" else (size, size)
    samples = inputs_on(atlas, dataset, module.halo, margin=0, device=device)
    try_out(module.to(device), samples, (dataset.outputs, *pixels))
    if epochs and module.difference_step:
        raise InvalidInput(
            "the predictor has no gradient to train it by",
            "predictor.epochs",
            "0",
            "ask for no epochs, or give a predictor whose gradients are those of its outputs",
        )


def _written(params: Any, signature: Signature, tensors: Mapping[str, Tensor]) -> str:
    """What an architecture was built from, as JSON.

    The samples are left out: the weights hold what they determine.
    """
    shapes = dataclasses.asdict(dataclasses.replace(signature, sample=None, examples=None))
    del shapes["examples"]  # snapshots of earlier versions do not have it
    if signature.types is None:
        del shapes["types"]
    return json.dumps(
        {
            "params": recorded_params(params),
            "signature": shapes,
            "tensors": {name: t.tolist() for name, t in tensors.items()},
        },
        sort_keys=True,
    )


def build(kind: str, built: str, weights: Mapping[str, Tensor]) -> tuple[nn.Module, Signature]:
    """Make the module of a predictor's saved state again, in evaluation mode.

    Args:
        kind: The kind in the state's metadata.
        built: The entry ``BUILT`` in the state's metadata.
        weights: The weights by our names.

    Returns:
        The module and its signature.

    Raises:
        InvalidInput: The arguments do not belong together.
        ValueError: ``built`` is not the JSON text that it should be.
    """
    said = json.loads(built)
    block = find("architecture", kind, "predictor.architecture")
    if block.executes_code:
        raise InvalidInput(
            f"the code of a {block.kind} predictor is not in its checkpoint",
            "kind",
            "an architecture of Atlas",
        )
    shapes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in said["signature"].items()
    }
    signature = Signature(**shapes)
    module = cast(
        nn.Module,
        block.make(
            parse_params(block.params, said["params"], "predictor.architecture"),
            signature=signature,
            tensors={
                name: torch.tensor(t, dtype=torch.float64) for name, t in said["tensors"].items()
            },
            seed=random_stream(0, 0),
        ),
    )
    module.load_state_dict(
        {name: restore(weights, name, t) for name, t in module.state_dict().items()}
    )
    return module.eval().requires_grad_(False), signature


def make_subject(
    predictor: FittedPredictor,
    dataset: Dataset | None = None,
    refits: Sequence[FittedPredictor] = (),
    fitted_to: Dataset | None = None,
    charts: Atlas | None = None,
) -> tuple[Subject, bool]:
    """Put together what evidence for a symmetry is measured on (METHOD 2.13).

    Args:
        predictor: The predictor.
        dataset: Samples that judge; None for those of ``fitted_to`` that were held back.
        refits: Refits of the predictor on other parts of the training data.
        fitted_to: The predictor's own dataset.
        charts: The predictor's charts, of which some may be chosen; None for all.

    Returns:
        The subject, and whether the samples that judge were held back from the training.
    """
    given = fitted_to if fitted_to is not None else dataset
    assert given is not None
    own = predictor.judged_on(given, fitted_to is not None)
    judge = own if dataset is None or dataset is given else predictor.judged_on(dataset, False)
    atlas = predictor.atlas
    labels = predictor.loss != "l1"
    for data in (own, judge):
        check_features(atlas, data, labels=labels)

    reads = getattr(atlas, "r_in", 0) - (compared_radius(atlas) or 0)

    def on(data: Dataset) -> tuple[Inputs, Inputs | None]:
        # Moved windows need true neighbours; the atlas's margin may be too small for stretches.
        margin = max(getattr(atlas, "margin", 0), predictor.halo or reads)
        if isinstance(atlas, LatticeAtlas):  # no neighbours beyond the edge of small volumes
            room = atlas.room(data.inputs.shape) - predictor.halo
            margin = max(min(margin, room), atlas.margin)
        x = inputs_on(atlas, data, predictor.halo, margin, device=predictor.device)
        if not data.has_targets:
            return x, None
        y: Inputs = targets_on(atlas, data, labels=labels, device=predictor.device)
        if predictor.breaking is not None:
            still = inputs_on(atlas, data, predictor.halo, margin=0, device=predictor.device)
            y = PlantedTargets(still, y, predictor.breaking)
        return x, y

    x, y = on(own)
    test_x, test_y = (x, y) if judge is own else on(judge)
    splits = predictor.splits
    train = torch.arange(len(x)) if splits is None else splits.training
    held = judge is own and splits is not None and len(splits.test) > 0
    test = splits.test if held and splits is not None else torch.arange(len(test_x))
    action = action_on(atlas, predictor.halo)
    chosen = None if charts is None else chosen_charts(charts)

    def among(inputs: Inputs) -> Inputs:
        return inputs if chosen is None else ChosenCharts(inputs, chosen)

    def of(f: Predictor) -> Predictor:
        return f if chosen is None else ChosenCharts(x, chosen).predictor(f)

    baseline = predictor.baseline()
    subject = Subject(
        predictors=[of(p.freeze()) for p in (predictor, *refits)],
        # Linear interpolation smooths coarse lattices, which would count as skill lost.
        action=action.finer_interpolation() if isinstance(atlas, LatticeAtlas) else action,
        inputs=among(test_x),
        targets=None if test_y is None else among(test_y),
        test=test,
        train=train,
        train_inputs=among(x),
        train_targets=None if y is None else among(y),
        classes=judge.outputs if labels else 0,
        class_weights=predictor.class_weights,
        scenes=judge.scenes,
        breaking=predictor.breaking,
        baseline=None if baseline is None else of(baseline),
    )
    return subject, judge is not own or held or not predictor.total_epochs


def make_objective(
    predictor: FittedPredictor,
    dataset: Dataset,
    atlas: Atlas,
    group: Tensor | None = None,
    field: str = "group_algebra",
) -> EquivarianceObjective:
    """Make the objective of a predictor's equivariance on a dataset's inputs.

    Args:
        predictor: The predictor.
        dataset: The inputs.
        atlas: The charts.
        group: Basis ``[d, n, n]`` of the algebra to which the search is restricted; None for none.
        field: The parameter that gave ``group``, for errors.

    Returns:
        The objective that solvers minimise.
    """
    check_features(atlas, dataset, labels=predictor.loss != "l1")
    action = action_on(atlas, predictor.halo)
    inputs = inputs_on(atlas, dataset, predictor.halo, device=predictor.device)
    chosen = chosen_charts(atlas)
    some = None if chosen is None else ChosenCharts(inputs, chosen)

    def on(f: Predictor) -> Predictor:
        return f if some is None else some.predictor(f)

    def targets() -> Inputs:
        labels = predictor.loss != "l1"
        all_charts = targets_on(atlas, dataset, labels=labels, device=predictor.device)
        return all_charts if chosen is None else ChosenCharts(all_charts, chosen)

    return EquivarianceObjective(
        inputs if some is None else some,
        action,
        lambda: on(predictor.freeze()),
        predictor.loss,
        lambda: on(predictor.freeze(compared_radius(atlas))),
        lambda: on(predictor.freeze(dtype=torch.float64)),
        difference_step=predictor.difference_step,
        resolution=predictor.resolution,
        space=space_of(atlas, dataset, group, field),
        targets=targets if dataset.has_targets else None,
        fitted=_learnt_from(predictor, dataset),
        foreign=predictor.total_epochs == 0,
    )


def _learnt_from(predictor: FittedPredictor, dataset: Dataset) -> Tensor | None:
    """Samples of a dataset that were not held back to judge by; None for all."""
    splits = predictor.splits
    if splits is None or not len(splits.test) or len(splits.scenes) != len(dataset.inputs):
        return None
    return torch.cat([splits.training, splits.validation]).sort().values
