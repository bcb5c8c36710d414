"""Losses and several outputs: derivatives, bounds, tails, runs and their files."""

import math

import numpy as np
import pytest
from comparing import assert_same
from deep_flows import (
    derivative,
    jacobian,
    make_flow,
    make_inputs,
    make_network,
    mobilities,
    outputs,
    rate_of,
)
from hypothesis import given
from hypothesis import strategies as st
from test_deep import WAYS, as_deep, close

import flowsim as fs
from flowsim.analysis import plot
from flowsim.cli import main
from flowsim.errors import ConfigError, DataWarning, FlowsimError
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.losses import LOSSES
from flowsim.networks.deep import DeepFlow
from flowsim.networks.risk import Risk
from flowsim.networks.two_layer import TwoLayerNetwork

# R of all samples in complex arithmetic, as it is in textbooks: for moderate outputs.
RISKS = {
    "square": lambda f, y: np.sum((f - y) ** 2) / (2 * len(y)),
    "logistic": lambda f, y: np.mean(np.log(1.0 + np.exp(-y * f))),
    "softmax": lambda f, y: np.mean(np.log(np.sum(np.exp(f), axis=1)) - np.sum(y * f, axis=1)),
}
CASES = [
    ("square", 1), ("square", 2), ("square", 3), ("logistic", 1), ("softmax", 2), ("softmax", 3)
]  # fmt: skip
EAGER = {"flush": {"seconds": 0.0}, "checkpoint": {"seconds": 0.0}}
CLOCK = (("created",), ("wall_seconds",))


def targets_of(loss, outputs, n, seed=0):
    generator = np.random.default_rng(seed)
    if loss == "square":
        return generator.normal(size=n if outputs == 1 else (n, outputs))
    labels = generator.integers(max(outputs, 2), size=n)
    return 2.0 * labels - 1.0 if loss == "logistic" else np.eye(outputs)[labels]


@WAYS
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("loss", "o"), CASES)
def test_rates_are_gradients_of_the_loss(loss, o, biased, way):
    """To 1e-12 of complex steps through the network and a textbook's loss."""
    assert {name for name, _ in CASES} == set(RISKS) == set(LOSSES)
    for hidden, copies in ((1, True), (2, False), (3, True)):
        network = make_network(
            hidden, 5, "silu", biases=biased, antisymmetric=copies, n_outputs=o, seed=o
        )
        x, _ = make_inputs(seed=hidden)
        data = x, targets_of(loss, o, len(x))
        flow, theta = make_flow(network, data, way=way, loss=loss)
        residual, dense = flow.residual(theta), np.asarray(theta)
        close(residual, outputs(flow, dense) - flow.y, 1e-13)
        assert flow.loss(residual) == pytest.approx(RISKS[loss](outputs(flow, dense), flow.y))
        gradient = derivative(
            lambda state, f=flow: RISKS[loss](outputs(f, state), f.y)[None], dense
        )
        close(rate_of(flow, theta, residual), -mobilities(flow) * gradient[0], 1e-12)


@given(st.integers(0, 10**6), st.floats(-3, 3), st.sampled_from(CASES))
def test_derivatives_and_bounds_hold_for_all_outputs(seed, magnitude, case):
    """The Hessian stays below the diagonal that steps are bounded by, tight or not."""
    loss, o = case
    risk = Risk(targets_of(loss, o, 4, seed), loss)
    f = 10.0**magnitude * np.random.default_rng(seed).normal(size=risk.y.shape)
    residual = f - risk.y
    value, gradient = risk.loss(residual), risk.gradient(residual)
    assert math.isfinite(value) and value >= 0.0 and gradient.shape == f.shape
    if loss == "square":
        assert risk.curvature(residual) is None
        np.testing.assert_array_equal(gradient, residual)
        return
    assert np.all(np.abs(gradient) <= 1.0)
    if loss == "softmax":
        np.testing.assert_allclose(gradient.sum(axis=1), 0.0, atol=1e-15)
    bound = risk.curvature(residual).reshape(len(f), -1)
    assert np.all(bound <= LOSSES[loss].curvature)
    for row, p in zip(bound, (gradient + risk.y).reshape(len(f), -1), strict=True):
        if loss == "logistic":
            hessian = abs(gradient) * (1.0 - abs(gradient))
            assert np.all(hessian <= bound[:, 0] * (1.0 + 1e-15))
        else:
            hessian = np.diag(p) - np.outer(p, p)
            assert np.linalg.eigvalsh(np.diag(row) - hessian)[0] >= -1e-15


