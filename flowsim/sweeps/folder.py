"""The folder of a sweep: ``grid.toml``, and one finished run a file in ``runs/``."""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from flowsim.errors import ConfigError, FlowsimError
from flowsim.sweeps.grid import SEED, Point, expand, flatten

_RUN_NAME = re.compile(r"[0-9a-f]{16}\.h5")


class SweepFolder:
    """Where a sweep keeps its runs.

    Parameters
    ----------
    path : path
        Need not exist yet.

    Notes
    -----
    A run is ``runs/<id>.h5.part`` until its end, so that a killed sweep leaves nothing that could
    be taken for a run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.runs = self.path / "runs"
        self.grid_file = self.path / "grid.toml"

    def file(self, point: Point) -> Path:
        """Return the path of a point's run."""
        return self.runs / f"{point.id}.h5"

    def check(self, points: Sequence[Point], activations: Sequence[str] = ()) -> None:
        """Refuse a folder that cannot be written or that holds another sweep.

        Parameters
        ----------
        points : sequence of Point
            What is to be run there.
        activations : sequence of str
            Names of the user's own activations.

        Raises
        ------
        ConfigError
            Before anything has been changed.
        """
        _check_writable(self.path)
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
        key = _first_difference(before, points)
        if key is not None:
            raise ConfigError(
                f"{self.path}: holds the runs of another grid ({key} differs); "
                "use another folder, or --overwrite to delete them"
            )

    def prepare(self, base: Mapping[str, Any], grid: Mapping[str, Any], overwrite: bool) -> None:
        """Write ``grid.toml`` and remove what killed sweeps have left."""
        with self._io_errors():
            self.runs.mkdir(exist_ok=True)
            if overwrite:
                for file in self.runs.iterdir():
                    if _RUN_NAME.fullmatch(file.name):
                        file.unlink()
            self.remove_parts()
            text = tomli_w.dumps({**base, "grid": dict(grid)})
            part = self.grid_file.with_name("grid.toml.part")
            part.write_text(text, encoding="utf-8")
            part.replace(self.grid_file)

    @contextlib.contextmanager
    def _io_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}; choose another folder") from error

    def remove_parts(self) -> None:
        """Delete unfinished files; nobody else writes while this sweep holds the lock."""
        for file in self.runs.glob("*.part"):
            file.unlink(missing_ok=True)

    def finished(self, point: Point) -> str | None:
        """Return the status of a point's run if its end is one that a new run would repeat."""
        from flowsim.recording.reader import open_run

        file = self.file(point)
        if not file.exists():
            return None
        try:
            with open_run(file) as run:
                if run.attributes.get("config_hash") != point.experiment.hash():
                    return None
                # A run whose numbers failed would fail again in the same way.
                return run.status if run.status in ("complete", "failed") else None
        except (FlowsimError, OSError, KeyError, ValueError):
            return None

    def stop_reason(self, point: Point) -> str:
        """Return why a finished run ended."""
        from flowsim.recording.reader import open_run

        with open_run(self.file(point)) as run:
            return run.stop_reason

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


def _first_difference(before: Sequence[Point], after: Sequence[Point]) -> str | None:
    """Return a key outside both grids in which two sweeps differ."""
    if not before or not after:
        return None
    axes = {*before[0].values, *after[0].values, SEED}
    old, new = (dict(flatten(points[0].experiment.to_dict())) for points in (before, after))
    for key in sorted({*old, *new}):
        if key in axes or key in _NOT_COMPARED:
            continue
        if old.get(key) != new.get(key):
            return key
    return None


_NOT_COMPARED = ("integrate.threads", "integrate.max_seconds")
"""Settings that do not determine the numbers."""
