"""What a step costs above the work that it cannot avoid: ``python -m benchmarks steps``.

A whole adaptive step of Tsitouras' pair against its right-hand sides, each of two passes; a
kernel-bounded Euler step, one fused pass, against copying the state; what a step of a network so
small that its passes are nothing costs in `flowsim.simulate`; and a step of a run that is compiled
as a whole, as those of a list are.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling
from flowsim.steppers import METHOD_NAMES
from flowsim.steppers.base import Point
from flowsim.steppers.methods import MethodOptions, make_stepper

from .common import TARGETS, Table, X, report
from .fields import Passes
from .timing import Copy, ratio, take_turns

PAIR = "tsit54"
ADAPTIVE = {(1_000_000, 32, 3): 1.3, (1_000_000, 4, 2): 2.0}
"""Shapes (m, n, d), and what a step may cost over its right-hand sides."""
STEPS = 12
FUSED = (10_000_000, 4, 2)
IN_CACHE = (10_000, 4, 2)
SMALL_WIDTH = 100
SMALL_METHODS = ("euler", "heun", "rdpk35", "tsit54")


def whole_step(shape: tuple[int, int, int], dtype: str, steps: int) -> dict[str, Any]:
    """Accepted steps, each followed by as many right-hand sides as it had."""
    m, n, d = shape
    generator = np.random.default_rng(0)
    network = TwoLayerNetwork(Scaling(m, 1.0, 0.0), ACTIVATIONS["relu"], seed=0)
    flow = TwoLayerFlow(
        network,
        generator.normal(size=(n, d)) / math.sqrt(d),
        0.1 * generator.normal(size=n),
        dtype=dtype,
        threads=usable_cores(),
    )
    _, stepper = make_stepper(PAIR, MethodOptions(rtol=1e-3, atol=1e-6), flow.kinked)
    theta = flow.initial.copy()
    point = Point.of(flow, 0.0, theta, flow.residual(theta))
    stepper.start(flow, point)
    out = flow.empty()
    step_times, rhs_times, counts, passes = [], [], [], []
    while len(step_times) < steps + 2:
        before = flow.n_rhs, flow.n_passes
        started = time.perf_counter()
        attempt = stepper.attempt(flow, point, math.inf)
        spent = time.perf_counter() - started
        if attempt.point is None:
            continue
        point = attempt.point
        counts.append(flow.n_rhs - before[0])
        passes.append(flow.n_passes - before[1])
        started = time.perf_counter()
        for _ in range(counts[-1]):
            flow.rate(point.theta, flow.residual(point.theta), out)
        rhs_times.append(time.perf_counter() - started)
        step_times.append(spent)
    step, rhs = np.array(step_times[2:]), np.array(rhs_times[2:])  # after two to warm up
    return {
        "shape": shape,
        "dtype": dtype,
        "n_rhs": int(statistics.median(counts)),
        "n_passes": int(statistics.median(passes)),
        "step_seconds": float(np.median(step)),
        "rhs_seconds": float(np.median(rhs)),
        "ratio": ratio(step, rhs),
        "wanted": ADAPTIVE.get(shape, math.nan),
    }


def fused_step(shape: tuple[int, int, int], dtype: str, threads: int, rounds: int) -> dict:
    """An Euler step and a copy of the state, in turns, on as many threads."""
    passes = Passes(shape, dtype, threads)
    calls = {"step": passes.euler, "copy": Copy(passes.nbytes, threads)}
    times = take_turns(calls, rounds, 0.1)
    step, copy = (float(np.median(times[name])) for name in ("step", "copy"))
    return {
        "shape": shape,
        "dtype": dtype,
        "threads": threads,
        "step_seconds": step,
        "copy_seconds": copy,
        "ratio": ratio(times["step"], times["copy"]),
        "ns": 1e9 * step / shape[0],
    }


COMPILED_WIDTHS = (50, 100, 1_000, 10_000)
COMPILED_METHODS = ("euler", "heun")
COMPILED_RUNS = 20
"""In one list, for a time that can be measured."""


def small_run(method: str, steps: int, width: int = SMALL_WIDTH, **options: Any) -> float:
    """Seconds of a run of the published problem that takes so many steps and records nothing.

    With ``seeds`` the run is compiled as a whole.
    """
    record = {name: {"schedule": "none"} for name in ("observables", "snapshots")}
    started = time.perf_counter()
    found = fs.simulate(
        network={"width": width, "antisymmetric": False},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        x=X,
        y=TARGETS,
        integrate={
            "method": method, "stop_loss": 0.0, "steady_slope": 0.0, "max_steps": steps,
            "threads": 1,
        },
        record=record,
        **options,
    )  # fmt: skip
    spent = time.perf_counter() - started
    run = found[0] if options else found
    if int(run.final["n_steps"]) != steps:
        raise SystemExit(f"{method}: ended after {run.final['n_steps']} steps, {run.stop_reason}")
    return spent


def small_step(method: str, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds a step of a small network, from runs of two lengths in turns."""
    short, long = steps, 5 * steps
    calls = {"short": lambda: small_run(method, short), "long": lambda: small_run(method, long)}
    times = take_turns(calls, rounds, 0.0, least=1)
    each = (times["long"] - times["short"]) / (long - short)
    start = times["short"] - short * each
    return {
        "method": method,
        "seconds_a_step": float(np.median(each)),
        "seconds_to_start": float(np.median(start)),
    }


