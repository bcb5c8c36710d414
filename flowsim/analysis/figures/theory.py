"""What the map of regimes shows besides measurements: boundaries in theory, and named schemes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowsim.analysis.classification import TWO_LAYER_AXES, Point
from flowsim.deep_predictions import THREE_LAYER_SCHEMES, predicted_zero

Array = npt.NDArray[np.float64]

SCHEME_NAMES = {
    "lecun": "LeCun",
    "he": "He",
    "xavier": "Xavier",
    "ntk": "NTK",
    "mean-field": "mean field",
}


def boundary(layer: str, low: float, high: float) -> Array:
    """Return the predicted boundary between linear and condensed, shape (corners, 2).

    Columns are gamma and gamma_prime; gamma_prime runs from ``low`` to ``high``. For the input
    weights: gamma = 1 up to gamma_prime = 0, then gamma_prime = gamma - 1; for the output weights
    the mirror image; all weights together: gamma = 1 (DESIGN section 3).
    """
    inner = [0.0] if low < 0.0 < high else []
    heights = np.array([low, *inner, high], dtype=np.float64)
    sign = {"input": 1.0, "output": -1.0, "all": 0.0}[layer]
    return np.column_stack([1.0 + np.maximum(sign * heights, 0.0), heights])


def deep_boundary(layer: str, gamma_1: float, low: float, high: float) -> Array:
    """Return the same for a layer of three: columns gamma_3 and gamma_2.

    Where the predicted slope of `flowsim.deep_scaling.all_predicted_slopes` is 0.
    """
    heights = np.linspace(low, high, 101)
    return np.array([(predicted_zero(layer, gamma_1, float(at)), at) for at in heights])


def boundary_of(points: list[Point], layer: str, low: float, high: float) -> Array:
    """Return the predicted boundary of a layer in the kind of network that the points are of."""
    if points[0].axes == TWO_LAYER_AXES:
        return boundary(layer, low, high)
    return deep_boundary(layer, points[0].gamma_1, low, high)


def schemes_of(axes: tuple[str, str]) -> dict[tuple[float, float], list[str]]:
    """Return the names of the schemes at every position of the map."""
    from flowsim.scaling import SCHEMES

    named: dict[tuple[float, float], list[str]] = {}
    if axes != TWO_LAYER_AXES:
        for name, position in THREE_LAYER_SCHEMES.items():
            named.setdefault(position, []).append(name)
        return named
    for name, scheme in SCHEMES.items():
        if scheme.position is not None:
            named.setdefault(scheme.position, []).append(SCHEME_NAMES.get(name, name))
    return named


def near(
    schemes: dict[tuple[float, float], list[str]], gamma: Array, prime: Array
) -> dict[tuple[float, float], list[str]]:
    """Keep the schemes that do not squeeze the measured region into a corner."""
    reach = [max(0.5 * np.ptp(values), 0.15) for values in (gamma, prime)]
    return {
        (g, p): names
        for (g, p), names in schemes.items()
        if gamma.min() - reach[0] <= g <= gamma.max() + reach[0]
        and prime.min() - reach[1] <= p <= prime.max() + reach[1]
    }
