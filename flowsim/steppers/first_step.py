"""A first step with learning rates of its own, and after it any method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Point, State, Stepper


class FirstStep(Protocol):
    """What a flow knows of its first step: `flowsim.networks.first_step.FirstStepOfFlow`."""

    size: float
    """How long it lasts in tau."""

    def take(self, theta: State, residual: np.ndarray) -> np.ndarray:
        """The values of the state after it."""


class AfterFirstStep(Stepper):
    """A method that begins where the first step of a scheme has led.

    The step is one of gradient descent, whole whatever the method: for the method the run begins
    behind it. Between its ends the state is on the straight line.

    Parameters
    ----------
    stepper : Stepper
    first : FirstStep
    """

    name: ClassVar[str] = "after-first-step"

    def __init__(self, stepper: Stepper, first: FirstStep) -> None:
        self._stepper, self._first = stepper, first
        self._taken = False
        self.states = stepper.states + 1

    def refined(self) -> Stepper:
        return AfterFirstStep(self._stepper.refined(), self._first)

    def start(self, flow: Flow, point: Point) -> None:
        self._taken = False

    def memory(self) -> dict[str, Any]:
        return {"taken": self._taken, "stepper": self._stepper.memory() if self._taken else {}}

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._taken = memory["taken"]
        if self._taken:
            self._stepper.resume(flow, point, memory["stepper"])

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        if self._taken:
            return self._stepper.attempt(flow, point, limit)
        size = self._first.size
        before = np.array(point.theta, np.float64)
        after = self._first.take(point.theta, point.residual)
        theta = flow.state(after)
        new = Point.of(flow, point.time + size, theta, flow.residual(theta))
        if not new.finite:
            return Attempt(size, rejection="diverged")

        def interpolate(fraction: float) -> tuple[State, np.ndarray]:
            # The one before is held until there is a new one: flows know states by their place.
            held[0] = flow.state((1.0 - fraction) * before + fraction * after)
            return held[0], flow.residual(held[0])

        held: list[State] = [None]

        self._stepper.start(flow, new)
        self._taken = True
        return Attempt(size, point=new, interpolate=interpolate)
