"""Ends of steps with embedded solutions, for piecewise linear activations: rate, errors, squares.

Either from all slopes, or, where the pass before has begun the sum already, from that and the last.
"""

from __future__ import annotations

import numpy as np

from .fused import (
    AHEAD,
    BLOCK,
    CACHED,
    add_outputs,
    combined,
    compiled,
    copy_columns,
    gather,
    internal,
    move,
    pulled,
)
from .lanes import (
    LANE_BYTES,
    add_scaled,
    add_squares,
    load_rows,
    store_rows,
    velocity,
)
from .prefetch import prefetch_rows, prefetch_slope
from .streams import fence, stream_rows, streamed


@internal
def measure_errors(
    start, count, to, like, theta, slopes, n_slopes, turn, weights, state, squares, row
):
    """Errors sum_j weights[j] slopes[j]: their squares, and theta minus them into ``state``."""
    width, ahead = LANE_BYTES // theta.itemsize, AHEAD // theta.itemsize
    far = theta.size * theta.itemsize > CACHED
    for column in range(start, start + count, width):
        if row == 0 and far:
            for j in range(n_slopes - 1):
                prefetch_slope(slopes, abs(turn - j), column + ahead, like)
        error = combined(slopes, n_slopes, turn, weights, column, like)
        add_squares(squares, row, error)
        rows = load_rows(theta, column, like)
        if row == 0:
            add_squares(squares, squares.shape[0] - 2, rows)
        store_rows(state, to + column - start, add_scaled(rows, -1.0, error))


@compiled
def error_sweep(
    first, last, x, pull, like, factors, theta, slopes, n_slopes, weights, leaky, partial,
    partial_squares, turn,
):  # fmt: skip
    """Rate at ``theta`` into the last slope, then the errors of embedded solutions, in one pass.

    Parameters
    ----------
    weights : (e, n_slopes) array
        The e errors are sum_j weights[., j] slopes[j].
    partial : (blocks, e, n or n + d) float64 array
        Receives the blocks' sums for f at theta minus the error.
    partial_squares : (blocks, 2 e + 2) float64 array
        Receives the blocks' squares of each error (output, input), and of ``theta``.
    """
    neurons, rows = theta.shape[1], theta.shape[0]
    width = LANE_BYTES // theta.itemsize
    pair = 2 * width
    n_errors, zero = weights.shape[0], np.intp(0)
    slope = slopes[abs(turn - (n_slopes - 1))]
    state = np.empty((rows, BLOCK), theta.dtype)
    rest = np.zeros((rows, pair), theta.dtype)
    rest_slopes = np.zeros((n_slopes, rows, pair), theta.dtype)
    sums = np.empty((partial.shape[2], width), theta.dtype)
    squares = np.empty((2 * n_errors + 2, width), theta.dtype)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        whole = size - size % pair
        filled = whole if whole == size else whole + pair
        move(
            start, whole, zero, x, pull, like, factors, theta, theta, slopes, 0, weights[0],
            weights[0], weights[0], slope, slope, slope, state,
            False, True, True, False, False, False, 0, False,
        )  # fmt: skip
        if whole < size:
            copy_columns(theta, start + whole, rest, 0, size - whole)
            for j in range(n_slopes - 1):
                copy_columns(slopes[abs(turn - j)], start + whole, rest_slopes[j], 0, size - whole)
            move(
                zero, pair, zero, x, pull, like, factors, rest, rest, rest_slopes, 0, weights[0],
                weights[0], weights[0], rest_slopes[n_slopes - 1], rest, rest, state,
                False, True, True, False, False, False, 0, False,
            )  # fmt: skip
            copy_columns(rest_slopes[n_slopes - 1], 0, slope, start + whole, size - whole)
        squares[:] = 0.0
        for e in range(n_errors):
            measure_errors(
                start, whole, zero, like, theta, slopes, n_slopes, turn, weights[e], state, squares,
                2 * e,
            )  # fmt: skip
            if whole < size:
                measure_errors(
                    zero, pair, whole, like, rest, rest_slopes, n_slopes, zero, weights[e], state,
                    squares, 2 * e,
                )  # fmt: skip
            sums[:] = 0.0
            add_outputs(0, filled, x, like, state, leaky, sums)
            gather(sums, partial[block], e)
        gather(squares, partial_squares, block)


@internal
def end_errors(
    start, count, to, x, pull, like, factors, theta, begun, weight, slope, squares, state, past
):
    """Rates at ``theta`` into ``slope``; the errors begun + weight slope as `measure_errors`."""
    width, ahead = LANE_BYTES // theta.itemsize, AHEAD // theta.itemsize
    far = theta.size * theta.itemsize > CACHED
    past_slope = past and streamed(slope)
    for column in range(start, start + count, width):
        if far:
            prefetch_rows(theta, column + ahead, like)
            prefetch_rows(begun, column + ahead, like)
        rows = load_rows(theta, column, like)
        moving = velocity(rows, pulled(x, pull, like, rows), factors[0], factors[1])
        if past_slope:
            stream_rows(slope, column, moving)
        else:
            store_rows(slope, column, moving)
        error = load_rows(begun, column, like)
        if weight != 0.0:
            error = add_scaled(error, weight, moving)
        add_squares(squares, 0, error)
        add_squares(squares, 2, rows)
        store_rows(state, to + column - start, add_scaled(rows, -1.0, error))


@compiled
def end_sweep(
    first, last, x, pull, like, factors, theta, begun, weight, slope, leaky, partial,
    partial_squares,
):  # fmt: skip
    """`error_sweep` of one embedded solution, all of whose error but weight slope is in ``begun``.

    ``partial`` is (blocks, n or n + d), ``slope`` (1 + d, neurons) receives the rate at ``theta``.
    """
    neurons, rows = theta.shape[1], theta.shape[0]
    width = LANE_BYTES // theta.itemsize
    pair = 2 * width
    state = np.empty((rows, BLOCK), theta.dtype)
    rest = np.zeros((3, rows, pair), theta.dtype)
    sums = np.empty((partial.shape[1], width), theta.dtype)
    squares, zero = np.empty((4, width), theta.dtype), np.intp(0)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        whole = size - size % pair
        filled = whole if whole == size else whole + pair
        squares[:] = 0.0
        end_errors(
            start, whole, zero, x, pull, like, factors, theta, begun, weight, slope, squares, state,
            True,
        )  # fmt: skip
        if whole < size:
            left, column = size - whole, start + whole
            copy_columns(theta, column, rest[0], 0, left)
            copy_columns(begun, column, rest[1], 0, left)
            end_errors(
                zero, pair, whole, x, pull, like, factors, rest[0], rest[1], weight, rest[2],
                squares, state, False,
            )  # fmt: skip
            copy_columns(rest[2], 0, slope, column, left)
        sums[:] = 0.0
        add_outputs(0, filled, x, like, state, leaky, sums)
        gather(sums, partial, block)
        gather(squares, partial_squares, block)
    fence()
