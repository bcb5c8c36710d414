"""The side of size n in compiled code: losses, and what a small tangent kernel says of a step.

Nothing here is reordered by the compiler, so the loops that run whole networks in compiled code
(`flowsim.kernels.cpu.members`) and those that come from Python get the same bits from it.
"""

from __future__ import annotations

import math

import numba
import numpy as np

compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)

_CROSSING_TOLERANCE = 5e-7
"""In log R, of the moment at which R falls below a bound."""

_MAX_GUESSES = 60

_LAGUERRE_STEPS = 60
"""More than enough: from above it converges cubically, to a multiple eigenvalue linearly."""


@compiled
def half_mean_square(residual):
    """R = 1/(2n) sum e^2; infinity if it is not a number, so that it never compares well."""
    total = 0.0
    for e in residual:
        total += e * e
    loss = 0.5 * total / residual.shape[0]
    return loss if loss == loss else math.inf


@compiled
def all_finite(values):
    """Whether every number is finite."""
    for value in values:  # noqa: SIM110 - Numba compiles loops, not generators
        if not math.isfinite(value):
            return False
    return True


@compiled
def largest_size(values):
    """The largest |v|; infinity if one is not a number."""
    largest = 0.0
    for value in values:
        largest = max(largest, abs(value)) if value == value else math.inf
    return largest


@compiled
def scaled_norm(layers, sizes, rtol, residual, scale):
    """The largest of layers / (rtol sizes) and of the root mean square of e over ``scale``.

    A layer without error counts as 0 whatever its size, as does e for a scale of 0. NaN if a layer
    is.
    """
    largest = math.sqrt(2.0 * half_mean_square(residual)) / scale if scale > 0.0 else 0.0
    for layer in range(layers.shape[0]):
        if layers[layer] != 0.0:
            relative = layers[layer] / (rtol * sizes[layer])
            if relative != relative:
                return relative
            largest = max(largest, relative)
    return largest


@compiled
def log_loss(residual):
    """log R."""
    return math.log(half_mean_square(residual))


@compiled
def make_pull(residual, factor, x, leak, pull):
    """Fill the table (n + 1, d) of what each sample adds to a neuron's pull.

    Row i is (1 - leak) e_i x_i factor, for a neuron that is active on sample i; row n is
    leak sum_i e_i x_i factor, the pull on a neuron that is active nowhere.
    """
    n, d = x.shape
    for j in range(d):
        nowhere = 0.0
        for i in range(n):
            one = residual[i] * factor * x[i, j]
            pull[i, j] = (1.0 - leak) * one
            nowhere += one
        pull[n, j] = leak * nowhere


@compiled
def outputs_of_sums(sums, x, leak, leaky, f):
    """f (n,) from the sums of `add_outputs` over all neurons, both without kappa."""
    n, d = x.shape
    for i in range(n):
        if leaky:
            straight = 0.0
            for j in range(d):
                straight += x[i, j] * sums[n + j]
            f[i] = (1.0 - leak) * sums[i] + leak * straight
        else:
            f[i] = sums[i]


@compiled
def add_blocks(partial, total):
    """Add the blocks' rows (blocks, k) up in the order of the blocks."""
    total[:] = 0.0
    for block in range(partial.shape[0]):
        for i in range(total.shape[0]):
            total[i] += partial[block, i]


@compiled
def outputs_of_blocks(partial, sums, x, leak, leaky, f):
    """Both of these at once: for a small network each call from Python counts."""
    add_blocks(partial, sums)
    outputs_of_sums(sums, x, leak, leaky, f)


# The root of a function on [0, 1], positive at 0 and negative at 1, by regula falsi with the
# Illinois rule. The caller evaluates it: a bracket is (low, value, high, value, side, count).


@compiled
def start_bracket(at_zero, at_one):
    """Begin with the values at both ends."""
    return np.array([0.0, at_zero, 1.0, at_one, 0.0, 0.0])


@compiled
def guess(bracket):
    """Where to look next: well inside the bracket."""
    low, high = bracket[0], bracket[2]
    width = high - low
    x = low + width * (bracket[1] / (bracket[1] - bracket[3]))
    return min(max(x, low + 0.01 * width), high - 0.01 * width)


@compiled
def narrow(bracket, x, value):
    """Take in the value at the latest guess; True once it is good to 5e-7."""
    bracket[5] += 1.0
    if abs(value) <= _CROSSING_TOLERANCE or bracket[5] >= _MAX_GUESSES:
        return True
    # An end that stays where it is twice in a row loses half its weight.
    if value > 0.0:
        bracket[0], bracket[1] = x, value
        if bracket[4] > 0.0:
            bracket[3] *= 0.5
        bracket[4] = 1.0
    else:
        bracket[2], bracket[3] = x, value
        if bracket[4] < 0.0:
            bracket[1] *= 0.5
        bracket[4] = -1.0
    return False


