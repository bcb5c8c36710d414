"""Stabilised explicit Runge-Kutta: as many stages as a step needs to be stable.

Late in training the rates of K/n spread over many decades. What still moves is slow, and a step is
held back by lambda_max(K/n) alone: one of a common pair reaches h lambda_max of about 3, whatever
its accuracy. A method whose stages are there for stability reaches 0.59 s^2 with s of them, so that
the cost of going on to a time T falls from T to its root. It needs no linear algebra, five copies
of the state, and a bound of the rates: from K where that is small, else by some products with it.

The Jacobian of the flow is -K/n seen from the samples, plus a part that is small where residuals
are. From small weights, where few neurons do all the work, that part can double the largest rate:
then a step is unstable, its error says so, and the rate is measured along that error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from flowsim.kernels.cpu.samples import largest_size
from flowsim.steppers.base import Attempt, Flow, Point, State
from flowsim.steppers.controller import first_step
from flowsim.steppers.error_controlled import ErrorControlled
from flowsim.steppers.rates import bound_of_rates, passes_for_bound
from flowsim.steppers.stabilised_tableau import StabilisedTableau
from flowsim.steppers.tableau import ButcherTableau
from flowsim.steppers.tableaux.rkc2 import extent_of, rkc2, stages_for

EXPLODED = 1e100
"""Residual of a stage after which the others are not worth their passes."""


class Stabilised(ErrorControlled):
    """An adaptive stabilised method: the error chooses the step, the step the number of stages.

    While a step is tried the five states are the point, the new state, the rate at the point, the
    stage before and the rate at the new state; the last two stages take turns in two of them.

    Parameters
    ----------
    rtol, atol, first
        See `ErrorControlled`.
    """

    name: ClassVar[str] = "rkc2"
    tableau: ButcherTableau
    states = 5
    SAFETY = 1.1
    """Of the bound of the rates, for K's growth and what little there is beside it."""
    RELAXED = 0.9
    """What is left of an excess over K when K is made again."""
    LARGEST_EXCESS = 10.0
    """A kink within a measured distance looks like a rate without any bound."""
    MAX_AGE = 25
    """Steps after which the bound is made again."""
    SHARE = 0.05
    """Of the passes, what bounds may cost besides: with many stages a step they are made sooner."""
    MOST_STAGES = 1000
    """In one step, during which nobody can stop the run or sees where it is."""
    ROUNDINGS = 10.0
    """Of e that its estimated error makes h lambda_max times as large, which no shorter step
    mends: the estimate has h times the rates at both ends."""

    def __init__(self, rtol: float, atol: float, first: float | None = None) -> None:
        # All numbers of stages have the same orders, which is what the control asks for.
        super().__init__(rkc2(2).butcher, rtol, atol, first)

    def refined(self) -> Stabilised:
        return Stabilised(0.1 * self.rtol, 0.1 * self.atol, self.first)

    def start(self, flow: Flow, point: Point) -> None:
        super().start(flow, point)
        self._excess = 1.0
        self._bound_rates(flow, point)

    def _allocate(self, flow: Flow, point: Point) -> None:
        # F at the point, a stage and later the change of the state, F at the new state.
        self._slopes = flow.empty(3)
        flow.rate(point.theta, point.residual, self._slopes[0])
        self._moved = self._tried_again = False
        # Rounding errors of the stages grow with the square of their number (Verwer, Hundsdorfer
        # & Sommeijer 1990); the limit is that of their program.
        rounding = float(np.finfo(flow.dtype).eps)
        self._most = int(np.clip(np.sqrt(self.rtol / (10.0 * rounding)), 2, self.MOST_STAGES))

    def memory(self) -> dict[str, Any]:
        return super().memory() | {
            "kernel_rate": self._kernel_rate,
            "excess": self._excess,
            "bound_age": self._age,
            "passes_since_bound": self._passes,
        }

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        rest = dict(memory)
        self._kernel_rate, self._excess = rest.pop("kernel_rate"), rest.pop("excess")
        self._age, self._passes = rest.pop("bound_age"), rest.pop("passes_since_bound")
        super().resume(flow, point, rest)

    def _first_step(self, flow: Flow, point: Point) -> float:
        slopes, order = self._slopes, self.tableau.order
        return first_step(flow, point, slopes, order, self._scaled_norm, self._new, np.inf)

    @property
    def _rate(self) -> float:
        """What no rate near the point exceeds."""
        return self.SAFETY * self._excess * self._kernel_rate

    def _bound_rates(self, flow: Flow, point: Point) -> None:
        """Bound the rates of e near the point, those of K/n."""
        self._kernel_rate = bound_of_rates(flow, point)
        self._age = self._passes = 0

    def _due(self, point: Point) -> bool:
        """Whether the bound is old, or so cheap beside what has been spent that it may be new."""
        cost = passes_for_bound(point.residual.size)
        return self._age >= self.MAX_AGE or self.SHARE * self._passes > cost

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        if self._moved:
            self._turn(flow)
        if self._age and self._due(point):
            self._bound_rates(flow, point)
            self._excess = max(1.0, self.RELAXED * self._excess)
        rate = self._rate
        if not np.isfinite(rate):
            return Attempt(self.step, rejection="non-finite")
        longest = extent_of(self._most) / rate if rate > 0.0 else np.inf
        attempt = super().attempt(flow, point, min(limit, longest))
        self._moved = attempt.point is not None
        if self._moved:
            self._age += 1
            self._tried_again = False
        elif attempt.rejection == "error":
            self._measure(flow, point, attempt.step)
            if self._rate > 1.02 * rate and not self._tried_again:
                # It was not too long, it had too few stages.
                self.step, self._tried_again = attempt.step, True
        elif self._age:
            self._bound_rates(flow, point)
        return attempt

    def _measure(self, flow: Flow, point: Point, step: float) -> None:
        """Bound the rates anew, those along the error of a rejected step among them.

        Two iterations of the power method, over finite distances, begin from that error: what an
        unstable step multiplies most is the eigenvector that made it so.
        """
        if self._age:
            self._bound_rates(flow, point)
        slopes = self._slopes
        rate, change = self._used.error_rate * step, self._used.error_change
        along, found = np.array([rate, change, rate]), 0.0
        distance = float(np.linalg.norm(flow.combination_norms(slopes, along, 1.0)))
        for place, difference in ((2, [-1.0, 0.0, 1.0]), (1, [-1.0, 1.0, 0.0])):
            residual = flow.combine(point.theta, slopes, along, 1.0, self._new)
            flow.rate(self._new, residual, slopes[place])
            along = np.array(difference)
            turned = float(np.linalg.norm(flow.combination_norms(slopes, along, 1.0)))
            if not (np.isfinite(turned) and turned > 0.0 < distance):
                return
            found = max(found, turned / distance)
            along *= distance / turned
        if self._kernel_rate > 0.0:
            excess = min(found / self._kernel_rate, self.LARGEST_EXCESS)
            self._excess = max(self._excess, excess)

    def _turn(self, flow: Flow) -> None:
        """The rate at the new state has become that at the point."""
        if flow.turns:
            self._slopes = self._slopes[::-1]
        else:
            self._slopes[0][...] = self._slopes[2]

    def _take(self, flow: Flow, point: Point, step: float) -> np.ndarray:
        tableau = rkc2(min(stages_for(step * self._rate), self._most))
        base, slopes = point.theta, self._slopes
        # Two places in turn, so that the last stage ends up in the new state's.
        here, there = self._new, slopes[1]
        if tableau.stages % 2 == 0:
            here, there = there, here
        residual = flow.combine(base, slopes, tableau.beta[:1], step, here)
        before, stage = base, 1
        while largest_size(residual.reshape(-1)) < EXPLODED and stage < tableau.stages:
            stage += 1
            residual = flow.advance_recurrence(
                here, residual, before, base, slopes[0], tableau.factors(stage, step), there
            )
            before, here, there = here, there, here
        self._passes += stage
        self._used: StabilisedTableau = tableau
        finite = largest_size(residual.reshape(-1)) < EXPLODED
        return residual if finite else np.full_like(residual, np.inf)

    def _error(self, flow: Flow, point: Point, residual: np.ndarray, step: float) -> float:
        rate, change = self._used.error_rate, self._used.error_change
        np.subtract(point.theta, self._new, out=self._slopes[1])
        weights = np.array([[rate, change / step, rate]])
        others, norms = flow.rate_and_errors(self._new, residual, self._slopes, weights, step)
        self._new_sizes = norms[1]
        rounding = self.ROUNDINGS * step * self._rate * flow.rounding(residual)
        return self._scaled_norm(norms[0], residual - others[0], rounding)

    def _layer_sizes(self, flow: Flow, point: Point) -> np.ndarray:
        return self._new_sizes  # came with the error

    def _prepare_dense(self, flow: Flow, point: Point, new: Point, step: float) -> None:
        """Nothing: the rates at both ends are there."""

    def _interpolate(
        self, flow: Flow, point: Point, new: Point, step: float, fraction: float
    ) -> tuple[State, np.ndarray]:
        """Cubic through both ends with the rates there (Hermite)."""
        rest = 1.0 - fraction
        weights = np.array(
            [
                step * fraction * rest**2,
                -(fraction**2) * (3.0 - 2.0 * fraction),
                -step * fraction**2 * rest,
            ]
        )
        # Made anew every time, in the one place that is free: that of the state itself.
        change = self._slopes[1]
        np.subtract(point.theta, new.theta, out=change)
        return change, flow.combine(point.theta, self._slopes, weights, 1.0, change)
