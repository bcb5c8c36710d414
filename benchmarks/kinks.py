"""Kinks passed neuron by neuron, beside small Euler steps: ``python -m benchmarks kinks``.

A fixed problem against Euler's limit, extrapolated here; problems at random against the method's
own limit; what a pass costs, how many a run needs; the published table of RD. Errors are those of
the RD of the input weights.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.kinks import CpuKinks
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling
from flowsim.steppers.collocation import RadauIIA
from flowsim.steppers.driver import NoObserver, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.kinks import Kinks

from .common import Table, X, number, report
from .timing import ratio, take_turns

INPUTS, TARGETS = np.array([-0.9, -0.3, 0.4, 1.0]), np.array([0.3, -0.5, 0.6, -0.2])
"""Of the fixed problem: m = 1,000, gamma = 1, no copies, NumPy's seed 0, until R < 1e-8."""
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
EULER = 0.004
"""Step of the longer of two Euler runs, whose error is of order 1."""
PROBLEMS, FINE, GIVEN = 200, 1e-7, 1e-4
MOST_STEPS = 3000
"""Windows of a problem at random after which it counts as not finished."""
MIDDLE = 5
"""Windows of the published problem at gamma = 1, of nine, after which a pass is in the middle."""
MOVED = 1e-8
"""Relative change of the initial weights that a problem's own sensitivity is seen by."""
QUIET = {"schedule": "none"}
WIDTHS, GAMMAS, SEEDS = (1000, 5000, 10_000, 20_000, 40_000), (0.5, 1.0, 1.75), 5
PUBLISHED = {
    0.5: (8.85e-3, 3.76e-3, 2.74e-3, 1.92e-3, 1.36e-3),
    1.0: (0.262, 0.270, 0.269, 0.263, 0.272),
    1.75: (7.98, 13.4, 18.4, 23.9, 31.0),
}
"""RD of one network each, read off the figures to about 1 %."""
GRID = 1e-3


def solve(method: str, network: dict, scaling: dict, x: Any, y: Any, **options: Any) -> fs.Run:
    """A run that records nothing on the way; ``options`` for ``[integrate]`` but ``initial``."""
    initial = options.pop("initial", None)
    return fs.simulate(
        network=network, scaling=scaling, x=x, y=y, initial=initial,
        integrate={"method": method, "threads": 1, **options},
        record={
            "observables": {"schedule": "steps", "every": 10**9}, "snapshots": QUIET,
        },
    )  # fmt: skip


def change(run: fs.Run) -> float:
    """RD of the input weights at the end."""
    return float(run.relative_change["input"])


def counted(run: fs.Run, name: str) -> int:
    """An observable at the end."""
    return int(run.observables[name][-1])


def fixed_problem() -> tuple[Table, list[dict]]:
    """RD and passes of the fixed problem at each tolerance, beside Euler's limit."""
    generator = np.random.default_rng(0)
    given = {"output_weights": generator.normal(size=1000)}
    given["input_weights"] = generator.normal(size=(2, 1000))
    arguments = (
        {"width": 1000}, {"gamma": 1.0, "gamma_prime": 0.0}, INPUTS, TARGETS,
    )  # fmt: skip
    steps = [
        change(solve("gradient-descent", *arguments, initial=given, step=step, stop_loss=1e-8,
                     restart=False))
        for step in (EULER, EULER / 2)
    ]  # fmt: skip
    limit = 2.0 * steps[1] - steps[0]
    table = Table(
        f"The fixed problem (Euler's limit: {limit:.7f}, wanted: 2e-5 in at most 300 passes)",
        ["rtol", "RD", "error", "passes", "windows", "iterations", "drift of invariants"],
    )
    rows = []
    for rtol in TOLERANCES:
        run = solve("kinks", *arguments, initial=given, rtol=rtol, stop_loss=1e-8)
        row = {
            "rtol": rtol, "relative_change": change(run), "error": change(run) / limit - 1.0,
            "drift": float(run.observables["invariant_drift"].max()),
            **{n: counted(run, n) for n in ("n_passes", "step", "newton_iterations")},
        }  # fmt: skip
        rows.append(row)
        table.rows.append(
            [f"{rtol:.0e}", f"{row['relative_change']:.7f}", number(row["error"]),
             str(row["n_passes"]), str(row["step"]), str(row["newton_iterations"]),
             number(row["drift"])]
        )  # fmt: skip
    return table, rows


