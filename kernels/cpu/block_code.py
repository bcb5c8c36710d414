"""The loops of `neuron_blocks`: each neuron's block factorised, solved with, and what follows.

Like `sweep` they go over blocks of fixed size; sums are left to the caller, a row a block.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from flowsim.kernels.interface import LEAST_PIVOT

from .activations import FASTMATH, call_both, call_derivatives
from .samples import add_blocks, factorise, solve
from .sweep import _block_combine, _block_copy, _block_outputs, _preactivation

BLOCK = 256
"""Neurons in a block. Part of the results: bits depend on it."""

_compiled = numba.njit(
    nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True
)
# See `sweep` for why what several loops call is compiled into each of them.
_INTERNAL = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inlined = numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", **_INTERNAL)


@_inlined
def _at(row, column):
    """Where an entry of a lower triangle is among the packed ones."""
    return row * (row + 1) // 2 + column


@_inlined
def _fill(x, pull, output, roots, slopes, curvatures, curved, size, matrix):
    """Write the lower triangles of B; ``pull`` is s kappa g/n."""
    n, d = x.shape
    matrix[:, :size] = 0.0
    for i in range(n):
        slope, curvature = slopes[i], curvatures[i]
        for j in range(d):
            entry, factor = matrix[_at(1 + j, 0)], pull[i] * x[i, j] * roots[0] * roots[1 + j]
            for k in range(size):
                entry[k] += factor * slope[k]
            if not curved:
                continue
            for other in range(j + 1):
                entry = matrix[_at(1 + j, 1 + other)]
                factor = pull[i] * x[i, j] * x[i, other] * roots[1 + j] * roots[1 + other]
                for k in range(size):
                    entry[k] += factor * curvature[k]
    for j in range(d):
        for other in range(j + 1):
            entry = matrix[_at(1 + j, 1 + other)]
            for k in range(size):
                entry[k] *= output[k]
    for row in range(1 + d):
        entry = matrix[_at(row, row)]
        for k in range(size):
            entry[k] += 1.0


@_inlined
def _factorise(matrix, rows, size, lowest):
    """Replace B by L with inverse diagonals; by I for the neurons whose pivots are too small."""
    lowest[:size] = np.inf
    for row in range(rows):
        for column in range(row + 1):
            entry = matrix[_at(row, column)]
            for t in range(column):
                left, right = matrix[_at(row, t)], matrix[_at(column, t)]
                for k in range(size):
                    entry[k] -= left[k] * right[k]
            if column < row:
                inverse = matrix[_at(column, column)]
                for k in range(size):
                    entry[k] *= inverse[k]
            else:
                for k in range(size):
                    lowest[k] = entry[k] if not entry[k] > lowest[k] else lowest[k]
                    entry[k] = 1.0 / math.sqrt(max(entry[k], LEAST_PIVOT))
    for k in range(size):
        if not lowest[k] >= LEAST_PIVOT:  # it is so for few
            for row in range(rows):
                for column in range(row + 1):
                    matrix[_at(row, column), k] = 1.0 if column == row else 0.0


@_inlined
def _forward(factors, start, size, v):
    """v = L^(-1) v for the block's neurons."""
    for row in range(v.shape[0]):
        own = v[row]
        for column in range(row):
            factor, other = factors[_at(row, column), start : start + size], v[column]
            for k in range(size):
                own[k] -= factor[k] * other[k]
        inverse = factors[_at(row, row), start : start + size]
        for k in range(size):
            own[k] *= inverse[k]


@_inlined
def _backward(factors, start, size, v):
    """v = L^(-T) v for the block's neurons."""
    for row in range(v.shape[0] - 1, -1, -1):
        own = v[row]
        for later in range(row + 1, v.shape[0]):
            factor, other = factors[_at(later, row), start : start + size], v[later]
            for k in range(size):
                own[k] -= factor[k] * other[k]
        inverse = factors[_at(row, row), start : start + size]
        for k in range(size):
            own[k] *= inverse[k]


