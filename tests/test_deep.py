"""Deep networks: gradients, tangent kernel, special cases, invariants; backends agree."""

import numpy as np
import pytest
from deep_flows import (
    SIGMA,
    jacobian,
    make_flow,
    make_inputs,
    make_network,
    mobilities,
    outputs,
    rate_of,
)
from flows import PUBLISHED_X, PUBLISHED_Y
from flows import make_flow as make_two_layer_flow
from flows import make_network as make_two_layer_network

from flowsim.deep_scaling import DeepScaling
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.networks.deep import DeepFlow, DeepNetwork
from flowsim.networks.operator_norm import difference_norm
from flowsim.steppers.driver import NoObserver, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.methods import MethodOptions, make_stepper

ONE = np.array([1.0])
WAYS = pytest.mark.parametrize(
    "way", [("cpu", "dense"), ("cpu", "factored"), ("reference", "dense")], ids="-".join
)


def close(found, expected, tolerance):
    assert np.max(np.abs(found - expected)) <= tolerance * np.max(np.abs(expected))


@WAYS
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_rates_are_gradients(activation, hidden, way):
    """To 1e-12 of complex steps through an account of the network that shares no code."""
    assert set(SIGMA) == set(ACTIVATIONS)
    network = make_network(
        hidden, 5, activation, biases=hidden != 2, antisymmetric=hidden == 2, seed=hidden
    )
    flow, theta = make_flow(network, way=way)
    residual, dense = flow.residual(theta), np.asarray(theta)
    close(residual, outputs(flow, dense) - flow.y, 1e-13)
    gradient = np.einsum("i,icp->cp", residual, jacobian(flow, dense)) / flow.n_samples
    close(rate_of(flow, theta, residual), -mobilities(flow) * gradient, 1e-12)


@WAYS
@pytest.mark.parametrize(("hidden", "outputs"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 3)])
def test_tangent_kernel_is_that_of_the_jacobian(hidden, outputs, way):
    network = make_network(
        hidden, 6, "gelu", biases=True, antisymmetric=hidden == 2, n_outputs=outputs
    )
    flow, theta = make_flow(network, make_inputs(outputs=outputs), way=way)
    kernel, full = flow.tangent_kernel(theta), jacobian(flow, np.asarray(theta))
    close(kernel.matrix, np.einsum("icp,p,jcp->ij", full, mobilities(flow), full), 1e-12)
    residual, rate = flow.residual(theta), flow.empty(1)
    flow.rate(theta, residual, rate[0])
    norms = flow.combination_norms(rate, ONE, 1.0)
    np.testing.assert_allclose(kernel.layer_speeds(residual), norms, rtol=1e-11)


def bounded(residual):
    """A residual of size 1 at most: what matters here is the arithmetic, and not the data."""
    return residual / max(1.0, np.max(np.abs(residual)))


def step_through(flow, theta, weights, errors):
    """All that a flow is asked for in a step with three stages, and after it."""
    slopes, states = flow.empty(4), [flow.empty() for _ in range(3)]
    one, two, three = weights[:1], weights[:2], weights
    e = bounded(flow.residual(theta))
    found = [e]
    e = bounded(flow.advance(theta, e, theta, slopes, one, 0.01, None, slopes[0]))
    found.append(e)
    e = bounded(flow.advance(None, e, theta, slopes, two, 0.01, None, slopes[1], one))
    found.append(e)
    e = bounded(flow.advance(None, e, theta, slopes, three, 0.01, states[0], slopes[2], two))
    ends, norms = flow.rate_and_errors(states[0], e, slopes, errors, 0.01)
    found += [e, *ends, norms, flow.layer_norms(states[0]), flow.norms(states[0])]
    found.append(flow.combine(theta, slopes, errors[0], 0.01, states[1]))
    found += [flow.combination_norms(slopes, errors[1], 0.02), flow.relative_change(states[1])]
    found += [flow.operator_change(states[0]), flow.tangent_kernel(states[0]).matrix]
    found += [np.array(state) for state in (states[0], states[1], states[0].copy())]
    flow.settle(states[0])
    # From here on the states before are gone: the next step begins with the last rate.
    found += [flow.residual(states[0]), flow.layer_norms(states[0]), np.array(states[0])]
    slopes[0][...] = slopes[3]
    e = bounded(flow.combine(states[0], slopes, one, 0.01, states[2]))
    ends, norms = flow.rate_and_errors(states[2], e, slopes[:2], errors[:, :2], 0.01)
    found += [e, *ends, norms, np.array(states[2])]
    e = bounded(flow.advance(states[0], e, states[0], None, ONE, 0.01, states[1]))
    found += [e, np.array(states[1]), *flow.parameters(states[1]).values()]
    return found


