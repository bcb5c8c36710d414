"""Samples that are computed: functions given as text, teacher networks, random targets.

Randomness comes from one ``numpy.random.default_rng(seed)`` in a fixed order (given with every
function), training samples first, so that asking for test samples does not change them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from flowsim.data.checks import MAX_VALUES, Array, count_problems
from flowsim.data.samples import Dataset, from_arrays, with_bias
from flowsim.errors import ConfigError
from flowsim.expression import Expression, ExpressionError

_BLOCK = 2**22
"""Values that evaluating a teacher holds at a time."""


def _gaussian(generator: np.random.Generator, n: int, d: int) -> Array:
    return generator.normal(size=(n, d))


def _sphere(generator: np.random.Generator, n: int, d: int) -> Array:
    x = generator.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int, int], Array]] = {
    "gaussian": _gaussian,
    "sphere": _sphere,
}
"""Random inputs (n, d) by name: unit normal, uniform on the unit sphere."""

BOX_SAMPLINGS = ("grid", "random")
"""Samplings of an interval: equally spaced with both ends, independent and uniform."""


def from_function(
    function: str,
    n_samples: int,
    low: float | None = None,
    high: float | None = None,
    *,
    n_inputs: int = 1,
    sampling: str = "grid",
    seed: int = 0,
    noise: float = 0.0,
    n_test: int = 0,
    bias: bool = True,
    normalise: str = "none",
) -> Dataset:
    """Sample a function that is given as text.

    Parameters
    ----------
    function : str
        See `flowsim.expression.Expression`; for example ``"x**2"`` or ``"sin(pi*x0)*x1"``.
    n_samples : int
    low, high : float, optional
        Interval of every input, for the samplings ``"grid"`` and ``"random"``.
    n_inputs : int
        Number of inputs, without the bias coordinate.
    sampling : str
        ``"grid"``, equally spaced with both ends (one input only); ``"random"``, independent and
        uniform; or one of `DISTRIBUTIONS`.
    seed : int
        Draws the training inputs, then the noise, then the test inputs.
    noise : float
        Standard deviation of Gaussian noise on the training targets.
    n_test : int
        Number of test samples: sampled like the others, without noise.
    bias : bool
    normalise : str
        See `from_arrays`; the function is that of the inputs before.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the function not finite at some sample.
    """
    problems = count_problems(n_samples=n_samples, n_inputs=n_inputs, n_test=n_test)
    problems += _sampling_problems(sampling, low, high, n_inputs)
    expression = _expression(function, n_inputs, problems)
    if problems or expression is None:
        raise ConfigError(problems)
    generator = np.random.default_rng(seed)

    def inputs(n: int) -> Array:
        if low is None or high is None:
            return DISTRIBUTIONS[sampling](generator, n, n_inputs)
        if sampling == "grid":
            return np.linspace(low, high, n)[:, None]
        return generator.uniform(low, high, size=(n, n_inputs))

    x = inputs(n_samples)
    # Drawn in any case: switching the noise on must not change the test inputs.
    disturbance = noise * generator.normal(size=n_samples)
    x_test = inputs(n_test) if n_test else None
    y = _finite_values(expression, x) + disturbance
    y_test = None if x_test is None else _finite_values(expression, x_test)
    return from_arrays(x, y, x_test, y_test, bias, kind="function", normalise=normalise)


def from_teacher(
    activation: Callable[[Array], Any],
    width: int,
    n_samples: int,
    *,
    n_inputs: int = 1,
    input_distribution: str = "gaussian",
    depth: int = 1,
    n_outputs: int | None = None,
    noise: float = 0.0,
    seed: int = 0,
    n_test: int = 0,
    bias: bool = True,
    normalise: str = "none",
) -> Dataset:
    """Sample a random network, f(x) = width^(-1/2) sum_k a_k sigma(w_k . x).

    With ``depth`` > 1, sigma(w . x) goes through further layers,
    h -> sigma(width^(-1/2) W h), before it meets a.

    Parameters
    ----------
    activation : callable
        Elementwise sigma on float64 arrays.
    width : int
        Neurons of every hidden layer of the teacher; all its weights are unit normal.
    n_samples : int
    n_inputs : int
        Number of inputs, without the bias coordinate (which the teacher sees too).
    input_distribution : str
        One of `DISTRIBUTIONS`.
    depth : int
        Hidden layers of the teacher.
    n_outputs : int, optional
        Outputs of the teacher: y is (n, n_outputs), or (n,) if it is left out.
    noise : float
        Standard deviation of Gaussian noise on the training targets.
    seed : int
        Draws the teacher (a, w, the further layers), the training inputs, the test inputs, and
        the noise.
    n_test : int
        Number of test samples; they have no noise.
    bias : bool
    normalise : str
        See `from_arrays`; the teacher sees the inputs before.

    Raises
    ------
    ConfigError
        If an argument is out of range.
    """
    outputs = 1 if n_outputs is None else n_outputs
    problems = count_problems(width=width, n_samples=n_samples, n_inputs=n_inputs, n_test=n_test)
    problems += _distribution_problems("input_distribution", input_distribution)
    problems += [] if problems else _layer_problems(width, depth, outputs, max(n_samples, n_test))
    if problems:
        raise ConfigError(problems)
    generator = np.random.default_rng(seed)
    a = generator.normal(size=width if n_outputs is None else (width, outputs))
    w = generator.normal(size=(n_inputs + bias, width))
    inner = [generator.normal(size=(width, width)) for _ in range(depth - 1)]

    def outputs_at(x: Array) -> Array:
        h = activation(x @ w)
        for weights in inner:
            h = activation(h @ weights / math.sqrt(width))
        return h @ a

    def sample(n: int) -> tuple[Array, Array]:
        x = DISTRIBUTIONS[input_distribution](generator, n, n_inputs)
        step = max(1, _BLOCK // width)
        blocks = np.split(with_bias(x, bias), range(step, n, step))
        y = np.concatenate([outputs_at(block) for block in blocks])
        return x, y / math.sqrt(width)

    x, y = sample(n_samples)
    x_test, y_test = sample(n_test) if n_test else (None, None)
    if noise:
        y = y + noise * generator.normal(size=y.shape)
    return from_arrays(x, y, x_test, y_test, bias, kind="teacher", normalise=normalise)


RANDOM_TARGETS: dict[str, Callable[[np.random.Generator, Any], Array]] = {
    "sign": lambda generator, shape: 2.0 * generator.integers(2, size=shape) - 1.0,
    "gaussian": lambda generator, shape: generator.normal(size=shape),
}
"""Targets that do not depend on the inputs, by name: -1 or 1 at even odds, unit normal."""


def from_random(
    n_samples: int,
    *,
    n_inputs: int = 1,
    input_distribution: str = "gaussian",
    target: str = "sign",
    n_outputs: int | None = None,
    seed: int = 0,
    n_test: int = 0,
    bias: bool = True,
    normalise: str = "none",
) -> Dataset:
    """Draw inputs and, independently, targets: all that can be learnt of them is by heart.

    Parameters
    ----------
    n_samples : int
    n_inputs : int
        Number of inputs, without the bias coordinate.
    input_distribution : str
        One of `DISTRIBUTIONS`.
    target : str
        One of `RANDOM_TARGETS`.
    n_outputs : int, optional
        y is (n, n_outputs), or (n,) if it is left out.
    seed : int
        Draws the training inputs, their targets, the test inputs, their targets.
    n_test : int
        Number of test samples.
    bias : bool
    normalise : str
        See `from_arrays`.

    Raises
    ------
    ConfigError
        If an argument is out of range.
    """
    outputs = 1 if n_outputs is None else n_outputs
    problems = count_problems(n_samples=n_samples, n_inputs=n_inputs, n_test=n_test)
    problems += _distribution_problems("input_distribution", input_distribution)
    if target not in RANDOM_TARGETS:
        problems.append(f'target = "{target}": unknown; choose from {_listed(RANDOM_TARGETS)}')
    problems += [] if problems else _output_problems(outputs, max(n_samples, n_test))
    if problems:
        raise ConfigError(problems)
    generator = np.random.default_rng(seed)

    def sample(n: int) -> tuple[Array, Array]:
        x = DISTRIBUTIONS[input_distribution](generator, n, n_inputs)
        return x, RANDOM_TARGETS[target](generator, n if n_outputs is None else (n, outputs))

    x, y = sample(n_samples)
    x_test, y_test = sample(n_test) if n_test else (None, None)
    return from_arrays(x, y, x_test, y_test, bias, kind="random", normalise=normalise)


def _sampling_problems(
    sampling: str, low: float | None, high: float | None, n_inputs: int
) -> list[str]:
    """Say what is wrong with a sampling and the interval that it may need."""
    if sampling not in BOX_SAMPLINGS:
        problems = _distribution_problems("sampling", sampling, BOX_SAMPLINGS)
        if not problems and not (low is None and high is None):
            problems.append(f'low, high: have no meaning with sampling = "{sampling}"; remove them')
        return problems
    if low is None or high is None:
        return [f"{'low' if low is None else 'high'}: missing; give both ends of the interval"]
    problems = []
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        problems.append(
            f"low = {low:g}: must be finite and less than high = {high:g}; exchange them"
        )
    if sampling == "grid" and n_inputs != 1:
        problems.append(
            f'sampling = "grid": is for one input, not for {n_inputs}; set sampling = "random"'
        )
    return problems


def _distribution_problems(key: str, name: str, others: tuple[str, ...] = ()) -> list[str]:
    if name in DISTRIBUTIONS or name in others:
        return []
    return [f'{key} = "{name}": unknown; choose from {_listed((*others, *DISTRIBUTIONS))}']


def _layer_problems(width: int, depth: int, n_outputs: int, n_samples: int) -> list[str]:
    """Say whether the layers behind the first are none, or too large to be held in memory."""
    if depth < 1:
        return [f"depth = {depth}: must be 1 or larger; try depth = 1"]
    if (depth - 1) * width**2 > MAX_VALUES:
        return [
            f"depth = {depth}: makes more than {MAX_VALUES} weights with width = {width}; take "
            "fewer layers or neurons"
        ]
    return _output_problems(n_outputs, max(n_samples, width))


def _output_problems(n_outputs: int, rows: int) -> list[str]:
    if n_outputs < 1:
        return [f"n_outputs = {n_outputs}: must be 1 or larger; try n_outputs = 2"]
    if n_outputs * rows > MAX_VALUES:
        return [f"n_outputs = {n_outputs}: makes more than {MAX_VALUES} numbers; take fewer"]
    return []


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


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
