"""A run that was stopped and continued equals the one that was not, bit for bit.

Every method of the table is covered: a new one by its entry there, if it forgets nothing.
"""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from flows import Trace, make_flow, make_network, suiting
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsim.steppers import KINK_RESOLVING
from flowsim.steppers.base import Attempt, Point
from flowsim.steppers.driver import Continuation, integrate
from flowsim.steppers.euler import Euler
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


def copied(memory):
    """A memory, with those within it: arrays as they are, the rest through JSON."""
    if isinstance(memory, dict):
        return {name: copied(value) for name, value in memory.items()}
    return memory.copy() if isinstance(memory, np.ndarray) else json.loads(json.dumps(memory))


class Keeper(Trace):
    """Keeps a copy of every place the run could be continued from, through JSON where it may."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def keep(self, continuation):
        point = continuation.point
        copy = Point(point.time, point.theta.copy(), point.residual.copy(), point.loss)
        stepper = copied(continuation.stepper)
        memories = dict(continuation.counters), stepper, dict(continuation.watch)
        self.kept.append(Continuation(copy, *memories, cut=continuation.cut))


def same(one, other):
    assert one.stop_reason == other.stop_reason
    assert one.counters == other.counters
    assert one.point.time == other.point.time
    assert one.point.theta.tobytes() == other.point.theta.tobytes()
    assert one.point.residual.tobytes() == other.point.residual.tobytes()


@pytest.mark.parametrize(
    ("method", "activation", "gamma", "dtype"),
    [
        (method, *flow, dtype)
        for method in METHODS
        for flow in (("relu", 1.25), ("tanh", 0.75))
        for dtype in ("float64", "float32")
        if method not in KINK_RESOLVING or (flow[0], dtype) == ("relu", "float64")
    ],
)
def test_continued_from_anywhere_the_end_is_the_same(method, activation, gamma, dtype):
    flow = flow_of(activation, gamma, dtype)
    keeper = Keeper()
    whole = integrate(flow, stepper_of(method, flow), RULES, keeper)
    passes = flow.n_rhs, flow.n_passes
    assert len(keeper.kept) >= (8 if method in KINK_RESOLVING else 20)
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
    flow = flow_of(suiting(method, "tanh"), 1.0, "float64")
    whole = integrate(flow, stepper_of(method, flow), RULES, Trace())
    flow = flow_of(suiting(method, "tanh"), 1.0, "float64")
    first = integrate(flow, stepper_of(method, flow), short, Trace())
    assert first.status == "complete"
    flow = flow_of(suiting(method, "tanh"), 1.0, "float64")
    same(integrate(flow, stepper_of(method, flow), RULES, Trace(), first.continuation), whole)


LONG = StopRules(stop_loss=1e-12, t_max=60.0)


def steps_of(activation, method):
    """A flow, and a stepper of whose steps some are rejected if t_max cuts them short."""
    flow = make_flow(make_network(60, suiting(method, activation), 1.0, seed=1))
    step = 3.0 if method == "gradient-descent" else None
    options = MethodOptions(rtol=1e-3, atol=4.5e-9, step=step)
    return flow, make_stepper(method, options, flow.kinked)[1]


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_t_max_cut_short_leaves_no_trace_in_a_longer_run(method, activation):
    """Wherever in a step t_max lies, also where the shorter step is rejected."""
    whole = integrate(*steps_of(activation, method), LONG, Trace())
    for end in np.linspace(0.7, 58.0, 40):
        keeper = Keeper()
        first = integrate(*steps_of(activation, method), replace(LONG, t_max=end), keeper)
        assert first.status == "complete"
        place = first.continuation
        assert place is not None and not place.cut
        same(integrate(*steps_of(activation, method), LONG, Trace(), place), whole)
        if keeper.kept and keeper.kept[-1].cut:
            # On the way to the same end it may be stopped and continued beyond the cut, too.
            again = replace(LONG, t_max=end), Trace(), keeper.kept[-1]
            same(integrate(*steps_of(activation, method), *again), first)


class Stubborn(Euler):
    """Rejects the first of the steps that t_max cuts short, and remembers it."""

    name = "stubborn"

    def attempt(self, flow, point, limit):
        if self._shrink * self._largest_step(flow, point) > limit and self._shrink == 1.0:
            self._shrink = 2.0**-6
            return Attempt(limit, rejection="loss")
        return super().attempt(flow, point, limit)


def test_a_rejected_step_that_t_max_had_cut_short_is_not_remembered_beyond_t_max():
    def begin():
        return make_flow(make_network(60, "tanh", 1.0)), Stubborn(0.5, 0.1)

    whole = integrate(*begin(), LONG, Trace())
    keeper = Keeper()
    first = integrate(*begin(), replace(LONG, t_max=3.0), keeper)
    assert first.counters.n_rejected == 1
    assert first.point.time == 3.0
    last = keeper.kept[-1]
    assert last.cut and not first.continuation.cut
    assert last.point.time > first.continuation.point.time
    same(integrate(*begin(), LONG, Trace(), first.continuation), whole)
    # Towards the same end the run goes on from anywhere.
    same(integrate(*begin(), replace(LONG, t_max=3.0), Trace(), last), first)


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
