"""The stabilised method: its family of tableaux, its steps, its bound of the rates, its control."""

import tracemalloc

import numpy as np
import pytest
from deep_flows import make_flow as make_deep_flow
from deep_flows import make_network as make_deep_network
from flows import Trace, make_flow, make_network
from scipy.integrate import solve_ivp

import flowsim as fs
from benchmarks.trees import defect
from flowsim.steppers.base import Point
from flowsim.steppers.driver import integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.runge_kutta import take_stages
from flowsim.steppers.stabilised import Stabilised
from flowsim.steppers.stabilised_tableau import StabilisedTableau
from flowsim.steppers.tableaux.rkc2 import (
    DAMPING,
    chebyshev,
    extent_of,
    rkc2,
    stages_for,
)

STAGES = [2, 3, 4, 5, 8, 13, 30, 100]


def stability(tableau, z):
    """R(z) = u_(n+1) / u_n of y' = lambda y by the recurrence, z the step times lambda."""
    before, here = np.ones_like(z), 1.0 + tableau.beta[0] * z
    for j in range(1, tableau.stages):
        change = tableau.mu[j] * (here - 1.0) + tableau.nu[j] * (before - 1.0)
        before, here = here, 1.0 + change + tableau.beta[j] * z * here + tableau.delta[j] * z
    return here


@pytest.mark.parametrize("stages", STAGES)
def test_order_conditions(stages):
    """Both solutions have order 2 and not 3: the trees of three vertices are not fulfilled."""
    tableau = rkc2(stages).butcher
    embedded = tableau.embedded[0][0]
    for vertices in (1, 2):
        assert defect(tableau.b, tableau.a, vertices) < 1e-13
        assert defect(embedded, tableau.a, vertices) < 1e-13
    assert defect(tableau.b, tableau.a, 3) > 0.1
    assert defect(embedded, tableau.a, 3) > 0.1
    assert tableau.fsal
    assert tableau.error_order == 3


@pytest.mark.parametrize("stages", STAGES)
def test_stages_lie_where_the_paper_says(stages):
    """c_j = w1 T_j''(w0) / T_j'(w0): the argument of stage j for a time-dependent rate."""
    w0 = 1.0 + DAMPING / stages**2
    _, slopes, bends = chebyshev(stages, w0)
    expected = slopes[stages] / bends[stages] * bends[2:] / slopes[2:]
    c = rkc2(stages).butcher.c
    np.testing.assert_allclose(c[2:], expected, rtol=1e-12)
    assert c[1] == pytest.approx(c[2] / slopes[2], rel=1e-12)
    assert np.all(np.diff(c) > 0.0)


@pytest.mark.parametrize("stages", [*STAGES, 1000])
def test_stability_polynomial(stages):
    """At most 1 on all of [-extent, 0], damped inside, and above 1 soon after."""
    tableau = rkc2(stages)
    assert extent_of(stages) < tableau.extent < 1.014 * extent_of(stages)
    z = -tableau.extent * np.linspace(0.0, 1.0, 40 * stages + 1)
    values = np.abs(stability(tableau, z))
    assert values.max() < 1.0 + 1e-9
    inside = z < -8.0  # where it has left exp(z)
    if inside.any():
        assert values[inside].max() < 0.77
    beyond = -tableau.extent * np.linspace(1.0, 1.0 + 6.0 / stages, 400)
    assert np.abs(stability(tableau, beyond)).max() > 1.0


@pytest.mark.parametrize("stages", [2, 5, 9])
def test_stability_polynomial_is_that_of_the_tableau(stages):
    """R(z) = 1 + z b (1 - z A)^-1 1 and the shifted Chebyshev polynomial of the paper."""
    tableau = rkc2(stages)
    butcher, s = tableau.butcher, stages
    w0 = 1.0 + DAMPING / s**2
    _, slopes, bends = chebyshev(s, w0)
    w1, factor = slopes[s] / bends[s], bends[s] / slopes[s] ** 2
    for z in -tableau.extent * np.linspace(0.0, 1.0, 7):
        inverse = np.linalg.solve(np.eye(s + 1) - z * butcher.a, np.ones(s + 1))
        expected = 1.0 + z * (butcher.b @ inverse)
        assert stability(tableau, np.array(z)) == pytest.approx(expected, abs=1e-12)
        at_w0, at_z = (chebyshev(s, w)[0][s] for w in (w0, w0 + w1 * z))
        assert expected == pytest.approx(1.0 - factor * at_w0 + factor * at_z, abs=1e-12)


