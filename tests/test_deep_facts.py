"""What is known of deep networks as m grows, exactly or by a slope (Hajjar et al., Yang and Hu)."""

import numpy as np
import pytest
from flows import PUBLISHED_X, PUBLISHED_Y

from flowsim.deep_predictions import all_predicted_slopes, predicted_zero
from flowsim.deep_scaling import DEEP_SCHEMES, DeepScaling
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.networks.deep import DeepFlow, DeepNetwork
from flowsim.steppers.driver import NoObserver, Observer, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.methods import METHODS, MethodOptions, make_stepper

ONE_X, NO_Y = np.array([[1.0]]), np.zeros(1)


def scheme(name, width, hidden, activation="relu", **options):
    return DeepNetwork(
        DeepScaling.from_scheme(name, width, hidden), ACTIVATIONS[activation], **options
    )


def train(flow, observer=None, method="tsit54", **rules):
    options = MethodOptions(rtol=1e-6, atol=1e-9)
    _, stepper = make_stepper(method, options, flow.kinked)
    rules = StopRules(**{"stop_loss": 0.0, **rules})
    return integrate(flow, stepper, rules, observer or NoObserver()).point


def slope(widths, values):
    """Of the mean logarithm over seeds: values (widths, seeds)."""
    return np.polyfit(np.log(widths), np.mean(np.log(values), axis=1), 1)[0]


@pytest.mark.parametrize("hidden", [1, 2, 3, 5])
def test_outputs_of_the_integrable_scheme_are_those_of_mup_but_for_a_power(hidden):
    width = 120
    ip, mup = (
        DeepFlow(scheme(name, width, hidden, seed=3), PUBLISHED_X, np.zeros(4))
        for name in ("ip", "mup")
    )
    f = [flow.residual(flow.initial) for flow in (ip, mup)]
    np.testing.assert_allclose(f[0], f[1] * width ** (-(hidden - 1) / 2), rtol=1e-12)


def run_steps(name, width, hidden, steps=0, activation="relu", step=0.2, both=True, **first):
    """The flow of a scheme and its state after the first step and ``steps`` of descent."""
    scaling = DeepScaling.from_scheme(name, width, hidden, **first)
    network = DeepNetwork(scaling, ACTIVATIONS[activation], antisymmetric=both, seed=2)
    flow = DeepFlow(network, PUBLISHED_X, PUBLISHED_Y, passes="dense")
    descent = METHODS["gradient-descent"](MethodOptions(step=step))
    rules = StopRules(stop_loss=0.0, max_steps=steps + 1)
    return flow, integrate(flow, descent, rules, NoObserver()).point


def matrices(flow, theta):
    """The matrices W_l that signals are multiplied by, first copy."""
    layout = flow.field.layout
    return [
        multiplier * layout.weights(np.asarray(theta)[0], layer)
        for layer, multiplier in enumerate(flow.field.multipliers)
    ]


@pytest.mark.parametrize("hidden", [2, 3, 5])
def test_large_rates_make_the_first_step_of_the_integrable_scheme_that_of_mup(hidden):
    """The same change of the matrices W for the same U and dR/df, at any m: IP-LLR."""
    changes = []
    for name, options in (("ip-llr", {"first_step": 0.7}), ("mup", {"step": 0.7})):
        flow, end = run_steps(name, 90, hidden, **options)
        assert end.time == 0.7
        pairs = zip(matrices(flow, end.theta), matrices(flow, flow.initial), strict=True)
        changes.append([after - before for after, before in pairs])
    for one, two in zip(*changes, strict=True):
        # A change is the difference of matrices: rounding is that of these.
        np.testing.assert_allclose(one, two, rtol=0.0, atol=1e-12 * np.max(np.abs(two)))


