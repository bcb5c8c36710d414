"""Reads runs: finished, growing, killed; from files, from memory, out of ensembles."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

import h5py
import numpy as np

from flowsim.errors import FileFormatError
from flowsim.recording.contents import GroupContents, RunContents
from flowsim.recording.expected import check_attributes, plain
from flowsim.recording.format import STATUSES, layers_of
from flowsim.recording.groups import FileSource, Group, MemorySource, guarded
from flowsim.recording.integrity import file_size, groups_of
from flowsim.recording.lock import holder
from flowsim.recording.opening import open_file, read_attributes


class RunFile:
    """One run. Use it as a context manager or call `close`.

    Parameters
    ----------
    source : path or RunContents
        A file, finished or growing (``run.h5`` stands for ``run.h5.part`` too), or a run that was
        kept in memory.
    member : int, optional
        Which run of an ensemble. An ensemble of one needs none.

    Attributes
    ----------
    path : str
        ``memory`` for a run in memory.
    status, stop_reason : str
    seed : int
    attributes : dict
        Of the run.
    config : dict
        The resolved experiment.
    observables, snapshots, kernel, data, final : Group
        The groups (see `flowsim.recording.format`); empty if there is none. A growing run has no
        ``final``.

    Raises
    ------
    FileFormatError
        If it is not a run file, damaged, or of a newer format version.
    """

    def __init__(self, source: str | Path | RunContents, member: int | None = None) -> None:
        self._contents = source if isinstance(source, RunContents) else None
        self._file: h5py.File | None = None
        self._owns_file = True
        self._groups: dict[str, Group] = {}
        if isinstance(source, RunContents):
            self.path = "memory"
            self._read_head(dict(source.attributes))
            return
        path, self._file = open_file(Path(source))
        self.path = str(path)
        try:
            attributes = read_attributes(self.path, self._file)
            if attributes.get("layout") == "ensemble":
                own = _own_arrays(self.path, self._file)
                count = len(own["seed"])
                if member is None and count != 1:
                    raise FileFormatError(
                        f"{self.path}: an ensemble of {count} runs; open it with flowsim.open, "
                        "which gives them one by one"
                    )
                member = member or 0
                if not 0 <= member < count:
                    raise FileFormatError(f"{self.path}: has no run {member}, it has {count} runs")
                attributes |= {name: plain(values[member]) for name, values in own.items()}
            else:
                member = None
            self._read_member(attributes, member)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def _of_open_file(
        cls, path: str, file: h5py.File, attributes: Mapping[str, Any], member: int
    ) -> Self:
        """One run of an ensemble that is open already."""
        run = cls.__new__(cls)
        run._contents, run._file, run._owns_file, run._groups = None, file, False, {}
        run.path = path
        run._read_member(dict(attributes), member)
        return run

    def _read_member(self, attributes: dict[str, Any], member: int | None) -> None:
        assert self._file is not None
        self._member = member
        check_attributes(self.path, attributes)
        self._found = guarded(self.path, lambda: groups_of(self.path, self._file))
        self._read_head(attributes)

    def _read_head(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes = _Attributes(attributes, path=self.path)
        if attributes.get("status") not in STATUSES:
            raise FileFormatError(f"{self.path}: status {attributes.get('status')!r} is unknown")
        self.status: str = attributes["status"]
        self.stop_reason = str(attributes.get("stop_reason", ""))
        self.seed = guarded(self.path, lambda: int(attributes.get("seed", 0)))
        text = str(attributes.get("config", ""))
        self.config: dict[str, Any] = guarded(self.path, lambda: tomllib.loads(text))
        self.observables = self.group("observables")
        self.snapshots = self.group("snapshots")
        self.kernel = self.group("kernel")
        self.data = self.group("data")
        self.final = self.group("final")

    def group(self, name: str) -> Group:
        """A group by name; an empty one if there is none."""
        if name not in self._groups:
            self._groups[name] = self._make_group(name)
        return self._groups[name]

    def _make_group(self, name: str) -> Group:
        if self._contents is not None:
            contents = self._contents.groups.get(name)
            return Group(
                self.path, name, None if contents is None else MemorySource(name, contents)
            )
        found = self._found.get(name)
        if found is None:
            return Group(self.path, name, None)
        sealed = self.status != "running"
        group = Group(self.path, name, FileSource(self.path, found, self._member, sealed))
        # The end is laid out from the beginning, and counts once it has a time.
        if name == "final" and "time" in group and not np.isfinite(group["time"]).all():
            return Group(self.path, name, None)
        return group

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups."""
        if self._contents is not None:
            return tuple(self._contents.groups)
        return tuple(name for name in self._found if len(self.group(name)))

    @property
    def member(self) -> int | None:
        """Position of the run in its ensemble; None for a run that is in none."""
        return None if self._contents is not None else self._member

    @property
    def state(self) -> str:
        """The status; for a run that has not ended ``running``, or ``killed`` if nobody writes it.

        A run that is written on another machine, or without a lock, is hard to tell from a killed
        one: the first counts as running, the second as killed.
        """
        if self.status != "running":
            return self.status
        return "running" if self.writer is not None else "killed"

    @property
    def writer(self) -> str | None:
        """Who is writing the run, as far as its lock tells; None if nobody is."""
        return None if self._contents is not None else holder(Path(self.path))

    def verify(self) -> list[str]:
        """Read everything; return what is wrong, one line each."""
        return [problem for name in self.groups for problem in self.group(name).verify()]

    @property
    def n_bytes(self) -> int:
        """Size of the file; 0 in memory."""
        return 0 if self._file is None else file_size(self._file)

    def contents(self) -> RunContents:
        """The whole run in memory."""
        if self._contents is not None:
            return self._contents
        groups = {}
        for name in self.groups:
            group = self.group(name)
            arrays = {key: group.array(key) for key in group}
            groups[name] = GroupContents(arrays, group.time_name, group.attributes)
            if name == "final":
                groups[name].time_name = ""
        attributes = {key: value for key, value in self.attributes.items() if key != "layout"}
        return RunContents(attributes, groups)

    @property
    def layers(self) -> tuple[str, ...]:
        """Groups of weights that relative changes are given for."""
        return layers_of(self.attributes)

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
        if self._file is not None and self._owns_file:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}: {self.status}, {self.stop_reason}>"


