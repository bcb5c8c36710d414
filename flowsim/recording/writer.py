"""Collects a run's rows and sees that they are saved.

Rows wait in memory and are committed every so often (`Cadence`) to the growing file. A run that
ends before its first commit never has one: it is written in one go. One that is kept in memory is
not written at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flowsim.errors import StorageError
from flowsim.recording.contents import Array, GroupContents, RunContents
from flowsim.recording.format import FORMAT, FORMAT_VERSION
from flowsim.recording.hdf5 import file_image
from flowsim.recording.lock import RunLock
from flowsim.recording.observables import Observable
from flowsim.recording.places import RunPlaces, copy, put, rename
from flowsim.recording.stream import RunStream

_BYTES_BUFFERED = 1 << 24
_CHUNK_ROOM = 1 << 17
"""Bytes by which one commit of one array may exceed its values: chunks are allocated whole."""

_CHUNK_SHARE = 0.25
"""The same for large rows, as a share: the last chunk of a row may be partly empty."""


@dataclass(frozen=True)
class Cadence:
    """When rows and checkpoints are saved, and how.

    Parameters
    ----------
    seconds : float
        Time between two commits.
    rows : int
        Rows of one series that are committed earlier.
    checkpoint_seconds : float
        Time between two checkpoints.
    compression : str
        See `flowsim.recording.hdf5`.
    """

    seconds: float = 10.0
    rows: int = 4096
    checkpoint_seconds: float = 60.0
    compression: str = "none"


@dataclass
class _Series:
    """A group with a time axis of its own, and its rows that are not in a file yet.

    Attributes
    ----------
    rows : int
        Appended so far.
    saved : int
        Rows that the file had before the run was continued, or has now.
    """

    time_name: str
    observables: Sequence[Observable]
    shapes: Sequence[tuple[int, ...]]
    rows: int = 0
    saved: int = 0
    times: list[float] = field(default_factory=list)
    columns: list[list[np.ndarray]] = field(default_factory=list)
    n_bytes: int = 0

    def clear(self) -> None:
        """Forget the rows in memory."""
        self.times, self.columns, self.n_bytes = [], [[] for _ in self.observables], 0

    def stacked(self) -> dict[str, np.ndarray]:
        """The rows in memory, by array."""
        return {
            observable.name: np.array(rows, observable.dtype).reshape(len(rows), *shape)
            for observable, rows, shape in zip(
                self.observables, self.columns, self.shapes, strict=True
            )
        }


class RunWriter:
    """Collects one run, and writes it if it has a place.

    Parameters
    ----------
    places : RunPlaces or None
        None keeps the run in memory.
    attributes : mapping
        Of the file: numbers and text.
    cadence : Cadence
    lock : RunLock, optional
        Checked at every commit.
    growing : bool
        There is a growing file already, which is to be continued.
    """

    def __init__(
        self,
        places: RunPlaces | None,
        attributes: Mapping[str, Any],
        cadence: Cadence | None = None,
        lock: RunLock | None = None,
        growing: bool = False,
    ) -> None:
        self.places = places
        self.cadence = cadence or Cadence()
        self._lock = lock
        self._growing = growing
        self._attributes = {**head_of_file(), **attributes}
        self._fixed: dict[str, GroupContents] = {}
        self._series: dict[str, _Series] = {}
        self._stream: RunStream | None = None
        self._final: Callable[[], GroupContents] = GroupContents
        self._last_commit = time.monotonic()
        self._ended = False

    def write_group(self, name: str, group: GroupContents) -> None:
        """Add a group that does not grow."""
        self._fixed[name] = group

    def expect_final(self, template: Callable[[], GroupContents]) -> None:
        """Say what `finish` will be given, so that there can be room for it.

        Parameters
        ----------
        template : callable
            Returns a group of the same names, shapes and dtypes; called if there is a file.
        """
        self._final = template

    def add_series(
        self,
        name: str,
        time_name: str,
        observables: Sequence[Observable],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        """Add a group that grows by a row at a time.

        Parameters
        ----------
        name, time_name : str
            Of the group and of its time axis.
        observables : sequence of Observable
        shapes : sequence of tuple
            Of one row of each.
        """
        series = _Series(time_name, observables, shapes)
        series.clear()
        self._series[name] = series

    def append(self, name: str, moment: float, values: Sequence[Any]) -> None:
        """Add a row to a series.

        Parameters
        ----------
        name : str
        moment : float
            tau.
        values : sequence
            One a observable of the series; copied.

        Raises
        ------
        StorageError
            If it cannot be saved.
        """
        series = self._series[name]
        series.rows += 1
        if series.rows <= series.saved:
            return  # the file has this row from before the run was stopped
        series.times.append(moment)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
            for column, observable, value in zip(
                series.columns, series.observables, values, strict=True
            ):
                row = np.array(value, dtype=observable.dtype)
                column.append(row)
                series.n_bytes += row.nbytes
        if len(series.times) >= self.cadence.rows or series.n_bytes >= _BYTES_BUFFERED:
            self.commit()

    @property
    def growing(self) -> bool:
        """Whether there is a growing file."""
        return self._growing

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each series so far."""
        return {name: series.rows for name, series in self._series.items()}

    def resume(self, rows: Mapping[str, int]) -> None:
        """Go on with a growing file.

        Parameters
        ----------
        rows : mapping
            Rows of each series where the run is continued. What the file has beyond is kept: the
            run comes to the same rows again.
        """
        stream = self._open_stream()
        for name, series in self._series.items():
            series.rows, series.saved = rows[name], stream.rows[name]

    def commit_if_due(self) -> None:
        """Commit if the time has come."""
        if time.monotonic() - self._last_commit >= self.cadence.seconds:
            self.commit()

    def commit(self) -> None:
        """Write the rows that wait; after this they can be read whatever happens.

        Raises
        ------
        StorageError
            If that is not possible: rows committed earlier can still be read.
        """
        self._last_commit = time.monotonic()
        if self.places is None:
            return
        stream = self._stream or self._open_stream()
        if self._lock is not None:
            self._lock.check()
        stream.check()
        waiting = {name: series for name, series in self._series.items() if series.times}
        room = sum(s.n_bytes + _CHUNK_ROOM * (1 + len(s.columns)) for s in waiting.values())
        stream.reserve(room + int(_CHUNK_SHARE * sum(s.n_bytes for s in waiting.values())))
        for name, series in waiting.items():
            stream.append(name, series.saved, series.times, series.stacked())
            series.saved += len(series.times)
            series.clear()

    def _open_stream(self) -> RunStream:
        assert self.places is not None
        contents = self._contents(rows=False)
        contents.groups["final"] = self._final()
        path = self.places.growing
        if self._growing:
            self._stream = RunStream.reopen(path, contents)
        else:
            self._stream = RunStream.create(path, contents, self.cadence.compression)
        self._growing = True
        return self._stream

    def publish(self) -> None:
        """Make what is committed survive a loss of power, and of the scratch disk."""
        if self._stream is None or self.places is None:
            return
        self._stream.sync()
        if self.places.scratch is not None:
            copy(self.places.growing, self.places.part)

    def clear_series(self) -> None:
        """Forget all rows: the run begins anew."""
        if self._stream is not None and self.places is not None:
            self._stream.close()
            self._stream, self._growing = None, False
            self.places.clear()
        for series in self._series.values():
            series.rows = series.saved = 0
            series.clear()

    def finish(self, status: str, stop_reason: str, final: GroupContents) -> RunContents | None:
        """Write the end of the run; the file gets its final name.

        Where the last rows cannot be saved, the run is preempted instead: what was committed is
        in the file, and once there is space it can be continued from its checkpoint.

        Returns
        -------
        RunContents or None
            A run that is kept in memory, or was too short for a growing file: see `save`.
            None for one that is in its file now.

        Raises
        ------
        StorageError
        """
        self._ended = True
        if self.places is None or self._stream is None:
            contents = self._contents(rows=True)
            contents.attributes |= {"status": status, "stop_reason": stop_reason}
            contents.groups["final"] = final
            return contents
        try:
            if not stop_reason.startswith("storage"):
                self.commit()
        except StorageError as error:
            status, stop_reason = "preempted", f"storage: {error}"
        values = {name: array.values for name, array in final.arrays.items()}
        self._stream.finish(values, status, stop_reason)
        self._stream = None
        growing = self.places.growing
        if self.places.scratch is None:
            rename(growing, self.places.target)
        else:
            copy(growing, self.places.target)
            growing.unlink(missing_ok=True)
            self.places.part.unlink(missing_ok=True)
        return None

    def save(self, contents: RunContents) -> None:
        """Write a short run to its place, in one go."""
        assert self.places is not None
        if self._lock is not None:
            self._lock.check()
        put(self.places.target, file_image(contents, self.cadence.compression))

    def leave(self) -> None:
        """After an error that is not ours: save what there is, to be continued."""
        try:
            if not self._ended and any(series.rows for series in self._series.values()):
                self.commit()
        except StorageError:
            pass  # the error that brought us here is the one to be told
        finally:
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def _contents(self, rows: bool) -> RunContents:
        groups = {}
        for name, series in self._series.items():
            if not rows:
                series = replace(series)
                series.clear()
            groups[name] = _group(series)
        return RunContents(dict(self._attributes), {**groups, **self._fixed})


def head_of_file() -> dict[str, Any]:
    """The attributes that every file begins with."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "status": "running",
        "stop_reason": "",
    }


def _group(series: _Series) -> GroupContents:
    """The rows of a series that are in memory, as a group."""
    times = np.array(series.times, np.float64)
    return series_group(series.time_name, times, series.observables, series.stacked())


def series_group(
    time_name: str,
    times: np.ndarray,
    observables: Sequence[Observable],
    values: Mapping[str, np.ndarray],
) -> GroupContents:
    """Make a group that grows along its time axis.

    Parameters
    ----------
    time_name : str
    times : (rows,) float64 array
    observables : sequence of Observable
    values : mapping
        Of each observable, (rows, ...) in its dtype.
    """
    arrays = {time_name: Array(times, (time_name,), "tau = t / alpha", "tau")}
    for observable in observables:
        rows = values[observable.name]
        own = observable.dims or tuple(f"{observable.name}_{k}" for k in range(rows.ndim - 1))
        arrays[observable.name] = Array(
            rows, (time_name, *own), observable.long_name, observable.units
        )
    return GroupContents(arrays, time_name)
