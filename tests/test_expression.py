"""The whitelisted formulas: what they compute, and that nothing else gets through."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsim.expression import FUNCTIONS, MAX_DEPTH, MAX_LENGTH, Expression, ExpressionError

X = np.linspace(-1.0, 1.0, 5)[:, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x**2", X[:, 0] ** 2),
        ("x0**2", X[:, 0] ** 2),
        ("-x + 2*3 - 4/8", -X[:, 0] + 5.5),
        ("+sin(pi*x)", np.sin(np.pi * X[:, 0])),
        ("2**-x", 2.0 ** -X[:, 0]),
        (" abs(x)\n", np.abs(X[:, 0])),
        ("heaviside(x)", [0.0, 0.0, 0.5, 1.0, 1.0]),
        ("maximum(x, 0) - minimum(x, 0)", np.abs(X[:, 0])),
        ("3", np.full(5, 3.0)),
        ("1e-3", np.full(5, 1e-3)),
    ],
)
def test_value(text, expected):
    result = Expression(text)(X)
    assert result.dtype == np.float64 and result.shape == (5,)
    np.testing.assert_array_equal(result, expected)


def test_several_inputs():
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(Expression("x0 + x1*x2", 3)(x), [2.0, 23.0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_the_numpy_one(name):
    arguments = FUNCTIONS[name][1]
    text = f"{name}({', '.join(['x + 2'] * arguments)})"
    expected = 1.0 if name == "heaviside" else getattr(np, name)(*[X[:, 0] + 2.0] * arguments)
    np.testing.assert_array_equal(Expression(text)(X), np.broadcast_to(expected, 5))


def test_result_is_independent_of_the_input():
    x = X.copy()
    Expression("x")(x)[:] = 7.0
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize(
    "text", ["9**9**9**9**9", "((9**9)**9)**9", "10**400*x", "exp(exp(x*1e9))"]
)
def test_huge_powers_overflow(text):
    """In float64, not in Python's integers, which would fill the memory."""
    result = Expression(text)(X + 5.0)
    assert np.isinf(result).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a formula"),
        ("x +", "not a formula"),
        ("x; x", "not a formula"),
        ("x\0", "not a formula"),
        ("eval('1')", "unknown function `eval`"),
        ("__import__('os')", "unknown function `__import__`"),
        ("sine(x)", "did you mean `sin`"),
        ("max(x, 0)", "did you mean `maximum`"),
        ("x.real", "`x.real` is not allowed"),
        ("().__class__.__base__", "is not allowed"),
        ("sin.__call__(x)", "is not allowed"),
        ("sin(x)(x)", "is not allowed"),
        ("x[0]", "is not allowed"),
        ("[x for x in x]", "is not allowed"),
        ("(lambda: x)()", "is not allowed"),
        ("x if x else 1", "is not allowed"),
        ("x < 1", "is not allowed"),
        ("x and 1", "is not allowed"),
        ("x @ x", "is not allowed"),
        ("x // 2", "is not allowed"),
        ("1 << 99", "is not allowed"),
        ("~x", "is not allowed"),
        ("(y := x)", "is not allowed"),
        ("f'{x}'", "is not allowed"),
        ("sin(*x)", "is not allowed"),
        ("sin(x=x)", "is not allowed"),
        ("sin()", "sin has 0 arguments; give it 1"),
        ("maximum(x)", "maximum has 1 arguments; give it 2"),
        ("sin", "sin is a function and needs brackets"),
        ("y", "unknown name `y`; the inputs are x"),
        ("x1", "unknown name `x1`; the inputs are x"),
        ("x01", "unknown name `x01`"),
        ("x" * 50, "unknown name"),
        ("'x'", "not a real number"),
        ("1j", "not a real number"),
        ("True", "not a real number"),
        ("None", "not a real number"),
        ("...", "not a real number"),
        ("1" + "0" * 350, "beyond the range of float64"),
        ("1e999", "beyond the range of float64"),
        ("x+" * MAX_LENGTH + "x", "characters are too many"),
        ("-" * (MAX_DEPTH + 1) + "x", "nested more than"),
        ("not " + "-" * 380 + "x", "is not allowed"),
        ("(" * 199 + "x" + ")" * 199, None),
        ("(" * 200 + "x" + ")" * 199, "not a formula"),
    ],
)
def test_refused(text, message):
    if message is None:  # brackets alone are no depth
        Expression(text)
        return
    with pytest.raises(ExpressionError, match=message) as caught:
        Expression(text)
    assert "\n" not in str(caught.value)


def test_x_is_ambiguous_with_several_inputs():
    with pytest.raises(ExpressionError, match="unknown name `x`; the inputs are x0 to x2"):
        Expression("x**2", 3)
    with pytest.raises(ExpressionError, match="unknown name `x3`"):
        Expression("x3", 3)


WORDS = st.sampled_from(["x", "x0", "sin", "abs", "1e5", "**", "lambda", "if", "else"])
SIGNS = st.sampled_from("()*-+/,9.[]':= \n")


@given(st.one_of(st.text(max_size=60), st.lists(WORDS | SIGNS, max_size=30).map("".join)))
def test_any_text_is_evaluated_or_refused(text):
    try:
        expression = Expression(text)
    except ExpressionError as error:
        assert "\n" not in str(error)
    else:
        assert expression(X).shape == (5,)
