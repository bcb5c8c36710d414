"""Figures of `rhs`, `deep`, `width`, `threads`, `ensemble`, `stiff` under ``results/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.analysis.figures.style import number, save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .rhs import Case
    from .threads import Row

# The palette of Okabe and Ito, told apart by the colour-blind; hatches and markers besides.
PROGRAM_LOOKS = {
    "flowsim": ("#0072B2", ""),
    "NumPy": ("#E69F00", "////"),
    "PyTorch eager": ("#D55E00", "\\\\\\\\"),
    "torch.compile": ("#CC79A7", "...."),
    "JAX jit": ("#009E73", "xxxx"),
    "NumPy in blocks": ("#999999", "----"),
    "torch.compile, sums written out": ("#56B4E9", "||||"),
}
PASS_LOOKS = {
    "outputs": ("#0072B2", "o"),
    "rate": ("#E69F00", "s"),
    "advance": ("#009E73", "D"),
    "copy": ("#000000", "x"),
}
METHOD_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
METHOD_MARKERS = "osD^vPX"
DTYPE_LOOKS = {"float64": ("#0072B2", "o", "-"), "float32": ("#D55E00", "s", "--")}
DOUBLE_COLUMN = 7.0


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Figure, folder: Path, name: str) -> None:
    for suffix in ("png", "pdf"):
        save(figure, folder / f"{name}.{suffix}")


@styled
def draw_rhs(cases: Sequence[Case], folder: Path) -> None:
    """Time over roofline time, a panel a dtype, a group of bars a shape."""
    figure = _figure(DOUBLE_COLUMN, 4.6)
    dtypes = list(dict.fromkeys(case.dtype for case in cases))
    panels = np.atleast_1d(figure.subplots(len(dtypes), 1, sharex=True, sharey=True))
    breadth = 0.86 / len(PROGRAM_LOOKS)
    for axes, dtype, letter in zip(panels, dtypes, "ab", strict=False):
        chosen = [case for case in cases if case.dtype == dtype]
        for place, (name, (colour, hatch)) in enumerate(PROGRAM_LOOKS.items()):
            here = [
                (group + (place + 0.5) * breadth - 0.43, case.over_roofline[name])
                for group, case in enumerate(chosen)
                if name in case.over_roofline
            ]
            if not here:
                continue
            where, heights = zip(*here, strict=True)
            axes.bar(
                where, [height - 1.0 for height in heights], 0.9 * breadth, bottom=1.0,
                color=colour if not hatch else "white", edgecolor=colour, hatch=hatch,
                linewidth=0.8, label=name,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.axhline(1.0, color="0.2", linewidth=0.8)
        axes.axhline(2.0, color="0.5", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        axes.text(0.02, 0.9, f"({letter})  {dtype}", transform=axes.transAxes)
        axes.tick_params(axis="x", length=0)
        shapes = [
            rf"$m =$ {number(float(m))}, $n = {n}$, $d = {d}$"
            for m, n, d in (case.shape for case in chosen)
        ]
        axes.set_xticks(range(len(chosen)), shapes)
        axes.set_xlim(-0.5, len(chosen) - 0.5)
    low = min(value for case in cases for value in case.over_roofline.values())
    high = max(value for case in cases for value in case.over_roofline.values())
    panels[0].set_ylim(min(0.8, 0.8 * low), 2.2 * high)
    figure.supylabel("time / roofline time", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, columnspacing=1.2)
    _write(figure, folder, "rhs")


@styled
def draw_deep(lines: Sequence[dict[str, Any]], races: Sequence[dict[str, Any]], folder: Path):
    """Steps over what the machine needs, and the programs' times over flowsim's."""
    figure = _figure(DOUBLE_COLUMN, 2.8)
    machine, programs = figure.subplots(1, 2, width_ratios=(1.0, 1.4))
    labels, heights = [], []
    for line in lines:
        few = line["n"] <= 16
        labels.append(f"{line['method']}\n$n = {line['n']}$")
        heights.append(line["in_reads"] if few else 1.0 / line["of_gemm"])
    machine.bar(range(len(lines)), heights, 0.6, color=PROGRAM_LOOKS["flowsim"][0])
    machine.axhline(1.0, color="0.2", linewidth=0.8)
    machine.set_xticks(range(len(lines)), labels)
    machine.set_ylabel("step / limit of the machine")
    machine.set_ylim(0.0, 1.25 * max(heights))
    names = list(dict.fromkeys(name for race in races for name in race["milliseconds"]))
    breadth = 0.8 / len(names)
    for place, name in enumerate(names):
        colour, hatch = PROGRAM_LOOKS[name]
        here = [
            (group + (place + 0.5) * breadth - 0.4, race["over_flowsim"].get(name, 1.0))
            for group, race in enumerate(races)
            if name in race["milliseconds"]
        ]
        where, ratios = zip(*here, strict=True)
        programs.bar(
            where, ratios, 0.9 * breadth, color=colour if not hatch else "white",
            edgecolor=colour, hatch=hatch, linewidth=0.8, label=name,
        )  # fmt: skip
    programs.axhline(1.0, color="0.2", linewidth=0.8)
    programs.set_xticks(
        range(len(races)), [rf"$m = {race['width']}$, $n = {race['n']}$" for race in races]
    )
    programs.tick_params(axis="x", length=0)
    programs.set_ylabel("step / flowsim's")
    programs.set_ylim(0.0, 1.3 * max(max(race["over_flowsim"].values()) for race in races))
    programs.legend(loc="upper right", ncols=2, columnspacing=1.0)
    for axes, letter in ((machine, "a"), (programs, "b")):
        axes.text(0.04, 0.92, f"({letter})", transform=axes.transAxes)
    _write(figure, folder, "deep")


@styled
def draw_threads(rows: Sequence[Row], folder: Path) -> None:
    """Gain from all threads against m, a panel a pair of n and d; float32 is hollow."""
    from matplotlib.lines import Line2D

    figure = _figure(DOUBLE_COLUMN, 2.7)
    pairs = list(dict.fromkeys(row.shape[1:] for row in rows))
    panels = np.atleast_1d(figure.subplots(1, len(pairs), sharey=True))
    for axes, pair, letter in zip(panels, pairs, "abcdef", strict=False):
        for name, (colour, marker) in PASS_LOOKS.items():
            for dtype, style in (("float64", "-"), ("float32", "--")):
                chosen = [row for row in rows if row.shape[1:] == pair and row.dtype == dtype]
                axes.semilogx(
                    [row.shape[0] for row in chosen], [row.gain[name] for row in chosen],
                    color=colour, marker=marker, linestyle=style, linewidth=0.9, markersize=4.5,
                    markerfacecolor="white" if dtype == "float32" and marker != "x" else colour,
                )  # fmt: skip
        axes.axhline(rows[0].threads, color="0.5", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        axes.text(0.05, 0.05, rf"({letter})  $n = {pair[0]}$, $d = {pair[1]}$",
                  transform=axes.transAxes)  # fmt: skip
        axes.margins(x=0.12)
    panels[0].set_ylim(0.0, rows[0].threads + 0.25)
    panels[0].set_ylabel(f"time on 1 thread / on {rows[0].threads}")
    figure.supxlabel("width $m$", fontsize=11)
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=0.9, label=name)
        for name, (colour, marker) in PASS_LOOKS.items()
    ]
    handles.append(Line2D([], [], color="0.3", marker="o", markersize=4.5, linewidth=0.9,
                          linestyle="--", markerfacecolor="white", label="float32"))  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    _write(figure, folder, "threads")


@styled
def draw_width(costs: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], folder: Path):
    """Seconds, and nanoseconds a neuron, of a step against m; memory in copies of the state."""
    figure = _figure(DOUBLE_COLUMN, 2.7)
    total, each, memory = figure.subplots(1, 3)
    for line in costs:
        colour, marker, style = DTYPE_LOOKS[line["dtype"]]
        widths, seconds = np.array(line["widths"]), np.array(line["seconds"])
        look = dict(color=colour, marker=marker, markersize=3.8, linewidth=0.9, linestyle=style)
        label = rf"{line['dtype']}, $\propto m^{{{line['exponent']:.2f}}}$"
        total.loglog(widths, seconds, label=label, **look)
        each.loglog(widths, 1e9 * seconds / widths, label=line["dtype"], **look)
    total.set(xlabel="width $m$", ylabel="seconds a step")
    total.legend(loc="upper left")
    low, high = each.get_ylim()
    each.set(xlabel="width $m$", ylabel="ns a step and neuron", ylim=(min(0.5 * low, 1), 2 * high))
    for k, method in enumerate(dict.fromkeys(line["method"] for line in found)):
        chosen = [line for line in found if line["method"] == method]
        memory.semilogx(
            [line["width"] for line in chosen], [line["copies"] for line in chosen],
            color=METHOD_COLOURS[k], marker=METHOD_MARKERS[k], markersize=4.5, linewidth=0.9,
            label=method,
        )  # fmt: skip
    memory.set(xlabel="width $m$", ylabel="peak memory / state")
    memory.set_ylim(0.0, 1.35 * max(line["copies"] for line in found))
    memory.margins(x=0.12)
    memory.legend(loc="upper right", ncols=2, columnspacing=1.0)
    for axes, letter in ((total, "a"), (each, "b"), (memory, "c")):
        place = {"x": 0.95, "ha": "right"} if letter == "a" else {"x": 0.05, "ha": "left"}
        axes.text(y=0.05, s=f"({letter})", transform=axes.transAxes, **place)
    _write(figure, folder, "width")


@styled
def draw_ensemble(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Networks a second against the error of RD: median, and a line up to the largest."""
    figure = _figure(3.5, 2.8)
    axes = figure.subplots()
    for k, row in enumerate(rows):
        speed = row["networks_a_second"]
        axes.loglog(
            [row["median_error"], row["largest_error"]], [speed, speed],
            color=METHOD_COLOURS[k], linewidth=0.9, marker="|", markevery=[1],
        )  # fmt: skip
        axes.loglog([row["median_error"]], [speed], color=METHOD_COLOURS[k],
                    marker=METHOD_MARKERS[k], label=row["contestant"],
                    linestyle="none")  # fmt: skip
    speeds = [row["networks_a_second"] for row in rows]
    errors = [row[key] for row in rows for key in ("median_error", "largest_error")]
    axes.set_ylim(0.5 * min(speeds), 6.0 * max(speeds))
    axes.set_xlim(0.5 * min(errors), 2.0 * max(errors))
    axes.set(xlabel="relative error of RD, median and largest", ylabel="networks a second")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1.0)
    _write(figure, folder, "ensemble")


