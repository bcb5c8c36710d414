"""Passes for any activation: one compiled loop over blocks of neurons.

Every stage of every method is this sweep with some of its parts switched on, block by block
while the block is in cache:

1. *rate*: the neurons' velocities at ``theta``, or at a combination of slopes, for a residual,
2. *combine*: the next state ``base + sum_j weights[j] slopes[j] (+ weights[-1] velocity)``,
3. *outputs*: the contribution of the block to f at the state just made.

Blocks have a fixed size and each writes its own row of ``partial``; the caller adds the rows in
block order, so neither the number of threads nor their timing changes a bit of the result.
"""

from __future__ import annotations

import numba
import numpy as np

from .activations import FASTMATH, call_both, call_value

BLOCK = 256
"""Neurons in a block: its vectors stay in the first-level cache. Part of the results: bits depend
on it."""


# What several loops call is compiled into each of them. Left to itself, every one would bring a
# copy, reordered as fits its place, and which of them is called would depend on what was loaded
# first: on whether the code was compiled in this process or comes from the cache on disk.
_INTERNAL = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inlined = numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", **_INTERNAL)
_exact = numba.njit(nogil=True, cache=True, error_model="numpy", **_INTERNAL)

# The loops below index one-dimensional views of the block from 0 to size: only then can the
# compiler rule out negative indices, which wrap around in Python, and use vector instructions.


@_inlined
def _preactivation(point, weights, start, size, z):
    """Write z[k] = sum_j point[j] weights[j, start + k] for the block's neurons."""
    d = point.shape[0]
    first_row = weights[0, start : start + size]
    first = point[0]
    if d == 1:
        for k in range(size):
            z[k] = first * first_row[k]
    else:
        # The first two coordinates at once: one input with bias needs no second loop.
        second_row = weights[1, start : start + size]
        second = point[1]
        for k in range(size):
            z[k] = first * first_row[k] + second * second_row[k]
    for j in range(2, d):
        row = weights[j, start : start + size]
        factor = point[j]
        for k in range(size):
            z[k] += factor * row[k]


@_inlined
def _block_rate(both, scale, x, mobility, residual, theta, start, size, z, s, ds, velocity):
    """Write mobility sum_i e_i grad f_i / kappa of the block's neurons into velocity[:, :size]."""
    n, d = x.shape
    output = theta[0, start : start + size]
    output_velocity = velocity[0, :size]
    for row in range(1 + d):
        row_velocity = velocity[row]
        for k in range(size):
            row_velocity[k] = 0.0
    for i in range(n):
        _preactivation(x[i], theta[1:], start, size, z)
        call_both(both, z, s, ds, size, scale)
        e = residual[i]
        # Short loops over few arrays: with many, the compiler gives up proving them distinct.
        for k in range(size):
            output_velocity[k] += e * s[k]
        for k in range(size):
            ds[k] *= e * output[k]
        for j in range(d):
            row_velocity = velocity[1 + j, :size]
            factor = x[i, j]
            for k in range(size):
                row_velocity[k] += factor * ds[k]
    for row in range(1 + d):
        factor = mobility[row]
        row_velocity = velocity[row, :size]
        for k in range(size):
            row_velocity[k] *= factor


@_inlined
def _block_combine(
    base, slopes, weights, n_slopes, use_velocity, velocity, start, size, increment, state
):
    """Write base + (sum_j weights[j] slopes[j] (+ weights[n_slopes] velocity)) into state."""
    for row in range(base.shape[0]):
        # The increment is added up first: next to the state its small terms would lose digits.
        if use_velocity:
            weight = weights[n_slopes]
            row_velocity = velocity[row, :size]
            for k in range(size):
                increment[k] = weight * row_velocity[k]
        else:
            for k in range(size):
                increment[k] = 0.0
        for j in range(n_slopes):
            weight = weights[j]
            if weight != 0.0:
                slope = slopes[j, row, start : start + size]
                for k in range(size):
                    increment[k] += weight * slope[k]
        row_base = base[row, start : start + size]
        row_state = state[row, :size]
        for k in range(size):
            row_state[k] = row_base[k] + increment[k]


@_inlined
def _block_outputs(value, scale, x, theta, start, size, z, s, partial):
    """Write sum_k a_k sigma(w_k . x_i) over the block into partial[i], added up in float64."""
    output = theta[0, start : start + size]
    for i in range(x.shape[0]):
        _preactivation(x[i], theta[1:], start, size, z)
        call_value(value, z, s, size, scale)
        total = 0.0
        for k in range(size):
            total += np.float64(output[k] * s[k])
        partial[i] = total


