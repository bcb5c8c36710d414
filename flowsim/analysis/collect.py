"""Find run files, read what an analysis needs and name the files that cannot be read."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from flowsim.errors import ConfigError, FlowsimError

if TYPE_CHECKING:
    from flowsim.recording.reader import RunFile

T = TypeVar("T")
OneSource: TypeAlias = "str | os.PathLike[str] | RunFile"
Source: TypeAlias = "OneSource | Iterable[OneSource]"

REACHED = ("stop_loss", "steady_state")
"""Stop reasons of runs whose end says something about the regime (DESIGN section 6)."""

_IN_MEMORY = "memory"
_LINES = 20
# A truncated or foreign HDF5 file shows itself as any of these, depending on where it breaks.
_DAMAGE = (
    FlowsimError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    RuntimeError,
)


@dataclass(frozen=True)
class RunRecord:
    """The numbers of one run that the classifier uses.

    Attributes
    ----------
    name : str
        The file, relative to the folder it was found in.
    config : dict
        The resolved experiment.
    width, seed : int
        m and the seed of the initial values.
    gamma, gamma_prime, kappa, kappa_prime : float
        Scaling at this width.
    relative_change, sup_relative_change : dict of str to float
        RD at the stop and its largest value, by layer; empty when the run wrote no end.
    ending : str
        ``stop_reason``, or the status of a run that has none.
    predicted : dict of str to float
        Predicted slopes by layer, of a deep network; its gamma and gamma_prime are gamma_3 and
        gamma_2, NaN unless it has three layers. Empty for two layers.
    gamma_1 : float
        Of three layers.
    """

    name: str
    config: dict[str, Any]
    width: int
    seed: int
    gamma: float
    gamma_prime: float
    kappa: float
    kappa_prime: float
    relative_change: dict[str, float]
    sup_relative_change: dict[str, float]
    ending: str
    predicted: dict[str, float] = field(default_factory=dict)
    gamma_1: float = 0.0

    @property
    def reached(self) -> bool:
        """Whether the run came to its own end: the loss asked for, or a steady state."""
        return self.ending.startswith(REACHED) and bool(self.relative_change)


def find_runs(source: Source) -> Iterator[tuple[str, OneSource]]:
    """Yield (name, path or open run or ensemble) for everything that ``source`` stands for.

    Parameters
    ----------
    source : path, RunFile, Ensemble, or iterable of these
        A folder is searched through all its subfolders for ``*.h5``, in sorted order. What is
        open already is opened by its owner, one after the other.

    Raises
    ------
    FlowsimError
        A path that does not exist, a folder without runs, or an object that is not a run.
    """
    if isinstance(source, (str, os.PathLike)):
        yield from _paths(Path(source))
    elif hasattr(source, "observables"):
        yield _named(source, 0)
    elif not isinstance(source, Iterable):
        raise FlowsimError(
            f"source = {source!r}: not a run; give a folder, a run file, or a list of these"
        )
    else:
        yield from _items(source)


def _items(source: Iterable[Any]) -> Iterator[tuple[str, OneSource]]:
    position = -1
    for position, item in enumerate(source):
        if isinstance(item, (str, os.PathLike)):
            yield from _paths(Path(item))
        elif hasattr(item, "observables"):
            yield _named(item, position)
        elif _is_ensemble(item):
            yield from _items(item)
        else:
            raise FlowsimError(f"source[{position}] = {item!r}: not a run; give paths or open runs")
    if position < 0:
        raise FlowsimError("source = []: there is no run in it; give one path or more")


def _is_ensemble(item: Any) -> bool:
    return isinstance(item, Sequence) and len(item) > 0 and hasattr(item[0], "observables")


def read_runs(source: Source, read: Callable[[str, RunFile], T]) -> tuple[list[T], dict[str, str]]:
    """Apply ``read`` to every run of ``source``, one open file at a time.

    Parameters
    ----------
    source : see `find_runs`
        Ensembles count as the runs in them, by the name of their file and their position,
        ``runs/abc.h5[2]``.
    read : callable of (name, run)
        What it returns is collected; it must not keep the run.

    Returns
    -------
    list, dict of str to str
        The results, and for every run that could not be read its name and why.
    """
    results: list[T] = []
    skipped: dict[str, str] = {}
    for name, item in find_runs(source):
        try:
            with opened(name, item) as runs:
                for own_name, run in runs:
                    try:
                        results.append(read(own_name, run))
                    except _DAMAGE as error:
                        skipped[own_name] = _reason(error)
        except _DAMAGE as error:
            skipped[name] = _reason(error)
    return results, skipped


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"not a whole run, it has no {error}"
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def opened(name: str, item: OneSource) -> Iterator[list[tuple[str, RunFile]]]:
    """Open the runs of what `find_runs` has found, by name; what is open already stays open."""
    from flowsim.recording.reader import Ensemble, open_runs

    if not isinstance(item, (str, os.PathLike)):
        yield [(name, item)]
        return
    with open_runs(Path(item)) as runs:
        if isinstance(runs, Ensemble):
            yield [(f"{name}[{position}]", run) for position, run in enumerate(runs)]
        else:
            yield [(name, run) for run in runs]


def nothing_read(skipped: Mapping[str, str]) -> ConfigError:
    """Return the error for a source in which no run can be read, a line for each."""
    lines = [
        # Most reasons begin with the path that they are about.
        reason if reason.partition(": ")[0].endswith(name) else f"{name}: {reason}"
        for name, reason in skipped.items()
    ]
    if len(lines) > _LINES:
        lines[_LINES:] = [f"and {len(lines) - _LINES} more, none of which can be read"]
    return ConfigError(lines)


def read_record(name: str, run: RunFile) -> RunRecord:
    """Read the classifier's numbers from an open run."""
    config, attributes = dict(run.config), run.attributes
    if config["network"].get("kind") == "deep":
        return _read_deep_record(name, run)
    exponents = {**attributes, **config["scaling"]}
    return RunRecord(
        name=name,
        config=config,
        width=int(config["network"]["width"]),
        seed=int(config["network"]["seed"]),
        gamma=float(exponents["gamma"]),
        gamma_prime=float(exponents["gamma_prime"]),
        kappa=float(attributes["kappa"]),
        kappa_prime=float(attributes["kappa_prime"]),
        relative_change=_by_layer(run, "relative_change"),
        sup_relative_change=_by_layer(run, "sup_relative_change"),
        ending=str(run.stop_reason or run.status),
    )


