"""One training on several processes: each takes its share of every batch.

The processes are the **ranks** of the training, numbered from 0. They hold the same network and the
same samples. In each step they draw the same batch, and each computes the loss of its own share.
Loss and gradients are summed over the ranks, so that they are those of the whole batch. What a
layer takes from the whole batch, such as the mean of a batch normalisation, is summed too.

So a step differs from that of one process by rounding only, and repeats with as many ranks give the
same bits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from .errors import InvalidInput


class Ranks(Protocol):
    """The processes of a training, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of processes, at least 2."""
        ...

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all ranks, which all of them get to the same bit.

        All ranks must call it in the same order.

        Args:
            tensor: Contiguous, of the same shape and type on all ranks.

        Raises:
            RankLost: Another rank has ended.
        """
        ...


class Helpers(Protocol):
    """The other ranks of a predictor's training, as rank 0 sees them."""

    def epoch(
        self, state: tuple[dict[str, Tensor], dict[str, str]], last: bool
    ) -> AbstractContextManager[Ranks]:
        """Let them begin an epoch, and compute it within the ``with`` block.

        Args:
            state: State of the predictor, which they take over.
            last: Whether this is the last epoch of the training.
        """
        ...


@dataclass(frozen=True)
class Share:
    """A rank's share of a batch."""

    ranks: Ranks
    own: int
    """Samples of this rank."""
    total: int
    """Samples of the batch."""

    @property
    def part(self) -> float:
        """The share as a fraction of the batch."""
        return self.own / self.total

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks. Gradients of the sum are summed over the ranks too."""
        return cast(Tensor, _Sum.apply(tensor, self.ranks))  # type: ignore[no-untyped-call]


def shares(samples: int, ranks: Ranks) -> slice:
    """Return which samples of a batch a rank takes.

    Args:
        samples: Number of samples in the batch.
        ranks: The ranks.

    Returns:
        Neighbouring samples. Shares differ by at most one sample. Rank 0 takes a batch that has
        fewer samples than there are ranks.
    """
    if samples < ranks.size:
        return slice(0, samples if ranks.rank == 0 else 0)
    least, more = divmod(samples, ranks.size)
    start = ranks.rank * least + min(ranks.rank, more)
    return slice(start, start + least + (ranks.rank < more))


def is_divided(samples: int, ranks: Ranks) -> bool:
    """Whether a batch is divided. One with fewer samples than ranks is left to rank 0."""
    return samples >= ranks.size


_LOCAL = threading.local()


def own_share() -> Share | None:
    """Return the share that this thread computes; None if it computes whole batches."""
    return cast("Share | None", getattr(_LOCAL, "share", None))


@contextmanager
def computing(mine: Share) -> Iterator[None]:
    """Compute a share of a batch within the ``with`` block."""
    _LOCAL.share = mine
    try:
        yield
    finally:
        _LOCAL.share = None


def batch_mean(x: Tensor, over: tuple[int, ...]) -> Tensor:
    """Average over a batch and further dimensions.

    Args:
        x: ``[B, ...]``.
        over: The dimensions, among them that of the batch.

    Returns:
        The mean over all ranks, if this thread computes a share of a batch.
    """
    mine = own_share()
    mean = x.mean(over)
    return mean if mine is None else mine.sum(mean * mine.part)


def batch_var_mean(x: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor, int]:
    """Compute variance and mean over a batch and further dimensions.

    Args:
        x: ``[B, ...]``.
        over: The dimensions, among them that of the batch.

    Returns:
        The biased variance and the mean over all ranks, if this thread computes a share of a batch,
        and the number of values that each is of.
    """
    mine = own_share()
    count = x.numel()
    if mine is None:
        variance, mean = torch.var_mean(x, over, correction=0)
        return variance, mean, count // mean.numel()
    mean = batch_mean(x, over)
    shape = [1 if d in over else n for d, n in enumerate(x.shape)]
    variance = batch_mean((x - mean.view(shape)).square(), over)
    return variance, mean, count // mean.numel() // mine.own * mine.total


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel as :func:`torch.nn.functional.batch_norm` does, over all ranks.

    Args:
        x: ``[B, width, ...]``.
        mean: Running mean ``[width]``, which training changes.
        variance: Running unbiased variance ``[width]``, likewise.
        weight: ``[width]``.
        bias: ``[width]``.
        training: Whether to use the statistics of the batch.
        momentum: Share of the batch in the running statistics.
        eps: Added to variances.

    Returns:
        A tensor like ``x``.
    """
    mine = own_share()
    if mine is None or not training:
        return nn.functional.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
    made, own_mean, own_variance = cast(
        tuple[Tensor, Tensor, Tensor],
        _Norm.apply(x, weight, bias, eps, mine),  # type: ignore[no-untyped-call]
    )
    count = x.numel() // x.shape[1] // mine.own * mine.total
    with torch.no_grad():
        mean.lerp_(own_mean.to(mean), momentum)
        variance.lerp_(own_variance.to(variance) * (count / max(count - 1, 1)), momentum)
    return made


