"""The passes over a network that steppers ask for, counted; states are opaque to them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from flowsim.kernels.cpu.samples import half_mean_square
from flowsim.kernels.interface import Array, FlowKernels
from flowsim.networks.risk import Risk
from flowsim.networks.tangent_kernel import TangentKernel, largest_rate_of


class FlowPasses(Risk):
    """What a stepper may do with a network, see `flowsim.steppers.base.Flow`.

    Parameters
    ----------
    kernels : FlowKernels
        Bound to the network's vector field.
    y, loss
        See `flowsim.networks.risk.Risk`.
    mobilities : (layers,) array
        Of the layers, in the flow's order.
    whole : int
        What the kernels call all copies of the network.

    Attributes
    ----------
    n_rhs, n_passes : int
        Residuals with gradient, and sweeps over the neurons, so far.
    n_grams : int
        Tangent kernels so far: passes too, and n^2 work besides.
    turns, begins_errors, most_retraced
        See `flowsim.kernels.interface.FlowKernels`.
    """

    has_blocks = False
    """Whether `neuron_blocks` gives any."""
    kernels: Any
    _order: ClassVar[slice] = slice(None)
    """From the kernels' order of the layers to the flow's."""

    def __init__(
        self, kernels: FlowKernels, y: np.ndarray, loss: str, mobilities: np.ndarray, whole: int
    ) -> None:
        super().__init__(y, loss)
        self.kernels = kernels
        self.turns = kernels.turns
        self.begins_errors = kernels.begins_errors
        self.most_retraced = kernels.most_retraced
        self.n_rhs = 0
        self.n_passes = 0
        self.n_grams = 0
        self._mobilities, self._whole = mobilities, whole
        self._unit = float(np.finfo(kernels.dtype).eps)

    def rounding(self, residual: np.ndarray) -> float:
        """One rounding error of the outputs at e = ``residual``, root mean square."""
        outputs = (residual + self.y).reshape(-1)
        return self._unit * math.sqrt(2.0 * half_mean_square(outputs))

    def empty(self, n: int | None = None) -> Array:
        """One state, or a stack of ``n``, uninitialised."""
        return self.kernels.empty(n)

    def state(self, values: np.ndarray) -> Array:
        """A state with these values, in the layout of a dense one."""
        return self.kernels.array(values)

    def host(self, theta: Array) -> np.ndarray:
        """The numbers of a state as an array of NumPy, read only."""
        return self.kernels.host(theta)

    def residual(self, theta: Array) -> np.ndarray:
        """e (n,) at ``theta``."""
        self.n_passes += 1
        return self.kernels.outputs(theta) - self.y

    def rate(self, theta: Array, residual: np.ndarray, out: Array) -> None:
        """Write d theta / dtau into ``out``."""
        self.n_rhs += 1
        self.n_passes += 1
        self.kernels.rate(theta, self.gradient(residual), out)

    def combine(
        self, base: Array, slopes: Array, weights: np.ndarray, step: float, out: Array | None
    ) -> np.ndarray:
        """Write base + step sum_j weights[j] slopes[j] into ``out``, if given; return e there."""
        self.n_passes += 1
        return self.kernels.combine(base, slopes, weights, step, out) - self.y

    def advance(
        self,
        theta: Array | None,
        residual: np.ndarray,
        base: Array,
        slopes: Array | None,
        weights: np.ndarray,
        step: float,
        out: Array | None,
        slope: Array | None = None,
        here: np.ndarray | None = None,
        error: tuple[np.ndarray, Array] | None = None,
    ) -> np.ndarray:
        """Rate at ``theta``, combine, residual: one fused pass.

        The last of ``weights`` is for the rate at ``theta``, which is kept in ``slope`` if given.
        With ``here`` the rate is taken at base + step sum_j here[j] slopes[j] instead. With
        ``error``, where the flow `begins_errors`, the sum that its weights make of the same slopes
        goes into its state.
        Returns e (n,) at the new state, which is kept in ``out`` if given.
        """
        gradient = self.gradient(residual)
        return self.push(theta, gradient, base, slopes, weights, step, out, slope, here, error)

    def push(
        self,
        theta: Array | None,
        gradient: np.ndarray,
        base: Array,
        slopes: Array | None,
        weights: np.ndarray,
        step: float,
        out: Array | None,
        slope: Array | None = None,
        here: np.ndarray | None = None,
        error: tuple[np.ndarray, Array] | None = None,
    ) -> np.ndarray:
        """`advance` with -M Phi g / n at ``theta`` in the place of the rate, g = ``gradient``.

        n dR/df makes it the rate; filtered by the tangent kernel, a linearly implicit one.
        """
        self.n_rhs += 1
        self.n_passes += 1
        if slopes is None:
            slopes = self.kernels.empty(0)
        f = self.kernels.advance(
            theta, gradient, base, slopes, weights, step, out, slope, here, *(error or ())
        )
        return f - self.y

    def rate_and_errors(
        self, theta: Array, residual: np.ndarray, slopes: Array, weights: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rate at ``theta`` into the last slope; errors step sum_j weights[., j] slopes[j].

        Returns e at theta minus each error (e, n), and the norms of each layer (e + 1, layers) of
        the errors and, last, of theta. One pass.
        """
        self.n_rhs += 1
        self.n_passes += 1
        gradient = self.gradient(residual)
        f, squares = self.kernels.rate_and_errors(theta, gradient, slopes, weights, step)
        return f - self.y, np.sqrt(squares[:, self._order])

    def end_error(
        self,
        theta: Array,
        residual: np.ndarray,
        slope: Array,
        weight: float,
        step: float,
        begun: Array,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rate at ``theta`` into ``slope``; the error begun + step weight slope.

        ``begun`` is what `advance` made of the other slopes. Returns e at theta minus the error
        (n,), and the norms of each layer (2, layers) of the error and of theta. One pass.
        """
        self.n_rhs += 1
        self.n_passes += 1
        gradient = self.gradient(residual)
        f, squares = self.kernels.end_error(theta, gradient, slope, weight, step, begun)
        return f - self.y, np.sqrt(squares[:, self._order])

    def retrace(
        self,
        base: Array,
        gradients: np.ndarray,
        rows: np.ndarray,
        step: float,
        out: Array | None,
    ) -> np.ndarray:
        """All slopes of a step made again for n dR/df = ``gradients`` (k, n): one pass.

        See `flowsim.kernels.interface.FlowKernels.retrace`. Returns e (n,) at the last state.
        """
        self.n_rhs += 1
        self.n_passes += 1
        return self.kernels.retrace(base, gradients, rows, step, out) - self.y

    def retrace_errors(
        self,
        base: Array,
        gradients: np.ndarray,
        rows: np.ndarray,
        weights: np.ndarray,
        step: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `rate_and_errors` returns, of a step that was retraced. One pass."""
        self.n_rhs += 1
        self.n_passes += 1
        f, squares = self.kernels.retrace_errors(base, gradients, rows, weights, step)
        return f - self.y, np.sqrt(squares[:, self._order])

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
        """Stage of a low-storage method, in place: one fused pass.

        See `flowsim.kernels.interface.FlowKernels.advance_registers`. Returns e (n,) at the new
        ``theta``.
        """
        self.n_rhs += 1
        self.n_passes += 1
        gradient = self.gradient(residual)
        f = self.kernels.advance_registers(theta, gradient, memory, base, error, factors, fresh)
        return f - self.y

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
        """Stage of a stabilised method into ``out``: one fused pass.

        See `flowsim.kernels.interface.FlowKernels.advance_recurrence`. Returns e (n,) at ``out``.
        """
        self.n_rhs += 1
        self.n_passes += 1
        gradient = self.gradient(residual)
        f = self.kernels.advance_recurrence(theta, gradient, previous, base, first, factors, out)
        return f - self.y

    # Products with Phi = (df/dtheta)^T, one interface for all depths: what linearly implicit and
    # exponential methods are made of besides K = Phi^T M Phi.

    def jvp(self, theta: Array, direction: Array) -> np.ndarray:
        """Phi^T w (n,): the derivative of e at ``theta`` along the slope w = ``direction``."""
        self.n_passes += 1
        return self.kernels.jvp(theta, direction)

    def vjp(self, theta: Array, cotangent: np.ndarray, out: Array, mobilities: bool = True) -> None:
        """Write M Phi v, or without ``mobilities`` Phi v, into the slope ``out``.

        v = ``cotangent`` is shaped like e; the rate is this for v = -e/n.
        """
        self.n_passes += 1
        self.kernels.vjp(theta, cotangent, out, mobilities)

    def kernel_times(self, theta: Array, cotangent: np.ndarray, work: Array) -> np.ndarray:
        """K v = Phi^T M Phi v for v = ``cotangent``; ``work`` is a slope to write over."""
        self.vjp(theta, cotangent, work)
        return self.jvp(theta, work)

    def largest_rate(self, theta: Array) -> float:
        """lambda_max(K/n) to a relative 1e-3 without K: some ten times two passes.

        `tangent_kernel` takes O(n^2) multiplications a neuron and as much memory. For two layers
        and many samples this is faster (ReLU, d = 3, m = 20,000, n = 2,000: 0.3 s instead of 11);
        for deep networks, and for n of some hundred, it is not.
        """
        work = self.empty(1)[0]
        shape = self.y.shape

        def times(v: np.ndarray) -> np.ndarray:
            return self.kernel_times(theta, v.reshape(shape), work).reshape(-1)

        return largest_rate_of(times, self.n_samples, self.n_outputs)

    def tangent_kernel(self, theta: Array) -> TangentKernel:
        """K at ``theta``; the layers in the order of `layers`."""
        self.n_passes += 1
        self.n_grams += 1
        return self.make_kernel(np.ascontiguousarray(self.kernels.grams(theta)[self._order]))

    def neuron_blocks(self) -> Any:
        """A `flowsim.networks.neuron_blocks.FlowBlocks`; None where no neuron is by itself."""
        return None

    def kinks(self) -> Any:
        """A `flowsim.networks.kinks.FlowKinks`, of networks whose neurons have kinks of their own.

        Raises
        ------
        ValueError
            If there is no such thing.
        """
        raise ValueError("kinks are those of single neurons in two-layer networks only")

    def make_kernel(self, grams: np.ndarray) -> TangentKernel:
        """K from the Gram matrices of its layers, in the order of `layers`."""
        return TangentKernel(grams, self._mobilities, self.n_outputs)

    def layer_norms(self, theta: Array) -> np.ndarray:
        """Norms of the layers' weights (layers,), all copies."""
        return np.sqrt(self.kernels.squared_norms(theta, None, self._whole)[self._order])

    def combination_norms(self, slopes: Array, weights: np.ndarray, step: float) -> np.ndarray:
        """Norms of step sum_j weights[j] slopes[j] of each layer (layers,)."""
        return np.sqrt(self.kernels.squared_combination(slopes, weights * step)[self._order])

    def accumulate(self, velocity: Array, factor: float, rate: Array) -> Array:
        """factor times a stack of one velocity plus a rate, as a new stack of one; dense rates."""
        new = self.kernels.empty(1)
        np.multiply(velocity, factor, out=new)
        new[0] += rate
        return new

    def settle(self, theta: Array) -> None:
        """Get ready for a step from ``theta``: the states of the step before may become void."""

    def pack(self, rate: Array) -> np.ndarray | None:
        """What to remember of a rate that cannot be had again to the same bits; None if it can."""
        return None

    def unpack(self, packed: np.ndarray, theta: Array, rate: Array) -> None:
        """Make ``rate`` what was packed, the rate at ``theta``."""
