"""The n x n side of implicit and exponential methods: the tangent kernel's linear systems.

Near a state the outputs' velocities decay with K H / n, H the Hessian of the loss by the outputs:
1 for the square loss, else a diagonal bound of it. The Jacobian of the flow without the weights'
own curvature (Gauss-Newton) is J = -M Phi H Phi^T / n, Phi = (df/dtheta)^T and K = Phi^T M Phi, of
rank n. By Woodbury's identity

    (I - s J)^(-1) v = v - (s/n) M Phi H (I + s K H/n)^(-1) Phi^T v,

and for any function phi, phi(s J) M Phi = M Phi phi(-s H K/n): what is implicit or exponential in
all the weights is n x n work and products with Phi.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.lapack import dpotrf, dpotrs

from flowsim.steppers.base import Flow, Point

_FLATTEST = 1e-12
"""Of the largest bound of a sample's Hessian, what a flatter one counts as."""


class KernelSolver:
    """Solutions and functions of K H / n, in the symmetric form H^(1/2) K H^(1/2) / n.

    Parameters
    ----------
    kernel : (n o, n o) array
        K, or what takes its place.
    n_samples : int
        n.
    curvature : (n,) or (n, o) array, optional
        The diagonal H; 1 if absent.

    Raises
    ------
    numpy.linalg.LinAlgError
        If K is not finite.
    """

    def __init__(
        self, kernel: np.ndarray, n_samples: int, curvature: np.ndarray | None = None
    ) -> None:
        self.kernel = kernel
        self._matrix = kernel / n_samples
        self._n_samples = n_samples
        self.curvature: np.ndarray | None = None
        if curvature is not None:
            flat = curvature.reshape(-1)
            self.curvature = np.maximum(flat, max(_FLATTEST * float(np.max(flat)), 1e-300))
            self._root = np.sqrt(self.curvature)
            self._matrix = self._root[:, None] * self._matrix * self._root
        if not np.isfinite(self._matrix).all():
            raise np.linalg.LinAlgError("K is not finite")
        self._size: float | None = None
        self._modes: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def at(cls, flow: Flow, point: Point) -> KernelSolver:
        """The solver of a point, with its own K: one Gram build."""
        kernel = flow.tangent_kernel(point.theta).matrix
        return cls(kernel, flow.n_samples, flow.curvature(point.residual))

    @property
    def eigenvalues(self) -> np.ndarray:
        """Of K H / n, ascending, in 1/tau; negative rounding is set to 0."""
        return self._decomposed()[0]

    def factorise(self, size: float) -> None:
        """Get ready to `solve` with I + s K H/n, s = ``size``: by Cholesky, kept for the same s.

        Raises
        ------
        numpy.linalg.LinAlgError
            If that is not positive definite, or not finite.
        """
        if size == self._size:
            return
        system = size * self._matrix
        system.flat[:: len(system) + 1] += 1.0
        if not np.isfinite(system).all():
            raise np.linalg.LinAlgError("I + s K H/n is not finite")
        # LAPACK itself: for few samples what is around it takes longer. It is symmetric, and its
        # transpose in LAPACK's order.
        self._factor, failed = dpotrf(system.T, lower=1, overwrite_a=1, clean=0)
        if failed:
            raise np.linalg.LinAlgError("I + s K H/n is not positive definite")
        self._size = size

    def solve(self, v: np.ndarray) -> np.ndarray:
        """Return (I + s K H/n)^(-1) v for the s of `factorise`; v shaped like e."""
        flat = v.reshape(-1)
        if self.curvature is None:
            found, _ = dpotrs(self._factor, flat, lower=1)
        else:
            found, _ = dpotrs(self._factor, self._root * flat, lower=1)
            found = found / self._root
        return np.asarray(found).reshape(v.shape)

    def times_hessian(self, v: np.ndarray) -> np.ndarray:
        """H v, shaped like v."""
        if self.curvature is None:
            return v
        return np.asarray(self.curvature.reshape(v.shape) * v)

    def filtered(
        self, function: Callable[[np.ndarray], np.ndarray], gradient: np.ndarray
    ) -> np.ndarray:
        """function(H K/n) applied to a gradient n dR/df, by the eigendecomposition of K.

        Parameters
        ----------
        function : callable
            Of the eigenvalues (n o,), never negative.
        gradient : (n,) or (n, o) array

        Raises
        ------
        numpy.linalg.LinAlgError
            If the eigenvalues cannot be found.
        """
        values, vectors = self._decomposed()
        flat = gradient.reshape(-1)
        if self.curvature is None:
            found = vectors @ (function(values) * (vectors.T @ flat))
        else:
            found = self._root * (vectors @ (function(values) * (vectors.T @ (flat / self._root))))
        return np.asarray(found).reshape(gradient.shape)

    def change(self, push: np.ndarray, time: float) -> np.ndarray:
        """By how much -M Phi g / n, g = ``push``, moves f in a time if f is linear: -time K g / n.

        Shaped like f.
        """
        found = self.kernel @ push.reshape(-1) * (-time / self._n_samples)
        return np.asarray(found).reshape(push.shape)

    def _decomposed(self) -> tuple[np.ndarray, np.ndarray]:
        if self._modes is None:
            values, vectors = eigh(self._matrix, check_finite=False)
            self._modes = np.maximum(values, 0.0), vectors
        return self._modes