def test_tails_keep_their_digits():
    """exp(-40) and exp(-700) as they are, and 10^4 without overflow."""
    margins = np.array([40.0, 700.0, -40.0, -1e4])
    y = np.array([1.0, -1.0, 1.0, -1.0])
    logistic, softmax = LOSSES["logistic"], LOSSES["softmax"]
    values = np.exp(-40.0), np.exp(-700.0), 40.0, 1e4
    slopes = np.exp(-40.0), np.exp(-700.0), 1.0, 1.0
    np.testing.assert_allclose(logistic.value(y * margins, y), values, rtol=1e-13)
    np.testing.assert_allclose(-y * logistic.derivative(y * margins, y), slopes, rtol=1e-13)
    # Two classes whose outputs differ by the margin, and a third one out of sight.
    f = np.stack([margins, np.zeros(4), np.full(4, -2e4)], axis=1) + 1e3
    right = np.eye(3)[[0, 0, 0, 0]]
    np.testing.assert_allclose(softmax.value(f, right), values, rtol=1e-13)
    np.testing.assert_allclose(-softmax.derivative(f, right)[:, 0], slopes, rtol=1e-13)
    for loss, at, wanted in ((logistic, margins * y, y), (softmax, f, right)):
        assert loss.correct is not None
        assert loss.correct(at, wanted).tolist() == [True, True, False, False]
        assert not loss.correct(0.0 * at, wanted).any()  # a tie
    assert Risk(right, "softmax").loss(f + np.nan) == np.inf


def test_rates_by_the_kernel_are_those_of_the_flow():
    """d f / d time = -K dR/df, and the largest rate of its linear part is below the bound."""
    network = make_network(2, 30, "tanh", n_outputs=3)
    x, _ = make_inputs(6)
    flow, theta = make_flow(network, (x, targets_of("softmax", 3, 6)), loss="softmax")
    residual, kernel = flow.residual(theta), flow.tangent_kernel(theta)
    moved = np.einsum("icp,cp->i", jacobian(flow, theta), rate_of(flow, theta, residual))
    close(-kernel.matrix @ flow.gradient(residual).reshape(-1) / 6, moved, 1e-12)
    p = flow.gradient(residual) + flow.y
    hessian = np.zeros((6, 3, 6, 3))
    for i in range(6):
        hessian[i, :, i, :] = np.diag(p[i]) - np.outer(p[i], p[i])
    rates = np.linalg.eigvals(kernel.matrix @ hessian.reshape(18, 18) / 6).real
    bound = kernel.rate_bound(flow.curvature(residual))
    assert np.max(rates) <= bound <= kernel.largest_rate * LOSSES["softmax"].curvature * (1 + 1e-12)


X = np.random.default_rng(1).normal(size=(24, 3))
LABELS = (X[:, 0] * X[:, 1] > 0.0).astype(int) + (X[:, 2] > 0.0)
SOFTMAX = {"loss": "softmax", "stop_loss": 0.02}


def simulate(network=(), integrate=(), **options):
    return fs.simulate(
        network={"kind": "deep", "width": 30, **dict(network)},
        scaling={"scheme": "mup"},
        integrate={"threads": 1, **SOFTMAX, **dict(integrate)},
        **{"x": X, "y": np.eye(3)[LABELS], **options},
    )


@pytest.mark.parametrize(
    ("method", "activation", "passes"),
    [
        ("heun", "relu", "factored"), ("tsit54", "gelu", "factored"), ("rdpk35", "tanh", "dense"),
        ("rkc2", "tanh", "dense"),
    ],
)  # fmt: skip
def test_a_run_with_several_outputs_goes_on_to_the_same_bits(method, activation, passes, tmp_path):
    network = {"activation": activation, "biases": activation == "gelu"}
    options = {"method": method, "passes": passes, "stop_loss": 0.0}
    whole, output = tmp_path / "whole.h5", tmp_path / "run.h5"
    test = {"x_test": X[:7] + 0.01, "y_test": np.eye(3)[LABELS[:7]]}
    simulate(network, options | {"max_steps": 14}, record=dict(EAGER), output=whole, **test)
    for steps in (5, 14):
        more = {"max_steps": steps}
        simulate(network, options | more, record=dict(EAGER), output=output, **test)
    with fs.open(whole) as run, fs.open(output) as parts:
        assert_same(run, parts, *CLOCK)
        assert run.final["residual"].tobytes() == parts.final["residual"].tobytes()
        assert np.all(np.diff(run.observables["loss"]) < 0.0)


