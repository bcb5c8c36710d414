"""The CUDA backend on the card that is here: ``python -m benchmarks gpu``.

The machine's limits, a copy of memory and a matrix product, are measured in the same run. A
right-hand side is ``outputs`` and then ``rate``: it reads the state twice and writes the rate once.
Times are medians between two CUDA events and have the way back of the residual in them, as in a
run. Without a GPU, or without CuPy, it says so and ends.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cuda.device import describe, device_problem, free_pool, total_memory
from flowsim.kernels.interface import TwoLayerField

from .common import INPUTS, TARGETS, Table, X, number, report
from .peers import Problem

SHAPES = [(100_000_000, 4, 2), (10_000_000, 32, 3), (1_000_000, 64, 10), (1_000_000, 256, 785)]
QUICK_SHAPES = [(1_000_000, 4, 2), (1_000_000, 32, 3), (100_000, 64, 10), (50_000, 256, 785)]
DTYPES = ("float64", "float32")
LARGEST, QUICK_LARGEST = 100_000_000, 1_000_000
"""Neurons of the steps and of the whole run."""

AGREEMENT = {"float64": 1e-6, "float32": 1e-2}
"""Largest relative difference of gradients in norm: a neuron next to a kink may round to either
side of it."""

BUDGET, LEAST = 0.1, 5
COMPILED = 1 << 5
"""n d up to which ``torch.compile`` takes part: it is long in compiling; products win beyond."""

WAYS = {
    "tsit54": ("slopes made again", 8),
    "tsit54, error begun": ("slopes read", 31),
    "tsit54, errors from all slopes": ("slopes read", 36),
    "euler": ("one pass", 2),
}
"""Steps, and the states that they read and write.

