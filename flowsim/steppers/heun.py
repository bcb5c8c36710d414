"""Kernel-bounded Heun: order 2, two fused passes a step."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from flowsim.steppers.base import Flow, Point, State
from flowsim.steppers.kernel_bounded import KernelBounded
from flowsim.steppers.runge_kutta import take_stages
from flowsim.steppers.tableaux.heun2 import HEUN2


class Heun(KernelBounded):
    """The explicit trapezoidal rule whose step follows the tangent kernel."""

    name: ClassVar[str] = "heun"
    order = 2
    tableau = HEUN2
    # Twice Euler's c for two passes a step: the same cost. The small cap holds for the escape
    # from small weights only, where a first-order error decides which neurons grow.
    fraction_at_1e3 = 1.0
    change_at_1e3 = 0.015
    states = KernelBounded.states + HEUN2.stages

    def _allocate(self, flow: Flow) -> None:
        super()._allocate(flow)
        self._slopes = flow.empty(HEUN2.stages)

    def _take(self, flow: Flow, point: Point, step: float, out: State) -> np.ndarray:
        return take_stages(flow, HEUN2, point, step, self._slopes, out)

    def _interpolate(
        self, flow: Flow, point: Point, step: float, fraction: float, out: State
    ) -> np.ndarray:
        weights = HEUN2.dense_weights(fraction)
        return flow.combine(point.theta, self._slopes, weights, step, out)
