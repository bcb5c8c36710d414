"""The growing file of a run: whatever happens to the process, what was committed can be read.

Protocol (DESIGN section 6, with the measurements behind it): the file is made with every object
it will ever have under a name nobody reads, goes into SWMR mode (single writer, multiple
readers), and only then gets its name ``run.h5.part``. From then on nothing but rows, the values
of ``/final`` and a few attributes of fixed size are written. Rows are written first and flushed,
their times after them: a row without a time is not there.

HDF5 does not survive a write that fails: it keeps trying when the file is closed, and can take the
process down. So the disk space for a commit is reserved with the operating system beforehand; if
there is none, the file is left as it was.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from flowsim.errors import FileFormatError, StorageError
from flowsim.recording.aligned import open_growing
from flowsim.recording.contents import RunContents
from flowsim.recording.hdf5 import (
    clear_checksum,
    set_checksum,
    set_text,
    write_attributes,
    write_group,
)
from flowsim.recording.places import cannot_write, copy, unfinished
from flowsim.recording.superblock import clear_flags

_MARGIN = 1 << 20
"""Bytes reserved beyond the rows themselves, for HDF5's own records of where they are."""

_BROKEN: list[h5py.File] = []
"""Files that must stay open until the process ends."""


class RunStream:
    """A run file in SWMR mode; made by `create` or `reopen`.

    Attributes
    ----------
    path : Path
    rows : dict of str to int
        Committed rows of each series.
    broken : bool
        A write has failed, or the file is somebody else's now: it is as it was committed last,
        and nothing more is written to it.
    """

    broken = False

    def __init__(self, path: Path, file: h5py.File, series: Mapping[str, str]) -> None:
        self.path = path
        self._file = file
        self._time_names = dict(series)
        self._handle = file.id.get_vfd_handle()
        self._reserved = os.fstat(self._handle).st_size
        self.rows = {name: len(file[name][time]) for name, time in series.items()}

    @classmethod
    def create(cls, path: Path, contents: RunContents, compression: str) -> RunStream:
        """Make a file.

        Parameters
        ----------
        path : Path
            ``run.h5.part``.
        contents : RunContents
            Growing groups without rows, and all others; ``final`` with values to be replaced.
        compression : str
            See `flowsim.recording.hdf5`.

        Raises
        ------
        StorageError
            If there is no space for it, or no permission.
        """
        work = unfinished(path)
        try:
            _reserve_whole(work, contents)
            file = open_growing(work, "w")
            write_attributes(file, contents.attributes)
            for name, group in contents.groups.items():
                sealed = not group.time_name and name != "final"
                write_group(file, name, group, compression, sealed)
            file.flush()
            file.swmr_mode = True
            os.replace(work, path)
        except OSError as error:
            work.unlink(missing_ok=True)
            raise cannot_write(path, error) from error
        return cls(path, file, _series(contents))

    @classmethod
    def reopen(cls, path: Path, contents: RunContents) -> RunStream:
        """Open the file of a run that was stopped; the caller holds the run's lock.

        Parameters
        ----------
        path : Path
        contents : RunContents
            As for `create`.

        Raises
        ------
        FileFormatError
            If it is not a file of the same run.
        """
        file = None
        try:
            clear_flags(path)
            file = _open_for_writing(path)
            for name, group in contents.groups.items():
                missing = [key for key in group.arrays if f"{name}/{key}" not in file]
                if missing:
                    raise KeyError(f"it has no {name}/{missing[0]}")
            file.swmr_mode = True
            _take_back_end(file, _series(contents))
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            if file is not None:
                file.close()
            raise FileFormatError(
                f"{path}: damaged, cannot be continued ({error}); use --overwrite"
            ) from error
        return cls(path, file, _series(contents))

    def append(
        self, name: str, start: int, times: Sequence[float], columns: Mapping[str, np.ndarray]
    ) -> None:
        """Write rows of a series and make them count; see `commit`.

        Parameters
        ----------
        name : str
        start : int
            Number of the first of these rows.
        times : sequence of float
        columns : mapping
            Name to values (rows, ...) of each other array.
        """
        try:
            for key, values in columns.items():
                self._write(self._file[name][key], start, values)
            self._file.flush()
            self._write(self._file[name][self._time_names[name]], start, np.asarray(times))
            self._file.flush()
        except (OSError, RuntimeError) as error:
            # Space was there, so it is the disk or the network. HDF5 would go on trying when the
            # file is closed, and end the process: it must not be closed.
            _BROKEN.append(self._file)
            self.broken = True
            reason = str(error).partition(", buf =")[0]
            raise StorageError(
                f"{self.path}: cannot be written ({reason}); mend that and run it again"
            ) from error
        self.rows[name] = start + len(times)

    @staticmethod
    def _write(dataset: h5py.Dataset, start: int, values: np.ndarray) -> None:
        stop = start + len(values)
        if len(dataset) < stop:
            dataset.resize(stop, axis=0)
        dataset[start:stop] = values

    def reserve(self, n_bytes: int) -> None:
        """Make sure that so many bytes can be written.

        Raises
        ------
        StorageError
            If not: the disk is full, a quota is used up, a file-size limit is reached.
        """
        # HDF5's own idea of the size, which knows nothing of what was reserved here.
        needed = self._file.id.get_filesize() + n_bytes + _MARGIN
        if needed <= self._reserved:
            return
        try:
            os.posix_fallocate(self._handle, self._reserved, needed - self._reserved)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._reserved = needed

    def check(self) -> None:
        """Make sure that what is written has a name by which it can be found.

        Raises
        ------
        StorageError
            If the file was removed or replaced, or its folder has vanished.
        """
        try:
            there, ours = os.stat(self.path), os.fstat(self._handle)
            lost = (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
        except OSError:
            lost = True
        if lost:
            raise StorageError(
                f"{self.path}: the file or its folder has vanished while the run was writing to "
                "it; see that they stay and run it again"
            )

    def sync(self) -> None:
        """Wait until what is committed would survive a loss of power."""
        os.fsync(self._handle)

    def finish(self, final: Mapping[str, np.ndarray], status: str, stop_reason: str) -> None:
        """Write the values of ``/final``, all checksums and the status, and close the file.

        Nothing is created: there is space for it all.
        """
        group = self._file["final"]
        for name, values in final.items():
            if name != "time":
                group[name][...] = values
        for series in self._time_names:
            for dataset in self._file[series].values():
                set_checksum(dataset)
        self._file.flush()
        group["time"][...] = final["time"]
        for dataset in group.values():
            set_checksum(dataset)
        set_text(self._file, "stop_reason", stop_reason)
        set_text(self._file, "status", status)
        self._file.flush()
        self.sync()
        self.close()

    def close(self) -> None:
        """Close the file as it is."""
        if not self.broken:
            self._file.close()

    def abandon(self) -> None:
        """Let go of the file without another byte going to it: it may be somebody else's now.

        HDF5 writes when a file is closed, at the latest when the process ends, and cuts the file
        to the length that it knows of: it may do so to a file that nobody sees.
        """
        if self.broken:
            return
        self.broken = True
        with tempfile.TemporaryFile() as nowhere:
            os.dup2(nowhere.fileno(), self._handle, inheritable=False)
        with suppress(OSError, RuntimeError, ValueError):
            self._file.close()


def _take_back_end(file: h5py.File, series: Mapping[str, str]) -> None:
    """Say that a run has not come to its end, in an order that may be cut anywhere.

    Once the status says so neither checksums nor ``/final`` count.
    """
    set_text(file, "status", "running")
    set_text(file, "stop_reason", "")
    file.flush()
    file["final/time"][...] = np.nan
    for name in (*series, "final"):
        for dataset in file[name].values():
            clear_checksum(dataset)
    file.flush()


def _open_for_writing(path: Path) -> h5py.File:
    try:
        return open_growing(path, "r+")
    except OSError as error:
        if "already open" not in str(error):
            raise
        # This very process has it open for reading, which HDF5 does not combine with writing:
        # go on with a copy, and leave the reader what it has.
        copy(path, path)
        return open_growing(path, "r+")


def _series(contents: RunContents) -> dict[str, str]:
    return {name: group.time_name for name, group in contents.groups.items() if group.time_name}


def _reserve_whole(path: Path, contents: RunContents) -> None:
    """Fail early and cleanly where the fixed arrays do not fit on the disk."""
    arrays = [array for group in contents.groups.values() for array in group.arrays.values()]
    size = _MARGIN + sum(np.asarray(array.values).nbytes for array in arrays)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
