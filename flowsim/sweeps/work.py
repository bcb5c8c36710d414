"""What a worker does: the runs of one unit, one after the other."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowsim.config import Experiment
from flowsim.errors import DataWarning, FlowsimError, StorageError
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.recording.contents import RunContents
from flowsim.recording.hdf5 import file_image
from flowsim.recording.places import put
from flowsim.steppers.interruption import Interruption
from flowsim.sweeps.endings import FINISHED
from flowsim.sweeps.grid import Member, Unit
from flowsim.sweeps.processes import STOP_SIGNALS
from flowsim.sweeps.store import SAVE_SECONDS, Source, Stored, write_point


@dataclass(frozen=True)
class Outcome:
    """What a worker reports of one run.

    Attributes
    ----------
    id : str
        Identity of the run.
    status, reason : str
        Of the run; status ``"failed"`` also when there is no run at all.
    source : RunContents, Path, Stored or None
        Where the run is.
    """

    id: str
    status: str
    reason: str
    source: Source | None = None


@dataclass(frozen=True)
class Answer:
    """What a worker reports of a unit: the runs that came to their end before it was stopped.

    Attributes
    ----------
    outcomes : tuple of Outcome
    seconds : float
        That they took, times the threads.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float = 0.0


def run_unit(
    unit: Unit,
    runs: Path | None,
    options: dict[str, Any],
    threads: int | None,
    interruption: Interruption | None = None,
) -> Answer:
    """Carry out one unit of work; the function that worker processes call.

    Parameters
    ----------
    unit : Unit
    runs : Path or None
        Folder of the files; None keeps everything in memory.
    options : dict
        Further arguments of `flowsim.api.simulate_member`.
    threads : int or None
        Threads for each run, in place of the experiment's.
    interruption : Interruption, optional
        Who listens for signals; by default, in a worker process, this function.
    """
    outcomes: list[Outcome] = []
    began = saved = time.monotonic()
    with warnings.catch_warnings(), _listening(interruption) as heard:
        # The parent has made the same data, and has shown these.
        warnings.simplefilter("ignore", DataWarning)
        together = _run_together(unit, options, threads, heard)
        for member in unit.members:
            if heard.name and member.id not in together:
                break
            outcome = together.get(member.id) or _run_member(member, runs, options, threads, heard)
            if outcome is not None:
                outcomes.append(outcome)
            if runs is not None and time.monotonic() - saved >= SAVE_SECONDS:
                outcomes = [_save(runs, outcome) for outcome in outcomes]
                saved = time.monotonic()
        if runs is not None and unit.whole and len(outcomes) == len(unit.members):
            outcomes = _save_whole(runs, unit, outcomes)
    used = threads or unit.members[0].experiment.integrate.threads or usable_cores()
    return Answer(tuple(outcomes), used * (time.monotonic() - began))


@contextmanager
def _listening(interruption: Interruption | None) -> Iterator[Interruption]:
    """Listen to signals that worker processes ignore while they have no work."""
    if interruption is not None:
        yield interruption
        return
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption  # a worker of Dask's, which is stopped by other means
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
    try:
        with interruption.listening():
            yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_together(
    unit: Unit, options: dict[str, Any], threads: int | None, interruption: Interruption
) -> dict[str, Outcome]:
    """Carry out what can be done in compiled code; outcomes by the members' identities.

    What goes wrong here is left to the ordinary way, which says so of each run.
    """
    from flowsim.many import run_together

    if options.get("observables"):
        return {}
    outcomes = {}
    experiments = [_with_threads(member.experiment, threads) for member in unit.members]
    with contextlib.suppress(FlowsimError):
        found = run_together(
            experiments, options.get("dataset"), options.get("activation"), interruption
        )
        for member, place in zip(unit.members, found, strict=True):
            if place is not None:
                contents = place[0].contents(place[1])
                about = contents.attributes
                outcomes[member.id] = Outcome(
                    member.id, about["status"], about["stop_reason"], contents
                )
    return outcomes


def _with_threads(experiment: Experiment, threads: int | None) -> Experiment:
    if threads is None:
        return experiment
    return experiment.with_overrides({"integrate.threads": threads})


def _run_member(
    member: Member,
    runs: Path | None,
    options: dict[str, Any],
    threads: int | None,
    interruption: Interruption,
) -> Outcome | None:
    """Carry out one run; None if a signal stopped it. What goes wrong goes into the outcome."""
    from flowsim.api import simulate_member

    path = None if runs is None else runs / f"{member.id}.h5"
    try:
        experiment = _with_threads(member.experiment, threads)
        run, stopped = simulate_member(experiment, path, interruption=interruption, **options)
        with run:
            if stopped and run.status not in FINISHED:
                return None
            in_memory = path is None or not path.exists()
            source = run.contents() if in_memory else path
            return Outcome(member.id, run.status, run.stop_reason, source)
    except Exception as error:
        # Whatever it is: one run must not take the others down, and its reason is reported.
        return Outcome(member.id, "failed", f"{type(error).__name__}: {error}")


def _save(runs: Path, outcome: Outcome) -> Outcome:
    """Give a run that is only in memory a file of its own."""
    if not isinstance(outcome.source, RunContents):
        return outcome
    path = runs / f"{outcome.id}.h5"
    try:
        put(path, file_image(outcome.source))
    except StorageError:
        return outcome  # the parent will meet this too, and knows whom to tell
    return replace(outcome, source=path)


def _save_whole(runs: Path, unit: Unit, outcomes: list[Outcome]) -> list[Outcome]:
    """Write the file of a point, all of whose runs are in this unit."""
    finished: dict[int, RunContents | Path] = {}
    for member, outcome in zip(unit.members, outcomes, strict=True):
        source = outcome.source
        if outcome.status in FINISHED and isinstance(source, RunContents | Path):
            finished[member.seed] = source
    first = unit.members[0]
    path = runs / f"{first.point}.h5"
    try:
        damaged = write_point(path, finished, first.experiment.record.compression)
    except StorageError:
        return outcomes
    return [
        replace(outcome, source=Stored(path, member.seed))
        if member.seed in finished and member.seed not in damaged
        else outcome
        for member, outcome in zip(unit.members, outcomes, strict=True)
    ]
