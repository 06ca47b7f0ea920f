"""A function given as text in place of a trained network, e.g. ``abs(x) + abs(y)`` (METHOD 3.5)."""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..catalogue import param, register
from ..errors import InvalidInput
from ..interfaces import Signature, refuse_tensors

FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "abs": torch.abs,
    "atan": torch.atan,
    "atan2": torch.atan2,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "exp": torch.exp,
    "floor": torch.floor,
    "log": torch.log,
    "max": torch.maximum,
    "min": torch.minimum,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
"""Functions that an expression may call."""
_BINARY: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: torch.remainder,
    ast.Pow: torch.pow,
}
_FIELD = "predictor.architecture.params.expression"
_DEEPEST = 300
"""Largest nesting of operations, far below Python's recursion limit.

``x + x + …`` nests one operation deeper for each term.
"""


class Expression:
    """Arithmetic of coordinates, parsed into a tree of known operations; no code is executed.

    Args:
        text: The expression.
        coordinates: Names of the coordinates.

    Raises:
        InvalidInput: The text is too long, no expression, nested too deeply, or uses an unknown
            name or operation.

    >>> f = Expression("abs(x) - y**2", ["x", "y"])
    >>> f(torch.tensor([[3.0, 1.0], [-1.0, 2.0]]))
    tensor([ 2., -3.])
    """

    def __init__(self, text: str, coordinates: list[str]) -> None:
        self._coordinates = {name: i for i, name in enumerate(coordinates)}
        if len(text) > 2000:
            raise InvalidInput("the expression is too long", _FIELD, "at most 2000 characters")
        try:
            self._root = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InvalidInput(
                f"{text!r} is not an expression ({error})",
                _FIELD,
                "arithmetic, e.g. abs(x) + abs(y)",
            ) from None
        if _depth(self._root) > _DEEPEST:
            raise InvalidInput(
                "the expression is nested too deeply",
                _FIELD,
                f"at most {_DEEPEST} operations inside one another",
                "put parentheses around parts of a long sum",
            )
        # Evaluate once, to refuse unknown names and operations now.
        self._value(self._root, torch.ones(1, len(coordinates)))

    def __call__(self, points: Tensor) -> Tensor:
        """Compute the values ``[...]`` at ``points [..., n]``."""
        value: Tensor = self._value(self._root, points)
        return value

    def _value(self, node: ast.AST, x: Tensor) -> Any:
        match node:
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() as number) if abs(number) > sys.float_info.max:
                raise InvalidInput(
                    "a number is too large", _FIELD, "numbers that a float64 can hold"
                )
            case ast.Constant(value=int() | float() as number):
                return torch.full_like(x[..., 0], float(number))
            case ast.Name(id=name) if name in self._coordinates:
                return x[..., self._coordinates[name]]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand, x)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return _BINARY[type(op)](self._value(left, x), self._value(right, x))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                wanted = 2 if name in ("atan2", "max", "min") else 1
                if len(args) == wanted:
                    return FUNCTIONS[name](*(self._value(arg, x) for arg in args))
                arguments = f"{wanted} argument{'s' * (wanted - 1)}"
                raise InvalidInput(
                    f"{name} takes {arguments}, but has {len(args)}", _FIELD, arguments
                )
        raise InvalidInput(
            f"{_shown(node)} is not known",
            _FIELD,
            f"numbers, {', '.join(self._coordinates)}, + - * / % **, and {', '.join(FUNCTIONS)}",
        )


def _depth(root: ast.AST) -> int:
    """Levels of the tree, counted without recursion."""
    depth, level = 0, [root]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _shown(node: ast.AST) -> str:
    try:
        return repr(ast.unparse(node))
    except RecursionError:  # ast.unparse needs several calls for each level
        return f"an operation ({type(node).__name__})"


@dataclass(frozen=True)
class ExpressionParams:
    """Parameters of the architecture ``expression``."""

    expression: str = param("", "Function of the coordinates, e.g. abs(x) + abs(y)")
    coordinates: str = param(
        "", "Names of the coordinates, separated by commas; empty for x1, x2, …"
    )


class ExpressionModule(nn.Module):
    """An expression as a network without parameters: ``[B, C, 1, n] -> [B, C, 1]``."""

    halo = 0
    """There are no pixels."""

    def __init__(self, expression: Expression) -> None:
        super().__init__()
        self._f = expression

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        """Compute the values ``[B, C, 1]`` of ``x [B, C, 1, n]``."""
        return self._f(x)


@register(
    "architecture",
    "expression",
    "A function of a vector's coordinates given as text; not trained",
    ExpressionParams,
    manifolds=("vectors",),
)
def make_expression(
    params: ExpressionParams,
    *,
    signature: Signature,
    tensors: Mapping[str, Tensor],
    seed: torch.Generator,
) -> ExpressionModule:
    """Build an expression. Raises ``InvalidInput`` if it is none, or does not fit the samples."""
    refuse_tensors(tensors)
    items, n = signature.inputs
    names = [c.strip() for c in params.coordinates.split(",")] if params.coordinates else []
    names = names or [f"x{i + 1}" for i in range(n)]
    if (
        items != 1
        or not len(names) == len(set(names)) == n
        or not all(name.isidentifier() for name in names)
    ):
        raise InvalidInput(
            f"{len(names)} coordinates for samples of {items} vectors in R^{n}",
            "predictor.architecture.params.coordinates",
            f"{n} different names, for samples of one vector",
        )
    return ExpressionModule(Expression(params.expression, names))
