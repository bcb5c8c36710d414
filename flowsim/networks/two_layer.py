"""Two-layer networks as particle systems: initial values, vector field, measures of the state.

f(x) = kappa sum_k a_k sigma(w_k . x), integrated in tau (DESIGN section 3):

    da_k/dtau = -(1/kappa') (1/n) sum_i e_i sigma(w_k . x_i)
    dw_k/dtau = -(kappa')   (1/n) sum_i e_i a_k sigma'(w_k . x_i) x_i
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import Activation
from flowsim.kernels.cpu import measures
from flowsim.kernels.cpu.samples import half_mean_square
from flowsim.kernels.interface import Array, TwoLayerField
from flowsim.networks.tangent_kernel import TangentKernel
from flowsim.scaling import Scaling

PARAMETERS = {"output_weights": ("neuron",), "input_weights": ("input", "neuron")}
"""Names and dimensions of the parameter arrays, as in files."""


@dataclass(frozen=True)
class TwoLayerNetwork:
    """What a two-layer network is, apart from its data.

    Parameters
    ----------
    scaling : Scaling
        Width and exponents.
    activation : Activation
    antisymmetric : bool
        Add a second copy of the m neurons with the same w and the opposite a: f = 0 at t = 0.
    seed : int
        Of the initial values: a (m,) is drawn first, then w (d, m), unit normal.
    mobility : mapping
        Extra factors ``input`` and ``output`` of the layers' mobilities; 0 freezes a layer.
    variables : {"normalised", "original"}
        In original variables the weights carry their standard deviations beta_1, beta_2 and the
        divisor alpha is explicit. Time is tau in both, so both give the same f(tau).
    """

    scaling: Scaling
    activation: Activation
    antisymmetric: bool = False
    seed: int = 0
    mobility: Mapping[str, float] = field(default_factory=dict)
    variables: str = "normalised"

    @property
    def width(self) -> int:
        """m, neurons of one copy."""
        return self.scaling.width

    @property
    def neurons(self) -> int:
        """Neurons in the state: 2 m with antisymmetric initial values, else m."""
        return self.width * (2 if self.antisymmetric else 1)

    def state_bytes(self, n_inputs: int, dtype: str | np.dtype) -> int:
        """Bytes of one copy of the state.

        Parameters
        ----------
        n_inputs : int
            d, the bias coordinate included.
        dtype : str or numpy.dtype
        """
        return self.neurons * (1 + n_inputs) * np.dtype(dtype).itemsize

    def in_original_variables(self) -> TwoLayerNetwork:
        """The same network with its weights in original variables."""
        return replace(self, variables="original")

    @property
    def standard_deviations(self) -> tuple[float, float]:
        """Standard deviations of a and w in the variables of the state."""
        if self.variables == "original":
            return self.scaling.beta1, self.scaling.beta2
        return 1.0, 1.0

    def initial_values(self, n_inputs: int) -> np.ndarray:
        """Draw the initial state (1 + n_inputs, neurons) in float64."""
        generator = np.random.default_rng(self.seed)
        a = generator.normal(size=self.width)
        w = generator.normal(size=(n_inputs, self.width))
        return self.stack(a, w, copy=self.antisymmetric)

    def stack(self, a: np.ndarray, w: np.ndarray, copy: bool = False) -> np.ndarray:
        """Lay normalised weights a (neurons,), w (d, neurons) out as a state.

        With ``copy`` the antisymmetric second copy is added.
        """
        output_std, input_std = self.standard_deviations
        m = a.shape[0]
        state = np.empty((1 + len(w), 2 * m if copy else m))
        state[0, :m], state[1:, :m] = output_std * a, input_std * w
        if copy:
            state[0, m:], state[1:, m:] = -state[0, :m], state[1:, :m]
        return state

    def field_on(self, x: np.ndarray) -> TwoLayerField:
        """The vector field of the state's variables, for inputs x (n, d), in time tau."""
        scaling = self.scaling
        output_factor = float(self.mobility.get("output", 1.0))
        input_factor = float(self.mobility.get("input", 1.0))
        if self.variables == "original":
            # d theta / dt = -grad R, and dt = alpha dtau.
            scale, multiplier = 1.0, 1.0 / scaling.alpha
            mobilities = scaling.alpha, scaling.alpha
        else:
            scale = 1.0 if self.activation.homogeneous else scaling.beta2
            multiplier = scaling.kappa
            mobilities = (
                1.0 / (scaling.kappa * scaling.kappa_prime),
                scaling.kappa_prime / scaling.kappa,
            )
        return TwoLayerField(
            x=np.ascontiguousarray(x, np.float64),
            activation=self.activation,
            activation_scale=scale,
            multiplier=multiplier,
            output_mobility=mobilities[0] * output_factor,
            input_mobility=mobilities[1] * input_factor,
        )


