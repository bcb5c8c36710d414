"""Explicit Runge-Kutta steps, and the adaptive embedded pairs made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Point, State
from flowsim.steppers.controller import first_step
from flowsim.steppers.error_controlled import ErrorControlled
from flowsim.steppers.tableau import ButcherTableau


def take_stages(
    flow: Flow,
    tableau: ButcherTableau,
    point: Point,
    step: float,
    slopes: State,
    out: State,
    first_slope_known: bool = False,
    error: tuple[np.ndarray, State] | None = None,
) -> np.ndarray:
    """Take one step of an explicit method, each stage one fused pass.

    Parameters
    ----------
    flow, tableau, point
    step : float
    slopes : stack of states
        Receives the rates of the stages.
    out : state
        Receives the new state. The stages on the way are stored nowhere: a pass that reads the
        slopes makes them again.
    first_slope_known : bool
        ``slopes[0]`` is the rate at ``point`` already.
    error : (weights, state), optional
        Of a flow that `begins_errors`: receives step times this sum of the slopes known before the
        new state's own. The last of these is then kept nowhere: nothing but a dense output reads
        it again.

    Returns
    -------
    (n,) array
        The residual at the new state. For a first-same-as-last tableau ``slopes[-1]`` is its
        rate there.
    """
    # A first-same-as-last tableau's last stage is the new state itself.
    explicit = tableau.stages - 1 if tableau.fsal else tableau.stages
    rows = [*tableau.a[1:explicit], tableau.b]
    base, residual = point.theta, point.residual
    for stage in range(explicit):
        weights = np.ascontiguousarray(rows[stage][: stage + 1])
        last = stage == explicit - 1
        target, begun = (out, error) if last else (None, None)
        kept = None if last and error is not None else slopes[stage]
        if stage == 0 and first_slope_known:
            residual = flow.combine(base, slopes, weights, step, target)
        elif stage == 0:
            residual = flow.advance(
                base, residual, base, slopes, weights, step, target, kept, error=begun
            )
        else:
            here = np.ascontiguousarray(tableau.a[stage, :stage])
            residual = flow.advance(
                None, residual, base, slopes, weights, step, target, kept, here, begun
            )
    return residual


class EmbeddedPair(ErrorControlled):
    """An adaptive explicit Runge-Kutta method that keeps the rates of all its stages.

    With two embedded solutions (DOP853) the errors e5, e3 are merged as Hairer's
    e5^2 / sqrt(e5^2 + 0.01 e3^2).

    Parameters
    ----------
    tableau : ButcherTableau
        First same as last, with at least one embedded solution and a continuous extension.
    rtol, atol, first
        See `ErrorControlled`.
    """

    name: ClassVar[str] = "embedded pair"
    tableau: ButcherTableau

    def __init__(
        self, tableau: ButcherTableau, rtol: float, atol: float, first: float | None = None
    ) -> None:
        super().__init__(tableau, rtol, atol, first)
        self._n_slopes = tableau.stages + len(tableau.extra_a)
        # The point, the new state, and one for all that lies beside the way.
        self.states = 3 + self._n_slopes

    def refined(self) -> EmbeddedPair:
        return EmbeddedPair(self.tableau, 0.1 * self.rtol, 0.1 * self.atol, self.first)

    def _allocate(self, flow: Flow, point: Point) -> None:
        self._flow = flow
        # Slopes that are made again, and read by nothing but a dense output.
        self._retraced = self.tableau.fsal and self.tableau.stages <= flow.most_retraced
        self._slopes = flow.empty(self._n_slopes)
        self._work = flow.empty()
        flow.rate(point.theta, point.residual, self._slopes[0])
        self._moved = False

    def memory(self) -> dict[str, Any]:
        known = self._slopes[self.tableau.stages - 1 if self._moved else 0]
        packed = self._flow.pack(known)
        return super().memory() | ({} if packed is None else {"rate": packed})

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        rest = dict(memory)
        packed = rest.pop("rate", None)
        super().resume(flow, point, rest)
        if packed is not None:
            flow.unpack(packed, point.theta, self._slopes[0])

    def _first_step(self, flow: Flow, point: Point) -> float:
        return first_step(
            flow, point, self._slopes, self.tableau.order, self._scaled_norm, self._work, np.inf
        )

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        if self._moved and not self._retraced:
            # The rate at the new state is that of the step just taken.
            last = self.tableau.stages - 1
            if flow.turns and last == self._n_slopes - 1:
                self._slopes = self._slopes[::-1]
            else:
                self._slopes[0][...] = self._slopes[last]
        attempt = super().attempt(flow, point, limit)
        self._moved = attempt.point is not None
        return attempt

    def _begins_error(self, flow: Flow) -> bool:
        """Whether the last stage, which reads all slopes, sums up the error of these too."""
        return flow.begins_errors and len(self.tableau.embedded) == 1

    def _take(self, flow: Flow, point: Point, step: float) -> np.ndarray:
        if self._retraced:
            return self._retrace(flow, point, step)
        error = None
        if self._begins_error(flow):
            error = np.ascontiguousarray(self.tableau.error_weights[0][:-1]), self._work
        return take_stages(flow, self.tableau, point, step, self._slopes, self._new, True, error)

    def _retrace(self, flow: Flow, point: Point, step: float) -> np.ndarray:
        """Take the step without a slope in memory: each pass makes those before it again."""
        last, residual = self.tableau.stages - 1, point.residual
        self._gradients = np.empty((last + 1, *residual.shape))
        for stage in range(last):
            self._gradients[stage] = flow.gradient(residual)
            known = stage + 1
            rows = np.ascontiguousarray(self.tableau.a[1 : known + 1, :known])
            out = self._new if known == last else None
            residual = flow.retrace(point.theta, self._gradients[:known], rows, step, out)
        return residual

    def _errors(
        self, flow: Flow, point: Point, residual: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rate at the new state, and what `Flow.rate_and_errors` returns."""
        weights, last = self.tableau.error_weights, self.tableau.stages - 1
        if self._retraced:
            self._gradients[last] = flow.gradient(residual)
            rows = np.ascontiguousarray(self.tableau.a[1:, :last])
            return flow.retrace_errors(point.theta, self._gradients, rows, np.array(weights), step)
        if not self._begins_error(flow):
            slopes = self._slopes[: last + 1]
            return flow.rate_and_errors(self._new, residual, slopes, np.array(weights), step)
        other, norms = flow.end_error(
            self._new, residual, self._slopes[last], weights[0][last], step, self._work
        )
        return other[None], norms

    def _error(self, flow: Flow, point: Point, residual: np.ndarray, step: float) -> float:
        others, norms = self._errors(flow, point, residual, step)
        *layers, self._new_sizes = norms
        errors = [
            self._scaled_norm(norm, residual - other)
            for norm, other in zip(layers, others, strict=True)
        ]
        if len(errors) == 1 or errors[0] == 0.0:
            return errors[0]
        return errors[0] ** 2 / float(np.hypot(errors[0], 0.1 * errors[1]))

    def _layer_sizes(self, flow: Flow, point: Point) -> np.ndarray:
        return self._new_sizes  # came with the errors

    def _prepare_dense(self, flow: Flow, point: Point, new: Point, step: float) -> None:
        stages = self.tableau.stages
        if self._retraced:
            slopes, last = self._slopes, stages - 1
            residual = take_stages(flow, self.tableau, point, step, slopes, self._work)
            flow.rate(self._work, residual, slopes[last])
        elif self._begins_error(flow):
            # The one slope that the last stage has not kept.
            row = np.ascontiguousarray(self.tableau.a[stages - 2, : stages - 2])
            residual = flow.combine(point.theta, self._slopes, row, step, self._work)
            flow.rate(self._work, residual, self._slopes[stages - 2])
        for extra, row in enumerate(self.tableau.extra_a):
            weights = np.ascontiguousarray(row[: stages + extra])
            residual = flow.combine(point.theta, self._slopes, weights, step, self._work)
            flow.rate(self._work, residual, self._slopes[stages + extra])

    def _interpolate(
        self, flow: Flow, point: Point, new: Point, step: float, fraction: float
    ) -> tuple[State, np.ndarray]:
        weights = self.tableau.dense_weights(fraction)
        return self._work, flow.combine(point.theta, self._slopes, weights, step, self._work)
