"""Gram matrices for piecewise linear activations: sums over neurons for all pairs of samples.

The sums for a few samples stay in registers over the neurons of a block; those for more are
added to memory, four vectors of neurons at a time.
"""

from __future__ import annotations

import numpy as np

from .fused import BLOCK, compiled, copy_columns, gather, inlined, internal
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
from .pair_code import PAIRS, add_signals, add_values, no_pairs, store_pairs
from .signs import GROUP, load_points


@compiled
def grams(first, last, group, x, like, leak, theta, partial):
    """Gram matrices of the two layers, as `flowsim.kernels.cpu.measures.grams` describes them."""
    n, rows = x.shape[0], theta.shape[0]
    points = fill_up(x)
    width = LANE_BYTES // theta.itemsize
    buffers = np.empty((2, n, 4 * width), theta.dtype)
    rest = np.zeros((rows, 4 * width), theta.dtype)
    sums = np.empty((max(n * (n + 1), 2 * PAIRS), width), theta.dtype)
    total = np.empty((1, n * (n + 1)))
    gram_blocks(
        first, last, group, x, points, like, leak, theta, partial, buffers[0], buffers[1], rest,
        sums, total,
    )  # fmt: skip


@internal
def fill_up(x):
    """The samples with zeros after them, to whole groups."""
    points = np.zeros(((x.shape[0] + GROUP - 1) // GROUP * GROUP, x.shape[1]), x.dtype)
    copy_columns(x, 0, points, 0, x.shape[1])
    return points


@internal
def gram_blocks(
    first, last, group, x, points, like, leak, theta, partial, values, signals, rest, sums, total
):
    """`grams` with its buffers given; ``rest`` holds zeros in the columns that nothing fills.

    ``points`` are the samples ``x`` as `fill_up` makes them.
    """
    n, neurons = x.shape[0], theta.shape[1]
    n_blocks = (neurons + BLOCK - 1) // BLOCK
    quad = values.shape[1]
    for g in range(first, last):
        partial[g] = 0.0
        for block in range(g * group, min((g + 1) * group, n_blocks)):
            start = block * BLOCK
            size = min(BLOCK, neurons - start)
            whole = size - size % quad
            if whole < size:
                copy_columns(theta, start + whole, rest, 0, size - whole)
            if n <= GROUP:
                add_few(start, whole, theta, rest, size - whole, points, like, leak, sums)
            else:
                sums[:] = 0.0
                for column in range(start, start + whole, quad):
                    features(theta, column, x, like, leak, values, signals)
                    add_pairs(values, signals, sums)
                if whole < size:
                    features(rest, 0, x, like, leak, values, signals)
                    add_pairs(values, signals, sums)
            gather(sums, total, 0)
            place = 0
            for i in range(n):
                for j in range(i + 1):
                    partial[g, 0, i, j] += total[0, place]
                    partial[g, 1, i, j] += total[0, place + 1]
                    place += 2


@inlined
def add_few(start, whole, theta, rest, left, points, like, leak, sums):
    """Sums for one group of samples over ``whole`` neurons, and the ``left`` ones in ``rest``."""
    width = LANE_BYTES // theta.itemsize
    group = load_points(points, 0, like)
    for layer in range(2):
        found = no_pairs(theta)
        for column in range(0, whole + left, width):
            if column < whole:
                rows = load_rows(theta, start + column, like)
            else:
                rows = load_rows(rest, column - whole, like)
            if layer == 0:
                found = add_values(group, rows, leak, found)
            else:
                found = add_signals(group, rows, leak, found)
        store_pairs(sums, layer, found)


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
