"""The n x n side of a network: its tangent kernel, the rates and speeds that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh, eigvalsh

from flowsim.kernels.cpu import samples

_LARGE = 32
"""Samples from which on LAPACK finds eigenvalues faster than compiled loops."""


_BASIS = 8
"""Vectors that Lanczos keeps: the largest eigenvalue of K is far from the others."""

_ACCURACY = 1e-3
"""Relative, of the largest eigenvalue found without K: a bound on a step needs no more."""


def largest_rate_of(times: Callable[[np.ndarray], np.ndarray], n: int) -> float:
    """lambda_max(K/n) to a relative 1e-3 from products K v, by Lanczos.

    Parameters
    ----------
    times : callable
        From v (n,) to K v.
    n : int

    Returns
    -------
    float
        In 1/tau; infinity if K is not finite. The same bits every time: the first vector is fixed.
    """
    # Loading it takes longer than a small network's run, which has no use for it.
    from scipy.sparse.linalg import LinearOperator, eigsh

    # Orthogonal to nothing in particular, like that of `operator_norm`.
    start = np.cos(np.arange(n, dtype=np.float64) ** 1.5)
    if n <= _BASIS:
        matrix = np.array([times(column) for column in np.eye(n)])
        return TangentKernel(matrix[None], np.ones(1)).largest_rate
    image = times(start)
    if not np.isfinite(image).all():
        return np.inf
    if not np.any(image):
        return 0.0
    operator = LinearOperator((n, n), matvec=times, dtype=np.float64)
    values = eigsh(operator, k=1, v0=start, ncv=_BASIS, tol=_ACCURACY, return_eigenvectors=False)
    return max(float(values[-1]) / n, 0.0)


@dataclass(frozen=True)
class TangentKernel:
    """K at one state, layer by layer.

    Near that state d e / d time = -(K/n) e.

    Parameters
    ----------
    grams : (layers, n, n) float64 array
        Gram matrices of each layer's derivative of f.
    mobilities : (layers,) array
        Of the layers, in the same order.
    """

    grams: np.ndarray
    mobilities: np.ndarray

    @property
    def n_samples(self) -> int:
        """n."""
        return self.grams.shape[1]

    @cached_property
    def matrix(self) -> np.ndarray:
        """K (n, n): the layers' Gram matrices weighted with their mobilities."""
        matrix = np.empty(self.grams.shape[1:])
        samples.weighted_sum(np.ascontiguousarray(self.grams), self.mobilities, matrix)
        return matrix

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues of K (n,), ascending; negative rounding is set to 0."""
        return np.maximum(eigvalsh(self.matrix), 0.0)

    @cached_property
    def largest_rate(self) -> float:
        """lambda_max(K/n): the fastest decay rate, in 1/tau. Infinity if K is not finite."""
        if not np.isfinite(self.matrix).all():
            return np.inf
        n = self.n_samples
        if n <= _LARGE:
            return max(samples.largest_eigenvalue(self.matrix.copy()) / n, 0.0)
        values = eigh(self.matrix, eigvals_only=True, subset_by_index=[n - 1, n - 1])
        return max(float(values[0]) / n, 0.0)

    def alignments(self, y: np.ndarray, centred: bool = False) -> np.ndarray:
        """Alignments y . K y / (|K| |y|^2) of each layer's K and of K itself (layers + 1,).

        The cosine between K and y y^T (Cristianini et al., On kernel-target alignment, NIPS 2001):
        1 if K = y y^T. ``centred`` takes the mean over the samples off K's rows and columns and
        off y first (Cortes, Mohri & Rostamizadeh, JMLR 13, 2012). 0 where K or y is 0.

        Parameters
        ----------
        y : (n,) array
            Targets, shaped like f.
        centred : bool
        """
        y = np.asarray(y, np.float64).reshape(-1)
        y = y - y.mean() if centred else y
        found = []
        for gram in (*self.grams, self.matrix):
            if centred:
                gram = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
            size = float(np.linalg.norm(gram)) * float(y @ y)
            found.append(float(y @ (gram @ y)) / size if size > 0.0 else 0.0)
        return np.array(found)

    def distances(self, first: TangentKernel) -> np.ndarray:
        """|K - K'| / |K'| (Frobenius) of each layer's K and of K itself (layers + 1,).

        K' = ``first``; 0 where that is 0.
        """
        pairs = zip((*self.grams, self.matrix), (*first.grams, first.matrix), strict=True)
        found = []
        for own, other in pairs:
            size = float(np.linalg.norm(other))
            found.append(float(np.linalg.norm(own - other)) / size if size > 0.0 else 0.0)
        return np.array(found)

    def layer_speeds(self, residual: np.ndarray) -> np.ndarray:
        """Norms of d theta_l / d time of each layer (layers,), at the residual e (n,)."""
        grams = np.ascontiguousarray(self.grams)
        speeds = [
            samples.layer_speed(grams, layer, mobility, residual)
            for layer, mobility in enumerate(self.mobilities)
        ]
        return np.array(speeds)