class _Attributes(dict[str, Any]):
    """Attributes by name; one that is missing is the file's fault."""

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise FileFormatError(f"{self._path}: has no attribute {name!r}; damaged")


R = TypeVar("R", bound=RunFile)


class Ensemble(Sequence[R], Generic[R]):
    """The runs of an ensemble file; use it as a context manager or call `close`.

    Parameters
    ----------
    path : path
    kind : type
        Of the runs: `RunFile` or a class derived from it.

    Attributes
    ----------
    path : str
    attributes : dict
        What all runs have in common.
    seeds : tuple of int
    table : dict of str to ndarray
        What each run has as an attribute of its own, (run,) arrays.
    """

    def __init__(self, path: str | Path, kind: type[R]) -> None:
        found, self._file = open_file(Path(path))
        self.path = str(found)
        self._kind = kind
        try:
            self.attributes = read_attributes(self.path, self._file)
            if self.attributes.get("layout") != "ensemble":
                raise FileFormatError(f"{self.path}: a single run; open it with flowsim.open")
            self.table = _own_arrays(self.path, self._file)
            self.seeds = tuple(self.table["seed"].tolist())
            self._n = len(self.seeds)
        except BaseException:
            self._file.close()
            raise
        self._runs: dict[int, R] = {}

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._n))]
        member = index + self._n if index < 0 else index
        if not 0 <= member < self._n:
            raise IndexError(f"{self.path}: run {index} of {self._n}")
        if member not in self._runs:
            own = {name: plain(values[member]) for name, values in self.table.items()}
            self._runs[member] = self._kind._of_open_file(
                self.path, self._file, {**self.attributes, **own}, member
            )
        return self._runs[member]

    def close(self) -> None:
        """Close the file, for all its runs."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}: {self._n} runs>"


def open_run(source: str | Path | RunContents) -> RunFile:
    """Open one run for reading (see `RunFile`)."""
    return RunFile(source)


def is_ensemble(path: str | Path) -> bool:
    """Whether a file holds an ensemble.

    Raises
    ------
    FileFormatError
        If it is not a run file.
    """
    found, file = open_file(Path(path))
    with file:
        return read_attributes(str(found), file).get("layout") == "ensemble"


class OneRun(list[R]):
    """A single run where an ensemble might have been."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self[0].close()


@overload
def open_runs(path: str | Path) -> Ensemble[RunFile] | OneRun[RunFile]: ...
@overload
def open_runs(path: str | Path, kind: type[R]) -> Ensemble[R] | OneRun[R]: ...
def open_runs(path: str | Path, kind: Any = RunFile) -> Any:
    """Open a file for reading, whatever number of runs it holds.

    Returns
    -------
    Ensemble or OneRun
        A sequence of runs, and a context manager.
    """
    return Ensemble(path, kind) if is_ensemble(path) else OneRun([kind(path)])


def _own_arrays(path: str, file: h5py.File) -> dict[str, np.ndarray]:
    """What each run of an ensemble has as attributes, and the others differently.

    Raises
    ------
    FileFormatError
        If the seeds, of which each run has one, are not there.
    """
    root = FileSource(path, file["/"], None)
    if "seed" not in root.names():
        raise FileFormatError(f"{path}: an ensemble without seeds; damaged")
    own = {name: root.values(name) for name in root.names()}
    seeds = own["seed"]
    if seeds.ndim != 1 or seeds.dtype.kind not in "iu":
        raise FileFormatError(f"{path}: /seed is {seeds.dtype} {seeds.shape}; damaged")
    return {name: values for name, values in own.items() if values.shape == seeds.shape}
