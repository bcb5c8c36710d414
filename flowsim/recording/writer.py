"""Writes a run to HDF5, on disk or in memory.

On disk the file is ``run.h5.part`` while it grows and becomes ``run.h5`` in one rename at the
end, so that a file under its final name is always whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flowsim.errors import FlowsimError
from flowsim.recording.format import FORMAT, FORMAT_VERSION, LAYERS, PARTIAL_SUFFIX
from flowsim.recording.observables import Observable

_ROWS_BUFFERED = 256
_BYTES_BUFFERED = 1 << 24


@dataclass
class _Series:
    """A group with a time axis of its own and the rows that wait to be written."""

    group: h5py.Group
    time_name: str
    observables: Sequence[Observable]
    pending: list[tuple[float, list[np.ndarray]]]
    pending_bytes: int = 0
    rows: int = 0


class RunWriter:
    """The file of one run, while it is written.

    Parameters
    ----------
    path : Path or None
        Where it will be at the end; None keeps it in memory.
    attributes : mapping
        Of the file: numbers and text.

    Raises
    ------
    FlowsimError
        If the file cannot be created.
    """

    def __init__(self, path: Path | None, attributes: Mapping[str, Any]) -> None:
        self.path = path
        try:
            if path is None:
                self._file = h5py.File.in_memory(track_order=True)
            else:
                self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
                self._file = h5py.File(self._partial, "w", track_order=True)
        except OSError as error:
            raise FlowsimError(
                f"output = {path}: cannot be written ({error.strerror or error}); "
                "choose a folder that exists and is yours"
            ) from error
        self._series: dict[str, _Series] = {}
        self._file.attrs["format"] = FORMAT
        self._file.attrs["format_version"] = FORMAT_VERSION
        self._file.attrs["status"] = "running"
        self._file.attrs["stop_reason"] = ""
        self.set_attributes(attributes)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Write attributes of the file."""
        for name, value in attributes.items():
            self._file.attrs[name] = value

    def write_group(
        self,
        name: str,
        arrays: Mapping[str, tuple[Any, tuple[str, ...]]],
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a group of arrays that do not grow.

        Parameters
        ----------
        name : str
        arrays : mapping
            From names to (values, names of the axes).
        attributes : mapping, optional
        """
        group = self._file.require_group(name)
        for key, (values, dims) in arrays.items():
            dataset = group.create_dataset(key, data=values)
            self._name_axes(group, dataset, dims)
        for key, value in (attributes or {}).items():
            group.attrs[key] = value

    def add_series(
        self,
        name: str,
        time_name: str,
        observables: Sequence[Observable],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        """Create a group that grows by a row at a time.

        Parameters
        ----------
        name, time_name : str
            Of the group and of its time axis.
        observables : sequence of Observable
        shapes : sequence of tuple
            Of one row of each.
        """
        group = self._file.create_group(name, track_order=True)
        time = group.create_dataset(
            time_name, shape=(0,), maxshape=(None,), chunks=(_ROWS_BUFFERED,), dtype="float64"
        )
        time.attrs["units"] = "tau"
        time.attrs["long_name"] = "tau = t / alpha"
        time.make_scale(time_name)
        for observable, shape in zip(observables, shapes, strict=True):
            item = int(np.prod(shape, dtype=np.int64))
            rows = _ROWS_BUFFERED if item < 64 else 1
            dataset = group.create_dataset(
                observable.name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(rows, *shape) if 0 not in shape else None,
                dtype=observable.dtype,
            )
            dataset.attrs["units"] = observable.units
            dataset.attrs["long_name"] = observable.long_name
            own = observable.dims or tuple(
                f"{observable.name}_{axis}" for axis in range(len(shape))
            )
            self._name_axes(group, dataset, (time_name, *own))
        self._series[name] = _Series(group, time_name, observables, [])

    def _name_axes(self, group: h5py.Group, dataset: h5py.Dataset, dims: tuple[str, ...]) -> None:
        """Attach a dimension scale to every axis, making those that are missing."""
        for axis, dim in enumerate(dims):
            if dim not in group:
                size = dataset.shape[axis]
                if dim == "layer":
                    scale = group.create_dataset(dim, data=list(LAYERS), dtype=h5py.string_dtype())
                    scale.make_scale(dim)
                else:
                    # netCDF's mark of an axis without coordinate values; takes no space.
                    scale = group.create_dataset(dim, shape=(size,), dtype="float32")
                    scale.make_scale(
                        f"This is a netCDF dimension but not a netCDF variable. {size:9d}"
                    )
            dataset.dims[axis].attach_scale(group[dim])

    def append(self, name: str, time: float, values: Sequence[Any]) -> None:
        """Add a row to a series.

        Parameters
        ----------
        name : str
        time : float
            tau.
        values : sequence
            One a observable of the series; copied.
        """
        series = self._series[name]
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
            row = [
                np.array(value, dtype=observable.dtype)
                for value, observable in zip(values, series.observables, strict=True)
            ]
        series.pending.append((time, row))
        series.pending_bytes += sum(value.nbytes for value in row)
        if len(series.pending) >= _ROWS_BUFFERED or series.pending_bytes >= _BYTES_BUFFERED:
            self._write_pending(series)

    def _write_pending(self, series: _Series) -> None:
        if not series.pending:
            return
        first, last = series.rows, series.rows + len(series.pending)
        for index, observable in enumerate(series.observables):
            dataset = series.group[observable.name]
            dataset.resize(last, axis=0)
            dataset[first:last] = np.stack([row[index] for _, row in series.pending])
        # The time goes last: a row without it is not there.
        time = series.group[series.time_name]
        time.resize(last, axis=0)
        time[first:last] = [moment for moment, _ in series.pending]
        series.rows = last
        series.pending, series.pending_bytes = [], 0

    def clear_series(self) -> None:
        """Forget all rows: the run begins anew."""
        for series in self._series.values():
            series.pending, series.pending_bytes, series.rows = [], 0, 0
            for observable in series.observables:
                series.group[observable.name].resize(0, axis=0)
            series.group[series.time_name].resize(0, axis=0)

    def finish(self, status: str, stop_reason: str) -> bytes | None:
        """Write what is pending and close the file.

        Returns
        -------
        bytes or None
            The image of a file in memory; None for a file on disk, now under its final name.
        """
        for series in self._series.values():
            self._write_pending(series)
        self.set_attributes({"status": status, "stop_reason": stop_reason})
        self._file.flush()
        if self.path is None:
            image = bytes(self._file.id.get_file_image())
            self._file.close()
            return image
        self._file.close()
        os.replace(self._partial, self.path)
        return None

    def abandon(self) -> None:
        """Close and remove what has been written, after an error before anything was computed."""
        self._file.close()
        if self.path is not None:
            self._partial.unlink(missing_ok=True)
