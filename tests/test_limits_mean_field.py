"""The mean-field limit: particles that stand for a distribution, and their flow."""

import numpy as np
import pytest
from flows import PUBLISHED_X, PUBLISHED_Y, make_network

import flowsim as fs
from flowsim.errors import ConfigError
from flowsim.limits.mean_field import Particles, mean_field_limit, normal_particles
from flowsim.limits.sliced_wasserstein import sliced_from_normal, sliced_wasserstein, slices
from flowsim.limits.tangent_kernels import kernel_grams

RANDOM = np.random.default_rng(5)
EXPERIMENT = {
    "network": {"width": 1000, "antisymmetric": True},
    "scaling": {"gamma": 1.0, "gamma_prime": 0.1},
    "data": {"kind": "points", "x": PUBLISHED_X[:, :1].tolist(), "y": PUBLISHED_Y.tolist()},
    "integrate": {"threads": 1, "stop_loss": 0.0, "t_max": 10.0},
    "record": {"snapshots": {"schedule": "none"}},
}


def inputs(d):
    return np.random.default_rng(d).normal(size=(4, d))


@pytest.mark.parametrize(
    ("d", "homogeneous"), [(1, True), (2, True), (3, True), (5, True), (2, False)]
)
def test_particles_have_the_moments_of_normal_weights(d, homogeneous):
    found = normal_particles(inputs(d), 4000, homogeneous)
    points = np.concatenate([found.output_weights[None], found.input_weights])
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(points @ found.weights, 0.0, atol=2e-2)
    product = homogeneous and d <= 3
    tolerance = 1e-5 if product else 2e-2
    np.testing.assert_allclose((found.weights * points) @ points.T, np.eye(1 + d), atol=tolerance)
    # f = 0 at t = 0, as at infinite width.
    active = np.maximum(inputs(d) @ found.input_weights, 0.0)
    np.testing.assert_allclose(active @ (found.weights * found.output_weights), 0.0, atol=1e-12)


@pytest.mark.parametrize(("d", "tolerance"), [(1, 1e-12), (2, 2e-5), (3, 5e-3)])
def test_their_tangent_kernel_is_the_arc_cosine_kernel(d, tolerance):
    x = inputs(d)
    found = normal_particles(x, 20_000, True)
    active = (x @ found.input_weights > 0.0) * 1.0
    outputs = active * (x @ found.input_weights)
    grams = (
        (active * found.weights * found.output_weights**2) @ active.T * (x @ x.T),
        (outputs * found.weights) @ outputs.T,
    )
    # Its multiplier is 1 / width, and there are so many neurons.
    expected = kernel_grams(make_network(20_000, "relu", gamma=1.0), x) * 20_000
    np.testing.assert_allclose(grams, expected, atol=tolerance * expected.max())


def test_a_weight_is_a_size():
    """Three copies of a neuron are one of three times the weight."""
    a, w = RANDOM.normal(size=5), RANDOM.normal(size=(2, 5))
    times = np.array([1, 3, 2, 1, 2])
    weighted = Particles(a, w, times / times.sum())
    copied = Particles(np.repeat(a, times), np.repeat(w, times, axis=1), np.full(9, 1 / 9))
    one, many = (mean_field_limit(EXPERIMENT, particles) for particles in (weighted, copied))
    np.testing.assert_allclose(one.final["residual"], many.final["residual"], atol=1e-13)
    assert one.relative_change["input"] == pytest.approx(many.relative_change["input"], rel=1e-12)
    neurons = weighted.neurons(*one.weights())
    np.testing.assert_allclose(
        np.repeat(neurons, times, axis=1), copied.neurons(*many.weights()), atol=1e-12
    )


def test_two_resolutions_agree_and_wide_networks_come_near():
    coarse, fine = (mean_field_limit(EXPERIMENT, count) for count in (2_000, 30_000))
    grid = np.linspace(-0.8, 0.8, 9)[:, None]
    np.testing.assert_allclose(coarse.predict(grid), fine.predict(grid), atol=2e-4)
    change = fine.relative_change["input"]
    assert coarse.relative_change["input"] == pytest.approx(change, rel=5e-3)
    runs = fs.simulate(EXPERIMENT, seeds=10)
    changes = runs.relative_change["input"]
    error = changes.std(ddof=1) / np.sqrt(10)
    assert abs(changes.mean() - change) < 4.0 * error
    assert error < 0.03 * change


def test_a_smooth_activation_takes_equal_weights():
    experiment = EXPERIMENT | {"network": {"width": 100, "activation": "tanh"}}
    coarse, fine = (mean_field_limit(experiment, count) for count in (1024, 8192))
    np.testing.assert_allclose(coarse.final["residual"], fine.final["residual"], atol=2e-3)
    unequal = Particles(np.ones(2), np.ones((2, 2)), np.array([0.25, 0.75]))
    with pytest.raises(ConfigError, match="1-homogeneous"):
        mean_field_limit(experiment, unequal)


def test_errors_name_the_key():
    with pytest.raises(ConfigError, match="particles = 3"):
        mean_field_limit(EXPERIMENT, 3)
    deep = {"network": {"kind": "deep", "width": 10}, "scaling": {"scheme": "mup"}}
    with pytest.raises(ConfigError, match="two layers"):
        mean_field_limit(EXPERIMENT | deep, 100)


@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_slices_of_a_shift_are_its_mean_projection(dimension):
    points, shift = RANDOM.normal(size=(dimension, 50)), RANDOM.normal(size=dimension)
    directions = slices(dimension)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1.0, rtol=1e-12)
    found = sliced_wasserstein(points, points + shift[:, None])
    assert found == pytest.approx(np.mean(np.abs(shift @ directions)), rel=1e-12)
    # Over all directions this is |shift| times a number of the dimension.
    mean = {2: 2.0 / np.pi, 3: 0.5, 4: 4.0 / (3.0 * np.pi)}[dimension]
    assert found == pytest.approx(mean * np.linalg.norm(shift), rel=0.1)


def test_the_distance_from_the_normal_distribution_is_small_for_its_quadrature():
    particles = normal_particles(inputs(2), 20_000, homogeneous=True)
    neurons = particles.neurons(*particles.as_initial().values())
    normal = RANDOM.normal(size=(3, 20_000))
    assert sliced_wasserstein(neurons, normal, particles.weights) < 0.02
    assert sliced_from_normal(normal) < 0.02
    assert sliced_from_normal(normal + 1.0) == pytest.approx(np.sqrt(3.0) / 2.0, rel=0.03)