@_inlined
def _block_copy(source, first, target, start, size):
    """Copy columns of all rows."""
    for row in range(source.shape[0]):
        row_source = source[row, first : first + size]
        row_target = target[row, start : start + size]
        for k in range(size):
            row_target[k] = row_source[k]


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True)
def sweep(
    first, last, value, both, scale, x, mobility, residual, theta,
    base, slopes, n_slopes, here, weights, slope, out, partial,
    use_here, use_rate, use_slope, use_combine, use_out, use_outputs,
):  # fmt: skip
    """Sweep over the blocks ``first`` to ``last`` (exclusive) of neurons.

    Parameters
    ----------
    first, last : int
        Blocks of `BLOCK` neurons; the last of all may be shorter.
    value, both : int
        Addresses of the activation's block functions.
    scale : float
        sigma is replaced by sigma(scale z) / scale.
    x : (n, d) array
        Inputs.
    mobility : (1 + d,) array
        Factor of each row of the velocity: -mobility kappa / n.
    residual : (n,) array
        e where the rate is taken; read with ``use_rate``.
    theta : (1 + d, neurons) array
        State: row 0 the output weights, the others the input weights. Not read with ``use_here``.
    base, slopes, weights : (1 + d, neurons), (stages, 1 + d, neurons), (stages + 1,) arrays
        Of the combination; the weights include the step size. The first ``n_slopes`` slopes count,
        then, with ``use_rate``, the velocity just computed.
    here : (n_slopes,) array
        With ``use_here`` the rate is taken at base + sum_j here[j] slopes[j].
    slope : (1 + d, neurons) array
        Where the velocity goes with ``use_slope``.
    out : (1 + d, neurons) array
        Where the combined state goes with ``use_out``; it may be ``theta`` itself.
    partial : (blocks, n) float64 array
        Each block's part of f / kappa, with ``use_outputs``.
    use_here, use_rate, use_slope, use_combine, use_out, use_outputs : bool
        The parts that are switched on. Without ``use_combine`` the outputs are those of ``theta``.
    """
    n_samples, n_inputs = x.shape
    source = theta if theta.shape[1] > 0 else base
    neurons = source.shape[1]
    z = np.empty(BLOCK, source.dtype)
    s = np.empty(BLOCK, source.dtype)
    ds = np.empty(BLOCK, source.dtype)
    velocity = np.empty((1 + n_inputs, BLOCK), source.dtype)
    state = np.empty((1 + n_inputs, BLOCK), source.dtype)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        if use_rate:
            if use_here:
                _block_combine(base, slopes, here, n_slopes, False, velocity, start, size, z, state)
                _block_rate(both, scale, x, mobility, residual, state, 0, size, z, s, ds, velocity)
            else:
                _block_rate(
                    both, scale, x, mobility, residual, theta, start, size, z, s, ds, velocity
                )
            if use_slope:
                _block_copy(velocity, 0, slope, start, size)
        if use_combine:
            _block_combine(
                base, slopes, weights, n_slopes, use_rate, velocity, start, size, z, state
            )
            if use_out:
                _block_copy(state, 0, out, start, size)
        if use_outputs:
            if use_combine:
                _block_outputs(value, scale, x, state, 0, size, z, s, partial[block])
            else:
                _block_outputs(value, scale, x, theta, start, size, z, s, partial[block])


@_exact
def move_registers(velocity, theta, memory, base, error, stage, fresh, start, size):
    """The registers of a low-storage method for a block's neurons, given their velocity."""
    for row in range(theta.shape[0]):
        moving = velocity[row, :size]
        here = theta[row, start : start + size]
        remembered = memory[row, start : start + size]
        origin = base[row, start : start + size]
        wrong = error[row, start : start + size]
        for k in range(size):
            away = here[k] - origin[k]
            past = stage[0] * away
            if not fresh:
                past += remembered[k]
            remembered[k] = past
            wrong[k] += stage[4] * moving[k]
            here[k] = origin[k] + (stage[1] * away + stage[2] * past + stage[3] * moving[k])


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True)
def register_sweep(
    first, last, value, both, scale, x, mobility, residual, theta, memory, base, error, stage,
    fresh, partial,
):  # fmt: skip
    """Stage of a low-storage method, in place; see `TwoLayerKernels.advance_registers`.

    ``stage`` (5,) is (delta, gamma1, gamma2, beta, error_weight) in the state's dtype.
    """
    n_inputs = x.shape[1]
    z = np.empty(BLOCK, theta.dtype)
    s = np.empty(BLOCK, theta.dtype)
    ds = np.empty(BLOCK, theta.dtype)
    velocity = np.empty((1 + n_inputs, BLOCK), theta.dtype)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, theta.shape[1] - start)
        _block_rate(both, scale, x, mobility, residual, theta, start, size, z, s, ds, velocity)
        move_registers(velocity, theta, memory, base, error, stage, fresh, start, size)
        _block_outputs(value, scale, x, theta, start, size, z, s, partial[block])


@_exact
def move_recurrence(velocity, theta, previous, base, first, stage, out, start, size):
    """The next state of a three-term recurrence for a block's neurons, given their velocity."""
    for row in range(theta.shape[0]):
        moving = velocity[row, :size]
        here = theta[row, start : start + size]
        past = previous[row, start : start + size]
        origin = base[row, start : start + size]
        slope = first[row, start : start + size]
        new = out[row, start : start + size]
        for k in range(size):
            change = stage[0] * (here[k] - origin[k]) + stage[1] * (past[k] - origin[k])
            new[k] = origin[k] + (change + stage[2] * moving[k] + stage[3] * slope[k])


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True)
def recurrence_sweep(
    first_block, last, value, both, scale, x, mobility, residual, theta, previous, base, first,
    stage, out, partial,
):  # fmt: skip
    """Stage of a three-term recurrence; see `TwoLayerKernels.advance_recurrence`.

    ``stage`` (4,) is (mu, nu, beta, delta) in the state's dtype.
    """
    n_inputs = x.shape[1]
    z = np.empty(BLOCK, theta.dtype)
    s = np.empty(BLOCK, theta.dtype)
    ds = np.empty(BLOCK, theta.dtype)
    velocity = np.empty((1 + n_inputs, BLOCK), theta.dtype)
    for block in range(first_block, last):
        start = block * BLOCK
        size = min(BLOCK, theta.shape[1] - start)
        _block_rate(both, scale, x, mobility, residual, theta, start, size, z, s, ds, velocity)
        move_recurrence(velocity, theta, previous, base, first, stage, out, start, size)
        _block_outputs(value, scale, x, out, start, size, z, s, partial[block])
