"""Attempts that rival step-size controllers take with Tsitouras' pair over nine flows.

``python -m benchmarks controllers``
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.kernels.activations import ACTIVATIONS
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling
from flowsim.steppers.base import Point
from flowsim.steppers.controller import PIDController
from flowsim.steppers.driver import NoObserver, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.runge_kutta import EmbeddedPair
from flowsim.steppers.tableaux.tsit54 import TSIT54

CONTROLLERS = {
    "textbook": (1.0, 0.0, 0.0),
    "Gustafsson PI": (0.7, 0.4, 0.0),
    "PI 0.8, 0.3": (0.8, 0.3, 0.0),
    "PI 0.85, 0.2 (flowsim)": (0.85, 0.2, 0.0),
    "PI 0.6, 0.2": (0.6, 0.2, 0.0),
}
FLOWS = [
    (activation, gamma, stop_loss, rtol)
    for activation, gamma, stop_loss, tolerances in (
        ("tanh", 0.5, 1e-6, (1e-3, 1e-5)),
        ("tanh", 1.0, 1e-5, (1e-3, 1e-5)),
        ("gelu", 1.5, 1e-4, (1e-3, 1e-5)),
        ("tanh", 1.5, 1e-4, (1e-3, 1e-5)),
        ("relu", 0.7, 1e-4, (1e-3,)),
    )
    for rtol in tolerances
]


class _Pair(EmbeddedPair):
    """Tsitouras' pair with a controller of one's own."""

    def __init__(self, gains: tuple[float, float, float], rtol: float, atol: float) -> None:
        super().__init__(TSIT54, rtol, atol)
        self._gains = gains

    def start(self, flow: TwoLayerFlow, point: Point) -> None:
        super().start(flow, point)
        p, i, d = self._gains
        self._controller = PIDController(TSIT54.error_order, p=p, i=i, d=d)


def count(gains: tuple[float, float, float]) -> tuple[int, int]:
    """Attempts and rejected attempts over all flows."""
    x = np.array([-0.5, -1 / 6, 1 / 6, 0.5])
    inputs = np.column_stack([x, np.ones(4)])
    attempts = rejected = 0
    for activation, gamma, stop_loss, rtol in FLOWS:
        network = TwoLayerNetwork(Scaling(200, gamma, 0.0), ACTIVATIONS[activation], True)
        flow = TwoLayerFlow(network, inputs, x**2)
        stepper = _Pair(gains, rtol, rtol * math.sqrt(2 * stop_loss))
        rules = StopRules(stop_loss=stop_loss, max_steps=4000)
        counters = integrate(flow, stepper, rules, NoObserver()).counters
        attempts += counters.n_steps + counters.n_rejected
        rejected += counters.n_rejected
    return attempts, rejected


def main(quick: bool = False) -> None:
    """Print the table."""
    print(f"{'controller':<24} attempts  rejected")
    for name, gains in CONTROLLERS.items():
        attempts, rejected = count(gains)
        print(f"{name:<24} {attempts:>8}  {rejected:>8}")


if __name__ == "__main__":
    main()
