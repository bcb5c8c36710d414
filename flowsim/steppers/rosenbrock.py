"""Adaptive Rosenbrock-W methods: linear stability for one n x n factorisation a step.

The Jacobian is that of Gauss and Newton, J = -M Phi H Phi^T / n with Phi at the step's start: what
it leaves out, the weights' own curvature times e, is small where the flow is stiff, and a W-method
keeps its order with any matrix. With r_ij = gamma_ij / gamma and the rates f_i at the stages'
states, Woodbury's identity (`flowsim.steppers.kernel_solver`) makes of a stage

    k_i = f_i - M Phi c_i,    c_i = (h gamma/n) H y_i,
    (I + h gamma K H/n) y_i = Phi^T f_i + sum_(j<i) r_ij Phi^T k_j,
    Phi^T k_i = y_i - sum_(j<i) r_ij Phi^T k_j.

So only the f_i and vectors of size n are kept: all M Phi c_j of a state are one product at the
step's start, in the pass that combines it. The first stage, f_1 = -M Phi g/n, is of size n
altogether; the others are three passes each, and the new state and the error one.

K is always that of Phi. With another one (I - h gamma J)^(-1) would leave of the fast components
the share by which it is off, and the next stage multiplies them with h lambda_max(K/n).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from flowsim.steppers.base import Flow, Point, State
from flowsim.steppers.controller import first_step
from flowsim.steppers.error_controlled import ErrorControlled
from flowsim.steppers.kernel_solver import KernelSolver
from flowsim.steppers.rosenbrock_tableau import RosenbrockTableau


class RosenbrockW(ErrorControlled):
    """A linearly implicit method with the tangent kernel's Jacobian.

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
        # The point, the new state, a stage's, the rates but the first, and what the error adds.
        self.states = 3 + tableau.stages

    def refined(self) -> RosenbrockW:
        return RosenbrockW(self.tableau, 0.1 * self.rtol, 0.1 * self.atol, self.first)

    def _allocate(self, flow: Flow, point: Point) -> None:
        self._slopes = flow.empty(self.tableau.stages)
        self._work = flow.empty()
        self._left: Point | None = None

    def _first_step(self, flow: Flow, point: Point) -> float:
        flow.rate(point.theta, point.residual, self._slopes[0])
        order = self.tableau.order
        return first_step(flow, point, self._slopes, order, self._scaled_norm, self._work, np.inf)

    def _take(self, flow: Flow, point: Point, step: float) -> np.ndarray:
        tableau, s = self.tableau, self.tableau.stages
        size = step * tableau.gamma
        try:
            if self._left is not point:  # else a shorter try from there
                self._solver = KernelSolver.at(flow, point)
                self._left = point
            self._solver.factorise(size)
        except np.linalg.LinAlgError:
            return np.full_like(point.residual, np.nan)
        self._gradient = flow.gradient(point.residual)
        # Phi^T k_i and c_i of each stage.
        self._images = np.empty((s, *point.residual.shape))
        self._filtered = np.empty_like(self._images)
        for i in range(s):
            if i == 0:
                image = self._solver.change(self._gradient, 1.0)
            else:
                residual = self._combined(flow, point, step, tableau.a[i, :i], self._work)
                flow.rate(self._work, residual, self._slopes[i - 1])
                image = flow.jvp(point.theta, self._slopes[i - 1])
            ratios = tableau.gammas[i, :i] / tableau.gamma
            known = np.tensordot(ratios, self._images[:i], axes=1)
            y = self._solver.solve(image + known)
            self._images[i] = y - known
            self._filtered[i] = size / flow.n_samples * self._solver.times_hessian(y)
        return self._combined(flow, point, step, tableau.b, self._new)

    def _combined(
        self, flow: Flow, point: Point, step: float, weights: np.ndarray, out: State
    ) -> np.ndarray:
        """Write u + step sum_i weights[i] k_i into ``out``; return e there."""
        others = np.append(weights[1:], 1.0)
        push, base = self._push(flow, weights), point.theta
        return flow.push(base, push, base, self._slopes[: len(weights) - 1], others, step, out)

    def _push(self, flow: Flow, weights: np.ndarray) -> np.ndarray:
        """The g for which -M Phi g/n is all of sum_i weights[i] k_i but the f_i kept."""
        filtered = np.tensordot(weights, self._filtered[: len(weights)], axes=1)
        return np.asarray(weights[0] * self._gradient + flow.n_samples * filtered)

    def _error(self, flow: Flow, point: Point, residual: np.ndarray, step: float) -> float:
        weights, last = self.tableau.error_weights, self.tableau.stages - 1
        cotangent = self._push(flow, weights) * (-1.0 / flow.n_samples)
        flow.vjp(point.theta, cotangent, self._slopes[last])
        layers = flow.combination_norms(self._slopes, np.append(weights[1:], 1.0), step)
        return self._scaled_norm(layers, step * np.tensordot(weights, self._images, axes=1))

    def _prepare_dense(self, flow: Flow, point: Point, new: Point, step: float) -> None:
        """Nothing: the stages are all it needs."""

    def _interpolate(
        self, flow: Flow, point: Point, new: Point, step: float, fraction: float
    ) -> tuple[State, np.ndarray]:
        weights = self.tableau.dense_weights(fraction)
        return self._work, self._combined(flow, point, step, weights, self._work)
