"""A grid of experiments: expanded, checked point by point, and cut into units of work."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowsim.config import Experiment, load_experiment
from flowsim.config.problems import show, show_key
from flowsim.errors import ConfigError
from flowsim.sweeps.costs import seconds_of

SEED = "network.seed"
MAX_RUNS = 10**7
_ID_LENGTH = 16


@dataclass(frozen=True)
class Member:
    """One run of a sweep: a grid point with one of its seeds.

    Attributes
    ----------
    point : str
        Name of the point's file: the first 16 hexadecimal digits of the hash of its experiment,
        whatever the seed.
    experiment : Experiment
        Resolved and checked.
    hash : str
        The experiment's.
    values : dict
        The grid's dotted keys and their values for this run, ``network.seed`` among them.
    cost : float
        Seconds of one core, see `flowsim.sweeps.costs`.
    """

    point: str
    experiment: Experiment
    hash: str
    values: dict[str, Any]
    cost: float

    @property
    def seed(self) -> int:
        """The seed of the initial values."""
        return self.experiment.network.seed

    @property
    def id(self) -> str:
        """Identity within the sweep: point and seed."""
        return f"{self.point}-{self.seed}"


@dataclass(frozen=True)
class Unit:
    """What one worker carries out in one go: runs of one grid point that differ in their seed.

    Attributes
    ----------
    members : tuple of Member
    whole : bool
        These are all the runs of a point that has no file yet.
    """

    members: tuple[Member, ...]
    whole: bool = False

    @property
    def cost(self) -> float:
        """Sum over the runs."""
        return sum(member.cost for member in self.members)


def expand(
    base: Mapping[str, Any],
    grid: Mapping[str, Any],
    sizes: tuple[int, int] | None = None,
    activations: Sequence[str] = (),
) -> list[Member]:
    """Return every run of a grid, first key slowest and seeds fastest.

    Parameters
    ----------
    base : dict
        Sections of an experiment; what every point has in common.
    grid : dict
        Lists of values by dotted key, and ``seeds``: a number k for the base's seed, seed + 1, ...,
        seed + k - 1, or a list of seeds.
    sizes : (int, int), optional
        n and d, when the data do not come from ``base``.
    activations : sequence of str
        Names of the user's own activations.

    Raises
    ------
    ConfigError
        With everything that is wrong at any point, each problem once. Nothing has been run.
    """
    axes = _axes(base, grid, activations)
    problems: dict[str, None] = {}
    members: dict[str, Member] = {}
    made: dict[str, tuple[int, int]] = {}
    here, point = "", ""
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        try:
            experiment = load_experiment(base, values, activations)
            n, d = _sizes(experiment, made) if sizes is None else sizes
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
            continue
        identity = experiment.hash()
        cost = seconds_of(experiment, n, d)
        shared = repr([item for item in values.items() if item[0] != SEED])
        if shared != here:
            here, point = shared, _without_seed(experiment).hash()[:_ID_LENGTH]
        members.setdefault(identity, Member(point, experiment, identity, values, cost))
    if problems:
        raise ConfigError(problems)
    return list(members.values())


def _without_seed(experiment: Experiment) -> Experiment:
    """Return what the runs of one point have in common."""
    return replace(experiment, network=experiment.network.model_copy(update={"seed": 0}))


def cut(members: Sequence[Member], workers: int) -> list[Unit]:
    """Group runs into units of work, largest first.

    Runs that differ in nothing but the seed go together, unless there are then fewer units than
    workers: the largest units are halved until everybody has something to do.
    """
    points: dict[str, list[Member]] = {}
    for member in members:
        points.setdefault(member.point, []).append(member)
    units = [Unit(tuple(group)) for group in points.values()]
    while 0 < len(units) < workers:
        largest = max(units, key=lambda unit: (len(unit.members) > 1, unit.cost))
        if len(largest.members) == 1:
            break
        units.remove(largest)
        half = (len(largest.members) + 1) // 2
        units += [Unit(largest.members[:half]), Unit(largest.members[half:])]
    return sorted(units, key=lambda unit: -unit.cost)


def flatten(sections: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every leaf of nested tables."""
    for key, value in sections.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _axes(
    base: Mapping[str, Any], grid: Mapping[str, Any], activations: Sequence[str]
) -> dict[str, list[Any]]:
    """Return the values by dotted key, seeds last, or raise with everything wrong in the grid."""
    problems = []
    axes: dict[str, list[Any]] = {}
    if not grid:
        problems.append("grid: missing or empty; add [grid] with seeds = 1 or lists of values")
        problems += _problems_of(base, activations)
    for key, values in grid.items():
        if key in ("seeds", "refine"):
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
        _check_size(axes, grid.get("seeds"))
        axes.update(_seeds(base, grid))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return axes


def _problems_of(base: Mapping[str, Any], activations: Sequence[str]) -> list[str]:
    try:
        load_experiment(base, (), activations)
    except ConfigError as error:
        return error.problems
    return []


def _check_size(axes: Mapping[str, Sequence[Any]], seeds: Any) -> None:
    """Refuse more runs than anybody can carry out, before they are made one by one."""
    n_runs = math.prod(len(values) for values in axes.values())
    if isinstance(seeds, Sequence) and not isinstance(seeds, str):
        n_runs *= max(1, len(seeds))
    elif isinstance(seeds, int | float) and math.isfinite(seeds):
        n_runs = int(n_runs * max(1, seeds))
    if n_runs > MAX_RUNS:
        named = f"grid.seeds = {show(seeds)}" if seeds is not None else "grid"
        raise ConfigError(
            f"{named}: the grid has {n_runs:.3g} runs, more than {MAX_RUNS:.0e}; list fewer "
            "values or seeds, or cut it into several sweeps"
        )


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


def _sizes(experiment: Experiment, made: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Make the data of an experiment, once for each data section, and return n and d."""
    key = experiment.data.model_dump_json()
    if key not in made:
        n, d = experiment.make_dataset().x.shape
        made[key] = n, d
    return made[key]
