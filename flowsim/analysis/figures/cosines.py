"""Cosines between neurons, sorted: blocks are directions that neurons have gathered in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flowsim.analysis.collect import Source
from flowsim.analysis.condensation import directions, sorted_cosines, states
from flowsim.analysis.figures.style import Row, check_hidden_layer, one_run, panels, styled
from flowsim.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flowsim.recording.reader import RunFile

MAX_NEURONS = 400
Matrices = dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]


def draw(
    source: Source,
    *,
    layer: int = 1,
    max_neurons: int = MAX_NEURONS,
    member: int | None = None,
) -> tuple[Figure, list[Row]]:
    """Return the figure and its numbers: cosine matrices of the first and the last state.

    Parameters
    ----------
    source : see `flowsim.analysis.collect.find_runs`
    layer : int
        Hidden layer, from 1.
    max_neurons : int
        Of more neurons, those of the largest amplitude are shown.
    member : int, optional
        Position of the run in an ensemble.

    Raises
    ------
    ConfigError
        A layer that the run does not have, or ``max_neurons`` below 1.
    """
    if max_neurons < 1:
        raise ConfigError(f"max_neurons = {max_neurons}: nothing to draw; give 1 or more")
    with one_run(source, member) as run:
        matrices = _matrices(run, layer, max_neurons)
    rows: list[Row] = [
        {"state": name, "row": i, "column": j, "neuron": int(order[i]), "cosine": float(value)}
        for name, (matrix, order) in matrices.items()
        for (i, j), value in np.ndenumerate(matrix)
    ]
    return draw_matrices({name: matrix for name, (matrix, _) in matrices.items()}), rows


def _matrices(run: RunFile, layer: int, most: int) -> Matrices:
    ends: dict[str, tuple[npt.ArrayLike, npt.ArrayLike]] = {}
    for _, layers in states(run):
        check_hidden_layer(layer, len(layers))
        ends["final" if ends else "initial"] = layers[layer - 1]
    found: Matrices = {}
    for name, (inwards, outwards) in ends.items():
        units, amplitudes = directions(inwards, outwards)
        chosen = np.sort(np.argsort(-amplitudes, kind="stable")[:most])
        matrix, order = sorted_cosines(units[:, chosen])
        found[name] = matrix, chosen[order]
    return found


@styled
def draw_matrices(matrices: dict[str, npt.NDArray[np.float64]]) -> Figure:
    """Draw sorted matrices side by side, one scale of colours.

    Parameters
    ----------
    matrices : dict of str to (m, m) array
        By their titles.
    """
    figure, axes = panels(len(matrices), width=2.5 * len(matrices) + 0.6, height=2.6)
    for place, (name, matrix) in zip(axes, matrices.items(), strict=True):
        image = place.imshow(
            matrix, cmap="RdBu_r", vmin=-1.0, vmax=1.0, interpolation="nearest", rasterized=True
        )
        place.set_title(name, fontsize=10.0)
        place.set_xlabel("neuron")
        place.tick_params(top=False, right=False, direction="out", length=2.5)
    axes[0].set_ylabel("neuron")
    bar = figure.colorbar(image, ax=list(axes), fraction=0.045, pad=0.02)
    bar.set_label("cosine")
    bar.ax.tick_params(length=2.5)
    return figure
