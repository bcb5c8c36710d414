"""Every backend against the NumPy reference, and the bit-for-bit promises of the CPU backend."""

import ctypes
import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import CASES, HOST_BACKENDS
from kernel_cases import compare as compare_all
from two_layer_fields import make_field, state

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS, Activation, erf
from flowsim.kernels.cpu import fused as fused_module
from flowsim.kernels.cpu import sweep as sweep_module
from flowsim.kernels.cpu.activations import compile_derivatives
from flowsim.kernels.cpu.choice import MOST_FUSED_INPUTS, WAYS, choose_way
from flowsim.kernels.cpu.costs import COSTS
from flowsim.kernels.cpu.fused import BLOCK
from flowsim.kernels.cpu.passes import GRAM_GROUP
from flowsim.kernels.interface import TwoLayerField

TOLERANCE = {"float64": 1e-13, "float32": 1e-5}
SIZES = [1, 7, BLOCK // 2 + 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17]


def pair(field, neurons, dtype, threads=1):
    return (
        two_layer_kernels("reference", field, neurons, dtype),
        two_layer_kernels("cpu", field, neurons, dtype, threads),
    )


def error(value, reference, scale=None):
    """Largest difference relative to the size of the terms that were added up."""
    difference = np.max(np.abs(value - reference))
    if difference == 0.0:
        return 0.0  # also where every neuron is dead and all is zero
    return difference / (np.max(np.abs(reference)) if scale is None else scale)


def term_size(field, theta, residual):
    """Sizes of the sums behind outputs and rates: what rounding is relative to."""
    z = np.abs(field.x) @ np.abs(theta[1:])
    s = np.maximum(np.abs(field.activation.value(field.x @ theta[1:])), 1e-3)
    a = np.abs(theta[0])
    outputs = np.max(field.multiplier * s @ a)
    return outputs, np.max(np.abs(residual)) * (1.0 + np.max(z)) * (1.0 + np.max(a))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(("n", "d"), [(1, 1), (4, 2), (5, 3)])
@pytest.mark.parametrize("neurons", SIZES)
def test_cpu_agrees_with_the_reference(dtype, activation, n, d, neurons):
    compare(make_field(n, d, activation, scale=0.7), neurons, dtype)


def shapes_of(activation):
    """Any number of inputs; where each is code of its own, those that other tests compile too."""
    piecewise = ACTIVATIONS[activation].leak is not None
    inputs = st.sampled_from([1, 2, 3, 20]) if piecewise else st.integers(1, 6)
    return st.tuples(st.just(activation), st.integers(1, 9), inputs)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from(sorted(ACTIVATIONS)).flatmap(shapes_of),
    neurons=st.integers(1, 3 * BLOCK),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(["float64", "float32"]),
)
def test_cpu_agrees_with_the_reference_on_random_shapes(shape, neurons, seed, dtype):
    activation, n, d = shape
    compare(make_field(n, d, activation, seed), neurons, dtype, seed)


