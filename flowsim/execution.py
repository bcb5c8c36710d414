"""One run from its start to its file: what `flowsim.simulate` and the command line carry out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from flowsim.config import Experiment
from flowsim.continuing import Start, find_start
from flowsim.data import Dataset
from flowsim.errors import FlowsimError, StorageError
from flowsim.file_groups import (
    attributes,
    data_group,
    estimate_arrays,
    estimate_template,
    final_group,
    final_template,
)
from flowsim.kernels.activations import Activation
from flowsim.kernels.cpu.threads import one_blas_thread
from flowsim.kernels.cuda.device import free_pool
from flowsim.networks.deep import DeepNetwork
from flowsim.networks.flow import NetworkFlow
from flowsim.networks.two_layer import TwoLayerNetwork
from flowsim.preparation import check_memory, make_flow, network_targets
from flowsim.progress import show_progress
from flowsim.recording.checkpoint import Checkpoint
from flowsim.recording.contents import Array
from flowsim.recording.lock import RunLock
from flowsim.recording.observables import Frame
from flowsim.recording.places import RunPlaces
from flowsim.recording.plans import plan_series
from flowsim.recording.recorder import Recorder
from flowsim.recording.writer import Cadence, RunWriter
from flowsim.result import Run
from flowsim.steppers import PARTS, TALLIES
from flowsim.steppers.base import Point
from flowsim.steppers.driver import Continuation, NoObserver, Outcome, integrate
from flowsim.steppers.events import PREEMPTED, StopRules
from flowsim.steppers.interruption import Interruption
from flowsim.steppers.methods import METHODS, MethodOptions

_ROUNDING = 100.0
"""Relative rounding error of the network's outputs, in units of that of one number."""

Own = Mapping[str, Callable[[Frame], Any]]


@dataclass(frozen=True)
class Job:
    """Everything that one run needs.

    Attributes
    ----------
    experiment : Experiment
    dataset : Dataset
    network : TwoLayerNetwork or DeepNetwork
    method : str
        Of a run that begins, with ``auto`` resolved. One that goes on keeps its own.
    initial : array or None
        Initial state; drawn from the seed if absent.
    observables : mapping
        A script's own.
    places : RunPlaces or None
        Where the run is written; None keeps it in memory.
    resume : str
        ``never``, ``auto`` or ``must``, see `flowsim.continuing`.
    overwrite, lock, progress : bool
    write_short : bool
        Write a run also if it ended before its first commit, instead of keeping it in memory.
    """

    experiment: Experiment
    dataset: Dataset
    network: TwoLayerNetwork | DeepNetwork
    method: str
    initial: np.ndarray | None = None
    observables: Own = field(default_factory=dict)
    places: RunPlaces | None = None
    resume: str = "auto"
    overwrite: bool = False
    lock: bool = True
    progress: bool = False
    write_short: bool = True

    def fingerprint(self) -> str:
        """Return a hash of all that determines the path of the run, whenever it ends.

        A script's functions enter with their compiled code; what they read from elsewhere does not.
        """
        digest = hashlib.sha256(self.experiment.trajectory_hash().encode())
        if self.initial is not None:
            digest.update(np.ascontiguousarray(self.initial).tobytes())
        if self.network.activation.name in self.experiment.activations:
            digest.update(_code(self.network.activation))
        for name, function in sorted(self.observables.items()):
            digest.update(name.encode() + _code(function))
        return digest.hexdigest()


def _code(function: Any) -> bytes:
    """Something that changes when a function is rewritten."""
    if isinstance(function, Activation):
        parts = function.value, function.derivative, function.second_derivative
        return b"".join(_code(part) for part in parts)
    code = getattr(function, "__code__", None)
    return b"" if code is None else code.co_code + repr(code.co_consts).encode()


