"""The right-hand side against other programs and against the machine: ``python -m benchmarks rhs``.

A contestant computes the residual and its gradient for a two-layer ReLU network. For each shape
and dtype all of them take turns in one process with a copy of memory and a matrix product, whose
rates make the *roofline*: the time in which the state could be read twice and the rate written
once, or m n (4 d + 6) operations done, whichever takes longer. Both use all cores.
"""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.kernels.interface import TwoLayerField

from .common import RESULTS, Table, report, version
from .peers import PROGRAMS, TUNED, Contestant, Problem, contestants, missing
from .timing import Copy, gemm, ratio, seconds, take_turns, torch_gemm

WANTED = {
    (1_000_000, 4, 2): {"float64": 3.0, "float32": 2.0},
    (1_000_000, 32, 3): {"float64": 10.0, "float32": 10.0},
    (100_000, 64, 10): {"float64": 4.0, "float32": 3.0},
    (10_000, 256, 785): {"float64": 1.0, "float32": 1.0},
}
"""Shapes (m, n, d), and by how much flowsim is to be faster than the best program."""

QUICK = {(100_000, 4, 2): {"float64": 3.0}}
AGREEMENT = {"float64": 1e-10, "float32": 1e-4}
"""Largest relative difference of gradients, in norm."""
NEAR_KINK = 1e-5
"""Neurons with a w_k . x_i this near zero do not count there: it may round to either side of the
kink, and in float32 a single one that does so changes the norm by more than all rounding."""

ROUNDS, BUDGET = 7, 0.15
COPIED = 512 << 20
"""Bytes of the array that is copied."""


@dataclass
class Case:
    """Everything measured for one shape and dtype; times are medians over the rounds, in s."""

    shape: tuple[int, int, int]
    dtype: str
    wanted: float
    copy_rate: float
    gemm_rate: dict[str, float]
    bytes_time: float
    flops_time: float
    seconds: dict[str, float]
    over_roofline: dict[str, float]
    ways: dict[str, str]
    screened: dict[str, float] = field(default_factory=dict)
    ratio: float = float("nan")
    ratio_tuned: float = float("nan")


def flowsim_contestant(problem: Problem) -> Contestant:
    """``outputs`` and then ``rate``: the two passes of a residual with its gradient."""
    vector_field = TwoLayerField(problem.x, ACTIVATIONS["relu"], 1.0, problem.kappa, 1.0, 1.0)
    neurons, dtype = problem.theta.shape[1], np.dtype(problem.dtype)
    kernels = two_layer_kernels("cpu", vector_field, neurons, dtype, problem.threads)
    theta, out = kernels.array(problem.theta), kernels.empty()

    def call() -> np.ndarray:
        kernels.rate(theta, kernels.outputs(theta) - problem.y, out)
        return out

    return Contestant("flowsim", "outputs, rate", call, lambda: -np.asarray(call(), np.float64))


def choose(problem: Problem) -> tuple[dict[str, Contestant], dict[str, float]]:
    """The fastest way of every program after a short trial, and what the trials took.

    Raises
    ------
    SystemExit
        If a gradient is not that of flowsim.
    """
    found = [flowsim_contestant(problem), *contestants(problem)]
    counted = np.abs(problem.x @ problem.theta[1:]).min(axis=0) > NEAR_KINK
    expected = found[0].gradient()[:, counted]
    norm = np.linalg.norm(expected)
    best: dict[str, Contestant] = {}
    trials: dict[str, float] = {}
    for one in found:
        try:
            difference = np.linalg.norm(one.gradient()[:, counted] - expected) / norm
        except Exception as error:  # such as torch.compile without a C++ compiler
            print(f"{one.program}, {one.way}: left out, {type(error).__name__}: {error!s:.200}")
            continue
        if not difference <= AGREEMENT[problem.dtype]:
            raise SystemExit(f"{one.program}, {one.way}: gradient differs by {difference:.1e}")
        trials[f"{one.program}, {one.way}"] = spent = seconds(one.call, 0.0)
        if one.program not in best or spent < trials[_key(best[one.program])]:
            best[one.program] = one
    return best, trials


def _key(one: Contestant) -> str:
    return f"{one.program}, {one.way}"


