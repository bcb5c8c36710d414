"""All runs of a phase diagram in one file, over the axes of its grid; xarray opens it.

==================  =====================================================  =======================
array               axes                                                   meaning
==================  =====================================================  =======================
relative_change     gamma, gamma_prime, width, seed, layer                 RD at the stop; NaN
                                                                           where there is no run
sup_relative_change gamma, gamma_prime, width, seed, layer                 its largest value
ending              gamma, gamma_prime, width, seed                        why the run ended
predicted           gamma, gamma_prime, layer                              slope by theory
slope, slope_low,   gamma, gamma_prime, layer                              S and its interval
slope_high
confidence          gamma, gamma_prime, layer                              of the regime
regime              gamma, gamma_prime, layer                              as classified
zero_gamma,         zero                                                   the zero line of S of
zero_gamma_prime,                                                          the input weights, and
zero_low, zero_high                                                        its band
==================  =====================================================  =======================

The axes of three layers are gamma_3 and gamma_2. What all runs have in common is in the attribute
``config``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flowsim.analysis.classification import DEEP_AXES, TWO_LAYER_AXES, Classification
from flowsim.analysis.collect import RunRecord
from flowsim.errors import ConfigError, FileFormatError

FORMAT = "flowsim-phase/1"
_RUN_AXES = ("width", "seed")
_MOST_NUMBERS = 10**9


def is_phase_file(source: Any) -> bool:
    """Whether this is the path of such a file."""
    if not isinstance(source, str | os.PathLike) or not os.path.isfile(source):
        return False
    try:
        with h5py.File(source, "r") as file:
            return bool(file.attrs.get("format", "") == FORMAT)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError):
        return False  # damaged: who reads it as something else says so


def write_phase_file(
    path: str | os.PathLike[str], records: Sequence[RunRecord], classification: Classification
) -> None:
    """Write the runs of a sweep and what the classifier makes of them.

    Parameters
    ----------
    path : path
        Replaced if it exists; there entirely or not at all.
    records : sequence of RunRecord
        All runs, which differ in the two exponents, width and seed only.
    classification : Classification
        Of these runs.

    Raises
    ------
    ConfigError
        If they have no place on one grid of exponents.
    """
    deep = bool(records[0].predicted)
    names = DEEP_AXES if deep else TWO_LAYER_AXES
    _check_records(records, classification, names)
    layers = list(dict.fromkeys(name for point in classification.points for name in point.layers))
    axes: dict[str, list[Any]] = {
        names[0]: sorted({record.gamma for record in records}),
        names[1]: sorted({record.gamma_prime for record in records}),
        "width": sorted({record.width for record in records}),
        "seed": sorted({record.seed for record in records}),
        "layer": layers,
    }
    size = math.prod(len(values) for values in axes.values())
    if size > _MOST_NUMBERS:
        raise ConfigError(
            f"output = {os.fspath(path)}: the axes span {size:.3g} numbers; collect a sweep whose "
            "points lie on a grid"
        )
    arrays = _run_arrays(records, axes, names) | _point_arrays(classification, axes, names)
    arrays |= _zero_arrays(classification)
    target = Path(path)
    work = target.with_name(f"{target.name}~")
    with h5py.File(work, "w", libver="latest") as file:
        file.attrs["format"] = FORMAT
        file.attrs["config"] = json.dumps(_common_config(records[0], names))
        file.attrs["gamma_1"] = records[0].gamma_1
        file.attrs["margin"], file.attrs["confidence_level"] = (
            classification.margin,
            classification.confidence,
        )
        _write_arrays(file, axes, arrays)
    os.replace(work, target)


def read_phase_file(path: str | os.PathLike[str]) -> list[RunRecord]:
    """Return the runs in such a file, as the classifier wants them.

    Raises
    ------
    FileFormatError
        If it is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise FileFormatError(
            f"{os.fspath(path)}: cannot be read as a phase file ({' '.join(str(error).split())}); "
            "collect the sweep again"
        ) from error


def _check_records(
    records: Sequence[RunRecord], classification: Classification, names: tuple[str, str]
) -> None:
    differing = sorted({key for point in classification.points for key in point.other})
    if differing:
        raise ConfigError(
            f"source: its runs differ in {', '.join(differing)} as well; collect sweeps that "
            f"differ in {names[0]}, {names[1]}, width and seed only"
        )
    exponents = {record.config["scaling"].get(name) for record in records for name in names}
    if None in exponents or any(math.isnan(r.gamma + r.gamma_prime) for r in records):
        raise ConfigError(
            f"source: has no grid of {names[0]} and {names[1]}; give both in [scaling] or [grid]"
        )