def test_the_fewest_stages_that_are_stable_are_taken():
    for extent in (0.0, 0.5, 1.9, 2.0, 5.2, 5.3, 300.0, 1e4, 1e6):
        stages = stages_for(extent)
        assert rkc2(stages).extent >= extent
        assert stages == 2 or rkc2(stages - 1).extent < 1.014 * extent


def test_a_tableau_that_contradicts_itself_is_refused():
    four = [np.zeros(3) for _ in range(4)]
    with pytest.raises(ValueError, match="different stage counts"):
        StabilisedTableau("t", 2, np.zeros(2), *four[1:], 1.0, 0.8, 0.4)
    with pytest.raises(ValueError, match="error of a constant rate is not 0"):
        StabilisedTableau("t", 2, *four, 1.0, 0.8, 0.5)
    with pytest.raises(ValueError, match="at least 2 stages"):
        rkc2(1)


def start_at(flow, step, stages, rtol=1e30):
    """A method about to take a step of a given size and number of stages, whatever its error."""
    theta = flow.initial.copy()
    point = Point.of(flow, 0.0, theta, flow.residual(theta))
    stepper = Stabilised(rtol=rtol, atol=0.0, first=step)
    stepper.start(flow, point)
    stepper._most = 10**6
    stepper._kernel_rate = 0.999 * extent_of(stages) / step / Stabilised.SAFETY
    return stepper, point


FLOWS = {
    "tanh": lambda **options: make_flow(make_network(300, "tanh", gamma=0.7), **options),
    "relu": lambda **options: make_flow(make_network(300, "relu", gamma=0.7), **options),
    "deep": lambda **options: make_deep_flow(
        make_deep_network(2, 20, "tanh", biases=True), moved=0.0, way=("cpu", "dense"), **options
    )[0],
}


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("stages", [2, 3, 6, 11])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 2e-5)])
def test_the_recurrence_takes_the_steps_of_the_tableau(kind, stages, dtype, tolerance):
    flow = FLOWS[kind](dtype=dtype)
    step = 0.5 * stages**2 / (1.6 * flow.tangent_kernel(flow.initial).largest_rate)
    stepper, point = start_at(flow, step, stages)
    tableau = rkc2(stages).butcher
    slopes, expected = flow.empty(stages + 1), flow.empty()
    residual = take_stages(flow, tableau, point, step, slopes, expected)
    counts = flow.n_rhs, flow.n_passes
    attempt = stepper.attempt(flow, point, np.inf)
    # One pass a stage: the rate at the point is known, that at the end belongs to the next step.
    assert (flow.n_rhs - counts[0], flow.n_passes - counts[1]) == (stages, stages + 1)
    size = np.max(np.abs(expected - flow.initial))
    assert size > 1e-2
    np.testing.assert_allclose(attempt.point.theta, expected, rtol=0, atol=tolerance * (1 + size))
    np.testing.assert_allclose(attempt.point.residual, residual, rtol=0, atol=100 * tolerance)


@pytest.mark.parametrize("kind", FLOWS)
def test_the_error_is_that_of_the_embedded_solution(kind):
    flow, stages, step = FLOWS[kind](), 5, 0.5
    _, point = start_at(flow, step, stages)
    tableau = rkc2(stages).butcher
    slopes, new, embedded = flow.empty(stages + 1), flow.empty(), flow.empty()
    residual = take_stages(flow, tableau, point, step, slopes, new)
    flow.rate(new, residual, slopes[stages])
    other = flow.combine(point.theta, slopes, tableau.embedded[0][0], step, embedded)
    norms = [flow.layer_norms(flow.state(np.asarray(new) - embedded)), flow.layer_norms(new)]
    sizes = np.maximum(flow.layer_norms(point.theta), 0.0)
    size = max(np.linalg.norm(point.residual), np.linalg.norm(residual))
    error = max(np.max(norms[0] / sizes), np.linalg.norm(residual - other) / size)
    for rtol, accepted in ((0.99 * error, False), (1.01 * error, True)):
        stepper, point = start_at(flow, step, stages, rtol)
        assert (stepper.attempt(flow, point, np.inf).point is not None) == accepted


