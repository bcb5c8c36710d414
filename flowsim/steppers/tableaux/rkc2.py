"""RKC, order 2: Sommeijer, Shampine & Verwer, J. Comput. Appl. Math. 88 (1998) 315.

Shifted Chebyshev polynomials are stable on a piece of the negative real axis that grows with the
square of the stages, where s stages of a common method reach 2 or 3 each. With a damping eps,

    P_j(z) = 1 - b_j T_j(w0) + b_j T_j(w0 + w1 z),   w0 = 1 + eps/s^2,   w1 = T_s'(w0) / T_s''(w0),
    b_j = T_j''(w0) / T_j'(w0)^2 for j >= 2,         b_0 = b_1 = b_2,

is what stage j makes of y' = lambda y; the recurrence of the T_j is the method's. Rivals: RKL2
(Meyer, Balsara & Aslam, J. Comput. Phys. 257 (2014) 594), with Legendre's polynomials, reaches
0.5 s^2; ROCK2 and ROCK4 reach 0.81 s^2 and 0.35 s^2, with coefficients tabulated for every s.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from flowsim.steppers.stabilised_tableau import StabilisedTableau

DAMPING = 1.0
"""eps. The authors' 2/13 reaches 0.65 s^2, but a fast mode that has been excited then loses only a
twentieth a step, and the error, relative to a residual that falls, sees it for ever: on the stiff
tanh problem (m = 200, T = 1e4, rtol = 1e-3) it takes 196 steps and 1,664 gradients, 1 takes 149 and
1,470, 4 takes 129 and 1,524; RKL2 142 and 1,503."""

REACH = 0.59189
"""s stages are stable on [-REACH (s^2 - 1), 0], and hardly further: by 1.4 % for s = 2."""

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
