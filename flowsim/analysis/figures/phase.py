"""The phase diagram: S over gamma and gamma_prime, measured and predicted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowsim.analysis.classification import (
    VERDICTS,
    Classification,
    Point,
)
from flowsim.analysis.collect import Source
from flowsim.analysis.figures.labels import place_label
from flowsim.analysis.figures.style import (
    Row,
    check_layer,
    key_symbol,
    layer_symbol,
    new_figure,
    styled,
    warn_skipped,
)
from flowsim.analysis.figures.theory import boundary_of, near, schemes_of
from flowsim.analysis.zero_line import ZeroPoint, zero_line
from flowsim.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

# Red and blue of equal weight around white: the sign of S survives every common colour blindness.
COLOUR_MAP = "RdBu_r"
MARKERS = {"linear": "v", "critical": "D", "condensed": "^", "undetermined": "X"}


def phase_rows(
    classification: Classification,
    *,
    layer: str = "input",
    schemes: bool = True,
    where: str | None = None,
) -> list[Row]:
    """Return one row for every plotted symbol: kind "point", "zero" or "scheme"."""
    points, zeros = _select(classification, layer, where)
    first, second = points[0].axes
    rows: list[Row] = []
    for point in points:
        verdict = point.layers[layer]
        low, high = verdict.ci or (None, None)
        rows.append(
            {
                "kind": "point",
                point.axes[0]: point.gamma,
                point.axes[1]: point.gamma_prime,
                "layer": layer,
                "slope": verdict.slope,
                "ci_low": low,
                "ci_high": high,
                "regime": verdict.regime,
                "predicted_slope": verdict.predicted_slope,
                "predicted_regime": verdict.predicted_regime,
            }
        )
    rows += [
        {"kind": "zero", z.axes[0]: z.gamma, z.axes[1]: z.gamma_prime, "layer": layer}
        for z in zeros
    ]
    if schemes:
        rows += [
            {"kind": "scheme", first: at[0], second: at[1], "name": ", ".join(names)}
            for at, names in schemes_of(points[0].axes).items()
        ]
    return rows


@styled
def make_phase_figure(
    classification: Classification,
    *,
    layer: str = "input",
    schemes: bool = True,
    where: str | None = None,
) -> Figure:
    """Draw the map of S with theory, zeros and the named schemes.

    Cells (or, for points off a grid, a linear interpolation) and symbols have the colour of S, the
    symbol is that of the measured regime. Points without a slope are white.

    Parameters
    ----------
    classification : Classification
        From `flowsim.analysis.classify`.
    layer : str
        input, output, all; for deep networks also hidden_2, hidden_2_frobenius, ...
    schemes : bool
        Mark the named schemes that lie near the measured points.
    where : str, optional
        ``"key=value"`` selects among points that differ in more than the scaling.

    Raises
    ------
    ConfigError
        Unknown layer or selection, no point, or several at one place.
    """
    points, zeros = _select(classification, layer, where)
    gamma = np.array([point.gamma for point in points])
    prime = np.array([point.gamma_prime for point in points])
    slope = np.array([_slope(point, layer) for point in points])
    named = near(schemes_of(points[0].axes), gamma, prime) if schemes else {}
    figure, axes = new_figure(4.9, 3.9)
    span, extend = _span(slope)
    look: dict[str, Any] = {"cmap": COLOUR_MAP, "vmin": -span, "vmax": span}
    _limits(axes, gamma, prime, list(named))
    coloured = _map(axes, gamma, prime, slope, look)
    _symbols(axes, points, layer, look)
    _theory(axes, points, layer)
    if zeros:
        axes.plot(
            [zero.gamma for zero in zeros],
            [zero.gamma_prime for zero in zeros],
            "*",
            markersize=8.0,
            color="#FFD320",
            markeredgecolor="black",
            markeredgewidth=0.6,
            zorder=6,
        )
    across, up = (key_symbol(f"scaling.{name}") for name in points[0].axes)
    axes.set(xlabel=across, ylabel=up)
    bar = figure.colorbar(coloured, ax=axes, pad=0.02, aspect=24, extend=extend)
    bar.set_label(rf"$S_{{{layer_symbol(layer)}}}$")
    _legend(axes, points, layer, bool(zeros), bool(named))
    # The labels seek free places, so they come when everything else has its own.
    figure.draw_without_rendering()
    marks = [(z.gamma, z.gamma_prime) for z in zeros]
    line = boundary_of(points, layer, *axes.get_ylim())
    _draw_schemes(axes, named, np.array([*zip(gamma, prime, strict=True), *marks]), line)
    return figure


def draw(
    source: Source,
    *,
    layer: str = "input",
    schemes: bool = True,
    where: str | None = None,
    margin: float = 0.05,
    confidence: float = 0.95,
) -> tuple[Figure, list[Row]]:
    """Classify ``source`` and return the figure and its numbers (see `make_phase_figure`)."""
    from flowsim.analysis.regimes import classify

    check_layer(layer)
    classification = classify(source, margin=margin, confidence=confidence)
    warn_skipped(classification.skipped)
    figure = make_phase_figure(classification, layer=layer, schemes=schemes, where=where)
    return figure, phase_rows(classification, layer=layer, schemes=schemes, where=where)


def _slope(point: Point, layer: str) -> float:
    slope = point.layers[layer].slope
    return np.nan if slope is None else slope


def _span(slope: Array) -> tuple[float, str]:
    """Return the largest colour value and the ends at which the colour bar is open.

    White is 0 and both colours change equally fast. Where one sign reaches much further than the
    other its far end is cut, or the other would look white.
    """
    finite = slope[np.isfinite(slope)]
    down, up = max(-finite.min(initial=0.0), 0.0), max(finite.max(initial=0.0), 0.0)
    span = min(max(down, up), 2.5 * max(min(down, up), 0.2)) or 1.0
    return span, {(True, False): "min", (False, True): "max"}.get(
        (down > span, up > span), "neither"
    )


def _select(
    classification: Classification, layer: str, where: str | None
) -> tuple[list[Point], list[ZeroPoint]]:
    """Return the points to draw and the zeros of this layer's slope among them."""
    check_layer(layer)
    points = list(classification.points)
    if where is not None:
        key, _, value = (part.strip() for part in where.partition("="))
        points = [p for p in points if key in p.other and _same(p.other[key], value)]
        if not points:
            known = sorted({f"{k}={v}" for p in classification.points for k, v in p.other.items()})
            raise ConfigError(
                f"where = {where!r}: selects no point; "
                + (f"choose from {', '.join(known)}" if known else "leave it out, nothing varies")
            )
    check_layer(layer, points)
    if not points:
        raise ConfigError("path: no readable run in it; give a sweep folder")
    if any(np.isnan(p.gamma) for p in points) or len({p.axes for p in points}) > 1:
        raise ConfigError(
            "path: holds networks that have no place on one map; give two-layer networks, or "
            "networks of three layers (hidden_layers = 2)"
        )
    if len({(p.gamma, p.gamma_prime) for p in points}) < len(points):
        keys = sorted({f"{k}={v}" for p in points for k, v in p.other.items()})
        raise ConfigError(
            f"path: holds several points at one ({', '.join(points[0].axes)}); choose with "
            "where = one of " + (", ".join(keys) or "the settings in which they differ")
        )
    usable = [p for p in points if not p.not_converged and p.layers[layer].slope is not None]
    zeros = zero_line(
        [p.gamma for p in usable],
        [p.gamma_prime for p in usable],
        [_slope(p, layer) for p in usable],
        layer=layer,
        axes=points[0].axes,
    )
    return points, list(zeros)


