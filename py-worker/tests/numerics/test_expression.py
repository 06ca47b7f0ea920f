"""Functions given as text: what they compute, and that nothing but arithmetic ever runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from atlas_worker.catalogue import find
from atlas_worker.errors import InvalidInput
from atlas_worker.interfaces import Signature
from atlas_worker.predictors.expression import (
    FUNCTIONS,
    Expression,
    ExpressionModule,
    ExpressionParams,
    make_expression,
)

FIELD = "predictor.architecture.params.expression"
NUMERICS = settings.get_profile("numerics")


def points(count: int = 200) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def evaluate(text: str, x: Tensor | None = None) -> Tensor:
    return Expression(text, ["x", "y"])(points() if x is None else x)


def refusal(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        Expression(text, ["x", "y"])
    assert caught.value.field == FIELD
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("x", lambda x, y: x),
        ("-y", lambda x, y: -y),
        ("x - y - 1", lambda x, y: (x - y) - 1),
        ("x + 2*y", lambda x, y: x + (y + y)),
        ("(x + 2)*y", lambda x, y: x * y + y + y),
        ("x / y", lambda x, y: x / y),
        ("x % 2", lambda x, y: x - 2 * torch.floor(x / 2)),
        ("floor(x)", lambda x, y: x - x % 1),
        ("-x**2", lambda x, y: -(x * x)),
        ("2**x", lambda x, y: torch.exp2(x)),
        ("x**2**y", lambda x, y: torch.pow(x, torch.exp2(y))),
        ("1e-1*x + .5", lambda x, y: 0.1 * x + 0.5),
        ("  3 ", lambda x, y: torch.full_like(x, 3.0)),
        ("abs(x) + abs(y)", lambda x, y: torch.maximum(x, -x) + torch.maximum(y, -y)),
        ("atan((y + 0.1) / x)", lambda x, y: torch.atan((y + 0.1) / x)),
        ("max(x, min(y, 0))", lambda x, y: torch.where(x > y.clamp(max=0), x, y.clamp(max=0))),
        ("sqrt(x*x + y*y)", lambda x, y: torch.hypot(x, y)),
    ],
)
def test_arithmetic_is_pythons(text: str, truth: Callable[[Tensor, Tensor], Tensor]) -> None:
    x = points()
    assert torch.allclose(
        evaluate(text), truth(x[:, 0], x[:, 1]), rtol=1e-12, atol=0, equal_nan=True
    )


TWO = ("atan2", "max", "min")
MEANT = {"max": torch.maximum, "min": torch.minimum}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_is_the_one_of_its_name(name: str) -> None:
    x = points()
    truth = MEANT.get(name) or getattr(torch, name)
    if name in TWO:
        got, expected = evaluate(f"{name}(x, y)"), truth(x[:, 0], x[:, 1])
        assert refusal(f"{name}(x)").message == f"{name} takes 2 arguments, but has 1"
    else:
        got, expected = evaluate(f"{name}(x)"), truth(x[:, 0])
        assert refusal(f"{name}(x, y)").message == f"{name} takes 1 argument, but has 2"
    assert torch.equal(got.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert refusal(f"{name}()").message.startswith(f"{name} takes")
    refusal(name)
    refusal(f"{name}(*x)")
    refusal(f"{name}(input=x)")


def test_leading_dimensions_types_and_gradients_pass_through() -> None:
    x = torch.randn(3, 1, 4, 2, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    y = evaluate("x**2 * y", x)
    assert (y.shape, y.dtype) == ((3, 1, 4), torch.float32)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(gradient[..., 0], 2 * x[..., 0] * x[..., 1])
    assert torch.allclose(gradient[..., 1], x[..., 0] ** 2)
    assert evaluate("3", x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "z",
        "x.real",
        "x.__class__",
        "().__class__.__bases__[0].__subclasses__()",
        "__import__('os').system('true')",
        "eval('x')",
        "open('f')",
        "print(x)",
        "(abs)(x)(y)",
        "FUNCTIONS['abs'](x)",
        "lambda: x",
        "(lambda: x)()",
        "[x for x in y]",
        "sum(x for y in x)",
        "{x: y}",
        "[x, y]",
        "x, y",
        "x[0]",
        "'x'",
        "b'x'",
        "f'{x}'",
        "True",
        "x + False",
        "None",
        "...",
        "1j",
        "x if y else x",
        "x and y",
        "not x",
        "x < y",
        "x == y",
        "x // y",
        "x | y",
        "x @ y",
        "x << 2",
        "~x",
        "x := 1",
        "x = 1",
        "x; y",
        "x\ny",
        "import os",
        "await x",
        "yield x",
        "*x",
        "x y",
        "2x",
        "x +",
        "(x",
        "x)",
        "\0",
        "\ud800",
        "x" * 2001,
        "1" + " + 1" * 500,
        "x + " * 1000 + "x",
        "9" * 400,
        "0x" + "f" * 1900,
        "-" * 900 + "x",
        "~(" + "x+" * 290 + "x)",
        "(" * 500,
        "(" * 500 + "x" + ")" * 500,
        "abs(" * 400 + "x" + ")" * 400,
        "x" + "[x]" * 600,
        "x" + ".a" * 900,
        "not " * 450 + "x",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_everything_else_is_refused(text: str) -> None:
    refusal(text)


def test_a_refusal_says_what_there_is() -> None:
    error = refusal("x + erf(y)")
    assert "'erf(y)' is not known" in error.message
    assert "x, y" in error.expected
    assert all(name in error.expected for name in FUNCTIONS)


def test_long_sums_are_fine_and_what_was_accepted_can_be_evaluated() -> None:
    assert torch.allclose(evaluate("+".join(["x"] * 250)), 250 * points()[:, 0])
    assert torch.allclose(evaluate("abs(" * 150 + "x" + ")" * 150), points()[:, 0].abs())


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for text in (
        f"open({str(mark)!r}, 'w')",
        f"abs(open({str(mark)!r}, 'w'))",
        f"__import__('pathlib').Path({str(mark)!r}).touch()",
        f"x + [open({str(mark)!r}, 'w') for y in (1,)]",
    ):
        refusal(text)
    assert not mark.exists()
    # The last but one of these would do: the test can fail.
    eval(f"__import__('pathlib').Path({str(mark)!r}).touch()")
    assert mark.exists()


TOKENS = [
    *("x", "y", "z", "1", "2.5", "1e400", "9" * 320, "(", ")", "+", "-", "*", "/", "**", ","),
    *(".", "[", "]", ":", "=", "abs", "max", "atan2", "lambda", "if", "else", "for", "in"),
    *("True", "'", '"', "\\", "{", "}", "~", "@", "#", " "),
]


@settings(NUMERICS, max_examples=300)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)))
@example("-" * 1999)
@example("x" + "**x" * 600)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_whatever_is_typed_is_a_function_or_refused(text: str) -> None:
    """No other exception than the refusal."""
    with contextlib.suppress(InvalidInput):
        f = Expression(text, ["x", "y"])
        assert f(points(5)).shape == (5,)


def make(expression: str, coordinates: str = "", items: int = 1, n: int = 2) -> ExpressionModule:
    return make_expression(
        ExpressionParams(expression, coordinates),
        signature=Signature("vectors", 1, (items, n), 1),
        tensors={},
        seed=torch.Generator(),
    )


def test_as_a_predictor() -> None:
    x = points(6).view(3, 2, 1, 2)
    assert torch.equal(make("x1 - 2*x2")(x), (x[..., 0] - 2 * x[..., 1]))
    assert torch.equal(make("a - 2*b", " a, b")(x), (x[..., 0] - 2 * x[..., 1]))
    assert make("x1")(x).shape == (3, 2, 1)
    assert list(make("x1").parameters()) == []


@pytest.mark.parametrize(
    ("coordinates", "items", "n"),
    [
        ("x", 1, 2),
        ("x,y,z", 1, 2),
        ("x,y,x", 1, 2),
        ("x,x", 1, 2),
        ("x,1", 1, 2),
        ("x,", 1, 2),
        ("x,y", 2, 2),
    ],
)
def test_coordinates_that_do_not_fit(coordinates: str, items: int, n: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        make("x", coordinates, items, n)
    assert caught.value.field == "predictor.architecture.params.coordinates"


def test_it_is_for_vectors_and_takes_no_tensors() -> None:
    with pytest.raises(InvalidInput) as caught:
        Signature("planar", 1, (1, 5, 5), 1).check_manifold(find("architecture", "expression", ""))
    assert caught.value.field == "predictor.architecture.kind"
    with pytest.raises(InvalidInput) as caught:
        make_expression(
            ExpressionParams("x1"),
            signature=Signature("vectors", 1, (1, 1), 1),
            tensors={"w": torch.zeros(1)},
            seed=torch.Generator(),
        )
    assert caught.value.field == "predictor.tensors.w"
