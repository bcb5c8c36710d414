"""From runs that are finished to one file a grid point.

A run comes out of its worker in memory, or in a file of its own if it took longer than until its
first commit. It goes into the file of its point as soon as all the point's runs are there, and
runs that are only in memory do so every now and then. Whatever happens meanwhile: a run is in one
of the two files at least, and both are whole.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from flowsim.errors import FileFormatError, FlowsimError, NewerFormatError, StorageError
from flowsim.recording.contents import RunContents
from flowsim.recording.ensemble import write_ensemble
from flowsim.recording.hdf5 import file_image
from flowsim.recording.lock import is_locked
from flowsim.recording.places import RunPlaces, put, set_aside
from flowsim.recording.reader import Ensemble, RunFile, open_runs
from flowsim.sweeps.claims import Claims
from flowsim.sweeps.endings import FINISHED, NOTHING, end_of, ends_of, free, is_finished_as
from flowsim.sweeps.failures import read_failure, read_failures, write_failure
from flowsim.sweeps.folder import SweepFolder
from flowsim.sweeps.grid import Member, Unit
from flowsim.sweeps.pool import LATER, Later

SAVE_SECONDS = 10.0
"""Runs are in memory only for no longer than this."""


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
    members : sequence of Member
        All runs of the grid.
    claims : Claims
        Nothing but reading happens at a point that is not claimed.

    Attributes
    ----------
    failed : dict of str to str
        Identity and reason of runs that failed before, or that got lost.
    """

    def __init__(self, folder: SweepFolder, members: Sequence[Member], claims: Claims) -> None:
        self._folder, self._claims = folder, claims
        self._points: dict[str, _Point] = {}
        self._saved_at = time.monotonic()
        self._own = {path.name.partition(".")[0] for path in folder.runs.glob("*-*.h5*")}
        self.failed: dict[str, str] = {}
        self._given_up = read_failures(folder.runs)
        for member in members:
            point = self._points.setdefault(member.point, _Point(folder.point_file(member.point)))
            point.members[member.seed] = member
        for point in self._points.values():
            self._look(point)

    def _look(self, point: _Point, claimed: bool = False) -> None:
        """Find out which runs of a point are finished, and tidy up if it is claimed."""
        ends: dict[int, tuple[str, str, str]] = {}
        point.missing.clear()
        if point.path.exists():
            try:
                with Ensemble(point.path, RunFile) as runs:
                    ends = ends_of(runs)
            except NewerFormatError:
                raise
            except (FileFormatError, KeyError):
                if claimed:
                    set_aside(point.path)
        point.stored = set(ends)
        for seed, member in point.members.items():
            here = ends.get(seed, NOTHING)
            if claimed and not is_finished_as(here, member):
                here = self._take_own(point, member)
            elif claimed and self._folder.member_file(member).exists():
                # The sweep was killed while it tidied up.
                RunPlaces(self._folder.member_file(member)).clear(keep_target=False)
            if claimed:
                free(self._folder.member_file(member))
            elif member.id in self._own:
                here = NOTHING  # whatever there is besides, it has to be tidied up
            if is_finished_as(here, member):
                if here[0] == "failed":
                    self.failed[member.id] = here[1]
            elif reason := self._reason_to_give_up(member, claimed):
                self.failed[member.id] = reason
            else:
                point.missing.add(seed)

    def _reason_to_give_up(self, member: Member, claimed: bool) -> str:
        """Why a run is not tried again; empty if it is."""
        if claimed:  # somebody may have met it since
            return read_failure(self._folder.runs, member.id)
        return self._given_up.get(member.id, "")

    def _take_own(self, point: _Point, member: Member) -> tuple[str, str, str]:
        """Take a finished run that has a file of its own."""
        file = self._folder.member_file(member)
        if member.id not in self._own and not file.exists():
            return NOTHING
        end = end_of(file)
        if is_finished_as(end, member):
            point.fresh[member.seed] = file
        return end

    def admit(self, unit: Unit) -> Unit | Later | None:
        """Claim the point of a unit; return what is to be done of it.

        Returns
        -------
        Unit, None, or LATER
            None if nothing is missing any more, `LATER` while somebody else is at it.
        """
        point = self._points[unit.members[0].point]
        name = point.path.stem
        if not self._claims.holds(name):
            if not self._claims.take(name):
                return LATER
            # A killed process's workers outlive it by a moment.
            if any(is_locked(self._folder.member_file(m)) for m in point.members.values()):
                self._claims.release(name)
                return LATER
            self._look(point, claimed=True)
            if not point.missing:
                self._settle(point)
        members = tuple(member for member in unit.members if member.seed in point.missing)
        left = Unit(members)
        return replace(left, whole=self._is_whole(left)) if members else None

    def _settle(self, point: _Point) -> None:
        """Save a point at which nothing is missing, and let go of it."""
        self._save(point)
        self._claims.release(point.path.stem)

    def missing(self) -> list[Member]:
        """Return the runs that have to be carried out, in the order of the grid."""
        points = self._points.values()
        return [m for point in points for seed, m in point.members.items() if seed in point.missing]

    def _is_whole(self, unit: Unit) -> bool:
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
            self._settle(point)

    def give_up(self, member: Member, reason: str) -> None:
        """Note that a run cannot be carried out, so that nobody tries it again for ever."""
        write_failure(self._folder.runs, member.id, reason)

    def is_finished(self, member: Member) -> bool:
        """Whether a run is among those that will not be carried out again."""
        point = self._points[member.point]
        return member.seed not in point.missing

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
