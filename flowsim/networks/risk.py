"""R and what a method must know of it, from the residual e = f - y of any loss.

Steppers carry e whatever the loss is: with the targets it tells f, and for the square loss, which
is all that small networks are trained with, it is the derivative too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from flowsim.kernels.cpu.samples import half_mean_square
from flowsim.kernels.losses import LOSSES, SQUARE, Loss


class Risk:
    """The loss of the outputs on given targets.

    Parameters
    ----------
    y : (n,) or (n, o) array
        Targets.
    loss : str
        A key of `flowsim.kernels.losses.LOSSES`.

    Attributes
    ----------
    y : float64 array
    loss_function : Loss
    accuracy : callable
        Of e: the share of the samples that are classified correctly, a tie not being correct.
        Only for a loss of classification.
    """

    accuracy: Callable[[np.ndarray], float]

    def __init__(self, y: np.ndarray, loss: str) -> None:
        self.y = np.ascontiguousarray(y, np.float64)
        self.loss_function: Loss = LOSSES[loss]
        # What a small network would feel: its loss in compiled code, e for the derivative.
        self._square = loss == SQUARE
        if self.loss_function.correct is not None:
            self.accuracy = self._accuracy

    @property
    def n_samples(self) -> int:
        """n."""
        return len(self.y)

    @property
    def n_outputs(self) -> int:
        """o."""
        return 1 if self.y.ndim == 1 else self.y.shape[1]

    @property
    def output_dims(self) -> tuple[str, ...]:
        """Names of the axes of f and e, as in files."""
        return ("sample",) if self.y.ndim == 1 else ("sample", "output")

    def loss(self, residual: np.ndarray) -> float:
        """R at e; infinity if it is not a number, so that it never compares well."""
        if self._square:
            if residual.ndim == 1:
                return half_mean_square(residual)
            return self.n_outputs * half_mean_square(residual.reshape(-1))
        total = float(np.sum(self.loss_function.value(residual + self.y, self.y)))
        return total / len(self.y) if total == total else np.inf

    def gradient(self, residual: np.ndarray) -> np.ndarray:
        """n dR/df at e, of e's shape: e itself for the square loss."""
        if self._square:
            return residual
        return self.loss_function.derivative(residual + self.y, self.y)

    def curvature(self, residual: np.ndarray) -> np.ndarray | None:
        """Diagonal (of e's shape) above the Hessian by the outputs, at e and a short way beyond.

        None for the square loss, where it is 1. A loss with a tail is flat where the samples are
        fitted: with this its rates fall like R, and a step in the tail may be as long as 1/R.
        """
        if self._square:
            return None
        loss, gradient = self.loss_function, self.gradient(residual)
        if loss.steepness is None:
            return np.full(residual.shape, loss.curvature)
        return np.minimum(loss.curvature, loss.steepness * np.abs(gradient))

    def residual_size(self, residual: np.ndarray) -> float:
        """Size of e that its errors are relative to: 1 for a loss with a tail."""
        if self.loss_function.steepness is None:
            return math.sqrt(2.0 * half_mean_square(residual.reshape(-1)))
        return 1.0

    def _accuracy(self, residual: np.ndarray) -> float:
        assert self.loss_function.correct is not None
        return float(np.mean(self.loss_function.correct(residual + self.y, self.y)))