def random_problem(seed: int) -> dict[str, Any]:
    """gamma in 0.5..1.75, gamma' in -0.4..0.4, m in 200..1e4, n in 2..16, d in 2..5 with bias."""
    generator = np.random.default_rng(seed)
    gamma, gamma_prime = generator.uniform(0.5, 1.75), generator.uniform(-0.4, 0.4)
    width = round(10 ** generator.uniform(math.log10(200), 4.0))
    n, d = int(generator.integers(2, 17)), int(generator.integers(2, 6))
    return {
        "network": {"width": width, "seed": seed},
        "scaling": {"gamma": gamma, "gamma_prime": gamma_prime},
        "x": generator.normal(size=(n, d - 1)),
        "y": generator.normal(size=n),
    }


def one_random(seed: int) -> dict[str, Any]:
    """A problem at random: errors at the given tolerance, and what they are measured against."""
    problem = random_problem(seed)
    options = {"stop_loss": 1e-6, "max_steps": MOST_STEPS}
    fine = solve("kinks", **problem, rtol=FINE, **options)
    given = solve("kinks", **problem, rtol=GIVEN, **options)
    ended = given.stop_reason.partition(":")[0]
    row = {
        "seed": seed, **problem["scaling"], "width": problem["network"]["width"],
        "n": len(problem["y"]), "d": problem["x"].shape[1] + 1, "ending": ended,
        "fine_ending": fine.stop_reason.partition(":")[0], "relative_change": change(fine),
        "error": change(given) / change(fine) - 1.0, "passes": counted(given, "n_passes"),
        "rejected": counted(given, "n_rejected"), "windows": counted(given, "step"),
    }  # fmt: skip
    if abs(row["error"]) > GIVEN:
        scaling = Scaling.from_exponents(row["width"], **problem["scaling"])
        network = TwoLayerNetwork(scaling, ACTIVATIONS["relu"], seed=seed)
        state = network.initial_values(row["d"])
        a, w = state[0], state[1:]
        noise = np.random.default_rng(0)
        moved = {
            "output_weights": a * (1.0 + MOVED * noise.normal(size=a.shape)),
            "input_weights": w * (1.0 + MOVED * noise.normal(size=w.shape)),
        }
        other = solve("kinks", **problem, rtol=FINE, initial=moved, **options)
        row["sensitivity"] = change(other) / change(fine) - 1.0
    return row


def random_problems(rows: list[dict]) -> Table:
    """Errors of problems at random at rtol = `GIVEN`."""
    errors = np.array([abs(row["error"]) for row in rows])
    done = np.array([row["ending"] in ("stop_loss", "steady_state") for row in rows])
    table = Table(
        f"{len(rows)} problems at random, rtol = {GIVEN:g}, against {FINE:g} (wanted: errors "
        "below 1e-3 in 95 %, below 1e-4 in 80 %, every run finishing)",
        ["finished", "below 1e-3", "below 1e-4", "median error", "median passes", "most passes"],
    )
    passes = [row["passes"] for row in rows]
    table.rows.append(
        [f"{done.mean():.1%}", f"{(errors < 1e-3).mean():.1%}", f"{(errors < 1e-4).mean():.1%}",
         number(float(np.median(errors))), f"{np.median(passes):.0f}", str(max(passes))]
    )  # fmt: skip
    worst = sorted(rows, key=lambda row: -abs(row["error"]))
    table.note = "\n".join(
        f"- seed {row['seed']}: gamma {row['gamma']:.2f}, gamma' {row['gamma_prime']:.2f}, m "
        f"{row['width']}, n {row['n']}, d {row['d']}, {row['ending']}: error {row['error']:.1e}; "
        f"initial weights moved by {MOVED:g} change RD by {row['sensitivity']:.1e}"
        for row in worst
        if "sensitivity" in row
    )
    return table


