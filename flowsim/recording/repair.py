"""Makes an ordinary file of one that a killed process has left behind."""

from __future__ import annotations

from pathlib import Path

import h5py

from flowsim.errors import FlowsimError
from flowsim.recording.groups import guarded
from flowsim.recording.hdf5 import set_checksum, set_text
from flowsim.recording.lock import RunLock
from flowsim.recording.places import RunPlaces, check_name, copy, rename, unfinished
from flowsim.recording.reader import RunFile
from flowsim.recording.superblock import clear_flags, read_flags


def repair(path: str | Path, output: str | Path | None = None, overwrite: bool = False) -> Path:
    """Make an ordinary file of a killed one: nobody needs to know SWMR to open it.

    It has the committed rows and nothing else, status ``preempted``, and can be continued like
    any preempted run. The work is done on a copy.

    Parameters
    ----------
    path : path
        ``run.h5.part``; ``run.h5`` stands for it too.
    output : path, optional
        By default ``run.h5``, and the unfinished file goes.
    overwrite : bool
        Replace an existing output.

    Returns
    -------
    Path
        The output.

    Raises
    ------
    FlowsimError
        If the run is being written, the output exists, or there is nothing to repair.
    FileFormatError
        If the file is damaged beyond its flags.
    """
    places = RunPlaces.of(path)
    source = places.part if places.part.exists() else Path(path)
    target = places.target if output is None else Path(output)
    check_name("output", target)
    with RunLock(places.target):
        _check(source, target, overwrite)
        work = unfinished(target)
        copy(source, work)
        try:
            clear_flags(work)
            guarded(str(source), lambda: _settle(work))
            rename(work, target)
        finally:
            work.unlink(missing_ok=True)
        if source == places.part and target == places.target:
            source.unlink()
    return target


def _check(source: Path, target: Path, overwrite: bool) -> None:
    with RunFile(source) as run:
        status = run.status
    if status != "running" and not read_flags(source):
        raise FlowsimError(f"{source}: is in order ({status}); nothing to repair")
    if target.exists() and target != source and not overwrite:
        raise FlowsimError(f"{target}: exists already; use --overwrite or another name")


def _settle(path: Path) -> None:
    """Cut every array to the rows that count, and say how the run ended."""
    with RunFile(path) as run:
        rows = {name: len(run.group(name)[run.group(name).time_name]) for name in _growing(run)}
        ended = run.status != "running"
        last = "no rows"
        if rows.get("observables"):
            last = f"{rows['observables']} rows, last at tau = {run.time[-1]:g}"
            if "loss" in run.observables:
                last += f", R = {run.loss[-1]:.4g}"
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        for name, count in rows.items():
            for dataset in file[name].values():
                if dataset.maxshape[:1] == (None,):
                    dataset.resize(count, axis=0)
                set_checksum(dataset)
        if not ended:
            set_text(file, "status", "preempted")
            set_text(file, "stop_reason", f"killed: {last}")


def _growing(run: RunFile) -> list[str]:
    return [name for name in run.groups if name != "final" and run.group(name).time_name]
