"""`flowsim.plot`: the figures of `flowsim.analysis`, for runs that can also predict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsim.analysis import plot as draw
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

    Parameters
    ----------
    kind : {"phase", "rd", "loss", "features", "function"}
        A key of `flowsim.analysis.FIGURES`.
    source : path, Run, SweepResult, or list of these
        The run or the sweep folder.
    output : path
        The figure; its suffix, .png, .pdf or .svg, decides the format.
    data : path, optional
        A CSV file for the plotted numbers.
    **options
        What the figure's ``draw`` takes, for example ``time="t"`` for the loss.

    Returns
    -------
    pathlib.Path
        The figure.

    Raises
    ------
    ConfigError
        Unknown figure, suffix or option, or runs that the figure cannot show.
    FlowsimError
        A file that cannot be read or written.
    """
    if isinstance(source, str | os.PathLike) and os.path.isfile(source):
        # The figures read files and know nothing of networks; a Run brings its own predict.
        with Run(os.fspath(source)) as run:
            return draw(kind, run, output, data, **options)
    return draw(kind, source, output, data, **options)
