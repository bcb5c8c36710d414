"""The arrays of one group by name, from a file or from memory, one run or one of an ensemble.

A file is not trusted: what it declares is checked against what it holds before anything is read
(see `flowsim.recording.integrity`), and a whole array is checked against its checksum.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import h5py
import numpy as np

from flowsim.errors import FileFormatError, FlowsimError
from flowsim.recording.contents import Array, GroupContents
from flowsim.recording.expected import check_array, check_attributes, plain
from flowsim.recording.hdf5 import CHECKSUM, checksum, checksum_of_pieces
from flowsim.recording.integrity import arrays_of, check_dataset, file_size, pieces

_N_ROWS = "n_rows"
_LARGEST_TEXT = 1 << 26

T = TypeVar("T")


class MissingArrayError(FileFormatError, KeyError):
    """A group has no such array."""

    def __str__(self) -> str:
        return str(self.args[0])


class Source(Protocol):
    """Where a group gets its arrays from."""

    name: str
    attributes: dict[str, Any]

    def names(self) -> list[str]:
        """Names of the arrays that hold values."""

    def values(self, name: str) -> np.ndarray:
        """A whole array."""

    def read(self, name: str) -> Array:
        """A whole array with what is said of it."""

    def verify(self, name: str) -> None:
        """Read an array; raises FileFormatError if it is damaged."""

    def row(self, name: str, index: int) -> np.ndarray:
        """One row of an array."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array."""


class Group(Mapping[str, np.ndarray]):
    """The arrays of one group by name; each is read when it is asked for.

    Text comes as str, rows that were not committed do not come at all. ``attributes`` has the
    group's attributes.
    """

    def __init__(self, path: str, name: str, source: Source | None) -> None:
        self._path = path
        self._name = name
        self._source = source
        self.attributes: dict[str, Any] = {} if source is None else dict(source.attributes)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._having(name).values(name)

    def array(self, name: str) -> Array:
        """An array with the names of its axes, its long name and its units."""
        return self._having(name).read(name)

    def row(self, name: str, index: int) -> np.ndarray:
        """Row ``index`` of an array, without reading the others."""
        return self._having(name).row(name, index)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, without reading it."""
        return self._having(name).shape(name)

    def _having(self, name: str) -> Source:
        if self._source is not None and name in self:
            return self._source
        close = difflib.get_close_matches(str(name), list(self), 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(self) or 'none'}"
        raise MissingArrayError(f"{self._path}: no array {self._name}/{name}; {remedy}")

    @property
    def time_name(self) -> str:
        """The array that is the axis along which the others grow; empty if they do not."""
        name = _time_name(self)
        return name if name and len(self.shape(name)) == 1 else ""

    def verify(self) -> list[str]:
        """Read everything; return what is wrong, one line each."""
        problems = []
        for name in self:
            try:
                self._having(name).verify(name)
            except FlowsimError as error:
                problems.append(str(error))
        return problems

    def __contains__(self, name: object) -> bool:
        return self._source is not None and name in self._source.names()

    def __iter__(self) -> Iterator[str]:
        return iter(() if self._source is None else self._source.names())

    def __len__(self) -> int:
        return 0 if self._source is None else len(self._source.names())

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


class MemorySource:
    """A group that was never in a file."""

    def __init__(self, name: str, contents: GroupContents) -> None:
        self.name = name
        self.attributes = contents.attributes
        self._arrays = contents.arrays

    def names(self) -> list[str]:
        """See `Source`."""
        return list(self._arrays)

    def values(self, name: str) -> np.ndarray:
        """See `Source`; a copy, so that the run stays as it is."""
        return self._arrays[name].values.copy()

    def read(self, name: str) -> Array:
        """See `Source`."""
        return self._arrays[name]

    def verify(self, name: str) -> None:
        """See `Source`."""

    def row(self, name: str, index: int) -> np.ndarray:
        """See `Source`."""
        return self._arrays[name].values[index].copy()

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Source`."""
        return self._arrays[name].values.shape


