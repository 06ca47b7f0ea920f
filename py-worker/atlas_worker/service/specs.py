"""Turns the spec of an object into a plan of how to make it, before anything is allocated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from atlas_worker import catalogue
from atlas_worker.catalogue import Block, BlockType, fingerprint, recorded_params
from atlas_worker.errors import InvalidInput, NotReady
from atlas_worker.gen.atlas.v1 import objects_pb2
from atlas_worker.symmetry import Atlas, ambient_of

from .devices import check_memory
from .sessions import Entry, Session
from .snapshots import Origin
from .tensor_codec import TensorCodec, plain, raw_bytes
from .uploads import PREFIX

ObjectType = Literal["dataset", "atlas", "predictor", "algebra", "cosets"]
"""Type of an object in the contract."""


@dataclass(frozen=True)
class Plan:
    """How to make an object."""

    type: ObjectType
    block: Block
    fingerprint: list[Any]
    """What its snapshots depend on, as JSON values: parameters, seeds, hashes of tensors."""
    make: Callable[[], Any]
    """Makes the object."""
    uses: tuple[Entry, ...] = ()
    """Objects from which it is made."""
    given: tuple[str, dict[str, Any]] | None = None
    """Kind and parameters of an atlas's block, as JSON values."""

    def origin(self) -> Origin:
        """Return what identifies the object's snapshots."""
        kind = self.block.recorded_kind
        text = json.dumps(
            [self.type, kind, self.fingerprint, [e.origin.spec for e in self.uses]], sort_keys=True
        )
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return Origin(self.type, kind, digest)


def plan(session: Session, codec: TensorCodec, request: objects_pb2.CreateObjectRequest) -> Plan:
    """Check a request and plan its object.

    Args:
        session: The session that will own the object.
        codec: Reads the request's tensors.
        request: The request, with one of the specs set.

    Returns:
        The plan.

    Raises:
        InvalidInput: No spec is set, or something in it is not accepted.
        NotFound: The spec names an object that does not exist.
        NotReady: The spec names an object that is not made yet.
    """
    type = request.WhichOneof("spec")
    if type is None:
        raise InvalidInput("no spec is set", "spec", f"one of {', '.join(_PLANNERS)}")
    return _PLANNERS[type](session, codec, getattr(request, type))


def _dataset(session: Session, codec: TensorCodec, spec: objects_pb2.DatasetSpec) -> Plan:
    block, params = _block("dataset", spec.source, "dataset.source")
    params = catalogue.resolve_files(
        params, codec.limits.data_root, "dataset.source", partial(uploaded_path, session)
    )
    tensors = _tensors(codec, spec, "dataset")
    seed, device = spec.seed, session.device

    def make() -> Any:
        moved = {name: t.to(device) for name, t in tensors.items()}
        return block.make(params, seed=seed, device=device, tensors=moved)

    # Files are identified by what is in them, wherever they are.
    identify = getattr(block.make, "identity", None)
    identity = identify(params) if identify else fingerprint(block, params)
    return Plan("dataset", block, [identity, seed, _hashes(tensors)], make)


def _atlas(session: Session, codec: TensorCodec, spec: objects_pb2.AtlasSpec) -> Plan:
    block, params = _block("action", spec.action, "atlas.action")
    atlas = block.make(params)
    given = block.kind, asdict(params)
    return Plan("atlas", block, [recorded_params(params)], lambda: atlas, given=given)


def _predictor(session: Session, codec: TensorCodec, spec: objects_pb2.PredictorSpec) -> Plan:
    from atlas_worker.predictors import make_predictor

    block, network = _block("architecture", spec.architecture, "predictor.architecture")
    if block.executes_code and not codec.limits.trust_code:
        raise InvalidInput(
            f"a predictor of kind {block.kind} is code, which this worker does not execute",
            "predictor.architecture.kind",
            "a worker that was started to execute its clients' code",
        )
    network = catalogue.resolve_files(network, codec.limits.data_root, "predictor.architecture")
    recipe, training = _block("training", spec.training, "predictor.training")
    dataset, atlas = _lattice(session, spec, "predictor")
    epochs = _epochs(spec.epochs, 0, "predictor.epochs")
    seed, device = spec.seed, session.device
    tensors = _tensors(codec, spec, "predictor")
    built, fitted = (block.kind, asdict(network)), (recipe.kind, asdict(training))

    def make() -> Any:
        made = make_predictor(
            built, fitted, dataset.value, atlas.value, epochs, seed, device, tensors
        )
        team = session.team
        if team is not None and epochs and recipe.kind == "supervised":
            text: dict[str, Any] = {"architecture": built, "training": fitted, "atlas": atlas.given}
            text |= {"epochs": epochs, "seed": seed}
            check_copies(session, dataset.value.memory_bytes + made.memory_bytes)
            made.divide(team.share(text, tensors, dataset.value))
        return made

    parts = [
        fingerprint(block, network),
        recipe.recorded_kind,
        fingerprint(recipe, training),
        epochs,
        seed,
    ]
    if tensors:
        parts.append(_hashes(tensors))
    if block.executes_code:
        parts.append(_file_hash(getattr(network, "file", "")))
    return Plan("predictor", block, parts, make, (dataset, atlas))


