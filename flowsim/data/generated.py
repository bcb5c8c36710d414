"""Samples that are computed: functions given as text, teacher networks.

Randomness comes from one ``numpy.random.default_rng(seed)`` in a fixed order (given with every
function), training samples first, so that asking for test samples does not change them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from flowsim.data.checks import Array, count_problems
from flowsim.data.samples import Dataset, from_arrays, with_bias
from flowsim.errors import ConfigError
from flowsim.expression import Expression, ExpressionError

_BLOCK = 2**22
"""Values that evaluating a teacher holds at a time."""


def from_function(
    function: str,
    n_samples: int,
    low: float,
    high: float,
    *,
    n_inputs: int = 1,
    sampling: Literal["grid", "random"] = "grid",
    seed: int = 0,
    noise: float = 0.0,
    n_test: int = 0,
    bias: bool = True,
) -> Dataset:
    """Sample a function that is given as text.

    Parameters
    ----------
    function : str
        See `flowsim.expression.Expression`; for example ``"x**2"`` or ``"sin(pi*x0)*x1"``.
    n_samples : int
    low, high : float
        Interval of every input.
    n_inputs : int
        Number of inputs, without the bias coordinate.
    sampling : {"grid", "random"}
        Equally spaced with both ends (one input only), or independent and uniform.
    seed : int
        Draws the training inputs, then the noise, then the test inputs.
    noise : float
        Standard deviation of Gaussian noise on the training targets.
    n_test : int
        Number of test samples: sampled like the others, without noise.
    bias : bool

    Raises
    ------
    ConfigError
        If an argument is out of range, or the function not finite at some sample.
    """
    problems = count_problems(n_samples=n_samples, n_inputs=n_inputs, n_test=n_test)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        problems.append(
            f"low = {low:g}: must be finite and less than high = {high:g}; exchange them"
        )
    if sampling == "grid" and n_inputs != 1:
        problems.append(
            f'sampling = "grid": is for one input, not for {n_inputs}; set sampling = "random"'
        )
    expression = _expression(function, n_inputs, problems)
    if problems or expression is None:
        raise ConfigError(problems)
    generator = np.random.default_rng(seed)

    def inputs(n: int) -> Array:
        if sampling == "grid":
            return np.linspace(low, high, n)[:, None]
        return generator.uniform(low, high, size=(n, n_inputs))

    x = inputs(n_samples)
    # Drawn in any case: switching the noise on must not change the test inputs.
    disturbance = noise * generator.normal(size=n_samples)
    x_test = inputs(n_test) if n_test else None
    y = _finite_values(expression, x) + disturbance
    y_test = None if x_test is None else _finite_values(expression, x_test)
    return from_arrays(x, y, x_test, y_test, bias, kind="function")


def from_teacher(
    activation: Callable[[Array], Any],
    width: int,
    n_samples: int,
    *,
    n_inputs: int = 1,
    input_distribution: Literal["gaussian", "sphere"] = "gaussian",
    seed: int = 0,
    n_test: int = 0,
    bias: bool = True,
) -> Dataset:
    """Sample a random two-layer network, f(x) = width^(-1/2) sum_k a_k sigma(w_k . x).

    Parameters
    ----------
    activation : callable
        Elementwise sigma on float64 arrays.
    width : int
        Neurons of the teacher; a_k and w_k are unit normal.
    n_samples : int
    n_inputs : int
        Number of inputs, without the bias coordinate (which the teacher sees too).
    input_distribution : {"gaussian", "sphere"}
        Unit normal inputs, or uniform on the unit sphere.
    seed : int
        Draws the teacher (a, then w), the training inputs, the test inputs.
    n_test : int
        Number of test samples.
    bias : bool

    Raises
    ------
    ConfigError
        If an argument is out of range.
    """
    problems = count_problems(width=width, n_samples=n_samples, n_inputs=n_inputs, n_test=n_test)
    if problems:
        raise ConfigError(problems)
    generator = np.random.default_rng(seed)
    a = generator.normal(size=width)
    w = generator.normal(size=(n_inputs + bias, width))

    def sample(n: int) -> tuple[Array, Array]:
        x = generator.normal(size=(n, n_inputs))
        if input_distribution == "sphere":
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        step = max(1, _BLOCK // width)
        blocks = np.split(with_bias(x, bias), range(step, n, step))
        y = np.concatenate([activation(block @ w) @ a for block in blocks])
        return x, y / math.sqrt(width)

    x, y = sample(n_samples)
    x_test, y_test = sample(n_test) if n_test else (None, None)
    return from_arrays(x, y, x_test, y_test, bias, kind="teacher")


def _expression(text: str, n_inputs: int, problems: list[str]) -> Expression | None:
    try:
        return Expression(text, n_inputs)
    except ExpressionError as error:
        problems.append(f'function = "{" ".join(text.split())[:60]}": {error}')
        return None


def _finite_values(expression: Expression, x: Array) -> Array:
    values = expression(x)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        at = ", ".join(f"{value:g}" for value in x[bad[0], :5])
        raise ConfigError(
            f'function = "{expression.text[:60]}": is {values[bad[0]]} at ({at}); '
            "choose an interval low, high where it is finite"
        )
    return values
