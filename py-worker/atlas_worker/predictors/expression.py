"""A function that is given as text instead of a network that was trained: ``abs(x) + abs(y)``."""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..registry import param, register
from ..roles import Signature, refuse_tensors

FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "abs": torch.abs,
    "atan": torch.atan,
    "atan2": torch.atan2,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "exp": torch.exp,
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
_BINARY: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: torch.pow,
}
_FIELD = "predictor.architecture.params.expression"
_DEEPEST = 300
"""Operations inside one another, ``x + x + …`` being one more each: far from Python's limit of recursion."""


class Expression:
    """Arithmetic of the coordinates, parsed into a tree of known operations; nothing else is ever executed.

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
            raise InvalidInput(f"{text!r} is not an expression ({error})", _FIELD, "arithmetic") from None
        if _depth(self._root) > _DEEPEST:
            raise InvalidInput(
                "the expression is nested too deeply",
                _FIELD,
                f"at most {_DEEPEST} operations inside one another",
                "put parentheses around parts of a long sum",
            )
        self._value(self._root, torch.ones(1, len(coordinates)))  # refuses now what it does not know

    def __call__(self, points: Tensor) -> Tensor:
        """``[..., n] -> [...]``"""
        value: Tensor = self._value(self._root, points)
        return value

    def _value(self, node: ast.AST, x: Tensor) -> Any:
        match node:
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() as number) if abs(number) > sys.float_info.max:
                raise InvalidInput("a number is too large", _FIELD, "numbers that a float64 can hold")
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
                raise InvalidInput(f"{name} takes {wanted} argument{'s' * (wanted - 1)}", _FIELD, "")
        raise InvalidInput(
            f"{_shown(node)} is not known",
            _FIELD,
            f"numbers, {', '.join(self._coordinates)}, + - * / **, and {', '.join(FUNCTIONS)}",
        )


def _depth(root: ast.AST) -> int:
    """Levels of the tree, not counted by recursion."""
    depth, level = 0, [root]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _shown(node: ast.AST) -> str:
    try:
        return repr(ast.unparse(node))
    except RecursionError:  # it takes several calls a level
        return f"an operation ({type(node).__name__})"


@dataclass(frozen=True)
class ExpressionParams:
    expression: str = param("", "Of the coordinates, say abs(x) + abs(y)")
    coordinates: str = param("", "Their names, by commas; empty for x1, x2 …")


class ExpressionModule(nn.Module):
    """``[B, C, 1, n] -> [B, C, 1]``; no parameters."""

    reach = 0

    def __init__(self, expression: Expression) -> None:
        super().__init__()
        self._f = expression

    def forward(self, x: Tensor, charts: Tensor | None = None, radius: int | None = None) -> Tensor:
        return self._f(x)


@register(
    "predictor", "expression", "A given function of a vector's coordinates; not trained", ExpressionParams
)
def make_expression(
    params: ExpressionParams, *, signature: Signature, tensors: Mapping[str, Tensor], seed: torch.Generator
) -> ExpressionModule:
    signature.require("vectors", "expression")
    refuse_tensors(tensors)
    items, n = signature.inputs
    names = [c.strip() for c in params.coordinates.split(",")] if params.coordinates else []
    names = names or [f"x{i + 1}" for i in range(n)]
    if items != 1 or not len(names) == len(set(names)) == n or not all(name.isidentifier() for name in names):
        raise InvalidInput(
            f"{len(names)} coordinates for samples of {items} vectors in R^{n}",
            "predictor.architecture.params.coordinates",
            f"{n} different names, and samples of one vector",
        )
    return ExpressionModule(Expression(params.expression, names))
