"""Orientation of the neurons against their amplitude: condensation at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowsim.analysis.collect import Source, has_bias, is_deep
from flowsim.analysis.figures.style import Row, new_figure, one_run, styled
from flowsim.errors import ConfigError, FileFormatError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flowsim.recording.reader import RunFile

SCALES = ("linear", "log")
MAX_NEURONS = 20000
COLOURS = {"initial": "0.55", "final": "#D55E00"}
# Vector graphics of more symbols than this are slow to open.
_RASTER = 3000


@dataclass(frozen=True)
class Features:
    """Where the neurons of one snapshot are.

    Attributes
    ----------
    neuron : ndarray of shape (neurons,), int64
        Their numbers; neurons of zero norm, which have no orientation, are left out.
    orientation : ndarray of shape (neurons,), float64
        The angle atan2(bias, weight) for one input with bias, otherwise the projection of w/|w| on
        (1, ..., 1)/sqrt(d), the bias coordinate included.
    amplitude : ndarray of shape (neurons,), float64
        A = |a| |w| in normalised variables.
    """

    neuron: npt.NDArray[np.int64]
    orientation: npt.NDArray[np.float64]
    amplitude: npt.NDArray[np.float64]


def features(
    output_weights: npt.ArrayLike,
    input_weights: npt.ArrayLike,
    *,
    angle: bool,
    max_neurons: int = MAX_NEURONS,
) -> Features:
    """Return orientation and amplitude of the neurons (DESIGN section 3, condensation).

    Parameters
    ----------
    output_weights : array_like of shape (m,)
    input_weights : array_like of shape (d, m)
        The bias last when there is one.
    angle : bool
        One input with bias: the angle; otherwise the projection.
    max_neurons : int
        Of more neurons, that many evenly spaced ones are taken.
    """
    a = np.asarray(output_weights, dtype=np.float64)
    w = np.asarray(input_weights, dtype=np.float64)
    stride = max(1, -(-a.shape[-1] // max_neurons))
    a, w = a[..., ::stride], w[:, ::stride]
    norm = np.linalg.norm(w, axis=0)
    usable = np.isfinite(norm) & (norm > 0.0)
    neuron = np.flatnonzero(usable).astype(np.int64)
    a, w, norm = a[..., usable], w[:, usable], norm[usable]
    if angle:
        orientation = np.arctan2(w[1], w[0])
    else:
        orientation = np.sum(w, axis=0) / (norm * np.sqrt(w.shape[0]))
    # Several outputs: the norm of a neuron's output weights.
    size = np.abs(a) if a.ndim == 1 else np.linalg.norm(a, axis=0)
    return Features(neuron * stride, orientation, size * norm)


def read_features(run: RunFile, *, max_neurons: int = MAX_NEURONS) -> dict[str, Features]:
    """Return the features of the first snapshot ("initial") and of the end ("final").

    Runs without snapshots have no "initial", runs that were killed end with their last snapshot.
    """
    if is_deep(run):
        raise ConfigError(
            f"{run.path}: a neuron of a deep network has no output weight of its own; give a "
            "two-layer run"
        )
    angle = is_angle(run)
    states: dict[str, tuple[Any, Any]] = {}
    names = ("output_weights", "input_weights")
    rows = run.snapshots.shape("time_snapshot")[0] if names[0] in run.snapshots else 0
    # Row by row: all the snapshots of a wide network may not fit into memory.
    if rows > 0:
        states["initial"] = (run.snapshots.row(names[0], 0), run.snapshots.row(names[1], 0))
    if rows > 1:
        last = rows - 1
        states["final"] = (run.snapshots.row(names[0], last), run.snapshots.row(names[1], last))
    if "output_weights" in run.final:
        states["final"] = (run.final["output_weights"], run.final["input_weights"])
    if not states:
        raise FileFormatError(
            f"{run.path}: holds no weights, neither snapshots nor an end; record snapshots"
        )
    return {
        name: features(a, w, angle=angle, max_neurons=max_neurons)
        for name, (a, w) in states.items()
    }


def is_angle(run: RunFile) -> bool:
    """Whether the run has one input and a bias, so that an angle says it all."""
    return int(run.attributes["n_inputs"]) == 2 and has_bias(run)


def features_rows(states: dict[str, Features]) -> list[Row]:
    """Return one row for every plotted neuron."""
    return [
        {"state": name, "neuron": int(k), "orientation": float(o), "amplitude": float(amplitude)}
        for name, state in states.items()
        for k, o, amplitude in zip(state.neuron, state.orientation, state.amplitude, strict=True)
    ]


@styled
def make_features_figure(
    run: RunFile, *, scale: str = "linear", max_neurons: int = MAX_NEURONS
) -> Figure:
    """Draw the orientation of every neuron against its amplitude, initial and final.

    Parameters
    ----------
    run : RunFile
        An open run.
    scale : {"linear", "log"}
        Scale of the amplitude.
    max_neurons : int
        Of more neurons, that many evenly spaced ones are drawn.

    Raises
    ------
    ConfigError
        Unknown scale, or ``max_neurons`` below 1.
    FileFormatError
        A run that holds no weights.
    """
    _check(scale, max_neurons)
    return _draw(read_features(run, max_neurons=max_neurons), is_angle(run), scale)


def draw(
    source: Source,
    *,
    scale: str = "linear",
    max_neurons: int = MAX_NEURONS,
    member: int | None = None,
) -> tuple[Figure, list[Row]]:
    """Return the figure and its numbers (see `make_features_figure`)."""
    _check(scale, max_neurons)
    with one_run(source, member) as run:
        states = read_features(run, max_neurons=max_neurons)
        return _draw(states, is_angle(run), scale), features_rows(states)


@styled
def _draw(states: dict[str, Features], angle: bool, scale: str) -> Figure:
    from matplotlib.lines import Line2D

    figure, axes = new_figure(3.6, 2.9)
    for name, state in states.items():
        count = state.neuron.size
        axes.scatter(
            state.amplitude,
            state.orientation,
            s=float(np.clip(3e4 / max(count, 1), 1.5, 12.0)),
            color=COLOURS[name],
            alpha=0.8 if count < 300 else 0.5,
            linewidths=0.0,
            rasterized=count > _RASTER,
        )
    axes.set_xscale(scale)
    if scale == "linear":
        axes.set_xlim(left=0.0)
    axes.set_xlabel(r"$A_k = |a_k|\,|w_k|$")
    if angle:
        axes.set_ylim(-1.06 * np.pi, 1.06 * np.pi)
        axes.set_yticks(
            np.pi * np.arange(-2, 3) / 2, [r"$-\pi$", r"$-\pi/2$", "$0$", r"$\pi/2$", r"$\pi$"]
        )
        axes.set_ylabel(r"orientation of $w_k$")
    else:
        axes.set_ylim(-1.06, 1.06)
        axes.set_ylabel(r"$w_k \cdot \mathbf{1} \,/\, (|w_k| \sqrt{d})$")
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=4.0, color=COLOURS[name], label=name)
        for name in states
    ]
    # Above the axes: the neurons may lie anywhere inside.
    axes.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        handletextpad=0.2,
        borderaxespad=0.2,
    )
    return figure


def _check(scale: str, max_neurons: int) -> None:
    if scale not in SCALES:
        raise ConfigError(f"scale = {scale!r}: unknown; choose from {', '.join(SCALES)}")
    if max_neurons < 1:
        raise ConfigError(f"max_neurons = {max_neurons}: nothing to draw; give 1 or more")
