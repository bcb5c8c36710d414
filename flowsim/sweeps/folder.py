"""The folder of a sweep: ``grid.toml``, ``times.csv``, in ``runs/`` one ensemble a grid point."""

from __future__ import annotations

import contextlib
import os
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from flowsim.config.experiment import NOT_HASHED
from flowsim.errors import ConfigError, FileFormatError, FlowsimError
from flowsim.sweeps.claims import SUFFIX as CLAIM
from flowsim.sweeps.claims import living_claims
from flowsim.sweeps.grid import SEED, Member, expand, flatten

fcntl: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock
    fcntl = None

_POINT_NAME = re.compile(r"[0-9a-f]{16}\.h5")
_OUR_NAME = re.compile(
    r"[0-9a-f]{16}(-\d+)?\.h5(\.part|\.checkpoint(\.previous)?|\.lock)?(\.damaged\d*)?~*"
    r"|[0-9a-f]{16}(-\d+\.failed|\.claim(\.[0-9a-z]+~)?)"
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
    Several sweeps may share it, on all machines that see it: ``runs/<point>.claim`` says who is at
    a point (see `flowsim.sweeps.claims`), ``runs/<point>-<seed>.failed`` that a run was given up.
    ``runs/<point>.h5`` has all finished runs of a grid point. A run that takes long, or that was
    stopped, has files of its own, ``runs/<point>-<seed>.h5`` and those beside it (see
    `flowsim.recording.places`), until it is finished.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.runs = self.path / "runs"
        self.grid_file = self.path / "grid.toml"
        self.times_file = self.path / "times.csv"

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
            before = expand(stored, grid, sizes=(1, 1), activations=activations)
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

    @contextlib.contextmanager
    def opened(
        self, base: Mapping[str, Any], grid: Mapping[str, Any], overwrite: bool
    ) -> Iterator[None]:
        """Make the folder ready, and keep it from being overwritten while this sweep works there.

        Who comes first tidies up what killed sweeps have left; others join. The lock belongs to
        the process: it is gone when the process is, however it ended.

        Raises
        ------
        FlowsimError
            If it is to be overwritten and another sweep works there.
        """
        with self._io_errors():
            self.runs.mkdir(parents=True, exist_ok=True)
        with _locked(self.path) as lock:
            alone = lock.is_exclusive and not living_claims(self.runs)
            if overwrite and not alone:
                raise FlowsimError(
                    f"{self.path}: another sweep is writing here; wait for it, use another folder, "
                    "or leave out --overwrite to share the work"
                )
            with self._io_errors():
                if alone:
                    self._tidy_up(overwrite)
                self._write_grid(tomli_w.dumps({**base, "grid": dict(grid)}))
            lock.share()
            yield

    def _tidy_up(self, overwrite: bool) -> None:
        self._wait_for_orphans()
        for file in list(self.runs.iterdir()):
            leftover = overwrite or file.name.endswith(("~", CLAIM))
            if leftover and _OUR_NAME.fullmatch(file.name):
                file.unlink(missing_ok=True)
        if overwrite:
            self.times_file.unlink(missing_ok=True)

    def _write_grid(self, text: str) -> None:
        if self.grid_file.exists() and self.grid_file.read_text(encoding="utf-8") == text:
            return
        part = self.grid_file.with_name(f"grid.toml.{os.getpid()}.part")
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


class _Lock:
    """The lock of a folder: of one process, or shared by several."""

    def __init__(self, handle: int, flock: Callable[[int, int], None] | None) -> None:
        self._handle, self._flock = handle, flock
        self.is_exclusive = True
        if flock is None:
            return
        try:
            flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.is_exclusive = False
            flock(handle, fcntl.LOCK_SH)  # the first one soon shares it
        except OSError:
            self._flock = None  # a file system without locks: go on, claims are there too

    def share(self) -> None:
        """Let others in."""
        if self._flock is not None:
            self._flock(self._handle, fcntl.LOCK_SH)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[_Lock]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield _Lock(handle, None if fcntl is None else fcntl.flock)
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