@pytest.mark.parametrize("case", range(22))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 3e-4)])
@pytest.mark.parametrize("passes", ["dense", "factored"])
def test_backends_agree(passes, dtype, tolerance, case):
    """Kept as factors or written out, in whatever order: one answer."""
    generator = np.random.default_rng(case)
    activation = sorted(ACTIVATIONS)[case % len(ACTIVATIONS)]
    # More layers of the fast-growing activation leave the range of float32.
    hidden = int(generator.integers(2, 5)) if activation != "x2_tanh_x" else 2
    copies, biases = (bool(generator.integers(2)) for _ in range(2))
    width, n = int(generator.integers(1, 150)), int(generator.integers(1, 40))
    exponents, outputs = [(0.0, 0.0, 0.0), *[(0.5, 0.0, 0.0)] * hidden], 1 + case % 3
    network = make_network(
        hidden, width, activation, exponents=exponents, antisymmetric=copies, biases=biases,
        n_outputs=outputs,
    )  # fmt: skip
    inputs = make_inputs(n, 3, case, outputs)
    threads = int(generator.integers(1, 4))
    flows = [
        make_flow(network, inputs, way=("reference", "dense"), dtype=dtype, moved=0.1),
        make_flow(network, inputs, way=("cpu", passes), threads=threads, dtype=dtype, moved=0.1),
    ]
    weights, errors = generator.normal(size=3), generator.normal(size=(2, 4))
    expected, found = (step_through(*pair, weights, errors) for pair in flows)
    for wanted, values in zip(expected, found, strict=True):
        scale = max(1.0, np.max(np.abs(wanted)))
        assert np.max(np.abs(values - wanted)) <= tolerance * scale


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 3e-4)])
@pytest.mark.parametrize(
    ("width", "n", "antisymmetric", "outputs"),
    [(150, 96, True, 1), (96, 101, False, 2), (89, 513, True, 1), (200, 110, False, 1)],
)
def test_rates_of_many_samples_agree(width, n, antisymmetric, outputs, dtype, tolerance):
    """With what is made of them at once, on both sides of where that is the way."""
    exponents = [(0.0, 0.0, 0.0), *[(0.5, 0.0, 0.0)] * 3]
    network = make_network(
        3, width, "silu", exponents=exponents, antisymmetric=antisymmetric, biases=antisymmetric,
        n_outputs=outputs,
    )  # fmt: skip
    inputs, generator = make_inputs(n, 3, 1, outputs), np.random.default_rng(n)
    flows = [
        make_flow(network, inputs, way=(backend, "dense"), dtype=dtype, moved=0.1)
        for backend in ("reference", "cpu")
    ]
    weights, errors = generator.normal(size=3), generator.normal(size=(2, 4))
    expected, found = (step_through(*pair, weights, errors) for pair in flows)
    for wanted, values in zip(expected, found, strict=True):
        scale = max(1.0, np.max(np.abs(wanted)))
        assert np.max(np.abs(values - wanted)) <= tolerance * scale


def test_the_last_rate_of_a_step_is_the_first_of_the_next():
    """A run that is continued makes it anew."""
    flow, theta = make_flow(make_network(2, 100), make_inputs(100), way=("cpu", "dense"))
    slopes, again, ahead = flow.empty(2), flow.empty(1), flow.empty()
    residual = flow.residual(theta)
    residual = flow.advance(theta, residual, theta, slopes, ONE, 0.1, ahead, slopes[0])
    flow.rate_and_errors(ahead, residual, slopes, np.array([[1.0, -1.0]]), 0.1)
    flow.rate(ahead, residual, again[0])
    assert np.array_equal(slopes[1], again[0])


