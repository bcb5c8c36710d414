"""Gradient descent as networks are trained: momentum, mini-batches, the papers' protocol."""

import numpy as np
import pytest
from comparing import assert_same
from flows import make_flow, make_network

import flowsim as fs
from flowsim.errors import ConfigError
from flowsim.networks.two_layer import TwoLayerFlow
from flowsim.steppers.batches import Batches
from flowsim.steppers.driver import NoObserver, integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.methods import MethodOptions, make_stepper

GENERATOR = np.random.default_rng(4)
X = GENERATOR.normal(size=(23, 3))
Y = X[:, 0] * np.tanh(X[:, 1])
EAGER = {"flush": {"seconds": 0.0}, "checkpoint": {"seconds": 0.0}}


def descend(flow, steps, **options):
    _, stepper = make_stepper("gradient-descent", MethodOptions(**options), False)
    return integrate(flow, stepper, StopRules(stop_loss=0.0, max_steps=steps), NoObserver())


def linear_flow():
    """f(x) = x . v with v = kappa sum_k a_k w_k: only w moves, so that R is a quadratic of w."""
    network = make_network(width=6, activation="linear", mobility={"output": 0.0})
    return make_flow(network, X, Y)


def by_hand(flow, steps, step, momentum=0.0, batches=None):
    """The same recursion, written out for that quadratic."""
    a, w = flow.initial[0], flow.initial[1:].copy()
    velocity, field = np.zeros_like(w), flow.field
    for number in range(steps):
        rows = slice(None) if batches is None else batches.rows(number, len(Y))
        x, y = X[rows], Y[rows]
        residual = field.multiplier * (x @ w @ a) - y
        rate = -field.input_mobility * field.multiplier * np.outer(x.T @ residual, a) / len(y)
        velocity = momentum * velocity + rate
        w = w + step * velocity
    return w


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("batches", [None, Batches(5, seed=3), Batches(23, seed=1)])
def test_every_step_is_that_of_the_textbook(momentum, batches):
    flow = linear_flow()
    size = {} if batches is None else {"batch_size": batches.size, "seed": batches.seed}
    end = descend(
        flow, 40, step=0.05, momentum=momentum, restart=False if not size else None, **size
    )
    expected = by_hand(flow, 40, 0.05, momentum, batches)
    np.testing.assert_allclose(end.point.theta[1:], expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(end.point.theta[0], flow.initial[0])
    assert end.point.time == pytest.approx(2.0)


def test_an_epoch_takes_every_sample_once_and_another_one_in_another_order():
    batches = Batches(5, seed=7)
    epochs = [
        np.concatenate([batches.rows(5 * epoch + number, 23) for number in range(5)])
        for epoch in range(3)
    ]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), np.arange(23))
    assert not np.array_equal(epochs[0], epochs[1])
    assert [len(batches.rows(number, 23)) for number in range(6)] == [5, 5, 5, 5, 3, 5]
    assert not np.array_equal(epochs[0], np.concatenate([Batches(23, 8).rows(0, 23)]))
    np.testing.assert_array_equal(batches.rows(11, 23), Batches(5, seed=7).rows(11, 23))


def simulate(network=(), integrate=(), scaling=None, **options):
    return fs.simulate(
        network={"kind": "deep", "width": 80, "activation": "gelu", **dict(network)},
        scaling=scaling or {"scheme": "mup"},
        integrate={
            "threads": 1, "method": "gradient-descent", "step": 0.1, "stop_loss": 0.0,
            **dict(integrate),
        },
        x=X,
        y=Y,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        ({"batch_size": 4, "passes": "factored"}, {"scheme": "mup"}),
        ({"batch_size": 4, "passes": "dense", "momentum": 0.5}, {"scheme": "mup"}),
        ({"momentum": 0.9}, {"scheme": "hp", "calibrate": True}),
        ({"batch_size": 7, "dtype": "float32"}, {"scheme": "ip-llr", "calibrate": True}),
    ],
)
def test_a_run_goes_on_to_the_same_bits(options, scheme, tmp_path):
    whole, output = tmp_path / "whole.h5", tmp_path / "run.h5"
    record = EAGER | {"observables": {"schedule": "steps", "every": 5}}
    simulate((), {**options, "max_steps": 15}, scheme, output=whole, record=record)
    for steps in (1, 8, 15):
        simulate((), {**options, "max_steps": steps}, scheme, output=output, record=record)
    with fs.open(whole) as one, fs.open(output) as two:
        assert_same(one, two, ("created",), ("wall_seconds",))
        assert one.final["n_steps"] == 15


def test_factors_are_the_same_descent():
    runs = [
        simulate((), {"batch_size": 4, "max_steps": 40, "passes": passes})
        for passes in ("dense", "factored")
    ]
    for name in ("loss", "relative_change", "hidden_weights_2"):
        np.testing.assert_allclose(runs[1].final[name], runs[0].final[name], rtol=1e-9, atol=1e-12)


