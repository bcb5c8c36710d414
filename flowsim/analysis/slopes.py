"""The slope of log RD against log m, with a confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowsim.analysis.curvature import Curvature, curvature_of, local_slopes
from flowsim.errors import FlowsimError

RESAMPLES = 4000
BOOTSTRAP_SEED = 20210722


@dataclass(frozen=True)
class SlopeFit:
    """A fitted line log RD = intercept + slope log m.

    Attributes
    ----------
    slope : float
        S, the estimate of lim log RD / log m (DESIGN section 2).
    intercept : float
        log RD of the line at m = 1.
    interval : tuple of two floats, or None
        Confidence interval of the slope; None when the runs allow none.
    method : {"bootstrap", "student-t", "none"}
        How the interval was found.
    widths : tuple of int
        The distinct widths, increasing.
    n_runs : int
        Number of runs fitted.
    error : float
        Scale of the slope's distribution, NaN without an interval: Student's (``degrees`` of
        freedom), for the bootstrap half the interval over Student's quantile.
    degrees : int
        Runs beyond what the fit uses up: one a width for the bootstrap, two in all otherwise.
    local_slopes : tuple of float
        Slopes between consecutive widths, of the means of log RD.
    curvature : Curvature or None
        How much the slope changes with the width; None for fewer than three widths.
    """

    slope: float
    intercept: float
    interval: tuple[float, float] | None
    method: str
    widths: tuple[int, ...]
    n_runs: int
    error: float = float("nan")
    degrees: int = 0
    local_slopes: tuple[float, ...] = ()
    curvature: Curvature | None = None

    def probability(self, low: float, high: float) -> float:
        """Return the probability that the slope lies between two values; NaN if nobody can tell.

        By Student's distribution around the fitted slope.
        """
        from scipy.special import stdtr

        if self.interval is None:
            return float("nan")
        if self.error == 0.0:  # an exact power law
            return float(low < self.slope < high)
        edges = (np.array([low, high]) - self.slope) / self.error
        below, above = stdtr(self.degrees, edges)
        return float(above - below)

    def __call__(self, width: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the line's RD at the given widths (any shape, positive)."""
        log_width = np.log(np.asarray(width, dtype=np.float64))
        return np.asarray(np.exp(self.intercept + self.slope * log_width))


def fit_slope(
    width: npt.ArrayLike,
    relative_change: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> SlopeFit:
    """Fit log RD against log m by least squares, every run being one point.

    When every width has two runs or more, the interval is the percentile interval of a bootstrap
    over the seeds within each width, widened for small numbers of seeds; otherwise it is the exact
    Student-t interval of least squares, which needs three runs (three widths at one seed a width).

    Parameters
    ----------
    width : array_like of shape (runs,)
        m of each run.
    relative_change : array_like of shape (runs,)
        RD of each run, positive.
    confidence : float
        Coverage of the interval, between 0 and 1.
    resamples : int
        Bootstrap samples. Their generator has a fixed seed: the same runs give the same interval,
        in whatever order they come.

    Raises
    ------
    FlowsimError
        Fewer than two widths, or an RD that has no logarithm.
    """
    widths = np.asarray(width, dtype=np.int64).ravel()
    change = np.asarray(relative_change, dtype=np.float64).ravel()
    if widths.shape != change.shape:
        raise FlowsimError(
            f"width has {widths.size} entries and relative_change {change.size}: give one of each "
            "for every run"
        )
    if not np.all(np.isfinite(change) & (change > 0.0)) or np.any(widths < 1):
        raise FlowsimError(
            "relative_change and width must be finite and positive to have a logarithm: leave out "
            "the other runs"
        )
    distinct, group = np.unique(widths, return_inverse=True)
    if distinct.size < 2:
        raise FlowsimError(
            f"width = {distinct.tolist()}: a slope needs two widths or more; add runs at another"
        )
    # Sorted, so that the order of the files in a folder changes neither sums nor bootstrap draws.
    order = np.lexsort((change, group))
    x, y = np.log(widths[order].astype(np.float64)), np.log(change[order])
    centred = x - x.mean()
    weights = centred / np.dot(centred, centred)
    slope = float(np.dot(weights, y))
    intercept = float(y.mean() - slope * x.mean())
    counts = np.bincount(group)
    interval: tuple[float, float] | None = None
    method, degrees = "none", 0
    if counts.min() >= 2:
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        interval = _bootstrap(y, weights, starts, counts, confidence, resamples)
        method, degrees = "bootstrap", int(y.size - counts.size)
    elif y.size >= 3:
        residual = y - intercept - slope * x
        interval = _student(slope, residual, centred, confidence)
        method, degrees = "student-t", int(y.size - 2)
    return SlopeFit(
        slope,
        intercept,
        interval,
        method,
        tuple(distinct.tolist()),
        int(y.size),
        error=float("nan") if interval is None else _scale(interval, degrees, confidence),
        degrees=degrees,
        local_slopes=local_slopes(x, y),
        curvature=curvature_of(x, y, confidence),
    )


def _scale(interval: tuple[float, float], degrees: int, confidence: float) -> float:
    """Scale of the Student distribution that has this interval."""
    from scipy.special import stdtrit

    quantile = float(stdtrit(degrees, 0.5 * (1.0 + confidence)))
    return 0.5 * (interval[1] - interval[0]) / quantile


def _bootstrap(
    y: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    starts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    confidence: float,
    resamples: int,
) -> tuple[float, float]:
    """Percentile interval; ``starts`` and ``counts`` say where each width's runs lie in ``y``."""
    from scipy.special import ndtri, stdtrit

    generator = np.random.default_rng(BOOTSTRAP_SEED)
    # With the few seeds that one can afford (2 to 5) a plain percentile interval is too narrow,
    # at two seeds by half. Two reasons, two factors: redrawing `count` values has a variance too
    # small by (count - 1)/count, and the scatter is itself known from few runs only, which is the
    # step from the normal to Student's distribution. Both tend to 1 for many seeds.
    upper = 0.5 * (1.0 + confidence)
    student = stdtrit(y.size - counts.size, upper) / ndtri(upper)
    slopes = np.zeros(resamples)
    for start, count in zip(starts, counts, strict=True):
        values = y[start : start + count]
        mean = values.mean()
        spread = (values - mean) * (np.sqrt(count / (count - 1.0)) * student)
        drawn = mean + spread[generator.integers(0, count, size=(resamples, count))].mean(axis=1)
        # All runs of a width share one abscissa, so the slope depends on their mean only.
        slopes += weights[start] * count * drawn
    low, high = np.quantile(slopes, [1.0 - upper, upper])
    return float(low), float(high)


def _student(
    slope: float,
    residual: npt.NDArray[np.float64],
    centred: npt.NDArray[np.float64],
    confidence: float,
) -> tuple[float, float]:
    """Exact interval for independent normal errors of one variance (runs - 2 degrees)."""
    from scipy.special import stdtrit

    degrees = residual.size - 2
    error = np.sqrt(np.dot(residual, residual) / degrees / np.dot(centred, centred))
    reach = float(stdtrit(degrees, 0.5 * (1.0 + confidence)) * error)
    return slope - reach, slope + reach