@pytest.mark.parametrize(("method", "activation"), [("heun", "relu"), ("tsit54", "gelu")])
def test_classes_are_learnt(method, activation):
    test = {"x_test": X[:7] + 0.01, "y_test": np.eye(3)[LABELS[:7]]}
    run = simulate({"activation": activation}, {"method": method}, **test)
    assert run.stop_reason.startswith("stop_loss")
    assert np.all(np.diff(run.observables["loss"]) < 0.0)
    assert run.observables["accuracy"][-1] == run.observables["test_accuracy"][-1] == 1.0


def test_steps_in_the_tail_are_as_long_as_the_loss_is_small():
    run = simulate(integrate={"method": "heun", "stop_loss": 1e-3})
    loss, dt = (run.observables[name] for name in ("loss", "dt"))
    at = [np.argmax(loss < bound) for bound in (3e-2, 2e-3)]
    assert loss[at[0]] / loss[at[1]] > 8.0 and dt[at[1]] > 4.0 * dt[at[0]]


def test_a_file_with_several_outputs(tmp_path, capsys):
    path = tmp_path / "run.h5"
    record = {"kernel": {"schedule": "log", "per_decade": 1}, "snapshots": {"dtype": "float64"}}
    network = {"biases": True, "antisymmetric": True, "activation": "tanh"}
    simulate(network, record=record, output=path)
    with fs.open(path) as run:
        assert (run.attributes["loss"], run.attributes["n_outputs"]) == ("softmax", 3)
        assert "log sum_k exp(f_k(x_i))" in run.attributes["convention"]
        assert run.verify() == []
        dims = {
            (group, name): run.group(group).array(name).dims
            for group in ("observables", "data", "final", "snapshots")
            for name in run.group(group)
        }
        assert dims["observables", "residual"] == ("time", "sample", "output")
        assert dims["data", "y"] == dims["final", "residual"] == ("sample", "output")
        assert dims["final", "output_weights"] == ("neuron_2", "output")
        assert dims["final", "second_output_biases"] == ("output",)
        assert dims["snapshots", "output_weights"] == ("time_snapshot", "neuron_2", "output")
        assert run.observables.array("loss").units == "1"
        for t, residual in ((None, run.final["residual"]), (0.0, run.observables["residual"][0])):
            np.testing.assert_allclose(run.predict(X, t) - run.data["y"], residual, atol=1e-12)
        f = run.observables["residual"] + run.data["y"]
        np.testing.assert_allclose(
            run.observables["loss"], [RISKS["softmax"](at, run.data["y"]) for at in f], rtol=1e-12
        )
        found = np.mean(np.argmax(f[-1], axis=1) == LABELS)
        assert run.observables["accuracy"][[0, -1]].tolist() == [0.0, found]
        assert run.kernel["eigenvalues"].shape[1] == 72
        again = simulate(network, {"max_steps": 1}, initial=path)
        start = again.observables["residual"][0]
        np.testing.assert_allclose(start, run.final["residual"], atol=1e-12)
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "n_outputs = 3" in shown and "loss = softmax" in shown and "accuracy" in shown
    assert main(["classify", str(path)]) == 0
    assert main(["export", str(path), "--to", "csv", "-o", str(tmp_path / "rows.csv")]) == 0
    header = (tmp_path / "rows.csv").read_text().partition("\n")[0].split(",")
    assert {"residual_71", "accuracy"} <= set(header)
    for kind in ("loss", "rd"):
        assert plot(kind, path, tmp_path / "figure.png").stat().st_size
    assert main(["plot", "function", str(path), "-o", str(tmp_path / "figure.png")]) == 2
    capsys.readouterr()


