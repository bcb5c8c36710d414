"""Cost and memory against the width, on the CPU: ``python -m benchmarks width``.

Cost: a fused Euler step of networks from a thousand to fifty million neurons, in turns; the
exponent is that of a least-squares line beyond the cache. Memory: whole runs of `flowsim.simulate`
in processes of their own, from what a process holds before its run to the most it ever held, in
copies of the state.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.steppers import METHOD_NAMES

from .common import FOLDER, RESULTS, TARGETS, Table, X, report
from .fields import Passes
from .timing import take_turns

SAMPLES, INPUTS = 4, 2
WIDTHS = (
    1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
    20_000_000, 50_000_000,
)  # fmt: skip
FITTED = 1_000_000
"""Width from which on the exponent is fitted: a state of 24 MB."""
DTYPES = ("float64", "float32")
ROUNDS, BUDGET = 7, 0.05

LOW_STORAGE, FALLBACK = "rdpk35", "heun"
MEMORY_WIDTHS = (100_000, 1_000_000, 10_000_000)
MEMORY_LIMIT = 5.5
"""Copies of the state that a run with the low-storage pair may take, m = 1e7."""
STEPS = 4
WARM_WIDTH = 1_000


def memory_methods() -> list[str]:
    """The low-storage pair, or what stands in for it, and methods to compare with."""
    if LOW_STORAGE in METHOD_NAMES:
        return [LOW_STORAGE, "euler", "heun", "tsit54"]
    print(f"width: no method {LOW_STORAGE!r} in this flowsim; {FALLBACK} stands in for it")
    return [FALLBACK, "euler", "tsit54"]


def cost(widths: tuple[int, ...], dtype: str, rounds: int) -> dict[str, Any]:
    """Seconds a step at every width, and the exponent beyond the cache."""
    passes = {str(m): Passes((m, SAMPLES, INPUTS), dtype) for m in widths}
    calls = {name: one.euler for name, one in passes.items()}
    times = take_turns(calls, rounds, BUDGET, least=3)
    medians = np.array([np.median(times[str(m)]) for m in widths])
    large = np.array(widths) >= FITTED
    exponent = math.nan
    if large.sum() > 1:
        exponent = float(np.polyfit(np.log(np.array(widths)[large]), np.log(medians[large]), 1)[0])
    return {
        "dtype": dtype,
        "widths": list(widths),
        "state_bytes": [one.nbytes for one in passes.values()],
        "seconds": medians.tolist(),
        "exponent": exponent,
    }


def run(width: int, method: str) -> None:
    """A few steps of the published problem, as a user would run them."""
    fs.simulate(
        network={"width": width},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        x=X,
        y=TARGETS,
        integrate={"method": method, "max_steps": STEPS, "stop_loss": 0.0},
        record={"snapshots": {"schedule": "none"}},
    )


def _status(name: str) -> int:
    """A size in bytes from what Linux says of this process."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"/proc/self/status: no {name} here")
    return 1024 * int(found.group(1))


def child() -> None:
    """Measure one run; this is what the process of its own carries out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("width", type=int)
    parser.add_argument("method")
    arguments = parser.parse_args()
    run(WARM_WIDTH, arguments.method)  # compiled code is loaded
    before = _status("VmRSS")
    run(arguments.width, arguments.method)
    print(json.dumps({"before": before, "peak": _status("VmHWM")}))


def memory(width: int, method: str) -> dict[str, Any]:
    """Peak memory of a run in copies of its state."""
    command = [sys.executable, "-c", "from benchmarks.width import child; child()"]
    done = subprocess.run(
        [*command, str(width), method],
        cwd=FOLDER.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    state = 8 * (1 + INPUTS) * width
    copies = (found["peak"] - found["before"]) / state
    return {"width": width, "method": method, "state_bytes": state, "copies": copies, **found}


def _cost_table(costs: list[dict[str, Any]]) -> Table:
    table = Table(
        f"A fused Euler step, n = {SAMPLES}, d = {INPUTS}, {usable_cores()} threads",
        ["m", *(f"{line['dtype']} {what}" for line in costs for what in ("MB", "ms", "ns/neuron"))],
    )
    for k, m in enumerate(costs[0]["widths"]):
        cells = [f"{m:,}"]
        for line in costs:
            spent = line["seconds"][k]
            cells += [f"{1e-6 * line['state_bytes'][k]:.3g}", f"{1e3 * spent:.4g}"]
            cells.append(f"{1e9 * spent / m:.2f}")
        table.rows.append(cells)
    fits = ", ".join(f"{line['exponent']:.3f} ({line['dtype']})" for line in costs)
    table.note = (
        f"Exponent of the seconds in m from {FITTED:,} neurons on: {fits}. MB: of the state. "
        "Medians of rounds in turn."
    )
    return table


def _memory_table(found: list[dict[str, Any]]) -> Table:
    table = Table(
        f"Peak memory of a run, n = {SAMPLES}, d = {INPUTS}, float64",
        ["method", "m", "state MB", "before MB", "peak MB", "copies of the state"],
        note=f"Copies: peak less what the process held before. Wanted of {LOW_STORAGE} at the "
        f"largest m: at most {MEMORY_LIMIT}.",
    )
    for line in found:
        sizes = (f"{1e-6 * line[key]:.1f}" for key in ("state_bytes", "before", "peak"))
        table.rows.append([line["method"], f"{line['width']:,}", *sizes, f"{line['copies']:.2f}"])
    return table


def main(quick: bool = False) -> None:
    """Measure, report, and draw the figure."""
    # Processes first: they must not compete with arrays of gigabytes.
    sizes = MEMORY_WIDTHS[:1] if quick else MEMORY_WIDTHS
    found = [memory(m, method) for method in memory_methods() for m in sizes]
    widths = WIDTHS[2:8:2] if quick else WIDTHS
    costs = [cost(widths, dtype, 2 if quick else ROUNDS) for dtype in DTYPES]
    tables = [_cost_table(costs), _memory_table(found)]
    report("width", tables, {"cost": costs, "memory": found}, quick)
    if not quick:
        from .figures import draw_width

        draw_width(costs, found, RESULTS)
