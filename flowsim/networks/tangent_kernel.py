"""The side of the samples: the tangent kernel, the rates and speeds that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh, eigvalsh

from flowsim.kernels.cpu import samples

_LARGE = 32
"""Rows from which on LAPACK finds eigenvalues faster than compiled loops."""


@dataclass(frozen=True)
class TangentKernel:
    """K at one state, layer by layer.

    Near that state d f / d time = -K dR/df: for the square loss d e / d time = -(K/n) e.

    Parameters
    ----------
    grams : (layers, n o, n o) float64 array
        Gram matrices of each layer's derivative of f, o outputs a sample.
    mobilities : (layers,) array
        Of the layers, in the same order.
    n_outputs : int
        o.
    """

    grams: np.ndarray
    mobilities: np.ndarray
    n_outputs: int = 1

    @property
    def n_samples(self) -> int:
        """n."""
        return self.grams.shape[1] // self.n_outputs

    @cached_property
    def matrix(self) -> np.ndarray:
        """K (n o, n o): the layers' Gram matrices weighted with their mobilities."""
        matrix = np.empty(self.grams.shape[1:])
        samples.weighted_sum(np.ascontiguousarray(self.grams), self.mobilities, matrix)
        return matrix

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues of K (n o,), ascending; negative rounding is set to 0."""
        return np.maximum(eigvalsh(self.matrix), 0.0)

    @cached_property
    def largest_rate(self) -> float:
        """lambda_max(K/n): the fastest decay rate, in 1/tau. Infinity if K is not finite."""
        return max(_largest_eigenvalue(self.matrix) / self.n_samples, 0.0)

    def rate_bound(self, curvature: np.ndarray | None) -> float:
        """Bound of the rates at which e changes near this state, in 1/tau.

        Parameters
        ----------
        curvature : (n,) or (n, o) array, or None
            Diagonal matrix D that the Hessian of the loss by the outputs stays below; None for 1.
            The rates are eigenvalues of K H / n for the Hessian H, and none is larger than
            lambda_max(D^(1/2) K D^(1/2) / n).
        """
        if curvature is None:
            return self.largest_rate
        root = np.sqrt(curvature.reshape(-1))
        return max(_largest_eigenvalue(root[:, None] * self.matrix * root) / self.n_samples, 0.0)

    def layer_speeds(self, gradient: np.ndarray) -> np.ndarray:
        """Norms of d theta_l / d time of each layer (layers,), at the gradient n dR/df."""
        if self.n_outputs > 1:
            pull = gradient.reshape(-1) / self.n_samples
            squares = np.array([pull @ (gram @ pull) for gram in self.grams])
            return self.mobilities * np.sqrt(np.maximum(squares, 0.0))
        grams = np.ascontiguousarray(self.grams)
        speeds = [
            samples.layer_speed(grams, layer, mobility, gradient)
            for layer, mobility in enumerate(self.mobilities)
        ]
        return np.array(speeds)


def _largest_eigenvalue(matrix: np.ndarray) -> float:
    """Of a symmetric matrix; infinity if it is not finite."""
    if not np.isfinite(matrix).all():
        return np.inf
    last = len(matrix) - 1
    if last < _LARGE:
        return float(samples.largest_eigenvalue(matrix.copy()))
    return float(eigh(matrix, eigvals_only=True, subset_by_index=[last, last])[0])
