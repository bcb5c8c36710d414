"""Writes a run in formats that other programs read: npz, csv, H5MD."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from flowsim.errors import ConfigError, FlowsimError
from flowsim.recording.opening import check_replaceable
from flowsim.recording.places import put
from flowsim.recording.reader import RunFile

_H5MD_VERSION = (1, 1)


def export(run: RunFile, to: str, output: str | Path, group: str = "observables") -> Path:
    """Write a run in another format.

    Parameters
    ----------
    run : RunFile
    to : str
        ``npz`` (every array, named ``observables/loss``), ``csv`` (one group, a row a moment,
        vectors as columns ``residual_0``, ...) or ``h5md`` (the neurons as particles).
    output : path
    group : str
        For csv: the group.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        If there is no such format, or no such group, or the output is a run or beside one.
    StorageError
        If it cannot be written.
    """
    if to not in FORMATS:
        raise ConfigError(f"to = {to!r}: unknown format; choose from {', '.join(FORMATS)}")
    output = Path(output)
    if output.is_dir():
        raise ConfigError(f"output = {output}: is a folder; name a file in it")
    check_replaceable("output", output)
    put(output, FORMATS[to](run, group))
    return output


def _npz(run: RunFile, group: str) -> bytes:
    arrays = {
        f"{name}/{key}": run.group(name)[key] for name in run.groups for key in run.group(name)
    }
    arrays |= {f"attributes/{key}": np.array(value) for key, value in run.attributes.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _csv(run: RunFile, group: str) -> bytes:
    series = [name for name in run.groups if name != "final" and run.group(name).time_name]
    if group not in series:
        raise ConfigError(
            f"group = {group!r}: has no rows in this run; choose from {', '.join(series)}"
        )
    arrays = run.group(group)
    columns: dict[str, np.ndarray] = {}
    for name in arrays:
        values = arrays[name]
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        if values.ndim == 1:
            columns[name] = values
        else:
            by_layer = arrays.array(name).dims[1:] == ("layer",)
            labels = run.layers if by_layer else range(flat.shape[1])
            columns |= {f"{name}_{label}": flat[:, k] for k, label in enumerate(labels)}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    # repr of a float reads back to the same bits.
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    return text.getvalue().encode()


def _h5md(run: RunFile, group: str) -> bytes:
    """H5MD 1.1 (de Buyl, Colberg, Hofling 2014): neurons are particles in input-weight space."""
    if "layers" in run.attributes:
        raise FlowsimError(
            f"{run.path}: the neurons of a deep network are not particles of one space; "
            "export it to npz or csv"
        )
    if "time_snapshot" not in run.snapshots:
        raise FlowsimError(f"{run.path}: has no snapshots, which H5MD is made of; record some")
    with h5py.File.in_memory() as file:
        root = file.create_group("h5md")
        root.attrs["version"] = np.array(_H5MD_VERSION, np.int32)
        root.create_group("author").attrs["name"] = "flowsim"
        creator = root.create_group("creator")
        creator.attrs["name"], creator.attrs["version"] = "flowsim", str(run.attributes["format"])
        _particles(file.create_group("particles/neurons"), run)
        times, steps = run.time, _steps(run)
        for name in run.observables:
            if name not in ("time", "step"):
                _element(file, f"observables/{name}", run.observables[name], times, steps)
        file.attrs["config"] = str(run.attributes.get("config", ""))
        file.flush()
        return bytes(file.id.get_file_image())


def _particles(group: h5py.Group, run: RunFile) -> None:
    weights = run.snapshots["input_weights"]
    box = group.create_group("box")
    box.attrs["dimension"] = weights.shape[1]
    box.attrs["boundary"] = ["none"] * weights.shape[1]
    times = run.snapshots["time_snapshot"]
    # Snapshots lie between steps; the step is the one that had been taken by then.
    steps = np.zeros(len(times), np.int64)
    if "step" in run.observables:
        rows = np.searchsorted(run.time, times, side="right") - 1
        steps = run.observables["step"][np.maximum(rows, 0)]
    _element(group, "position", np.swapaxes(weights, 1, 2), times, steps)
    _element(group, "output_weights", run.snapshots["output_weights"], times, steps)


def _steps(run: RunFile) -> np.ndarray:
    if "step" in run.observables:
        return run.observables["step"]
    return np.arange(len(run.time))


def _element(
    parent: h5py.Group, name: str, values: np.ndarray, times: np.ndarray, steps: np.ndarray
) -> None:
    group = parent.create_group(name)
    group["value"], group["time"], group["step"] = values, times, steps
    group["time"].attrs["unit"] = "tau"


FORMATS: dict[str, Callable[[RunFile, str], bytes]] = {"npz": _npz, "csv": _csv, "h5md": _h5md}
"""Formats by name: from a run and a group's name to the bytes of a file."""
