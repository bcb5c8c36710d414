"""Choice of the step size from error estimates, and of the very first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowsim.steppers.base import Flow, Point, State


@dataclass
class PIDController:
    """Step-size control with memory.

    The factor of the next step is

        safety err_n^(-p/k) err_(n-1)^(+i/k) err_(n-2)^(-d/k),

    clipped, where err is the error relative to the tolerance and k the exponent of the step size
    in it. The sign convention and the names follow Hairer & Wanner II, IV.2; written with
    beta = (p, -i, d)/k it is Soderlind's digital filter. Rivals, with the attempts (of them
    rejected) that Tsitouras' pair took over nine flows (``python -m benchmarks controllers``):
    the textbook's (1, 0, 0), 1,685 (273): late in training, where stability limits the step, every
    fifth attempt fails; Gustafsson's (0.7, 0.4, 0), 1,500 (8), over-cautious; and in between the
    one chosen, (0.85, 0.2, 0), 1,456 (27).

    Parameters
    ----------
    exponent : int
        k.
    p, i, d : float
    safety, smallest, largest : float
        The factor stays within [smallest, largest].
    """

    exponent: int
    p: float = 0.85
    i: float = 0.2
    d: float = 0.0
    safety: float = 0.9
    smallest: float = 0.2
    largest: float = 10.0
    last: float = 1.0
    last_but_one: float = 1.0
    after_rejection: bool = False

    _FLOOR = 1e-10
    """Keeps the memory finite where the error happens to vanish."""

    def accepted(self, error: float) -> float:
        """Factor of the next step after an accepted one."""
        error = max(error, self._FLOOR)
        factor = (
            self.safety
            * error ** (-self.p / self.exponent)
            * self.last ** (self.i / self.exponent)
            * self.last_but_one ** (-self.d / self.exponent)
        )
        self.last_but_one, self.last = self.last, error
        # After a rejection the memory describes another step size: do not grow on its word.
        largest = 1.0 if self.after_rejection else self.largest
        self.after_rejection = False
        return min(max(factor, self.smallest), largest)

    def memory(self) -> dict[str, Any]:
        """What a controller that continues in the place of this one must be made with."""
        return {
            "last": self.last,
            "last_but_one": self.last_but_one,
            "after_rejection": self.after_rejection,
        }

    def rejected(self, error: float) -> float:
        """Factor of the next try after a rejected one. A non-finite error cuts the most."""
        self.after_rejection = True
        if not np.isfinite(error):
            return self.smallest
        factor = self.safety * error ** (-1.0 / self.exponent)
        return min(max(factor, self.smallest), 0.9)


def first_step(
    flow: Flow,
    point: Point,
    slopes: State,
    order: int,
    scaled_norm: Callable[[np.ndarray, np.ndarray], float],
    scratch: State,
    limit: float,
) -> float:
    """Step to begin with (Hairer, Norsett & Wanner I, II.4), from one trial Euler step.

    Parameters
    ----------
    flow, point
    slopes : stack of states
        ``slopes[0]`` is d theta / dtau at ``point``; ``slopes[1]`` is overwritten.
    order : int
        Of the method.
    scaled_norm : callable
        ``scaled_norm(layer_norms, residual_change)``, both relative to the tolerance.
    scratch : state
        Overwritten.
    limit : float
        Upper bound.
    """
    still = np.zeros_like(point.residual)
    size = scaled_norm(flow.layer_norms(point.theta), still)
    speed = scaled_norm(flow.combination_norms(slopes, np.array([1.0]), 1.0), still)
    if not np.isfinite(speed) or speed == 0.0:
        return min(1e-3, limit)
    trial = min(0.01 * size / speed, limit)
    # A kernel with large eigenvalues makes the residual swing far before the weights move much.
    for _ in range(40):
        residual = flow.combine(point.theta, slopes, np.array([1.0]), trial, scratch)
        if np.isfinite(residual).all() and flow.loss(residual) < 4.0 * point.loss:
            break
        trial *= 0.25
    flow.rate(scratch, residual, slopes[1])
    no_layer = np.zeros_like(flow.layer_norms(point.theta))
    speed = max(speed, scaled_norm(no_layer, (residual - point.residual) / trial))
    turn = flow.combination_norms(slopes, np.array([-1.0, 1.0]), 1.0)
    bend = scaled_norm(turn, still) / trial
    step = (0.01 / max(speed, bend, 1e-300)) ** (1.0 / (order + 1))
    return float(min(100.0 * trial, step, limit))
