"""What a pass costs each way: the table that the choice between the ways is made by.

``python -m benchmarks paths`` measures a fused pass (rate, update, outputs) of ReLU networks on
one core and writes the table ``kernels/cpu/costs.py``, which is committed: a problem gets its
way from there, never from a measurement while it runs. The ways take turns, and what counts is
the processor time of the thread, the least of several rounds: other work only adds to it.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.choice import possible_ways
from flowsim.kernels.interface import TwoLayerField

from .common import Table, report

TABLE = Path(__file__).parents[1] / "kernels" / "cpu" / "costs.py"
NEURONS = (1_000, 30_000)
SAMPLES = (4, 32, 256)
INPUTS = (2, 8, 16, 32, 64, 256)
ROUNDS = 5
HEAD = '''"""Nanoseconds a neuron of a fused pass on one core: made by ``benchmarks.paths``."""

COSTS: dict[str, dict[tuple[int, int, int], dict[str, float]]] = {
'''
TAIL = '''}
"""By dtype and (neurons, n, d). A way that is missing cannot be taken there."""
'''


def _measure(neurons: int, n: int, d: int, dtype: str, rounds: int) -> dict[str, float]:
    generator = np.random.default_rng(0)
    field = TwoLayerField(generator.normal(size=(n, d)), ACTIVATIONS["relu"], 1.0, 1.0, 1.0, 1.0)
    state, residual = generator.normal(size=(1 + d, neurons)), generator.normal(size=n)
    calls, times = {}, {}
    for way in possible_ways(field):
        kernels = two_layer_kernels("cpu", field, neurons, dtype, 1, way)
        theta, nothing, one = kernels.array(state), kernels.empty(0), np.ones(1)

        def call(kernels=kernels, theta=theta, nothing=nothing, one=one) -> None:
            kernels.advance(theta, residual, theta, nothing, one, 1e-12, theta)

        call()
        calls[way], times[way] = call, []
    repeats = max(1, int(2e7 / (neurons * n * (2 * d + 4))))
    for _ in range(rounds):
        for way, call in calls.items():
            started = time.thread_time()
            for _ in range(repeats):
                call()
            times[way].append((time.thread_time() - started) / repeats)
    return {way: min(seconds) / neurons * 1e9 for way, seconds in times.items()}


def main(quick: bool = False) -> None:
    """Measure, print, and write the table."""
    neurons, samples, inputs = (NEURONS, SAMPLES, INPUTS)
    if quick:
        neurons, samples, inputs = (1_000,), (4, 32), (2, 8)
    costs: dict[str, dict[tuple[int, int, int], dict[str, float]]] = {}
    for dtype in ("float64", "float32"):
        costs[dtype] = {
            (m, n, d): _measure(m, n, d, dtype, 2 if quick else ROUNDS)
            for m in neurons
            for n in samples
            for d in inputs
        }
    table = Table(
        "Nanoseconds a neuron of a fused pass, ReLU, one core",
        ["dtype", "neurons", "n", "d", "general", "piecewise", "matrix"],
    )
    for dtype, entries in costs.items():
        for (m, n, d), found in entries.items():
            cells = [f"{found[w]:.1f}" if w in found else "-" for w in table.header[4:]]
            table.rows.append([dtype, str(m), str(n), str(d), *cells])
    data = [
        {"dtype": dtype, "neurons": m, "n": n, "d": d, **found}
        for dtype, entries in costs.items()
        for (m, n, d), found in entries.items()
    ]
    report("paths", [table], data, quick)
    if not quick:
        TABLE.write_text(HEAD + _entries(costs) + TAIL, encoding="utf-8")


def _entries(costs: dict[str, dict[tuple[int, int, int], dict[str, float]]]) -> str:
    lines = []
    for dtype, entries in costs.items():
        lines.append(f'    "{dtype}": {{\n')
        for key, found in entries.items():
            ways = ", ".join(f'"{way}": {cost:.3g}' for way, cost in found.items())
            lines.append(f"        {key}: {{{ways}}},\n")
        lines.append("    },\n")
    return "".join(lines)
