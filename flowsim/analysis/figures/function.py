"""The learnt function against the data, for one input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flowsim.analysis.collect import Source, has_bias
from flowsim.analysis.figures.style import Row, colours, new_figure, one_run, styled
from flowsim.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flowsim.recording.reader import RunFile

Array = npt.NDArray[np.float64]
Predict = Callable[[Array], npt.ArrayLike]
GRID = 601
# The line goes on a little beyond the samples: how a network extrapolates tells its regime.
_BEYOND = 0.15


def function_rows(run: RunFile, predict: Predict | None = None, *, points: int = GRID) -> list[Row]:
    """Return the plotted numbers: rows of kind "sample" (x, y) and "function" (x, f).

    Several outputs are told apart by the column ``output``.
    """
    x, y = _samples(run)
    grid, f = _function(run, x, predict, points)
    rows: list[Row] = []
    for kind, at, values in (("sample", x, y), ("function", grid, f)):
        for k in range(values.shape[1]):
            rows += [
                {"kind": kind, "output": k, "x": float(p), "value": float(v)}
                for p, v in zip(at, values[:, k], strict=True)
            ]
    return rows


@styled
def make_function_figure(
    run: RunFile, predict: Predict | None = None, *, points: int = GRID
) -> Figure:
    """Draw f(x) with the samples.

    Parameters
    ----------
    run : RunFile
        An open run with one input.
    predict : callable, optional
        Takes inputs of shape (points, 1), without the bias coordinate, and returns f of shape
        (points,) or (points, outputs). Default: ``run.predict``.
    points : int
        Points of the curve, besides the samples themselves.

    Raises
    ------
    ConfigError
        A run with several inputs, or one that cannot predict.
    """
    return _draw(function_rows(run, predict, points=points))


def draw(
    source: Source,
    *,
    predict: Predict | None = None,
    points: int = GRID,
    member: int | None = None,
) -> tuple[Figure, list[Row]]:
    """Return the figure and its numbers (see `make_function_figure`)."""
    with one_run(source, member) as run:
        rows = function_rows(run, predict, points=points)
    return _draw(rows), rows


def _samples(run: RunFile) -> tuple[Array, Array]:
    """Return the inputs, shape (n,), and the targets, shape (n, outputs)."""
    x = np.asarray(run.data["x"], dtype=np.float64)
    y = np.asarray(run.data["y"], dtype=np.float64)
    inputs = x.shape[1] - int(has_bias(run))
    if inputs != 1:
        raise ConfigError(
            f"path = {run.path}: has {inputs} inputs and this figure shows one; "
            "use the figure 'loss', or 'features' for two layers"
        )
    return x[:, 0], y.reshape(len(y), -1)


def _function(run: RunFile, x: Array, predict: Predict | None, points: int) -> tuple[Array, Array]:
    if points < 2:
        raise ConfigError(f"points = {points}: a curve needs two; try {GRID}")
    predict = predict if predict is not None else getattr(run, "predict", None)
    if predict is None:
        raise ConfigError(
            "predict = None: this run was opened for reading only; pass the run that "
            "flowsim.open gives, or predict = a function of x"
        )
    low, high = float(x.min()), float(x.max())
    beyond = _BEYOND * (high - low) if high > low else 1.0
    grid = np.unique(np.concatenate([np.linspace(low - beyond, high + beyond, points), x]))
    f = np.asarray(predict(grid[:, None]), dtype=np.float64)
    return grid, f.reshape(len(grid), -1)


@styled
def _draw(rows: list[Row]) -> Figure:
    outputs = sorted({row["output"] for row in rows})
    palette = ["#0072B2"] if len(outputs) == 1 else colours(len(outputs))
    figure, axes = new_figure(3.5, 2.7)
    for k, colour in zip(outputs, palette, strict=True):
        name = "$f$" if len(outputs) == 1 else f"$f_{{{k + 1}}}$"
        curve = [(r["x"], r["value"]) for r in rows if r["kind"] == "function" and r["output"] == k]
        data = [(r["x"], r["value"]) for r in rows if r["kind"] == "sample" and r["output"] == k]
        axes.plot(*zip(*curve, strict=True), color=colour, label=name, zorder=2)
        axes.plot(
            *zip(*data, strict=True),
            "o",
            color="black" if len(outputs) == 1 else colour,
            markersize=4.0,
            markeredgecolor="white",
            markeredgewidth=0.5,
            label="data" if k == outputs[-1] else None,
            zorder=3,
        )
    axes.set(xlabel="$x$", ylabel="$f(x)$")
    axes.legend(loc="best")
    return figure
