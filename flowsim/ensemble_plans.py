"""Which runs may be carried out in compiled code, and what they then have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flowsim.backends import resolve_backend
from flowsim.config import Experiment
from flowsim.config.sections import Integrate
from flowsim.data import Dataset
from flowsim.execution import method_options, stop_rules
from flowsim.kernels.activations import Activation
from flowsim.kernels.cpu import members
from flowsim.kernels.cpu.choice import choose_way
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.kernels.cuda.member_data import MOST_INPUTS
from flowsim.kernels.losses import SQUARE
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.preparation import make_network, network_targets, resolve_method
from flowsim.recording.plans import plan_series
from flowsim.recording.recorder import SeriesPlan
from flowsim.recording.schedules import Linear, Logarithmic, Never, Schedule
from flowsim.steppers.events import StopRules
from flowsim.steppers.kernel_bounded import KernelBounded
from flowsim.steppers.methods import METHODS

MOST_SAMPLES = 32
"""n up to which the n x n side is compiled too."""

_MOST_WORK = 4e6
"""Multiply-adds of a pass up to which a network is small."""

_MOST_MOMENTS = 10_000
_DECADES = (-12, 13)
"""Powers of ten within which logarithmic schedules are laid out; runs beyond go the other way."""


@dataclass(frozen=True)
class Plan:
    """How the members of one ensemble are carried out: all that does not depend on the seed.

    Attributes
    ----------
    experiment : Experiment
        Of any of them.
    dataset : Dataset
    activation : Activation
    method : str
        With ``auto`` resolved.
    stepper : KernelBounded
    rules : StopRules
    series : list of SeriesPlan
        Observables, and snapshots if there are any.
    backend : str
        ``cpu`` or ``cuda``.
    """

    experiment: Experiment
    dataset: Dataset
    activation: Activation
    method: str
    stepper: KernelBounded
    rules: StopRules
    series: list[SeriesPlan]
    backend: str = "cpu"

    @property
    def device(self) -> int:
        """Number of the GPU."""
        return self.experiment.integrate.device or 0

    def network(self, experiment: Experiment) -> TwoLayerNetwork:
        """The network of a member."""
        network = make_network(experiment, self.dataset, self.activation)
        assert isinstance(network, TwoLayerNetwork)  # see `plan_members`
        return network

    def flow(self, experiment: Experiment, initial: np.ndarray | None = None) -> TwoLayerFlow:
        """A member's network bound to its data."""
        return TwoLayerFlow(
            self.network(experiment),
            self.dataset.x,
            network_targets(self.dataset.y),
            initial=initial,
            dtype=experiment.integrate.dtype,
            threads=experiment.integrate.threads or usable_cores(),
            passes=experiment.integrate.passes,
        )


@dataclass(frozen=True)
class Way:
    """How a backend carries members out.

    Attributes
    ----------
    run : callable
        ``run_members`` of `flowsim.kernels.cpu.members`.
    threads : int
        That call it, side by side.
    slice : int
        Members that a call has, at most.
    memory : int
        Bytes of rows, snapshots and weights that are in work at a time, more or less.
    """

    run: Callable[..., Any]
    threads: int
    slice: int
    memory: int


def way_of(plan: Plan, threads: int) -> Way:
    """Return how the members of a plan are carried out, by at most so many threads."""
    if plan.backend == "cpu":
        return Way(members.run_members, threads, 8, 1 << 28)
    from flowsim.kernels.cuda import members as on_device

    # One thread: what it waits for is the device, and others can be drawn meanwhile.
    run = partial(on_device.run_members, device=plan.device)
    return Way(run, 1, on_device.SLICE, 1 << 31)


def plan_members(experiment: Experiment, dataset: Dataset, activation: Activation) -> Plan | None:
    """Decide whether runs like this one may be carried out in compiled code.

    Parameters
    ----------
    experiment : Experiment
    dataset : Dataset
    activation : Activation

    Returns
    -------
    Plan or None
        None if they have to go the ordinary way.
    """
    experiment.check_targets(dataset)
    network = make_network(experiment, dataset, activation)
    if not isinstance(network, TwoLayerNetwork):
        return None
    experiment = resolve_backend(experiment, network, dataset)
    section, record = experiment.integrate, experiment.record
    n, d = dataset.x.shape
    method = resolve_method(experiment, network, dataset)
    stepper = METHODS[method](method_options(experiment, dataset.y))
    small = n <= MOST_SAMPLES and work_of_pass(network, n, d) <= _MOST_WORK
    plain = not section.estimate_error and section.max_seconds is None
    plain = plain and section.loss in (None, SQUARE)
    simple = not record.separate and record.kernel.schedule == "none" and dataset.x_test is None
    known = activation.leak is not None and activation.name not in experiment.activations
    if not (small and plain and simple and known):
        return None
    if not isinstance(stepper, KernelBounded):
        return None
    if not _has_code(network, dataset, section):
        return None
    flow = TwoLayerFlow(network, dataset.x, network_targets(dataset.y), dtype=section.dtype)
    series = plan_series(record, flow, {}, False)
    if any(observable.asked_for for plan in series for observable in plan.observables):
        return None
    rules = stop_rules(experiment)
    if any(moments_of(plan.schedule, rules.t_max) is None for plan in series):
        return None
    return Plan(experiment, dataset, activation, method, stepper, rules, series, section.backend)


def _has_code(network: TwoLayerNetwork, dataset: Dataset, section: Integrate) -> bool:
    """Whether the backend passes over the neurons as its members do."""
    if section.backend == "cuda":
        return dataset.x.shape[1] <= MOST_INPUTS and section.passes in ("auto", "piecewise")
    if section.backend != "cpu":
        return False
    way = section.passes
    if way == "auto":
        way = choose_way(network.field_on(dataset.x), network.neurons, np.dtype(section.dtype))
    return way == "piecewise"


def work_of_pass(network: TwoLayerNetwork, n: int, d: int) -> float:
    """Multiply-adds of a pass over the neurons."""
    return float(network.neurons * n * (2 * d + 4))


def moments_of(schedule: Schedule, t_max: float) -> np.ndarray | None:
    """All moments of a schedule, ascending; None if it has no such list."""
    match schedule:
        case Never():
            return np.empty(0)
        case Logarithmic():
            first, last = (round(schedule.per_decade * power) for power in _DECADES)
            if last - first > _MOST_MOMENTS:
                return None
            return np.array([10.0 ** (k / schedule.per_decade) for k in range(first, last + 1)])
        case Linear():
            if not t_max / schedule.every < _MOST_MOMENTS:
                return None
            count = math.floor(t_max / schedule.every)
            return np.array([k * schedule.every for k in range(1, count + 1)])
    return None
