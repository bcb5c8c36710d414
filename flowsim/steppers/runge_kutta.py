"""Explicit Runge-Kutta steps, and the adaptive embedded pairs made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Point, State, Stepper
from flowsim.steppers.controller import PIDController, first_step
from flowsim.steppers.tableau import ButcherTableau


def take_stages(
    flow: Flow,
    tableau: ButcherTableau,
    point: Point,
    step: float,
    slopes: State,
    work: State,
    out: State,
    first_slope_known: bool = False,
) -> np.ndarray:
    """Take one step of an explicit method, each stage one fused pass.

    Parameters
    ----------
    flow, tableau, point
    step : float
    slopes : stack of states
        Receives the rates of the stages.
    work : state
        Holds the stages on their way.
    out : state
        Receives the new state.
    first_slope_known : bool
        ``slopes[0]`` is the rate at ``point`` already.

    Returns
    -------
    (n,) array
        The residual at the new state. For a first-same-as-last tableau ``slopes[-1]`` is its
        rate there.
    """
    # A first-same-as-last tableau's last stage is the new state itself.
    explicit = tableau.stages - 1 if tableau.fsal else tableau.stages
    rows = [*tableau.a[1:explicit], tableau.b]
    theta, residual = point.theta, point.residual
    for stage in range(explicit):
        weights = np.ascontiguousarray(rows[stage][: stage + 1])
        target = out if stage == explicit - 1 else work
        if stage == 0 and first_slope_known:
            residual = flow.combine(point.theta, slopes, weights, step, target)
        else:
            residual = flow.advance(
                theta, residual, point.theta, slopes, weights, step, target, slopes[stage]
            )
        theta = target
    return residual


class EmbeddedPair(Stepper):
    """An adaptive explicit Runge-Kutta method.

    The error of a step is the larger of the layers' root-mean-square errors, relative to rtol
    times the layer's size, and of the residual's own error, relative to rtol times its size plus
    atol: in the linear regime the weights hardly move while the residual does all there is.
    With two embedded solutions (DOP853) the errors e5, e3 are merged as Hairer's
    e5^2 / sqrt(e5^2 + 0.01 e3^2).

    Parameters
    ----------
    tableau : ButcherTableau
        First same as last, with at least one embedded solution and a continuous extension.
    rtol : float
    atol : float
        Residuals below it need no relative accuracy.
    first : float, optional
        First step; estimated if absent.
    """

    name: ClassVar[str] = "embedded pair"

    def __init__(
        self, tableau: ButcherTableau, rtol: float, atol: float, first: float | None = None
    ) -> None:
        self.tableau = tableau
        self.rtol = rtol
        self.atol = atol
        self.first = first

    def refined(self) -> EmbeddedPair:
        return EmbeddedPair(self.tableau, 0.1 * self.rtol, 0.1 * self.atol, self.first)

    def start(self, flow: Flow, point: Point) -> None:
        self._arrive(flow, point)
        self._controller = PIDController(self.tableau.error_order)
        self.step = self.first or first_step(
            flow, point, self._slopes, self.tableau.order, self._scaled_norm, self._work, np.inf
        )

    def _arrive(self, flow: Flow, point: Point) -> None:
        """Make the buffers, and what depends on the point alone."""
        tableau = self.tableau
        self._slopes = flow.empty(tableau.stages + len(tableau.extra_a))
        self._work, self._spare = flow.empty(), flow.empty()
        self._new = flow.empty()
        flow.rate(point.theta, point.residual, self._slopes[0])
        self._sizes = flow.layer_norms(point.theta)
        self._residual_size = self._rms(point.residual)
        self._moved = False

    def memory(self) -> dict[str, Any]:
        return {"step": self.step, **self._controller.memory()}

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._arrive(flow, point)
        errors = {name: value for name, value in memory.items() if name != "step"}
        self._controller = PIDController(self.tableau.error_order, **errors)
        self.step = memory["step"]

    @staticmethod
    def _rms(residual: np.ndarray) -> float:
        return float(np.sqrt(np.mean(residual**2)))

    def _scaled_norm(self, layers: np.ndarray, residual: np.ndarray) -> float:
        """The larger of the layers' and the residual's error, in units of the tolerance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(layers == 0.0, 0.0, layers / (self.rtol * self._sizes))
        scale = self.rtol * self._residual_size + self.atol
        own = self._rms(residual) / scale if scale > 0.0 else 0.0
        return float(max(np.max(relative), own))

    def _error(self, flow: Flow, point: Point, residual: np.ndarray, step: float) -> float:
        errors = []
        for weights, (embedded, _) in zip(
            self.tableau.error_weights, self.tableau.embedded, strict=True
        ):
            layers = flow.combination_norms(self._slopes, weights, step)
            other = flow.combine(point.theta, self._slopes, embedded, step, self._work)
            errors.append(self._scaled_norm(layers, residual - other))
        if len(errors) == 1 or errors[0] == 0.0:
            return errors[0]
        return errors[0] ** 2 / float(np.hypot(errors[0], 0.1 * errors[1]))

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        tableau, slopes = self.tableau, self._slopes
        if self._moved:
            # The rate at the new state is that of the step just taken.
            slopes[0][...] = slopes[tableau.stages - 1]
            self._moved = False
        step = min(self.step, limit)
        residual = take_stages(
            flow, tableau, point, step, slopes, self._work, self._new, first_slope_known=True
        )
        if np.isfinite(residual).all():
            flow.rate(self._new, residual, slopes[tableau.stages - 1])
            old = self._residual_size
            self._residual_size = max(old, self._rms(residual))
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
        new = Point(point.time + step, self._new, residual)
        self._new, self._spare = self._spare, self._new
        self._sizes = flow.layer_norms(new.theta)
        self._residual_size = self._rms(residual)
        self._moved = True
        self._extra_known = False
        return Attempt(
            step,
            point=new,
            interpolate=lambda fraction, out: self._interpolate(flow, point, step, fraction, out),
        )

    def _interpolate(
        self, flow: Flow, point: Point, step: float, fraction: float, out: State
    ) -> np.ndarray:
        stages = self.tableau.stages
        if not self._extra_known:
            for extra, row in enumerate(self.tableau.extra_a):
                weights = np.ascontiguousarray(row[: stages + extra])
                residual = flow.combine(point.theta, self._slopes, weights, step, self._work)
                flow.rate(self._work, residual, self._slopes[stages + extra])
            self._extra_known = True
        weights = self.tableau.dense_weights(fraction)
        return flow.combine(point.theta, self._slopes, weights, step, out)
