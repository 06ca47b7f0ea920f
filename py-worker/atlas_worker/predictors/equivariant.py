"""Networks on sets of vectors that commute with any given group (METHOD 5.5)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..catalogue import param, register
from ..errors import InvalidInput
from ..interfaces import Signature, refuse_tensors
from ..symmetry import lie
from ..symmetry.equivariant import (
    ALGEBRA,
    APART,
    EXACT,
    Group,
    equivariant_maps,
    maps_of_terms,
)
from ..symmetry.features import ORDERS, POINT, FeatureType, parse_dimensions, product
from .vectors import in_parts, psi

Features = dict[str, Tensor]
"""Features by the kinds of their terms, each ``[B, channels, size]``."""
Widths = dict[str, int]
"""Number of channels of each kind."""

LARGEST_PRODUCT = 1024
"""Largest number of entries of a bilinear map between features."""
HIGHEST_ORDER = 4
"""Highest order of a bilinear map: ``V``, ``V`` → ``T`` has order 4."""
MOST_MAPS = 64
"""Largest number of bilinear maps of three kinds."""
MOST_PAIRS = 512
"""Number of pairs of inputs up to which all products are taken."""
LARGEST_BATCH = 2**16
"""Most pairs of items that are seen at a time; bounds the memory of a batch."""
SMALL = 0.03
"""Smallest spread by which products are divided, relative to the largest of their kind."""
ROUNDING = 1e-5
"""Spread of products of features of spread 1 that vanish but for rounding."""
NEAR = 1e-3
"""Size of an invariant, in units of the inputs, from which on its logarithm is taken."""
LEVELS = 3
"""Blocks of a network of sets see pairs of items, items, and the set."""
START = 0.1
"""Size of the outputs at the start."""


class Terms:
    """The equivariant maps between kinds of terms, each computed once.

    Args:
        group: The group.
        like: Any type of the group.
    """

    def __init__(self, group: Group, like: FeatureType) -> None:
        self.group, self._like = group, like
        self._known: dict[tuple[tuple[str, ...], str], Tensor] = {}
        self.reasons: dict[str, None] = {}

    def size(self, kind: str) -> int:
        """Return the number of components of a kind."""
        return replace(self._like, text=kind).size

    def __call__(self, origins: tuple[str, ...], into: str) -> Tensor:
        """Return the maps ``[d, q, p]`` from a product of kinds to a kind.

        A point has a further component 1.
        """
        if (origins, into) not in self._known:
            if origins[0][0] == POINT:
                maps = equivariant_maps(
                    self.group.generators,
                    self.group.components,
                    replace(self._like, text=origins[0]),
                    replace(self._like, text=into),
                    accuracy=self.group.accuracy,
                )
            else:
                maps = maps_of_terms(self.group, origins, into, self._like)
            self._known[origins, into] = maps.basis
            self.reasons[maps.reason] = None
        return self._known[origins, into]


class EquivariantLinear(nn.Module):
    """A linear layer that commutes with a group, with a bias that the group leaves alone.

    The weight of channel i in channel o is a combination of the equivariant maps of the two kinds:
    ``W_oi = Σ_d w_oid Q_d``. The bias is a combination of the equivariant maps of a scalar.

    Args:
        terms: The equivariant maps.
        before: Channels of each kind of the inputs.
        after: Channels of each kind of the outputs.
        seed: Source of the initial weights.
        bias: Whether there is a bias.
        size: Size of the outputs at the start, for inputs of size 1.
    """

    def __init__(
        self,
        terms: Terms,
        before: Widths,
        after: Widths,
        seed: torch.Generator,
        *,
        bias: bool = True,
        size: float = 1.0,
    ) -> None:
        super().__init__()
        self.after = {kind: (width, terms.size(kind)) for kind, width in after.items()}
        self.pairs: list[tuple[str, str]] = []
        self.register_load_state_dict_pre_hook(_check_maps)  # type: ignore[no-untyped-call]
        for into, width in after.items():
            joined = {kind: terms((kind,), into) for kind in before}
            fan = sum(before[kind] * len(maps) for kind, maps in joined.items())
            for kind, maps in joined.items():
                if not len(maps):
                    continue
                self.pairs.append((kind, into))
                # Unit inputs give unit outputs.
                scaled = maps * math.sqrt(maps.shape[1])
                weight = torch.randn(width, before[kind], len(maps), generator=seed)
                self._add(f"{kind}_{into}", size * weight / math.sqrt(fan), scaled)
            constants = terms(("S",), into)[:, :, 0] if bias else torch.zeros(0)
            if len(constants):
                self._add(f"bias_{into}", torch.zeros(width, len(constants)), constants)

    def _add(self, name: str, weight: Tensor, maps: Tensor) -> None:
        self.register_parameter(f"weight_{name}", nn.Parameter(weight))
        self.register_buffer(f"maps_{name}", maps.float())

    def _of(self, name: str) -> Tensor | None:
        """Return the matrix that a weight stands for."""
        weight = getattr(self, f"weight_{name}", None)
        if weight is None:
            return None
        maps = getattr(self, f"maps_{name}")
        if maps.dim() == 2:
            return cast(Tensor, weight @ maps)
        return torch.einsum("oid,dqp->oqip", weight, maps).flatten(2).flatten(0, 1)

    def forward(self, x: Features) -> Features:
        """Map features to features of the kinds in ``after``."""
        some = next(iter(x.values()))
        y: Features = {}
        for into, (width, size) in self.after.items():
            total = some.new_zeros(some.shape[0], width * size)
            for kind, other in self.pairs:
                if other == into:
                    total = total + x[kind].flatten(1) @ cast(Tensor, self._of(f"{kind}_{into}")).mT
            y[into] = total.unflatten(1, (width, size))
            bias = self._of(f"bias_{into}")
            if bias is not None:
                y[into] = y[into] + bias
        return y


def _check_maps(layer: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Refuse weights of other maps: loading them would replace those of the group."""
    for name, maps in layer.named_buffers(recurse=False):
        given = state.get(prefix + name)
        if not name.startswith("maps") or given is None:
            continue
        same = given.shape == maps.shape
        if same and maps.numel():
            a, b = (lie.orthonormal(m.double().cpu().flatten(1)) for m in (maps, given))
            same = bool(torch.allclose(a.mT @ a, b.mT @ b, atol=1e-3))
        if not same:
            raise InvalidInput(
                "the weights belong to a network with another symmetry",
                "weights",
                "weights of a network built from the same algebra",
                "train a new network, or give the algebra of these weights",
            )