class TwoLayerFlow:
    """A two-layer network bound to data and a backend: what steppers and recorders work with.

    Parameters
    ----------
    network : TwoLayerNetwork
    x, y : (n, d), (n,) arrays
        Inputs (bias coordinate included) and targets.
    initial : (1 + d, neurons) array, optional
        Initial state; drawn from the seed if absent.
    backend, dtype, threads, passes
        See `flowsim.kernels.two_layer_kernels`.

    Attributes
    ----------
    n_rhs, n_passes : int
        Residuals with gradient, and sweeps over the neurons, so far.
    kinked : bool
        Whether sigma' jumps.
    turns : bool
        See `flowsim.kernels.interface.TwoLayerKernels`.
    """

    layers = ("input", "output")
    parameter_dims = PARAMETERS

    def __init__(
        self,
        network: TwoLayerNetwork,
        x: np.ndarray,
        y: np.ndarray,
        *,
        initial: np.ndarray | None = None,
        backend: str = "cpu",
        dtype: str | np.dtype = "float64",
        threads: int = 1,
        passes: str = "auto",
    ) -> None:
        self.network = network
        self.y = np.ascontiguousarray(y, np.float64)
        self.field = network.field_on(x)
        self.kernels = two_layer_kernels(
            backend, self.field, network.neurons, np.dtype(dtype), threads, passes
        )
        if initial is None:
            initial = network.initial_values(x.shape[1])
        self.initial = self.kernels.array(initial)
        self.backend = backend
        self.dtype = np.dtype(dtype)
        self.threads = threads
        self.passes = passes
        self.kinked = network.activation.kinked
        self.turns = self.kernels.turns
        self.n_rhs = 0
        self.n_passes = 0
        self._initial_norms = self._squared(self.initial, None)

    @property
    def n_samples(self) -> int:
        """n."""
        return len(self.y)

    # What steppers use: states and slopes are opaque to them.

    def empty(self, n: int | None = None) -> Array:
        """One state, or a stack of ``n``, uninitialised."""
        return self.kernels.empty(n)

    def residual(self, theta: Array) -> np.ndarray:
        """e (n,) at ``theta``."""
        self.n_passes += 1
        return self.kernels.outputs(theta) - self.y

    def rate(self, theta: Array, residual: np.ndarray, out: Array) -> None:
        """Write d theta / dtau into ``out``."""
        self.n_rhs += 1
        self.n_passes += 1
        self.kernels.rate(theta, residual, out)

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
        self.n_rhs += 1
        self.n_passes += 1
        if slopes is None:
            slopes = self.kernels.empty(0)
        f = self.kernels.advance(theta, residual, base, slopes, weights, step, out, slope, here)
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
        f, squares = self.kernels.rate_and_errors(theta, residual, slopes, weights, step)
        return f - self.y, np.sqrt(squares[:, ::-1])

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

        See `flowsim.kernels.interface.TwoLayerKernels.advance_registers`. Returns e (n,) at the
        new ``theta``.
        """
        self.n_rhs += 1
        self.n_passes += 1
        return (
            self.kernels.advance_registers(theta, residual, memory, base, error, factors, fresh)
            - self.y
        )

    def tangent_kernel(self, theta: Array) -> TangentKernel:
        """K at ``theta``; the layers in the order of `layers`."""
        self.n_passes += 1
        return self.make_kernel(np.ascontiguousarray(self.kernels.grams(theta)[::-1]))

    def make_kernel(self, grams: np.ndarray) -> TangentKernel:
        """K from the Gram matrices of its layers, in the order of `layers`."""
        mobilities = np.array([self.field.input_mobility, self.field.output_mobility])
        return TangentKernel(grams, mobilities)

    def layer_norms(self, theta: Array) -> np.ndarray:
        """Norms of the layers' weights (layers,), all copies."""
        return np.sqrt(self.kernels.squared_norms(theta, None, self.network.neurons)[::-1])

    def combination_norms(self, slopes: Array, weights: np.ndarray, step: float) -> np.ndarray:
        """Norms of step sum_j weights[j] slopes[j] of each layer (layers,)."""
        return np.sqrt(self.kernels.squared_combination(slopes, weights * step)[::-1])

    # What recorders use.

    @staticmethod
    def loss(residual: np.ndarray) -> float:
        """R = 1/(2n) sum e^2."""
        return half_mean_square(residual)

    def _squared(self, theta: Array, reference: Array | None) -> np.ndarray:
        """Squared norms of (input, output, all) on the first copy."""
        output, input_ = self.kernels.squared_norms(theta, reference, self.network.width)
        return np.array([input_, output, input_ + output])

    def relative_change(self, theta: Array) -> np.ndarray:
        """RD of (input, output, all) on the first copy; 0/0 counts as 0.

        ``all`` is taken in the variables of the state, where both layers weigh alike if they are
        normalised.
        """
        change = np.sqrt(self._squared(theta, self.initial))
        initial = np.sqrt(self._initial_norms)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(change == 0.0, 0.0, change / initial)

    def norms(self, theta: Array) -> np.ndarray:
        """Norms of (input, output, all) weights on the first copy."""
        return np.sqrt(self._squared(theta, None))

    def parameters(self, theta: Array) -> dict[str, np.ndarray]:
        """The parameter arrays of a state by name, as views where the backend allows."""
        return {"output_weights": theta[0], "input_weights": theta[1:]}

    def activity(self, theta: Array) -> tuple[int, int]:
        """Neurons that are active on some sample, and dead ones (active on none)."""
        _, nowhere = self.kernels.activity(theta)
        return self.network.neurons - nowhere, nowhere

    def invariant_drift(self, theta: Array) -> float:
        """Largest relative drift of a neuron's invariant (mobility ratio) a^2 - |w|^2.

        For a 1-homogeneous activation kappa'^2 a_k^2 - |w_k|^2 is constant in time, for every
        single neuron. The drift is relative to kappa'^2 a_k^2 + |w_k|^2, initial or present,
        whichever is larger. NaN where there is no such invariant (other activations).
        """
        if not self.network.activation.homogeneous:
            return float("nan")
        return measures.invariant_drift(
            np.asarray(self.initial),
            np.asarray(theta),
            self.field.output_mobility,
            self.field.input_mobility,
        )