def _algebra(session: Session, codec: TensorCodec, spec: objects_pb2.AlgebraSpec) -> Plan:
    from atlas_worker.predictors import make_objective

    block, params = _block("algebra_solver", spec.solver, "algebra.solver", "data_solver")
    k = spec.k if spec.HasField("k") else 0
    epochs, seed = _epochs(spec.epochs, 1, "algebra.epochs"), spec.seed
    if k == 0 and not block.finds_k:
        finders = [b.kind for b in catalogue.blocks() if b.finds_k]
        raise InvalidInput(
            f"the solver {block.kind} does not find the number of generators",
            "algebra.k",
            "at least one generator",
            f"give k, or choose a solver that finds it: {', '.join(finders)}",
        )
    uses: tuple[Entry, ...]
    context: dict[str, Any]
    if block.needs_predictor:
        predictor, dataset, atlas = uses = _inputs(session, spec, "algebra")
        group = _group(codec, spec, "algebra", atlas.value)
        objective = make_objective(
            predictor.value, dataset.value, atlas.value, group, "algebra.group_algebra"
        )
        most = objective.space.dimension
        if k > most:
            name = "n²" if objective.space.is_whole else "the dimension of the group"
            raise InvalidInput(f"k is {k}", "algebra.k", f"at most {name} = {most} generators")
        context = {"objective": objective}
    else:
        group = None
        if spec.HasField("predictor"):
            raise InvalidInput(
                f"the solver {block.kind} looks at the data alone",
                "algebra.predictor",
                "no predictor",
                "leave it out",
            )
        if spec.HasField("group_algebra"):
            raise InvalidInput(
                f"the solver {block.kind} has a group of its own",
                "algebra.group_algebra",
                "no group",
                "leave it out",
            )
        dataset, atlas = uses = _lattice(session, spec, "algebra")
        context = {"dataset": dataset.value, "atlas": atlas.value, "device": session.device}

    def make() -> Any:
        return block.make(params, **context, k=k, epochs=epochs, seed=seed)

    parts = [fingerprint(block, params), k, epochs, seed]
    if group is not None:
        parts.append(_hash(group))
    return Plan("algebra", block, parts, make, uses)


def _cosets(session: Session, codec: TensorCodec, spec: objects_pb2.CosetSpec) -> Plan:
    from atlas_worker.predictors import make_objective

    block, params = _block("coset_solver", spec.solver, "cosets.solver", "closure_solver")
    predictor, dataset, atlas = _inputs(session, spec, "cosets")
    epochs, seed = _epochs(spec.epochs, 1, "cosets.epochs"), spec.seed
    group = _group(codec, spec, "cosets", atlas.value)
    objective = make_objective(
        predictor.value, dataset.value, atlas.value, group, "cosets.group_algebra"
    )
    algebra = basis(codec, spec, "identity_algebra", objective.n, "cosets.")
    moved = algebra.float().to(session.device)
    parts = [fingerprint(block, params), _hash(algebra), epochs, seed]
    if group is not None:
        parts.append(_hash(group))
    start: dict[str, Tensor] = {}
    if block.type == "closure_solver":
        start = {"matrices": basis(codec, spec, "matrices", objective.n, "cosets.")}
        parts.append(_hash(start["matrices"]))
    elif spec.HasField("matrices"):
        raise InvalidInput(
            f"the solver {block.kind} starts from no matrices",
            "cosets.matrices",
            "no matrices",
            "leave them out",
        )

    def make() -> Any:
        return block.make(
            params, objective=objective, identity_algebra=moved, epochs=epochs, seed=seed, **start
        )

    return Plan("cosets", block, parts, make, (predictor, dataset, atlas))


def check_copies(session: Session, size: int) -> None:
    """Check that the ranks of a CPU have room for copies of what rank 0 holds.

    Args:
        session: The session.
        size: Bytes of one copy.

    Raises:
        InvalidInput: There is too little memory.
    """
    if session.device.type == "cpu":
        check_memory(session.device, (session.ranks - 1) * size, "ranks", "use fewer ranks")


