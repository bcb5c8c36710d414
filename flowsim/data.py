"""Data sets: arrays, sampled functions, teacher networks, files.

Inputs carry the bias coordinate: with ``bias`` a constant 1 is appended to every sample, as the
last column, so that nothing behind this module needs to know of biases. Randomness comes from one
``numpy.random.default_rng(seed)`` in a fixed order (given with every function), training samples
first, so that asking for test samples does not change them.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flowsim.data_checks import (
    checked_samples,
    column_problems,
    count_problems,
    warn_of_duplicates,
    warn_of_parallel_inputs,
)
from flowsim.data_files import read_arrays
from flowsim.errors import ConfigError
from flowsim.expression import Expression, ExpressionError

Array = npt.NDArray[np.float64]

_BLOCK = 2**22
"""Values that evaluating a teacher holds at a time."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to be fitted.

    Attributes
    ----------
    x : (n, d) float64 array, C-contiguous
        Inputs, one sample a row; with ``bias`` the last column is 1.
    y : (n,) or (n, o) float64 array
        Targets.
    x_test, y_test : arrays or None
        Test samples, laid out alike.
    bias : bool
        Whether the bias coordinate is there.
    kind : str
        Where the samples came from: ``arrays``, ``points``, ``function``, ``teacher``, ``file``.
    """

    x: Array
    y: Array
    x_test: Array | None = None
    y_test: Array | None = None
    bias: bool = True
    kind: str = "arrays"

    @property
    def n_samples(self) -> int:
        """Number of training samples n."""
        return self.x.shape[0]

    @property
    def n_inputs(self) -> int:
        """Number of inputs d, the bias coordinate included."""
        return self.x.shape[1]

    def warn_of_parallel_inputs(self) -> None:
        """Warn if no 1-homogeneous network, such as ReLU's, can fit the samples.

        Warns
        -----
        DataWarning
            If, without bias, parallel inputs have targets that are not in the same ratio.
        """
        if not self.bias:  # with bias no two different inputs are parallel
            warn_of_parallel_inputs(self.x, self.y)

    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of all samples, shapes included."""
        state = hashlib.sha256()
        for array in (self.x, self.y, self.x_test, self.y_test):
            state.update(repr(None if array is None else array.shape).encode())
            state.update(b"" if array is None else np.ascontiguousarray(array, "<f8").tobytes())
        return state.hexdigest()

    def section(self) -> dict[str, Any]:
        """Return the section ``[data]`` that stands for arrays which came from a script."""
        return {
            "kind": "arrays",
            "sha256": self.digest(),
            "n_samples": self.n_samples,
            "bias": self.bias,
        }


def from_arrays(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    x_test: npt.ArrayLike | None = None,
    y_test: npt.ArrayLike | None = None,
    bias: bool = True,
    *,
    kind: str = "arrays",
) -> Dataset:
    """Make a data set of arrays, converted to float64.

    Parameters
    ----------
    x : (n, d) or (n,) array
        Inputs without the bias coordinate.
    y : (n,), (n, 1) or (n, o) array
    x_test, y_test : arrays, optional
        Test samples; both or neither.
    bias : bool
        Append the constant-1 coordinate.
    kind : str
        What `Dataset.kind` will say.

    Returns
    -------
    Dataset

    Raises
    ------
    ConfigError
        With everything wrong: not numbers, not rectangular, empty, not finite, unequal lengths.

    Warns
    -----
    DataWarning
        If samples with the same input have different targets, so that the loss cannot reach 0.
    """
    problems: list[str] = []
    train = checked_samples(x, y, "", problems)
    test = None
    if x_test is not None and y_test is not None:
        test = checked_samples(x_test, y_test, "_test", problems)
    elif (x_test is None) != (y_test is None):
        given, absent = ("x_test", "y_test") if y_test is None else ("y_test", "x_test")
        problems.append(f"{absent}: missing beside {given}; give both or neither")
    if train and test:
        problems += column_problems(train, test)
    if problems or train is None:
        raise ConfigError(problems)
    dataset = Dataset(with_bias(train[0], bias), train[1], bias=bias, kind=kind)
    if test is not None:
        dataset = replace(dataset, x_test=with_bias(test[0], bias), y_test=test[1])
    warn_of_duplicates(dataset.x, dataset.y)
    return dataset


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


def from_file(
    path: str | os.PathLike[str],
    x: str = "x",
    y: str = "y",
    x_test: str | None = None,
    y_test: str | None = None,
    bias: bool = True,
) -> Dataset:
    """Read arrays from an npz or HDF5 file, which need not be trusted.

    Parameters
    ----------
    path : path
    x, y : str
        Names of the arrays; in an HDF5 file possibly inside groups, as in ``"train/x"``.
    x_test, y_test : str, optional
        Names of the test arrays; both or neither.
    bias : bool

    Raises
    ------
    ConfigError
        If the file or an array cannot be read, or the arrays do not fit (`from_arrays`).
    """
    names = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
    wanted = {key: name for key, name in names.items() if name is not None}
    return from_arrays(**read_arrays(path, wanted), bias=bias, kind="file")


def with_bias(x: Array, bias: bool = True) -> Array:
    """Return inputs (n, d) as C-contiguous float64, with a last column of 1 if ``bias``.

    Parameters
    ----------
    x : (n, d) array
    bias : bool
    """
    columns = [x, np.ones((len(x), 1))] if bias else [x]
    return np.ascontiguousarray(np.hstack(columns), np.float64)


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