def measure(shape: tuple[int, int, int], dtype: str, wanted: float, quick: bool) -> Case:
    """All contestants and both limits, in turns."""
    problem = Problem.random(shape, dtype, usable_cores())
    best, trials = choose(problem)
    copy = Copy(COPIED // 8 if quick else COPIED)
    products = {"NumPy": gemm(dtype)}
    if version("torch"):
        products["PyTorch"] = torch_gemm(dtype)
    calls = {name: one.call for name, one in best.items()}
    calls |= {f"product by {name}": product for name, (product, _) in products.items()}
    times = take_turns({"copy": copy} | calls, 2 if quick else ROUNDS, BUDGET)

    m, n, d = shape
    state = m * (1 + d) * np.dtype(dtype).itemsize
    rates = {name: work / times[f"product by {name}"] for name, (_, work) in products.items()}
    bytes_time = 3 * state / (copy.moved / times["copy"])
    flops_time = m * n * (4 * d + 6) / np.max(list(rates.values()), axis=0)
    roofline = np.maximum(bytes_time, flops_time)
    case = Case(
        shape=shape,
        dtype=dtype,
        wanted=wanted,
        copy_rate=float(np.median(copy.moved / times["copy"])),
        gemm_rate={name: float(np.median(rate)) for name, rate in rates.items()},
        bytes_time=float(np.median(bytes_time)),
        flops_time=float(np.median(flops_time)),
        seconds={name: float(np.median(times[name])) for name in best},
        over_roofline={name: ratio(times[name], roofline) for name in best},
        ways={name: one.way for name, one in best.items()},
        screened=trials,
    )
    four = [times[name] for name in PROGRAMS if name in best]
    case.ratio = ratio(np.min(four, axis=0), times["flowsim"])
    tuned = [times[name] for name in TUNED if name in best]
    case.ratio_tuned = ratio(np.min(tuned, axis=0), times["flowsim"])
    return case


def speeds(cases: list[Case]) -> Table:
    """Milliseconds of every program."""
    names = ["flowsim", *PROGRAMS, *TUNED]
    table = Table(
        "Residual and gradient, ReLU: milliseconds",
        ["m", "n", "d", "dtype", *names, "best / flowsim", "wanted", "tuned / flowsim"],
        note="Medians of rounds in turn. Best: of the four programs after flowsim, as users write "
        "them. Tuned: the faster of the two after those, which are no longer what one writes but "
        "may be faster. Ways of writing are tried first, the fastest of each program takes part.",
    )
    for case in cases:
        times = [f"{1e3 * case.seconds[k]:.2f}" if k in case.seconds else "-" for k in names]
        ratios = [case.ratio, case.wanted, case.ratio_tuned]
        table.rows.append(
            [*map(str, case.shape), case.dtype, *times, *(f"{value:.1f}" for value in ratios)]
        )
    return table


def rooflines(cases: list[Case]) -> Table:
    """The machine's limits, and how far above them flowsim is."""
    table = Table(
        "Roofline: milliseconds that the machine needs, measured in the same rounds",
        ["m", "n", "d", "dtype", "copy GB/s", "GFlop/s", "bytes", "operations", "flowsim / limit",
         "best / limit"],
        note="Bytes: the state read twice and the rate written once at the speed of a copy (bytes "
        "read and written a second, beyond the caches). Operations: m n (4 d + 6) at the speed of "
        "the faster of the BLAS of NumPy and of PyTorch. The limit is the larger of the two.",
    )  # fmt: skip
    for case in cases:
        others = [case.over_roofline[k] for k in PROGRAMS if k in case.over_roofline]
        table.rows.append(
            [
                *map(str, case.shape),
                case.dtype,
                f"{1e-9 * case.copy_rate:.1f}",
                f"{1e-9 * max(case.gemm_rate.values()):.0f}",
                f"{1e3 * case.bytes_time:.2f}",
                f"{1e3 * case.flops_time:.2f}",
                f"{case.over_roofline['flowsim']:.2f}",
                f"{min(others):.2f}",
            ]
        )
    return table


def main(quick: bool = False) -> None:
    """Measure, report, and draw the figure."""
    for line in missing():
        print(line, flush=True)
    cases: list[Case] = []
    for shape, dtypes in (QUICK if quick else WANTED).items():
        for dtype, wanted in dtypes.items():
            cases.append(measure(shape, dtype, wanted, quick))
            gc.collect()
    data: list[dict[str, Any]] = [asdict(case) for case in cases]
    report("rhs", [speeds(cases), rooflines(cases)], data, quick, ("torch", "jax"))
    if not quick:
        from .figures import draw_rhs

        draw_rhs(cases, RESULTS)
