"""Collects a run's rows and sees that they are saved.

Rows wait in memory and are committed every so often (`Cadence`) to the growing file. A run that
ends before its first commit never has one: it is written in one go. One that is kept in memory is
not written at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowsim.errors import StorageError
from flowsim.recording.contents import GroupContents, RunContents
from flowsim.recording.format import FORMAT, FORMAT_VERSION
from flowsim.recording.hdf5 import file_image
from flowsim.recording.lock import RunLock
from flowsim.recording.observables import Observable
from flowsim.recording.places import RunPlaces, copy, put, rename
from flowsim.recording.series import Series
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
    keep_target : bool
        The run's place holds the same run as it has ended before: that stays until this one has
        come to its end too.

    Attributes
    ----------
    written : Path or None
        Where the run is, once it has been written.
    """

    def __init__(
        self,
        places: RunPlaces | None,
        attributes: Mapping[str, Any],
        cadence: Cadence | None = None,
        lock: RunLock | None = None,
        growing: bool = False,
        keep_target: bool = False,
    ) -> None:
        self.places = places
        self.cadence = cadence or Cadence()
        self._lock = lock
        self._growing = growing
        self._keep_target = keep_target
        self.written: Path | None = None
        self._attributes = {**head_of_file(), **attributes}
        self._fixed: dict[str, GroupContents] = {}
        self._series: dict[str, Series] = {}
        self._stream: RunStream | None = None
        self._final: Callable[[], GroupContents] = GroupContents
        self._last_commit = time.monotonic()
        self._ended = False
        # After this nothing can be written any more; what was committed is safe.
        self._failure: StorageError | None = None

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
        series = Series(time_name, observables, shapes)
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
        ConfigError
            If one of them is not what the observable gave first; then none of them is added.
        StorageError
            If it cannot be saved.
        """
        series = self._series[name]
        if series.rows < series.saved:
            series.rows += 1
            return  # the file has this row from before the run was stopped
        entries = zip(series.observables, values, series.shapes, strict=True)
        row = [observable.checked(value, shape) for observable, value, shape in entries]
        series.rows += 1
        series.times.append(moment)
        for column, entry in zip(series.columns, row, strict=True):
            column.append(entry)
            series.n_bytes += entry.nbytes
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
        self._check()
        stream = self._stream or self._open_stream()
        try:
            self._write_waiting(stream)
        except StorageError as error:
            if stream.broken:
                self._failure = error
            raise

    def _check(self) -> None:
        """Make sure that the file is still ours; if it is not, nothing more goes into it.

        Raises
        ------
        StorageError
        """
        if self._failure is not None:
            raise self._failure
        try:
            if self._lock is not None:
                self._lock.check()
            if self._stream is not None:
                self._stream.check()
        except StorageError as error:
            self._failure = error
            if self._stream is not None:
                self._stream.abandon()
            raise

    def _write_waiting(self, stream: RunStream) -> None:
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
            self._check()
            self._stream.close()
            self._stream, self._growing = None, False
            self.places.clear()
        for series in self._series.values():
            series.rows = series.saved = 0
            series.clear()

    def finish(self, status: str, stop_reason: str, final: GroupContents) -> RunContents | None:
        """Write the end of the run; the file gets its final name.

        Where the last rows do not fit on the disk, the run is preempted instead: what was
        committed is in the file, and once there is space it can be continued from its checkpoint.

        Returns
        -------
        RunContents or None
            A run that is kept in memory, or was too short for a growing file: see `save`.
            None for one that is in its file now.

        Raises
        ------
        StorageError
            If nothing can be written any more, or the file is no longer ours. It is left as a
            killed process would leave it.
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
        self._check()
        values = {name: array.values for name, array in final.arrays.items()}
        self._stream.finish(values, status, stop_reason)
        self._stream = None
        self.written = self._place(self.places, status)
        if self.places.scratch is None:
            if self.written != self.places.growing:
                rename(self.places.growing, self.written)
        else:
            copy(self.places.growing, self.written)
            self.places.growing.unlink(missing_ok=True)
            if self.written != self.places.part:
                self.places.part.unlink(missing_ok=True)
        return None

    def _place(self, places: RunPlaces, status: str) -> Path:
        """Where a run belongs that has ended like this."""
        return places.part if status == "preempted" and self._keep_target else places.target

    def save(self, contents: RunContents) -> None:
        """Write a short run to its place, in one go; what was beside it goes."""
        assert self.places is not None
        self._check()
        self.written = self._place(self.places, contents.attributes["status"])
        put(self.written, file_image(contents, self.cadence.compression))
        self.places.clear(keep=self.written)

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
            groups[name] = series.group()
        return RunContents(dict(self._attributes), {**groups, **self._fixed})


def head_of_file() -> dict[str, Any]:
    """The attributes that every file begins with."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "status": "running",
        "stop_reason": "",
    }
