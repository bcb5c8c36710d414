"""Products of few samples with a large matrix, at the speed at which the matrix can be read.

Four rows of the matrix are taken at a time, so that a sum over them is read and written once for
four products, and four samples, so that what is read serves them all.
"""

from __future__ import annotations

import numba

from .lanes import LANE_BYTES
from .strips import ROWS as STRIP
from .strips import add_rows_times, pull_rows

THIN = 24
"""Samples up to which these loops are faster than BLAS."""

COLUMNS = 1008
"""Columns that `thin_times` works on at a time: two pages of a row of the matrix, whole panels of
`flowsim.kernels.cpu.tiles`."""

ROWS = 64
"""The same for `thin_pull`, rows of the matrix; a multiple of those taken at a time."""

_FOUR = (0, 0, 0, 0)
_ONE = (0,)
"""Groups of samples."""

compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)


@compiled
def thin_times(first, last, signal, weights, out):
    """Write signal (n, p) weights (p, q), columns of blocks ``first`` to ``last``, into out."""
    for block in range(first, last):
        start = block * COLUMNS
        end = min(start + COLUMNS, weights.shape[1])
        for i in range(signal.shape[0]):
            out[i, start:end] = 0.0
        add_times(signal, weights, 0, weights.shape[0], start, end, out)


@compiled
def add_times(signal, weights, above, below, start, end, out):
    """Add signal (n, p) weights (p, q) to out, over rows ``above`` to ``below`` of the weights.

    Of columns ``start`` to ``end``. Every sum is in the order of the rows; all at once or some
    after the others are the same, if all but the last are a whole number of strips.
    """
    n, width = signal.shape[0], LANE_BYTES // weights.itemsize
    grouped, whole = n - n % 4, below - (below - above) % STRIP
    vectors = (end - start) // width
    rest = start + vectors * width
    for row in range(above, whole, STRIP):
        for i in range(0, grouped, 4):
            add_rows_times(signal, i, weights, row, start, vectors, out, _FOUR)
        for i in range(grouped, n):
            add_rows_times(signal, i, weights, row, start, vectors, out, _ONE)
    # What fills neither a vector nor a strip.
    for row in range(above, below):
        for i in range(n):
            for k in range(start if row >= whole else rest, end):
                out[i, k] += signal[i, row] * weights[row, k]


@compiled
def thin_pull(first, last, back, weights, out):
    """Write back (n, q) weights^T (q, p), columns of blocks ``first`` to ``last``, into out."""
    n, columns = back.shape
    rows, width = weights.shape[0], LANE_BYTES // weights.itemsize
    grouped, vectors = n - n % 4, columns // width
    for block in range(first, last):
        start = block * ROWS
        end = min(start + ROWS, rows)
        whole = end - (end - start) % STRIP
        for row in range(start, whole, STRIP):
            for i in range(0, grouped, 4):
                pull_rows(back, i, weights, row, vectors, out, _FOUR)
            for i in range(grouped, n):
                pull_rows(back, i, weights, row, vectors, out, _ONE)
        for row in range(start, end):
            for i in range(n):
                total = out[i, row] if row < whole else weights.dtype.type(0.0)
                for k in range(vectors * width if row < whole else 0, columns):
                    total += back[i, k] * weights[row, k]
                out[i, row] = total