@_compiled
def prepare(
    first,
    last,
    offset,
    both,
    derivatives,
    scale,
    x,
    theta,
    pull,
    roots,
    multiplier,
    factors,
    features,
):
    """Factors of B, and M^(1/2) Phi solved with L into ``features`` (n, 1 + d, neurons).

    For neurons from ``offset`` on, where ``features`` begins.
    """
    n, d = x.shape
    z = np.empty(BLOCK, theta.dtype)
    s, ds, dds = np.empty((3, n, BLOCK), theta.dtype)
    matrix, v, lowest = (
        np.empty((factors.shape[0], BLOCK)),
        np.empty((1 + d, BLOCK)),
        np.empty(BLOCK),
    )
    for block in range(first, last):
        column = block * BLOCK
        start = offset + column
        size = min(BLOCK, theta.shape[1] - start)
        output = theta[0, start : start + size]
        for i in range(n):
            _preactivation(x[i], theta[1:], start, size, z)
            if derivatives != 0:
                call_derivatives(derivatives, z, s[i], ds[i], dds[i], size, scale)
            else:
                call_both(both, z, s[i], ds[i], size, scale)
        _fill(x, pull, output, roots, ds, dds, derivatives != 0, size, matrix)
        _factorise(matrix, 1 + d, size, lowest)
        for entry in range(factors.shape[0]):
            kept, found = factors[entry, start : start + size], matrix[entry]
            for k in range(size):
                kept[k] = found[k]
        for i in range(n):
            own, factor, values = v[0], multiplier * roots[0], s[i]
            for k in range(size):
                own[k] = factor * values[k]
            values = ds[i]
            for j in range(d):
                own, factor = v[1 + j], multiplier * roots[1 + j] * x[i, j]
                for k in range(size):
                    own[k] = factor * output[k] * values[k]
            _forward(factors, start, size, v)
            for row in range(1 + d):
                own, feature = v[row], features[i, row, column : column + size]
                for k in range(size):
                    feature[k] = own[k]


@_inlined
def _add_push(factor, point, s, ds, size, v):
    """Add to v what a sample's s, sigma' contribute to Phi, but for a_k, times ``factor``."""
    own = v[0]
    for k in range(size):
        own[k] += factor * s[k]
    for j in range(point.shape[0]):
        own, weight = v[1 + j], factor * point[j]
        for k in range(size):
            own[k] += weight * ds[k]


@_inlined
def _end_push(output, roots, size, v):
    """Make of sums of `_add_push` M^(1/2) Phi times the factors."""
    own, root = v[0], roots[0]
    for k in range(size):
        own[k] *= root
    for row in range(1, v.shape[0]):
        own, root = v[row], roots[row]
        for k in range(size):
            own[k] *= root * output[k]


@_compiled
def rate(
    first, last, both, scale, x, theta, at, residual, slopes, weights, roots, multiplier, factors,
    features, stage, kept, partial,
):  # fmt: skip
    """See `flowsim.kernels.block_interface.NeuronBlocks.rate`; Phi^T w goes into ``partial``."""
    n, d = x.shape
    z, dz, s, ds = np.empty((4, BLOCK), theta.dtype)
    v = np.empty((1 + d, BLOCK))
    out = slopes[weights.shape[0]]
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, theta.shape[1] - start)
        end = start + size
        v[:, :size] = 0.0
        for i in range(n):
            factor = -multiplier / n * residual[i]
            if kept:
                _add_push(factor, x[i], stage[0, i, start:end], stage[1, i, start:end], size, v)
            else:
                _preactivation(x[i], at[1:], start, size, z)
                call_both(both, z, s, ds, size, scale)
                _add_push(factor, x[i], s, ds, size, v)
        _end_push(at[0, start:end], roots, size, v)
        for row in range(1 + d):
            own = v[row]
            # What is frozen has no velocity.
            inverse = 1.0 / roots[row] if roots[row] > 0.0 else 0.0
            for j in range(weights.shape[0]):
                factor, slope = weights[j] * inverse, slopes[j, row, start:end]
                for k in range(size):
                    own[k] += factor * slope[k]
        _forward(factors, start, size, v)
        if kept:
            _products(features, start, size, v, partial[block])
        _backward(factors, start, size, v)
        for row in range(1 + d):
            own, target, root = v[row], out[row, start:end], roots[row]
            for k in range(size):
                target[k] = root * own[k]
        if kept:
            continue
        output, moving = theta[0, start:end], out[0, start:end]
        for i in range(n):
            _preactivation(x[i], theta[1:], start, size, z)
            _preactivation(x[i], out[1:], start, size, dz)
            call_both(both, z, s, ds, size, scale)
            total = 0.0
            for k in range(size):
                total += np.float64(moving[k] * s[k] + output[k] * ds[k] * dz[k])
            partial[block, i] = multiplier * total


@_inlined
def _products(features, start, size, v, out):
    """G v of the block's neurons."""
    for i in range(features.shape[0]):
        total = 0.0
        for row in range(v.shape[0]):
            feature, own = features[i, row, start : start + size], v[row]
            for k in range(size):
                total += feature[k] * own[k]
        out[i] = total


