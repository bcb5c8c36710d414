"""Steps of three layers against the machine and other programs: ``python -m benchmarks deep``.

A whole adaptive step, with its error or its bound and the update of the weights, against reading
the largest matrix forward and backward in every stage at the bandwidth of a copy, and against the
rate of matrix products. The same steps of the same pair by PyTorch and JAX take turns with it.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from flowsim.deep_scaling import DeepScaling
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.threads import one_blas_thread, usable_cores
from flowsim.networks.deep import DeepFlow, DeepNetwork
from flowsim.steppers.base import Point
from flowsim.steppers.methods import MethodOptions, make_stepper
from flowsim.steppers.tableaux.tsit54 import TSIT54

from .common import RESULTS, Table, report, version
from .peers import REMEDY
from .peers.deep import DEEP_PEERS, DeepProblem, Stepping, contestants
from .timing import Copy, gemm, ratio, take_turns

WIDTH = 4000
CASES = (
    # samples, method, activation: what `auto` takes for smooth activations and for kinked ones
    (4, "tsit54", "gelu"),
    (4, "heun", "relu"),
    (256, "tsit54", "gelu"),
)
MOST_READS, LEAST_SHARE = 1.5, 0.8
"""What a step may cost in readings of the matrix for few samples; what it must reach of the rate
of products for many."""
WANTED = {4: 2.0, 256: 1.0}
"""By how much flowsim is to be faster than the best program."""
FEW = 16
AGREEMENT = 1e-9
"""Largest relative difference of a step's increments."""


class Steps:
    """Steps of one method along a flow, one a call, no longer than ``limit``."""

    def __init__(
        self, width: int, n: int, method: str, activation: str, limit: float = math.inf
    ) -> None:
        x = np.random.default_rng(0).normal(size=(n, 2))
        x[:, 1] = 1.0
        scaling = DeepScaling.from_gammas(width, 0.0, 0.0, 1.5)
        network = DeepNetwork(scaling, ACTIVATIONS[activation])
        self.flow = DeepFlow(network, x, x[:, 0] ** 2, threads=usable_cores())
        options = MethodOptions(rtol=1e-3, atol=1e-12)
        _, self.stepper = make_stepper(method, options, self.flow.kinked)
        theta = self.flow.kernels.array(network.initial_values(2))
        self.point = Point.of(self.flow, 0.0, theta, self.flow.residual(theta))
        self.stepper.start(self.flow, self.point)
        self.limit = limit

    def __call__(self) -> None:
        """Take a step, or have it rejected, which costs the same."""
        with one_blas_thread():  # as in a run
            self.flow.settle(self.point.theta)
            attempt = self.stepper.attempt(self.flow, self.point, self.limit)
        self.point = attempt.point or self.point

    def weights(self) -> list[np.ndarray]:
        """Of the three layers."""
        return [one.copy() for one in self.flow.parameters(self.point.theta).values()]


def against_machine(width: int, case: tuple, rounds: int, budget: float) -> dict[str, Any]:
    """A step in turns with a copy of the matrix and a product of matrices."""
    n, method, activation = case
    steps, copy = Steps(width, n, method, activation), Copy(8 * width * width)
    product, operations = gemm("float64")
    least = 3 if n <= FEW else 1
    found = take_turns({"step": steps, "copy": copy, "product": product}, rounds, budget, least)
    stages = {"tsit54": 7, "heun": 2}[method]
    # A stage multiplies by the matrix forward and backward, and its rate is a product too; the
    # first of seven is known.
    work = 2.0 * n * width * width * 3.0 * (stages - (method == "tsit54"))
    share = work / found["step"] / (operations / found["product"])
    best = work / np.min(found["step"]) / (operations / np.min(found["product"]))
    reads = found["step"] / found["copy"] / stages
    return {
        "width": width, "n": n, "method": method, "passes": steps.flow.passes, "stages": stages,
        "milliseconds": 1e3 * float(np.median(found["step"])),
        "least_milliseconds": 1e3 * float(np.min(found["step"])),
        "copy_milliseconds": 1e3 * float(np.median(found["copy"])),
        # Reading a matrix twice at the bandwidth of copying it takes as long as a copy.
        "in_reads": float(np.median(reads)),
        "least_in_reads": float(np.min(found["step"]) / np.min(found["copy"])) / stages,
        "gemm_rate": operations / float(np.median(found["product"])),
        "of_gemm": float(np.median(share)),
        "best_of_gemm": float(best),
    }  # fmt: skip


def make_problem(steps: Steps) -> DeepProblem:
    """What the peers are given: the flow of these steps, and their size."""
    flow, field = steps.flow, steps.flow.field
    weights = [np.array(one, np.float64) for one in steps.weights()]
    return DeepProblem(
        x=field.x, y=flow.y, weights=weights, multipliers=field.multipliers,
        mobilities=field.mobilities, step=steps.limit, a=TSIT54.a, b=TSIT54.b,
        error=TSIT54.error_weights[0], threads=usable_cores(),
    )  # fmt: skip


