"""Losses: one entry a function, for networks of any kind.

The risk is R = 1/n sum_i value(f_i, y_i), and its flow needs its derivative by the outputs. An
entry works on all samples at once: outputs f and targets y are (n,) for one output, (n, o) for
several. Tails keep their digits: a sample that is fitted well has a small loss, and not a
difference of large numbers. A new loss is one new entry in `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SQUARE = "square"
"""Name of the loss that is meant where none is named."""


@dataclass(frozen=True)
class Loss:
    """A loss of one sample, and what a method must know of it.

    Parameters
    ----------
    name : str
        Name in configuration files.
    value : callable
        Of (f, y): the loss of each sample (n,).
    derivative : callable
        Of (f, y): its derivative by f, of f's shape.
    curvature : float
        No eigenvalue of its Hessian by the outputs of a sample is larger.
    formula, units : str
        R for files.
    problem : callable
        Of y: what keeps these targets from being of this loss, with a remedy; empty if nothing.
    steepness : float, optional
        For a loss with a tail that flattens out: no eigenvalue of the Hessian is larger than this
        times the largest component of the derivative. The outputs then matter to an absolute
        accuracy: a change of f by 1 changes a sample's derivative by a factor e at most.
    correct : callable, optional
        Of (f, y): which samples (n,) are classified correctly; a tie is not.
    """

    name: str
    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    derivative: Callable[[np.ndarray, np.ndarray], np.ndarray]
    curvature: float
    formula: str
    units: str
    problem: Callable[[np.ndarray], str]
    steepness: float | None = None
    correct: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


def _square(f, y):
    e = f - y
    return 0.5 * (e * e).reshape(len(e), -1).sum(axis=1)


def _square_derivative(f, y):
    return f - y


def _any_target(y):
    return ""


def _logistic(f, y):
    return np.logaddexp(0.0, -y * f)


def _logistic_derivative(f, y):
    margin = y * f
    # 1/(1 + exp(margin)); the exponential sees negative numbers only.
    small = np.exp(-np.abs(margin))
    return -y * np.where(margin > 0.0, small, 1.0) / (1.0 + small)


def _logistic_correct(f, y):
    return y * f > 0.0


def _signs(y):
    if y.ndim > 1:
        return f'has {y.shape[1]} columns; give one column of 1 and -1, or use "softmax"'
    if not np.isin(y, (-1.0, 1.0)).all():
        return 'must be 1 or -1; encode labels with target = "sign"'
    return ""


def _softmax_parts(f):
    """The largest output's place, f minus it, and the others' exponentials with their sum."""
    top = np.argmax(f, axis=1)[:, None]
    below = f - np.take_along_axis(f, top, axis=1)
    others = np.exp(below)
    np.put_along_axis(others, top, 0.0, axis=1)
    return top, below, others, others.sum(axis=1)


def _softmax(f, y):
    _, below, _, rest = _softmax_parts(f)
    return np.log1p(rest) - (y * below).sum(axis=1)


def _softmax_derivative(f, y):
    top, _, others, rest = _softmax_parts(f)
    whole = (1.0 + rest)[:, None]
    gradient = others / whole - y
    # The largest one's probability minus 1, where it is the right one, is minus that of the rest.
    own = np.where(np.take_along_axis(y, top, axis=1) == 1.0, -rest[:, None], 1.0)
    np.put_along_axis(gradient, top, own / whole, axis=1)
    return gradient


def _softmax_correct(f, y):
    right = y == 1.0
    return f[right] > np.where(right, -np.inf, f).max(axis=1)


def _one_hot(y):
    if y.ndim == 1 or y.shape[1] < 2:
        return 'has one column; give one a class, with target = "one-hot", or use "logistic"'
    if not (np.isin(y, (0.0, 1.0)).all() and (y.sum(axis=1) == 1.0).all()):
        return 'must have a single 1 in each row, else 0; encode labels with target = "one-hot"'
    return ""


LOSSES: dict[str, Loss] = {
    entry.name: entry
    for entry in (
        Loss(
            SQUARE,
            _square,
            _square_derivative,
            1.0,
            "R = 1/(2n) sum_i e_i^2",
            "y^2",
            _any_target,
        ),
        Loss(
            "logistic",
            _logistic,
            _logistic_derivative,
            0.25,
            "R = 1/n sum_i log(1 + exp(-y_i f(x_i)))",
            "1",
            _signs,
            steepness=1.0,
            correct=_logistic_correct,
        ),
        Loss(
            "softmax",
            _softmax,
            _softmax_derivative,
            0.5,
            "R = 1/n sum_i (log sum_k exp(f_k(x_i)) - sum_k y_ik f_k(x_i))",
            "1",
            _one_hot,
            # Gershgorin: an eigenvalue is at most max_k 2 p_k (1 - p_k), that at most 2 (1 - p_y).
            steepness=2.0,
            correct=_softmax_correct,
        ),
    )
}
"""Losses by their name in configuration files."""
