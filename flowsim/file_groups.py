"""What a run's file holds besides its rows: attributes, ``/data`` and ``/final``."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

import flowsim
from flowsim.config import Experiment
from flowsim.data import Dataset
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.kernels.cuda.device import describe
from flowsim.kernels.losses import LOSSES, SQUARE
from flowsim.networks.flow import NetworkFlow
from flowsim.preparation import network_targets
from flowsim.recording.contents import Array, GroupContents
from flowsim.recording.format import CONVENTION, DEEP_CONVENTION
from flowsim.steppers import PARTS
from flowsim.steppers.base import Point
from flowsim.steppers.events import Counters


def attributes(experiment: Experiment, flow: NetworkFlow, method: str) -> dict[str, Any]:
    """Everything one wants to know before opening a group.

    Parameters
    ----------
    experiment : Experiment
    flow : NetworkFlow
    method : str
        With ``auto`` resolved.
    """
    network, loss = flow.network, flow.loss_function.name
    return {
        "config": experiment.to_toml(),
        "config_hash": experiment.hash(),
        "seed": network.seed,
        "versions": json.dumps(_versions()),
        "hardware": json.dumps(_hardware(flow)),
        "backend": flow.backend,
        "dtype": str(flow.dtype),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "convention": _convention(experiment, flow),
        "network": experiment.network.kind,
        "method": method,
        **({"methods": " ".join(PARTS[method])} if method in PARTS else {}),
        "width": network.width,
        "n_samples": flow.n_samples,
        "n_inputs": flow.field.x.shape[1],
        "activation": experiment.network.activation,
        "antisymmetric": network.antisymmetric,
        **network.numbers,
        **({"first_step": json.dumps(flow.first_step.numbers)} if flow.first_step else {}),
        **({} if loss == SQUARE else {"loss": loss}),
    }


def _convention(experiment: Experiment, flow: NetworkFlow) -> str:
    text = DEEP_CONVENTION if experiment.network.kind == "deep" else CONVENTION
    return text.replace(LOSSES[SQUARE].formula, flow.loss_function.formula)


def data_group(dataset: Dataset) -> GroupContents:
    """Inputs and targets, and what has been done to them."""
    arrays = {
        "x": Array(dataset.x, ("sample", "input"), "inputs, bias coordinate included"),
        "y": _targets(dataset.y, "sample", "targets"),
    }
    if dataset.x_test is not None and dataset.y_test is not None:
        arrays["x_test"] = Array(dataset.x_test, ("test_sample", "input"), "inputs of the test set")
        arrays["y_test"] = _targets(dataset.y_test, "test_sample", "targets of the test set")
    done = dataset.normalisation
    if done.shift is not None and done.scale is not None:
        # With the bias coordinate, which stays as it is, they go with x column by column.
        shift, scale = done.shift, done.scale
        if dataset.bias:
            shift, scale = np.append(shift, 0.0), np.append(scale, 1.0)
        what = "of the inputs before x = (input - shift)/scale"
        arrays["input_shift"] = Array(shift, ("input",), f"shift {what}")
        arrays["input_scale"] = Array(scale, ("input",), f"scale {what}")
    about = {"bias": dataset.bias, "kind": dataset.kind, "normalisation": done.name}
    return GroupContents(arrays, attributes={**about, **dataset.notes})


def _targets(y: np.ndarray, axis: str, what: str) -> Array:
    values = network_targets(y)
    return Array(values, (axis, "output")[: values.ndim], what, "y")


def final_group(
    flow: NetworkFlow,
    point: Point,
    counters: Counters,
    sup_relative_change: np.ndarray,
    estimate: Mapping[str, Array],
) -> GroupContents:
    """The end of a run.

    Parameters
    ----------
    flow, point, counters
    sup_relative_change : (layers,) array
        Over the recorded rows.
    estimate : mapping
        See `estimate_arrays`; empty if none was asked for.
    """
    weights = {
        name: values.astype(np.float64) for name, values in flow.parameters(point.theta).items()
    }
    numbers = _final_numbers(flow, point, counters, sup_relative_change)
    return GroupContents({**_final_weights(flow, weights), **numbers, **estimate})


def _final_weights(flow: NetworkFlow, weights: Mapping[str, np.ndarray]) -> dict[str, Array]:
    return {
        name: Array(
            values, flow.parameter_dims[name], f"{name.replace('_', ' ')} at the end, normalised"
        )
        for name, values in weights.items()
    }


def _final_numbers(
    flow: NetworkFlow, point: Point, counters: Counters, sup_relative_change: np.ndarray
) -> dict[str, Array]:
    change, loss = flow.relative_change(point.theta), flow.loss_function
    operator = getattr(flow, "operator_change", None)
    rd = "RD = |theta(t) - theta(0)| / |theta(0)| of each group of weights"
    layers = ("layer",)
    own: dict[str, Array] = {}
    if operator is not None:
        own["operator_change"] = Array(
            operator(point.theta), layers, "RD of each group of weights in operator norm"
        )
    return {
        "time": Array(np.array(point.time), (), "tau at the end", "tau"),
        "loss": Array(np.array(point.loss), (), loss.formula, loss.units),
        "residual": Array(point.residual, flow.output_dims, "e_i = f(x_i) - y_i", "y"),
        "relative_change": Array(change, layers, rd),
        "sup_relative_change": Array(
            sup_relative_change, layers, "largest RD of the recorded rows"
        ),
        **own,
        "n_steps": Array(np.array(counters.n_steps), (), "accepted steps"),
        "n_rejected": Array(np.array(counters.n_rejected), (), "rejected steps"),
        "n_restarts": Array(np.array(counters.n_restarts), (), "restarts from t = 0"),
    }


def final_template(flow: NetworkFlow, estimated: bool) -> GroupContents:
    """The end of a run that has not ended: the same arrays, NaN where they hold real numbers."""
    unknown = np.full(len(flow.groups), np.nan)
    nothing = Point(math.nan, flow.initial, np.full(flow.y.shape, np.nan), math.nan)
    estimate = estimate_template(flow.groups) if estimated else {}
    numbers = {**_final_numbers(flow, nothing, Counters(), unknown), **estimate}
    for array in numbers.values():
        if array.values.dtype.kind == "f":
            array.values[...] = np.nan
    # One number seen everywhere: a copy of the weights would be one too many for large networks.
    weights = {
        name: np.broadcast_to(np.nan, shape) for name, shape in flow.parameter_shapes().items()
    }
    return GroupContents({**_final_weights(flow, weights), **numbers})


def estimate_arrays(relative_change: np.ndarray, outputs: float) -> dict[str, Array]:
    """Estimated errors, as arrays of ``/final``.

    Parameters
    ----------
    relative_change : (layers,) array
        Relative errors of RD.
    outputs : float
        Largest error of f(x_i).
    """
    return {
        "error_relative_change": Array(
            relative_change, ("layer",), "estimated relative error of RD"
        ),
        "error_outputs": Array(
            np.array(outputs), (), "estimated error of f(x_i), the largest", "y"
        ),
    }


def estimate_template(groups: Sequence[str]) -> dict[str, Array]:
    """The same of a run that has not ended, for the ``groups`` of its flow: NaN."""
    return estimate_arrays(np.full(len(groups), np.nan), math.nan)


def _hardware(flow: NetworkFlow) -> dict[str, Any]:
    found = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": usable_cores(),
        "threads": flow.threads,
    }
    if flow.backend == "cuda":
        found |= describe(flow.device)
    return found


def _versions() -> dict[str, str]:
    import h5py
    import numba
    import scipy

    modules = (flowsim, np, scipy, numba, h5py)
    return {
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in modules},
    }
