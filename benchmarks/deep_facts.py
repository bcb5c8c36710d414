"""What is known of deep networks as m grows, measured: exact facts, powers of m, wide limits.

Sources: Hajjar, Chizat and Giraud (arXiv 2110.15596), Yang and Hu (arXiv 2011.14522), and values
that were measured elsewhere (`wanted` says which number it is to be).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from benchmarks.common import INPUTS, TARGETS, Table, report
from flowsim.deep_scaling import DeepScaling
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.networks.deep import DeepFlow, DeepNetwork
from flowsim.steppers.base import Point
from flowsim.steppers.driver import NoObserver, Observer, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.methods import METHODS, MethodOptions

ONE = np.array([[1.0]])


@dataclass(frozen=True)
class Fact:
    """A number that is known, and what was measured."""

    what: str
    wanted: float
    measured: float
    within: float

    @property
    def holds(self) -> bool:
        """Whether it was found."""
        return bool(abs(self.measured - self.wanted) <= self.within)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    widths: Sequence[int]
    seeds: int
    wide: int
    """Of the networks whose limits are known."""


def flow_of(
    name: str,
    width: int,
    hidden: int,
    activation: str = "relu",
    x: np.ndarray = INPUTS,
    y: np.ndarray = TARGETS,
    first_step: float = 1.0,
    **options: Any,
) -> DeepFlow:
    """The flow of a named scheme."""
    scaling = DeepScaling.from_scheme(name, width, hidden, first_step=first_step)
    network = DeepNetwork(scaling, ACTIVATIONS[activation], **options)
    return DeepFlow(network, x, y, threads=usable_cores(), passes="dense")


def descend(flow: DeepFlow, steps: int, step: float) -> Point:
    """Gradient descent, the first step of the scheme included."""
    method = METHODS["gradient-descent"](MethodOptions(step=step, restart=False))
    return integrate(flow, method, StopRules(stop_loss=0.0, max_steps=steps), NoObserver()).point


def train(flow: DeepFlow, observer: Observer | None = None, **rules: Any) -> Point:
    """The flow, to small tolerances."""
    method = METHODS["tsit54"](MethodOptions(rtol=1e-6, atol=1e-9))
    chosen = StopRules(**{"stop_loss": 0.0, **rules})
    return integrate(flow, method, chosen, observer or NoObserver()).point


def matrices(flow: DeepFlow, theta: Any) -> list[np.ndarray]:
    """The matrices W_l that signals are multiplied by, first copy."""
    row, layout = np.asarray(theta)[0], flow.field.layout
    return [
        multiplier * layout.weights(row, layer)
        for layer, multiplier in enumerate(flow.field.multipliers)
    ]


def preactivations(flow: DeepFlow, theta: Any) -> list[np.ndarray]:
    """h_1, ..., h_L (n, m) and f (n, 1), first copy."""
    found, signal = [], flow.field.x
    for weights in matrices(flow, theta):
        found.append(signal @ weights)
        signal = np.asarray(flow.field.activation.value(found[-1]))
    return found


def slope(
    widths: Sequence[int], measure: Callable[[int, int], float], seeds: Iterable[int]
) -> float:
    """Power of m of the root mean square over the seeds of ``measure(width, seed)``."""
    chosen = list(seeds)
    means = [np.mean([measure(width, seed) ** 2 for seed in chosen]) for width in widths]
    return float(np.polyfit(np.log(widths), 0.5 * np.log(means), 1)[0])


def furthest(ones: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Largest difference of two lists of matrices, relative to the largest entry of each."""
    pairs = zip(ones, others, strict=True)
    return float(max(np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in pairs))