def test_xarray_finds_the_outputs(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    simulate({"width": 10}, {"max_steps": 5}, output=tmp_path / "run.h5")
    with xarray.open_datatree(tmp_path / "run.h5", engine="h5netcdf") as tree:
        assert tree["observables/residual"].dims == ("time", "sample", "output")
        assert tree["final/output_weights"].sizes["output"] == 3


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_two_layers_learn_a_logistic_loss_as_one_hidden_layer_does(activation):
    two = fs.simulate(
        network={"width": 40, "activation": activation},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        integrate={"loss": "logistic", "stop_loss": 0.05, "threads": 1},
        x=X,
        y=2.0 * (LABELS > 0) - 1.0,
    )
    assert two.stop_reason.startswith("stop_loss") and two.observables["accuracy"][-1] == 1.0
    network = as_deep(TwoLayerNetwork(two.scaling, ACTIVATIONS[activation]))
    flow = DeepFlow(network, two.data["x"], two.data["y"], loss="logistic")
    state = network.stack(two.parameters(), 4)
    np.testing.assert_allclose(flow.residual(state), two.final["residual"], atol=1e-12)
    assert flow.loss(two.final["residual"]) == two.final["loss"]


def test_lists_and_sweeps_of_another_loss_are_the_runs_one_by_one(tmp_path):
    experiment = {
        "network": {"width": 20}, "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
        "integrate": {"loss": "logistic", "max_steps": 12, "threads": 1},
    }  # fmt: skip
    data = {"x": X, "y": 2.0 * (LABELS > 0) - 1.0}
    one = fs.simulate(experiment, **data)
    runs = fs.simulate(experiment, seeds=2, **data)
    assert runs[0].final["residual"].tobytes() == one.final["residual"].tobytes()
    runs.save(tmp_path / "runs.h5")
    deep = {"kind": "deep", "width": 10}
    several = fs.simulate(
        {"network": deep, "scaling": {"scheme": "mup"}, "integrate": SOFTMAX | {"max_steps": 12}},
        seeds=2, x=X, y=np.eye(3)[LABELS],
    )  # fmt: skip
    several.save(tmp_path / "several.h5")
    for path, singles in (("runs.h5", runs), ("several.h5", several)):
        for found, single in zip(fs.open(tmp_path / path), singles, strict=True):
            rows = found.observables["residual"]
            assert rows.tobytes() == single.observables["residual"].tobytes()
            assert found.final["output_weights"].shape == single.final["output_weights"].shape


def test_layers_of_relu_grow_alike_whatever_the_loss():
    drifts = []
    for rtol in (1e-3, 1e-5):
        run = simulate(integrate={"method": "heun", "rtol": rtol, "stop_loss": 0.2})
        drifts.append(run.observables["balance_drift"][-1])
        assert run.relative_change["all"] > 0.1
    assert drifts[0] < 1e-3 and drifts[1] < 0.1 * drifts[0]


@pytest.mark.parametrize(
    ("integrate", "y", "message"),
    [
        ({"loss": "hinge"}, np.eye(3)[LABELS], 'integrate.loss = "hinge": unknown; choose from'),
        ({}, LABELS, r"data.y: has one column; .*\(integrate.loss = \"softmax\"\)$"),
        ({}, 2.0 * np.eye(3)[LABELS], "data.y: must have a single 1 in each row"),
        ({"loss": "logistic"}, np.eye(3)[LABELS], "data.y: has 3 columns; give one column of 1"),
        ({"loss": "logistic"}, LABELS, "data.y: must be 1 or -1; encode labels"),
    ],
)
def test_targets_that_are_not_of_the_loss_are_refused(integrate, y, message):
    with pytest.raises(ConfigError, match=f"^{message}") as error:
        simulate(integrate=integrate, y=y)
    assert "\n" not in str(error.value)


def test_a_kernel_that_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr("flowsim.backends.machine_memory", lambda: 2.0**17)
    with pytest.raises(FlowsimError, match=r"^data: K of 24 samples with 3 outputs .*tsit54"):
        simulate(integrate={"method": "heun"})
    assert simulate({"width": 4}, {"method": "tsit54", "max_steps": 2}).final["n_steps"] == 2


def test_parallel_inputs_of_one_class_are_no_contradiction(recwarn):
    options = {"x": [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], "data": {"bias": False}}
    simulate(integrate={"max_steps": 1}, y=np.eye(2)[[0, 0, 1]], **options)
    assert not recwarn.list
    simulate(integrate={"max_steps": 1, "loss": "square"}, y=np.eye(2)[[0, 0, 1]], **options)
    assert "parallel" in str(recwarn.pop(DataWarning).message)
