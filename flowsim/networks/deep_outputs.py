"""The function of a deep network from what its file says: parameters, multipliers, activation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowsim.kernels.activations import Activation

_SLICE = 2**22
"""Activations that are held at a time."""


def deep_outputs(
    arrays: Mapping[str, np.ndarray],
    x: np.ndarray,
    attributes: Mapping[str, Any],
    activation: Activation,
) -> np.ndarray:
    """f (k,), or (k, o) of several outputs, at inputs x (k, d), bias coordinate included.

    Parameters
    ----------
    arrays : mapping
        Normalised parameter arrays, `flowsim.networks.deep.DeepNetwork.parameter_dims`.
    x : (k, d) array
    attributes : mapping
        Of the run: ``multipliers`` and ``bias_multipliers`` in JSON.
    activation : Activation
    """
    multipliers = json.loads(str(attributes["multipliers"]))
    biases = json.loads(str(attributes["bias_multipliers"]))
    widest = max(array.shape[-1] for array in arrays.values() if array.ndim)
    parts = np.array_split(np.arange(len(x)), max(1, len(x) * widest // _SLICE))
    prefixes = ("", "second_") if "second_input_weights" in arrays else ("",)
    return np.concatenate(
        [
            sum(
                _outputs(arrays, x[rows], multipliers, biases, activation, prefix)
                for prefix in prefixes
            )
            for rows in parts
        ]
    )


def _outputs(
    arrays: Mapping[str, np.ndarray],
    x: np.ndarray,
    multipliers: list[float],
    biases: list[float],
    activation: Activation,
    prefix: str,
) -> np.ndarray:
    hidden = [f"_{number}" for number in range(2, len(multipliers))]
    names = [("input", ""), *(("hidden", number) for number in hidden), ("output", "")]
    signal = x
    for layer, (stem, number) in enumerate(names):
        if layer > 0:
            signal = np.asarray(activation.value(signal), np.float64)
        signal = multipliers[layer] * (signal @ arrays[f"{prefix}{stem}_weights{number}"])
        if layer > 0 and biases:
            signal = signal + biases[layer] * arrays[f"{prefix}{stem}_biases{number}"]
    return signal
