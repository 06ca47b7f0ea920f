"""Predictors fitted by supervised learning, one a chart (METHOD 2.1), and the symmetry task that a fitted one poses."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..actions import (
    Atlas,
    IcosahedralGrid,
    Inputs,
    LossKind,
    Predictor,
    SymmetryTask,
    VectorSpace,
    action_on,
    at_once,
    compared_radius,
    inputs_on,
    lattice_of,
    manifold_of,
    targets_on,
)
from ..errors import InvalidInput
from ..published import translate
from ..registry import find, param, parse_params, register
from ..roles import Dataset, Signature
from ..scores import classifier_scores, overlap_scores, pixel_scores
from ..solvers.state import check_finite, check_kind, random_stream, restore
from ..trainable import StepCallback

MOST_AT_ONCE = 128
"""Samples that are predicted at a time, where they are small."""
BUILT = "built"
"""Entry of a state's metadata: what its architecture was built from."""
SAMPLE = 2048
"""Inputs from which an architecture may take the scale of the data."""


class ChartwiseModule(Protocol):
    """What an architecture must be: an ``nn.Module`` for all charts at once.

    It may have ``facts``, a ``dict[str, str]`` of what it decided, and ``published``, the ``Layout`` of the published code's checkpoints of it, or None.
    """

    reach: int
    """Pixels beyond the chart's radius that it reads."""

    def __call__(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """``[B, C, in, s + 2 reach, s + 2 reach] -> [B, C, out, s, s]``, s = 2 r_in + 1; or just the inner part of ``radius``.

        For sets of vectors ``[B, 1, m, n] -> [B, 1, out]``, on an icosahedral grid ``[B, 1, in, P] -> [B, 1, out, P]``; ``radius`` is None then.
        """
        ...


@dataclass(frozen=True)
class SupervisedParams:
    batch_size: int = param(16, "Samples a step, each on every chart", minimum=1)
    learning_rate: float = param(1e-3, "Adam's", minimum=0)
    schedule: Literal["constant", "cosine"] = param(
        "constant", "Learning rate over all epochs; cosine falls to zero"
    )
    epsilon: float = param(1e-8, "Adam's: gradients far below it move a weight little", minimum=1e-12)
    weight_decay: float = param(0.0, "Decoupled (AdamW), of weights, not of biases or norms", minimum=0)
    loss: Literal["l1", "cross_entropy", "jaccard"] = param(
        "l1", "L1 distance, or of logits: cross-entropy, or the classes' Jaccard index"
    )
    background_weight: float = param(
        1.0, "Cross-entropy: weight of the pixels where there is nothing, of others 1", minimum=0
    )
    precision: Literal["float32", "bfloat16"] = param(
        "float32", "Of the network's products while it is trained; weights, sums and loss stay in float32"
    )


@register("predictor_training", "supervised", "Adam on the charts' own losses, summed", SupervisedParams)
class FittedPredictor:
    """One network a chart, trained as one batched computation. Made by :func:`make_predictor`.

    ``built``: what :func:`build` needs to make the module again, which its states keep.
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
    ) -> None:
        self._p, self._kind, self._built = params, kind, built
        self._total, self._seed = epochs, seed
        self._module = module.to(device)
        self.atlas, self.reach = atlas, cast(ChartwiseModule, module).reach
        keep = epochs > 0  # else nothing is drawn again
        self._x = inputs_on(atlas, dataset, self.reach, margin=0, keep=keep, device=device)
        self._y = targets_on(atlas, dataset, labels=params.loss != "l1", keep=keep, device=device)
        self._epoch = 0
        self._class_weights: Tensor | None = None
        if dataset.background is not None and params.background_weight != 1:
            self._class_weights = torch.ones(dataset.outputs, device=device)
            self._class_weights[dataset.background] = params.background_weight
        weights = list(self._module.parameters())
        vector = 2 if manifold_of(atlas) == "planar" else 1  # [C, width] of a chart's biases and norms
        self._optimiser = torch.optim.AdamW(
            [
                {"params": [w for w in weights if w.dim() > vector], "weight_decay": params.weight_decay},
                {"params": [w for w in weights if w.dim() <= vector], "weight_decay": 0.0},
            ],
            lr=params.learning_rate,
            eps=params.epsilon,
            fused=True,
        )

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def total_epochs(self) -> int:
        return self._total

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self._module.parameters())

    @property
    def facts(self) -> dict[str, int | str]:
        return {"parameters": self.parameters, **getattr(self._module, "facts", {})}

    @property
    def device(self) -> torch.device:
        return self._x.device

    @property
    def at_once(self) -> int:
        return min(at_once(self._x.shape), MOST_AT_ONCE)

    @property
    def memory_bytes(self) -> int:
        """Weights, gradients and two moments in float32, and samples that are kept."""
        return 4 * 4 * self.parameters + self._x.memory_bytes + self._y.memory_bytes

    @property
    def loss(self) -> LossKind:
        return self._p.loss

    def run_epoch(self, on_step: StepCallback) -> dict[str, float]:
        """One pass over the data in random order; returns the mean ``loss``."""
        p, samples = self._p, len(self._x)
        order = torch.randperm(samples, generator=random_stream(self._seed, 1, self._epoch))
        steps = math.ceil(samples / p.batch_size)
        self._module.train()
        total = torch.zeros((), device=self._x.device)
        for i, indices in enumerate(order.split(p.batch_size)):
            done = (self._epoch + i / steps) / max(self._total, 1)
            factor = 0.5 * (1 + math.cos(math.pi * min(done, 1.0))) if p.schedule == "cosine" else 1.0
            for group in self._optimiser.param_groups:
                group["lr"] = p.learning_rate * factor
            loss = self._batch_loss(indices)
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
            total += loss.detach() * len(indices)
            on_step(i + 1, steps, {"loss": float(loss.detach())} if i % 8 == 0 else {})
        mean = total / samples
        check_finite(mean, "the predictor's loss")
        self._epoch += 1
        return {"loss": float(mean)}

    def _batch_loss(self, indices: Tensor) -> Tensor:
        x, target = self._x.draw(indices, None), self._y.draw(indices, None)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._p.precision == "bfloat16"):
            predicted = self._module(x)
        predicted = predicted.float()
        if self._p.loss == "l1":
            return functional.l1_loss(predicted, target)
        labels = target[:, :, 0].long()
        if self._p.loss == "jaccard":
            return jaccard_loss(predicted, labels)
        return functional.cross_entropy(predicted.flatten(0, 1), labels.flatten(0, 1), self._class_weights)

    def predict(self, crops: Tensor) -> Tensor:
        expected = self._x.shape
        if crops.shape[1:] != expected:
            raise InvalidInput(
                f"crops have shape {list(crops.shape)}", "crops", f"[batch, {', '.join(map(str, expected))}]"
            )
        with torch.no_grad():
            return self.freeze()(crops, None)

    def crops(self, indices: Tensor, dataset: Dataset) -> Tensor:
        """What :meth:`predict` takes, of samples ``indices [B]`` of a dataset of the same kind."""
        return self._inputs(dataset).draw(indices, None)

    def likeliest(self, outputs: Tensor, dataset: Dataset) -> Tensor:
        """A classifier's ``[B, C, classes, ...] -> [B, H, W]`` int64: each pixel as the nearest chart, or pixel of the grid, has it, −1 where there is none."""
        atlas = self.atlas
        self._check_classifier()
        if isinstance(atlas, VectorSpace):
            raise InvalidInput("only fields have a class for each pixel", "classes", "false", "leave it out")
        if isinstance(atlas, IcosahedralGrid):
            places = lattice_of(dataset).nearest_grid_pixels(atlas.resolution)
        else:
            places = atlas.places(dataset.inputs.shape)
        places = places.to(outputs.device)
        classes = outputs.argmax(2).flatten(1)[:, places.clamp(min=0)]
        return classes.masked_fill(places < 0, -1)

    def _inputs(self, dataset: Dataset) -> Inputs:
        """The samples of any dataset of the same kind, by charts."""
        self.atlas.check(dataset.inputs.shape)
        return inputs_on(self.atlas, dataset, self.reach, margin=0, device=self.device)

    def scores(self, dataset: Dataset, check: Callable[[], None] = lambda: None) -> dict[str, float]:
        """How well a classifier does on any dataset of the same kind (see ``scores``); ``check`` may raise between batches.

        Of fields on charts at the pixels of the lattice, on an icosahedral grid at the grid's.
        """
        samples = torch.arange(len(dataset.inputs))
        if manifold_of(self.atlas) == "vectors":
            return classifier_scores(self.logits(dataset, check).cpu(), dataset.targets[:, 0].long().cpu())
        self._check_classifier()
        predict, labels = self._compared(dataset, check)
        if dataset.classes is not None:
            scenes = samples if dataset.scenes is None else dataset.scenes
            return overlap_scores(predict, labels, scenes, dataset.classes, self.at_once)
        batches = samples.split(self.at_once)
        return pixel_scores(
            torch.cat([predict(b) for b in batches]),
            torch.cat([labels(b) for b in batches]),
            dataset.background,
        )

    def logits(self, dataset: Dataset, check: Callable[[], None] = lambda: None) -> Tensor:
        """A classifier's outputs ``[N, classes]`` for sets of vectors."""
        if manifold_of(self.atlas) != "vectors":
            raise InvalidInput("only sets of vectors have one output each", "handle", "sets of vectors")
        self._check_classifier()
        x, outputs = self._inputs(dataset), []
        for indices in torch.arange(len(x)).split(self.at_once):
            check()
            outputs.append(self.predict(x.draw(indices, None))[:, 0])
        return torch.cat(outputs)

    def _compared(
        self, dataset: Dataset, check: Callable[[], None]
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """Predicted classes and labels of samples ``[B]`` of fields where they are compared, both ``[B, pixels]`` int64 on the CPU."""
        x = self._inputs(dataset)
        grid = isinstance(self.atlas, IcosahedralGrid)
        y = targets_on(self.atlas, dataset, labels=True) if grid else None

        def predict(indices: Tensor) -> Tensor:
            check()
            outputs = self.predict(x.draw(indices, None))
            return (outputs.argmax(2) if grid else self.likeliest(outputs, dataset)).flatten(1).cpu()

        def labels(indices: Tensor) -> Tensor:
            drawn = (
                dataset.targets[indices.to(dataset.targets.device)] if y is None else y.draw(indices, None)
            )
            return drawn.flatten(1).long().cpu()

        return predict, labels

    def _check_classifier(self) -> None:
        if self._p.loss == "l1":
            raise InvalidInput(
                "only a classifier has scores", "handle", "training with loss cross_entropy or jaccard"
            )

    def freeze(self, radius: int | None = None, dtype: torch.dtype = torch.float32) -> Predictor:
        """The predictor as it is now, in evaluation mode and without weight gradients; with ``radius``, the inner part of its output."""
        module = copy.deepcopy(self._module).eval().requires_grad_(False).to(dtype)
        frozen = cast(ChartwiseModule, module)
        return lambda x, charts: frozen(x, charts, radius)

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights from elsewhere, by our names (a snapshot of this architecture is accepted too) or the published code's."""
        weights = {
            name.removeprefix("module."): t for name, t in tensors.items() if not name.startswith("adam.")
        }
        own = self._module.state_dict()
        weights = translate(weights, own, getattr(self._module, "published", None), self._kind)
        for name in weights:
            if name not in own:
                raise InvalidInput(
                    f"the weights hold {name!r}, which this architecture ({self._kind}) does not have",
                    "weights",
                    f"tensors {', '.join(own)}",
                    "choose the architecture that the weights are of",
                )
        self._module.load_state_dict({name: restore(weights, name, like) for name, like in own.items()})

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors = {f"module.{name}": t for name, t in self._module.state_dict().items()}
        for name, p in self._module.named_parameters():
            for key, value in self._optimiser.state.get(p, {}).items():
                tensors[f"adam.{name}.{key}"] = value
        metadata = {"kind": self._kind, "epoch": str(self._epoch)}
        if self._built:
            metadata[BUILT] = self._built
        return {n: t.detach().clone() for n, t in tensors.items()}, metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        epoch = check_kind(metadata, self._kind)
        self.load_weights(tensors)
        self._optimiser.state.clear()
        for name, p in self._module.named_parameters():
            if f"adam.{name}.step" in tensors:
                like = {"step": torch.zeros((), device=p.device), "exp_avg": p, "exp_avg_sq": p}
                self._optimiser.state[p] = {
                    k: restore(tensors, f"adam.{name}.{k}", v.detach()) for k, v in like.items()
                }
        self._epoch = epoch


def jaccard_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the mean soft Jaccard index of the classes: ``logits [B, C, classes, ...]``, ``labels [B, C, ...]`` int64.

    The index of a class is ``Σ p t / Σ (p + t − p t)``, of its probability p and its label t, 0 or 1, summed over batch and pixels: the loss of
    CGNet on ClimateNet (Kapp-Schwoerer et al. 2020, "Spatio-temporal segmentation and tracking of weather patterns with light-weight
    neural networks"). A class that no label of the batch has would have the index 0 whatever is predicted: it is left out of the mean, and
    what is predicted of it counts where it takes from others. Each chart has its own; the loss is the charts' mean.
    """
    p = logits.softmax(2)
    classes = torch.arange(p.shape[2], device=p.device).view(-1, *[1] * (p.dim() - 3))
    t = (labels[:, :, None] == classes).to(p)
    over = [0, *range(3, p.dim())]
    both, present = (p * t).sum(over), t.sum(over)
    index = both / (p.sum(over) + present - both).clamp(min=1e-7)
    counted = present > 0
    return (1 - (index * counted).sum(1) / counted.sum(1)).mean()


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
    """A predictor from the kinds and parameters of its architecture and its training; ``tensors`` are for the architecture.

    Raises ``InvalidInput`` for unknown or ill-typed ones and for charts that leave the lattice, ``NotReady`` before the dataset
    is made.
    """
    block = find("predictor", architecture[0], "predictor.architecture")
    manifold, sample = manifold_of(atlas), None
    if manifold == "vectors":
        sample = dataset.inputs[:SAMPLE]
    given = dict(tensors or {})
    params = parse_params(block.params, architecture[1], "predictor.architecture")
    signature = Signature(
        manifold,
        len(atlas),
        tuple(dataset.inputs.shape[1:]),
        dataset.outputs,
        radius=getattr(atlas, "r_in", 0),
        resolution=getattr(atlas, "resolution", 0),
        scale=1.0 if sample is None else float(sample.double().square().mean().sqrt()) or 1.0,
        sample=sample,
    )
    module = block.make(params, signature=signature, tensors=given, seed=random_stream(seed, 0))
    if epochs and not any(True for _ in module.parameters()):
        raise InvalidInput(
            f"a predictor of kind {architecture[0]} has nothing to train", "predictor.epochs", "0"
        )
    recipe = find("predictor_training", training[0], "predictor.training")
    return cast(
        FittedPredictor,
        recipe.make(
            parse_params(recipe.params, training[1], "predictor.training"),
            module=module,
            kind=architecture[0],
            built="" if block.code else _written(params, signature, given),
            dataset=dataset,
            atlas=atlas,
            epochs=epochs,
            seed=seed,
            device=device,
        ),
    )


def _written(params: Any, signature: Signature, tensors: Mapping[str, Tensor]) -> str:
    """What an architecture was built from, as JSON, but for the ``sample``: what that gives is kept with the weights."""
    return json.dumps(
        {
            "params": dataclasses.asdict(params),
            "signature": dataclasses.asdict(dataclasses.replace(signature, sample=None)),
            "tensors": {name: t.tolist() for name, t in tensors.items()},
        },
        sort_keys=True,
    )


def build(kind: str, built: str, weights: Mapping[str, Tensor]) -> tuple[nn.Module, Signature]:
    """The module of a predictor's state, in evaluation mode, from its metadata ``kind`` and ``BUILT`` and its weights by our names.

    Raises ``InvalidInput`` when they do not belong together, ``ValueError`` for text that is no such JSON.
    """
    said = json.loads(built)
    block = find("predictor", kind, "predictor.architecture")
    if block.code:
        raise InvalidInput(f"a predictor of kind {kind} is code elsewhere", "kind", "an architecture of ours")
    signature = Signature(**{**said["signature"], "inputs": tuple(said["signature"]["inputs"])})
    module = cast(
        nn.Module,
        block.make(
            parse_params(block.params, said["params"], "predictor.architecture"),
            signature=signature,
            tensors={name: torch.tensor(t, dtype=torch.float64) for name, t in said["tensors"].items()},
            seed=random_stream(0, 0),
        ),
    )
    module.load_state_dict({name: restore(weights, name, t) for name, t in module.state_dict().items()})
    return module.eval().requires_grad_(False), signature


def make_task(predictor: FittedPredictor, dataset: Dataset, atlas: Atlas) -> SymmetryTask:
    """The equivariance of a predictor on a dataset's inputs: what a solver works on."""
    action = action_on(atlas, predictor.reach)
    return SymmetryTask(
        inputs_on(atlas, dataset, predictor.reach, device=predictor.device),
        action,
        predictor.freeze,
        predictor.loss,
        lambda: predictor.freeze(compared_radius(atlas)),
        lambda: predictor.freeze(dtype=torch.float64),
    )
