"""Passes for many inputs: two BLAS products a block of neurons.

z = x w and the pull x^T (e sigma'(z)) are matrix products over a block of neurons whose n x block
activations stay in the cache between the two; nothing of size n x neurons is stored. Each block is
worked on by one thread with single-threaded BLAS, so that no rounding depends on the number of
threads.

For piecewise linear activations an output pass leaves the signs of z behind, one bit each, with a
checksum of the weights they belong to. A rate at the same weights then needs one product instead
of two: `MatrixPasses` finds out by itself whether the signs are those of the weights it is given.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numba
import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import measures
from .activations import call_both, call_value, compile_activation
from .passes import GRAM_GROUP, Passes
from .sweep import move_registers
from .threads import one_blas_thread, run_blocks

compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


class _Buffers(NamedTuple):
    """What one thread works with; ``size`` columns of each are used."""

    state: np.ndarray
    velocity: np.ndarray
    z: np.ndarray
    s: np.ndarray
    ds: np.ndarray


@compiled
def combine_columns(base, slopes, n_slopes, weights, velocity, use_velocity, start, size, state):
    """Write base + (sum_j weights[j] slopes[j] (+ weights[n_slopes] velocity)) into state."""
    increment = np.empty(size, base.dtype)
    for row in range(base.shape[0]):
        increment[:] = 0.0
        for j in range(n_slopes):
            weight = weights[j]
            slope = slopes[j, row, start : start + size]
            for k in range(size):
                increment[k] += weight * slope[k]
        if use_velocity:
            weight = weights[n_slopes]
            own = velocity[row, :size]
            for k in range(size):
                increment[k] += weight * own[k]
        origin = base[row, start : start + size]
        target = state[row, :size]
        for k in range(size):
            target[k] = origin[k] + increment[k]


@compiled
def add_up_outputs(value, scale, z, output, size, s, partial):
    """partial[i] = sum_k a_k sigma(z_ik), in float64."""
    for i in range(z.shape[0]):
        call_value(value, z[i], s, size, scale)
        total = 0.0
        for k in range(size):
            total += np.float64(output[k] * s[k])
        partial[i] = total


@compiled
def signals(both, scale, z, residual, size, s, ds, own):
    """Replace z_ik by e_i sigma'(z_ik), and write sum_i e_i sigma(z_ik) into own."""
    own[:size] = 0.0
    for i in range(z.shape[0]):
        row = z[i]
        call_both(both, row, s, ds, size, scale)
        e = residual[i]
        for k in range(size):
            own[k] += e * s[k]
        for k in range(size):
            row[k] = e * ds[k]


