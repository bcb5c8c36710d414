"""Activations in CUDA C++: one entry a function, like `flowsim.kernels.activations`.

An entry computes ``value`` = sigma(z) and ``derivative`` = sigma'(z) of a REAL z. What a kernel
does not use of it the compiler leaves out.
"""

from __future__ import annotations

from flowsim.errors import ConfigError
from flowsim.kernels.activations import Activation

_LOGISTIC = """
    REAL u = exp(-fabs(z));
    REAL s = (z > 0 ? REAL(1) : u) / (1 + u);"""

CODE: dict[str, str] = {
    # sigma'(0) = 0, as in every backend.
    "relu": """
    value = z > 0 ? z : REAL(0);
    derivative = z > 0 ? REAL(1) : REAL(0);""",
    "leaky_relu": """
    value = z > 0 ? z : REAL(0.01) * z;
    derivative = z > 0 ? REAL(1) : REAL(0.01);""",
    "linear": """
    value = z;
    derivative = 1;""",
    "tanh": """
    value = tanh(z);
    derivative = 1 - value * value;""",
    "erf": """
    value = erf(z);
    derivative = REAL(1.1283791670955126) * exp(-z * z);""",
    "gelu": """
    REAL x = z * REAL(0.70710678118654752);
    REAL p = REAL(0.5) * (1 + erf(x));
    value = z * p;
    derivative = p + z * exp(-x * x) * REAL(0.39894228040143268);""",
    "elu": """
    REAL below = z > 0 ? REAL(0) : z;
    value = z > 0 ? z : expm1(below);
    derivative = exp(below);""",
    "softplus": f"""{_LOGISTIC}
    value = (z > 0 ? z : REAL(0)) + log1p(u);
    derivative = s;""",
    "silu": f"""{_LOGISTIC}
    value = z * s;
    derivative = s + z * s * (1 - s);""",
    "x_tanh_x": """
    REAL t = tanh(z);
    value = z * t;
    derivative = t + z * (1 - t * t);""",
    "x2_tanh_x": """
    REAL t = tanh(z);
    value = z * z * t;
    derivative = 2 * z * t + z * z * (1 - t * t);""",
}
"""Bodies of ``activation(REAL z, REAL& value, REAL& derivative)`` by the activation's name."""

CHEAP = ("relu", "leaky_relu", "linear")
"""Those of a few instructions: code unrolled over many samples stays short."""


def activation_source(activation: Activation) -> str:
    """The function ``activation`` that kernels call.

    Parameters
    ----------
    activation : Activation

    Raises
    ------
    ConfigError
        If it has no CUDA code.
    """
    body = CODE.get(activation.name)
    if body is None:
        raise ConfigError(
            f'network.activation = "{activation.name}": has no CUDA code; set integrate.backend = '
            '"cpu", which compiles any activation'
        )
    return f"""
DEVICE void activation(REAL z, REAL& value, REAL& derivative) {{{body}
}}
"""
