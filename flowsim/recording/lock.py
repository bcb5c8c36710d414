"""One process a run: a lock file, held with ``flock`` for as long as the process lives.

The lock goes with its process, however that ends. The file says who holds it, for people and for
other machines. File systems without working locks, as some networks' are, need ``lock=False``.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from flowsim.errors import FlowsimError, StorageError
from flowsim.recording.places import RunPlaces

fcntl: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock
    fcntl = None


class RunLock:
    """The lock of one run; a context manager.

    Parameters
    ----------
    target : Path
        ``run.h5``.
    wanted : bool
        Whether to lock at all.

    Raises
    ------
    FlowsimError
        On entry, if another process holds it or the lock file cannot be made.
    """

    def __init__(self, target: Path, wanted: bool = True) -> None:
        self.target = target
        self._path = RunPlaces(target).lock
        self._wanted = wanted and fcntl is not None
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        if self._wanted:
            self._acquire()
        return self

    def _acquire(self) -> None:
        while True:
            try:
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise FlowsimError(
                    f"output = {self.target}: cannot be written ({error.strerror}); "
                    "choose a folder that exists and is yours"
                ) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                who = holder(self.target) or "another process"
                raise FlowsimError(
                    f"output = {self.target}: {who} is writing this run; wait for it or choose "
                    "another name"
                ) from None
            except OSError as error:
                os.close(handle)
                raise FlowsimError(
                    f"output = {self.target}: this file system has no locks ({error.strerror}); "
                    "use --no-lock (lock=False) and see that nobody else writes the run"
                ) from error
            # Its former holder may have removed the file between our two calls.
            if _is_file(self._path, handle):
                break
            os.close(handle)
        self._handle = handle
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(about).encode(), 0)

    def check(self) -> None:
        """Make sure that the lock is still ours.

        Raises
        ------
        StorageError
            If its file was removed or replaced: somebody else may be writing the same run.
        """
        if self._handle is not None and not _is_file(self._path, self._handle):
            raise StorageError(
                f"{self._path}: the lock is lost, its file or folder was removed; see that nobody "
                "else writes the run and start it again"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle is None:
            return
        # Removed while it is still held, or somebody could take it in between.
        if _is_file(self._path, self._handle):
            self._path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = None


def _is_file(path: Path, handle: int) -> bool:
    try:
        there, ours = os.stat(path), os.fstat(handle)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def holder(target: Path) -> str | None:
    """Say who holds the lock of a run; None if nobody does.

    A lock of another machine counts as held: whether its process lives cannot be seen from here.
    """
    path = RunPlaces.of(target).lock
    try:
        if not path.is_file():  # nothing, or a pipe, which would be waited for
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1000)
    except OSError:
        return None
    try:
        about = json.loads(text)
        host, pid = str(about["host"])[:100], int(about["pid"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        host, pid = socket.gethostname(), 0
    if host == socket.gethostname() and not _held_here(path):
        return None
    return f"process {pid} on {host}"


def is_locked(target: Path) -> bool:
    """Whether a process holds the lock of a run, as far as this machine can see."""
    path = RunPlaces.of(target).lock
    return path.is_file() and _held_here(path)


def _held_here(path: Path) -> bool:
    if fcntl is None:  # pragma: no cover
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
