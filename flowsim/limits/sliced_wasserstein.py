"""Distances between distributions of neurons: mean Wasserstein distance of their projections.

Bonneel, Rabin, Peyre & Pfister, J. Math. Imaging Vis. 51 (2015) 22, with the distance of order 1,
which for two distributions on a line is the area between their distribution functions.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri
from scipy.stats import wasserstein_distance

SLICES = 32
_QUANTILES = 20_000
"""Points that stand for the normal distribution on a line."""


def slices(dimension: int, count: int = SLICES) -> np.ndarray:
    """Unit vectors (dimension, k) that cover half the sphere evenly, the same every time.

    Parameters
    ----------
    dimension : int
        1 + d. In the plane, one input without bias, they are equal angles, whose mean converges
        geometrically; in space a product rule with equal areas; above Sobol points.
    count : int
        About so many.
    """
    if dimension == 2:
        angle = math.pi * (np.arange(count) + 0.5) / count
        return np.stack([np.cos(angle), np.sin(angle)])
    if dimension == 3:
        levels = max(1, round(math.sqrt(count / 4)))
        height = (np.arange(levels) + 0.5) / levels
        angle = 2.0 * math.pi * (np.arange(4 * levels) + 0.5) / (4 * levels)
        level = np.sqrt(1.0 - height**2)
        circle = [np.multiply.outer(level, part) for part in (np.cos(angle), np.sin(angle))]
        return np.stack([*circle, np.broadcast_to(height[:, None], circle[0].shape)]).reshape(3, -1)
    from scipy.stats.qmc import Sobol

    exponent = max(0, round(math.log2(count)))
    points = ndtri(Sobol(dimension, seed=2015).random_base2(exponent)).T
    return points / np.linalg.norm(points, axis=0)


def sliced_wasserstein(
    points: np.ndarray,
    others: np.ndarray,
    weights: np.ndarray | None = None,
    other_weights: np.ndarray | None = None,
    count: int = SLICES,
) -> float:
    """Mean over `slices` of the Wasserstein distance of order 1.

    Parameters
    ----------
    points, others : (dimension, m), (dimension, M) arrays
        Neurons as columns (a, w).
    weights, other_weights : (m,), (M,) arrays, optional
        Equal by default.
    count : int
        Of the slices.
    """
    directions = slices(len(points), count)
    distances = [
        wasserstein_distance(one @ points, one @ others, weights, other_weights)
        for one in directions.T
    ]
    return float(np.mean(distances))


def sliced_from_normal(points: np.ndarray, count: int = SLICES) -> float:
    """The same distance from independent unit-normal coordinates, on every line normal again.

    Parameters
    ----------
    points : (dimension, m) array
        Neurons as columns (a, w).
    count : int
        Of the slices.
    """
    normal = ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    directions = slices(len(points), count)
    return float(np.mean([wasserstein_distance(one @ points, normal) for one in directions.T]))