class Products(nn.Module):
    """Equivariant bilinear products of two features: ``Q_d(x_i, x_j)`` for all d and i ≤ j.

    Scalars are left out: the network multiplies by functions of them anyway. So are products of an
    order above ``HIGHEST_ORDER``, and products of two kinds that have more than ``LARGEST_PRODUCT``
    entries or ``MOST_MAPS`` maps; ``left_out`` names them.

    Args:
        terms: The equivariant maps.
        widths: Channels of each kind of the inputs.
        kinds: Kinds of the products.
    """

    def __init__(self, terms: Terms, widths: Widths, kinds: Iterable[str]) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_check_maps)  # type: ignore[no-untyped-call]
        self.pairs: list[tuple[str, str, list[tuple[str, int, int]]]] = []
        self.widths: Widths = {}
        self.left_out: list[str] = []
        moving = [kind for kind in widths if kind[0] not in ("S", POINT)]
        for a, b in itertools.combinations_with_replacement(moving, 2):
            found, maps = list[tuple[str, int, int]](), list[Tensor]()
            count = pairs_of(a, b, widths)
            for into in kinds:
                order = sum(ORDERS[kind[0]] for kind in (a, b, into))
                entries = terms.size(a) * terms.size(b) * terms.size(into)
                if order > HIGHEST_ORDER or entries > LARGEST_PRODUCT:
                    self.left_out.append(f"{a}⊗{b} → {into}")
                    continue
                some = terms((a, b), into)
                if len(some) > MOST_MAPS:
                    self.left_out.append(f"{a}⊗{b} → {into}")
                elif len(some):
                    found.append((into, len(some), terms.size(into)))
                    maps.append(some.flatten(0, 1))
                    self.widths[into] = self.widths.get(into, 0) + count * len(some)
            if found:
                self.pairs.append((a, b, found))
                self.register_buffer(f"maps_{a}_{b}", torch.cat(maps).float())

    def forward(self, x: Features) -> Features:
        """Multiply the features."""
        parts: dict[str, list[Tensor]] = {}
        for a, b, found in self.pairs:
            i, j = _indices(x[a].shape[1], x[b].shape[1], same=a == b)
            outer = (x[a][:, i][..., :, None] * x[b][:, j][..., None, :]).flatten(2)
            made = outer @ getattr(self, f"maps_{a}_{b}").mT
            sizes = [count * size for _, count, size in found]
            for (into, count, size), part in zip(found, made.split(sizes, 2), strict=True):
                values = part.unflatten(2, (count, size)).flatten(1, 2)
                parts.setdefault(into, []).append(values)
        return {into: torch.cat(values, 1) for into, values in parts.items()}


