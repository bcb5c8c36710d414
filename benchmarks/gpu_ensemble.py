"""Ten thousand networks on the card: ``python -m benchmarks gpu_ensemble``.

The published data (x = -1/2, -1/6, 1/6, 1/2, y = x^2, bias), ReLU, antisymmetric initial values,
gamma = 1, gamma' = 0, m = 1,000, a seed each. Seconds are those of a whole call of
`flowsim.simulate`, with drawing the weights on the host and bringing the ends back; errors are
those of RD of the input weights, relative to the same seeds on the CPU at the same steps. Without a
GPU, or without CuPy, it says so and ends.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.kernels.cuda import members
from flowsim.kernels.cuda.device import device_problem, free_pool

from .common import TARGETS, Table, X, number, report

WIDTH, NETWORKS, CHECKED = 1000, 10_000, 400
QUICK_NETWORKS, QUICK_CHECKED = 1000, 50
LOSSES = (1e-4, 1e-6)
DTYPES = ("float64", "float32")
ROUNDS = 3


def experiment(backend: str, dtype: str, stop_loss: float) -> dict[str, Any]:
    """The problem as flowsim's sections."""
    return {
        "network": {"width": WIDTH, "activation": "relu", "antisymmetric": True},
        "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
        "data": {"kind": "points", "x": X[:, None].tolist(), "y": TARGETS.tolist()},
        "integrate": {"stop_loss": stop_loss, "dtype": dtype, "backend": backend},
        "record": {name: {"schedule": "none"} for name in ("observables", "snapshots")},
    }


class Watched:
    """Seconds that calls of `members.run_members` take, and of them the launches."""

    def __init__(self) -> None:
        self.calls = self.launches = 0.0
        self._run_members, self._run = members.run_members, members._run

    def __enter__(self) -> Watched:
        def run_members(*arguments: Any, **options: Any) -> None:
            started = time.perf_counter()
            self._run_members(*arguments, **options)
            self.calls += time.perf_counter() - started

        def run(*arguments: Any) -> None:
            started = time.perf_counter()
            self._run(*arguments)
            self.launches += time.perf_counter() - started

        members.run_members, members._run = run_members, run
        return self

    def __exit__(self, *_: object) -> None:
        members.run_members, members._run = self._run_members, self._run


def measure(dtype: str, stop_loss: float, networks: int, checked: int) -> dict[str, Any]:
    """The fastest of some rounds, beside the CPU."""
    wanted = experiment("cuda", dtype, stop_loss)
    started = time.perf_counter()
    fs.simulate(wanted, seeds=2)
    compiling = time.perf_counter() - started
    rounds = []
    for _ in range(ROUNDS):
        with Watched() as watched:
            started = time.perf_counter()
            runs = fs.simulate(wanted, seeds=networks)
            changes = runs.relative_change["input"]
            spent = time.perf_counter() - started
        rounds.append((spent, watched.calls, watched.launches))
    seconds, calls, launches = min(rounds)
    on_cpu = experiment("cpu", dtype, stop_loss)
    fs.simulate(on_cpu, seeds=2)
    started = time.perf_counter()
    expected = fs.simulate(on_cpu, seeds=checked).relative_change["input"]
    cpu = (time.perf_counter() - started) / checked
    errors = np.abs(changes[:checked] / expected - 1.0)
    evaluations = [int(run.observables["n_rhs"][-1]) for run in runs[:checked]]
    complete = sum(run.status == "complete" for run in runs[:checked])
    return {
        "dtype": dtype, "stop_loss": stop_loss, "networks": networks, "seconds": seconds,
        "rounds": [one[0] for one in rounds], "calls": calls, "launches": launches,
        "compiling": compiling, "cpu": cpu * networks, "checked": checked,
        "complete": complete, "evaluations": float(np.mean(evaluations)),
        "median_error": float(np.median(errors)), "largest_error": float(np.max(errors)),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> Table:
    """What is printed."""
    made = Table(
        f"{rows[0]['networks']} networks, m = {WIDTH}, antisymmetric, gamma = 1",
        ["R <", "dtype", "seconds", "of them on the card", "launches", "CPU here", "evaluations",
         "median error", "largest"],
        note=f"Seconds: the whole call, the fastest of {ROUNDS}. On the card: with the ways there "
        f"and back. CPU here: that backend with all cores, from {rows[0]['checked']} networks, "
        "which are also those that errors of RD are taken over. Evaluations: right-hand sides a "
        "network.",
    )  # fmt: skip
    for row in rows:
        times = (f"{row[name]:.2f}" for name in ("seconds", "calls", "launches"))
        made.rows.append(
            [
                number(row["stop_loss"], 1), row["dtype"], *times, f"{row['cpu']:.1f}",
                f"{row['evaluations']:.0f}", number(row["median_error"]),
                number(row["largest_error"]),
            ]
        )  # fmt: skip
    return made


def main(quick: bool = False) -> None:
    """Measure and report."""
    if problem := device_problem():
        print(f"gpu_ensemble: left out, the backend cuda {problem}")
        return
    import cupy

    found = cupy.cuda.runtime.getDeviceProperties(0)
    networks, checked = (QUICK_NETWORKS, QUICK_CHECKED) if quick else (NETWORKS, CHECKED)
    rows = []
    for dtype in DTYPES:
        for stop_loss in LOSSES:
            rows.append(measure(dtype, stop_loss, networks, checked))
            print(rows[-1], flush=True)
            free_pool()
    data = {
        "device": found["name"].decode(),
        "driver": int(cupy.cuda.runtime.driverGetVersion()),
        "rows": rows,
    }
    print(data["device"])
    report("gpu_ensemble", [table(rows)], data, quick, ("cupy-cuda13x", "cupy-cuda12x"))
