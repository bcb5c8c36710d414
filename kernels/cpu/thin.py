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

COLUMNS = 1024
"""Columns of the result that `thin_times` works on at a time: two pages of a row of the matrix."""

ROWS = 64
"""The same for `thin_pull`, rows of the matrix; a multiple of those taken at a time."""

_FOUR = (0, 0, 0, 0)
_ONE = (0,)
"""Groups of samples."""

compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


@compiled
def thin_times(first, last, signal, weights, out):
    """Write signal (n, p) weights (p, q), columns of blocks ``first`` to ``last``, into out."""
    n, rows = signal.shape
    columns, width = weights.shape[1], LANE_BYTES // weights.itemsize
    grouped, whole = n - n % 4, rows - rows % STRIP
    for block in range(first, last):
        start = block * COLUMNS
        end = min(start + COLUMNS, columns)
        vectors = (end - start) // width
        rest = start + vectors * width
        for i in range(n):
            out[i, start:end] = 0.0
        for row in range(0, whole, STRIP):
            for i in range(0, grouped, 4):
                add_rows_times(signal, i, weights, row, start, vectors, out, _FOUR)
            for i in range(grouped, n):
                add_rows_times(signal, i, weights, row, start, vectors, out, _ONE)
        # What fills neither a vector nor four rows.
        for row in range(rows):
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
