"""What ends a run, and what its ending is called."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Point

COMPLETE, FAILED, PREEMPTED = "complete", "failed", "preempted"

ENDINGS = {
    "stop_loss": COMPLETE,
    "steady_state": COMPLETE,
    "t_max": COMPLETE,
    "max_steps": COMPLETE,
    "non_finite": FAILED,
    "step_too_small": FAILED,
    "max_seconds": PREEMPTED,
    "interrupted": PREEMPTED,
    "storage": PREEMPTED,
}
"""Status that each reason to stop leads to (DESIGN section 6)."""


@dataclass
class Counters:
    """Of one run: accepted steps, rejected attempts, restarts."""

    n_steps: int = 0
    n_rejected: int = 0
    n_restarts: int = 0


MAX_REJECTIONS = 80
"""In a row. Halving that often leaves a step that no longer moves the time."""

STEADY_WINDOW = 1.25
"""The slope that tells a steady state is taken over this ratio of times."""


@dataclass(frozen=True)
class StopRules:
    """When a run ends.

    Parameters
    ----------
    stop_loss : float
        R < stop_loss; the crossing is located within its step. 0 switches it off.
    t_max : float
        Last tau.
    max_steps : int, optional
        Accepted steps.
    max_seconds : float, optional
        Wall-clock time.
    steady_slope : float
        |d log R / d log tau| below this, over a quarter of the time so far, is a steady state.
        0 switches it off.
    steady_min_time : float
        No steady state before this tau: at the start, and on the plateau before condensation,
        R is flat too.
    """

    stop_loss: float = 1e-5
    t_max: float = math.inf
    max_steps: int | None = None
    max_seconds: float | None = None
    steady_slope: float = 1e-4
    steady_min_time: float = 1e4


@dataclass
class Watch:
    """Checks the rules along a run; its attributes are its whole memory."""

    rules: StopRules
    started: float = field(default_factory=time.monotonic)
    marked_time: float = 0.0
    marked_loss: float = math.nan

    def memory(self) -> dict[str, Any]:
        """What a watch that continues in the place of this one must be made with."""
        return {"marked_time": self.marked_time, "marked_loss": self.marked_loss}

    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return time.monotonic() - self.started

    def ending(self, now: float, loss: float, steps: int) -> str:
        """Reason and explanation of the ending at tau = ``now``; empty to go on.

        Where R was not looked at it is NaN, which no rule on R applies to.
        """
        rules = self.rules
        if loss < rules.stop_loss:
            return f"stop_loss: R fell below {rules.stop_loss:g} at tau = {now:.6g}"
        if loss == 0.0 and steps > 0:
            return f"steady_state: R = 0 at tau = {now:.6g}"
        if now >= rules.t_max:
            return f"t_max: tau = {now:g} reached"
        slope = self._slope(now, loss)
        if abs(slope) < rules.steady_slope:
            return (
                f"steady_state: |d log R / d log tau| = {abs(slope):.2g} is below "
                f"{rules.steady_slope:g} at R = {loss:.4g}"
            )
        if rules.max_steps is not None and steps >= rules.max_steps:
            return f"max_steps: {steps} steps taken, R = {loss:.4g}"
        # At least one step: a run that is continued again and again is to arrive some day.
        over = rules.max_seconds is not None and self.seconds() >= rules.max_seconds
        if over and steps > 0:
            known = "" if math.isnan(loss) else f", R = {loss:.4g}"
            return f"max_seconds: {rules.max_seconds:g} s are over{known}"
        return ""

    def _slope(self, now: float, loss: float) -> float:
        """d log R / d log tau since the last mark, once that is far enough back; else NaN."""
        if now < self.rules.steady_min_time or not loss > 0.0:
            return math.nan
        if math.isnan(self.marked_loss):
            self.marked_time, self.marked_loss = now, loss
        if now <= STEADY_WINDOW * self.marked_time:
            return math.nan
        slope = math.log(loss / self.marked_loss) / math.log(now / self.marked_time)
        self.marked_time, self.marked_loss = now, loss
        return slope


def key_of(reason: str) -> str:
    """The word in `ENDINGS` that a reason to stop begins with."""
    return reason.partition(":")[0]


def hopeless(attempt: Attempt, point: Point, rejected_in_a_row: int) -> str:
    """Why there is no point in trying a smaller step; empty if there is."""
    tiny = attempt.step <= 4.0 * np.finfo(float).eps * point.time
    at_rest, diverged = attempt.rejection == "at rest", attempt.rejection == "diverged"
    if not (tiny or at_rest or diverged) and rejected_in_a_row < MAX_REJECTIONS:
        return ""
    where = f"at tau = {point.time:g}, R = {point.loss:.4g}"
    if diverged:
        return f"non_finite: R is not finite after the step of {attempt.step:g} {where}"
    if at_rest:
        return (
            f"steady_state: R falls in no step, however small: a minimum or pinned neurons, {where}"
        )
    if attempt.rejection == "non-finite":
        return f"non_finite: rates are not finite {where}, however small the step"
    return f"step_too_small: {rejected_in_a_row} steps rejected in a row {where}"


def explain(reason: str, flow: Flow, point: Point, step: float, counters: Counters) -> str:
    """Add to an ending that nobody wished for what holds the step."""
    if counters.n_steps and key_of(reason) in ("max_steps", "max_seconds", "step_too_small"):
        counts = flow.n_rhs, flow.n_passes
        reason += "; " + _why_small(flow, point, step, counters)
        flow.n_rhs, flow.n_passes = counts  # those of the method, not of the explanation
    return reason


_LARGE = 2**12
"""Rows of K above which it is not computed for an explanation."""


_BEYOND = 20.0
"""h lambda_max(K/n) that no explicit Runge-Kutta method gets to: what is stable there is not held
by stiffness."""


def _why_small(flow: Flow, point: Point, step: float, counters: Counters) -> str:
    """Say what holds the step: stiffness, kinks or rejected steps."""
    if point.residual.size > _LARGE:
        return f"h = {step:.3g}"
    rate = flow.tangent_kernel(point.theta).rate_bound(flow.curvature(point.residual))
    tried = counters.n_steps + counters.n_rejected
    share = counters.n_rejected / tried if tried else 0.0
    stiff = f"h lambda_max(K/n) = {step * rate:.2g} (h = {step:.3g})"
    if 0.2 < step * rate < _BEYOND:
        return f"stiffness holds the step: {stiff}"
    if share > 0.2 and flow.kinked:
        return f"kinks hold the step: {share:.0%} of the attempts rejected, {stiff}"
    return f"accuracy holds the step: {share:.0%} of the attempts rejected, {stiff}"
