"""The first step of schemes that begin with learning rates of their own.

From the initial state theta(0) it leads to

    theta_l = kept_l theta_l(0) - eta_l rate_l dR/dtheta_l,

with the scheme's rates of the first step and eta_l the learning rate in their units: one number
for all layers, or, calibrated, as large as makes every layer change its preactivations h_l by 1
and the output by a tenth, but at most 500. What counts is a layer's own part in the change, the
change of its weights times the signals after the step: the layers before it have been calibrated
and changed by then (Hajjar, Chizat and Giraud, arXiv 2110.15596, and its public code).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.deep_scaling import FirstStep

if TYPE_CHECKING:
    from flowsim.networks.deep import DeepFlow

CHANGE, OUTPUT_CHANGE, LARGEST = 1.0, 0.1, 500.0
"""Mean |change| of h_l and of f that a calibrated step makes, and its largest learning rate."""


class FirstStepOfFlow:
    """The first step of a deep network on its data.

    Parameters
    ----------
    flow : DeepFlow
        Of a network whose scaling has a `FirstStep`.
    first : FirstStep
    """

    def __init__(self, flow: DeepFlow, first: FirstStep) -> None:
        self._flow, self._first = flow, first
        self.size = first.size

    @property
    def numbers(self) -> dict[str, Any]:
        """What files say of it: rates, learning rates in their units, what is kept."""
        return {
            "size": self.size,
            "mobilities": self._mobilities.tolist(),
            "bias_rates": list(self._first.bias_rates),
            "kept": list(self._first.kept),
            "learning_rates": self.learning_rates.tolist(),
        }

    @property
    def _mobilities(self) -> np.ndarray:
        """Of the normalised weights of each layer (L + 1,)."""
        stds = [scale.std for scale in self._flow.network.scaling.scales]
        return np.array(self._first.rates) / np.square(stds)

    @property
    def _ratios(self) -> tuple[np.ndarray, np.ndarray]:
        """Rates of the first step over those of later ones, of weights and biases (L + 1,)."""
        network, first = self._flow.network, self._first
        later = np.array([scale.rate for scale in network.scaling.scales])
        biases = later * network.bias_multipliers(network.scaling.scales) ** 2
        return np.array(first.rates) / later, np.array(first.bias_rates) / biases

    @cached_property
    def learning_rates(self) -> np.ndarray:
        """eta_l (L + 1,), of weights and biases alike."""
        flow = self._flow
        if not self._first.calibrate:
            return np.full(len(flow.layers), self.size)
        counts = flow.n_rhs, flow.n_passes
        rate = self._rate(flow.initial, flow.residual(flow.initial))
        flow.n_rhs, flow.n_passes = counts  # those of the method
        return self._calibrate(np.asarray(flow.initial, np.float64), rate)

    def take(self, theta: Any, residual: np.ndarray) -> np.ndarray:
        """The state after it, in dense layout (copies, parameters) float64.

        Parameters
        ----------
        theta : state
            The initial one.
        residual : (n,) array
            There.
        """
        values, layout = np.array(theta, np.float64), self._flow.field.layout
        changes = self._rate(theta, residual)
        for row, change in zip(values, changes, strict=True):
            for layer, (kept, rate) in enumerate(
                zip(self._first.kept, self.learning_rates, strict=True)
            ):
                layout.weights(row, layer)[...] *= kept
                part = slice(*layout.bounds[layer : layer + 2])
                row[part] += rate * change[part]
        return values

    def _rate(self, theta: Any, residual: np.ndarray) -> np.ndarray:
        """d theta / dtau (copies, parameters) float64 at the rates of the first step."""
        flow, layout = self._flow, self._flow.field.layout
        slopes, out = flow.empty(1), flow.empty()
        flow.rate(theta, residual, slopes[0])
        nothing = flow.kernels.array(np.zeros(np.shape(np.asarray(theta))))
        with np.errstate(all="ignore"):  # the outputs of weights that are rates mean nothing
            flow.combine(nothing, slopes, np.ones(1), 1.0, out)
        rate = np.array(out, np.float64)
        weights, biases = self._ratios
        for row in rate:
            for layer, ratio in enumerate(weights):
                layout.weights(row, layer)[...] *= ratio
                bias = layout.bias(row, layer)
                if bias is not None:
                    bias *= biases[layer]
        return rate

    def _calibrate(self, initial: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """From the input layer on, for a unit rate (copies, parameters) of every layer."""
        field = self._flow.field
        found, last = np.zeros(len(self._flow.layers)), len(self._flow.layers) - 1
        signals = [field.x] * len(initial)
        for layer in range(last + 1):
            pushes, before = [], []
            for signal, row, rate in zip(signals, initial, rates, strict=True):
                pushes.append(self._times(layer, signal, rate))
                before.append(self._times(layer, signal, row, self._first.kept[layer]))
            changes = [np.sum(pushes, axis=0)] if layer == last else pushes
            mean = float(np.mean(np.abs(changes)))
            wanted = OUTPUT_CHANGE if layer == last else CHANGE
            found[layer] = min(wanted / mean, LARGEST) if mean > 0.0 else LARGEST
            activate = field.activation.value
            signals = [
                np.asarray(activate(h + found[layer] * push), np.float64)
                for h, push in zip(before, pushes, strict=True)
            ]
        return found

    def _times(
        self, layer: int, signal: np.ndarray, row: np.ndarray, kept: float = 1.0
    ) -> np.ndarray:
        """Preactivations (n, fan_out) of a layer with the weights and biases in a row."""
        field, layout = self._flow.field, self._flow.field.layout
        h = kept * field.multipliers[layer] * (signal @ layout.weights(row, layer))
        bias = layout.bias(row, layer)
        if bias is not None:
            assert field.bias_multipliers is not None
            h = h + field.bias_multipliers[layer] * bias
        return np.asarray(h)