def test_after_large_rates_the_integrable_scheme_is_the_hybrid():
    """IP-LLR and HP give every matrix the same values after every step, for the same U."""
    ends = [run_steps(name, 90, 3, 20, first_step=0.7) for name in ("ip-llr", "hp")]
    for one, two in zip(*(matrices(flow, end.theta) for flow, end in ends), strict=True):
        np.testing.assert_allclose(one, two, rtol=0.0, atol=1e-12 * np.max(np.abs(two)))
    # Dropped altogether, the initial matrices leave their change: of rank n.
    flow, end = run_steps("hpz", 90, 3, first_step=0.7)
    assert np.linalg.matrix_rank(matrices(flow, end.theta)[1]) <= len(PUBLISHED_X)


def test_calibrated_layers_change_their_preactivations_as_asked():
    """By 1 in the mean, the output by a tenth: each by its own weights, on the new signals."""
    flow, end = run_steps("ip-llr", 200, 3, activation="gelu", both=False, calibrate=True)
    rates = flow.first_step.learning_rates
    assert np.all((rates > 0.0) & (rates < 500.0))
    before, after = matrices(flow, flow.initial), matrices(flow, end.theta)
    signal, gelu = flow.field.x, flow.field.activation.value
    for layer in range(3):
        assert np.mean(np.abs(signal @ (after[layer] - before[layer]))) == pytest.approx(1.0)
        signal = gelu(signal @ after[layer])
    push = signal @ (after[3] - before[3])
    assert np.mean(np.abs(push)) == pytest.approx(0.1)


def test_a_layer_that_nothing_can_change_is_given_the_largest_rate():
    scaling = DeepScaling.from_scheme("ip-llr", 50, 2, calibrate=True)
    flow = DeepFlow(DeepNetwork(scaling, ACTIVATIONS["relu"]), ONE_X, NO_Y)
    flow.y = flow.residual(flow.initial)  # fitted from the start
    np.testing.assert_array_equal(flow.first_step.learning_rates, 500.0)


def test_biases_of_their_own_keep_every_layer_at_order_one():
    """IP-bias: the first step changes biases and weights of every layer by O(1) in h, any m."""
    changes = []
    for width in (64, 256, 1024):
        scaling = DeepScaling.from_scheme("ip-bias", width, 3)
        network = DeepNetwork(scaling, ACTIVATIONS["tanh"], biases=True, seed=1)
        flow = DeepFlow(network, PUBLISHED_X, 3.0 + PUBLISHED_Y, passes="dense")
        initial, field = np.asarray(flow.initial)[0], flow.field
        after = flow.first_step.take(flow.initial, flow.residual(flow.initial))[0]
        signal, row = field.x, []
        for layer in range(4):
            change, layout = after - initial, field.layout
            weights = field.multipliers[layer] * (signal @ layout.weights(change, layer))
            row.append(np.mean(np.abs(weights)))
            signal = field.multipliers[layer] * (signal @ layout.weights(after, layer))
            if layer > 0:
                factor = field.bias_multipliers[layer]
                row.append(factor * np.mean(np.abs(layout.bias(change, layer))))
                signal = signal + factor * layout.bias(after, layer)
                if layer < 3:
                    assert np.std(factor * layout.bias(initial, layer)) == pytest.approx(1, 0.2)
            signal = np.tanh(signal)
        changes.append(row)
    slopes = np.polyfit(np.log([64, 256, 1024]), np.log(changes), 1)[0]
    assert slopes == pytest.approx(np.zeros(7), abs=0.2)


@pytest.mark.parametrize("name", ["ip-llr", "ip-bias", "hpz"])
def test_a_first_step_is_the_same_in_original_variables(name):
    scaling = DeepScaling.from_scheme(name, 40, 3, init_scale=1.5, calibrate=True)
    network = DeepNetwork(scaling, ACTIVATIONS["gelu"], biases=True, seed=5)
    ends, rules = [], StopRules(stop_loss=0.0, max_steps=9)
    for one in (network, network.in_original_variables()):
        flow = DeepFlow(one, PUBLISHED_X, PUBLISHED_Y)
        descent = METHODS["gradient-descent"](MethodOptions(step=0.01))
        end = integrate(flow, descent, rules, NoObserver()).point
        ends.append([flow.first_step.learning_rates, end])
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-11)
    np.testing.assert_allclose(ends[0][1].residual, ends[1][1].residual, rtol=1e-9)


