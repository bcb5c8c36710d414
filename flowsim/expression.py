"""Functions written as text, such as ``"x**2 + sin(pi*x)"``, without running anybody's code.

The text is parsed, never executed: every node of its syntax tree must be in the tables below.
Everything is computed in float64 arrays of a known size, so that neither ``9**9**9`` nor a long
chain of powers can take unbounded time or memory.
"""

from __future__ import annotations

import ast
import difflib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MAX_LENGTH = 400
"""Longest text, in characters."""

MAX_DEPTH = 100
"""Deepest nesting of operations and brackets."""


def _heaviside(z: Array) -> Array:
    return np.heaviside(z, 0.5)


FUNCTIONS: dict[str, tuple[Callable[..., Array], int]] = {
    "abs": (np.abs, 1),
    "arctan": (np.arctan, 1),
    "cos": (np.cos, 1),
    "cosh": (np.cosh, 1),
    "exp": (np.exp, 1),
    "heaviside": (_heaviside, 1),
    "log": (np.log, 1),
    "maximum": (np.maximum, 2),
    "minimum": (np.minimum, 2),
    "sign": (np.sign, 1),
    "sin": (np.sin, 1),
    "sinh": (np.sinh, 1),
    "sqrt": (np.sqrt, 1),
    "tan": (np.tan, 1),
    "tanh": (np.tanh, 1),
}
"""Functions by name, with their number of arguments. ``heaviside`` is 1/2 at 0."""

CONSTANTS = {"pi": math.pi}
"""Constants by name."""

_BINARY: dict[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_UNARY: dict[type[ast.unaryop], Callable[[Array], Array]] = {
    ast.UAdd: np.positive,
    ast.USub: np.negative,
}


class ExpressionError(ValueError):
    """The text is no expression of the allowed kind; one line says why and what to do."""


@dataclass(frozen=True)
class Expression:
    """A function of the inputs, checked and ready to be evaluated.

    Parameters
    ----------
    text : str
        Numbers, ``x`` (one input) or ``x0``, ``x1``, ..., ``pi``, ``+ - * / **``, brackets and
        the functions of `FUNCTIONS`.
    n_inputs : int
        Number of inputs, without the bias coordinate.

    Raises
    ------
    ExpressionError
        If the text holds anything else, or is too long or too deeply nested.
    """

    text: str
    n_inputs: int = 1

    def __post_init__(self) -> None:
        self._check(_parse(self.text), MAX_DEPTH)

    def __call__(self, x: Array) -> Array:
        """Evaluate at inputs ``x`` (n, n_inputs); returns (n,) float64.

        Values that do not exist, such as ``log(-1)``, are NaN or infinite.
        """
        values = {name: np.array(value) for name, value in CONSTANTS.items()}
        values |= {f"x{j}": column for j, column in enumerate(x.T)}
        if self.n_inputs == 1:
            values["x"] = x[:, 0]
        with np.errstate(all="ignore"):
            result = _evaluate(_parse(self.text), values)
        return np.array(np.broadcast_to(result, len(x)), np.float64)

    def _check(self, node: ast.expr, depth: int) -> None:
        """Raise unless the tree consists of allowed nodes only."""
        if depth == 0:
            raise ExpressionError(
                f"nested more than {MAX_DEPTH} deep; write a shorter sum or fewer brackets"
            )
        match node:
            case ast.Constant(value=value):
                _check_number(value)
            case ast.Name(id=name):
                _check_name(name, self.n_inputs)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                _check_call(name, len(arguments))
            case ast.BinOp(op=op) if type(op) in _BINARY:
                pass
            case ast.UnaryOp(op=op) if type(op) in _UNARY:
                pass
            case _:
                # Not ast.unparse, which recurses through whatever is inside.
                segment = ast.get_source_segment(self.text.strip(), node) or ""
                raise ExpressionError(
                    f"`{' '.join(segment.split())[:40]}` is not allowed; use numbers, inputs, "
                    f"+ - * / ** and the functions {', '.join(FUNCTIONS)}"
                )
        for operand in _operands(node):
            self._check(operand, depth - 1)


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"{len(text)} characters are too many; use at most {MAX_LENGTH}, or a file of arrays"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser's, on odd but harmless text
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ExpressionError(
            'not a formula; write one such as "x**2" or "sin(pi*x0) + x1"'
        ) from None


def _check_number(value: object) -> None:
    # A bool is an int to isinstance, hence type().
    if type(value) not in (int, float):
        raise ExpressionError(f"`{value!r:.40}` is not a real number; use numbers such as 0.5")
    try:
        finite = math.isfinite(float(value))  # type: ignore[arg-type]
    except OverflowError:
        finite = False
    if not finite:
        raise ExpressionError("a number is beyond the range of float64; use a smaller one")


def _check_name(name: str, n_inputs: int) -> None:
    # Membership by computation: n_inputs may be large.
    index = name[1:] if name.startswith("x") else ""
    known = index.isascii() and index.isdigit() and name == f"x{int(index)}"
    if name in CONSTANTS or (known and int(index) < n_inputs) or (name == "x" and n_inputs == 1):
        return
    inputs = "x" if n_inputs == 1 else f"x0 to x{n_inputs - 1}"
    also = f"; {name} is a function and needs brackets" if name in FUNCTIONS else ""
    raise ExpressionError(f"unknown name `{name[:40]}`; the inputs are {inputs}{also}")


def _check_call(name: str, n_arguments: int) -> None:
    if name not in FUNCTIONS:
        close = difflib.get_close_matches(name[:40], FUNCTIONS, n=1)
        remedy = f"did you mean `{close[0]}`?" if close else "choose from " + ", ".join(FUNCTIONS)
        raise ExpressionError(f"unknown function `{name[:40]}`; {remedy}")
    expected = FUNCTIONS[name][1]
    if n_arguments != expected:
        raise ExpressionError(f"{name} has {n_arguments} arguments; give it {expected}")


def _operands(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Call():
            yield from node.args
        case ast.BinOp():
            yield from (node.left, node.right)
        case ast.UnaryOp():
            yield node.operand


def _evaluate(node: ast.expr, values: Mapping[str, Array]) -> Array:
    """Value of a checked tree."""
    operands = [_evaluate(operand, values) for operand in _operands(node)]
    match node:
        case ast.Constant(value=value):
            return np.float64(value)  # type: ignore[arg-type,return-value]
        case ast.Name(id=name):
            return values[name]
        case ast.Call(func=ast.Name(id=name)):
            return FUNCTIONS[name][0](*operands)
        case ast.BinOp(op=op):
            return _BINARY[type(op)](*operands)
        case ast.UnaryOp(op=op):
            return _UNARY[type(op)](*operands)
    raise AssertionError(f"{node} was not checked")  # pragma: no cover