def _read_deep_record(name: str, run: RunFile) -> RunRecord:
    from flowsim.deep_predictions import FROBENIUS, all_predicted_slopes

    attributes = run.attributes
    exponents = json.loads(str(attributes["exponents"]))
    rows = list(zip(*(exponents[key] for key in "abc"), strict=True))
    frobenius, operator = _by_layer(run, "relative_change"), _by_layer(run, "operator_change")
    sup = _by_layer(run, "sup_relative_change")
    change: dict[str, float] = {}
    for layer, value in frobenius.items():
        if not layer.startswith("hidden"):
            change[layer] = value
            continue
        change[layer], change[layer + FROBENIUS] = operator[layer], value
        sup[layer + FROBENIUS] = sup.pop(layer)  # of the operator norm only the end is known
    return RunRecord(
        name=name,
        config=dict(run.config),
        width=int(attributes["width"]),
        seed=int(attributes["seed"]),
        gamma=float(attributes.get("gamma_3", math.nan)),
        gamma_prime=float(attributes.get("gamma_2", math.nan)),
        kappa=float(attributes["kappa"]),
        kappa_prime=math.nan,
        relative_change=change,
        sup_relative_change=sup,
        ending=str(run.stop_reason or run.status),
        predicted=all_predicted_slopes(rows),
        gamma_1=float(attributes.get("gamma_1", math.nan)),
    )


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one dictionary with dotted keys; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def varying_keys(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the sorted dotted keys whose values differ between flat configurations."""
    flat = list(configs)
    keys = sorted(set().union(*flat)) if flat else []
    return [key for key in keys if any(c.get(key) != flat[0].get(key) for c in flat[1:])]


def is_deep(run: RunFile) -> bool:
    """Whether the run's network has a file with layers of its own (kind "deep")."""
    return "layers" in run.attributes


def has_bias(run: RunFile) -> bool:
    """Whether the last input coordinate is the constant 1 of the biases."""
    said = run.data.attributes.get("bias", run.config.get("data", {}).get("bias"))
    return bool(said)


def _paths(path: Path) -> Iterator[tuple[str, OneSource]]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.h5") if file.is_file())
        if not files:
            raise FlowsimError(f"{path}: no run file (*.h5) in this folder; run the sweep first")
        yield from ((file.relative_to(path).as_posix(), file) for file in files)
    elif not path.exists():
        raise FlowsimError(f"{path}: no such file or folder; check the path")
    else:
        yield str(path), path


def _named(run: Any, position: int) -> tuple[str, OneSource]:
    # Runs that were kept in memory all have the same path: tell them apart by their place.
    path, member = str(getattr(run, "path", _IN_MEMORY)), getattr(run, "member", None)
    if path in (_IN_MEMORY, "None"):
        return f"run {position}", run
    return path if member is None else f"{path}[{member}]", run


def _by_layer(run: RunFile, name: str) -> dict[str, float]:
    # A run that was killed has no /final, or an empty one.
    if name not in run.final:
        return {}
    values = run.final[name]
    return {str(layer): float(values[k]) for k, layer in enumerate(run.layers)}