@pytest.mark.parametrize(("name", "power"), [("ip", -0.5), ("mup", 0.0)])
def test_layers_begin_at_the_sizes_of_their_scheme(name, power):
    """h_l ~ m^-(l-1)/2 in IP, and as large in every layer of muP: root mean squares over seeds."""
    widths, sizes = [32, 64, 128, 256], []
    for width in widths:
        squares = np.zeros(3)
        for seed in range(30):
            flow = DeepFlow(scheme(name, width, 3, seed=seed), PUBLISHED_X, np.zeros(4))
            signal = flow.field.x
            for layer, weights in enumerate(matrices(flow, flow.initial)[:3]):
                squares[layer] += np.mean((signal @ weights) ** 2)
                signal = np.maximum(signal @ weights, 0.0)
        sizes.append(squares)
    powers = np.polyfit(np.log(widths), 0.5 * np.log(sizes), 1)[0]
    assert powers == pytest.approx(power * np.arange(3), abs=0.05)


@pytest.mark.parametrize(("hidden", "expected"), [(1, 0.0), (2, 0.0), (3, -1.0), (4, -2.0)])
def test_the_integrable_scheme_starts_ever_more_slowly_with_depth(hidden, expected):
    """The first step changes f by m^-(L-2) from L = 2 on: it is K times dR/df."""
    widths, changes = [64, 256, 1024], []
    for width in widths:
        flows = (
            DeepFlow(scheme("ip", width, hidden, "tanh", seed=seed), ONE_X, NO_Y)
            for seed in range(6)
        )
        changes.append([flow.tangent_kernel(flow.initial).matrix[0, 0] for flow in flows])
    assert slope(widths, changes) == pytest.approx(expected, abs=0.15)


class Along(Observer):
    """f and K at given times, read off the steps' interpolants."""

    def __init__(self, flow, times):
        self.flow, self.times, self.rows = flow, times, []

    def step(self, before, attempt, after, counters):
        while len(self.rows) < len(self.times) and self.times[len(self.rows)] <= after.time:
            moment = self.times[len(self.rows)]
            theta, residual = attempt.interpolate((moment - before.time) / attempt.step)
            kernel = self.flow.tangent_kernel(theta).matrix[0, 0]
            self.rows.append([residual[0] + self.flow.y[0], kernel])


def linear_runs(hidden, times, seeds=12, width=400):
    """(seeds, times, 2) of wide linear networks in muP on the sample x = 1, y = 1.5."""
    found = []
    for seed in range(seeds):
        network = scheme("mup", width, hidden, "linear", seed=seed)
        flow = DeepFlow(network, ONE_X, np.array([1.5]))
        watch = Along(flow, times)
        train(flow, watch, t_max=times[-1] * 1.001)
        found.append(watch.rows)
    return np.array(found)


def test_wide_linear_networks_follow_their_limit():
    """The values of f and K at four times; R = (y - f)^2/2 takes twice the time of (y - f)^2."""
    times = [0.1, 0.2, 0.4, 0.8]
    rows = linear_runs(2, times)
    expected = np.array([[0.4051, 3.4177], [0.7549, 4.3271], [1.2411, 6.1156], [1.4832, 7.1581]])
    error = np.std(rows, axis=0, ddof=1) / np.sqrt(len(rows))
    assert np.all(np.abs(np.mean(rows, axis=0) - expected) < 3.0 * error)
    assert np.all(error < 0.05 * expected)
    # One hidden layer: K = 2 sqrt(1 + f^2), in the mean and nearly so in every network.
    f, kernel = np.moveaxis(linear_runs(1, times, seeds=4), 2, 0)
    np.testing.assert_allclose(kernel, 2.0 * np.sqrt(1.0 + f**2), rtol=0.2)
    np.testing.assert_allclose(
        np.mean(kernel, axis=0), np.mean(2.0 * np.sqrt(1.0 + f**2), axis=0), rtol=0.06
    )


