"""Steps as long as the tangent kernel allows: the control that Euler and Heun share.

Late in training e decays with the rates of K/n, and an explicit step is stable up to 2 /
lambda_max(K/n), with a bound of the loss's Hessian by the outputs where that is not 1. Early, from
small weights, K is tiny and says nothing: there a cap on the relative change of each layer holds
the step. Both follow from n x n work on the layers' Gram matrices, which are refreshed when the
weights have moved by a share of the cap or after some steps. No error is estimated, so a kink of
ReLU costs nothing; it is what embedded pairs spend their steps on. A step that would raise the loss
is taken back and halved; where even a tiny one does, the run has come to rest, in a minimum or with
neurons pinned at kinks.

What an explicit step errs by goes with the weights' change in it. Late, where they hardly change
any more, only stability is left to bound it: there c may be larger, if one is given.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Kernel, Point, State, Stepper
from flowsim.steppers.tableau import ButcherTableau


class KernelBounded(Stepper):
    """Step control by lambda_max(K/n) and by the layers' relative change.

    Parameters
    ----------
    step_fraction : float
        c in h = c / lambda_max(K/n). Stable below 2, without overshoot below 1.
    max_relative_change : float
        Bound on h |d theta_l / dtau| / |theta_l| for every layer l.
    late_step_fraction : float, optional
        c where no layer changes by more than a tenth of that bound in a step; by default the same.

    See Also
    --------
    from_rtol : the values that an accuracy asks for.
    """

    states = 3
    order: ClassVar[int]
    tableau: ClassVar[ButcherTableau]
    """Of the method without its control, with a continuous extension."""
    fraction_at_1e3: ClassVar[float]
    """c at rtol = 1e-3."""
    change_at_1e3: ClassVar[float]
    """Cap on the relative change of a step at rtol = 1e-3."""
    MAX_AGE = 20
    """Steps after which K is refreshed even if the weights have hardly moved."""
    FLATTEST = 1e-3
    """Of the largest bound of a sample's Hessian, what a flatter one counts as."""
    MAX_STEEPENING = 2.0
    """Growth of the bound of any sample's Hessian after which K is refreshed."""
    MAX_DRIFT = 0.5
    """Weights' movement, in units of the cap, after which K is refreshed."""
    LATE = 0.1
    """Relative change of a step, in units of the cap, up to which it counts as late."""
    AT_REST = 2.0**-20
    """Share of the allowed step that raises the loss only at a stationary point: on a smooth
    stretch every step below the stability bound lowers it."""

    def __init__(
        self,
        step_fraction: float,
        max_relative_change: float,
        late_step_fraction: float | None = None,
    ) -> None:
        self.step_fraction = step_fraction
        self.max_relative_change = max_relative_change
        self.late_step_fraction = max(step_fraction, late_step_fraction or 0.0)

    @classmethod
    def from_rtol(
        cls,
        rtol: float,
        step_fraction: float | None = None,
        max_relative_change: float | None = None,
        late_step_fraction: float | None = None,
    ) -> KernelBounded:
        """Choose c and the cap by rtol, in the place of an error estimate.

        At rtol = 1e-3 Heun's RD was measured to within 1.1e-3 in all regimes, Euler's to within
        1.1e-3 for gamma <= 1 and 2.5e-2 in the condensed regime (``python -m benchmarks
        work_precision``). For smaller rtol both values scale with rtol^(1/order); with ReLU the
        error then falls more slowly than rtol, as kinks leave no method its order. For larger
        rtol they stay: stability bounds c, the fate of single neurons the cap. Given values
        override.
        """
        factor = min(1.0, rtol / 1e-3) ** (1.0 / cls.order)
        return cls(
            step_fraction or cls.fraction_at_1e3 * factor,
            max_relative_change or cls.change_at_1e3 * factor,
            late_step_fraction,
        )

    def refined(self) -> KernelBounded:
        return type(self)(
            0.5 * self.step_fraction,
            0.5 * self.max_relative_change,
            0.5 * self.late_step_fraction,
        )

    def start(self, flow: Flow, point: Point) -> None:
        self._allocate(flow)
        self._shrink = 1.0
        self._refresh(flow, point)

    def _allocate(self, flow: Flow) -> None:
        self._new, self._dense = flow.empty(), flow.empty()

    def memory(self) -> dict[str, Any]:
        return {
            "shrink": self._shrink,
            "age": self._age,
            "drift": self._drift,
            "sizes": self._sizes,
            "grams": self._kernel.grams,
            **({} if self._curvature is None else {"curvature": self._curvature}),
        }

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._allocate(flow)
        self._shrink, self._age = memory["shrink"], memory["age"]
        self._drift, self._sizes = memory["drift"], memory["sizes"]
        self._kernel: Kernel = flow.make_kernel(memory["grams"])
        self._curvature = memory.get("curvature")
        self._rate = self._kernel.rate_bound(self._curvature)

    def _refresh(self, flow: Flow, point: Point) -> None:
        self._kernel = flow.tangent_kernel(point.theta)
        self._curvature = flow.curvature(point.residual)
        if self._curvature is not None:
            # Also of what is flat here and now, so that its growth can be told.
            floor = self.FLATTEST * float(np.max(self._curvature))
            self._curvature = np.maximum(self._curvature, floor)
        self._rate = self._kernel.rate_bound(self._curvature)
        self._sizes = flow.layer_norms(point.theta)
        self._age = 0
        self._drift = 0.0

    def _largest_step(self, flow: Flow, point: Point) -> float:
        """The longest step both bounds allow at ``point``; infinity if neither holds."""
        rate = self._rate * self._steepening(flow, point)
        by_kernel = self.step_fraction / rate if rate > 0.0 else np.inf
        change = self._relative_speed(flow, point)
        by_change = self.max_relative_change / change if change > 0.0 else np.inf
        late = self.late_step_fraction / rate if rate > 0.0 else np.inf
        return min(max(by_kernel, min(late, self.LATE * by_change)), by_change)

    def _steepening(self, flow: Flow, point: Point) -> float:
        """Largest growth of the bound of a sample's Hessian since K was refreshed."""
        if self._curvature is None or not self._rate > 0.0:
            return 1.0
        curvature = flow.curvature(point.residual)
        assert curvature is not None  # a flow has one always, or never
        return float(np.max(curvature / self._curvature))

    def _relative_speed(self, flow: Flow, point: Point) -> float:
        """Largest |d theta_l / dtau| / |theta_l|; a layer that is zero altogether has no bound."""
        speeds = self._kernel.layer_speeds(flow.gradient(point.residual))
        moving = self._sizes > 0.0
        return float(np.max(speeds[moving] / self._sizes[moving], initial=0.0))

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        old = self._age >= self.MAX_AGE or self._drift > self.MAX_DRIFT * self.max_relative_change
        if old or (self._age and self._steepening(flow, point) > self.MAX_STEEPENING):
            self._refresh(flow, point)
        step = min(self._shrink * self._largest_step(flow, point), limit)
        if not np.isfinite(step):
            # Nothing moves (all rates are zero): any step is exact.
            step = max(1.0, point.time)
        residual = self._take(flow, point, step, self._new)
        new = Point.of(flow, point.time + step, self._new, residual)
        if not (new.finite and new.loss <= point.loss):
            if self._age:
                self._refresh(flow, point)
            else:
                self._shrink *= 0.5
            if not new.finite:
                return Attempt(step, rejection="non-finite")
            return Attempt(step, rejection="loss" if self._shrink > self.AT_REST else "at rest")
        self._drift += step * self._relative_speed(flow, point)
        self._age += 1
        self._shrink = min(1.0, 1.5 * self._shrink)
        self._new = point.theta

        def interpolate(fraction: float) -> tuple[State, np.ndarray]:
            return self._dense, self._interpolate(flow, point, step, fraction, self._dense)

        return Attempt(step, point=new, interpolate=interpolate)

    @abstractmethod
    def _take(self, flow: Flow, point: Point, step: float, out: State) -> np.ndarray:
        """Take the step into ``out``; return e there."""

    @abstractmethod
    def _interpolate(
        self, flow: Flow, point: Point, step: float, fraction: float, out: State
    ) -> np.ndarray:
        """Write the state at ``fraction`` of the step into ``out``; return e there."""
