"""The stages of a Rosenbrock-W method, for the two Jacobians that a flow can give.

Both keep what the tableau calls k_i in another basis, from which any sum_i w_i k_i can be had.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from flowsim.steppers.base import Flow, NeuronBlocks, Point, State
from flowsim.steppers.kernel_solver import KernelSolver
from flowsim.steppers.rosenbrock_tableau import RosenbrockTableau


class Stages(ABC):
    """Stages of the step that was taken last.

    Parameters
    ----------
    tableau : RosenbrockTableau
    flow : Flow

    Attributes
    ----------
    slopes : stack of slopes
        As many as stages.
    """

    def __init__(self, tableau: RosenbrockTableau, flow: Flow) -> None:
        self.tableau, self.flow = tableau, flow
        self.slopes = flow.empty(tableau.stages)

    @abstractmethod
    def take(self, point: Point, step: float, work: State, new: State) -> np.ndarray:
        """Take a step into ``new``; the states of its stages come and go in ``work``.

        Returns e at the new state.

        Raises
        ------
        numpy.linalg.LinAlgError
            If a matrix cannot be factorised.
        """

    @abstractmethod
    def combined(self, point: Point, weights: np.ndarray, step: float, out: State) -> np.ndarray:
        """Write u + step sum_i weights[i] k_i into ``out``; return e there. One pass."""

    @abstractmethod
    def error(self, point: Point, step: float) -> tuple[np.ndarray, np.ndarray]:
        """Norms of the layers of the step's estimated error, and its effect Phi^T on e."""


class GaussNewtonStages(Stages):
    """J = -M Phi H Phi^T / n, for any network.

    With r_ij = gamma_ij / gamma and the rates f_i at the stages' states, Woodbury's identity
    (`flowsim.steppers.kernel_solver`) makes of a stage

        k_i = f_i - M Phi c_i,    c_i = (h gamma/n) H y_i,
        (I + h gamma K H/n) y_i = Phi^T f_i + sum_(j<i) r_ij Phi^T k_j,
        Phi^T k_i = y_i - sum_(j<i) r_ij Phi^T k_j.

    So only the f_i and vectors of size n are kept: all M Phi c_j of a state are one product at the
    step's start, in the pass that combines it. The first stage, f_1 = -M Phi g/n, is of size n
    altogether; the others are three passes each, and the new state and the error one.

    K is always that of Phi. With another one (I - h gamma J)^(-1) would leave of the fast
    components the share by which it is off, and the next stage multiplies them with
    h lambda_max(K/n).
    """

    def __init__(self, tableau: RosenbrockTableau, flow: Flow) -> None:
        super().__init__(tableau, flow)
        self._left: Point | None = None
        self._ratios = [row[:i] / tableau.gamma for i, row in enumerate(tableau.gammas)]

    def take(self, point: Point, step: float, work: State, new: State) -> np.ndarray:
        tableau, flow = self.tableau, self.flow
        size = step * tableau.gamma
        if self._left is not point:  # else a shorter try from there
            self._solver = KernelSolver.at(flow, point)
            self._left = point
        self._solver.factorise(size)
        self._gradient = flow.gradient(point.residual)
        # Phi^T k_i and c_i of each stage.
        self._images = np.empty((tableau.stages, *point.residual.shape))
        self._filtered = np.empty_like(self._images)
        for i in range(tableau.stages):
            if i == 0:
                image = self._solver.change(self._gradient, 1.0)
            else:
                residual = self.combined(point, tableau.a[i, :i], step, work)
                flow.rate(work, residual, self.slopes[i - 1])
                image = flow.jvp(point.theta, self.slopes[i - 1])
            known = _summed(self._ratios[i], self._images[:i])
            y = self._solver.solve(image + known)
            self._images[i] = y - known
            self._filtered[i] = size / flow.n_samples * self._solver.times_hessian(y)
        return self.combined(point, tableau.b, step, new)

    def combined(self, point: Point, weights: np.ndarray, step: float, out: State) -> np.ndarray:
        others = np.append(weights[1:], 1.0)
        push, base = self._push(weights), point.theta
        return self.flow.push(base, push, base, self.slopes[: len(weights) - 1], others, step, out)

    def _push(self, weights: np.ndarray) -> np.ndarray:
        """The g for which -M Phi g/n is all of sum_i weights[i] k_i but the f_i kept."""
        filtered = _summed(weights, self._filtered[: len(weights)])
        return np.asarray(weights[0] * self._gradient + self.flow.n_samples * filtered)

    def error(self, point: Point, step: float) -> tuple[np.ndarray, np.ndarray]:
        weights = self.tableau.error_weights
        cotangent = self._push(weights) * (-1.0 / self.flow.n_samples)
        self.flow.vjp(point.theta, cotangent, self.slopes[self.tableau.stages - 1])
        layers = self.flow.combination_norms(self.slopes, np.append(weights[1:], 1.0), step)
        return layers, step * _summed(weights, self._images)


