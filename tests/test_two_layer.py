"""The two-layer network: initial values, gradients, tangent kernel, measures of the state."""

import numpy as np
import pytest
from flows import PUBLISHED_X, PUBLISHED_Y, make_flow, make_network
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsim.kernels.activations import ACTIVATIONS

SMOOTH = sorted(name for name, entry in ACTIVATIONS.items() if not entry.kinked)


def loss(flow, theta):
    return 0.5 * np.mean(flow.residual(theta) ** 2)


def test_initial_values_follow_the_seed():
    network = make_network(1000, "relu", seed=3)
    generator = np.random.default_rng(3)
    a, w = generator.normal(size=1000), generator.normal(size=(2, 1000))
    assert np.array_equal(network.initial_values(2), np.vstack([a, w]))


def test_antisymmetric_initial_values_give_the_zero_function():
    network = make_network(1000, "relu", antisymmetric=True)
    flow = make_flow(network)
    assert network.neurons == 2000
    assert np.max(np.abs(flow.residual(flow.initial) + PUBLISHED_Y)) < 1e-15
    state = flow.initial
    assert np.array_equal(state[0, :1000], -state[0, 1000:])
    assert np.array_equal(state[1:, :1000], state[1:, 1000:])


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("variables", ["normalised", "original"])
def test_rate_is_the_gradient_of_the_loss(activation, variables):
    network = make_network(9, activation, gamma=0.7, gamma_prime=0.2, beta2=0.6)
    if variables == "original":
        network = network.in_original_variables()
    flow = make_flow(network, backend="reference")
    rate = flow.empty()
    flow.rate(flow.initial, flow.residual(flow.initial), rate)
    mobility = np.array([flow.field.output_mobility] + [flow.field.input_mobility] * 2)
    h = 1e-6
    for row in range(3):
        for neuron in range(9):
            shifted = []
            for sign in (1, -1):
                theta = flow.initial.copy()
                theta[row, neuron] += sign * h
                shifted.append(loss(flow, theta))
            gradient = (shifted[0] - shifted[1]) / (2 * h)
            assert rate[row, neuron] == pytest.approx(-mobility[row] * gradient, rel=1e-5, abs=1e-7)


def test_rates_are_those_of_the_design():
    """da/dtau = -(1/kappa') (1/n) sum e sigma, dw/dtau = -kappa' (1/n) sum e a sigma' x."""
    network = make_network(6, "relu", gamma=0.8, gamma_prime=0.3)
    flow = make_flow(network)
    a, w = flow.initial[0], flow.initial[1:]
    e = flow.residual(flow.initial)
    z = PUBLISHED_X @ w
    kappa_prime = 6**-0.3
    expected_a = -(e @ np.maximum(z, 0)) / (4 * kappa_prime)
    expected_w = -kappa_prime * ((PUBLISHED_X * e[:, None]).T @ (a * (z > 0))) / 4
    rate = flow.empty()
    flow.rate(flow.initial, e, rate)
    np.testing.assert_allclose(rate[0], expected_a, rtol=1e-13)
    np.testing.assert_allclose(rate[1:], expected_w, rtol=1e-13)


@settings(max_examples=20, deadline=None)
@given(
    width=st.integers(1, 40),
    gamma=st.floats(0.3, 1.5),
    gamma_prime=st.floats(-0.5, 0.5),
    seed=st.integers(0, 1000),
)
def test_tangent_kernel_gives_the_slope_of_the_residual(width, gamma, gamma_prime, seed):
    """d e / dtau = -(K/n) e, and the layers' speeds are the norms of their rates."""
    network = make_network(width, "tanh", gamma, gamma_prime, beta2=0.8, seed=seed)
    flow = make_flow(network)
    theta = flow.initial
    e = flow.residual(theta)
    rate = flow.empty(1)
    flow.rate(theta, e, rate[0])
    kernel = flow.tangent_kernel(theta)
    out = flow.empty()
    h = 1e-4 / max(kernel.largest_rate, 1.0)
    one = np.array([1.0])
    slope = (flow.combine(theta, rate, one, h, out) - flow.combine(theta, rate, one, -h, out)) / (
        2 * h
    )
    expected = -kernel.matrix @ e / 4
    assert np.max(np.abs(slope - expected)) < 1e-4 * max(1e-3, np.max(np.abs(expected)))
    norms = [np.linalg.norm(rate[0, 1:]), np.linalg.norm(rate[0, 0])]
    np.testing.assert_allclose(kernel.layer_speeds(e), norms, rtol=1e-7, atol=1e-12)
    assert kernel.largest_rate == pytest.approx(kernel.eigenvalues[-1] / 4, rel=1e-12)


def test_relative_change_is_that_of_the_first_copy():
    network = make_network(100, "relu", antisymmetric=True)
    flow = make_flow(network)
    theta = flow.initial.copy()
    theta[:, 100:] += 5.0
    assert np.array_equal(flow.relative_change(theta), np.zeros(3))
    theta[1:, :100] *= 3.0
    change = flow.relative_change(theta)
    assert change[0] == pytest.approx(2.0)
    assert change[1] == 0.0
    w, a = np.linalg.norm(flow.initial[1:, :100]), np.linalg.norm(flow.initial[0, :100])
    assert change[2] == pytest.approx(2.0 * w / np.hypot(w, a))


def test_activity_counts_dead_neurons():
    network = make_network(3, "relu")
    initial = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.1], [0.0, -1.0, 1.0]])
    flow = make_flow(network, initial=initial)
    assert flow.activity(flow.initial) == (2, 1)


def test_the_invariant_exists_for_homogeneous_activations_only():
    flow = make_flow(make_network(10, "tanh"))
    assert np.isnan(flow.invariant_drift(flow.initial))
    flow = make_flow(make_network(10, "relu", gamma_prime=0.5))
    theta = flow.initial.copy()
    assert flow.invariant_drift(theta) == 0.0
    theta[0] *= np.sqrt(2.0)
    kappa_prime = 10**-0.5
    a2, w2 = flow.initial[0] ** 2, np.sum(flow.initial[1:] ** 2, axis=0)
    expected = np.max(kappa_prime**2 * a2 / (2 * kappa_prime**2 * a2 + w2))
    assert flow.invariant_drift(theta) == pytest.approx(expected)
