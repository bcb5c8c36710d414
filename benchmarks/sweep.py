"""Sweeps: the published grid, sweeps that are killed, what an engine costs.

``python -m benchmarks sweep``. The published grid is examples/published_grid.toml (13 x 9 points,
five widths to 40,000: 585 runs), with two workers; its slopes are compared with those at a tenth of
the tolerance. The sweep of 200 runs is killed by SIGKILL twenty times, a random worker or the
parent, and has to end as the undisturbed one.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.recording.reader import open_runs
from flowsim.sweeps.cluster import Cluster
from flowsim.sweeps.pool import carry_out
from flowsim.sweeps.processes import Processes

from .common import Table, X, report, version

PUBLISHED = Path(__file__).parents[1] / "examples" / "published_grid.toml"
FEW = ['grid."scaling.gamma"=[0.6,1.0,1.4]', 'grid."scaling.gamma_prime"=[-0.4,0.0,0.4]']
KILLS = 20
COMMAND = "import sys; from flowsim.cli import main; sys.exit(main(sys.argv[1:]))"
_NOT_COMPARED = {"wall_seconds"}


# --- the published grid ------------------------------------------------------------------------


def published(folder: Path, quick: bool) -> dict[str, Any]:
    """Carry the published grid out, and again at a tenth of the tolerance."""
    few = FEW if quick else []
    fs.sweep(PUBLISHED, folder / "warm", workers=2, overrides=[*FEW, "grid.seeds=1"])
    found: dict[str, Any] = {}
    slopes = {}
    for name, settings in {
        "auto": [],
        "euler": ["integrate.method=euler"],
        "auto, rtol 1e-4": ["integrate.rtol=1e-4"],
    }.items():
        began, used = time.perf_counter(), _cpu_seconds()
        result = fs.sweep(PUBLISHED, folder / name, workers=2, overrides=[*few, *settings])
        found[name] = {
            "runs": result.n_run,
            "failed": len(result.failed),
            "seconds": time.perf_counter() - began,
            "core_seconds": _cpu_seconds() - used,
        }
        points = fs.classify(result).points
        slopes[name] = np.array([point.layers["input"].slope for point in points])
    for name in found:
        found[name]["max_difference"] = float(
            np.abs(slopes[name] - slopes["auto, rtol 1e-4"]).max()
        )
    return found


def _cpu_seconds() -> float:
    """Seconds of all cores that this process and its ended workers have taken."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, kinds))


# --- killed ------------------------------------------------------------------------------------


def grid_to_kill(path: Path, quick: bool) -> None:
    """Write a grid of 200 runs, a quarter of a second each."""
    import tomli_w

    gammas = [round(0.6 + 0.02 * k, 3) for k in range(8 if quick else 40)]
    grid = {
        "network": {"width": 10_000, "antisymmetric": True},
        "scaling": {"gamma_prime": 0.0},
        "data": {"kind": "points", "x": X[:, None].tolist(), "y": (X**2).tolist()},
        "integrate": {"stop_loss": 1e-5},
        "grid": {"scaling.gamma": gammas, "seeds": 5},
    }
    path.write_text(tomli_w.dumps(grid), encoding="utf-8")


def killed(folder: Path, quick: bool, dask: bool = False) -> dict[str, Any]:
    """Kill a sweep again and again; compare it with the undisturbed one."""
    grid, out = folder / "grid.toml", folder / f"killed{dask}"
    grid_to_kill(grid, quick)
    whole = fs.sweep(grid, folder / "whole", workers=2)
    dice, kills, started = random.Random(0), {"worker": 0, "parent": 0}, 0
    command = [sys.executable, "-c", COMMAND, "sweep", str(grid), "-o", str(out)]
    command += ["--workers", "2", "--quiet", *(["--dask", "local"] if dask else [])]
    process: subprocess.Popen[bytes] | None = None
    wanted = 4 if quick else KILLS
    while sum(kills.values()) < wanted:
        if process is None or process.poll() is not None:
            if process is not None and process.returncode == 0:
                break
            process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
            started += 1
        before = _done(out)
        deadline = time.monotonic() + 120
        while _done(out) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(dice.uniform(0.0, 0.3))
        # Workers of Dask are the children of their nannies' processes.
        workers = [pid for pid in _group(process.pid) if pid != process.pid and _is_busy(pid)]
        target = process.pid if not workers or dice.random() < 0.5 else dice.choice(workers)
        if process.poll() is None:
            os.kill(target, signal.SIGKILL)
            kills["parent" if target == process.pid else "worker"] += 1
            if target == process.pid:
                process.wait()
                time.sleep(0.6)
                for pid in _group(process.pid):  # a cluster does not follow at once
                    os.kill(pid, signal.SIGKILL)
    if process is not None:
        process.wait()
    last = fs.sweep(grid, out, workers=2)
    carried_out: dict[str, int] = {}
    for line in (out / "times.csv").read_text().splitlines():
        point, _, runs, *_ = line.split(",")
        carried_out[point] = carried_out.get(point, 0) + int(runs)
    return {
        "runs": len(whole),
        "kills": kills,
        "started": started,
        "lost": len(whole) - len(last),
        "failed": len(last.failed),
        "recorded twice": sum(max(0, runs - 5) for runs in carried_out.values()),
        "differences": differences(folder / "whole", out),
    }


