"""RD against m with the fitted lines, one colour a gamma."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from flowsim.analysis.classification import Classification, Point
from flowsim.analysis.collect import Source
from flowsim.analysis.figures.style import (
    Row,
    check_layer,
    colours,
    key_label,
    layer_symbol,
    new_figure,
    number,
    signed,
    styled,
    warn_skipped,
)
from flowsim.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour: TypeAlias = tuple[float, float, float, float]
Kind: TypeAlias = tuple[float, tuple[tuple[str, str], ...]]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", ":", "-.")
# With more curves than this a legend that names every one is longer than the axes are high.
_MOST_LABELS = 12


def rd_rows(classification: Classification, *, layer: str = "input") -> list[Row]:
    """Return one row for every plotted symbol.

    Columns: the point (gamma, gamma_prime, and what else varies), width, the mean RD over the runs
    that reached their end, its standard deviation between seeds, RD of the fitted line, and the
    line's slope with its interval.
    """
    check_layer(layer, classification.points)
    rows: list[Row] = []
    for point in classification.points:
        verdict = point.layers[layer]
        low, high = verdict.ci or (None, None)
        for k, width in enumerate(point.widths):
            rows.append(
                {
                    point.axes[0]: point.gamma,
                    point.axes[1]: point.gamma_prime,
                    **point.other,
                    "layer": layer,
                    "width": width,
                    "relative_change": verdict.relative_change[k],
                    "standard_deviation": verdict.spread[k],
                    "line": float(verdict.fit(width)) if verdict.fit else None,
                    "slope": verdict.slope,
                    "ci_low": low,
                    "ci_high": high,
                }
            )
    return rows


@styled
def make_rd_figure(classification: Classification, *, layer: str = "input") -> Figure:
    """Draw RD against m, both axes logarithmic, with the least-squares lines.

    Symbols are means over the runs that reached their end, error bars the standard deviation
    between seeds. The colour is that of gamma; points that differ in anything else get another
    symbol and line.

    Parameters
    ----------
    classification : Classification
        From `flowsim.analysis.classify`.
    layer : {"input", "output", "all"}
        Group of weights.

    Raises
    ------
    ConfigError
        Unknown layer, or no run reached its end.
    """
    check_layer(layer, classification.points)
    points = [
        point
        for point in classification.points
        if any(value for value in point.layers[layer].relative_change)
    ]
    if not points:
        raise ConfigError("path: no run reached stop_loss or a steady state; run them longer")
    gammas = sorted({point.gamma for point in points})
    kinds = list(dict.fromkeys(map(_kind, points)))
    palette = dict(zip(gammas, colours(len(gammas)), strict=True))
    figure, axes = new_figure(4.6, 2.8)
    for point in points:
        _curve(axes, point, layer, palette[point.gamma], kinds.index(_kind(point)))
    axes.set(xscale="log", yscale="log", xlabel="$m$")
    axes.set_ylabel(rf"$\mathrm{{RD}}({layer_symbol(layer)})$")
    _legend(figure, points, layer, palette, kinds)
    _decades(axes)
    return figure


def draw(
    source: Source, *, layer: str = "input", margin: float = 0.05, confidence: float = 0.95
) -> tuple[Figure, list[Row]]:
    """Classify ``source`` and return the figure and its numbers (see `make_rd_figure`)."""
    from flowsim.analysis.regimes import classify

    check_layer(layer)
    classification = classify(source, margin=margin, confidence=confidence)
    warn_skipped(classification.skipped)
    figure = make_rd_figure(classification, layer=layer)
    return figure, rd_rows(classification, layer=layer)


def _kind(point: Point) -> Kind:
    """Return what decides the symbol and the line: all but gamma, whose matter is the colour."""
    return (point.gamma_prime, tuple((key, str(value)) for key, value in point.other.items()))


def _curve(axes: Axes, point: Point, layer: str, colour: Colour, kind: int) -> None:
    """Draw one point of the sweep: symbols with error bars, and the line."""
    verdict = point.layers[layer]
    shown = [k for k, value in enumerate(verdict.relative_change) if value]
    width = np.array([point.widths[k] for k in shown], dtype=np.float64)
    change = np.array([verdict.relative_change[k] for k in shown], dtype=np.float64)
    spread = np.array([verdict.spread[k] or 0.0 for k in shown], dtype=np.float64)
    # A bar down to 0 or below would run off a logarithmic axis.
    bars = np.array([np.minimum(spread, 0.9 * change), spread])
    axes.errorbar(
        width,
        change,
        yerr=bars if spread.any() else None,
        fmt=MARKERS[kind % len(MARKERS)],
        color=colour,
        markersize=4.0,
        markeredgecolor="white",
        markeredgewidth=0.4,
        elinewidth=0.9,
        capsize=2.0,
        zorder=3,
    )
    if verdict.fit is not None:
        ends = np.array([width[0] / 1.15, width[-1] * 1.15])
        line = LINES[kind % len(LINES)]
        axes.plot(ends, verdict.fit(ends), line, color=colour, linewidth=1.1, zorder=2)


def _legend(
    figure: Figure,
    points: list[Point],
    layer: str,
    palette: dict[float, Colour],
    kinds: list[Kind],
) -> None:
    """Name every curve with its slope, or, when these are many, colours and symbols apart."""
    from matplotlib.lines import Line2D

    def entry(colour: Any, kind: int | None, label: str) -> Line2D:
        symbol = "" if kind is None else MARKERS[kind % len(MARKERS)]
        line: Any = "-" if kind is None else LINES[kind % len(LINES)]
        return Line2D([], [], color=colour, marker=symbol, linestyle=line, label=label, **size)

    size: dict[str, Any] = {"markersize": 4.0, "linewidth": 1.1}
    axes = points[0].axes
    with_prime = len({point.gamma_prime for point in points}) > 1
    if len(points) <= _MOST_LABELS:
        handles = []
        for point in sorted(points, key=lambda p: (-p.gamma, p.gamma_prime)):
            first = key_label(f"scaling.{point.axes[0]}", point.gamma)
            label = ", ".join([first, *_kind_label(_kind(point), with_prime, point.axes)])
            slope = point.layers[layer].slope
            if slope is not None:
                label += f", $S_{{{layer_symbol(layer)}}}$ = {signed(slope)}"
            handles.append(entry(palette[point.gamma], kinds.index(_kind(point)), label))
    else:
        handles = [
            entry(palette[gamma], None, key_label(f"scaling.{axes[0]}", gamma))
            for gamma in sorted(palette, reverse=True)
        ]
        if len(kinds) > 1:
            handles += [
                entry("0.35", k, ", ".join(_kind_label(kind, with_prime, axes)))
                for k, kind in enumerate(kinds)
            ]
    figure.set_figheight(max(2.8, 0.17 * len(handles) + 0.4))
    figure.legend(handles=handles, loc="outside right center")


def _kind_label(kind: Kind, with_prime: bool, axes: tuple[str, str]) -> list[str]:
    prime = [key_label(f"scaling.{axes[1]}", kind[0])] if with_prime else []
    return prime + [key_label(key, value) for key, value in kind[1]]


def _decades(axes: Axes) -> None:
    """Label a few plain numbers when an axis covers too little to show two powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        low, high = np.log10(limits)
        if np.floor(high) - np.ceil(low) >= 1:
            axis.set_minor_formatter(NullFormatter())
            continue
        decades = 10.0 ** np.arange(np.floor(low), np.ceil(high) + 1)
        ticks = [d * k for d in decades for k in (1, 2, 5) if limits[0] <= d * k <= limits[1]]
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axis.set_minor_formatter(NullFormatter())
