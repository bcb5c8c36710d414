"""Kernel-bounded Euler: one fused pass a step, the workhorse for ReLU networks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from flowsim.steppers.base import Flow, Point, State
from flowsim.steppers.kernel_bounded import KernelBounded
from flowsim.steppers.tableaux.euler1 import EULER1

_ONE = np.array([1.0])


class Euler(KernelBounded):
    """Gradient descent whose step follows the tangent kernel (see `KernelBounded`)."""

    name: ClassVar[str] = "euler"
    order = 1
    tableau = EULER1
    fraction_at_1e3 = 0.5
    change_at_1e3 = 0.1

    def _take(self, flow: Flow, point: Point, step: float, out: State) -> np.ndarray:
        return flow.advance(point.theta, point.residual, point.theta, None, _ONE, step, out)

    def _interpolate(
        self, flow: Flow, point: Point, step: float, fraction: float, out: State
    ) -> np.ndarray:
        # Euler's path within a step is a straight line: a shorter step is on it.
        return self._take(flow, point, fraction * step, out)