def test_registers_are_those_of_the_reference():
    network, inputs = make_network(3, 9, "silu", biases=True, antisymmetric=True), make_inputs(6)
    factors = np.array([0.7, 0.9, 0.2, 0.1, 0.3])
    found = []
    for way in (("reference", "dense"), ("cpu", "dense")):
        flow, theta = make_flow(network, inputs, way=way)
        others = np.random.default_rng(1).normal(size=(3, *theta.shape))
        base, memory, error = (flow.kernels.array(values) for values in others)
        f = flow.advance_registers(theta, flow.residual(theta), memory, base, error, factors)
        found.append([f, theta, memory, error])
    for expected, values in zip(*found, strict=True):
        close(values, expected, 1e-12)


def test_recurrences_are_those_of_the_reference():
    network, inputs = make_network(3, 9, "silu", biases=True, antisymmetric=True), make_inputs(6)
    factors = np.array([1.7, -0.6, 0.05, -0.4])
    found = []
    for way in (("reference", "dense"), ("cpu", "dense")):
        flow, theta = make_flow(network, inputs, way=way)
        others = np.random.default_rng(1).normal(size=(3, *theta.shape))
        previous, base, first = (flow.kernels.array(values) for values in others)
        e, out = flow.residual(theta), flow.empty()
        f = flow.advance_recurrence(theta, e, previous, base, first, factors, out)
        g = flow.advance_recurrence(theta, e, previous, base, first, factors, previous)
        assert np.array_equal(f, g)
        assert np.array_equal(out, previous)
        found.append([f, out])
    for expected, values in zip(*found, strict=True):
        close(values, expected, 1e-12)


def test_errors_keep_their_digits_where_the_rates_nearly_cancel():
    """The norm of a sum of factors a billion times smaller than each."""
    network = make_network(2, 40, "tanh", exponents=[(0.0, 0.0, 0.0), *[(0.5, 0.0, 0.0)] * 2])
    found = []
    for way in (("cpu", "dense"), ("cpu", "factored")):
        flow, theta = make_flow(network, way=way)
        slopes, residual = flow.empty(3), flow.residual(theta)
        flow.rate(theta, residual, slopes[0])
        flow.advance(None, residual, theta, slopes, np.zeros(2), 1e-5, None, slopes[1], ONE)
        flow.advance(None, residual, theta, slopes, np.zeros(2), 2e-5, None, slopes[2], ONE)
        found.append(flow.combination_norms(slopes, np.array([1.0, -2.0, 1.0]), 1.0))
        whole = flow.combination_norms(slopes, np.array([1.0, 0.0, 0.0]), 1.0)
    assert np.all(found[0] < 1e-8 * whole)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_a_state_of_a_step_that_is_over_is_refused():
    flow, theta = make_flow(make_network(2, 8), way=("cpu", "factored"))
    slopes, ahead = flow.empty(1), flow.empty()
    residual = flow.residual(theta)
    flow.advance(theta, residual, theta, slopes, ONE, 0.1, ahead, slopes[0])
    flow.settle(ahead)
    with pytest.raises(RuntimeError, match="after the step"):
        flow.residual(theta)


@pytest.mark.parametrize(("passes", "n"), [("dense", 40), ("dense", 100), ("factored", 40)])
def test_threads_do_not_change_a_bit(passes, n):
    network = make_network(3, 700, "silu", biases=True)
    results = []
    for threads in (1, 2, 3):
        flow, theta = make_flow(network, make_inputs(n), threads=threads, way=("cpu", passes))
        slopes, out = flow.empty(1), flow.empty()
        residual = flow.residual(theta)
        ahead = flow.advance(theta, residual, theta, slopes, ONE, 0.1, out, slopes[0])
        numbers = [flow.layer_norms(out), flow.tangent_kernel(out).matrix, residual, ahead]
        flow.settle(out)
        numbers += [np.asarray(out), flow.layer_norms(out), flow.relative_change(out)]
        results.append([one.tobytes() for one in numbers])
    assert results[0] == results[1] == results[2]


