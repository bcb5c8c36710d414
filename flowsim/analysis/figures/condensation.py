"""Condensation in time: how many orientations, what share of the amplitude the first hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowsim.analysis.collect import Source
from flowsim.analysis.condensation import ANGLE, SHARE, Condensation, condensation
from flowsim.analysis.figures.style import (
    PALETTE,
    Row,
    check_hidden_layer,
    one_run,
    panels,
    styled,
    time_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEADING = 4


def draw(
    source: Source,
    *,
    layer: int = 1,
    angle: float = ANGLE,
    share: float = SHARE,
    lines: bool = False,
    member: int | None = None,
) -> tuple[Figure, list[Row]]:
    """Return the figure and its numbers.

    Parameters
    ----------
    source : see `flowsim.analysis.collect.find_runs`
    layer : int
        Hidden layer, from 1.
    angle, share, lines
        See `flowsim.analysis.condensation.find_orientations`.
    member : int, optional
        Position of the run in an ensemble.

    Raises
    ------
    ConfigError
        A layer that the run does not have.
    """
    with one_run(source, member) as run:
        found = condensation(run, angle=angle, share=share, lines=lines, leading=LEADING)
    check_hidden_layer(layer, max(one.layer for one in found))
    chosen = [one for one in found if one.layer == layer]
    return _draw(chosen, share, lines), [_row(one) for one in chosen]


def _row(one: Condensation) -> Row:
    shares = {f"leading_{k}": value for k, value in enumerate(one.leading, start=1)}
    return {
        "time": one.time,
        "layer": one.layer,
        "number": one.number,
        "effective_number": one.effective_number,
        **shares,
        "pinned": one.pinned,
    }


@styled
def _draw(found: list[Condensation], share: float, lines: bool) -> Figure:
    figure, (counts, shares) = panels(2)
    word = "lines" if lines else "orientations"
    time = np.array([one.time for one in found])
    number = np.array([one.number for one in found])
    counts.plot(time, np.where(np.isfinite(number), number, np.nan), "o-", color=PALETTE[0],
                markersize=3.0, label=f"holding {share:.0%} of the amplitude")  # fmt: skip
    effective = [one.effective_number for one in found]
    counts.plot(time, effective, "s--", color=PALETTE[1], markersize=3.0, label="effective number")
    counts.set(yscale="log", ylabel=word)
    counts.legend(loc="best")
    for k in range(len(found[0].leading)):
        values = [one.leading[k] for one in found]
        label = f"{k + 1} leading" if k else "leading"
        shares.plot(time, values, color=PALETTE[k], label=label)
    shares.set(ylim=(0.0, 1.03), ylabel="share of the amplitude")
    shares.legend(loc="best")
    for axes in (counts, shares):
        time_axis(axes, time)
    return figure
