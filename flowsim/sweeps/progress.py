"""The bar of a sweep: runs finished, runs failed, time left."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class SweepProgress:
    """A bar on standard error, or nothing at all where that is not a terminal.

    Parameters
    ----------
    wanted : bool
    n_missing, n_points : int
        Runs to carry out, and runs in the whole grid.
    cost : float
        Work of the runs to carry out. The bar moves by cost, not by runs: the largest come
        first, and the time left would otherwise be far too long.
    """

    def __init__(self, wanted: bool, n_missing: int, n_points: int, cost: float) -> None:
        self.shown = wanted and sys.stderr.isatty()
        self._n_missing, self._n_points, self._cost = n_missing, n_points, cost
        self._finished = n_points - n_missing
        self._bar: Progress | None = None

    def __enter__(self) -> SweepProgress:
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[finished]}/{task.fields[points]} runs"),
                TextColumn("{task.fields[failed]} failed"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(stderr=True),
                # Units take from seconds to hours: judge the speed over the whole sweep.
                speed_estimate_period=float("inf"),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "sweep", total=self._cost, finished=self._finished, points=self._n_points, failed=0
            )
        return self

    def advance(self, n_runs: int, cost: float, n_failed: int) -> None:
        """Count one finished unit."""
        self._finished += n_runs
        if self._bar is not None:
            self._bar.update(self._task, advance=cost, finished=self._finished, failed=n_failed)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
