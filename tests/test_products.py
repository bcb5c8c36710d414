"""Products with the derivative of f, one interface for networks of any depth."""

import numpy as np
import pytest
from deep_flows import jacobian, make_flow, make_inputs, make_network, mobilities
from flows import make_flow as make_two_layer_flow
from flows import make_network as make_two_layer_network
from kernel_cases import HOST_BACKENDS
from test_kernels import WAYS, error, make_field, state

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS

DEEP_WAYS = [("cpu", "dense"), ("cpu", "factored"), ("reference", "dense")]


def dense(flow, slope):
    """A slope written out, whatever the flow keeps it as."""
    out = flow.empty()
    zero = flow.kernels.array(np.zeros_like(np.asarray(flow.initial)))
    one = flow.empty(1)
    one[0][...] = slope
    flow.combine(zero, one, np.ones(1), 1.0, out)
    return np.array(out, np.float64)


def close(found, expected, tolerance=1e-12):
    assert np.max(np.abs(found - expected)) <= tolerance * np.max(np.abs(expected))


@pytest.mark.parametrize("passes", sorted(WAYS))
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear", "gelu"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-5)])
def test_every_way_of_passing_agrees_with_the_reference(passes, activation, dtype, tolerance):
    many = 20 if passes == "matrix" else 2
    for n, d, neurons in ((5, 3, 1100), (9, many, 700), (1, 1, 3)):
        field = make_field(n, d, activation, scale=0.7)
        reference = two_layer_kernels("reference", field, neurons, dtype)
        cpu = two_layer_kernels("cpu", field, neurons, dtype, 2, passes)
        theta, direction = (reference.array(state(field, neurons, seed)) for seed in (1, 2))
        terms = np.abs(field.x) @ np.abs(theta[1:] * direction[0])
        terms = np.max(np.sum(terms + np.abs(field.x) @ np.abs(direction[1:] * theta[0]), axis=1))
        found, expected = cpu.jvp(theta, direction), reference.jvp(theta, direction)
        assert error(found, expected, field.multiplier * terms) < tolerance
        cotangent = np.random.default_rng(3).normal(size=n)
        for mobilities_too in (True, False):
            slopes = [kernels.empty() for kernels in (cpu, reference)]
            for kernels, slope in zip((cpu, reference), slopes, strict=True):
                kernels.vjp(theta, cotangent, slope, mobilities_too)
            assert error(*slopes) < 2 * tolerance


