"""Figures from run files: one module a figure, one entry of `FIGURES` a module.

A figure module has ``draw(source, **options)``, which returns the matplotlib figure and the plotted
numbers as rows; `plot` finds it in the table, saves the figure and writes the rows. Matplotlib is
imported when the first figure is drawn, and never through pyplot: no display is needed and no
global state is touched.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsim.errors import ConfigError

if TYPE_CHECKING:
    from flowsim.analysis.collect import Source

SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class FigureKind:
    """An entry of `FIGURES`.

    Attributes
    ----------
    module : str
        Where its ``draw`` function lives.
    source : str
        What it is drawn from, for a help text.
    summary : str
        What it shows.
    predicts : bool
        Whether it evaluates the network: it needs a run that has ``predict`` (from
        ``flowsim.open``), or the option ``predict``.
    """

    module: str
    source: str
    summary: str
    predicts: bool = False

    def draw(self) -> Callable[..., Any]:
        """Return the module's ``draw`` function, importing it now."""
        function: Callable[..., Any] = importlib.import_module(self.module).draw
        return function

    def options(self) -> tuple[str, ...]:
        """Return the names of the options that ``draw`` takes."""
        return tuple(list(inspect.signature(self.draw()).parameters)[1:])


FIGURES = {
    "phase": FigureKind(
        "flowsim.analysis.figures.phase",
        "sweep folder",
        "map of the slope S over gamma and gamma_prime",
    ),
    "rd": FigureKind(
        "flowsim.analysis.figures.rd",
        "sweep folder",
        "relative change against width, with the fitted lines",
    ),
    "loss": FigureKind(
        "flowsim.analysis.figures.loss",
        "run or sweep folder",
        "loss against time",
    ),
    "features": FigureKind(
        "flowsim.analysis.figures.features",
        "run",
        "orientation against amplitude of the neurons, initial and final",
    ),
    "condensation": FigureKind(
        "flowsim.analysis.figures.condensation",
        "run",
        "orientations in time, and the share of the amplitude in the leading ones",
    ),
    "cosines": FigureKind(
        "flowsim.analysis.figures.cosines",
        "run",
        "cosines between neurons, sorted, initial and final",
    ),
    "kernel": FigureKind(
        "flowsim.analysis.figures.kernel",
        "run",
        "spectrum of the tangent kernel, its distance, the loss's decay against it",
    ),
    "function": FigureKind(
        "flowsim.analysis.figures.function",
        "run",
        "learnt function against the data, for one input",
        predicts=True,
    ),
}
"""Every figure: a new one is a new module and a new entry here."""


def plot(
    kind: str,
    path: Source,
    output: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Path:
    """Draw a figure from run files and save it; an existing figure is overwritten.

    Parameters
    ----------
    kind : str
        A key of `FIGURES`.
    path : path, RunFile, or list of these
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
    output = Path(output)
    if kind not in FIGURES:
        raise ConfigError(f"kind = {kind!r}: no such figure; {_remedy(kind, tuple(FIGURES))}")
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"output = {str(output)!r}: the suffix {output.suffix!r} names no picture format; "
            "use .png, .pdf or .svg"
        )
    if data is not None and Path(data).suffix.lower() != ".csv":
        raise ConfigError(
            f"data = {str(data)!r}: the plotted numbers are comma-separated; use .csv"
        )
    known = FIGURES[kind].options()
    problems = [
        f"{name} = {value!r}: the figure {kind!r} has no such option; {_remedy(name, known)}"
        for name, value in options.items()
        if name not in known
    ]
    if problems:
        raise ConfigError(problems)
    from flowsim.analysis.figures import style

    # Classifying a large sweep takes a while: an unwritable folder is better told before.
    style.check_writable(output)
    if data is not None:
        style.check_writable(Path(data))
    figure, rows = FIGURES[kind].draw()(path, **options)
    style.save(figure, output)
    if data is not None:
        style.write_csv(rows, Path(data))
    return output


def _remedy(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose from {', '.join(known)}"