class NeuronBlockStages(Stages):
    """J = D - M Phi H Phi^T / n with D each neuron's own block: two layers, few inputs.

    For the square loss that is the flow's Jacobian, and a W-method gains the conditions that it
    has as a Rosenbrock method: D is what limits its steps otherwise, h |D| being of order 1.
    With A = I - h gamma D, solved neuron by neuron, Woodbury's identity makes of
    u_i = k_i + sum_(j<i) r_ij k_j

        u_i = w_i - A^(-1) M Phi (h gamma/n) H y_i,    w_i = A^(-1) (f_i + sum_(j<i) r_ij k_j),
        (I + (h gamma/n) Phi^T A^(-1) M Phi H) y_i = Phi^T w_i,    Phi^T u_i = y_i.

    The u_i are kept (Hairer & Wanner II, IV.7): k = R^(-1) u, R unit lower triangular, and
    sum_(j<i) r_ij k_j = sum_(j<i) (I - R^(-1))_ij u_j. A stage is two passes: one makes w_i, the
    other u_i of it and the state that follows, the next stage's or the new one. As
    f_1 = -M Phi g/n the first stage has no w. The blocks with their Gram matrix are one pass.
    """

    def __init__(self, tableau: RosenbrockTableau, flow: Flow, blocks: NeuronBlocks) -> None:
        super().__init__(tableau, flow)
        self._blocks = blocks
        # From weights of the k_i to those of the u_i.
        self._inverse = np.linalg.inv(tableau.gammas / tableau.gamma)
        self._mixing = np.eye(tableau.stages) - self._inverse
        self._rows = np.vstack([tableau.a[1:], tableau.b]) @ self._inverse
        self._error = self._of(tableau.error_weights)

    def take(self, point: Point, step: float, work: State, new: State) -> np.ndarray:
        blocks, theta, slopes = self._blocks, point.theta, self.slopes
        size, n = step * self.tableau.gamma, self.flow.n_samples
        rows, mixing, residual = self._rows, self._mixing, point.residual
        if blocks.takes_steps:  # all of the following at once
            residual, self._images = blocks.take(
                theta, residual, slopes, rows, mixing, size, step, work, new
            )
            return residual
        gradient, curvature = self.flow.gradient(residual), self.flow.curvature(residual)
        solver = KernelSolver(blocks.prepare(theta, gradient, size), n, curvature)
        solver.factorise(size)
        self._images = np.empty((len(rows), *residual.shape))  # Phi^T u_i
        for i, row in enumerate(rows):
            if i == 0:
                image = solver.change(gradient, 1.0)
            else:
                image = blocks.rate(theta, work, residual, slopes, mixing[i, :i])
            self._images[i] = y = solver.solve(image)
            push = size / n * solver.times_hessian(y) + (gradient / n if i == 0 else 0.0)
            at = new if i == len(rows) - 1 else work
            residual = blocks.advance(theta, push, slopes, row[: i + 1], step, at, fresh=i == 0)
        return residual

    def combined(self, point: Point, weights: np.ndarray, step: float, out: State) -> np.ndarray:
        return self.flow.combine(point.theta, self.slopes, self._of(weights), step, out)

    def _of(self, weights: np.ndarray) -> np.ndarray:
        """The weights of the u_i for weights of the first k_i."""
        k = len(weights)
        return weights @ self._inverse[:k, :k]

    def error(self, point: Point, step: float) -> tuple[np.ndarray, np.ndarray]:
        layers = self.flow.combination_norms(self.slopes, self._error, step)
        return layers, step * _summed(self._error, self._images)


def _summed(weights: np.ndarray, images: np.ndarray) -> np.ndarray:
    """sum_i weights[i] images[i], in the shape of one."""
    shape = images.shape[1:]
    return np.asarray(weights @ images.reshape(len(images), math.prod(shape))).reshape(shape)
