"""``[grid] refine = true``: of a grid only the points that narrow down where S changes sign.

The values of gamma (of three layers gamma_3) are then candidates. For every combination of the
other keys the first, the middle and the last are carried out, and then those on both sides of
where the straight line through the neighbours of a change of sign crosses 0, until the change of
sign lies between two neighbouring candidates. All widths and seeds of a point go together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flowsim.errors import ConfigError
from flowsim.sweeps.grid import SEED, Member

REFINE = "refine"
EXPONENTS = ("scaling.gamma", "scaling.gamma_3")
_AT_ONE_POINT = ("network.width", SEED)
_SECANTS = 3
"""Rounds after which a change of sign is halved instead: a bent curve draws them out."""


def exponent_of(axes: Mapping[str, Any]) -> str | None:
    """Return the key whose values are candidates; None for a grid that is to be carried out whole.

    Raises
    ------
    ConfigError
        If there is nothing to refine.
    """
    wanted = axes.get(REFINE, False)
    if not isinstance(wanted, bool):
        raise ConfigError(f"grid.refine = {wanted!r}: must be true or false")
    if not wanted:
        return None
    for key in EXPONENTS:
        if isinstance(axes.get(key), Sequence) and len(axes[key]) > 2:
            return key
    raise ConfigError(
        'grid.refine = true: needs three values or more of "scaling.gamma" (or "scaling.gamma_3"), '
        "the candidates for where S changes sign"
    )


def refine(
    members: Sequence[Member],
    key: str,
    carry_out: Callable[[list[Member]], None],
    slope_of: Callable[[list[Member]], float | None],
) -> list[Member]:
    """Carry out what it takes to find where S changes sign.

    Parameters
    ----------
    members : sequence of Member
        All runs of the grid.
    key : str
        See `exponent_of`.
    carry_out : callable
        Returns when the runs it is given are finished.
    slope_of : callable
        S of the input weights from the runs of one point; None if they show none.

    Returns
    -------
    list of Member
        The runs that were carried out.
    """
    rows: dict[str, _Row] = {}
    for member in members:
        fixed = {k: v for k, v in member.values.items() if k not in (key, *_AT_ONE_POINT)}
        row = rows.setdefault(repr(sorted(fixed.items())), _Row())
        row.candidates.setdefault(float(member.values[key]), []).append(member)
    done: list[Member] = []
    while asked := [(row, gamma) for row in rows.values() for gamma in row.next()]:
        runs = [member for row, gamma in asked for member in row.candidates[gamma]]
        carry_out(runs)
        done += runs
        for row, gamma in asked:
            row.slopes[gamma] = slope_of(row.candidates[gamma])
    return done


class _Row:
    """The candidates at one combination of the other keys, and what is known of S there."""

    def __init__(self) -> None:
        self.candidates: dict[float, list[Member]] = {}
        self.slopes: dict[float, float | None] = {}
        self._rounds = 0

    def next(self) -> list[float]:
        """Return the candidates to carry out next; none when all changes of sign are found."""
        every = sorted(self.candidates)
        if not self.slopes:
            return sorted({every[0], every[len(every) // 2], every[-1]})
        self._rounds += 1
        known = [(g, s) for g in every if (s := self.slopes.get(g)) is not None]
        chosen: set[float] = set()
        for (low, below), (high, above) in zip(known[:-1], known[1:], strict=True):
            between = [g for g in every if low < g < high and g not in self.slopes]
            if not between or np.sign(below) * np.sign(above) > 0.0:
                continue
            if self._rounds > _SECANTS:
                chosen.add(between[len(between) // 2])
                continue
            zero = low + (high - low) * below / (below - above) if below != above else low
            left, right = ([g for g in between if (g <= zero) == side] for side in (True, False))
            chosen |= {*left[-1:], *right[:1]}
        return sorted(chosen)