def exact_state(flow, now):
    def rate(_, theta):
        out = flow.empty()
        theta = np.ascontiguousarray(theta.reshape(out.shape))
        flow.rate(theta, flow.residual(theta), out)
        return out.ravel()

    solution = solve_ivp(rate, (0.0, now), flow.initial.ravel(), "DOP853", rtol=1e-13, atol=1e-13)
    return solution.y[:, -1]


def small_flow():
    x = np.array([[-1.0, 1.0], [1.0, 1.0]])
    return make_flow(make_network(20, "x_tanh_x"), x, 10.0 * np.sin(3 * x[:, 0]))


def three_layers():
    network = make_deep_network(2, 12, "tanh", exponents=[(0.0, 0.0, 0.0)] * 3)
    return make_deep_flow(network, moved=0.0, way=("cpu", "dense"))[0]


@pytest.mark.parametrize("make", [small_flow, three_layers])
@pytest.mark.parametrize("stages", [2, 3, 10])
def test_order_by_slope(make, stages):
    """Equal steps of so many stages, whether or not so many are needed."""
    flow, errors, counts = make(), [], (200, 800)
    exact = exact_state(flow, 1.0)
    for count in counts:
        stepper, point = start_at(flow, 1.0 / count, stages)
        for _ in range(count):
            stepper.step, stepper._age = 1.0 / count, 0
            point = stepper.attempt(flow, point, np.inf).point
        errors.append(np.linalg.norm(point.theta.ravel() - exact))
    assert abs(np.log(errors[0] / errors[1]) / np.log(4.0) - 2.0) < 0.1


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_interpolated_states_are_those_of_hermites_cubic(activation):
    """Also in the second step, whose rates lie the other way round."""
    flow = make_flow(make_network(100, activation))
    stepper, point = start_at(flow, 0.2, 3)
    for _ in range(2):
        attempt = stepper.attempt(flow, point, np.inf)
        ends = [point.theta.copy(), attempt.point.theta.copy()]
        rates = flow.empty(2)
        for end, rate in zip(ends, rates, strict=True):
            flow.rate(end, flow.residual(end), rate)
        for f in (0.3, 0.7, 0.3, 1.0):
            theta, residual = attempt.interpolate(f)
            expected = (
                (1 + 2 * f) * (1 - f) ** 2 * ends[0]
                + f**2 * (3 - 2 * f) * ends[1]
                + attempt.step * (f * (1 - f) ** 2 * rates[0] - f**2 * (1 - f) * rates[1])
            )
            np.testing.assert_allclose(theta, expected, rtol=0, atol=1e-13)
            np.testing.assert_allclose(residual, flow.residual(theta), rtol=0, atol=1e-13)
        point = attempt.point
        np.testing.assert_array_equal(point.theta, ends[1])


@pytest.mark.parametrize("fraction", [0.3, 0.7])
def test_the_interpolant_has_order_two_at_least(fraction):
    flow, errors = small_flow(), []
    for step in (0.01, 0.005):
        stepper, point = start_at(flow, step, 4)
        theta, _ = stepper.attempt(flow, point, np.inf).interpolate(fraction)
        errors.append(np.linalg.norm(theta.ravel() - exact_state(flow, fraction * step)))
    assert abs(np.log2(errors[0] / errors[1]) - 3.0) < 0.15


def stiff_flow(**options):
    x = np.linspace(-1.0, 1.0, 16)
    points = np.column_stack([x, np.ones(16)])
    network = make_network(200, "tanh", **options)
    return make_flow(network, points, np.sin(3 * x) + 0.3 * np.sin(9 * x))


