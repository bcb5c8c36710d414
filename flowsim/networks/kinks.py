"""Windows of a two-layer network with a piecewise linear activation, as steppers use them."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import Array
from flowsim.kernels.kink_interface import Kinks
from flowsim.networks.flow import NetworkFlow
from flowsim.networks.tangent_kernel import TangentKernel


class FlowKinks:
    """`flowsim.kernels.kink_interface.Kinks` whose passes are the flow's.

    Parameters
    ----------
    flow : NetworkFlow
    kinks : Kinks
    """

    def __init__(self, flow: NetworkFlow, kinks: Kinks) -> None:
        self._flow, self._kinks = flow, kinks

    def sides(self, theta: Array) -> np.ndarray:
        """Pattern (planes, neurons) of a state: 1 above, -1 below, 0 on a plane to the last bit."""
        return self._kinks.planes.sides(theta[1:])

    def largest_force(self, residual: np.ndarray) -> float:
        """Bound of |g| for every neuron at e = ``residual``: weights grow no faster, in 1/tau."""
        return float(np.abs(self._kinks.planes.forces(residual)).max(axis=0).sum())

    def pass_window(
        self,
        theta: Array,
        pattern: np.ndarray,
        path: np.ndarray,
        step: float,
        nodes: np.ndarray,
        out: Array,
        out_pattern: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move every neuron along a path of the residual. One pass.

        Parameters
        ----------
        theta, pattern
            Where the window begins.
        path : (degrees, n) array
            Coefficients of e as a polynomial of time/``step``.
        step : float
        nodes : (k,) array
            Fractions of the step, increasing; the neurons are left at the last.
        out, out_pattern
            Receive the end.

        Returns
        -------
        (k, n) array, (5,) int64 array
            e at the nodes; counts, see `flowsim.kernels.kink_interface.Kinks`.
        """
        self._flow.n_rhs += 1
        self._flow.n_passes += 1
        forces = step * self._kinks.planes.forces(np.ascontiguousarray(path.T))
        sums, counts = self._kinks.pass_window(theta, pattern, forces, nodes, out, out_pattern)
        return self._kinks.planes.outputs(sums) - self._flow.y, counts

    def tangent_kernel(self, theta: Array, pattern: np.ndarray) -> TangentKernel:
        """K of neurons that stay on the planes that hold them. One pass."""
        self._flow.n_passes += 1
        self._flow.n_grams += 1
        return TangentKernel(self._kinks.gram(theta, pattern)[None], np.ones(1))
