"""Who works on what: a claim file a point, so that sweeps on any machines can share a folder.

A claim is made with ``O_EXCL``, names its process, and is touched every few seconds while the
process lives. It is taken over when that process is dead, where this can be seen, or when several
beats have been missed: judged by the observer's own clock, since those of two machines differ.
Claims save work and no more: files appear entirely or not at all, and whoever computes a point
twice finds the same numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

SUFFIX = ".claim"
BEAT_SECONDS = 5.0
MISSED_BEATS = 6
"""After so many a claim is taken over."""

_LONGEST = 2000


@dataclass(frozen=True)
class Claimant:
    """The process that has made a claim.

    Attributes
    ----------
    host : str
        Name of its machine, for people.
    machine : str
        What tells whether its process numbers mean something here.
    pid : int
    started : str
        When the process began, in the kernel's own count: numbers are used again.
    token : str
        Of this claim alone.
    """

    host: str
    machine: str
    pid: int
    started: str
    token: str

    @classmethod
    def here(cls) -> Claimant:
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _machine(), pid, _started(pid), uuid.uuid4().hex)

    def is_gone(self) -> bool:
        """Whether the process is known to be dead: on other machines nobody knows."""
        return self.machine == _machine() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Claims:
    """The points that this process has claimed; a context manager that keeps the claims alive.

    Parameters
    ----------
    folder : Path
        Of the claim files.
    beat : float
        Seconds between two signs of life.
    clock : callable
        The observer's clock, in seconds.
    """

    def __init__(
        self,
        folder: Path,
        beat: float = BEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._beat, self._clock = folder, beat, clock
        self._mine: dict[str, Claimant] = {}
        self._seen: dict[str, tuple[str, int, float]] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Claims:
        self._thread = threading.Thread(target=self._beats, name="flowsim-claims", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        for point in list(self._mine):
            self.release(point)

    def holds(self, point: str) -> bool:
        """Whether this process has claimed a point."""
        return point in self._mine

    def take(self, point: str) -> bool:
        """Claim a point; False while somebody else has it."""
        if point in self._mine:
            return True
        path = claim_file(self._folder, point)
        mine = Claimant.here()
        if not (_create(path, mine) or self._take_over(point, path, mine)):
            return False
        self._mine[point] = mine
        return True

    def release(self, point: str) -> None:
        """Give a claim up, if it is this process's."""
        mine = self._mine.pop(point, None)
        path = claim_file(self._folder, point)
        if mine is not None and read_claim(path) == mine:
            path.unlink(missing_ok=True)

    def _take_over(self, point: str, path: Path, mine: Claimant) -> bool:
        """Replace the claim of a process that is dead; False if it may be alive."""
        before = read_claim(path)
        if not (before is not None and before.is_gone()) and not self._is_silent(point, path):
            return False
        # One at a time, and nobody finds the place empty meanwhile: the claim may be a new one by
        # now, of somebody who has come to the same conclusion earlier.
        turn = path.with_name(f"{path.name}.turn~")
        if not _create(turn, mine):
            if self._is_silent(turn.name, turn):
                turn.unlink(missing_ok=True)
            return False
        try:
            if read_claim(path) != before or not path.exists():
                return False
            new = path.with_name(f"{path.name}.{mine.token}~")
            _create(new, mine)
            new.replace(path)
            return True
        finally:
            turn.unlink(missing_ok=True)

    def _is_silent(self, point: str, path: Path) -> bool:
        """Whether this process has watched the claim for long, and seen no sign of life."""
        try:
            about = path.stat()
        except FileNotFoundError:
            return True
        now, sign = self._clock(), (str(about.st_ino), about.st_mtime_ns)
        if self._seen.get(point, ("", 0, 0.0))[:2] != sign:
            self._seen[point] = (*sign, now)
        return now - self._seen[point][2] > MISSED_BEATS * self._beat

    def _beats(self) -> None:
        while not self._ended.wait(self._beat):
            self.beat()

    def beat(self) -> None:
        """Show that this process is alive."""
        for point, mine in list(self._mine.items()):
            path = claim_file(self._folder, point)
            # After a long sleep the claim may be another's, who has taken it over.
            if read_claim(path) == mine:
                with contextlib.suppress(OSError):
                    os.utime(path)


def _create(path: Path, claimant: Claimant) -> bool:
    """Make a claim where there is none; False if there is one."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(claimant), file)
    return True


def claim_file(folder: Path, point: str) -> Path:
    """Return the path of the claim of a point."""
    return folder / f"{point}{SUFFIX}"


def read_claim(path: Path) -> Claimant | None:
    """Return who has made a claim; None if there is none, or nothing sensible in it (yet)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return Claimant(**json.loads(file.read(_LONGEST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def living_claims(folder: Path) -> dict[str, Claimant]:
    """Return the claims that look alive, by point: at one look, and by the clock of the files."""
    found = {}
    for path in folder.glob(f"*{SUFFIX}"):
        claimant = read_claim(path)
        with contextlib.suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if claimant and not claimant.is_gone() and age < MISSED_BEATS * BEAT_SECONDS:
                found[path.name.removesuffix(SUFFIX)] = claimant
    return found


def _machine() -> str:
    """What two processes have in common that see each other: the boot and the name space."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux, where nobody is known to be gone
        return f"{socket.gethostname()} {uuid.getnode()}"


def _started(pid: int) -> str:
    """When a process began; empty if there is none (a dead one that nobody collected is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else "unknown"
    return "" if fields[0] in "ZX" else fields[19]
