"""The interface that every backend fulfils, for every kind of network.

A backend binds the inputs, the activation and the factors of the vector field once and then
offers passes over the neurons. The state of a two-layer network is one C-contiguous array
(1 + d, neurons), row 0 the output weights and the others the input weights, neurons last; that of
a deep one is described with `DeepField`. A *slope* is a rate d theta / d time. Everything of size
n (outputs f, residual) is float64 whatever the dtype of the state. What passes call the residual
is n dR/df of any loss, e = f - y for the square one; both are (n,), or (n, o) with o > 1 outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from flowsim.kernels.activations import Activation
from flowsim.kernels.block_interface import NeuronBlocks as NeuronBlocks

if TYPE_CHECKING:
    from flowsim.kernels.kink_interface import Kinks

Array = Any
"""An array of the backend: NumPy's on the CPU."""

LEAST_PIVOT = 0.5
"""Of a neuron's symmetric block in `NeuronBlocks`, under which it counts as straight: 0 is a pole
of the step, and what grows along a neuron by itself needs no implicit step. With 0.1 errors near
the pole rejected every fifth step of ``tail`` (`benchmarks`) at rtol 1e-2: 40 % more passes."""


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


@dataclass(frozen=True)
class DeepField:
    """Everything that defines the function of a network with L hidden layers and its flow.

    With A_0 = x and z_l = multipliers[l] A_(l-1) W_l + bias_multipliers[l] b_l, A_l = sigma(z_l),
    f = z_(L+1) summed over the copies; layers are numbered from 0 (input) to L (output) in code.

    Attributes
    ----------
    x : (n, d) float64 array
        Inputs, bias coordinate included.
    activation : Activation
    widths : tuple of int
        m_1, ..., m_L.
    multipliers, mobilities : (L + 1,) float64 arrays
        d theta_l / d time = -mobilities[l] dR/dtheta_l, for weights and biases alike; 0 freezes a
        layer.
    bias_multipliers : (L + 1,) float64 array or None
        None for a network without biases besides those in ``x``; the first is not used.
    copies : int
        Networks whose outputs are summed: 2 for antisymmetric initial values.
    n_outputs : int
        o.
    """

    x: np.ndarray
    activation: Activation
    widths: tuple[int, ...]
    multipliers: np.ndarray
    mobilities: np.ndarray
    bias_multipliers: np.ndarray | None = None
    copies: int = 1
    n_outputs: int = 1

    @property
    def layout(self) -> DeepLayout:
        """Where the layers are in a state."""
        sizes = (self.x.shape[1], *self.widths, self.n_outputs)
        return DeepLayout(sizes, self.bias_multipliers is not None)


@dataclass(frozen=True)
class DeepLayout:
    """The state of a deep network: one row of parameters a copy, layer after layer.

    A layer is its weights (fan_in, fan_out) in C order and then its biases (fan_out,), if it has
    any; the input layer has its biases among the inputs.

    Parameters
    ----------
    sizes : tuple of int
        d, m_1, ..., m_L, o.
    biases : bool
    """

    sizes: tuple[int, ...]
    biases: bool

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """Where each layer begins, and where the last one ends."""
        ends = [0]
        for layer, (rows, columns) in enumerate(pairwise(self.sizes)):
            biases = columns if self.biases and layer > 0 else 0
            ends.append(ends[-1] + rows * columns + biases)
        return tuple(ends)

    @property
    def length(self) -> int:
        """Parameters of one copy."""
        return self.bounds[-1]

    def weights(self, row: np.ndarray, layer: int) -> np.ndarray:
        """Weights (fan_in, fan_out) of a layer in a row of a state, a view."""
        rows, columns = self.sizes[layer : layer + 2]
        first = self.bounds[layer]
        return row[first : first + rows * columns].reshape(rows, columns)

    def bias(self, row: np.ndarray, layer: int) -> np.ndarray | None:
        """Biases (fan_out,) of a layer, a view; None if it has none."""
        if not (self.biases and layer > 0):
            return None
        last = self.bounds[layer + 1]
        return row[last - self.sizes[layer + 1] : last]


