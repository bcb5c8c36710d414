"""Loops over all parameters of a network, layer by layer or not, whatever they mean.

Parameters are cut into chunks of fixed size, and sums over chunks are added up in their order: no
bit depends on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np

from .activations import FASTMATH
from .lanes import LANE_BYTES, load
from .streams import fence, stream, streamed
from .threads import run_blocks

CHUNK = 8192
"""Parameters in a chunk. Part of the results: bits of sums depend on it."""

PIECE = 1024
"""Parameters that are combined at a time: their sums stay in the first level of the cache."""

_SPREAD = 2654435761
"""Odd: its multiples differ in all their bits."""

compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
summing = numba.njit(
    nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True
)


def chunks(length: int) -> int:
    """Number of chunks of so many parameters."""
    return -(-length // CHUNK)


@compiled
def _put(values, size, out, start, past):
    """Write the first ``size`` of the values (1, piece) into ``out`` (1, parameters)."""
    width = LANE_BYTES // out.itemsize
    whole = size - size % width if past else 0
    for k in range(0, whole, width):
        stream(out, 0, start + k, load(values, 0, k))
    for k in range(whole, size):
        out[0, start + k] = values[0, k]


@compiled
def _combine(
    first, last, base, slopes, n_slopes, weights, velocity, use_velocity, begin, end, out
):  # fmt: skip
    increment, new = np.empty(PIECE, base.dtype), np.empty((1, PIECE), base.dtype)
    past = streamed(out) and begin * out.itemsize % LANE_BYTES == 0
    for start in range(begin + first * CHUNK, min(begin + last * CHUNK, end), PIECE):
        size = min(PIECE, end - start)
        increment[:size] = 0.0
        for j in range(n_slopes):
            weight, slope = weights[j], slopes[j, start : start + size]
            for k in range(size):
                increment[k] += weight * slope[k]
        if use_velocity:
            # Last, as when it is a slope: a stage that is made again has the same bits.
            weight, own = weights[n_slopes], velocity[start : start + size]
            for k in range(size):
                increment[k] += weight * own[k]
        origin = base[start : start + size]
        for k in range(size):
            new[0, k] = origin[k] + increment[k]
        _put(new, size, out, start, past)
    fence()


def combine(
    base: np.ndarray,
    slopes: np.ndarray,
    weights: np.ndarray,
    velocity: np.ndarray | None,
    out: np.ndarray,
    threads: int,
    begin: int = 0,
    end: int | None = None,
) -> None:
    """Write base + sum_j weights[j] slopes[j] (+ weights[-1] velocity) into ``out``.

    Over parameters ``begin`` to ``end``, all copies' one after the other; no bit depends on where
    it is cut.

    Parameters
    ----------
    base, out, velocity : arrays of one shape
        ``out`` may be any of the others.
    slopes : (k, ...) array
    weights : (<= k,) array, one more with ``velocity``
    threads : int
    """
    flat = base.reshape(-1)
    end = flat.size if end is None else end
    run_blocks(
        _combine, chunks(end - begin), threads, CHUNK * (1.0 + len(weights)),
        flat, slopes.reshape(len(slopes), flat.size), len(weights) - (velocity is not None),
        weights.astype(base.dtype), flat if velocity is None else velocity.reshape(-1),
        velocity is not None, begin, end, out.reshape(1, -1),
    )  # fmt: skip


@compiled
def _move_registers(first, last, velocity, theta, memory, base, error, stage, fresh):
    for chunk in range(first, last):
        for k in range(chunk * CHUNK, min((chunk + 1) * CHUNK, theta.size)):
            away = theta[k] - base[k]
            past = stage[0] * away
            if not fresh:
                past += memory[k]
            memory[k] = past
            error[k] += stage[4] * velocity[k]
            theta[k] = base[k] + (stage[1] * away + stage[2] * past + stage[3] * velocity[k])


def move_registers(
    velocity: np.ndarray,
    theta: np.ndarray,
    memory: np.ndarray,
    base: np.ndarray,
    error: np.ndarray,
    stage: np.ndarray,
    fresh: bool,
    threads: int,
) -> None:
    """Take a stage of a low-storage method, given the velocity at ``theta``.

    See `flowsim.kernels.interface.FlowKernels.advance_registers`; ``stage`` (5,) in its order.
    """
    arrays = [array.reshape(-1) for array in (velocity, theta, memory, base, error)]
    run_blocks(
        _move_registers, chunks(theta.size), threads, 8.0 * CHUNK, *arrays,
        stage.astype(theta.dtype), fresh,
    )  # fmt: skip


@compiled
def _move_recurrence(first_chunk, last, velocity, theta, previous, base, first, stage, out):
    for chunk in range(first_chunk, last):
        for k in range(chunk * CHUNK, min((chunk + 1) * CHUNK, theta.size)):
            change = stage[0] * (theta[k] - base[k]) + stage[1] * (previous[k] - base[k])
            out[k] = base[k] + (change + stage[2] * velocity[k] + stage[3] * first[k])


def move_recurrence(
    velocity: np.ndarray,
    theta: np.ndarray,
    previous: np.ndarray,
    base: np.ndarray,
    first: np.ndarray,
    stage: np.ndarray,
    out: np.ndarray,
    threads: int,
) -> None:
    """Take a stage of a three-term recurrence, given the velocity at ``theta``.

    See `flowsim.kernels.interface.FlowKernels.advance_recurrence`; ``stage`` (4,) in its order.
    """
    arrays = [array.reshape(-1) for array in (velocity, theta, previous, base, first)]
    run_blocks(
        _move_recurrence, chunks(theta.size), threads, 8.0 * CHUNK, *arrays,
        stage.astype(theta.dtype), out.reshape(-1),
    )  # fmt: skip


@summing
def _squares(first, last, values, reference, use_reference, partial):
    for chunk in range(first, last):
        start = chunk * CHUNK
        size = min(CHUNK, values.size - start)
        own, total = values[start : start + size], 0.0
        if use_reference:
            other = reference[start : start + size]
            for k in range(size):
                difference = np.float64(own[k]) - np.float64(other[k])
                total += difference * difference
        else:
            for k in range(size):
                total += np.float64(own[k]) * np.float64(own[k])
        partial[chunk] = total


def sum_of_squares(values: np.ndarray, reference: np.ndarray | None, threads: int) -> float:
    """Sum of (values - reference)^2 over 1-D contiguous arrays, in float64."""
    partial = np.zeros(max(1, chunks(values.size)))
    run_blocks(
        _squares, chunks(values.size), threads, 2.0 * CHUNK, values,
        values if reference is None else reference, reference is not None, partial,
    )  # fmt: skip
    return float(np.add.reduce(partial))


@summing
def _combination_squares(first, last, slopes, weights, begin, end, partial, base, out):
    increment, new = np.empty(PIECE, np.float64), np.empty((1, PIECE), out.dtype)
    past = streamed(out) and begin * out.itemsize % LANE_BYTES == 0
    for chunk in range(first, last):
        total = 0.0
        for start in range(begin + chunk * CHUNK, min(begin + (chunk + 1) * CHUNK, end), PIECE):
            size = min(PIECE, end - start)
            increment[:size] = 0.0
            for j in range(weights.size):
                weight, slope = weights[j], slopes[j, start : start + size]
                for k in range(size):
                    increment[k] += weight * slope[k]
            for k in range(size):
                total += increment[k] * increment[k]
            if out.size > 0:
                origin = base[start : start + size]
                for k in range(size):
                    new[0, k] = origin[k] - increment[k]
                _put(new, size, out, start, past)
        partial[chunk] = total
    fence()


def sum_of_combined_squares(
    slopes: np.ndarray,
    weights: np.ndarray,
    begin: int,
    end: int,
    threads: int,
    base: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> float:
    """Sum of (sum_j weights[j] slopes[j])^2 over columns ``begin`` to ``end`` of slopes (k, p).

    With ``base`` and ``out`` (p,) also writes base - sum_j weights[j] slopes[j] there into ``out``.
    """
    partial = np.zeros(max(1, chunks(end - begin)))
    nothing = np.empty(0, slopes.dtype)
    run_blocks(
        _combination_squares, chunks(end - begin), threads, CHUNK * (1.0 + len(weights)),
        slopes, np.asarray(weights, np.float64), begin, end, partial,
        nothing if base is None else base, (nothing if out is None else out).reshape(1, -1),
    )  # fmt: skip
    return float(np.add.reduce(partial))


@compiled
def _checksums(first, last, bits, sums):
    for chunk in range(first, last):
        total = np.uint64(0)
        start = chunk * CHUNK
        size = min(CHUNK, bits.size - start)
        own = bits[start : start + size]
        for k in range(size):
            # The place goes in too: weights that change their places are others.
            total += np.uint64(own[k]) ^ np.uint64(k * _SPREAD)
        sums[chunk] = total


def checksums(values: np.ndarray, threads: int) -> np.ndarray:
    """64 bits a chunk that change with any single change of a value.

    Parameters
    ----------
    values : contiguous array of float64 or float32
    threads : int
    """
    flat = values.reshape(-1)
    sums = np.empty(chunks(flat.size), np.uint64)
    run_blocks(
        _checksums, len(sums), threads, 1.0 * CHUNK,
        flat.view(np.dtype(f"u{flat.dtype.itemsize}")), sums,
    )  # fmt: skip
    return sums
