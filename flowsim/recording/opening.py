"""Opens run files for reading, whatever state they are in, and reads their attributes."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py

from flowsim.errors import ConfigError, FileFormatError, NewerFormatError
from flowsim.recording.expected import check_attributes, plain
from flowsim.recording.format import FORMAT_VERSION, PARTIAL_SUFFIX
from flowsim.recording.groups import guarded, short
from flowsim.recording.hdf5 import ATTRIBUTES_CHECKSUM, attributes_checksum
from flowsim.recording.integrity import check_heaps
from flowsim.recording.lock import holder
from flowsim.recording.places import companion_of
from flowsim.recording.settled import open_settled
from flowsim.recording.superblock import check_regular, read_flags

_PATIENCE = 1.0
"""Seconds to wait for a file that is just being made, closed or renamed."""


def open_file(path: Path) -> tuple[Path, h5py.File]:
    """Open a file for reading only: as an ordinary one, or as one that is being written.

    Parameters
    ----------
    path : Path
        ``run.h5`` stands for ``run.h5.part`` too, while there is nothing else.

    Returns
    -------
    Path, h5py.File
        What was opened.

    Raises
    ------
    FileFormatError
        If it cannot be read.
    """
    end = time.monotonic() + _PATIENCE
    changing = False
    while True:
        found = _find(path)
        before = _stat(found)
        flags: int | None = None
        try:
            flags = read_flags(found)  # also refuses what is no file
            return found, _open(found, flags, changing)
        except FileNotFoundError as error:
            raised: Exception = FileFormatError(f"{path}: no such file; check the path")
            raised.__cause__ = error
        except IsADirectoryError as error:
            raise FileFormatError(f"{path}: a folder; name a run file in it") from error
        except PermissionError as error:
            raise FileFormatError(f"{path}: may not be read; ask its owner") from error
        except FileFormatError as error:
            raised = error
        except (OSError, ValueError, RuntimeError) as error:
            raised = FileFormatError(f"{path}: not a run file, or damaged ({short(error)})")
            raised.__cause__ = error
        # A run that is being made, ended or renamed settles soon; anything else never will.
        changing = _find(path) != found or _stat(found) != before
        if not (changing or (flags and holder(found))) or time.monotonic() > end:
            raise raised
        time.sleep(0.02)


def _stat(path: Path) -> tuple[int, ...]:
    """Something that changes when a file does."""
    with suppress(OSError):
        stat = path.stat()
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    return ()


def _open(path: Path, flags: int | None, changing: bool) -> h5py.File:
    """Open for reading; ``changing`` tells that somebody is writing it, lock or no lock."""
    if flags and not (changing or holder(path)):
        file = open_settled(path)
    else:
        file = h5py.File(path, "r", swmr=bool(flags), locking=False)
    try:
        guarded(str(path), lambda: check_heaps(str(path), file))
    except BaseException:
        file.close()
        raise
    return file


def _find(path: Path) -> Path:
    """``run.h5``, or ``run.h5.part`` while there is nothing else."""
    part = path.with_name(path.name + PARTIAL_SUFFIX) if path.name else path
    with suppress(OSError):
        if not path.exists() and part.is_file():
            return part
    return path


def check_replaceable(key: str, path: str | os.PathLike[str]) -> None:
    """Refuse to write something else over a run, or over a file beside one.

    Parameters
    ----------
    key : str
        What the user has called the path.
    path : path

    Raises
    ------
    ConfigError
    """
    path = Path(path)
    run = companion_of(path)
    if run is not None and (path.exists() or run.exists()):
        raise ConfigError(f"{key} = {path}: belongs to the run {run}; choose another name")
    if _may_be_run(path):
        raise ConfigError(f"{key} = {path}: holds a run; remove it yourself or use another name")


def _may_be_run(path: Path) -> bool:
    """Whether a file is a run, perhaps one that is damaged."""
    try:
        check_regular(path)
        if not h5py.is_hdf5(path):
            return False
        flags = read_flags(path)
        with open_settled(path) if flags else h5py.File(path, "r", locking=False) as file:
            return str(plain(file.attrs.get("format"))).startswith("flowsim/")
    except FileNotFoundError:
        return False
    except FileFormatError:
        return False
    except Exception:
        return True


def read_attributes(path: str, file: h5py.File) -> dict[str, Any]:
    """Attributes of a file.

    Raises
    ------
    FileFormatError
        If it is not a run file, or of a version we do not know.
    """
    attributes: dict[str, Any] = guarded(
        path, lambda: {name: plain(value) for name, value in file.attrs.items()}
    )
    name, version = attributes.get("format"), attributes.get("format_version")
    if not (isinstance(name, str) and name.startswith("flowsim/")) or not isinstance(version, int):
        raise FileFormatError(f"{path}: an HDF5 file, but not a flowsim run")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path}: format version {version} is newer than {FORMAT_VERSION}, the newest this "
            "flowsim reads; upgrade flowsim"
        )
    said = attributes.pop(ATTRIBUTES_CHECKSUM, None)
    if said is not None and said != attributes_checksum(attributes):
        raise FileFormatError(f"{path}: its attributes are damaged, their checksum does not match")
    check_attributes(path, attributes)
    return attributes