def test_batches_are_of_any_loss_and_number_of_outputs(tmp_path):
    """Softmax, three classes: the first step is that of the first batch alone, and all learn."""
    labels = np.eye(3)[GENERATOR.integers(0, 3, size=len(X))]
    options = {"method": "gradient-descent", "step": 0.2, "stop_loss": 0.0, "loss": "softmax"}

    def train(x, y, **more):
        return fs.simulate(
            network={"kind": "deep", "width": 40, "activation": "tanh", "antisymmetric": True},
            scaling={"scheme": "mup"}, integrate=options | more, x=x, y=y,
        )  # fmt: skip

    rows = Batches(6, 0).rows(0, len(X))
    one = train(X, labels, batch_size=6, max_steps=1)
    alone = train(X[rows], labels[rows], max_steps=1)
    for name in ("input_weights", "hidden_weights_2", "output_weights"):
        np.testing.assert_allclose(one.final[name], alone.final[name], rtol=1e-12, atol=1e-14)
    whole = train(X, labels, batch_size=6, momentum=0.9, max_steps=300)
    assert whole.observables["loss"][0] == pytest.approx(np.log(3.0))
    assert whole.observables["accuracy"][-1] > 0.9


class Looks(TwoLayerFlow):
    """Counts how often all samples are looked at."""

    looks = 0

    def residual(self, theta):
        Looks.looks += self.n_samples == len(X)
        return super().residual(theta)

    def combine(self, *arguments):
        Looks.looks += self.n_samples == len(X)
        return super().combine(*arguments)


def test_all_samples_are_looked_at_once_an_epoch_and_not_every_step():
    flow = Looks(make_network(width=40), X, Y)
    Looks.looks = 0
    end = descend(flow, 50, step=0.1, batch_size=5)
    assert Looks.looks == 1 + 50 // 5  # at t = 0, then at the end of every epoch
    assert (flow.n_rhs, flow.n_passes) == (50, 101)
    assert end.stop_reason.startswith(f"max_steps: 50 steps taken, R = {end.point.loss:.4g}")


def test_the_loss_is_watched_where_an_epoch_ends():
    rules = StopRules(stop_loss=0.05, max_steps=5000)
    _, stepper = make_stepper(
        "gradient-descent", MethodOptions(step=0.5, batch_size=5), kinked=False
    )
    end = integrate(make_flow(make_network(width=40), X, Y), stepper, rules, NoObserver())
    assert end.stop_reason.startswith("stop_loss")
    assert end.counters.n_steps % 5 == 0
    assert end.point.loss == pytest.approx(0.05, rel=1e-5)


def test_no_restart_where_the_loss_may_rise():
    flow = make_flow(make_network(width=40), X, Y)
    rate = flow.tangent_kernel(flow.initial).largest_rate
    runs = {
        name: descend(flow, 60, step=2.5 / rate, **options)
        for name, options in {
            "rule": {}, "off": {"restart": False}, "batches": {"batch_size": 8},
            "momentum": {"momentum": 0.3}, "on": {"momentum": 0.3, "restart": True},
        }.items()
    }  # fmt: skip
    restarts = {name: run.counters.n_restarts > 0 for name, run in runs.items()}
    assert restarts == {
        "rule": True, "off": False, "batches": False, "momentum": False, "on": True
    }  # fmt: skip


@pytest.mark.parametrize("options", [{"batch_size": 5}, {"momentum": 0.5}, {"restart": False}])
def test_what_diverges_fails_at_once(options):
    run = descend(
        make_flow(make_network(width=10, activation="linear"), X, Y), 500, step=1e9, **options
    )
    assert (run.status, run.counters.n_rejected) == ("failed", 1)
    assert run.stop_reason.startswith("non_finite: R is not finite after the step of 1e+09 at tau")


@pytest.mark.parametrize(
    ("integrate", "message"),
    [
        ({"method": "heun", "batch_size": 5}, 'integrate.batch_size = 5: method "heun" does not'),
        ({"batch_size": 0}, "integrate.batch_size = 0: "),
        ({"momentum": 1.0}, "integrate.momentum = 1.0: "),
        ({"batch_size": 5, "restart": True}, "integrate.restart = true: needs full batches"),
        ({"batch_size": 5, "estimate_error": True}, "integrate.estimate_error = true: needs full"),
        (
            {"momentum": 0.5, "passes": "factored"},
            "integrate.passes = .*momentum needs dense rates; set passes",
        ),
    ],
)
def test_mistakes_are_one_line_each(integrate, message):
    if "method" in integrate:
        integrate = {**integrate, "step": None}
    with pytest.raises(ConfigError, match=f"^{message}") as error:
        simulate((), integrate)
    assert "\n" not in str(error.value)
