"""What the classifier answers: a verdict for every layer at every point of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowsim.analysis.slopes import SlopeFit
from flowsim.analysis.zero_line import ZeroPoint
from flowsim.scaling import REGIMES

TWO_LAYER_AXES, DEEP_AXES = ("gamma", "gamma_prime"), ("gamma_3", "gamma_2")
"""Names of the exponents that span the map of regimes."""

VERDICTS = (*REGIMES, "undetermined")
"""What a layer can be found to be; every regime, and not enough to tell."""


@dataclass(frozen=True)
class LayerVerdict:
    """What the runs of one point say about one group of weights.

    Attributes
    ----------
    slope : float or None
        S, the slope of log RD at the stop against log m; None when no line can be fitted.
    ci : tuple of two floats, or None
        Its confidence interval.
    regime : {"linear", "critical", "condensed", "undetermined"}
        Read off the interval.
    reason : str
        Why, in one line; for an undetermined layer also what would help.
    predicted_slope : float
        From the scaling argument (`flowsim.scaling.predicted_slope`).
    predicted_regime : str
        Its regime as m goes to infinity.
    relative_change, sup_relative_change : tuple of float or None, one a width
        Means over the runs that reached their end; None where there is none.
    spread : tuple of float or None, one a width
        Standard deviation of RD between seeds; None for fewer than two runs.
    fit : SlopeFit or None
        The fitted line.
    probabilities : dict of str to float
        Of each regime, by the distribution of the slope and the margin; empty where there is none.
    """

    slope: float | None
    ci: tuple[float, float] | None
    regime: str
    reason: str
    predicted_slope: float
    predicted_regime: str
    relative_change: tuple[float | None, ...]
    sup_relative_change: tuple[float | None, ...]
    spread: tuple[float | None, ...]
    fit: SlopeFit | None = None
    probabilities: dict[str, float] = field(default_factory=dict)

    @property
    def confidence(self) -> float | None:
        """Probability of the regime that was found; None for an undetermined layer."""
        return self.probabilities.get(self.regime)

    @property
    def reach(self) -> float | None:
        """Half the length of the slope's interval."""
        return None if self.ci is None else 0.5 * (self.ci[1] - self.ci[0])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "slope": self.slope,
            "ci": None if self.ci is None else list(self.ci),
            "regime": self.regime,
            "reason": self.reason,
            "confidence": self.confidence,
            "probabilities": dict(self.probabilities),
            "local_slopes": [] if self.fit is None else list(self.fit.local_slopes),
            "curvature": (
                None
                if self.fit is None or self.fit.curvature is None
                else self.fit.curvature.to_dict()
            ),
            "predicted_slope": self.predicted_slope,
            "predicted_regime": self.predicted_regime,
            "relative_change": list(self.relative_change),
            "sup_relative_change": list(self.sup_relative_change),
            "spread": list(self.spread),
        }


@dataclass(frozen=True)
class Point:
    """One point of a sweep: all the runs that differ only in width and seed.

    Attributes
    ----------
    gamma, gamma_prime : float
        The exponents (of three layers gamma_3 and gamma_2, see ``axes``); for runs given by a
        scheme or by standard deviations, those of the largest width.
    other : dict
        The other settings (dotted keys) in which the points of this sweep differ.
    widths : tuple of int
        Increasing.
    seeds : int
        Runs at the width that has the fewest.
    runs_per_width : tuple of int
        Runs at each width.
    layers : dict of str to LayerVerdict
        By group of weights: input, output, all; for deep networks also hidden_2, ..., by the
        operator norm, and hidden_2_frobenius, ...
    not_converged : tuple of str
        The files that reached neither ``stop_loss`` nor a steady state.
    note : str
        What to know about this point's exponents; mostly empty.
    axes : (str, str)
        What ``gamma`` and ``gamma_prime`` are called in this kind of network.
    gamma_1 : float
        The third exponent of three layers.
    """

    gamma: float
    gamma_prime: float
    other: dict[str, Any]
    widths: tuple[int, ...]
    seeds: int
    runs_per_width: tuple[int, ...]
    layers: dict[str, LayerVerdict]
    not_converged: tuple[str, ...] = ()
    note: str = ""
    axes: tuple[str, str] = TWO_LAYER_AXES
    gamma_1: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            self.axes[0]: self.gamma,
            self.axes[1]: self.gamma_prime,
            "other": dict(self.other),
            "widths": list(self.widths),
            "seeds": self.seeds,
            "runs_per_width": list(self.runs_per_width),
            "layers": {name: verdict.to_dict() for name, verdict in self.layers.items()},
            "not_converged": list(self.not_converged),
            "note": self.note,
        }


@dataclass(frozen=True)
class Classification:
    """The regimes of a sweep.

    Attributes
    ----------
    points : tuple of Point
        Ordered by gamma_prime, then gamma.
    zero_line : tuple of ZeroPoint
        Zeros of S of the input weights, interpolated in gamma.
    skipped : dict of str to str
        Files that were left out, with the reason.
    margin, confidence : float
        As asked for.
    """

    points: tuple[Point, ...]
    zero_line: tuple[ZeroPoint, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    margin: float = 0.05
    confidence: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON: what is not a finite number becomes None."""
        plain = {
            "points": [point.to_dict() for point in self.points],
            "zero_line": [zero.to_dict() for zero in self.zero_line],
            "skipped": dict(self.skipped),
            "margin": self.margin,
            "confidence": self.confidence,
        }
        safe: dict[str, Any] = _json_safe(plain)
        return safe


def _json_safe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
