"""The low-storage pair: the same steps as its tableau gives, in four copies of the state."""

import tracemalloc

import numpy as np
import pytest
from flows import make_flow, make_network
from scipy.integrate import solve_ivp

import flowsim as fs
from flowsim.steppers.base import Point
from flowsim.steppers.low_storage import LowStoragePair
from flowsim.steppers.runge_kutta import take_stages
from flowsim.steppers.tableaux.rdpk35 import RDPK35


def start_at(flow, step, rtol=1e30):
    """A pair about to take a step of a given size, whatever its error."""
    theta = flow.initial.copy()
    point = Point.of(flow, 0.0, theta, flow.residual(theta))
    stepper = LowStoragePair(RDPK35, rtol=rtol, atol=0.0, first=step)
    stepper.start(flow, point)
    return stepper, point


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_registers_take_the_steps_of_the_tableau(dtype, tolerance):
    flow = make_flow(make_network(300, "tanh", gamma=0.7), dtype=dtype)
    stepper, point = start_at(flow, 0.5)
    slopes, expected = flow.empty(RDPK35.stages), flow.empty()
    residual = take_stages(flow, RDPK35.butcher, point, 0.5, slopes, expected)
    attempt = stepper.attempt(flow, point, np.inf)
    assert np.max(np.abs(expected - flow.initial)) > 0.02
    np.testing.assert_allclose(attempt.point.theta, expected, rtol=0, atol=4 * tolerance)
    np.testing.assert_allclose(attempt.point.residual, residual, rtol=0, atol=4 * tolerance)


def test_the_error_is_that_of_the_embedded_solution():
    flow = make_flow(make_network(300, "tanh", gamma=0.7))
    _, point = start_at(flow, 0.5)
    slopes, new, embedded = flow.empty(RDPK35.stages), flow.empty(), flow.empty()
    residual = take_stages(flow, RDPK35.butcher, point, 0.5, slopes, new)
    other = flow.combine(point.theta, slopes, RDPK35.embedded, 0.5, embedded)
    layers = np.linalg.norm((new - embedded)[1:]), np.linalg.norm((new - embedded)[0])
    relative = np.max(np.array(layers) / flow.layer_norms(point.theta))
    size = max(np.linalg.norm(point.residual), np.linalg.norm(residual))
    own = np.linalg.norm(residual - other) / size
    error = max(relative, own)
    for rtol, accepted in ((0.99 * error, False), (1.01 * error, True)):
        stepper, point = start_at(flow, 0.5, rtol)
        assert (stepper.attempt(flow, point, np.inf).point is not None) == accepted


@pytest.mark.parametrize("fraction", [0.3, 0.7])
def test_the_interpolant_has_order_three(fraction):
    x = np.array([[-1.0, 1.0], [1.0, 1.0]])
    flow = make_flow(make_network(20, "x_tanh_x"), x, 10.0 * np.sin(3 * x[:, 0]))

    def rate(_, theta):
        out = flow.empty()
        theta = np.ascontiguousarray(theta.reshape(out.shape))
        flow.rate(theta, flow.residual(theta), out)
        return out.ravel()

    errors = []
    for step in (0.04, 0.02):
        stepper, point = start_at(flow, step)
        attempt = stepper.attempt(flow, point, np.inf)
        theta, residual = attempt.interpolate(fraction)
        now = fraction * step
        exact = solve_ivp(rate, (0.0, now), flow.initial.ravel(), "DOP853", rtol=1e-13, atol=1e-13)
        errors.append(np.linalg.norm(theta.ravel() - exact.y[:, -1]))
        np.testing.assert_allclose(residual, flow.residual(theta), rtol=0, atol=1e-13)
    assert abs(np.log2(errors[0] / errors[1]) - 4.0) < 0.1


def test_a_recorded_run_holds_four_copies_besides_the_initial_state():
    held = {"held": lambda frame: tracemalloc.get_traced_memory()[0] / frame.theta.nbytes}
    x = np.linspace(-1.0, 1.0, 4)
    sections = {
        "network": {"width": 10, "activation": "tanh"},
        "scaling": {"gamma": 0.5, "gamma_prime": 0.0},
        "integrate": {"method": "rdpk35", "max_steps": 12, "threads": 1},
        "record": {"snapshots": {"schedule": "none"}},
    }
    fs.simulate(sections, x=x, y=x**2)  # what is imported and compiled is no run's
    tracemalloc.start()
    try:
        width = {"width": 50_000}
        run = fs.simulate(sections, network=width, x=x, y=x**2, observables=held)
    finally:
        tracemalloc.stop()
    assert len(run.observables["held"]) > 12
    # One more is the initial state.
    assert max(run.observables["held"]) == pytest.approx(4 + 1, abs=0.3)
