"""An explicit pair while accuracy holds the step, stiff methods where stability alone does.

A pair whose h lambda_max(K/n) has come to the end of its interval of stability takes steps that
are shorter than its error asks for, and is stiff there by definition (Hairer & Wanner, Solving
Ordinary Differential Equations II, IV.2). Now and then it is looked at. Where that is so twice
running a stabilised method takes over, whose cost grows with the root of h lambda_max, and where
that is more than a linearly implicit step costs, that one does. Either gives the run back as soon
as it is not worth it any more. After every return it takes more looks to leave the pair again, so
that a flow on the border does not go to and fro for ever.

Where K hardly changes while e falls, in the lazy limit and at the end of every run, an exponential
step costs two passes and K however long it is, and that method takes over from any of the others,
or begins. It gives the run back when K has begun to change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Kernel, Point, Stepper
from flowsim.steppers.kernel_filtered import KernelFiltered
from flowsim.steppers.rates import bound_of_rates, kernel_for, passes_for_bound, passes_for_kernel
from flowsim.steppers.stabilised import Stabilised
from flowsim.steppers.tableau import ButcherTableau
from flowsim.steppers.tableaux.rkc2 import stages_for

PAIR, STABILISED, IMPLICIT, EXPONENTIAL = range(4)
"""Places of the methods."""

PASSES, PASSES_BY_BLOCKS = 15, 7
"""Of a linearly implicit step of order 3 besides K, as the others have to be worth more than it:
with neurons' blocks what it takes; without, 11 for steps that are shorter. Both are as measured."""

_SEEN = ("matrix", "loss")
"""What is kept of a look, to compare the next one with."""

_LEAST_FALL = 1e-6
"""Of log e from look to look."""

LONGER_AT_1E3 = 1.5
"""How much longer it is than one of order 2 at rtol = 1e-3."""


