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
from .activations import FASTMATH, call_both, call_value, compile_activation
from .lanes import LANE_BYTES, positive_bits
from .passes import GRAM_GROUP, Passes
from .sweep import move_registers
from .threads import one_blas_thread, run_blocks

compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
# The loops below take whole arrays and the place of the block in them: of a view the compiler does
# not know that its rows are contiguous.


_SPREAD = 2654435761
"""Odd: its multiples differ in all their bits."""


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


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
def add_up_outputs(value, scale, z, state, start, size, s, partial):
    """partial[i] = sum_k a_k sigma(z_ik), in float64."""
    output = state[0, start : start + size]
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
def keep_signs(z, signs):
    """signs[i, k // 8] holds the bits of z_ik > 0."""
    width = LANE_BYTES // z.itemsize
    for i in range(z.shape[0]):
        for byte in range(0, signs.shape[1], width // 8):
            bits = positive_bits(z, i, 8 * byte)
            signs[i, byte] = bits & 255
            if width == 16:
                signs[i, byte + 1] = bits >> 8


@compiled
def signals_of_signs(signs, leak, residual, size, signal):
    """signal_ik = e_i sigma'(z_ik) from the signs of z."""
    for i in range(signal.shape[0]):
        e = residual[i]
        low = leak * e
        row = signal[i]
        for byte in range((size + 7) // 8):
            bits = np.int32(signs[i, byte])
            for bit in range(8):
                row[8 * byte + bit] = e if (bits >> bit) & 1 else low


@compiled
def move_by_pull(state, start, factors, size, velocity, to, use_weights):
    """Turn the pull in velocity[1:] into velocities; velocity[0] is w . pull, or is there.

    The block has its columns from ``start`` on in ``state``, from ``to`` on in ``velocity``.
    """
    output, own = state[0, start : start + size], velocity[0, to : to + size]
    if use_weights:
        own[:] = 0.0
    lever = np.empty(size, state.dtype)
    for k in range(size):
        lever[k] = factors[1] * output[k]
    for j in range(1, velocity.shape[0]):
        weight, pull = state[j, start : start + size], velocity[j, to : to + size]
        for k in range(size):
            if use_weights:
                own[k] += weight[k] * pull[k]
            pull[k] *= lever[k]
    for k in range(size):
        own[k] *= factors[0]


@compiled
def checksum(bits, start, size):
    """64 bits that change with any change of some columns of the rows from 1 on."""
    total = np.uint64(0)
    for row in range(1, bits.shape[0]):
        line = bits[row, start : start + size]
        part = np.uint64(0)
        for k in range(size):
            # The place goes in too: weights that change their places are others.
            part += np.uint64(line[k]) ^ np.uint64(k * _SPREAD)
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
                np.zeros((self.n_samples, self.block), self.dtype),
                np.empty(self.block, self.dtype),
                np.empty(self.block, self.dtype),
            )
        return self._own.buffers

    def sweep(
        self, theta, residual=None, base=None, slopes=None, here=None, weights=None, slope=None,
        out=None, outputs=True,
    ):  # fmt: skip
        scaled = None if residual is None else self._scaled(residual)
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
                state, at = theta, start
                if here is not None:
                    combine_columns(
                        base, slopes, n_slopes, here, buffers.velocity, False, start, size,
                        buffers.state,
                    )  # fmt: skip
                    state, at = buffers.state, 0
                alone = slope is not None and weights is None
                velocity, to = (slope, start) if alone else (buffers.velocity, 0)
                self._rate(block, state, at, size, residual, buffers, velocity, to)
                if slope is not None and not alone:
                    slope[:, columns] = velocity[:, :size]
            if weights is not None:
                combine_columns(
                    base, slopes, n_slopes, weights, buffers.velocity, residual is not None,
                    start, size, buffers.state,
                )  # fmt: skip
                state, at = buffers.state, 0
                if out is not None:
                    out[:, columns] = state[:, :size]
            else:
                state, at = theta, start
            if outputs:
                self._outputs(block, state, at, size, buffers)

    def _rate(
        self,
        block: int,
        state: np.ndarray,
        start: int,
        size: int,
        residual: np.ndarray,
        buffers: _Buffers,
        velocity: np.ndarray,
        to: int,
    ) -> None:
        """Velocities of a block's neurons, into ``velocity`` from column ``to`` on."""
        z, weights = buffers.z[:, :size], state[1:, start : start + size]
        if self._remembers:
            known = self._known[block] and self._sums[block] == self._checksum(state, start, size)
            if not known:
                np.matmul(self.x, weights, out=z)
                self._remember(block, state, start, size, buffers.z)
            signals_of_signs(self._signs[block], self._leak, residual, size, buffers.z)
        else:
            np.matmul(self.x, weights, out=z)
            signals(
                self._activation.both, self._scale, buffers.z, residual, size, buffers.s,
                buffers.ds, velocity[0, to : to + size],
            )  # fmt: skip
        np.matmul(self._xt, z, out=velocity[1:, to : to + size])
        move_by_pull(state, start, self._factors, size, velocity, to, self._remembers)

    def _outputs(
        self, block: int, state: np.ndarray, start: int, size: int, buffers: _Buffers
    ) -> None:
        np.matmul(self.x, state[1:, start : start + size], out=buffers.z[:, :size])
        if self._remembers:
            self._remember(block, state, start, size, buffers.z)
        add_up_outputs(
            self._activation.value, self._scale, buffers.z, state, start, size, buffers.s,
            self._partial[block],
        )  # fmt: skip

    def _checksum(self, state: np.ndarray, start: int, size: int) -> np.uint64:
        return checksum(state.view(self._integer), start, size)

    def _remember(
        self, block: int, state: np.ndarray, start: int, size: int, z: np.ndarray
    ) -> None:
        """Keep the signs of z, and what tells the weights they belong to."""
        keep_signs(z, self._signs[block])
        self._sums[block] = self._checksum(state, start, size)
        self._known[block] = True

    def registers(self, theta, residual, memory, base, error, stage, fresh):
        scaled = self._scaled(residual)
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
            self._rate(block, theta, start, size, residual, buffers, buffers.velocity, 0)
            move_registers(buffers.velocity, theta, memory, base, error, stage, fresh, start, size)
            self._outputs(block, theta, start, size, buffers)

    def _run_grams(self, n_groups, work, theta, partial):
        run_blocks(
            measures.grams, n_groups, self.threads, work,
            GRAM_GROUP, self._activation.both, self._scale, self.x, theta, partial,
        )  # fmt: skip
