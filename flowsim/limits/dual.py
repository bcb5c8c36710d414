"""Dual activations: means of sigma and of sigma' over two correlated normal variables.

With (u, v) normal, E u^2 = q, E v^2 = q', E u v = c, a layer of infinitely many neurons hands on

    E sigma(u) sigma(v)   and   E sigma'(u) sigma'(v)

(Daniely, Frostig & Singer, NIPS 2016, section 4). Closed forms: arc-cosine kernels of order 1 and
0 for ReLU, leaky ReLU and the identity (Cho & Saul, NIPS 2009), the arc-sine kernel for erf
(Williams, Neural Computation 10, 1998). For the others a quadrature in polar coordinates, in which
the signs of u and v, and with them any kink of sigma at 0, change on four rays only: between these
Gauss-Legendre rules converge geometrically, where Gauss-Hermite would be slow for elu.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from flowsim.kernels.activations import Activation

Pair = tuple[np.ndarray, np.ndarray]

_SAME = 4.0 * np.finfo(float).eps
"""1 - cosine below which two inputs count as one: less is lost in rounding of the covariances."""

_REACH = 11.0
"""Radius, in standard deviations, beyond which nothing counts: exp(-60) times any power."""

_ORDERS = (24, 36, 54, 81)
_TOLERANCE = 1e-9
"""Relative change from one order to the next, after which the second is right to about 1e-13:
errors fall geometrically and orders grow by half, so that its error is the change to the 3/2."""

_AT_ONCE = 2**21
"""Numbers in one array of the quadrature."""


def dual(activation: Activation, q: np.ndarray, other: np.ndarray, c: np.ndarray) -> Pair:
    """E sigma(u) sigma(v) and E sigma'(u) sigma'(v).

    Parameters
    ----------
    activation : Activation
    q, other, c : arrays that broadcast together
        Variances of u and of v, and their covariance.

    Returns
    -------
    value, derivative : float64 arrays
        Closed forms to rounding, the others to about 1e-13 of the variances' root.
    """
    q, other, c = np.broadcast_arrays(*(np.asarray(part, np.float64) for part in (q, other, c)))
    if activation.leak is not None:
        return _arc_cosine(q, other, c, activation.leak)
    return _CLOSED.get(activation.name, _by_quadrature)(q, other, c, activation)


def scaled_dual(
    activation: Activation, scale: float, q: np.ndarray, other: np.ndarray, c: np.ndarray
) -> Pair:
    """`dual` of sigma(scale z)/scale, what activations that are not 1-homogeneous are replaced by.

    Parameters
    ----------
    activation : Activation
    scale : float
        beta_2.
    q, other, c
        See `dual`.
    """
    if scale == 1.0:
        return dual(activation, q, other, c)
    value, derivative = dual(activation, *(scale**2 * np.asarray(part) for part in (q, other, c)))
    return value / scale**2, derivative


def _angle(q: np.ndarray, other: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Angle between the two inputs; pi/2 where one of them is 0."""
    size = np.sqrt(q * other)
    cosine = np.divide(c, size, out=np.zeros_like(size), where=size > 0.0)
    cosine = np.where(1.0 - cosine < _SAME, 1.0, np.where(1.0 + cosine < _SAME, -1.0, cosine))
    return np.arccos(cosine)


def _arc_cosine(q: np.ndarray, other: np.ndarray, c: np.ndarray, leak: float) -> Pair:
    """For sigma(z) = leak z + (1 - leak) relu(z)."""
    angle = _angle(q, other, c)
    rest = (1.0 - leak) ** 2 / (2.0 * math.pi)
    bent = np.sqrt(q * other) * (np.sin(angle) + (math.pi - angle) * np.cos(angle))
    return leak * c + rest * bent, leak + rest * (math.pi - angle)


def _arc_sine(q: np.ndarray, other: np.ndarray, c: np.ndarray, _: Activation) -> Pair:
    """For sigma = erf."""
    size = (1.0 + 2.0 * q) * (1.0 + 2.0 * other)
    value = 2.0 / math.pi * np.arcsin(2.0 * c / np.sqrt(size))
    return value, 4.0 / math.pi / np.sqrt(size - 4.0 * c * c)


_CLOSED: dict[str, Callable[..., Pair]] = {"erf": _arc_sine}
"""Closed forms by the activation's name, besides those of activations with a leak."""


def _by_quadrature(q: np.ndarray, other: np.ndarray, c: np.ndarray, activation: Activation) -> Pair:
    """In polar coordinates, with the order raised until nothing changes any more."""
    # The value does not depend on which of the two comes first: a Gram matrix is done by halves.
    rows = np.stack([np.minimum(q, other), np.maximum(q, other), c], axis=-1).reshape(-1, 3)
    distinct, where = np.unique(rows, axis=0, return_inverse=True)
    found = _quadrature(distinct, activation, _ORDERS[0])
    for order in _ORDERS[1:]:
        coarse, found = found, _quadrature(distinct, activation, order)
        changes = [
            np.max(np.abs(new - old), initial=0.0) / max(np.max(np.abs(new), initial=0.0), 1e-300)
            for new, old in zip(found, coarse, strict=True)
        ]
        if max(changes) < _TOLERANCE:
            break
    value, derivative = (part[where.reshape(-1)].reshape(c.shape) for part in found)
    return value, derivative


def _quadrature(rows: np.ndarray, activation: Activation, order: int) -> Pair:
    """Gauss-Legendre rules between the four rays u = 0 and v = 0, and along the radius."""
    q, other, angle = (part[:, None, None] for part in (*rows.T[:2], _angle(*rows.T)))
    node, weight = np.polynomial.legendre.leggauss(order)
    half, half_weight = 0.5 * (1.0 + node), 0.5 * weight
    radius, radial = np.polynomial.legendre.leggauss(2 * order)
    radius = 0.5 * _REACH * (1.0 + radius)
    radial = 0.5 * _REACH * radial * radius * np.exp(-0.5 * radius**2) / (2.0 * math.pi)
    value, derivative = np.zeros(len(q)), np.zeros(len(q))
    for some in np.array_split(np.arange(len(q)), max(1, len(q) * order**2 * 2 // _AT_ONCE)):
        between = angle[some]
        right = np.full_like(between, 0.5 * math.pi)
        starts = (-right, between - right, right, between + right)
        for start, breadth in zip(starts, (between, math.pi - between) * 2, strict=True):
            at = start + breadth * half[:, None]
            u = np.sqrt(q[some]) * np.cos(at) * radius
            v = np.sqrt(other[some]) * np.cos(at - between) * radius
            factors = (breadth * half_weight[:, None])[..., 0], radial
            value[some] += _summed(activation.value, u, v, *factors)
            derivative[some] += _summed(activation.derivative, u, v, *factors)
    return value, derivative


def _summed(
    function: Callable[..., object], u: np.ndarray, v: np.ndarray, outer: np.ndarray,
    inner: np.ndarray,
) -> np.ndarray:  # fmt: skip
    products = np.asarray(function(u), np.float64) * np.asarray(function(v), np.float64)
    return np.einsum("pa,pa->p", products @ inner, outer)
