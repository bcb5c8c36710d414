"""`flowsim.plot`: the figures of `flowsim.analysis`, for runs that can also predict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsim.analysis import plot as draw
from flowsim.analysis.phase_file import is_phase_file
from flowsim.recording.opening import check_replaceable
from flowsim.recording.reader import open_runs
from flowsim.result import Run

if TYPE_CHECKING:
    from flowsim.analysis.collect import Source


def plot(
    kind: str,
    source: Source,
    output: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Path:
    """Draw a figure from run files and save it; an existing figure is overwritten.

    Takes what `flowsim.analysis.plot` takes, and returns and raises the same. A path to a run is
    opened as a `Run`, so that the figures that evaluate the network can be drawn from files too.
    """
    for key, path in (("output", output), ("data", data)):
        if path is not None:
            check_replaceable(key, path)
    is_file = isinstance(source, str | os.PathLike) and os.path.isfile(source)
    if is_file and not is_phase_file(source):
        assert isinstance(source, str | os.PathLike)
        # The figures read files and know nothing of networks; a Run brings its own predict.
        with open_runs(os.fspath(source), Run) as runs:
            return draw(kind, runs, output, data, **options)
    return draw(kind, source, output, data, **options)
