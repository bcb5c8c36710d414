"""Steps as long as an estimate of their error allows: the control that all pairs share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from flowsim.kernels.cpu.samples import all_finite, half_mean_square, scaled_norm
from flowsim.steppers.base import Attempt, Flow, Point, State, Stepper
from flowsim.steppers.controller import PIDController


class Embedding(Protocol):
    """What the control must know of a method's coefficients."""

    @property
    def error_order(self) -> int:
        """Exponent of the step size in the estimated error of one step."""


class ErrorControlled(Stepper):
    """Step control by the error that an embedded solution shows.

    The error of a step is the larger of the layers' root-mean-square errors, relative to rtol
    times the layer's size, and of the residual's own error, relative to rtol times its size plus
    atol: in the linear regime the weights hardly move while the residual does all there is. What
    its size is the loss says: one whose tail is flat needs no outputs more accurate than rtol.

    Parameters
    ----------
    tableau : ButcherTableau or RosenbrockTableau
        With at least one embedded solution.
    rtol : float
    atol : float
        Residuals below it need no relative accuracy.
    first : float, optional
        First step; estimated if absent.
    """

    def __init__(
        self, tableau: Embedding, rtol: float, atol: float, first: float | None = None
    ) -> None:
        self.tableau: Embedding = tableau
        self.rtol = rtol
        self.atol = atol
        self.first = first

    def start(self, flow: Flow, point: Point) -> None:
        self._arrive(flow, point)
        self._sizes = flow.layer_norms(point.theta)
        self._controller = PIDController(self.tableau.error_order)
        self.step = self.first or self._first_step(flow, point)

    def _arrive(self, flow: Flow, point: Point) -> None:
        """Make the states, and what depends on the point alone."""
        self._new = flow.empty()
        self._allocate(flow, point)
        self._residual_size = flow.residual_size(point.residual)

    def memory(self) -> dict[str, Any]:
        return {"step": self.step, "sizes": self._sizes, **self._controller.memory()}

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._arrive(flow, point)
        errors = {name: value for name, value in memory.items() if name not in ("step", "sizes")}
        self._controller = PIDController(self.tableau.error_order, **errors)
        self.step, self._sizes = memory["step"], memory["sizes"]

    def _scaled_norm(
        self, layers: np.ndarray, residual: np.ndarray, rounding: float = 0.0
    ) -> float:
        """The larger of the layers' and the residual's error, in units of the tolerance.

        ``rounding`` is how much of the residual's is none.
        """
        scale = self.rtol * self._residual_size + self.atol + rounding
        return scaled_norm(layers, self._sizes, self.rtol, residual.reshape(-1), scale)

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        step = min(self.step, limit)
        residual = self._take(flow, point, step)
        if all_finite(residual.reshape(-1)):
            old = self._residual_size
            self._residual_size = max(old, flow.residual_size(residual))
            error = self._error(flow, point, residual, step)
            self._residual_size = old
        else:
            error = np.inf
        if not error <= 1.0:
            self.step = step * self._controller.rejected(error)
            return Attempt(step, rejection="error" if np.isfinite(error) else "non-finite")
        factor = self._controller.accepted(error)
        # A step cut short by the limit says nothing against the step that was planned.
        self.step = max(step * factor, self.step if step < self.step else 0.0)
        new = Point.of(flow, point.time + step, self._new, residual)
        self._new = point.theta
        self._sizes = self._layer_sizes(flow, new)
        self._residual_size = flow.residual_size(residual)
        self._dense_ready = False

        def interpolate(fraction: float) -> tuple[State, np.ndarray]:
            if not self._dense_ready:
                self._prepare_dense(flow, point, new, step)
                self._dense_ready = True
            return self._interpolate(flow, point, new, step, fraction)

        return Attempt(step, point=new, interpolate=interpolate)

    def _layer_sizes(self, flow: Flow, point: Point) -> np.ndarray:
        """Norms of the layers at a point just accepted."""
        return flow.layer_norms(point.theta)

    @abstractmethod
    def _allocate(self, flow: Flow, point: Point) -> None:
        """Make the states besides the new one, and fill in what the first attempt reads."""

    @abstractmethod
    def _first_step(self, flow: Flow, point: Point) -> float:
        """A step to begin with."""

    @abstractmethod
    def _take(self, flow: Flow, point: Point, step: float) -> np.ndarray:
        """Take the step into the new state; return e there."""

    @abstractmethod
    def _error(self, flow: Flow, point: Point, residual: np.ndarray, step: float) -> float:
        """Estimated error of the step just taken, in units of the tolerance."""

    @abstractmethod
    def _prepare_dense(self, flow: Flow, point: Point, new: Point, step: float) -> None:
        """Compute what all interpolated states of an accepted step have in common."""

    @abstractmethod
    def _interpolate(
        self, flow: Flow, point: Point, new: Point, step: float, fraction: float
    ) -> tuple[State, np.ndarray]:
        """State at ``fraction`` of the step, in a buffer, and e there."""


def root_mean_square(residual: np.ndarray) -> float:
    """Of all samples and outputs."""
    return math.sqrt(2.0 * half_mean_square(residual.reshape(-1)))
