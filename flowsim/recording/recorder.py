"""The recorder: watches a run and hands the rows that are due to the writer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowsim.recording.checkpoint import Checkpoint, save_checkpoint
from flowsim.recording.observables import Frame, Observable
from flowsim.recording.places import RunPlaces
from flowsim.recording.schedules import Schedule
from flowsim.recording.writer import RunWriter


@dataclass(frozen=True)
class SeriesPlan:
    """A group of the file that grows: its name, time axis, schedule and observables."""

    group: str
    time_name: str
    schedule: Schedule
    observables: Sequence[Observable]


def kernel_observables() -> tuple[Observable, ...]:
    """Spectrum of K and its distance from the one at t = 0: the group ``/kernel``."""
    return (
        Observable(
            "eigenvalues",
            lambda frame: frame.tangent_kernel.eigenvalues,
            "eigenvalues of K, ascending",
            "1/tau",
            ("mode",),
        ),
        Observable(
            "distance",
            lambda frame: frame.tangent_kernel.distances(frame.flow.initial_kernel)[-1],
            "|K - K(0)| / |K(0)|, Frobenius norm",
        ),
    )


def parameter_observables(
    dims: Mapping[str, tuple[str, ...]], dtype: str
) -> tuple[Observable, ...]:
    """Observables that save the parameter arrays themselves."""

    def reader(name: str) -> Callable[[Frame], np.ndarray]:
        return lambda frame: frame.parameters[name]

    return tuple(
        Observable(name, reader(name), name.replace("_", " ") + ", normalised", "1", axes, dtype)
        for name, axes in dims.items()
    )


class Recorder:
    """Watches a run (`flowsim.steppers.driver.Observer`) and writes the rows that are due.

    Every now and then it saves where the run can be continued from.
    Rows between two steps are read off the step's own interpolant: no schedule changes a step.

    Parameters
    ----------
    flow : object
    writer : RunWriter
    plans : sequence of SeriesPlan
    fingerprint : str
        Of the run, for its checkpoints.
    test_flow : object, optional
        See `Frame`.
    progress : callable, optional
        ``progress(point, counters, attempt)`` after every accepted step.
    methods : sequence of str
        Those that the run's is made of; none if it is one by itself.
    """

    def __init__(
        self,
        flow: Any,
        writer: RunWriter,
        plans: Sequence[SeriesPlan],
        fingerprint: str = "",
        test_flow: Any = None,
        progress: Callable[..., None] | None = None,
        methods: Sequence[str] = (),
    ) -> None:
        self._flow = flow
        self._writer = writer
        self._plans = plans
        self._test_flow = test_flow
        self._progress = progress
        self._fingerprint = fingerprint
        self._started = self._first_moment = self._last_checkpoint = time.monotonic()
        self._begun = False
        self._last: dict[str, float] = {}
        self._steps_of, self._method, self._stiffness = dict.fromkeys(methods, 0), "", math.nan
        self._tally: Mapping[str, int] = {}
        self.sup_relative_change = np.zeros(0)

    def _frame(
        self, moment: float, theta: Any, residual: np.ndarray, dt: float, step: int, rejected: int
    ) -> Frame:
        seconds = time.monotonic() - self._started
        return Frame(
            moment, step, rejected, dt, residual, theta, self._flow, seconds, self._test_flow,
            self._steps_of, self._method, self._stiffness, self._tally,
        )  # fmt: skip

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        """Leave the flow's counters alone: they count what the method costs, not the looking."""
        counts = self._flow.n_rhs, self._flow.n_passes
        yield
        self._flow.n_rhs, self._flow.n_passes = counts

    def _record(self, frame: Frame, plans: Sequence[SeriesPlan]) -> None:
        for plan in plans:
            values = [observable.compute(frame) for observable in plan.observables]
            self._writer.append(plan.group, frame.time, values)
            self._last[plan.group] = frame.time
        change = self._flow.relative_change(frame.theta)
        self.sup_relative_change = np.fmax(self.sup_relative_change, change)

    def start(self, point: Any) -> None:
        """First rows; after a restart all earlier ones are forgotten."""
        with self._uncounted():
            self._begin(point)

    def _begin(self, point: Any) -> None:
        self._steps_of, self._method = dict.fromkeys(self._steps_of, 0), ""
        self._stiffness, self._tally = math.nan, {}
        frame = self._frame(0.0, point.theta, point.residual, 0.0, 0, 0)
        self.sup_relative_change = self._flow.relative_change(point.theta)
        if not self._begun:
            self._add_series(frame)
            if self._writer.growing:
                # A file without a checkpoint: the run begins anew, and comes to the same rows.
                self._writer.resume({plan.group: 0 for plan in self._plans})
        else:
            self._writer.clear_series()
        self._record(frame, self._plans)

    def _add_series(self, frame: Frame) -> None:
        self._begun = True
        for plan in self._plans:
            samples = [observable.sample(frame) for observable in plan.observables]
            self._writer.add_series(
                plan.group, plan.time_name, plan.observables, [np.shape(s) for s in samples]
            )

    def resume(self, point: Any, memory: Mapping[str, Any]) -> None:
        """Go on with the rows where they were at ``point``."""
        with self._uncounted():
            self._add_series(self._frame(point.time, point.theta, point.residual, 0.0, 0, 0))
        self._writer.resume(memory["rows"])
        self._last = dict(memory["last"])
        self.sup_relative_change = np.asarray(memory["sup_relative_change"])
        self._steps_of, self._method = dict(memory["steps_of"]), memory["method"]
        self._stiffness, self._tally = memory["stiffness"], memory["tally"]
        self._started -= memory["seconds"]

    def memory(self) -> dict[str, Any]:
        """What the rows to come depend on."""
        return {
            "rows": self._writer.rows,
            "last": dict(self._last),
            "sup_relative_change": self.sup_relative_change,
            "steps_of": dict(self._steps_of),
            "method": self._method,
            "stiffness": self._stiffness,
            "tally": dict(self._tally),
            "seconds": time.monotonic() - self._started,
        }

    def keep(self, continuation: Any) -> None:
        """Save rows, and where the run can be continued from, if it is time for that."""
        self._writer.commit_if_due()
        since = time.monotonic() - self._last_checkpoint
        if since >= self._writer.cadence.checkpoint_seconds:
            self.save_checkpoint(continuation)

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run has lasted long enough to have been saved."""
        return self._last_checkpoint > self._first_moment

    def save_checkpoint(self, continuation: Any) -> None:
        """Save all rows so far and where the run can be continued from."""
        places = self._writer.places
        if places is None:
            return
        self._writer.commit()
        self._writer.publish()
        self.write_checkpoint(places, continuation)

    def write_checkpoint(self, places: RunPlaces, continuation: Any) -> None:
        """Save where the run can be continued from, its rows being safe already."""
        point = continuation.point
        contents = {
            "time": point.time,
            "theta": self._flow.host(point.theta),
            "residual": point.residual,
            "counters": continuation.counters,
            "stepper": self._on_host(continuation.stepper),
            "watch": continuation.watch,
            "observer": continuation.observer,
            "cut": continuation.cut,
        }
        rows = continuation.observer["rows"]
        save_checkpoint(places, Checkpoint(self._fingerprint, rows, contents))
        self._last_checkpoint = time.monotonic()

    def _on_host(self, memory: Mapping[str, Any]) -> dict[str, Any]:
        """What a method remembers, with states as arrays of NumPy."""
        kept = dict(memory)
        for name, value in memory.items():
            if isinstance(value, Mapping):
                kept[name] = self._on_host(value)
            elif isinstance(value, type(self._flow.initial)):
                kept[name] = self._flow.host(value)
        return kept

    def step(self, before: Any, attempt: Any, after: Any, counters: Any) -> None:
        """Record what is due in (before, after]."""
        self._tally = attempt.tally
        if attempt.method:
            self._method, self._stiffness = attempt.method, attempt.stiffness
            self._steps_of[attempt.method] += 1
        due: dict[float, list[SeriesPlan]] = {}
        for plan in self._plans:
            for moment in plan.schedule.due(before.time, after.time, counters.n_steps):
                due.setdefault(moment, []).append(plan)
        for moment in sorted(due):
            with self._uncounted():
                theta, residual = _state_at(moment, before, attempt, after)
            frame = self._frame(
                moment, theta, residual, attempt.step, counters.n_steps, counters.n_rejected
            )
            with self._uncounted():
                self._record(frame, due[moment])
        if self._progress is not None:
            self._progress(after, counters, attempt)

    def finish(self, outcome: Any) -> None:
        """Last rows of the series that do not end with the run already."""
        point = outcome.point
        frame = self._frame(
            point.time,
            point.theta,
            point.residual,
            outcome.last_step,
            outcome.counters.n_steps,
            outcome.counters.n_rejected,
        )
        late = [plan for plan in self._plans if self._last[plan.group] < point.time]
        with self._uncounted():
            self._record(frame, late)


def _state_at(moment: float, before: Any, attempt: Any, after: Any) -> tuple[Any, np.ndarray]:
    """State and residual at a time within a step."""
    if moment != after.time:
        return attempt.interpolate((moment - before.time) / attempt.step)
    if after is attempt.point:
        return after.theta, after.residual
    # The rows before this one were read into the state where the run ends.
    return attempt.interpolate(attempt.end)
