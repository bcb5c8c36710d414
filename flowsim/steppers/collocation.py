"""Radau IIA collocation: nodes, weights, and the linear systems of its stages.

Hairer & Wanner, Solving Ordinary Differential Equations II, IV.5: s nodes on (0, 1], the last of
them 1, order 2 s - 1 and L-stable.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import legendre
from scipy.linalg import lu_factor, lu_solve


@dataclass(frozen=True)
class RadauIIA:
    """The method with so many nodes.

    Parameters
    ----------
    stages : int
        s, at least 1.
    """

    stages: int

    @cached_property
    def nodes(self) -> np.ndarray:
        """c (s,): zeros of P_s - P_(s-1), shifted to [0, 1]."""
        series = np.zeros(self.stages + 1)
        series[-2:] = -1.0, 1.0
        nodes = np.sort((legendre.legroots(series) + 1.0) / 2.0)
        nodes[-1] = 1.0
        return nodes

    @cached_property
    def coefficients(self) -> np.ndarray:
        """(s, s): from values at the nodes to coefficients of 1, x, x^2, ... ."""
        return np.linalg.inv(np.vander(self.nodes, increasing=True))

    @cached_property
    def a(self) -> np.ndarray:
        """A (s, s): from values at the nodes to integrals of their polynomial up to each node."""
        powers = np.arange(1, self.stages + 1)
        return (self.nodes[:, None] ** powers / powers) @ self.coefficients


class LinearWindow:
    """e' = -K(x) e/n over one step, K changing linearly: solved for the values at the nodes.

    A force that acts at x is felt at a later y by neurons that have moved on: what answers is
    Phi(y)^T M Phi(x), for which the mean of K(x) and K(y) is taken, right to first order but for
    its antisymmetric part.

    Parameters
    ----------
    method : RadauIIA
    kernel, slope : (n, n) arrays
        K/n where the step begins, and its rate of change.
    step : float
        h.

    Raises
    ------
    numpy.linalg.LinAlgError
        If K is not finite.
    """

    def __init__(
        self, method: RadauIIA, kernel: np.ndarray, slope: np.ndarray, step: float
    ) -> None:
        s, n = method.stages, len(kernel)
        kernels = kernel + np.multiply.outer(step * method.nodes, slope)
        means = 0.5 * (kernels[:, None] + kernels[None])
        matrix = (step * method.a)[:, :, None, None] * means
        matrix = np.ascontiguousarray(matrix.transpose(0, 2, 1, 3)).reshape(s * n, s * n)
        matrix[np.diag_indices(s * n)] += 1.0
        if not np.isfinite(matrix).all():
            raise np.linalg.LinAlgError("K is not finite")
        self._factors, self._shape = lu_factor(matrix, check_finite=False), (s, n)

    def solve(self, values: np.ndarray) -> np.ndarray:
        """E (s, n) with E + h (A x K/n) E = ``values``."""
        flat = lu_solve(self._factors, values.reshape(-1), check_finite=False)
        return np.asarray(flat).reshape(self._shape)
