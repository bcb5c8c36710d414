"""Stiff flows, flowsim's methods beside other solvers: ``python -m benchmarks stiff``.

Gradients, Gram matrices, seconds and the error of the residual vector, for several tolerances; and
what the others take over what flowsim takes for the same error. A method of flowsim that is not
there is left out, so that adding one is one entry of `OURS`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import numpy as np

from flowsim.steppers.methods import METHODS

from .common import Table, number, report, version
from .peers import stiff as peers
from .problems import PROBLEMS, Problem
from .stiff_reference import difference, load, run

OURS = ("switching", "rkc2", "ros2", "ros34pw2", "exponential", "tsit54")
"""Those that are in `METHODS`; the last, an explicit pair, shows what the others save."""
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FINER = ("switching", "ros34pw2")
"""Methods with one more tolerance, below all errors of the others that end in time."""
FEW = (1e-3, 1e-6)
"""Of methods to which stability leaves no choice, or that take long."""
LIMIT = 60.0
"""Seconds after which a solver is stopped."""
MAX_STEPS = {"Tsit5": 100_000, "Kvaerno5": 200}
"""Of diffrax, which cannot be stopped by the clock."""

Solver = Callable[[Problem, float], peers.Solved]


@dataclass
class Row:
    """One solver at one tolerance."""

    problem: str
    solver: str
    rtol: float
    n_rhs: int | None
    n_grams: int | None
    n_passes: int | None
    seconds: float
    error: float | None
    """Of the residual at T: root mean square, relative to that of y."""
    largest_error: float | None
    """The same, largest over the problem's times."""
    remark: str


@cache
def _compile(problem: Problem, method: str) -> None:
    """Run a method once, a large network to the first time only: compiling is not what it costs."""
    small = problem.width <= 1000
    short = problem if small else replace(problem, times=problem.times[:1])
    run(short, method, LIMIT, rtol=1e-2, atol=1e-5)


def ours(problem: Problem, method: str, rtol: float, limit: float = LIMIT) -> Row:
    """A method of flowsim."""
    _compile(problem, method)
    started = time.perf_counter()
    flow, outcome, residuals = run(problem, method, limit, rtol=rtol, atol=1e-3 * rtol)
    seconds = time.perf_counter() - started
    finished = outcome.stop_reason.startswith("t_max")
    counters = outcome.counters
    remark = f"{counters.n_steps} steps" + (
        f", {counters.n_rejected} rejected" if counters.n_rejected else ""
    )
    return _row(
        problem, method, rtol, residuals if finished else [], flow.n_rhs, seconds,
        remark if finished else outcome.stop_reason.partition(":")[0],
        flow.n_grams, flow.n_passes,
    )  # fmt: skip


def theirs(problem: Problem, name: str, solve: Solver, rtol: float) -> Row:
    """Another solver."""
    found = solve(problem, rtol)
    return _row(problem, name, rtol, found.residuals, found.n_rhs, found.seconds, found.remark)


def _row(problem, solver, rtol, residuals, n_rhs, seconds, remark, n_grams=None, n_passes=None):
    errors = None
    if residuals:
        errors = difference(load(problem.name)["residuals"], residuals, problem)
    return Row(
        problem.name, solver, rtol, n_rhs, n_grams, n_passes, seconds,
        errors and errors[-1], errors and max(errors), remark,
    )  # fmt: skip


def _scipy(method: str) -> Solver:
    return lambda problem, rtol: peers.by_scipy(method, problem, rtol, LIMIT)


def _diffrax(solver: str) -> Solver:
    return lambda problem, rtol: peers.by_diffrax(solver, problem, rtol, MAX_STEPS[solver])


THEIRS: dict[str, tuple[str, tuple[float, ...], Solver]] = {
    "SciPy RK45": ("scipy", FEW, _scipy("RK45")),
    "SciPy LSODA": ("scipy", FEW, _scipy("LSODA")),
    "SciPy BDF": ("scipy", FEW, _scipy("BDF")),
    "SciPy Radau": ("scipy", FEW[:1], _scipy("Radau")),
    "extensisq SSV2stab": (
        "extensisq", TOLERANCES, partial(peers.by_extensisq, limit=LIMIT)
    ),
    "diffrax Tsit5": ("diffrax", FEW, _diffrax("Tsit5")),
    "diffrax Kvaerno5": ("diffrax", FEW[:1], _diffrax("Kvaerno5")),
}  # fmt: skip
"""Solvers with the package they need and their tolerances."""

ON: dict[str, tuple[tuple[float, ...], float, tuple[str, ...]]] = {
    "stiff": (TOLERANCES, 1e-7, (*OURS, *THEIRS)),
    "stiff-wide": ((1e-2, 1e-4), 1e-5, (*OURS[:-1], "extensisq SSV2stab")),
    "three-layers": ((1e-3, 1e-5), 1e-6, (*OURS, "SciPy RK45", "extensisq SSV2stab")),
}
"""The most tolerances on each problem, the one more, and the solvers; on the wide one those that
store no (3 m)^2 numbers and end within the limit."""


