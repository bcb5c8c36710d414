"""Ensembles: many small networks at once, each a whole run in compiled code.

A run that is small enough, has a kernel-bounded method and asks for nothing but rows and
snapshots does not need Python between its steps: `flowsim.kernels.cpu.members` carries it out
from its initial values to its end, to the same bits as the ordinary driver would, and
`flowsim.kernels.cuda.members` does the same on a GPU, to rounding. Lists given to
`flowsim.simulate` and the units of a sweep come here by themselves; what does not qualify, or
turns out to be long, goes the ordinary way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowsim.config import Experiment
from flowsim.ensemble_plans import Plan, Way, moments_of, way_of, work_of_pass
from flowsim.execution import Job
from flowsim.file_groups import attributes, data_group, final_group
from flowsim.kernels.cpu import member_data
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.preparation import network_targets
from flowsim.recording.contents import RunContents
from flowsim.recording.observables import OBSERVABLES, possible_names
from flowsim.recording.recorder import SeriesPlan
from flowsim.recording.schedules import Logarithmic, Never
from flowsim.recording.series import series_group
from flowsim.recording.writer import head_of_file
from flowsim.steppers.base import Attempt, Point
from flowsim.steppers.events import (
    ENDINGS,
    MAX_REJECTIONS,
    STEADY_WINDOW,
    Counters,
    Watch,
    explain,
    hopeless,
)
from flowsim.steppers.interruption import Interruption

_PATIENCE = 1e10
"""Multiply-adds after which a run goes the ordinary way, where it has checkpoints: some seconds."""

_WORK_BESIDE = 4e3
"""What a pass costs besides its neurons, in multiply-adds."""


@dataclass
class Finished:
    """The members that came to an end, as arrays; see `flowsim.kernels.cpu.member_data.Results`.

    Attributes
    ----------
    plan : Plan
    experiments : list of Experiment
    results : Results
    done : (B,) bool array
        False where a member was stopped, or has to go the ordinary way.
    """

    plan: Plan
    experiments: list[Experiment]
    results: member_data.Results
    done: np.ndarray

    def contents(self, member: int) -> RunContents:
        """One member as the run that it is."""
        plan, experiment, results = self.plan, self.experiments[member], self.results
        flow = plan.flow(experiment)
        # Who has carried it out; what is left to measure needs no device.
        flow.backend, flow.device = plan.backend, plan.device
        counted = results.counters[member]
        counters = Counters(int(counted[member_data.N_STEPS]), int(counted[member_data.N_REJECTED]))
        numbers = results.numbers[member]
        time = float(numbers[member_data.TIME])
        point = Point.of(flow, time, results.theta[member].copy(), results.residual[member])
        reason = self._reason(member, flow, point, counters)
        about = {
            **head_of_file(),
            "status": ENDINGS[reason.partition(":")[0]],
            "stop_reason": reason,
            **attributes(experiment, flow, plan.method),
            "fingerprint": Job(experiment, plan.dataset, flow.network, plan.method).fingerprint(),
        }
        groups = {series.group: self._series(member, series) for series in plan.series}
        groups["data"] = data_group(plan.dataset)
        groups["final"] = final_group(flow, point, counters, results.sup_change[member].copy(), {})
        return RunContents(about, groups)

    def _reason(self, member: int, flow: TwoLayerFlow, point: Point, counters: Counters) -> str:
        """How the member ended, in the words of the ordinary driver."""
        numbers = self.results.numbers[member]
        ending = self.results.counters[member, member_data.ENDING]
        step = float(numbers[member_data.LAST_STEP])
        if ending == member_data.NOT_FINITE_AT_START:
            return "non_finite: the residual at t = 0 is not finite; check data and weights"
        if ending == member_data.BY_RULE:
            marked = (
                float(numbers[member_data.MARKED_TIME]),
                float(numbers[member_data.MARKED_LOSS]),
            )
            watch = Watch(self.plan.rules, marked_time=marked[0], marked_loss=marked[1])
            reason = watch.ending(point.time, point.loss, counters.n_steps)
        else:
            rejections = {
                member_data.HOPELESS_REST: "at rest",
                member_data.HOPELESS_NON_FINITE: "non-finite",
            }
            attempt = Attempt(step, rejection=rejections.get(int(ending), "loss"))
            reason = hopeless(attempt, point, int(numbers[member_data.REJECTED_ROW]))
        return explain(reason, flow, point, step, counters)

    def _series(self, member: int, series: SeriesPlan) -> Any:
        results = self.results
        if series.group == "snapshots":
            count = int(results.counters[member, member_data.N_SNAPSHOTS])
            kept = results.snapshots[member, :count]
            times = results.snapshot_times[member, :count].copy()
            columns = {"output_weights": kept[:, 0], "input_weights": kept[:, 1:]}
        else:
            rows = results.rows[member, : int(results.counters[member, member_data.N_ROWS])]
            times = rows[:, 0].copy()
            columns = _columns(rows)
        values = {
            observable.name: np.array(columns[observable.name], observable.dtype)
            for observable in series.observables
        }
        return series_group(series.time_name, times, series.observables, values)


def _columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Observables by name from the rows of `Results.rows`."""
    singles = (
        "step", "loss", "dt", "n_rhs", "n_passes", "n_rejected", "invariant_drift",
        "active_neurons", "dead_neurons",
    )  # fmt: skip
    columns = {name: rows[:, 1 + place] for place, name in enumerate(singles)}
    first = 1 + len(singles)
    columns["relative_change"], columns["norm"] = (
        rows[:, first : first + 3],
        rows[:, first + 3 : first + 6],
    )
    columns["residual"] = rows[:, member_data.FIXED_COLUMNS :]
    # Many members run at once, and none of them looks at the clock.
    columns["wall_seconds"] = np.full(len(rows), np.nan)
    possible = possible_names(TwoLayerFlow, False)
    assert set(columns) == {name for name in possible if not OBSERVABLES[name].asked_for}
    return columns


