"""Stores past the caches: the same bits as ordinary ones, whichever an array gets."""

from __future__ import annotations

import numpy as np
import pytest

from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu import flat
from flowsim.kernels.cpu.lane_code import LANE_BYTES
from flowsim.kernels.cpu.streams import LARGE, empty_in_lines, streamed
from flowsim.kernels.cpu.two_layer import CpuKernels
from flowsim.kernels.interface import TwoLayerField

DTYPES = ("float64", "float32")


def beside_lines(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins in the middle of a line."""
    size = int(np.prod(shape))
    return empty_in_lines((size + 1,), dtype)[1:].reshape(shape)


def test_large_arrays_in_lines_are_streamed_and_no_others():
    rows = LARGE // (8 * 1024)
    assert streamed(empty_in_lines((rows + 1, 1024), np.dtype(float)))
    assert not streamed(empty_in_lines((rows, 1024), np.dtype(float)))
    assert not streamed(beside_lines((rows + 1, 1024), np.dtype(float)))
    # Rows of a length that is no whole number of lines begin anywhere.
    assert not streamed(empty_in_lines((rows + 2, 1023), np.dtype(float)))
    assert streamed(empty_in_lines((1, 1024 * rows + 1023), np.dtype(float)))


@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_arrays_begin_with_a_line(shape):
    array = empty_in_lines(shape, np.dtype("float32"))
    assert array.shape == shape and array.flags.c_contiguous
    assert array.ctypes.data % LANE_BYTES == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extra", [0, 7], ids=["in lines", "rows beside lines"])
def test_passes_store_the_same_either_way(dtype, extra):
    """A rate, and a step into another state that keeps its rate."""
    dtype = np.dtype(dtype)
    neurons = LARGE // dtype.itemsize // 2 + 1024 + extra
    generator = np.random.default_rng(5)
    field = TwoLayerField(generator.normal(size=(3, 1)), ACTIVATIONS["relu"], 1.0, 1e-3, 2.0, 0.5)
    kernels = CpuKernels(field, neurons, dtype, threads=2, passes="piecewise")
    theta, residual = kernels.empty(), generator.normal(size=3)
    theta[...] = generator.normal(size=theta.shape)
    found = []
    for make in (empty_in_lines, beside_lines):
        rate, slope, new = (make(theta.shape, dtype) for _ in range(3))
        for array in (rate, slope, new):
            array[...] = np.nan
        kernels.rate(theta, residual, rate)
        none, one = kernels.empty(0), np.ones(1)
        f = kernels.advance(theta, residual, theta, none, one, 0.1, new, slope)
        found.append((rate, slope, new, f))
    assert streamed(found[0][0]) == (extra == 0) and not streamed(found[1][0])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found[0][0], found[0][1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("begin", [0, 3], ids=["from a line on", "from within one on"])
def test_combinations_store_the_same_either_way(dtype, begin):
    dtype = np.dtype(dtype)
    length = LARGE // dtype.itemsize + 2 * flat.PIECE + 5
    generator = np.random.default_rng(6)
    base = generator.normal(size=length).astype(dtype)
    slopes = generator.normal(size=(2, length)).astype(dtype)
    weights = np.array([0.5, -0.25])
    found = []
    for make in (empty_in_lines, beside_lines):
        combined, without = make((length,), dtype), make((length,), dtype)
        without[...] = 0.0
        flat.combine(base, slopes, weights, None, combined, 2)
        square = flat.sum_of_combined_squares(slopes, weights, begin, length, 2, base, without)
        found.append((combined, without, square))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    combined, without, square = found[0]
    change = weights @ slopes.astype(float)
    scale = np.abs(base).max()
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(combined, base + change, rtol=0, atol=4 * eps * scale)
    np.testing.assert_allclose(
        without[begin:], (base - change)[begin:], rtol=0, atol=4 * eps * scale
    )
    assert np.all(without[:begin] == 0.0)
    assert square == pytest.approx(float(np.sum(change[begin:] ** 2)), rel=1e-12)
    assert square == flat.sum_of_combined_squares(slopes, weights, begin, length, 1)
