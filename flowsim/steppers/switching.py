"""An explicit pair while accuracy holds the step, stiff methods where stability alone does.

A pair whose h lambda_max(K/n) has come to the end of its interval of stability takes steps that
are shorter than its error asks for, and is stiff there by definition (Hairer & Wanner, Solving
Ordinary Differential Equations II, IV.2). Now and then it is looked at. Where that is so twice
running a stabilised method takes over, whose cost grows with the root of h lambda_max, and where
that is more than a linearly implicit step costs, that one does. Either gives the run back as soon
as it is not worth it any more. After every return it takes more looks to leave the pair again, so
that a flow on the border does not go to and fro for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Point, Stepper
from flowsim.steppers.error_controlled import ErrorControlled
from flowsim.steppers.rates import bound_of_rates, passes_for_bound, passes_for_kernel
from flowsim.steppers.stabilised import Stabilised
from flowsim.steppers.tableau import ButcherTableau
from flowsim.steppers.tableaux.rkc2 import stages_for

PASSES = 15
"""Of a linearly implicit step of order 3."""

LONGER_AT_1E3 = 1.5
"""How much longer it is than one of order 2 at rtol = 1e-3."""


class Switching(Stepper):
    """Three methods in the place of one.

    Parameters
    ----------
    methods : mapping of str to callable
        Methods by name, to be made when they are needed: an embedded pair; a stabilised method,
        which keeps states where rates have their place; a linearly implicit one.
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
    LEAVE = 2.0
    """Times that interval below which a stiff method's step is not worth what it costs."""
    PATIENCE, MOST_PATIENCE = 2, 16
    """Looks in a row that it takes to leave the pair for the first time, and at the most."""
    GAIN = 1.3
    """How much cheaper a step of the other stiff method has to be for a change."""

    def __init__(self, methods: Mapping[str, Callable[[], ErrorControlled]]) -> None:
        self._makers, self._names = methods, tuple(methods)
        made = [make() for make in methods.values()]
        assert isinstance(made[0].tableau, ButcherTableau)
        self._interval = real_stability(made[0].tableau)
        self._passes_a_step = made[0].tableau.stages
        # Steps of order p are as long as the (p + 1)th root of the tolerance.
        self._longer = LONGER_AT_1E3 * (made[0].rtol / 1e-3) ** (1 / 4 - 1 / 3)
        self.states = max(one.states for one in made)

    def refined(self) -> Stepper:
        def finer(make: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: make().refined()

        return Switching({name: finer(make) for name, make in self._makers.items()})

    def _take_up(self, name: str) -> None:
        """Make the method anew: the states of the one before go with it."""
        self._name, self._present = name, self._makers[name]()

    @property
    def _away(self) -> bool:
        return self._name != self._names[0]

    def start(self, flow: Flow, point: Point) -> None:
        self._take_up(self._names[0])
        self._age, self._streak, self._patience = 0, 0, self.PATIENCE
        self._stiffness = math.nan
        self._present.start(flow, point)

    def memory(self) -> dict[str, Any]:
        return {
            "method": self._name,
            "stiffness": self._stiffness,
            "age": self._age,
            "streak": self._streak,
            "patience": self._patience,
            "stepper": self._present.memory(),
        }

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._take_up(memory["method"])
        self._age, self._streak = memory["age"], memory["streak"]
        self._patience, self._stiffness = memory["patience"], memory["stiffness"]
        self._present.resume(flow, point, memory["stepper"])

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        if self._age >= (self.TRIAL if self._away else self._interval_of_looks(point)):
            self._age = 0
            self._look(flow, point)
        attempt = self._present.attempt(flow, point, limit)
        if attempt.point is not None:
            self._age += 1
        return replace(attempt, method=self._name, stiffness=self._stiffness)

    def _interval_of_looks(self, point: Point) -> int:
        spent = self.SHARE * self._passes_a_step
        return max(self.LOOK, math.ceil(passes_for_bound(point.residual.size) / spent))

    def _look(self, flow: Flow, point: Point) -> None:
        """Change the method if it is time to."""
        rate, step = bound_of_rates(flow, point), self._present.step
        reach = step * rate / self._interval
        self._stiffness = reach
        place = self._names.index(self._name)
        if place == 0:
            self._streak = self._streak + 1 if reach > self.ENTER else 0
            if self._streak < self._patience:
                return
            after = 1 if flow.dense_rates else 2
        elif not reach > self.LEAVE:
            self._patience = min(2 * self._patience, self.MOST_PATIENCE)
            step, after = step / max(1.0, reach), 0
        else:
            after = self._cheaper(flow, point, place, step * rate)
        if after != place:
            self._streak = 0
            self._take_up(self._names[after])
            # Nothing is known of its longest step but what the other has found.
            self._present.first = step
            self._present.start(flow, point)

    def _cheaper(self, flow: Flow, point: Point, place: int, extent: float) -> int:
        """Which of the stiff methods takes a step of so many h lambda_max in fewer passes."""
        if not flow.dense_rates:
            return 2
        stabilised = float(stages_for(Stabilised.SAFETY * extent))
        implicit = (PASSES + passes_for_kernel(point.residual.size)) / self._longer
        costs = {1: stabilised, 2: implicit}
        other = 3 - place
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
