"""What attributes and arrays of a run must be, for a file that HDF5 reads well to make sense.

A file may have been written by anybody. Values are not judged here, only what the code that reads
them takes for granted: that a number is a number, and that an array has the axes it should have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from flowsim.errors import FileFormatError
from flowsim.recording.format import layers_of

_TEXTS = (
    *("format", "layout", "status", "stop_reason", "config", "config_hash", "fingerprint"),
    *("versions", "hardware", "backend", "dtype", "created", "convention", "network", "method"),
    *("activation", "kind", "normalisation", "classes", "target", "layers", "widths"),
    *("exponents", "multipliers", "standard_deviations", "mobilities", "bias_multipliers", "loss"),
)
_INTEGERS = (
    *("seed", "width", "n_samples", "n_inputs", "n_outputs", "positive_class", "hidden_layers"),
)
_NUMBERS = (
    *("gamma", "gamma_prime", "kappa", "kappa_prime", "alpha", "beta1", "beta2"),
    *("gamma_1", "gamma_2", "gamma_3"),
)
_FLAGS = ("antisymmetric", "bias", "biases")

ATTRIBUTES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_TEXTS, (str,)),
    **dict.fromkeys(_INTEGERS, (int,)),
    **dict.fromkeys(_NUMBERS, (int, float)),
    **dict.fromkeys(_FLAGS, (bool, int)),
}
"""Types of known attributes; any other is a number or a text."""

_NAMES: dict[tuple[type, ...], str] = {
    (str,): "a text",
    (int,): "a whole number",
    (int, float): "a number",
    (bool, int): "true or false",
}

_N_LAYERS = -1
"""Stands for as many as the file has groups of weights."""

_N_OUTPUTS = -2
"""Stands for an axis of the outputs where there are several, and for none where there is one."""

ARRAYS: dict[str, dict[str, tuple[str, tuple[int | None, ...]]]] = {
    "observables": {
        "time": ("f", (None,)),
        "step": ("i", (None,)),
        "loss": ("f", (None,)),
        "residual": ("f", (None, None, _N_OUTPUTS)),
        "accuracy": ("f", (None,)),
        "relative_change": ("f", (None, _N_LAYERS)),
        "norm": ("f", (None, _N_LAYERS)),
        "invariant_drift": ("f", (None,)),
        "balance_drift": ("f", (None,)),
        "operator_change": ("f", (None, _N_LAYERS)),
        "effective_rank": ("f", (None, _N_LAYERS)),
        "mean_cosine": ("f", (None, None)),
        "mean_squared_cosine": ("f", (None, None)),
        "kernel_alignment": ("f", (None, _N_LAYERS)),
        "centred_kernel_alignment": ("f", (None, _N_LAYERS)),
        "kernel_distance": ("f", (None, _N_LAYERS)),
        "active_neurons": ("i", (None,)),
        "dead_neurons": ("i", (None,)),
        "dt": ("f", (None,)),
        "n_rhs": ("i", (None,)),
        "n_passes": ("i", (None,)),
        "n_rejected": ("i", (None,)),
        "wall_seconds": ("f", (None,)),
        "test_loss": ("f", (None,)),
        "test_accuracy": ("f", (None,)),
    },
    "snapshots": {
        "time_snapshot": ("f", (None,)),
        "output_weights": ("f", (None, None, _N_OUTPUTS)),
        "input_weights": ("f", (None, None, None)),
    },
    "kernel": {
        "time_kernel": ("f", (None,)),
        "eigenvalues": ("f", (None, None)),
        "distance": ("f", (None,)),
    },
    "data": {
        "x": ("f", (None, None)),
        "y": ("f", (None, _N_OUTPUTS)),
        "x_test": ("f", (None, None)),
        "y_test": ("f", (None, _N_OUTPUTS)),
        "input_shift": ("f", (None,)),
        "input_scale": ("f", (None,)),
    },
    "final": {
        "output_weights": ("f", (None, _N_OUTPUTS)),
        "input_weights": ("f", (None, None)),
        "time": ("f", ()),
        "loss": ("f", ()),
        "residual": ("f", (None, _N_OUTPUTS)),
        "relative_change": ("f", (_N_LAYERS,)),
        "sup_relative_change": ("f", (_N_LAYERS,)),
        "operator_change": ("f", (_N_LAYERS,)),
        "n_steps": ("i", ()),
        "n_rejected": ("i", ()),
        "n_restarts": ("i", ()),
        "error_relative_change": ("f", (_N_LAYERS,)),
        "error_outputs": ("f", ()),
    },
}
"""Kind (f for numbers, i for whole ones) and shape of the known arrays of a run, by group."""

_KINDS = {"f": ("fiu", "numbers"), "i": ("iu", "whole numbers")}


def check_attributes(path: str, attributes: Mapping[str, Any]) -> None:
    """Check the attributes of a run or of a group.

    Raises
    ------
    FileFormatError
    """
    for name, value in attributes.items():
        wanted = ATTRIBUTES.get(name, (str, bool, int, float))
        flag_for_number = isinstance(value, bool) and bool not in wanted
        if not isinstance(value, wanted) or flag_for_number:
            what = _NAMES.get(wanted, "a number or a text")
            raise FileFormatError(
                f"{path}: attribute {name!r} is {type(value).__name__}, not {what}; damaged or not "
                "written by flowsim"
            )


def check_array(place: str, dataset: h5py.Dataset, group: str, name: str, of_runs: bool) -> None:
    """Check the kind and the shape of an array.

    Parameters
    ----------
    place : str
        For messages.
    dataset : h5py.Dataset
    group, name : str
    of_runs : bool
        It has an axis for the runs of an ensemble besides its own.

    Raises
    ------
    FileFormatError
    """
    expected = ARRAYS.get(group, {}).get(name)
    if expected is None:
        return
    kinds, what = _KINDS[expected[0]]
    if dataset.dtype.kind not in kinds:
        given = "text" if dataset.dtype.kind in "OS" else str(dataset.dtype)
        raise FileFormatError(f"{place} is {given}, not {what}; damaged")
    shape = dataset.shape[1:] if of_runs else dataset.shape
    attributes = dataset.file.attrs
    outputs = plain(attributes.get("n_outputs", 1))
    outputs = outputs if isinstance(outputs, int) else 1
    sizes = {_N_LAYERS: len(layers_of(attributes)), _N_OUTPUTS: outputs}
    present = [size for size in expected[1] if size != _N_OUTPUTS or outputs > 1]
    axes_wanted = [size if size is None else sizes.get(size, size) for size in present]
    fits = len(shape) == len(axes_wanted) and all(
        wanted in (None, size) for wanted, size in zip(axes_wanted, shape, strict=True)
    )
    if not fits:
        axes = ", ".join("any" if size is None else str(size) for size in axes_wanted)
        raise FileFormatError(f"{place} has shape {shape}, not ({axes}); damaged")


def plain(value: Any) -> Any:
    """An attribute as a Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    return value.item() if isinstance(value, np.generic) else value
