"""Tangent kernels of infinite width: closed forms, Monte Carlo, networks, and their flow."""

import numpy as np
import pytest
from scipy.linalg import expm

from flowsim.deep_scaling import DeepScaling
from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.limits.dual import _by_quadrature, dual
from flowsim.limits.linear import KernelFlow
from flowsim.limits.tangent_kernels import kernel_grams, limit_kernel
from flowsim.networks.deep import DeepFlow, DeepNetwork
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling

POINTS = np.array([[1.3, -0.4, 1.0], [-0.2, 0.9, 1.0], [0.5, 0.5, 1.0], [0.0, 0.0, 0.0]])
GRAM = POINTS @ POINTS.T
COVARIANCES = np.broadcast_arrays(np.diag(GRAM)[:, None], np.diag(GRAM)[None], GRAM)
CLOSED = ("relu", "leaky_relu", "linear", "erf")


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_are_what_the_quadrature_finds(name):
    closed = dual(ACTIVATIONS[name], *COVARIANCES)
    found = _by_quadrature(*COVARIANCES, ACTIVATIONS[name])
    for one, other in zip(closed, found, strict=True):
        # Where an input is 0 the derivative is taken at a kink: only the quadrature calls it.
        used = np.s_[:3, :3]
        np.testing.assert_allclose(one[used], other[used], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "gelu", "silu"])
def test_the_quadrature_is_that_of_gauss_and_hermite(name):
    node, weight = np.polynomial.hermite_e.hermegauss(90)
    weight /= weight.sum()
    q, p, c = 0.5, 0.4, 0.3
    u = np.sqrt(q) * node[:, None]
    v = c / np.sqrt(q) * node[:, None] + np.sqrt(p - c * c / q) * node
    found = dual(ACTIVATIONS[name], q, p, c)
    for function, one in zip(
        (ACTIVATIONS[name].value, ACTIVATIONS[name].derivative), found, strict=True
    ):
        assert one == pytest.approx(weight @ (function(u) * function(v)) @ weight, rel=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dual_activations_are_means_over_normal_weights(name):
    sigma, count = ACTIVATIONS[name], 40_000
    z = POINTS[:3] @ np.random.default_rng(7).normal(size=(3, count))
    for function, found in zip(
        (sigma.value, sigma.derivative), dual(sigma, *COVARIANCES), strict=True
    ):
        values = np.asarray(function(z))
        products = values[:, None] * values[None]
        error = products.std(axis=-1, ddof=1) / np.sqrt(count)
        assert (np.abs(products.mean(axis=-1) - found[:3, :3]) <= 4.0 * error + 1e-12).all()


def two_layers(activation="relu", **options):
    return TwoLayerNetwork(Scaling(400, 0.5, 0.3, 1.7), ACTIVATIONS[activation], **options)


def three_layers(scheme, **options):
    scaling = DeepScaling.from_scheme(scheme, 100, hidden_layers=2)
    return DeepNetwork(
        scaling, ACTIVATIONS["relu"], relative_widths=(1.0, 0.6), biases=True, **options
    )


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (two_layers, {}),
        (two_layers, {"activation": "tanh", "antisymmetric": True}),
        (two_layers, {"mobility": {"output": 0.0, "input": 3.0}}),
        (three_layers, {"scheme": "ntk"}),
        (three_layers, {"scheme": "mup", "antisymmetric": True}),
    ],
)
def test_the_limit_is_the_mean_over_networks(make, options):
    x, kernels = POINTS[:3], []
    flow = TwoLayerFlow if make is two_layers else DeepFlow
    for seed in range(60):
        bound = flow(make(**options, seed=seed), x, np.zeros(3))
        kernels.append(bound.tangent_kernel(bound.initial).matrix)
    kernels = np.array(kernels)
    error = kernels.std(axis=0, ddof=1) / np.sqrt(len(kernels))
    found = limit_kernel(make(**options), x)
    assert (np.abs(kernels.mean(axis=0) - found) <= 4.0 * error).all()


def test_the_recursion_has_two_layers_as_its_first_case():
    two = two_layers()
    field = two.field_on(POINTS)
    scaling = DeepScaling.from_numbers(
        two.width,
        (1.0, field.multiplier),
        (1.0, 1.0),
        (field.input_mobility, field.output_mobility),
    )
    deep = kernel_grams(DeepNetwork(scaling, ACTIVATIONS["relu"]), POINTS)
    np.testing.assert_allclose(deep, kernel_grams(two, POINTS), rtol=1e-14)


def test_a_kernel_between_other_inputs_is_a_part_of_the_whole():
    whole = limit_kernel(three_layers("ntk"), POINTS[:3])
    part = limit_kernel(three_layers("ntk"), POINTS[:2], POINTS[1:3])
    np.testing.assert_allclose(part, whole[:2, 1:], rtol=1e-13)


def test_initial_weights_with_a_mean_have_no_kernel_limit():
    scaling = DeepScaling.from_scheme("ip-non-centred", 100, hidden_layers=2)
    with pytest.raises(ConfigError, match="mean"):
        limit_kernel(DeepNetwork(scaling, ACTIVATIONS["relu"]), POINTS)


def test_the_flow_is_the_exponential_of_the_kernel():
    random = np.random.default_rng(3)
    factor, y, first = random.normal(size=(4, 6)), random.normal(size=4), random.normal(size=4)
    kernel = factor @ factor.T
    times = np.array([0.0, 0.3, 2.0, 50.0])
    flow = KernelFlow(kernel, y, first)
    expected = np.array([expm(-kernel * time / 4) @ (first - y) for time in times])
    np.testing.assert_allclose(flow.residual(times), expected, atol=1e-13)
    np.testing.assert_allclose(flow.loss(times), (expected**2).sum(axis=1) / 8, atol=1e-13)
    # On the samples themselves f is y + e, whichever way it is found.
    np.testing.assert_allclose(flow.outputs(times, kernel, first), y + expected, atol=1e-12)
    several = KernelFlow(kernel, np.stack([y, 2.0 * y], axis=1))
    np.testing.assert_allclose(
        several.outputs(times, kernel)[..., 1], 2.0 * KernelFlow(kernel, y).outputs(times, kernel)
    )


def test_a_singular_kernel_does_no_harm():
    flow = KernelFlow(np.ones((2, 2)), np.array([1.0, 3.0]))
    np.testing.assert_allclose(flow.outputs([1e9], np.ones((1, 2)))[0], [2.0], rtol=1e-12)
