"""Endings: every one has a status and a reason, and none is an exception."""

import os
import signal

import numpy as np
import pytest
from flows import Trace, make_flow, make_network

from flowsim.steppers.base import Attempt, Stepper
from flowsim.steppers.driver import integrate
from flowsim.steppers.events import ENDINGS, StopRules, Watch
from flowsim.steppers.methods import METHODS, MethodOptions, make_stepper


def run(flow, rules, method="auto", observer=None, **options):
    _, stepper = make_stepper(method, MethodOptions(**options), flow.kinked)
    return integrate(flow, stepper, rules, observer or Trace())


def relu_flow(width=100, gamma=1.0, **options):
    return make_flow(make_network(width, "relu", gamma, antisymmetric=True), **options)


@pytest.mark.parametrize("method", METHODS)
def test_t_max_is_met_exactly(method):
    outcome = run(relu_flow(), StopRules(t_max=1.37), method)
    assert (outcome.status, outcome.point.time) == ("complete", pytest.approx(1.37, rel=1e-14))
    assert outcome.stop_reason.startswith("t_max")


def test_max_steps_says_why_the_steps_are_small():
    outcome = run(relu_flow(gamma=0.5), StopRules(stop_loss=0.0, max_steps=50), "euler")
    assert outcome.status == "complete"
    assert outcome.counters.n_steps == 50
    assert "stiffness holds the step: h lambda_max(K/n)" in outcome.stop_reason
    outcome = run(relu_flow(gamma=1.75), StopRules(max_steps=5), "euler")
    assert "accuracy holds the step" in outcome.stop_reason
    # An implicit step is far beyond what stiffness would hold.
    outcome = run(relu_flow(1000, gamma=0.5), StopRules(stop_loss=0.0, max_steps=7), "exponential")
    assert "accuracy holds the step" in outcome.stop_reason


def test_the_wall_time_budget_preempts():
    outcome = run(relu_flow(), StopRules(stop_loss=0.0, max_seconds=0.0))
    assert outcome.status == "preempted"
    assert outcome.stop_reason.startswith("max_seconds")


def test_a_plateau_is_a_steady_state_but_not_too_early():
    """Two inputs that agree with different targets: R cannot fall below their spread."""
    x = np.array([[0.5, 1.0], [0.5, 1.0]])
    y = np.array([1.0, 0.0])
    flow = make_flow(make_network(50, "relu", 0.5), x, y)
    outcome = run(flow, StopRules(stop_loss=1e-6, steady_min_time=100.0), "tsit54")
    assert outcome.stop_reason.startswith("steady_state")
    assert outcome.status == "complete"
    assert outcome.point.loss == pytest.approx(0.125, rel=1e-6)
    assert outcome.point.time > 100.0
    assert "d log R / d log tau" in outcome.stop_reason
    at_rest = run(flow, StopRules(stop_loss=1e-6), "heun")
    assert at_rest.stop_reason.startswith("steady_state: R falls in no step")
    assert at_rest.point.loss == pytest.approx(0.125, rel=1e-12)


def test_the_plateau_before_condensation_is_no_steady_state():
    outcome = run(relu_flow(1000, 1.75), StopRules(stop_loss=1e-5))
    assert outcome.stop_reason.startswith("stop_loss")


def test_a_slope_is_seen_as_such():
    watch = Watch(StopRules(stop_loss=0.0, steady_slope=1e-4, steady_min_time=1.0))
    assert not any(watch.ending(t, t**-0.01, 1) for t in np.geomspace(0.1, 1e4, 200))
    watch = Watch(StopRules(stop_loss=0.0, steady_slope=1e-4, steady_min_time=1.0))
    assert any(watch.ending(t, t**-0.00001, 1) for t in np.geomspace(0.1, 1e4, 200))


@pytest.mark.parametrize("method", METHODS)
def test_a_flow_that_starts_in_its_goal_takes_no_step(method):
    flow = make_flow(y=np.full(4, 1e-9), network=make_network(100, "relu", antisymmetric=True))
    outcome = run(flow, StopRules(stop_loss=1e-5), method)
    assert outcome.counters.n_steps == 0
    assert outcome.status == "complete"


