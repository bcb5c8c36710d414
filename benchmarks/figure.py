"""The figure of `benchmarks.work_precision`: error of RD against passes, one panel a gamma."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowsim.analysis.figures.style import number, save, styled

from .common import RESULTS, WIDTHS
from .reference import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .work_precision import Row

# The palette of Okabe and Ito, told apart by the colour-blind; every method has a marker besides.
LOOKS = {
    "heun": ("#0072B2", "o"),
    "euler": ("#56B4E9", "s"),
    "gradient-descent": ("#000000", "x"),
    "bs32": ("#E69F00", "^"),
    "dp54": ("#D55E00", "v"),
    "tsit54": ("#CC79A7", "D"),
    "dop853": ("#009E73", "P"),
}


def _panel(axes: Axes, rows: list[Row], gamma: float, letter: str) -> None:
    for method, (colour, marker) in LOOKS.items():
        for width in WIDTHS:
            chosen = [
                (row.n_passes, row.error)
                for row in rows
                if (row.gamma, row.width, row.method) == (gamma, width, method)
                and row.error is not None
                and row.setting != "default"
            ]
            small = width == WIDTHS[0]
            axes.loglog(
                *zip(*sorted(chosen), strict=True) if chosen else ([], []),
                color=colour,
                marker=marker,
                markersize=4.0,
                markerfacecolor="white" if small and marker != "x" else colour,
                markeredgewidth=1.0,
                linewidth=0.8,
                linestyle=(0, (4, 2)) if small else "-",
            )
    default = [
        (row.n_passes, row.error)
        for row in rows
        if (row.gamma, row.method, row.rtol) == (gamma, "auto", 1e-3) and row.error is not None
    ]
    axes.loglog(
        *zip(*default, strict=True), "o", markersize=9.5, markerfacecolor="none",
        markeredgecolor="#0072B2", markeredgewidth=0.8, linestyle="none",
    )  # fmt: skip
    floor = max(load(gamma, width)["relative_difference"] for width in WIDTHS)
    axes.axhspan(1e-12, floor, color="0.9", linewidth=0)
    axes.text(0.03, 0.04, rf"({letter})  $\gamma = {gamma:g}$", transform=axes.transAxes)


@styled
def draw(rows: list[Row]) -> None:
    """Write ``results/work_precision.png`` and ``.pdf``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    gammas = sorted({row.gamma for row in rows})
    figure = Figure(figsize=(7.0, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, -(-len(gammas) // 2), sharex=True, sharey=True)
    for axes, gamma, letter in zip(grid.flat, gammas, "abcdefgh", strict=False):
        _panel(axes, rows, gamma, letter)
    finished = [row for row in rows if row.error]
    errors, passes = ([getattr(row, key) for row in finished] for key in ("error", "n_passes"))
    grid.flat[0].set_ylim(0.4 * min(errors), 2.0 * max(errors))
    grid.flat[0].set_xlim(0.75 * min(passes), 1.6 * max(passes))
    figure.supxlabel("passes over the neurons", fontsize=11)
    figure.supylabel("relative error of RD", fontsize=11)
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4.0, linewidth=0.8, label=method)
        for method, (colour, marker) in LOOKS.items()
    ]
    handles += [
        Line2D(
            [], [], color="0.3", marker="o", markersize=4.0, linewidth=0.8,
            markerfacecolor="white" if small else "0.3",
            linestyle=(0, (4, 2)) if small else "-", label=f"$m =$ {number(float(width))}",
        )
        for width, small in zip(WIDTHS, (True, False), strict=True)
    ]  # fmt: skip
    handles += [
        Line2D(
            [], [], color="none", marker="o", markersize=9.5, markerfacecolor="none",
            markeredgecolor="#0072B2", markeredgewidth=0.8, label=r"auto (heun), rtol $= 10^{-3}$",
        ),
        Patch(color="0.9", linewidth=0, label="within the reference's own accuracy"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=4, columnspacing=1.2)
    for suffix in ("png", "pdf"):
        save(figure, RESULTS / f"work_precision.{suffix}")
