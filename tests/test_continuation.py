"""A run that was stopped and continued equals the one that was not, bit for bit.

Every method of the table is covered: a new one by its entry there, if it forgets nothing.
"""

import json
import os
import signal

import numpy as np
import pytest
from flows import Trace, make_flow, make_network
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsim.steppers.base import Point
from flowsim.steppers.driver import Continuation, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.interruption import Interrupted, Interruption
from flowsim.steppers.methods import METHODS, MethodOptions, make_stepper

RULES = StopRules(stop_loss=1e-6, max_steps=400, steady_min_time=5.0)


def flow_of(activation, gamma, dtype):
    return make_flow(make_network(60, activation, gamma, antisymmetric=True), dtype=dtype)


def stepper_of(method, flow):
    # A step at which gradient descent begins anew once or twice.
    step = 40.0 if method == "gradient-descent" else None
    return make_stepper(method, MethodOptions(rtol=1e-4, atol=1e-9, step=step), flow.kinked)[1]


class Keeper(Trace):
    """Keeps a copy of every place the run could be continued from, through JSON where it may."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def keep(self, continuation):
        point = continuation.point
        copy = Point(point.time, point.theta.copy(), point.residual.copy())
        stepper = {
            name: value.copy() if isinstance(value, np.ndarray) else json.loads(json.dumps(value))
            for name, value in continuation.stepper.items()
        }
        self.kept.append(
            Continuation(copy, dict(continuation.counters), stepper, dict(continuation.watch))
        )


def same(one, other):
    assert one.stop_reason == other.stop_reason
    assert one.counters == other.counters
    assert one.point.time == other.point.time
    assert one.point.theta.tobytes() == other.point.theta.tobytes()
    assert one.point.residual.tobytes() == other.point.residual.tobytes()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("activation", "gamma"), [("relu", 1.25), ("tanh", 0.75)])
@pytest.mark.parametrize("method", METHODS)
def test_continued_from_anywhere_the_end_is_the_same(method, activation, gamma, dtype):
    flow = flow_of(activation, gamma, dtype)
    keeper = Keeper()
    whole = integrate(flow, stepper_of(method, flow), RULES, keeper)
    passes = flow.n_rhs, flow.n_passes
    assert len(keeper.kept) >= 20
    places = np.unique(np.geomspace(1, len(keeper.kept) - 1, 9).astype(int))
    for place in places:
        again = flow_of(activation, gamma, dtype)
        trace = Trace()
        outcome = integrate(again, stepper_of(method, again), RULES, trace, keeper.kept[place])
        same(outcome, whole)
        assert (again.n_rhs, again.n_passes) == passes
        assert trace.losses == keeper.losses[-len(trace.losses) :]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "short",
    [
        StopRules(stop_loss=1e-2, max_steps=400, steady_min_time=5.0),
        StopRules(stop_loss=1e-6, max_steps=400, steady_min_time=5.0, t_max=0.37),
        StopRules(stop_loss=1e-6, max_steps=17, steady_min_time=5.0),
    ],
    ids=["stop_loss", "t_max", "max_steps"],
)
def test_a_finished_run_that_is_asked_for_more_goes_on_as_if_it_had_been_asked_at_once(
    method, short
):
    flow = flow_of("tanh", 1.0, "float64")
    whole = integrate(flow, stepper_of(method, flow), RULES, Trace())
    flow = flow_of("tanh", 1.0, "float64")
    first = integrate(flow, stepper_of(method, flow), short, Trace())
    assert first.status == "complete"
    flow = flow_of("tanh", 1.0, "float64")
    same(integrate(flow, stepper_of(method, flow), RULES, Trace(), first.continuation), whole)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, deadline=None)
@given(moment=st.integers(1, 60))
def test_a_signal_in_the_middle_of_an_attempt_loses_nothing(method, moment):
    """The signal comes at some call of the flow, wherever in the method that is."""
    flow = flow_of("relu", 1.25, "float64")
    whole = integrate(flow, stepper_of(method, flow), RULES, Trace())

    class Calling(Trace):
        """Counts the passes, and has the process signalled at one of them."""

        calls = 0

        def start(self, point):
            super().start(point)
            sweep = flow.kernels.passes.sweep

            def counted(*arguments, **named):
                self.calls += 1
                if self.calls == moment:
                    os.kill(os.getpid(), signal.SIGTERM)
                return sweep(*arguments, **named)

            flow.kernels.passes.sweep = counted

    flow = flow_of("relu", 1.25, "float64")
    stopped = integrate(flow, stepper_of(method, flow), RULES, Calling())
    if stopped.status == "complete":  # it was over by then
        return
    assert stopped.stop_reason.startswith("interrupted: SIGTERM at tau")
    assert stopped.continuation.point is stopped.point
    flow = flow_of("relu", 1.25, "float64")
    goes_on = integrate(flow, stepper_of(method, flow), RULES, Trace(), stopped.continuation)
    same(goes_on, whole)


def test_signals_are_noted_and_cut_attempts_only():
    interruption = Interruption()
    with interruption.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption.name == "SIGUSR1"
        with pytest.raises(Interrupted):
            interruption.begin()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.name == "SIGUSR1"  # the first one counts
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_third_ctrl_c_is_an_interrupt_after_all():
    with Interruption().listening(), pytest.raises(KeyboardInterrupt):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_handler_of_somebody_elses_stays():
    mine = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with Interruption().listening():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, mine)
