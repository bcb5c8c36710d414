"""Ensembles: runs of the same shape, which differ in their seed, in one file.

Every array of a growing group and of ``/final`` has a leading axis ``run``; rows beyond those of a
run (``n_rows``) are filled with NaN, or -1 in arrays of integers. What a single run has as an
attribute and is not the same for all, or says how the run ended, is an array (run,) of that name
at the root. A run is read from an ensemble as it would be from a file of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flowsim.errors import FlowsimError
from flowsim.recording.contents import Array, GroupContents, RunContents
from flowsim.recording.hdf5 import create_file, write_contents
from flowsim.recording.places import cannot_write, put, unfinished

LAYOUT = "ensemble"
"""Value of the file's attribute ``layout``."""

ROOT = "/"
"""Name of the group of the arrays that lie in the file itself."""

N_ROWS = "n_rows"
RUN, ROW = "run", "row"
"""Axes of an ensemble: its runs, and the rows of a growing group."""

OF_A_RUN = {
    "seed": "seed of the initial values",
    "status": "how the run ended",
    "stop_reason": "why the run ended",
    "config": "resolved experiment (TOML)",
    "config_hash": "SHA-256 of all that determines the numbers",
    "fingerprint": "SHA-256 of all that determines the path, whenever it ends",
    "created": "date and time",
}
"""Attributes that are arrays in every ensemble, also where they happen to be equal."""

_LARGEST_IMAGE = 1 << 28
"""Bytes up to which a file is prepared in memory."""


def ensemble_contents(members: Sequence[RunContents]) -> RunContents:
    """Put runs together.

    Parameters
    ----------
    members : sequence of RunContents
        With equal groups, whose arrays differ in nothing but the number of rows.

    Returns
    -------
    RunContents
        The group ``/`` has the arrays at the root.

    Raises
    ------
    FlowsimError
        If there are none, or their shapes do not fit together.
    """
    if not members:
        raise FlowsimError("members = []: an ensemble has at least one run; give one or more")
    attributes, arrays = _attributes([member.attributes for member in members])
    names = dict.fromkeys(name for member in members for name in member.groups)
    groups = {ROOT: GroupContents(arrays)}
    for name in names:
        groups[name] = _group(name, [member.groups.get(name) for member in members])
    return RunContents({"layout": LAYOUT, **attributes}, groups)


def write_ensemble(
    path: Path, members: Sequence[RunContents], compression: str = "none"
) -> RunContents:
    """Write an ensemble file: it is there entirely or not at all, whatever happens meanwhile.

    Parameters
    ----------
    path : Path
    members : sequence of RunContents
        In the order of the axis ``run``.
    compression : str
        See `flowsim.recording.hdf5`.

    Returns
    -------
    RunContents
        What was written.

    Raises
    ------
    FlowsimError
        See `ensemble_contents`.
    StorageError
        If it cannot be written; what was there before is still there.
    """
    contents = ensemble_contents(members)
    if _n_bytes(contents) <= _LARGEST_IMAGE:
        with create_file(None) as file:
            _write(file, contents, compression)
            file.flush()
            image = bytes(file.id.get_file_image())
        put(path, image)
    else:
        _write_large(path, contents, compression)
    return contents


