"""How well a classifier does on a test set: accuracy (of samples, or of pixels), AUC and background rejection, with standard uncertainties."""

from __future__ import annotations

import math

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
    """``accuracy`` of the classes ``predicted [N, H, W]`` over the pixels whose ``labels [N, H, W]`` are not ``background``.

    Its uncertainty is that of a ratio of sums over independent samples, as the pixels of one are not independent; none from one sample. Raises
    ``InvalidInput`` for unequal shapes and where there is no such pixel.

    >>> pixel_scores(torch.tensor([[[1, 2, 0]]]), torch.tensor([[[1, 1, 2]]]), 2)["accuracy"]
    0.5
    """
    if predicted.shape != labels.shape or labels.dim() != 3:
        raise InvalidInput(f"labels have shape {list(labels.shape)}", "labels", f"{list(predicted.shape)}")
    counted = torch.ones_like(labels, dtype=torch.bool) if background is None else labels != background
    of = counted.sum((1, 2)).double()
    right = (counted & (predicted == labels)).sum((1, 2)).double()
    if not of.sum():
        raise InvalidInput("all pixels are background", "labels", "at least one that is not")
    accuracy = right.sum() / of.sum()
    scores = {"accuracy": float(accuracy)}
    n = int((of > 0).sum())
    if n > 1:
        spread = (right - accuracy * of).square().sum() * n / (n - 1)
        scores["accuracy_error"] = float(spread.sqrt() / of.sum())
    return scores


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
