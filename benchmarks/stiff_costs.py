"""What a stage of the stabilised method costs against m and n, and what a bound of its rates."""

from __future__ import annotations

import statistics
import time

import numpy as np

from flowsim.kernels.activations import ACTIVATIONS
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling
from flowsim.steppers import rates
from flowsim.steppers.base import Point
from flowsim.steppers.stabilised import Stabilised
from flowsim.steppers.tableaux.rkc2 import extent_of

from .common import Table

WIDTHS = (1_000, 10_000, 100_000, 1_000_000)
SAMPLES = (4, 16, 64, 100, 256, 1_024, 2_000)
ROUNDS = 5
STAGES = 10
"""Of every step that is timed, whatever its error."""
FIRST_WIDTH = 10_000
"""From which on the exponent in m is taken: smaller networks run on one thread."""


def measure(width: int, n: int) -> tuple[float, float, float]:
    """Seconds of a step, a stage of it, and of a bound of the rates, at d = 2."""
    x = np.linspace(-1.0, 1.0, n)
    network = TwoLayerNetwork(Scaling(width, 1.0, 0.0, 1.0), ACTIVATIONS["tanh"])
    flow = TwoLayerFlow(network, np.column_stack([x, np.ones(n)]), np.sin(3.0 * x), threads=2)
    theta = flow.kernels.array(flow.initial)
    point = Point.of(flow, 0.0, theta, flow.residual(theta))
    stepper = Stabilised(rtol=1e6, atol=0.0)
    stepper.start(flow, point)
    steps, bounds = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        stepper._bound_rates(flow, point)
        bounds.append(time.perf_counter() - started)
        # The longest step that so many stages are stable for.
        stepper.step = 0.999 * extent_of(STAGES) / stepper._rate
        started = time.perf_counter()
        attempt = stepper.attempt(flow, point, np.inf)
        steps.append(time.perf_counter() - started)
        assert attempt.point is not None and stepper._used.stages == STAGES
        point = attempt.point
    step = statistics.median(steps)
    return step, step / STAGES, statistics.median(bounds)


def tables(quick: bool) -> list[Table]:
    """Against the width at n = 16, and against the samples at m = 10,000."""
    widths, samples = (WIDTHS[:2], SAMPLES[:3]) if quick else (WIDTHS, SAMPLES)
    by_width = Table(
        f"rkc2: a step of {STAGES} stages against m (tanh, n = 16, d = 2)",
        ["m", "ms a step", "ns a stage and neuron", "bound / stage"],
    )
    found = [(width, *measure(width, 16)) for width in widths]
    for width, step, stage, bound in found:
        each = f"{1e9 * stage / width:.1f}"
        by_width.rows.append([str(width), f"{1e3 * step:.3g}", each, f"{bound / stage:.2g}"])
    wide = np.array([line[:2] for line in found if line[0] >= FIRST_WIDTH])
    if len(wide) > 1:
        exponent = np.polyfit(np.log(wide[:, 0]), np.log(wide[:, 1]), 1)[0]
        by_width.note = f"A step grows like m^{exponent:.2f} from m = {FIRST_WIDTH} on."
    by_samples = Table(
        f"rkc2: a step of {STAGES} stages against n (tanh, m = 10,000, d = 2)",
        ["n", "ms a step", "ns a stage, neuron and sample", "bound by", "bound / stage"],
    )
    for n in samples:
        step, stage, bound = measure(10_000, n)
        way = "K" if n <= rates.MOST_ROWS else "products with K"
        each = f"{1e9 * stage / 1e4 / n:.2f}"
        by_samples.rows.append([str(n), f"{1e3 * step:.3g}", each, way, f"{bound / stage:.2g}"])
    return [by_width, by_samples]
