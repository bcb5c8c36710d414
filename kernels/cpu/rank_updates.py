"""Products with, and updates of, a matrix that is a large one plus a few of low rank.

All are cut into blocks of fixed size, and each block is worked on by one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

from .activations import FASTMATH
from .lanes import total_of_lanes
from .thin import COLUMNS, THIN, add_times
from .threads import run_blocks
from .tiles import TILE_ROWS, add_tile, panel_width, store_tile, tile

ROWS = 64
"""Rows of a matrix in a block. Part of the results: bits of sums depend on it."""

_SAMPLES = 32
"""Samples in a block."""

_FEW = 128
"""Rank up to which an update is made tile by tile in registers: the matrix is read and written
once, while BLAS writes the change and reads it again."""

exact = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)

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

    The sum has the same bits for the same result, however that came about.

    Parameters
    ----------
    matrix, out : (p, q) arrays
    factors : (k, p), (k, q) arrays or None
        Q and P; without them nothing is written.
    threads : int
    """
    blocks = -(-len(matrix) // ROWS)
    partial = np.zeros((blocks, -(-matrix.shape[1] // COLUMNS)))
    rank = 0 if factors is None else len(factors[0])
    work = float(ROWS * matrix.shape[1] * (rank + 1))
    if factors is not None and rank > _FEW:
        run_blocks(_add_many, blocks, threads, work, matrix, *factors, out)
        matrix, factors, work = out, None, float(ROWS * matrix.shape[1])
    q, panels = _packable(matrix, factors)
    run_blocks(_add_few, blocks, threads, work, matrix, q, panels, out, factors is None, partial)
    return float(np.add.reduce(partial, axis=None))


def can_multiply(factors: tuple[np.ndarray, np.ndarray], signal: np.ndarray) -> bool:
    """Whether `add_square_and_multiply` is for an update and a signal."""
    return len(factors[0]) <= _FEW and len(signal) <= THIN


def add_square_and_multiply(
    matrix: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    signal: np.ndarray,
    out: np.ndarray,
    threads: int,
) -> float:
    """`add_and_square` in place, and signal (n, p) times the new matrix into ``out`` (n, q).

    The matrix is read once for both. Either result has the bits that it has by itself.
    """
    columns = -(-matrix.shape[1] // COLUMNS)
    partial = np.zeros((-(-len(matrix) // ROWS), columns))
    q, panels = _packable(matrix, factors)
    work = float(len(matrix) * COLUMNS * (len(q) + len(signal) + 1))
    run_blocks(_add_and_times, columns, threads, work, matrix, q, panels, signal, out, partial)
    return float(np.add.reduce(partial, axis=None))


def _add_many(
    first: int, last: int, matrix: np.ndarray, q: np.ndarray, p: np.ndarray, out: np.ndarray
) -> None:
    # One array for all blocks: fresh memory costs as much as the product.
    room = np.empty((ROWS, matrix.shape[1]), matrix.dtype)
    for block in range(first, last):
        rows = slice(block * ROWS, (block + 1) * ROWS)
        change = np.matmul(q[:, rows].T, p, out=room[: len(matrix[rows])])
        np.add(matrix[rows], change, out=out[rows])


def _packable(
    matrix: np.ndarray, factors: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Q (k, p), and P (k, q) in panels (panels * k, width), one below the other.

    Zeros fill up the last panel. Without factors their rank is 0.
    """
    width = panel_width(matrix.itemsize)
    if factors is None:
        return np.empty((0, len(matrix)), matrix.dtype), np.empty((0, width), matrix.dtype)
    q, p = factors
    filled = np.zeros((len(p), -(-p.shape[1] // width) * width), p.dtype)
    filled[:, : p.shape[1]] = p
    panels = filled.reshape(len(p), -1, width).swapaxes(0, 1)
    return q, np.ascontiguousarray(panels).reshape(-1, width)


@exact
def _pack(q, start, end, packed):
    """Order columns ``start`` to ``end`` of q for `flowsim.kernels.cpu.tiles.tile`."""
    for group in range(packed.shape[0]):
        for t in range(packed.shape[1]):
            for r in range(TILE_ROWS):
                row = start + group * TILE_ROWS + r
                packed[group, t, r] = q[t, row] if row < end else 0.0


@exact
def _add_block(matrix, start, end, left, right, packed, panels, out, shift, squares, corner):
    """Write rows ``start`` to ``end`` of matrix + Q^T P into ``out``, ``shift`` rows above.

    Of columns ``left`` to ``right``. Returns the sum of their squares.
    """
    width, rank, total = panels.shape[1], packed.shape[1], 0.0
    squares[:] = 0.0
    # Along the rows, in which memory is read and written fastest.
    for group in range(-(-(end - start) // TILE_ROWS)):
        row = start + group * TILE_ROWS
        for column in range(left, right, width):
            panel = column // width
            sums = tile(packed, group, panels, panel * rank, panels, 0, 0, panels, 0, 0, 0)
            if row + TILE_ROWS <= end and column + width <= right:
                add_tile(matrix, row, column, sums, out, row - shift, squares)
                continue
            store_tile(corner, 0, sums)
            for r in range(min(TILE_ROWS, end - row)):
                for k in range(min(width, right - column)):
                    value = matrix[row + r, column + k] + corner[r, k]
                    out[row - shift + r, column + k] = value
                    total += np.float64(value) * np.float64(value)
    for part in range(squares.shape[0]):
        total += total_of_lanes(squares, part)
    return total


@exact
def _add_few(first, last, matrix, q, panels, out, only_square, partial):
    packed = np.empty((-(-ROWS // TILE_ROWS), q.shape[0], TILE_ROWS), matrix.dtype)
    corner = np.empty((TILE_ROWS, panels.shape[1]), matrix.dtype)
    squares = np.empty((panels.shape[1] // 8, 8))
    room = np.empty((ROWS if only_square else 0, matrix.shape[1]), matrix.dtype)
    for block in range(first, last):
        start, end = block * ROWS, min((block + 1) * ROWS, matrix.shape[0])
        _pack(q, start, end, packed)
        target, shift = (room, start) if only_square else (out, 0)
        for part in range(partial.shape[1]):
            left, right = part * COLUMNS, min((part + 1) * COLUMNS, matrix.shape[1])
            partial[block, part] = _add_block(
                matrix, start, end, left, right, packed, panels, target, shift, squares, corner
            )


@exact
def _add_and_times(first, last, matrix, q, panels, signal, out, partial):
    packed = np.empty((-(-ROWS // TILE_ROWS), q.shape[0], TILE_ROWS), matrix.dtype)
    corner = np.empty((TILE_ROWS, panels.shape[1]), matrix.dtype)
    squares = np.empty((panels.shape[1] // 8, 8))
    for part in range(first, last):
        left, right = part * COLUMNS, min((part + 1) * COLUMNS, matrix.shape[1])
        for i in range(signal.shape[0]):
            out[i, left:right] = 0.0
        for block in range(partial.shape[0]):
            start, end = block * ROWS, min((block + 1) * ROWS, matrix.shape[0])
            _pack(q, start, end, packed)
            partial[block, part] = _add_block(
                matrix, start, end, left, right, packed, panels, matrix, 0, squares, corner
            )
            # They are in the cache still.
            add_times(signal, matrix, start, end, left, right, out)


def squared_change(
    matrix: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray] | None,
    reference: np.ndarray,
    threads: int,
) -> float:
    """Sum of (matrix + Q^T P - reference)^2; nothing is written.

    What is added is rounded as by `add_and_square` before anything is taken off it.
    """
    blocks = -(-len(matrix) // ROWS)
    partial = np.zeros(blocks)
    rank = 0 if factors is None else len(factors[0])
    work = float(ROWS * matrix.shape[1] * (rank + 2))
    if rank > _FEW:
        run_blocks(_change_by_many, blocks, threads, work, matrix, factors, reference, partial)
    else:
        q, panels = _packable(matrix, factors)
        run_blocks(_change_by_few, blocks, threads, work, matrix, q, panels, reference, partial)
    return float(np.add.reduce(partial))


@exact
def _change_by_few(first, last, matrix, q, panels, reference, partial):
    packed = np.empty((-(-ROWS // TILE_ROWS), q.shape[0], TILE_ROWS), matrix.dtype)
    corner = np.empty((TILE_ROWS, panels.shape[1]), matrix.dtype)
    squares = np.zeros((panels.shape[1] // 8, 8))
    room = np.empty((ROWS, matrix.shape[1]), matrix.dtype)
    for block in range(first, last):
        start, end = block * ROWS, min((block + 1) * ROWS, matrix.shape[0])
        _pack(q, start, end, packed)
        _add_block(
            matrix, start, end, 0, matrix.shape[1], packed, panels, room, start, squares, corner
        )
        partial[block] = _difference(room, reference, start, end)


def _change_by_many(
    first: int,
    last: int,
    matrix: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    reference: np.ndarray,
    partial: np.ndarray,
) -> None:
    for block in range(first, last):
        start, end = block * ROWS, min((block + 1) * ROWS, len(matrix))
        present = matrix[start:end] + factors[0][:, start:end].T @ factors[1]
        partial[block] = _difference(present, reference, start, end)


# Compiled into its callers: of several copies, each reordered in its place, any could be called.
@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", forceinline=True)
def _difference(room, reference, start, end):
    """Sum of (room - reference)^2 over rows ``start`` to ``end`` of the reference, in float64."""
    total = 0.0
    for row in range(start, end):
        one, other = room[row - start], reference[row]
        for k in range(other.size):
            value = np.float64(one[k]) - np.float64(other[k])
            total += value * value
    return total
