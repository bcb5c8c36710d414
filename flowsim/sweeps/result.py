"""What a sweep returns: its runs, opened one at a time, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from flowsim.errors import FileFormatError

if TYPE_CHECKING:
    from flowsim.result import Run
    from flowsim.sweeps.store import Source, Stored


class RunList(Sequence["Run"]):
    """The runs of a sweep; each is opened when it is asked for.

    Parameters
    ----------
    sources : sequence of RunContents, path or Stored
        Where each is (see `flowsim.sweeps.store`).
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)

    def __len__(self) -> int:
        return len(self._sources)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> RunList: ...
    def __getitem__(self, index: int | slice) -> Run | RunList:
        if isinstance(index, slice):
            return RunList(self._sources[index])
        from flowsim.result import Run
        from flowsim.sweeps.store import Stored

        source = self._sources[index]
        return _open_stored(source) if isinstance(source, Stored) else Run(source)

    def __repr__(self) -> str:
        return f"<{len(self)} runs>"


def _open_stored(source: Stored) -> Run:
    """Open a run in the file of its point, wherever it is there by now."""
    from flowsim.recording.reader import open_runs
    from flowsim.result import Run

    with open_runs(source.path) as runs:
        positions = range(source.position, source.position + len(runs))
        for position in (k % len(runs) for k in positions):
            if runs[position].seed == source.seed:
                return Run(source.path, position)
    raise FileFormatError(f"{source.path}: has no run with seed {source.seed} any more")


@dataclass(frozen=True)
class SweepResult:
    """The outcome of `flowsim.sweep`; iterating over it yields the runs.

    Attributes
    ----------
    folder : Path or None
        Where the files are; None for a sweep in memory.
    runs : sequence of Run
        In the order of the grid, seeds fastest. Runs that have no file are left out.
    values : list of dict
        The grid's dotted keys and their values (``network.seed`` among them), one for each run.
    n_run, n_skipped : int
        Runs carried out now, and runs that had been finished before.
    failed : list of (str, str)
        Identity (its point's file and its seed) and reason of every run that did not come to an
        end of its own: its numbers failed, its time was up, or its worker died. Those that have
        been saved are among ``runs``.
    """

    folder: Path | None
    runs: RunList
    values: list[dict[str, Any]] = field(repr=False)
    n_run: int
    n_skipped: int
    failed: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def select(self, values: Mapping[str, Any]) -> RunList:
        """Return the runs at which the grid has these values.

        Parameters
        ----------
        values : dict
            Dotted keys of the grid, such as ``{"scaling.gamma": 1.0, "network.width": 1000}``.

        Raises
        ------
        KeyError
            If a key is not one of the grid's.
        """
        chosen = [
            source
            for source, here in zip(self.runs._sources, self.values, strict=True)
            if all(here[key] == value for key, value in values.items())
        ]
        return RunList(chosen)
