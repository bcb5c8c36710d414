"""RKC, order 2: Sommeijer, Shampine & Verwer, J. Comput. Appl. Math. 88 (1998) 315.

Of all s-stage methods of order 2 that are stable on as long a piece of the negative real axis as
can be had, that of shifted Chebyshev polynomials: 0.65 (s^2 - 1), where s stages of a common method
reach 2 or 3 each. With T_j Chebyshev's polynomials and a damping eps = 2/13,

    P_j(z) = 1 - b_j T_j(w0) + b_j T_j(w0 + w1 z),   w0 = 1 + eps/s^2,   w1 = T_s'(w0) / T_s''(w0),
    b_j = T_j''(w0) / T_j'(w0)^2 for j >= 2,         b_0 = b_1 = b_2,

is what stage j makes of y' = lambda y; the recurrence of the T_j is the method's. The damping keeps
|P_s| below 1 - eps/3 inside, where it would touch 1 without it. Rivals: RKL2 (Meyer, Balsara &
Aslam 2014) reaches 0.5 s^2, and keeps the sign of what it damps; ROCK2 and ROCK4 reach 0.81 s^2 and
0.35 s^2, with coefficients that have to be tabulated for every s.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from flowsim.steppers.stabilised_tableau import StabilisedTableau

DAMPING = 2.0 / 13.0
"""eps."""

REACH = 0.65338
"""s stages are stable on [-REACH (s^2 - 1), 0], and hardly further: by 1.4 per mille for s = 2."""

_KEPT = 256
"""Tableaux of different stage counts that are kept; those of a run are neighbours."""


@lru_cache(maxsize=_KEPT)
def rkc2(stages: int) -> StabilisedTableau:
    """The method with so many stages, at least 2."""
    if stages < 2:
        raise ValueError(f"rkc2 has at least 2 stages, not {stages}")
    w0 = 1.0 + DAMPING / stages**2
    values, slopes, bends = chebyshev(stages, w0)
    w1 = slopes[stages] / bends[stages]
    b = np.empty(stages + 1)
    b[2:] = bends[2:] / slopes[2:] ** 2
    b[:2] = b[2]
    a = 1.0 - b * values
    mu, nu, beta, delta = np.zeros((4, stages))
    beta[0] = b[1] * w1
    mu[1:] = 2.0 * w0 * b[2:] / b[1:-1]
    nu[1:] = -b[2:] / b[:-2]
    beta[1:] = 2.0 * w1 * b[2:] / b[1:-1]
    delta[1:] = -a[1:-1] * beta[1:]
    return StabilisedTableau(
        name=f"rkc2({stages})",
        order=2,
        mu=mu,
        nu=nu,
        beta=beta,
        delta=delta,
        extent=(w0 + 1.0) / w1,
        error_change=0.8,
        error_rate=0.4,
    )


def chebyshev(degree: int, x: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T_j, T_j' and T_j'' at ``x`` for j = 0, ..., ``degree``, each (degree + 1,)."""
    values, slopes, bends = np.zeros((3, degree + 1))
    values[:2], slopes[1] = (1.0, x), 1.0
    for j in range(2, degree + 1):
        values[j] = 2.0 * x * values[j - 1] - values[j - 2]
        slopes[j] = 2.0 * (values[j - 1] + x * slopes[j - 1]) - slopes[j - 2]
        bends[j] = 2.0 * (2.0 * slopes[j - 1] + x * bends[j - 1]) - bends[j - 2]
    return values, slopes, bends


def stages_for(extent: float) -> int:
    """The fewest stages, at least 2, of a method that is stable on [-extent, 0]."""
    return max(2, int(np.ceil(np.sqrt(1.0 + extent / REACH))))


def extent_of(stages: int) -> float:
    """How far a method with so many stages is stable at least: `stages_for` turned round."""
    return REACH * (stages**2 - 1)