def as_deep(network):
    """A two-layer network as the deep one with a single hidden layer."""
    scaling = network.scaling
    kappa, kappa_prime = scaling.kappa, scaling.kappa_prime
    numbers = ([1.0, kappa], [1.0, 1.0], [kappa_prime / kappa, 1.0 / (kappa * kappa_prime)])
    return DeepNetwork(
        DeepScaling.from_numbers(scaling.width, *numbers),
        network.activation,
        antisymmetric=network.antisymmetric,
    )


@pytest.mark.parametrize("antisymmetric", [False, True])
@pytest.mark.parametrize(("activation", "method"), [("relu", "heun"), ("tanh", "tsit54")])
def test_one_hidden_layer_is_the_two_layer_network(activation, method, antisymmetric):
    two = make_two_layer_network(40, activation, 1.2, 0.3, antisymmetric=antisymmetric)
    values = two.initial_values(2)[:, :40]
    network = as_deep(two)
    initial = network.stack({"input_weights": values[1:], "output_weights": values[0]}, 2)
    flows = [
        make_two_layer_flow(two),
        DeepFlow(network, PUBLISHED_X, PUBLISHED_Y, initial=initial),
    ]
    ends = []
    for flow in flows:
        _, stepper = make_stepper(method, MethodOptions(rtol=1e-4), flow.kinked)
        rules = StopRules(stop_loss=0.0, max_steps=60)
        end = integrate(flow, stepper, rules, NoObserver())
        ends.append([end.point.time, *end.point.residual, *flow.relative_change(end.point.theta)])
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("activation", "outputs"), [("relu", 1), ("gelu", 1), ("relu", 3)])
def test_original_and_normalised_flow_are_the_same(activation, outputs):
    """The same f after every one of 300 equal steps, to rounding."""
    network = DeepNetwork(
        DeepScaling.from_gammas(30, 0.1, -0.2, 1.4), ACTIVATIONS[activation], biases=True,
        n_outputs=outputs,
    )  # fmt: skip
    x, y = make_inputs(4, outputs=outputs)
    original_network = network.in_original_variables()
    arrays = DeepFlow(network, x, y).parameters(network.initial_values(3))
    arrays["hidden_biases_2"] = np.linspace(-1.0, 1.0, 30)
    normalised, original = (
        DeepFlow(one, x, y, initial=one.stack(arrays, 3)) for one in (network, original_network)
    )
    for layer, scale in enumerate(network.scaling.scales):
        weights = [
            flow.field.layout.weights(flow.initial[0], layer) for flow in (normalised, original)
        ]
        np.testing.assert_allclose(weights[1], scale.std * weights[0], rtol=1e-14)
    step = 0.2 / normalised.tangent_kernel(normalised.initial).largest_rate
    states = [flow.initial.copy() for flow in (normalised, original)]
    residuals = [flow.residual(flow.initial) for flow in (normalised, original)]
    for _ in range(300):
        for k, flow in enumerate((normalised, original)):
            out = flow.empty()
            residuals[k] = flow.advance(states[k], residuals[k], states[k], None, ONE, step, out)
            states[k] = out
        np.testing.assert_allclose(residuals[0], residuals[1], rtol=0.0, atol=1e-12)
    assert np.mean(residuals[0] ** 2) < 0.9 * np.mean(normalised.residual(normalised.initial) ** 2)


def test_weights_of_linear_layers_keep_their_balance():
    """W_(l+1) W_(l+1)^T - W_l^T W_l is constant at equal mobilities (rows of W_l are fan_in)."""
    network = make_network(3, 6, "linear", exponents=[(0.2, 0.0, 0.0)] * 4)
    flow, _ = make_flow(network)
    _, stepper = make_stepper("dop853", MethodOptions(rtol=1e-11, atol=1e-12), False)
    end = integrate(flow, stepper, StopRules(stop_loss=0.0, t_max=2.0), NoObserver())
    differences = []
    for state in (flow.initial, end.point.theta):
        w = [flow.field.layout.weights(state[0], layer) for layer in range(4)]
        pairs = zip(w, w[1:], strict=False)
        differences.append([later @ later.T - earlier.T @ earlier for earlier, later in pairs])
    assert flow.relative_change(end.point.theta)[-1] > 0.05
    for before, after in zip(*differences, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-9 * np.max(np.abs(before)))
    assert flow.balance_drift(end.point.theta) < 1e-9


