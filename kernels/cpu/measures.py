"""Compiled reductions over neurons: norms, the layers' Gram matrices, activity of neurons.

Like `sweep` they go over blocks of fixed size and leave one float64 row a block to the caller,
who adds the rows in block order.
"""

from __future__ import annotations

import numba
import numpy as np

from .activations import FASTMATH, call_both
from .lanes import LANE_BYTES, add_squared_difference, load, total_of_lanes
from .sweep import BLOCK, _preactivation


@numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
def squared_norms(first, last, theta, reference, neurons, partial):
    """Each row's sum over neurons of (theta - reference)^2, into partial[block, row].

    The ``reference`` is a state, or an array with no columns for zero.
    """
    rows = theta.shape[0]
    width = LANE_BYTES // theta.itemsize
    sums = np.empty((width // 8, 8))  # one vector in float64
    # Of the neurons that fill no vector, and what they are compared with: zeros fill it up.
    rest = np.zeros((2, 2 * width), theta.dtype)
    origin = reference.shape[1] > 0
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        whole = size - size % width
        for row in range(rows):
            sums[:] = 0.0
            for k in range(start, start + whole, width):
                if origin:
                    add_squared_difference(sums, 0, load(theta, row, k), load(reference, row, k))
                else:
                    add_squared_difference(sums, 0, load(theta, row, k), load(rest, 1, width))
            if whole < size:
                for k in range(whole, size):
                    rest[0, k - whole] = theta[row, start + k]
                    if origin:
                        rest[1, k - whole] = reference[row, start + k]
                add_squared_difference(sums, 0, load(rest, 0, 0), load(rest, 1, 0))
            total = 0.0
            for part in range(width // 8):
                total += total_of_lanes(sums, part)
            partial[block, row] = total


@numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
def add_by_layer(partial, layers):
    """Add up the blocks' sums of each row (blocks, 1 + d) into (output, input)."""
    layers[:] = 0.0
    for row in range(partial.shape[1]):
        total = 0.0
        for block in range(partial.shape[0]):
            total += partial[block, row]
        layers[min(row, 1)] += total


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True)
def squared_combination(first, last, slopes, weights, n_slopes, partial):
    """Each row's sum over neurons of (sum_j weights[j] slopes[j])^2, into partial[block, row]."""
    _, rows, neurons = slopes.shape
    increment = np.empty(BLOCK, np.float64)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        for row in range(rows):
            increment[:size] = 0.0
            for j in range(n_slopes):
                weight = weights[j]
                if weight != 0.0:
                    slope = slopes[j, row, start : start + size]
                    for k in range(size):
                        increment[k] += weight * np.float64(slope[k])
            total = 0.0
            for k in range(size):
                total += increment[k] * increment[k]
            partial[block, row] = total


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True)
def grams(first, last, group, both, scale, x, theta, partial):
    """Gram matrices of the two layers' derivatives of f / kappa, into partial[block // group].

    ``partial[g, 0, i, j]`` gathers sum_k s_ik s_jk and ``partial[g, 1, i, j]``
    sum_k a_k^2 s'_ik s'_jk (the factor x_i . x_j is the caller's), for i >= j, over groups of
    ``group`` blocks. ``first`` and ``last`` count groups.
    """
    n, d = x.shape
    neurons = theta.shape[1]
    n_blocks = (neurons + BLOCK - 1) // BLOCK
    z = np.empty(BLOCK, theta.dtype)
    s = np.empty((n, BLOCK), theta.dtype)
    ds = np.empty((n, BLOCK), theta.dtype)
    for g in range(first, last):
        partial[g] = 0.0
        for block in range(g * group, min((g + 1) * group, n_blocks)):
            start = block * BLOCK
            size = min(BLOCK, neurons - start)
            output = theta[0, start : start + size]
            for i in range(n):
                _preactivation(x[i], theta[1:], start, size, z)
                call_both(both, z, s[i], ds[i], size, scale)
                ds[i, :size] *= output
            for i in range(n):
                s_i, ds_i = s[i], ds[i]
                for j in range(i + 1):
                    s_j, ds_j = s[j], ds[j]
                    sum_s = 0.0
                    sum_ds = 0.0
                    for k in range(size):
                        sum_s += np.float64(s_i[k] * s_j[k])
                        sum_ds += np.float64(ds_i[k] * ds_j[k])
                    partial[g, 0, i, j] += sum_s
                    partial[g, 1, i, j] += sum_ds


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True)
def features(first, last, offset, both, scale, x, theta, values, slopes):
    """Derivatives of f / kappa with respect to a and, without the factor x, to w.

    Writes sigma(w_k . x_i) to ``values[i, k - offset]`` and a_k sigma'(w_k . x_i) to
    ``slopes[i, k - offset]``, (n, neurons) float64, for neurons k from ``offset`` on; ``first``
    and ``last`` count blocks from there.
    """
    z = np.empty(BLOCK, theta.dtype)
    s = np.empty(BLOCK, theta.dtype)
    ds = np.empty(BLOCK, theta.dtype)
    for block in range(first, last):
        column = block * BLOCK
        start = offset + column
        size = min(BLOCK, theta.shape[1] - start)
        output = theta[0, start : start + size]
        for i in range(x.shape[0]):
            _preactivation(x[i], theta[1:], start, size, z)
            call_both(both, z, s, ds, size, scale)
            row_values = values[i, column : column + size]
            row_slopes = slopes[i, column : column + size]
            for k in range(size):
                row_values[k] = s[k]
                row_slopes[k] = output[k] * ds[k]


@numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
def activity(first, last, x, theta, neurons, partial):
    """Neurons with w_k . x_i > 0 for every sample and for none, into partial[block].

    Only the first ``neurons`` neurons of ``theta`` count.
    """
    n = x.shape[0]
    z = np.empty(BLOCK, theta.dtype)
    count = np.empty(BLOCK, np.int64)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        count[:size] = 0
        for i in range(n):
            z[:size] = 0.0
            for j in range(x.shape[1]):
                weights, factor = theta[1 + j, start : start + size], x[i, j]
                for k in range(size):
                    z[k] += factor * weights[k]
            for k in range(size):
                count[k] += z[k] > 0.0
        everywhere = 0
        nowhere = 0
        for k in range(size):
            everywhere += count[k] == n
            nowhere += count[k] == 0
        partial[block, 0] = everywhere
        partial[block, 1] = nowhere


@numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
def invariant_drift(initial, theta, output_mobility, input_mobility):
    """Largest drift of a neuron's input_mobility a^2 - output_mobility |w|^2, relative to the sum.

    The sum is the initial or the present one, whichever is larger.
    """
    largest = 0.0
    for k in range(theta.shape[1]):
        drift, size = 0.0, 0.0
        for state, sign in ((initial, -1.0), (theta, 1.0)):
            a = np.float64(state[0, k])
            weights = 0.0
            for j in range(1, state.shape[0]):
                w = np.float64(state[j, k])
                weights += w * w
            output, inputs = input_mobility * a * a, output_mobility * weights
            drift += sign * (output - inputs)
            size = max(size, output + inputs)
        relative = abs(drift) / size if size > 0.0 else 0.0
        if relative > largest or relative != relative:
            largest = relative
    return largest
