"""How far a sweep is: read off its files, whoever is at work there."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsim.errors import ConfigError, FileFormatError, FlowsimError
from flowsim.recording.reader import Ensemble, RunFile
from flowsim.sweeps.claims import Claimant, living_claims
from flowsim.sweeps.costs import CostModel, show_seconds
from flowsim.sweeps.endings import NOTHING, end_in, ends_of, is_finished_as
from flowsim.sweeps.failures import read_failures
from flowsim.sweeps.folder import SweepFolder
from flowsim.sweeps.grid import Member, expand

STATES = ("done", "failed", "running", "open")
_FAILURES_SHOWN = 10


@dataclass(frozen=True)
class SweepStatus:
    """The states of all runs of a sweep.

    Attributes
    ----------
    folder : Path
    runs : list of (Member, str, str)
        Run, state and, of one that failed, the reason, in the order of the grid.
    at_work : dict of str to Claimant
        Who is at which point.
    costs : CostModel
        What finished units have taken.
    """

    folder: Path
    runs: list[tuple[Member, str, str]]
    at_work: dict[str, Claimant]
    costs: CostModel

    @property
    def counts(self) -> dict[str, int]:
        """Runs by state."""
        found = [state for _, state, _ in self.runs]
        return {state: found.count(state) for state in STATES}

    @property
    def seconds_left(self) -> float:
        """Estimate of what is open or running, in seconds of one core."""
        left = [member for member, state, _ in self.runs if state in ("running", "open")]
        return self.costs.seconds_for(left)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "folder": str(self.folder),
            "counts": self.counts,
            "core_seconds_spent": self.costs.seconds,
            "core_seconds_left": self.seconds_left,
            "at_work": {point: str(claimant) for point, claimant in self.at_work.items()},
            "runs": [
                {"id": m.id, "state": state, "values": m.values, "hash": m.hash}
                | ({"reason": reason} if reason else {})
                for m, state, reason in self.runs
            ],
        }

    def text(self) -> str:
        """Return a few lines for people."""
        counts = ", ".join(f"{number} {state}" for state, number in self.counts.items())
        lines = [f"{self.folder}: {len(self.runs)} runs: {counts}"]
        lines.append(
            f"{show_seconds(self.costs.seconds)} of one core spent on {self.costs.n_runs} runs, "
            f"about {show_seconds(self.seconds_left)} left"
        )
        people: dict[str, int] = {}
        for claimant in self.at_work.values():
            people[str(claimant)] = people.get(str(claimant), 0) + 1
        lines += [f"{name} is at {number} points" for name, number in people.items()]
        failed = [(m, reason) for m, state, reason in self.runs if state == "failed"]
        lines += [f"failed: {m.id} ({reason})" for m, reason in failed[:_FAILURES_SHOWN]]
        if len(failed) > _FAILURES_SHOWN:
            lines.append(f"and {len(failed) - _FAILURES_SHOWN} more (--json lists them)")
        return "\n".join(lines)


def sweep_status(path: str | os.PathLike[str]) -> SweepStatus:
    """Look at the folder of a sweep; nothing there is changed.

    Raises
    ------
    ConfigError
        If it is none.
    """
    folder = SweepFolder(path)
    members = members_of(folder)
    failures = read_failures(folder.runs)
    at_work = living_claims(folder.runs)
    ends: dict[str, dict[int, tuple[str, str, str]]] = {}
    runs = []
    for member in members:
        if member.point not in ends:
            ends[member.point] = _ends_at(folder.point_file(member.point))
        end = ends[member.point].get(member.seed, NOTHING)
        if not is_finished_as(end, member):
            end = _own_end(folder.member_file(member))
        runs.append((member, *_state(member, end, failures, at_work)))
    return SweepStatus(folder.path, runs, at_work, CostModel(folder.times_file))


def members_of(folder: SweepFolder) -> list[Member]:
    """Return the runs of a sweep, from its folder.

    Raises
    ------
    ConfigError
        If it holds no grid that can be read.
    """
    try:
        stored = tomllib.loads(folder.grid_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{folder.path}: holds no sweep (no grid.toml); name the folder of `flowsim sweep -o`"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder.grid_file}: cannot be read ({error})") from error
    return expand(stored, stored.pop("grid", {}))


def _ends_at(file: Path) -> dict[int, tuple[str, str, str]]:
    if not file.exists():
        return {}
    try:
        with Ensemble(file, RunFile) as runs:
            return ends_of(runs)
    except (FileFormatError, KeyError):
        return {}


def _own_end(file: Path) -> tuple[str, str, str]:
    """How a run has ended that waits in a file of its own."""
    if not file.exists():
        return NOTHING
    try:
        with RunFile(file) as run:
            return end_in(run)
    except FlowsimError:
        return NOTHING


def _state(
    member: Member,
    end: tuple[str, str, str],
    failures: dict[str, str],
    at_work: dict[str, Claimant],
) -> tuple[str, str]:
    if is_finished_as(end, member):
        return ("failed", end[1]) if end[0] == "failed" else ("done", "")
    if member.id in failures:
        return "failed", failures[member.id]
    return ("running" if member.point in at_work else "open"), ""
