"""Frozen references of the published problem: RD at the stop from very small steps.

``python -m benchmarks reference`` makes those that are missing under ``benchmarks/reference/``;
delete a file to make it again. Each holds the value, the value at twice the step, and, as a check
by a method of another order with another control, kernel-bounded Euler's value and its own change
over the last halving. In the condensed regime the errors fall in jumps, since single neurons decide
where they go while the weights are still small: only there must the cap on the change be small.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

import flowsim as fs

from . import stiff_reference
from .common import (
    FOLDER,
    GAMMAS,
    INPUTS,
    STOP_LOSS,
    TARGETS,
    WIDTHS,
    Table,
    machine,
    number,
    solve,
    write_json,
)

STEPS = {
    0.5: {"step_fraction": 1 / 64, "max_relative_change": 0.005},
    1.0: {"step_fraction": 1 / 128, "max_relative_change": 0.005},
    1.5: {"step_fraction": 1 / 16, "max_relative_change": 0.0003125},
    1.75: {"step_fraction": 1 / 16, "max_relative_change": 0.0003125},
}
"""Of Heun's references."""

EULER = {
    0.5: {"step_fraction": 1 / 128, "max_relative_change": 0.005},
    1.0: {"step_fraction": 1 / 128, "max_relative_change": 0.005},
    1.5: {"step_fraction": 1 / 32, "max_relative_change": 0.000078125},
    1.75: {"step_fraction": 1 / 32, "max_relative_change": 0.000078125},
}
"""Of Euler's cross-checks. At gamma = 1.5 and m = 10,000 Euler gives 5.2586, and the same to 7e-6
at four caps from 0.00125 down to 0.00016; only half of that brings it to Heun's 5.2551. Agreement
over halvings is therefore no proof by itself: hence two methods."""


def load(gamma: float, width: int) -> dict[str, Any]:
    """Read a frozen reference."""
    path = _path(gamma, width)
    if not path.exists():
        raise SystemExit(f"{path.name}: missing; python -m benchmarks reference makes it")
    return json.loads(path.read_text(encoding="utf-8"))


def _path(gamma: float, width: int):
    return FOLDER / "reference" / f"gamma_{gamma:g}_width_{width}.json"


def coarser(steps: dict[str, float]) -> dict[str, float]:
    """Twice the step, whichever bound rules it."""
    return {name: 2.0 * bound for name, bound in steps.items()}


def largest_rate(run: fs.Run) -> float:
    """lambda_max(K/n) at the end of a run of the published problem."""
    from flowsim.kernels.activations import ACTIVATIONS
    from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork

    network = TwoLayerNetwork(run.scaling, ACTIVATIONS["relu"], antisymmetric=True)
    flow = TwoLayerFlow(network, INPUTS, TARGETS)
    a, w = run.weights()
    return flow.tangent_kernel(flow.kernels.array(np.vstack([a[None], w]))).largest_rate


def make(gamma: float, width: int) -> dict[str, Any]:
    """Integrate a reference, its check at twice the step, and Euler's cross-check."""
    started = time.perf_counter()
    fine, steps = STEPS[gamma], EULER[gamma]
    coarse = coarser(fine)
    runs = {
        "reference": solve(gamma, width, method="heun", **fine),
        "twice_the_step": solve(gamma, width, method="heun", **coarse),
        "euler": solve(gamma, width, method="euler", **steps),
        "euler_twice": solve(gamma, width, method="euler", **coarser(steps)),
    }
    for run in runs.values():
        if not run.stop_reason.startswith("stop_loss"):
            raise SystemExit(f"gamma = {gamma}, m = {width}: {run.stop_reason}")
    value = {name: run.relative_change["input"] for name, run in runs.items()}
    best = value["reference"]
    return {
        "problem": "x = -1/2, -1/6, 1/6, 1/2; y = x^2; bias; ReLU; antisymmetric; gamma' = 0",
        "gamma": gamma,
        "width": width,
        "seed": 0,
        "stop_loss": STOP_LOSS,
        "method": "heun",
        "steps": fine,
        "n_steps": int(runs["reference"].final["n_steps"]),
        "relative_change": runs["reference"].relative_change,
        "input_at_twice_the_step": value["twice_the_step"],
        "relative_difference": abs(value["twice_the_step"] / best - 1.0),
        "cross_check": {
            "method": "euler",
            "steps": steps,
            "n_steps": int(runs["euler"].final["n_steps"]),
            "input": value["euler"],
            "input_at_twice_the_step": value["euler_twice"],
            "relative_difference": abs(value["euler_twice"] / value["euler"] - 1.0),
            "relative_difference_from_reference": abs(value["euler"] / best - 1.0),
        },
        "time_at_stop": float(runs["reference"].final["time"]),
        "largest_rate_at_stop": largest_rate(runs["reference"]),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": machine(),
    }


def table() -> Table:
    """The references that there are, with their own accuracy."""
    header = ["gamma", "m", "RD", "halving", "steps", "Euler against it", "Euler's halving"]
    found = Table("Frozen references: RD of the input weights at R = 1e-5", header)
    for gamma in GAMMAS:
        for width in WIDTHS:
            one = load(gamma, width)
            check = one["cross_check"]
            found.rows.append(
                [
                    f"{gamma:g}",
                    str(width),
                    f"{one['relative_change']['input']:.8g}",
                    number(one["relative_difference"]),
                    str(one["n_steps"]),
                    number(check["relative_difference_from_reference"]),
                    number(check["relative_difference"]),
                ]
            )
    found.note = (
        "halving: relative difference from the value at twice the step. Euler: the same problem "
        "with kernel-bounded Euler, its difference from the reference and over its last halving."
    )
    return found


def main(quick: bool = False) -> None:
    """Make what is missing (quick: m = 1000 only), and print the table."""
    for width in WIDTHS[:1] if quick else WIDTHS:
        for gamma in GAMMAS:
            if not _path(gamma, width).exists():
                print(f"gamma = {gamma}, m = {width} ...", flush=True)
                _path(gamma, width).parent.mkdir(exist_ok=True)
                write_json(_path(gamma, width), make(gamma, width))
    if not quick:
        stiff_reference.make_missing()
        print(table().markdown())
        print(stiff_reference.table().markdown())
