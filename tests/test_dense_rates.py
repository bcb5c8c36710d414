"""Rates of hidden matrices written out together with what a step makes of them."""

import os
import subprocess
import sys

import numpy as np
import pytest

from flowsim.kernels.cpu import flat
from flowsim.kernels.cpu.dense_rates import Combination, in_one_pass, write_rate
from flowsim.kernels.cpu.tiles import PANEL_VECTORS, TILE_ROWS

IN_OTHER_TILES = """
import llvmlite.binding
import numpy as np

host = llvmlite.binding.get_host_cpu_features
others = dict(host()) | {"avx512f": not host().get("avx512f", False)}
llvmlite.binding.get_host_cpu_features = lambda: others
from flowsim.kernels.cpu import tiles
llvmlite.binding.get_host_cpu_features = host
from flowsim.kernels.cpu.dense_rates import Combination, write_rate

generator, (n, rows, columns) = np.random.default_rng(1), (96, 129, 250)
signal, back = generator.normal(size=(n, rows)), generator.normal(size=(n, columns))
base, out = generator.normal(size=rows * columns), np.empty(rows * columns)
slopes, weights = generator.normal(size=(2, rows * columns)), generator.normal(size=3)
error = Combination(base, slopes, weights, out, True)
slope = np.empty(rows * columns)
square = write_rate(signal, back, 0.5, slope, 0, error, 2)
change = weights[:2] @ slopes + weights[2] * (0.5 * signal.T @ back).reshape(-1)
np.testing.assert_allclose(slope, (0.5 * signal.T @ back).reshape(-1), atol=1e-12)
np.testing.assert_allclose(out, base - change, atol=1e-12)
np.testing.assert_allclose(square, change @ change, rtol=1e-12)
print(tiles.TILE_ROWS, tiles.PANEL_VECTORS)
"""


@pytest.mark.parametrize(("rows", "columns", "begin"), [(64, 96, 8), (129, 250, 3), (71, 64, 16)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rates_and_combinations_in_one_pass_are_those_of_several(rows, columns, begin, dtype):
    generator, n = np.random.default_rng(rows), 96
    length, place = begin + rows * columns + 5, slice(begin, begin + rows * columns)
    signal, back = (generator.normal(size=(n, k)).astype(dtype) for k in (rows, columns))
    slopes, base = (generator.normal(size=(*k, length)).astype(dtype) for k in ((4,), ()))
    weights = generator.normal(size=5)
    product = 0.5 * signal.astype(np.float64).T @ back
    alone = np.zeros(length, dtype)
    assert in_one_pass(n, rows, columns)
    assert write_rate(signal, back, 0.5, alone, begin, None, 1) == 0.0
    np.testing.assert_allclose(alone[place].reshape(rows, columns), product, atol=n * 1e-6)
    assert not np.any(alone[:begin]) and not np.any(alone[place.stop :])

    expected = np.empty_like(base)
    flat.combine(base, slopes, weights, alone, expected, 1)
    expected[:begin], expected[place.stop :] = 0.0, 0.0
    for kept in (np.zeros(length, dtype), None):
        out = np.zeros(length, dtype)
        write_rate(signal, back, 0.5, kept, begin, Combination(base, slopes, weights, out), 2)
        assert np.array_equal(out, expected)
        assert kept is None or np.array_equal(kept, alone)

    # Slopes that nearly cancel, as those of one step.
    slopes[:] = alone + (1e-3 * slopes).astype(dtype)
    weights[-1] = -np.sum(weights[:-1])
    out, error = np.zeros(length, dtype), Combination(base, slopes, weights, base.copy(), True)
    square = write_rate(signal, back, 0.5, None, begin, error, 2)
    stack = np.concatenate([slopes, alone[None]])
    wanted = flat.sum_of_combined_squares(stack, weights, begin, place.stop, 1, base, out)
    assert square == pytest.approx(wanted, rel=1e-13)
    # That of as many products and sums, in whatever order.
    rounding = np.finfo(dtype).eps * len(weights) * np.sum(np.abs(weights)) * np.max(np.abs(stack))
    np.testing.assert_allclose(error.out[place], out[place], rtol=0.0, atol=rounding)


def test_tiles_of_other_processors_give_the_same_rates(tmp_path):
    """Of 6 x 1 vectors or of 8 x 3: code of either runs here, where one is the processor's own."""
    done = subprocess.run(
        [sys.executable, "-c", IN_OTHER_TILES],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (shape,) = {(6, 1), (8, 3)} - {(TILE_ROWS, PANEL_VECTORS)}
    assert tuple(map(int, done.stdout.split())) == shape