def _same(value: Any, text: str) -> bool:
    return text in (str(value), json.dumps(value, default=str))


def _edges(values: Array) -> Array:
    """Return the borders of cells around sorted centres."""
    if values.size == 1:
        return np.array([values[0] - 0.1, values[0] + 0.1])
    middle = 0.5 * (values[1:] + values[:-1])
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def _limits(axes: Axes, gamma: Array, prime: Array, named: list[tuple[float, float]]) -> None:
    for values, index, setter in ((gamma, 0, axes.set_xlim), (prime, 1, axes.set_ylim)):
        edges = _edges(np.unique(values))
        low, high = edges[0], edges[-1]
        marked = [position[index] for position in named]
        # Room for a symbol at the rim, and for its label.
        room = 0.06 * (high - low)
        low = min([low, *(at - room for at in marked)])
        high = max([high, *(at + room for at in marked)])
        setter(low, high)


def _map(axes: Axes, gamma: Array, prime: Array, slope: Array, look: dict[str, Any]) -> Any:
    """Draw cells for a grid of points, else an interpolation; return it for the colour bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes.set_facecolor("0.93")
    across, up = np.unique(gamma), np.unique(prime)
    if across.size * up.size <= 2 * gamma.size:
        cells = np.full((up.size, across.size), np.nan)
        cells[np.searchsorted(up, prime), np.searchsorted(across, gamma)] = slope
        return axes.pcolormesh(
            _edges(across), _edges(up), np.ma.masked_invalid(cells), rasterized=True, **look
        )
    known = np.isfinite(slope)
    corners = np.column_stack([gamma[known], prime[known]])
    if known.sum() >= 3 and np.linalg.matrix_rank(corners - corners[0], tol=1e-9) == 2:
        look = {"shading": "gouraud", "rasterized": True, **look}
        interpolate: Any = axes.tripcolor
        return interpolate(*corners.T, slope[known], **look)
    return ScalarMappable(Normalize(look["vmin"], look["vmax"]), look["cmap"])


def _symbols(axes: Axes, points: list[Point], layer: str, look: dict[str, Any]) -> None:
    size = 26.0 if len(points) <= 60 else 14.0
    for regime in VERDICTS:
        chosen = [point for point in points if point.layers[layer].regime == regime]
        slope = np.array([_slope(point, layer) for point in chosen])
        for known in (True, False):
            at = [p for p, s in zip(chosen, slope, strict=True) if np.isfinite(s) == known]
            colour: dict[str, Any] = {"color": "white"}
            if known:
                colour = {"c": slope[np.isfinite(slope)], **look}
            # Dark rims vanish on the dark ends of the colour map.
            dark = [known and abs(_slope(p, layer)) > 0.7 * look["vmax"] for p in at]
            axes.scatter(
                [point.gamma for point in at],
                [point.gamma_prime for point in at],
                s=size,
                marker=MARKERS[regime],
                edgecolors=["0.95" if d else "0.15" for d in dark],
                linewidths=0.6,
                zorder=4,
                **colour,
            )


def _theory(axes: Axes, points: list[Point], layer: str) -> None:
    line = boundary_of(points, layer, *axes.get_ylim())
    axes.plot(*line.T, color="white", linewidth=2.8, zorder=3.4, scalex=False, scaley=False)
    axes.plot(*line.T, color="black", linewidth=1.4, zorder=3.5, scalex=False, scaley=False)


def _draw_schemes(
    axes: Axes, named: dict[tuple[float, float], list[str]], marks: Array, line: Array
) -> None:
    from matplotlib.patheffects import withStroke

    taken: list[Array] = []
    for position, names in named.items():
        axes.plot(
            *position,
            "o",
            markersize=10.0,
            color="none",
            markeredgecolor="#007A4D",
            markeredgewidth=1.8,
            zorder=7,
        )
        label = axes.annotate(
            "/".join(names),
            position,
            xytext=(0.0, 0.0),
            textcoords="offset points",
            fontsize=9.5,
            color="#00502F",
            path_effects=[withStroke(linewidth=2.8, foreground="white")],
            zorder=8,
        )
        taken.append(place_label(axes, label, marks, line, taken))


def _legend(axes: Axes, points: list[Point], layer: str, zeros: bool, schemes: bool) -> None:
    """Explain the symbols that occur, under the axes where no point can lie."""
    from matplotlib.lines import Line2D

    shown = {point.layers[layer].regime for point in points}
    edge: dict[str, Any] = {"linestyle": "", "markeredgecolor": "0.15", "markeredgewidth": 0.6}
    handles = [
        Line2D([], [], marker=MARKERS[r], color="0.8", markersize=5.5, label=r, **edge)
        for r in VERDICTS
        if r in shown
    ]
    handles.append(Line2D([], [], color="black", linewidth=1.6, label="theory"))
    if zeros:
        label = rf"$S_{{{layer_symbol(layer)}}} = 0$"
        handles.append(
            Line2D([], [], marker="*", color="#FFD320", markersize=8.5, label=label, **edge)
        )
    if schemes:
        ring: dict[str, Any] = {"markeredgecolor": "#007A4D", "markeredgewidth": 1.6}
        handles.append(
            Line2D([], [], linestyle="", marker="o", color="none", label="schemes", **ring)
        )
    axes.figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=4,
        columnspacing=1.2,
        handletextpad=0.4,
    )
