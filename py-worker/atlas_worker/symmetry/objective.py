"""The objective of solvers: a frozen predictor's equivariance loss ``L(f(g·x), g·f(x))``.

Shapes: B samples, C charts. A batch of matrices ``g`` is ``[..., B, C, n, n]``; its leading
dimensions (starts, candidates, directions) are kept throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput
from ..rng import random_stream
from .action import Action, Inputs, LossKind, Predictor, max_batch
from .ambient import Ambient
from .space import Space
from .vectors import VectorAction

_LOCAL_ENTRIES, _LOCAL_ENTRIES_CUDA = 2**19, 2**23
"""Entries of inputs that are moved at a time for a quadratic model, on a CPU and on a GPU."""
SLOPES = 1e-3
"""Largest difference of gradients from central differences, relative to the largest of these."""
SHORT = 1e-2
"""Step of these differences, relative to the usual one, within which outputs may bend."""


@dataclass(frozen=True)
class Batch:
    """Inputs and the frozen predictor's outputs, computed once for any number of matrices."""

    x: Tensor
    """``[B, C, ...]``, as drawn, with margin."""
    reference: Tensor
    """``f(x) [B, C, out, ...]``, detached; class probabilities if the predictor gives logits."""
    charts: Tensor | None
    """Indices of the C charts; None for all in order."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(B, C)``."""
        return self.x.shape[0], self.x.shape[1]

    def samples(self, some: slice | Tensor) -> Batch:
        """Return the batch of some of the samples."""
        return Batch(self.x[some], self.reference[some], self.charts)


@dataclass(frozen=True)
class Local:
    """Distances at matrices ``[M, B, C, n, n]``, and how they bend along P directions.

    All are float64, on the CPU.
    """

    value: Tensor
    """``[M, B, C]``"""
    slope: Tensor
    """``[M, B, C, P]``, derivatives of ``value``."""
    curvature: Tensor
    """``[M, B, C, P, P]``, positive semidefinite."""


class Objective(Protocol):
    """A predictor's equivariance, as solvers see it."""

    @property
    def n(self) -> int:
        """Size of the matrices: g is n by n."""
        ...

    @property
    def space(self) -> Space:
        """Where the Lie algebra is sought: gl(n), or a subspace of it."""
        ...

    @property
    def samples(self) -> int:
        """Number of samples."""
        ...

    @property
    def charts(self) -> int:
        """Number of charts."""
        ...

    @property
    def max_batch(self) -> int:
        """Number of samples, on all charts, that fit in memory at a time."""
        ...

    def refresh(self) -> None:
        """Freeze the predictor's present weights; they change while it trains by turns."""
        ...

    def batch(self, indices: Tensor, charts: Tensor | None = None) -> Batch:
        """Draw samples and predict them.

        Args:
            indices: Samples ``[B]``.
            charts: Charts ``[C]``; None for all.

        Returns:
            The batch.
        """
        ...

    def response(self, indices: Tensor, directions: Tensor, step: float) -> Tensor:
        """Compute ``d/dt [f(exp(tE)·x) − exp(tE)·f(x)]`` at t = 0 (METHOD 2.7).

        The derivative is a central difference in float64, or comes from gradients of the outputs,
        if these agree with one. It is zero for an exact symmetry.

        Args:
            indices: Samples ``[B]``; all charts are used.
            directions: Directions E, ``[D, n, n]``.
            step: Half width of the central difference; more if the predictor's precision needs it.

        Returns:
            ``[D, B·C, entries]`` float64.
        """
        ...

    def loss(self, batch: Batch, g: Tensor) -> Tensor:
        """Compute the equivariance loss ``L(f(g·x), g·f(x))``, differentiable in g.

        Args:
            batch: The batch.
            g: ``[..., B, C, n, n]``, on any device.

        Returns:
            ``[..., B, C]``, on the device of g.
        """
        ...

    def distance(self, batch: Batch, g: Tensor) -> Tensor:
        """Compute the mean absolute difference of ``f(g·x)`` and ``g·f(x)``.

        Class probabilities are compared if the predictor gives logits.

        Args:
            batch: The batch.
            g: ``[..., B, C, n, n]``, on any device.

        Returns:
            ``[..., B, C]``, on the device of g.
        """
        ...

    @property
    def is_distance(self) -> bool:
        """Whether the loss is the distance."""
        ...

    def local(self, batch: Batch, g: Tensor, moved: Tensor, steps: Tensor) -> Local:
        """Compute distances at matrices, and their quadratic models, by differences.

        Args:
            batch: The batch.
            g: ``[M, B, C, n, n]``, on any device.
            moved: ``[M, P, B, C, n, n]``: these matrices, moved a little along each direction.
            steps: ``[B, C]``: by how much; of either sign.

        Returns:
            The models.
        """
        ...

    def stays_in_support(self, batch: Batch, matrices: Tensor) -> Tensor:
        """Tell which ``matrices [m, n, n]`` keep the inputs inside the support of the data.

        Returns:
            ``[m]`` bool, on the CPU.
        """
        ...

    def errors(self, batch: Batch, g: Tensor, *, floor: bool = True) -> EquivarianceErrors:
        """Measure the loss and what it is compared with, without gradients.

        Args:
            batch: The batch.
            g: ``[..., B, C, n, n]``, on any device.
            floor: Measure what interpolation may cause too; if not, those fields are 0.

        Returns:
            The errors, on the device of g.
        """
        ...


