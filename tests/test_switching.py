"""A pair, stiff and lazy methods in turns: when they change, what is recorded, going on."""

import math

import numpy as np
import pytest
from flows import make_flow, make_network

import flowsim as fs
from flowsim.cli import main
from flowsim.steppers import PARTS
from flowsim.steppers.base import Point
from flowsim.steppers.methods import METHODS, MethodOptions
from flowsim.steppers.rates import bound_of_rates
from flowsim.steppers.switching import Switching, real_stability
from flowsim.steppers.tableaux.bs32 import BS32
from flowsim.steppers.tableaux.dop853 import DOP853
from flowsim.steppers.tableaux.dp54 import DP54
from flowsim.steppers.tableaux.heun2 import HEUN2
from flowsim.steppers.tableaux.tsit54 import TSIT54

X = np.linspace(-1.0, 1.0, 8)
Y = np.sin(3.0 * X) + 0.3 * np.sin(9.0 * X)
STIFF = 3e3
"""A time by which accuracy has long ceased to limit the step."""


def simulate(method="switching", end=STIFF, **options):
    integrate = {"method": method, "t_max": end, "stop_loss": 0.0, "steady_slope": 0.0}
    scaling = {"gamma": 1.0, "gamma_prime": 0.0}
    sections = {
        "network": {"width": 50, "activation": "tanh"} | options.pop("network", {}),
        "scaling": options.pop("scaling", scaling),
        "integrate": integrate | options.pop("integrate", {}),
        "record": {"snapshots": {"schedule": "none"}} | options.pop("record", {}),
    }
    return fs.simulate(**sections, x=X, y=Y, **options)


@pytest.mark.parametrize("tableau", [HEUN2, BS32, DP54, TSIT54, DOP853])
def test_real_stability_ends_where_the_polynomial_leaves_one(tableau):
    def amplification(z):
        return 1.0 + z * tableau.b @ np.linalg.solve(
            np.eye(tableau.stages) - z * tableau.a, np.ones(tableau.stages)
        )

    end = real_stability(tableau)
    inside = [abs(amplification(-z)) for z in np.linspace(0.0, end, 200)]
    assert max(inside) <= 1.0 + 1e-8
    assert abs(amplification(-end - 0.02)) > 1.0


def test_a_stiff_flow_changes_to_the_stiff_methods_and_is_where_it_should_be():
    run = simulate(end=1e5, integrate={"atol": 1e-6})
    assert tuple(run.attributes["methods"].split()) == PARTS["switching"]
    seen = run.observables
    counts = seen["steps_of_method"]
    assert np.array_equal(counts.sum(axis=1), seen["step"])
    assert np.all(np.diff(counts, axis=0) >= 0)
    # The pair begins, then come a stabilised and an implicit method, and an exponential one ends.
    first = [np.flatnonzero(seen["method"] == place)[0] for place in range(4)]
    assert first == sorted(first) and seen["method"][-1] == 3
    assert seen["stiffness"][first[1]] > Switching.ENTER
    assert np.all(counts[-1, 1:] < 200)


def test_it_costs_less_than_the_pair_and_is_as_accurate():
    run, explicit = simulate(), simulate("tsit54")
    exact = simulate("tsit54", integrate={"rtol": 1e-8})
    assert 3 * run.observables["n_rhs"][-1] < explicit.observables["n_rhs"][-1]
    for one in (run, explicit):
        error = np.linalg.norm(one.final["residual"] - exact.final["residual"])
        assert error < 1e-3 * np.linalg.norm(Y)


def test_a_flow_that_is_not_stiff_stays_with_the_pair():
    run, alone = simulate(end=3.0), simulate("tsit54", end=3.0)
    assert not run.observables["method"].any()
    for name in ("loss", "dt", "relative_change"):
        np.testing.assert_array_equal(run.observables[name], alone.observables[name])
    # A step that is tried and K at its ends, and a look.
    counts = [one.observables["n_passes"][-1] for one in (run, alone)]
    assert counts[0] <= counts[1] + 4 + run.final["n_steps"] // Switching.LOOK
    for name in ("method", "steps_of_method", "stiffness"):
        assert name not in alone.observables
    assert "methods" not in alone.attributes