@styled
def draw_stiff(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Largest error of the residual against gradients, and against seconds, a line a solver."""
    figure = _figure(DOUBLE_COLUMN, 3.1)
    panels = figure.subplots(1, 2, sharey=True)
    ended = [row for row in rows if row["largest_error"]]
    solvers = list(dict.fromkeys(row["solver"] for row in ended))
    for axes, key in zip(panels, ("n_rhs", "seconds"), strict=True):
        for k, solver in enumerate(solvers):
            points = sorted(
                (row["rtol"], row[key], row["largest_error"])
                for row in ended
                if row["solver"] == solver and row[key]
            )
            mine = " " not in solver
            axes.loglog(
                [point[1] for point in points], [point[2] for point in points],
                color=METHOD_COLOURS[k % len(METHOD_COLOURS)],
                marker=METHOD_MARKERS[k % len(METHOD_MARKERS)], markersize=4.5, linewidth=0.9,
                linestyle="-" if mine else "--", markerfacecolor=None if mine else "white",
                label=f"flowsim {solver}" if mine else solver,
            )  # fmt: skip
    panels[0].set(xlabel="gradients", ylabel="largest error of the residual")
    panels[1].set(xlabel="seconds")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, columnspacing=1.2)
    _write(figure, folder, "stiff")
