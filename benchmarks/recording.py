"""What it costs to save: the same run plain, recorded, and with checkpoints.

``python -m benchmarks recording``. The variants take turns; medians of several.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flowsim as fs
from flowsim.recording.recorder import Recorder

from .common import TARGETS, Table, X, report

SECONDS = 11.0
"""About how long a run lasts: several commits at the default cadence."""

REPEATS = 3
SILENT = {"schedule": "none"}
PLAIN = "plain (in memory, nothing recorded)"
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {"observables": SILENT, "snapshots": SILENT},
    "recorded, default schedules and cadence": {"checkpoint": {"seconds": 1e9}},
    "recorded, checkpoint every 5 s": {"checkpoint": {"seconds": 5.0}},
    "every step recorded, default cadence": {
        "observables": {"schedule": "steps", "every": 1},
        "checkpoint": {"seconds": 1e9},
    },
    "1,000 snapshots, default cadence": {
        "snapshots": {"schedule": "steps", "every": 0},
        "checkpoint": {"seconds": 1e9},
    },
}


def _experiment(width: int, steps: int, record: dict[str, Any]) -> fs.Experiment:
    record = {name: dict(section) for name, section in record.items()}
    if record.get("snapshots", {}).get("every") == 0:
        record["snapshots"]["every"] = max(1, steps // 1000)
    return fs.load_experiment(
        {
            "network": {"width": width, "antisymmetric": True},
            "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
            "data": {"kind": "points", "x": X[:, None].tolist(), "y": TARGETS.tolist()},
            "integrate": {"stop_loss": 0.0, "steady_slope": 0.0, "max_steps": steps},
            "record": record,
        }
    )


@contextmanager
def _timed_recorder() -> Iterator[list[float]]:
    """Seconds that runs spend in their recorder: less than the machine's moods, but countable."""
    spent, names = [0.0], ("start", "step", "keep", "finish")
    own = {name: getattr(Recorder, name) for name in names}

    def timed(method: Callable) -> Callable:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                spent[0] += time.perf_counter() - start

        return call

    try:
        for name, method in own.items():
            setattr(Recorder, name, timed(method))
        yield spent
    finally:
        for name, method in own.items():
            setattr(Recorder, name, method)


def _seconds(experiment: fs.Experiment, output: Path | None) -> tuple[float, float, fs.Run]:
    """Seconds of a run, the share of them in its recorder, and the run."""
    with _timed_recorder() as recorder:
        start = time.perf_counter()
        run = fs.simulate(experiment, output=output, overwrite=output is not None)
        seconds = time.perf_counter() - start
    return seconds, recorder[0] / seconds, run


def _measure(width: int, repeats: int, seconds: float) -> list[dict[str, Any]]:
    quiet = VARIANTS[PLAIN]
    trial, _, _ = _seconds(_experiment(width, 50, quiet), None)  # compiles
    trial, _, _ = _seconds(_experiment(width, 50, quiet), None)
    steps = max(100, int(50 * seconds / trial))
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    shares: dict[str, list[float]] = {name: [] for name in VARIANTS}
    sizes: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for name, record in VARIANTS.items():
                output = None if name.startswith("plain") else Path(folder) / "run.h5"
                spent, share, run = _seconds(_experiment(width, steps, record), output)
                times[name].append(spent)
                shares[name].append(share)
                with run:
                    rows = len(run.time)
                    frames = rows + (
                        len(run.snapshots["time_snapshot"]) if len(run.snapshots) else 0
                    )
                sizes[name] = frames, 0 if output is None else output.stat().st_size
    plain = times[PLAIN]
    return [
        {
            "width": width,
            "steps": steps,
            "variant": name,
            "seconds": statistics.median(spent),
            # Each against the plain run of its own round: the machine's moods cancel.
            "overhead": statistics.median(
                own / bare - 1.0 for own, bare in zip(spent, plain, strict=True)
            ),
            # Of that the plain run's recorder does a part too: it looks when the next row is due.
            "counted": statistics.median(shares[name]) - statistics.median(shares[PLAIN]),
            "frames": sizes[name][0],
            "bytes": sizes[name][1],
        }
        for name, spent in times.items()
    ]


def main(quick: bool = False) -> None:
    """Print the table."""
    widths = (2_000,) if quick else (1_000, 100_000)
    data = [
        line
        for width in widths
        for line in _measure(width, 1 if quick else REPEATS, 2.0 if quick else SECONDS)
    ]
    header = ["m", "steps", "variant", "seconds", "overhead", "counted", "frames/s", "bytes/frame"]
    rows = [
        [
            f"{line['width']:,}",
            f"{line['steps']:,}",
            line["variant"],
            f"{line['seconds']:.2f}",
            f"{100 * line['overhead']:+.1f} %",
            f"{100 * line['counted']:+.1f} %",
            f"{line['frames'] / line['seconds']:.0f}",
            f"{line['bytes'] / line['frames']:,.0f}",
        ]
        for line in data
    ]
    note = (
        "A frame is a row of observables or a snapshot. Overhead: against the plain run of its own "
        "round. Counted: the share of a run's own time that it spends in its recorder, beyond that "
        "of the plain run; it does not depend on how fast the machine was meanwhile."
    )
    report("recording", [Table("The price of saving", header, rows, note)], data, quick)