def pairs_of(a: str, b: str, widths: Widths) -> int:
    """Count the pairs of features of two kinds."""
    return widths[a] * (widths[a] + 1) // 2 if a == b else widths[a] * widths[b]


def _indices(m: int, n: int, *, same: bool) -> tuple[Tensor, Tensor]:
    if same:
        i, j = torch.triu_indices(m, m)
        return i, j
    i, j = torch.cartesian_prod(torch.arange(m), torch.arange(n)).unbind(1)
    return i, j


class Spread(nn.Module):
    """Divides features by their spread in a sample of the data, which is measured once.

    Scalars are also centred. Each channel of other kinds is divided by one number, so that nothing
    depends on directions.

    Args:
        widths: Channels of each kind.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        for kind, width in widths.items():
            self.register_buffer(f"spread_{kind}", torch.ones(width, 1))
            if kind == "S":
                self.register_buffer("mean_S", torch.zeros(width, 1))

    def measure(self, x: Features, smallest: float = 0.0) -> None:
        """Take the spread from features ``[B, channels, size]``.

        Args:
            x: The features.
            smallest: Least spread, relative to the largest of the kind.
        """
        for kind, values in x.items():
            if kind == "S":
                mean = values.mean((0, 2), keepdim=True)[0]
                cast(Tensor, self.mean_S).copy_(mean)
                values = values - mean
            size = values.square().mean((0, 2)).sqrt()[:, None]
            size = size.clamp(min=smallest * float(size.max()))
            spread = torch.where(size > (ROUNDING if smallest else 0), size, 1.0)
            cast(Tensor, getattr(self, f"spread_{kind}")).copy_(spread)

    def forward(self, x: Features) -> Features:
        """Divide by the spread."""
        return {
            kind: ((values - cast(Tensor, self.mean_S)) if kind == "S" else values)
            / getattr(self, f"spread_{kind}")
            for kind, values in x.items()
        }


class Lift(nn.Module):
    """Puts the products of features beside the features, all of them in units of their spread.

    If there are too many pairs, the products are those of a few learnt combinations.

    Args:
        terms: The equivariant maps.
        widths: Channels of each kind.
        kinds: Kinds of the products.
        combinations: Number of combinations of each kind, if they are needed.
        most: Number of pairs up to which all are taken.
        seed: Source of the initial weights.
        logarithm: Whether invariant products x become ``ψ(x / NEAR)``, with
            ``ψ(z) = sgn(z) log(1 + |z|)``.
    """

    def __init__(
        self,
        terms: Terms,
        widths: Widths,
        kinds: Iterable[str],
        combinations: int,
        most: int,
        seed: torch.Generator,
        logarithm: bool = False,
    ) -> None:
        super().__init__()
        self.logarithm = logarithm
        moving = [kind for kind in widths if kind[0] not in ("S", POINT)]
        both = itertools.combinations_with_replacement(moving, 2)
        self.mixed: EquivariantLinear | None = None
        factors = {kind: widths[kind] for kind in moving}
        if sum(pairs_of(a, b, widths) for a, b in both) > most:
            factors = {kind: min(combinations, widths[kind]) for kind in moving}
            self.mixed = EquivariantLinear(terms, widths, factors, seed, bias=False)
        self.products = Products(terms, factors, kinds)
        made = self.products.widths
        self.spread = Spread(made)
        self.widths = {
            kind: widths.get(kind, 0) + made.get(kind, 0)
            for kind in dict.fromkeys([*widths, *made])
        }

    def forward(self, x: Features, *, measure: bool = False) -> Features:
        """Join the products; with ``measure`` take their spread from x."""
        z = self.products(x if self.mixed is None else self.mixed(x))
        if self.logarithm and "S" in z:
            z["S"] = psi(z["S"] / NEAR)
        if measure:
            self.spread.measure(z, SMALL)
        z = self.spread(z)
        return {
            kind: torch.cat([part[kind] for part in (x, z) if kind in part], 1)
            for kind in self.widths
        }


class Block(nn.Module):
    """An equivariant linear layer and a gated nonlinearity, added to the input.

    Scalars go through SiLU. Each other feature is multiplied by tanh of a scalar of its own (after
    Weiler et al. 2018, "3D steerable CNNs", section 4.3, which has a sigmoid there).

    Args:
        terms: The equivariant maps.
        widths: Channels of each kind.
        combinations: Combinations of each kind that are multiplied; with 0 only scalars change.
        seed: Source of the initial weights.
    """

    def __init__(
        self, terms: Terms, widths: Widths, combinations: int, seed: torch.Generator
    ) -> None:
        super().__init__()
        self.lift: Lift | None = None
        self.gated: Widths = {}
        joined, after = {"S": widths["S"]}, {"S": widths["S"]}
        if combinations:
            self.lift = Lift(terms, widths, widths, combinations, 0, seed)
            joined = self.lift.widths
            self.gated = {kind: width for kind, width in widths.items() if kind != "S"}
            after = {**widths, "S": widths["S"] + sum(self.gated.values())}
        self.linear = EquivariantLinear(terms, joined, after, seed)

    def forward(self, x: Features, *, measure: bool = False) -> Features:
        """Apply the block; with ``measure`` take the spread of the products from x."""
        y = self.linear(x if self.lift is None else self.lift(x, measure=measure))
        own = x["S"].shape[1]
        gates = y["S"][:, own:].tanh().split(list(self.gated.values()), 1)
        y["S"] = functional.silu(y["S"][:, :own])
        for kind, gate in zip(self.gated, gates, strict=True):
            y[kind] = y[kind] * gate
        return {kind: x[kind] + y[kind] if kind in y else x[kind] for kind in x}


class Dilation(nn.Module):
    """The size of a sample, by which scalings are taken out of a network.

    A group with the scaling ``x → c x`` has no polynomial invariants. With Q_d the bilinear
    invariants of the rest of the group, ``N(x)⁴ = Σ_dij Q_d(x_i, x_j)²`` scales as x does and is
    otherwise invariant.

    Args:
        forms: ``[d, n n]``.
    """

    forms: Tensor
    """``[d, n, n]``"""

    def __init__(self, forms: Tensor, n: int) -> None:
        super().__init__()
        self.register_buffer("forms", forms.view(-1, n, n).float())

    def forward(self, v: Tensor) -> Tensor:
        """Compute the sizes ``[B, 1, 1]`` of samples of vectors ``[B, m, n]``."""
        values = torch.einsum("bia,dac,bjc->bdij", v, self.forms, v)
        fourth = values.square().sum((1, 2, 3)) + torch.finfo(v.dtype).tiny
        return fourth.pow(0.25)[:, None, None]


_WEIGHTS = {"S": 0, "P": 0, "V": 1, "C": -1, "T": 2, "F": -2, "X": 1}
"""Power of the scale by which a scaling multiplies each kind."""


class Coordinates(nn.Module):
    """The coordinates in which a group acts: learnt, near to those that its generators tell.

    Generators that were closed to an algebra are those of the right group in other coordinates,
    ``P B P⁻¹`` with P near 1, if that group has no deformations. So a network that commutes with
    them in the coordinates ``P⁻¹ x`` can commute with the right group. P is learnt with the
    weights, from 1 on, in units of a few of the generators' errors, so that it settles early.

    Args:
        type_in: The type of the inputs, of linear groups.
        type_out: The type of the outputs.
        accuracy: Relative error of the generators.
    """

    free: Tensor
    """``[N, N]``: the unit of each entry of P, zero outside of the groups' blocks."""

    def __init__(self, type_in: FeatureType, type_out: FeatureType, accuracy: float) -> None:
        super().__init__()
        self.type_in, self.type_out = type_in, type_out
        mask = type_in.acting.mask().float()
        self.register_buffer("free", APART * accuracy * mask)
        self.shift = nn.Parameter(torch.zeros_like(mask))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return ``ρ_in(P⁻¹)ᵀ [in, in]`` and ``ρ_out(P)ᵀ [out, out]``, for rows of features."""
        p = torch.eye(len(self.free), dtype=self.shift.dtype, device=self.shift.device)
        p = p + self.free * self.shift
        return self.type_in(torch.linalg.inv(p)).mT, self.type_out(p).mT


class EquivariantMlp(nn.Module):
    """A network that commutes with a given group (METHOD 5.5).

    ``[B, C, m, n] -> [B, C, out]``, with the same weights for all C. The numbers of a sample are
    features of the kinds of its type. All products of two of them join them. What is invariant goes
    through a perceptron with residual blocks. The output is a linear map of the features, and of
    combinations of them that are multiplied by functions of the invariants. (Functions of vectors
    that commute with an orthogonal group, or with Lorentz's, all have this form: Villar et al.
    2021, "Scalars are universal". For other groups further blocks can multiply again.)

    With ``sets`` the order of the items does not matter. The same weights see every pair of items
    beside the mean of all. After the blocks the mean over the pairs of an item goes through blocks
    of its own, and so does the mean over the items. Items of zeros are padding. Sums are divided by
    the nominal number m of items, so they tell how many there are.

    Args:
        signature: Shapes, types, and samples of the data if there are any.
        params: The parameters.
        algebra: Generators ``[k, N, N]``.
        components: Components ``[m, N, N]``.
        seed: Source of the initial weights.

    Raises:
        InvalidInput: The group does not fit the types.
    """

    halo = 0
    """There are no pixels."""

    def __init__(
        self,
        signature: Signature,
        params: EquivariantMlpParams,
        algebra: Tensor,
        components: Tensor,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        self.type_in, self.type_out = types_of(signature)
        self.sets = params.sets
        m = 3 if self.sets else signature.inputs[0]
        if self.sets and (self.type_in.affine or self.type_out.affine):
            raise InvalidInput(
                "points do not go into a network of sets, for padding is at no place",
                "predictor.architecture.params.sets",
                "vectors, or false",
            )
        if params.accuracy > LARGEST_ERROR:
            raise InvalidInput(
                f"generators with a relative error of {params.accuracy:g} say nothing",
                "predictor.architecture.params.accuracy",
                f"at most {LARGEST_ERROR}",
            )
        group = Group(algebra, components, self.type_in.acting, params.accuracy)
        self.coordinates: Coordinates | None = None
        if params.coordinates and not (self.type_in.affine or self.type_out.affine):
            self.coordinates = Coordinates(self.type_in, self.type_out, group.accuracy)
        self.dilation, group = _without_scaling(group, self.type_in)
        terms = Terms(group, self.type_in)
        inputs: Widths = {}
        for count, kind in self.type_in.terms:
            inputs[_moving(kind)] = inputs.get(_moving(kind), 0) + m * count
        self.means = sorted({kind for _, kind in self.type_in.terms if kind[0] == POINT})
        inputs |= dict.fromkeys(self.means, 1)
        outputs: Widths = {}
        for count, kind in self.type_out.terms:
            outputs[_moving(kind)] = outputs.get(_moving(kind), 0) + count
            if kind[0] == POINT and kind not in self.means:
                raise InvalidInput(
                    f"outputs of type {self.type_out.text} are points, but no inputs are",
                    self.type_out.field,
                    "points among the inputs, or vectors as outputs",
                )
        kinds = _hidden_kinds(terms, inputs, outputs)
        self.units, self.out_units = Spread(inputs), Spread(outputs)
        self.lift = Lift(
            terms, inputs, kinds, params.combinations, MOST_PAIRS, seed, params.logarithm
        )
        widths = {
            kind: params.width if kind == "S" else params.vectors
            for kind in kinds
            if kind == "S" or kind in self.lift.widths or kind in outputs
        }
        self.first = EquivariantLinear(terms, self.lift.widths, widths, seed)
        self.blocks = nn.ModuleList(
            Block(terms, widths, params.combinations if i < params.multiplying else 0, seed)
            for i in range(params.layers * (LEVELS if self.sets else 1))
        )
        self.gated = {kind: width for kind, width in widths.items() if kind != "S"}
        factors = {"S": sum(self.gated.values())}
        self.factors = EquivariantLinear(terms, {"S": widths["S"]}, factors, seed)
        # The network starts near a constant, which few samples do not lead far from.
        self.last = EquivariantLinear(terms, widths, outputs, seed, size=START)
        self.direct = EquivariantLinear(
            terms, self.lift.widths, outputs, seed, bias=False, size=START
        )
        reasons = [reason for reason in terms.reasons if "⊗" not in reason]
        left_out = [
            f"products left out, for they are too many: {', '.join(products.left_out)}"
            for products in self.modules()
            if isinstance(products, Products) and products.left_out
        ]
        self.facts = {"maps": "; ".join([*group.notes, *reasons, *dict.fromkeys(left_out)])}
        self._measure(signature)

    @torch.no_grad()
    def _measure(self, signature: Signature) -> None:
        """Take the units of the features from samples of the data."""
        if signature.examples is None:
            return
        x, y = signature.examples
        if self.sets:
            x = x[: max(1, LARGEST_BATCH // x.shape[1] ** 2)]
            y = y if y is None else y[: len(x)]
        sample, size, real = self._read(x.float().cpu())
        self.units.measure(sample)
        self._features(self.lift(self.units(sample), measure=True), real, measure=True)
        if y is not None:
            targets = self._targets(y.float().cpu(), x.float().cpu())
            targets = _scaled(targets, size, -1)
            constants: Features = {}
            for kind, values in targets.items():
                maps = getattr(self.last, f"maps_bias_{kind}", None)
                if kind != "S" and maps is not None:
                    # The part of the mean that the group leaves alone becomes the bias.
                    constants[kind] = values.mean(0) @ maps.mT
                    targets[kind] = values - constants[kind] @ maps
            self.out_units.measure(targets)
            for kind, weight in constants.items():
                spread = getattr(self.out_units, f"spread_{kind}")
                getattr(self.last, f"weight_bias_{kind}").copy_(weight / spread)

    def _split(self, x: Tensor) -> Features:
        """Sort the numbers of samples ``[B, m, n]`` by kinds: ``[B, m count, size]`` each.

        Points become their differences from the mean of a sample's points, and this mean.
        """
        parts: dict[str, list[Tensor]] = {}
        for kind, at in self.type_in.parts():
            parts.setdefault(kind, []).append(x[..., at])
        found: Features = {}
        for kind, values in parts.items():
            joined = torch.cat(values, 1)
            if kind[0] == POINT:
                mean = joined.mean(1, keepdim=True)
                joined = joined - mean
                found[kind] = functional.pad(mean, (0, 1), value=1.0)
            into = _moving(kind)
            found[into] = torch.cat([found[into], joined], 1) if into in found else joined
        return found

    def _read(self, x: Tensor) -> tuple[Features, Tensor | None, Tensor | None]:
        """Read samples ``[B, m, n]``.

        Returns:
            The features, of each pair of items for sets; the sizes ``[B, 1, 1]`` of the samples if
            the group scales; and for sets which items are no padding ``[B, m]``.
        """
        h = self._split(x)
        size = None if self.dilation is None else cast(Tensor, self.dilation(h[self.dilation.kind]))
        if not self.sets:
            return _scaled(h, size, -1), size, None
        some, m = x.shape[:2]
        mean = x.mean(1)[:, None, None].expand(-1, m, m, -1)
        one, other = x[:, :, None].expand_as(mean), x[:, None].expand_as(mean)
        h = self._split(torch.stack([one, other, mean], 3).flatten(0, 2))
        of_pairs = None if size is None else size.expand(some, m * m, 1).reshape(-1, 1, 1)
        return _scaled(h, of_pairs, -1), size, (x != 0).any(2).to(x.dtype)

    def _features(
        self, lifted: Features, real: Tensor | None, *, measure: bool = False
    ) -> tuple[Features, Features]:
        """Compute the hidden features of samples, and the means of the lifted ones over pairs."""
        h = self.first(lifted)
        per_level = len(self.blocks) // (LEVELS if self.sets else 1)
        for i, block in enumerate(self.blocks):
            if real is not None and i in (per_level, 2 * per_level):
                h = _pooled(h, real if i > per_level else _of_pairs(real))
            h = cast(Block, block)(h, measure=measure)
        if real is not None:
            lifted = _pooled(_pooled(lifted, _of_pairs(real)), real)
        return h, lifted

    def _mean(self, x: Tensor, kind: str) -> Tensor:
        """Mean ``[B, n]`` of the points of a kind in samples ``[B, m, n]``."""
        points = [x[..., at] for other, at in self.type_in.parts() if other == kind]
        return torch.cat(points, 1).mean(1)

    def _targets(self, y: Tensor, x: Tensor) -> Features:
        """Sort the numbers of targets ``[B, out]`` by kinds."""
        found: dict[str, list[Tensor]] = {}
        for kind, at in self.type_out.parts():
            values = y[:, at]
            if kind[0] == POINT:
                values = values - self._mean(x, kind)
            found.setdefault(_moving(kind), []).append(values)
        return {kind: torch.stack(values, 1) for kind, values in found.items()}

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the outputs ``[B, C, out]`` of ``x [B, C, m, n]``."""
        flat = x.flatten(0, 1)
        if self.sets:
            y = in_parts(self._outputs, flat, LARGEST_BATCH // flat.shape[1] ** 2)
        else:
            y = self._outputs(flat)
        return cast(Tensor, y.unflatten(0, x.shape[:2]))

    def _outputs(self, flat: Tensor) -> Tensor:
        """Compute the outputs ``[B, out]`` of samples ``[B, m, n]``."""
        back: Tensor | None = None
        if self.coordinates is not None:
            into, back = self.coordinates()
            flat = flat @ into
        sample, size, real = self._read(flat)
        h, lifted = self._features(self.lift(self.units(sample)), real)
        factors = self.factors(h)["S"].split(list(self.gated.values()), 1)
        for kind, factor in zip(self.gated, factors, strict=True):
            h[kind] = h[kind] * factor
        z, straight = self.last(h), self.direct(lifted)
        z = {kind: z[kind] + straight[kind] for kind in z}
        for kind in z:
            z[kind] = z[kind] * getattr(self.out_units, f"spread_{kind}")
        if "S" in z:
            z["S"] = z["S"] + self.out_units.mean_S
        z = _scaled(z, size, 1)
        columns, used = [], dict.fromkeys(z, 0)
        for kind, _ in self.type_out.parts():
            into = _moving(kind)
            column = z[into][:, used[into]]
            used[into] += 1
            columns.append(column + self._mean(flat, kind) if kind[0] == POINT else column)
        joined = torch.cat(columns, 1)
        return joined if back is None else joined @ back


def types_of(signature: Signature) -> tuple[FeatureType, FeatureType]:
    """Return the types of a sample's items and of the outputs, in one product of groups."""
    if not signature.types:
        raise InvalidInput(
            "nothing tells how the group moves the data",
            "predictor.atlas",
            "an atlas with types of features",
        )
    inputs_as, targets_as, n, dimensions = signature.types
    targets_as = targets_as or f"{signature.outputs}S"
    fields = [f"atlas.action.params.{name}" for name in ("inputs_as", "targets_as")]
    types = [
        FeatureType(t, int(n), f) for t, f in zip((inputs_as, targets_as), fields, strict=True)
    ]
    plain = signature.manifold == "planar"
    ambient = product(types, int(n), parse_dimensions(dimensions, fields[0]), plain=plain)
    type_in, type_out = (replace(type, ambient=ambient) for type in types)
    type_in.check(signature.inputs[0 if plain else -1])
    type_out.check(signature.outputs)
    return type_in, type_out


def _moving(kind: str) -> str:
    """Return the kind of the differences of a kind: vectors for points."""
    return f"V{kind[1:]}" if kind[0] == POINT else kind


def _of_pairs(real: Tensor) -> Tensor:
    """Which items ``[B, m, m]`` may be the second of a pair, of ``[B, m]``."""
    return real[:, None].expand(-1, real.shape[1], -1)


def _pooled(x: Features, real: Tensor) -> Features:
    """Mean over every m-th part of features ``[B m, channels, size]``, without padding.

    Args:
        x: The features, of items or of pairs of items.
        real: Which of the m are no padding, ``[B, m]`` in all.
    """
    m = real.shape[-1]
    weight = real.reshape(-1, m) / m
    return {
        kind: torch.einsum("bj,bj...->b...", weight, values.unflatten(0, (-1, m)))
        for kind, values in x.items()
    }


def _scaled(x: Features, size: Tensor | None, sign: int) -> Features:
    """Multiply features by the power of the size by which a scaling moves their kinds."""
    if size is None:
        return x
    return {kind: values * size ** (sign * _WEIGHTS[kind[0]]) for kind, values in x.items()}


def _hidden_kinds(terms: Terms, inputs: Widths, outputs: Widths) -> list[str]:
    """Choose the kinds of hidden features: scalars, those of inputs and outputs, and further ones.

    Pseudoscalars join if a component turns a factor over, and covectors if products of vectors give
    covectors that are no vectors (as under sl(3)).
    """
    given = sorted(kind for kind in {*inputs, *outputs} if kind[0] not in ("S", POINT))
    kinds = ["S", *given]
    ambient = terms.group.ambient
    for at, factor in enumerate(ambient.factors):
        vector, dual, sign = (f"{letter}{factor.name}" for letter in "VCP")
        negative = ambient.signs(terms.group.components)[:, at] < 0
        if sign not in kinds and bool(negative.any()):
            kinds.append(sign)
        if vector not in kinds or dual in kinds or terms.size(vector) ** 3 > LARGEST_PRODUCT:
            continue
        if not len(terms((vector,), dual)) and len(terms((vector, vector), dual)):
            kinds.append(dual)
    return kinds


class _Sized(Dilation):
    """A :class:`Dilation` that knows the kind whose features tell the size."""

    def __init__(self, forms: Tensor, n: int, kind: str) -> None:
        super().__init__(forms, n)
        self.kind = kind


def _without_scaling(group: Group, type_in: FeatureType) -> tuple[_Sized | None, Group]:
    """Split the scaling of all vectors off an algebra that holds it.

    Returns:
        The size of a sample, and the group of the rest. None, and the group itself, if it does not
        scale, or if nothing tells the size.
    """
    ambient, found = group.ambient, group.generators
    kinds = [kind for _, kind in type_in.terms if kind in ("V", "C")]
    if not ambient.is_linear or not len(found) or not kinds:
        return None, group
    n = ambient.n
    scaling = torch.eye(n, dtype=torch.float64) / math.sqrt(n)
    rows = lie.frame(found)
    along = lie.project(rows, scaling)
    off = math.sqrt(max(0.0, 1 - float(along.square().sum())))
    if off > max(3 * group.accuracy * math.sqrt(len(rows)), EXACT):
        return None, group
    # The rest: the directions of the span that are orthogonal to the scaling.
    others = torch.linalg.svd(along[None])[2][1:]
    rest = torch.einsum("ij,jnm->inm", others, rows)
    traces = rest.diagonal(dim1=1, dim2=2).mean(1)
    rest = rest - traces[:, None, None] * torch.eye(n, dtype=rest.dtype)
    smaller = Group(rest, group.components, ambient, group.accuracy)
    smaller.notes += ["scalings are taken out by the size of a sample"]
    kind = kinds[0]
    forms = maps_of_terms(smaller, (kind, kind), "S", type_in).basis
    if not len(forms):
        return None, group
    return _Sized(forms[:, 0], n, kind), smaller


LARGEST_ERROR = 0.3
"""Largest relative error of generators to build a network from."""


@dataclass(frozen=True)
class EquivariantMlpParams:
    """Parameters of the architecture ``equivariant_mlp`` (METHOD 5.5)."""

    typed: ClassVar[bool] = True
    """The architecture needs the types of the features."""

    width: int = param(48, "Number of hidden scalars", minimum=1, maximum=4096)
    vectors: int = param(
        12, "Number of hidden features of each other kind", minimum=1, maximum=4096
    )
    layers: int = param(3, "Number of blocks", minimum=1, maximum=64)
    combinations: int = param(
        6,
        "Number of combinations of features of each kind whose products a block takes",
        minimum=1,
        maximum=256,
    )
    multiplying: int = param(
        0,
        "How many blocks, counted from the first, multiply features again",
        minimum=0,
    )
    accuracy: float = param(
        EXACT,
        "Relative error of the generators, as their result tells it, up to 0.3",
        minimum=0,
        maximum=1,
    )
    sets: bool = param(
        False,
        "Let the order of the items not matter: the same weights see every pair of them",
        added=True,
    )
    logarithm: bool = param(
        False,
        "Take the logarithm of invariants of the inputs, for data of many sizes",
        added=True,
    )
    coordinates: bool = param(
        False,
        "Learn the coordinates in which the group acts too, near to those of the generators, which "
        "have errors (not for affine groups)",
        added=True,
    )


@register(
    "architecture",
    "equivariant_mlp",
    "A network that commutes with the group of the tensors `algebra` and `components`",
    EquivariantMlpParams,
    manifolds=("vectors",),
)
def make_equivariant_mlp(
    params: EquivariantMlpParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> EquivariantMlp:
    """Build an :class:`EquivariantMlp` for ``algebra [k, N, N]`` and ``components [m, N, N]``."""
    refuse_tensors(tensors, "algebra", *[name for name in tensors if name == "components"])
    algebra = tensors["algebra"]
    if algebra.dim() != 3:
        raise InvalidInput(f"the algebra has shape {list(algebra.shape)}", ALGEBRA, "[k, n, n]")
    none = algebra.new_zeros(0, *algebra.shape[1:])
    return EquivariantMlp(signature, params, algebra, tensors.get("components", none), seed)
