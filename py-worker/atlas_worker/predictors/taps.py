"""Taps: the outputs of a network's layers, read and replaced while it computes (METHOD 4.8).

Three kinds of networks, three ways to reach their layers:

- a PyTorch module: forward hooks on its submodules;
- an exported program (``torch.export``): its submodules are made again (``unflatten``), then hooks;
- a TorchScript program calls its submodules without hooks, so its graph is interpreted.
"""

from __future__ import annotations

import copy
import functools
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from .foreign import ARCHITECTURE, Foreign, Modules, Programs, reason_of, select

OUTPUT = "(output)"
"""Name of the network's own output, which closes the list of its layers."""
LARGEST_LOOP = 10_000
"""Largest number of rounds of a loop in a TorchScript program."""


class Tapped:
    """A network whose layers' outputs can be read and replaced.

    Args:
        network: A module, or a loaded TorchScript program.
        finish: Takes the network's output from what it returns.

    Attributes:
        kinds: The class or operation of each layer that was met, by its name.
        unread: Names of the layers whose outputs could not be compared: no real numbers, or not one
            row for each sample.
    """

    def __init__(self, network: nn.Module, finish: Callable[[Any], Tensor]) -> None:
        self._network, self._finish = network, finish
        self.kinds: dict[str, str] = {}
        self.unread: dict[str, None] = {}
        self._seen: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}
        self._replaced: Mapping[str, Tensor] = {}
        self._script = isinstance(network, torch.jit.ScriptModule)
        if not self._script:
            self._attach(network)

    def _attach(self, network: nn.Module) -> None:
        for name, module in network.named_modules():
            if name:
                module.register_forward_hook(self._hook(name, type(module).__name__))

    def _hook(self, name: str, kind: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            return self._met(name, _class_of(module) or kind, output)

        return hook

    @torch.no_grad()
    def __call__(
        self, x: Tensor, replaced: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the output.

        Args:
            x: A batch of inputs.
            replaced: Outputs that layers are to have instead of their own, by name.

        Returns:
            The output, and the outputs of all layers in the order in which they end, the network's
            own last. Outputs that are no real numbers, or not one for each sample, are left out.
        """
        self._seen, self._calls, self._replaced = {}, {}, replaced or {}
        if self._script:
            made = _Interpreter(self._met).run(self._network, (x.clone(),))
        else:
            made = self._network(x.clone())
        y = self._finish(made)
        seen = {n: t for n, t in self._seen.items() if t.dim() > 1 and len(t) == len(x)}
        self.unread.update(dict.fromkeys(name for name in self._seen if name not in seen))
        self.kinds.setdefault(OUTPUT, "network")
        return y, {**seen, OUTPUT: y}

    def _met(self, name: str, kind: str, output: Any) -> Any:
        """Keep the output of a layer that was called, and return what takes its place."""
        count = self._calls[name] = self._calls.get(name, 0) + 1
        label = name if count == 1 else f"{name} (call {count})"
        if isinstance(output, Tensor):
            return self._keep(label, kind, output)
        if isinstance(output, tuple | list) and not hasattr(output, "_fields"):
            kept = [
                self._keep(f"{label}[{i}]", kind, part) if isinstance(part, Tensor) else part
                for i, part in enumerate(output)
            ]
            return type(output)(kept)
        self.unread[label] = None
        return output

    def _keep(self, label: str, kind: str, output: Tensor) -> Tensor:
        if not output.is_floating_point():
            self.unread[label] = None
            return output
        self.kinds[label] = kind
        if label in self._replaced:
            output = self._replaced[label].to(output.dtype)
        self._seen[label] = output.clone()  # the next layer may work in place
        return output


def _class_of(module: nn.Module) -> str:
    """The class of a submodule that a loaded TorchScript program has inside of a module."""
    return str(getattr(module, "original_name", ""))


class _Interpreter:
    """Computes a TorchScript program node by node, its calls of submodules included.

    Args:
        met: Called with the path, class and output of each submodule that was called; returns what
            takes the output's place.
    """

    def __init__(self, met: Callable[[str, str, Any], Any]) -> None:
        self._met = met

    def run(self, module: Any, inputs: tuple[Any, ...]) -> Any:
        """Compute ``module(*inputs)``."""
        return self._method(module, "forward", "", inputs)

    def _method(self, module: Any, name: str, path: str, inputs: tuple[Any, ...]) -> Any:
        method = module._c._get_method(name) if hasattr(module, "_c") else module._get_method(name)
        graph = method.graph
        values = {v.debugName(): x for v, x in zip(graph.inputs(), (module, *inputs), strict=True)}
        paths = {next(iter(graph.inputs())).debugName(): path}
        outputs = self._block(graph, values, paths)
        return outputs[0]

    def _block(self, block: Any, values: dict[str, Any], paths: dict[str, str]) -> list[Any]:
        for node in block.nodes():
            for out, value in zip(node.outputs(), self._node(node, values, paths), strict=True):
                values[out.debugName()] = value
        return [values[v.debugName()] for v in block.outputs()]

    def _node(self, node: Any, values: dict[str, Any], paths: dict[str, str]) -> list[Any]:
        kind = node.kind()
        given = [values[v.debugName()] for v in node.inputs()]
        if kind == "prim::Constant":
            return [node.output().toIValue()]
        if kind == "prim::GetAttr":
            name = node.s("name")
            inside = paths.get(next(iter(node.inputs())).debugName(), "")
            paths[node.output().debugName()] = f"{inside}.{name}" if inside else name
            return [getattr(given[0], name)]
        if kind == "prim::CallMethod":
            first = next(iter(node.inputs())).debugName()
            path, name = paths.get(first, ""), node.s("name")
            made = self._method(given[0], name, path, tuple(given[1:]))
            # A trace has a method of its own for each call: forward, forward1, …
            if path and name.rstrip("0123456789") == "forward":
                made = self._met(path, str(getattr(given[0], "original_name", "module")), made)
            return [made]
        if kind == "prim::CallFunction":
            return self._block(*_function(node, given))
        if kind == "prim::If":
            chosen = list(node.blocks())[0 if given[0] else 1]
            return self._block(chosen, values, paths)
        if kind == "prim::Loop":
            return self._loop(node, given, values, paths)
        if kind == "prim::ListConstruct":
            return [given]
        if kind == "prim::TupleConstruct":
            return [tuple(given)]
        if kind in ("prim::TupleUnpack", "prim::ListUnpack"):
            return list(given[0])
        if kind == "prim::TupleIndex":
            return [given[0][given[1]]]
        if kind == "prim::DictConstruct":
            return [dict(zip(given[::2], given[1::2], strict=True))]
        if kind in ("prim::unchecked_cast", "prim::Uninitialized", "prim::NumToTensor"):
            if kind == "prim::NumToTensor":
                return [torch.as_tensor(given[0])]
            return [given[0] if given else None]
        if kind == "prim::RaiseException":
            raise RuntimeError(str(given[0]))
        return self._operation(node, given)

    def _loop(
        self, node: Any, given: list[Any], values: dict[str, Any], paths: dict[str, str]
    ) -> list[Any]:
        most, going, *carried = given
        body = next(iter(node.blocks()))
        names = [v.debugName() for v in body.inputs()]
        for i in range(min(int(most), LARGEST_LOOP)):
            if not going:
                break
            values.update(zip(names, [i, *carried], strict=True))
            going, *carried = self._block(body, values, paths)
        return carried

    def _operation(self, node: Any, given: list[Any]) -> list[Any]:
        """Compute an operation of PyTorch, found by its name and the types of its arguments."""
        kind = node.kind()
        found = torch._C._jit_get_operation(kind)
        operation = found[0] if isinstance(found, tuple) else found
        if operation is None or node.schema() == "(no schema)":
            raise NotImplementedError(f"the operation {kind} of TorchScript")
        schema = torch._C.parse_schema(node.schema())
        named = {
            argument.name: value
            for argument, value in zip(schema.arguments, given, strict=False)
            if argument.kwarg_only
        }
        made = operation(*given[: len(given) - len(named)], **named)
        if not schema.returns:
            return []
        return list(made) if len(schema.returns) > 1 else [made]


def _function(call: Any, given: list[Any]) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """Get the graph of a function that a node calls, with the values of its inputs."""
    graph: Any = torch._C.Graph()
    of, *arguments = call.inputs()
    inputs = {v.debugName(): graph.addInput() for v in arguments}
    for v in arguments:
        inputs[v.debugName()].setType(v.type())
    function = graph.insertNode(graph.createClone(of.node(), lambda v: v))
    inputs[of.debugName()] = function.output()
    made = graph.insertNode(graph.createClone(call, lambda v: inputs[v.debugName()]))
    for out in made.outputs():
        graph.registerOutput(out)
    torch._C._jit_pass_inline(graph)
    names = {v.debugName(): x for v, x in zip(arguments, given[1:], strict=True)}
    values = {inner.debugName(): names[outer] for outer, inner in inputs.items() if outer in names}
    return graph, values, {}


def tap(foreign: Foreign, device: torch.device) -> list[Tapped]:
    """Tap the networks of a foreign predictor.

    Args:
        foreign: The predictor's own copy of the networks, in evaluation mode.
        device: Device of the networks.

    Returns:
        The networks.

    Raises:
        InvalidInput: The layers of a network cannot be reached.
    """
    networks: Modules | Programs = foreign.networks
    tapped = []
    for number, network in enumerate(networks.on(device)):
        key = foreign.calls[number].key
        inside = network
        if isinstance(network, torch.fx.GraphModule):
            assert isinstance(networks, Programs)
            inside = _unflattened(networks.file(number), device)
        # A layer of PyTorch is a network of one layer.
        known = hasattr(nn, _class_of(inside) or type(inside).__name__)
        if not known and not any(True for _ in inside.children()):
            raise unreachable("it has no submodules")
        tapped.append(Tapped(inside, functools.partial(_selected, key)))
    return tapped


def _selected(key: str, made: Any) -> Tensor:
    return select(made, key)


def _unflattened(file: bytes, device: torch.device) -> nn.Module:
    """Make the submodules of an exported program again, with hooks that are called."""
    from torch.export.passes import move_to_device_pass

    try:
        program = move_to_device_pass(torch.export.load(io.BytesIO(file)), device)
        network = torch.export.unflatten(program)
    except Exception as error:
        raise unreachable(reason_of(error)) from error
    classes: dict[str, str] = {}
    for node in program.graph.nodes:
        for path, of in (node.meta.get("nn_module_stack") or {}).values():
            classes[path] = (of if isinstance(of, str) else of.__name__).rpartition(".")[2]
    for name, module in network.named_modules():
        module.original_name = classes.get(name, "module")
    return network


def unreachable(why: str) -> InvalidInput:
    """Make the error for a network whose layers cannot be reached."""
    return InvalidInput(
        f"the layers of the predictor cannot be reached: {why}",
        ARCHITECTURE,
        "a network that is made of modules (torch.nn.Module) which it calls",
        "give path.py:factory, which makes the network from its modules",
    )


def tapped_outputs(
    networks: list[Tapped],
    foreign: Foreign,
    x: Tensor,
    replaced: list[Mapping[str, Tensor]] | None = None,
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Compute a predictor's outputs, as :meth:`Foreign.forward` does, and those of all layers.

    Args:
        networks: The tapped networks of ``foreign``.
        foreign: The predictor.
        x: ``[B, C, ...]``.
        replaced: For each network, outputs that layers are to have instead of their own.

    Returns:
        ``[B, C, ...]``, and the outputs of the layers of each network by name. A network's rows are
        samples times charts, or samples.

    Raises:
        InvalidInput: A network fails under its taps.
    """
    made = []
    layers: list[dict[str, Tensor]] = []
    for number, network in enumerate(networks):
        rows = x if foreign.takes == "charts" else x[:, number]
        if foreign.takes != "charts" and len(networks) == 1:
            rows = x.flatten(0, 1)
        y, seen = _in_parts(network, foreign, number, rows, (replaced or [{}] * len(networks)))
        made.append(y)
        layers.append(seen)
    if foreign.takes == "charts":
        return made[0], layers
    if len(networks) == 1:
        return made[0].unflatten(0, x.shape[:2]), layers
    return torch.stack(made, 1), layers


def _in_parts(
    network: Tapped,
    foreign: Foreign,
    number: int,
    rows: Tensor,
    replaced: list[Mapping[str, Tensor]],
) -> tuple[Tensor, dict[str, Tensor]]:
    call = foreign.calls[number]
    given = rows.to(call.precision or rows.dtype)
    size = call.most or len(given)
    if len(given) < call.least or len(given) % size:
        # Filled up with copies, whose outputs are dropped.
        wanted = max(call.least, math.ceil(len(given) / size) * size)
        given = given[torch.arange(wanted, device=given.device) % len(given)]
    parts: list[tuple[Tensor, dict[str, Tensor]]] = []
    try:
        for start in range(0, len(given), size):
            at = torch.arange(start, start + size, device=given.device) % len(rows)
            own = {name: t[at] for name, t in replaced[number].items()}
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                parts.append(network(given[start : start + size], own))
    except InvalidInput:
        raise
    except Exception as error:
        raise unreachable(reason_of(error)) from error
    y = torch.cat([part[0] for part in parts])[: len(rows)].to(rows.dtype)
    names = [name for name in parts[0][1] if all(name in part[1] for part in parts)]
    return y, {n: torch.cat([part[1][n] for part in parts])[: len(rows)].float() for n in names}


class ForeignRunner:
    """Runs a foreign predictor for an audit (:mod:`atlas_worker.symmetry.audit`).

    Args:
        foreign: The predictor. It is copied.
        device: Its device.

    Attributes:
        kinds: The class of each layer that was met, by the layer's name.
        unread: Names of the layers whose outputs could not be compared.

    Raises:
        InvalidInput: The layers cannot be reached.
    """

    def __init__(self, foreign: Foreign, device: torch.device) -> None:
        with torch.no_grad():
            self._foreign = copy.deepcopy(foreign).eval().requires_grad_(False)
        self._networks = tap(self._foreign, device)
        self.kinds: dict[str, str] = {}
        self.unread: dict[str, None] = {}

    def __call__(
        self, x: Tensor, replaced: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute outputs, and the outputs of all layers; see ``Runner``."""
        labels = [self._label(i) for i in range(len(self._networks))]
        given = [
            {n.removeprefix(label): t for n, t in (replaced or {}).items() if n.startswith(label)}
            for label in labels
        ]
        y, seen = tapped_outputs(self._networks, self._foreign, x, list(given))
        for label, network in zip(labels, self._networks, strict=True):
            self.kinds |= {label + name: kind for name, kind in network.kinds.items()}
            self.unread |= {label + name: None for name in network.unread}
        every = {
            label + name: h
            for label, layers in zip(labels, seen, strict=True)
            for name, h in layers.items()
        }
        return y, every

    def _label(self, number: int) -> str:
        return f"chart {number}: " if len(self._networks) > 1 else ""