def passes(width: int, rounds: int) -> tuple[Table, dict[str, float]]:
    """A pass over a right-hand side, without kinks and in the middle of a run."""
    network = TwoLayerNetwork(Scaling.from_exponents(width, 1.0, 0.0), ACTIVATIONS["relu"])
    flow = TwoLayerFlow(network, np.column_stack([X, np.ones(4)]), X**2)
    kinks, nodes = CpuKinks(flow.field, width, 1), RadauIIA(3).nodes
    theta, pattern = flow.initial, kinks.planes.sides(flow.initial[1:])
    outcome = integrate(flow, Kinks(1e-3), StopRules(max_steps=MIDDLE), NoObserver())
    here = outcome.continuation
    assert here is not None
    begun = here.point.theta, here.stepper["pattern"]
    residual = flow.residual(theta)
    out, out_pattern, slope = np.empty_like(theta), np.empty_like(pattern), flow.empty()

    def right_hand_side() -> None:
        flow.residual(theta)
        flow.rate(theta, residual, slope)

    def window(at: tuple[np.ndarray, np.ndarray], e: np.ndarray, step: float) -> Any:
        forces = step * kinks.planes.forces(np.outer(e, [1.0, -0.2, 0.05]))
        return lambda: kinks.pass_window(*at, forces, nodes, out, out_pattern)

    calls = {
        "right-hand side": right_hand_side,
        "no kinks": window((theta, pattern), residual, 1e-9),
        "a short window": window((theta, pattern), residual, 0.05),
        "in the middle": window(begun, here.point.residual, here.stepper["step"]),
        "K": lambda: kinks.gram(*begun),
    }
    spent = take_turns(calls, rounds, 0.3)
    ratios = {name: ratio(spent[name], spent["right-hand side"]) for name in calls}
    table = Table(
        f"A pass at (m, n, d) = ({width:g}, 4, 2), one thread (wanted: 30 right-hand sides)",
        ["pass", "over a right-hand side", "ns a neuron"],
        [[name, f"{ratios[name]:.1f}", f"{1e9 * np.median(spent[name]) / width:.1f}"]
         for name in calls],
        note=f"In the middle {(begun[1] == 0).any(axis=0).mean():.0%} of the neurons are held.",
    )  # fmt: skip
    return table, ratios


def growth(widths: tuple[int, ...]) -> tuple[Table, list[dict]]:
    """Windows and passes of the published problem against m."""
    table = Table("Windows against m: gamma = 1, rtol 1e-3", ["m", "windows", "passes", "s"])
    rows = []
    for width in widths:
        started = time.perf_counter()
        run = solve(
            "kinks", {"width": width, "antisymmetric": True}, {"gamma": 1.0, "gamma_prime": 0.0},
            X, X**2, stop_loss=1e-5,
        )  # fmt: skip
        spent = time.perf_counter() - started
        rows.append({"width": width, "windows": counted(run, "step"),
                     "passes": counted(run, "n_passes"), "seconds": spent})  # fmt: skip
        table.rows.append(
            [f"{width:g}", *(str(rows[-1][key]) for key in ("windows", "passes")), f"{spent:.2f}"]
        )
    return table, rows


def published_table(seeds: int, widths: tuple[int, ...]) -> tuple[Table, dict]:
    """The published RD, mean and standard deviation over seeds."""
    started = time.perf_counter()
    table = Table(
        f"The published RD, {seeds} seeds", ["gamma", *(f"m = {width:g}" for width in widths)]
    )
    found: dict[str, list] = {}
    for gamma in GAMMAS:
        cells = []
        for place, width in enumerate(widths):
            values = [
                change(solve("kinks", {"width": width, "antisymmetric": True, "seed": seed},
                             {"gamma": gamma, "gamma_prime": 0.0}, X, X**2, stop_loss=1e-5,
                             rtol=GRID))
                for seed in range(seeds)
            ]  # fmt: skip
            found[f"{gamma:g} {width}"] = values
            spread = f" +- {np.std(values, ddof=1):.1e}" if seeds > 1 else ""
            cells.append(f"{np.mean(values):.4g}{spread} ({PUBLISHED[gamma][place]:g})")
        table.rows.append([f"{gamma:g}", *cells])
    spent = time.perf_counter() - started
    table.note = f"In brackets one published network. All in {spent:.0f} s on one thread."
    return table, {"values": found, "seconds": spent}


def main(quick: bool = False) -> None:
    """Measure and report."""
    fixed, fixed_rows = fixed_problem()
    cost, ratios = passes(10_000 if quick else 1_000_000, 1 if quick else 5)
    widths, width_rows = growth((1000, 10_000) if quick else (1000, 10_000, 100_000, 1_000_000))
    table, values = published_table(1 if quick else SEEDS, WIDTHS[:2] if quick else WIDTHS)
    random_rows = [one_random(seed) for seed in range(3 if quick else PROBLEMS)]
    data = {
        "fixed": fixed_rows, "passes": ratios, "widths": width_rows, "published": values,
        "random": random_rows,
    }  # fmt: skip
    report("kinks", [fixed, cost, widths, table, random_problems(random_rows)], data, quick)
