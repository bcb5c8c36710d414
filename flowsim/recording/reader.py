"""Reads run files: NumPy arrays, loaded when they are asked for."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from flowsim.errors import FileFormatError
from flowsim.recording.format import FORMAT_VERSION, LAYERS, STATUSES

_LARGEST_DATASET = 1 << 38
"""Bytes beyond which a declared size is taken for damage (256 GiB)."""


class Group(Mapping[str, np.ndarray]):
    """The arrays of one group by name; each is read when it is asked for.

    Text comes as str. ``attributes`` has the group's attributes.
    """

    def __init__(self, path: str, group: h5py.Group | None) -> None:
        self._path = path
        self._group = group
        self.attributes: dict[str, Any] = {} if group is None else dict(group.attrs)

    def _dataset(self, name: str) -> h5py.Dataset:
        if self._group is None or name not in self:
            raise KeyError(name)
        dataset = self._group[name]
        if dataset.id.get_create_plist().get_external_count():
            raise FileFormatError(f"{self._path}: {dataset.name} lies in another file; refused")
        if dataset.size * dataset.dtype.itemsize > _LARGEST_DATASET:
            raise FileFormatError(f"{self._path}: {dataset.name} declares an absurd size; refused")
        return dataset

    def __getitem__(self, name: str) -> np.ndarray:
        dataset = self._dataset(name)
        try:
            if h5py.check_string_dtype(dataset.dtype) is not None:
                return dataset.asstr()[...].astype(str)
            values: np.ndarray = dataset[...]
        except OSError as error:
            raise FileFormatError(
                f"{self._path}: {dataset.name} cannot be read; {error}"
            ) from error
        return values

    def row(self, name: str, index: int) -> np.ndarray:
        """Row ``index`` of an array, without reading the others."""
        return self._dataset(name)[index]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, without reading it."""
        return self._dataset(name).shape

    def __contains__(self, name: object) -> bool:
        if self._group is None or not isinstance(name, str) or "/" in name:
            return False
        link = self._group.get(name, getlink=True, default=None)
        # Links that lead out of the file, or in circles, do not exist for us.
        if not isinstance(link, h5py.HardLink):
            return False
        return isinstance(self._group.get(name), h5py.Dataset)

    def __iter__(self) -> Iterator[str]:
        if self._group is not None:
            yield from (
                name for name in self._group if name in self and not self._is_bare_axis(name)
            )

    def _is_bare_axis(self, name: str) -> bool:
        """Whether a dataset only names an axis and has no values of its own."""
        assert self._group is not None
        label = self._group[name].attrs.get("NAME", b"")
        return bytes(label).startswith(b"This is a netCDF dimension but not")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


class RunFile:
    """One run, read from its file. Use it as a context manager or call `close`.

    Parameters
    ----------
    source : path or bytes
        A file, or the image of one (a run that was kept in memory).

    Attributes
    ----------
    path : str
        ``memory`` for an image.
    status, stop_reason : str
    seed : int
    attributes : dict
        Of the file.
    config : dict
        The resolved experiment.
    observables, snapshots, kernel, data, final : Group
        The groups (see `flowsim.recording.format`); empty if the file has none.

    Raises
    ------
    FileFormatError
        If it is not a run file, damaged, or of a newer format version.
    """

    def __init__(self, source: str | Path | bytes) -> None:
        self.path = "memory" if isinstance(source, bytes) else str(source)
        try:
            target = io.BytesIO(source) if isinstance(source, bytes) else source
            self._file = h5py.File(target, "r")
        except FileNotFoundError as error:
            raise FileFormatError(f"{self.path}: no such file") from error
        except OSError as error:
            raise FileFormatError(
                f"{self.path}: not a run file, or damaged ({_short(error)})"
            ) from error
        try:
            self._read_head()
        except FileFormatError:
            self._file.close()
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            self._file.close()
            raise FileFormatError(f"{self.path}: damaged ({_short(error)})") from error

    def _read_head(self) -> None:
        attributes = {name: _plain(value) for name, value in self._file.attrs.items()}
        name, version = attributes.get("format"), attributes.get("format_version")
        if not (isinstance(name, str) and name.startswith("flowsim/")) or not isinstance(
            version, int
        ):
            raise FileFormatError(f"{self.path}: an HDF5 file, but not a flowsim run")
        if version > FORMAT_VERSION:
            raise FileFormatError(
                f"{self.path}: format version {version} is newer than {FORMAT_VERSION}, the "
                "newest this flowsim reads; upgrade flowsim"
            )
        if attributes.get("status") not in STATUSES:
            raise FileFormatError(f"{self.path}: status {attributes.get('status')!r} is unknown")
        self.attributes = attributes
        self.status: str = attributes["status"]
        self.stop_reason: str = str(attributes.get("stop_reason", ""))
        self.seed = int(attributes.get("seed", 0))
        self.config: dict[str, Any] = tomllib.loads(str(attributes.get("config", "")))
        self.observables = self.group("observables")
        self.snapshots = self.group("snapshots")
        self.kernel = self.group("kernel")
        self.data = self.group("data")
        self.final = self.group("final")

    def group(self, name: str) -> Group:
        """A group by name; an empty one if the file has none."""
        link = self._file.get(name, getlink=True, default=None)
        found = self._file.get(name) if isinstance(link, h5py.HardLink) else None
        return Group(self.path, found if isinstance(found, h5py.Group) else None)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(self._file)

    @property
    def layers(self) -> tuple[str, ...]:
        """Groups of weights that relative changes are given for."""
        return LAYERS

    @property
    def time(self) -> np.ndarray:
        """tau of the rows of ``observables``."""
        return self.observables["time"]

    @property
    def time_original(self) -> np.ndarray:
        """t = alpha tau of the same rows, the time of the original flow."""
        return float(self.attributes["alpha"]) * self.time

    @property
    def time_bar(self) -> np.ndarray:
        """t_bar = tau / kappa of the same rows, the papers' normalised time."""
        return self.time / float(self.attributes["kappa"])

    @property
    def loss(self) -> np.ndarray:
        """R of the same rows."""
        return self.observables["loss"]

    @property
    def relative_change(self) -> dict[str, float]:
        """RD at the end, by group of weights."""
        return dict(zip(self.layers, map(float, self.final["relative_change"]), strict=True))

    def close(self) -> None:
        """Close the file; arrays read before stay valid."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}: {self.status}, {self.stop_reason}>"


def open_run(source: str | Path | bytes) -> RunFile:
    """Open a run file for reading (see `RunFile`)."""
    return RunFile(source)


def _plain(value: Any) -> Any:
    """An attribute as a Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