class FileSource:
    """A group of an open file.

    Parameters
    ----------
    path : str
        For messages.
    group : h5py.Group
    member : int or None
        Run of an ensemble.
    sealed : bool
        The run has come to its end: all checksums count. As long as it has not, or if it was
        continued, those of arrays that change are not what they will be.
    """

    def __init__(
        self, path: str, group: h5py.Group, member: int | None = None, sealed: bool = True
    ) -> None:
        self.name = group.name.strip("/")
        self._path = path
        self._group = group
        self._member = member
        self._sealed = sealed
        self._checked: set[str] = set()
        self.attributes: dict[str, Any] = {}
        if self.name:  # those of the file itself are read with their checksum
            self.attributes = guarded(
                path, lambda: {key: plain(value) for key, value in group.attrs.items()}
            )
            check_attributes(f"{path}: {self.name}", self.attributes)
        arrays = guarded(path, lambda: arrays_of(group))
        self._names = [
            name
            for name in arrays
            if name != _N_ROWS and guarded(path, partial(_has_values, name, arrays[name]))
        ]
        self._rows: int | None = None
        if member is not None and _N_ROWS in arrays:
            self._rows = guarded(path, lambda: int(self._sound(_N_ROWS)[member]))
        self._time_name = _time_name(self._names) if self.name != "final" else ""

    def names(self) -> list[str]:
        """See `Source`."""
        return self._names

    def values(self, name: str) -> np.ndarray:
        """See `Source`."""
        return guarded(self._place(name), lambda: self._values(name))

    def read(self, name: str) -> Array:
        """See `Source`."""
        return guarded(self._place(name), lambda: self._read(name))

    def verify(self, name: str) -> None:
        """See `Source`; a large array is read piece by piece."""
        guarded(self._place(name), lambda: self._verify(name))

    def row(self, name: str, index: int) -> np.ndarray:
        """See `Source`."""
        return guarded(self._place(name), lambda: self._read_row(name, index))

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Source`."""
        return guarded(self._place(name), lambda: self._shape(name))

    def _place(self, name: str) -> str:
        return f"{self._path}: {self.name}/{name}"

    def _sound(self, name: str) -> h5py.Dataset:
        """A dataset that may be read, as it is now."""
        if not self._group.id.valid:
            raise FlowsimError(f"{self._path}: is closed; open it again")
        # HDF5 2.0 reads nothing from a refreshed array that is open a second time in the process
        # ("can't insert duplicate key"): none is kept open longer than for one call of ours.
        dataset = self._group[name]
        if self._group.file.swmr_mode:
            dataset.id.refresh()
        check_dataset(self._path, dataset, file_size(self._group.file))
        check_array(self._place(name), dataset, self.name, name, self._of_runs(dataset))
        return dataset

    def _count(self) -> int | None:
        """Rows that count, where there are rows; looked up before the arrays themselves are."""
        if self._member is not None or not self._time_name:
            return self._rows
        time = self._sound(self._time_name)
        if time.ndim != 1:
            raise FileFormatError(f"{self._place(self._time_name)} has {time.ndim} axes; damaged")
        return len(time)

    def _select(self, name: str) -> tuple[h5py.Dataset, Any, int | None]:
        """The dataset, which part of it is this run's, and the number of rows of that."""
        rows = self._count()
        dataset = self._sound(name)
        of_runs = self._of_runs(dataset)
        if rows is None:
            return dataset, self._member if of_runs else ..., None
        if dataset.ndim <= of_runs or dataset.shape[of_runs] < rows:
            raise FileFormatError(f"{self._place(name)} has less rows than there are times")
        part = slice(0, rows)
        return dataset, (self._member, part) if of_runs else part, rows

    def _of_runs(self, dataset: h5py.Dataset) -> bool:
        """Whether an array has an axis for the runs; what is the same for all has none."""
        if self._member is None or not dataset.ndim or not len(dataset.dims[0]):
            return False
        return dataset.dims[0][0].name == "/run"

    def _values(self, name: str) -> np.ndarray:
        dataset, part, _ = self._select(name)
        text = h5py.check_string_dtype(dataset.dtype) is not None
        source = dataset.asstr() if text else dataset
        whole = self._verified(name, dataset)
        values = np.asarray(source[part] if whole is None else whole[part])
        if text and values.size * max(map(len, values.flat), default=0) <= _LARGEST_TEXT:
            values = values.astype(str)
        return values

    def _read(self, name: str) -> Array:
        values = self._values(name)
        dataset = self._sound(name)
        long_name, units = (_text(dataset.attrs, key) for key in ("long_name", "units"))
        return Array(values, self._dims(dataset), long_name, units)

    def _verify(self, name: str) -> None:
        dataset, _, rows = self._select(name)
        if h5py.check_string_dtype(dataset.dtype) is not None:
            self._values(name)
        elif said := self._said(name, dataset):
            self._compare(name, checksum_of_pieces(pieces(dataset)), said)
        else:
            member = self._member
            within = (member,) if member is not None and self._of_runs(dataset) else ()
            for _ in pieces(dataset, rows, within):
                pass  # HDF5 complains of what it cannot read

    def _said(self, name: str, dataset: h5py.Dataset) -> str:
        """The checksum of an array, if it has one that counts and nobody has looked at it yet."""
        changes = bool(self._time_name) or self.name == "final"
        if name in self._checked or (changes and not self._sealed):
            return ""
        return _text(dataset.attrs, CHECKSUM)

    def _compare(self, name: str, found: str, said: str) -> None:
        if found != said:
            raise FileFormatError(
                f"{self._path}: {self.name}/{name} is damaged, its checksum does not match"
            )
        self._checked.add(name)

    def _verified(self, name: str, dataset: h5py.Dataset) -> np.ndarray | None:
        """All values of an array if they have a checksum that nobody has looked at yet."""
        said = self._said(name, dataset)
        if not said:
            return None
        text = h5py.check_string_dtype(dataset.dtype) is not None
        values = np.asarray(dataset.asstr()[...] if text else dataset[...])
        self._compare(name, checksum(values), said)
        return values

    def _dims(self, dataset: h5py.Dataset) -> tuple[str, ...]:
        if dataset.is_scale and dataset.ndim == 1:
            return (dataset.name.rpartition("/")[2],)
        names = []
        for axis in range(dataset.ndim):
            scales = dataset.dims[axis]
            names.append(scales[0].name.rpartition("/")[2] if len(scales) else f"axis_{axis}")
        if self._of_runs(dataset):
            names = [self._time_name or "row" if axis == "row" else axis for axis in names[1:]]
        return tuple(names)

    def _read_row(self, name: str, index: int) -> np.ndarray:
        dataset, _, rows = self._select(name)
        of_runs = self._of_runs(dataset)
        count = dataset.shape[of_runs] if rows is None else rows
        if not -count <= index < count:
            raise FlowsimError(f"{self._place(name)}: row {index} of {count}")
        whole = self._verified(name, dataset)
        place = (self._member, index % count) if of_runs else index % count
        return np.asarray(dataset[place] if whole is None else whole[place])

    def _shape(self, name: str) -> tuple[int, ...]:
        dataset, _, rows = self._select(name)
        shape = dataset.shape[self._of_runs(dataset) :]
        return shape if rows is None else (rows, *shape[1:])


def _has_values(name: str, dataset: h5py.Dataset) -> bool:
    """Whether a dataset is more than the names along an axis."""
    return name.startswith("time") or not h5py.h5ds.is_scale(dataset.id)


def _time_name(names: Iterable[str]) -> str:
    return next((name for name in names if name.startswith("time")), "")


def guarded(what: str, read: Callable[[], T]) -> T:
    """Read from a file; all that HDF5 may say of a damaged one becomes one kind of error."""
    try:
        return read()
    except FlowsimError:
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise FileFormatError(f"{what}: cannot be read, damaged ({short(error)})") from error


def short(error: BaseException) -> str:
    """The first line of an error."""
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def _text(attributes: h5py.AttributeManager, name: str) -> str:
    # Not `get`, which takes what cannot be read for what is not there.
    if name not in attributes:
        return ""
    value = attributes[name]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