_PLANNERS: Mapping[str, Callable[[Session, TensorCodec, Any], Plan]] = {
    "dataset": _dataset,
    "atlas": _atlas,
    "predictor": _predictor,
    "algebra": _algebra,
    "cosets": _cosets,
}


def uploaded_path(session: Session, given: str, field: str) -> Path | None:
    """Find a file that the session's client sent.

    Args:
        session: The session.
        given: A path, or ``upload:`` and a ticket.
        field: Dotted path of it in the request, for the error.

    Returns:
        The file on this machine; None if ``given`` is a path.

    Raises:
        NotFound: The session has no such file.
    """
    if not given.startswith(PREFIX):
        return None
    return session.tickets.uploads.path(session.id, given.removeprefix(PREFIX), field)


def file_path(session: Session, given: str, field: str) -> Path:
    """Return the path of a file that a request names, inside the data root.

    Args:
        session: The session.
        given: A path, or ``upload:`` and a ticket.
        field: Dotted path of it in the request, for the error.

    Raises:
        InvalidInput: The path leads out of the data root.
        NotFound: The session has no such upload.
    """
    sent = uploaded_path(session, given, field)
    return sent or catalogue.resolve_path(given, session.limits.data_root, field)


def basis(codec: TensorCodec, message: Any, name: str, n: int, prefix: str = "") -> Tensor:
    """Read a basis ``[k, n, n]`` from a message's field.

    Args:
        codec: Reads the tensor.
        message: The message.
        name: Name of the field.
        n: Size of the matrices.
        prefix: Dotted path of the message in the request, with a dot at the end.

    Returns:
        The basis in float64; k = 0 if the field is unset.

    Raises:
        InvalidInput: The field holds another shape, or entries that are not finite.
    """
    if not message.HasField(name):
        return torch.zeros(0, n, n, dtype=torch.float64)
    return codec.decode_matrices(getattr(message, name), prefix + name, n)


def _group(codec: TensorCodec, spec: Any, type: ObjectType, atlas: Atlas) -> Tensor | None:
    """Read the algebra to which a search is restricted; None for no restriction."""
    if not spec.HasField("group_algebra"):
        return None
    return basis(codec, spec, "group_algebra", ambient_of(atlas).n, f"{type}.")


def check_whole(entry: Entry) -> None:
    """Raise ``NotReady`` for an object whose state could not be restored after a failure."""
    if entry.lost:
        raise NotReady(
            f"{entry.handle} lost its state in a failure",
            "handle",
            "an object with a state",
            "restore a snapshot, or create the object again",
        )


def _block(
    type: BlockType, message: objects_pb2.Block, field: str, *others: BlockType
) -> tuple[Block, Any]:
    block = catalogue.find(type, message.kind, field, *others)
    return block, catalogue.parse_params(block.params, plain(message.params), field)


def _lattice(session: Session, spec: Any, type: ObjectType) -> tuple[Entry, Entry]:
    """Find dataset and atlas, and check that the charts fit the dataset."""
    dataset = session.find(spec.dataset, f"{type}.dataset", "dataset")
    atlas = session.find(spec.atlas, f"{type}.atlas", "atlas")
    atlas.value.check(dataset.value.inputs.shape)
    return dataset, atlas


def _inputs(session: Session, spec: Any, type: ObjectType) -> tuple[Entry, Entry, Entry]:
    """Find predictor, dataset and atlas of a solver."""
    predictor = session.find(spec.predictor, f"{type}.predictor", "predictor")
    check_whole(predictor)
    dataset, atlas = _lattice(session, spec, type)
    return predictor, dataset, atlas


def _epochs(epochs: int, least: int, field: str) -> int:
    if epochs < least:
        raise InvalidInput(f"epochs is {epochs}", field, f"at least {least}")
    return epochs


def _tensors(codec: TensorCodec, spec: Any, type: ObjectType) -> dict[str, Tensor]:
    return {
        name: codec.decode(spec.tensors[name], f"{type}.tensors.{name}")
        for name in sorted(spec.tensors)
    }


def _hashes(tensors: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    return {name: _hash(t) for name, t in tensors.items()}


def _hash(tensor: Tensor) -> list[Any]:
    digest = hashlib.blake2b(raw_bytes(tensor.contiguous()), digest_size=16).hexdigest()
    return [str(tensor.dtype), list(tensor.shape), digest]


def _file_hash(path: str) -> str:
    """Hash of a file's bytes; empty if it cannot be read, which is refused when it is used."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""
