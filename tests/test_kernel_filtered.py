"""Steps along filtered gradients: single ones against dense algebra, stiff and lazy runs."""

from functools import cache

import numpy as np
import pytest
from deep_flows import make_flow as make_deep_flow
from deep_flows import make_network as make_deep_network
from flows import PUBLISHED_X, Trace, make_flow, make_network
from linear_algebra import jacobian_of, moved, rate_of
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import flowsim as fs
from flowsim.steppers.base import Point
from flowsim.steppers.driver import integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.exponential import Exponential
from flowsim.steppers.implicit_euler import ImplicitEuler
from flowsim.steppers.methods import METHODS, MethodOptions

FILTERED = [ImplicitEuler, Exponential]
FREE = (1e9, 1e9)
"""A cap and a bound on the distance that hold nothing."""


def point_of(flow, theta=None):
    theta = flow.initial.copy() if theta is None else theta
    return Point.of(flow, 0.0, theta, flow.residual(theta))


def step_from(stepper, flow, point, step):
    """An attempt of a given size with a K of its own."""
    stepper.start(flow, point)
    stepper.step, stepper._age = step, int(stepper.MAX_LIFE)
    return stepper.attempt(flow, point, step)


def phi_1(matrix):
    """(exp(A) - 1) A^-1 of a singular matrix, as a block of an exponential."""
    n = len(matrix)
    whole = np.zeros((2 * n, 2 * n))
    whole[:n, :n], whole[:n, n:] = matrix, np.eye(n)
    return expm(whole)[:n, n:]


def dense_change(method, flow, point, step, fraction):
    """What the method adds to the weights, by dense algebra in all of them."""
    curvature = flow.curvature(point.residual)
    hessian = np.ones(flow.n_samples) if curvature is None else curvature

    def change(theta, step):
        j, f = jacobian_of(flow, theta, hessian), rate_of(flow, theta, point.residual)
        if method is ImplicitEuler:
            return step * np.linalg.solve(np.eye(len(j)) - step * j, f)
        return step * phi_1(step * j) @ f

    whole = change(point.theta, step)
    theta = point.theta if method is ImplicitEuler else moved(flow, point.theta, 0.5 * whole)
    return change(theta, fraction * step)


def flows(name):
    if name in ("tanh", "relu"):
        return make_flow(make_network(7, name, 0.9, 0.1, antisymmetric=True)), None
    if name == "logistic":
        y = np.array([1.0, -1.0, -1.0, 1.0])
        return make_flow(make_network(7, "tanh", 0.9, 0.1), y=y, loss="logistic"), None
    network = make_deep_network(2, 5, "tanh", biases=True)
    return make_deep_flow(network, way=("cpu", name))


