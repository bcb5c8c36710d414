"""The data set itself, and how it is made of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flowsim.data.checks import (
    Array,
    both_or_neither,
    check_flag,
    checked_samples,
    column_problems,
    warn_of_duplicates,
    warn_of_parallel_inputs,
)
from flowsim.data.normalisation import Normalisation, find_normalisation
from flowsim.errors import ConfigError


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
        Where the samples came from: ``arrays``, ``function``, ``file``, ``mnist`` and so on.
    normalisation : Normalisation
        What has been done to the inputs; inputs of other samples need the same.
    notes : dict
        What else is to be said of the samples in the file of a run, text or numbers by name.
    """

    x: Array
    y: Array
    x_test: Array | None = None
    y_test: Array | None = None
    bias: bool = True
    kind: str = "arrays"
    normalisation: Normalisation = Normalisation("none")
    notes: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def n_samples(self) -> int:
        """Number of training samples n."""
        return self.x.shape[0]

    @property
    def n_inputs(self) -> int:
        """Number of inputs d, the bias coordinate included."""
        return self.x.shape[1]

    @property
    def n_outputs(self) -> int:
        """Number of targets o of a sample: 1 where y is a vector."""
        return 1 if self.y.ndim == 1 else self.y.shape[1]

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
    normalise: str = "none",
    full_scale: float | None = None,
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
    normalise : str
        What to do with the inputs, see `flowsim.data.normalisation.find_normalisation`. Its
        numbers come from ``x`` and are applied to ``x_test`` too.
    full_scale : float, optional
        Largest value that an input can have, for ``"unit-scale"``; that of bytes is known.

    Returns
    -------
    Dataset

    Raises
    ------
    ConfigError
        With everything wrong: not numbers, not rectangular, empty, not finite, unequal lengths,
        a bias that is neither true nor false, a normalisation that does not fit.

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
        problems.append(both_or_neither(y_test is None))
    if train and test:
        problems += column_problems(train, test)
    check_flag("bias", bias, problems)
    if problems or train is None:
        raise ConfigError(problems)
    if full_scale is None and getattr(x, "dtype", None) == np.uint8:
        full_scale = 255.0
    normalisation = find_normalisation(normalise, train[0], full_scale)
    inputs = with_bias(normalisation.apply(train[0]), bias)
    dataset = Dataset(inputs, train[1], bias=bias, kind=kind, normalisation=normalisation)
    if test is not None:
        tested = with_bias(normalisation.apply(test[0]), bias)
        dataset = replace(dataset, x_test=tested, y_test=test[1])
    warn_of_duplicates(dataset.x, dataset.y)
    return dataset


def with_bias(x: Array, bias: bool = True) -> Array:
    """Return inputs (n, d) as C-contiguous float64, with a last column of 1 if ``bias``.

    Parameters
    ----------
    x : (n, d) array
    bias : bool
    """
    columns = [x, np.ones((len(x), 1))] if bias else [x]
    return np.ascontiguousarray(np.hstack(columns), np.float64)
