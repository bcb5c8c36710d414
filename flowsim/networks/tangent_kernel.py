"""The side of the samples: the tangent kernel, the rates and speeds that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh, eigvalsh

from flowsim.kernels.cpu import samples

_LARGE = 32
"""Rows from which on LAPACK finds eigenvalues faster than compiled loops."""


_BASIS = 8
"""Vectors that Lanczos keeps: the largest eigenvalue of K is far from the others."""

_ACCURACY = 1e-3
"""Relative, of the largest eigenvalue found without K: a bound on a step needs no more."""


def largest_rate_of(
    times: Callable[[np.ndarray], np.ndarray], n_samples: int, n_outputs: int = 1
) -> float:
    """lambda_max(K/n) to a relative 1e-3 from products K v, by Lanczos.

    Parameters
    ----------
    times : callable
        From v (n o,) to K v.
    n_samples, n_outputs : int
        n and o.

    Returns
    -------
    float
        In 1/tau; infinity if K is not finite. The same bits every time: the first vector is fixed.
    """
    # Loading it takes longer than a small network's run, which has no use for it.
    from scipy.sparse.linalg import LinearOperator, eigsh

    # Orthogonal to nothing in particular, like that of `operator_norm`.
    size = n_samples * n_outputs
    start = np.cos(np.arange(size, dtype=np.float64) ** 1.5)
    if size <= _BASIS:
        matrix = np.array([times(column) for column in np.eye(size)])
        return TangentKernel(matrix[None], np.ones(1), n_outputs).largest_rate
    image = times(start)
    if not np.isfinite(image).all():
        return np.inf
    if not np.any(image):
        return 0.0
    operator = LinearOperator((size, size), matvec=times, dtype=np.float64)
    values = eigsh(operator, k=1, v0=start, ncv=_BASIS, tol=_ACCURACY, return_eigenvectors=False)
    return max(float(values[-1]) / n_samples, 0.0)


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

    def alignments(self, y: np.ndarray, centred: bool = False) -> np.ndarray:
        """Alignments y . K y / (|K| |y|^2) of each layer's K and of K itself (layers + 1,).

        The cosine between K and y y^T (Cristianini et al., On kernel-target alignment, NIPS 2001):
        1 if K = y y^T. ``centred`` takes the mean over the samples off K's rows and columns and
        off y first (Cortes, Mohri & Rostamizadeh, JMLR 13, 2012), of each output by itself. 0
        where K or y is 0.

        Parameters
        ----------
        y : (n,) or (n, o) array
            Targets, shaped like f.
        centred : bool
        """
        y = np.asarray(y, np.float64).reshape(self.n_samples, -1)
        y = (y - y.mean(axis=0) if centred else y).reshape(-1)
        found = []
        for gram in (*self.grams, self.matrix):
            if centred:
                gram = self._centred(gram)
            size = float(np.linalg.norm(gram)) * float(y @ y)
            found.append(float(y @ (gram @ y)) / size if size > 0.0 else 0.0)
        return np.array(found)

    def _centred(self, gram: np.ndarray) -> np.ndarray:
        """Without the mean over the samples, along rows and columns."""
        blocks = gram.reshape((self.n_samples, self.n_outputs) * 2)
        for axis in (0, 2):
            blocks = blocks - blocks.mean(axis=axis, keepdims=True)
        return blocks.reshape(gram.shape)

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
