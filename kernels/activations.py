"""Activations: one entry a function, shared by every backend.

An entry holds ``value``, ``derivative`` and ``second_derivative`` as elementwise functions written
with NumPy's names. The reference backend calls them on arrays; the Numba backend compiles the very
same functions for scalars: what value and derivative write alike, such as an exponential, it
computes once. A new activation is one new entry in `ACTIVATIONS`; a user's own is one `Activation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SQRT_HALF = math.sqrt(0.5)
_INVERSE_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
_TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)
_LEAK = 0.01


def where(condition, yes, no):
    """``np.where``, which the Numba backend compiles to a branch-free selection of one float."""
    return np.where(condition, yes, no)


def erf(z):
    """Error function of an array; the Numba backend compiles an own one (`cpu.elementary`)."""
    # Here and not at the top: reading a configuration must not load SciPy.
    from scipy.special import erf as scipy_erf

    return scipy_erf(z)


class ActivationError(ValueError):
    """An activation that a backend cannot evaluate; its text is for the user."""


@dataclass(frozen=True)
class Activation:
    """An activation sigma and its derivative.

    Parameters
    ----------
    name : str
        Name in configuration files.
    value, derivative : callable
        Elementwise sigma(z) and sigma'(z). They must work on NumPy arrays and, for the ``cpu``
        backend, compile under Numba for a single float: arithmetic, ``np.tanh``, ``np.exp``,
        ``np.expm1``, ``np.log1p``, which that backend computes in vector lanes,
        `where` and `erf` of this module, no Python objects.
    homogeneous : bool
        True if sigma(c z) = c sigma(z) for every c > 0 (1-homogeneous). Only then do the initial
        standard deviations enter the normalised flow through kappa and kappa' alone.
    kinked : bool
        True if sigma' jumps somewhere; decides which method ``auto`` takes.
    leak : float, optional
        For sigma(z) = z where z > 0 and leak z elsewhere, sigma'(0) = leak: kernels may then work
        with the signs of z alone, and need not call ``value`` and ``derivative``.
    second_derivative : callable, optional
        Elementwise sigma''(z), written like the other two; absent where it is 0 almost everywhere.
        Only what Rosenbrock methods take for the Jacobian depends on it: without it they keep
        their order, and may need more steps.
    """

    name: str
    value: Callable[..., object]
    derivative: Callable[..., object]
    homogeneous: bool = False
    kinked: bool = False
    leak: float | None = None
    second_derivative: Callable[..., object] | None = None


def _relu(z):
    return np.maximum(z, 0.0)


def _relu_derivative(z):
    return where(z > 0.0, 1.0, 0.0)  # sigma'(0) = 0, in every backend


def _leaky_relu(z):
    return where(z > 0.0, z, _LEAK * z)


def _leaky_relu_derivative(z):
    return where(z > 0.0, 1.0, _LEAK)


def _tanh(z):
    return np.tanh(z)


def _tanh_derivative(z):
    return 1.0 - np.tanh(z) ** 2


def _tanh_second(z):
    t = np.tanh(z)
    return -2.0 * t * (1.0 - t * t)


def _erf(z):
    return erf(z)


def _erf_derivative(z):
    return _TWO_OVER_SQRT_PI * np.exp(-(z * z))


def _erf_second(z):
    return -2.0 * _TWO_OVER_SQRT_PI * z * np.exp(-(z * z))


def _gelu(z):
    return 0.5 * z * (1.0 + erf(z * _SQRT_HALF))


def _gelu_derivative(z):
    x = z * _SQRT_HALF
    return 0.5 * (1.0 + erf(x)) + z * np.exp(-(x * x)) * _INVERSE_SQRT_2PI


def _gelu_second(z):
    x = z * _SQRT_HALF
    return (2.0 - z * z) * np.exp(-(x * x)) * _INVERSE_SQRT_2PI


def _elu(z):
    # The exponential sees min(z, 0) only, so that it cannot overflow on the branch not taken.
    return where(z > 0.0, z, np.expm1(np.minimum(z, 0.0)))


def _elu_derivative(z):
    return np.exp(np.minimum(z, 0.0))


def _elu_second(z):
    return where(z > 0.0, 0.0, np.exp(np.minimum(z, 0.0)))


def _softplus(z):
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def _softplus_derivative(z):
    # The logistic function with the exponential of the value: it overflows nowhere.
    u = np.exp(-np.abs(z))
    return where(z > 0.0, 1.0, u) / (1.0 + u)


def _softplus_second(z):
    u = np.exp(-np.abs(z))
    return u / ((1.0 + u) * (1.0 + u))


def _silu(z):
    u = np.exp(-np.abs(z))
    return z * (where(z > 0.0, 1.0, u) / (1.0 + u))


def _silu_derivative(z):
    u = np.exp(-np.abs(z))
    s = where(z > 0.0, 1.0, u) / (1.0 + u)
    return s + z * s * (1.0 - s)


def _silu_second(z):
    u = np.exp(-np.abs(z))
    s = where(z > 0.0, 1.0, u) / (1.0 + u)
    return u / ((1.0 + u) * (1.0 + u)) * (2.0 + z * (1.0 - 2.0 * s))


def _linear(z):
    return z


def _linear_derivative(z):
    return where(z > 0.0, 1.0, 1.0)  # a one of z's shape


def _x_tanh_x(z):
    return z * np.tanh(z)


def _x_tanh_x_derivative(z):
    t = np.tanh(z)
    return t + z * (1.0 - t * t)


def _x_tanh_x_second(z):
    t = np.tanh(z)
    return 2.0 * (1.0 - t * t) * (1.0 - z * t)


def _x2_tanh_x(z):
    return z * z * np.tanh(z)


def _x2_tanh_x_derivative(z):
    t = np.tanh(z)
    return 2.0 * z * t + z * z * (1.0 - t * t)


def _x2_tanh_x_second(z):
    t = np.tanh(z)
    return 2.0 * t + (1.0 - t * t) * (4.0 - 2.0 * z * t) * z


ACTIVATIONS: dict[str, Activation] = {
    entry.name: entry
    for entry in (
        Activation("relu", _relu, _relu_derivative, homogeneous=True, kinked=True, leak=0.0),
        Activation(
            "leaky_relu",
            _leaky_relu,
            _leaky_relu_derivative,
            homogeneous=True,
            kinked=True,
            leak=_LEAK,
        ),
        Activation("tanh", _tanh, _tanh_derivative, second_derivative=_tanh_second),
        Activation("erf", _erf, _erf_derivative, second_derivative=_erf_second),
        Activation("gelu", _gelu, _gelu_derivative, second_derivative=_gelu_second),
        Activation("elu", _elu, _elu_derivative, second_derivative=_elu_second),
        Activation("softplus", _softplus, _softplus_derivative, second_derivative=_softplus_second),
        Activation("silu", _silu, _silu_derivative, second_derivative=_silu_second),
        Activation("linear", _linear, _linear_derivative, homogeneous=True, leak=1.0),
        Activation("x_tanh_x", _x_tanh_x, _x_tanh_x_derivative, second_derivative=_x_tanh_x_second),
        Activation(
            "x2_tanh_x", _x2_tanh_x, _x2_tanh_x_derivative, second_derivative=_x2_tanh_x_second
        ),
    )
}
"""Activations by their name in configuration files."""
