"""Networks a second, many small ones to a given loss: ``python -m benchmarks ensemble``.

The published data (x = -1/2, -1/6, 1/6, 1/2, y = x^2, bias), ReLU, antisymmetric initial values,
gamma = 1, gamma' = 0, m = 200, a thousand seeds, each to R = 1e-4 at rtol = 1e-3. Every contestant
starts from the same weights and uses all cores; the error is that of RD of the input weights at
the stop, relative to small steps of kernel-bounded Heun.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.networks.two_layer import TwoLayerNetwork
from flowsim.scaling import Scaling

from .common import INPUTS, RESULTS, TARGETS, Table, X, number, report, version
from .peers import REMEDY
from .peers.ensemble import BATCHES, RTOL, Ensemble, Solved, diffrax_batches, scipy_pool

WIDTH, STOP_LOSS, NETWORKS = 200, 1e-4, 1000
CHECKED = 100
"""Networks that have a reference."""
_LONG: dict[str, Any] = {
    "step_fraction": 1.25, "late_step_fraction": 1.9, "max_relative_change": 0.03
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "flowsim": {},
    "flowsim, longer steps": {
        "method": "heun", "step_fraction": 1.5, "max_relative_change": 0.03
    },
    "flowsim, Euler": {"method": "euler", **_LONG},
    "flowsim, Euler, float32": {"method": "euler", "dtype": "float32", **_LONG},
}  # fmt: skip
"""The default, and longer steps with errors like those of the others; longest where the weights
hardly change any more."""

FINE = {"step_fraction": 1 / 64, "max_relative_change": 0.005}
ROUNDS = 3


def _experiment(**integrate: Any) -> dict[str, Any]:
    """The problem as flowsim's sections."""
    return {
        "network": {"width": WIDTH, "activation": "relu", "antisymmetric": True},
        "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
        "data": {"kind": "points", "x": X[:, None].tolist(), "y": TARGETS.tolist()},
        "integrate": {"stop_loss": STOP_LOSS, "rtol": RTOL} | integrate,
        "record": {name: {"schedule": "none"} for name in ("observables", "snapshots")},
    }


def _flowsim(experiment: dict[str, Any], networks: int, remark: str = "") -> Solved:
    """So many seeds, in memory, with RD of each; what else a run holds is looked at afterwards."""
    started = time.perf_counter()
    runs = fs.simulate(experiment, seeds=networks)
    _ = runs.relative_change
    seconds = time.perf_counter() - started
    final = np.array(
        [np.vstack([run.final["output_weights"][None], run.final["input_weights"]]) for run in runs]
    )
    evaluations = statistics.mean(int(run.observables["n_rhs"][-1]) for run in runs)
    return Solved(final, seconds, evaluations, remark or f"{runs[0].attributes['method']}")


def initial_states(networks: int) -> np.ndarray:
    """What flowsim draws for the seeds 0, 1, ..."""
    scaling = Scaling(WIDTH, 1.0, 0.0)
    return np.array(
        [
            TwoLayerNetwork(scaling, ACTIVATIONS["relu"], True, seed=seed).initial_values(2)
            for seed in range(networks)
        ]
    )


