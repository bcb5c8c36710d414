"""Adaptive Rosenbrock-W methods: linear stability for one n x n factorisation a step.

A W-method keeps its order with any matrix for the Jacobian. Here it is the exact one of two layers
with few inputs, and for other networks that of Gauss and Newton: what that leaves out, the weights'
own curvature times e, matters less the smaller e is. `flowsim.steppers.rosenbrock_stages` has both.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from flowsim.steppers.base import Flow, Point, State
from flowsim.steppers.controller import first_step
from flowsim.steppers.error_controlled import ErrorControlled
from flowsim.steppers.rosenbrock_stages import GaussNewtonStages, NeuronBlockStages, Stages
from flowsim.steppers.rosenbrock_tableau import RosenbrockTableau

_BLOCKS = 2
"""Copies of the state that the neurons' blocks take up for one input and a bias; up to 5 for more.

Once a flow is known, so is the number."""


class RosenbrockW(ErrorControlled):
    """A linearly implicit method whose Jacobian is made of the tangent kernel and neurons' blocks.

    Parameters
    ----------
    tableau : RosenbrockTableau
    rtol, atol, first
        See `ErrorControlled`.
    """

    name: ClassVar[str] = "Rosenbrock-W"
    tableau: RosenbrockTableau

    def __init__(
        self, tableau: RosenbrockTableau, rtol: float, atol: float, first: float | None = None
    ) -> None:
        super().__init__(tableau, rtol, atol, first)
        # The point, the new state, a stage's, and all stages.
        self.states = 3 + tableau.stages + _BLOCKS

    def refined(self) -> RosenbrockW:
        return RosenbrockW(self.tableau, 0.1 * self.rtol, 0.1 * self.atol, self.first)

    def _allocate(self, flow: Flow, point: Point) -> None:
        blocks = flow.neuron_blocks()
        self._stages: Stages
        if blocks is None:
            self._stages = GaussNewtonStages(self.tableau, flow)
        else:
            self._stages = NeuronBlockStages(self.tableau, flow, blocks)
        own = 0 if blocks is None else math.ceil(blocks.states)
        self.states = 3 + self.tableau.stages + own
        self._work = flow.empty()

    def _first_step(self, flow: Flow, point: Point) -> float:
        slopes, order = self._stages.slopes, self.tableau.order
        flow.rate(point.theta, point.residual, slopes[0])
        return first_step(flow, point, slopes, order, self._scaled_norm, self._work, np.inf)

    def _take(self, flow: Flow, point: Point, step: float) -> np.ndarray:
        try:
            return self._stages.take(point, step, self._work, self._new)
        except np.linalg.LinAlgError:
            return np.full_like(point.residual, np.nan)

    def _error(self, flow: Flow, point: Point, residual: np.ndarray, step: float) -> float:
        return self._scaled_norm(*self._stages.error(point, step))

    def _prepare_dense(self, flow: Flow, point: Point, new: Point, step: float) -> None:
        """Nothing: the stages are all it needs."""

    def _interpolate(
        self, flow: Flow, point: Point, new: Point, step: float, fraction: float
    ) -> tuple[State, np.ndarray]:
        weights = self.tableau.dense_weights(fraction)
        return self._work, self._stages.combined(point, weights, step, self._work)
