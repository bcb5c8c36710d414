"""What runs cost: seconds of one core, from sizes and method, corrected by what has been measured.

A run's work is passes times multiply-adds of a pass. How many passes a method takes to an end is a
rough guess (they differ by ten between the corners of a phase diagram); the seconds that finished
units have taken, ``times.csv`` in the sweep's folder, correct it method by method.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowsim.config.sections import DeepNetworkSection
from flowsim.kernels.activations import ACTIVATIONS

if TYPE_CHECKING:
    from flowsim.config import Experiment
    from flowsim.sweeps.grid import Member

PASSES = {
    "euler": 600.0,
    "heun": 1200.0,
    "implicit-euler": 300.0,
    "exponential": 600.0,
    "ros2": 3000.0,
    "ros34pw2": 3000.0,
}
"""Passes over the neurons until R has fallen to 1e-5 at rtol 1e-3, in the middle of the map."""

_OTHER_PASSES = 2000.0
_SECONDS_PER_WORK = 2.7e-10
"""A multiply-add of the compiled passes on one core of 2023."""

_SECONDS_PER_RUN = 2e-3
_COLUMNS = ("point", "method", "runs", "estimated", "seconds")
_LARGEST_FILE = 1 << 28


def seconds_of(experiment: Experiment, n_samples: int, n_inputs: int) -> float:
    """Estimate the seconds of one core that a run takes.

    Parameters
    ----------
    experiment : Experiment
    n_samples, n_inputs : int
        n and d.
    """
    section = experiment.integrate
    passes = PASSES.get(_method(experiment), _OTHER_PASSES)
    if section.method == "gradient-descent" and section.max_steps is not None:
        passes = 2.0 * section.max_steps
    work = passes * n_samples * _work_per_sample(experiment, n_inputs)
    return _SECONDS_PER_RUN + _SECONDS_PER_WORK * work


def _method(experiment: Experiment) -> str:
    method = experiment.integrate.method
    known = ACTIVATIONS.get(experiment.network.activation)
    return "heun" if method == "auto" and known is not None and known.kinked else method


def _work_per_sample(experiment: Experiment, n_inputs: int) -> float:
    """Multiply-adds of a pass, residual and gradient, a sample."""
    network = experiment.network
    copies = 2.0 if network.antisymmetric else 1.0
    if not isinstance(network, DeepNetworkSection):
        return copies * network.width * (2.0 * n_inputs + 4.0)
    relative = network.relative_widths or [1.0] * network.hidden_layers
    widths = [n_inputs, *(network.width * share for share in relative), 1]
    weights = sum(one * other for one, other in zip(widths[:-1], widths[1:], strict=True))
    return copies * 3.0 * weights


@dataclass
class CostModel:
    """Estimates, corrected by what finished units have taken.

    Parameters
    ----------
    path : Path or None
        ``times.csv``; None keeps nothing.

    Attributes
    ----------
    factors : dict of str to float
        Measured over estimated seconds, by method; 1 for what has not been measured.
    n_runs : int
        Runs that were measured.
    seconds : float
        That these took, of one core.
    """

    path: Path | None = None
    factors: dict[str, float] = field(default_factory=dict)
    n_runs: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        estimated: dict[str, float] = defaultdict(float)
        measured: dict[str, float] = defaultdict(float)
        for row in self._rows():
            # Cut off where a process was killed, or not ours: such a line counts for nothing.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                runs, before, after = (
                    int(row["runs"]),
                    float(row["estimated"]),
                    float(row["seconds"]),
                )
                if 0 < before < float("inf") and 0 <= after < float("inf"):
                    estimated[row["method"]] += before
                    measured[row["method"]] += after
                    self.n_runs += runs
                    self.seconds += after
        self.factors = {name: measured[name] / estimated[name] for name in estimated}

    def _rows(self) -> list[dict[str, str]]:
        try:
            if self.path is None or self.path.stat().st_size > _LARGEST_FILE:
                return []
            with open(self.path, newline="", encoding="utf-8", errors="replace") as file:
                return list(csv.DictReader(file, _COLUMNS))
        except (OSError, csv.Error):
            return []

    def seconds_for(self, members: Iterable[Member]) -> float:
        """Estimate the seconds of one core that runs take together."""
        general = self._general()
        return sum(m.cost * self.factors.get(_method(m.experiment), general) for m in members)

    def _general(self) -> float:
        """What is known of methods that have not been measured: what the others say."""
        return sum(self.factors.values()) / len(self.factors) if self.factors else 1.0

    def note(self, members: Iterable[Member], seconds: float) -> None:
        """Add what a unit has taken; where it cannot be written the estimate stays as it is."""
        some = list(members)
        if self.path is None or not some:
            return
        cost = sum(member.cost for member in some)
        row = (some[0].point, _method(some[0].experiment), len(some), f"{cost:.6g}")
        line = ",".join([*map(str, row), f"{seconds:.6g}"]) + "\n"
        # One write a line: lines of several processes do not mix.
        with contextlib.suppress(OSError):
            handle = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)


def show_seconds(seconds: float) -> str:
    """Write a time as people do: 40 s, 12 min, 3.5 h, 2.1 days."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