def test_layers_of_relu_grow_alike():
    network = DeepNetwork(DeepScaling.from_gammas(60, 0.0, 0.1, 2.0), ACTIVATIONS["relu"])
    flow = DeepFlow(network, PUBLISHED_X, PUBLISHED_Y)
    drifts = []
    for rtol in (1e-3, 1e-5):
        _, stepper = make_stepper("heun", MethodOptions(rtol=rtol), True)
        end = integrate(flow, stepper, StopRules(stop_loss=1e-5), NoObserver())
        drifts.append(flow.balance_drift(end.point.theta))
    assert drifts[0] < 2e-4
    assert drifts[1] < 0.1 * drifts[0]
    assert np.isnan(make_flow(make_network(2, 5, "tanh"))[0].balance_drift(flow.initial))


def test_antisymmetric_copies_give_the_zero_function():
    network = make_network(3, 20, "erf", antisymmetric=True)
    flow, _ = make_flow(network)
    assert np.max(np.abs(flow.residual(flow.initial) + flow.y)) == 0.0
    theta = flow.initial.copy()
    theta[1] += 5.0
    assert np.array_equal(flow.relative_change(theta), np.zeros(5))
    theta[0] *= 3.0
    np.testing.assert_allclose(flow.relative_change(theta), 2.0)
    np.testing.assert_allclose(flow.operator_change(theta), 2.0)


@pytest.mark.parametrize(("rows", "columns"), [(3, 200), (200, 3), (150, 180), (300, 129)])
def test_operator_norms_are_largest_singular_values(rows, columns):
    generator = np.random.default_rng(rows)
    one, other = generator.normal(size=(2, rows, columns))
    for reference, matrix in ((None, one), (other, one - other)):
        expected = np.linalg.svd(matrix, compute_uv=False)[0]
        assert difference_norm(one, reference) == pytest.approx(expected, rel=1e-4)
    # The change of a trained matrix: few directions, far below the matrix itself.
    change = 1e-9 * np.outer(generator.normal(size=rows), generator.normal(size=columns))
    expected = np.linalg.svd(change, compute_uv=False)[0]
    assert difference_norm(one + change, one) == pytest.approx(expected, rel=1e-5)
    assert difference_norm(one, one) == 0.0


@pytest.mark.parametrize(
    ("passes", "width", "n", "dtype"),
    [("dense", 40, 6, "float64"), ("factored", 40, 6, "float64"),
     ("dense", 136, 100, "float64"), ("dense", 136, 100, "float32")],
)  # fmt: skip
def test_a_stage_made_again_is_the_stage_that_was_stored(passes, width, n, dtype):
    """Also where it is not made again, because the call before has left it."""
    network = make_network(2, width, antisymmetric=True)
    flow, theta = make_flow(network, make_inputs(n), way=("cpu", passes), dtype=dtype)
    e, here, weights = np.linspace(-1.0, 1.0, n), np.array([0.5, 0.25]), np.array([0.1, 0.2, 0.7])

    def two_stages(first, between, stage):
        slopes, out = flow.empty(3), flow.empty()
        flow.rate(theta, first, slopes[0])
        ends = [flow.advance(None, e, theta, slopes, here, 0.1, stage, slopes[1], here[:1])]
        between(slopes)
        ends.append(flow.advance(None, e, theta, slopes, weights, 0.1, out, slopes[2], here))
        return [*ends, np.array(out)]

    left = two_stages(e, lambda slopes: None, None)
    stored = two_stages(e, lambda slopes: None, flow.empty())
    disturbed = two_stages(e, lambda slopes: flow.rate(theta, e, slopes[2]), None)
    for one, two, three in zip(left, stored, disturbed, strict=True):
        assert np.array_equal(one, two) and np.array_equal(one, three)
    # Another slope in the same place and with the same weights makes another stage.
    other = two_stages(e, lambda slopes: flow.rate(theta, -e, slopes[0]), None)
    assert np.array_equal(other[0], left[0]) and not np.allclose(other[1], left[1])
