"""The compiled stage of a low-storage method: rate, registers and outputs, block by block."""

from __future__ import annotations

import numba
import numpy as np

from .activations import FASTMATH
from .sweep import BLOCK, _block_outputs, _block_rate


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
def _block_registers(factors, fresh, base, velocity, start, size, memory, error, theta):
    """Move the block's registers on by the velocity at ``theta``; see `advance_registers`."""
    delta, gamma1, gamma2, beta, error_weight = factors
    for row in range(theta.shape[0]):
        row_base = base[row, start : start + size]
        row_velocity = velocity[row, :size]
        row_memory = memory[row, start : start + size]
        row_error = error[row, start : start + size]
        row_theta = theta[row, start : start + size]
        if fresh:
            for k in range(size):
                row_memory[k] = delta * (row_theta[k] - row_base[k])
        else:
            for k in range(size):
                row_memory[k] += delta * (row_theta[k] - row_base[k])
        for k in range(size):
            row_error[k] += error_weight * row_velocity[k]
        for k in range(size):
            increment = gamma1 * (row_theta[k] - row_base[k]) + gamma2 * row_memory[k]
            row_theta[k] = row_base[k] + (increment + beta * row_velocity[k])


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
def advance_registers(
    first, last, value, both, scale, x, mobility, residual, factors, fresh,
    theta, memory, base, error, partial,
):  # fmt: skip
    """Stage of a low-storage method for the blocks ``first`` to ``last`` (exclusive) of neurons.

    Parameters
    ----------
    first, last, value, both, scale, x, mobility, residual, partial
        As for `sweep`.
    factors : tuple of 5
        delta, gamma1, gamma2, beta, error_weight in the dtype of the state.
    fresh : bool
        The memory is written, not read.
    theta, memory, base, error : (1 + d, neurons) arrays
        Registers; the base is only read.
    """
    n_inputs = x.shape[1]
    neurons = theta.shape[1]
    z = np.empty(BLOCK, theta.dtype)
    s = np.empty(BLOCK, theta.dtype)
    ds = np.empty(BLOCK, theta.dtype)
    velocity = np.empty((1 + n_inputs, BLOCK), theta.dtype)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        _block_rate(both, scale, x, residual, theta, start, size, z, s, ds, velocity)
        for row in range(1 + n_inputs):
            for k in range(size):
                velocity[row, k] *= mobility[row]
        _block_registers(factors, fresh, base, velocity, start, size, memory, error, theta)
        _block_outputs(value, scale, x, theta, start, size, z, s, partial[block])