class FlowKernels(Protocol):
    """Passes over the neurons of a network on one backend: what the flow of any network needs.

    A backend may keep what it has found of a state until a pass writes to that: between the outputs
    of a state and its rate nothing else may.
    """

    n_samples: int
    dtype: np.dtype
    turns: bool
    """Whether a stack of slopes may be given backwards, as ``slopes[::-1]``."""
    begins_errors: bool
    """Whether `advance` takes ``other``, and there is an `end_error`."""
    most_retraced: int
    """Slopes that `retrace` makes again in less time than it takes to read them; 0 for none."""

    def array(self, values: np.ndarray) -> Array:
        """Copy a state to the backend in its dtype."""

    def host(self, theta: Array) -> np.ndarray:
        """The numbers of a state as an array of NumPy, which may be the state itself: read only."""

    def empty(self, n: int | None = None) -> Array:
        """One state, or a stack of ``n`` slopes, uninitialised."""

    def outputs(self, theta: Array) -> np.ndarray:
        """f (n,) at ``theta``. One pass."""

    def rate(self, theta: Array, residual: np.ndarray, out: Array) -> None:
        """Write d theta / d time for ``residual`` into ``out``. One pass.

        It is `vjp` with the mobilities for the cotangent -residual / n.
        """

    def vjp(self, theta: Array, cotangent: np.ndarray, out: Array, mobilities: bool = True) -> None:
        """Write Phi v for v = ``cotangent`` (shaped like f) into the slope ``out``. One pass.

        Phi = (df/dtheta)^T at ``theta``, with sigma'(0) = 0 for ReLU. With ``mobilities`` each
        layer is multiplied by its own, M Phi v; then K v = Phi^T M Phi v.
        """

    def jvp(self, theta: Array, direction: Array) -> np.ndarray:
        """Phi^T w (shaped like f): the derivative of f along the slope w = ``direction``.

        One pass; deep networks read no weights again after a `vjp` or a `rate` at ``theta``.
        """

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
        others: np.ndarray | None = None,
        other: Array | None = None,
    ) -> np.ndarray:
        """Rate at ``theta``, then combine, then outputs, in one pass.

        ``weights`` has one entry more than the slopes used: its last one is for the velocity at
        ``theta``, which is kept in ``slope`` if that is given. ``out`` may be ``theta`` or one of
        the slopes; without ``out`` the new state is kept nowhere. With ``here`` the rate is taken
        at base + step sum_j here[j] slopes[j] in the place of ``theta``, which is not read: a
        stage that can be made again from slopes that are read anyway need not be stored.
        With ``other``, if the backend `begins_errors`, a second sum over the same slopes, without
        the base, goes there: step sum_j others[j] slopes[j], the last for the velocity.
        Returns f (n,) at the new state.
        """

    def rate_and_errors(
        self, theta: Array, residual: np.ndarray, slopes: Array, weights: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """End of a step of an embedded method, in one pass.

        Writes d theta / d time into the last of the ``slopes``. The errors of the e embedded
        solutions are then step sum_j weights[., j] slopes[j], for ``weights`` (e, stages).
        Returns f at theta minus each error (e, n), and the sums of squares of each layer over all
        copies of the network, of the errors and, last, of ``theta`` (e + 1, layers).
        """

    def end_error(
        self,
        theta: Array,
        residual: np.ndarray,
        slope: Array,
        weight: float,
        step: float,
        begun: Array,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`rate_and_errors` where the pass before has begun the sum of the only error.

        Writes d theta / d time into ``slope``; the error is begun + step weight slope, and what is
        returned has one row less: f (n,), and squares (2, layers) of the error and of ``theta``.
        """

    def retrace(
        self,
        base: Array,
        residuals: np.ndarray,
        rows: np.ndarray,
        step: float,
        out: Array | None,
    ) -> np.ndarray:
        """Make all slopes of a step again from the state it began at, and combine, in one pass.

        The state after slope j is base + step sum_(l <= j) rows[j, l] slopes[l], and slopes[j] the
        velocity at the state before it for ``residuals[j]``, the first at ``base``; no slope is
        read or kept. The last of these states goes to ``out``, if given. For the k residuals
        (k, n) and rows (k, k). Returns f (n,) there.
        """

    def retrace_errors(
        self,
        base: Array,
        residuals: np.ndarray,
        rows: np.ndarray,
        weights: np.ndarray,
        step: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`rate_and_errors` of a step that was retraced: rows (k - 1, k - 1), weights (e, k)."""

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

    def advance_recurrence(
        self,
        theta: Array,
        residual: np.ndarray,
        previous: Array,
        base: Array,
        first: Array,
        factors: np.ndarray,
        out: Array,
    ) -> np.ndarray:
        """Take a stage of a three-term recurrence, as stabilised methods are made of, in one pass.

        With k the velocity at ``theta`` for ``residual`` and ``first`` a slope::

            out = base + mu (theta - base) + nu (previous - base) + beta k + delta first

        ``out`` may be any of the others. Differences from the base stand here for the reason that
        `advance_registers` has: the factors of the states add up to one, and by rounding to
        something else.

        ``factors`` (4,) float64 are mu, nu, beta and delta (both with the step). Returns f (n,) at
        ``out``.
        """

    def squared_norms(self, theta: Array, reference: Array | None, first: int) -> np.ndarray:
        """Sums of (theta - reference)^2 of each layer (layers,).

        Over the ``first`` neurons of a two-layer network, or the first copies of a deep one.
        """

    def squared_combination(self, slopes: Array, weights: np.ndarray) -> np.ndarray:
        """Sums of (sum_j weights[j] slopes[j])^2 of each layer over all copies (layers,)."""

    def grams(self, theta: Array) -> np.ndarray:
        """Gram matrices (layers, n, n) of each layer's derivative of f, without mobilities.

        With o > 1 outputs (layers, n o, n o), in the order of ``f.reshape(-1)``.
        """


class DeepKernels(FlowKernels, Protocol):
    """Passes through the layers of a deep network on one backend; layers from the input on."""

    def weights(self, theta: Array, copy: int, layer: int) -> np.ndarray:
        """Weights (fan_in, fan_out) of a layer, read only."""


class TwoLayerKernels(FlowKernels, Protocol):
    """Passes over the neurons of a two-layer network on one backend.

    The layers are (output, input).
    """

    def kinks(self) -> Kinks:
        """Windows; ValueError if sigma is not piecewise linear, or the backend knows none."""

    has_blocks: bool
    """Whether there are `neuron_blocks`."""

    def neuron_blocks(self) -> NeuronBlocks:
        """Room for the blocks of all neurons, (2 + d) / 2 copies of the state."""

    def invariant_drift(self, initial: Array, theta: Array) -> float:
        """Largest change of a neuron's input_mobility a^2 - output_mobility |w|^2 between states.

        Relative to the sum of both terms, at ``initial`` or ``theta``, whichever is larger.
        """

    def activity(self, theta: Array) -> tuple[int, int]:
        """How many neurons are active (w_k . x_i > 0) on every sample, and on none."""