def compare(field, neurons, dtype, seed=1, passes="auto"):
    reference = two_layer_kernels("reference", field, neurons, dtype)
    cpu = two_layer_kernels("cpu", field, neurons, dtype, passes=passes)
    tolerance = TOLERANCE[dtype]
    theta = reference.array(state(field, neurons, seed))
    residual = np.random.default_rng(seed + 1).normal(size=len(field.x))
    outputs_size, rate_size = term_size(field, np.float64(theta), residual)

    assert error(cpu.outputs(theta), reference.outputs(theta), outputs_size) < tolerance
    slopes = [kernels.empty(3) for kernels in (reference, cpu)]
    for kernels, slope in zip((reference, cpu), slopes, strict=True):
        kernels.rate(theta, residual, slope[0])
        kernels.rate(theta, 0.5 * residual, slope[1])
    assert error(slopes[1][:2], slopes[0][:2], rate_size) < tolerance

    weights = np.array([0.3, 0.0, -0.2])
    results = []
    for kernels, slope in zip((reference, cpu), slopes, strict=True):
        out = kernels.empty()
        f = kernels.advance(theta, residual, theta, slope, weights, 0.1, out, slope[2])
        combined = kernels.empty()
        g = kernels.combine(theta, slope, weights, 0.1, combined)
        results.append((f, out, slope[2].copy(), g, combined))
    scales = (outputs_size, rate_size, rate_size, outputs_size, rate_size)
    for value, expected, scale in zip(results[1], results[0], scales, strict=True):
        assert error(value, expected, max(scale, np.max(np.abs(expected)))) < 2 * tolerance
    compare_stages(reference, cpu, theta, residual, slopes[0], outputs_size, rate_size, tolerance)

    compare_registers(reference, cpu, theta, residual, (outputs_size, rate_size), 2 * tolerance)

    compare_recurrences(reference, cpu, theta, residual, (outputs_size, rate_size), 2 * tolerance)

    same = cpu.squared_norms(theta, None, neurons)
    assert error(same, reference.squared_norms(theta, None, neurons)) < 1e-13
    moved = results[0][1]
    for count in {1, neurons // 2 or 1, neurons}:
        expected = reference.squared_norms(moved, theta, count)
        assert error(cpu.squared_norms(moved, theta, count), expected) < 1e-12
    expected = reference.squared_combination(slopes[0], weights)
    if expected.max() > 0:
        assert error(cpu.squared_combination(slopes[0], weights), expected) < 1e-12
    grams = reference.grams(theta)
    assert error(cpu.grams(theta), grams, max(np.max(np.abs(grams)), 1e-3)) < 4 * tolerance
    if dtype == "float64":
        assert cpu.activity(theta) == reference.activity(theta)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("case", [c for c in CASES if c[2] <= 5 or c[5] == "matrix"], ids=str)
def test_all_operations_agree_with_the_reference(case, dtype, tolerance):
    """The cases of the GPU in ``test_cuda.py``, but for those that take long in compiling here."""
    compare_all("cpu", case, dtype, tolerance)


@pytest.mark.parametrize("passes", sorted(WAYS))
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear", "tanh"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_way_of_passing_agrees_with_the_reference(passes, activation, dtype):
    for n, d, neurons in ((5, 3, 700), (7, 20, 1100), (1, 1, 3)):
        compare(make_field(n, d, activation, scale=0.7), neurons, dtype, passes=passes)


@pytest.mark.parametrize("passes", sorted(WAYS))
def test_a_rate_alone_adds_up_nothing_that_memory_held_before(passes, monkeypatch):
    """inf - inf there would be a warning, which is an error here, of numbers nobody wants."""

    def filled(shape, dtype=float):
        array = np.zeros(shape, dtype)
        if array.dtype.kind == "f":
            array.reshape(-1)[:] = np.inf
            array.reshape(-1)[::2] = -np.inf
        return array

    field, neurons = make_field(3, 2), 5 * BLOCK
    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", filled)
        cpu = two_layer_kernels("cpu", field, neurons, "float64", passes=passes)
    slope = cpu.empty()
    cpu.rate(cpu.array(state(field, neurons)), np.ones(3), slope)
    assert np.isfinite(slope).all()


def test_the_way_is_chosen_from_the_table_alone():
    for dtype, table in COSTS.items():
        for (neurons, n, d), costs in table.items():
            field = make_field(n, d)
            way = choose_way(field, neurons, np.dtype(dtype))
            assert costs[way] == min(costs.values())
    assert choose_way(make_field(4, 2, "tanh"), 1000, np.dtype("float64")) != "piecewise"
    wide = make_field(8, MOST_FUSED_INPUTS + 1)
    assert choose_way(wide, 10**4, np.dtype("float64")) != "piecewise"
    assert two_layer_kernels("cpu", wide, 9, "float64", 1, "piecewise").passes.block > 0


def compare_stages(reference, cpu, theta, residual, slopes, outputs_size, rate_size, tolerance):
    """A stage that is made again from slopes, and the end of a step with two errors."""
    here, weights = np.array([0.2, -0.1]), np.array([0.3, 0.1, -0.2])
    errors = np.array([[0.02, -0.01, 0.03], [0.0, 0.01, -0.02]])
    results = []
    for kernels in (reference, cpu):
        slope, mine = kernels.empty(), kernels.array(slopes)
        f = kernels.advance(None, residual, theta, mine[:2], weights, 0.1, None, slope, here)
        g, squares = kernels.rate_and_errors(theta, residual, mine, errors, 0.1)
        results.append((f, slope, g, mine[2], np.sqrt(squares)))
    scales = (outputs_size, rate_size, outputs_size, rate_size, rate_size)
    for value, expected, scale in zip(results[1], results[0], scales, strict=True):
        assert error(value, expected, max(scale, np.max(np.abs(expected)))) < 2 * tolerance


def test_a_stage_made_again_is_the_stage_that_was_stored():
    for activation, passes in (("relu", "piecewise"), ("tanh", "general"), ("relu", "matrix")):
        field = make_field(4, 3, activation)
        cpu = two_layer_kernels("cpu", field, 700, "float64", passes=passes)
        theta, slopes = cpu.array(state(field, 700)), cpu.empty(2)
        slopes[:] = np.random.default_rng(5).normal(size=slopes.shape)
        here, weights, e = np.array([0.5, 0.25]), np.array([0.1, 0.2, 0.7]), np.ones(4)
        stored, out, again, slope = cpu.empty(), cpu.empty(), cpu.empty(), cpu.empty()
        cpu.combine(theta, slopes, here, 0.1, stored)
        f = cpu.advance(stored, e, theta, slopes, weights, 0.1, out)
        g = cpu.advance(None, e, theta, slopes, weights, 0.1, again, slope, here)
        assert np.array_equal(f, g)
        assert np.array_equal(out, again)


def compare_registers(reference, cpu, theta, residual, sizes, tolerance):
    """Two stages from the same registers, the first of them with a memory that holds anything."""
    outputs_size, rate_size = sizes
    results = []
    for kernels in (reference, cpu):
        moving, error_, memory = theta.copy(), 0.5 * theta, np.full_like(theta, np.nan)
        base = 0.9 * theta
        found = []
        for fresh, factors in (
            (True, [0.3, 0.2, 0.7, 0.1, 0.4]),
            (False, [-0.4, 1.1, 0.6, -0.2, 1]),
        ):
            f = kernels.advance_registers(
                moving, residual, memory, base, error_, np.array(factors), fresh
            )
            found.append((f, moving.copy(), memory.copy(), error_.copy()))
        results.append(found)
    scales = (outputs_size, rate_size, rate_size, rate_size)
    for ours, expected in zip(results[1], results[0], strict=True):
        for value, wanted, scale in zip(ours, expected, scales, strict=True):
            assert error(value, wanted, max(scale, np.max(np.abs(wanted)))) < tolerance


def compare_recurrences(reference, cpu, theta, residual, sizes, tolerance):
    """A stage into a place of its own, and one into that of the stage before."""
    results = []
    for kernels in (reference, cpu):
        base, first = 0.9 * theta, 0.3 * theta
        previous, out = 1.1 * theta, np.full_like(theta, np.nan)
        factors = np.array([1.9, -0.8, 0.1, -0.2])
        f = kernels.advance_recurrence(theta, residual, previous, base, first, factors, out)
        g = kernels.advance_recurrence(theta, residual, previous, base, first, factors, previous)
        assert np.array_equal(f, g)
        assert np.array_equal(out, previous)
        results.append((f, out))
    for value, wanted, scale in zip(results[1], results[0], sizes, strict=True):
        assert error(value, wanted, max(scale, np.max(np.abs(wanted)))) < tolerance


def test_a_recurrence_is_what_its_formula_says():
    """With the parts that `rate` and `outputs` give, whatever the backend."""
    field = make_field(4, 2, "tanh")
    for kernels in pair(field, 300, "float64"):
        theta, previous, base, first = (state(field, 300, seed) for seed in range(4))
        residual = np.linspace(-1.0, 2.0, 4)
        k, out = kernels.empty(), kernels.empty()
        kernels.rate(theta, residual, k)
        new = base + 1.7 * (theta - base) - 0.6 * (previous - base) + 0.05 * k - 0.4 * first
        factors = np.array([1.7, -0.6, 0.05, -0.4])
        f = kernels.advance_recurrence(theta, residual, previous, base, first, factors, out)
        np.testing.assert_allclose(out, new, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(f, kernels.outputs(new), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", HOST_BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_recurrence_leaves_a_frozen_layer_where_it_is(backend, dtype):
    field = replace(make_field(4, 2, "tanh"), input_mobility=0.0)
    kernels = two_layer_kernels(backend, field, 300, dtype)
    base = kernels.array(state(field, 300))
    first, theta, previous = np.zeros_like(base), base.copy(), base.copy()
    for factors in ([1.7, -0.6, 0.1, 0.3], [2.1, -1.15, 0.2, -0.1]):
        kernels.advance_recurrence(
            theta, np.ones(4), previous, base, first, np.array(factors), previous
        )
        theta, previous = previous, theta
    assert np.array_equal(theta[1:], base[1:])
    assert not np.array_equal(theta[0], base[0])


def test_registers_are_what_their_formulas_say():
    """With the parts that `rate` and `outputs` give, whatever the backend."""
    field = make_field(4, 2, "tanh")
    for kernels in pair(field, 300, "float64"):
        theta, base, memory, error_ = (state(field, 300, seed) for seed in range(4))
        residual = np.linspace(-1.0, 2.0, 4)
        k = kernels.empty()
        kernels.rate(theta, residual, k)
        new_memory = memory + 0.3 * (theta - base)
        new_error = error_ + 0.7 * k
        new_theta = base + 0.4 * (theta - base) - 1.2 * new_memory + 0.05 * k
        factors = np.array([0.3, 0.4, -1.2, 0.05, 0.7])
        f = kernels.advance_registers(theta, residual, memory, base, error_, factors)
        for value, expected in ((theta, new_theta), (memory, new_memory), (error_, new_error)):
            np.testing.assert_allclose(value, expected, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(f, kernels.outputs(new_theta), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", HOST_BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_registers_leave_a_frozen_layer_where_it_is(backend, dtype):
    field = replace(make_field(4, 2, "tanh"), input_mobility=0.0)
    kernels = two_layer_kernels(backend, field, 300, dtype)
    base = kernels.array(state(field, 300))
    theta, memory, error_ = base.copy(), kernels.empty(), np.zeros_like(base)
    for fresh in (True, False, False):
        factors = np.array([0.34, 0.26, 0.55, 0.1, 0.4])
        kernels.advance_registers(theta, np.ones(4), memory, base, error_, factors, fresh)
    assert np.array_equal(theta[1:], base[1:])
    assert not np.array_equal(theta[0], base[0])


def test_a_large_gram_matrix_over_several_groups():
    field = make_field(20, 2)
    neurons = BLOCK * (GRAM_GROUP + 3) + 5
    reference, cpu = pair(field, neurons, "float64")
    theta = state(field, neurons)
    assert error(cpu.grams(theta), reference.grams(theta)) < 1e-13


@pytest.mark.parametrize("backend", HOST_BACKENDS)
def test_combinations_in_place_of_a_slope(backend):
    field = make_field(4, 2, "tanh")
    kernels = two_layer_kernels(backend, field, 1000, "float64")
    theta, residual = state(field, 1000), np.ones(4)
    slopes = np.stack([state(field, 1000, 2), state(field, 1000, 3)])
    out, weights = kernels.empty(), np.array([0.2, -0.3, 0.5])
    expected = kernels.combine(theta, slopes, weights[:2], 0.1, out)
    again = slopes.copy()
    assert np.array_equal(kernels.combine(theta, again, weights[:2], 0.1, again[1]), expected)
    assert np.array_equal(again[1], out)
    expected = kernels.advance(theta, residual, theta, slopes, weights, 0.1, out)
    f = kernels.advance(theta, residual, theta, slopes, weights, 0.1, slopes[0])
    assert np.array_equal(f, expected)
    assert np.array_equal(slopes[0], out)


def test_advance_in_place_of_its_own_input():
    field = make_field(4, 2, "tanh")
    _, cpu = pair(field, 1000, "float64")
    theta = cpu.array(state(field, 1000))
    residual = np.ones(4)
    base, out, none = theta.copy(), cpu.empty(), cpu.empty(0)
    expected = cpu.advance(theta, residual, base, none, np.array([1.0]), 0.1, out)
    again = cpu.advance(theta, residual, base, none, np.array([1.0]), 0.1, theta)
    assert np.array_equal(expected, again)
    assert np.array_equal(out, theta)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bits_do_not_depend_on_threads_or_on_the_run(dtype):
    field = make_field(6, 3)
    neurons = 150_000
    theta = state(field, neurons).astype(dtype)
    residual = np.linspace(-1, 1, 6)
    seen = set()
    for threads in (1, 1, 2, 3, 5):
        _, cpu = pair(field, neurons, dtype, threads)
        assert cpu.passes.threads == threads
        out = cpu.empty()
        f = cpu.advance(
            theta, residual, theta, cpu.empty(0), np.array([1.0]), 0.1, out, cpu.empty()
        )
        registers = [theta.copy(), 0.1 * theta, 0.2 * theta]
        moving, memory, error_ = registers
        g = cpu.advance_registers(
            moving, residual, memory, theta, error_, np.array([0.3, 0.2, 0.7, 0.1, 0.4])
        )
        past = cpu.empty()
        factors = np.array([1.9, -0.8, 0.1, -0.2])
        k = cpu.advance_recurrence(moving, residual, memory, theta, error_, factors, past)
        sums = (f, g, k, cpu.grams(theta), cpu.squared_norms(out, theta, neurons))
        parts = (*sums, out, past, *registers)
        seen.add(b"".join(part.tobytes() for part in parts))
    assert len(seen) == 1


def test_no_parameter_compiles_the_kernels_again():
    compiled = {}
    for n, scale in ((1, 1.0), (4, 0.5), (9, 2.0)):
        for activation in ("relu", "leaky_relu", "tanh", "gelu"):
            for d in (1, 2, 3):
                for dtype in ("float64", "float32"):
                    field = make_field(n, d, activation, scale=scale)
                    _, cpu = pair(field, 300, dtype)
                    theta = cpu.array(state(field, 300))
                    cpu.outputs(theta)
                    cpu.rate(theta, np.ones(n), cpu.empty())
                    slopes = np.zeros_like(cpu.empty(2))
                    cpu.advance(theta, np.ones(n), theta, slopes, np.ones(2), 0.1, cpu.empty())
                    registers = [theta.copy() for _ in range(3)]
                    cpu.advance_registers(theta, np.ones(n), *registers, np.ones(5))
        compiled[n] = len(sweep_module.sweep.signatures), len(fused_module.sweep.signatures)
    assert compiled[1] == compiled[4] == compiled[9]
    assert compiled[1][0] == 2  # a dtype


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_derivatives_are_those_of_the_values(name):
    activation = ACTIVATIONS[name]
    z = np.array([-30.0, -3.1, -1.0, -0.2, 0.3, 1.1, 2.7, 30.0])
    h = 1e-6
    slope = (activation.value(z + h) - activation.value(z - h)) / (2 * h)
    np.testing.assert_allclose(activation.derivative(z), slope, rtol=1e-7, atol=1e-8)


DEFINITIONS = {
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "leaky_relu": lambda z: z if z > 0 else mpmath.mpf("0.01") * z,
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "gelu": lambda z: z * (1 + mpmath.erf(z / mpmath.sqrt(2))) / 2,
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "linear": lambda z: z,
    "x_tanh_x": lambda z: z * mpmath.tanh(z),
    "x2_tanh_x": lambda z: z * z * mpmath.tanh(z),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_are_those_of_the_definitions(name):
    points = [-40.0, -5.5, -1.0, -1e-3, 0.0, 1e-3, 0.7, 3.0, 40.0]
    expected = [float(DEFINITIONS[name](mpmath.mpf(z))) for z in points]
    np.testing.assert_allclose(
        ACTIVATIONS[name].value(np.array(points)), expected, rtol=1e-13, atol=1e-15
    )


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 2e-6)])
def test_second_derivatives_are_those_of_the_definitions(name, dtype, tolerance):
    """In both backends, of sigma(scale z) / scale; kinked ones have none."""
    activation, scale = ACTIVATIONS[name], 0.75
    z = np.array([-30.0, -5.5, -1.0, -0.125, 0.25, 1.0, 2.5, 30.0], dtype)
    with mpmath.workdps(40):
        exact = [float(mpmath.diff(DEFINITIONS[name], mpmath.mpf(scale * float(x)), 2)) for x in z]
    expected = scale * np.array(exact)
    address, keep = compile_derivatives(activation, z.dtype)
    if activation.second_derivative is None:
        assert address == 0
        assert np.max(np.abs(expected)) < 1e-30  # differences of 40 digits
        return
    found = np.asarray(activation.second_derivative(scale * z), np.float64)
    np.testing.assert_allclose(scale * found, expected, rtol=tolerance, atol=tolerance)
    compiled, real = np.empty((3, len(z)), z.dtype), np.ctypeslib.as_ctypes_type(z.dtype)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_ssize_t, real)(address)
    function(z.ctypes.data, *(row.ctypes.data for row in compiled), len(z), scale)
    np.testing.assert_allclose(compiled[2], expected, rtol=tolerance, atol=tolerance)
    values = activation.value(scale * z) / scale, activation.derivative(scale * z)
    np.testing.assert_allclose(compiled[:2], values, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", HOST_BACKENDS)
def test_relu_has_no_slope_at_the_kink(backend):
    field = TwoLayerField(np.array([[1.0]]), ACTIVATIONS["relu"], 1.0, 1.0, 1.0, 1.0)
    kernels = two_layer_kernels(backend, field, 1, "float64")
    out = kernels.empty()
    kernels.rate(np.array([[1.0], [0.0]]), np.array([1.0]), out)
    assert out.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("name", sorted(n for n, a in ACTIVATIONS.items() if a.homogeneous))
def test_homogeneous_activations_are(name):
    value = ACTIVATIONS[name].value
    z = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(value(2.5 * z), 2.5 * value(z), rtol=1e-15)


def test_a_nan_in_one_neuron_is_not_lost():
    field = make_field(4, 2)
    _, cpu = pair(field, 600, "float64")
    theta = state(field, 600)
    theta[1, 500] = np.nan
    assert np.isnan(cpu.outputs(theta)).all()


def test_a_users_own_activation_compiles_and_agrees():
    own = Activation(
        "softsign_erf",
        lambda z: z / (1.0 + abs(z)) + 0.1 * erf(z),
        lambda z: 1.0 / (1.0 + abs(z)) ** 2 + 0.2 / math.sqrt(math.pi) * np.exp(-z * z),
    )
    x = np.random.default_rng(0).normal(size=(3, 2))
    field = TwoLayerField(x, own, 1.0, 0.5, 1.0, 1.0)
    compare(field, 300, "float64")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_slopes_kept_backwards_give_the_same_bits(dtype):
    field = make_field(4, 3)
    for neurons in (BLOCK + 7, 3 * fused_module.CACHED // 32):  # the large one asks ahead
        cpu = two_layer_kernels("cpu", field, neurons, dtype)
        assert cpu.turns
        theta, e = cpu.array(state(field, neurons)), np.linspace(-1.0, 1.0, 4)
        forwards = cpu.empty(3)
        for j, slope in enumerate(forwards):
            cpu.rate(theta, (1.0 + j) * e, slope)
        backwards = forwards[::-1].copy()[::-1]
        here, weights, errors = np.array([0.5, 0.2]), np.array([0.1, 0.2, 0.7]), np.ones((2, 3))
        seen = set()
        for slopes in (forwards, backwards):
            out, slope = cpu.empty(), cpu.empty()
            parts = [cpu.combine(theta, slopes, weights, 0.1, out), out]
            parts.append(cpu.advance(None, e, theta, slopes[:2], weights, 0.1, None, slope, here))
            parts += [slope, *cpu.rate_and_errors(theta, e, slopes, errors, 0.1), slopes[2]]
            seen.add(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
        assert len(seen) == 1
