"""The weights' own curvature in two-layer networks: a small symmetric matrix a neuron, factorised.

At fixed g = n dR/df a neuron's velocity depends on its own weights alone, so that the derivative D
of the rate is one (1 + d) x (1 + d) block a neuron, D = M S with S symmetric,

    S = -(kappa/n) sum_i g_i [ 0              sigma'(z_i) x_i^T         ]
                             [ sigma'(z_i) x_i  a sigma''(z_i) x_i x_i^T ].

What implicit methods solve with is A = I - s D = M^(1/2) B M^(-1/2), B = I - s M^(1/2) S M^(1/2),
and B = L L^T is what is kept: in packed rows, the inverse of each pivot's root in its place. So
A^(-1) M = M^(1/2) B^(-1) M^(1/2) is symmetric and Phi^T A^(-1) M Phi = G G^T, the columns of G^T
being L^(-1) M^(1/2) Phi. A neuron whose B is not safely positive definite counts as straight,
B = I: any approximation of the Jacobian leaves a W-method its order.

Like `sweep` the loops go over blocks of fixed size; sums are left to the caller, a row a block.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from flowsim.kernels.interface import LEAST_PIVOT, TwoLayerField

from .activations import (
    FASTMATH,
    call_both,
    call_value,
    compile_activation,
    compile_second_derivative,
)
from .streams import empty_in_lines
from .sweep import _preactivation
from .threads import run_blocks

BLOCK = 128
"""Neurons in a block. Part of the results: bits depend on it."""

_FEATURES = 1 << 14
"""Numbers of G that are multiplied at once, for the cache: fixes the order of the sum."""

_compiled = numba.njit(
    nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True
)
# See `sweep` for why what several loops call is compiled into each of them.
_INTERNAL = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inlined = numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", **_INTERNAL)


class CpuNeuronBlocks:
    """`flowsim.kernels.interface.NeuronBlocks` in compiled loops.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
        Of the state and the factors; a neuron's own matrix is worked out in float64.
    threads : int
    """

    def __init__(self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> None:
        self._field, self._neurons, self._threads = field, neurons, threads
        n, d = field.x.shape
        self._x = np.ascontiguousarray(field.x, dtype)
        self._both = compile_activation(field.activation, dtype)
        self._second, self._keep = compile_second_derivative(field.activation, dtype)
        self._scale = dtype.type(field.activation_scale)
        # Square roots of the mobilities of each row of a state.
        self._roots = np.sqrt(np.array([field.output_mobility, *[field.input_mobility] * d]))
        self._factors = empty_in_lines(((1 + d) * (2 + d) // 2, neurons), dtype)
        self._n_blocks = -(-neurons // BLOCK)
        self._work = float(BLOCK * n * (2 * d + 6))

    def prepare(self, theta: np.ndarray, residual: np.ndarray, size: float) -> np.ndarray:
        field, (n, d) = self._field, self._field.x.shape
        pull = residual * (size * field.multiplier / n)
        blocks = max(8, _FEATURES // (n * (1 + d) * BLOCK))
        features = np.empty((n, 1 + d, min(blocks * BLOCK, self._neurons)))
        gram = np.zeros((n, n))
        for first in range(0, self._n_blocks, blocks):
            count = min(blocks * BLOCK, self._neurons - first * BLOCK)
            run_blocks(
                _prepare, -(-count // BLOCK), self._threads, (1 + d) * self._work,
                first * BLOCK, self._both.both, self._second, self._scale, self._x, theta, pull,
                self._roots, field.multiplier, self._factors, features,
            )  # fmt: skip
            features[:, :, count:] = 0.0
            flat = features.reshape(n, -1)
            gram += flat @ flat.T
        return gram

    def solve(
        self, theta: np.ndarray, slopes: np.ndarray, weights: np.ndarray, out: np.ndarray
    ) -> np.ndarray:
        partial = np.empty((self._n_blocks, len(self._x)))
        run_blocks(
            _solve, self._n_blocks, self._threads, self._work,
            self._both.both, self._scale, self._x, theta, slopes, weights, self._roots,
            self._factors, out, partial,
        )  # fmt: skip
        return np.asarray(self._field.multiplier * np.add.reduce(partial, axis=0))

    def subtract(
        self, theta: np.ndarray, cotangent: np.ndarray, out: np.ndarray, fresh: bool = False
    ) -> None:
        run_blocks(
            _subtract, self._n_blocks, self._threads, self._work,
            self._both.both, self._scale, self._x, theta, cotangent * self._field.multiplier,
            self._roots, self._factors, out, fresh,
        )  # fmt: skip


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
def _prepare(
    first, last, offset, both, second, scale, x, theta, pull, roots, multiplier, factors, features
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
            call_both(both, z, s[i], ds[i], size, scale)
            if second != 0:
                call_value(second, z, dds[i], size, scale)
        _fill(x, pull, output, roots, ds, dds, second != 0, size, matrix)
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


@_compiled
def _solve(first, last, both, scale, x, theta, slopes, weights, roots, factors, out, partial):
    """A^(-1) sum_j weights[j] slopes[j] into ``out``, and Phi^T of it / kappa into ``partial``."""
    n, d = x.shape
    z, dz, s, ds = np.empty((4, BLOCK), theta.dtype)
    v = np.empty((1 + d, BLOCK))
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, theta.shape[1] - start)
        v[:, :size] = 0.0
        for row in range(1 + d):
            own = v[row]
            # What is frozen has no velocity.
            inverse = 1.0 / roots[row] if roots[row] > 0.0 else 0.0
            for j in range(weights.shape[0]):
                factor, slope = weights[j] * inverse, slopes[j, row, start : start + size]
                for k in range(size):
                    own[k] += factor * slope[k]
        _forward(factors, start, size, v)
        _backward(factors, start, size, v)
        for row in range(1 + d):
            own, target, root = v[row], out[row, start : start + size], roots[row]
            for k in range(size):
                target[k] = root * own[k]
        output, moving = theta[0, start : start + size], out[0, start : start + size]
        for i in range(n):
            _preactivation(x[i], theta[1:], start, size, z)
            _preactivation(x[i], out[1:], start, size, dz)
            call_both(both, z, s, ds, size, scale)
            total = 0.0
            for k in range(size):
                total += np.float64(moving[k] * s[k] + output[k] * ds[k] * dz[k])
            partial[block, i] = total


@_compiled
def _subtract(first, last, both, scale, x, theta, cotangent, roots, factors, out, fresh):
    """Take A^(-1) M Phi v from ``out``, or from 0 if ``fresh``; ``cotangent`` is kappa v."""
    n, d = x.shape
    z, s, ds = np.empty((3, BLOCK), theta.dtype)
    v = np.empty((1 + d, BLOCK))
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, theta.shape[1] - start)
        output = theta[0, start : start + size]
        v[:, :size] = 0.0
        for i in range(n):
            _preactivation(x[i], theta[1:], start, size, z)
            call_both(both, z, s, ds, size, scale)
            own, factor = v[0], cotangent[i] * roots[0]
            for k in range(size):
                own[k] += factor * s[k]
            for j in range(d):
                own, factor = v[1 + j], cotangent[i] * roots[1 + j] * x[i, j]
                for k in range(size):
                    own[k] += factor * output[k] * ds[k]
        _forward(factors, start, size, v)
        _backward(factors, start, size, v)
        for row in range(1 + d):
            own, target, root = v[row], out[row, start : start + size], roots[row]
            for k in range(size):
                target[k] = (0.0 if fresh else np.float64(target[k])) - root * own[k]