class BatchNorm2d(nn.BatchNorm2d):
    """BatchNorm of ``[B, width, H, W]``, with the statistics of all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        if own_share() is None or not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        return batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            True,
            self.momentum,
            self.eps,
        )


def check_divisible(module: nn.Module, kind: str, foreign: bool) -> None:
    """Check that the samples of a batch may be divided among ranks.

    Args:
        module: The network.
        kind: Name of its architecture.
        foreign: Whether the network is code from elsewhere.

    Raises:
        InvalidInput: The network may mix the samples of a batch in a way that is not summed over
            the ranks, or draws random numbers in each step.
    """
    what = "is code from elsewhere, which may mix the samples of a batch" if foreign else ""
    for name, part in module.named_modules():
        norm = isinstance(part, _BatchNorm) and not getattr(part, "over_ranks", False)
        if norm and not isinstance(part, BatchNorm2d):
            what = f"has a batch normalisation ({name}) of each rank by itself"
        elif isinstance(part, _DropoutNd):
            what = f"draws random numbers in each step ({name})"
    if what:
        raise InvalidInput(
            f"a training of {kind} cannot be divided among ranks: it {what}",
            "ranks",
            "1",
            "train it with one rank",
        )


def sum_gradients(parameters: Iterable[nn.Parameter], loss: Tensor | None, ranks: Ranks) -> Tensor:
    """Sum gradients and losses over the ranks, in one message.

    Args:
        parameters: The trained weights. Their gradients are replaced. A weight that has none on any
            rank keeps none.
        loss: This rank's part of the loss; None if it has no share of the batch.
        ranks: The ranks.

    Returns:
        The loss, a scalar.
    """
    weights = [p for p in parameters if p.requires_grad]
    device = weights[0].device
    given = torch.tensor([float(p.grad is not None) for p in weights], device=device)
    own = torch.zeros((), device=device) if loss is None else loss.detach().float()
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in weights]
    flat = torch.cat([own.view(1), given, *(g.detach().flatten() for g in parts)])
    ranks.sum(flat)
    total, given, rest = flat.split([1, len(weights), len(flat) - 1 - len(weights)])
    for p, has, g in zip(
        weights, given.tolist(), rest.split([p.numel() for p in weights]), strict=True
    ):
        p.grad = g.view_as(p).to(p.dtype) if has else None
    return cast(Tensor, total[0])


class _Sum(torch.autograd.Function):
    """The sum over ranks; its gradients are summed over them too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        ranks.sum(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        ctx.ranks.sum(total)
        return total, None


class _Norm(torch.autograd.Function):
    """Batch normalisation with statistics of all ranks, which are joined in float64.

    With x̂ = (x − μ)/σ and the gradient g of the output, that of the input is
    ``w/σ · (g − mean(g) − x̂ · mean(g x̂))``; the means are over the whole batch.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, mine: Share
    ) -> tuple[Tensor, Tensor, Tensor]:
        over = [d for d in range(x.dim()) if d != 1]
        wide = x.float() if x.dtype != torch.float64 else x
        variance, mean = (t.double() for t in torch.var_mean(wide, over, correction=0))
        joined = torch.stack([mean, variance + mean.square()]) * mine.part
        mine.ranks.sum(joined)
        mean, variance = joined[0], (joined[1] - joined[0].square()).clamp(min=0)
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        centre, scale = mean.to(wide), (variance + eps).rsqrt().to(wide)
        normal = (wide - centre.view(shape)) * scale.view(shape)
        ctx.save_for_backward(x, weight, centre, scale)
        ctx.mine = mine
        ctx.mark_non_differentiable(mean, variance)
        return (normal * weight.view(shape) + bias.view(shape)).to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, centre, scale = ctx.saved_tensors
        mine: Share = ctx.mine
        over = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        g = gradients[0].to(centre.dtype)
        normal = (x.to(centre.dtype) - centre.view(shape)) * scale.view(shape)
        bias, slope = g.sum(over), (g * normal).sum(over)
        joined = torch.stack([bias, slope]).double()
        mine.ranks.sum(joined)
        count = x.numel() // x.shape[1] // mine.own * mine.total
        means = (joined / count).to(centre.dtype)
        inner = g - means[0].view(shape) - normal * means[1].view(shape)
        made = (weight * scale).view(shape) * inner
        return made.to(x.dtype), slope.to(weight.dtype), bias.to(weight.dtype), None, None
