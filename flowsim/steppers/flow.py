"""What a stepper may ask of a network: a *flow*, whose states are opaque to it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

State = Any
"""A state of the flow; opaque to steppers."""


class Kernel(Protocol):
    """What a stepper asks of a tangent kernel."""

    @property
    def grams(self) -> np.ndarray:
        """All that it is made of, for `Flow.make_kernel`."""

    @property
    def matrix(self) -> np.ndarray:
        """K (n o, n o), o outputs a sample."""

    @property
    def largest_rate(self) -> float:
        """lambda_max(K/n), in 1/tau."""

    def rate_bound(self, curvature: np.ndarray | None) -> float:
        """The same with a diagonal bound of the loss's Hessian by the outputs."""

    def layer_speeds(self, gradient: np.ndarray) -> np.ndarray:
        """Norms of d theta_l / dtau of each layer, for the gradient of R by the outputs."""


class NeuronBlocks(Protocol):
    """A = I - s D, D the derivative of the rate by the weights at fixed n dR/df: a block a neuron.

    Where a neuron's block of A is not safely positive definite, D counts as 0.
    """

    states: float
    """Copies of the state that they take up."""
    takes_steps: bool
    """Whether `take` is there: for the square loss, where calling takes longer than passing."""

    def prepare(self, theta: State, gradient: np.ndarray, size: float) -> np.ndarray:
        """Factorise A at theta for s = ``size``; return Phi^T A^(-1) M Phi (n, n). One pass.

        All that follows is at this theta, which must stay as it is.
        """

    def rate(
        self, theta: State, at: State, residual: np.ndarray, slopes: State, weights: np.ndarray
    ) -> np.ndarray:
        """Write w = A^(-1) (rate at ``at`` + sum_j weights[j] slopes[j]) into the next slope.

        That is ``slopes[len(weights)]``; ``at`` is the state that `advance` has written last, and
        ``residual`` e there. Returns Phi^T w (n,). One pass.
        """

    def advance(
        self,
        theta: State,
        cotangent: np.ndarray,
        slopes: State,
        weights: np.ndarray,
        step: float,
        out: State,
        fresh: bool = False,
    ) -> np.ndarray:
        """Take A^(-1) M Phi v, v = ``cotangent``, from the last slope that weights are given for.

        With ``fresh`` from 0: that slope, ``slopes[len(weights) - 1]``, is written, not read. Then
        write theta + step sum_j weights[j] slopes[j] into ``out``; return e (n,) there. One pass.
        """

    def take(
        self,
        theta: State,
        residual: np.ndarray,
        slopes: State,
        rows: np.ndarray,
        mixing: np.ndarray,
        size: float,
        step: float,
        work: State,
        out: State,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take a whole step: see `flowsim.kernels.block_interface.NeuronBlocks.take`.

        Returns e (n,) at ``out`` and the stages' images (s, n). Raises LinAlgError if the n x n
        system is not positive definite.
        """


class Flow(Protocol):
    """What a stepper may ask of a network: e.g. `flowsim.networks.two_layer.TwoLayerFlow`."""

    n_rhs: int
    n_passes: int
    kinked: bool
    initial: State
    turns: bool
    """Whether a stack of slopes may be given backwards, as ``slopes[::-1]``."""
    begins_errors: bool
    """Whether `advance` takes ``error``, and there is an `end_error`."""
    most_retraced: int
    """Slopes that `retrace` makes again in less time than it takes to read them."""
    dtype: np.dtype
    """Of the states."""
    has_blocks: bool
    """Whether `neuron_blocks` gives any."""
    dense_rates: bool
    """Whether slopes are states, so that a state's place may hold a rate."""

    @property
    def first_step(self) -> Any:
        """The first step of schemes in which it has learning rates of its own; else None."""

    @property
    def n_samples(self) -> int:
        """n."""

    def loss(self, residual: np.ndarray) -> float:
        """R at e; infinity if it is not a number."""

    def gradient(self, residual: np.ndarray) -> np.ndarray:
        """n dR/df at e."""

    def curvature(self, residual: np.ndarray) -> np.ndarray | None:
        """Diagonal bound of the loss's Hessian by the outputs near e; None where it is 1."""

    def residual_size(self, residual: np.ndarray) -> float:
        """Size of e that its errors are relative to."""

    def rounding(self, residual: np.ndarray) -> float:
        """What rounding leaves unsure of e, root mean square."""

    def empty(self, n: int | None = None) -> State:
        """One state, or a stack of n slopes, uninitialised."""

    def state(self, values: np.ndarray) -> State:
        """A state with these values."""

    def host(self, theta: State) -> np.ndarray:
        """Its values, read only."""

    def settle(self, theta: State) -> None:
        """Get ready for a step from theta: the states of the step before may become void."""

    def pack(self, rate: State) -> np.ndarray | None:
        """What to remember of a rate that cannot be had again to the same bits; None if it can."""

    def unpack(self, packed: np.ndarray, theta: State, rate: State) -> None:
        """Make ``rate`` what was packed, the rate at theta."""

    def residual(self, theta: State) -> np.ndarray:
        """e (n,), one pass."""

    def rate(self, theta: State, residual: np.ndarray, out: State) -> None:
        """d theta / dtau, one pass."""

    def jvp(self, theta: State, direction: State) -> np.ndarray:
        """Derivative of e (n,) at ``theta`` along a slope."""

    def vjp(self, theta: State, cotangent: np.ndarray, out: State, mobilities: bool = True) -> None:
        """Gradient of cotangent . e, layer by layer times the mobilities, into a slope."""

    def combine(
        self, base: State, slopes: State, weights: np.ndarray, step: float, out: State | None
    ) -> np.ndarray:
        """base + step sum_j weights[j] slopes[j] into out, if given; e there. One pass."""

    def advance(
        self,
        theta: State | None,
        residual: np.ndarray,
        base: State,
        slopes: State | None,
        weights: np.ndarray,
        step: float,
        out: State | None,
        slope: State | None = None,
        here: np.ndarray | None = None,
        error: tuple[np.ndarray, State] | None = None,
    ) -> np.ndarray:
        """Rate at theta, combine, e there, in one pass.

        With ``here`` the rate is taken at base + step sum_j here[j] slopes[j] instead. ``error``:
        the same sum with these weights, without base, into this state.
        """

    def push(
        self,
        theta: State | None,
        gradient: np.ndarray,
        base: State,
        slopes: State | None,
        weights: np.ndarray,
        step: float,
        out: State | None,
        slope: State | None = None,
        here: np.ndarray | None = None,
    ) -> np.ndarray:
        """`advance` with -M Phi g / n at theta in the place of the rate, g (n,) being given."""

    def rate_and_errors(
        self, theta: State, residual: np.ndarray, slopes: State, weights: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rate at theta into the last slope, then what the errors ``weights`` (e, s) say.

        Returns e at theta minus each error (e, n), and norms of each layer (e + 1, layers): of the
        errors and, last, of theta. One pass.
        """

    def end_error(
        self,
        theta: State,
        residual: np.ndarray,
        slope: State,
        weight: float,
        step: float,
        begun: State,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rate at theta into ``slope``; the error is begun + step weight slope.

        Returns e at theta minus the error (n,), and norms of each layer (2, layers): of the error
        and of theta. One pass.
        """

    def retrace(
        self,
        base: State,
        gradients: np.ndarray,
        rows: np.ndarray,
        step: float,
        out: State | None,
    ) -> np.ndarray:
        """All slopes of a step made again for their ``gradients`` (k, n), rows (k, k) combined.

        The state after slope j is base + step sum_(l <= j) rows[j, l] slopes[l]; the last goes to
        ``out``, if given. Returns e there. One pass.
        """

    def retrace_errors(
        self,
        base: State,
        gradients: np.ndarray,
        rows: np.ndarray,
        weights: np.ndarray,
        step: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`rate_and_errors` of such a step; rows (k - 1, k - 1), weights (e, k). One pass."""

    def advance_registers(
        self,
        theta: State,
        residual: np.ndarray,
        memory: State,
        base: State,
        error: State,
        factors: np.ndarray,
        fresh: bool = False,
    ) -> np.ndarray:
        """Stage of a low-storage method in place, e at the new theta, in one pass."""

    def advance_recurrence(
        self,
        theta: State,
        residual: np.ndarray,
        previous: State,
        base: State,
        first: State,
        factors: np.ndarray,
        out: State,
    ) -> np.ndarray:
        """Stage of a three-term recurrence into ``out``, e there, in one pass."""

    def largest_rate(self, theta: State) -> float:
        """lambda_max(K/n) by a few products with K, where K itself is too large."""

    def tangent_kernel(self, theta: State) -> Kernel:
        """K."""

    def neuron_blocks(self) -> NeuronBlocks | None:
        """Room for each neuron's own block of the Jacobian; None where it is not known or large."""

    def kinks(self) -> Any:
        """What moves neurons kink by kink, `flowsim.networks.kinks.FlowKinks`."""

    def make_kernel(self, grams: np.ndarray) -> Kernel:
        """K from its parts, as `Kernel.grams` has them."""

    def layer_norms(self, theta: State) -> np.ndarray:
        """Norm of each layer's weights."""

    def batch(self, rows: np.ndarray) -> Flow:
        """The same network, with the same states, on some of the samples."""

    def accumulate(self, velocity: State, factor: float, rate: State) -> State:
        """factor times a stack of one velocity plus a rate, as a new stack of one; dense rates."""

    def combination_norms(self, slopes: State, weights: np.ndarray, step: float) -> np.ndarray:
        """Norm of step sum_j weights[j] slopes[j] in each layer."""
