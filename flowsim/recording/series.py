"""The rows of one group that are not in a file yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flowsim.recording.contents import Array, GroupContents
from flowsim.recording.observables import Observable


@dataclass
class Series:
    """A group with a time axis of its own, and its rows that are not in a file yet.

    Attributes
    ----------
    rows : int
        Appended so far.
    saved : int
        Rows that the file had before the run was continued, or has now.
    """

    time_name: str
    observables: Sequence[Observable]
    shapes: Sequence[tuple[int, ...]]
    rows: int = 0
    saved: int = 0
    times: list[float] = field(default_factory=list)
    columns: list[list[np.ndarray]] = field(default_factory=list)
    n_bytes: int = 0

    def clear(self) -> None:
        """Forget the rows in memory."""
        self.times, self.columns, self.n_bytes = [], [[] for _ in self.observables], 0

    def stacked(self) -> dict[str, np.ndarray]:
        """The rows in memory, by array."""
        return {
            observable.name: np.array(rows, observable.dtype).reshape(len(rows), *shape)
            for observable, rows, shape in zip(
                self.observables, self.columns, self.shapes, strict=True
            )
        }

    def group(self) -> GroupContents:
        """The rows in memory, as a group."""
        times = np.array(self.times, np.float64)
        return series_group(self.time_name, times, self.observables, self.stacked())


def series_group(
    time_name: str,
    times: np.ndarray,
    observables: Sequence[Observable],
    values: Mapping[str, np.ndarray],
) -> GroupContents:
    """Make a group that grows along its time axis.

    Parameters
    ----------
    time_name : str
    times : (rows,) float64 array
    observables : sequence of Observable
    values : mapping
        Of each observable, (rows, ...) in its dtype.
    """
    arrays = {time_name: Array(times, (time_name,), "tau = t / alpha", "tau")}
    for observable in observables:
        rows = values[observable.name]
        own = observable.dims or tuple(f"{observable.name}_{k}" for k in range(rows.ndim - 1))
        arrays[observable.name] = Array(
            rows, (time_name, *own), observable.long_name, observable.units
        )
    return GroupContents(arrays, time_name)