def test_large_kernels_are_not_factorised(monkeypatch):
    monkeypatch.setattr("flowsim.steppers.switching.passes_for_kernel", lambda rows: 1e4)
    counts = simulate().observables["steps_of_method"][-1]
    assert counts[1] > 0 and counts[2] == 0


def test_factored_rates_leave_no_place_for_stages():
    network = {"kind": "deep", "width": 30, "hidden_layers": 2, "activation": "tanh"}
    options = {"network": network, "scaling": {"scheme": "mup"}, "x": X, "y": Y}
    for passes in ("factored", "dense"):
        integrate = {
            "method": "switching", "passes": passes, "t_max": 300.0, "stop_loss": 0.0,
            "steady_slope": 0.0,
        }  # fmt: skip
        counts = fs.simulate(**options, integrate=integrate).observables["steps_of_method"][-1]
        assert (counts[2] > 0 == counts[1]) if passes == "factored" else counts[1] > 0


@pytest.mark.parametrize(("gamma", "steps"), [(1.0, 7), (1.0, 40), (1.0, 45), (0.5, 8), (0.5, 141)])
def test_a_run_goes_on_to_the_same_bits_on_either_side_of_a_change(tmp_path, gamma, steps):
    scaling = {"gamma": gamma, "gamma_prime": 0.0}
    whole = simulate(scaling=scaling)
    path = tmp_path / "run.h5"
    simulate(output=path, scaling=scaling, integrate={"max_steps": steps})
    run = simulate(output=path, scaling=scaling)
    for group in ("observables", "final"):
        for name in set(whole.group(group)) - {"wall_seconds"}:
            np.testing.assert_array_equal(whole.group(group)[name], run.group(group)[name])


def test_a_method_that_proves_no_better_gives_the_run_back_and_waits_longer():
    flow = make_flow(make_network(width=20, activation="tanh"), np.column_stack([X, np.ones(8)]), Y)
    stepper = METHODS["switching"](MethodOptions(rtol=1e-3))
    point = Point.of(flow, 0.0, flow.initial.copy(), flow.residual(flow.initial))
    stepper.start(flow, point)
    names, first = PARTS["switching"], stepper.memory()["patience"]
    rate, interval = bound_of_rates(flow, point), real_stability(TSIT54)
    stepper._liveliness = lambda kernel, point: np.nan

    def look(reach):
        stepper._present.step = reach * interval / rate
        stepper._look(flow, point)
        return stepper.memory()["method"]

    assert [look(0.9) for _ in range(first)] == [names[0]] * (first - 1) + [names[1]]
    # Fewer stages than an implicit step has passes at 2, and more at 1,000; at 2 not by so many
    # that it would be worth going back.
    wanted = [names[place] for place in (1, 2, 2, 1)]
    assert [look(reach) for reach in (2.0, 1e3, 2.0, 1.2)] == wanted
    assert (look(1.0), look(0.5)) == names[1::-1]
    # What it starts with is no longer than what is stable.
    assert stepper._present.step * rate <= interval * (1.0 + 1e-12)
    assert stepper.memory()["patience"] == 2 * first
    assert [look(0.9) for _ in range(first)] == [names[0]] * first
    assert look(0.1) == names[0]  # and the looks begin anew
    assert [look(0.9) for _ in range(2 * first)] == [names[0]] * (2 * first - 1) + [names[1]]


def test_looks_are_rarer_where_they_cost_more():
    flow = make_flow(make_network(width=20, activation="tanh"), np.column_stack([X, np.ones(8)]), Y)
    stepper = METHODS["switching"](MethodOptions())
    small = Point(0.0, None, np.zeros(8), 1.0)
    large = Point(0.0, None, np.zeros(400), 1.0)
    stepper.start(flow, Point.of(flow, 0.0, flow.initial.copy(), flow.residual(flow.initial)))
    assert stepper._interval_of_looks(small) == Switching.LOOK < stepper._interval_of_looks(large)
    assert math.isnan(stepper.memory()["stiffness"])


LAZY = {"network": {"width": 2000}, "scaling": {"gamma": 0.5, "gamma_prime": 0.0}}


