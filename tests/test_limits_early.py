"""Condensation from small weights: multiplicity, orientations, growth."""

import math

import numpy as np
import pytest
from flows import PUBLISHED_X, PUBLISHED_Y, make_network
from scipy.integrate import solve_ivp

import flowsim as fs
from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.limits.early import LinearGrowth, _ascents, grow, multiplicity, orientations

RANDOM = np.random.default_rng(11)
X = np.column_stack([RANDOM.uniform(-4.0, 2.0, size=(20, 2)), np.ones(20)])
Y = RANDOM.normal(size=20)


@pytest.mark.parametrize(
    ("name", "p", "slope"),
    [
        ("tanh", 1, 1.0),
        ("erf", 1, 2.0 / math.sqrt(math.pi)),
        ("gelu", 1, 0.5),
        ("silu", 1, 0.5),
        ("elu", 1, 1.0),
        ("x_tanh_x", 2, 1.0),
        ("x2_tanh_x", 3, 1.0),
    ],
)
def test_multiplicity_is_the_order_of_the_first_term(name, p, slope):
    found = multiplicity(ACTIVATIONS[name])
    assert found == (p, pytest.approx(slope, rel=1e-9))


@pytest.mark.parametrize(("name", "match"), [("relu", "kink"), ("softplus", "0.693")])
def test_an_activation_without_one_is_refused(name, match):
    with pytest.raises(ConfigError, match=match):
        multiplicity(ACTIVATIONS[name])


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_orientations_in_the_plane_are_the_maxima_of_a_scan(p):
    x = X[:, [0, 2]]
    found = orientations(x, Y, p)
    angle = np.linspace(0.0, 2.0 * np.pi, 100_001)[:-1]
    height = np.abs(Y @ (x @ np.stack([np.cos(angle), np.sin(angle)])) ** p / len(Y))
    peaks = angle[(height > np.roll(height, 1)) & (height > np.roll(height, -1))]
    angles = np.sort(np.arctan2(*found.directions[::-1]) % (2.0 * np.pi))
    np.testing.assert_allclose(angles, peaks, atol=1e-4)
    assert len(angles) <= 2 * p
    assert found.lines == len(angles) // 2


def test_what_is_looked_for_is_what_eigenvectors_say():
    expected = orientations(X, Y, 2).directions[:, ::2]
    found = _ascents(X, Y, 2)
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.sort(np.abs(expected.T @ found).max(axis=0)), 1.0, atol=1e-9)


def test_weights_of_multiplicity_1_grow_as_the_linear_flow():
    small = {"alpha": 1e3, "beta1": 2e-5, "beta2": 1e-5}
    run = fs.simulate(
        network={"width": 50, "activation": "tanh"},
        scaling=small,
        x=PUBLISHED_X[:, :1],
        y=PUBLISHED_Y,
        integrate={"t_max": 40.0, "stop_loss": 0.0, "rtol": 1e-6, "threads": 1},
    )
    network = make_network(50, "tanh", gamma=1.0, gamma_prime=-math.log(2.0) / math.log(50))
    growth = LinearGrowth.of(network, PUBLISHED_X, PUBLISHED_Y)
    # z = (0, mean of y): the samples lie evenly on both sides.
    assert growth.rate == pytest.approx(np.mean(PUBLISHED_Y), rel=1e-12)
    start = run.weights(t=0.0)
    for found, expected in zip(run.weights(), growth.weights(*start, 40.0), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    cosines = run.weights()[1][1] / np.linalg.norm(run.weights()[1], axis=0)
    assert np.median(np.abs(cosines)) > 0.999


@pytest.mark.parametrize("name", ["x_tanh_x", "x2_tanh_x"])
def test_neurons_that_grow_by_themselves_turn_to_the_orientations(name):
    network = make_network(30, name, gamma=1.0, gamma_prime=0.2, beta2=0.3)
    p, slope = multiplicity(network.activation)
    a, w = RANDOM.normal(size=12), RANDOM.normal(size=(3, 12))
    found = grow(network, X, Y, a, w, factor=300.0)
    assert np.isfinite(found.time).mean() > 0.8
    done = np.isfinite(found.time)
    units = found.input_weights[:, done] / np.linalg.norm(found.input_weights[:, done], axis=0)
    lines = orientations(X, Y, p).directions[:, ::2]
    assert np.mean(np.abs(lines.T @ units).max(axis=0) > 0.99) > 0.9

    # Against the equations themselves, as they are written, for one neuron on its way.
    early = grow(network, X, Y, a, w, factor=3.0)
    k = int(np.argmin(early.time))
    prime, c = network.scaling.kappa_prime, slope * network.scaling.beta2 ** (p - 1)

    def rate(_, theta):
        z = X @ theta[1:]
        return np.concatenate(
            [
                [c / prime * np.mean(Y * z**p)],
                prime * c * theta[0] * p * (Y * z ** (p - 1)) @ X / 20,
            ]
        )

    end = solve_ivp(rate, (0.0, early.time[k]), [a[k], *w[:, k]], rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(
        [early.output_weights[k], *early.input_weights[:, k]], end, rtol=5e-3, atol=5e-3
    )
