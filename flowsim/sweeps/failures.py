"""Runs that have been given up: a small file each, so that nobody tries them for ever.

These are the runs that have no file to say what happened: their worker died several times, or
they could not be begun. ``flowsim sweep --retry-failed`` removes the notes.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

SUFFIX = ".failed"
_LONGEST = 10_000


def write_failure(folder: Path, run: str, reason: str) -> None:
    """Note why a run was given up; where that cannot be written it will be tried again."""
    note = {"reason": reason[: _LONGEST // 2], "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    with contextlib.suppress(OSError):
        (folder / f"{run}{SUFFIX}").write_text(json.dumps(note), encoding="utf-8")


def read_failure(folder: Path, run: str) -> str:
    """Return why a run was given up; empty if it was not."""
    path = folder / f"{run}{SUFFIX}"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return str(json.loads(file.read(_LONGEST))["reason"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return f"given up, and {path} does not say why; --retry-failed tries it again"


def read_failures(folder: Path) -> dict[str, str]:
    """Return the runs that have been given up, and why."""
    names = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return {name: reason for name in names if (reason := read_failure(folder, name))}


def forget_failures(folder: Path) -> None:
    """Remove the notes: the runs are tried again."""
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)