def exact(size: Size) -> list[Fact]:
    """What holds at any width, to rounding."""
    facts = []
    for hidden in (2, 3, 6):
        changes = []
        for name in ("ip-llr", "mup"):
            flow = flow_of(name, 100, hidden, antisymmetric=True, first_step=0.5)
            end = descend(flow, 1, 0.5)
            pairs = zip(matrices(flow, end.theta), matrices(flow, flow.initial), strict=True)
            changes.append([after - before for after, before in pairs])
        what = f"first step of IP-LLR against that of muP, L = {hidden}: largest difference"
        facts.append(Fact(what, 0.0, furthest(*changes), 1e-12))
    ends = []
    for name in ("ip-llr", "hp"):
        flow = flow_of(name, 100, 3, antisymmetric=True, first_step=0.5)
        ends.append(matrices(flow, descend(flow, 50, 0.1).theta))
    facts.append(Fact("IP-LLR against HP after 50 steps, L = 3", 0.0, furthest(*ends), 1e-12))
    for hidden in (1, 3, 6):
        ip, mup = (
            flow.residual(flow.initial)
            for flow in (flow_of(name, 100, hidden, y=np.zeros(4)) for name in ("ip", "mup"))
        )
        off = np.max(np.abs(ip / mup * 100 ** ((hidden - 1) / 2) - 1.0))
        what = f"f(0) of IP over that of muP, over m^-(L-1)/2, L = {hidden}"
        facts.append(Fact(what, 1.0, 1.0 + float(off), 1e-12))
    return facts


def _mean_squares(flow: DeepFlow) -> list[float]:
    """Of h_1, ..., h_L and f at t = 0."""
    return [float(np.mean(h**2)) for h in preactivations(flow, flow.initial)]


def at_the_start(size: Size) -> list[Fact]:
    """Powers of m of h_l and f at t = 0, and of the first change of f in IP."""
    facts, widths, seeds = [], size.widths[:4], range(6 * size.seeds)
    for name, label in (("ip", "IP"), ("mup", "muP")):
        flows = [[flow_of(name, width, 4, seed=seed) for seed in seeds] for width in widths]
        squares = [[_mean_squares(flow) for flow in of_width] for of_width in flows]
        powers = np.polyfit(np.log(widths), 0.5 * np.log(np.mean(squares, axis=1)), 1)[0]
        for layer, measured in enumerate(powers):
            wanted = -layer / 2 if name == "ip" else (-0.5 if layer == 4 else 0.0)
            what = f"h_{layer + 1}" if layer < 4 else "f"
            what = f"{label}, t = 0, L = 4: power of m of {what}"
            facts.append(Fact(what, wanted, float(measured), 0.1))
    for hidden, wanted in ((1, -0.10), (2, -0.03), (3, -1.04), (4, -2.03)):

        def change(width: int, seed: int, hidden: int = hidden) -> float:
            flow = flow_of("ip", width, hidden, "tanh", ONE, np.ones(1), seed=seed)
            before = flow.residual(flow.initial)
            return float(abs(descend(flow, 1, 0.1).residual - before)[0])

        what = f"IP, L = {hidden}, tanh: power of m of the first change of f"
        facts.append(Fact(what, wanted, slope(size.widths, change, range(size.seeds)), 0.15))
    return facts


