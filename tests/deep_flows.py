"""Small deep networks, and an account of them of its own: complex arithmetic, layer by layer.

The derivative of an analytic function is Im f(x + i h) / h with no cancellation, whatever h: an
oracle to rounding that shares no line with what it judges.
"""

import numpy as np
from scipy.special import erf

from flowsim.deep_scaling import DeepScaling
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.networks.deep import DeepFlow, DeepNetwork

TINY = 1e-30

SIGMA = {
    "relu": lambda z: np.where(z.real > 0, z, 0.0),
    "leaky_relu": lambda z: np.where(z.real > 0, z, 0.01 * z),
    "tanh": np.tanh,
    "erf": erf,
    "gelu": lambda z: 0.5 * z * (1.0 + erf(z / np.sqrt(2.0))),
    "elu": lambda z: np.where(z.real > 0, z, np.expm1(z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "silu": lambda z: z / (1.0 + np.exp(-z)),
    "linear": lambda z: z,
    "x_tanh_x": lambda z: z * np.tanh(z),
    "x2_tanh_x": lambda z: z**2 * np.tanh(z),
}


def make_inputs(n=5, d=3, seed=0, outputs=1):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, d))
    x[:, -1] = 1.0
    return x, generator.normal(size=n if outputs == 1 else (n, outputs))


def make_network(hidden=2, width=7, activation="tanh", **options):
    """Exponents without any pattern, so that no two factors can be mistaken for each other."""
    exponents = options.pop("exponents", None) or [
        (0.1 * layer - 0.1, 0.2 + 0.07 * layer, -0.15 * layer) for layer in range(hidden + 1)
    ]
    options.setdefault("relative_widths", (1.0, 0.72, 1.3, 0.5)[:hidden])
    scaling = DeepScaling.from_exponents(width, exponents)
    return DeepNetwork(scaling, ACTIVATIONS[activation], **options)


def make_flow(network=None, inputs=None, moved=0.3, way=("cpu", "auto"), **options):
    """A flow, and a state at some distance from its initial one, so that biases are not 0.

    The way is a backend, and what rates are kept as: dense where there is nothing to factor.
    """
    x, y = make_inputs() if inputs is None else inputs
    network = network or make_network()
    passes = "dense" if len(network.widths) == 1 else way[1]
    flow = DeepFlow(network, x, y, backend=way[0], passes=passes, **options)
    initial = network.initial_values(x.shape[1])
    away = np.random.default_rng(9).normal(size=initial.shape)
    return flow, flow.kernels.array(initial + moved * away)


def rate_of(flow, theta, residual):
    """d theta / d time written out (copies, parameters), whatever the flow keeps it as."""
    slopes, out, before = flow.empty(1), flow.empty(), np.asarray(theta)
    flow.rate(theta, residual, slopes[0])
    zero = flow.kernels.array(np.zeros_like(before))
    flow.combine(zero, slopes, np.array([1.0]), 1.0, out)
    return np.asarray(out)


def outputs(flow, theta):
    """f (n,), or (n, o) of several outputs, of a state that may be complex."""
    field, total = flow.field, 0.0
    for row in theta:
        rest, signal, fan_in = row, field.x, field.x.shape[1]
        sizes = [*field.widths, flow.n_outputs]
        for layer, fan_out in enumerate(sizes):
            weights, rest = rest[: fan_in * fan_out], rest[fan_in * fan_out :]
            signal = field.multipliers[layer] * (signal @ weights.reshape(fan_in, fan_out))
            if field.bias_multipliers is not None and layer > 0:
                bias, rest = rest[:fan_out], rest[fan_out:]
                signal = signal + field.bias_multipliers[layer] * bias
            if layer < len(sizes) - 1:
                signal = SIGMA[field.activation.name](signal)
            fan_in = fan_out
        assert rest.size == 0
        total = total + signal
    return total[:, 0] if flow.n_outputs == 1 else total


def jacobian(flow, theta):
    """df_i / dtheta_p (n, copies, parameters); rows i o + k of several outputs."""
    return derivative(lambda state: outputs(flow, state).reshape(-1), theta)


def derivative(function, theta):
    """Of a vector by every parameter (entries, copies, parameters)."""
    columns = np.empty((len(function(theta)), *theta.shape))
    for place in np.ndindex(theta.shape):
        shifted = np.array(theta, complex)
        shifted[place] += 1j * TINY
        columns[(slice(None), *place)] = function(shifted).imag / TINY
    return columns


def mobilities(flow):
    """Mobility of every parameter of one copy (parameters,)."""
    lengths = np.diff(flow.field.layout.bounds)
    return np.repeat(flow.field.mobilities, lengths)
