"""Loss against time, one curve a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowsim.analysis.collect import (
    Source,
    flatten,
    is_deep,
    nothing_read,
    read_runs,
    varying_keys,
)
from flowsim.analysis.figures.style import (
    Row,
    colours,
    key_label,
    new_figure,
    number,
    styled,
    warn_skipped,
)
from flowsim.errors import ConfigError, FileFormatError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.recording.reader import RunFile

TIMES = {"tau": r"$\tau = t/\alpha$", "t": "$t$", "t_bar": r"$\bar t = \tau/\kappa$"}
SCALES = ("log", "linear")
_MOST_LABELS = 9


@dataclass(frozen=True)
class LossCurve:
    """The loss of one run.

    Attributes
    ----------
    name : str
        The file.
    tau, loss : ndarray of shape (rows,), float64
        R against tau = t/alpha.
    alpha, kappa, gamma : float
        Scaling of the run, from which t and t_bar follow.
    settings : dict
        Its experiment, with dotted keys.
    """

    name: str
    tau: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]
    alpha: float
    kappa: float
    gamma: float
    settings: dict[str, Any]

    def time(self, kind: str) -> npt.NDArray[np.float64]:
        """Return tau, t = alpha tau or t_bar = tau/kappa (DESIGN section 3)."""
        factor = {"tau": 1.0, "t": self.alpha, "t_bar": 1.0 / self.kappa}[kind]
        return factor * self.tau


def read_loss(name: str, run: RunFile) -> LossCurve:
    """Read the curve of an open run; FileFormatError when it recorded no loss."""
    # With a schedule of its own the loss lies in a group of its own.
    recorded = (run.observables, run.group("series_loss"))
    series = next((group for group in recorded if "loss" in group and "time" in group), None)
    if series is None:
        raise FileFormatError(f"{name}: recorded no loss; add it to record.observables.names")
    return LossCurve(
        name=name,
        tau=np.asarray(series["time"], dtype=np.float64),
        loss=np.asarray(series["loss"], dtype=np.float64),
        alpha=float(run.attributes["alpha"]),
        kappa=float(run.attributes["kappa"]),
        # A deep network's is the exponent of the same number, the size of f at t = 0.
        gamma=float(run.attributes["gamma"] if not is_deep(run) else -_log_kappa(run)),
        settings=flatten(run.config),
    )


def loss_rows(curves: Sequence[LossCurve], *, time: str = "tau") -> list[Row]:
    """Return one row for every recorded time of every run, in the time asked for."""
    _check("time", time, tuple(TIMES))
    return [
        {"run": curve.name, time: float(at), "loss": float(loss)}
        for curve in curves
        for at, loss in zip(curve.time(time), curve.loss, strict=True)
    ]


@styled
def make_loss_figure(
    curves: Sequence[LossCurve], *, time: str = "tau", scale: str = "log"
) -> Figure:
    """Draw R = 1/(2n) sum e^2 against time.

    Runs that differ only in their seed share a colour and a label. More labels than fit into a
    legend become a colour bar of gamma.

    Parameters
    ----------
    curves : sequence of LossCurve
        From `read_loss`.
    time : {"tau", "t", "t_bar"}
        tau = t/alpha, the original t, or t_bar = tau/kappa.
    scale : {"log", "linear"}
        Scale of the time axis; t = 0 is not on a logarithmic one.

    Raises
    ------
    ConfigError
        Unknown time or scale, or no curve.
    """
    _check("time", time, tuple(TIMES))
    _check("scale", scale, SCALES)
    if not curves:
        raise ConfigError("path: no readable run in it; give a run file or a sweep folder")
    figure, axes = new_figure(3.8, 2.9)
    labels = _labels(curves)
    distinct = list(dict.fromkeys(labels))
    if len(distinct) > _MOST_LABELS:
        _colour_by_gamma(figure, axes, curves, time)
    else:
        palette = dict(zip(distinct, colours(len(distinct)), strict=True))
        for curve, label in zip(curves, labels, strict=True):
            axes.plot(curve.time(time), curve.loss, color=palette[label], **_pen(curves))
        if len(distinct) > 1:
            for label in distinct:
                axes.plot([], [], color=palette[label], label=label)
            # Losses fall: late on a logarithmic axis, at once on a linear one.
            corner: Any = "lower left" if scale == "log" else "upper right"
            axes.legend(loc=corner, bbox_to_anchor=(0.0, 0.1, 1.0, 0.9))
    axes.set(xscale=scale, yscale="log", xlabel=TIMES[time], ylabel="$R$")
    if scale == "linear":
        axes.set_xlim(left=0.0)
    _stop_line(axes, curves)
    return figure


def draw(source: Source, *, time: str = "tau", scale: str = "log") -> tuple[Figure, list[Row]]:
    """Read ``source`` and return the figure and its numbers (see `make_loss_figure`)."""
    _check("time", time, tuple(TIMES))
    _check("scale", scale, SCALES)
    curves, skipped = read_runs(source, read_loss)
    if curves:
        warn_skipped(skipped)
    elif skipped:
        raise nothing_read(skipped)
    return make_loss_figure(curves, time=time, scale=scale), loss_rows(curves, time=time)


def _labels(curves: Sequence[LossCurve]) -> list[str]:
    ignored = ("network.seed", "integrate.threads", "integrate.max_seconds")
    keys = [
        key
        for key in varying_keys(curve.settings for curve in curves)
        if key not in ignored and not key.startswith("record.")
    ]
    keys.sort(key=lambda key: (not key.startswith("scaling."), key))
    return [
        ", ".join(key_label(key, curve.settings[key]) for key in keys if key in curve.settings)
        for curve in curves
    ]


def _pen(curves: Sequence[LossCurve]) -> dict[str, Any]:
    many = len(curves) > 12
    return {"linewidth": 0.6 if many else 1.3, "alpha": 0.7 if many else 1.0}


def _log_kappa(run: RunFile) -> float:
    """Return log kappa / log m; 0 at m = 1."""
    width = int(run.attributes["width"])
    return float(np.log(run.attributes["kappa"]) / np.log(width)) if width > 1 else 0.0


def _colour_by_gamma(figure: Figure, axes: Axes, curves: Sequence[LossCurve], time: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    gammas = [curve.gamma for curve in curves]
    low, high = min(gammas), max(gammas)
    # The palette of the other figures, so that a gamma keeps its hue from one to the next.
    scale = Normalize(low, high if high > low else low + 1.0)
    palette = ListedColormap(colours(256))
    for curve in curves:
        colour = palette(scale(curve.gamma))
        axes.plot(curve.time(time), curve.loss, color=colour, **_pen(curves))
    figure.colorbar(ScalarMappable(scale, palette), ax=axes, label=r"$\gamma$", pad=0.02)


def _stop_line(axes: Axes, curves: Sequence[LossCurve]) -> None:
    """Mark the loss at which the runs were told to stop, when it is one and the same."""
    stops = {curve.settings.get("integrate.stop_loss") for curve in curves}
    stop = stops.pop() if len(stops) == 1 else None
    if not stop:
        return
    # No curve goes on below the line, so that its name has room there.
    lowest = min(float(np.min(c.loss, initial=stop)) for c in curves)
    axes.set_ylim(bottom=min(stop / 3.5, lowest / 1.5))
    axes.axhline(stop, color="0.45", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"stop at $R$ = {number(stop)}",
        (0.98, stop),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8.0,
        color="0.35",
    )


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} = {value!r}: unknown; choose from {', '.join(choices)}")
