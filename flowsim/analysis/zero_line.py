"""Where the slope S of a layer changes sign: the measured boundary of the phase diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ZeroPoint:
    """A zero of S in gamma at one gamma_prime.

    Attributes
    ----------
    gamma, gamma_prime : float
        Where it lies.
    layer : str
        The group of weights whose slope vanishes.
    other : dict
        The other settings, when the runs differ in more than the scaling.
    axes : (str, str)
        What the two exponents are called in this kind of network.
    band : tuple of two floats, or None
        Confidence interval of ``gamma``, of the confidence of the slopes' intervals; None where
        one of the two slopes has none.
    """

    gamma: float
    gamma_prime: float
    layer: str
    other: dict[str, Any] = field(default_factory=dict)
    axes: tuple[str, str] = ("gamma", "gamma_prime")
    band: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        plain: dict[str, Any] = {
            self.axes[0]: self.gamma,
            self.axes[1]: self.gamma_prime,
            "layer": self.layer,
            "band": None if self.band is None else list(self.band),
        }
        return plain | ({"other": dict(self.other)} if self.other else {})


def zero_crossings(gamma: npt.ArrayLike, slope: npt.ArrayLike) -> list[float]:
    """Return every zero of the piecewise linear curve through (gamma, slope), increasing.

    Parameters
    ----------
    gamma, slope : array_like of shape (points,)
        The curve, in any order; points that are not finite are left out.
    """
    return sorted({zero for zero, _ in _crossings(gamma, slope, None)})


def _crossings(
    gamma: npt.ArrayLike, slope: npt.ArrayLike, reach: Sequence[float | None] | None
) -> list[tuple[float, float | None]]:
    """Return every zero and, if ``reach`` has that of the slopes, half the length of its band."""
    x = np.asarray(gamma, dtype=np.float64).ravel()
    s = np.asarray(slope, dtype=np.float64).ravel()
    h = np.full(x.shape, np.nan) if reach is None else np.array(reach, dtype=np.float64)
    usable = np.isfinite(x) & np.isfinite(s)
    x, s, h = x[usable], s[usable], h[usable]
    order = np.argsort(x, kind="stable")
    x, s, h = x[order], s[order], h[order]
    found = []
    for k in range(x.size - 1):
        # Signs instead of the product of neighbours, which could underflow to 0.
        if np.sign(s[k]) * np.sign(s[k + 1]) < 0.0 or (s[k] == 0.0) != (s[k + 1] == 0.0):
            share = s[k] / (s[k] - s[k + 1])
            zero = float(x[k + 1] if s[k + 1] == 0.0 else x[k] + (x[k + 1] - x[k]) * share)
            # Errors of the two slopes are independent: theirs add in squares.
            error = np.hypot((1.0 - share) * h[k], share * h[k + 1])
            half = float(error * (x[k + 1] - x[k]) / abs(s[k + 1] - s[k]))
            found.append((zero, half if np.isfinite(half) else None))
        elif s[k] == 0.0:
            found += [(float(x[k]), None), (float(x[k + 1]), None)]
    return found


def zero_line(
    gamma: Sequence[float],
    gamma_prime: Sequence[float],
    slope: Sequence[float],
    *,
    layer: str = "input",
    reach: Sequence[float | None] | None = None,
    other: dict[str, Any] | None = None,
    axes: tuple[str, str] = ("gamma", "gamma_prime"),
) -> tuple[ZeroPoint, ...]:
    """Interpolate the zeros of S in gamma, separately at every gamma_prime.

    Parameters
    ----------
    gamma, gamma_prime, slope : sequences of length points
        Measured points; a gamma_prime with fewer than two gammas gives no zero.
    layer : str
        Name put on the zeros.
    reach : sequence of float or None, of length points
        Half the lengths of the slopes' intervals, for the bands.
    other : dict, optional
        Settings shared by these points, put on the zeros.
    axes : (str, str)
        See `ZeroPoint`.
    """
    positions = np.asarray(gamma_prime, dtype=np.float64)
    points = []
    for value in np.unique(positions):
        row = np.flatnonzero(positions == value).tolist()
        own = None if reach is None else [reach[k] for k in row]
        crossings = _crossings([gamma[k] for k in row], [slope[k] for k in row], own)
        for zero in sorted({zero for zero, _ in crossings}):
            halves = [half for at, half in crossings if at == zero]
            half = next((half for half in halves if half is not None), None)
            band = None if half is None else (zero - half, zero + half)
            points.append(ZeroPoint(zero, float(value), layer, dict(other or {}), axes, band))
    return tuple(points)
