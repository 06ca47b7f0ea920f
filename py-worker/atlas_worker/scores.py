"""Scores of classifiers on a test set (METHOD 4.6).

- Classes of samples: accuracy, area under the ROC curve and background rejection.
- Classes of pixels: accuracy, or intersection over union (IoU) of each class.

Accuracy, area and rejection come with standard uncertainties.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .errors import InvalidInput


def classifier_scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Score class logits of samples.

    Args:
        logits: ``[N, classes]``.
        labels: ``[N]``, whole numbers from 0. With two classes, class 1 is the signal.

    Returns:
        The scores of :func:`binary_scores` for two classes, else ``accuracy`` and
        ``accuracy_error``.

    Raises:
        InvalidInput: Shapes do not fit, a label is no class, or a logit is NaN.
    """
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise InvalidInput(f"logits have shape {list(logits.shape)}", "logits", "[N, classes]")
    _check(logits, labels, logits.shape[1], "logits")
    if logits.shape[1] == 2:
        # In float64: float32 would make probabilities near one equal.
        return binary_scores(logits.double().softmax(1)[:, 1], labels)
    return _accuracy(logits.argmax(1) == labels)


def binary_scores(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Score probabilities of the signal class.

    Args:
        probabilities: ``[N]``, of the signal.
        labels: ``[N]``, 1 for signal and 0 for background.

    Returns:
        ``accuracy`` at 0.5, ``auc`` (:func:`auc`), ``rejection_30`` and ``rejection_50``
        (:func:`rejection` at signal efficiencies 0.3 and 0.5), and the standard uncertainty of each
        as ``<name>_error``. Scores that the test set does not determine are left out: all except
        the accuracy if a class has no samples, and the uncertainty of a rejection that is only a
        lower bound.

    Raises:
        InvalidInput: There are no samples, the numbers of samples differ, a label is neither 0 nor
            1, or a probability is NaN.
    >>> scores = binary_scores(torch.tensor([0.9, 0.6, 0.4, 0.1]), torch.tensor([1, 1, 1, 0]))
    >>> scores["accuracy"], scores["auc"], scores["rejection_50"]
    (0.75, 1.0, 1.0)
    """
    if probabilities.dim() != 1:
        raise InvalidInput(
            f"probabilities have shape {list(probabilities.shape)}", "probabilities", "[N]"
        )
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
    """Score predicted classes of pixels.

    The uncertainty is that of a ratio of sums over independent samples, since the pixels of one
    sample are not independent.

    Args:
        predicted: ``[N, ...]`` classes.
        labels: ``[N, ...]`` classes.
        background: Class of the pixels to leave out, or None.

    Returns:
        ``accuracy`` over the pixels that are not background, and ``accuracy_error`` if at least two
        samples have such pixels.

    Raises:
        InvalidInput: The shapes differ, or all pixels are background.
    >>> pixel_scores(torch.tensor([[[1, 2, 0]]]), torch.tensor([[[1, 1, 2]]]), 2)["accuracy"]
    0.5
    """
    if predicted.shape != labels.shape or labels.dim() < 2:
        raise InvalidInput(
            f"labels have shape {list(labels.shape)}", "labels", f"{list(predicted.shape)}"
        )
    counted = (
        torch.ones_like(labels, dtype=torch.bool) if background is None else labels != background
    )
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
"""Maps samples ``[B]`` to classes of pixels ``[B, pixels]``, int64 on the CPU; −1 is left out."""


def overlap_scores(
    predict: Pixels, labels: Pixels, scenes: Tensor, classes: Sequence[str], max_batch: int = 1
) -> dict[str, float]:
    """Score predicted classes of pixels by their intersection over union (IoU, METHOD 4.6).

    Args:
        predict: Predicts the pixels of samples.
        labels: Gives the labelled pixels of samples.
        scenes: ``[N]``, the scene of each sample. Samples of one scene have the same inputs, each
            with the labels of one expert. Each scene is predicted once.
        classes: Names of the classes.
        max_batch: Number of scenes to predict at a time.

    Returns:
        Scores by name, where ``<class>`` is a name from ``classes`` with ``_`` for spaces:

        - ``iou_<class>``: IoU of the prediction with an expert's labels, averaged over the scene's
          experts, then over scenes. A pair in which neither has the class is left out.
        - ``mean_iou``: mean of ``iou_<class>`` over classes.
        - ``precision_<class>``, ``recall_<class>``: over all pixels of all samples.
        - ``experts_iou_<class>``, ``experts_mean_iou``: the same for the labels of two experts,
          averaged over a scene's pairs, then over scenes.
        - ``trivial_mean_iou``: largest ``mean_iou`` of predicting one class everywhere.
        - ``trivial_class``: the number of that class.

        Scores that the samples do not determine are left out: those of a class that occurs
        nowhere, and the experts' if no scene has two.
    """
    count = len(classes)
    scene = scenes.cpu().unique(return_inverse=True)[1]
    members = [(scene == s).nonzero()[:, 0] for s in range(int(scene.max()) + 1)]
    against = torch.zeros(len(scene), count, count, dtype=torch.float64)
    pairs, pair_scenes = [against[:0]], list[int]()
    for part in torch.arange(len(members)).split(max_batch):
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
    scores |= _named(
        "experts_iou", classes, _mean_iou(torch.cat(pairs), torch.tensor(pair_scenes).long())
    )
    constant = torch.zeros(count, *against.shape, dtype=torch.float64)
    for c in range(count):
        constant[c, :, :, c] = against.sum(2)
    trivial = torch.stack([_mean_iou(a, scene).nanmean() for a in constant])
    if not trivial.isnan().all():
        best = int(trivial.nan_to_num(-1.0).argmax())
        scores |= {"trivial_mean_iou": float(trivial[best]), "trivial_class": float(best)}
    return scores


def confusions(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Count the pixels of each class that are predicted as each class.

    Args:
        labels: ``[N, pixels]``; −1 is left out.
        predicted: ``[N, pixels]``; −1 is left out.
        classes: Number of classes.

    Returns:
        ``[N, classes, classes]`` float64: by label, then by prediction.
    >>> confusions(torch.tensor([[0, 1, 1, -1]]), torch.tensor([[0, 0, 1, 1]]), 2).int().tolist()
    [[[1, 0], [1, 1]]]
    """
    sample = torch.arange(len(labels))[:, None]
    cell = ((sample * classes + labels) * classes + predicted)[(labels >= 0) & (predicted >= 0)]
    return cell.bincount(minlength=len(labels) * classes**2).view(-1, classes, classes).double()


def _mean_iou(counts: Tensor, scenes: Tensor) -> Tensor:
    """Mean IoU of each class over samples of a scene, then over scenes; NaN if there is none.

    ``counts [N, classes, classes]`` and ``scenes [N]`` to ``[classes]``.
    """
    both = counts.diagonal(dim1=1, dim2=2)
    iou = both / (counts.sum(1) + counts.sum(2) - both)  # 0 / 0 if neither has the class
    means = [iou[scenes == s].nanmean(0) for s in scenes.unique()]
    return torch.stack(means).nanmean(0) if means else counts.new_full((counts.shape[1],), math.nan)


def _named(
    score: str, classes: Sequence[str], values: Tensor, mean: bool = True
) -> dict[str, float]:
    """``<score>_<class>`` of the values that are not NaN, and their mean with ``mean_iou``."""
    named = {
        f"{score}_{name.replace(' ', '_')}": float(value)
        for name, value in zip(classes, values, strict=True)
        if not value.isnan()
    }
    if mean and named:
        named[score.replace("iou", "mean_iou")] = float(values.nanmean())
    return named


def auc(positive: Tensor, negative: Tensor) -> tuple[float, float | None]:
    """Area under the ROC curve and its standard uncertainty.

    The area is ``P(s > b) + P(s = b) / 2`` for scores s of signal and b of background: the
    Mann–Whitney statistic, computed from midranks. The variance is that of DeLong et al. (1988),
    computed in O(N log N) as by Sun and Xu (2014).

    Args:
        positive: ``[P]`` scores of signal.
        negative: ``[Q]`` scores of background.

    Returns:
        The area, and its uncertainty or None if P or Q is below 2.
    """
    p, q = len(positive), len(negative)
    ranks = midranks(torch.cat([positive, negative]))
    # For each signal the fraction of background below it; for each background, of signal above it.
    below = (ranks[:p] - midranks(positive)) / q
    above = 1 - (ranks[p:] - midranks(negative)) / p
    error = None
    if p > 1 and q > 1:
        error = float((below.var() / p + above.var() / q).sqrt())
    return float(below.mean()), error


def midranks(values: Tensor) -> Tensor:
    """Rank values from 1; equal values share the mean of their ranks. ``[N] -> [N]`` float64.

    >>> midranks(torch.tensor([5.0, 2.0, 5.0]))
    tensor([2.5000, 1.0000, 2.5000], dtype=torch.float64)
    """
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts.double() - 1) / 2
    return ranks[inverse]


def rejection(positive: Tensor, negative: Tensor, efficiency: float) -> tuple[float, float | None]:
    """Background rejection ``1/ε_B`` at a signal efficiency, and its standard uncertainty.

    The cut keeps every score that is at least as high as the lowest of the ``efficiency · P`` best
    signals. The uncertainty is binomial: ``σ(1/ε_B) = √(ε_B (1 − ε_B) / Q) / ε_B²``.

    Args:
        positive: ``[P]`` scores of signal.
        negative: ``[Q]`` scores of background.
        efficiency: The signal efficiency.

    Returns:
        The rejection and its uncertainty. If no background passes, the rejection is the lower
        bound Q, and the uncertainty is None.
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
            f"labels have shape {list(labels.shape)}",
            "labels",
            f"[{len(values)}], one of each of {field}",
        )
    if not ((labels >= 0) & (labels < classes) & (labels == labels.round())).all():
        raise InvalidInput(
            "a label is no class", "labels", f"whole numbers from 0 to {classes - 1}"
        )
    if values.isnan().any():
        raise InvalidInput(f"{field} contain NaN", field, "numbers")
