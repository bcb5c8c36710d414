"""What a sweep was given: checked, and put into one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowsim.config import load_grid
from flowsim.config.source import Overrides, overrides_without_effect
from flowsim.data import Dataset, from_arrays
from flowsim.errors import ConfigError
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.sweeps.grid import Member, cut


def check_workers(workers: int | None) -> int:
    """Return the number of processes; by default one a usable core."""
    if workers is None:
        return usable_cores()
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(
            f"workers = {workers!r}: must be a positive number of processes, or left out for one "
            f"a core ({usable_cores()} here)"
        )
    return workers


def base_and_grid(
    experiment: Any, grid: Mapping[str, Any] | None, overrides: Overrides
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what all points have in common, and the grid."""
    if not isinstance(overrides, str | Mapping):
        overrides = list(overrides)
    base, inside = load_grid(experiment, overrides)
    if grid is None:
        return base, inside
    if inside:
        raise ConfigError("grid: given in the experiment and beside it; keep one of the two")
    axes = load_grid({"grid": grid})[1]
    if problems := overrides_without_effect(overrides, axes):
        raise ConfigError(problems)
    return base, axes


def given_data(
    dataset: Dataset | None, arrays: Mapping[str, np.ndarray | None], base: Mapping[str, Any]
) -> Dataset | None:
    """Return the data that do not come from the experiment."""
    x, y = arrays["x"], arrays["y"]
    if dataset is not None or all(values is None for values in arrays.values()):
        return dataset
    if x is None or y is None:
        raise ConfigError(f"{'x' if x is None else 'y'}: missing; x and y go together")
    section = base.get("data", {})
    given = section if isinstance(section, Mapping) else {}
    return from_arrays(
        x,
        y,
        arrays["x_test"],
        arrays["y_test"],
        bias=given.get("bias", True),
        normalise=given.get("normalise", "none"),
    )


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``i/N``, the i-th part of N, counted from 1.

    Raises
    ------
    ConfigError
    """
    first, slash, last = text.partition("/")
    if slash and first.isascii() and last.isascii() and first.isdecimal() and last.isdecimal():
        return int(first), int(last)
    raise ConfigError(f"shard = {text}: must be i/N, such as 1/4 for the first of four parts")


def in_shard(members: Sequence[Member], shard: tuple[int, int] | None) -> list[Member]:
    """Return the runs of one part of a sweep: whole points, each part with like amounts of work.

    Raises
    ------
    ConfigError
        If there is no such part.
    """
    if shard is None:
        return list(members)
    number, count = shard
    if not 1 <= number <= count:
        raise ConfigError(
            f"shard = {number}/{count}: must be i/N with i from 1 to N, such as 1/{max(count, 1)}"
        )
    # Largest first, dealt out like cards: the parts are as even as they can be.
    chosen = {unit.members[0].point for unit in cut(members, 1)[number - 1 :: count]}
    return [member for member in members if member.point in chosen]
