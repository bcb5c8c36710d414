"""The Python interface to single runs: `simulate` and `open`."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import flowsim
from flowsim.config import Experiment
from flowsim.data import Dataset
from flowsim.errors import ConfigError, FlowsimError
from flowsim.kernels.activations import ACTIVATIONS, Activation, ActivationError
from flowsim.kernels.cpu.threads import one_blas_thread, usable_cores
from flowsim.networks.two_layer import TwoLayerFlow
from flowsim.preparation import (
    Initial,
    Source,
    check_memory,
    check_output,
    initial_state,
    make_network,
    resolve,
    scalar_targets,
)
from flowsim.progress import show_progress
from flowsim.recording.format import CONVENTION
from flowsim.recording.observables import Frame
from flowsim.recording.plans import plan_series
from flowsim.recording.recorder import Recorder
from flowsim.recording.writer import RunWriter
from flowsim.result import Run
from flowsim.scaling import Scaling
from flowsim.steppers.base import Point, Stepper
from flowsim.steppers.driver import Outcome, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.methods import MethodOptions, make_stepper


def open(path: str | Path) -> Run:  # noqa: A001 - it reads flowsim.open
    """Open a run file.

    Parameters
    ----------
    path : path

    Returns
    -------
    Run
        Its arrays are read when they are asked for.

    Raises
    ------
    FileFormatError
        If it is not a run file, damaged, or of a newer format version.
    """
    return Run(path)


def simulate(
    experiment: Source | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    dataset: Dataset | None = None,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    x_test: np.ndarray | None = None,
    y_test: np.ndarray | None = None,
    initial: Initial | None = None,
    activation: Activation | None = None,
    observables: Mapping[str, Callable[[Frame], Any]] | None = None,
    progress: bool = False,
    **sections: Mapping[str, Any],
) -> Run:
    """Integrate one network's flow and return the run.

    Parameters
    ----------
    experiment : path, mapping or Experiment, optional
        An experiment file, or the same as Python objects.
    output : path, optional
        The run file; without it the run is kept in memory.
    overwrite : bool
        Replace an existing output.
    dataset, x, y, x_test, y_test : Dataset or arrays, optional
        Data in place of the ``data`` section: x (n, inputs) without the bias coordinate, which is
        added unless ``data={"bias": False}``; y (n,).
    initial : mapping, path or Run, optional
        Initial weights in place of random ones, normalised: ``output_weights`` (m,) and
        ``input_weights`` (d, m), bias weights last (with antisymmetric initial values the second
        copy is added, unless both are given); or a run, whose final weights are taken.
    activation : Activation, optional
        A script's own activation.
    observables : mapping, optional
        Names to functions of a `flowsim.recording.observables.Frame`; saved with the others.
    progress : bool
        Show a progress bar if standard error is a terminal.
    **sections : mapping
        Sections of the experiment, e.g. ``network={"width": 1000}``; they add to ``experiment``
        and override it.

    Returns
    -------
    Run
        Whatever the ending: ``status`` and ``stop_reason`` tell. Ctrl-C ends the run like a time
        limit, with everything saved.

    Raises
    ------
    ConfigError
        With all that is wrong with the experiment, before anything is computed or written.
    FlowsimError
        If the output cannot be written or the network does not fit into memory.
    """
    arrays = dict(x=x, y=y, x_test=x_test, y_test=y_test)
    given = {name: value for name, value in arrays.items() if value is not None}
    resolved, dataset = resolve(experiment, sections, dataset, given, activation)
    target = check_output(output, overwrite)
    activation = activation or ACTIVATIONS[resolved.network.activation]
    network = make_network(resolved, dataset, activation)
    integration = resolved.integrate
    targets = scalar_targets(dataset.y, "y")
    check_memory(network, dataset.n_inputs, integration.dtype)
    state = None if initial is None else initial_state(network, dataset, initial)
    try:
        with one_blas_thread():
            flow = TwoLayerFlow(
                network,
                dataset.x,
                targets,
                initial=state,
                backend=integration.backend,
                dtype=integration.dtype,
                threads=integration.threads or usable_cores(),
            )
            return _run(resolved, dataset, flow, target, observables or {}, progress)
    except ActivationError as error:
        raise ConfigError(str(error)) from error
    except MemoryError as error:
        raise FlowsimError(
            f"network.width = {network.width}: does not fit into memory; take a smaller width, "
            'integrate.dtype = "float32" or a method with fewer copies of the state (euler)'
        ) from error


def _stop_rules(experiment: Experiment) -> StopRules:
    section = experiment.integrate
    return StopRules(
        stop_loss=section.stop_loss,
        t_max=math.inf if section.t_max is None else section.t_max,
        max_steps=section.max_steps,
        max_seconds=section.max_seconds,
        steady_slope=section.steady_slope,
        steady_min_time=section.steady_min_time,
    )


def _stepper(experiment: Experiment, flow: TwoLayerFlow) -> tuple[str, Stepper]:
    section = experiment.integrate
    atol = section.atol
    if atol is None:
        # A residual of the size at which the run stops needs no more than rtol of that size.
        atol = section.rtol * math.sqrt(2.0 * section.stop_loss)
    options = MethodOptions(
        rtol=section.rtol,
        atol=atol,
        first_step=section.first_step,
        step=section.step,
        step_fraction=section.step_fraction,
        max_relative_change=section.max_relative_change,
    )
    return make_stepper(section.method, options, flow.kinked)


def _run(
    experiment: Experiment,
    dataset: Dataset,
    flow: TwoLayerFlow,
    target: Path | None,
    own: Mapping[str, Callable[[Frame], Any]],
    progress: bool,
) -> Run:
    """Integrate, record, estimate the error if asked, and open the result."""
    method, stepper = _stepper(experiment, flow)
    rules = _stop_rules(experiment)
    test_residual = _test_residual(dataset, flow)
    plans = plan_series(experiment.record, flow, own, test_residual)
    writer = RunWriter(target, _attributes(experiment, dataset, flow, method))
    try:
        _write_data(writer, dataset)
        with show_progress(progress, rules) as bar:
            recorder = Recorder(flow, writer, plans, test_residual, bar)
            outcome = integrate(flow, stepper, rules, recorder)
            recorder.finish(outcome)
        estimate: dict[str, Any] = {}
        if experiment.integrate.estimate_error and outcome.status == "complete":
            estimate = _estimate_error(flow, stepper, rules, outcome)
        _write_final(writer, flow, outcome, recorder, estimate)
        image = writer.finish(outcome.status, outcome.stop_reason)
    except BaseException:
        writer.abandon()
        raise
    return Run(image if image is not None else str(target))


def _test_residual(dataset: Dataset, flow: TwoLayerFlow) -> Callable[[Any], np.ndarray] | None:
    """From a state to f - y on the test set; None where there is none."""
    if dataset.x_test is None or dataset.y_test is None:
        return None
    on_test = TwoLayerFlow(
        flow.network,
        dataset.x_test,
        scalar_targets(dataset.y_test, "y_test"),
        initial=flow.initial,
        backend=flow.backend,
        dtype=flow.dtype,
        threads=flow.threads,
    )
    return on_test.residual


class _NoObserver:
    """Watches nothing."""

    def start(self, point: Point) -> None:
        """Nothing to do."""

    def step(self, *_: Any) -> None:
        """Nothing to do."""


def _estimate_error(
    flow: TwoLayerFlow, stepper: Stepper, rules: StopRules, outcome: Outcome
) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Run again, refined, and compare: relative change of each RD, largest change of f(x_i)."""
    change = flow.relative_change(outcome.point.theta)
    again = integrate(flow, stepper.refined(), rules, _NoObserver())
    finer = flow.relative_change(again.point.theta)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(finer == change, 0.0, np.abs(change - finer) / finer)
    difference = np.max(np.abs(again.point.residual - outcome.point.residual))
    return {
        "error_relative_change": (error, ("layer",)),
        "error_outputs": (float(difference), ()),
    }


