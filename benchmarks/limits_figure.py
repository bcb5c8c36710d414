"""Figures of `benchmarks.limits`: approach to the limits, lines at the birth of condensation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flowsim.analysis.condensation import sorted_cosines
from flowsim.analysis.figures.cosines import draw_matrices
from flowsim.analysis.figures.style import PALETTE, THEORY, panels, save, signed, styled, time_axis

NAMES = {"drawn": "independent", "antisymmetric": "antisymmetric", "quadrature": "quadrature"}


def _medians(found: dict[str, Any], measure: str) -> tuple[np.ndarray, np.ndarray]:
    rows = found["rows"]
    widths = np.array(sorted({row["width"] for row in rows}))
    values = [
        np.median([row["distances"][measure] for row in rows if row["width"] == m]) for m in widths
    ]
    return widths, np.array(values)


def _points(axes: Any, found: dict[str, Any], measure: str, colour: str, label: str) -> None:
    """All networks as dots, and their medians joined."""
    rows = found["rows"]
    axes.plot(
        [row["width"] for row in rows], [row["distances"][measure] for row in rows], ".",
        color=colour, markersize=3.0, alpha=0.5, markeredgewidth=0.0,
    )  # fmt: skip
    rate = signed(found["rates"][measure]["slope"])
    axes.plot(*_medians(found, measure), "o-", color=colour, markersize=4.0, linewidth=1.0,
              label=f"{label}, $m^{{{rate}}}$")  # fmt: skip


def _guide(axes: Any, widths: np.ndarray, height: float) -> None:
    axes.plot(widths, height * np.sqrt(widths[0] / widths), "--", color=THEORY, linewidth=0.9,
              label="$m^{-1/2}$", zorder=0)  # fmt: skip


@styled
def draw(data: dict[str, Any], folder: Path) -> None:
    """Write ``limits.png``, ``limits.pdf`` and ``limits_lines.png``."""
    figure, (lazy, critical, scatter, gathered) = panels(4, width=10.0, height=2.7)
    _points(lazy, data["lazy"], "function", PALETTE[0], "antisymmetric")
    widths, heights = _medians(data["lazy"], "function")
    _guide(lazy, widths, 0.6 * heights[0])
    lazy.set(ylabel=r"$\sup_\tau |f_m - f_\mathrm{NTK}|$", xlabel="width $m$")
    lazy.set_title(r"(a)  linear, $\gamma = 1/2$", fontsize=10.0)
    for (name, found), colour in zip(data["approach"].items(), PALETTE, strict=False):
        _points(critical, found, "function", colour, NAMES[name])
    widths, heights = _medians(data["approach"]["drawn"], "function")
    _guide(critical, widths, 1.6 * heights[0])
    critical.set(ylabel=r"$\sup_\tau |f_m - f|$", xlabel="width $m$")
    critical.set_title(r"(b)  mean field, $\gamma = 1$", fontsize=10.0)
    sampling, limit = data["sampling"], data["mean_field"]
    change = next(line["relative_change"] for line in reversed(limit) if line["rtol"] == 1e-3)
    for row in sampling["rows"]:
        scatter.plot([row["width"]] * len(row["changes"]), row["changes"], ".", color=PALETTE[0],
                     markersize=3.0, alpha=0.5, markeredgewidth=0.0)  # fmt: skip
        scatter.plot(row["width"], row["published"], "x", color=PALETTE[1], markersize=5.0)
    scatter.axhline(change, color=THEORY, linewidth=0.9, zorder=0, label=r"$m = \infty$")
    scatter.plot([], [], ".", color=PALETTE[0], label="networks")
    scatter.plot([], [], "x", color=PALETTE[1], markersize=5.0, linestyle="", label="published")
    scatter.set(xscale="log", ylabel=r"RD of $w$", xlabel="width $m$")
    scatter.set_title(r"(c)  around the limit, $\gamma = 1$", fontsize=10.0)
    for axes in (lazy, critical):
        axes.set(xscale="log", yscale="log")
    critical.set_ylim(bottom=5e-7)  # room for the legend
    ends = data["condensed"]
    leading = np.array(ends["leading"])
    for k in range(leading.shape[1]):
        gathered.plot(ends["time"], leading[:, k], color=PALETTE[k],
                      label=f"{k + 1} leading" if k else "leading")  # fmt: skip
    gathered.axhline(0.95, color="0.5", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    gathered.set(ylim=(0.0, 1.03), ylabel="share of the amplitude")
    gathered.set_title(rf"(d)  condensed, $\gamma = 1.75$, $m = {ends['width']}$", fontsize=10.0)
    time_axis(gathered, ends["time"])
    for axes in (lazy, critical, scatter, gathered):
        axes.legend(loc="lower left" if axes is critical else "best", fontsize=7.5)
    for suffix in ("png", "pdf"):
        save(figure, folder / f"limits.{suffix}")
    titles = {"tanh": "tanh, $p = 1$", "x_tanh_x": r"$x\,$tanh$\,x$, $p = 2$",
              "x2_tanh_x": r"$x^2\,$tanh$\,x$, $p = 3$"}  # fmt: skip
    matrices = {}
    for line in data["lines"]:
        # The matrix of cosines is the Gram matrix of directions: these, up to a rotation.
        values, vectors = np.linalg.eigh(np.array(line["cosines"]))
        units = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        matrices[titles[line["activation"]]] = sorted_cosines(units[-6:])[0]
    save(draw_matrices(matrices), folder / "limits_lines.png")
