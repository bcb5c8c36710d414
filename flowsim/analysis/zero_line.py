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
    """

    gamma: float
    gamma_prime: float
    layer: str
    other: dict[str, Any] = field(default_factory=dict)
    axes: tuple[str, str] = ("gamma", "gamma_prime")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        plain: dict[str, Any] = {
            self.axes[0]: self.gamma,
            self.axes[1]: self.gamma_prime,
            "layer": self.layer,
        }
        return plain | ({"other": dict(self.other)} if self.other else {})


def zero_crossings(gamma: npt.ArrayLike, slope: npt.ArrayLike) -> list[float]:
    """Return every zero of the piecewise linear curve through (gamma, slope), increasing.

    Parameters
    ----------
    gamma, slope : array_like of shape (points,)
        The curve, in any order; points that are not finite are left out.
    """
    x = np.asarray(gamma, dtype=np.float64).ravel()
    s = np.asarray(slope, dtype=np.float64).ravel()
    usable = np.isfinite(x) & np.isfinite(s)
    x, s = x[usable], s[usable]
    order = np.argsort(x, kind="stable")
    x, s = x[order], s[order]
    zeros = x[s == 0.0].tolist() if x.size > 1 else []
    # Signs instead of the product of neighbours, which could underflow to 0.
    for k in np.flatnonzero(np.sign(s[:-1]) * np.sign(s[1:]) < 0.0):
        zeros.append(float(x[k] + (x[k + 1] - x[k]) * (s[k] / (s[k] - s[k + 1]))))
    return sorted(set(zeros))


def zero_line(
    gamma: Sequence[float],
    gamma_prime: Sequence[float],
    slope: Sequence[float],
    *,
    layer: str = "input",
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
    other : dict, optional
        Settings shared by these points, put on the zeros.
    axes : (str, str)
        See `ZeroPoint`.
    """
    positions = np.asarray(gamma_prime, dtype=np.float64)
    points = []
    for value in np.unique(positions):
        row = np.flatnonzero(positions == value).tolist()
        crossings = zero_crossings([gamma[k] for k in row], [slope[k] for k in row])
        points += [
            ZeroPoint(zero, float(value), layer, dict(other or {}), axes) for zero in crossings
        ]
    return tuple(points)