def _done(out: Path) -> int:
    return len(list(out.glob("runs/*.h5")))


def _group(number: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == number and fields[0] not in "ZX":
            found.append(int(file.parent.name))
    return found


def _is_busy(pid: int) -> bool:
    """Whether this is a worker, not a helper of the pool's: it has read the kernels."""
    try:
        return "numba" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def differences(one: Path, other: Path) -> int:
    """Count runs that are not the same, byte for byte, in two sweeps."""
    names = [sorted(path.name for path in (folder / "runs").iterdir()) for folder in (one, other)]
    if names[0] != names[1]:
        return len(set(names[0]) ^ set(names[1]))
    count = 0
    for name in names[0]:
        with open_runs(one / "runs" / name) as here, open_runs(other / "runs" / name) as there:
            count += here.seeds != there.seeds
            count += sum(not _same(a, b) for a, b in zip(here, there, strict=True))
    return count


def _same(one: Any, other: Any) -> bool:
    if set(one.groups) != set(other.groups):
        return False
    for group in one.groups:
        here, there = one.group(group), other.group(group)
        if set(here) != set(there):
            return False
        for key in set(here) - _NOT_COMPARED - {"layer"}:
            first, second = here.array(key).values, there.array(key).values
            if first.dtype != second.dtype or first.tobytes() != second.tobytes():
                return False
    return True


# --- what an engine costs ----------------------------------------------------------------------


def overhead(engine: Any, count: int) -> float:
    """Seconds a task that does nothing takes, workers being there already."""
    marks: list[float] = []
    warm = 20
    carry_out(
        range(warm + count),
        abs,
        2,
        lambda *_: marks.append(time.perf_counter()),
        lambda *_: None,
        engine=engine,
    )
    return (marks[-1] - marks[warm]) / (len(marks) - 1 - warm)


def gain(folder: Path) -> float:
    """How many times as fast two workers are as one."""
    seconds = []
    for workers in (1, 2):
        began = time.perf_counter()
        few = [*FEW, 'grid."network.width"=[20000,40000]', "integrate.threads=1"]
        fs.sweep(PUBLISHED, folder / f"gain{workers}", workers=workers, overrides=few)
        seconds.append(time.perf_counter() - began)
    return seconds[0] / seconds[1]


# --- report ------------------------------------------------------------------------------------


def main(quick: bool) -> None:
    count = 200 if quick else 2000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data: dict[str, Any] = {"published": published(folder, quick)}
        data["overhead"] = {"pool": overhead(Processes(2), count)}
        with_dask = version("distributed") is not None
        if with_dask:
            data["overhead"]["Dask"] = overhead(Cluster("local", 2), count)
        data["two workers over one"] = gain(folder)
        data["killed"] = {"pool": killed(folder, quick)}
        if with_dask:
            data["killed"]["Dask"] = killed(folder, quick, dask=True)
    header = ("tolerance", "runs", "failed", "s", "s of one core", "largest difference of S")
    grid = Table("The published grid, two workers", header)
    for setting, row in data["published"].items():
        grid.rows.append(
            (
                setting,
                str(row["runs"]),
                str(row["failed"]),
                f"{row['seconds']:.0f}",
                f"{row['core_seconds']:.0f}",
                f"{row['max_difference']:.4f}",
            )
        )
    engines = Table("An engine's cost a task", ("engine", "ms"))
    engines.rows += [(name, f"{1e3 * s:.2f}") for name, s in data["overhead"].items()]
    engines.note = f"Two workers are {data['two workers over one']:.2f} times as fast as one."
    header = ("engine", "runs", "workers killed", "parents killed", "lost", "failed", "recorded "
              "twice", "not the same")  # fmt: skip
    kills = Table("Sweeps under SIGKILL", header)
    for engine, row in data["killed"].items():
        numbers = (row["runs"], row["kills"]["worker"], row["kills"]["parent"], row["lost"])
        more = (row["failed"], row["recorded twice"], row["differences"])
        kills.rows.append((engine, *map(str, (*numbers, *more))))
    report("sweep", [grid, engines, kills], data, quick, ["distributed"])


if __name__ == "__main__":
    main("--quick" in sys.argv)
