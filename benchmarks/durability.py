"""What survives: runs killed, stopped and starved at random moments.

``python -m benchmarks durability``. A run is killed, what it left is read and compared with the
same run undisturbed; then it is continued and its file compared byte by byte (``wall_seconds`` and
``created`` apart).
"""

from __future__ import annotations

import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flowsim as fs

from .common import Table, report
from .killing import Child, carry_out, check_left, configuration, same_run, small_disk, vary

KILLS = 200
STOPS = 50
LARGE = {"record.snapshots.every": 3, "network.width": 20_000, "integrate.max_steps": 300}
CONFIGURATIONS: dict[str, tuple[dict[str, Any], bool]] = {
    "small snapshots": ({}, False),
    "small snapshots, small metadata cache": ({}, True),
    "large snapshots": (LARGE, False),
    "large snapshots, gzip": (LARGE | {"record.compression": "gzip"}, False),
    "large snapshots, gzip, small metadata cache": (LARGE | {"record.compression": "gzip"}, True),
    "tanh, tsit54, kernel recorded": (
        {
            "network.activation": "tanh",
            "integrate.method": "tsit54",
            "integrate.max_steps": 500,
            "record.kernel": {"schedule": "steps", "every": 5},
        },
        True,
    ),
}
"""Overrides of `benchmarks.killing.configuration`, and whether the metadata cache is small."""


@dataclass
class Tally:
    """What became of the trials of one kind."""

    trials: int = 0
    before_first_commit: int = 0
    resumed_alike: int = 0
    slowest_exit: float = 0.0
    problems: tuple[str, ...] = ()


def kill(experiment: fs.Experiment, whole: Path, folder: Path, moment: float, small: bool) -> Tally:
    """Kill a run after so many seconds, look at what it left, and continue it."""
    output = folder / "run.h5"
    child = Child(experiment, output, small)
    child.read(moment)
    child.kill(signal.SIGKILL)
    problems = check_left(output, child.committed, whole)
    code = carry_out(experiment, output, small_cache=small)
    problems += [f"continued: exit {code}"] if code else same_run(output, whole)
    tally = Tally(1, int(not child.committed.rows), int(not problems), 0.0, tuple(problems))
    clear(folder)
    return tally


def stop(experiment: fs.Experiment, whole: Path, folder: Path, moment: float) -> Tally:
    """Send SIGTERM so many seconds after the first step; it must exit with 75, and continue."""
    output = folder / "run.h5"
    child = Child(experiment, output)
    child.until_first_step()
    child.read(moment)
    seconds = child.kill(signal.SIGTERM)
    problems = check_left(output, child.committed, whole)
    if child.code != 75:
        problems.append(f"stopped: exit {child.code}")
    code = carry_out(experiment, output)
    problems += [f"continued: exit {code}"] if code else same_run(output, whole)
    clear(folder)
    return Tally(1, 0, int(not problems), seconds, tuple(problems))


def starve(
    experiment: fs.Experiment, whole: Path, folder: Path, space: Path, **limits: Any
) -> Tally:
    """Let a run meet a full disk; what was committed must be there, and it must continue."""
    output = space / "run.h5"
    child = Child(experiment, output, **limits)
    code = child.wait()
    problems = check_left(output, child.committed, whole)
    if code != 74:
        problems.append(f"starved: exit {code}")
    # On a disk with space it goes on from what was there.
    for file in space.iterdir():
        if not file.name.endswith(".lock"):
            (folder / file.name).write_bytes(file.read_bytes())
            file.unlink()
    code = carry_out(experiment, folder / "run.h5")
    problems += [f"continued: exit {code}"] if code else same_run(folder / "run.h5", whole)
    clear(folder)
    return Tally(1, int(not child.committed.rows), int(not problems), 0.0, tuple(problems))


def clear(folder: Path) -> None:
    """Remove the files of a trial."""
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()


def undisturbed(experiment: fs.Experiment, path: Path) -> tuple[float, float]:
    """Carry out the run to compare with; return its seconds, in all and from the first step on."""
    start = time.perf_counter()
    child = Child(experiment, path)
    child.until_first_step()
    stepping = time.perf_counter()
    if code := child.wait():
        raise RuntimeError(f"{path}: the undisturbed run ended with exit code {code}")
    return time.perf_counter() - start, time.perf_counter() - stepping


