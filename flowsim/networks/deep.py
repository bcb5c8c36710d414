"""Networks with L hidden layers: initial values, vector field, measures of the state.

With A_0 = x and A_l = sigma(M_l A_(l-1) W_l + N_l b_l), f = M_(L+1) A_L W_(L+1) + N_(L+1) b_(L+1);
every layer has a multiplier M_l and a mobility, d theta_l / d time = -mobility_l dR/dtheta_l.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from flowsim.deep_scaling import DeepScaling, LayerScale, layer_names
from flowsim.kernels import choose_deep_passes, deep_kernels
from flowsim.kernels.activations import Activation
from flowsim.kernels.cpu.factored import FactoredKernels
from flowsim.kernels.interface import Array, DeepField, DeepKernels, DeepLayout
from flowsim.kernels.losses import SQUARE
from flowsim.networks.first_step import FirstStepOfFlow
from flowsim.networks.flow import NetworkFlow
from flowsim.networks.operator_norm import difference_norm

_SECOND = "second_"
"""Begins the names of the second copy's parameters."""


@dataclass(frozen=True)
class DeepNetwork:
    """What a deep network is, apart from its data.

    Parameters
    ----------
    scaling : DeepScaling
        Width, and multiplier, initial standard deviation and learning rate of each layer.
    activation : Activation
    relative_widths : tuple of float
        Widths of the hidden layers in units of m; all m if empty.
    antisymmetric : bool
        Add a second copy of the network with the opposite output weights: f = 0 at t = 0.
    seed : int
        Of the initial weights, drawn layer by layer from the input on, unit normal plus the
        scaling's mean.
    biases : bool
        Biases in the layers from the second on, 0 at t = 0 unless the scaling says otherwise.
        Those of the first layer are weights of a constant input.
    mobility : mapping
        Extra factors of the layers' mobilities, by `layer_names`; 0 freezes a layer.
    variables : {"normalised", "original"}
        In original variables the weights carry their standard deviations.
    n_outputs : int
        o.
    """

    scaling: DeepScaling
    activation: Activation
    relative_widths: tuple[float, ...] = ()
    antisymmetric: bool = False
    seed: int = 0
    biases: bool = False
    mobility: Mapping[str, float] = field(default_factory=dict)
    variables: str = "normalised"
    n_outputs: int = 1

    @property
    def width(self) -> int:
        """m."""
        return self.scaling.width

    @property
    def layers(self) -> tuple[str, ...]:
        """Groups of weights, from the inputs on."""
        return layer_names(self.scaling.hidden_layers)

    @property
    def copies(self) -> int:
        """Networks whose outputs are summed."""
        return 2 if self.antisymmetric else 1

    @property
    def widths(self) -> tuple[int, ...]:
        """m_1, ..., m_L."""
        ratios = self.relative_widths or (1.0,) * self.scaling.hidden_layers
        return tuple(max(1, round(ratio * self.width)) for ratio in ratios)

    @property
    def numbers(self) -> dict[str, Any]:
        """The scaling at this width, as files have it among their attributes."""
        scaling = self.scaling
        gammas = dict(zip(("gamma_1", "gamma_2", "gamma_3"), scaling.gammas, strict=False))
        exponents = dict(zip("abc", map(list, zip(*scaling.exponents, strict=True)), strict=True))
        normalised = [scale.normalised for scale in scaling.scales]
        return {
            "layers": " ".join((*self.layers, "all")),
            "hidden_layers": scaling.hidden_layers,
            "widths": " ".join(map(str, self.widths)),
            "biases": self.biases,
            **gammas,
            **({"n_outputs": self.n_outputs} if self.n_outputs > 1 else {}),
            "kappa": scaling.kappa,
            "alpha": scaling.alpha,
            "exponents": json.dumps(exponents),
            "multipliers": json.dumps([scale.multiplier for scale in normalised]),
            "standard_deviations": json.dumps([scale.std for scale in scaling.scales]),
            "mobilities": json.dumps([scale.rate for scale in normalised]),
            "bias_multipliers": json.dumps(
                self.bias_multipliers(normalised).tolist() if self.biases else []
            ),
        }

    def layout(self, n_inputs: int) -> DeepLayout:
        """Where the layers are in a state, for d = ``n_inputs``."""
        return DeepLayout((n_inputs, *self.widths, self.n_outputs), self.biases)

    def state_bytes(self, n_inputs: int, dtype: str | np.dtype) -> int:
        """Bytes of one copy of the state (of a method's copies, not of the network's)."""
        return self.copies * self.layout(n_inputs).length * np.dtype(dtype).itemsize

    def in_original_variables(self) -> DeepNetwork:
        """The same network with its weights in original variables."""
        return replace(self, variables="original")

    @property
    def _scales(self) -> tuple[LayerScale, ...]:
        """Of the state's variables."""
        if self.variables == "original":
            return self.scaling.scales
        return tuple(scale.normalised for scale in self.scaling.scales)

    def initial_values(self, n_inputs: int) -> np.ndarray:
        """Draw the initial state (copies, parameters) in float64."""
        generator, layout = np.random.default_rng(self.seed), self.layout(n_inputs)
        row = np.zeros(layout.length)
        means = self.scaling.means or (0.0,) * len(self.layers)
        bias_stds = self.scaling.bias_std / self.bias_multipliers(self._scales)
        for layer, (scale, mean) in enumerate(zip(self._scales, means, strict=True)):
            weights, bias = layout.weights(row, layer), layout.bias(row, layer)
            weights[...] = scale.std * (generator.normal(size=weights.shape) + mean)
            if bias is not None and self.scaling.bias_std > 0.0:
                bias[...] = bias_stds[layer] * generator.normal(size=bias.shape)
        return self._with_copies(row, layout)

    def _with_copies(self, row: np.ndarray, layout: DeepLayout) -> np.ndarray:
        """Add the antisymmetric second copy, if there is to be one."""
        if self.copies == 1:
            return row[None]
        mirrored = row.copy()
        mirrored[layout.bounds[-2] :] *= -1.0
        return np.stack([row, mirrored])

    def stack(self, arrays: Mapping[str, np.ndarray], n_inputs: int) -> np.ndarray:
        """Lay normalised parameter arrays out as a state.

        Parameters
        ----------
        arrays : mapping
            By the names of `parameter_dims`; those of the second copy may be left out.
        n_inputs : int
        """
        layout = self.layout(n_inputs)
        rows: list[np.ndarray] = []
        for prefix in ("", _SECOND)[: self.copies]:
            if prefix and f"{prefix}input_weights" not in arrays:
                return self._with_copies(rows[0], layout)
            row = np.zeros(layout.length)
            views = _named(layout, self.layers, row, prefix)
            for name, view in views.items():
                layer = _layer_of(name, self.layers)
                # Biases share their layer's mobility, and with it the unit of its weights.
                view[...] = self._scales[layer].std * np.asarray(arrays[name], np.float64)
            rows.append(row)
        return np.stack(rows)

    def parameter_shapes(self, n_inputs: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the first copy's parameter arrays by name."""
        layout = self.layout(n_inputs)
        # One number seen everywhere: only the shapes are wanted.
        row = np.broadcast_to(0.0, (layout.length,))
        return {name: view.shape for name, view in _named(layout, self.layers, row, "").items()}

    def parameter_dims(self) -> dict[str, tuple[str, ...]]:
        """Parameter arrays with the names of their axes, as in files."""
        hidden = len(self.layers) - 1
        axes = ["input", *(f"neuron_{number}" for number in range(1, hidden + 1))]
        output = ("output",) if self.n_outputs > 1 else ()
        dims: dict[str, tuple[str, ...]] = {}
        for prefix in ("", _SECOND)[: self.copies]:
            for layer, name in enumerate(self.layers):
                own = (axes[layer + 1],) if layer < hidden else output
                dims[f"{prefix}{_array_name(name, 'weights')}"] = (axes[layer], *own)
                if self.biases and layer > 0:
                    dims[f"{prefix}{_array_name(name, 'biases')}"] = own
        return dims

    def field_on(self, x: np.ndarray) -> DeepField:
        """The vector field of the state's variables, for inputs x (n, d), in time tau."""
        scales = self._scales
        factors = np.array([float(self.mobility.get(name, 1.0)) for name in self.layers])
        return DeepField(
            x=np.ascontiguousarray(x, np.float64),
            activation=self.activation,
            widths=self.widths,
            multipliers=np.array([scale.multiplier for scale in scales]),
            mobilities=factors * np.array([scale.rate for scale in scales]),
            bias_multipliers=self.bias_multipliers(scales) if self.biases else None,
            copies=self.copies,
            n_outputs=self.n_outputs,
        )

    def bias_multipliers(self, scales: Sequence[LayerScale]) -> np.ndarray:
        """N_l (L + 1,), with which biases share the mobility of their layer's weights.

        A bias of a hidden layer learns like that of the first layer, which is the weight of an
        input 1; the output's contributes to K as much as the output weights of neurons at 1.
        """
        first, last = scales[0], scales[-1]
        rates = np.full(len(scales), first.multiplier**2 * first.rate)
        rates[-1] = last.multiplier**2 * last.rate * self.widths[-1]
        return np.sqrt(rates / np.array([scale.rate for scale in scales]))


class DeepFlow(NetworkFlow):
    """A deep network bound to data and a backend.

    Parameters
    ----------
    network : DeepNetwork
    x, y : (n, d), (n,) arrays
        Inputs (bias coordinate included) and targets, (n, o) with o > 1 outputs.
    initial : (copies, parameters) array, optional
        Initial state; drawn from the seed if absent.
    loss : str
        See `flowsim.kernels.losses.LOSSES`.
    backend, dtype, threads, passes, device
        See `flowsim.kernels.deep_kernels`.
    """

    network: DeepNetwork
    field: DeepField
    kernels: DeepKernels

    def __init__(
        self,
        network: DeepNetwork,
        x: np.ndarray,
        y: np.ndarray,
        *,
        initial: Array | None = None,
        loss: str = SQUARE,
        backend: str = "cpu",
        dtype: str | np.dtype = "float64",
        threads: int = 1,
        passes: str = "auto",
        device: int = 0,
    ) -> None:
        self.network = network
        self.field = network.field_on(x)
        self.layers = network.layers
        self.parameter_dims = network.parameter_dims()
        passes = choose_deep_passes(passes, backend, len(x), network.widths)
        kernels = deep_kernels(backend, self.field, np.dtype(dtype), threads, passes)
        if initial is None:
            initial = network.initial_values(x.shape[1])
        super().__init__(
            kernels,
            y,
            kernels.array(initial),
            self.field.mobilities,
            1,
            network.copies,
            kinked=network.activation.kinked,
            loss=loss,
            backend=backend,
            dtype=dtype,
            threads=threads,
            passes=passes,
            device=device,
        )

    @cached_property
    def first_step(self) -> FirstStepOfFlow | None:
        """See `NetworkFlow.first_step`."""
        first = self.network.scaling.first
        return None if first is None else FirstStepOfFlow(self, first)

    def settle(self, theta: Array) -> None:
        """See `NetworkFlow.settle`."""
        if isinstance(self.kernels, FactoredKernels):
            self.kernels.settle(theta)

    def pack(self, rate: Array) -> np.ndarray | None:
        """See `NetworkFlow.pack`."""
        return self.kernels.pack(rate) if isinstance(self.kernels, FactoredKernels) else None

    def unpack(self, packed: np.ndarray, theta: Array, rate: Array) -> None:
        """See `NetworkFlow.unpack`."""
        if isinstance(self.kernels, FactoredKernels):
            self.kernels.unpack(packed, theta, rate)

    def parameters(self, theta: Array) -> dict[str, np.ndarray]:
        """The parameter arrays of a state by name on the host, as views where that allows."""
        found: dict[str, np.ndarray] = {}
        for prefix, row in zip(("", _SECOND), np.asarray(theta), strict=False):
            found |= _named(self.field.layout, self.layers, row, prefix)
        return found

    def layer_weights(self, theta: Array) -> list[np.ndarray]:
        """See `NetworkFlow.layer_weights`."""
        return [self.kernels.weights(theta, 0, layer) for layer in range(len(self.layers))]

    @cached_property
    def _initial_operator_norms(self) -> np.ndarray:
        return self._operator_norms(self.initial, None)

    def _operator_norms(self, theta: Array, reference: Array | None) -> np.ndarray:
        """Operator norm of each layer's weights minus the reference's, first copy (layers,)."""
        present = self.layer_weights(theta)
        past = [None] * len(present) if reference is None else self.layer_weights(reference)
        return np.array([difference_norm(*pair) for pair in zip(present, past, strict=True)])

    def operator_change(self, theta: Array) -> np.ndarray:
        """RD of the `groups` in operator norm, first copy, biases left out; 0/0 counts as 0.

        For ``all`` of the block-diagonal matrix of all layers: the largest change over the
        largest norm.
        """
        change = self._operator_norms(theta, self.initial)
        initial = self._initial_operator_norms
        change, initial = np.append(change, change.max()), np.append(initial, initial.max())
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(change == 0.0, 0.0, change / initial)

    def balance_drift(self, theta: Array) -> float:
        """Largest relative drift of the difference of neighbouring layers' squared norms.

        For a 1-homogeneous activation and no biases |theta_l|^2 / mobility_l changes equally in
        all layers. The drift is relative to the largest of them, initial or present. NaN where
        there is no such invariant.
        """
        if not self.network.activation.homogeneous or self.network.biases:
            return float("nan")
        moving = self.field.mobilities > 0.0
        if moving.sum() < 2:
            return 0.0
        present, past = (
            self.kernels.squared_norms(state, None, self._whole)[moving]
            / self.field.mobilities[moving]
            for state in (theta, self.initial)
        )
        growth = present - past
        return float((growth.max() - growth.min()) / max(present.max(), past.max()))


def _array_name(layer: str, kind: str) -> str:
    """``input_weights``, ``hidden_weights_2``, ``output_biases``, ..."""
    stem, _, number = layer.partition("_")
    return f"{stem}_{kind}_{number}" if number else f"{stem}_{kind}"


def _layer_of(name: str, layers: tuple[str, ...]) -> int:
    """Number of the layer that a parameter array belongs to."""
    bare = name.removeprefix(_SECOND)
    return next(
        number
        for number, layer in enumerate(layers)
        if bare in (_array_name(layer, "weights"), _array_name(layer, "biases"))
    )


def _named(
    layout: DeepLayout, layers: tuple[str, ...], row: np.ndarray, prefix: str
) -> dict[str, np.ndarray]:
    """Views of one copy's parameter arrays in a row of a state."""
    found: dict[str, np.ndarray] = {}
    for layer, name in enumerate(layers):
        weights, bias = layout.weights(row, layer), layout.bias(row, layer)
        single = layer == len(layers) - 1 and layout.sizes[-1] == 1
        found[f"{prefix}{_array_name(name, 'weights')}"] = weights[:, 0] if single else weights
        if bias is not None:
            found[f"{prefix}{_array_name(name, 'biases')}"] = (
                bias[0:1].reshape(()) if single else bias
            )
    return found
