"""The interface that every backend fulfils, for two-layer networks.

A backend binds the inputs, the activation and the factors of the vector field once and then
offers passes over the neurons. The state ``theta`` is one C-contiguous array (1 + d, neurons),
row 0 the output weights and the others the input weights, neurons last; a *slope* has its shape.
Vector outputs will be more rows above the input weights. Everything of size n (outputs f,
residual) is float64 whatever the dtype of the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from flowsim.kernels.activations import Activation

Array = Any
"""An array of the backend: NumPy's on the CPU."""


@dataclass(frozen=True)
class TwoLayerField:
    """Everything that defines f(x_i) and its flow, apart from the state and the targets.

    Attributes
    ----------
    x : (n, d) float64 array
        Inputs, bias coordinate included.
    activation : Activation
    activation_scale : float
        sigma is replaced by sigma(scale z) / scale (beta_2 for activations that are not
        1-homogeneous; 1 otherwise).
    multiplier : float
        f(x_i) = multiplier sum_k a_k sigma(w_k . x_i): kappa in the normalised flow.
    output_mobility, input_mobility : float
        d a / d time = -output_mobility dR/da and d w / d time = -input_mobility dR/dw.
        0 freezes the layer.
    """

    x: np.ndarray
    activation: Activation
    activation_scale: float
    multiplier: float
    output_mobility: float
    input_mobility: float


class TwoLayerKernels(Protocol):
    """Passes over the neurons of a two-layer network on one backend."""

    n_samples: int
    dtype: np.dtype
    turns: bool
    """Whether a stack of slopes may be given backwards, as ``slopes[::-1]``."""

    def array(self, values: np.ndarray) -> Array:
        """Copy a state (1 + d, neurons) to the backend in its dtype."""

    def empty(self, n: int | None = None) -> Array:
        """One state, or ``n`` stacked ones (n, 1 + d, neurons), uninitialised."""

    def outputs(self, theta: Array) -> np.ndarray:
        """f (n,) at ``theta``. One pass."""

    def rate(self, theta: Array, residual: np.ndarray, out: Array) -> None:
        """Write d theta / d time for ``residual`` into ``out``. One pass."""

    def combine(
        self, base: Array, slopes: Array, weights: np.ndarray, step: float, out: Array | None
    ) -> np.ndarray:
        """Write base + step sum_j weights[j] slopes[j] into ``out``; return f there. One pass.

        ``out`` may be one of the slopes; without ``out`` that state is kept nowhere.
        """

    def advance(
        self,
        theta: Array | None,
        residual: np.ndarray,
        base: Array,
        slopes: Array,
        weights: np.ndarray,
        step: float,
        out: Array | None,
        slope: Array | None = None,
        here: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rate at ``theta``, then combine, then outputs, in one pass.

        ``weights`` has one entry more than the slopes used: its last one is for the velocity at
        ``theta``, which is kept in ``slope`` if that is given. ``out`` may be ``theta`` or one of
        the slopes; without ``out`` the new state is kept nowhere. With ``here`` the rate is taken
        at base + step sum_j here[j] slopes[j] in the place of ``theta``, which is not read: a
        stage that can be made again from slopes that are read anyway need not be stored.
        Returns f (n,) at the new state.
        """

    def rate_and_errors(
        self, theta: Array, residual: np.ndarray, slopes: Array, weights: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """End of a step of an embedded method, in one pass.

        Writes d theta / d time into the last of the ``slopes``. The errors of the e embedded
        solutions are then step sum_j weights[., j] slopes[j], for ``weights`` (e, stages).
        Returns f at theta minus each error (e, n), and the sums of squares over all neurons, each
        as (output, input), of the errors and, last, of ``theta`` (e + 1, 2).
        """

    def advance_registers(
        self,
        theta: Array,
        residual: np.ndarray,
        memory: Array,
        base: Array,
        error: Array,
        factors: np.ndarray,
        fresh: bool = False,
    ) -> np.ndarray:
        """Take a stage of a low-storage method, in place, in one pass.

        With k the velocity at ``theta`` for ``residual``, first from the old ``theta`` and then
        with the new ``memory``::

            memory += delta (theta - base)
            error  += error_weight k
            theta   = base + gamma1 (theta - base) + gamma2 memory + beta k

        The registers hold differences from the base, whose own terms are left out: they add up to
        the base, and by rounding to something else, which a frozen layer would show.

        ``factors`` (5,) float64 are delta, gamma1, gamma2, beta (with the step) and error_weight.
        With ``fresh`` the memory is written, not read. Returns f (n,) at the new ``theta``.
        """

    def squared_norms(self, theta: Array, reference: Array | None, neurons: int) -> np.ndarray:
        """Sums of (theta - reference)^2 over the first ``neurons`` neurons: (output, input)."""

    def squared_combination(self, slopes: Array, weights: np.ndarray) -> np.ndarray:
        """Sums of (sum_j weights[j] slopes[j])^2 over all neurons: (output, input)."""

    def grams(self, theta: Array) -> np.ndarray:
        """Gram matrices (2, n, n) of df/da and df/dw; mobilities are not included."""

    def activity(self, theta: Array) -> tuple[int, int]:
        """How many neurons are active (w_k . x_i > 0) on every sample, and on none."""
