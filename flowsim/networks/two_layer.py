"""Two-layer networks as particle systems: initial values, vector field, measures of the state.

f(x) = kappa sum_k a_k sigma(w_k . x), integrated in tau (DESIGN section 3):

    da_k/dtau = -(1/kappa') (1/n) sum_i e_i sigma(w_k . x_i)
    dw_k/dtau = -(kappa')   (1/n) sum_i e_i a_k sigma'(w_k . x_i) x_i
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import Activation
from flowsim.kernels.interface import Array, TwoLayerField, TwoLayerKernels
from flowsim.kernels.losses import SQUARE
from flowsim.networks.flow import NetworkFlow
from flowsim.networks.kinks import FlowKinks
from flowsim.networks.neuron_blocks import FlowBlocks, worth_it
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

    layers: ClassVar[tuple[str, ...]] = ("input", "output")
    """Groups of weights, from the inputs on."""

    @property
    def width(self) -> int:
        """m, neurons of one copy."""
        return self.scaling.width

    @property
    def numbers(self) -> dict[str, float]:
        """The scaling at this width, as files have it among their attributes."""
        names = ("gamma", "gamma_prime", "kappa", "kappa_prime", "alpha", "beta1", "beta2")
        return {name: getattr(self.scaling, name) for name in names}

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
        # Into their place: of a wide network a copy takes as long as drawing it.
        generator, state = np.random.default_rng(self.seed), np.empty((1 + n_inputs, self.neurons))
        for row in state:
            generator.standard_normal(out=row[: self.width])
        return self._finished(state)

    def stack(self, a: np.ndarray, w: np.ndarray, copy: bool = False) -> np.ndarray:
        """Lay normalised weights a (neurons,), w (d, neurons) out as a state.

        With ``copy`` the antisymmetric second copy is added.
        """
        m = a.shape[0]
        state = np.empty((1 + len(w), 2 * m if copy else m))
        state[0, :m], state[1:, :m] = a, w
        return self._finished(state, m)

    def _finished(self, state: np.ndarray, drawn: int | None = None) -> np.ndarray:
        """Scale the normalised weights of the first neurons, and copy them if there are more."""
        m = self.width if drawn is None else drawn
        for part, std in zip((state[:1], state[1:]), self.standard_deviations, strict=True):
            if std != 1.0:
                part[:, :m] *= std
        if state.shape[1] > m:
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


class TwoLayerFlow(NetworkFlow):
    """A two-layer network bound to data and a backend.

    Parameters
    ----------
    network : TwoLayerNetwork
    x, y : (n, d), (n,) arrays
        Inputs (bias coordinate included) and targets.
    initial : (1 + d, neurons) array, optional
        Initial state; drawn from the seed if absent.
    loss : str
        See `flowsim.kernels.losses.LOSSES`; one for a single output.
    backend, dtype, threads, passes, device
        See `flowsim.kernels.two_layer_kernels`.
    """

    network: TwoLayerNetwork
    field: TwoLayerField
    kernels: TwoLayerKernels
    layers = TwoLayerNetwork.layers
    parameter_dims = PARAMETERS
    _order = slice(None, None, -1)

    def __init__(
        self,
        network: TwoLayerNetwork,
        x: np.ndarray,
        y: np.ndarray,
        *,
        initial: np.ndarray | None = None,
        loss: str = SQUARE,
        backend: str = "cpu",
        dtype: str | np.dtype = "float64",
        threads: int = 1,
        passes: str = "auto",
        device: int = 0,
    ) -> None:
        self.network = network
        self.field = network.field_on(x)
        kernels = two_layer_kernels(
            backend, self.field, network.neurons, np.dtype(dtype), threads, passes, device
        )
        if initial is None:
            initial = network.initial_values(x.shape[1])
        super().__init__(
            kernels,
            y,
            kernels.array(initial),
            np.array([self.field.input_mobility, self.field.output_mobility]),
            network.width,
            network.neurons,
            kinked=network.activation.kinked,
            loss=loss,
            backend=backend,
            dtype=dtype,
            threads=threads,
            passes=passes,
            device=device,
        )
        self.has_blocks = kernels.has_blocks and worth_it(x.shape[1], network.activation)

    def neuron_blocks(self) -> FlowBlocks | None:
        """Each neuron's own block of the Jacobian, where `has_blocks`."""
        return FlowBlocks(self, self.kernels.neuron_blocks()) if self.has_blocks else None

    def kinks(self) -> FlowKinks:
        """What moves neurons kink by kink, for piecewise linear activations.

        Raises
        ------
        ValueError
            If there is no such thing for this network or backend.
        """
        return FlowKinks(self, self.kernels.kinks())

    def parameters(self, theta: Array) -> dict[str, np.ndarray]:
        """The parameter arrays of a state by name on the host, as views where that allows."""
        values = self.host(theta)
        return {"output_weights": values[0], "input_weights": values[1:]}

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """See `NetworkFlow.parameter_shapes`."""
        return {"output_weights": self.initial[0].shape, "input_weights": self.initial[1:].shape}

    def layer_weights(self, theta: Array) -> list[np.ndarray]:
        """See `NetworkFlow.layer_weights`."""
        one = self.host(theta)[:, : self._one]
        return [one[1:], one[0][:, None]]

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
        return self.kernels.invariant_drift(self.initial, theta)
