"""Panels of neurons: what they are copied from and to, and the products they take part in.

A panel of weights is copied out of the state, whose rows lie far apart, and everything else
happens to it in the cache; see `panel_passes`.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from .lanes import LANE_BYTES, load, multiply_add, store
from .tiles import PANEL_VECTORS, TILE_ROWS, spread, store_tile, tile

BLOCK = 192
"""Neurons whose sums for f share a row: whole panels of every size. Part of the results."""

LINES = PANEL_VECTORS + 1
"""Of the cache that a row of a panel can touch."""

compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)


_AT_HAND = 4 << 20
"""Bytes of x that are read fast enough however often."""

_STRIP_BYTES = 640 << 10
"""Of the weights in a strip of panels: they stay in the second level of the cache."""


class Fixed(NamedTuple):
    """What a network's passes have in common.

    Attributes
    ----------
    forward, backward : (groups, count, TILE_ROWS) arrays
        x and its transpose, as `flowsim.kernels.cpu.tiles.packed` orders them.
    factors : (2,) array
        Of the velocities of output and input weights.
    value, both : int
        Addresses of the activation's block functions.
    scale, leak : float
        sigma is replaced by sigma(scale z) / scale. The leak counts if ``piecewise``.
    piecewise : bool
        sigma(z) = z where z > 0 and leak z elsewhere: signs are all that the rate needs.
    strip : int
        Panels that are multiplied in turn, while a group of rows of x is at hand.
    """

    forward: np.ndarray
    backward: np.ndarray
    factors: np.ndarray
    value: int
    both: int
    scale: float
    leak: float
    piecewise: bool
    strip: int


class Signs(NamedTuple):
    """Signs of z, and the weights that they belong to.

    Attributes
    ----------
    bits : (panels, n, PANEL_VECTORS) array of uint8 or uint16
        A bit for each neuron of a vector: whether z is positive.
    sums : (panels,) uint64 array
        `checksum` of the weights.
    known : (panels,) bool array
        Whether there are any.
    """

    bits: np.ndarray
    sums: np.ndarray
    known: np.ndarray


class Panels(NamedTuple):
    """What one thread works with: a strip of some panels, one below the other in each array.

    Attributes
    ----------
    state, velocity, z : (strip * rows, width) arrays
        Those that are products have whole groups of rows.
    s, ds : (n, width) arrays
        sigma(z) and its derivative, of one panel.
    sums : (n * parts, 8) float64 array
        A block's sums for f, lane by lane.
    words : (PANEL_VECTORS, 8) uint64 array
        For `checksum`.
    strip : int
    """

    state: np.ndarray
    velocity: np.ndarray
    z: np.ndarray
    s: np.ndarray
    ds: np.ndarray
    sums: np.ndarray
    words: np.ndarray
    strip: int


def strip_length(x: np.ndarray) -> int:
    """Panels in a strip for inputs x (n, d). It changes no result.

    While x fits into a core's cache it can be read for each panel anew, and a panel has the cache
    to itself. A larger x is read through for several panels, as many as still fit.
    """
    vectors = 12 if x.nbytes > _AT_HAND else 3
    fitting = _STRIP_BYTES // (x.shape[1] * LANE_BYTES)
    return max(1, min(vectors, fitting) // PANEL_VECTORS)


@compiled
def make_panels(fixed, n):
    """Panels for n samples."""
    forward, backward, strip = fixed.forward, fixed.backward, fixed.strip
    lanes = LANE_BYTES // forward.itemsize
    width, dtype = PANEL_VECTORS * lanes, forward.dtype
    return Panels(
        np.empty((strip * (1 + forward.shape[1]), width), dtype),
        np.empty((strip * (1 + TILE_ROWS * backward.shape[0]), width), dtype),
        np.empty((strip * TILE_ROWS * forward.shape[0], width), dtype),
        np.empty((n, width), dtype),
        np.empty((n, width), dtype),
        np.empty((n * (lanes // 8), 8)),
        np.empty((PANEL_VECTORS, 8), np.uint64),
        strip,
    )


@compiled
def panel_of(stack, strip, p):
    """Panel p of a stack of panels."""
    rows = stack.shape[0] // strip
    return stack[p * rows : (p + 1) * rows]


class Fetched(NamedTuple):
    """States whose columns will be needed.

    Attributes
    ----------
    read, written : (1 + d, neurons) arrays
        Or of no columns, for none.
    read_start, start : int
        Where the columns begin in the one and in the other; they may lie beyond the end.
    """

    read: np.ndarray
    written: np.ndarray
    read_start: int
    start: int


@compiled
def take_columns(source, start, size, panel):
    """Copy neurons into a panel; zeros, which add nothing to any sum, fill it up."""
    rows, width = source.shape[0], LANE_BYTES // panel.itemsize
    if size == panel.shape[1]:
        for row in range(rows):
            for v in range(PANEL_VECTORS):
                store(panel, row, v * width, load(source, row, start + v * width))
        return
    for row in range(rows):
        for k in range(panel.shape[1]):
            panel[row, k] = source[row, start + k] if k < size else 0.0


@compiled
def put_columns(panel, target, start, size):
    """Copy a panel's neurons to where they belong."""
    rows, width = target.shape[0], LANE_BYTES // panel.itemsize
    if size == panel.shape[1]:
        for row in range(rows):
            for v in range(PANEL_VECTORS):
                store(target, row, start + v * width, load(panel, row, v * width))
        return
    for row in range(rows):
        for k in range(size):
            target[row, start + k] = panel[row, k]