@compiled
def layer_speed(grams, layer, mobility, residual):
    """|d theta_l / d time| of a layer: mobility sqrt(e^T G_l e) / n, for grams (layers, n, n)."""
    n = residual.shape[0]
    total = 0.0
    for i in range(n):
        for j in range(n):
            total += residual[i] * grams[layer, i, j] * residual[j]
    return mobility * math.sqrt(max(total, 0.0)) / n


@compiled
def weighted_sum(grams, mobilities, matrix):
    """K = sum_l mobilities[l] grams[l], into ``matrix``."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            total = 0.0
            for layer in range(mobilities.shape[0]):
                total += mobilities[layer] * grams[layer, i, j]
            matrix[i, j] = total


@compiled
def tridiagonalise(matrix, diagonal, off_diagonal):
    """Householder's reduction of a symmetric matrix, which is overwritten."""
    n = matrix.shape[0]
    v, p = np.empty(n), np.empty(n)
    for k in range(n - 2):
        scale = 0.0
        for i in range(k + 1, n):
            scale += matrix[i, k] * matrix[i, k]
        norm = math.sqrt(scale)
        off_diagonal[k] = norm
        if scale - matrix[k + 1, k] * matrix[k + 1, k] == 0.0:
            off_diagonal[k] = abs(matrix[k + 1, k])
            continue
        for i in range(k + 1, n):
            v[i] = matrix[i, k]
        v[k + 1] += math.copysign(norm, v[k + 1])
        square = 0.0
        for i in range(k + 1, n):
            square += v[i] * v[i]
        dot = 0.0
        for i in range(k + 1, n):
            total = 0.0
            for j in range(k + 1, n):
                total += matrix[i, j] * v[j]
            p[i] = 2.0 * total / square
            dot += p[i] * v[i]
        for i in range(k + 1, n):
            p[i] -= dot / square * v[i]
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                matrix[i, j] -= v[i] * p[j] + p[i] * v[j]
    for k in range(n):
        diagonal[k] = matrix[k, k]
    if n > 1:
        off_diagonal[n - 2] = abs(matrix[n - 1, n - 2])


@compiled
def largest_eigenvalue(matrix):
    """Largest eigenvalue of a symmetric matrix, to rounding; the matrix is overwritten.

    Laguerre's iteration on the characteristic polynomial of its tridiagonal form, downwards from
    a bound on the spectrum: with real roots only it cannot pass the largest.
    Meant for small matrices, of up to some dozens of rows.
    """
    n = matrix.shape[0]
    if n == 1:
        return matrix[0, 0]
    diagonal, off_diagonal = np.empty(n), np.zeros(n)
    tridiagonalise(matrix, diagonal, off_diagonal)
    size, upper = 0.0, -math.inf
    for k in range(n):
        radius = off_diagonal[k] + (off_diagonal[k - 1] if k > 0 else 0.0)
        size = max(size, abs(diagonal[k]) + radius)
        upper = max(upper, diagonal[k] + radius)
    if not (size > 0.0 and math.isfinite(size)):
        return upper
    x, last = upper / size, math.inf
    for _ in range(_LAGUERRE_STEPS):
        p, p1, p2 = _characteristic(diagonal, off_diagonal, size, x)
        if not p > 0.0:  # above all roots it is positive: rounding has arrived
            break
        g = p1 / p
        h = g * g - p2 / p
        step = n / (g + math.sqrt(max((n - 1) * (n * h - g * g), 0.0)))
        if not 1e-16 < step < last:
            break
        x -= step
        last = step
    return x * size


@compiled
def _characteristic(diagonal, off_diagonal, size, x):
    """det(x - T / size) of a tridiagonal T with its first and second derivatives."""
    p, p1, p2 = 1.0, 0.0, 0.0
    q, q1, q2 = 0.0, 0.0, 0.0
    for k in range(diagonal.shape[0]):
        a = x - diagonal[k] / size
        b = off_diagonal[k - 1] / size if k > 0 else 0.0
        b *= b
        p, p1, p2, q, q1, q2 = (
            a * p - b * q,
            a * p1 + p - b * q1,
            a * p2 + 2.0 * p1 - b * q2,
            p,
            p1,
            p2,
        )
    return p, p1, p2


@compiled
def factorise(matrix, size, factor):
    """Cholesky's L of 1 + size matrix, with inverse diagonals, into the lower triangle.

    False if it is not positive definite. Meant for small matrices, of up to some dozens of rows.
    """
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            left = size * matrix[i, j]
            if i == j:
                left += 1.0
            for k in range(j):
                left -= factor[i, k] * factor[j, k]
            if j < i:
                factor[i, j] = left * factor[j, j]
            elif left > 0.0:
                factor[i, i] = 1.0 / math.sqrt(left)
            else:
                return False
    return True


@compiled
def solve(factor, v):
    """Make of v what solves the system that `factorise` has factorised."""
    n = v.shape[0]
    for i in range(n):
        left = v[i]
        for k in range(i):
            left -= factor[i, k] * v[k]
        v[i] = left * factor[i, i]
    for i in range(n - 1, -1, -1):
        left = v[i]
        for k in range(i + 1, n):
            left -= factor[k, i] * v[k]
        v[i] = left * factor[i, i]