def compiled_step(method: str, width: int, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds a step of a run that is compiled as a whole, on one core, as `small_step`."""
    seeds = {"seeds": COMPILED_RUNS}
    short, long = steps, 5 * steps
    calls = {
        "short": lambda: small_run(method, short, width, **seeds),
        "long": lambda: small_run(method, long, width, **seeds),
    }
    times = take_turns(calls, rounds, 0.0, least=1)
    steps_more = COMPILED_RUNS * (long - short)
    each = float(np.median((times["long"] - times["short"]) / steps_more))
    passes = 1 if method == "euler" else 2
    return {
        "method": method,
        "width": width,
        "seconds_a_step": each,
        "ns": 1e9 * each / (passes * width),
    }


def _tables(
    adaptive: list[dict], fused: list[dict], small: list[dict], whole: list[dict]
) -> list[Table]:
    first = Table(
        f"A whole step of {PAIR} over its right-hand sides",
        ["m", "n", "d", "dtype", "n_rhs", "passes", "step ms", "rhs ms", "ratio", "wanted"],
        note="A step with its error estimate and its control; a right-hand side is `outputs` and "
        "`rate`, two passes. Medians of steps and right-hand sides that took turns.",
    )
    for row in adaptive:
        times = (f"{1e3 * row[key]:.1f}" for key in ("step_seconds", "rhs_seconds"))
        cells = [*map(str, row["shape"]), row["dtype"], str(row["n_rhs"]), str(row["n_passes"])]
        first.rows.append([*cells, *times, f"{row['ratio']:.2f}", f"{row['wanted']:g}"])
    second = Table(
        "A fused Euler step over a copy of the state",
        ["m", "n", "d", "dtype", "threads", "step ms", "copy ms", "ratio", "ns a neuron"],
        note="In place: rate, update and new outputs in one pass that reads and writes the state "
        "once, as a copy does.",
    )
    for row in fused:
        times = (f"{1e3 * row[key]:.3f}" for key in ("step_seconds", "copy_seconds"))
        cells = [*map(str, row["shape"]), row["dtype"], str(row["threads"])]
        second.rows.append([*cells, *times, f"{row['ratio']:.2f}", f"{row['ns']:.2f}"])
    third = Table(
        f"A step of `simulate` at m = {SMALL_WIDTH}",
        ["method", "us a step", "ms to start and end"],
        note="The slope between runs of two lengths that record nothing, and what remains.",
    )
    for row in small:
        times = 1e6 * row["seconds_a_step"], 1e3 * row["seconds_to_start"]
        third.rows.append([row["method"], f"{times[0]:.1f}", f"{times[1]:.1f}"])
    fourth = Table(
        "A step of a run that is compiled as a whole, on one core",
        ["method", "m", "us a step", "ns a neuron and pass"],
        note="As the third table, for lists of runs. All that a step does besides is included: "
        "the kernel's refreshes, the control, the ending.",
    )
    for row in whole:
        cells = [row["method"], str(row["width"]), f"{1e6 * row['seconds_a_step']:.2f}"]
        fourth.rows.append([*cells, f"{row['ns']:.2f}"])
    return [first, second, third, fourth]


def main(quick: bool = False) -> None:
    """Measure and report."""
    shapes = [(100_000, 4, 2)] if quick else list(ADAPTIVE)
    dtypes = ("float64",) if quick else ("float64", "float32")
    adaptive = [whole_step(s, dtype, 4 if quick else STEPS) for s in shapes for dtype in dtypes]
    large = (1_000_000, 4, 2) if quick else FUSED
    rounds = 3 if quick else 9
    fused = [
        fused_step(shape, dtype, threads, rounds)
        for shape, threads in ((large, usable_cores()), (large, 1), (IN_CACHE, 1))
        for dtype in dtypes
    ]
    methods = [name for name in SMALL_METHODS if name in METHOD_NAMES]
    small = [small_step(m, *((3, 100) if quick else (7, 500))) for m in methods]
    lengths = (3, 20) if quick else (7, 100)
    widths = COMPILED_WIDTHS[:1] if quick else COMPILED_WIDTHS
    whole = [compiled_step(m, width, *lengths) for m in COMPILED_METHODS for width in widths]
    data = {"adaptive": adaptive, "fused": fused, "small": small, "compiled": whole}
    report("steps", _tables(adaptive, fused, small, whole), data, quick)
