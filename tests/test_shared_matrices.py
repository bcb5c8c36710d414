"""The hidden matrices of a deep network: a change that waits for the first product with them."""

import numpy as np
import pytest

from flowsim.kernels.cpu import layers
from flowsim.kernels.cpu.matrices import Matrices
from flowsim.kernels.cpu.rank_updates import ROWS
from flowsim.kernels.cpu.thin import COLUMNS, THIN

SHAPES = [(5, 3), (ROWS, 24), (2 * ROWS + 3, COLUMNS + 29), (70, 2 * COLUMNS)]
"""Of a matrix: smaller than a tile, whole tiles, some of each, whole blocks."""


def make(shape, n, rank, dtype):
    generator = np.random.default_rng(8)
    matrix = generator.normal(size=shape).astype(dtype)
    factors = tuple(generator.normal(size=(rank, size)).astype(dtype) for size in shape)
    signal = generator.normal(size=(n, shape[0])).astype(dtype)
    return matrix, factors, signal


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n", [1, 4, 6, THIN + 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_waiting_changes_no_bit(shape, n, threads, dtype):
    """Of the matrix, of its sum of squares and of the product: all are those of one by one."""
    matrix, factors, signal = make(shape, n, 2 * n, dtype)
    waits, looks = (Matrices([[matrix.copy()]], threads) for _ in range(2))
    for one in (waits, looks):
        one.update([[factors]])
    moved = looks.array(0, 0).copy()
    products = [np.full((n, shape[1]), np.nan, dtype) for _ in range(3)]
    waits.times(0, 0, signal, products[0])
    looks.times(0, 0, signal, products[1])
    layers.times(signal, moved, products[2], 1)
    np.testing.assert_array_equal(waits.array(0, 0), moved)
    np.testing.assert_array_equal(products[0], products[1])
    np.testing.assert_array_equal(products[0], products[2])
    assert waits.square(0, 0) == looks.square(0, 0)
    assert waits.square(0, 0) == Matrices([[moved]], 1).square(0, 0)
    # And all of it is right.
    eps, expected = np.finfo(dtype).eps, matrix + factors[0].T.astype(float) @ factors[1]
    scale = np.abs(matrix) + np.abs(factors[0]).T @ np.abs(factors[1])
    assert np.all(np.abs(moved - expected) <= 4 * n * eps * scale)
    scale = np.abs(signal) @ np.abs(moved)
    assert np.all(np.abs(products[0] - signal.astype(float) @ moved) <= shape[0] * eps * scale)
    assert waits.square(0, 0) == pytest.approx(float(np.sum(moved.astype(float) ** 2)), rel=1e-12)


def test_every_change_is_added_once():
    matrix, factors, signal = make((40, 30), 4, 8, "float64")
    matrices, out = Matrices([[matrix.copy(), matrix.copy()]], 1), np.empty((4, 30))
    matrices.update([[factors, factors]])
    matrices.update([[factors, factors]])  # nobody has looked in between
    matrices.times(0, 0, signal, out)
    expected = matrix + 2.0 * factors[0].T @ factors[1]
    for number in range(2):
        np.testing.assert_allclose(matrices.array(0, number), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(out, signal @ expected, rtol=0, atol=1e-12)
    assert matrices.version == 2