def details(rows: list[Row], problem: Problem) -> Table:
    """Every solver on one problem."""
    own = ", ".join(number(value) for value in load(problem.name)["differences"])
    table = Table(
        f"{problem.name}: {problem.about} (m = {problem.width}, tau up to {problem.end:g})",
        ["solver", "rtol", "gradients", "Grams", "passes", "s", "error at T", "largest", "remark"],
    )
    for row in rows:
        if row.problem == problem.name:
            counts = (row.n_rhs, row.n_grams, row.n_passes)
            table.rows.append(
                [
                    row.solver, f"{row.rtol:.0e}", *("-" if c is None else str(c) for c in counts),
                    f"{row.seconds:.2f}", number(row.error), number(row.largest_error), row.remark,
                ]
            )  # fmt: skip
    times = ", ".join(f"{value:g}" for value in problem.times)
    table.note = (
        f"cond K = {problem.condition[0]:.1e} at t = 0, {problem.condition[1]:.1e} at T. Errors: "
        "root mean square of the residual's difference from the frozen reference, relative to that "
        f"of y, at T and the largest over tau = {times}; the reference's own: {own}."
    )
    return table


def cost_at(rows: list[Row], error: float, key: str, which: str) -> float:
    """What a method takes for an error, between its tolerances by powers; NaN beyond them."""
    known = sorted((getattr(row, which), getattr(row, key)) for row in rows if getattr(row, which))
    if not known or not known[0][0] <= error:
        return math.nan
    errors, costs = np.log(np.array(known)).T
    # No cheaper than its coarsest tolerance, whatever error would do.
    return float(np.exp(np.interp(np.log(error), errors, costs)))


def ratios(rows: list[Row], problem: Problem) -> Table:
    """Cost of the others over that of each of ours at the same largest error."""
    here = [row for row in rows if row.problem == problem.name]
    methods = [method for method in OURS[:-1] if any(row.solver == method for row in here)]
    heads = [f"{what} / {method}" for method in methods for what in ("gradients", "s")]
    table = Table(
        f"{problem.name}: others over flowsim at equal error",
        ["solver", "rtol", "equal", *heads],
    )
    for row in here:
        for which, words in (("error", "at T"), ("largest_error", "largest")):
            error = getattr(row, which)
            if row.solver in methods or error is None:
                continue
            cells = []
            for method in methods:
                mine = [one for one in here if one.solver == method]
                for key in ("n_rhs", "seconds"):
                    spent, cost = getattr(row, key), cost_at(mine, error, key, which)
                    unknown = spent is None or math.isnan(cost)
                    cells.append("-" if unknown else f"{spent / cost:.3g}")
            table.rows.append([row.solver, f"{row.rtol:.0e}", words, *cells])
    table.note = (
        "Equal: the error at T, or the largest over the problem's times. No method of flowsim "
        "counts as cheaper than at its coarsest tolerance; a dash where it was not run at so small "
        "an error, or nobody counts."
    )
    return table


def measure(problem: Problem, quick: bool) -> list[Row]:
    """Every solver that is there, at its tolerances."""
    tolerances, finest, solvers = ON[problem.name]
    rows: list[Row] = []
    for name in solvers:
        mine, explicit = name in METHODS, name == OURS[-1]
        if quick and (explicit or not mine) and name != "extensisq SSV2stab":
            continue
        if mine:
            run(problem, name, 3.0, rtol=1e-2, atol=1e-5)  # compiled before the clock runs
            chosen = [rtol for rtol in (FEW if explicit else TOLERANCES) if rtol in tolerances]
            chosen += [finest] if name in FINER else []
            rows += [ours(problem, name, rtol) for rtol in chosen]
        elif name in THEIRS:
            package, chosen, solve = THEIRS[name]
            if version(package) is not None:
                rows += [
                    theirs(problem, name, solve, rtol) for rtol in chosen if rtol in tolerances
                ]
    return rows


KINKED = ("euler", "heun", "implicit-euler", "exponential")
"""On ReLU; the first one is what the others are compared with."""


def kinked() -> Table:
    """Passes that stiff ReLU networks take to R = 1e-6, and the error of their RD."""
    table = Table(
        "ReLU: passes to R = 1e-6 (rtol 1e-3; wanted: a thirtieth of Euler's, RD to 1 %)",
        ["problem", "method", "passes", "Euler's over these", "error of RD", "ending"],
    )
    for problem in (PROBLEMS["relu"], PROBLEMS["relu-lazy"]):
        exact = load(problem.name)["relative_change"]
        for method in KINKED:
            flow, outcome, _ = run(problem, method, LIMIT)
            if method == KINKED[0]:
                most = flow.n_passes
            error = abs(float(flow.relative_change(outcome.point.theta)[0]) / exact - 1.0)
            table.rows.append(
                [
                    problem.name, method, str(flow.n_passes), f"{most / flow.n_passes:.3g}",
                    f"{error:.2%}", outcome.stop_reason.partition(":")[0],
                ]
            )  # fmt: skip
    return table


def main(quick: bool = False) -> None:
    """Measure, report, and draw the figure."""
    problems = [PROBLEMS[name] for name in (("stiff",) if quick else ON)]
    rows = [row for problem in problems for row in measure(problem, quick)]
    tables = [table(rows, problem) for problem in problems for table in (details, ratios)]
    tables += [] if quick else [kinked()]
    packages = ("extensisq", "diffrax", "jax")
    report("stiff", tables, [asdict(row) for row in rows], quick, packages)
    if not quick:
        from .common import RESULTS
        from .figures import draw_stiff

        draw_stiff([asdict(row) for row in rows if row.problem == "stiff"], RESULTS)
