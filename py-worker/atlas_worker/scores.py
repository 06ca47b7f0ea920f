"""How well a classifier does on a test set: accuracy (of samples, or of pixels), AUC and background rejection, with standard uncertainties;
of classes of pixels, the intersection over union."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .errors import InvalidInput


def classifier_scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Scores of ``logits [N, classes]`` against ``labels [N]``, whole numbers.

    Of two classes, class 1 is the signal: :func:`binary_scores`. Of more, ``accuracy`` and ``accuracy_error``.
    """
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise InvalidInput(f"logits have shape {list(logits.shape)}", "logits", "[N, classes]")
    _check(logits, labels, logits.shape[1], "logits")
    if logits.shape[1] == 2:
        # In float64: probabilities near one are told apart, where float32 would tie them.
        return binary_scores(logits.double().softmax(1)[:, 1], labels)
    return _accuracy(logits.argmax(1) == labels)


def binary_scores(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Scores of ``probabilities [N]`` of signal against ``labels [N]``, 1 for signal and 0 for background.

    ``accuracy`` at 0.5, ``auc`` (:func:`auc`), ``rejection_30`` and ``rejection_50`` (:func:`rejection` at signal efficiencies 0.3
    and 0.5), and ``<name>_error`` for each one's standard uncertainty. What the test set does not determine is left out: all but
    the accuracy without both classes, and the error of a rejection that is only a lower bound. Raises ``InvalidInput``
    for no or unequal numbers of samples, other labels, and probabilities that are NaN.

    >>> scores = binary_scores(torch.tensor([0.9, 0.6, 0.4, 0.1]), torch.tensor([1, 1, 1, 0]))
    >>> scores["accuracy"], scores["auc"], scores["rejection_50"]
    (0.75, 1.0, 1.0)
    """
    if probabilities.dim() != 1:
        raise InvalidInput(f"probabilities have shape {list(probabilities.shape)}", "probabilities", "[N]")
    _check(probabilities, labels, 2, "probabilities")
    probabilities, signal = probabilities.detach().double(), labels == 1
    scores = _accuracy((probabilities > 0.5) == signal)
    positive, negative = probabilities[signal], probabilities[~signal]
    if len(positive) and len(negative):
        scores["auc"], error = auc(positive, negative)
        if error is not None:
            scores["auc_error"] = error
        for percent in (30, 50):
            value, error = rejection(positive, negative, percent / 100)
            scores[f"rejection_{percent}"] = value
            if error is not None:
                scores[f"rejection_{percent}_error"] = error
    return scores


def pixel_scores(predicted: Tensor, labels: Tensor, background: int | None) -> dict[str, float]:
    """``accuracy`` of the classes ``predicted [N, ...]`` over the pixels whose ``labels [N, ...]`` are not ``background``.

    Its uncertainty is that of a ratio of sums over independent samples, as the pixels of one are not independent; none from one sample. Raises
    ``InvalidInput`` for unequal shapes and where there is no such pixel.

    >>> pixel_scores(torch.tensor([[[1, 2, 0]]]), torch.tensor([[[1, 1, 2]]]), 2)["accuracy"]
    0.5
    """
    if predicted.shape != labels.shape or labels.dim() < 2:
        raise InvalidInput(f"labels have shape {list(labels.shape)}", "labels", f"{list(predicted.shape)}")
    counted = torch.ones_like(labels, dtype=torch.bool) if background is None else labels != background
    of = counted.flatten(1).sum(1).double()
    right = (counted & (predicted == labels)).flatten(1).sum(1).double()
    if not of.sum():
        raise InvalidInput("all pixels are background", "labels", "at least one that is not")
    accuracy = right.sum() / of.sum()
    scores = {"accuracy": float(accuracy)}
    n = int((of > 0).sum())
    if n > 1:
        spread = (right - accuracy * of).square().sum() * n / (n - 1)
        scores["accuracy_error"] = float(spread.sqrt() / of.sum())
    return scores


Pixels = Callable[[Tensor], Tensor]
"""Classes of the pixels of samples ``[B]``: ``[B, pixels]`` int64, on the CPU; −1 for a pixel that is left out."""


def overlap_scores(
    predict: Pixels, labels: Pixels, scenes: Tensor, classes: Sequence[str], at_once: int = 1
) -> dict[str, float]:
    """Intersection over union (IoU) of each class, and what experts and constants reach (METHOD 3.4).

    ``scenes [N]``: samples of one scene have the same inputs, each with its expert's labels; it is predicted once, ``at_once`` scenes at a time.
    Names are those of ``classes``, with ``_`` for spaces:

    - ``iou_<class>``: of a prediction and one expert's labels, averaged over the scene's experts, then over scenes. Where neither has the class
      there is none, and the pair is left out. ``mean_iou``: their mean over classes.
    - ``precision_<class>``, ``recall_<class>``: over all pixels of all samples.
    - ``experts_iou_<class>``, ``experts_mean_iou``: of the labels of two experts, averaged over a scene's pairs, then over scenes.
    - ``trivial_mean_iou``: the ``mean_iou`` of predicting one class everywhere, the best one, which is number ``trivial_class``.

    What the samples do not determine is left out: a class that is nowhere, experts' agreement where no scene has two.
    """
    count = len(classes)
    scene = scenes.cpu().unique(return_inverse=True)[1]
    members = [(scene == s).nonzero()[:, 0] for s in range(int(scene.max()) + 1)]
    against = torch.zeros(len(scene), count, count, dtype=torch.float64)
    pairs, pair_scenes = [against[:0]], list[int]()
    for part in torch.arange(len(members)).split(at_once):
        predicted = predict(torch.stack([members[s][0] for s in part.tolist()]))
        for s, seen in zip(part.tolist(), predicted, strict=True):
            own = labels(members[s]).where(seen >= 0, -1)
            against[members[s]] = confusions(own, seen.expand_as(own), count)
            for a, b in itertools.combinations(own, 2):
                pairs.append(confusions(a[None], b[None], count))
                pair_scenes.append(s)
    scores = _named("iou", classes, _mean_iou(against, scene))
    total = against.sum(0)
    right = total.diagonal()
    scores |= _named("precision", classes, right / total.sum(0), mean=False)
    scores |= _named("recall", classes, right / total.sum(1), mean=False)
    scores |= _named("experts_iou", classes, _mean_iou(torch.cat(pairs), torch.tensor(pair_scenes).long()))
    constant = torch.zeros(count, *against.shape, dtype=torch.float64)
    for c in range(count):
        constant[c, :, :, c] = against.sum(2)
    trivial = torch.stack([_mean_iou(a, scene).nanmean() for a in constant])
    if not trivial.isnan().all():
        best = int(trivial.nan_to_num(-1.0).argmax())
        scores |= {"trivial_mean_iou": float(trivial[best]), "trivial_class": float(best)}
    return scores


def confusions(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Pixels of each class, predicted as each: ``labels [N, pixels]``, ``predicted [N, pixels]`` -> ``[N, classes, classes]`` float64; −1 is left out.

    >>> confusions(torch.tensor([[0, 1, 1, -1]]), torch.tensor([[0, 0, 1, 1]]), 2).int().tolist()
    [[[1, 0], [1, 1]]]
    """
    sample = torch.arange(len(labels))[:, None]
    cell = ((sample * classes + labels) * classes + predicted)[(labels >= 0) & (predicted >= 0)]
    return cell.bincount(minlength=len(labels) * classes**2).view(-1, classes, classes).double()


def _mean_iou(counts: Tensor, scenes: Tensor) -> Tensor:
    """``[classes]`` from ``counts [N, classes, classes]``: the IoU's mean over each of ``scenes [N]``, then over scenes; NaN for none."""
    both = counts.diagonal(dim1=1, dim2=2)
    iou = both / (counts.sum(1) + counts.sum(2) - both)  # 0 / 0 where there is none
    means = [iou[scenes == s].nanmean(0) for s in scenes.unique()]
    return torch.stack(means).nanmean(0) if means else counts.new_full((counts.shape[1],), math.nan)


def _named(score: str, classes: Sequence[str], values: Tensor, mean: bool = True) -> dict[str, float]:
    """``<score>_<class>`` for those that are not NaN, and the mean of these under ``mean_iou`` or ``<prefix>_mean_iou``."""
    named = {
        f"{score}_{name.replace(' ', '_')}": float(value)
        for name, value in zip(classes, values, strict=True)
        if not value.isnan()
    }
    if mean and named:
        named[score.replace("iou", "mean_iou")] = float(values.nanmean())
    return named


def auc(positive: Tensor, negative: Tensor) -> tuple[float, float | None]:
    """Area under the ROC curve, ``P(s > b) + P(s = b) / 2`` for scores of a signal and a background, and its standard uncertainty.

    ``positive [P]``, ``negative [Q]``. The Mann–Whitney statistic from midranks, and DeLong's variance (DeLong et al. 1988) computed
    as by Sun and Xu (2014), in O(N log N). No uncertainty from fewer than two of a kind.
    """
    p, q = len(positive), len(negative)
    ranks = midranks(torch.cat([positive, negative]))
    # Of each signal, the fraction of background below it; of each background, the fraction of signal above it.
    below = (ranks[:p] - midranks(positive)) / q
    above = 1 - (ranks[p:] - midranks(negative)) / p
    error = None
    if p > 1 and q > 1:
        error = float((below.var() / p + above.var() / q).sqrt())
    return float(below.mean()), error


def midranks(values: Tensor) -> Tensor:
    """Ranks from 1, the mean of them for equal values: ``[N] -> [N]``, float64.

    >>> midranks(torch.tensor([5.0, 2.0, 5.0]))
    tensor([2.5000, 1.0000, 2.5000], dtype=torch.float64)
    """
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts.double() - 1) / 2
    return ranks[inverse]


