"""Whether a run begins anew, goes on where it was, or is finished already.

Looks at what is beside the output (see `flowsim.recording.places`) and prepares the growing file.
The caller holds the run's lock.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowsim.config import Experiment
from flowsim.config.experiment import NOT_HASHED, STOP_RULES
from flowsim.errors import ConfigError, FileFormatError, FlowsimError, NewerFormatError
from flowsim.recording.aligned import make_growing, open_growing
from flowsim.recording.checkpoint import Checkpoint, load_checkpoints
from flowsim.recording.contents import Array
from flowsim.recording.format import ESTIMATES
from flowsim.recording.hdf5 import clear_checksum, replace_arrays, write_attributes
from flowsim.recording.opening import read_attributes
from flowsim.recording.places import RunPlaces, rename, set_aside, unfinished
from flowsim.recording.reader import RunFile
from flowsim.steppers import METHOD_NAMES

RESUME = ("never", "auto", "must")
"""Whether a run may, and whether it must, go on where an earlier one was."""


@dataclass(frozen=True)
class Start:
    """How a run begins.

    Attributes
    ----------
    finished : bool
        There is nothing to do.
    growing : bool
        There is a growing file with rows of this run.
    checkpoint : Checkpoint or None
        Where to go on; None for t = 0.
    method : str
        Of the growing file's run, with ``auto`` resolved; empty if there is none.
    keeps_target : bool
        The output holds this run as it has ended before. It stays until the run has come to its
        new end.
    """

    finished: bool = False
    growing: bool = False
    checkpoint: Checkpoint | None = None
    method: str = ""
    keeps_target: bool = False


def find_start(
    places: RunPlaces,
    experiment: Experiment,
    fingerprint: str,
    resume: str,
    overwrite: bool,
    estimates: Mapping[str, Array],
) -> Start:
    """Find out how a run begins, and make its growing file ready.

    Parameters
    ----------
    places : RunPlaces
    experiment : Experiment
    fingerprint : str
        Of all that determines the path of the run, whenever it ends.
    resume : str
        One of `RESUME`.
    overwrite : bool
        Whatever is there may go.
    estimates : mapping
        Arrays of ``/final`` that a run has only if it is asked for them, with values that do not
        count yet.

    Raises
    ------
    ConfigError
        If the output holds something that this run must not touch, or nothing to be continued.
    """
    if overwrite:
        places.clear()
        return Start()
    present = [path for path in (places.part, places.target) if path.exists()]
    if not present:
        if resume == "must":
            raise ConfigError(
                f"output = {places.target}: there is no run to continue; leave out --resume must"
            )
        places.clear()
        return Start()
    if resume == "never":
        raise _exists(places, present[0])
    before = _this_run(places.target, fingerprint)
    keeps = before is not None and before.status in ("complete", "failed")
    if keeps and before is not None and before.asked(experiment):
        return Start(finished=True)
    found, stored = _latest(places, before)
    if stored.attributes["fingerprint"] != fingerprint:
        raise ConfigError(
            f"output = {places.target}: holds another run ({_difference(stored, experiment)}); "
            "use --overwrite (overwrite=True) or another name"
        )
    start = Start(keeps_target=keeps)
    return _go_on(places, experiment, found, stored, start, estimates)


def _go_on(
    places: RunPlaces,
    experiment: Experiment,
    found: Path,
    stored: _Stored,
    anew: Start,
    estimates: Mapping[str, Array],
) -> Start:
    """Make the growing file of a run that has been begun before.

    Parameters
    ----------
    places, experiment, estimates
        See `find_start`.
    found : Path
    stored : _Stored
        What it says.
    anew : Start
        What to return if there is nothing to go on from.
    """
    more = not stored.asked(experiment)
    if more:
        _check_goes_on(places, stored.config, experiment)
    method = _known_method(places, stored)
    checkpoint = _usable_checkpoint(places, stored, more)
    if more and checkpoint is None:
        places.clear_checkpoints()
        return anew
    if more and checkpoint is not None:
        # The last rows may be those of an end that is no longer one: back to the checkpoint.
        _ask_for_more(found, places, checkpoint, experiment, estimates)
        if found == places.target and not anew.keeps_target:
            found.unlink()
    elif found != places.growing:
        ends = found == places.target and places.scratch is None
        make_growing(found, places.growing, keep=not ends)
    return replace(anew, growing=True, checkpoint=checkpoint, method=method)


@dataclass(frozen=True)
class _Stored:
    """What a file says of its run."""

    attributes: Mapping[str, Any]
    config: Mapping[str, Any]
    status: str
    rows: Mapping[str, int]
    end: float

    def asked(self, experiment: Experiment) -> bool:
        """Whether it was asked for the same numbers."""
        return bool(self.attributes.get("config_hash") == experiment.hash())

    @classmethod
    def read(cls, path: Path) -> _Stored:
        with RunFile(path) as run:
            rows = {}
            for name in run.groups:
                group = run.group(name)
                times = [key for key in group if key.startswith("time")]
                if times and group[times[0]].ndim == 1:
                    rows[name] = len(group[times[0]])
            end = float(run.final["time"]) if "time" in run.final else math.inf
            return cls(run.attributes, run.config, run.status, rows, end)


def _this_run(path: Path, fingerprint: str) -> _Stored | None:
    """What a file says of this run; None if it does not hold it, or cannot be read."""
    try:
        stored = _Stored.read(path) if path.exists() else None
    except FileFormatError:
        return None
    return stored if stored and stored.attributes.get("fingerprint") == fingerprint else None


def _latest(places: RunPlaces, before: _Stored | None) -> tuple[Path, _Stored]:
    """The file that the run goes on from, and what it says: the growing one, if it is of use.

    Parameters
    ----------
    places : RunPlaces
    before : _Stored or None
        What the output says, if it holds this run.
    """
    for path in (places.part, places.target):
        if not path.exists():
            continue
        try:
            stored = _Stored.read(path)
        except NewerFormatError:
            raise
        except FileFormatError as error:
            if path == places.part and before is not None:
                set_aside(path)  # the run goes on from what the output has
                continue
            raise _exists(places, path) from error
        if "fingerprint" not in stored.attributes:
            raise _exists(places, path)
        return path, stored
    raise FlowsimError(f"output = {places.target}: was removed just now; run it again")


def _exists(places: RunPlaces, found: Path) -> ConfigError:
    what = "exists already" if found == places.target else f"{found.name} is beside it"
    return ConfigError(
        f"output = {places.target}: {what}; use --overwrite (overwrite=True) or another name"
    )


def _known_method(places: RunPlaces, stored: _Stored) -> str:
    """The method by which a run was begun: another would come to other rows."""
    method = str(stored.attributes.get("method", ""))
    if method not in METHOD_NAMES:
        raise ConfigError(
            f"output = {places.target}: its method {method!r} is unknown here; use --overwrite "
            "(overwrite=True) or another name"
        )
    return method


def _usable_checkpoint(places: RunPlaces, stored: _Stored, more: bool) -> Checkpoint | None:
    """The latest checkpoint of this run whose rows are all in the file.

    Not one beyond the end of the file, whose last rows are those of that end; and if the run is
    asked for ``more``, not one to which a step led that the former t_max has cut short.
    """
    for checkpoint in load_checkpoints(places):
        saved = all(stored.rows.get(name, 0) >= rows for name, rows in checkpoint.rows.items())
        here = saved and checkpoint.contents.get("time", math.inf) <= stored.end
        off_path = more and checkpoint.contents.get("cut", False)
        same = checkpoint.fingerprint == stored.attributes["fingerprint"]
        if same and here and not off_path:
            return checkpoint
    return None


def _flat(sections: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in sections.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _difference(stored: _Stored, experiment: Experiment) -> str:
    """A key in which two experiments differ that may not differ."""
    before, now = dict(_flat(stored.config)), dict(_flat(experiment.to_dict()))
    free = (*NOT_HASHED, *(f"integrate.{key}" for key in (*STOP_RULES, "estimate_error")))
    for key in sorted({*before, *now}):
        if not key.startswith(free) and before.get(key) != now.get(key):
            return f"{key} differs"
    return "its data, initial weights or functions differ"


def _check_goes_on(places: RunPlaces, before: Mapping[str, Any], experiment: Experiment) -> None:
    """Refuse an end that may lie before the one that the run has reached."""
    old, new = before.get("integrate", {}), experiment.to_dict()["integrate"]
    for key, direction in STOP_RULES.items():
        unlimited = direction * math.inf
        if direction * (new.get(key, unlimited)) < direction * (old.get(key, unlimited)):
            raise ConfigError(
                f"output = {places.target}: holds a run that was to go further (integrate.{key} = "
                f"{old.get(key, 'none')}); use --overwrite (overwrite=True) or another name"
            )


def _ask_for_more(
    found: Path,
    places: RunPlaces,
    checkpoint: Checkpoint,
    experiment: Experiment,
    estimates: Mapping[str, Array],
) -> None:
    """Make a growing file of what a run had at its checkpoint, with another end in its config.

    Before it gets its name it says itself that it has not come to that end.
    """
    work = unfinished(unfinished(places.growing))
    make_growing(found, work)
    with open_growing(work, "r+") as file:
        for name, rows in checkpoint.rows.items():
            for dataset in file[name].values():
                if dataset.maxshape[:1] == (None,):
                    dataset.resize(rows, axis=0)
                clear_checksum(dataset)
        replace_arrays(file["final"], ESTIMATES, estimates)
        file["final/time"][...] = math.nan
        for dataset in file["final"].values():
            clear_checksum(dataset)
        attributes = read_attributes(str(found), file)
        config = {"config": experiment.to_toml(), "config_hash": experiment.hash()}
        state = {"status": "running", "stop_reason": ""}
        write_attributes(file, {**attributes, **config, **state})
    with open(work, "rb+") as synced:
        os.fsync(synced.fileno())
    rename(work, places.growing)
