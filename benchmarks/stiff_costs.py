"""What a step costs against m and n: ``python -m benchmarks stiff_costs``.

Of a Rosenbrock-W method with what of it is K and the n x n factorisation, and of the stabilised
method with what a bound of its rates costs. Everything on one thread: small networks gain less by a
second one, which an exponent in m would take for its own. Processor time, the least of several.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.threads import one_blas_thread
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling
from flowsim.steppers import rates
from flowsim.steppers.base import Flow, Point
from flowsim.steppers.kernel_solver import KernelSolver
from flowsim.steppers.rosenbrock import RosenbrockW
from flowsim.steppers.stabilised import Stabilised
from flowsim.steppers.tableaux.rkc2 import extent_of
from flowsim.steppers.tableaux.ros34pw2 import ROS34PW2

from .common import Table, report

WIDTHS = (1_000, 10_000, 100_000, 1_000_000)
SAMPLES = (4, 16, 64, 100, 256, 1_024, 2_000)
N, M = 16, 10_000
"""Samples where the width varies, and width where the samples do."""
SECONDS = 2.0
"""That a measurement is repeated for, three times at least."""
STAGES = 10
"""Of every stabilised step that is timed, whatever its error."""
IMPLICIT_PASSES = 14
"""Of a step of ros34pw2 with the exact Jacobian, K's apart (`test_passes_of_a_step`)."""
FIRST_WIDTH = 10_000
"""From which on the exponent in m is taken: below, calls from Python count."""
ANY_ERROR = 1e30


def _flow(width: int, n: int) -> TwoLayerFlow:
    """The flow at d = 2."""
    x = np.linspace(-1.0, 1.0, n)
    network = TwoLayerNetwork(Scaling(width, 1.0, 0.0, 1.0), ACTIVATIONS["tanh"])
    return TwoLayerFlow(network, np.column_stack([x, np.ones(n)]), np.sin(3.0 * x), threads=1)


def _start(flow: Flow) -> Point:
    theta = flow.initial.copy()
    return Point.of(flow, 0.0, theta, flow.residual(theta))


def _least(work: Callable[[], object]) -> float:
    """Least processor seconds of several runs, after one that does not count.

    Other work beside takes away time and caches, and never adds any.
    """
    work()
    spent: list[float] = []
    while len(spent) < 3 or (sum(spent) < SECONDS and len(spent) < 50):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)


def implicit(width: int, n: int) -> dict[str, float]:
    """Seconds of a step of ros34pw2 and, of these, of K with the blocks and of Cholesky."""
    flow = _flow(width, n)
    point, stepper = _start(flow), RosenbrockW(ROS34PW2, rtol=ANY_ERROR, atol=0.0)
    stepper.start(flow, point)
    gradient, blocks = flow.gradient(point.residual), flow.neuron_blocks()
    assert blocks is not None
    size = 10.0 / flow.largest_rate(point.theta)
    solver = KernelSolver(blocks.prepare(point.theta, gradient, size), n)
    turn = iter(range(10**9))

    def step() -> None:
        # From the same point every time: what a rejected attempt does, and no step grows.
        residual = stepper._take(flow, point, size)
        stepper._error(flow, point, residual, size)

    return {
        "step": _least(step),
        "K": _least(lambda: blocks.prepare(point.theta, gradient, size)),
        "Cholesky": _least(lambda: solver.factorise(size * (1.0 + 1e-9 * next(turn)))),
    }


def stabilised(width: int, n: int) -> dict[str, float]:
    """Seconds of a step of rkc2, a stage of it, and a bound of the rates."""
    flow = _flow(width, n)
    point, stepper = _start(flow), Stabilised(rtol=ANY_ERROR, atol=0.0)
    stepper.start(flow, point)
    # The longest step that so many stages are stable for.
    size = 0.999 * extent_of(STAGES) / stepper._rate

    def step() -> None:
        residual = stepper._take(flow, point, size)
        stepper._error(flow, point, residual, size)

    spent = _least(step)
    assert stepper._used.stages == STAGES
    bound = _least(lambda: stepper._bound_rates(flow, point))
    return {"step": spent, "stage": spent / STAGES, "bound": bound}


def exponent(found: list[tuple[int, dict[str, float]]]) -> str:
    """What a step grows like in m, by least squares."""
    wide = [(width, costs["step"]) for width, costs in found if width >= FIRST_WIDTH]
    if len(wide) < 2:
        return ""
    widths, steps = np.log(np.array(wide)).T
    return f"A step grows like m^{np.polyfit(widths, steps, 1)[0]:.2f} from m = {FIRST_WIDTH} on."


def implicit_tables(widths: tuple[int, ...], samples: tuple[int, ...]) -> list[Table]:
    """Of ros34pw2, against m and against n."""
    by_width = Table(
        f"ros34pw2: a step against m (tanh, n = {N}, d = 2, one thread)",
        ["m", "ms a step", "ns a pass and neuron", "K and blocks", "Cholesky"],
    )
    found = [(width, implicit(width, N)) for width in widths]
    by_width.note = exponent(found)
    by_samples = Table(
        f"ros34pw2: a step against n (tanh, m = {M:,}, d = 2, one thread)",
        ["n", "ms a step", "ns a pass, neuron and sample", "K and blocks", "Cholesky"],
    )
    for table, costs_of, by in (
        (by_width, found, 1.0),
        (by_samples, [(n, implicit(M, n)) for n in samples], M),
    ):
        for size, costs in costs_of:
            step, kernel, cholesky = costs.values()
            each = 1e9 * (step - kernel - cholesky) / IMPLICIT_PASSES / size / by
            shares = (f"{part / step:.1%}" for part in (kernel, cholesky))
            table.rows.append([str(size), f"{1e3 * step:.3g}", f"{each:.2f}", *shares])
    by_samples.note = "Shares of the step; the passes are without K and Cholesky."
    return [by_width, by_samples]


def stabilised_tables(widths: tuple[int, ...], samples: tuple[int, ...]) -> list[Table]:
    """Of rkc2, against m and against n."""
    by_width = Table(
        f"rkc2: a step of {STAGES} stages against m (tanh, n = {N}, d = 2, one thread)",
        ["m", "ms a step", "ns a stage and neuron", "bound / stage"],
    )
    found = [(width, stabilised(width, N)) for width in widths]
    by_width.note = exponent(found)
    for width, costs in found:
        step, stage, bound = costs.values()
        each = f"{1e9 * stage / width:.1f}"
        by_width.rows.append([str(width), f"{1e3 * step:.3g}", each, f"{bound / stage:.2g}"])
    by_samples = Table(
        f"rkc2: a step of {STAGES} stages against n (tanh, m = {M:,}, d = 2, one thread)",
        ["n", "ms a step", "ns a stage, neuron and sample", "bound by", "bound / stage"],
    )
    for n in samples:
        step, stage, bound = stabilised(M, n).values()
        way = "K" if n <= rates.MOST_ROWS else "products with K"
        each = f"{1e9 * stage / M / n:.2f}"
        by_samples.rows.append([str(n), f"{1e3 * step:.3g}", each, way, f"{bound / stage:.2g}"])
    return [by_width, by_samples]


def main(quick: bool = False) -> None:
    """Measure and report."""
    widths, samples = (WIDTHS[:2], SAMPLES[:3]) if quick else (WIDTHS, SAMPLES)
    with one_blas_thread():
        tables = [*implicit_tables(widths, samples), *stabilised_tables(widths, samples)]
    report("stiff_costs", tables, [vars(table) for table in tables], quick)
