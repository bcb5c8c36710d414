"""From runs that are finished to one file a grid point.

A run comes out of its worker in memory, or in a file of its own if it took longer than until its
first commit. It goes into the file of its point as soon as all the point's runs are there, and
runs that are only in memory do so every now and then. Whatever happens meanwhile: a run is in one
of the two files at least, and both are whole.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from flowsim.errors import FileFormatError, FlowsimError, NewerFormatError, StorageError
from flowsim.recording.contents import RunContents
from flowsim.recording.ensemble import write_ensemble
from flowsim.recording.hdf5 import file_image
from flowsim.recording.lock import RunLock
from flowsim.recording.places import RunPlaces, put, set_aside
from flowsim.recording.reader import Ensemble, RunFile, open_runs
from flowsim.sweeps.folder import SweepFolder
from flowsim.sweeps.grid import Member, Unit

SAVE_SECONDS = 10.0
"""Runs are in memory only for no longer than this."""

FINISHED = ("complete", "failed")
"""Statuses that the same run would end with again."""


_NOTHING = ("", "", "")


@dataclass(frozen=True)
class Stored:
    """A run in the file of its point.

    Attributes
    ----------
    path : Path
    seed : int
    position : int
        In the file; it changes when seeds are added.
    """

    path: Path
    seed: int
    position: int = 0


Source: TypeAlias = "RunContents | Path | Stored"
"""Where a run is: in memory, in a file of its own, in the file of its point."""


def write_point(
    path: Path,
    runs: Mapping[int, RunContents | Path],
    compression: str = "none",
    also: Collection[int] = (),
) -> dict[int, str]:
    """Write the file of a point, and remove the files that runs had of their own.

    Parameters
    ----------
    path : Path
    runs : dict
        By seed.
    compression : str
    also : collection of int
        Seeds of runs in the present file, which are to stay.

    Returns
    -------
    dict
        Seeds of runs that could not be read, and why; they are left out.

    Raises
    ------
    StorageError
        If it cannot be written; everything is still where it was.
    NewerFormatError
        If a later flowsim has written there: nothing is touched.
    """
    contents: dict[int, RunContents] = {}
    damaged: dict[int, str] = {}
    if also:
        _read_present(path, also, contents, damaged)
    if damaged:
        set_aside(path)
    for seed, source in runs.items():
        try:
            contents[seed] = source if isinstance(source, RunContents) else _read(source)
        except NewerFormatError:
            raise
        except FileFormatError as error:
            damaged[seed] = str(error)
            assert isinstance(source, Path)
            set_aside(source)
    if contents:
        write_ensemble(path, [contents[seed] for seed in sorted(contents)], compression)
    for source in runs.values():
        if isinstance(source, Path):
            RunPlaces(source).clear(keep_target=False)
    return damaged


def _read(path: Path) -> RunContents:
    with RunFile(path) as run:
        return run.contents()


def _read_present(
    path: Path, seeds: Collection[int], contents: dict[int, RunContents], damaged: dict[int, str]
) -> None:
    try:
        with open_runs(path) as members:
            for run in members:
                if run.seed in seeds:
                    try:
                        contents[run.seed] = run.contents()
                    except FileFormatError as error:
                        damaged[run.seed] = str(error)
    except NewerFormatError:
        raise
    except FileFormatError as error:
        damaged.update(dict.fromkeys(seeds, str(error)))


@dataclass
class _Point:
    """What is known of one grid point.

    Attributes
    ----------
    members : dict
        Of the grid, by seed.
    missing : set of int
        Seeds of runs that have to be carried out.
    stored : set of int
        Seeds of the runs in the point's file, also those of other grids.
    fresh : dict
        Runs that are not in that file yet.
    """

    path: Path
    members: dict[int, Member] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)
    fresh: dict[int, RunContents | Path] = field(default_factory=dict)


class Store:
    """The runs of a sweep that has a folder.

    Parameters
    ----------
    folder : SweepFolder
        Its lock is held.
    members : sequence of Member
        All runs of the grid.

    Attributes
    ----------
    failed : dict of str to str
        Identity and reason of runs that failed before, or that got lost.
    """

    def __init__(self, folder: SweepFolder, members: Sequence[Member]) -> None:
        self._folder = folder
        self._points: dict[str, _Point] = {}
        self._saved_at = time.monotonic()
        self._own = {path.name.partition(".")[0] for path in folder.runs.glob("*-*.h5*")}
        self.failed: dict[str, str] = {}
        for member in members:
            point = self._points.setdefault(member.point, _Point(folder.point_file(member.point)))
            point.members[member.seed] = member
        for point in self._points.values():
            self._look(point)

    def _look(self, point: _Point) -> None:
        """Find out which runs of a point are finished."""
        ends: dict[int, tuple[str, str, str]] = {}
        if point.path.exists():
            try:
                with Ensemble(point.path, RunFile) as runs:
                    ends = _ends(runs)
            except NewerFormatError:
                raise
            except (FileFormatError, KeyError):
                set_aside(point.path)
        point.stored = set(ends)
        for seed, member in point.members.items():
            file = self._folder.member_file(member)
            here = ends.get(seed, _NOTHING)
            own = _end_of(file) if member.id in self._own else _NOTHING
            if _is_finished(here, member):
                if member.id in self._own:  # the sweep was killed while it tidied up
                    RunPlaces(file).clear(keep_target=False)
                    _free(file)
            elif _is_finished(own, member):
                here, point.fresh[seed] = own, file
                _free(file)
            else:
                point.missing.add(seed)
                continue
            if here[0] == "failed":
                self.failed[member.id] = here[1]

    def missing(self) -> list[Member]:
        """Return the runs that have to be carried out, in the order of the grid."""
        points = self._points.values()
        return [m for point in points for seed, m in point.members.items() if seed in point.missing]

    def is_whole(self, unit: Unit) -> bool:
        """Whether a unit of work has all there will be in the file of its point."""
        point = self._points[unit.members[0].point]
        return not point.stored and not point.fresh and len(unit.members) == len(point.members)

    def add(self, member: Member, source: Source | None, status: str) -> None:
        """Take a run from its worker.

        Parameters
        ----------
        member : Member
        source : RunContents, Path, Stored or None
            None if there is no run.
        status : str
            Of the run. One that can be continued keeps its own file.
        """
        point = self._points[member.point]
        point.missing.discard(member.seed)
        if isinstance(source, Stored):
            point.stored.add(member.seed)
        elif isinstance(source, RunContents) or (source is not None and status in FINISHED):
            point.fresh[member.seed] = source
        if not point.missing:
            self._save(point)

    def save(self, if_due: bool = False) -> None:
        """Put everything that is finished into the files.

        Parameters
        ----------
        if_due : bool
            Only what is in memory, and only if that has not happened for a while.
        """
        if if_due and time.monotonic() - self._saved_at < SAVE_SECONDS:
            return
        failure: StorageError | None = None
        for point in self._points.values():
            in_memory = any(isinstance(run, RunContents) for run in point.fresh.values())
            if in_memory or not if_due:
                try:
                    self._save(point)
                except StorageError as error:
                    failure = error  # where one does not fit a smaller one may
        self._saved_at = time.monotonic()
        if failure is not None:
            raise failure

    def _save(self, point: _Point) -> None:
        if not point.fresh:
            return
        compression = next(iter(point.members.values())).experiment.record.compression
        kept = point.stored - set(point.fresh)
        fresh, point.fresh = point.fresh, {}
        try:
            lost = write_point(point.path, fresh, compression, kept)
        except StorageError:
            point.fresh = {
                seed: self._save_alone(point.members[seed], run) for seed, run in fresh.items()
            }
            raise
        except FlowsimError as error:
            reason = f"does not go with the runs in {point.path} ({error}); use another folder"
            self.failed.update((point.members[seed].id, reason) for seed in fresh)
            return
        point.stored = (point.stored | set(fresh)) - set(lost)
        for seed, reason in lost.items():
            if seed in point.members:
                self.failed[point.members[seed].id] = f"{reason}; the same sweep repeats this run"

    def _save_alone(self, member: Member, run: RunContents | Path) -> RunContents | Path:
        """Give a run that is only in memory a file of its own, if that fits on the disk."""
        if isinstance(run, Path):
            return run
        file = self._folder.member_file(member)
        try:
            put(file, file_image(run))
        except StorageError:
            return run
        return file

    def source(self, member: Member) -> Path | Stored | None:
        """Where a run is now; None if there is none."""
        point = self._points[member.point]
        if member.seed in point.stored:
            return Stored(point.path, member.seed, sorted(point.stored).index(member.seed))
        file = self._folder.member_file(member)
        return file if file.exists() else None


def _ends(runs: Ensemble[RunFile]) -> dict[int, tuple[str, str, str]]:
    """Status, reason and hash of runs by seed, without opening them one by one."""
    columns = (
        [str(x) for x in runs.table[name]] for name in ("status", "stop_reason", "config_hash")
    )
    return dict(zip(runs.seeds, zip(*columns, strict=True), strict=True))


def _end(run: RunFile) -> tuple[str, str, str]:
    """Status, reason and hash of a run."""
    return run.status, run.stop_reason, str(run.attributes.get("config_hash"))


def _end_of(file: Path) -> tuple[str, str, str]:
    """The same of a run that has a file of its own; nothing if that cannot be read."""
    try:
        with RunFile(file) as run:
            return _end(run)
    except NewerFormatError:
        raise
    except FlowsimError:
        # Not by our doing; but nobody would be able to go on with it.
        if file.exists():
            set_aside(file)
        RunPlaces(file).clear(keep_target=False)
        return _NOTHING


def _free(file: Path) -> None:
    """Remove the lock that a killed process has left; nobody will take it again."""
    with suppress(FlowsimError), RunLock(file):
        pass


def _is_finished(end: tuple[str, str, str], member: Member) -> bool:
    return end[0] in FINISHED and end[2] == member.hash