From all slopes: 2 in the first stage, whose slope is known, then 3, 4, 5, 6 and 7 and the new
state, and 8 for the errors with the slope at their end. An error that the last stage begins is
written in the place of its slope, and the end reads 2 and writes 1. With slopes made again every
pass reads the base, and one writes.
"""


@dataclass
class Case:
    """Everything measured for one shape and dtype; times in s."""

    shape: tuple[int, int, int]
    dtype: str
    way: str
    outputs: float
    rate: float
    both: float
    stage: float
    bytes_share: float
    stage_share: float
    flops_share: float
    others: dict[str, float] = field(default_factory=dict)


def seconds(call: Callable[[], Any], budget: float = BUDGET) -> float:
    """Median duration between two events around a call, after two to warm up."""
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    call(), call()
    spent: list[float] = []
    while len(spent) < LEAST or (sum(spent) < budget and len(spent) < 200):
        start.record()
        call()
        end.record()
        end.synchronize()
        spent.append(1e-3 * cupy.cuda.get_elapsed_time(start, end))
    return statistics.median(spent)


def limits(quick: bool) -> dict[str, float]:
    """Bytes a second of a copy, read and written, and operations a second of products."""
    found = {"copy": _copy_rate((1 << 27) if quick else (1 << 29))}
    free_pool()
    for dtype in DTYPES:
        found[dtype] = _product_rate(4096 if quick else 8192, dtype)
        free_pool()
    return found


def _copy_rate(length: int) -> float:
    import cupy

    source = cupy.ones(length, np.float64)
    target = cupy.empty_like(source)
    return 2.0 * source.nbytes / seconds(lambda: cupy.copyto(target, source))


def _product_rate(size: int, dtype: str) -> float:
    import cupy

    a, b = cupy.random.standard_normal((2, size, size)).astype(dtype)
    out = cupy.empty_like(a)
    return 2.0 * size**3 / seconds(lambda: cupy.matmul(a, b, out=out))


def random_state(rows: int, neurons: int, dtype: str) -> Any:
    """A state drawn on the card, in slices: the generator needs room of its own."""
    import cupy

    cupy.random.seed(0)
    theta = cupy.empty((rows, neurons), dtype)
    for row in theta:
        row[...] = cupy.random.standard_normal(neurons, dtype)
    return theta


def measure(shape: tuple[int, int, int], dtype: str, rates: dict[str, float]) -> Case:
    """flowsim and the others on one shape."""
    m, n, d = shape
    generator = np.random.default_rng(0)
    x, y, kappa = generator.normal(size=(n, d)), generator.normal(size=n), m**-0.5
    field_ = TwoLayerField(x, ACTIVATIONS["relu"], 1.0, kappa, 1.0, 1.0)
    kernels: Any = two_layer_kernels("cuda", field_, m, np.dtype(dtype))
    theta, out = random_state(1 + d, m, dtype), kernels.empty()
    residual = kernels.outputs(theta) - y
    step, one = 1e-3, np.ones(1)
    none = kernels.empty(0)
    outputs = seconds(lambda: kernels.outputs(theta))
    rate = seconds(lambda: kernels.rate(theta, residual, out))
    both = seconds(lambda: kernels.rate(theta, kernels.outputs(theta) - y, out))
    stage = seconds(lambda: kernels.advance(theta, residual, theta, none, one, step, out))
    state = float(theta.nbytes)
    case = Case(
        shape, dtype, kernels.way, outputs, rate, both, stage,
        bytes_share=3 * state / both / rates["copy"],
        stage_share=2 * state / stage / rates["copy"],
        flops_share=4.0 * m * n * d / both / rates[dtype],
    )  # fmt: skip
    kernels.rate(theta, residual, out)
    _others(case, Problem(x, y, theta, kappa, dtype, 1), theta, out)
    return case


def _others(case: Case, problem: Problem, theta: Any, rate: Any) -> None:
    """The best time of each other program, of the ways that run and agree."""
    import cupy

    from .peers.gpu import contestants

    norm = float(cupy.linalg.norm(rate.ravel()))
    for one in contestants(problem, theta, problem.x.size <= COMPILED):
        try:
            da, dw = one.gradient()
            off = float(
                cupy.hypot(
                    cupy.linalg.norm(da + rate[0]), cupy.linalg.norm((dw + rate[1:]).ravel())
                )
            )
            del da, dw
            if not off <= AGREEMENT[problem.dtype] * norm:
                print(f"{one.program}, {one.way}: gradient differs by {off / norm:.1e}")
                continue
            spent = seconds(one.call)
        except Exception as error:  # such as a compiler that is missing, or memory
            print(f"{one.program}, {one.way}: left out, {type(error).__name__}: {error!s:.200}")
            continue
        case.others[one.program] = min(spent, case.others.get(one.program, np.inf))
        free_pool()


def steps(neurons: int, dtype: str, rates: dict[str, float]) -> list[list[Any]]:
    """Accepted steps of tsit54 and Euler: method, dtype, what is counted, states, s, share."""
    from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
    from flowsim.scaling import Scaling
    from flowsim.steppers.base import Point
    from flowsim.steppers.methods import METHODS, MethodOptions

    network = TwoLayerNetwork(
        scaling=Scaling.from_exponents(neurons, 1.0, 0.0), activation=ACTIVATIONS["relu"]
    )
    values = random_state(1 + INPUTS.shape[1], neurons, dtype)
    flow = TwoLayerFlow(network, INPUTS, TARGETS, initial=values, backend="cuda", dtype=dtype)
    found = []
    retraced = flow.most_retraced
    for name, (what, states) in WAYS.items():
        flow.most_retraced = retraced if "again" in what else 0
        flow.begins_errors = "all slopes" not in name
        stepper = METHODS[name.split(",")[0]](MethodOptions())
        theta = flow.initial.copy()
        point = Point.of(flow, 0.0, theta, flow.residual(theta))
        stepper.start(flow, point)
        spent = _attempts(flow, stepper, point)
        share = states * float(theta.nbytes) / spent / rates["copy"]
        found.append([name, dtype, what, states, spent, share])
        del stepper, theta, point
    return found


def _attempts(flow: Any, stepper: Any, point: Any) -> float:
    """Median duration of accepted steps."""
    import cupy

    start, end, spent = cupy.cuda.Event(), cupy.cuda.Event(), []
    for _ in range(12):
        start.record()
        attempt = stepper.attempt(flow, point, np.inf)
        end.record()
        end.synchronize()
        if attempt.point is not None:
            point = attempt.point
            spent.append(1e-3 * cupy.cuda.get_elapsed_time(start, end))
    return statistics.median(spent[2:])


def whole_run(neurons: int, dtype: str) -> dict[str, Any]:
    """The published problem at gamma = 1 to R < 1e-6, with all that a run is."""
    started = time.perf_counter()
    run = fs.simulate(
        network=dict(width=neurons, activation="relu", seed=0),
        scaling=dict(gamma=1.0, gamma_prime=0.0),
        data=dict(kind="points", x=X[:, None].tolist(), y=TARGETS.tolist()),
        integrate=dict(stop_loss=1e-6, backend="cuda", dtype=dtype),
        record=dict(observables=dict(per_decade=5), snapshots=dict(schedule="none")),
    )
    spent = time.perf_counter() - started
    return {
        "neurons": neurons,
        "dtype": dtype,
        "seconds": spent,
        "integrating": float(run.observables["wall_seconds"][-1]),
        "method": run.attributes["method"],
        "steps": int(run.final["n_steps"]),
        "passes": int(run.observables["n_passes"][-1]),
        "loss": float(run.final["loss"]),
        "relative_change": run.relative_change["input"],
        "status": f"{run.status}: {run.stop_reason}",
    }


def tables(data: dict[str, Any]) -> list[Table]:
    """What is printed."""
    rates = data["limits"]
    card = ", ".join(f"{key} {data[key]}" for key in ("gpu", "cupy", "cuda", "driver"))
    limit = Table(
        f"Limits: {card}",
        ["what", "rate"],
        [
            ["copy, bytes read and written", f"{1e-9 * rates['copy']:.0f} GB/s"],
            *([f"product, {name}", f"{1e-12 * rates[name]:.1f} TFlop/s"] for name in DTYPES),
        ],
    )
    programs = sorted({name for case in data["cases"] for name in case["others"]})
    sides = Table(
        "Right-hand side, ReLU: milliseconds",
        ["m", "n", "d", "dtype", "way", "outputs", "rate", "both", "of copy", "of product",
         "fused step", "of copy", *programs, "best / flowsim"],
        note="Of copy: bytes at the rate of a copy, for both the state read twice and the rate "
        "written once, for the fused step (rate, step, outputs: Euler's) the state read once and "
        "written once. Of product: the 4 m n d operations of two products at its rate. The "
        "others compute the residual and the gradient; the best of their ways. With few inputs a "
        "share of 1 is the end: a rate needs all outputs before it, so no program that makes one "
        "residual and its gradient can do with less than that.",
    )  # fmt: skip
    for case in data["cases"]:
        times = [f"{1e3 * case['others'][k]:.2f}" if k in case["others"] else "-" for k in programs]
        best = min(case["others"].values(), default=np.nan) / case["both"]
        sides.rows.append(
            [
                *map(str, case["shape"]), case["dtype"], case["way"],
                *(f"{1e3 * case[k]:.2f}" for k in ("outputs", "rate", "both")),
                f"{case['bytes_share']:.2f}", f"{case['flops_share']:.2f}",
                f"{1e3 * case['stage']:.2f}", f"{case['stage_share']:.2f}", *times, f"{best:.1f}",
            ]
        )  # fmt: skip
    step = Table(
        "Accepted steps, ReLU, n = 4, d = 2",
        ["m", "method", "dtype", "way", "states", "milliseconds", "of copy"],
        [
            [
                str(data["neurons"]),
                name,
                dtype,
                what,
                str(states),
                f"{1e3 * spent:.2f}",
                f"{share:.2f}",
            ]
            for name, dtype, what, states, spent, share in data["steps"]
        ],
        note="States: read and written in a step, each (1 + d) m numbers; their bytes at the rate "
        "of a copy are the share.",
    )
    runs = Table(
        "The published problem at gamma = 1 to R < 1e-6",
        ["m", "dtype", "method", "steps", "passes", "seconds", "integrating", "R", "RD of w"],
        [
            [
                str(run["neurons"]), run["dtype"], run["method"], str(run["steps"]),
                str(run["passes"]), f"{run['seconds']:.1f}", f"{run['integrating']:.1f}",
                number(run["loss"]), f"{run['relative_change']:.4f}",
            ]
            for run in data["runs"]
        ],
        note="Seconds: the whole call, with drawing the weights, bringing them to the card and "
        "back. Integrating: from the first step to the last.",
    )  # fmt: skip
    return [limit, sides, step, runs]


def _tidy(found: Any) -> None:
    """Print what has been found, and free what it was found with."""
    print(found, flush=True)
    gc.collect()
    free_pool()


def _measure_all(data: dict[str, Any], rates: dict[str, float], quick: bool) -> None:
    *shapes, last = QUICK_SHAPES if quick else SHAPES

    def compare(shape: tuple[int, int, int]) -> None:
        for dtype in DTYPES:
            data["cases"].append(asdict(measure(shape, dtype, rates)))
            _tidy(data["cases"][-1])

    compare(shapes[0])
    for dtype in DTYPES:
        data["steps"] += steps(data["neurons"], dtype, rates)
        _tidy(data["steps"][-len(WAYS) :])
    whole_run(1000, "float64")  # everything is compiled once
    for dtype in DTYPES:
        data["runs"].append(whole_run(data["neurons"], dtype))
        _tidy(data["runs"][-1])
    for shape in (last, *shapes[1:]):
        compare(shape)


def main(quick: bool = False) -> None:
    """Measure and report."""
    if problem := device_problem():
        print(f"gpu: left out, the backend cuda {problem}")
        return
    started = time.perf_counter()
    rates = limits(quick)
    data: dict[str, Any] = {
        **describe(),
        "memory": total_memory(),
        "limits": rates,
        "neurons": QUICK_LARGEST if quick else LARGEST,
        "cases": [],
        "steps": [],
        "runs": [],
    }
    print(data, flush=True)
    try:
        _measure_all(data, rates, quick)
    except KeyboardInterrupt:
        print("gpu: interrupted; what has been measured is reported")
    data["seconds"] = time.perf_counter() - started
    report("gpu", tables(data), data, quick, ("cupy-cuda13x", "cupy-cuda12x", "torch", "jax"))
