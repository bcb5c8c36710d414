"""The folder of a sweep: ``grid.toml``, and in ``runs/`` one ensemble a grid point."""

from __future__ import annotations

import contextlib
import os
import re
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from flowsim.config.experiment import NOT_HASHED
from flowsim.errors import ConfigError, FileFormatError, FlowsimError
from flowsim.sweeps.grid import SEED, Member, expand, flatten

_POINT_NAME = re.compile(r"[0-9a-f]{16}\.h5")
_OUR_NAME = re.compile(
    r"[0-9a-f]{16}(-\d+)?\.h5(\.part|\.checkpoint(\.previous)?|\.lock)?(\.damaged\d*)?~*"
)

_PATIENCE = 2.0
"""Seconds within which the workers of a killed sweep have ended too."""


class SweepFolder:
    """Where a sweep keeps its runs.

    Parameters
    ----------
    path : path
        Need not exist yet.

    Notes
    -----
    ``runs/<point>.h5`` has all finished runs of a grid point. A run that takes long, or that was
    stopped, has files of its own, ``runs/<point>-<seed>.h5`` and those beside it (see
    `flowsim.recording.places`), until it is finished.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.runs = self.path / "runs"
        self.grid_file = self.path / "grid.toml"

    def point_file(self, point: str) -> Path:
        """Return the path of the file of a grid point."""
        return self.runs / f"{point}.h5"

    def member_file(self, member: Member) -> Path:
        """Return the path of the file that a run has of its own."""
        return self.runs / f"{member.id}.h5"

    def check(self, members: Sequence[Member], activations: Sequence[str] = ()) -> None:
        """Refuse a folder that cannot be written or that holds another sweep.

        Parameters
        ----------
        members : sequence of Member
            What is to be run there.
        activations : sequence of str
            Names of the user's own activations.

        Raises
        ------
        ConfigError
            Before anything has been changed.
        """
        _check_writable(self.path)
        self._check_layout()
        if not self.grid_file.exists():
            return
        try:
            stored = tomllib.loads(self.grid_file.read_text(encoding="utf-8"))
            grid = stored.pop("grid", {})
            before = expand(stored, grid, n_samples=1, activations=activations)
        except (ConfigError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.grid_file}: not a grid that this version of flowsim understands "
                f"({str(error).splitlines()[0]}); use another folder or --overwrite"
            ) from error
        key = _first_difference(before, members)
        if key is not None:
            raise ConfigError(
                f"{self.path}: holds the runs of another grid ({key} differs); "
                "use another folder, or --overwrite to delete them"
            )

    def _check_layout(self) -> None:
        """Refuse runs that lie one in a file; the first file that can be read tells."""
        from flowsim.recording.reader import Ensemble, open_runs

        names = self.runs.iterdir() if self.runs.is_dir() else ()
        for file in sorted(path for path in names if _POINT_NAME.fullmatch(path.name)):
            try:
                with open_runs(file) as runs:
                    if isinstance(runs, Ensemble):
                        return
            except FileFormatError:
                continue
            raise ConfigError(
                f"{self.path}: holds runs of an earlier version of flowsim, one in a file: these "
                "can be classified and plotted, but not continued; use another folder, or "
                "--overwrite to delete them"
            )

    def prepare(self, base: Mapping[str, Any], grid: Mapping[str, Any], overwrite: bool) -> None:
        """Write ``grid.toml`` and remove what killed sweeps have left; with the lock held."""
        with self._io_errors():
            self.runs.mkdir(exist_ok=True)
            self._wait_for_orphans()
            for file in list(self.runs.iterdir()):
                leftover = overwrite or file.name.endswith("~")
                if leftover and _OUR_NAME.fullmatch(file.name):
                    file.unlink(missing_ok=True)
            text = tomli_w.dumps({**base, "grid": dict(grid)})
            part = self.grid_file.with_name("grid.toml.part")
            part.write_text(text, encoding="utf-8")
            part.replace(self.grid_file)

    def _wait_for_orphans(self) -> None:
        """Let workers whose sweep was killed notice it, and let go of their runs."""
        from flowsim.recording.lock import holder

        deadline = time.monotonic() + _PATIENCE
        for lock in self.runs.glob("*.lock"):
            target = lock.with_suffix("")
            while holder(target) is not None and time.monotonic() < deadline:
                time.sleep(0.05)

    @contextlib.contextmanager
    def _io_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}; choose another folder") from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Make the folder and keep a second sweep out of it while this one works there.

        The lock belongs to the process: it is gone when the process is, however it ended.
        """
        with self._io_errors():
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            import fcntl
        except ImportError:
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise FlowsimError(
                f"{self.path}: another sweep is writing here; wait for it or use another folder"
            ) from None
        except OSError:
            pass  # a file system without locks: go on as if alone
        try:
            yield
        finally:
            os.close(handle)


def _check_writable(path: Path) -> None:
    """Refuse a path that is a file, or below something that cannot be written."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path}: exists and is not a folder; choose another output")
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(f"{path}: {existing} is not a folder; choose another output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: no permission to write in {existing}; choose another output")


def _first_difference(before: Sequence[Member], after: Sequence[Member]) -> str | None:
    """Return a key outside both grids in which two sweeps differ."""
    if not before or not after:
        return None
    axes = {*before[0].values, *after[0].values, SEED}
    old, new = (dict(flatten(members[0].experiment.to_dict())) for members in (before, after))
    for key in sorted({*old, *new}):
        if key in axes or key.startswith(NOT_HASHED):
            continue
        if old.get(key) != new.get(key):
            return key
    return None