def test_lazy_training_moves_weights_by_the_inverse_scale():
    """Flow of R(s h)/s^2 with h = 0 at first: the change is proportional to 1/s."""
    scales, moved = [30.0, 100.0, 300.0], []
    for scale in scales:
        numbers = [1.0, 0.2, 0.2 * scale], [1.0] * 3, [scale**-2.0] * 3
        network = DeepNetwork(
            DeepScaling.from_numbers(25, *numbers), ACTIVATIONS["tanh"], antisymmetric=True
        )
        flow = DeepFlow(network, PUBLISHED_X, PUBLISHED_Y)
        end = train(flow, stop_loss=1e-4)
        moved.append(flow.relative_change(end.theta)[:3])
    for layer in range(3):
        change = np.array(moved)[:, layer]
        assert np.polyfit(np.log(scales), np.log(change), 1)[0] == pytest.approx(-1.0, abs=0.01)


def features(flow, theta):
    """Last hidden layer (n, m)."""
    layout, field, signal = flow.field.layout, flow.field, flow.field.x
    for layer in range(len(field.widths)):
        weights = layout.weights(np.asarray(theta)[0], layer)
        signal = np.tanh(field.multipliers[layer] * (signal @ weights))
    return signal


@pytest.mark.parametrize(("name", "exponent"), [("ntk", 0.5), ("mup", 0.0)])
def test_features_are_learned_in_mup_and_not_in_the_kernel_regime(name, exponent):
    widths, changes = [64, 512], []
    for width in widths:
        row = []
        for seed in range(3):
            network = scheme(name, width, 2, "tanh", seed=seed, antisymmetric=True)
            flow = DeepFlow(network, PUBLISHED_X, 8.0 * PUBLISHED_Y)
            before = features(flow, flow.initial)
            after = features(flow, train(flow, t_max=1.0).theta)
            row.append(np.sqrt(np.mean((after - before) ** 2)))
        changes.append(row)
    assert slope(widths, changes) == pytest.approx(-exponent, abs=0.1)


def test_predictions_for_three_layers_are_those_of_the_design():
    for gamma_3 in (0.9, 1.5, 2.1, 3.0):
        scaling = DeepScaling.from_gammas(100, 0.0, 0.0, gamma_3)
        found = all_predicted_slopes(scaling.exponents)
        expected = gamma_3 - 1.5 if gamma_3 <= 1.5 else (gamma_3 - 1.5) / 3.0
        for layer in ("input", "hidden_2", "output"):
            assert found[layer] == pytest.approx(expected, abs=1e-12)
        assert found["hidden_2_frobenius"] == pytest.approx(expected - 0.5)
        assert scaling.kappa == pytest.approx(100.0**-gamma_3)
    assert predicted_zero("input", 0.0, 0.0) == pytest.approx(1.5)
    assert predicted_zero("hidden_2_frobenius", 0.0, 0.0) == pytest.approx(3.0)


@pytest.mark.parametrize("shift", [-0.7, 0.4])
@pytest.mark.parametrize("name", sorted(set(DEEP_SCHEMES) - {"mean-field"}))
def test_the_symmetry_of_the_exponents_changes_nothing(name, shift):
    """a += s, b -= s, c -= 2 s: the same normalised network, the same prediction."""
    plain = DeepScaling.from_scheme(name, 50, 3)
    rows = [(a + shift, b - shift, c - 2.0 * shift) for a, b, c in plain.exponents]
    other = DeepScaling.from_exponents(50, rows)
    for one, two in zip(plain.scales, other.scales, strict=True):
        assert two.normalised.multiplier == pytest.approx(one.normalised.multiplier, rel=1e-12)
        assert two.normalised.rate == pytest.approx(one.normalised.rate, rel=1e-12)
    assert all_predicted_slopes(rows) == pytest.approx(all_predicted_slopes(plain.exponents))


@pytest.mark.parametrize(
    ("name", "gammas"),
    [("ntk", (0.0, 0.0, 1.0)), ("mup", (0.0, 0.0, 1.5)), ("ip", (-0.5, 0.0, 2.0))],
)
def test_schemes_have_their_place_among_three_layers(name, gammas):
    assert DeepScaling.from_scheme(name, 64, 2).gammas == pytest.approx(gammas)
