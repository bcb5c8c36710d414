"""Adaptive Runge-Kutta pairs that work in four copies of the state, whatever their stages."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from flowsim.steppers.base import Flow, Point, State
from flowsim.steppers.controller import first_step
from flowsim.steppers.error_controlled import ErrorControlled
from flowsim.steppers.low_storage_tableau import LowStorageTableau
from flowsim.steppers.tableau import ButcherTableau


class LowStoragePair(ErrorControlled):
    """An adaptive explicit Runge-Kutta method that keeps no rates.

    While a step is tried the four states are the point, the new state, a memory and the error.
    Once it has been accepted, memory and error are free for the interpolant, for which the rates
    at both ends are computed anew.

    Parameters
    ----------
    scheme : LowStorageTableau
    rtol, atol, first
        See `ErrorControlled`.
    """

    name: ClassVar[str] = "low-storage pair"
    states = 4
    tableau: ButcherTableau

    def __init__(
        self, scheme: LowStorageTableau, rtol: float, atol: float, first: float | None = None
    ) -> None:
        super().__init__(scheme.butcher, rtol, atol, first)
        self.scheme = scheme

    def refined(self) -> LowStoragePair:
        return LowStoragePair(self.scheme, 0.1 * self.rtol, 0.1 * self.atol, self.first)

    def _allocate(self, flow: Flow, point: Point) -> None:
        # One stack, so that both can also be combined like slopes.
        self._registers = flow.empty(2)

    def _first_step(self, flow: Flow, point: Point) -> float:
        slopes, order = self._registers, self.scheme.order
        flow.rate(point.theta, point.residual, slopes[0])
        return first_step(flow, point, slopes, order, self._scaled_norm, self._new, np.inf)

    def _take(self, flow: Flow, point: Point, step: float) -> np.ndarray:
        scheme, base, new = self.scheme, point.theta, self._new
        memory, error = self._registers[0], self._registers[1]
        # In the first stage all registers are the base, and there is nothing to remember.
        residual = flow.advance(base, point.residual, base, None, scheme.beta[:1], step, new, error)
        for stage in range(1, scheme.stages):
            residual = flow.advance_registers(
                new, residual, memory, base, error, scheme.factors(stage, step), fresh=stage == 1
            )
        return residual

    def _error(self, flow: Flow, point: Point, residual: np.ndarray, step: float) -> float:
        error = self._registers[1:]
        weight = self.scheme.error_weights[:1]
        layers = flow.combination_norms(error, weight, step)
        # The embedded solution is u - error; nothing needs the error any more.
        other = flow.combine(self._new, error, -weight, step, error[0])
        return self._scaled_norm(layers, residual - other)

    def _prepare_dense(self, flow: Flow, point: Point, new: Point, step: float) -> None:
        difference = self._registers[1:]
        difference[0][...] = point.theta
        flow.combine(new.theta, difference, np.array([-1.0]), 1.0, difference[0])

    def _interpolate(
        self, flow: Flow, point: Point, new: Point, step: float, fraction: float
    ) -> tuple[State, np.ndarray]:
        """Cubic through both ends with the rates there (Hermite)."""
        rest = 1.0 - fraction
        weights = np.array(
            [
                step * fraction * rest**2,
                fraction**2 * (3.0 - 2.0 * fraction),
                -step * fraction**2 * rest,
            ]
        )
        out = self._registers[0]
        flow.rate(point.theta, point.residual, out)
        residual = flow.advance(
            new.theta, new.residual, point.theta, self._registers, weights, 1.0, out
        )
        return out, residual