def test_a_stiff_tail_costs_a_fraction_of_what_a_common_pair_pays():
    """Both at a tolerance at which the pair is held back by stability alone."""
    from flowsim.steppers.methods import MethodOptions, make_stepper

    rules, passes, ends = StopRules(stop_loss=0.0, t_max=3000.0), [], []
    for method in ("rkc2", "tsit54"):
        flow = stiff_flow()
        _, stepper = make_stepper(method, MethodOptions(rtol=1e-3, atol=1e-10), flow.kinked)
        outcome = integrate(flow, stepper, rules, Trace())
        assert outcome.stop_reason.startswith("t_max")
        passes.append(flow.n_passes)
        ends.append(outcome.point.residual)
    assert passes[0] < 0.2 * passes[1]
    assert np.max(np.abs(ends[0] - ends[1])) < 0.02 * np.max(np.abs(ends[1]))


def test_rounding_errors_are_no_errors_of_a_step():
    """R comes down to them; the estimate makes them h lambda_max times as large."""
    flow = stiff_flow()
    atol = 100 * np.finfo(float).eps * np.sqrt(np.mean(flow.y**2))
    trace = Trace()
    outcome = integrate(
        flow, Stabilised(1e-3, atol), StopRules(stop_loss=0.0, t_max=1e5, steady_slope=0.0), trace
    )
    times, steps = np.array(trace.times[1:]), np.array(trace.steps)
    assert trace.losses[-1] < 1e-25
    assert outcome.counters.n_rejected < 10
    # Nothing moves any more, and nothing but the number of stages holds the step.
    assert np.max(steps[times > 5e4]) > 5.0 * np.max(steps[times < 3e4])


def test_the_bound_follows_the_largest_eigenvalue():
    """It is made again as it ages, and no step is longer than its stages are stable for."""
    flow = stiff_flow()
    theta = flow.initial.copy()
    point = Point.of(flow, 0.0, theta, flow.residual(theta))
    stepper = Stabilised(rtol=1e-3, atol=1e-10)
    stepper.start(flow, point)
    bounds = set()
    while point.time < 500.0:
        attempt = stepper.attempt(flow, point, np.inf)
        true = flow.tangent_kernel(point.theta).largest_rate
        assert attempt.step * true < stepper._used.extent
        assert stepper._rate < 1.5 * true
        bounds.add(stepper._rate)
        point = attempt.point or point
    assert len(bounds) > 3


def test_a_rate_beside_the_kernels_is_found_along_the_error_it_makes(monkeypatch):
    """As if K were half of what it is: the step is kept, with as many stages as it really needs."""
    flow = make_flow(make_network(300, "relu", gamma=0.5, mobility={"input": 0.0}))
    true = flow.tangent_kernel(flow.initial).largest_rate
    bound = Stabilised._bound_rates

    def half(self, flow, point):
        bound(self, flow, point)
        self._kernel_rate *= 0.5

    monkeypatch.setattr(Stabilised, "_bound_rates", half)
    theta = flow.initial.copy()
    point = Point.of(flow, 0.0, theta, flow.residual(theta))
    step = 60.0 / true
    stepper = Stabilised(rtol=1e-2, atol=0.0, first=step)
    stepper.start(flow, point)
    first = stepper.attempt(flow, point, np.inf)
    assert first.rejection == "error"
    assert 0.95 * true < stepper._excess * stepper._kernel_rate < 1.001 * true
    stages = stepper._used.stages
    again = stepper.attempt(flow, point, np.inf)
    assert again.step == step
    assert stepper._used.stages > stages
    assert again.step * true < stepper._used.extent
    while again.point is None:
        again = stepper.attempt(flow, point, np.inf)
    assert stepper._rate > true