@pytest.mark.parametrize("method", METHODS)
def test_initial_values_that_are_not_finite_fail_with_a_reason(method):
    initial = np.ones((3, 10))
    initial[1, 3] = np.inf
    flow = make_flow(make_network(10, "relu"), initial=initial)
    with np.errstate(invalid="ignore"):
        outcome = run(flow, StopRules(), method)
    assert outcome.status == "failed"
    assert outcome.stop_reason.startswith("non_finite")


class Refusing(Stepper):
    """Rejects every step."""

    name = "refusing"

    def __init__(self, rejection):
        self.rejection = rejection
        self.step = 1.0

    def start(self, flow, point):
        pass

    def memory(self):
        return {}

    def resume(self, flow, point, memory):
        pass

    def attempt(self, flow, point, limit):
        self.step *= 0.5
        return Attempt(self.step, rejection=self.rejection)


@pytest.mark.parametrize(
    ("rejection", "reason"),
    [("error", "step_too_small"), ("non-finite", "non_finite"), ("restart", "step_too_small")],
)
def test_steps_that_are_never_accepted_end_the_run(rejection, reason):
    outcome = integrate(relu_flow(), Refusing(rejection), StopRules(), Trace())
    assert outcome.status == "failed"
    assert outcome.stop_reason.startswith(reason)


def test_every_reason_has_a_status():
    assert set(ENDINGS.values()) == {"complete", "failed", "preempted"}


def test_ctrl_c_ends_the_run_between_two_steps():
    class Interrupting(Trace):
        def step(self, before, attempt, after, counters):
            super().step(before, attempt, after, counters)
            if counters.n_steps == 7:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    trace = Interrupting()
    outcome = run(relu_flow(), StopRules(), observer=trace)
    assert outcome.status == "preempted"
    assert outcome.stop_reason.startswith("interrupted")
    assert outcome.counters.n_steps == 7
    assert signal.getsignal(signal.SIGINT) is before


def test_a_zero_layer_can_leave_zero():
    """Zero input weights put no bound on their relative change; zero rates no bound on the step."""
    initial = np.vstack([np.ones(20), np.zeros((2, 20))])
    flow = make_flow(make_network(20, "linear"), initial=initial)
    outcome = run(flow, StopRules(stop_loss=0.0, t_max=5.0), "euler")
    assert outcome.status == "complete"
    assert flow.layer_norms(outcome.point.theta)[0] > 0.0
    still = make_flow(make_network(20, "relu"), initial=np.zeros((3, 20)))
    outcome = run(still, StopRules(steady_min_time=1.0), "euler")
    assert outcome.status == "complete"


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize(("width", "gamma", "seed"), [(2, 0.5, 0), (10, 0.5, 2), (10, 1.75, 2)])
def test_neurons_pinned_at_kinks_are_a_state_of_rest(method, width, gamma, seed):
    """Where no step lowers the loss, an adaptive pair, which may raise it, gets no further."""
    network = make_network(width, "relu", gamma, seed=seed, antisymmetric=True)
    outcome = run(make_flow(network), StopRules(max_steps=5000), method)
    assert outcome.stop_reason.startswith("steady_state: R falls in no step")
    other = run(make_flow(network), StopRules(max_steps=3000), "tsit54")
    assert outcome.point.loss == pytest.approx(other.point.loss, rel=1e-3)


def test_a_loss_of_zero_is_an_end():
    """One sample and no stop_loss: R underflows to 0, and no slope of log R would ever tell."""
    x, y = np.array([[1.0, 1.0]]), np.array([0.5])
    flow = make_flow(make_network(20, "linear"), x, y)
    for method in ("heun", "tsit54", "exponential", "implicit-euler"):
        outcome = run(flow, StopRules(stop_loss=0.0, max_steps=20_000), method)
        assert outcome.stop_reason.startswith("steady_state")
    for method in ("ros2", "ros34pw2"):
        # Their steps grow until rounding is all that is left of e: it needs no relative accuracy.
        outcome = run(flow, StopRules(stop_loss=0.0, max_steps=20_000), method, atol=1e-14)
        assert outcome.stop_reason.startswith("steady_state")