@_compiled
def advance(
    first, last, value, both, scale, x, theta, cotangent, slopes, weights, fresh, roots, multiplier,
    factors, features, stage, kept, out, partial,
):  # fmt: skip
    """See `flowsim.kernels.block_interface.NeuronBlocks.advance`; f goes into ``partial``.

    The weights include the step.
    """
    n, d = x.shape
    z, s, ds = np.empty((3, BLOCK), theta.dtype)
    state, v = np.empty((1 + d, BLOCK), theta.dtype), np.empty((1 + d, BLOCK))
    n_slopes = weights.shape[0]
    last_slope = slopes[n_slopes - 1]
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, theta.shape[1] - start)
        end = start + size
        v[:, :size] = 0.0
        if kept:
            for i in range(n):
                factor = cotangent[i]
                for row in range(1 + d):
                    own, feature = v[row], features[i, row, start:end]
                    for k in range(size):
                        own[k] += factor * feature[k]
        else:
            for i in range(n):
                _preactivation(x[i], theta[1:], start, size, z)
                call_both(both, z, s, ds, size, scale)
                _add_push(multiplier * cotangent[i], x[i], s, ds, size, v)
            _end_push(theta[0, start:end], roots, size, v)
            _forward(factors, start, size, v)
        _backward(factors, start, size, v)
        for row in range(1 + d):
            own, target, root = v[row], last_slope[row, start:end], roots[row]
            for k in range(size):
                target[k] = (0.0 if fresh else np.float64(target[k])) - root * own[k]
        _block_combine(theta, slopes, weights, n_slopes, False, v, start, size, z, state)
        _block_copy(state, 0, out, start, size)
        if kept:
            output = state[0, :size]
            for i in range(n):
                values = stage[0, i, start:end]
                _preactivation(x[i], state[1:], 0, size, z)
                call_both(both, z, values, stage[1, i, start:end], size, scale)
                total = 0.0
                for k in range(size):
                    total += np.float64(output[k] * values[k])
                partial[block, i] = total
        else:
            _block_outputs(value, scale, x, state, 0, size, z, s, partial[block])
        for i in range(n):
            partial[block, i] *= multiplier


@_compiled
def gram(features, matrix):
    """G G^T for G (n, weights), two rows by two: half the reading."""
    n = features.shape[0]
    for i in range(0, n, 2):
        i2 = min(i + 1, n - 1)
        first, second = features[i], features[i2]
        for j in range(0, i + 1, 2):
            j2 = min(j + 1, n - 1)
            third, fourth = features[j], features[j2]
            a, b, c, d = 0.0, 0.0, 0.0, 0.0
            for k in range(features.shape[1]):
                a += first[k] * third[k]
                b += first[k] * fourth[k]
                c += second[k] * third[k]
                d += second[k] * fourth[k]
            matrix[i, j] = matrix[j, i] = a
            matrix[i, j2] = matrix[j2, i] = b
            matrix[i2, j] = matrix[j, i2] = c
            matrix[i2, j2] = matrix[j2, i2] = d


@numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
def take(
    value, both, derivatives, scale, x, y, theta, residual, rows, mixing, size, step, slopes,
    work, out, roots, multiplier, factors, features, stage, partial, images,
):  # fmt: skip
    """See `NeuronBlocks.take` in `flowsim.kernels.block_interface`; ``residual`` becomes the new e.

    False if the n x n system is not positive definite.
    """
    n, n_blocks, stages = x.shape[0], partial.shape[0], rows.shape[0]
    factor, matrix = np.empty((n, n)), np.empty((n, n))
    pull = (size * multiplier / n) * residual
    prepare(
        0, n_blocks, 0, both, derivatives, scale, x, theta, pull, roots, multiplier, factors,
        features,
    )  # fmt: skip
    gram(features.reshape(n, -1), matrix)
    if not factorise(matrix, size / n, factor):
        return False
    push = np.empty(n)
    for i in range(stages):
        y_i = images[i]
        if i == 0:
            for j in range(n):
                push[j] = residual[j] / n
            for j in range(n):
                y_i[j] = 0.0
                for k in range(n):
                    y_i[j] -= matrix[j, k] * push[k]
        else:
            rate(
                0, n_blocks, both, scale, x, theta, work, residual, slopes, mixing[i, :i], roots,
                multiplier, factors, features, stage, True, partial,
            )  # fmt: skip
            add_blocks(partial, y_i)
            push[:] = 0.0
        solve(factor, y_i)
        for j in range(n):
            push[j] += size / n * y_i[j]
        at = out if i == stages - 1 else work
        weights = (step * rows[i, : i + 1]).astype(theta.dtype)
        advance(
            0, n_blocks, value, both, scale, x, theta, push, slopes, weights, i == 0, roots,
            multiplier, factors, features, stage, True, at, partial,
        )  # fmt: skip
        add_blocks(partial, residual)
        for j in range(n):
            residual[j] -= y[j]
    return True
