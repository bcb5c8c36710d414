"""Where the files of a run are: the run itself and those beside it while it lasts.

====================  =============================================================
``run.h5``            the run, once it has come to an end or has been preempted
``run.h5.part``       while it grows
``run.h5.checkpoint`` where it can be continued from; ``.previous`` the one before
``run.h5.lock``       held by the process that writes it
``*.damaged``         could not be read and was set aside; of no use to flowsim
``*~``                about to be renamed to one of these; of no value if left over
====================  =============================================================

A finished run that is asked for more stays in its place until it has come to its new end; until
then what goes on is in ``run.h5.part``, also where it has been preempted.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from flowsim.errors import ConfigError, StorageError
from flowsim.recording.format import PARTIAL_SUFFIX

_COMPANION = re.compile(r"(\.part|\.checkpoint(\.previous)?|\.previous|\.lock|\.damaged\d*|~)+$")


@dataclass(frozen=True)
class RunPlaces:
    """The files of one run.

    Parameters
    ----------
    target : Path
        ``run.h5``.
    scratch : Path, optional
        Folder on a local disk in which the run grows, for targets on network file systems. It is
        copied to ``run.h5.part`` beside the target at each checkpoint.
    """

    target: Path
    scratch: Path | None = None

    def _beside(self, suffix: str) -> Path:
        return self.target.with_name(self.target.name + suffix)

    @property
    def part(self) -> Path:
        """Beside the target: the growing file, or its latest copy."""
        return self._beside(PARTIAL_SUFFIX)

    @property
    def growing(self) -> Path:
        """The file that is written to: `part`, or one on the scratch disk."""
        if self.scratch is None:
            return self.part
        mark = hashlib.sha256(str(self.target.absolute()).encode()).hexdigest()[:8]
        return self.scratch / f"{self.target.name}-{mark}{PARTIAL_SUFFIX}"

    @property
    def checkpoint(self) -> Path:
        """The latest checkpoint."""
        return self._beside(".checkpoint")

    @property
    def previous(self) -> Path:
        """The checkpoint before the latest."""
        return self._beside(".checkpoint.previous")

    @property
    def lock(self) -> Path:
        """The lock of the run."""
        return self._beside(".lock")

    @classmethod
    def of(cls, path: str | Path) -> RunPlaces:
        """The places of a run, from its name or that of its unfinished file."""
        path = Path(path)
        name = path.name.removesuffix(PARTIAL_SUFFIX)
        return cls(path.with_name(name) if name else path)

    def clear(self, keep_target: bool = True, keep: Path | None = None) -> None:
        """Remove everything but the run itself, the lock, and ``keep``."""
        files = [self.part, self.growing, self.checkpoint, self.previous]
        for path in files if keep_target else [*files, self.target]:
            if path != keep:
                path.unlink(missing_ok=True)
            unfinished(path).unlink(missing_ok=True)
        unfinished(self.target).unlink(missing_ok=True)

    def clear_checkpoints(self) -> None:
        """Remove the checkpoints: the run begins anew."""
        for path in (self.checkpoint, self.previous):
            path.unlink(missing_ok=True)


def companion_of(path: str | Path) -> Path | None:
    """The run beside which a file of this name has its place; None for any other name."""
    path = Path(path)
    name = _COMPANION.sub("", path.name)
    return None if name == path.name else path.with_name(name or "run.h5")


def check_name(key: str, path: str | Path) -> None:
    """Refuse a name that belongs to a file beside a run: it may be somebody's growing file.

    Raises
    ------
    ConfigError
    """
    run = companion_of(path)
    if run is not None:
        raise ConfigError(
            f"{key} = {path}: is the name of a file that is kept beside a run; name {run.name}"
        )


def as_path(path: object) -> Path:
    """What a script has given as the path to write to.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"path = {path!r:.60}: not a path; give the name of a file")
    return Path(path)


def set_aside(path: Path) -> Path:
    """Keep what cannot be read under a name that nobody else uses.

    Returns
    -------
    Path
        ``run.h5.damaged``, or ``.damaged2`` and so on where there is one already.
    """
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.damaged{number if number > 1 else ''}")
        if not os.path.lexists(aside):
            break
    rename(path, aside)
    return aside


def unfinished(path: Path) -> Path:
    """The name under which a file is prepared before it is renamed to ``path``."""
    return path.with_name(path.name + "~")


def put(path: Path, image: bytes) -> None:
    """Write a whole file: it is there entirely or not at all, whatever happens meanwhile.

    Raises
    ------
    StorageError
    """
    work = unfinished(path)
    try:
        with open(work, "wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def copy(source: Path, path: Path) -> None:
    """Copy a file; the copy is there entirely or not at all.

    Raises
    ------
    StorageError
    """
    work = unfinished(path)
    try:
        shutil.copyfile(source, work)
        with open(work, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(work, path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def rename(source: Path, path: Path) -> None:
    """Give a file its final name.

    Raises
    ------
    StorageError
    """
    try:
        os.replace(source, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The error for a file that the system does not let us write."""
    return StorageError(
        f"{path}: cannot be written ({error.strerror or error}); mend that and run it again"
    )
