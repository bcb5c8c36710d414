"""Nanoseconds a neuron of the kernels: ``python -m benchmarks rhs``.

``advance`` is the pass that every stage of every method is made of: rate, update and new outputs in
one sweep over the neurons. Unfused it would be ``rate`` and ``combine``, two sweeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.interface import TwoLayerField

from .common import Table, report

SHAPES = ((10_000, 4, 2), (1_000_000, 4, 2), (100_000, 64, 10))
THREADS = (1, 2)
DTYPES = ("float64", "float32")
PASSES = ("outputs", "rate", "combine", "advance", "grams")
ROUNDS, BUDGET = 8, 0.1
"""Rounds over everything, and seconds a figure in each. The least of all repetitions counts, the
one least disturbed by what else the machine does, and that comes and goes between rounds."""


def _calls(shape: tuple[int, int, int], threads: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """The passes on random weights, ready to be called."""
    m, n, d = shape
    generator = np.random.default_rng(0)
    field = TwoLayerField(generator.normal(size=(n, d)), ACTIVATIONS["relu"], 1.0, 1.0 / m, 1, 1)
    kernels = two_layer_kernels("cpu", field, m, np.dtype(dtype), threads)
    theta = kernels.array(generator.normal(size=(1 + d, m)))
    residual = generator.normal(size=n)
    none, one, out, slopes = kernels.empty(0), np.ones(1), kernels.empty(), kernels.empty(1)
    kernels.rate(theta, residual, slopes[0])
    return {
        "outputs": lambda: kernels.outputs(theta),
        "rate": lambda: kernels.rate(theta, residual, out),
        "combine": lambda: kernels.combine(theta, slopes, one, 1e-3, out),
        "advance": lambda: kernels.advance(theta, residual, theta, none, one, 1e-3, out),
        "grams": lambda: kernels.grams(theta),
    }


def least_seconds(call: Callable[[], Any], budget: float) -> float:
    """Shortest duration of a call within a budget of seconds, after one call to warm up."""
    call()
    least, spent, repetitions = np.inf, 0.0, 0
    while spent < budget or repetitions < 3:
        started = time.perf_counter()
        call()
        elapsed = time.perf_counter() - started
        least, spent, repetitions = min(least, elapsed), spent + elapsed, repetitions + 1
    return least


def main(quick: bool = False) -> None:
    """Measure and report."""
    cases = [
        (shape, dtype, threads)
        for shape in (SHAPES[:1] if quick else SHAPES)
        for dtype in DTYPES
        for threads in THREADS
    ]
    calls = [_calls(shape, threads, dtype) for shape, dtype, threads in cases]
    least = np.full((len(cases), len(PASSES)), np.inf)
    for _ in range(1 if quick else ROUNDS):
        for row, functions in enumerate(calls):
            seconds = [least_seconds(functions[name], BUDGET) for name in PASSES]
            least[row] = np.minimum(least[row], seconds)
    table = Table(
        "Nanoseconds a neuron, ReLU, CPU backend",
        ["m", "n", "d", "dtype", "threads", *PASSES],
        note="Least of the repetitions. Networks of too little work for two threads use one "
        "whatever they are given (m = 10,000 here).",
    )
    data = []
    for (shape, dtype, threads), seconds in zip(cases, least, strict=True):
        ns = 1e9 * seconds / shape[0]
        data.append(
            {
                "shape": shape,
                "dtype": dtype,
                "threads": threads,
                "ns": dict(zip(PASSES, ns.tolist(), strict=True)),
            }
        )
        cells = [*map(str, shape), dtype, str(threads)]
        table.rows.append([*cells, *(f"{value:.2f}" for value in ns)])
    report("rhs", [table], data, quick)
