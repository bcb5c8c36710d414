"""Products of few samples with a large matrix, at the speed at which the matrix can be read.

Four rows of the matrix are taken at a time, so that a sum over them is read and written once for
four products; what belongs to the samples stays in the first cache.
"""

from __future__ import annotations

import numba

from .activations import FASTMATH

THIN = 12
"""Samples up to which these loops are faster than BLAS."""

_COLUMNS = 256
"""Columns in a block, as in `layers`."""

compiled = numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")


@compiled
def thin_times(first, last, signal, weights, out):
    """Write signal (n, p) weights (p, q), columns of blocks ``first`` to ``last``, into out."""
    n, rows = signal.shape
    columns = weights.shape[1]
    whole = rows - rows % 4
    for block in range(first, last):
        start = block * _COLUMNS
        size = min(_COLUMNS, columns - start)
        for i in range(n):
            target = out[i, start : start + size]
            for k in range(size):
                target[k] = 0.0
        for row in range(0, whole, 4):
            w0 = weights[row, start : start + size]
            w1 = weights[row + 1, start : start + size]
            w2 = weights[row + 2, start : start + size]
            w3 = weights[row + 3, start : start + size]
            for i in range(n):
                a0, a1 = signal[i, row], signal[i, row + 1]
                a2, a3 = signal[i, row + 2], signal[i, row + 3]
                target = out[i, start : start + size]
                for k in range(size):
                    target[k] += a0 * w0[k] + a1 * w1[k] + a2 * w2[k] + a3 * w3[k]
        for row in range(whole, rows):
            w0 = weights[row, start : start + size]
            for i in range(n):
                a0 = signal[i, row]
                target = out[i, start : start + size]
                for k in range(size):
                    target[k] += a0 * w0[k]


@compiled
def thin_pull(first, last, back, weights, out):
    """Write back (n, q) weights^T (q, p), columns of blocks ``first`` to ``last``, into out."""
    n, columns = back.shape
    for block in range(first, last):
        start = block * _COLUMNS
        end = min(start + _COLUMNS, weights.shape[0])
        for row in range(start, end):
            line = weights[row, :columns]
            for i in range(n):
                own = back[i, :columns]
                total = weights.dtype.type(0.0)
                for k in range(columns):
                    total += own[k] * line[k]
                out[i, row] = total