def add(tallies: list[Tally]) -> Tally:
    """Sum of the trials of one kind."""
    return Tally(
        trials=sum(t.trials for t in tallies),
        before_first_commit=sum(t.before_first_commit for t in tallies),
        resumed_alike=sum(t.resumed_alike for t in tallies),
        slowest_exit=max((t.slowest_exit for t in tallies), default=0.0),
        problems=tuple(problem for t in tallies for problem in t.problems),
    )


def _kills(root: Path, trials: int) -> dict[str, Tally]:
    results = {}
    share = -(-trials // len(CONFIGURATIONS))
    for seed, (name, (overrides, small)) in enumerate(CONFIGURATIONS.items()):
        experiment = configuration(**overrides)
        folder, whole = root / f"kill{seed}", root / f"whole{seed}.h5"
        folder.mkdir()
        seconds, _ = undisturbed(experiment, whole)
        moments = vary(seed, 0.0, 1.05 * seconds, share)
        results[name] = add([kill(experiment, whole, folder, at, small) for at in moments])
        print(f"  {name}: {results[name]}", flush=True)
    return results


def _stops(root: Path, trials: int) -> dict[str, Tally]:
    kinds = {
        "a million neurons, steps of tenths of a second": {
            "network.width": 1_000_000,
            "integrate.max_steps": 40,
            "integrate.method": "tsit54",
            "record.snapshots.every": 10,
        },
        "many short steps": {},
    }
    results = {}
    for seed, (name, overrides) in enumerate(kinds.items()):
        experiment = configuration(**overrides)
        folder, whole = root / f"stop{seed}", root / f"whole_stop{seed}.h5"
        folder.mkdir()
        # Not so late that the run may have come to its end before the signal does.
        _, seconds = undisturbed(experiment, whole)
        moments = vary(100 + seed, 0.0, 0.7 * seconds, -(-trials // len(kinds)))
        results[name] = add([stop(experiment, whole, folder, at) for at in moments])
        print(f"  {name}: {results[name]}", flush=True)
    return results


def _starved(root: Path, trials: int) -> dict[str, Tally]:
    experiment = configuration(**LARGE)
    whole, folder, space = root / "whole_starved.h5", root / "fed", root / "limited"
    folder.mkdir()
    space.mkdir()
    undisturbed(experiment, whole)
    size = whole.stat().st_size
    sizes = [int(value) for value in vary(200, 0.2 * size, 0.9 * size, trials)]
    results = {
        "file-size limit": add(
            [starve(experiment, whole, folder, space, file_size=limit) for limit in sizes]
        )
    }
    tallies = []
    for limit in sizes:
        with small_disk(root / "disk", limit) as disk:
            if disk is not None:
                tallies.append(starve(experiment, whole, folder, disk))
    results["full tmpfs" if tallies else "full tmpfs (none may be mounted here)"] = add(tallies)
    return results


def main(quick: bool = False) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        killed = _kills(root, 12 if quick else KILLS)
        stopped = _stops(root, 4 if quick else STOPS)
        starved = _starved(root, 2 if quick else 10)
    header = ["kind", "trials", "before first commit", "read, continued alike", "slowest exit (s)"]
    tables = []
    for title, results in (
        ("SIGKILL at random moments", killed),
        ("SIGTERM at random moments after the first step", stopped),
        ("A disk that is full", starved),
    ):
        rows = [
            [
                kind,
                str(tally.trials),
                str(tally.before_first_commit),
                f"{tally.resumed_alike}/{tally.trials}",
                f"{tally.slowest_exit:.2f}" if tally.slowest_exit else "-",
            ]
            for kind, tally in results.items()
        ]
        problems = [problem for tally in results.values() for problem in tally.problems]
        tables.append(Table(title, header, rows, "; ".join(problems[:20])))
    data = {
        name: {kind: asdict(tally) for kind, tally in results.items()}
        for name, results in (("killed", killed), ("stopped", stopped), ("starved", starved))
    }
    report("durability", tables, data, quick)
