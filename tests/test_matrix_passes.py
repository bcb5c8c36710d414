"""Passes by matrix products: edges of tiles and panels, signs that are kept, bits and memory."""

import numpy as np
import pytest
from test_kernels import compare, make_field, state

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.cpu import panel_passes, panels
from flowsim.kernels.cpu.panels import BLOCK
from flowsim.kernels.cpu.tiles import TILE_ROWS, panel_width


def test_signs_that_were_kept_are_those_of_the_weights():
    """A rate after an output pass, and one at weights changed behind the kernels' back."""
    field = make_field(6, 9, "relu")
    kept, fresh = (
        two_layer_kernels("cpu", field, 1300, "float64", 2, passes="matrix") for _ in range(2)
    )
    residual = np.linspace(-1.0, 1.0, 6)
    for change in CHANGES:
        theta = kept.array(state(field, 1300))
        kept.outputs(theta)
        change(theta[1:])
        out, expected = kept.empty(), kept.empty()
        kept.rate(theta, residual, out)
        fresh.rate(theta, residual, expected)
        assert np.array_equal(out, expected)


def set_two(weights):
    weights[2, 700] += 1.0
    weights[0, 1299] -= 1.0


def add_a_little(weights):
    weights[2, 700] += 1e-9


def negate_all(weights):
    weights *= -1.0


def negate_two(weights):
    weights[[1, 4], 77] *= -1.0


def reverse_inputs(weights):
    weights[:] = weights[::-1].copy()


def reverse_neurons(weights):
    weights[:] = weights[:, ::-1].copy()


CHANGES = [
    lambda weights: None,
    set_two,
    add_a_little,
    negate_all,
    negate_two,
    reverse_inputs,
    reverse_neurons,
]
"""Of input weights (d, neurons); highest bits that change together are easily lost in a sum."""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "d"), [(TILE_ROWS, TILE_ROWS), (3 * TILE_ROWS + 1, 2), (2, 45)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
def test_matrix_passes_where_tiles_and_panels_end(dtype, n, d, activation):
    width = panel_width(np.dtype(dtype).itemsize)
    for neurons in (width, width + 1, BLOCK - 1, 2 * BLOCK + width):
        compare(make_field(n, d, activation, scale=0.7), neurons, dtype, passes="matrix")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh"])
def test_bits_of_matrix_passes_depend_on_neither_threads_nor_strips(dtype, activation, monkeypatch):
    n, d, neurons = 70, 33, 5 * BLOCK + 31
    field = make_field(n, d, activation)
    theta, residual = state(field, neurons).astype(dtype), np.linspace(-1, 1, n)
    seen = set()
    for threads, strip in ((1, 1), (2, 1), (3, 3), (5, 4), (1, 7)):
        monkeypatch.setattr(panels, "strip_length", lambda x, strip=strip: strip)
        cpu = two_layer_kernels("cpu", field, neurons, dtype, threads, "matrix")
        assert cpu.passes.threads == threads
        slopes = np.stack([0.1 * theta, 0.2 * theta])
        out, slope = cpu.empty(), cpu.empty()
        f = cpu.advance(theta, residual, theta, slopes, np.ones(3), 0.1, out, slope)
        moving, memory, error_ = theta.copy(), 0.1 * theta, 0.2 * theta
        factors = np.array([0.3, 0.2, 0.7, 0.1, 0.4])
        g = cpu.advance_registers(moving, residual, memory, theta, error_, factors)
        parts = (f, out, slope, g, moving, memory, error_)
        seen.add(b"".join(part.tobytes() for part in parts))
    assert len(seen) == 1


def test_a_neuron_has_the_same_bits_wherever_it_is():
    """A product's element is one sum in order: neither its tile nor its neighbours count."""
    field = make_field(9, 20)
    residual = np.linspace(-1.0, 1.0, 9)
    theta = state(field, 400)
    rates = []
    for first in (0, 1, 130):
        part = np.ascontiguousarray(theta[:, first : first + 200])
        cpu = two_layer_kernels("cpu", field, 200, "float64", passes="matrix")
        rate = cpu.empty()
        cpu.rate(part, residual, rate)
        rates.append(rate[:, 130 - first : 200 - first])
    assert np.array_equal(rates[0], rates[1])
    assert np.array_equal(rates[0], rates[2])


def test_no_m_by_n_array_is_made_by_matrix_passes():
    """Of all neurons and samples there are only a bit each, and a sum for many neurons."""
    n, d, neurons = 200, 3, 20_000
    cpu = two_layer_kernels("cpu", make_field(n, d), neurons, "float64", passes="matrix")
    theta, out = cpu.array(state(cpu.field, neurons)), cpu.empty()
    cpu.rate(theta, cpu.outputs(theta), out)  # compiled, and the signs are there
    *work, strip = panels.make_panels(cpu.passes._fixed, n)
    made = [cpu.passes._partial, *cpu.passes._signs, *work]
    assert strip * work[0].shape[1] <= BLOCK
    assert sum(array.nbytes for array in made) < 0.05 * theta.itemsize * n * neurons


def test_one_compiled_version_a_dtype():
    counts = []
    for n, d, activation in ((2, 3, "relu"), (9, 20, "tanh"), (5, 70, "leaky_relu")):
        for dtype in ("float64", "float32"):
            field = make_field(n, d, activation)
            cpu = two_layer_kernels("cpu", field, 300, dtype, passes="matrix")
            theta, slopes = cpu.array(state(field, 300)), np.zeros_like(cpu.empty(2))
            cpu.outputs(theta)
            cpu.rate(theta, np.ones(n), cpu.empty())
            cpu.combine(theta, slopes, np.ones(2), 0.1, None)
            cpu.advance(theta, np.ones(n), theta, slopes, np.ones(2), 0.1, cpu.empty())
            registers = [theta.copy() for _ in range(3)]
            cpu.advance_registers(theta, np.ones(n), *registers, np.ones(5))
        sweeps = panel_passes.sweep, panel_passes.register_sweep
        counts.append([len(sweep.signatures) for sweep in sweeps])
    assert counts == [[2, 2]] * 3
