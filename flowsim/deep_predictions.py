"""What the exponents of a deep network predict: how much each layer moves as m grows.

A scaling argument for ReLU, checked numerically; it is nobody's theorem.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowsim.deep_scaling import DeepScaling, Triple, equal_rates, layer_names

_ROUNDING = 1e-9
"""Exponents closer than this are equal: 1.4 - 1 - 0.4 is not 0 in binary."""

FROBENIUS = "_frobenius"
"""Ends the name of a hidden layer whose change is measured in the Frobenius norm."""


def predicted_slopes(exponents: Sequence[Triple]) -> dict[str, float]:
    """Predicted S = lim log RD / log m of every layer, in operator norm (scaling argument, ReLU).

    With layer scales sigma_l = log_m(sqrt(m) s_l) and A = log_m alpha: where the sum of all
    sigma_l exceeds A the network is linear and S_l = A - sum sigma - 2 (sigma_l - min sigma).
    Otherwise all layers grow to a common scale delta with sum_l max(sigma_l, delta) = A, and
    S_l = delta - sigma_l if delta >= sigma_l, else 2 (delta - sigma_l). ``all`` is the largest.

    Parameters
    ----------
    exponents : sequence of (a, b, c)
        See `DeepScaling.exponents`.

    Returns
    -------
    dict of str to float
        By layer, `layer_names`, and ``all``.
    """
    stds, alpha = equal_rates(exponents)
    sigma = [0.5 + s for s in stds]
    total = sum(sigma)
    if total > alpha:
        slopes = [alpha - total - 2.0 * (one - min(sigma)) for one in sigma]
    else:
        delta = _common_growth(sigma, alpha)
        slopes = [delta - one if delta >= one else 2.0 * (delta - one) for one in sigma]
    named = dict(zip(layer_names(len(sigma) - 1), slopes, strict=True))
    return {**named, "all": max(slopes)}


def frobenius_slopes(slopes: dict[str, float]) -> dict[str, float]:
    """The same in Frobenius norm, in which a square matrix moves m^-1/2 less than its norm.

    Parameters
    ----------
    slopes : dict
        Of `predicted_slopes`.
    """
    own = {name: s - 0.5 if name.startswith("hidden") else s for name, s in slopes.items()}
    # A hidden matrix has m times the weights of the other layers: next to it they count less.
    hidden = any(name.startswith("hidden") for name in own)
    parts = {
        name: s - 0.5 if hidden and not name.startswith("hidden") else s
        for name, s in own.items()
        if name != "all"
    }
    return {**own, "all": max(parts.values())}


def _common_growth(sigma: Sequence[float], alpha: float) -> float:
    """The delta with sum_l max(sigma_l, delta) = alpha, for alpha >= sum sigma."""
    ascending = sorted(sigma)
    for count in range(len(ascending), 0, -1):
        # The `count` smallest have grown to delta.
        delta = (alpha - sum(ascending[count:])) / count
        if delta >= ascending[count - 1] - _ROUNDING:
            return delta
    return ascending[0]  # pragma: no cover - alpha >= sum sigma leaves at least the smallest


def all_predicted_slopes(exponents: Sequence[Triple]) -> dict[str, float]:
    """Predicted slopes of every layer as the classifier judges it.

    Hidden layers by the operator norm, and as ``hidden_2_frobenius`` by the Frobenius norm; all
    weights together by the Frobenius norm.

    Parameters
    ----------
    exponents : sequence of (a, b, c)
    """
    operator = predicted_slopes(exponents)
    frobenius = frobenius_slopes(operator)
    slopes: dict[str, float] = {}
    for name in layer_names(len(exponents) - 1):
        slopes[name] = operator[name]
        if name.startswith("hidden"):
            slopes[name + FROBENIUS] = frobenius[name]
    return {**slopes, "all": frobenius["all"]}


def predicted_zero(layer: str, gamma_1: float, gamma_2: float) -> float:
    """The gamma_3 at which the predicted slope of a layer of three is 0.

    Parameters
    ----------
    layer : str
        A key of `all_predicted_slopes`.
    gamma_1, gamma_2 : float
    """

    def slope(gamma_3: float) -> float:
        scaling = DeepScaling.from_gammas(1, gamma_1, gamma_2, gamma_3)
        return all_predicted_slopes(scaling.exponents)[layer]

    # Every slope grows with gamma_3, without bound on both sides.
    low, high = -1.0, 1.0
    while slope(low) >= 0.0:
        low *= 2.0
    while slope(high) < 0.0:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) < 0.0 else (low, middle)
    return high


THREE_LAYER_SCHEMES = {
    "LeCun": (1.0, 0.5),
    "He": (1.0, 0.5),
    "NTK": (1.0, 0.0),
    "Xavier": (1.5, 0.0),
    "muP": (1.5, 0.0),
    "1/m": (2.0, 0.0),
}
"""Positions (gamma_3, gamma_2) of schemes with gamma_1 = 0."""


def regime_of(slope: float) -> str:
    """Regime that a slope stands for: the sign of it."""
    if abs(slope) <= _ROUNDING:
        return "critical"
    return "condensed" if slope > 0.0 else "linear"
