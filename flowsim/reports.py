"""A report of a sweep: one HTML file that opens anywhere, without a network.

Figures are SVG inside the file; whatever comes from files or names is escaped.
"""

from __future__ import annotations

import base64
import io
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim import __version__
from flowsim.analysis import classify
from flowsim.analysis.classification import VERDICTS, Classification, Point
from flowsim.errors import FlowsimError
from flowsim.sweeps.costs import show_seconds
from flowsim.sweeps.status import sweep_status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATE = "report.html.jinja"
_WORST = 20
_FAR = 0.1
"""A slope farther than this from theory is worth a look."""


def write_report(folder: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Write the report of the sweep in a folder.

    Parameters
    ----------
    folder : path
        Of a sweep, finished or not.
    output : path
        HTML file; replaced if it exists.

    Raises
    ------
    ConfigError
        If the folder holds no sweep.
    FlowsimError
        If it holds no run yet.
    """
    import jinja2

    status = sweep_status(folder)
    result = classify(status.folder / "runs")
    maps, no_map = _maps(result)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = resources.files("flowsim").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    page = environment.from_string(text).render(
        title=f"Sweep {status.folder.resolve().name}",
        version=__version__,
        n_runs=len(status.runs),
        counts=status.counts,
        spent=show_seconds(status.costs.seconds),
        n_measured=status.costs.n_runs,
        left=show_seconds(status.seconds_left),
        maps=maps,
        no_map=no_map,
        zeros=[_shown(zero.to_dict()) for zero in result.zero_line],
        confidence=result.confidence,
        margin=f"{result.margin:g}",
        headings=_headings(result),
        slopes=_slopes(result),
        regimes=VERDICTS,
        worst=_worst(result),
        failed=[(m.id, why) for m, state, why in status.runs if state == "failed"],
        skipped=result.skipped,
        parameters=(status.folder / "grid.toml").read_text(encoding="utf-8"),
    )
    target = Path(output)
    work = target.with_name(f"{target.name}~")
    work.write_text(page, encoding="utf-8")
    work.replace(target)


def _maps(result: Classification) -> tuple[list[tuple[str, str]], str]:
    """Return (title, figure) for every layer that has a map, or why there is none."""
    from flowsim.analysis.figures.phase import make_phase_figure

    layers = list(dict.fromkeys(name for point in result.points for name in point.layers))
    try:
        return [
            (f"S of the layer {layer}", _svg(make_phase_figure(result, layer=layer)))
            for layer in layers
        ] + [("S of the input weights, with intervals", _svg(_bands(result)))], ""
    except FlowsimError as error:
        return [], str(error)


def _bands(result: Classification) -> Figure:
    """Draw S of the input weights over the first exponent, a line for each value of the second."""
    from flowsim.analysis.figures.style import colours, key_symbol, new_figure

    figure, axes = new_figure(4.9, 3.6)
    first, second = (key_symbol(f"scaling.{name}") for name in result.points[0].axes)
    rows = sorted({point.gamma_prime for point in result.points})
    for value, colour in zip(rows, colours(len(rows)), strict=True):
        row = [p for p in result.points if p.gamma_prime == value]
        known = [p for p in row if p.layers["input"].slope is not None]
        slope = np.array([p.layers["input"].slope for p in known], float)
        reach = np.array([p.layers["input"].reach or np.nan for p in known], float)
        axes.errorbar(
            [p.gamma for p in known],
            slope,
            reach,
            color=colour,
            marker=".",
            linewidth=0.9,
            capsize=2,
            label=f"{second} = {value:g}",
        )
    axes.axhline(0.0, color="0.5", linewidth=0.8)
    axes.set(xlabel=first, ylabel=r"$S_w$")
    axes.legend(fontsize=7)
    return figure


def _svg(figure: Figure) -> str:
    """A figure as base64: an image in the page can run no script."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _headings(result: Classification) -> list[str]:
    first, second = result.points[0].axes
    other = sorted({key for point in result.points for key in point.other})
    more = ["layer", "S", "interval", "regime", "confidence", "local slopes", "S", "regime"]
    return [first, second, *other, *more]


def _slopes(result: Classification) -> list[list[str]]:
    other = sorted({key for point in result.points for key in point.other})
    rows = []
    for point in result.points:
        where = [_number(point.gamma), _number(point.gamma_prime)]
        where += [str(point.other.get(key, "")) for key in other]
        for layer, verdict in point.layers.items():
            interval = "" if verdict.ci is None else " .. ".join(map(_number, verdict.ci))
            local = () if verdict.fit is None else verdict.fit.local_slopes
            rows.append(
                [
                    *where,
                    layer,
                    _number(verdict.slope),
                    interval,
                    verdict.regime,
                    _number(verdict.confidence),
                    ", ".join(f"{slope:.2f}" for slope in local),
                    _number(verdict.predicted_slope),
                    verdict.predicted_regime,
                ]
            )
    return rows


def _worst(result: Classification) -> list[tuple[str, str, str]]:
    """Return the points that are undetermined or far from theory, the farthest first."""
    found = []
    for point in result.points:
        for layer, verdict in point.layers.items():
            away = abs((verdict.slope or 0.0) - verdict.predicted_slope)
            far = verdict.slope is not None and away > _FAR
            if verdict.regime == "undetermined" or far:
                why = verdict.reason if verdict.regime == "undetermined" else ""
                if far:
                    why = f"{away:.2f} from theory; {why}".rstrip("; ")
                found.append((away, (_where(point), layer, why)))
    return [row for _, row in sorted(found, key=lambda pair: -pair[0])[:_WORST]]


def _where(point: Point) -> str:
    values = {point.axes[0]: point.gamma, point.axes[1]: point.gamma_prime, **point.other}
    return ", ".join(f"{key} = {value}" for key, value in values.items())


def _shown(values: dict[str, Any]) -> dict[str, str]:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return " .. ".join(map(_number, value))
        return _number(value) if isinstance(value, float | None) else str(value)

    return {key: text(value) for key, value in values.items()}


def _number(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.4g}"