def carry_out(job: Job, interruption: Interruption | None = None) -> tuple[Run, str]:
    """Carry out, or continue, one run.

    Parameters
    ----------
    job : Job
    interruption : Interruption, optional
        Listens for signals; by default while this function runs.

    Returns
    -------
    Run
        Finished, or preempted.
    str
        Name of the signal that asked it to stop; empty if none did.

    Raises
    ------
    ConfigError
        If the output holds something else.
    StorageError
        If the run cannot be written.
    FlowsimError
        If another process is writing it, or it does not fit into memory.
    """
    interruption = interruption or Interruption()
    with ExitStack() as stack:
        stack.enter_context(interruption.listening())
        stack.enter_context(one_blas_thread())
        lock, start = None, Start()
        fingerprint = job.fingerprint()
        if job.places is not None:
            lock = stack.enter_context(RunLock(job.places.target, job.lock))
            estimated = job.experiment.integrate.estimate_error
            start = find_start(
                job.places,
                job.experiment,
                fingerprint,
                job.resume,
                job.overwrite,
                estimate_template((*job.network.layers, "all")) if estimated else {},
            )
            if start.finished:
                return Run(job.places.target), ""
            if start.method not in ("", job.method):
                # Begun on a machine with more memory, or less: it goes on as it was begun.
                job = replace(job, method=start.method)
                check_memory(job.experiment, job.network, job.dataset, job.method)
        try:
            run = _Execution(job, start, fingerprint, lock, interruption).run()
        except MemoryError as error:
            raise FlowsimError(
                f"network.width = {job.network.width}: does not fit into memory; take a smaller "
                'width, integrate.dtype = "float32" or a method with fewer copies of the state '
                "(rdpk35, euler)"
            ) from error
        finally:
            if job.experiment.integrate.backend == "cuda":
                free_pool()
    return run, interruption.name


class _Execution:
    """One run while it is carried out."""

    def __init__(
        self,
        job: Job,
        start: Start,
        fingerprint: str,
        lock: RunLock | None,
        interruption: Interruption,
    ) -> None:
        self.job, self.start, self.interruption = job, start, interruption
        self.fingerprint = fingerprint
        self.flow = make_flow(
            job.network, job.dataset, job.experiment.integrate, job.method, job.initial
        )
        self.stepper = METHODS[job.method](method_options(job.experiment, job.dataset.y))
        self.rules = stop_rules(job.experiment)
        self.test_flow = _test_flow(job.dataset, self.flow)
        self.plans = plan_series(
            job.experiment.record, self.flow, job.observables, self.test_flow is not None,
            job.method in PARTS, TALLIES.get(job.method, ()),
        )  # fmt: skip
        about = attributes(job.experiment, self.flow, job.method)
        self.writer = RunWriter(
            job.places,
            {**about, "fingerprint": fingerprint},
            _cadence(job.experiment),
            lock,
            start.growing,
            start.keeps_target,
        )
        self.writer.write_group("data", data_group(job.dataset))
        estimated = job.experiment.integrate.estimate_error
        self.writer.expect_final(partial(final_template, self.flow, estimated))

    def run(self) -> Run:
        """Integrate, record, save."""
        try:
            with show_progress(self.job.progress, self.rules) as bar:
                recorder = Recorder(
                    self.flow, self.writer, self.plans, self.fingerprint, self.test_flow, bar,
                    PARTS.get(self.job.method, ()),
                )  # fmt: skip
                outcome = integrate(
                    self.flow,
                    self.stepper,
                    self.rules,
                    recorder,
                    self._continuation(),
                    self.interruption,
                )
            return self._end(recorder, outcome)
        except BaseException:
            self.writer.leave()
            raise

    def _continuation(self) -> Continuation | None:
        checkpoint: Checkpoint | None = self.start.checkpoint
        if checkpoint is None:
            return None
        read = checkpoint.contents
        # Taken out of the checkpoint: the state is held once, not twice.
        theta = self.flow.kernels.array(read.pop("theta"))
        point = Point.of(self.flow, read["time"], theta, read["residual"])
        return Continuation(
            point,
            read["counters"],
            read["stepper"],
            read["watch"],
            read["observer"],
            read.get("cut", False),
        )

    def _end(self, recorder: Recorder, outcome: Outcome) -> Run:
        """Last rows, estimate of the error, checkpoint, file."""
        # In its place one that holds no states: what follows makes copies of those that count.
        self.stepper = self.stepper.refined()
        estimate: dict[str, Array] = {}
        if outcome.status != PREEMPTED or self.job.places is None:
            try:
                recorder.finish(outcome)
            except StorageError as error:
                outcome.status, outcome.stop_reason = PREEMPTED, f"storage: {error}"
        if self.job.experiment.integrate.estimate_error and outcome.status == "complete":
            estimate = self._estimate_error(outcome)
        final = final_group(
            self.flow, outcome.point, outcome.counters, recorder.sup_relative_change, estimate
        )
        places = self.job.places
        long = recorder.has_checkpoint or self.start.checkpoint is not None
        if long or (outcome.status == PREEMPTED and self.writer.growing):
            self._checkpoint(recorder, outcome)
        contents = self.writer.finish(outcome.status, outcome.stop_reason, final)
        wanted = outcome.status == PREEMPTED or self.job.write_short
        if contents is not None and places is not None and wanted:
            self.writer.save(contents)
            if outcome.status == PREEMPTED and outcome.continuation is not None:
                recorder.write_checkpoint(places, outcome.continuation)
        if self.writer.written is not None:
            return Run(self.writer.written)
        assert contents is not None  # a run that is in no file
        return Run(contents)

    def _checkpoint(self, recorder: Recorder, outcome: Outcome) -> None:
        """Save where the run goes on; the checkpoint before that serves too if this one cannot."""
        if outcome.continuation is None or outcome.stop_reason.startswith("storage"):
            return
        try:
            recorder.save_checkpoint(outcome.continuation)
        except StorageError as error:
            if outcome.status == PREEMPTED:
                outcome.stop_reason = f"storage: {error}"

    def _estimate_error(self, outcome: Outcome) -> dict[str, Array]:
        """Run again, refined, and compare: relative change of each RD, largest change of f(x_i)."""
        flow = self.flow
        change = flow.relative_change(outcome.point.theta)
        again = integrate(flow, self.stepper, self.rules, NoObserver(), None, self.interruption)
        if again.status == PREEMPTED:
            outcome.status = PREEMPTED
            outcome.stop_reason = f"{again.stop_reason}, in the run that estimates the error"
            return {}
        finer = flow.relative_change(again.point.theta)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(finer == change, 0.0, np.abs(change - finer) / finer)
        difference = np.max(np.abs(again.point.residual - outcome.point.residual))
        return estimate_arrays(error, float(difference))