def _common_config(record: RunRecord, names: tuple[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(record.config, default=str))
    for section, keys in (("scaling", names), ("network", _RUN_AXES)):
        config[section] = {k: v for k, v in config[section].items() if k not in keys}
    return config


Arrays = dict[str, tuple[tuple[str, ...], np.ndarray]]


def _run_arrays(
    records: Sequence[RunRecord], axes: Mapping[str, Sequence[Any]], names: tuple[str, str]
) -> Arrays:
    dims = (*names, *_RUN_AXES)
    places = {name: {value: k for k, value in enumerate(values)} for name, values in axes.items()}
    shape = tuple(len(axes[name]) for name in dims)
    change, sup = (np.full((*shape, len(axes["layer"])), np.nan) for _ in range(2))
    ending = np.full(shape, "", object)
    for record in records:
        where = (record.gamma, record.gamma_prime, record.width, record.seed)
        at = tuple(places[name][value] for name, value in zip(dims, where, strict=True))
        ending[at] = record.ending
        for array, values in ((change, record.relative_change), (sup, record.sup_relative_change)):
            for layer, value in values.items():
                array[(*at, places["layer"][layer])] = value
    with_layer = (*dims, "layer")
    return {
        "relative_change": (with_layer, change),
        "sup_relative_change": (with_layer, sup),
        "ending": (dims, ending),
    }


def _point_arrays(
    classification: Classification, axes: Mapping[str, Sequence[Any]], names: tuple[str, str]
) -> Arrays:
    dims = (*names, "layer")
    shape = tuple(len(axes[name]) for name in dims)
    keys = ("slope", "slope_low", "slope_high", "confidence", "predicted")
    arrays = {name: np.full(shape, np.nan) for name in keys}
    regime = np.full(shape, "", object)
    for point in classification.points:
        for k, layer in enumerate(axes["layer"]):
            verdict = point.layers[layer]
            at = (axes[names[0]].index(point.gamma), axes[names[1]].index(point.gamma_prime), k)
            low, high = verdict.ci or (None, None)
            found = (verdict.slope, low, high, verdict.confidence, verdict.predicted_slope)
            for name, value in zip(keys, found, strict=True):
                arrays[name][at] = math.nan if value is None else value
            regime[at] = verdict.regime
    return {name: (dims, array) for name, array in arrays.items()} | {"regime": (dims, regime)}


def _zero_arrays(classification: Classification) -> Arrays:
    zeros = classification.zero_line
    bands = [zero.band or (math.nan, math.nan) for zero in zeros]
    columns = {
        "zero_gamma": [zero.gamma for zero in zeros],
        "zero_gamma_prime": [zero.gamma_prime for zero in zeros],
        "zero_low": [low for low, _ in bands],
        "zero_high": [high for _, high in bands],
    }
    return {name: (("zero",), np.array(values, float)) for name, values in columns.items()}


def _write_arrays(file: h5py.File, axes: Mapping[str, Sequence[Any]], arrays: Arrays) -> None:
    text = h5py.string_dtype()
    n_zeros = len(arrays["zero_gamma"][1])
    for name, labels in {**axes, "zero": list(range(n_zeros))}.items():
        dtype = text if name == "layer" else None
        file.create_dataset(name, data=labels, dtype=dtype).make_scale(name)
    for name, (dims, values) in arrays.items():
        dtype = text if values.dtype == object else None
        dataset = file.create_dataset(name, data=values, dtype=dtype)
        for dimension, axis in zip(dataset.dims, dims, strict=True):
            dimension.attach_scale(file[axis])


def _read(file: h5py.File) -> list[RunRecord]:
    names = DEEP_AXES if DEEP_AXES[0] in file else TWO_LAYER_AXES
    layers = [str(name) for name in file["layer"].asstr()[()]]
    axes = [file[name][()] for name in (*names, *_RUN_AXES)]
    shape = tuple(len(values) for values in axes)
    ending = file["ending"].asstr()[()]
    change, sup = file["relative_change"][()], file["sup_relative_change"][()]
    predicted, common = file["predicted"][()], json.loads(str(file.attrs["config"]))
    if ending.shape != shape or not change.shape == sup.shape == (*shape, len(layers)):
        raise ValueError("its arrays do not go with its axes")
    records = []
    for at in zip(*np.nonzero(ending != ""), strict=True):
        gamma, gamma_prime = (float(values[k]) for values, k in zip(axes, at[:2], strict=False))
        width, seed = (int(values[k]) for values, k in zip(axes[2:], at[2:], strict=True))
        config = {section: dict(keys) for section, keys in common.items()}
        config["scaling"] |= {names[0]: gamma, names[1]: gamma_prime}
        config["network"] |= {"width": width, "seed": seed}
        point = predicted[at[0], at[1]]
        records.append(
            RunRecord(
                name=f"{names[0]} = {gamma:g}, {names[1]} = {gamma_prime:g}, m = {width}, "
                f"seed {seed}",
                config=config,
                width=width,
                seed=seed,
                gamma=gamma,
                gamma_prime=gamma_prime,
                kappa=width**-gamma,
                kappa_prime=width**-gamma_prime,
                relative_change=_known(layers, change[at]),
                sup_relative_change=_known(layers, sup[at]),
                ending=str(ending[at]),
                predicted=_known(layers, point) if names == DEEP_AXES else {},
                gamma_1=float(file.attrs["gamma_1"]),
            )
        )
    return records


def _known(layers: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: float(x) for name, x in zip(layers, values, strict=True) if not math.isnan(x)}
