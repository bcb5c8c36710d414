"""A grid of experiments: expanded, checked point by point, and cut into units of work."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowsim.config import Experiment, load_experiment
from flowsim.config.problems import show, show_key
from flowsim.errors import ConfigError

SEED = "network.seed"
_ID_LENGTH = 16


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes
    ----------
    id : str
        Name of its file: the first 16 hexadecimal digits of the experiment's hash.
    experiment : Experiment
        Resolved and checked.
    values : dict
        The grid's dotted keys and their values at this point, ``network.seed`` among them.
    cost : float
        Width times number of samples, the work of one pass.
    """

    id: str
    experiment: Experiment
    values: dict[str, Any]
    cost: float


@dataclass(frozen=True)
class Unit:
    """What one worker carries out in one go: all the seeds of one grid point at one width."""

    points: tuple[Point, ...]

    @property
    def cost(self) -> float:
        """Sum over the points."""
        return sum(point.cost for point in self.points)


def expand(
    base: Mapping[str, Any],
    grid: Mapping[str, Any],
    n_samples: int | None = None,
    activations: Sequence[str] = (),
) -> list[Point]:
    """Return every point of a grid, first key slowest and seeds fastest.

    Parameters
    ----------
    base : dict
        Sections of an experiment; what every point has in common.
    grid : dict
        Lists of values by dotted key, and ``seeds``: a number k for the base's seed, seed + 1, ...,
        seed + k - 1, or a list of seeds.
    n_samples : int, optional
        Number of samples, when the data do not come from ``base``.
    activations : sequence of str
        Names of the user's own activations.

    Raises
    ------
    ConfigError
        With everything that is wrong at any point, each problem once. Nothing has been run.
    """
    axes = _axes(base, grid)
    problems: dict[str, None] = {}
    points: dict[str, Point] = {}
    counts: dict[str, int] = {}
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        try:
            experiment = load_experiment(base, values, activations)
            samples = _count_samples(experiment, counts) if n_samples is None else n_samples
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
            continue
        identity = experiment.hash()[:_ID_LENGTH]
        cost = float(experiment.network.width) * samples
        points.setdefault(identity, Point(identity, experiment, values, cost))
    if problems:
        raise ConfigError(problems)
    return list(points.values())


def cut(points: Sequence[Point], workers: int) -> list[Unit]:
    """Group points into units of work, largest first.

    Points that differ in nothing but the seed go together, unless there are then fewer units
    than workers: the largest units are halved until everybody has something to do.
    """
    groups: dict[str, list[Point]] = {}
    for point in points:
        key = json.dumps([item for item in point.values.items() if item[0] != SEED], default=str)
        groups.setdefault(key, []).append(point)
    units = [Unit(tuple(group)) for group in groups.values()]
    while 0 < len(units) < workers:
        largest = max(units, key=lambda unit: (len(unit.points) > 1, unit.cost))
        if len(largest.points) == 1:
            break
        units.remove(largest)
        half = (len(largest.points) + 1) // 2
        units += [Unit(largest.points[:half]), Unit(largest.points[half:])]
    return sorted(units, key=lambda unit: -unit.cost)


def flatten(sections: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every leaf of nested tables."""
    for key, value in sections.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _axes(base: Mapping[str, Any], grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values by dotted key, seeds last, or raise with everything wrong in the grid."""
    problems = []
    axes: dict[str, list[Any]] = {}
    if not grid:
        problems.append("grid: missing or empty; add [grid] with seeds = 1 or lists of values")
    for key, values in grid.items():
        if key == "seeds":
            continue
        if isinstance(values, str) or not isinstance(values, Sequence):
            shown = show(values)
            problems.append(f"{show_key(('grid', key))} = {shown}: not a list; write [{shown}]")
        elif not values:
            problems.append(
                f"{show_key(('grid', key))} = []: no values; list some or remove the key"
            )
        else:
            axes[key] = list(values)
    try:
        axes.update(_seeds(base, grid))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return axes


def _seeds(base: Mapping[str, Any], grid: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the axis of seeds, if ``grid`` has one under its short name."""
    if "seeds" not in grid:
        return {}
    seeds = grid["seeds"]
    if SEED in grid:
        raise ConfigError(
            f'grid.seeds = {show(seeds)}: "{SEED}" is listed too; keep one of the two'
        )
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        network = base.get("network", {})
        first = network.get("seed", 0) if isinstance(network, Mapping) else 0
        # A wrong seed in the base is reported with everything else that is wrong there.
        return {SEED: [first + k for k in range(seeds)] if isinstance(first, int) else [first]}
    if isinstance(seeds, Sequence) and not isinstance(seeds, str) and seeds:
        return {SEED: list(seeds)}
    raise ConfigError(
        f"grid.seeds = {show(seeds)}: must be how many seeds (at least 1) or a list of them"
    )


def _count_samples(experiment: Experiment, counts: dict[str, int]) -> int:
    """Make the data of an experiment, once for each data section, and return n."""
    key = experiment.data.model_dump_json()
    if key not in counts:
        counts[key] = len(experiment.make_dataset().x)
    return counts[key]
