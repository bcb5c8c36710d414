"""The loop around every method, its events and its endings.

In words::

    point = initial state
    until some rule ends the run:
        attempt = stepper.attempt(point)          # rejected: try again, or begin anew
        if R fell below stop_loss: find where     # on the step's own interpolant
        observer.step(point, attempt, end)        # rows due within the step, by its interpolant
        point = end
        observer.keep(continuation)               # all that the rest of the run depends on

A signal ends the run where it is, even in the middle of an attempt. Nothing here depends on the
method, the network or the file. Every ending is an `Outcome` with a status and a reason, never an
exception that loses the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from flowsim.errors import StorageError
from flowsim.kernels.cpu import samples
from flowsim.steppers.base import Attempt, Flow, Point, Stepper
from flowsim.steppers.events import (
    COMPLETE,
    ENDINGS,
    PREEMPTED,
    Counters,
    StopRules,
    Watch,
    explain,
    hopeless,
    key_of,
)
from flowsim.steppers.first_step import AfterFirstStep
from flowsim.steppers.interruption import Interrupted, Interruption


@dataclass(frozen=True)
class Continuation:
    """Everything that the rest of a run depends on, between two steps.

    Attributes
    ----------
    point : Point
        Its arrays are valid until the attempt that follows the next accepted step.
    counters : dict
        `Counters`, and the flow's ``n_rhs`` and ``n_passes``.
    stepper, watch, observer : dict
        What each of these remembers: numbers, text, arrays that are not written to.
    cut : bool
        A step was cut short by t_max on the way here and the run did not end with it: this is on
        the path of a run to the same t_max only.
    """

    point: Point
    counters: Mapping[str, int]
    stepper: Mapping[str, Any]
    watch: Mapping[str, float]
    observer: Mapping[str, Any] = field(default_factory=dict)
    cut: bool = False


class Observer(Protocol):
    """What looks on, such as a recorder."""

    def start(self, point: Point) -> None:
        """At t = 0; again after a restart, when all that was seen before is void."""
        return None

    def resume(self, point: Point, memory: Mapping[str, Any]) -> None:
        """In the place of `start`, where a run continues at ``point``."""
        return None

    def step(self, before: Point, attempt: Attempt, after: Point, counters: Counters) -> None:
        """After an accepted step; ``after`` lies within it if the run ends there.

        Then its state is the interpolant's at ``attempt.end``, valid until that is asked for
        another.
        """
        return None

    def memory(self) -> dict[str, Any]:
        """What an observer that continues in the place of this one must know."""
        return {}

    def keep(self, continuation: Continuation) -> None:
        """Called where the run could be continued from; the observer may save that."""
        return None


class NoObserver(Observer):
    """Looks away."""


@dataclass
class Outcome:
    """How a run ended.

    Attributes
    ----------
    status : str
        ``complete``, ``failed`` or ``preempted``.
    stop_reason : str
        A key of `flowsim.steppers.events.ENDINGS`, a colon and an explanation.
    point : Point
    counters : Counters
    last_step : float
        Size of the last attempted step.
    continuation : Continuation or None
        Where the run goes on: where it is if it was preempted; if it has come to its own end and
        is asked for more, before the last steps, which may have been cut short. None if there is
        no such place: it did not get as far as its first step, or began anew after a cut one.
    """

    status: str
    stop_reason: str
    point: Point
    counters: Counters
    last_step: float
    continuation: Continuation | None = None


def integrate(
    flow: Flow,
    stepper: Stepper,
    rules: StopRules,
    observer: Observer,
    continuation: Continuation | None = None,
    interruption: Interruption | None = None,
) -> Outcome:
    """Integrate a flow until a rule ends it.

    Parameters
    ----------
    flow : Flow
    stepper : Stepper
    rules : StopRules
    observer : Observer
    continuation : Continuation, optional
        Where to go on; by default the run begins at t = 0. It goes on to the same bits as if it
        had never been stopped.
    interruption : Interruption, optional
        Listens for signals; by default while this function runs.

    Returns
    -------
    Outcome
    """
    interruption = interruption or Interruption()
    if flow.first_step is not None:
        stepper = AfterFirstStep(stepper, flow.first_step)
    # A step that is far too long overflows; it is rejected as such, and no news to the user.
    with interruption.listening(), np.errstate(over="ignore", invalid="ignore"):
        return _Loop(flow, stepper, rules, observer, interruption).run(continuation)


class _Loop:
    """The loop and its present state."""

    def __init__(
        self,
        flow: Flow,
        stepper: Stepper,
        rules: StopRules,
        observer: Observer,
        interruption: Interruption,
    ) -> None:
        self.flow, self.stepper, self.rules = flow, stepper, rules
        self.observer, self.interruption = observer, interruption
        self.counters = Counters()
        self.watch = Watch(rules)
        self.step = math.nan
        # Where the run is, and the last place before any step was cut short by t_max.
        self.here: Continuation | None = None
        self.kept: Continuation | None = None
        self.cut = False
        self.rejected_in_a_row = 0

    def run(self, continuation: Continuation | None) -> Outcome:
        """Begin or continue, and go on to the end."""
        try:
            reason = ""
            if continuation is None:
                reason = self._begin()
            else:
                self._continue(continuation)
            while not reason:
                reason = self._advance()
        except Interrupted:
            reason = "interrupted"
        except StorageError as error:
            reason = f"storage: {error}"
        return self._outcome(reason)

    def _begin(self) -> str:
        self.point = _initial_point(self.flow)
        self.observer.start(self.point)
        if not (self.point.finite and math.isfinite(self.point.loss)):
            return "non_finite: the residual at t = 0 is not finite; check data and weights"
        reason = self.watch.ending(self.point.time, self.point.loss, 0)
        if not reason:
            self.stepper.start(self.flow, self.point)
            self._arrive()
        return reason

    def _continue(self, kept: Continuation) -> None:
        self.point, self.here, self.cut = kept.point, kept, kept.cut
        self.kept = None if kept.cut else kept
        self.watch = Watch(self.rules, started=self.watch.started, **kept.watch)
        self.stepper.resume(self.flow, self.point, kept.stepper)
        self.observer.resume(self.point, kept.observer)
        self._set_counters(kept)  # last: what it took to get ready has been counted before

    def _set_counters(self, kept: Continuation) -> None:
        count = dict(kept.counters)
        self.flow.n_rhs, self.flow.n_passes = count.pop("n_rhs"), count.pop("n_passes")
        self.counters = Counters(**count)

    def _continuation(self) -> Continuation:
        passes = {"n_rhs": self.flow.n_rhs, "n_passes": self.flow.n_passes}
        return Continuation(
            point=self.point,
            counters={**vars(self.counters), **passes},
            stepper=self.stepper.memory(),
            watch=self.watch.memory(),
            observer=self.observer.memory(),
            cut=self.cut,
        )

    def _arrive(self) -> Continuation:
        """Note that the run could be continued from here."""
        self.here = self._continuation()
        if not self.cut:
            self.kept = self.here
        return self.here

    def _leave_path(self) -> None:
        """From here on the steps are those of a run to this t_max, and of no longer one."""
        if not self.cut and self.kept is not None:
            # A copy: the stepper is going to write to the state it has left behind.
            point = self.kept.point
            copies = point.theta.copy(), point.residual.copy()
            self.kept = replace(self.kept, point=Point.of(self.flow, point.time, *copies))
        self.cut = True

    def _advance(self) -> str:
        """Try one step; return the reason to end, or nothing."""
        limit = self.rules.t_max - self.point.time
        attempt = self._attempt(limit)
        self.step = attempt.step
        cut = attempt.step == limit
        if attempt.point is not None:
            return self._accept(attempt, cut)
        if cut:
            self._leave_path()
        self.rejected_in_a_row += 1
        self.counters.n_rejected += 1
        reason = hopeless(attempt, self.point, self.rejected_in_a_row)
        if attempt.rejection == "restart" and not reason:
            self._restart()
        return reason

    def _attempt(self, limit: float) -> Attempt:
        try:
            self.interruption.begin()
            self.flow.settle(self.point.theta)
            return self.stepper.attempt(self.flow, self.point, limit)
        finally:
            self.interruption.end()

    def _accept(self, attempt: Attempt, cut: bool) -> str:
        before = self.point
        after = _end_of(self.flow, attempt, before, self.rules.stop_loss)
        self.rejected_in_a_row = 0
        self.counters.n_steps += 1
        self.observer.step(before, attempt, after, self.counters)
        if after is not attempt.point:
            self._find_again(attempt, after)
        self.point = after
        reason = self.watch.ending(after.time, self._watched_loss(after), self.counters.n_steps)
        if ENDINGS.get(key_of(reason)) != COMPLETE:
            if cut:  # and yet not there, by a rounding
                self._leave_path()
            self.observer.keep(self._arrive())
        return reason

    def _watched_loss(self, point: Point) -> float:
        """R where the rules look at it, and at the end of the run; else NaN."""
        last = self.counters.n_steps == self.rules.max_steps or point.time >= self.rules.t_max
        return point.loss if point.watched or last else math.nan

    def _find_again(self, attempt: Attempt, end: Point) -> None:
        """Bring the end back to the interpolant's state, where the observer's rows have been."""
        assert attempt.interpolate is not None
        counts = self.flow.n_rhs, self.flow.n_passes
        end.theta, _ = attempt.interpolate(attempt.end)
        # Not what the method costs: without an observer it had been there already.
        self.flow.n_rhs, self.flow.n_passes = counts

    def _restart(self) -> None:
        self.counters.n_restarts += 1
        self.point = _initial_point(self.flow)
        self.watch = Watch(self.rules, started=self.watch.started)
        self.stepper.start(self.flow, self.point)
        self.observer.start(self.point)
        self.kept = None  # the rows up to there are gone
        self._arrive()

    def _outcome(self, reason: str) -> Outcome:
        if reason == "interrupted":
            if self.here is not None:
                self._set_counters(self.here)  # without those of the attempt that was given up
            where = f"at tau = {self.point.time:g}, R = {self.point.loss:.4g}"
            reason = f"interrupted: {self.interruption.name} {where}"
        reason = explain(reason, self.flow, self.point, self.step, self.counters)
        status = ENDINGS[key_of(reason)]
        where_on = self.here if status == PREEMPTED else self.kept
        return Outcome(status, reason, self.point, self.counters, self.step, where_on)


def _initial_point(flow: Flow) -> Point:
    theta = flow.initial.copy()
    return Point.of(flow, 0.0, theta, flow.residual(theta))


def _end_of(flow: Flow, attempt: Attempt, before: Point, stop_loss: float) -> Point:
    """The point where an accepted step ends: at its end, or where R falls below stop_loss.

    The crossing is found to a relative 1e-6 in R on the method's own interpolant, and noted as
    the attempt's ``end``. Its state is the interpolant's.
    """
    after = attempt.point
    assert after is not None and attempt.interpolate is not None
    if not (after.watched and 0.0 < after.loss < stop_loss <= before.loss):
        return after
    target = math.log(stop_loss) - 1e-6
    if math.log(after.loss) >= target:
        return after
    bracket = samples.start_bracket(math.log(before.loss) - target, math.log(after.loss) - target)
    found = False
    while not found:
        fraction = samples.guess(bracket)
        theta, residual = attempt.interpolate(fraction)
        time = before.time + fraction * attempt.step
        crossing = Point.of(flow, time, theta, residual)
        height = math.log(crossing.loss) if crossing.loss > 0.0 else -math.inf
        found = samples.narrow(bracket, fraction, height - target)
    if crossing.loss >= stop_loss:
        return after
    attempt.end = fraction
    return crossing
