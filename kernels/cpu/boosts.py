"""How a neuron of a piecewise linear network moves while no preactivation changes its sign.

Then (u, w) obeys z' = -[[0, g^T], [g, 0]] z with g(x) a polynomial, the same for all neurons with
the same signs. For a constant g the flow is a Lorentz boost,

    u -> C u - S b.w,   w -> w + (D b.w - S u) b,   q = |b|^2,
    C = cosh(sqrt q),   S = sinh(sqrt q)/sqrt q,    D = (C - 1)/q,

b being g times the time. Two of them make the commutator-free method of order 4 with two Gauss
nodes (Celledoni, Marthinsen & Owren, FGCS 19 (2003) 341), and each keeps u^2 - |w|^2 to rounding.
It is exact as long as g does not turn, however long that is and however fast the weights grow.

Nothing is reassociated: a kink's side hangs on the last bits. Times are fractions of a window; its
length is in the forces. A polynomial is a row of its coefficients, lowest first.
"""

from __future__ import annotations

import math

from .fused import compiled, inlined, internal

GAUSS = 0.5 - math.sqrt(3.0) / 6.0, 0.5 + math.sqrt(3.0) / 6.0
"""Gauss's two nodes on [0, 1]."""

SHARES = 0.25 + math.sqrt(3.0) / 6.0, 0.25 - math.sqrt(3.0) / 6.0
"""Of the force at the near and at the far node, in the first of two boosts."""

LONGEST = 1.0
"""q up to which `series` holds to rounding."""


@inlined
def polynomial(row, x):
    """Value at x."""
    value = row[row.shape[0] - 1]
    for k in range(row.shape[0] - 2, -1, -1):
        value = value * x + row[k]
    return value


@inlined
def dot(a, b):
    """Inner product of two short rows."""
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@inlined
def series(q):
    """S and D for q up to `LONGEST`: Horner's rule from the term at which rounding begins."""
    s, d = 1.0 + q * (1.0 / 272.0), 1.0 + q * (1.0 / 306.0)
    s, d = 1.0 + q * (1.0 / 210.0) * s, 1.0 + q * (1.0 / 240.0) * d
    s, d = 1.0 + q * (1.0 / 156.0) * s, 1.0 + q * (1.0 / 182.0) * d
    s, d = 1.0 + q * (1.0 / 110.0) * s, 1.0 + q * (1.0 / 132.0) * d
    s, d = 1.0 + q * (1.0 / 72.0) * s, 1.0 + q * (1.0 / 90.0) * d
    s, d = 1.0 + q * (1.0 / 42.0) * s, 1.0 + q * (1.0 / 56.0) * d
    s, d = 1.0 + q * (1.0 / 20.0) * s, 1.0 + q * (1.0 / 30.0) * d
    return 1.0 + q * (1.0 / 6.0) * s, 0.5 + q * (1.0 / 24.0) * d


@internal
def boost(u, w, b, out):
    """Write the boosted w into ``out``, which may be ``w``; return the boosted u."""
    q, along = dot(b, b), dot(b, w)
    if q <= LONGEST:
        s, d = series(q)
    else:
        root = math.sqrt(q)
        half = math.sinh(0.5 * root)
        s, d = math.sinh(root) / root, 2.0 * half * half / q
    factor = d * along - s * u
    for i in range(w.shape[0]):
        out[i] = w[i] + factor * b[i]
    return u + q * d * u - s * along


@compiled
def travel(u, w, force, start, end, b, out):
    """The neuron at ``end`` that is (u, w) at ``start``: w into ``out``, u returned.

    Parameters
    ----------
    u : float
    w : (d,) array
    force : (d, degree + 1) array
        g.
    start, end : float
        Fractions of the window.
    b : (2, d) array
        Room.
    out : (d,) array
    """
    span = end - start
    near, far = start + GAUSS[0] * span, start + GAUSS[1] * span
    for i in range(w.shape[0]):
        first, second = span * polynomial(force[i], near), span * polynomial(force[i], far)
        b[0, i] = SHARES[0] * first + SHARES[1] * second
        b[1, i] = SHARES[1] * first + SHARES[0] * second
    u = boost(u, w, b[0], out)
    return boost(u, out, b[1], out)
