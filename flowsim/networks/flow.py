"""A network bound to its data and a backend: what steppers and recorders work with.

All that is said here holds for networks of any depth. What a network adds is its vector field, the
kernels that pass over it, and the names of its layers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np

from flowsim.kernels.cpu.samples import half_mean_square
from flowsim.kernels.interface import Array, FlowKernels
from flowsim.kernels.losses import SQUARE
from flowsim.networks.layer_measures import effective_ranks, mean_cosines
from flowsim.networks.network import Network
from flowsim.networks.risk import Risk
from flowsim.networks.tangent_kernel import TangentKernel, largest_rate_of


class NetworkFlow(Risk, ABC):
    """The flow of a network on its data, on one backend.

    Parameters
    ----------
    kernels : FlowKernels
        Bound to the network's vector field.
    y : (n,) or (n, o) array
        Targets; with o > 1 outputs all that is said to be (n,) is (n, o).
    initial : state
        In the kernels' layout.
    mobilities : (layers,) array
        Of the layers, in the order of `layers`.
    one, whole : int
        What the kernels call the first copy of the network, and all copies.
    kinked : bool
        Whether sigma' jumps.
    loss : str
        A key of `flowsim.kernels.losses.LOSSES`.
    backend, dtype, threads, passes
        How the kernels were made.

    Attributes
    ----------
    layers : tuple of str
        Groups of weights that steppers look at one by one.
    parameter_dims : dict of str to tuple of str
        Parameter arrays with the names of their axes, as in files.
    n_rhs, n_passes : int
        Residuals with gradient, and sweeps over the neurons, so far.
    n_grams : int
        Tangent kernels so far: passes too, and n^2 work besides.
    turns : bool
        See `flowsim.kernels.interface.FlowKernels`.
    """

    network: Network
    field: Any
    layers: tuple[str, ...]
    parameter_dims: dict[str, tuple[str, ...]]
    first_step: Any = None
    """The first step of schemes in which it has learning rates of its own; else None."""
    _order: ClassVar[slice] = slice(None)
    """From the kernels' order of the layers to that of `layers`."""

    def __init__(
        self,
        kernels: FlowKernels,
        y: np.ndarray,
        initial: Array,
        mobilities: np.ndarray,
        one: int,
        whole: int,
        *,
        kinked: bool,
        loss: str = SQUARE,
        backend: str,
        dtype: str | np.dtype,
        threads: int,
        passes: str,
    ) -> None:
        super().__init__(y, loss)
        self.kernels = kernels
        self.initial = initial
        self.kinked = kinked
        self.turns = kernels.turns
        self.backend, self.dtype, self.threads, self.passes = (
            backend, np.dtype(dtype), threads, passes
        )  # fmt: skip
        self._unit = float(np.finfo(self.dtype).eps)
        self.dense_rates = passes != "factored"
        self.n_rhs = 0
        self.n_passes = 0
        self.n_grams = 0
        self._mobilities = mobilities
        self._one, self._whole = one, whole

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of weights that relative changes are given for: the layers, and all of them."""
        return (*self.layers, "all")

    # What steppers use: states and slopes are opaque to them.

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
    ) -> np.ndarray:
        """Rate at ``theta``, combine, residual: one fused pass.

        The last of ``weights`` is for the rate at ``theta``, which is kept in ``slope`` if given.
        With ``here`` the rate is taken at base + step sum_j here[j] slopes[j] instead.
        Returns e (n,) at the new state, which is kept in ``out`` if given.
        """
        gradient = self.gradient(residual)
        return self.push(theta, gradient, base, slopes, weights, step, out, slope, here)

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
    ) -> np.ndarray:
        """`advance` with -M Phi g / n at ``theta`` in the place of the rate, g = ``gradient``.

        n dR/df makes it the rate; filtered by the tangent kernel, a linearly implicit one.
        """
        self.n_rhs += 1
        self.n_passes += 1
        if slopes is None:
            slopes = self.kernels.empty(0)
        f = self.kernels.advance(theta, gradient, base, slopes, weights, step, out, slope, here)
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

    def batch(self, rows: np.ndarray) -> Self:
        """The same network, with the same states, on the samples ``rows`` (k,)."""
        return self.on(self.field.x[rows], self.y[rows])

    def settle(self, theta: Array) -> None:
        """Get ready for a step from ``theta``: the states of the step before may become void."""

    def pack(self, rate: Array) -> np.ndarray | None:
        """What to remember of a rate that cannot be had again to the same bits; None if it can."""
        return None

    def unpack(self, packed: np.ndarray, theta: Array, rate: Array) -> None:
        """Make ``rate`` what was packed, the rate at ``theta``."""

    # What recorders use.

    @cached_property
    def _initial_norms(self) -> np.ndarray:
        return self._squared(self.initial, None)

    def _squared(self, theta: Array, reference: Array | None) -> np.ndarray:
        """Squared norms of the `groups` on the first copy."""
        squares = self.kernels.squared_norms(theta, reference, self._one)[self._order]
        return np.append(squares, np.sum(squares))

    def relative_change(self, theta: Array) -> np.ndarray:
        """RD of the `groups` on the first copy; 0/0 counts as 0.

        ``all`` is taken in the variables of the state, where all weights weigh alike if they are
        normalised.
        """
        change = np.sqrt(self._squared(theta, self.initial))
        initial = np.sqrt(self._initial_norms)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(change == 0.0, 0.0, change / initial)

    def norms(self, theta: Array) -> np.ndarray:
        """Norms of the `groups` of weights on the first copy."""
        return np.sqrt(self._squared(theta, None))

    @abstractmethod
    def layer_weights(self, theta: Array) -> list[np.ndarray]:
        """Weights (fan_in, fan_out) of the `layers`, first copy, read only; without biases."""

    def effective_ranks(self, theta: Array) -> np.ndarray:
        """Effective ranks of the `groups`; for ``all`` of the block-diagonal matrix of all layers.

        See `flowsim.networks.layer_measures` for what it is and what it costs.
        """
        return effective_ranks(self.layer_weights(theta))

    def mean_cosines(self, theta: Array, power: int) -> np.ndarray:
        """Means of cosines between neurons of each hidden layer, weighted with amplitudes.

        A neuron's amplitude is the norm of its input weights times that of its output weights. See
        `flowsim.networks.layer_measures.mean_cosines`.
        """
        pairs = pairwise(self.layer_weights(theta))
        return np.array([mean_cosines(inwards, outwards, power) for inwards, outwards in pairs])

    @cached_property
    def initial_kernel(self) -> TangentKernel:
        """K at t = 0."""
        return self.tangent_kernel(self.initial)

    @abstractmethod
    def parameters(self, theta: Array) -> dict[str, np.ndarray]:
        """The parameter arrays of a state by name, as views where the backend allows."""

    def on(self, x: np.ndarray, y: np.ndarray) -> Self:
        """The same network, in the same state layout, on other data x (k, d), y (k,)."""
        make: Any = type(self)  # flows are made of a network and data, not of kernels
        flow: Self = make(
            self.network,
            x,
            y,
            initial=self.initial,
            loss=self.loss_function.name,
            backend=self.backend,
            dtype=self.dtype,
            threads=self.threads,
            passes=self.passes,
        )
        return flow
