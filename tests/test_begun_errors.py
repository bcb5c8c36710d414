"""A step's error that its last stage begins: the same bits as from all slopes, less to read."""

import numpy as np
import pytest
from flows import make_flow, make_network
from two_layer_fields import make_field, state

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.cpu import fused
from flowsim.steppers.base import Point
from flowsim.steppers.methods import METHODS, MethodOptions

NEURONS = (3, fused.BLOCK + 7, 3 * fused.CACHED // 32)
"""Less than a vector, not a whole block, and so many that reading asks ahead."""


def both_ends(kernels, theta, slopes, residual, weights, step):
    """The error from all slopes, and begun by the stage before; each with the rate."""
    own, begun = kernels.array(theta), kernels.empty()
    rows = np.array([0.3, 0.1, -0.2])
    new = kernels.empty()
    f = kernels.advance(
        None, residual, own, slopes[:2], rows, step, new, slopes[2], np.array([0.2, -0.1]),
        weights[:-1], begun,
    )  # fmt: skip
    whole = kernels.rate_and_errors(new, f, slopes, weights[None], step)
    slope = kernels.empty()
    parts = kernels.end_error(new, f, slope, weights[-1], step, begun)
    return (whole[0][0], whole[1], slopes[3].copy()), (*parts, slope)


@pytest.mark.parametrize("neurons", NEURONS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("activation", "n"), [("relu", 4), ("leaky_relu", fused.MANY + 3)])
def test_an_error_that_was_begun_has_the_bits_of_one_from_all_slopes(neurons, dtype, activation, n):
    field = make_field(n, 3, activation)
    kernels = two_layer_kernels("cpu", field, neurons, dtype, 2, "piecewise")
    assert kernels.begins_errors
    theta, e = state(field, neurons), np.linspace(-1.0, 1.0, n)
    slopes = kernels.empty(4)
    for j, slope in enumerate(slopes):
        kernels.rate(kernels.array(theta), (1.0 + j) * e, slope)
    weights = np.array([0.02, -0.01, 0.03, -0.02])
    for one, other in zip(*both_ends(kernels, theta, slopes, e, weights, 0.1), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_the_oracle_agrees():
    field = make_field(4, 3, "tanh")
    kernels = two_layer_kernels("reference", field, 50, "float64")
    slopes = np.random.default_rng(0).normal(size=(4, 4, 50))
    ends = both_ends(
        kernels, state(field, 50), slopes, np.linspace(-1.0, 1.0, 4), np.array([2.0, -1, 3, 1]), 0.1
    )
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", ["bs32", "dp54", "tsit54"])
def test_steps_and_what_lies_between_them_do_not_depend_on_it(method):
    paths = []
    for begins in (True, False):
        flow = make_flow(make_network(700, "relu"))
        assert flow.begins_errors
        flow.begins_errors = begins
        stepper = METHODS[method](MethodOptions(rtol=1e-3, atol=1e-9))
        theta = flow.initial.copy()
        point, seen = Point.of(flow, 0.0, theta, flow.residual(theta)), []
        stepper.start(flow, point)
        while len(seen) < 20:
            attempt = stepper.attempt(flow, point, np.inf)
            if attempt.point is None:
                continue
            middle, e = attempt.interpolate(0.4)
            point = attempt.point
            seen.append((point.time, point.theta.tobytes(), middle.tobytes(), e.tobytes()))
        paths.append(seen)
    assert paths[0] == paths[1]