def rejection(positive: Tensor, negative: Tensor, efficiency: float) -> tuple[float, float | None]:
    """Background rejection ``1/ε_B`` where the signal efficiency first reaches ``efficiency``, and its standard uncertainty.

    The cut keeps what scores at least as high as the lowest of the ``efficiency P`` best signals. Uncertainty: binomial, of ε_B,
    ``σ(1/ε_B) = √(ε_B (1 − ε_B) / Q) / ε_B²``. Where no background passes, the rejection is a lower bound, that of one passing
    (Q), and the uncertainty is None.
    """
    kept = min(max(math.ceil(efficiency * len(positive) - 1e-9), 1), len(positive))
    cut = positive.topk(kept).values[-1]
    passing, q = int((negative >= cut).sum()), len(negative)
    if passing == 0:
        return float(q), None
    e = passing / q
    return 1 / e, math.sqrt(e * (1 - e) / q) / e**2


def _accuracy(right: Tensor) -> dict[str, float]:
    a = float(right.double().mean())
    return {"accuracy": a, "accuracy_error": math.sqrt(a * (1 - a) / len(right))}


def _check(values: Tensor, labels: Tensor, classes: int, field: str) -> None:
    if labels.shape != values.shape[:1] or not len(labels):
        raise InvalidInput(
            f"labels have shape {list(labels.shape)}", "labels", f"[{len(values)}], one of each of {field}"
        )
    if not ((labels >= 0) & (labels < classes) & (labels == labels.round())).all():
        raise InvalidInput("there are labels that are no classes", "labels", f"0 to {classes - 1}")
    if values.isnan().any():
        raise InvalidInput(f"there are NaN among the {field}", field, "numbers")
