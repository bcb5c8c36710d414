"""Steps along a gradient that the tangent kernel has filtered: one or two passes, however stiff.

With z = h H K/n, a step is theta - h M Phi F(z) g/n for the gradient g = n dR/df: all that is
implicit, or exponential, in the weights is a function F of an n x n matrix (see
`flowsim.steppers.kernel_solver`). Methods differ in F and in where Phi and K are taken: those of
order 1 at the point, those of order 2 half way along a step with the last K, where Phi says to
second order how f is to change.

If f were linear in the weights, e would become e - h (K/n) F(z) g. How far the new residual is from
that, beyond an atol that covers rounding, says how good the step is; a cap on the relative change
of each layer, as in `flowsim.steppers.kernel_bounded`, holds it where K is tiny and says nothing.
No such error makes a step shorter than kernel-bounded Euler's, which needs none: a kink of ReLU
would else be crept up to, and never passed. Neurons that slide along a kink hop across it, and R
rises and falls with them: a step is taken back only if R exceeds all its last values (Grippo,
Lampariello & Lucidi, SIAM J. Numer. Anal. 23 (1986) 707). Where even a tiny step does, the run has
come to rest.

A K that is off by a share leaves that share of the fast components of e, and the distance tells:
with a single stage it can do no more harm. So K serves as many steps as it has proved good for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Kernel, Point, State, Stepper
from flowsim.steppers.controller import PIDController
from flowsim.steppers.error_controlled import root_mean_square
from flowsim.steppers.kernel_solver import KernelSolver

_ONE = np.array([1.0])
_FOR_EVER = 1e100
"""A step that is long enough, and whose square is a number."""


class KernelFiltered(Stepper):
    """Step control by the layers' relative change and by the distance from the prediction.

    Parameters
    ----------
    max_relative_change : float
        Bound on |change of theta_l| / |theta_l| in a step, for every layer l.
    max_distance : float
        Bound on the root mean square of e minus what was predicted, relative to the size of e.
    step_fraction : float
        c of the step c / lambda_max(H K/n), with the same cap, that no distance shortens.
    atol : float
        What every distance may be besides; residuals below it may also rise: they are rounding.

    Attributes
    ----------
    first : float
        Step to begin with, if it is longer than kernel-bounded Euler's.
    kernel : Kernel
        The last K.

    See Also
    --------
    from_rtol : the values that an accuracy asks for.
    """

    order: ClassVar[int]
    """1 or 2: with Phi at the point, or half way."""
    change_at_1e3: ClassVar[float]
    """Cap on the relative change of a step at rtol = 1e-3."""
    distance_at_1e3: ClassVar[float]
    """Bound on the distance at rtol = 1e-3."""
    fraction_at_1e3: ClassVar[float] = 0.5
    """c at rtol = 1e-3."""
    MAX_LIFE = 20.0
    """Steps after which K is refreshed at the latest."""
    LONGER = 1.1
    """Factor by which K lives longer after a life in which no step failed for its age."""
    MEMORY = 10
    """Points of which the highest R is not to be exceeded."""
    AT_REST = 2.0**-20
    """Share of an explicit step that raises the loss only at a stationary point: on a smooth
    stretch every step below the stability bound lowers it."""

    first = 0.0

    def __init__(
        self,
        max_relative_change: float,
        max_distance: float,
        step_fraction: float = 0.5,
        atol: float = 0.0,
    ) -> None:
        self.max_relative_change = max_relative_change
        self.max_distance = max_distance
        self.step_fraction = step_fraction
        self.atol = atol

    @classmethod
    def from_rtol(
        cls,
        rtol: float,
        step_fraction: float | None = None,
        max_relative_change: float | None = None,
        atol: float = 0.0,
    ) -> KernelFiltered:
        """Choose the bounds by rtol, in the place of an error estimate.

        At rtol = 1e-3 RD was measured to within 1e-2 on stiff ReLU problems for gamma <= 1 (32
        samples), and where a handful of steps do (4 samples, gamma = 0.6) to within 2e-2 with
        order 2 and 4e-2 with order 1. For smaller rtol the step is to shrink with
        rtol^(1/order), and with it the cap, c, and the distance, which is of one order more in
        it. For larger rtol they stay. Given values override.
        """
        factor = min(1.0, rtol / 1e-3) ** (1.0 / cls.order)
        return cls(
            max_relative_change or cls.change_at_1e3 * factor,
            cls.distance_at_1e3 * factor ** (cls.order + 1),
            step_fraction or cls.fraction_at_1e3 * factor,
            atol,
        )

    @property
    def states(self) -> int:  # type: ignore[override] # follows from the order
        """See `Stepper`."""
        return 2 + self.order

    def refined(self) -> KernelFiltered:
        smaller = 0.5 ** (self.order + 1)
        return type(self)(
            0.5 * self.max_relative_change,
            smaller * self.max_distance,
            0.5 * self.step_fraction,
            smaller * self.atol,
        )

    @abstractmethod
    def _filter(self, z: np.ndarray) -> np.ndarray:
        """F(z) (n o,) for eigenvalues z >= 0 of h H K/n."""

    def start(self, flow: Flow, point: Point) -> None:
        self._allocate(flow)
        self._controller = PIDController(self.order + 1)
        self._life, self._shrink, self.step = 2.0, 1.0, self.first
        self._losses = np.array([point.loss])
        self.kernel: Kernel = flow.tangent_kernel(point.theta)
        self._sizes, self._age = flow.layer_norms(point.theta), 0

    def _allocate(self, flow: Flow) -> None:
        self._new, self._dense = flow.empty(), flow.empty()
        self._middle = flow.empty() if self.order == 2 else None
        self._solver: KernelSolver | None = None

    def memory(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "shrink": self._shrink,
            "age": self._age,
            "life": self._life,
            "losses": self._losses,
            "sizes": self._sizes,
            "grams": self.kernel.grams,
            **self._controller.memory(),
        }

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._allocate(flow)
        rest = dict(memory)
        self.step, self._shrink = rest.pop("step"), rest.pop("shrink")
        self._age, self._life = rest.pop("age"), rest.pop("life")
        self._sizes, self._losses = rest.pop("sizes"), rest.pop("losses")
        self.kernel = flow.make_kernel(rest.pop("grams"))
        self._controller = PIDController(self.order + 1, **rest)

    def _relative(self, push: np.ndarray) -> float:
        """Largest |M Phi g/n| / |theta_l| of a layer l; one that is zero has no bound."""
        layers = self.kernel.layer_speeds(push)
        moving = self._sizes > 0.0
        return float(np.max(layers[moving] / self._sizes[moving], initial=0.0))

    def _explicit_step(self, solver: KernelSolver, gradient: np.ndarray) -> float:
        """Kernel-bounded Euler's; infinity if nothing moves."""
        by_kernel = float(solver.eigenvalues[-1]) / self.step_fraction
        rate = max(by_kernel, self._relative(gradient) / self.max_relative_change)
        return 1.0 / rate if rate > 0.0 else np.inf

    def _push(self, solver: KernelSolver, gradient: np.ndarray, step: float) -> np.ndarray:
        """F(z) g."""
        return solver.filtered(lambda rates: self._filter(step * rates), gradient)

    def _capped(self, solver: KernelSolver, gradient: np.ndarray, step: float) -> float:
        """The step; if it changes a layer by more than the cap, one that does so by nearly that."""
        cap = self.max_relative_change

        def change(step: float) -> float:
            return step * self._relative(self._push(solver, gradient, step))

        whole = change(step)
        if not whole > cap:
            return step
        # Filtered or not, a short step is the same. What is left of e may be all rounding.
        low, high = min(step, cap / max(self._relative(gradient), whole / step)), step
        while low < 0.95 * high:
            step = float(np.sqrt(low * high))
            low, high = (step, high) if change(step) <= cap else (low, step)
        return low

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        gradient = flow.gradient(point.residual)
        try:
            solver = self._solver or self._solver_of(flow, point, self.kernel)
            shortest = self._shrink * self._explicit_step(solver, gradient)
            if not np.isfinite(shortest):
                # Nothing moves (all rates are zero): any step is exact.
                shortest = max(1.0, point.time)
            planned = self._capped(solver, gradient, max(self.step, shortest))
            step = min(planned, limit)
            phi_at = self._half_way(flow, point, self._push(solver, gradient, step), step)
            if self._age >= int(self._life):
                solver = self._refresh(flow, point, phi_at)
                if step == planned:  # else t_max has cut it short, and is to be seen to
                    planned = step = self._capped(solver, gradient, step)
        except np.linalg.LinAlgError:
            return self._reject(min(self.step, limit), np.inf, "non-finite")
        push = self._push(solver, gradient, step)
        residual = flow.push(phi_at, push, point.theta, None, _ONE, step, self._new)
        new = Point.of(flow, point.time + step, self._new, residual)
        if not new.finite:
            return self._reject(step, np.inf, "non-finite")
        error = self._error(flow, point, residual - solver.change(push, step))
        explicit = step <= 1.01 * shortest
        if not (new.loss <= np.max(self._losses) or root_mean_square(residual) <= self.atol):
            return self._reject(step, max(error, 4.0), "loss", explicit)
        if error > 1.0 and not explicit:
            return self._reject(step, error, "error")
        self._accept(step, planned, error)
        self._losses = np.append(self._losses, new.loss)[-self.MEMORY :]
        self._new = point.theta
        if solver.curvature is not None:
            self._solver = None  # H is that of the next point

        def interpolate(fraction: float) -> tuple[State, np.ndarray]:
            # A shorter step with the same Phi and K.
            time, out = fraction * step, self._dense
            push = self._push(solver, gradient, time)
            return out, flow.push(phi_at, push, point.theta, None, _ONE, time, out)

        return Attempt(step, point=new, interpolate=interpolate)

    def _solver_of(self, flow: Flow, point: Point, kernel: Kernel) -> KernelSolver:
        self._solver = KernelSolver(kernel.matrix, flow.n_samples, flow.curvature(point.residual))
        return self._solver

    def _half_way(self, flow: Flow, point: Point, push: np.ndarray, step: float) -> State:
        """Where Phi and K are taken: the middle of a step with the K at hand, or the point."""
        if self._middle is None:
            return point.theta
        flow.push(point.theta, push, point.theta, None, _ONE, 0.5 * step, self._middle)
        return self._middle

    def _refresh(self, flow: Flow, point: Point, theta: State) -> KernelSolver:
        """Take K at theta, if it is finite."""
        kernel = flow.tangent_kernel(theta)
        solver = self._solver_of(flow, point, kernel)
        self.kernel, self._sizes = kernel, flow.layer_norms(point.theta)
        self._life = min(self.LONGER * self._life, self.MAX_LIFE)
        self._age = 0
        return solver

    def _error(self, flow: Flow, point: Point, unmoved: np.ndarray) -> float:
        """Distance in units of its bound, for the new e without its predicted change."""
        missed = root_mean_square(unmoved - point.residual)
        bound = self.max_distance * flow.residual_size(point.residual) + self.atol
        return missed / bound if bound > 0.0 else 0.0

    def _accept(self, step: float, planned: float, error: float) -> None:
        factor = self._controller.accepted(error)
        if self._shrink < 1.0:  # the loss has just refused longer ones
            factor = min(factor, 1.5)
            self._shrink = min(1.0, 1.5 * self._shrink)
        # A step cut short by the limit says nothing against the step that was planned.
        self.step = min(max(step * factor, planned if step < planned else 0.0), _FOR_EVER)
        self._age += 1

    def _reject(self, step: float, error: float, rejection: str, explicit: bool = False) -> Attempt:
        """Try again with a new K, or with a shorter step if it is new."""
        if self._age and rejection != "non-finite":
            self._life = max(0.5 * self._life / self.LONGER, 1.0)
            self._age, self.step = int(self.MAX_LIFE), step
            return Attempt(step, rejection=rejection)
        self.step = step * self._controller.rejected(error)
        if self._middle is not None:
            self._age = 1  # half way is elsewhere now
        if explicit or rejection == "non-finite":
            self._shrink *= 0.5
        at_rest = rejection == "loss" and self._shrink < self.AT_REST
        return Attempt(step, rejection="at rest" if at_rest else rejection)
