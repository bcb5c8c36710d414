"""Vector fields and states of two-layer networks on random data."""

import numpy as np

from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.interface import TwoLayerField


def make_field(n, d, activation="relu", seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    return TwoLayerField(
        x=generator.normal(size=(n, d)),
        activation=ACTIVATIONS[activation],
        activation_scale=scale,
        multiplier=0.37,
        output_mobility=1.7,
        input_mobility=0.6,
    )


def state(field, neurons, seed=1):
    return np.random.default_rng(seed).normal(size=(1 + field.x.shape[1], neurons))
