"""Windows in which every neuron passes its own kinks: ReLU networks as they are, without chatter.

What a solution means at a kink
-------------------------------
The right-hand side of a ReLU network jumps where a neuron's hyperplane w . x = 0 passes a sample.
Where both sides push the neuron through, it goes through. Where both push towards the kink the
neuron is *pinned*: it slides along, moved by that mixture of the two sides which keeps it there
(Filippov), until one side alone would hold it; with several kinks at once by the shortest vector
of all mixtures. Where both sides push away the solution is not unique, and a neuron that starts
there takes the inactive side. In the condensed and critical regimes pinning is the rule: the
hyperplanes of a large share of the neurons lock onto data points (Williams et al. 2019, arXiv
1906.07842), and a general method that meets the jumps step by step is thrown back and forth.

The method
----------
Over a window of time the neurons see each other through the n residuals alone. Given their path
e(x), every neuron is on its own, and is moved from kink to kink exactly (`flowsim.kernels.cpu`,
`crossings` and `boosts`); the sum over neurons gives a path back, and the two must agree. The path
is the polynomial through the nodes of Radau IIA collocation, on which the fixed point makes the
method L-stable, of order 2 s - 1 between kinks. It is found by simplified Newton iteration in
the space of residuals, with the tangent kernel of the free neurons,

    (1 + h A x K/n) dE = F(E) - E,

so that a window may be as long as the path is a polynomial, however stiff the flow: an iteration
is one pass over the neurons. K is taken at both ends of a window and extrapolated into the next.

The window is as long as the polynomial, carried back to its beginning, meets the residual that is
known there, relative to its size, the parts of it that the fast modes of K wipe out at once left
out. That is an error of order s; what is left of it in collective quantities is of order 2 s - 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from flowsim.kernels.kink_interface import CROSSED, FAILED, PINNED
from flowsim.steppers.base import Attempt, Flow, Point, State, Stepper
from flowsim.steppers.collocation import LinearWindow, RadauIIA
from flowsim.steppers.error_controlled import root_mean_square


class Kinks(Stepper):
    """Kinks passed neuron by neuron.

    Parameters
    ----------
    rtol : float
        Relative error of collective quantities, such as RD, that is aimed at.
    first_step : float, optional
        Length of the first window.
    """

    name: ClassVar[str] = "kinks"
    STAGES = 3
    DEFECT_AT_1E3 = 0.06
    """Bound of the path's relative error at its beginning for rtol = 1e-3; it goes with the root of
    rtol, for the error of what comes out goes with its square or better (``kinks`` of the
    benchmarks)."""
    AGREEMENT = 0.1
    """Of it that the path and what comes out of it may differ by at the nodes."""
    MOST_ITERATIONS = 8
    FILTER = 0.25
    """h K/n times this is what the error at the beginning is filtered by."""
    FIRST = 0.5
    """Times 1 / lambda_max(K/n): the first window."""
    GROWTH = 30.0
    """Bound of the logarithm by which weights may grow in a window: K is not foreseen further."""
    ROUNDINGS = 16.0
    """Of e, within which two residuals are one."""

    def __init__(self, rtol: float, first_step: float | None = None) -> None:
        self.rtol, self._first_step = rtol, first_step
        self._bound = self.DEFECT_AT_1E3 * math.sqrt(rtol / 1e-3)
        self._method = RadauIIA(self.STAGES)
        # The point's state, the end of a window, one for reading within it; and three patterns,
        # which take a byte a plane and neuron.
        self.states = 4

    def refined(self) -> Stepper:
        return Kinks(0.1 * self.rtol, self._first_step)

    def start(self, flow: Flow, point: Point) -> None:
        self._get_ready(flow, point, None)
        rate = float(np.linalg.eigvalsh(self._kernel)[-1])
        self._slope = np.zeros_like(self._kernel)
        self.step = self._first_step or (self.FIRST / rate if rate > 0.0 else max(1.0, point.time))
        self._tally = {"kink_crossings": 0, "newton_iterations": 0, "pinned_neurons": 0}

    def _get_ready(self, flow: Flow, point: Point, pattern: np.ndarray | None) -> None:
        """Start from a pattern, or where there is none yet from that of the weights."""
        self._kinks = flow.kinks()
        self._pattern = self._kinks.sides(point.theta) if pattern is None else pattern
        self._spare: np.ndarray | None = None
        self._new, self._dense = flow.empty(), flow.empty()
        self._kernel = self._kernel_at(flow, point.theta, self._pattern)

    def _kernel_at(self, flow: Flow, theta: State, pattern: np.ndarray) -> np.ndarray:
        """K/n."""
        return self._kinks.tangent_kernel(theta, pattern).matrix / flow.n_samples

    def memory(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "pattern": self._pattern,
            "slope": self._slope,
            "tally": dict(self._tally),
        }

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._get_ready(flow, point, np.asarray(memory["pattern"]))
        self.step, self._slope = memory["step"], np.asarray(memory["slope"])
        self._tally = dict(memory["tally"])

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        force = self._kinks.largest_force(point.residual)
        step = min(self.step, limit, self.GROWTH / force if force > 0.0 else math.inf)
        # What the memory holds of a pattern is not written to: each accepted one is a new array.
        if self._spare is None:
            self._spare = np.empty_like(self._pattern)
        size = flow.residual_size(point.residual)
        unsure = self.ROUNDINGS * flow.rounding(point.residual)
        wanted = self._bound * size
        try:
            window = LinearWindow(self._method, self._kernel, self._slope, step)
            path = window.solve(np.tile(point.residual, (self.STAGES, 1)))
        except np.linalg.LinAlgError:
            return self._reject(step, 0.5, "non-finite")
        last = math.inf
        for iterations in range(1, self.MOST_ITERATIONS + 1):
            coefficients = self._method.coefficients @ path
            found, counts = self._kinks.pass_window(
                point.theta, self._pattern, coefficients, step, self._method.nodes, self._new,
                self._spare,
            )  # fmt: skip
            if not np.isfinite(found).all():
                return self._reject(step, 0.25, "non-finite")
            if counts[FAILED]:
                return self._reject(step, 0.5, "error")
            missed = found - path
            apart = max(root_mean_square(row) for row in missed)
            error = self._defect(step, coefficients[0] - point.residual)
            if apart <= self.AGREEMENT * wanted + unsure:
                break
            hopeless = error > 2.0 * wanted + unsure and apart < 0.3 * error
            if hopeless or apart > 0.7 * last or iterations == self.MOST_ITERATIONS:
                ratio = error / wanted if wanted > 0.0 else 1.0
                return self._reject(step, self._factor(ratio) if hopeless else 0.5, "error")
            last = apart
            path = path + window.solve(missed)
        ratio = max(error - unsure, 0.0) / wanted if wanted > 0.0 else 0.0
        if ratio > 1.0:
            return self._reject(step, self._factor(ratio), "error")
        new = Point.of(flow, point.time + step, self._new, found[-1].copy())
        if not new.loss <= point.loss:
            still = root_mean_square(new.residual - point.residual) <= unsure
            return self._reject(step, 0.5, "at rest" if still else "loss")
        return self._accept(flow, point, new, step, coefficients, counts, ratio, iterations)

    def _defect(self, step: float, gap: np.ndarray) -> float:
        """Size of what the path misses at its beginning, for all that lasts."""
        n = len(gap)
        filtered = np.linalg.solve(np.eye(n) + self.FILTER * step * self._kernel, gap)
        return float(root_mean_square(filtered))

    def _factor(self, ratio: float) -> float:
        """What the next window is longer by, for an error over its bound."""
        return min(max(0.9 * max(ratio, 1e-3) ** (-1.0 / self.STAGES), 0.2), 3.0)

    def _reject(self, step: float, factor: float, rejection: str) -> Attempt:
        self.step = step * min(factor, 0.8)
        return Attempt(step, rejection=rejection)

    def _accept(
        self,
        flow: Flow,
        point: Point,
        new: Point,
        step: float,
        path: np.ndarray,
        counts: np.ndarray,
        ratio: float,
        iterations: int,
    ) -> Attempt:
        kinks, dense, before, spare = self._kinks, self._dense, self._pattern, self._spare
        assert spare is not None
        kernel = self._kernel_at(flow, new.theta, spare)
        self._slope = (kernel - self._kernel) / step
        self._kernel = kernel
        # Many iterations are dearer than a shorter window.
        factor = min(self._factor(ratio), {1: 3.0, 2: 3.0, 3: 1.5, 4: 1.0}.get(iterations, 0.8))
        self.step = max(step * factor, self.step if step < self.step else 0.0)
        self._pattern, self._spare, self._new = spare, None, point.theta
        self._tally["kink_crossings"] += int(counts[CROSSED] + counts[PINNED])
        self._tally["newton_iterations"] += iterations
        self._tally["pinned_neurons"] = int((spare == 0).any(axis=0).sum())

        def interpolate(fraction: float) -> tuple[State, np.ndarray]:
            inside = self._method.nodes[self._method.nodes < fraction]
            nodes = np.append(inside, fraction)
            room = np.empty_like(before)
            found, _ = kinks.pass_window(point.theta, before, path, step, nodes, dense, room)
            return dense, found[-1]

        return Attempt(step, point=new, interpolate=interpolate, tally=dict(self._tally))
