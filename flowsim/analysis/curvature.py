"""Is log RD a straight line in log m? If it is not, the widths are not in the asymptotic regime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_PER_DECADE = float(np.log(10.0))


@dataclass(frozen=True)
class Curvature:
    """How the slope changes with the width: the fitted parabola of log RD over log m.

    Attributes
    ----------
    change : float
        Of the slope, a decade of widths.
    interval : tuple of two floats, or None
        Its confidence interval; None where the runs allow none.
    last_slope : float
        Slope of the parabola at the largest width.
    """

    change: float
    interval: tuple[float, float] | None
    last_slope: float

    @property
    def is_significant(self) -> bool:
        """Whether a straight line is refuted: the interval does not contain 0."""
        return self.interval is not None and not self.interval[0] <= 0.0 <= self.interval[1]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "change_per_decade": self.change,
            "interval": None if self.interval is None else list(self.interval),
            "last_slope": self.last_slope,
            "significant": self.is_significant,
        }


def local_slopes(
    log_width: npt.NDArray[np.float64], log_change: npt.NDArray[np.float64]
) -> tuple[float, ...]:
    """Return the slopes between consecutive widths, of the means of log RD over the seeds.

    Parameters
    ----------
    log_width, log_change : arrays of shape (runs,)
        log m and log RD, with two widths or more.
    """
    widths, means = _means(log_width, log_change)
    return tuple((np.diff(means) / np.diff(widths)).tolist())


def curvature_of(
    log_width: npt.NDArray[np.float64],
    log_change: npt.NDArray[np.float64],
    confidence: float,
) -> Curvature | None:
    """Fit a parabola to log RD over log m by least squares.

    The scatter is that between seeds where every width has two runs or more, and otherwise that
    around the parabola, which needs four runs; the interval is Student's.

    Parameters
    ----------
    log_width, log_change : arrays of shape (runs,)
    confidence : float
        Coverage of the interval.
    """
    from scipy.special import stdtrit

    widths, _ = _means(log_width, log_change)
    if widths.size < 3:
        return None
    middle = log_width.mean()
    x = log_width - middle
    design = np.column_stack([np.ones_like(x), x, x * x])
    solve = np.linalg.pinv(design)
    intercept, first, second = solve @ log_change
    change = 2.0 * second * _PER_DECADE
    last = first + 2.0 * second * (widths[-1] - middle)
    counts = np.array([(log_width == width).sum() for width in widths])
    if counts.min() >= 2:
        groups = [log_change[log_width == width] for width in widths]
        squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
        degrees = int(x.size - widths.size)
    else:
        squares = float(((log_change - design @ [intercept, first, second]) ** 2).sum())
        degrees = int(x.size - 3)
    interval = None
    if degrees > 0:
        error = np.sqrt(squares / degrees * np.dot(solve[2], solve[2]))
        reach = 2.0 * _PER_DECADE * float(stdtrit(degrees, 0.5 * (1.0 + confidence)) * error)
        interval = (float(change - reach), float(change + reach))
    return Curvature(float(change), interval, float(last))


def _means(
    log_width: npt.NDArray[np.float64], log_change: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the distinct log m, increasing, and the mean of log RD at each."""
    widths = np.unique(log_width)
    return widths, np.array([log_change[log_width == width].mean() for width in widths])