def feature_learning(size: Size) -> list[Fact]:
    """Exponent -r of the change of the last hidden layer's activations at t = 1."""
    facts = []
    for name, hidden, wanted in (("ntk", 2, -0.5), ("mup", 2, 0.0), ("mean-field", 1, 0.0)):

        def change(width: int, seed: int, name: str = name, hidden: int = hidden) -> float:
            flow = flow_of(
                name, width, hidden, "tanh", y=8.0 * TARGETS, seed=seed, antisymmetric=True
            )
            ends = flow.initial, train(flow, t_max=1.0).theta
            before, after = (np.tanh(preactivations(flow, theta)[-2]) for theta in ends)
            return float(np.sqrt(np.mean((after - before) ** 2)))

        measured = slope(size.widths, change, range(max(3, size.seeds // 3)))
        what = f"{name}, L = {hidden}: power of m of the change of features (-r)"
        facts.append(Fact(what, wanted, measured, 0.1))
    return facts


class Along(Observer):
    """f and K at given times, read off the steps' interpolants."""

    def __init__(self, flow: DeepFlow, times: Sequence[float]) -> None:
        self.flow, self.times = flow, times
        self.rows: list[list[float]] = []

    def step(self, before: Point, attempt: Any, after: Point, counters: Any) -> None:
        while len(self.rows) < len(self.times) and self.times[len(self.rows)] <= after.time:
            moment = self.times[len(self.rows)]
            theta, residual = attempt.interpolate((moment - before.time) / attempt.step)
            kernel = self.flow.tangent_kernel(theta).matrix[0, 0]
            self.rows.append([residual[0] + self.flow.y[0], kernel])


def linear_limits(size: Size) -> list[Fact]:
    """f and K of wide linear networks in muP on x = 1, y = 1.5, within 3 standard errors."""
    times = [0.1, 0.2, 0.4, 0.8]  # twice those for (y - f)^2: R is half of it
    s = solve_ivp(
        lambda t, s: 1.5 - np.sinh(2.0 * s), (0.0, 0.8), [0.0], t_eval=times, rtol=1e-10, atol=1e-12
    ).y[0]
    limits = {
        1: np.column_stack([np.sinh(2.0 * s), 2.0 * np.cosh(2.0 * s)]),
        2: np.array([[0.4051, 3.4177], [0.7549, 4.3271], [1.2411, 6.1156], [1.4832, 7.1581]]),
    }
    facts = []
    for hidden, limit in limits.items():
        found = []
        for seed in range(2 * size.seeds):
            flow = flow_of("mup", size.wide, hidden, "linear", ONE, np.array([1.5]), seed=seed)
            watch = Along(flow, times)
            train(flow, watch, t_max=0.801)
            found.append(watch.rows)
        mean = np.mean(found, axis=0)
        error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
        for row, time in enumerate(times):
            for column, name in enumerate("fK"):
                what = f"linear network, L = {hidden}: {name} at t = {time / 2:g} for (y - f)^2"
                numbers = limit[row, column], mean[row, column], 3.0 * error[row, column]
                facts.append(Fact(what, *map(float, numbers)))
    return facts


def lazy(size: Size) -> list[Fact]:
    """Flow of R(s h)/s^2 with h = 0 at t = 0: weights change by 1/s."""
    scales, moved = np.array([30.0, 100.0, 300.0]), []
    for scale in scales:
        scaling = DeepScaling.from_numbers(25, [1.0, 0.2, 0.2 * scale], [1.0] * 3, [scale**-2] * 3)
        network = DeepNetwork(scaling, ACTIVATIONS["tanh"], antisymmetric=True)
        flow = DeepFlow(network, INPUTS, TARGETS, passes="dense")
        moved.append(float(flow.relative_change(train(flow, stop_loss=1e-4).theta)[-1]))
    measured = np.polyfit(np.log(scales), np.log(moved), 1)[0]
    return [Fact("lazy training: power of s of the change of theta", -1.0, float(measured), 0.01)]


def hybrid(size: Size) -> list[Fact]:
    """IP-LLR comes ever nearer to HPZ: the initial hidden matrices count m^-1/2 in h."""

    def apart(width: int, seed: int) -> float:
        ends = []
        for name in ("ip-llr", "hpz"):
            flow = flow_of(name, width, 3, seed=seed, antisymmetric=True, first_step=20.0)
            ends.append(descend(flow, 5, 0.1).residual)
        return float(np.sqrt(np.mean((ends[0] - ends[1]) ** 2)))

    measured = slope(size.widths, apart, range(size.seeds))
    what = "power of m of the distance of IP-LLR's f from HPZ's after 5 steps, L = 3"
    return [Fact(what, -0.5, measured, 0.1)]


GROUPS = (exact, at_the_start, feature_learning, linear_limits, lazy, hybrid)


def main(quick: bool) -> None:
    """Measure, print, and unless ``quick`` write the results."""
    size = Size((32, 128), 3, 200) if quick else Size((64, 128, 256, 512, 1024), 10, 1000)
    facts = [fact for group in GROUPS for fact in group(size)]
    rows = [
        [
            fact.what, f"{fact.wanted:.4g}",
            f"{fact.measured:.4f}" if fact.within > 1e-9 else f"{fact.measured - fact.wanted:+.1e}",
            f"{fact.within:.2g}", "yes" if fact.holds else "no",
        ]
        for fact in facts
    ]  # fmt: skip
    header = ["fact", "wanted", "measured", "within", "holds"]
    seeds = f"{size.seeds} seeds (h_l, f: {6 * size.seeds}; features: a third)"
    note = (
        f"{sum(fact.holds for fact in facts)} of {len(facts)}. Powers are slopes over m = "
        f"{', '.join(map(str, size.widths))} (h_l, f: up to {size.widths[:4][-1]}), root mean "
        f"squares over {seeds}. What holds "
        f"to rounding is given as its difference. Limits of wide linear networks: m = {size.wide}, "
        f"{2 * size.seeds} seeds, within 3 standard errors."
    )
    data = [asdict(fact) | {"holds": fact.holds} for fact in facts]
    report("deep_facts", [Table("Facts about deep networks", header, rows, note)], data, quick)