def run_members(
    plan: Plan,
    experiments: Sequence[Experiment],
    threads: int,
    interruption: Interruption | None = None,
) -> list[Finished]:
    """Carry out the members of an ensemble.

    Parameters
    ----------
    plan : Plan
    experiments : sequence of Experiment
        That differ in their seed and scaling only.
    threads : int
        They share the members.
    interruption : Interruption, optional
        Listens for signals; by default while this function runs. Members that a signal finds at
        work are not done.

    Returns
    -------
    list of Finished
        Together all experiments in their order.
    """
    interruption = interruption or Interruption()
    state_bytes = plan.network(experiments[0]).state_bytes(
        plan.dataset.n_inputs, plan.experiment.integrate.dtype
    )
    lists, way = _moment_lists(plan), way_of(plan, threads)
    rows, snapshots = _rooms(plan, lists)
    columns = member_data.FIXED_COLUMNS + len(plan.dataset.x)
    batch = max(1, int(way.memory / (state_bytes * (1 + snapshots) + 8 * columns * rows)))
    finished = []
    with interruption.listening():
        for first in range(0, len(experiments), batch):
            some = list(experiments[first : first + batch])
            finished.append(_run_batch(plan, some, lists, way, interruption))
    return finished


def _moment_lists(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    found = {series.group: moments_of(series.schedule, plan.rules.t_max) for series in plan.series}
    nothing = np.empty(0)
    rows, snapshots = found["observables"], found.get("snapshots", nothing)
    assert rows is not None and snapshots is not None  # see `plan_members`
    return rows, snapshots


def _rooms(plan: Plan, lists: tuple[np.ndarray, np.ndarray]) -> tuple[int, int]:
    """Rows and snapshots that a member has room for."""
    # The first row and the last, and one more for good measure.
    rows, snapshots = (len(moments) + 3 for moments in lists)
    return rows, snapshots if any(series.group == "snapshots" for series in plan.series) else 0


def _run_batch(
    plan: Plan,
    experiments: list[Experiment],
    lists: tuple[np.ndarray, np.ndarray],
    way: Way,
    interruption: Interruption,
) -> Finished:
    networks, scales = _networks(plan, experiments)
    results = _room(plan, networks, lists)
    problem = _problem(plan, networks[0])
    stop = np.zeros(1, np.uint8)
    schedules = _schedules(plan, lists)
    arguments = (
        problem,
        _rules(plan),
        _control(plan, networks[0]),
        schedules,
        scales,
        stop,
        results,
    )
    n_inputs = plan.dataset.n_inputs

    def draw(first: int, last: int) -> None:
        for member in range(first, last):
            results.theta[member] = networks[member].initial_values(n_inputs)

    _share_out(len(experiments), way, stop, draw, arguments, interruption)
    ending = results.counters[:, member_data.ENDING]
    return Finished(plan, experiments, results, (ending != 0) & (ending < member_data.UNFIT))


def _networks(
    plan: Plan, experiments: list[Experiment]
) -> tuple[list[TwoLayerNetwork], np.ndarray]:
    """The members' networks, and their `scales` as `members.run_members` wants them."""
    known: dict[int, tuple[TwoLayerNetwork, list[float]]] = {}
    networks, scales = [], []
    for experiment in experiments:
        key = id(experiment.scaling)  # the rest is the same in all, but for the seed
        if key not in known:
            network = plan.network(experiment)
            f = network.field_on(plan.dataset.x)
            scale = [f.multiplier, f.output_mobility, f.input_mobility, f.multiplier**2]
            known[key] = network, scale
        network, scale = known[key]
        networks.append(replace(network, seed=experiment.network.seed))
        scales.append(scale)
    return networks, np.array(scales)


def _share_out(
    count: int,
    way: Way,
    stop: np.ndarray,
    draw: Callable[[int, int], None],
    arguments: tuple,
    interruption: Interruption,
) -> None:
    """Hand the members out to threads; this one draws initial values and hears signals."""
    with ThreadPoolExecutor(way.threads, thread_name_prefix="flowsim-member") as pool:
        size = max(1, min(way.slice, -(-count // way.threads)))
        waiting: set[Future[None]] = set()
        try:
            for first in range(0, count, size):
                last = min(first + size, count)
                draw(first, last)
                waiting.add(pool.submit(way.run, first, last, *arguments))
                if interruption.name:
                    break
            while waiting:
                done, waiting = wait(waiting, timeout=0.05)
                for one in done:
                    one.result()  # an error there is an error here
                if interruption.name:
                    stop[0] = 1
        except BaseException:
            stop[0] = 1
            raise


def _room(
    plan: Plan, networks: list[TwoLayerNetwork], lists: tuple[np.ndarray, np.ndarray]
) -> member_data.Results:
    n, d = plan.dataset.x.shape
    dtype = np.dtype(plan.experiment.integrate.dtype)
    count, neurons = len(networks), networks[0].neurons
    rows, snapshots = _rooms(plan, lists)
    return member_data.Results(
        theta=np.empty((count, 1 + d, neurons), dtype),
        residual=np.empty((count, n)),
        numbers=np.zeros((count, 5)),
        counters=np.zeros((count, 7), np.int64),
        change=np.empty((count, 3)),
        sup_change=np.empty((count, 3)),
        rows=np.empty((count, rows, member_data.FIXED_COLUMNS + n)),
        snapshot_times=np.empty((count, snapshots)),
        snapshots=np.empty((count, snapshots, 1 + d, neurons), dtype),
    )


def _problem(plan: Plan, network: TwoLayerNetwork) -> member_data.Problem:
    x = np.ascontiguousarray(plan.dataset.x, np.float64)
    dtype = np.dtype(plan.experiment.integrate.dtype)
    assert plan.activation.leak is not None  # see `plan_members`
    return member_data.Problem(
        x=np.ascontiguousarray(x, dtype),
        x64=x,
        y=np.ascontiguousarray(network_targets(plan.dataset.y), np.float64),
        inner=x @ x.T,
        leak=float(plan.activation.leak),
        like=(dtype.type(0),) * x.shape[1],
        width=network.width,
    )


def _rules(plan: Plan) -> member_data.Rules:
    rules = plan.rules
    return member_data.Rules(
        stop_loss=float(rules.stop_loss),
        t_max=float(rules.t_max),
        max_steps=math.inf if rules.max_steps is None else float(rules.max_steps),
        steady_slope=float(rules.steady_slope),
        steady_min_time=float(rules.steady_min_time),
        steady_window=STEADY_WINDOW,
    )


def _control(plan: Plan, network: TwoLayerNetwork) -> member_data.Control:
    stepper, tableau = plan.stepper, plan.stepper.tableau
    n, d = plan.dataset.x.shape
    assert tableau.dense is not None
    return member_data.Control(
        fraction=float(stepper.step_fraction),
        change=float(stepper.max_relative_change),
        late_fraction=float(stepper.late_step_fraction),
        late=stepper.LATE,
        max_age=stepper.MAX_AGE,
        max_drift=stepper.MAX_DRIFT,
        at_rest=stepper.AT_REST,
        max_rejections=MAX_REJECTIONS,
        max_passes=int(_PATIENCE / (work_of_pass(network, n, d) + _WORK_BESIDE)),
        a=tableau.a,
        b=tableau.b,
        dense=tableau.dense,
    )


def _schedules(plan: Plan, lists: tuple[np.ndarray, np.ndarray]) -> tuple:
    kinds = {series.group: series.schedule for series in plan.series}
    made = []
    for group, moments in zip(("observables", "snapshots"), lists, strict=True):
        schedule = kinds.get(group, Never())
        if isinstance(schedule, Logarithmic):
            first = math.nan if schedule.start is None else float(schedule.start)
            made.append(member_data.Schedule(moments, first, moments[0], moments[-1]))
        else:
            made.append(member_data.Schedule(moments, 0.0, 0.0, math.inf))
    return tuple(made)


def warm_up(plan: Plan) -> None:
    """Compile what members need, or fetch it from the cache on disk, by a run of one step.

    Not for a GPU, whose code is made for a width and takes seconds.
    """
    if plan.backend != "cpu":
        return
    network = plan.experiment.network.model_copy(update={"width": 1})
    short = plan.experiment.integrate.model_copy(update={"max_steps": 1})
    tiny = replace(plan.experiment, network=network, integrate=short)
    run_members(replace(plan, experiment=tiny, rules=replace(plan.rules, max_steps=1)), [tiny], 1)
