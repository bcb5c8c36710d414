"""Plain gradient descent at a fixed step: the baseline that users compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Point, State, Stepper

_ONE = np.array([1.0])


class GradientDescent(Stepper):
    """Fixed-step Euler with the papers' rule: when the loss rises, halve the step and restart.

    Parameters
    ----------
    step : float, optional
        Step in tau (learning rate in units of tau). By default 0.5 / lambda_max(K/n) at t = 0,
        with the bound of the loss's Hessian there.
    """

    name: ClassVar[str] = "gradient-descent"
    states = 3

    def __init__(self, step: float | None = None) -> None:
        self.step = step

    def refined(self) -> GradientDescent:
        # The step that the rule ended with, halved: not the one it began with.
        return GradientDescent(None if self.step is None else 0.5 * self.step)

    def start(self, flow: Flow, point: Point) -> None:
        self._new, self._dense = flow.empty(), flow.empty()
        if self.step is None:
            rate = flow.tangent_kernel(point.theta).rate_bound(flow.curvature(point.residual))
            self.step = 0.5 / rate if 0.0 < rate < np.inf else 1.0

    def memory(self) -> dict[str, Any]:
        return {"step": self.step}

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._new, self._dense = flow.empty(), flow.empty()
        self.step = memory["step"]

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        assert self.step is not None  # set by start
        step = min(self.step, limit)
        residual = _descend(flow, point, step, self._new)
        new = Point.of(flow, point.time + step, self._new, residual)
        if not (new.finite and new.loss <= point.loss):
            self.step *= 0.5
            return Attempt(step, rejection="restart")
        self._new = point.theta

        def interpolate(fraction: float) -> tuple[State, np.ndarray]:
            return self._dense, _descend(flow, point, fraction * step, self._dense)

        return Attempt(step, point=new, interpolate=interpolate)


def _descend(flow: Flow, point: Point, step: float, out: State) -> np.ndarray:
    return flow.advance(point.theta, point.residual, point.theta, None, _ONE, step, out)