def stop_rules(experiment: Experiment) -> StopRules:
    """When a run of this experiment ends."""
    section = experiment.integrate
    return StopRules(
        stop_loss=section.stop_loss,
        t_max=math.inf if section.t_max is None else section.t_max,
        max_steps=section.max_steps,
        max_seconds=section.max_seconds,
        steady_slope=section.steady_slope,
        steady_min_time=section.steady_min_time,
    )


def _cadence(experiment: Experiment) -> Cadence:
    section = experiment.record
    return Cadence(
        seconds=section.flush.seconds,
        rows=section.flush.rows,
        checkpoint_seconds=section.checkpoint.seconds,
        compression=section.compression,
    )


def method_options(experiment: Experiment, y: np.ndarray) -> MethodOptions:
    """What its method is told, for targets y."""
    section = experiment.integrate
    # Residuals need relative accuracy, however small, down to what rounding leaves of them. Not
    # down to stop_loss: where a run is to end must not change its steps.
    atol = section.atol
    if atol is None:
        atol = _ROUNDING * float(np.finfo(section.dtype).eps * np.sqrt(np.mean(y**2)))
    return MethodOptions(
        rtol=section.rtol,
        atol=atol,
        first_step=section.first_step,
        step=section.step,
        step_fraction=section.step_fraction,
        max_relative_change=section.max_relative_change,
        late_step_fraction=section.late_step_fraction,
        batch_size=section.batch_size,
        momentum=section.momentum or 0.0,
        restart=section.restart,
        seed=experiment.network.seed,
    )


def _test_flow(dataset: Dataset, flow: NetworkFlow) -> NetworkFlow | None:
    """The network on the test set; None where there is none."""
    if dataset.x_test is None or dataset.y_test is None:
        return None
    return flow.on(dataset.x_test, network_targets(dataset.y_test))
