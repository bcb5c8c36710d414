"""Files and folders that a user names: whether they are there, and what is said if not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from flowsim.errors import ConfigError

BEST_COMPRESSION = 1100
"""Deflate shrinks by 1032 at most: a file that promises more has never held the data."""


def problem(path: Path, text: str) -> ConfigError:
    """Return the error that says what is wrong with the file or folder at ``path``."""
    return ConfigError(f'path = "{path}": {text}'.replace("\n", " "))


def unreadable(path: Path, error: Exception) -> ConfigError:
    """Return the error for a file of which a library says that it cannot be read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return problem(path, f"cannot be read ({reason}); write the file again")


def check_file(path: Path, wanted: str) -> None:
    """Check that there is an ordinary file that may be read; of a pipe reading would not end.

    Parameters
    ----------
    path : path
    wanted : str
        What to give instead of what is no file.

    Raises
    ------
    ConfigError
    """
    try:
        if not path.exists():
            raise problem(path, f"no such file{similar(path)}")
        if not path.is_file():
            raise problem(path, f"not a file; give {wanted}")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise problem(path, f"cannot be opened ({reason}); check the path") from error


def similar(path: Path) -> str:
    """Return the remedy for a path at which there is nothing."""
    close = get_close_matches(path.name, names_in(path.parent), n=1)
    return f"; did you mean `{close[0]}`?" if close else "; check the path"


def names_in(folder: Path) -> list[str]:
    """Return the sorted names of what is in a folder; none if it is no folder."""
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def find_in(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of some files that is in a folder.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    try:
        if not folder.exists():
            raise problem(folder, f"no such folder{similar(folder)}")
        if not folder.is_dir():
            raise problem(folder, "not a folder; give the one that the files are in")
        return next((folder / name for name in names if (folder / name).exists()), None)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise problem(folder, f"cannot be opened ({reason}); check the path") from error


def missing(folder: Path, wanted: str) -> ConfigError:
    """Return the error for a file that a folder lacks, with what it has instead."""
    present = names_in(folder)
    shown = ", ".join(present[:8]) + (", ..." if len(present) > 8 else "")
    has = f"it has {shown}" if present else "it is empty"
    return problem(folder, f"there is no {wanted} in this folder; {has}")


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hexadecimal) of a file.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        status = path.stat()
        return _digest(path, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise problem(path, f"cannot be read ({reason}); check the path") from error


@lru_cache(maxsize=64)
def _digest(path: Path, modified: int, size: int) -> str:
    """SHA-256 of a file; its time and size are there to know it again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
