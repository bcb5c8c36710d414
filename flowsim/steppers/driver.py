"""The loop around every method, its events and its endings.

In words::

    point = initial state
    until some rule ends the run:
        attempt = stepper.attempt(point)          # rejected: try again, or begin anew
        if R fell below stop_loss: find where     # on the step's own interpolant
        observer.step(point, attempt, end)        # rows due within the step
        point = end

Nothing here depends on the method, the network or the file. Every ending is an `Outcome` with a
status and a reason, never an exception that loses the run.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import numpy as np
from scipy.optimize import brentq

from flowsim.steppers.base import Attempt, Flow, Point, State, Stepper
from flowsim.steppers.events import ENDINGS, StopRules, Watch

_MAX_REJECTIONS = 80
"""In a row. Halving that often leaves a step that no longer moves the time."""


@dataclass
class Counters:
    """Of one run: accepted steps, rejected attempts, restarts."""

    n_steps: int = 0
    n_rejected: int = 0
    n_restarts: int = 0


class Observer(Protocol):
    """What looks on: a recorder, a progress bar."""

    def start(self, point: Point) -> None:
        """At t = 0; again after a restart, when all that was seen before is void."""

    def step(self, before: Point, attempt: Attempt, after: Point, counters: Counters) -> None:
        """After an accepted step; ``after`` may lie within it if the run ends there."""


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
    """

    status: str
    stop_reason: str
    point: Point
    counters: Counters
    last_step: float


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """Turn the first Ctrl-C into a note, so that a step and a row are never cut in half.

    A second one raises KeyboardInterrupt as usual. In threads other than the main one, where
    Python delivers no signals, nothing is changed.
    """
    asked = [False]
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:  # somebody else's wish, e.g. a worker's
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        asked[0] = True
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, previous)


def integrate(flow: Flow, stepper: Stepper, rules: StopRules, observer: Observer) -> Outcome:
    """Integrate a flow from t = 0 until a rule ends it.

    Parameters
    ----------
    flow : Flow
    stepper : Stepper
    rules : StopRules
    observer : Observer

    Returns
    -------
    Outcome
    """
    counters = Counters()
    watch = Watch(rules)
    point = _initial_point(flow)
    scratch = flow.empty()
    observer.start(point)
    step = math.nan

    def outcome(reason: str) -> Outcome:
        if counters.n_steps and reason.startswith(("max_steps", "max_seconds", "step_too_small")):
            reason += "; " + _why_small(flow, point, step, counters)
        status = ENDINGS[reason.partition(":")[0]]
        return Outcome(status, reason, point, counters, step)

    if not (point.finite and math.isfinite(point.loss)):
        return outcome("non_finite: the residual at t = 0 is not finite; check data and weights")
    reason = watch.ending(point.time, point.loss, 0)
    if reason:
        return outcome(reason)
    stepper.start(flow, point)
    rejected_in_a_row = 0
    # A step that is far too long overflows; it is rejected as such, and no news to the user.
    with _interruptible() as asked, np.errstate(over="ignore", invalid="ignore"):
        while True:
            attempt = stepper.attempt(flow, point, rules.t_max - point.time)
            step = attempt.step
            if attempt.point is not None:
                before, point = point, _end_of(attempt, point, rules.stop_loss, scratch)
                rejected_in_a_row = 0
                counters.n_steps += 1
                observer.step(before, attempt, point, counters)
                reason = watch.ending(point.time, point.loss, counters.n_steps)
            else:
                rejected_in_a_row += 1
                counters.n_rejected += 1
                reason = _hopeless(attempt, point, rejected_in_a_row)
                if attempt.rejection == "restart" and not reason:
                    counters.n_restarts += 1
                    point = _initial_point(flow)
                    watch = Watch(rules, started=watch.started)
                    stepper.start(flow, point)
                    observer.start(point)
            if not reason and asked[0]:
                reason = f"interrupted: at tau = {point.time:g}, R = {point.loss:.4g}"
            if reason:
                return outcome(reason)


def _initial_point(flow: Flow) -> Point:
    theta = flow.initial.copy()
    return Point(0.0, theta, flow.residual(theta))


def _end_of(attempt: Attempt, before: Point, stop_loss: float, scratch: State) -> Point:
    """The point where an accepted step ends: at its end, or where R falls below stop_loss.

    The crossing is found to a relative 1e-6 in R on the method's own interpolant.
    """
    after = attempt.point
    assert after is not None and attempt.interpolate is not None
    if not (0.0 < after.loss < stop_loss <= before.loss):
        return after
    interpolate = attempt.interpolate
    target = math.log(stop_loss) - 1e-6

    def excess(fraction: float) -> float:
        residual = interpolate(fraction, scratch)
        return math.log(0.5 * float(np.mean(residual**2))) - target

    if math.log(after.loss) >= target:
        return after
    fraction = brentq(excess, 0.0, 1.0, xtol=1e-9, rtol=1e-9)
    residual = interpolate(fraction, scratch)
    crossing = Point(before.time + fraction * attempt.step, scratch, residual)
    return crossing if crossing.loss < stop_loss else after


def _hopeless(attempt: Attempt, point: Point, rejected_in_a_row: int) -> str:
    """Why there is no point in trying a smaller step; empty if there is."""
    tiny = attempt.step <= 4.0 * np.finfo(float).eps * point.time
    at_rest = attempt.rejection == "at rest"
    if not (tiny or at_rest) and rejected_in_a_row < _MAX_REJECTIONS:
        return ""
    where = f"at tau = {point.time:g}, R = {point.loss:.4g}"
    if at_rest:
        return (
            f"steady_state: R falls in no step, however small: a minimum or pinned neurons, {where}"
        )
    if attempt.rejection == "non-finite":
        return f"non_finite: rates are not finite {where}, however small the step"
    return f"step_too_small: {rejected_in_a_row} steps rejected in a row {where}"


def _why_small(flow: Flow, point: Point, step: float, counters: Counters) -> str:
    """Say what holds the step: stiffness, kinks or rejected steps."""
    rate = flow.tangent_kernel(point.theta).largest_rate
    tried = counters.n_steps + counters.n_rejected
    share = counters.n_rejected / tried if tried else 0.0
    stiff = f"h lambda_max(K/n) = {step * rate:.2g} (h = {step:.3g})"
    if step * rate > 0.2:
        return f"stiffness holds the step: {stiff}"
    if share > 0.2 and flow.kinked:
        return f"kinks hold the step: {share:.0%} of the attempts rejected, {stiff}"
    return f"accuracy holds the step: {share:.0%} of the attempts rejected, {stiff}"
