"""Products of few samples with a large matrix, at the speed at which the matrix can be read.

Four rows of the matrix are taken at a time, so that a sum over them is read and written once for
four products, and two samples, so that what is read serves both.
"""

from __future__ import annotations

import numba

from .activations import FASTMATH

THIN = 8
"""Samples up to which these loops are faster than BLAS."""

COLUMNS = 1024
"""Columns of the result that `thin_times` works on at a time: two pages of a row of the matrix."""

ROWS = 256
"""The same for `thin_pull`, rows of the matrix; a multiple of four."""

compiled = numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")


@compiled
def thin_times(first, last, signal, weights, out):
    """Write signal (n, p) weights (p, q), columns of blocks ``first`` to ``last``, into out."""
    n, rows = signal.shape
    columns = weights.shape[1]
    whole = rows - rows % 4
    for block in range(first, last):
        start = block * COLUMNS
        size = min(COLUMNS, columns - start)
        for i in range(n):
            target = out[i, start : start + size]
            for k in range(size):
                target[k] = 0.0
        for row in range(0, whole, 4):
            w0 = weights[row, start : start + size]
            w1 = weights[row + 1, start : start + size]
            w2 = weights[row + 2, start : start + size]
            w3 = weights[row + 3, start : start + size]
            for i in range(0, n - 1, 2):
                a0, a1 = signal[i, row], signal[i, row + 1]
                a2, a3 = signal[i, row + 2], signal[i, row + 3]
                b0, b1 = signal[i + 1, row], signal[i + 1, row + 1]
                b2, b3 = signal[i + 1, row + 2], signal[i + 1, row + 3]
                target = out[i, start : start + size]
                other = out[i + 1, start : start + size]
                for k in range(size):
                    v0, v1, v2, v3 = w0[k], w1[k], w2[k], w3[k]
                    target[k] += a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
                    other[k] += b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3
            if n % 2:
                i = n - 1
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
    rows = weights.shape[0]
    for block in range(first, last):
        start = block * ROWS
        end = min(start + ROWS, rows)
        whole = end - (end - start) % 4
        for row in range(start, whole, 4):
            _four_rows(back, weights, row, out)
        for row in range(whole, end):
            line = weights[row, :columns]
            for i in range(n):
                own = back[i, :columns]
                total = weights.dtype.type(0.0)
                for k in range(columns):
                    total += own[k] * line[k]
                out[i, row] = total


# Compiled into its caller: of several copies, each reordered in its place, any could be called.
@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", forceinline=True)
def _four_rows(back, weights, row, out):
    """Products of all samples with four rows, piece by piece: pieces stay in the first cache."""
    n, columns = back.shape
    zero = weights.dtype.type(0.0)
    for i in range(n):
        for k in range(4):
            out[i, row + k] = zero
    for start in range(0, columns, COLUMNS):
        size = min(COLUMNS, columns - start)
        w0 = weights[row, start : start + size]
        w1 = weights[row + 1, start : start + size]
        w2 = weights[row + 2, start : start + size]
        w3 = weights[row + 3, start : start + size]
        for i in range(n):
            own = back[i, start : start + size]
            t0, t1, t2, t3 = zero, zero, zero, zero
            for k in range(size):
                b = own[k]
                t0 += b * w0[k]
                t1 += b * w1[k]
                t2 += b * w2[k]
                t3 += b * w3[k]
            out[i, row] += t0
            out[i, row + 1] += t1
            out[i, row + 2] += t2
            out[i, row + 3] += t3
