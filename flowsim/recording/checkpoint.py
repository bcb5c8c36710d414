"""Checkpoints: all that the rest of a run depends on, in one file that is whole or not there.

A checkpoint is an npz archive without pickles: the arrays, and one text in JSON that has
everything else, with references where the arrays belong. The archive's own checksums tell a
damaged one, and then the one before is taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowsim.recording.places import RunPlaces, cannot_write, unfinished

_VERSION = 1
_TEXT = "checkpoint.json"
_ARRAY = "array:"


@dataclass(frozen=True)
class Checkpoint:
    """A point of a run from which it continues to the same bits.

    Attributes
    ----------
    fingerprint : str
        Of everything that determines the run (its trajectory, not its stop).
    rows : dict of str to int
        Rows that each series had by then.
    contents : dict
        Numbers, text, arrays and dictionaries of these: the point, what stepper, watch and
        recorder remember, counters.
    """

    fingerprint: str
    rows: Mapping[str, int]
    contents: dict[str, Any]


def save_checkpoint(places: RunPlaces, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and keep the one before.

    Raises
    ------
    StorageError
        If it cannot be written; the one before is still there.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(
        {
            "version": _VERSION,
            "fingerprint": checkpoint.fingerprint,
            "rows": dict(checkpoint.rows),
            "contents": _take_out(checkpoint.contents, arrays),
        }
    )
    arrays[_TEXT] = np.frombuffer(text.encode(), np.uint8)
    work = unfinished(places.checkpoint)
    try:
        with open(work, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        if places.checkpoint.exists():
            os.replace(places.checkpoint, places.previous)
        os.replace(work, places.checkpoint)
        _sync_folder(places.checkpoint.parent)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise cannot_write(places.checkpoint, error) from error


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None if there is none, or it is damaged or of another version."""
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        read = json.loads(arrays.pop(_TEXT).tobytes())
        if read["version"] != _VERSION:
            return None
        rows = {str(name): int(count) for name, count in read["rows"].items()}
        return Checkpoint(str(read["fingerprint"]), rows, _put_back(read["contents"], arrays))
    except Exception:
        # zipfile, zlib, numpy and json have many ways to say that a file is damaged, and none of
        # them matters here: the checkpoint before this one serves as well.
        return None


def load_checkpoints(places: RunPlaces) -> list[Checkpoint]:
    """Every checkpoint of a run that can be read, the latest first."""
    found = (load_checkpoint(path) for path in (places.checkpoint, places.previous))
    return [checkpoint for checkpoint in found if checkpoint is not None]


def _take_out(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Replace arrays by references, NumPy's numbers by Python's."""
    if isinstance(value, Mapping):
        return {key: _take_out(entry, arrays) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        name = f"{_ARRAY}{len(arrays)}"
        arrays[name] = value
        return name
    if isinstance(value, np.generic):
        return value.item()
    return value


def _put_back(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return {key: _put_back(entry, arrays) for key, entry in value.items()}
    if isinstance(value, str) and value.startswith(_ARRAY):
        return arrays[value]
    return value


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a loss of power, where the system offers that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # pragma: no cover - not on this system
        return
    try:
        os.fsync(handle)
    except OSError:  # pragma: no cover - a file system that cannot
        pass
    finally:
        os.close(handle)
