"""How runs have ended, and what to make of the files that they have of their own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from flowsim.errors import FlowsimError, NewerFormatError
from flowsim.recording.lock import RunLock
from flowsim.recording.places import RunPlaces, set_aside
from flowsim.recording.reader import Ensemble, RunFile
from flowsim.sweeps.grid import Member

FINISHED = ("complete", "failed")
"""Statuses that the same run would end with again."""

NOTHING = ("", "", "")


def ends_of(runs: Ensemble[RunFile]) -> dict[int, tuple[str, str, str]]:
    """Status, reason and hash of runs by seed, without opening them one by one."""
    columns = (
        [str(x) for x in runs.table[name]] for name in ("status", "stop_reason", "config_hash")
    )
    return dict(zip(runs.seeds, zip(*columns, strict=True), strict=True))


def end_in(run: RunFile) -> tuple[str, str, str]:
    """Status, reason and hash of a run."""
    return run.status, run.stop_reason, str(run.attributes.get("config_hash"))


def end_of(file: Path) -> tuple[str, str, str]:
    """The same of a run that has a file of its own; nothing if that cannot be read."""
    try:
        with RunFile(file) as run:
            return end_in(run)
    except NewerFormatError:
        raise
    except FlowsimError:
        # Not by our doing; but nobody would be able to go on with it.
        if file.exists():
            set_aside(file)
        RunPlaces(file).clear(keep_target=False)
        return NOTHING


def free(file: Path) -> None:
    """Remove the lock that a killed process has left; nobody will take it again."""
    if RunPlaces(file).lock.exists():
        with suppress(FlowsimError), RunLock(file):
            pass


def is_finished_as(ending: tuple[str, str, str], member: Member) -> bool:
    """Whether this is the end of a run that is not to be carried out again."""
    return ending[0] in FINISHED and ending[2] == member.hash
