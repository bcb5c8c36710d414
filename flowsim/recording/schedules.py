"""When to save: schedules that say which times are due, and never change a step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """Says which moments of a step are to be saved.

    Times are anchored (powers of ten, multiples), not counted from the first step, so that runs
    of different widths and seeds share their rows.
    """

    @abstractmethod
    def due(self, start: float, end: float, step: int) -> list[float]:
        """Times in (start, end] that are due in accepted step number ``step``."""


class Logarithmic(Schedule):
    """``per_decade`` times a decade: 10^(k / per_decade).

    Parameters
    ----------
    per_decade : int
    start : float, optional
        First time. By default the first time of the series after the end of the first step:
        earlier than that there is nothing to see.
    """

    def __init__(self, per_decade: int, start: float | None = None) -> None:
        self.per_decade = per_decade
        self.start = start

    def due(self, start: float, end: float, step: int) -> list[float]:
        # The first step has infinitely many decades behind it: its end is early enough.
        first = self.start if self.start is not None else (end if start == 0.0 else start)
        lowest = max(start, 0.999999 * first)
        if lowest <= 0.0:
            return []
        # One index early: the logarithm may round up past a time that is due.
        index = math.floor(self.per_decade * math.log10(lowest))
        times = []
        while (time := 10.0 ** (index / self.per_decade)) <= end:
            if time > lowest:
                times.append(time)
            index += 1
        return times


class Linear(Schedule):
    """Every ``every`` in tau."""

    def __init__(self, every: float) -> None:
        self.every = every

    def due(self, start: float, end: float, step: int) -> list[float]:
        first = math.floor(start / self.every) + 1
        last = math.floor(end / self.every)
        return [index * self.every for index in range(first, last + 1)]


class EverySteps(Schedule):
    """The end of every ``every``-th accepted step."""

    def __init__(self, every: int) -> None:
        self.every = every

    def due(self, start: float, end: float, step: int) -> list[float]:
        return [end] if step % self.every == 0 else []


class Never(Schedule):
    """Nothing between the first and the last row."""

    def due(self, start: float, end: float, step: int) -> list[float]:
        return []
