"""Frozen references of `benchmarks.problems`: residuals at given times, or RD at the stop.

``python -m benchmarks reference`` makes those that are missing. Residuals come from a pair of high
order at a tolerance far below any that is compared, and their error from another pair's difference;
RD of ReLU networks, where no method has its order, from Euler steps of a small fraction of what K
allows, and its error from twice the step and from Heun's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowsim.kernels.cpu.threads import one_blas_thread
from flowsim.networks.flow import NetworkFlow
from flowsim.steppers.base import Attempt, Point
from flowsim.steppers.driver import Counters, Observer, Outcome, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.methods import MethodOptions, make_stepper

from .common import FOLDER, Table, machine, number, write_json
from .problems import PROBLEMS, Problem

DEFAULT = (("dop853", 1e-11), ("tsit54", 1e-9))
"""Method and rtol of the reference, and of what its error is judged by."""

METHODS = {"stiff-wide": (("ros34pw2", 3e-7), ("rkc2", 1e-7))}
"""Where the default would take an hour. (To tau = 1e4 tsit54 at 1e-8 gave the same to 8e-8.)"""

STEPS = {"step_fraction": 1 / 16, "max_relative_change": 0.00125}
"""Of Euler's references of RD; Heun's are twice as long."""

UNMADE = ("lazy-million",)
"""Problems that are not compared by an error, but by their number of steps."""


@dataclass
class Marks(Observer):
    """Keeps the residuals at some times, those within a step by the method's interpolant."""

    flow: NetworkFlow
    times: Sequence[float]
    residuals: list[np.ndarray] = field(default_factory=list)

    def start(self, point: Point) -> None:
        self.residuals.clear()

    def step(self, before: Point, attempt: Attempt, after: Point, counters: Counters) -> None:
        while len(self.residuals) < len(self.times):
            mark = self.times[len(self.residuals)]
            if mark > after.time * (1.0 + 1e-12):
                return
            if mark >= after.time * (1.0 - 1e-12):
                self.residuals.append(after.residual.copy())
                continue
            assert attempt.interpolate is not None
            counts = self.flow.n_rhs, self.flow.n_passes
            fraction = (mark - before.time) / attempt.step
            self.residuals.append(attempt.interpolate(fraction)[1].copy())
            self.flow.n_rhs, self.flow.n_passes = counts  # looking is not what the method costs


def run(
    problem: Problem, method: str, max_seconds: float | None = None, **options: Any
) -> tuple[NetworkFlow, Outcome, list[np.ndarray]]:
    """The flow with its counters, how it ended, and the residuals at the problem's times."""
    flow = problem.flow(threads=2, **({"passes": "dense"} if problem.scheme else {}))
    _, stepper = make_stepper(method, MethodOptions(**options), flow.kinked)
    rules = StopRules(
        stop_loss=problem.stop_loss,
        t_max=problem.end,
        max_seconds=max_seconds,
        steady_slope=0.0,  # at the end of a long tail nothing moves
    )
    marks = Marks(flow, problem.times)
    with one_blas_thread():  # as in `flowsim.simulate`
        outcome = integrate(flow, stepper, rules, marks)
    return flow, outcome, marks.residuals


def difference(residuals: Sequence[np.ndarray], others: Sequence[np.ndarray], problem: Problem):
    """Root-mean-square differences at each time, relative to that of the targets."""
    size = np.sqrt(np.mean(problem.y**2))
    pairs = zip(residuals, others, strict=True)
    return [float(np.sqrt(np.mean((np.asarray(a) - b) ** 2)) / size) for a, b in pairs]


def load(name: str) -> dict[str, Any]:
    """Read a frozen reference."""
    path = _path(name)
    if not path.exists():
        raise SystemExit(f"{path.name}: missing; python -m benchmarks reference makes it")
    return json.loads(path.read_text(encoding="utf-8"))


def _path(name: str):
    return FOLDER / "reference" / f"{name}.json"


def make(problem: Problem) -> dict[str, Any]:
    """Integrate a reference and what its error is judged by."""
    started = time.perf_counter()
    found = _residuals(problem) if problem.times else _relative_change(problem)
    return {
        "problem": problem.name,
        **found,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": machine(),
    }


def _residuals(problem: Problem) -> dict[str, Any]:
    found = []
    methods = METHODS.get(problem.name, DEFAULT)
    for method, rtol in methods:
        flow, outcome, residuals = run(problem, method, rtol=rtol, atol=1e-4 * rtol)
        if not outcome.stop_reason.startswith("t_max"):
            raise SystemExit(f"{problem.name}, {method}: {outcome.stop_reason}")
        found.append((flow, residuals))
    (flow, residuals), (_, others) = found
    return {
        "times": list(problem.times),
        "method": methods[0][0],
        "rtol": methods[0][1],
        "n_rhs": flow.n_rhs,
        "residuals": [residual.tolist() for residual in residuals],
        "checked_by": methods[1][0],
        "check_rtol": methods[1][1],
        "differences": difference(residuals, others, problem),
    }


def _relative_change(problem: Problem) -> dict[str, Any]:
    twice = {name: 2.0 * bound for name, bound in STEPS.items()}
    values, counts = [], []
    for method, steps in (("euler", STEPS), ("euler", twice), ("heun", twice)):
        flow, outcome, _ = run(problem, method, **steps)
        if not outcome.stop_reason.startswith("stop_loss"):
            raise SystemExit(f"{problem.name}, {method}: {outcome.stop_reason}")
        values.append(float(flow.relative_change(outcome.point.theta)[0]))
        counts.append(flow.n_passes)
    return {
        "stop_loss": problem.stop_loss,
        "method": "euler",
        "steps": STEPS,
        "n_passes": counts[0],
        "relative_change": values[0],
        "at_twice_the_step": values[1],
        "by_heun": values[2],
        "differences": [abs(value / values[0] - 1.0) for value in values[1:]],
    }


def make_missing() -> None:
    """Make the references that are missing."""
    for problem in PROBLEMS.values():
        if problem.name not in UNMADE and not _path(problem.name).exists():
            print(f"{problem.name} ...", flush=True)
            write_json(_path(problem.name), make(problem))


def table() -> Table:
    """The references that there are, with their own accuracy."""
    header = ["problem", "about", "m", "cond K, t = 0", "end", "ends at", "method", "differences"]
    found = Table("Frozen references of the problems that methods are compared on", header)
    for problem in PROBLEMS.values():
        if not _path(problem.name).exists():
            continue
        one = load(problem.name)
        ends = f"tau = {problem.end:g}" if problem.times else f"R = {problem.stop_loss:g}"
        found.rows.append(
            [
                problem.name, problem.about, str(problem.width),
                *(number(value) for value in problem.condition), ends, one["method"],
                ", ".join(number(value) for value in one["differences"]),
            ]
        )  # fmt: skip
    found.note = (
        "Differences: of the residuals at each time from those of another pair, relative to the "
        "root mean square of y; of RD from that at twice the step, and from Heun's."
    )
    return found