@dataclass(frozen=True)
class EquivarianceErrors:
    """Errors at matrices ``[..., B, C, n, n]``; every field is ``[..., B, C]``.

    Distances are mean absolute differences of outputs, of class probabilities if the predictor
    gives logits.
    """

    loss: Tensor
    distance: Tensor
    """``|f(gx) - g f(x)|``"""
    displacement: Tensor
    """``|f(gx) - f(x)| + |g f(x) - f(x)|``, never less than ``distance``."""
    noise_floor: Tensor
    """The part of ``loss`` that interpolation may cause (METHOD 2.6).

    For L1 this is ``interpolation_error``, for the cross-entropy the change of the loss under a
    finer interpolation.
    """
    interpolation_error: Tensor
    """The part of ``distance`` that interpolation may cause: its change on both sides."""


class EquivarianceObjective:
    """``Objective`` for any ``Action``: inputs, a frozen predictor and a loss (METHOD 2.1).

    The loss ``l1`` is the mean absolute difference. The other losses are for predictors that give
    logits, however they were trained: the cross-entropy with the target ``g·softmax(f(x))``. The
    classes are on the first axis after ``[B, C]``.

    Args:
        inputs: The samples.
        action: How matrices act on inputs and outputs.
        freeze: Returns the predictor with its present weights, in evaluation mode and without
            weight gradients. Called by :meth:`refresh`.
        loss: The predictor's loss.
        freeze_inner: Like ``freeze``, for a predictor that may compute only the part of the output
            that ``Action.crop_out`` keeps. None: the same as ``freeze``.
        freeze_double: Like ``freeze``, in float64. None: the predictor of ``freeze`` takes float64.
        difference_step: Step of differences in g, for a predictor without gradients; 0 for
            gradients.
        resolution: Smallest step of differences that the predictor's precision resolves; 0 for any.
        space: Where the Lie algebra is sought. None: gl(n).
        targets: Makes the true targets, labels as numbers of classes; None if there are none.
        fitted: Samples ``[F]`` that may be learnt from; None for all.
        foreign: Whether the predictor is from elsewhere, and may be slow.
    """

    def __init__(
        self,
        inputs: Inputs,
        action: Action,
        freeze: Callable[[], Predictor],
        loss: LossKind = "l1",
        freeze_inner: Callable[[], Predictor] | None = None,
        freeze_double: Callable[[], Predictor] | None = None,
        *,
        difference_step: float = 0.0,
        resolution: float = 0.0,
        space: Space | None = None,
        targets: Callable[[], Inputs] | None = None,
        fitted: Tensor | None = None,
        foreign: bool = False,
    ) -> None:
        if loss not in get_args(LossKind):
            raise InvalidInput(f"unknown loss {loss!r}", "loss", ", ".join(get_args(LossKind)))
        self._inputs, self._action, self._freeze, self._kind = inputs, action, freeze, loss
        self._freeze_inner, self._freeze_double = freeze_inner, freeze_double
        self._difference_step, self._resolution = difference_step, resolution
        self._space = space or Space(Ambient.linear(action.n))
        self._make_targets, self._targets = targets, cast("Inputs | None", None)
        self.fitted = torch.arange(len(inputs)) if fitted is None else fitted
        """Samples that may be learnt from; the others judge what was found."""
        self.foreign = foreign
        """Whether the predictor is from elsewhere, and may be slow."""
        self.refresh()

    @property
    def n(self) -> int:
        """Size of the matrices: g is n by n."""
        return self._action.n

    @property
    def space(self) -> Space:
        """Where the Lie algebra is sought: gl(n), or a subspace of it."""
        return self._space

    def inside(self, space: Space) -> EquivarianceObjective:
        """Return the same objective for a search in another space."""
        other = copy.copy(self)
        other._space = space
        return other

    @property
    def has_targets(self) -> bool:
        """Whether there are true targets to compare with."""
        return self._make_targets is not None

    def sets(self, indices: Tensor, g: Tensor | None = None) -> Tensor | None:
        """Draw sets of vectors, and move them.

        Args:
            indices: Samples ``[B]``.
            g: A matrix for each, ``[B, n, n]``; None for no move.

        Returns:
            ``[B, 1, m, features]`` float64; None for fields.
        """
        if not isinstance(self._action, VectorAction):
            return None
        x = self._inputs.draw(indices, None).double()
        return x if g is None else self._action.act_in(g[:, None].to(x), x)

    def against_targets(self) -> EquivarianceObjective:
        """Return the same objective with the true targets y in place of the predictions f(x).

        Its loss is ``L(f(gx), g y)``, the risk on moved samples, where this one's compares the
        predictor with itself (METHOD 2.1).

        Raises:
            InvalidInput: There are no targets.
        """
        if self._make_targets is None:
            raise InvalidInput(
                "there are no targets to compare with",
                "against",
                "prediction, or data with targets",
            )
        other = copy.copy(self)
        other._targets = self._make_targets()
        return other

    @property
    def invariant(self) -> bool:
        """Whether no matrix moves the outputs of sets of vectors."""
        action = self._action
        return isinstance(action, VectorAction) and not (
            action.vector_output or action.rho_out is not None
        )

    def motion(self, indices: Tensor, directions: Tensor, step: float) -> Tensor | None:
        """Compute ``d/dt exp(tE)·x`` at t = 0 of sets of vectors, by central differences.

        Args:
            indices: Samples ``[B]``.
            directions: Directions E, ``[D, n, n]``.
            step: Half width of the differences.

        Returns:
            ``[D, B, ...]`` float64 on the CPU; None unless vectors and scalars alone come in, one
            group GL(n) moves them, and it is sought as a whole.
        """
        action, space = self._action, self._space
        whole = space.ambient.is_linear and not space.restricted
        if not isinstance(action, VectorAction) or not whole:
            return None
        rho = action.rho_in
        if rho is not None and any(kind not in "SPV" for kind in rho.text if kind.isupper()):
            return None
        x = self._inputs.draw(indices, None).double()

        def at(t: float, e: Tensor) -> Tensor:
            return action.act_in(torch.matrix_exp(t * e).expand(*x.shape[:2], -1, -1), x)

        return torch.stack(
            [(at(step, e) - at(-step, e)) / (2 * step) for e in directions.to(x)]
        ).cpu()

    @torch.no_grad()
    def change_along(self, indices: Tensor, direction: Tensor, seed: int) -> float:
        """Compute what random steps of all vectors along a direction change.

        Args:
            indices: Samples ``[B]``.
            direction: ``[n]``; a step is this times a normal number.
            seed: Seed of the steps.

        Returns:
            The mean squared change of the output, relative to the output's variance.
        """
        x, n = self._inputs.draw(indices, None), self.n
        before = self._comparable(self._f(x, None), channels=2)
        # exp of a wᵀ with w·x the size of the step would depend on x; a step is added instead.
        size = torch.randn(*x.shape[:-1], generator=random_stream(seed, 96)).to(x)
        slots = self._vectors(x.shape[-1], n)
        step = torch.zeros_like(x)
        for at in slots:
            step[..., at : at + n] = size[..., None] * direction.to(x)
        after = self._comparable(self._f(x + step, None), channels=2)
        spread = (before - before.mean(0)).square().mean()
        return float((after - before).square().mean() / spread.clamp(min=1e-30))

    def _vectors(self, features: int, n: int) -> list[int]:
        """Where the vectors of an item begin among its features."""
        rho = cast(VectorAction, self._action).rho_in
        if rho is None:
            return [0]
        starts, at = list[int](), 0
        for count, kind in rho.terms:
            starts += [at + i * n for i in range(count)] if kind == "V" else []
            at += count * (n if kind == "V" else 1)
        return [start for start in starts if start + n <= features]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self._inputs)

    @property
    def charts(self) -> int:
        """Number of charts."""
        return self._inputs.charts

    @property
    def max_batch(self) -> int:
        """Number of samples, on all charts, that fit in memory at a time."""
        return max_batch(self._inputs.shape)

    def refresh(self) -> None:
        """Freeze the predictor's present weights."""
        self._f = self._freeze()
        self._inner = self._f if self._freeze_inner is None else self._freeze_inner()

    def batch(self, indices: Tensor, charts: Tensor | None = None) -> Batch:
        """Draw samples ``indices [B]`` on ``charts`` and predict them."""
        with torch.no_grad():
            x = self._inputs.draw(indices, charts)
            y = self._f(self._action.crop_in(x), charts)
            if self._targets is None:
                return Batch(x, self._comparable(y, channels=2), charts)
            true = self._targets.draw(indices, charts)
            if self._kind != "l1":
                true = functional.one_hot(true[:, :, 0].long(), y.shape[2]).movedim(-1, 2)
            return Batch(x, true.to(y), charts)

    @torch.no_grad()
    def response(self, indices: Tensor, directions: Tensor, step: float) -> Tensor:
        """Compute the derivative of ``f(exp(tE)·x) − exp(tE)·f(x)``; see ``Objective``."""
        x, action = self._inputs.draw(indices, None).double(), self._action.differentiable()
        f = self._freeze() if self._freeze_double is None else self._freeze_double()
        step = max(step, self._resolution)
        reference = self._comparable(f(action.crop_in(x), None), channels=2)

        def residual(g: Tensor) -> Tensor:
            g = g.expand(*x.shape[:2], -1, -1)
            moved = self._comparable(f(action.act_in(g, x), None), channels=2)
            return (action.crop_out(moved) - action.act_out(g, reference)).flatten(2).flatten(0, 1)

        def slope(of: Callable[[Tensor], Tensor], e: Tensor, step: float = step) -> Tensor:
            both = of(torch.matrix_exp(step * e)), of(torch.matrix_exp(-step * e))
            return (both[0] - both[1]) / (2 * step)

        def by_gradients() -> Tensor | None:
            """The same from the outputs' gradients; None if these are not to be trusted."""
            gradients = self._gradients(f, action.crop_in(x))
            if gradients is None:
                return None

            def moved(g: Tensor) -> Tensor:
                return action.act_in(g.expand(*x.shape[:2], -1, -1), x).flatten(2)

            def followed(g: Tensor) -> Tensor:
                return action.act_out(g.expand(*x.shape[:2], -1, -1), reference).flatten(2)

            def along(e: Tensor) -> Tensor:
                own = (gradients @ slope(moved, e)[..., None])[..., 0]
                return (own - slope(followed, e)).flatten(0, 1)

            # A network may say that its slope is zero where it is not, as sign and abs do at 0.
            weights = torch.randn(len(directions), generator=random_stream(0, 88)).to(x)
            mixed = torch.einsum("d,dij->ij", weights, directions.to(x))
            expected = slope(residual, mixed, step * SHORT)
            apart = (along(mixed) - expected).nan_to_num().abs()
            if bool((apart > SLOPES * expected.nan_to_num().abs().max()).any()):
                return None
            return torch.stack([along(e) for e in directions.to(x)])

        # As many gradients as outputs take less time than two predictions a direction.
        few = x.dim() == 4 and reference[0, 0].numel() < len(directions)
        exact = not (self.foreign or self._difference_step or self._resolution)
        found = by_gradients() if few and exact else None
        if found is not None:
            return found
        return torch.stack([slope(residual, e) for e in directions.to(x)])

    def _gradients(self, f: Predictor, x: Tensor) -> Tensor | None:
        """Differentiate the outputs of sets.

        Args:
            f: The predictor, in the type of x.
            x: ``[B, C, m, features]``.

        Returns:
            ``[B, C, outputs, m·features]``; None if the predictor does not tell its gradients.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = self._action.crop_out(self._comparable(f(x, None), channels=2)).flatten(2)
            if not y.requires_grad:
                return None
            rows = [
                torch.autograd.grad(one.sum(), x, retain_graph=True, materialize_grads=True)[0]
                for one in y.unbind(2)
            ]
        return torch.stack([row.flatten(2) for row in rows], 2)

    def loss(self, batch: Batch, g: Tensor) -> Tensor:
        """Compute the equivariance loss ``[..., B, C]``; see ``Objective``."""
        home, g = g.device, g.to(batch.x.device)
        return self._derivable(lambda at: self._loss_at(batch, at), g).to(home)

    def distance(self, batch: Batch, g: Tensor) -> Tensor:
        """Compute the distance of ``f(g·x)`` and ``g·f(x)``, ``[..., B, C]``; see ``Objective``."""
        home, g = g.device, g.to(batch.x.device)
        return self._derivable(lambda at: self._distance_at(batch, at), g).to(home)

    @property
    def is_distance(self) -> bool:
        """Whether the loss is the distance."""
        return self._kind == "l1"

    @torch.no_grad()
    def local(self, batch: Batch, g: Tensor, moved: Tensor, steps: Tensor) -> Local:
        """Compute distances and their quadratic models; see ``Objective``.

        With residuals ``r = f(gx) − g f(x)`` and their derivatives D by differences, the mean of
        |r| has the slope ``E[sign(r) D]``. Its curvature is taken to be ``E[D Dᵀ / max(|r|,
        E|r|)]``, which for normally distributed residuals is nearly that of their mean.
        """
        # Few samples at a time: their layers fit in memory, and on a CPU in its cache.
        most = _LOCAL_ENTRIES_CUDA if batch.x.is_cuda else _LOCAL_ENTRIES
        at_once = max(1, most // (len(g) * (1 + moved.shape[1]) * batch.x[0].numel()))
        parts = []
        for i in range(0, len(batch.x), at_once):
            some = slice(i, i + at_once)
            parts.append(
                self._local(batch.samples(some), g[:, some], moved[:, :, some], steps[some])
            )
        value, slope, curvature = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return Local(value, slope, curvature)

    def _local(
        self, batch: Batch, g: Tensor, moved: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        every = torch.cat([g[:, None], moved], 1).to(batch.x.device)  # [M, 1 + P, B, C, n, n]
        lead = every.dim() - 2
        predicted = self._comparable(self._predict(batch, every, self._action), lead)
        r = (predicted - self._action.act_out(every, batch.reference)).flatten(lead)
        d = (r[:, 1:] - r[:, :1]) / steps.to(r)[:, :, None]
        d, r = d.permute(0, 2, 3, 1, 4), r[:, 0]  # [M, B, C, P, entries], [M, B, C, entries]
        size = r.abs()
        value = size.mean(-1)
        slope = (d @ r.sign()[..., None])[..., 0] / r.shape[-1]
        weight = 1 / torch.maximum(size, value[..., None]).clamp(min=1e-30)
        curvature = (d * weight[..., None, :]) @ d.mT / r.shape[-1]
        return value.double().cpu(), slope.double().cpu(), curvature.double().cpu()

    def _loss_at(self, batch: Batch, g: Tensor) -> Tensor:
        target = self._action.act_out(g, batch.reference)
        return self._loss(self._predict(batch, g, self._action), target, g.dim() - 2)

    def _distance_at(self, batch: Batch, g: Tensor) -> Tensor:
        lead = g.dim() - 2
        predicted = self._comparable(self._predict(batch, g, self._action), lead)
        return _mean_abs(predicted - self._action.act_out(g, batch.reference), lead)

    def _derivable(self, value: Callable[[Tensor], Tensor], g: Tensor) -> Tensor:
        """``value(g)``, whose gradient is that of the predictor, or differences in g."""
        if not self._difference_step:
            return value(g)
        return cast(Tensor, _ByDifferences.apply(g, value, self._difference_step))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def stays_in_support(self, batch: Batch, matrices: Tensor) -> Tensor:
        """Tell which matrices keep the inputs inside the support; see ``Objective``."""
        return self._action.stays_in_support(matrices.to(batch.x), batch.x).cpu()

    @torch.no_grad()
    def maps(self, batch: Batch, g: Tensor) -> tuple[Tensor, Tensor]:
        """Measure distance and displacement at each pixel; see ``EquivarianceErrors``.

        Args:
            batch: The batch.
            g: ``[B, C, n, n]``, on any device.

        Returns:
            Two tensors ``[B, C, s, s]``, means over channels, on the device of g.
        """
        home, g = g.device, g.to(batch.x.device)
        predicted = self._comparable(self._predict(batch, g, self._action), 2)
        target = self._action.act_out(g, batch.reference)
        unmoved = self._action.crop_out(batch.reference)
        displacement = (predicted - unmoved).abs() + (target - unmoved).abs()
        return (predicted - target).abs().mean(2).to(home), displacement.mean(2).to(home)

    @torch.no_grad()
    def errors(self, batch: Batch, g: Tensor, *, floor: bool = True) -> EquivarianceErrors:
        """Measure the loss and what it is compared with; see ``Objective``."""
        home, g = g.device, g.to(batch.x.device)
        lead = g.dim() - 2
        predicted, target = (
            self._predict(batch, g, self._action),
            self._action.act_out(g, batch.reference),
        )
        comparable = self._comparable(predicted, lead)
        unmoved = self._action.crop_out(batch.reference)
        fine = self._action.finer_interpolation()
        loss = self._loss(predicted, target, lead)
        noise_floor = interpolation_error = torch.zeros_like(loss)
        if floor and fine is not self._action:
            finely = self._predict(batch, g, fine)
            fine_target = fine.act_out(g, batch.reference)
            interpolation_error = _mean_abs(
                self._comparable(finely, lead) - comparable, lead
            ) + _mean_abs(fine_target - target, lead)
            noise_floor = (
                interpolation_error
                if self._kind == "l1"
                else (self._loss(finely, fine_target, lead) - loss).abs()
            )
        return EquivarianceErrors(
            loss=loss.to(home),
            distance=_mean_abs(comparable - target, lead).to(home),
            displacement=(
                _mean_abs(comparable - unmoved, lead) + _mean_abs(target - unmoved, lead)
            ).to(home),
            noise_floor=noise_floor.to(home),
            interpolation_error=interpolation_error.to(home),
        )

    def _predict(self, batch: Batch, g: Tensor, action: Action) -> Tensor:
        moved = action.act_in(g, batch.x)
        lead = g.dim() - 4  # number of dimensions before [B, C]
        y = self._inner(moved.flatten(0, lead), batch.charts)
        return self._action.crop_out(y.unflatten(0, moved.shape[: lead + 1]))

    def _comparable(self, y: Tensor, channels: int) -> Tensor:
        return y if self._kind == "l1" else y.softmax(channels)

    def _loss(self, predicted: Tensor, target: Tensor, lead: int) -> Tensor:
        if self._kind == "l1":
            return _mean_abs(predicted - target, lead)
        # Soft-label cross-entropy of each pixel (or output, for a global task), then the mean.
        entropy = -(target * functional.log_softmax(predicted, lead)).sum(lead, keepdim=True)
        return entropy.flatten(lead).mean(-1)


class _ByDifferences(torch.autograd.Function):
    """A function of matrices ``[..., n, n] -> [...]`` whose gradient is a central difference.

    Each value depends on its own matrix, so all matrices are moved at once.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, value: Callable[[Tensor], Tensor], step: float) -> Tensor:
        ctx.save_for_backward(g)
        ctx.value, ctx.step = value, step
        return value(g)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (g,) = ctx.saved_tensors
        value, step, n = ctx.value, ctx.step, g.shape[-1]
        with torch.no_grad():
            entries = torch.eye(n * n, dtype=g.dtype, device=g.device).unflatten(1, (n, n))
            slopes = [(value(g + step * e) - value(g - step * e)) / (2 * step) for e in entries]
        gradient = torch.stack(slopes, -1) * outer[0][..., None]
        return gradient.unflatten(-1, (n, n)), None, None


def _mean_abs(a: Tensor, lead: int) -> Tensor:
    return a.abs().flatten(lead).mean(-1)
