"""The tangent kernel in time: its spectrum, how far it has gone, and the decay of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowsim.analysis.collect import Source
from flowsim.analysis.figures.style import (
    PALETTE,
    THEORY,
    Row,
    colours,
    one_run,
    panels,
    styled,
    time_axis,
)
from flowsim.analysis.kernels import KernelHistory, LossDecay, kernel_history, loss_decay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MODES = 12
"""Curves of the spectrum at the most: of more modes, evenly spaced ones."""


def draw(source: Source, *, member: int | None = None) -> tuple[Figure, list[Row]]:
    """Return the figure and its numbers, of a run that recorded K (``record.kernel``)."""
    with one_run(source, member) as run:
        history, decay = kernel_history(run), loss_decay(run)
    rows: list[Row] = [
        {"kind": "kernel", "time": float(time), "distance": float(distance)}
        | {f"rate_{k}": float(value) for k, value in enumerate(rates)}
        for time, distance, rates in zip(history.time, history.distance, history.rates, strict=True)
    ]
    rows += [
        {"kind": "decay", "time": float(time), "rate": float(rate), "least": float(least),
         "most": float(most)}
        for time, rate, least, most in zip(
            decay.time, decay.rate, decay.least, decay.most, strict=True
        )
    ]  # fmt: skip
    return _draw(history, decay), rows


@styled
def _draw(history: KernelHistory, decay: LossDecay) -> Figure:
    figure, (spectrum, distance, rates) = panels(3)
    modes = np.unique(np.linspace(0, history.rates.shape[1] - 1, _MODES).round().astype(int))
    for mode, colour in zip(modes, colours(len(modes)), strict=True):
        spectrum.plot(history.time, history.rates[:, mode], color=colour)
    spectrum.set(yscale="log", ylabel=r"eigenvalues of $K/n$")
    distance.plot(history.time, history.distance, color=PALETTE[0],
                  label="$|K-K(0)|\\,/\\,|K(0)|$")  # fmt: skip
    if history.alignment is not None and history.alignment_time is not None:
        distance.plot(history.alignment_time, history.alignment[:, -1], "--", color=PALETTE[1],
                      label=r"alignment with $y y^\mathrm{T}$")  # fmt: skip
    distance.set_ylim(bottom=0.0)
    distance.legend(loc="best")
    rates.plot(
        decay.time, decay.rate, color=PALETTE[0], label=r"$-\mathrm{d}\log R/\mathrm{d}\tau$"
    )
    rates.plot(decay.time, decay.least, color=THEORY, linewidth=0.9, label=r"$2\lambda_{\min}/n$")
    rates.plot(decay.time, decay.most, "--", color=THEORY, linewidth=0.9,
               label=r"$2\lambda_{\max}/n$")  # fmt: skip
    rates.set(yscale="log")
    rates.legend(loc="best")
    for axes, times in ((spectrum, history.time), (distance, history.time), (rates, decay.time)):
        time_axis(axes, times)
    return figure