@pytest.mark.parametrize("backend", HOST_BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_two_layers_have_the_kernel_that_the_products_make(backend, activation):
    """K v = Phi^T M Phi v, v . Phi^T w = w . Phi v, and the rate is M Phi (-e/n)."""
    network = make_two_layer_network(70, activation, 1.2, 0.3, mobility={"input": 0.7})
    flow = make_two_layer_flow(network, backend=backend)
    theta, v = flow.initial, np.array([0.3, -1.0, 0.2, 2.0])
    check_products(flow, theta, v)


@pytest.mark.parametrize("way", DEEP_WAYS, ids="-".join)
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize(("hidden", "outputs"), [(1, 1), (2, 1), (4, 1), (1, 3), (3, 2)])
def test_deep_networks_have_the_kernel_that_the_products_make(hidden, outputs, activation, way):
    network = make_network(
        hidden, 9, activation, biases=True, antisymmetric=hidden == 2, n_outputs=outputs
    )
    flow, theta = make_flow(network, make_inputs(outputs=outputs), way=way)
    v = np.random.default_rng(hidden).normal(size=flow.y.shape)
    check_products(flow, theta, v)
    full, slope = jacobian(flow, np.asarray(theta)), flow.empty(1)[0]
    full, flat = full.reshape(v.size, *np.shape(theta)), v.reshape(-1)
    flow.vjp(theta, v, slope, mobilities=False)
    close(dense(flow, slope), np.einsum("i,icp->cp", flat, full))
    along = np.einsum("icp,cp->i", full, dense(flow, slope))
    close(flow.jvp(theta, slope), along.reshape(v.shape))
    flow.vjp(theta, v, slope)
    close(dense(flow, slope), mobilities(flow) * np.einsum("i,icp->cp", flat, full))


def check_products(flow, theta, v):
    work = flow.empty(2)
    image = flow.kernel_times(theta, v, work[0])
    close(image, (flow.tangent_kernel(theta).matrix @ v.reshape(-1)).reshape(v.shape))
    # A direction that is not the image of v: the image of something else.
    flow.vjp(theta, np.cos(np.arange(v.size)).reshape(v.shape), work[0])
    flow.vjp(theta, v, work[1], mobilities=False)
    inner = np.vdot(dense(flow, work[0]), dense(flow, work[1]))
    assert np.vdot(v, flow.jvp(theta, work[0])) == pytest.approx(inner, rel=1e-12)
    residual = flow.residual(theta)
    flow.rate(theta, residual, work[0])
    flow.vjp(theta, -residual / flow.n_samples, work[1])
    close(dense(flow, work[1]), dense(flow, work[0]), 1e-14)
    rate = flow.tangent_kernel(theta).largest_rate
    assert flow.largest_rate(theta) == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("hidden", [0, 1, 3])
def test_along_a_direction_linear_networks_are_polynomials(hidden):
    """f(theta + s w) has degree L + 1 in s: its slope at 0 comes from L + 2 points exactly."""
    if hidden == 0:
        flow, degree = make_two_layer_flow(make_two_layer_network(40, "linear")), 2
        theta = flow.initial
    else:
        flow, theta = make_flow(make_network(hidden, 8, "linear", biases=True))
        degree = hidden + 1
    direction = np.random.default_rng(1).normal(size=np.asarray(theta).shape)
    points = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    values = [flow.residual(flow.kernels.array(theta + s * direction)) for s in points]
    slope = np.polynomial.polynomial.polyfit(points, np.array(values), degree)[1]
    close(flow.jvp(theta, flow.kernels.array(direction)), slope, 1e-11)


@pytest.mark.parametrize("passes", ["general", "piecewise", "matrix"])
def test_relu_at_its_kink_moves_nothing(passes):
    field = make_field(3, 2)
    cpu = two_layer_kernels("cpu", field, 9, "float64", passes=passes)
    theta, direction = np.zeros((3, 9)), np.ones((3, 9))
    theta[0] = 1.0  # w = 0: z = 0 for every sample, and w . x_i would move
    assert np.array_equal(cpu.jvp(theta, direction), np.zeros(3))


@pytest.mark.parametrize("passes", ["dense", "factored"])
def test_products_at_one_state_do_not_disturb_each_other(passes):
    """What is kept of a pass, for the next one at the same state, is not written over."""
    network, inputs = make_network(3, 30, "gelu", biases=True), make_inputs(6)
    flow, theta = make_flow(network, inputs, way=("cpu", passes))
    v, slopes = np.linspace(-1.0, 1.0, 6), flow.empty(2)
    flow.vjp(theta, v, slopes[0])
    before = flow.jvp(theta, slopes[0]), flow.residual(theta), flow.tangent_kernel(theta).matrix
    flow.vjp(theta, v, slopes[1])
    after = flow.jvp(theta, slopes[1]), flow.residual(theta), flow.tangent_kernel(theta).matrix
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    fresh, same = make_flow(network, inputs, way=("cpu", passes))
    assert np.array_equal(fresh.tangent_kernel(same).matrix, before[2])


def test_the_largest_rate_of_many_samples_needs_no_matrix():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(60, 3)), generator.normal(size=60)
    for activation in ("relu", "tanh"):
        flow = make_two_layer_flow(make_two_layer_network(300, activation), x, y)
        expected = flow.tangent_kernel(flow.initial).largest_rate
        found = flow.largest_rate(flow.initial)
        assert found == pytest.approx(expected, rel=1e-3)
        assert flow.largest_rate(flow.initial) == found
    dead = np.zeros_like(flow.initial)
    assert flow.largest_rate(dead) == 0.0
    dead[0, 0] = np.nan
    assert flow.largest_rate(dead) == np.inf


def test_all_activations_are_covered_by_the_reference():
    """The oracle itself: f at complex points, for every activation of one hidden layer."""
    for activation in ACTIVATIONS:
        flow, theta = make_flow(make_network(1, 6, activation), way=("reference", "dense"))
        direction = np.random.default_rng(2).normal(size=theta.shape)
        expected = np.einsum("icp,cp->i", jacobian(flow, theta), direction)
        close(flow.jvp(theta, direction), expected)