@compiled
def combine(base, slopes, n_slopes, weights, velocity, use_velocity, start, size, state):
    """Write base + (sum_j weights[j] slopes[j] (+ weights[n_slopes] velocity)) into state."""
    rows, width = base.shape[0], LANE_BYTES // state.itemsize
    zero, one = state.dtype.type(0), state.dtype.type(1)
    if size < state.shape[1]:
        take_columns(base, start, size, state)
        for row in range(rows):
            for k in range(size):
                increment = zero
                for j in range(n_slopes):
                    increment += weights[j] * slopes[j, row, start + k]
                if use_velocity:
                    increment += weights[n_slopes] * velocity[row, k]
                state[row, k] += increment
        return
    stack = slopes.reshape(slopes.shape[0] * rows, slopes.shape[2])
    for row in range(rows):
        for v in range(PANEL_VECTORS):
            column = start + v * width
            increment = spread(zero)
            for j in range(n_slopes):
                slope = load(stack, j * rows + row, column)
                increment = multiply_add(spread(weights[j]), slope, increment)
            if use_velocity:
                own = load(velocity, row, v * width)
                increment = multiply_add(spread(weights[n_slopes]), own, increment)
            moved = multiply_add(spread(one), increment, load(base, row, column))
            store(state, row, v * width, moved)


@compiled
def multiply(matrix, stack, first, products, to, strip, count, fetched):
    """`packed` matrix times the rows from ``first`` on of each of ``count`` panels of a stack.

    It goes into the rows from ``to`` on of the panels of ``products``. Meanwhile as many panels
    of the states named by `Fetched` come into the cache: their rows lie far apart, and no
    processor guesses by itself which lines will be next.
    """
    inner, lanes = matrix.shape[1], LANE_BYTES // stack.itemsize
    rows, rows_of_product = stack.shape[0] // strip, products.shape[0] // strip
    read, written, read_start, start = fetched
    # As slowly as all rows still get their turn: memory takes only so many requests at a time.
    slower, height = 0, max(read.shape[0], written.shape[0])
    while inner >> (slower + 1) > 0 and (
        (height // (inner >> (slower + 1)) + 1) * LINES <= matrix.shape[0]
    ):
        slower += 1
    for group in range(matrix.shape[0]):
        # A line of some rows at a time. A panel that is not aligned has one line more.
        row, column = 1 + group // LINES * (inner >> slower), group % LINES * lanes
        for p in range(count):
            at = read_by = other = by = 0
            if row < read.shape[0] and read.shape[1] > 0:
                at, read_by = row * read.shape[1] + read_start + column, read.shape[1]
            if row < written.shape[0] and written.shape[1] > 0:
                other, by = row * written.shape[1] + start + column, written.shape[1]
            sums = tile(
                matrix, group, stack, p * rows + first, read, at, read_by, written, other, by,
                slower,
            )  # fmt: skip
            store_tile(products, p * rows_of_product + to + group * TILE_ROWS, sums)
            column += stack.shape[1]
