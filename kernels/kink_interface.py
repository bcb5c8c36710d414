"""What a backend offers to methods that pass kinks neuron by neuron."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from flowsim.kernels.hyperplanes import Hyperplanes
from flowsim.kernels.interface import Array

CROSSED, PINNED, RELEASED, MOST, FAILED = range(5)
"""Entries of the counts of a window: planes passed, neurons pinned, pins that let go, most kinks of
one neuron, neurons that met too many of them, for whom the rest is void."""


class Kinks(Protocol):
    """Windows of a two-layer network with a piecewise linear activation.

    A *pattern* (planes, neurons) int8 says for each neuron and hyperplane whether the neuron is
    above (1), below (-1) or held on it (0): see `flowsim.kernels.hyperplanes`. It belongs to the
    state: a neuron that is on a plane may be about to leave it.
    """

    planes: Hyperplanes

    def pass_window(
        self,
        theta: Array,
        pattern: np.ndarray,
        forces: np.ndarray,
        nodes: np.ndarray,
        out: Array,
        out_pattern: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move every neuron by itself, kink by kink, along given forces. One pass.

        Parameters
        ----------
        theta, pattern
            Where the window begins.
        forces : (2, planes, degrees) array
            Below and above each plane, times the length of the window: coefficients of polynomials
            of time over that length.
        nodes : (k,) array
            Fractions of the window, increasing. The neurons are left at the last.
        out, out_pattern
            Receive the end; not the arrays it begins with.

        Returns
        -------
        (k, planes + d) array, (5,) int64 array
            Sums for `Hyperplanes.outputs` at the nodes; counts, see `CROSSED` and the others.
        """

    def gram(self, theta: Array, pattern: np.ndarray) -> np.ndarray:
        """K (n, n): held neurons move along their planes only. One pass."""
