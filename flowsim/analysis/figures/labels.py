"""Put labels where they hide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

Array = npt.NDArray[np.float64]


def place_label(
    axes: Axes, label: Annotation, marks: Array, line: Array, taken: Sequence[Array]
) -> Array:
    """Move a label to the freest of six places around the point that it names.

    The figure must have been laid out: places are compared in pixels.

    Parameters
    ----------
    axes : Axes
        Where it is; a label should not reach over the frame.
    label : Annotation
        Its text is in offset points around the point.
    marks : ndarray of shape (marks, 2)
        Symbols not to hide, in data coordinates.
    line : ndarray of shape (corners, 2)
        A line not to cross, in data coordinates.
    taken : sequence of ndarray of shape (2, 2)
        Boxes of the labels placed before, in pixels.

    Returns
    -------
    ndarray of shape (2, 2)
        The label's box in pixels: lower left and upper right corner.
    """
    along = np.linspace(0.0, len(line) - 1.0, 200)
    dense = np.column_stack([np.interp(along, np.arange(len(line)), column) for column in line.T])
    theory, marks = axes.transData.transform(dense), axes.transData.transform(marks)
    frame = axes.get_window_extent().get_points()
    tried: list[tuple[float, dict[str, Any], Array]] = []
    for side, shift in (("left", 7.0), ("right", -7.0), ("center", 0.0)):
        for base, lift in (("bottom", 4.0), ("top", -4.0)):
            clear = 1.0 if side != "center" else 2.0
            place = {"ha": side, "va": base, "position": (shift, clear * lift)}
            label.set(**place)
            box = label.get_window_extent().get_points()
            cost = 1.0 * _inside(marks, box) + min(_inside(theory, box), 4)
            cost += 20.0 * bool((box[0] < frame[0]).any() or (box[1] > frame[1]).any())
            cost += 10.0 * sum(bool((box[0] < b[1]).all() and (b[0] < box[1]).all()) for b in taken)
            tried.append((cost, place, box))
    _, place, box = min(tried, key=lambda entry: entry[0])
    label.set(**place)
    return box


def _inside(at: Array, box: Array) -> int:
    # A symbol reaches a few pixels beyond its centre.
    return int(np.sum(np.all((at > box[0] - 6.0) & (at < box[1] + 6.0), axis=1)))