def relative_change(final: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """RD of the input weights, first copy, of every network."""
    change = np.linalg.norm((final - initial)[:, 1:, :WIDTH], axis=(1, 2))
    return change / np.linalg.norm(initial[:, 1:, :WIDTH], axis=(1, 2))


def references(initial: np.ndarray) -> tuple[np.ndarray, float]:
    """RD by very small steps, and its largest relative difference from twice the step."""
    fine = relative_change(
        _flowsim(_experiment(method="heun", **FINE), len(initial)).final, initial
    )
    twice = {name: 2.0 * bound for name, bound in FINE.items()}
    coarse = _flowsim(_experiment(method="heun", **twice), len(initial)).final
    return fine, float(np.max(np.abs(relative_change(coarse, initial) / fine - 1.0)))


def _remark(setting: dict[str, Any]) -> str:
    if not setting:
        return ""
    change = 100.0 * setting["max_relative_change"]
    late = setting.get("late_step_fraction", setting["step_fraction"])
    return f"{setting['method']}, c = {setting['step_fraction']:g}, late {late:g}, cap {change:g} %"


def contestants(problem: Ensemble, quick: bool) -> dict[str, Callable[[], Solved]]:
    """All that are installed, warm."""
    networks = len(problem.initial)
    for setting in SETTINGS.values():
        _flowsim(_experiment(**setting), 2 * usable_cores())
    found: dict[str, Callable[[], Solved]] = {
        name: partial(_flowsim, _experiment(**setting), networks, _remark(setting))
        for name, setting in SETTINGS.items()
    }
    found["SciPy RK45, processes"] = scipy_pool(problem, usable_cores())
    if version("diffrax"):
        batches = (5,) if quick else BATCHES
        found["diffrax Tsit5, vmap + jit"] = diffrax_batches(problem, usable_cores(), batches)
        found["diffrax Tsit5, jit alone"] = diffrax_batches(problem, usable_cores(), (1,))
        name = "diffrax Tsit5, vmap + jit, float32"
        try:
            found[name] = diffrax_batches(problem, usable_cores(), batches, "float32")
        except Exception as error:  # its search for the crossing may not converge in float32
            print(f"{name}: left out, {type(error).__name__}", flush=True)
    else:
        print(f"diffrax: not installed, left out; {REMEDY} installs it", flush=True)
    return found


def main(quick: bool = False) -> None:
    """Measure, report, and draw the figure."""
    networks, checked = (20, 4) if quick else (NETWORKS, CHECKED)
    initial = initial_states(networks)
    problem = Ensemble(initial, INPUTS, TARGETS, 1.0 / WIDTH, STOP_LOSS)
    expected, own = references(initial[:checked])
    calls = contestants(problem, quick)
    solved: dict[str, list[Solved]] = {name: [] for name in calls}
    for _ in range(1 if quick else ROUNDS):
        for name, call in calls.items():
            solved[name].append(call())
    rows = []
    for name, results in solved.items():
        change = relative_change(results[0].final[:checked], initial[:checked])
        errors = np.abs(change / expected - 1.0)
        seconds = [result.seconds for result in results]
        ours = [result.seconds for result in solved["flowsim"]]
        rows.append(
            {
                "contestant": name,
                "networks": networks,
                "seconds": statistics.median(seconds),
                "networks_a_second": networks / statistics.median(seconds),
                "over_flowsim": statistics.median(
                    s / o for s, o in zip(seconds, ours, strict=True)
                ),
                "evaluations": results[0].evaluations,
                "median_error": float(np.median(errors)),
                "ninth_error": float(np.quantile(errors, 0.9)),
                "largest_error": float(np.max(errors)),
                "remark": results[0].remark,
            }
        )
    table = Table(
        f"{networks} networks, m = {WIDTH}, antisymmetric, to R = {STOP_LOSS:g} at rtol = {RTOL:g}",
        [
            "",
            "networks/s",
            "time / flowsim's",
            "evaluations",
            "median error",
            "90 %",
            "largest",
            "how",
        ],
        note=f"Errors of RD over {checked} networks; the references change by at most {own:.1e} "
        "at twice the step. Evaluations: right-hand sides a network.",
    )
    for row in rows:
        cells = [f"{row['networks_a_second']:.1f}", f"{row['over_flowsim']:.2f}"]
        cells += [f"{row['evaluations']:.0f}", number(row["median_error"])]
        cells += [number(row["ninth_error"])]
        table.rows.append([row["contestant"], *cells, number(row["largest_error"]), row["remark"]])
    packages = ("jax", "diffrax")
    data = {"rows": rows, "reference_own_error": own}
    report("ensemble", [table], data, quick, packages)
    if not quick:
        from .figures import draw_ensemble

        draw_ensemble(rows, RESULTS)
