"""The linear regime in closed form: gradient flow of f itself with a kernel that does not change.

    df(x)/dtau = -(1/n) sum_i K(x, x_i) e_i,   so that   e(tau) = exp(-K tau/n) e(0)

and, at any x, f(x, tau) = f(x, 0) - K(x, .) (tau/n) phi(K tau/n) e(0) with phi(z) = (1 - exp(-z))/z
(Jacot, Gabriel & Hongler, NeurIPS 2018; Lee et al., NeurIPS 2019, section 2.2). Nothing is divided
by small eigenvalues.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from flowsim.limits.tangent_kernels import limit_kernel
from flowsim.networks.deep import DeepNetwork
from flowsim.networks.two_layer import TwoLayerNetwork


class KernelFlow:
    """Kernel gradient flow on given samples, for the square loss.

    Parameters
    ----------
    kernel : (n, n) array
        K, in 1/tau.
    y : (n,) or (n, o) array
        Targets.
    initial : array shaped like ``y``, optional
        f on the samples at tau = 0; 0 by default, as with antisymmetric initial values.

    Attributes
    ----------
    rates : (n,) float64 array
        Eigenvalues of K/n, ascending, in 1/tau: a mode of e decays as exp(-rate tau), and R in the
        end at least as exp(-2 rates[0] tau).
    """

    def __init__(
        self, kernel: np.ndarray, y: np.ndarray, initial: np.ndarray | None = None
    ) -> None:
        y = np.asarray(y, np.float64)
        values, self._modes = eigh(np.asarray(kernel, np.float64))
        self.rates = np.maximum(values, 0.0) / len(y)
        first = -y if initial is None else np.asarray(initial, np.float64) - y
        self._n, self._shape = len(y), y.shape
        self._first = self._modes.T @ first.reshape(len(y), -1)

    def residual(self, times: np.ndarray) -> np.ndarray:
        """Return e at each of the ``times`` (t,) in tau: (t, n) or (t, n, o)."""
        decayed = np.exp(-np.multiply.outer(np.asarray(times, np.float64), self.rates))
        return self._shaped(self._modes @ (decayed[:, :, None] * self._first))

    def loss(self, times: np.ndarray) -> np.ndarray:
        """R = 1/(2n) sum e^2 at each of the ``times`` (t,)."""
        squares = self.residual(times) ** 2
        return squares.reshape(len(squares), -1).sum(axis=1) / (2.0 * self._n)

    def outputs(
        self, times: np.ndarray, cross: np.ndarray, initial: np.ndarray | float = 0.0
    ) -> np.ndarray:
        """Return f at other inputs.

        Parameters
        ----------
        times : (t,) array
            tau.
        cross : (k, n) array
            K between these inputs and the samples.
        initial : (k,) or (k, o) array, or 0
            f there at tau = 0.

        Returns
        -------
        (t, k) or (t, k, o) float64 array
        """
        times = np.asarray(times, np.float64)
        z = np.multiply.outer(times, self.rates)
        phi = np.divide(-np.expm1(-z), z, out=np.ones_like(z), where=z > 0.0)
        gone = (times[:, None] * phi)[:, :, None] * self._first / self._n
        return initial - self._shaped((np.asarray(cross, np.float64) @ self._modes) @ gone)

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        return values if len(self._shape) > 1 else values[..., 0]


class LinearLimit(KernelFlow):
    """The flow of a network in the linear regime, with the kernel of infinite width.

    Parameters
    ----------
    network : TwoLayerNetwork or DeepNetwork
    x, y : (n, d), (n,) arrays
        Inputs, bias coordinate included, and targets.
    initial : (n,) array, optional
        f on the samples at tau = 0.
    """

    def __init__(
        self,
        network: TwoLayerNetwork | DeepNetwork,
        x: np.ndarray,
        y: np.ndarray,
        initial: np.ndarray | None = None,
    ) -> None:
        self.network, self.x = network, np.asarray(x, np.float64)
        super().__init__(limit_kernel(network, self.x), y, initial)

    def predict(
        self, x: np.ndarray, times: np.ndarray, initial: np.ndarray | float = 0.0
    ) -> np.ndarray:
        """f(x, tau) (t, k) at inputs x (k, d), bias coordinate included, and ``times`` (t,)."""
        return self.outputs(times, limit_kernel(self.network, x, self.x), initial)
