"""From the ``[record]`` section to the series of a run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flowsim.errors import ConfigError
from flowsim.recording.observables import OBSERVABLES, Frame, Observable, possible_names
from flowsim.recording.recorder import SeriesPlan, kernel_observables, parameter_observables
from flowsim.recording.schedules import EverySteps, Linear, Logarithmic, Never, Schedule


def make_schedule(section: Any) -> Schedule | None:
    """Build the schedule that a section describes; None for ``none``.

    Parameters
    ----------
    section : object
        With ``schedule`` (``log``, ``linear``, ``steps``, ``none``) and its numbers.
    """
    match section.schedule:
        case "log":
            return Logarithmic(section.per_decade, section.start)
        case "linear":
            return Linear(section.every)
        case "steps":
            return EverySteps(int(section.every))
    return None


def plan_series(
    record: Any,
    flow: Any,
    own: Mapping[str, Callable[[Frame], Any]],
    test_set: bool,
    parts: bool = False,
    tally: Sequence[str] = (),
) -> list[SeriesPlan]:
    """Decide which series a run has.

    Parameters
    ----------
    record : object
        The ``[record]`` section.
    flow : object
        Asked for what it can supply.
    own : mapping
        A script's own observables by name.
    test_set : bool
        Whether there is one.
    parts : bool
        Whether the run's method is made of several.
    tally : sequence of str
        What the method counts of itself.

    Raises
    ------
    ConfigError
        With every observable that does not exist or that this run cannot supply.
    """
    possible = possible_names(flow, test_set, parts, tally)
    standard = [name for name in possible if not OBSERVABLES[name].asked_for]
    wanted = list(record.observables.names or standard)
    problems = []
    for key, names in (("observables.names", wanted), ("separate", record.separate)):
        problems += [_unknown(key, name, possible) for name in names if name not in possible]
    problems += [
        f"observables.{name}: the name of one of flowsim's own; choose another"
        for name in own
        if name in OBSERVABLES or name == "time"
    ]
    if problems:
        raise ConfigError(problems)
    entries = [OBSERVABLES[name].of(flow) for name in wanted if name not in record.separate]
    entries += [Observable(name, partial(_call, own[name]), name) for name in own]
    plans = [
        _plan("observables", "time", record.observables, entries),
        _plan(
            "snapshots",
            "time_snapshot",
            record.snapshots,
            parameter_observables(flow.parameter_dims, record.snapshots.dtype),
        ),
        _plan("kernel", "time_kernel", record.kernel, kernel_observables()),
    ]
    plans += [
        _plan(f"series_{name}", "time", schedule, [OBSERVABLES[name].of(flow)])
        for name, schedule in record.separate.items()
    ]
    return [plan for plan in plans if plan is not None]


def _plan(group: str, time_name: str, section: Any, observables: Any) -> SeriesPlan | None:
    schedule = make_schedule(section)
    if schedule is None and group == "observables":
        # The first and the last row are always there: readers count on the group.
        schedule = Never()
    return None if schedule is None else SeriesPlan(group, time_name, schedule, observables)


def _call(function: Callable[[Frame], Any], frame: Frame) -> Any:
    return function(frame)


def _unknown(key: str, name: str, possible: list[str]) -> str:
    close = difflib.get_close_matches(name, possible, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(possible)}"
    return f"record.{key} = {name!r}: this run has no such observable; {hint}"