class Switching(Stepper):
    """Four methods in the place of one.

    Parameters
    ----------
    methods : mapping of str to callable
        Methods by name, to be made when they are needed: an embedded pair; a stabilised method,
        which keeps states where rates have their place; a linearly implicit one; an exponential
        one.
    """

    name: ClassVar[str] = "switching"
    LOOK = 5
    """The pair's accepted steps from one look to the next, or more:"""
    SHARE = 0.05
    """of its passes looking is not to cost more."""
    TRIAL = 15
    """The same of stiff methods: they begin with the pair's step, and need some to find theirs."""
    ENTER = 0.6
    """Share of the pair's interval of stability from which a step counts as held by it."""
    PATIENCE, MOST_PATIENCE = 2, 16
    """Looks in a row that it takes to leave the pair for the first time, and at the most."""
    GAIN = 1.3
    """How much cheaper a step of the other stiff method has to be for a change."""
    LAZY, LIVELY = 0.15, 0.3
    """Relative change of K while e falls by a factor of Euler's number, below which the exponential
    method is taken up, and above which it gives the run back; less where rtol is below 1e-3."""
    AT_ONCE = 0.05
    """Share of that below which it begins: along a first step, in which the fastest part of e
    falls, any flow is lazier than later on."""
    SHORTEST = 0.2
    """Times the pair's interval below which its step is not worth what it costs."""
    FEW_PASSES = 2.0
    """That K may cost for a run to begin with a look at how it changes."""

    def __init__(self, methods: Mapping[str, Callable[[], Any]]) -> None:
        self._makers, self._names = methods, tuple(methods)
        made = [make() for make in methods.values()]
        assert isinstance(made[0].tableau, ButcherTableau)
        self._interval = real_stability(made[0].tableau)
        self._passes_a_step = made[0].tableau.stages
        # Steps of order p are as long as the (p + 1)th root of the tolerance.
        self._longer = LONGER_AT_1E3 * (made[0].rtol / 1e-3) ** (1 / 4 - 1 / 3)
        # Those of the exponential method are as long as its cap, the root of the tolerance.
        self._shorter = min(1.0, made[0].rtol / 1e-3) ** (1 / 2 - 1 / 3)
        self.states = max(one.states for one in made)

    def refined(self) -> Stepper:
        def finer(make: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: make().refined()

        return Switching({name: finer(make) for name, make in self._makers.items()})

    def _take_up(self, place: int) -> None:
        """Make a method anew: the states of the one before go with it."""
        self._place, self._present = place, self._makers[self._names[place]]()
        self._age, self._gone = 0, 0.0

    def start(self, flow: Flow, point: Point) -> None:
        self._take_up(PAIR)
        self._streak, self._patience = 0, self.PATIENCE
        self._calm, self._caution = 0, 1
        self._stiffness = math.nan
        self._seen: tuple[np.ndarray, float] | None = None
        if passes_for_kernel(point.residual.size) <= self.FEW_PASSES and self._begins_lazily(
            flow, point
        ):
            self._take_up(EXPONENTIAL)
        self._present.start(flow, point)

    def _begins_lazily(self, flow: Flow, point: Point) -> bool:
        """Whether K hardly changes along a step that is tried and not taken: four passes."""
        trial: KernelFiltered = self._makers[self._names[EXPONENTIAL]]()
        trial.start(flow, point)
        self._seen = seen = trial.kernel.matrix, point.loss
        attempt = trial.attempt(flow, point, math.inf)
        if attempt.point is None:
            return False
        kernel = flow.tangent_kernel(attempt.point.theta)
        liveliness, self._seen = self._liveliness(kernel, attempt.point), seen
        return liveliness < self._shorter * self.AT_ONCE * self.LAZY

    def memory(self) -> dict[str, Any]:
        return {
            "method": self._names[self._place],
            "stiffness": self._stiffness,
            "age": self._age,
            "gone": self._gone,
            "streak": self._streak,
            "patience": self._patience,
            "calm": self._calm,
            "caution": self._caution,
            "seen": {} if self._seen is None else dict(zip(_SEEN, self._seen, strict=True)),
            "stepper": self._present.memory(),
        }

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._take_up(self._names.index(memory["method"]))
        self._age, self._gone = memory["age"], memory["gone"]
        self._streak, self._patience = memory["streak"], memory["patience"]
        self._calm, self._caution = memory["calm"], memory["caution"]
        seen = memory["seen"]
        self._seen = (seen["matrix"], seen["loss"]) if seen else None
        self._stiffness = memory["stiffness"]
        self._present.resume(flow, point, memory["stepper"])

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        if self._age >= self._interval_of_looks(point):
            self._look(flow, point)
            self._age, self._gone = 0, 0.0
        attempt = self._present.attempt(flow, point, limit)
        if attempt.point is not None:
            self._age += 1
            self._gone += attempt.step
        return replace(attempt, method=self._names[self._place], stiffness=self._stiffness)

    def _interval_of_looks(self, point: Point) -> int:
        if self._place == EXPONENTIAL:
            return self.LOOK  # at its own K
        if self._place != PAIR:
            return self.TRIAL
        spent = self.SHARE * self._passes_a_step
        return max(self.LOOK, math.ceil(passes_for_bound(point.residual.size) / spent))

    def _look(self, flow: Flow, point: Point) -> None:
        """Change the method if it is time to."""
        if self._place == EXPONENTIAL:
            # Its next step may be one for ever.
            step = min(self._present.step, 10.0 * self._gone / self._age)
            kernel = self._present.kernel
        else:
            kernel, step = kernel_for(flow, point), self._present.step
        rate = bound_of_rates(flow, point, kernel)
        reach = step * rate / self._interval
        self._stiffness = reach
        liveliness = self._liveliness(kernel, point)
        if self._place == EXPONENTIAL:
            after = self._after_lazy(flow, point, reach, liveliness)
        else:
            self._calm = self._calm + 1 if liveliness < self._shorter * self.LAZY else 0
            lazy = self._calm >= self._caution
            after = EXPONENTIAL if lazy else self._next(flow, point, reach)
        if after == self._place:
            return
        self._streak = self._calm = 0
        if after == PAIR:
            step /= max(1.0, reach)
        self._take_up(after)
        # Nothing is known of its longest step but what the other has found.
        self._present.first = step
        self._present.start(flow, point)

    def _liveliness(self, kernel: Kernel | None, point: Point) -> float:
        """Relative change of K since the last look over the fall of log e; NaN if unknown."""
        if kernel is None:
            return math.nan
        seen, self._seen = self._seen, (kernel.matrix, point.loss)
        if seen is None or not (seen[1] > 0.0 < point.loss):
            return math.nan
        change = np.linalg.norm(kernel.matrix - seen[0]) / np.linalg.norm(kernel.matrix)
        # What is left of e may be rounding, which falls no further.
        fall = max(0.5 * abs(math.log(point.loss / seen[1])), _LEAST_FALL)
        return float(change / fall)

    def _next(self, flow: Flow, point: Point, reach: float) -> int:
        """Which method follows on the pair or a stiff one."""
        if self._place == PAIR:
            self._streak = self._streak + 1 if reach > self.ENTER else 0
            if self._streak < self._patience:
                return PAIR
            return STABILISED if flow.dense_rates else IMPLICIT
        if not self._worth_it(flow, point, reach, self._place):
            self._patience = min(2 * self._patience, self.MOST_PATIENCE)
            return PAIR
        return self._cheaper(flow, point, reach * self._interval, self._place)

    def _after_lazy(self, flow: Flow, point: Point, reach: float, liveliness: float) -> int:
        """Which method follows on the exponential one."""
        if reach > self.SHORTEST and not liveliness > self._shorter * self.LIVELY:
            return EXPONENTIAL
        self._caution = min(2 * self._caution, self.MOST_PATIENCE)
        place = STABILISED if flow.dense_rates else IMPLICIT
        if not self._worth_it(flow, point, reach, place):
            return PAIR
        return self._cheaper(flow, point, reach * self._interval, IMPLICIT)

    def _passes(self, flow: Flow, point: Point, place: int, extent: float) -> float:
        """Passes of a step of so many h lambda_max by a stiff method."""
        if place == STABILISED:
            return 1.0 + stages_for(Stabilised.SAFETY * extent)
        own = PASSES_BY_BLOCKS if flow.has_blocks else PASSES
        return own + passes_for_kernel(point.residual.size)

    def _worth_it(self, flow: Flow, point: Point, reach: float, place: int) -> bool:
        """Whether a stiff method's step costs less than the pair's over the same time.

        The pair's are as long as is stable.
        """
        return (
            self._passes(flow, point, place, reach * self._interval) < self._passes_a_step * reach
        )

    def _cheaper(self, flow: Flow, point: Point, extent: float, place: int) -> int:
        """Which of the stiff methods takes a step of so many h lambda_max in fewer passes.

        By so many that it is worth leaving the one in ``place``.
        """
        if not flow.dense_rates:
            return IMPLICIT
        costs = {one: self._passes(flow, point, one, extent) for one in (STABILISED, IMPLICIT)}
        costs[IMPLICIT] /= self._longer
        other = STABILISED + IMPLICIT - place
        return other if self.GAIN * costs[other] < costs[place] else place


def real_stability(tableau: ButcherTableau) -> float:
    """Length of the piece [-x, 0] of the real axis on which an explicit method is stable.

    |R(z)| <= 1 there for R(z) = 1 + z b (I - z A)^(-1) 1, a polynomial, to two digits.
    """
    powers, stage = [1.0], np.ones(tableau.stages)
    for _ in range(tableau.stages):
        powers.append(float(tableau.b @ stage))
        stage = tableau.a @ stage
    z = -np.arange(0.0, 10.0 * tableau.stages, 0.01)
    unstable = np.abs(np.polynomial.polynomial.polyval(z, powers)) > 1.0 + 1e-9
    return float(-z[int(np.argmax(unstable)) - 1])
