"""Ten thousand networks on the card: ``python -m benchmarks gpu_ensemble``.

The published data (x = -1/2, -1/6, 1/6, 1/2, y = x^2, bias), ReLU, antisymmetric initial values,
gamma = 1, gamma' = 0, m = 1,000, a seed each. Seconds are those of a whole call of
`flowsim.simulate`, with drawing the weights on the host and bringing the ends back. Errors are
those of RD of the input weights over the first seeds, relative to the ordinary driver with the
reference kernels in float64, which is to take the same steps. Without a GPU, or without CuPy, it
says so and ends.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.kernels.cuda import members
from flowsim.kernels.cuda.device import describe, device_problem, free_pool

from .common import TARGETS, Table, X, number, report

WIDTH, NETWORKS, CHECKED = 1000, 10_000, 8
QUICK_NETWORKS, QUICK_CHECKED = 1000, 2
LOSSES = (1e-4, 1e-6)
DTYPES = ("float64", "float32")
ROUNDS = 2


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
    """Seconds of the calls of `members.run_members`, and of each launch."""

    def __init__(self) -> None:
        self.calls, self.launches = 0.0, list[float]()
        self._run_members, self._launch = members.run_members, members._launch

    def __enter__(self) -> Watched:
        def run_members(*arguments: Any, **options: Any) -> None:
            started = time.perf_counter()
            self._run_members(*arguments, **options)
            self.calls += time.perf_counter() - started

        def launch(*arguments: Any) -> None:
            started = time.perf_counter()
            self._launch(*arguments)
            self.launches.append(time.perf_counter() - started)

        members.run_members, members._launch = run_members, launch
        return self

    def __exit__(self, *_: object) -> None:
        members.run_members, members._launch = self._run_members, self._launch


def measure(dtype: str, stop_loss: float, networks: int, checked: int) -> dict[str, Any]:
    """The fastest of some rounds."""
    wanted = experiment("cuda", dtype, stop_loss)
    started = time.perf_counter()
    fs.simulate(wanted, seeds=2)
    print(f"{dtype}: two networks, compiled, in {time.perf_counter() - started:.1f} s", flush=True)
    found: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        with Watched() as watched:
            started = time.perf_counter()
            runs = fs.simulate(wanted, seeds=networks)
            changes = runs.relative_change["input"]
            spent = time.perf_counter() - started
        launches = watched.launches
        print(
            f"{networks} networks to {stop_loss:g} in {dtype}: {spent:.2f} s, on the card "
            f"{watched.calls:.2f} s, {len(launches)} launches of {sum(launches):.3f} s, the "
            f"longest {max(launches):.3f} s",
            flush=True,
        )
        found.append({"seconds": spent, "calls": watched.calls, "launches": launches})
        free_pool()
    best = min(found, key=lambda one: one["seconds"])
    return {
        "dtype": dtype, "stop_loss": stop_loss, "networks": networks, **best,
        "rounds": [one["seconds"] for one in found], "changes": changes[:checked].tolist(),
        "evaluations": [int(run.observables["n_rhs"][-1]) for run in runs[:checked]],
        "status": [run.status for run in runs[:checked]],
    }  # fmt: skip


def compare(row: dict[str, Any]) -> None:
    """Add the errors of RD."""
    wanted = fs.load_experiment(experiment("reference", "float64", row["stop_loss"]))
    exact = [fs.simulate(wanted.with_seed(seed)) for seed in range(len(row["changes"]))]
    expected = np.array([run.relative_change["input"] for run in exact])
    row["errors"] = np.abs(np.array(row["changes"]) / expected - 1.0).tolist()
    row["expected_evaluations"] = [int(run.observables["n_rhs"][-1]) for run in exact]
    print(
        f"{row['dtype']}, {row['stop_loss']:g}: errors up to {max(row['errors']):.1e}", flush=True
    )


def table(rows: list[dict[str, Any]]) -> Table:
    """What is printed."""
    made = Table(
        f"{rows[0]['networks']} networks, m = {WIDTH}, antisymmetric, gamma = 1",
        ["R <", "dtype", "seconds", "handed to the card", "launches", "how many", "the longest",
         "evaluations", "median error", "largest"],
        note=f"Seconds: the whole call, the fastest of {ROUNDS}; handed to the card: with the ways "
        f"there and back. Evaluations, and errors of RD: of the first {len(rows[0]['changes'])}.",
    )  # fmt: skip
    for row in rows:
        launches = row["launches"]
        made.rows.append(
            [
                number(row["stop_loss"], 1), row["dtype"], f"{row['seconds']:.2f}",
                f"{row['calls']:.2f}", f"{sum(launches):.3f}", str(len(launches)),
                f"{max(launches):.3f}", f"{np.mean(row['evaluations']):.0f}",
                number(float(np.median(row["errors"]))), number(max(row["errors"])),
            ]
        )  # fmt: skip
    return made


def main(quick: bool = False) -> None:
    """Measure and report."""
    if problem := device_problem():
        print(f"gpu_ensemble: left out, the backend cuda {problem}")
        return
    found = describe()
    print(found, flush=True)
    networks, checked = (QUICK_NETWORKS, QUICK_CHECKED) if quick else (NETWORKS, CHECKED)
    rows = [measure(dtype, loss, networks, checked) for dtype in DTYPES for loss in LOSSES]
    for row in rows:
        compare(row)
    packages = ("cupy-cuda13x", "cupy-cuda12x")
    report("gpu_ensemble", [table(rows)], {"device": found, "rows": rows}, quick, packages)