def test_a_condensing_run_is_seldom_unstable():
    """From small weights few neurons do the work: the Jacobian's largest rate is twice K's."""
    flow, rejected = stiff_flow(gamma=1.5), 0
    theta = flow.initial.copy()
    point = Point.of(flow, 0.0, theta, flow.residual(theta))
    stepper = Stabilised(rtol=1e-3, atol=1e-6)
    stepper.start(flow, point)
    while point.time < 3000.0:
        attempt = stepper.attempt(flow, point, 3000.0 - point.time)
        rejected += attempt.point is None
        point = attempt.point or point
    assert flow.n_passes < 1000
    assert rejected < 20


@pytest.mark.parametrize("loss", ["square", "logistic"])
def test_without_the_kernel_the_bound_comes_from_products_with_it(loss, monkeypatch):
    flow = make_flow(make_network(100, "tanh"), y=np.array([1.0, -1.0, -1.0, 1.0]), loss=loss)
    point = Point.of(flow, 0.0, flow.initial, flow.residual(flow.initial))
    stepper = Stabilised(rtol=1e-3, atol=0.0)
    stepper.start(flow, point)
    by_kernel = stepper._rate
    monkeypatch.setattr("flowsim.steppers.rates.MOST_ROWS", 3)
    stepper.start(flow, point)
    # Of the loss the largest bound is taken for all samples.
    assert by_kernel <= stepper._rate * 1.01 < 1.3 * by_kernel
    if loss == "square":
        assert stepper._rate == pytest.approx(by_kernel, rel=2e-3)


def test_stages_are_as_many_as_rounding_allows():
    """In float32 a step is no longer than some forty stages reach, whatever its error."""
    for dtype, most in (("float64", Stabilised.MOST_STAGES), ("float32", 28)):
        flow = make_flow(make_network(50, "tanh"), dtype=dtype)
        stepper, point = start_at(flow, 1e9, 5, rtol=1e-3)
        stepper.start(flow, point)
        rate = stepper._rate
        attempt = stepper.attempt(flow, point, np.inf)
        assert stepper._used.stages <= most
        assert attempt.step == pytest.approx(extent_of(stepper._most) / rate, rel=1e-12)


def test_a_stage_that_overflows_ends_the_attempt():
    flow = small_flow()
    stepper, point = start_at(flow, 1e3, 200, rtol=1e-3)
    stepper.step = 1e3
    stepper._kernel_rate = extent_of(100) / 1e3 / 1.2
    counts = flow.n_passes
    attempt = stepper.attempt(flow, point, np.inf)
    assert attempt.rejection == "non-finite"
    assert flow.n_passes - counts < 20
    np.testing.assert_array_equal(point.theta, flow.initial)
    while attempt.point is None:
        attempt = stepper.attempt(flow, point, np.inf)
        assert attempt.step > 0.0
    assert attempt.point.finite


def test_rates_without_a_bound_end_the_run_as_a_failure(monkeypatch):
    flow = small_flow()
    grams = np.full((2, 2, 2), np.inf)
    monkeypatch.setattr(flow, "tangent_kernel", lambda theta: flow.make_kernel(grams))
    stepper = Stabilised(rtol=1e-3, atol=0.0)
    outcome = integrate(flow, stepper, StopRules(stop_loss=0.0, t_max=1.0), Trace())
    assert outcome.status == "failed"
    assert outcome.stop_reason.startswith("non_finite")


def test_a_run_holds_five_copies_besides_the_initial_state():
    held = {"held": lambda frame: tracemalloc.get_traced_memory()[0] / frame.theta.nbytes}
    x = np.linspace(-1.0, 1.0, 4)
    sections = {
        "network": {"width": 10, "activation": "tanh"},
        "scaling": {"gamma": 0.5, "gamma_prime": 0.0},
        "integrate": {"method": "rkc2", "max_steps": 12, "threads": 1},
        "record": {"snapshots": {"schedule": "none"}},
    }
    fs.simulate(sections, x=x, y=x**2)  # what is imported and compiled is no run's
    tracemalloc.start()
    try:
        run = fs.simulate(sections, network={"width": 50_000}, x=x, y=x**2, observables=held)
    finally:
        tracemalloc.stop()
    assert len(run.observables["held"]) > 12
    assert max(run.observables["held"]) == pytest.approx(Stabilised.states + 1, abs=0.3)