@compiled
def keep_signs(z, size, signs):
    """signs[i, k // 8] holds the bits of z_ik > 0, for k below ``size``."""
    for i in range(z.shape[0]):
        row = z[i]
        for byte in range((size + 7) // 8):
            bits = 0
            for bit in range(min(8, size - 8 * byte)):
                bits |= (1 if row[8 * byte + bit] > 0.0 else 0) << bit
            signs[i, byte] = bits


@compiled
def signals_of_signs(signs, leak, residual, size, signal):
    """signal_ik = e_i sigma'(z_ik) from the signs of z."""
    for i in range(signal.shape[0]):
        e = residual[i]
        low = leak * e
        row, bits = signal[i], signs[i]
        for k in range(size):
            row[k] = e if (bits[k >> 3] >> (k & 7)) & 1 else low


@compiled
def move_by_pull(output, factors, weights, size, velocity, use_weights):
    """Turn the pull in velocity[1:] into velocities; velocity[0] is w . pull, or is there."""
    own = velocity[0, :size]
    if use_weights:
        own[:] = 0.0
        for j in range(weights.shape[0]):
            weight, pull = weights[j], velocity[1 + j, :size]
            for k in range(size):
                own[k] += weight[k] * pull[k]
    for k in range(size):
        own[k] *= factors[0]
    for j in range(1, velocity.shape[0]):
        pull = velocity[j, :size]
        for k in range(size):
            pull[k] *= factors[1] * output[k]


@compiled
def checksum(bits):
    """64 bits that change with any change of an array (rows, columns) of unsigned integers."""
    total = np.uint64(0)
    for row in range(bits.shape[0]):
        line = bits[row]
        part = np.uint64(0)
        for k in range(line.shape[0]):
            part += np.uint64(line[k]) * np.uint64(2 * k + 1)
        total = total * np.uint64(6364136223846793005) + part
    return total


class MatrixPasses(Passes):
    """Any activation; the work is in BLAS."""

    block = 512

    def __init__(self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> None:
        super().__init__(field, neurons, dtype, threads)
        self._activation = compile_activation(field.activation, dtype)
        self._scale = dtype.type(field.activation_scale)
        self._factors = -np.array([field.output_mobility, field.input_mobility], dtype)
        self._xt = np.ascontiguousarray(self.x.T)
        self._partial = np.empty((self.n_blocks, self.n_samples))
        self._nothing = np.empty(0, dtype)
        self._integer = np.dtype(f"u{dtype.itemsize}")
        self._own = threading.local()
        self._remembers = field.activation.leak is not None
        if self._remembers:
            self._leak = dtype.type(field.activation.leak)
            bytes_ = (self.block + 7) // 8
            self._signs = np.zeros((self.n_blocks, self.n_samples, bytes_), np.uint8)
            self._sums = np.zeros(self.n_blocks, np.uint64)
            self._known = np.zeros(self.n_blocks, np.bool_)

    def _buffers(self) -> _Buffers:
        """Buffers of the calling thread, made once: fresh memory costs more than the work in it."""
        if not hasattr(self._own, "buffers"):
            rows = 1 + self.n_inputs
            self._own.buffers = _Buffers(
                np.empty((rows, self.block), self.dtype),
                np.empty((rows, self.block), self.dtype),
                np.empty((self.n_samples, self.block), self.dtype),
                np.empty(self.block, self.dtype),
                np.empty(self.block, self.dtype),
            )
        return self._own.buffers

    def sweep(
        self, theta, residual=None, base=None, slopes=None, here=None, weights=None, slope=None,
        out=None, outputs=True,
    ):  # fmt: skip
        scaled = None
        if residual is not None:
            scaled = (residual * (self.field.multiplier / self.n_samples)).astype(self.dtype)
        with one_blas_thread():
            run_blocks(
                self._blocks, self.n_blocks, self.threads, 2.0 * self.work,
                theta, scaled, base, self.no_slopes if slopes is None else slopes,
                None if here is None else here.astype(self.dtype),
                None if weights is None else weights.astype(self.dtype),
                slope, out, outputs,
            )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def _blocks(
        self, first, last, theta, residual, base, slopes, here, weights, slope, out, outputs
    ):  # fmt: skip
        buffers = self._buffers()
        n_slopes = 0 if weights is None else len(weights) - (residual is not None)
        for block in range(first, last):
            start = block * self.block
            size = min(self.block, self.neurons - start)
            columns = slice(start, start + size)
            if residual is not None:
                if here is not None:
                    combine_columns(
                        base, slopes, n_slopes, here, buffers.velocity, False, start, size,
                        buffers.state,
                    )  # fmt: skip
                    state = buffers.state[:, :size]
                else:
                    state = theta[:, columns]
                self._rate(block, state, residual, buffers)
                if slope is not None:
                    slope[:, columns] = buffers.velocity[:, :size]
            if weights is not None:
                combine_columns(
                    base, slopes, n_slopes, weights, buffers.velocity, residual is not None,
                    start, size, buffers.state,
                )  # fmt: skip
                state = buffers.state[:, :size]
                if out is not None:
                    out[:, columns] = state
            elif outputs:
                state = theta[:, columns]
            if outputs:
                self._outputs(block, state, buffers)

    def _rate(self, block: int, state: np.ndarray, residual: np.ndarray, buffers: _Buffers) -> None:
        """Velocity of a block's neurons, into ``buffers.velocity``."""
        size = state.shape[1]
        z, velocity = buffers.z[:, :size], buffers.velocity[:, :size]
        if self._remembers:
            if not (self._known[block] and self._sums[block] == self._checksum(state)):
                np.matmul(self.x, state[1:], out=z)
                self._remember(block, state, z)
            signals_of_signs(self._signs[block], self._leak, residual, size, z)
        else:
            np.matmul(self.x, state[1:], out=z)
            signals(
                self._activation.both, self._scale, z, residual, size, buffers.s, buffers.ds,
                buffers.velocity[0],
            )  # fmt: skip
        np.matmul(self._xt, z, out=velocity[1:])
        move_by_pull(state[0], self._factors, state[1:], size, velocity, self._remembers)

    def _outputs(self, block: int, state: np.ndarray, buffers: _Buffers) -> None:
        size = state.shape[1]
        z = buffers.z[:, :size]
        np.matmul(self.x, state[1:], out=z)
        if self._remembers:
            self._remember(block, state, z)
        add_up_outputs(
            self._activation.value, self._scale, z, state[0], size, buffers.s, self._partial[block]
        )

    def _checksum(self, state: np.ndarray) -> np.uint64:
        return checksum(state[1:].view(self._integer))

    def _remember(self, block: int, state: np.ndarray, z: np.ndarray) -> None:
        """Keep the signs of z, and what tells the weights they belong to."""
        keep_signs(z, state.shape[1], self._signs[block])
        self._sums[block] = self._checksum(state)
        self._known[block] = True

    def registers(self, theta, residual, memory, base, error, stage, fresh):
        scaled = (residual * (self.field.multiplier / self.n_samples)).astype(self.dtype)
        with one_blas_thread():
            run_blocks(
                self._register_blocks, self.n_blocks, self.threads, 2.0 * self.work,
                theta, scaled, memory, base, error, stage.astype(self.dtype), fresh,
            )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def _register_blocks(
        self, first, last, theta, residual, memory, base, error, stage, fresh
    ):  # fmt: skip
        buffers = self._buffers()
        for block in range(first, last):
            start = block * self.block
            size = min(self.block, self.neurons - start)
            state = theta[:, start : start + size]
            self._rate(block, state, residual, buffers)
            move_registers(buffers.velocity, theta, memory, base, error, stage, fresh, start, size)
            self._outputs(block, state, buffers)

    def _run_grams(self, n_groups, work, theta, partial):
        run_blocks(
            measures.grams, n_groups, self.threads, work,
            GRAM_GROUP, self._activation.both, self._scale, self.x, theta, partial,
        )  # fmt: skip
