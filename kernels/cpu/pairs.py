"""Gram matrices for piecewise linear activations: sums over neurons for all pairs of samples."""

from __future__ import annotations

import numpy as np

from .fused import BLOCK, compiled, copy_columns, gather, internal
from .lanes import (
    LANE_BYTES,
    load,
    load_rows,
    multiply_add,
    preactivation,
    scaled,
    store,
    where_active,
)


@compiled
def grams(first, last, group, x, like, leak, theta, partial):
    """Gram matrices of the two layers, as `flowsim.kernels.cpu.measures.grams` describes them."""
    n, rows = x.shape[0], theta.shape[0]
    width = LANE_BYTES // theta.itemsize
    buffers = np.empty((2, n, 4 * width), theta.dtype)
    rest = np.zeros((rows, 4 * width), theta.dtype)
    sums = np.empty((n * (n + 1), width), theta.dtype)
    total = np.empty((1, n * (n + 1)))
    gram_blocks(
        first, last, group, x, like, leak, theta, partial, buffers[0], buffers[1], rest, sums, total
    )


@internal
def gram_blocks(
    first, last, group, x, like, leak, theta, partial, values, signals, rest, sums, total
):
    """`grams` with its buffers given; ``rest`` holds zeros in the columns that nothing fills."""
    n, neurons = x.shape[0], theta.shape[1]
    n_blocks = (neurons + BLOCK - 1) // BLOCK
    quad = values.shape[1]
    for g in range(first, last):
        partial[g] = 0.0
        for block in range(g * group, min((g + 1) * group, n_blocks)):
            start = block * BLOCK
            size = min(BLOCK, neurons - start)
            whole = size - size % quad
            sums[:] = 0.0
            for column in range(start, start + whole, quad):
                features(theta, column, x, like, leak, values, signals)
                add_pairs(values, signals, sums)
            if whole < size:
                copy_columns(theta, start + whole, rest, 0, size - whole)
                features(rest, 0, x, like, leak, values, signals)
                add_pairs(values, signals, sums)
            gather(sums, total, 0)
            place = 0
            for i in range(n):
                for j in range(i + 1):
                    partial[g, 0, i, j] += total[0, place]
                    partial[g, 1, i, j] += total[0, place + 1]
                    place += 2


@internal
def features(theta, start, x, like, leak, values, signals):
    """sigma(z_i) and a sigma'(z_i) of as many neurons as ``values`` (n, neurons) has columns."""
    width = LANE_BYTES // theta.itemsize
    for column in range(0, values.shape[1], width):
        rows = load_rows(theta, start + column, like)
        low = scaled(leak, (rows[0],))[0]
        for i in range(x.shape[0]):
            z = preactivation(x, i, rows)
            store(values, i, column, where_active(z, z, scaled(leak, (z,))[0]))
            store(signals, i, column, where_active(z, rows[0], low))


@internal
def add_pairs(values, signals, sums):
    """Add the products of all pairs of samples, over four vectors of neurons, to ``sums``."""
    width = LANE_BYTES // values.itemsize
    place = 0
    for i in range(values.shape[0]):
        v0, v1 = load(values, i, 0), load(values, i, width)
        v2, v3 = load(values, i, 2 * width), load(values, i, 3 * width)
        s0, s1 = load(signals, i, 0), load(signals, i, width)
        s2, s3 = load(signals, i, 2 * width), load(signals, i, 3 * width)
        for j in range(i + 1):
            total = multiply_add(v0, load(values, j, 0), load(sums, place, 0))
            total = multiply_add(v1, load(values, j, width), total)
            total = multiply_add(v2, load(values, j, 2 * width), total)
            store(sums, place, 0, multiply_add(v3, load(values, j, 3 * width), total))
            total = multiply_add(s0, load(signals, j, 0), load(sums, place + 1, 0))
            total = multiply_add(s1, load(signals, j, width), total)
            total = multiply_add(s2, load(signals, j, 2 * width), total)
            store(sums, place + 1, 0, multiply_add(s3, load(signals, j, 3 * width), total))
            place += 2
