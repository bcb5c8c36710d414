"""Where experiments come from: TOML files, dictionaries, overrides; nothing is checked here yet."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowsim.config.problems import show, show_key
from flowsim.errors import ConfigError

Source = str | os.PathLike[str] | Mapping[str, Any]
Overrides = Mapping[str, Any] | Iterable[str]

_MAX_BYTES = 2**26
_MAX_DEPTH = 16


def load_grid(source: Any, overrides: Overrides = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a grid file: an experiment with a section ``[grid]``.

    Parameters
    ----------
    source : path, mapping or Experiment
    overrides : mapping or iterable of str
        See `load_experiment`; they change the base, or ``grid.seeds`` and the like.

    Returns
    -------
    base : dict
        The sections that all points have in common, unchecked: a point may be needed to complete
        them. Paths of data files are absolute.
    grid : dict
        Values by dotted key, and ``seeds``, in the order of the file; empty without a section
        ``[grid]``.

    Raises
    ------
    ConfigError
        If the file cannot be read, or the grid is no table.
    """
    if not isinstance(overrides, str | Mapping):
        overrides = list(overrides)
    base, problems = read_sections(source, overrides)
    grid = base.pop("grid", {})
    if not isinstance(grid, dict):
        problems.append(f'grid = {show(grid)}: must be a table, such as "scaling.gamma" = [1, 2]')
        grid = {}
    axes = dict(_dotted(grid))
    problems += overrides_without_effect(overrides, axes)
    if problems:
        raise ConfigError(problems)
    return base, axes


def overrides_without_effect(overrides: Overrides, axes: Mapping[str, Any]) -> list[str]:
    """Return a problem for each override of what a grid lists: its points have their own values.

    Parameters
    ----------
    overrides : mapping or sequence of str
        See `load_experiment`.
    axes : mapping
        The grid, by dotted key.
    """
    problems = []
    for parts, value in _parse_overrides(overrides, []):
        key = ".".join(parts)
        listed = [axis for axis in axes if key == axis or key.startswith(f"{axis}.")]
        if key == "network.seed" and isinstance(axes.get("seeds"), list):
            listed.append("seeds")
        if value is None or not listed:
            continue
        name = listed[0] if listed[0] == "seeds" else f'"{listed[0]}"'
        problems.append(
            f"{show_key(parts)} = {show(value)}: the grid lists {listed[0]}, whose values would "
            f"replace this one; change the list, --set 'grid.{name}=[{show(value)}]'"
        )
    return problems


def read_sections(source: Any, overrides: Overrides = ()) -> tuple[dict[str, Any], list[str]]:
    """Read the sections of an experiment as plain dictionaries, overrides applied.

    Parameters
    ----------
    source : path, mapping, or object with such a mapping in ``given``
    overrides : mapping or iterable of str

    Returns
    -------
    sections : dict
        Independent of ``source``; entries of value None are left out, data paths are absolute.
    problems : list of str
        Overrides that cannot be applied.

    Raises
    ------
    ConfigError
        If the source cannot be read.
    """
    source = getattr(source, "given", source)
    if isinstance(source, Mapping):
        sections, folder = _plain(source), Path()
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        sections, folder = _plain(_read_toml(path)), path.parent
    else:
        raise ConfigError(
            f"experiment = {source!r:.60}: is no experiment; give a file, a dictionary of sections "
            "or an Experiment"
        )
    _make_paths_absolute(sections, folder)
    problems: list[str] = []
    for key, value in _parse_overrides(overrides, problems):
        try:
            _set(sections, key, value)
        except ConfigError as error:
            problems += error.problems
    _make_paths_absolute(sections, Path())  # one that was overridden is the caller's
    return sections, problems


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{show_path(path)}: cannot be read ({reason}); check the path"
        ) from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"{show_path(path)}: more than {_MAX_BYTES} bytes; keep large data in an npz file"
        )
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = f"line {line}: not UTF-8 text; save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem = f"not valid TOML: {' '.join(str(error).split())}; mend that line"
    except (ValueError, RecursionError):
        problem = "holds a number too long or lists nested too deeply to be read; shorten them"
    raise ConfigError(f"{show_path(path)}: {problem}")


def show_path(path: Path) -> str:
    """Return a path on one line."""
    return "".join(c if c.isprintable() else "?" for c in str(path))


def _plain(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """Copy a value with the types that TOML has; entries that are None are left out."""
    if depth == 0:
        raise ConfigError(f"experiment: nested more than {_MAX_DEPTH} deep; write it flatter")
    match value:
        case Mapping():
            return {
                str(key): _plain(entry, depth - 1)
                for key, entry in value.items()
                if entry is not None
            }
        case np.ndarray():
            return _plain(value.tolist(), depth)
        case np.generic():
            return value.item()
        case list() | tuple() | range():
            return [_plain(entry, depth - 1) for entry in value]
        case os.PathLike():
            return os.fspath(value)
    return value


def _make_paths_absolute(sections: dict[str, Any], folder: Path) -> None:
    """Make the paths of data files, also those of a grid, independent of where they were given."""

    def absolute(path: Any) -> Any:
        return str((folder / path).absolute()) if isinstance(path, str) and path else path

    data, grid = sections.get("data"), sections.get("grid")
    if isinstance(data, dict) and "path" in data:
        data["path"] = absolute(data["path"])
    if isinstance(grid, dict) and isinstance(grid.get("data.path"), list):
        grid["data.path"] = [absolute(path) for path in grid["data.path"]]


def _parse_overrides(
    overrides: Overrides, problems: list[str]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the parts of every key, and its value."""
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        yield from ((_split(key), _plain(value)) for key, value in overrides.items())
        return
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            yield _split(key.strip()), _parse_value(value.strip())
        else:
            problems.append(f"{show(text)}: must be key=value, such as scaling.gamma=1.2")


def _split(key: str) -> tuple[str, ...]:
    """Split a dotted key; a part may be quoted as in TOML, ``grid."network.width"``."""
    if '"' in key or "'" in key:
        try:
            table: Any = tomllib.loads(f"{key} = 0")
        except (ValueError, RecursionError):
            return tuple(key.split("."))  # which nobody knows, and the answer will say so
        parts = []
        while isinstance(table, dict) and len(table) == 1:
            ((part, table),) = table.items()
            parts.append(part)
        if not isinstance(table, dict):
            return tuple(parts)
    return tuple(key.split("."))


def _parse_value(text: str) -> Any:
    """Read a TOML value; what is none is text, so that ``scaling.scheme=ntk`` needs no quotes."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return _plain(table["value"]) if len(table) == 1 else text


def _set(sections: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    """Set a key, given by its parts, or remove it if the value is None."""
    *path, last = key
    table = sections
    for depth, part in enumerate(path):
        entry = table.setdefault(part, {})
        if not isinstance(entry, dict):
            outer = show_key(path[: depth + 1])
            raise ConfigError(
                f"{show_key((*path, last))} = {show(value)}: {outer} is no table; override {outer}"
            )
        table = entry
    if value is None:
        table.pop(last, None)
    else:
        table[last] = copy.deepcopy(value)


def _dotted(grid: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten ``scaling.gamma = [...]`` written without quotes, which TOML reads as tables."""
    for key, value in grid.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
