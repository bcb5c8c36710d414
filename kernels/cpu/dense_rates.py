"""Rates of hidden matrices that are written out, and what a step makes of them, in one pass.

A rate A^T B is made tile by tile in registers. What it is combined with is asked for while the
tile before is computed, so that the combination of a stage, which by itself waits for memory,
costs little beside the product. Each tile's rate and combination are written past the caches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from .lanes import LANE_BYTES
from .panel_combinations import combined, combined_error, load_panel, put_panel
from .streams import fence, streamed
from .threads import run_blocks
from .tiles import PANEL_VECTORS, TILE_ROWS, panel_width, store_tile, tile_asking

ROWS = 8 * TILE_ROWS
"""Rows of a matrix in a block, whole tiles. Part of the results: bits of sums of squares depend on
it, and on the shape of a tile."""

_LEAST, _MOST = 96, 512
"""Samples for which this is the way: with fewer there is not the time to ask for everything, and
panels of more do not fit the second level of the cache."""

_ALONE, _STAGE, _ERROR = range(3)
"""What is made of a rate: nothing else, base + combination, base - combination and its square."""

exact = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)


@dataclass(frozen=True)
class Combination:
    """What is made of slopes and a rate that comes after them.

    Attributes
    ----------
    base, out : (parameters,) arrays
        ``out`` receives base + sum_j weights[j] slopes[j] + weights[-1] rate; it may be any of the
        others.
    slopes : (>= k, parameters) array
    weights : (k + 1,) float64 array
    error : bool
        Take the combination off the base instead, and its sum of squares, in float64.
    """

    base: np.ndarray
    slopes: np.ndarray
    weights: np.ndarray
    out: np.ndarray
    error: bool = False


def in_one_pass(samples: int, rows: int, columns: int) -> bool:
    """Whether `write_rate` is for a rate of so many samples, of a matrix (rows, columns)."""
    return _LEAST <= samples <= _MOST and min(rows, columns) >= ROWS


def write_rate(
    signal: np.ndarray,
    back: np.ndarray,
    factor: float,
    slope: np.ndarray | None,
    begin: int,
    combination: Combination | None,
    threads: int,
) -> float:
    """Write signal^T (factor back) into ``slope``, from ``begin`` on, and what is made of it.

    Parameters
    ----------
    signal, back : (n, p), (n, q) arrays
    factor : float
    slope : (parameters,) array or None
        With a combination it may be left out: then the rate is kept nowhere.
    begin : int
        First parameter of the matrix.
    combination : Combination or None
    threads : int

    Returns
    -------
    float
        Sum of squares of the combination over the matrix, if it is an error; 0.0 otherwise.
    """
    (n, rows), columns = signal.shape, back.shape[1]
    width = panel_width(back.itemsize)
    panels = np.empty((-(-columns // width) * n, width), back.dtype)
    run_blocks(
        _pack_panels, len(panels) // n, threads, float(n * width),
        back, back.dtype.type(factor), panels,
    )  # fmt: skip
    nothing = np.empty((1, 0), back.dtype)
    if combination is None:
        made, weights = _ALONE, np.zeros(1)
        base, slopes, out = nothing, nothing, nothing
        asked = np.full(n, panels.ctypes.data, np.int64)
    else:
        made, weights = _ERROR if combination.error else _STAGE, combination.weights
        base, out = combination.base.reshape(1, -1), combination.out.reshape(1, -1)
        slopes = combination.slopes
        asked = _addresses([combination.base, *slopes[: len(weights) - 1]], begin, columns, n)
    blocks = -(-rows // ROWS)
    partial = np.zeros(blocks)
    target = nothing if slope is None else slope.reshape(1, -1)
    run_blocks(
        _write, blocks, threads, float(ROWS * columns * (n + len(weights))), signal, panels,
        columns, begin, target, made, base, slopes, weights.astype(back.dtype), weights, out,
        asked, partial,
    )  # fmt: skip
    return float(np.add.reduce(partial))


def _addresses(arrays: list, begin: int, columns: int, count: int) -> np.ndarray:
    """Addresses (count,) of the lines of the first tile of a matrix in several arrays.

    As many as there are steps in which to ask for them; the first again for steps to spare.
    """
    first = np.array([one.ctypes.data for one in arrays], np.int64)
    itemsize = arrays[0].itemsize
    row = (begin + np.arange(TILE_ROWS) * columns) * itemsize
    lines = first[:, None, None] + row[:, None] + np.arange(PANEL_VECTORS) * LANE_BYTES
    found = np.full(count, first[0], np.int64)
    found[: min(count, lines.size)] = lines.reshape(-1)[:count]
    return found


@exact
def _pack_panels(first, last, back, factor, panels):
    """Order factor back (n, q) in panels (panels * n, width), zeros behind the last column."""
    (n, columns), width = back.shape, panels.shape[1]
    for panel in range(first, last):
        start = panel * width
        size = min(width, columns - start)
        for t in range(n):
            row = panel * n + t
            for k in range(size):
                panels[row, k] = factor * back[t, start + k]
            for k in range(size, width):
                panels[row, k] = 0.0


@exact
def _pack_rows(signal, start, end, packed):
    """Order columns ``start`` to ``end`` of the signal for `flowsim.kernels.cpu.tiles.tile`.

    Along its rows, of which each is far from the next.
    """
    for t in range(packed.shape[1]):
        for group in range(packed.shape[0]):
            first = start + group * TILE_ROWS
            if first + TILE_ROWS <= end:
                for r in range(TILE_ROWS):
                    packed[group, t, r] = signal[t, first + r]
            else:
                for r in range(TILE_ROWS):
                    packed[group, t, r] = signal[t, first + r] if first + r < end else 0.0


@exact
def _finish_corner(
    corner, height, size, at, columns, slope, made, base, slopes, weights, exact_weights, out
):
    """What `_write` does with a tile, for one at the edge; returns the sum of squares."""
    total, count = 0.0, weights.size - 1
    for r in range(height):
        for k in range(at + r * columns, at + r * columns + size):
            own = corner[r, k - at - r * columns]
            if slope.size > 0:
                slope[0, k] = own
            if made == _STAGE:
                increment = weights.dtype.type(0.0)
                for j in range(count):
                    increment += weights[j] * slopes[j, k]
                out[0, k] = base[0, k] + (increment + weights[count] * own)
            elif made == _ERROR:
                change = 0.0
                for j in range(count):
                    change += exact_weights[j] * slopes[j, k]
                change += exact_weights[count] * own
                total += change * change
                out[0, k] = base[0, k] - change
    return total


@exact
def _write(
    first, last, signal, panels, columns, begin, slope, made, base, slopes, weights,
    exact_weights, out, asked, partial,
):  # fmt: skip
    (n, rows), width, count = signal.shape, panels.shape[1], weights.size - 1
    packed = np.empty((ROWS // TILE_ROWS, n, TILE_ROWS), signal.dtype)
    corner = np.empty((TILE_ROWS, width), signal.dtype)
    squares = np.empty((PANEL_VECTORS, width // PANEL_VECTORS))
    itemsize = signal.itemsize
    aligned = (begin * itemsize) % LANE_BYTES == 0 and (columns * itemsize) % LANE_BYTES == 0
    kept_past = aligned and streamed(slope)
    made_past = aligned and streamed(out)
    for block in range(first, last):
        total = 0.0
        squares[:] = 0.0
        start, end = block * ROWS, min((block + 1) * ROWS, rows)
        _pack_rows(signal, start, end, packed)
        for row in range(start, end, TILE_ROWS):
            group, height = (row - start) // TILE_ROWS, min(TILE_ROWS, end - row)
            for column in range(0, columns, width):
                # Of the next tile, which is the next one in the row but at its end.
                if column + width < columns:
                    ahead = row * columns + column + width
                else:
                    ahead = (row + TILE_ROWS) * columns
                ahead = 0 if made == _ALONE else ahead * itemsize
                panel = (column // width) * n
                sums = tile_asking(packed, group, panels, panel, asked, ahead)
                store_tile(corner, 0, sums)
                at = begin + row * columns + column
                if height < TILE_ROWS or column + width > columns:
                    total += _finish_corner(
                        corner, height, min(width, columns - column), at, columns, slope, made,
                        base, slopes, weights, exact_weights, out,
                    )  # fmt: skip
                    continue
                for r in range(TILE_ROWS):
                    own = load_panel(corner, r, 0)
                    if slope.size > 0:
                        put_panel(slope, at, own, kept_past)
                    if made == _STAGE:
                        new = combined(slopes, count, weights, own, at, base)
                        put_panel(out, at, new, made_past)
                    elif made == _ERROR:
                        new = combined_error(slopes, count, exact_weights, own, at, base, squares)
                        put_panel(out, at, new, made_past)
                    at += columns
        for v in range(PANEL_VECTORS):
            for lane in range(squares.shape[1]):
                total += squares[v, lane]
        partial[block] = total
    fence()
