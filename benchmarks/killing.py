"""Runs in child processes that are killed, stopped or starved, and what must be left of them.

Used by `benchmarks.durability` (long) and by the tests (short).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.api import run_experiment
from flowsim.recording import stream
from flowsim.recording.reader import RunFile

NOT_COMPARED = {"wall_seconds"}
"""Arrays that tell of the machine, not of the run; so do the attributes below."""

NOT_COMPARED_ATTRIBUTES = {"created", "hardware", "versions", "config", "config_hash"}

_REPORT = struct.Struct("<qq")
_SERIES = ("observables", "snapshots", "kernel")
_FIRST_STEP = -1


def configuration(**overrides: Any) -> fs.Experiment:
    """A run of about a second: many commits, some checkpoints."""
    base = {
        "network": {"width": 2000, "antisymmetric": True},
        "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
        "data": {"kind": "function", "function": "sin(3*x)", "low": -1, "high": 1, "n_samples": 12},
        "integrate": {"stop_loss": 0.0, "max_steps": 500, "threads": 1, "steady_slope": 0.0},
        "record": {
            "observables": {"schedule": "steps", "every": 1},
            "snapshots": {"schedule": "steps", "every": 20},
            "flush": {"seconds": 0.01, "rows": 50},
            "checkpoint": {"seconds": 0.08},
        },
    }
    return fs.load_experiment(base, overrides=overrides)


def same_run(one: Path, other: Path) -> list[str]:
    """Say in what two files differ, byte for byte; empty if in nothing that counts."""
    differences = []
    with RunFile(one) as a, RunFile(other) as b:
        for name in sorted({*a.attributes, *b.attributes} - NOT_COMPARED_ATTRIBUTES):
            if a.attributes.get(name) != b.attributes.get(name):
                differences.append(f"attribute {name}")
        for group in sorted({*a.groups, *b.groups}):
            first, second = a.group(group), b.group(group)
            for name in sorted({*first, *second} - NOT_COMPARED):
                if name not in first or name not in second:
                    differences.append(f"{group}/{name} is missing")
                elif not _same(first[name], second[name]):
                    differences.append(f"{group}/{name}")
    return differences


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    alike = one.shape == other.shape and one.dtype == other.dtype
    return alike and one.tobytes() == other.tobytes()


@dataclass
class Committed:
    """What a child has reported as committed, by group."""

    rows: dict[str, int] = field(default_factory=dict)
    stepped: bool = False


class Child:
    """A run in a process of its own, forked so that nothing has to be compiled again.

    Parameters
    ----------
    experiment : Experiment
    output : Path
    small_cache : bool
        Force HDF5 to write its metadata early, by a cache of a few kilobytes.
    file_size : int, optional
        Limit on the size of every file it writes.
    """

    def __init__(
        self,
        experiment: fs.Experiment,
        output: Path,
        small_cache: bool = False,
        file_size: int | None = None,
        **options: Any,
    ) -> None:
        self.committed = Committed()
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            os._exit(_live(experiment, output, writer, small_cache, file_size, options))
        os.close(writer)
        self.code: int | None = None

    def read(self, seconds: float) -> None:
        """Take in what the child reports, for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            ready, _, _ = select.select([self._reader], [], [], left)
            if not ready or not self._take():
                return

    def until_first_step(self) -> None:
        """Wait until the run has taken its first step, or has ended."""
        while not self.committed.stepped and self._take():
            pass

    def _take(self) -> bool:
        report = os.read(self._reader, _REPORT.size)
        if len(report) < _REPORT.size:
            return False
        series, rows = _REPORT.unpack(report)
        if series == _FIRST_STEP:
            self.committed.stepped = True
        else:
            self.committed.rows[_SERIES[series]] = rows
        return True

    def kill(self, number: int = signal.SIGKILL) -> float:
        """Send a signal, wait for the end, and return the seconds that took."""
        start = time.perf_counter()
        os.kill(self.pid, number)
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        while self._take():
            pass
        os.close(self._reader)
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        return self.code


def _live(
    experiment: fs.Experiment,
    output: Path,
    writer: int,
    small_cache: bool,
    file_size: int | None,
    options: dict[str, Any],
) -> int:
    """The life of a child: carry out the run, report commits, return the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    _report_commits(writer)
    _report_first_step(writer)
    if small_cache:
        _shrink_cache()
    try:
        run, _ = run_experiment(experiment, output, **options)
    except fs.FlowsimError as error:
        os.write(2, f"{error}\n".encode())
        return 74
    with run:
        if run.stop_reason.startswith("storage"):
            return 74
        return {"complete": 0, "failed": 1}.get(run.status, 75)


def _report_commits(writer: int) -> None:
    append = stream.RunStream.append

    def reporting(self: stream.RunStream, name: str, *arguments: Any) -> None:
        append(self, name, *arguments)
        os.write(writer, _REPORT.pack(_SERIES.index(name), self.rows[name]))

    stream.RunStream.append = reporting  # type: ignore[method-assign]


def _report_first_step(writer: int) -> None:
    from flowsim.recording.recorder import Recorder

    step = Recorder.step

    def reporting(self: Recorder, *arguments: Any) -> None:
        step(self, *arguments)
        os.write(writer, _REPORT.pack(_FIRST_STEP, 0))
        Recorder.step = step  # type: ignore[method-assign]

    Recorder.step = reporting  # type: ignore[method-assign]


def _shrink_cache() -> None:
    make = stream.RunStream.__init__

    def with_small_cache(self: stream.RunStream, path: Path, file: Any, series: Any) -> None:
        cache = file.id.get_mdc_config()
        cache.set_initial_size, cache.initial_size = True, 4096
        cache.min_size, cache.max_size = 1024, 4096
        file.id.set_mdc_config(cache)
        make(self, path, file, series)

    stream.RunStream.__init__ = with_small_cache  # type: ignore[method-assign]


def carry_out(experiment: fs.Experiment, output: Path, **options: Any) -> int:
    """A whole run in a child; the exit code."""
    return Child(experiment, output, **options).wait()


def check_left(output: Path, committed: Committed, whole: Path) -> list[str]:
    """Say what is wrong with what a killed run has left.

    Parameters
    ----------
    output : Path
        ``run.h5``.
    committed : Committed
        What it had reported.
    whole : Path
        The same run, undisturbed.
    """
    part = output.with_name(output.name + ".part")
    path = output if output.exists() else part
    if not path.exists():
        return [f"no file, but {committed.rows} were committed"] if committed.rows else []
    problems = []
    try:
        with RunFile(path) as left, RunFile(whole) as run:
            for group, rows in committed.rows.items():
                there = left.group(group)
                times = [name for name in there if name.startswith("time")]
                kept = len(there[times[0]])
                if kept < rows:
                    problems.append(f"{group}: {rows} rows committed, {kept} left")
                for name in set(there) - NOT_COMPARED:
                    whole_values = run.group(group)[name]
                    # The last row of a run is one that a longer one does not have.
                    if not _same(there[name], whole_values[:kept]):
                        problems.append(f"{group}/{name}: wrong values")
    except fs.FlowsimError as error:
        problems.append(f"not readable: {error}")
    return problems


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path | None]:
    """A disk of so many bytes, or None where this process may not mount one."""
    import subprocess

    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def vary(seed: int, low: float, high: float, n: int) -> list[float]:
    """Random moments."""
    return list(np.random.default_rng(seed).uniform(low, high, n))