@pytest.mark.parametrize("name", ["tanh", "relu", "logistic", "dense", "factored"])
@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
@pytest.mark.parametrize("step", [0.05, 3.0])
def test_a_step_is_that_of_dense_algebra(method, name, step):
    flow, theta = flows(name)
    point = point_of(flow, theta)
    attempt = step_from(method(*FREE), flow, point, step)
    assert attempt.point is not None
    for fraction, theta in ((1.0, attempt.point.theta), (0.4, attempt.interpolate(0.4)[0])):
        change = dense_change(method, flow, point, step, fraction)
        expected = np.asarray(moved(flow, point.theta, change))
        assert np.max(np.abs(np.asarray(theta) - expected)) < 1e-11 * np.max(np.abs(expected))


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_passes_of_a_step(method):
    """As many as its order; K counts as one."""
    flow = make_flow(make_network(20, "tanh"))
    stepper, point = method(*FREE), point_of(flow)
    stepper.start(flow, point)
    for refreshed in (True, False):
        stepper._age, stepper._life, flow.n_passes = int(refreshed), 1.0, 0
        stepper.attempt(flow, point, 0.1)
        assert flow.n_passes == method.order + refreshed


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_order_by_slope(method):
    x = np.column_stack([np.linspace(-1, 1, 3), np.ones(3)])
    flow = make_flow(make_network(20, "tanh"), x, np.sin(3 * x[:, 0]))

    def rate(_, theta):
        return rate_of(flow, flow.state(theta.reshape(flow.initial.shape)))

    exact = solve_ivp(rate, (0, 1), flow.initial.ravel(), "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    errors = []
    for steps in (100, 400):
        point = point_of(flow)
        for _ in range(steps):
            point = step_from(method(*FREE), flow, point, 1.0 / steps).point
        errors.append(np.linalg.norm(point.theta.ravel() - exact))
    assert abs(np.log(errors[0] / errors[1]) / np.log(4.0) - method.order) < 0.1


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_a_smaller_tolerance_gives_a_smaller_error(method):
    flow = make_flow(make_network(100, "tanh", 1.0))
    rules = StopRules(stop_loss=1e-5)
    exact = METHODS["dop853"](MethodOptions(rtol=1e-10))
    expected = flow.relative_change(integrate(flow, exact, rules, Trace()).point.theta)
    errors = []
    for rtol in (1e-3, 1e-4):
        outcome = integrate(flow, method.from_rtol(rtol), rules, Trace())
        change = flow.relative_change(outcome.point.theta)
        errors.append(np.max(np.abs(change / expected - 1.0)))
    assert errors[0] < 1e-2
    assert errors[1] < 0.3 * errors[0]


def lazy(width=20_000):
    return make_flow(make_network(width, "tanh", 0.5))


def test_where_the_kernel_is_constant_one_step_reaches_any_time():
    """Input weights frozen: f is linear in the others, e(t) = exp(-K t/n) e(0) at any t."""
    flow = make_flow(make_network(300, "tanh", 0.5, mobility={"input": 0.0}))
    point = point_of(flow)
    kernel = flow.tangent_kernel(point.theta)
    for rates in (1.0, 1e4):
        step = rates / kernel.largest_rate
        new = step_from(Exponential(*FREE), flow, point, step).point
        expected = expm(-kernel.matrix * step / 4) @ point.residual
        assert np.max(np.abs(new.residual - expected)) < 1e-11 * np.max(np.abs(point.residual))


def test_the_lazy_limit_takes_few_steps():
    flow = lazy()
    stepper = METHODS["exponential"](MethodOptions())
    outcome = integrate(flow, stepper, StopRules(stop_loss=1e-8), Trace())
    assert outcome.stop_reason.startswith("stop_loss")
    assert outcome.counters.n_steps <= 25
    finer = integrate(
        flow, METHODS["tsit54"](MethodOptions(rtol=1e-6)), StopRules(stop_loss=1e-8), Trace()
    )
    changes = [flow.relative_change(end.point.theta) for end in (outcome, finer)]
    np.testing.assert_allclose(changes[0], changes[1], rtol=2e-3)


def stiff_relu(gamma, seed=3):
    """K of a condition above 1e5 (seed 3): random points, some of them close to each other."""
    points = np.random.default_rng(seed).uniform(-1, 1, size=(32, 2))
    x = np.column_stack([points, np.ones(32)])
    return make_flow(make_network(500, "relu", gamma), x, np.tanh(points @ [1.0, 2.0]))


@cache
def explicit(gamma):
    """RD by small steps (Heun's, a third of the usual cap), and the passes that Euler needs."""
    rules = StopRules(stop_loss=1e-6)
    flow = stiff_relu(gamma)
    small = METHODS["heun"](MethodOptions(max_relative_change=0.005))
    expected = flow.relative_change(integrate(flow, small, rules, Trace()).point.theta)
    flow = stiff_relu(gamma)
    outcome = integrate(flow, METHODS["euler"](MethodOptions()), rules, Trace())
    assert outcome.stop_reason.startswith("stop_loss")
    return expected, flow.n_passes


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_stiff_relu_at_a_thirtieth_of_the_passes(method, gamma):
    flow = stiff_relu(gamma)
    eigenvalues = flow.tangent_kernel(flow.initial).eigenvalues
    assert eigenvalues[-1] / eigenvalues[0] > 1e5
    expected, passes = explicit(gamma)
    flow.n_passes = 0
    outcome = integrate(flow, method.from_rtol(1e-3), StopRules(stop_loss=1e-6), Trace())
    assert outcome.stop_reason.startswith("stop_loss")
    change = flow.relative_change(outcome.point.theta)
    assert np.max(np.abs(change / expected - 1.0)) < 1e-2
    assert 30 * flow.n_passes <= passes


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_no_step_moves_a_layer_by_more_than_the_cap(method):
    flow = make_flow(make_network(1000, "relu", 1.5, antisymmetric=True))
    worst = []

    class Check(Trace):
        def step(self, before, attempt, after, counters):
            start = np.array(before.theta)
            change = np.array(after.theta) - start
            for rows in (slice(0, 1), slice(1, None)):
                worst.append(np.linalg.norm(change[rows]) / np.linalg.norm(start[rows]))

    integrate(flow, method(0.05, 0.1), StopRules(stop_loss=1e-5), Check())
    assert 0.03 < max(worst) < 0.06  # K and the norms may be some steps old


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_neurons_that_slide_along_kinks_do_not_hold_the_run(method):
    """No small step of Euler lowers R there."""
    trace = Trace()
    outcome = integrate(
        stiff_relu(1.0, seed=0), method.from_rtol(1e-3), StopRules(stop_loss=1e-6), trace
    )
    assert outcome.stop_reason.startswith("stop_loss")
    assert outcome.counters.n_steps < 2000
    losses = np.array(trace.losses)
    assert np.any(np.diff(losses) > 0.0)
    highest = [np.max(losses[max(0, k - 10) : k]) for k in range(1, len(losses))]
    assert np.all(losses[1:] <= highest)


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_a_plateau_is_a_state_of_rest(method):
    """Two inputs that agree with different targets: R cannot fall below their spread."""
    x = np.array([[0.5, 1.0], [0.5, 1.0]])
    flow = make_flow(make_network(50, "relu", 0.5), x, np.array([1.0, 0.0]))
    outcome = integrate(
        flow, method.from_rtol(1e-3), StopRules(stop_loss=1e-6, max_steps=5000), Trace()
    )
    assert outcome.stop_reason.startswith("steady_state")
    assert outcome.point.loss == pytest.approx(0.125, rel=1e-6)


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_what_is_left_of_the_residuals_is_rounding_and_holds_no_step(method):
    """It moves by as much as it is large, and R rises as often as it falls."""
    x = np.linspace(-1.0, 1.0, 8)
    y, points = np.sin(3.0 * x), np.column_stack([x, np.ones(8)])
    rules = StopRules(stop_loss=0.0, t_max=1e6, steady_slope=0.0, max_steps=3000)
    reasons, trace = [], Trace()
    for atol in (0.0, 100 * np.finfo(float).eps * np.sqrt(np.mean(y**2))):
        flow = make_flow(make_network(100, "tanh", 0.5), points, y)
        stepper = method.from_rtol(1e-4, atol=atol)
        reasons.append(integrate(flow, stepper, rules, trace).stop_reason)
    assert not reasons[0].startswith("t_max") and reasons[1].startswith("t_max")
    assert trace.losses[-1] < 1e-27


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_the_floor_of_the_distance_is_refined_with_it(method):
    stepper = METHODS[method.name](MethodOptions(rtol=1e-3, atol=1e-6))
    finer = stepper.refined()
    assert stepper.atol == 1e-6
    assert finer.atol / stepper.atol == finer.max_distance / stepper.max_distance < 1.0


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_steps_for_ever_are_finite(method):
    """Nothing ends the run but its number of steps, and nothing holds them."""
    flow = make_flow(make_network(30, "linear", 0.5, mobility={"input": 0.0}))
    rules = StopRules(stop_loss=0.0, steady_slope=0.0, max_steps=200)
    outcome = integrate(flow, method.from_rtol(1e-3), rules, Trace())
    assert outcome.stop_reason.startswith(("max_steps", "steady_state"))
    assert np.isfinite(outcome.point.time)


@pytest.mark.parametrize("method", FILTERED, ids=lambda m: m.name)
def test_a_kernel_that_is_not_finite_rejects_the_step(method):
    flow = lazy(200)
    point, good = point_of(flow), flow.tangent_kernel
    stepper = method.from_rtol(1e-3)
    flow.tangent_kernel = lambda theta: flow.make_kernel(np.full_like(good(theta).grams, np.nan))
    stepper.start(flow, point)
    attempt = stepper.attempt(flow, point, np.inf)
    assert (attempt.point, attempt.rejection) == (None, "non-finite")
    outcome = integrate(flow, stepper, StopRules(), Trace())
    assert outcome.status == "failed"
    assert outcome.stop_reason.startswith("non_finite")


@pytest.mark.parametrize("method", ["implicit-euler", "exponential"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(
    "network",
    [{}, {"antisymmetric": True}, {"kind": "deep", "hidden_layers": 2}],
    ids=["plain", "antisymmetric", "deep"],
)
def test_runs_of_every_kind(method, activation, network):
    x = PUBLISHED_X[:, :1]
    experiment = {
        "network": {"width": 300, "activation": activation, **network},
        "scaling": {"scheme": "ntk"} if network.get("kind") else {"gamma": 0.6, "gamma_prime": 0.0},
    }
    run = fs.simulate(
        experiment, integrate={"method": method, "stop_loss": 1e-4}, x=x, y=x[:, 0] ** 2
    )
    assert run.stop_reason.startswith("stop_loss")
    reference = fs.simulate(
        experiment, integrate={"method": "heun", "stop_loss": 1e-4}, x=x, y=x[:, 0] ** 2
    )
    found, expected = (r.final["relative_change"] for r in (run, reference))
    # A handful of steps, of the first order or the second.
    np.testing.assert_allclose(found, expected, rtol=4e-2 if method == "implicit-euler" else 2e-2)


@pytest.mark.parametrize("method", ["implicit-euler", "exponential"])
def test_the_logistic_loss(method):
    x = np.linspace(-1, 1, 6)[:, None]
    y = np.array([1.0, 1.0, -1.0, -1.0, 1.0, 1.0])
    experiment = {
        "network": {"width": 60, "activation": "tanh"},
        "scaling": {"gamma": 0.5, "gamma_prime": 0.0},
    }
    ends = []
    for name in (method, "tsit54"):
        integrate_ = {"method": name, "loss": "logistic", "stop_loss": 1e-3}
        run = fs.simulate(experiment, integrate=integrate_, x=x, y=y)
        assert run.stop_reason.startswith("stop_loss")
        ends.append(run.final["relative_change"])
    np.testing.assert_allclose(ends[0], ends[1], rtol=2e-2)


@pytest.mark.parametrize("keys", [{"step": 1e-6}, {"first_step": 0.1}, {"momentum": 0.5}])
def test_keys_of_other_methods_are_refused(keys):
    with pytest.raises(fs.ConfigError, match='method "implicit-euler" does not use it'):
        fs.simulate(
            {"network": {"width": 5}, "scaling": {"gamma": 1.0, "gamma_prime": 0.0}},
            integrate={"method": "implicit-euler", **keys},
            x=[[0.1], [0.2]],
            y=[0.1, 0.2],
        )
