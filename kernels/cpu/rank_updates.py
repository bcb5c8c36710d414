"""Products with, and updates of, a matrix that is a large one plus a few of low rank.

All are cut into blocks of fixed size, and each block is worked on by one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

from .activations import FASTMATH
from .threads import run_blocks

ROWS = 64
"""Rows of a matrix in a block. Part of the results: bits of sums depend on it."""

_SAMPLES = 32
"""Samples in a block."""

Term = tuple[float, np.ndarray, np.ndarray]


def correct(signal: np.ndarray, terms: Sequence[Term], out: np.ndarray, threads: int) -> None:
    """Add sum_j w_j (signal first_j^T) second_j to ``out``.

    Parameters
    ----------
    signal, out : (n, p), (n, q) arrays
    terms : sequence of (float, (k, p), (k, q) arrays)
    threads : int
    """
    if not terms:
        return
    n, work = len(signal), sum(first.size + second.size for _, first, second in terms)
    run_blocks(_correct, -(-n // _SAMPLES), threads, float(_SAMPLES * work), signal, terms, out)


def _correct(
    first: int, last: int, signal: np.ndarray, terms: Sequence[Term], out: np.ndarray
) -> None:
    for block in range(first, last):
        rows = slice(block * _SAMPLES, (block + 1) * _SAMPLES)
        part = out[rows]
        for weight, left, right in terms:
            inner = signal[rows] @ left.T
            inner *= part.dtype.type(weight)
            part += inner @ right


def add_and_square(
    matrix: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray] | None,
    out: np.ndarray,
    threads: int,
) -> float:
    """Write matrix + Q^T P into ``out``, which may be the matrix; return its sum of squares.

    Parameters
    ----------
    matrix, out : (p, q) arrays
    factors : (k, p), (k, q) arrays or None
        Q and P; without them nothing is written.
    threads : int
    """
    blocks = -(-len(matrix) // ROWS)
    partial = np.zeros(blocks)
    rank = 0 if factors is None else len(factors[0])
    work = float(ROWS * matrix.shape[1] * (rank + 1))
    run_blocks(_add_and_square, blocks, threads, work, matrix, factors, out, partial)
    return float(np.add.reduce(partial))


def _add_and_square(
    first: int,
    last: int,
    matrix: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray] | None,
    out: np.ndarray,
    partial: np.ndarray,
) -> None:
    if factors is None:
        _square_blocks(first, last, matrix, partial)
        return
    q, p = factors
    # One array for all blocks: fresh memory costs as much as the product.
    room = np.empty((ROWS, matrix.shape[1]), matrix.dtype)
    for block in range(first, last):
        rows = slice(block * ROWS, (block + 1) * ROWS)
        change = np.matmul(q[:, rows].T, p, out=room[: len(matrix[rows])])
        partial[block] = _add(matrix[rows], change, out[rows])


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
def _add(matrix, change, out):
    """Out = matrix + change; the sum of its squares."""
    total = 0.0
    for row in range(matrix.shape[0]):
        old, new, target = matrix[row], change[row], out[row]
        for k in range(old.size):
            target[k] = old[k] + new[k]
        total += _square(target)
    return total


# Compiled into its callers: of several copies, each reordered in its place, any could be called.
@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", forceinline=True)
def _square(line):
    total = 0.0
    for k in range(line.size):
        total += np.float64(line[k]) * np.float64(line[k])
    return total


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
def _square_blocks(first, last, matrix, partial):
    for block in range(first, last):
        total = 0.0
        for row in range(block * ROWS, min((block + 1) * ROWS, matrix.shape[0])):
            total += _square(matrix[row])
        partial[block] = total


def squared_difference(one: np.ndarray, other: np.ndarray | None) -> float:
    """Sum of (one - other)^2 over contiguous arrays, in float64."""
    if other is None:
        return float(_difference(one.reshape(-1), one.reshape(-1), False))
    return float(_difference(one.reshape(-1), other.reshape(-1), True))


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
def _difference(one, other, use_other):
    total = 0.0
    for k in range(one.size):
        value = np.float64(one[k])
        if use_other:
            value -= np.float64(other[k])
        total += value * value
    return total


def squared_change(
    matrix: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray] | None,
    reference: np.ndarray,
    threads: int,
) -> float:
    """Sum of (matrix + Q^T P - reference)^2; nothing is written."""
    blocks = -(-len(matrix) // ROWS)
    partial = np.zeros(blocks)
    rank = 0 if factors is None else len(factors[0])
    work = float(ROWS * matrix.shape[1] * (rank + 2))
    run_blocks(_squared_change, blocks, threads, work, matrix, factors, reference, partial)
    return float(np.add.reduce(partial))


def _squared_change(
    first: int,
    last: int,
    matrix: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray] | None,
    reference: np.ndarray,
    partial: np.ndarray,
) -> None:
    for block in range(first, last):
        rows = slice(block * ROWS, (block + 1) * ROWS)
        present = matrix[rows]
        if factors is not None:
            # As in `_add`, where the sum is rounded before anything is taken off it.
            present = present + factors[0][:, rows].T @ factors[1]
        partial[block] = squared_difference(present, reference[rows])
