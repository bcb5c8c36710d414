"""What a step of three layers costs, against copies of the largest matrix and against BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.common import Table, report
from benchmarks.timing import Copy, gemm, ratio, take_turns
from flowsim.deep_scaling import DeepScaling
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.threads import one_blas_thread, usable_cores
from flowsim.networks.deep import DeepFlow, DeepNetwork
from flowsim.steppers.base import Point
from flowsim.steppers.methods import MethodOptions, make_stepper

CASES = (
    # width, samples, method, activation, passes, stages
    (4000, 4, "tsit54", "gelu", "factored", 7),
    (4000, 4, "heun", "relu", "factored", 2),
    (4000, 4, "heun", "relu", "dense", 2),
    (2000, 256, "tsit54", "gelu", "factored", 7),
    (2000, 256, "tsit54", "gelu", "dense", 7),
)


class Steps:
    """Steps of one method along a flow, one a call."""

    def __init__(self, width: int, n: int, method: str, activation: str, passes: str) -> None:
        x = np.random.default_rng(0).normal(size=(n, 2))
        x[:, 1] = 1.0
        scaling = DeepScaling.from_gammas(width, 0.0, 0.0, 1.5)
        network = DeepNetwork(scaling, ACTIVATIONS[activation])
        self.flow = DeepFlow(network, x, x[:, 0] ** 2, threads=usable_cores(), passes=passes)
        options = MethodOptions(rtol=1e-3, atol=1e-12)
        _, self.stepper = make_stepper(method, options, self.flow.kinked)
        theta = self.flow.initial.copy()
        self.point = Point.of(self.flow, 0.0, theta, self.flow.residual(theta))
        self.stepper.start(self.flow, self.point)

    def __call__(self) -> None:
        """Take a step, or have it rejected, which costs the same."""
        self.flow.settle(self.point.theta)
        attempt = self.stepper.attempt(self.flow, self.point, np.inf)
        self.point = attempt.point or self.point


def measure(case: tuple, rounds: int, budget: float) -> dict[str, Any]:
    """One line of the table."""
    width, n, method, activation, passes, stages = case
    steps, copy = Steps(width, n, method, activation, passes), Copy(8 * width * width)
    product, operations = gemm("float64")
    with one_blas_thread():
        found = take_turns({"step": steps, "copy": copy}, rounds, budget)
    rate = take_turns({"product": product}, rounds, budget)["product"]
    step = float(np.median(found["step"]))
    # A stage multiplies by the matrix forward and backward, and its rate is a product too.
    work = 2.0 * n * width * width * 3.0 * (stages - (method == "tsit54"))
    return {
        "width": width, "n": n, "method": method, "passes": passes, "stages": stages,
        "milliseconds": 1e3 * step,
        # Reading a matrix at the bandwidth of copying it is half of a copy.
        "in_reads": ratio(found["step"], found["copy"]) / stages,
        "of_gemm": work / step / (operations / float(np.median(rate))),
    }  # fmt: skip


def main(quick: bool) -> None:
    """Measure, print, and unless ``quick`` write the results."""
    cases = CASES[:1] if quick else CASES
    lines = [measure(case, 2 if quick else 5, 0.2 if quick else 1.0) for case in cases]
    rows = [
        [
            str(line["width"]), str(line["n"]), line["method"], line["passes"],
            f"{line['milliseconds']:.1f}", f"{line['in_reads']:.2f}", f"{line['of_gemm']:.2f}",
        ]
        for line in lines
    ]  # fmt: skip
    header = ["m", "n", "method", "rates", "step, ms", "step / (stages x read twice)", "of GEMM"]
    note = (
        "Reading counts at the bandwidth of a copy, whose bytes are those read and those written; "
        "products are those with the matrix forward and backward, and the rates."
    )
    report("deep", [Table("A step of three layers", header, rows, note)], lines, quick)