def _write_data(writer: RunWriter, dataset: Dataset) -> None:
    arrays: dict[str, tuple[Any, tuple[str, ...]]] = {
        "x": (dataset.x, ("sample", "input")),
        "y": (scalar_targets(dataset.y, "y"), ("sample",)),
    }
    if dataset.x_test is not None and dataset.y_test is not None:
        arrays["x_test"] = dataset.x_test, ("test_sample", "input")
        arrays["y_test"] = scalar_targets(dataset.y_test, "y_test"), ("test_sample",)
    writer.write_group("data", arrays, {"bias": dataset.bias})


def _write_final(
    writer: RunWriter,
    flow: TwoLayerFlow,
    outcome: Outcome,
    recorder: Recorder,
    estimate: Mapping[str, tuple[Any, tuple[str, ...]]],
) -> None:
    point, counters = outcome.point, outcome.counters
    arrays: dict[str, tuple[Any, tuple[str, ...]]] = {
        name: (values.astype(np.float64), flow.parameter_dims[name])
        for name, values in flow.parameters(point.theta).items()
    }
    arrays |= {
        "time": (point.time, ()),
        "loss": (point.loss, ()),
        "residual": (point.residual, ("sample",)),
        "relative_change": (flow.relative_change(point.theta), ("layer",)),
        "sup_relative_change": (recorder.sup_relative_change, ("layer",)),
        "n_steps": (counters.n_steps, ()),
        "n_rejected": (counters.n_rejected, ()),
        "n_restarts": (counters.n_restarts, ()),
        **estimate,
    }
    writer.write_group("final", arrays)


def _attributes(
    experiment: Experiment, dataset: Dataset, flow: TwoLayerFlow, method: str
) -> dict[str, Any]:
    """Attributes of the file: everything one wants to know before opening a group."""
    scaling: Scaling = flow.network.scaling
    numbers = ("gamma", "gamma_prime", "kappa", "kappa_prime", "alpha", "beta1", "beta2")
    return {
        "config": experiment.to_toml(),
        "config_hash": experiment.hash(),
        "seed": flow.network.seed,
        "versions": json.dumps(_versions()),
        "hardware": json.dumps(
            {
                "machine": platform.machine(),
                "system": platform.system(),
                "cores": usable_cores(),
                "threads": flow.threads,
            }
        ),
        "backend": flow.backend,
        "dtype": str(flow.dtype),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "convention": CONVENTION,
        "network": experiment.network.kind,
        "method": method,
        "width": scaling.width,
        "n_samples": flow.n_samples,
        "n_inputs": dataset.x.shape[1],
        "activation": experiment.network.activation,
        "antisymmetric": flow.network.antisymmetric,
        **{name: getattr(scaling, name) for name in numbers},
    }


def _versions() -> dict[str, str]:
    import h5py
    import numba
    import scipy

    modules = (flowsim, np, scipy, numba, h5py)
    return {
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in modules},
    }