def choose(problem: DeepProblem, expected: list[np.ndarray]) -> dict[str, Stepping]:
    """The fastest way of every program after a trial of one step.

    Raises
    ------
    SystemExit
        If a step does not lead to where flowsim's leads.
    """
    best: dict[str, tuple[float, Stepping]] = {}
    makers: list[Callable[[], Stepping]] = contestants(problem)
    for make in makers:
        gc.collect()
        try:
            one = make()
            one.call()
        except Exception as error:  # such as torch.compile without a C++ compiler
            print(f"left out, {type(error).__name__}: {error!s:.200}", flush=True)
            continue
        triples = zip(one.weights(), expected, problem.weights, strict=True)
        for found, wanted, before in triples:
            difference = np.linalg.norm(found - wanted) / np.linalg.norm(wanted - before)
            if not difference <= AGREEMENT:
                raise SystemExit(f"{one.program}, {one.way}: step differs by {difference:.1e}")
        started = time.perf_counter()
        one.call()
        spent = time.perf_counter() - started
        if one.program not in best or spent < best[one.program][0]:
            best[one.program] = spent, one
        print(f"n = {len(problem.y)}: {one.program}, {one.way}: {spent:.3f} s", flush=True)
        del one
    return {program: one for program, (_, one) in best.items()}


def against_programs(width: int, n: int, rounds: int, budget: float) -> dict[str, Any]:
    """Steps of one size by flowsim and by the peers, in turns."""
    trial = Steps(width, n, "tsit54", "gelu")
    # Some steps are rejected only because of their size, which here is the peers' too.
    step = 0.5 * float(trial.stepper.step)
    del trial
    steps = Steps(width, n, "tsit54", "gelu", step)
    problem = make_problem(steps)
    steps()
    chosen = choose(problem, steps.weights())
    ways = {program: one.way for program, one in chosen.items()}
    calls = {"flowsim": steps, **{program: one.call for program, one in chosen.items()}}
    found = take_turns(calls, rounds, budget, 2 if n <= FEW else 1)
    others = [found[program] for program in chosen]
    return {
        "width": width, "n": n, "step": step, "ways": ways, "wanted": WANTED[n],
        "milliseconds": {name: 1e3 * float(np.median(times)) for name, times in found.items()},
        "least_milliseconds": {name: 1e3 * float(np.min(times)) for name, times in found.items()},
        "ratio": ratio(np.min(others, axis=0), found["flowsim"]) if others else math.nan,
        "over_flowsim": {name: ratio(found[name], found["flowsim"]) for name in chosen},
    }  # fmt: skip


def _tables(lines: list[dict[str, Any]], races: list[dict[str, Any]]) -> list[Table]:
    first = Table(
        "A step of three layers against the machine",
        ["m", "n", "method", "rates", "step, ms", "step / (stages x read twice)", "of the best",
         "wanted", "of the rate of products", "of the best", "wanted"],
        note="Reading counts at the bandwidth of a copy, whose bytes are those read and those "
        "written; products are those with the matrix forward and backward, and the rates. Medians "
        "of rounds in turn; of the best: shortest step over shortest copy or product, for rounds "
        "in which something else ran.",
    )  # fmt: skip
    for line in lines:
        few = line["n"] <= FEW
        reads = [f"{line[key]:.2f}" for key in ("in_reads", "least_in_reads")]
        share = [f"{line[key]:.2f}" for key in ("of_gemm", "best_of_gemm")]
        wanted = [f"{MOST_READS:g}", "-"] if few else ["-", f"{LEAST_SHARE:g}"]
        cells = [str(line["width"]), str(line["n"]), line["method"], line["passes"]]
        cells += [f"{line['milliseconds']:.1f}", *reads, wanted[0], *share, wanted[1]]
        first.rows.append(cells)
    names = list(dict.fromkeys(name for race in races for name in race["milliseconds"]))
    second = Table(
        "A step of tsit54 with its error, gelu: milliseconds",
        ["m", "n", *names, "best / flowsim", "wanted"],
        note="Steps of one size along the same flow, checked to lead to the same weights. Medians "
        "of rounds in turn, the fastest way of each program: "
        + "; ".join(
            f"n = {race['n']}: "
            + ", ".join(f"{program} {way}" for program, way in race["ways"].items())
            for race in races
        )
        + ".",
    )
    for race in races:
        times = [
            f"{race['milliseconds'][k]:.1f}" if k in race["milliseconds"] else "-" for k in names
        ]
        cells = [str(race["width"]), str(race["n"]), *times]
        second.rows.append([*cells, f"{race['ratio']:.2f}", f"{race['wanted']:g}"])
    return [first, second]


def main(quick: bool = False) -> None:
    """Measure, print, and unless ``quick`` write the results and the figure."""
    for name, (_, package) in DEEP_PEERS.items():
        if version(package) is None:
            print(f"{name}: not installed, left out; {REMEDY} installs it", flush=True)
    width = WIDTH // 4 if quick else WIDTH
    lines = []
    for case in CASES[:1] if quick else CASES:
        rounds = 2 if quick else (7 if case[0] <= FEW else 4)
        lines.append(against_machine(width, case, rounds, 0.05 if quick else 0.5))
    gc.collect()
    races = []
    for n in list(WANTED)[: 1 if quick else None]:
        rounds = 2 if quick else (5 if n <= FEW else 3)
        races.append(against_programs(width, n, rounds, 0.05 if quick else 0.3))
        gc.collect()
    data = {"machine": lines, "programs": races}
    report("deep", _tables(lines, races), data, quick, ("torch", "jax"))
    if not quick and all(len(race["milliseconds"]) > 1 for race in races):
        from .figures import draw_deep

        draw_deep(lines, races, RESULTS)