def _write_large(path: Path, contents: RunContents, compression: str) -> None:
    """Write without holding the file in memory as well."""
    work = unfinished(path)
    try:
        # HDF5 does not survive a full disk: ask for the space before it begins.
        with open(work, "wb") as empty:
            os.posix_fallocate(empty.fileno(), 0, _n_bytes(contents))
        with create_file(work) as file:
            _write(file, contents, compression)
        with open(work, "rb+") as synced:
            os.fsync(synced.fileno())
        os.replace(work, path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def _write(file: h5py.File, contents: RunContents, compression: str) -> None:
    write_contents(file, contents, compression)
    for name, group in contents.groups.items():
        for key, array in group.arrays.items():
            if name != ROOT and key != N_ROWS and array.dims[:1] == (RUN,):
                _mark_fill(file[name][key])


def _mark_fill(dataset: h5py.Dataset) -> None:
    """Let xarray know what stands for nothing; of floats it knows."""
    if dataset.dtype.kind == "i":
        dataset.attrs.create("_FillValue", -1, dtype=dataset.dtype)


def _n_bytes(contents: RunContents) -> int:
    groups = contents.groups.values()
    return sum(array.values.nbytes for group in groups for array in group.arrays.values())


def _attributes(members: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Sort attributes into those of the file and arrays with an entry for each run."""
    common: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    names = dict.fromkeys(name for attributes in members for name in attributes)
    for name in names:
        values = [attributes.get(name) for attributes in members]
        if name not in OF_A_RUN and all(value == values[0] for value in values):
            common[name] = values[0]
            continue
        known = next(value for value in values if value is not None)
        missing: Any = "" if isinstance(known, str) else -1
        filled = [missing if value is None else value for value in values]
        long_name = OF_A_RUN.get(name, f"attribute {name} of the run")
        arrays[name] = Array(np.array(filled), (RUN,), long_name)
    return common, arrays


def _group(name: str, members: Sequence[GroupContents | None]) -> GroupContents:
    """One group of an ensemble from those of its runs; None where a run has no such group."""
    present = [member for member in members if member is not None]
    time_name = next((member.time_name for member in present if member.time_name), "")
    names = dict.fromkeys(key for member in present for key in member.arrays)
    columns = {
        key: [None if member is None else member.arrays.get(key) for member in members]
        for key in names
    }
    ensemble = GroupContents(attributes=dict(present[0].attributes))
    if time_name:
        n_rows = np.array([0 if a is None else len(a.values) for a in columns[time_name]])
        for key, column in columns.items():
            ensemble.arrays[key] = _padded(f"{name}/{key}", column, n_rows)
        ensemble.arrays[N_ROWS] = Array(n_rows, (RUN,), "rows of each run; others do not count")
        return ensemble
    for key, column in columns.items():
        first = next(array for array in column if array is not None)
        # Data are common to all, unless they were made on machines that do not round alike.
        if name == "final" or not all(_equal(first, array) for array in column):
            ensemble.arrays[key] = _stacked(f"{name}/{key}", column)
        else:
            ensemble.arrays[key] = first
    return ensemble


def _equal(one: Array, other: Array | None) -> bool:
    if other is None or one.values.dtype != other.values.dtype:
        return False
    return np.array_equal(one.values, other.values)


def _padded(name: str, column: Sequence[Array | None], n_rows: np.ndarray) -> Array:
    """Stack arrays with different numbers of rows."""
    first = _first(name, column, rows=True)
    values = np.asarray(first.values)
    shape = (len(column), int(n_rows.max()), *values.shape[1:])
    stacked = np.full(shape, _nothing(values.dtype), values.dtype)
    for array, rows, n in zip(column, stacked, n_rows, strict=True):
        if array is not None:
            rows[:n] = array.values
    return Array(stacked, (RUN, ROW, *first.dims[1:]), first.long_name, first.units)


def _stacked(name: str, column: Sequence[Array | None]) -> Array:
    first = _first(name, column, rows=False)
    values = np.asarray(first.values)
    if values.dtype.kind in "OU":
        nothing = np.full(values.shape, "", object)
        texts = [nothing if array is None else array.values for array in column]
        return Array(np.array(texts), (RUN, *first.dims), first.long_name, first.units)
    stacked = np.full((len(column), *values.shape), _nothing(values.dtype), values.dtype)
    for k, array in enumerate(column):
        if array is not None:
            stacked[k] = array.values
    return Array(stacked, (RUN, *first.dims), first.long_name, first.units)


def _first(name: str, column: Sequence[Array | None], rows: bool) -> Array:
    """The first array that there is; all others have to be like it."""
    arrays = [array for array in column if array is not None]
    if len({(a.values.shape[rows:], _kind(a.values.dtype), a.dims) for a in arrays}) > 1:
        raise FlowsimError(
            f"members: {name} has different shapes or types in them; put runs into one ensemble "
            "that differ in nothing but their seed"
        )
    return arrays[0]


def _kind(dtype: np.dtype) -> str:
    return "text" if dtype.kind in "OU" else dtype.str


def _nothing(dtype: np.dtype) -> Any:
    """What stands for a value that a run does not have."""
    return {"f": np.nan, "c": np.nan, "i": -1}.get(dtype.kind, 0)
