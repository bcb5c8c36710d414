"""The rows of one group that are not in a file yet."""

from __future__ import annotations

from collections.abc import Sequence
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
        times = Array(np.array(self.times, np.float64), (self.time_name,), "tau = t / alpha", "tau")
        arrays = {self.time_name: times}
        stacked = self.stacked()
        for observable in self.observables:
            values = stacked[observable.name]
            own = observable.dims or tuple(f"{observable.name}_{k}" for k in range(values.ndim - 1))
            dims = (self.time_name, *own)
            arrays[observable.name] = Array(values, dims, observable.long_name, observable.units)
        return GroupContents(arrays, self.time_name)