def test_a_lazy_flow_is_left_to_the_exponential_method():
    run, explicit = (simulate(m, end=100.0, **LAZY) for m in ("switching", "tsit54"))
    counts, passes = run.observables["steps_of_method"][-1], run.observables["n_passes"][-1]
    assert counts[3] > 10 and np.all(counts[:3] == 0)
    assert 10 * passes < explicit.observables["n_passes"][-1]
    exact = simulate("tsit54", end=100.0, integrate={"rtol": 1e-8}, **LAZY)
    error = np.linalg.norm(run.final["residual"] - exact.final["residual"])
    assert error < 2e-4 * np.linalg.norm(Y)


def look_of(place, reach, liveliness):
    """The stepper in a place at a step of so many intervals, and a look at K there."""
    flow = make_flow(make_network(width=20, activation="tanh"), np.column_stack([X, np.ones(8)]), Y)
    stepper = METHODS["switching"](MethodOptions())
    point = Point.of(flow, 0.0, flow.initial.copy(), flow.residual(flow.initial))
    stepper.start(flow, point)
    step = reach * real_stability(TSIT54) / bound_of_rates(flow, point)

    def look(place, liveliness):
        if stepper._place != place:
            stepper._take_up(place)
            stepper._present.start(flow, point)
        stepper._present.step, stepper._gone, stepper._age = step, 5.0 * step, 5
        stepper._liveliness = lambda kernel, point: liveliness
        stepper._look(flow, point)
        return stepper

    return look, look(place, liveliness)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_where_the_kernel_is_constant_any_method_gives_way(place):
    names = PARTS["switching"]
    _, stepper = look_of(place, 0.5 if place == 0 else 3.0, 2.0 * Switching.LAZY)
    assert stepper.memory()["method"] == names[place]
    look, stepper = look_of(place, 0.5 if place == 0 else 3.0, 0.5 * Switching.LAZY)
    assert stepper.memory()["method"] == names[3]
    assert look(3, 0.9 * Switching.LIVELY).memory()["method"] == names[3]


@pytest.mark.parametrize(
    ("reach", "liveliness", "after"),
    [(0.1, 0.0, 0), (0.5, 1.0, 0), (1.2, 1.0, 1), (1e3, 1.0, 2), (1e3, np.nan, 3)],
)
def test_where_it_has_begun_to_change_the_others_follow(reach, liveliness, after):
    look, stepper = look_of(3, reach, liveliness)
    assert stepper.memory()["method"] == PARTS["switching"][after]
    if after == 3:
        return
    # One look is not enough to come back.
    calm = [look(after, 0.0).memory()["method"] for _ in range(2)]
    assert calm[-1] == PARTS["switching"][3] and calm[0] != calm[-1]


def test_liveliness_is_the_change_of_the_kernel_while_e_falls():
    flow = make_flow(make_network(width=20, activation="tanh"), np.column_stack([X, np.ones(8)]), Y)
    stepper = METHODS["switching"](MethodOptions())
    point = Point.of(flow, 0.0, flow.initial.copy(), flow.residual(flow.initial))
    stepper.start(flow, point)
    kernel = flow.tangent_kernel(point.theta)
    later = flow.make_kernel(1.1 * kernel.grams)
    fallen = Point(1.0, point.theta, point.residual, point.loss * np.exp(-0.4))
    assert stepper._liveliness(kernel, point) == 0.0
    assert stepper._liveliness(later, fallen) == pytest.approx((0.1 / 1.1) / 0.2)
    assert stepper._liveliness(later, fallen) == 0.0
    assert math.isnan(stepper._liveliness(None, fallen))
    assert math.isnan(stepper._liveliness(kernel, Point(2.0, None, point.residual, 0.0)))


def test_info_tells_the_shares(tmp_path, capsys):
    path = tmp_path / "run.h5"
    run = simulate(output=path)
    assert main(["info", str(path)]) == 0
    shares = run.observables["steps_of_method"][-1] / run.final["n_steps"]
    said = capsys.readouterr().out
    parts = zip(PARTS["switching"], shares, strict=True)
    assert ", ".join(f"{name} {share:.0%}" for name, share in parts) + " of the steps" in said
