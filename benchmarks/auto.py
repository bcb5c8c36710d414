"""``auto`` beside every single method, at equal error: ``python -m benchmarks auto``.

Five flows that ask for different methods: at the beginning, where accuracy holds the step; in a
stiff tail; in the linear regime; in the mean field; from small weights. The work of a single method
at the error of ``auto`` lies between those of its tolerances, by powers, and no method counts as
cheaper than at its coarsest tolerance. Passes are what they are; seconds are the processor's, which
next to other work keep some of their sense.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict

from flowsim.steppers.methods import choose_method

from .common import Table, number, report
from .problems import PROBLEMS, Problem
from .stiff import Row, cost_at, ours
from .stiff_reference import run

FLOWS = ("transient", "tail", "lazy", "mean-field", "condensed")
SINGLE = (
    "bs32", "dp54", "tsit54", "dop853", "rdpk35", "rkc2", "ros2", "ros34pw2", "exponential",
    "implicit-euler",
)  # fmt: skip
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Of ``auto``; of single methods one more on either side."""
COARSER, FINER = 1e-1, 1e-6
LIMIT = 10.0
"""Seconds after which a method is stopped: it is not the best one then."""
SHORT = 2.0
"""Seconds up to which a run is repeated."""
WANTED = 1.5
COSTS = {"n_passes": "passes", "seconds": "processor s"}


def measure(problem: Problem, quick: bool) -> list[Row]:
    """``auto`` and every single method at every tolerance."""
    auto = choose_method(problem.flow().kinked, TOLERANCES[0])
    own, rows = TOLERANCES[1:2] if quick else TOLERANCES, []
    for method in (auto, *SINGLE):
        run(problem, method, 1.0, rtol=1e-2, atol=1e-5)  # compiled before the clock runs
        single = (*([] if quick else [COARSER]), *own, *([] if quick else [FINER]))
        for rtol in own if method == auto else single:
            row = _timed(problem, method, rtol)
            rows.append(row)
            if row.error is None and method != auto:
                break  # smaller tolerances take longer still
    return rows


def _timed(problem: Problem, method: str, rtol: float) -> Row:
    """A run with its processor time, the least of three if it is short."""
    found, spent = _clocked(problem, method, rtol)
    if spent < SHORT and found.error is not None:
        spent = min(spent, *(_clocked(problem, method, rtol)[1] for _ in range(2)))
    found.seconds = spent
    return found


def _clocked(problem: Problem, method: str, rtol: float) -> tuple[Row, float]:
    started = time.process_time()
    found = ours(problem, method, rtol, LIMIT)
    return found, time.process_time() - started


def best(rows: list[Row], row: Row, key: str) -> tuple[float, str]:
    """The least cost of a single method at the error of a row of ``auto``, and which it is."""
    costs = {
        method: cost_at([one for one in rows if one.solver == method], row.largest_error or 0.0,
                        key, "largest_error")
        for method in SINGLE
    }  # fmt: skip
    known = {method: cost for method, cost in costs.items() if not math.isnan(cost)}
    if not known:
        return math.nan, "-"
    method = min(known, key=lambda name: known[name])
    return known[method], method


def summary(rows: list[Row]) -> Table:
    """Work of ``auto`` over that of the best single method."""
    heads = [f"{words}, the best's, its name, ratio" for words in COSTS.values()]
    table = Table(
        f"auto beside the best single method at equal error (wanted: at most {WANTED:g} times)",
        ["flow", "rtol", "error", *heads],
    )
    worst = dict.fromkeys(COSTS, 0.0)
    for name in FLOWS:
        here = [row for row in rows if row.problem == name]
        for row in here:
            if row.solver in SINGLE:
                continue
            cells = []
            for key in COSTS:
                own = getattr(row, key)
                cost, method = best(here, row, key)
                ratio = own / cost
                worst[key] = max(worst[key], ratio)
                form = ".0f" if key == "n_passes" else ".2g"
                cells.append(f"{own:{form}}, {cost:{form}} {method}, **{ratio:.2f}**")
            table.rows.append([name, f"{row.rtol:.0e}", number(row.largest_error), *cells])
    most = ", ".join(f"{value:.2f} in {COSTS[key]}" for key, value in worst.items())
    table.note = f"Errors: the largest over the problem's times. The largest ratios: {most}."
    return table


def details(rows: list[Row], problem: Problem) -> Table:
    """Every run on one flow."""
    table = Table(
        f"{problem.name}: {problem.about} (m = {problem.width}, gamma = {problem.gamma:g}, "
        f"tau up to {problem.end:g})",
        ["method", "rtol", "passes", "Grams", "processor s", "error at T", "largest", "remark"],
    )
    for row in rows:
        if row.problem == problem.name:
            table.rows.append(
                [
                    row.solver, f"{row.rtol:.0e}", str(row.n_passes), str(row.n_grams),
                    f"{row.seconds:.3g}", number(row.error), number(row.largest_error), row.remark,
                ]
            )  # fmt: skip
    return table


def main(quick: bool = False) -> None:
    """Measure and report."""
    names = FLOWS[:1] if quick else FLOWS
    rows = [row for name in names for row in measure(PROBLEMS[name], quick)]
    tables = [summary(rows), *(details(rows, PROBLEMS[name]) for name in names)]
    report("auto", tables, [asdict(row) for row in rows], quick)
